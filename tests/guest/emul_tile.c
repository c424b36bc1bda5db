/* SPDX-License-Identifier: MIT */
/*
 * Tiles. Dot products and XSAVE images are held against the host's own, where it has tiles and lets the program use them; integers
 * also against plain C. Which faults come, and in which order, was found on a Sapphire Rapids where the SDM leaves it open.
 */
#include "emul.h"
#include "host/host.h"
#include "silicon/cpu/amx.h"
#include "silicon/models/features.h"

#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CONFIG	 FLAT_DATA
#define DST	 (FLAT_DATA + 0x1000)
#define A	 (FLAT_DATA + 0x2000)
#define B	 (FLAT_DATA + 0x3000)
#define OUTPUT	 (FLAT_DATA + 0x4000)
#define SHOWN	 (FLAT_DATA + 0x5000) /* STTILECFG's */
#define IMAGE	 (FLAT_DATA + 0x8000)
#define IMAGE_SZ 11008

#define REQ_XCOMP_PERM 0x1023
#define MSR_XFD	       0x1c4
#define MSR_XFD_ERR    0x1c5

/* Instructions. ldtilecfg [rbx] */
#define LDTILECFG "\xc4\xe2\x78\x49\x03"
/* sttilecfg [r9] */
#define STTILECFG "\xc4\xc2\x79\x49\x01"
/* tileloadd tmm0, [rsi+rcx] and tmm1, [rdi+rcx] and tmm2, [rdx+rcx] */
#define LOAD_DST    "\xc4\xe2\x7b\x4b\x04\x0e"
#define LOAD_A	    "\xc4\xe2\x7b\x4b\x0c\x0f"
#define LOAD_B	    "\xc4\xe2\x7b\x4b\x14\x0a"
#define LOAD	    LOAD_DST LOAD_A LOAD_B
#define TILERELEASE "\xc4\xe2\x78\x49\xc0"
#define TILEZERO    "\xc4\xe2\x7b\x49\xc0"
/* tilestored [r8+rcx], tmm0 */
#define STORE "\xc4\xc2\x7a\x4b\x04\x08"
/* dot products: tmm0 += tmm1 * tmm2 */
#define TDPBSSD	  "\xc4\xe2\x6b\x5e\xc1"
#define TDPBSUD	  "\xc4\xe2\x6a\x5e\xc1"
#define TDPBUSD	  "\xc4\xe2\x69\x5e\xc1"
#define TDPBUUD	  "\xc4\xe2\x68\x5e\xc1"
#define TDPBF16PS "\xc4\xe2\x6a\x5c\xc1"

struct config {
	uint8_t palette, start, reserved[14];
	uint16_t colsb[16];
	uint8_t rows[16];
};

typedef uint32_t tile_t[16][16];

static bool natively;
static uint64_t seed;

static uint32_t rnd(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return seed >> 32;
}

static struct config whole(void)
{
	struct config c = {.palette = 1};

	for (unsigned i = 0; i < AMX_TILES; i++) {
		c.colsb[i] = 64;
		c.rows[i] = 16;
	}
	return c;
}

/* tmm0 is rows by cols, tmm1 rows by depth, in doublewords. */
static struct config shaped(unsigned rows, unsigned cols, unsigned depth)
{
	struct config c = whole();

	c.rows[0] = c.rows[1] = rows;
	c.colsb[0] = c.colsb[2] = 4 * cols;
	c.colsb[1] = 4 * depth;
	c.rows[2] = depth;
	return c;
}

static struct flat *machine(void)
{
	struct flat *f = emul_machine(flat_long);

	flat_set_cr4(f, f->cpu->cr4 | CR4_OSXSAVE);
	f->cpu->xcr0 = f->cpu->xcr0_allowed & (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AMX);
	return f;
}

