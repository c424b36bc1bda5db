/* SPDX-License-Identifier: MIT */
/*
 * What an ioctl's handler is, for the rooms whose handlers stand in tables/ioctls.def.
 *
 *   IOCTL(fd, number, locks, flags, handler)
 *
 * VM rows:   long handler(struct vm *vm, void *arg)
 * VCPU rows: long handler(struct vcpu *vcpu, void *arg)
 * SYS rows:  long handler(struct system *sys, void *arg)
 *
 * The number's size and direction decide what arg is. _IOW and _IOWR: a copy of the program's
 * structure (it was readable, or the caller has had -EFAULT). _IOR and _IOWR: when the handler
 * returns >= 0 the structure is copied back. _IO numbers: the argument itself, as (unsigned long)arg.
 * With flag RAW arg is the program's pointer whatever the number says, and the handler copies by
 * ioctl_copy_in() and ioctl_copy_out(). Flag IN adds copying in to an _IOR number, flag NO_OUT
 * suppresses copying back, flag ASYNC runs without the vCPU's mutex.
 *
 * Locks: NONE; VCPU: the vCPU's mutex; VCPU_SLOTS: that and slots_lock, for handlers that read
 * guest memory outside KVM_RUN; VM: vm->lock. The result is the system call's: >= 0 or -errno.
 */
#ifndef KVM_VM_IOCTL_H
#define KVM_VM_IOCTL_H

#include "host/host.h"

#include <errno.h>

/* 0 or -EFAULT. Any thread. */
static inline int ioctl_copy_in(void *dst, const void *user, size_t size)
{
	return host_copy_guarded(dst, user, size) ? 0 : -EFAULT;
}

static inline int ioctl_copy_out(void *user, const void *src, size_t size)
{
	return host_copy_guarded(user, src, size) ? 0 : -EFAULT;
}

/* What lies off bytes behind a program's pointer, which may be any number. */
static inline void *ioctl_behind(const void *user, size_t off)
{
	return (void *)((uintptr_t)user + off);
}

#endif
