/* SPDX-License-Identifier: MIT */
/*
 * anykvm cpus --diff: two models beside each other, line by line where they differ. Features and widths are what
 * guests are offered here; VMX, SVM and PMU are what the modelled silicon's own dump says (SDM, APM), whether
 * anykvm offers them to guests or not. The model near the host has no dump.
 */
#include "front/launcher.h"
#include "silicon/models/model.h"

#include <stdio.h>
#include <string.h>

static const char *const feature_names[] = {
#define FEATURE(name, leaf, subleaf, reg, bit) #name,
#include "features.def"
#undef FEATURE
};

struct diff {
	const struct cpu_model *a, *b;
	const char *section; /* printed before its first line */
	unsigned found;
};

static void line(struct diff *d, const char *what, const char *a, const char *b)
{
	if (!strcmp(a, b))
		return;
	if (d->section)
		printf("\n%s\n", d->section);
	d->section = NULL;
	d->found++;
	printf("  %-34s %-20s %s\n", what, a, b);
}

static void line_flag(struct diff *d, const char *what, bool a, bool b)
{
	line(d, what, a ? "yes" : "-", b ? "yes" : "-");
}

static void line_number(struct diff *d, const char *what, uint64_t a, uint64_t b)
{
	char texts[2][24];

	snprintf(texts[0], sizeof(texts[0]), "%llu", (unsigned long long)a);
	snprintf(texts[1], sizeof(texts[1]), "%llu", (unsigned long long)b);
	line(d, what, texts[0], texts[1]);
}

/* ---- names of bits ---- */

struct bit_name {
	uint8_t bit;
	const char *name;
};

static const struct bit_name vmx_pin[] = {
	{5, "virtual NMIs"},
	{6, "preemption timer"},
	{7, "posted interrupts"},
};

static const struct bit_name vmx_secondary[] = {
	{0, "virtualize APIC accesses"},
	{1, "EPT"},
	{2, "descriptor-table exiting"},
	{3, "RDTSCP"},
	{4, "virtualize x2APIC mode"},
	{5, "VPID"},
	{6, "WBINVD exiting"},
	{7, "unrestricted guest"},
	{8, "APIC-register virtualization"},
	{9, "virtual-interrupt delivery"},
	{10, "PAUSE-loop exiting"},
	{11, "RDRAND exiting"},
	{12, "INVPCID"},
	{13, "VM functions"},
	{14, "VMCS shadowing"},
	{15, "ENCLS exiting"},
	{16, "RDSEED exiting"},
	{17, "PML"},
	{18, "EPT-violation #VE"},
	{19, "conceal VMX from PT"},
	{20, "XSAVES and XRSTORS"},
	{21, "PASID translation"},
	{22, "mode-based execute control for EPT"},
	{23, "sub-page write permissions for EPT"},
	{24, "PT uses guest physical addresses"},
	{25, "TSC scaling"},
	{26, "user wait and pause"},
	{27, "PCONFIG"},
	{28, "ENCLV exiting"},
	{30, "bus-lock detection"},
	{31, "instruction timeout"},
};

static const struct bit_name vmx_ept[] = {
	{0, "EPT execute-only"},
	{6, "EPT page-walk length 4"},
	{7, "EPT page-walk length 5"},
	{16, "EPT 2-MByte pages"},
	{17, "EPT 1-GByte pages"},
	{21, "EPT accessed and dirty flags"},
	{22, "EPT advanced exit information"},
	{23, "supervisor shadow-stack control"},
};

static const struct bit_name svm[] = {
	{0, "nested paging"},
	{1, "LBR virtualization"},
	{2, "SVM lock"},
	{3, "NRIP save"},
	{4, "TSC ratio"},
	{5, "VMCB clean bits"},
	{6, "flush by ASID"},
	{7, "decode assists"},
	{8, "PMC virtualization"},
	{10, "PAUSE filter"},
	{12, "PAUSE filter threshold"},
	{13, "AVIC"},
	{15, "virtual VMSAVE and VMLOAD"},
	{16, "vGIF"},
	{17, "GMET"},
	{18, "x2AVIC"},
	{19, "supervisor shadow-stack check"},
	{20, "SPEC_CTRL virtualization"},
	{21, "read-only guest page tables"},
	{23, "host MCE override"},
	{24, "INVLPGB and TLBSYNC"},
	{25, "vNMI"},
	{26, "IBS virtualization"},
	{27, "extended AVIC"},
	{29, "bus-lock threshold"},
};

static void lines_bits(struct diff *d, const struct bit_name *names, unsigned nr, uint64_t a,
		       uint64_t b)
{
	char other[24];

	for (unsigned bit = 0; bit < 32; bit++) {
		const char *name = other;

		snprintf(other, sizeof(other), "bit %u", bit);
		for (unsigned i = 0; i < nr; i++)
			if (names[i].bit == bit)
				name = names[i].name;
		line_flag(d, name, a >> bit & 1, b >> bit & 1);
	}
}

/* ---- the silicon's dump ---- */

static uint32_t raw_word(const struct cpu_model *m, uint32_t leaf, enum cpuid_reg reg)
{
	for (unsigned i = 0; m->raw && i < m->nr_raw; i++)
		if (m->raw[i].leaf == leaf && !m->raw[i].subleaf)
			return m->raw[i].reg[reg];
	return 0;
}

