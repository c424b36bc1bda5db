/* SPDX-License-Identifier: MIT */
/*
 * A TSC deadline was waited for by the nominal frequency. Where the TSC really runs slower, the timer found the deadline not reached,
 * and it was never looked at again: the interrupt was lost. So it was where the program or the guest set the TSC back meanwhile.
 */
#include "../api/pv.h"

#define MSR_TSC		 0x10
#define MSR_TSC_DEADLINE 0x6e0
#define VECTOR		 0x50
#define LVT_TIMER	 0x320

static struct machine waiting(long khz)
{
	const struct kvm_cpuid_entry2 leaf = {.function = 1, .ecx = 1 << 21 | 1 << 24};
	struct machine m = machine_irqchip();
	const uint32_t lvt = VECTOR | 2 << 17;
	struct kvm_lapic_state state;

	machine_waiting(&m, VECTOR);
	if (khz)
		CHECK_EQ(ioctl(m.vcpu, KVM_SET_TSC_KHZ, khz), 0);
	set_leaves(m.vcpu, &leaf, 1);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_LAPIC, &state), 0);
	memcpy(state.regs + LVT_TIMER, &lvt, sizeof(lvt));
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_LAPIC, &state), 0);
	return m;
}

/* Within KVM's tolerance of 250 ppm the TSC is not scaled: it runs slower than is said here. */
static void test_rate(void)
{
	struct machine m = waiting(0);
	long khz = ioctl(m.vcpu, KVM_GET_TSC_KHZ, 0);

	m = waiting(khz + khz / 4100);
	CHECK_EQ(msr_set(m.vcpu, MSR_TSC_DEADLINE, msr_get(m.vcpu, MSR_TSC) + khz * 1500), 1);
	INTERRUPTED(&m);
}

static void test_set_back(void)
{
	struct machine m = waiting(0);
	uint64_t khz = ioctl(m.vcpu, KVM_GET_TSC_KHZ, 0), deadline;

	CHECK_EQ(msr_set(m.vcpu, MSR_TSC, khz * 5000), 1);
	deadline = msr_get(m.vcpu, MSR_TSC) + khz * 100;
	CHECK_EQ(msr_set(m.vcpu, MSR_TSC_DEADLINE, deadline), 1);
	CHECK_EQ(msr_set(m.vcpu, MSR_TSC, deadline - khz * 300), 1);
	INTERRUPTED(&m);
	CHECK(msr_get(m.vcpu, MSR_TSC) >= deadline);
}

int main(void)
{
	test_rate();
	test_set_back();
	return 0;
}
