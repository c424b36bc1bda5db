/* SPDX-License-Identifier: MIT */
/*
 * A pending exception in KVM_GET_VCPU_EVENTS (Linux, kvm_vcpu_ioctl_x86_get_vcpu_events()): with KVM_CAP_EXCEPTION_PAYLOAD it is
 * pending and has its payload; without, it is shown as injected, too, DR6 has the payload, and what is written back is injected.
 */
#include "api_test.h"

#define TF	 0x100
#define DR6_BS	 0x4000
#define PORT_OUT 0xe6

/* The instruction under TF leaves for the port: its trap is pending once it is done. */
static struct machine trapped(bool payload)
{
	struct machine m = machine_open();
	struct kvm_regs regs;

	if (payload)
		CHECK_EQ(enable_cap(m.vm, KVM_CAP_EXCEPTION_PAYLOAD, 1), 0);
	MACHINE_CODE(&m, PORT_OUT, 0x80, 0xf4);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_REGS, &regs), 0);
	regs.rflags |= TF;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	m.run->immediate_exit = 1;
	CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	m.run->immediate_exit = 0;
	return m;
}

static void test_with_payload(void)
{
	struct machine m = trapped(true);
	struct kvm_debugregs debug;
	struct kvm_vcpu_events e;

	CHECK_EQ(ioctl(m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	CHECK_EQ(e.exception.injected, 0);
	CHECK_EQ(e.exception.pending, 1);
	CHECK_EQ(e.exception.nr, 1);
	CHECK_EQ(e.exception_has_payload, 1);
	CHECK_EQ(e.exception_payload, DR6_BS);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_DEBUGREGS, &debug), 0);
	CHECK_EQ(debug.dr6 & DR6_BS, 0);
}

static void test_without_payload(void)
{
	struct machine m = trapped(false);
	struct kvm_debugregs debug;
	struct kvm_vcpu_events e;

	CHECK_EQ(ioctl(m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	CHECK_EQ(e.exception.injected, 1);
	CHECK_EQ(e.exception.pending, 1);
	CHECK_EQ(e.exception.nr, 1);
	CHECK_EQ(e.exception_has_payload, 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_DEBUGREGS, &debug), 0);
	CHECK_EQ(debug.dr6 & DR6_BS, DR6_BS);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	CHECK_EQ(e.exception.injected, 1);
	CHECK_EQ(e.exception.pending, 0);
}

int main(void)
{
	test_with_payload();
	test_without_payload();
	return 0;
}
