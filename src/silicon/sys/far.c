/* SPDX-License-Identifier: MIT */
/*
 * Far jumps, calls and returns (SDM, JMP, CALL, RET; call gates).
 *
 * Each transfer reads and judges the target's descriptor, writes what goes to the stack, and
 * commits CS:RIP, SS:RSP and CPL last. IRET is in iret.c, SYSCALL and the like in syscall.c.
 */
#include "silicon/sys/sys_internal.h"

/* ---- shared with the other transfers ---- */

struct segment code_segment(const struct desc *d, unsigned cpl)
{
	return desc_segment(d, (d->sel & ~3u) | cpl);
}

enum result code_check_rip(struct cpu *cpu, const struct segment *cs, uint64_t rip)
{
	if (cpu_long_mode(cpu) && (cs->attr & SEG_L))
		return gva_canonical(cpu, rip) ? RESULT_OK : fault_gp(cpu, 0);
	return rip <= cs->limit ? RESULT_OK : fault_gp(cpu, 0);
}

/* Commit CS:RIP at the same privilege level. */
static enum result commit_code(struct cpu *cpu, const struct segment *cs, uint64_t rip)
{
	cpu->seg[SEG_CS] = *cs;
	cpu->rip = rip;
	sys_mode_changed(cpu);
	return RESULT_OK;
}

static enum result transfer_real(struct cpu *cpu, uint16_t sel, uint64_t off)
{
	if (off > cpu->seg[SEG_CS].limit)
		return fault_gp(cpu, 0);
	if (cpu->mode.v86)
		cpu->seg[SEG_CS] = segment_v86(sel);
	else
		segment_set_real(cpu, SEG_CS, sel);
	cpu->rip = off;
	sys_mode_changed(cpu);
	return RESULT_OK;
}

static bool legacy_segments(const struct cpu *cpu)
{
	return cpu->mode.real || cpu->mode.v86;
}

/* L and D together are reserved in long mode. */
static bool code_width_ok(const struct cpu *cpu, const struct desc *d)
{
	return !cpu_long_mode(cpu) || (d->attr & (SEG_L | SEG_DB)) != (SEG_L | SEG_DB);
}

static enum result present_code(struct cpu *cpu, struct desc *d)
{
	if (!desc_present(d))
		return fault_raise_error(cpu, VEC_NP, SEL_ERROR(d->sel));
	return desc_mark_accessed(cpu, d);
}

/* A code segment that may be entered directly at the present privilege level. */
static enum result check_direct_code(struct cpu *cpu, struct desc *d)
{
	unsigned cpl = cpu->mode.cpl;
	unsigned dpl = SEG_DPL(d->attr);
	bool ok;

	if (desc_conforming(d))
		ok = dpl <= cpl;
	else
		ok = SEL_RPL(d->sel) <= cpl && dpl == cpl;
	if (!ok || !code_width_ok(cpu, d))
		return fault_gp(cpu, SEL_ERROR(d->sel));
	return present_code(cpu, d);
}

/* ---- gates ---- */

struct call_gate {
	uint16_t sel;
	uint64_t off;
	unsigned size; /* of values pushed: 2, 4, 8 */
	unsigned params;
};

static bool is_call_gate(const struct cpu *cpu, const struct desc *d)
{
	return desc_system(d, DESC_CALL32) || (!cpu_long_mode(cpu) && desc_system(d, DESC_CALL16));
}

static enum result gate_privilege(struct cpu *cpu, const struct desc *d)
{
	unsigned dpl = SEG_DPL(d->attr);

	if (dpl < cpu->mode.cpl || dpl < SEL_RPL(d->sel))
		return fault_gp(cpu, SEL_ERROR(d->sel));
	if (!desc_present(d))
		return fault_raise_error(cpu, VEC_NP, SEL_ERROR(d->sel));
	return RESULT_OK;
}

/* The upper half of a 16-byte gate: type field zero, offset bits 63:32. */
static enum result gate_high(struct cpu *cpu, const struct desc *d, uint64_t *ret)
{
	struct desc again;
	enum result r;

	if ((d->sel & 0xfff8u) + 15 > (SEL_TI(d->sel) ? cpu->seg[SEG_LDTR].limit : cpu->gdtr.limit))
		return fault_gp(cpu, SEL_ERROR(d->sel));
	r = mmu_read_sys(cpu, d->addr + 8, 8, &again.raw);
	if (r)
		return r;
	if (again.raw >> 40 & 0x1f)
		return fault_gp(cpu, SEL_ERROR(d->sel));
	*ret = again.raw << 32;
	return RESULT_OK;
}

