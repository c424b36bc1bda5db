/* SPDX-License-Identifier: MIT */
/*
 * KVM_RUN: exits and their completion, immediate_exit, signals, interrupts. Expected values are those of
 * KVM's api.rst and of the SDM.
 */
#include "vcpu_fixture.h"

#include <signal.h>
#include <unistd.h>

static uint8_t *io_data(void)
{
	return (uint8_t *)run + run->io.data_offset;
}

static void assert_io(uint8_t direction, uint16_t port, uint8_t size)
{
	assert_int_equal(run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(run->io.direction, direction);
	assert_int_equal(run->io.port, port);
	assert_int_equal(run->io.size, size);
	assert_int_equal(run->io.count, 1);
	assert_int_equal(run->io.data_offset, 4096);
}

static void test_out_and_hlt(void **state)
{
	/* mov $0x3f8,%dx; mov $'H',%al; out %al,(%dx); hlt */
	LOAD(0xba, 0xf8, 0x03, 0xb0, 'H', 0xee, 0xf4);
	RUN_TO(KVM_EXIT_IO);
	assert_io(KVM_EXIT_IO_OUT, 0x3f8, 1);
	assert_int_equal(*io_data(), 'H');
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(regs().rip, CODE + 7);
}

static void test_argument_must_be_zero(void **state)
{
	LOAD(0xf4);
	assert_int_equal(vcpu_run(vcpu, (void *)1), -EINVAL);
	assert_int_equal(regs().rip, CODE);
}

static void test_in(void **state)
{
	LOAD(0xe5, 0x60, 0xf4); /* in $0x60,%ax */
	RUN_TO(KVM_EXIT_IO);
	assert_io(KVM_EXIT_IO_IN, 0x60, 2);
	memcpy(io_data(), "\x34\x12", 2);
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(regs().rax, 0x1234);
}

/* The program may read and write registers while an IN is open (vmport does): it is completed nonetheless. */
static void test_in_survives_set_regs(void **state)
{
	struct kvm_regs r;

	LOAD(0xe4, 0x60, 0xf4);
	RUN_TO(KVM_EXIT_IO);
	r = regs();
	assert_int_equal(r.rip, CODE);
	r.rbx = 77;
	assert_int_equal(vcpu_set_regs(vcpu, &r), 0);
	*io_data() = 9;
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(regs().rax, 9);
	assert_int_equal(regs().rbx, 77);
}

/* But not if it moves RIP. */
static void test_in_dropped_when_rip_moves(void **state)
{
	struct kvm_regs r;

	LOAD(0xe4, 0x60, 0xf4, 0xe4, 0x60, 0xf4);
	RUN_TO(KVM_EXIT_IO);
	r = regs();
	r.rip = CODE + 3;
	assert_int_equal(vcpu_set_regs(vcpu, &r), 0);
	*io_data() = 9;
	RUN_TO(KVM_EXIT_IO);
	assert_int_equal(regs().rip, CODE + 3);
	*io_data() = 5;
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(regs().rax, 5);
}

/* Repeated OUTS to one port may come as one exit; the bytes come in order. */
static void test_outs(void **state)
{
	char got[8];
	unsigned n = 0;

	memcpy(ram + 0x2000, "abcdef", 6);
	/* mov $0x2000,%si; mov $6,%cx; mov $0x80,%dx; cld; rep outsb; hlt */
	LOAD(0xbe, 0x00, 0x20, 0xb9, 6, 0, 0xba, 0x80, 0, 0xfc, 0xf3, 0x6e, 0xf4);
	for (;;) {
		assert_int_equal(vcpu_run(vcpu, NULL), 0);
		if (run->exit_reason == KVM_EXIT_HLT)
			break;
		assert_int_equal(run->exit_reason, KVM_EXIT_IO);
		assert_int_equal(run->io.port, 0x80);
		assert_true(n + run->io.count <= 6);
		memcpy(got + n, io_data(), run->io.count);
		n += run->io.count;
	}
	assert_int_equal(n, 6);
	assert_memory_equal(got, "abcdef", 6);
	assert_int_equal(regs().rsi, 0x2006);
	assert_int_equal(regs().rcx, 0);
}

/* DS = a000h: segment base a0000h, beyond RAM. */
#define DS_A000 0xb8, 0x00, 0xa0, 0x8e, 0xd8

static void test_mmio_read(void **state)
{
	LOAD(DS_A000, 0x66, 0xa1, 0x10, 0x00, 0xf4); /* mov 0x10,%eax */
	RUN_TO(KVM_EXIT_MMIO);
	assert_int_equal(run->mmio.phys_addr, 0xa0010);
	assert_int_equal(run->mmio.len, 4);
	assert_int_equal(run->mmio.is_write, 0);
	memcpy(run->mmio.data, "\x78\x56\x34\x12", 4);
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(regs().rax, 0x12345678);
}

static void test_mmio_read_modify_write(void **state)
{
	LOAD(DS_A000, 0xb3, 0x01, 0x00, 0x1e, 0x10, 0x00, 0xf4); /* mov $1,%bl; add %bl,0x10 */
	RUN_TO(KVM_EXIT_MMIO);
	assert_int_equal(run->mmio.is_write, 0);
	run->mmio.data[0] = 0x41;
	RUN_TO(KVM_EXIT_MMIO);
	assert_int_equal(run->mmio.is_write, 1);
	assert_int_equal(run->mmio.len, 1);
	assert_int_equal(run->mmio.data[0], 0x42);
	RUN_TO(KVM_EXIT_HLT);
}

/* 16 bytes are handed out in fragments of at most 8. */
static void test_mmio_write_fragments(void **state)
{
	struct kvm_sregs sregs;
	struct kvm_fpu fpu;

	LOAD(DS_A000, 0x0f, 0x11, 0x06, 0x20, 0x00, 0xf4); /* movups %xmm0,0x20 */
	assert_int_equal(vcpu_get_sregs(vcpu, &sregs), 0);
	sregs.cr4 |= CR4_OSFXSR;
	assert_int_equal(vcpu_set_sregs(vcpu, &sregs), 0);
	assert_int_equal(vcpu_get_fpu(vcpu, &fpu), 0);
	memcpy(fpu.xmm[0], "0123456789abcdef", 16);
	assert_int_equal(vcpu_set_fpu(vcpu, &fpu), 0);
	RUN_TO(KVM_EXIT_MMIO);
	assert_int_equal(run->mmio.phys_addr, 0xa0020);
	assert_int_equal(run->mmio.len, 8);
	assert_memory_equal(run->mmio.data, "01234567", 8);
	RUN_TO(KVM_EXIT_MMIO);
	assert_int_equal(run->mmio.phys_addr, 0xa0028);
	assert_memory_equal(run->mmio.data, "89abcdef", 8);
	RUN_TO(KVM_EXIT_HLT);
}

/* ---- immediate_exit ---- */

static void test_immediate_exit_runs_nothing(void **state)
{
	LOAD(0x40, 0xf4); /* inc %ax */
	run->immediate_exit = 1;
	assert_int_equal(vcpu_run(vcpu, NULL), -EINTR);
	assert_int_equal(regs().rip, CODE);
	run->immediate_exit = 0;
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(regs().rax, 1);
}

static void test_immediate_exit_completes(void **state)
{
	LOAD(0xe4, 0x60, 0x40, 0xf4); /* in $0x60,%al; inc %ax */
	RUN_TO(KVM_EXIT_IO);
	*io_data() = 5;
	run->immediate_exit = 1;
	assert_int_equal(vcpu_run(vcpu, NULL), -EINTR);
	assert_int_equal(regs().rip, CODE + 2);
	assert_int_equal(regs().rax, 5);
}

/* Half done, the next request of the same instruction comes out, not EINTR. */
static void test_immediate_exit_next_fragment(void **state)
{
	LOAD(DS_A000, 0xb3, 0x01, 0x00, 0x1e, 0x10, 0x00, 0xf4);
	RUN_TO(KVM_EXIT_MMIO);
	run->mmio.data[0] = 1;
	run->immediate_exit = 1;
	RUN_TO(KVM_EXIT_MMIO);
	assert_int_equal(run->mmio.is_write, 1);
	assert_int_equal(vcpu_run(vcpu, NULL), -EINTR);
	assert_int_equal(regs().rip, CODE + 11);
}

/* ---- shutdown, errors ---- */

static void test_triple_fault(void **state)
{
	struct kvm_sregs sregs;

	LOAD(0xcd, 0x10); /* int $0x10 with an IDT of no entry */
	assert_int_equal(vcpu_get_sregs(vcpu, &sregs), 0);
	sregs.idt.limit = 0;
	assert_int_equal(vcpu_set_sregs(vcpu, &sregs), 0);
	RUN_TO(KVM_EXIT_SHUTDOWN);
}

static void test_memory_taken_away(void **state)
{
	LOAD(0xa0, 0x00, 0x40, 0xf4); /* mov 0x4000,%al */
	mprotect(ram + 0x4000, 0x1000, PROT_NONE);
	assert_int_equal(vcpu_run(vcpu, NULL), -EFAULT);
	assert_int_equal(regs().rip, CODE);
	mprotect(ram + 0x4000, 0x1000, PROT_READ | PROT_WRITE);
	RUN_TO(KVM_EXIT_HLT);
}

/* ---- MSRs to user space ---- */

/* mov $0x1234,%ecx; rdmsr; hlt */
#define RDMSR_1234 0x66, 0xb9, 0x34, 0x12, 0, 0, 0x0f, 0x32, 0xf4

static void test_unknown_msr(void **state)
{
	vm->user_space_msr_mask = KVM_MSR_EXIT_REASON_UNKNOWN;
	LOAD(RDMSR_1234);
	RUN_TO(KVM_EXIT_X86_RDMSR);
	assert_int_equal(run->msr.index, 0x1234);
	assert_int_equal(run->msr.reason, KVM_MSR_EXIT_REASON_UNKNOWN);
	run->msr.data = 0x1122334455667788;
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(regs().rax, 0x55667788);
	assert_int_equal(regs().rdx, 0x11223344);
}

static void set_vector(uint8_t vector, uint16_t ip)
{
	memcpy(ram + 4 * vector, &ip, 2);
	memset(ram + 4 * vector + 2, 0, 2);
	ram[ip] = 0xf4;
}

static void test_msr_error_is_gp(void **state)
{
	vm->user_space_msr_mask = KVM_MSR_EXIT_REASON_UNKNOWN;
	LOAD(RDMSR_1234);
	set_vector(13, 0x3000);
	RUN_TO(KVM_EXIT_X86_RDMSR);
	run->msr.error = 1;
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(regs().rip, 0x3001);
}

static void test_unknown_msr_without_cap(void **state)
{
	LOAD(RDMSR_1234);
	set_vector(13, 0x3000);
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(regs().rip, 0x3001);
}

/* ---- interrupts from the program ---- */

static void test_interrupt_window(void **state)
{
	struct kvm_interrupt irq = {.irq = 0x20};

	set_vector(0x20, 0x3000);
	LOAD(0x90, 0xfb, 0x90, 0x90, 0xf4); /* nop; sti; nop; nop; hlt */
	run->request_interrupt_window = 1;
	RUN_TO(KVM_EXIT_IRQ_WINDOW_OPEN);
	assert_int_equal(regs().rip, CODE + 3); /* not in the shadow of STI */
	assert_int_equal(run->ready_for_interrupt_injection, 1);
	assert_int_equal(run->if_flag, 1);
	run->request_interrupt_window = 0;
	assert_int_equal(vcpu_interrupt(vcpu, &irq), 0);
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(regs().rip, 0x3001);
}

static void test_interrupt_waits_for_if(void **state)
{
	struct kvm_interrupt irq = {.irq = 0x20};

	LOAD(0x90, 0xf4);
	assert_int_equal(vcpu_interrupt(vcpu, &irq), 0);
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(regs().rip, CODE + 2);
	assert_int_equal(run->ready_for_interrupt_injection, 0);
}

static void test_interrupt_refused(void **state)
{
	struct kvm_interrupt irq = {.irq = 256};

	assert_int_equal(vcpu_interrupt(vcpu, &irq), -EINVAL);
}

static void test_nmi(void **state)
{
	set_vector(2, 0x3000);
	LOAD(0x90, 0xf4);
	assert_int_equal(vcpu_nmi(vcpu, NULL), 0);
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(regs().rip, 0x3001);
	assert_true(vcpu->cpu.nmi_blocked);
}

/* CR8 is in kvm_run without an in-kernel APIC; lowering it is told. */
static void test_cr8(void **state)
{
	LOAD(0xf4);
	run->cr8 = 0x10;
	assert_int_equal(vcpu_run(vcpu, NULL), -EINVAL);
	run->cr8 = 5;
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(run->cr8, 5);
}

/* ---- signals ---- */

static void on_alarm(int signo)
{
	vcpu_run_interrupted();
}

static void test_signal_ends_run(void **state)
{
	struct sigaction act = {.sa_handler = on_alarm}, old;

	LOAD(0xeb, 0xfe); /* jmp . */
	sigaction(SIGALRM, &act, &old);
	ualarm(20000, 0);
	assert_int_equal(vcpu_run(vcpu, NULL), -EINTR);
	assert_int_equal(run->exit_reason, KVM_EXIT_INTR);
	sigaction(SIGALRM, &old, NULL);
	assert_false(vcpu_run_interrupted()); /* outside KVM_RUN it is nobody's */
}

static void test_signal_mask(void **state)
{
	struct {
		struct kvm_signal_mask head;
		uint8_t set[8];
	} m = {.head.len = 4};

	assert_int_equal(vcpu_set_signal_mask(vcpu, &m), -EINVAL);
	m.head.len = 8;
	assert_int_equal(vcpu_set_signal_mask(vcpu, &m), 0);
	assert_true(vcpu->sigmask_set);
	assert_int_equal(vcpu_set_signal_mask(vcpu, NULL), 0);
	assert_false(vcpu->sigmask_set);
}

/* ---- guest debugging ---- */

static void test_single_step(void **state)
{
	struct kvm_guest_debug dbg = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};

	LOAD(0x90, 0x90, 0xf4);
	assert_int_equal(vcpu_set_guest_debug(vcpu, &dbg), 0);
	RUN_TO(KVM_EXIT_DEBUG);
	assert_int_equal(run->debug.arch.exception, 1);
	assert_int_equal(run->debug.arch.pc, CODE + 1);
	assert_true(run->debug.arch.dr6 & (1 << 14));
	RUN_TO(KVM_EXIT_DEBUG);
	assert_int_equal(run->debug.arch.pc, CODE + 2);
	assert_int_equal(regs().rflags & (1 << 8), 0); /* TF is not the guest's */
	dbg.control = 0;
	assert_int_equal(vcpu_set_guest_debug(vcpu, &dbg), 0);
	RUN_TO(KVM_EXIT_HLT);
}

