/* SPDX-License-Identifier: MIT */
/*
 * One logical processor: all of its architectural state, in memory.
 *
 * RFLAGS is kept in two parts. The six arithmetic flags stand in ->aflags as LAHF and SETO give
 * them (byte 0: OF as 0 or 1; byte 1: SF ZF 0 AF 0 PF 1 CF), so that a borrowed instruction loads and
 * stores them with `add $0x7f,%al; sahf` and `lahf; seto %al`. The rest is in ->sflags.
 * cpu_rflags() and cpu_set_rflags() put them together.
 *
 * Thread rule: everything is the vCPU thread's own, except ->attention, which any thread may raise
 * bits in with cpu_raise().
 */
#ifndef SILICON_CPU_CPU_H
#define SILICON_CPU_CPU_H

#include "silicon/cpu/exception.h"
#include "silicon/cpu/exit.h"
#include "silicon/cpu/fpu.h"
#include "silicon/cpu/intercept.h"
#include "silicon/cpu/platform.h"
#include "silicon/cpu/regs.h"
#include "silicon/cpu/types.h"
#include "silicon/cpu/virt.h"
#include "silicon/models/features.h"

struct tlb;	   /* mmu/tlb.h */
struct codemap;	   /* mmu/codemap.h */
struct exec_cache; /* exec/: decoded instructions and thunks of this vCPU */
struct cpu_model;  /* models/model.h */
struct amx;	   /* amx.h */

struct segment {
	uint64_t base;
	uint32_t limit; /* byte-granular, scaled already */
	uint32_t attr;	/* SEG_* */
	uint16_t sel;
};

struct dtable {
	uint64_t base;
	uint16_t limit;
};

/* The processor's mode, derived by cpu_update_mode() from CR0, EFER, RFLAGS.VM, CS and SS. */
enum code_mode { CODE_16, CODE_32, CODE_64 };

struct mode {
	uint8_t code; /* enum code_mode: default operand and address size */
	uint8_t cpl;
	uint8_t stack_bytes; /* 2, 4 or 8: width of the stack pointer */
	bool real;	     /* CR0.PE = 0 */
	bool v86;
	bool lma;	/* IA-32e mode: 64-bit or compatibility */
	bool flat;	/* CS, DS, ES, SS have base 0 and limit 4 GiB, or 64-bit mode */
	bool uneven[2]; /* FS, GS: not such a segment, whatever its base */
	uint8_t access; /* enum access_state: which of the TLB's tables explicit accesses use */
};

/* How a data access is judged by page protections; the TLB keeps a table of each. */
enum access_state {
	ACCESS_USER,	   /* CPL 3 */
	ACCESS_SUPER_SMAP, /* CPL 0 to 2, user pages refused */
	ACCESS_SUPER,	   /* CPL 0 to 2, SMAP off or EFLAGS.AC set */
	ACCESS_USER_ALIGN, /* CPL 3 with alignment checks: never hits */
	NR_ACCESS_STATES,
};

enum activity { ACTIVITY_RUN, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_SIPI };

/* Reasons to look up from the instruction stream; bits of ->attention. */
#define ATTN_REQUEST BIT(0)  /* any thread: call platform->service() */
#define ATTN_EVENTS  BIT(1)  /* any thread: an interrupt may be pending; IF may have opened */
#define ATTN_SHADOW  BIT(2)  /* ->shadow is not 0: ends after the next instruction */
#define ATTN_TF	     BIT(3)  /* single-step: RFLAGS.TF or guest debug */
#define ATTN_CODE_BP BIT(4)  /* code breakpoints are armed */
#define ATTN_DEBUG   BIT(5)  /* ->pending_dr6 holds a trap to deliver */
#define ATTN_INJECT  BIT(6)  /* ->inject is valid: deliver it first */
#define ATTN_RF	     BIT(7)  /* RFLAGS.RF is set: clear it after the next instruction */
#define ATTN_BUDGET  BIT(8)  /* stop after ->budget more instructions */
#define ATTN_NMI     BIT(9)  /* ->nmi_pending */
#define ATTN_SMI     BIT(10) /* ->smi_pending, outside of SMM */
#define ATTN_VIRT    BIT(11) /* ->virt->ops->attend() has something to look at */
#define ATTN_CODE    BIT(12) /* another processor's code: mmu/codemap.h */
#define ATTN_LIMIT   BIT(13) /* ->limit may be reached */
#define ATTN_LBR     BIT(14) /* branches are recorded: step by step */
#define ATTN_REFUSED BIT(15) /* ->restricted, and cpu_enterable() may be false */