/* Registers as the instructions above want them. */
static void point(struct flat *f, const struct config *c)
{
	flat_write(f, CONFIG, c, sizeof(*c));
	f->cpu->gpr[RBX] = CONFIG;
	f->cpu->gpr[RCX] = 64;
	f->cpu->gpr[RSI] = DST;
	f->cpu->gpr[RDI] = A;
	f->cpu->gpr[RDX] = B;
	f->cpu->gpr[R8] = OUTPUT;
	f->cpu->gpr[R9] = SHOWN;
}

static int setup(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	bool has = f->cpu->amx;

	flat_free(f);
	if (!has) {
		print_message("the model near this host has no tiles\n");
		exit(77);
	}
	natively = !syscall(SYS_arch_prctl, REQ_XCOMP_PERM, 18);
	return 0;
}

/* ---- dot products ---- */

enum { SSD, SUD, USD, UUD, BF16 };

#define HOST_DOT(insn)                                                                  \
	asm volatile("ldtilecfg (%0)\n tileloadd (%1,%5,1), %%tmm0\n"                   \
		     "tileloadd (%2,%5,1), %%tmm1\n tileloadd (%3,%5,1), %%tmm2\n" insn \
		     "\n tilestored %%tmm0, (%4,%5,1)\n tilerelease" ::"r"(c),          \
		     "r"(dst), "r"(a), "r"(b), "r"(out), "r"(64ul)                      \
		     : "memory")

static void host_dot(int kind, const struct config *c, const tile_t dst, const tile_t a,
		     const tile_t b, tile_t out)
{
	switch (kind) {
	case SSD:
		HOST_DOT("tdpbssd %%tmm2, %%tmm1, %%tmm0");
		break;
	case SUD:
		HOST_DOT("tdpbsud %%tmm2, %%tmm1, %%tmm0");
		break;
	case USD:
		HOST_DOT("tdpbusd %%tmm2, %%tmm1, %%tmm0");
		break;
	case UUD:
		HOST_DOT("tdpbuud %%tmm2, %%tmm1, %%tmm0");
		break;
	case BF16:
		HOST_DOT("tdpbf16ps %%tmm2, %%tmm1, %%tmm0");
		break;
	}
}

static void guest_dot(struct flat *f, int kind)
{
	switch (kind) {
	case SSD:
		emul_halts(f, LDTILECFG LOAD TDPBSSD STORE TILERELEASE);
		break;
	case SUD:
		emul_halts(f, LDTILECFG LOAD TDPBSUD STORE TILERELEASE);
		break;
	case USD:
		emul_halts(f, LDTILECFG LOAD TDPBUSD STORE TILERELEASE);
		break;
	case UUD:
		emul_halts(f, LDTILECFG LOAD TDPBUUD STORE TILERELEASE);
		break;
	case BF16:
		emul_halts(f, LDTILECFG LOAD TDPBF16PS STORE TILERELEASE);
		break;
	}
}

static int byte_of(uint32_t word, unsigned i, bool is_signed)
{
	uint8_t byte = word >> 8 * i;

	return is_signed ? (int8_t)byte : byte;
}

/* SDM's pseudocode. */
static void plain_dot(int kind, const struct config *c, const tile_t dst, const tile_t a,
		      const tile_t b, tile_t out)
{
	for (unsigned m = 0; m < c->rows[0]; m++)
		for (unsigned n = 0; n < c->colsb[0] / 4u; n++) {
			uint32_t sum = dst[m][n];

			for (unsigned k = 0; k < c->rows[2]; k++)
				for (unsigned i = 0; i < 4; i++)
					sum += byte_of(a[m][k], i, kind == SSD || kind == SUD) *
					       byte_of(b[k][n], i, kind == SSD || kind == USD);
			out[m][n] = sum;
		}
}

