/* SPDX-License-Identifier: MIT */
/* Stack instructions: widths, PUSH SP and POP SP, flags images, ENTER against the manual's algorithm. */
#include "emul.h"

static void push_sp_is_old(void **state)
{
	struct flat *f = emul_machine(flat_long);

	emul_halts(f, "\x54"); /* push rsp */
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 8);
	assert_int_equal(flat_peek(f, FLAT_STACK - 8, 8), FLAT_STACK);
	flat_real(f);
	emul_halts(f, "\x54");
	assert_int_equal((uint16_t)f->cpu->gpr[RSP], 0xffee);
	assert_int_equal(flat_peek(f, 0x1ffee, 2), 0xfff0);
	flat_free(f);
}

static void pop_rsp_relative(void **state)
{
	struct flat *f = emul_machine(flat_long);

	/* push 7; push 9; pop [rsp+8]: the address uses RSP after the pop */
	emul_halts(f, "\x6a\x07\x6a\x09\x8f\x44\x24\x08");
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 8);
	assert_int_equal(flat_peek(f, FLAT_STACK, 8), 9);
	/* push 0x1234; pop rsp */
	f->cpu->gpr[RSP] = FLAT_STACK;
	emul_halts(f, "\x68\x34\x12\x00\x00\x5c");
	assert_int_equal(f->cpu->gpr[RSP], 0x1234);
	flat_free(f);
}

static void operand_sizes(void **state)
{
	struct flat *f = emul_machine(flat_long);

	/* push ax; push r9; push -1 */
	emul_pattern(f);
	emul_halts(f, "\x66\x50\x41\x51\x6a\xff");
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 18);
	assert_int_equal(flat_peek(f, FLAT_STACK - 2, 2), 0x1010);
	assert_int_equal(flat_peek(f, FLAT_STACK - 10, 8), 0x1919191919191919);
	assert_true(flat_peek(f, FLAT_STACK - 18, 8) == ~0ull);
	/* 16-bit pop keeps the rest of the register: pop bx */
	emul_halts(f, "\x66\x5b");
	assert_true(f->cpu->gpr[RBX] == 0x131313131313ffff);
	flat_prot32(f);
	emul_pattern(f);
	emul_halts(f, "\x50\x66\x51\x68\x01\x02\x03\x04");
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 10);
	assert_int_equal(flat_peek(f, FLAT_STACK - 10, 4), 0x04030201);
	flat_free(f);
}

static void segment_registers(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	/* push ds; pop es */
	emul_halts(f, "\x6a\xff\x58\x1e\x07");
	assert_int_equal(f->cpu->seg[SEG_ES].sel, FLAT_DS32);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK);
	assert_int_equal(flat_peek(f, FLAT_STACK - 4, 2), FLAT_DS32);
	/* pop fs of a selector beyond the GDT */
	emul_faults(f, VEC_GP, "\x68\xf0\x0f\x00\x00\x0f\xa1");
	flat_free(f);
}

static void pop_ss_shadows(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	emul_steps(f, 2, "\x16\x17\x90"); /* push ss; pop ss */
	assert_int_equal(f->cpu->shadow, SHADOW_MOV_SS);
	flat_free(f);
}

static void pusha_popa(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	emul_pattern(f);
	for (unsigned i = 0; i < 8; i++)
		if (i != RSP)
			f->cpu->gpr[i] = (uint32_t)f->cpu->gpr[i];
	emul_halts(f, "\x60");
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(flat_peek(f, FLAT_STACK - 4 - 4 * i, 4),
				 i == RSP ? FLAT_STACK : 0x01010101u * (i + 0x10));
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 32);
	for (unsigned i = 0; i < 8; i++)
		flat_poke(f, FLAT_STACK - 4 - 4 * i, 0x100 + i, 4);
	emul_halts(f, "\x61");
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(f->cpu->gpr[i], i == RSP ? FLAT_STACK : 0x100 + i);
	flat_free(f);
}

