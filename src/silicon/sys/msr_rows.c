/* SPDX-License-Identifier: MIT */
/*
 * The rows of tables/msrs.def and the handlers that they name: get_NAME() and set_NAME().
 *
 * The feature gate and the reserved bits of a row are judged before its handler runs. What the
 * program (MSR_HOST) may do that the guest may not follows KVM 6.12.
 */
#include "silicon/sys/msr_internal.h"

#define GET(name)                                                                     \
	static enum msr_result get_##name(struct cpu *cpu, const struct msr_row *row, \
					  uint32_t index, enum msr_origin by, uint64_t *ret)
#define SET(name)                                                                     \
	static enum msr_result set_##name(struct cpu *cpu, const struct msr_row *row, \
					  uint32_t index, enum msr_origin by, uint64_t val)

/* ---- common to many ---- */

GET(plain)
{
	*ret = *msr_home(cpu, row, index);
	return MSR_OK;
}

SET(plain)
{
	*msr_home(cpu, row, index) = val;
	return MSR_OK;
}

GET(zero)
{
	*ret = 0;
	return MSR_OK;
}

SET(ignore)
{
	return MSR_OK;
}

GET(never)
{
	return MSR_UNKNOWN;
}

SET(never)
{
	return MSR_UNKNOWN;
}

GET(host_only)
{
	if (by != MSR_HOST)
		return MSR_DENIED;
	return get_plain(cpu, row, index, by, ret);
}

SET(host_only)
{
	if (by != MSR_HOST)
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

GET(platform)
{
	return msr_platform_get(cpu, index, by, ret);
}

SET(platform)
{
	return msr_platform_set(cpu, index, by, val);
}

static bool guest_has(const struct cpu *cpu, enum feature f)
{
	return feature_has(cpu->guest_features, f);
}

/* ---- addresses ---- */

/* Canonical by the width that the processor has, whatever CR4.LA57 says. */
static uint64_t sign_extend(const struct cpu *cpu, uint64_t addr)
{
	unsigned shift = feature_has(cpu->model_features, FEAT_LA57) ? 64 - 57 : 64 - 48;

	return (uint64_t)((int64_t)(addr << shift) >> shift);
}

SET(canonical)
{
	if (sign_extend(cpu, val) != val)
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

/* AMD's ignore the upper half of a legacy address; saved states of either vendor are made canonical. */
SET(sysenter_addr)
{
	uint64_t addr = sign_extend(cpu, val);

	if (addr != val && by == MSR_GUEST && model_intel(cpu->model))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, addr);
}

static struct segment *base_segment(struct cpu *cpu, uint32_t index)
{
	return &cpu->seg[index == 0xc0000100 ? SEG_FS : SEG_GS];
}

GET(segment_base)
{
	*ret = base_segment(cpu, index)->base;
	return MSR_OK;
}

SET(segment_base)
{
	if (sign_extend(cpu, val) != val)
		return MSR_DENIED;
	base_segment(cpu, index)->base = val;
	return MSR_OK;
}

SET(efer)
{
	return sys_efer_write(cpu, val, by) ? MSR_OK : MSR_DENIED;
}

static bool tsc_aux_allowed(const struct cpu *cpu, enum msr_origin by)
{
	return by == MSR_HOST || guest_has(cpu, FEAT_RDTSCP) || guest_has(cpu, FEAT_RDPID);
}

GET(tsc_aux)
{
	if (!tsc_aux_allowed(cpu, by))
		return MSR_DENIED;
	return get_plain(cpu, row, index, by, ret);
}

/* Intel's upper half is reserved, AMD's is dropped. */
SET(tsc_aux)
{
	if (!tsc_aux_allowed(cpu, by) || (val >> 32 && model_intel(cpu->model)))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, (uint32_t)val);
}

/* ---- speculation control ---- */

static uint64_t spec_ctrl_bits(const uint64_t *f)
{
	static const struct {
		uint16_t feature;
		uint16_t bits;
	} table[] = {
		{FEAT_SPEC_CTRL, BIT(0)},	    {FEAT_AMD_IBRS, BIT(0)},
		{FEAT_INTEL_STIBP, BIT(1)},	    {FEAT_AMD_STIBP, BIT(1)},
		{FEAT_SPEC_CTRL_SSBD, BIT(2)},	    {FEAT_AMD_SSBD, BIT(2)},
		{FEAT_IPRED_CTRL, BIT(3) | BIT(4)}, {FEAT_RRSBA_CTRL, BIT(5) | BIT(6)},
		{FEAT_INTEL_PSFD, BIT(7)},	    {FEAT_AMD_PSFD, BIT(7)},
		{FEAT_BHI_CTRL, BIT(10)},
	};
	uint64_t bits = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
		if (feature_has(f, table[i].feature))
			bits |= table[i].bits;
	return bits;
}

