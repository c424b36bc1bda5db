/* SPDX-License-Identifier: MIT */
/*
 * KVM_RUN: finish what the last exit left open, then serve requests, wait, run guest code and handle its
 * exits until the program has something to do or a signal comes.
 *
 * Signals (decisions 7, 8): KVM_SET_SIGNAL_MASK's mask is in force meanwhile, but the five signals of host
 * faults are never blocked. A handler that finds its thread in here only calls
 * vcpu_run_interrupted(); the mask is restored after the state is whole, and what waited is delivered by
 * the door, when no lock is held any more.
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "host/signal.h"
#include "kvm/pv/hv.h"
#include "kvm/pv/pv.h"
#include "kvm/pv/xen.h"
#include "silicon/exec/exec.h"

#include <string.h>
#include <sys/syscall.h>

#define KERNEL_SIGSET 8 /* bytes of the kernel's sigset_t */

/* ---- signal mask ---- */

static void unblock_faults(sigset_t *set)
{
	sigdelset(set, SIGSEGV);
	sigdelset(set, SIGBUS);
	sigdelset(set, SIGFPE);
	sigdelset(set, SIGILL);
	sigdelset(set, SIGTRAP);
}

static void set_mask(int how, const sigset_t *set, sigset_t *old)
{
	host_syscall(SYS_rt_sigprocmask, how, (long)set, (long)old, KERNEL_SIGSET, 0, 0);
}

/* The signals that *set lets through and *old did not, as the kernel's 64 bits. */
static uint64_t newly_unblocked(const sigset_t *set, const sigset_t *old)
{
	uint64_t now, before;

	__builtin_memcpy(&now, set, sizeof(now));
	__builtin_memcpy(&before, old, sizeof(before));
	return before & ~now;
}

/*
 * The five are unblocked by whoever holds the signals back (host/signal.h). A signal that came before
 * this vCPU was the thread's current one is waiting already.
 */
static void signals_enter(struct vcpu *vcpu, sigset_t *old)
{
	sigset_t set;

	__atomic_store_n(&vcpu->signal_pending, false, __ATOMIC_SEQ_CST);
	vcpu_set_current(vcpu);
	if (host_signal_waiting())
		__atomic_store_n(&vcpu->signal_pending, true, __ATOMIC_SEQ_CST);
	if (!vcpu->sigmask_set)
		return;
	set = vcpu->sigmask;
	unblock_faults(&set);
	set_mask(SIG_BLOCK, NULL, old);
	host_signal_claim(newly_unblocked(&set, old));
	set_mask(SIG_SETMASK, &set, NULL);
}

/* What was put off is delivered when the door lets signals go. */
static void signals_leave(const struct vcpu *vcpu, const sigset_t *old)
{
	vcpu_set_current(NULL);
	if (vcpu->sigmask_set)
		set_mask(SIG_SETMASK, old, NULL);
}

long vcpu_set_signal_mask(struct vcpu *vcpu, void *arg)
{
	struct kvm_signal_mask head;
	sigset_t set;

	if (!arg) {
		vcpu->sigmask_set = false;
		return 0;
	}
	if (ioctl_copy_in(&head, arg, sizeof(head)))
		return -EFAULT;
	if (head.len != KERNEL_SIGSET)
		return -EINVAL;
	sigemptyset(&set);
	if (ioctl_copy_in(&set, ioctl_behind(arg, sizeof(head)), KERNEL_SIGSET))
		return -EFAULT;
	sigdelset(&set, SIGKILL);
	sigdelset(&set, SIGSTOP);
	vcpu->sigmask = set;
	vcpu->sigmask_set = true;
	return 0;
}

/* ---- activity ---- */

static void start_at(struct vcpu *vcpu, uint8_t vector)
{
	struct cpu *cpu = &vcpu->cpu;

	cpu->seg[SEG_CS].sel = vector << 8;
	cpu->seg[SEG_CS].base = (uint64_t)vector << 12;
	cpu->rip = 0;
	cpu_update_mode(cpu);
}

static bool init_blocked(const struct cpu *cpu)
{
	return cpu->virt && ((cpu->virt->blocks_init && !cpu->virt->guest) || !cpu->virt->gif);
}

