/* SPDX-License-Identifier: MIT */
/*
 * Stacks of far transfers and events (SDM, stack switching).
 *
 * A struct stack is a copy: pushes and pops move its pointer, and stack_commit() makes it the
 * processor's at the end. Accesses are made at the stack's own privilege level, so the present one
 * is lent for their duration.
 */
#include "silicon/sys/sys_internal.h"

static uint8_t lend_cpl(struct cpu *cpu, uint8_t cpl)
{
	uint8_t old = cpu->mode.cpl;

	if (old != cpl) {
		cpu->mode.cpl = cpl;
		cpu_update_access(cpu);
	}
	return old;
}

static uint64_t width_mask(unsigned bytes)
{
	return bytes == 8 ? ~0ull : BIT(bytes * 8) - 1;
}

struct stack stack_here(const struct cpu *cpu)
{
	return (struct stack){
		.ss = cpu->seg[SEG_SS],
		.sp = cpu->gpr[RSP],
		.mask = width_mask(cpu->mode.stack_bytes),
		.cpl = cpu->mode.cpl,
		.flat64 = cpu_64bit(cpu),
	};
}

struct stack stack_flat64(const struct cpu *cpu, unsigned cpl, uint64_t sp)
{
	return (struct stack){
		.ss = cpu->seg[SEG_SS],
		.sp = sp,
		.mask = ~0ull,
		.cpl = cpl,
		.flat64 = true,
	};
}

/* ---- addresses ---- */

static bool within_limit(const struct segment *ss, uint64_t off, unsigned size)
{
	uint64_t last = off + size - 1;

	if (ss->attr & SEG_UNUSABLE)
		return false;
	if (ss->attr & SEG_E)
		return off > ss->limit && last <= (ss->attr & SEG_DB ? 0xffffffffu : 0xffffu);
	return last <= ss->limit;
}

static enum result stack_linear(struct cpu *cpu, const struct stack *s, uint64_t sp, unsigned size,
				gva_t *ret)
{
	uint64_t off = sp & s->mask;
	bool ok;

	if (s->flat64)
		ok = gva_canonical(cpu, off) && gva_canonical(cpu, off + size - 1);
	else
		ok = within_limit(&s->ss, off, size);
	if (!ok)
		return fault_raise_error(cpu, VEC_SS, s->error);
	*ret = s->flat64 ? off : (uint32_t)(s->ss.base + off);
	return RESULT_OK;
}

/* ---- pushes and pops ---- */

static enum result probe_each(struct cpu *cpu, const struct stack *s, unsigned size, unsigned count)
{
	enum result r = RESULT_OK;
	gva_t addr;

	for (unsigned i = 1; !r && i <= count; i++) {
		r = stack_linear(cpu, s, s->sp - i * size, size, &addr);
		if (!r)
			r = mmu_probe(cpu, addr, size, ACCESS_WRITE);
	}
	return r;
}

enum result stack_reserve(struct cpu *cpu, const struct stack *s, unsigned size, unsigned count)
{
	gva_t first, last;
	enum result r;
	uint8_t cpl;

	r = stack_linear(cpu, s, s->sp - size, size, &last);
	if (r)
		return r;
	r = stack_linear(cpu, s, s->sp - size * count, size, &first);
	if (r)
		return r;
	/* In one page the first push fails or none does. */
	if (!((first ^ (last + size - 1)) >> PAGE_SHIFT))
		return RESULT_OK;
	cpl = lend_cpl(cpu, s->cpl);
	r = probe_each(cpu, s, size, count);
	lend_cpl(cpu, cpl);
	return r;
}

void stack_skip(struct stack *s, int64_t bytes)
{
	uint64_t moved = (s->sp + bytes) & s->mask;

	s->sp = s->mask == 0xffff ? (s->sp & ~0xffffull) | moved : moved;
}

enum result stack_push(struct cpu *cpu, struct stack *s, unsigned size, uint64_t val)
{
	enum result r;
	uint8_t cpl;
	gva_t addr;

	r = stack_linear(cpu, s, s->sp - size, size, &addr);
	if (r)
		return r;
	cpl = lend_cpl(cpu, s->cpl);
	r = mmu_write(cpu, addr, size, val & width_mask(size));
	lend_cpl(cpu, cpl);
	if (!r)
		stack_skip(s, -(int64_t)size);
	return r;
}

enum result stack_pop(struct cpu *cpu, struct stack *s, unsigned size, uint64_t *ret)
{
	enum result r;
	gva_t addr;

	r = stack_linear(cpu, s, s->sp, size, &addr);
	if (!r)
		r = mmu_read(cpu, addr, size, ret);
	if (!r)
		stack_skip(s, size);
	return r;
}

void stack_commit(struct cpu *cpu, const struct stack *s)
{
	cpu->gpr[RSP] = s->sp;
	cpu->seg[SEG_SS] = s->ss;
}

/* ---- stacks in the TSS ---- */

/* Read size bytes at off of the TSS; bytes beyond its limit: #TS(TR). */
static enum result tss_read(struct cpu *cpu, uint32_t off, unsigned size, uint64_t *ret)
{
	const struct segment *tr = &cpu->seg[SEG_TR];
	gva_t addr = tr->base + off;

	if (off + size - 1 > tr->limit)
		return fault_raise_error(cpu, VEC_TS, SEL_ERROR(tr->sel));
	return mmu_read_sys(cpu, cpu_long_mode(cpu) ? addr : (uint32_t)addr, size, ret);
}

enum result tss_read_rsp(struct cpu *cpu, unsigned index, uint64_t *ret)
{
	return tss_read(cpu, 4 + index * 8, 8, ret);
}

static enum result tss_read_inner(struct cpu *cpu, unsigned cpl, uint64_t *ret_ss, uint64_t *ret_sp)
{
	bool wide = cpu->seg[SEG_TR].attr & 8;
	unsigned size = wide ? 4 : 2;
	uint32_t off = size + cpl * size * 2;
	enum result r;

	r = tss_read(cpu, off + size, 2, ret_ss);
	if (!r)
		r = tss_read(cpu, off, size, ret_sp);
	return r;
}

enum result stack_inner(struct cpu *cpu, unsigned cpl, struct stack *ret)
{
	uint64_t ss, sp;
	struct desc d;
	enum result r;

	r = tss_read_inner(cpu, cpl, &ss, &sp);
	if (r)
		return r;
	if (sel_null(ss))
		return fault_raise_error(cpu, VEC_TS, 0);
	r = segment_check_ss(cpu, ss, cpl, VEC_TS, &d);
	if (r)
		return r;
	*ret = (struct stack){
		.ss = desc_segment(&d, ss),
		.sp = sp,
		.mask = d.attr & SEG_DB ? 0xffffffff : 0xffff,
		.cpl = cpl,
		.error = SEL_ERROR(ss),
	};
	return RESULT_OK;
}
