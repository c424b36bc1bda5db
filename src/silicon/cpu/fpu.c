/* SPDX-License-Identifier: MIT */
/*
 * Guest vector state between memory and the host's registers.
 *
 * XSAVE and XRSTOR move all components that the host lends (fpu.xfeatures); with none, FXSAVE
 * and FXRSTOR move x87 and SSE. Who writes components into the area must set their bits in the XSAVE
 * header (XSTATE_BV), or they load as initial values. The caller of C code is entitled to its own
 * MXCSR and x87 control word and to an empty x87 stack: loading keeps them, saving brings them back.
 */
#include "silicon/cpu/cpu.h"

#include <string.h>

#define FXSAVE_FCW	  0
#define FXSAVE_MXCSR	  24
#define FXSAVE_MXCSR_MASK 28

#define FCW_DEFAULT   0x37f
#define MXCSR_DEFAULT 0x1f80

void __fpu_load(struct cpu *cpu)
{
	struct fpu *fpu = &cpu->fpu;
	uint32_t low = fpu->xfeatures, high = fpu->xfeatures >> 32;

	asm volatile("fnstcw %0; stmxcsr %1" : "=m"(fpu->host_fcw), "=m"(fpu->host_mxcsr));
	if (fpu->xfeatures)
		asm volatile("xrstor64 %0" ::"m"(fpu->area), "a"(low), "d"(high) : "memory");
	else
		asm volatile("fxrstor64 %0" ::"m"(fpu->area) : "memory");
	fpu->live = true;
}

void __fpu_save(struct cpu *cpu)
{
	struct fpu *fpu = &cpu->fpu;
	uint32_t low = fpu->xfeatures, high = fpu->xfeatures >> 32;

	if (fpu->xfeatures)
		asm volatile("xsave64 %0" : "+m"(fpu->area) : "a"(low), "d"(high) : "memory");
	else
		asm volatile("fxsave64 %0" : "+m"(fpu->area)::"memory");
	asm volatile("fninit; fldcw %0; ldmxcsr %1" ::"m"(fpu->host_fcw), "m"(fpu->host_mxcsr));
	if (fpu->xfeatures & XCR0_AVX)
		asm volatile("vzeroupper");
	fpu->live = false;
}

/* FCW is FNINIT's, as KVM has it, not the 40h of a power-up that no firmware relies on. */
void fpu_reset(struct cpu *cpu)
{
	struct fpu *fpu = &cpu->fpu;

	fpu_save(cpu);
	memset(fpu->area, 0, sizeof(fpu->area));
	*(uint16_t *)(fpu->area + FXSAVE_FCW) = FCW_DEFAULT;
	*(uint32_t *)(fpu->area + FXSAVE_MXCSR) = MXCSR_DEFAULT;
	*(uint32_t *)(fpu->area + FXSAVE_MXCSR_MASK) = 0xffff;
	fpu->fop = 0;
	fpu->fcs = 0;
	fpu->fds = 0;
	fpu->fip = 0;
	fpu->fdp = 0;
}