/* What a capability MSR of VMX lets be 1: its high half. */
static uint64_t may_be_one(const struct cpu_model *m, uint32_t index)
{
	return m->raw_msrs ? model_raw_msr(m, index) >> 32 : 0;
}

static void diff_vmx(struct diff *d)
{
	const struct cpu_model *a = d->a, *b = d->b;

	d->section = "VMX (the silicon's)";
	line_flag(d, "VMX", raw_word(a, 1, CPUID_ECX) >> 5 & 1, raw_word(b, 1, CPUID_ECX) >> 5 & 1);
	lines_bits(d, vmx_pin, ARRAY_SIZE(vmx_pin), may_be_one(a, 0x481), may_be_one(b, 0x481));
	lines_bits(d, vmx_secondary, ARRAY_SIZE(vmx_secondary), may_be_one(a, 0x48b),
		   may_be_one(b, 0x48b));
	lines_bits(d, vmx_ept, ARRAY_SIZE(vmx_ept), a->raw_msrs ? model_raw_msr(a, 0x48c) : 0,
		   b->raw_msrs ? model_raw_msr(b, 0x48c) : 0);
}

static void diff_svm(struct diff *d)
{
	d->section = "SVM (the silicon's)";
	line_flag(d, "SVM", raw_word(d->a, 0x80000001, CPUID_ECX) >> 2 & 1,
		  raw_word(d->b, 0x80000001, CPUID_ECX) >> 2 & 1);
	lines_bits(d, svm, ARRAY_SIZE(svm), raw_word(d->a, 0x8000000a, CPUID_EDX),
		   raw_word(d->b, 0x8000000a, CPUID_EDX));
}

/* Before PerfMonV2 named their number there were 4, or 6 with PerfCtrExtCore. */
static unsigned amd_counters(const struct cpu_model *m)
{
	unsigned named = raw_word(m, 0x80000022, CPUID_EBX) & 0xf;

	if (model_intel(m) || !m->raw || named)
		return named;
	return raw_word(m, 0x80000001, CPUID_ECX) >> 23 & 1 ? 6 : 4;
}

static void diff_pmu(struct diff *d)
{
	uint32_t a = raw_word(d->a, 0xa, CPUID_EAX), b = raw_word(d->b, 0xa, CPUID_EAX);

	d->section = "PMU (the silicon's)";
	line_number(d, "architectural version", a & 0xff, b & 0xff);
	line_number(d, "general counters", a >> 8 & 0xff, b >> 8 & 0xff);
	line_number(d, "their bits", a >> 16 & 0xff, b >> 16 & 0xff);
	line_number(d, "fixed counters", raw_word(d->a, 0xa, CPUID_EDX) & 0x1f,
		    raw_word(d->b, 0xa, CPUID_EDX) & 0x1f);
	line_flag(d, "AMD PerfMonV2", raw_word(d->a, 0x80000022, CPUID_EAX) & 1,
		  raw_word(d->b, 0x80000022, CPUID_EAX) & 1);
	line_number(d, "AMD core counters", amd_counters(d->a), amd_counters(d->b));
}

/* ---- what guests are offered ---- */

static void signature(const struct cpu_model *m, char *ret, size_t size)
{
	const struct cpuid_row *row = model_cpuid(m, 1, 0);
	uint32_t eax = row ? row->reg[CPUID_EAX] : 0;
	unsigned family = (eax >> 8 & 0xf) + ((eax >> 8 & 0xf) == 0xf ? eax >> 20 & 0xff : 0);

	snprintf(ret, size, "0x%x / 0x%x / %u", family, (eax >> 4 & 0xf) | (eax >> 12 & 0xf0),
		 eax & 0xf);
}

static void diff_identity(struct diff *d)
{
	char a[40], b[40];

	d->section = "processor";
	line(d, "vendor", model_intel(d->a) ? "Intel" : "AMD", model_intel(d->b) ? "Intel" : "AMD");
	signature(d->a, a, sizeof(a));
	signature(d->b, b, sizeof(b));
	line(d, "family / model / stepping", a, b);
	line_number(d, "physical address bits", d->a->maxphyaddr, d->b->maxphyaddr);
	snprintf(a, sizeof(a), "0x%llx", (unsigned long long)d->a->xcr0);
	snprintf(b, sizeof(b), "0x%llx", (unsigned long long)d->b->xcr0);
	line(d, "XCR0", a, b);
	snprintf(a, sizeof(a), "0x%llx", (unsigned long long)d->a->arch_capabilities);
	snprintf(b, sizeof(b), "0x%llx", (unsigned long long)d->b->arch_capabilities);
	line(d, "IA32_ARCH_CAPABILITIES", a, b);
}

static void diff_features(struct diff *d)
{
	d->section = "CPUID features that guests are offered here";
	for (unsigned i = 0; i < NR_FEATURES; i++)
		line_flag(d, feature_names[i], feature_has(d->a->features, i),
			  feature_has(d->b->features, i));
}

unsigned cpus_diff(const struct cpu_model *a, const struct cpu_model *b)
{
	struct diff d = {.a = a, .b = b};

	printf("  %-34s %-20s %s\n", "", a->name, b->name);
	diff_identity(&d);
	diff_features(&d);
	if (!a->raw || !b->raw) {
		printf("\n(VMX, SVM and PMU: the model near the host has no dump of silicon)\n");
		return d.found;
	}
	diff_vmx(&d);
	diff_svm(&d);
	diff_pmu(&d);
	return d.found;
}
