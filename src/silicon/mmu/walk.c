/* SPDX-License-Identifier: MIT */
/*
 * Page walks (SDM, paging: no paging, 32-bit, PAE, 4-level, 5-level).
 *
 * A walk goes in three steps: read the entries from the root to the leaf, stopping at what is not
 * present or has reserved bits; derive the rights of the page for the access state and compare them with what is
 * asked; only then set A and D bits, each by a compare and exchange against the value that was judged. If
 * one fails, somebody changed the tables: the whole walk starts anew.
 *
 * A walk begins at the last table that is known to be on its way (struct tlb_path). If it comes to nothing, tables may have
 * been changed where no flush is asked for: it begins anew at the root.
 *
 * With a second stage (virt.h) the address of each entry, and of the page, goes through it. A bits and D bits of the
 * tables are set before the page itself is looked up there.
 *
 * Page tables outside of RAM count as not present, those in ROM keep their A and D bits: as KVM does.
 */
#include "host/guard.h"
#include "host/host.h"
#include "silicon/models/model.h"
#include "silicon/mmu/log.h"
#include "silicon/mmu/pte.h"
#include "silicon/mmu/tlb.h"

enum paging { PAGING_NONE, PAGING_32, PAGING_PAE, PAGING_LONG };

/* One entry on the way down. */
struct step {
	gpa_t gpa;  /* behind the second stage */
	gpa_t gpa2; /* before it */
	uint8_t *hva;
	uint64_t val;
	bool writable, log;
	uint64_t all, any; /* as in struct walker, of the entries above */
};

struct walker {
	/* Set at the start. */
	struct cpu *cpu;
	struct access *a;
	bool stage2, dry;
	bool ahead; /* nobody asked: dry, and only where all A bits stand */
	enum paging paging;
	unsigned entry_bytes;
	/* Set on the way down; levels count from 1, the PTE. */
	unsigned level;
	struct step step[PTE_LEVELS + 1];
	unsigned top;
	unsigned first; /* level to begin with: ->top, unless a path is known */
	uint64_t all;	/* AND of all entries: W and U */
	uint64_t any;	/* OR of all entries: NX */
};

enum result mmu_exit(struct cpu *cpu, enum cpu_exit_kind kind, gpa_t addr, unsigned size)
{
	cpu->exit.kind = kind;
	cpu->exit.addr = addr;
	cpu->exit.size = size;
	cpu->exit.count = 1;
	cpu->exit.data = 0;
	cpu->exit.nr_bytes = 0;
	return RESULT_EXIT;
}

struct walk_context mmu_context(const struct cpu *cpu)
{
	return (struct walk_context){
		.root = cpu->cr3 & PTE_ADDR,
		.stage2 = cpu_guest(cpu) && cpu->virt->stage2,
		.pcid = cpu->cr4 & CR4_PCIDE ? cpu->cr3 & CR3_PCID_MASK : 0,
	};
}

/* ---- faults ---- */

static bool is_user(enum access_state state)
{
	return state == ACCESS_USER || state == ACCESS_USER_ALIGN;
}

static bool nx_enabled(const struct cpu *cpu)
{
	return (cpu->msr.efer & EFER_NX) && (cpu->cr4 & CR4_PAE);
}

static enum result refuse(struct walker *w, uint32_t error)
{
	const struct cpu *cpu = w->cpu;
	const struct access *a = w->a;

	if (w->first != w->top) {
		tlb_forget_paths(cpu->tlb);
		return RESULT_AGAIN;
	}
	if (a->op & ACCESS_WRITE)
		error |= PFERR_W;
	if (is_user(a->state))
		error |= PFERR_U;
	if (a->op == ACCESS_FETCH && (nx_enabled(cpu) || (cpu->cr4 & CR4_SMEP)))
		error |= PFERR_I;
	if (a->op)
		mmu_refused_page(w->cpu, a->addr);
	return fault_page(w->cpu, a->addr, error);
}

/* ---- the forms of entries ---- */

static bool large_leaf(const struct walker *w)
{
	const struct cpu *cpu = w->cpu;

	if (w->level == 3)
		return w->paging == PAGING_LONG && feature_has(cpu->model_features, FEAT_GBPAGES);
	return w->level == 2 && (w->paging != PAGING_32 || (cpu->cr4 & CR4_PSE));
}

