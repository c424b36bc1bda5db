/* SPDX-License-Identifier: MIT */
/*
 * MSRs: rows, lists, the guest's gates and the program's rights. Expected values from the SDM and
 * APM, and from what KVM answers.
 */
#include "guest_asm.h"
#include "silicon/models/model.h"
#include "silicon/sys/sys.h"

#define EFER_NR	      0xc0000080
#define ARCH_CAPS     0x10a
#define PAT	      0x277
#define SPEC_CTRL     0x48
#define PRED_CMD      0x49
#define MTRR_DEF_TYPE 0x2ff
#define MTRR_BASE0    0x200
#define MTRR_MASK0    0x201
#define MTRR_FIX64K   0x250
#define MCG_CAP	      0x179
#define MC0_CTL	      0x400
#define MC0_STATUS    0x401
#define TSC_AUX	      0xc0000103
#define HWCR	      0xc0010015
#define FEAT_CTL      0x3a
#define DE_CFG	      0xc0011029
#define MISC_ENABLE   0x1a0
#define MISC_FEATURES 0x140
#define PLATFORM_INFO 0xce
#define UCODE_REV     0x8b
#define SYSENTER_EIP  0x176

static struct flat *msr_machine(struct cpu_model *copy, enum vendor vendor)
{
	struct flat *f = long_machine();

	*copy = *f->cpu->model;
	copy->vendor = vendor;
	f->cpu->model = copy;
	sys_msr_reset(f->cpu);
	return f;
}

static enum msr_result guest_set(struct flat *f, uint32_t index, uint64_t val)
{
	return sys_msr_set(f->cpu, index, MSR_GUEST, val);
}

static enum msr_result host_set(struct flat *f, uint32_t index, uint64_t val)
{
	return sys_msr_set(f->cpu, index, MSR_HOST, val);
}

static uint64_t host_get(struct flat *f, uint32_t index)
{
	uint64_t val = 0xdead;

	assert_int_equal(sys_msr_get(f->cpu, index, MSR_HOST, &val), MSR_OK);
	return val;
}

static void has(struct flat *f, enum feature feature, bool on)
{
	feature_put(f->cpu->guest_features, feature, on);
}

static bool listed(const uint32_t *list, unsigned n, uint32_t index)
{
	for (unsigned i = 0; i < n; i++)
		if (list[i] == index)
			return true;
	return false;
}

/* Every listed MSR can be saved and restored by the program, as migration does. */
static void listed_msrs_can_be_saved_and_restored(void **state)
{
	for (enum vendor v = VENDOR_INTEL; v <= VENDOR_AMD; v++) {
		struct cpu_model copy;
		struct flat *f = msr_machine(&copy, v);
		uint32_t list[256];
		unsigned n = sys_msr_list(&copy, MSR_LIST_SAVE, list, 256);

		assert_in_range(n, 30, 256);
		for (unsigned i = 0; i < n; i++)
			assert_int_equal(host_set(f, list[i], host_get(f, list[i])), MSR_OK);
		assert_true(listed(list, n, 0xc0000082));
		assert_true(listed(list, n, SPEC_CTRL));
		assert_false(listed(list, n, EFER_NR));
		assert_int_equal(listed(list, n, FEAT_CTL), v == VENDOR_INTEL);
		flat_free(f);
	}
}

/* What the feature list says can be set on a vCPU; VMX's are the platform's, of which this one has none. */
static void feature_msrs_can_be_set(void **state)
{
	for (enum vendor v = VENDOR_INTEL; v <= VENDOR_AMD; v++) {
		struct cpu_model copy;
		struct flat *f = msr_machine(&copy, v);
		uint32_t list[32];
		uint64_t val;
		unsigned n;

		feature_put(copy.features, FEAT_VMX, false);
		n = sys_msr_list(&copy, MSR_LIST_FEATURE, list, 32);
		assert_true(listed(list, n, ARCH_CAPS));
		assert_int_equal(listed(list, n, DE_CFG), v == VENDOR_AMD);
		for (unsigned i = 0; i < n; i++) {
			assert_true(sys_msr_feature(&copy, list[i], &val));
			assert_int_equal(host_set(f, list[i], val), MSR_OK);
		}
		assert_false(sys_msr_feature(&copy, PAT, &val));
		flat_free(f);
	}
}

