/* SPDX-License-Identifier: MIT */
/*
 * XSAVE and its family (SDM, managing state using the XSAVE feature set), in C over cpu->fpu.area, which has
 * the host's standard layout. The guest's image has the model's standard offsets, or is compacted: then each
 * offset follows from XCOMP_BV.
 *
 * PKRU lives in cpu->pkru, not in the area, and tiles in cpu->amx. All checks and all reads come before the first
 * change; a store is probed up to the last byte that it needs. What IA32_XFD disables is saved as initial, and not loaded
 * but by #NM, unless to be initial.
 */
#include "silicon/cpu/amx.h"
#include "silicon/exec/cache.h"
#include "silicon/exec/emul.h"
#include "host/host.h"

#define COMPACT	     BIT(63)
#define LEAF_XSTATE  0xd
#define FIRST_XSTATE 2
#define PKRU_INDEX   9
#define HEADER_SIZE  64
#define HI16_ZMM     BIT(7)

#define XSTATE_LEGACY (XCR0_X87 | XCR0_SSE)

/* One instruction's task. */
struct xsave {
	gva_t addr;
	uint64_t rfbm; /* requested-feature bitmap */
	uint64_t bv;   /* components that are moved, or XSTATE_BV to be written */
	uint64_t comp; /* XCOMP_BV, or 0: standard format */
	bool wide;
};

static uint8_t *area(struct cpu *cpu)
{
	return cpu->fpu.area;
}

static struct xstate host_component(const struct cpu *cpu, unsigned i)
{
	return i < NR_XSTATES ? cpu->exec->host_xstate[i] : (struct xstate){0};
}

/* As the guest knows it. */
static struct xstate guest_component(const struct cpu *cpu, unsigned i)
{
	return i < NR_XSTATES ? cpu->exec->model_xstate[i] : (struct xstate){0};
}

static void find_model_xstate(struct cpu *cpu)
{
	struct exec_cache *c = cpu->exec;

	for (unsigned i = 0; i < NR_XSTATES; i++) {
		const struct cpuid_row *row = model_cpuid(cpu->model, LEAF_XSTATE, i);

		c->model_xstate[i] = c->host_xstate[i];
		if (row && row->reg[0])
			c->model_xstate[i] = (struct xstate){.size = row->reg[0],
							     .offset = row->reg[1],
							     .aligned = row->reg[2] & 2};
	}
	c->xstate_known = true;
}

/* Outside 64-bit mode only the first eight registers of each kind are moved. */
static uint32_t moved_bytes(const struct cpu *cpu, unsigned i, uint32_t size)
{
	if (cpu->mode.code == CODE_64)
		return size;
	switch (i) {
	case 2:
	case 6:
		return size / 2;
	case 7:
		return 0;
	}
	return size;
}

static uint32_t moved_xmm(const struct cpu *cpu)
{
	return cpu->mode.code == CODE_64 ? 16 * 16 : 8 * 16;
}

/* Offset of component i in the image. */
static uint32_t image_offset(const struct cpu *cpu, uint64_t comp, unsigned i)
{
	uint32_t offset = AREA_EXTENDED;

	if (!comp)
		return guest_component(cpu, i).offset;
	for (unsigned n = FIRST_XSTATE; n <= i; n++) {
		struct xstate c;

		if (!(comp >> n & 1))
			continue;
		c = guest_component(cpu, n);
		if (c.aligned)
			offset = ALIGN_UP(offset, 64u);
		if (n < i)
			offset += c.size;
	}
	return offset;
}

/* Bytes from the start of the image to the end of the last component of bv. */
static uint32_t image_size(const struct cpu *cpu, uint64_t comp, uint64_t bv)
{
	uint32_t size = AREA_EXTENDED;

	for (uint64_t left = bv & ~(XSTATE_LEGACY | COMPACT); left; left &= left - 1) {
		unsigned i = __builtin_ctzll(left);

		size = max(size, image_offset(cpu, comp, i) + guest_component(cpu, i).size);
	}
	return size;
}

