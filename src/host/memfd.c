/* SPDX-License-Identifier: MIT */
/*
 * Anonymous files.
 */
#include "host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

static long memfd_create_raw(const char *name, unsigned flags)
{
	return host_syscall(SYS_memfd_create, (long)name, flags, 0, 0, 0, 0);
}

int host_memfd(const char *name, size_t size, bool cloexec)
{
	unsigned flags = MFD_ALLOW_SEALING | (cloexec ? MFD_CLOEXEC : 0);
	long fd, err;

	fd = memfd_create_raw(name, flags);
	/* vm.memfd_noexec=2 allows only files that can never be executed by execve(2). */
	if (fd == -EACCES)
		fd = memfd_create_raw(name, flags | MFD_NOEXEC_SEAL);
	if (fd < 0)
		return fd;
	err = host_syscall(SYS_ftruncate, fd, size, 0, 0, 0, 0);
	if (err < 0) {
		host_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
		return err;
	}
	return fd;
}

int host_memfd_keep_size(int fd)
{
	return host_syscall(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL,
			    0, 0, 0);
}
