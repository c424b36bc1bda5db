/* SPDX-License-Identifier: MIT */
/*
 * What an AMD processor's SVM offers to guest hypervisors, and the registers that go with it: LBR virtualization as Linux's
 * KVM has it; AVIC, which KVM has not, only where the argument says that it was asked for.
 */
#include "pv.h"

#define LBRV	  (1u << 1)
#define AVIC	  (1u << 13)
#define DOORBELL  0xc001011b
#define DEBUGCTL  0x1d9
#define LAST_FROM 0x1db
#define LAST_TO	  0x1dc

static uint32_t svm_features(int kvm)
{
	struct cpuid_list c;

	get_supported_cpuid(kvm, &c);
	for (unsigned i = 0; i < c.head.nent; i++)
		if (c.v[i].function == 0x8000000a)
			return c.v[i].edx;
	return 0;
}

/* mov ecx, index; xor edx, edx; xor eax, eax; wrmsr; out 80h, al - and the handler of #GP writes to 81h. */
static bool doorbell_faults(void)
{
	struct machine m = machine_irqchip();
	static const uint16_t gp[2] = {HANDLER_GPA, 0};

	MACHINE_CODE(&m, 0x66, 0xb9, 0x1b, 0x01, 0x01, 0xc0, 0x66, 0x31, 0xd2, 0x66, 0x31, 0xc0,
		     0x0f, 0x30, 0xe6, 0x80);
	set_supported_cpuid(m.kvm, m.vcpu);
	memcpy(m.ram + 4 * 13, gp, sizeof(gp));
	memcpy(m.ram + HANDLER_GPA, "\xe6\x81", 2);
	RUN_TO(&m, KVM_EXIT_IO);
	/* The program has no such register in either case. */
	CHECK(!msr_readable(m.vcpu, DOORBELL));
	CHECK_EQ(msr_set(m.vcpu, DOORBELL, 0), 0);
	CHECK(!msr_listed(m.kvm, DOORBELL));
	return m.run->io.port == 0x81;
}

static void branch_records(void)
{
	struct machine m = machine_irqchip();

	MACHINE_CODE(&m, 0xeb, 0x01, 0x90, 0xe6, 0x80); /* jmp, nop, out */
	set_supported_cpuid(m.kvm, m.vcpu);
	CHECK(svm_features(m.kvm) & LBRV);
	for (uint32_t i = DEBUGCTL; i <= 0x1de; i++)
		CHECK_EQ(msr_listed(m.kvm, i), i != 0x1da);
	/* BTF and the pins are dropped. */
	CHECK_EQ(msr_set(m.vcpu, DEBUGCTL, 0x3f), 1);
	CHECK_EQ(msr_get(m.vcpu, DEBUGCTL), 1);
	CHECK_EQ(msr_set(m.vcpu, DEBUGCTL, 0x41), 0);
	for (uint32_t i = LAST_FROM; i <= 0x1de; i++)
		msr_round_trip(m.vcpu, i, 0x1234567 + i);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(msr_get(m.vcpu, LAST_FROM), CODE_GPA);
	CHECK_EQ(msr_get(m.vcpu, LAST_TO), CODE_GPA + 3);
	CHECK_EQ(msr_get(m.vcpu, 0x1dd), 0x1234567 + 0x1dd);
}

int main(int argc, char **argv)
{
	bool avic = argc > 1;

	CHECK_EQ(!!(svm_features(open_kvm()) & AVIC), avic);
	CHECK_EQ(doorbell_faults(), !avic);
	branch_records();
	return 0;
}
