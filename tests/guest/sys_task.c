/* SPDX-License-Identifier: MIT */
/*
 * Hardware task switches: JMP, CALL, IRET, task gates, and faults on either side of the commit point.
 * Expected values from the SDM (task management).
 */
#include "guest_asm.h"

#define CODE	     FLAT_CODE
#define TASK_SEL     0x60
#define LDT_SEL	     0x68
#define BUSY_OF(sel) (FLAT_GDT + (sel) + 5)
#define TSS	     0x5000 /* the second task's */
#define TASK_ESP     0x28000
#define TASK_EIP     FLAT_DATA

#define TSS_CR3	  0x1c
#define TSS_EIP	  0x20
#define TSS_FLAGS 0x24
#define TSS_REGS  0x28
#define TSS_SEGS  0x48
#define TSS_LDT	  0x60
#define TSS_TRAP  0x64

GUEST(jmp_code, 32, ".byte 0xea, 0,0,0,0, 0x60, 0\n hlt");
GUEST(call_code, 32, ".byte 0x9a, 0,0,0,0, 0x60, 0\n hlt");
GUEST(ud2_code, 32, "ud2");
GUEST(page_fault_code, 32, "mov eax, [ebx]");
GUEST(iret_code, 32, "iretd\n hlt");

static void make_task(struct flat *f)
{
	static const uint16_t segs[] = {FLAT_DS32, FLAT_CS32, FLAT_DS32,
					FLAT_DS32, FLAT_DS32, FLAT_DS32};

	f->cpu->gdtr.limit = 0x9f;
	flat_poke(f, FLAT_GDT + TASK_SEL, 0x0000890000000067 | (uint64_t)TSS << 16, 8);
	flat_poke(f, TSS + TSS_CR3, f->cpu->cr3, 4);
	flat_poke(f, TSS + TSS_EIP, TASK_EIP, 4);
	flat_poke(f, TSS + TSS_FLAGS, FLAG_FIXED | FLAG_CF, 4);
	for (unsigned i = 0; i < 8; i++)
		flat_poke(f, TSS + TSS_REGS + 4 * i, i == RSP ? TASK_ESP : 0x1000 + i, 4);
	for (unsigned i = 0; i < ARRAY_SIZE(segs); i++)
		flat_poke(f, TSS + TSS_SEGS + 4 * i, segs[i], 4);
	flat_poke(f, TASK_EIP, 0xf4, 1);
}

static struct flat *task_machine(void)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_prot32(f);
	make_task(f);
	return f;
}

static bool busy(struct flat *f, uint16_t sel)
{
	return flat_peek(f, BUSY_OF(sel), 1) & 2;
}

static void jmp_switches_for_good(void **state)
{
	struct flat *f = task_machine();

	load(f, jmp_code);
	f->cpu->gpr[RBX] = 0xb0b0;
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, TASK_EIP + 1);
	assert_int_equal(f->cpu->gpr[RAX], 0x1000);
	assert_int_equal(f->cpu->gpr[RDI], 0x1007);
	assert_int_equal(f->cpu->gpr[RSP], TASK_ESP);
	assert_int_equal(cpu_rflags(f->cpu), FLAG_FIXED | FLAG_CF);
	assert_int_equal(f->cpu->seg[SEG_TR].sel, TASK_SEL);
	assert_true(f->cpu->cr0 & CR0_TS);
	assert_true(busy(f, TASK_SEL));
	assert_false(busy(f, FLAT_TR));
	assert_int_equal(flat_peek(f, FLAT_TSS + TSS_EIP, 4), CODE + 7);
	assert_int_equal(flat_peek(f, FLAT_TSS + TSS_REGS + 4 * RBX, 4), 0xb0b0);
	assert_int_equal(flat_peek(f, FLAT_TSS + TSS_REGS + 4 * RSP, 4), FLAT_STACK);
	assert_int_equal(flat_peek(f, FLAT_TSS + TSS_SEGS + 4 * SEG_CS, 2), FLAT_CS32);
	flat_free(f);
}

