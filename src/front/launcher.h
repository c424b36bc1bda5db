/* SPDX-License-Identifier: MIT */
/*
 * The command: a table of verbs, one file each. Errors of our own are one line and a status of
 * 125 to 127, as for env(1) and timeout(1).
 */
#ifndef FRONT_LAUNCHER_H
#define FRONT_LAUNCHER_H

#include "host/host.h"

#include <errno.h>
#include <stdio.h>

struct option;

enum {
	EXIT_OURS = 125,       /* anykvm itself failed or was asked for nonsense */
	EXIT_CANNOT_RUN = 126, /* the program was found but cannot be run */
	EXIT_NOT_FOUND = 127,  /* the program was not found */
};

/* What `anykvm --help` prints: an exit status. */
int launcher_help(void);
struct verb;
/* The verb of that name, or NULL. */
const struct verb *launcher_verb(const char *name);

struct verb {
	const char *name;
	const char *summary;
	/* argv[0] is the verb. Returns the exit status. */
	int (*run)(int argc, char **argv);
};

#define VERB(name, summary) int verb_##name(int argc, char **argv);
#include "verbs.def"
#undef VERB

/* ---- options.c ---- */

/* A line on stderr, "anykvm: ..."; returns EXIT_OURS. */
int launcher_error(const char *fmt, ...) __printf_(1, 2);
/* The end of what goes to stdout: an exit status. A full disk is an error. */
int launcher_flush(void);
/* getopt_long(3); shorts begins with "+:". '?' after a line on stderr. */
int launcher_getopt(const char *verb, int argc, char **argv, const char *shorts,
		    const struct option *longs);
/* A number from low to high, as C writes it. */
bool launcher_number(const char *text, unsigned long low, unsigned long high, unsigned long *ret);
/* fd is a terminal that shows colours, and NO_COLOR is not set. */
bool launcher_colours(int fd);

/* ---- whole.c ---- */

struct whole {
	FILE *f;
	char *path, *beside; /* beside: the name that it has until it is whole; NULL: its own */
};

/* Begin to write ->f. False with errno. */
bool whole_open(struct whole *w, const char *path);
/* The end of it: it has its name now, or, if it could not be written or is not to be kept, there is nothing. False with errno. */
bool whole_close(struct whole *w, bool keep);
/* Can it be written? Leaves nothing. 0, or an exit status after a line on stderr. */
int whole_check(const char *path);

/* ---- preload.c ---- */

/* "first SEP second"; either may be NULL. Ends the command if there is no memory. */
char *launcher_join(const char *first, char sep, const char *second);
/* The file of that name beside the command, in the folder below its own, or where it was installed; or NULL. */
char *launcher_find(const char *name, const char *from_bin, const char *installed);
/* Put the library into LD_PRELOAD: 0, or an exit status after a line on stderr. */
int launcher_preload(void);
/* The library's path, or NULL; *ret_why then says in one line what to do. */
char *launcher_library(const char **ret_why);
/* Become the program: an exit status after a line on stderr. */
int launcher_become(const char *path, char **argv);

/* ---- probe.c ---- */

/* Run a guest of a few instructions by /dev/kvm: NULL, or what failed, in a static buffer. */
const char *probe_guest(void);

/* ---- cpus_diff.c ---- */

struct cpu_model;
/* What differs, on stdout: the number of differences. */
unsigned cpus_diff(const struct cpu_model *a, const struct cpu_model *b);

/*
 * program.c: why a preloaded library does not reach the program at path, or NULL; *ret_which is the file that
 * is meant, an interpreter of a script perhaps, in a static buffer.
 */
const char *program_unreachable(const char *path, const char **ret_which);
/* program.c: the file that a name stands for, executable; NULL. */
char *program_search(const char *name);

/*
 * program.c: find the program as execvp(3) does and check that a preloaded library reaches it.
 * 0 with the path in ret_path (to be freed), or an exit status after a line on stderr.
 */
int program_find(const char *name, char **ret_path);

#endif
