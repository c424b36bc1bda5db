/* SPDX-License-Identifier: MIT */
/* String instructions: all sizes, directions and repetitions, runs across pages, faults midway, ports. */
#include "emul.h"

#include <stdlib.h>

#define SRC FLAT_DATA
#define DST (FLAT_DATA + 0x10000)

static struct flat *with_pattern(emul_mode_fn *mode)
{
	struct flat *f = emul_machine(mode);

	for (unsigned i = 0; i < 0x4000; i++)
		f->ram[SRC + i] = i * 7 + (i >> 8);
	f->cpu->gpr[RSI] = SRC;
	f->cpu->gpr[RDI] = DST;
	return f;
}

static void rep_movs_sizes(void **state)
{
	static const char *const code[] = {"\xf3\xa4\xf4", "\xf3\x66\xa5\xf4", "\xf3\xa5\xf4",
					   "\xf3\x48\xa5\xf4"};

	for (unsigned i = 0; i < 4; i++) {
		struct flat *f = with_pattern(flat_long);
		unsigned size = 1 << i, n = 0x2345;

		f->cpu->gpr[RSI] += 3;
		f->cpu->gpr[RDI] += 0xffe;
		f->cpu->gpr[RCX] = n >> i;
		flat_code(f, code[i], strlen(code[i]));
		assert_int_equal(flat_run(f, 2), CPU_EXIT_HLT);
		assert_memory_equal(f->ram + DST + 0xffe, f->ram + SRC + 3, (n >> i) * size);
		assert_int_equal(f->ram[DST + 0xffe + (n >> i) * size], 0);
		assert_int_equal(f->cpu->gpr[RCX], 0);
		assert_int_equal(f->cpu->gpr[RSI], SRC + 3 + (n >> i) * size);
		assert_int_equal(f->cpu->gpr[RDI], DST + 0xffe + (n >> i) * size);
		assert_false(f->cpu->sflags & FLAG_RF);
		flat_free(f);
	}
}

/* A destination one byte above the source spreads the first byte; element by element, not as memmove(). */
static void rep_movs_overlap(void **state)
{
	struct flat *f = with_pattern(flat_long);
	uint8_t want[64], *host = want;

	memcpy(want, f->ram + SRC, sizeof(want));
	for (unsigned i = 0; i < 40; i += 4)
		memmove(host + i + 2, host + i, 4);
	f->cpu->gpr[RDI] = SRC + 2;
	f->cpu->gpr[RCX] = 10;
	emul_halts(f, "\xf3\xa5");
	assert_memory_equal(f->ram + SRC, want, sizeof(want));
	f->cpu->gpr[RSI] = SRC;
	f->cpu->gpr[RDI] = SRC + 1;
	f->cpu->gpr[RCX] = 0x1800;
	emul_halts(f, "\xf3\xa4");
	for (unsigned i = 0; i < 0x1800; i++)
		assert_int_equal(f->ram[SRC + i], want[0]);
	flat_free(f);
}

static void backwards(void **state)
{
	struct flat *f = with_pattern(flat_long);

	f->cpu->gpr[RSI] = SRC + 0x1004;
	f->cpu->gpr[RDI] = DST + 0x1004;
	f->cpu->gpr[RCX] = 8;
	emul_halts(f, "\xfd\xf3\xa5\xfc"); /* std; rep movsd; cld */
	assert_memory_equal(f->ram + DST + 0x1004 - 28, f->ram + SRC + 0x1004 - 28, 32);
	assert_int_equal(f->cpu->gpr[RSI], SRC + 0x1004 - 32);
	flat_free(f);
}

/* The third page is missing: registers show how far it came. */
static void fault_midway(void **state)
{
	struct flat *f = with_pattern(flat_long);

	flat_map(f, DST + 0x2000, 0, 0, 0x1000);
	mmu_flush_all(f->cpu);
	f->cpu->gpr[RDI] = DST + 0x0ffc;
	f->cpu->gpr[RCX] = 0x1800;
	emul_faults(f, VEC_PF, "\xf3\xa4\xf4");
	assert_int_equal(f->cpu->cr2, DST + 0x2000);
	assert_int_equal(f->cpu->gpr[RCX], 0x1800 - 0x1004);
	assert_int_equal(f->cpu->gpr[RSI], SRC + 0x1004);
	assert_int_equal(f->cpu->gpr[RDI], DST + 0x2000);
	assert_memory_equal(f->ram + DST + 0xffc, f->ram + SRC, 0x1004);
	/* the pushed image has RF, and RIP is on the instruction */
	assert_int_equal(flat_peek(f, f->cpu->gpr[RSP] + 8, 8), FLAT_CODE);
	assert_true(flat_peek(f, f->cpu->gpr[RSP] + 24, 8) & FLAG_RF);
	flat_free(f);
}

