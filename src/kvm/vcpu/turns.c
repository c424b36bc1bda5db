/* SPDX-License-Identifier: MIT */
/*
 * Turns: which vCPU of a deterministic VM runs, and for how many instructions (docs/deterministic.md).
 *
 * Exactly one vCPU holds the turn, or none does while all halt and no timer is armed. The holder's thread alone draws,
 * makes time go on, expires timers and passes the turn on, so being the holder is the lock for all that; a vCPU that finds
 * nobody holding becomes the holder first. Whether a vCPU takes part depends on its state and on the requests made to it,
 * never on where its thread is.
 */
#include "host/host.h"
#include "kvm/pv/pv.h"
#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/vm/turns.h"
#include "silicon/exec/exec.h"

#include <errno.h>

#define SHORTEST_BITS 8 /* a turn's length: evenly by its logarithm, for races have all sizes */
#define LENGTHS	      9
#define LOOK_NS	      1000000000
#define PATIENCE      10	/* looks at a holder that is not in KVM_RUN */
#define NEWCOMER_NS   10000000u /* for one whose thread may be on its way */

/* Who halts is woken by these; who waits for INIT or SIPI, or for KVM_RUN, only by the latter two. */
#define REQS_START (BIT(REQ_INIT) | BIT(REQ_SIPI))
#define REQS_WAKE                                                                      \
	(REQS_START | BIT(REQ_EVENT) | BIT(REQ_NMI) | BIT(REQ_SMI) | BIT(REQ_UNHALT) | \
	 BIT(REQ_TRIPLE_FAULT) | BIT(REQ_TIMER) | BIT(REQ_APF) | BIT(REQ_HV_STIMER) |  \
	 BIT(REQ_HV_CRASH) | BIT(REQ_HV_RESET) | BIT(REQ_HV_EXIT) | BIT(REQ_XEN) |     \
	 BIT(REQ_VM_DEAD))

/* Steele, Lea and Flood's SplitMix64. */
static uint64_t draw(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

uint64_t vcpu_turn_random(const struct vcpu *vcpu)
{
	uint64_t state = vcpu->vm->ops->seed ^ (uint64_t)(vcpu->id + 1) << 32;

	return draw(&state);
}

static uint64_t draw_length(struct turns *t)
{
	uint64_t r = draw(&t->random), shortest = BIT(SHORTEST_BITS + r % LENGTHS);

	return shortest + (r >> 32) % shortest;
}

/* ---- who is ready ---- */

static bool ready(const struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->turn, __ATOMIC_SEQ_CST) == TURN_READY;
}

static void set_turn(struct vcpu *vcpu, enum vcpu_turn turn)
{
	__atomic_store_n(&vcpu->turn, turn, __ATOMIC_SEQ_CST);
}

static unsigned nr_ready(const struct vm *vm)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < vm_nr_vcpus(vm); i++)
		nr += ready(vm->vcpus[i]);
	return nr;
}

static struct vcpu *choose(struct vm *vm)
{
	unsigned nr = nr_ready(vm), nth = nr ? draw(&vm->turns->random) % nr : 0;

	for (unsigned i = 0; nr && i < vm_nr_vcpus(vm); i++)
		if (ready(vm->vcpus[i]) && !nth--)
			return vm->vcpus[i];
	return NULL;
}

/* ---- who holds the turn ---- */

static uint32_t holder(const struct vm *vm)
{
	return __atomic_load_n(&vm->turns->holder, __ATOMIC_SEQ_CST);
}

static void set_holder(struct vm *vm, uint32_t who)
{
	__atomic_store_n(&vm->turns->holder, who, __ATOMIC_SEQ_CST);
}

