/* SPDX-License-Identifier: MIT */
/*
 * Memory slots (KVM api.rst, KVM_SET_USER_MEMORY_REGION). The array is sorted and never changes while it is read: a
 * change is made in another one (slot_array.c), which is published, and every running vCPU passes a safepoint with
 * its translations flushed. Checks come first, in Linux's order, and nothing
 * is changed before the last of them.
 */
#include "kvm/vm/ioctl.h"
#include "kvm/vm/private.h"
#include "kvm/vm/slot_array.h"

#include <stdlib.h>
#include <string.h>

/* User addresses end here (47 bits less the guard page). */
#define USER_END 0x7ffffffff000ull
/* Without a second-stage table in hardware KVM admits every 52-bit address. */
#define MAX_GFN (BIT(52 - PAGE_SHIFT) - 1)

static struct memslots *slots_of(const struct vm *vm, unsigned space)
{
	return __atomic_load_n(&vm->slots[space], __ATOMIC_ACQUIRE);
}

const struct memslot *vm_slot_find_in(const struct vm *vm, unsigned space, gfn_t gfn)
{
	const struct memslots *slots = slots_of(vm, space);
	unsigned low = 0, high = slots->nr;

	while (low < high) {
		unsigned mid = (low + high) / 2;
		const struct memslot *slot = slots->v[mid].slot;

		if (gfn < slots->v[mid].gfn)
			high = mid;
		else if (gfn - slot->gfn >= slot->nr_pages)
			low = mid + 1;
		else
			return slot;
	}
	return NULL;
}

const struct memslot *vm_slot_find(const struct vm *vm, gfn_t gfn)
{
	return vm_slot_find_in(vm, 0, gfn);
}

static uint8_t *slot_hva(const struct memslot *slot, gpa_t gpa, size_t size)
{
	uint64_t offset = gpa - (slot->gfn << PAGE_SHIFT);

	if (size > (slot->nr_pages << PAGE_SHIFT) - offset)
		return NULL;
	return slot->hva + offset;
}

uint8_t *vm_hva(const struct vm *vm, gpa_t gpa, size_t size)
{
	const struct memslot *slot = vm_slot_find(vm, gpa >> PAGE_SHIFT);

	return slot ? slot_hva(slot, gpa, size) : NULL;
}

uint8_t *vm_hva_writable(const struct vm *vm, gpa_t gpa, size_t size)
{
	const struct memslot *slot = vm_slot_find(vm, gpa >> PAGE_SHIFT);

	if (!slot || slot->flags & KVM_MEM_READONLY)
		return NULL;
	return slot_hva(slot, gpa, size);
}

static void slot_mark_dirty(struct vm *vm, const struct memslot *slot, gfn_t gfn)
{
	uint64_t nr = gfn - slot->gfn, was;

	if (!slot->dirty)
		return;
	was = __atomic_fetch_or(&slot->dirty[nr / 64], BIT(nr % 64), __ATOMIC_SEQ_CST);
	if (vm->dirty_ring_size && !(was >> (nr % 64) & 1))
		vm->ops->push_dirty(vm, slot->id, nr);
}

void vm_mark_dirty_in(struct vm *vm, unsigned space, gpa_t gpa)
{
	const struct memslot *slot = vm_slot_find_in(vm, space, gpa >> PAGE_SHIFT);

	if (slot)
		slot_mark_dirty(vm, slot, gpa >> PAGE_SHIFT);
}

void vm_mark_dirty(struct vm *vm, gpa_t gpa)
{
	vm_mark_dirty_in(vm, 0, gpa);
}

/* What the module itself reads and writes has no instruction that starts anew: it waits. */
static bool copy_guarded(void *dst, const void *src, size_t size)
{
	bool *scope = host_restart_pause(), done;

	done = host_copy_guarded(dst, src, size);
	host_restart_scope(scope);
	return done;
}

int vm_read_guest(struct vm *vm, gpa_t gpa, void *dst, size_t size)
{
	while (size) {
		size_t part = min(size, PAGE_SIZE - (gpa & ~PAGE_MASK));
		uint8_t *hva = vm_hva(vm, gpa, part);

		if (!hva || !copy_guarded(dst, hva, part))
			return -EFAULT;
		dst = (char *)dst + part;
		gpa += part;
		size -= part;
	}
	return 0;
}