static bool is_leaf(const struct walker *w, uint64_t val)
{
	return w->level == 1 || ((val & PTE_PS) && large_leaf(w));
}

static unsigned level_shift(const struct walker *w)
{
	return PAGE_SHIFT + (w->paging == PAGING_32 ? 10 : 9) * (w->level - 1);
}

/* 32-bit paging reserves only what PSE-36 leaves between the two parts of a 4 MiB page's address. */
static uint64_t reserved_32(const struct walker *w, bool leaf)
{
	unsigned wide = min(w->cpu->maxphyaddr, 40);

	if (w->level == 1 || !leaf)
		return 0;
	return wide < 40 ? GENMASK(21, wide - 19) : BIT(21);
}

/* AMD reserves bit 8 where tables above the page directory are not leaves; Intel ignores it. */
static uint64_t reserved_nonleaf(const struct walker *w)
{
	bool amd = w->cpu->model && !model_intel(w->cpu->model);

	if (w->level <= 2)
		return 0;
	return PTE_PS | (amd ? PTE_G : 0);
}

static uint64_t reserved_bits(const struct walker *w, bool leaf)
{
	const struct cpu *cpu = w->cpu;
	uint64_t mask;

	if (w->paging == PAGING_32)
		return reserved_32(w, leaf);
	mask = cpu->maxphyaddr < 52 ? GENMASK(51, cpu->maxphyaddr) : 0;
	if (w->paging == PAGING_PAE)
		mask |= GENMASK(62, 52);
	if (!(cpu->msr.efer & EFER_NX))
		mask |= PTE_NX;
	if (!leaf)
		return mask | reserved_nonleaf(w);
	return w->level > 1 ? mask | GENMASK(level_shift(w) - 1, 13) : mask;
}

static uint64_t page_base(const struct walker *w, uint64_t val)
{
	uint64_t size = BIT(level_shift(w));

	if (w->paging == PAGING_32 && w->level == 2)
		return (val & GENMASK(31, 22)) | (val >> 13 & 0xff) << 32;
	return val & PTE_ADDR & ~(size - 1);
}

/* ---- reading ---- */

static bool load_entry(const struct walker *w, const uint8_t *hva, uint64_t *ret)
{
	uint32_t val;

	if (w->entry_bytes == 8)
		return host_load_64(hva, ret);
	if (!host_load_32(hva, &val))
		return false;
	*ret = val;
	return true;
}

/* The second stage for an entry of the tables; op: ACCESS_WRITE to set its A and D bits. */
static enum result translate_entry(struct walker *w, struct step *step, enum access_op op)
{
	struct stage2 s = {
		.gpa = step->gpa2,
		.op = w->a->op ? op : 0,
		.table = true,
		.dry = w->dry,
		.linear = true,
		.addr = w->a->addr,
	};
	enum result r;

	if (!w->stage2) {
		step->gpa = step->gpa2;
		return RESULT_OK;
	}
	w->cpu->tlb->count.stage2++;
	r = w->cpu->virt->ops->translate(w->cpu, &s);
	step->gpa = s.out;
	return r;
}

static enum result read_entry(struct walker *w, gpa_t table, struct step *step)
{
	unsigned index_bits = w->entry_bytes == 8 ? 9 : 10;
	uint64_t index = w->a->addr >> level_shift(w) & (BIT(index_bits) - 1);
	struct ram_page page;
	enum result r;

	step->gpa2 = table + index * w->entry_bytes;
	r = translate_entry(w, step, ACCESS_READ);
	if (r)
		return r;
	tlb_memory(w->cpu, step->gpa, &page);
	if (page.closed)
		return mmu_exit(w->cpu, CPU_EXIT_MEMORY, step->gpa, w->entry_bytes);
	if (!page.hva)
		return refuse(w, 0);
	step->hva = page.hva + (step->gpa & ~PAGE_MASK);
	step->writable = page.writable;
	step->log = page.log;
	if (!load_entry(w, step->hva, &step->val))
		return mmu_exit(w->cpu, CPU_EXIT_MEMORY, step->gpa, w->entry_bytes);
	return RESULT_OK;
}

/* ---- paths ---- */

static bool has_paths(const struct walker *w)
{
	return w->paging == PAGING_LONG && !w->stage2;
}

