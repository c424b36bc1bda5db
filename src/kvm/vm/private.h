/* SPDX-License-Identifier: MIT */
/*
 * Memory that the program cannot reach: guest_memfd files (KVM_CREATE_GUEST_MEMFD) and which pages are private
 * (KVM_SET_MEMORY_ATTRIBUTES). Both exist for VMs of type KVM_X86_SW_PROTECTED_VM, where a page's attribute alone
 * decides whether the guest sees the slot's guest_memfd or the program's memory.
 */
#ifndef KVM_VM_PRIVATE_H
#define KVM_VM_PRIVATE_H

#include "kvm/vm/vm.h"

/*
 * A guest_memfd. The memory is mapped here; the program's fd can neither map nor read it. Freed with the VM, or
 * when its last fd is closed.
 */
struct gmem {
	struct gmem *next;
	uint8_t *hva;
	uint64_t nr_pages;
};

/* Pages that are private: sorted, apart from one another. Published like slots. */
struct gfn_ranges {
	unsigned nr;
	struct {
		gfn_t start, end;
	} v[];
};

/* vCPU thread in KVM_RUN, or slots_lock held. */
bool vm_gfn_private(const struct vm *vm, gfn_t gfn);
/* Host pointer of gfn's page in the slot's guest_memfd, or NULL: it has none, or its file is closed. */
uint8_t *slot_private_hva(const struct memslot *slot, gfn_t gfn);

/* Make the memory behind fd, of size bytes (checked by gmem_check()), known to the VM. slots_lock not held. */
int gmem_create(struct vm *vm, int fd, uint64_t size, struct gmem **ret);
/* 0 or -EINVAL: what KVM_CREATE_GUEST_MEMFD refuses. */
int gmem_check(const struct kvm_create_guest_memfd *args);
/* fallocate(2) on its file. 0 or -errno. Any thread. */
int gmem_fallocate(struct gmem *gmem, int mode, int64_t offset, int64_t len);
/* Its last fd was closed: slots lose it, the memory goes. slots_lock not held. */
void gmem_release(struct vm *vm, struct gmem *gmem);
/* At the VM's end. */
void gmem_free_all(struct vm *vm);

/* slots_lock held. The guest_memfd that mem names, judged: 0, -EBADF, -EINVAL. */
int gmem_bind_locked(struct vm *vm, const struct kvm_userspace_memory_region2 *mem,
		     struct gmem **ret);

/* Ioctl handlers. */
long vm_set_memory_attributes(struct vm *vm, void *arg);

#endif
