/* SPDX-License-Identifier: MIT */
/* A kvm/api of a few lines, to test the door alone. See fake_api.c for what its ioctls do. */
#ifndef TESTS_FAKE_API_H
#define TESTS_FAKE_API_H

#include <linux/kvm.h>

/* On a fake fd. KVM_RUN: wait for a signal, at most arg milliseconds; -EINTR, or 0 at the end. */
#define FAKE_REAPED _IO(KVMIO, 0xf0) /* how many times api_reap() was called */
#define FAKE_TOUCH  _IO(KVMIO, 0xf1) /* read the byte at arg: 0 or -EFAULT */
#define FAKE_RAISE  _IO(KVMIO, 0xf2) /* send signal arg to this thread in the middle of the call */

#endif
