/* SPDX-License-Identifier: MIT */
/*
 * Finding the vCPUs of running processes: their files are memfds, to be seen and opened under /proc/PID/fd by whoever may
 * look into the process. A forked child has its parent's fds, too: the page says whose it is.
 */
#include "front/watch.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINK_NAME "/memfd:" WATCH_FILE " (deleted)"

static void *map_at(int fd, off_t at)
{
	struct stat st;
	void *map;

	if (fstat(fd, &st) || st.st_size < at + (off_t)PAGE_SIZE)
		return NULL;
	map = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at);
	return map == MAP_FAILED ? NULL : map;
}

static bool valid(const struct watch_page *page)
{
	return page && page->magic == WATCH_MAGIC && page->version == WATCH_VERSION;
}

/* Where a session has the page. */
static struct watch_page *follow(struct watch_page *page)
{
	struct watch_session head;
	struct watch_page *there = NULL;
	char path[sizeof(page->elsewhere) + 1] = "";
	int fd;

	memcpy(path, page->elsewhere, sizeof(page->elsewhere));
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && pread(fd, &head, sizeof(head), 0) == sizeof(head))
		there = map_at(fd, PAGE_SIZE + page->slot * (PAGE_SIZE + head.ring_size));
	if (fd >= 0)
		close(fd);
	munmap(page, PAGE_SIZE);
	return there;
}

static void add(struct watch_list *list, const struct stat *st, pid_t pid, int fd)
{
	struct watch_page *page = map_at(fd, WATCH_PAGE * PAGE_SIZE);
	struct watched *more;

	if (valid(page) && page->pid == (uint32_t)pid && page->elsewhere[0])
		page = follow(page);
	if (!valid(page) || page->pid != (uint32_t)pid) {
		if (page)
			munmap(page, PAGE_SIZE);
		return;
	}
	more = realloc(list->v, (list->nr + 1) * sizeof(*more));
	if (!more)
		exit(launcher_error("out of memory"));
	list->v = more;
	list->v[list->nr++] = (struct watched){st->st_dev, st->st_ino, pid, false, page};
}

static void look_at(struct watch_list *list, pid_t pid, const char *path)
{
	struct stat st;
	unsigned i;
	int fd;

	if (stat(path, &st))
		return;
	for (i = 0; i < list->nr; i++)
		if (list->v[i].dev == st.st_dev && list->v[i].inode == st.st_ino) {
			if (list->v[i].pid == pid)
				list->v[i].gone = false;
			return;
		}
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	add(list, &st, pid, fd);
	close(fd);
}

static void find_of(struct watch_list *list, pid_t pid)
{
	char path[300], link[64];
	struct dirent *entry;
	ssize_t len;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		list->denied |= errno == EACCES;
	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, entry->d_name);
		len = readlink(path, link, sizeof(link) - 1);
		if (len == (ssize_t)strlen(LINK_NAME) && !memcmp(link, LINK_NAME, len))
			look_at(list, pid, path);
	}
	if (dir)
		closedir(dir);
}

void watch_find(struct watch_list *list, pid_t pid)
{
	struct dirent *entry;
	DIR *dir;

	for (unsigned i = 0; i < list->nr; i++)
		list->v[i].gone = true;
	if (pid) {
		find_of(list, pid);
		return;
	}
	dir = opendir("/proc");
	while (dir && (entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]))
			find_of(list, atoi(entry->d_name));
	if (dir)
		closedir(dir);
}

void watch_renew(struct watch_list *list, uint64_t ns)
{
	uint64_t until = host_monotonic_ns() + ns;

	for (unsigned i = 0; i < list->nr; i++)
		if (__atomic_load_n(&list->v[i].page->want_until, __ATOMIC_RELAXED) < until)
			__atomic_store_n(&list->v[i].page->want_until, until, __ATOMIC_RELAXED);
}
