/* SPDX-License-Identifier: MIT */
/*
 * Data instructions that cannot be borrowed (SDM, instruction reference): addresses, far pointers, segment
 * moves, decimal adjustment, and stores to implicit addresses.
 *
 * Flags that the manuals leave undefined after decimal adjustment are what processors give: SF, ZF and PF of
 * AL; OF clear, but after AAD all six are those of the addition.
 */
#include "silicon/exec/emul.h"

enum result emul_lea(struct cpu *cpu, const struct insn *insn)
{
	reg_write(cpu, insn->reg, emul_opsize(cpu, insn), false, insn_ea(cpu, insn));
	return insn_next(cpu, insn);
}

enum result emul_xlat(struct cpu *cpu, const struct insn *insn)
{
	uint64_t off = (cpu->gpr[RBX] + (uint8_t)cpu->gpr[RAX]) & emul_mask(insn->addrsize), val;
	enum result r = seg_read(cpu, emul_implicit_seg(cpu, insn), off, 1, &val);

	if (r)
		return r;
	reg_write(cpu, RAX, 1, false, val);
	return insn_next(cpu, insn);
}

static int64_t sign_extend(uint64_t val, unsigned size)
{
	return size == 2 ? (int16_t)val : (int32_t)val;
}

enum result emul_bound(struct cpu *cpu, const struct insn *insn)
{
	unsigned size = emul_opsize(cpu, insn);
	int64_t index = sign_extend(reg_read(cpu, insn->reg, size, false), size);
	uint64_t lower, upper;
	enum result r = seg_read(cpu, insn->seg, insn_ea(cpu, insn), size, &lower);

	if (r)
		return r;
	/* The lower bound alone decides before the upper is read. */
	if (index < sign_extend(lower, size))
		return fault_raise(cpu, VEC_BR);
	r = seg_read(cpu, insn->seg, emul_ea_plus(cpu, insn, size), size, &upper);
	if (r)
		return r;
	if (index > sign_extend(upper, size))
		return fault_raise(cpu, VEC_BR);
	return insn_next(cpu, insn);
}

static void set_zf(struct cpu *cpu, bool on)
{
	cpu->aflags = (cpu->aflags & ~(FLAG_ZF << 8)) | (on ? FLAG_ZF << 8 : 0);
}

enum result emul_arpl(struct cpu *cpu, const struct insn *insn)
{
	uint64_t dst, src = reg_read(cpu, insn->reg, 2, false);
	bool lower;
	enum result r;

	if (emul_no_descriptors(cpu))
		return fault_ud(cpu);
	r = emul_read_rm(cpu, insn, 2, &dst);
	if (r)
		return r;
	lower = (dst & 3) < (src & 3);
	dst = (dst & ~3ull) | (src & 3);
	if (lower && (insn->flags & INSN_MEM))
		r = seg_write(cpu, insn->seg, insn_ea(cpu, insn), 2, dst);
	else if (lower)
		reg_write(cpu, insn->rm, 2, false, dst);
	if (r)
		return r;
	set_zf(cpu, lower);
	return insn_next(cpu, insn);
}

/* ---- segment registers ---- */

static enum result load_far_pointer(struct cpu *cpu, const struct insn *insn, enum seg_id seg)
{
	unsigned size = emul_opsize(cpu, insn);
	uint64_t off, sel;
	enum result r;

	if (size == 8 && !model_far_rex_w(cpu->model))
		size = 4;
	r = seg_read(cpu, insn->seg, insn_ea(cpu, insn), size, &off);
	if (!r)
		r = seg_read(cpu, insn->seg, emul_ea_plus(cpu, insn, size), 2, &sel);
	if (!r)
		r = sys_load_segment(cpu, seg, sel);
	if (r)
		return r;
	reg_write(cpu, insn->reg, size, false, off);
	return insn_next(cpu, insn);
}

enum result emul_lds(struct cpu *cpu, const struct insn *insn)
{
	return load_far_pointer(cpu, insn, SEG_DS);
}

enum result emul_les(struct cpu *cpu, const struct insn *insn)
{
	return load_far_pointer(cpu, insn, SEG_ES);
}

enum result emul_lfs(struct cpu *cpu, const struct insn *insn)
{
	return load_far_pointer(cpu, insn, SEG_FS);
}

enum result emul_lgs(struct cpu *cpu, const struct insn *insn)
{
	return load_far_pointer(cpu, insn, SEG_GS);
}

enum result emul_lss(struct cpu *cpu, const struct insn *insn)
{
	return load_far_pointer(cpu, insn, SEG_SS);
}

