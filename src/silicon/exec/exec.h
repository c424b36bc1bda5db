/* SPDX-License-Identifier: MIT */
/*
 * Running instructions: the public face of exec/.
 */
#ifndef SILICON_EXEC_EXEC_H
#define SILICON_EXEC_EXEC_H

#include "silicon/cpu/cpu.h"

/* Any thread, no locks. Prepare and free a vCPU's decoded instructions and thunks. */
struct exec_cache *exec_create(void);
void exec_destroy(struct exec_cache *exec);

/* How the run tempo goes about it. */
struct run_options {
	bool chain;	    /* blocks lead to each other without asking the loop */
	bool fsgsbase;	    /* the host's, set by exec_enable_run() */
	bool lockstep;	    /* hold each block against step */
	bool perf;	    /* write /tmp/perf-PID.map */
	bool two_pages;	    /* the TLB keeps no more: for tests */
	uint32_t code_size; /* bytes of code memory; 0: the usual */
	uint8_t threshold;  /* translate at this many visits */
	uint8_t max_insns;  /* of a block */
	uint16_t hot;	    /* make a trace of a block at this many visits; 0: never, 1: at once */
};

/*
 * Before the first cpu_run(), with cpu->tlb and ->exec there; ordinary C. Translate code instead of stepping
 * through it. 0; -ENOTSUP: the host lacks BMI2; -ENOMEM.
 */
int exec_enable_run(struct cpu *cpu, const struct run_options *opt);
/*
 * The same by a name: NULL or "step"; "run"; "lockstep", which holds run against step. Words may follow, after
 * commas: "perf" writes the perf map; for tests "hot" (traces at the first visit), "bare" (unchained blocks at the first visit), "single" (of one
 * instruction), "tlb2" (two pages in the TLB), "cache1m" (1 MiB of code). Where run cannot be, step stays.
 * -EINVAL: none of these.
 */
int exec_set_tempo(struct cpu *cpu, const char *tempo);
bool exec_tempo_known(const char *tempo);

/*
 * Leave cpu_run() when cpu->retired is end, which is not 0, exactly; vCPU thread, also from within. For cpu->counted only.
 */
void exec_set_limit(struct cpu *cpu, uint64_t end);

/* Outside of cpu_run(); ordinary C. What was translated is made anew: cpu->tsc_offset became another. */
void exec_forget(struct cpu *cpu);

/*
 * The vCPU waits, outside of cpu_run(); ordinary C. now: nanoseconds of any steady clock. If it has been quiet for some seconds, what translated
 * code took beyond its first room is given back. Nanoseconds after which it may be, or 0: nothing to give.
 */
uint64_t exec_idle(struct cpu *cpu, uint64_t now);

/*
 * Run the guest on the calling thread until something needs the caller; cpu->exit says what.
 * On return guest vector state is in memory and all of struct cpu is whole.
 * Host state (GS base, MXCSR, x87, DF) is the caller's again.
 */
enum cpu_exit_kind cpu_run(struct cpu *cpu);
/*
 * Finish the instruction that an exit left open (answers are recorded) and run nothing further:
 * for immediate_exit. CPU_EXIT_NONE when done, else the next thing that it asks for.
 */
enum cpu_exit_kind cpu_complete(struct cpu *cpu);
/*
 * Run the one instruction at RIP, attention bits unseen and its fault not delivered: what the instruction
 * itself does. For tests, and to hold other tempos against.
 */
enum result cpu_step_bare(struct cpu *cpu);

#endif
