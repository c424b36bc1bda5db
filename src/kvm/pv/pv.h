/* SPDX-License-Identifier: MIT */
/*
 * What KVM offers beside the architecture: kvmclock's pages and MSRs (Documentation/virt/kvm/x86/msr.rst
 * and cpuid.rst). Room header of kvm/pv. One struct pv per vCPU.
 *
 * vCPU thread only, in KVM_RUN or with vcpu->mutex and slots_lock held, unless said otherwise.
 */
#ifndef KVM_PV_PV_H
#define KVM_PV_PV_H

#include "kvm/vm/vm.h"

struct pv;

enum pv_result { PV_OK, PV_UNKNOWN, PV_DENIED };

/* EAX of CPUID leaf KVM_CPUID_FEATURES: only what works. Any thread. */
uint32_t pv_features(void);

struct pv *pv_create(struct vm *vm, uint32_t vcpu_id);
void pv_destroy(struct pv *pv);

/*
 * MSRs in KVM's ranges: PV_UNKNOWN if none of this room's. features: EAX of the guest's own
 * KVM_CPUID_FEATURES leaf, or all ones unless KVM_CAP_ENFORCE_PV_FEATURE_CPUID. host: the program, by ioctl.
 */
enum pv_result pv_msr_get(struct pv *pv, uint32_t index, uint32_t features, bool host,
			  uint64_t *ret);
enum pv_result pv_msr_set(struct pv *pv, uint32_t index, uint32_t features, bool host,
			  uint64_t val);

/* Write the kvmclock page, if one is set; on REQ_CLOCK_UPDATE and when tsc_offset changes. */
void pv_clock_update(struct pv *pv, int64_t tsc_offset, uint64_t tsc_khz);
/* KVM_KVMCLOCK_CTRL: 0, or -EINVAL without an active page; the caller requests a clock update. */
int pv_clock_paused(struct pv *pv);

#endif
