/* SPDX-License-Identifier: MIT */
/*
 * Waiting: a halted vCPU polls for a while before its thread sleeps. One that spins is yield.c's.
 *
 * Polling is KVM's (Documentation/virt/kvm/halt-polling.rst): the time grows as long as events come soon, and shrinks when
 * they do not. It is for idle processors only: none is done if other vCPUs of the VM may want this one, and it ends when
 * the thread finds that it did not run for a moment. While polling a vCPU is no more inside than one that sleeps, but who
 * kicks it needs no system call.
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/pv/pv.h"
#include "silicon/exec/exec.h"

#define GAP_TICKS 50000u /* between two looks: something else ran here */

/* ---- how long to poll ---- */

static uint32_t max_poll_ns(const struct vcpu *vcpu)
{
	uint64_t own = __atomic_load_n(&vcpu->vm->halt_poll, __ATOMIC_RELAXED);

	return own & VM_HALT_POLL_SET ? (uint32_t)own : vcpu->vm->ops->params.halt_poll_ns;
}

static void grow(struct vcpu *vcpu)
{
	const struct vm_params *p = &vcpu->vm->ops->params;

	if (p->halt_poll_grow)
		vcpu->poll_ns = max(vcpu->poll_ns * p->halt_poll_grow, p->halt_poll_grow_start);
}

static void shrink(struct vcpu *vcpu)
{
	const struct vm_params *p = &vcpu->vm->ops->params;

	vcpu->poll_ns = p->halt_poll_shrink ? vcpu->poll_ns / p->halt_poll_shrink : 0;
	if (vcpu->poll_ns < p->halt_poll_grow_start)
		vcpu->poll_ns = 0;
}

/* After a halt of so many nanoseconds. */
static void adapt(struct vcpu *vcpu, uint64_t halt_ns)
{
	uint32_t most = max_poll_ns(vcpu);

	if (!most)
		vcpu->poll_ns = 0;
	else if (halt_ns <= vcpu->poll_ns)
		return;
	else if (vcpu->poll_ns && halt_ns > most)
		shrink(vcpu);
	else if (vcpu->poll_ns < most && halt_ns < most)
		grow(vcpu);
}

/* ---- polling ---- */

static bool awaited(struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->kicked, __ATOMIC_SEQ_CST) || vcpu_signalled(vcpu);
}

/* Others of the VM run guest code or poll on as many processors as there are. */
static bool crowded(const struct vcpu *vcpu)
{
	unsigned nr = vm_nr_vcpus(vcpu->vm), busy = 0;

	for (unsigned i = 0; i < nr && busy < vcpu->vm->host_cpus; i++) {
		uint32_t running = __atomic_load_n(&vcpu->vm->vcpus[i]->running, __ATOMIC_RELAXED);

		busy += vcpu->vm->vcpus[i] != vcpu &&
			(running == VCPU_INSIDE || running == VCPU_POLLING);
	}
	return busy >= vcpu->vm->host_cpus;
}

/* Until the event comes, ns are over or something else wants to run here. */
static void poll(struct vcpu *vcpu, uint64_t ns)
{
	uint64_t stop = host_monotonic_ns() + ns, before = host_rdtsc(), now = before;

	while (!awaited(vcpu) && now - before < GAP_TICKS && host_monotonic_ns() < stop) {
		__builtin_ia32_pause();
		before = now;
		now = host_rdtsc();
	}
}

static void count_poll(struct vcpu *vcpu, uint64_t ns, bool success)
{
	vcpu_count(vcpu, halt_attempted_poll);
	if (success)
		vcpu_count(vcpu, halt_successful_poll);
	stats_add(vcpu->stats,
		  success ? STAT_VCPU_halt_poll_success_ns : STAT_VCPU_halt_poll_fail_ns, ns);
}

/* ---- sleeping ---- */

/* A guest need not interrupt who sleeps to have its TLB flushed: it is told, and asks in memory. */
static void sleep_until_kicked(struct vcpu *vcpu)
{
	stats_set(vcpu->stats, STAT_VCPU_blocking, 1);
	if (vcpu->mp_state == KVM_MP_STATE_HALTED)
		pv_steal_preempted(vcpu);
	vcpu_set_running(vcpu, VCPU_BLOCKED);
	while (!awaited(vcpu))
		host_futex_wait(&vcpu->kicked, 0, exec_idle(&vcpu->cpu, host_monotonic_ns()));
	vcpu_set_running(vcpu, VCPU_INSIDE);
	stats_set(vcpu->stats, STAT_VCPU_blocking, 0);
	pv_entered(vcpu);
}

static void halt(struct vcpu *vcpu)
{
	uint64_t began = host_monotonic_ns(), polled = began, end;
	bool allowed = pv_poll_allowed(vcpu), waited;

	vcpu->poll_ns = min(vcpu->poll_ns, max_poll_ns(vcpu));
	if (allowed && vcpu->poll_ns && !crowded(vcpu)) {
		vcpu_set_running(vcpu, VCPU_POLLING);
		poll(vcpu, vcpu->poll_ns);
		polled = host_monotonic_ns();
		vcpu_set_running(vcpu, VCPU_INSIDE);
	}
	waited = !awaited(vcpu);
	if (waited)
		sleep_until_kicked(vcpu);
	end = host_monotonic_ns();
	if (polled != began)
		count_poll(vcpu, polled - began, !waited);
	if (waited) {
		vcpu_count(vcpu, halt_wakeup);
		stats_add(vcpu->stats, STAT_VCPU_halt_wait_ns, end - polled);
	}
	if (allowed)
		adapt(vcpu, end - began);
	if (unlikely(vcpu->watch.on))
		vcpu_watch_woken(vcpu, end - began);
}

void vcpu_block(struct vcpu *vcpu)
{
	vcpu_watch_stats(vcpu);
	if (vcpu->vm->turns)
		vcpu_turn_block(vcpu);
	else if (vcpu->mp_state == KVM_MP_STATE_HALTED)
		halt(vcpu);
	else
		sleep_until_kicked(vcpu);
}
