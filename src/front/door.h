/* SPDX-License-Identifier: MIT */
/*
 * The preloaded library's own header: the functions behind ours, and the bracket around each call into
 * kvm/api.
 */
#ifndef FRONT_DOOR_H
#define FRONT_DOOR_H

/* Both open() and open64() are defined here, so neither may be a name for the other. */
#undef _FILE_OFFSET_BITS

#include "host/host.h"
#include "host/signal.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/stat.h>

/* The functions behind ours; NULL where the C library has none. */
struct next {
#define NEXT(result, name, parameters)		result(*name) parameters;
#define NEXT_OPTIONAL(result, name, parameters) NEXT(result, name, parameters)
#include "front/next.def"
#undef NEXT
#undef NEXT_OPTIONAL
};

/* Any thread; async-signal-safe once the library is initialized. */
const struct next *door_next(void);

/*
 * Any thread. Around each call into kvm/api: signals wait (host/signal.h), cancellation is
 * disabled (kvm/ calls functions that are cancellation points, with locks held), this thread can serve faults.
 * Leave restores all that, then a cancellation acts, or the handler of a signal runs, which may leave by longjmp.
 */
struct door_pass {
	struct host_signal_hold hold;
	int cancel_state, cancel_type;
	/* Node of the list of threads to be woken by pthread_cancel(); see cancel.c. */
	struct door_pass *next, **link;
	pthread_t thread;
	int tid;
};
/* 0 or -errno; on failure nothing is to be left. */
int door_enter(struct door_pass *pass);
void door_leave(struct door_pass *pass);

/* cancel.c: cancellation's part of enter and leave. */
void cancel_enter(struct door_pass *pass);
void cancel_leave(struct door_pass *pass);
bool cancel_message(int signo, const siginfo_t *info);
void cancel_forked(void);

/* Between enter and leave: the settings take effect, once. 0 or -errno. */
int door_init(void);
/* Any thread. A new fd of /dev/kvm, or -1 and errno. */
int door_open(int flags);
/* True if this process uses KVM, that is, has opened it. */
bool door_used(void);
/* A vforked child runs in its parent's memory: what it does to its fds is no news for us. */
bool door_own_process(void);

/* exec.c: at start, with the environment as it was given. */
void exec_start(void);

/* fd.c: fds that may be ours, by number; a hint for close() only. */
void fd_mark(int fd);

/* A result of the system call's kind as libc's: -1 and errno. */
static inline long door_result(long ret)
{
	if (ret >= 0 || ret < -4095)
		return ret;
	errno = (int)-ret;
	return -1;
}

#endif
