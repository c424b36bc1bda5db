/* SPDX-License-Identifier: MIT */
/*
 * General, system and extended control registers by ioctl. Setting checks as KVM does, which is
 * less than silicon would: what a guest could not load, but KVM takes, is taken.
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "silicon/mmu/mmu.h"

#include <string.h>

uint64_t vcpu_linear_rip(const struct vcpu *vcpu)
{
	const struct cpu *cpu = &vcpu->cpu;

	if (cpu_64bit(cpu))
		return cpu->rip;
	return (uint32_t)(cpu->seg[SEG_CS].base + cpu->rip);
}

/* ---- general registers ---- */

static void get_regs(const struct vcpu *vcpu, struct kvm_regs *r)
{
	const struct cpu *cpu = &vcpu->cpu;
	const uint64_t *g = cpu->gpr;

	*r = (struct kvm_regs){
		.rax = g[RAX],
		.rbx = g[RBX],
		.rcx = g[RCX],
		.rdx = g[RDX],
		.rsi = g[RSI],
		.rdi = g[RDI],
		.rsp = g[RSP],
		.rbp = g[RBP],
		.r8 = g[R8],
		.r9 = g[R9],
		.r10 = g[R10],
		.r11 = g[R11],
		.r12 = g[R12],
		.r13 = g[R13],
		.r14 = g[R14],
		.r15 = g[R15],
		.rip = cpu->rip,
		.rflags = cpu_rflags(cpu),
	};
}

/* Without effect on an exit that is open: it is completed if RIP still stands on its instruction. */
static void set_regs(struct vcpu *vcpu, const struct kvm_regs *r)
{
	struct cpu *cpu = &vcpu->cpu;
	const uint64_t g[NR_GPRS] = {
		[RAX] = r->rax, [RCX] = r->rcx, [RDX] = r->rdx, [RBX] = r->rbx,
		[RSP] = r->rsp, [RBP] = r->rbp, [RSI] = r->rsi, [RDI] = r->rdi,
		[R8] = r->r8,	[R9] = r->r9,	[R10] = r->r10, [R11] = r->r11,
		[R12] = r->r12, [R13] = r->r13, [R14] = r->r14, [R15] = r->r15,
	};

	memcpy(cpu->gpr, g, sizeof(g));
	cpu->rip = r->rip;
	cpu_set_rflags(cpu, r->rflags);
	if (cpu->inject.valid && cpu->inject.has_payload)
		cpu->inject.valid = false;
	cpu->pending_dr6 = 0;
	cpu_update_attention(cpu);
	cpu_raise(cpu, ATTN_EVENTS);
}

long vcpu_get_regs(struct vcpu *vcpu, void *arg)
{
	get_regs(vcpu, arg);
	return 0;
}

long vcpu_set_regs(struct vcpu *vcpu, void *arg)
{
	set_regs(vcpu, arg);
	return 0;
}

/* ---- system registers ---- */

static struct kvm_segment get_segment(const struct segment *seg)
{
	uint32_t a = seg->attr;

	return (struct kvm_segment){
		.base = seg->base,
		.limit = seg->limit,
		.selector = seg->sel,
		.type = SEG_TYPE(a),
		.present = !!(a & SEG_P),
		.dpl = SEG_DPL(a),
		.db = !!(a & SEG_DB),
		.s = !!(a & SEG_S),
		.l = !!(a & SEG_L),
		.g = !!(a & SEG_G),
		.avl = !!(a & SEG_AVL),
		.unusable = !!(a & SEG_UNUSABLE),
	};
}

static struct segment set_segment(const struct kvm_segment *s)
{
	uint32_t attr = (s->type & 0xf) | (s->dpl & 3u) << SEG_DPL_SHIFT;

	attr |= s->s ? SEG_S : 0;
	attr |= s->present ? SEG_P : 0;
	attr |= s->avl ? SEG_AVL : 0;
	attr |= s->l ? SEG_L : 0;
	attr |= s->db ? SEG_DB : 0;
	attr |= s->g ? SEG_G : 0;
	attr |= s->unusable || !s->present ? SEG_UNUSABLE : 0;
	return (struct segment){
		.base = s->base, .limit = s->limit, .sel = s->selector, .attr = attr};
}

