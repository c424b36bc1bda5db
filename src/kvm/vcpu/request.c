/* SPDX-License-Identifier: MIT */
/*
 * How other threads reach a vCPU: a request bit, then a kick. The vCPU serves requests at
 * safepoints: between two instructions, before blocking and at KVM_RUN's entry.
 *
 * Publishing a new array of slots waits for a safepoint of every vCPU that may still hold the old one:
 * one that is VCPU_INSIDE. Both sides store, then load, sequentially consistent:
 *   the waiter: request bit, kick; then reads ->running
 *   the vCPU:   ->running = VCPU_INSIDE; then reads ->requests
 * so either the waiter sees that the vCPU is inside and waits for its bit, or the vCPU sees the bit before
 * it reads anything published. ->serving covers the time between taking bits and having served them.
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/pv/hv.h"
#include "kvm/pv/pv.h"
#include "kvm/pv/xen.h"
#include "silicon/mmu/mmu.h"

#include <errno.h>

/*
 * The vCPU whose KVM_RUN this thread is in, for the handlers of signals: the one thing that is
 * keyed by thread (decisions), because a signal is. initial-exec: no lazy allocation in a handler.
 */
static __thread struct vcpu *current_vcpu __attribute__((tls_model("initial-exec")));

void vcpu_set_current(struct vcpu *vcpu)
{
	__atomic_store_n(&current_vcpu, vcpu, __ATOMIC_SEQ_CST);
}

__in_handler struct vcpu *vcpu_current(void)
{
	return __atomic_load_n(&current_vcpu, __ATOMIC_SEQ_CST);
}

__in_handler bool vcpu_run_interrupted(void)
{
	struct vcpu *vcpu = vcpu_current();

	if (!vcpu)
		return false;
	__atomic_store_n(&vcpu->signal_pending, true, __ATOMIC_SEQ_CST);
	__atomic_store_n(&vcpu->kicked, 1, __ATOMIC_SEQ_CST);
	if (!vcpu->vm->turns)
		cpu_raise(&vcpu->cpu, ATTN_REQUEST);
	return true;
}

/* What other threads want of a vCPU in its turn comes when that is over: at a place that the guest decides. */
static bool deferred(const struct vcpu *vcpu)
{
	return vcpu_turn_holds(vcpu) && vcpu_current() != vcpu;
}

static void kick(struct vcpu *vcpu)
{
	__atomic_store_n(&vcpu->kicked, 1, __ATOMIC_SEQ_CST);
	if (!unlikely(vcpu->vm->turns) || !deferred(vcpu))
		cpu_raise(&vcpu->cpu, ATTN_REQUEST);
	if (__atomic_load_n(&vcpu->running, __ATOMIC_SEQ_CST) == VCPU_BLOCKED)
		host_futex_wake(&vcpu->kicked, 1);
}

void vcpu_kick(struct vcpu *vcpu)
{
	if (unlikely(vcpu->vm->turns))
		vcpu_turn_wake(vcpu, BIT(REQ_EVENT));
	kick(vcpu);
}

static void request(struct vcpu *vcpu, enum vcpu_request req)
{
	__atomic_fetch_or(&vcpu->requests, BIT(req), __ATOMIC_SEQ_CST);
	if (unlikely(vcpu->vm->turns))
		vcpu_turn_wake(vcpu, BIT(req));
	kick(vcpu);
}

void vcpu_request(struct vcpu *vcpu, enum vcpu_request req)
{
	if (req != REQ_TIMER)
		cpu_tell(&vcpu->cpu);
	request(vcpu, req);
}

void vcpu_request_own(struct vcpu *vcpu, enum vcpu_request req)
{
	request(vcpu, req);
}

bool vcpu_test_request(const struct vcpu *vcpu, enum vcpu_request req)
{
	return __atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) & BIT(req);
}

void vcpu_clear_request(struct vcpu *vcpu, enum vcpu_request req)
{
	__atomic_fetch_and(&vcpu->requests, ~BIT(req), __ATOMIC_SEQ_CST);
}

bool vcpu_take_request(struct vcpu *vcpu, enum vcpu_request req)
{
	return vcpu_test_request(vcpu, req) &&
	       __atomic_fetch_and(&vcpu->requests, ~BIT(req), __ATOMIC_SEQ_CST) & BIT(req);
}

/* ---- safepoints ---- */