/* Bit 1 alone may always be written where IBRS exists: it is then ignored or a no-op (SDM). */
static uint64_t spec_ctrl_allowed(const uint64_t *f)
{
	uint64_t bits = spec_ctrl_bits(f);

	return bits & BIT(0) ? bits | BIT(1) : bits;
}

GET(spec_ctrl)
{
	if (by == MSR_GUEST && !spec_ctrl_bits(cpu->guest_features))
		return MSR_DENIED;
	return get_plain(cpu, row, index, by, ret);
}

SET(spec_ctrl)
{
	if (by == MSR_GUEST && !spec_ctrl_bits(cpu->guest_features))
		return MSR_DENIED;
	if (val & ~spec_ctrl_allowed(cpu->model_features))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

static uint64_t pred_cmd_bits(const uint64_t *f)
{
	uint64_t bits = 0;

	if (feature_has(f, FEAT_SPEC_CTRL) || feature_has(f, FEAT_AMD_IBPB))
		bits |= BIT(0);
	if (feature_has(f, FEAT_SBPB))
		bits |= BIT(7);
	return bits;
}

/* No predictor of the host is the guest's to flush: checks only. */
SET(pred_cmd)
{
	uint64_t bits = pred_cmd_bits(cpu->model_features);

	if (by == MSR_GUEST)
		bits &= pred_cmd_bits(cpu->guest_features);
	if (by == MSR_GUEST && !pred_cmd_bits(cpu->guest_features))
		return MSR_DENIED;
	return val & ~bits ? MSR_DENIED : MSR_OK;
}

SET(flush_cmd)
{
	return feature_has(cpu->model_features, FEAT_FLUSH_L1D) ? MSR_OK : MSR_DENIED;
}

/* Bits of components that can be disabled so, and that the guest may have: one, the tiles' data. */
SET(xfd)
{
	if (val & ~(cpu->xcr0_allowed & XCR0_TILEDATA))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

/* ---- identity and features ---- */

SET(ucode_rev)
{
	return by == MSR_HOST ? set_plain(cpu, row, index, by, val) : MSR_OK;
}

#define CPUID_FAULT_SUPPORTED BIT(31)
#define CPUID_FAULT_ENABLED   BIT(0)

SET(platform_info)
{
	bool enabled = cpu->msr.misc_features & CPUID_FAULT_ENABLED;

	if (by != MSR_HOST || (enabled && !(val & CPUID_FAULT_SUPPORTED)))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

SET(misc_features)
{
	if ((val & CPUID_FAULT_ENABLED) && !(cpu->msr.platform_info & CPUID_FAULT_SUPPORTED))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

#define MISC_ENABLE_EMON   BIT(7)
#define MISC_ENABLE_PMU_RO (BIT(11) | BIT(12))
#define MISC_ENABLE_MWAIT  BIT(18)

/* PMU bits are read-only for the guest; EMON keeps its value. */
SET(misc_enable)
{
	uint64_t old = cpu->msr.misc_enable;

	if (by == MSR_GUEST) {
		if ((old ^ val) & MISC_ENABLE_PMU_RO)
			return MSR_DENIED;
		val = (val & ~MISC_ENABLE_EMON) | (old & MISC_ENABLE_EMON);
	}
	/* SDM: not to be set without SSE3; KVM refuses the change. */
	if (cpu->mwait_by_misc_enable && (old ^ val) & MISC_ENABLE_MWAIT &&
	    !guest_has(cpu, FEAT_SSE3))
		return MSR_DENIED;
	cpu->msr.misc_enable = val;
	return MSR_OK;
}

#define FEAT_CTL_LOCKED BIT(0)
#define FEAT_CTL_VMX	BIT(2)
#define FEAT_CTL_LMCE	BIT(20)
/* VMX inside and outside of SMX, SGX launch control, SGX: saved states of other machines may have them. */
#define FEAT_CTL_BY_HOST \
	(FEAT_CTL_LOCKED | BIT(1) | FEAT_CTL_VMX | BIT(17) | BIT(18) | FEAT_CTL_LMCE)
#define MCG_LMCE_P BIT(27)

SET(feat_ctl)
{
	uint64_t allowed = FEAT_CTL_LOCKED;

	if (cpu->msr.mcg_cap & MCG_LMCE_P)
		allowed |= FEAT_CTL_LMCE;
	if (feature_has(cpu->guest_features, FEAT_VMX))
		allowed |= FEAT_CTL_VMX;
	if (by == MSR_GUEST && (cpu->msr.feat_ctl & FEAT_CTL_LOCKED))
		return MSR_DENIED;
	if (val & ~(by == MSR_HOST ? FEAT_CTL_BY_HOST : allowed))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

#define DEBUGCTL_BTF  BIT(1)
#define DEBUGCTL_PINS GENMASK(5, 2)

/*
 * As Linux's KVM: BTF and AMD's pins are accepted and not kept. Records of branches are AMD's alone; where the processor
 * cannot lend them to guests (no LBRV), nothing is kept and nothing refused.
 */
SET(debugctl)
{
	bool amd = !model_intel(cpu->model);

	if (amd && !feature_has(cpu->model_features, FEAT_LBRV))
		return MSR_OK;
	if (val & ~(DEBUGCTL_LBR | DEBUGCTL_BTF | (amd ? DEBUGCTL_PINS : 0)))
		return MSR_DENIED;
	cpu->msr.debugctl = amd ? val & DEBUGCTL_LBR : 0;
	cpu_update_attention(cpu);
	return MSR_OK;
}

SET(last_branch)
{
	if (!feature_has(cpu->model_features, FEAT_LBRV))
		return MSR_UNKNOWN;
	return set_host_only(cpu, row, index, by, val);
}

GET(fsb_freq)
{
	*ret = 3;
	return MSR_OK;
}

GET(ebc_frequency)
{
	*ret = 1 << 24;
	return MSR_OK;
}

GET(bbl_cr_ctl3)
{
	*ret = 0xbe702111;
	return MSR_OK;
}

GET(perf_status)
{
	*ret = 1000 | 4ull << 40;
	return MSR_OK;
}

GET(k7_clk_ctl)
{
	*ret = 0x20000000;
	return MSR_OK;
}

/* Flush-filter, IGNNE and TLB-cache bits are dropped; McStatusWrEn and TscFreqSel are kept. */
SET(hwcr)
{
	val &= ~(uint64_t)(BIT(3) | BIT(6) | BIT(8));
	if (val & ~(uint64_t)(BIT(18) | BIT(24)))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

/* The program, too, needs the guest to have OSVW. */
GET(osvw)
{
	return guest_has(cpu, FEAT_OSVW) ? get_plain(cpu, row, index, by, ret) : MSR_DENIED;
}

SET(osvw)
{
	return guest_has(cpu, FEAT_OSVW) ? set_plain(cpu, row, index, by, val) : MSR_DENIED;
}

/* ---- SVM ---- */

/* R_INIT, DIS_A20M and the like are kept; LOCK and SVMDIS stay once SVM is disabled. */
SET(vm_cr)
{
	uint64_t old = cpu->msr.vm_cr, mask = 0x1f;

	if (val & ~mask)
		return MSR_DENIED;
	if (old & VM_CR_SVMDIS)
		mask &= ~(VM_CR_LOCK | VM_CR_SVMDIS);
	val = (old & ~mask) | (val & mask);
	if ((val & VM_CR_SVMDIS) && (cpu->msr.efer & EFER_SVME))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

/* The program may restore what KVM of old took. */
SET(vm_hsave_pa)
{
	if (by == MSR_GUEST && ((val & ~PAGE_MASK) || val >> cpu->maxphyaddr))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val & PAGE_MASK);
}

/* QEMU wrote 0 where there is no such register. */
SET(tsc_ratio)
{
	if (!guest_has(cpu, FEAT_TSCRATEMSR))
		return by == MSR_HOST && (!val || val == cpu->msr.tsc_ratio) ? MSR_OK : MSR_DENIED;
	return val >> 40 ? MSR_DENIED : set_plain(cpu, row, index, by, val);
}

/* ---- memory types ---- */

static bool memory_types_ok(uint64_t val, unsigned nr, uint8_t allowed)
{
	for (unsigned i = 0; i < nr; i++, val >>= 8)
		if ((val & 0xff) > 7 || !(allowed >> (val & 7) & 1))
			return false;
	return true;
}

#define PAT_TYPES  0xf3 /* UC WC WT WP WB UC- */
#define MTRR_TYPES 0x73 /* UC WC WT WP WB */

SET(pat)
{
	if (!memory_types_ok(val, 8, PAT_TYPES))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

/* 8 variable ranges, fixed ranges, WC. */
GET(mtrrcap)
{
	*ret = 0x508;
	return MSR_OK;
}

SET(mtrr_def_type)
{
	if (!memory_types_ok(val, 1, MTRR_TYPES))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

SET(mtrr_fixed)
{
	if (!memory_types_ok(val, 8, MTRR_TYPES))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

/* Even: base and type; odd: mask and valid bit. */
SET(mtrr_var)
{
	uint64_t reserved = ~0ull << cpu->maxphyaddr;

	reserved |= index & 1 ? 0x7ff : 0xf00;
	if ((val & reserved) || (!(index & 1) && !memory_types_ok(val, 1, MTRR_TYPES)))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

/* ---- machine checks ---- */

#define MCG_CTL_P  BIT(8)
#define MCG_CMCI_P BIT(10)

static unsigned nr_banks(const struct cpu *cpu)
{
	return cpu->msr.mcg_cap & 0xff;
}

GET(mcg_ctl)
{
	if (!(cpu->msr.mcg_cap & MCG_CTL_P) && by == MSR_GUEST)
		return MSR_DENIED;
	return get_plain(cpu, row, index, by, ret);
}

SET(mcg_ctl)
{
	if (!(cpu->msr.mcg_cap & MCG_CTL_P) && (val || by == MSR_GUEST))
		return MSR_DENIED;
	if (val && val != ~0ull)
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

/* Local machine checks, which the firmware has to have allowed. */
GET(mcg_ext_ctl)
{
	if (by == MSR_GUEST && !(cpu->msr.feat_ctl & FEAT_CTL_LMCE))
		return MSR_DENIED;
	return get_plain(cpu, row, index, by, ret);
}

SET(mcg_ext_ctl)
{
	if (by == MSR_GUEST && !(cpu->msr.feat_ctl & FEAT_CTL_LMCE))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

GET(mci)
{
	if ((index - row->number) / 4 >= nr_banks(cpu))
		return MSR_DENIED;
	return get_plain(cpu, row, index, by, ret);
}

static bool mci_value_ok(const struct cpu *cpu, uint32_t index, enum msr_origin by, uint64_t val)
{
	bool may_write_status = !model_intel(cpu->model) && (cpu->msr.hwcr & BIT(18));

	switch (index & 3) {
	case 0:
		return !val || (val | BIT(10) | 1) == ~0ull;
	case 1:
		return !val || by == MSR_HOST || may_write_status;
	}
	return true;
}

SET(mci)
{
	if ((index - row->number) / 4 >= nr_banks(cpu) || !mci_value_ok(cpu, index, by, val))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

GET(mci_ctl2)
{
	if (index - row->number >= nr_banks(cpu))
		return MSR_DENIED;
	if (!(cpu->msr.mcg_cap & MCG_CMCI_P) && by == MSR_GUEST)
		return MSR_DENIED;
	return get_plain(cpu, row, index, by, ret);
}

SET(mci_ctl2)
{
	if (index - row->number >= nr_banks(cpu))
		return MSR_DENIED;
	if (!(cpu->msr.mcg_cap & MCG_CMCI_P) && (val || by == MSR_GUEST))
		return MSR_DENIED;
	return set_plain(cpu, row, index, by, val);
}

/* ---- the table ---- */

#define SAVE	    MSR_FLAG_SAVE
#define EMULATED    MSR_FLAG_EMULATED
#define FEATURE	    MSR_FLAG_FEATURE
#define INTEL	    MSR_FLAG_INTEL
#define AMD	    MSR_FLAG_AMD
#define AMD_SAVE    MSR_FLAG_AMD_SAVE
#define PLATFORM    MSR_FLAG_PLATFORM
#define FEAT_ALWAYS MSR_ALWAYS
/* Rows without a home never use it. */
#define NONE	     efer
#define HOME(member) (offsetof(struct msrs, member) / sizeof(uint64_t))

#define MSR(n, nm, gate, flags, home, reset, reserved, get, set) \
	MSR_RANGE(n, 1, nm, gate, flags, home, reset, reserved, get, set)
#define MSR_RANGE(n, c, nm, gate, flags, home, reset, reserved, get, set) \
	{n, c, FEAT_##gate, flags, (uint16_t)HOME(home), reset, reserved, get_##get, set_##set},

const struct msr_row msr_rows[] = {
#include "msrs.def"
};
const unsigned msr_nr_rows = ARRAY_SIZE(msr_rows);
