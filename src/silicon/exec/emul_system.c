/* SPDX-License-Identifier: MIT */
/*
 * System instructions that ask or change the processor as a whole (SDM, instruction reference): CPUID,
 * time, MSRs, control and debug registers, caches and TLB, software interrupts, hypercalls, ports.
 * Descriptor tables and segment bases are in emul_desc.c.
 */
#include "silicon/exec/emul.h"

static bool privileged(const struct cpu *cpu)
{
	return cpu->mode.cpl == 0;
}

static void set_edx_eax(struct cpu *cpu, uint64_t val)
{
	cpu->gpr[RAX] = (uint32_t)val;
	cpu->gpr[RDX] = val >> 32;
}

static uint64_t get_edx_eax(const struct cpu *cpu)
{
	return (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32;
}

/* ---- asking ---- */

#define MISC_FEATURES_CPUID_FAULT BIT(0)

enum result emul_cpuid(struct cpu *cpu, const struct insn *insn)
{
	uint32_t ret[4] = {0};

	if (!privileged(cpu) && (cpu->msr.misc_features & MISC_FEATURES_CPUID_FAULT))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_CPUID, 0))
		return EMUL_INTERCEPTED;
	platform_call(cpu, cpuid, cpu->gpr[RAX], cpu->gpr[RCX], ret);
	cpu->gpr[RAX] = ret[0];
	cpu->gpr[RBX] = ret[1];
	cpu->gpr[RCX] = ret[2];
	cpu->gpr[RDX] = ret[3];
	return insn_next(cpu, insn);
}

static bool tsc_refused(const struct cpu *cpu)
{
	return (cpu->cr4 & CR4_TSD) && !privileged(cpu);
}

static uint64_t own_tsc(struct cpu *cpu)
{
	uint32_t low, high;

	if (!cpu->tsc_offset)
		return platform_call(cpu, tsc);
	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (low | (uint64_t)high << 32) + *cpu->tsc_offset;
}

static uint64_t guest_tsc(struct cpu *cpu)
{
	uint64_t tsc = own_tsc(cpu);

	return cpu_guest(cpu) ? cpu->virt->ops->tsc(cpu, tsc) : tsc;
}

enum result emul_rdtsc(struct cpu *cpu, const struct insn *insn)
{
	if (tsc_refused(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_RDTSC, 0))
		return EMUL_INTERCEPTED;
	set_edx_eax(cpu, guest_tsc(cpu));
	return insn_next(cpu, insn);
}

enum result emul_rdtscp(struct cpu *cpu, const struct insn *insn)
{
	if (tsc_refused(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_RDTSCP, 0))
		return EMUL_INTERCEPTED;
	set_edx_eax(cpu, guest_tsc(cpu));
	cpu->gpr[RCX] = (uint32_t)cpu->msr.tsc_aux;
	return insn_next(cpu, insn);
}

enum result emul_rdpid(struct cpu *cpu, const struct insn *insn)
{
	reg_write(cpu, insn->rm, emul_native_size(cpu), false, (uint32_t)cpu->msr.tsc_aux);
	return insn_next(cpu, insn);
}

/* No counters: every index is out of range. */
enum result emul_rdpmc(struct cpu *cpu, const struct insn *insn)
{
	if (!(cpu->cr4 & CR4_PCE) && !privileged(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_RDPMC, 0))
		return EMUL_INTERCEPTED;
	return fault_gp(cpu, 0);
}

