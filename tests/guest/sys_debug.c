/* SPDX-License-Identifier: MIT */
/*
 * Single-step, breakpoints, DR6, RF and the interrupt shadow. Expected values from the SDM (debug,
 * branch profile; interrupt and exception handling) and the APM.
 */
#include "guest_asm.h"

#define CODE	 FLAT_CODE
#define DR6_NONE 0xffff0ff0u

/* Return RIP and RFLAGS of the frame in 64-bit mode, no error code. */
#define RIP_PUSHED(f)	 on_stack(f, 0, 8)
#define RFLAGS_PUSHED(f) on_stack(f, 2, 8)

static void arm(struct flat *f, unsigned n, uint64_t addr, unsigned rw, unsigned len)
{
	f->cpu->dr[n] = addr;
	f->cpu->dr7 |= BIT(n * 2) | (uint64_t)rw << (16 + n * 4) | (uint64_t)len << (18 + n * 4);
	cpu_update_attention(f->cpu);
	mmu_update_mode(f->cpu);
}

GUEST(sti_code, 64, "sti\n nop\n nop\n hlt");
GUEST(sti_sti_code, 64, "sti\n sti\n nop\n hlt");
GUEST(sti_movss_code, 64, "sti\n mov ss, eax\n mov ss, eax\n nop\n hlt");
GUEST(movss_code, 64, "mov ss, eax\n nop\n nop\n hlt");
GUEST(movss_mem_code, 64, "mov ss, [rbx]\n nop\n nop\n hlt");
GUEST(movss_int3_code, 64, "mov ss, [rbx]\n int3\n hlt");
GUEST(movss_icebp_code, 64, "mov ss, eax\n .byte 0xf1\n hlt");
GUEST(sti_hlt_code, 64, "sti\n hlt\n nop");

static void tf_is_not_delayed_by_sti(void **state)
{
	struct flat *f = long_machine();

	load(f, sti_code);
	set_flags(f, FLAG_TF);
	pend_interrupt(f, 0x40);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE + 1);
	assert_int_equal(f->cpu->dr6, DR6_NONE | DR6_BS);
	assert_int_equal(f->nr_acked, 0);
	flat_free(f);
}

static void sti_holds_interrupts_for_one_instruction(void **state)
{
	struct flat *f = long_machine();

	load(f, sti_code);
	pend_interrupt(f, 0x40);
	assert_int_equal(run_to_handler(f), 0x40);
	assert_int_equal(RIP_PUSHED(f), CODE + 2);
	assert_true(RFLAGS_PUSHED(f) & FLAG_IF);
	assert_false(f->cpu->sflags & FLAG_IF);
	flat_free(f);
}

static void second_sti_does_not_extend(void **state)
{
	struct flat *f = long_machine();

	load(f, sti_sti_code);
	pend_interrupt(f, 0x40);
	assert_int_equal(run_to_handler(f), 0x40);
	assert_int_equal(RIP_PUSHED(f), CODE + 2);
	flat_free(f);
}

static void second_mov_ss_does_not_extend(void **state)
{
	struct flat *f = long_machine();

	load(f, sti_movss_code);
	f->cpu->gpr[RAX] = FLAT_DS32;
	pend_interrupt(f, 0x40);
	assert_int_equal(run_to_handler(f), 0x40);
	assert_int_equal(RIP_PUSHED(f), CODE + 5);
	flat_free(f);
}

static void mov_ss_postpones_single_step(void **state)
{
	struct flat *f = long_machine();

	load(f, movss_code);
	f->cpu->gpr[RAX] = FLAT_DS32;
	set_flags(f, FLAG_TF);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE + 3);
	assert_int_equal(f->cpu->dr6, DR6_NONE | DR6_BS);
	flat_free(f);
}

static void mov_ss_postpones_a_data_watch(void **state)
{
	struct flat *f = long_machine();

	load(f, movss_mem_code);
	flat_poke(f, FLAT_DATA, FLAT_DS32, 2);
	f->cpu->gpr[RBX] = FLAT_DATA;
	arm(f, 0, FLAT_DATA, 3, 1);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE + 3);
	assert_int_equal(f->cpu->dr6, DR6_NONE | 1);
	flat_free(f);
}

