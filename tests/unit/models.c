/* SPDX-License-Identifier: MIT */
/* CPU models against hosts that the tests make up. */
#include "silicon/models/model_internal.h"
#include "host/host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* A host: rows of a dump, with changes. */
static struct cpuid_row host_rows[MODEL_MAX_ROWS];
static unsigned host_nr;
static struct model_built built;

static void host_cpuid_fake(uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	memset(ret, 0, 16);
	for (unsigned i = 0; i < host_nr; i++)
		if (host_rows[i].leaf == leaf && host_rows[i].subleaf == subleaf)
			memcpy(ret, host_rows[i].reg, 16);
}

static struct model_spec model_spec_ice_lake_sp, model_spec_milan;

static struct model_spec spec_named(const char *name)
{
	for (unsigned i = 0; i < model_nr_specs_raw; i++)
		if (!strcmp(model_specs_raw[i].name, name))
			return model_specs_raw[i];
	fail();
	return model_specs_raw[0];
}

static int find_specs(void **state)
{
	model_spec_ice_lake_sp = spec_named("ice-lake-sp");
	model_spec_milan = spec_named("milan");
	return 0;
}

static void host_is(const struct model_spec *spec)
{
	memcpy(host_rows, spec->rows, spec->nr_rows * sizeof(*spec->rows));
	host_nr = spec->nr_rows;
}

static uint32_t *host_reg(uint32_t leaf, uint32_t subleaf, enum cpuid_reg reg)
{
	for (unsigned i = 0; i < host_nr; i++)
		if (host_rows[i].leaf == leaf && host_rows[i].subleaf == subleaf)
			return &host_rows[i].reg[reg];
	fail();
	return NULL;
}

static const char *build(const struct model_spec *spec, uint64_t xcr0)
{
	const struct model_host host = {.cpuid = host_cpuid_fake, .xcr0 = xcr0};

	return model_build(spec, &host, &built);
}

static bool has(enum feature f)
{
	return feature_has(built.model.features, f);
}

static uint32_t reg(uint32_t leaf, uint32_t subleaf, enum cpuid_reg r)
{
	const struct cpuid_row *row = model_cpuid(&built.model, leaf, subleaf);

	return row ? row->reg[r] : 0;
}

static const struct {
	uint32_t leaf;
	uint8_t subleaf, reg, bit;
} places[] = {
#define FEATURE(name, leaf, subleaf, reg, bit) {leaf, subleaf, reg, bit},
#include "features.def"
#undef FEATURE
};

static void test_features_have_one_place(void **state)
{
	for (unsigned i = 0; i < NR_FEATURES; i++)
		for (unsigned j = 0; j < i; j++)
			assert_int_not_equal(memcmp(&places[i], &places[j], sizeof(places[0])), 0);
}