static void call_nests_and_iret_returns(void **state)
{
	struct flat *f = task_machine();

	flat_write(f, TASK_EIP, iret_code, iret_code_end - iret_code);
	load(f, call_code);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, CODE + 8);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK);
	assert_int_equal(f->cpu->seg[SEG_TR].sel, FLAT_TR);
	assert_true(busy(f, FLAT_TR));
	assert_false(busy(f, TASK_SEL));
	assert_int_equal(flat_peek(f, TSS, 2), FLAT_TR); /* back link */
	/* NT was set in the nested task and is clear in what IRET saved. */
	assert_int_equal(flat_peek(f, TSS + TSS_FLAGS, 4), FLAG_FIXED | FLAG_CF);
	assert_int_equal(flat_peek(f, TSS + TSS_EIP, 4), TASK_EIP + 1);
	assert_false(f->cpu->sflags & FLAG_NT);
	flat_free(f);
}

static void call_sets_nt(void **state)
{
	struct flat *f = task_machine();

	load(f, call_code);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_true(f->cpu->sflags & FLAG_NT);
	assert_true(busy(f, FLAT_TR));
	assert_true(busy(f, TASK_SEL));
	flat_free(f);
}

static void refusals_belong_to_the_old_task(void **state)
{
	struct flat *f = task_machine();

	flat_poke(f, BUSY_OF(TASK_SEL), 0x8b, 1); /* busy */
	load(f, jmp_code);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 0, 4), TASK_SEL);
	assert_int_equal(on_stack(f, 1, 4), CODE);
	flat_poke(f, BUSY_OF(TASK_SEL), 0x09, 1); /* not present */
	load(f, jmp_code);
	assert_int_equal(run_to_handler(f), VEC_NP);
	assert_int_equal(on_stack(f, 0, 4), TASK_SEL);
	flat_poke(f, BUSY_OF(TASK_SEL), 0x89, 1);
	flat_poke(f, FLAT_GDT + TASK_SEL, 0x66, 2); /* limit */
	load(f, jmp_code);
	assert_int_equal(run_to_handler(f), VEC_TS);
	assert_int_equal(on_stack(f, 0, 4), TASK_SEL);
	assert_int_equal(f->cpu->seg[SEG_TR].sel, FLAT_TR);
	assert_false(f->cpu->cr0 & CR0_TS);
	flat_free(f);
}

/* Past the commit point: the frame is the new task's, and so is the stack. */
static void fault_in_the_new_task(struct flat *f, unsigned seg, uint16_t sel, int vector,
				  uint32_t error)
{
	flat_poke(f, TSS + TSS_SEGS + 4 * seg, sel, 2);
	load(f, jmp_code);
	assert_int_equal(run_to_handler(f), vector);
	assert_int_equal(on_stack(f, 0, 4), error);
	assert_int_equal(on_stack(f, 1, 4), TASK_EIP);
	assert_int_equal(f->cpu->gpr[RSP], TASK_ESP - 16);
	assert_int_equal(f->cpu->seg[SEG_TR].sel, TASK_SEL);
	assert_true(busy(f, TASK_SEL));
	assert_int_equal(f->cpu->gpr[RBX], 0x1003);
}

static void segment_faults_belong_to_the_new_task(void **state)
{
	struct flat *f = task_machine();

	fault_in_the_new_task(f, SEG_DS, TASK_SEL, VEC_TS, TASK_SEL);
	flat_prot32(f);
	make_task(f);
	flat_poke(f, FLAT_GDT + 0x70, 0x00cf13000000ffff, 8); /* data, absent */
	fault_in_the_new_task(f, SEG_ES, 0x70, VEC_NP, 0x70);
	flat_free(f);
}

static void bad_ldt_is_ts(void **state)
{
	struct flat *f = task_machine();

	/* SS is not loaded yet, so the fault has no stack: a gate to yet another task would be needed. */
	flat_poke(f, TSS + TSS_LDT, FLAT_DS32, 2);
	load(f, jmp_code);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_SHUTDOWN);
	assert_int_equal(f->cpu->seg[SEG_TR].sel, TASK_SEL);
	flat_free(f);
}

