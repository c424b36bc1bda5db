/* SPDX-License-Identifier: MIT */
/*
 * Control and debug registers (SDM, MOV to control registers; MOV to debug registers).
 *
 * Each setter judges the whole new value, then commits, then lets the derived state follow:
 * TLB, modes, attention, platform. Which CR4 and XCR0 bits exist is data: cpu->cr4_reserved and
 * cpu->xcr0_allowed.
 */
#include "silicon/cpu/behaviour.h"
#include "silicon/sys/sys_internal.h"

/* CR4 bits that page walks depend on: changing one empties the TLB. */
#define CR4_WALK                                                                              \
	(CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE | \
	 CR4_PKS)
#define CR4_PDPTE_RELOAD (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP)
#define EFER_AUTOIBRS	 BIT(21)

void sys_notify(struct cpu *cpu)
{
	if (cpu->platform && cpu->platform->window_open)
		platform_call(cpu, window_open);
}

void sys_mode_changed(struct cpu *cpu)
{
	cpu_update_mode(cpu);
	cpu_update_attention(cpu);
}

/* A control register changed: the TLB's view follows, too. */
static void control_changed(struct cpu *cpu)
{
	sys_mode_changed(cpu);
	mmu_update_mode(cpu);
}

/* ---- CR0 ---- */

static bool cr0_consistent(uint64_t val)
{
	if (val >> 32)
		return false;
	if ((val & CR0_NW) && !(val & CR0_CD))
		return false;
	return (val & CR0_PE) || !(val & CR0_PG);
}

static bool paging_may_start(const struct cpu *cpu)
{
	if (!(cpu->msr.efer & EFER_LME))
		return true;
	if (cpu->behaviour & BIT(BEHAVIOUR_TSS16_LONG_MODE) && model_intel(cpu->model) &&
	    SEG_TYPE(cpu->seg[SEG_TR].attr) == DESC_TSS16_BUSY)
		return false;
	return (cpu->cr4 & CR4_PAE) && !(cpu->seg[SEG_CS].attr & SEG_L);
}

static bool paging_may_stop(const struct cpu *cpu)
{
	return !(cpu->cr4 & CR4_PCIDE) && !cpu_64bit(cpu);
}

static bool cr0_allowed(const struct cpu *cpu, uint64_t val)
{
	uint64_t changed = cpu->cr0 ^ val;

	if (!cr0_consistent(val) || (cpu->virt && (cpu->virt->cr0_ones & ~val)))
		return false;
	if (!(changed & CR0_PG))
		return true;
	return val & CR0_PG ? paging_may_start(cpu) : paging_may_stop(cpu);
}

bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LME);
}

enum result sys_set_cr0(struct cpu *cpu, uint64_t val)
{
	uint64_t changed;
	enum result r;

	if (!cr0_allowed(cpu, val))
		return fault_gp(cpu, 0);
	val = (val & CR0_KNOWN) | CR0_ET;
	changed = cpu->cr0 ^ val;
	if (pae_paging(val, cpu->cr4, cpu->msr.efer) && (changed & (CR0_PG | CR0_CD | CR0_NW))) {
		r = mmu_load_pdptes(cpu, cpu->cr3);
		if (r)
			return r;
	}
	/* All checks passed. */
	cpu->cr0 = val;
	cpu->msr.efer &= ~EFER_LMA;
	if ((val & CR0_PG) && (cpu->msr.efer & EFER_LME))
		cpu->msr.efer |= EFER_LMA;
	if (changed & (CR0_PG | CR0_PE))
		mmu_flush_all(cpu);
	control_changed(cpu);
	if (changed & (CR0_PG | CR0_PE | CR0_WP))
		sys_notify(cpu);
	return RESULT_OK;
}

/* ---- CR3 ---- */

static uint64_t cr3_reserved(const struct cpu *cpu)
{
	return ~0ull << cpu->maxphyaddr;
}

enum result sys_set_cr3(struct cpu *cpu, uint64_t val)
{
	bool keep = (cpu->cr4 & CR4_PCIDE) && (val & CR3_NOFLUSH);
	enum result r;

