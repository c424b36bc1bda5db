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
 * ---- While the program's call is being served ----
 *
 * Between hold and release no handler of the program runs in this thread, so that none can leave by longjmp
 * with a lock held: a signal is queued again, siginfo kept, and blocked in the interrupted context. Release
 * restores the mask that hold found, and the signal is delivered there; one that only the mask of
 * KVM_SET_SIGNAL_MASK lets through stays pending. The five fault signals are unblocked meanwhile.
 * No nesting. This thread only.
 */
struct host_signal_hold {
	uint64_t mask;
	bool blocked; /* every signal is: host_signal_release_blocked() */
};
void host_signal_hold(struct host_signal_hold *hold);
void host_signal_release(const struct host_signal_hold *hold);
/* The first half of release, for what must come before any handler: every signal is blocked until release. */
void host_signal_release_blocked(struct host_signal_hold *hold);
/* This thread is between hold and release: what calls now is anykvm, not the program. */
bool host_signal_held(void);
/* A signal waits for release: a call that can be interrupted has to end. Async-signal-safe. */
bool host_signal_waiting(void);

/*
 * Signals (bit signo - 1) that a mask of the program's making lets through only while it is held: where
 * their action is the default, it must not happen before release. Any thread.
 */
void host_signal_claim(uint64_t bits);

/* What the door wants to know, called in the signal handler. Set once, at start. */
struct host_signal_hooks {
	/* A message of the door's own, not for the program: true if it was. */
	bool (*message)(int signo, const siginfo_t *info);
	/* A signal arrived between hold and release. */
	void (*interrupt)(void);
};
void host_signal_set_hooks(const struct host_signal_hooks *hooks);

#endif
