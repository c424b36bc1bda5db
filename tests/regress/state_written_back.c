/* SPDX-License-Identifier: MIT */
/*
 * What the GET ioctls give, the SET ioctls take back whole: MXCSR and the x87 pointers were lost where the
 * host's XSTATE_BV said that SSE or x87 is in its initial state, and a queued interrupt behind an exception was.
 * MXCSR stayed what it was behind an image that has neither SSE nor AVX.
 */
#include "../api/api_test.h"

struct legacy {
	uint16_t fcw, fsw, ftw, fop;
	uint64_t fip, fdp;
	uint32_t mxcsr;
};

static void write_back_xsave(struct machine *m)
{
	struct kvm_xsave x;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_XSAVE, &x), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_XSAVE, &x), 0);
}

/* xorps would be tracked; ldmxcsr and ffree leave every register initial. */
static void test_mxcsr_and_pointers(void)
{
	struct machine m = machine_open(), n = machine_open();
	struct kvm_sregs s;
	struct kvm_xsave x;
	struct legacy *l = (struct legacy *)&x;

	/* ldmxcsr [0x2000]; ffree st(0); hlt */
	MACHINE_CODE(&m, 0x0f, 0xae, 0x16, 0x00, 0x20, 0xdd, 0xc0, 0xf4);
	MACHINE_CODE(&n, 0xf4);
	*(uint32_t *)(m.ram + 0x2000) = 0x1f81;
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_SREGS, &s), 0);
	s.cr4 |= 0x200; /* OSFXSR */
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &s), 0);
	RUN_TO(&m, KVM_EXIT_HLT);
	write_back_xsave(&m);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_XSAVE, &x), 0);
	CHECK_EQ(l->mxcsr, 0x1f81);
	CHECK_EQ(l->fip, CODE_GPA + 5);
	CHECK_EQ(ioctl(n.vcpu, KVM_SET_XSAVE, &x), 0);
	memset(&x, 0, sizeof(x));
	CHECK_EQ(ioctl(n.vcpu, KVM_GET_XSAVE, &x), 0);
	CHECK_EQ(l->mxcsr, 0x1f81);
	CHECK_EQ(l->fip, CODE_GPA + 5);
}

/* XRSTORS of such an image, which is what Linux goes by, makes it initial. */
static void test_mxcsr_of_neither(void)
{
	struct machine m = machine_open();
	struct kvm_xsave x;
	struct legacy *l = (struct legacy *)&x;
	uint32_t *xstate_bv = &x.region[512 / 4];

	MACHINE_CODE(&m, 0xf4);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_XSAVE, &x), 0);
	*xstate_bv |= 2;
	l->mxcsr = 0x1f81;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_XSAVE, &x), 0);
	*xstate_bv = 1;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_XSAVE, &x), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_XSAVE, &x), 0);
	CHECK_EQ(l->mxcsr, 0x1f80);
}

static void test_interrupt_behind_exception(void)
{
	struct machine m = machine_open();
	struct kvm_vcpu_events e = {
		.exception = {.injected = 1, .nr = 6},
		.interrupt = {.injected = 1, .nr = 0x71},
	};

	MACHINE_CODE(&m, 0xf4);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	memset(&e, 0, sizeof(e));
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	CHECK_EQ(e.exception.injected, 1);
	CHECK_EQ(e.exception.nr, 6);
	CHECK_EQ(e.interrupt.injected, 1);
	CHECK_EQ(e.interrupt.nr, 0x71);
}

int main(void)
{
	test_mxcsr_and_pointers();
	test_mxcsr_of_neither();
	test_interrupt_behind_exception();
	return 0;
}
