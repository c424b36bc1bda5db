/* SPDX-License-Identifier: MIT */
/*
 * Images of x87 and vector state, byte for byte against the host's own XSAVE, XSAVEC, FXSAVE, FNSAVE and
 * FLDENV with the same state, and the rules that XRSTOR refuses by.
 */
#include "emul.h"
#include "host/host.h"
#include "silicon/models/features.h"

#define IMAGE  FLAT_DATA
#define OUTPUT (FLAT_DATA + 0x2000)
#define SIZE   4096

/* What loading an image does behind the compiler's back. */
#define VECTORS                                                                                  \
	"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
		"xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "memory"

typedef uint8_t image_t[SIZE] __aligned_(64);

static uint64_t components; /* lent by the host, PKRU and tiles apart */

/* A state in which nothing is initial. */
static void make_state(uint8_t *image)
{
	uint32_t low = components;

	memset(image, 0, SIZE);
	asm volatile("fninit; fldpi; fldz; fld1; fld1; fchs; xsave64 %0; fninit"
		     : "+m"(*(image_t *)image)
		     : "a"(low), "d"(0)
		     : "memory");
	for (unsigned i = 160; i < 416; i++)
		image[i] = i * 3;
	for (unsigned i = 576; i < SIZE; i++)
		image[i] = i * 5 + (i >> 8);
	*(uint32_t *)(image + 24) = 0x1fa0;
	*(uint64_t *)(image + 512) = components;
}

static struct flat *machine(const uint8_t *image)
{
	struct flat *f = emul_machine(flat_long);

	flat_set_cr4(f, f->cpu->cr4 | CR4_OSXSAVE);
	f->cpu->xcr0 = components;
	flat_write(f, IMAGE, image, SIZE);
	f->cpu->gpr[RBX] = IMAGE;
	f->cpu->gpr[RDI] = OUTPUT;
	return f;
}

static int setup(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	components = f->cpu->xcr0_allowed & host_xcr0() & 0xe7;
	flat_free(f);
	return components & XCR0_AVX ? 0 : -1;
}

enum { STANDARD, COMPACT, OPTIMIZED };

/* The host's image of a state in a buffer that held cc, with a header of zero. */
static void host_save(const uint8_t *image, uint8_t *out, uint32_t rfbm, int form)
{
	uint32_t all = components;

	memset(out, 0xcc, SIZE);
	memset(out + 512, 0, 64);
	asm volatile("xrstor64 %0" ::"m"(*(const image_t *)image), "a"(all), "d"(0) : VECTORS);
	if (form == STANDARD)
		asm volatile("xsave64 %0" : "+m"(*(image_t *)out) : "a"(rfbm), "d"(0));
	else if (form == COMPACT)
		asm volatile("xsavec64 %0" : "+m"(*(image_t *)out) : "a"(rfbm), "d"(0));
	else
		asm volatile("xsaveopt64 %0" : "+m"(*(image_t *)out) : "a"(rfbm), "d"(0));
	asm volatile("fninit; vzeroall" ::: VECTORS);
}

/* The guest's: load, use, save. */
static void guest_save(struct flat *f, uint32_t rfbm, int form)
{
	memset(f->ram + OUTPUT, 0xcc, SIZE);
	memset(f->ram + OUTPUT + 512, 0, 64);
	f->cpu->gpr[RAX] = components;
	f->cpu->gpr[RDX] = 0;
	f->cpu->gpr[RCX] = rfbm;
	/* xrstor64 [rbx]; movaps xmm0,xmm0; mov eax,ecx; xsave64, xsavec64 or xsaveopt64 [rdi] */
	if (form == STANDARD)
		emul_halts(f, "\x48\x0f\xae\x2b\x0f\x28\xc0\x89\xc8\x48\x0f\xae\x27");
	else if (form == COMPACT)
		emul_halts(f, "\x48\x0f\xae\x2b\x0f\x28\xc0\x89\xc8\x48\x0f\xc7\x27");
	else
		emul_halts(f, "\x48\x0f\xae\x2b\x0f\x28\xc0\x89\xc8\x48\x0f\xae\x37");
}

static void same_as_host(const uint8_t *image)
{
	static const uint32_t rfbm[] = {1, 2, 3, 4, 5, 6, 7, 0xe0, 0x84, 0x42, 0xe7};
	static image_t want;
	struct flat *f = machine(image);

	for (unsigned i = 0; i < ARRAY_SIZE(rfbm); i++)
		for (int form = STANDARD; form <= OPTIMIZED; form++) {
			host_save(image, want, rfbm[i] & components, form);
			guest_save(f, rfbm[i] & components, form);
			assert_memory_equal(f->ram + OUTPUT, want, SIZE);
		}
	flat_free(f);
}

