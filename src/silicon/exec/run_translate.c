/* SPDX-License-Identifier: MIT */
/*
 * From guest bytes to a block (run.h).
 *
 *	head	attention? -> out; ->retired += instructions of the block
 *	sites	each inline (run_forms.c), or a call of its handler by the cold stub
 *	ends	out of line: cold paths, direct exits
 *
 * It goes in passes: all instructions are decoded into records (run_trace.c), then each is emitted.
 */
#include "silicon/exec/emul.h"
#include "silicon/exec/run_translate.h"

#include "silicon/exec/borrow.h"
#include "silicon/exec/decode.h"
#include "silicon/mmu/tlb.h"

#define CACHE_LINE 64

/* ---- room ---- */

static bool has_room(const struct run *run)
{
	uint32_t times = run->growth;

	return run->used + RUN_CODE_ROOM <= min((size_t)times * RUN_MIB, run->code.size) &&
	       run->nr_sites + 4 * RUN_BLOCK_INSNS + RUN_WIDE <= times * RUN_SITES &&
	       run->nr_blocks < times * RUN_BLOCKS && run->nr_over < times * RUN_OVERS &&
	       run->nr_exits + MAX_ENDS + RUN_TRACE_GROUPS <= times * RUN_EXITS &&
	       run->nr_groups + RUN_TRACE_GROUPS <= times * RUN_GROUPS &&
	       run->nr_pages + 2 <= times * RUN_PAGES;
}

/* A small code cache (opt.code_size) does not grow, though tables may. */
static void make_room(struct run *run, uint32_t key)
{
	bool keyed = run_key_index(run, key & ~RUN_KEY_PLAIN) >= 0;

	if (keyed && run->seen_drops == run->cpu->exec->nr_drops &&
	    (has_room(run) || (run_grow(run) && has_room(run))))
		return;
	run_flush(run);
}

/* ---- ends ---- */

void run_to_cold(struct translation *t, uint32_t at)
{
	if (t->nr_cold == MAX_COLD) {
		t->failed = true;
		return;
	}
	t->cold[t->nr_cold++] = (struct loose_end){.at = at, .to = t->site};
}

static bool same_page(const struct translation *t, uint64_t target)
{
	return !((target ^ t->start) & PAGE_MASK);
}

/* Whether what is there belongs to the block's page alone, and goes away with it. */
static bool chainable(const struct translation *t, uint64_t target)
{
	return same_page(t, target) && !run_near_end(target);
}

/* A target out of reach, which no direct branch has and no guard is made for, makes no block. */
static uint32_t exit_new(struct translation *t, uint64_t target)
{
	int64_t distance = target - (t->start & PAGE_MASK);
	struct run *run = t->run;

	run->exit[run->nr_exits] = (struct run_exit){
		.target = distance,
		.own = chainable(t, target),
		.forward = target > t->start,
	};
	t->failed |= run->exit[run->nr_exits].target != distance;
	return run->nr_exits++;
}

static void emit_load_calm(struct translation *t)
{
	EMIT(&t->e, "\x65\x8b\x0c\x25"); /* mov %gs:calm,%ecx */
	emit32(&t->e, offsetof(struct cpu, calm));
}

static void end_at(struct translation *t, uint32_t at, uint32_t to)
{
	t->end[t->nr_ends++] = (struct loose_end){.at = at, .to = to, .site = t->site};
}

/* The trace once more, unless attention asks for a look: that is its head's. */
static void emit_again(struct translation *t)
{
	emit_load_calm(t);
	EMIT(&t->e, "\xe3\x05"); /* jrcxz over the next */
	emit_jmp(&t->e, t->again);
}

void run_end(struct translation *t, uint64_t target)
{
	if (target == t->start && !run_next(t) && run_loops(t))
		emit_again(t);
	end_at(t, emit_jmp(&t->e, 0), exit_new(t, target));
}

