/* SPDX-License-Identifier: MIT */
/*
 * Instructions that change single flags (SDM, instruction reference). CLI and STI go by IOPL, and by VIF
 * and VIP under CR4.VME (virtual-8086 mode) or CR4.PVI (CPL 3).
 */
#include "silicon/exec/emul.h"

#define ARITH_CF   (FLAG_CF << 8)
#define ARITH_LAHF ((FLAGS_ARITH & 0xff) << 8)

enum result emul_clc(struct cpu *cpu, const struct insn *insn)
{
	cpu->aflags &= ~ARITH_CF;
	return insn_next(cpu, insn);
}

enum result emul_stc(struct cpu *cpu, const struct insn *insn)
{
	cpu->aflags |= ARITH_CF;
	return insn_next(cpu, insn);
}

enum result emul_cmc(struct cpu *cpu, const struct insn *insn)
{
	cpu->aflags ^= ARITH_CF;
	return insn_next(cpu, insn);
}

enum result emul_cld(struct cpu *cpu, const struct insn *insn)
{
	cpu->sflags &= ~FLAG_DF;
	return insn_next(cpu, insn);
}

enum result emul_std(struct cpu *cpu, const struct insn *insn)
{
	cpu->sflags |= FLAG_DF;
	return insn_next(cpu, insn);
}

enum result emul_lahf(struct cpu *cpu, const struct insn *insn)
{
	reg_write(cpu, RSP, 1, true, cpu_rflags(cpu)); /* number 4 is AH */
	return insn_next(cpu, insn);
}

enum result emul_sahf(struct cpu *cpu, const struct insn *insn)
{
	cpu->aflags = (cpu->aflags & ~ARITH_LAHF) | (cpu->gpr[RAX] & ARITH_LAHF);
	return insn_next(cpu, insn);
}

/* ---- CLI, STI ---- */

enum if_access { IF_REAL, IF_VIRTUAL, IF_REFUSED };

/* Which interrupt flag CLI and STI change here. */
static enum if_access if_access(const struct cpu *cpu)
{
	unsigned iopl = (cpu->sflags & FLAG_IOPL) >> 12;

	if (cpu->mode.cpl <= iopl)
		return IF_REAL;
	if (cpu->mode.v86)
		return cpu->cr4 & CR4_VME ? IF_VIRTUAL : IF_REFUSED;
	return cpu->mode.cpl == 3 && (cpu->cr4 & CR4_PVI) ? IF_VIRTUAL : IF_REFUSED;
}

enum result emul_cli(struct cpu *cpu, const struct insn *insn)
{
	switch (if_access(cpu)) {
	case IF_REAL:
		cpu->sflags &= ~FLAG_IF;
		break;
	case IF_VIRTUAL:
		cpu->sflags &= ~FLAG_VIF;
		break;
	case IF_REFUSED:
		return fault_gp(cpu, 0);
	}
	return insn_next(cpu, insn);
}

/* Interrupts stay shut for one more instruction if they were. */
static void open_interrupts(struct cpu *cpu)
{
	if (cpu->sflags & FLAG_IF)
		return;
	cpu->sflags |= FLAG_IF;
	cpu_set_shadow(cpu, SHADOW_STI);
	cpu_look(cpu);
}

enum result emul_sti(struct cpu *cpu, const struct insn *insn)
{
	switch (if_access(cpu)) {
	case IF_REAL:
		open_interrupts(cpu);
		break;
	case IF_VIRTUAL:
		if (cpu->sflags & FLAG_VIP)
			return fault_gp(cpu, 0);
		cpu->sflags |= FLAG_VIF;
		break;
	case IF_REFUSED:
		return fault_gp(cpu, 0);
	}
	return insn_next(cpu, insn);
}