/* Into memory always 2 bytes, into a register zero-extended to the operand size. */
enum result emul_mov_from_seg(struct cpu *cpu, const struct insn *insn)
{
	unsigned seg = emul_modrm_reg(insn);
	uint64_t sel;

	if (seg > SEG_GS)
		return fault_ud(cpu);
	sel = cpu->seg[seg].sel;
	if (insn->flags & INSN_MEM) {
		enum result r = seg_write(cpu, insn->seg, insn_ea(cpu, insn), 2, sel);

		if (r)
			return r;
	} else {
		reg_write(cpu, insn->rm, emul_opsize(cpu, insn), false, sel);
	}
	return insn_next(cpu, insn);
}

enum result emul_mov_to_seg(struct cpu *cpu, const struct insn *insn)
{
	unsigned seg = emul_modrm_reg(insn);
	uint64_t sel;
	enum result r;

	if (seg > SEG_GS || seg == SEG_CS)
		return fault_ud(cpu);
	r = emul_read_rm(cpu, insn, 2, &sel);
	if (!r)
		r = sys_load_segment(cpu, seg, sel);
	if (r)
		return r;
	if (seg == SEG_SS)
		cpu_set_shadow(cpu, SHADOW_MOV_SS);
	return insn_next(cpu, insn);
}

/* ---- decimal adjustment ---- */

static bool get_cf(const struct cpu *cpu)
{
	return cpu->aflags & FLAG_CF << 8;
}

static bool get_af(const struct cpu *cpu)
{
	return cpu->aflags & FLAG_AF << 8;
}

/* Flags of a result in AL, with AF and CF as given and OF clear. */
static void set_bcd_flags(struct cpu *cpu, uint8_t al, bool af, bool cf)
{
	uint64_t flags = 0;

	if (al & 0x80)
		flags |= FLAG_SF;
	if (!al)
		flags |= FLAG_ZF;
	if (!__builtin_parity(al))
		flags |= FLAG_PF;
	if (af)
		flags |= FLAG_AF;
	if (cf)
		flags |= FLAG_CF;
	cpu->aflags = flags_to_arith(flags);
}

/* AAA adds 106h to AX, AAS subtracts it (SDM since the 8086's variant that treated AH apart). */
static enum result ascii_adjust(struct cpu *cpu, const struct insn *insn, unsigned delta)
{
	uint16_t ax = cpu->gpr[RAX];
	bool adjust = (ax & 0xf) > 9 || get_af(cpu);

	if (adjust)
		ax += delta;
	ax &= 0xff0f;
	reg_write(cpu, RAX, 2, false, ax);
	set_bcd_flags(cpu, ax, adjust, adjust);
	return insn_next(cpu, insn);
}

enum result emul_aaa(struct cpu *cpu, const struct insn *insn)
{
	return ascii_adjust(cpu, insn, 0x106);
}

enum result emul_aas(struct cpu *cpu, const struct insn *insn)
{
	return ascii_adjust(cpu, insn, -0x106u);
}

enum result emul_daa(struct cpu *cpu, const struct insn *insn)
{
	uint8_t old = cpu->gpr[RAX], al = old;
	bool low = (old & 0xf) > 9 || get_af(cpu), high = old > 0x99 || get_cf(cpu);

	al += (low ? 6 : 0) + (high ? 0x60 : 0);
	reg_write(cpu, RAX, 1, false, al);
	set_bcd_flags(cpu, al, low, high);
	return insn_next(cpu, insn);
}

/* A borrow out of the low digit's adjustment is a carry, too. */
enum result emul_das(struct cpu *cpu, const struct insn *insn)
{
	uint8_t old = cpu->gpr[RAX], al = old;
	bool low = (old & 0xf) > 9 || get_af(cpu), high = old > 0x99 || get_cf(cpu);

	al -= (low ? 6 : 0) + (high ? 0x60 : 0);
	reg_write(cpu, RAX, 1, false, al);
	set_bcd_flags(cpu, al, low, high || (low && old < 6));
	return insn_next(cpu, insn);
}

enum result emul_aam(struct cpu *cpu, const struct insn *insn)
{
	uint8_t base = insn->imm, al = cpu->gpr[RAX];

	if (!base)
		return fault_raise(cpu, VEC_DE);
	reg_write(cpu, RAX, 2, false, al / base << 8 | al % base);
	set_bcd_flags(cpu, al % base, false, false);
	return insn_next(cpu, insn);
}

enum result emul_aad(struct cpu *cpu, const struct insn *insn)
{
	uint8_t al = cpu->gpr[RAX], high = (uint8_t)(cpu->gpr[RAX] >> 8) * (uint8_t)insn->imm;
	uint8_t sum = al + high;

