/* SPDX-License-Identifier: MIT */
/*
 * The functions by which a program finds /dev/kvm: it exists for all, readable and writable, whether or
 * not the host has one, which is never touched.
 */
#include "front/door.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define KVM_MINOR 232

/* These stand for the functions of fortified programs and of programs linked before glibc 2.33. */
int __open(const char *path, int flags, ...);
int __open64(const char *path, int flags, ...);
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);
int __xstat(int version, const char *path, struct stat *buf);
int __xstat64(int version, const char *path, struct stat64 *buf);
int __lxstat(int version, const char *path, struct stat *buf);
int __lxstat64(int version, const char *path, struct stat64 *buf);
int __fxstatat(int version, int dir, const char *path, struct stat *buf, int flags);
int __fxstatat64(int version, int dir, const char *path, struct stat64 *buf, int flags);

static bool is_kvm(const char *path)
{
	/* Not strcmp() on the caller's pointer at once: a bad one is the kernel's to refuse. */
	return path && ((uintptr_t)path >= PAGE_SIZE) && path[0] == '/' &&
	       !strcmp(path, "/dev/kvm");
}

static int open_kvm(int flags)
{
	if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) {
		errno = EEXIST;
		return -1;
	}
	if (flags & O_DIRECTORY) {
		errno = ENOTDIR;
		return -1;
	}
	return door_open(flags);
}

static bool has_mode(int flags)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
}

#define READ_MODE(flags)                                \
	({                                              \
		mode_t read_mode = 0;                   \
		va_list ap;                             \
		if (has_mode(flags)) {                  \
			va_start(ap, flags);            \
			read_mode = va_arg(ap, mode_t); \
			va_end(ap);                     \
		}                                       \
		read_mode;                              \
	})

#define DEFINE_OPEN(name, call)                                          \
	__export int name(const char *path, int flags, ...)              \
	{                                                                \
		if (is_kvm(path))                                        \
			return open_kvm(flags);                          \
		return door_next()->call(path, flags, READ_MODE(flags)); \
	}

DEFINE_OPEN(open, open)
DEFINE_OPEN(open64, open64)
DEFINE_OPEN(__open, open)
DEFINE_OPEN(__open64, open64)

#define DEFINE_OPENAT(name)                                                   \
	__export int name(int dir, const char *path, int flags, ...)          \
	{                                                                     \
		if (is_kvm(path))                                             \
			return open_kvm(flags);                               \
		return door_next()->name(dir, path, flags, READ_MODE(flags)); \
	}

DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

/* One line per function: PATH_CALL(result, name, parameters, arguments, answer for /dev/kvm). */
#define PATH_CALL(result, name, parameters, arguments, answer) \
	__export result name parameters                        \
	{                                                      \
		if (is_kvm(path))                              \
			return answer;                         \
		return door_next()->name arguments;            \
	}

PATH_CALL(int, __open_2, (const char *path, int flags), (path, flags), open_kvm(flags))
PATH_CALL(int, __open64_2, (const char *path, int flags), (path, flags), open_kvm(flags))
PATH_CALL(int, __openat_2, (int dir, const char *path, int flags), (dir, path, flags),
	  open_kvm(flags))
PATH_CALL(int, __openat64_2, (int dir, const char *path, int flags), (dir, path, flags),
	  open_kvm(flags))
PATH_CALL(int, creat, (const char *path, mode_t mode), (path, mode), open_kvm(O_WRONLY))
PATH_CALL(int, creat64, (const char *path, mode_t mode), (path, mode), open_kvm(O_WRONLY))

/* ---- fopen ---- */

static FILE *fopen_kvm(const char *mode)
{
	int flags = strchr(mode, '+') ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY;
	FILE *file;
	int fd;

	if (strchr(mode, 'e'))
		flags |= O_CLOEXEC;
	fd = open_kvm(flags);
	if (fd < 0)
		return NULL;
	file = fdopen(fd, mode);
	if (!file)
		close(fd);
	return file;
}

