/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V's enlightenments for hypervisors in the guest (TLFS, nested virtualization): the enlightened VMCS, MSR bitmaps that are
 * told to be unchanged, and TLB flushes that a nested guest asks of the lowest hypervisor (direct flush).
 *
 * The processor knows none of it. It is given a form of the VMCS (silicon/vmx/vmx.h), whose table is tables/evmcs.def,
 * and an owner (silicon/cpu/virt.h), who copies bitmaps and takes hypercalls. What an entry finds in the enlightened
 * VMCS, or in the bytes that a VMCB leaves to software, is kept in struct hv until the next one.
 */
#include "kvm/pv/hv_internal.h"
#include "kvm/vm/ioctl.h"
#include "silicon/mmu/mmu.h"
#include "silicon/models/model.h"
#include "silicon/svm/svm.h"
#include "silicon/vmx/vmx.h"

#include <errno.h>
#include <string.h>

static struct vcpu *vcpu_of(struct cpu *cpu)
{
	return container_of(cpu, struct vcpu, cpu);
}

/* ---- what entries find ---- */

/* Without PV EOI by it the page is not in force. */
static bool read_assist(struct vcpu *vcpu, struct hv_assist *ret)
{
	struct hv *hv = hv_of(vcpu);

	if (!(hv->assist_page & HV_PAGE_ENABLE) || !(vcpu->pv->eoi_msr & PV_ENABLED))
		return false;
	if (vm_read_guest(vcpu->vm, hv->assist_page & PAGE_MASK, ret, sizeof(*ret)))
		return false;
	hv->nested.direct_calls = ret->features & HV_ASSIST_DIRECT_CALLS;
	return true;
}

static void set_identity(struct hv *hv, gpa_t partition, uint64_t vm_id, uint32_t vp_id)
{
	hv->nested.partition = partition;
	__atomic_store_n(&hv->nested.vm_id, vm_id, __ATOMIC_RELAXED);
	__atomic_store_n(&hv->nested.vp_id, vp_id, __ATOMIC_RELAXED);
}

static void set_control(struct hv *hv, uint32_t control, bool map_unchanged)
{
	hv->nested.flush_calls = control & HV_NESTED_FLUSH_CALL;
	hv->nested.keep_map = control & HV_NESTED_KEEP_MAP;
	hv->nested.map_unchanged = map_unchanged;
}

static void forget(struct hv *hv)
{
	set_identity(hv, GPA_NONE, 0, 0);
	set_control(hv, 0, false);
	hv->nested.has_map = false;
}

void pv_hv_nested_restored(struct vcpu *vcpu)
{
	hv_of(vcpu)->nested.has_map = false;
}

/* ---- the enlightened VMCS ---- */

static const struct vmcs_place places[] = {
#define IN				   FORM_IN
#define OUT				   FORM_OUT
#define READ				   FORM_READ
#define PLACE(offset, field, group, moves) {offset, VMCS_##field, moves, EVMCS_##group},
#include "evmcs.def"
#undef PLACE
#undef IN
#undef OUT
#undef READ
};

/* Controls whose fields version 1 has; those that nobody offers yet with them. */
static const struct vmcs_limit limits[] = {
	{VMCS_PIN_CTLS, VMX_PIN, VMX_TRUE_PIN,
	 PIN_DEFAULT1 | PIN_EXT_INT | PIN_NMI | PIN_VIRTUAL_NMI},
	{VMCS_CPU_CTLS, VMX_CPU, VMX_TRUE_CPU,
	 CPU_DEFAULT1 | CPU_INTR_WINDOW | CPU_TSC_OFFSET | CPU_HLT | CPU_INVLPG | CPU_MWAIT |
		 CPU_RDPMC | CPU_RDTSC | CPU_CR3_LOAD | CPU_CR3_STORE | CPU_CR8_LOAD |
		 CPU_CR8_STORE | CPU_TPR_SHADOW | CPU_NMI_WINDOW | CPU_MOV_DR | CPU_IO |
		 CPU_IO_BITMAPS | CPU_MTF | CPU_MSR_BITMAPS | CPU_MONITOR | CPU_PAUSE |
		 CPU_SECONDARY},
	{VMCS_CPU2_CTLS, VMX_CPU2, VMX_CPU2,
	 CPU2_EPT | CPU2_DT | CPU2_RDTSCP | CPU2_X2APIC | CPU2_VPID | CPU2_WBINVD |
		 CPU2_UNRESTRICTED | CPU2_RDRAND | CPU2_INVPCID | CPU2_ENCLS | CPU2_RDSEED |
		 CPU2_PT_CONCEAL | CPU2_XSAVES | CPU2_PT_GPA | CPU2_WAITPKG | CPU2_BUS_LOCK |
		 CPU2_NOTIFY},
	{VMCS_EXIT_CTLS, VMX_EXIT, VMX_TRUE_EXIT,
	 EXIT_DEFAULT1 | EXIT_SAVE_DEBUG | EXIT_HOST_64 | EXIT_PERF | EXIT_ACK_INT | EXIT_SAVE_PAT |
		 EXIT_LOAD_PAT | EXIT_SAVE_EFER | EXIT_LOAD_EFER | EXIT_BNDCFGS | EXIT_PT_CONCEAL |
		 EXIT_CLEAR_RTIT},
	{VMCS_ENTRY_CTLS, VMX_ENTRY, VMX_TRUE_ENTRY,
	 ENTRY_DEFAULT1 | ENTRY_LOAD_DEBUG | ENTRY_GUEST_64 | ENTRY_PERF | ENTRY_PAT | ENTRY_EFER |
		 ENTRY_BNDCFGS | ENTRY_PT_CONCEAL | ENTRY_RTIT},
	{VMCS_VMFUNC_CTLS, VMX_VMFUNC, VMX_VMFUNC, 0},
};

