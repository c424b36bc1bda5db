/* SPDX-License-Identifier: MIT */
/*
 * The run tempo's loop (run.h): find the block at RIP, enter its code, see why it came back.
 *
 * Whatever the blocks cannot do is step's: attention, other modes, code that ran too seldom to be worth
 * translating, instructions over two pages. A block that the loop finds after another is chained to it, or
 * entered in the jump cache, so that the next time the loop is not asked.
 */
#include "host/guard.h"
#include "silicon/exec/decode.h"
#include "silicon/exec/lockstep.h"
#include "silicon/exec/run_parts.h"
#include "silicon/mmu/tlb.h"

#include <asm/prctl.h>
#include <sys/syscall.h>

#define MAX_INSN 15

/* ---- GS base: the vCPU's while its code runs ---- */

static void lend_gs(struct run *run)
{
	if (!run->opt.fsgsbase) {
		host_syscall(SYS_arch_prctl, ARCH_GET_GS, (long)&run->host_gs, 0, 0, 0, 0);
		host_syscall(SYS_arch_prctl, ARCH_SET_GS, (long)run->cpu, 0, 0, 0, 0);
		return;
	}
	asm volatile("rdgsbase %0" : "=r"(run->host_gs));
	asm volatile("wrgsbase %0" ::"r"(run->cpu));
}

static void return_gs(struct run *run)
{
	if (run->opt.fsgsbase) {
		asm volatile("wrgsbase %0" ::"r"(run->host_gs));
		return;
	}
	fpu_save(run->cpu);
	host_syscall(SYS_arch_prctl, ARCH_SET_GS, (long)run->host_gs, 0, 0, 0, 0);
}

/* ---- entering and leaving ---- */

static void count_entry(struct run *run, uint32_t block)
{
	static const uint8_t counts[] = {
		[LEAVE_HEAD] = COUNT_HEAD, [LEAVE_EXIT] = COUNT_EXIT, [LEAVE_RIP] = COUNT_RIP,
		[LEAVE_COLD] = COUNT_COLD, [LEAVE_HOT] = COUNT_COLD,
	};
	unsigned why = counts[run->leave >> LEAVE_SHIFT];

	if (why == COUNT_EXIT && !run->exit[run->leave & LEAVE_INDEX].own)
		why = COUNT_CROSS;
	run->count[why]++;
}

/* What left at the block's own head found it, and does so again. */
static void shorten(struct run *run, enum run_leave why, uint32_t index, uint32_t block)
{
	if (why == LEAVE_EXIT && run_link(run, index, block))
		return;
	if (why != LEAVE_HEAD || block != index)
		run_jump_add(run, block);
}

/* Enter the block; the road that led to it is shortened for the next time. */
static void enter_block(struct run *run, uint32_t block)
{
	if (unlikely(!run->cpu->calm) && !run_attention(run->cpu))
		cpu_calm(run->cpu);
	if (run->opt.chain)
		shorten(run, run->leave >> LEAVE_SHIFT, run->leave & LEAVE_INDEX, block);
	count_entry(run, block);
	((run_enter_fn *)(run->code.rx + run->stub_enter))(run->code.rx + run->block[block].entry);
}

/* What translated code came back with. */
static enum cpu_exit_kind left(struct run *run)
{
	struct cpu *cpu = run->cpu;
	uint32_t index = run->leave & LEAVE_INDEX;

	switch (run->leave >> LEAVE_SHIFT) {
	case LEAVE_HEAD:
		cpu->rip = run->block[index].rip;
		break;
	case LEAVE_EXIT:
		cpu->rip = run_exit_target(run, index);
		break;
	case LEAVE_CALL:
		index = run_exit_at(run, index);
		cpu->rip = run_exit_target(run, index);
		run->leave = (uint32_t)LEAVE_EXIT << LEAVE_SHIFT | index;
		break;
	case LEAVE_HOT:
		cpu->rip = run->block[index].rip;
		run->visits[index].left = RUN_HOT_AGAIN;
		break;
	case LEAVE_COLD:
		return step_settle(cpu, run->result);
	}
	return CPU_EXIT_NONE;
}

