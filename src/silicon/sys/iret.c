/* SPDX-License-Identifier: MIT */
/*
 * IRET in all its forms (SDM, IRET): real mode, virtual-8086 mode, to virtual-8086 mode, task
 * return, same and outer privilege level, long mode (SS:RSP always).
 *
 * It ends the blocking of NMIs even where it faults. RF that it loads holds for the next instruction.
 */
#include "silicon/sys/sys_internal.h"

/* What IRET takes off the stack. */
struct iret_frame {
	uint64_t rip, cs, rflags;
};

void sys_load_rflags(struct cpu *cpu, uint64_t rflags)
{
	if (rflags & FLAG_RF)
		cpu->pending_dr6 |= PENDING_KEEP_RF;
	cpu_set_rflags(cpu, rflags);
}

static enum result pop_frame(struct cpu *cpu, struct stack *s, unsigned size, struct iret_frame *f)
{
	enum result r;

	r = stack_pop(cpu, s, size, &f->rip);
	if (!r)
		r = stack_pop(cpu, s, size, &f->cs);
	if (!r)
		r = stack_pop(cpu, s, size, &f->rflags);
	return r;
}

/* Bits of RFLAGS that an IRET at this privilege level and operand size may change. */
static uint64_t changeable(const struct cpu *cpu, unsigned size)
{
	uint64_t bits = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;
	unsigned iopl = (cpu->sflags & FLAG_IOPL) >> 12;

	if (size > 2)
		bits |= FLAG_RF | FLAG_AC | FLAG_ID;
	if (cpu->mode.cpl <= iopl)
		bits |= FLAG_IF;
	if (cpu->mode.cpl == 0)
		bits |= FLAG_IOPL | (size > 2 && !cpu->mode.real ? FLAG_VIF | FLAG_VIP : 0);
	return bits;
}

static uint64_t merge(uint64_t old, uint64_t new, uint64_t bits)
{
	return (old & ~bits) | (new &bits);
}

static void load_flags(struct cpu *cpu, uint64_t rflags, uint64_t bits)
{
	sys_load_rflags(cpu, merge(cpu_rflags(cpu), rflags, bits));
}

/* ---- real and virtual-8086 mode ---- */

static enum result iret_real(struct cpu *cpu, unsigned size)
{
	struct stack s = stack_here(cpu);
	struct iret_frame f;
	enum result r;

	r = pop_frame(cpu, &s, size, &f);
	if (r)
		return r;
	if (f.rip > cpu->seg[SEG_CS].limit)
		return fault_gp(cpu, 0);
	cpu->gpr[RSP] = s.sp;
	segment_set_real(cpu, SEG_CS, f.cs);
	cpu->rip = f.rip;
	load_flags(cpu, f.rflags, changeable(cpu, size));
	sys_mode_changed(cpu);
	return RESULT_OK;
}

/* IOPL below 3 with VME: IF of the image goes to VIF. */
static enum result v86_virtual_flags(struct cpu *cpu, uint64_t image, uint64_t *ret)
{
	uint64_t bits = FLAGS_ARITH | FLAG_DF | FLAG_NT;
	uint64_t old = cpu_rflags(cpu);

	if ((image & FLAG_TF) || ((image & FLAG_IF) && (old & FLAG_VIP)))
		return fault_gp(cpu, 0);
	*ret = merge(old, image, bits) & ~(uint64_t)(FLAG_VIF | FLAG_TF);
	if (image & FLAG_IF)
		*ret |= FLAG_VIF;
	return RESULT_OK;
}

static enum result v86_flags(struct cpu *cpu, uint64_t image, unsigned size, uint64_t *ret)
{
	uint64_t bits = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_IF;

	if ((cpu->sflags & FLAG_IOPL) != FLAG_IOPL)
		return v86_virtual_flags(cpu, image, ret);
	if (size > 2)
		bits |= FLAG_RF | FLAG_AC | FLAG_ID;
	*ret = merge(cpu_rflags(cpu), image, bits);
	return RESULT_OK;
}

static enum result iret_v86(struct cpu *cpu, unsigned size)
{
	struct stack s = stack_here(cpu);
	struct iret_frame f;
	uint64_t rflags = 0;
	enum result r;

	if ((cpu->sflags & FLAG_IOPL) != FLAG_IOPL && (!(cpu->cr4 & CR4_VME) || size != 2))
		return fault_gp(cpu, 0);
	r = pop_frame(cpu, &s, size, &f);
	if (!r)
		r = v86_flags(cpu, f.rflags, size, &rflags);
	if (r)
		return r;
	if (f.rip > 0xffff)
		return fault_gp(cpu, 0);
	cpu->gpr[RSP] = s.sp;
	cpu->seg[SEG_CS] = segment_v86(f.cs);
	cpu->rip = f.rip;
	sys_load_rflags(cpu, rflags);
	sys_mode_changed(cpu);
	return RESULT_OK;
}

/* ---- to virtual-8086 mode ---- */

