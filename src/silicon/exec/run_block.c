/* SPDX-License-Identifier: MIT */
/*
 * Blocks, and the pages that they were made of (run.h).
 *
 * Translated code is right as long as its page's bytes are those that it was made of. The guest's own writes
 * are noticed by the TLB (direct.h), and their pages compared at once; so are other processors' (codemap.h), and their
 * pages made stale. The program and its devices write unseen: so an epoch begins wherever the architecture or the
 * program's entry makes such writes count, and makes all pages stale. Control gets into a page by run_find(), or by
 * the jump cache and links (run_link.c), which lead to the blocks' cross entries: all look whether it is stale, and a
 * stale page is compared first.
 *
 * A page is stale, too, when its translation was flushed: it is looked up then. A page that stands at several linear
 * addresses, or runs in several rings, cannot tell of which of them it was; jumps to it are forgotten.
 */
#include "host/guard.h"
#include "silicon/exec/run_parts.h"
#include "silicon/mmu/tlb.h"
#include "silicon/mmu/codemap.h"

#define LINE_SHIFT 6

/* ---- blocks ---- */

static uint32_t *block_chain(struct run *run, uint64_t rip, uint32_t key)
{
	return &run->block_table[hash_words(rip, key, run->block_bits)];
}

static void write_jump(struct run *run, uint32_t from, uint32_t to)
{
	uint32_t disp = to - (from + 5);

	run->code.rw[from] = 0xe9;
	__builtin_memcpy(run->code.rw + from + 1, &disp, 4);
}

/* mov $val,%ecx */
static void write_imm(struct run *run, uint32_t at, uint32_t val)
{
	run->code.rw[at] = 0xb9;
	__builtin_memcpy(run->code.rw + at + 1, &val, 4);
}

/* One of two pages looks at both wherever it is entered from. */
static void lead_on(struct run *run, uint32_t old, uint32_t new)
{
	const struct run_block *b = &run->block[new];
	bool two = b->over;

	write_jump(run, run->block[old].entry, two ? run_block_cross(b) : b->entry);
	if (!run_block_calls(&run->block[old]))
		write_jump(run, run_block_inner(&run->block[old]),
			   two ? run_block_cross(b) : run_block_inner(b));
	write_jump(run, run_block_cross(&run->block[old]), run_block_cross(&run->block[new]));
	run_link_move(run, old, new);
}

/* Jumps that led to the same code before it changed lead to the block. */
static void replace_dead(struct run *run, struct run_page *page, uint32_t block)
{
	const struct run_block *b = &run->block[block];
	uint32_t *link = &page->first;

	while (*link != RUN_NONE) {
		struct run_block *old = &run->block[*link];

		if (old->dead && old->rip == b->rip && old->key == b->key) {
			lead_on(run, old - run->block, block);
			*link = old->page_next;
			page->nr_dead--;
		} else {
			link = &old->page_next;
		}
	}
}

/* run_find() finds the block no more. */
static void block_hide(struct run *run, const struct run_block *b)
{
	uint32_t block = b - run->block, *link = block_chain(run, b->rip, b->key);

	while (*link && *link != block + 1)
		link = &run->block[*link - 1].next;
	if (*link)
		*link = b->next;
}

/* What was worth its making most likely is so again: generated code. What is patched each time is not. */
static void note_use(const struct run *run, const struct run_block *b)
{
	uint32_t block = b - run->block;

	if (b->counts || b->replaced)
		run_heat(run, b->rip, b->key)->lasted = b->replaced ||
							run_visits(run, block) >= RUN_LASTED;
}

/* Who comes to the block's head leaves for the loop. */
static void shut(struct run *run, const struct run_block *b)
{
	uint32_t leave = run_block_cross(b) - RUN_HEAD_LEAVE;

	if (run_block_calls(b)) {
		write_imm(run, b->entry, (b - run->block) << RUN_HEAD_SHIFT);
		write_jump(run, b->entry + RUN_MOV_IMM, run->stub_gone);
		return;
	}
	write_jump(run, b->entry, leave);
	write_jump(run, run_block_inner(b), leave);
}

/* Nobody finds or enters the block any more: what is chained to it leaves for the loop at its head. */
static void block_kill(struct run *run, struct run_block *b)
{
	if (b->dead)
		return;
	note_use(run, b);
	block_hide(run, b);
	b->dead = true;
	run->page[b->page].nr_dead++;
	shut(run, b);
	run_jump_drop(run, b);
	run_link_cut(run, b - run->block);
}

