/* SPDX-License-Identifier: MIT */
/*
 * x87 environments and FXSAVE images (SDM, instruction reference: FLDENV, FNSTENV, FRSTOR, FNSAVE, FXSAVE,
 * FXRSTOR). All work on cpu->fpu.area after fpu_save().
 *
 * The pointers to the last x87 instruction are the guest's own record (cpu->fpu.fip and so on), never
 * the host's; how much of it an image shows is the modelled processor's: FOP only with an unmasked
 * exception pending, FDP likewise under FDP_EXCPTN_ONLY, selectors as zero under ZERO_FCS_FDS, and on AMD's
 * nothing at all in FXSAVE images unless an exception is pending.
 */
#include "silicon/exec/emul.h"

#define FX_SIZE 512

static uint8_t *area(struct cpu *cpu)
{
	return cpu->fpu.area;
}

static bool model_has(const struct cpu *cpu, enum feature f)
{
	return feature_has(cpu->model_features, f);
}

static bool is_pending(const struct cpu *cpu)
{
	return cpu->fpu.area[AREA_FSW] & FSW_ES;
}

/* ---- shared with emul_xsave.c ---- */

struct pointers {
	uint16_t fop, fcs, fds;
	uint64_t fip, fdp;
};

/* What an environment shows. */
static struct pointers shown_pointers(const struct cpu *cpu)
{
	const struct fpu *fpu = &cpu->fpu;
	bool selectors = !model_has(cpu, FEAT_ZERO_FCS_FDS);

	return (struct pointers){
		.fop = is_pending(cpu) ? fpu->fop : 0,
		.fip = fpu->fip,
		.fdp = is_pending(cpu) || !model_has(cpu, FEAT_FDP_EXCPTN_ONLY) ? fpu->fdp : 0,
		.fcs = selectors ? fpu->fcs : 0,
		.fds = selectors ? fpu->fds : 0,
	};
}

void emul_x87_header_write(const struct cpu *cpu, uint8_t *image, bool wide)
{
	struct pointers p = {0};

	if (is_pending(cpu) || !model_fpu_pointers_on_es(cpu->model))
		p = shown_pointers(cpu);
	emul_put32(image, emul_get32(cpu->fpu.area));
	emul_put16(image + 4, cpu->fpu.area[AREA_FTW]);
	emul_put16(image + 6, p.fop);
	emul_put64(image + 8, wide ? p.fip : (uint32_t)p.fip | (uint64_t)p.fcs << 32);
	emul_put64(image + 16, wide ? p.fdp : (uint32_t)p.fdp | (uint64_t)p.fds << 32);
}

/* ES and B follow from what is pending and not masked. */
static uint16_t with_summary(uint16_t fsw, uint16_t fcw)
{
	fsw &= ~(FSW_ES | FSW_BUSY);
	return fsw & ~fcw & 0x3f ? fsw | FSW_ES | FSW_BUSY : fsw;
}

static uint16_t load_fcw(const uint8_t *image)
{
	return (emul_get16(image) & FCW_LOADED) | FCW_ONE;
}

void emul_x87_header_read(struct cpu *cpu, const uint8_t *image, bool wide)
{
	struct fpu *fpu = &cpu->fpu;

	emul_put16(area(cpu) + AREA_FCW, load_fcw(image));
	emul_put16(area(cpu) + AREA_FSW,
		   with_summary(emul_get16(image + AREA_FSW), load_fcw(image)));
	area(cpu)[AREA_FTW] = image[AREA_FTW];
	fpu->fop = emul_get16(image + 6) & 0x7ff;
	fpu->fip = wide ? emul_get64(image + 8) : emul_get32(image + 8);
	fpu->fcs = wide ? 0 : emul_get16(image + 12);
	fpu->fdp = wide ? emul_get64(image + 16) : emul_get32(image + 16);
	fpu->fds = wide ? 0 : emul_get16(image + 20);
}

void emul_x87_set_top(struct cpu *cpu, unsigned top)
{
	unsigned fsw = emul_get16(area(cpu) + AREA_FSW);
	unsigned old = (fsw & FSW_TOP) >> 11;
	uint8_t regs[8][16];

	for (unsigned i = 0; i < 8; i++)
		__builtin_memcpy(regs[i], area(cpu) + AREA_ST + ((i + top - old) & 7) * 16, 16);
	__builtin_memcpy(area(cpu) + AREA_ST, regs, sizeof(regs));
	emul_put16(area(cpu) + AREA_FSW, (fsw & ~FSW_TOP) | top << 11);
}

