/* SPDX-License-Identifier: MIT */
/*
 * VM exit (SDM, VM exits): exit information, guest state saved, MSRs stored, host state and MSRs loaded.
 *
 * It cannot fail; what cannot be done is a VMX abort, which stops the processor.
 */
#include "silicon/vmx/vmx_internal.h"

/* ---- information ---- */

uint32_t event_info(const struct event *ev)
{
	static const uint8_t types[] = {
		[EVENT_EXCEPTION] = INTR_EXCEPTION,
		[EVENT_INTERRUPT] = INTR_EXTERNAL,
		[EVENT_NMI] = INTR_NMI,
		[EVENT_SOFT_INT] = INTR_SOFT_INT,
		[EVENT_SOFT_EXC] = INTR_SOFT_EXC,
		[EVENT_PRIV_SOFT_EXC] = INTR_PRIV_SOFT_EXC,
	};

	return INTR_VALID | (uint32_t)types[ev->type] << INTR_TYPE_SHIFT |
	       (ev->has_error ? (uint32_t)INTR_ERROR : 0) | ev->vector;
}

static bool soft(const struct event *ev)
{
	return ev->type == EVENT_SOFT_INT || ev->type == EVENT_SOFT_EXC ||
	       ev->type == EVENT_PRIV_SOFT_EXC;
}

static void put_information(struct vmx *v, const struct exit_info *info)
{
	put(v, VMCS_EXIT_REASON, info->reason);
	put(v, VMCS_EXIT_QUALIFICATION, info->qualification);
	put(v, VMCS_EXIT_INTR_INFO, info->intr_info);
	put(v, VMCS_EXIT_INTR_ERROR, info->intr_error);
	put(v, VMCS_GUEST_LINEAR_ADDR, info->linear);
	put(v, VMCS_GUEST_PHYS_ADDR, info->gpa);
	put(v, VMCS_EXIT_INSN_LEN, info->insn_len);
	put(v, VMCS_EXIT_INSN_INFO, info->insn_info);
	put(v, VMCS_IDT_INFO, 0);
	put(v, VMCS_IDT_ERROR, 0);
	if (!info->cause)
		return;
	put(v, VMCS_IDT_INFO, event_info(info->cause));
	put(v, VMCS_IDT_ERROR, info->cause->has_error ? info->cause->error : 0);
	if (soft(info->cause))
		put(v, VMCS_EXIT_INSN_LEN, info->cause->insn_len);
}

/* ---- the guest's state ---- */

static void save_segments(const struct cpu *cpu, uint64_t *vmcs)
{
	for (unsigned n = 0; n < NR_SEGS; n++) {
		const struct segment *seg = &cpu->seg[n];

		vmcs[VMCS_ES_SEL + n] = seg->sel;
		vmcs[VMCS_ES_BASE + n] = seg->base;
		vmcs[VMCS_ES_LIMIT + n] = seg->limit;
		vmcs[VMCS_ES_AR + n] = seg->attr & (0xf0ff | SEG_UNUSABLE);
	}
	vmcs[VMCS_GDTR_BASE] = cpu->gdtr.base;
	vmcs[VMCS_GDTR_LIMIT] = cpu->gdtr.limit;
	vmcs[VMCS_IDTR_BASE] = cpu->idtr.base;
	vmcs[VMCS_IDTR_LIMIT] = cpu->idtr.limit;
}

static uint64_t blocked(const struct cpu *cpu)
{
	return (cpu->shadow & SHADOW_STI ? BLOCKED_STI : 0) |
	       (cpu->shadow & SHADOW_MOV_SS ? BLOCKED_MOV_SS : 0) |
	       (cpu->nmi_blocked ? BLOCKED_NMI : 0);
}

static uint64_t pending_debug(const struct cpu *cpu)
{
	uint64_t pending = cpu->pending_dr6 & 0xf;

	if (pending)
		pending |= PENDING_ENABLED;
	return pending | (cpu->pending_dr6 & DR6_BS ? PENDING_BS : 0);
}

