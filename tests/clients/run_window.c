/* SPDX-License-Identifier: MIT */
/*
 * Interrupts of the program's own PIC (KVM_CAP_SPLIT_IRQCHIP): the window opens where the guest opens it, also where
 * HLT follows at once, and what KVM_INTERRUPT injects wakes the vCPU.
 */
#include "tiny.h"

#define IDT	(TINY_BASE + 0x1000)
#define VECTOR	0x20
#define HANDLER 0x100 /* of the code */

static void nothing(int signo, siginfo_t *info, void *uc)
{
}

/* In real mode, RFLAGS.IF = 0; the handler writes port 0x10 and returns. */
static void start(struct tiny *t, const char *code, size_t size)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};
	struct kvm_sregs sregs;

	t->kvm = open("/dev/kvm", O_RDWR);
	t->vm = ioctl(t->kvm, KVM_CREATE_VM, 0);
	assert_int_equal(ioctl(t->vm, KVM_ENABLE_CAP, &cap), 0);
	tiny_start(t, code, size);
	memcpy(t->mem + HANDLER, "\xe6\x10\xcf", 3); /* out 0x10, al; iret */
	t->mem[IDT - TINY_BASE + VECTOR * 4 + 1] = (TINY_BASE + HANDLER) >> 8;
	assert_int_equal(ioctl(t->vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.idt.base = IDT;
	assert_int_equal(ioctl(t->vcpu, KVM_SET_SREGS, &sregs), 0);
	/* What should end by itself is not to hang the test. */
	install(SIGALRM, nothing, 0);
	alarm(20);
}

static void finish(struct tiny *t)
{
	alarm(0);
	tiny_destroy(t);
}

static uint64_t rip(struct tiny *t)
{
	struct kvm_regs regs;

	assert_int_equal(ioctl(t->vcpu, KVM_GET_REGS, &regs), 0);
	return regs.rip - TINY_BASE;
}

static void expect_window(struct tiny *t)
{
	t->run->request_interrupt_window = 1;
	assert_int_equal(ioctl(t->vcpu, KVM_RUN, 0), 0);
	assert_int_equal(t->run->exit_reason, KVM_EXIT_IRQ_WINDOW_OPEN);
	assert_true(t->run->ready_for_interrupt_injection);
	assert_true(t->run->if_flag);
}

static void expect_handler(struct tiny *t)
{
	struct kvm_interrupt irq = {.irq = VECTOR};

	t->run->request_interrupt_window = 0;
	assert_int_equal(ioctl(t->vcpu, KVM_INTERRUPT, &irq), 0);
	assert_int_equal(ioctl(t->vcpu, KVM_RUN, 0), 0);
	assert_int_equal(t->run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(t->run->io.port, 0x10);
}

/* sti; hlt: interrupts are open only when the vCPU halts. */
static void opens_at_hlt(void **state)
{
	struct tiny t;

	start(&t, "\xfb\xf4" SPIN, 4);
	expect_window(&t);
	assert_int_equal(rip(&t), 2);
	expect_handler(&t);
	finish(&t);
}

/* sti; nop; jmp . : after the instruction behind STI. */
static void opens_after_the_shadow(void **state)
{
	struct tiny t;

	start(&t, "\xfb\x90" SPIN, 4);
	expect_window(&t);
	assert_int_equal(rip(&t), 2);
	expect_handler(&t);
	finish(&t);
}

/* Without a request no exit: HLT waits for the signal. */
static void waits_unasked(void **state)
{
	struct tiny t;

	start(&t, "\xfb\xf4" SPIN, 4);
	alarm_ms(50);
	expect_eintr(&t);
	assert_int_equal(rip(&t), 2);
	expect_handler(&t);
	finish(&t);
}

/* While IF is 0 the window is shut. */
static void stays_shut(void **state)
{
	struct tiny t;

	start(&t, "\xf4" SPIN, 3);
	t.run->request_interrupt_window = 1;
	alarm_ms(50);
	expect_eintr(&t);
	assert_false(t.run->ready_for_interrupt_injection);
	finish(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_at_hlt),
		cmocka_unit_test(opens_after_the_shadow),
		cmocka_unit_test(waits_unasked),
		cmocka_unit_test(stays_shut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
