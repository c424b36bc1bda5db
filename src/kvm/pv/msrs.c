/* SPDX-License-Identifier: MIT */
/*
 * MSRs and CPUID features of KVM's own interface: one row each. What the guest was not given a feature for does
 * not exist, if the program enforces CPUID (KVM_CAP_ENFORCE_PV_FEATURE_CPUID). Hyper-V's MSRs are in hv_msrs.c;
 * the one of Xen's hypercall page has any number that the program picked.
 */
#include "kvm/pv/hv.h"
#include "kvm/pv/pv_internal.h"
#include "kvm/pv/xen.h"

#include <linux/kvm_para.h>

uint32_t pv_features(void)
{
	uint32_t all = BIT(KVM_FEATURE_CLOCKSOURCE) | BIT(KVM_FEATURE_NOP_IO_DELAY) |
		       BIT(KVM_FEATURE_CLOCKSOURCE2) | BIT(KVM_FEATURE_ASYNC_PF) |
		       BIT(KVM_FEATURE_PV_EOI) | BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT) |
		       BIT(KVM_FEATURE_PV_UNHALT) | BIT(KVM_FEATURE_PV_TLB_FLUSH) |
		       BIT(KVM_FEATURE_ASYNC_PF_VMEXIT) | BIT(KVM_FEATURE_PV_SEND_IPI) |
		       BIT(KVM_FEATURE_POLL_CONTROL) | BIT(KVM_FEATURE_PV_SCHED_YIELD) |
		       BIT(KVM_FEATURE_ASYNC_PF_INT);

	return pv_steal_available() ? all | BIT(KVM_FEATURE_STEAL_TIME) : all;
}

bool pv_has(const struct vcpu *vcpu, unsigned feature)
{
	return !vcpu->pv_enforce || vcpu->pv_features >> feature & 1;
}

/* ---- rows ---- */

static enum pv_result clock_get(struct vcpu *vcpu, uint32_t index, uint64_t *ret)
{
	return pv_clock_msr_get(vcpu, index, ret);
}

static enum pv_result apf_get(struct vcpu *vcpu, uint32_t index, uint64_t *ret)
{
	*ret = index == MSR_KVM_ASYNC_PF_EN    ? vcpu->pv->apf_msr
	       : index == MSR_KVM_ASYNC_PF_INT ? vcpu->pv->apf_vector
					       : 0; /* MSR_KVM_ASYNC_PF_ACK */
	return PV_OK;
}

static enum pv_result apf_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	return pv_apf_set(vcpu, val);
}

static enum pv_result apf_int_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	return pv_apf_set_vector(vcpu, val);
}

static enum pv_result apf_ack_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	return pv_apf_ack(vcpu, val);
}

static enum pv_result steal_get(struct vcpu *vcpu, uint32_t index, uint64_t *ret)
{
	*ret = vcpu->pv->steal_msr;
	return PV_OK;
}

static enum pv_result steal_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	return pv_steal_set(vcpu, val);
}

static enum pv_result eoi_get(struct vcpu *vcpu, uint32_t index, uint64_t *ret)
{
	*ret = vcpu->pv->eoi_msr;
	return PV_OK;
}

static enum pv_result eoi_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	return pv_eoi_set(vcpu, val);
}

/* A guest that polls by itself takes bit 0 away: the host need not. */
static enum pv_result poll_get(struct vcpu *vcpu, uint32_t index, uint64_t *ret)
{
	*ret = vcpu->pv->poll_control;
	return PV_OK;
}

static enum pv_result poll_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	if (val & ~1ull)
		return PV_DENIED;
	vcpu->pv->poll_control = val;
	return PV_OK;
}

bool pv_poll_allowed(const struct vcpu *vcpu)
{
	return vcpu->pv->poll_control & 1;
}

static const struct row {
	uint32_t index;
	uint8_t feature; /* bit of KVM_CPUID_FEATURES */
	enum pv_result (*get)(struct vcpu *vcpu, uint32_t index, uint64_t *ret);
	enum pv_result (*set)(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val);
} rows[] = {
	{MSR_KVM_WALL_CLOCK, KVM_FEATURE_CLOCKSOURCE, clock_get, pv_clock_msr_set},
	{MSR_KVM_SYSTEM_TIME, KVM_FEATURE_CLOCKSOURCE, clock_get, pv_clock_msr_set},
	{MSR_KVM_WALL_CLOCK_NEW, KVM_FEATURE_CLOCKSOURCE2, clock_get, pv_clock_msr_set},
	{MSR_KVM_SYSTEM_TIME_NEW, KVM_FEATURE_CLOCKSOURCE2, clock_get, pv_clock_msr_set},
	{MSR_KVM_ASYNC_PF_EN, KVM_FEATURE_ASYNC_PF, apf_get, apf_set},
	{MSR_KVM_STEAL_TIME, KVM_FEATURE_STEAL_TIME, steal_get, steal_set},
	{MSR_KVM_PV_EOI_EN, KVM_FEATURE_PV_EOI, eoi_get, eoi_set},
	{MSR_KVM_POLL_CONTROL, KVM_FEATURE_POLL_CONTROL, poll_get, poll_set},
	{MSR_KVM_ASYNC_PF_INT, KVM_FEATURE_ASYNC_PF_INT, apf_get, apf_int_set},
	{MSR_KVM_ASYNC_PF_ACK, KVM_FEATURE_ASYNC_PF_INT, apf_get, apf_ack_set},
};

/* The row, if the guest has its feature. */
static const struct row *find_row(const struct vcpu *vcpu, uint32_t index)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].index == index)
			return pv_has(vcpu, rows[i].feature) ? &rows[i] : NULL;
	return NULL;
}

enum pv_result pv_msr_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	const struct row *row = find_row(vcpu, index);

	return row ? row->get(vcpu, index, ret) : pv_hv_msr_get(vcpu, index, host, ret);
}

enum pv_result pv_msr_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	const struct row *row;

	if (pv_xen_is_page_msr(vcpu->vm, index))
		return pv_xen_write_page(vcpu, val);
	row = find_row(vcpu, index);
	return row ? row->set(vcpu, index, host, val) : pv_hv_msr_set(vcpu, index, host, val);
}