static void test_software_breakpoint(void **state)
{
	struct kvm_guest_debug dbg = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP};

	LOAD(0x90, 0xcc, 0xf4);
	assert_int_equal(vcpu_set_guest_debug(vcpu, &dbg), 0);
	RUN_TO(KVM_EXIT_DEBUG);
	assert_int_equal(run->debug.arch.exception, 3);
	assert_int_equal(run->debug.arch.pc, CODE + 1);
	assert_int_equal(regs().rip, CODE + 1);
}

/* ---- KVM_CAP_SYNC_REGS ---- */

static void test_sync_regs(void **state)
{
	LOAD(0x40, 0xf4);
	run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
	run->s.regs.regs = regs();
	run->s.regs.regs.rax = 41;
	run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(run->s.regs.regs.rax, 42);
	assert_int_equal(run->kvm_dirty_regs, 0);
	assert_int_equal(run->s.regs.sregs.cs.limit, 0xffff);
	run->kvm_valid_regs = 1 << 5;
	assert_int_equal(vcpu_run(vcpu, NULL), -EINVAL);
}

/* ---- with an in-kernel irqchip ---- */

static void *kick_later(void *arg)
{
	usleep(20000);
	vcpu_request(arg, REQ_NMI);
	return NULL;
}

static void test_hlt_waits_for_events(void **state)
{
	pthread_t thread;

	set_vector(2, 0x3000);
	LOAD(0xf4, 0xf4);
	ram[0x3000] = 0xe6; /* out %al,$0x80 */
	ram[0x3001] = 0x80;
	pthread_create(&thread, NULL, kick_later, vcpu);
	RUN_TO(KVM_EXIT_IO);
	pthread_join(thread, NULL);
	assert_int_equal(regs().rip, 0x3000);
}

