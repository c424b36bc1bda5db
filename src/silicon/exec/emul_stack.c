/* SPDX-License-Identifier: MIT */
/*
 * Stack instructions (SDM, instruction reference: PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE).
 *
 * The stack pointer's width is the mode's (SS.B, 64-bit mode), the item's is the operand size. RSP is
 * written last, so a fault in the middle leaves it alone; where several items are written, all of
 * them are probed first.
 */
#include "silicon/exec/emul.h"

#define MAX_FRAMES 32 /* ENTER's nesting levels, and more than PUSHA's eight */

/* ---- PUSH ---- */

static enum result push_value(struct cpu *cpu, const struct insn *insn, unsigned size, uint64_t val)
{
	uint64_t sp = cpu->gpr[RSP];
	enum result r = emul_push(cpu, &sp, size, val);

	if (r)
		return r;
	emul_set_sp(cpu, sp);
	return insn_next(cpu, insn);
}

/* Intel writes 2 bytes of a 4-byte slot and leaves the rest as it was; AMD zero-extends. */
static enum result push_segment(struct cpu *cpu, const struct insn *insn, enum seg_id seg)
{
	unsigned size = emul_stack_opsize(cpu, insn);
	uint64_t sp = (cpu->gpr[RSP] - size) & emul_stack_mask(cpu);
	unsigned width = size == 4 && model_intel(cpu->model) ? 2 : size;
	enum result r = seg_write(cpu, SEG_SS, sp, width, cpu->seg[seg].sel);

	if (r)
		return r;
	emul_set_sp(cpu, sp);
	return insn_next(cpu, insn);
}

/* 06 0E 16 1E, 0F A0 and 0F A8 (and POP's one above): bits 5 to 3 of the opcode, in all six. */
static enum seg_id opcode_segment(const struct insn *insn)
{
	return insn->opcode >= 0xa0 ? SEG_FS + (insn->opcode >= 0xa8) : insn->opcode >> 3 & 3;
}

enum result emul_push_any(struct cpu *cpu, const struct insn *insn)
{
	unsigned size = emul_stack_opsize(cpu, insn);
	uint64_t val;
	enum result r;

	switch (insn->opcode) {
	case 0x50 ... 0x57:
		return push_value(cpu, insn, size,
				  reg_read(cpu, emul_opcode_reg(insn), size, false));
	case 0x68:
	case 0x6a:
		return push_value(cpu, insn, size, insn->imm & emul_mask(size));
	case 0xff:
		r = emul_read_rm(cpu, insn, size, &val);
		return r ? r : push_value(cpu, insn, size, val);
	}
	return push_segment(cpu, insn, opcode_segment(insn));
}

/* ---- POP ---- */

/* POP from sp into a register: RSP moves first, so that POP RSP keeps what was popped. */
static enum result pop_from(struct cpu *cpu, const struct insn *insn, uint64_t sp, unsigned reg)
{
	unsigned size = emul_stack_opsize(cpu, insn);
	uint64_t val;
	enum result r = emul_pop(cpu, &sp, size, &val);

	if (r)
		return r;
	emul_set_sp(cpu, sp);
	reg_write(cpu, reg, size, false, val);
	return insn_next(cpu, insn);
}

static enum result pop_reg(struct cpu *cpu, const struct insn *insn, unsigned reg)
{
	return pop_from(cpu, insn, cpu->gpr[RSP], reg);
}

/* The address of POP [RSP+n] is computed with RSP moved already. */
static enum result pop_mem(struct cpu *cpu, const struct insn *insn)
{
	unsigned size = emul_stack_opsize(cpu, insn);
	uint64_t old = cpu->gpr[RSP], sp = old, val, ea;
	enum result r = emul_pop(cpu, &sp, size, &val);

	if (r)
		return r;
	emul_set_sp(cpu, sp);
	ea = insn_ea(cpu, insn);
	r = seg_write(cpu, insn->seg, ea, size, val);
	if (r) {
		cpu->gpr[RSP] = old;
		return r;
	}
	return insn_next(cpu, insn);
}

/* Only the selector's two bytes are read. POP SS moves the stack pointer in its old width. */
static enum result pop_segment(struct cpu *cpu, const struct insn *insn, enum seg_id seg)
{
	unsigned size = emul_stack_opsize(cpu, insn), width = cpu->mode.stack_bytes;
	uint64_t sp = cpu->gpr[RSP] & emul_stack_mask(cpu), next, sel;
	enum result r = seg_read(cpu, SEG_SS, sp, 2, &sel);