	if (keep)
		val &= ~CR3_NOFLUSH;
	if (val & cr3_reserved(cpu))
		return fault_gp(cpu, 0);
	if (pae_paging(cpu->cr0, cpu->cr4, cpu->msr.efer)) {
		r = mmu_load_pdptes(cpu, val);
		if (r)
			return r;
	}
	/* All checks passed. */
	cpu->cr3 = val;
	if (cpu->cr4 & CR4_PCIDE)
		mmu_switch_pcid(cpu, keep);
	else
		mmu_flush_cr3(cpu);
	return RESULT_OK;
}

/* ---- CR4 ---- */

static bool cr4_allowed(const struct cpu *cpu, uint64_t val)
{
	uint64_t changed = cpu->cr4 ^ val;

	if ((val & cpu->cr4_reserved) || (cpu->virt && (cpu->virt->cr4_ones & ~val)))
		return false;
	if (cpu_long_mode(cpu)) {
		if (!(val & CR4_PAE) || (changed & CR4_LA57))
			return false;
	}
	if (changed & val & CR4_PCIDE)
		return cpu_long_mode(cpu) && !(cpu->cr3 & CR3_PCID_MASK);
	return true;
}

enum result sys_set_cr4(struct cpu *cpu, uint64_t val)
{
	uint64_t changed = cpu->cr4 ^ val;
	enum result r;

	if (!cr4_allowed(cpu, val))
		return fault_gp(cpu, 0);
	if (pae_paging(cpu->cr0, val, cpu->msr.efer) && (changed & CR4_PDPTE_RELOAD)) {
		r = mmu_load_pdptes(cpu, cpu->cr3);
		if (r)
			return r;
	}
	/* All checks passed. */
	cpu->cr4 = val;
	if (changed & CR4_WALK)
		mmu_flush_all(cpu);
	control_changed(cpu);
	sys_notify(cpu);
	return RESULT_OK;
}

/* ---- CR8, XCR0 ---- */

enum result sys_set_cr8(struct cpu *cpu, uint64_t val)
{
	if (val & ~0xfull)
		return fault_gp(cpu, 0);
	platform_call(cpu, set_tpr, (uint8_t)val);
	cpu_raise(cpu, ATTN_EVENTS);
	return RESULT_OK;
}

static bool all_or_none(uint64_t val, uint64_t bits)
{
	return !(val & bits) || (val & bits) == bits;
}

/* Components that depend on one another (SDM, XSETBV). */
static bool xcr0_consistent(uint64_t val)
{
	if (!(val & XCR0_X87))
		return false;
	if ((val & XCR0_AVX) && !(val & XCR0_SSE))
		return false;
	if (!all_or_none(val, BIT(3) | BIT(4)) || !all_or_none(val, BIT(17) | BIT(18)))
		return false;
	return all_or_none(val, XCR0_AVX512) && (!(val & XCR0_AVX512) || (val & XCR0_AVX));
}

enum result sys_set_xcr0(struct cpu *cpu, uint64_t val)
{
	if (!xcr0_consistent(val) || (val & ~cpu->xcr0_allowed))
		return fault_gp(cpu, 0);
	cpu->xcr0 = val;
	return RESULT_OK;
}

/* ---- EFER ---- */

static uint64_t efer_bits(const uint64_t *features)
{
	uint64_t bits = 0;

	if (feature_has(features, FEAT_SYSCALL) || feature_has(features, FEAT_LM))
		bits |= EFER_SCE;
	if (feature_has(features, FEAT_LM))
		bits |= EFER_LME | EFER_LMA;
	if (feature_has(features, FEAT_NX))
		bits |= EFER_NX;
	if (feature_has(features, FEAT_FXSR_OPT))
		bits |= EFER_FFXSR;
	if (feature_has(features, FEAT_SVM))
		bits |= EFER_SVME;
	if (feature_has(features, FEAT_AUTOIBRS))
		bits |= EFER_AUTOIBRS;
	return bits;
}

static bool efer_allowed(const struct cpu *cpu, uint64_t val, enum msr_origin by)
{
	if (val & ~efer_bits(cpu->model_features))
		return false;
	if (by == MSR_HOST)
		return true;
	if (val & ~efer_bits(cpu->guest_features))
		return false;
	return !(cpu_paging(cpu) && ((cpu->msr.efer ^ val) & EFER_LME));
}

