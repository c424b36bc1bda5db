/* SPDX-License-Identifier: MIT */
/*
 * What causes VM exits (SDM, VMX non-root operation: instructions, other causes, exceptions).
 *
 * intercept_mask() tells, once per entry, which kinds may exit by the controls; a kind's own function then looks at
 * bitmaps, masks and targets and makes the exit. Some instructions are carried out here, because VMX gives them other
 * registers: MOV to and from CR8 and the x2APIC's MSRs.
 */
#include "silicon/cpu/lapic_reg.h"
#include "silicon/vmx/vmx_internal.h"

void vmx_retire(struct cpu *cpu)
{
	cpu->rip += cpu->virt->insn.len;
	if (cpu->mode.code != CODE_64)
		cpu->rip = (uint32_t)cpu->rip;
	cpu->shadow = 0;
	cpu->sflags &= ~FLAG_RF;
	if (cpu->sflags & FLAG_TF)
		cpu->pending_dr6 |= DR6_BS;
	cpu->retired++;
	cpu_update_attention(cpu);
}

bool vmx_raise(struct cpu *cpu, uint8_t vector)
{
	struct event ev = {.valid = true,
			   .type = EVENT_EXCEPTION,
			   .vector = vector,
			   .has_error = vector == VEC_GP};

	if (vmx_event(cpu, &ev, NULL))
		return true;
	cpu->inject = ev;
	cpu_update_attention(cpu);
	return true;
}

static bool raise_ud(struct cpu *cpu)
{
	return vmx_raise(cpu, VEC_UD);
}

static bool leave(struct cpu *cpu, uint32_t reason, uint64_t qualification, uint32_t info)
{
	vmx_exit_insn(cpu, reason, qualification, info);
	return true;
}

/* A memory operand's linear address, for exits before it was accessed. */
static uint64_t operand_linear(const struct cpu *cpu, unsigned seg, uint64_t off)
{
	if (cpu_64bit(cpu) && seg < SEG_FS)
		return off;
	off += cpu->seg[seg].base;
	return cpu_64bit(cpu) ? off : (uint32_t)off;
}

/* ---- kinds that exit whenever they are asked for ---- */

static const uint8_t plain[NR_INTERCEPTS] = {
	[INTERCEPT_CPUID] = REASON_CPUID,   [INTERCEPT_HLT] = REASON_HLT,
	[INTERCEPT_INVD] = REASON_INVD,	    [INTERCEPT_WBINVD] = REASON_WBINVD,
	[INTERCEPT_INVLPG] = REASON_INVLPG, [INTERCEPT_RDPMC] = REASON_RDPMC,
	[INTERCEPT_RDTSC] = REASON_RDTSC,   [INTERCEPT_VMCALL] = REASON_VMCALL,
	[INTERCEPT_MWAIT] = REASON_MWAIT,   [INTERCEPT_MONITOR] = REASON_MONITOR,
	[INTERCEPT_XSETBV] = REASON_XSETBV, [INTERCEPT_DR_READ] = REASON_DR,
	[INTERCEPT_DR_WRITE] = REASON_DR,
};

/* Qualifications of these are VMX's own. */
static uint64_t plain_qualification(enum intercept kind, uint64_t q)
{
	switch (kind) {
	case INTERCEPT_INVLPG:
	case INTERCEPT_DR_READ:
	case INTERCEPT_DR_WRITE:
		return q;
	default:
		return 0;
	}
}

/* ---- events ---- */

static bool on_interrupt(struct cpu *cpu, uint64_t q)
{
	struct vmx *v = vmx_of(cpu);
	struct exit_info info = {.reason = REASON_EXT_INT};
	int vector;

	if (!on_exit(v, EXIT_ACK_INT)) {
		exit_make(cpu, &info);
		return true;
	}
	vector = platform_call(cpu, interrupt_ack);
	if (vector < 0)
		return true;
	if (pin(v, PIN_POSTED) && (uint64_t)vector == get(v, VMCS_POSTED_VECTOR)) {
		vapic_take_posted(cpu);
		return true;
	}
	info.intr_info = INTR_VALID | INTR_EXTERNAL << INTR_TYPE_SHIFT | vector;
	exit_make(cpu, &info);
	cpu_raise(cpu, ATTN_EVENTS);
	return true;
}

