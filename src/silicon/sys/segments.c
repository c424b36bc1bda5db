/* SPDX-License-Identifier: MIT */
/*
 * Descriptor loads (SDM, protection).
 *
 * A selector becomes a struct desc, is judged, marked accessed in memory with a LOCKed exchange and
 * only then committed to the segment register: nothing is committed before the last check. The
 * checks take the vector of their faults as an argument, for a task switch reports as #TS what
 * a MOV reports as #GP.
 */
#include "silicon/sys/sys_internal.h"

/* ---- fetch ---- */

static void desc_take_apart(struct desc *d)
{
	uint32_t lo = d->raw;
	uint32_t hi = d->raw >> 32;

	d->attr = (hi >> 8) & 0xf0ff;
	d->base = (lo >> 16) | (hi & 0xff) << 16 | (hi & 0xff000000);
	d->limit = (lo & 0xffff) | (hi & 0xf0000);
	if (d->attr & SEG_G)
		d->limit = d->limit << 12 | 0xfff;
}

/* Linear address of the descriptor if bytes of it lie within its table. */
static bool desc_address(const struct cpu *cpu, uint16_t sel, unsigned bytes, gva_t *ret)
{
	const struct segment *ldt = &cpu->seg[SEG_LDTR];
	uint32_t off = sel & 0xfff8;
	uint64_t base = cpu->gdtr.base;
	uint32_t limit = cpu->gdtr.limit;

	if (SEL_TI(sel)) {
		if ((ldt->attr & SEG_UNUSABLE) || sel_null(ldt->sel))
			return false;
		base = ldt->base;
		limit = ldt->limit;
	}
	if (off + bytes - 1 > limit)
		return false;
	*ret = cpu_long_mode(cpu) ? base + off : (uint32_t)(base + off);
	return true;
}

static enum result desc_read(struct cpu *cpu, uint16_t sel, gva_t addr, struct desc *ret)
{
	enum result r;

	ret->addr = addr;
	ret->sel = sel;
	r = mmu_read_sys(cpu, addr, 8, &ret->raw);
	if (!r)
		desc_take_apart(ret);
	return r;
}

enum result desc_fetch(struct cpu *cpu, uint16_t sel, uint8_t vector, struct desc *ret)
{
	gva_t addr;

	if (!desc_address(cpu, sel, 8, &addr))
		return fault_raise_error(cpu, vector, SEL_ERROR(sel));
	return desc_read(cpu, sel, addr, ret);
}

/* The same from the GDT only; in long mode 16 bytes, upper type field and base checked. */
static enum result fetch_system(struct cpu *cpu, uint16_t sel, uint8_t vector, struct desc *ret)
{
	bool wide = cpu_long_mode(cpu);
	uint64_t high;
	enum result r;
	gva_t addr;

	if (SEL_TI(sel) || !desc_address(cpu, sel, wide ? 16 : 8, &addr))
		return fault_raise_error(cpu, vector, SEL_ERROR(sel));
	r = desc_read(cpu, sel, addr, ret);
	if (r || !wide || (ret->attr & SEG_S))
		return r;
	r = mmu_read_sys(cpu, addr + 8, 8, &high);
	if (r)
		return r;
	ret->base |= high << 32;
	if (((high >> 40) & 0x1f) || !gva_canonical(cpu, ret->base))
		return fault_raise_error(cpu, vector, SEL_ERROR(sel));
	return RESULT_OK;
}

/* ---- bits that the processor writes ---- */

/* Change bits of a descriptor's second dword with LOCKed exchanges until one holds. */
static enum result desc_change(struct cpu *cpu, gva_t addr, uint32_t set, uint32_t clear)
{
	uint64_t old, want;
	enum result r;

	r = mmu_read_sys(cpu, addr + 4, 4, &old);
	while (!r) {
		want = old;
		r = mmu_cmpxchg_sys(cpu, addr + 4, 4, &old, (old | set) & ~(uint64_t)clear);
		if (!r && old == want)
			break;
	}
	return r;
}

enum result desc_mark_accessed(struct cpu *cpu, struct desc *d)
{
	enum result r;

	if (d->attr & SEG_A)
		return RESULT_OK;
	r = desc_change(cpu, d->addr, SEG_A << 8, 0);
	if (!r)
		d->attr |= SEG_A;
	return r;
}

enum result desc_mark_busy(struct cpu *cpu, gva_t addr, bool busy)
{
	return desc_change(cpu, addr, busy ? TSS_BUSY << 8 : 0, busy ? 0 : TSS_BUSY << 8);
}

/* ---- segment registers from descriptors ---- */