/* APM, VM_CR: SVMDIS. */
static bool svm_disabled(const struct cpu *cpu, uint64_t val)
{
	return (val & ~cpu->msr.efer & EFER_SVME) && (cpu->msr.vm_cr & VM_CR_SVMDIS);
}

bool sys_efer_write(struct cpu *cpu, uint64_t val, enum msr_origin by)
{
	uint64_t changed;

	if (!efer_allowed(cpu, val, by) || (by == MSR_GUEST && svm_disabled(cpu, val)))
		return false;
	/* Without SVM there is no GIF. */
	if (cpu->virt && !cpu->virt->gif && !cpu->virt->guest && !(val & EFER_SVME)) {
		cpu->virt->gif = true;
		cpu_raise(cpu, ATTN_EVENTS | ATTN_REQUEST);
	}
	val = (val & ~EFER_LMA) | (cpu->msr.efer & EFER_LMA);
	changed = cpu->msr.efer ^ val;
	cpu->msr.efer = val;
	if (changed & (EFER_NX | EFER_LME))
		mmu_flush_all(cpu);
	control_changed(cpu);
	if (changed)
		sys_notify(cpu);
	return true;
}

/* ---- all at once ---- */

void sys_world_changed(struct cpu *cpu)
{
	sys_mode_changed(cpu);
	mmu_switch_world(cpu);
	mmu_update_mode(cpu);
	/* Who waits for an interrupt is looked at, too. */
	if (!cpu->looked || cpu->activity != ACTIVITY_RUN)
		cpu_raise(cpu, ATTN_EVENTS);
	sys_notify(cpu);
}

uint64_t sys_efer_allowed(const struct cpu *cpu)
{
	return efer_bits(cpu->model_features) & efer_bits(cpu->guest_features);
}

uint64_t sys_cr3_reserved(const struct cpu *cpu)
{
	return cr3_reserved(cpu);
}

static bool long_mode_consistent(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	bool active = (cr0 & CR0_PG) && (efer & EFER_LME);

	if (active && !(cr4 & CR4_PAE))
		return false;
	return active || !(cr4 & CR4_PCIDE);
}

bool control_image_valid(const struct cpu *cpu, uint64_t cr0, uint64_t cr3, uint64_t cr4,
			 uint64_t efer)
{
	if ((efer & ~(sys_efer_allowed(cpu) | EFER_LMA)) || (cr3 & cr3_reserved(cpu)))
		return false;
	return !(cr4 & cpu->cr4_reserved) && cr0_consistent(cr0) &&
	       long_mode_consistent(cr0, cr4, efer);
}

/* ---- debug registers ---- */

/* #UD for the DR4 and DR5 aliases stands before CPL, general detect after it. */
static enum result dr_check(struct cpu *cpu, unsigned n)
{
	if ((n == 4 || n == 5) && (cpu->cr4 & CR4_DE))
		return fault_ud(cpu);
	if (cpu->mode.cpl)
		return fault_gp(cpu, 0);
	if (cpu_dr7(cpu) & DR7_GD)
		return fault_debug(cpu, DR6_BD);
	return RESULT_OK;
}

enum result sys_get_dr(struct cpu *cpu, unsigned n, uint64_t *ret)
{
	enum result r = dr_check(cpu, n);

	if (r)
		return r;
	if (n < 4)
		*ret = cpu->dr[n];
	else
		*ret = n & 1 ? cpu->dr7 : cpu->dr6;
	return RESULT_OK;
}

enum result sys_set_dr(struct cpu *cpu, unsigned n, uint64_t val)
{
	enum result r = dr_check(cpu, n);

	if (r)
		return r;
	if (n >= 4 && val >> 32)
		return fault_gp(cpu, 0);
	if (n < 4)
		cpu->dr[n] = val;
	else if (n & 1)
		cpu->dr7 = (val & DR7_VOLATILE) | DR7_FIXED_1;
	else
		cpu->dr6 = (val & DR6_VOLATILE) | DR6_FIXED_1;
	/* Pages under watch have no inline tags. */
	mmu_update_mode(cpu);
	cpu_update_attention(cpu);
	return RESULT_OK;
}