	if (r)
		return r;
	next = (sp + size) & emul_stack_mask(cpu);
	r = sys_load_segment(cpu, seg, sel);
	if (r)
		return r;
	reg_write(cpu, RSP, width, false, next);
	if (seg == SEG_SS)
		cpu_set_shadow(cpu, SHADOW_MOV_SS);
	return insn_next(cpu, insn);
}

enum result emul_pop_any(struct cpu *cpu, const struct insn *insn)
{
	switch (insn->opcode) {
	case 0x58 ... 0x5f:
		return pop_reg(cpu, insn, emul_opcode_reg(insn));
	case 0x8f:
		return insn->flags & INSN_MEM ? pop_mem(cpu, insn) : pop_reg(cpu, insn, insn->rm);
	}
	return pop_segment(cpu, insn, opcode_segment(insn));
}

/* ---- PUSHA, POPA ---- */

/* Check that nr items below sp can be written. */
static enum result probe_pushes(struct cpu *cpu, uint64_t sp, unsigned size, unsigned nr)
{
	enum result r = RESULT_OK;
	gva_t addr;

	for (unsigned i = 0; i < nr && !r; i++) {
		sp = (sp - size) & emul_stack_mask(cpu);
		r = seg_linear(cpu, SEG_SS, sp, size, ACCESS_WRITE, &addr);
		if (!r)
			r = mmu_probe(cpu, addr, size, ACCESS_WRITE);
	}
	return r;
}

enum result emul_pusha(struct cpu *cpu, const struct insn *insn)
{
	unsigned size = emul_opsize(cpu, insn);
	uint64_t sp = cpu->gpr[RSP];
	enum result r = probe_pushes(cpu, sp, size, 8);

	for (unsigned reg = RAX; reg <= RDI && !r; reg++)
		r = emul_push(cpu, &sp, size, cpu->gpr[reg] & emul_mask(size));
	if (r)
		return r;
	emul_set_sp(cpu, sp);
	return insn_next(cpu, insn);
}

enum result emul_popa(struct cpu *cpu, const struct insn *insn)
{
	unsigned size = emul_opsize(cpu, insn);
	uint64_t sp = cpu->gpr[RSP], val[8];
	enum result r;

	for (int reg = RDI; reg >= RAX; reg--) {
		r = emul_pop(cpu, &sp, size, &val[reg]);
		if (r)
			return r;
	}
	for (unsigned reg = RAX; reg <= RDI; reg++)
		if (reg != RSP)
			reg_write(cpu, reg, size, false, val[reg]);
	emul_set_sp(cpu, sp);
	return insn_next(cpu, insn);
}

/* ---- PUSHF, POPF ---- */

static unsigned iopl(const struct cpu *cpu)
{
	return (cpu->sflags & FLAG_IOPL) >> 12;
}

/* Virtual-8086 mode with IOPL below 3: virtual flags with CR4.VME and a 16-bit operand, else #GP(0). */
static bool v86_virtual(const struct cpu *cpu)
{
	return cpu->mode.v86 && iopl(cpu) < 3;
}

static bool v86_refused(const struct cpu *cpu, unsigned size)
{
	return v86_virtual(cpu) && (!(cpu->cr4 & CR4_VME) || size != 2);
}

enum result emul_pushf(struct cpu *cpu, const struct insn *insn)
{
	unsigned size = emul_stack_opsize(cpu, insn);
	uint64_t image = cpu_rflags(cpu) & ~(FLAG_VM | FLAG_RF);

	if (v86_refused(cpu, size))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_PUSHF, 0))
		return EMUL_INTERCEPTED;
	if (v86_virtual(cpu)) {
		image = (image & ~FLAG_IF) | FLAG_IOPL;
		if (cpu->sflags & FLAG_VIF)
			image |= FLAG_IF;
	}
	return push_value(cpu, insn, size, image & emul_mask(size));
}

/* Flags that POPF may change here; VM, VIF and VIP never. */
static uint64_t popf_mask(const struct cpu *cpu, unsigned size)
{
	uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;

	if (size > 2)
		mask |= FLAG_AC | FLAG_ID;
	if (cpu->mode.cpl == 0)
		mask |= FLAG_IOPL;
	if (cpu->mode.cpl <= iopl(cpu))
		mask |= FLAG_IF;
	return mask;
}