int vm_write_guest(struct vm *vm, gpa_t gpa, const void *src, size_t size)
{
	while (size) {
		size_t part = min(size, PAGE_SIZE - (gpa & ~PAGE_MASK));
		uint8_t *hva = vm_hva_writable(vm, gpa, part);

		if (!hva || !copy_guarded(hva, src, part))
			return -EFAULT;
		vm_mark_dirty(vm, gpa);
		src = (const char *)src + part;
		gpa += part;
		size -= part;
	}
	return 0;
}

/* ---- changes; slots_lock held ---- */

enum change { CHANGE_NONE, CHANGE_CREATE, CHANGE_DELETE, CHANGE_MOVE, CHANGE_FLAGS };

/* Private memory is neither logged nor read-only. */
static uint32_t known_flags(const struct vm *vm, uint32_t flags)
{
	if (vm->private_mem && flags & KVM_MEM_GUEST_MEMFD)
		return KVM_MEM_GUEST_MEMFD;
	return KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY;
}

/* What holds for the argument whatever slots there are. */
static int region_check(const struct vm *vm, const struct kvm_userspace_memory_region2 *mem)
{
	if ((uint16_t)mem->slot >= VM_MAX_SLOTS)
		return -EINVAL;
	if (mem->flags & ~known_flags(vm, mem->flags))
		return -EINVAL;
	if (mem->flags & KVM_MEM_GUEST_MEMFD &&
	    (mem->guest_memfd_offset & ~PAGE_MASK ||
	     mem->guest_memfd_offset + mem->memory_size < mem->guest_memfd_offset))
		return -EINVAL;
	if ((mem->memory_size | mem->guest_phys_addr | mem->userspace_addr) & ~PAGE_MASK)
		return -EINVAL;
	if (mem->memory_size > USER_END || mem->userspace_addr > USER_END - mem->memory_size)
		return -EINVAL;
	if (mem->slot >> 16 >= vm_address_spaces(vm))
		return -EINVAL;
	if (mem->guest_phys_addr + mem->memory_size < mem->guest_phys_addr)
		return -EINVAL;
	if (mem->memory_size >> PAGE_SHIFT > VM_MAX_SLOT_PAGES)
		return -EINVAL;
	return 0;
}

/* Which change mem asks for, given the slot of its id: enum change, or -EINVAL. */
static int region_change(const struct kvm_userspace_memory_region2 *mem, const struct memslot *old)
{
	if (!mem->memory_size)
		return old ? CHANGE_DELETE : -EINVAL;
	if (!old)
		return CHANGE_CREATE;
	if ((mem->flags | old->flags) & KVM_MEM_GUEST_MEMFD)
		return -EINVAL;
	if ((uint8_t *)mem->userspace_addr != old->hva ||
	    mem->memory_size >> PAGE_SHIFT != old->nr_pages ||
	    (mem->flags ^ old->flags) & KVM_MEM_READONLY)
		return -EINVAL;
	if (mem->guest_phys_addr >> PAGE_SHIFT != old->gfn)
		return CHANGE_MOVE;
	return mem->flags != old->flags ? CHANGE_FLAGS : CHANGE_NONE;
}

/* The bitmap of a slot that starts being logged: all zero, or all one (initially set). */
static uint64_t *dirty_alloc(const struct vm *vm, gfn_t nr_pages)
{
	uint64_t *map = calloc(ALIGN_UP(nr_pages, 64) / 64, sizeof(*map));

	if (!map || !vm->manual_dirty_init_set || vm->dirty_ring_size)
		return map;
	memset(map, 0xff, nr_pages / 64 * sizeof(*map));
	if (nr_pages % 64)
		map[nr_pages / 64] = BIT(nr_pages % 64) - 1;
	return map;
}

