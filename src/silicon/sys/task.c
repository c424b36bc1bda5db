/* SPDX-License-Identifier: MIT */
/*
 * Hardware task switches (SDM, task management), 16- and 32-bit TSS.
 *
 * Everything that can fail in the old task is done first: descriptor, both TSSs probed, the new one read
 * whole. Then comes the commit point; faults after it (CR3, LDT, segments, the pushed error code)
 * are returned as RESULT_FAULT too, but belong to the new task, whose state stands by then.
 */
#include "silicon/sys/sys_internal.h"

/* Where a TSS keeps things; size is that of its registers. */
struct tss_layout {
	uint8_t size;
	uint8_t cr3, ip, flags, regs, segs, ldt, trap;
	uint8_t nr_segs;
	uint8_t min_limit;
};

static const struct tss_layout layout16 = {
	.size = 2,
	.ip = 0x0e,
	.flags = 0x10,
	.regs = 0x12,
	.segs = 0x22,
	.ldt = 0x2a,
	.nr_segs = 4,
	.min_limit = 0x2b,
};
static const struct tss_layout layout32 = {
	.size = 4,
	.cr3 = 0x1c,
	.ip = 0x20,
	.flags = 0x24,
	.regs = 0x28,
	.segs = 0x48,
	.ldt = 0x60,
	.trap = 0x64,
	.nr_segs = 6,
	.min_limit = 0x67,
};

/* A task's state as its TSS holds it. */
struct task_state {
	uint64_t ip, flags, cr3, ldt, trap;
	uint64_t regs[8];
	uint64_t segs[6];
};

struct task_switch {
	struct desc d; /* of the new TSS */
	const struct tss_layout *to, *from;
	uint64_t from_base;
	uint16_t from_sel;
	bool nested, leaves; /* CALL or gate; JMP or IRET */
	struct task_state state;
};

static const struct tss_layout *layout_of(uint32_t attr)
{
	return attr & 8 ? &layout32 : &layout16;
}

/* ---- checks in the old task ---- */

static enum result check_descriptor(struct cpu *cpu, uint16_t sel, enum task_switch_reason why,
				    struct desc *d)
{
	uint8_t vector = why == TASK_IRET ? VEC_TS : VEC_GP;
	enum result r;

	if (sel_null(sel) || SEL_TI(sel))
		return fault_raise_error(cpu, vector, SEL_ERROR(sel));
	r = desc_fetch(cpu, sel, vector, d);
	if (r)
		return r;
	if (!desc_tss(d, why == TASK_IRET))
		return fault_raise_error(cpu, vector, SEL_ERROR(sel));
	if (!desc_present(d))
		return fault_raise_error(cpu, VEC_NP, SEL_ERROR(sel));
	if (d->limit < layout_of(d->attr)->min_limit)
		return fault_raise_error(cpu, VEC_TS, SEL_ERROR(sel));
	return RESULT_OK;
}

static enum result probe_both(struct cpu *cpu, const struct task_switch *ts)
{
	enum access_op op = ts->nested ? ACCESS_RMW : ACCESS_READ;
	enum result r;

	r = mmu_probe_sys(cpu, (uint32_t)ts->d.base, ts->to->min_limit + 1, op);
	if (r)
		return r;
	return mmu_probe_sys(cpu, (uint32_t)(ts->from_base + ts->from->ip),
			     ts->from->min_limit + 1 - ts->from->ip, ACCESS_RMW);
}

static enum result read_field(struct cpu *cpu, uint64_t base, unsigned off, unsigned size,
			      uint64_t *ret)
{
	return mmu_read_sys(cpu, (uint32_t)(base + off), size, ret);
}

static enum result read_state(struct cpu *cpu, struct task_switch *ts)
{
	const struct tss_layout *l = ts->to;
	struct task_state *t = &ts->state;
	uint64_t base = ts->d.base;
	enum result r;

	r = read_field(cpu, base, l->ip, l->size, &t->ip);
	if (!r)
		r = read_field(cpu, base, l->flags, l->size, &t->flags);
	for (unsigned i = 0; !r && i < 8; i++)
		r = read_field(cpu, base, l->regs + i * l->size, l->size, &t->regs[i]);
	for (unsigned i = 0; !r && i < l->nr_segs; i++)
		r = read_field(cpu, base, l->segs + i * l->size, 2, &t->segs[i]);
	if (!r)
		r = read_field(cpu, base, l->ldt, 2, &t->ldt);
	if (!r && l->cr3)
		r = read_field(cpu, base, l->cr3, 4, &t->cr3);
	if (!r && l->trap)
		r = read_field(cpu, base, l->trap, 2, &t->trap);
	return r;
}

/* ---- memory changes; probed, so that only a race or the program's doing can stop them ---- */