static uint64_t span_of(const struct walker *w, unsigned level)
{
	return w->a->addr >> (PAGE_SHIFT + 9 * level);
}

static struct tlb_path *path_of(const struct walker *w, unsigned level, gpa_t root)
{
	uint64_t span = span_of(w, level);

	return &w->cpu->tlb->path[level - 1][(span ^ root >> PAGE_SHIFT) % TLB_PATHS];
}

/* The table to begin with. */
static gpa_t begin(struct walker *w, gpa_t root)
{
	w->first = w->top;
	w->all = ~0ull;
	w->any = 0;
	for (unsigned level = 1; has_paths(w) && level <= TLB_PATH_LEVELS; level++) {
		const struct tlb_path *p = path_of(w, level, root);

		if (p->flushes != w->cpu->tlb->nr_flushes + 1 || p->span != span_of(w, level) ||
		    p->root != root)
			continue;
		w->first = level;
		w->all = p->all;
		w->any = p->any;
		return p->table;
	}
	return root;
}

/* A and D bits are set. */
static void note_paths(const struct walker *w, gpa_t root)
{
	if (!has_paths(w))
		return;
	for (unsigned level = w->level; level < w->first && level <= TLB_PATH_LEVELS; level++)
		*path_of(w, level, root) = (struct tlb_path){
			.flushes = w->cpu->tlb->nr_flushes + 1,
			.span = span_of(w, level),
			.root = root,
			.table = w->step[level].gpa & PAGE_MASK,
			.all = w->step[level].all,
			.any = w->step[level].any,
		};
}

static enum result descend(struct walker *w, gpa_t table)
{
	for (w->level = w->first;; w->level--) {
		struct step *step = &w->step[w->level];
		enum result r = read_entry(w, table, step);
		bool leaf;

		if (r)
			return r;
		step->all = w->all;
		step->any = w->any;
		if (!(step->val & PTE_P))
			return refuse(w, 0);
		leaf = is_leaf(w, step->val);
		if (step->val & reserved_bits(w, leaf))
			return refuse(w, PFERR_P | PFERR_RSVD);
		w->all &= step->val;
		w->any |= step->val;
		if (leaf)
			return RESULT_OK;
		table = step->val & PTE_ADDR;
	}
}

/* ---- rights ---- */

/* SDM, protection keys: data accesses to user pages, whoever makes them. */
static uint8_t key_denies(const struct walker *w)
{
	const struct cpu *cpu = w->cpu;
	unsigned key = w->step[w->level].val >> PTE_PK_SHIFT & 0xf;
	unsigned bits = cpu->pkru >> 2 * key & 3;

	if (w->paging != PAGING_LONG || !(cpu->cr4 & CR4_PKE) || !(w->all & PTE_U))
		return 0;
	if (bits & 1)
		return ACCESS_READ | ACCESS_WRITE;
	if ((bits & 2) && (is_user(w->a->state) || (cpu->cr0 & CR0_WP)))
		return ACCESS_WRITE;
	return 0;
}

static uint8_t user_rights(const struct walker *w)
{
	if (!(w->all & PTE_U))
		return 0;
	return ACCESS_READ | ACCESS_FETCH | (w->all & PTE_W ? ACCESS_WRITE : 0);
}

static uint8_t supervisor_rights(const struct walker *w)
{
	const struct cpu *cpu = w->cpu;
	uint8_t rights = ACCESS_READ | ACCESS_FETCH;

	if ((w->all & PTE_W) || !(cpu->cr0 & CR0_WP))
		rights |= ACCESS_WRITE;
	if (!(w->all & PTE_U))
		return rights;
	if (cpu->cr4 & CR4_SMEP)
		rights &= ~ACCESS_FETCH;
	if (w->a->state == ACCESS_SUPER_SMAP)
		rights &= ACCESS_FETCH;
	return rights;
}

static uint8_t page_rights(const struct walker *w)
{
	uint8_t rights = is_user(w->a->state) ? user_rights(w) : supervisor_rights(w);

	if (w->paging != PAGING_32 && (w->any & PTE_NX))
		rights &= ~ACCESS_FETCH;
	return rights;
}

