/* SPDX-License-Identifier: MIT */
/* irqfds (eventfd to interrupt, with resampling) and ioeventfds (guest write to eventfd). */
#ifndef KVM_VM_EVENTFD_H
#define KVM_VM_EVENTFD_H

#include "kvm/vm/vm.h"

/* Ioctl handlers. */
long vm_irqfd(struct vm *vm, void *arg);
long vm_ioeventfd(struct vm *vm, void *arg);

/* irq_lock held. Level interrupt of gsi was acknowledged: lower it and signal the resamplefds. */
void irqfd_resample_locked(struct vm *vm, uint32_t gsi);

/* At the VM's end, service thread stopped or not. */
void irqfd_release_all(struct vm *vm);
void ioeventfd_release_all(struct vm *vm);

#endif