/* Down over pages, in all sizes and out of step with them: as element by element on the host. */
static void backwards_pages(void **state)
{
	static const char *const code[] = {"\xfd\xf3\xa4\xf4", "\xfd\xf3\x66\xa5\xf4",
					   "\xfd\xf3\xa5\xf4", "\xfd\xf3\x48\xa5\xf4"};

	for (unsigned i = 0; i < 4; i++) {
		struct flat *f = with_pattern(flat_long);
		unsigned size = 1 << i, n = 0x2345 >> i;
		uint64_t src = SRC + 0x2803, dst = SRC + 0x2a05;
		uint8_t *want = malloc(0x6000);

		memcpy(want, f->ram + SRC, 0x6000);
		for (unsigned k = 0; k < n; k++)
			memmove(want + (dst - SRC) - k * size, want + (src - SRC) - k * size, size);
		f->cpu->gpr[RSI] = src;
		f->cpu->gpr[RDI] = dst;
		f->cpu->gpr[RCX] = n;
		flat_code(f, code[i], strlen(code[i]));
		assert_int_equal(flat_run(f, 3), CPU_EXIT_HLT);
		assert_memory_equal(f->ram + SRC, want, 0x6000);
		assert_int_equal(f->cpu->gpr[RSI], src - n * size);
		assert_int_equal(f->cpu->gpr[RDI], dst - n * size);
		assert_int_equal(f->cpu->gpr[RCX], 0);
		assert_false(f->cpu->sflags & FLAG_RF);
		free(want);
		flat_free(f);
	}
}

static void backwards_fault(void **state)
{
	struct flat *f = with_pattern(flat_long);

	flat_map(f, DST, 0, 0, 0x1000);
	mmu_flush_all(f->cpu);
	f->cpu->gpr[RSI] = SRC + 0x3000;
	f->cpu->gpr[RDI] = DST + 0x2ffe;
	f->cpu->gpr[RCX] = 0x3000;
	emul_faults(f, VEC_PF, "\xfd\xf3\xa4\xf4");
	assert_int_equal(f->cpu->cr2, DST + 0xfff);
	assert_int_equal(f->cpu->gpr[RCX], 0x3000 - 0x1fff);
	assert_int_equal(f->cpu->gpr[RSI], SRC + 0x1001);
	assert_int_equal(f->cpu->gpr[RDI], DST + 0xfff);
	assert_memory_equal(f->ram + DST + 0x1000, f->ram + SRC + 0x1002, 0x1fff);
	assert_true(flat_peek(f, f->cpu->gpr[RSP] + 24, 8) & FLAG_RF);
	flat_free(f);
}

static void backwards_compares(void **state)
{
	struct flat *f = with_pattern(flat_long);

	for (unsigned i = 0; i < 0x3000; i++)
		f->ram[DST + i] = f->ram[SRC + i];
	f->ram[DST + 0x321] ^= 1;
	f->cpu->gpr[RSI] = SRC + 0x2ff0;
	f->cpu->gpr[RDI] = DST + 0x2ff0;
	f->cpu->gpr[RCX] = 0x2ff1;
	emul_halts(f, "\xfd\xf3\xa6\xfc"); /* repe cmpsb */
	assert_int_equal(f->cpu->gpr[RCX], 0x321);
	assert_int_equal(f->cpu->gpr[RDI], DST + 0x320);
	assert_false(cpu_rflags(f->cpu) & FLAG_ZF);
	flat_free(f);
}

/* An element that crosses into a missing page is not written in part. */
static void fault_across(void **state)
{
	struct flat *f = with_pattern(flat_long);

	flat_map(f, DST + 0x1000, 0, 0, 0x1000);
	mmu_flush_all(f->cpu);
	f->cpu->gpr[RDI] = DST + 0xff4;
	f->cpu->gpr[RCX] = 4;
	emul_faults(f, VEC_PF, "\xf3\x48\xa5\xf4");
	assert_int_equal(f->cpu->gpr[RCX], 3);
	assert_int_equal(f->cpu->gpr[RDI], DST + 0xffc);
	assert_int_equal(flat_peek(f, DST + 0xffc, 4), 0);
	flat_free(f);
}