	reg_write(cpu, RAX, 2, false, sum);
	set_bcd_flags(cpu, sum, (al ^ high ^ sum) & 0x10, sum < al);
	if (~(al ^ high) & (al ^ sum) & 0x80)
		cpu->aflags |= 1;
	return insn_next(cpu, insn);
}

enum result emul_salc(struct cpu *cpu, const struct insn *insn)
{
	reg_write(cpu, RAX, 1, false, get_cf(cpu) ? 0xff : 0);
	return insn_next(cpu, insn);
}

/* ---- stores to implicit addresses ---- */

/* Store the bytes whose mask byte has its sign bit set; only those are looked up. */
static enum result store_masked(struct cpu *cpu, const struct insn *insn, const uint8_t *data,
				const uint8_t *mask, unsigned size)
{
	enum seg_id seg = emul_implicit_seg(cpu, insn);
	gva_t addr[16];
	enum result r = RESULT_OK;

	for (unsigned i = 0; i < size && !r; i++) {
		uint64_t off = (cpu->gpr[RDI] + i) & emul_mask(insn->addrsize);

		if (!(mask[i] & 0x80))
			continue;
		r = seg_linear(cpu, seg, off, 1, ACCESS_WRITE, &addr[i]);
		if (!r)
			r = mmu_probe(cpu, addr[i], 1, ACCESS_WRITE);
	}
	for (unsigned i = 0; i < size && !r; i++)
		if (mask[i] & 0x80)
			r = mmu_write(cpu, addr[i], 1, data[i]);
	return r;
}

/* MMi is the physical register i; the area has the stack's order. */
static const uint8_t *mmx_register(const struct cpu *cpu, unsigned nr)
{
	unsigned top = cpu->fpu.area[AREA_FSW + 1] >> 3 & 7;

	return cpu->fpu.area + AREA_ST + ((nr - top) & 7) * 16;
}

/* As every MMX instruction: all tags valid and TOP = 0, the registers staying where they are. */
static void mmx_enter(struct cpu *cpu)
{
	emul_x87_set_top(cpu, 0);
	cpu->fpu.area[AREA_FTW] = 0xff;
	cpu->fpu.area[AREA_BV] |= XCR0_X87;
}

enum result emul_maskmovq(struct cpu *cpu, const struct insn *insn)
{
	uint8_t reg = insn->modrm >> 3 & 7, rm = insn->modrm & 7;
	enum result r;

	fpu_save(cpu);
	r = store_masked(cpu, insn, mmx_register(cpu, reg), mmx_register(cpu, rm), 8);
	if (r)
		return r;
	mmx_enter(cpu);
	return insn_next(cpu, insn);
}

static void xmm_register(const struct cpu *cpu, unsigned nr, uint8_t ret[16])
{
	__builtin_memcpy(ret, cpu->fpu.area + AREA_XMM + nr * 16, 16);
}

enum result emul_maskmovdqu(struct cpu *cpu, const struct insn *insn)
{
	uint8_t data[16], mask[16];
	enum result r;

	fpu_save(cpu);
	xmm_register(cpu, insn->reg & 15, data);
	xmm_register(cpu, insn->rm & 15, mask);
	r = store_masked(cpu, insn, data, mask, 16);
	return r ? r : insn_next(cpu, insn);
}

/*
 * From the operand to ES:reg, whole or not at all; the destination must be 64-byte aligned, which is judged once
 * the source was read.
 */
enum result emul_movdir64b(struct cpu *cpu, const struct insn *insn)
{
	uint64_t off = reg_read(cpu, insn->reg, insn->addrsize, false);
	gva_t src, dst;
	uint8_t data[64];
	enum result r = seg_linear(cpu, insn->seg, insn_ea(cpu, insn), 64, ACCESS_READ, &src);

	if (!r)
		r = mmu_read_bytes(cpu, src, data, sizeof(data));
	if (!r)
		r = seg_linear(cpu, SEG_ES, off, 64, ACCESS_WRITE, &dst);
	if (!r && (dst & 63))
		r = fault_gp(cpu, 0);
	if (!r)
		r = mmu_write_bytes(cpu, dst, data, sizeof(data));
	return r ? r : insn_next(cpu, insn);
}

enum result emul_clzero(struct cpu *cpu, const struct insn *insn)
{
	static const uint8_t zero[64];
	uint64_t off = cpu->gpr[RAX] & emul_mask(insn->addrsize) & ~63ull;
	gva_t addr;
	enum result r = seg_linear(cpu, emul_implicit_seg(cpu, insn), off, 64, ACCESS_WRITE, &addr);

	if (!r)
		r = mmu_write_bytes(cpu, addr, zero, sizeof(zero));
	return r ? r : insn_next(cpu, insn);
}
