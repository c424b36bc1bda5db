/* SPDX-License-Identifier: MIT */
/*
 * Capability MSRs as they are read, and as the owner of the processor sets them: never beyond what it started with, and
 * with the same bits that must be 1.
 */
#include "silicon/vmx/vmx_internal.h"

/* CR4 bits that a model knows, for a value without a vCPU. */
#define CR4_ALL 0x01f77fffull

uint64_t vmx_caps_read(const struct cpu *cpu, const struct vmx_caps *caps, enum vmx_msr msr)
{
	switch (msr) {
	case VMX_PIN:
		return caps->msr[VMX_TRUE_PIN] | PIN_DEFAULT1;
	case VMX_CPU:
		return caps->msr[VMX_TRUE_CPU] | CPU_DEFAULT1;
	case VMX_EXIT:
		return caps->msr[VMX_TRUE_EXIT] | EXIT_DEFAULT1;
	case VMX_ENTRY:
		return caps->msr[VMX_TRUE_ENTRY] | ENTRY_DEFAULT1;
	case VMX_CR4_FIXED1:
		return cpu ? ~cpu->cr4_reserved & CR4_ALL : CR4_ALL & ~(CR4_SMXE | CR4_KL);
	default:
		return caps->msr[msr];
	}
}

/* ---- the owner's writes ---- */

static bool subset(uint64_t super, uint64_t sub, uint64_t mask)
{
	return !(sub & mask & ~super);
}

static bool control_write(uint64_t limit, uint64_t val)
{
	return subset(val, limit, 0xffffffff) && subset(limit, val, 0xffffffffull << 32);
}

#define BASIC_FEATURES	 (BASIC_INOUT | BASIC_TRUE | BIT(49) | BIT(56))
#define BASIC_RESERVED	 (GENMASK(63, 57) | GENMASK(47, 45) | BIT(31))
#define BASIC_32BIT	 BIT(48)
#define BASIC_SIZE_OF(v) ((v) >> 32 & 0x1fff)

static bool basic_write(uint64_t limit, uint64_t val)
{
	if (!subset(limit, val, BASIC_FEATURES | BASIC_RESERVED))
		return false;
	if ((limit ^ val) & BASIC_32BIT || (uint32_t)(limit ^ val) & 0x7fffffff)
		return false;
	return BASIC_SIZE_OF(limit) <= BASIC_SIZE_OF(val);
}

#define MISC_FEATURES	  (MISC_LMA | GENMASK(8, 6) | BIT(14) | BIT(15) | GENMASK(30, 28))
#define MISC_RESERVED	  (GENMASK(13, 9) | BIT(31))
#define MISC_CR3_COUNT(v) ((v) >> 16 & 0x1ff)
#define MISC_MAX_MSR(v)	  ((v) >> 25 & 7)
#define MISC_MSEG(v)	  ((v) >> 32)

static bool misc_write(const struct vmx_caps *caps, uint64_t limit, uint64_t val)
{
	if (!subset(limit, val, MISC_FEATURES | MISC_RESERVED))
		return false;
	if ((caps->msr[VMX_TRUE_PIN] >> 32 & PIN_PREEMPTION_TIMER) &&
	    (limit ^ val) & MISC_TIMER_MASK)
		return false;
	return MISC_CR3_COUNT(val) <= MISC_CR3_COUNT(limit) &&
	       MISC_MAX_MSR(val) <= MISC_MAX_MSR(limit) && MISC_MSEG(val) == MISC_MSEG(limit);
}

static bool write_allowed(const struct vmx_caps *caps, const struct vmx_caps *limit,
			  enum vmx_msr msr, uint64_t val)
{
	switch (msr) {
	case VMX_BASIC:
		return basic_write(limit->msr[msr], val);
	case VMX_TRUE_PIN:
	case VMX_TRUE_CPU:
	case VMX_TRUE_EXIT:
	case VMX_TRUE_ENTRY:
	case VMX_CPU2:
		return control_write(limit->msr[msr], val);
	case VMX_MISC:
		return misc_write(caps, limit->msr[msr], val);
	case VMX_CR0_FIXED0:
	case VMX_CR4_FIXED0:
		return subset(val, limit->msr[msr], ~0ull);
	case VMX_EPT_VPID:
	case VMX_VMFUNC:
		return subset(limit->msr[msr], val, ~0ull);
	case VMX_VMCS_ENUM:
		return true;
	default:
		return false; /* derived, or the silicon's */
	}
}

bool vmx_caps_write(struct vmx_caps *caps, const struct vmx_caps *limit, enum vmx_msr msr,
		    uint64_t val)
{
	if (!write_allowed(caps, limit, msr, val))
		return false;
	caps->msr[msr] = val;
	return true;
}
