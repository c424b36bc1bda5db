/* SPDX-License-Identifier: MIT */
/* A local APIC's registers in a page of guest memory: physical accesses past the TLB, 32 bits each. */
#include "silicon/sys/apic_page.h"

#include "silicon/mmu/mmu.h"

uint32_t sys_apic_read(struct cpu *cpu, gpa_t page, unsigned offset)
{
	uint32_t val;

	return mmu_read_phys_bytes(cpu, page + offset, &val, sizeof(val)) ? 0 : val;
}

void sys_apic_write(struct cpu *cpu, gpa_t page, unsigned offset, uint32_t val)
{
	mmu_write_phys_bytes(cpu, page + offset, &val, sizeof(val));
}

uint8_t sys_apic_highest(struct cpu *cpu, gpa_t page, unsigned base)
{
	for (int i = 7; i >= 0; i--) {
		uint32_t val = sys_apic_read(cpu, page, base + 16 * i);

		if (val)
			return 32 * i + 31 - __builtin_clz(val);
	}
	return 0;
}
