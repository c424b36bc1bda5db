/* SPDX-License-Identifier: MIT */
/*
 * Event channels of two levels: a bit per port in shared info, a bit per word of those in the vCPU's info, and a flag
 * there that asks for an upcall. The upcall comes by a vector of the VM's (an external interrupt that stays
 * as long as the flag) or by one of the vCPU's local APIC.
 *
 * Bits are set with the guest's own atomicity, by LOCK CMPXCHG on its memory.
 */
#include "host/guard.h"
#include "kvm/pv/xen_internal.h"

#include <errno.h>

/* ---- bits in guest memory ---- */

int xen_test_bit(const uint8_t *map, unsigned bit)
{
	uint32_t word;

	if (!host_load_32(map + bit / 32 * 4, &word))
		return -EFAULT;
	return word >> (bit % 32) & 1;
}

/* The bit's old value, or -EFAULT. */
static int test_and_set_bit(uint8_t *map, unsigned bit)
{
	uint8_t *word = map + bit / 32 * 4;
	uint32_t mask = 1u << (bit % 32), old, seen;

	if (!host_load_32(word, &old))
		return -EFAULT;
	for (;;) {
		seen = old;
		if (!host_cmpxchg_32(word, &seen, old | mask))
			return -EFAULT;
		if (seen == old)
			return !!(old & mask);
		old = seen;
	}
}

/* ---- waking ---- */

void xen_wake(struct vcpu *vcpu)
{
	vcpu_request(vcpu, REQ_XEN);
	vcpu_request(vcpu, REQ_EVENT);
}

/* Claim held. A masked port does not interrupt, but wakes who polls for it. */
static void wake_poller(struct vcpu *vcpu, uint32_t port)
{
	const struct xen *xen = xen_of(vcpu);

	if (xen->polling && (xen->poll_port == port || xen->poll_port == -1))
		xen_wake(vcpu);
}

/* ---- the second level: vcpu_info; claim held ---- */

static void mark_info_dirty(struct vcpu *vcpu)
{
	const struct xen_place *place = &xen_of(vcpu)->info;

	if (!place->by_hva)
		vm_mark_dirty(vcpu->vm, place->addr);
}

/* True if the vCPU has something new to hear of. */
static bool raise_selector(struct vcpu *vcpu, unsigned word)
{
	struct xen *xen = xen_of(vcpu);
	uint8_t *info = xen_pointer(vcpu->vm, &xen->info, 0, XEN_INFO_SIZE);
	uint64_t bit = BIT(word);
	int old = -EFAULT;

	if (info)
		old = test_and_set_bit(info + xen_layout(vcpu->vm)->selector, word);
	if (old < 0) {
		old = !!(xen->pending_sel & bit);
		xen->pending_sel |= bit;
		return !old;
	}
	if (!old) {
		host_store_8(info + XEN_INFO_UPCALL, 1);
		mark_info_dirty(vcpu);
	}
	return !old;
}

/* Bits kept back while the vCPU's info was not there. */
static bool flush_pending(struct vcpu *vcpu)
{
	struct xen *xen = xen_of(vcpu);
	uint8_t *info = xen_pointer(vcpu->vm, &xen->info, 0, XEN_INFO_SIZE);
	bool any = false;

	for (unsigned word = 0; info && xen->pending_sel >> word; word++) {
		if (!(xen->pending_sel >> word & 1))
			continue;
		if (test_and_set_bit(info + xen_layout(vcpu->vm)->selector, word) < 0)
			break;
		xen->pending_sel &= ~BIT(word);
		any = true;
		if (word == 63)
			break;
	}
	if (any) {
		host_store_8(info + XEN_INFO_UPCALL, 1);
		mark_info_dirty(vcpu);
	}
	return any;
}

/* ---- sending ---- */