/* ---- the loop ---- */

/* A few bits of the 16 bytes around RIP; page holds its page's. */
static uint8_t code_tag(const uint8_t *page, uint64_t rip)
{
	unsigned off = rip & ~PAGE_MASK & ~7u;
	uint64_t first = 0, second = 0;

	host_load_64(page + off, &first);
	host_load_64(page + min(off + 8, (unsigned)PAGE_SIZE - 8), &second);
	return hash_words(first, second, 8);
}

/* Times that the code at RIP was found untranslated, and the same: what keeps changing is not worth it. */
static bool hot(struct run *run, const uint8_t *page)
{
	struct run_heat *heat = run_heat(run, run->cpu->rip, run_key(run->cpu));
	uint8_t tag = code_tag(page, run->cpu->rip);

	if (heat->lasted) {
		heat->lasted = false;
		return true;
	}
	if (heat->tag != tag)
		*heat = (struct run_heat){.tag = tag};
	if (++heat->visits < run->opt.threshold)
		return false;
	heat->visits = 0;
	return true;
}

static bool jumped(uint64_t from, uint64_t to)
{
	return to - from > MAX_INSN;
}

static bool same_page(uint64_t a, uint64_t b)
{
	return !((a ^ b) & PAGE_MASK);
}

void run_stepped(struct run *run)
{
	const struct insn *insn = run->cpu->exec->last;

	if (unlikely(insn && insn->flags & INSN_SYNC))
		run_serialize(run, insn->sync);
}

static enum cpu_exit_kind step_run(struct run *run)
{
	enum cpu_exit_kind kind = step_once(run->cpu);

	run_stepped(run);
	return kind;
}

/* Step to the next jump, or over the page's end. */
static enum cpu_exit_kind step_on(struct run *run)
{
	struct cpu *cpu = run->cpu;
	enum cpu_exit_kind kind;
	uint64_t rip;

	do {
		rip = cpu->rip;
		kind = step_run(run);
		run->count[COUNT_STEPPED]++;
	} while (!kind && !run_attention(cpu) && !cpu_at_limit(cpu) && !jumped(rip, cpu->rip) &&
		 same_page(rip, cpu->rip));
	run->leave = LEAVE_COLD << LEAVE_SHIFT;
	return kind;
}

/* Whether an event was delivered between two instructions, as far as RIP, IF and NMI blocking tell. */
struct before {
	uint64_t rip;
	bool open, nmi_blocked;
};

static struct before look_before(const struct cpu *cpu)
{
	return (struct before){
		.rip = cpu->rip,
		.open = cpu->sflags & FLAG_IF,
		.nmi_blocked = cpu->nmi_blocked,
	};
}

static bool event_came(const struct cpu *cpu, const struct before *b)
{
	return jumped(b->rip, cpu->rip) &&
	       ((b->open && !(cpu->sflags & FLAG_IF)) || b->nmi_blocked != cpu->nmi_blocked);
}

/* An event that went in between is an epoch's begin, like what the program did while it was outside, unless it was time's. */
static void begin_epoch(struct run *run)
{
	uint32_t told = __atomic_load_n(&run->cpu->told, __ATOMIC_SEQ_CST);

	if (told == run->seen_told) {
		run_serialize(run, SYNC_CPUS);
		return;
	}
	run->seen_told = told;
	run_new_epoch(run);
}

static enum cpu_exit_kind attend(struct run *run)
{
	struct cpu *cpu = run->cpu;
	struct before before = look_before(cpu);
	enum cpu_exit_kind kind = step_run(run);

	if (event_came(cpu, &before))
		begin_epoch(run);
	run->leave = LEAVE_COLD << LEAVE_SHIFT;
	return kind;
}

static uint32_t translate(struct run *run, const uint8_t *host, uint32_t key, bool hot)
{
	fpu_save(run->cpu);
	return run_translate(run, host, key, hot);
}