static void mov_ss_int3_takes_the_watch_in_the_handler(void **state)
{
	struct flat *f = long_machine();

	load(f, movss_int3_code);
	flat_poke(f, FLAT_DATA, FLAT_DS32, 2);
	f->cpu->gpr[RBX] = FLAT_DATA;
	arm(f, 0, FLAT_DATA, 3, 1);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), FLAT_HANDLERS + 16 * VEC_BP);
	assert_int_equal(f->cpu->dr6, DR6_NONE | 1);
	flat_free(f);
}

static void icebp_after_mov_ss_leaves_dr6_empty(void **state)
{
	struct flat *f = long_machine();

	load(f, movss_icebp_code);
	f->cpu->gpr[RAX] = FLAT_DS32;
	set_flags(f, FLAG_TF);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE + 3);
	assert_int_equal(f->cpu->dr6, DR6_NONE);
	flat_free(f);
}

static void tf_with_hlt_traps_behind_it(void **state)
{
	struct flat *f = long_machine();

	load(f, sti_hlt_code);
	f->cpu->rip++; /* HLT itself */
	set_flags(f, FLAG_TF);
	if (flat_run(f, 100) == CPU_EXIT_HLT && f->cpu->activity == ACTIVITY_RUN)
		assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(flat_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE + 2);
	flat_free(f);
}

static void hlt_wakes_for_an_interrupt(void **state)
{
	struct flat *f = long_machine();

	load(f, sti_hlt_code);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, CODE + 2);
	pend_interrupt(f, 0x33);
	assert_int_equal(run_to_handler(f), 0x33);
	assert_int_equal(RIP_PUSHED(f), CODE + 2);
	flat_free(f);
}

GUEST(nops_code, 64, "nop\n nop\n nop\n hlt");

static void dr6_reports_all_matches_and_keeps_bs_and_bd(void **state)
{
	struct flat *f = long_machine();

	load(f, nops_code);
	arm(f, 0, CODE + 1, 0, 0);
	f->cpu->dr[2] = CODE + 1; /* matches, is not enabled */
	f->cpu->dr6 = DR6_NONE | DR6_BS | DR6_BD | 8;
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE + 1);
	assert_int_equal(f->cpu->dr6, DR6_NONE | DR6_BS | DR6_BD | 5);
	assert_false(RFLAGS_PUSHED(f) & FLAG_RF);
	flat_free(f);
}

static void rf_passes_one_code_breakpoint(void **state)
{
	struct flat *f = long_machine();

	load(f, nops_code);
	arm(f, 0, CODE, 0, 0);
	arm(f, 1, CODE + 2, 0, 0);
	set_flags(f, FLAG_RF);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE + 2);
	assert_int_equal(f->cpu->dr6, DR6_NONE | 2);
	flat_free(f);
}

static void mov_ss_holds_back_a_code_breakpoint(void **state)
{
	struct flat *f = long_machine();

	load(f, movss_code);
	f->cpu->gpr[RAX] = FLAT_DS32;
	arm(f, 0, CODE + 2, 0, 0);
	arm(f, 1, CODE + 3, 0, 0);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE + 3);
	assert_int_equal(f->cpu->dr6, DR6_NONE | 2);
	flat_free(f);
}

GUEST(iret_code, 64, "iretq\n nop\n nop\n hlt");

static void iret_loads_rf_for_the_next_instruction(void **state)
{
	struct flat *f = long_machine();
	uint64_t frame[] = {CODE + 2, FLAT_CS64, FLAG_RF | FLAG_FIXED, FLAT_STACK, FLAT_DS32};

	load(f, iret_code);
	f->cpu->gpr[RSP] = FLAT_STACK - sizeof(frame);
	flat_write(f, FLAT_STACK - sizeof(frame), frame, sizeof(frame));
	arm(f, 0, CODE + 2, 0, 0);
	arm(f, 1, CODE + 3, 0, 0);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE + 3);
	assert_int_equal(f->cpu->dr6, DR6_NONE | 2);
	flat_free(f);
}

