/* SPDX-License-Identifier: MIT */
/* Which exception an instruction raises for being what it is, in this mode, on this model. Room header. */
#ifndef SILICON_EXEC_LEGAL_H
#define SILICON_EXEC_LEGAL_H

#include "silicon/exec/cache.h"

#define LEGAL 0xff

/* VEC_UD, VEC_NM or LEGAL. Ordinary C; model_features of cpu and the mode key decide. */
uint8_t legal_trap(const struct cpu *cpu, uint16_t key, const ZydisDecodedInstruction *z,
		   const ZydisDecodedOperand *ops);

#endif
