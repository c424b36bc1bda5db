/* SPDX-License-Identifier: MIT */
/*
 * KVM_SET_MEMORY_ATTRIBUTES (KVM api.rst): which pages are private. Kept as sorted ranges; a change
 * publishes a new array and has every translation flushed, so that afterwards no access sees the old kind.
 */
#include "kvm/vm/ioctl.h"
#include "kvm/vm/private.h"

#include <stdlib.h>

bool vm_gfn_private(const struct vm *vm, gfn_t gfn)
{
	const struct gfn_ranges *ranges = __atomic_load_n(&vm->private_gfns, __ATOMIC_ACQUIRE);
	unsigned low = 0, high = ranges ? ranges->nr : 0;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (gfn < ranges->v[mid].start)
			high = mid;
		else if (gfn >= ranges->v[mid].end)
			low = mid + 1;
		else
			return true;
	}
	return false;
}

/* Append, joining what touches. */
static void add(struct gfn_ranges *to, gfn_t start, gfn_t end)
{
	if (start >= end)
		return;
	if (to->nr && to->v[to->nr - 1].end >= start) {
		to->v[to->nr - 1].end = max(to->v[to->nr - 1].end, end);
		return;
	}
	to->v[to->nr].start = start;
	to->v[to->nr].end = end;
	to->nr++;
}

/* A copy of from in which start to end is private, or is not. NULL: no memory. */
static struct gfn_ranges *with_range(const struct gfn_ranges *from, gfn_t start, gfn_t end,
				     bool private)
{
	unsigned nr = from ? from->nr : 0, i = 0;
	struct gfn_ranges *to = malloc(sizeof(*to) + (nr + 2) * sizeof(to->v[0]));

	if (!to)
		return NULL;
	to->nr = 0;
	for (; i < nr && from->v[i].start < start; i++)
		add(to, from->v[i].start, min(from->v[i].end, start));
	if (private)
		add(to, start, end);
	/* The last one that began before start may reach beyond end. */
	if (i && from->v[i - 1].end > end)
		add(to, end, from->v[i - 1].end);
	for (; i < nr; i++)
		add(to, max(from->v[i].start, private ? from->v[i].start : end), from->v[i].end);
	return to;
}

static int set_locked(struct vm *vm, gfn_t start, gfn_t end, bool private)
{
	struct gfn_ranges *old = vm->private_gfns, *next = with_range(old, start, end, private);

	if (!next)
		return -ENOMEM;
	__atomic_store_n(&vm->private_gfns, next, __ATOMIC_RELEASE);
	vm->ops->request_all(vm, VM_REQUEST_FLUSH, true);
	free(old);
	return 0;
}

long vm_set_memory_attributes(struct vm *vm, void *arg)
{
	const struct kvm_memory_attributes *a = arg;
	uint64_t known = vm->private_mem ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0;
	long r;

	if (a->flags || a->attributes & ~known)
		return -EINVAL;
	if (!a->size || a->address + a->size < a->address)
		return -EINVAL;
	if ((a->address | a->size) & ~PAGE_MASK)
		return -EINVAL;
	pthread_mutex_lock(&vm->slots_lock);
	r = set_locked(vm, a->address >> PAGE_SHIFT, (a->address + a->size) >> PAGE_SHIFT,
		       a->attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE);
	pthread_mutex_unlock(&vm->slots_lock);
	return r;
}
