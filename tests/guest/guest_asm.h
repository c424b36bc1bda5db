/* SPDX-License-Identifier: MIT */
/*
 * Guest code by the assembler: GUEST(name, bits, "intel syntax") puts position-independent code into
 * the test; load(f, name) copies it to FLAT_CODE. Frames are read from guest memory as the manual lays them out.
 */
#ifndef TESTS_GUEST_GUEST_ASM_H
#define TESTS_GUEST_GUEST_ASM_H

#include "flat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define GUEST(name, bits, text)                                                               \
	asm(".pushsection .rodata\n.code" #bits "\n.intel_syntax noprefix\n" #name ":\n" text \
	    "\n" #name "_end:\n.att_syntax prefix\n.code64\n.popsection\n");                  \
	extern const uint8_t name[], name##_end[]

#define load(f, name) flat_code(f, name, name##_end - name)

/* Value nr of size bytes above the stack pointer. */
static inline uint64_t on_stack(struct flat *f, unsigned nr, unsigned size)
{
	const struct cpu *cpu = f->cpu;
	uint64_t sp = cpu->gpr[RSP];

	if (cpu->mode.stack_bytes == 2)
		sp = (uint16_t)sp;
	if (!cpu_64bit(cpu))
		sp += cpu->seg[SEG_SS].base;
	return flat_peek(f, sp + nr * size, size);
}

/* Run until the handler of a vector halts; the vector. */
static inline int run_to_handler(struct flat *f)
{
	assert_int_equal(flat_run(f, 1000), CPU_EXIT_HLT);
	return flat_handler(f);
}

static inline void set_flags(struct flat *f, uint64_t set)
{
	cpu_set_rflags(f->cpu, cpu_rflags(f->cpu) | set);
	cpu_update_mode(f->cpu);
}

/* Interrupt vector pending from now on. */
static inline void pend_interrupt(struct flat *f, int vector)
{
	f->interrupt = vector;
	cpu_raise(f->cpu, ATTN_EVENTS);
}

static inline struct flat *long_machine(void)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	return f;
}

/* The same for cpu_run() without a budget, in the tempo that ANYKVM_TEMPO names. */
static inline struct flat *tempo_machine(void)
{
	struct flat *f = long_machine();

	flat_exec(f);
	return f;
}

#endif
