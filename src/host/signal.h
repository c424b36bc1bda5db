/* SPDX-License-Identifier: MIT */
/*
 * The process's signals, shared between the program and anykvm.
 *
 * Each handler of the program stands behind signal.c's entry function, which first serves the host
 * faults that are ours, then asks the door whether the signal has to wait, and then does what the kernel
 * would have done for the program. The calls below are those of the program: results and what it
 * reads back are as without anykvm.
 */
#ifndef HOST_SIGNAL_H
#define HOST_SIGNAL_H

#include "host/host.h"

/* Any thread, async-signal-safe. sigaction(2) for the program: 0 or -errno. */
int host_sigaction(int signo, const struct sigaction *act, struct sigaction *ret_old);
/* This thread only, async-signal-safe. sigaltstack(2) for the program: 0 or -errno. */
int host_sigaltstack(const stack_t *stack, stack_t *ret_old);

/*
 * The door's word on a signal that is about to reach the program, in the signal handler: true if
 * it was taken care of (it will come again). Set once, before the first thread.
 */
typedef bool host_signal_defer_fn(int signo, siginfo_t *info, ucontext_t *uc);
void host_signal_set_defer(host_signal_defer_fn *defer);

/* Queue the signal again for this thread, siginfo kept. 0 or -errno. */
int host_signal_requeue(int signo, const siginfo_t *info);

/*
 * The five signals by which the host reports a fault: unblock them for this thread.
 * Returns the mask from before, as the kernel's 64 bits (bit signo - 1).
 */
uint64_t host_signal_unblock_faults(void);
uint64_t host_signal_set_mask(uint64_t mask);
/* The mask's bits of the five. */
uint64_t host_signal_fault_bits(void);

#endif