static enum result write_field(struct cpu *cpu, uint64_t base, unsigned off, unsigned size,
			       uint64_t val)
{
	if (size == 2)
		val &= 0xffff;
	return mmu_write_sys(cpu, (uint32_t)(base + off), size, size == 4 ? (uint32_t)val : val);
}

static enum result save_old(struct cpu *cpu, const struct task_switch *ts, uint64_t next,
			    bool clear_nt)
{
	const struct tss_layout *l = ts->from;
	uint64_t flags = cpu_rflags(cpu) & ~(clear_nt ? (uint64_t)FLAG_NT : 0);
	uint64_t base = ts->from_base;
	enum result r;

	r = write_field(cpu, base, l->ip, l->size, next);
	if (!r)
		r = write_field(cpu, base, l->flags, l->size, flags);
	for (unsigned i = 0; !r && i < 8; i++)
		r = write_field(cpu, base, l->regs + i * l->size, l->size, cpu->gpr[i]);
	for (unsigned i = 0; !r && i < l->nr_segs; i++)
		r = write_field(cpu, base, l->segs + i * l->size, 2, cpu->seg[i].sel);
	return r;
}

/* Busy bits and the back link. */
static enum result mark_tasks(struct cpu *cpu, const struct task_switch *ts,
			      enum task_switch_reason why)
{
	gva_t from = cpu->gdtr.base + (ts->from_sel & 0xfff8);
	enum result r = RESULT_OK;

	if (ts->leaves && !sel_null(ts->from_sel))
		r = desc_mark_busy(cpu, (uint32_t)from, false);
	if (!r && why != TASK_IRET)
		r = desc_mark_busy(cpu, ts->d.addr, true);
	if (!r && ts->nested)
		r = write_field(cpu, ts->d.base, 0, 2, ts->from_sel);
	return r;
}

/* ---- the new task's state; from here on faults are its own ---- */

static enum result load_cr3(struct cpu *cpu, const struct task_switch *ts)
{
	enum result r;

	if (!ts->to->cr3 || !cpu_paging(cpu))
		return RESULT_OK;
	cpu->cr3 = ts->state.cr3;
	mmu_flush_cr3(cpu);
	if (!(cpu->cr4 & CR4_PAE))
		return RESULT_OK;
	r = mmu_load_pdptes(cpu, ts->state.cr3);
	return r == RESULT_FAULT ? fault_raise_error(cpu, VEC_TS, SEL_ERROR(ts->d.sel)) : r;
}

static void load_registers(struct cpu *cpu, const struct task_switch *ts)
{
	uint64_t flags = ts->state.flags;

	for (unsigned i = 0; i < 8; i++)
		cpu->gpr[i] = ts->to->size == 2 ? (cpu->gpr[i] & 0xffff0000) | ts->state.regs[i]
						: ts->state.regs[i];
	if (ts->nested)
		flags |= FLAG_NT;
	cpu->rip = ts->state.ip;
	sys_load_rflags(cpu, flags);
}

/* Selectors stand before their descriptors are judged; nothing is usable yet. */
static void load_selectors(struct cpu *cpu, const struct task_switch *ts)
{
	bool v86 = ts->state.flags & FLAG_VM;
	unsigned cpl = SEL_RPL(ts->state.segs[SEG_CS]);

	for (unsigned i = 0; i < ts->to->nr_segs; i++) {
		uint16_t sel = ts->state.segs[i];

		cpu->seg[i] = v86 ? segment_v86(sel)
				  : (struct segment){.sel = sel, .attr = SEG_UNUSABLE};
	}
	for (unsigned i = ts->to->nr_segs; i < 6; i++)
		cpu->seg[i] = (struct segment){.attr = SEG_UNUSABLE};
	if (!v86) {
		cpu->seg[SEG_SS].attr |= cpl << SEG_DPL_SHIFT;
		cpu->seg[SEG_CS].attr |= cpl << SEG_DPL_SHIFT;
	}
	cpu->seg[SEG_LDTR] = (struct segment){.sel = ts->state.ldt, .attr = SEG_UNUSABLE};
	sys_mode_changed(cpu);
}

static enum result load_ldt(struct cpu *cpu, uint16_t sel)
{
	struct desc d;
	enum result r;

	if (sel_null(sel))
		return RESULT_OK;
	if (SEL_TI(sel))
		return fault_raise_error(cpu, VEC_TS, SEL_ERROR(sel));
	r = desc_fetch(cpu, sel, VEC_TS, &d);
	if (r)
		return r;
	if (!desc_system(&d, DESC_LDT) || !desc_present(&d))
		return fault_raise_error(cpu, VEC_TS, SEL_ERROR(sel));
	cpu->seg[SEG_LDTR] = desc_segment(&d, sel);
	return RESULT_OK;
}

static enum result load_cs(struct cpu *cpu, uint16_t sel)
{
	unsigned rpl = SEL_RPL(sel);
	struct desc d;
	enum result r;

