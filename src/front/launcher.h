/* SPDX-License-Identifier: MIT */
/*
 * The command: a table of verbs, one file each. Errors of our own are one line and a status of
 * 125 to 127, as for env(1) and timeout(1).
 */
#ifndef FRONT_LAUNCHER_H
#define FRONT_LAUNCHER_H

#include "host/host.h"

enum {
	EXIT_OURS = 125,       /* anykvm itself failed or was asked for nonsense */
	EXIT_CANNOT_RUN = 126, /* the program was found but cannot be run */
	EXIT_NOT_FOUND = 127,  /* the program was not found */
};

/* What `anykvm --help` prints: an exit status. */
int launcher_help(void);

struct verb {
	const char *name;
	const char *summary;
	/* argv[0] is the verb. Returns the exit status. */
	int (*run)(int argc, char **argv);
};

#define VERB(name, summary) int verb_##name(int argc, char **argv);
#include "verbs.def"
#undef VERB

/*
 * program.c: find the program as execvp(3) does and check that a preloaded library reaches it.
 * 0 with the path in ret_path (to be freed), or an exit status after a line on stderr.
 */
int program_find(const char *name, char **ret_path);

#endif