static bool on_nmi(struct cpu *cpu, uint64_t q)
{
	struct exit_info info = {
		.reason = REASON_EXCEPTION_NMI,
		.intr_info = INTR_VALID | INTR_NMI << INTR_TYPE_SHIFT | VEC_NMI,
	};

	cpu->nmi_pending = false;
	exit_make(cpu, &info);
	cpu->nmi_blocked = true;
	cpu_update_attention(cpu);
	return true;
}

static bool on_init(struct cpu *cpu, uint64_t q)
{
	vmx_exit(cpu, REASON_INIT, 0);
	return true;
}

static bool on_sipi(struct cpu *cpu, uint64_t q)
{
	vmx_exit(cpu, REASON_SIPI, q);
	return true;
}

static bool on_shutdown(struct cpu *cpu, uint64_t q)
{
	vmx_exit(cpu, REASON_TRIPLE_FAULT, 0);
	return true;
}

/* The source's numbers are CALL, JMP, IRET, gate; VMX has IRET before JMP. A gate was come to by an event. */
static bool on_task_switch(struct cpu *cpu, uint64_t q)
{
	static const uint8_t source[] = {0, 2, 1, 3};
	const struct event *cause = cpu->virt->delivering;

	exit_make(cpu, &(struct exit_info){
			       .reason = REASON_TASK_SWITCH,
			       .qualification = (q & 0xffff) | (uint64_t)source[q >> 30 & 3] << 30,
			       .cause = cause,
			       .insn_len = cause ? 0 : cpu->virt->insn.len,
		       });
	return true;
}

/* ---- control registers ---- */

static bool on_cr_read(struct cpu *cpu, uint64_t q)
{
	struct vmx *v = vmx_of(cpu);

	switch (q & 0xf) {
	case 3:
		return ctl(v, CPU_CR3_STORE) && leave(cpu, REASON_CR, q & 0xf1f, 0);
	case 8:
		return ctl(v, CPU_CR8_STORE) && leave(cpu, REASON_CR, q & 0xf1f, 0);
	}
	return false;
}

static bool is_target(const struct vmx *v, uint64_t val)
{
	for (uint64_t i = 0; i < get(v, VMCS_CR3_TARGET_COUNT) && i < 4; i++)
		if (get(v, VMCS_CR3_TARGET0 + i) == val)
			return true;
	return false;
}

static bool clts_exits(const struct vmx *v)
{
	return get(v, VMCS_CR0_MASK) & get(v, VMCS_CR0_SHADOW) & CR0_TS;
}

static bool lmsw_exits(const struct vmx *v, uint64_t val)
{
	uint64_t mask = get(v, VMCS_CR0_MASK), changed = val ^ get(v, VMCS_CR0_SHADOW);

	if (mask & changed & val & CR0_PE)
		return true;
	return mask & changed & (CR0_MP | CR0_EM | CR0_TS);
}

static bool write_exits(const struct vmx *v, unsigned nr, uint64_t val)
{
	switch (nr) {
	case 0:
		return get(v, VMCS_CR0_MASK) & (val ^ get(v, VMCS_CR0_SHADOW));
	case 3:
		return ctl(v, CPU_CR3_LOAD) && !is_target(v, val);
	case 4:
		return get(v, VMCS_CR4_MASK) & (val ^ get(v, VMCS_CR4_SHADOW));
	case 8:
		return ctl(v, CPU_CR8_LOAD);
	}
	return false;
}

/* The only one of these whose operand may be memory. */
static bool leave_lmsw(struct cpu *cpu, uint64_t q)
{
	const struct virt_insn *insn = &cpu->virt->insn;

	exit_make(cpu, &(struct exit_info){
			       .reason = REASON_CR,
			       .qualification = q & 0xffff0070,
			       .linear = insn->mem ? operand_linear(cpu, insn->seg, insn->off) : 0,
			       .insn_len = insn->len,
		       });
	return true;
}