	if (sel_null(sel))
		return fault_raise_error(cpu, VEC_TS, 0);
	r = desc_fetch(cpu, sel, VEC_TS, &d);
	if (r)
		return r;
	if (!desc_code(&d) ||
	    (desc_conforming(&d) ? SEG_DPL(d.attr) > rpl : SEG_DPL(d.attr) != rpl))
		return fault_raise_error(cpu, VEC_TS, SEL_ERROR(sel));
	if (!desc_present(&d))
		return fault_raise_error(cpu, VEC_NP, SEL_ERROR(sel));
	r = desc_mark_accessed(cpu, &d);
	if (!r)
		cpu->seg[SEG_CS] = desc_segment(&d, sel);
	return r;
}

static enum result load_ss(struct cpu *cpu, uint16_t sel, unsigned cpl)
{
	struct desc d;
	enum result r;

	if (sel_null(sel))
		return fault_raise_error(cpu, VEC_TS, 0);
	r = segment_check_ss(cpu, sel, cpl, VEC_TS, &d);
	if (!r)
		cpu->seg[SEG_SS] = desc_segment(&d, sel);
	return r;
}

static enum result load_data(struct cpu *cpu, enum seg_id seg, uint16_t sel, unsigned cpl)
{
	struct desc d;
	enum result r;

	if (sel_null(sel))
		return RESULT_OK;
	r = segment_check_data(cpu, sel, cpl, VEC_TS, &d);
	if (!r)
		cpu->seg[seg] = desc_segment(&d, sel);
	return r;
}

static enum result load_segments(struct cpu *cpu, const struct task_switch *ts)
{
	static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	const uint64_t *sel = ts->state.segs;
	unsigned cpl = SEL_RPL(sel[SEG_CS]);
	enum result r;

	r = load_ldt(cpu, ts->state.ldt);
	if (r || (ts->state.flags & FLAG_VM))
		return r;
	r = load_ss(cpu, sel[SEG_SS], cpl);
	if (!r)
		r = load_cs(cpu, sel[SEG_CS]);
	for (unsigned i = 0; !r && i < ARRAY_SIZE(data); i++)
		r = load_data(cpu, data[i], sel[data[i]], cpl);
	sys_mode_changed(cpu);
	return r;
}

static enum result push_error(struct cpu *cpu, unsigned size, uint32_t error)
{
	struct stack s = stack_here(cpu);
	enum result r;

	r = stack_push(cpu, &s, size, error);
	if (!r)
		cpu->gpr[RSP] = s.sp;
	return r;
}

/* TR, TS, breakpoints: what changes with the task itself. */
static void enter_task(struct cpu *cpu, const struct task_switch *ts)
{
	cpu->seg[SEG_TR] = desc_segment(&ts->d, ts->d.sel);
	cpu->seg[SEG_TR].attr |= TSS_BUSY;
	cpu->cr0 |= CR0_TS;
	cpu->dr7 &= ~0x155ull; /* L0 to L3 and LE */
	if (ts->state.trap & 1)
		cpu->pending_dr6 |= DR6_BT;
	mmu_update_mode(cpu);
}

static enum result load_new(struct cpu *cpu, const struct task_switch *ts)
{
	enum result r;

	enter_task(cpu, ts);
	load_registers(cpu, ts);
	load_selectors(cpu, ts);
	r = load_cr3(cpu, ts);
	if (!r)
		r = load_segments(cpu, ts);
	if (!r)
		r = code_check_rip(cpu, &cpu->seg[SEG_CS], cpu->rip);
	return r;
}

enum result sys_task_switch(struct cpu *cpu, uint16_t tss_sel, enum task_switch_reason why,
			    bool has_error, uint32_t error, uint64_t next)
{
	struct task_switch ts = {
		.from = layout_of(cpu->seg[SEG_TR].attr),
		.from_base = cpu->seg[SEG_TR].base,
		.from_sel = cpu->seg[SEG_TR].sel,
		.nested = why == TASK_CALL || why == TASK_GATE,
		.leaves = why == TASK_JMP || why == TASK_IRET,
	};
	enum result r;

	if (cpu_intercept(cpu, INTERCEPT_TASK_SWITCH,
			  tss_sel | (uint64_t)why << 30 | (uint64_t)has_error << 32 |
				  (uint64_t)error << 33))
		return RESULT_AGAIN;
	r = check_descriptor(cpu, tss_sel, why, &ts.d);
	if (r)
		return r;
	ts.to = layout_of(ts.d.attr);
	r = probe_both(cpu, &ts);
	if (!r)
		r = read_state(cpu, &ts);
	if (!r)
		r = save_old(cpu, &ts, next, why == TASK_IRET);
	if (!r)
		r = mark_tasks(cpu, &ts, why);
	if (r)
		return r;
	/* Commit point. */
	r = load_new(cpu, &ts);
	if (!r && has_error)
		r = push_error(cpu, ts.to->size, error);
	return r;
}