/* All eight or none: the page below is missing. */
static void pusha_faults_whole(void **state)
{
	struct flat *f = emul_machine(flat_paging32);

	flat_user(f);
	flat_map(f, 0x2f000, 0x2f000, 0, 0x1000);
	mmu_flush_all(f->cpu);
	f->cpu->gpr[RSP] = 0x30010;
	flat_poke(f, 0x3000c, 0x5555, 4);
	emul_faults(f, VEC_PF, "\x60");
	assert_int_equal(flat_peek(f, 0x3000c, 4), 0x5555);
	assert_int_equal(f->cpu->cr2, 0x2fffc);
	flat_free(f);
}

/* ---- PUSHF, POPF ---- */

static void set_flags(struct flat *f, uint64_t flags)
{
	cpu_set_rflags(f->cpu, flags);
}

static void popf_by_privilege(void **state)
{
	static const struct {
		unsigned cpl, iopl;
		uint64_t image, want;
	} rows[] = {
		/* CPL 0 changes all; VIF and VIP never */
		{0, 0, FLAG_IF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_VIF | FLAG_VIP,
		 FLAG_IF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_ID},
		/* CPL 3, IOPL 0: neither IF nor IOPL */
		{3, 0, FLAG_IF | FLAG_IOPL | FLAG_NT | FLAG_DF, FLAG_NT | FLAG_DF},
		/* CPL 3, IOPL 3: IF, not IOPL */
		{3, 3, FLAG_IF | FLAG_CF, FLAG_IF | FLAG_IOPL | FLAG_CF},
		{3, 3, 0, FLAG_IOPL},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct flat *f = emul_machine(flat_prot32);

		if (rows[i].cpl)
			flat_user(f);
		set_flags(f, (uint64_t)rows[i].iopl << 12);
		f->cpu->gpr[RAX] = rows[i].image;
		emul_steps(f, 2, "\x50\x9d"); /* push eax; popf */
		assert_int_equal(emul_flags(f), rows[i].want | FLAG_FIXED);
		flat_free(f);
	}
}

static void popf_16_keeps_upper(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	set_flags(f, FLAG_AC | FLAG_ID);
	f->cpu->gpr[RAX] = FLAG_ZF;
	emul_steps(f, 2, "\x66\x50\x66\x9d");
	assert_int_equal(emul_flags(f), FLAG_AC | FLAG_ID | FLAG_ZF | FLAG_FIXED);
	flat_free(f);
}

static void pushf_image(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	set_flags(f, FLAG_CF | FLAG_OF | FLAG_RF | FLAG_ID);
	emul_steps(f, 1, "\x9c");
	assert_int_equal(flat_peek(f, FLAT_STACK - 4, 4), FLAG_CF | FLAG_OF | FLAG_ID | FLAG_FIXED);
	flat_free(f);
}

static void enter_v86(struct flat *f, unsigned iopl)
{
	flat_prot32(f);
	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		f->cpu->seg[i] = (struct segment){.limit = 0xffff,
						  .attr = SEG_P | 3 << SEG_DPL_SHIFT | SEG_S |
							  SEG_W | SEG_A};
	f->cpu->gpr[RSP] = 0xfff0;
	set_flags(f, FLAG_VM | (uint64_t)iopl << 12);
	mmu_update_mode(f->cpu);
}

static void v86_pushf(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	enter_v86(f, 3);
	emul_steps(f, 1, "\x9c");
	assert_int_equal(flat_peek(f, 0xffee, 2), FLAG_IOPL | FLAG_FIXED);
	enter_v86(f, 0);
	emul_faults(f, VEC_GP, "\x9c");
	enter_v86(f, 0);
	emul_faults(f, VEC_GP, "\x9d");
	/* VME: VIF stands for IF, and IOPL reads as 3 */
	enter_v86(f, 0);
	f->cpu->cr4 |= CR4_VME;
	f->cpu->sflags |= FLAG_VIF;
	emul_steps(f, 1, "\x9c");
	assert_int_equal(flat_peek(f, 0xffee, 2), FLAG_IOPL | FLAG_IF | FLAG_FIXED);
	/* but not with a 32-bit operand */
	enter_v86(f, 0);
	f->cpu->cr4 |= CR4_VME;
	emul_faults(f, VEC_GP, "\x66\x9c");
	flat_free(f);
}