static bool on_cr_write(struct cpu *cpu, uint64_t q)
{
	struct vmx *v = vmx_of(cpu);
	uint64_t val = cpu->gpr[q >> 8 & 0xf];

	if (!cpu_64bit(cpu))
		val = (uint32_t)val;
	if ((q & 0x30) == CR_QUAL_LMSW)
		return lmsw_exits(v, q >> 16 & 0xffff) && leave_lmsw(cpu, q);
	return ((q & 0x30) == CR_QUAL_CLTS ? clts_exits(v) : write_exits(v, q & 0xf, val)) &&
	       leave(cpu, REASON_CR, q & 0xf7f, 0);
}

uint64_t vmx_cr_read(struct cpu *cpu, unsigned nr)
{
	const struct vmx *v = vmx_of(cpu);
	uint64_t mask;

	switch (nr) {
	case 0:
		mask = get(v, VMCS_CR0_MASK);
		return (cpu->cr0 & ~mask) | (get(v, VMCS_CR0_SHADOW) & mask);
	case 4:
		mask = get(v, VMCS_CR4_MASK);
		return (cpu->cr4 & ~mask) | (get(v, VMCS_CR4_SHADOW) & mask);
	case 8:
		if (ctl(v, CPU_TPR_SHADOW))
			return vapic_read(cpu, LAPIC_TPR) >> 4 & 0xf;
		return platform_call(cpu, get_tpr);
	}
	return cpu->cr3;
}

bool vmx_cr_write(struct cpu *cpu, unsigned nr, uint64_t *val)
{
	struct vmx *v = vmx_of(cpu);
	uint64_t mask;

	switch (nr) {
	case 0:
		mask = get(v, VMCS_CR0_MASK);
		*val = (*val & ~mask) | (cpu->cr0 & mask);
		break;
	case 4:
		mask = get(v, VMCS_CR4_MASK);
		*val = (*val & ~mask) | (cpu->cr4 & mask);
		break;
	case 8:
		if (!ctl(v, CPU_TPR_SHADOW) || *val & ~0xfull)
			break;
		vapic_write(cpu, LAPIC_TPR, *val << 4);
		v->tpr_due = true;
		cpu_raise(cpu, ATTN_VIRT);
		return false;
	}
	return true;
}

/* ---- ports and MSRs ---- */

/* Memory that is none reads as ones: an exit. */
static uint8_t bitmap_byte(struct cpu *cpu, gpa_t gpa)
{
	uint8_t byte;

	return mmu_read_phys_bytes(cpu, gpa, &byte, 1) ? 0xff : byte;
}

static bool port_exits(struct cpu *cpu, uint32_t port)
{
	const struct vmx *v = vmx_of(cpu);
	gpa_t bitmap = get(v, port < 0x8000 ? VMCS_IO_BITMAP_A : VMCS_IO_BITMAP_B);

	return bitmap_byte(cpu, bitmap + (port & 0x7fff) / 8) >> (port & 7) & 1;
}

static bool ports_exit(struct cpu *cpu, uint64_t q)
{
	uint32_t port = q >> 16 & 0xffff, size = (q & 7) + 1;

	if (!ctl(vmx_of(cpu), CPU_IO_BITMAPS))
		return ctl(vmx_of(cpu), CPU_IO);
	for (uint32_t i = 0; i < size; i++)
		if (port + i > 0xffff || port_exits(cpu, port + i))
			return true;
	return false;
}

#define IO_STRING BIT(4)
#define IO_IN	  BIT(3)

/* The linear address of INS and OUTS: ES:rDI, or the segment's rSI. */
static uint64_t string_linear(const struct cpu *cpu, uint64_t q)
{
	const struct virt_insn *insn = &cpu->virt->insn;
	uint64_t off = cpu->gpr[q & IO_IN ? RDI : RSI];

	if (insn->addrsize < 8)
		off &= BIT(8 * insn->addrsize) - 1;
	return operand_linear(cpu, q & IO_IN ? (unsigned)SEG_ES : insn->seg, off);
}