static bool replace_holder(struct vm *vm, uint32_t who, const struct vcpu *vcpu)
{
	return __atomic_compare_exchange_n(&vm->turns->holder, &who, vcpu->index + 1, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

bool vcpu_turn_holds(const struct vcpu *vcpu)
{
	return holder(vcpu->vm) == vcpu->index + 1;
}

static void wake(struct vcpu *vcpu)
{
	__atomic_store_n(&vcpu->kicked, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&vcpu->running, __ATOMIC_SEQ_CST) == VCPU_BLOCKED)
		host_futex_wake(&vcpu->kicked, 1);
}

static void wake_all(struct vm *vm)
{
	for (unsigned i = 0; i < vm_nr_vcpus(vm); i++)
		wake(vm->vcpus[i]);
}

static void give(struct vm *vm, struct vcpu *next)
{
	vm->turns->end = clock_monotonic_ns(vm) + draw_length(vm->turns);
	clock_follow(vm, &next->cpu.retired);
	set_holder(vm, next->index + 1);
	wake(next);
}

/* Nobody is ready and time cannot go on, or not on this thread. False: it can, and the turn is this vCPU's still. */
static bool give_to_nobody(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;

	set_holder(vm, 0);
	if (vcpu_signalled(vcpu))
		wake_all(vm);
	return !nr_ready(vm) || !replace_holder(vm, 0, vcpu);
}

/* The holder's thread. */
static void pass_on(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	struct vcpu *next;
	uint64_t deadline;

	clock_follow(vm, NULL);
	for (;;) {
		service_expire(vm->service, clock_monotonic_ns(vm));
		next = choose(vm);
		if (next)
			break;
		deadline = service_next(vm->service);
		if (deadline != SERVICE_NEVER && !vcpu_signalled(vcpu))
			clock_jump(vm, deadline);
		else if (give_to_nobody(vcpu))
			return;
	}
	give(vm, next);
}

/* ---- waiting for it ---- */

/* While nobody holds the turn: somebody could. */
static bool can_go_on(struct vm *vm)
{
	return __atomic_load_n(&vm->turns->begun, __ATOMIC_SEQ_CST) &&
	       (nr_ready(vm) || service_next(vm->service) != SERVICE_NEVER);
}

static bool outside(const struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->running, __ATOMIC_SEQ_CST) == VCPU_OUTSIDE;
}

/* The holder did not come back. */
static void lose(struct vcpu *vcpu, struct vcpu *other)
{
	if (!replace_holder(vcpu->vm, other->index + 1, vcpu))
		return;
	host_log("vCPU %u has its turn and is not run: others go on, which may not be repeatable",
		 other->id);
	set_turn(other, TURN_OUT);
	pass_on(vcpu);
}

/* RUN_AGAIN: look again. */
static int await_other(struct vcpu *vcpu, struct vcpu *other, unsigned *looks)
{
	bool newcomer = !vcpu_tid(other);
	int r;

	if (outside(other) && vcpu_tid(other) == vcpu->tid)
		return -EINTR;
	r = host_futex_wait(&vcpu->kicked, 0, newcomer ? NEWCOMER_NS : LOOK_NS);
	if (r != -ETIMEDOUT)
		return RUN_AGAIN;
	if (newcomer)
		return holder(vcpu->vm) == other->index + 1 && outside(other) ? -EINTR : RUN_AGAIN;
	*looks = outside(other) ? *looks + 1 : 0;
	if (*looks == PATIENCE)
		lose(vcpu, other);
	return RUN_AGAIN;
}

static int await_once(struct vcpu *vcpu, unsigned *looks)
{
	struct vm *vm = vcpu->vm;
	uint32_t who;

	__atomic_store_n(&vcpu->kicked, 0, __ATOMIC_SEQ_CST);
	who = holder(vm);
	if (who == vcpu->index + 1)
		return RUN_AGAIN;
	if (vcpu_signalled(vcpu))
		return -EINTR;
	if (who)
		return await_other(vcpu, vm->vcpus[who - 1], looks);
	if (!can_go_on(vm))
		host_futex_wait(&vcpu->kicked, 0, 0);
	else if (replace_holder(vm, 0, vcpu))
		pass_on(vcpu);
	return RUN_AGAIN;
}