/* struct kvm_sregs and kvm_sregs2 are alike up to ->apic_base. */
static void get_sregs_common(struct vcpu *vcpu, struct kvm_sregs *s)
{
	const struct cpu *cpu = &vcpu->cpu;
	const struct segment *seg = cpu->seg;

	s->cs = get_segment(&seg[SEG_CS]);
	s->ds = get_segment(&seg[SEG_DS]);
	s->es = get_segment(&seg[SEG_ES]);
	s->fs = get_segment(&seg[SEG_FS]);
	s->gs = get_segment(&seg[SEG_GS]);
	s->ss = get_segment(&seg[SEG_SS]);
	s->tr = get_segment(&seg[SEG_TR]);
	s->ldt = get_segment(&seg[SEG_LDTR]);
	s->gdt = (struct kvm_dtable){.base = cpu->gdtr.base, .limit = cpu->gdtr.limit};
	s->idt = (struct kvm_dtable){.base = cpu->idtr.base, .limit = cpu->idtr.limit};
	s->cr0 = cpu->cr0;
	s->cr2 = cpu->cr2;
	s->cr3 = cpu->cr3;
	s->cr4 = cpu->cr4;
	s->cr8 = vcpu_get_cr8(vcpu);
	s->efer = cpu->msr.efer;
	s->apic_base = vcpu_get_apic_base(vcpu);
}

static int injected_vector(const struct vcpu *vcpu)
{
	const struct event *ev = &vcpu->cpu.inject;

	if (ev->valid && ev->type == EVENT_INTERRUPT)
		return ev->vector;
	return vcpu->lapic ? -1 : vcpu->interrupt_injected;
}

static void get_sregs(struct vcpu *vcpu, struct kvm_sregs *s)
{
	int vector = injected_vector(vcpu);

	memset(s, 0, sizeof(*s));
	get_sregs_common(vcpu, s);
	if (vector >= 0)
		s->interrupt_bitmap[vector / 64] |= BIT(vector % 64);
}

long vcpu_get_sregs(struct vcpu *vcpu, void *arg)
{
	get_sregs(vcpu, arg);
	return 0;
}

static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

long vcpu_get_sregs2(struct vcpu *vcpu, void *arg)
{
	struct kvm_sregs2 *s = arg;
	struct cpu *cpu = &vcpu->cpu;

	memset(s, 0, sizeof(*s));
	get_sregs_common(vcpu, (struct kvm_sregs *)s);
	if (pae_paging(cpu->cr0, cpu->cr4, cpu->msr.efer)) {
		memcpy(s->pdptrs, cpu->pdpte, sizeof(s->pdptrs));
		s->flags |= KVM_SREGS2_FLAGS_PDPTRS_VALID;
	}
	return 0;
}

static bool efer_valid(const struct vcpu *vcpu, uint64_t efer)
{
	const uint64_t *f = vcpu->cpu.guest_features;
	uint64_t allowed = EFER_SCE;

	if (feature_has(f, FEAT_LM))
		allowed |= EFER_LME | EFER_LMA;
	if (feature_has(f, FEAT_NX))
		allowed |= EFER_NX;
	if (feature_has(f, FEAT_FXSR_OPT))
		allowed |= EFER_FFXSR;
	if (feature_has(f, FEAT_SVM))
		allowed |= EFER_SVME;
	return !(efer & ~allowed);
}

static bool cr0_valid(uint64_t cr0)
{
	if (cr0 >> 32)
		return false;
	if ((cr0 & CR0_NW) && !(cr0 & CR0_CD))
		return false;
	return !(cr0 & CR0_PG) || (cr0 & CR0_PE);
}

