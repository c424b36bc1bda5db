/* SPDX-License-Identifier: MIT */
/*
 * Random instructions.
 *
 * Three sources: opcodes in the shape of each encoding (legacy maps, VEX, EVEX) with random operands,
 * and plain random bytes. What would leave the sandbox (system calls, segment loads, state of the
 * thread) is never run. Registers hold edge values; those that address memory are solved for.
 */
#include "gen.h"

#include <string.h>

static uint64_t rnd(struct gen *g)
{
	g->seed ^= g->seed >> 12;
	g->seed ^= g->seed << 25;
	g->seed ^= g->seed >> 27;
	return g->seed * 0x2545f4914f6cdd1dull;
}

static unsigned below(struct gen *g, unsigned n)
{
	return (rnd(g) >> 32) % n;
}

static bool percent(struct gen *g, unsigned n)
{
	return below(g, 100) < n;
}

/* ---- bytes ---- */

static uint8_t *put_modrm(struct gen *g, uint8_t *p)
{
	*p++ = percent(g, 45) ? 0xc0 | below(g, 64) : below(g, 256);
	return p;
}

static uint8_t *put_random(struct gen *g, uint8_t *p, const uint8_t *end)
{
	while (p < end)
		*p++ = rnd(g) >> 56;
	return p;
}

static void make_legacy(struct gen *g, uint8_t *b)
{
	static const uint8_t prefixes[] = {0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x65, 0x2e};
	uint8_t *p = b;

	while (percent(g, 30))
		*p++ = prefixes[below(g, percent(g, 80) ? 3 : sizeof(prefixes))];
	if (g->segs->bits == 64 && percent(g, 45))
		*p++ = 0x40 | below(g, 16);
	switch (below(g, 8)) {
	case 0:
	case 1:
	case 2:
		break;
	case 3:
		*p++ = 0x0f;
		*p++ = 0x38;
		break;
	case 4:
		*p++ = 0x0f;
		*p++ = 0x3a;
		break;
	default:
		*p++ = 0x0f;
		break;
	}
	*p++ = below(g, 256);
	put_random(g, put_modrm(g, p), b + 15);
}

/* x87 is an eighth of a map, and wants its share. */
static void make_x87(struct gen *g, uint8_t *b)
{
	uint8_t *p = b;

	*p++ = 0xd8 | below(g, 8);
	put_random(g, put_modrm(g, p), b + 15);
}

static void make_vex(struct gen *g, uint8_t *b)
{
	uint8_t *p = b;

	if (percent(g, 30)) {
		*p++ = 0xc5;
		*p++ = rnd(g) >> 56;
	} else {
		*p++ = 0xc4;
		*p++ = (rnd(g) >> 56 & 0xe0) | (1 + below(g, 3));
		*p++ = rnd(g) >> 56;
	}
	if (percent(g, 50))
		p[-1] |= 0x78; /* vvvv unused */
	*p++ = below(g, 256);
	put_random(g, put_modrm(g, p), b + 15);
}

static void make_evex(struct gen *g, uint8_t *b)
{
	static const uint8_t maps[] = {1, 2, 3, 5, 6, 1, 2, 3};
	uint8_t *p = b;

	*p++ = 0x62;
	*p++ = (rnd(g) >> 56 & 0xf0) | maps[below(g, 8)];
	*p++ = (rnd(g) >> 56) | 4;
	*p++ = rnd(g) >> 56;
	if (percent(g, 40)) {
		p[-2] |= 0x78;
		p[-1] |= 0x08;
	}
	if (percent(g, 60))
		p[-1] &= ~0x10;
	*p++ = below(g, 256);
	put_random(g, put_modrm(g, p), b + 15);
}

static void make_bytes(struct gen *g, uint8_t *b)
{
	if (g->nr_fixed) {
		memcpy(b, g->fixed, g->nr_fixed);
		put_random(g, put_modrm(g, b + g->nr_fixed), b + 15);
		return;
	}
	switch (below(g, 10)) {
	case 0:
		put_random(g, b, b + 15);
		break;
	case 1:
		make_x87(g, b);
		break;
	case 2:
	case 3:
		make_vex(g, b);
		break;
	case 4:
	case 5:
		make_evex(g, b);
		break;
	default:
		make_legacy(g, b);
		break;
	}
}

