/* SPDX-License-Identifier: MIT */
/*
 * Where guest RETs go on (run_translate.h): a ring of what CALLs left.
 *
 * A CALL puts minus its return address, and the code there, where the top of its key's ring is; a RET compares the newest entry
 * with its target, and goes there. The jump cache would do, but large programs return to more places than the
 * host's caches hold of it, while the ring's top is always near. The code is an exit of the CALL's block like others, linked when
 * it was gone by for the first time; so what is in the ring is as good as a link (run_link.c), and forgotten where those are cut.
 *
 * A wrong guess is never wrong otherwise: what is not in the ring is looked for in the jump cache. A RET that does not find
 * itself leaves the ring alone, for it may have had no CALL: those that traces go along with together with their RET leave none.
 * Entries whose RET never came are found by looking at the two before, too.
 */
#include "silicon/exec/run_translate.h"

#define DEEPER 2 /* entries that are skipped to find the right one */

/* movzbl top,%r15d */
static void emit_load_top(struct translation *t)
{
	EMIT(&t->e, "\x44\x0f\xb6\x3c\x25");
	emit32(&t->e, emit_low(&t->run->ring_top));
}

/* The top is r15 + by; its byte wraps. Uses rcx. */
static void emit_store_top(struct translation *t, int by)
{
	emit_mem(&t->e, 0x40, 0x8d, RCX, R15, REG_NONE, 0, by);
	emit_abs(&t->e, 0x40, 0x88, RCX, emit_low(&t->run->ring_top));
}

/* rcx = 0 if the entry so far before r15 is r14's. */
static void emit_compare(struct translation *t, unsigned before)
{
	emit_load_table(&t->e, RCX, (uint8_t *)t->jumps->ring->neg - 8 * before, R15);
	emit_lea(&t->e, RCX, RCX, R14, 0, 0);
}

/* Where r15 says in the table. Uses rcx. */
static void emit_store_imm(struct emit *e, uint32_t table, uint64_t val)
{
	if ((int64_t)val == (int32_t)val) {
		emit_mem(e, 0x48, 0xc7, 0, REG_NONE, R15, 3, table);
		emit32(e, val);
		return;
	}
	emit_mov_imm(e, RCX, val);
	emit_mem(e, 0x48, 0x89, RCX, REG_NONE, R15, 3, table);
}

void run_ring_push(struct translation *t, uint64_t rip)
{
	struct run_ring *ring = t->jumps->ring;
	struct emit *e = &t->e;

	if (!t->rings || t->now->paired)
		return;
	t->in_r15 = NULL;
	emit_load_top(t);
	emit_store_imm(e, emit_low(ring->neg), -rip);
	EMIT(e, "\x48\x8d\x0d"); /* lea code(%rip),%rcx */
	emit32(e, 0);
	run_end_back(t, emit_pos(e) - 4, rip);
	emit_mem(e, 0x48, 0x89, RCX, REG_NONE, R15, 3, emit_low(ring->code));
	emit_store_top(t, 1);
}

void run_ring_call(struct translation *t, uint64_t rip, uint64_t target)
{
	t->in_r15 = NULL;
	emit_mov_imm(&t->e, RCX, -rip);
	emit_call_stub(&t->e, t->stubs->ring_push);
	run_end_at(t, emit_jmp(&t->e, 0), target);
	run_end_back(t, emit_jmp(&t->e, 0), rip);
}

void run_ring_drop(struct translation *t)
{
	if (!t->rings || t->now->paired)
		return;
	t->in_r15 = NULL;
	emit_load_top(t);
	emit_store_top(t, -1);
}

void run_ring_pop(struct translation *t)
{
	uint8_t *from;

	t->in_r15 = NULL;
	emit_load_top(t);
	emit_compare(t, 1);
	EMIT(&t->e, "\xe3\x0e"); /* jrcxz over the call and both jumps */
	emit_call_stub(&t->e, t->stubs->ring_search);
	run_to_cold(t, emit_jmp_rcx(&t->e));
	EMIT(&t->e, "\xeb"); /* jmp over the next */
	emit8(&t->e, 0);
	from = t->e.at;
	emit_store_top(t, -1);
	from[-1] = t->e.at - from;
}

