/* SPDX-License-Identifier: MIT */
/*
 * A local APIC's registers in a page of guest memory: VMX's virtual-APIC page, AVIC's backing page. vCPU thread only; no
 * locks are needed.
 */
#ifndef SILICON_SYS_APIC_PAGE_H
#define SILICON_SYS_APIC_PAGE_H

#include "silicon/cpu/cpu.h"
#include "silicon/cpu/lapic_reg.h"

/* 0 where the page is not there. */
uint32_t sys_apic_read(struct cpu *cpu, gpa_t page, unsigned offset);
/* A page that is not there takes nothing. */
void sys_apic_write(struct cpu *cpu, gpa_t page, unsigned offset, uint32_t val);
/* The highest vector that is set from base on (LAPIC_IRR, LAPIC_ISR or LAPIC_TMR), or 0. */
uint8_t sys_apic_highest(struct cpu *cpu, gpa_t page, unsigned base);

/* SDM, task and processor priorities: PPR by TPR and the highest vector in service. */
static inline uint8_t sys_apic_ppr(uint8_t tpr, uint8_t service)
{
	return tpr >> 4 >= service >> 4 ? tpr : service & 0xf0;
}

#endif
