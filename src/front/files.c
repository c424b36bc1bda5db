/* SPDX-License-Identifier: MIT */
/*
 * What stands at which path. A text is made when it is opened, into a file without a name: the program reads it,
 * seeks in it and hands it on like any other.
 */
#include "front/files.h"
#include "kvm/api/api.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define MODULES	   "/sys/module/"
#define PARAMETERS "/parameters"

static const char *vendor_module(void)
{
	return processor_intel() ? "kvm_intel" : "kvm_amd";
}

static bool has_module(const char *name, size_t len)
{
	const char *own = vendor_module();

	return (len == 3 && !strncmp(name, "kvm", 3)) ||
	       (len == strlen(own) && !strncmp(name, own, len));
}

static bool param_find(const char *module, size_t len, const char *name, struct api_param *ret)
{
	for (unsigned i = 0; api_param_nth(i, ret); i++)
		if (strlen(ret->module) == len && !strncmp(ret->module, module, len) &&
		    !strcmp(ret->name, name))
			return true;
	return false;
}

/* path is below MODULES, and a module's of KVM. */
static struct file find_module(const char *path)
{
	const char *module = path + strlen(MODULES);
	size_t len = strcspn(module, "/");
	const char *rest = module + len;
	struct api_param param;

	if (!has_module(module, len))
		return (struct file){FILE_ABSENT, NULL};
	if (!*rest || !strcmp(rest, "/"))
		return (struct file){FILE_FOLDER, path};
	if (strncmp(rest, PARAMETERS, strlen(PARAMETERS)))
		return (struct file){FILE_ABSENT, NULL};
	rest += strlen(PARAMETERS);
	if (!*rest || !strcmp(rest, "/"))
		return (struct file){FILE_FOLDER, path};
	if (*rest != '/' || !param_find(module, len, rest + 1, &param))
		return (struct file){FILE_ABSENT, NULL};
	return (struct file){FILE_TEXT, path};
}

/* "kvm", or "kvm_intel" and the like; not "kvmgt", which is another's. */
static bool is_kvm_module(const char *path)
{
	const char *name = path + strlen(MODULES);

	return !strncmp(name, "kvm", 3) && strchr("/_", name[3]);
}

struct file files_find(const char *path)
{
	static const struct file other = {FILE_OTHER, NULL}, absent = {FILE_ABSENT, NULL};

	/* Not strcmp() on the caller's pointer at once: a bad one is the kernel's to refuse. */
	if (!path || (uintptr_t)path < PAGE_SIZE || path[0] != '/')
		return other;
	if (path[1] == 'd' && !strcmp(path, "/dev/kvm"))
		return (struct file){FILE_KVM, path};
	if (path[1] == 'd' && !strcmp(path, "/dev/sev"))
		return absent;
	if (path[1] == 's' && !strncmp(path, MODULES, strlen(MODULES)) && is_kvm_module(path))
		return find_module(path);
	if (path[1] == 'p' && !strcmp(path, "/proc/cpuinfo"))
		return (struct file){FILE_TEXT, path};
	return other;
}

/* Names below folders that hold files of ours: worth looking where dir is. */
static bool may_be_ours(const char *path)
{
	if (!path || (uintptr_t)path < PAGE_SIZE || path[0] == '/')
		return false;
	return strstr(path, "kvm") || strstr(path, "cpuinfo");
}

struct file files_find_at(int dir, const char *path, char *buf, size_t size)
{
	char link[32];
	ssize_t len;

	if (likely(!may_be_ours(path)) || dir == AT_FDCWD)
		return files_find(path);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	len = readlink(link, buf, size - 1);
	if (len <= 0 || (size_t)len + strlen(path) + 2 > size)
		return files_find(path);
	snprintf(buf + len, size - len, "/%s", path);
	return files_find(buf);
}

static void text_write(int fd, const char *name)
{
	const char *module = name + strlen(MODULES);
	struct api_param param;

	if (!strcmp(name, "/proc/cpuinfo")) {
		cpuinfo_write(fd, processor_model());
		return;
	}
	if (param_find(module, strcspn(module, "/"), strrchr(name, '/') + 1, &param))
		dprintf(fd, "%s\n", param.value);
}

int files_open(const struct file *file, int flags)
{
	int fd;

	if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
		return -EEXIST;
	if (flags & O_DIRECTORY)
		return -ENOTDIR;
	/* What it says is decided before the program starts. */
	if ((flags & O_ACCMODE) != O_RDONLY)
		return -EACCES;
	fd = host_memfd("anykvm:text", 0, flags & O_CLOEXEC);
	if (fd < 0)
		return fd;
	text_write(fd, file->name);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static const char *nth_param(const char *module, size_t len, unsigned nr)
{
	struct api_param param;

	for (unsigned i = 0; api_param_nth(i, &param); i++)
		if (strlen(param.module) == len && !strncmp(param.module, module, len) && nr-- == 0)
			return param.name;
	return "";
}

const char *files_name(const struct file *folder, unsigned nr, bool *ret_folder)
{
	const char *module = folder->name + strlen(MODULES);
	size_t len = strcspn(module, "/");

	*ret_folder = nr < 2;
	if (nr < 2)
		return nr ? ".." : ".";
	if (!strncmp(module + len, PARAMETERS, strlen(PARAMETERS)))
		return nth_param(module, len, nr - 2);
	*ret_folder = true;
	return nr == 2 ? &PARAMETERS[1] : "";
}
