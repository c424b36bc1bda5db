/* SPDX-License-Identifier: MIT */
/*
 * Xen's hypercalls: those that are fast here if the program set up what they need, by table; all others leave with
 * KVM_EXIT_XEN. Arguments in memory are at virtual addresses of the guest kernel's.
 */
#include "kvm/pv/hv.h"
#include "kvm/pv/xen_internal.h"
#include "silicon/mmu/mmu.h"

#include <errno.h>
#include <string.h>

#define HV_MARK 0x80000000 /* in EAX: Hyper-V's hypercall, not Xen's */

struct xen_call {
	bool long_mode;
	uint64_t number, arg[6];
};

/* ---- guest virtual memory, as the kernel reads it ---- */

static bool read_virt(struct vcpu *vcpu, gva_t addr, void *dst, size_t size)
{
	uint8_t *to = dst;

	while (size) {
		size_t part = min(size, (size_t)(PAGE_SIZE - (addr & ~PAGE_MASK)));
		uint32_t flags;
		gpa_t gpa;

		if (!mmu_translate_debug(&vcpu->cpu, addr, &gpa, &flags) ||
		    vm_read_guest(vcpu->vm, gpa, to, part))
			return false;
		addr += part;
		to += part;
		size -= part;
	}
	return true;
}

/* ---- calls: false: user space's ---- */

static bool version_call(struct vcpu *vcpu, const struct xen_call *c, int64_t *ret)
{
	uint32_t version = xen_vm_of(vcpu->vm)->version;

	*ret = version;
	return c->arg[0] == XEN_VERSION_VERSION && version;
}

static bool evtchn_call(struct vcpu *vcpu, const struct xen_call *c, int64_t *ret)
{
	uint32_t port;

	if (c->arg[0] != XEN_EVTCHN_SEND)
		return false;
	*ret = -EFAULT;
	if (!read_virt(vcpu, c->arg[1], &port, sizeof(port)))
		return true;
	*ret = 0;
	return xen_ports_send(vcpu->vm, port);
}

/* ---- SCHEDOP_poll ---- */

struct poll {
	uint64_t ports; /* virtual address */
	uint32_t nr;
	uint64_t timeout;
	uint32_t port[XEN_MAX_POLL_PORTS];
};

static bool read_poll(struct vcpu *vcpu, const struct xen_call *c, struct poll *ret)
{
	struct {
		uint64_t ports;
		uint32_t nr, pad;
		uint64_t timeout;
	} wide;
	struct {
		uint32_t ports, nr;
		uint64_t timeout;
	} narrow;

	if (c->long_mode) {
		if (!read_virt(vcpu, c->arg[1], &wide, sizeof(wide)))
			return false;
		ret->ports = wide.ports;
		ret->nr = wide.nr;
		ret->timeout = wide.timeout;
		return true;
	}
	if (!read_virt(vcpu, c->arg[1], &narrow, sizeof(narrow)))
		return false;
	ret->ports = narrow.ports;
	ret->nr = narrow.nr;
	ret->timeout = narrow.timeout;
	return true;
}

static int read_ports(struct vcpu *vcpu, const struct xen_call *c, struct poll *ret)
{
	if (!read_poll(vcpu, c, ret))
		return -EFAULT;
	if (ret->nr > XEN_MAX_POLL_PORTS)
		return -EINVAL;
	if (!read_virt(vcpu, ret->ports, ret->port, ret->nr * sizeof(ret->port[0])))
		return -EFAULT;
	for (unsigned i = 0; i < ret->nr; i++)
		if (ret->port[i] >= xen_layout(vcpu->vm)->ports)
			return -EINVAL;
	return 0;
}

/* Claim held. Shared info that is not there never makes anybody wait. */
static bool any_pending(const struct vm *vm, const struct poll *poll)
{
	const struct xen_layout *at = xen_layout(vm);
	const uint8_t *shared = xen_pointer(vm, &xen_vm_of(vm)->shared_info, 0, PAGE_SIZE);

	if (!shared)
		return true;
	for (unsigned i = 0; i < poll->nr; i++)
		if (xen_test_bit(shared + at->pending, poll->port[i]))
			return true;
	return false;
}

/* The vCPU sleeps as in HLT once the hypercall has retired; an event, the time or an interrupt ends it. */
static void sleep_for(struct vcpu *vcpu, const struct poll *poll)
{
	struct vm *vm = vcpu->vm;
	struct xen *xen = xen_of(vcpu);

	vm_slots_claim(vm);
	xen->poll_port = poll->nr == 1 ? (int64_t)poll->port[0] : -1;
	xen->polling = !any_pending(vm, poll);
	vm_slots_unclaim(vm);
	if (!xen->polling)
		return;
	if (poll->timeout)
		service_timer_arm(vm->service, &xen->poll_timer,
				  clock_monotonic_ns(vm) +
					  min(poll->timeout, (uint64_t)INT64_MAX / 2));
	vcpu->mp_state = KVM_MP_STATE_HALTED;
	vcpu->leave = true;
	cpu_raise(&vcpu->cpu, ATTN_REQUEST);
}

