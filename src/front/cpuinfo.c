/* SPDX-License-Identifier: MIT */
/*
 * /proc/cpuinfo with another processor: the host's own lines, of which those that name the processor are replaced.
 * Which CPUs there are, their places and clocks stay the host's, on which the program runs. Near the host only
 * what KVM needs is added, where the host has none: VMX or SVM, with what the modules' parameters say of it.
 */
#include "front/files.h"
#include "silicon/models/model.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct words {
	uint32_t leaf0[4], leaf1[4], widths[4], l2[4];
	char brand[49];
};

/* Linux's names, where they are not the features' in lower case; NULL: it has none. */
static const struct {
	enum feature feature;
	const char *name;
} names[] = {
	{FEAT_PSN, "pn"},
	{FEAT_DS, "dts"},
	{FEAT_SELFSNOOP, "ss"},
	{FEAT_ACC, "tm"},
	{FEAT_SSE3, "pni"},
	{FEAT_DSCPL, "ds_cpl"},
	{FEAT_OSXSAVE, NULL},
	{FEAT_FDP_EXCPTN_ONLY, NULL},
	{FEAT_ZERO_FCS_FDS, NULL},
	{FEAT_PREFETCHWT1, NULL},
	{FEAT_SHSTK, "user_shstk"},
	{FEAT_KEY_LOCKER, NULL},
	{FEAT_PKS, NULL},
	{FEAT_SGX_KEYS, NULL},
	{FEAT_UINTR, NULL},
	{FEAT_SRBDS_CTRL, NULL},
	{FEAT_RTM_ALWAYS_ABORT, NULL},
	{FEAT_TSX_FORCE_ABORT, NULL},
	{FEAT_HYBRID_CPU, NULL},
	{FEAT_SPEC_CTRL, "ibrs ibpb"},
	{FEAT_INTEL_STIBP, "stibp"},
	{FEAT_CORE_CAPABILITIES, NULL},
	{FEAT_SPEC_CTRL_SSBD, "ssbd"},
	{FEAT_RAO_INT, NULL},
	{FEAT_ARCH_PERFMON_EXT, "arch_perfmon_ext"},
	{FEAT_LASS, NULL},
	{FEAT_CMPCCXADD, NULL},
	{FEAT_FZRM, NULL},
	{FEAT_FSRS, NULL},
	{FEAT_FSRC, NULL},
	{FEAT_LKGS, NULL},
	{FEAT_WRMSRNS, NULL},
	{FEAT_NMI_SOURCE, NULL},
	{FEAT_HRESET, NULL},
	{FEAT_AVX_IFMA, NULL},
	{FEAT_MSRLIST, NULL},
	{FEAT_INVD_DISABLE, NULL},
	{FEAT_MOVRS, NULL},
	{FEAT_AVX_VNNI_INT8, NULL},
	{FEAT_AVX_NE_CONVERT, NULL},
	{FEAT_AVX_VNNI_INT16, NULL},
	{FEAT_UTMR, NULL},
	{FEAT_PREFETCHITI, NULL},
	{FEAT_USER_MSR, NULL},
	{FEAT_CET_SSS, NULL},
	{FEAT_AVX10, NULL},
	{FEAT_APX, NULL},
	{FEAT_INTEL_PSFD, NULL},
	{FEAT_IPRED_CTRL, NULL},
	{FEAT_RRSBA_CTRL, NULL},
	{FEAT_DDPD_U, NULL},
	{FEAT_BHI_CTRL, NULL},
	{FEAT_MCDT_NO, NULL},
	{FEAT_UC_LOCK_DIS, NULL},
	{FEAT_MONITOR_MITG_NO, NULL},
	{FEAT_XFD, NULL},
	{FEAT_PTWRITE, NULL},
	{FEAT_AESKLE, NULL},
	{FEAT_AESKLE_WIDE, NULL},
	{FEAT_GBPAGES, "pdpe1gb"},
	{FEAT_CONSTANT_TSC, "constant_tsc nonstop_tsc"},
	{FEAT_MCOMMIT, NULL},
	{FEAT_AMD_IBPB, "ibpb"},
	{FEAT_AMD_IBRS, "ibrs"},
	{FEAT_AMD_STIBP, "stibp"},
	{FEAT_AMD_IBRS_ALWAYS_ON, NULL},
	{FEAT_AMD_STIBP_ALWAYS_ON, NULL},
	{FEAT_AMD_IBRS_PREFERRED, NULL},
	{FEAT_AMD_IBRS_SAME_MODE, NULL},
	{FEAT_EFER_LMSLE_NO, NULL},
	{FEAT_INVLPGB_NESTED, NULL},
	{FEAT_AMD_SSBD, "ssbd"},
	{FEAT_AMD_SSB_NO, NULL},
	{FEAT_AMD_PSFD, NULL},
	{FEAT_BTC_NO, NULL},
	{FEAT_IBPB_RET, NULL},
	{FEAT_SVML, "svm_lock"},
	{FEAT_NRIPS, "nrip_save"},
	{FEAT_TSCRATEMSR, "tsc_scale"},
	{FEAT_VMCBCLEAN, "vmcb_clean"},
	{FEAT_V_SPEC_CTRL, "v_spec_ctrl"},
	{FEAT_GMET, NULL},
	{FEAT_SSSCHECK, NULL},
	{FEAT_ROGPT, NULL},
	{FEAT_IBSVIRT, NULL},
	{FEAT_EXTLVTOFFSETFAULTCHG, NULL},
	{FEAT_VMCBADDRCHKCHG, NULL},
	{FEAT_BUSLOCKTHRESH, NULL},
	{FEAT_IDLEHLT, NULL},
	{FEAT_NO_NESTED_DATA_BP, NULL},
	{FEAT_WRMSR_XX_BASE_NS, NULL},
	{FEAT_LFENCE_RDTSC, NULL},
	{FEAT_SMM_PGCFG_LOCK, NULL},
	{FEAT_NULL_SEL_CLR_BASE, NULL},
	{FEAT_UPPER_ADDR_IGN, NULL},
	{FEAT_AUTOIBRS, NULL},
	{FEAT_NO_SMM_CTL_MSR, NULL},
	{FEAT_AMD_FSRS, NULL},
	{FEAT_AMD_FSRC, NULL},
	{FEAT_PREFETCH_CTL_MSR, NULL},
	{FEAT_CPUID_USER_DIS, NULL},
	{FEAT_AMD_EPSF, NULL},
	{FEAT_ERAPS, NULL},
	{FEAT_SBPB, NULL},
	{FEAT_IBPB_BRTYPE, NULL},
	{FEAT_SRSO_NO, NULL},
	{FEAT_SRSO_USER_KERNEL_NO, NULL},
	{FEAT_SRSO_BP_SPEC_REDUCE, NULL},
	{FEAT_AMD_LBR_PMC_FREEZE, NULL},
};

