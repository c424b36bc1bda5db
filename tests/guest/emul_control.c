/* SPDX-License-Identifier: MIT */
/* Control transfers: conditions against the host's SETcc, far transfers in each mode, limits. */
#include "emul.h"

#define ARITH_BITS 6

static const uint64_t arith[ARITH_BITS] = {FLAG_CF, FLAG_PF, FLAG_AF, FLAG_ZF, FLAG_SF, FLAG_OF};

static uint64_t flags_of(unsigned bits)
{
	uint64_t flags = FLAG_FIXED;

	for (unsigned i = 0; i < ARITH_BITS; i++)
		flags |= bits >> i & 1 ? arith[i] : 0;
	return flags;
}

#define HOST_SETCC(cc) \
	asm volatile("push %1; popf; set" cc " %0" : "=q"(ret[n++]) : "r"(flags) : "cc")

static void host_conditions(uint64_t flags, uint8_t ret[16])
{
	unsigned n = 0;

	HOST_SETCC("o");
	HOST_SETCC("no");
	HOST_SETCC("b");
	HOST_SETCC("nb");
	HOST_SETCC("z");
	HOST_SETCC("nz");
	HOST_SETCC("be");
	HOST_SETCC("nbe");
	HOST_SETCC("s");
	HOST_SETCC("ns");
	HOST_SETCC("p");
	HOST_SETCC("np");
	HOST_SETCC("l");
	HOST_SETCC("nl");
	HOST_SETCC("le");
	HOST_SETCC("nle");
}

static void conditions(void **state)
{
	struct flat *f = emul_machine(flat_long);

	for (unsigned bits = 0; bits < 1 << ARITH_BITS; bits++) {
		uint8_t want[16];

		host_conditions(flags_of(bits), want);
		for (unsigned cc = 0; cc < 16; cc++) {
			uint8_t near[] = {0x70 | cc, 0x10, 0x0f, 0x80 | cc, 0x20, 0, 0, 0};

			cpu_set_rflags(f->cpu, flags_of(bits));
			flat_code(f, near, sizeof(near));
			flat_run(f, 1);
			assert_int_equal(f->cpu->rip, FLAT_CODE + (want[cc] ? 0x12 : 2));
			f->cpu->rip = FLAT_CODE + 2;
			flat_run(f, 1);
			assert_int_equal(f->cpu->rip, FLAT_CODE + (want[cc] ? 0x28 : 8));
		}
	}
	flat_free(f);
}

static void indirect(void **state)
{
	struct flat *f = emul_machine(flat_long);

	/* call [rsp-8] uses RSP before the push */
	flat_poke(f, FLAT_STACK - 8, FLAT_CODE + 0x100, 8);
	flat_poke(f, FLAT_CODE + 0x100, 0xf4, 1);
	EMUL_CODE(f, "\xff\x54\x24\xf8");
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_CODE + 0x101);
	assert_int_equal(flat_peek(f, FLAT_STACK - 8, 8), FLAT_CODE + 4);
	flat_free(f);
}

static void real_far(void **state)
{
	struct flat *f = emul_machine(flat_real);

	/* call 0100:7010; there: retf 4 */
	flat_write(f, 0x8010, "\xca\x04\x00", 3);
	emul_halts(f, "\x9a\x10\x70\x00\x01");
	assert_int_equal((uint16_t)f->cpu->gpr[RSP], 0xfff4);
	assert_int_equal(f->cpu->seg[SEG_CS].sel, 0);
	/* jmp far [bx] to 0700:1100 */
	flat_poke(f, 0x9000, 0x07001100, 4);
	flat_poke(f, 0x8100, 0xf4, 1);
	f->cpu->gpr[RBX] = 0x9000;
	EMUL_CODE(f, "\xff\x2f");
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, 0x1101);
	assert_int_equal(f->cpu->seg[SEG_CS].sel, 0x0700);
	assert_int_equal(f->cpu->seg[SEG_CS].base, 0x7000);
	flat_free(f);
}

static void real_interrupt(void **state)
{
	struct flat *f = emul_machine(flat_real);

	/* int 0x21, whose handler is iret: flags come back */
	flat_poke(f, 0x9000, 0xcf, 1);
	flat_gate(f, 0x21, 0x9000, 0);
	cpu_set_rflags(f->cpu, FLAG_IF | FLAG_CF);
	emul_halts(f, "\xcd\x21");
	assert_int_equal(emul_flags(f), FLAG_IF | FLAG_CF | FLAG_FIXED);
	assert_int_equal((uint16_t)f->cpu->gpr[RSP], 0xfff0);
	flat_free(f);
}

