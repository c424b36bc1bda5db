/* SPDX-License-Identifier: MIT */
/*
 * Integer arithmetic: one function for each operation, form and size.
 *
 * ALU_*() make the operation itself, one host instruction that returns its result and the flags as
 * ->aflags has them; FORM_*() put operands around it. Flags and registers are written last.
 */
#include "silicon/exec/fast.h"

#include <Zydis/Mnemonic.h>

#define SUFFIX_8  "b"
#define SUFFIX_16 "w"
#define SUFFIX_32 "l"
#define SUFFIX_64 "q"

#define LOAD_FLAGS  "add $0x7f, %%al\n\tsahf\n\t"
#define STORE_FLAGS "\n\tlahf\n\tseto %%al"

/* Write all six flags whatever they were. */
#define ALU_PLAIN(op, bits)                                                                        \
	static inline uint##bits##_t do_##op##_##bits(uint##bits##_t d, uint##bits##_t s,          \
						      uint64_t *flags)                             \
	{                                                                                          \
		uint32_t a;                                                                        \
                                                                                                   \
		asm(#op SUFFIX_##bits " %2, %0" STORE_FLAGS : "+&r"(d), "=&a"(a) : "r"(s) : "cc"); \
		*flags = (uint16_t)a;                                                              \
		return d;                                                                          \
	}

/* Use some of the flags, or leave some. */
#define ALU_FLAGS(op, bits)                                                               \
	static inline uint##bits##_t do_##op##_##bits(uint##bits##_t d, uint##bits##_t s, \
						      uint64_t *flags)                    \
	{                                                                                 \
		uint32_t a = *flags;                                                      \
                                                                                          \
		asm(LOAD_FLAGS #op SUFFIX_##bits " %2, %0" STORE_FLAGS                    \
		    : "+&r"(d), "+&a"(a)                                                  \
		    : "r"(s)                                                              \
		    : "cc");                                                              \
		*flags = (uint16_t)a;                                                     \
		return d;                                                                 \
	}

#define ALU_UNARY(op, bits)                                                                        \
	static inline uint##bits##_t do_##op##_##bits(uint##bits##_t d, uint##bits##_t s,          \
						      uint64_t *flags)                             \
	{                                                                                          \
		uint32_t a = *flags;                                                               \
                                                                                                   \
		asm(LOAD_FLAGS #op SUFFIX_##bits " %0" STORE_FLAGS : "+&r"(d), "+&a"(a) : : "cc"); \
		*flags = (uint16_t)a;                                                              \
		return d;                                                                          \
	}

/* Not rotates: by an immediate they leave other undefined flags than by CL. */
#define ALU_SHIFT(op, bits)                                                        \
	static inline uint##bits##_t do_##op##_##bits(uint##bits##_t d, uint8_t s, \
						      uint64_t *flags)             \
	{                                                                          \
		uint32_t a = *flags;                                               \
                                                                                   \
		asm(LOAD_FLAGS #op SUFFIX_##bits " %%cl, %0" STORE_FLAGS           \
		    : "+&r"(d), "+&a"(a)                                           \
		    : "c"(s)                                                       \
		    : "cc");                                                       \
		*flags = (uint16_t)a;                                              \
		return d;                                                          \
	}

/* ---- forms ---- */

/* Destination a register, source something at hand. */
#define FORM_TO_REG(name, op, bits, source)                                                \
	static enum result op##_##name##_##bits(struct cpu *cpu, const struct insn *insn)  \
	{                                                                                  \
		uint64_t flags = cpu->aflags;                                              \
		uint##bits##_t val =                                                       \
			do_##op##_##bits(fast_get_##bits(cpu, insn->dst), source, &flags); \
                                                                                           \
		fast_put_##bits(cpu, insn->dst, val);                                      \
		cpu->aflags = flags;                                                       \
		return insn_next(cpu, insn);                                               \
	}