struct segment desc_segment(const struct desc *d, uint16_t sel)
{
	return (struct segment){
		.base = d->base,
		.limit = d->limit,
		.attr = d->attr,
		.sel = sel,
	};
}

struct segment segment_v86(uint16_t sel)
{
	return (struct segment){
		.base = (uint32_t)sel << 4,
		.limit = 0xffff,
		.attr = SEG_P | 3 << SEG_DPL_SHIFT | SEG_S | SEG_W | SEG_A,
		.sel = sel,
	};
}

void segment_set_null(struct cpu *cpu, enum seg_id seg, uint16_t sel)
{
	struct segment *s = &cpu->seg[seg];

	s->sel = sel;
	s->attr = SEG_UNUSABLE;
	if (seg == SEG_SS)
		s->attr |= cpu->mode.cpl << SEG_DPL_SHIFT;
	if (model_null_clears_base(cpu->model)) {
		s->base = 0;
		s->limit = 0;
	}
}

void segment_set_real(struct cpu *cpu, enum seg_id seg, uint16_t sel)
{
	struct segment *s = &cpu->seg[seg];

	s->sel = sel;
	s->base = (uint32_t)sel << 4;
	s->attr &= SEG_DB | SEG_G | SEG_AVL;
	s->attr |= SEG_P | SEG_S | SEG_W | SEG_A | (seg == SEG_CS ? SEG_CODE : 0);
}

enum result segment_check_ss(struct cpu *cpu, uint16_t sel, unsigned cpl, uint8_t vector,
			     struct desc *ret)
{
	enum result r;

	r = desc_fetch(cpu, sel, vector, ret);
	if (r)
		return r;
	if (SEL_RPL(sel) != cpl || SEG_DPL(ret->attr) != cpl || !desc_writable(ret))
		return fault_raise_error(cpu, vector, SEL_ERROR(sel));
	if (!desc_present(ret))
		return fault_raise_error(cpu, VEC_SS, SEL_ERROR(sel));
	return desc_mark_accessed(cpu, ret);
}

/* Data and non-conforming code need both CPL and RPL at least as privileged as DPL. */
static bool data_privilege_ok(const struct desc *d, uint16_t sel, unsigned cpl)
{
	unsigned dpl = SEG_DPL(d->attr);

	return desc_conforming(d) || (SEL_RPL(sel) <= dpl && cpl <= dpl);
}

enum result segment_check_data(struct cpu *cpu, uint16_t sel, unsigned cpl, uint8_t vector,
			       struct desc *ret)
{
	enum result r;

	r = desc_fetch(cpu, sel, vector, ret);
	if (r)
		return r;
	if (!desc_readable(ret) || !data_privilege_ok(ret, sel, cpl))
		return fault_raise_error(cpu, vector, SEL_ERROR(sel));
	if (!desc_present(ret))
		return fault_raise_error(cpu, VEC_NP, SEL_ERROR(sel));
	return desc_mark_accessed(cpu, ret);
}

/* ---- MOV, POP, LDS and the like ---- */

static bool null_ss_allowed(const struct cpu *cpu, uint16_t sel)
{
	return cpu_64bit(cpu) && cpu->mode.cpl != 3 && SEL_RPL(sel) == cpu->mode.cpl;
}

static enum result load_null(struct cpu *cpu, enum seg_id seg, uint16_t sel)
{
	if (seg == SEG_SS && !null_ss_allowed(cpu, sel))
		return fault_gp(cpu, 0);
	segment_set_null(cpu, seg, sel);
	return RESULT_OK;
}

static enum result load_protected(struct cpu *cpu, enum seg_id seg, uint16_t sel)
{
	struct desc d;
	enum result r;

	if (sel_null(sel))
		return load_null(cpu, seg, sel);
	if (seg == SEG_SS)
		r = segment_check_ss(cpu, sel, cpu->mode.cpl, VEC_GP, &d);
	else
		r = segment_check_data(cpu, sel, cpu->mode.cpl, VEC_GP, &d);
	if (!r)
		cpu->seg[seg] = desc_segment(&d, sel);
	return r;
}

enum result sys_load_segment(struct cpu *cpu, enum seg_id seg, uint16_t sel)
{
	enum result r = RESULT_OK;

	if (cpu->mode.real)
		segment_set_real(cpu, seg, sel);
	else if (cpu->mode.v86)
		cpu->seg[seg] = segment_v86(sel);
	else
		r = load_protected(cpu, seg, sel);
	if (!r)
		cpu_update_mode(cpu);
	return r;
}

enum result sys_load_ldtr(struct cpu *cpu, uint16_t sel)
{
	struct desc d;
	enum result r;