uint64_t emul_xinuse(const struct cpu *cpu)
{
	uint64_t bv = emul_get64(cpu->fpu.area + AREA_BV) & ~(XCR0_PKRU | XCR0_AMX);

	/* Outside of 64-bit mode ZMM16 to ZMM31 are not there, and count as initial. */
	if (cpu->mode.code != CODE_64)
		bv &= ~HI16_ZMM;
	return bv | (cpu->pkru ? XCR0_PKRU : 0) | amx_xinuse(cpu->amx);
}

/* In use, and not disabled. */
static uint64_t saved(const struct cpu *cpu)
{
	return emul_xinuse(cpu) & ~cpu->msr.xfd;
}

static uint64_t edx_eax(const struct cpu *cpu)
{
	return (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32;
}

/* Task and operand; the whole image up to size bytes must be accessible for op. */
static enum result prepare(struct cpu *cpu, const struct insn *insn, struct xsave *x)
{
	x->wide = cpu->mode.code == CODE_64 && (insn->flags & INSN_REX_W);
	if (!(cpu->cr4 & CR4_OSXSAVE))
		return fault_ud(cpu);
	fpu_save(cpu);
	if (!cpu->exec->xstate_known)
		find_model_xstate(cpu);
	return RESULT_OK;
}

static enum result operand(struct cpu *cpu, const struct insn *insn, struct xsave *x, uint32_t size,
			   enum access_op op)
{
	enum result r = seg_linear_checked(cpu, insn->seg, insn_ea(cpu, insn), size, op, &x->addr);

	if (!r && (x->addr & 63))
		r = fault_gp(cpu, 0);
	for (uint32_t at = 0; at < size && !r; at += PAGE_SIZE)
		r = mmu_probe(cpu, x->addr + at, min(size - at, (uint32_t)PAGE_SIZE), op);
	return r;
}

/* ---- stores ---- */

static enum result store_x87(struct cpu *cpu, const struct xsave *x)
{
	uint8_t header[AREA_MXCSR];
	enum result r;

	emul_x87_header_write(cpu, header, x->wide);
	r = mmu_write_bytes(cpu, x->addr, header, sizeof(header));
	return r ? r
		 : mmu_write_bytes(cpu, x->addr + AREA_ST, area(cpu) + AREA_ST, AREA_XMM - AREA_ST);
}

static enum result store_mxcsr(struct cpu *cpu, const struct xsave *x)
{
	uint64_t val = emul_get32(area(cpu) + AREA_MXCSR) | (uint64_t)emul_mxcsr_mask(cpu) << 32;

	return mmu_write(cpu, x->addr + AREA_MXCSR, 8, val);
}

static enum result store_tiles(struct cpu *cpu, const struct xsave *x, gva_t to)
{
	static const uint8_t none[AMX_TILE_SIZE];
	enum result r = RESULT_OK;

	for (unsigned i = 0; i < AMX_TILES && !r; i++)
		r = mmu_write_bytes(cpu, to + i * AMX_TILE_SIZE,
				    x->bv & XCR0_TILEDATA ? cpu->amx->tile[i] : none,
				    AMX_TILE_SIZE);
	return r;
}

static enum result store_component(struct cpu *cpu, const struct xsave *x, unsigned i)
{
	gva_t to = x->addr + image_offset(cpu, x->comp, i);
	struct xstate c = host_component(cpu, i);
	uint32_t bytes = moved_bytes(cpu, i, c.size);

	if (i == PKRU_INDEX)
		return mmu_write(cpu, to, 8, cpu->pkru);
	if (BIT(i) == XCR0_TILECFG)
		return mmu_write_bytes(cpu, to, cpu->amx->config, AMX_CONFIG_SIZE);
	if (BIT(i) == XCR0_TILEDATA)
		return store_tiles(cpu, x, to);
	return bytes ? mmu_write_bytes(cpu, to, area(cpu) + c.offset, bytes) : RESULT_OK;
}

/* Store the components of which; mxcsr apart, because its rule differs between the formats. */
static enum result store(struct cpu *cpu, const struct xsave *x, uint64_t which, bool mxcsr)
{
	enum result r = RESULT_OK;

	if (which & XCR0_X87)
		r = store_x87(cpu, x);
	if (!r && mxcsr)
		r = store_mxcsr(cpu, x);
	if (!r && (which & XCR0_SSE))
		r = mmu_write_bytes(cpu, x->addr + AREA_XMM, area(cpu) + AREA_XMM, moved_xmm(cpu));
	for (uint64_t left = which & ~XSTATE_LEGACY; left && !r; left &= left - 1)
		r = store_component(cpu, x, __builtin_ctzll(left));
	return r;
}

/* XSAVE and XSAVEOPT: bits outside RFBM of the image's XSTATE_BV stay. */
static enum result save_standard(struct cpu *cpu, const struct insn *insn, bool skip_initial)
{
	struct xsave x = {.rfbm = cpu->xcr0 & edx_eax(cpu)};
	enum result r = prepare(cpu, insn, &x);
	uint64_t old, which;

	if (!r)
		r = operand(cpu, insn, &x, image_size(cpu, 0, x.rfbm), ACCESS_WRITE);
	if (!r)
		r = mmu_read(cpu, x.addr + AREA_BV, 8, &old);
	if (r)
		return r;
	x.bv = x.rfbm & saved(cpu);
	which = skip_initial ? x.bv : x.rfbm;
	r = store(cpu, &x, which, x.rfbm & (XCR0_SSE | XCR0_AVX));
	if (!r)
		r = mmu_write(cpu, x.addr + AREA_BV, 8, (old & ~x.rfbm) | x.bv);
	return r ? r : insn_next(cpu, insn);
}

enum result emul_xsave(struct cpu *cpu, const struct insn *insn)
{
	return save_standard(cpu, insn, false);
}

enum result emul_xsaveopt(struct cpu *cpu, const struct insn *insn)
{
	return save_standard(cpu, insn, true);
}

/* XSAVEC and XSAVES: initial components are left out, but a changed MXCSR brings SSE in. */
static enum result save_compact(struct cpu *cpu, const struct insn *insn, uint64_t enabled)
{
	struct xsave x = {.rfbm = enabled & edx_eax(cpu)};
	enum result r = prepare(cpu, insn, &x);

	x.comp = x.rfbm | COMPACT;
	if (!r)
		r = operand(cpu, insn, &x, image_size(cpu, x.comp, x.rfbm), ACCESS_WRITE);
	if (r)
		return r;
	x.bv = x.rfbm & saved(cpu);
	if (emul_get32(area(cpu) + AREA_MXCSR) != MXCSR_INIT)
		x.bv |= x.rfbm & XCR0_SSE;
	r = store(cpu, &x, x.bv, x.bv & XCR0_SSE);
	if (!r)
		r = mmu_write(cpu, x.addr + AREA_BV, 8, x.bv);
	if (!r)
		r = mmu_write(cpu, x.addr + AREA_COMP_BV, 8, x.comp);
	return r ? r : insn_next(cpu, insn);
}

enum result emul_xsavec(struct cpu *cpu, const struct insn *insn)
{
	return save_compact(cpu, insn, cpu->xcr0);
}

enum result emul_xsaves(struct cpu *cpu, const struct insn *insn)
{
	if (cpu->mode.cpl)
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_XSAVES, edx_eax(cpu)))
		return EMUL_INTERCEPTED;
	return save_compact(cpu, insn, cpu->xcr0 | cpu->msr.xss);
}