void run_end_at(struct translation *t, uint32_t at, uint64_t target)
{
	end_at(t, at, exit_new(t, target));
}

void run_end_back(struct translation *t, uint32_t at, uint64_t rip)
{
	struct run_exit *exit = &t->run->exit[exit_new(t, rip)];

	/* Who comes back was elsewhere meanwhile. */
	exit->own = false;
	exit->forward = false;
	end_at(t, at, exit - t->run->exit);
	t->end[t->nr_ends - 1].back = true;
}

void run_end_if(struct translation *t, unsigned cc, uint64_t target)
{
	run_end_at(t, emit_jcc(&t->e, cc, 0), target);
}

static void emit_add_retired(struct translation *t, int32_t count)
{
	struct emit *e = &t->e;

	emit_load_slot(e, RCX, EMIT_SLOT_RETIRED);
	emit_lea(e, RCX, RCX, REG_NONE, 0, count);
	emit_store_slot(e, RCX, EMIT_SLOT_RETIRED);
}

/* What the head counted and is not done when the site is; known once all are emitted, and nothing for the last. */
static unsigned not_done(const struct translation *t, uint32_t site)
{
	unsigned left = t->sites[site].left;

	return left ? left - 1 - t->sites[site].relay : 0;
}

void run_retire_here(struct translation *t)
{
	if (not_done(t, t->site))
		emit_add_retired(t, -(int32_t)not_done(t, t->site));
}

/* A call that leaves by the exit, and becomes the jump there. */
static void emit_leave(struct translation *t, struct run_exit *exit)
{
	emit_call_stub(&t->e, t->run->stub_exit);
	exit->patch = emit_pos(&t->e) - 4;
}

/* The same in place of the jump with its displacement at exit->patch, if it is one and stands for nothing else. */
static bool leave_there(struct translation *t, const struct run_exit *exit)
{
	uint8_t *opcode = &t->e.base[exit->patch - 1];

	if (*opcode != 0xe9)
		return false;
	*opcode = 0xe8;
	emit_patch(&t->e, exit->patch, t->run->stub_exit);
	return true;
}

/* The way out behind a jump. It is patched there, or where the way out has taken back the rest of the count. */
static void emit_exit(struct translation *t, const struct loose_end *end)
{
	struct run_exit *exit = &t->run->exit[end->to];
	unsigned rest = end->back ? 0 : not_done(t, end->site);
	struct emit *e = &t->e;

	exit->patch = end->at;
	if (rest || (t->nr_exchanges && !end->back)) {
		emit_patch(e, end->at, emit_pos(e));
		if (rest)
			emit_add_retired(t, -(int32_t)rest);
		run_exchange(t);
		emit_leave(t, exit);
	} else if (!leave_there(t, exit)) {
		exit->leave = emit_pos(e) - end->at;
		emit_patch(e, end->at, emit_pos(e));
		emit_call_stub(e, t->run->stub_exit);
	}
}

/* Returns the offset of the jump's displacement. */
static uint32_t emit_cold_jump(struct translation *t, uint32_t site, uint32_t stub)
{
	emit_mov_imm(&t->e, RCX, t->run->nr_blocks << RUN_SITE_BITS | site);
	return emit_jmp(&t->e, stub);
}

/*
 * Where the jump to a site's cold path, at cold, is led to once its accesses were not to be served by one check: out
 * to a block that begins with the same instruction and checks each access.
 */
static void emit_plain(struct translation *t, uint32_t number, uint32_t cold)
{
	struct run *run = t->run;
	const struct run_site *site = &t->sites[number];
	uint32_t exit = exit_new(t, site->rip), plain = emit_pos(&t->e);

	run->exit[exit].plain = true;
	emit_add_retired(t, -(int32_t)site->left);
	run_exchange(t);
	run->exit[exit].fixed = !chainable(t, site->rip);
	emit_leave(t, &run->exit[exit]);
	for (unsigned i = 0; i < site->nr_groups; i++) {
		run->group[site->group + i].cold = cold;
		run->group[site->group + i].plain = plain;
	}
}