PATH_CALL(FILE *, fopen, (const char *path, const char *mode), (path, mode), fopen_kvm(mode))
PATH_CALL(FILE *, fopen64, (const char *path, const char *mode), (path, mode), fopen_kvm(mode))

/* ---- access ---- */

static int access_kvm(int mode)
{
	if (mode & ~(R_OK | W_OK | X_OK))
		errno = EINVAL;
	else if (mode & X_OK)
		errno = EACCES;
	else
		return 0;
	return -1;
}

PATH_CALL(int, access, (const char *path, int mode), (path, mode), access_kvm(mode))
PATH_CALL(int, euidaccess, (const char *path, int mode), (path, mode), access_kvm(mode))
PATH_CALL(int, faccessat, (int dir, const char *path, int mode, int flags),
	  (dir, path, mode, flags), access_kvm(mode))

__export int eaccess(const char *path, int mode)
{
	return euidaccess(path, mode);
}

/* ---- stat ---- */

/* A character device; the rest is that of /dev/null, which every host has. */
#define DEFINE_STAT_KVM(name, type, call)                                  \
	static int name(type *buf)                                         \
	{                                                                  \
		int ret;                                                   \
                                                                           \
		if (door_next()->call)                                     \
			ret = door_next()->call("/dev/null", buf);         \
		else                                                       \
			ret = door_next()->__x##call(1, "/dev/null", buf); \
		if (ret)                                                   \
			return ret;                                        \
		buf->st_mode = S_IFCHR | 0666;                             \
		buf->st_rdev = makedev(10, KVM_MINOR);                     \
		return 0;                                                  \
	}

DEFINE_STAT_KVM(stat_kvm, struct stat, stat)
DEFINE_STAT_KVM(stat64_kvm, struct stat64, stat64)

static int statx_kvm(unsigned mask, struct statx *buf)
{
	if (door_next()->statx(AT_FDCWD, "/dev/null", 0, mask, buf))
		return -1;
	buf->stx_mode = S_IFCHR | 0666;
	buf->stx_rdev_major = 10;
	buf->stx_rdev_minor = KVM_MINOR;
	return 0;
}

PATH_CALL(int, stat, (const char *path, struct stat *buf), (path, buf), stat_kvm(buf))
PATH_CALL(int, stat64, (const char *path, struct stat64 *buf), (path, buf), stat64_kvm(buf))
PATH_CALL(int, lstat, (const char *path, struct stat *buf), (path, buf), stat_kvm(buf))
PATH_CALL(int, lstat64, (const char *path, struct stat64 *buf), (path, buf), stat64_kvm(buf))
PATH_CALL(int, fstatat, (int dir, const char *path, struct stat *buf, int flags),
	  (dir, path, buf, flags), stat_kvm(buf))
PATH_CALL(int, fstatat64, (int dir, const char *path, struct stat64 *buf, int flags),
	  (dir, path, buf, flags), stat64_kvm(buf))
PATH_CALL(int, __xstat, (int version, const char *path, struct stat *buf), (version, path, buf),
	  stat_kvm(buf))
PATH_CALL(int, __xstat64, (int version, const char *path, struct stat64 *buf), (version, path, buf),
	  stat64_kvm(buf))
PATH_CALL(int, __lxstat, (int version, const char *path, struct stat *buf), (version, path, buf),
	  stat_kvm(buf))
PATH_CALL(int, __lxstat64, (int version, const char *path, struct stat64 *buf),
	  (version, path, buf), stat64_kvm(buf))
PATH_CALL(int, __fxstatat, (int version, int dir, const char *path, struct stat *buf, int flags),
	  (version, dir, path, buf, flags), stat_kvm(buf))
PATH_CALL(int, __fxstatat64,
	  (int version, int dir, const char *path, struct stat64 *buf, int flags),
	  (version, dir, path, buf, flags), stat64_kvm(buf))
PATH_CALL(int, statx, (int dir, const char *path, int flags, unsigned mask, struct statx *buf),
	  (dir, path, flags, mask, buf), statx_kvm(mask, buf))
