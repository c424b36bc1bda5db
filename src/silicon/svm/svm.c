/* SPDX-License-Identifier: MIT */
/*
 * SVM of one vCPU: reset, SMM, and its state as KVM saves and loads it.
 */
#include "silicon/svm/svm.h"
#include "silicon/mmu/mmu.h"
#include "silicon/svm/svm_internal.h"

#include <string.h>

/* Offsets in the state-save area of SMM: as Linux's KVM keeps them. */
#define SMM_GUEST   0xd8
#define SMM_VMCB    0xe0
#define SMM_INT_CTL 0xe8
#define VMCB_SAVE   offsetof(struct vmcb, save)
#define SAVE_SIZE   offsetof(struct vmcb_save, reserved_298)

void svm_set_gif(struct cpu *cpu, bool gif)
{
	cpu->virt->gif = gif;
	if (!gif)
		return;
	/* SMI and NMI have kept their attention bits. */
	if (!cpu->looked)
		cpu_raise(cpu, ATTN_EVENTS);
	if (cpu->virt->init_waits)
		cpu_raise(cpu, ATTN_REQUEST);
	cpu->virt->init_waits = false;
}

static void reset(struct cpu *cpu)
{
	struct virt *v = cpu->virt;

	v->guest = false;
	v->stage2 = false;
	v->gif = true;
	v->intercepts = 0;
	v->msr_map = NULL;
	cpu_lower(cpu, ATTN_VIRT);
}

/* ---- SMM: the handler runs as the host, and RSM goes back into the guest ---- */

static void put64(uint8_t *area, unsigned at, uint64_t val)
{
	memcpy(area + at, &val, sizeof(val));
}

static uint64_t get64(const uint8_t *area, unsigned at)
{
	uint64_t val;

	memcpy(&val, area + at, sizeof(val));
	return val;
}

/*
 * The host's state goes to the host save area, where a saved state finds it; the guest's records of branches, which the
 * state-save area has no place for, to the VMCB.
 */
static bool smi(struct cpu *cpu, uint8_t *area)
{
	struct svm *svm = svm_of(cpu);
	bool gif = svm->virt.gif;

	if (!svm->virt.guest)
		return true;
	put64(area, SMM_GUEST, 1);
	put64(area, SMM_VMCB, svm->vmcb_gpa);
	put64(area, SMM_INT_CTL, svm->vmcb.control.int_ctl);
	if (mmu_write_phys_bytes(cpu, cpu->msr.vm_hsave_pa + VMCB_SAVE, &svm->host, SAVE_SIZE))
		return false;
	svm_capture(cpu, &svm->vmcb.save);
	if (!svm_write_lbr(cpu))
		return false;
	svm_world_back(cpu);
	svm->virt.gif = gif;
	return true;
}

static bool rsm(struct cpu *cpu, const uint8_t *area)
{
	struct svm *svm = svm_of(cpu);
	gpa_t gpa = get64(area, SMM_VMCB);

	if (!get64(area, SMM_GUEST))
		return true;
	if (!svm_page_ok(cpu, gpa) ||
	    mmu_read_phys_bytes(cpu, gpa, &svm->vmcb, sizeof(svm->vmcb)) ||
	    mmu_read_phys_bytes(cpu, cpu->msr.vm_hsave_pa + VMCB_SAVE, &svm->host, SAVE_SIZE) ||
	    svm_check_control(cpu, &svm->vmcb.control).name)
		return false;
	svm->vmcb_gpa = gpa;
	svm->vmcb.control.int_ctl = get64(area, SMM_INT_CTL);
	svm->vmcb.control.event_inj = 0;
	if (svm_lbrv(cpu))
		svm_restore_lbr(cpu, &svm->vmcb.save);
	svm_derive(cpu);
	return true;
}

const struct virt_ops svm_ops = {
	.insn = svm_insn,
	.intercept = svm_intercept,
	.event = svm_event,
	.refused = svm_refused,
	.translate = svm_translate,
	.world = svm_world,
	.attend = svm_attend,
	.cr_read = svm_cr_read,
	.cr_write = svm_cr_write,
	.tsc = svm_tsc,
	.reset = reset,
	.smi = smi,
	.rsm = rsm,
};

/* ---- nested state ---- */

gpa_t svm_get_guest(struct cpu *cpu, uint8_t out[SVM_VMCB_SIZE])
{
	struct svm *svm = svm_of(cpu);
	struct vmcb *vmcb = (struct vmcb *)out;

	vmcb->control = svm->vmcb.control;
	vmcb->save = svm->host;
	if (svm->virt.vnmi) {
		vmcb->control.int_ctl &= ~(uint64_t)V_NMI_MASK;
		vmcb->control.int_ctl |= cpu->nmi_blocked ? V_NMI_MASK : 0;
	}
	return svm->vmcb_gpa;
}

bool svm_guest_valid(struct cpu *cpu, const uint8_t in[SVM_VMCB_SIZE])
{
	const struct vmcb *vmcb = (const struct vmcb *)in;
	uint64_t paging = CR0_PE | CR0_PG;

	return !svm_check_control(cpu, &vmcb->control).name &&
	       (cpu->cr0 & (CR0_NW | CR0_CD)) != CR0_NW && (vmcb->save.cr0 & paging) == paging &&
	       !(vmcb->save.rflags & FLAG_VM) && !svm_check_save(cpu, &vmcb->save).name;
}

/* A host under PAE paging: its PDPTEs are read anew. */
static void load_host_pdptes(struct cpu *cpu)
{
	struct svm *svm = svm_of(cpu);
	gpa_t gpa = svm->host.cr3 & GENMASK(31, 5);

	if ((svm->host.cr4 & CR4_PAE) && !(svm->host.efer & EFER_LME) &&
	    mmu_read_phys_bytes(cpu, gpa, svm->host_pdpte, sizeof(svm->host_pdpte)))
		memset(svm->host_pdpte, 0, sizeof(svm->host_pdpte));
}

void svm_set_guest(struct cpu *cpu, gpa_t gpa, const uint8_t in[SVM_VMCB_SIZE])
{
	struct svm *svm = svm_of(cpu);
	const struct vmcb *vmcb = (const struct vmcb *)in;

	svm->vmcb_gpa = gpa;
	svm->vmcb.control = vmcb->control;
	svm->vmcb.control.event_inj = 0;
	svm->host = vmcb->save;
	svm->host_nmi_blocked = false;
	load_host_pdptes(cpu);
	svm_derive(cpu);
	sys_world_changed(cpu);
	mmu_flush_all(cpu);
}

void svm_leave(struct cpu *cpu)
{
	if (!cpu_guest(cpu))
		return;
	svm_world_back(cpu);
}
