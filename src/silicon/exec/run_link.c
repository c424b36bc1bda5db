/* SPDX-License-Identifier: MIT */
/*
 * Links: direct branches that lead from block to block without asking anybody (run.h).
 *
 * Within a page an exit leads behind the other block's look at its page. From one page to another it leads to the
 * block's cross entry, which finds out if the page's bytes or its place in the linear address space may have changed
 * since: a page that stands at one address is as good for its linear address as its translation. Pages that stand at
 * several get no such links: exits look in the jump cache, which forgets what leads to them whenever addresses change.
 */
#include "silicon/exec/run.h"

static void point(const struct run *run, const struct run_exit *exit, uint32_t to)
{
	uint32_t disp = to - (exit->patch + 4);

	__builtin_memcpy(run->code.rw + exit->patch, &disp, 4);
}

static bool crosses(const struct run_exit *exit, const struct run_block *b)
{
	return exit->page != b->page || b->second != RUN_NO_PAGE;
}

static bool aliased(const struct run *run, const struct run_block *b)
{
	return run->page[b->page].aliased ||
	       (b->second != RUN_NO_PAGE && run->page[b->second].aliased);
}

static void point_to_block(const struct run *run, const struct run_exit *exit)
{
	const struct run_block *b = &run->block[exit->block - 1];

	if (crosses(exit, b))
		point(run, exit, run_block_cross(b));
	else
		point(run, exit, exit->forward ? run_block_inner(b) : b->entry);
}

static void enlist(struct run *run, uint32_t number, uint32_t block)
{
	run->exit[number].block = 1 + block;
	run->exit[number].next = run->block[block].links;
	run->block[block].links = number;
}

bool run_link(struct run *run, uint32_t number, uint32_t block)
{
	struct run_exit *exit = &run->exit[number];
	const struct run_block *b = &run->block[block];

	if (!exit->patch || exit->block)
		return false;
	if (crosses(exit, b) && aliased(run, b)) {
		point(run, exit, exit->leave + (exit->finds ? RUN_EXIT_FIND : 0));
		return false;
	}
	enlist(run, number, block);
	point_to_block(run, exit);
	return true;
}

void run_link_move(struct run *run, uint32_t old, uint32_t new)
{
	uint32_t number = run->block[old].links;

	run->block[old].links = RUN_NONE;
	while (number != RUN_NONE) {
		uint32_t next = run->exit[number].next;

		enlist(run, number, new);
		point_to_block(run, &run->exit[number]);
		number = next;
	}
}

void run_link_cut(struct run *run, uint32_t block)
{
	struct run_block *b = &run->block[block];
	uint32_t number = b->links;

	b->links = RUN_NONE;
	while (number != RUN_NONE) {
		struct run_exit *exit = &run->exit[number];
		uint32_t next = exit->next;

		if (crosses(exit, b)) {
			exit->block = 0;
			point(run, exit, exit->leave);
		} else {
			enlist(run, number, block);
		}
		number = next;
	}
}
