/* SPDX-License-Identifier: MIT */
/*
 * Checks of VM entry: the rows of tables/vmentry.def, and the words that their conditions are made of.
 *
 * Each row becomes a function; a stage calls its rows in order until one does not hold. Nothing is changed by
 * a check. Where memory is read (VTPR, link pointer, PDPTEs), memory that is not there does not hold.
 */
#include "silicon/vmx/vmx_internal.h"

#include "host/host.h"

#define GUEST_64       on_entry(v, ENTRY_GUEST_64)
#define UNRESTRICTED   ctl2(v, CPU2_UNRESTRICTED)
#define V86	       (get(v, VMCS_RFLAGS) & FLAG_VM)
#define DEBUGCTL_KNOWN 3ull /* LBR, BTF */
#define DEBUGCTL_BTF   BIT(1)

/* ---- controls ---- */

static bool allowed(const struct vmx *v, enum vmx_msr msr, enum vmcs_field f)
{
	uint32_t val = get(v, f);

	return !(cap_low(v, msr) & ~val) && !(val & ~cap_high(v, msr));
}

static bool page_ok(const struct cpu *cpu, enum vmcs_field f)
{
	return gpa_ok(cpu, get(vmx_of(cpu), f), PAGE_SIZE);
}

static bool eptp_switching(const struct vmx *v)
{
	return ctl2(v, CPU2_VMFUNC) && (get(v, VMCS_VMFUNC_CTLS) & FUNC_EPTP_SWITCHING);
}

/* TPR threshold against VTPR. Memory that is none has no TPR to compare with. */
static bool threshold_ok(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	uint8_t tpr;

	if (mmu_read_phys_bytes(cpu, get(v, VMCS_VAPIC_ADDR) + 0x80, &tpr, 1))
		return true;
	return (get(v, VMCS_TPR_THRESHOLD) & 0xf) <= tpr >> 4;
}

static bool list_ok(const struct cpu *cpu, enum vmcs_field addr, enum vmcs_field count)
{
	const struct vmx *v = vmx_of(cpu);
	uint64_t n = get(v, count), first = get(v, addr);

	if (!n)
		return true;
	return gpa_ok(cpu, first, 16) && !((first + 16 * n - 1) >> cpu->maxphyaddr);
}

/* ---- the event that entry injects ---- */

static bool injects(const struct vmx *v)
{
	return get(v, VMCS_ENTRY_INTR_INFO) & INTR_VALID;
}

static unsigned inject_type(const struct vmx *v)
{
	return get(v, VMCS_ENTRY_INTR_INFO) >> INTR_TYPE_SHIFT & 7;
}

static bool injects_type(const struct vmx *v, enum vmx_intr_type type)
{
	return injects(v) && inject_type(v) == type;
}

static uint8_t inject_vector(const struct vmx *v)
{
	return get(v, VMCS_ENTRY_INTR_INFO);
}

static bool mtf_exists(const struct vmx *v)
{
	return cap_high(v, VMX_TRUE_CPU) & CPU_MTF;
}

static bool inject_vector_ok(const struct vmx *v)
{
	switch (inject_type(v)) {
	case INTR_NMI:
		return inject_vector(v) == VEC_NMI;
	case INTR_EXCEPTION:
		return inject_vector(v) <= 31;
	case INTR_OTHER:
		return inject_vector(v) == 0;
	}
	return true;
}

#define ERROR_VECTORS                                                                        \
	(BIT(VEC_DF) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) | BIT(VEC_PF) | \
	 BIT(VEC_AC))

/* Delivery of an error code goes with the exceptions that have one, in protected mode. */
static bool inject_error_ok(const struct vmx *v)
{
	bool has = get(v, VMCS_ENTRY_INTR_INFO) & INTR_ERROR;
	bool protected = !UNRESTRICTED || (get(v, VMCS_CR0) & CR0_PE);
	bool exception = inject_type(v) == INTR_EXCEPTION;
	bool wants = exception && inject_vector(v) < 32 && (ERROR_VECTORS >> inject_vector(v) & 1);

	if (v->caps.msr[VMX_BASIC] & BASIC_NO_EC)
		return !has || (protected && exception);
	return has == (protected && wants);
}

