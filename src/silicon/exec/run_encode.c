/* SPDX-License-Identifier: MIT */
/*
 * Instructions encoded anew with other registers (run_translate.h), as thunk.c does it: Zydis encodes, the result
 * is decoded again and compared. What names no register that moves is taken as it stands.
 */
#include "silicon/exec/run_translate.h"

/* What reg becomes: general registers move, others stay. */
static ZydisRegister moved(ZydisRegister reg, const uint8_t map[NR_GPRS])
{
	uint8_t gpr = zreg_gpr(reg);

	return gpr == REG_NONE || map[gpr] == gpr ? reg : zreg_same_width(reg, map[gpr]);
}

static bool is_explicit(const ZydisDecodedOperand *op)
{
	return op->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
}

#define SEGMENT_PREFIXES                                                                           \
	(ZYDIS_ATTRIB_HAS_SEGMENT_CS | ZYDIS_ATTRIB_HAS_SEGMENT_SS | ZYDIS_ATTRIB_HAS_SEGMENT_DS | \
	 ZYDIS_ATTRIB_HAS_SEGMENT_ES | ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS)
#define OTHER_PREFIXES                                                     \
	(SEGMENT_PREFIXES | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | \
	 ZYDIS_ATTRIB_HAS_REPNE | ZYDIS_ATTRIB_HAS_ADDRESSSIZE)

/* True if the guest's own bytes do it: no memory, no register that moves, no prefix that a newer host may read. */
static bool stands(const struct translation *t, const uint8_t map[NR_GPRS])
{
	const ZydisDecodedInstruction *z = &t->z;

	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	    (z->attributes & OTHER_PREFIXES || t->insn.flags & (INSN_REP | INSN_REPNE)))
		return false;
	for (unsigned i = 0; i < z->operand_count_visible; i++) {
		if (t->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return false;
		if (t->ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER && is_explicit(&t->ops[i]) &&
		    moved(t->ops[i].reg.value, map) != t->ops[i].reg.value)
			return false;
	}
	return true;
}

static void rewrite(ZydisEncoderRequest *req, const struct translation *t,
		    const uint8_t map[NR_GPRS], const struct place *p)
{
	for (unsigned i = 0; i < req->operand_count; i++) {
		ZydisEncoderOperand *op = &req->operands[i];

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			op->mem.base = ZYDIS_REGISTER_RAX + p->base;
			op->mem.index = p->index == REG_NONE ? ZYDIS_REGISTER_NONE
							     : ZYDIS_REGISTER_RAX + p->index;
			op->mem.scale = p->index == REG_NONE ? 0 : 1 << p->scale;
			op->mem.displacement = p->disp;
		} else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && is_explicit(&t->ops[i])) {
			op->reg.value = moved(op->reg.value, map);
		}
	}
}

static uint64_t width_mask(unsigned bits)
{
	return bits == 0 || bits >= 64 ? ~0ull : BIT(bits) - 1;
}

/* The instruction as encoded, decoded again. */
struct proof {
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
};

static bool same_operand(const struct proof *p, const ZydisDecodedOperand *was,
			 const ZydisDecodedOperand *is, const uint8_t map[NR_GPRS],
			 const struct place *place)
{
	if (was->type != is->type)
		return false;
	if (was->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return !((was->imm.value.u ^ is->imm.value.u) & width_mask(p->z.operand_width));
	if (was->size != is->size || was->actions != is->actions)
		return false;
	if (was->type == ZYDIS_OPERAND_TYPE_REGISTER)
		return is->reg.value ==
		       (is_explicit(was) ? moved(was->reg.value, map) : was->reg.value);
	return was->type == ZYDIS_OPERAND_TYPE_MEMORY && is->mem.disp.value == place->disp &&
	       (int)is->mem.base == ZYDIS_REGISTER_RAX + place->base;
}

static bool same(const struct proof *p, const struct translation *t, const uint8_t map[NR_GPRS],
		 const struct place *place)
{
	const ZydisDecodedInstruction *z = &t->z;

	if (!zreg_same_operation(&p->z, z))
		return false;
	for (unsigned i = 0; i < z->operand_count_visible; i++)
		if (!same_operand(p, &t->ops[i], &p->ops[i], map, place))
			return false;
	return true;
}

/* XCHG EAX,EAX as 87 C0 zero-extends; the encoder would shorten it to NOP. */
static bool shortened_xchg(const struct translation *t, const uint8_t map[NR_GPRS])
{
	return t->z.mnemonic == ZYDIS_MNEMONIC_XCHG &&
	       t->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       t->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       moved(t->ops[0].reg.value, map) == moved(t->ops[1].reg.value, map);
}

/* By Zydis. */
static bool encode(struct translation *t, const uint8_t map[NR_GPRS], const struct place *place)
{
	const ZydisDecoder *decoder = &t->cpu->exec->host_decoder;
	ZydisEncoderRequest req;
	ZyanUSize len = ZYDIS_MAX_INSTRUCTION_LENGTH;
	struct proof p;

	if (!ZYAN_SUCCESS(ZydisEncoderDecodedInstructionToEncoderRequest(
		    &t->z, t->ops, t->z.operand_count_visible, &req)))
		return false;
	rewrite(&req, t, map, place);
	req.machine_mode = ZYDIS_MACHINE_MODE_LONG_64;
	req.prefixes &= ~SEGMENT_PREFIXES;
	req.address_size_hint = ZYDIS_ADDRESS_SIZE_HINT_NONE;
	if (!ZYAN_SUCCESS(ZydisEncoderEncodeInstruction(&req, t->e.at, &len)) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, t->e.at, len, &p.z, p.ops)) ||
	    p.z.length != len || !same(&p, t, map, place))
		return false;
	t->e.at += len;
	return true;
}

bool run_encode(struct translation *t, const uint8_t map[NR_GPRS], unsigned base, unsigned index)
{
	struct place place = {.base = base, .index = index};

	if (base == R14 && index == R15)
		place = t->place;
	if (!t->code32 && stands(t, map)) {
		emit_bytes(&t->e, t->insn.bytes, t->insn.len);
		return true;
	}
	if (shortened_xchg(t, map))
		return false;
	return (!t->code32 && run_encode_bytes(t, map, &place)) || encode(t, map, &place);
}