static void test_signal_ends_hlt(void **state)
{
	struct sigaction act = {.sa_handler = on_alarm}, old;
	struct kvm_mp_state mp;

	LOAD(0xf4);
	sigaction(SIGALRM, &act, &old);
	ualarm(20000, 0);
	assert_int_equal(vcpu_run(vcpu, NULL), -EINTR);
	sigaction(SIGALRM, &old, NULL);
	assert_int_equal(vcpu_get_mp_state(vcpu, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_HALTED);
}

/* INIT, then SIPI with page 3, wakes an application processor at 0300:0000. */
static void test_init_sipi(void **state)
{
	struct vcpu *ap = fixture_vcpu(1);
	struct kvm_mp_state mp;

	ram[0x3000] = 0xe6;
	ram[0x3001] = 0x80;
	assert_int_equal(vcpu_get_mp_state(ap, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_UNINITIALIZED);
	ap->run->immediate_exit = 1;
	assert_int_equal(vcpu_run(ap, NULL), -EINTR);
	ap->run->immediate_exit = 0;
	vcpu_request(ap, REQ_INIT);
	assert_int_equal(vcpu_run(ap, NULL), -EAGAIN);
	assert_int_equal(ap->mp_state, KVM_MP_STATE_INIT_RECEIVED);
	ap->sipi_vector = 3;
	vcpu_request(ap, REQ_SIPI);
	assert_int_equal(vcpu_run(ap, NULL), 0);
	assert_int_equal(ap->run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(ap->cpu.seg[SEG_CS].sel, 0x300);
	assert_int_equal(ap->cpu.seg[SEG_CS].base, 0x3000);
}

/* ---- requests ---- */

static void *run_thread(void *arg)
{
	return (void *)vcpu_run(arg, NULL);
}

/* A flush that is waited for returns while the guest runs, and leaves it running. */
static void test_safepoint(void **state)
{
	pthread_t thread;
	void *r;

	LOAD(0xeb, 0xfe);
	pthread_create(&thread, NULL, run_thread, vcpu);
	while (__atomic_load_n(&vcpu->running, __ATOMIC_SEQ_CST) != VCPU_INSIDE)
		usleep(100);
	for (unsigned i = 0; i < 100; i++)
		vcpu_request_all(vm, REQ_FLUSH, true);
	assert_false(vcpu_test_request(vcpu, REQ_FLUSH));
	assert_int_equal(vcpu->running, VCPU_INSIDE);
	vcpu_request(vcpu, REQ_TRIPLE_FAULT);
	pthread_join(thread, &r);
	assert_int_equal((long)r, 0);
	assert_int_equal(run->exit_reason, KVM_EXIT_SHUTDOWN);
}

#define T(name)	    cmocka_unit_test_setup_teardown(name, setup, teardown)
#define T_IRQ(name) cmocka_unit_test_setup_teardown(name, setup_irqchip, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_out_and_hlt),
		T(test_argument_must_be_zero),
		T(test_in),
		T(test_in_survives_set_regs),
		T(test_in_dropped_when_rip_moves),
		T(test_outs),
		T(test_mmio_read),
		T(test_mmio_read_modify_write),
		T(test_mmio_write_fragments),
		T(test_immediate_exit_runs_nothing),
		T(test_immediate_exit_completes),
		T(test_immediate_exit_next_fragment),
		T(test_triple_fault),
		T(test_memory_taken_away),
		T(test_unknown_msr),
		T(test_msr_error_is_gp),
		T(test_unknown_msr_without_cap),
		T(test_interrupt_window),
		T(test_interrupt_waits_for_if),
		T(test_interrupt_refused),
		T(test_nmi),
		T(test_cr8),
		T(test_signal_ends_run),
		T(test_signal_mask),
		T(test_single_step),
		T(test_software_breakpoint),
		T(test_sync_regs),
		T_IRQ(test_hlt_waits_for_events),
		T_IRQ(test_signal_ends_hlt),
		T_IRQ(test_init_sipi),
		T(test_safepoint),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
