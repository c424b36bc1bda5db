/* SPDX-License-Identifier: MIT */
/*
 * What guest mode has to do between instructions (SDM, priority among concurrent events; monitor trap flag; VMX-preemption
 * timer; interrupt and NMI windows; virtual-interrupt delivery).
 *
 * ATTN_VIRT is up while one of them may be due. The timer raises it from outside, by the platform's alarm.
 */
#include "silicon/vmx/vmx_internal.h"

uint64_t vmx_tsc(struct cpu *cpu, uint64_t tsc)
{
	const struct vmx *v = vmx_of(cpu);

	/* Who reads the time sees the timer expire, however late the alarm comes. */
	if (v->timer_armed && (int64_t)(tsc - v->timer_end) >= 0)
		cpu_raise(cpu, ATTN_VIRT);
	if (!ctl(v, CPU_TSC_OFFSET))
		return tsc;
	if (ctl2(v, CPU2_TSC_SCALING))
		tsc = (unsigned __int128)tsc * get(v, VMCS_TSC_MULTIPLIER) >> 48;
	return tsc + get(v, VMCS_TSC_OFFSET);
}

static unsigned timer_shift(const struct vmx *v)
{
	return v->caps.msr[VMX_MISC] & MISC_TIMER_MASK;
}

bool vmx_timer_left(const struct cpu *cpu, uint64_t *ret)
{
	const struct vmx *v = vmx_of(cpu);
	uint64_t now;

	if (!v->timer_armed)
		return false;
	now = platform_call((struct cpu *)cpu, tsc);
	*ret = (int64_t)(v->timer_end - now) > 0 ? (v->timer_end - now) >> timer_shift(v) : 0;
	return true;
}

uint64_t vmx_timer_deadline(const struct cpu *cpu)
{
	return vmx_of(cpu)->timer_end >> timer_shift(vmx_of(cpu));
}

void vmx_timer_set_deadline(struct cpu *cpu, uint64_t deadline)
{
	struct vmx *v = vmx_of(cpu);

	v->timer_end = deadline << timer_shift(v);
	if (cpu->platform->alarm)
		platform_call(cpu, alarm, v->timer_end);
}

/* A platform without an alarm is asked for the time at each instruction. */
static bool timer_watched(const struct cpu *cpu)
{
	return vmx_of(cpu)->timer_armed && !cpu->platform->alarm;
}

static bool interrupt_possible(const struct cpu *cpu)
{
	return (cpu->sflags & FLAG_IF) && !cpu->shadow && cpu->activity != ACTIVITY_SHUTDOWN;
}

/* IF's opening raises ATTN_VIRT by itself; a shadow ends with the next instruction. */
static bool interrupts_due(struct cpu *cpu)
{
	const struct vmx *v = vmx_of(cpu);

	return (cpu->sflags & FLAG_IF) && cpu->activity != ACTIVITY_SHUTDOWN &&
	       (ctl(v, CPU_INTR_WINDOW) || vapic_pending(cpu));
}

/* Something was executed or delivered since MTF looked last. */
static bool moved_on(const struct cpu *cpu)
{
	const struct vmx *v = vmx_of(cpu);

	return cpu->rip != v->mtf_rip || cpu->retired != v->mtf_retired || v->virt.iterated;
}

/* What executes nothing is not looked at for it. */
static bool mtf_watches(const struct cpu *cpu)
{
	return ctl(vmx_of(cpu), CPU_MTF) && (cpu->activity == ACTIVITY_RUN || moved_on(cpu));
}

void attend_update(struct cpu *cpu)
{
	const struct vmx *v = vmx_of(cpu);

	if (v->mtf || mtf_watches(cpu) || ctl(v, CPU_NMI_WINDOW) || timer_watched(cpu) ||
	    v->tpr_due || v->apic_wrote || interrupts_due(cpu))
		cpu_raise(cpu, ATTN_VIRT);
}

/* ---- the stages ---- */

static bool first(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	if (!v->apic_wrote)
		return false;
	v->apic_wrote = false;
	return vapic_written(cpu, v->apic_offset);
}

static bool before_traps(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	if (v->tpr_due) {
		v->tpr_due = false;
		if (cpu->activity != ACTIVITY_SHUTDOWN && vapic_tpr_written(cpu))
			return true;
	}
	if (!v->mtf && !(ctl(v, CPU_MTF) && moved_on(cpu)))
		return false;
	vmx_exit(cpu, REASON_MTF, 0);
	return true;
}

static bool timer_due(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	return v->timer_armed && (int64_t)(platform_call(cpu, tsc) - v->timer_end) >= 0;
}

static bool before_nmi(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	if (timer_due(cpu)) {
		vmx_exit(cpu, REASON_PREEMPTION_TIMER, 0);
		return true;
	}
	if (!ctl(v, CPU_NMI_WINDOW) || cpu->nmi_blocked || cpu->shadow)
		return false;
	vmx_exit(cpu, REASON_NMI_WINDOW, 0);
	return true;
}

static bool before_interrupt(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	if (!ctl(v, CPU_INTR_WINDOW) || !interrupt_possible(cpu))
		return false;
	vmx_exit(cpu, REASON_INTR_WINDOW, 0);
	return true;
}

static bool last(struct cpu *cpu)
{
	if (vapic_pending(cpu) && interrupt_possible(cpu)) {
		cpu->inject = (struct event){
			.valid = true,
			.type = EVENT_INTERRUPT,
			.vector = vapic_deliver(cpu),
		};
		cpu->activity = ACTIVITY_RUN;
		cpu_update_attention(cpu);
		return true;
	}
	/* Lowered before looking, so that a later raise is not lost. */
	cpu_lower(cpu, ATTN_VIRT);
	attend_update(cpu);
	if (timer_due(cpu))
		cpu_raise(cpu, ATTN_VIRT);
	return false;
}

bool vmx_attend(struct cpu *cpu, enum virt_stage stage)
{
	switch (stage) {
	case VIRT_FIRST:
		return first(cpu);
	case VIRT_BEFORE_TRAPS:
		return before_traps(cpu);
	case VIRT_BEFORE_NMI:
		return before_nmi(cpu);
	case VIRT_BEFORE_INTERRUPT:
		return before_interrupt(cpu);
	case VIRT_LAST:
		return last(cpu);
	}
	return false;
}