static bool on_io(struct cpu *cpu, uint64_t q)
{
	struct exit_info info = {
		.reason = REASON_IO,
		.qualification = q,
		.insn_len = cpu->virt->insn.len,
	};

	if (!ports_exit(cpu, q))
		return false;
	if (q & IO_STRING) {
		info.linear = string_linear(cpu, q);
		info.insn_info = info_string(&cpu->virt->insn);
	}
	exit_make(cpu, &info);
	return true;
}

/* Four bitmaps of 8192 MSRs: reads of low and high ones, then writes. */
static bool msr_exits(struct cpu *cpu, uint32_t index, bool write)
{
	const struct vmx *v = vmx_of(cpu);
	unsigned at = (write ? 0x800 : 0) + (index & 0x1fff) / 8;
	uint8_t byte;

	if (!ctl(v, CPU_MSR_BITMAPS))
		return true;
	if (index >= 0xc0000000 && index <= 0xc0001fff)
		at += 0x400;
	else if (index > 0x1fff)
		return true;
	byte = v->virt.msr_map ? v->virt.msr_map[at]
			       : bitmap_byte(cpu, get(v, VMCS_MSR_BITMAP) + at);
	return byte >> (index & 7) & 1;
}

static bool on_msr_read(struct cpu *cpu, uint64_t q)
{
	if (msr_exits(cpu, q, false))
		return leave(cpu, REASON_RDMSR, 0, 0);
	return q >> 8 == 8 && vapic_msr_read(cpu, q);
}

static bool on_msr_write(struct cpu *cpu, uint64_t q)
{
	if (msr_exits(cpu, q, true))
		return leave(cpu, REASON_WRMSR, 0, 0);
	return q >> 8 == 8 && vapic_msr_write(cpu, q);
}

/* ---- the rest of the instructions ---- */

static bool on_rdtscp(struct cpu *cpu, uint64_t q)
{
	struct vmx *v = vmx_of(cpu);

	if (!ctl2(v, CPU2_RDTSCP))
		return raise_ud(cpu);
	return ctl(v, CPU_RDTSC) && leave(cpu, REASON_RDTSCP, 0, 0);
}

static bool on_invpcid(struct cpu *cpu, uint64_t q)
{
	struct vmx *v = vmx_of(cpu);
	const struct virt_insn *insn = &v->virt.insn;

	if (!ctl2(v, CPU2_INVPCID))
		return raise_ud(cpu);
	return ctl(v, CPU_INVLPG) &&
	       leave(cpu, REASON_INVPCID, insn->disp, info_memory(insn, insn->reg));
}

static bool on_xsaves(struct cpu *cpu, uint64_t q)
{
	struct vmx *v = vmx_of(cpu);

	if (!ctl2(v, CPU2_XSAVES))
		return raise_ud(cpu);
	return (q & cpu->msr.xss & get(v, VMCS_XSS_BITMAP)) && leave(cpu, REASON_XSAVES, 0, 0);
}

static bool on_xrstors(struct cpu *cpu, uint64_t q)
{
	struct vmx *v = vmx_of(cpu);

	if (!ctl2(v, CPU2_XSAVES))
		return raise_ud(cpu);
	return (q & cpu->msr.xss & get(v, VMCS_XSS_BITMAP)) && leave(cpu, REASON_XRSTORS, 0, 0);
}

static bool on_rdrand(struct cpu *cpu, uint64_t q)
{
	return leave(cpu, REASON_RDRAND, 0, info_reg(&cpu->virt->insn));
}

static bool on_rdseed(struct cpu *cpu, uint64_t q)
{
	return leave(cpu, REASON_RDSEED, 0, info_reg(&cpu->virt->insn));
}

/* PAUSE-loop exiting: at CPL 0, PAUSEs less than a gap apart for longer than a window. */
static bool loops(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	uint64_t now;

	if (!ctl2(v, CPU2_PLE) || cpu->mode.cpl)
		return false;
	now = platform_call(cpu, tsc);
	if (!v->ple_first || now - v->ple_last > get(v, VMCS_PLE_GAP))
		v->ple_first = now;
	v->ple_last = now;
	return now - v->ple_first > get(v, VMCS_PLE_WINDOW);
}

