/* SPDX-License-Identifier: MIT */
/*
 * A kvm/api of a few lines: one kind of object, found by inode.
 */
#include "host/guard.h"
#include "host/host.h"
#include "host/signal.h"
#include "kvm/api/api.h"

#include "fake_api.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static ino_t inode;
static dev_t device;
static int reaped;
static __thread bool running, interrupted;

int api_set_tempo(const char *tempo)
{
	return 0;
}

int api_set_deterministic(const char *seed)
{
	return 0;
}

int api_set_session(const char *path)
{
	return -EINVAL;
}

int api_init(const char *cpu_model, const char *params)
{
	if (cpu_model && strcmp(cpu_model, "fake")) {
		host_log("no model '%s' (the fake has one: fake)", cpu_model);
		return -EINVAL;
	}
	if (params && strstr(params, "kvm.frob")) {
		host_log("unknown parameter 'kvm.frob'");
		return -EINVAL;
	}
	return 0;
}

bool api_ioctl_nth(unsigned nr, struct api_row *ret)
{
	return false;
}

bool api_cap_nth(unsigned nr, struct api_row *ret)
{
	return false;
}

int api_open(int flags)
{
	int fd = host_memfd("anykvm:kvm", 0, flags & O_CLOEXEC);
	struct stat st;

	if (fd >= 0 && !fstat(fd, &st)) {
		inode = st.st_ino;
		device = st.st_dev;
	}
	return fd;
}

static bool ours(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_ino == inode && st.st_dev == device;
}

static long run(unsigned long ms)
{
	uint64_t end = host_monotonic_ns() + ms * 1000000;

	running = true;
	interrupted = host_signal_waiting();
	while (!__atomic_load_n(&interrupted, __ATOMIC_RELAXED) && host_monotonic_ns() < end)
		;
	running = false;
	return interrupted ? -EINTR : 0;
}

long api_ioctl(int fd, unsigned long request, unsigned long arg, bool *ret_ours)
{
	uint8_t byte;

	*ret_ours = ours(fd);
	if (!*ret_ours)
		return -ENOTTY;
	switch (request) {
	case KVM_GET_API_VERSION:
		return KVM_API_VERSION;
	case KVM_RUN:
		return run(arg);
	case FAKE_REAPED:
		return reaped;
	case FAKE_TOUCH:
		return host_load_8((void *)arg, &byte) ? 0 : -EFAULT;
	case FAKE_RAISE:
		raise((int)arg);
		return run(0);
	}
	return -EINVAL;
}

long api_fallocate(int fd, int mode, int64_t offset, int64_t len)
{
	return -EBADF;
}

bool api_map_refused(int fd, int64_t offset, size_t size)
{
	return false;
}

void api_reap(void (*found)(int fd))
{
	reaped++;
}

bool api_run_interrupted(void)
{
	__atomic_store_n(&interrupted, true, __ATOMIC_RELAXED);
	return running;
}

void api_stats_dump(FILE *to)
{
	fprintf(to, "fake 1\n");
}

long api_permission_request(unsigned long component)
{
	return -EOPNOTSUPP;
}

long api_permission_get(uint64_t *user)
{
	return -EFAULT;
}