static void save_non_register(const struct cpu *cpu, uint64_t *vmcs)
{
	static const uint8_t activity[] = {
		[ACTIVITY_RUN] = VMX_ACTIVE,
		[ACTIVITY_HLT] = VMX_HLT,
		[ACTIVITY_SHUTDOWN] = VMX_SHUTDOWN,
		[ACTIVITY_WAIT_SIPI] = VMX_WAIT_SIPI,
	};

	vmcs[VMCS_ACTIVITY] = activity[cpu->activity];
	vmcs[VMCS_INTERRUPTIBILITY] = blocked(cpu);
	vmcs[VMCS_PENDING_DEBUG] = pending_debug(cpu);
}

static void save_controlled(struct cpu *cpu, uint64_t *vmcs)
{
	const struct vmx *v = vmx_of(cpu);
	uint64_t left;

	if (on_exit(v, EXIT_SAVE_DEBUG)) {
		vmcs[VMCS_DR7] = cpu->dr7;
		vmcs[VMCS_DEBUGCTL] = cpu->msr.debugctl;
	}
	if (on_exit(v, EXIT_SAVE_PAT))
		vmcs[VMCS_PAT] = cpu->msr.pat;
	if (on_exit(v, EXIT_SAVE_EFER))
		vmcs[VMCS_EFER] = cpu->msr.efer;
	if (on_exit(v, EXIT_SAVE_TIMER) && vmx_timer_left(cpu, &left))
		vmcs[VMCS_PREEMPTION_TIMER] = left;
	vmcs[VMCS_ENTRY_CTLS] &= ~(uint64_t)ENTRY_GUEST_64;
	if (cpu->msr.efer & EFER_LMA)
		vmcs[VMCS_ENTRY_CTLS] |= ENTRY_GUEST_64;
	for (unsigned i = 0; ctl2(v, CPU2_EPT) && i < 4; i++)
		vmcs[VMCS_PDPTE0 + i] = cpu->pdpte[i];
}

void exit_save_guest(struct cpu *cpu, uint64_t *vmcs)
{
	vmcs[VMCS_CR0] = cpu->cr0;
	vmcs[VMCS_CR3] = cpu->cr3;
	vmcs[VMCS_CR4] = cpu->cr4;
	vmcs[VMCS_SYSENTER_CS] = cpu->msr.sysenter_cs;
	vmcs[VMCS_SYSENTER_ESP] = cpu->msr.sysenter_esp;
	vmcs[VMCS_SYSENTER_EIP] = cpu->msr.sysenter_eip;
	vmcs[VMCS_RSP] = cpu->gpr[RSP];
	vmcs[VMCS_RIP] = cpu->rip;
	vmcs[VMCS_RFLAGS] = cpu_rflags(cpu);
	save_segments(cpu, vmcs);
	save_non_register(cpu, vmcs);
	save_controlled(cpu, vmcs);
}

/* ---- the host's state ---- */

static void host_segment(struct segment *seg, uint16_t sel, uint64_t base, uint32_t attr)
{
	*seg = (struct segment){.sel = sel, .base = base, .limit = 0xffffffff, .attr = attr};
	if (!(sel & 0xfffc))
		seg->attr |= SEG_UNUSABLE;
}

static void host_segments(struct cpu *cpu, const struct vmx *v)
{
	uint32_t data = SEG_G | SEG_DB | SEG_P | SEG_S | SEG_W | SEG_A;
	uint32_t code = SEG_G | SEG_P | SEG_S | SEG_CODE | SEG_W | SEG_A;

	code |= on_exit(v, EXIT_HOST_64) ? SEG_L : SEG_DB;
	for (unsigned n = SEG_ES; n <= SEG_GS; n++)
		host_segment(&cpu->seg[n], get(v, VMCS_HOST_ES_SEL + n), 0,
			     n == SEG_CS ? code : data);
	cpu->seg[SEG_FS].base = get(v, VMCS_HOST_FS_BASE);
	cpu->seg[SEG_GS].base = get(v, VMCS_HOST_GS_BASE);
	host_segment(&cpu->seg[SEG_TR], get(v, VMCS_HOST_TR_SEL), get(v, VMCS_HOST_TR_BASE),
		     SEG_P | 11);
	cpu->seg[SEG_TR].limit = 0x67;
	cpu->seg[SEG_LDTR] = (struct segment){.attr = SEG_UNUSABLE};
	cpu->gdtr = (struct dtable){.base = get(v, VMCS_HOST_GDTR_BASE), .limit = 0xffff};
	cpu->idtr = (struct dtable){.base = get(v, VMCS_HOST_IDTR_BASE), .limit = 0xffff};
}