static uint16_t random_bf16(unsigned kind)
{
	static const uint16_t special[] = {0,	   0x8000, 0x7f80, 0xff80, 0x7fc0, 0xffc1,
					   0x7f81, 0xff8a, 1,	   0x807f, 0x3f80, 0xbf80,
					   0x7f7f, 0x80,   0xff,   0x8080};
	uint16_t r = rnd();

	switch (kind) {
	case 0:
		return r;
	case 1: /* of like size, so that roundings count */
		return (r & 0x807f) | (100 + rnd() % 56) << 7;
	case 2: /* products near the least normal number */
		return (r & 0x807f) | (rnd() % 70) << 7;
	default:
		return special[r % ARRAY_SIZE(special)];
	}
}

static void random_tile(tile_t t, unsigned kind)
{
	for (unsigned i = 0; i < 256; i++)
		t[i / 16][i % 16] = random_bf16(kind) | (uint32_t)random_bf16(kind) << 16;
}

static void dot_once(struct flat *f, int kind, const struct config *c, unsigned numbers)
{
	static tile_t dst, a, b, want;

	random_tile(dst, numbers);
	random_tile(a, numbers);
	random_tile(b, numbers);
	flat_write(f, DST, dst, sizeof(dst));
	flat_write(f, A, a, sizeof(a));
	flat_write(f, B, b, sizeof(b));
	memset(want, 0xcc, sizeof(want));
	memset(f->ram + OUTPUT, 0xcc, sizeof(want));
	point(f, c);
	guest_dot(f, kind);
	if (natively)
		host_dot(kind, c, dst, a, b, want);
	else if (kind != BF16)
		plain_dot(kind, c, dst, a, b, want);
	if (natively || kind != BF16)
		assert_memory_equal(f->ram + OUTPUT, want, sizeof(want));
	if (kind != BF16) {
		plain_dot(kind, c, dst, a, b, want);
		assert_memory_equal(f->ram + OUTPUT, want, sizeof(want));
	}
}

static void dots(void **state)
{
	struct flat *f = machine();

	seed = 1;
	for (unsigned i = 0; i < 400; i++) {
		struct config c = shaped(1 + rnd() % 16, 1 + rnd() % 16, 1 + rnd() % 16);

		dot_once(f, i % 5, &c, i / 5 % 4);
	}
	flat_free(f);
}

/* Numbers by hand: 1 * 2 + 3 * 4 + 100; a tie to even; a denormal that counts as zero. */
static void bf16_by_hand(void **state)
{
	struct flat *f = machine();
	struct config c = shaped(1, 3, 1);
	const uint32_t dst[3] = {0x42c80000, 0x4b800000, 0x00000001};
	const uint32_t a[1] = {0x40403f80}; /* 1, 3 */
	const uint32_t b[3] = {0x40804000, 0x00003f80, 0};
	const uint32_t want[3] = {0x42e40000, 0x4b800000, 0};

	point(f, &c);
	flat_write(f, DST, dst, sizeof(dst));
	flat_write(f, A, a, sizeof(a));
	flat_write(f, B, b, sizeof(b));
	guest_dot(f, BF16);
	assert_memory_equal(f->ram + OUTPUT, want, sizeof(want));
	flat_free(f);
}

/* ---- moves ---- */

static void fill(struct flat *f, gva_t at, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		f->ram[at + i] = i * 7 + (i >> 8) + 1;
}

