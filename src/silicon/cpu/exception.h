/* SPDX-License-Identifier: MIT */
/*
 * Exceptions and results as values.
 *
 * A function that may raise a fault returns one of enum result and, for RESULT_FAULT, leaves the
 * fault in cpu->fault with nothing architectural committed. Faults are not delivered where they
 * arise: the run loop hands them to sys/ (event delivery) once the instruction is abandoned.
 */
#ifndef SILICON_CPU_EXCEPTION_H
#define SILICON_CPU_EXCEPTION_H

#include "silicon/cpu/types.h"

struct cpu;

/* What became of an access or an instruction. */
enum result {
	RESULT_OK = 0, /* done; an instruction has committed and RIP stands on the next one */
	RESULT_FAULT,  /* cpu->fault is valid; nothing committed */
	RESULT_EXIT,   /* cpu->exit is valid; nothing committed, to be executed again afterwards */
	RESULT_STOP,   /* committed as RESULT_OK, and cpu->exit is valid: leave cpu_run() */
	RESULT_AGAIN,  /* state is consistent, RIP was not advanced: start the instruction anew */
		       /* (a REP iteration done, a walk lost a race) */
};

enum event_type {
	EVENT_EXCEPTION, /* hardware exception; fault or trap */
	EVENT_INTERRUPT, /* external interrupt */
	EVENT_NMI,
	EVENT_SOFT_INT,	     /* INT n */
	EVENT_SOFT_EXC,	     /* INT3, INTO */
	EVENT_PRIV_SOFT_EXC, /* INT1 (ICEBP) */
	EVENT_VMEXIT, /* no event: a fault that ends in an exit to the guest hypervisor (virt.h) */
};

/* One event on its way to the IDT. */
struct event {
	bool valid;
	uint8_t type; /* enum event_type */
	uint8_t vector;
	bool has_error;
	uint32_t error;
	uint8_t insn_len; /* of the soft types: return address = RIP + insn_len */
	bool keeps_nmis;  /* NMI that SVM injects: others are not held back behind it */
	bool pending;	  /* in cpu->inject: a guest hypervisor may still take it */
	bool has_return;  /* SVM injects it: the return address is ->return_rip */
	uint64_t return_rip;
	bool has_payload; /* payload not yet in CR2 or DR6 */
	uint64_t payload; /* #PF: the address; #DB: DR6 bits */
};

/* Set cpu->fault; each returns RESULT_FAULT so that callers can `return fault_gp(cpu, 0);`. */
enum result fault_raise(struct cpu *cpu, uint8_t vector);
enum result fault_raise_error(struct cpu *cpu, uint8_t vector, uint32_t error);
enum result fault_page(struct cpu *cpu, gva_t addr, uint32_t error);
enum result fault_debug(struct cpu *cpu, uint64_t dr6_bits);

static inline enum result fault_ud(struct cpu *cpu)
{
	return fault_raise(cpu, 6);
}

static inline enum result fault_gp(struct cpu *cpu, uint32_t error)
{
	return fault_raise_error(cpu, 13, error);
}

#endif