/* Steele, Lea and Flood's SplitMix64. */
static uint64_t seeded_random(struct cpu *cpu)
{
	uint64_t z = cpu->random += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* The host's own generator, or the seed's; a width of 2 or 4 bytes takes the low part. */
static enum result give_random(struct cpu *cpu, const struct insn *insn, uint64_t val, bool ok)
{
	reg_write(cpu, insn->rm, emul_opsize(cpu, insn), false, ok ? val : 0);
	cpu->aflags = flags_to_arith(ok ? FLAG_CF : 0);
	return insn_next(cpu, insn);
}

enum result emul_rdrand(struct cpu *cpu, const struct insn *insn)
{
	uint64_t val;
	bool ok;

	if (cpu_intercept(cpu, INTERCEPT_RDRAND, 0))
		return EMUL_INTERCEPTED;
	if (unlikely(cpu->counted))
		return give_random(cpu, insn, seeded_random(cpu), true);
	asm volatile("rdrand %0" : "=r"(val), "=@ccc"(ok));
	return give_random(cpu, insn, val, ok);
}

enum result emul_rdseed(struct cpu *cpu, const struct insn *insn)
{
	uint64_t val;
	bool ok;

	if (cpu_intercept(cpu, INTERCEPT_RDSEED, 0))
		return EMUL_INTERCEPTED;
	if (unlikely(cpu->counted))
		return give_random(cpu, insn, seeded_random(cpu), true);
	asm volatile("rdseed %0" : "=r"(val), "=@ccc"(ok));
	return give_random(cpu, insn, val, ok);
}

/* ---- MSRs, XCR0, protection keys ---- */

enum result emul_rdmsr(struct cpu *cpu, const struct insn *insn)
{
	uint64_t val;
	enum result r;

	if (!privileged(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_MSR_READ, (uint32_t)cpu->gpr[RCX]))
		return EMUL_INTERCEPTED;
	r = sys_rdmsr(cpu, cpu->gpr[RCX], &val);
	if (r)
		return r;
	set_edx_eax(cpu, val);
	return insn_next(cpu, insn);
}

enum result emul_wrmsr(struct cpu *cpu, const struct insn *insn)
{
	enum result r;

	if (!privileged(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_MSR_WRITE, (uint32_t)cpu->gpr[RCX]))
		return EMUL_INTERCEPTED;
	r = sys_wrmsr(cpu, cpu->gpr[RCX], get_edx_eax(cpu));
	return r ? r : insn_next(cpu, insn);
}

/* Index 1 tells which of the enabled components are not in their initial state. */
enum result emul_xgetbv(struct cpu *cpu, const struct insn *insn)
{
	uint32_t index = cpu->gpr[RCX];

	if (!(cpu->cr4 & CR4_OSXSAVE))
		return fault_ud(cpu);
	if (index == 0) {
		set_edx_eax(cpu, cpu->xcr0);
	} else if (index == 1 && feature_has(cpu->model_features, FEAT_XGETBV1)) {
		fpu_save(cpu);
		set_edx_eax(cpu, cpu->xcr0 & emul_xinuse(cpu));
	} else {
		return fault_gp(cpu, 0);
	}
	return insn_next(cpu, insn);
}

enum result emul_xsetbv(struct cpu *cpu, const struct insn *insn)
{
	enum result r;

	if (!(cpu->cr4 & CR4_OSXSAVE))
		return fault_ud(cpu);
	if (!privileged(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_XSETBV, 0))
		return EMUL_INTERCEPTED;
	if ((uint32_t)cpu->gpr[RCX])
		return fault_gp(cpu, 0);
	r = sys_set_xcr0(cpu, get_edx_eax(cpu));
	return r ? r : insn_next(cpu, insn);
}

static enum result check_pkru(struct cpu *cpu)
{
	if (!(cpu->cr4 & CR4_PKE))
		return fault_ud(cpu);
	return (uint32_t)cpu->gpr[RCX] ? fault_gp(cpu, 0) : RESULT_OK;
}

enum result emul_rdpkru(struct cpu *cpu, const struct insn *insn)
{
	enum result r = check_pkru(cpu);

	if (r)
		return r;
	set_edx_eax(cpu, (uint32_t)cpu->pkru);
	return insn_next(cpu, insn);
}

enum result emul_wrpkru(struct cpu *cpu, const struct insn *insn)
{
	enum result r = check_pkru(cpu);

	if (!r && (uint32_t)cpu->gpr[RDX])
		r = fault_gp(cpu, 0);
	if (r)
		return r;
	if (cpu->pkru != (uint32_t)cpu->gpr[RAX]) {
		cpu->pkru = (uint32_t)cpu->gpr[RAX];
		mmu_update_mode(cpu);
	}
	return insn_next(cpu, insn);
}

/* ---- control and debug registers ---- */

/* Exit qualification of a control register access: number, direction, general register. */
static uint64_t cr_qualification(const struct insn *insn, unsigned nr, bool read)
{
	return nr | (read ? CR_QUAL_READ : 0) | (uint64_t)insn->rm << 8;
}

/* Number of the control register meant, or -1 if there is none. */
static int control_register(const struct cpu *cpu, const struct insn *insn)
{
	unsigned nr = insn->reg;

	if (insn->flags & INSN_LOCK)
		return nr == 0 && model_lock_mov_cr8(cpu->model) ? 8 : -1;
	return nr == 0 || nr == 2 || nr == 3 || nr == 4 || nr == 8 ? (int)nr : -1;
}

static uint64_t cr_value(struct cpu *cpu, unsigned nr)
{
	switch (nr) {
	case 0:
		return cpu->cr0;
	case 2:
		return cpu->cr2;
	case 3:
		return cpu->cr3;
	case 4:
		return cpu->cr4;
	}
	return platform_call(cpu, get_tpr);
}

uint64_t emul_cr_read(struct cpu *cpu, unsigned nr)
{
	if (cpu_guest(cpu) && cpu->virt->ops->cr_read && nr != 2)
		return cpu->virt->ops->cr_read(cpu, nr);
	return cr_value(cpu, nr);
}

enum result emul_mov_from_cr(struct cpu *cpu, const struct insn *insn)
{
	int nr = control_register(cpu, insn);

	if (nr < 0)
		return fault_ud(cpu);
	if (!privileged(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_CR_READ, cr_qualification(insn, nr, true)))
		return EMUL_INTERCEPTED;
	reg_write(cpu, insn->rm, emul_native_size(cpu), false, emul_cr_read(cpu, nr));
	return insn_next(cpu, insn);
}

static enum result write_cr(struct cpu *cpu, int nr, uint64_t val)
{
	if (cpu_guest(cpu) && cpu->virt->ops->cr_write && nr != 2 &&
	    !cpu->virt->ops->cr_write(cpu, nr, &val))
		return RESULT_OK;
	switch (nr) {
	case 0:
		return sys_set_cr0(cpu, val);
	case 3:
		return sys_set_cr3(cpu, val);
	case 4:
		return sys_set_cr4(cpu, val);
	case 8:
		return sys_set_cr8(cpu, val);
	}
	cpu->cr2 = val;
	return RESULT_OK;
}

enum result emul_mov_to_cr(struct cpu *cpu, const struct insn *insn)
{
	int nr = control_register(cpu, insn);
	enum result r;

	if (nr < 0)
		return fault_ud(cpu);
	if (!privileged(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_CR_WRITE, cr_qualification(insn, nr, false)))
		return EMUL_INTERCEPTED;
	r = write_cr(cpu, nr, reg_read(cpu, insn->rm, emul_native_size(cpu), false));
	return r ? r : insn_next(cpu, insn);
}

/*
 * DR4 and DR5 with CR4.DE, and DR8 and up, are undefined at any privilege. An exit goes before all of these but DR8 and up,
 * and before general detect (SDM), or behind all of them (APM).
 */
static enum result check_dr(struct cpu *cpu, const struct insn *insn, enum intercept kind)
{
	uint64_t q = cr_qualification(insn, insn->reg, kind == INTERCEPT_DR_READ);
	bool intel = model_intel(cpu->model);
	unsigned nr = insn->reg;

	if (nr > 7)
		return fault_ud(cpu);
	if (intel && cpu_intercept(cpu, kind, q))
		return EMUL_INTERCEPTED;
	if ((cpu->cr4 & CR4_DE) && (nr == 4 || nr == 5))
		return fault_ud(cpu);
	if (!privileged(cpu))
		return fault_gp(cpu, 0);
	if (intel)
		return RESULT_OK;
	if (cpu_dr7(cpu) & DR7_GD)
		return fault_debug(cpu, DR6_BD);
	return cpu_intercept(cpu, kind, q) ? EMUL_INTERCEPTED : RESULT_OK;
}

enum result emul_mov_from_dr(struct cpu *cpu, const struct insn *insn)
{
	uint64_t val;
	enum result r = check_dr(cpu, insn, INTERCEPT_DR_READ);

	if (r)
		return r;
	r = sys_get_dr(cpu, insn->reg, &val);
	if (r)
		return r;
	reg_write(cpu, insn->rm, emul_native_size(cpu), false, val);
	return insn_next(cpu, insn);
}

enum result emul_mov_to_dr(struct cpu *cpu, const struct insn *insn)
{
	enum result r = check_dr(cpu, insn, INTERCEPT_DR_WRITE);

	if (r)
		return r;
	r = sys_set_dr(cpu, insn->reg, reg_read(cpu, insn->rm, emul_native_size(cpu), false));
	return r ? r : insn_next(cpu, insn);
}

enum result emul_clts(struct cpu *cpu, const struct insn *insn)
{
	enum result r;

	if (!privileged(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_CR_WRITE, CR_QUAL_CLTS))
		return EMUL_INTERCEPTED;
	r = write_cr(cpu, 0, emul_cr_read(cpu, 0) & ~CR0_TS);
	return r ? r : insn_next(cpu, insn);
}

/* Loads PE, MP, EM and TS; PE cannot be cleared. */
enum result emul_lmsw(struct cpu *cpu, const struct insn *insn)
{
	uint64_t val;
	enum result r;

	if (!privileged(cpu))
		return fault_gp(cpu, 0);
	r = emul_read_rm(cpu, insn, 2, &val);
	if (r)
		return r;
	if (cpu_intercept(cpu, INTERCEPT_CR_WRITE,
			  CR_QUAL_LMSW | (insn->flags & INSN_MEM ? BIT(6) : 0) | val << 16))
		return EMUL_INTERCEPTED;
	r = write_cr(cpu, 0, (emul_cr_read(cpu, 0) & ~0xeull) | (val & 0xf));
	return r ? r : insn_next(cpu, insn);
}

/* ---- SMAP's window ---- */

static enum result set_ac(struct cpu *cpu, const struct insn *insn, uint64_t ac)
{
	if (!privileged(cpu))
		return fault_ud(cpu);
	cpu->sflags = (cpu->sflags & ~FLAG_AC) | ac;
	cpu_update_access(cpu);
	mmu_update_mode(cpu);
	return insn_next(cpu, insn);
}

enum result emul_stac(struct cpu *cpu, const struct insn *insn)
{
	return set_ac(cpu, insn, FLAG_AC);
}

enum result emul_clac(struct cpu *cpu, const struct insn *insn)
{
	return set_ac(cpu, insn, 0);
}

/* ---- caches and TLB ---- */

/* Guest memory is coherent: nothing to write back. */
static enum result flush_caches(struct cpu *cpu, const struct insn *insn, enum intercept kind)
{
	if (!privileged(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, kind, 0))
		return EMUL_INTERCEPTED;
	return insn_next(cpu, insn);
}

enum result emul_invd(struct cpu *cpu, const struct insn *insn)
{
	return flush_caches(cpu, insn, INTERCEPT_INVD);
}

enum result emul_wbinvd(struct cpu *cpu, const struct insn *insn)
{
	return flush_caches(cpu, insn, INTERCEPT_WBINVD);
}

/* No limit or type is checked, and a non-canonical address is no error. */
enum result emul_invlpg(struct cpu *cpu, const struct insn *insn)
{
	uint64_t addr = insn_ea(cpu, insn);

	if (!privileged(cpu))
		return fault_gp(cpu, 0);
	if (cpu->mode.code != CODE_64)
		addr = (uint32_t)(addr + cpu->seg[insn->seg].base);
	else if (insn->seg >= SEG_FS)
		addr += cpu->seg[insn->seg].base;
	if (cpu_intercept(cpu, INTERCEPT_INVLPG, addr))
		return EMUL_INTERCEPTED;
	if (gva_canonical(cpu, addr))
		mmu_flush_page(cpu, addr);
	return insn_next(cpu, insn);
}

enum invpcid_type { INVPCID_ADDR, INVPCID_CONTEXT, INVPCID_ALL, INVPCID_NON_GLOBAL };

static bool invpcid_valid(const struct cpu *cpu, uint64_t type, uint64_t pcid, gva_t addr)
{
	if (type > INVPCID_NON_GLOBAL || pcid & ~CR3_PCID_MASK)
		return false;
	if (type <= INVPCID_CONTEXT && pcid && !(cpu->cr4 & CR4_PCIDE))
		return false;
	return type != INVPCID_ADDR || gva_canonical(cpu, addr);
}

static void invpcid(struct cpu *cpu, uint64_t type, uint64_t pcid, gva_t addr)
{
	switch (type) {
	case INVPCID_ADDR:
		mmu_flush_pcid_page(cpu, pcid, addr);
		break;
	case INVPCID_CONTEXT:
		mmu_flush_pcid(cpu, pcid);
		break;
	default:
		mmu_flush_pcids(cpu, type == INVPCID_ALL);
	}
}

enum result emul_invpcid(struct cpu *cpu, const struct insn *insn)
{
	uint64_t type = reg_read(cpu, insn->reg, emul_native_size(cpu), false), desc[2];
	gva_t addr;
	enum result r;

	if (!privileged(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_INVPCID, 0))
		return EMUL_INTERCEPTED;
	r = seg_linear(cpu, insn->seg, insn_ea(cpu, insn), sizeof(desc), ACCESS_READ, &addr);
	if (!r)
		r = mmu_read_bytes(cpu, addr, desc, sizeof(desc));
	if (r)
		return r;
	if (!invpcid_valid(cpu, type, desc[0], desc[1]))
		return fault_gp(cpu, 0);
	invpcid(cpu, type, desc[0], desc[1]);
	return insn_next(cpu, insn);
}

/* ---- waiting ---- */

/* CPU_EXIT_HLT is a committed exit: RIP stands behind HLT. */
enum result emul_hlt(struct cpu *cpu, const struct insn *insn)
{
	if (!privileged(cpu))
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_HLT, 0))
		return EMUL_INTERCEPTED;
	insn_next(cpu, insn);
	cpu->activity = ACTIVITY_HLT;
	cpu->exit.kind = CPU_EXIT_HLT;
	return RESULT_STOP;
}