static bool on_pause(struct cpu *cpu, uint64_t q)
{
	struct vmx *v = vmx_of(cpu);

	if (!ctl(v, CPU_PAUSE) && !loops(cpu))
		return false;
	v->ple_first = 0;
	return leave(cpu, REASON_PAUSE, 0, 0);
}

static bool on_dt(struct cpu *cpu, uint64_t q, bool write)
{
	const struct virt_insn *insn = &cpu->virt->insn;
	bool system = q == DT_LDTR || q == DT_TR;
	unsigned op = (q == DT_IDTR || q == DT_TR) + (write ? 2 : 0);

	if (system)
		return leave(cpu, REASON_LDTR_TR, insn->mem ? insn->disp : 0, info_ldtr(insn, op));
	return leave(cpu, REASON_GDTR_IDTR, insn->disp, info_dt(insn, op));
}

static bool on_dt_read(struct cpu *cpu, uint64_t q)
{
	return on_dt(cpu, q, false);
}

static bool on_dt_write(struct cpu *cpu, uint64_t q)
{
	return on_dt(cpu, q, true);
}

/* The other vendor's hypercall is no instruction here. */
static bool on_vmcall(struct cpu *cpu, uint64_t q)
{
	return q & 1 ? raise_ud(cpu) : leave(cpu, REASON_VMCALL, 0, 0);
}

static bool (*const special[NR_INTERCEPTS])(struct cpu *cpu, uint64_t q) = {
	[INTERCEPT_INTERRUPT] = on_interrupt,
	[INTERCEPT_NMI] = on_nmi,
	[INTERCEPT_INIT] = on_init,
	[INTERCEPT_SIPI] = on_sipi,
	[INTERCEPT_SHUTDOWN] = on_shutdown,
	[INTERCEPT_TASK_SWITCH] = on_task_switch,
	[INTERCEPT_CR_READ] = on_cr_read,
	[INTERCEPT_CR_WRITE] = on_cr_write,
	[INTERCEPT_IO] = on_io,
	[INTERCEPT_MSR_READ] = on_msr_read,
	[INTERCEPT_MSR_WRITE] = on_msr_write,
	[INTERCEPT_RDTSCP] = on_rdtscp,
	[INTERCEPT_INVPCID] = on_invpcid,
	[INTERCEPT_XSAVES] = on_xsaves,
	[INTERCEPT_XRSTORS] = on_xrstors,
	[INTERCEPT_RDRAND] = on_rdrand,
	[INTERCEPT_RDSEED] = on_rdseed,
	[INTERCEPT_PAUSE] = on_pause,
	[INTERCEPT_DT_READ] = on_dt_read,
	[INTERCEPT_DT_WRITE] = on_dt_write,
	[INTERCEPT_VMCALL] = on_vmcall,
};

bool vmx_intercept(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	if (special[kind])
		return special[kind](cpu, q);
	return plain[kind] && leave(cpu, plain[kind], plain_qualification(kind, q), 0);
}

/* ---- which kinds at all ---- */

static const struct {
	uint8_t kind;
	uint64_t cpu, cpu2;
} by_control[] = {
	{INTERCEPT_HLT, CPU_HLT, 0},
	{INTERCEPT_INVLPG, CPU_INVLPG, 0},
	{INTERCEPT_MWAIT, CPU_MWAIT, 0},
	{INTERCEPT_MONITOR, CPU_MONITOR, 0},
	{INTERCEPT_RDPMC, CPU_RDPMC, 0},
	{INTERCEPT_RDTSC, CPU_RDTSC, 0},
	{INTERCEPT_DR_READ, CPU_MOV_DR, 0},
	{INTERCEPT_DR_WRITE, CPU_MOV_DR, 0},
	{INTERCEPT_IO, CPU_IO | CPU_IO_BITMAPS, 0},
	{INTERCEPT_PAUSE, CPU_PAUSE, CPU2_PLE},
	{INTERCEPT_WBINVD, 0, CPU2_WBINVD},
	{INTERCEPT_DT_READ, 0, CPU2_DT},
	{INTERCEPT_DT_WRITE, 0, CPU2_DT},
	{INTERCEPT_RDRAND, 0, CPU2_RDRAND},
	{INTERCEPT_RDSEED, 0, CPU2_RDSEED},
};

