/* SPDX-License-Identifier: MIT */
/*
 * ioctl() and the functions that close.
 *
 * Only request numbers of KVM's type are looked at, and others on an fd that was seen to be ours; whether the fd is ours is kvm/api's to say, by its
 * file. Which numbers were seen to be ours is kept in a bitmap, so that close() of all other fds costs nothing.
 */
#include "front/door.h"
#include "kvm/api/api.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_MARKS 65536
#ifndef KVM_CREATE_GUEST_MEMFD
#define KVM_CREATE_GUEST_MEMFD _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0xd4, 64)
#endif

static uint64_t marks[MAX_MARKS / 64];

void fd_mark(int fd)
{
	if (fd < MAX_MARKS)
		__atomic_fetch_or(&marks[fd / 64], BIT(fd % 64), __ATOMIC_RELAXED);
}

static bool marked(int fd)
{
	return fd >= 0 && fd < MAX_MARKS &&
	       __atomic_load_n(&marks[fd / 64], __ATOMIC_RELAXED) & BIT(fd % 64);
}

/* Numbers past the bitmap may be anybody's. */
static bool may_be_ours(int fd)
{
	return door_used() && (fd >= MAX_MARKS || marked(fd));
}

static void unmark(int fd)
{
	if (fd < MAX_MARKS)
		__atomic_fetch_and(&marks[fd / 64], ~BIT(fd % 64), __ATOMIC_RELAXED);
}

static bool makes_fd(unsigned long request)
{
	return request == KVM_CREATE_VM || request == KVM_CREATE_VCPU ||
	       request == KVM_GET_STATS_FD || request == KVM_CREATE_GUEST_MEMFD;
}

static long serve(int fd, unsigned long request, unsigned long arg, bool *ret_ours)
{
	struct door_pass pass;
	long ret;

	*ret_ours = true;
	ret = door_enter(&pass);
	if (ret)
		return ret;
	ret = api_ioctl(fd, request, arg, ret_ours);
	if (*ret_ours) {
		fd_mark(fd);
		if (makes_fd(request) && ret >= 0)
			fd_mark((int)ret);
	}
	door_leave(&pass);
	return ret;
}

__export int ioctl(int fd, unsigned long request, ...)
{
	unsigned long arg;
	va_list ap;
	bool ours;
	long ret;

	va_start(ap, request);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	/* Numbers are 32 bits wide in the kernel; callers sign-extend them. */
	request = (uint32_t)request;
	if ((likely(_IOC_TYPE(request) != KVMIO) && !marked(fd)) || fd < 0)
		return door_next()->ioctl(fd, request, arg);
	ret = serve(fd, request, arg, &ours);
	if (!ours)
		return door_next()->ioctl(fd, request, arg);
	return (int)door_result(ret);
}

/* Objects whose last fd went away end now, as in the kernel, not at the next use. */
static void reap(void)
{
	struct door_pass pass;

	if (door_enter(&pass))
		return;
	api_reap(fd_mark);
	door_leave(&pass);
}

static int close_fd(int fd)
{
	/* kvm/ closes by this name too. Who is asked last costs a system call. */
	bool ours = may_be_ours(fd) && !host_signal_held() && door_own_process();
	int ret;

	if (ours)
		unmark(fd);
	ret = door_next()->close(fd);
	if (ours && !ret)
		reap();
	return ret;
}

__export int close(int fd)
{
	return close_fd(fd);
}

int __close(int fd);
__export int __close(int fd)
{
	return close_fd(fd);
}

__export int close_range(unsigned first, unsigned last, int flags)
{
	int ret;

	if (!door_next()->close_range) {
		errno = ENOSYS;
		return -1;
	}
	ret = door_next()->close_range(first, last, flags);
	if (!ret && door_used() && door_own_process())
		reap();
	return ret;
}

__export void closefrom(int first)
{
	if (door_next()->closefrom)
		door_next()->closefrom(first);
	else
		close_range((unsigned)max(first, 0), ~0u, 0);
	if (door_used() && door_own_process())
		reap();
}

/* ---- fallocate ---- */

/* The kernel has refused fd with EBADF: a guest_memfd is one that it does not write to. */
static int fallocate_ours(int fd, int mode, off_t offset, off_t len)
{
	struct door_pass pass;
	long ret;

	if (!door_used() || fd < 0 || door_enter(&pass)) {
		errno = EBADF;
		return -1;
	}
	ret = api_fallocate(fd, mode, offset, len);
	door_leave(&pass);
	return (int)door_result(ret);
}

__export int fallocate(int fd, int mode, off_t offset, off_t len)
{
	int ret = door_next()->fallocate(fd, mode, offset, len);

	return ret && errno == EBADF ? fallocate_ours(fd, mode, offset, len) : ret;
}

__export int fallocate64(int fd, int mode, off64_t offset, off64_t len)
{
	return fallocate(fd, mode, offset, len);
}

/* ---- mmap ---- */

/* Looked at only for what KVM refuses of a dirty ring; all else is the kernel's. */
static bool map_refused(int fd, int prot, int flags, off_t offset, size_t size)
{
	struct door_pass pass;
	bool refused;

	if (!marked(fd) || (!(prot & PROT_EXEC) && (flags & MAP_TYPE) != MAP_PRIVATE))
		return false;
	if (flags & MAP_ANONYMOUS || door_enter(&pass))
		return false;
	refused = api_map_refused(fd, offset, size);
	door_leave(&pass);
	return refused;
}

__export void *mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
	if (unlikely(map_refused(fd, prot, flags, offset, size))) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	return door_next()->mmap(addr, size, prot, flags, fd, offset);
}

__export void *mmap64(void *addr, size_t size, int prot, int flags, int fd, off64_t offset)
{
	return mmap(addr, size, prot, flags, fd, offset);
}