/* ---- loads ---- */

/* The header's rules; enabled: what XCR0 (and IA32_XSS for XRSTORS) allows. */
static bool header_valid(const struct cpu *cpu, const uint8_t *header, uint64_t enabled)
{
	uint64_t bv = emul_get64(header), comp = emul_get64(header + 8), rest = 0;

	if (!(comp & COMPACT))
		return !comp && !emul_get64(header + 16) && !(bv & ~enabled);
	for (unsigned i = 16; i < HEADER_SIZE; i += 8)
		rest |= emul_get64(header + i);
	return feature_has(cpu->model_features, FEAT_XSAVEC) && !rest &&
	       !(comp & ~enabled & ~COMPACT) && !(bv & ~(comp & ~COMPACT));
}

static void load_x87(struct cpu *cpu, const struct xsave *x, const uint8_t *image)
{
	if (x->bv & XCR0_X87) {
		emul_x87_header_read(cpu, image, x->wide);
		__builtin_memcpy(area(cpu) + AREA_ST, image + AREA_ST, AREA_XMM - AREA_ST);
		return;
	}
	emul_x87_init(cpu);
	__builtin_memset(area(cpu) + AREA_ST, 0, AREA_XMM - AREA_ST);
}

static void load_pkru(struct cpu *cpu, uint32_t pkru)
{
	if (cpu->pkru == pkru)
		return;
	cpu->pkru = pkru;
	mmu_update_mode(cpu);
}

