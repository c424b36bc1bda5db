/* SPDX-License-Identifier: MIT */
/*
 * Lock-step: run held against step (docs/run.md). Private to exec/.
 *
 * A stretch of some hundred instructions is stepped first, on a TLB of its own, with its writes noted and its
 * questions to the platform recorded. Then state and memory are put back, translated code does the same as
 * it always would, chained, until as many instructions are retired, and gets the recorded answers; state and
 * what was written must be the same. What stays is translated code's.
 *
 * Events, other modes, and instructions whose result nobody can repeat are stepped alone, between stretches.
 */
#ifndef SILICON_EXEC_LOCKSTEP_H
#define SILICON_EXEC_LOCKSTEP_H

#include "silicon/cpu/amx.h"
#include "silicon/exec/run.h"
#include "silicon/mmu/log.h"

#define LOCKSTEP_LONG  1000u /* instructions of a stretch at most */
#define LOCKSTEP_SHORT 500u  /* from here on it ends at the next jump */
#define LOCKSTEP_CALLS 256u
#define LOCKSTEP_TRACE 64u /* a power of 2 */

enum lockstep_op {
	OP_MMIO_READ,
	OP_MMIO_WRITE,
	OP_PIO_READ,
	OP_PIO_WRITE,
	OP_MSR_GATE,
	OP_MSR_READ,
	OP_MSR_WRITE,
	OP_MSR_REFUSED,
	OP_CPUID,
	OP_PENDING,
	OP_ACK,
	OP_GET_TPR,
	OP_SET_TPR,
	OP_TSC,
	OP_HYPERCALL,
};

/* A question to the platform and its answer. */
struct lockstep_call {
	uint8_t op;	/* enum lockstep_op */
	int16_t answer; /* enum platform_answer or the like */
	uint64_t in[3];
	uint64_t out[2];
};

enum lockstep_mode { LOCKSTEP_OPEN, LOCKSTEP_RECORD, LOCKSTEP_REPLAY };

struct lockstep {
	struct run *run;
	struct tlb *own;   /* run's, of the mode that the stretch begins in */
	struct tlb *other; /* step's */
	struct mmu_log log;
	bool stale;   /* ->other may be out of date */
	bool stopped; /* a difference was found */
	bool refining;

	/* The world outside. */
	const struct platform *platform; /* the real one, asked with ->opaque */
	void *opaque;
	struct platform hooks;
	enum lockstep_mode mode;
	uint32_t nr_calls, next_call;
	uint32_t nr_asked; /* of them by step, up to where it stopped */
	bool strayed;	   /* asked something else than was recorded */
	struct lockstep_call call[LOCKSTEP_CALLS];

	/* The stretch. */
	struct cpu before, stepped;
	struct amx before_amx, stepped_amx; /* theirs, if the processor has tiles */
	enum cpu_exit_kind kind, run_kind;
	uint32_t nr_steps; /* rounds of step's */
	bool cut;	   /* the last of them did nothing: it must begin a stretch */
	uint32_t tail;	   /* rounds that step made after the last retired instruction */
	bool exited;	   /* the last of them was an exit to a guest hypervisor */
	uint8_t virt_before[VIRT_MAX_SIZE], virt_stepped[VIRT_MAX_SIZE];
	uint32_t unseen; /* attention that came meanwhile */
	uint32_t nr_trace;
	uint64_t trace[LOCKSTEP_TRACE]; /* RIPs that step was at */

	uint64_t nr_paired, nr_alone; /* instructions */
};

/* ---- lockstep.c: general registers only ---- */

enum cpu_exit_kind lockstep_loop(struct run *run);
enum result lockstep_bare(struct run *run);
/* The stretch again from its begin, up to limit retired instructions. True: no difference. */
bool lockstep_again(struct lockstep *ls, uint64_t limit);
/* True if state, questions and memory are as step left them; memory's difference in *ret. */
bool lockstep_same(struct lockstep *ls, struct mmu_log_difference *ret);

/* ---- lockstep_state.c: general registers only ---- */

/* All that is architectural, and exit and fault where they say something. Vector state is in memory in both. */
bool lockstep_state_same(const struct lockstep *ls);
/* One line each for what differs; ordinary C. */
void lockstep_state_say(const struct lockstep *ls);
/* All but the attention bits and what rooms hang on a vCPU. */
void lockstep_state_copy(struct cpu *to, const struct cpu *from);
/* The same of what stands behind cpu->virt. */
void lockstep_virt_keep(const struct cpu *cpu, uint8_t *to);
void lockstep_virt_set(struct cpu *cpu, const uint8_t *from);

/* ---- lockstep_make.c: ordinary C, vector state saved ---- */

int lockstep_create(struct run *run);
void lockstep_destroy(struct lockstep *ls);
/* Find the first difference of the stretch and say it. */
void lockstep_say(struct lockstep *ls);

/* ---- lockstep_calls.c: ordinary C ---- */

/* From here on the processor asks by way of ->hooks; and no more. */
void lockstep_calls_begin(struct lockstep *ls);
void lockstep_calls_end(struct lockstep *ls);

#endif
