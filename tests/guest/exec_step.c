/* SPDX-License-Identifier: MIT */
/*
 * The step loop on the flat machine: what the instruction differential cannot see. Code that changes, the mode key,
 * the ends of pages and segments, operands that are no RAM, host faults mapped back.
 */
#include "silicon/exec/exec.h"
#include "silicon/exec/cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "model_machine.h"

static void expect_vector(struct flat *f, int vector)
{
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), vector);
}

/* mov $1,%al; movb $2,1(%rip to the first); jmp first: the second round must see the new immediate. */
static void code_changes(void **state)
{
	static const uint8_t code[] = {
		0xb0, 0x01,				  /* first: mov $1,%al */
		0x3c, 0x02,				  /* cmp $2,%al */
		0x74, 0x09,				  /* je out */
		0xc6, 0x05, 0xf4, 0xff, 0xff, 0xff, 0x02, /* movb $2,first+1(%rip) */
		0xeb, 0xf1,				  /* jmp first */
		0xf4,					  /* out: hlt */
	};
	struct flat *f = model_machine();

	flat_code(f, code, sizeof(code));
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX] & 0xff, 2);
	assert_int_equal(f->cpu->retired, 4 + 1 + 3 + 1);
	flat_free(f);
}

/* The program changes code behind the processor's back: the same RIP, other bytes. */
static void program_changes_code(void **state)
{
	struct flat *f = model_machine();

	flat_code(f, "\xb0\x01\xf4", 3);
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	flat_code(f, "\xb0\x07\xf4", 3);
	f->cpu->activity = ACTIVITY_RUN;
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX] & 0xff, 7);
	flat_free(f);
}

/* The same bytes at the same address under other control registers: pxor %xmm0,%xmm0. */
static void mode_key(void **state)
{
	struct flat *f = model_machine();

	flat_code(f, "\x66\x0f\xef\xc0\xf4", 5);
	expect_vector(f, -1);
	f->cpu->activity = ACTIVITY_RUN;
	flat_code(f, "\x66\x0f\xef\xc0\xf4", 5);
	flat_set_cr0(f, f->cpu->cr0 | CR0_TS);
	expect_vector(f, VEC_NM);
	f->cpu->activity = ACTIVITY_RUN;
	flat_code(f, "\x66\x0f\xef\xc0\xf4", 5);
	flat_set_cr4(f, f->cpu->cr4 & ~CR4_OSFXSR);
	expect_vector(f, VEC_UD);
	flat_free(f);
}

/* A model without the feature: andn is #UD whatever the host has. */
static void legality(void **state)
{
	struct flat *f = model_machine();

	feature_put(f->cpu->model_features, FEAT_BMI1, false);
	flat_code(f, "\xc4\xe2\x78\xf2\xc0\xf4", 6);
	expect_vector(f, VEC_UD);
	flat_free(f);
}

static void too_long(void **state)
{
	static const uint8_t code[] = {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
				       0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90};
	struct flat *f = model_machine();

	flat_code(f, code, sizeof(code));
	expect_vector(f, VEC_GP);
	flat_code(f, code + 1, sizeof(code) - 1); /* 15 bytes are allowed */
	flat_poke(f, FLAT_CODE + 15, 0xf4, 1);
	f->cpu->activity = ACTIVITY_RUN;
	expect_vector(f, -1);
	flat_free(f);
}

/* mov $imm32,%eax across the end of the last mapped page: #PF at the page behind; one that ends there runs. */
static void end_of_page(void **state)
{
	struct flat *f = model_machine();
	gva_t page = 0x500000;

	flat_map(f, page + PAGE_SIZE, 0, 0, PAGE_SIZE);
	mmu_flush_all(f->cpu);
	flat_write(f, page + PAGE_SIZE - 3, "\xb8\x01\x02", 3);
	f->cpu->rip = page + PAGE_SIZE - 3;
	expect_vector(f, VEC_PF);
	assert_int_equal(f->cpu->cr2, page + PAGE_SIZE);
	flat_write(f, page + PAGE_SIZE - 3, "\xb0\x05\xf4", 3);
	f->cpu->rip = page + PAGE_SIZE - 3;
	f->cpu->activity = ACTIVITY_RUN;
	expect_vector(f, -1);
	assert_int_equal(f->cpu->gpr[RAX] & 0xff, 5);
	flat_free(f);
}

/* 32-bit code: the segment's limit inside an instruction is #GP, at its end it is not. */
static void end_of_segment(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_prot32(f);
	flat_code(f, "\xb8\x01\x00\x00\x00\xf4", 6);
	f->cpu->seg[SEG_CS].limit = FLAT_CODE + 3;
	expect_vector(f, VEC_GP);
	assert_int_not_equal(f->cpu->gpr[RAX], 1);
	flat_prot32(f);
	flat_code(f, "\xb8\x01\x00\x00\x00\xf4", 6);
	f->cpu->seg[SEG_CS].limit = FLAT_CODE + 5;
	f->cpu->activity = ACTIVITY_RUN;
	expect_vector(f, -1);
	assert_int_equal(f->cpu->gpr[RAX], 1);
	flat_free(f);
}

