/* SPDX-License-Identifier: MIT */
/* Where RIP stands at an OUT, and the quirk of port 7EH (KVM api.rst, KVM_CAP_DISABLE_QUIRKS2). */
#include "api_test.h"

static struct kvm_regs regs_of(const struct machine *m)
{
	struct kvm_regs regs;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	return regs;
}

static void finish(struct machine *m)
{
	m->run->immediate_exit = 1;
	CHECK_ERR(ioctl(m->vcpu, KVM_RUN, 0), EINTR);
	m->run->immediate_exit = 0;
}

/* Three times OUT; RIP shows it until the answer is there. */
static void test_out(void)
{
	struct machine m = machine_open();
	struct kvm_regs regs;

	MACHINE_CODE(&m, 0xe6, 0x80, 0xe6, 0x81, 0xe6, 0x82, 0xf4);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA);
	/* Written back as it was read, it stays where it is, and goes on behind. */
	regs = regs_of(&m);
	regs.rax = 0x55;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x81);
	CHECK_EQ(((uint8_t *)m.run)[m.run->io.data_offset], 0x55);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 2);
	finish(&m);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 4);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x82);
	/* Moved elsewhere, it stays there. */
	regs.rip = CODE_GPA + 2;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	finish(&m);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 2);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x81);
}

/* A string instruction has retired at its exit. */
static void test_outs(void)
{
	struct machine m = machine_open();

	MACHINE_CODE(&m, 0x6e, 0xf4);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 1);
}

static void test_7e(void)
{
	struct machine m = machine_open();

	CHECK(ioctl(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2) &
	      KVM_X86_QUIRK_OUT_7E_INC_RIP);
	MACHINE_CODE(&m, 0xe6, 0x7e, 0xe6, 0x7e, 0xe6, 0x7e, 0xf4);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 2);
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_OUT_7E_INC_RIP), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 2);
	finish(&m);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 4);
	/* Refused as a whole: what was disabled stays so. */
	CHECK_ERR(enable_cap(m.vm, KVM_CAP_DISABLE_QUIRKS2, 1ull << 40), EINVAL);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 4);
}

int main(void)
{
	test_out();
	test_outs();
	test_7e();
	return 0;
}
