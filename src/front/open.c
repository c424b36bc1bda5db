/* SPDX-License-Identifier: MIT */
/*
 * The functions by which a program finds /dev/kvm: it exists for all, readable and writable, whether or
 * not the host has one, which is never touched. So too the other files of files.c.
 */
#include "front/files.h"

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

static int open_file(const struct file *file, const char *path, int flags)
{
	switch (file->kind) {
	case FILE_KVM:
		return open_kvm(flags);
	case FILE_TEXT:
		return (int)door_result(files_open(file, flags));
	case FILE_FOLDER:
		/* Something to hold: its names are read by opendir(), by path. */
		if ((flags & O_ACCMODE) == O_RDONLY)
			return door_next()->open("/proc/self/fdinfo", flags);
		errno = EISDIR;
		return -1;
	default:
		errno = ENOENT;
		return -1;
	}
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
		struct file file = files_find(path);                     \
		if (file.kind != FILE_OTHER)                             \
			return open_file(&file, path, flags);            \
		return door_next()->call(path, flags, READ_MODE(flags)); \
	}

DEFINE_OPEN(open, open)
DEFINE_OPEN(open64, open64)
DEFINE_OPEN(__open, open)
DEFINE_OPEN(__open64, open64)

#define DEFINE_OPENAT(name)                                                   \
	__export int name(int dir, const char *path, int flags, ...)          \
	{                                                                     \
		char at[FILES_PATH_SIZE];                                     \
		struct file file = files_find_at(dir, path, at, sizeof(at));  \
		if (file.kind != FILE_OTHER)                                  \
			return open_file(&file, path, flags);                 \
		return door_next()->name(dir, path, flags, READ_MODE(flags)); \
	}

DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

/* One line per function: PATH_CALL(result, name, parameters, arguments, answer for a file of ours). */
#define PATH_CALL(result, name, parameters, arguments, answer) \
	__export result name parameters                        \
	{                                                      \
		struct file file = files_find(path);           \
		if (file.kind != FILE_OTHER)                   \
			return answer;                         \
		return door_next()->name arguments;            \
	}

/* The same for those that have a dir. */
#define AT_CALL(result, name, parameters, arguments, answer)                 \
	__export result name parameters                                      \
	{                                                                    \
		char at[FILES_PATH_SIZE];                                    \
		struct file file = files_find_at(dir, path, at, sizeof(at)); \
		if (file.kind != FILE_OTHER)                                 \
			return answer;                                       \
		return door_next()->name arguments;                          \
	}

PATH_CALL(int, __open_2, (const char *path, int flags), (path, flags),
	  open_file(&file, path, flags))
PATH_CALL(int, __open64_2, (const char *path, int flags), (path, flags),
	  open_file(&file, path, flags))
AT_CALL(int, __openat_2, (int dir, const char *path, int flags), (dir, path, flags),
	open_file(&file, path, flags))
AT_CALL(int, __openat64_2, (int dir, const char *path, int flags), (dir, path, flags),
	open_file(&file, path, flags))
PATH_CALL(int, creat, (const char *path, mode_t mode), (path, mode),
	  open_file(&file, path, O_WRONLY))
PATH_CALL(int, creat64, (const char *path, mode_t mode), (path, mode),
	  open_file(&file, path, O_WRONLY))

/* ---- fopen ---- */

static FILE *fopen_file(const struct file *of, const char *path, const char *mode)
{
	int flags = strchr(mode, '+') ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY;
	FILE *file;
	int fd;

	if (strchr(mode, 'e'))
		flags |= O_CLOEXEC;
	fd = open_file(of, path, flags);
	if (fd < 0)
		return NULL;
	file = fdopen(fd, mode);
	if (!file)
		close(fd);
	return file;
}

PATH_CALL(FILE *, fopen, (const char *path, const char *mode), (path, mode),
	  fopen_file(&file, path, mode))
PATH_CALL(FILE *, fopen64, (const char *path, const char *mode), (path, mode),
	  fopen_file(&file, path, mode))

/* ---- access ---- */

/* /dev/kvm is everybody's, texts are read, folders searched. */
static int access_file(const struct file *file, int mode)
{
	int denied = file->kind == FILE_KVM ? X_OK : file->kind == FILE_TEXT ? W_OK | X_OK : W_OK;

	if (mode & ~(R_OK | W_OK | X_OK))
		errno = EINVAL;
	else if (file->kind == FILE_ABSENT)
		errno = ENOENT;
	else if (mode & denied)
		errno = EACCES;
	else
		return 0;
	return -1;
}

