/* SPDX-License-Identifier: MIT */
/*
 * #VMEXIT (APM, #VMEXIT): the guest's registers go to the VMCB, what VMRUN saved comes back.
 *
 * Fields that #VMEXIT writes are written, and no others: the guest hypervisor may keep what it likes beside them.
 * Should the VMCB's memory be gone by now, nothing is written, and the host goes on as it must.
 */
#include "silicon/mmu/mmu.h"
#include "silicon/svm/svm_internal.h"

#include <string.h>

/* Descriptor attributes: 55:52 stand above 47:40 in a VMCB; bits 11:8 lie between them elsewhere. */
struct vmcb_segment svm_pack_segment(const struct segment *seg)
{
	uint32_t attr = (seg->attr & 0xff) | (seg->attr >> 4 & 0xf00);

	if (seg->attr & SEG_UNUSABLE)
		attr &= ~(uint32_t)SEG_P;
	return (struct vmcb_segment){
		.sel = seg->sel, .attr = attr, .limit = seg->limit, .base = seg->base};
}

struct segment svm_unpack_segment(const struct vmcb_segment *s)
{
	uint32_t attr = (s->attr & 0xff) | (s->attr & 0xf00u) << 4;

	if (!(attr & SEG_P))
		attr |= SEG_UNUSABLE;
	return (struct segment){.sel = s->sel, .attr = attr, .limit = s->limit, .base = s->base};
}

static struct vmcb_segment pack_table(const struct dtable *t)
{
	return (struct vmcb_segment){.limit = t->limit, .base = t->base};
}

static struct dtable unpack_table(const struct vmcb_segment *s)
{
	return (struct dtable){.limit = s->limit, .base = s->base};
}

void svm_capture(const struct cpu *cpu, struct vmcb_save *s)
{
	s->es = svm_pack_segment(&cpu->seg[SEG_ES]);
	s->cs = svm_pack_segment(&cpu->seg[SEG_CS]);
	s->ss = svm_pack_segment(&cpu->seg[SEG_SS]);
	s->ds = svm_pack_segment(&cpu->seg[SEG_DS]);
	s->gdtr = pack_table(&cpu->gdtr);
	s->idtr = pack_table(&cpu->idtr);
	s->cpl = cpu->mode.cpl;
	s->efer = cpu->msr.efer;
	s->cr4 = cpu->cr4;
	s->cr3 = cpu->cr3;
	s->cr0 = cpu->cr0;
	s->cr2 = cpu->cr2;
	s->dr7 = cpu->dr7;
	s->dr6 = cpu->dr6;
	s->rflags = cpu_rflags(cpu);
	s->rip = cpu->rip;
	s->rsp = cpu->gpr[RSP];
	s->rax = cpu->gpr[RAX];
	s->dbgctl = cpu->msr.debugctl;
	s->br_from = cpu->msr.lbr[0];
	s->br_to = cpu->msr.lbr[1];
	s->last_excp_from = cpu->msr.lbr[2];
	s->last_excp_to = cpu->msr.lbr[3];
}

/* Reserved bits of DEBUGCTL are ignored. */
void svm_restore_lbr(struct cpu *cpu, const struct vmcb_save *s)
{
	cpu->msr.debugctl = s->dbgctl & DEBUGCTL_LBR;
	cpu->msr.lbr[0] = s->br_from;
	cpu->msr.lbr[1] = s->br_to;
	cpu->msr.lbr[2] = s->last_excp_from;
	cpu->msr.lbr[3] = s->last_excp_to;
}

/* CPL is the VMCB's own field: SS.DPL stands for it here. */
static struct segment stack_segment(const struct vmcb_save *s)
{
	struct segment ss = svm_unpack_segment(&s->ss);

	ss.attr &= ~(3u << SEG_DPL_SHIFT);
	ss.attr |= (s->cpl & 3u) << SEG_DPL_SHIFT;
	return ss;
}

