/* SPDX-License-Identifier: MIT */
/*
 * opendir(3) and its kin for the folders of files.c. A folder of ours is a real stream, of a folder that every host has (so
 * that whatever takes a stream gets one), and a note of what to answer for it.
 */
#include "front/files.h"

#include <stdlib.h>
#include <string.h>

struct folder {
	struct folder *next;
	DIR *dir;
	struct file file;
	char path[256];
	unsigned at;
	struct dirent entry;
	struct dirent64 entry64;
};

static struct folder *folders;
static pthread_mutex_t folders_lock = PTHREAD_MUTEX_INITIALIZER;

static struct folder *folder_of(DIR *dir)
{
	struct folder *f;

	if (likely(!__atomic_load_n(&folders, __ATOMIC_RELAXED)))
		return NULL;
	pthread_mutex_lock(&folders_lock);
	for (f = folders; f && f->dir != dir; f = f->next)
		;
	pthread_mutex_unlock(&folders_lock);
	return f;
}

static DIR *open_folder(const struct file *file)
{
	struct folder *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->dir = door_next()->opendir("/proc/self/fdinfo");
	if (!f->dir) {
		free(f);
		return NULL;
	}
	f->file = *file;
	strncpy(f->path, file->name, sizeof(f->path) - 1);
	f->file.name = f->path;
	pthread_mutex_lock(&folders_lock);
	f->next = folders;
	__atomic_store_n(&folders, f, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&folders_lock);
	return f->dir;
}

__export DIR *opendir(const char *path)
{
	struct file file = files_find(path);

	switch (file.kind) {
	case FILE_OTHER:
		return door_next()->opendir(path);
	case FILE_FOLDER:
		return open_folder(&file);
	default:
		errno = file.kind == FILE_ABSENT ? ENOENT : ENOTDIR;
		return NULL;
	}
}

__export int closedir(DIR *dir)
{
	struct folder *f = folder_of(dir), **link;

	if (f) {
		pthread_mutex_lock(&folders_lock);
		for (link = &folders; *link != f; link = &(*link)->next)
			;
		__atomic_store_n(link, f->next, __ATOMIC_RELAXED);
		pthread_mutex_unlock(&folders_lock);
		free(f);
	}
	return door_next()->closedir(dir);
}

#define DEFINE_READDIR(name, type, member)                                      \
	__export struct type *name(DIR *dir)                                    \
	{                                                                       \
		struct folder *f = folder_of(dir);                              \
		const char *entry;                                              \
		bool is_folder;                                                 \
                                                                                \
		if (!f)                                                         \
			return door_next()->name(dir);                          \
		entry = files_name(&f->file, f->at, &is_folder);                \
		if (!*entry)                                                    \
			return NULL;                                            \
		f->member.d_ino = ++f->at;                                      \
		f->member.d_off = f->at;                                        \
		f->member.d_reclen = sizeof(f->member);                         \
		f->member.d_type = is_folder ? DT_DIR : DT_REG;                 \
		strncpy(f->member.d_name, entry, sizeof(f->member.d_name) - 1); \
		return &f->member;                                              \
	}

DEFINE_READDIR(readdir, dirent, entry)
DEFINE_READDIR(readdir64, dirent64, entry64)

__export void rewinddir(DIR *dir)
{
	struct folder *f = folder_of(dir);

	if (f)
		f->at = 0;
	door_next()->rewinddir(dir);
}
