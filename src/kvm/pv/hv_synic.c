/* SPDX-License-Identifier: MIT */
/*
 * The synthetic interrupt controller: 16 sources, each with a vector, and two pages of the guest's for
 * messages and event flags, which the program fills (it hears of them by KVM_EXIT_HYPERV_SYNIC); the
 * only messages made here are the synthetic timers'.
 *
 * What other threads look at (routes, other vCPUs) are single atomic words, written by the vCPU's thread.
 */
#include "kvm/pv/hv_internal.h"
#include "kvm/vm/irqchip.h"

#include <errno.h>

static uint64_t sint_read(const struct hv *hv, unsigned sint)
{
	return __atomic_load_n(&hv->sint[sint], __ATOMIC_RELAXED);
}

static int sint_vector(uint64_t val)
{
	return val & HV_SINT_MASKED ? -1 : (int)(val & HV_SINT_VECTOR);
}

void hv_synic_init(struct hv *hv)
{
	hv->sversion = HV_SYNIC_VERSION;
	for (unsigned i = 0; i < HV_NR_SINTS; i++)
		hv->sint[i] = HV_SINT_MASKED;
}

/* ---- vectors ---- */

static bool test_vector(const uint64_t map[4], uint8_t vector)
{
	return __atomic_load_n(&map[vector / 64], __ATOMIC_RELAXED) >> (vector % 64) & 1;
}

static void put_vector(uint64_t map[4], uint8_t vector, bool on)
{
	uint64_t bit = BIT(vector % 64), word = map[vector / 64] & ~bit;

	__atomic_store_n(&map[vector / 64], on ? word | bit : word, __ATOMIC_RELAXED);
}

bool pv_hv_vector_connected(const struct vcpu *vcpu, uint8_t vector)
{
	return hv_synic_active(vcpu) && test_vector(hv_of(vcpu)->connected, vector);
}

bool pv_hv_vector_auto_eoi(const struct vcpu *vcpu, uint8_t vector)
{
	return hv_synic_active(vcpu) && test_vector(hv_of(vcpu)->auto_eoi, vector);
}

/* Several sources may share a vector. */
static void update_vector(struct hv *hv, uint8_t vector)
{
	bool connected = false, auto_eoi = false;

	if (vector < HV_FIRST_SINT_VECTOR)
		return;
	for (unsigned i = 0; i < HV_NR_SINTS; i++) {
		uint64_t val = sint_read(hv, i);

		if (sint_vector(val) != vector)
			continue;
		connected = true;
		auto_eoi |= !!(val & HV_SINT_AUTO_EOI);
	}
	put_vector(hv->connected, vector, connected);
	put_vector(hv->auto_eoi, vector, auto_eoi);
}

/* ---- interrupts ---- */

static struct vcpu *vcpu_at_index(const struct vm *vm, uint32_t vp_index)
{
	unsigned nr = vm_nr_vcpus(vm);

	for (unsigned i = 0; i < nr; i++)
		if (hv_vp_index(vm->vcpus[i]) == vp_index)
			return vm->vcpus[i];
	return NULL;
}

int hv_synic_interrupt(struct vcpu *vcpu, unsigned sint)
{
	int vector;

	if (!vcpu->lapic || sint >= HV_NR_SINTS)
		return -EINVAL;
	vector = sint_vector(sint_read(hv_of(vcpu), sint));
	return vector < 0 ? -ENOENT : pv_interrupt(vcpu, vector);
}

int pv_hv_set_sint(struct vm *vm, uint32_t vp_index, uint32_t sint)
{
	struct vcpu *vcpu = vcpu_at_index(vm, vp_index);

	if (!vcpu || !hv_synic_active(vcpu))
		return -EINVAL;
	return hv_synic_interrupt(vcpu, sint);
}

static void sint_acked(struct vcpu *vcpu, unsigned sint)
{
	hv_stimer_acked(vcpu, sint);
	vm_sint_acked(vcpu->vm, hv_vp_index(vcpu), sint);
}