void run_ring_go(struct translation *t)
{
	run_exchange(t);
	emit_mem(&t->e, 0x40, 0xff, 4, REG_NONE, R15, 3, emit_low(t->jumps->ring->code) - 8);
}

/* ---- stubs ---- */

/* Behind the call stands a jump to the function; then comes where it returns to. */
static uint32_t emit_push(struct translation *t)
{
	uint32_t at = emit_pos(&t->e);
	struct emit *e = &t->e;

	emit_load_top(t);
	emit_mem(e, 0x48, 0x89, RCX, REG_NONE, R15, 3, emit_low(t->jumps->ring->neg));
	emit_mem(e, 0x48, 0x8b, RCX, RSP, REG_NONE, 0, 0);
	emit_lea(e, RCX, RCX, REG_NONE, 0, RUN_JMP);
	emit_mem(e, 0x48, 0x89, RCX, REG_NONE, R15, 3, emit_low(t->jumps->ring->code));
	emit_store_top(t, 1);
	emit8(e, 0xc3);
	return at;
}

/*
 * What the jump cache knows stands behind the ring, and nothing is taken from it. A plain block's misses go to its cold path;
 * a trace, which may have its registers elsewhere, is told by rcx.
 */
static void emit_from_cache(struct translation *t, bool plain)
{
	struct emit *e = &t->e;

	run_emit_find(t);
	if (plain) {
		EMIT(e, "\xe3\x05"); /* jrcxz over the jump */
		emit_jmp(e, t->run->stub_miss);
	} else {
		EMIT(e, "\xe3\x01\xc3"); /* jrcxz over the next; ret */
	}
	emit_mem(e, 0x48, 0x8b, RCX, R15, REG_NONE, 0, emit_low(&t->jumps->to[0].code));
	emit_abs(e, 0x48, 0x89, RCX, emit_low(&t->jumps->ring->found));
	emit_mov_imm(e, R15, RUN_RING + 1);
	emit_mov_imm(e, RCX, 0);
	emit8(e, 0xc3);
}

/* r15: the top, whose entry is not r14's. rcx = 0 if there is one. */
static uint32_t emit_search(struct translation *t, bool plain)
{
	uint32_t at = emit_pos(&t->e), found[DEEPER];
	struct emit *e = &t->e;

	for (unsigned i = 0; i < DEEPER; i++) {
		emit_compare(t, i + 2);
		EMIT(e, "\xe3\x02\xeb\x05"); /* jrcxz over the next; jmp over the one behind */
		found[i] = emit_jmp(e, 0);
	}
	emit_from_cache(t, plain);
	for (unsigned i = 0; i < DEEPER; i++) {
		emit_patch(e, found[i], emit_pos(e));
		emit_lea(e, R15, R15, REG_NONE, 0, -(int)i - 1);
		emit_store_top(t, -1);
		emit_mov_imm(e, RCX, 0);
		emit8(e, 0xc3);
	}
	return at;
}

static uint32_t emit_pop(struct translation *t)
{
	uint32_t search = emit_search(t, true), at = emit_pos(&t->e);

	emit_load_top(t);
	emit_compare(t, 1);
	EMIT(&t->e, "\xe3\x05"); /* jrcxz over the jump */
	emit_jmp(&t->e, search);
	emit_store_top(t, -1);
	emit8(&t->e, 0xc3);
	return at;
}

void run_ring_stubs(struct translation *t)
{
	t->stubs->ring_push = emit_push(t);
	t->stubs->ring_search = emit_search(t, false);
	t->stubs->ring_pop = emit_pop(t);
}

/* ---- CALLs and RETs of one trace ---- */

void run_ring_pair(struct translation *t)
{
	unsigned open[RUN_BLOCK_INSNS], nr = 0;

	for (unsigned i = 0; i < t->nr_records; i++) {
		struct run_record *rec = &t->record[i];

		rec->paired = false;
		if (rec->follow == FOLLOW_NONE)
			continue;
		if (rec->z.mnemonic == ZYDIS_MNEMONIC_CALL) {
			open[nr++] = i;
		} else if (rec->z.mnemonic == ZYDIS_MNEMONIC_RET && nr) {
			rec->paired = t->record[open[--nr]].paired = true;
		}
	}
}
