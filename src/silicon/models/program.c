/* SPDX-License-Identifier: MIT */
/*
 * CPUID as the program itself executes it, on a model other than the host's.
 *
 * The dump's words are told as they are, VMX or SVM and machine features included, with three exceptions:
 * - words of feature bits lose what user code could try and the host would refuse: a bit stays if the host
 *   has it, too, or if system_features[] says that it concerns the system only;
 * - leaves that follow what the host's system has enabled, or its clock, are the host's;
 * - so is the topology, which differs from CPU to CPU: the program runs on the host's.
 */
#include "silicon/models/model_internal.h"
#include "host/host.h"

#include <string.h>

/* Of no concern to user code, or harmless hints in it. */
static const enum feature system_features[] = {
	FEAT_VME,
	FEAT_DE,
	FEAT_PSE,
	FEAT_MSR,
	FEAT_PAE,
	FEAT_MCE,
	FEAT_APIC,
	FEAT_SEP,
	FEAT_MTRR,
	FEAT_PGE,
	FEAT_MCA,
	FEAT_PAT,
	FEAT_PSE36,
	FEAT_DS,
	FEAT_ACPI,
	FEAT_SELFSNOOP,
	FEAT_HT,
	FEAT_ACC,
	FEAT_PBE,
	FEAT_DTES64,
	FEAT_MONITOR,
	FEAT_DSCPL,
	FEAT_VMX,
	FEAT_SMX,
	FEAT_EST,
	FEAT_TM2,
	FEAT_SDBG,
	FEAT_XTPR,
	FEAT_PDCM,
	FEAT_PCID,
	FEAT_DCA,
	FEAT_X2APIC,
	FEAT_TSC_DEADLINE_TIMER,
	FEAT_TSC_ADJUST,
	FEAT_FDP_EXCPTN_ONLY,
	FEAT_SMEP,
	FEAT_ERMS,
	FEAT_INVPCID,
	FEAT_CQM,
	FEAT_ZERO_FCS_FDS,
	FEAT_RDT_A,
	FEAT_SMAP,
	FEAT_INTEL_PT,
	FEAT_PREFETCHWT1,
	FEAT_UMIP,
	FEAT_TME,
	FEAT_LA57,
	FEAT_BUS_LOCK_DETECT,
	FEAT_CLDEMOTE,
	FEAT_PKS,
	FEAT_FSRM,
	FEAT_SRBDS_CTRL,
	FEAT_MD_CLEAR,
	FEAT_TSX_FORCE_ABORT,
	FEAT_PCONFIG,
	FEAT_ARCH_LBR,
	FEAT_SPEC_CTRL,
	FEAT_INTEL_STIBP,
	FEAT_FLUSH_L1D,
	FEAT_ARCH_CAPABILITIES,
	FEAT_CORE_CAPABILITIES,
	FEAT_SPEC_CTRL_SSBD,
	FEAT_LASS,
	FEAT_ARCH_PERFMON_EXT,
	FEAT_FZRM,
	FEAT_FSRS,
	FEAT_FSRC,
	FEAT_FRED,
	FEAT_LKGS,
	FEAT_WRMSRNS,
	FEAT_MSRLIST,
	FEAT_INVD_DISABLE,
	FEAT_LAM,
	FEAT_UTMR,
	FEAT_CET_SSS,
	FEAT_INTEL_PSFD,
	FEAT_IPRED_CTRL,
	FEAT_RRSBA_CTRL,
	FEAT_DDPD_U,
	FEAT_BHI_CTRL,
	FEAT_MCDT_NO,
	FEAT_UC_LOCK_DIS,
	FEAT_MONITOR_MITG_NO,
	FEAT_SYSCALL,
	FEAT_MP,
	FEAT_NX,
	FEAT_FXSR_OPT,
	FEAT_GBPAGES,
	FEAT_LM,
	FEAT_CMP_LEGACY,
	FEAT_SVM,
	FEAT_EXTAPIC,
	FEAT_CR8_LEGACY,
	FEAT_3DNOWPREFETCH,
	FEAT_OSVW,
	FEAT_IBS,
	FEAT_SKINIT,
	FEAT_WDT,
	FEAT_TCE,
	FEAT_NODEID_MSR,
	FEAT_TOPOEXT,
	FEAT_PERFCTR_CORE,
	FEAT_PERFCTR_NB,
	FEAT_BPEXT,
	FEAT_PTSC,
	FEAT_PERFCTR_LLC,
	FEAT_IRPERF,
	FEAT_XSAVEERPTR,
	FEAT_WBNOINVD,
	FEAT_AMD_IBPB,
	FEAT_AMD_IBRS,
	FEAT_AMD_STIBP,
	FEAT_AMD_IBRS_ALWAYS_ON,
	FEAT_AMD_STIBP_ALWAYS_ON,
	FEAT_AMD_IBRS_PREFERRED,
	FEAT_AMD_IBRS_SAME_MODE,
	FEAT_EFER_LMSLE_NO,
	FEAT_INVLPGB_NESTED,
	FEAT_AMD_PPIN,
	FEAT_AMD_SSBD,
	FEAT_VIRT_SSBD,
	FEAT_AMD_SSB_NO,
	FEAT_CPPC,
	FEAT_AMD_PSFD,
	FEAT_BTC_NO,
	FEAT_IBPB_RET,
	FEAT_BRS,
	FEAT_NO_NESTED_DATA_BP,
	FEAT_WRMSR_XX_BASE_NS,
	FEAT_LFENCE_RDTSC,
	FEAT_SMM_PGCFG_LOCK,
	FEAT_NULL_SEL_CLR_BASE,
	FEAT_UPPER_ADDR_IGN,
	FEAT_AUTOIBRS,
	FEAT_NO_SMM_CTL_MSR,
	FEAT_AMD_FSRS,
	FEAT_AMD_FSRC,
	FEAT_PREFETCH_CTL_MSR,
	FEAT_CPUID_USER_DIS,
	FEAT_AMD_EPSF,
	FEAT_ERAPS,
	FEAT_SBPB,
	FEAT_IBPB_BRTYPE,
	FEAT_SRSO_NO,
	FEAT_SRSO_USER_KERNEL_NO,
	FEAT_SRSO_BP_SPEC_REDUCE,
};

