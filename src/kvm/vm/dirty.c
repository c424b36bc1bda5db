/* SPDX-License-Identifier: MIT */
/*
 * The dirty log (KVM api.rst, KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG). A write tag of a vCPU's
 * software TLB is installed only after the page's bit was set, so a harvest takes bits first and
 * then has all write tags flushed: what was written meanwhile is in memory before the ioctl
 * returns, and what is written later sets the bit anew.
 *
 * Before that, it waits for every vCPU that is at a write: on a busy host its thread may have stood there for long,
 * and its page would come up after the harvest, holding what the guest meant to write long before.
 */
#include "kvm/vm/ioctl.h"
#include "kvm/vm/slot_array.h"

#include <stdlib.h>

static const struct memslot *logged_slot(const struct vm *vm, uint32_t id)
{
	const struct memslot *slot = slot_by_id(vm, id);

	return slot && slot->dirty ? slot : NULL;
}

static int slot_id_check(const struct vm *vm, uint32_t id)
{
	return id >> 16 >= vm_address_spaces(vm) || (uint16_t)id >= VM_MAX_SLOTS ? -EINVAL : 0;
}

void vm_dirty_forget_locked(struct vm *vm, uint32_t slot, uint64_t offset)
{
	const struct memslot *s = slot_id_check(vm, slot) ? NULL : logged_slot(vm, slot);

	if (s && offset < s->nr_pages)
		__atomic_fetch_and(&s->dirty[offset / 64], ~BIT(offset % 64), __ATOMIC_SEQ_CST);
}

static size_t bitmap_words(gfn_t nr_pages)
{
	return ALIGN_UP(nr_pages, 64) / 64;
}

/* Take all bits into buf: true if there were any. */
static bool bitmap_take(uint64_t *map, uint64_t *buf, size_t words)
{
	bool any = false;

	for (size_t i = 0; i < words; i++) {
		buf[i] = 0;
		if (__atomic_load_n(&map[i], __ATOMIC_RELAXED))
			buf[i] = __atomic_exchange_n(&map[i], 0, __ATOMIC_SEQ_CST);
		any |= buf[i] != 0;
	}
	return any;
}

static int get_log_locked(struct vm *vm, const struct kvm_dirty_log *log)
{
	const struct memslot *slot = logged_slot(vm, log->slot);
	size_t words;
	uint64_t *buf;
	int r;

	if (!slot)
		return -ENOENT;
	words = bitmap_words(slot->nr_pages);
	vm->ops->request_all(vm, VM_REQUEST_FILTER, true);
	if (vm->manual_dirty_log)
		return ioctl_copy_out(log->dirty_bitmap, slot->dirty, words * 8);
	buf = malloc(words * 8);
	if (!buf)
		return -ENOMEM;
	if (bitmap_take(slot->dirty, buf, words))
		vm->ops->request_all(vm, VM_REQUEST_FLUSH_WRITES, true);
	r = ioctl_copy_out(log->dirty_bitmap, buf, words * 8);
	free(buf);
	return r;
}

long vm_get_dirty_log(struct vm *vm, void *arg)
{
	const struct kvm_dirty_log *log = arg;
	int r = vm->dirty_ring_size ? -ENXIO : slot_id_check(vm, log->slot);

	if (r)
		return r;
	pthread_mutex_lock(&vm->slots_lock);
	r = get_log_locked(vm, log);
	pthread_mutex_unlock(&vm->slots_lock);
	return r;
}

/* Clear the bits that stand in buf: true if any was set. */
static bool bitmap_clear(uint64_t *map, const uint64_t *buf, size_t words)
{
	bool any = false;

	for (size_t i = 0; i < words; i++)
		if (buf[i])
			any |= __atomic_fetch_and(&map[i], ~buf[i], __ATOMIC_SEQ_CST) & buf[i];
	return any;
}

static bool clear_range_valid(const struct memslot *slot, const struct kvm_clear_dirty_log *log)
{
	uint64_t left;

	if (log->first_page > slot->nr_pages)
		return false;
	left = slot->nr_pages - log->first_page;
	return log->num_pages <= left && (log->num_pages == left || log->num_pages % 64 == 0);
}

static int clear_log_locked(struct vm *vm, const struct kvm_clear_dirty_log *log)
{
	const struct memslot *slot = logged_slot(vm, log->slot);
	size_t words = bitmap_words(log->num_pages);
	uint64_t *buf;
	int r;

	if (!slot)
		return -ENOENT;
	if (!clear_range_valid(slot, log))
		return -EINVAL;
	buf = malloc(words * 8 + 8);
	if (!buf)
		return -ENOMEM;
	r = ioctl_copy_in(buf, log->dirty_bitmap, words * 8);
	if (!r && bitmap_clear(slot->dirty + log->first_page / 64, buf, words))
		vm->ops->request_all(vm, VM_REQUEST_FLUSH_WRITES, true);
	free(buf);
	return r;
}

long vm_clear_dirty_log(struct vm *vm, void *arg)
{
	const struct kvm_clear_dirty_log *log = arg;
	int r = vm->dirty_ring_size ? -ENXIO : slot_id_check(vm, log->slot);

	if (r)
		return r;
	if (log->first_page % 64)
		return -EINVAL;
	pthread_mutex_lock(&vm->slots_lock);
	r = clear_log_locked(vm, log);
	pthread_mutex_unlock(&vm->slots_lock);
	return r;
}