void emul_x87_init(struct cpu *cpu)
{
	struct fpu *fpu = &cpu->fpu;

	emul_x87_set_top(cpu, 0);
	emul_put16(area(cpu) + AREA_FCW, FCW_INIT);
	emul_put16(area(cpu) + AREA_FSW, 0);
	area(cpu)[AREA_FTW] = 0;
	fpu->fop = fpu->fcs = fpu->fds = 0;
	fpu->fip = fpu->fdp = 0;
}

/* The host must be able to load what the model allows; misaligned SSE is AMD's. */
uint32_t emul_mxcsr_mask(const struct cpu *cpu)
{
	uint8_t image[FX_SIZE] __aligned_(16) = {0};
	uint32_t host;

	asm volatile("fxsave64 %0" : "+m"(image));
	host = emul_get32(image + AREA_MXCSR_MASK);
	return (host ? host : 0xffbf) & (model_has(cpu, FEAT_MISALIGNSSE) ? 0x2ffff : 0xffff);
}

/* ---- environments ---- */

/* What 14 or 28 bytes hold, in all four formats. */
struct environment {
	uint16_t fcw, fsw, ftw;
	struct pointers p;
};

static bool real_format(const struct cpu *cpu)
{
	return cpu->mode.real || cpu->mode.v86;
}

static unsigned env_size(unsigned width)
{
	return width == 2 ? 14 : 28;
}

/* 66h chooses the width, REX.W means nothing. */
static unsigned env_width(const struct cpu *cpu, const struct insn *insn)
{
	return emul_opsize(cpu, insn) == 2 ? 2 : 4;
}

