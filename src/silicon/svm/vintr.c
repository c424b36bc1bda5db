/* SPDX-License-Identifier: MIT */
/*
 * What guest mode adds between instructions (APM, virtual interrupts; NMI virtualization), and registers that are
 * virtual in it: CR8, the TSC.
 */
#include "silicon/svm/svm_internal.h"

static struct vmcb_control *control(struct cpu *cpu)
{
	return &svm_of(cpu)->vmcb.control;
}

static bool virtual_gif(const struct cpu *cpu, const struct vmcb_control *c)
{
	return !(c->int_ctl & V_GIF_ENABLE) || !svm_has(cpu, FEAT_VGIF) || (c->int_ctl & V_GIF);
}

/* ---- virtual NMIs ---- */

static bool vnmi_ready(const struct cpu *cpu, const struct vmcb_control *c)
{
	return cpu->virt->vnmi && (c->int_ctl & V_NMI_PENDING) && !cpu->nmi_blocked &&
	       !cpu->shadow && virtual_gif(cpu, c);
}

static bool take_vnmi(struct cpu *cpu)
{
	struct vmcb_control *c = control(cpu);

	if (!vnmi_ready(cpu, c))
		return false;
	c->int_ctl &= ~V_NMI_PENDING;
	cpu->inject = (struct event){.valid = true, .type = EVENT_NMI, .vector = VEC_NMI};
	cpu_update_attention(cpu);
	return true;
}

/* ---- virtual interrupts ---- */

static bool virq_above_tpr(const struct vmcb_control *c)
{
	return (c->int_ctl & V_IGN_TPR) || (c->int_ctl >> V_PRIO_SHIFT & 0xf) > (c->int_ctl & 0xf);
}

static bool virq_ready(const struct cpu *cpu, const struct vmcb_control *c)
{
	return (c->int_ctl & V_IRQ) && (cpu->sflags & FLAG_IF) && !cpu->shadow &&
	       virq_above_tpr(c) && virtual_gif(cpu, c);
}

static void inject(struct cpu *cpu, uint8_t vector)
{
	cpu->inject = (struct event){.valid = true, .type = EVENT_INTERRUPT, .vector = vector};
	cpu_update_attention(cpu);
}

/* V_IRQ and its intercept mean nothing then. */
static bool take_avic(struct cpu *cpu)
{
	if (!(cpu->sflags & FLAG_IF) || cpu->shadow || cpu->activity == ACTIVITY_SHUTDOWN ||
	    !virtual_gif(cpu, control(cpu)) || !svm_avic_pending(cpu))
		return false;
	inject(cpu, svm_avic_take(cpu));
	return true;
}

static bool take_virq(struct cpu *cpu)
{
	struct vmcb_control *c = control(cpu);

	if (svm_avic(cpu, c))
		return take_avic(cpu);
	if (!virq_ready(cpu, c))
		return false;
	if (svm_wants(cpu, SVM_EXIT_VINTR)) {
		svm_exit(cpu, SVM_EXIT_VINTR, 0, 0, 0, NULL);
		return true;
	}
	c->int_ctl &= ~V_IRQ;
	inject(cpu, c->int_ctl >> V_VECTOR_SHIFT);
	return true;
}

/*
 * What opens later raises attention again: RFLAGS.IF, V_GIF, V_TPR. The shadow does not, nor IRET for a blocked NMI:
 * over these the bit stays up.
 */
static bool must_look_again(struct cpu *cpu)
{
	const struct vmcb_control *c = control(cpu);

	if (cpu->virt->vnmi && (c->int_ctl & V_NMI_PENDING))
		return true;
	return ((c->int_ctl & V_IRQ) || svm_avic(cpu, c)) && (cpu->sflags & FLAG_IF) && cpu->shadow;
}

bool svm_attend(struct cpu *cpu, enum virt_stage stage)
{
	if (stage == VIRT_FIRST)
		return svm_of(cpu)->avic_wrote && svm_avic_written(cpu);
	if (stage == VIRT_BEFORE_INTERRUPT)
		return take_vnmi(cpu);
	if (stage != VIRT_LAST)
		return false;
	if (take_virq(cpu))
		return true;
	if (!must_look_again(cpu))
		cpu_lower(cpu, ATTN_VIRT);
	return false;
}

/* ---- CR8 ---- */

static uint64_t own_cr(const struct cpu *cpu, unsigned nr)
{
	return nr == 0 ? cpu->cr0 : nr == 3 ? cpu->cr3 : cpu->cr4;
}

uint64_t svm_cr_read(struct cpu *cpu, unsigned nr)
{
	if (nr != 8)
		return own_cr(cpu, nr);
	if (svm_avic(cpu, control(cpu)))
		return svm_avic_get_tpr(cpu) >> 4;
	if (cpu->virt->if_apart)
		return control(cpu)->int_ctl & 0xf;
	return platform_call(cpu, get_tpr);
}

bool svm_cr_write(struct cpu *cpu, unsigned nr, uint64_t *val)
{
	struct vmcb_control *c = control(cpu);

	if (nr != 8 || *val & ~0xfull)
		return true;
	if (svm_avic(cpu, c)) {
		svm_avic_set_tpr(cpu, *val << 4);
		return false;
	}
	if (!cpu->virt->if_apart)
		return true;
	c->int_ctl = (c->int_ctl & ~V_TPR) | *val;
	cpu_raise(cpu, ATTN_VIRT);
	return false;
}

/* ---- TSC ---- */

#define RATIO_FRACTION 32

uint64_t svm_tsc(struct cpu *cpu, uint64_t tsc)
{
	uint64_t ratio = svm_has(cpu, FEAT_TSCRATEMSR) ? cpu->msr.tsc_ratio : BIT(RATIO_FRACTION);

	return (uint64_t)((unsigned __int128)tsc * ratio >> RATIO_FRACTION) +
	       control(cpu)->tsc_offset;
}