/* Spot checks of the table against the manuals. */
static void test_features_are_the_manuals(void **state)
{
	static const struct {
		enum feature f;
		uint32_t leaf;
		uint8_t subleaf, reg, bit;
	} manual[] = {
		{FEAT_FPU, 1, 0, CPUID_EDX, 0},
		{FEAT_APIC, 1, 0, CPUID_EDX, 9},
		{FEAT_FXSR, 1, 0, CPUID_EDX, 24},
		{FEAT_SSE2, 1, 0, CPUID_EDX, 26},
		{FEAT_SSE3, 1, 0, CPUID_ECX, 0},
		{FEAT_MONITOR, 1, 0, CPUID_ECX, 3},
		{FEAT_PCID, 1, 0, CPUID_ECX, 17},
		{FEAT_X2APIC, 1, 0, CPUID_ECX, 21},
		{FEAT_AES, 1, 0, CPUID_ECX, 25},
		{FEAT_OSXSAVE, 1, 0, CPUID_ECX, 27},
		{FEAT_FSGSBASE, 7, 0, CPUID_EBX, 0},
		{FEAT_SMEP, 7, 0, CPUID_EBX, 7},
		{FEAT_RTM, 7, 0, CPUID_EBX, 11},
		{FEAT_SMAP, 7, 0, CPUID_EBX, 20},
		{FEAT_SHA_NI, 7, 0, CPUID_EBX, 29},
		{FEAT_UMIP, 7, 0, CPUID_ECX, 2},
		{FEAT_LA57, 7, 0, CPUID_ECX, 16},
		{FEAT_RDPID, 7, 0, CPUID_ECX, 22},
		{FEAT_SERIALIZE, 7, 0, CPUID_EDX, 14},
		{FEAT_ARCH_CAPABILITIES, 7, 0, CPUID_EDX, 29},
		{FEAT_AVX512_BF16, 7, 1, CPUID_EAX, 5},
		{FEAT_LAM, 7, 1, CPUID_EAX, 26},
		{FEAT_MCDT_NO, 7, 2, CPUID_EDX, 5},
		{FEAT_XSAVES, 0xd, 1, CPUID_EAX, 3},
		{FEAT_NX, 0x80000001, 0, CPUID_EDX, 20},
		{FEAT_LM, 0x80000001, 0, CPUID_EDX, 29},
		{FEAT_SVM, 0x80000001, 0, CPUID_ECX, 2},
		{FEAT_ABM, 0x80000001, 0, CPUID_ECX, 5},
		{FEAT_WBNOINVD, 0x80000008, 0, CPUID_EBX, 9},
		{FEAT_BTC_NO, 0x80000008, 0, CPUID_EBX, 29},
		{FEAT_AUTOIBRS, 0x80000021, 0, CPUID_EAX, 8},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(manual); i++) {
		assert_int_equal(places[manual[i].f].leaf, manual[i].leaf);
		assert_int_equal(places[manual[i].f].subleaf, manual[i].subleaf);
		assert_int_equal(places[manual[i].f].reg, manual[i].reg);
		assert_int_equal(places[manual[i].f].bit, manual[i].bit);
	}
}

/* Whatever the host is, the model's vendor and names are its own; what is borrowed is the host's. */
static void test_vendors_on_any_host(void **state)
{
	host_is(&model_spec_milan);
	assert_null(build(&model_spec_ice_lake_sp, 0x207));
	assert_int_equal(built.model.vendor, VENDOR_INTEL);
	assert_int_equal(reg(0, 0, CPUID_EBX), 0x756e6547);
	assert_false(has(FEAT_AVX512F));
	assert_true(has(FEAT_AVX2));
	assert_false(has(FEAT_SSE4A));
	host_is(&model_spec_ice_lake_sp);
	assert_null(build(&model_spec_milan, 0x2e7));
	assert_int_equal(built.model.vendor, VENDOR_AMD);
	assert_int_equal(reg(0, 0, CPUID_ECX), 0x444d4163);
	assert_true(has(FEAT_MMXEXT)); /* Intel has it as a part of SSE, without a bit */
	assert_false(has(FEAT_SSE4A));
	assert_false(has(FEAT_ZERO_FCS_FDS));
	*host_reg(0, 0, CPUID_EBX) = 0x746e6543; /* CentaurHauls */
	assert_non_null(build(&model_spec_host, 7));
}

/* Every dump makes a model on a host of either vendor, with a name, a vendor and long mode. */
static void test_every_dump(void **state)
{
	for (unsigned i = 0; i < model_nr_specs_raw; i++) {
		for (unsigned h = 0; h < 2; h++) {
			host_is(h ? &model_spec_milan : &model_spec_ice_lake_sp);
			assert_null(build(&model_specs_raw[i], h ? 0x207 : 0x2e7));
			assert_string_equal(built.model.name, model_specs_raw[i].name);
			assert_true(built.model.nr_cpuid < MODEL_MAX_ROWS);
			assert_true(has(FEAT_LM));
			assert_true(has(FEAT_SYSCALL));
			assert_int_equal(has(FEAT_VMX), model_intel(&built.model));
			assert_int_equal(has(FEAT_SVM), !model_intel(&built.model));
		}
	}
}

