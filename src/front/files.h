/* SPDX-License-Identifier: MIT */
/*
 * Paths that answer as on a machine with KVM and the model's processor: /dev/kvm, the modules' folders below
 * /sys/module, /proc/cpuinfo.
 */
#ifndef FRONT_FILES_H
#define FRONT_FILES_H

#include "front/door.h"

#include <dirent.h>

enum file_kind {
	FILE_OTHER,  /* none of ours */
	FILE_KVM,    /* /dev/kvm */
	FILE_TEXT,   /* reading it gives text */
	FILE_FOLDER, /* of texts or folders */
	FILE_ABSENT, /* the host may have it: not here */
};

struct file {
	enum file_kind kind;
	const char *name; /* FILE_TEXT: which text it is, by files_open(); FILE_FOLDER: its path */
};

/* files.c; any thread. What path, the caller's pointer, names: never touches a pointer that is none. */
struct file files_find(const char *path);
/* The same for a path that counts from dir; buf may hold it afterwards. */
#define FILES_PATH_SIZE 512
struct file files_find_at(int dir, const char *path, char *buf, size_t size);
/* A text's fd, positioned at its start, or -errno. flags as for open(2). */
int files_open(const struct file *file, int flags);
/* The nr-th name in the folder, "" past the end; true in *ret_folder if it is a folder. */
const char *files_name(const struct file *folder, unsigned nr, bool *ret_folder);

/* processor.c: at start. The model's processor in the eyes of the program; NULL: the host's. */
void processor_start(const char *cpu, bool patch_wanted);
struct cpu_model;
const struct cpu_model *processor_model(void);
/* True for Intel, whatever the model. */
bool processor_intel(void);
/* A mask that the program wants blocked, less what must not be. */
void processor_mask(sigset_t *set);

/* patch.c: make the CPUID instructions of all that is loaded UD2, those that were not seen yet. Any thread. */
void patch_all(void);
void patch_counts(unsigned *ret_sites, unsigned *ret_unproven);

/* cpuinfo.c: write /proc/cpuinfo of this host with the model's processor in it to fd; NULL: near the host. */
void cpuinfo_write(int fd, const struct cpu_model *model);

#endif
