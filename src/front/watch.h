/* SPDX-License-Identifier: MIT */
/* The watching side: processes that run on anykvm, and sessions of programs that the command starts itself. */
#ifndef FRONT_WATCH_H
#define FRONT_WATCH_H

#include "front/launcher.h"
#include "kvm/vcpu/watch.h"

#include <stdio.h>
#include <sys/types.h>

/* ---- watch_find.c ---- */

struct watched {
	dev_t dev;
	ino_t inode;
	pid_t pid;
	bool gone; /* its process has ended, or has closed it */
	struct watch_page *page;
};

struct watch_list {
	struct watched *v;
	unsigned nr;
	bool denied; /* a process of that id is there, and may not be looked at */
};

/* Add the vCPUs that are there now, of pid or, if it is 0, of all processes that may be looked at. Marks those gone. */
void watch_find(struct watch_list *list, pid_t pid);
/* Have them count for that long from now. */
void watch_renew(struct watch_list *list, uint64_t ns);

/* ---- watch_table.c ---- */

/* One row of what is counted. */
struct watch_row {
	const char *name;
	bool child; /* of kvm_exit */
	bool event; /* a trace event or an exit's reason; else a counter of KVM_GET_STATS_FD */
};
unsigned watch_nr_rows(void);
struct watch_row watch_row(unsigned row);
/* Add what the page says to sums[watch_nr_rows()]. */
void watch_sum(const struct watch_page *page, uint64_t *sums);
/* As `perf kvm stat report` prints it: exits by reason, with time, of nr pages. */
void watch_report(FILE *to, struct watch_page *const *pages, unsigned nr);

/* ---- session.c ---- */

struct session {
	struct watch_session *map;
	int fd;
	pid_t child;
};

/* A session's file, found by the program through ANYKVM_WATCH. 0, or an exit status after a line on stderr. */
int session_create(struct session *s, const struct watch_session *settings);
/*
 * Run the program and call poll now and then, and when a ring fills, until it has ended, and once more. The status: its own, or 128 + its
 * signal, or an exit status after a line on stderr. Ctrl-C is the program's; SIGTERM and SIGHUP are handed on.
 */
int session_run(struct session *s, const char *path, char **argv, void (*poll)(void *), void *arg);
/* vCPUs that there were. */
unsigned session_nr(const struct session *s);

#endif