/* What a string has before its cold path: C that does all, and back. */
static void emit_span(struct translation *t, uint32_t site)
{
	const struct run_site *s = &t->sites[site];
	const struct insn *insn = &t->record[site].insn;
	unsigned what = run_string_log2(insn) | (insn->run == emul_movs ? RUN_SPAN_MOVS : 0);

	if (!s->next || s->flags & (SITE_SHADOW | SITE_APART))
		return;
	emit_call_stub(&t->e, t->run->stub_span[what]);
	EMIT(&t->e, "\xe3\x02\xeb\x05"); /* jrcxz over the jump over the next */
	emit_jmp(&t->e, s->next);
}

/* Returns where it is. */
static uint32_t emit_cold_path(struct translation *t, uint32_t site)
{
	uint32_t at = emit_pos(&t->e), cold;

	if (t->sites[site].flags & SITE_STRING)
		emit_span(t, site);
	cold = emit_cold_jump(t, site, t->stub_cold);
	if (t->sites[site].nr_groups)
		emit_plain(t, site, cold);
	return at;
}

/* Behind the cold path of a site that leaves a slot's content in r15, or guest registers elsewhere. */
static void emit_resume(struct translation *t, const struct loose_end *resume)
{
	t->sites[resume->site].next = emit_pos(&t->e);
	run_exchange(t);
	if (resume->to != RUN_NONE)
		emit_load_slot(&t->e, R15, resume->to);
	emit_jmp(&t->e, resume->at);
}

/* Make the record's instruction the present one. */
static void present(struct translation *t, const struct run_record *rec)
{
	t->now = rec;
	t->rip = rec->rip;
	t->follow = rec->follow;
	t->insn = rec->insn;
	t->z = rec->z;
	memcpy(t->ops, rec->ops, sizeof(t->ops[0]) * rec->z.operand_count);
}

/*
 * A guard's branch as if there were none, for where it led elsewhere. It is a site once more: a host fault finds its
 * site by the place in the code.
 */
static void emit_elsewhere(struct translation *t, const struct loose_end *guard)
{
	struct run_site *site = &t->sites[t->nr_sites];

	*site = t->sites[guard->site];
	site->code = emit_pos(&t->e);
	site->next = site->nr_groups = 0;
	t->site = t->nr_sites++;
	present(t, &t->record[guard->site]);
	t->apart = true;
	emit_patch(&t->e, guard->at, emit_pos(&t->e));
	run_elsewhere(t);
	t->apart = false;
}

/*
 * The one jump to a site's cold path becomes a call there: the return address tells the site. Not where registers stand elsewhere,
 * nor where there is a short way before.
 */
static bool cold_there(struct translation *t, const struct loose_end *cold)
{
	const struct run_site *site = &t->sites[cold->to];

	if (t->nr_exchanges || site->flags & SITE_STRING || t->e.base[cold->at - 1] != 0xe9)
		return false;
	t->e.base[cold->at - 1] = 0xe8;
	emit_patch(&t->e, cold->at, t->run->stub_miss);
	if (site->nr_groups)
		emit_plain(t, cold->to, cold->at);
	return true;
}

static void emit_colds(struct translation *t)
{
	uint32_t made[2 * RUN_BLOCK_INSNS] = {0};
	uint8_t nr[2 * RUN_BLOCK_INSNS] = {0};

	for (unsigned i = 0; i < t->nr_cold; i++)
		nr[t->cold[i].to]++;
	for (unsigned i = 0; i < t->nr_cold; i++) {
		uint32_t *at = &made[t->cold[i].to];

		if (nr[t->cold[i].to] == 1 && cold_there(t, &t->cold[i]))
			continue;
		if (!*at)
			*at = emit_cold_path(t, t->cold[i].to);
		emit_patch(&t->e, t->cold[i].at, *at);
	}
}