enum result emul_pause(struct cpu *cpu, const struct insn *insn)
{
	if (cpu_intercept(cpu, INTERCEPT_PAUSE, 0))
		return EMUL_INTERCEPTED;
	if (cpu->spins)
		cpu->spins--;
	else if (cpu->platform->spun)
		cpu->spins = platform_call(cpu, spun);
	__builtin_ia32_pause();
	return insn_next(cpu, insn);
}

/* A hypervisor that intercepts both may give them to guests whose CPUID lacks them. */
static bool monitor_absent(struct cpu *cpu)
{
	uint32_t ret[4] = {0};

	if (!cpu->monitor_by_cpuid)
		return false;
	platform_call(cpu, cpuid, 1, 0, ret);
	return !(ret[2] & BIT(3));
}

/* The address is checked as a one-byte read; nothing is armed, for MWAIT may always wake at once. */
enum result emul_monitor(struct cpu *cpu, const struct insn *insn)
{
	uint64_t off = cpu->gpr[RAX] & emul_mask(insn->addrsize);
	gva_t addr;
	enum result r;

	if (!privileged(cpu) || monitor_absent(cpu))
		return fault_ud(cpu);
	if ((uint32_t)cpu->gpr[RCX])
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_MONITOR, 0))
		return EMUL_INTERCEPTED;
	r = seg_linear(cpu, emul_implicit_seg(cpu, insn), off, 1, ACCESS_READ, &addr);
	if (!r)
		r = mmu_probe(cpu, addr, 1, ACCESS_READ);
	return r ? r : insn_next(cpu, insn);
}