static enum result check_rights(struct walker *w)
{
	uint8_t rights = page_rights(w), denied = key_denies(w);
	struct access *a = w->a;

	a->rights = rights & ~denied;
	if (!(a->op & ~a->rights))
		return RESULT_OK;
	return refuse(w, PFERR_P | (a->op & denied ? PFERR_PK : 0));
}

/* ---- A and D ---- */

static bool swap_entry(const struct walker *w, struct step *step, uint64_t *was, uint64_t val)
{
	uint32_t was32 = *was;
	bool done;

	if (w->entry_bytes == 8)
		return host_cmpxchg_64(step->hva, was, val);
	done = host_cmpxchg_32(step->hva, &was32, val);
	*was = was32;
	return done;
}

static enum result set_bits(struct walker *w, struct step *step, uint64_t bits)
{
	uint64_t was = step->val;
	enum result r;

	if ((step->val & bits) == bits || !step->writable)
		return RESULT_OK;
	if (w->stage2) {
		r = translate_entry(w, step, ACCESS_WRITE);
		if (r)
			return r;
	}
	if (step->log)
		platform_call(w->cpu, mark_dirty, step->gpa);
	mmu_log_table(w->cpu->tlb->log, step->hva, step->gpa, w->entry_bytes);
	if (!swap_entry(w, step, &was, step->val | bits))
		return mmu_exit(w->cpu, CPU_EXIT_MEMORY, step->gpa, w->entry_bytes);
	if (was != step->val)
		return RESULT_AGAIN;
	step->val |= bits;
	return RESULT_OK;
}

static enum result set_accessed(struct walker *w)
{
	for (unsigned level = w->first; level >= w->level; level--) {
		bool dirty = level == w->level && (w->a->op & ACCESS_WRITE);
		enum result r = set_bits(w, &w->step[level], PTE_A | (dirty ? PTE_D : 0));

		if (r)
			return r;
	}
	return RESULT_OK;
}

/* ---- the walk ---- */

static void finish(struct walker *w)
{
	struct access *a = w->a;
	uint64_t leaf = w->step[w->level].val;

	a->page_shift = level_shift(w);
	a->gpa = page_base(w, leaf) | (a->addr & (BIT(a->page_shift) - 1));
	a->user_page = w->all & PTE_U;
	a->global = (leaf & PTE_G) && (w->cpu->cr4 & CR4_PGE);
	a->dirty = leaf & PTE_D;
	a->key = w->paging == PAGING_LONG ? leaf >> PTE_PK_SHIFT & 0xf : 0;
}

/* The page itself through the second stage: what both allow is allowed, and the smaller page counts. */
static enum result translate_page(struct walker *w)
{
	struct access *a = w->a;
	struct stage2 s = {
		.gpa = a->gpa,
		.op = a->op,
		.dry = w->dry,
		.linear = true,
		.user = a->user_page,
		.addr = a->addr,
	};
	enum result r;

	if (!w->stage2)
		return RESULT_OK;
	w->cpu->tlb->count.stage2++;
	r = w->cpu->virt->ops->translate(w->cpu, &s);
	if (r)
		return r;
	a->gpa = s.out;
	a->rights &= s.rights;
	a->page_shift = min(a->page_shift, s.page_shift);
	a->dirty &= s.dirty;
	a->apart = s.apart;
	return RESULT_OK;
}

static enum result walk_tables(struct walker *w, gpa_t root)
{
	enum result r = descend(w, begin(w, root));

	if (!r)
		r = check_rights(w);
	if (!r && !w->dry)
		r = set_accessed(w);
	if (!r && w->ahead && !(w->all & PTE_A))
		r = RESULT_FAULT;
	if (r)
		return r;
	if (!w->dry || w->ahead)
		note_paths(w, root);
	finish(w);
	return translate_page(w);
}

static enum result walk_unpaged(struct walker *w)
{
	struct access *a = w->a;

	w->all = ~0ull;
	w->any = 0;
	a->gpa = a->addr;
	a->rights = ACCESS_READ | ACCESS_WRITE | ACCESS_FETCH;
	a->page_shift = PAGE_SHIFT;
	a->user_page = true;
	a->global = false;
	a->key = 0;
	a->dirty = true;
	return translate_page(w);
}

