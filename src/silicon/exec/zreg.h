/* SPDX-License-Identifier: MIT */
/* Zydis's names of general registers, as numbers: for what re-encodes instructions. */
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

#endif