/* VMX controls that Linux names: allowed settings of a capability MSR, by bit. */
static const struct {
	uint32_t msr;
	uint8_t bit;
	const char *name;
} vmx_flags[] = {
	{0x481, 32 + 5, "vnmi"},
	{0x481, 32 + 6, "preemption_timer"},
	{0x48c, 32, "invvpid"},
	{0x48c, 0, "ept_x_only"},
	{0x48c, 21, "ept_ad"},
	{0x48c, 17, "ept_1gb"},
	{0x48b, 32 + 0, "flexpriority"},
	{0x482, 32 + 3, "tsc_offset"},
	{0x482, 32 + 21, "vtpr"},
	{0x482, 32 + 27, "mtf"},
	{0x48b, 32 + 0, "vapic"},
	{0x48b, 32 + 1, "ept"},
	{0x48b, 32 + 5, "vpid"},
	{0x48b, 32 + 7, "unrestricted_guest"},
	{0x48b, 32 + 8, "vapic_reg"},
	{0x48b, 32 + 9, "vid"},
	{0x48b, 32 + 10, "ple"},
	{0x481, 32 + 7, "posted_intr"},
	{0x48b, 32 + 14, "shadow_vmcs"},
	{0x48b, 32 + 17, "pml"},
	{0x48b, 32 + 18, "ept_violation_ve"},
	{0x48b, 32 + 22, "ept_mode_based_exec"},
	{0x48b, 32 + 25, "tsc_scaling"},
	{0x48b, 32 + 26, "usr_wait_pause"},
};