#define FORM_FROM_MEM(op, bits)                                                       \
	static enum result op##_rm_##bits(struct cpu *cpu, const struct insn *insn)   \
	{                                                                             \
		uint64_t flags = cpu->aflags;                                         \
		uint##bits##_t src, val;                                              \
		enum result r = fast_load_##bits(cpu, insn, &src);                    \
                                                                                      \
		if (unlikely(r))                                                      \
			return r;                                                     \
		val = do_##op##_##bits(fast_get_##bits(cpu, insn->dst), src, &flags); \
		fast_put_##bits(cpu, insn->dst, val);                                 \
		cpu->aflags = flags;                                                  \
		return insn_next(cpu, insn);                                          \
	}

/* Not atomic for others, as on silicon without LOCK. */
#define FORM_TO_MEM(name, op, bits, source)                                               \
	static enum result op##_##name##_##bits(struct cpu *cpu, const struct insn *insn) \
	{                                                                                 \
		uint8_t *ptr = fast_rmw(cpu, insn, bits / 8);                             \
		uint64_t flags = cpu->aflags;                                             \
		uint##bits##_t val;                                                       \
                                                                                          \
		if (unlikely(!ptr || !host_load_##bits(ptr, &val)))                       \
			return run_mem(cpu, insn);                                        \
		val = do_##op##_##bits(val, source, &flags);                              \
		if (unlikely(!host_store_##bits(ptr, val)))                               \
			return run_mem(cpu, insn);                                        \
		cpu->aflags = flags;                                                      \
		return insn_next(cpu, insn);                                              \
	}

/* Only flags come of it. */
#define FORM_JUDGE_REG(name, op, bits, source)                                            \
	static enum result op##_##name##_##bits(struct cpu *cpu, const struct insn *insn) \
	{                                                                                 \
		do_##op##_##bits(fast_get_##bits(cpu, insn->dst), source, &cpu->aflags);  \
		return insn_next(cpu, insn);                                              \
	}

#define FORM_JUDGE_MEM(name, op, bits, left, right)                                       \
	static enum result op##_##name##_##bits(struct cpu *cpu, const struct insn *insn) \
	{                                                                                 \
		uint##bits##_t mem;                                                       \
		enum result r = fast_load_##bits(cpu, insn, &mem);                        \
                                                                                          \
		if (unlikely(r))                                                          \
			return r;                                                         \
		do_##op##_##bits(left, right, &cpu->aflags);                              \
		return insn_next(cpu, insn);                                              \
	}

#define SOURCE(bits) fast_get_##bits(cpu, insn->src)
#define TARGET(bits) fast_get_##bits(cpu, insn->dst)

#define BINARY(kind, op, bits)                  \
	kind(op, bits);                         \
	FORM_TO_REG(rr, op, bits, SOURCE(bits)) \
	FORM_TO_REG(ri, op, bits, insn->imm)    \
	FORM_FROM_MEM(op, bits)                 \
	FORM_TO_MEM(mr, op, bits, SOURCE(bits)) \
	FORM_TO_MEM(mi, op, bits, insn->imm)

#define JUDGE(op, bits)                                 \
	ALU_PLAIN(op, bits)                             \
	FORM_JUDGE_REG(rr, op, bits, SOURCE(bits))      \
	FORM_JUDGE_REG(ri, op, bits, insn->imm)         \
	FORM_JUDGE_MEM(rm, op, bits, TARGET(bits), mem) \
	FORM_JUDGE_MEM(mr, op, bits, mem, SOURCE(bits)) \
	FORM_JUDGE_MEM(mi, op, bits, mem, insn->imm)

#define UNARY(op, bits)             \
	ALU_UNARY(op, bits)         \
	FORM_TO_REG(r, op, bits, 0) \
	FORM_TO_MEM(m, op, bits, 0)

#define SHIFT(op, bits)                          \
	ALU_SHIFT(op, bits)                      \
	FORM_TO_REG(ri, op, bits, insn->imm)     \
	FORM_TO_REG(rc, op, bits, cpu->gpr[RCX]) \
	FORM_TO_MEM(mi, op, bits, insn->imm)     \
	FORM_TO_MEM(mc, op, bits, cpu->gpr[RCX])

#define MULTIPLY(op, bits)                      \
	ALU_FLAGS(op, bits)                     \
	FORM_TO_REG(rr, op, bits, SOURCE(bits)) \
	FORM_FROM_MEM(op, bits)

/* ---- the operations ---- */

#define ALL(bits)                    \
	BINARY(ALU_PLAIN, add, bits) \
	BINARY(ALU_PLAIN, or, bits)  \
	BINARY(ALU_FLAGS, adc, bits) \
	BINARY(ALU_FLAGS, sbb, bits) \
	BINARY(ALU_PLAIN, and, bits) \
	BINARY(ALU_PLAIN, sub, bits) \
	BINARY(ALU_PLAIN, xor, bits) \
	JUDGE(cmp, bits)             \
	JUDGE(test, bits)            \
	UNARY(inc, bits)             \
	UNARY(dec, bits)             \
	UNARY(neg, bits)             \
	UNARY(not, bits)             \
	SHIFT(shl, bits)             \
	SHIFT(shr, bits)             \
	SHIFT(sar, bits)

FAST_SIZES(ALL)
MULTIPLY(imul, 16)
MULTIPLY(imul, 32)
MULTIPLY(imul, 64)

#define BY_SIZE(op, form)                                                             \
	{                                                                             \
		op##_##form##_8, op##_##form##_16, op##_##form##_32, op##_##form##_64 \
	}

#define OP_BINARY(op)                                                             \
	{                                                                         \
		{                                                                 \
			[FAST_RR] = BY_SIZE(op, rr), [FAST_RI] = BY_SIZE(op, ri), \
			[FAST_RM] = BY_SIZE(op, rm), [FAST_MR] = BY_SIZE(op, mr), \
			[FAST_MI] = BY_SIZE(op, mi),                              \
		}                                                                 \
	}
#define OP_UNARY(op)                                                          \
	{                                                                     \
		{                                                             \
			[FAST_R] = BY_SIZE(op, r), [FAST_M] = BY_SIZE(op, m), \
		}                                                             \
	}
#define OP_SHIFT(op)                                                              \
	{                                                                         \
		{                                                                 \
			[FAST_RI] = BY_SIZE(op, ri), [FAST_RC] = BY_SIZE(op, rc), \
			[FAST_MI] = BY_SIZE(op, mi), [FAST_MC] = BY_SIZE(op, mc), \
		}                                                                 \
	}
#define OP_MULTIPLY(op)                                                         \
	{                                                                       \
		{                                                               \
			[FAST_RR] = {NULL, op##_rr_16, op##_rr_32, op##_rr_64}, \
			[FAST_RM] = {NULL, op##_rm_16, op##_rm_32, op##_rm_64}, \
		}                                                               \
	}

static const struct {
	uint16_t mnemonic;
	struct fast_op op;
} ops[] = {
	{ZYDIS_MNEMONIC_ADD, OP_BINARY(add)},	  {ZYDIS_MNEMONIC_OR, OP_BINARY(or)},
	{ZYDIS_MNEMONIC_ADC, OP_BINARY(adc)},	  {ZYDIS_MNEMONIC_SBB, OP_BINARY(sbb)},
	{ZYDIS_MNEMONIC_AND, OP_BINARY(and)},	  {ZYDIS_MNEMONIC_SUB, OP_BINARY(sub)},
	{ZYDIS_MNEMONIC_XOR, OP_BINARY(xor)},	  {ZYDIS_MNEMONIC_CMP, OP_BINARY(cmp)},
	{ZYDIS_MNEMONIC_TEST, OP_BINARY(test)},	  {ZYDIS_MNEMONIC_INC, OP_UNARY(inc)},
	{ZYDIS_MNEMONIC_DEC, OP_UNARY(dec)},	  {ZYDIS_MNEMONIC_NEG, OP_UNARY(neg)},
	{ZYDIS_MNEMONIC_NOT, OP_UNARY(not )},	  {ZYDIS_MNEMONIC_SHL, OP_SHIFT(shl)},
	{ZYDIS_MNEMONIC_SHR, OP_SHIFT(shr)},	  {ZYDIS_MNEMONIC_SAR, OP_SHIFT(sar)},
	{ZYDIS_MNEMONIC_IMUL, OP_MULTIPLY(imul)},
};

const struct fast_op *fast_alu_op(uint16_t mnemonic)
{
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++)
		if (ops[i].mnemonic == mnemonic)
			return &ops[i].op;
	return NULL;
}