static bool sregs_valid(const struct vcpu *vcpu, const struct kvm_sregs *s)
{
	if ((s->efer & EFER_LME) && (s->cr0 & CR0_PG)) {
		if (!(s->cr4 & CR4_PAE) || !(s->efer & EFER_LMA))
			return false;
		if (s->cr3 >> vcpu->cpu.maxphyaddr)
			return false;
	} else if ((s->efer & EFER_LMA) || s->cs.l) {
		return false;
	}
	return !(s->cr4 & vcpu->cpu.cr4_reserved) && cr0_valid(s->cr0) && efer_valid(vcpu, s->efer);
}

static void set_segments(struct cpu *cpu, const struct kvm_sregs *s)
{
	cpu->seg[SEG_CS] = set_segment(&s->cs);
	cpu->seg[SEG_DS] = set_segment(&s->ds);
	cpu->seg[SEG_ES] = set_segment(&s->es);
	cpu->seg[SEG_FS] = set_segment(&s->fs);
	cpu->seg[SEG_GS] = set_segment(&s->gs);
	cpu->seg[SEG_SS] = set_segment(&s->ss);
	cpu->seg[SEG_TR] = set_segment(&s->tr);
	cpu->seg[SEG_LDTR] = set_segment(&s->ldt);
}

/* Older programs do not set MP_STATE when they reset a vCPU: reset registers of the BSP do. */
static void unhalt_at_reset_vector(struct vcpu *vcpu, const struct kvm_sregs *s)
{
	if (vcpu->id == vcpu->vm->boot_cpu_id && vcpu->cpu.rip == 0xfff0 &&
	    s->cs.selector == 0xf000 && s->cs.base == 0xffff0000 && !(s->cr0 & CR0_PE))
		vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
}

static long set_sregs_common(struct vcpu *vcpu, const struct kvm_sregs *s, bool read_pdptes)
{
	struct cpu *cpu = &vcpu->cpu;

	if (!sregs_valid(vcpu, s) || !vcpu_set_apic_base(vcpu, s->apic_base, true))
		return -EINVAL;
	/* All checks passed. */
	cpu->idtr = (struct dtable){.base = s->idt.base, .limit = s->idt.limit};
	cpu->gdtr = (struct dtable){.base = s->gdt.base, .limit = s->gdt.limit};
	cpu->cr2 = s->cr2;
	cpu->cr3 = s->cr3;
	cpu->msr.efer = s->efer;
	cpu->cr0 = s->cr0 | CR0_ET;
	cpu->cr4 = s->cr4;
	set_segments(cpu, s);
	vcpu_set_cr8(vcpu, s->cr8);
	cpu_update_mode(cpu);
	mmu_flush_all(cpu);
	mmu_update_mode(cpu);
	if (read_pdptes && pae_paging(cpu->cr0, cpu->cr4, cpu->msr.efer) &&
	    mmu_load_pdptes(cpu, cpu->cr3))
		cpu->fault.valid = false;
	unhalt_at_reset_vector(vcpu, s);
	vcpu->judge_guest = cpu_guest(cpu);
	cpu_update_attention(cpu);
	cpu_raise(cpu, ATTN_EVENTS);
	return 0;
}

static void set_pending_vector(struct vcpu *vcpu, const struct kvm_sregs *s)
{
	for (unsigned i = 0; i < ARRAY_SIZE(s->interrupt_bitmap); i++) {
		if (!s->interrupt_bitmap[i])
			continue;
		vcpu->cpu.inject = (struct event){
			.valid = true,
			.type = EVENT_INTERRUPT,
			.vector = 64 * i + __builtin_ctzll(s->interrupt_bitmap[i]),
		};
		cpu_update_attention(&vcpu->cpu);
		return;
	}
}

static long set_sregs(struct vcpu *vcpu, const struct kvm_sregs *s)
{
	long r = set_sregs_common(vcpu, s, true);

	if (!r)
		set_pending_vector(vcpu, s);
	return r;
}

long vcpu_set_sregs(struct vcpu *vcpu, void *arg)
{
	return set_sregs(vcpu, arg);
}

