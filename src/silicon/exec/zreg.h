/* SPDX-License-Identifier: MIT */
/* For what re-encodes instructions: Zydis's names of general registers, as numbers, and whether two are the same operation. */
#ifndef SILICON_EXEC_ZREG_H
#define SILICON_EXEC_ZREG_H

#include "silicon/exec/insn.h"

#include <Zydis/Zydis.h>

static inline bool zreg_high(ZydisRegister reg)
{
	return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}

/* General register number of any part of it, or REG_NONE. */
uint8_t zreg_gpr(ZydisRegister reg);
/* The part of general register gpr that is as wide as like. AH to BH stay: nothing else has their place. */
ZydisRegister zreg_same_width(ZydisRegister like, uint8_t gpr);

/*
 * Both do the same to operands that are alike. The vector length is in the operands' sizes; of scalars, which ignore it, it
 * need not stay.
 */
bool zreg_same_operation(const ZydisDecodedInstruction *a, const ZydisDecodedInstruction *b);

#endif