/* ---- what is never run here ---- */

/* A branch into its own bytes may never end. */
static bool loops(const struct testcase *t)
{
	int64_t to = t->z.length + t->z.raw.imm[0].value.s;

	return t->z.raw.imm[0].is_relative && to >= 0 && to < t->z.length;
}

/* Leaves the sandbox, changes the thread, or answers what only the host knows. */
static const uint16_t denied[] = {
	ZYDIS_MNEMONIC_XSAVES,	  ZYDIS_MNEMONIC_XSAVES64,  ZYDIS_MNEMONIC_XRSTORS,
	ZYDIS_MNEMONIC_XRSTORS64, ZYDIS_MNEMONIC_ENQCMDS,   ZYDIS_MNEMONIC_SYSCALL,
	ZYDIS_MNEMONIC_SYSENTER,  ZYDIS_MNEMONIC_INT,	    ZYDIS_MNEMONIC_INT1,
	ZYDIS_MNEMONIC_INT3,	  ZYDIS_MNEMONIC_INTO,	    ZYDIS_MNEMONIC_IRET,
	ZYDIS_MNEMONIC_IRETD,	  ZYDIS_MNEMONIC_IRETQ,	    ZYDIS_MNEMONIC_LFS,
	ZYDIS_MNEMONIC_LGS,	  ZYDIS_MNEMONIC_LSS,	    ZYDIS_MNEMONIC_WRFSBASE,
	ZYDIS_MNEMONIC_WRGSBASE,  ZYDIS_MNEMONIC_RDFSBASE,  ZYDIS_MNEMONIC_RDGSBASE,
	ZYDIS_MNEMONIC_XGETBV,	  ZYDIS_MNEMONIC_RDTSC,	    ZYDIS_MNEMONIC_RDTSCP,
	ZYDIS_MNEMONIC_RDPMC,	  ZYDIS_MNEMONIC_RDRAND,    ZYDIS_MNEMONIC_RDSEED,
	ZYDIS_MNEMONIC_CPUID,	  ZYDIS_MNEMONIC_RDPID,	    ZYDIS_MNEMONIC_SGDT,
	ZYDIS_MNEMONIC_SIDT,	  ZYDIS_MNEMONIC_SLDT,	    ZYDIS_MNEMONIC_STR,
	ZYDIS_MNEMONIC_SMSW,	  ZYDIS_MNEMONIC_LAR,	    ZYDIS_MNEMONIC_LSL,
	ZYDIS_MNEMONIC_VERR,	  ZYDIS_MNEMONIC_VERW,	    ZYDIS_MNEMONIC_UMWAIT,
	ZYDIS_MNEMONIC_UMONITOR,  ZYDIS_MNEMONIC_TPAUSE,    ZYDIS_MNEMONIC_MWAIT,
	ZYDIS_MNEMONIC_MONITOR,	  ZYDIS_MNEMONIC_MWAITX,    ZYDIS_MNEMONIC_MONITORX,
	ZYDIS_MNEMONIC_ENCLU,	  ZYDIS_MNEMONIC_XBEGIN,    ZYDIS_MNEMONIC_XEND,
	ZYDIS_MNEMONIC_XABORT,	  ZYDIS_MNEMONIC_XTEST,	    ZYDIS_MNEMONIC_RDPKRU,
	ZYDIS_MNEMONIC_WRPKRU,	  ZYDIS_MNEMONIC_SENDUIPI,  ZYDIS_MNEMONIC_UIRET,
	ZYDIS_MNEMONIC_CLUI,	  ZYDIS_MNEMONIC_STUI,	    ZYDIS_MNEMONIC_TESTUI,
	ZYDIS_MNEMONIC_VMCALL,	  ZYDIS_MNEMONIC_VMMCALL,   ZYDIS_MNEMONIC_ENQCMD,
	ZYDIS_MNEMONIC_ENCLV,	  ZYDIS_MNEMONIC_XSUSLDTRK, ZYDIS_MNEMONIC_XRESLDTRK,
	ZYDIS_MNEMONIC_RDPRU,	  ZYDIS_MNEMONIC_LOADIWKEY, ZYDIS_MNEMONIC_PTWRITE,
	ZYDIS_MNEMONIC_GETSEC,	  ZYDIS_MNEMONIC_VMFUNC,    ZYDIS_MNEMONIC_STI,
	ZYDIS_MNEMONIC_CLI,	  ZYDIS_MNEMONIC_TDCALL,    ZYDIS_MNEMONIC_SEAMCALL,
	ZYDIS_MNEMONIC_PCONFIG,
};

