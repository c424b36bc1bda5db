/* SPDX-License-Identifier: MIT */
/* What the tests of emulated instructions share: short code on the flat machine. */
#ifndef TESTS_EMUL_H
#define TESTS_EMUL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "flat.h"

/* Bytes of a string literal as code, without its end. */
#define EMUL_CODE(f, literal) flat_code(f, literal, sizeof(literal) - 1)
/* Run nr instructions of it. */
#define emul_steps(f, nr, literal)                                   \
	do {                                                         \
		EMUL_CODE(f, literal);                               \
		assert_int_equal(flat_run(f, nr), CPU_EXIT_REQUEST); \
	} while (0)
/* Run it up to the HLT that it ends in. */
#define emul_halts(f, literal)                                                \
	do {                                                                  \
		EMUL_CODE(f, literal "\xf4");                                 \
		assert_int_equal(flat_run(f, 1000), CPU_EXIT_HLT);            \
		assert_int_equal((f)->cpu->rip, FLAT_CODE + sizeof(literal)); \
	} while (0)
/* Run it into an exception. */
#define emul_faults(f, vector, literal)                            \
	do {                                                       \
		EMUL_CODE(f, literal);                             \
		assert_int_equal(flat_run(f, 1000), CPU_EXIT_HLT); \
		assert_int_equal(flat_handler(f), vector);         \
	} while (0)

static inline uint64_t emul_flags(struct flat *f)
{
	return cpu_rflags(f->cpu);
}

/* Registers that a test starts from, the stack pointer apart. */
static inline void emul_pattern(struct flat *f)
{
	for (unsigned i = 0; i < NR_GPRS; i++)
		if (i != RSP)
			f->cpu->gpr[i] = 0x0101010101010101ull * (i + 0x10);
}

typedef void emul_mode_fn(struct flat *f);

static inline struct flat *emul_machine(emul_mode_fn *mode)
{
	struct flat *f = flat_new(FLAT_RAM);

	mode(f);
	return f;
}

#endif
