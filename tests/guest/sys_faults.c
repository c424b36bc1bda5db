/* SPDX-License-Identifier: MIT */
/*
 * Event delivery: gates, error codes, EXT, double and triple faults, stack switches. Expected values from
 * the SDM (interrupt and exception handling; conditions for generating a double fault).
 */
#include "guest_asm.h"

#define CODE FLAT_CODE

GUEST(int80_code, 64, "int 0x80\n hlt");
GUEST(int3_code, 64, "int3\n hlt");
GUEST(ud2_code, 64, "ud2");
GUEST(gp_code, 64, "mov rax, [rbx]\n hlt");
GUEST(nop_code, 64, "nop\n nop\n hlt");
GUEST(int80_code32, 32, "int 0x80\n hlt");
GUEST(ud2_code32, 32, "ud2");
GUEST(nop_code32, 32, "nop\n nop\n hlt");
GUEST(ud2_code16, 16, "ud2");
GUEST(div_code16, 16, "xor cx, cx\n div cx");

#define GATE(f, vector) (FLAT_IDT + (cpu_long_mode((f)->cpu) ? 16 : 8) * (vector))

static void clear_present(struct flat *f, uint8_t vector)
{
	flat_poke(f, GATE(f, vector) + 5, flat_peek(f, GATE(f, vector) + 5, 1) & 0x7f, 1);
}

static struct flat *prot_machine(void)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_prot32(f);
	return f;
}

static void soft_interrupt_needs_gate_dpl(void **state)
{
	struct flat *f = long_machine();

	flat_user(f);
	load(f, int80_code);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 0, 8), 0x80 * 8 + 2);
	assert_int_equal(on_stack(f, 1, 8), CODE);
	assert_int_equal(on_stack(f, 2, 8), FLAT_CS64_USER);
	assert_int_equal(on_stack(f, 4, 8), FLAT_USER_STACK);
	assert_int_equal(on_stack(f, 5, 8), FLAT_DS_USER);
	flat_free(f);
}

static void user_gate_switches_the_stack(void **state)
{
	struct flat *f = long_machine();

	flat_gate(f, 0x80, FLAT_HANDLERS + 16 * 0x80, 3);
	flat_user(f);
	load(f, int80_code);
	assert_int_equal(run_to_handler(f), 0x80);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 40);
	assert_int_equal(on_stack(f, 0, 8), CODE + 2);
	assert_int_equal(f->cpu->mode.cpl, 0);
	assert_int_equal(f->cpu->seg[SEG_SS].sel, 0);
	flat_free(f);
}

static void absent_gate_of_an_instruction_has_no_ext(void **state)
{
	struct flat *f = long_machine();

	load(f, int80_code);
	clear_present(f, 0x80);
	assert_int_equal(run_to_handler(f), VEC_NP);
	assert_int_equal(on_stack(f, 0, 8), 0x80 * 8 + 2);
	assert_int_equal(on_stack(f, 1, 8), CODE);
	flat_free(f);
}

static void absent_gate_of_an_interrupt_has_ext(void **state)
{
	struct flat *f = long_machine();

	load(f, nop_code);
	clear_present(f, 0x41);
	set_flags(f, FLAG_IF);
	pend_interrupt(f, 0x41);
	assert_int_equal(run_to_handler(f), VEC_NP);
	assert_int_equal(on_stack(f, 0, 8), 0x41 * 8 + 3);
	flat_free(f);
}

static void absent_gate_of_an_exception_has_ext(void **state)
{
	struct flat *f = long_machine();

	load(f, ud2_code);
	clear_present(f, VEC_UD);
	assert_int_equal(run_to_handler(f), VEC_NP);
	assert_int_equal(on_stack(f, 0, 8), VEC_UD * 8 + 3);
	flat_free(f);
}

static void beyond_the_idt(void **state)
{
	struct flat *f = long_machine();

	load(f, int80_code);
	f->cpu->idtr.limit = 0x80 * 16 + 14;
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 0, 8), 0x80 * 8 + 2);
	flat_free(f);
}

static void contributory_twice_is_a_double_fault(void **state)
{
	struct flat *f = long_machine();

	load(f, gp_code);
	f->cpu->gpr[RBX] = BIT(63); /* not canonical: #GP */
	clear_present(f, VEC_GP);
	assert_int_equal(run_to_handler(f), VEC_DF);
	assert_int_equal(on_stack(f, 0, 8), 0);
	assert_int_equal(on_stack(f, 1, 8), CODE);
	flat_free(f);
}

static void page_fault_then_contributory_is_a_double_fault(void **state)
{
	struct flat *f = long_machine();

	load(f, gp_code);
	f->cpu->gpr[RBX] = 0x123456000; /* above the identity map */
	clear_present(f, VEC_PF);
	assert_int_equal(run_to_handler(f), VEC_DF);
	assert_int_equal(f->cpu->cr2, 0x123456000);
	flat_free(f);
}

