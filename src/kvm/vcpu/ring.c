/* SPDX-License-Identifier: MIT */
/*
 * The dirty ring (KVM api.rst, KVM_CAP_DIRTY_LOG_RING): the pages that a vCPU writes, in the order in which it
 * wrote them first. The slot's bitmap tells which pages stand in a ring, so that each is entered once until
 * KVM_RESET_DIRTY_RINGS takes it out.
 *
 * Entries beyond the limit are kept for what the instruction writes that is going on when the limit is reached.
 */
#include "kvm/vcpu/vcpu_internal.h"

static uint32_t in_use(const struct dirty_ring *ring)
{
	return __atomic_load_n(&ring->pushed, __ATOMIC_SEQ_CST) -
	       __atomic_load_n(&ring->reset, __ATOMIC_SEQ_CST);
}

bool vcpu_ring_full(const struct vcpu *vcpu)
{
	return vcpu->dirty_ring.v && in_use(&vcpu->dirty_ring) >= vcpu->dirty_ring.limit;
}

/* What ioctls write for the guest goes to the first vCPU's ring; hence the place is taken atomically. */
void vcpu_push_dirty(struct vm *vm, uint32_t slot, uint64_t offset)
{
	struct vcpu *vcpu = vcpu_current();
	struct kvm_dirty_gfn *entry;
	struct dirty_ring *ring;
	uint32_t at;

	if (!vcpu || vcpu->vm != vm)
		vcpu = vm_nr_vcpus(vm) ? vm->vcpus[0] : NULL;
	if (!vcpu)
		return;
	ring = &vcpu->dirty_ring;
	at = __atomic_fetch_add(&ring->pushed, 1, __ATOMIC_SEQ_CST);
	entry = &ring->v[at & (ring->size - 1)];
	entry->slot = slot;
	entry->offset = offset;
	__atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_DIRTY, __ATOMIC_RELEASE);
	if (vcpu_ring_full(vcpu))
		vcpu_request(vcpu, REQ_RING_FULL);
}

/* Take out what the program marked as harvested, from the oldest on. The entries are the program's to write. */
static unsigned reset_one(struct vm *vm, struct dirty_ring *ring)
{
	unsigned nr = 0;

	while (nr < ring->size) {
		struct kvm_dirty_gfn *entry = &ring->v[ring->reset & (ring->size - 1)];
		uint32_t slot;
		uint64_t offset;

		if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_RESET))
			break;
		slot = __atomic_load_n(&entry->slot, __ATOMIC_RELAXED);
		offset = __atomic_load_n(&entry->offset, __ATOMIC_RELAXED);
		__atomic_store_n(&entry->flags, 0, __ATOMIC_RELEASE);
		__atomic_fetch_add(&ring->reset, 1, __ATOMIC_SEQ_CST);
		vm_dirty_forget_locked(vm, slot, offset);
		nr++;
	}
	return nr;
}

long vcpu_reset_dirty_rings(struct vm *vm, void *arg)
{
	unsigned cleared = 0;

	if (!vm->dirty_ring_size)
		return -EINVAL;
	pthread_mutex_lock(&vm->slots_lock);
	for (unsigned i = 0; i < vm_nr_vcpus(vm); i++)
		cleared += reset_one(vm, &vm->vcpus[i]->dirty_ring);
	if (cleared)
		vm->ops->request_all(vm, VM_REQUEST_FLUSH_WRITES, true);
	pthread_mutex_unlock(&vm->slots_lock);
	return cleared;
}