PATH_CALL(int, access, (const char *path, int mode), (path, mode), access_file(&file, mode))
PATH_CALL(int, euidaccess, (const char *path, int mode), (path, mode), access_file(&file, mode))
AT_CALL(int, faccessat, (int dir, const char *path, int mode, int flags), (dir, path, mode, flags),
	access_file(&file, mode))

__export int eaccess(const char *path, int mode)
{
	return euidaccess(path, mode);
}

/* ---- stat ---- */

static mode_t file_mode(const struct file *file)
{
	if (file->kind == FILE_KVM)
		return S_IFCHR | 0666;
	return file->kind == FILE_TEXT ? S_IFREG | 0444 : S_IFDIR | 0755;
}

/* What else there is to say is that of /dev/null, which every host has. */
#define DEFINE_STAT(fn, type, call)                                                             \
	static int fn(const struct file *file, type *buf)                                       \
	{                                                                                       \
		int ret;                                                                        \
                                                                                                \
		if (file->kind == FILE_ABSENT) {                                                \
			errno = ENOENT;                                                         \
			return -1;                                                              \
		}                                                                               \
		if (door_next()->call)                                                          \
			ret = door_next()->call("/dev/null", buf);                              \
		else                                                                            \
			ret = door_next()->__x##call(1, "/dev/null", buf);                      \
		if (ret)                                                                        \
			return ret;                                                             \
		buf->st_mode = file_mode(file);                                                 \
		buf->st_rdev = file->kind == FILE_KVM ? makedev(10, KVM_MINOR) : 0;             \
		buf->st_size = file->kind == FILE_TEXT && file->name[1] == 's' ? PAGE_SIZE : 0; \
		return 0;                                                                       \
	}

DEFINE_STAT(stat_file, struct stat, stat)
DEFINE_STAT(stat64_file, struct stat64, stat64)

static int statx_file(const struct file *file, unsigned mask, struct statx *buf)
{
	if (file->kind == FILE_ABSENT) {
		errno = ENOENT;
		return -1;
	}
	if (door_next()->statx(AT_FDCWD, "/dev/null", 0, mask, buf))
		return -1;
	buf->stx_mode = file_mode(file);
	buf->stx_rdev_major = file->kind == FILE_KVM ? 10 : 0;
	buf->stx_rdev_minor = file->kind == FILE_KVM ? KVM_MINOR : 0;
	buf->stx_size = file->kind == FILE_TEXT && file->name[1] == 's' ? PAGE_SIZE : 0;
	return 0;
}

PATH_CALL(int, stat, (const char *path, struct stat *buf), (path, buf), stat_file(&file, buf))
PATH_CALL(int, stat64, (const char *path, struct stat64 *buf), (path, buf), stat64_file(&file, buf))
PATH_CALL(int, lstat, (const char *path, struct stat *buf), (path, buf), stat_file(&file, buf))
PATH_CALL(int, lstat64, (const char *path, struct stat64 *buf), (path, buf),
	  stat64_file(&file, buf))
AT_CALL(int, fstatat, (int dir, const char *path, struct stat *buf, int flags),
	(dir, path, buf, flags), stat_file(&file, buf))
AT_CALL(int, fstatat64, (int dir, const char *path, struct stat64 *buf, int flags),
	(dir, path, buf, flags), stat64_file(&file, buf))
PATH_CALL(int, __xstat, (int version, const char *path, struct stat *buf), (version, path, buf),
	  stat_file(&file, buf))
PATH_CALL(int, __xstat64, (int version, const char *path, struct stat64 *buf), (version, path, buf),
	  stat64_file(&file, buf))
PATH_CALL(int, __lxstat, (int version, const char *path, struct stat *buf), (version, path, buf),
	  stat_file(&file, buf))
PATH_CALL(int, __lxstat64, (int version, const char *path, struct stat64 *buf),
	  (version, path, buf), stat64_file(&file, buf))
AT_CALL(int, __fxstatat, (int version, int dir, const char *path, struct stat *buf, int flags),
	(version, dir, path, buf, flags), stat_file(&file, buf))
AT_CALL(int, __fxstatat64, (int version, int dir, const char *path, struct stat64 *buf, int flags),
	(version, dir, path, buf, flags), stat64_file(&file, buf))
AT_CALL(int, statx, (int dir, const char *path, int flags, unsigned mask, struct statx *buf),
	(dir, path, flags, mask, buf), statx_file(&file, mask, buf))
