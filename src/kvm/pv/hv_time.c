/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V's time: the partition reference counter (100 ns since the VM's kvmclock 0), the reference TSC page that
 * says how to compute it from the TSC, frequencies, run time.
 *
 * The page's line is kvmclock's: ns/100 = tsc * scale / 2^64 + offset, with scale = mul * 2^(32 + shift) / 100 and
 * offset = system_time / 100 - tsc_timestamp * scale / 2^64. Sequence 0 tells the guest to read the MSR instead.
 */
#include "kvm/pv/hv_internal.h"

#include <time.h>

static uint64_t mul_high(uint64_t a, uint64_t b)
{
	return (unsigned __int128)a * b >> 64;
}

static uint64_t time_ref_locked(struct vcpu *vcpu)
{
	const struct hv_vm *hv = hv_vm_of(vcpu->vm);

	if (hv->tsc_status != HV_TSC_SET)
		return clock_kvmclock_ns(vcpu->vm) / 100;
	return mul_high(vcpu_tsc_at(vcpu->vm->vcpus[0], clock_tsc(vcpu->vm)), hv->tsc.scale) +
	       hv->tsc.offset;
}

uint64_t hv_time_ref(struct vcpu *vcpu)
{
	struct hv_vm *hv = hv_vm_of(vcpu->vm);
	uint64_t now;

	pthread_mutex_lock(&hv->lock);
	now = time_ref_locked(vcpu);
	pthread_mutex_unlock(&hv->lock);
	return now;
}

/* ---- the page; hv_vm's lock held ---- */

/* False if the multiplier does not fit, or other vCPUs' TSCs are not in step with the first one's, which the page is for. */
static bool compute_page(const struct pv_time_info *info, struct hv_tsc_page *ret)
{
	if (!(info->flags & PV_TIME_TSC_STABLE) ||
	    info->tsc_to_system_mul >= 100ull << (32 - info->tsc_shift))
		return false;
	ret->scale = ((unsigned __int128)info->tsc_to_system_mul << (32 + info->tsc_shift)) / 100;
	ret->offset = info->system_time / 100 - mul_high(info->tsc_timestamp, ret->scale);
	return true;
}

/*
 * A guest that watches for re-enlightenment expects the page to stay as it is while TSC accesses are said to be
 * emulated: after a migration, until it says that it is done.
 */
static bool must_keep(const struct hv_vm *hv)
{
	return hv->tsc_status != HV_TSC_GUEST_CHANGED && hv->tsc_emulation_control;
}

static uint32_t next_sequence(uint32_t sequence)
{
	sequence++;
	return sequence == 0 || sequence == UINT32_MAX ? 1 : sequence;
}

static bool write_page(struct vcpu *vcpu, const struct pv_time_info *info)
{
	struct hv_vm *hv = hv_vm_of(vcpu->vm);
	gpa_t gpa = hv->tsc_msr & PAGE_MASK;
	uint32_t sequence;

	if (vm_read_guest(vcpu->vm, gpa, &sequence, sizeof(sequence)))
		return false;
	if (sequence && must_keep(hv))
		return !vm_read_guest(vcpu->vm, gpa, &hv->tsc, sizeof(hv->tsc));
	hv->tsc.sequence = 0;
	if (vm_write_guest(vcpu->vm, gpa, &hv->tsc.sequence, sizeof(hv->tsc.sequence)) ||
	    !compute_page(info, &hv->tsc) ||
	    vm_write_guest(vcpu->vm, gpa, &hv->tsc, sizeof(hv->tsc)))
		return false;
	hv->tsc.sequence = next_sequence(sequence);
	return !vm_write_guest(vcpu->vm, gpa, &hv->tsc.sequence, sizeof(hv->tsc.sequence));
}

void pv_hv_clock_update(struct vcpu *vcpu, const struct pv_time_info *info)
{
	struct hv_vm *hv = hv_vm_of(vcpu->vm);

	pthread_mutex_lock(&hv->lock);
	if (hv->tsc_status == HV_TSC_GUEST_CHANGED || hv->tsc_status == HV_TSC_HOST_CHANGED)
		hv->tsc_status = write_page(vcpu, info) ? HV_TSC_SET : HV_TSC_BROKEN;
	pthread_mutex_unlock(&hv->lock);
}

void pv_hv_clock_changed(struct vm *vm)
{
	struct hv_vm *hv = hv_vm_of(vm);

	pthread_mutex_lock(&hv->lock);
	if (hv->tsc_status == HV_TSC_SET && !must_keep(hv))
		hv->tsc_status = HV_TSC_HOST_CHANGED;
	pthread_mutex_unlock(&hv->lock);
}

enum pv_result hv_tsc_page_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = hv_vm_of(vcpu->vm)->tsc_msr;
	return PV_OK;
}

enum pv_result hv_tsc_page_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	struct hv_vm *hv = hv_vm_of(vcpu->vm);

	hv->tsc_msr = val;
	if (!(val & HV_PAGE_ENABLE)) {
		hv->tsc_status = HV_TSC_UNSET;
		return PV_OK;
	}
	hv->tsc_status = host ? HV_TSC_HOST_CHANGED : HV_TSC_GUEST_CHANGED;
	vcpu_request(vcpu, REQ_CLOCK_UPDATE);
	return PV_OK;
}

/* ---- the other MSRs ---- */

enum pv_result hv_time_ref_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = hv_time_ref(vcpu);
	return PV_OK;
}

/* Read-only, but a saved state may name it. */
enum pv_result hv_time_ref_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	return host ? PV_OK : PV_DENIED;
}

enum pv_result hv_frequency_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = index == HV_MSR_TSC_FREQUENCY ? vcpu->tsc_khz * 1000ull
					     : 1000000000ull / vcpu->vm->apic_bus_cycle_ns;
	return PV_OK;
}

enum pv_result hv_frequency_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	return host ? PV_OK : PV_DENIED;
}

/* CPU time of the calling thread, 100 ns; where time is counted, the vCPU's. */
static uint64_t runtime(const struct vcpu *vcpu)
{
	struct timespec ts = {0};

	if (vcpu->vm->turns)
		return vcpu->cpu.retired / 100;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * 10000000ull + ts.tv_nsec / 100;
}

enum pv_result hv_runtime_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = runtime(vcpu) + hv_of(vcpu)->runtime_base;
	return PV_OK;
}

enum pv_result hv_runtime_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	if (!host)
		return PV_DENIED;
	hv_of(vcpu)->runtime_base = val - runtime(vcpu);
	return PV_OK;
}

static uint64_t *emulation_reg(struct hv_vm *hv, uint32_t index)
{
	if (index == HV_MSR_REENLIGHTENMENT)
		return &hv->reenlightenment;
	return index == HV_MSR_TSC_EMULATION_CONTROL ? &hv->tsc_emulation_control
						     : &hv->tsc_emulation_status;
}

enum pv_result hv_tsc_emulation_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	*ret = *emulation_reg(hv_vm_of(vcpu->vm), index);
	return PV_OK;
}

enum pv_result hv_tsc_emulation_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	if (index == HV_MSR_TSC_EMULATION_STATUS && val && !host)
		return PV_DENIED;
	*emulation_reg(hv_vm_of(vcpu->vm), index) = val;
	return PV_OK;
}
