/* SPDX-License-Identifier: MIT */
/*
 * The run tempo's memory (run.h): tables as large as the bound of code asks for, in addresses; pages come as they are
 * written to. Translated code takes RUN_FIRST MiB at first, and twice as much where the guest's programs need it, up to
 * ->most. All else follows from that by the table below.
 */
#include "silicon/exec/run_translate.h"
#include "silicon/mmu/tlb.h"

#include <string.h>
#include <sys/mman.h>

/* What of struct run is allocated: bytes for each MiB of code that there may be, and besides. */
static const struct table {
	uint32_t at; /* of the pointer */
	uint32_t per_mib, once;
	bool low; /* translated code reaches it */
} tables[] = {
#define TABLE(name, per_mib, once, low)                                                   \
	{                                                                                 \
		offsetof(struct run, name), (per_mib) * sizeof(*((struct run *)0)->name), \
			(once) * sizeof(*((struct run *)0)->name), low                    \
	}
	TABLE(kept, RUN_SITES, 0, false),
	TABLE(near, RUN_NEAR, 0, false),
	TABLE(group, RUN_GROUPS, 0, false),
	TABLE(block, RUN_BLOCKS, 0, false),
	TABLE(block_table, 2u << RUN_BLOCK_BITS >> RUN_FIRST_BITS, 1u << RUN_BLOCK_BITS, false),
	TABLE(over, RUN_OVERS, 0, false),
	TABLE(visits, RUN_BLOCKS, 0, true),
	TABLE(exit, RUN_EXITS, 0, false),
	TABLE(page, RUN_PAGES, 0, false),
	TABLE(line, RUN_PAGES *PAGE_SIZE / RUN_LINE, 0, false),
	TABLE(cold, 0, RUN_COLD, false),
	TABLE(heat, 0, 1u << RUN_HEAT_BITS, false),
	TABLE(part, 0, RUN_PARTS, false),
	TABLE(record, 0, RUN_BLOCK_INSNS, false),
#undef TABLE
};

