/* SPDX-License-Identifier: MIT */
/*
 * VMRUN (APM, VMRUN): checks, then the host's state aside and the guest's in.
 *
 * Faults of the instruction come first and leave everything alone. What the consistency checks refuse is an exit with
 * VMEXIT_INVALID before anything was loaded. The VMCB is read once, here.
 */
#include "host/host.h"
#include "silicon/mmu/mmu.h"
#include "silicon/svm/svm_internal.h"

#include <string.h>

#define MSRPM_SIZE 0x2000
#define IOPM_SIZE  0x3000
#define ATTR_L	   BIT(9)
#define ATTR_D	   BIT(10)

/* ---- checks ---- */

static bool beyond(const struct cpu *cpu, gpa_t gpa, uint32_t size)
{
	return ((gpa & PAGE_MASK) + size - 1) >> cpu->maxphyaddr;
}

static bool type_known(uint64_t inj)
{
	unsigned type = EVENTINJ_TYPE(inj);

	return type == EVENTINJ_INTR || (type >= EVENTINJ_NMI && type <= EVENTINJ_SOFT);
}

static bool long_paging(const struct vmcb_save *s)
{
	return (s->efer & EFER_LME) && (s->cr0 & CR0_PG);
}

/* What a row says; name NULL: nothing is refused. */
#define REFUSED(name, value) ((struct svm_refusal){name, value})

struct svm_refusal svm_check_control(const struct cpu *cpu, const struct vmcb_control *c)
{
#define CONTROL(name, value, refused) \
	if (refused)                  \
		return REFUSED(name, value);
#define SAVE(name, value, refused)
#include "svm_checks.def"
#undef CONTROL
#undef SAVE
	return REFUSED(NULL, 0);
}

struct svm_refusal svm_check_save(const struct cpu *cpu, const struct vmcb_save *s)
{
#define CONTROL(name, value, refused)
#define SAVE(name, value, refused) \
	if (refused)               \
		return REFUSED(name, value);
#include "svm_checks.def"
#undef CONTROL
#undef SAVE
	return REFUSED(NULL, 0);
}

/* ---- loading ---- */

/* Kinds that one bit or another of the control area may ask for. */
static uint64_t find_intercepts(const struct vmcb_control *c)
{
	uint64_t kinds = 0;

	for (unsigned kind = 0; kind < NR_INTERCEPTS; kind++)
		if (kind != INTERCEPT_EXCEPTION)
			kinds |= BIT(kind);
	if (c->intercepts[ICPT_EXCEPTION])
		kinds |= BIT(INTERCEPT_EXCEPTION);
	/* Those that change how events are let in must be exact. */
	if (!(c->intercepts[ICPT_MISC1] & BIT(SVM_EXIT_INTR - SVM_EXIT_INTR)))
		kinds &= ~BIT(INTERCEPT_INTERRUPT);
	if (!(c->intercepts[ICPT_MISC1] & BIT(SVM_EXIT_NMI - SVM_EXIT_INTR)))
		kinds &= ~BIT(INTERCEPT_NMI);
	return kinds;
}

void svm_derive(struct cpu *cpu)
{
	struct svm *svm = svm_of(cpu);
	const struct vmcb_control *c = &svm->vmcb.control;

	svm->virt.guest = true;
	svm->virt.stage2 = c->nested_ctl & NESTED_CTL_NPT;
	svm->virt.intercepts = find_intercepts(c);
	svm->virt.if_apart = c->int_ctl & V_INTR_MASKING;
	svm->virt.if_host = svm->host.rflags & FLAG_IF;
	svm->virt.vnmi = (c->int_ctl & V_NMI_ENABLE) && svm_has(cpu, FEAT_VNMI);
	virt_begun(cpu, svm_wants(cpu, SVM_EXIT_MSR) ? c->msrpm & PAGE_MASK : GPA_NONE);
	svm->pause_left = c->pause_count;
	svm->pause_last = 0;
	if ((c->int_ctl & (V_IRQ | V_NMI_PENDING)) || svm_avic(cpu, c))
		cpu_raise(cpu, ATTN_VIRT);
}

/* Software interrupts, INT3 and INTO return to nRIP, where there is one. */
static void inject(struct cpu *cpu, const struct vmcb_control *c)
{
	static const uint8_t types[] = {
		[EVENTINJ_INTR] = EVENT_INTERRUPT,
		[EVENTINJ_NMI] = EVENT_NMI,
		[EVENTINJ_EXCEPTION] = EVENT_EXCEPTION,
		[EVENTINJ_SOFT] = EVENT_SOFT_INT,
	};
	uint8_t vector = c->event_inj;
	unsigned type = EVENTINJ_TYPE(c->event_inj);
	bool soft = type == EVENTINJ_SOFT ||
		    (type == EVENTINJ_EXCEPTION && (vector == VEC_BP || vector == VEC_OF));

	cpu->inject = (struct event){.valid = c->event_inj & EVENTINJ_VALID};
	if (!cpu->inject.valid)
		return;
	cpu->inject.type = types[type];
	cpu->inject.vector = type == EVENTINJ_NMI ? VEC_NMI : vector;
	cpu->inject.keeps_nmis = !svm_of(cpu)->virt.vnmi;
	if (type == EVENTINJ_EXCEPTION && (c->event_inj & EVENTINJ_HAS_ERROR)) {
		cpu->inject.has_error = true;
		cpu->inject.error = c->event_inj >> 32;
	}
	if (soft && svm_has(cpu, FEAT_NRIPS)) {
		cpu->inject.has_return = true;
		cpu->inject.return_rip = c->next_rip;
	}
}

