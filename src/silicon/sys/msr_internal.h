/* SPDX-License-Identifier: MIT */
/* Private to sys/: MSR rows (msr.c) and their handlers (msr_rows.c). */
#ifndef SILICON_SYS_MSR_INTERNAL_H
#define SILICON_SYS_MSR_INTERNAL_H

#include "silicon/sys/sys_internal.h"

#define MSR_ALWAYS (-1)

/* Flags of rows; the names stand in tables/msrs.def without the prefix. */
#define MSR_FLAG_SAVE	  BIT(0)
#define MSR_FLAG_EMULATED BIT(1)
#define MSR_FLAG_FEATURE  BIT(2)
#define MSR_FLAG_INTEL	  BIT(3)
#define MSR_FLAG_AMD	  BIT(4)
#define MSR_FLAG_PLATFORM BIT(5)
#define MSR_FLAG_AMD_SAVE BIT(6) /* SAVE, but with Intel's models */
#define MSR_FLAG_LISTED	  (MSR_FLAG_SAVE | MSR_FLAG_EMULATED)

/* Homes in msrs.extra. */
enum { EXTRA_POWER_CTL, EXTRA_OSVW_LENGTH, EXTRA_OSVW_STATUS, EXTRA_DE_CFG, EXTRA_MCG_EXT_CTL };

struct msr_row {
	uint32_t number, count;
	int16_t gate; /* enum feature or MSR_ALWAYS */
	uint16_t flags;
	uint16_t home; /* index of the first 64-bit word in struct msrs */
	uint64_t reset, reserved;
	enum msr_result (*get)(struct cpu *cpu, const struct msr_row *row, uint32_t index,
			       enum msr_origin by, uint64_t *ret);
	enum msr_result (*set)(struct cpu *cpu, const struct msr_row *row, uint32_t index,
			       enum msr_origin by, uint64_t val);
};

extern const struct msr_row msr_rows[];
extern const unsigned msr_nr_rows;

/* What the platform answers to the guest; to MSR_HOST, MSR_UNKNOWN without asking it. */
enum msr_result msr_platform_get(struct cpu *cpu, uint32_t index, enum msr_origin by,
				 uint64_t *ret);
enum msr_result msr_platform_set(struct cpu *cpu, uint32_t index, enum msr_origin by, uint64_t val);

static inline uint64_t *msr_home(struct cpu *cpu, const struct msr_row *row, uint32_t index)
{
	return (uint64_t *)&cpu->msr + row->home + (index - row->number);
}

#endif