static void a_short_buffer_still_counts(void **state)
{
	struct flat *f = long_machine();
	uint32_t buf[2] = {0, 0x77777777};

	assert_true(sys_msr_list(f->cpu->model, MSR_LIST_SAVE, buf, 1) > 30);
	assert_int_equal(buf[1], 0x77777777);
	flat_free(f);
}

static void memory_types(void **state)
{
	struct cpu_model copy;
	struct flat *f = msr_machine(&copy, VENDOR_INTEL);

	assert_int_equal(host_get(f, PAT), 0x0007040600070406);
	assert_int_equal(guest_set(f, PAT, 0x0007010600070106), MSR_OK);
	assert_int_equal(guest_set(f, PAT, 2), MSR_DENIED);
	assert_int_equal(guest_set(f, PAT, 8), MSR_DENIED);
	assert_int_equal(guest_set(f, MTRR_FIX64K, 0x0606060606060606), MSR_OK);
	assert_int_equal(guest_set(f, MTRR_FIX64K, 0x0706060606060606), MSR_DENIED);
	assert_int_equal(guest_set(f, MTRR_DEF_TYPE, 0xc06), MSR_OK);
	assert_int_equal(guest_set(f, MTRR_DEF_TYPE, 0x1c06), MSR_DENIED);
	assert_int_equal(guest_set(f, MTRR_DEF_TYPE, 0xc02), MSR_DENIED);
	f->cpu->maxphyaddr = 40;
	assert_int_equal(guest_set(f, MTRR_BASE0, 0xfeed000006), MSR_OK);
	assert_int_equal(guest_set(f, MTRR_BASE0, BIT(40)), MSR_DENIED);
	assert_int_equal(guest_set(f, MTRR_BASE0, 0x106), MSR_DENIED);
	assert_int_equal(guest_set(f, MTRR_MASK0, 0xffff000800), MSR_OK);
	assert_int_equal(guest_set(f, MTRR_MASK0, 0xffff000001), MSR_DENIED);
	assert_int_equal(host_get(f, 0xfe), 0x508);
	assert_int_equal(guest_set(f, 0xfe, 0x508), MSR_UNKNOWN);
	assert_int_equal(host_get(f, 0x20f), 0);
	assert_int_equal(guest_set(f, 0x210, 0), MSR_UNKNOWN);
	flat_free(f);
}

static void speculation_by_guest_cpuid(void **state)
{
	struct cpu_model copy;
	struct flat *f = msr_machine(&copy, VENDOR_INTEL);
	static const uint16_t all[] = {FEAT_SPEC_CTRL,	FEAT_AMD_IBRS,	     FEAT_INTEL_STIBP,
				       FEAT_AMD_STIBP,	FEAT_SPEC_CTRL_SSBD, FEAT_AMD_SSBD,
				       FEAT_AMD_IBPB,	FEAT_IPRED_CTRL,     FEAT_RRSBA_CTRL,
				       FEAT_INTEL_PSFD, FEAT_AMD_PSFD,	     FEAT_BHI_CTRL,
				       FEAT_SBPB};
	uint64_t val;

	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		has(f, all[i], false);
		feature_put(f->cpu->model_features, all[i], false);
	}
	feature_put(f->cpu->model_features, FEAT_SPEC_CTRL, true);
	assert_int_equal(guest_set(f, SPEC_CTRL, 0), MSR_DENIED);
	assert_int_equal(sys_msr_get(f->cpu, SPEC_CTRL, MSR_GUEST, &val), MSR_DENIED);
	assert_int_equal(host_set(f, SPEC_CTRL, 1), MSR_OK);
	assert_int_equal(guest_set(f, PRED_CMD, 1), MSR_DENIED);
	has(f, FEAT_SPEC_CTRL, true);
	assert_int_equal(guest_set(f, SPEC_CTRL, 3), MSR_OK);
	assert_int_equal(guest_set(f, SPEC_CTRL, 4), MSR_DENIED);
	assert_int_equal(guest_set(f, PRED_CMD, 1), MSR_OK);
	assert_int_equal(guest_set(f, PRED_CMD, 2), MSR_DENIED);
	assert_int_equal(sys_msr_get(f->cpu, PRED_CMD, MSR_GUEST, &val), MSR_UNKNOWN);
	flat_free(f);
}

