/* SPDX-License-Identifier: MIT */
/*
 * Translated code on the flat machine, chained and without a budget: what unchained blocks cannot show. Counts are
 * exact, code that changes is seen, faults in the middle of a block come where they belong.
 */
#include "flat.h"
#include "silicon/exec/exec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct flat *machine(void)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	f->cpu->exec = exec_create();
	assert_non_null(f->cpu->exec);
	assert_int_equal(exec_set_tempo(f->cpu, getenv("ANYKVM_TEMPO") ?: "run"), 0);
	return f;
}

static void done(struct flat *f)
{
	exec_destroy(f->cpu->exec);
	f->cpu->exec = NULL;
	flat_free(f);
}

#define RUN(f, code) (flat_code(f, code, sizeof(code)), (f)->cpu->retired = 0, cpu_run((f)->cpu))

/* mov $100000,%ecx; 1: add %rcx,%rax; mov %rax,FLAT_DATA; dec %ecx; jnz 1b; hlt */
static void counts_exactly(void **state)
{
	static const uint8_t code[] = {
		0xb9, 0xa0, 0x86, 0x01, 0x00,		     /* mov $100000,%ecx */
		0x48, 0x01, 0xc8,			     /* 1: add %rcx,%rax */
		0x48, 0x89, 0x04, 0x25, 0,    0, 0x10, 0x00, /* mov %rax,0x100000 */
		0xff, 0xc9,				     /* dec %ecx */
		0x75, 0xf1,				     /* jnz 1b */
		0xf4,
	};
	struct flat *f = machine();

	f->cpu->gpr[RAX] = 0;
	assert_int_equal(RUN(f, code), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], 100000ull * 100001 / 2);
	assert_memory_equal(f->ram + FLAT_DATA, &f->cpu->gpr[RAX], 8);
	assert_int_equal(f->cpu->retired, 1 + 4 * 100000 + 1);
	done(f);
}

/* Each round writes its number into the immediate of an instruction ahead in the same block. */
static void writes_ahead_of_itself(void **state)
{
	static const uint8_t code[] = {
		0xb9, 0x64, 0x00, 0x00, 0x00,	    /* mov $100,%ecx */
		0x89, 0x0d, 0x01, 0x00, 0x00, 0x00, /* 1: mov %ecx,imm(%rip) */
		0xbb, 0x00, 0x00, 0x00, 0x00,	    /* mov $imm,%ebx */
		0x48, 0x01, 0xd8,		    /* add %rbx,%rax */
		0xff, 0xc9,			    /* dec %ecx */
		0x75, 0xee,			    /* jnz 1b */
		0xf4,
	};
	struct flat *f = machine();

	f->cpu->gpr[RAX] = 0;
	assert_int_equal(RUN(f, code), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], 100 * 101 / 2);
	assert_int_equal(f->cpu->retired, 1 + 5 * 100 + 1);
	done(f);
}

/* The program changes what was translated, between two entries. */
static void program_writes_code(void **state)
{
	static const uint8_t code[] = {
		0xb9, 0x0a, 0x00, 0x00, 0x00, /* mov $10,%ecx */
		0xff, 0xc0,		      /* 1: inc %eax */
		0xff, 0xc9,		      /* dec %ecx */
		0x75, 0xfa,		      /* jnz 1b */
		0xf4,
	};
	struct flat *f = machine();

	for (unsigned round = 0; round < 6; round++) {
		f->cpu->gpr[RAX] = 100;
		flat_code(f, code, sizeof(code));
		f->ram[FLAT_CODE + 6] = round & 1 ? 0xc8 : 0xc0; /* dec %eax */
		assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
		assert_int_equal(f->cpu->gpr[RAX], round & 1 ? 90 : 110);
	}
	done(f);
}

/* call and ret over a page's end, with an instruction that stands in both pages. */
static void crosses_pages(void **state)
{
	static const uint8_t code[] = {
		0xb9, 0xe8, 0x03, 0x00, 0x00, /* mov $1000,%ecx */
		0xe8, 0xf3, 0x0f, 0x00, 0x00, /* 1: call FLAT_CODE + 0xffd */
		0xff, 0xc9,		      /* dec %ecx */
		0x75, 0xf7,		      /* jnz 1b */
		0xf4,
	};
	static const uint8_t callee[] = {0x48, 0x83, 0xc0, 0x03, 0xc3}; /* add $3,%rax; ret */
	struct flat *f = machine();

	f->cpu->gpr[RAX] = 0;
	memcpy(f->ram + FLAT_CODE + 0xffd, callee, sizeof(callee));
	assert_int_equal(RUN(f, code), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], 3000);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK);
	assert_int_equal(f->cpu->retired, 1 + 5 * 1000 + 1);
	done(f);
}

/* A division that fails in the 500th round, found by the host's fault alone: all before it is done, nothing of it is. */
static void divides_by_zero(void **state)
{
	static const uint8_t code[] = {
		0xb9, 0xf4, 0x01, 0x00, 0x00, /* mov $500,%ecx */
		0xff, 0xc9,		      /* 1: dec %ecx */
		0x31, 0xd2,		      /* xor %edx,%edx */
		0x89, 0xc8,		      /* mov %ecx,%eax */
		0x48, 0x83, 0xc3, 0x01,	      /* add $1,%rbx */
		0xf7, 0xf1,		      /* div %ecx */
		0xeb, 0xf2,		      /* jmp 1b */
	};
	struct flat *f = machine();

	f->cpu->gpr[RBX] = 0;
	assert_int_equal(RUN(f, code), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_DE);
	assert_int_equal(f->cpu->gpr[RBX], 500);
	assert_int_equal(f->cpu->gpr[RCX], 0);
	assert_int_equal(f->cpu->retired, 1 + 6 * 499 + 4 + 1);
	done(f);
}

/* A store that runs off RAM: the page fault has the address, and the registers are those before it. */
static void faults_in_a_block(void **state)
{
	static const uint8_t code[] = {
		0x48, 0x8d, 0x5b, 0x08, /* 1: lea 8(%rbx),%rbx */
		0x48, 0x83, 0xc0, 0x01, /* add $1,%rax */
		0x48, 0x89, 0x1b,	/* mov %rbx,(%rbx) */
		0xeb, 0xf3,		/* jmp 1b */
	};
	struct flat *f = machine();
	uint64_t last = 0x200000, from = last - 8 * 3000;

	flat_map(f, last, last, 0, PAGE_SIZE);
	f->cpu->gpr[RBX] = from - 8;
	f->cpu->gpr[RAX] = 0;
	assert_int_equal(RUN(f, code), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_PF);
	assert_int_equal(f->cpu->cr2, last);
	assert_int_equal(f->cpu->gpr[RBX], last);
	assert_int_equal(f->cpu->gpr[RAX], 3001);
	assert_int_equal(f->cpu->retired, 4 * 3000 + 2 + 1);
	done(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_exactly),      cmocka_unit_test(writes_ahead_of_itself),
		cmocka_unit_test(program_writes_code), cmocka_unit_test(crosses_pages),
		cmocka_unit_test(divides_by_zero),     cmocka_unit_test(faults_in_a_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
