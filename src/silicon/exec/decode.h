/* SPDX-License-Identifier: MIT */
/*
 * Bytes -> struct insn. Room header of exec/.
 *
 * A decoded instruction is valid for its bytes under one mode key: everything outside the bytes that
 * its decoding or its legality depends on, in 16 bits. CPL is not in the key: handlers check it.
 */
#ifndef SILICON_EXEC_DECODE_H
#define SILICON_EXEC_DECODE_H

#include "silicon/exec/cache.h"
#include "silicon/exec/insn.h"

#define KEY_CODE      0x3    /* enum code_mode */
#define KEY_PROTECTED BIT(2) /* neither real nor virtual-8086 mode */
#define KEY_EM	      BIT(3)
#define KEY_TS	      BIT(4)
#define KEY_MP	      BIT(5)
#define KEY_OSFXSR    BIT(6)
#define KEY_OSXSAVE   BIT(7)
#define KEY_XCR0_AVX  BIT(8)
#define KEY_XCR0_512  BIT(9)
#define KEY_XCR0_AMX  BIT(10)
#define KEY_GUEST     BIT(11) /* guest mode: instructions may be intercepted */
#define KEY_VALID     BIT(15) /* an empty cache line matches nothing */

static inline uint16_t decode_key(const struct cpu *cpu)
{
	unsigned key = KEY_VALID | cpu->mode.code;

	if (!cpu->mode.real && !cpu->mode.v86)
		key |= KEY_PROTECTED;
	/* EM, TS and MP stand in the order MP, EM, TS in CR0. */
	key |= (cpu->cr0 & (CR0_EM | CR0_TS)) << 1;
	key |= (cpu->cr0 & CR0_MP) << 4;
	key |= (cpu->cr4 & CR4_OSFXSR) >> 3;
	key |= (cpu->cr4 & CR4_OSXSAVE) >> 11;
	if ((cpu->xcr0 & (XCR0_SSE | XCR0_AVX)) == (XCR0_SSE | XCR0_AVX))
		key |= KEY_XCR0_AVX | ((cpu->xcr0 & XCR0_AVX512) == XCR0_AVX512 ? KEY_XCR0_512 : 0);
	if ((cpu->xcr0 & XCR0_AMX) == XCR0_AMX)
		key |= KEY_XCR0_AMX;
	if (cpu_guest(cpu))
		key |= KEY_GUEST;
	return key;
}

/*
 * vCPU thread, vector state saved (Zydis is ordinary C). Decode nr bytes, at most 15, under key. False
 * if the instruction is longer than nr bytes, ret then being undefined; else *ret is whole, and raises
 * its exception where it is not legal.
 */
bool decode_insn(struct cpu *cpu, uint16_t key, const uint8_t *bytes, unsigned nr,
		 struct insn *ret);
/*
 * The same, with Zydis's answer: its decoder's, or where it rejects the bytes all zero. Of ops, which has
 * ZYDIS_MAX_OPERAND_COUNT, only those that there are.
 */
bool decode_both(struct cpu *cpu, uint16_t key, const uint8_t *bytes, unsigned nr, struct insn *ret,
		 ZydisDecodedInstruction *ret_z, ZydisDecodedOperand *ret_ops);

/* ---- decode_memo.c, for decoding and translation: vector state saved ---- */

/* NULL: no memory. To be freed by free(). */
struct decode_memo *decode_memo_create(void);
/* What decode_both() would return, if it is known; without Zydis's answer where ret_z is NULL. */
bool decode_memo_find(struct exec_cache *c, uint16_t key, const uint8_t *bytes, unsigned nr,
		      struct insn *ret, ZydisDecodedInstruction *ret_z,
		      ZydisDecodedOperand *ret_ops);
/* What decoding said. */
void decode_memo_put(struct exec_cache *c, const uint8_t *bytes, unsigned nr,
		     const struct insn *insn, const ZydisDecodedInstruction *z,
		     const ZydisDecodedOperand *ops);

/* ->run of an instruction that only raises insn->trap. */
insn_fn run_trap;
/* ->run of one that may end in an exit to a guest hypervisor (emul_virt.c): notes it in cpu->virt->insn first. */
insn_fn run_watched;

#endif