static void pass_safepoint(struct vcpu *vcpu)
{
	__atomic_fetch_add(&vcpu->safepoint, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&vcpu->safepoint_waiters, __ATOMIC_SEQ_CST))
		host_futex_wake(&vcpu->safepoint, INT32_MAX);
}

void vcpu_set_state(struct vcpu *vcpu, enum vcpu_running state)
{
	uint32_t old = __atomic_exchange_n(&vcpu->running, state, __ATOMIC_SEQ_CST);

	if (old == VCPU_INSIDE)
		pass_safepoint(vcpu);
}

void vcpu_set_running(struct vcpu *vcpu, enum vcpu_running state)
{
	vcpu_set_state(vcpu, state);
	if (state == VCPU_INSIDE)
		vcpu_let_alone(vcpu);
}

static bool passed(struct vcpu *vcpu, enum vcpu_request req)
{
	if (__atomic_load_n(&vcpu->running, __ATOMIC_SEQ_CST) != VCPU_INSIDE)
		return true;
	return !vcpu_test_request(vcpu, req) && !__atomic_load_n(&vcpu->serving, __ATOMIC_SEQ_CST);
}

/*
 * Between two instructions there is no wait that long, but an access may wait for the thread that
 * calls here (userfaultfd): it is told to give up until it has passed the safepoint. Rather late, for it may
 * only be waiting for a CPU.
 */
#define PATIENCE_NS 30000000

static void wait_safepoint(struct vcpu *vcpu, enum vcpu_request req)
{
	__atomic_fetch_add(&vcpu->safepoint_waiters, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		uint32_t seen = __atomic_load_n(&vcpu->safepoint, __ATOMIC_SEQ_CST);

		if (passed(vcpu, req))
			break;
		if (host_futex_wait(&vcpu->safepoint, seen, PATIENCE_NS) == -ETIMEDOUT &&
		    !passed(vcpu, req))
			host_restart_send(vcpu_tid(vcpu));
	}
	__atomic_fetch_sub(&vcpu->safepoint_waiters, 1, __ATOMIC_SEQ_CST);
}

void vcpu_request_wait(struct vcpu *vcpu, enum vcpu_request req)
{
	vcpu_request(vcpu, req);
	wait_safepoint(vcpu, req);
}

void vcpu_request_all(struct vm *vm, enum vcpu_request req, bool wait)
{
	unsigned nr = vm_nr_vcpus(vm);

	for (unsigned i = 0; i < nr; i++)
		vcpu_request(vm->vcpus[i], req);
	for (unsigned i = 0; wait && i < nr; i++)
		wait_safepoint(vm->vcpus[i], req);
}

/* As one who waits for an event: two that wait for each other find the other one waiting. */
void vcpu_wait_flushed(struct vcpu *vcpu)
{
	unsigned nr = vm_nr_vcpus(vcpu->vm);

	vcpu->wait_flush = false;
	vcpu_set_running(vcpu, VCPU_BLOCKED);
	for (unsigned i = 0; i < nr; i++)
		if (vcpu->vm->vcpus[i] != vcpu)
			wait_safepoint(vcpu->vm->vcpus[i], REQ_HV_FLUSH);
	vcpu_set_running(vcpu, VCPU_INSIDE);
}

/* ---- serving ---- */

static void serve_flush(struct vcpu *vcpu)
{
	vcpu_count(vcpu, tlb_flush);
	mmu_flush_all(&vcpu->cpu);
}

static void serve_flush_writes(struct vcpu *vcpu)
{
	mmu_flush_writes(&vcpu->cpu);
}

static void serve_event(struct vcpu *vcpu)
{
	vcpu_count(vcpu, req_event);
	cpu_raise(&vcpu->cpu, ATTN_EVENTS);
}

static void serve_nmi(struct vcpu *vcpu)
{
	vcpu->cpu.nmi_pending = true;
	cpu_update_attention(&vcpu->cpu);
}

static void serve_smi(struct vcpu *vcpu)
{
	vcpu->cpu.smi_pending = true;
	cpu_update_attention(&vcpu->cpu);
}

static void serve_clock(struct vcpu *vcpu)
{
	pv_clock_update(vcpu);
}

static void serve_timer(struct vcpu *vcpu)
{
	if (vcpu->lapic)
		lapic_timer_fire(vcpu->lapic);
}