/* The key to go on under: another one where a trace left what it leaves out. */
static uint32_t key_onward(const struct run *run)
{
	bool plain = run->plain || (run->leave >> LEAVE_SHIFT == LEAVE_EXIT &&
				    run->exit[run->leave & LEAVE_INDEX].plain);

	return run_key(run->cpu) | (plain ? RUN_KEY_PLAIN : 0);
}

/* Also in lock-step, once as much is done as step did. */
static bool at_limit(const struct run *run)
{
	return run->limit && run->cpu->retired >= -run->limit;
}

/* The least number of instructions behind which the way repeats itself; ->nr_path: it does not. */
static uint32_t period(const struct run *run)
{
	uint32_t nr = 1, i = 0;

	while (nr + i <= run->nr_path && nr < run->nr_path) {
		if (run->path[nr + i] == run->path[i]) {
			i++;
		} else {
			nr++;
			i = 0;
		}
	}
	return nr;
}

/* Begin first instructions later, in a way that repeats itself. */
static void rotate_path(struct run *run, uint32_t first, uint32_t round)
{
	uint32_t nr = run->nr_path;
	uint64_t *path = run->path;

	for (uint32_t i = 0; i <= nr; i++)
		path[i] = i + first <= nr ? path[i + first] : path[i - round];
}

/*
 * A way that begins somewhere in the rounds of an inner loop: let it begin where that is entered from before it. Nobody would come to
 * the trace's head with as many rounds left again.
 */
static void align_path(struct run *run, uint32_t round)
{
	const uint64_t *path = run->path;
	uint32_t first = 1;

	while (first < round && (path[first] != path[0] || path[first - 1] > path[0]))
		first++;
	if (first < round)
		rotate_path(run, first, round);
}

/* Where on the way its outermost loop begins: at the lowest of what is jumped back to. */
static uint32_t outermost(const struct run *run, uint32_t round)
{
	const uint64_t *path = run->path;
	uint32_t found = 0;

	for (uint32_t i = 1; i < round; i++)
		if (same_page(path[i], path[0]) && path[i] < path[i - 1] && path[i] < path[found])
			found = i;
	return found;
}

/*
 * The block to begin the trace at, the way from the present one being known: if that repeats itself, the head of its outermost loop. What
 * is set there is known in the whole trace then, and nothing enters it out of step.
 */
static uint32_t begin_at(struct run *run, uint32_t block)
{
	const struct run_block *b = &run->block[block];
	uint32_t round = period(run), first, head;

	if (2 * round > run->nr_path)
		return block;
	first = outermost(run, round);
	head = first ? run_block_at(run, run->path[first], b->key, b->page) : RUN_NONE;
	if (head == RUN_NONE || !run->block[head].counts) {
		align_path(run, round);
		return block;
	}
	rotate_path(run, first, round);
	return head;
}

/* Where the way left its page by a JMP: there is what a trace may take along (run_trace.c). */
static bool at_relay(struct cpu *cpu)
{
	const uint8_t *host = tlb_fetch_hit(cpu, cpu->rip);

	return host && run_maybe_relay(host);
}

/* Step on within the page, and note by which way. At most so many instructions. */
static enum cpu_exit_kind step_path(struct run *run, uint32_t key, uint32_t most)
{
	struct cpu *cpu = run->cpu;
	enum cpu_exit_kind kind;
	uint32_t nr = 0;

	run->path[0] = cpu->rip;
	do {
		kind = run->lockstep ? step_blind(cpu) : step_once(cpu);
		run_stepped(run);
		cpu->exec->key = decode_key(cpu);
		run->path[++nr] = cpu->rip;
	} while (!kind && !run_attention(cpu) && nr < most && !at_limit(run) &&
		 (same_page(cpu->rip, run->path[0]) ||
		  (same_page(run->path[nr - 1], run->path[0]) && at_relay(cpu))) &&
		 run_key(cpu) == key && run_translatable(cpu));
	run->nr_path = nr;
	run->count[COUNT_STEPPED] += nr;
	run->leave = LEAVE_COLD << LEAVE_SHIFT;
	return kind;
}