GUEST(ud2_code, 64, "ud2");
GUEST(int3_code, 64, "int3\n hlt");

static void faults_push_rf_and_traps_do_not(void **state)
{
	struct flat *f = long_machine();

	load(f, ud2_code);
	assert_int_equal(run_to_handler(f), VEC_UD);
	assert_true(RFLAGS_PUSHED(f) & FLAG_RF);
	assert_int_equal(RIP_PUSHED(f), CODE);
	assert_false(f->cpu->sflags & FLAG_RF);
	load(f, int3_code);
	assert_int_equal(run_to_handler(f), VEC_BP);
	assert_false(RFLAGS_PUSHED(f) & FLAG_RF);
	assert_int_equal(RIP_PUSHED(f), CODE + 1);
	load(f, nops_code);
	set_flags(f, FLAG_IF);
	pend_interrupt(f, 0x77);
	assert_int_equal(run_to_handler(f), 0x77);
	assert_false(RFLAGS_PUSHED(f) & FLAG_RF);
	flat_free(f);
}

GUEST(store_code, 64, "mov [rbx], al\n nop\n hlt");

static void data_watch_is_a_trap(void **state)
{
	struct flat *f = long_machine();

	load(f, store_code);
	f->cpu->gpr[RBX] = FLAT_DATA + 3;
	f->cpu->gpr[RAX] = 0x5a;
	arm(f, 3, FLAT_DATA, 1, 3);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE + 2);
	assert_int_equal(f->cpu->dr6, DR6_NONE | 8);
	assert_int_equal(flat_peek(f, FLAT_DATA + 3, 1), 0x5a);
	flat_free(f);
}

GUEST(rep_code, 64, "rep stosb\n nop\n hlt");

static void single_step_stops_after_each_iteration(void **state)
{
	struct flat *f = long_machine();

	load(f, rep_code);
	f->cpu->gpr[RDI] = FLAT_DATA;
	f->cpu->gpr[RCX] = 3;
	set_flags(f, FLAG_TF);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE);
	assert_int_equal(f->cpu->gpr[RCX], 2);
	assert_true(RFLAGS_PUSHED(f) & FLAG_RF);
	flat_free(f);
}

static void data_watch_stops_a_rep(void **state)
{
	struct flat *f = long_machine();

	load(f, rep_code);
	f->cpu->gpr[RDI] = FLAT_DATA;
	f->cpu->gpr[RCX] = 100;
	arm(f, 0, FLAT_DATA + 9, 1, 0);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE);
	assert_int_equal(f->cpu->gpr[RCX], 90);
	flat_free(f);
}

GUEST(out_code, 64, "out 0x80, al\n nop\n hlt");

static void port_watch_needs_cr4_de(void **state)
{
	struct flat *f = long_machine();

	load(f, out_code);
	arm(f, 1, 0x80, 2, 0);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, CODE + 4);
	flat_set_cr4(f, f->cpu->cr4 | CR4_DE);
	load(f, out_code);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE + 2);
	assert_int_equal(f->cpu->dr6, DR6_NONE | 2);
	flat_free(f);
}

GUEST(mov_dr0_code, 64, "mov dr0, rax\n hlt");
GUEST(mov_dr4_code, 64, "mov rax, dr4\n hlt");
GUEST(mov_dr7_code, 64, "mov dr7, rax\n hlt");

static void general_detect(void **state)
{
	struct flat *f = long_machine();

	load(f, mov_dr0_code);
	f->cpu->dr7 |= DR7_GD;
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE);
	assert_int_equal(f->cpu->dr6, DR6_NONE | DR6_BD);
	assert_false(f->cpu->dr7 & DR7_GD);
	flat_free(f);
}

static void dr4_aliases_dr6_unless_de(void **state)
{
	struct flat *f = long_machine();

	load(f, mov_dr4_code);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], DR6_NONE);
	flat_set_cr4(f, f->cpu->cr4 | CR4_DE);
	load(f, mov_dr4_code);
	assert_int_equal(run_to_handler(f), VEC_UD);
	flat_free(f);
}

