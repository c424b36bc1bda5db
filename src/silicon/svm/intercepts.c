/* SPDX-License-Identifier: MIT */
/*
 * Who asked for what (APM, intercepts): kinds of silicon/cpu/intercept.h to bits of the control area and exit codes.
 *
 * Most kinds are one bit, by table. Control and debug registers have a bit each, ports and MSRs a map in memory, CR0
 * a second chance, PAUSE a filter.
 */
#include "silicon/mmu/mmu.h"
#include "silicon/svm/svm_internal.h"

#define DECODED_MOV BIT(63)

static struct vmcb_control *control(struct cpu *cpu)
{
	return &svm_of(cpu)->vmcb.control;
}

/* ---- one bit ---- */

static const uint8_t codes[NR_INTERCEPTS] = {
	[INTERCEPT_INTERRUPT] = SVM_EXIT_INTR,	  [INTERCEPT_NMI] = SVM_EXIT_NMI,
	[INTERCEPT_SMI] = SVM_EXIT_SMI,		  [INTERCEPT_INIT] = SVM_EXIT_INIT,
	[INTERCEPT_SHUTDOWN] = SVM_EXIT_SHUTDOWN, [INTERCEPT_CPUID] = SVM_EXIT_CPUID,
	[INTERCEPT_HLT] = SVM_EXIT_HLT,		  [INTERCEPT_INVD] = SVM_EXIT_INVD,
	[INTERCEPT_WBINVD] = SVM_EXIT_WBINVD,	  [INTERCEPT_RDPMC] = SVM_EXIT_RDPMC,
	[INTERCEPT_RDTSC] = SVM_EXIT_RDTSC,	  [INTERCEPT_RDTSCP] = SVM_EXIT_RDTSCP,
	[INTERCEPT_MONITOR] = SVM_EXIT_MONITOR,	  [INTERCEPT_XSETBV] = SVM_EXIT_XSETBV,
	[INTERCEPT_IRET] = SVM_EXIT_IRET,	  [INTERCEPT_PUSHF] = SVM_EXIT_PUSHF,
	[INTERCEPT_POPF] = SVM_EXIT_POPF,	  [INTERCEPT_ICEBP] = SVM_EXIT_ICEBP,
	[INTERCEPT_RSM] = SVM_EXIT_RSM,		  [INTERCEPT_FERR] = SVM_EXIT_FERR,
	[INTERCEPT_RDPRU] = SVM_EXIT_RDPRU,
};

/* Not instructions: no nRIP. */
static bool is_event(enum intercept kind)
{
	return kind == INTERCEPT_INTERRUPT || kind == INTERCEPT_NMI || kind == INTERCEPT_SMI ||
	       kind == INTERCEPT_INIT || kind == INTERCEPT_SHUTDOWN || kind == INTERCEPT_FERR;
}

static bool one_bit(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	unsigned code = codes[kind];

	if (!code || !svm_wants(cpu, code))
		return false;
	svm_exit(cpu, code, 0, 0, is_event(kind) ? 0 : svm_next_rip(cpu), NULL);
	return true;
}

/* Those that say something more in EXITINFO1. */
static bool told(struct cpu *cpu, unsigned code, uint64_t info1)
{
	if (!svm_wants(cpu, code))
		return false;
	svm_exit_insn(cpu, code, svm_has(cpu, FEAT_DECODEASSISTS) ? info1 : 0, 0);
	return true;
}

static bool soft_int(struct cpu *cpu, enum intercept kind, uint64_t vector)
{
	return told(cpu, SVM_EXIT_SWINT, vector);
}

static bool invlpg(struct cpu *cpu, enum intercept kind, uint64_t addr)
{
	return told(cpu, SVM_EXIT_INVLPG, addr);
}

/* The descriptor's address, and the type. */
static bool invpcid(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	const struct virt_insn *insn = &cpu->virt->insn;
	uint64_t type = cpu->gpr[insn->reg & 0xf], addr = insn->off;

	if (!svm_wants(cpu, SVM_EXIT_INVPCID))
		return false;
	if (!cpu_64bit(cpu))
		addr = (uint32_t)(addr + cpu->seg[insn->seg].base);
	else if (insn->seg >= SEG_FS)
		addr += cpu->seg[insn->seg].base;
	svm_exit_insn(cpu, SVM_EXIT_INVPCID, addr, cpu_64bit(cpu) ? type : (uint32_t)type);
	return true;
}

/* VMCALL is #UD on silicon, for which KVM puts VMMCALL there, unless the #UD is the guest hypervisor's. */
static bool hypercall(struct cpu *cpu, enum intercept kind, uint64_t foreign)
{
	return !(foreign && svm_intercepts_exception(cpu, VEC_UD)) &&
	       told(cpu, SVM_EXIT_VMMCALL, 0);
}

static bool dt_read(struct cpu *cpu, enum intercept kind, uint64_t reg)
{
	static const uint8_t code[] = {SVM_EXIT_GDTR_READ, SVM_EXIT_IDTR_READ, SVM_EXIT_LDTR_READ,
				       SVM_EXIT_TR_READ};

	return told(cpu, code[reg], 0);
}

