/* SPDX-License-Identifier: MIT */
/*
 * Nested paging (APM, nested paging): the guest's physical addresses through tables of the host's form.
 *
 * Every nested access counts as the user's; one to the guest's own page tables as a write. A walk reads down to the
 * leaf, judges, and only then sets A and D bits. What is refused is an exit with NPF: EXITINFO1 is a page fault's
 * error code with bit 32 for the page itself, bit 33 for the guest's tables.
 */
#include "silicon/mmu/mmu.h"
#include "silicon/mmu/pte.h"
#include "silicon/svm/svm_internal.h"

#define NPF_PAGE  BIT(32)
#define NPF_TABLE BIT(33)

struct nested_walk {
	struct cpu *cpu;
	const struct stage2 *s;
	const struct vmcb_save *host;
	bool write, fetch;
	unsigned size; /* of an entry */
	unsigned top, level;
	gpa_t at[PTE_LEVELS + 1];
	uint64_t val[PTE_LEVELS + 1];
	uint64_t all, any;
};

static void choose(struct nested_walk *w)
{
	const struct vmcb_save *h = w->host;

	w->size = 8;
	if ((h->efer & EFER_LME) && (h->cr0 & CR0_PG))
		w->top = h->cr4 & CR4_LA57 ? 5 : 4;
	else if (h->cr4 & CR4_PAE)
		w->top = 3;
	else
		w->top = 2, w->size = 4;
}

static bool long_form(const struct nested_walk *w)
{
	return w->top > 3;
}

static unsigned level_shift(const struct nested_walk *w)
{
	return PAGE_SHIFT + (w->size == 4 ? 10 : 9) * (w->level - 1);
}

static bool is_leaf(const struct nested_walk *w)
{
	if (w->level == 1)
		return true;
	if (!(w->val[w->level] & PTE_PS))
		return false;
	if (w->level == 3)
		return long_form(w) && feature_has(w->cpu->model_features, FEAT_GBPAGES);
	return w->level == 2 && (w->size == 8 || (w->host->cr4 & CR4_PSE));
}

static uint64_t reserved(const struct nested_walk *w, bool leaf)
{
	const struct cpu *cpu = w->cpu;
	uint64_t mask = cpu->maxphyaddr < 52 ? GENMASK(51, cpu->maxphyaddr) : 0;

	if (w->size == 4)
		return leaf && w->level == 2 ? BIT(21) : 0;
	if (!(w->host->efer & EFER_NX))
		mask |= PTE_NX;
	if (!long_form(w))
		mask |= GENMASK(62, 52);
	if (leaf)
		return w->level > 1 ? mask | GENMASK(level_shift(w) - 1, 13) : mask;
	return w->level > 2 ? mask | PTE_PS : mask;
}

static enum result refuse(struct nested_walk *w, uint64_t error)
{
	error |= PFERR_U | (w->s->table ? NPF_TABLE : NPF_PAGE);
	if (w->write)
		error |= PFERR_W;
	if (w->fetch)
		error |= PFERR_I;
	if (w->s->linear && w->s->op)
		mmu_refused_page(w->cpu, w->s->addr);
	return virt_refuse(w->cpu, SVM_EXIT_NPF, error, w->s->gpa);
}

static enum result read_entry(struct nested_walk *w, gpa_t table)
{
	uint64_t mask = w->size == 4 ? 0x3ff : 0x1ff;
	uint64_t index = w->s->gpa >> level_shift(w) & mask, val = 0;
	enum result r;

	w->at[w->level] = table + index * w->size;
	r = mmu_read_phys_bytes(w->cpu, w->at[w->level], &val, w->size);
	w->val[w->level] = val;
	return r == RESULT_FAULT ? refuse(w, 0) : r;
}

static enum result descend(struct nested_walk *w, gpa_t table)
{
	w->all = ~0ull;
	w->any = 0;
	for (w->level = w->top;; w->level--) {
		enum result r = read_entry(w, table);
		uint64_t val = w->val[w->level];
		/* PDPTEs of PAE paging have no rights. */
		bool plain = !(w->top == 3 && w->level == 3);

		if (r)
			return r;
		if (!(val & PTE_P))
			return refuse(w, 0);
		if (val & reserved(w, is_leaf(w)) && plain)
			return refuse(w, PFERR_P | PFERR_RSVD);
		w->all &= plain ? val : ~0ull;
		w->any |= plain ? val : 0;
		if (is_leaf(w))
			return RESULT_OK;
		table = val & PTE_ADDR;
	}
}

