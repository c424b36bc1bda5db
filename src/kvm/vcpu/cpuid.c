/* SPDX-License-Identifier: MIT */
/*
 * CPUID as KVM offers it (KVM_GET_SUPPORTED_CPUID), as the program sets it, and as the guest reads
 * it. Offered are the model's rows, less what KVM leaves to the program (topology) or never
 * offers (MONITOR, frequencies). Which leaves and subleaves come, in which order and with which flags
 * follows Linux 6.12.
 */
#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/pv/hv.h"
#include "kvm/pv/pv.h"
#include "kvm/pv/xen.h"
#include "silicon/mmu/mmu.h"

#include <linux/kvm_para.h>
#include <stdlib.h>
#include <string.h>

struct list {
	struct kvm_cpuid_entry2 *v;
	unsigned nr, max;
	bool overflow;
	uint64_t xcr0; /* components that are offered */
};

static struct kvm_cpuid_entry2 *list_add(struct list *l, uint32_t leaf, uint32_t subleaf,
					 bool indexed)
{
	static const struct kvm_cpuid_entry2 none;
	struct kvm_cpuid_entry2 *e;

	if (l->nr == l->max) {
		l->overflow = true;
		return NULL;
	}
	e = &l->v[l->nr++];
	*e = none;
	e->function = leaf;
	e->index = subleaf;
	e->flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
	return e;
}

/* ---- what is offered ---- */

enum leaf_kind {
	LEAF_ZERO, /* listed, empty */
	LEAF_PLAIN,
	LEAF_INDEXED_ZERO, /* as zero, with a significant index */
	LEAF_FIRST,	   /* subleaf 0, with a significant index */
	LEAF_ALL,	   /* every subleaf that the model has, one empty one after them (caches) */
	LEAF_PRESENT,	   /* every subleaf that the model has */
};

static const struct leaf_rule {
	uint32_t leaf;
	uint8_t kind;
	uint32_t mask[4]; /* bits that KVM hands on */
} leaf_rules[] = {
	{0x0, LEAF_PLAIN, {~0u, ~0u, ~0u, ~0u}},
	/* MONITOR, TSC deadline (a capability of its own), OSXSAVE, the hypervisor bit; HTT. */
	{0x1, LEAF_PLAIN, {~0u, ~0u, ~(1u << 3 | 1u << 24 | 1u << 27 | 1u << 31), ~(1u << 28)}},
	{0x2, LEAF_PLAIN, {~0u, ~0u, ~0u, ~0u}},
	{0x4, LEAF_ALL, {~0u, ~0u, ~0u, ~0u}},
	{0x6, LEAF_PLAIN, {0x4, 0, 0, 0}},
	{0x7, LEAF_PRESENT, {~0u, ~0u, ~0u, ~0u}},
	{0xb, LEAF_INDEXED_ZERO, {0}},
	{0xd, LEAF_PRESENT, {~0u, ~0u, ~0u, ~0u}},
	{0xf, LEAF_INDEXED_ZERO, {0}},
	{0x10, LEAF_INDEXED_ZERO, {0}},
	{0x12, LEAF_INDEXED_ZERO, {0}},
	{0x14, LEAF_INDEXED_ZERO, {0}},
	{0x17, LEAF_INDEXED_ZERO, {0}},
	{0x18, LEAF_INDEXED_ZERO, {0}},
	{0x1d, LEAF_PRESENT, {~0u, ~0u, ~0u, ~0u}},
	{0x1e, LEAF_FIRST, {~0u, ~0u, ~0u, ~0u}},
	{0x1f, LEAF_INDEXED_ZERO, {0}},
	{0x24, LEAF_INDEXED_ZERO, {0}},
	{0x80000000, LEAF_PLAIN, {~0u, ~0u, ~0u, ~0u}},
	{0x80000001, LEAF_PLAIN, {~0u, ~0x0fff0000u, ~0u, ~0u}},
	{0x80000002, LEAF_PLAIN, {~0u, ~0u, ~0u, ~0u}},
	{0x80000003, LEAF_PLAIN, {~0u, ~0u, ~0u, ~0u}},
	{0x80000004, LEAF_PLAIN, {~0u, ~0u, ~0u, ~0u}},
	{0x80000005, LEAF_PLAIN, {~0u, ~0u, ~0u, ~0u}},
	{0x80000006, LEAF_PLAIN, {~0u, ~0u, ~0u, ~0x00030000u}},
	{0x80000007, LEAF_PLAIN, {0, 0, 0, 1u << 8}},
	{0x80000008, LEAF_PLAIN, {0xffff, ~0u, ~0xffff0f00u, 0}},
	{0x8000000a, LEAF_PLAIN, {~0u, ~0u, 0, ~0u}},
	{0x80000019, LEAF_PLAIN, {~0u, ~0u, 0, 0}},
	{0x8000001a, LEAF_PLAIN, {0x7, 0, 0, 0}},
	{0x8000001d, LEAF_ALL, {~0u, ~0u, ~0u, ~0u}},
	{0x80000021, LEAF_PLAIN, {~0u, 0, ~0u, 0}},
};