long vcpu_set_sregs2(struct vcpu *vcpu, void *arg)
{
	const struct kvm_sregs2 *s = arg;
	bool valid_pdptrs = s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
	long r;

	if (s->flags & ~(uint64_t)KVM_SREGS2_FLAGS_PDPTRS_VALID)
		return -EINVAL;
	if (valid_pdptrs && !pae_paging(s->cr0, s->cr4, s->efer))
		return -EINVAL;
	r = set_sregs_common(vcpu, (const struct kvm_sregs *)s, !valid_pdptrs);
	if (!r && valid_pdptrs)
		memcpy(vcpu->cpu.pdpte, s->pdptrs, sizeof(s->pdptrs));
	return r;
}

/* ---- XCR0 ---- */

long vcpu_get_xcrs(struct vcpu *vcpu, void *arg)
{
	struct kvm_xcrs *x = arg;

	memset(x, 0, sizeof(*x));
	if (!feature_has(vcpu->cpu.model_features, FEAT_XSAVE))
		return 0;
	x->nr_xcrs = 1;
	x->xcrs[0].value = vcpu->cpu.xcr0;
	return 0;
}

/* SDM, XSETBV: x87 always, AVX with SSE, the three parts of AVX-512 together and with AVX, both of AMX or none. */
static bool xcr0_valid(const struct vcpu *vcpu, uint64_t xcr0)
{
	if (!(xcr0 & XCR0_X87) || (xcr0 & ~(vcpu->cpu.xcr0_allowed | XCR0_X87)))
		return false;
	if ((xcr0 & XCR0_AVX) && !(xcr0 & XCR0_SSE))
		return false;
	if (xcr0 & XCR0_AMX && (xcr0 & XCR0_AMX) != XCR0_AMX)
		return false;
	if (!(xcr0 & XCR0_AVX512))
		return true;
	return (xcr0 & XCR0_AVX512) == XCR0_AVX512 && (xcr0 & XCR0_AVX);
}

long vcpu_set_xcrs(struct vcpu *vcpu, void *arg)
{
	const struct kvm_xcrs *x = arg;

	if (!feature_has(vcpu->cpu.model_features, FEAT_XSAVE))
		return -EINVAL;
	if (x->nr_xcrs > KVM_MAX_XCRS || x->flags)
		return -EINVAL;
	for (unsigned i = 0; i < x->nr_xcrs; i++) {
		if (x->xcrs[i].xcr != 0)
			continue;
		if (!xcr0_valid(vcpu, x->xcrs[i].value))
			return -EINVAL;
		vcpu->cpu.xcr0 = x->xcrs[i].value;
		break;
	}
	return 0;
}

/* ---- KVM_CAP_SYNC_REGS ---- */

int vcpu_sync_in(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct kvm_sync_regs sync = run->s.regs;

	if ((run->kvm_valid_regs | run->kvm_dirty_regs) & ~(uint64_t)VCPU_SYNC_FIELDS)
		return -EINVAL;
	if (run->kvm_dirty_regs & KVM_SYNC_X86_REGS)
		set_regs(vcpu, &sync.regs);
	if ((run->kvm_dirty_regs & KVM_SYNC_X86_SREGS) && set_sregs(vcpu, &sync.sregs))
		return -EINVAL;
	if ((run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS) && vcpu_set_events(vcpu, &sync.events))
		return -EINVAL;
	run->kvm_dirty_regs &= ~(uint64_t)VCPU_SYNC_FIELDS;
	return 0;
}

void vcpu_sync_out(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	if (run->kvm_valid_regs & KVM_SYNC_X86_REGS)
		get_regs(vcpu, &run->s.regs.regs);
	if (run->kvm_valid_regs & KVM_SYNC_X86_SREGS)
		get_sregs(vcpu, &run->s.regs.sregs);
	if (run->kvm_valid_regs & KVM_SYNC_X86_EVENTS)
		vcpu_get_events(vcpu, &run->s.regs.events);
}
