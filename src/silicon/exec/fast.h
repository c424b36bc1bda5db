/* SPDX-License-Identifier: MIT */
/*
 * The frequent instructions in C, without a thunk. Room header of exec/fast*.c.
 *
 * Each function is one operation on one form of operands of one size, chosen at decoding. The arithmetic is
 * still the host's: one instruction in inline assembly, with LAHF and SETO behind it as in thunks.
 * Only what hits in the TLB is done here. All else goes to the general function for the instruction, before
 * anything is committed: the borrowed one for read-modify-write, emul_*.c for the stack and branches.
 */
#ifndef SILICON_EXEC_FAST_H
#define SILICON_EXEC_FAST_H

#include "host/guard.h"
#include "silicon/exec/borrow.h"
#include "silicon/mmu/tlb.h"

/* Operands, the destination first: r general register, m memory, i immediate, c CL. */
enum fast_form {
	FAST_RR,
	FAST_RI,
	FAST_RM,
	FAST_MR,
	FAST_MI,
	FAST_RC,
	FAST_MC,
	FAST_R,
	FAST_M,
	NR_FAST_FORMS,
	FAST_NONE = NR_FAST_FORMS
};

/* Functions of a mnemonic by form and log2 of the operand size; NULL: run otherwise. */
struct fast_op {
	insn_fn *run[NR_FAST_FORMS][4];
};

/*
 * Ordinary C, vector state saved. The function for insn, whose fields are set, or NULL; it also sets the fields
 * that only such functions use. With a read-modify-write operand insn needs its thunk as well.
 */
insn_fn *fast_choose(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		     struct insn *insn);

/* By mnemonic, NULL for most; src_bits is the source operand's size. */
const struct fast_op *fast_alu_op(uint16_t mnemonic);
const struct fast_op *fast_move_op(uint16_t mnemonic, unsigned src_bits);
/* By condition code. */
const struct fast_op *fast_setcc_op(unsigned cc);
const struct fast_op *fast_cmov_op(unsigned cc);
insn_fn *fast_jcc(unsigned cc);
/* Near branches, PUSH and POP with 64-bit operands in 64-bit mode, or NULL. */
insn_fn *fast_stack(const struct insn *insn);

/* ---- operands, by bits ---- */

#define FAST_SIZES(X) \
	X(8)          \
	X(16)         \
	X(32)         \
	X(64)

/* Where insn->dst and insn->src point. */
static inline void *fast_reg(struct cpu *cpu, uint8_t at)
{
	return (uint8_t *)cpu + at;
}

/* Set a register: 4 bytes zero-extend. */
#define fast_put_8(cpu, at, val)  (*(uint8_t *)fast_reg(cpu, at) = (val))
#define fast_put_16(cpu, at, val) (*(uint16_t *)fast_reg(cpu, at) = (val))
#define fast_put_32(cpu, at, val) (*(uint64_t *)fast_reg(cpu, at) = (uint32_t)(val))
#define fast_put_64(cpu, at, val) (*(uint64_t *)fast_reg(cpu, at) = (val))

#define FAST_OPERANDS(bits)                                                                   \
	static inline uint##bits##_t fast_get_##bits(struct cpu *cpu, uint8_t at)             \
	{                                                                                     \
		return *(uint##bits##_t *)fast_reg(cpu, at);                                  \
	}                                                                                     \
	/* False if it does not hit. */                                                       \
	static inline bool fast_peek_##bits(const struct cpu *cpu, const struct insn *insn,   \
					    uint##bits##_t *ret)                              \
	{                                                                                     \
		const uint8_t *ptr;                                                           \
		gva_t addr;                                                                   \
                                                                                              \
		if (!insn_linear(cpu, insn, &addr))                                           \
			return false;                                                         \
		ptr = tlb_hit_read(cpu, addr, bits / 8);                                      \
		return likely(ptr) && host_load_##bits(ptr, ret);                             \
	}                                                                                     \
	static inline enum result fast_load_##bits(struct cpu *cpu, const struct insn *insn,  \
						   uint##bits##_t *ret)                       \
	{                                                                                     \
		uint64_t val;                                                                 \
		enum result r;                                                                \
                                                                                              \
		if (likely(fast_peek_##bits(cpu, insn, ret)))                                 \
			return RESULT_OK;                                                     \
		r = fast_load_slow(cpu, insn, bits / 8, &val);                                \
		*ret = val;                                                                   \
		return r;                                                                     \
	}                                                                                     \
	static inline enum result fast_store_##bits(struct cpu *cpu, const struct insn *insn, \
						    uint##bits##_t val)                       \
	{                                                                                     \
		uint8_t *ptr;                                                                 \
		gva_t addr;                                                                   \
                                                                                              \
		if (insn_linear(cpu, insn, &addr)) {                                          \
			ptr = tlb_hit_write(cpu, addr, bits / 8);                             \
			if (likely(ptr && host_store_##bits(ptr, val)))                       \
				return RESULT_OK;                                             \
		}                                                                             \
		return fast_store_slow(cpu, insn, bits / 8, val);                             \
	}

enum result fast_load_slow(struct cpu *cpu, const struct insn *insn, unsigned size, uint64_t *ret);
enum result fast_store_slow(struct cpu *cpu, const struct insn *insn, unsigned size, uint64_t val);

FAST_SIZES(FAST_OPERANDS)

/* By 48 bits, as with four-level paging: with five, what is not may yet be. */
static inline bool fast_canonical(uint64_t addr)
{
	return (uint64_t)((int64_t)(addr << 16) >> 16) == addr;
}

/* Pointer of a read-modify-write operand that hits, or NULL: nothing is checked yet. */
static inline uint8_t *fast_rmw(const struct cpu *cpu, const struct insn *insn, unsigned size)
{
	gva_t addr;

	return insn_linear(cpu, insn, &addr) ? tlb_hit_write(cpu, addr, size) : NULL;
}

#endif
