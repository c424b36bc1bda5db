/* SPDX-License-Identifier: MIT */
/*
 * Effective address to linear address: SDM, protection (limit checking, type checking) and IA-32e mode's canonical
 * check.
 *
 * Limits come from the cached descriptor in every mode; real and virtual-8086 mode differ only in not
 * looking at types. A wrong through SS is #SS, any other is #GP, always with error code 0.
 */
#include "silicon/mmu/mmu.h"

static enum result refuse(struct cpu *cpu, enum seg_id seg)
{
	return fault_raise_error(cpu, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
}

static enum result linear_64(struct cpu *cpu, enum seg_id seg, uint64_t off, uint32_t size,
			     gva_t *ret)
{
	gva_t addr = off;

	if (seg == SEG_FS || seg == SEG_GS)
		addr += cpu->seg[seg].base;
	if (unlikely(!gva_canonical(cpu, addr) || !gva_canonical(cpu, addr + size - 1)))
		return refuse(cpu, seg);
	*ret = addr;
	return RESULT_OK;
}

static bool type_allows(const struct segment *s, enum access_op op)
{
	if (s->attr & SEG_UNUSABLE)
		return false;
	if (op == ACCESS_FETCH)
		return true;
	if (op & ACCESS_WRITE)
		return (s->attr & (SEG_CODE | SEG_W)) == SEG_W;
	return !(s->attr & SEG_CODE) || (s->attr & SEG_W);
}

/* Expand-down segments hold what is above the limit, up to 64 KiB or 4 GiB. */
static bool within_limit(const struct segment *s, uint64_t off, uint32_t size)
{
	uint64_t last = off + size - 1;

	if ((s->attr & (SEG_CODE | SEG_E)) == SEG_E)
		return off > s->limit && last <= (s->attr & SEG_DB ? 0xffffffff : 0xffff);
	return last <= s->limit;
}

enum result seg_linear_checked(struct cpu *cpu, enum seg_id seg, uint64_t off, uint32_t size,
			       enum access_op op, gva_t *ret)
{
	const struct segment *s = &cpu->seg[seg];

	if (cpu->mode.code == CODE_64)
		return linear_64(cpu, seg, off, size, ret);
	if (!cpu->mode.real && !cpu->mode.v86 && !type_allows(s, op))
		return refuse(cpu, seg);
	if (!within_limit(s, off, size))
		return refuse(cpu, seg);
	*ret = (uint32_t)(s->base + off);
	return RESULT_OK;
}
