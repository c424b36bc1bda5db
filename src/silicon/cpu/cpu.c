/* SPDX-License-Identifier: MIT */
/*
 * What derives from the processor's state: its mode, its attention bits, its state after reset.
 *
 * Everything derived is recomputed whole from the registers, never patched: the functions may be
 * called at any time and twice.
 */
#include "silicon/cpu/amx.h"
#include "silicon/cpu/cpu.h"

#include <string.h>

#define RDX_UNKNOWN 0x600 /* family 6: what KVM reports without CPUID */
#define PAT_RESET   0x0007040600070406ull
#define DR7_CODE(n) (16 + 4 * (n))

static uint8_t find_cpl(const struct cpu *cpu, const struct mode *mode)
{
	if (mode->real)
		return 0;
	return mode->v86 ? 3 : SEG_DPL(cpu->seg[SEG_SS].attr);
}

static uint8_t find_code(const struct cpu *cpu, const struct mode *mode)
{
	uint32_t attr = cpu->seg[SEG_CS].attr;

	if (mode->lma && (attr & SEG_L))
		return CODE_64;
	return (attr & SEG_DB) && !mode->v86 ? CODE_32 : CODE_16;
}

static uint8_t find_stack_bytes(const struct cpu *cpu, const struct mode *mode)
{
	if (mode->code == CODE_64)
		return 8;
	return (cpu->seg[SEG_SS].attr & SEG_DB) && !mode->v86 ? 4 : 2;
}

/* Limit 4 GiB, readable; data segments writable, too. */
static bool is_whole(const struct segment *seg)
{
	uint32_t data = SEG_S | SEG_W | SEG_P;

	return seg->limit == 0xffffffff && (seg->attr & data) == data &&
	       !(seg->attr & SEG_UNUSABLE) && ((seg->attr & SEG_CODE) || !(seg->attr & SEG_E));
}

static bool is_flat(const struct segment *seg)
{
	return !seg->base && is_whole(seg);
}

static bool is_flat_data(const struct segment *seg)
{
	return is_flat(seg) && !(seg->attr & SEG_CODE);
}

static bool is_uneven(const struct segment *seg)
{
	return !is_whole(seg) || (seg->attr & SEG_CODE);
}

void cpu_update_mode(struct cpu *cpu)
{
	struct mode *mode = &cpu->mode;

	mode->real = !(cpu->cr0 & CR0_PE);
	mode->lma = cpu->msr.efer & EFER_LMA;
	mode->v86 = !mode->real && !mode->lma && (cpu->sflags & FLAG_VM);
	mode->cpl = find_cpl(cpu, mode);
	mode->code = find_code(cpu, mode);
	mode->stack_bytes = find_stack_bytes(cpu, mode);
	mode->flat = mode->code == CODE_64 ||
		     (is_flat(&cpu->seg[SEG_CS]) && is_flat_data(&cpu->seg[SEG_SS]) &&
		      is_flat_data(&cpu->seg[SEG_DS]) && is_flat_data(&cpu->seg[SEG_ES]));
	mode->uneven[0] = is_uneven(&cpu->seg[SEG_FS]);
	mode->uneven[1] = is_uneven(&cpu->seg[SEG_GS]);
	cpu_update_access(cpu);
	if (unlikely(cpu->restricted))
		cpu_judge(cpu);
}

/* R/W field 0 is execution; L and G enable alike. */
static bool code_breakpoints(const struct cpu *cpu)
{
	uint64_t dr7 = cpu_dr7(cpu);

	for (unsigned n = 0; n < 4; n++)
		if ((dr7 >> 2 * n & 3) && !(dr7 >> DR7_CODE(n) & 3))
			return true;
	return false;
}

static uint32_t derive_attention(const struct cpu *cpu)
{
	uint32_t bits = 0;

	if (cpu->shadow)
		bits |= ATTN_SHADOW;
	if ((cpu->sflags & FLAG_TF) || (cpu->debug.enabled && cpu->debug.singlestep))
		bits |= ATTN_TF;
	if (code_breakpoints(cpu))
		bits |= ATTN_CODE_BP;
	if (cpu->pending_dr6)
		bits |= ATTN_DEBUG;
	if (cpu->inject.valid)
		bits |= ATTN_INJECT;
	if (cpu->sflags & FLAG_RF)
		bits |= ATTN_RF;
	if (cpu->nmi_pending)
		bits |= ATTN_NMI;
	if (cpu->smi_pending && !cpu->in_smm)
		bits |= ATTN_SMI;
	if (cpu_lbr(cpu))
		bits |= ATTN_LBR;
	return bits;
}

