/* SPDX-License-Identifier: MIT */
/*
 * An interrupt was ended in memory, and then PV EOI was switched off (as Linux does when it restarts): the end was lost,
 * and with it every later interrupt of that priority or less.
 */
#include "../api/pv.h"

#include <linux/kvm_para.h>

#define PAGE_GPA 0x3000

int main(void)
{
	struct machine m = machine_irqchip();

	machine_waiting(&m, 0x60);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_PV_EOI_EN, PAGE_GPA | 1), 1);
	send_msi(&m, 0x60);
	INTERRUPTED(&m);
	m.ram[PAGE_GPA] = 0;
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_PV_EOI_EN, 0), 1);
	CHECK(!in_service(&m, 0x60));
	return 0;
}
