/* SPDX-License-Identifier: MIT */
/* What the run tempo's loop, cold paths, blocks and jump caches share: parts of the address space, stale pages. General registers only. */
#ifndef SILICON_EXEC_RUN_PARTS_H
#define SILICON_EXEC_RUN_PARTS_H

#include "silicon/exec/run.h"

static inline uint32_t run_attention(const struct cpu *cpu)
{
	return __atomic_load_n(&cpu->attention, __ATOMIC_RELAXED);
}

/* Of an address in the present mode. */
static inline struct run_part *run_part_of(const struct run *run, uint64_t addr)
{
	unsigned mode = run_mode(run);

	return &run->part[2 * mode + (addr >> run->half_shift[mode] & 1)];
}

static inline struct run_part *run_page_part(const struct run *run, const struct run_page *page)
{
	return &run->part[2 * page->guest + (page->va >> run->half_shift[page->guest] & 1)];
}

static inline void run_stale_set(struct run *run, uint32_t page, uint8_t stale)
{
	run->stale[page] = stale;
	run->fresh[page] = !stale;
}

/* run_cold.c: follow what was written to code and flushed from the TLB, before a block is looked for. */
void run_look_around(struct run *run);
/* All pages are to be compared before control gets into them. */
void run_all_stale(struct run *run);
/* Blocks are made at this page of the address space: jumps to it are worth looking for when it is flushed. */
void run_filter_add(struct run *run, uint64_t rip);
/* True if the jump cache leads to the block's address. */
bool run_jump_stands(struct run *run, const struct run_block *b);
/* The jump cache leads to the block no more; what it has for another of its place stays. */
void run_jump_drop(struct run *run, const struct run_block *b);
/* The same for all blocks of a page. */
void run_page_jumps_drop(struct run *run, const struct run_page *page);

#endif