static enum result call_gate_read(struct cpu *cpu, const struct desc *d, struct call_gate *g)
{
	uint64_t high = 0;
	enum result r;

	r = gate_privilege(cpu, d);
	if (!r && cpu_long_mode(cpu))
		r = gate_high(cpu, d, &high);
	if (r)
		return r;
	g->sel = d->raw >> 16;
	g->off = (d->raw & 0xffff) | (d->raw >> 32 & 0xffff0000) | high;
	g->size = cpu_long_mode(cpu) ? 8 : desc_system(d, DESC_CALL32) ? 4 : 2;
	g->params = d->raw >> 32 & 0x1f;
	if (g->size == 2)
		g->off &= 0xffff;
	return RESULT_OK;
}

/* The gate's code segment; a jump may not change the privilege level. */
static enum result gate_code(struct cpu *cpu, const struct call_gate *g, bool call,
			     struct desc *ret, unsigned *ret_cpl)
{
	unsigned cpl = cpu->mode.cpl;
	enum result r;
	bool ok;

	if (sel_null(g->sel))
		return fault_gp(cpu, 0);
	r = desc_fetch(cpu, g->sel, VEC_GP, ret);
	if (r)
		return r;
	ok = desc_code(ret) && SEG_DPL(ret->attr) <= cpl;
	if (!call && !desc_conforming(ret))
		ok = ok && SEG_DPL(ret->attr) == cpl;
	if (cpu_long_mode(cpu))
		ok = ok && (ret->attr & (SEG_L | SEG_DB)) == SEG_L;
	if (!ok)
		return fault_gp(cpu, SEL_ERROR(g->sel));
	*ret_cpl = desc_conforming(ret) ? cpl : SEG_DPL(ret->attr);
	return present_code(cpu, ret);
}

/* The gate, and the code segment that it leads to, for this CPL. */
static enum result gate_open(struct cpu *cpu, const struct desc *gate, bool is_call,
			     struct call_gate *ret, struct segment *ret_cs, unsigned *ret_cpl)
{
	struct desc d;
	enum result r = call_gate_read(cpu, gate, ret);

	if (!r)
		r = gate_code(cpu, ret, is_call, &d, ret_cpl);
	if (!r)
		*ret_cs = code_segment(&d, *ret_cpl);
	return r;
}

/* ---- JMP ---- */

static enum result jmp_gate(struct cpu *cpu, const struct desc *gate)
{
	struct call_gate g;
	struct segment cs;
	unsigned cpl;
	enum result r = gate_open(cpu, gate, false, &g, &cs, &cpl);

	if (r)
		return r;
	r = code_check_rip(cpu, &cs, g.off);
	return r ? r : commit_code(cpu, &cs, g.off);
}

/* JMP or CALL to a TSS or a task gate. */
static enum result to_task(struct cpu *cpu, const struct desc *d, enum task_switch_reason why,
			   uint64_t next)
{
	bool gate = desc_system(d, DESC_TASK_GATE);
	enum result r;

	if (cpu_long_mode(cpu) || (!gate && !desc_tss(d, false)))
		return fault_gp(cpu, SEL_ERROR(d->sel));
	r = gate_privilege(cpu, d);
	if (r)
		return r;
	return sys_task_switch(cpu, gate ? d->raw >> 16 : d->sel, why, false, 0, next);
}

static enum result fetch_target(struct cpu *cpu, uint16_t sel, struct desc *d)
{
	return sel_null(sel) ? fault_gp(cpu, 0) : desc_fetch(cpu, sel, VEC_GP, d);
}

enum result sys_jmp_far(struct cpu *cpu, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next)
{
	struct segment cs;
	struct desc d;
	enum result r;

	if (legacy_segments(cpu))
		return transfer_real(cpu, sel, off);
	r = fetch_target(cpu, sel, &d);
	if (r)
		return r;
	if (is_call_gate(cpu, &d))
		return jmp_gate(cpu, &d);
	if (!desc_code(&d))
		return to_task(cpu, &d, TASK_JMP, next);
	r = check_direct_code(cpu, &d);
	if (r)
		return r;
	cs = code_segment(&d, cpu->mode.cpl);
	r = code_check_rip(cpu, &cs, off);
	return r ? r : commit_code(cpu, &cs, off);
}

/* ---- CALL ---- */

static enum result push_return(struct cpu *cpu, struct stack *s, unsigned size, uint64_t next)
{
	enum result r;

	r = stack_push(cpu, s, size, cpu->seg[SEG_CS].sel);
	return r ? r : stack_push(cpu, s, size, next);
}

