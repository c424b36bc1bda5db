/* SPDX-License-Identifier: MIT */
/*
 * Lookups that plain blocks call (run_translate.h).
 *
 * A lookup takes 50 bytes. Traces have theirs inline; all other blocks, which run seldom but are many, call these:
 * what such code costs is the cache lines that it comes in by. A lookup that misses goes on with its caller's cold path:
 * the return address tells the site.
 */
#include "silicon/exec/run_translate.h"

static void emit_unless_rcx(struct emit *e, uint32_t to)
{
	EMIT(e, "\xe3\x05"); /* jrcxz over the jump */
	emit_jmp(e, to);
}

static uint32_t emit_check(struct translation *t, enum direct_kind kind, unsigned size)
{
	uint32_t at = emit_pos(&t->e);

	run_emit_index(t, kind, size);
	emit_unless_rcx(&t->e, t->run->stub_miss);
	run_emit_addend(t, kind);
	emit8(&t->e, 0xc3);
	return at;
}

/* The same for a word on the stack. */
static uint32_t emit_stack(struct translation *t, enum direct_kind kind, int32_t disp)
{
	uint32_t at = emit_pos(&t->e);

	emit_mem(&t->e, run_rex(t), 0x8d, R14, R13, REG_NONE, 0, disp);
	emit_check(t, kind, run_word(t));
	return at;
}

static uint32_t emit_find(struct translation *t)
{
	uint32_t at = emit_pos(&t->e);

	run_emit_find(t);
	emit_unless_rcx(&t->e, t->run->stub_miss);
	emit8(&t->e, 0xc3);
	return at;
}

void run_stubs_make(struct translation *t)
{
	struct run_stubs *stubs = t->stubs;

	if (stubs->made)
		return;
	t->e = (struct emit){.at = t->run->code.rw + t->run->used, .base = t->run->code.rw};
	for (unsigned kind = 0; kind < NR_DIRECT_KINDS; kind++)
		for (unsigned i = 0; i < RUN_CHECKS; i++)
			stubs->check[kind][i] = emit_check(t, kind, 1 << i);
	stubs->push = emit_stack(t, DIRECT_WRITE, -run_word(t));
	stubs->pop = emit_stack(t, DIRECT_READ, 0);
	stubs->find = emit_find(t);
	run_ring_stubs(t);
	stubs->made = true;
	t->run->used = ALIGN_UP(emit_pos(&t->e), 64);
}