/* FS is the thread's; GS is not set up, nor is CS for data; all but 64-bit mode has its own DS, ES, SS. */
static bool host_segment(const struct gen *g, ZydisRegister segment)
{
	return segment == ZYDIS_REGISTER_FS ||
	       (g->segs->bits != 64 &&
		(segment == ZYDIS_REGISTER_GS || segment == ZYDIS_REGISTER_CS));
}

static bool is_denied(const struct gen *g, const struct testcase *t)
{
	const ZydisDecodedInstruction *z = &t->z;

	for (unsigned i = 0; i < ARRAY_SIZE(denied); i++)
		if (denied[i] == z->mnemonic)
			return true;
	if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || z->meta.category == ZYDIS_CATEGORY_IO ||
	    z->meta.category == ZYDIS_CATEGORY_IOSTRINGOP ||
	    z->meta.category == ZYDIS_CATEGORY_SYSTEM || z->meta.category == ZYDIS_CATEGORY_CET ||
	    z->meta.isa_ext == ZYDIS_ISA_EXT_AMX_TILE || z->meta.isa_ext == ZYDIS_ISA_EXT_MPX ||
	    z->meta.isa_ext == ZYDIS_ISA_EXT_AMX_INT8 ||
	    z->meta.isa_ext == ZYDIS_ISA_EXT_AMX_BF16 ||
	    z->meta.isa_ext == ZYDIS_ISA_EXT_KEYLOCKER || z->meta.isa_ext == ZYDIS_ISA_EXT_RTM ||
	    z->meta.isa_ext == ZYDIS_ISA_EXT_KEYLOCKER_WIDE)
		return true;
	for (unsigned i = 0; i < z->operand_count; i++) {
		const ZydisDecodedOperand *op = &t->ops[i];

		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_SEGMENT)
			return true;
		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && host_segment(g, op->mem.segment))
			return true;
	}
	return false;
}

/* ---- values ---- */

static uint64_t integer(struct gen *g)
{
	static const uint64_t edges[] = {
		0,
		1,
		2,
		0x7f,
		0x80,
		0xff,
		0x7fff,
		0x8000,
		0xffff,
		0x10000,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		0x100000000,
		0x7fffffffffffffff,
		0x8000000000000000,
		0xffffffffffffffff,
		0xfffffffffffffffe,
	};

	switch (below(g, 4)) {
	case 0:
		return edges[below(g, ARRAY_SIZE(edges))];
	case 1:
		return below(g, 128);
	case 2:
		return (int64_t)rnd(g) >> below(g, 64);
	default:
		return rnd(g);
	}
}

static void put_float(struct gen *g, uint8_t *p, unsigned size)
{
	static const uint64_t doubles[] = {
		0,
		0x8000000000000000,
		0x3ff0000000000000,
		0xbff0000000000000,
		0x7ff0000000000000,
		0xfff0000000000000,
		0x7ff8000000000000,
		0x7ff0000000000001,
		1,
		0x000fffffffffffff,
		0x0010000000000000,
		0x7fefffffffffffff,
		0x4340000000000000,
		0x41dfffffffc00000,
		0x3fe0000000000000,
		0x4008000000000000,
	};
	static const uint32_t floats[] = {
		0,	    0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000,
		0x7fc00000, 0x7f800001, 1,	    0x007fffff, 0x00800000, 0x7f7fffff,
		0x4b800000, 0x4f000000, 0x3f000000, 0x40400000,
	};
	uint64_t val = size == 8 ? doubles[below(g, 16)] : floats[below(g, 16)];

	if (percent(g, 30))
		val = rnd(g);
	memcpy(p, &val, size);
}