static enum result iret_to_v86(struct cpu *cpu, struct stack *s, const struct iret_frame *f)
{
	static const uint8_t order[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	uint64_t esp, ss, sel[ARRAY_SIZE(order)];
	enum result r;

	r = stack_pop(cpu, s, 4, &esp);
	if (!r)
		r = stack_pop(cpu, s, 4, &ss);
	for (unsigned i = 0; !r && i < ARRAY_SIZE(order); i++)
		r = stack_pop(cpu, s, 4, &sel[i]);
	if (r)
		return r;
	if (f->rip > 0xffff)
		return fault_gp(cpu, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
		cpu->seg[order[i]] = segment_v86(sel[i]);
	cpu->seg[SEG_CS] = segment_v86(f->cs);
	cpu->seg[SEG_SS] = segment_v86(ss);
	cpu->gpr[RSP] = esp;
	cpu->rip = f->rip;
	sys_load_rflags(cpu, f->rflags);
	sys_mode_changed(cpu);
	return RESULT_OK;
}

/* ---- protected and long mode ---- */

static enum result iret_task(struct cpu *cpu, uint64_t next)
{
	const struct segment *tr = &cpu->seg[SEG_TR];
	uint64_t link;
	enum result r;

	if (cpu_long_mode(cpu))
		return fault_gp(cpu, 0);
	r = mmu_read_sys(cpu, (uint32_t)tr->base, 2, &link);
	return r ? r : sys_task_switch(cpu, link, TASK_IRET, false, 0, next);
}

static void commit(struct cpu *cpu, const struct segment *cs, const struct iret_frame *f,
		   uint64_t bits)
{
	cpu->seg[SEG_CS] = *cs;
	cpu->rip = f->rip;
	load_flags(cpu, f->rflags, bits);
	sys_mode_changed(cpu);
}

static enum result iret_same(struct cpu *cpu, const struct stack *s, const struct segment *cs,
			     const struct iret_frame *f, uint64_t bits)
{
	enum result r = code_check_rip(cpu, cs, f->rip);

	if (r)
		return r;
	cpu->gpr[RSP] = s->sp;
	commit(cpu, cs, f, bits);
	return RESULT_OK;
}

static enum result iret_stack(struct cpu *cpu, struct stack *s, const struct segment *cs,
			      const struct iret_frame *f, unsigned size, uint64_t bits)
{
	unsigned cpl = SEL_RPL(cs->sel);
	bool outer = cpl != cpu->mode.cpl;
	bool to64 = cpu_long_mode(cpu) && (cs->attr & SEG_L);
	struct segment ss;
	uint64_t sp, sel;
	enum result r;

	r = stack_pop(cpu, s, size, &sp);
	if (!r)
		r = stack_pop(cpu, s, size, &sel);
	if (!r)
		r = return_stack(cpu, sel, cpl, to64, &ss);
	if (!r)
		r = code_check_rip(cpu, cs, f->rip);
	if (r)
		return r;
	*s = return_to(cpu, cs, &ss, sp);
	stack_commit(cpu, s);
	commit(cpu, cs, f, bits);
	if (outer)
		null_inner_segments(cpu);
	cpu_update_mode(cpu);
	return RESULT_OK;
}

static enum result iret_protected(struct cpu *cpu, unsigned size)
{
	uint64_t bits = changeable(cpu, size);
	struct stack s = stack_here(cpu);
	struct iret_frame f;
	struct segment cs;
	struct desc d;
	enum result r;

	r = pop_frame(cpu, &s, size, &f);
	if (r)
		return r;
	if ((f.rflags & FLAG_VM) && size == 4 && !cpu->mode.cpl && !cpu_long_mode(cpu))
		return iret_to_v86(cpu, &s, &f);
	r = return_code(cpu, f.cs, &d);
	if (r)
		return r;
	cs = code_segment(&d, SEL_RPL(f.cs));
	if (cpu_64bit(cpu) || SEL_RPL(f.cs) != cpu->mode.cpl)
		return iret_stack(cpu, &s, &cs, &f, size, bits);
	return iret_same(cpu, &s, &cs, &f, bits);
}

/*
 * First of all, so that it holds for an IRET that faults, too. Such a fault may lead out of guest mode, where the hypervisor
 * wants to know (SDM, NMI unblocking due to IRET); an IRET that waited for a device's answer begins anew.
 */
static void end_nmi_blocking(struct cpu *cpu)
{
	struct virt *virt = cpu_guest(cpu) ? cpu->virt : NULL;
	bool again = virt && virt->iret_unblocked && cpu->answers.nr;

	if (virt && virt->iret_keeps)
		return;
	if (virt)
		virt->iret_unblocked = cpu->nmi_blocked || again;
	if (virt && virt->iret_unblocked)
		virt->iret_rip = cpu->rip;
	cpu->nmi_blocked = false;
}

static enum result iret(struct cpu *cpu, unsigned opsize, uint64_t next)
{
	if (cpu->mode.real)
		return iret_real(cpu, opsize);
	if (cpu->mode.v86)
		return iret_v86(cpu, opsize);
	if (cpu->sflags & FLAG_NT)
		return iret_task(cpu, next);
	return iret_protected(cpu, opsize);
}

enum result sys_iret(struct cpu *cpu, unsigned opsize, uint64_t next)
{
	enum result r;

	if (cpu_intercept(cpu, INTERCEPT_IRET, 0))
		return RESULT_AGAIN;
	end_nmi_blocking(cpu);
	r = iret(cpu, opsize, next);
	if (!r && cpu->virt)
		cpu->virt->iret_unblocked = false;
	return r;
}
