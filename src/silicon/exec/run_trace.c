/* SPDX-License-Identifier: MIT */
/*
 * The first pass of translation: guest bytes to records (run_translate.h).
 *
 * A block ends at a branch, at an instruction that may lead anywhere, at the page's end, or when it is long. A trace
 * goes the way that the guest went when it was stepped through for that (run->path), also behind indirect branches, which
 * are guarded then; off that way, where a branch of known target led most, as far as visits of the blocks there tell, and
 * a loop that leads to its own head is unrolled. An instruction that goes over the page's end is a block of its own, and belongs to
 * both pages. Blocks are made of pages' copies, so that what is compared later is what was translated.
 */
#include "silicon/exec/run_translate.h"

#include "host/guard.h"
#include "silicon/exec/decode.h"
#include "silicon/mmu/tlb.h"

#define LINE	  ((uint64_t)RUN_LINE)
#define MAX_INSN  15u
#define MAX_RELAY 3u /* bytes of its branch */
#define JMP_NEAR  0xe9
#define RET_NEAR  0xc3
#define UNROLL	  4 /* rounds of a loop in a trace */
#define MUCH	  8 /* times as frequented: worth more than what happened once */

/* ---- decoding ---- */

/* The place for a copy, which stays the line's. */
static uint8_t *copy_of(struct run *run, struct run_page *page, unsigned line)
{
	if (!page->copy[line])
		page->copy[line] = ++run->nr_lines;
	return run->line[page->copy[line] - 1];
}

/* Bring the page's copy up to date where no block was made of it yet, nor by now this one. */
static void cover(struct run *run, struct run_page *page, unsigned from, unsigned to,
		  uint64_t *covered)
{
	for (unsigned line = from / LINE; line <= (to - 1) / LINE; line++) {
		uint8_t *copy = copy_of(run, page, line);

		if ((page->lines | *covered) & BIT(line))
			continue;
		if (!host_copy_guarded(copy, page->hva + line * LINE, LINE))
			memset(copy, 0, LINE);
		*covered |= BIT(line);
	}
}

/* Stepped lately, it stands decoded in step's cache. */
static bool decoded_by_step(struct translation *t, struct run_record *rec, const uint8_t *bytes,
			    unsigned nr)
{
	const struct exec_cache *c = t->cpu->exec;
	uint32_t number = cache_number(rec->rip);

	for (unsigned i = 0; i < 2; i++) {
		const struct insn *insn = cache_slot(c, number ^ i);

		if (insn->mode != c->key || !insn->len || insn->len > nr ||
		    memcmp(insn->bytes, bytes, insn->len))
			continue;
		rec->insn = *insn;
		return true;
	}
	return false;
}

static bool decode_bytes(struct translation *t, struct run_record *rec, const uint8_t *bytes,
			 unsigned nr)
{
	struct exec_cache *c = t->cpu->exec;

	if (decode_memo_find(c, c->key, bytes, nr, &rec->insn, &rec->z, rec->ops))
		return true;
	if (!decoded_by_step(t, rec, bytes, nr))
		return decode_both(t->cpu, c->key, bytes, nr, &rec->insn, &rec->z, rec->ops) &&
		       (rec->z.length || rec->insn.trap);
	if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&c->decoder[t->cpu->mode.code], bytes, nr, &rec->z,
						rec->ops)))
		return true;
	memset(&rec->z, 0, sizeof(rec->z));
	return rec->insn.trap;
}

static bool decode(struct translation *t, struct run_record *rec)
{
	unsigned off = rec->rip & ~PAGE_MASK, nr = min((unsigned)PAGE_SIZE - off, MAX_INSN);
	uint8_t bytes[MAX_INSN];

	cover(t->run, t->page, off, off + nr, &t->covered);
	run_page_bytes(t->run, t->page, off, nr, bytes);
	if (!decode_bytes(t, rec, bytes, nr))
		return false;
	t->lines |= run_lines(off, off + (rec->insn.trap ? nr : rec->insn.len));
	return true;
}