#define CR0_KEPT    (CR0_ET | CR0_NW | CR0_CD)
#define CR0_WRITTEN (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_PG)

static void host_control(struct cpu *cpu, const struct vmx *v)
{
	uint64_t both = EFER_LMA | EFER_LME;

	cpu->cr0 = (get(v, VMCS_HOST_CR0) & CR0_WRITTEN) | (cpu->cr0 & CR0_KEPT);
	cpu->cr3 = get(v, VMCS_HOST_CR3);
	cpu->cr4 = get(v, VMCS_HOST_CR4);
	if (on_exit(v, EXIT_HOST_64))
		cpu->cr4 |= CR4_PAE;
	else
		cpu->cr4 &= ~(uint64_t)CR4_PCIDE;
	if (on_exit(v, EXIT_LOAD_EFER))
		cpu->msr.efer = get(v, VMCS_HOST_EFER);
	else
		cpu->msr.efer = (cpu->msr.efer & ~both) | (on_exit(v, EXIT_HOST_64) ? both : 0);
	cpu->dr7 = DR7_FIXED_1;
	cpu->msr.debugctl = 0;
	if (on_exit(v, EXIT_LOAD_PAT))
		cpu->msr.pat = get(v, VMCS_HOST_PAT);
	cpu->msr.sysenter_cs = get(v, VMCS_HOST_SYSENTER_CS);
	cpu->msr.sysenter_esp = get(v, VMCS_HOST_SYSENTER_ESP);
	cpu->msr.sysenter_eip = get(v, VMCS_HOST_SYSENTER_EIP);
}