static bool inject_length_ok(const struct vmx *v)
{
	uint64_t len = get(v, VMCS_ENTRY_INSN_LEN);
	unsigned type = inject_type(v);

	if (type < INTR_SOFT_INT || type > INTR_SOFT_EXC)
		return true;
	return len <= 15 && (len || (v->caps.msr[VMX_MISC] & MISC_ZERO_LEN_INJECT));
}

/* ---- registers of host and guest ---- */

static bool cr0_ok(const struct cpu *cpu, uint64_t val, uint64_t free)
{
	const struct vmx_caps *c = &vmx_of(cpu)->caps;
	uint64_t one = vmx_caps_read(cpu, c, VMX_CR0_FIXED0) & ~free;

	return (val & one) == one && !(val & ~vmx_caps_read(cpu, c, VMX_CR0_FIXED1));
}

static bool cr4_ok(const struct cpu *cpu, uint64_t val)
{
	const struct vmx_caps *c = &vmx_of(cpu)->caps;
	uint64_t one = vmx_caps_read(cpu, c, VMX_CR4_FIXED0);

	return (val & one) == one && !(val & ~vmx_caps_read(cpu, c, VMX_CR4_FIXED1));
}

static bool cr3_ok(const struct cpu *cpu, uint64_t val)
{
	return !(val >> cpu->maxphyaddr);
}

static bool canonical(const struct cpu *cpu, enum vmcs_field f)
{
	return gva_canonical(cpu, get(vmx_of(cpu), f));
}

static bool pat_ok(uint64_t pat)
{
	for (unsigned i = 0; i < 8; i++, pat >>= 8)
		if (!(0xf3ull >> min(pat & 0xff, 63ull) & 1))
			return false;
	return true;
}

static bool efer_ok(const struct cpu *cpu, uint64_t val)
{
	uint64_t known = EFER_SCE | EFER_LME | EFER_LMA;

	if (feature_has(cpu->guest_features, FEAT_NX))
		known |= EFER_NX;
	return !(val & ~known);
}

static bool host_efer_mode_ok(const struct vmx *v)
{
	uint64_t both = EFER_LMA | EFER_LME, val = get(v, VMCS_HOST_EFER) & both;

	return val == (on_exit(v, EXIT_HOST_64) ? both : 0);
}

static bool guest_efer_mode_ok(const struct vmx *v)
{
	uint64_t efer = get(v, VMCS_EFER);
	bool lma = efer & EFER_LMA, lme = efer & EFER_LME;

	return lma == GUEST_64 && (!(get(v, VMCS_CR0) & CR0_PG) || lma == lme);
}

static bool host_selectors_ok(const struct vmx *v)
{
	for (unsigned f = VMCS_HOST_ES_SEL; f <= VMCS_HOST_TR_SEL; f++)
		if (get(v, f) & 7)
			return false;
	return true;
}

/* ---- segments of the guest; fields stand in the order of enum seg_id ---- */

static uint32_t ar(const struct vmx *v, unsigned seg)
{
	return get(v, VMCS_ES_AR + seg);
}

static bool usable(const struct vmx *v, unsigned seg)
{
	return !(ar(v, seg) & SEG_UNUSABLE);
}

/* CS has no such state: its attributes are checked always. */
static bool judged(const struct vmx *v, unsigned seg)
{
	return seg == SEG_CS || usable(v, seg);
}

static bool each(const struct vmx *v, bool (*ok)(const struct vmx *, unsigned), unsigned first,
		 unsigned last)
{
	for (unsigned seg = first; seg <= last; seg++)
		if (!ok(v, seg))
			return false;
	return true;
}

static bool v86_base_ok(const struct vmx *v, unsigned seg)
{
	return get(v, VMCS_ES_BASE + seg) == get(v, VMCS_ES_SEL + seg) << 4;
}

static bool v86_limit_ok(const struct vmx *v, unsigned seg)
{
	return get(v, VMCS_ES_LIMIT + seg) == 0xffff;
}

static bool v86_ar_ok(const struct vmx *v, unsigned seg)
{
	return ar(v, seg) == 0xf3;
}

static bool low_base_ok(const struct vmx *v, unsigned seg)
{
	return !usable(v, seg) || !(get(v, VMCS_ES_BASE + seg) >> 32);
}

static bool cs_type_ok(const struct vmx *v)
{
	unsigned type = SEG_TYPE(ar(v, SEG_CS));

	return (type & 9) == 9 || (type == 3 && UNRESTRICTED);
}