/* What cpu_update_attention() derives from the rest. */
#define ATTN_DERIVED                                                                            \
	(ATTN_SHADOW | ATTN_TF | ATTN_CODE_BP | ATTN_DEBUG | ATTN_INJECT | ATTN_RF | ATTN_NMI | \
	 ATTN_SMI | ATTN_LBR)

#define SHADOW_STI    BIT(0)
#define SHADOW_MOV_SS BIT(1)

struct msrs {
	uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, misc_enable, mtrr_def_type, mtrr_fixed[11], mtrr_var[32];
	uint64_t spec_ctrl, xss, xfd, xfd_err, debugctl, misc_features, arch_capabilities,
		ucode_rev;
	uint64_t mcg_cap, mcg_status, mcg_ctl, mce_banks[32 * 4], mci_ctl2[32];
	uint64_t platform_info, feat_ctl, perf_capabilities, smi_count, smbase, hwcr;
	uint64_t tsc_adjust;
	uint64_t lbr[4];			/* LastBranchFromIP, ToIP, LastIntFromIP, ToIP */
	uint64_t vm_cr, vm_hsave_pa, tsc_ratio; /* SVM */
	uint64_t extra[32]; /* rows that need a plain 64-bit home and nothing else */
};

struct cpu {
	/* Thunks know the offsets of these first members (exec/). */
	uint64_t gpr[NR_GPRS];
	uint64_t rip;
	uint64_t zero; /* always: stands for an absent base or index (exec/) */
	uint64_t aflags;
	uint64_t sflags;
	uint32_t attention; /* atomic */
	uint32_t
		calm; /* 0 while ->attention is not, perhaps longer: what translated code looks at */
	struct mode mode;
	uint64_t retired;    /* instructions retired since creation; the clock of decisions.md 3 */
	uint64_t budget_end; /* ATTN_BUDGET: leave when retired reaches this */
	uint64_t limit;	     /* the same without attention; 0: none. exec_set_limit() sets it */

	struct segment seg[NR_SEGS];
	struct dtable gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, xcr0;
	uint64_t pdpte[4]; /* PAE paging: loaded with CR3, not re-read by walks */
	uint64_t dr[4], dr6, dr7;
	uint64_t pkru;
	struct msrs msr;

	/* Events. */
	struct event fault;  /* raised by the current instruction */
	struct event inject; /* to be delivered before the next instruction (ATTN_INJECT) */
	uint8_t shadow;	     /* SHADOW_* */
	uint8_t activity;    /* enum activity */
	bool nmi_pending, nmi_blocked;
	bool in_smm;	     /* flush the TLB whenever it changes: memory is another */
	bool smm_inside_nmi; /* NMIs were blocked at the SMI, and stay so after RSM */
	/*
	 * Whatever is pending was looked at while interrupts were open, and what comes later raises ATTN_EVENTS: IF and
	 * GIF may open without a look, and guest mode begin and end. Cleared by who may have missed something: events that
	 * found them shut, the program.
	 */
	bool looked;
	/* cpu_tell(); atomic. */
	uint32_t told;
	uint32_t spins; /* PAUSEs left until platform->spun() */
	/*
	 * Time is made of retired instructions: there always is a limit, and nothing is the host's own. ->random
	 * is the state of what RDRAND and RDSEED give. Set before exec_set_tempo(), for good.
	 */
	bool counted;
	uint64_t random;
	uint32_t
		code_most; /* MiB of translated code that there may be; 0: the usual. Set likewise */
	bool smi_pending;
	bool monitor_by_cpuid; /* MONITOR and MWAIT are #UD if CPUID says so; else they always exist */
	bool mwait_by_misc_enable; /* the program has CPUID say so by IA32_MISC_ENABLE */
	bool exit_on_emulation;	   /* devices are not for instructions without INSN_KVM_EMUL */
	bool restricted;	   /* a KVM without unrestricted guests: enterable.c */
	uint64_t pending_dr6;	   /* trap-class debug conditions of the retiring instruction */
	/* Guest debugging by the program (KVM_SET_GUEST_DEBUG): its DR7 view and single-step. */
	struct {
		bool enabled, singlestep, use_hw_bp, use_sw_bp;
		uint64_t dr[4], dr7;
	} debug;

