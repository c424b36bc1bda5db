/* SPDX-License-Identifier: MIT */
/* anykvm trace: from the rings to trace.dat, and to folded stacks. */
#ifndef FRONT_TRACE_H
#define FRONT_TRACE_H

#include "front/watch.h"

/* ---- trace_dat.c: the file that trace-cmd reads, version 6 ---- */

struct trace_dat;

/*
 * Begin; the file appears under its name only when it is whole. NULL after a line on stderr. base: this TSC was at that
 * time, in ns.
 */
struct trace_dat *trace_dat_open(const char *path, uint64_t base_tsc, uint64_t base_ns);
/*
 * An event of the cpu-th vCPU, later than its last one. tsc_khz 0: tsc is nanoseconds, and there is no such thread. False once
 * writing has failed.
 */
bool trace_dat_add(struct trace_dat *t, unsigned cpu, uint32_t tsc_khz, uint64_t tsc,
		   const void *event, uint32_t size);
/* All is told: names of threads are known, events lost counted by cpu. 0, or an exit status after a line on stderr. */
int trace_dat_close(struct trace_dat *t, unsigned nr_cpus, const uint64_t *lost);
/* Leave nothing behind. NULL is allowed. */
void trace_dat_abandon(struct trace_dat *t);

/* ---- trace_format.c ---- */

/* The text of an event's format file, to be freed; NULL past the last. ret_system: kvm or anykvm. */
char *trace_format(unsigned event, const char **ret_system);
/* The event of that name, or -1. */
int trace_event_named(const char *name, size_t len);

/* ---- stacks.c ---- */

struct stacks;

struct stacks *stacks_new(void);
/* Names for addresses, of an ELF file, System.map or kallsyms, or a perf map. 0, or an exit status after a line. */
int stacks_symbols(struct stacks *s, const char *path);
void stacks_add(struct stacks *s, const struct ev_sample *sample);
/* One line per stack, "vcpu0;caller;callee count". 0, or an exit status after a line on stderr. */
int stacks_write(struct stacks *s, const char *path);

#endif