void run_block_link(struct run *run, uint32_t block)
{
	struct run_block *b = &run->block[block];
	uint32_t *chain = block_chain(run, b->rip, b->key);
	struct run_page *page = &run->page[b->page];
	struct run_over *over = run_block_over(run, b);

	b->next = *chain;
	*chain = block + 1;
	if (page->nr_dead)
		replace_dead(run, page, block);
	b->page_next = page->first;
	page->first = block;
	if (!over)
		return;
	over->next = run->page[over->page].first_over;
	run->page[over->page].first_over = block;
}

uint32_t run_block_at(const struct run *run, uint64_t rip, uint32_t key, uint32_t page)
{
	uint32_t i = run->block_table[hash_words(rip, key, run->block_bits)];

	for (; i; i = run->block[i - 1].next) {
		const struct run_block *b = &run->block[i - 1];

		if (b->rip == rip && b->key == key && b->page == page)
			return i - 1;
	}
	return RUN_NONE;
}

void run_block_replace(struct run *run, uint32_t old, uint32_t new)
{
	lead_on(run, old, new);
	run->block[old].counts = false;
	run->block[old].replaced = true;
	block_hide(run, &run->block[old]);
	if (run_jump_stands(run, &run->block[old]))
		run_jump_add(run, new);
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

/* Of these lines, those that are not what the copy says. */
static uint64_t page_changed(struct run *run, const struct run_page *page, uint64_t lines)
{
	uint64_t changed = 0;

	for (lines &= page->lines; lines; lines &= lines - 1) {
		unsigned at = __builtin_ctzll(lines) << LINE_SHIFT;

		run->count[COUNT_LINES]++;
		if (!line_same(page->hva + at, run->line[page->copy[at / RUN_LINE] - 1]))
			changed |= lines & -lines;
	}
	return changed;
}

static void forget_aliased(struct run *run, struct run_page *page)
{
	unsigned i = 0;

	while (run->aliased[i] != page - run->page)
		i++;
	run->aliased[i] = run->aliased[--run->nr_aliased];
	page->aliased = false;
}

/* Nothing is translated of it: writes to it need not be noticed. */
static void page_retire(struct run *run, struct run_page *page)
{
	if (page->aliased && run->nr_aliased <= RUN_ALIASED)
		forget_aliased(run, page);
	page->first = page->first_over = RUN_NONE;
	page->nr_dead = page->nr_drops = 0;
	page->lines = 0;
	page->gen = 0;
	direct_code_remove(run->cpu, page->hva);
}

/* Kill the blocks made of these lines. True: others are left; *ret_lines: what those were made of. */
static bool kill_changed(struct run *run, struct run_page *page, uint64_t changed,
			 uint64_t *ret_lines)
{
	bool left = false;

	*ret_lines = 0;
	for (uint32_t i = page->first; i != RUN_NONE; i = run->block[i].page_next) {
		if (run_block_lines(run, &run->block[i]) & changed)
			block_kill(run, &run->block[i]);
		if (run->block[i].dead)
			continue;
		*ret_lines |= run_block_lines(run, &run->block[i]);
		left = true;
	}
	for (uint32_t i = page->first_over; i != RUN_NONE; i = run_over_next(run, i)) {
		uint64_t line = BIT(run_block_over(run, &run->block[i])->line);

		if (changed & line)
			block_kill(run, &run->block[i]);
		if (run->block[i].dead)
			continue;
		*ret_lines |= line;
		left = true;
	}
	return left;
}

static void page_drop(struct run *run, struct run_page *page, uint64_t changed)
{
	uint64_t lines;

	run->count[COUNT_DROP]++;
	if (kill_changed(run, page, changed, &lines)) {
		page->lines = lines;
		if (page->nr_dead <= RUN_DEAD && ++page->nr_drops <= RUN_DROPS) {
			direct_code_lines(run->cpu, page->hva, lines);
			return;
		}
		kill_changed(run, page, ~0ull, &lines);
	}
	page_retire(run, page);
}

static void page_compare(struct run *run, struct run_page *page, uint64_t lines)
{
	uint64_t changed = page_changed(run, page, lines);

	run->count[COUNT_COMPARE]++;
	if (changed)
		page_drop(run, page, changed);
}

static void set_fresh(struct run *run, struct run_page *page)
{
	uint32_t number = page - run->page;
	struct run_part *part = run_page_part(run, page);

	if (!(run->stale[number] & STALE_LISTED))
		part->fresh[part->nr_fresh++] = number;
	run_stale_set(run, number, 0);
}

static void make_stale(struct run *run, uint32_t number)
{
	uint8_t stale = run->stale[number];

	run_stale_set(run, number, (stale ? stale : STALE_LISTED) | STALE_BYTES);
}

/* While another processor writes to the page it is compared each time: asked before, for the write comes first. */
static void page_check(struct run *run, struct run_page *page)
{
	uint32_t stale = run->stale[page - run->page];
	bool busy = false;

	if (likely(!stale))
		return;
	if (stale & STALE_BYTES) {
		busy = codemap_busy(run->cpu, page->hva);
		page_compare(run, page, ~0ull);
	}
	if (!busy)
		set_fresh(run, page);
}

static void page_links_cut(struct run *run, const struct run_page *page)
{
	for (uint32_t i = page->first; i != RUN_NONE; i = run->block[i].page_next)
		run_link_cut(run, i);
	for (uint32_t i = page->first_over; i != RUN_NONE; i = run_over_next(run, i))
		run_link_cut(run, i);
}

static void make_aliased(struct run *run, struct run_page *page)
{
	page->aliased = true;
	if (run->nr_aliased < RUN_ALIASED)
		run->aliased[run->nr_aliased] = page - run->page;
	if (run->nr_aliased <= RUN_ALIASED)
		run->nr_aliased++;
	run_page_jumps_drop(run, page);
	run_rings_clear(run);
	page_links_cut(run, page);
}

static bool in_user(const struct run *run)
{
	return run->cpu->mode.cpl == 3;
}

static bool placed(const struct run *run, const struct run_page *page, uint64_t va)
{
	return page->va == va && page->user == in_user(run) && page->guest == run_mode(run);
}

/* Blocks are made of it at va, too. Without any it can be taken there, unless it is listed in another part. */
static void page_place(struct run *run, struct run_page *page, uint64_t va)
{
	if (page->aliased || placed(run, page, va))
		return;
	if (page->first != RUN_NONE || page->first_over != RUN_NONE ||
	    run_page_part(run, page) != run_part_of(run, va)) {
		make_aliased(run, page);
		return;
	}
	page->va = va;
	page->user = in_user(run);
	run->nr_made_stale++;
}

static struct run_page *page_make(struct run *run, const uint8_t *hva, uint64_t va)
{
	uint32_t *chain = page_chain(run, hva);
	struct run_page *page;

	if (run->nr_pages == run->growth * RUN_PAGES)
		return NULL;
	page = &run->page[run->nr_pages];
	page->hva = hva;
	page->va = va;
	page->guest = run_mode(run);
	page->user = in_user(run);
	page->aliased = false;
	page->lines = 0;
	__builtin_memset(page->copy, 0, sizeof(page->copy));
	page->first = page->first_over = RUN_NONE;
	page->nr_dead = page->nr_drops = 0;
	page->gen = 0;
	page->next = *chain;
	*chain = ++run->nr_pages;
	run_stale_set(run, page - run->page, STALE_BYTES);
	set_fresh(run, page);
	return page;
}

static void list_open(struct run *run, uint32_t number)
{
	if (run->nr_open < RUN_OPEN)
		run->open[run->nr_open] = number;
	if (run->nr_open <= RUN_OPEN)
		run->nr_open++;
}

/* The page is watched from now on, as soon as others know. */
static bool page_watch(struct run *run, struct run_page *page)
{
	uint64_t gen = 0;

	if (!direct_code_add(run->cpu, page->hva, &gen))
		return false;
	if (!gen || !codemap_shared(run->cpu))
		return true;
	page->gen = gen;
	list_open(run, page - run->page);
	return true;
}

struct run_page *run_page_get(struct run *run, const uint8_t *hva, uint64_t rip)
{
	struct run_page *page = page_lookup(run, hva);
	uint64_t va = rip & PAGE_MASK;

	run_filter_add(run, va);
	if (page) {
		page_place(run, page, va);
		page_check(run, page);
	} else {
		page = page_make(run, hva, va);
	}
	return page && page_watch(run, page) ? page : NULL;
}

/* A write to new lines may have gone by before they were known: who comes in next looks. */
void run_page_cover(struct run *run, struct run_page *page, uint64_t lines)
{
	bool more = lines & ~page->lines;

	page->lines |= lines;
	page->nr_drops = 0;
	direct_code_lines(run->cpu, page->hva, page->lines);
	if (more && codemap_shared(run->cpu))
		make_stale(run, page - run->page);
}

/*
 * Few pages are compared at once, which costs less than to leave the code at each. They are those in use, if now and
 * then all are made stale.
 */
static bool compare_now(struct run *run, uint32_t nr)
{
	if (nr > RUN_FRESH_FEW || run->nr_compared++ == RUN_COMPARE)
		return false;
	for (unsigned i = 0; i < RUN_PARTS; i++)
		for (unsigned k = 0; k < run->part[i].nr_fresh; k++)
			page_compare(run, &run->page[run->part[i].fresh[k]], ~0ull);
	return true;
}

static uint64_t sync_time(const struct run *run)
{
	return run->cpu->counted ? run->cpu->retired : __builtin_ia32_rdtsc();
}

static uint32_t nr_fresh(const struct run *run)
{
	uint32_t nr = 0;

	for (unsigned i = 0; i < RUN_PARTS; i++)
		nr += run->part[i].nr_fresh;
	return nr;
}

void run_new_epoch(struct run *run)
{
	uint32_t nr = nr_fresh(run);

	run->count[COUNT_EPOCH]++;
	run->last_sync = sync_time(run);
	run->sync_ticks = RUN_SYNC_TICKS + nr * (uint64_t)RUN_SYNC_PAGE;
	if (compare_now(run, nr))
		return;
	run->nr_compared = 0;
	run_all_stale(run);
}

/* ---- serializing instructions ---- */

#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC	 0x800
#define NR_MSR_X2APIC	 0x100
#define MSR_SPEC_CTRL	 0x48
#define MSR_PRED_CMD	 0x49
#define MSR_STAR	 0xc0000081
#define MSR_TSC_AUX	 0xc0000103

/*
 * SDM: writes to the x2APIC's registers and to the TSC deadline do not serialize. Kernels and their KVM write some others
 * all the time, about each exit of a guest: SPEC_CTRL, PRED_CMD, and what SYSCALL, SWAPGS and RDTSCP go by.
 */
static enum insn_sync sync_of_wrmsr(uint32_t msr)
{
	if (msr - MSR_X2APIC < NR_MSR_X2APIC || msr == MSR_TSC_DEADLINE)
		return SYNC_NONE;
	if (msr == MSR_SPEC_CTRL || msr == MSR_PRED_CMD)
		return SYNC_CPUS;
	return msr >= MSR_STAR && msr <= MSR_TSC_AUX ? SYNC_CPUS : SYNC_ALL;
}

/* Pages that are not watched by all yet are compared. Those that are by now, once more. */
static void check_open(struct run *run)
{
	uint64_t seen = codemap_seen(run->cpu), newest = 0;
	unsigned kept = 0;

	for (unsigned i = 0; i < run->nr_open; i++) {
		uint32_t number = run->open[i];
		uint64_t gen = run->page[number].gen;

		make_stale(run, number);
		if (gen <= seen)
			continue;
		run->open[kept++] = number;
		if (gen != CODEMAP_NEVER)
			newest = max(newest, gen);
	}
	run->nr_open = kept;
	if (newest > run->hurried) {
		run->hurried = newest;
		codemap_hurry(run->cpu);
	}
}

/* They are not all listed: compare all, and list them anew. */
static void check_too_many(struct run *run)
{
	uint64_t seen = codemap_seen(run->cpu);

	run->nr_open = 0;
	for (uint32_t i = 0; i < run->nr_pages; i++)
		if (run->page[i].gen > seen)
			list_open(run, i);
	run_new_epoch(run);
	codemap_hurry(run->cpu);
}

/* What other processors wrote is known, but for the pages that they may still write to unseen. */
static void sync_cpus(struct run *run)
{
	if (run->nr_open > RUN_OPEN)
		check_too_many(run);
	else if (run->nr_open)
		check_open(run);
}

/* Kernels that patch their code at boot execute one for each place, 100,000 in a row. */
static enum insn_sync sync_of_burst(struct run *run)
{
	uint64_t now = sync_time(run);

	if (now - run->burst_since >= RUN_SYNC_TICKS) {
		run->burst_since = now;
		run->nr_burst = 0;
	}
	return run->nr_burst++ < RUN_SYNC_BURST ? SYNC_ALL : SYNC_CPUS;
}

void run_serialize(struct run *run, enum insn_sync sync)
{
	if (sync == SYNC_WRMSR)
		sync = sync_of_wrmsr(run->cpu->gpr[RCX]);
	else if (sync == SYNC_BURST)
		sync = sync_of_burst(run);
	if (sync == SYNC_CPUS) {
		sync_cpus(run);
		if (sync_time(run) - run->last_sync < run->sync_ticks)
			return;
	}
	if (sync != SYNC_NONE)
		run_new_epoch(run);
}

/* ---- the guest's own writes ---- */

static void page_written(struct run *run, const uint8_t *hva, uint64_t lines)
{
	struct run_page *page = page_lookup(run, hva);

	if (page)
		page_compare(run, page, lines);
}

/* Others' writes may still be under way. */
static void notice_others(struct run *run)
{
	const uint8_t *hva[CODEMAP_INBOX];
	struct run_page *page;
	bool lost;

	for (unsigned nr = codemap_take(run->cpu, hva, &lost); nr--;) {
		page = page_lookup(run, hva[nr]);
		if (page)
			make_stale(run, page - run->page);
	}
	if (lost)
		run_all_stale(run);
}

void run_notice_writes(struct run *run)
{
	struct direct_code *d = run->cpu->tlb->direct->code;

	if (unlikely(codemap_posted(run->cpu)))
		notice_others(run);
	if (likely(!d->nr_written))
		return;
	if (d->nr_written > DIRECT_WRITTEN)
		run_new_epoch(run);
	else
		for (unsigned i = 0; i < d->nr_written; i++)
			page_written(run, d->written[i].page, d->written[i].lines);
	d->nr_written = 0;
}

/* ---- finding ---- */

const uint8_t *run_second_page(struct cpu *cpu)
{
	uint64_t next = (cpu->rip & PAGE_MASK) + PAGE_SIZE;

	return next > cpu->rip && run_near_end(cpu->rip) ? tlb_fetch_hit(cpu, next) : NULL;
}

bool run_maybe_relay(const uint8_t *host)
{
	uint8_t byte = 0;

	return host_load_8(host, &byte) && (byte == 0xc3 || byte == 0xff || byte == 0x41);
}

/* Where the relay's page is now; it is looked up if need be, for to go without it would be to translate anew. */
static const uint8_t *relay_page(struct run *run, const struct run_page *page)
{
	struct cpu *cpu = run->cpu;
	const uint8_t *host;

	if (page->aliased)
		return NULL;
	host = tlb_fetch_hit(cpu, page->va);
	if (likely(host))
		return host;
	if (mmu_probe(cpu, page->va, 1, ACCESS_FETCH) == RESULT_OK)
		run_notice_writes(run);
	cpu->fault.valid = false;
	return tlb_fetch_hit(cpu, page->va);
}

/* The block's second page is where it was, and holds what the block was made of. */
static bool second_valid(struct run *run, const struct run_block *b)
{
	const struct run_over *over = run_block_over(run, b);
	const uint8_t *host;

	if (!over)
		return true;
	host = over->relay ? relay_page(run, &run->page[over->page]) : run_second_page(run->cpu);
	if (!host || run->page[over->page].hva != host)
		return false;
	page_check(run, &run->page[over->page]);
	return true;
}

/* The block is the one at RIP under key, where host is the page. */
static bool stands(struct run *run, const struct run_block *b, uint32_t key, const uint8_t *host)
{
	return b->rip == run->cpu->rip && b->key == key && run->page[b->page].hva == host &&
	       second_valid(run, b);
}

static uint32_t checked(struct run *run, uint32_t block)
{
	page_check(run, &run->page[run->block[block].page]);
	return run->block[block].dead ? RUN_NONE : block;
}

/* The block that was left at its head, if it is good still: most likely it is to be entered. */
static uint32_t block_left(const struct run *run)
{
	uint32_t block = run->leave & LEAVE_INDEX;

	if (run->leave >> LEAVE_SHIFT != LEAVE_HEAD || run->block[block].dead ||
	    run->block[block].replaced)
		return RUN_NONE;
	return block;
}

uint32_t run_find(struct run *run, uint32_t key, const uint8_t **ret_host)
{
	struct cpu *cpu = run->cpu;
	const uint8_t *host = tlb_fetch_hit(cpu, cpu->rip & PAGE_MASK);
	uint32_t left;

	*ret_host = host;
	if (!host)
		return RUN_NONE;
	left = block_left(run);
	if (left != RUN_NONE && stands(run, &run->block[left], key, host))
		return checked(run, left);
	for (uint32_t i = *block_chain(run, cpu->rip, key); i; i = run->block[i - 1].next)
		if (stands(run, &run->block[i - 1], key, host))
			return checked(run, i - 1);
	return RUN_NONE;
}