static uint32_t program_reg(uint32_t leaf, uint32_t subleaf, enum cpuid_reg r)
{
	uint32_t ret[4];

	assert_true(model_program_cpuid(&built.model, leaf, subleaf, ret));
	return ret[r];
}

/* On this very machine: the dump's words, VMX and SVM too, but nothing that this host would refuse. */
static void test_program_cpuid(void **state)
{
	struct model_spec nehalem = spec_named("nehalem-ep");
	uint32_t ret[4], own[4];

	host_is(&model_spec_milan);
	assert_null(build(&model_spec_milan, 0x207));
	assert_int_equal(program_reg(0, 0, CPUID_EBX), 0x68747541);
	assert_int_equal(program_reg(1, 0, CPUID_EAX), 0x00a00f11);
	assert_true(model_program_has(&built.model, FEAT_SVM));
	assert_false(model_program_has(&built.model, FEAT_VMX));
	assert_int_equal(program_reg(0x8000000a, 0, CPUID_EDX), 0x119b9cff);
	assert_int_equal(program_reg(0x40000000, 0, CPUID_EBX), 0);
	host_cpuid(7, 0, own);
	assert_int_equal(program_reg(7, 0, CPUID_EBX) & ~own[CPUID_EBX] & BIT(5), 0); /* AVX2 */
	assert_int_equal(program_reg(7, 1, CPUID_EAX), 0);
	assert_null(build(&model_spec_ice_lake_sp, 0x207));
	assert_true(model_program_has(&built.model, FEAT_VMX));
	assert_true(model_program_has(&built.model, FEAT_SYSCALL));
	assert_int_equal(program_reg(4, 2, CPUID_EAX), 0xfc004143);
	/* Past the end Intel repeats the last basic leaf. */
	assert_int_equal(program_reg(0x40000000, 0, CPUID_EAX), program_reg(0x1b, 0, CPUID_EAX));
	/* What is repeated there names no features. */
	assert_null(build(&nehalem, 0x207));
	assert_int_equal(program_reg(0x8000000a, 0, CPUID_ECX), program_reg(0xb, 0, CPUID_ECX));
	assert_false(model_program_has(&built.model, FEAT_XSAVEOPT));
	assert_false(model_program_has(&built.model, FEAT_XGETBV1));
	assert_false(model_program_has(&built.model, FEAT_NPT));
	assert_null(build(&model_spec_host, 0x207));
	assert_false(model_program_cpuid(&built.model, 0, 0, ret));
}

/* A dump without VMX' capability MSRs would offer what the processor never had. */
static void test_vmx_dumped(void **state)
{
	static const char *const names[] = {"nehalem-ep", "sierra-forest", "snow-ridge"};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		struct model_spec spec = spec_named(names[i]);

		host_is(&spec);
		assert_null(build(&spec, 0x207));
		assert_true(model_raw_msr(&built.model, 0x48b) >> 32 & BIT(1)); /* EPT */
		assert_int_equal(model_raw_msr(&built.model, 0x48b) >> 39 & 1,
				 i > 0); /* unrestricted */
	}
}

static void test_borrowed_needs_host(void **state)
{
	host_is(&model_spec_ice_lake_sp);
	assert_null(build(&model_spec_ice_lake_sp, 0x2e7));
	assert_true(has(FEAT_AES));
	*host_reg(1, 0, CPUID_ECX) &= ~(1u << 25);
	assert_null(build(&model_spec_ice_lake_sp, 0x2e7));
	assert_false(has(FEAT_AES));
	assert_int_equal(reg(1, 0, CPUID_ECX) >> 25 & 1, 0);
}