static gpa_t find(struct cpu *cpu)
{
	struct hv_assist assist;

	if (!read_assist(vcpu_of(cpu), &assist) || !assist.enlightened_entry ||
	    assist.nested_vmcs >= HV_NO_NESTED_VMCS)
		return GPA_NONE;
	return assist.nested_vmcs;
}

/* Hyper-V itself writes what IA32_VMX_BASIC says in place of the version. */
static bool known(uint32_t revision)
{
	return revision == HV_EVMCS_VERSION || revision == VMX_REVISION;
}

#define RUNTIME_CONTROLS (EVMCS_CONTROL_GRP1 | EVMCS_CONTROL_GRP2 | EVMCS_CONTROL_PROC)

static void was_read(struct cpu *cpu, const uint8_t image[VMCS_FORM_SIZE], uint32_t clean)
{
	struct hv *hv = hv_of(vcpu_of(cpu));
	struct hv_evmcs_own own;
	uint32_t same = RUNTIME_CONTROLS | EVMCS_MSR_BITMAP;

	memcpy(&own, image + HV_EVMCS_OWN, sizeof(own));
	if (!(clean & EVMCS_ENLIGHTENMENTS))
		set_identity(hv, own.partition_assist, own.vm_id, own.vp_id);
	set_control(hv, own.control, (clean & same) == same);
}

static void released(struct cpu *cpu)
{
	forget(hv_of(vcpu_of(cpu)));
}

static const struct vmcs_form evmcs = {
	.places = places,
	.nr_places = ARRAY_SIZE(places),
	.limits = limits,
	.nr_limits = ARRAY_SIZE(limits),
	.clean = HV_EVMCS_CLEAN,
	.find = find,
	.known = known,
	.read = was_read,
	.released = released,
};

/* ---- the processor's owner ---- */

#define VMX_MAP 0x1000
#define SVM_MAP 0x1800

_Static_assert(SVM_MAP <= sizeof(((struct hv *)0)->nested.map), "room for a map");

/* VMRUN looks for a page that is in force, and for the words in the VMCB where Hyper-V is in use. */
static void read_vmcb(struct vcpu *vcpu)
{
	struct hv *hv = hv_of(vcpu);
	struct hv_vmcb_own own = {0};
	struct hv_assist assist;
	uint64_t clean;

	read_assist(vcpu, &assist);
	memcpy(&own, svm_software_area(&vcpu->cpu, &clean), sizeof(own));
	if (!pv_hv_calls_enabled(vcpu))
		own = (struct hv_vmcb_own){0};
	set_identity(hv, own.partition_assist, own.vm_id, own.vp_id);
	set_control(hv, own.control, clean & HV_VMCB_CLEAN);
}

static const uint8_t *begun(struct cpu *cpu, gpa_t msr_map)
{
	struct vcpu *vcpu = vcpu_of(cpu);
	struct hv *hv = hv_of(vcpu);
	bool intel = model_intel(cpu->model);

	if (!intel)
		read_vmcb(vcpu);
	if (!hv->nested.keep_map || msr_map == GPA_NONE)
		hv->nested.has_map = false;
	else if (!hv->nested.has_map || !hv->nested.map_unchanged)
		hv->nested.has_map = !vm_read_guest(vcpu->vm, msr_map, hv->nested.map,
						    intel ? VMX_MAP : SVM_MAP);
	return hv->nested.has_map ? hv->nested.map : NULL;
}