static const struct leaf_rule *leaf_rule(uint32_t leaf)
{
	static const struct leaf_rule zero = {.kind = LEAF_ZERO};

	for (unsigned i = 0; i < ARRAY_SIZE(leaf_rules); i++)
		if (leaf_rules[i].leaf == leaf)
			return &leaf_rules[i];
	return &zero;
}

static void add_row(struct list *l, const struct cpu_model *m, const struct leaf_rule *rule,
		    uint32_t leaf, uint32_t subleaf)
{
	const struct cpuid_row *row = model_cpuid(m, leaf, subleaf);
	struct kvm_cpuid_entry2 *e = list_add(l, leaf, subleaf, rule->kind >= LEAF_INDEXED_ZERO);

	if (!e || !row)
		return;
	e->eax = row->reg[CPUID_EAX] & rule->mask[0];
	e->ebx = row->reg[CPUID_EBX] & rule->mask[1];
	e->ecx = row->reg[CPUID_ECX] & rule->mask[2];
	e->edx = row->reg[CPUID_EDX] & rule->mask[3];
}

/* Components that the process has no permission for do not exist. */
static bool subleaf_offered(const struct list *l, const struct cpu_model *m, uint32_t leaf,
			    uint32_t sub)
{
	if (leaf == 0xd && sub >= 2 && !(l->xcr0 >> sub & 1))
		return false;
	return model_cpuid(m, leaf, sub);
}

static void add_leaf(struct list *l, const struct cpu_model *m, uint32_t leaf)
{
	const struct leaf_rule *rule = leaf_rule(leaf);

	if (rule->kind == LEAF_ZERO || rule->kind == LEAF_INDEXED_ZERO) {
		list_add(l, leaf, 0, rule->kind == LEAF_INDEXED_ZERO);
		return;
	}
	add_row(l, m, rule, leaf, 0);
	if (rule->kind == LEAF_ALL) {
		for (uint32_t sub = 0; model_cpuid(m, leaf, sub); sub++)
			add_row(l, m, rule, leaf, sub + 1);
	} else if (rule->kind == LEAF_PRESENT) {
		for (uint32_t sub = 1; sub < 64; sub++)
			if (subleaf_offered(l, m, leaf, sub))
				add_row(l, m, rule, leaf, sub);
	}
}

/* End of the standard or compacted XSAVE image with the components of xcr0. */
static uint32_t xsave_size(const struct cpu_model *m, uint64_t xcr0, bool compacted)
{
	uint32_t size = 576;

	for (unsigned i = 2; i < 63; i++) {
		const struct cpuid_row *row = xcr0 & BIT(i) ? model_cpuid(m, 0xd, i) : NULL;
		uint32_t at;

		if (!row)
			continue;
		at = row->reg[CPUID_EBX];
		if (compacted)
			at = row->reg[CPUID_ECX] & 2 ? ALIGN_UP(size, 64u) : size;
		size = max(size, at + row->reg[CPUID_EAX]);
	}
	return size;
}

static bool has_compaction(uint32_t d1_eax)
{
	return d1_eax & (1u << 1 | 1u << 3);
}

/* Sizes that KVM computes itself, for all that is offered. */
static void mend_xsave(struct list *l, const struct cpu_model *m)
{
	for (unsigned i = 0; i < l->nr; i++) {
		struct kvm_cpuid_entry2 *e = &l->v[i];

		if (e->function != 0xd || e->index > 1)
			continue;
		if (e->index == 0) {
			e->eax &= l->xcr0;
			e->ebx = e->ecx = xsave_size(m, l->xcr0, false);
		} else {
			e->ebx = has_compaction(e->eax) ? xsave_size(m, l->xcr0, true) : 0;
		}
	}
}

