/* SPDX-License-Identifier: MIT */
/*
 * Xen's time: pvclock pages in the vCPU's info and of its own, the singleshot timer, which sends an event, and
 * run states: how long the vCPU was running, runnable (its thread waited for a processor), blocked and offline, the
 * latter two as the program says.
 *
 * While run states are written the top bit of the entry time is set, if the guest asked for it.
 */
#include "host/guard.h"
#include "host/host.h"
#include "kvm/pv/xen_internal.h"

#include <string.h>

#define QUIRK_DELAY_NS 100000000
#define QUIRK_FAR_BIT  50 /* some 13 days: an overflow of the guest's own */
#define SLEW_SHIFT     10 /* clocks of a host run apart by half a thousandth at most */

/* ---- pvclock ---- */

static void write_clock(struct vcpu *vcpu, const struct xen_place *place, unsigned off,
			struct pv_time_info info)
{
	uint8_t *p;
	uint32_t version;

	vm_slots_claim(vcpu->vm);
	p = xen_pointer(vcpu->vm, place, off, sizeof(info));
	if (p && host_load_32(p, &version)) {
		info.version = (version + 1) | 1;
		if (host_store_32(p, info.version) && host_copy_guarded(p, &info, sizeof(info)))
			host_store_32(p, info.version + 1);
		if (!place->by_hva)
			vm_mark_dirty(vcpu->vm, place->addr);
	}
	vm_slots_unclaim(vcpu->vm);
}

void pv_xen_clock_update(struct vcpu *vcpu, const struct pv_time_info *info)
{
	const struct xen *xen = xen_of(vcpu);
	struct pv_time_info shown = *info;

	if (xen_vm_of(vcpu->vm)->config.flags & KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE)
		shown.flags &= ~PV_TIME_TSC_STABLE;
	if (xen->info.active)
		write_clock(vcpu, &xen->info, XEN_INFO_TIME, shown);
	if (xen->time_info.active)
		write_clock(vcpu, &xen->time_info, 0, shown);
}

/* Leaf 3: 1 has the multiplier and shift, 2 the TSC's kHz. */
void pv_xen_cpuid(const struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	const struct xen *xen = xen_of(vcpu);
	struct pv_time_info info;

	if (!xen->cpuid_base || leaf != xen->cpuid_base + 3 || leaf > xen->cpuid_limit)
		return;
	pv_clock_info(vcpu, &info);
	if (subleaf == 1) {
		r[2] = info.tsc_to_system_mul;
		r[3] = (uint32_t)(int32_t)info.tsc_shift;
	} else if (subleaf == 2) {
		r[0] = vcpu->tsc_khz;
	}
}

/* ---- timer ---- */

static void timer_fired(struct vcpu *vcpu)
{
	struct xen *xen = xen_of(vcpu);
	struct kvm_irq_routing_xen_evtchn e = {
		.vcpu = vcpu->id,
		.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL,
	};

	vm_slots_claim(vcpu->vm);
	e.port = xen->timer_port;
	xen->timer_expiry = 0;
	vm_slots_unclaim(vcpu->vm);
	pv_xen_set_evtchn(vcpu->vm, &e);
}

/* kvmclock's time until the timer's; 0 or less: it is over. */
static int64_t timer_left(struct vcpu *vcpu)
{
	uint64_t expiry;

	vm_slots_claim(vcpu->vm);
	expiry = xen_of(vcpu)->timer_expiry;
	vm_slots_unclaim(vcpu->vm);
	return expiry - clock_kvmclock_ns(vcpu->vm);
}

/* NTP may have let the host's clock, by which was waited, run faster than kvmclock. */
static void timer_expired(struct service_timer *timer)
{
	struct xen *xen = container_of(timer, struct xen, timer);
	struct vm *vm = xen->vcpu->vm;
	int64_t left = timer_left(xen->vcpu);

	if (left > 0 && left <= xen->timer_slack)
		service_timer_arm(vm->service, timer, clock_monotonic_ns(vm) + left);
	else
		timer_fired(xen->vcpu);
}

static void poll_expired(struct service_timer *timer)
{
	xen_wake(container_of(timer, struct xen, poll_timer)->vcpu);
}

void xen_timers_init(struct vcpu *vcpu)
{
	xen_of(vcpu)->timer.expire = timer_expired;
	xen_of(vcpu)->poll_timer.expire = poll_expired;
}

