/* SPDX-License-Identifier: MIT */
/*
 * Sites, as blocks keep them (run.h): in eight bytes, with nothing of what their block or their instruction's bytes say.
 *
 * Those bytes are in the page's copy as long as the block can be entered, so an instruction that needs its handler is
 * decoded again. Few of all that are translated ever do; those are remembered, by their site.
 */
#include "silicon/exec/decode.h"
#include "silicon/exec/run.h"

#define MAX_INSN 15u

/* ---- finding ---- */

uint32_t run_site_block(const struct run *run, uint32_t offset)
{
	uint32_t i = run->near[min(offset >> RUN_NEAR_SHIFT, run->nr_near - 1)];

	if (run->block[i].entry > offset)
		return i ? i - 1 : 0;
	while (i + 1 < run->nr_blocks && run->block[i + 1].entry <= offset)
		i++;
	return i;
}

static uint32_t sites_end(const struct run *run, uint32_t block)
{
	return block + 1 < run->nr_blocks ? run->block[block + 1].site : run->nr_sites;
}

uint32_t run_site_at(const struct run *run, uint32_t offset)
{
	uint32_t block = run_site_block(run, offset), end = sites_end(run, block);
	const struct run_block *b = &run->block[block];
	uint32_t i = b->site;

	while (i + 1 < end && b->entry + run->kept[i + 1].code <= offset)
		i++;
	return block << RUN_SITE_BITS | (i - b->site);
}

/* ---- keeping ---- */

/* Its first group: behind those of the block's sites before it. */
static uint32_t group_of(const struct run *run, const struct run_block *b, uint32_t site)
{
	uint32_t group = b->group;

	for (uint32_t i = b->site; i < site; i++)
		group += run->kept[i].nr_groups;
	return group;
}

struct run_site run_site_get(const struct run *run, uint32_t number)
{
	const struct run_block *b = &run->block[number >> RUN_SITE_BITS];
	uint32_t i = b->site + (number & (BIT(RUN_SITE_BITS) - 1));
	const struct run_kept *k = &run->kept[i];

	return (struct run_site){
		.rip = (b->rip & PAGE_MASK) | k->rip,
		.code = b->entry + k->code,
		.next = k->next ? b->entry + k->next : 0,
		.group = k->nr_groups ? group_of(run, b, i) : 0,
		.nr_groups = k->nr_groups,
		.last = k->last,
		.left = k->left,
		.flags = k->flags,
		.behind_x87 = k->behind_x87,
	};
}

bool run_site_keep(struct run *run, uint32_t entry, const struct run_site *site, unsigned nr)
{
	if (site[nr - 1].code - entry >= BIT(RUN_KEPT_BITS))
		return false;
	for (unsigned i = 0; i < nr; i++) {
		const struct run_site *s = &site[i];
		uint32_t next = s->next ? s->next - entry : 0;

		run->kept[run->nr_sites++] = (struct run_kept){
			.rip = s->rip & ~PAGE_MASK,
			.code = s->code - entry,
			/* Too far: what comes next is looked for then. */
			.next = next < BIT(RUN_KEPT_BITS - 1) ? next : 0,
			.last = s->last,
			.flags = s->flags,
			.nr_groups = s->nr_groups,
			.left = s->left,
			.behind_x87 = s->behind_x87,
		};
	}
	return true;
}

/* ---- instructions ---- */

static uint32_t slot_of(uint32_t number)
{
	return number * 0x9e3779b1u >> (32 - RUN_COLD_BITS);
}

void run_page_bytes(const struct run *run, const struct run_page *page, unsigned from, unsigned nr,
		    uint8_t *ret)
{
	for (unsigned i = 0; i < nr; i++, from++) {
		uint32_t copy = page->copy[from / RUN_LINE];

		ret[i] = copy ? run->line[copy - 1][from % RUN_LINE] : 0;
	}
}

/* Decode what the block was made of, as it was then. */
static void decode(struct run *run, uint32_t number, struct insn *ret)
{
	const struct run_block *b = &run->block[number >> RUN_SITE_BITS];
	unsigned off = run_site_get(run, number).rip & ~PAGE_MASK;
	unsigned nr = min((unsigned)PAGE_SIZE - off, MAX_INSN);
	uint8_t bytes[MAX_INSN];

	fpu_save(run->cpu);
	run_page_bytes(run, &run->page[b->page], off, nr, bytes);
	if (b->second != RUN_NO_PAGE) {
		run_page_bytes(run, &run->page[b->second], 0, MAX_INSN - nr, bytes + nr);
		nr = MAX_INSN;
	}
	decode_insn(run->cpu, b->key, bytes, nr, ret);
}

const struct insn *run_site_insn_known(const struct run *run, uint32_t number)
{
	uint32_t slot = slot_of(number);

	if (run->cold_site[slot] != number + 1 || run->seen_drops != run->cpu->exec->nr_drops)
		return NULL;
	return &run->cold[slot];
}

const struct insn *run_site_insn(struct run *run, uint32_t number)
{
	const struct insn *known = run_site_insn_known(run, number);
	uint32_t slot = slot_of(number);

	if (likely(known))
		return known;
	run->count[COUNT_DECODED]++;
	decode(run, number, &run->cold[slot]);
	run->cold_site[slot] = number + 1;
	return &run->cold[slot];
}