static const struct {
	uint32_t leaf;
	uint8_t subleaf, reg, bit;
} feature_bits[NR_FEATURES] = {
#define FEATURE(name, leaf, subleaf, reg, bit) {leaf, subleaf, reg, bit},
#include "features.def"
#undef FEATURE
};

#define SVM_REVISION 1
#define SVM_ASIDS    8
#define LEAF_SVM     0x8000000a

/* Bits of a word that are features which the model, parameters considered, has not. */
static uint32_t lacking(const struct cpu_model *m, uint32_t leaf, enum cpuid_reg reg)
{
	uint32_t bits = 0;

	for (unsigned i = 0; i < NR_FEATURES; i++)
		if (feature_bits[i].leaf == leaf && feature_bits[i].reg == reg &&
		    !feature_has(m->features, i))
			bits |= 1u << feature_bits[i].bit;
	return bits;
}

static void mend_svm(struct list *l, const struct cpu_model *m)
{
	bool svm = feature_has(m->features, FEAT_SVM);

	for (unsigned i = 0; i < l->nr; i++) {
		struct kvm_cpuid_entry2 *e = &l->v[i];

		if (e->function == 0x80000001 && !svm)
			e->ecx &= ~(1u << 2);
		if (e->function != LEAF_SVM)
			continue;
		e->eax = svm ? SVM_REVISION : 0;
		e->ebx = svm ? SVM_ASIDS : 0;
		e->edx = svm ? e->edx & ~lacking(m, LEAF_SVM, CPUID_EDX) : 0;
	}
}

/* The last leaves that KVM of Linux 6.12 lists. */
#define LAST_BASIC    0x24u
#define LAST_EXTENDED 0x80000022u

static void mend_last(struct list *l)
{
	for (unsigned i = 0; i < l->nr; i++) {
		if (l->v[i].function == 0)
			l->v[i].eax = min(l->v[i].eax, LAST_BASIC);
		if (l->v[i].function == 0x80000000)
			l->v[i].eax = min(l->v[i].eax, LAST_EXTENDED);
	}
}

static void add_kvm_leaves(struct list *l)
{
	static const char signature[12] = "KVMKVMKVM\0\0\0";
	struct kvm_cpuid_entry2 *e = list_add(l, KVM_CPUID_SIGNATURE, 0, false);

	if (e) {
		e->eax = KVM_CPUID_FEATURES;
		memcpy(&e->ebx, signature, 4);
		memcpy(&e->ecx, signature + 4, 4);
		memcpy(&e->edx, signature + 8, 4);
	}
	e = list_add(l, KVM_CPUID_FEATURES, 0, false);
	if (e)
		e->eax = pv_features();
}

static void add_class(struct list *l, const struct cpu_model *m, uint32_t base)
{
	const struct cpuid_row *top = model_cpuid(m, base, 0);
	uint32_t last = min(top ? top->reg[CPUID_EAX] : base, base ? LAST_EXTENDED : LAST_BASIC);

	for (uint32_t leaf = base; leaf <= last && !l->overflow; leaf++)
		add_leaf(l, m, leaf);
}

/* Rows show what models could have; parameters may have taken it away. */
static void mend_nested(struct list *l, const struct cpu_model *m)
{
	for (unsigned i = 0; i < l->nr; i++)
		if (l->v[i].function == 1 && !feature_has(m->features, FEAT_VMX))
			l->v[i].ecx &= ~(1u << 5);
}

static void fill_supported(struct list *l, const struct cpu_model *m)
{
	add_class(l, m, 0);
	add_class(l, m, 0x80000000);
	add_kvm_leaves(l);
	mend_xsave(l, m);
	mend_nested(l, m);
	mend_svm(l, m);
	mend_last(l);
}

/* What software would do for instructions that a host lacks: here everything offered is offered. */
static void fill_emulated(struct list *l, const struct cpu_model *m)
{
	struct kvm_cpuid_entry2 *e = list_add(l, 0, 0, false);

	if (e)
		e->eax = 7;
	e = list_add(l, 1, 0, false);
	if (e)
		e->ecx = feature_has(m->features, FEAT_MOVBE) ? 1u << 22 : 0;
	e = list_add(l, 7, 0, true);
	if (e)
		e->ecx = feature_has(m->features, FEAT_RDPID) ? 1u << 22 : 0;
}

