/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V's synthetic MSRs: one row each, with the CPUID bit that the guest needs if the program enforces CPUID.
 * The program itself reads and writes them whatever CPUID says, as for a saved state. Those of the whole partition are
 * under hv_vm's lock.
 */
#include "kvm/pv/hv_internal.h"
#include "kvm/pv/xen.h"

/* ---- registers of the partition; hv_vm's lock held ---- */

static enum pv_result os_id_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = hv_vm_of(vcpu->vm)->guest_os_id;
	return PV_OK;
}

/* Without an operating system there is no hypercall page. */
static enum pv_result os_id_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	struct hv_vm *hv = hv_vm_of(vcpu->vm);

	__atomic_store_n(&hv->guest_os_id, val, __ATOMIC_RELAXED);
	if (!val)
		hv->hypercall &= ~HV_PAGE_ENABLE;
	return PV_OK;
}

static enum pv_result hypercall_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = hv_vm_of(vcpu->vm)->hypercall;
	return PV_OK;
}

/* VMCALL, RET; where Xen's hypercalls are taken too, bit 31 of EAX says that this one is not Xen's. */
static bool write_hypercall_page(struct vcpu *vcpu, gpa_t gpa)
{
	uint8_t code[9] = {0x0d, 0, 0, 0, 0x80}; /* or $0x80000000, %eax */
	unsigned n = pv_xen_calls_enabled(vcpu->vm) ? 5 : 0;

	pv_hypercall_insn(vcpu, code + n);
	code[n + 3] = 0xc3;
	return !vm_write_guest(vcpu->vm, gpa, code, n + 4);
}

static enum pv_result hypercall_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	struct hv_vm *hv = hv_vm_of(vcpu->vm);

	if (!hv->guest_os_id)
		return PV_OK;
	if (val & HV_PAGE_ENABLE && !write_hypercall_page(vcpu, val & PAGE_MASK))
		return PV_DENIED;
	hv->hypercall = val;
	return PV_OK;
}

static enum pv_result crash_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	const struct hv_vm *hv = hv_vm_of(vcpu->vm);

	*ret = index == HV_MSR_CRASH_CTL ? hv->crash_ctl : hv->crash[index - HV_MSR_CRASH_P0];
	return PV_OK;
}

static enum pv_result crash_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	struct hv_vm *hv = hv_vm_of(vcpu->vm);

	if (index != HV_MSR_CRASH_CTL)
		hv->crash[index - HV_MSR_CRASH_P0] = val;
	else if (host)
		hv->crash_ctl = val & HV_CRASH_NOTIFY;
	else if (val & HV_CRASH_NOTIFY)
		vcpu_request(vcpu, REQ_HV_CRASH);
	return PV_OK;
}

static enum pv_result reset_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = 0;
	return PV_OK;
}

static enum pv_result reset_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	if (val == 1)
		vcpu_request(vcpu, REQ_HV_RESET);
	return PV_OK;
}

static enum pv_result invtsc_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = hv_vm_of(vcpu->vm)->invtsc_control;
	return PV_OK;
}

/* The guest cannot take it back. */
static enum pv_result invtsc_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	struct hv_vm *hv = hv_vm_of(vcpu->vm);

	if (val & ~HV_EXPOSE_INVARIANT || (!host && hv->invtsc_control && !val))
		return PV_DENIED;
	__atomic_store_n(&hv->invtsc_control, val, __ATOMIC_RELAXED);
	return PV_OK;
}

/* ---- registers of the vCPU ---- */

static enum pv_result vp_index_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = hv_vp_index(vcpu);
	return PV_OK;
}

static enum pv_result vp_index_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	if (!host || (uint32_t)val >= VM_MAX_VCPUS)
		return PV_DENIED;
	__atomic_store_n(&hv_of(vcpu)->vp_index, (uint32_t)val, __ATOMIC_RELAXED);
	return PV_OK;
}

static enum pv_result apic_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	if (!vcpu->lapic || index == HV_MSR_EOI)
		return PV_DENIED;
	*ret = index == HV_MSR_ICR ? lapic_get_icr(vcpu->lapic) : lapic_reg(vcpu->lapic, LAPIC_TPR);
	return PV_OK;
}

static enum pv_result apic_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	if (!vcpu->lapic)
		return PV_DENIED;
	if (index == HV_MSR_ICR)
		return lapic_set_icr(vcpu->lapic, val) ? PV_OK : PV_DENIED;
	if (val >> 32)
		return PV_DENIED;
	pv_eoi_sync(vcpu);
	if (index == HV_MSR_EOI)
		lapic_eoi(vcpu->lapic);
	else
		lapic_set_tpr_reg(vcpu->lapic, val);
	return PV_OK;
}

static enum pv_result assist_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = hv_of(vcpu)->assist_page;
	return PV_OK;
}

/* The first word is the EOI assist; what follows it in the page is the guest's, and may come from a saved state. */
static enum pv_result assist_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	gpa_t gpa = val & PAGE_MASK;
	uint32_t zero = 0;

	if (!(val & HV_PAGE_ENABLE)) {
		hv_of(vcpu)->assist_page = val;
		return pv_eoi_set(vcpu, 0);
	}
	if (vm_write_guest(vcpu->vm, gpa, &zero, sizeof(zero)))
		return PV_DENIED;
	hv_of(vcpu)->assist_page = val;
	return pv_eoi_set(vcpu, gpa | PV_ENABLED);
}

/* ---- rows ---- */

enum gate { GATE_EAX, GATE_EDX };

