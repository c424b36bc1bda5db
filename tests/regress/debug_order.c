/* SPDX-License-Identifier: MIT */
/* What a debugger is told, and when, of instructions that also exit for something else. */
#include "../clients/tiny.h"

#define MMIO 0x9000

static void debug(struct tiny *t, uint32_t control, uint64_t dr0, uint64_t dr7)
{
	struct kvm_guest_debug dbg = {.control = KVM_GUESTDBG_ENABLE | control};

	dbg.arch.debugreg[0] = dr0;
	dbg.arch.debugreg[7] = dr7;
	assert_int_equal(ioctl(t->vcpu, KVM_SET_GUEST_DEBUG, &dbg), 0);
}

static void expect_exit(struct tiny *t, uint32_t reason)
{
	assert_int_equal(ioctl(t->vcpu, KVM_RUN, 0), 0);
	assert_int_equal(t->run->exit_reason, reason);
}

static uint64_t rip_of(struct tiny *t)
{
	struct kvm_regs regs;

	assert_int_equal(ioctl(t->vcpu, KVM_GET_REGS, &regs), 0);
	return regs.rip;
}

/* Each iteration's write comes before the step's exit, and none is lost. */
static void stepped_string_write(void **state)
{
	/* mov cx, 3; mov di, MMIO; rep stosb; hlt */
	static const char code[] = "\xb9\x03\x00\xbf\x00\x90\xf3\xaa\xf4";
	struct tiny t;

	tiny_create(&t, code, sizeof(code) - 1);
	debug(&t, KVM_GUESTDBG_SINGLESTEP, 0, 0);
	expect_exit(&t, KVM_EXIT_DEBUG);
	expect_exit(&t, KVM_EXIT_DEBUG);
	for (unsigned i = 0; i < 3; i++) {
		expect_exit(&t, KVM_EXIT_MMIO);
		assert_true(t.run->mmio.is_write);
		assert_int_equal(t.run->mmio.phys_addr, MMIO + i);
		expect_exit(&t, KVM_EXIT_DEBUG);
		assert_int_equal(rip_of(&t), TINY_BASE + (i < 2 ? 6 : 8));
	}
	tiny_destroy(&t);
}

static void stepped_port_write(void **state)
{
	struct tiny t;

	tiny_create(&t, "\xe6\x80\xf4", 3); /* out 0x80, al; hlt */
	debug(&t, KVM_GUESTDBG_SINGLESTEP, 0, 0);
	expect_exit(&t, KVM_EXIT_IO);
	expect_exit(&t, KVM_EXIT_DEBUG);
	assert_int_equal(rip_of(&t), TINY_BASE + 2);
	tiny_destroy(&t);
}

/* movsb; hlt with a breakpoint on the source: it is a trap, also if the first attempt leaves KVM_RUN. */
static void watched_then_refused(void **state)
{
	struct kvm_regs regs = {
		.rip = TINY_BASE, .rflags = 2, .rsi = 0x2000, .rdi = 0x3000, .rsp = 0x4000};
	struct tiny t;

	tiny_create(&t, "\xa4\xf4", 2);
	assert_int_equal(ioctl(t.vcpu, KVM_SET_REGS, &regs), 0);
	debug(&t, KVM_GUESTDBG_USE_HW_BP, 0x2000, 0x30401);
	mprotect(t.mem + 0x3000 - TINY_BASE, 4096, PROT_READ);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(ioctl(t.vcpu, KVM_RUN, 0), -1);
		assert_int_equal(errno, EFAULT);
		assert_int_equal(rip_of(&t), TINY_BASE);
	}
	mprotect(t.mem + 0x3000 - TINY_BASE, 4096, PROT_READ | PROT_WRITE);
	expect_exit(&t, KVM_EXIT_DEBUG);
	assert_int_equal(t.run->debug.arch.pc, TINY_BASE + 1);
	assert_int_equal(t.run->debug.arch.dr6 & 0xf, 1);
	tiny_destroy(&t);
}

/* The same with an answer from user space between the two accesses. */
static void watched_then_answered(void **state)
{
	struct kvm_regs regs = {
		.rip = TINY_BASE, .rflags = 2, .rsi = 0x2000, .rdi = MMIO, .rsp = 0x4000};
	struct tiny t;

	tiny_create(&t, "\xa6\xf4", 2); /* cmpsb; hlt */
	assert_int_equal(ioctl(t.vcpu, KVM_SET_REGS, &regs), 0);
	debug(&t, KVM_GUESTDBG_USE_HW_BP, 0x2000, 0x30401);
	expect_exit(&t, KVM_EXIT_MMIO);
	assert_false(t.run->mmio.is_write);
	expect_exit(&t, KVM_EXIT_DEBUG);
	assert_int_equal(t.run->debug.arch.pc, TINY_BASE + 1);
	expect_exit(&t, KVM_EXIT_HLT);
	tiny_destroy(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stepped_string_write),
		cmocka_unit_test(stepped_port_write),
		cmocka_unit_test(watched_then_refused),
		cmocka_unit_test(watched_then_answered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