static bool padding_clean(const struct kvm_cpuid_entry2 *user, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		uint32_t pad[3];

		if (ioctl_copy_in(pad, user[i].padding, sizeof(pad)) || pad[0] || pad[1] || pad[2])
			return false;
	}
	return true;
}

static long get_list(const struct cpu_model *m, uint64_t xcr0, void *user, bool emulated)
{
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 *entries = ioctl_behind(user, sizeof(head));
	struct list l = {.xcr0 = xcr0};
	long r = 0;

	if (ioctl_copy_in(&head, user, sizeof(head)))
		return -EFAULT;
	if (head.nent < 1)
		return -E2BIG;
	l.max = min(head.nent, (uint32_t)VCPU_MAX_CPUID_ENTRIES);
	if (emulated && !padding_clean(entries, l.max))
		return -EINVAL;
	l.v = calloc(l.max, sizeof(*l.v));
	if (!l.v)
		return -ENOMEM;
	if (emulated)
		fill_emulated(&l, m);
	else
		fill_supported(&l, m);
	head.nent = l.nr;
	if (l.overflow)
		r = -E2BIG;
	else if (ioctl_copy_out(entries, l.v, l.nr * sizeof(*l.v)) ||
		 ioctl_copy_out(user, &head, sizeof(head)))
		r = -EFAULT;
	free(l.v);
	return r;
}

/* Without permission for its data AMX's configuration is not offered either. */
static uint64_t permitted_xcr0(const struct cpu_model *model, uint64_t permitted)
{
	return permitted & XCR0_TILEDATA ? model->xcr0 : model->xcr0 & ~XCR0_AMX;
}

uint32_t cpuid_xsave_size(const struct cpu_model *model, uint64_t permitted)
{
	uint32_t size = xsave_size(model, permitted_xcr0(model, permitted), false);

	return max(size, (uint32_t)sizeof(struct kvm_xsave));
}

long cpuid_get_supported(const struct cpu_model *model, uint64_t permitted, void *user)
{
	return get_list(model, permitted_xcr0(model, permitted), user, false);
}

long cpuid_get_emulated(const struct cpu_model *model, void *user)
{
	return get_list(model, 0, user, true);
}