static void strides(void **state)
{
	struct flat *f = machine();
	struct config c = whole();

	c.rows[0] = 5;
	c.colsb[0] = 12;
	point(f, &c);
	fill(f, DST, 0x1000);
	f->cpu->gpr[RSI] = DST + 4 * 100;
	f->cpu->gpr[RCX] = -100;
	memset(f->ram + OUTPUT, 0xcc, 0x1000);
	f->cpu->gpr[R8] = OUTPUT + 0x800;
	emul_halts(f, LDTILECFG LOAD_DST STORE);
	for (int i = 0; i < 5; i++) {
		assert_memory_equal(f->ram + OUTPUT + 0x800 - 100 * i,
				    f->ram + DST + 4 * 100 - 100 * i, 12);
		assert_int_equal(f->ram[OUTPUT + 0x800 - 100 * i + 12], 0xcc);
	}
	/* tileloadd tmm0, [rsi]: no index, so each row is the first. With 67h addresses wrap. */
	f->cpu->gpr[RSI] = DST | 1ull << 40;
	f->cpu->gpr[RCX] = 64;
	f->cpu->gpr[R8] = OUTPUT;
	emul_halts(f, LDTILECFG "\x67\xc4\xe2\x7b\x4b\x04\x26" STORE);
	for (int i = 0; i < 5; i++)
		assert_memory_equal(f->ram + OUTPUT + 64 * i, f->ram + DST, 12);
	flat_free(f);
}

/* A row that faults stands in the configuration; nothing of it was moved. */
static void restart(void **state)
{
	struct flat *f = machine();
	struct config c = whole();
	gva_t last = DST + 0x1000 - 7 * 64 - 32;

	point(f, &c);
	fill(f, DST, 0x2000);
	flat_map(f, DST + 0x1000, 0, 0, 0x1000);
	mmu_flush_all(f->cpu);
	f->cpu->gpr[RSI] = last;
	emul_faults(f, VEC_PF, LDTILECFG LOAD_DST);
	assert_int_equal(f->cpu->cr2, DST + 0x1000);
	assert_int_equal(f->cpu->amx->config[AMX_CONFIG_START], 7);
	assert_memory_equal(f->cpu->amx->tile[0], f->ram + last, 7 * 64);
	assert_int_equal(f->cpu->amx->tile[0][7 * 64], 0);
	flat_map(f, DST + 0x1000, DST + 0x1000, PTE_P | PTE_W, 0x1000);
	mmu_flush_all(f->cpu);
	emul_halts(f, STTILECFG LOAD_DST);
	assert_int_equal(f->ram[SHOWN + 1], 7);
	assert_int_equal(f->cpu->amx->config[AMX_CONFIG_START], 0);
	assert_memory_equal(f->cpu->amx->tile[0], f->ram + last, 1024);
	/* the same for a store */
	flat_map(f, OUTPUT + 0x1000, 0, 0, 0x1000);
	mmu_flush_all(f->cpu);
	memset(f->ram + OUTPUT, 0xcc, 0x2000);
	f->cpu->gpr[R8] = OUTPUT + 0x1000 - 7 * 64 - 32;
	emul_faults(f, VEC_PF, STORE);
	assert_int_equal(f->cpu->amx->config[AMX_CONFIG_START], 7);
	assert_int_equal(f->ram[OUTPUT + 0x1000 - 32 - 1], f->ram[last + 7 * 64 - 1]);
	assert_int_equal(f->ram[OUTPUT + 0x1000 - 32], 0xcc);
	flat_free(f);
}

/* A start row that was configured: rows before it stay, and dot products do not look at it. */
static void start_row(void **state)
{
	struct flat *f = machine();
	struct config c = whole();

	c.start = 5;
	point(f, &c);
	fill(f, DST, 1024);
	emul_halts(f, LDTILECFG LOAD_DST);
	assert_int_equal(f->cpu->amx->tile[0][4 * 64 + 1], 0);
	assert_memory_equal(f->cpu->amx->tile[0] + 5 * 64, f->ram + DST + 5 * 64, 11 * 64);
	emul_halts(f, LDTILECFG TDPBSSD STTILECFG);
	assert_int_equal(f->ram[SHOWN + 1], 0);
	emul_halts(f, LDTILECFG TILEZERO STTILECFG);
	assert_int_equal(f->ram[SHOWN + 1], 0);
	c.start = 16;
	point(f, &c);
	emul_faults(f, VEC_UD, LDTILECFG LOAD_DST);
	flat_free(f);
}