static enum result call_real(struct cpu *cpu, uint16_t sel, uint64_t off, unsigned opsize,
			     uint64_t next)
{
	struct stack s = stack_here(cpu);
	enum result r;

	if (off > cpu->seg[SEG_CS].limit)
		return fault_gp(cpu, 0);
	r = stack_reserve(cpu, &s, opsize, 2);
	if (!r)
		r = push_return(cpu, &s, opsize, next);
	if (r)
		return r;
	cpu->gpr[RSP] = s.sp;
	return transfer_real(cpu, sel, off);
}

static enum result call_same(struct cpu *cpu, const struct segment *cs, uint64_t off, unsigned size,
			     uint64_t next)
{
	struct stack s = stack_here(cpu);
	enum result r;

	/* The new code segment's width decides how the stack pointer is used only after the commit. */
	r = stack_reserve(cpu, &s, size, 2);
	if (!r)
		r = code_check_rip(cpu, cs, off);
	if (!r)
		r = push_return(cpu, &s, size, next);
	if (r)
		return r;
	cpu->gpr[RSP] = s.sp;
	return commit_code(cpu, cs, off);
}

/* Parameters go over in order: the last one pushed stays nearest to the return address. */
static enum result copy_params(struct cpu *cpu, struct stack *to, unsigned size, unsigned count)
{
	uint64_t param[31];
	struct stack from = stack_here(cpu);
	enum result r = RESULT_OK;

	for (unsigned i = 0; !r && i < count; i++)
		r = stack_pop(cpu, &from, size, &param[i]);
	for (unsigned i = count; !r && i > 0; i--)
		r = stack_push(cpu, to, size, param[i - 1]);
	return r;
}

static enum result inner_stack(struct cpu *cpu, unsigned cpl, struct stack *ret)
{
	uint64_t rsp;
	enum result r;

	if (!cpu_long_mode(cpu))
		return stack_inner(cpu, cpl, ret);
	r = tss_read_rsp(cpu, cpl, &rsp);
	*ret = stack_flat64(cpu, cpl, rsp);
	ret->ss = (struct segment){.sel = cpl, .attr = SEG_UNUSABLE | cpl << SEG_DPL_SHIFT};
	return r;
}

static enum result call_inner(struct cpu *cpu, const struct call_gate *g, const struct segment *cs,
			      unsigned cpl, uint64_t next)
{
	unsigned params = g->size == 8 ? 0 : g->params;
	struct stack s;
	enum result r;

	r = inner_stack(cpu, cpl, &s);
	if (!r)
		r = stack_reserve(cpu, &s, g->size, 4 + params);
	if (!r)
		r = code_check_rip(cpu, cs, g->off);
	if (!r)
		r = stack_push(cpu, &s, g->size, cpu->seg[SEG_SS].sel);
	if (!r)
		r = stack_push(cpu, &s, g->size, cpu->gpr[RSP]);
	if (!r)
		r = copy_params(cpu, &s, g->size, params);
	if (!r)
		r = push_return(cpu, &s, g->size, next);
	if (r)
		return r;
	stack_commit(cpu, &s);
	return commit_code(cpu, cs, g->off);
}

static enum result call_gate(struct cpu *cpu, const struct desc *gate, uint64_t next)
{
	struct call_gate g;
	struct segment cs;
	unsigned cpl;
	enum result r = gate_open(cpu, gate, true, &g, &cs, &cpl);

	if (r)
		return r;
	if (cpl != cpu->mode.cpl)
		return call_inner(cpu, &g, &cs, cpl, next);
	return call_same(cpu, &cs, g.off, g.size, next);
}

enum result sys_call_far(struct cpu *cpu, uint16_t sel, uint64_t off, unsigned opsize,
			 uint64_t next)
{
	struct segment cs;
	struct desc d;
	enum result r;

	if (legacy_segments(cpu))
		return call_real(cpu, sel, off, opsize, next);
	r = fetch_target(cpu, sel, &d);
	if (r)
		return r;
	if (is_call_gate(cpu, &d))
		return call_gate(cpu, &d, next);
	if (!desc_code(&d))
		return to_task(cpu, &d, TASK_CALL, next);
	r = check_direct_code(cpu, &d);
	if (r)
		return r;
	cs = code_segment(&d, cpu->mode.cpl);
	return call_same(cpu, &cs, off, opsize, next);
}

/* ---- RET ---- */

static enum result ret_real(struct cpu *cpu, struct stack *s, uint16_t sel, uint64_t rip,
			    unsigned pop_bytes)
{
	enum result r;

	stack_skip(s, pop_bytes);
	r = transfer_real(cpu, sel, rip);
	if (!r)
		cpu->gpr[RSP] = s->sp;
	return r;
}

enum result return_code(struct cpu *cpu, uint16_t sel, struct desc *ret)
{
	unsigned rpl = SEL_RPL(sel);
	unsigned dpl;
	enum result r;