static void machine_check_banks(void **state)
{
	struct cpu_model copy;
	struct flat *f = msr_machine(&copy, VENDOR_INTEL);

	sys_mce_setup(f->cpu, 0x100010a);
	assert_int_equal(host_get(f, MCG_CAP), 0x100010a);
	assert_int_equal(host_get(f, 0x17b), ~0ull);
	assert_int_equal(host_get(f, MC0_CTL), ~0ull);
	assert_int_equal(host_set(f, MCG_CAP, 0), MSR_UNKNOWN);
	assert_int_equal(guest_set(f, MC0_CTL, 0), MSR_OK);
	assert_int_equal(guest_set(f, MC0_CTL, 5), MSR_DENIED);
	assert_int_equal(guest_set(f, MC0_CTL, ~0ull & ~BIT(10)), MSR_OK);
	assert_int_equal(guest_set(f, MC0_STATUS, 1), MSR_DENIED);
	assert_int_equal(host_set(f, MC0_STATUS, 1), MSR_OK);
	assert_int_equal(guest_set(f, MC0_STATUS, 0), MSR_OK);
	assert_int_equal(guest_set(f, MC0_CTL + 4 * 10, 0), MSR_DENIED); /* ten banks */
	copy.vendor = VENDOR_AMD;
	assert_int_equal(guest_set(f, HWCR, BIT(18)), MSR_OK);
	assert_int_equal(guest_set(f, MC0_STATUS, 1), MSR_OK);
	flat_free(f);
}

static void vendors_differ(void **state)
{
	struct cpu_model copy;
	struct flat *f = msr_machine(&copy, VENDOR_INTEL);

	has(f, FEAT_RDTSCP, true);
	feature_put(f->cpu->model_features, FEAT_LA57, false);
	assert_int_equal(guest_set(f, TSC_AUX, BIT(32) | 5), MSR_DENIED);
	assert_int_equal(guest_set(f, SYSENTER_EIP, BIT(63)), MSR_DENIED);
	assert_int_equal(host_set(f, SYSENTER_EIP, BIT(47)), MSR_OK);
	assert_int_equal(host_get(f, SYSENTER_EIP), 0xffff800000000000);
	assert_int_equal(host_get(f, UCODE_REV), 0x100000000);
	copy.vendor = VENDOR_AMD;
	sys_msr_reset(f->cpu);
	assert_int_equal(guest_set(f, TSC_AUX, BIT(32) | 5), MSR_OK);
	assert_int_equal(host_get(f, TSC_AUX), 5);
	assert_int_equal(guest_set(f, SYSENTER_EIP, BIT(63)), MSR_OK);
	assert_int_equal(host_get(f, UCODE_REV), 0x1000065);
	assert_int_equal(guest_set(f, FEAT_CTL, 0), MSR_UNKNOWN);
	flat_free(f);
}

