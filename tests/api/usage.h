/* SPDX-License-Identifier: MIT */
/* What the process has of the kernel: for tests that nothing is left behind. */
#ifndef TESTS_API_USAGE_H
#define TESTS_API_USAGE_H

#include "api_test.h"

#include <dirent.h>

static inline unsigned count_dir(const char *path)
{
	DIR *dir = opendir(path);
	unsigned n = 0;

	CHECK(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* Each with what the counting itself takes. */
static inline unsigned count_fds(void)
{
	return count_dir("/proc/self/fd");
}

static inline unsigned count_threads(void)
{
	return count_dir("/proc/self/task");
}

static inline unsigned count_maps(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned n = 0;
	int c;

	CHECK(maps);
	while ((c = fgetc(maps)) != EOF)
		n += c == '\n';
	fclose(maps);
	return n;
}

#endif