/* addl %ebx,(%rax) and lock incl (%rax) in MMIO: one read, one write, of the operand's size. */
static uint64_t mmio_five(struct flat *f, gpa_t gpa, unsigned size)
{
	return 5;
}

static void mmio_operand(void **state)
{
	struct flat *f = model_machine();

	f->mmio_in = mmio_five;
	f->cpu->gpr[RAX] = FLAT_MMIO + 0x10;
	f->cpu->gpr[RBX] = 3;
	flat_code(f, "\x01\x18\xf0\xff\x00\xf4", 6);
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(f->nr_events, 4);
	assert_int_equal(f->events[0].kind, FLAT_MMIO_READ);
	assert_int_equal(f->events[0].size, 4);
	assert_int_equal(f->events[1].kind, FLAT_MMIO_WRITE);
	assert_int_equal(f->events[1].data, 8);
	assert_int_equal(f->events[3].data, 6);
	assert_int_equal(f->cpu->retired, 3);
	flat_free(f);
}

/* Host faults in thunks are the guest's exceptions, with nothing changed. */
static void divide_error(void **state)
{
	struct flat *f = model_machine();

	f->cpu->gpr[RAX] = 7;
	f->cpu->gpr[RCX] = 0;
	flat_code(f, "\x48\xf7\xf1\xf4", 4); /* div %rcx */
	expect_vector(f, VEC_DE);
	assert_int_equal(f->cpu->gpr[RAX], 7);
	flat_free(f);
}

static void simd_exception(void **state)
{
	struct flat *f = model_machine();

	/* ldmxcsr FLAT_DATA (all unmasked); divss %xmm0,%xmm1 with zeros: invalid. */
	flat_poke(f, FLAT_DATA, 0, 4);
	flat_code(f, "\x0f\xae\x14\x25\x00\x00\x10\x00\x0f\x57\xc0\x0f\x57\xc9\xf3\x0f\x5e\xc8\xf4",
		  19);
	expect_vector(f, VEC_XM);
	flat_free(f);
}

static void bad_mxcsr(void **state)
{
	struct flat *f = model_machine();

	flat_poke(f, FLAT_DATA, 0xffffffff, 4);
	flat_code(f, "\x0f\xae\x14\x25\x00\x00\x10\x00\xf4", 9);
	expect_vector(f, VEC_GP);
	flat_free(f);
}

/* fldz; fldz; fdivp with all unmasked: no fault there, #MF at the next waiting instruction. */
static void x87_exception(void **state)
{
	struct flat *f = model_machine();

	flat_poke(f, FLAT_DATA, 0x340, 2);
	flat_set_cr0(f, f->cpu->cr0 | CR0_NE);
	flat_code(f, "\xdb\xe3\xd9\x2c\x25\x00\x00\x10\x00\xd9\xee\xd9\xee\xde\xf9\x90\x9b\xf4",
		  18);
	expect_vector(f, VEC_MF);
	flat_free(f);
}

/* More distinct thunks than there is room for: all are dropped, and the rest runs on. */
static void thunks_run_out(void **state)
{
	struct flat *f = model_machine();
	uint64_t sum = 0;

	f->cpu->gpr[RAX] = 0;
	for (uint32_t i = 0; i < THUNK_MAX + 100; i++) {
		uint8_t code[7] = {0x48, 0x05, i, i >> 8, i >> 16, 0, 0xf4}; /* add $i,%rax */

		sum += i;
		flat_code(f, code, sizeof(code));
		f->cpu->activity = ACTIVITY_RUN;
		assert_int_equal(flat_run(f, 5), CPU_EXIT_HLT);
	}
	assert_int_equal(f->cpu->gpr[RAX], sum);
	flat_free(f);
}

/* The program takes the page away under a borrowed store: the exit says so, and it can go on later. */
static void memory_taken_away(void **state)
{
	struct flat *f = model_machine();

	f->cpu->gpr[RAX] = FLAT_DATA;
	flat_code(f, "\x48\x01\x00\xf4", 4); /* add %rax,(%rax) */
	assert_int_equal(mprotect(f->ram + FLAT_DATA, PAGE_SIZE, PROT_NONE), 0);
	assert_int_equal(flat_run(f, 10), CPU_EXIT_MEMORY);
	assert_int_equal(f->cpu->rip, FLAT_CODE);
	assert_int_equal(mprotect(f->ram + FLAT_DATA, PAGE_SIZE, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(flat_peek(f, FLAT_DATA, 8), FLAT_DATA);
	flat_free(f);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(code_changes),	  cmocka_unit_test(program_changes_code),
		cmocka_unit_test(mode_key),	  cmocka_unit_test(legality),
		cmocka_unit_test(too_long),	  cmocka_unit_test(end_of_page),
		cmocka_unit_test(end_of_segment), cmocka_unit_test(mmio_operand),
		cmocka_unit_test(divide_error),	  cmocka_unit_test(simd_exception),
		cmocka_unit_test(bad_mxcsr),	  cmocka_unit_test(x87_exception),
		cmocka_unit_test(thunks_run_out), cmocka_unit_test(memory_taken_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
