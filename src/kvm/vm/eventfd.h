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

/* irq_lock held. Signal the resamplefds of gsi, leaving the line alone: true if there is one. */
bool irqfd_notify_locked(struct vm *vm, uint32_t gsi);
/* irq_lock held. Deliver what irqfds were signalled with so far, and the service thread has not come to. */
void irqfd_settle_locked(struct vm *vm);
/* Any thread. The kernel's id of an eventfd: 0, -EBADF, or -EINVAL if fd is another kind of file. */
int eventfd_id(int fd, uint64_t *ret);
/* A duplicate of the program's eventfd, out of its way: 0 and *ret, or -errno as of eventfd_id(). Any thread. */
int eventfd_hold(int fd, int *ret);
/* Add one to an eventfd. Any thread. */
void eventfd_raise(int fd);

/* At the VM's end, service thread stopped or not. */
void irqfd_release_all(struct vm *vm);
void ioeventfd_release_all(struct vm *vm);

#endif
