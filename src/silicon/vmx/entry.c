/* SPDX-License-Identifier: MIT */
/*
 * VM entry (SDM, VM entries), once the checks of controls and host state have passed.
 *
 * Checks of the guest state, its loading, the MSR list, then guest mode with the event that is injected, which is given to
 * cpu->inject and so is delivered like any other before the first instruction. A failure from here on is an exit, with the
 * host's state loaded and nothing of the guest saved.
 */
#include "silicon/vmx/vmx_internal.h"

#define CR0_KEPT  (CR0_ET | CR0_NW | CR0_CD)
#define CR0_KNOWN 0xe005003full

static void load_segment(const struct vmx *v, struct segment *seg, unsigned n)
{
	seg->sel = get(v, VMCS_ES_SEL + n);
	seg->base = get(v, VMCS_ES_BASE + n);
	seg->limit = get(v, VMCS_ES_LIMIT + n);
	seg->attr = get(v, VMCS_ES_AR + n);
}

static void load_efer(struct cpu *cpu, const struct vmx *v)
{
	uint64_t both = EFER_LMA | EFER_LME;

	if (on_entry(v, ENTRY_EFER)) {
		cpu->msr.efer = get(v, VMCS_EFER);
		return;
	}
	cpu->msr.efer &= ~EFER_LMA;
	if (on_entry(v, ENTRY_GUEST_64))
		cpu->msr.efer |= both;
	else if (get(v, VMCS_CR0) & CR0_PG)
		cpu->msr.efer &= ~both;
}

/* CR0's cache bits and ET stay. */
static void load_control(struct cpu *cpu, const struct vmx *v)
{
	cpu->cr0 = (get(v, VMCS_CR0) & CR0_KNOWN & ~CR0_KEPT) | (cpu->cr0 & CR0_KEPT) | CR0_ET;
	cpu->cr3 = get(v, VMCS_CR3);
	cpu->cr4 = get(v, VMCS_CR4);
	load_efer(cpu, v);
	if (!on_entry(v, ENTRY_LOAD_DEBUG))
		return;
	cpu->dr7 = (get(v, VMCS_DR7) & DR7_VOLATILE) | DR7_FIXED_1;
	cpu->msr.debugctl = get(v, VMCS_DEBUGCTL);
}

static void load_pdptes(struct cpu *cpu, const struct vmx *v)
{
	for (unsigned i = 0; i < 4; i++) {
		uint64_t val = get(v, VMCS_PDPTE0 + i);

		if (!ctl2(v, CPU2_EPT) &&
		    mmu_read_phys(cpu, (cpu->cr3 & GENMASK(31, 5)) + 8 * i, 8, &val))
			val = 0;
		cpu->pdpte[i] = val;
	}
}

static bool injects(const struct vmx *v)
{
	return get(v, VMCS_ENTRY_INTR_INFO) & INTR_VALID;
}

/* An event that is injected leaves no trap pending behind it. */
static void load_pending_debug(struct cpu *cpu, const struct vmx *v)
{
	uint64_t pending = get(v, VMCS_PENDING_DEBUG);

	cpu->pending_dr6 = 0;
	if (injects(v))
		return;
	if (pending & PENDING_ENABLED)
		cpu->pending_dr6 |= pending & 0xf;
	if (pending & PENDING_BS)
		cpu->pending_dr6 |= DR6_BS;
}

static void load_non_register(struct cpu *cpu, const struct vmx *v)
{
	static const uint8_t activity[] = {ACTIVITY_RUN, ACTIVITY_HLT, ACTIVITY_SHUTDOWN,
					   ACTIVITY_WAIT_SIPI};
	uint64_t blocked = get(v, VMCS_INTERRUPTIBILITY);

	cpu->shadow = 0;
	if (blocked & BLOCKED_STI)
		cpu->shadow |= SHADOW_STI;
	if (blocked & BLOCKED_MOV_SS)
		cpu->shadow |= SHADOW_MOV_SS;
	cpu->nmi_blocked = blocked & BLOCKED_NMI;
	cpu->activity = injects(v) ? ACTIVITY_RUN : activity[get(v, VMCS_ACTIVITY) & 3];
	load_pending_debug(cpu, v);
}

