/* SPDX-License-Identifier: MIT */
/* Vector and mask registers by element, in the saved image. Private to exec/masked.c and gather.c. */
#ifndef SILICON_EXEC_ELEMENT_H
#define SILICON_EXEC_ELEMENT_H

#include "silicon/exec/cache.h"

#define XSAVE_XMM    160
#define XSAVE_HEADER 512

/* vCPU thread, fpu_save() done. Byte at of vector register reg; elements do not cross 16 bytes. */
static inline uint8_t *vector_byte(struct cpu *cpu, unsigned reg, unsigned at)
{
	const struct exec_cache *c = cpu->exec;
	uint8_t *area = cpu->fpu.area;

	if (reg >= 16)
		return area + c->xoff_hi16 + 64 * (reg - 16) + at;
	if (at < 16)
		return area + XSAVE_XMM + 16 * reg + at;
	if (at < 32)
		return area + c->xoff_avx + 16 * reg + at - 16;
	return area + c->xoff_zmm_hi + 32 * reg + at - 32;
}

static inline uint64_t vector_get(struct cpu *cpu, unsigned reg, unsigned i, unsigned size)
{
	uint64_t val = 0;

	__builtin_memcpy(&val, vector_byte(cpu, reg, i * size), size);
	return val;
}

static inline void vector_put(struct cpu *cpu, unsigned reg, unsigned i, unsigned size,
			      uint64_t val)
{
	__builtin_memcpy(vector_byte(cpu, reg, i * size), &val, size);
}

static inline uint64_t *mask_register(struct cpu *cpu, unsigned k)
{
	return (uint64_t *)(cpu->fpu.area + cpu->exec->xoff_k) + k;
}

/* The image was written: all of its components are to be loaded. */
static inline void vector_changed(struct cpu *cpu)
{
	*(uint64_t *)(cpu->fpu.area + XSAVE_HEADER) |= cpu->fpu.xfeatures;
}

#endif
