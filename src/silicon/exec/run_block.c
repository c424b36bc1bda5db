/* SPDX-License-Identifier: MIT */
/*
 * Blocks, the pages that they were made of, and the jump cache (run.h).
 *
 * Translated code is right as long as its page's bytes are those that it was made of. The guest's own writes
 * are noticed by the TLB (direct.h), and their pages compared at once. The program, its devices and other
 * processors write unseen: so an epoch begins wherever the architecture or the program's entry makes such writes
 * count. Chains lead from block to block of one page only. So control gets into a page by the jump cache or by
 * run_find(): the pages that the jump cache leads to are compared when the epoch begins, or it is emptied, if they
 * are too many or now and then; all others at their first use in each epoch, by run_find().
 */
#include "host/guard.h"
#include "silicon/exec/run.h"
#include "silicon/mmu/tlb.h"

#define LINE_SHIFT 6
#define PAGE_LINES 64

/* ---- the jump cache ---- */

static void clear_jump(struct run *run, uint32_t logged)
{
	uint16_t index = logged;

	run->jumps[logged >> 16].neg[index] = index ? 0 : DIRECT_NEVER;
}

void run_jumps_clear(struct run *run)
{
	if (run->nr_jump_log > RUN_JUMP_LOG) {
		__builtin_memset(run->jumps, 0, RUN_KEYS * sizeof(*run->jumps));
		for (unsigned i = 0; i < RUN_KEYS; i++)
			clear_jump(run, i << 16);
	}
	for (unsigned i = 0; i < min(run->nr_jump_log, RUN_JUMP_LOG); i++)
		clear_jump(run, run->jump_log[i]);
	run->nr_jump_log = 0;
	run->nr_jump_pages = 0;
	run->nr_kept = 0;
	run->nr_clears++;
}

int run_key_index(struct run *run, uint32_t key)
{
	for (unsigned i = 0; i < run->nr_keys; i++)
		if (run->key[i] == key)
			return i;
	if (run->nr_keys == RUN_KEYS)
		return -1;
	run->key[run->nr_keys] = key;
	return run->nr_keys++;
}

/* Note a page that jumps lead to; one more than there is room for means that some are not noted. */
static void note_page(struct run *run, uint32_t number)
{
	struct run_page *page = &run->page[number];

	if (page->noted == run->nr_clears)
		return;
	page->noted = run->nr_clears;
	if (run->nr_jump_pages < RUN_JUMP_PAGES)
		run->jump_page[run->nr_jump_pages] = number;
	if (run->nr_jump_pages <= RUN_JUMP_PAGES)
		run->nr_jump_pages++;
}

void run_jump_add(struct run *run, uint32_t block)
{
	const struct run_block *b = &run->block[block];
	unsigned key = run_key_index(run, b->key);
	struct run_jumps *jumps = &run->jumps[key];
	uint16_t index = b->rip;

	note_page(run, b->page);
	if (b->second != RUN_NONE)
		note_page(run, b->second);
	jumps->code[index] = (uint64_t)run->code.rx + b->entry;
	if (jumps->neg[index] == -b->rip)
		return;
	jumps->neg[index] = -b->rip;
	if (run->nr_jump_log < RUN_JUMP_LOG)
		run->jump_log[run->nr_jump_log] = key << 16 | index;
	if (run->nr_jump_log <= RUN_JUMP_LOG)
		run->nr_jump_log++;
}

/* ---- blocks ---- */

static uint32_t *block_chain(struct run *run, uint64_t rip, uint32_t key)
{
	return &run->block_table[hash_words(rip, key, RUN_BLOCK_BITS)];
}

void run_block_link(struct run *run, uint32_t block)
{
	struct run_block *b = &run->block[block];
	uint32_t *chain = block_chain(run, b->rip, b->key);
	struct run_page *page = &run->page[b->page];

	b->next = *chain;
	*chain = block + 1;
	b->page_next = page->first;
	page->first = block;
	if (b->second == RUN_NONE)
		return;
	b->second_next = run->page[b->second].first_over;
	run->page[b->second].first_over = block;
}

static void block_unlink(struct run *run, uint32_t block)
{
	struct run_block *b = &run->block[block];
	uint32_t *link = block_chain(run, b->rip, b->key);

	while (*link && *link != block + 1)
		link = &run->block[*link - 1].next;
	if (*link)
		*link = b->next;
	b->dead = true;
}

/* ---- pages ---- */

static uint32_t *page_chain(struct run *run, const uint8_t *hva)
{
	return &run->page_table[hash_words((uintptr_t)hva >> PAGE_SHIFT, 0, RUN_PAGE_BITS)];
}

static struct run_page *page_lookup(struct run *run, const uint8_t *hva)
{
	for (uint32_t i = *page_chain(run, hva); i; i = run->page[i - 1].next)
		if (run->page[i - 1].hva == hva)
			return &run->page[i - 1];
	return NULL;
}

