/* SPDX-License-Identifier: MIT */
/*
 * Instructions about descriptor tables, system segments and segment bases (SDM, instruction reference: LGDT to
 * VERW, SWAPGS, RDFSBASE to WRGSBASE). What a selector's descriptor must be is sys/'s; here are privilege,
 * UMIP, operands.
 */
#include "silicon/exec/emul.h"

/* CR4.UMIP keeps SGDT, SIDT, SLDT, STR and SMSW for CPL 0. */
static bool umip_refused(const struct cpu *cpu)
{
	return (cpu->cr4 & CR4_UMIP) && cpu->mode.cpl > 0;
}

/* ---- GDTR, IDTR ---- */

/* Limit and base out of memory; a 16-bit operand size loads 24 bits of base. */
static enum result read_table(struct cpu *cpu, const struct insn *insn, struct dtable *ret)
{
	unsigned size = emul_native_size(cpu);
	uint64_t limit, base;
	enum result r = seg_read(cpu, insn->seg, insn_ea(cpu, insn), 2, &limit);

	if (!r)
		r = seg_read(cpu, insn->seg, emul_ea_plus(cpu, insn, 2), size, &base);
	if (r)
		return r;
	if (size == 4 && emul_opsize(cpu, insn) == 2)
		base &= 0xffffff;
	if (size == 8 && !gva_canonical(cpu, base))
		return fault_gp(cpu, 0);
	*ret = (struct dtable){.limit = limit, .base = base};
	return RESULT_OK;
}

static enum result load_table(struct cpu *cpu, const struct insn *insn, struct dtable *table,
			      enum dt_reg reg)
{
	enum result r;

	if (cpu->mode.cpl)
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_DT_WRITE, reg))
		return EMUL_INTERCEPTED;
	r = read_table(cpu, insn, table);
	return r ? r : insn_next(cpu, insn);
}

enum result emul_lgdt(struct cpu *cpu, const struct insn *insn)
{
	return load_table(cpu, insn, &cpu->gdtr, DT_GDTR);
}

enum result emul_lidt(struct cpu *cpu, const struct insn *insn)
{
	return load_table(cpu, insn, &cpu->idtr, DT_IDTR);
}

/* All of the base is stored whatever the operand size, as processors since the 386 do. */
static enum result store_table(struct cpu *cpu, const struct insn *insn, const struct dtable *table,
			       enum dt_reg reg)
{
	unsigned size = emul_native_size(cpu);
	gva_t limit, base;
	enum result r;

	if (umip_refused(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_DT_READ, reg))
		return EMUL_INTERCEPTED;
	r = seg_linear(cpu, insn->seg, insn_ea(cpu, insn), 2, ACCESS_WRITE, &limit);
	if (!r)
		r = seg_linear(cpu, insn->seg, emul_ea_plus(cpu, insn, 2), size, ACCESS_WRITE,
			       &base);
	if (!r)
		r = mmu_probe(cpu, limit, 2, ACCESS_WRITE);
	if (!r)
		r = mmu_probe(cpu, base, size, ACCESS_WRITE);
	if (!r)
		r = mmu_write(cpu, limit, 2, table->limit);
	if (!r)
		r = mmu_write(cpu, base, size, table->base);
	return r ? r : insn_next(cpu, insn);
}

enum result emul_sgdt(struct cpu *cpu, const struct insn *insn)
{
	return store_table(cpu, insn, &cpu->gdtr, DT_GDTR);
}

enum result emul_sidt(struct cpu *cpu, const struct insn *insn)
{
	return store_table(cpu, insn, &cpu->idtr, DT_IDTR);
}

/* ---- LDTR, TR, machine status word ---- */

typedef enum result load_fn(struct cpu *cpu, uint16_t sel);

static enum result load_system(struct cpu *cpu, const struct insn *insn, load_fn *load,
			       enum dt_reg reg)
{
	uint64_t sel;
	enum result r;

	if (emul_no_descriptors(cpu))
		return fault_ud(cpu);
	if (cpu->mode.cpl)
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_DT_WRITE, reg))
		return EMUL_INTERCEPTED;
	r = emul_read_rm(cpu, insn, 2, &sel);
	if (!r)
		r = load(cpu, sel);
	return r ? r : insn_next(cpu, insn);
}

enum result emul_lldt(struct cpu *cpu, const struct insn *insn)
{
	return load_system(cpu, insn, sys_load_ldtr, DT_LDTR);
}

enum result emul_ltr(struct cpu *cpu, const struct insn *insn)
{
	return load_system(cpu, insn, sys_load_tr, DT_TR);
}

/* Into memory always 2 bytes, into a register the operand size. */
static enum result store_word(struct cpu *cpu, const struct insn *insn, uint64_t val,
			      enum intercept kind, uint64_t qualification)
{
	enum result r = RESULT_OK;