static void emit_ends(struct translation *t)
{

	for (unsigned i = 0; i < t->nr_guards; i++)
		emit_elsewhere(t, &t->guard[i]);
	for (unsigned i = 0; i < t->nr_resumes; i++)
		emit_resume(t, &t->resume[i]);
	emit_colds(t);
	for (unsigned i = 0; i < t->nr_ends; i++)
		emit_exit(t, &t->end[i]);
}

/* ---- one instruction ---- */

/* By its handler alone. */
static enum form form_handler(struct translation *t, const struct run_record *rec)
{
	emit_cold_jump(t, t->site, t->stub_cold);
	t->site_flags &= SITE_SHADOW | SITE_APART;
	return rec->ends ? FORM_END : FORM_DONE;
}

static void new_site(struct translation *t)
{
	t->site = t->nr_sites++;
	t->sites[t->site] = (struct run_site){
		.rip = t->rip,
		.code = emit_pos(&t->e),
		.behind_x87 = t->behind_x87,
		.relay = t->now->relay,
	};
	t->behind_x87 = false;
	t->site_flags = t->next_flags;
	t->next_flags = 0;
}

/* Where to go on behind the present instruction's cold path, which keeps no register of translated code's own. */
static void set_next(struct translation *t, bool has_cold)
{
	struct run_site *site = &t->sites[t->site];

	if (!t->in_r15 && !t->nr_exchanges)
		site->next = emit_pos(&t->e);
	else if (has_cold)
		t->resume[t->nr_resumes++] = (struct loose_end){
			.at = emit_pos(&t->e),
			.to = t->in_r15 ? t->in_r15->slot : RUN_NONE,
			.site = t->site,
		};
}

/* What a form has done, if it then turns out not to be had. */
static void take_back(struct translation *t, uint8_t *at, unsigned nr_cold, unsigned nr_ends)
{
	struct run_site *site = &t->sites[t->site];

	for (unsigned i = 0; i < site->nr_groups; i++)
		t->group[t->run->group[site->group + i].number].ready = false;
	t->run->nr_groups -= site->nr_groups;
	site->nr_groups = 0;
	site->last = 0;
	t->e.at = at;
	t->nr_cold = nr_cold;
	t->run->nr_exits -= t->nr_ends - nr_ends;
	t->nr_ends = nr_ends;
	t->nr_guards -= t->nr_guards && t->guard[t->nr_guards - 1].site == t->site;
	t->in_r15 = NULL;
}

static enum form translate_one(struct translation *t, const struct run_record *rec)
{
	uint8_t *at = t->e.at;
	unsigned nr_cold = t->nr_cold, nr_ends = t->nr_ends;
	bool by_handler;
	enum form form;

	present(t, rec);
	new_site(t);
	if (!rec->keeps)
		t->in_r15 = NULL;
	form = t->insn.trap ? FORM_NONE : run_form(t);
	by_handler = form == FORM_NONE;
	if (by_handler) {
		take_back(t, at, nr_cold, nr_ends);
		form = form_handler(t, rec);
	}
	if (!rec->keeps)
		t->in_r15 = NULL;
	t->sites[t->site].flags = t->site_flags;
	/* Behind a branch that the trace follows its cold path may lead elsewhere: even to where no branch would. */
	if (form == FORM_DONE && !rec->relay && rec->next == t->rip + t->insn.len)
		set_next(t, t->nr_cold != nr_cold || by_handler);
	t->rip = rec->next;
	return form;
}

/* ---- a block ---- */

/* If rcx is 0, leave by what stands before the head. The host expects of branches that it does not know that they do not jump. */
static void emit_if_zero(struct translation *t, uint32_t leave)
{
	EMIT(&t->e, "\xe3"); /* jrcxz */
	emit8(&t->e, leave - (emit_pos(&t->e) + 1));
}

