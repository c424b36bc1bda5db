/* SPDX-License-Identifier: MIT */
/*
 * A vCPU that waits for another one lets it run: directed yields (KVM_HC_SCHED_YIELD, KVM_HC_KICK_CPU), and guests that spin.
 *
 * The kernel can give one thread the rest of another's time (yield_to()); a program cannot. What it has is the threads'
 * processor time: it stands still while the thread waits for a processor. So who is to run is known, and the processor is
 * yielded until that one did run, a few times at most. Nothing is done for who runs already, sleeps in HLT, or is outside
 * of KVM_RUN: Linux yields to none of these, either.
 *
 * Who spins picks the next one behind the last that was helped, as Linux does, but none that spins, too.
 */
#include "kvm/vcpu/vcpu_internal.h"

#include <sys/syscall.h>

#define TRIES	     4u	   /* each gives another thread of the processor its turn */
#define SPIN_CROWDED 64u   /* PAUSEs before others are let in, with fewer processors than vCPUs, */
#define SPIN_ALONE   2048u /* and otherwise, for the host may have other things to do */

static void yield(void)
{
	host_syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

static uint64_t thread_ns(const struct vcpu *vcpu)
{
	return host_thread_ns(vcpu_tid(vcpu));
}

/* In guest code, but its thread waits for a processor. *ret_ns: its processor time. */
static bool waits(const struct vcpu *vcpu, uint64_t *ret_ns)
{
	if (__atomic_load_n(&vcpu->running, __ATOMIC_RELAXED) != VCPU_INSIDE)
		return false;
	*ret_ns = thread_ns(vcpu);
	return *ret_ns && thread_ns(vcpu) == *ret_ns;
}

bool vcpu_yield_to(struct vcpu *vcpu, struct vcpu *to)
{
	uint64_t before;

	vcpu_count(vcpu, directed_yield_attempted);
	if (vcpu->vm->turns || !to || to == vcpu || !waits(to, &before))
		return false;
	for (unsigned i = 0; i < TRIES; i++) {
		yield();
		if (thread_ns(to) != before) {
			vcpu_count(vcpu, directed_yield_successful);
			return true;
		}
	}
	return false;
}

/* Yield to the first vCPU from here on that waits and does not spin. False: there is none. */
static bool help_one(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	unsigned nr = vm_nr_vcpus(vm);
	unsigned last = __atomic_load_n(&vm->last_helped, __ATOMIC_RELAXED);

	for (unsigned i = 1; i <= nr; i++) {
		struct vcpu *to = vm->vcpus[(last + i) % nr];
		uint64_t ns;

		if (to == vcpu || __atomic_load_n(&to->spinning, __ATOMIC_RELAXED) ||
		    !waits(to, &ns))
			continue;
		__atomic_store_n(&vm->last_helped, to->index, __ATOMIC_RELAXED);
		return vcpu_yield_to(vcpu, to);
	}
	return false;
}

void vcpu_on_spin(struct vcpu *vcpu)
{
	bool crowded = vm_nr_vcpus(vcpu->vm) > vcpu->vm->host_cpus;

	if (vcpu->vm->turns)
		return;
	__atomic_store_n(&vcpu->spinning, true, __ATOMIC_RELAXED);
	if (!crowded || !help_one(vcpu))
		yield();
	__atomic_store_n(&vcpu->spinning, false, __ATOMIC_RELAXED);
}

unsigned vcpu_spun(struct vcpu *vcpu)
{
	uint64_t disabled = __atomic_load_n(&vcpu->vm->disabled_exits, __ATOMIC_RELAXED);
	unsigned nr = vm_nr_vcpus(vcpu->vm);

	if (nr > 1 && !vcpu->vm->turns && !(disabled & KVM_X86_DISABLE_EXITS_PAUSE)) {
		vcpu_count(vcpu, spin_yields);
		vcpu_on_spin(vcpu);
	}
	return nr > vcpu->vm->host_cpus ? SPIN_CROWDED : SPIN_ALONE;
}