static bool poll_call(struct vcpu *vcpu, const struct xen_call *c, int64_t *ret)
{
	struct poll poll;

	if (!vcpu->lapic || !(xen_vm_of(vcpu->vm)->config.flags & KVM_XEN_HVM_CONFIG_EVTCHN_SEND))
		return false;
	*ret = read_ports(vcpu, c, &poll);
	if (!*ret)
		sleep_for(vcpu, &poll);
	return true;
}

/* Who cannot poll here yields, which is allowed: the guest looks again. */
static bool sched_call(struct vcpu *vcpu, const struct xen_call *c, int64_t *ret)
{
	if (c->arg[0] == XEN_SCHED_POLL && poll_call(vcpu, c, ret))
		return true;
	if (c->arg[0] != XEN_SCHED_POLL && c->arg[0] != XEN_SCHED_YIELD)
		return false;
	vcpu_on_spin(vcpu);
	*ret = 0;
	return true;
}

/* ---- timers ---- */

static bool vcpu_call(struct vcpu *vcpu, const struct xen_call *c, int64_t *ret)
{
	const struct xen *xen = xen_of(vcpu);
	struct {
		uint64_t timeout;
		uint32_t flags, pad;
	} oneshot;
	bool set = c->arg[0] == XEN_VCPU_SET_SINGLESHOT;

	if (!xen->timer_port || (!set && c->arg[0] != XEN_VCPU_STOP_SINGLESHOT))
		return false;
	*ret = 0;
	if (xen->vcpu_id != (uint32_t)c->arg[1])
		*ret = -EINVAL;
	else if (!set)
		xen_timer_stop(vcpu);
	else if (!read_virt(vcpu, c->arg[2], &oneshot, c->long_mode ? 16 : 12))
		*ret = -EFAULT;
	else
		xen_timer_start(vcpu, oneshot.timeout, false);
	return true;
}

static bool timer_call(struct vcpu *vcpu, const struct xen_call *c, int64_t *ret)
{
	uint64_t timeout = c->arg[0];

	if (!xen_of(vcpu)->timer_port)
		return false;
	if (!c->long_mode)
		timeout |= c->arg[1] << 32;
	if (timeout)
		xen_timer_start(vcpu, timeout, true);
	else
		xen_timer_stop(vcpu);
	*ret = 0;
	return true;
}

/* ---- dispatch ---- */

static const struct {
	uint32_t number;
	bool (*call)(struct vcpu *vcpu, const struct xen_call *c, int64_t *ret);
} calls[] = {
	{XEN_CALL_SET_TIMER, timer_call},      {XEN_CALL_VERSION, version_call},
	{XEN_CALL_VCPU_OP, vcpu_call},	       {XEN_CALL_SCHED_OP, sched_call},
	{XEN_CALL_EVENT_CHANNEL, evtchn_call},
};

static void read_call(const struct vcpu *vcpu, struct xen_call *ret)
{
	static const uint8_t wide[6] = {RDI, RSI, RDX, R10, R8, R9};
	static const uint8_t narrow[6] = {RBX, RCX, RDX, RSI, RDI, RBP};
	const struct cpu *cpu = &vcpu->cpu;

	ret->long_mode = pv_hypercall_64bit(vcpu);
	ret->number = ret->long_mode ? cpu->gpr[RAX] : (uint32_t)cpu->gpr[RAX];
	for (unsigned i = 0; i < 6; i++)
		ret->arg[i] = ret->long_mode ? cpu->gpr[wide[i]] : (uint32_t)cpu->gpr[narrow[i]];
}

/* Guest user space is served by the program only. */
static bool handled(struct vcpu *vcpu, const struct xen_call *c, int64_t *ret)
{
	if (vcpu->cpu.mode.cpl)
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i].number == c->number)
			return calls[i].call(vcpu, c, ret);
	return false;
}

static enum platform_answer to_user(struct vcpu *vcpu, const struct xen_call *c)
{
	struct pv_exit *exit = &vcpu->pv->exit;

	*exit = (struct pv_exit){.reason = KVM_EXIT_XEN};
	exit->xen.type = KVM_EXIT_XEN_HCALL;
	exit->xen.u.hcall.longmode = c->long_mode;
	exit->xen.u.hcall.cpl = vcpu->cpu.mode.cpl;
	exit->xen.u.hcall.input = c->number;
	memcpy(exit->xen.u.hcall.params, c->arg, sizeof(c->arg));
	return PLATFORM_USER;
}

enum platform_answer pv_xen_call(struct vcpu *vcpu, uint64_t *ret)
{
	struct xen_call call;
	int64_t r = -ENOSYS;

	if (vcpu->cpu.gpr[RAX] & HV_MARK && pv_hv_calls_enabled(vcpu))
		return pv_hv_call(vcpu, ret);
	read_call(vcpu, &call);
	if (!handled(vcpu, &call, &r))
		return to_user(vcpu, &call);
	stats_add(vcpu->stats, STAT_VCPU_hypercalls, 1);
	*ret = r;
	return PLATFORM_DONE;
}
