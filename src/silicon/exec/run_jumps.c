/* SPDX-License-Identifier: MIT */
/*
 * The jump cache, and what of blocks follows the TLB (run.h).
 *
 * Jumps are found by RIP alone, so they are as good as the translations that they were entered under. When some of those
 * are flushed, or become another context's, jumps stay and the pages that they lead to are stale: who comes in looks up
 * the translation first. Jumps to pages that stand at several addresses are forgotten instead.
 */
#include "silicon/exec/run_parts.h"
#include "silicon/mmu/tlb.h"

/* ---- the jump cache ---- */

/* What stands where nothing was entered: of a target whose place is another, for it may be any. */
static uint64_t no_jump(unsigned index)
{
	return index ? 0 : RUN_NO_JUMP;
}

static void clear_jump(struct run *run, uint32_t logged)
{
	unsigned index = logged % RUN_JUMPS;
	struct run_jumps *jumps = &run->jumps[logged >> RUN_JUMP_BITS];

	jumps->nr -= jumps->to[index].neg != no_jump(index);
	jumps->to[index].neg = no_jump(index);
}

static void log_clear(struct run *run, struct run_jump_log *log)
{
	if (!log->nr)
		return;
	for (unsigned i = 0; i < log->nr; i++)
		clear_jump(run, log->v[i]);
	log->nr = 0;
}

void run_jumps_clear(struct run *run)
{
	for (unsigned i = 0; i < RUN_PARTS; i++)
		log_clear(run, &run->part[i].log);
}

static unsigned filter_bit(uint64_t rip)
{
	uint64_t page = rip >> PAGE_SHIFT;

	return (page ^ page >> 12) % RUN_JUMP_FILTER;
}

void run_filter_add(struct run *run, uint64_t rip)
{
	unsigned bit = filter_bit(rip);

	run->filter[bit / 64] |= BIT(bit % 64);
}

static bool filtered(const struct run *run, uint64_t rip)
{
	unsigned bit = filter_bit(rip);

	return run->filter[bit / 64] & BIT(bit % 64);
}

static bool within(const struct direct_span *span, uint64_t addr)
{
	return (addr & span->mask) == span->start;
}

/* An entry that no CALL left is for -1: who goes there leaves, and is told by the fetch. */
static void clear_entries(const struct run *run, uint64_t neg[], uint64_t code[], unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		neg[i] = 1;
		code[i] = (uint64_t)run->code.rx + run->stub_rip;
	}
}

static void ring_clear(const struct run *run, struct run_ring *ring)
{
	clear_entries(run, ring->before_neg, ring->before_code, RUN_RING_BEFORE);
	clear_entries(run, ring->neg, ring->code, RUN_RING);
}

void run_rings_clear(struct run *run)
{
	for (unsigned i = 0; i < run->nr_keys; i++)
		ring_clear(run, run->jumps[i].ring);
}

int run_key_index(struct run *run, uint32_t key)
{
	for (unsigned i = 0; i < run->nr_keys; i++)
		if (run->key[i] == key)
			return i;
	if (run->nr_keys == run->nr_keys_most)
		return -1;
	ring_clear(run, run->jumps[run->nr_keys].ring);
	run->key[run->nr_keys] = key;
	return run->nr_keys++;
}

/* True if the log has the entry, for what stands there. */
static bool entered(const struct run *run, const uint64_t *neg, unsigned index,
		    const struct run_jump_log *log)
{
	return *neg != no_jump(index) && log == &run_part_of(run, -*neg)->log;
}

/* Few keys have many jumps; only their caches are worth huge pages. */
static void count_jump(const struct run *run, struct run_jumps *jumps)
{
	if (++jumps->nr != RUN_JUMP_DENSE || jumps->large || !run->large_cpu)
		return;
	jumps->large = true;
	host_pages_large(jumps->to, sizeof(*jumps->to) << run->jump_bits);
}

void run_jump_add(struct run *run, uint32_t block)
{
	const struct run_block *b = &run->block[block];
	unsigned key = run_key_index(run, b->key & ~RUN_KEY_PLAIN);
	struct run_jump_log *log = &run_part_of(run, b->rip)->log;
	struct run_jumps *jumps = &run->jumps[key];
	unsigned index = run_jump_index(run, b->rip);
	bool logged = entered(run, &jumps->to[index].neg, index, log);

	if (b->key & RUN_KEY_PLAIN)
		return;
	run->count[COUNT_TAKEN] += logged && jumps->to[index].neg != -b->rip;
	if (!logged && log->nr == RUN_JUMP_LOG)
		log_clear(run, log);
	if (jumps->to[index].neg == no_jump(index))
		count_jump(run, jumps);
	jumps->to[index].code = (uint64_t)run->code.rx + run_block_cross(b);
	jumps->to[index].neg = -b->rip;
	if (!logged)
		log->v[log->nr++] = key << RUN_JUMP_BITS | index;
}

/* True if the jump cache leads to the block's address. */
bool run_jump_stands(struct run *run, const struct run_block *b)
{
	const struct run_jumps *jumps = &run->jumps[run_key_index(run, b->key & ~RUN_KEY_PLAIN)];

	return jumps->to[run_jump_index(run, b->rip)].neg == -b->rip;
}

/* Unless another block's stands in its place. */
void run_jump_drop(struct run *run, const struct run_block *b)
{
	unsigned key = run_key_index(run, b->key & ~RUN_KEY_PLAIN);
	struct run_jumps *jumps = &run->jumps[key];
	unsigned index = run_jump_index(run, b->rip);

	if (jumps->to[index].neg == -b->rip)
		clear_jump(run, key << RUN_JUMP_BITS | index);
}