static void dr4_checks_de_before_cpl(void **state)
{
	struct flat *f = long_machine();

	flat_user(f);
	load(f, mov_dr4_code);
	assert_int_equal(run_to_handler(f), VEC_GP);
	flat_long(f);
	flat_set_cr4(f, f->cpu->cr4 | CR4_DE);
	flat_user(f);
	load(f, mov_dr4_code);
	assert_int_equal(run_to_handler(f), VEC_UD);
	flat_free(f);
}

static void upper_half_of_dr7_is_reserved(void **state)
{
	struct flat *f = long_machine();

	load(f, mov_dr7_code);
	f->cpu->gpr[RAX] = BIT(32);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(f->cpu->dr7, DR7_FIXED_1);
	flat_free(f);
}

GUEST(int_n_code, 64, "int 0x50\n hlt");
GUEST(popf_code, 64, "popfq\n nop\n nop\n hlt");

static void int_n_takes_tf_away(void **state)
{
	struct flat *f = long_machine();

	load(f, int_n_code);
	set_flags(f, FLAG_TF);
	assert_int_equal(run_to_handler(f), 0x50);
	assert_true(RFLAGS_PUSHED(f) & FLAG_TF);
	assert_int_equal(f->cpu->dr6, DR6_NONE);
	flat_free(f);
}

static void popf_steps_the_next_instruction(void **state)
{
	struct flat *f = long_machine();

	load(f, popf_code);
	f->cpu->gpr[RSP] -= 8;
	flat_poke(f, FLAT_STACK - 8, FLAG_TF | FLAG_FIXED, 8);
	assert_int_equal(run_to_handler(f), VEC_DB);
	assert_int_equal(RIP_PUSHED(f), CODE + 2);
	flat_free(f);
}

static void the_program_steps(void **state)
{
	struct flat *f = long_machine();

	load(f, nops_code);
	f->cpu->debug.enabled = f->cpu->debug.singlestep = true;
	cpu_update_attention(f->cpu);
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(flat_run(f, 100), CPU_EXIT_DEBUG);
		assert_int_equal(f->cpu->exit.pc, CODE + i);
		assert_int_equal(f->cpu->exit.exception, VEC_DB);
		assert_int_equal(f->cpu->exit.dr6, DR6_NONE | DR6_BS);
	}
	flat_free(f);
}

static void the_program_breaks(void **state)
{
	struct flat *f = long_machine();

	load(f, int3_code);
	f->cpu->debug.enabled = f->cpu->debug.use_sw_bp = true;
	assert_int_equal(flat_run(f, 100), CPU_EXIT_DEBUG);
	assert_int_equal(f->cpu->exit.exception, VEC_BP);
	assert_int_equal(f->cpu->exit.pc, CODE);
	load(f, nops_code);
	f->cpu->debug.use_hw_bp = true;
	f->cpu->debug.dr[1] = CODE + 2;
	f->cpu->debug.dr7 = DR7_FIXED_1 | BIT(3);
	cpu_update_attention(f->cpu);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_DEBUG);
	assert_int_equal(f->cpu->exit.pc, CODE + 2);
	assert_int_equal(f->cpu->exit.dr6, DR6_NONE | 2);
	assert_int_equal(f->cpu->dr6, DR6_NONE);
	flat_free(f);
}

/* As KVM's own debug_regs expects: general detect by the DR7 that the program set. */
static void the_program_detects_debug_register_accesses(void **state)
{
	struct flat *f = long_machine();

	load(f, mov_dr0_code);
	f->cpu->debug.enabled = f->cpu->debug.use_hw_bp = true;
	f->cpu->debug.dr7 = DR7_FIXED_1 | DR7_GD;
	cpu_update_attention(f->cpu);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_DEBUG);
	assert_int_equal(f->cpu->exit.pc, CODE);
	assert_int_equal(f->cpu->exit.dr6, DR6_NONE | DR6_BD);
	assert_int_equal(f->cpu->exit.exception, VEC_DB);
	flat_free(f);
}