static void emit_calm(struct translation *t, uint32_t leave)
{
	emit_load_calm(t);
	emit_if_zero(t, leave);
}

static void emit_fresh(struct translation *t, const struct run_page *page, uint32_t leave)
{
	EMIT(&t->e, "\x0f\xb6\x0c\x25"); /* movzbl fresh,%ecx */
	emit32(&t->e, emit_low(&t->run->fresh[page - t->run->page]));
	emit_if_zero(t, leave);
}

/* From other pages: a stale page is left for the loop to compare. Behind it is the entry from its own. */
static void emit_cross_entry(struct translation *t, uint32_t leave)
{
	t->cross = emit_pos(&t->e);
	emit_fresh(t, t->page, leave);
	if (t->second)
		emit_fresh(t, t->second, leave);
}

/*
 * Visits that make a block worth a trace. Traces are larger than the blocks that they are made of, and what large programs
 * wait for most is their code: the more traces there are, the hotter must be what gets one.
 */
static unsigned hot_times(const struct run *run)
{
	return run->opt.hot == RUN_HOT ? min(run->nr_traces / RUN_HOT_TRACES, RUN_HOT_TIMES) : 0;
}

/* One that counts its visits is no trace, and leaves all to stubs. Returns the offset of the count of instructions: a byte. */
static uint32_t emit_head_calls(struct translation *t)
{
	struct run *run = t->run;
	struct emit *e = &t->e;

	run->visits[run->nr_blocks] = (struct run_visit){
		.left = run->opt.hot << hot_times(run),
		.page = t->page - run->page,
	};
	t->cross = emit_pos(e);
	emit_call_stub(e, t->stubs->cross);
	t->entry = t->inner = emit_pos(e);
	emit_mov_imm(e, RCX, run->nr_blocks << RUN_HEAD_SHIFT);
	emit_call_stub(e, t->stubs->head);
	return t->entry + 1;
}

/* Lock-step, and where time is counted: leave, unless rcx, what ->retired will be, is within the limit. Uses r14 and r15. */
static void emit_limit(struct translation *t)
{
	struct emit *e = &t->e;

	emit_mov(e, R15, RCX);
	emit_abs(e, 0x48, 0x8b, R14, emit_low(&t->run->limit));
	emit_lea(e, RCX, R15, R14, 0, -1);
	EMIT(e, "\xc4\xe2\xf2\xf5\x0c\x25"); /* pext sign,%rcx,%rcx */
	emit32(e, emit_low(&t->run->sign));
	emit_lea(e, RCX, RCX, REG_NONE, 0, -1);
	EMIT(e, "\xe3"); /* jrcxz over the exit */
	emit8(e, 0);
	uint8_t *from = e->at;
	run_exchange(t);
	emit_mov_imm(e, RCX, (uint32_t)LEAVE_HEAD << LEAVE_SHIFT | t->run->nr_blocks);
	emit_jmp(e, t->run->stub_leave);
	from[-1] = e->at - from;
	emit_mov(e, RCX, R15);
}

/* Returns the same. */
static uint32_t emit_head(struct translation *t)
{
	struct emit *e = &t->e;
	uint32_t leave = emit_pos(e), count;

	emit_mov_imm(e, RCX, (uint32_t)LEAVE_HEAD << LEAVE_SHIFT | t->run->nr_blocks);
	emit_jmp(e, t->run->stub_leave);
	t->failed |= emit_pos(e) != leave + RUN_HEAD_LEAVE;
	emit_cross_entry(t, leave);
	t->entry = emit_pos(e);
	emit_calm(t, leave);
	t->inner = emit_pos(e);
	run_exchange(t);
	t->again = emit_pos(e);
	emit_load_slot(e, RCX, EMIT_SLOT_RETIRED);
	EMIT(e, "\x48\x8d\x49"); /* lea count(%rcx),%rcx */
	count = emit_pos(e);
	emit8(e, 0);
	if (t->run->opt.lockstep || t->cpu->counted)
		emit_limit(t);
	emit_store_slot(e, RCX, EMIT_SLOT_RETIRED);
	return count;
}