static uint64_t mmio_pattern(struct flat *f, gpa_t gpa, unsigned size)
{
	return 0x0101010101010101ull * (uint8_t)(gpa >> 3);
}

/* Rows that a device answers: more fragments than an instruction may ask for. */
static void devices(void **state)
{
	struct flat *f = machine();
	struct config c = whole();

	point(f, &c);
	f->mmio_in = mmio_pattern;
	f->cpu->gpr[RSI] = FLAT_MMIO;
	f->cpu->gpr[R8] = FLAT_MMIO + 0x1000;
	emul_halts(f, LDTILECFG LOAD_DST STORE);
	for (unsigned i = 0; i < 1024; i++)
		assert_int_equal(f->cpu->amx->tile[0][i], i >> 3 & 0xff);
	assert_int_equal(f->nr_events, 128 + 128);
	for (unsigned i = 0; i < 128; i++) {
		assert_int_equal(f->events[128 + i].kind, FLAT_MMIO_WRITE);
		assert_int_equal(f->events[128 + i].addr, FLAT_MMIO + 0x1000 + 8 * i);
		assert_int_equal(f->events[128 + i].data, 0x0101010101010101ull * i);
	}
	flat_free(f);
}

/* ---- what is refused ---- */

static void bad_configs(void **state)
{
	struct flat *f = machine();

#define CASE(vector, change)                               \
	do {                                               \
		struct config c = whole();                 \
		change;                                    \
		point(f, &c);                              \
		if (vector)                                \
			emul_faults(f, VEC_GP, LDTILECFG); \
		else                                       \
			emul_halts(f, LDTILECFG);          \
	} while (0)
	CASE(VEC_GP, c.palette = 2);
	CASE(VEC_GP, c.reserved[0] = 1);
	CASE(VEC_GP, c.reserved[13] = 1);
	CASE(VEC_GP, c.colsb[3] = 65);
	CASE(VEC_GP, c.rows[3] = 17);
	CASE(VEC_GP, c.colsb[3] = 0);
	CASE(VEC_GP, c.rows[3] = 0);
	CASE(VEC_GP, c.colsb[8] = 64);
	CASE(VEC_GP, c.rows[15] = 1);
	CASE(0, c.colsb[3] = 0; c.rows[3] = 0);
	CASE(0, c.colsb[3] = 63);
	CASE(0, c.start = 200);
	CASE(0, memset(&c, 0xff, sizeof(c)); c.palette = 0);
#undef CASE
	/* The last one released all. */
	assert_int_equal(f->cpu->amx->config[AMX_CONFIG_ROWS], 0);
	assert_int_equal(f->cpu->amx->config[AMX_CONFIG_START], 0);
	flat_free(f);
}

static void bad_shapes(void **state)
{
	struct flat *f = machine();

#define CASE(insns, change)                              \
	do {                                             \
		struct config c = whole();               \
		change;                                  \
		point(f, &c);                            \
		emul_faults(f, VEC_UD, LDTILECFG insns); \
	} while (0)
	CASE(TDPBSSD, c.rows[0] = 15);
	CASE(TDPBSSD, c.colsb[0] = 60);
	CASE(TDPBSSD, c.colsb[1] = 60);
	CASE(TDPBSSD, c.colsb[0] = c.colsb[2] = 62);
	CASE(TDPBF16PS, c.colsb[1] = 62);
	CASE(TDPBF16PS, c.rows[2] = c.colsb[2] = 0);
	CASE(LOAD_DST, c.rows[0] = c.colsb[0] = 0);
	CASE(LOAD_DST, c.colsb[0] = 63);
	CASE(STORE, c.colsb[0] = 62);
	CASE(TILEZERO, c.rows[0] = c.colsb[0] = 0);
	CASE(TILERELEASE TILEZERO, );
	CASE("\xc4\xe2\x73\x5e\xc1", ); /* tdpbssd tmm0, tmm1, tmm1 */
	CASE("\xc4\xe2\x7b\x4b\x00", ); /* tileloadd without SIB */
	CASE("\xc4\xe2\x73\x49\xc0", ); /* tilezero with vvvv */
	CASE("\xf0" TILERELEASE, );
#undef CASE
	flat_free(f);
}