	r = fetch_target(cpu, sel, ret);
	if (r)
		return r;
	dpl = SEG_DPL(ret->attr);
	if (!desc_code(ret) || rpl < cpu->mode.cpl || !code_width_ok(cpu, ret))
		return fault_gp(cpu, SEL_ERROR(sel));
	if (desc_conforming(ret) ? dpl > rpl : dpl != rpl)
		return fault_gp(cpu, SEL_ERROR(sel));
	return present_code(cpu, ret);
}

/* SS of a return to privilege level cpl; null is allowed when returning to 64-bit code below 3. */
enum result return_stack(struct cpu *cpu, uint16_t sel, unsigned cpl, bool to64,
			 struct segment *ret)
{
	struct desc d;
	enum result r;

	if (sel_null(sel)) {
		if (!to64 || cpl == 3 || SEL_RPL(sel) != cpl)
			return fault_gp(cpu, 0);
		*ret = (struct segment){.sel = sel, .attr = SEG_UNUSABLE | cpl << SEG_DPL_SHIFT};
		return RESULT_OK;
	}
	r = segment_check_ss(cpu, sel, cpl, VEC_GP, &d);
	if (!r)
		*ret = desc_segment(&d, sel);
	return r;
}

/*
 * A selector that is null already stays so, with its base: a VM entry may have left it usable, as KVM does for FS and GS of
 * a nested hypervisor's host.
 */
void null_inner_segments(struct cpu *cpu)
{
	static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};

	for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
		struct segment *s = &cpu->seg[data[i]];
		bool conforming = (s->attr & (SEG_CODE | SEG_E)) == (SEG_CODE | SEG_E);

		if ((s->attr & SEG_UNUSABLE) || SEG_DPL(s->attr) >= cpu->mode.cpl || conforming)
			continue;
		if (sel_null(s->sel))
			s->attr = SEG_UNUSABLE;
		else
			segment_set_null(cpu, data[i], 0);
	}
}

struct stack return_to(const struct cpu *cpu, const struct segment *cs, const struct segment *ss,
		       uint64_t sp)
{
	struct stack s = {.ss = *ss, .sp = sp, .mask = 0xffffffff};

	if (cpu_long_mode(cpu) && (cs->attr & SEG_L))
		s.mask = ~0ull;
	else if (!(ss->attr & SEG_DB))
		s.mask = 0xffff;
	if (s.mask == 0xffff)
		s.sp = (cpu->gpr[RSP] & ~0xffffull) | (sp & 0xffff);
	return s;
}

static enum result ret_outer(struct cpu *cpu, struct stack *s, const struct segment *cs,
			     uint64_t rip, unsigned size, unsigned pop_bytes)
{
	unsigned cpl = SEL_RPL(cs->sel);
	bool to64 = cpu_long_mode(cpu) && (cs->attr & SEG_L);
	struct segment ss;
	uint64_t sp, sel;
	enum result r;

	stack_skip(s, pop_bytes);
	r = stack_pop(cpu, s, size, &sp);
	if (!r)
		r = stack_pop(cpu, s, size, &sel);
	if (!r)
		r = return_stack(cpu, sel, cpl, to64, &ss);
	if (!r)
		r = code_check_rip(cpu, cs, rip);
	if (r)
		return r;
	*s = return_to(cpu, cs, &ss, sp);
	stack_skip(s, pop_bytes);
	stack_commit(cpu, s);
	commit_code(cpu, cs, rip);
	null_inner_segments(cpu);
	cpu_update_mode(cpu);
	return RESULT_OK;
}

enum result sys_ret_far(struct cpu *cpu, unsigned opsize, unsigned pop_bytes)
{
	struct stack s = stack_here(cpu);
	struct segment cs;
	uint64_t rip, sel;
	struct desc d;
	enum result r;

	r = stack_pop(cpu, &s, opsize, &rip);
	if (!r)
		r = stack_pop(cpu, &s, opsize, &sel);
	if (r)
		return r;
	if (legacy_segments(cpu))
		return ret_real(cpu, &s, sel, rip, pop_bytes);
	r = return_code(cpu, sel, &d);
	if (r)
		return r;
	cs = code_segment(&d, SEL_RPL(sel));
	if (SEL_RPL(sel) != cpu->mode.cpl)
		return ret_outer(cpu, &s, &cs, rip, opsize, pop_bytes);
	r = code_check_rip(cpu, &cs, rip);
	if (r)
		return r;
	stack_skip(&s, pop_bytes);
	cpu->gpr[RSP] = s.sp;
	return commit_code(cpu, &cs, rip);
}
