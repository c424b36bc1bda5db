/* SPDX-License-Identifier: MIT */
/*
 * Vector loads and stores under a mask: faults of elements left out are suppressed.
 *
 * Where the whole operand may be accessed, which is the rule, the thunk runs on it as ever. Else the mask
 * is read from the saved image, only the selected elements are checked and moved, and the thunk runs
 * on a buffer that has them.
 */
#include "silicon/exec/borrow.h"
#include "silicon/exec/element.h"

#define LINE 64

/* VMASKMOV and VPMASKMOV: sign bits of a vector register. */
static uint64_t sign_mask(struct cpu *cpu, const struct insn *insn)
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < insn->nr_elem; i++)
		mask |= (vector_get(cpu, insn->mask_reg, i, insn->elem) >> (8 * insn->elem - 1))
			<< i;
	return mask;
}

/* Several elements of the result come from one in memory. */
static uint64_t fold(uint64_t mask, unsigned nr)
{
	uint64_t folded = 0;

	for (unsigned i = 0; i < 64; i++)
		folded |= (mask >> i & 1) << i % nr;
	return folded;
}

static uint64_t low_bits(unsigned nr)
{
	return nr >= 64 ? ~0ull : BIT(nr) - 1;
}

/* Without the compiler's helper, which may be built with vector registers. */
static unsigned count_bits(uint64_t mask)
{
	unsigned nr = 0;

	for (; mask; mask &= mask - 1)
		nr++;
	return nr;
}

/* Elements of the memory operand that are accessed. */
static uint64_t selected(struct cpu *cpu, const struct insn *insn)
{
	uint64_t mask;

	if (insn->mask_kind == MASK_SIGN)
		return sign_mask(cpu, insn);
	mask = *mask_register(cpu, insn->mask_reg) & low_bits(insn->nr_mask);
	if (insn->mask_kind == MASK_PACKED)
		return low_bits(count_bits(mask));
	return insn->mask_kind == MASK_FOLDED ? fold(mask, insn->nr_elem) : mask;
}

static enum result element_address(struct cpu *cpu, const struct insn *insn, unsigned i, gva_t *ret)
{
	uint64_t off = insn_ea(cpu, insn) + i * insn->elem;

	if (insn->addrsize < 8)
		off &= BIT(8 * insn->addrsize) - 1;
	return seg_linear(cpu, insn->seg, off, insn->elem, insn->mem_op, ret);
}

static enum result probe_elements(struct cpu *cpu, const struct insn *insn, uint64_t mask)
{
	for (unsigned i = 0; i < insn->nr_elem; i++) {
		enum result r;
		gva_t addr;

		if (!(mask >> i & 1))
			continue;
		r = element_address(cpu, insn, i, &addr);
		if (!r)
			r = borrow_probe(cpu, insn, addr, insn->elem);
		if (r)
			return r;
	}
	return RESULT_OK;
}

static enum result move_element(struct cpu *cpu, const struct insn *insn, unsigned i, uint8_t *at,
				bool store)
{
	gva_t addr;
	enum result r = element_address(cpu, insn, i, &addr);

	if (r)
		return r;
	return store ? mmu_write_bytes(cpu, addr, at, insn->elem)
		     : mmu_read_bytes(cpu, addr, at, insn->elem);
}

static enum result move_elements(struct cpu *cpu, const struct insn *insn, uint64_t mask,
				 uint8_t *buf, bool store)
{
	enum result r = RESULT_OK;

	for (unsigned i = 0; i < insn->nr_elem && !r; i++)
		if (mask >> i & 1)
			r = move_element(cpu, insn, i, buf + i * insn->elem, store);
	return r;
}

static bool whole_readable(struct cpu *cpu, const struct insn *insn)
{
	gva_t addr;
	bool whole = !seg_linear(cpu, insn->seg, insn_ea(cpu, insn), insn->mem_size, ACCESS_READ,
				 &addr) &&
		     !mmu_probe(cpu, addr, insn->mem_size, ACCESS_READ);

	cpu->fault.valid = false;
	return whole;
}

static enum result run_elements(struct cpu *cpu, const struct insn *insn)
{
	uint8_t area[3 * LINE] __aligned_(LINE) = {0};
	uint8_t *buf = area + insn_ea(cpu, insn) % LINE;
	uint64_t mask;
	enum result r;

	fpu_save(cpu);
	mask = selected(cpu, insn);
	if (mask && insn->must_align && insn_ea(cpu, insn) & (insn->must_align - 1))
		return fault_gp(cpu, 0);
	/* Some results depend on what lies beside the selected elements. */
	if (insn->mem_op == ACCESS_READ && whole_readable(cpu, insn))
		mask = low_bits(insn->nr_elem);
	r = probe_elements(cpu, insn, insn->whole ? low_bits(insn->nr_elem) : mask);
	if (r == RESULT_FAULT)
		r = borrow_convert_anyway(cpu, insn, r);
	if (!r && insn->mem_op & ACCESS_READ)
		r = move_elements(cpu, insn, mask, buf, false);
	if (r)
		return r;
	fpu_load(cpu);
	if (insn->thunk(cpu, buf))
		return borrow_trapped(cpu);
	if (insn->mem_op & ACCESS_WRITE)
		r = move_elements(cpu, insn, mask, buf, true);
	return r ? r : insn_next(cpu, insn);
}

enum result run_masked(struct cpu *cpu, const struct insn *insn)
{
	uint8_t *ptr;
	gva_t addr;

	if (borrow_address(cpu, insn, insn_ea(cpu, insn), &addr) ||
	    mmu_pointer(cpu, addr, insn->mem_size, insn->mem_op, &ptr) || !ptr) {
		cpu->fault.valid = false;
		return run_elements(cpu, insn);
	}
	fpu_load(cpu);
	if (unlikely(insn->thunk(cpu, ptr)))
		return borrow_trapped(cpu);
	return insn_next(cpu, insn);
}