/* The instruction at the block's start, which goes over the page's end. False: the page behind is not there. */
static bool decode_over(struct translation *t, struct run_record *rec)
{
	const uint8_t *host = run_second_page(t->cpu);
	unsigned off = rec->rip & ~PAGE_MASK, nr = PAGE_SIZE - off;
	uint64_t covered = 0;
	uint8_t bytes[MAX_INSN];

	t->second = host ? run_page_get(t->run, host, t->cpu->rip + PAGE_SIZE) : NULL;
	if (!t->second)
		return false;
	t->over = true;
	cover(t->run, t->second, 0, MAX_INSN - nr, &covered);
	t->lines |= run_lines(off, PAGE_SIZE);
	run_page_bytes(t->run, t->page, off, nr, bytes);
	run_page_bytes(t->run, t->second, 0, MAX_INSN - nr, bytes + nr);
	return decode_bytes(t, rec, bytes, MAX_INSN);
}

/* ---- the way through the page ---- */

static bool leads_away(const struct run_record *rec)
{
	switch (rec->z.meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
		return true;
	default:
		return rec->insn.trap || rec->z.mnemonic == ZYDIS_MNEMONIC_HLT;
	}
}

static bool same_page(uint64_t a, uint64_t b)
{
	return !((a ^ b) & PAGE_MASK);
}

/* Visits of the block at rip, as far as they tell; the more, the hotter. */
static uint32_t heat(const struct translation *t, uint64_t rip)
{
	const struct run *run = t->run;
	uint32_t block;

	if (!same_page(rip, t->start))
		return 0;
	block = run_block_at(run, rip, t->key, t->page - run->page);
	if (block == RUN_NONE)
		return 0;
	return run->block[block].counts ? run_visits(run, block) : RUN_HOT_MOST;
}

static uint64_t target_of(const struct translation *t, const struct run_record *rec)
{
	uint64_t target = rec->rip + rec->insn.len + rec->z.raw.imm[0].value.s;

	return t->code32 ? (uint32_t)target : target;
}

/* Instructions until the record to come. */
static unsigned nr_insns(const struct translation *t)
{
	return t->nr_records + t->nr_relays;
}

/* Where the guest went behind the record to come, where it was followed; 0: not known. */
static uint64_t went(const struct translation *t)
{
	const struct run_record *rec = &t->record[t->nr_records];
	unsigned i = nr_insns(t), behind = i + 1 + rec->relay;
	const struct run *run = t->run;

	return behind <= run->nr_path && run->path[i] == rec->rip ? run->path[behind] : 0;
}

/* The way that the guest took, unless the other is far more frequented; not knowing it, the more frequented. */
static enum follow choose_side(const struct translation *t, const struct run_record *rec)
{
	uint64_t target = target_of(t, rec), next = rec->rip + rec->insn.len, way = went(t);
	uint32_t at_target = heat(t, target), at_next = heat(t, next);

	if (way == target && way != next && !same_page(way, t->start))
		return FOLLOW_TARGET; /* how hot that is, is not known */
	if (way == target && way != next)
		return at_next > MUCH * (at_target + 1) ? FOLLOW_NEXT : FOLLOW_TARGET;
	if (way == next)
		return at_target > MUCH * (at_next + 1) ? FOLLOW_TARGET : FOLLOW_NEXT;
	return target == t->start || at_target > at_next ? FOLLOW_TARGET : FOLLOW_NEXT;
}

/* As far as an exit leads. */
static bool is_near(const struct translation *t, uint64_t way)
{
	uint64_t reach = BIT(RUN_REACH_BITS - 1);

	return way - (t->start & PAGE_MASK) + reach < 2 * reach;
}

/* An indirect branch by a word at a known address leads to the same place as long as nobody links anew. */
static bool is_steady(const struct translation *t, const struct run_record *rec, uint64_t way)
{
	uint64_t addr;

	return rec->z.opcode == 0xff && is_near(t, way) && run_known_address(t, rec, &addr);
}

/* Where to go on behind a branch; FOLLOW_NONE: nowhere. */
static enum follow choose(const struct translation *t, const struct run_record *rec)
{
	uint64_t way = went(t);