/* False: the host's PDPTEs have reserved bits. */
static bool load_host(struct cpu *cpu)
{
	const struct vmx *v = vmx_of(cpu);
	bool pae;

	host_control(cpu, v);
	host_segments(cpu, v);
	cpu->gpr[RSP] = get(v, VMCS_HOST_RSP);
	cpu->rip = get(v, VMCS_HOST_RIP);
	cpu->pending_dr6 = 0;
	cpu->inject.valid = false;
	cpu->shadow = 0;
	cpu->activity = ACTIVITY_RUN;
	cpu_set_rflags(cpu, FLAG_FIXED);
	cpu_update_mode(cpu);
	pae = (cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !on_exit(v, EXIT_HOST_64);
	if (!pae || mmu_load_pdptes(cpu, cpu->cr3) == RESULT_OK)
		return true;
	cpu->fault.valid = false;
	return false;
}

/* ---- abort ---- */

/* The processor stops until RESET#, which a machine takes for a triple fault. */
static void vmx_abort(struct cpu *cpu, enum vmx_abort why)
{
	struct vmx *v = vmx_of(cpu);
	uint32_t indicator = why;

	if (v->current != GPA_NONE)
		mmu_write_phys_bytes(cpu, v->current + offsetof(struct vmcs_image, abort),
				     &indicator, sizeof(indicator));
	cpu->activity = ACTIVITY_SHUTDOWN;
	cpu_raise(cpu, ATTN_EVENTS);
}

/* ---- the exit ---- */

void vmx_leave_guest(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	v->virt.guest = v->virt.stage2 = false;
	v->virt.intercepts = 0;
	v->virt.msr_map = NULL;
	v->virt.if_apart = v->virt.if_host = v->virt.vnmi = v->virt.iret_keeps = false;
	v->timer_armed = v->mtf = v->apic_wrote = false;
	vmx_fix_control(cpu);
	cpu_lower(cpu, ATTN_VIRT);
}

static void store_link(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	if (v->linked)
		vmcs_store(cpu, v->link_ptr, v->link, true, false);
	v->linked = false;
}

static void to_host(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	bool vnmi = v->virt.vnmi;

	vmx_leave_guest(cpu);
	if (vnmi)
		cpu->nmi_blocked = false;
	if (!load_host(cpu))
		vmx_abort(cpu, ABORT_HOST_PDPTE);
	else if (msr_list_load(cpu, get(v, VMCS_EXIT_MSR_LOAD_ADDR),
			       get(v, VMCS_EXIT_MSR_LOAD_COUNT)))
		vmx_abort(cpu, ABORT_LOAD_MSR);
	sys_world_changed(cpu);
}

void exit_quietly(struct cpu *cpu)
{
	vmx_of(cpu)->linked = false;
	to_host(cpu);
	answers_reset(cpu);
}

static void note_exit(struct cpu *cpu)
{
	const struct vmx *v = vmx_of(cpu);
	struct virt_note note = {
		.event = VIRT_LEFT,
		.rip = cpu->rip,
		.reason = get(v, VMCS_EXIT_REASON),
		.info = {get(v, VMCS_EXIT_QUALIFICATION), get(v, VMCS_IDT_INFO)},
		.int_info = get(v, VMCS_EXIT_INTR_INFO),
		.int_error = get(v, VMCS_EXIT_INTR_ERROR),
	};

	platform_call(cpu, guest_mode, &note);
}

void exit_make(struct cpu *cpu, const struct exit_info *info)
{
	struct vmx *v = vmx_of(cpu);
	uint64_t entry_info = get(v, VMCS_ENTRY_INTR_INFO) & ~(uint64_t)INTR_VALID;
	struct exit_info copy = *info;
	struct event waiting = cpu->inject;
	unsigned unstored;

	if (waiting.valid && !copy.cause)
		copy.cause = &waiting;
	put_information(v, &copy);
	if (cpu_notes(cpu))
		note_exit(cpu);
	exit_save_guest(cpu, v->vmcs);
	if (info->set_rf)
		v->vmcs[VMCS_RFLAGS] |= FLAG_RF;
	put(v, VMCS_ENTRY_INTR_INFO, entry_info);
	form_write(cpu);
	store_link(cpu);
	v->nr_exits++;
	unstored = msr_list_store(cpu, get(v, VMCS_EXIT_MSR_STORE_ADDR),
				  get(v, VMCS_EXIT_MSR_STORE_COUNT));
	to_host(cpu);
	if (unstored)
		vmx_abort(cpu, ABORT_SAVE_MSR);
	cpu->fault.valid = false;
	answers_reset(cpu);
}

void vmx_exit(struct cpu *cpu, uint32_t reason, uint64_t qualification)
{
	exit_make(cpu, &(struct exit_info){.reason = reason, .qualification = qualification});
}

void vmx_exit_insn(struct cpu *cpu, uint32_t reason, uint64_t qualification, uint32_t info)
{
	exit_make(cpu, &(struct exit_info){
			       .reason = reason,
			       .qualification = qualification,
			       .insn_len = cpu->virt->insn.len,
			       .insn_info = info,
		       });
}

/* Of the exit information only these two are written. */
void exit_failed_entry(struct cpu *cpu, uint32_t reason, uint64_t qualification)
{
	struct vmx *v = vmx_of(cpu);

	put(v, VMCS_EXIT_REASON, reason);
	put(v, VMCS_EXIT_QUALIFICATION, qualification);
	form_write(cpu);
	v->nr_exits++;
	to_host(cpu);
	answers_reset(cpu);
}

void vmx_exit_for_owner(struct cpu *cpu, uint32_t reason)
{
	vmx_exit(cpu, reason, 0);
}