static void modes(void **state)
{
	struct flat *f = machine();
	struct config c = whole();

	point(f, &c);
	emul_halts(f, LDTILECFG);
	f->cpu->xcr0 &= ~XCR0_AMX;
	emul_faults(f, VEC_UD, TILEZERO);
	f->cpu->xcr0 |= XCR0_AMX;
	flat_set_cr4(f, f->cpu->cr4 & ~CR4_OSXSAVE);
	emul_faults(f, VEC_UD, TILEZERO);
	flat_set_cr4(f, f->cpu->cr4 | CR4_OSXSAVE);
	emul_halts(f, TILEZERO);
	flat_compat(f);
	emul_faults(f, VEC_UD, TILEZERO);
	flat_free(f);
}

/* XSETBV takes both bits or none. */
static void xsetbv(void **state)
{
	struct flat *f = machine();

	f->cpu->gpr[RCX] = 0;
	f->cpu->gpr[RDX] = 0;
	f->cpu->gpr[RAX] = XCR0_X87 | XCR0_TILECFG;
	emul_faults(f, VEC_GP, "\x0f\x01\xd1");
	f->cpu->gpr[RAX] = XCR0_X87 | XCR0_TILEDATA;
	emul_faults(f, VEC_GP, "\x0f\x01\xd1");
	f->cpu->gpr[RAX] = XCR0_X87 | XCR0_AMX;
	emul_halts(f, "\x0f\x01\xd1");
	assert_int_equal(f->cpu->xcr0, XCR0_X87 | XCR0_AMX);
	flat_free(f);
}

/* ---- IA32_XFD ---- */

#define WRMSR "\x0f\x30"

static void set_xfd(struct flat *f, uint64_t val)
{
	f->cpu->gpr[RCX] = MSR_XFD;
	f->cpu->gpr[RAX] = val;
	f->cpu->gpr[RDX] = val >> 32;
	emul_halts(f, WRMSR);
}

static void nm(struct flat *f)
{
	assert_int_equal(flat_handler(f), VEC_NM);
	assert_int_equal(f->cpu->msr.xfd_err, XCR0_TILEDATA);
	f->cpu->msr.xfd_err = 0;
}

static void xfd(void **state)
{
	struct flat *f = machine();
	struct config c = whole();

	set_xfd(f, XCR0_TILEDATA);
	c.rows[3] = c.colsb[3] = 0;
	point(f, &c);
	emul_halts(f, LDTILECFG STTILECFG TILERELEASE LDTILECFG);
	emul_faults(f, VEC_NM, TILEZERO);
	nm(f);
	emul_faults(f, VEC_NM, TDPBUUD);
	nm(f);
	emul_faults(f, VEC_NM, STORE);
	nm(f);
	/* before memory, but behind #UD */
	f->cpu->gpr[RSI] = 1ull << 50;
	emul_faults(f, VEC_NM, LOAD_DST);
	nm(f);
	emul_faults(f, VEC_UD, "\xc4\xe2\x7b\x49\xd8"); /* tilezero tmm3 */
	assert_int_equal(f->cpu->msr.xfd_err, 0);
	set_xfd(f, 0);
	emul_halts(f, TILEZERO);
	/* other bits */
	f->cpu->gpr[RCX] = MSR_XFD;
	f->cpu->gpr[RAX] = XCR0_TILECFG;
	emul_faults(f, VEC_GP, WRMSR);
	f->cpu->gpr[RAX] = 0;
	f->cpu->gpr[RDX] = 1;
	emul_faults(f, VEC_GP, WRMSR);
	f->cpu->gpr[RCX] = MSR_XFD_ERR;
	emul_faults(f, VEC_GP, WRMSR);
	feature_put(f->cpu->guest_features, FEAT_XFD, false);
	f->cpu->gpr[RDX] = 0;
	emul_faults(f, VEC_GP, WRMSR);
	flat_free(f);
}

