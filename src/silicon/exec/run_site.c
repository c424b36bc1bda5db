/* SPDX-License-Identifier: MIT */
/*
 * Sites, as blocks keep them (run.h): in four or eight bytes, with nothing of what their block or their instruction's bytes say.
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
	uint32_t i = run->near[min(offset >> RUN_NEAR_SHIFT, run->nr_near - 1)].block;

	if (run->block[i].entry > offset)
		return i ? i - 1 : 0;
	while (i + 1 < run->nr_blocks && run->block[i + 1].entry <= offset)
		i++;
	return i;
}

static uint32_t nr_sites(const struct run *run, uint32_t block)
{
	uint32_t end = block + 1 < run->nr_blocks ? run->block[block + 1].site : run->nr_sites;
	uint32_t nr = end - run->block[block].site;

	return run->block[block].brief ? nr : (nr - RUN_WIDE) / 2;
}

static const struct run_kept *kept(const struct run *run, const struct run_block *b, uint32_t i)
{
	return (const struct run_kept *)&run->kept[b->site + RUN_WIDE + 2 * i];
}

static const struct run_brief *brief(const struct run *run, const struct run_block *b, uint32_t i)
{
	return &run->kept[b->site + i];
}

static uint32_t code_of(const struct run *run, const struct run_block *b, uint32_t i)
{
	return b->entry + (b->brief ? brief(run, b, i)->code : kept(run, b, i)->code);
}

uint32_t run_site_at(const struct run *run, uint32_t offset)
{
	uint32_t block = run_site_block(run, offset), nr = nr_sites(run, block), i = 0;
	const struct run_block *b = &run->block[block];

	while (i + 1 < nr && code_of(run, b, i + 1) <= offset)
		i++;
	return block << RUN_SITE_BITS | i;
}

/* ---- keeping ---- */

/* Its first group: behind those of the block's sites before it. */
static uint32_t group_of(const struct run *run, const struct run_block *b, uint32_t site)
{
	const struct run_over *over = run_block_over(run, b);
	uint32_t group = over ? over->group : run_block_wide(run, b)->group;

	for (uint32_t i = 0; i < site; i++)
		group += kept(run, b, i)->nr_groups;
	return group;
}

static struct run_site get_kept(const struct run *run, const struct run_block *b, uint32_t i)
{
	const struct run_kept *k = kept(run, b, i);

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

static struct run_site get_brief(const struct run *run, const struct run_block *b, uint32_t site)
{
	const struct run_brief *k = brief(run, b, site);
	uint64_t rip = b->rip;

	for (uint32_t i = 0; i < site; i++)
		rip += brief(run, b, i)->len;
	return (struct run_site){
		.rip = rip,
		.code = b->entry + k->code,
		.next = k->goes_on ? b->entry + k[1].code : 0,
		.last = k->last,
		.left = nr_sites(run, b - run->block) - site,
		.flags = k->flags,
		.behind_x87 = k->behind_x87,
	};
}

struct run_site run_site_get(const struct run *run, uint32_t number)
{
	const struct run_block *b = &run->block[number >> RUN_SITE_BITS];
	uint32_t i = number & (BIT(RUN_SITE_BITS) - 1);

	return b->brief ? get_brief(run, b, i) : get_kept(run, b, i);
}

uint64_t run_block_lines(const struct run *run, const struct run_block *b)
{
	uint32_t nr = nr_sites(run, b - run->block);
	unsigned from = b->rip & ~PAGE_MASK, to = from;

	if (!b->brief)
		return run_block_wide(run, b)->lines;
	for (uint32_t i = 0; i < nr; i++)
		to += brief(run, b, i)->len;
	return run_lines(from, to);
}

/* Sites behind each other, each going on with the next one's code if with any. */
static bool follows(const struct run_site *s, const struct run_site *next)
{
	return next->rip - s->rip <= RUN_MAX_INSN && next->rip > s->rip &&
	       (!s->next || s->next == next->code);
}

static bool can_be_brief(const struct run_keep *k)
{
	unsigned from = k->rip & ~PAGE_MASK;

	for (unsigned i = 0; i < k->nr; i++) {
		const struct run_site *s = &k->site[i];

		if (s->code - k->entry >= BIT(RUN_BRIEF_BITS) || s->nr_groups ||
		    s->left != k->nr - i || (i + 1 < k->nr && !follows(s, s + 1)))
			return false;
	}
	return !k->over && k->site[0].rip == k->rip &&
	       k->end - k->site[k->nr - 1].rip <= RUN_MAX_INSN &&
	       run_lines(from, from + (k->end - k->rip)) == k->wide.lines;
}

static void keep_brief(struct run *run, const struct run_keep *k)
{
	for (unsigned i = 0; i < k->nr; i++) {
		const struct run_site *s = &k->site[i];
		bool more = i + 1 < k->nr;

		run->kept[run->nr_sites++] = (struct run_brief){
			.code = s->code - k->entry,
			.len = (more ? s[1].rip : k->end) - s->rip,
			.last = s->last,
			.flags = s->flags,
			/* The last one's handler leads out of the block: what comes next is looked for then. */
			.goes_on = more && s->next,
			.behind_x87 = s->behind_x87,
		};
	}
}

static void keep(struct run *run, uint32_t entry, const struct run_site *s)
{
	uint32_t next = s->next ? s->next - entry : 0;

	*(struct run_kept *)&run->kept[run->nr_sites] = (struct run_kept){
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
	run->nr_sites += 2;
}

static void keep_wide(struct run *run, const struct run_keep *k)
{
	*(struct run_wide *)&run->kept[run->nr_sites] = k->wide;
	run->nr_sites += RUN_WIDE;
	for (unsigned i = 0; i < k->nr; i++)
		keep(run, k->entry, &k->site[i]);
}

bool run_site_keep(struct run *run, const struct run_keep *k, bool *ret_brief)
{
	if (k->site[k->nr - 1].code - k->entry >= BIT(RUN_KEPT_BITS))
		return false;
	*ret_brief = can_be_brief(k);
	if (*ret_brief)
		keep_brief(run, k);
	else
		keep_wide(run, k);
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
	const struct run_over *over = run_block_over(run, b);
	unsigned off = run_site_get(run, number).rip & ~PAGE_MASK;
	unsigned nr = min((unsigned)PAGE_SIZE - off, MAX_INSN);
	uint8_t bytes[MAX_INSN];

	fpu_save(run->cpu);
	run_page_bytes(run, &run->page[b->page], off, nr, bytes);
	if (over && !over->relay) {
		run_page_bytes(run, &run->page[over->page], 0, MAX_INSN - nr, bytes + nr);
		nr = MAX_INSN;
	}
	decode_insn(run->cpu, b->key, bytes, nr, ret);
}

/* The site's instruction, or NULL if it would have to be decoded. */
static const struct insn *insn_known(const struct run *run, uint32_t number)
{
	uint32_t slot = slot_of(number);

	if (run->cold_site[slot] != number + 1 || run->seen_drops != run->cpu->exec->nr_drops)
		return NULL;
	return &run->cold[slot];
}

const struct insn *run_site_insn(struct run *run, uint32_t number)
{
	const struct insn *known = insn_known(run, number);
	uint32_t slot = slot_of(number);

	if (likely(known))
		return known;
	run->count[COUNT_DECODED]++;
	decode(run, number, &run->cold[slot]);
	run->cold_site[slot] = number + 1;
	return &run->cold[slot];
}