void entry_load_guest(struct cpu *cpu)
{
	const struct vmx *v = vmx_of(cpu);

	load_control(cpu, v);
	if (on_entry(v, ENTRY_PAT))
		cpu->msr.pat = get(v, VMCS_PAT);
	cpu->msr.sysenter_cs = get(v, VMCS_SYSENTER_CS);
	cpu->msr.sysenter_esp = get(v, VMCS_SYSENTER_ESP);
	cpu->msr.sysenter_eip = get(v, VMCS_SYSENTER_EIP);
	for (unsigned n = 0; n < NR_SEGS; n++)
		load_segment(v, &cpu->seg[n], n);
	cpu->gdtr.base = get(v, VMCS_GDTR_BASE);
	cpu->gdtr.limit = get(v, VMCS_GDTR_LIMIT);
	cpu->idtr.base = get(v, VMCS_IDTR_BASE);
	cpu->idtr.limit = get(v, VMCS_IDTR_LIMIT);
	cpu->gpr[RSP] = get(v, VMCS_RSP);
	cpu->rip = get(v, VMCS_RIP);
	cpu_set_rflags(cpu, get(v, VMCS_RFLAGS));
	load_pdptes(cpu, v);
	load_non_register(cpu, v);
}

/* The shadow VMCS that VMREAD and VMWRITE of the guest reach. */
void entry_load_link(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	struct vmcs_image image;

	v->linked = false;
	v->link_ptr = get(v, VMCS_LINK_POINTER);
	if (!ctl2(v, CPU2_SHADOW) || v->link_ptr == GPA_NONE)
		return;
	if (vmcs_load(cpu, v->link_ptr, &image))
		return;
	memcpy(v->link, image.f, sizeof(v->link));
	v->linked = true;
}

/* ---- guest mode begins ---- */

static void start_timer(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	v->timer_armed = pin(v, PIN_PREEMPTION_TIMER);
	if (!v->timer_armed)
		return;
	v->timer_end = platform_call(cpu, tsc) +
		       (get(v, VMCS_PREEMPTION_TIMER) << (v->caps.msr[VMX_MISC] & MISC_TIMER_MASK));
	if (cpu->platform->alarm)
		platform_call(cpu, alarm, v->timer_end);
}

void entry_begin(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	v->virt.guest = true;
	v->virt.stage2 = ctl2(v, CPU2_EPT | CPU2_APIC_ACCESS);
	v->virt.logs = ctl2(v, CPU2_PML);
	v->virt.intercepts = intercept_mask(v);
	v->virt.if_apart = v->virt.if_host = pin(v, PIN_EXT_INT);
	v->virt.vnmi = pin(v, PIN_VIRTUAL_NMI);
	v->virt.iret_keeps = pin(v, PIN_NMI) && !v->virt.vnmi;
	v->virt.iret_unblocked = false;
	virt_begun(cpu, ctl(v, CPU_MSR_BITMAPS) ? get(v, VMCS_MSR_BITMAP) : GPA_NONE);
	v->mtf = false;
	v->mtf_rip = cpu->rip;
	v->mtf_retired = cpu->retired;
	v->virt.iterated = false;
	v->apic_wrote = false;
	v->tpr_due = ctl(v, CPU_TPR_SHADOW);
	v->ple_first = v->ple_last = 0;
	v->nr_entries++;
	vmx_fix_control(cpu);
	start_timer(cpu);
	sys_world_changed(cpu);
	attend_update(cpu);
}

/* ---- the event ---- */