/* ---- images ---- */

typedef uint8_t image_t[IMAGE_SZ] __aligned_(64);

#define BV(image)   (*(uint64_t *)((image) + 512))
#define COMP(image) (*(uint64_t *)((image) + 520))
#define TILE_CONFIG 2752
#define TILE_DATA   2816

static void make_image(uint8_t *image, uint64_t bv)
{
	struct config c = shaped(9, 3, 7);

	memset(image, 0, IMAGE_SZ);
	BV(image) = bv;
	memcpy(image + TILE_CONFIG, &c, sizeof(c));
	for (unsigned i = 0; i < AMX_DATA_SIZE; i++)
		image[TILE_DATA + i] = i * 5 + (i >> 8);
}

/* xrstor64 [rbx]; xgetbv to r10; and one of the others to [rdi] */
static void guest_image(struct flat *f, const uint8_t *image, int form)
{
	flat_write(f, IMAGE, image, IMAGE_SZ);
	memset(f->ram + IMAGE + 0x4000, 0xcc, IMAGE_SZ);
	memset(f->ram + IMAGE + 0x4000 + 512, 0, 64);
	f->cpu->gpr[RBX] = IMAGE;
	f->cpu->gpr[RDI] = IMAGE + 0x4000;
	f->cpu->gpr[RAX] = XCR0_AMX;
	f->cpu->gpr[RCX] = 1;
	f->cpu->gpr[RDX] = 0;
#define PROLOGUE "\x48\x0f\xae\x2b\x0f\x01\xd0\x49\x89\xc2\xb8\x00\x00\x06\x00\x31\xd2"
	if (form == 0)
		emul_halts(f, PROLOGUE "\x48\x0f\xae\x27");
	else if (form == 1)
		emul_halts(f, PROLOGUE "\x48\x0f\xc7\x27");
	else
		emul_halts(f, PROLOGUE "\x48\x0f\xae\x37");
}

static uint64_t host_image(const uint8_t *image, int form, uint8_t *out)
{
	uint32_t rfbm = XCR0_AMX, inuse, high;

	memset(out, 0xcc, IMAGE_SZ);
	memset(out + 512, 0, 64);
	asm volatile("xrstor64 %0" ::"m"(*(const image_t *)image), "a"(rfbm), "d"(0));
	asm volatile("xgetbv" : "=a"(inuse), "=d"(high) : "c"(1));
	if (form == 0)
		asm volatile("xsave64 %0" : "+m"(*(image_t *)out) : "a"(rfbm), "d"(0));
	else if (form == 1)
		asm volatile("xsavec64 %0" : "+m"(*(image_t *)out) : "a"(rfbm), "d"(0));
	else
		asm volatile("xsaveopt64 %0" : "+m"(*(image_t *)out) : "a"(rfbm), "d"(0));
	asm volatile("tilerelease");
	return inuse & XCR0_AMX;
}

static void images(void **state)
{
	static const uint64_t bvs[] = {XCR0_AMX, XCR0_TILECFG, XCR0_TILEDATA, 0};
	static image_t image, want;
	struct flat *f = machine();

	for (unsigned i = 0; i < ARRAY_SIZE(bvs); i++)
		for (int form = 0; form < 3; form++) {
			make_image(image, bvs[i]);
			guest_image(f, image, form);
			assert_int_equal(f->cpu->gpr[R10] & XCR0_AMX, bvs[i]);
			assert_int_equal(BV(f->ram + IMAGE + 0x4000), bvs[i]);
			if (!natively)
				continue;
			assert_int_equal(host_image(image, form, want), bvs[i]);
			assert_memory_equal(f->ram + IMAGE + 0x4000, want, IMAGE_SZ);
		}
	flat_free(f);
}