/* Those that stand among the features, too. */
static const struct {
	uint32_t msr;
	uint8_t bit;
	const char *name;
} vmx_features[] = {
	{0x482, 32 + 21, "tpr_shadow"}, {0x48b, 32 + 0, "flexpriority"}, {0x48b, 32 + 1, "ept"},
	{0x48b, 32 + 5, "vpid"},	{0x481, 32 + 5, "vnmi"},	 {0x48c, 21, "ept_ad"},
};

static const char *feature_names[NR_FEATURES] = {
#define FEATURE(name, leaf, subleaf, reg, bit) #name,
#include "features.def"
#undef FEATURE
};

static void write_lower(FILE *to, const char *name)
{
	for (; *name; name++)
		putc(tolower((unsigned char)*name), to);
}

static void write_feature(FILE *to, enum feature f)
{
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (names[i].feature != f)
			continue;
		if (names[i].name)
			fprintf(to, " %s", names[i].name);
		return;
	}
	putc(' ', to);
	write_lower(to, feature_names[f]);
}

static void write_flags(FILE *to, const struct cpu_model *m)
{
	fputs("flags\t\t:", to);
	for (unsigned i = 0; i < NR_FEATURES; i++)
		if (model_program_has(m, i))
			write_feature(to, i);
	for (unsigned i = 0; i < ARRAY_SIZE(vmx_features); i++)
		if (model_program_has(m, FEAT_VMX) &&
		    model_raw_msr(m, vmx_features[i].msr) >> vmx_features[i].bit & 1)
			fprintf(to, " %s", vmx_features[i].name);
	fputs(" rep_good nopl cpuid\n", to);
	if (!model_program_has(m, FEAT_VMX))
		return;
	fputs("vmx flags\t:", to);
	for (unsigned i = 0; i < ARRAY_SIZE(vmx_flags); i++)
		if (model_raw_msr(m, vmx_flags[i].msr) >> vmx_flags[i].bit & 1)
			fprintf(to, " %s", vmx_flags[i].name);
	putc('\n', to);
}

static void read_words(struct words *w, const struct cpu_model *m)
{
	memset(w, 0, sizeof(*w));
	model_program_cpuid(m, 0, 0, w->leaf0);
	model_program_cpuid(m, 1, 0, w->leaf1);
	model_program_cpuid(m, 0x80000008, 0, w->widths);
	model_program_cpuid(m, 0x80000006, 0, w->l2);
	for (unsigned i = 0; i < 3; i++)
		model_program_cpuid(m, 0x80000002 + i, 0, (uint32_t *)(w->brand + 16 * i));
	/* Padded with blanks, before by Intel and behind by AMD. */
	for (size_t n = strlen(w->brand); n && w->brand[n - 1] == ' '; n--)
		w->brand[n - 1] = 0;
}

/* Size of the largest cache, KiB, as leaf 4 has it; AMD's processors say their L2's. */
static unsigned cache_kb(const struct cpu_model *m, const struct words *w)
{
	unsigned size = w->l2[CPUID_ECX] >> 16;
	uint32_t r[4];

	for (unsigned i = 0; model_intel(m) && i < 4; i++) {
		model_program_cpuid(m, 4, i, r);
		if (!(r[CPUID_EAX] & 0x1f))
			break;
		size = ((r[CPUID_EBX] >> 22) + 1) * ((r[CPUID_EBX] >> 12 & 0x3ff) + 1) *
		       ((r[CPUID_EBX] & 0xfff) + 1) * (r[CPUID_ECX] + 1) / 1024;
	}
	return size;
}

static unsigned family(const struct words *w)
{
	unsigned f = w->leaf1[0] >> 8 & 0xf;

	return f == 0xf ? f + (w->leaf1[0] >> 20 & 0xff) : f;
}