/* The way there may have dropped it, or mapped something else in its place. */
static bool may_promote(const struct run *run, uint32_t block)
{
	const struct run_block *b = &run->block[block];

	return !b->dead && !(run->stale[b->page] & STALE_MAP);
}

/* Something came in between for the first time: what was stepped through tells little, so do it once more. */
static bool disturbed(struct run *run, uint32_t block)
{
	const struct run_block *b = &run->block[block];
	struct run_heat *heat = run_heat(run, b->rip, b->key);
	bool before = heat->disturbed;

	heat->disturbed = run_attention(run->cpu);
	return heat->disturbed && !before;
}

static void make_trace(struct run *run, uint32_t block)
{
	const uint8_t *host = run->page[run->block[block].page].hva;
	uint64_t nr_flushes = run->count[COUNT_FLUSH];
	uint32_t trace;

	run_look_around(run);
	if (!may_promote(run, block))
		return;
	trace = translate(run, host, run->block[block].key, true);
	if (trace != RUN_NONE && run->count[COUNT_FLUSH] == nr_flushes)
		run_block_replace(run, block, trace);
}

/*
 * Make a trace that begins where the block does, by the way that the guest goes from there this time. Where that leaves the
 * mode, by a system call or to a guest's guest, it is not to be stepped the next time: then the trace is made before.
 */
static enum cpu_exit_kind promote(struct run *run, uint32_t block)
{
	uint32_t key = run->block[block].key, away = run->block[block].away;
	uint64_t nr_flushes = run->count[COUNT_FLUSH];
	enum cpu_exit_kind kind = CPU_EXIT_NONE;

	run->leave = LEAVE_COLD << LEAVE_SHIFT;
	if (away != 1)
		kind = step_path(run, key, away ? away - 1u : RUN_BLOCK_INSNS);
	if (run->count[COUNT_FLUSH] == nr_flushes) {
		if (run_key(run->cpu) != key || !run_translatable(run->cpu))
			run->block[block].away = min(run->nr_path, RUN_AWAY);
		else if (!disturbed(run, block))
			make_trace(run, begin_at(run, block));
	}
	run->nr_path = 0;
	return kind;
}

/* The page at RIP is not in the TLB: bring it in. False: stepping will say what is wrong. */
static bool fetch_page(struct cpu *cpu)
{
	enum result r = mmu_probe(cpu, cpu->rip & PAGE_MASK, 1, ACCESS_FETCH);

	cpu->fault.valid = false;
	return r == RESULT_OK;
}

/* The block to enter at cpu->rip, made if it is time; RUN_NONE: step. */
static uint32_t block_onward(struct run *run)
{
	uint32_t key = key_onward(run), block;
	const uint8_t *host;

	block = run_find(run, key, &host);
	if (!host && fetch_page(run->cpu)) {
		run_look_around(run);
		block = run_find(run, key, &host);
	}
	if (!host)
		return RUN_NONE;
	if (block == RUN_NONE)
		return key & RUN_KEY_PLAIN || hot(run, host) ? translate(run, host, key, false)
							     : RUN_NONE;
	return block;
}

/* Instructions of standing blocks point to thunks: before any is entered after these were dropped, forget them. */
static void follow_drops(struct run *run)
{
	if (likely(run->seen_drops == run->cpu->exec->nr_drops))
		return;
	fpu_save(run->cpu);
	run_flush(run);
}

bool run_enter(struct run *run, enum cpu_exit_kind *ret_kind)
{
	uint32_t block;

	if (!run_translatable(run->cpu))
		return false;
	follow_drops(run);
	run_look_around(run);
	block = block_onward(run);
	if (block == RUN_NONE)
		return false;
	if (run->leave >> LEAVE_SHIFT == LEAVE_HOT && run->block[block].counts) {
		*ret_kind = promote(run, block);
		return true;
	}
	enter_block(run, block);
	*ret_kind = left(run);
	return true;
}

/* The next block may go beyond the limit. */
static bool near_limit(const struct cpu *cpu)
{
	return cpu->limit - 1 - cpu->retired < RUN_BLOCK_INSNS;
}