/* What LDTILECFG would refuse is loaded as no configuration, without a fault. */
static void image_of_bad_config(void **state)
{
	static image_t image;
	struct flat *f = machine();

	make_image(image, XCR0_AMX);
	image[TILE_CONFIG + AMX_CONFIG_ROWS] = 99;
	guest_image(f, image, 0);
	assert_int_equal(BV(f->ram + IMAGE + 0x4000), XCR0_TILEDATA);
	assert_int_equal(f->ram[IMAGE + 0x4000 + TILE_CONFIG], 0);
	emul_faults(f, VEC_UD, TILEZERO);
	flat_free(f);
}

/* A compacted image goes back in, as XSAVEC has made it. */
static void image_compacted(void **state)
{
	static image_t image;
	struct flat *f = machine();

	make_image(image, XCR0_AMX);
	guest_image(f, image, 1);
	memcpy(image, f->ram + IMAGE + 0x4000, IMAGE_SZ);
	assert_int_equal(COMP(image), BIT(63) | XCR0_AMX);
	memset(image + 528, 0, 48);
	f->cpu->amx->data = true;
	memset(f->cpu->amx->tile, 0xee, AMX_DATA_SIZE);
	guest_image(f, image, 0);
	make_image(image, XCR0_AMX);
	assert_memory_equal(f->ram + IMAGE + 0x4000 + TILE_CONFIG, image + TILE_CONFIG,
			    IMAGE_SZ - TILE_CONFIG);
	flat_free(f);
}

/* Disabled: saved as initial, and #NM where an image has it. */
static void image_disabled(void **state)
{
	static image_t image;
	struct flat *f = machine();

	make_image(image, XCR0_AMX);
	guest_image(f, image, 0);
	set_xfd(f, XCR0_TILEDATA);
	f->cpu->gpr[RAX] = XCR0_AMX;
	emul_halts(f, "\x48\x0f\xae\x27");
	assert_int_equal(BV(f->ram + IMAGE + 0x4000), XCR0_TILECFG);
	assert_int_equal(f->ram[IMAGE + 0x4000 + TILE_DATA + 1], 0);
	emul_faults(f, VEC_NM, "\x48\x0f\xae\x2b");
	nm(f);
	make_image(image, XCR0_TILECFG);
	guest_image(f, image, 0);
	assert_false(f->cpu->amx->data);
	flat_free(f);
}

/* The last page of an image that is not there: nothing was stored. */
static void image_probed(void **state)
{
	static image_t image;
	struct flat *f = machine();

	make_image(image, XCR0_AMX);
	guest_image(f, image, 0);
	memset(f->ram + IMAGE + 0x4000, 0xcc, IMAGE_SZ);
	flat_map(f, IMAGE + 0x6000, 0, 0, 0x1000);
	mmu_flush_all(f->cpu);
	f->cpu->gpr[RAX] = XCR0_AMX;
	emul_faults(f, VEC_PF, "\x48\x0f\xae\x27");
	assert_int_equal(f->cpu->cr2, IMAGE + 0x6000);
	assert_int_equal(f->ram[IMAGE + 0x4000 + TILE_CONFIG], 0xcc);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dots),
		cmocka_unit_test(bf16_by_hand),
		cmocka_unit_test(strides),
		cmocka_unit_test(restart),
		cmocka_unit_test(start_row),
		cmocka_unit_test(devices),
		cmocka_unit_test(bad_configs),
		cmocka_unit_test(bad_shapes),
		cmocka_unit_test(modes),
		cmocka_unit_test(xsetbv),
		cmocka_unit_test(xfd),
		cmocka_unit_test(images),
		cmocka_unit_test(image_of_bad_config),
		cmocka_unit_test(image_compacted),
		cmocka_unit_test(image_disabled),
		cmocka_unit_test(image_probed),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