#define MWAIT_BREAK_ON_IRQ BIT(0)

enum result emul_mwait(struct cpu *cpu, const struct insn *insn)
{
	if (!privileged(cpu) || monitor_absent(cpu))
		return fault_ud(cpu);
	if ((uint32_t)cpu->gpr[RCX] & ~MWAIT_BREAK_ON_IRQ)
		return fault_gp(cpu, 0);
	if (cpu_intercept(cpu, INTERCEPT_MWAIT, 0))
		return EMUL_INTERCEPTED;
	return insn_next(cpu, insn);
}

enum result emul_nop(struct cpu *cpu, const struct insn *insn)
{
	return insn_next(cpu, insn);
}

/* ---- software interrupts, system calls, hypercalls ---- */

enum result emul_int(struct cpu *cpu, const struct insn *insn)
{
	return sys_soft_interrupt(cpu, insn->imm, EVENT_SOFT_INT, insn->len);
}

enum result emul_int3(struct cpu *cpu, const struct insn *insn)
{
	return sys_soft_interrupt(cpu, VEC_BP, EVENT_SOFT_EXC, insn->len);
}

enum result emul_int1(struct cpu *cpu, const struct insn *insn)
{
	if (cpu_intercept(cpu, INTERCEPT_ICEBP, 0))
		return EMUL_INTERCEPTED;
	return sys_soft_interrupt(cpu, VEC_DB, EVENT_PRIV_SOFT_EXC, insn->len);
}