/* KVM looks at #UD itself on both vendors, but it corrects the instruction of nested guests on AMD's only. */
static bool corrected(const struct cpu *cpu)
{
	return !model_intel(cpu->model) && !svm_intercepts_exception(cpu, VEC_UD);
}

/* Flushes, from a guest whose hypervisor says so in three places. */
static bool takes_call(struct cpu *cpu, bool foreign)
{
	const struct vcpu *vcpu = vcpu_of(cpu);
	const struct hv *hv = hv_of(vcpu);

	if (foreign && !corrected(cpu))
		return false;
	return hv->cpuid.nested_eax & HV_NESTED_DIRECT_FLUSH && hv->nested.flush_calls &&
	       hv->nested.direct_calls &&
	       hv_call_flushes(cpu->gpr[pv_hypercall_64bit(vcpu) ? RCX : RAX]);
}

static const struct virt_owner owner = {.begun = begun, .takes_call = takes_call};

void hv_nested_offer(struct vcpu *vcpu)
{
	const struct hv *hv = hv_of(vcpu);
	struct cpu *cpu = &vcpu->cpu;

	if (!cpu->virt)
		return;
	cpu->virt->owner = hv->enabled ? &owner : NULL;
	if (cpu->virt == &vcpu->vmx.virt)
		vmx_form_offer(cpu, hv->enabled && vcpu->evmcs ? &evmcs : NULL);
}

/* ---- direct flush ---- */

bool hv_nested_input(struct vcpu *vcpu, gpa_t *gpa)
{
	struct stage2 s = {.gpa = *gpa, .op = ACCESS_READ, .dry = true};
	struct cpu *cpu = &vcpu->cpu;
	enum result r;

	if (!cpu_guest(cpu) || !cpu->virt->stage2)
		return true;
	do
		r = cpu->virt->ops->translate(cpu, &s);
	while (r == RESULT_AGAIN);
	cpu->fault.valid = false;
	if (r == RESULT_EXIT)
		cpu->exit.kind = CPU_EXIT_NONE;
	*gpa = s.out;
	return !r;
}

/* The guest hypervisor may hold a lock in the partition's assist page: it wants to hear of the flush then. */
uint64_t hv_nested_flushed(struct vcpu *vcpu, uint64_t status)
{
	uint32_t locks;

	if ((uint16_t)status != HV_STATUS_SUCCESS)
		return status;
	if (vm_read_guest(vcpu->vm, hv_of(vcpu)->nested.partition, &locks, sizeof(locks)))
		return HV_STATUS_INVALID_INPUT;
	if (locks)
		vcpu_request(vcpu, REQ_HV_TRAP);
	return status;
}

void pv_hv_trap(struct vcpu *vcpu)
{
	struct cpu *cpu = &vcpu->cpu;

	if (!cpu_guest(cpu))
		return;
	if (model_intel(cpu->model))
		vmx_exit_for_owner(cpu, HV_VMX_TRAP_AFTER_FLUSH);
	else
		svm_exit_for_owner(cpu, HV_SVM_EXIT, HV_SVM_TRAP_AFTER_FLUSH);
}

/* ---- what the program and the guest are told ---- */

uint16_t hv_evmcs_version(const struct vcpu *vcpu, bool vmx)
{
	bool on = vcpu ? vcpu->evmcs && vcpu->vm->ops->params.vmx : vmx;

	return on ? HV_EVMCS_VERSION << 8 | HV_EVMCS_VERSION : 0;
}

int hv_evmcs_enable(struct vcpu *vcpu, void *ret_version)
{
	uint16_t version;

	if (!model_intel(vcpu->cpu.model))
		return -ENOTTY;
	vcpu->evmcs = true;
	hv_nested_offer(vcpu);
	version = hv_evmcs_version(vcpu, true);
	return ioctl_copy_out(ret_version, &version, sizeof(version)) ? -EFAULT : 0;
}

/* Old Windows guests take the performance controls for a sign of more, unless CPUID prepares them. */
uint64_t pv_hv_vmx_msr(const struct vcpu *vcpu, unsigned msr, uint64_t val)
{
	bool perf = hv_of(vcpu)->cpuid.nested_ebx & HV_NESTED_PERF_CTRL;

	if (!vcpu->vmx.form)
		return val;
	val = vmx_form_limit(vcpu->vmx.form, msr, val);
	if (!perf && (msr == VMX_EXIT || msr == VMX_TRUE_EXIT))
		val &= ~((uint64_t)EXIT_PERF << 32);
	if (!perf && (msr == VMX_ENTRY || msr == VMX_TRUE_ENTRY))
		val &= ~((uint64_t)ENTRY_PERF << 32);
	return val;
}
