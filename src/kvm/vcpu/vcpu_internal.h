/* SPDX-License-Identifier: MIT */
/* Private to kvm/vcpu. Everything here: vCPU thread, or vcpu->mutex held. */
#ifndef KVM_VCPU_VCPU_INTERNAL_H
#define KVM_VCPU_VCPU_INTERNAL_H

#include "kvm/vcpu/vcpu.h"
#include "kvm/vm/clock.h"
#include "kvm/vm/ioctl.h"
#include "silicon/models/model.h"

/* What a step of KVM_RUN says; < 0 is -errno for the program. */
enum run_result {
	RUN_EXIT = 0,  /* kvm_run is filled in: back to the program */
	RUN_AGAIN = 1, /* go on */
};

#define vcpu_count(vcpu, name) stats_add((vcpu)->stats, STAT_VCPU_##name, 1)

/* ---- run.c ---- */

/* A vCPU that halts would go on. */
bool vcpu_has_wake_event(struct vcpu *vcpu);

/* ---- request.c ---- */

/* Serve what is pending. True: leave guest code, the run loop has something to do. */
bool vcpu_service(struct vcpu *vcpu);
/* Enter, leave or change vcpu->running; leaving VCPU_INSIDE is a safepoint. */
void vcpu_set_running(struct vcpu *vcpu, enum vcpu_running state);
/* The same without a look at who is alone. */
void vcpu_set_state(struct vcpu *vcpu, enum vcpu_running state);
/* Any thread. Ask one vCPU, and wait until it is not inside or has served the request. */
void vcpu_request_wait(struct vcpu *vcpu, enum vcpu_request req);
/* alone.c; vCPU thread, inside. Wait while another vCPU is alone. */
void vcpu_let_alone(struct vcpu *vcpu);
/*
 * vCPU thread, back inside from waiting, perhaps in the midst of an instruction or of other requests. Who asked for a
 * flush meanwhile did not wait for it: so it is made before guest memory is touched again.
 */
void vcpu_catch_up(struct vcpu *vcpu);
/* Until the end, which comes soon, no other vCPU of the VM runs guest code or holds on to slots. May nest. */
void vcpu_alone(struct vcpu *vcpu, bool on);
/* vm_ops' hold_all. */
void vcpu_hold_all(struct vm *vm, bool on);
/* Take a request back that service leaves to the run loop. True if it was raised. */
bool vcpu_take_request(struct vcpu *vcpu, enum vcpu_request req);
bool vcpu_test_request(const struct vcpu *vcpu, enum vcpu_request req);
void vcpu_clear_request(struct vcpu *vcpu, enum vcpu_request req);
/* ->wait_flush: return when every other vCPU that was asked to flush has, or runs no guest code. */
void vcpu_wait_flushed(struct vcpu *vcpu);
/* The vCPU that vcpu_run_interrupted() speaks to on this thread, or NULL. */
void vcpu_set_current(struct vcpu *vcpu);

static inline bool vcpu_signalled(const struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->signal_pending, __ATOMIC_SEQ_CST);
}

/* The thread that is in KVM_RUN, or was last, or 0. */
static inline int vcpu_tid(const struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->tid, __ATOMIC_RELAXED);
}

/* ---- halt.c ---- */

/* Wait for a kick or a signal. */
void vcpu_block(struct vcpu *vcpu);
/* The guest spins: let other threads of the host run. How many PAUSEs later to do so again. */
unsigned vcpu_spun(struct vcpu *vcpu);

/* ---- ring.c ---- */

/* struct vm_ops' push_dirty. */
void vcpu_push_dirty(struct vm *vm, uint32_t slot, uint64_t offset);
/* The program has to harvest before guest code runs on. */
bool vcpu_ring_full(const struct vcpu *vcpu);
/* The vCPU that this thread runs, or NULL. */
struct vcpu *vcpu_current(void);

/* ---- exits.c ---- */

/* Fill kvm_run for cpu->exit, or deal with it: enum run_result or -errno. */
int vcpu_handle_exit(struct vcpu *vcpu, enum cpu_exit_kind kind);

/* ---- watch.c ---- */

/* Does somebody watch? Not inside cpu_run(). */
void vcpu_watch_look(struct vcpu *vcpu);
/* The answer is another than it was: vcpu_watch_look() is due. */
bool vcpu_watch_changed(struct vcpu *vcpu);
/* cpu_run(), or what is run instead, while ->watch.on. */
enum cpu_exit_kind vcpu_watch_run(struct vcpu *vcpu, enum cpu_exit_kind (*run)(struct cpu *cpu));
/* While ->watch.on: user space answered a read; KVM_RUN returns; a wait ended. */
void vcpu_watch_read(struct vcpu *vcpu, bool port, uint64_t addr, unsigned size, unsigned count,
		     uint64_t val);
void vcpu_watch_return(struct vcpu *vcpu, int result);
void vcpu_watch_woken(struct vcpu *vcpu, uint64_t ns);
/* Show the counters of KVM_GET_STATS_FD. */
void vcpu_watch_stats(struct vcpu *vcpu);
/* The same, if they may have changed by much. */
void vcpu_watch_stats_soon(struct vcpu *vcpu);
void vcpu_watch_destroy(struct vcpu *vcpu);

/* ---- run.c ---- */