enum result emul_into(struct cpu *cpu, const struct insn *insn)
{
	if (!(cpu->aflags & 1))
		return insn_next(cpu, insn);
	return sys_soft_interrupt(cpu, VEC_OF, EVENT_SOFT_EXC, insn->len);
}

enum result emul_syscall(struct cpu *cpu, const struct insn *insn)
{
	return sys_syscall(cpu, cpu->rip + insn->len);
}

enum result emul_sysret(struct cpu *cpu, const struct insn *insn)
{
	return sys_sysret(cpu, insn->flags & INSN_REX_W ? 8 : 4);
}

enum result emul_sysenter(struct cpu *cpu, const struct insn *insn)
{
	return sys_sysenter(cpu);
}

enum result emul_sysexit(struct cpu *cpu, const struct insn *insn)
{
	return sys_sysexit(cpu, insn->flags & INSN_REX_W ? 8 : 4);
}

/* An answer of user space, if the platform has none itself: RAX. */
static enum result ask_hypercall(struct cpu *cpu, bool foreign, uint64_t *ret)
{
	const struct answer *answer = answers_take(cpu, ANSWER_HYPERCALL, 0, 8);
	enum platform_answer who;

	if (answer) {
		*ret = answer->data;
		return RESULT_OK;
	}
	who = platform_call(cpu, hypercall, foreign, ret);
	if (who != PLATFORM_USER)
		return who == PLATFORM_FAULT ? RESULT_FAULT : RESULT_OK;
	cpu->exit.kind = CPU_EXIT_HYPERCALL;
	cpu->exit.addr = 0;
	cpu->exit.size = 8;
	return RESULT_EXIT;
}

