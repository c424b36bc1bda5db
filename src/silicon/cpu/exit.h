/* SPDX-License-Identifier: MIT */
/*
 * Why cpu_run() came back, and the answers that the caller brings.
 *
 * An instruction that needs something from outside (an MMIO or port read, an MSR that user space
 * answers) commits nothing: cpu_run() returns with cpu->exit, the caller finds the answer, appends
 * it with answers_add() and calls cpu_run() again. The instruction starts anew and, in the order
 * of its requests, takes the recorded answers instead of asking again. The answers are dropped
 * when an instruction retires, faults, or RIP is no longer the one they were recorded at.
 *
 * Writes go the other way: the instruction commits, its writes that nobody in the process took
 * stand in cpu->out, and cpu_run() returns CPU_EXIT_WRITES. The caller hands them to user space one by one.
 */
#ifndef SILICON_CPU_EXIT_H
#define SILICON_CPU_EXIT_H

#include "silicon/cpu/types.h"

struct cpu;

enum cpu_exit_kind {
	CPU_EXIT_NONE,
	CPU_EXIT_REQUEST,   /* the platform's service() asked to leave, or the budget is used up */
	CPU_EXIT_HLT,	    /* HLT retired: cpu->activity is ACTIVITY_HLT */
	CPU_EXIT_MMIO_READ, /* request below; answer and run again */
	CPU_EXIT_IO_READ,
	/*
	 * cpu->out holds MMIO or port writes of a retired instruction. If cpu->exit is CPU_EXIT_DEBUG, the
	 * debugger's turn comes after them; so too with CPU_EXIT_HLT.
	 */
	CPU_EXIT_WRITES,
	CPU_EXIT_MSR_READ, /* user space answers: data, or error = deliver #GP */
	CPU_EXIT_MSR_WRITE,
	CPU_EXIT_HYPERCALL, /* RIP still on VMCALL/VMMCALL; answer is RAX */
	CPU_EXIT_SHUTDOWN,  /* triple fault */
	CPU_EXIT_DEBUG,	    /* guest debugging: dr6, dr7, pc, exception */
	CPU_EXIT_EMULATION, /* an instruction that cannot be executed here; bytes are in ->bytes */
	CPU_EXIT_MEMORY,    /* the program took guest memory away: KVM_RUN answers EFAULT */
	CPU_EXIT_DEAD,	    /* the state of an SMI has no memory: the machine cannot go on */
	CPU_EXIT_INTERNAL,  /* anykvm's own fault */
};

struct cpu_exit {
	enum cpu_exit_kind kind;
	uint8_t size;	       /* bytes of one access, 1..8 */
	uint32_t count;	       /* port I/O: repetitions wanted (1 unless a string instruction) */
	uint64_t addr;	       /* gpa, port or MSR index */
	uint64_t data;	       /* value to be written; hypercall: unused */
	uint64_t dr6, dr7, pc; /* CPU_EXIT_DEBUG */
	uint8_t exception;     /* CPU_EXIT_DEBUG */
	uint8_t nr_bytes;      /* CPU_EXIT_EMULATION */
	uint8_t bytes[15];
};

enum answer_kind { ANSWER_MMIO, ANSWER_IO, ANSWER_MSR_READ, ANSWER_MSR_WRITE, ANSWER_HYPERCALL };

struct answer {
	uint8_t kind; /* enum answer_kind */
	uint8_t size;
	bool error;
	uint16_t count; /* ANSWER_IO: elements at batch, of which data is the first; 0: one */
	uint64_t addr;
	uint64_t data;
	const uint8_t *batch; /* lives as long as the answer may */
};

#define MAX_ANSWERS 40 /* 8-byte fragments of the largest emulated read, both pages */
#define MAX_WRITES  64 /* elements of the largest store under a mask */

struct answers {
	uint8_t nr;   /* recorded */
	uint8_t used; /* taken by the present execution of the instruction */
	uint64_t rip; /* where they were recorded */
	struct answer v[MAX_ANSWERS];
};

struct out_write {
	bool is_port;
	bool is_out; /* of OUT, which stands at RIP ->from */
	uint8_t size;
	uint64_t addr;
	uint64_t data;
	uint64_t from;
};

struct out_writes {
	uint8_t nr;
	struct out_write v[MAX_WRITES];
};

/* vCPU thread only. Record the answer to cpu->exit before calling cpu_run() again. */
void answers_add(struct cpu *cpu, enum answer_kind kind, uint64_t addr, uint8_t size, uint64_t data,
		 bool error);
/* After answers_add() of a port's answer: count elements were brought at once, for exit.count had asked. */
void answers_batch(struct cpu *cpu, const uint8_t *batch, unsigned count);
/* The answer that was taken last by the present instruction, or NULL. */
const struct answer *answers_last(const struct cpu *cpu);
/*
 * Record what was found in the process itself, at the present point of the instruction: should a later
 * request of it leave cpu_run(), the device is not read twice. False if there is no room.
 */
bool answers_record(struct cpu *cpu, enum answer_kind kind, uint64_t addr, uint8_t size,
		    uint64_t data);
/* The instruction starts anew (RESULT_AGAIN without progress, re-entry): take answers from the first on. */
void answers_rewind(struct cpu *cpu);
/* Forget all answers and unsent writes (SET_REGS, reset, instruction end). */
void answers_reset(struct cpu *cpu);
/* Take the next recorded answer if it is for this very request, or NULL. */
const struct answer *answers_take(struct cpu *cpu, enum answer_kind kind, uint64_t addr,
				  uint8_t size);

#endif