void svm_restore(struct cpu *cpu, const struct vmcb_save *s)
{
	cpu->seg[SEG_ES] = svm_unpack_segment(&s->es);
	cpu->seg[SEG_CS] = svm_unpack_segment(&s->cs);
	cpu->seg[SEG_SS] = stack_segment(s);
	cpu->seg[SEG_DS] = svm_unpack_segment(&s->ds);
	cpu->gdtr = unpack_table(&s->gdtr);
	cpu->idtr = unpack_table(&s->idtr);
	cpu->msr.efer = s->efer & ~(uint64_t)EFER_LMA;
	if ((s->cr0 & CR0_PG) && (s->efer & EFER_LME))
		cpu->msr.efer |= EFER_LMA;
	cpu->cr4 = s->cr4;
	cpu->cr3 = s->cr3;
	cpu->cr0 = s->cr0 | CR0_ET;
	cpu->rip = s->rip;
	cpu->gpr[RSP] = s->rsp;
	cpu->gpr[RAX] = s->rax;
	cpu_set_rflags(cpu, s->rflags);
}

/* EXITINTINFO of an event; NULL: none. */
static uint64_t event_info(const struct event *ev)
{
	static const uint8_t types[] = {
		[EVENT_EXCEPTION] = EVENTINJ_EXCEPTION,
		[EVENT_INTERRUPT] = EVENTINJ_INTR,
		[EVENT_NMI] = EVENTINJ_NMI,
		[EVENT_SOFT_INT] = EVENTINJ_SOFT,
		[EVENT_SOFT_EXC] = EVENTINJ_EXCEPTION,
		[EVENT_PRIV_SOFT_EXC] = EVENTINJ_EXCEPTION,
	};
	uint64_t info;

	if (!ev || !ev->valid || ev->type >= ARRAY_SIZE(types))
		return 0;
	info = ev->vector | (uint64_t)types[ev->type] << 8 | EVENTINJ_VALID;
	if (ev->has_error)
		info |= EVENTINJ_HAS_ERROR | (uint64_t)ev->error << 32;
	return info;
}

/* ---- what is written ---- */

/* From and to, as offsets in the VMCB. */
struct written {
	uint16_t first, last;
};

static const struct written written[] = {
	{offsetof(struct vmcb, control.int_ctl), offsetof(struct vmcb, control.nested_ctl)},
	{offsetof(struct vmcb, control.event_inj), offsetof(struct vmcb, control.nested_cr3)},
	{offsetof(struct vmcb, control.next_rip), offsetof(struct vmcb, control.avic_page)},
	{offsetof(struct vmcb, save.es), offsetof(struct vmcb, save.fs)},
	{offsetof(struct vmcb, save.gdtr), offsetof(struct vmcb, save.ldtr)},
	{offsetof(struct vmcb, save.idtr), offsetof(struct vmcb, save.tr)},
	{offsetof(struct vmcb, save.cpl), offsetof(struct vmcb, save.reserved_cc)},
	{offsetof(struct vmcb, save.efer), offsetof(struct vmcb, save.reserved_d8)},
	{offsetof(struct vmcb, save.cr4), offsetof(struct vmcb, save.reserved_180)},
	{offsetof(struct vmcb, save.rsp), offsetof(struct vmcb, save.s_cet)},
	{offsetof(struct vmcb, save.rax), offsetof(struct vmcb, save.star)},
	{offsetof(struct vmcb, save.cr2), offsetof(struct vmcb, save.reserved_248)},
};

static const struct written written_lbr = {offsetof(struct vmcb, save.dbgctl),
					   offsetof(struct vmcb, save.reserved_298)};

static bool write_part(struct cpu *cpu, const struct written *part)
{
	const struct svm *svm = svm_of(cpu);

	return !mmu_write_phys_bytes(cpu, svm->vmcb_gpa + part->first,
				     (const uint8_t *)&svm->vmcb + part->first,
				     part->last - part->first);
}

static void write_vmcb(struct cpu *cpu)
{
	for (unsigned i = 0; i < ARRAY_SIZE(written); i++)
		if (!write_part(cpu, &written[i]))
			return;
	svm_write_lbr(cpu);
}

bool svm_write_lbr(struct cpu *cpu)
{
	return !svm_lbrv(cpu) || write_part(cpu, &written_lbr);
}

/* The instruction's bytes, where data accesses fail; what cannot be fetched is left out. */
static void take_bytes(struct cpu *cpu, struct vmcb_control *c, uint64_t code, uint64_t info1)
{
	bool fault = code == SVM_EXIT_NPF || code == SVM_EXIT_EXCEPTION + VEC_PF;
	gva_t rip = cpu->rip;
	unsigned nr = 0;

	c->nr_bytes = 0;
	memset(c->bytes, 0, sizeof(c->bytes));
	if (!fault || (info1 & PFERR_I) || !svm_has(cpu, FEAT_DECODEASSISTS))
		return;
	if (!cpu_64bit(cpu))
		rip = (uint32_t)(rip + cpu->seg[SEG_CS].base);
	if (mmu_fetch(cpu, rip, c->bytes, &nr))
		nr = 0;
	c->nr_bytes = nr;
}

