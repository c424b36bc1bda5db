/* SPDX-License-Identifier: MIT */
/* The loop of lock-step (lockstep.h): stretches in pairs, all else stepped alone. */
#include "silicon/exec/lockstep.h"
#include "silicon/exec/decode.h"
#include "silicon/exec/emul.h"
#include "silicon/mmu/tlb.h"

/* What other threads raise: not seen within a stretch, but after it. */
#define ATTN_OTHERS (ATTN_REQUEST | ATTN_EVENTS)

#define MAX_INSN 15

/* Results that nobody can repeat, and writes to what the platform keeps in struct cpu. */
static const uint16_t alone[] = {
	ZYDIS_MNEMONIC_RDTSC,  ZYDIS_MNEMONIC_RDTSCP, ZYDIS_MNEMONIC_RDPMC,  ZYDIS_MNEMONIC_RDRAND,
	ZYDIS_MNEMONIC_RDSEED, ZYDIS_MNEMONIC_WRMSR,  ZYDIS_MNEMONIC_VMCALL, ZYDIS_MNEMONIC_VMMCALL,
};

/* The way into guest mode is not made twice; the way out is. */
static bool must_be_alone(const struct cpu *cpu, const struct insn *insn)
{
	if ((cpu_guest(cpu) && cpu->virt->logs) || (insn && insn->run == emul_virt))
		return true;
	for (unsigned i = 0; insn && i < ARRAY_SIZE(alone); i++)
		if (insn->op == alone[i])
			return true;
	return false;
}

static uint32_t attention(const struct cpu *cpu)
{
	return __atomic_load_n(&cpu->attention, __ATOMIC_RELAXED);
}

/* Put off what other threads raised. */
static void put_off(struct lockstep *ls, uint32_t bits)
{
	ls->unseen |= __atomic_fetch_and(&ls->run->cpu->attention, ~bits, __ATOMIC_SEQ_CST) & bits;
}

/* ---- the two ways through a stretch ---- */

static bool has_room(const struct lockstep *ls)
{
	return !mmu_log_full(&ls->log) && ls->nr_calls + 16 < LOCKSTEP_CALLS;
}

/*
 * An instruction that is repeated looks at attention and may stop anywhere, which cannot be made again: so go on
 * until it is through, and until a handler has begun.
 */
static bool goes_on(struct lockstep *ls, uint64_t from, uint64_t limit)
{
	const struct cpu *cpu = ls->run->cpu;
	bool jumped = cpu->rip - from > MAX_INSN;

	if (ls->refining || ls->tail)
		put_off(ls, ATTN_OTHERS);
	if (ls->kind || ls->exited || !run_translatable(cpu) || !has_room(ls))
		return false;
	if (ls->tail)
		return !(attention(cpu) & ~ATTN_RF);
	return !attention(cpu) && cpu->retired < limit &&
	       !(jumped && cpu->retired - ls->before.retired >= LOCKSTEP_SHORT);
}

/* Nothing is committed, but of repeated instructions what came before. */
static void undo_cut(struct lockstep *ls, bool repeats)
{
	ls->kind = CPU_EXIT_NONE;
	ls->tail += repeats;
}

static void step_stretch(struct lockstep *ls, uint64_t limit)
{
	struct cpu *cpu = ls->run->cpu;
	const struct insn *insn;
	uint64_t rip, retired;
	bool repeats, guest = cpu_guest(cpu);

	ls->kind = CPU_EXIT_NONE;
	ls->exited = false;
	ls->tail = 0;
	ls->nr_steps = 0;
	ls->cut = false;
	do {
		insn = step_peek(cpu);
		if (must_be_alone(cpu, insn))
			break;
		repeats = !insn || insn->flags & (INSN_REP | INSN_REPNE);
		rip = cpu->rip;
		retired = cpu->retired;
		ls->trace[ls->nr_trace++ % LOCKSTEP_TRACE] = rip;
		ls->nr_steps++;
		ls->kind = step_blind(cpu);
		if (ls->cut) {
			undo_cut(ls, repeats);
			break;
		}
		ls->tail = cpu->retired == retired ? ls->tail + 1 : 0;
		ls->exited = guest && !cpu_guest(cpu);
	} while (goes_on(ls, rip, limit));
}

/* To the next jump, where no block is to be had. */
static enum cpu_exit_kind step_on(struct lockstep *ls, uint64_t end)
{
	struct cpu *cpu = ls->run->cpu;
	enum cpu_exit_kind kind;
	uint64_t rip;

	do {
		rip = cpu->rip;
		kind = step_blind(cpu);
		run_stepped(ls->run);
	} while (!kind && cpu->retired < end && cpu->rip - rip <= MAX_INSN);
	ls->run->leave = LEAVE_COLD << LEAVE_SHIFT;
	return kind;
}

/* With the next block too long for the rest of the stretch. */
static bool left_at_head(const struct run *run, enum cpu_exit_kind kind, uint64_t end)
{
	return !kind && run->leave >> LEAVE_SHIFT == LEAVE_HEAD && run->cpu->retired < end;
}