/* INIT and SIPI that arrived (SDM, MP initialization). */
void vcpu_accept_init_sipi(struct vcpu *vcpu);

/* ---- events.c ---- */

/* RFLAGS.IF, shadow and guest debugging let an interrupt in. */
bool vcpu_interrupt_allowed(const struct vcpu *vcpu);
/* An interrupt is there to be taken, allowed or not. */
bool vcpu_has_interrupt(struct vcpu *vcpu);
int vcpu_peek_interrupt(struct vcpu *vcpu);
int vcpu_take_interrupt(struct vcpu *vcpu);
/* Queue an exception for delivery before the next instruction. */
void vcpu_queue_exception(struct vcpu *vcpu, uint8_t vector);

/* ---- platform.c ---- */

extern const struct platform vcpu_platform;

/* Before what may depend on them: which quirks the program has disabled by now (KVM_CAP_DISABLE_QUIRKS2). */
void vcpu_follow_quirks(struct vcpu *vcpu);

/* ---- lapic.c ---- */

void vcpu_lapic_create(struct vcpu *vcpu);
void vcpu_lapic_configure(struct vcpu *vcpu);
void vcpu_lapic_follow_quirks(struct vcpu *vcpu, uint64_t disabled);
bool vcpu_set_apic_base(struct vcpu *vcpu, uint64_t val, bool host);
uint64_t vcpu_get_apic_base(const struct vcpu *vcpu);
uint8_t vcpu_get_cr8(const struct vcpu *vcpu);
void vcpu_set_cr8(struct vcpu *vcpu, uint8_t cr8);

/* ---- msrs.c ---- */

/* A new vCPU's TSC: the others', or 0 (KVM: TSC synchronization at creation). */
void vcpu_tsc_start(struct vcpu *vcpu);

enum vcpu_msr { VCPU_MSR_OK, VCPU_MSR_UNKNOWN, VCPU_MSR_DENIED };
/* The parameter ignore_msrs is on: an access to an unknown MSR reads 0 or does nothing. Says so. */
bool vcpu_msr_ignored(const struct vcpu *vcpu, uint32_t index, bool write);

/* The MSRs of this room and of kvm/pv; host: the program, by ioctl. */
enum vcpu_msr vcpu_msr_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret);
enum vcpu_msr vcpu_msr_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val);

/* ---- nested_vmx.c ---- */

/* A new vCPU of a VM whose guests get VMX. */
void vcpu_vmx_create(struct vcpu *vcpu);
/* A guest's guest that the program made impossible ends in a triple fault, as KVM has it. */
void vcpu_judge_guest(struct vcpu *vcpu);
/* REQ_NESTED. False: what restored state speaks of is not in guest memory. */
bool vcpu_nested_resume(struct vcpu *vcpu);
/* struct platform's alarm. */
void vcpu_alarm(struct vcpu *vcpu, uint64_t tsc);
/* IA32_FEATURE_CONTROL is silicon's, but the program leaves VMX operation by writing 0. */
enum vcpu_msr vcpu_feature_control_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret);
enum vcpu_msr vcpu_feature_control_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val);
enum vcpu_msr vcpu_vmx_msr_get(struct vcpu *vcpu, uint32_t index, bool host, uint64_t *ret);
enum vcpu_msr vcpu_vmx_msr_set(struct vcpu *vcpu, uint32_t index, bool host, uint64_t val);
/* Guest TSC, now. */
uint64_t vcpu_tsc(const struct vcpu *vcpu);

/* ---- turns.c: deterministic VMs only ---- */

/*
 * vCPU thread, in KVM_RUN: wait until it is this vCPU's turn, and set the limit for guest code. RUN_AGAIN, or -EINTR: a signal, or the turn is
 * another one's that this thread is to run.
 */
int vcpu_turn(struct vcpu *vcpu);
/* The same as KVM_RUN begins. */
int vcpu_turn_enter(struct vcpu *vcpu);
/* It has nothing to do: the turn goes to another one, or time to the next timer. */
void vcpu_turn_block(struct vcpu *vcpu);
/* As KVM_RUN ends: the program's halt is one, too. */
void vcpu_turn_leave(struct vcpu *vcpu);
/* Any thread. These requests, as BIT()s, were made. */
void vcpu_turn_wake(struct vcpu *vcpu, uint64_t reqs);
bool vcpu_turn_holds(const struct vcpu *vcpu);
/* Of the vCPU's RDRAND: where it begins. */
uint64_t vcpu_turn_random(const struct vcpu *vcpu);
/* struct vm_ops' timer_armed. */
void vcpu_turn_timer(struct vm *vm, uint64_t deadline);

/* ---- cpuid.c ---- */

/* CPUID as the guest sees it, dynamic bits included. */
void vcpu_cpuid(struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t ret[4]);
/* Recompute what follows from vcpu->cpuid: features, widths, allowed bits. */
void vcpu_cpuid_apply(struct vcpu *vcpu);

/* ---- regs.c ---- */

/* KVM_CAP_SYNC_REGS: what kvm_run carries in and out. 0 or -EINVAL. */
#define VCPU_SYNC_FIELDS (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)
int vcpu_sync_in(struct vcpu *vcpu);
void vcpu_sync_out(struct vcpu *vcpu);
/* Linear address of the next instruction. */
uint64_t vcpu_linear_rip(const struct vcpu *vcpu);

#endif