static int await(struct vcpu *vcpu)
{
	unsigned looks = 0;
	int r = RUN_AGAIN;

	if (vcpu_turn_holds(vcpu))
		return RUN_AGAIN;
	vcpu_set_running(vcpu, VCPU_BLOCKED);
	while (r == RUN_AGAIN && !vcpu_turn_holds(vcpu))
		r = await_once(vcpu, &looks);
	vcpu_set_running(vcpu, VCPU_INSIDE);
	return r;
}

/* ---- for the run loop ---- */

static void set_limit(struct vcpu *vcpu, uint64_t now)
{
	uint64_t until = min(vcpu->vm->turns->end, service_next(vcpu->vm->service));

	exec_set_limit(&vcpu->cpu, vcpu->cpu.retired + until - now);
}

int vcpu_turn(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	uint64_t now;
	int r;

	for (;;) {
		r = await(vcpu);
		if (r != RUN_AGAIN)
			return r;
		now = clock_monotonic_ns(vm);
		service_expire(vm->service, now);
		if (now < vm->turns->end)
			break;
		pass_on(vcpu);
	}
	set_limit(vcpu, now);
	if (vcpu->slept)
		pv_entered(vcpu);
	vcpu->slept = false;
	return RUN_AGAIN;
}

int vcpu_turn_enter(struct vcpu *vcpu)
{
	bool runs = vcpu->mp_state == KVM_MP_STATE_RUNNABLE && !vcpu->halted_in_guest;

	if (!ready(vcpu) && (runs || vcpu_has_wake_event(vcpu))) {
		set_turn(vcpu, TURN_READY);
		__atomic_store_n(&vcpu->vm->turns->begun, true, __ATOMIC_SEQ_CST);
	}
	return vcpu_turn(vcpu);
}

void vcpu_turn_block(struct vcpu *vcpu)
{
	bool halts = vcpu->mp_state == KVM_MP_STATE_HALTED || vcpu->halted_in_guest;
	uint64_t asked;

	set_turn(vcpu, halts ? TURN_HALTED : TURN_OUT);
	asked = __atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST);
	if (asked & (halts ? REQS_WAKE : REQS_START))
		set_turn(vcpu, TURN_READY);
	if (vcpu->mp_state == KVM_MP_STATE_HALTED)
		pv_steal_preempted(vcpu);
	vcpu->slept = true;
	pass_on(vcpu);
}

void vcpu_turn_leave(struct vcpu *vcpu)
{
	if (vcpu->run->exit_reason != KVM_EXIT_HLT || !vcpu_turn_holds(vcpu))
		return;
	set_turn(vcpu, TURN_OUT);
	pass_on(vcpu);
}

/* ---- any thread ---- */

void vcpu_turn_wake(struct vcpu *vcpu, uint64_t reqs)
{
	enum vcpu_turn turn = __atomic_load_n(&vcpu->turn, __ATOMIC_SEQ_CST);

	if (!(reqs & (turn == TURN_HALTED ? REQS_WAKE : REQS_START)))
		return;
	set_turn(vcpu, TURN_READY);
	if (!holder(vcpu->vm))
		wake_all(vcpu->vm);
}

void vcpu_turn_timer(struct vm *vm, uint64_t deadline)
{
	struct vcpu *vcpu = vcpu_current();
	uint64_t now, end;

	if (!holder(vm))
		wake_all(vm);
	if (!vcpu || vcpu->vm != vm || !vcpu_turn_holds(vcpu))
		return;
	now = clock_monotonic_ns(vm);
	end = max(vcpu->cpu.retired + (deadline > now ? deadline - now : 0), (uint64_t)1);
	if (end < vcpu->cpu.limit)
		exec_set_limit(&vcpu->cpu, end);
}