static bool pae_paging(const struct cpu *cpu)
{
	return cpu_paging(cpu) && (cpu->cr4 & CR4_PAE) && !(cpu->msr.efer & EFER_LME);
}

static void load_guest(struct cpu *cpu, const struct vmcb *vmcb)
{
	const struct vmcb_control *c = &vmcb->control;

	svm_restore(cpu, &vmcb->save);
	cpu->cr2 = vmcb->save.cr2;
	cpu->dr6 = (vmcb->save.dr6 & DR6_VOLATILE) | DR6_FIXED_1;
	cpu->dr7 = (vmcb->save.dr7 & DR7_VOLATILE) | DR7_FIXED_1;
	if (svm_lbrv(cpu))
		svm_restore_lbr(cpu, &vmcb->save);
	cpu->virt->gif = true;
	svm_derive(cpu);
	if (cpu->virt->vnmi)
		cpu->nmi_blocked = c->int_ctl & V_NMI_MASK;
	cpu->shadow = c->int_state & INT_STATE_SHADOW ? SHADOW_STI : 0;
	cpu->pending_dr6 = 0;
	inject(cpu, c);
	sys_world_changed(cpu);
}

/* PDPTEs that cannot be read or are not valid: without nested paging the host's own reading of memory, so refused. */
static void load_pdptes(struct cpu *cpu)
{
	if (!pae_paging(cpu) || !mmu_load_pdptes(cpu, cpu->cr3))
		return;
	if (cpu->fault.type == EVENT_VMEXIT)
		svm_refused(cpu, NULL);
	else
		svm_exit(cpu, SVM_EXIT_INVALID, 0, 0, 0, NULL);
	cpu->fault.valid = false;
}

/* APM, TLB control. What is reserved flushes as much as what is known. */
#define TLB_CONTROL_ALL 1

static void control_tlb(struct cpu *cpu, const struct vmcb_control *c)
{
	if (c->tlb_control == TLB_CONTROL_ALL) {
		mmu_flush_translations(cpu);
		mmu_flush_worlds(cpu, 0, 0);
	} else if (c->tlb_control) {
		mmu_flush_worlds(cpu, c->asid, 0);
	}
}

static void save_host(struct cpu *cpu)
{
	struct svm *svm = svm_of(cpu);

	svm_capture(cpu, &svm->host);
	svm->host.rip = svm_next_rip(cpu);
	memcpy(svm->host_pdpte, cpu->pdpte, sizeof(cpu->pdpte));
	svm->host_nmi_blocked = cpu->nmi_blocked;
}

/* For the guest hypervisor's author, if the program wants it so. */
static void report(struct cpu *cpu, const struct svm_refusal *why)
{
	if (!svm_of(cpu)->report)
		return;
	fpu_save(cpu);
	host_log("VMRUN refused: %s (%#lx)", why->name, why->value);
}

/* Nothing was loaded: only the outcome is written. */
static enum result refuse(struct cpu *cpu, gpa_t gpa)
{
	static const uint64_t outcome[3] = {SVM_EXIT_INVALID};
	static const uint64_t none;

	cpu->virt->gif = false;
	if (mmu_write_phys_bytes(cpu, gpa + offsetof(struct vmcb, control.exit_code), outcome,
				 sizeof(outcome)) ||
	    mmu_write_phys_bytes(cpu, gpa + offsetof(struct vmcb, control.event_inj), &none,
				 sizeof(none)))
		cpu->exit.kind = CPU_EXIT_NONE;
	return svm_done(cpu);
}

static enum result check_vmrun(struct cpu *cpu, gpa_t gpa)
{
	if (!svm_page_ok(cpu, gpa) || !cpu->msr.vm_hsave_pa)
		return fault_gp(cpu, 0);
	return cpu->in_smm ? fault_ud(cpu) : RESULT_OK;
}

static void note_entry(struct cpu *cpu)
{
	const struct vmcb *vmcb = &svm_of(cpu)->vmcb;
	bool npt = vmcb->control.nested_ctl & 1;
	struct virt_note note = {
		.event = VIRT_ENTERED,
		.rip = cpu->rip,
		.control = svm_of(cpu)->vmcb_gpa,
		.guest_rip = vmcb->save.rip,
		.tables = npt ? vmcb->control.nested_cr3 : vmcb->save.cr3,
		.stage2 = npt,
		.int_ctl = vmcb->control.int_ctl,
		.injects = vmcb->control.event_inj,
	};

	platform_call(cpu, guest_mode, &note);
}

enum result svm_vmrun(struct cpu *cpu, const struct virt_insn *insn)
{
	struct svm *svm = svm_of(cpu);
	gpa_t gpa = svm_rax(cpu, insn);
	enum result r = check_vmrun(cpu, gpa);
	struct svm_refusal why;

	if (r)
		return r;
	r = mmu_read_phys_bytes(cpu, gpa, &svm->vmcb, sizeof(svm->vmcb));
	if (r)
		return r == RESULT_FAULT ? fault_gp(cpu, 0) : r;
	why = svm_check_control(cpu, &svm->vmcb.control);
	if (!why.name)
		why = svm_check_save(cpu, &svm->vmcb.save);
	if (why.name) {
		report(cpu, &why);
		return refuse(cpu, gpa);
	}
	/* All checks passed. */
	svm->vmcb_gpa = gpa;
	if (cpu_notes(cpu))
		note_entry(cpu);
	save_host(cpu);
	control_tlb(cpu, &svm->vmcb.control);
	load_guest(cpu, &svm->vmcb);
	load_pdptes(cpu);
	return RESULT_AGAIN;
}
