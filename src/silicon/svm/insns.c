/* SPDX-License-Identifier: MIT */
/*
 * SVM's instructions but VMRUN (APM, instruction reference), and who may execute them.
 *
 * All are #UD without EFER.SVME or outside of protected mode, #GP(0) outside of CPL 0; then comes the intercept, then
 * the operand (CPUID says so: SVME_ADDR_CHK). There is nothing to tell a measured launch from: SKINIT is #UD.
 */
#include "silicon/mmu/mmu.h"
#include "silicon/svm/svm_internal.h"

/* ---- VMLOAD, VMSAVE ---- */

/* The area that both move: FS, GS, LDTR, TR and MSRs of a VMCB's save area. */
static void load(struct cpu *cpu, const struct vmcb_save *s)
{
	cpu->seg[SEG_FS] = svm_unpack_segment(&s->fs);
	cpu->seg[SEG_GS] = svm_unpack_segment(&s->gs);
	cpu->seg[SEG_LDTR] = svm_unpack_segment(&s->ldtr);
	cpu->seg[SEG_TR] = svm_unpack_segment(&s->tr);
	cpu->msr.star = s->star;
	cpu->msr.lstar = s->lstar;
	cpu->msr.cstar = s->cstar;
	cpu->msr.sfmask = s->sfmask;
	cpu->msr.kernel_gs_base = s->kernel_gs_base;
	cpu->msr.sysenter_cs = s->sysenter_cs;
	cpu->msr.sysenter_esp = s->sysenter_esp;
	cpu->msr.sysenter_eip = s->sysenter_eip;
	cpu_update_mode(cpu);
}

static void save(const struct cpu *cpu, struct vmcb_save *s)
{
	s->fs = svm_pack_segment(&cpu->seg[SEG_FS]);
	s->gs = svm_pack_segment(&cpu->seg[SEG_GS]);
	s->ldtr = svm_pack_segment(&cpu->seg[SEG_LDTR]);
	s->tr = svm_pack_segment(&cpu->seg[SEG_TR]);
	s->star = cpu->msr.star;
	s->lstar = cpu->msr.lstar;
	s->cstar = cpu->msr.cstar;
	s->sfmask = cpu->msr.sfmask;
	s->kernel_gs_base = cpu->msr.kernel_gs_base;
	s->sysenter_cs = cpu->msr.sysenter_cs;
	s->sysenter_esp = cpu->msr.sysenter_esp;
	s->sysenter_eip = cpu->msr.sysenter_eip;
}

/* A guest's address goes through nested paging where VMLOAD and VMSAVE are virtualized. */
static enum result state_page(struct cpu *cpu, const struct virt_insn *insn, bool write, gpa_t *ret)
{
	struct svm *svm = svm_of(cpu);
	gpa_t gpa = svm_rax(cpu, insn);
	struct stage2 s = {.gpa = gpa, .op = write ? ACCESS_WRITE : ACCESS_READ};
	enum result r;

	if (!svm_page_ok(cpu, gpa))
		return fault_gp(cpu, 0);
	*ret = gpa;
	if (!cpu_guest(cpu) || !svm->virt.stage2 || !(svm->vmcb.control.virt_ext & VIRT_EXT_VLS) ||
	    !svm_has(cpu, FEAT_V_VMSAVE_VMLOAD))
		return RESULT_OK;
	do
		r = svm_translate(cpu, &s);
	while (r == RESULT_AGAIN);
	*ret = s.out;
	return r;
}

static enum result read_state(struct cpu *cpu, gpa_t gpa, struct vmcb_save *ret)
{
	enum result r = mmu_read_phys_bytes(cpu, gpa + offsetof(struct vmcb, save), ret,
					    offsetof(struct vmcb_save, cr2));

	return r == RESULT_FAULT ? fault_gp(cpu, 0) : r;
}

static enum result vmload(struct cpu *cpu, const struct virt_insn *insn)
{
	struct vmcb_save s;
	gpa_t gpa;
	enum result r = state_page(cpu, insn, false, &gpa);

	if (!r)
		r = read_state(cpu, gpa, &s);
	if (r)
		return r;
	load(cpu, &s);
	return svm_done(cpu);
}