static void set_expiry(struct vcpu *vcpu, uint64_t expiry)
{
	vm_slots_claim(vcpu->vm);
	xen_of(vcpu)->timer_expiry = expiry;
	vm_slots_unclaim(vcpu->vm);
}

/* expiry: kvmclock ns. linux_quirk: Xen's answer to times that only an overflow can have made. */
void xen_timer_start(struct vcpu *vcpu, uint64_t expiry, bool linux_quirk)
{
	struct vm *vm = vcpu->vm;
	uint64_t now = clock_kvmclock_ns(vm), mono = clock_monotonic_ns(vm);
	int64_t delta = expiry - now;

	if (linux_quirk &&
	    ((int64_t)expiry < 0 || (delta > 0 && (uint32_t)(delta >> QUIRK_FAR_BIT)))) {
		delta = QUIRK_DELAY_NS;
		expiry = now + delta;
	}
	service_timer_stop(vm->service, &xen_of(vcpu)->timer);
	set_expiry(vcpu, expiry);
	xen_of(vcpu)->timer_slack = delta >> SLEW_SHIFT;
	if (delta <= 0)
		timer_fired(vcpu);
	else
		service_timer_arm(vm->service, &xen_of(vcpu)->timer, mono + delta);
}

void xen_timer_stop(struct vcpu *vcpu)
{
	service_timer_stop(vcpu->vm->service, &xen_of(vcpu)->timer);
	set_expiry(vcpu, 0);
}

/* ---- run states ---- */

static bool store(struct vcpu *vcpu, unsigned off, const void *from, unsigned size)
{
	return !vm_write_guest(vcpu->vm, xen_of(vcpu)->runstate.addr + off, from, size);
}

/* The byte that has the update bit. */
static void store_mark(struct vcpu *vcpu, uint64_t entry)
{
	unsigned off = xen_layout(vcpu->vm)->runstate_pad + sizeof(entry) - 1;
	uint8_t top = entry >> 56;

	if (xen_vm_of(vcpu->vm)->runstate_update_flag)
		store(vcpu, off, &top, sizeof(top));
}

/* Both pages must be there, or nothing is written. */
static bool runstate_mapped(const struct vcpu *vcpu)
{
	gpa_t first = xen_of(vcpu)->runstate.addr;
	gpa_t last = first + xen_layout(vcpu->vm)->runstate - 1;

	return vm_hva_writable(vcpu->vm, first, 1) && vm_hva_writable(vcpu->vm, last, 1);
}

void xen_runstate_show(struct vcpu *vcpu)
{
	const struct xen *xen = xen_of(vcpu);
	unsigned at = xen_layout(vcpu->vm)->runstate_pad;
	uint64_t entry = xen->state_entry;

	if (!xen->runstate.active || !runstate_mapped(vcpu))
		return;
	if (xen_vm_of(vcpu->vm)->runstate_update_flag)
		entry |= XEN_RUNSTATE_UPDATE;
	store_mark(vcpu, entry);
	store(vcpu, 0, &xen->state, sizeof(xen->state));
	store(vcpu, at, &entry, sizeof(entry));
	store(vcpu, at + sizeof(entry), xen->times, sizeof(xen->times));
	store_mark(vcpu, entry & ~XEN_RUNSTATE_UPDATE);
}

void xen_runstate_set(struct vcpu *vcpu, uint32_t state)
{
	struct xen *xen = xen_of(vcpu);
	uint64_t now = clock_kvmclock_ns(vcpu->vm), delay = pv_run_delay(vcpu);
	uint64_t delta = now - xen->state_entry;

	if (!xen->state_entry)
		xen->state = XEN_OFFLINE;
	/* Waiting is not stolen from a vCPU that did not run. */
	if (xen->state == XEN_RUNNING) {
		uint64_t steal = delay > xen->last_delay ? delay - xen->last_delay : 0;

		steal = min(steal, delta);
		delta -= steal;
		xen->times[XEN_RUNNABLE] += steal;
	}
	xen->last_delay = delay;
	xen->times[xen->state] += delta;
	xen->state = state;
	xen->state_entry = now;
	xen_runstate_show(vcpu);
}

bool pv_xen_entered(struct vcpu *vcpu)
{
	if (!__atomic_load_n(&xen_vm_of(vcpu->vm)->config.msr, __ATOMIC_RELAXED))
		return false;
	xen_runstate_set(vcpu, XEN_RUNNING);
	return true;
}