/* IF stands for VIF; TF, or IF while an interrupt is pending, is the monitor's to handle. */
static enum result popf_virtual(struct cpu *cpu, uint64_t image, uint64_t *ret)
{
	uint64_t mask = FLAGS_ARITH | FLAG_DF | FLAG_NT | FLAG_TF;

	if ((image & FLAG_TF) || ((image & FLAG_IF) && (cpu->sflags & FLAG_VIP)))
		return fault_gp(cpu, 0);
	*ret = (cpu_rflags(cpu) & ~(mask | FLAG_VIF)) | (image & mask);
	if (image & FLAG_IF)
		*ret |= FLAG_VIF;
	return RESULT_OK;
}

enum result emul_popf(struct cpu *cpu, const struct insn *insn)
{
	unsigned size = emul_stack_opsize(cpu, insn);
	uint64_t sp = cpu->gpr[RSP], image, mask = popf_mask(cpu, size);
	enum result r;

	if (v86_refused(cpu, size))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_POPF, 0))
		return EMUL_INTERCEPTED;
	r = emul_pop(cpu, &sp, size, &image);
	if (r)
		return r;
	if (v86_virtual(cpu)) {
		r = popf_virtual(cpu, image, &image);
		if (r)
			return r;
	} else {
		image = (cpu_rflags(cpu) & ~mask) | (image & mask);
	}
	emul_set_sp(cpu, sp);
	insn_next(cpu, insn);
	cpu_set_rflags(cpu, image & ~FLAG_RF);
	return RESULT_OK;
}

/* ---- ENTER, LEAVE ---- */

/* Check the display's reads at [BP] and the write at the final stack pointer. */
static enum result probe_enter(struct cpu *cpu, unsigned size, unsigned level, uint64_t final)
{
	uint64_t mask = emul_stack_mask(cpu), bp = cpu->gpr[RBP];
	enum result r = probe_pushes(cpu, cpu->gpr[RSP], size, level ? level + 1 : 1);
	gva_t addr;

	for (unsigned i = 1; i < level && !r; i++) {
		bp -= size;
		r = seg_linear(cpu, SEG_SS, bp & mask, size, ACCESS_READ, &addr);
		if (!r)
			r = mmu_probe(cpu, addr, size, ACCESS_READ);
	}
	if (r)
		return r;
	r = seg_linear(cpu, SEG_SS, final & mask, size, ACCESS_WRITE, &addr);
	return r ? r : mmu_probe(cpu, addr, size, ACCESS_WRITE);
}

/* Copy the display of the enclosing frames, then the new frame's own pointer. */
static enum result push_display(struct cpu *cpu, unsigned size, unsigned level, uint64_t frame,
				uint64_t *sp)
{
	uint64_t bp = cpu->gpr[RBP], val;
	enum result r = RESULT_OK;

	for (unsigned i = 1; i < level && !r; i++) {
		bp -= size;
		r = seg_read(cpu, SEG_SS, bp & emul_stack_mask(cpu), size, &val);
		if (!r)
			r = emul_push(cpu, sp, size, val);
	}
	return r ? r : emul_push(cpu, sp, size, frame & emul_mask(size));
}

/* The frame pointer is as wide as the operand, not as the stack (so do processors, whatever the manual says). */
enum result emul_enter(struct cpu *cpu, const struct insn *insn)
{
	unsigned size = emul_stack_opsize(cpu, insn), level = insn->imm2 % MAX_FRAMES;
	uint64_t sp = cpu->gpr[RSP], alloc = (uint16_t)insn->imm, frame;
	unsigned nr = level ? level + 1 : 1;
	enum result r = probe_enter(cpu, size, level, sp - nr * size - alloc);

	if (r)
		return r;
	r = emul_push(cpu, &sp, size, cpu->gpr[RBP] & emul_mask(size));
	frame = (cpu->gpr[RSP] & ~emul_stack_mask(cpu)) | sp;
	if (!r && level)
		r = push_display(cpu, size, level, frame, &sp);
	if (r)
		return r;
	reg_write(cpu, RBP, size, false, frame);
	emul_set_sp(cpu, sp - alloc);
	return insn_next(cpu, insn);
}

enum result emul_leave(struct cpu *cpu, const struct insn *insn)
{
	return pop_from(cpu, insn, cpu->gpr[RBP], RBP);
}