#define ALWAYS                                                                          \
	(BIT(INTERCEPT_EXCEPTION) | BIT(INTERCEPT_INIT) | BIT(INTERCEPT_SHUTDOWN) |     \
	 BIT(INTERCEPT_TASK_SWITCH) | BIT(INTERCEPT_CPUID) | BIT(INTERCEPT_INVD) |      \
	 BIT(INTERCEPT_VMCALL) | BIT(INTERCEPT_XSETBV) | BIT(INTERCEPT_CR_READ) |       \
	 BIT(INTERCEPT_CR_WRITE) | BIT(INTERCEPT_MSR_READ) | BIT(INTERCEPT_MSR_WRITE) | \
	 BIT(INTERCEPT_RDTSCP) | BIT(INTERCEPT_INVPCID) | BIT(INTERCEPT_XSAVES) |       \
	 BIT(INTERCEPT_XRSTORS) | BIT(INTERCEPT_SIPI))

uint64_t intercept_mask(const struct vmx *v)
{
	uint64_t mask = ALWAYS;

	if (pin(v, PIN_EXT_INT))
		mask |= BIT(INTERCEPT_INTERRUPT);
	if (pin(v, PIN_NMI))
		mask |= BIT(INTERCEPT_NMI);
	for (unsigned i = 0; i < ARRAY_SIZE(by_control); i++)
		if (ctl(v, by_control[i].cpu) || ctl2(v, by_control[i].cpu2))
			mask |= BIT(by_control[i].kind);
	return mask;
}

/* ---- exceptions ---- */

/* SDM, exceptions: page faults are judged by their error code, too. */
static bool exception_exits(const struct vmx *v, const struct event *ev)
{
	bool bit = get(v, VMCS_EXCEPTION_BITMAP) >> (ev->vector & 31) & 1;

	if (ev->vector != VEC_PF)
		return bit;
	return bit == ((ev->error & get(v, VMCS_PFEC_MASK)) == get(v, VMCS_PFEC_MATCH));
}

/* Exits by #DB tell what DR6 would have, those by #PF the address. */
static uint64_t exception_qualification(const struct event *ev)
{
	if (ev->vector != VEC_DB && ev->vector != VEC_PF)
		return 0;
	return ev->has_payload ? ev->payload : 0;
}

static bool fault_class(const struct event *ev)
{
	return ev->type == EVENT_EXCEPTION && ev->vector != VEC_DB && ev->vector != VEC_DF &&
	       ev->vector != VEC_MC;
}

bool vmx_event(struct cpu *cpu, const struct event *ev, const struct event *cause)
{
	struct vmx *v = vmx_of(cpu);
	struct exit_info info = {
		.reason = REASON_EXCEPTION_NMI,
		.qualification = exception_qualification(ev),
		.intr_info = event_info(ev),
		.intr_error = ev->has_error ? (uint16_t)ev->error : 0,
		.insn_len = ev->type == EVENT_EXCEPTION ? 0 : ev->insn_len,
		.set_rf = fault_class(ev),
	};

	if (!exception_exits(v, ev))
		return false;
	if (info.set_rf && !cause && vmx_iret_unblocked(cpu))
		info.intr_info |= INTR_NMI_UNBLOCKED;
	/* A double fault is no event in whose way another one stood. */
	info.cause = ev->vector == VEC_DF ? NULL : cause;
	if (ev->vector == VEC_DF)
		cpu->inject.valid = false;
	exit_make(cpu, &info);
	return true;
}

void vmx_refused(struct cpu *cpu, const struct event *cause)
{
	struct vmx *v = vmx_of(cpu);
	struct exit_info info = {
		.reason = v->virt.refused_reason,
		.qualification = v->virt.refused_info[0],
		.gpa = v->virt.refused_info[1],
		.linear = v->refused_linear,
		.cause = cause,
		.insn_len = v->virt.insn.len,
	};

	/* An APIC access in the course of event delivery has a type of its own. */
	if (info.reason == REASON_APIC_ACCESS && cause)
		info.qualification = (info.qualification & 0xfff) | 3 << 12;
	exit_make(cpu, &info);
}
