/* SPDX-License-Identifier: MIT */
/*
 * The VM's two buses, ports and MMIO: chips, ioeventfds and coalesced zones in the order of their
 * registration among equal addresses. Published like memory slots.
 */
#ifndef KVM_VM_BUS_H
#define KVM_VM_BUS_H

#include "kvm/vm/vm.h"

struct bus_device {
	uint64_t addr, size; /* size 0: the address alone */
	/* True if it took the access (false: try the next, then user space). vCPU thread in KVM_RUN. */
	bool (*read)(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
		     uint64_t *ret);
	bool (*write)(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
		      uint64_t val);
};

struct bus {
	unsigned nr;
	struct bus_device *v[]; /* sorted by address */
};

/* vCPU thread in KVM_RUN. True if a device answered; false: user space must. */
bool vm_bus_read(struct vm *vm, struct vcpu *vcpu, bool is_port, uint64_t addr, unsigned size,
		 uint64_t *ret);
bool vm_bus_write(struct vm *vm, struct vcpu *vcpu, bool is_port, uint64_t addr, unsigned size,
		  uint64_t val);

/* slots_lock held. 0, -ENOMEM, or -ENOSPC beyond KVM's limit of devices. Add waits for nobody. */
int bus_add_locked(struct vm *vm, bool is_port, struct bus_device *dev);
/* Returns once no vCPU can be inside dev; the caller frees it. */
void bus_remove_locked(struct vm *vm, bool is_port, struct bus_device *dev);

struct bus *bus_create(void);

/* coalesced.c: ioctl handlers. */
long vm_register_coalesced(struct vm *vm, void *arg);
long vm_unregister_coalesced(struct vm *vm, void *arg);
void coalesced_free_all(struct vm *vm);

#endif