static void test_vector_state_needs_xcr0(void **state)
{
	host_is(&model_spec_ice_lake_sp);
	assert_null(build(&model_spec_ice_lake_sp, 0xe7));
	assert_true(has(FEAT_AVX512F));
	assert_int_equal(built.model.xcr0, 0xe7);
	assert_int_equal(reg(0xd, 0, CPUID_ECX), 0xa80); /* end of Hi16_ZMM: 680h + 400h */
	assert_null(build(&model_spec_ice_lake_sp, 7));
	assert_false(has(FEAT_AVX512F));
	assert_true(has(FEAT_AVX2));
	assert_int_equal(built.model.xcr0, 7);
	assert_int_equal(reg(0xd, 0, CPUID_ECX), 832);
	assert_null(build(&model_spec_ice_lake_sp, 3));
	assert_false(has(FEAT_AVX));
	assert_false(has(FEAT_VAES));
	assert_true(has(FEAT_BMI2)); /* VEX, but general registers */
	assert_int_equal(reg(0xd, 0, CPUID_ECX), 576);
}

static void test_hidden(void **state)
{
	static const enum feature hidden[] = {
		FEAT_HLE,	 FEAT_RTM,	    FEAT_MPX,	  FEAT_PKU,	 FEAT_OSPKE,
		FEAT_SMX,	 FEAT_MONITOR,	    FEAT_OSXSAVE, FEAT_AMX_FP16, FEAT_AVX_IFMA,
		FEAT_CMPCCXADD,	 FEAT_SHSTK,	    FEAT_IBT,	  FEAT_WAITPKG,	 FEAT_ENQCMD,
		FEAT_KEY_LOCKER, FEAT_UINTR,	    FEAT_LAM,	  FEAT_SGX,	 FEAT_INTEL_PT,
		FEAT_PDCM,	 FEAT_PERFCTR_CORE, FEAT_MWAITX,  FEAT_RDPRU,	 FEAT_CR8_LEGACY,
	};
	static const struct model_spec *const specs[] = {&model_spec_ice_lake_sp,
							 &model_spec_milan};

	for (unsigned s = 0; s < 2; s++) {
		host_is(specs[s]);
		/* A host that has every bit of the feature words. */
		*host_reg(1, 0, CPUID_ECX) = *host_reg(7, 0, CPUID_EBX) = ~0u;
		*host_reg(7, 0, CPUID_ECX) = *host_reg(7, 0, CPUID_EDX) = ~0u;
		*host_reg(0x80000001, 0, CPUID_ECX) = ~0u;
		assert_null(build(&model_spec_host, ~0ull));
		for (unsigned i = 0; i < ARRAY_SIZE(hidden); i++)
			assert_false(has(hidden[i]));
		assert_int_equal(has(FEAT_VMX), s == 0);
		assert_int_equal(reg(0xa, 0, CPUID_EAX), 0);
	}
}

static void test_emulated_needs_no_host(void **state)
{
	host_is(&model_spec_milan);
	*host_reg(7, 0, CPUID_EBX) = 0;
	*host_reg(7, 0, CPUID_ECX) = 0;
	*host_reg(1, 0, CPUID_ECX) &= ~(1u << 21);
	assert_null(build(&model_spec_milan, 0x207));
	assert_true(has(FEAT_X2APIC));
	assert_true(has(FEAT_SMEP));
	assert_true(has(FEAT_SMAP));
	assert_true(has(FEAT_UMIP));
	assert_true(has(FEAT_FSGSBASE));
	assert_true(has(FEAT_RDPID));
	assert_true(has(FEAT_TSC_DEADLINE_TIMER));
	assert_false(has(FEAT_BMI1));
}

static void test_rows_and_bitmap_agree(void **state)
{
	host_is(&model_spec_milan);
	assert_null(build(&model_spec_host, 0x207));
	for (unsigned i = 0; i < NR_FEATURES; i++)
		assert_int_equal(has(i), reg(places[i].leaf, places[i].subleaf, places[i].reg) >>
							 places[i].bit &
						 1);
}

