/* SPDX-License-Identifier: MIT */
/* Random instructions and the state to run them in. */
#ifndef TESTS_INSN_GEN_H
#define TESTS_INSN_GEN_H

#include "native.h"

#include <Zydis/Zydis.h>

/* Offsets in the XSAVE area, or 0. */
struct gen_offsets {
	uint32_t avx, k, zmm_hi, hi16;
};

struct testcase {
	uint8_t bytes[16];
	unsigned len;
	bool decoded; /* the decoder knows it; else z is undefined */
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	struct state in;
	uint64_t code;	     /* linear address of the bytes */
	uint64_t target;     /* linear address that memory operands were steered to */
	uint8_t memory[128]; /* what stands there before */
	struct gen_offsets offsets;
	uint8_t image[XAREA]; /* the same for what loads an FPU image */
	unsigned image_size;  /* or 0 */
	uint64_t flags;	      /* on the stack, for POPF */
};

struct gen {
	uint64_t seed;
	const struct segments *segs;
	ZydisDecoder decoder;
	uint32_t xoff_avx, xoff_k, xoff_zmm_hi, xoff_hi16; /* offsets in the XSAVE area, or 0 */
	uint64_t mask;
	uint8_t fixed[15]; /* opcode bytes that all cases begin with */
	unsigned nr_fixed;
	uint32_t made[ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* cases so far */
	uint32_t nr_made;
};

void gen_init(struct gen *g, const struct segments *segs, uint64_t seed, uint64_t mask);
/* One case: an encoding that can be run here, in a state where its operands are in the sandbox. */
void gen_case(struct gen *g, struct testcase *t);

#endif