static void choose_paging(struct walker *w)
{
	const struct cpu *cpu = w->cpu;

	if (!cpu_paging(cpu)) {
		w->paging = PAGING_NONE;
	} else if (cpu->msr.efer & EFER_LMA) {
		w->paging = PAGING_LONG;
		w->top = cpu->cr4 & CR4_LA57 ? 5 : 4;
	} else {
		w->paging = cpu->cr4 & CR4_PAE ? PAGING_PAE : PAGING_32;
		w->top = 2;
	}
	w->first = w->top;
	w->entry_bytes = w->paging == PAGING_32 ? 4 : 8;
}

/* The PDPTEs were checked when they were loaded; they have no A bit and no rights. */
static enum result find_root(struct walker *w, const struct walk_context *ctx, gpa_t *ret)
{
	uint64_t pdpte = w->cpu->pdpte[w->a->addr >> 30 & 3];

	*ret = ctx->root;
	if (w->paging != PAGING_PAE)
		return RESULT_OK;
	*ret = pdpte & PTE_ADDR;
	return pdpte & PTE_P ? RESULT_OK : refuse(w, 0);
}

enum result mmu_walk(struct cpu *cpu, const struct walk_context *ctx, struct access *a, bool dry)
{
	struct walker w = {.cpu = cpu, .a = a, .stage2 = ctx->stage2, .dry = dry};
	gpa_t root = 0;
	enum result r;

	cpu->tlb->count.walks++;
	choose_paging(&w);
	r = w.paging == PAGING_NONE ? RESULT_OK : find_root(&w, ctx, &root);
	if (r)
		return r;
	do
		r = w.paging == PAGING_NONE ? walk_unpaged(&w) : walk_tables(&w, root);
	while (r == RESULT_AGAIN);
	return r;
}

bool mmu_walk_ahead(struct cpu *cpu, const struct walk_context *ctx, struct access *a)
{
	struct walker w = {.cpu = cpu, .a = a, .dry = true, .ahead = true};
	struct cpu_exit exit = cpu->exit;
	struct event fault = cpu->fault;
	enum result r;

	choose_paging(&w);
	if (w.paging != PAGING_LONG || ctx->stage2)
		return false;
	do
		r = walk_tables(&w, ctx->root);
	while (r == RESULT_AGAIN);
	cpu->exit = exit;
	cpu->fault = fault;
	return r == RESULT_OK;
}

/* ---- walks for others ---- */

/* Between two runs, memory slots may have changed without the flush being served yet. */
bool mmu_translate_debug(struct cpu *cpu, gva_t addr, gpa_t *ret_gpa, uint32_t *ret_flags)
{
	struct access a = {.addr = addr, .size = 1, .state = ACCESS_SUPER};
	struct walk_context ctx = mmu_context(cpu);
	struct cpu_exit exit = cpu->exit;
	struct event fault = cpu->fault;
	enum result r;

	tlb_forget_memory(cpu->tlb);
	r = mmu_walk(cpu, &ctx, &a, true);
	cpu->exit = exit;
	cpu->fault = fault;
	if (r || (cpu_long_mode(cpu) && !gva_canonical(cpu, addr)))
		return false;
	*ret_gpa = a.gpa;
	*ret_flags = (a.rights & ACCESS_WRITE ? PFERR_W : 0) | (a.user_page ? PFERR_U : 0);
	return true;
}

enum result mmu_read_phys(struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t *ret)
{
	struct walker w = {.entry_bytes = size};
	struct ram_page page;

	tlb_memory(cpu, gpa, &page);
	if (page.closed)
		return mmu_exit(cpu, CPU_EXIT_MEMORY, gpa, size);
	if (!page.hva)
		*ret = size == 8 ? ~0ull : 0xffffffff;
	else if (!load_entry(&w, page.hva + (gpa & ~PAGE_MASK), ret))
		return mmu_exit(cpu, CPU_EXIT_MEMORY, gpa, size);
	return RESULT_OK;
}