/* Of a guest's guest that waits, an exit is to show how: its state here is KVM's until it is looked at. */
static void show_activity(struct vcpu *vcpu)
{
	struct cpu *cpu = &vcpu->cpu;

	if (!cpu_guest(cpu) || cpu->activity != ACTIVITY_RUN)
		return;
	if (vcpu->mp_state == KVM_MP_STATE_HALTED || vcpu->halted_in_guest)
		cpu->activity = ACTIVITY_HLT;
	else if (vcpu->mp_state == KVM_MP_STATE_INIT_RECEIVED)
		cpu->activity = ACTIVITY_WAIT_SIPI;
}

/* A guest's guest that waits for a SIPI loses INITs; the SIPI is an exit. */
static void accept_nested_sipi(struct vcpu *vcpu)
{
	vcpu_clear_request(vcpu, REQ_INIT);
	if (!vcpu_take_request(vcpu, REQ_SIPI))
		return;
	show_activity(vcpu);
	if (cpu_intercept(&vcpu->cpu, INTERCEPT_SIPI, vcpu->sipi_vector))
		vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
}

/* A guest hypervisor that intercepts INIT has it pending still, and says itself what becomes of it. */
static bool init_intercepted(struct vcpu *vcpu)
{
	if (!cpu_guest(&vcpu->cpu) || !vcpu_test_request(vcpu, REQ_INIT))
		return false;
	show_activity(vcpu);
	if (!cpu_intercept(&vcpu->cpu, INTERCEPT_INIT, 0))
		return false;
	vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	vcpu->halted_in_guest = false;
	/* VMX: the exit was all that came of it. */
	if (vcpu->cpu.virt->blocks_init)
		vcpu_clear_request(vcpu, REQ_INIT);
	return true;
}

void vcpu_accept_init_sipi(struct vcpu *vcpu)
{
	bool bsp = vcpu->id == vcpu->vm->boot_cpu_id;

	if (!vcpu->lapic)
		return;
	/* SMM holds INIT back and loses SIPIs; so do VMX root operation and SVM's GIF. */
	if (vcpu->cpu.in_smm || init_blocked(&vcpu->cpu)) {
		if (vcpu->cpu.virt)
			vcpu->cpu.virt->init_waits = vcpu_test_request(vcpu, REQ_INIT);
		vcpu_clear_request(vcpu, REQ_SIPI);
		return;
	}
	if (cpu_guest(&vcpu->cpu) && vcpu->mp_state == KVM_MP_STATE_INIT_RECEIVED) {
		accept_nested_sipi(vcpu);
		return;
	}
	if (init_intercepted(vcpu))
		return;
	if (vcpu_take_request(vcpu, REQ_INIT)) {
		vcpu_reset(vcpu, true);
		vcpu->mp_state = bsp ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED;
	}
	if (vcpu_take_request(vcpu, REQ_SIPI) && vcpu->mp_state == KVM_MP_STATE_INIT_RECEIVED) {
		start_at(vcpu, vcpu->sipi_vector);
		vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	}
}

/* A shutdown processor is deaf to interrupts, and to what else stands for one. */
bool vcpu_has_wake_event(struct vcpu *vcpu)
{
	const struct cpu *cpu = &vcpu->cpu;
	bool deaf = cpu->activity == ACTIVITY_SHUTDOWN;

	return (vcpu->unhalted && !deaf) || cpu->inject.valid ||
	       (cpu->nmi_pending && cpu_nmi_open(cpu)) || (cpu->smi_pending && cpu_smi_open(cpu)) ||
	       (cpu_guest(cpu) &&
		(__atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) & ATTN_VIRT)) ||
	       (!deaf && vcpu_interrupt_allowed(vcpu) && vcpu_has_interrupt(vcpu));
}

/* What wakes a guest's guest may be an exit, which shows that it was halted; else it is still, when all is looked at. */
static void wake_activity(struct vcpu *vcpu)
{
	if (!vcpu->unhalted)
		show_activity(vcpu);
}

