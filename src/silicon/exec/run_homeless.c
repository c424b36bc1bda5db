/* SPDX-License-Identifier: MIT */
/*
 * Instructions on a guest register that has no register in translated code, as operations on its slot in the frame
 * (run_translate.h): ModRM's register becomes memory. If it is in the other field of ModRM, the opcode's
 * direction is turned.
 *
 * Only where that means the same: a 32-bit result zeroes the upper half of a register, but not of memory; XCHG with
 * memory locks; shifts and multiplications leave other flags, where these are undefined, with memory.
 */
#include "silicon/exec/run_translate.h"

/* Bits of the table: the register in ModRM.rm may be memory; so may the other, in opcode ^ 2; or in the same opcode. */
enum { RM = 1, TURN = 2, SAME = 4 };

static uint8_t allowed_plain(uint8_t opcode, uint8_t digit)
{
	switch (opcode) {
	case 0x00 ... 0x3b:
		return (opcode & 7) < 4 ? RM | TURN : 0;
	case 0x84:
	case 0x85:
		return RM | SAME;
	case 0x88 ... 0x8b:
		return RM | TURN;
	case 0x63:
	case 0x80:
	case 0x81:
	case 0x83:
	case 0xd0:
	case 0xd1:
		return RM;
	case 0xf6:
	case 0xf7:
		return digit < 4 ? RM : 0;
	case 0xc6:
	case 0xc7:
		return digit == 0 ? RM : 0;
	case 0xfe:
	case 0xff:
		return digit < 2 ? RM : 0;
	default:
		return 0;
	}
}

static uint8_t allowed_0f(uint8_t opcode)
{
	switch (opcode) {
	case 0x40 ... 0x4f:
	case 0x90 ... 0x9f:
	case 0xb6:
	case 0xb7:
	case 0xbe:
	case 0xbf:
		return RM;
	default:
		return 0;
	}
}

static uint8_t allowed(const ZydisDecodedInstruction *z)
{
	if (z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT)
		return allowed_plain(z->opcode, z->raw.modrm.reg);
	return z->opcode_map == ZYDIS_OPCODE_MAP_0F ? allowed_0f(z->opcode) : 0;
}

/* No prefixes but 66h, where it means something, and REX. */
static bool prefixes_plain(const ZydisDecodedInstruction *z)
{
	for (unsigned i = 0; i < z->raw.prefix_count; i++) {
		uint8_t byte = z->raw.prefixes[i].value;

		if ((byte & 0xf0) == 0x40)
			continue;
		if (byte != 0x66 || z->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_IGNORED)
			return false;
	}
	return true;
}

static const ZydisDecodedOperand *operand_in(const struct translation *t,
					     ZydisOperandEncoding encoding)
{
	for (unsigned i = 0; i < t->z.operand_count_visible; i++)
		if (t->ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER && t->ops[i].encoding == encoding)
			return &t->ops[i];
	return NULL;
}

/* A general register that is whole, as memory, after the instruction. */
static bool fit(const ZydisDecodedOperand *op)
{
	return !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) || op->size != 32;
}

static bool homeless(const struct translation *t, const ZydisDecodedOperand *op)
{
	uint8_t gpr = op ? zreg_gpr(op->reg.value) : REG_NONE;

	return gpr != REG_NONE && run_home(t, gpr) == REG_NONE;
}

/* [reg] op [memory of gpr]; digit: ModRM.reg is none. */
static void emit_it(struct translation *t, uint8_t opcode, unsigned reg, unsigned gpr)
{
	struct emit *e = &t->e;
	const ZydisDecodedInstruction *z = &t->z;

	if (z->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)
		emit8(e, 0x66);
	emit8(e, 0x40 | z->raw.rex.W << 3 | reg >> 3 << 2);
	if (z->opcode_map == ZYDIS_OPCODE_MAP_0F)
		emit8(e, 0x0f);
	emit8(e, opcode);
	emit_modrm_mem(e, reg, RSP, REG_NONE, 0, 8 * t->home_slot[gpr]);
	if (z->raw.imm[0].size)
		emit_bytes(e, (const uint8_t *)t->insn.bytes + z->raw.imm[0].offset,
			   z->length - z->raw.imm[0].offset);
}

bool run_encode_homeless(struct translation *t)
{
	const ZydisDecodedOperand *rm = operand_in(t, ZYDIS_OPERAND_ENCODING_MODRM_RM);
	const ZydisDecodedOperand *reg = operand_in(t, ZYDIS_OPERAND_ENCODING_MODRM_REG);
	uint8_t ways = allowed(&t->z), other = t->z.raw.modrm.reg;

	if (t->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || !rm || !ways ||
	    t->insn.flags & INSN_FPU || !prefixes_plain(&t->z) ||
	    homeless(t, rm) == homeless(t, reg))
		return false;
	if (zreg_high(rm->reg.value) || (reg && zreg_high(reg->reg.value)))
		return false;
	if (homeless(t, rm)) {
		if (!(ways & RM) || !fit(rm))
			return false;
		if (reg)
			other = run_home(t, zreg_gpr(reg->reg.value));
		emit_it(t, t->z.opcode, other, zreg_gpr(rm->reg.value));
		return true;
	}
	if (!(ways & (TURN | SAME)) || !fit(reg))
		return false;
	emit_it(t, ways & SAME ? t->z.opcode : t->z.opcode ^ 2,
		run_home(t, zreg_gpr(rm->reg.value)), zreg_gpr(reg->reg.value));
	return true;
}
