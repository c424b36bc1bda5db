/* SPDX-License-Identifier: MIT */
/*
 * What plain blocks call (run_translate.h): lookups and heads.
 *
 * A lookup takes 50 bytes. Traces have theirs inline; all other blocks, which run seldom but are many, call these:
 * what such code costs is the cache lines that it comes in by. A lookup that misses goes on with its caller's cold path:
 * the return address tells the site. So do heads of those that count their visits: 15 bytes with their cross entry, in place of 75.
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

/* ---- heads ---- */

/* jrcxz to what is emitted later: returns where. */
static uint8_t *emit_if_zero(struct emit *e)
{
	EMIT(e, "\xe3");
	emit8(e, 0);
	return e->at;
}

/* The caller's head leaves, for r15d is its block; from: the jumps here. */
static void emit_leave(struct translation *t, enum run_leave why, uint8_t *const from[],
		       unsigned nr)
{
	struct emit *e = &t->e;

	for (unsigned i = 0; i < nr; i++)
		from[i][-1] = e->at - from[i];
	EMIT(e, "\x59"); /* pop %rcx */
	emit_lea(e, RCX, R15, REG_NONE, 0, (int32_t)why << LEAVE_SHIFT);
	emit_jmp(e, t->run->stub_leave);
}

_Static_assert(LEAVE_HOT << LEAVE_SHIFT > 0, "a displacement");

/* r15d = the block out of what heads have in ecx. */
static void emit_block(struct emit *e)
{
	emit_mov_imm(e, R15, RUN_HEAD_SHIFT);
	EMIT(e, "\xc4\x62\x03\xf7\xf9"); /* shrx %r15d,%ecx,%r15d */
}

/* The caller's next instruction, its entry, tells the block: leave, unless its page is fresh. */
static uint32_t emit_cross(struct translation *t)
{
	uint32_t at = emit_pos(&t->e);
	struct emit *e = &t->e;
	uint8_t *stale;

	emit_mem(e, 0x48, 0x8b, RCX, RSP, REG_NONE, 0, 0);
	EMIT(e, "\x8b\x49\x01"); /* mov 1(%rcx),%ecx */
	emit_block(e);
	EMIT(e, "\x42\x0f\xb7\x0c\xbd"); /* movzwl page(,%r15,4),%ecx */
	emit32(e, emit_low(&t->run->visits->page));
	EMIT(e, "\x0f\xb6\x89"); /* movzbl fresh(%rcx),%ecx */
	emit32(e, emit_low(t->run->fresh));
	stale = emit_if_zero(e);
	emit8(e, 0xc3);
	emit_leave(t, LEAVE_HEAD, &stale, 1);
	return at;
}

/* rcx = 0 unless r14, what ->retired will be, is within the limit of lock-step or of counted time. */
static void emit_within(struct translation *t)
{
	struct emit *e = &t->e;

	emit_abs(e, 0x48, 0x8b, RCX, emit_low(&t->run->limit));
	emit_lea(e, RCX, RCX, R14, 0, -1);
	EMIT(e, "\xc4\xe2\xf2\xf5\x0c\x25"); /* pext sign,%rcx,%rcx */
	emit32(e, emit_low(&t->run->sign));
}

/*
 * ecx is a block and its instructions (RUN_HEAD_SHIFT): leave if there is something to do or the block is hot, count the visit, and
 * the instructions as retired.
 */
static uint32_t emit_head(struct translation *t)
{
	bool limited = t->run->opt.lockstep || t->cpu->counted;
	uint32_t at = emit_pos(&t->e), left = emit_low(&t->run->visits->left);
	uint8_t *leave[2], *hot;
	struct emit *e = &t->e;
	unsigned nr = 0;

	emit_block(e);
	EMIT(e, "\x44\x0f\xb6\xf1"); /* movzbl %cl,%r14d */
	EMIT(e, "\x65\x8b\x0c\x25"); /* mov %gs:calm,%ecx */
	emit32(e, offsetof(struct cpu, calm));
	leave[nr++] = emit_if_zero(e);
	EMIT(e, "\x42\x0f\xb7\x0c\xbd"); /* movzwl left(,%r15,4),%ecx */
	emit32(e, left);
	EMIT(e, "\x8d\x49\xff");	 /* lea -1(%rcx),%ecx */
	EMIT(e, "\x66\x42\x89\x0c\xbd"); /* mov %cx,left(,%r15,4) */
	emit32(e, left);
	hot = emit_if_zero(e);
	emit_mem(e, 0x48, 0x8b, RCX, RSP, REG_NONE, 0, 8 * EMIT_SLOT_RETIRED + 8);
	emit_lea(e, R14, R14, RCX, 0, 0);
	if (limited) {
		emit_within(t);
		leave[nr++] = emit_if_zero(e);
	}
	emit_mem(e, 0x48, 0x89, R14, RSP, REG_NONE, 0, 8 * EMIT_SLOT_RETIRED + 8);
	emit8(e, 0xc3);
	emit_leave(t, LEAVE_HEAD, leave, nr);
	emit_leave(t, LEAVE_HOT, &hot, 1);
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
	stubs->cross = emit_cross(t);
	stubs->head = emit_head(t);
	run_ring_stubs(t);
	stubs->made = true;
	t->run->used = ALIGN_UP(emit_pos(&t->e), 64);
}