static void put_vector(struct gen *g, uint8_t *p, unsigned size)
{
	unsigned kind = below(g, 3);

	for (unsigned i = 0; i < size; i += 8) {
		uint64_t val = integer(g);

		if (kind == 0) {
			memcpy(p + i, &val, 8);
		} else if (kind == 1) {
			put_float(g, p + i, 8);
		} else {
			put_float(g, p + i, 4);
			put_float(g, p + i + 4, 4);
		}
	}
}

static void make_x87_registers(struct gen *g, uint8_t *x)
{
	static const uint16_t exponents[] = {0, 1, 0x3ffe, 0x3fff, 0x4000, 0x403e, 0x7ffe, 0x7fff};

	for (int i = 0; i < 8; i++) {
		uint8_t *r = x + 32 + 16 * i;
		uint64_t mantissa = percent(g, 50) ? 1ull << 63 : rnd(g) | 1ull << 63;
		uint16_t sign_exponent = exponents[below(g, 8)] | below(g, 2) << 15;

		if (percent(g, 10))
			mantissa = integer(g);
		if (percent(g, 20))
			sign_exponent = rnd(g);
		memcpy(r, &mantissa, 8);
		memcpy(r + 8, &sign_exponent, 2);
	}
}

static void make_xstate(struct gen *g, struct testcase *t)
{
	uint8_t *x = t->in.x;
	uint16_t fcw = 0x37f, fsw = below(g, 8) << 11 | (below(g, 2) ? 0 : 0x4700 & rnd(g));
	uint32_t mxcsr = 0x1f80;

	memset(x, 0, sizeof(t->in.x));
	fcw = (fcw & ~0xf00) | (rnd(g) & 0xc00) | (percent(g, 70) ? 0x300 : rnd(g) & 0x300);
	if (percent(g, 12))
		fcw &= ~(rnd(g) & 0x3f);
	memcpy(x, &fcw, 2);
	memcpy(x + 2, &fsw, 2);
	x[4] = percent(g, 50) ? rnd(g) : 0xff;
	mxcsr |= rnd(g) & 0xe000;
	if (percent(g, 50))
		mxcsr |= rnd(g) & 0x7f;
	if (percent(g, 15))
		mxcsr = (mxcsr & ~(rnd(g) & 0x1f80)) & ~0x3f;
	memcpy(x + 24, &mxcsr, 4);
	memcpy(x + 28, "\xff\xff\0\0", 4);
	make_x87_registers(g, x);
	put_vector(g, x + 160, 256);
	memcpy(x + 512, &g->mask, 8);
	if (g->mask & XCR0_AVX)
		put_vector(g, x + g->xoff_avx, 256);
	if ((g->mask & XCR0_AVX512) == XCR0_AVX512) {
		put_vector(g, x + g->xoff_k, 64);
		put_vector(g, x + g->xoff_zmm_hi, 512);
		put_vector(g, x + g->xoff_hi16, 1024);
	}
}

/* ---- operands in memory ---- */

static uint64_t make_target(struct gen *g)
{
	uint64_t page = DATA_PAGE + PAGE_SIZE * below(g, 2);
	unsigned kind = below(g, 100);

	if (kind < 60)
		return page + 64 * (1 + below(g, 60));
	if (kind < 85)
		return page + 64 + below(g, 3900);
	if (kind < 95)
		return DATA_PAGE + PAGE_SIZE - below(g, 64);
	return DATA_PAGE + DATA_SIZE - below(g, 64);
}

static int gpr_id(ZydisRegister reg)
{
	if (reg == ZYDIS_REGISTER_NONE || reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP)
		return -1;
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return ZydisRegisterGetId(reg);
	default:
		return -1;
	}
}

/* Put a displacement of size bytes into the encoding where there is no register to solve for. */
static bool patch_disp(struct testcase *t, uint64_t disp)
{
	unsigned size = t->z.raw.disp.size / 8;

	if (size < 2)
		return false;
	memcpy(t->bytes + t->z.raw.disp.offset, &disp, size);
	return true;
}