static void nothing_initial(void **state)
{
	static image_t image;

	make_state(image);
	same_as_host(image);
}

/* XSTATE_BV without AVX and the opmasks: initial, so that compaction leaves them out. */
static void some_initial(void **state)
{
	static image_t image;

	make_state(image);
	*(uint64_t *)(image + 512) = components & (XCR0_X87 | XCR0_SSE | BIT(6));
	same_as_host(image);
}

/* A compacted image goes back in. */
static void compact_load(void **state)
{
	static image_t image, compact, want;
	struct flat *f;

	make_state(image);
	host_save(image, compact, components & 0xc7, COMPACT);
	memset(compact + 528, 0, 48);
	host_save(image, want, components & 0xc7, STANDARD);
	f = machine(compact);
	guest_save(f, components & 0xc7, STANDARD);
	assert_memory_equal(f->ram + OUTPUT, want, SIZE);
	flat_free(f);
}

static void refuse(const uint8_t *image)
{
	struct flat *f = machine(image);

	f->cpu->gpr[RAX] = components;
	emul_faults(f, VEC_GP, "\x48\x0f\xae\x2b");
	flat_free(f);
}

static void bad_headers(void **state)
{
	static image_t image;

	make_state(image);
	*(uint64_t *)(image + 512) |= BIT(3); /* not in XCR0 */
	refuse(image);
	make_state(image);
	*(uint64_t *)(image + 528) = 1; /* reserved */
	refuse(image);
	make_state(image);
	*(uint64_t *)(image + 520) = 1; /* XCOMP_BV without bit 63 */
	refuse(image);
	make_state(image);
	*(uint64_t *)(image + 520) = BIT(63) | 3; /* XSTATE_BV has more */
	refuse(image);
	make_state(image);
	*(uint32_t *)(image + 24) = 0x80000000; /* MXCSR */
	refuse(image);
}

static void alignment_and_enabling(void **state)
{
	static image_t image;
	struct flat *f;

	make_state(image);
	f = machine(image);
	f->cpu->gpr[RAX] = 7;
	emul_faults(f, VEC_GP, "\x48\x0f\xae\x63\x10"); /* xsave64 [rbx+16] */
	flat_set_cr4(f, f->cpu->cr4 & ~CR4_OSXSAVE);
	emul_faults(f, VEC_UD, "\x48\x0f\xae\x23");
	flat_free(f);
}

/* The last byte is looked at before the first is written. */
static void fault_writes_nothing(void **state)
{
	static image_t image;
	struct flat *f;

	make_state(image);
	f = machine(image);
	flat_map(f, OUTPUT + 0x1000, 0, 0, 0x1000);
	mmu_flush_all(f->cpu);
	f->cpu->gpr[RDI] = OUTPUT + 0xe00;
	f->cpu->gpr[RAX] = 7;
	emul_faults(f, VEC_PF, "\x48\x0f\xae\x27");
	assert_int_equal(f->cpu->cr2, OUTPUT + 0x1000);
	assert_int_equal(flat_peek(f, OUTPUT + 0xe00, 8), 0);
	flat_free(f);
}

static void fxsave(void **state)
{
	static image_t image, want;
	struct flat *f;

	make_state(image);
	memset(want, 0xcc, SIZE);
	asm volatile("fxrstor64 %1; fxsave64 %0; fninit" : "+m"(want) : "m"(image) : VECTORS);
	f = machine(image);
	memset(f->ram + OUTPUT, 0xcc, SIZE);
	emul_halts(f, "\x48\x0f\xae\x0b\x0f\x28\xc0\x48\x0f\xae\x07");
	assert_memory_equal(f->ram + OUTPUT, want, SIZE);
	/* 32-bit code leaves XMM8 and above alone */
	flat_compat(f);
	f->cpu->gpr[RDI] = OUTPUT;
	memset(f->ram + OUTPUT, 0xcc, SIZE);
	emul_halts(f, "\x0f\xae\x07");
	assert_memory_equal(f->ram + OUTPUT + 24, want + 24, 288 - 24);
	assert_int_equal(flat_peek(f, OUTPUT + 288, 4), 0xcccccccc);
	/* misaligned */
	f->cpu->gpr[RDI] = OUTPUT + 8;
	emul_faults(f, VEC_GP, "\x0f\xae\x07");
	flat_free(f);
}

