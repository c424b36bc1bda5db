/* SPDX-License-Identifier: MIT */
/*
 * Breakpoints (SDM, debug registers), the guest's own or the program's in their place, and exits to
 * the program's debugger.
 *
 * DR6 reports every condition that matched, also of breakpoints that DR7 leaves disabled, once an
 * enabled one matched.
 */
#include "silicon/sys/sys_internal.h"

enum bp_kind { BP_CODE = 0, BP_IO = 2 };

static unsigned bp_kind(uint64_t dr7, unsigned i)
{
	return dr7 >> (16 + i * 4) & 3;
}

static uint64_t bp_size(uint64_t dr7, unsigned i)
{
	static const uint8_t sizes[] = {1, 2, 8, 4};

	return sizes[dr7 >> (18 + i * 4) & 3];
}

static bool bp_enabled(uint64_t dr7, unsigned i)
{
	return dr7 >> (i * 2) & 3;
}

static bool bp_overlaps(const struct cpu *cpu, unsigned i, uint64_t addr, uint64_t size)
{
	uint64_t len = bp_size(cpu_dr7(cpu), i);
	uint64_t start = cpu_dr(cpu, i) & ~(len - 1);

	return start <= addr + size - 1 && addr <= start + len - 1;
}

/* DR6 bits for an access of the kinds in the set; 0 unless an enabled breakpoint matches. */
static uint64_t bp_match(const struct cpu *cpu, unsigned kinds, uint64_t addr, uint64_t size)
{
	uint64_t dr7 = cpu_dr7(cpu);
	uint64_t matched = 0;
	bool hit = false;

	for (unsigned i = 0; i < 4; i++) {
		if (!(kinds >> bp_kind(dr7, i) & 1) || !bp_overlaps(cpu, i, addr, size))
			continue;
		matched |= BIT(i);
		hit |= bp_enabled(dr7, i);
	}
	return hit ? matched : 0;
}

static bool any_armed(const struct cpu *cpu)
{
	return cpu_dr7(cpu) & 0xff;
}

enum result sys_check_code_bp(struct cpu *cpu, gva_t addr)
{
	uint64_t matched;

	if ((cpu->sflags & FLAG_RF) || !any_armed(cpu))
		return RESULT_OK;
	matched = bp_match(cpu, BIT(BP_CODE), addr, 1);
	return matched ? fault_debug(cpu, matched) : RESULT_OK;
}

/* I/O breakpoints exist only under CR4.DE. */
void sys_check_io_bp(struct cpu *cpu, uint16_t port, unsigned size)
{
	uint64_t matched;

	if (!any_armed(cpu) || !(cpu->cr4 & CR4_DE))
		return;
	matched = bp_match(cpu, BIT(BP_IO), port, size);
	if (!matched)
		return;
	cpu->pending_dr6 |= matched;
	cpu_raise(cpu, ATTN_DEBUG);
}

/* ---- the program's debugger ---- */

bool debug_by_program(const struct cpu *cpu)
{
	return cpu->debug.enabled && (cpu->debug.singlestep || cpu->debug.use_hw_bp);
}

enum result debug_exit(struct cpu *cpu, uint8_t vector, uint64_t dr6, enum result how)
{
	cpu->exit = (struct cpu_exit){
		.kind = CPU_EXIT_DEBUG,
		.exception = vector,
		.pc = cpu->seg[SEG_CS].base + cpu->rip,
		.dr6 = (dr6 & DR6_VOLATILE) | DR6_FIXED_1,
		.dr7 = cpu_dr7(cpu),
	};
	cpu->fault.valid = false;
	return how;
}