	if (!t->hot || t->over || !rec->ends || rec->insn.sync || rec->insn.trap ||
	    rec->insn.flags & INSN_66)
		return FOLLOW_NONE;
	if (run_is_jcc(&rec->z))
		return choose_side(t, rec);
	if (way ? !same_page(way, t->start) && !is_steady(t, rec, way)
		: rec->z.mnemonic != ZYDIS_MNEMONIC_JMP)
		return FOLLOW_NONE;
	switch (rec->z.mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_CALL:
		if (rec->z.raw.imm[0].is_relative)
			return same_page(target_of(t, rec), t->start) ? FOLLOW_TARGET : FOLLOW_NONE;
		return rec->z.opcode == 0xff && way ? FOLLOW_GUARD : FOLLOW_NONE;
	case ZYDIS_MNEMONIC_RET:
		return FOLLOW_GUARD;
	default:
		return FOLLOW_NONE;
	}
}

/* The record of the same instruction before, in a trace that comes by again. */
static const struct run_record *seen(const struct translation *t, uint64_t rip)
{
	for (unsigned i = 0; i < t->nr_records; i++)
		if (t->record[i].rip == rip)
			return &t->record[i];
	return NULL;
}

/* True if a loop as long as the trace is until now is to be unrolled once more. */
static bool unroll(const struct translation *t, unsigned *body)
{
	if (!*body)
		*body = nr_insns(t);
	return nr_insns(t) < UNROLL * *body && nr_insns(t) + *body <= t->run->opt.max_insns;
}

/* ---- relays ---- */