#define MODRM_VMCALL 0xc1 /* VMMCALL: d9 */

/*
 * VMCALL and VMMCALL: the hypervisor below is anykvm itself. The platform says what becomes of the other
 * vendor's, which silicon answers with #UD.
 */
enum result emul_hypercall(struct cpu *cpu, const struct insn *insn)
{
	bool foreign = (insn->modrm == MODRM_VMCALL) != model_intel(cpu->model);
	uint64_t val;
	enum result r;

	if (!virt_takes_call(cpu, foreign)) {
		if (cpu_intercept(cpu, INTERCEPT_VMCALL, foreign))
			return EMUL_INTERCEPTED;
		if (cpu_guest(cpu))
			return fault_ud(cpu); /* its own hypervisor does not want it */
	}
	r = ask_hypercall(cpu, foreign, &val);
	if (r)
		return r;
	cpu->gpr[RAX] = cpu->mode.code == CODE_64 ? val : (uint32_t)val;
	return insn_next(cpu, insn);
}

/* ---- ports ---- */

struct port_access {
	uint16_t port;
	unsigned size;
	bool imm;
};

/* E4 to E7 name the port in a byte, EC to EF in DX; the odd opcodes are 2 or 4 bytes wide. */
static struct port_access port_of(const struct cpu *cpu, const struct insn *insn)
{
	unsigned wide = min(emul_opsize(cpu, insn), 4u);
	bool imm = insn->opcode < 0xe8;

	return (struct port_access){
		.imm = imm,
		.port = imm ? (uint8_t)insn->imm : (uint16_t)cpu->gpr[RDX],
		.size = insn->opcode & 1 ? wide : 1,
	};
}

static enum result port_check(struct cpu *cpu, const struct port_access *p, bool in)
{
	uint64_t qualification = (uint64_t)p->port << 16 | (uint64_t)p->imm << 6 |
				 (uint64_t)in << 3 | (p->size - 1);
	enum result r = sys_io_check(cpu, p->port, p->size);

	if (!r && cpu_intercept(cpu, INTERCEPT_IO, qualification))
		return EMUL_INTERCEPTED;
	return r;
}

enum result emul_in(struct cpu *cpu, const struct insn *insn)
{
	struct port_access p = port_of(cpu, insn);
	uint64_t val;
	enum result r = port_check(cpu, &p, true);

	if (!r)
		r = sys_io_read(cpu, p.port, p.size, &val);
	if (r)
		return r;
	reg_write(cpu, RAX, p.size, false, val);
	return insn_next(cpu, insn);
}

enum result emul_out(struct cpu *cpu, const struct insn *insn)
{
	struct port_access p = port_of(cpu, insn);
	enum result r = port_check(cpu, &p, false);
	unsigned nr = cpu->out.nr;

	if (!r)
		r = sys_io_write(cpu, p.port, p.size, reg_read(cpu, RAX, p.size, false));
	if (cpu->out.nr > nr) {
		cpu->out.v[nr].is_out = true;
		cpu->out.v[nr].from = cpu->rip;
	}
	return r ? r : insn_next(cpu, insn);
}
