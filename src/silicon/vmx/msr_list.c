/* SPDX-License-Identifier: MIT */
/*
 * MSR lists of entries and exits (SDM, loading MSRs; saving MSRs): 16 bytes per MSR, its index, 0, its value. They are
 * read and written as RDMSR and WRMSR of the hypervisor would, but for those that the SDM takes out.
 */
#include "silicon/vmx/vmx_internal.h"

struct msr_entry {
	uint32_t index, reserved;
	uint64_t value;
};

#define MSR_SMBASE	    0x9e
#define MSR_SMM_MONITOR_CTL 0x9b
#define MSR_UCODE_WRITE	    0x79
#define MSR_UCODE_REV	    0x8b
#define MSR_FS_BASE	    0xc0000100
#define MSR_GS_BASE	    0xc0000101

/* IA32_VMX_MISC tells how many are advised: beyond 512 times that, processors may give up. */
static uint32_t most(const struct vmx *v)
{
	return 512 * ((v->caps.msr[VMX_MISC] >> 25 & 7) + 1);
}

static bool readable(const struct msr_entry *e)
{
	return !e->reserved && e->index >> 8 != 8 && e->index != MSR_SMBASE;
}

static bool loadable(const struct msr_entry *e)
{
	return readable(e) && e->index != MSR_SMM_MONITOR_CTL && e->index != MSR_UCODE_WRITE &&
	       e->index != MSR_UCODE_REV && e->index != MSR_FS_BASE && e->index != MSR_GS_BASE;
}

static bool read_entry(struct cpu *cpu, gpa_t list, uint32_t i, struct msr_entry *ret)
{
	return mmu_read_phys_bytes(cpu, list + i * sizeof(*ret), ret, sizeof(*ret)) == RESULT_OK;
}

unsigned msr_list_load(struct cpu *cpu, gpa_t list, uint32_t count)
{
	struct msr_entry e;

	for (uint32_t i = 0; i < count; i++) {
		if (i >= most(vmx_of(cpu)) || !read_entry(cpu, list, i, &e) || !loadable(&e))
			return i + 1;
		if (sys_msr_set(cpu, e.index, MSR_GUEST, e.value) != MSR_OK)
			return i + 1;
	}
	return 0;
}

unsigned msr_list_store(struct cpu *cpu, gpa_t list, uint32_t count)
{
	struct msr_entry e;

	for (uint32_t i = 0; i < count; i++) {
		gpa_t value = list + i * sizeof(e) + offsetof(struct msr_entry, value);

		if (i >= most(vmx_of(cpu)) || !read_entry(cpu, list, i, &e) || !readable(&e))
			return i + 1;
		if (sys_msr_get(cpu, e.index, MSR_GUEST, &e.value) != MSR_OK)
			return i + 1;
		if (mmu_write_phys_bytes(cpu, value, &e.value, sizeof(e.value)))
			return i + 1;
	}
	return 0;
}