/* Claim held: > 0 and *ret_wake if the vCPU must look; 0: pending already; -errno. */
static int set_port(struct vcpu *vcpu, uint32_t port, bool *ret_wake)
{
	struct vm *vm = vcpu->vm;
	const struct xen_vm *xen = xen_vm_of(vm);
	const struct xen_layout *at = xen_layout(vm);
	uint8_t *shared;
	int old, masked;

	if (port >= at->ports || !xen->shared_info.active)
		return -EINVAL;
	shared = xen_pointer(vm, &xen->shared_info, 0, PAGE_SIZE);
	old = shared ? test_and_set_bit(shared + at->pending, port) : -EFAULT;
	if (old)
		return old < 0 ? old : 0;
	masked = xen_test_bit(shared + at->mask, port);
	if (masked) {
		wake_poller(vcpu, port);
		return masked < 0 ? masked : -ENOTCONN;
	}
	*ret_wake = raise_selector(vcpu, port >> at->word_shift);
	return 1;
}

int pv_xen_set_evtchn(struct vm *vm, const struct kvm_irq_routing_xen_evtchn *e)
{
	struct vcpu *vcpu = pv_find_apic_id(vm, e->vcpu);
	uint8_t vector;
	bool wake = false;
	int r;

	if (!vcpu)
		return -EINVAL;
	vm_slots_claim(vm);
	r = set_port(vcpu, e->port, &wake);
	vector = xen_of(vcpu)->upcall_vector;
	vm_slots_unclaim(vm);
	if (wake && vector)
		pv_interrupt(vcpu, vector);
	else if (wake)
		xen_wake(vcpu);
	return r;
}

int pv_xen_check_route(const struct kvm_irq_routing_xen_evtchn *e)
{
	return e->priority == KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL ? 0 : -EINVAL;
}

long pv_xen_evtchn_send(struct vm *vm, void *arg)
{
	const struct kvm_irq_routing_xen_evtchn *e = arg;
	int r;

	if (!e->port || e->port >= xen_layout(vm)->ports || pv_xen_check_route(e))
		return -EINVAL;
	r = pv_xen_set_evtchn(vm, e);
	return r > 0 || r == -ENOTCONN ? 0 : r;
}

/* ---- the vCPU's side ---- */

static bool upcall_pending(struct vcpu *vcpu)
{
	uint8_t *info, pending = 0;

	vm_slots_claim(vcpu->vm);
	info = xen_pointer(vcpu->vm, &xen_of(vcpu)->info, 0, XEN_INFO_SIZE);
	if (info && !host_load_8(info + XEN_INFO_UPCALL, &pending))
		pending = 0;
	vm_slots_unclaim(vcpu->vm);
	return pending;
}

int pv_xen_pending_vector(struct vcpu *vcpu)
{
	const struct xen_vm *xen = xen_vm_of(vcpu->vm);
	uint8_t vector = __atomic_load_n(&xen->upcall_vector, __ATOMIC_RELAXED);

	if (!vector || !__atomic_load_n(&xen->config.msr, __ATOMIC_RELAXED) ||
	    !xen_of(vcpu)->info.active)
		return -1;
	return upcall_pending(vcpu) ? vector : -1;
}

void pv_xen_apic_enabled(struct vcpu *vcpu)
{
	const struct xen *xen = xen_of(vcpu);

	if (xen->upcall_vector && xen->info.active && upcall_pending(vcpu))
		pv_interrupt(vcpu, xen->upcall_vector);
}

void pv_xen_retry(struct vcpu *vcpu)
{
	if (__atomic_load_n(&xen_of(vcpu)->pending_sel, __ATOMIC_RELAXED))
		vcpu_request(vcpu, REQ_XEN);
}

void pv_xen_serve(struct vcpu *vcpu)
{
	struct xen *xen = xen_of(vcpu);
	bool told;

	vm_slots_claim(vcpu->vm);
	told = flush_pending(vcpu);
	vm_slots_unclaim(vcpu->vm);
	pv_xen_poll_end(vcpu);
	if (told && xen->upcall_vector)
		pv_interrupt(vcpu, xen->upcall_vector);
}

void pv_xen_poll_end(struct vcpu *vcpu)
{
	struct xen *xen = xen_of(vcpu);

	if (!xen->polling)
		return;
	vm_slots_claim(vcpu->vm);
	xen->polling = false;
	vm_slots_unclaim(vcpu->vm);
	service_timer_cancel(vcpu->vm->service, &xen->poll_timer);
	vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
}
