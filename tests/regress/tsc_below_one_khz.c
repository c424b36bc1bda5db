/* SPDX-License-Identifier: MIT */
/*
 * A TSC of 1 kHz: its ratio to the host's, rounded down, made a frequency of 0, which the clock's scale was sought for
 * without end.
 */
#include "../api/pv.h"

#include <linux/kvm_para.h>

int main(void)
{
	struct machine m = machine_irqchip();

	MACHINE_CODE(&m, 0xe6, 0x80);
	if (ioctl(m.vcpu, KVM_SET_TSC_KHZ, 1))
		return 77; /* no scaling */
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_SYSTEM_TIME_NEW, 0x3001), 1);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK(ram32(&m, 0x3000));
	return 0;
}
