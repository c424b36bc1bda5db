/* SPDX-License-Identifier: MIT */
/* Where Intel's and AMD's processors differ in emulated instructions, whatever the host is. */
#include "emul.h"
#include "silicon/models/model.h"

static struct cpu_model model;

static struct flat *machine(enum vendor vendor, emul_mode_fn *mode)
{
	struct flat *f = flat_new(FLAT_RAM);

	model = *f->cpu->model;
	model.vendor = vendor;
	f->cpu->model = &model;
	mode(f);
	return f;
}

/* 66h before a near branch in 64-bit mode. */
static void branch_66(void **state)
{
	struct flat *f = machine(VENDOR_INTEL, flat_long);

	/* Intel: ignored, a 32-bit displacement, an 8-byte push */
	flat_poke(f, FLAT_CODE + 6 + 0x10, 0xf4, 1);
	EMUL_CODE(f, "\x66\xe8\x10\x00\x00\x00");
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_CODE + 6 + 0x11);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 8);
	flat_free(f);
	/* AMD: 16 bits of everything */
	f = machine(VENDOR_AMD, flat_long);
	flat_poke(f, FLAT_CODE + 4 + 0x10, 0xf4, 1);
	EMUL_CODE(f, "\x66\xe8\x10\x00");
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_CODE + 4 + 0x11);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 2);
	assert_int_equal(flat_peek(f, FLAT_STACK - 2, 2), FLAT_CODE + 4);
	flat_free(f);
}

/* PUSH of a segment register with a 32-bit operand. */
static void push_segment(void **state)
{
	struct flat *f = machine(VENDOR_INTEL, flat_prot32);

	flat_poke(f, FLAT_STACK - 4, ~0ull, 4);
	emul_halts(f, "\x1e");
	assert_int_equal(flat_peek(f, FLAT_STACK - 4, 4), 0xffff0000 | FLAT_DS32);
	flat_free(f);
	f = machine(VENDOR_AMD, flat_prot32);
	flat_poke(f, FLAT_STACK - 4, ~0ull, 4);
	emul_halts(f, "\x1e");
	assert_int_equal(flat_peek(f, FLAT_STACK - 4, 4), FLAT_DS32);
	flat_free(f);
}

/* REP with ECX = 0 under a 32-bit address size. */
static void rep_of_nothing(void **state)
{
	for (enum vendor vendor = VENDOR_INTEL; vendor <= VENDOR_AMD; vendor++) {
		struct flat *f = machine(vendor, flat_long);
		uint64_t high = vendor == VENDOR_INTEL ? 0 : 0xffffffff00000000;

		f->cpu->gpr[RCX] = 0xffffffff00000000;
		f->cpu->gpr[RSI] = f->cpu->gpr[RDI] = 0xffffffff00001000;
		emul_halts(f, "\x67\xf3\xa4");
		assert_true(f->cpu->gpr[RCX] == high);
		assert_true(f->cpu->gpr[RSI] == (high | 0x1000));
		assert_true(f->cpu->gpr[RDI] == (high | 0x1000));
		flat_free(f);
	}
}

/* LSS with REX.W has a 64-bit offset on Intel's only. */
static void far_pointer_rex_w(void **state)
{
	for (enum vendor vendor = VENDOR_INTEL; vendor <= VENDOR_AMD; vendor++) {
		struct flat *f = machine(vendor, flat_long);
		bool wide = vendor == VENDOR_INTEL;

		f->cpu->gpr[RBX] = FLAT_DATA;
		flat_poke(f, FLAT_DATA, 0x1122334455667788, 8);
		flat_poke(f, FLAT_DATA + (wide ? 8 : 4), FLAT_DS32, 2);
		emul_halts(f, "\x48\x0f\xb4\x03"); /* lfs rax,[rbx] */
		assert_int_equal(f->cpu->seg[SEG_FS].sel, FLAT_DS32);
		if (wide)
			assert_true(f->cpu->gpr[RAX] == 0x1122334455667788);
		else
			assert_int_equal(f->cpu->gpr[RAX], 0x55667788);
		flat_free(f);
	}
}

/* FXSAVE's pointers without a pending exception: AMD's shows none. */
static void fxsave_pointers(void **state)
{
	for (enum vendor vendor = VENDOR_INTEL; vendor <= VENDOR_AMD; vendor++) {
		struct flat *f = machine(vendor, flat_long);

		f->cpu->gpr[RBX] = FLAT_DATA;
		/* fld1; fxsave64 [rbx] */
		emul_halts(f, "\xd9\xe8\x48\x0f\xae\x03");
		assert_int_equal(flat_peek(f, FLAT_DATA + 8, 8),
				 vendor == VENDOR_INTEL ? FLAT_CODE : 0);
		flat_free(f);
	}
}

/* LOCK MOV CR0 is CR8 on AMD's. */
static void lock_mov_cr0(void **state)
{
	struct flat *f = machine(VENDOR_INTEL, flat_prot32);

	emul_faults(f, VEC_UD, "\xf0\x0f\x20\xc0");
	flat_free(f);
	f = machine(VENDOR_AMD, flat_prot32);
	f->tpr = 5;
	emul_halts(f, "\xf0\x0f\x20\xc0");
	assert_int_equal(f->cpu->gpr[RAX], 5);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(branch_66),	   cmocka_unit_test(push_segment),
		cmocka_unit_test(rep_of_nothing),  cmocka_unit_test(far_pointer_rex_w),
		cmocka_unit_test(fxsave_pointers), cmocka_unit_test(lock_mov_cr0),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
