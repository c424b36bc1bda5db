/* SPDX-License-Identifier: MIT */
/*
 * Links: direct branches that lead from block to block without asking anybody (run.h).
 *
 * Within a page an exit leads behind the other block's look at its page. From one page to another it leads to the
 * block's cross entry, which finds out if the page's bytes or its place in the linear address space may have changed
 * since: a page that stands at one address is as good for its linear address as its translation. Pages that stand at
 * several get no such links: exits look in the jump cache, which forgets what leads to them whenever addresses change. Few
 * do; the code for that is made when it turns out.
 *
 * An exit that leads nowhere is a call of a stub, in place of its jump or, for a conditional one, behind the block's code: it says
 * by its address which one it is.
 */
#include "silicon/exec/run.h"
#include "silicon/exec/run_emit.h"

#define CALL 0xe8
#define JUMP 0xe9

static const struct run_block *block_of(const struct run *run, const struct run_exit *exit)
{
	return &run->block[run_site_block(run, exit->patch)];
}

uint64_t run_exit_target(const struct run *run, uint32_t exit)
{
	const struct run_exit *x = &run->exit[exit];

	return (block_of(run, x)->rip & PAGE_MASK) + x->target;
}

/* Where its call's displacement stands. */
static uint32_t call_at(const struct run_exit *exit)
{
	return exit->leave ? exit->patch + exit->leave + 1 : exit->patch;
}

/* Those of the block before the first one near may stand before that one's, too. */
uint32_t run_exit_at(const struct run *run, uint32_t offset)
{
	uint32_t at = offset - RUN_CALL + 1;
	uint32_t exit = run->near[min(at >> RUN_NEAR_SHIFT, run->nr_near - 1)].exit;
	uint32_t entry = run->block[run_site_block(run, at)].entry;

	while (exit && run->exit[exit - 1].patch >= entry)
		exit--;
	while (call_at(&run->exit[exit]) != at)
		exit++;
	return exit;
}

static void point(const struct run *run, const struct run_exit *exit, uint32_t to)
{
	uint32_t disp = to - (exit->patch + 4);

	__builtin_memcpy(run->code.rw + exit->patch, &disp, 4);
	if (!exit->leave)
		run->code.rw[exit->patch - 1] = to == run->stub_exit ? CALL : JUMP;
}

static void point_nowhere(const struct run *run, const struct run_exit *exit)
{
	point(run, exit, exit->leave ? exit->patch + exit->leave : run->stub_exit);
}

static bool crosses(const struct run *run, const struct run_exit *exit, const struct run_block *b)
{
	return !exit->own || b->over || block_of(run, exit)->page != b->page;
}

static bool aliased(const struct run *run, const struct run_block *b)
{
	const struct run_over *over = run_block_over(run, b);

	return run->page[b->page].aliased || (over && run->page[over->page].aliased);
}

static void point_to_block(const struct run *run, const struct run_exit *exit)
{
	const struct run_block *b = &run->block[exit->block - 1];

	if (crosses(run, exit, b))
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

/* By the jump cache; what is not there leaves. */
static void emit_find(struct run *run, struct emit *e, uint64_t target, uint32_t key)
{
	const struct run_jumps *jumps = &run->jumps[run_key_index(run, key)];
	unsigned index = run_jump_index(run, target);

	emit_mov_imm(e, R14, target);
	emit_abs(e, 0x48, 0x8b, RCX, emit_low(&jumps->to[index].neg));
	emit_lea(e, RCX, RCX, R14, 0, 0);
	EMIT(e, "\xe3\x05"); /* jrcxz over the next */
	emit_jmp(e, run->stub_rip);
	emit_abs(e, 0x40, 0xff, 4, emit_low(&jumps->to[index].code));
}

/* The exit looks in the jump cache from now on, if there is room for that. */
static void point_to_find(struct run *run, uint32_t number)
{
	struct emit e = {.at = run->code.rw + run->used, .base = run->code.rw};
	const struct run_exit *exit = &run->exit[number];
	uint32_t at = run->used;

	if (exit->own || exit->plain || at + RUN_FIND_ROOM > run->code.size)
		return;
	emit_find(run, &e, run_exit_target(run, number), block_of(run, exit)->key & ~RUN_KEY_PLAIN);
	run->used = emit_pos(&e);
	point(run, exit, at);
}

bool run_link(struct run *run, uint32_t number, uint32_t block)
{
	struct run_exit *exit = &run->exit[number];
	const struct run_block *b = &run->block[block];

	if (exit->fixed || exit->block)
		return false;
	if (crosses(run, exit, b) && aliased(run, b)) {
		point_to_find(run, number);
		return false;
	}
	enlist(run, number, block);
	point_to_block(run, exit);
	return true;
}

void run_link_move(struct run *run, uint32_t old, uint32_t new)
{
	uint32_t number = run->block[old].links;

	run->block[old].links = RUN_NO_EXIT;
	while (number != RUN_NO_EXIT) {
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

	b->links = RUN_NO_EXIT;
	while (number != RUN_NO_EXIT) {
		struct run_exit *exit = &run->exit[number];
		uint32_t next = exit->next;

		if (crosses(run, exit, b)) {
			exit->block = 0;
			point_nowhere(run, exit);
		} else {
			enlist(run, number, block);
		}
		number = next;
	}
}