/* FNSAVE and FNSTENV in both widths, and the state afterwards. */
static void environments(void **state)
{
	static image_t image, want, after;
	struct flat *f;

	make_state(image);
	f = machine(image);
#define CASE(host, guest)                                                           \
	memset(want, 0xcc, SIZE);                                                   \
	asm volatile("fxrstor64 %2; " host " %0; fxsave64 %1; fninit"               \
		     : "+m"(want), "=m"(after)                                      \
		     : "m"(image)                                                   \
		     : VECTORS);                                                    \
	memset(f->ram + OUTPUT, 0xcc, SIZE);                                        \
	emul_halts(f, "\x48\x0f\xae\x0b" guest "\x48\x0f\xae\x87\x00\x02\x00\x00"); \
	assert_memory_equal(f->ram + OUTPUT, want, 0x200);                          \
	assert_memory_equal(f->ram + OUTPUT + 0x200, after, 8);                     \
	assert_memory_equal(f->ram + OUTPUT + 0x200 + 32, after + 32, 128)
	CASE("fnstenv", "\xd9\x37");
	CASE("data16 fnstenv", "\x66\xd9\x37");
	CASE("fnsave", "\xdd\x37");
	CASE("data16 fnsave", "\x66\xdd\x37");
#undef CASE
	flat_free(f);
}

static void environment_loads(void **state)
{
	static image_t image, env, want;
	struct flat *f;

	make_state(image);
	/* another TOP, one more register valid, an exception flag */
	memset(env, 0, SIZE);
	*(uint32_t *)env = 0xffff027f;
	*(uint32_t *)(env + 4) = 0xffff1801;
	*(uint32_t *)(env + 8) = 0xffff0fc3;
	for (unsigned i = 28; i < 108; i++)
		env[i] = i * 11;
	f = machine(image);
	flat_write(f, IMAGE + 0x1000, env, 0x200);
#define CASE(host, guest)                                             \
	asm volatile("fxrstor64 %1; " host " %2; fxsave64 %0; fninit" \
		     : "=m"(want)                                     \
		     : "m"(image), "m"(env)                           \
		     : VECTORS);                                      \
	emul_halts(f, "\x48\x0f\xae\x0b" guest "\x48\x0f\xae\x07");   \
	assert_memory_equal(f->ram + OUTPUT, want, 6);                \
	assert_memory_equal(f->ram + OUTPUT + 32, want + 32, 128)
	CASE("fldenv", "\xd9\xa3\x00\x10\x00\x00");
	CASE("frstor", "\xdd\xa3\x00\x10\x00\x00");
#undef CASE
	flat_free(f);
}

/* Real mode's format: linear addresses, by the SDM's figures. */
static void real_format(void **state)
{
	struct flat *f = emul_machine(flat_real);

	f->cpu->fpu.fip = 0x1234;
	f->cpu->fpu.fcs = 0x5000;
	f->cpu->fpu.fdp = 0x8;
	f->cpu->fpu.fds = 0x6000;
	f->cpu->gpr[RBX] = 0x9000;
	feature_put(f->cpu->model_features, FEAT_ZERO_FCS_FDS, false);
	feature_put(f->cpu->model_features, FEAT_FDP_EXCPTN_ONLY, false);
	emul_halts(f, "\xd9\x37"); /* fnstenv [bx] */
	assert_int_equal(flat_peek(f, 0x9006, 2), 0x1234);
	assert_int_equal(flat_peek(f, 0x9008, 2), 0x5000);
	assert_int_equal(flat_peek(f, 0x900a, 2), 0x0008);
	assert_int_equal(flat_peek(f, 0x900c, 2), 0x6000);
	flat_free(f);
}

static void xgetbv(void **state)
{
	static image_t image;
	struct flat *f;

	make_state(image);
	f = machine(image);
	f->cpu->gpr[RCX] = 0;
	emul_halts(f, "\x0f\x01\xd0");
	assert_int_equal(f->cpu->gpr[RAX], components);
	assert_int_equal(f->cpu->gpr[RDX], 0);
	f->cpu->gpr[RCX] = 2;
	emul_faults(f, VEC_GP, "\x0f\x01\xd0");
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_initial),
		cmocka_unit_test(some_initial),
		cmocka_unit_test(compact_load),
		cmocka_unit_test(bad_headers),
		cmocka_unit_test(alignment_and_enabling),
		cmocka_unit_test(fault_writes_nothing),
		cmocka_unit_test(fxsave),
		cmocka_unit_test(environments),
		cmocka_unit_test(environment_loads),
		cmocka_unit_test(real_format),
		cmocka_unit_test(xgetbv),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