/* True if the vCPU runs code now; false: look again, after waiting if nothing was there. */
static bool make_runnable(struct vcpu *vcpu)
{
	if (vcpu->halted_in_guest && vcpu_has_wake_event(vcpu)) {
		wake_activity(vcpu);
		vcpu->halted_in_guest = false;
	}
	if (vcpu->mp_state == KVM_MP_STATE_RUNNABLE)
		return !vcpu->halted_in_guest;
	if (vcpu->mp_state == KVM_MP_STATE_HALTED && vcpu_has_wake_event(vcpu)) {
		pv_xen_poll_end(vcpu);
		wake_activity(vcpu);
		vcpu->unhalted = false;
		vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
		return true;
	}
	return false;
}

/* ---- exits that requests ask for ---- */

static int exit_triple_fault(struct vcpu *vcpu)
{
	if (cpu_intercept(&vcpu->cpu, INTERCEPT_SHUTDOWN, 0))
		return RUN_AGAIN;
	vcpu->run->exit_reason = KVM_EXIT_SHUTDOWN;
	return RUN_EXIT;
}

static int exit_tpr_report(struct vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_TPR_ACCESS;
	vcpu->run->tpr_access.rip = vcpu->tpr_rip;
	vcpu->run->tpr_access.is_write = vcpu->tpr_write;
	return RUN_EXIT;
}

static int exit_tpr_lowered(struct vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_SET_TPR;
	return RUN_EXIT;
}

static int exit_ioapic_eoi(struct vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_IOAPIC_EOI;
	vcpu->run->eoi.vector = vcpu->eoi_vector;
	return RUN_EXIT;
}

static int exit_system_event(struct vcpu *vcpu, uint32_t type)
{
	vcpu->run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
	vcpu->run->system_event.type = type;
	vcpu->run->system_event.ndata = 0;
	return RUN_EXIT;
}

static int exit_hv_crash(struct vcpu *vcpu)
{
	return exit_system_event(vcpu, KVM_SYSTEM_EVENT_CRASH);
}

static int exit_hv_reset(struct vcpu *vcpu)
{
	return exit_system_event(vcpu, KVM_SYSTEM_EVENT_RESET);
}

static int complete_hv_register(struct vcpu *vcpu)
{
	pv_hv_exit_done(vcpu, &vcpu->run->hyperv);
	return RUN_AGAIN;
}

static int exit_hv_register(struct vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_HYPERV;
	vcpu->run->hyperv = *pv_hv_exit(vcpu);
	vcpu->complete = complete_hv_register;
	return RUN_EXIT;
}

static int exit_hv_trap(struct vcpu *vcpu)
{
	pv_hv_trap(vcpu);
	return RUN_AGAIN;
}

/* What is not there is the program's to explain, but there is no exit for it. */
static int exit_nested(struct vcpu *vcpu)
{
	return vcpu_nested_resume(vcpu) ? RUN_AGAIN : RUN_EXIT;
}

static int exit_dead(struct vcpu *vcpu)
{
	return -EIO;
}

static int exit_ring_full(struct vcpu *vcpu)
{
	if (!vcpu_ring_full(vcpu))
		return RUN_AGAIN;
	vcpu_request(vcpu, REQ_RING_FULL);
	vcpu->run->exit_reason = KVM_EXIT_DIRTY_RING_FULL;
	return RUN_EXIT;
}

static const struct {
	enum vcpu_request req;
	int (*exit)(struct vcpu *vcpu);
} exit_requests[] = {
	{REQ_VM_DEAD, exit_dead},
	{REQ_RING_FULL, exit_ring_full},
	{REQ_TRIPLE_FAULT, exit_triple_fault},
	{REQ_IOAPIC_EOI, exit_ioapic_eoi},
	{REQ_TPR_REPORT, exit_tpr_report},
	{REQ_TPR_LOWERED, exit_tpr_lowered},
	{REQ_NESTED, exit_nested},
	{REQ_HV_TRAP, exit_hv_trap},
	{REQ_HV_CRASH, exit_hv_crash},
	{REQ_HV_RESET, exit_hv_reset},
	{REQ_HV_EXIT, exit_hv_register},
};

static int take_exit_request(struct vcpu *vcpu)
{
	for (unsigned i = 0; i < ARRAY_SIZE(exit_requests); i++) {
		int r = RUN_AGAIN;

		if (vcpu_take_request(vcpu, exit_requests[i].req))
			r = exit_requests[i].exit(vcpu);
		if (r != RUN_AGAIN)
			return r;
	}
	return RUN_AGAIN;
}