	if (sel_null(sel)) {
		cpu->seg[SEG_LDTR] = (struct segment){.sel = sel, .attr = SEG_UNUSABLE};
		return RESULT_OK;
	}
	r = fetch_system(cpu, sel, VEC_GP, &d);
	if (r)
		return r;
	if (!desc_system(&d, DESC_LDT))
		return fault_gp(cpu, SEL_ERROR(sel));
	if (!desc_present(&d))
		return fault_raise_error(cpu, VEC_NP, SEL_ERROR(sel));
	cpu->seg[SEG_LDTR] = desc_segment(&d, sel);
	return RESULT_OK;
}

enum result sys_load_tr(struct cpu *cpu, uint16_t sel)
{
	struct desc d;
	enum result r;

	if (sel_null(sel))
		return fault_gp(cpu, 0);
	r = fetch_system(cpu, sel, VEC_GP, &d);
	if (r)
		return r;
	if (!desc_tss(&d, false) || (cpu_long_mode(cpu) && !desc_system(&d, DESC_TSS32)))
		return fault_gp(cpu, SEL_ERROR(sel));
	if (!desc_present(&d))
		return fault_raise_error(cpu, VEC_NP, SEL_ERROR(sel));
	r = desc_mark_busy(cpu, d.addr, true);
	if (r)
		return r;
	d.attr |= TSS_BUSY;
	cpu->seg[SEG_TR] = desc_segment(&d, sel);
	return RESULT_OK;
}

/* ---- LAR, LSL, VERR, VERW ---- */

/* System types that LAR and LSL know, as bitmaps by type (SDM, LAR and LSL). */
#define LAR_LEGACY 0x1a3eu
#define LAR_LONG   0x1a04u
#define LSL_LEGACY 0x0a0eu
#define LSL_LONG   0x0a04u

/* Fetch for a question: everything but a page fault is the answer no. */
static enum result ask_descriptor(struct cpu *cpu, uint16_t sel, bool *ret_ok, struct desc *d)
{
	enum result r;
	gva_t addr;

	*ret_ok = !sel_null(sel) && desc_address(cpu, sel, 8, &addr);
	if (!*ret_ok)
		return RESULT_OK;
	r = desc_read(cpu, sel, addr, d);
	if (r)
		return r;
	*ret_ok = data_privilege_ok(d, sel, cpu->mode.cpl);
	return RESULT_OK;
}

/* A 16-byte descriptor must lie within its table and have a zero upper type. */
static enum result ask_upper_half(struct cpu *cpu, uint16_t sel, bool *ret_ok)
{
	uint64_t high;
	enum result r;
	gva_t addr;

	*ret_ok = desc_address(cpu, sel, 16, &addr);
	if (!*ret_ok)
		return RESULT_OK;
	r = mmu_read_sys(cpu, addr + 8, 8, &high);
	if (!r)
		*ret_ok = !((high >> 40) & 0x1f);
	return r;
}

static enum result ask_types(struct cpu *cpu, uint16_t sel, uint32_t legacy, uint32_t lng,
			     bool *ret_ok, struct desc *d)
{
	enum result r;
	uint32_t types;

	r = ask_descriptor(cpu, sel, ret_ok, d);
	if (r || !*ret_ok || (d->attr & SEG_S))
		return r;
	types = cpu_long_mode(cpu) ? lng : legacy;
	*ret_ok = types >> SEG_TYPE(d->attr) & 1;
	if (*ret_ok && cpu_long_mode(cpu))
		return ask_upper_half(cpu, sel, ret_ok);
	return RESULT_OK;
}

enum result sys_lar(struct cpu *cpu, uint16_t sel, bool *ret_ok, uint32_t *ret)
{
	struct desc d;
	enum result r;

	r = ask_types(cpu, sel, LAR_LEGACY, LAR_LONG, ret_ok, &d);
	if (!r && *ret_ok)
		*ret = (d.raw >> 32) & 0x00ffff00;
	return r;
}

enum result sys_lsl(struct cpu *cpu, uint16_t sel, bool *ret_ok, uint32_t *ret)
{
	struct desc d;
	enum result r;

	r = ask_types(cpu, sel, LSL_LEGACY, LSL_LONG, ret_ok, &d);
	if (!r && *ret_ok)
		*ret = d.limit;
	return r;
}

enum result sys_verify(struct cpu *cpu, uint16_t sel, bool write, bool *ret_ok)
{
	struct desc d;
	enum result r;

	r = ask_descriptor(cpu, sel, ret_ok, &d);
	if (!r && *ret_ok)
		*ret_ok = write ? desc_writable(&d) : desc_readable(&d);
	return r;
}