_Static_assert(RUN_BLOCK_INSNS < 128, "a byte's");

static void translate_all(struct translation *t)
{
	enum form form = FORM_DONE;

	for (unsigned i = 0; i < t->nr_records && form == FORM_DONE; i++)
		form = translate_one(t, &t->record[i]);
	if (form == FORM_DONE)
		run_end(t, t->rip);
}

/* Up to where code is to be in huge pages: where there is much of it, only those that are full. */
static uint32_t to_prepare(const struct run *run)
{
	if (run->prepared < RUN_EAGER)
		return run->used + RUN_CODE_ROOM;
	return run->used - min(run->used, RUN_HUGE);
}

static void settle(struct run *run)
{
	if (run->large_cpu && !run->large && run->used > RUN_LARGE_CODE &&
	    run->cpu->retired > RUN_LARGE_AGE)
		run_large_tables(run);
	if (run->large)
		run_large_blocks(run);
	if (run->large_cpu && run->prepared < run->code.size && to_prepare(run) > run->prepared)
		run->prepared = host_code_prepare(&run->code, run->prepared);
	if (run->used - run->settled < RUN_SETTLE)
		return;
	host_code_settle(&run->code, run->settled, run->used);
	run->settled = run->used;
}

/* Enter the block for run_site_block(). */
static void note_near(struct run *run, uint32_t block, uint32_t exit)
{
	uint32_t entry = run->block[block].entry;

	while (run->nr_near <= entry >> RUN_NEAR_SHIFT)
		run->near[run->nr_near++] = (struct run_near){.block = block, .exit = exit};
}

/* Of ->second's lines, that which the block is made of. */
static unsigned second_line(const struct translation *t)
{
	return t->over ? 0 : (t->relay & ~PAGE_MASK) / RUN_LINE;
}

/* The block's place in ->over. */
static uint32_t over_new(struct translation *t)
{
	struct run *run = t->run;

	run->over[run->nr_over] = (struct run_over){
		.page = t->second - run->page,
		.group = t->first_group,
		.relay = !t->over,
		.line = second_line(t),
	};
	return run->nr_over++;
}

static bool keep(struct translation *t, bool *ret_brief)
{
	const struct run_record *last = &t->record[t->nr_records - 1];
	unsigned room = PAGE_SIZE - (last->rip & ~PAGE_MASK);

	return run_site_keep(t->run,
			     &(struct run_keep){
				     .entry = t->entry,
				     .site = t->sites,
				     .nr = t->nr_sites,
				     .wide.lines = t->lines,
				     .wide.group = t->second ? over_new(t) : t->first_group,
				     .rip = t->start,
				     .end = last->rip + (last->insn.trap ? min(room, RUN_MAX_INSN)
									 : last->insn.len),
				     .over = t->second,
			     },
			     ret_brief);
}

static uint32_t finish(struct translation *t, uint32_t count)
{
	struct run *run = t->run;
	uint32_t nr = 0, block = run->nr_blocks, site = run->nr_sites;
	bool brief;

	for (uint32_t i = t->nr_sites; i--;)
		t->sites[i].left = nr += 1 + t->sites[i].relay;
	run->code.rw[count] = nr;
	emit_ends(t);
	t->failed |= t->entry - t->cross > UINT8_MAX || t->inner - t->entry > UINT8_MAX;
	if (t->failed || !keep(t, &brief))
		return RUN_NONE;
	run->nr_blocks++;
	run->used = emit_pos(&t->e);
	settle(run);
	run->block[block] = (struct run_block){
		.counts = t->counts,
		.brief = brief,
		.hot = t->counts ? hot_times(run) : 0,
		.rip = t->start,
		.key = t->key,
		.entry = t->entry,
		.loops = run_loops(t),
		.homes = !!t->nr_exchanges,
		.to_inner = t->inner - t->entry,
		.to_cross = t->entry - t->cross,
		.page = t->page - run->page,
		.over = !!t->second,
		.site = site,
		.links = RUN_NO_EXIT,
	};
	note_near(run, block, t->first_exit);
	run->nr_traces += t->hot;
	run->count[t->key & RUN_KEY_PLAIN ? COUNT_PLAIN : t->hot ? COUNT_TRACE : COUNT_BLOCK]++;
	run_page_cover(run, t->page, t->lines);
	if (t->second)
		run_page_cover(run, t->second, BIT(second_line(t)));
	run_block_link(run, block);
	run_perf_note(run, block);
	return block;
}

