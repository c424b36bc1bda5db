/* SPDX-License-Identifier: MIT */
/*
 * Capability MSRs (SDM, VMX capability reporting facility).
 *
 * What this room carries out stands in one table of controls. A model whose dump has the MSRs takes the intersection; the
 * owner's options take more away; what hangs on something that is gone goes with it. So no bit is announced
 * that does nothing, and none that the silicon lacks.
 */
#include "silicon/vmx/vmx_internal.h"

#define PIN_BUILT (PIN_EXT_INT | PIN_NMI | PIN_VIRTUAL_NMI | PIN_PREEMPTION_TIMER | PIN_POSTED)
#define CPU_BUILT                                                                           \
	(CPU_INTR_WINDOW | CPU_TSC_OFFSET | CPU_HLT | CPU_INVLPG | CPU_MWAIT | CPU_RDPMC |  \
	 CPU_RDTSC | CPU_CR3_LOAD | CPU_CR3_STORE | CPU_CR8_LOAD | CPU_CR8_STORE |          \
	 CPU_TPR_SHADOW | CPU_NMI_WINDOW | CPU_MOV_DR | CPU_IO | CPU_IO_BITMAPS | CPU_MTF | \
	 CPU_MSR_BITMAPS | CPU_MONITOR | CPU_PAUSE | CPU_SECONDARY)
#define CPU2_BUILT                                                                              \
	(CPU2_APIC_ACCESS | CPU2_EPT | CPU2_DT | CPU2_RDTSCP | CPU2_X2APIC | CPU2_VPID |        \
	 CPU2_WBINVD | CPU2_UNRESTRICTED | CPU2_APIC_REGS | CPU2_VID | CPU2_PLE | CPU2_RDRAND | \
	 CPU2_INVPCID | CPU2_VMFUNC | CPU2_SHADOW | CPU2_RDSEED | CPU2_PML | CPU2_XSAVES |      \
	 CPU2_MBEC | CPU2_TSC_SCALING)
#define EXIT_BUILT                                                                       \
	(EXIT_SAVE_DEBUG | EXIT_HOST_64 | EXIT_ACK_INT | EXIT_SAVE_PAT | EXIT_LOAD_PAT | \
	 EXIT_SAVE_EFER | EXIT_LOAD_EFER | EXIT_SAVE_TIMER)
#define ENTRY_BUILT (ENTRY_LOAD_DEBUG | ENTRY_GUEST_64 | ENTRY_PAT | ENTRY_EFER)
#define TIMER_RATE  5

#define EPT_BUILT                                                                               \
	(EPT_EXEC_ONLY | EPT_WALK_4 | EPT_UC | EPT_WB | EPT_2M | EPT_1G | EPT_INVEPT | EPT_AD | \
	 EPT_INVEPT_SINGLE | EPT_INVEPT_ALL)
#define VPID_BUILT                                                                   \
	(VPID_INVVPID | VPID_INVVPID_ADDR | VPID_INVVPID_SINGLE | VPID_INVVPID_ALL | \
	 VPID_INVVPID_GLOBALS)
#define MISC_BUILT                                                                \
	(MISC_LMA | MISC_HLT | MISC_SHUTDOWN | MISC_WAIT_SIPI | MISC_WRITE_EXIT | \
	 MISC_ZERO_LEN_INJECT)

/* An MSR of the dump, or all ones if the dump is without. */
static uint64_t dump(const struct cpu_model *m, enum vmx_msr msr)
{
	uint64_t val = m && model_intel(m) ? model_raw_msr(m, MSR_VMX_FIRST + msr) : 0;

	return val ? val : ~0ull;
}

static uint64_t control(uint32_t default1, uint64_t allowed, uint64_t dumped)
{
	return default1 | ((allowed & (dumped >> 32)) | default1) << 32;
}

/* Bits of the secondary controls without which the processor's own instruction is absent. */
static uint64_t without_features(const struct cpu_model *m)
{
	uint64_t off = 0;

	if (!m)
		return 0;
	off |= feature_has(m->features, FEAT_RDTSCP) ? 0 : CPU2_RDTSCP;
	off |= feature_has(m->features, FEAT_INVPCID) ? 0 : CPU2_INVPCID;
	off |= feature_has(m->features, FEAT_RDRAND) ? 0 : CPU2_RDRAND;
	off |= feature_has(m->features, FEAT_RDSEED) ? 0 : CPU2_RDSEED;
	off |= feature_has(m->features, FEAT_XSAVES) ? 0 : CPU2_XSAVES;
	return off;
}