static void the_program_watches_data(void **state)
{
	struct flat *f = long_machine();

	load(f, store_code);
	f->cpu->gpr[RBX] = FLAT_DATA;
	f->cpu->debug.enabled = f->cpu->debug.use_hw_bp = true;
	f->cpu->debug.dr[2] = FLAT_DATA;
	f->cpu->debug.dr7 = DR7_FIXED_1 | BIT(5) | 1ull << 24;
	cpu_update_attention(f->cpu);
	mmu_update_mode(f->cpu);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_DEBUG);
	assert_int_equal(f->cpu->exit.pc, CODE + 2);
	assert_int_equal(f->cpu->exit.dr6, DR6_NONE | 4);
	flat_free(f);
}

static void nmi_blocks_nmis_until_iret(void **state)
{
	struct flat *f = long_machine();

	load(f, nops_code);
	f->cpu->nmi_pending = true;
	cpu_update_attention(f->cpu);
	assert_int_equal(run_to_handler(f), VEC_NMI);
	assert_true(f->cpu->nmi_blocked);
	f->cpu->nmi_pending = true;
	cpu_update_attention(f->cpu);
	flat_write(f, FLAT_HANDLERS + 16 * VEC_NMI + 1, "\x48\xcf", 2);
	f->cpu->activity = ACTIVITY_RUN;
	/* IRET, then the second NMI before the interrupted NOP. */
	assert_int_equal(run_to_handler(f), VEC_NMI);
	assert_int_equal(RIP_PUSHED(f), CODE);
	flat_free(f);
}

static void traps_before_nmi_before_interrupts(void **state)
{
	struct flat *f = long_machine();

	load(f, nops_code);
	set_flags(f, FLAG_IF);
	f->cpu->pending_dr6 = DR6_BS;
	f->cpu->nmi_pending = true;
	pend_interrupt(f, 0x90);
	cpu_update_attention(f->cpu);
	/* #DB goes first, the NMI then interrupts its handler before the first instruction. */
	assert_int_equal(run_to_handler(f), VEC_NMI);
	assert_int_equal(RIP_PUSHED(f), FLAT_HANDLERS + 16 * VEC_DB);
	assert_int_equal(f->nr_acked, 0);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tf_is_not_delayed_by_sti),
		cmocka_unit_test(sti_holds_interrupts_for_one_instruction),
		cmocka_unit_test(second_sti_does_not_extend),
		cmocka_unit_test(second_mov_ss_does_not_extend),
		cmocka_unit_test(mov_ss_postpones_single_step),
		cmocka_unit_test(mov_ss_postpones_a_data_watch),
		cmocka_unit_test(mov_ss_int3_takes_the_watch_in_the_handler),
		cmocka_unit_test(icebp_after_mov_ss_leaves_dr6_empty),
		cmocka_unit_test(tf_with_hlt_traps_behind_it),
		cmocka_unit_test(hlt_wakes_for_an_interrupt),
		cmocka_unit_test(dr6_reports_all_matches_and_keeps_bs_and_bd),
		cmocka_unit_test(rf_passes_one_code_breakpoint),
		cmocka_unit_test(mov_ss_holds_back_a_code_breakpoint),
		cmocka_unit_test(iret_loads_rf_for_the_next_instruction),
		cmocka_unit_test(faults_push_rf_and_traps_do_not),
		cmocka_unit_test(data_watch_is_a_trap),
		cmocka_unit_test(single_step_stops_after_each_iteration),
		cmocka_unit_test(data_watch_stops_a_rep),
		cmocka_unit_test(port_watch_needs_cr4_de),
		cmocka_unit_test(general_detect),
		cmocka_unit_test(dr4_aliases_dr6_unless_de),
		cmocka_unit_test(dr4_checks_de_before_cpl),
		cmocka_unit_test(upper_half_of_dr7_is_reserved),
		cmocka_unit_test(int_n_takes_tf_away),
		cmocka_unit_test(popf_steps_the_next_instruction),
		cmocka_unit_test(the_program_steps),
		cmocka_unit_test(the_program_breaks),
		cmocka_unit_test(the_program_detects_debug_register_accesses),
		cmocka_unit_test(the_program_watches_data),
		cmocka_unit_test(nmi_blocks_nmis_until_iret),
		cmocka_unit_test(traps_before_nmi_before_interrupts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
