/* SPDX-License-Identifier: MIT */
/* Decimal adjustment against the host CPU in 32-bit mode: all of AX (AL for DAA), AF and CF, all flags out. */
#include "emul.h"
#include "native32.h"
#include "silicon/exec/insn.h"

#define ARITH 0x8d5

/* The handler alone, without the machine: 65536 values times flags. */
static void compare(const char *bytes, unsigned len, insn_fn *fn, int64_t imm)
{
	static struct cpu cpu;
	struct insn insn = {.len = len, .imm = imm};

	cpu.mode.code = CODE_32;
	for (uint32_t ax = 0; ax < 0x10000; ax++)
		for (unsigned in = 0; in < 4; in++) {
			uint32_t flags = (in & 1 ? FLAG_CF : 0) | (in & 2 ? FLAG_AF : 0) | 2;
			struct native32 host = {.eax = ax | 0x5a5a0000, .flags = flags};

			native32_run(bytes, len, &host);
			cpu.gpr[RAX] = ax | 0x5a5a0000;
			cpu.rip = 0x1000;
			cpu.aflags = flags_to_arith(flags);
			assert_int_equal(fn(&cpu, &insn), RESULT_OK);
			assert_int_equal(cpu.gpr[RAX], host.eax);
			assert_int_equal(flags_from_arith(cpu.aflags), host.flags & ARITH);
			assert_int_equal(cpu.rip, 0x1000 + len);
		}
}

insn_fn emul_aaa, emul_aas, emul_aam, emul_aad, emul_daa, emul_das, emul_salc;

static int setup(void **state)
{
	return native32_init();
}

static void aaa_aas(void **state)
{
	compare("\x37", 1, emul_aaa, 0);
	compare("\x3f", 1, emul_aas, 0);
}

static void daa_das(void **state)
{
	compare("\x27", 1, emul_daa, 0);
	compare("\x2f", 1, emul_das, 0);
}

static void aam_aad(void **state)
{
	compare("\xd4\x0a", 2, emul_aam, 10);
	compare("\xd4\x07", 2, emul_aam, 7);
	compare("\xd5\x0a", 2, emul_aad, 10);
	compare("\xd5\xf1", 2, emul_aad, 0xf1);
}

static void salc(void **state)
{
	compare("\xd6", 1, emul_salc, 0);
}

static void decoded(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	/* mov al,0x79; add al,0x35; daa */
	emul_halts(f, "\xb0\x79\x04\x35\x27");
	assert_int_equal((uint8_t)f->cpu->gpr[RAX], 0x14);
	assert_true(emul_flags(f) & FLAG_CF);
	emul_faults(f, VEC_DE, "\xd4\x00");
	flat_long(f);
	emul_faults(f, VEC_UD, "\x27");
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(aaa_aas), cmocka_unit_test(daa_das), cmocka_unit_test(aam_aad),
		cmocka_unit_test(salc),	   cmocka_unit_test(decoded),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
