/* SPDX-License-Identifier: MIT */
/*
 * Where a local APIC's registers stand (SDM, the APIC register address map): in its page, in VMX's virtual-APIC page, in
 * AVIC's backing page. IRR, ISR and TMR have 32 vectors in each of eight registers.
 */
#ifndef SILICON_CPU_LAPIC_REG_H
#define SILICON_CPU_LAPIC_REG_H

#include "silicon/cpu/types.h"

#define MSR_APIC_BASE	  0x1b
#define APIC_BASE_BSP	  BIT(8)
#define APIC_BASE_X2APIC  BIT(10)
#define APIC_BASE_ENABLED BIT(11)

/* Register offsets; MSR = 800h + offset / 16. */
enum lapic_reg {
	LAPIC_ID = 0x20,
	LAPIC_VERSION = 0x30,
	LAPIC_TPR = 0x80,
	LAPIC_APR = 0x90,
	LAPIC_PPR = 0xa0,
	LAPIC_EOI = 0xb0,
	LAPIC_LDR = 0xd0,
	LAPIC_DFR = 0xe0,
	LAPIC_SVR = 0xf0,
	LAPIC_ISR = 0x100,
	LAPIC_TMR = 0x180,
	LAPIC_IRR = 0x200,
	LAPIC_ESR = 0x280,
	LAPIC_LVT_CMCI = 0x2f0,
	LAPIC_ICR = 0x300,
	LAPIC_ICR2 = 0x310,
	LAPIC_LVT_TIMER = 0x320,
	LAPIC_LVT_THERMAL = 0x330,
	LAPIC_LVT_PC = 0x340,
	LAPIC_LVT_LINT0 = 0x350,
	LAPIC_LVT_LINT1 = 0x360,
	LAPIC_LVT_ERROR = 0x370,
	LAPIC_TIMER_INITIAL = 0x380,
	LAPIC_TIMER_CURRENT = 0x390,
	LAPIC_TIMER_DIVIDE = 0x3e0,
	LAPIC_SELF_IPI = 0x3f0,
};

#endif
