/* SPDX-License-Identifier: MIT */
/*
 * kvmclock: the pvclock page of a vCPU and the wall clock page of the VM, in guest memory, set up by
 * KVM's MSRs (Documentation/virt/kvm/x86/msr.rst, the pvclock ABI).
 *
 * The page shows the VM's clock line moved to the vCPU's TSC. Its version is odd while it is
 * being written, so that another vCPU that reads it begins again.
 */
#include "kvm/pv/pv.h"
#include "kvm/vm/clock.h"

#include <errno.h>
#include <linux/kvm_para.h>
#include <stdlib.h>

/* Facts of the ABI. */
struct time_info {
	uint32_t version;
	uint32_t pad0;
	uint64_t tsc_timestamp;
	uint64_t system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags;
	uint8_t pad[2];
};

struct wall_clock {
	uint32_t version;
	uint32_t sec;
	uint32_t nsec;
};

_Static_assert(sizeof(struct time_info) == 32 && sizeof(struct wall_clock) == 12, "pvclock ABI");

#define TIME_TSC_STABLE	   BIT(0)
#define TIME_GUEST_STOPPED BIT(1)
#define TIME_ENABLE	   BIT(0)

struct pv {
	struct vm *vm;
	uint32_t vcpu_id;
	uint64_t system_time; /* the MSR: gpa | TIME_ENABLE */
	uint64_t wall_clock;
	bool paused; /* TIME_GUEST_STOPPED is due */
};

static const struct {
	uint32_t index;
	uint32_t feature; /* bit of KVM_CPUID_FEATURES */
	bool wall;
} msrs[] = {
	{MSR_KVM_WALL_CLOCK, KVM_FEATURE_CLOCKSOURCE, true},
	{MSR_KVM_SYSTEM_TIME, KVM_FEATURE_CLOCKSOURCE, false},
	{MSR_KVM_WALL_CLOCK_NEW, KVM_FEATURE_CLOCKSOURCE2, true},
	{MSR_KVM_SYSTEM_TIME_NEW, KVM_FEATURE_CLOCKSOURCE2, false},
};

uint32_t pv_features(void)
{
	return BIT(KVM_FEATURE_CLOCKSOURCE) | BIT(KVM_FEATURE_NOP_IO_DELAY) |
	       BIT(KVM_FEATURE_CLOCKSOURCE2) | BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT);
}

struct pv *pv_create(struct vm *vm, uint32_t vcpu_id)
{
	struct pv *pv = calloc(1, sizeof(*pv));

	if (!pv)
		return NULL;
	pv->vm = vm;
	pv->vcpu_id = vcpu_id;
	return pv;
}

void pv_destroy(struct pv *pv)
{
	free(pv);
}

/* ---- the pages ---- */

/* Version of what stands at gpa, made even: 0 on a page that cannot be read. */
static bool version_begin(struct pv *pv, gpa_t gpa, uint32_t *ret)
{
	uint32_t version;

	if (vm_read_guest(pv->vm, gpa, &version, sizeof(version)))
		return false;
	version += version & 1; /* first time: random junk */
	version++;
	if (vm_write_guest(pv->vm, gpa, &version, sizeof(version)))
		return false;
	*ret = version;
	return true;
}

static void version_end(struct pv *pv, gpa_t gpa, uint32_t version)
{
	version++;
	vm_write_guest(pv->vm, gpa, &version, sizeof(version));
}

static void write_wall_clock(struct pv *pv, gpa_t gpa)
{
	uint64_t ns = clock_boot_wall_ns(pv->vm);
	struct wall_clock wall = {.sec = ns / 1000000000, .nsec = ns % 1000000000};

	if (!gpa || !version_begin(pv, gpa, &wall.version))
		return;
	vm_write_guest(pv->vm, gpa, &wall, sizeof(wall));
	version_end(pv, gpa, wall.version);
}

void pv_clock_update(struct pv *pv, int64_t tsc_offset, uint64_t tsc_khz)
{
	gpa_t gpa = pv->system_time & ~TIME_ENABLE;
	struct time_info info = {.flags = TIME_TSC_STABLE}, old;
	struct clock_line line;

	if (!(pv->system_time & TIME_ENABLE) || vm_read_guest(pv->vm, gpa, &old, sizeof(old)))
		return;
	clock_line(pv->vm, &line);
	info.tsc_timestamp = line.base_tsc + tsc_offset;
	info.system_time = line.base_ns;
	info.tsc_to_system_mul = line.mul;
	info.tsc_shift = line.shift;
	if (pv->paused)
		info.flags |= TIME_GUEST_STOPPED;
	info.flags |= old.flags & TIME_GUEST_STOPPED; /* the guest clears it */
	if (!version_begin(pv, gpa, &info.version))
		return;
	vm_write_guest(pv->vm, gpa, &info, sizeof(info));
	version_end(pv, gpa, info.version);
	pv->paused = false;
}

int pv_clock_paused(struct pv *pv)
{
	if (!(pv->system_time & TIME_ENABLE))
		return -EINVAL;
	pv->paused = true;
	return 0;
}

/* ---- MSRs ---- */

static int msr_row(uint32_t index)
{
	for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++)
		if (msrs[i].index == index)
			return i;
	return -1;
}

enum pv_result pv_msr_get(struct pv *pv, uint32_t index, uint32_t features, bool host,
			  uint64_t *ret)
{
	int row = msr_row(index);

	if (row < 0)
		return PV_UNKNOWN;
	if (!(features >> msrs[row].feature & 1))
		return PV_DENIED;
	*ret = msrs[row].wall ? pv->wall_clock : pv->system_time;
	return PV_OK;
}

enum pv_result pv_msr_set(struct pv *pv, uint32_t index, uint32_t features, bool host, uint64_t val)
{
	int row = msr_row(index);

	if (row < 0)
		return PV_UNKNOWN;
	if (!(features >> msrs[row].feature & 1))
		return PV_DENIED;
	if (msrs[row].wall) {
		pv->wall_clock = val;
		write_wall_clock(pv, val);
		return PV_OK;
	}
	pv->system_time = val;
	/* Every vCPU's page again, as in KVM: they must show the same line. */
	pv->vm->ops->request_all(pv->vm, VM_REQUEST_CLOCK, false);
	return PV_OK;
}