static void task_gate_of_an_exception(void **state)
{
	struct flat *f = task_machine();

	flat_poke(f, FLAT_IDT + 8 * VEC_UD, (uint64_t)TASK_SEL << 16 | 0x85ull << 40, 8);
	load(f, ud2_code);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, TASK_EIP + 1);
	assert_int_equal(f->cpu->gpr[RSP], TASK_ESP);
	assert_true(f->cpu->sflags & FLAG_NT);
	assert_int_equal(flat_peek(f, FLAT_TSS + TSS_EIP, 4), CODE);
	assert_int_equal(flat_peek(f, FLAT_TSS + TSS_FLAGS, 4), FLAG_FIXED | FLAG_RF);
	flat_free(f);
}

static void task_gate_pushes_the_error_code(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_paging32(f);
	make_task(f);
	flat_poke(f, FLAT_IDT + 8 * VEC_PF, (uint64_t)TASK_SEL << 16 | 0x85ull << 40, 8);
	flat_map(f, 0x800000, 0, 0, 0x1000);
	mmu_flush_all(f->cpu);
	load(f, page_fault_code);
	f->cpu->gpr[RBX] = 0x800000;
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, TASK_EIP + 1);
	assert_int_equal(f->cpu->gpr[RSP], TASK_ESP - 4);
	assert_int_equal(on_stack(f, 0, 4), 0);
	assert_int_equal(f->cpu->cr2, 0x800000);
	flat_free(f);
}

static void t_bit_traps_before_the_first_instruction(void **state)
{
	struct flat *f = task_machine();

	flat_poke(f, TSS + TSS_TRAP, 1, 2);
	f->cpu->dr7 |= 0x3; /* L0 goes, G0 stays */
	f->cpu->dr[0] = 0x123;
	load(f, jmp_code);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(on_stack(f, 0, 4), TASK_EIP);
	assert_int_equal(f->cpu->dr6, DR6_FIXED_1 | DR6_BT);
	assert_int_equal(f->cpu->dr7 & 3, 2);
	flat_free(f);
}

static void cr3_is_loaded(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	uint64_t cr3;

	flat_paging32(f);
	make_task(f);
	cr3 = flat_alloc_table(f);
	flat_poke(f, cr3, 0x87, 4); /* 4 MiB at 0 */
	flat_poke(f, TSS + TSS_CR3, cr3, 4);
	load(f, jmp_code);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, TASK_EIP + 1);
	assert_int_equal(f->cpu->cr3, cr3);
	flat_free(f);
}

static void tss16(void **state)
{
	struct flat *f = task_machine();
	static const uint16_t segs[] = {FLAT_DS16, FLAT_CS16, FLAT_DS16, FLAT_DS16};

	flat_poke(f, FLAT_GDT + TASK_SEL, 0x000081000000002b | (uint64_t)TSS << 16, 8);
	flat_poke(f, TSS + 0x0e, 0x7000, 2);
	flat_poke(f, TSS + 0x10, FLAG_FIXED, 2);
	for (unsigned i = 0; i < 8; i++)
		flat_poke(f, TSS + 0x12 + 2 * i, 0x2000 + i, 2);
	for (unsigned i = 0; i < ARRAY_SIZE(segs); i++)
		flat_poke(f, TSS + 0x22 + 2 * i, segs[i], 2);
	flat_poke(f, TSS + 0x2a, 0, 2);
	flat_poke(f, 0x7000, 0xf4, 1);
	load(f, jmp_code);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, 0x7001);
	assert_int_equal(f->cpu->mode.code, CODE_16);
	assert_int_equal(f->cpu->gpr[RDX] & 0xffff, 0x2002);
	assert_true(f->cpu->seg[SEG_FS].attr & SEG_UNUSABLE);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jmp_switches_for_good),
		cmocka_unit_test(call_nests_and_iret_returns),
		cmocka_unit_test(call_sets_nt),
		cmocka_unit_test(refusals_belong_to_the_old_task),
		cmocka_unit_test(segment_faults_belong_to_the_new_task),
		cmocka_unit_test(bad_ldt_is_ts),
		cmocka_unit_test(task_gate_of_an_exception),
		cmocka_unit_test(task_gate_pushes_the_error_code),
		cmocka_unit_test(t_bit_traps_before_the_first_instruction),
		cmocka_unit_test(cr3_is_loaded),
		cmocka_unit_test(tss16),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