/* The target as the operand's segment sees it. */
static uint64_t offset_of(const struct gen *g, const struct testcase *t,
			  const ZydisDecodedOperand *op)
{
	return t->target -
	       (op->mem.segment == ZYDIS_REGISTER_SS ? g->segs->stack_base : g->segs->data_base);
}

static void steer_vsib(struct gen *g, struct testcase *t, const ZydisDecodedOperand *op)
{
	unsigned v = ZydisRegisterGetId(op->mem.index);
	int base = gpr_id(op->mem.base);
	uint8_t index[64];

	for (unsigned i = 0; i < sizeof(index); i += 8) {
		uint64_t val = below(g, 64) | (uint64_t)below(g, 64) << 32;

		if (percent(g, 50))
			val = below(g, 64);
		memcpy(index + i, &val, 8);
	}
	if (v >= 16) {
		memcpy(t->in.x + g->xoff_hi16 + 64 * (v - 16), index, 64);
	} else {
		memcpy(t->in.x + 160 + 16 * v, index, 16);
		if (g->mask & XCR0_AVX)
			memcpy(t->in.x + g->xoff_avx + 16 * v, index + 16, 16);
		if (g->xoff_zmm_hi)
			memcpy(t->in.x + g->xoff_zmm_hi + 32 * v, index + 32, 32);
	}
	if (base >= 0)
		t->in.gpr[base] = offset_of(g, t, op) - op->mem.disp.value;
}

/* Choose register values so that the operand is at the target. False: cannot be. */
static bool steer(struct gen *g, struct testcase *t, const ZydisDecodedOperand *op)
{
	int base = gpr_id(op->mem.base), index = gpr_id(op->mem.index);
	uint64_t disp = op->mem.disp.value, *gpr = t->in.gpr, target = offset_of(g, t, op);

	/* The decoder is wrong about these: no base, and a displacement. */
	if (t->z.raw.modrm.mod == 0 && t->z.raw.sib.base == 5 && base == R13)
		return false;
	if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
		steer_vsib(g, t, op);
		return base >= 0;
	}
	if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
		return true;
	if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP)
		return patch_disp(t, target - t->in.rip - t->len);
	if (base < 0 && index < 0)
		return patch_disp(t, target);
	if (base >= 0 && base == index) {
		gpr[base] = (target - disp) / (1 + op->mem.scale);
	} else if (base >= 0) {
		if (index >= 0)
			gpr[index] = (int64_t)gpr[index] >> below(g, 64);
		gpr[base] = target - disp - (index >= 0 ? gpr[index] * op->mem.scale : 0);
	} else {
		gpr[index] = (target - disp) / op->mem.scale;
	}
	if (t->z.address_width == 32 && percent(g, 50)) {
		if (base >= 0)
			gpr[base] = (uint32_t)gpr[base];
	}
	return true;
}

static bool steer_all(struct gen *g, struct testcase *t)
{
	bool string = t->z.meta.category == ZYDIS_CATEGORY_STRINGOP;

	for (unsigned i = 0; i < t->z.operand_count; i++) {
		const ZydisDecodedOperand *op = &t->ops[i];

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || gpr_id(op->mem.base) == RSP)
			continue;
		if (!steer(g, t, op))
			return false;
		if (string)
			t->target = make_target(g);
	}
	/* Indirect branches: somewhere in the code pages. */
	if (t->z.meta.branch_type && t->z.operand_count_visible &&
	    t->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
		int reg = gpr_id(t->ops[0].reg.value);

		if (reg >= 0 && reg != RSP)
			t->in.gpr[reg] = CODE_PAGE - g->segs->code_base + below(g, 0x700);
	}
	return true;
}

/* ---- FPU images ---- */

static bool saves_image(const struct testcase *t)
{
	switch (t->z.mnemonic) {
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
		return true;
	default:
		return false;
	}
}

static bool restores_image(const struct testcase *t)
{
	return t->z.mnemonic == ZYDIS_MNEMONIC_XRSTOR || t->z.mnemonic == ZYDIS_MNEMONIC_XRSTOR64;
}

