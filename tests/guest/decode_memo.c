/* SPDX-License-Identifier: MIT */
/*
 * What decoding remembers of an instruction (exec/decode_memo.c) is what decoding it anew says, Zydis's answer included: for
 * bytes of all kinds, once more as they were, and with another immediate.
 */
#include "guest_asm.h"
#include "silicon/exec/decode.h"

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CASES 60000
#define BYTES 15

struct decoded {
	struct insn insn;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
};

static void put_bytes(uint8_t bytes[BYTES])
{
	static const uint8_t prefixes[] = {0x66, 0x40, 0x48, 0x4c, 0x41, 0x49, 0xf3, 0x67};
	unsigned at = 0, what = random();

	for (unsigned i = 0; i < BYTES; i++)
		bytes[i] = random() >> 8;
	if (what & 1)
		bytes[at++] = prefixes[what >> 8 & 7];
	if ((what & 7) == 3)
		bytes[at++] = prefixes[what >> 12 & 7];
	if (what & 16)
		bytes[at] = 0x0f;
}

/* What stands behind the operands is not theirs. */
static void expect_same(struct flat *f, const uint8_t bytes[BYTES], unsigned nr, unsigned *hits)
{
	uint16_t key = decode_key(f->cpu);
	struct decoded is, want;

	memset(&is, 0, sizeof(is));
	memset(&want, 0, sizeof(want));
	if (!decode_memo_find(f->cpu->exec, key, bytes, nr, &is.insn, &is.z, is.ops))
		return;
	assert_true(decode_both(f->cpu, key, bytes, nr, &want.insn, &want.z, want.ops));
	assert_memory_equal(&is, &want, sizeof(is));
	++*hits;
}

static void as_decoded(void **state)
{
	struct flat *f = tempo_machine();
	unsigned hits = 0, others = 0;
	uint8_t bytes[BYTES];
	struct decoded a;

	srandom(1);
	for (unsigned i = 0; i < CASES; i++) {
		put_bytes(bytes);
		if (!decode_both(f->cpu, decode_key(f->cpu), bytes, BYTES, &a.insn, &a.z, a.ops))
			continue;
		expect_same(f, bytes, BYTES, &hits);
		if (a.insn.trap || a.z.raw.imm[0].size != 32)
			continue;
		for (unsigned k = 0; k < 4; k++)
			bytes[a.z.raw.imm[0].offset + k] = random() >> 8;
		expect_same(f, bytes, BYTES, &others);
		expect_same(f, bytes, a.z.length, &others);
	}
	assert_in_range(hits, CASES / 8, CASES);
	assert_in_range(others, CASES / 64, CASES);
	flat_free(f);
}

/* An instruction that is not whole is not found. */
static void cut_short(void **state)
{
	static const uint8_t add[] = {0x05, 1, 2, 3, 4};
	struct flat *f = tempo_machine();
	struct decoded a;

	assert_true(decode_both(f->cpu, decode_key(f->cpu), add, 5, &a.insn, &a.z, a.ops));
	assert_true(
		decode_memo_find(f->cpu->exec, decode_key(f->cpu), add, 5, &a.insn, NULL, NULL));
	assert_int_equal(a.insn.imm, 0x04030201);
	assert_false(
		decode_memo_find(f->cpu->exec, decode_key(f->cpu), add, 4, &a.insn, NULL, NULL));
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_decoded),
		cmocka_unit_test(cut_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
