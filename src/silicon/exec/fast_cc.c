/* SPDX-License-Identifier: MIT */
/* Jcc, SETcc and CMOVcc: one function for each condition, which the host evaluates. */
#include "silicon/exec/emul.h"
#include "silicon/exec/fast.h"

/* By condition code: number and name. */
#define CONDITIONS(X) \
	X(0, o)       \
	X(1, no)      \
	X(2, b)       \
	X(3, ae)      \
	X(4, e)       \
	X(5, ne)      \
	X(6, be)      \
	X(7, a)       \
	X(8, s)       \
	X(9, ns)      \
	X(10, p)      \
	X(11, np)     \
	X(12, l)      \
	X(13, ge)     \
	X(14, le)     \
	X(15, g)

#define TEST(n, cc)                                                        \
	static inline bool is_##cc(const struct cpu *cpu)                  \
	{                                                                  \
		uint32_t a = cpu->aflags;                                  \
		bool yes;                                                  \
                                                                           \
		asm("add $0x7f, %%al\n\tsahf" : "+a"(a), "=@cc" #cc(yes)); \
		return yes;                                                \
	}

#define SETCC(n, cc)                                                             \
	static enum result set##cc##_r(struct cpu *cpu, const struct insn *insn) \
	{                                                                        \
		fast_put_8(cpu, insn->dst, is_##cc(cpu));                        \
		return insn_next(cpu, insn);                                     \
	}                                                                        \
	static enum result set##cc##_m(struct cpu *cpu, const struct insn *insn) \
	{                                                                        \
		enum result r = fast_store_8(cpu, insn, is_##cc(cpu));           \
                                                                                 \
		return likely(!r) ? insn_next(cpu, insn) : r;                    \
	}

/* The source is read in any case, and 4 bytes zero-extend in any case. */
#define CMOV_BITS(cc, bits)                                                               \
	static enum result cmov##cc##_rr_##bits(struct cpu *cpu, const struct insn *insn) \
	{                                                                                 \
		uint8_t from = is_##cc(cpu) ? insn->src : insn->dst;                      \
                                                                                          \
		fast_put_##bits(cpu, insn->dst, fast_get_##bits(cpu, from));              \
		return insn_next(cpu, insn);                                              \
	}                                                                                 \
	static enum result cmov##cc##_rm_##bits(struct cpu *cpu, const struct insn *insn) \
	{                                                                                 \
		uint##bits##_t val;                                                       \
		enum result r = fast_load_##bits(cpu, insn, &val);                        \
                                                                                          \
		if (unlikely(r))                                                          \
			return r;                                                         \
		if (!is_##cc(cpu))                                                        \
			val = fast_get_##bits(cpu, insn->dst);                            \
		fast_put_##bits(cpu, insn->dst, val);                                     \
		return insn_next(cpu, insn);                                              \
	}

#define CMOV(n, cc)       \
	CMOV_BITS(cc, 32) \
	CMOV_BITS(cc, 64)

#define JCC(n, cc)                                                         \
	static enum result j##cc(struct cpu *cpu, const struct insn *insn) \
	{                                                                  \
		uint64_t to = insn_end(cpu, insn);                         \
                                                                           \
		if (is_##cc(cpu)) {                                        \
			to += insn->imm;                                   \
			if (unlikely(!fast_canonical(to)))                 \
				return emul_jcc(cpu, insn);                \
		}                                                          \
		cpu->rip = to;                                             \
		return RESULT_OK;                                          \
	}

CONDITIONS(TEST)
CONDITIONS(SETCC)
CONDITIONS(CMOV)
CONDITIONS(JCC)

#define SETCC_ROW(n, cc) [n] = {{[FAST_R] = {set##cc##_r}, [FAST_M] = {set##cc##_m}}},
#define CMOV_ROW(n, cc)                                                       \
	[n] = {{[FAST_RR] = {NULL, NULL, cmov##cc##_rr_32, cmov##cc##_rr_64}, \
		[FAST_RM] = {NULL, NULL, cmov##cc##_rm_32, cmov##cc##_rm_64}}},
#define JCC_ROW(n, cc) [n] = j##cc,

const struct fast_op *fast_setcc_op(unsigned cc)
{
	static const struct fast_op rows[16] = {CONDITIONS(SETCC_ROW)};

	return &rows[cc];
}

const struct fast_op *fast_cmov_op(unsigned cc)
{
	static const struct fast_op rows[16] = {CONDITIONS(CMOV_ROW)};

	return &rows[cc];
}

insn_fn *fast_jcc(unsigned cc)
{
	static insn_fn *const rows[16] = {CONDITIONS(JCC_ROW)};

	return rows[cc];
}