/* Two bits of the full tag word: valid, zero, special, empty. */
static unsigned full_tag(const uint8_t *reg, bool used)
{
	unsigned exponent = emul_get16(reg + 8) & 0x7fff;
	uint64_t mantissa = emul_get64(reg);

	if (!used)
		return 3;
	if (!exponent && !mantissa)
		return 1;
	return exponent == 0 || exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

static uint16_t full_tags(struct cpu *cpu)
{
	unsigned top = area(cpu)[AREA_FSW + 1] >> 3 & 7, tags = 0;

	for (unsigned i = 0; i < 8; i++) {
		const uint8_t *reg = area(cpu) + AREA_ST + ((i - top) & 7) * 16;

		tags |= full_tag(reg, area(cpu)[AREA_FTW] >> i & 1) << i * 2;
	}
	return tags;
}

static uint8_t abridged_tags(uint16_t tags)
{
	uint8_t ret = 0;

	for (unsigned i = 0; i < 8; i++)
		if ((tags >> i * 2 & 3) != 3)
			ret |= 1 << i;
	return ret;
}

static void put_env_16(uint8_t *buf, const struct environment *env, bool real)
{
	uint32_t fip = env->p.fip, fdp = env->p.fdp;

	emul_put16(buf, env->fcw);
	emul_put16(buf + 2, env->fsw);
	emul_put16(buf + 4, env->ftw);
	emul_put16(buf + 6, fip);
	emul_put16(buf + 8, real ? (fip >> 4 & 0xf000) | env->p.fop : env->p.fcs);
	emul_put16(buf + 10, fdp);
	emul_put16(buf + 12, real ? fdp >> 4 & 0xf000 : env->p.fds);
}

/* The unused halves of the words are ones. */
static void put_env_32(uint8_t *buf, const struct environment *env, bool real)
{
	uint32_t fip = env->p.fip, fdp = env->p.fdp, ones = 0xffff0000;

	emul_put32(buf, ones | env->fcw);
	emul_put32(buf + 4, ones | env->fsw);
	emul_put32(buf + 8, ones | env->ftw);
	emul_put32(buf + 12, real ? ones | (fip & 0xffff) : fip);
	emul_put32(buf + 16,
		   real ? (fip >> 16 << 12) | env->p.fop : env->p.fcs | (uint32_t)env->p.fop << 16);
	emul_put32(buf + 20, real ? ones | (fdp & 0xffff) : fdp);
	emul_put32(buf + 24, real ? fdp >> 16 << 12 : ones | env->p.fds);
}

/* The real-mode formats show linear addresses. */
static void put_env(struct cpu *cpu, uint8_t *buf, unsigned width)
{
	bool real = real_format(cpu);
	struct environment env = {
		.fcw = emul_get16(area(cpu) + AREA_FCW),
		.fsw = emul_get16(area(cpu) + AREA_FSW),
		.ftw = full_tags(cpu),
		.p = shown_pointers(cpu),
	};

	if (real) {
		env.p.fip += (uint64_t)cpu->fpu.fcs << 4;
		env.p.fdp += (uint64_t)cpu->fpu.fds << 4;
	}
	if (width == 2)
		put_env_16(buf, &env, real);
	else
		put_env_32(buf, &env, real);
}

static struct pointers get_pointers(const uint8_t *buf, unsigned width, bool real)
{
	uint32_t fip = emul_get16(buf + 6), code = emul_get16(buf + 8);
	uint32_t fdp = emul_get16(buf + 10), data = emul_get16(buf + 12);

	if (width == 4) {
		fip = emul_get32(buf + 12);
		code = emul_get32(buf + 16);
		fdp = emul_get32(buf + 20);
		data = emul_get32(buf + 24);
	}
	if (!real)
		return (struct pointers){.fip = fip,
					 .fcs = code,
					 .fop = width == 4 ? code >> 16 & 0x7ff : 0,
					 .fdp = fdp,
					 .fds = data};
	fip = (fip & 0xffff) | (code >> 12 << 16);
	fdp = (fdp & 0xffff) | (data >> 12 << 16);
	return (struct pointers){.fip = fip, .fop = code & 0x7ff, .fdp = fdp};
}

static void get_env(struct cpu *cpu, const uint8_t *buf, unsigned width)
{
	struct pointers p = get_pointers(buf, width, real_format(cpu));
	uint16_t fcw = load_fcw(buf), fsw = emul_get16(buf + width);
	struct fpu *fpu = &cpu->fpu;

	emul_x87_set_top(cpu, (fsw & FSW_TOP) >> 11);
	emul_put16(area(cpu) + AREA_FCW, fcw);
	emul_put16(area(cpu) + AREA_FSW, with_summary(fsw, fcw));
	area(cpu)[AREA_FTW] = abridged_tags(emul_get16(buf + 2 * width));
	area(cpu)[AREA_BV] |= XCR0_X87;
	fpu->fop = p.fop;
	fpu->fcs = p.fcs;
	fpu->fds = p.fds;
	fpu->fip = p.fip;
	fpu->fdp = p.fdp;
}

/* FLDENV and FRSTOR wait: an unmasked exception from before comes first. */
static enum result check_pending(struct cpu *cpu)
{
	return is_pending(cpu) && (cpu->cr0 & CR0_NE) ? fault_raise(cpu, VEC_MF) : RESULT_OK;
}

static enum result operand(struct cpu *cpu, const struct insn *insn, uint32_t size,
			   enum access_op op, gva_t *ret)
{
	return seg_linear(cpu, insn->seg, insn_ea(cpu, insn), size, op, ret);
}

/* Masks all exceptions afterwards. */
enum result emul_fnstenv(struct cpu *cpu, const struct insn *insn)
{
	unsigned width = env_width(cpu, insn), size = env_size(width);
	uint16_t fcw, fsw;
	uint8_t buf[28];
	gva_t addr;
	enum result r;

	fpu_save(cpu);
	r = operand(cpu, insn, size, ACCESS_WRITE, &addr);
	if (r)
		return r;
	put_env(cpu, buf, width);
	r = mmu_write_bytes(cpu, addr, buf, size);
	if (r)
		return r;
	fcw = emul_get16(area(cpu) + AREA_FCW) | 0x3f;
	fsw = emul_get16(area(cpu) + AREA_FSW);
	emul_put16(area(cpu) + AREA_FCW, fcw);
	emul_put16(area(cpu) + AREA_FSW, with_summary(fsw, fcw));
	area(cpu)[AREA_BV] |= XCR0_X87;
	return insn_next(cpu, insn);
}

enum result emul_fldenv(struct cpu *cpu, const struct insn *insn)
{
	unsigned width = env_width(cpu, insn), size = env_size(width);
	uint8_t buf[28];
	gva_t addr;
	enum result r;

	fpu_save(cpu);
	r = check_pending(cpu);
	if (!r)
		r = operand(cpu, insn, size, ACCESS_READ, &addr);
	if (!r)
		r = mmu_read_bytes(cpu, addr, buf, size);
	if (r)
		return r;
	get_env(cpu, buf, width);
	return insn_next(cpu, insn);
}

#define ENV_REGS 80 /* eight registers of 10 bytes */

enum result emul_fnsave(struct cpu *cpu, const struct insn *insn)
{
	unsigned width = env_width(cpu, insn), size = env_size(width);
	uint8_t buf[28 + ENV_REGS];
	gva_t addr;
	enum result r;

	fpu_save(cpu);
	r = operand(cpu, insn, size + ENV_REGS, ACCESS_WRITE, &addr);
	if (r)
		return r;
	put_env(cpu, buf, width);
	for (unsigned i = 0; i < 8; i++)
		__builtin_memcpy(buf + size + i * 10, area(cpu) + AREA_ST + i * 16, 10);
	r = mmu_write_bytes(cpu, addr, buf, size + ENV_REGS);
	if (r)
		return r;
	emul_x87_init(cpu);
	area(cpu)[AREA_BV] |= XCR0_X87;
	return insn_next(cpu, insn);
}

enum result emul_frstor(struct cpu *cpu, const struct insn *insn)
{
	unsigned width = env_width(cpu, insn), size = env_size(width);
	uint8_t buf[28 + ENV_REGS];
	gva_t addr;
	enum result r;

	fpu_save(cpu);
	r = check_pending(cpu);
	if (!r)
		r = operand(cpu, insn, size + ENV_REGS, ACCESS_READ, &addr);
	if (!r)
		r = mmu_read_bytes(cpu, addr, buf, size + ENV_REGS);
	if (r)
		return r;
	get_env(cpu, buf, width);
	for (unsigned i = 0; i < 8; i++)
		__builtin_memcpy(area(cpu) + AREA_ST + i * 16, buf + size + i * 10, 10);
	return insn_next(cpu, insn);
}

/* ---- FXSAVE images ---- */

/* Bytes that are moved: 8 XMM registers outside 64-bit mode, none under EFER.FFXSR at CPL 0. */
static unsigned fx_bytes(const struct cpu *cpu)
{
	if (cpu->mode.code != CODE_64)
		return AREA_XMM + 8 * 16;
	return (cpu->msr.efer & EFER_FFXSR) && !cpu->mode.cpl ? AREA_XMM : AREA_LEGACY_END;
}

static bool fx_wide(const struct cpu *cpu, const struct insn *insn)
{
	return cpu->mode.code == CODE_64 && (insn->flags & INSN_REX_W);
}

static enum result fx_operand(struct cpu *cpu, const struct insn *insn, enum access_op op,
			      gva_t *ret)
{
	enum result r = operand(cpu, insn, FX_SIZE, op, ret);

	return r || !(*ret & 15) ? r : fault_gp(cpu, 0);
}

enum result emul_fxsave(struct cpu *cpu, const struct insn *insn)
{
	uint8_t image[AREA_LEGACY_END];
	gva_t addr;
	enum result r;

	fpu_save(cpu);
	r = fx_operand(cpu, insn, ACCESS_WRITE, &addr);
	if (!r)
		r = mmu_probe(cpu, addr, FX_SIZE, ACCESS_WRITE);
	if (r)
		return r;
	__builtin_memcpy(image, area(cpu), sizeof(image));
	emul_x87_header_write(cpu, image, fx_wide(cpu, insn));
	emul_put32(image + AREA_MXCSR_MASK, emul_mxcsr_mask(cpu));
	r = mmu_write_bytes(cpu, addr, image, fx_bytes(cpu));
	return r ? r : insn_next(cpu, insn);
}

enum result emul_fxrstor(struct cpu *cpu, const struct insn *insn)
{
	unsigned bytes = fx_bytes(cpu);
	uint8_t image[FX_SIZE];
	gva_t addr;
	enum result r;

	fpu_save(cpu);
	r = fx_operand(cpu, insn, ACCESS_READ, &addr);
	if (!r)
		r = mmu_read_bytes(cpu, addr, image, FX_SIZE);
	if (r)
		return r;
	if (emul_get32(image + AREA_MXCSR) & ~emul_mxcsr_mask(cpu))
		return fault_gp(cpu, 0);
	emul_x87_header_read(cpu, image, fx_wide(cpu, insn));
	emul_put32(area(cpu) + AREA_MXCSR, emul_get32(image + AREA_MXCSR));
	__builtin_memcpy(area(cpu) + AREA_ST, image + AREA_ST, bytes - AREA_ST);
	area(cpu)[AREA_BV] |= XCR0_X87 | XCR0_SSE;
	return insn_next(cpu, insn);
}
