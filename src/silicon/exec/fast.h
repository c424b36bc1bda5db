/* SPDX-License-Identifier: MIT */
/* The most frequent forms of 64-bit mode. Room header of exec/. */
#ifndef SILICON_EXEC_FAST_H
#define SILICON_EXEC_FAST_H

#include "silicon/exec/cache.h"

/* Put a faster function in ->run where there is one; the one chosen before stays in ->general. */
void fast_choose(const ZydisDecodedInstruction *z, struct insn *insn);

#endif