/* ---- interrupt window of programs that inject interrupts themselves ---- */

static bool ready_for_injection(struct vcpu *vcpu)
{
	if (vcpu->lapic && !lapic_accepts_pic(vcpu->lapic))
		return false;
	return vcpu->interrupt_injected < 0 && !vcpu->cpu.inject.valid &&
	       vcpu_interrupt_allowed(vcpu);
}

static int check_window(struct vcpu *vcpu)
{
	if (!vcpu->run->request_interrupt_window || vcpu->vm->irqchip_full ||
	    !ready_for_injection(vcpu))
		return RUN_AGAIN;
	vcpu->run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
	return RUN_EXIT;
}

/* ---- the loop ---- */

static int interrupted(struct vcpu *vcpu)
{
	pv_xen_poll_end(vcpu);
	vcpu_count(vcpu, signal_exits);
	vcpu->run->exit_reason = KVM_EXIT_INTR;
	return -EINTR;
}

static bool kicked(struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->kicked, __ATOMIC_SEQ_CST) &&
	       __atomic_exchange_n(&vcpu->kicked, 0, __ATOMIC_SEQ_CST);
}

/* What waits in an access to guest memory can be called to a safepoint (request.c). */
static enum cpu_exit_kind run_guest(struct vcpu *vcpu, enum cpu_exit_kind (*run)(struct cpu *cpu))
{
	enum cpu_exit_kind kind;

	vcpu->has_run = true;
	host_restart_scope(&vcpu->restarted);
	kind = unlikely(vcpu->watch.on) ? vcpu_watch_run(vcpu, run) : run(&vcpu->cpu);
	host_restart_scope(NULL);
	return kind;
}

static int run_once(struct vcpu *vcpu)
{
	int r = vcpu->vm->turns ? vcpu_turn(vcpu) : RUN_AGAIN;

	if (r != RUN_AGAIN)
		return interrupted(vcpu);
	kicked(vcpu);
	vcpu_watch_look(vcpu);
	vcpu_service(vcpu);
	if (vcpu->wait_flush)
		vcpu_wait_flushed(vcpu);
	vcpu_accept_init_sipi(vcpu);
	r = take_exit_request(vcpu);
	if (r != RUN_AGAIN)
		return r;
	if (vcpu_signalled(vcpu))
		return interrupted(vcpu);
	if (!make_runnable(vcpu)) {
		vcpu_block(vcpu);
		return RUN_AGAIN;
	}
	r = check_window(vcpu);
	if (r == RUN_AGAIN)
		r = vcpu_handle_exit(vcpu, run_guest(vcpu, cpu_run));
	/* STI, HLT: what the program wants to inject is what wakes the vCPU. */
	return r == RUN_AGAIN ? check_window(vcpu) : r;
}

static int run_loop(struct vcpu *vcpu)
{
	int r;

	vcpu->run->exit_reason = KVM_EXIT_UNKNOWN;
	do
		r = run_once(vcpu);
	while (r == RUN_AGAIN);
	return r;
}

/* An event that the program set meanwhile comes behind the instruction that its exit left open. */
static enum cpu_exit_kind finish_open(struct vcpu *vcpu)
{
	struct event held = vcpu->cpu.inject;
	enum cpu_exit_kind kind;

	if (!vcpu->inject_behind)
		return run_guest(vcpu, cpu_complete);
	vcpu->cpu.inject.valid = false;
	kind = run_guest(vcpu, cpu_complete);
	if (!vcpu->cpu.inject.valid)
		vcpu->cpu.inject = held;
	vcpu->inject_behind = kind != CPU_EXIT_NONE;
	cpu_update_attention(&vcpu->cpu);
	return kind;
}

/* With immediate_exit the open instruction is finished, and nothing further runs. */
static int complete(struct vcpu *vcpu, bool immediate)
{
	int (*fn)(struct vcpu * vcpu) = vcpu->complete;
	enum cpu_exit_kind kind;
	int r;

	if (!fn)
		return RUN_AGAIN;
	vcpu->complete = NULL;
	r = fn(vcpu);
	if (r != RUN_AGAIN || !(immediate || vcpu->inject_behind))
		return r;
	kind = finish_open(vcpu);
	return kind == CPU_EXIT_NONE ? RUN_AGAIN : vcpu_handle_exit(vcpu, kind);
}