static const struct row {
	uint32_t first, last;
	bool partition; /* hv_vm's lock is held around get and set */
	uint8_t gate;	/* enum gate: where the feature bit stands */
	uint32_t feature;
	hv_get_fn *get;
	hv_set_fn *set;
} rows[] = {
	{HV_MSR_GUEST_OS_ID, HV_MSR_GUEST_OS_ID, true, GATE_EAX, HV_ACCESS_HYPERCALL, os_id_get,
	 os_id_set},
	{HV_MSR_HYPERCALL, HV_MSR_HYPERCALL, true, GATE_EAX, HV_ACCESS_HYPERCALL, hypercall_get,
	 hypercall_set},
	{HV_MSR_VP_INDEX, HV_MSR_VP_INDEX, false, GATE_EAX, HV_ACCESS_VP_INDEX, vp_index_get,
	 vp_index_set},
	{HV_MSR_RESET, HV_MSR_RESET, true, GATE_EAX, HV_ACCESS_RESET, reset_get, reset_set},
	{HV_MSR_VP_RUNTIME, HV_MSR_VP_RUNTIME, false, GATE_EAX, HV_ACCESS_VP_RUNTIME,
	 hv_runtime_get, hv_runtime_set},
	{HV_MSR_TIME_REF_COUNT, HV_MSR_TIME_REF_COUNT, false, GATE_EAX, HV_ACCESS_TIME_REF_COUNT,
	 hv_time_ref_get, hv_time_ref_set},
	{HV_MSR_REFERENCE_TSC, HV_MSR_REFERENCE_TSC, true, GATE_EAX, HV_ACCESS_REFERENCE_TSC,
	 hv_tsc_page_get, hv_tsc_page_set},
	{HV_MSR_TSC_FREQUENCY, HV_MSR_APIC_FREQUENCY, false, GATE_EAX, HV_ACCESS_FREQUENCIES,
	 hv_frequency_get, hv_frequency_set},
	{HV_MSR_EOI, HV_MSR_TPR, false, GATE_EAX, HV_ACCESS_APIC, apic_get, apic_set},
	{HV_MSR_VP_ASSIST_PAGE, HV_MSR_VP_ASSIST_PAGE, false, GATE_EAX, HV_ACCESS_APIC, assist_get,
	 assist_set},
	{HV_MSR_SCONTROL, HV_MSR_EOM, false, GATE_EAX, HV_ACCESS_SYNIC, hv_synic_get, hv_synic_set},
	{HV_MSR_SINT0, HV_MSR_SINT15, false, GATE_EAX, HV_ACCESS_SYNIC, hv_synic_get, hv_synic_set},
	{HV_MSR_STIMER0_CONFIG, HV_MSR_STIMER3_COUNT, false, GATE_EAX, HV_ACCESS_STIMERS,
	 hv_stimer_get, hv_stimer_set},
	{HV_MSR_SYNDBG_CONTROL, HV_MSR_SYNDBG_PENDING_BUFFER, true, GATE_EDX, HV_DEBUG_MSRS,
	 hv_syndbg_get, hv_syndbg_set},
	{HV_MSR_SYNDBG_OPTIONS, HV_MSR_SYNDBG_OPTIONS, true, GATE_EDX, HV_DEBUG_MSRS, hv_syndbg_get,
	 hv_syndbg_set},
	{HV_MSR_CRASH_P0, HV_MSR_CRASH_CTL, true, GATE_EDX, HV_CRASH_MSRS, crash_get, crash_set},
	{HV_MSR_REENLIGHTENMENT, HV_MSR_TSC_EMULATION_STATUS, true, GATE_EAX,
	 HV_ACCESS_REENLIGHTENMENT, hv_tsc_emulation_get, hv_tsc_emulation_set},
	{HV_MSR_TSC_INVARIANT_CONTROL, HV_MSR_TSC_INVARIANT_CONTROL, true, GATE_EAX,
	 HV_ACCESS_TSC_INVARIANT, invtsc_get, invtsc_set},
};

static const struct row *find_row(uint32_t index)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (index >= rows[i].first && index <= rows[i].last)
			return &rows[i];
	return NULL;
}

static bool allowed(const struct hv *hv, const struct row *row, bool host)
{
	uint32_t has = row->gate == GATE_EAX ? hv->cpuid.features_eax : hv->cpuid.features_edx;

	return host || (hv->enabled && (!hv->enforce || has & row->feature));
}

/* A number that KVM knows as Hyper-V's without a register behind it is refused, never unknown. */
static enum pv_result no_row(uint32_t index)
{
	return index >= HV_MSR_GUEST_OS_ID && index <= HV_MSR_LAST_PLAIN ? PV_DENIED : PV_UNKNOWN;
}

static enum pv_result call(const struct row *row, struct vcpu *vcpu, uint32_t index, bool host,
			   uint64_t *val, bool write)
{
	return write ? row->set(vcpu, index, host, *val) : row->get(vcpu, index, host, val);
}

static enum pv_result access_msr(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *val,
				 bool write)
{
	const struct row *row = find_row(index);
	struct hv_vm *hv = hv_vm_of(vcpu->vm);
	enum pv_result r;

	if (!row)
		return no_row(index);
	if (!allowed(hv_of(vcpu), row, host))
		return PV_DENIED;
	if (!row->partition)
		return call(row, vcpu, index, host, val, write);
	pthread_mutex_lock(&hv->lock);
	r = call(row, vcpu, index, host, val, write);
	pthread_mutex_unlock(&hv->lock);
	return r;
}

enum pv_result pv_hv_msr_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	return access_msr(vcpu, index, host, ret, false);
}

enum pv_result pv_hv_msr_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	return access_msr(vcpu, index, host, &val, true);
}
