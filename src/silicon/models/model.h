/* SPDX-License-Identifier: MIT */
/*
 * CPU models as data: what the modelled silicon's CPUID and feature MSRs say, and the vendor's
 * behaviour as named predicates. Immutable after start; any thread.
 */
#ifndef SILICON_MODELS_MODEL_H
#define SILICON_MODELS_MODEL_H

#include "silicon/models/features.h"

enum vendor { VENDOR_INTEL, VENDOR_AMD };

struct cpuid_row {
	uint32_t leaf, subleaf;
	uint32_t reg[4]; /* eax, ebx, ecx, edx */
};

/* An MSR as the silicon's dump has it. */
struct model_msr {
	uint32_t index;
	uint64_t value;
};

struct cpu_model {
	const char *name;
	const char *title;
	enum vendor vendor;
	const struct cpuid_row *cpuid;
	unsigned nr_cpuid;
	const struct cpuid_row *raw; /* the silicon's own dump; NULL: the model is near the host */
	unsigned nr_raw;
	const struct model_msr *raw_msrs; /* ends with index 0; NULL with raw */
	uint64_t features[FEATURE_WORDS]; /* lendable by this host or emulated: legality */
	uint64_t arch_capabilities;
	uint64_t xcr0; /* components that guests may enable */
	uint8_t maxphyaddr;
};

/* Named predicates (decisions.md 4): ask these, never the vendor, never the host. */
static inline bool model_intel(const struct cpu_model *m)
{
	return m->vendor == VENDOR_INTEL;
}

/* SYSCALL in compatibility and legacy mode; SYSENTER in long mode #UD. */
static inline bool model_syscall_legacy(const struct cpu_model *m)
{
	return m->vendor == VENDOR_AMD;
}

static inline bool model_sysenter_long(const struct cpu_model *m)
{
	return m->vendor == VENDOR_INTEL;
}

/* 66h before near branches in 64-bit mode is ignored (Intel) or means 16 bits (AMD). */
static inline bool model_branch_66_ignored(const struct cpu_model *m)
{
	return m->vendor == VENDOR_INTEL;
}

/* Loading a null selector clears FS and GS base. */
static inline bool model_null_clears_base(const struct cpu_model *m)
{
	return m->vendor == VENDOR_INTEL;
}

/* An error code's EXT bit stands for any event but software interrupts (Intel), or for external ones alone (AMD). */
static inline bool model_ext_by_exceptions(const struct cpu_model *m)
{
	return m->vendor == VENDOR_INTEL;
}

/* LOCK MOV CR0 is MOV CR8. */
static inline bool model_lock_mov_cr8(const struct cpu_model *m)
{
	return m->vendor == VENDOR_AMD;
}

/* SYSRET with a non-canonical RCX: #GP at CPL 0 (Intel) or after the switch (AMD). */
static inline bool model_sysret_checks_rip(const struct cpu_model *m)
{
	return m->vendor == VENDOR_INTEL;
}

/* Far jump and call through memory honour REX.W (Intel). */
static inline bool model_far_rex_w(const struct cpu_model *m)
{
	return m->vendor == VENDOR_INTEL;
}

/* FXSAVE and XSAVE write FIP, FDP and FOP only while FSW.ES is set (AMD). */
static inline bool model_fpu_pointers_on_es(const struct cpu_model *m)
{
	return m->vendor == VENDOR_AMD;
}

/*
 * Find a model by name; NULL name: the default, near the host. NULL if unknown, or *ret_why says in one
 * line why this host cannot lend it. Builds on first use from host CPUID; call once at start.
 */
const struct cpu_model *model_find(const char *name, const char **ret_why);
/* The nr-th model, or NULL past the end; those that this host cannot lend are left out. */
const struct cpu_model *model_nth(unsigned nr);
/* Row of the model's silicon, or NULL. */
const struct cpuid_row *model_cpuid(const struct cpu_model *m, uint32_t leaf, uint32_t subleaf);

/*
 * What a CPUID instruction of the program itself answers on this model: the silicon's own words, but no
 * user-level feature and no XSAVE layout that the host lacks (for the C library and the program run on the host), and
 * the host's topology. Any thread, async-signal-safe. False: the model is near the host, whose CPUID it is.
 */
bool model_program_cpuid(const struct cpu_model *m, uint32_t leaf, uint32_t subleaf,
			 uint32_t ret[4]);
/* An MSR of the silicon's dump, 0 if it has none such. */
uint64_t model_raw_msr(const struct cpu_model *m, uint32_t index);
/* True if the program sees the feature so. */
bool model_program_has(const struct cpu_model *m, enum feature feature);

#endif