static bool data_type_ok(const struct vmx *v, unsigned seg)
{
	uint32_t val = ar(v, seg);

	if (seg == SEG_CS || seg == SEG_SS || !usable(v, seg))
		return true;
	return (val & SEG_A) && (!(val & SEG_CODE) || (val & SEG_W));
}

static bool s_ok(const struct vmx *v, unsigned seg)
{
	return !judged(v, seg) || (ar(v, seg) & SEG_S);
}

static bool p_ok(const struct vmx *v, unsigned seg)
{
	return !judged(v, seg) || (ar(v, seg) & SEG_P);
}

static bool ar_reserved_ok(const struct vmx *v, unsigned seg)
{
	return !judged(v, seg) || !(ar(v, seg) & 0xfffe0f00);
}

static bool granularity_ok(const struct vmx *v, unsigned seg)
{
	uint32_t limit = get(v, VMCS_ES_LIMIT + seg);
	bool g = ar(v, seg) & SEG_G;

	if (!judged(v, seg))
		return true;
	return !(g && (limit & 0xfff) != 0xfff) && (g || !(limit >> 20));
}

static bool cs_dpl_ok(const struct vmx *v)
{
	unsigned type = SEG_TYPE(ar(v, SEG_CS)), dpl = SEG_DPL(ar(v, SEG_CS));
	unsigned ss = SEG_DPL(ar(v, SEG_SS));

	if (type == 3)
		return dpl == 0;
	return type < 13 ? dpl == ss : dpl <= ss;
}

static bool ss_dpl_ok(const struct vmx *v)
{
	unsigned dpl = SEG_DPL(ar(v, SEG_SS));

	if (!UNRESTRICTED && dpl != (get(v, VMCS_SS_SEL) & 3))
		return false;
	if (!(get(v, VMCS_CR0) & CR0_PE) || SEG_TYPE(ar(v, SEG_CS)) == 3)
		return dpl == 0;
	return true;
}

static bool data_dpl_ok(const struct vmx *v, unsigned seg)
{
	if (seg == SEG_CS || seg == SEG_SS || !usable(v, seg) || SEG_TYPE(ar(v, seg)) > 11)
		return true;
	return SEG_DPL(ar(v, seg)) >= (get(v, VMCS_ES_SEL + seg) & 3);
}

static bool rip_ok(const struct cpu *cpu)
{
	const struct vmx *v = vmx_of(cpu);

	if (!GUEST_64 || !(ar(v, SEG_CS) & SEG_L))
		return !(get(v, VMCS_RIP) >> 32);
	return canonical(cpu, VMCS_RIP);
}

/* ---- activity, pending debug exceptions ---- */

static bool activity_known(const struct vmx *v)
{
	static const uint64_t misc[] = {0, MISC_HLT, MISC_SHUTDOWN, MISC_WAIT_SIPI};
	uint64_t activity = get(v, VMCS_ACTIVITY);

	if (activity > VMX_WAIT_SIPI)
		return false;
	return !activity || (v->caps.msr[VMX_MISC] & misc[activity]);
}

static bool activity_inject_ok(const struct vmx *v)
{
	unsigned type = inject_type(v), vector = inject_vector(v);
	bool mc = type == INTR_EXCEPTION && vector == VEC_MC;

	switch (get(v, VMCS_ACTIVITY)) {
	case VMX_HLT:
		return type == INTR_EXTERNAL || type == INTR_NMI || mc || type == INTR_OTHER ||
		       (type == INTR_EXCEPTION && vector == VEC_DB);
	case VMX_SHUTDOWN:
		return type == INTR_NMI || mc;
	case VMX_WAIT_SIPI:
		return false;
	}
	return true;
}

/* With instructions blocked or halted, a pending single-step trap must be what TF says. */
static bool pending_bs_ok(const struct vmx *v)
{
	bool tf = get(v, VMCS_RFLAGS) & FLAG_TF, btf = get(v, VMCS_DEBUGCTL) & DEBUGCTL_BTF;
	bool bs = get(v, VMCS_PENDING_DEBUG) & PENDING_BS;

	if (!(get(v, VMCS_INTERRUPTIBILITY) & (BLOCKED_STI | BLOCKED_MOV_SS)) &&
	    get(v, VMCS_ACTIVITY) != VMX_HLT)
		return true;
	return bs == (tf && !btf);
}

/* ---- in memory ---- */

