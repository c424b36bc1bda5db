/* SPDX-License-Identifier: MIT */
/*
 * x87, MMX, vector and mask state.
 *
 * Home: cpu->fpu.area, standard (non-compacted) XSAVE layout of the host. While cpu->fpu.live, the
 * truth is in the host's registers instead: MXCSR and x87 control word are the guest's, and only
 * code built with -mgeneral-regs-only may run. fpu_load() before a borrowed instruction that uses
 * any of it, fpu_save() before calling anything else.
 */
#ifndef SILICON_CPU_FPU_H
#define SILICON_CPU_FPU_H

#include "silicon/cpu/types.h"

struct cpu;

#define FPU_AREA_SIZE 4096 /* every lendable component; checked against CPUID at start */

struct fpu {
	bool live;
	uint16_t host_fcw;
	uint32_t host_mxcsr;
	uint64_t xfeatures; /* components the host lends and the model has: XSAVE/XRSTOR mask */
	/* Last non-control x87 instruction and its operand, as the guest must see them. */
	uint16_t fop;
	uint16_t fcs, fds;
	uint64_t fip, fdp;
	uint8_t area[FPU_AREA_SIZE] __attribute__((aligned(64)));
};

void __fpu_load(struct cpu *cpu);
void __fpu_save(struct cpu *cpu);
/* Power-up or INIT values (SDM, processor state after reset). */
void fpu_reset(struct cpu *cpu);

#endif