static void the_program_may_more(void **state)
{
	struct cpu_model copy;
	struct flat *f = msr_machine(&copy, VENDOR_INTEL);
	uint64_t val;

	has(f, FEAT_ARCH_CAPABILITIES, false);
	assert_int_equal(sys_msr_get(f->cpu, ARCH_CAPS, MSR_GUEST, &val), MSR_DENIED);
	assert_int_equal(host_set(f, ARCH_CAPS, 1), MSR_OK);
	has(f, FEAT_ARCH_CAPABILITIES, true);
	assert_int_equal(sys_msr_get(f->cpu, ARCH_CAPS, MSR_GUEST, &val), MSR_OK);
	assert_int_equal(guest_set(f, ARCH_CAPS, 1), MSR_DENIED);
	assert_int_equal(guest_set(f, UCODE_REV, 77), MSR_OK);
	assert_int_equal(host_get(f, UCODE_REV), 0x100000000);
	assert_int_equal(host_get(f, MISC_ENABLE), 0x1800);
	assert_int_equal(guest_set(f, MISC_ENABLE, 0), MSR_DENIED);
	assert_int_equal(guest_set(f, MISC_ENABLE, 0x1801), MSR_OK);
	assert_int_equal(guest_set(f, PLATFORM_INFO, BIT(31)), MSR_DENIED);
	assert_int_equal(guest_set(f, MISC_FEATURES, 1), MSR_OK);
	assert_int_equal(host_set(f, PLATFORM_INFO, 0), MSR_DENIED);
	assert_int_equal(guest_set(f, MISC_FEATURES, 2), MSR_DENIED);
	flat_free(f);
}

static void unknown_msrs_go_to_the_platform(void **state)
{
	struct cpu_model copy;
	struct flat *f = msr_machine(&copy, VENDOR_AMD);

	assert_int_equal(guest_set(f, 0x40000001, 0x1234), MSR_OK);
	assert_int_equal(f->msr_value, 0x1234);
	assert_int_equal(guest_set(f, 0xdeadbeef, 0), MSR_UNKNOWN);
	assert_int_equal(host_set(f, 0xdeadbeef, 0), MSR_UNKNOWN);
	/* Not what the program asks: the platform would take it for the guest's. */
	assert_int_equal(host_set(f, 0x40000001, 0x5678), MSR_UNKNOWN);
	assert_int_equal(guest_set(f, 0xc001011b, 3), MSR_OK);
	assert_int_equal(host_set(f, 0xc001011b, 4), MSR_UNKNOWN);
	assert_int_equal(f->msr_value, 0x1234);
	assert_int_equal(f->doorbell, 3);
	flat_free(f);
}

/* Rows are found by binary search: each number of the lists and some between. */
static void rows_are_in_order(void **state)
{
	static const uint32_t known[] = {0,	     1,		 0xc1,	    0x187, 0x268,
					 0x26f,	     0x29f,	 0x43f,	    0x606, 0xc0010000,
					 0xc0010007, 0xc0010117, 0xc001102c};
	static const uint32_t unknown[] = {2, 0xc3, 0x251, 0x270, 0x480, 0xc0010008, 0xffffffff};
	struct cpu_model copy;
	struct flat *f = msr_machine(&copy, VENDOR_AMD);
	uint64_t val;

	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		assert_int_equal(sys_msr_get(f->cpu, known[i], MSR_HOST, &val), MSR_OK);
	for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++)
		assert_int_equal(sys_msr_get(f->cpu, unknown[i], MSR_HOST, &val), MSR_UNKNOWN);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(listed_msrs_can_be_saved_and_restored),
		cmocka_unit_test(feature_msrs_can_be_set),
		cmocka_unit_test(a_short_buffer_still_counts),
		cmocka_unit_test(memory_types),
		cmocka_unit_test(speculation_by_guest_cpuid),
		cmocka_unit_test(machine_check_banks),
		cmocka_unit_test(vendors_differ),
		cmocka_unit_test(the_program_may_more),
		cmocka_unit_test(unknown_msrs_go_to_the_platform),
		cmocka_unit_test(rows_are_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