static void *pages_alloc(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

static size_t table_size(const struct run *run, const struct table *t)
{
	return (size_t)run->most * t->per_mib + t->once;
}

static void *table_get(const struct run *run, const struct table *t)
{
	void *mem;

	memcpy(&mem, (const uint8_t *)run + t->at, sizeof(mem));
	return mem;
}

static size_t jumps_size(const struct run *run)
{
	return sizeof(*run->jumps[0].to) << run->jump_bits;
}

/* The later a processor came into the machine, the less it may take. */
static void set_sizes(struct run *run)
{
	unsigned nr = run->cpu->codemap ? run->cpu->codemap_index : 0, bound = run->cpu->code_most;

	run->large_cpu = nr < RUN_LARGE_CPUS;
	run->most = run->large_cpu ? RUN_USUAL : nr < RUN_MIDDLE_CPUS ? 2 * RUN_FIRST : RUN_FIRST;
	if (bound && (run->large_cpu || bound < run->most))
		run->most = min(bound, RUN_MOST);
	run->growth = min(run->most, RUN_FIRST);
	run->block_bits = RUN_BLOCK_BITS;
	run->jump_bits = run->large_cpu ? RUN_JUMP_BITS : RUN_JUMP_FEW;
	run->nr_keys_most = run->cpu->tlb->other ? RUN_KEYS : RUN_KEYS_FEW;
}

static bool make_jumps(struct run *run)
{
	bool good = true;

	for (unsigned i = 0; i < run->nr_keys_most; i++) {
		run->jumps[i].to = host_low_alloc(jumps_size(run));
		run->jumps[i].ring = host_low_alloc(sizeof(*run->jumps[i].ring));
		good = good && run->jumps[i].to && run->jumps[i].ring;
		if (run->jumps[i].to)
			host_pages_small(run->jumps[i].to, jumps_size(run));
	}
	return good;
}

bool run_tables_make(struct run *run)
{
	bool good = true;

	set_sizes(run);
	for (const struct table *t = tables; t < tables + ARRAY_SIZE(tables); t++) {
		size_t size = table_size(run, t);
		void *mem = t->low ? host_low_alloc(size) : pages_alloc(size);

		memcpy((uint8_t *)run + t->at, &mem, sizeof(mem));
		good = good && mem;
	}
	return make_jumps(run) && good;
}

/*
 * The tables that are looked up in all the time, at addresses that have nothing to do with each other. Small programs
 * go without: clearing some 20 MiB is most of what a vCPU costs that runs for a moment.
 */
void run_large_tables(struct run *run)
{
	const struct tlb *other = run->cpu->tlb->other;

	run->large = true;
	host_pages_large(run->cpu->tlb->direct, sizeof(*run->cpu->tlb->direct));
	if (other && other->count.fills)
		host_pages_large(other->direct, sizeof(*other->direct));
}

/* Blocks are looked up at random, too, but only where they fill a huge page is it worth its memory. */
void run_large_blocks(struct run *run)
{
	uintptr_t first = ALIGN_UP((uintptr_t)run->block, RUN_HUGE);

	while (first + run->large_blocks + RUN_HUGE <= (uintptr_t)(run->block + run->nr_blocks)) {
		host_pages_collapse((void *)(first + run->large_blocks), RUN_HUGE);
		run->large_blocks += RUN_HUGE;
	}
}

void run_tables_free(struct run *run)
{
	for (const struct table *t = tables; t < tables + ARRAY_SIZE(tables); t++)
		if (table_get(run, t))
			munmap(table_get(run, t), table_size(run, t));
	for (unsigned i = 0; i < run->nr_keys_most; i++) {
		if (run->jumps[i].to)
			munmap(run->jumps[i].to, jumps_size(run));
		if (run->jumps[i].ring)
			munmap(run->jumps[i].ring, sizeof(*run->jumps[i].ring));
	}
}

void run_tables_drop(struct run *run)
{
	for (const struct table *t = tables; t < tables + ARRAY_SIZE(tables); t++)
		if (t->per_mib)
			madvise(table_get(run, t), table_size(run, t), MADV_DONTNEED);
	run->growth = min(run->most, RUN_FIRST);
	run->block_bits = RUN_BLOCK_BITS;
	run->large = false;
	run->large_blocks = 0;
}

/* Twice as many chains: each becomes two neighbours, for the hash is a product's upper bits. */
static void split_chains(struct run *run)
{
	run->block_bits++;
	for (uint32_t i = BIT(run->block_bits - 1); i--;) {
		uint32_t at = run->block_table[i], *end[2];

		end[0] = &run->block_table[2 * i];
		end[1] = end[0] + 1;
		*end[0] = *end[1] = 0;
		while (at) {
			struct run_block *b = &run->block[at - 1];
			unsigned odd = hash_words(b->rip, b->key, run->block_bits) & 1;
			uint32_t next = b->next;

			*end[odd] = at;
			end[odd] = &b->next;
			b->next = 0;
			at = next;
		}
	}
}

/* Kernels go through several keys until they are up: what those had of jumps is given back; others find theirs again. */
static void drop_jumps(struct run *run)
{
	run_jumps_clear(run);
	for (unsigned i = 0; i < run->nr_keys; i++) {
		struct run_jumps *jumps = &run->jumps[i];

		madvise(jumps->to, jumps_size(run), MADV_DONTNEED);
		host_pages_small(jumps->to, jumps_size(run));
		jumps->to[0].neg = RUN_NO_JUMP;
		jumps->large = false;
	}
}

bool run_grow(struct run *run)
{
	uint64_t now = run->cpu->retired;

	if (run->growth == run->most || now - run->grown_at >= RUN_SOON)
		return false;
	run->growth = min(2 * run->growth, run->most);
	split_chains(run);
	drop_jumps(run);
	run->count[COUNT_GROW]++;
	run->grown_at = now;
	return true;
}
