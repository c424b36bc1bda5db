/* SPDX-License-Identifier: MIT */
/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM; APM for the legacy-mode forms). Segments are made, not
 * loaded: no descriptor is read. Where the vendors differ, models/ says so.
 */
#include "silicon/sys/sys_internal.h"

#define FLAT_LIMIT 0xffffffffu

static struct segment flat_code(uint16_t sel, unsigned dpl, bool wide)
{
	return (struct segment){
		.sel = sel,
		.limit = FLAT_LIMIT,
		.attr = SEG_P | SEG_S | SEG_CODE | SEG_W | SEG_A | SEG_G | dpl << SEG_DPL_SHIFT |
			(wide ? SEG_L : SEG_DB),
	};
}

static struct segment flat_stack(uint16_t sel, unsigned dpl)
{
	return (struct segment){
		.sel = sel,
		.limit = FLAT_LIMIT,
		.attr = SEG_P | SEG_S | SEG_W | SEG_A | SEG_G | SEG_DB | dpl << SEG_DPL_SHIFT,
	};
}

static void enter(struct cpu *cpu, uint16_t sel, bool wide, uint64_t rip)
{
	cpu->seg[SEG_CS] = flat_code(sel & 0xfffc, 0, wide);
	cpu->seg[SEG_SS] = flat_stack((sel & 0xfffc) + 8, 0);
	cpu->rip = rip;
	sys_mode_changed(cpu);
}

/* ---- SYSCALL and SYSRET ---- */

static bool syscall_here(const struct cpu *cpu)
{
	if (!(cpu->msr.efer & EFER_SCE) || cpu->mode.real)
		return false;
	return cpu_64bit(cpu) || model_syscall_legacy(cpu->model);
}

static void syscall_long(struct cpu *cpu, uint64_t next)
{
	uint64_t rflags = cpu_rflags(cpu) & ~(uint64_t)FLAG_RF;
	bool had_tf = rflags & FLAG_TF;

	cpu->gpr[RCX] = next;
	cpu->gpr[R11] = rflags;
	rflags &= ~cpu->msr.sfmask;
	if (had_tf && !(rflags & FLAG_TF))
		cpu->pending_dr6 |= PENDING_NO_STEP;
	cpu_set_rflags(cpu, rflags);
	enter(cpu, cpu->msr.star >> 32, true, cpu_64bit(cpu) ? cpu->msr.lstar : cpu->msr.cstar);
}

static void syscall_legacy(struct cpu *cpu, uint64_t next)
{
	cpu->gpr[RCX] = (uint32_t)next;
	cpu_set_rflags(cpu, cpu_rflags(cpu) & ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF));
	enter(cpu, cpu->msr.star >> 32, false, (uint32_t)cpu->msr.star);
}

enum result sys_syscall(struct cpu *cpu, uint64_t next)
{
	if (!syscall_here(cpu))
		return fault_ud(cpu);
	if (cpu_long_mode(cpu))
		syscall_long(cpu, next);
	else
		syscall_legacy(cpu, next);
	return RESULT_OK;
}

/* Intel makes SS anew; AMD changes its selector and privilege level only. */
static void sysret_stack(struct cpu *cpu, uint16_t sel)
{
	struct segment *ss = &cpu->seg[SEG_SS];

	if (model_intel(cpu->model)) {
		*ss = flat_stack(sel, 3);
		return;
	}
	ss->sel = sel;
	ss->attr |= 3 << SEG_DPL_SHIFT;
}

static uint64_t sysret_flags(const struct cpu *cpu)
{
	if (cpu_long_mode(cpu))
		return (cpu->gpr[R11] & SYSRET_FLAGS) & ~(uint64_t)(FLAG_RF | FLAG_VM);
	return cpu_rflags(cpu) | FLAG_IF;
}

enum result sys_sysret(struct cpu *cpu, unsigned opsize)
{
	uint16_t sel = cpu->msr.star >> 48;
	bool wide = opsize == 8 && cpu_64bit(cpu);
	uint64_t rip = cpu->gpr[RCX];

	if (!syscall_here(cpu))
		return fault_ud(cpu);
	if (cpu->mode.cpl || cpu->mode.v86)
		return fault_gp(cpu, 0);
	if (wide && model_sysret_checks_rip(cpu->model) && !gva_canonical(cpu, rip))
		return fault_gp(cpu, 0);
	/* All checks passed. */
	cpu_set_rflags(cpu, sysret_flags(cpu));
	cpu->seg[SEG_CS] = flat_code((wide ? sel + 16 : sel) | 3, 3, wide);
	sysret_stack(cpu, (sel + 8) | 3);
	cpu->rip = wide ? rip : (uint32_t)rip;
	sys_mode_changed(cpu);
	return RESULT_OK;
}

/* ---- SYSENTER and SYSEXIT ---- */

static enum result sysenter_check(struct cpu *cpu)
{
	if (cpu_long_mode(cpu) && !model_sysenter_long(cpu->model))
		return fault_ud(cpu);
	if (cpu->mode.real || !(cpu->msr.sysenter_cs & 0xfffc))
		return fault_gp(cpu, 0);
	return RESULT_OK;
}

enum result sys_sysenter(struct cpu *cpu)
{
	bool wide = cpu_long_mode(cpu);
	enum result r = sysenter_check(cpu);

	if (r)
		return r;
	cpu_set_rflags(cpu, cpu_rflags(cpu) & ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF));
	cpu->gpr[RSP] = wide ? cpu->msr.sysenter_esp : (uint32_t)cpu->msr.sysenter_esp;
	enter(cpu, cpu->msr.sysenter_cs, wide,
	      wide ? cpu->msr.sysenter_eip : (uint32_t)cpu->msr.sysenter_eip);
	return RESULT_OK;
}

enum result sys_sysexit(struct cpu *cpu, unsigned opsize)
{
	uint16_t sel = cpu->msr.sysenter_cs & 0xfffc;
	bool wide = opsize == 8;
	uint64_t rip = cpu->gpr[RDX], rsp = cpu->gpr[RCX];
	enum result r = sysenter_check(cpu);

	if (r)
		return r;
	if (cpu->mode.cpl)
		return fault_gp(cpu, 0);
	if (wide && !(gva_canonical(cpu, rip) && gva_canonical(cpu, rsp)))
		return fault_gp(cpu, 0);
	/* All checks passed. */
	sel += wide ? 32 : 16;
	cpu->seg[SEG_CS] = flat_code(sel | 3, 3, wide);
	cpu->seg[SEG_SS] = flat_stack((sel + 8) | 3, 3);
	cpu->rip = wide ? rip : (uint32_t)rip;
	cpu->gpr[RSP] = wide ? rsp : (uint32_t)rsp;
	sys_mode_changed(cpu);
	return RESULT_OK;
}
