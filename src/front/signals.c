/* SPDX-License-Identifier: MIT */
/*
 * The functions that set a signal's action, all by host_sigaction(). Which flags each of the older ones
 * means is the C library's (signal(2), sysv_signal(3), sigset(3)).
 */
#include "front/files.h"

#include <string.h>

/* Signals that siginterrupt(3) makes interrupt: signal() leaves SA_RESTART out for them. */
static uint64_t interrupting;

int __sigaction(int signo, const struct sigaction *act, struct sigaction *old);
sighandler_t __sysv_signal(int signo, sighandler_t handler);
sighandler_t bsd_signal(int signo, sighandler_t handler);

__export int sigaction(int signo, const struct sigaction *act, struct sigaction *old)
{
	return (int)door_result(host_sigaction(signo, act, old));
}

__export int __sigaction(int signo, const struct sigaction *act, struct sigaction *old)
{
	return (int)door_result(host_sigaction(signo, act, old));
}

__export int sigaltstack(const stack_t *stack, stack_t *old)
{
	return (int)door_result(host_sigaltstack(stack, old));
}

static sighandler_t set(int signo, sighandler_t handler, int flags, bool block_itself)
{
	struct sigaction act = {.sa_flags = flags}, old;
	int err;

	if (handler == SIG_ERR || signo < 1 || signo >= NSIG) {
		errno = EINVAL;
		return SIG_ERR;
	}
	act.sa_handler = handler;
	if (block_itself)
		sigaddset(&act.sa_mask, signo);
	err = host_sigaction(signo, &act, &old);
	if (err) {
		errno = -err;
		return SIG_ERR;
	}
	return old.sa_handler;
}

static sighandler_t set_bsd(int signo, sighandler_t handler)
{
	uint64_t bits = __atomic_load_n(&interrupting, __ATOMIC_RELAXED);
	bool interrupts = signo >= 1 && signo < NSIG && bits & BIT(signo - 1);

	return set(signo, handler, interrupts ? 0 : SA_RESTART, true);
}

__export sighandler_t signal(int signo, sighandler_t handler)
{
	return set_bsd(signo, handler);
}

__export sighandler_t bsd_signal(int signo, sighandler_t handler)
{
	return set_bsd(signo, handler);
}

__export sighandler_t ssignal(int signo, sighandler_t handler)
{
	return set_bsd(signo, handler);
}

__export sighandler_t sysv_signal(int signo, sighandler_t handler)
{
	return set(signo, handler, SA_RESETHAND | SA_NODEFER, false);
}

__export sighandler_t __sysv_signal(int signo, sighandler_t handler)
{
	return set(signo, handler, SA_RESETHAND | SA_NODEFER, false);
}

__export int sigignore(int signo)
{
	return set(signo, SIG_IGN, 0, false) == SIG_ERR ? -1 : 0;
}

/* SIG_HOLD only blocks; any other disposition unblocks too. */
__export sighandler_t sigset(int signo, sighandler_t disposition)
{
	sigset_t one, before;
	sighandler_t old;

	sigemptyset(&one);
	if (sigaddset(&one, signo))
		return SIG_ERR;
	if (disposition == SIG_HOLD) {
		struct sigaction act;

		if (host_sigaction(signo, NULL, &act) || pthread_sigmask(SIG_BLOCK, &one, &before))
			return SIG_ERR;
		return sigismember(&before, signo) ? SIG_HOLD : act.sa_handler;
	}
	old = set(signo, disposition, 0, false);
	if (old == SIG_ERR || pthread_sigmask(SIG_UNBLOCK, &one, &before))
		return SIG_ERR;
	return sigismember(&before, signo) ? SIG_HOLD : old;
}

__export int siginterrupt(int signo, int interrupt)
{
	struct sigaction act;
	int err;

	err = host_sigaction(signo, NULL, &act);
	if (err)
		return (int)door_result(err);
	if (interrupt) {
		__atomic_fetch_or(&interrupting, BIT(signo - 1), __ATOMIC_RELAXED);
		act.sa_flags &= ~SA_RESTART;
	} else {
		__atomic_fetch_and(&interrupting, ~BIT(signo - 1), __ATOMIC_RELAXED);
		act.sa_flags |= SA_RESTART;
	}
	return (int)door_result(host_sigaction(signo, &act, NULL));
}

/* ---- masks: the program's, less what the processor that it sees needs ---- */

static const sigset_t *mask_for(int how, const sigset_t *set, sigset_t *copy)
{
	if (!set || how == SIG_UNBLOCK || !host_cpuid_answering())
		return set;
	*copy = *set;
	processor_mask(copy);
	return copy;
}

__export int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t copy;

	return door_next()->pthread_sigmask(how, mask_for(how, set, &copy), old);
}

__export int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t copy;

	return door_next()->sigprocmask(how, mask_for(how, set, &copy), old);
}
