/* SPDX-License-Identifier: MIT */
/*
 * The service thread of a VM: timers and eventfds. Started at KVM_CREATE_VM with every signal
 * blocked; after that it makes plain system calls only.
 *
 * Callbacks run on the service thread with no lock held, and may arm, cancel, watch and unwatch.
 */
#ifndef KVM_VM_SERVICE_H
#define KVM_VM_SERVICE_H

#include "host/compiler.h"

struct service;

struct service_timer {
	void (*expire)(struct service_timer *timer);
	uint64_t deadline; /* CLOCK_MONOTONIC ns; valid while armed */
	unsigned slot;	   /* place in the heap + 1; 0: not armed */
};

struct service_watch {
	/* fd is readable. */
	void (*ready)(struct service_watch *watch);
	int fd;
	uint64_t id;
};

struct vm;
/* A timer is the first to expire now; the thread that armed it, no lock held. */
typedef void service_armed_fn(struct vm *vm, uint64_t deadline);

/* armed NULL: timers expire by CLOCK_MONOTONIC, on the service thread. Else by service_expire() alone. */
struct service *service_create(service_armed_fn *armed, struct vm *vm);
/* Stop and join the thread. Not from a callback. */
void service_destroy(struct service *service);

/* Any thread. Arm or move a timer. A deadline that has passed expires at once, on the service thread. */
void service_timer_arm(struct service *service, struct service_timer *timer, uint64_t deadline);
/* Any thread. After return the timer is not armed; its callback may still be running. */
void service_timer_cancel(struct service *service, struct service_timer *timer);
/* As cancel, and wait until a running callback is over. Not from a callback, no lock held that one takes. */
void service_timer_stop(struct service *service, struct service_timer *timer);

#define SERVICE_NEVER UINT64_MAX
/* One thread at a time. Expire what is due now on the calling thread; no lock held that a callback takes. */
void service_expire(struct service *service, uint64_t now);
/* The first deadline, or SERVICE_NEVER. */
uint64_t service_next(struct service *service);

/* Any thread. Watch watch->fd for input until unwatched. 0 or -errno. */
int service_watch(struct service *service, struct service_watch *watch);
/* Stop watching; after return ready() is not running (unless called from it). */
void service_unwatch(struct service *service, struct service_watch *watch);

/* Move fd out of the program's way to a high number, close-on-exec. Returns the fd to use. */
int service_fd_hide(int fd);

#endif