static void contributory_then_page_fault_is_serial(void **state)
{
	struct flat *f = long_machine();

	/* The IDT's #GP gate lies in a page of its own copy that is not mapped. */
	flat_map(f, 0x200000, FLAT_IDT, PTE_P | PTE_W, 0x1000);
	f->cpu->idtr.base = 0x200000 + 0x1000 - 16 * VEC_GP;
	flat_map(f, 0x201000, 0, 0, 0x1000);
	flat_poke(f, FLAT_IDT + 0x1000 - 16 * VEC_GP + 16 * VEC_DF,
		  flat_peek(f, FLAT_IDT + 16 * VEC_DF, 8), 8);
	/* #PF's gate is in the unmapped page, too: #GP, then #PF, then #PF while delivering #PF = #DF. */
	mmu_flush_all(f->cpu);
	load(f, gp_code);
	f->cpu->gpr[RBX] = BIT(63);
	assert_int_equal(run_to_handler(f), VEC_DF);
	assert_int_equal(f->cpu->cr2, 0x201000 + 16 * (VEC_PF - VEC_GP));
	flat_free(f);
}

static void benign_then_contributory_is_serial(void **state)
{
	struct flat *f = long_machine();

	load(f, int3_code);
	clear_present(f, VEC_BP);
	assert_int_equal(run_to_handler(f), VEC_NP);
	assert_int_equal(on_stack(f, 0, 8), VEC_BP * 8 + 2);
	flat_free(f);
}

static void fault_in_double_fault_is_shutdown(void **state)
{
	struct flat *f = long_machine();

	load(f, ud2_code);
	f->cpu->idtr.limit = 0;
	assert_int_equal(flat_run(f, 100), CPU_EXIT_SHUTDOWN);
	flat_free(f);
}

static void ist_switches_without_a_privilege_change(void **state)
{
	struct flat *f = long_machine();

	flat_poke(f, FLAT_IDT + 16 * VEC_UD + 4, 3, 1);
	flat_poke(f, FLAT_TSS + 0x24 + 16, 0x18008, 8); /* IST3 */
	load(f, ud2_code);
	assert_int_equal(run_to_handler(f), VEC_UD);
	assert_int_equal(f->cpu->gpr[RSP], 0x18000 - 40);
	assert_int_equal(on_stack(f, 3, 8), FLAT_STACK);
	assert_int_equal(f->cpu->seg[SEG_SS].sel, FLAT_DS32);
	flat_free(f);
}

static void long_mode_aligns_the_stack(void **state)
{
	struct flat *f = long_machine();

	load(f, ud2_code);
	f->cpu->gpr[RSP] = FLAT_STACK - 9;
	assert_int_equal(run_to_handler(f), VEC_UD);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 16 - 40);
	assert_int_equal(on_stack(f, 3, 8), FLAT_STACK - 9);
	flat_free(f);
}

static void code_of_the_gate_must_be_64_bit(void **state)
{
	struct flat *f = long_machine();

	load(f, int80_code);
	flat_poke(f, GATE(f, 0x80) + 2, FLAT_CS32, 2);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 0, 8), FLAT_CS32);
	flat_free(f);
}

static void interrupt_gate_clears_if_trap_gate_keeps_it(void **state)
{
	struct flat *f = long_machine();

	load(f, int80_code);
	set_flags(f, FLAG_IF);
	assert_int_equal(run_to_handler(f), 0x80);
	assert_false(f->cpu->sflags & FLAG_IF);
	flat_poke(f, GATE(f, 0x80) + 5, 0x8f, 1);
	load(f, int80_code);
	set_flags(f, FLAG_IF | FLAG_NT | FLAG_AC);
	assert_int_equal(run_to_handler(f), 0x80);
	assert_true(f->cpu->sflags & FLAG_IF);
	assert_true(f->cpu->sflags & FLAG_AC);
	assert_false(f->cpu->sflags & FLAG_NT);
	flat_free(f);
}

/* ---- protected and real mode ---- */

static void prot32_same_privilege_frame(void **state)
{
	struct flat *f = prot_machine();

	load(f, ud2_code32);
	assert_int_equal(run_to_handler(f), VEC_UD);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 12);
	assert_int_equal(on_stack(f, 0, 4), CODE);
	assert_int_equal(on_stack(f, 1, 4), FLAT_CS32);
	assert_int_equal(on_stack(f, 2, 4), FLAG_RF | FLAG_FIXED);
	flat_free(f);
}

static void prot32_inner_stack(void **state)
{
	struct flat *f = prot_machine();

	flat_gate(f, 0x80, FLAT_HANDLERS + 16 * 0x80, 3);
	flat_user(f);
	load(f, int80_code32);
	assert_int_equal(run_to_handler(f), 0x80);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 20);
	assert_int_equal(on_stack(f, 0, 4), CODE + 2);
	assert_int_equal(on_stack(f, 3, 4), FLAT_USER_STACK);
	assert_int_equal(on_stack(f, 4, 4), FLAT_DS_USER);
	assert_int_equal(f->cpu->seg[SEG_SS].sel, FLAT_DS32);
	flat_free(f);
}