/*
 * A small program's traces find all that they return to in the host's nearest cache, by fewer instructions; their RETs leave
 * the ring alone. Whoever asks for traces at once is a test, and gets large programs'.
 */
static bool goes_by_ring(const struct translation *t)
{
	const struct run *run = t->run;

	return !t->hot || run->opt.hot != RUN_HOT || run->nr_traces >= RUN_RING_TRACES;
}

/* The first pass, and what blocks and traces differ in. */
static bool collect(struct translation *t, bool hot)
{
	const struct run_options *opt = &t->run->opt;
	bool plain = t->key & RUN_KEY_PLAIN;

	t->record = t->run->record;
	t->hot = (hot || opt->hot == 1) && !plain;
	t->counts = opt->hot && !t->hot && !plain;
	if (!run_collect(t))
		return false;
	t->counts &= !t->over;
	t->in_r15 = NULL;
	t->rings = goes_by_ring(t);
	run_ring_pair(t);
	if (t->hot && !t->over && !t->code32) /* whose sums wrap */
		run_group(t);
	if (run_inlines(t) && !t->code32)
		run_homes(t);
	return true;
}

/* Who enters a trace waits for the fewest lines of code if its head begins one; blocks are entered too seldom for that. */
static uint32_t start_of(const struct translation *t)
{
	uint32_t used = t->run->used + (t->nr_exchanges ? RUN_HOMES_STUB : 0);

	if (t->counts)
		return used;
	return t->hot ? ALIGN_UP(used + RUN_HEAD_LEAVE, CACHE_LINE) - RUN_HEAD_LEAVE : used;
}

static uint32_t make(struct translation *t)
{
	uint32_t count = t->counts ? emit_head_calls(t) : emit_head(t);

	translate_all(t);
	return t->failed ? RUN_NONE : finish(t, count);
}

uint32_t run_translate(struct run *run, const uint8_t *host, uint32_t key, bool hot)
{
	struct translation t = {
		.run = run,
		.cpu = run->cpu,
		.key = key,
		.code32 = (key & KEY_CODE) == CODE_32,
	};
	uint32_t head, block;
	int jumps;

	run_homes_usual(&t);
	make_room(run, key);
	jumps = run_key_index(run, key & ~RUN_KEY_PLAIN);
	t.start = t.rip = hot && run->nr_path ? run->path[0] : run->cpu->rip;
	t.page = run_page_get(run, host, t.start);
	if (jumps < 0 || !t.page)
		return RUN_NONE;
	t.jumps = &run->jumps[jumps];
	t.stubs = &run->stubs[jumps];
	t.map = run->cpu->tlb->direct->map[key >> RUN_KEY_ACCESS & 3];
	t.first_group = run->nr_groups;
	if (!collect(&t, hot))
		return RUN_NONE;
	run_stubs_make(&t);
	head = start_of(&t);
	t.e.base = run->code.rw;
	run_homes_stub(&t, head);
	t.e.at = run->code.rw + head;
	t.first_exit = run->nr_exits;
	block = make(&t);
	if (block == RUN_NONE)
		run->nr_exits = t.first_exit;
	return block;
}