static enum cpu_exit_kind step_to_limit(struct run *run)
{
	enum cpu_exit_kind kind;

	do
		kind = step_run(run);
	while (!kind && !run_attention(run->cpu) && !cpu_at_limit(run->cpu));
	run->leave = LEAVE_COLD << LEAVE_SHIFT;
	return kind;
}

static enum cpu_exit_kind round_one(struct run *run)
{
	enum cpu_exit_kind kind;

	if (!run_enter(run, &kind))
		return step_on(run);
	if (likely(kind || run->leave >> LEAVE_SHIFT != LEAVE_HEAD))
		return kind;
	return near_limit(run->cpu) && !run_attention(run->cpu) ? step_to_limit(run) : kind;
}

/* For tests, which always have a budget: unchained, a block is a step of known length. */
static bool within_budget(const struct run *run)
{
	const struct cpu *cpu = run->cpu;

	return !run->opt.chain && run_attention(cpu) == ATTN_BUDGET &&
	       (int64_t)(cpu->budget_end - cpu->retired) > RUN_BLOCK_INSNS && run_translatable(cpu);
}

static enum cpu_exit_kind round_budget(struct run *run)
{
	enum cpu_exit_kind kind;

	cpu_lower(run->cpu, ATTN_BUDGET);
	kind = round_one(run);
	cpu_raise(run->cpu, ATTN_BUDGET);
	return kind;
}

static enum cpu_exit_kind loop(struct run *run)
{
	struct cpu *cpu = run->cpu;
	enum cpu_exit_kind kind = CPU_EXIT_NONE;

	while (!kind) {
		if (likely(!run_attention(cpu) && !cpu_at_limit(cpu)))
			kind = round_one(run);
		else
			kind = within_budget(run) ? round_budget(run) : attend(run);
	}
	return kind;
}

enum cpu_exit_kind run_loop(struct cpu *cpu)
{
	struct run *run = cpu->exec->run;
	enum cpu_exit_kind kind;

	lend_gs(run);
	run_new_epoch(run);
	run->leave = LEAVE_COLD << LEAVE_SHIFT;
	kind = run->lockstep ? lockstep_loop(run) : loop(run);
	return_gs(run);
	return kind;
}

void exec_set_limit(struct cpu *cpu, uint64_t end)
{
	struct run *run = cpu->exec->run;

	if (end < cpu->limit)
		cpu_raise(cpu, ATTN_LIMIT);
	cpu->limit = end;
	if (run && !run->lockstep)
		run->limit = -end;
}

/* One instruction: a block of its own, as opt.max_insns should have it. */
enum result run_bare_block(struct run *run)
{
	struct cpu *cpu = run->cpu;
	const uint8_t *host;
	uint32_t block;

	follow_drops(run);
	run_look_around(run);
	block = run_find(run, run_key(cpu), &host);
	if (block == RUN_NONE && host)
		block = translate(run, host, run_key(cpu), false);
	if (block == RUN_NONE)
		return step_bare(cpu);
	if (run_site_insn(run, block << RUN_SITE_BITS)->flags & INSN_FPU)
		fpu_load(cpu);
	enter_block(run, block);
	if (run->leave >> LEAVE_SHIFT == LEAVE_COLD) {
		cpu->retired += run->result == RESULT_OK || run->result == RESULT_STOP;
		return run->result;
	}
	left(run);
	return RESULT_OK;
}

enum result run_bare(struct cpu *cpu)
{
	struct run *run = cpu->exec->run;
	uint32_t unseen;
	enum result r;

	if (!run_translatable(cpu))
		return step_bare(cpu);
	unseen = __atomic_exchange_n(&cpu->attention, 0, __ATOMIC_SEQ_CST);
	lend_gs(run);
	run_new_epoch(run);
	run->leave = LEAVE_COLD << LEAVE_SHIFT;
	r = run->lockstep ? lockstep_bare(run) : run_bare_block(run);
	return_gs(run);
	cpu_raise(cpu, unseen);
	return r;
}