static void prot32_bad_inner_stack_is_ts(void **state)
{
	struct flat *f = prot_machine();

	flat_gate(f, 0x80, FLAT_HANDLERS + 16 * 0x80, 3);
	flat_poke(f, FLAT_TSS + 8, FLAT_DS_USER, 2); /* RPL and DPL 3 */
	flat_user(f);
	load(f, int80_code32);
	/* #TS cannot be delivered on that stack either. */
	assert_int_equal(flat_run(f, 100), CPU_EXIT_SHUTDOWN);
	flat_free(f);
}

static void prot32_gate16_pushes_words(void **state)
{
	struct flat *f = prot_machine();

	flat_poke(f, GATE(f, 0x80) + 5, 0x86, 1);
	load(f, int80_code32);
	assert_int_equal(run_to_handler(f), 0x80);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 6);
	assert_int_equal(on_stack(f, 0, 2), CODE + 2);
	assert_int_equal(on_stack(f, 1, 2), FLAT_CS32);
	flat_free(f);
}

static void real_mode_frame(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_real(f);
	load(f, ud2_code16);
	set_flags(f, FLAG_IF);
	assert_int_equal(run_to_handler(f), VEC_UD);
	assert_int_equal(f->cpu->gpr[RSP], 0xfff0 - 6);
	assert_int_equal(on_stack(f, 0, 2), CODE);
	assert_int_equal(on_stack(f, 1, 2), 0);
	assert_int_equal(on_stack(f, 2, 2), FLAG_IF | FLAG_FIXED);
	assert_false(f->cpu->sflags & FLAG_IF);
	load(f, div_code16);
	assert_int_equal(run_to_handler(f), VEC_DE);
	assert_int_equal(on_stack(f, 0, 2), CODE + 2);
	flat_free(f);
}

static void real_mode_shutdown(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_real(f);
	load(f, ud2_code16);
	f->cpu->idtr.limit = 3;
	assert_int_equal(flat_run(f, 100), CPU_EXIT_SHUTDOWN);
	flat_free(f);
}

static void injected_event_goes_first(void **state)
{
	struct flat *f = long_machine();

	load(f, nop_code);
	f->cpu->inject = (struct event){
		.valid = true,
		.type = EVENT_EXCEPTION,
		.vector = VEC_PF,
		.has_error = true,
		.error = 6,
		.has_payload = true,
		.payload = 0x4242,
	};
	cpu_update_attention(f->cpu);
	assert_int_equal(run_to_handler(f), VEC_PF);
	assert_int_equal(on_stack(f, 0, 8), 6);
	assert_int_equal(on_stack(f, 1, 8), CODE);
	assert_int_equal(f->cpu->cr2, 0x4242);
	assert_false(f->cpu->inject.valid);
	flat_free(f);
}

static void interrupts_wait_for_if(void **state)
{
	struct flat *f = prot_machine();

	load(f, nop_code32);
	pend_interrupt(f, 0x55);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->nr_acked, 0);
	assert_int_equal(f->cpu->rip, CODE + 3);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(soft_interrupt_needs_gate_dpl),
		cmocka_unit_test(user_gate_switches_the_stack),
		cmocka_unit_test(absent_gate_of_an_instruction_has_no_ext),
		cmocka_unit_test(absent_gate_of_an_interrupt_has_ext),
		cmocka_unit_test(absent_gate_of_an_exception_has_ext),
		cmocka_unit_test(beyond_the_idt),
		cmocka_unit_test(contributory_twice_is_a_double_fault),
		cmocka_unit_test(page_fault_then_contributory_is_a_double_fault),
		cmocka_unit_test(contributory_then_page_fault_is_serial),
		cmocka_unit_test(benign_then_contributory_is_serial),
		cmocka_unit_test(fault_in_double_fault_is_shutdown),
		cmocka_unit_test(ist_switches_without_a_privilege_change),
		cmocka_unit_test(long_mode_aligns_the_stack),
		cmocka_unit_test(code_of_the_gate_must_be_64_bit),
		cmocka_unit_test(interrupt_gate_clears_if_trap_gate_keeps_it),
		cmocka_unit_test(prot32_same_privilege_frame),
		cmocka_unit_test(prot32_inner_stack),
		cmocka_unit_test(prot32_bad_inner_stack_is_ts),
		cmocka_unit_test(prot32_gate16_pushes_words),
		cmocka_unit_test(real_mode_frame),
		cmocka_unit_test(real_mode_shutdown),
		cmocka_unit_test(injected_event_goes_first),
		cmocka_unit_test(interrupts_wait_for_if),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
