/* SPDX-License-Identifier: MIT */
/* The MSR filter (KVM api.rst, KVM_X86_SET_MSR_FILTER): the first range that holds the MSR decides. */
#include "kvm/vm/msr_filter.h"
#include "kvm/vm/ioctl.h"

#include <stdlib.h>

#define MAX_BITMAP_SIZE 0x600
#define X2APIC_FIRST	0x800
#define X2APIC_LAST	0x8ff

struct range {
	uint32_t flags, base, nr;
	uint64_t *bitmap;
};

struct msr_filter {
	bool default_allow;
	unsigned nr;
	struct range v[KVM_MSR_FILTER_MAX_RANGES];
};

bool vm_msr_allowed(const struct vm *vm, uint32_t index, bool write)
{
	uint32_t type = write ? KVM_MSR_FILTER_WRITE : KVM_MSR_FILTER_READ;
	const struct msr_filter *filter;

	filter = __atomic_load_n(&vm->msr_filter, __ATOMIC_ACQUIRE);
	if (!filter || (index >= X2APIC_FIRST && index <= X2APIC_LAST))
		return true;
	for (unsigned i = 0; i < filter->nr; i++) {
		const struct range *range = &filter->v[i];
		uint32_t bit = index - range->base;

		if (bit < range->nr && range->flags & type)
			return range->bitmap[bit / 64] >> (bit % 64) & 1;
	}
	return filter->default_allow;
}

void msr_filter_free(struct msr_filter *filter)
{
	for (unsigned i = 0; filter && i < filter->nr; i++)
		free(filter->v[i].bitmap);
	free(filter);
}

static int range_add(struct msr_filter *filter, const struct kvm_msr_filter_range *range)
{
	size_t size = ALIGN_UP((uint64_t)range->nmsrs, 64) / 8;
	uint64_t *bitmap;

	if (!range->nmsrs)
		return 0;
	if (!range->flags || range->flags & ~(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE))
		return -EINVAL;
	if (size > MAX_BITMAP_SIZE)
		return -EINVAL;
	bitmap = malloc(size);
	if (!bitmap)
		return -ENOMEM;
	if (ioctl_copy_in(bitmap, range->bitmap, size)) {
		free(bitmap);
		return -EFAULT;
	}
	filter->v[filter->nr++] = (struct range){range->flags, range->base, range->nmsrs, bitmap};
	return 0;
}

static bool filter_empty(const struct kvm_msr_filter *arg)
{
	for (unsigned i = 0; i < ARRAY_SIZE(arg->ranges); i++)
		if (arg->ranges[i].nmsrs)
			return false;
	return true;
}

static int filter_build(const struct kvm_msr_filter *arg, struct msr_filter *filter)
{
	filter->default_allow = !(arg->flags & KVM_MSR_FILTER_DEFAULT_DENY);
	for (unsigned i = 0; i < ARRAY_SIZE(arg->ranges); i++) {
		int r = range_add(filter, &arg->ranges[i]);

		if (r)
			return r;
	}
	return 0;
}

long vm_set_msr_filter(struct vm *vm, void *arg)
{
	const struct kvm_msr_filter *set = arg;
	struct msr_filter *filter, *old;
	int r;

	if (set->flags & ~KVM_MSR_FILTER_DEFAULT_DENY)
		return -EINVAL;
	if (filter_empty(set) && set->flags & KVM_MSR_FILTER_DEFAULT_DENY)
		return -EINVAL;
	filter = calloc(1, sizeof(*filter));
	if (!filter)
		return -ENOMEM;
	r = filter_build(set, filter);
	if (r) {
		msr_filter_free(filter);
		return r;
	}
	pthread_mutex_lock(&vm->lock);
	old = __atomic_exchange_n(&vm->msr_filter, filter, __ATOMIC_ACQ_REL);
	vm->ops->request_all(vm, VM_REQUEST_FILTER, true);
	pthread_mutex_unlock(&vm->lock);
	msr_filter_free(old);
	return 0;
}
