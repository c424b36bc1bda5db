/* SPDX-License-Identifier: MIT */
/*
 * Gathers and scatters: one access per selected element, lowest first (SDM, VPGATHER and VPSCATTER).
 *
 * Each element that is done is taken out of the mask at once, so that a fault leaves the progress in the
 * registers, and the instruction started anew does the rest.
 */
#include "silicon/exec/borrow.h"
#include "silicon/exec/element.h"

static bool element_selected(struct cpu *cpu, const struct insn *insn, unsigned i)
{
	if (insn->mask_kind == MASK_SIGN)
		return vector_get(cpu, insn->mask_reg, i, insn->elem) >> (8 * insn->elem - 1);
	return *mask_register(cpu, insn->mask_reg) >> i & 1;
}

static void element_done(struct cpu *cpu, const struct insn *insn, unsigned i)
{
	if (insn->mask_kind == MASK_SIGN)
		vector_put(cpu, insn->mask_reg, i, insn->elem, 0);
	else
		*mask_register(cpu, insn->mask_reg) &= ~BIT(i);
}

static enum result element_address(struct cpu *cpu, const struct insn *insn, unsigned i, gva_t *ret)
{
	uint64_t index = vector_get(cpu, insn->vindex, i, insn->index_elem), off;

	if (insn->index_elem == 4)
		index = (int32_t)index;
	off = insn_ea(cpu, insn) + index * insn->scale;
	if (insn->addrsize < 8)
		off &= BIT(8 * insn->addrsize) - 1;
	return seg_linear(cpu, insn->seg, off, insn->elem, insn->mem_op, ret);
}

static enum result move_element(struct cpu *cpu, const struct insn *insn, unsigned i)
{
	uint64_t val;
	gva_t addr;
	enum result r = element_address(cpu, insn, i, &addr);

	if (r)
		return r;
	if (cpu->exit_on_emulation) {
		r = borrow_probe(cpu, insn, addr, insn->elem);
		if (r)
			return r;
	}
	if (insn->mem_op & ACCESS_WRITE)
		return mmu_write(cpu, addr, insn->elem, vector_get(cpu, insn->reg, i, insn->elem));
	r = mmu_read(cpu, addr, insn->elem, &val);
	if (!r)
		vector_put(cpu, insn->reg, i, insn->elem, val);
	return r;
}

/* Bytes of a register beyond the vector that was written are zero. */
static void clear_above(struct cpu *cpu, unsigned reg, unsigned from)
{
	unsigned limit = cpu->exec->xoff_zmm_hi ? 64 : 32;

	for (unsigned at = from; at < limit; at += 8)
		*(uint64_t *)vector_byte(cpu, reg, at) = 0;
}

static void finish_gather(struct cpu *cpu, const struct insn *insn)
{
	if (!(insn->mem_op & ACCESS_WRITE))
		clear_above(cpu, insn->reg, insn->nr_elem * insn->elem);
	if (insn->mask_kind == MASK_SIGN)
		clear_above(cpu, insn->mask_reg, 0);
	else
		*mask_register(cpu, insn->mask_reg) = 0;
}

/*
 * At a fault a vector mask is left as silicon leaves it: all ones or all zeros for each element, and
 * zero above the vector; so is the destination, once anything was loaded.
 */
static void leave_partial(struct cpu *cpu, const struct insn *insn, bool loaded)
{
	unsigned size = insn->nr_mask;

	if (insn->mask_kind != MASK_SIGN)
		return;
	/* Where indices are wider than data, the mask is spread over the indices' width. */
	for (unsigned i = 0; i < size / insn->elem; i++)
		vector_put(cpu, insn->mask_reg, i, insn->elem,
			   element_selected(cpu, insn, i) ? ~0ull : 0);
	clear_above(cpu, insn->mask_reg, size);
	if (loaded)
		clear_above(cpu, insn->reg, insn->nr_elem * insn->elem);
}

enum result run_gather(struct cpu *cpu, const struct insn *insn)
{
	enum result r = RESULT_OK;
	bool loaded = false;

	fpu_save(cpu);
	vector_changed(cpu);
	for (unsigned i = 0; i < insn->nr_elem && !r; i++) {
		if (!element_selected(cpu, insn, i))
			continue;
		r = move_element(cpu, insn, i);
		if (!r) {
			element_done(cpu, insn, i);
			loaded = true;
		}
	}
	if (r) {
		leave_partial(cpu, insn, loaded);
		return r;
	}
	finish_gather(cpu, insn);
	return insn_next(cpu, insn);
}

/* Outside of 64-bit mode only the eight registers that exist there are cleared. */
enum result run_vzero(struct cpu *cpu, const struct insn *insn)
{
	fpu_save(cpu);
	vector_changed(cpu);
	for (unsigned reg = 0; reg < 8; reg++)
		clear_above(cpu, reg, insn->nr_elem);
	return insn_next(cpu, insn);
}
