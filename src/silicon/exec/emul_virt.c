/* SPDX-License-Identifier: MIT */
/*
 * VMX and SVM, as exec/ meets them: their instructions, and instructions that may lead to an exit.
 *
 * All checks of VMXON, VMRUN and so on are those of cpu->virt's room; here operands are named. In guest mode
 * (KEY_GUEST) what may be intercepted is decoded with run_watched() before its handler, which notes the
 * instruction for the exit. So it costs nothing outside of guest mode, and in translated code it is a callout.
 */
#include "silicon/exec/decode.h"
#include "silicon/exec/emul.h"

#include <Zydis/Zydis.h>

static uint8_t general_register(uint8_t slot)
{
	return slot < NR_GPRS ? slot : VIRT_NO_REG;
}

static void note(const struct cpu *cpu, const struct insn *insn, struct virt_insn *ret)
{
	*ret = (struct virt_insn){
		.len = insn->len,
		.opsize = insn->opsize,
		.addrsize = insn->addrsize,
		.mem = insn->flags & INSN_MEM,
		.seg = insn->flags & INSN_MEM ? insn->seg : emul_implicit_seg(cpu, insn),
		.base = general_register(insn->base),
		.index = general_register(insn->index),
		.scale = insn->scale,
		.reg = insn->reg,
		.rm = insn->rm,
		.rep = insn->flags & INSN_REP,
		.nr_bytes = insn->len,
		.disp = insn->disp,
		.off = insn_ea(cpu, insn),
	};
	__builtin_memcpy(ret->bytes, insn->bytes, sizeof(ret->bytes));
}

enum result run_watched(struct cpu *cpu, const struct insn *insn)
{
	note(cpu, insn, &cpu->virt->insn);
	return insn->watched(cpu, insn);
}

/* Those of each exit first. */
static const struct {
	uint16_t mnemonic;
	uint8_t op;
} ops[] = {
	{ZYDIS_MNEMONIC_VMREAD, VIRT_VMREAD},	  {ZYDIS_MNEMONIC_VMWRITE, VIRT_VMWRITE},
	{ZYDIS_MNEMONIC_VMRESUME, VIRT_VMRESUME}, {ZYDIS_MNEMONIC_VMLOAD, VIRT_VMLOAD},
	{ZYDIS_MNEMONIC_VMSAVE, VIRT_VMSAVE},	  {ZYDIS_MNEMONIC_VMRUN, VIRT_VMRUN},
	{ZYDIS_MNEMONIC_STGI, VIRT_STGI},	  {ZYDIS_MNEMONIC_CLGI, VIRT_CLGI},
	{ZYDIS_MNEMONIC_VMXON, VIRT_VMXON},	  {ZYDIS_MNEMONIC_VMXOFF, VIRT_VMXOFF},
	{ZYDIS_MNEMONIC_VMCLEAR, VIRT_VMCLEAR},	  {ZYDIS_MNEMONIC_VMPTRLD, VIRT_VMPTRLD},
	{ZYDIS_MNEMONIC_VMPTRST, VIRT_VMPTRST},	  {ZYDIS_MNEMONIC_VMLAUNCH, VIRT_VMLAUNCH},
	{ZYDIS_MNEMONIC_VMFUNC, VIRT_VMFUNC},	  {ZYDIS_MNEMONIC_INVEPT, VIRT_INVEPT},
	{ZYDIS_MNEMONIC_INVVPID, VIRT_INVVPID},	  {ZYDIS_MNEMONIC_SKINIT, VIRT_SKINIT},
	{ZYDIS_MNEMONIC_INVLPGA, VIRT_INVLPGA},
};

enum result emul_virt(struct cpu *cpu, const struct insn *insn)
{
	if (!cpu->virt)
		return fault_ud(cpu);
	note(cpu, insn, &cpu->virt->insn);
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++)
		if (ops[i].mnemonic == insn->op)
			return cpu->virt->ops->insn(cpu, ops[i].op, &cpu->virt->insn);
	return fault_ud(cpu);
}