/* A trace that is too long for the rest gives way to plain blocks. False: no block is short enough. */
static bool enter(struct run *run, enum cpu_exit_kind *ret_kind, uint64_t end)
{
	bool done;

	if (!run_enter(run, ret_kind))
		return false;
	if (!left_at_head(run, *ret_kind, end))
		return true;
	run->plain = true;
	done = run_enter(run, ret_kind) && !left_at_head(run, *ret_kind, end);
	run->plain = false;
	return done;
}

/* What step did behind its last retired instruction: up to an exit, of either kind. */
static bool in_tail(const struct lockstep *ls)
{
	return ls->tail && !(ls->exited && !cpu_guest(ls->run->cpu));
}

#define PATIENCE 4096u /* rounds without end: translated code makes no progress */

static void run_stretch(struct lockstep *ls, uint64_t end)
{
	struct run *run = ls->run;
	struct cpu *cpu = run->cpu;
	enum cpu_exit_kind kind = CPU_EXIT_NONE;
	unsigned rounds = 0;

	run->leave = LEAVE_COLD << LEAVE_SHIFT;
	run->limit = -end;
	for (; !kind && cpu->retired < end && rounds < PATIENCE; rounds++) {
		put_off(ls, ATTN_OTHERS);
		if (!enter(run, &kind, end))
			kind = step_on(ls, end);
	}
	for (; in_tail(ls) && !kind && cpu->retired == end && rounds < PATIENCE; rounds++)
		kind = step_blind(cpu);
	run->limit = 0;
	ls->strayed |= rounds == PATIENCE || ls->next_call != ls->nr_asked;
	ls->run_kind = kind;
}

/* ---- a pair ---- */

static void use_tlb(struct lockstep *ls, struct tlb *tlb)
{
	struct cpu *cpu = ls->run->cpu;

	cpu->tlb = tlb;
	if (tlb != ls->other || !ls->stale)
		return;
	ls->stale = false;
	if (cpu->virt)
		mmu_switch_world(cpu);
	mmu_update_mode(cpu);
	mmu_flush_all(cpu);
}

static void begin(struct lockstep *ls)
{
	ls->mode = LOCKSTEP_RECORD;
	ls->nr_calls = 0;
	ls->unseen = 0;
	ls->own = ls->run->cpu->tlb;
	lockstep_state_copy(&ls->before, ls->run->cpu);
	lockstep_virt_keep(ls->run->cpu, ls->virt_before);
}

static void set_back(struct lockstep *ls)
{
	struct cpu *cpu = ls->run->cpu;

	lockstep_state_copy(cpu, &ls->before);
	lockstep_virt_set(cpu, ls->virt_before);
	cpu->exec->key = decode_key(cpu);
}

/* From step to run: false if not all that step did can be made again. */
static bool turn(struct lockstep *ls)
{
	struct cpu *cpu = ls->run->cpu;

	fpu_save(cpu);
	use_tlb(ls, ls->own);
	if ((ls->tail && !ls->kind && !ls->exited) || ls->log.over ||
	    ls->nr_calls > LOCKSTEP_CALLS) {
		ls->log.recording = false;
		ls->stale = true;
		mmu_update_mode(cpu);
		mmu_flush_all(cpu);
		return false;
	}
	put_off(ls, ~0u);
	lockstep_state_copy(&ls->stepped, cpu);
	lockstep_virt_keep(cpu, ls->virt_stepped);
	mmu_log_end(&ls->log);
	set_back(ls);
	ls->nr_asked = ls->mode == LOCKSTEP_RECORD ? ls->nr_calls : ls->next_call;
	ls->mode = LOCKSTEP_REPLAY;
	ls->next_call = 0;
	ls->strayed = false;
	return true;
}

static void end(struct lockstep *ls)
{
	struct cpu *cpu = ls->run->cpu;

	ls->mode = LOCKSTEP_OPEN;
	ls->stale |= ls->exited;
	fpu_save(cpu);
	cpu_raise(cpu, ls->unseen & ~ATTN_DERIVED);
	cpu_update_attention(cpu);
}

bool lockstep_same(struct lockstep *ls, struct mmu_log_difference *ret)
{
	*ret = (struct mmu_log_difference){0};
	return !ls->strayed && lockstep_state_same(ls) && mmu_log_same(&ls->log, ret);
}

/* True: no difference. */
static bool pair(struct lockstep *ls, uint64_t limit)
{
	struct mmu_log_difference diff;

	use_tlb(ls, ls->other);
	mmu_log_begin(&ls->log);
	step_stretch(ls, limit);
	if (!turn(ls))
		return true;
	run_stretch(ls, ls->stepped.retired);
	fpu_save(ls->run->cpu);
	return lockstep_same(ls, &diff);
}