static unsigned model_number(const struct words *w)
{
	unsigned f = w->leaf1[0] >> 8 & 0xf, m = w->leaf1[0] >> 4 & 0xf;

	return f == 6 || f == 0xf ? m | (w->leaf1[0] >> 12 & 0xf0) : m;
}

/* The model's line for the host's, true if it has one. */
static bool write_line(FILE *to, const char *line, const struct cpu_model *m, const struct words *w)
{
	size_t len = strcspn(line, "\t:");

#define KEY(name) (len == strlen(name) && !strncmp(line, name, len))
	if (KEY("vendor_id"))
		fprintf(to, "vendor_id\t: %.4s%.4s%.4s\n", (char *)&w->leaf0[CPUID_EBX],
			(char *)&w->leaf0[CPUID_EDX], (char *)&w->leaf0[CPUID_ECX]);
	else if (KEY("cpu family"))
		fprintf(to, "cpu family\t: %u\n", family(w));
	else if (KEY("model"))
		fprintf(to, "model\t\t: %u\n", model_number(w));
	else if (KEY("model name"))
		fprintf(to, "model name\t: %s\n", w->brand + strspn(w->brand, " "));
	else if (KEY("stepping"))
		fprintf(to, "stepping\t: %u\n", w->leaf1[0] & 0xf);
	else if (KEY("microcode"))
		fprintf(to, "microcode\t: 0x%x\n",
			(unsigned)(model_raw_msr(m, 0x8b) >> (model_intel(m) ? 32 : 0)));
	else if (KEY("cache size"))
		fprintf(to, "cache size\t: %u KB\n", cache_kb(m, w));
	else if (KEY("cpuid level"))
		fprintf(to, "cpuid level\t: %u\n", w->leaf0[0]);
	else if (KEY("flags"))
		write_flags(to, m);
	else if (KEY("bugs"))
		fputs("bugs\t\t:\n", to);
	else if (KEY("address sizes"))
		fprintf(to, "address sizes\t: %u bits physical, %u bits virtual\n",
			w->widths[0] & 0xff, w->widths[0] >> 8 & 0xff);
	else
		return KEY("vmx flags") || KEY("TLB size");
#undef KEY
	return true;
}

static bool has_word(const char *line, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = strstr(line, word); at; at = strstr(at + 1, word))
		if (at > line && at[-1] == ' ' && (at[len] == ' ' || at[len] == '\n'))
			return true;
	return false;
}

/* A line of the host's, and what of virtualization it does not say. */
static void write_host_line(FILE *to, const char *line)
{
	bool flags = !strncmp(line, "flags\t", strlen("flags\t"));

	if (!flags || has_word(line, "vmx") || has_word(line, "svm"))
		fputs(line, to);
	else if (processor_intel())
		fprintf(to,
			"%.*s vmx tpr_shadow flexpriority ept vpid vnmi ept_ad\nvmx flags\t: vnmi "
			"invvpid ept_ad "
			"flexpriority tsc_offset vtpr mtf vapic ept vpid unrestricted_guest\n",
			(int)strcspn(line, "\n"), line);
	else
		fprintf(to, "%.*s svm npt nrip_save\n", (int)strcspn(line, "\n"), line);
}

static void write_model_line(FILE *to, const char *line, const struct cpu_model *m,
			     const struct words *w)
{
	if (!write_line(to, line, m, w))
		fputs(line, to);
}

void cpuinfo_write(int fd, const struct cpu_model *model)
{
	FILE *from = door_next()->fopen("/proc/cpuinfo", "re"), *to;
	struct words w;
	char *line = NULL;
	size_t size = 0;
	int copy = dup(fd);

	to = copy >= 0 ? fdopen(copy, "w") : NULL;
	if (from && to) {
		if (model)
			read_words(&w, model);
		while (getline(&line, &size, from) > 0) {
			if (model)
				write_model_line(to, line, model, &w);
			else
				write_host_line(to, line);
		}
	}
	free(line);
	if (from)
		fclose(from);
	if (to)
		fclose(to);
	else if (copy >= 0)
		close(copy);
}