static bool dt_write(struct cpu *cpu, enum intercept kind, uint64_t reg)
{
	static const uint8_t code[] = {SVM_EXIT_GDTR_WRITE, SVM_EXIT_IDTR_WRITE,
				       SVM_EXIT_LDTR_WRITE, SVM_EXIT_TR_WRITE};

	return told(cpu, code[reg], 0);
}

/* Nothing is ever armed for long, so the unconditional intercept and the one of an armed monitor differ by code. */
static bool mwait(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	return told(cpu, SVM_EXIT_MWAIT, 0) || told(cpu, SVM_EXIT_MWAIT_ARMED, 0);
}

/* ---- control and debug registers ---- */

static uint64_t written_cr0(const struct cpu *cpu, uint64_t q)
{
	if ((q & CR_QUAL_LMSW) == CR_QUAL_LMSW)
		return (cpu->cr0 & ~0xeull) | (q >> 16 & 0xf);
	return cpu->gpr[q >> 8 & 0xf];
}

/* Changes of bits other than TS and MP; CLTS makes none. */
static bool cr0_selective(struct cpu *cpu, uint64_t q)
{
	uint64_t ignored = CR0_TS | CR0_MP;

	if ((q & 0xf) || (q & CR_QUAL_LMSW) == CR_QUAL_CLTS ||
	    !svm_wants(cpu, SVM_EXIT_CR0_SELECTIVE) ||
	    !((written_cr0(cpu, q) ^ cpu->cr0) & ~ignored))
		return false;
	svm_exit_insn(cpu, SVM_EXIT_CR0_SELECTIVE, 0, 0);
	return true;
}

static bool register_exit(struct cpu *cpu, uint64_t code, uint64_t info1)
{
	svm_exit_insn(cpu, code, svm_has(cpu, FEAT_DECODEASSISTS) ? info1 : 0, 0);
	return true;
}

static uint64_t cr_info(uint64_t q)
{
	return q & (CR_QUAL_CLTS | CR_QUAL_SMSW) ? 0 : DECODED_MOV | (q >> 8 & 0xf);
}

static bool cr_read(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	unsigned nr = q & 0xf;

	return control(cpu)->intercepts[ICPT_CR] >> nr & 1 &&
	       register_exit(cpu, SVM_EXIT_CR_READ + nr, cr_info(q));
}

static bool cr_write(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	unsigned nr = q & 0xf;

	if (control(cpu)->intercepts[ICPT_CR] >> (16 + nr) & 1)
		return register_exit(cpu, SVM_EXIT_CR_WRITE + nr, cr_info(q));
	return cr0_selective(cpu, q);
}

static bool dr_read(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	unsigned nr = q & 0xf;

	return control(cpu)->intercepts[ICPT_DR] >> nr & 1 &&
	       register_exit(cpu, SVM_EXIT_DR_READ + nr, q >> 8 & 0xf);
}

static bool dr_write(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	unsigned nr = q & 0xf;

	return control(cpu)->intercepts[ICPT_DR] >> (16 + nr) & 1 &&
	       register_exit(cpu, SVM_EXIT_DR_WRITE + nr, q >> 8 & 0xf);
}

/* ---- maps ---- */

/* Two bytes of a map at a bit's place, shifted to it; a map without memory intercepts all. */
static unsigned map_bits(struct cpu *cpu, gpa_t map, uint64_t bit)
{
	uint16_t word;

	if (mmu_read_phys_bytes(cpu, map + bit / 8, &word, sizeof(word)))
		return ~0u;
	return word >> bit % 8;
}

/* VMX's form of a port access: size - 1, direction, string, REP, DX or not, port. */
static uint64_t io_info(const struct cpu *cpu, uint64_t q)
{
	const struct virt_insn *insn = &cpu->virt->insn;
	unsigned size = (q & 7) + 1;
	uint64_t info = (q & 0xffff0000) | (q >> 3 & 1) | (uint64_t)size << 4;

	if (!(q & BIT(4)))
		return info | (uint64_t)insn->addrsize << 6;
	return info | BIT(2) | (q & BIT(5) ? BIT(3) : 0) | (uint64_t)insn->addrsize << 6 |
	       (uint64_t)(insn->seg & 7) << 10;
}

static bool port(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	unsigned size = (q & 7) + 1;
	uint64_t next = svm_next_rip(cpu);

	if (!svm_wants(cpu, SVM_EXIT_IOIO) ||
	    !(map_bits(cpu, control(cpu)->iopm & PAGE_MASK, q >> 16 & 0xffff) & (BIT(size) - 1)))
		return false;
	svm_exit(cpu, SVM_EXIT_IOIO, io_info(cpu, q), next, next, NULL);
	return true;
}

/* The two bits of an MSR, by their place in the map. */
static unsigned msr_bits(struct cpu *cpu, unsigned bit)
{
	const uint8_t *map = cpu->virt->msr_map;

	if (map)
		return map[bit / 8] >> bit % 8;
	return map_bits(cpu, control(cpu)->msrpm & PAGE_MASK, bit);
}