static void v86_popf_vme(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	enter_v86(f, 0);
	f->cpu->cr4 |= CR4_VME;
	f->cpu->gpr[RAX] = FLAG_IF | FLAG_CF;
	emul_steps(f, 2, "\x50\x9d");
	assert_int_equal(emul_flags(f), FLAG_VM | FLAG_VIF | FLAG_CF | FLAG_FIXED);
	/* a pending virtual interrupt is the monitor's */
	enter_v86(f, 0);
	f->cpu->cr4 |= CR4_VME;
	f->cpu->sflags |= FLAG_VIP;
	f->cpu->gpr[RAX] = FLAG_IF;
	emul_faults(f, VEC_GP, "\x50\x9d");
	flat_free(f);
}

/* ---- CLI, STI ---- */

static void cli_sti(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	emul_steps(f, 1, "\xfb\x90");
	assert_true(f->cpu->sflags & FLAG_IF);
	assert_int_equal(f->cpu->shadow, SHADOW_STI);
	flat_prot32(f);
	set_flags(f, FLAG_IF);
	emul_steps(f, 1, "\xfb\x90");
	assert_int_equal(f->cpu->shadow, 0);
	emul_steps(f, 1, "\xfa");
	assert_false(f->cpu->sflags & FLAG_IF);
	flat_user(f);
	emul_faults(f, VEC_GP, "\xfa");
	flat_prot32(f);
	flat_user(f);
	f->cpu->cr4 |= CR4_PVI;
	emul_steps(f, 1, "\xfb");
	assert_true(f->cpu->sflags & FLAG_VIF);
	assert_false(f->cpu->sflags & FLAG_IF);
	flat_free(f);
}

/* ---- ENTER, LEAVE ---- */

static void enter_nested(void **state)
{
	struct flat *f = emul_machine(flat_long);
	uint64_t bp = FLAT_DATA + 0x100, sp = FLAT_STACK;

	flat_poke(f, bp - 8, 0x1111, 8);
	flat_poke(f, bp - 16, 0x2222, 8);
	f->cpu->gpr[RBP] = bp;
	emul_halts(f, "\xc8\x20\x00\x03"); /* enter 32, 3 */
	assert_int_equal(flat_peek(f, sp - 8, 8), bp);
	assert_int_equal(flat_peek(f, sp - 16, 8), 0x1111);
	assert_int_equal(flat_peek(f, sp - 24, 8), 0x2222);
	assert_int_equal(flat_peek(f, sp - 32, 8), sp - 8);
	assert_int_equal(f->cpu->gpr[RBP], sp - 8);
	assert_int_equal(f->cpu->gpr[RSP], sp - 32 - 32);
	emul_halts(f, "\xc9");
	assert_int_equal(f->cpu->gpr[RBP], bp);
	assert_int_equal(f->cpu->gpr[RSP], sp);
	flat_free(f);
}

/* The frame pointer is as wide as the operand: measured on processors. */
static void enter_16_in_64(void **state)
{
	struct flat *f = emul_machine(flat_long);

	f->cpu->gpr[RBP] = 0x1122334455667788;
	emul_halts(f, "\x66\xc8\x08\x00\x00");
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 10);
	assert_true(f->cpu->gpr[RBP] == (0x1122334455660000ull | (uint16_t)(FLAT_STACK - 2)));
	assert_int_equal(flat_peek(f, FLAT_STACK - 2, 2), 0x7788);
	flat_free(f);
}