static int slot_prepare(struct vm *vm, const struct kvm_userspace_memory_region2 *mem,
			const struct memslot *old, struct memslot *ret)
{
	*ret = (struct memslot){
		.id = mem->slot,
		.flags = mem->flags,
		.gfn = mem->guest_phys_addr >> PAGE_SHIFT,
		.nr_pages = mem->memory_size >> PAGE_SHIFT,
		.hva = (uint8_t *)mem->userspace_addr,
	};
	if (mem->flags & KVM_MEM_GUEST_MEMFD) {
		ret->gmem_page = mem->guest_memfd_offset >> PAGE_SHIFT;
		return gmem_bind_locked(vm, mem, &ret->gmem);
	}
	if (!(mem->flags & KVM_MEM_LOG_DIRTY_PAGES))
		return 0;
	ret->dirty = old && old->dirty ? old->dirty : dirty_alloc(vm, ret->nr_pages);
	return ret->dirty ? 0 : -ENOMEM;
}

void vm_slots_claim(struct vm *vm)
{
	pthread_mutex_lock(&vm->claim);
}

void vm_slots_unclaim(struct vm *vm)
{
	pthread_mutex_unlock(&vm->claim);
}

static struct memslot *slot_of_gmem(const struct memslots *slots, const struct gmem *gmem)
{
	for (unsigned i = 0; i < slots->nr; i++)
		if (slots->v[i].slot->gmem == gmem)
			return slots->v[i].slot;
	return NULL;
}

static bool forget_in(struct vm *vm, unsigned space, const struct gmem *gmem)
{
	struct memslots *next;
	struct memslot *old;

	while ((old = slot_of_gmem(vm->slots[space], gmem))) {
		struct memslot new = *old;

		new.gmem = NULL;
		next = slots_edit(vm, space, old, &new);
		if (!next)
			return false;
		slots_publish(vm, space, next);
	}
	return true;
}

bool slots_forget_gmem_locked(struct vm *vm, const struct gmem *gmem)
{
	for (unsigned i = 0; i < VM_ADDRESS_SPACES; i++)
		if (!forget_in(vm, i, gmem))
			return false;
	return true;
}

static int region_commit(struct vm *vm, const struct kvm_userspace_memory_region2 *mem,
			 struct memslot *old, enum change change)
{
	unsigned space = mem->slot >> 16;
	uint64_t *dead_map = NULL;
	struct memslot new = {0};
	struct memslots *next;
	int r = 0;

	if (change != CHANGE_DELETE)
		r = slot_prepare(vm, mem, old, &new);
	if (r)
		return r;
	next = slots_edit(vm, space, old, change == CHANGE_DELETE ? NULL : &new);
	if (!next) {
		if (!old || new.dirty != old->dirty)
			free(new.dirty);
		return -ENOMEM;
	}
	/* ALL_CHECKS_PASSED */
	vm->nr_slot_pages += new.nr_pages - (old ? old->nr_pages : 0);
	if (old && old->dirty != new.dirty)
		dead_map = old->dirty;
	slots_publish(vm, space, next);
	free(dead_map);
	return 0;
}

static int set_region_locked(struct vm *vm, const struct kvm_userspace_memory_region2 *mem)
{
	struct memslot *old = slot_by_id(vm, mem->slot);
	int change = region_change(mem, old);
	struct memslot range = {
		.id = mem->slot,
		.gfn = mem->guest_phys_addr >> PAGE_SHIFT,
		.nr_pages = mem->memory_size >> PAGE_SHIFT,
	};

	if (change <= CHANGE_NONE)
		return change;
	if (change == CHANGE_CREATE || change == CHANGE_MOVE) {
		if (slots_overlap(vm, &range))
			return -EEXIST;
		if (range.gfn + range.nr_pages - 1 > MAX_GFN)
			return -EINVAL;
	}
	return region_commit(vm, mem, old, change);
}

long vm_set_memory_region2(struct vm *vm, void *arg)
{
	const struct kvm_userspace_memory_region2 *mem = arg;
	int r = region_check(vm, mem);

	if (r)
		return r;
	pthread_mutex_lock(&vm->slots_lock);
	r = set_region_locked(vm, mem);
	pthread_mutex_unlock(&vm->slots_lock);
	return r;
}

long vm_set_memory_region(struct vm *vm, void *arg)
{
	struct kvm_userspace_memory_region2 mem = {0};

	memcpy(&mem, arg, sizeof(struct kvm_userspace_memory_region));
	return vm_set_memory_region2(vm, &mem);
}
