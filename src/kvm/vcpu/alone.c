/* SPDX-License-Identifier: MIT */
/*
 * One vCPU alone: while it makes an access that silicon would lock the bus for, no other runs guest code.
 *
 * ->alone of the VM holds who is. The others are asked by REQ_ALONE and wait at their safepoint as if they waited
 * for an event, and so does who comes back from waiting or enters KVM_RUN. Both sides store, then load:
 *   who wants to be alone: vm->alone, request; then reads ->running
 *   the others:            ->running = VCPU_INSIDE; then read vm->alone
 * A thread that runs no vCPU may hold all of them in the same way.
 * Who finds another one alone waits its turn in the same way, so that two never wait for each other.
 */
#include "kvm/vcpu/vcpu_internal.h"

#define NO_VCPU UINT32_MAX /* ->alone: a thread that runs none */

static uint32_t name_of(const struct vcpu *vcpu)
{
	return vcpu->id + 1;
}

void vcpu_let_alone(struct vcpu *vcpu)
{
	uint32_t *alone = &vcpu->vm->alone, who;

	while ((who = __atomic_load_n(alone, __ATOMIC_SEQ_CST)) && who != name_of(vcpu)) {
		vcpu_set_state(vcpu, VCPU_BLOCKED);
		host_futex_wait(alone, who, 0);
		vcpu_set_state(vcpu, VCPU_INSIDE);
	}
	vcpu_catch_up(vcpu);
}

static bool claim(struct vcpu *vcpu)
{
	uint32_t nobody = 0;

	return __atomic_compare_exchange_n(&vcpu->vm->alone, &nobody, name_of(vcpu), false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static void begin(struct vcpu *vcpu)
{
	unsigned nr = vm_nr_vcpus(vcpu->vm);

	while (!claim(vcpu))
		vcpu_let_alone(vcpu);
	for (unsigned i = 0; i < nr; i++)
		if (vcpu->vm->vcpus[i] != vcpu)
			vcpu_request_wait(vcpu->vm->vcpus[i], REQ_ALONE);
}

static void end(struct vm *vm)
{
	__atomic_store_n(&vm->alone, 0, __ATOMIC_SEQ_CST);
	host_futex_wake(&vm->alone, INT32_MAX);
}

void vcpu_alone(struct vcpu *vcpu, bool on)
{
	/* Nobody else runs in its turn. */
	if (vcpu->vm->turns)
		return;
	if (on && !vcpu->alone++)
		begin(vcpu);
	else if (!on && !--vcpu->alone)
		end(vcpu->vm);
}

void vcpu_hold_all(struct vm *vm, bool on)
{
	uint32_t who = 0;

	if (!on) {
		end(vm);
		return;
	}
	while (!__atomic_compare_exchange_n(&vm->alone, &who, NO_VCPU, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST)) {
		host_futex_wait(&vm->alone, who, 0);
		who = 0;
	}
	vcpu_request_all(vm, REQ_ALONE, true);
}