static bool msr_wanted(struct cpu *cpu, uint32_t index, bool write)
{
	static const uint32_t bases[] = {0, 0xc0000000, 0xc0010000};

	if (!svm_wants(cpu, SVM_EXIT_MSR))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(bases); i++)
		if (index - bases[i] < 0x2000)
			return msr_bits(cpu, 0x4000 * i + 2 * (index - bases[i])) >> write & 1;
	return true;
}

static bool msr(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	bool write = kind == INTERCEPT_MSR_WRITE;

	if (!msr_wanted(cpu, q, write))
		return false;
	svm_exit_insn(cpu, SVM_EXIT_MSR, write, 0);
	return true;
}

/* ---- the rest ---- */

static bool task_switch(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	static const uint64_t reasons[] = {0, BIT(38), BIT(36), 0}; /* CALL, JMP, IRET, gate */
	uint64_t info2 = reasons[q >> 30 & 3];

	if (!svm_wants(cpu, SVM_EXIT_TASK_SWITCH))
		return false;
	if (q & BIT(32))
		info2 |= BIT(44) | q >> 33;
	if (cpu->sflags & FLAG_RF)
		info2 |= BIT(48);
	svm_exit(cpu, SVM_EXIT_TASK_SWITCH, q & 0xffff, info2, 0, cpu->virt->delivering);
	return true;
}

/* Once per count, or per run of PAUSEs with less than the threshold between them. */
static bool pause_is_filtered(struct cpu *cpu)
{
	struct svm *svm = svm_of(cpu);
	const struct vmcb_control *c = &svm->vmcb.control;
	uint64_t now;

	if (!svm_has(cpu, FEAT_PAUSEFILTER) || !c->pause_count)
		return false;
	if (svm_has(cpu, FEAT_PFTHRESHOLD) && c->pause_threshold) {
		now = platform_call(cpu, tsc);
		if (now - svm->pause_last > c->pause_threshold)
			svm->pause_left = c->pause_count;
		svm->pause_last = now;
	}
	if (!svm->pause_left)
		return false;
	svm->pause_left--;
	return true;
}

static bool pause(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	if (!svm_wants(cpu, SVM_EXIT_PAUSE) || pause_is_filtered(cpu))
		return false;
	svm_exit_insn(cpu, SVM_EXIT_PAUSE, 0, 0);
	return true;
}

static bool nothing(struct cpu *cpu, enum intercept kind, uint64_t q)
{
	return false;
}

static bool (*const handlers[NR_INTERCEPTS])(struct cpu *cpu, enum intercept kind, uint64_t q) = {
	[INTERCEPT_EXCEPTION] = nothing, [INTERCEPT_TASK_SWITCH] = task_switch,
	[INTERCEPT_INVLPG] = invlpg,	 [INTERCEPT_INVPCID] = invpcid,
	[INTERCEPT_VMCALL] = hypercall,	 [INTERCEPT_CR_READ] = cr_read,
	[INTERCEPT_CR_WRITE] = cr_write, [INTERCEPT_DR_READ] = dr_read,
	[INTERCEPT_DR_WRITE] = dr_write, [INTERCEPT_IO] = port,
	[INTERCEPT_MSR_READ] = msr,	 [INTERCEPT_MSR_WRITE] = msr,
	[INTERCEPT_MWAIT] = mwait,	 [INTERCEPT_PAUSE] = pause,
	[INTERCEPT_DT_READ] = dt_read,	 [INTERCEPT_DT_WRITE] = dt_write,
	[INTERCEPT_SOFT_INT] = soft_int,
};

bool svm_intercept(struct cpu *cpu, enum intercept kind, uint64_t qualification)
{
	return (handlers[kind] ? handlers[kind] : one_bit)(cpu, kind, qualification);
}

/* ---- exceptions ---- */

bool svm_intercepts_exception(const struct cpu *cpu, uint8_t vector)
{
	return vector < 32 &&
	       svm_of_const(cpu)->vmcb.control.intercepts[ICPT_EXCEPTION] >> vector & 1;
}

/* DR6 and DR7 change whoever takes the #DB. */
static void apply_debug(struct cpu *cpu, const struct event *ev)
{
	if (ev->has_payload)
		cpu->dr6 = (cpu->dr6 & ~0xfull) | (ev->payload & DR6_VOLATILE) | DR6_FIXED_1;
	cpu->dr7 &= ~(uint64_t)DR7_GD;
}

bool svm_event(struct cpu *cpu, const struct event *ev, const struct event *cause)
{
	bool soft = ev->type != EVENT_EXCEPTION;
	uint64_t info2 = 0;

	if (!svm_intercepts_exception(cpu, ev->vector))
		return false;
	if (ev->vector == VEC_PF)
		info2 = ev->has_payload ? ev->payload : cpu->cr2;
	else if (ev->vector == VEC_DB)
		apply_debug(cpu, ev);
	svm_exit(cpu, SVM_EXIT_EXCEPTION + ev->vector, ev->has_error ? ev->error : 0, info2,
		 soft ? svm_next_rip(cpu) : 0, cause);
	return true;
}