static bool link_ok(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	gpa_t link = get(v, VMCS_LINK_POINTER);
	uint32_t revision;

	if (!gpa_ok(cpu, link, VMCS_SIZE) || link == v->current)
		return false;
	if (mmu_read_phys_bytes(cpu, link, &revision, sizeof(revision)))
		return false;
	return revision == (VMX_REVISION | (ctl2(v, CPU2_SHADOW) ? VMCS_SHADOW_BIT : 0));
}

static bool guest_pae(const struct vmx *v)
{
	return (get(v, VMCS_CR0) & CR0_PG) && (get(v, VMCS_CR4) & CR4_PAE) && !GUEST_64;
}

static bool pdptes_ok(struct cpu *cpu)
{
	uint64_t reserved = GENMASK(63, cpu->maxphyaddr) | GENMASK(8, 5) | GENMASK(2, 1);
	struct vmx *v = vmx_of(cpu);

	for (unsigned i = 0; i < 4; i++) {
		uint64_t val = get(v, VMCS_PDPTE0 + i);
		gpa_t gpa = (get(v, VMCS_CR3) & GENMASK(31, 5)) + 8 * i;

		if (!ctl2(v, CPU2_EPT) && mmu_read_phys(cpu, gpa, 8, &val))
			return false;
		if ((val & 1) && (val & reserved))
			return false;
	}
	return true;
}

/* ---- the rows ---- */

struct entry_check {
	enum check_stage stage;
	const char *name;
	uint64_t qualification;
	enum vmcs_field field, other;
};

static const struct entry_check checks[] = {
#define CHECK(stage, name, qualification, field, other, condition) \
	{CHECK_##stage, #name, qualification, VMCS_##field, VMCS_##other},
#include "vmentry.def"
#undef CHECK
};

enum row {
#define CHECK(stage, name, qualification, field, other, condition) ROW_##name,
#include "vmentry.def"
#undef CHECK
	NR_ROWS,
};

/* The first of a stage's rows that does not hold: each entry asks all of them, so they are one after the other here. */
static __always_inline_ enum row first_bad(struct cpu *cpu, const struct vmx *v,
					   enum check_stage wanted)
{
#define CHECK(stage, name, qualification, field, other, condition) \
	if (CHECK_##stage == wanted && unlikely(!(condition)))     \
		return ROW_##name;
#include "vmentry.def"
#undef CHECK
	return NR_ROWS;
}

static enum row bad_control(struct cpu *cpu, const struct vmx *v)
{
	return first_bad(cpu, v, CHECK_CONTROL);
}

static enum row bad_host(struct cpu *cpu, const struct vmx *v)
{
	return first_bad(cpu, v, CHECK_HOST);
}

static enum row bad_guest(struct cpu *cpu, const struct vmx *v)
{
	return first_bad(cpu, v, CHECK_GUEST);
}

const struct entry_check *check_stage(struct cpu *cpu, enum check_stage stage)
{
	static enum row (*const stages[])(struct cpu * cpu, const struct vmx *v) = {
		[CHECK_CONTROL] = bad_control,
		[CHECK_HOST] = bad_host,
		[CHECK_GUEST] = bad_guest,
	};
	enum row row = stages[stage](cpu, vmx_of(cpu));

	return row < NR_ROWS ? &checks[row] : NULL;
}

uint64_t check_qualification(const struct entry_check *row)
{
	return row->qualification;
}

void check_report(struct cpu *cpu, const struct entry_check *row)
{
	static const char *const stages[] = {"control", "host", "guest"};
	const struct vmx *v = vmx_of(cpu);

	if (!v->report)
		return;
	fpu_save(cpu);
	host_log("VM entry refused: %s check %s (%s %#lx, %s %#lx)", stages[row->stage], row->name,
		 vmcs_name(row->field), get(v, row->field), vmcs_name(row->other),
		 get(v, row->other));
}

const char *vmx_check_name(struct cpu *cpu)
{
	const struct entry_check *row = check_stage(cpu, CHECK_CONTROL);

	if (!row)
		row = check_stage(cpu, CHECK_HOST);
	if (!row)
		row = check_stage(cpu, CHECK_GUEST);
	return row ? row->name : NULL;
}

const char *vmx_check_nth(unsigned n)
{
	return n < ARRAY_SIZE(checks) ? checks[n].name : NULL;
}