static void test_amd_repeats_leaf_1(void **state)
{
	host_is(&model_spec_milan);
	assert_null(build(&model_spec_milan, 0x207));
	assert_int_equal(reg(0x80000001, 0, CPUID_EDX) & 0x0183f3ff,
			 reg(1, 0, CPUID_EDX) & 0x0183f3ff);
	assert_int_equal(reg(0x80000001, 0, CPUID_EDX) >> 11 & 1, 1); /* SYSCALL, not SEP */
}

static void test_immunity(void **state)
{
	host_is(&model_spec_ice_lake_sp);
	assert_null(build(&model_spec_ice_lake_sp, 0x2e7));
	assert_true(built.model.arch_capabilities & BIT(0));  /* RDCL_NO */
	assert_true(built.model.arch_capabilities & BIT(5));  /* MDS_NO */
	assert_true(built.model.arch_capabilities & BIT(8));  /* TAA_NO */
	assert_false(built.model.arch_capabilities & BIT(7)); /* TSX_CTRL: there is no TSX */
	assert_false(has(FEAT_AMD_SSB_NO));
	host_is(&model_spec_milan);
	assert_null(build(&model_spec_milan, 0x207));
	assert_true(has(FEAT_AMD_SSB_NO));
	assert_true(has(FEAT_BTC_NO));
	assert_true(has(FEAT_SRSO_NO));
	assert_false(has(FEAT_MCDT_NO));
}

/* IBRS_ALL without IA32_SPEC_CTRL would have guests write an MSR that is not there. */
static void test_spec_ctrl(void **state)
{
	host_is(&model_spec_ice_lake_sp);
	*host_reg(7, 0, CPUID_EDX) = 0;
	assert_null(build(&model_spec_host, 0x2e7));
	assert_true(built.model.arch_capabilities & BIT(1));
	assert_true(has(FEAT_SPEC_CTRL));
	assert_false(has(FEAT_AMD_IBRS));
	host_is(&model_spec_milan);
	*host_reg(0x80000008, 0, CPUID_EBX) = 0;
	assert_null(build(&model_spec_host, 0x207));
	assert_false(has(FEAT_SPEC_CTRL));
	assert_true(has(FEAT_AMD_IBRS));
}

static void test_widths(void **state)
{
	host_is(&model_spec_ice_lake_sp);
	*host_reg(0x80000008, 0, CPUID_EAX) = 0x00003000; /* no physical width: not believed */
	assert_null(build(&model_spec_host, 0x2e7));
	assert_int_equal(built.model.maxphyaddr, 40);
	assert_int_equal(reg(0x80000008, 0, CPUID_EAX), 57 << 8 | 40);
}

/* The list of this very machine: whatever it is, the default model exists or says why not. */
static void test_find(void **state)
{
	const char *why = NULL;
	const struct cpu_model *m = model_find(NULL, &why);

	assert_true(m || why);
	assert_ptr_equal(model_find("host", &why), m);
	why = NULL;
	assert_null(model_find("pentium", &why));
	assert_non_null(why);
	if (m)
		assert_ptr_equal(model_nth(0), m);
	assert_null(model_nth(100));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_features_have_one_place),
		cmocka_unit_test(test_features_are_the_manuals),
		cmocka_unit_test(test_vendors_on_any_host),
		cmocka_unit_test(test_every_dump),
		cmocka_unit_test(test_program_cpuid),
		cmocka_unit_test(test_vmx_dumped),
		cmocka_unit_test(test_borrowed_needs_host),
		cmocka_unit_test(test_vector_state_needs_xcr0),
		cmocka_unit_test(test_hidden),
		cmocka_unit_test(test_emulated_needs_no_host),
		cmocka_unit_test(test_rows_and_bitmap_agree),
		cmocka_unit_test(test_amd_repeats_leaf_1),
		cmocka_unit_test(test_immunity),
		cmocka_unit_test(test_spec_ctrl),
		cmocka_unit_test(test_widths),
		cmocka_unit_test(test_find),
	};

	return cmocka_run_group_tests(tests, find_specs, NULL);
}