/* The write at the final stack pointer is checked although nothing is stored there. */
static void enter_checks_final(void **state)
{
	struct flat *f = emul_machine(flat_long);

	flat_map(f, 0x18000, 0x18000, 0, 0x1000);
	mmu_flush_all(f->cpu);
	flat_poke(f, FLAT_STACK - 8, 0x77, 8);
	f->cpu->gpr[RBP] = 0x55;
	EMUL_CODE(f, "\xc8\xf0\x77\x00");
	flat_run(f, 10);
	assert_int_equal(flat_handler(f), VEC_PF);
	assert_int_equal(f->cpu->cr2, FLAT_STACK - 8 - 0x77f0);
	assert_int_equal(f->cpu->gpr[RBP], 0x55);
	flat_free(f);
}

/* ---- near transfers ---- */

static void call_ret(void **state)
{
	struct flat *f = emul_machine(flat_long);

	/* call +1; hlt; mov eax,5; ret 16 */
	EMUL_CODE(f, "\xe8\x01\x00\x00\x00\xf4\xb8\x05\x00\x00\x00\xc2\x10\x00");
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_CODE + 6);
	assert_int_equal(f->cpu->gpr[RAX], 5);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK + 16);
	/* call of a non-canonical address pushes nothing */
	flat_long(f);
	f->cpu->gpr[RAX] = BIT(60);
	flat_poke(f, FLAT_STACK - 8, 0x99, 8);
	EMUL_CODE(f, "\xff\xd0");
	flat_run(f, 10);
	assert_int_equal(flat_handler(f), VEC_GP);
	flat_free(f);
}

static void jump_beyond_limit(void **state)
{
	struct flat *f = emul_machine(flat_prot16);

	emul_faults(f, VEC_GP, "\x66\xe9\x00\x00\x01\x00"); /* jmp +0x10000 */
	/* a 16-bit operand wraps: jmp -0x8010 from near the start */
	flat_prot16(f);
	flat_poke(f, 0xfff3, 0xf4, 1);
	EMUL_CODE(f, "\xe9\xf0\x7f");
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, 0xfff4);
	flat_free(f);
}

static void loops(void **state)
{
	struct flat *f = emul_machine(flat_long);

	/* mov ecx,5; 1: inc eax; loop 1b */
	emul_halts(f, "\xb9\x05\x00\x00\x00\xff\xc0\xe2\xfc");
	assert_int_equal(f->cpu->gpr[RAX], 5);
	assert_int_equal(f->cpu->gpr[RCX], 0);
	/* with ECX: 67 loop clears the upper half; jrcxz is not taken */
	f->cpu->gpr[RCX] = 0xffffffff00000001;
	emul_halts(f, "\x67\xe2\x00");
	assert_int_equal(f->cpu->gpr[RCX], 0);
	/* loopne ends on ZF: 1: dec eax; loopne 1b */
	f->cpu->gpr[RCX] = 100;
	f->cpu->gpr[RAX] = 3;
	emul_halts(f, "\xff\xc8\xe0\xfc");
	assert_int_equal(f->cpu->gpr[RCX], 97);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(push_sp_is_old),
		cmocka_unit_test(pop_rsp_relative),
		cmocka_unit_test(operand_sizes),
		cmocka_unit_test(segment_registers),
		cmocka_unit_test(pop_ss_shadows),
		cmocka_unit_test(pusha_popa),
		cmocka_unit_test(pusha_faults_whole),
		cmocka_unit_test(popf_by_privilege),
		cmocka_unit_test(popf_16_keeps_upper),
		cmocka_unit_test(pushf_image),
		cmocka_unit_test(v86_pushf),
		cmocka_unit_test(v86_popf_vme),
		cmocka_unit_test(cli_sti),
		cmocka_unit_test(enter_nested),
		cmocka_unit_test(enter_16_in_64),
		cmocka_unit_test(enter_checks_final),
		cmocka_unit_test(call_ret),
		cmocka_unit_test(jump_beyond_limit),
		cmocka_unit_test(loops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