/* Other threads raise the rest of the bits meanwhile, hence single atomic steps, and only if needed. */
void cpu_update_attention(struct cpu *cpu)
{
	uint32_t now = __atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) & ATTN_DERIVED;
	uint32_t want = derive_attention(cpu);

	if (want & ~now)
		cpu_raise(cpu, want & ~now);
	if (now & ~want)
		cpu_lower(cpu, now & ~want);
}

void cpu_set_rflags(struct cpu *cpu, uint64_t rflags)
{
	uint64_t old = cpu->sflags, new = rflags &FLAGS_SYSTEM;

	cpu->aflags = flags_to_arith(rflags);
	cpu->sflags = new;
	if ((old ^ new) & FLAG_VM)
		cpu_update_mode(cpu);
	if ((old ^ new) & FLAG_AC)
		cpu_update_access(cpu);
	if ((old ^ new) & (FLAG_TF | FLAG_RF))
		cpu_update_attention(cpu);
	if (new & ~old & FLAG_IF)
		cpu_look(cpu);
}

void cpu_set_shadow(struct cpu *cpu, uint8_t shadow)
{
	if (cpu->shadow & shadow)
		return;
	cpu->shadow |= shadow;
	cpu_raise(cpu, ATTN_SHADOW);
}

/* ---- reset ---- */

static void reset_segments(struct cpu *cpu)
{
	struct segment data = {.limit = 0xffff, .attr = SEG_P | SEG_S | SEG_W | SEG_A};

	for (unsigned i = 0; i < NR_SEGS; i++)
		cpu->seg[i] = data;
	cpu->seg[SEG_CS].sel = 0xf000;
	cpu->seg[SEG_CS].base = 0xffff0000;
	cpu->seg[SEG_CS].attr |= SEG_CODE;
	cpu->seg[SEG_LDTR].attr = SEG_P | 0x2;
	cpu->seg[SEG_TR].attr = SEG_P | 0xb;
	cpu->gdtr = (struct dtable){.limit = 0xffff};
	cpu->idtr = (struct dtable){.limit = 0xffff};
}

static void reset_control(struct cpu *cpu, bool init)
{
	uint64_t cache = init ? cpu->cr0 & (CR0_NW | CR0_CD) : CR0_NW | CR0_CD;

	cpu->cr0 = CR0_ET | cache;
	cpu->cr2 = 0;
	cpu->cr3 = 0;
	cpu->cr4 = 0;
	cpu->msr.efer = 0;
	cpu->dr6 = DR6_FIXED_1;
	cpu->dr7 = DR7_FIXED_1;
	memset(cpu->dr, 0, sizeof(cpu->dr));
	memset(cpu->pdpte, 0, sizeof(cpu->pdpte));
}

static void reset_events(struct cpu *cpu)
{
	cpu->fault.valid = false;
	cpu->inject.valid = false;
	cpu->shadow = 0;
	cpu->activity = ACTIVITY_RUN;
	cpu->nmi_pending = false;
	cpu->nmi_blocked = false;
	cpu->looked = false;
	cpu->in_smm = false;
	cpu->smm_inside_nmi = false;
	cpu->smi_pending = false;
	cpu->msr.smi_count = 0;
	cpu->pending_dr6 = 0;
	answers_reset(cpu);
}

/* RDX tells the processor's signature, CPUID leaf 1. */
static uint64_t signature(struct cpu *cpu)
{
	uint32_t regs[4] = {0};

	if (cpu->platform && cpu->platform->cpuid)
		platform_call(cpu, cpuid, 1, 0, regs);
	return regs[0] ? regs[0] : RDX_UNKNOWN;
}

/* What INIT leaves alone (SDM: MSRs, x87 and vector state, XCR0). */
static void reset_kept_by_init(struct cpu *cpu)
{
	memset(&cpu->msr, 0, sizeof(cpu->msr));
	cpu->msr.pat = PAT_RESET;
	cpu->xcr0 = XCR0_X87;
	cpu->pkru = 0;
	if (cpu->amx)
		memset(cpu->amx, 0, sizeof(*cpu->amx));
	fpu_reset(cpu);
}

void cpu_reset(struct cpu *cpu, bool init)
{
	if (cpu->virt)
		cpu->virt->ops->reset(cpu);
	if (!init)
		reset_kept_by_init(cpu);
	memset(cpu->gpr, 0, sizeof(cpu->gpr));
	cpu->gpr[RDX] = signature(cpu);
	cpu->rip = 0xfff0;
	reset_segments(cpu);
	reset_control(cpu, init);
	reset_events(cpu);
	cpu->aflags = flags_to_arith(0);
	cpu->sflags = 0;
	cpu_update_mode(cpu);
	cpu_update_attention(cpu);
}