/* Whether 64 bytes are the same; if the host faults on now, they are not. */
static inline HOST_NO_ASAN bool line_same(const uint8_t *now, const uint8_t *was)
{
	uint64_t diff, word;

	/* clang-format off */
#define WORD(label, at)                              \
	#label ": mov " #at "(%[now]), %[word]\n"    \
	"xor " #at "(%[was]), %[word]\n"             \
	"or %[word], %[diff]\n"                      \
	HOST_EXTABLE(#label "b", "9b")
	asm volatile(".pushsection .text.anykvm_landing, \"ax\"\n"
		     "9: mov $1, %k[diff]\n"
		     "jmp 10f\n"
		     ".popsection\n"
		     "xor %k[diff], %k[diff]\n"
		     WORD(1, 0) WORD(2, 8) WORD(3, 16) WORD(4, 24)
		     WORD(5, 32) WORD(6, 40) WORD(7, 48) WORD(8, 56)
		     "10:\n"
		     : [diff] "=&r"(diff), [word] "=&r"(word)
		     : [now] "r"(now), [was] "r"(was)
		     : "memory", "cc");
#undef WORD
	/* clang-format on */
	return !diff;
}

static bool page_same(const struct run_page *page)
{
	for (uint64_t lines = page->lines; lines; lines &= lines - 1) {
		unsigned at = __builtin_ctzll(lines) << LINE_SHIFT;

		if (!line_same(page->hva + at, page->copy + at))
			return false;
	}
	return true;
}

static void page_drop(struct run *run, struct run_page *page)
{
	for (uint32_t b = page->first; b != RUN_NONE; b = run->block[b].page_next)
		block_unlink(run, b);
	for (uint32_t b = page->first_over; b != RUN_NONE; b = run->block[b].second_next)
		block_unlink(run, b);
	page->first = page->first_over = RUN_NONE;
	page->lines = 0;
	page->gen++;
	page->drops += page->drops < 255;
	run->nr_dropped++;
	run_jumps_clear(run);
}

static void page_check(struct run *run, struct run_page *page)
{
	if (page->epoch == run->epoch)
		return;
	if (!page_same(page))
		page_drop(run, page);
	page->epoch = run->epoch;
}

static struct run_page *page_make(struct run *run, const uint8_t *hva)
{
	uint32_t *chain = page_chain(run, hva);
	struct run_page *page;

	if (run->nr_pages == RUN_PAGES || !direct_code_add(run->cpu, hva))
		return NULL;
	page = &run->page[run->nr_pages];
	page->hva = hva;
	page->lines = 0;
	page->epoch = run->epoch;
	page->first = page->first_over = RUN_NONE;
	page->gen = 0;
	page->noted = 0;
	page->drops = 0;
	page->next = *chain;
	*chain = ++run->nr_pages;
	return page;
}

struct run_page *run_page_get(struct run *run, const uint8_t *hva)
{
	struct run_page *page = page_lookup(run, hva);

	if (!page)
		return page_make(run, hva);
	page_check(run, page);
	return page;
}

/*
 * More pages than a few are worth it only as long as they are in use: so the jump cache is emptied now and then, to
 * be filled by what is.
 */
static bool worth_keeping(struct run *run)
{
	return run->nr_jump_pages <= RUN_JUMP_FEW ||
	       (run->nr_jump_pages <= RUN_JUMP_PAGES && run->nr_kept++ < RUN_JUMP_KEEP);
}

void run_new_epoch(struct run *run)
{
	run->epoch++;
	if (!worth_keeping(run)) {
		run_jumps_clear(run);
		return;
	}
	/* A page that differs empties the jump cache, and so ends this. */
	for (unsigned i = 0; i < run->nr_jump_pages; i++)
		page_check(run, &run->page[run->jump_page[i]]);
}

static void page_written(struct run *run, const uint8_t *hva)
{
	struct run_page *page = page_lookup(run, hva);

	if (!page)
		return;
	page->epoch = 0;
	page_check(run, page);
}

void run_notice_writes(struct run *run)
{
	struct direct *d = run->cpu->tlb->direct;

	if (likely(!d->nr_written))
		return;
	if (d->nr_written > DIRECT_WRITTEN)
		run_new_epoch(run);
	else
		for (unsigned i = 0; i < d->nr_written; i++)
			page_written(run, d->written[i]);
	d->nr_written = 0;
}

/* ---- finding ---- */

const uint8_t *run_second_page(struct cpu *cpu)
{
	uint64_t next = (cpu->rip & PAGE_MASK) + PAGE_SIZE;

	return next > cpu->rip && run_near_end(cpu->rip) ? tlb_fetch_hit(cpu, next) : NULL;
}

/* The block's second page is the one that follows now, and holds what the block was made of. */
static bool second_valid(struct run *run, const struct run_block *b)
{
	const uint8_t *host;

	if (b->second == RUN_NONE)
		return true;
	host = run_second_page(run->cpu);
	if (!host || run->page[b->second].hva != host)
		return false;
	page_check(run, &run->page[b->second]);
	return true;
}

uint32_t run_find(struct run *run, const uint8_t **ret_host)
{
	struct cpu *cpu = run->cpu;
	const uint8_t *host = tlb_fetch_hit(cpu, cpu->rip & PAGE_MASK);
	uint32_t key = run_key(cpu);

	*ret_host = host;
	if (!host)
		return RUN_NONE;
	for (uint32_t i = *block_chain(run, cpu->rip, key); i; i = run->block[i - 1].next) {
		struct run_block *b = &run->block[i - 1];

		if (b->rip != cpu->rip || b->key != key || run->page[b->page].hva != host ||
		    !second_valid(run, b))
			continue;
		page_check(run, &run->page[b->page]);
		return b->dead ? RUN_NONE : i - 1;
	}
	return RUN_NONE;
}