/* Bytes that the instruction loads, roughly: environments are smaller than images. */
static unsigned image_size(const struct testcase *t)
{
	switch (t->z.mnemonic) {
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
		return 512;
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FRSTOR:
		return 108;
	default:
		return restores_image(t) ? 2816 : 0;
	}
}

/* Headers are good ones mostly. */
static void spoil_image(struct gen *g, struct testcase *t)
{
	uint64_t bv = rnd(g) & g->mask, comp = 0;
	unsigned at = below(g, 64);

	if (percent(g, 20)) {
		comp = BIT(63) | g->mask;
		if (percent(g, 50))
			comp &= rnd(g) | BIT(63) | bv;
	}
	memcpy(t->image + 512, &bv, 8);
	memcpy(t->image + 520, &comp, 8);
	memset(t->image + 528, 0, 48);
	/* Bits 8 to 23 may be components that only the host has. */
	if (percent(g, 10) && (at < 16 ? at & 7 : at) - 1 > 1)
		t->image[512 + at] ^= 1 << below(g, 8);
	if (percent(g, 5))
		t->image[24 + below(g, 4)] = rnd(g) >> 56;
}

/* Control, status and tag words stand apart in an environment. */
static void spread_environment(struct gen *g, struct testcase *t)
{
	unsigned step = t->z.operand_width == 16 ? 2 : 4;
	uint16_t words[3] = {t->image[0] | t->image[1] << 8, t->image[2] | t->image[3] << 8,
			     rnd(g)};

	if (percent(g, 30))
		words[1] = rnd(g);
	memset(t->image, 0, 7 * step);
	for (unsigned i = 0; i < 3; i++)
		memcpy(t->image + i * step, &words[i], 2);
}

static void make_image(struct gen *g, struct testcase *t)
{
	t->image_size = image_size(t);
	if (t->image_size) {
		make_xstate(g, t);
		memcpy(t->image, t->in.x, sizeof(t->image));
		if (t->image_size > 512)
			spoil_image(g, t);
		else if (t->image_size < 512)
			spread_environment(g, t);
	}
	/* Components that only the host has stay out of it. */
	if (saves_image(t) || restores_image(t))
		t->in.gpr[RAX] = rnd(g) & (g->mask | ~host_xcr0());
	/* Neither single-step nor alignment faults in the handler. */
	t->flags = rnd(g) & ~(FLAG_TF | FLAG_AC);
}

/* EDX:EAX is which components are moved, not an address. */
static bool names_components(const struct testcase *t)
{
	return (saves_image(t) || restores_image(t)) &&
	       (gpr_id(t->ops[0].mem.base) == RAX || gpr_id(t->ops[0].mem.index) == RAX);
}

static void make_state(struct gen *g, struct testcase *t)
{
	for (int i = 0; i < NR_GPRS; i++)
		t->in.gpr[i] = integer(g);
	t->in.gpr[RSP] = STACK_PAGE - g->segs->stack_base + 0x800 + 8 * below(g, 128);
	if (percent(g, 10))
		t->in.gpr[RSP] += below(g, 8);
	if (percent(g, 60))
		t->in.gpr[RBP] = STACK_PAGE - g->segs->stack_base + 0x1000 + below(g, 1024);
	if (t->decoded && t->z.meta.category == ZYDIS_CATEGORY_STRINGOP)
		t->in.gpr[RCX] = below(g, percent(g, 90) ? 80 : 5000);
	t->in.rflags = 0x202 | (rnd(g) & FLAGS_ARITH) | (percent(g, 30) ? FLAG_DF : 0);
	t->image_size = 0;
	if (t->decoded)
		make_image(g, t);
	make_xstate(g, t);
	put_vector(g, t->memory, sizeof(t->memory));
}

static void place(struct gen *g, struct testcase *t)
{
	/* Now and then across the two pages. */
	if (percent(g, 5))
		t->code = CODE_PAGE + PAGE_SIZE - below(g, 15);
	else
		t->code = CODE_PAGE + 0x800 + below(g, 64);
	t->in.rip = t->code - g->segs->code_base;
}

