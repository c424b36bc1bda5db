/* SPDX-License-Identifier: MIT */
/*
 * A processor without unrestricted guests lets KVM enter no guest whose segments are not as VM entry wants them
 * (SDM, checks on guest segment registers). KVM's emulator then goes on until they are. Here each instruction runs
 * as it always does; what its emulator gives up on is looked for while ATTN_REFUSED is up.
 *
 * Of the checks these are those that KVM makes, and so those that can be noticed: neither bases and limits nor reserved
 * bits in protected mode.
 */
#include "silicon/cpu/cpu.h"

#define TYPE_LDT	2
#define TYPE_TSS16_BUSY 3
#define TYPE_TSS32_BUSY 11

static bool usable(const struct segment *s)
{
	return !(s->attr & SEG_UNUSABLE);
}

/* Code or data, and present. */
static bool plain(const struct segment *s)
{
	return (s->attr & (SEG_S | SEG_P)) == (SEG_S | SEG_P);
}

/* Real mode runs as a virtual-8086 task, whose DPL and type are made up. */
static bool real_ok(const struct cpu *cpu, enum seg_id id)
{
	const struct segment *s = &cpu->seg[id];
	uint32_t made_up = 3 << SEG_DPL_SHIFT | (id == SEG_CS ? 0xf : 0);
	uint32_t want = SEG_P | SEG_S | SEG_W | SEG_A;

	return s->base == (uint32_t)s->sel << 4 && s->limit == 0xffff &&
	       (s->attr & ~made_up) == (want & ~made_up);
}

static bool code_ok(const struct segment *cs)
{
	unsigned rpl = SEL_RPL(cs->sel), dpl = SEG_DPL(cs->attr);

	if (!usable(cs) || !plain(cs) || (cs->attr & (SEG_CODE | SEG_A)) != (SEG_CODE | SEG_A))
		return false;
	/* KVM takes the readable ones for the conforming. */
	return cs->attr & SEG_W ? dpl <= rpl : dpl == rpl;
}

static bool stack_ok(const struct segment *ss)
{
	unsigned type = SEG_TYPE(ss->attr) & ~(unsigned)SEG_E;

	return !usable(ss) ||
	       (plain(ss) && type == (SEG_W | SEG_A) && SEG_DPL(ss->attr) == SEL_RPL(ss->sel));
}

static bool data_ok(const struct segment *s)
{
	bool readable_code = (s->attr & (SEG_CODE | SEG_W)) == (SEG_CODE | SEG_W);

	return !usable(s) || (plain(s) && (readable_code || SEG_DPL(s->attr) >= SEL_RPL(s->sel)));
}

static bool system_ok(const struct segment *s, unsigned type)
{
	return !SEL_TI(s->sel) && (s->attr & SEG_P) && SEG_TYPE(s->attr) == type;
}

static bool tr_ok(const struct segment *tr)
{
	return usable(tr) && (system_ok(tr, TYPE_TSS16_BUSY) || system_ok(tr, TYPE_TSS32_BUSY));
}

static bool ldtr_ok(const struct segment *ldtr)
{
	return !usable(ldtr) || system_ok(ldtr, TYPE_LDT);
}

static bool all_real_ok(const struct cpu *cpu)
{
	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		if (!real_ok(cpu, i))
			return false;
	return true;
}

static bool all_protected_ok(const struct cpu *cpu)
{
	const struct segment *seg = cpu->seg;

	return SEL_RPL(seg[SEG_CS].sel) == SEL_RPL(seg[SEG_SS].sel) && code_ok(&seg[SEG_CS]) &&
	       stack_ok(&seg[SEG_SS]) && data_ok(&seg[SEG_DS]) && data_ok(&seg[SEG_ES]) &&
	       data_ok(&seg[SEG_FS]) && data_ok(&seg[SEG_GS]) && tr_ok(&seg[SEG_TR]) &&
	       ldtr_ok(&seg[SEG_LDTR]);
}

bool cpu_enterable(const struct cpu *cpu)
{
	if (cpu_guest(cpu))
		return true;
	return cpu->mode.real || cpu->mode.v86 ? all_real_ok(cpu) : all_protected_ok(cpu);
}

void cpu_judge(struct cpu *cpu)
{
	if (!cpu_enterable(cpu))
		cpu_raise(cpu, ATTN_REFUSED);
	else if (__atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) & ATTN_REFUSED)
		cpu_lower(cpu, ATTN_REFUSED);
}

bool cpu_refused(struct cpu *cpu)
{
	if (likely(!(__atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) & ATTN_REFUSED)))
		return false;
	cpu_judge(
		cpu); /* LDTR and TR may have become right, and so may all that a guest's guest left */
	return __atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) & ATTN_REFUSED;
}

bool cpu_refuses(struct cpu *cpu, const struct event *ev, bool pending)
{
	if (!cpu_refused(cpu) || cpu->mode.real ||
	    (ev->type != EVENT_EXCEPTION && ev->type != EVENT_SOFT_EXC &&
	     ev->type != EVENT_PRIV_SOFT_EXC))
		return false;
	cpu->inject = *ev;
	cpu->inject.pending = pending;
	cpu_update_attention(cpu);
	cpu->exit = (struct cpu_exit){.kind = CPU_EXIT_EMULATION};
	return true;
}
