/* SPDX-License-Identifier: MIT */
/* The door, preloaded: how a program finds and closes /dev/kvm. */
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_api.h"

static void is_ours(int fd)
{
	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, KVM_GET_API_VERSION, 0), 12);
	close(fd);
}

static void opens(void **state)
{
	FILE *file;

	is_ours(open("/dev/kvm", O_RDWR));
	is_ours(open64("/dev/kvm", O_RDWR | O_CLOEXEC));
	is_ours(openat(AT_FDCWD, "/dev/kvm", O_RDWR));
	is_ours(openat64(-1, "/dev/kvm", O_RDONLY));
	is_ours(creat("/dev/kvm", 0600));
	file = fopen("/dev/kvm", "r+e");
	assert_non_null(file);
	assert_int_equal(ioctl(fileno(file), KVM_GET_API_VERSION, 0), 12);
	fclose(file);
}

static void close_on_exec(void **state)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
	fd = open("/dev/kvm", O_RDWR);
	assert_int_equal(fcntl(fd, F_GETFD), 0);
	close(fd);
}

static void refusals(void **state)
{
	assert_int_equal(open("/dev/kvm", O_RDWR | O_CREAT | O_EXCL, 0600), -1);
	assert_int_equal(errno, EEXIST);
	assert_int_equal(open("/dev/kvm", O_RDONLY | O_DIRECTORY), -1);
	assert_int_equal(errno, ENOTDIR);
	assert_int_equal(open("/dev/kvm/x", O_RDWR), -1);
	assert_int_equal(open("/dev/kvmx", O_RDWR), -1);
	assert_int_equal(errno, ENOENT);
}

static void looks(void **state)
{
	struct statx x;
	struct stat st;

	assert_int_equal(access("/dev/kvm", R_OK | W_OK), 0);
	assert_int_equal(access("/dev/kvm", X_OK), -1);
	assert_int_equal(errno, EACCES);
	assert_int_equal(access("/dev/kvm", 8), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(faccessat(AT_FDCWD, "/dev/kvm", F_OK, 0), 0);
	assert_int_equal(stat("/dev/kvm", &st), 0);
	assert_int_equal(st.st_mode, S_IFCHR | 0666);
	assert_int_equal(st.st_rdev, makedev(10, 232));
	assert_int_equal(lstat("/dev/kvm", &st), 0);
	assert_int_equal(fstatat(AT_FDCWD, "/dev/kvm", &st, 0), 0);
	assert_int_equal(st.st_rdev, makedev(10, 232));
	assert_int_equal(statx(AT_FDCWD, "/dev/kvm", 0, STATX_ALL, &x), 0);
	assert_int_equal(x.stx_rdev_minor, 232);
	assert_int_equal(access("/dev/nothing", F_OK), -1);
	assert_int_equal(errno, ENOENT);
}

/* Numbers of another type, and other files, are the kernel's to answer. */
static void other_ioctls(void **state)
{
	int pipes[2], n = -1, fd = open("/dev/kvm", O_RDWR);

	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(write(pipes[1], "abc", 3), 3);
	assert_int_equal(ioctl(pipes[0], FIONREAD, &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(ioctl(pipes[0], KVM_GET_API_VERSION, 0), -1);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(ioctl(-1, KVM_GET_API_VERSION, 0), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(ioctl(1000, KVM_GET_API_VERSION, 0), -1);
	assert_int_equal(errno, EBADF);
	/* A number as a signed int, as some callers pass it. */
	assert_int_equal(ioctl(fd, (int)KVM_SET_MSRS, 0), -1);
	assert_int_equal(errno, EINVAL);
	close(fd);
}

static void duplicates(void **state)
{
	int fd = open("/dev/kvm", O_RDWR), copy = dup(fd);

	close(fd);
	is_ours(copy);
}

static int reaped(int fd)
{
	return ioctl(fd, FAKE_REAPED, 0);
}

static void closing_reaps(void **state)
{
	int keep = open("/dev/kvm", O_RDWR), other = dup(2), fd, before;

	fd = dup(keep);
	assert_int_equal(ioctl(fd, KVM_GET_API_VERSION, 0), 12);
	before = reaped(keep);
	close(other);
	assert_int_equal(reaped(keep), before);
	close(fd);
	assert_int_equal(reaped(keep), before + 1);
	close(fd);
	assert_int_equal(reaped(keep), before + 1);
	fd = dup(keep);
	close_range(fd, fd, 0);
	assert_int_equal(reaped(keep), before + 2);
	close(keep);
}

/* A vforked child lives in its parent's memory; its closing is no news. */
static void vforked_close(void **state)
{
	int fd = open("/dev/kvm", O_RDWR), before = reaped(fd), status;
	pid_t pid = vfork();

	if (!pid) {
		close(fd);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(reaped(fd), before);
	close(fd);
}

static void bad_pointers(void **state)
{
	int fd = open("/dev/kvm", O_RDWR);

	assert_int_equal(ioctl(fd, FAKE_TOUCH, "x"), 0);
	assert_int_equal(ioctl(fd, FAKE_TOUCH, 8), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(ioctl(fd, FAKE_TOUCH, 1ul << 63), -1);
	assert_int_equal(errno, EFAULT);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens),	 cmocka_unit_test(close_on_exec),
		cmocka_unit_test(refusals),	 cmocka_unit_test(looks),
		cmocka_unit_test(other_ioctls),	 cmocka_unit_test(duplicates),
		cmocka_unit_test(closing_reaps), cmocka_unit_test(vforked_close),
		cmocka_unit_test(bad_pointers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