static uint64_t secondary(const struct cpu_model *m, const struct vmx_options *opt)
{
	uint64_t on = CPU2_BUILT & ~without_features(m);

	if (!opt->ept)
		on &= ~(CPU2_EPT | CPU2_UNRESTRICTED | CPU2_PML | CPU2_VMFUNC | CPU2_MBEC);
	if (!opt->unrestricted)
		on &= ~CPU2_UNRESTRICTED;
	if (!opt->ept_ad || !opt->pml)
		on &= ~CPU2_PML;
	if (!opt->vpid)
		on &= ~CPU2_VPID;
	if (!opt->flexpriority)
		on &= ~CPU2_APIC_ACCESS;
	if (!opt->apicv)
		on &= ~(CPU2_APIC_REGS | CPU2_VID | CPU2_X2APIC);
	if (!opt->shadow)
		on &= ~CPU2_SHADOW;
	return on;
}

static uint64_t ept_vpid(const struct vmx_options *opt, uint64_t cpu2)
{
	uint64_t val = 0;

	if (cpu2 >> 32 & CPU2_EPT)
		val |= EPT_BUILT;
	if (!opt->ept_ad)
		val &= ~EPT_AD;
	if (cpu2 >> 32 & CPU2_VPID)
		val |= VPID_BUILT;
	return val;
}

/* The highest index of a field that exists (SDM, VMCS enumeration). */
static uint64_t vmcs_enum(const struct vmx_caps *caps)
{
	uint64_t top = 0;

	for (unsigned f = 0; f < NR_VMCS_FIELDS; f++)
		if (vmcs_exists(caps, f))
			top = max(top, (uint64_t)(vmcs_encoding(f) & 0x3fe));
	return top;
}

static void set_controls(const struct cpu_model *m, const struct vmx_options *opt,
			 struct vmx_caps *c)
{
	uint64_t pins = PIN_BUILT, off = opt->apicv ? 0 : PIN_POSTED;

	if (!opt->preemption_timer)
		off |= PIN_PREEMPTION_TIMER;
	pins &= ~off;
	c->msr[VMX_TRUE_PIN] = control(PIN_DEFAULT1, pins, dump(m, VMX_PIN));
	c->msr[VMX_TRUE_CPU] = control(CPU_TRUE1, CPU_BUILT | CPU_DEFAULT1, dump(m, VMX_CPU));
	c->msr[VMX_CPU2] = control(0, secondary(m, opt), dump(m, VMX_CPU2));
	c->msr[VMX_TRUE_EXIT] = control(EXIT_TRUE1, EXIT_BUILT | EXIT_DEFAULT1, dump(m, VMX_EXIT));
	c->msr[VMX_TRUE_ENTRY] =
		control(ENTRY_TRUE1, ENTRY_BUILT | ENTRY_DEFAULT1, dump(m, VMX_ENTRY));
	if (!(c->msr[VMX_TRUE_PIN] >> 32 & PIN_PREEMPTION_TIMER))
		c->msr[VMX_TRUE_EXIT] &= ~(EXIT_SAVE_TIMER << 32);
}

static void set_rest(const struct cpu_model *m, const struct vmx_options *opt, struct vmx_caps *c)
{
	uint64_t misc = dump(m, VMX_MISC);

	c->msr[VMX_BASIC] = VMX_REVISION | BASIC_SIZE | BASIC_WB | BASIC_INOUT | BASIC_TRUE;
	c->msr[VMX_MISC] = (misc & MISC_BUILT) | TIMER_RATE | MISC_CR3_TARGETS;
	c->msr[VMX_CR0_FIXED0] = CR0_PG | CR0_NE | CR0_PE;
	c->msr[VMX_CR0_FIXED1] = 0xffffffff;
	c->msr[VMX_CR4_FIXED0] = CR4_VMXE;
	c->msr[VMX_CR4_FIXED1] = ~0ull;
	c->msr[VMX_EPT_VPID] = ept_vpid(opt, c->msr[VMX_CPU2]) & dump(m, VMX_EPT_VPID);
	c->msr[VMX_VMFUNC] = c->msr[VMX_CPU2] >> 32 & CPU2_VMFUNC ? FUNC_EPTP_SWITCHING : 0;
	c->msr[VMX_VMCS_ENUM] = vmcs_enum(c);
}

void vmx_caps_default(const struct cpu_model *model, const struct vmx_options *opt,
		      struct vmx_caps *ret)
{
	memset(ret, 0, sizeof(*ret));
	set_controls(model, opt, ret);
	set_rest(model, opt, ret);
}