	struct cpu_exit exit;
	struct answers answers;
	struct out_writes out;

	/* Rooms above hang their own state here. */
	const struct cpu_model *model;
	struct tlb *tlb;
	struct exec_cache *exec;
	struct virt *virt; /* VMX or SVM; NULL: neither */
	struct amx *amx;   /* NULL: the model has no tiles */
	const struct platform *platform;
	struct codemap *codemap; /* of the machine, or NULL: it is alone */
	unsigned codemap_index;
	void *opaque;
	uint64_t
		behaviour; /* bits of enum behaviour (behaviour.h): changes that this guest has been given */
	const uint64_t *tsc_offset; /* guest TSC - the host's, if there is no more to it; or NULL */

	/* Guest CPUID in the form that legality checks ask (models/features.h): a bitmap. */
	uint64_t model_features[8]; /* what the modelled silicon has: legality */
	uint64_t guest_features[8]; /* what KVM_SET_CPUID2 says: gates for MSRs and CR bits */
	uint8_t maxphyaddr;
	uint64_t cr4_reserved; /* bits that #GP, from guest_features */
	uint64_t xcr0_allowed;

	struct fpu fpu;
};

/* Any thread. Raise attention bits; a vCPU in cpu_run() sees them before its next instruction. */
static inline void cpu_raise(struct cpu *cpu, uint32_t bits)
{
	__atomic_fetch_or(&cpu->attention, bits, __ATOMIC_SEQ_CST);
	__atomic_store_n(&cpu->calm, 0, __ATOMIC_SEQ_CST);
}

/* Any thread, before an event is made known that others' writes may have come before: it is to begin an epoch. */
static inline void cpu_tell(struct cpu *cpu)
{
	__atomic_fetch_add(&cpu->told, 1, __ATOMIC_SEQ_CST);
}

/* vCPU thread. No bit is up: say so, unless one comes up meanwhile. */
static inline void cpu_calm(struct cpu *cpu)
{
	__atomic_store_n(&cpu->calm, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&cpu->attention, __ATOMIC_SEQ_CST))
		__atomic_store_n(&cpu->calm, 0, __ATOMIC_SEQ_CST);
}

static inline void cpu_lower(struct cpu *cpu, uint32_t bits)
{
	__atomic_fetch_and(&cpu->attention, ~bits, __ATOMIC_SEQ_CST);
}

/* cpu_run() has to end here, by CPU_EXIT_REQUEST. */
static inline bool cpu_at_limit(const struct cpu *cpu)
{
	return cpu->limit - 1 < cpu->retired;
}

/* IF has opened. In guest mode virtual interrupts may wait for it. */
static inline void cpu_look(struct cpu *cpu)
{
	if (unlikely(cpu->virt != NULL) && cpu->virt->guest)
		cpu_raise(cpu, ATTN_VIRT);
	if (!cpu->looked)
		cpu_raise(cpu, ATTN_EVENTS);
}