static void serve_unhalt(struct vcpu *vcpu)
{
	vcpu->unhalted = true;
}

/* Outside of guest mode it is nothing: VMRUN looks by itself. */
static void serve_doorbell(struct vcpu *vcpu)
{
	if (cpu_guest(&vcpu->cpu))
		cpu_raise(&vcpu->cpu, ATTN_VIRT);
}

/* Without a function: nothing to do but look up, or the run loop's to take. */
static void (*const serve[64])(struct vcpu *vcpu) = {
	[REQ_FLUSH] = serve_flush,	  [REQ_FLUSH_WRITES] = serve_flush_writes,
	[REQ_EVENT] = serve_event,	  [REQ_NMI] = serve_nmi,
	[REQ_CLOCK_UPDATE] = serve_clock, [REQ_TIMER] = serve_timer,
	[REQ_UNHALT] = serve_unhalt,	  [REQ_SMI] = serve_smi,
	[REQ_STEAL] = pv_steal_update,	  [REQ_APF] = pv_apf_ready,
	[REQ_HV_FLUSH] = pv_hv_flush,	  [REQ_HV_STIMER] = pv_hv_stimers,
	[REQ_DOORBELL] = serve_doorbell,  [REQ_XEN] = pv_xen_serve,
	[REQ_ALONE] = vcpu_let_alone,
};

#define REQS_FLUSH (BIT(REQ_FLUSH) | BIT(REQ_FLUSH_WRITES) | BIT(REQ_HV_FLUSH))

void vcpu_catch_up(struct vcpu *vcpu)
{
	uint32_t serving = vcpu->serving;
	uint64_t taken;

	if (!(__atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) & REQS_FLUSH))
		return;
	__atomic_store_n(&vcpu->serving, 1, __ATOMIC_SEQ_CST);
	taken = __atomic_fetch_and(&vcpu->requests, ~REQS_FLUSH, __ATOMIC_SEQ_CST) & REQS_FLUSH;
	for (; taken; taken &= taken - 1)
		serve[__builtin_ctzll(taken)](vcpu);
	__atomic_store_n(&vcpu->serving, serving, __ATOMIC_SEQ_CST);
	pass_safepoint(vcpu);
}

/* Left for the run loop, which takes them one by one. */
#define REQS_EXIT                                                                            \
	(BIT(REQ_INIT) | BIT(REQ_SIPI) | BIT(REQ_TRIPLE_FAULT) | BIT(REQ_TPR_REPORT) |       \
	 BIT(REQ_TPR_LOWERED) | BIT(REQ_IOAPIC_EOI) | BIT(REQ_VM_DEAD) | BIT(REQ_HV_CRASH) | \
	 BIT(REQ_HV_RESET) | BIT(REQ_HV_EXIT) | BIT(REQ_RING_FULL) | BIT(REQ_HV_TRAP) |      \
	 BIT(REQ_NESTED))

static bool service_ends(struct vcpu *vcpu, bool leave)
{
	leave |= vcpu->leave || vcpu_signalled(vcpu) || vcpu_watch_changed(vcpu);
	vcpu->leave = false;
	return leave;
}

/* Who raises a request now raises attention behind it, and that is seen. */
static bool nothing_asked(const struct vcpu *vcpu)
{
	return !__atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) &&
	       !(__atomic_load_n(&vcpu->cpu.attention, __ATOMIC_SEQ_CST) & ATTN_REQUEST);
}

bool vcpu_service(struct vcpu *vcpu)
{
	uint64_t taken;
	bool leave;

	if (nothing_asked(vcpu))
		return service_ends(vcpu, false);

	cpu_lower(&vcpu->cpu, ATTN_REQUEST);
	__atomic_store_n(&vcpu->serving, 1, __ATOMIC_SEQ_CST);
	taken = __atomic_fetch_and(&vcpu->requests, REQS_EXIT, __ATOMIC_SEQ_CST);
	leave = taken & REQS_EXIT;
	for (uint64_t left = taken & ~REQS_EXIT; left; left &= left - 1) {
		unsigned req = __builtin_ctzll(left);

		if (serve[req])
			serve[req](vcpu);
	}
	__atomic_store_n(&vcpu->serving, 0, __ATOMIC_SEQ_CST);
	/* Even with nothing taken: a waiter may have gone to sleep because it saw ->serving. */
	pass_safepoint(vcpu);
	return service_ends(vcpu, leave);
}