/* An application processor that no INIT has reached: one wait, then the program looks again. */
static int run_uninitialized(struct vcpu *vcpu, bool immediate)
{
	if (immediate)
		return -EINTR;
	kicked(vcpu);
	vcpu_service(vcpu);
	if (!vcpu_test_request(vcpu, REQ_INIT) && !vcpu_signalled(vcpu))
		vcpu_block(vcpu);
	vcpu_accept_init_sipi(vcpu);
	return vcpu_signalled(vcpu) ? interrupted(vcpu) : -EAGAIN;
}

/* It is not its turn. */
static int not_entered(struct vcpu *vcpu)
{
	int r = vcpu_sync_in(vcpu);

	vcpu->watch.silent = true;
	return r ? r : interrupted(vcpu);
}

static int run_inside(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	bool immediate = __atomic_load_n(&run->immediate_exit, __ATOMIC_RELAXED);
	int r;

	run->flags = 0;
	if (vcpu->vm->turns && !immediate && vcpu_turn_enter(vcpu) != RUN_AGAIN)
		return not_entered(vcpu);
	pv_entered(vcpu);
	vcpu_service(vcpu);
	if (vcpu->mp_state == KVM_MP_STATE_UNINITIALIZED)
		return run_uninitialized(vcpu, immediate);
	r = vcpu_sync_in(vcpu);
	if (r)
		return r;
	if (!vcpu->lapic) {
		if (run->cr8 & ~0xfull)
			return -EINVAL;
		vcpu->cr8 = run->cr8;
	}
	r = complete(vcpu, immediate);
	if (r != RUN_AGAIN)
		return r;
	if (vcpu->judge_guest)
		vcpu_judge_guest(vcpu);
	return immediate ? -EINTR : run_loop(vcpu);
}

/* What every return shows, whatever the reason. */
static void save_run(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	if (run->kvm_valid_regs & VCPU_SYNC_FIELDS)
		vcpu_sync_out(vcpu);
	run->if_flag = !!(vcpu->cpu.sflags & FLAG_IF);
	run->cr8 = vcpu_get_cr8(vcpu);
	run->apic_base = vcpu_get_apic_base(vcpu);
	if (vcpu->cpu.in_smm)
		run->flags |= KVM_RUN_X86_SMM;
	if (cpu_guest(&vcpu->cpu))
		run->flags |= KVM_RUN_X86_GUEST_MODE;
	run->ready_for_interrupt_injection = vcpu->vm->irqchip_full || ready_for_injection(vcpu);
}

long vcpu_run(struct vcpu *vcpu, void *arg)
{
	sigset_t old;
	uint64_t retired = vcpu->cpu.retired;
	int r;

	if (arg)
		return -EINVAL;
	r = host_fault_thread_init();
	if (r)
		return r;
	vcpu_follow_quirks(vcpu);
	vcpu->cpu.exit_on_emulation =
		__atomic_load_n(&vcpu->vm->exit_on_emulation, __ATOMIC_RELAXED);
	vcpu->cpu.looked = false;
	__atomic_store_n(&vcpu->tid, host_gettid(), __ATOMIC_RELAXED);
	signals_enter(vcpu, &old);
	vcpu_set_running(vcpu, VCPU_INSIDE);
	vcpu->watch.counted = retired;
	r = run_inside(vcpu);
	if (vcpu->vm->turns && r == RUN_EXIT)
		vcpu_turn_leave(vcpu);
	save_run(vcpu);
	stats_add(vcpu->stats, STAT_VCPU_instructions, vcpu->cpu.retired - retired);
	vcpu_set_running(vcpu, VCPU_OUTSIDE);
	vcpu_watch_stats_soon(vcpu);
	if (unlikely(vcpu->watch.on) && !vcpu->watch.silent)
		vcpu_watch_return(vcpu, r);
	vcpu->watch.silent = false;
	signals_leave(vcpu, &old);
	return r;
}
