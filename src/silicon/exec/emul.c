/* SPDX-License-Identifier: MIT */
/*
 * The table from mnemonics to emulated instructions, made of tables/insns.def, and what several of the
 * emul_*.c files use.
 */
#include "silicon/exec/emul.h"

#include <Zydis/Mnemonic.h>

static insn_fn *const handlers[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
#define INSN(mnemonic, handler) [ZYDIS_MNEMONIC_##mnemonic] = handler,
#include "insns.def"
#undef INSN
};

insn_fn *insn_emulated(uint16_t mnemonic)
{
	return mnemonic < ARRAY_SIZE(handlers) ? handlers[mnemonic] : NULL;
}

static insn_fn *mov_form(uint8_t opcode, bool two_byte)
{
	switch (opcode | two_byte << 8) {
	case 0x08c:
		return emul_mov_from_seg;
	case 0x08e:
		return emul_mov_to_seg;
	case 0x120:
		return emul_mov_from_cr;
	case 0x121:
		return emul_mov_from_dr;
	case 0x122:
		return emul_mov_to_cr;
	case 0x123:
		return emul_mov_to_dr;
	}
	return NULL;
}

insn_fn *insn_emulated_form(uint16_t mnemonic, uint8_t opcode, bool two_byte)
{
	if (mnemonic == ZYDIS_MNEMONIC_MOV)
		return mov_form(opcode, two_byte);
	if (two_byte && (mnemonic == ZYDIS_MNEMONIC_MOVSD || mnemonic == ZYDIS_MNEMONIC_CMPSD))
		return NULL;
	return insn_emulated(mnemonic);
}

/* Segment register of an override prefix, or -1. */
static int override_of(uint8_t byte)
{
	switch (byte) {
	case 0x26:
		return SEG_ES;
	case 0x2e:
		return SEG_CS;
	case 0x36:
		return SEG_SS;
	case 0x3e:
		return SEG_DS;
	case 0x64:
		return SEG_FS;
	case 0x65:
		return SEG_GS;
	}
	return -1;
}

static bool is_prefix(uint8_t byte)
{
	return byte == 0x66 || byte == 0x67 || byte == 0xf0 || byte == 0xf2 || byte == 0xf3 ||
	       override_of(byte) >= 0;
}

enum seg_id emul_implicit_seg(const struct cpu *cpu, const struct insn *insn)
{
	const uint8_t *bytes = (const uint8_t *)insn->bytes;
	enum seg_id seg = SEG_DS;

	if (!(insn->flags & INSN_SEG_PFX))
		return seg;
	for (unsigned i = 0; i < insn->len && is_prefix(bytes[i]); i++) {
		int to = override_of(bytes[i]);

		/* 64-bit mode ignores the other four. */
		if (to >= SEG_FS || (to >= 0 && cpu->mode.code != CODE_64))
			seg = to;
	}
	return seg;
}

enum result emul_ud(struct cpu *cpu, const struct insn *insn)
{
	return fault_ud(cpu);
}