/* VMCALL with a prefix: the decoder refuses it, the host's hypervisor does not. */
static bool hypercall(const struct testcase *t)
{
	for (unsigned i = 0; i < 13; i++)
		if (!memcmp(t->bytes + i, "\x0f\x01\xc1", 3))
			return true;
	return false;
}

/* Those with many encodings leave room for the rest. */
static bool wanted(struct gen *g, ZydisMnemonic mnemonic)
{
	if (!g->nr_fixed && g->made[mnemonic] > 16 + g->nr_made / 400 && percent(g, 85))
		return false;
	g->made[mnemonic]++;
	g->nr_made++;
	return true;
}

/* Zydis's word on the bytes; false if they must not be run. */
static bool acceptable(struct gen *g, struct testcase *t)
{
	ZyanStatus s = ZydisDecoderDecodeFull(&g->decoder, t->bytes, 15, &t->z, t->ops);
	unsigned i = 0;
	uint8_t *evex;

	/* Outside of 64-bit mode the decoder rejects W1 where the manual ignores it. */
	while (i < 8 && (t->bytes[i] == 0x67 || (t->bytes[i] & 0xfe) == 0x64 ||
			 (t->bytes[i] & 0xe7) == 0x26))
		i++;
	evex = t->bytes + i;
	if (!ZYAN_SUCCESS(s) && g->segs->bits != 64 && evex[0] == 0x62 &&
	    (evex[4] == 0x2a || evex[4] == 0x7b) && evex[2] & 0x80) {
		evex[2] &= 0x7f;
		s = ZydisDecoderDecodeFull(&g->decoder, t->bytes, 15, &t->z, t->ops);
		evex[2] |= 0x80;
	}
	t->decoded = ZYAN_SUCCESS(s);
	if (t->decoded) {
		t->len = t->z.length;
		return !is_denied(g, t) && !loops(t) && wanted(g, t->z.mnemonic);
	}
	t->len = 15;
	if (hypercall(t))
		return false;
	/* Bytes that nobody knows: mostly #UD, but few of them are wanted. */
	return percent(g, 3);
}

void gen_case(struct gen *g, struct testcase *t)
{
	t->offsets = (struct gen_offsets){
		.avx = g->xoff_avx,
		.k = g->xoff_k,
		.zmm_hi = g->xoff_zmm_hi,
		.hi16 = g->xoff_hi16,
	};
	do {
		memset(t->bytes, 0, sizeof(t->bytes));
		make_bytes(g, t->bytes);
		if (!acceptable(g, t))
			continue;
		place(g, t);
		t->target = make_target(g);
		make_state(g, t);
		if (!t->decoded || (!names_components(t) && steer_all(g, t)))
			return;
	} while (1);
}

static void init_decoder(struct gen *g)
{
	if (g->segs->bits == 64)
		ZydisDecoderInit(&g->decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else if (g->segs->bits == 32)
		ZydisDecoderInit(&g->decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
				 ZYDIS_STACK_WIDTH_32);
	else
		ZydisDecoderInit(&g->decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_16,
				 ZYDIS_STACK_WIDTH_16);
	ZydisDecoderEnableMode(&g->decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
}

void gen_init(struct gen *g, const struct segments *segs, uint64_t seed, uint64_t mask)
{
	uint32_t r[4];

	g->seed = seed * 0x9e3779b97f4a7c15ull + 1;
	g->mask = mask;
	g->nr_fixed = g->nr_made = 0;
	memset(g->made, 0, sizeof(g->made));
	g->segs = segs;
	host_cpuid(0xd, 2, r);
	g->xoff_avx = mask & XCR0_AVX ? r[1] : 0;
	host_cpuid(0xd, 5, r);
	g->xoff_k = mask & BIT(5) ? r[1] : 0;
	host_cpuid(0xd, 6, r);
	g->xoff_zmm_hi = mask & BIT(6) ? r[1] : 0;
	host_cpuid(0xd, 7, r);
	g->xoff_hi16 = mask & BIT(7) ? r[1] : 0;
	init_decoder(g);
}