static uint8_t rights_of(const struct nested_walk *w)
{
	uint8_t rights = ACCESS_READ | ACCESS_FETCH;

	if (!(w->all & PTE_U))
		return 0;
	if (w->all & PTE_W)
		rights |= ACCESS_WRITE;
	if (w->size == 8 && (w->any & PTE_NX))
		rights &= ~ACCESS_FETCH;
	return rights;
}

static enum result set_bits(struct nested_walk *w)
{
	for (unsigned level = w->top; level >= w->level; level--) {
		bool leaf = level == w->level;
		uint64_t bits = PTE_A | (leaf && w->write ? PTE_D : 0);
		enum result r;

		if ((w->val[level] & bits) == bits || (w->top == 3 && level == 3))
			continue;
		r = mmu_set_phys_bits(w->cpu, w->at[level], w->size, w->val[level], bits);
		if (r)
			return r;
		w->val[level] |= bits;
	}
	return RESULT_OK;
}

static gpa_t page_base(const struct nested_walk *w)
{
	uint64_t val = w->val[w->level];

	if (w->size == 4 && w->level == 2)
		return (val & GENMASK(31, 22)) | (val >> 13 & 0xff) << 32;
	return val & PTE_ADDR & ~(BIT(level_shift(w)) - 1);
}

static uint8_t asked(const struct nested_walk *w)
{
	if (!w->s->op)
		return 0;
	return (w->write ? ACCESS_WRITE : 0) | (w->fetch ? ACCESS_FETCH : ACCESS_READ);
}

enum result svm_translate(struct cpu *cpu, struct stage2 *s)
{
	struct svm *svm = svm_of(cpu);
	struct nested_walk w = {
		.cpu = cpu,
		.s = s,
		.host = &svm->host,
		.write = s->op && (s->table || (s->op & ACCESS_WRITE)),
		.fetch = s->op == ACCESS_FETCH,
	};
	enum result r;

	choose(&w);
	if (w.top == 3 && s->gpa >> 32)
		return refuse(&w, 0);
	r = descend(&w, svm->vmcb.control.nested_cr3 & PTE_ADDR);
	if (r)
		return r;
	s->rights = rights_of(&w);
	if (asked(&w) & ~s->rights)
		return refuse(&w, PFERR_P);
	if (!s->dry && s->op) {
		r = set_bits(&w);
		if (r)
			return r;
	}
	if (s->op && svm_avic_hit(cpu, s->gpa))
		return svm_avic_access(cpu, s);
	s->page_shift = level_shift(&w);
	s->out = page_base(&w) | (s->gpa & (BIT(s->page_shift) - 1));
	s->dirty = w.val[w.level] & PTE_D;
	return RESULT_OK;
}

/* Below the tables' address: that there are some, and what their form is taken from. */
#define WORLD_NPT  BIT(0)
#define WORLD_LONG BIT(1)
#define WORLD_PAE  BIT(2)
#define WORLD_LA57 BIT(3)
#define WORLD_PSE  BIT(4)
#define WORLD_NX   BIT(5)

static uint64_t form(const struct vmcb_save *h)
{
	return WORLD_NPT | ((h->efer & EFER_LME) && (h->cr0 & CR0_PG) ? WORLD_LONG : 0) |
	       (h->cr4 & CR4_PAE ? WORLD_PAE : 0) | (h->cr4 & CR4_LA57 ? WORLD_LA57 : 0) |
	       (h->cr4 & CR4_PSE ? WORLD_PSE : 0) | (h->efer & EFER_NX ? WORLD_NX : 0);
}

void svm_world(struct cpu *cpu, struct virt_world *ret)
{
	const struct svm *svm = svm_of(cpu);

	*ret = (struct virt_world){.guest = true, .id = svm->vmcb.control.asid};
	if (svm->virt.stage2)
		ret->second = (svm->vmcb.control.nested_cr3 & PTE_ADDR) | form(&svm->host);
	if (svm_avic(cpu, &svm->vmcb.control))
		ret->apic = (svm->vmcb.control.avic_bar & PTE_ADDR) | 1;
}

void svm_refused(struct cpu *cpu, const struct event *cause)
{
	const struct virt *v = cpu->virt;

	cpu->fault.valid = false;
	svm_exit(cpu, v->refused_reason, v->refused_info[0], v->refused_info[1], 0, cause);
}
