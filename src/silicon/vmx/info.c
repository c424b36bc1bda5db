/* SPDX-License-Identifier: MIT */
/* VM-exit instruction information, in its forms (SDM, information for VM exits due to instruction execution). */
#include "silicon/vmx/vmx_internal.h"

#define NO_INDEX BIT(22)
#define NO_BASE	 BIT(27)
#define REGISTER BIT(10)

static uint32_t size_code(unsigned bytes)
{
	return bytes == 2 ? 0 : bytes == 4 ? 1 : 2;
}

/* Bits 1:0, 9:7 and 27:15: the memory operand. */
static uint32_t operand(const struct virt_insn *insn)
{
	uint32_t info = size_code(insn->addrsize) << 7 | (uint32_t)insn->seg << 15;

	if (insn->index == VIRT_NO_REG)
		info |= NO_INDEX;
	else
		info |= (uint32_t)__builtin_ctz(insn->scale | 8) | (uint32_t)insn->index << 18;
	if (insn->base == VIRT_NO_REG)
		info |= NO_BASE;
	else
		info |= (uint32_t)insn->base << 23;
	return info;
}

uint32_t info_memory(const struct virt_insn *insn, unsigned reg2)
{
	return operand(insn) | (uint32_t)reg2 << 28;
}

uint32_t info_vmread(const struct virt_insn *insn)
{
	if (insn->mem)
		return info_memory(insn, insn->reg);
	return REGISTER | (uint32_t)insn->rm << 3 | (uint32_t)insn->reg << 28;
}

/* INS and OUTS: address size and, for OUTS, the segment. */
uint32_t info_string(const struct virt_insn *insn)
{
	return size_code(insn->addrsize) << 7 | (uint32_t)insn->seg << 15;
}

/* op: 0 SGDT, 1 SIDT, 2 LGDT, 3 LIDT. */
uint32_t info_dt(const struct virt_insn *insn, unsigned op)
{
	return operand(insn) | (insn->opsize == 2 ? 0 : BIT(11)) | (uint32_t)op << 28;
}

/* op: 0 SLDT, 1 STR, 2 LLDT, 3 LTR. */
uint32_t info_ldtr(const struct virt_insn *insn, unsigned op)
{
	uint32_t info = insn->mem ? operand(insn) : REGISTER | (uint32_t)insn->rm << 3;

	return info | (uint32_t)op << 28;
}

/* RDRAND, RDSEED: destination and operand size. */
uint32_t info_reg(const struct virt_insn *insn)
{
	return (uint32_t)insn->rm << 3 | size_code(insn->opsize) << 11;
}
