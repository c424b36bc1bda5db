/* SPDX-License-Identifier: MIT */
/*
 * The public face of kvm/: what a door (front/) calls. Results are those of the system call:
 * >= 0, or -errno.
 */
#ifndef KVM_API_API_H
#define KVM_API_API_H

#include "host/compiler.h"

#include <stdio.h>

enum object_kind {
	OBJECT_SYS,
	OBJECT_VM,
	OBJECT_VCPU,
	OBJECT_GMEM, /* a guest_memfd */
};

/*
 * Settings of the launcher, read once from the environment (ANYKVM_CPU, ANYKVM_PARAMS) by front/.
 * NULL and 0 mean the default. 0 or -EINVAL with a line on stderr.
 */
int api_init(const char *cpu_model, const char *params);
/* Set module parameters, "MODULE.NAME=VALUE,...". 0 or -EINVAL with a line on stderr, the first ones set. */
int api_params_set(const char *params);

/* A module parameter, its value as the file under /sys/module says it. */
struct api_param {
	const char *module, *name, *summary;
	bool fixed; /* no other value is accepted */
	char value[32];
};
/* The nr-th parameter, by module and name; false past the end. Any thread. */
bool api_param_nth(unsigned nr, struct api_param *ret);
/*
 * Before api_init(): how code is run, of ANYKVM_TEMPO; the text must stay. NULL: the default. 0 or -EINVAL with a
 * line on stderr.
 */
int api_set_tempo(const char *tempo);
/*
 * Before api_init(): VMs are deterministic (docs/deterministic.md), from that seed, a number of ANYKVM_DETERMINISTIC. NULL: they are not. 0 or
 * -EINVAL with a line on stderr.
 */
int api_set_deterministic(const char *seed);

/*
 * Before the first vCPU: count in, and leave events in, the session's file at path (kvm/vcpu/watch.h). 0, or -EINVAL with a
 * line on stderr, and nothing changes.
 */
int api_set_session(const char *path);

/* An ioctl or a capability of KVM's on x86: one that is served, or one that is not, and why. */
struct api_row {
	const char *name;
	const char *fd; /* of ioctls: system, vm or vcpu */
	uint32_t number;
	long value;	     /* of capabilities that are there: what KVM_CHECK_EXTENSION answers */
	const char *why_not; /* NULL: it is served */
};
/* The nr-th, those served first; false past the end. After api_init(). Any thread. */
bool api_ioctl_nth(unsigned nr, struct api_row *ret);
bool api_cap_nth(unsigned nr, struct api_row *ret);

/* Open the system object: a new fd of a real file (memfd "anykvm:kvm"), flags as for open(2). */
int api_open(int flags);

/*
 * ioctl(2) on fd. -ENOTTY with *ret_ours = false: not our file, call the real ioctl. Dispatched from tables/ioctls.def.
 * Any thread. Takes the locks that the row names.
 */
long api_ioctl(int fd, unsigned long request, unsigned long arg, bool *ret_ours);

/* fallocate(2) on a guest_memfd, which the kernel refuses with EBADF: 0 or -errno; -EBADF also for other files. */
long api_fallocate(int fd, int mode, int64_t offset, int64_t len);

/* The kernel would map it, but KVM refuses a dirty ring that is private or executable. */
bool api_map_refused(int fd, int64_t offset, size_t size);

/*
 * arch_prctl(2)'s ARCH_REQ_XCOMP_GUEST_PERM and ARCH_GET_XCOMP_GUEST_PERM, after api_init(): 0 or -errno, as Linux
 * answers. The second writes to user.
 */
long api_permission_request(unsigned long component);
long api_permission_get(uint64_t *user);

/*
 * After the program closed fds by any means: tear down objects that no fd of this process names any
 * more (by inode, over /proc/self/fd). In a forked child: nothing. Each fd of ours that is come across goes to found(), which is
 * called with a lock held: duplicates that were never used are seen so, before they are closed last.
 */
void api_reap(void (*found)(int fd));

/*
 * Totals of all counters of this process, dead VMs included, as "name value" lines; for tests that must
 * prove that it was anykvm that answered.
 */
void api_stats_dump(FILE *to);

/*
 * Kick the KVM_RUN that this thread is in, if any: async-signal-safe. True if there was one. A signal
 * that arrives after the ioctl began and before KVM_RUN can be kicked shows in host_signal_waiting()
 * (host/signal.h) instead: KVM_RUN looks there once it can be kicked.
 */
bool api_run_interrupted(void);

#endif