	if (umip_refused(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, kind, qualification))
		return EMUL_INTERCEPTED;
	if (insn->flags & INSN_MEM)
		r = seg_write(cpu, insn->seg, insn_ea(cpu, insn), 2, (uint16_t)val);
	else
		reg_write(cpu, insn->rm, emul_opsize(cpu, insn), false, val);
	return r ? r : insn_next(cpu, insn);
}

enum result emul_sldt(struct cpu *cpu, const struct insn *insn)
{
	if (emul_no_descriptors(cpu))
		return fault_ud(cpu);
	return store_word(cpu, insn, cpu->seg[SEG_LDTR].sel, INTERCEPT_DT_READ, DT_LDTR);
}

enum result emul_str(struct cpu *cpu, const struct insn *insn)
{
	if (emul_no_descriptors(cpu))
		return fault_ud(cpu);
	return store_word(cpu, insn, cpu->seg[SEG_TR].sel, INTERCEPT_DT_READ, DT_TR);
}

enum result emul_smsw(struct cpu *cpu, const struct insn *insn)
{
	return store_word(cpu, insn, emul_cr_read(cpu, 0), INTERCEPT_CR_READ,
			  CR_QUAL_READ | CR_QUAL_SMSW);
}

/* ---- asking about a selector ---- */

static void set_zf(struct cpu *cpu, bool on)
{
	cpu->aflags = (cpu->aflags & ~(FLAG_ZF << 8)) | (on ? FLAG_ZF << 8 : 0);
}

typedef enum result ask_fn(struct cpu *cpu, uint16_t sel, bool *ret_ok, uint32_t *ret);

static enum result ask_selector(struct cpu *cpu, const struct insn *insn, ask_fn *ask)
{
	uint64_t sel;
	uint32_t val = 0;
	bool ok = false;
	enum result r;

	if (emul_no_descriptors(cpu))
		return fault_ud(cpu);
	r = emul_read_rm(cpu, insn, 2, &sel);
	if (!r)
		r = ask(cpu, sel, &ok, &val);
	if (r)
		return r;
	if (ok)
		reg_write(cpu, insn->reg, emul_opsize(cpu, insn), false, val);
	set_zf(cpu, ok);
	return insn_next(cpu, insn);
}

enum result emul_lar(struct cpu *cpu, const struct insn *insn)
{
	return ask_selector(cpu, insn, sys_lar);
}

enum result emul_lsl(struct cpu *cpu, const struct insn *insn)
{
	return ask_selector(cpu, insn, sys_lsl);
}

static enum result verify(struct cpu *cpu, const struct insn *insn, bool write)
{
	uint64_t sel;
	bool ok = false;
	enum result r;

	if (emul_no_descriptors(cpu))
		return fault_ud(cpu);
	r = emul_read_rm(cpu, insn, 2, &sel);
	if (!r)
		r = sys_verify(cpu, sel, write, &ok);
	if (r)
		return r;
	set_zf(cpu, ok);
	return insn_next(cpu, insn);
}

enum result emul_verr(struct cpu *cpu, const struct insn *insn)
{
	return verify(cpu, insn, false);
}

enum result emul_verw(struct cpu *cpu, const struct insn *insn)
{
	return verify(cpu, insn, true);
}

/* ---- FS and GS bases ---- */

enum result emul_swapgs(struct cpu *cpu, const struct insn *insn)
{
	uint64_t base = cpu->seg[SEG_GS].base;

	if (cpu->mode.cpl)
		return fault_gp(cpu, 0);
	cpu->seg[SEG_GS].base = cpu->msr.kernel_gs_base;
	cpu->msr.kernel_gs_base = base;
	return insn_next(cpu, insn);
}

static enum result read_base(struct cpu *cpu, const struct insn *insn, enum seg_id seg)
{
	if (!(cpu->cr4 & CR4_FSGSBASE))
		return fault_ud(cpu);
	reg_write(cpu, insn->rm, insn->flags & INSN_REX_W ? 8 : 4, false, cpu->seg[seg].base);
	return insn_next(cpu, insn);
}

static enum result write_base(struct cpu *cpu, const struct insn *insn, enum seg_id seg)
{
	uint64_t base = reg_read(cpu, insn->rm, insn->flags & INSN_REX_W ? 8 : 4, false);

	if (!(cpu->cr4 & CR4_FSGSBASE))
		return fault_ud(cpu);
	if (!gva_canonical(cpu, base))
		return fault_gp(cpu, 0);
	cpu->seg[seg].base = base;
	return insn_next(cpu, insn);
}

enum result emul_rdfsbase(struct cpu *cpu, const struct insn *insn)
{
	return read_base(cpu, insn, SEG_FS);
}

enum result emul_rdgsbase(struct cpu *cpu, const struct insn *insn)
{
	return read_base(cpu, insn, SEG_GS);
}

enum result emul_wrfsbase(struct cpu *cpu, const struct insn *insn)
{
	return write_base(cpu, insn, SEG_FS);
}

enum result emul_wrgsbase(struct cpu *cpu, const struct insn *insn)
{
	return write_base(cpu, insn, SEG_GS);
}