static const struct place {
	uint32_t leaf;
	uint8_t subleaf, reg, bit;
} places[NR_FEATURES] = {
#define FEATURE(name, leaf, subleaf, reg, bit) {leaf, subleaf, reg, bit},
#include "features.def"
#undef FEATURE
};

/* Words of feature bits that user code goes by: register by register. */
static const struct words {
	uint32_t leaf, subleaf;
	bool reg[4];
} words[] = {
	{0x1, 0, {[CPUID_ECX] = true, [CPUID_EDX] = true}},
	{0x7, 0, {[CPUID_EBX] = true, [CPUID_ECX] = true, [CPUID_EDX] = true}},
	{0x7, 1, {true, true, true, true}},
	{0x7, 2, {[CPUID_EDX] = true}},
	{0x14, 0, {[CPUID_EBX] = true}},
	{0x19, 0, {[CPUID_EBX] = true}},
	{0x80000001, 0, {[CPUID_ECX] = true, [CPUID_EDX] = true}},
	{0x80000008, 0, {[CPUID_EBX] = true}},
	{0x80000021, 0, {[CPUID_EAX] = true}},
};

/* AMD's copies of leaf 1 in leaf 0x80000001. */
#define COPIED 0x0183f3ffu

static const struct cpuid_row *raw_find(const struct cpu_model *m, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < m->nr_raw; i++)
		if (m->raw[i].leaf == leaf && m->raw[i].subleaf == subleaf)
			return &m->raw[i];
	return NULL;
}

static uint32_t raw_max(const struct cpu_model *m, uint32_t base)
{
	const struct cpuid_row *top = raw_find(m, base, 0);

	return top && top->reg[CPUID_EAX] >= base ? top->reg[CPUID_EAX] : base;
}

/* Past the host's own last leaf Intel repeats another one: nothing then. */
static void host_leaf(uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	uint32_t top[4];

	host_cpuid(leaf & 0x80000000, 0, top);
	memset(ret, 0, 16);
	if (leaf <= top[CPUID_EAX])
		host_cpuid(leaf, subleaf, ret);
}

static void allow_system(const struct words *w, uint32_t allowed[4])
{
	for (unsigned i = 0; i < ARRAY_SIZE(system_features); i++) {
		const struct place *p = &places[system_features[i]];

		if (p->leaf == w->leaf && p->subleaf == w->subleaf)
			allowed[p->reg] |= 1u << p->bit;
	}
}

