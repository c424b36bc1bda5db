/* SPDX-License-Identifier: MIT */
/* Where the library is, how it gets into a program, and becoming that program. */
#include "front/launcher.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *launcher_join(const char *first, char sep, const char *second)
{
	char *ret;

	if (!first || !*first)
		ret = strdup(second);
	else if (asprintf(&ret, "%s%c%s", first, sep, second) < 0)
		ret = NULL;
	if (!ret)
		exit(launcher_error("out of memory"));
	return ret;
}

/* "dir/name" if that can be read, or NULL. */
static char *library_at(const char *dir, const char *name)
{
	char *path = launcher_join(dir, '/', name);

	if (!access(path, R_OK))
		return path;
	free(path);
	return NULL;
}

char *launcher_find(const char *name, const char *from_bin, const char *installed)
{
	char self[PATH_MAX], *path, *dir;
	ssize_t len;

	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[max(len, (ssize_t)0)] = 0;
	if (strrchr(self, '/'))
		*strrchr(self, '/') = 0;
	path = library_at(self, name);
	if (!path) {
		dir = launcher_join(self, '/', from_bin);
		path = library_at(dir, name);
		free(dir);
	}
	return path ? path : library_at(installed, name);
}

static bool listed(const char *list, const char *path)
{
	size_t len = strlen(path);
	const char *at;

	for (at = list; at && (at = strstr(at, path)); at += len) {
		if ((at == list || strchr(" :", at[-1])) && (!at[len] || strchr(" :", at[len])))
			return true;
	}
	return false;
}

/*
 * In a sanitizer build the runtime has to be initialized before libanykvm.so: its path, or NULL.
 * The command itself is linked with it then.
 */
extern void __asan_init(void) __attribute__((weak));

static const char *sanitizer_runtime(void)
{
	Dl_info info;

	return __asan_init && dladdr((void *)__asan_init, &info) ? info.dli_fname : NULL;
}

static void put_first(const char *path)
{
	const char *others = getenv("LD_PRELOAD");

	if (!listed(others, path))
		setenv("LD_PRELOAD", others && *others ? launcher_join(path, ':', others) : path,
		       1);
}

char *launcher_library(const char **ret_why)
{
	char *lib = launcher_find("libanykvm.so", ANYKVM_LIB_FROM_BIN, ANYKVM_LIB_INSTALLED);

	*ret_why = "libanykvm.so is not beside the command; build or install it";
	if (!lib || !strpbrk(lib, " :"))
		return lib;
	free(lib);
	*ret_why = "libanykvm.so: a path with a space or colon cannot be preloaded; move it";
	return NULL;
}

int launcher_preload(void)
{
	const char *why, *runtime = sanitizer_runtime();
	char *lib = launcher_library(&why);

	if (!lib)
		return launcher_error("%s", why);
	put_first(lib);
	if (runtime)
		put_first(runtime);
	return 0;
}

int launcher_become(const char *path, char **argv)
{
	int err;

	execv(path, argv);
	err = errno;
	launcher_error("%s: %s", path, strerror(err));
	return err == ENOENT || err == ENOTDIR ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}