static bool is_relay(const struct run_record *rec)
{
	if (rec->insn.trap || rec->insn.flags & INSN_66)
		return false;
	if (rec->z.mnemonic == ZYDIS_MNEMONIC_RET)
		return rec->z.opcode == RET_NEAR;
	return rec->z.mnemonic == ZYDIS_MNEMONIC_JMP && rec->z.opcode == 0xff &&
	       rec->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

/* The page that the relay stands in, its bytes in the copy; or NULL. */
static struct run_page *relay_page(struct translation *t, uint64_t rip, uint8_t bytes[MAX_INSN])
{
	const uint8_t *host = tlb_fetch_hit(t->cpu, rip);
	unsigned off = rip & ~PAGE_MASK;
	struct run_page *page = t->second;
	uint64_t covered = 0;

	if (page ? t->relay != rip : !host || !run_maybe_relay(host))
		return NULL;
	if (!page) {
		page = run_page_get(t->run, host - off, rip);
		if (!page || page == t->page || page->aliased || page->va != (rip & PAGE_MASK))
			return NULL;
		cover(t->run, page, off, off + MAX_RELAY, &covered);
	}
	run_page_bytes(t->run, page, off, MAX_RELAY, bytes);
	return page;
}

/*
 * Kernels return, and branch indirectly, by a JMP to a branch in a page of its own (retpolines and what came after them). The two are one
 * in a trace, which belongs to both pages then. Its cold path runs the JMP.
 */
static void take_relay(struct translation *t, struct run_record *rec)
{
	uint64_t rip = rec->rip, target;
	uint8_t bytes[MAX_INSN] = {0};
	struct run_record branch;
	struct run_page *page;

	if (!t->hot || t->over || t->code32 || rec->z.mnemonic != ZYDIS_MNEMONIC_JMP ||
	    rec->z.opcode != JMP_NEAR || rec->insn.trap || rec->insn.flags & INSN_66 ||
	    nr_insns(t) + 2 > t->run->opt.max_insns ||
	    t->run->nr_over >= t->run->growth * (RUN_OVERS / 4 * 3))
		return;
	target = target_of(t, rec);
	if (same_page(target, t->start) || (target & (RUN_LINE - 1)) > RUN_LINE - MAX_RELAY)
		return;
	page = relay_page(t, target, bytes);
	branch.rip = target;
	if (!page || !decode_bytes(t, &branch, bytes, MAX_RELAY) || !is_relay(&branch))
		return;
	t->second = page;
	t->relay = target;
	rec->insn = branch.insn;
	rec->z = branch.z;
	memcpy(rec->ops, branch.ops, sizeof(rec->ops));
	rec->rip = rip;
	rec->relay = true;
}

static bool decode_new(struct translation *t, struct run_record *rec, uint64_t rip)
{
	rec->rip = rip;
	rec->relay = false;
	rec->keeps = false;
	memset(rec->ref, 0, sizeof(rec->ref));
	if (!decode(t, rec) && (t->nr_records || !decode_over(t, rec)))
		return false;
	rec->ends = rec->insn.sync || leads_away(rec);
	take_relay(t, rec);
	return true;
}

static bool decode_next(struct translation *t, uint64_t rip)
{
	struct run_record *rec = &t->record[t->nr_records];
	const struct run_record *before = t->hot ? seen(t, rip) : NULL;

	if (before && before->relay && nr_insns(t) + 2 > t->run->opt.max_insns)
		return false;
	if (before)
		*rec = *before;
	else if (!decode_new(t, rec, rip))
		return false;
	rec->follow = choose(t, rec);
	if (rec->follow == FOLLOW_TARGET)
		rec->next = target_of(t, rec);
	else if (rec->follow == FOLLOW_GUARD)
		rec->next = went(t);
	else
		rec->next = rip + rec->insn.len;
	return true;
}

/*
 * True if the record leads to a trace that goes round by itself: that is best entered at its head, for it is in step with the loops within
 * it. True, too, if the record closes a loop whose head begins a trace. Going on into a loop that is longer than traces may be, they would
 * begin at ever other places of it.
 */
static bool leads_to_loop(const struct translation *t, const struct run_record *rec)
{
	const struct run *run = t->run;
	uint32_t number = run_block_at(run, rec->next, t->key, t->page - run->page);
	const struct run_block *b = &run->block[number];

	if (rec->next == t->start || rec->z.mnemonic == ZYDIS_MNEMONIC_CALL ||
	    rec->follow == FOLLOW_GUARD || number == RUN_NONE || b->dead || b->counts)
		return false;
	return b->loops || (rec->follow == FOLLOW_TARGET && rec->next <= rec->rip);
}

/* True if the trace goes on behind its newest record. */
static bool goes_on(const struct translation *t, unsigned *body)
{
	const struct run_record *rec = &t->record[t->nr_records - 1];

	if (rec->ends && rec->follow == FOLLOW_NONE)
		return false;
	if (!same_page(rec->next, t->start))
		return false;
	if (!t->hot)
		return t->nr_records < min(run_inlines(t) ? RUN_BLOCK_INSNS : RUN_PLAIN_INSNS,
					   (uint32_t)t->run->opt.max_insns);
	if (nr_insns(t) >= t->run->opt.max_insns || leads_to_loop(t, rec))
		return false;
	if (nr_insns(t) < t->run->nr_path && t->run->path[nr_insns(t)] == rec->next)
		return true;
	if (rec->next == t->start)
		return unroll(t, body);
	return *body || !seen(t, rec->next);
}

/* Whether all records stand there once more nr behind, as far as there are any. */
static bool repeats(const struct translation *t, unsigned nr)
{
	for (unsigned i = nr; i < t->nr_records; i++)
		if (t->record[i].rip != t->record[i - nr].rip)
			return false;
	return true;
}

/* A trace that came by its head again had better end there, and in step: loops within it take as many rounds the next time. */
static void cut(struct translation *t)
{
	unsigned nr = t->nr_records;

	for (unsigned round = 1; round <= nr; round++) {
		if (t->record[round - 1].next != t->start || !repeats(t, round))
			continue;
		nr -= nr % round;
		if (t->record[nr - 1].next != t->start)
			nr -= round;
		t->nr_records = nr;
		return;
	}
}

bool run_collect(struct translation *t)
{
	struct run *run = t->run;
	uint64_t rip = t->start;
	unsigned body = 0;

	do {
		if (!decode_next(t, rip))
			break;
		/* Decoding may have dropped the thunks that earlier records point to. */
		if (run->seen_drops != run->cpu->exec->nr_drops)
			return false;
		t->nr_relays += t->record[t->nr_records].relay;
		rip = t->record[t->nr_records++].next;
	} while (goes_on(t, &body));
	if (t->hot)
		cut(t);
	return t->nr_records;
}
