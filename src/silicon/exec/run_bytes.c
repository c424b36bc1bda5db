/* SPDX-License-Identifier: MIT */
/*
 * Instructions encoded anew with other registers, byte by byte (run_translate.h): what most of them need, many times
 * as fast as by an encoder. ModRM, SIB, displacement and the register bits are new; opcode and immediates stay.
 *
 * For legacy encodings whose prefixes all mean something, and for VEX. The rest is run_encode.c's.
 */
#include "silicon/exec/run_translate.h"

#define VEX_2 0xc5
#define VEX_3 0xc4

/* The register fields of an instruction, each with the bit that a prefix adds. */
struct fields {
	uint8_t reg, rm, vvvv, opcode;
};

static bool has_modrm(const ZydisDecodedInstruction *z)
{
	return z->attributes & ZYDIS_ATTRIB_HAS_MODRM;
}

static bool set_field(struct fields *f, const ZydisDecodedOperand *op, uint8_t host)
{
	switch (op->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		f->reg = host;
		return true;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		f->rm = host;
		return true;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		f->vvvv = host;
		return true;
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		f->opcode = host;
		return true;
	default:
		return false;
	}
}

/* AH to BH keep their numbers: what has them has no register that moves. */
static bool set_fields(const struct translation *t, const uint8_t map[NR_GPRS], struct fields *f)
{
	for (unsigned i = 0; i < t->z.operand_count_visible; i++) {
		const ZydisDecodedOperand *op = &t->ops[i];
		uint8_t gpr;

		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    op->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
			continue;
		gpr = zreg_gpr(op->reg.value);
		if (gpr == REG_NONE || zreg_high(op->reg.value))
			continue;
		if (!set_field(f, op, map[gpr]))
			return false;
	}
	return true;
}

/* ModRM and what follows it, up to the immediate. */
static void emit_modrm(struct translation *t, const struct fields *f, const struct place *p)
{
	struct emit *e = &t->e;

	if (t->z.raw.modrm.mod == 3)
		emit8(e, 0xc0 | (f->reg & 7) << 3 | (f->rm & 7));
	else
		emit_modrm_mem(e, f->reg, p->base, p->index, p->scale, p->disp);
}

static void emit_imm(struct translation *t)
{
	const ZydisDecodedInstruction *z = &t->z;

	if (z->raw.imm[0].size)
		emit_bytes(&t->e, (const uint8_t *)t->insn.bytes + z->raw.imm[0].offset,
			   z->length - z->raw.imm[0].offset);
}

/* The X and B bits of a prefix. */
static unsigned address_bits(const struct translation *t, const struct fields *f,
			     const struct place *p)
{
	if (!has_modrm(&t->z))
		return f->opcode >> 3;
	if (t->z.raw.modrm.mod == 3)
		return f->rm >> 3;
	return (p->index != REG_NONE ? p->index >> 3 << 1 : 0) | p->base >> 3;
}

/* ---- legacy ---- */

/* False: a prefix means nothing here, but might on a newer host. */
static bool emit_prefixes(struct translation *t)
{
	const ZydisDecodedInstruction *z = &t->z;

	for (unsigned i = 0; i < z->raw.prefix_count; i++) {
		uint8_t byte = z->raw.prefixes[i].value;
		bool means = z->raw.prefixes[i].type != ZYDIS_PREFIX_TYPE_IGNORED;

		switch (byte) {
		case 0x66:
		case 0xf0:
			if (means)
				emit8(&t->e, byte);
			break;
		case 0xf2:
		case 0xf3:
			if (z->raw.prefixes[i].type != ZYDIS_PREFIX_TYPE_MANDATORY)
				return false;
			emit8(&t->e, byte);
			break;
		}
	}
	return true;
}

static bool emit_escape(struct emit *e, ZydisOpcodeMap map)
{
	switch (map) {
	case ZYDIS_OPCODE_MAP_DEFAULT:
		return true;
	case ZYDIS_OPCODE_MAP_0F:
		emit8(e, 0x0f);
		return true;
	case ZYDIS_OPCODE_MAP_0F38:
		EMIT(e, "\x0f\x38");
		return true;
	case ZYDIS_OPCODE_MAP_0F3A:
		EMIT(e, "\x0f\x3a");
		return true;
	default:
		return false;
	}
}

static bool encode_legacy(struct translation *t, const uint8_t map[NR_GPRS], const struct place *p)
{
	const ZydisDecodedInstruction *z = &t->z;
	bool had_rex = z->attributes & ZYDIS_ATTRIB_HAS_REX;
	struct fields f = {
		.reg = z->raw.modrm.reg | z->raw.rex.R << 3,
		.rm = z->raw.modrm.rm | z->raw.rex.B << 3,
		.opcode = (z->opcode & 7) | z->raw.rex.B << 3,
	};
	uint8_t opcode = z->opcode;
	unsigned bits;

	if (!has_modrm(z) && z->raw.disp.size)
		return false; /* an address in place of ModRM */
	if (!set_fields(t, map, &f) || !emit_prefixes(t))
		return false;
	if (!has_modrm(z)) {
		f.reg = 0;
		opcode = (opcode & ~7) | (f.opcode & 7);
	}
	bits = z->raw.rex.W << 3 | f.reg >> 3 << 2 | address_bits(t, &f, p);
	if (bits || had_rex)
		emit8(&t->e, 0x40 | bits);
	if (!emit_escape(&t->e, z->opcode_map))
		return false;
	emit8(&t->e, opcode);
	if (has_modrm(z))
		emit_modrm(t, &f, p);
	emit_imm(t);
	return true;
}

/* ---- VEX ---- */

static bool encode_vex(struct translation *t, const uint8_t map[NR_GPRS], const struct place *p)
{
	const uint8_t *vex = (const uint8_t *)t->insn.bytes + t->z.raw.vex.offset;
	bool three = vex[0] == VEX_3;
	uint8_t last = vex[three ? 2 : 1], maps = three ? vex[1] & 0x1f : 1;
	struct fields f = {
		.reg = t->z.raw.modrm.reg | !(vex[1] & 0x80) << 3,
		.rm = t->z.raw.modrm.rm | (three && !(vex[1] & 0x20)) << 3,
		.vvvv = ~last >> 3 & 15,
	};
	unsigned bits;

	if ((!three && vex[0] != VEX_2) || !has_modrm(&t->z) || !set_fields(t, map, &f))
		return false;
	if (!three)
		last &= 0x7f; /* W of the longer form, where this has R */
	bits = f.reg >> 3 << 2 | address_bits(t, &f, p);
	emit8(&t->e, VEX_3);
	emit8(&t->e, (~bits & 7) << 5 | maps);
	emit8(&t->e, (last & 0x87) | (~f.vvvv & 15) << 3);
	emit8(&t->e, t->z.opcode);
	emit_modrm(t, &f, p);
	emit_imm(t);
	return true;
}

bool run_encode_bytes(struct translation *t, const uint8_t map[NR_GPRS], const struct place *p)
{
	uint8_t *at = t->e.at;
	bool done = false;

	if (t->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		done = encode_legacy(t, map, p);
	else if (t->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		done = encode_vex(t, map, p);
	if (!done)
		t->e.at = at;
	return done;
}