static void stos_lods(void **state)
{
	struct flat *f = with_pattern(flat_long);

	f->cpu->gpr[RAX] = 0x1122334455667788;
	f->cpu->gpr[RCX] = 0x700;
	emul_halts(f, "\xf3\x48\xab");
	for (unsigned i = 0; i < 0x700; i++)
		assert_true(flat_peek(f, DST + 8 * i, 8) == 0x1122334455667788);
	assert_int_equal(flat_peek(f, DST + 8 * 0x700, 8), 0);
	/* rep lodsw: the last element stays, the upper part is kept */
	f->cpu->gpr[RCX] = 3;
	emul_halts(f, "\xf3\x66\xad");
	assert_true(f->cpu->gpr[RAX] == (0x1122334455660000 | flat_peek(f, SRC + 4, 2)));
	/* lodsd zero-extends, from FS */
	f->cpu->seg[SEG_FS].base = 0x100;
	f->cpu->gpr[RSI] = SRC;
	emul_halts(f, "\x64\xad");
	assert_int_equal(f->cpu->gpr[RAX], flat_peek(f, SRC + 0x100, 4));
	flat_free(f);
}

/* Against the host: what CMPS and SCAS leave, over a page's end. */
static void compares(void **state)
{
	struct flat *f = with_pattern(flat_long);
	uint64_t flags, n = 0x1700;
	const uint8_t *si = f->ram + SRC, *di = f->ram + DST;

	memcpy(f->ram + DST, f->ram + SRC, 0x4000);
	f->ram[DST + 0x1500] ^= 0x81;
	asm volatile("repe cmpsb; pushf; pop %0" : "=r"(flags), "+S"(si), "+D"(di), "+c"(n)::"cc");
	f->cpu->gpr[RCX] = 0x1700;
	emul_halts(f, "\xf3\xa6");
	assert_int_equal(f->cpu->gpr[RCX], n);
	assert_int_equal(f->cpu->gpr[RSI], SRC + (si - (f->ram + SRC)));
	assert_int_equal(f->cpu->gpr[RDI], DST + (di - (f->ram + DST)));
	assert_int_equal(emul_flags(f) & FLAGS_ARITH, flags & FLAGS_ARITH);
	flat_free(f);
}

static void scans(void **state)
{
	struct flat *f = with_pattern(flat_long);

	memset(f->ram + DST, 'x', 0x3000);
	f->ram[DST + 0x1234] = 0;
	f->cpu->gpr[RCX] = ~0ull;
	emul_halts(f, "\xf2\xae"); /* strlen */
	assert_int_equal(f->cpu->gpr[RDI], DST + 0x1235);
	assert_true(f->cpu->gpr[RCX] == ~0ull - 0x1235);
	assert_true(emul_flags(f) & FLAG_ZF);
	/* nothing found: ZF clear, count 0 */
	f->cpu->gpr[RDI] = DST + 0x1800;
	f->cpu->gpr[RCX] = 5;
	emul_halts(f, "\xf2\xae");
	assert_int_equal(f->cpu->gpr[RCX], 0);
	assert_false(emul_flags(f) & FLAG_ZF);
	flat_free(f);
}

static void count_of_zero(void **state)
{
	struct flat *f = with_pattern(flat_long);

	f->cpu->gpr[RDI] = BIT(60); /* never looked at */
	emul_steps(f, 1, "\xf3\xa4");
	assert_int_equal(f->cpu->rip, FLAT_CODE + 2);
	assert_true(f->cpu->gpr[RDI] == BIT(60));
	flat_free(f);
}

/* 16-bit addresses wrap inside the segment, and the upper halves stay. */
static void address_wrap(void **state)
{
	struct flat *f = emul_machine(flat_real);

	f->cpu->gpr[RSI] = 0xaaaa0000 | 0xfffe;
	f->cpu->gpr[RDI] = 0xbbbb0100;
	f->cpu->gpr[RCX] = 0xcccc0004;
	f->cpu->seg[SEG_DS].base = 0x50000;
	f->cpu->seg[SEG_ES].base = 0x70000;
	flat_poke(f, 0x5fffe, 0x2211, 2);
	flat_poke(f, 0x50000, 0x4433, 2);
	emul_halts(f, "\xf3\xa4");
	assert_int_equal(flat_peek(f, 0x70100, 4), 0x44332211);
	assert_int_equal(f->cpu->gpr[RSI], 0xaaaa0002);
	assert_int_equal(f->cpu->gpr[RDI], 0xbbbb0104);
	assert_int_equal(f->cpu->gpr[RCX], 0xcccc0000);
	flat_free(f);
}