const uint8_t *run_jump_find(struct run *run, uint32_t key, uint64_t rip)
{
	unsigned index = run_jump_index(run, rip);

	for (unsigned i = 0; i < run->nr_keys; i++)
		if (run->key[i] == key)
			return run->jumps[i].to[index].neg == -rip
				       ? (const uint8_t *)run->jumps[i].to[index].code
				       : NULL;
	return NULL;
}

void run_page_jumps_drop(struct run *run, const struct run_page *page)
{
	for (uint32_t i = page->first; i != RUN_NONE; i = run->block[i].page_next)
		run_jump_drop(run, &run->block[i]);
	for (uint32_t i = page->first_over; i != RUN_NONE; i = run_over_next(run, i))
		run_jump_drop(run, &run->block[i]);
}

/* ---- what of it follows the TLB ---- */

static void make_part_stale(struct run *run, struct run_part *part)
{
	for (unsigned i = 0; i < part->nr_fresh; i++)
		run_stale_set(run, part->fresh[i], STALE_BYTES);
	part->nr_fresh = 0;
}

void run_all_stale(struct run *run)
{
	for (unsigned i = 0; i < RUN_PARTS; i++)
		make_part_stale(run, &run->part[i]);
	run->nr_made_stale++;
}

/* Jumps into pages that stand at several addresses. */
static void aliased_jumps_drop(struct run *run, struct run_part *part)
{
	if (run->nr_aliased > RUN_ALIASED) {
		log_clear(run, &part->log);
		return;
	}
	for (unsigned i = 0; i < run->nr_aliased; i++)
		run_page_jumps_drop(run, &run->page[run->aliased[i]]);
}

/* Pages that are stale for their bytes are looked up anyway. */
static void make_map_stale(struct run *run, uint32_t number)
{
	run_stale_set(run, number, run->stale[number] | STALE_MAP | STALE_LISTED);
}

/* Its translation was looked up again behind the flush, and is what it was. */
static bool stands(const struct run *run, const struct run_page *page)
{
	const struct tlb *tlb = run->cpu->tlb;
	bool smap = run->cpu->cr4 & CR4_SMAP;
	enum access_state state = page->user ? ACCESS_USER
				  : smap     ? ACCESS_SUPER_SMAP
					     : ACCESS_SUPER;
	const struct tlb_entry *e =
		&tlb->table[state][tlb_index(page->va, tlb_salt_at(tlb, page->va))];

	return e->tag_fetch == (page->va | tlb->gen[tlb_half(tlb, page->va)]) &&
	       (const uint8_t *)(page->va + e->addend) == page->hva && !page->aliased;
}

/*
 * Jumps and links into a half that was flushed stay, to stale pages: so who comes into one again is found by its
 * translation, for a page that stands at one address only; jumps into others are forgotten.
 */
static void follow_part(struct run *run, struct run_part *part)
{
	aliased_jumps_drop(run, part);
	for (unsigned i = 0; i < part->nr_fresh; i++)
		if (!stands(run, &run->page[part->fresh[i]]))
			make_map_stale(run, part->fresh[i]);
}

static void follow_span(struct run *run, const struct direct_span *span)
{
	struct run_part *part = run_part_of(run, span->start);

	if (span->mask == PAGE_MASK && !filtered(run, span->start))
		return;
	aliased_jumps_drop(run, part);
	for (unsigned i = 0; i < part->nr_fresh; i++)
		if (within(span, run->page[part->fresh[i]].va))
			make_map_stale(run, part->fresh[i]);
}

static void pages_save(const struct run *run, const struct run_part *part,
		       struct run_pages_saved *ret)
{
	ret->nr = 0;
	ret->version = part->version;
	ret->nr_made_stale = run->nr_made_stale;
	for (unsigned i = part->nr_fresh; i-- && ret->nr < RUN_SAVED;)
		if (!(run->stale[part->fresh[i]] & STALE_MAP))
			ret->page[ret->nr++] = part->fresh[i];
}

static void pages_load(struct run *run, const struct run_part *part,
		       const struct run_pages_saved *saved)
{
	if (saved->version != part->version || saved->nr_made_stale != run->nr_made_stale)
		return;
	for (unsigned i = 0; i < saved->nr; i++) {
		uint8_t stale = run->stale[saved->page[i]] & ~STALE_MAP;

		run_stale_set(run, saved->page[i], stale == STALE_LISTED ? 0 : stale);
	}
}

/* The half is another context's. */
static void follow_context(struct run *run, struct run_part *part, const struct direct_half *half)
{
	if (part->version == half->version[part->context])
		pages_save(run, part, &part->saved[part->context]);
	follow_part(run, part);
	part->context = half->now;
	part->version = half->version[half->now];
	pages_load(run, part, &part->saved[half->now]);
}

static void follow_half(struct run *run, struct run_part *part, const struct direct_half *half)
{
	if (part->context != half->now) {
		follow_context(run, part, half);
	} else if (part->version != half->version[half->now]) {
		part->version = half->version[half->now];
		follow_part(run, part);
	}
}

/* What the halves are has changed. */
static void forget_halves(struct run *run)
{
	run->half_shift[run_mode(run)] = run->cpu->tlb->half_shift;
	run_jumps_clear(run);
	run_all_stale(run);
}

void run_jumps_follow(struct run *run)
{
	struct direct *d = run->cpu->tlb->direct;
	unsigned mode = run_mode(run);

	if (run->half_shift[mode] != run->cpu->tlb->half_shift)
		forget_halves(run);
	for (unsigned half = 0; half < 2; half++)
		follow_half(run, &run->part[2 * mode + half], &d->half[half]);
	for (unsigned i = 0; i < d->nr_flushed; i++)
		follow_span(run, &d->flushed[i]);
	direct_flushed_clear(d);
}