/* ---- what the program set ---- */

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid_entry2 *v, unsigned nr, uint32_t leaf,
				     uint32_t subleaf)
{
	for (unsigned i = 0; i < nr; i++)
		if (v[i].function == leaf &&
		    (!(v[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || v[i].index == subleaf))
			return &v[i];
	return NULL;
}

static struct kvm_cpuid_entry2 *find_set(const struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf)
{
	return find(vcpu->cpuid, vcpu->nr_cpuid, leaf, subleaf);
}

static uint32_t entry_reg(const struct kvm_cpuid_entry2 *e, unsigned reg)
{
	const uint32_t v[4] = {e->eax, e->ebx, e->ecx, e->edx};

	return v[reg];
}

static void apply_features(struct vcpu *vcpu)
{
	struct cpu *cpu = &vcpu->cpu;

	memset(cpu->guest_features, 0, sizeof(cpu->guest_features));
	for (unsigned i = 0; i < NR_FEATURES; i++) {
		const struct kvm_cpuid_entry2 *e =
			find_set(vcpu, feature_bits[i].leaf, feature_bits[i].subleaf);

		if (e && (entry_reg(e, feature_bits[i].reg) >> feature_bits[i].bit & 1))
			feature_put(cpu->guest_features, i, true);
	}
}

/* CR4 bits that a guest may set: always, or with a feature that silicon has, too. */
static const struct {
	uint64_t bit;
	enum feature feature; /* NR_FEATURES: always */
} cr4_bits[] = {
	{CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE |
		 CR4_OSFXSR | CR4_OSXMMEXCPT,
	 NR_FEATURES},
	{CR4_OSXSAVE, FEAT_XSAVE},
	{CR4_SMEP, FEAT_SMEP},
	{CR4_SMAP, FEAT_SMAP},
	{CR4_FSGSBASE, FEAT_FSGSBASE},
	{CR4_PKE, FEAT_PKU},
	{CR4_LA57, FEAT_LA57},
	{CR4_UMIP, FEAT_UMIP},
	{CR4_PCIDE, FEAT_PCID},
	{CR4_VMXE, FEAT_VMX},
};

/* Before KVM_SET_CPUID2 only silicon limits what the program may set. */
static void apply_cr4(struct cpu *cpu, bool has_cpuid)
{
	const uint64_t *guest = has_cpuid ? cpu->guest_features : cpu->model_features;
	uint64_t allowed = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(cr4_bits); i++) {
		enum feature f = cr4_bits[i].feature;

		if (f == NR_FEATURES ||
		    (feature_has(guest, f) && feature_has(cpu->model_features, f)))
			allowed |= cr4_bits[i].bit;
	}
	if (!cpu->virt)
		allowed &= ~(uint64_t)CR4_VMXE;
	cpu->cr4_reserved = ~allowed;
}

static uint8_t find_maxphyaddr(const struct vcpu *vcpu)
{
	const struct kvm_cpuid_entry2 *top = find_set(vcpu, 0x80000000, 0);
	const struct kvm_cpuid_entry2 *e = find_set(vcpu, 0x80000008, 0);

	if (!top || top->eax < 0x80000008 || !e)
		return 36;
	/* 52 is all that page tables can say; 0 and the like would make every address reserved. */
	return min(e->eax & 0xff, 52u);
}

static uint32_t find_kvm_base(const struct vcpu *vcpu)
{
	for (uint32_t base = 0x40000000; base < 0x40010000; base += 0x100) {
		const struct kvm_cpuid_entry2 *e = find_set(vcpu, base, 0);

		if (e && !memcmp(&e->ebx, "KVMK", 4) && !memcmp(&e->ecx, "VMKV", 4) &&
		    !memcmp(&e->edx, "M\0\0", 4))
			return base;
	}
	return 0;
}

/* Without the leaf the features stay what they were, as in KVM. */
static void apply_kvm_leaves(struct vcpu *vcpu)
{
	const struct kvm_cpuid_entry2 *e;

	vcpu->kvm_base = find_kvm_base(vcpu);
	e = vcpu->kvm_base ? find_set(vcpu, vcpu->kvm_base | KVM_CPUID_FEATURES, 0) : NULL;
	if (e)
		vcpu->pv_features = e->eax;
	pv_cpuid_changed(vcpu);
}

void vcpu_cpuid_apply(struct vcpu *vcpu)
{
	struct cpu *cpu = &vcpu->cpu;
	const struct kvm_cpuid_entry2 *e = find_set(vcpu, 0xd, 0);

	apply_features(vcpu);
	apply_cr4(cpu, vcpu->nr_cpuid);
	cpu->maxphyaddr = find_maxphyaddr(vcpu);
	cpu->xcr0_allowed = e ? (e->eax | (uint64_t)e->edx << 32) & cpu->model->xcr0 : 0;
	apply_kvm_leaves(vcpu);
	vcpu_lapic_configure(vcpu);
	mmu_flush_all(cpu);
}

static bool cpuid_valid(struct kvm_cpuid_entry2 *v, unsigned nr)
{
	const struct kvm_cpuid_entry2 *e = find(v, nr, 0x80000008, 0);
	unsigned bits = e ? e->eax >> 8 & 0xff : 0;

	return bits == 0 || bits == 48 || bits == 57;
}

static void put_bit(uint32_t *word, unsigned bit, bool on)
{
	*word = (*word & ~(1u << bit)) | (uint32_t)on << bit;
}

/* Bits and sizes that follow control registers. */
static void make_dynamic(const struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	const struct cpu *cpu = &vcpu->cpu;

	if (leaf == 1) {
		put_bit(&r[CPUID_ECX], 27, cpu->cr4 & CR4_OSXSAVE);
		put_bit(&r[CPUID_EDX], 9, vcpu_get_apic_base(vcpu) & APIC_BASE_ENABLED);
		if (vcpu->vm->disabled_quirks & KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT)
			put_bit(&r[CPUID_ECX], 3, cpu->msr.misc_enable & BIT(18));
	} else if (leaf == 7 && subleaf == 0) {
		if (feature_has(cpu->model_features, FEAT_PKU))
			put_bit(&r[CPUID_ECX], 4, cpu->cr4 & CR4_PKE);
	} else if (leaf == 0xd && subleaf == 0) {
		r[CPUID_EBX] = xsave_size(cpu->model, cpu->xcr0, false);
	} else if (leaf == 0xd && subleaf == 1 && has_compaction(r[CPUID_EAX])) {
		r[CPUID_EBX] = xsave_size(cpu->model, cpu->xcr0, true);
	} else if (vcpu->kvm_base && leaf == (vcpu->kvm_base | KVM_CPUID_FEATURES)) {
		/* A halted vCPU that KVM does not see cannot be kicked. */
		if (vcpu->vm->disabled_exits & KVM_X86_DISABLE_EXITS_HLT)
			put_bit(&r[CPUID_EAX], KVM_FEATURE_PV_UNHALT, false);
	} else {
		pv_xen_cpuid(vcpu, leaf, subleaf, r);
	}
}

/* An entry as it is now. */
static struct kvm_cpuid_entry2 dynamic_entry(const struct vcpu *vcpu,
					     const struct kvm_cpuid_entry2 *entry)
{
	struct kvm_cpuid_entry2 ret = *entry;
	uint32_t r[4] = {ret.eax, ret.ebx, ret.ecx, ret.edx};

	make_dynamic(vcpu, ret.function, ret.index, r);
	ret.eax = r[CPUID_EAX];
	ret.ebx = r[CPUID_EBX];
	ret.ecx = r[CPUID_ECX];
	ret.edx = r[CPUID_EDX];
	return ret;
}

/* Dynamic bits apart, as the program may have them from KVM_GET_CPUID2. */
static bool same_cpuid(const struct vcpu *vcpu, const struct kvm_cpuid_entry2 *v, unsigned nr)
{
	if (nr != vcpu->nr_cpuid)
		return false;
	for (unsigned i = 0; i < nr; i++) {
		const struct kvm_cpuid_entry2 new = dynamic_entry(vcpu, &v[i]);
		const struct kvm_cpuid_entry2 now = dynamic_entry(vcpu, &vcpu->cpuid[i]);

		if (memcmp(&new, &now, offsetof(struct kvm_cpuid_entry2, padding)))
			return false;
	}
	return true;
}

/*
 * Tiles need the process's permission, and more room in KVM_GET_XSAVE2's image: from now on, as in KVM, even if another
 * CPUID follows.
 */
static long enable_tiles(struct vcpu *vcpu, struct kvm_cpuid_entry2 *v, unsigned nr)
{
	uint64_t permitted = __atomic_load_n(&vcpu->vm->ops->permitted, __ATOMIC_RELAXED);
	const struct kvm_cpuid_entry2 *e = find(v, nr, 0xd, 0);

	if (!e || !(e->eax & XCR0_TILEDATA))
		return 0;
	if (!(permitted & XCR0_TILEDATA))
		return -EPERM;
	vcpu->xsave_size = cpuid_xsave_size(vcpu->cpu.model, permitted);
	return 0;
}

/* Takes v over on success, which need not be kept. */
static long set_cpuid(struct vcpu *vcpu, struct kvm_cpuid_entry2 *v, unsigned nr)
{
	long r;

	if (vcpu->has_run) {
		if (!same_cpuid(vcpu, v, nr))
			return -EINVAL;
		free(v);
		return 0;
	}
	if (!cpuid_valid(v, nr))
		return -EINVAL;
	r = enable_tiles(vcpu, v, nr);
	if (r)
		return r;
	free(vcpu->cpuid);
	vcpu->cpuid = v;
	vcpu->nr_cpuid = nr;
	vcpu_cpuid_apply(vcpu);
	return 0;
}

_Static_assert(sizeof(struct kvm_cpuid) == sizeof(struct kvm_cpuid2), "both begin alike");

/* Room for as many entries as the head of the argument says. */
static long new_entries(const void *arg, struct kvm_cpuid2 *ret_head, struct kvm_cpuid_entry2 **ret)
{
	struct kvm_cpuid_entry2 *v;

	if (ioctl_copy_in(ret_head, arg, sizeof(*ret_head)))
		return -EFAULT;
	if (ret_head->nent > VCPU_MAX_CPUID_ENTRIES)
		return -E2BIG;
	v = calloc(ret_head->nent + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	*ret = v;
	return 0;
}

long vcpu_set_cpuid2(struct vcpu *vcpu, void *arg)
{
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 *v;
	long r = new_entries(arg, &head, &v);

	if (r)
		return r;
	r = ioctl_copy_in(v, ioctl_behind(arg, sizeof(head)), head.nent * sizeof(*v));
	if (!r)
		r = set_cpuid(vcpu, v, head.nent);
	if (r)
		free(v);
	return r;
}

long vcpu_set_cpuid(struct vcpu *vcpu, void *arg)
{
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry old;
	struct kvm_cpuid_entry2 *v;
	long r = new_entries(arg, &head, &v);

	if (r)
		return r;
	for (unsigned i = 0; i < head.nent && !r; i++) {
		r = ioctl_copy_in(&old, ioctl_behind(arg, sizeof(head) + i * sizeof(old)),
				  sizeof(old));
		v[i].function = old.function;
		v[i].eax = old.eax;
		v[i].ebx = old.ebx;
		v[i].ecx = old.ecx;
		v[i].edx = old.edx;
	}
	if (!r)
		r = set_cpuid(vcpu, v, head.nent);
	if (r)
		free(v);
	return r;
}

/* ---- what the guest reads ---- */

static bool amd_set(const struct vcpu *vcpu)
{
	const struct kvm_cpuid_entry2 *e = find_set(vcpu, 0, 0);

	return e && (e->ebx == 0x68747541 || e->ebx == 0x6f677948); /* "Auth", "Hygo" */
}

/* Intel answers a leaf beyond the last with its highest basic one; AMD with zeroes. */
static struct kvm_cpuid_entry2 *out_of_range(const struct vcpu *vcpu, uint32_t *leaf,
					     uint32_t subleaf)
{
	const struct kvm_cpuid_entry2 *basic = find_set(vcpu, 0, 0), *class;

	if (!basic || amd_set(vcpu))
		return NULL;
	if (*leaf >= 0x40000000 && *leaf <= 0x4fffffff)
		class = find_set(vcpu, *leaf & 0xffffff00, 0);
	else if (*leaf >= 0xc0000000)
		class = find_set(vcpu, 0xc0000000, 0);
	else
		class = find_set(vcpu, *leaf & 0x80000000, 0);
	if (class && *leaf <= class->eax)
		return NULL;
	*leaf = basic->eax;
	return find_set(vcpu, basic->eax, subleaf);
}

void vcpu_cpuid(struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	const struct kvm_cpuid_entry2 *e = find_set(vcpu, leaf, subleaf);

	memset(ret, 0, 4 * sizeof(*ret));
	if (!e)
		e = out_of_range(vcpu, &leaf, subleaf);
	if (e) {
		ret[CPUID_EAX] = e->eax;
		ret[CPUID_EBX] = e->ebx;
		ret[CPUID_ECX] = e->ecx;
		ret[CPUID_EDX] = e->edx;
		make_dynamic(vcpu, leaf, subleaf, ret);
		if (leaf == 0x80000007 && pv_hv_invtsc_hidden(vcpu))
			put_bit(&ret[CPUID_EDX], 8, false);
	} else if (leaf == 0xb || leaf == 0x1f) {
		/* Undefined levels of a topology leaf pass CL through and tell the x2APIC ID. */
		e = find_set(vcpu, leaf, 1);
		ret[CPUID_ECX] = e ? subleaf & 0xff : 0;
		ret[CPUID_EDX] = e ? e->edx : 0;
	}
}

/* The program reads back what it set, with the dynamic bits of now (KVM keeps them in place). */
long vcpu_get_cpuid2(struct vcpu *vcpu, void *arg)
{
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 *user = ioctl_behind(arg, sizeof(head));

	if (ioctl_copy_in(&head, arg, sizeof(head)))
		return -EFAULT;
	if (head.nent < vcpu->nr_cpuid)
		return -E2BIG;
	for (unsigned i = 0; i < vcpu->nr_cpuid; i++) {
		struct kvm_cpuid_entry2 e = dynamic_entry(vcpu, &vcpu->cpuid[i]);

		if (ioctl_copy_out(&user[i], &e, sizeof(e)))
			return -EFAULT;
	}
	head.nent = vcpu->nr_cpuid;
	return ioctl_copy_out(arg, &head, sizeof(head));
}

long vcpu_get_hv_cpuid(struct vcpu *vcpu, void *arg)
{
	return pv_hv_supported_cpuid(vcpu, false, arg);
}