enum result mmu_read_phys_bytes(struct cpu *cpu, gpa_t gpa, void *dst, uint32_t size)
{
	while (size) {
		uint32_t part = min(size, (uint32_t)(PAGE_SIZE - (gpa & ~PAGE_MASK)));
		struct ram_page page;

		tlb_memory(cpu, gpa, &page);
		if (page.closed)
			return mmu_exit(cpu, CPU_EXIT_MEMORY, gpa, part);
		if (!page.hva)
			return RESULT_FAULT;
		if (!host_copy_guarded(dst, page.hva + (gpa & ~PAGE_MASK), part))
			return mmu_exit(cpu, CPU_EXIT_MEMORY, gpa, part);
		dst = (uint8_t *)dst + part;
		gpa += part;
		size -= part;
	}
	return RESULT_OK;
}

enum result mmu_write_phys_bytes(struct cpu *cpu, gpa_t gpa, const void *src, uint32_t size)
{
	while (size) {
		uint32_t part = min(size, (uint32_t)(PAGE_SIZE - (gpa & ~PAGE_MASK)));
		struct ram_page page;

		tlb_memory(cpu, gpa, &page);
		if (page.closed)
			return mmu_exit(cpu, CPU_EXIT_MEMORY, gpa, part);
		if (!page.hva || !page.writable)
			return RESULT_FAULT;
		if (page.log)
			platform_call(cpu, mark_dirty, gpa);
		mmu_log_write(cpu->tlb->log, page.hva + (gpa & ~PAGE_MASK), 0, gpa, part);
		if (!host_copy_guarded(page.hva + (gpa & ~PAGE_MASK), src, part))
			return mmu_exit(cpu, CPU_EXIT_MEMORY, gpa, part);
		src = (const uint8_t *)src + part;
		gpa += part;
		size -= part;
	}
	return RESULT_OK;
}

enum result mmu_set_phys_bits(struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t val,
			      uint64_t bits)
{
	struct walker w = {.cpu = cpu, .entry_bytes = size};
	struct step step = {.gpa = gpa, .gpa2 = gpa, .val = val};
	struct ram_page page;

	tlb_memory(cpu, gpa, &page);
	if (!page.hva)
		return RESULT_AGAIN;
	step.hva = page.hva + (gpa & ~PAGE_MASK);
	step.writable = page.writable;
	step.log = page.log;
	return set_bits(&w, &step, bits);
}

enum result mmu_cmpxchg_phys(struct cpu *cpu, gpa_t gpa, uint32_t old, uint32_t val)
{
	struct ram_page page;
	uint32_t was = old;

	tlb_memory(cpu, gpa, &page);
	if (page.closed)
		return mmu_exit(cpu, CPU_EXIT_MEMORY, gpa, sizeof(val));
	if (!page.hva || !page.writable)
		return RESULT_FAULT;
	if (page.log)
		platform_call(cpu, mark_dirty, gpa);
	if (!host_cmpxchg_32(page.hva + (gpa & ~PAGE_MASK), &was, val))
		return mmu_exit(cpu, CPU_EXIT_MEMORY, gpa, sizeof(val));
	return was == old ? RESULT_OK : RESULT_AGAIN;
}

enum result mmu_stage2(struct cpu *cpu, gpa_t gpa, gpa_t *ret)
{
	struct stage2 s = {.gpa = gpa, .op = ACCESS_READ, .table = true};
	enum result r;

	*ret = gpa;
	if (!mmu_context(cpu).stage2)
		return RESULT_OK;
	do
		r = cpu->virt->ops->translate(cpu, &s);
	while (r == RESULT_AGAIN);
	*ret = s.out;
	return r;
}

/* All ones, which absent RAM reads as, have reserved bits set: #GP as wanted. */
enum result mmu_load_pdptes(struct cpu *cpu, uint64_t cr3)
{
	uint64_t reserved = GENMASK(63, cpu->maxphyaddr) | GENMASK(8, 5) | GENMASK(2, 1);
	uint64_t pdpte[4];

	for (unsigned i = 0; i < 4; i++) {
		gpa_t gpa = (cr3 & GENMASK(31, 5)) + 8 * i;
		enum result r = mmu_stage2(cpu, gpa, &gpa);

		if (!r)
			r = mmu_read_phys(cpu, gpa, 8, &pdpte[i]);
		if (r)
			return r;
		if ((pdpte[i] & PTE_P) && (pdpte[i] & reserved))
			return fault_gp(cpu, 0);
	}
	for (unsigned i = 0; i < 4; i++)
		cpu->pdpte[i] = pdpte[i];
	return RESULT_OK;
}