/* Arithmetic flags between their two forms. */
static inline uint64_t flags_from_arith(uint64_t aflags)
{
	return ((aflags >> 8) & (FLAGS_ARITH & 0xff)) | ((aflags & 1) << 11);
}

static inline uint64_t flags_to_arith(uint64_t rflags)
{
	return ((rflags & (FLAGS_ARITH & 0xff)) << 8) | 0x200 | ((rflags >> 11) & 1);
}

static inline uint64_t cpu_rflags(const struct cpu *cpu)
{
	return flags_from_arith(cpu->aflags) | cpu->sflags | FLAG_FIXED;
}

static inline bool cpu_long_mode(const struct cpu *cpu)
{
	return cpu->mode.lma;
}

static inline bool cpu_64bit(const struct cpu *cpu)
{
	return cpu->mode.code == CODE_64;
}

static inline bool cpu_paging(const struct cpu *cpu)
{
	return cpu->cr0 & CR0_PG;
}

/* Recompute ->mode.access after CPL, EFLAGS.AC, CR0.AM or CR4.SMAP changed. */
static inline void cpu_update_access(struct cpu *cpu)
{
	bool ac = cpu->sflags & FLAG_AC;

	if (cpu->mode.cpl == 3)
		cpu->mode.access = ac && (cpu->cr0 & CR0_AM) ? ACCESS_USER_ALIGN : ACCESS_USER;
	else
		cpu->mode.access = (cpu->cr4 & CR4_SMAP) && !ac ? ACCESS_SUPER_SMAP : ACCESS_SUPER;
}

/* The debug registers in force: the program's (guest debugging) or the guest's own. */
static inline uint64_t cpu_dr7(const struct cpu *cpu)
{
	return cpu->debug.enabled && cpu->debug.use_hw_bp ? cpu->debug.dr7 : cpu->dr7;
}

static inline uint64_t cpu_dr(const struct cpu *cpu, unsigned n)
{
	return cpu->debug.enabled && cpu->debug.use_hw_bp ? cpu->debug.dr[n] : cpu->dr[n];
}

/*
 * vCPU thread only.
 * Replace RFLAGS whole; mode, attention (TF, RF, IF window) follow. Reserved bits are masked.
 */
void cpu_set_rflags(struct cpu *cpu, uint64_t rflags);
/*
 * Recompute ->mode; call after CR0, CR4, EFER, CS, SS or VM changed. CPL is SS.DPL, as in VMX: who loads
 * a null SS in 64-bit mode keeps the DPL in its attributes.
 */
void cpu_update_mode(struct cpu *cpu);
/*
 * enterable.c. True where KVM could enter the guest on a processor without unrestricted guests (SDM, checks on guest
 * segment registers); in guest mode always. cpu_judge() raises or lowers ATTN_REFUSED by it; cpu_refused() looks
 * anew where that bit is up, and is false without ->restricted.
 */
bool cpu_enterable(const struct cpu *cpu);
void cpu_judge(struct cpu *cpu);
bool cpu_refused(struct cpu *cpu);
/*
 * In such a state KVM has no way to deliver an exception: true if it is one. It is cpu->inject then,
 * not looked at yet by a guest hypervisor if pending, and cpu->exit CPU_EXIT_EMULATION. Real mode has one, as a virtual-8086 task.
 */
bool cpu_refuses(struct cpu *cpu, const struct event *ev, bool pending);
/* Recompute the attention bits that derive from state (TF, breakpoints, shadow, injection). */
void cpu_update_attention(struct cpu *cpu);
/* Set one of SHADOW_*, as STI and MOV SS do (SDM: a second one in a row is not extended). */
void cpu_set_shadow(struct cpu *cpu, uint8_t shadow);
/*
 * State after RESET# (init false) or INIT (true): SDM, processor management and initialization. The TLB
 * is not touched: call mmu_flush_all() and mmu_update_mode() afterwards if there is one.
 */
void cpu_reset(struct cpu *cpu, bool init);