/* 64-bit code jumps to compatibility mode and back. */
static void long_far(void **state)
{
	struct flat *f = emul_machine(flat_long);

	flat_poke(f, FLAT_DATA, FLAT_CODE + 0x100, 4);
	flat_poke(f, FLAT_DATA + 4, FLAT_CS32, 2);
	f->cpu->gpr[RBX] = FLAT_DATA;
	/* at 8100h, 32-bit: inc eax; jmp FLAT_CS64:8200h; at 8200h: hlt */
	flat_write(f, FLAT_CODE + 0x100, "\x40\xea\x00\x82\x00\x00\x20\x00", 8);
	flat_poke(f, FLAT_CODE + 0x200, 0xf4, 1);
	EMUL_CODE(f, "\xff\x2b");
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], 1);
	assert_int_equal(f->cpu->rip, FLAT_CODE + 0x201);
	assert_int_equal(f->cpu->mode.code, CODE_64);
	/* a data selector: #GP(selector), at the old place */
	flat_poke(f, FLAT_DATA + 4, FLAT_DS32, 2);
	emul_faults(f, VEC_GP, "\xff\x2b");
	assert_int_equal(flat_peek(f, f->cpu->gpr[RSP], 8), FLAT_DS32);
	flat_free(f);
}

/* push ss..cs rip; iretq to CPL 3, and a non-canonical target refused at CPL 0. */
static void long_iret(void **state)
{
	struct flat *f = emul_machine(flat_long);
	uint64_t frame[] = {FLAT_CODE + 0x100, FLAT_CS64_USER, FLAG_IF, FLAT_USER_STACK,
			    FLAT_DS_USER};

	f->cpu->gpr[RSP] = FLAT_STACK - sizeof(frame);
	flat_write(f, FLAT_STACK - sizeof(frame), frame, sizeof(frame));
	emul_steps(f, 1, "\x48\xcf");
	assert_int_equal(f->cpu->rip, FLAT_CODE + 0x100);
	assert_int_equal(f->cpu->mode.cpl, 3);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_USER_STACK);
	assert_true(f->cpu->sflags & FLAG_IF);
	flat_free(f);
}

static void jcxz_widths(void **state)
{
	struct flat *f = emul_machine(flat_long);

	f->cpu->gpr[RCX] = BIT(32);
	emul_steps(f, 1, "\xe3\x10"); /* jrcxz */
	assert_int_equal(f->cpu->rip, FLAT_CODE + 2);
	emul_steps(f, 1, "\x67\xe3\x10"); /* jecxz */
	assert_int_equal(f->cpu->rip, FLAT_CODE + 0x13);
	flat_prot32(f);
	f->cpu->gpr[RCX] = BIT(16);
	emul_steps(f, 1, "\x67\xe3\x10"); /* jcxz */
	assert_int_equal(f->cpu->rip, FLAT_CODE + 0x13);
	/* a 16-bit operand wraps the target of 32-bit code */
	f->cpu->gpr[RCX] = 0;
	flat_write(f, 0x18000, "\x66\xeb\x10", 3);
	f->cpu->rip = 0x18000;
	flat_run(f, 1);
	assert_int_equal(f->cpu->rip, 0x8013);
	flat_free(f);
}

/* RET to beyond the limit leaves RSP where it was. */
static void ret_faults_whole(void **state)
{
	struct flat *f = emul_machine(flat_long);

	flat_user(f);
	flat_poke(f, FLAT_USER_STACK - 8, BIT(63), 8);
	f->cpu->gpr[RSP] = FLAT_USER_STACK - 8;
	emul_faults(f, VEC_GP, "\xc3");
	assert_int_equal(flat_peek(f, f->cpu->gpr[RSP] + 32, 8), FLAT_USER_STACK - 8);
	assert_int_equal(flat_peek(f, f->cpu->gpr[RSP] + 8, 8), FLAT_CODE);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(conditions),  cmocka_unit_test(indirect),
		cmocka_unit_test(real_far),    cmocka_unit_test(real_interrupt),
		cmocka_unit_test(long_far),    cmocka_unit_test(long_iret),
		cmocka_unit_test(jcxz_widths), cmocka_unit_test(ret_faults_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
