/* SPDX-License-Identifier: MIT */
/*
 * Which of several faults of one instruction is raised. Expected values from the SDM's table of priorities among
 * simultaneous exceptions: code breakpoints, then faults of fetching, then of decoding, then of executing.
 */
#include "silicon/exec/exec.h"
#include "silicon/mmu/mmu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "model_machine.h"

#define NOWHERE 0x40000000ull /* where each test takes the mapping away */
#define WILD	0x0000800000000001ull

static void break_at(struct flat *f, gva_t addr)
{
	f->cpu->dr[0] = addr;
	f->cpu->dr7 = DR7_FIXED_1 | 1;
	mmu_update_mode(f->cpu);
	cpu_update_attention(f->cpu);
}

static void expect(struct flat *f, int vector)
{
	assert_int_equal(flat_run(f, 20), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), vector);
	flat_free(f);
}

static struct flat *with_code(const char *code, size_t size)
{
	struct flat *f = model_machine();

	flat_code(f, code, size);
	return f;
}
#define CODE(bytes) with_code(bytes, sizeof(bytes) - 1)

static void breakpoint_before_undefined(void **state)
{
	struct flat *f = CODE("\x0f\x0b"); /* ud2 */

	break_at(f, f->cpu->rip);
	expect(f, VEC_DB);
}

static void breakpoint_before_fetch(void **state)
{
	struct flat *f = model_machine();

	flat_set_entry(f, NOWHERE, 2, 0);
	mmu_flush_all(f->cpu);
	f->cpu->rip = NOWHERE;
	break_at(f, NOWHERE);
	expect(f, VEC_DB);
}

static void fetch_before_undefined(void **state)
{
	struct flat *f = model_machine();

	flat_set_entry(f, NOWHERE, 2, 0);
	mmu_flush_all(f->cpu);
	f->cpu->rip = NOWHERE;
	expect(f, VEC_PF);
}

static void undefined_before_not_available(void **state)
{
	struct flat *f = CODE("\x0f\x28\xc1"); /* movaps %xmm1,%xmm0 */

	flat_set_cr0(f, f->cpu->cr0 | CR0_EM | CR0_TS);
	expect(f, VEC_UD);
}

static void not_available_before_the_operand(void **state)
{
	struct flat *f = CODE("\x0f\x28\x03"); /* movaps (%rbx),%xmm0 */

	flat_set_cr0(f, f->cpu->cr0 | CR0_TS);
	f->cpu->gpr[RBX] = WILD;
	expect(f, VEC_NM);
}

static void lock_before_privilege(void **state)
{
	struct flat *f = CODE("\xf0\x0f\x01\x13"); /* lock lgdt (%rbx), at CPL 3 */

	flat_user(f);
	expect(f, VEC_UD);
}

static void privilege_before_the_operand(void **state)
{
	struct flat *f = CODE("\x0f\x01\x13"); /* lgdt (%rbx), at CPL 3 */

	flat_set_entry(f, NOWHERE, 2, 0);
	mmu_flush_all(f->cpu);
	f->cpu->gpr[RBX] = NOWHERE;
	flat_user(f);
	expect(f, VEC_GP);
}

static struct flat *aligning(gva_t addr)
{
	struct flat *f = CODE("\x48\x8b\x03"); /* mov (%rbx),%rax, at CPL 3 with alignment checks */

	flat_set_cr0(f, f->cpu->cr0 | CR0_AM);
	f->cpu->gpr[RBX] = addr;
	flat_user(f);
	cpu_set_rflags(f->cpu, cpu_rflags(f->cpu) | FLAG_AC);
	return f;
}

static void canonical_before_alignment(void **state)
{
	expect(aligning(WILD), VEC_GP);
	expect(aligning(0x2001), VEC_AC);
}

static void first_page_is_named(void **state)
{
	struct flat *f =
		CODE("\x48\x89\x03"); /* mov %rax,(%rbx) over two pages that are not there */

	flat_set_entry(f, NOWHERE, 2, 0);
	flat_set_entry(f, NOWHERE + 0x200000, 2, 0);
	mmu_flush_all(f->cpu);
	f->cpu->gpr[RBX] = NOWHERE + 0x200000 - 3;
	assert_int_equal(flat_run(f, 20), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_PF);
	assert_int_equal(f->cpu->cr2, NOWHERE + 0x200000 - 3);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(breakpoint_before_undefined),
		cmocka_unit_test(breakpoint_before_fetch),
		cmocka_unit_test(fetch_before_undefined),
		cmocka_unit_test(undefined_before_not_available),
		cmocka_unit_test(not_available_before_the_operand),
		cmocka_unit_test(lock_before_privilege),
		cmocka_unit_test(privilege_before_the_operand),
		cmocka_unit_test(canonical_before_alignment),
		cmocka_unit_test(first_page_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