/* An interrupt is taken between iterations, with RIP on the instruction. */
static void interrupted(void **state)
{
	struct flat *f = with_pattern(flat_long);

	f->cpu->sflags |= FLAG_IF;
	f->cpu->gpr[RCX] = 100;
	f->cpu->gpr[RDI] = FLAT_MMIO; /* one at a time */
	f->interrupt = 0x55;
	EMUL_CODE(f, "\xf3\xa4\xf4");
	flat_run_once(f, 10); /* the first write leaves */
	flat_answer(f);
	cpu_raise(f->cpu, ATTN_EVENTS);
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), 0x55);
	assert_in_range(f->cpu->gpr[RCX], 90, 100);
	assert_int_equal(flat_peek(f, f->cpu->gpr[RSP], 8), FLAT_CODE);
	assert_int_equal(f->cpu->gpr[RSI], SRC + 100 - f->cpu->gpr[RCX]);
	flat_free(f);
}

/* Single-step stops after each iteration. */
static void stepped(void **state)
{
	struct flat *f = with_pattern(flat_long);

	f->cpu->gpr[RCX] = 100;
	cpu_set_rflags(f->cpu, FLAG_TF);
	emul_faults(f, VEC_DB, "\xf3\xa4\xf4");
	assert_int_equal(f->cpu->gpr[RCX], 99);
	assert_int_equal(flat_peek(f, f->cpu->gpr[RSP], 8), FLAT_CODE);
	flat_free(f);
}

/* So does the program's, by leaving. */
static void stepped_by_program(void **state)
{
	struct flat *f = with_pattern(flat_long);

	f->cpu->gpr[RCX] = 100;
	f->cpu->debug.enabled = f->cpu->debug.singlestep = true;
	cpu_update_attention(f->cpu);
	EMUL_CODE(f, "\xf3\xa4\xf4");
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(flat_run_once(f, 10), CPU_EXIT_DEBUG);
		assert_int_equal(f->cpu->gpr[RCX], 100 - i);
		assert_int_equal(f->cpu->rip, FLAT_CODE);
	}
	flat_free(f);
}

static uint64_t count_up(struct flat *f, uint16_t port, unsigned size)
{
	return f->nr_events * 0x11111111u;
}

static void ports(void **state)
{
	for (unsigned user = 0; user < 2; user++) {
		struct flat *f = with_pattern(flat_long);

		f->ports_exit = user;
		f->port_in = count_up;
		f->cpu->gpr[RDX] = 0x1f0;
		f->cpu->gpr[RCX] = 3;
		emul_halts(f, "\xf3\x6d"); /* rep insd */
		assert_int_equal(f->nr_events, 3);
		assert_int_equal(flat_peek(f, DST, 8), 0x1111111100000000);
		assert_int_equal(flat_peek(f, DST + 8, 8), 0x22222222);
		f->cpu->gpr[RCX] = 2;
		f->nr_events = 0;
		emul_halts(f, "\xf3\x66\x6f"); /* rep outsw */
		assert_int_equal(f->nr_events, 2);
		assert_int_equal(f->events[1].data, flat_peek(f, SRC + 2, 2));
		assert_int_equal(f->events[1].addr, 0x1f0);
		flat_free(f);
	}
}

/* INS looks at the destination before it reads the port. */
static void ins_faults_first(void **state)
{
	struct flat *f = with_pattern(flat_long);

	flat_map(f, DST, 0, 0, 0x1000);
	mmu_flush_all(f->cpu);
	emul_faults(f, VEC_PF, "\x6c\xf4");
	assert_int_equal(f->nr_events, 0);
	/* CPL 3 without IOPL: the TSS refuses */
	flat_long(f);
	flat_user(f);
	emul_faults(f, VEC_GP, "\x6c\xf4");
	assert_int_equal(f->nr_events, 0);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rep_movs_sizes),     cmocka_unit_test(rep_movs_overlap),
		cmocka_unit_test(backwards),	      cmocka_unit_test(fault_midway),
		cmocka_unit_test(fault_across),	      cmocka_unit_test(stos_lods),
		cmocka_unit_test(compares),	      cmocka_unit_test(scans),
		cmocka_unit_test(count_of_zero),      cmocka_unit_test(address_wrap),
		cmocka_unit_test(interrupted),	      cmocka_unit_test(stepped),
		cmocka_unit_test(stepped_by_program), cmocka_unit_test(ports),
		cmocka_unit_test(ins_faults_first),   cmocka_unit_test(backwards_pages),
		cmocka_unit_test(backwards_fault),    cmocka_unit_test(backwards_compares),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
