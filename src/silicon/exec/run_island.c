/* SPDX-License-Identifier: MIT */
/*
 * Ways from inline forms to their cold paths (run_translate.h).
 *
 * Only JRCXZ branches without looking at flags, by some 127 bytes at most, and it branches if rcx is 0. A check that is
 * 0 where all is well would have it jump each time, and the host takes a branch that it does not know for one that falls
 * through: in code that is larger than its predictor each check would be guessed wrong. So what is 0 is turned round,
 * and the branches lead to an island nearby: long jumps to the cold paths, where control does not come by itself
 * or jumps over it. An instruction that would come to lie too far from an island has one made before it; one that
 * is too long itself is emitted anew with its jumps beside its checks.
 */
#include "silicon/exec/run_translate.h"

#define REACH	  127u
#define JUMP	  5u  /* bytes of a long one */
#define SPARE	  10u /* that may come before an island: a jump over it, a call of a handler */
#define WITH_MEM  80u
#define PLAIN	  24u /* bytes of an instruction without a check, most of them */
#define MAX_OTHER 2u  /* checks of an instruction */

/* ---- islands ---- */

/* How far the last long jump will be from the first branch to an island here. */
static unsigned distance(const struct translation *t, unsigned more)
{
	return emit_pos(&t->e) + SPARE + JUMP * t->nr_near - t->near[0].at + more;
}

bool run_island_near(const struct translation *t)
{
	return !t->nr_near || distance(t, 0) <= REACH;
}

void run_island(struct translation *t)
{
	struct emit *e = &t->e;
	uint32_t at = 0;

	for (unsigned i = 0; i < t->nr_near; i++) {
		if (!i || t->near[i].to != t->near[i - 1].to) {
			at = emit_pos(e);
			run_to_cold_of(t, emit_jmp(e, 0), t->near[i].to);
		}
		t->failed |= at - t->near[i].at > REACH;
		e->base[t->near[i].at - 1] = at - t->near[i].at;
	}
	t->nr_near = 0;
}

void run_island_between(struct translation *t)
{
	struct emit *e = &t->e;
	uint8_t *from;

	if (!t->nr_near)
		return;
	EMIT(e, "\xeb"); /* jmp over what follows */
	emit8(e, 0);
	from = e->at;
	run_island(t);
	from[-1] = e->at - from;
}

void run_island_before(struct translation *t, const struct run_record *rec)
{
	bool checks = rec->insn.flags & INSN_MEM || rec->ref[REF_STACK].group || rec->ends ||
		      rec->z.meta.category == ZYDIS_CATEGORY_PUSH ||
		      rec->z.meta.category == ZYDIS_CATEGORY_POP;

	if (t->nr_near && distance(t, (checks ? WITH_MEM : PLAIN) + MAX_OTHER * JUMP) > REACH)
		run_island_between(t);
}

/* ---- branches ---- */

void run_cold_if_zero(struct translation *t)
{
	struct emit *e = &t->e;

	if (t->far) {
		EMIT(e, "\xe3\x02\xeb\x05"); /* jrcxz over jmp over what follows */
		run_to_cold(t, emit_jmp(e, 0));
		return;
	}
	EMIT(e, "\xe3");
	emit8(e, 0);
	t->failed |= t->nr_near == MAX_NEAR;
	if (!t->failed)
		t->near[t->nr_near++] =
			(struct loose_end){.at = emit_pos(e), .to = t->site, .site = t->site};
}

/* What is 0 becomes -1, whose sign is taken; all else below 2^63 stays below. */
void run_cold_unless_zero(struct translation *t)
{
	struct emit *e = &t->e;

	EMIT(e, "\x48\x8d\x49\xff");	     /* lea -1(%rcx),%rcx */
	EMIT(e, "\xc4\xe2\xf2\xf5\x0c\x25"); /* pext sign,%rcx,%rcx */
	emit32(e, emit_low(&t->run->sign));
	run_cold_if_zero(t);
}
