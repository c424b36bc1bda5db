/* SPDX-License-Identifier: MIT */
/*
 * kvmclock: the pvclock page of a vCPU and the wall clock page of the VM, in guest memory, set up by
 * KVM's MSRs (Documentation/virt/kvm/x86/msr.rst, the pvclock ABI).
 *
 * The page shows the VM's clock line moved to the vCPU's TSC. Its version is odd while it is
 * being written, so that another vCPU that reads it begins again.
 */
#include "kvm/pv/hv.h"
#include "host/host.h"
#include "kvm/pv/pv_internal.h"
#include "kvm/pv/xen.h"

#include <errno.h>
#include <linux/kvm_para.h>

struct wall_clock {
	uint32_t version;
	uint32_t sec;
	uint32_t nsec;
};

_Static_assert(sizeof(struct wall_clock) == 12, "pvclock ABI");

/* ---- the pages ---- */

/* Version of what stands at gpa, made odd: false on a page that cannot be read or written. */
static bool version_begin(struct vm *vm, gpa_t gpa, uint32_t *ret)
{
	uint32_t version;

	if (vm_read_guest(vm, gpa, &version, sizeof(version)))
		return false;
	version += version & 1; /* first time: random junk */
	version++;
	if (vm_write_guest(vm, gpa, &version, sizeof(version)))
		return false;
	*ret = version;
	return true;
}

static void version_end(struct vm *vm, gpa_t gpa, uint32_t version)
{
	version++;
	vm_write_guest(vm, gpa, &version, sizeof(version));
}

static void write_wall_clock(struct vm *vm, gpa_t gpa)
{
	uint64_t ns = clock_boot_wall_ns(vm);
	struct wall_clock wall = {.sec = ns / 1000000000, .nsec = ns % 1000000000};

	if (!gpa || !version_begin(vm, gpa, &wall.version))
		return;
	vm_write_guest(vm, gpa, &wall, sizeof(wall));
	version_end(vm, gpa, wall.version);
}

/* Write one page's clock under its version, keeping the guest's GUEST_STOPPED. */
static void clock_write(struct vm *vm, gpa_t gpa, struct pv_time_info info)
{
	struct pv_time_info old;

	if (vm_read_guest(vm, gpa, &old, sizeof(old)))
		return;
	info.flags |= old.flags & PV_TIME_GUEST_STOPPED; /* the guest clears it */
	if (!version_begin(vm, gpa, &info.version))
		return;
	vm_write_guest(vm, gpa, &info, sizeof(info));
	version_end(vm, gpa, info.version);
}

/*
 * The line's multiplier for a TSC of this ratio, all 32 digits of it: a rounded frequency would let the page run away from
 * KVM_GET_CLOCK. Rounded down, so that a guest is never ahead of the clock that it is saved with.
 */
static void scale_line(uint64_t ratio, struct pv_time_info *ret)
{
	unsigned __int128 mul =
		((unsigned __int128)ret->tsc_to_system_mul << (32 + VCPU_TSC_FRACTION)) / ratio;
	int shift = ret->tsc_shift - 32;

	for (; mul >> 32; mul >>= 1)
		shift++;
	for (; !(mul >> 31); mul <<= 1)
		shift--;
	ret->tsc_to_system_mul = mul;
	ret->tsc_shift = shift;
}

void pv_clock_info(const struct vcpu *vcpu, struct pv_time_info *ret)
{
	struct clock_line line;

	clock_line(vcpu->vm, &line);
	*ret = (struct pv_time_info){
		.tsc_timestamp = vcpu_tsc_at(vcpu, line.base_tsc),
		.system_time = line.base_ns,
		.tsc_to_system_mul = line.mul,
		.tsc_shift = line.shift,
		.flags = clock_tsc_in_step(vcpu->vm) ? PV_TIME_TSC_STABLE : 0,
	};
	if (vcpu->tsc_ratio != BIT(VCPU_TSC_FRACTION))
		scale_line(vcpu->tsc_ratio, ret);
}

static void update_own(struct vcpu *vcpu, struct pv_time_info info)
{
	struct pv *pv = vcpu->pv;

	if (!(pv->system_time & PV_ENABLED))
		return;
	if (pv->paused)
		info.flags |= PV_TIME_GUEST_STOPPED;
	clock_write(vcpu->vm, pv->system_time & ~PV_ENABLED, info);
	pv->paused = false;
}

void pv_clock_update(struct vcpu *vcpu)
{
	struct pv_time_info info;

	pv_clock_info(vcpu, &info);
	update_own(vcpu, info);
	pv_xen_clock_update(vcpu, &info);
	pv_hv_clock_update(vcpu, &info);
}

void pv_clock_changed(struct vm *vm)
{
	pv_hv_clock_changed(vm);
}

int pv_clock_paused(struct pv *pv)
{
	if (!(pv->system_time & PV_ENABLED))
		return -EINVAL;
	pv->paused = true;
	return 0;
}

/* ---- MSRs ---- */

static bool is_wall(uint32_t index)
{
	return index == MSR_KVM_WALL_CLOCK || index == MSR_KVM_WALL_CLOCK_NEW;
}

enum pv_result pv_clock_msr_get(struct vcpu *vcpu, uint32_t index, uint64_t *ret)
{
	if (is_wall(index))
		*ret = __atomic_load_n(&vcpu->vm->pv->wall_clock, __ATOMIC_RELAXED);
	else
		*ret = vcpu->pv->system_time;
	return PV_OK;
}

enum pv_result pv_clock_msr_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	if (is_wall(index)) {
		__atomic_store_n(&vcpu->vm->pv->wall_clock, val, __ATOMIC_RELAXED);
		write_wall_clock(vcpu->vm, val);
		return PV_OK;
	}
	vcpu->pv->system_time = val;
	/* Every vCPU's page again, as in KVM: they must show the same line. */
	vcpu_request_all(vcpu->vm, REQ_CLOCK_UPDATE, false);
	return PV_OK;
}