static void load_component(struct cpu *cpu, const struct xsave *x, const uint8_t *image, unsigned i)
{
	struct xstate c = host_component(cpu, i);
	uint32_t bytes = moved_bytes(cpu, i, c.size);
	bool present = x->bv >> i & 1;

	image += present ? image_offset(cpu, x->comp, i) : 0;
	if (i == PKRU_INDEX)
		load_pkru(cpu, present ? emul_get32(image) : 0);
	else if (present)
		__builtin_memcpy(area(cpu) + c.offset, image, bytes);
	else
		__builtin_memset(area(cpu) + c.offset, 0, bytes);
}

static void load_tiles(struct cpu *cpu, const struct xsave *x)
{
	struct amx *amx = cpu->amx;

	if (x->rfbm & XCR0_TILECFG)
		amx_load_config(amx, x->bv & XCR0_TILECFG ? amx->staged_config : NULL);
	if (x->rfbm & XCR0_TILEDATA)
		amx_load_data(amx, x->bv & XCR0_TILEDATA ? amx->staged_tile[0] : NULL);
}

/*
 * The standard format loads MXCSR with SSE or AVX whatever XSTATE_BV says; the compacted one treats it as a
 * part of SSE. True if MXCSR changes, to *ret.
 */
static bool new_mxcsr(const struct xsave *x, const uint8_t *image, uint32_t *ret)
{
	uint64_t ask = x->comp ? XCR0_SSE : XCR0_SSE | XCR0_AVX;

	if (!(x->rfbm & ask))
		return false;
	*ret = x->comp && !(x->bv & XCR0_SSE) ? MXCSR_INIT : emul_get32(image + AREA_MXCSR);
	return true;
}

/* All checks are passed. */
static void load(struct cpu *cpu, const struct xsave *x, const uint8_t *image)
{
	uint64_t old = emul_get64(area(cpu) + AREA_BV);

	if (x->rfbm & XCR0_X87)
		load_x87(cpu, x, image);
	if ((x->rfbm & XCR0_SSE) && (x->bv & XCR0_SSE))
		__builtin_memcpy(area(cpu) + AREA_XMM, image + AREA_XMM, moved_xmm(cpu));
	else if (x->rfbm & XCR0_SSE)
		__builtin_memset(area(cpu) + AREA_XMM, 0, moved_xmm(cpu));
	for (uint64_t left = x->rfbm & ~(XSTATE_LEGACY | XCR0_AMX); left; left &= left - 1)
		load_component(cpu, x, image, __builtin_ctzll(left));
	load_tiles(cpu, x);
	/* Outside 64-bit mode the upper registers stay, in use or not. */
	emul_put64(area(cpu) + AREA_BV,
		   ((old & ~x->rfbm) | x->bv | (cpu->mode.code == CODE_64 ? 0 : old)) &
			   ~(XCR0_PKRU | XCR0_AMX));
}

