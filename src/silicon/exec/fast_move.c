/* SPDX-License-Identifier: MIT */
/* MOV, MOVZX, MOVSX, MOVSXD and LEA; and what loads and stores do that do not hit. */
#include "silicon/exec/fast.h"

#include <Zydis/Mnemonic.h>

__noinline enum result fast_load_slow(struct cpu *cpu, const struct insn *insn, unsigned size,
				      uint64_t *ret)
{
	return seg_read(cpu, insn->seg, insn_ea(cpu, insn), size, ret);
}

__noinline enum result fast_store_slow(struct cpu *cpu, const struct insn *insn, unsigned size,
				       uint64_t val)
{
	return seg_write(cpu, insn->seg, insn_ea(cpu, insn), size, val);
}

#define MOV(bits)                                                                              \
	static enum result mov_rr_##bits(struct cpu *cpu, const struct insn *insn)             \
	{                                                                                      \
		fast_put_##bits(cpu, insn->dst, fast_get_##bits(cpu, insn->src));              \
		return insn_next(cpu, insn);                                                   \
	}                                                                                      \
	static enum result mov_ri_##bits(struct cpu *cpu, const struct insn *insn)             \
	{                                                                                      \
		fast_put_##bits(cpu, insn->dst, insn->imm);                                    \
		return insn_next(cpu, insn);                                                   \
	}                                                                                      \
	static enum result mov_rm_##bits(struct cpu *cpu, const struct insn *insn)             \
	{                                                                                      \
		uint##bits##_t val;                                                            \
		enum result r = fast_load_##bits(cpu, insn, &val);                             \
                                                                                               \
		if (unlikely(r))                                                               \
			return r;                                                              \
		fast_put_##bits(cpu, insn->dst, val);                                          \
		return insn_next(cpu, insn);                                                   \
	}                                                                                      \
	static enum result mov_mr_##bits(struct cpu *cpu, const struct insn *insn)             \
	{                                                                                      \
		enum result r = fast_store_##bits(cpu, insn, fast_get_##bits(cpu, insn->src)); \
                                                                                               \
		return likely(!r) ? insn_next(cpu, insn) : r;                                  \
	}                                                                                      \
	static enum result mov_mi_##bits(struct cpu *cpu, const struct insn *insn)             \
	{                                                                                      \
		enum result r = fast_store_##bits(cpu, insn, insn->imm);                       \
                                                                                               \
		return likely(!r) ? insn_next(cpu, insn) : r;                                  \
	}

/* sign: "u" or nothing; from and to: bits. */
#define EXTEND(op, sign, from, to)                                                      \
	static enum result op##from##_rr_##to(struct cpu *cpu, const struct insn *insn) \
	{                                                                               \
		fast_put_##to(cpu, insn->dst,                                           \
			      (sign##int##from##_t)fast_get_##from(cpu, insn->src));    \
		return insn_next(cpu, insn);                                            \
	}                                                                               \
	static enum result op##from##_rm_##to(struct cpu *cpu, const struct insn *insn) \
	{                                                                               \
		uint##from##_t val;                                                     \
		enum result r = fast_load_##from(cpu, insn, &val);                      \
                                                                                        \
		if (unlikely(r))                                                        \
			return r;                                                       \
		fast_put_##to(cpu, insn->dst, (sign##int##from##_t)val);                \
		return insn_next(cpu, insn);                                            \
	}

#define LEA(bits)                                                               \
	static enum result lea_##bits(struct cpu *cpu, const struct insn *insn) \
	{                                                                       \
		fast_put_##bits(cpu, insn->dst, insn_ea(cpu, insn));            \
		return insn_next(cpu, insn);                                    \
	}

FAST_SIZES(MOV)
EXTEND(movzx, u, 8, 16)
EXTEND(movzx, u, 8, 32)
EXTEND(movzx, u, 8, 64)
EXTEND(movzx, u, 16, 32)
EXTEND(movzx, u, 16, 64)
EXTEND(movsx, , 8, 16)
EXTEND(movsx, , 8, 32)
EXTEND(movsx, , 8, 64)
EXTEND(movsx, , 16, 32)
EXTEND(movsx, , 16, 64)
EXTEND(movsx, , 32, 64)
LEA(16)
LEA(32)
LEA(64)

#define BY_SIZE(form)                                                             \
	{                                                                         \
		mov_##form##_8, mov_##form##_16, mov_##form##_32, mov_##form##_64 \
	}

static const struct fast_op mov = {{
	[FAST_RR] = BY_SIZE(rr),
	[FAST_RI] = BY_SIZE(ri),
	[FAST_RM] = BY_SIZE(rm),
	[FAST_MR] = BY_SIZE(mr),
	[FAST_MI] = BY_SIZE(mi),
}};

static const struct fast_op lea = {{[FAST_RM] = {NULL, lea_16, lea_32, lea_64}}};

#define FROM_8(op, form)                                                      \
	{                                                                     \
		NULL, op##8_##form##_16, op##8_##form##_32, op##8_##form##_64 \
	}
#define FROM_16(op, form)                                          \
	{                                                          \
		NULL, NULL, op##16_##form##_32, op##16_##form##_64 \
	}

static const struct fast_op movzx8 = {
	{[FAST_RR] = FROM_8(movzx, rr), [FAST_RM] = FROM_8(movzx, rm)}};
static const struct fast_op movzx16 = {
	{[FAST_RR] = FROM_16(movzx, rr), [FAST_RM] = FROM_16(movzx, rm)}};
static const struct fast_op movsx8 = {
	{[FAST_RR] = FROM_8(movsx, rr), [FAST_RM] = FROM_8(movsx, rm)}};
static const struct fast_op movsx16 = {
	{[FAST_RR] = FROM_16(movsx, rr), [FAST_RM] = FROM_16(movsx, rm)}};
static const struct fast_op movsx32 = {{[FAST_RR] = {NULL, NULL, NULL, movsx32_rr_64},
					[FAST_RM] = {NULL, NULL, NULL, movsx32_rm_64}}};

const struct fast_op *fast_move_op(uint16_t mnemonic, unsigned src_bits)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		return &mov;
	case ZYDIS_MNEMONIC_LEA:
		return &lea;
	case ZYDIS_MNEMONIC_MOVZX:
		return src_bits == 8 ? &movzx8 : &movzx16;
	case ZYDIS_MNEMONIC_MOVSX:
		return src_bits == 8 ? &movsx8 : &movsx16;
	case ZYDIS_MNEMONIC_MOVSXD:
		return src_bits == 32 ? &movsx32 : NULL;
	}
	return NULL;
}