static uint8_t event_type(unsigned type)
{
	static const uint8_t types[] = {
		[INTR_EXTERNAL] = EVENT_INTERRUPT,	    [INTR_NMI] = EVENT_NMI,
		[INTR_EXCEPTION] = EVENT_EXCEPTION,	    [INTR_SOFT_INT] = EVENT_SOFT_INT,
		[INTR_PRIV_SOFT_EXC] = EVENT_PRIV_SOFT_EXC, [INTR_SOFT_EXC] = EVENT_SOFT_EXC,
	};

	return types[type];
}

static void inject(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	uint32_t info = get(v, VMCS_ENTRY_INTR_INFO);
	unsigned type = info >> INTR_TYPE_SHIFT & 7;

	cpu->inject.valid = false;
	if (!(info & INTR_VALID))
		return;
	if (type == INTR_OTHER) {
		v->mtf = true;
		return;
	}
	cpu->inject = (struct event){
		.valid = true,
		.type = event_type(type),
		.vector = info,
		.has_error = info & INTR_ERROR,
		.error = get(v, VMCS_ENTRY_ERROR_CODE),
		.insn_len = get(v, VMCS_ENTRY_INSN_LEN),
	};
}

/*
 * The APIC-access page is to be memory of this machine: processors do not ask for that, but KVM, which has to map it, gives
 * up on the entry, and the machine's owner hears of it.
 */
static bool apic_page_absent(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	uint8_t byte;

	return ctl2(v, CPU2_APIC_ACCESS) &&
	       mmu_read_phys_bytes(cpu, get(v, VMCS_APIC_ACCESS_ADDR), &byte, 1) == RESULT_FAULT;
}

static enum result give_up(struct cpu *cpu)
{
	cpu->exit = (struct cpu_exit){.kind = CPU_EXIT_EMULATION};
	return RESULT_EXIT;
}

static enum result failed(struct cpu *cpu, uint32_t reason, uint64_t qualification)
{
	exit_failed_entry(cpu, reason | REASON_ENTRY_FAILED, qualification);
	return RESULT_AGAIN;
}

static void note_entry(struct cpu *cpu)
{
	const struct vmx *v = vmx_of(cpu);
	bool ept = ctl2(v, CPU2_EPT);
	struct virt_note note = {
		.event = VIRT_ENTERED,
		.rip = cpu->rip,
		.control = v->current,
		.guest_rip = get(v, VMCS_RIP),
		.tables = get(v, ept ? VMCS_EPTP : VMCS_CR3),
		.stage2 = ept,
		.int_ctl = get(v, VMCS_INTR_STATUS),
		.injects = get(v, VMCS_ENTRY_INTR_INFO),
	};

	platform_call(cpu, guest_mode, &note);
}

/*
 * RIP is still on VMLAUNCH or VMRESUME, where a failure that is no exit would leave it; guest mode has an exit for
 * everything else, so that struct cpu is another's when this returns.
 */
enum result vmx_entry(struct cpu *cpu, bool launch)
{
	struct vmx *v = vmx_of(cpu);
	const struct entry_check *row = check_stage(cpu, CHECK_GUEST);
	unsigned bad;

	if (apic_page_absent(cpu))
		return give_up(cpu);
	if (row) {
		check_report(cpu, row);
		return failed(cpu, REASON_GUEST_STATE, check_qualification(row));
	}
	/* All checks passed. */
	form_entered(cpu);
	if (cpu_notes(cpu))
		note_entry(cpu);
	entry_load_guest(cpu);
	bad = msr_list_load(cpu, get(v, VMCS_ENTRY_MSR_LOAD_ADDR),
			    get(v, VMCS_ENTRY_MSR_LOAD_COUNT));
	if (bad)
		return failed(cpu, REASON_MSR_LOAD, bad);
	if (launch)
		v->launched = true;
	entry_load_link(cpu);
	entry_begin(cpu);
	inject(cpu);
	cpu_update_attention(cpu);
	attend_update(cpu);
	return RESULT_AGAIN;
}