/* In guest mode: a hypervisor that is itself a guest decides what happens. */
static inline bool cpu_guest(const struct cpu *cpu)
{
	return unlikely(cpu->virt != NULL) && cpu->virt->guest;
}

/*
 * True where a guest hypervisor intercepts: the exit to it is made, struct cpu is the hypervisor's. The
 * qualification is VMX's for this kind; SVM makes its own of it.
 */
static inline bool cpu_intercept(struct cpu *cpu, enum intercept kind, uint64_t qualification)
{
	if (!cpu_guest(cpu) || !(cpu->virt->intercepts & BIT(kind)))
		return false;
	return cpu->virt->ops->intercept(cpu, kind, qualification);
}

/* In guest mode, and the guest hypervisor may want events of this kind. */
static inline bool cpu_intercepts(const struct cpu *cpu, enum intercept kind)
{
	return cpu_guest(cpu) && (cpu->virt->intercepts & BIT(kind));
}

/* Last branches are recorded: AMD's processors that can lend the records to guests. */
static inline bool cpu_lbr(const struct cpu *cpu)
{
	return unlikely(cpu->msr.debugctl & DEBUGCTL_LBR) &&
	       feature_has(cpu->model_features, FEAT_LBRV);
}

/* RFLAGS.IF, SVM's GIF and the shadow let the platform's interrupts in (or lead to an exit). */
static inline bool cpu_interrupt_open(const struct cpu *cpu)
{
	if (unlikely(cpu->virt != NULL)) {
		if (!cpu->virt->gif)
			return false;
		if (cpu->virt->guest && cpu->virt->if_apart && !cpu->virt->if_host)
			return false;
		if (cpu_intercepts(cpu, INTERCEPT_INTERRUPT))
			return cpu->virt->if_apart || (cpu->sflags & FLAG_IF);
		if (cpu->virt->guest && cpu->virt->if_apart)
			return !cpu->shadow;
	}
	return (cpu->sflags & FLAG_IF) && !cpu->shadow;
}

/* The same of NMIs. */
static inline bool cpu_nmi_open(const struct cpu *cpu)
{
	if (cpu->virt && !cpu->virt->gif)
		return false;
	if (cpu_intercepts(cpu, INTERCEPT_NMI))
		return cpu->virt->vnmi || !cpu->nmi_blocked;
	return !cpu->nmi_blocked && !cpu->shadow;
}

static inline bool cpu_smi_open(const struct cpu *cpu)
{
	return !cpu->in_smm && (!cpu->virt || cpu->virt->gif);
}

static inline void fpu_load(struct cpu *cpu)
{
	if (!cpu->fpu.live)
		__fpu_load(cpu);
}

static inline void fpu_save(struct cpu *cpu)
{
	if (cpu->fpu.live)
		__fpu_save(cpu);
}

/*
 * Sanitizers bring calls of their own into code built for general registers only (memcpy() and its kin are
 * theirs), so in their builds vector state is put away where C goes on after an instruction.
 */
#ifdef __SANITIZE_ADDRESS__
#define FPU_STAYS_LIVE 0
#else
#define FPU_STAYS_LIVE 1
#endif

static inline void fpu_settle(struct cpu *cpu)
{
	if (!FPU_STAYS_LIVE)
		fpu_save(cpu);
}

/* platform->alone(), which may be absent. */
#define cpu_alone(cpu, on)                                 \
	do {                                               \
		if ((cpu)->platform->alone)                \
			platform_call((cpu), alone, (on)); \
	} while (0)

/* Somebody wants to hear of guest mode: by platform_call(cpu, guest_mode, &note). */
static inline bool cpu_notes(const struct cpu *cpu)
{
	return unlikely(cpu->platform->guest_mode != NULL);
}

/* Call a platform operation with guest vector state put away. */
#define platform_call(cpu, op, ...) \
	(fpu_save(cpu), (cpu)->platform->op((cpu)->opaque, ##__VA_ARGS__))

#endif