/* The bits of w that may be told. */
static void allowed_bits(const struct words *w, uint32_t allowed[4])
{
	uint32_t leaf1[4];

	host_leaf(w->leaf, w->subleaf, allowed);
	allow_system(w, allowed);
	if (w->leaf != 0x80000001)
		return;
	host_leaf(1, 0, leaf1);
	allowed[CPUID_EDX] |= leaf1[CPUID_EDX] & COPIED;
	if (leaf1[CPUID_EDX] & (1u << places[FEAT_SSE].bit))
		allowed[CPUID_EDX] |= 1u << places[FEAT_MMXEXT].bit;
}

static void mask_words(uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	uint32_t allowed[4];

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		if (words[i].leaf != leaf || words[i].subleaf != subleaf)
			continue;
		allowed_bits(&words[i], allowed);
		for (unsigned reg = 0; reg < 4; reg++)
			if (words[i].reg[reg])
				ret[reg] &= allowed[reg];
	}
}

/* What the host's system enabled, its clocks and its topology, in the model's frame. */
static void take_hosts(uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	uint32_t own[4];

	switch (leaf) {
	case 0x1:
		host_cpuid_here(1, 0, own);
		ret[CPUID_EBX] = (ret[CPUID_EBX] & 0xffff) | (own[CPUID_EBX] & 0xffff0000);
		if (ret[CPUID_ECX] & BIT(26)) /* XSAVE: OSXSAVE with it */
			ret[CPUID_ECX] |= own[CPUID_ECX] & BIT(27);
		break;
	case 0x7:
		if (!subleaf && ret[CPUID_ECX] & BIT(3)) { /* PKU: OSPKE with it */
			host_leaf(7, 0, own);
			ret[CPUID_ECX] |= own[CPUID_ECX] & BIT(4);
		}
		break;
	case 0xb:
	case 0x1f:
		host_leaf(leaf, subleaf, ret);
		if (ret[0] | ret[1] | ret[2] | ret[3])
			host_cpuid_here(leaf, subleaf, ret);
		break;
	case 0xd:
	case 0x15:
	case 0x16:
	case 0x1d:
	case 0x1e:
		host_leaf(leaf, subleaf, ret);
		break;
	case 0x8000001e:
		host_leaf(0xb, 0, own);
		if (own[CPUID_EBX])
			host_cpuid_here(0xb, 0, own);
		ret[CPUID_EAX] = own[CPUID_EDX];
		break;
	default:
		break;
	}
}

/* Leaves that look at ECX; the others answer the same whatever it says. */
static bool indexed(uint32_t leaf)
{
	static const uint32_t leaves[] = {
		0x4,  0x7,  0xb,  0xd,	0xf,  0x10, 0x12, 0x14,	      0x17,	  0x18,	      0x1b,
		0x1d, 0x1e, 0x1f, 0x20, 0x23, 0x24, 0x27, 0x8000001d, 0x80000020, 0x80000026,
	};

	for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++)
		if (leaves[i] == leaf)
			return true;
	return false;
}

static bool beyond_last(const struct cpu_model *m, uint32_t leaf)
{
	bool extended = leaf >= 0x80000000 && leaf < 0xc0000000;

	return leaf > raw_max(m, extended ? 0x80000000 : 0);
}

bool model_program_cpuid(const struct cpu_model *m, uint32_t leaf, uint32_t subleaf,
			 uint32_t ret[4])
{
	const struct cpuid_row *row;

	if (!m->raw)
		return false;
	memset(ret, 0, 16);
	if (beyond_last(m, leaf)) {
		/* Intel's processors repeat their last basic leaf. */
		if (!model_intel(m))
			return true;
		leaf = raw_max(m, 0);
	}
	row = raw_find(m, leaf, indexed(leaf) ? subleaf : 0);
	if (row)
		memcpy(ret, row->reg, 16);
	if (leaf == 0x80000001 && model_intel(m))
		ret[CPUID_EDX] |= BIT(11); /* SYSCALL: dumps of 32-bit tools lack it */
	mask_words(leaf, subleaf, ret);
	if (raw_find(m, leaf, 0))
		take_hosts(leaf, subleaf, ret);
	return true;
}

bool model_program_has(const struct cpu_model *m, enum feature feature)
{
	const struct place *p = &places[feature];
	uint32_t r[4];

	if (!m->raw || beyond_last(m, p->leaf) || !model_program_cpuid(m, p->leaf, p->subleaf, r))
		return false;
	return r[p->reg] >> p->bit & 1;
}

uint64_t model_raw_msr(const struct cpu_model *m, uint32_t index)
{
	for (const struct model_msr *msr = m->raw_msrs; msr && msr->index; msr++)
		if (msr->index == index)
			return msr->value;
	return 0;
}