static const struct {
	uint16_t first, last;
} saved[] = {
	{offsetof(struct vmcb_save, fs), offsetof(struct vmcb_save, gdtr)},
	{offsetof(struct vmcb_save, ldtr), offsetof(struct vmcb_save, idtr)},
	{offsetof(struct vmcb_save, tr), offsetof(struct vmcb_save, reserved_a0)},
	{offsetof(struct vmcb_save, star), offsetof(struct vmcb_save, cr2)},
};

static enum result vmsave(struct cpu *cpu, const struct virt_insn *insn)
{
	struct vmcb_save s;
	gpa_t gpa;
	enum result r = state_page(cpu, insn, true, &gpa);

	save(cpu, &s);
	for (unsigned i = 0; i < ARRAY_SIZE(saved) && !r; i++) {
		r = mmu_write_phys_bytes(cpu, gpa + offsetof(struct vmcb, save) + saved[i].first,
					 (const uint8_t *)&s + saved[i].first,
					 saved[i].last - saved[i].first);
		if (r == RESULT_FAULT)
			return fault_gp(cpu, 0);
	}
	return r ? r : svm_done(cpu);
}

/* ---- STGI, CLGI ---- */

/* The guest's own, virtual GIF. */
static bool has_vgif(struct cpu *cpu)
{
	return cpu_guest(cpu) && svm_has(cpu, FEAT_VGIF) &&
	       (svm_of(cpu)->vmcb.control.int_ctl & V_GIF_ENABLE);
}

static enum result stgi(struct cpu *cpu, const struct virt_insn *insn)
{
	if (has_vgif(cpu)) {
		svm_of(cpu)->vmcb.control.int_ctl |= V_GIF;
		cpu_raise(cpu, ATTN_VIRT);
	} else {
		svm_set_gif(cpu, true);
	}
	return svm_done(cpu);
}

static enum result clgi(struct cpu *cpu, const struct virt_insn *insn)
{
	if (has_vgif(cpu))
		svm_of(cpu)->vmcb.control.int_ctl &= ~V_GIF;
	else
		svm_set_gif(cpu, false);
	return svm_done(cpu);
}

/* ---- INVLPGA, SKINIT ---- */

static enum result invlpga(struct cpu *cpu, const struct virt_insn *insn)
{
	uint32_t asid = cpu->gpr[RCX];
	gva_t addr = svm_rax(cpu, insn);

	if (cpu_notes(cpu))
		platform_call(cpu, guest_mode,
			      &(struct virt_note){.event = VIRT_FLUSHED,
						  .rip = cpu->rip,
						  .info = {addr, asid}});
	if (gva_canonical(cpu, addr))
		mmu_flush_world_page(cpu, asid, addr);
	return svm_done(cpu);
}

static enum result skinit(struct cpu *cpu, const struct virt_insn *insn)
{
	return fault_ud(cpu);
}

/* ---- the choice ---- */

static const struct {
	uint8_t code;
	enum result (*run)(struct cpu *cpu, const struct virt_insn *insn);
} insns[NR_VIRT_OPS] = {
	[VIRT_VMRUN] = {SVM_EXIT_VMRUN, svm_vmrun},   [VIRT_VMLOAD] = {SVM_EXIT_VMLOAD, vmload},
	[VIRT_VMSAVE] = {SVM_EXIT_VMSAVE, vmsave},    [VIRT_STGI] = {SVM_EXIT_STGI, stgi},
	[VIRT_CLGI] = {SVM_EXIT_CLGI, clgi},	      [VIRT_SKINIT] = {SVM_EXIT_SKINIT, skinit},
	[VIRT_INVLPGA] = {SVM_EXIT_INVLPGA, invlpga},
};

enum result svm_insn(struct cpu *cpu, enum virt_op op, const struct virt_insn *insn)
{
	if (!insns[op].run || !(cpu->msr.efer & EFER_SVME) || cpu->mode.real || cpu->mode.v86)
		return fault_ud(cpu);
	if (cpu->mode.cpl)
		return fault_gp(cpu, 0);
	if (cpu_guest(cpu) && svm_wants(cpu, insns[op].code)) {
		svm_exit_insn(cpu, insns[op].code, 0, 0);
		return RESULT_AGAIN;
	}
	return insns[op].run(cpu, insn);
}