/* The tiles' part of an image: it is behind all others, and too large for the stack. */
static enum result read_tiles(struct cpu *cpu, const struct xsave *x)
{
	gva_t tiles = x->addr + image_offset(cpu, x->comp, __builtin_ctz(XCR0_TILEDATA));
	enum result r = RESULT_OK;

	if (x->bv & XCR0_TILECFG)
		r = mmu_read_bytes(
			cpu, x->addr + image_offset(cpu, x->comp, __builtin_ctz(XCR0_TILECFG)),
			cpu->amx->staged_config, AMX_CONFIG_SIZE);
	for (unsigned i = 0; i < AMX_TILES && !r && x->bv & XCR0_TILEDATA; i++)
		r = mmu_read_bytes(cpu, tiles + i * AMX_TILE_SIZE, cpu->amx->staged_tile[i],
				   AMX_TILE_SIZE);
	return r;
}

static enum result read_image(struct cpu *cpu, const struct xsave *x, uint64_t which,
			      uint8_t *image)
{
	enum result r =
		mmu_read_bytes(cpu, x->addr, image, image_size(cpu, x->comp, which & ~XCR0_AMX));

	return r || !(x->bv & XCR0_AMX) ? r : read_tiles(cpu, x);
}

enum result emul_xfd_fault(struct cpu *cpu, uint64_t components)
{
	cpu->msr.xfd_err = components;
	return fault_raise(cpu, VEC_NM);
}

static enum result restore(struct cpu *cpu, const struct insn *insn, uint64_t enabled,
			   bool compact_only)
{
	struct xsave x = {.rfbm = enabled & edx_eax(cpu)};
	uint8_t image[FPU_AREA_SIZE];
	uint64_t which;
	uint32_t mxcsr;
	bool good;
	enum result r = prepare(cpu, insn, &x);

	if (!r)
		r = operand(cpu, insn, &x, AREA_EXTENDED, ACCESS_READ);
	if (!r)
		r = mmu_read_bytes(cpu, x.addr, image, AREA_EXTENDED);
	if (r)
		return r;
	x.comp = emul_get64(image + AREA_COMP_BV) & COMPACT ? emul_get64(image + AREA_COMP_BV) : 0;
	/* In the standard format all that was asked for has to be there, whatever the header says. */
	good = header_valid(cpu, image + AREA_BV, enabled) && (x.comp || !compact_only);
	if (x.comp && !good)
		return fault_gp(cpu, 0);
	which = x.rfbm & (x.comp ? x.comp : ~0ull);
	r = operand(cpu, insn, &x, image_size(cpu, x.comp, which), ACCESS_READ);
	if (r || !good)
		return r ? r : fault_gp(cpu, 0);
	x.bv = emul_get64(image + AREA_BV) & x.rfbm;
	if (x.bv & cpu->msr.xfd)
		return emul_xfd_fault(cpu, x.bv & cpu->msr.xfd);
	r = read_image(cpu, &x, which, image);
	if (r)
		return r;
	if (new_mxcsr(&x, image, &mxcsr)) {
		if (mxcsr & ~emul_mxcsr_mask(cpu))
			return fault_gp(cpu, 0);
		emul_put32(area(cpu) + AREA_MXCSR, mxcsr);
	}
	load(cpu, &x, image);
	return insn_next(cpu, insn);
}

enum result emul_xrstor(struct cpu *cpu, const struct insn *insn)
{
	return restore(cpu, insn, cpu->xcr0, false);
}

enum result emul_xrstors(struct cpu *cpu, const struct insn *insn)
{
	if (cpu->mode.cpl)
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_XRSTORS, edx_eax(cpu)))
		return EMUL_INTERCEPTED;
	return restore(cpu, insn, cpu->xcr0 | cpu->msr.xss, true);
}