void pv_hv_eoi(struct vcpu *vcpu, uint8_t vector)
{
	if (!pv_hv_vector_connected(vcpu, vector))
		return;
	for (unsigned i = 0; i < HV_NR_SINTS; i++)
		if (sint_vector(sint_read(hv_of(vcpu), i)) == vector)
			sint_acked(vcpu, i);
}

/* ---- MSRs ---- */

enum pv_result hv_synic_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret)
{
	const struct hv *hv = hv_of(vcpu);

	if (!hv->synic && !host)
		return PV_DENIED;
	switch (index) {
	case HV_MSR_SCONTROL:
		*ret = hv->scontrol;
		break;
	case HV_MSR_SVERSION:
		*ret = hv->sversion;
		break;
	case HV_MSR_SIEFP:
		*ret = hv->siefp;
		break;
	case HV_MSR_SIMP:
		*ret = hv->simp;
		break;
	case HV_MSR_EOM:
		*ret = 0;
		break;
	default:
		*ret = sint_read(hv, index - HV_MSR_SINT0);
	}
	return PV_OK;
}

static void tell_program(struct vcpu *vcpu, uint32_t index)
{
	struct hv *hv = hv_of(vcpu);

	hv->exit = (struct kvm_hyperv_exit){.type = KVM_EXIT_HYPERV_SYNIC};
	hv->exit.u.synic.msr = index;
	hv->exit.u.synic.control = hv->scontrol;
	hv->exit.u.synic.evt_page = hv->siefp;
	hv->exit.u.synic.msg_page = hv->simp;
	vcpu_request(vcpu, REQ_HV_EXIT);
}

static enum pv_result set_sint(struct hv *hv, unsigned sint, bool host, uint64_t val)
{
	uint8_t old = sint_read(hv, sint) & HV_SINT_VECTOR;

	/* Masked, any vector goes: guests write the reset value. */
	if ((val & HV_SINT_VECTOR) < HV_FIRST_SINT_VECTOR && !host && !(val & HV_SINT_MASKED))
		return PV_DENIED;
	__atomic_store_n(&hv->sint[sint], val, __ATOMIC_RELAXED);
	update_vector(hv, old);
	update_vector(hv, val & HV_SINT_VECTOR);
	return PV_OK;
}

static bool clear_page(struct vm *vm, gpa_t gpa)
{
	static const uint8_t zeros[PAGE_SIZE];

	return !vm_write_guest(vm, gpa, zeros, sizeof(zeros));
}

static enum pv_result set_page(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	struct hv *hv = hv_of(vcpu);

	if (val & HV_PAGE_ENABLE && !host && !hv->synic_keep_pages &&
	    !clear_page(vcpu->vm, val & PAGE_MASK))
		return PV_DENIED;
	*(index == HV_MSR_SIEFP ? &hv->siefp : &hv->simp) = val;
	if (!host)
		tell_program(vcpu, index);
	return PV_OK;
}

static void end_of_message(struct vcpu *vcpu)
{
	for (unsigned i = 0; i < HV_NR_SINTS; i++)
		sint_acked(vcpu, i);
}

enum pv_result hv_synic_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val)
{
	struct hv *hv = hv_of(vcpu);

	if (!hv->synic && (!host || val))
		return PV_DENIED;
	switch (index) {
	case HV_MSR_SCONTROL:
		hv->scontrol = val;
		if (!host)
			tell_program(vcpu, index);
		return PV_OK;
	case HV_MSR_SVERSION:
		if (!host)
			return PV_DENIED;
		hv->sversion = val;
		return PV_OK;
	case HV_MSR_SIEFP:
	case HV_MSR_SIMP:
		return set_page(vcpu, index, host, val);
	case HV_MSR_EOM:
		if (hv->synic)
			end_of_message(vcpu);
		return PV_OK;
	default:
		return set_sint(hv, index - HV_MSR_SINT0, host, val);
	}
}