bool lockstep_again(struct lockstep *ls, uint64_t limit)
{
	mmu_log_undo(&ls->log);
	ls->run->cpu->tlb = ls->own;
	set_back(ls);
	put_off(ls, ~0u);
	ls->mode = LOCKSTEP_REPLAY;
	ls->next_call = 0;
	ls->stale = true;
	ls->refining = true;
	mmu_flush_all(ls->run->cpu);
	return pair(ls, limit);
}

/* ---- the loop ---- */

static enum cpu_exit_kind stop(struct lockstep *ls)
{
	struct cpu *cpu = ls->run->cpu;

	if (!ls->stopped)
		lockstep_say(ls);
	ls->stopped = true;
	cpu->exit.kind = CPU_EXIT_INTERNAL;
	return CPU_EXIT_INTERNAL;
}

/* Stepped, and good for both. */
static enum cpu_exit_kind step_alone(struct lockstep *ls)
{
	enum cpu_exit_kind kind = step_once(ls->run->cpu);

	run_new_epoch(ls->run);
	ls->stale = true;
	ls->nr_alone++;
	return kind;
}

static enum cpu_exit_kind stretch(struct lockstep *ls, uint64_t limit)
{
	struct cpu *cpu = ls->run->cpu;
	bool same;

	fpu_save(cpu);
	cpu_alone(cpu, true);
	begin(ls);
	same = pair(ls, limit);
	ls->nr_paired += cpu->retired - ls->before.retired;
	if (same)
		end(ls);
	else
		stop(ls);
	cpu_alone(cpu, false);
	return same ? ls->kind : CPU_EXIT_INTERNAL;
}

/* With a budget, which is the only attention that a stretch goes with. */
static enum cpu_exit_kind stretch_in_budget(struct lockstep *ls, uint64_t limit)
{
	struct cpu *cpu = ls->run->cpu;
	enum cpu_exit_kind kind;

	cpu_lower(cpu, ATTN_BUDGET);
	kind = stretch(ls, min(limit, cpu->budget_end));
	cpu_raise(cpu, ATTN_BUDGET);
	return kind;
}

static enum cpu_exit_kind round_one(struct lockstep *ls)
{
	struct cpu *cpu = ls->run->cpu;
	uint64_t limit = cpu->retired + LOCKSTEP_LONG;
	uint32_t seen = attention(cpu);

	if (cpu->limit)
		limit = min(limit, cpu->limit);
	if (cpu_at_limit(cpu) || !run_translatable(cpu) || must_be_alone(cpu, step_peek(cpu)))
		return step_alone(ls);
	if (!seen)
		return stretch(ls, limit);
	if (seen == ATTN_BUDGET && cpu->retired < cpu->budget_end)
		return stretch_in_budget(ls, limit);
	return step_alone(ls);
}

enum cpu_exit_kind lockstep_loop(struct run *run)
{
	struct lockstep *ls = run->lockstep;
	enum cpu_exit_kind kind = CPU_EXIT_NONE;

	if (ls->stopped)
		return stop(ls);
	fpu_save(run->cpu);
	lockstep_calls_begin(ls);
	ls->stale = true;
	while (!kind)
		kind = round_one(ls);
	fpu_save(run->cpu);
	lockstep_calls_end(ls);
	return kind;
}

/* ---- one instruction without its events: for cpu_step_bare() ---- */

static void want_single_blocks(struct run *run)
{
	if (run->opt.max_insns == 1)
		return;
	run->opt.max_insns = 1;
	run->opt.hot = 0;
	fpu_save(run->cpu);
	run_flush(run);
}

static enum result bare_pair(struct lockstep *ls)
{
	struct mmu_log_difference diff;
	enum result r, was;

	use_tlb(ls, ls->other);
	mmu_log_begin(&ls->log);
	ls->tail = 0;
	ls->nr_steps = 0;
	ls->cut = ls->exited = false;
	was = step_bare(ls->run->cpu);
	ls->kind = CPU_EXIT_NONE;
	if (!turn(ls))
		return was;
	ls->run->limit = -(ls->before.retired + 1);
	r = run_bare_block(ls->run);
	fpu_save(ls->run->cpu);
	ls->run_kind = CPU_EXIT_NONE;
	ls->strayed |= r != was || ls->next_call != ls->nr_asked;
	if (lockstep_same(ls, &diff))
		return r;
	stop(ls);
	return RESULT_EXIT;
}

enum result lockstep_bare(struct run *run)
{
	struct lockstep *ls = run->lockstep;
	enum result r;

	fpu_save(run->cpu);
	lockstep_calls_begin(ls);
	ls->stale = true;
	want_single_blocks(run);
	if (cpu_guest(run->cpu) || must_be_alone(run->cpu, step_peek(run->cpu))) {
		r = step_bare(run->cpu);
	} else {
		begin(ls);
		r = bare_pair(ls);
		end(ls);
	}
	fpu_save(run->cpu);
	lockstep_calls_end(ls);
	return r;
}
