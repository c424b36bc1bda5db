/* SPDX-License-Identifier: MIT */
/*
 * After KVM_SET_CLOCK a vCPU that was entered before the first one still found the old line in the first one's page, which Linux
 * guests read on all vCPUs; once that one was entered, too, time went back.
 */
#include "../api/api_test.h"

#define MSR_SYSTEM_TIME 0x4b564d01
#define PAGE_OF(n)	(0x8000 + 0x1000 * (n))

struct shown {
	uint32_t version, pad;
	uint64_t tsc, ns;
};

int main(void)
{
	struct machine m = machine_open();
	struct kvm_clock_data clock = {.clock = 5000000000};
	int second;

	MACHINE_CODE(&m, 0xf4, 0xf4);
	second = ioctl(m.vm, KVM_CREATE_VCPU, 1);
	CHECK(second >= 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_SYSTEM_TIME, PAGE_OF(0) | 1), 1);
	CHECK_EQ(msr_set(second, MSR_SYSTEM_TIME, PAGE_OF(1) | 1), 1);
	RUN_TO(&m, KVM_EXIT_HLT);
	CHECK_EQ(ioctl(m.vm, KVM_SET_CLOCK, &clock), 0);
	for (unsigned i = 0; i < 2; i++) {
		const volatile struct shown *shown = (const struct shown *)(m.ram + PAGE_OF(i));

		CHECK_EQ(shown->ns, clock.clock);
		CHECK_EQ(shown->version % 2, 0);
	}
	return 0;
}