static uint64_t int_ctl_now(struct cpu *cpu, uint64_t ctl)
{
	if (svm_avic(cpu, &svm_of(cpu)->vmcb.control))
		ctl = (ctl & ~V_TPR) | svm_avic_get_tpr(cpu) >> 4;
	if (!(ctl & V_NMI_ENABLE))
		return ctl;
	return (ctl & ~V_NMI_MASK) | (cpu->nmi_blocked ? V_NMI_MASK : 0);
}

static void fill_control(struct cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2,
			 uint64_t next_rip, const struct event *cause)
{
	struct vmcb_control *c = &svm_of(cpu)->vmcb.control;

	take_bytes(cpu, c, code, info1);
	c->int_ctl = int_ctl_now(cpu, c->int_ctl);
	c->int_state = cpu->shadow ? INT_STATE_SHADOW : 0;
	c->exit_code = code;
	c->exit_info1 = info1;
	c->exit_info2 = info2;
	c->exit_int_info = event_info(cause);
	c->event_inj &= ~EVENTINJ_VALID;
	c->next_rip = svm_has(cpu, FEAT_NRIPS) ? next_rip : 0;
}

/* ---- and what comes back ---- */

static void forget_events(struct cpu *cpu)
{
	cpu->fault.valid = false;
	cpu->inject.valid = false;
	cpu->pending_dr6 = 0;
	cpu->shadow = 0;
	cpu->activity = ACTIVITY_RUN;
	answers_reset(cpu);
	cpu_lower(cpu, ATTN_VIRT);
}

void svm_world_back(struct cpu *cpu)
{
	struct svm *svm = svm_of(cpu);
	bool vnmi = svm->virt.vnmi;

	if (svm_lbrv(cpu))
		svm_restore_lbr(cpu, &svm->host);
	svm->virt.guest = false;
	svm->virt.stage2 = false;
	svm->virt.intercepts = 0;
	svm->virt.msr_map = NULL;
	svm->virt.gif = false;
	svm->virt.vnmi = svm->virt.if_apart = false;
	svm->avic_wrote = false;
	svm->host.cpl = 0;
	svm_restore(cpu, &svm->host);
	memcpy(cpu->pdpte, svm->host_pdpte, sizeof(cpu->pdpte));
	cpu->dr7 = DR7_FIXED_1;
	if (vnmi)
		cpu->nmi_blocked = svm->host_nmi_blocked;
	forget_events(cpu);
	sys_world_changed(cpu);
}

static void note_exit(struct cpu *cpu)
{
	const struct vmcb_control *c = &svm_of(cpu)->vmcb.control;
	struct virt_note note = {
		.event = VIRT_LEFT,
		.rip = cpu->rip,
		.reason = c->exit_code,
		.info = {c->exit_info1, c->exit_info2},
		.int_info = c->exit_int_info,
		.int_error = c->exit_int_info >> 32,
		.by_interrupt = c->exit_code == SVM_EXIT_INTR,
	};

	platform_call(cpu, guest_mode, &note);
}

/* Writes that an instruction left undone are no part of what the exit shows. */
void svm_exit(struct cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2, uint64_t next_rip,
	      const struct event *cause)
{
	struct event copy = {0};

	if (cause)
		copy = *cause;
	fill_control(cpu, code, info1, info2, next_rip, &copy);
	svm_capture(cpu, &svm_of(cpu)->vmcb.save);
	if (cpu_notes(cpu))
		note_exit(cpu);
	write_vmcb(cpu);
	svm_world_back(cpu);
}

void svm_exit_for_owner(struct cpu *cpu, uint64_t code, uint64_t info1)
{
	svm_exit(cpu, code, info1, 0, cpu->rip, NULL);
}

const uint8_t *svm_software_area(const struct cpu *cpu, uint64_t *ret_clean)
{
	const struct vmcb_control *c = &svm_of_const(cpu)->vmcb.control;

	*ret_clean = c->clean;
	return c->software;
}
