/* SPDX-License-Identifier: MIT */
/*
 * MSR accesses by instruction and by the program, and the lists that KVM gives of them.
 *
 * A row (tables/msrs.def) is found by binary search. What no row knows goes to the platform. RDMSR and WRMSR
 * ask platform->msr_gate first (filters), and offer a refusal to platform->msr_refused before #GP.
 */
#include "silicon/sys/msr_internal.h"

#define MSR_TSC			0x10
#define UCODE_INTEL		0x100000000ull
#define UCODE_AMD		0x01000065ull
#define DE_CFG_LFENCE_SERIALIZE BIT(1)

static const struct msr_row *find_row(uint32_t index)
{
	unsigned lo = 0, hi = msr_nr_rows;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		const struct msr_row *row = &msr_rows[mid];

		if (index - row->number < row->count)
			return row;
		if (index < row->number)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

static bool row_exists(const struct cpu_model *model, const struct msr_row *row)
{
	if (row->gate == FEAT_VMX && !feature_has(model->features, FEAT_VMX))
		return false;
	if (row->flags & MSR_FLAG_INTEL)
		return model_intel(model);
	return !(row->flags & MSR_FLAG_AMD) || !model_intel(model);
}

static const struct msr_row *row_of(const struct cpu *cpu, uint32_t index)
{
	const struct msr_row *row = find_row(index);

	return row && row_exists(cpu->model, row) ? row : NULL;
}

static bool gate_open(const struct cpu *cpu, const struct msr_row *row, enum msr_origin by)
{
	return by == MSR_HOST || row->gate == MSR_ALWAYS ||
	       feature_has(cpu->guest_features, row->gate);
}

static enum msr_result by_platform(enum platform_answer answer)
{
	if (answer == PLATFORM_DONE)
		return MSR_OK;
	return answer == PLATFORM_USER ? MSR_UNKNOWN : MSR_DENIED;
}

/* The platform is who brings the program's questions, and had its say. */
enum msr_result msr_platform_get(struct cpu *cpu, uint32_t index, enum msr_origin by, uint64_t *ret)
{
	if (by == MSR_HOST)
		return MSR_UNKNOWN;
	return by_platform(platform_call(cpu, msr_read, index, ret));
}

enum msr_result msr_platform_set(struct cpu *cpu, uint32_t index, enum msr_origin by, uint64_t val)
{
	if (by == MSR_HOST)
		return MSR_UNKNOWN;
	return by_platform(platform_call(cpu, msr_write, index, val));
}

static bool listed(const struct cpu_model *model, const struct msr_row *row)
{
	return (row->flags & MSR_FLAG_LISTED) ||
	       ((row->flags & MSR_FLAG_AMD_SAVE) && !model_intel(model));
}

/* KVM reads as 0, and lets 0 be written to, what its list names and this guest does not have. */
static bool listed_zero(const struct cpu *cpu, const struct msr_row *row, enum msr_origin by,
			enum msr_result r)
{
	return by == MSR_HOST && r == MSR_UNKNOWN && listed(cpu->model, row);
}

enum msr_result sys_msr_get(struct cpu *cpu, uint32_t index, enum msr_origin by, uint64_t *ret)
{
	const struct msr_row *row = row_of(cpu, index);
	enum msr_result r;

	if (!row)
		return msr_platform_get(cpu, index, by, ret);
	if (!gate_open(cpu, row, by))
		return MSR_DENIED;
	r = row->get(cpu, row, index, by, ret);
	if (!listed_zero(cpu, row, by, r))
		return r;
	*ret = 0;
	return MSR_OK;
}

enum msr_result sys_msr_set(struct cpu *cpu, uint32_t index, enum msr_origin by, uint64_t val)
{
	const struct msr_row *row = row_of(cpu, index);
	enum msr_result r;

	if (!row)
		return msr_platform_set(cpu, index, by, val);
	if (!gate_open(cpu, row, by) || (val & row->reserved))
		return MSR_DENIED;
	r = row->set(cpu, row, index, by, val);
	return !val && listed_zero(cpu, row, by, r) ? MSR_OK : r;
}

/* ---- RDMSR and WRMSR ---- */

static enum result msr_exit(struct cpu *cpu, enum cpu_exit_kind kind, uint32_t index, uint64_t val)
{
	cpu->exit = (struct cpu_exit){
		.kind = kind,
		.addr = index,
		.size = 8,
		.data = val,
	};
	return RESULT_EXIT;
}

static enum result refused(struct cpu *cpu, uint32_t index, bool write, uint64_t val,
			   enum msr_result why)
{
	enum platform_answer answer = PLATFORM_FAULT;

	if (cpu->platform->msr_refused)
		answer = platform_call(cpu, msr_refused, index, write, why == MSR_UNKNOWN);
	if (answer == PLATFORM_USER)
		return msr_exit(cpu, write ? CPU_EXIT_MSR_WRITE : CPU_EXIT_MSR_READ, index, val);
	return answer == PLATFORM_DONE ? RESULT_OK : fault_gp(cpu, 0);
}

enum result sys_rdmsr(struct cpu *cpu, uint32_t index, uint64_t *ret)
{
	const struct answer *a = answers_take(cpu, ANSWER_MSR_READ, index, 8);
	enum platform_answer gate;
	enum msr_result r;

	if (a) {
		*ret = a->data;
		return a->error ? fault_gp(cpu, 0) : RESULT_OK;
	}
	gate = platform_call(cpu, msr_gate, index, false);
	if (gate == PLATFORM_USER)
		return msr_exit(cpu, CPU_EXIT_MSR_READ, index, 0);
	if (gate == PLATFORM_FAULT)
		return fault_gp(cpu, 0);
	*ret = 0;
	r = sys_msr_get(cpu, index, MSR_GUEST, ret);
	if (r == MSR_OK && index == MSR_TSC && cpu_guest(cpu))
		*ret = cpu->virt->ops->tsc(cpu, *ret);
	return r == MSR_OK ? RESULT_OK : refused(cpu, index, false, 0, r);
}

enum result sys_wrmsr(struct cpu *cpu, uint32_t index, uint64_t val)
{
	const struct answer *a = answers_take(cpu, ANSWER_MSR_WRITE, index, 8);
	enum platform_answer gate;
	enum msr_result r;

	if (a)
		return a->error ? fault_gp(cpu, 0) : RESULT_OK;
	gate = platform_call(cpu, msr_gate, index, true);
	if (gate == PLATFORM_USER)
		return msr_exit(cpu, CPU_EXIT_MSR_WRITE, index, val);
	if (gate == PLATFORM_FAULT)
		return fault_gp(cpu, 0);
	r = sys_msr_set(cpu, index, MSR_GUEST, val);
	return r == MSR_OK ? RESULT_OK : refused(cpu, index, true, val, r);
}

/* ---- reset ---- */

void sys_msr_reset(struct cpu *cpu)
{
	for (unsigned i = 0; i < msr_nr_rows; i++)
		if (msr_rows[i].reset)
			*msr_home(cpu, &msr_rows[i], msr_rows[i].number) = msr_rows[i].reset;
	sys_msr_feature(cpu->model, 0x8b, &cpu->msr.ucode_rev);
	sys_msr_feature(cpu->model, 0x10a, &cpu->msr.arch_capabilities);
	sys_mce_setup(cpu, 32);
}

void sys_mce_setup(struct cpu *cpu, uint64_t cap)
{
	unsigned banks = min(cap & 0xff, (uint64_t)32);

	cpu->msr.mcg_cap = cap;
	if (cap & BIT(8))
		cpu->msr.mcg_ctl = ~0ull;
	for (unsigned i = 0; i < banks; i++) {
		cpu->msr.mce_banks[i * 4] = ~0ull;
		cpu->msr.mci_ctl2[i] = 0;
	}
}

/* ---- lists ---- */

bool sys_msr_feature(const struct cpu_model *model, uint32_t index, uint64_t *ret)
{
	const struct msr_row *row = find_row(index);

	if (!row || !(row->flags & MSR_FLAG_FEATURE) || !row_exists(model, row))
		return false;
	*ret = 0;
	switch (index) {
	case 0x8b:
		*ret = model_intel(model) ? UCODE_INTEL : UCODE_AMD;
		break;
	case 0x10a:
		*ret = model->arch_capabilities;
		break;
	case 0xc0011029:
		*ret = feature_has(model->features, FEAT_LFENCE_RDTSC) ? DE_CFG_LFENCE_SERIALIZE
								       : 0;
		break;
	}
	return true;
}

static bool row_named(const struct cpu_model *model, const struct msr_row *row,
		      enum msr_list_kind kind)
{
	bool feature = kind == MSR_LIST_FEATURE;

	/* There for the program in any case, but not named without the feature. */
	if (row->gate == FEAT_XFD && !feature_has(model->features, FEAT_XFD))
		return false;
	return (feature ? row->flags & MSR_FLAG_FEATURE : listed(model, row)) &&
	       row_exists(model, row);
}

unsigned sys_msr_list(const struct cpu_model *model, enum msr_list_kind kind, uint32_t *buf,
		      unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < msr_nr_rows; i++) {
		const struct msr_row *row = &msr_rows[i];

		if (!row_named(model, row, kind))
			continue;
		for (uint32_t k = 0; k < row->count; k++, n++)
			if (n < max)
				buf[n] = row->number + k;
	}
	return n;
}
