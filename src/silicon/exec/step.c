/* SPDX-License-Identifier: MIT */
/*
 * The step loop: one instruction at a time, exact in all modes.
 *
 * Each round looks at ->attention, reads the bytes at RIP, finds the decoded instruction by RIP and proves
 * it by comparing bytes and mode key, and runs it. Bytes are read each time, because the program and other
 * processes write guest memory past all our tables (docs: decisions). Rare things (attention, a miss, a
 * fault, an exit) leave the fast path by functions that are not inlined.
 *
 * Guest vector state may be live in the host's registers throughout: general registers only here. Decoding
 * is ordinary C and so comes after fpu_save().
 */
#include "host/guard.h"
#include "silicon/exec/decode.h"
#include "silicon/exec/emul.h"
#include "silicon/exec/exec.h"
#include "silicon/exec/run.h"
#include "silicon/mmu/tlb.h"
#include "silicon/mmu/codemap.h"
#include "silicon/sys/sys.h"

#define MAX_INSN 15

/* The bytes at RIP. */
struct fetched {
	uint64_t word[2]; /* zero-padded */
	unsigned nr;	  /* how many are there, at most 15 */
	bool limit;	  /* the code segment ends behind them */
};

#define ONES(n) ((n) <= 0 ? 0 : ~0ull >> (64 - 8 * ((n) < 8 ? (n) : 8)) % 64)
/* clang-format off */
#define ROW(n) {ONES(n), ONES(n - 8)}
/* clang-format on */

const uint64_t insn_masks[16][2] = {
	ROW(0), ROW(1), ROW(2),	 ROW(3),  ROW(4),  ROW(5),  ROW(6),  ROW(7),
	ROW(8), ROW(9), ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15),
};

/* How many bytes the code segment allows at RIP: SDM, limit checking. */
static unsigned within_limit(const struct cpu *cpu)
{
	const struct segment *cs = &cpu->seg[SEG_CS];

	if (cpu->mode.code == CODE_64)
		return MAX_INSN;
	if (cpu->rip > cs->limit)
		return 0;
	return min((uint64_t)MAX_INSN, cs->limit - cpu->rip + 1);
}

static inline gva_t linear_rip(const struct cpu *cpu)
{
	if (cpu->mode.code == CODE_64)
		return cpu->rip;
	return (uint32_t)(cpu->seg[SEG_CS].base + cpu->rip);
}

static __noinline enum result fetch_slow(struct cpu *cpu, struct fetched *f)
{
	unsigned allowed = within_limit(cpu), nr;
	uint8_t buf[16] = {0};
	enum result r;

	if (!allowed)
		return fault_gp(cpu, 0);
	r = mmu_fetch(cpu, linear_rip(cpu), buf, &nr);
	if (r)
		return r;
	f->limit = nr > allowed;
	f->nr = min(nr, allowed);
	__builtin_memset(buf + f->nr, 0, sizeof(buf) - f->nr);
	__builtin_memcpy(f->word, buf, sizeof(buf));
	return RESULT_OK;
}

/* The bytes at RIP in RAM, where 16 are left in a page that the TLB knows and in the segment; or NULL. */
static inline const uint8_t *fetch_pointer(struct cpu *cpu)
{
	if (cpu->mode.code != CODE_64 && cpu->rip + MAX_INSN > cpu->seg[SEG_CS].limit)
		return NULL;
	return tlb_fetch_hit(cpu, linear_rip(cpu));
}

static enum result fetch(struct cpu *cpu, struct fetched *f)
{
	const uint8_t *ptr = fetch_pointer(cpu);

	if (!ptr || !host_load_pair(ptr, f->word))
		return fetch_slow(cpu, f);
	f->nr = MAX_INSN;
	f->limit = false;
	return RESULT_OK;
}

void cache_flush(struct exec_cache *c)
{
	for (unsigned i = 0; i < CACHE_INSNS; i++)
		cache_slot(c, i)->mode = 0;
	for (unsigned i = 0; i < POOL_INSNS; i++)
		c->pool[i].mode = 0;
}

/* ---- the pool: instructions by their bytes ---- */

static uint8_t *length_guess(const struct exec_cache *c, const struct fetched *f)
{
	return &c->guess[hash_words((uint32_t)f->word[0], c->key & KEY_CODE, GUESS_BITS)];
}

static struct insn *pool_slot(const struct exec_cache *c, const struct fetched *f, unsigned len)
{
	uint64_t a = f->word[0], b = 0;

	if (len < 8)
		a &= BIT(8 * len) - 1;
	else if (len > 8)
		b = f->word[1] & (BIT(8 * (len - 8)) - 1);
	return &c->pool[hash_words(a, b ^ c->key, POOL_BITS)];
}

static const struct insn *pool_find(const struct exec_cache *c, const struct fetched *f)
{
	unsigned len = *length_guess(c, f);
	const struct insn *insn;

	if (!len || len > f->nr)
		return NULL;
	insn = pool_slot(c, f, len);
	return insn_is(insn, c->key, f->word[0], f->word[1]) && insn->len == len ? insn : NULL;
}

static void pool_put(struct exec_cache *c, const struct fetched *f, const struct insn *insn)
{
	*length_guess(c, f) = insn->len;
	*pool_slot(c, f, insn->len) = *insn;
}

/*
 * Decode what was fetched into its slot. RESULT_FAULT, RESULT_EXIT: the instruction goes on where nothing can be
 * fetched, for what mmu_fetch() left in cpu->fault or cpu->exit.
 */
static __noinline enum result decode(struct cpu *cpu, struct fetched *f, struct insn *slot)
{
	const struct insn *known = pool_find(cpu->exec, f);
	struct event stop = cpu->fault;
	struct insn insn;

	if (known) {
		*slot = *known;
		return RESULT_OK;
	}
	fpu_save(cpu);
	if (!decode_insn(cpu, cpu->exec->key, (const uint8_t *)f->word, f->nr, &insn)) {
		if (f->limit)
			return fault_gp(cpu, 0);
		cpu->fault = stop;
		return stop.valid ? RESULT_FAULT : RESULT_EXIT;
	}
	*slot = insn;
	pool_put(cpu->exec, f, &insn);
	return RESULT_OK;
}

/* Behind what was fetched stand zeros, which are not the instruction's. */
static bool fetched_is(const struct exec_cache *c, const struct fetched *f, const struct insn *insn)
{
	return insn->len <= f->nr && insn_is(insn, c->key, f->word[0], f->word[1]);
}

/* In neither slot, or not to be fetched plainly. What the first slot held moves to the second. */
static __noinline enum result find(struct cpu *cpu, const struct insn **ret)
{
	struct exec_cache *c = cpu->exec;
	uint32_t number = cache_number(cpu->rip);
	struct insn *first = cache_slot(c, number), *second = cache_slot(c, number ^ 1);
	struct fetched f;
	enum result r = fetch(cpu, &f);

	if (r)
		return r;
	*ret = first;
	if (fetched_is(c, &f, first))
		return RESULT_OK;
	*ret = second;
	if (fetched_is(c, &f, second))
		return RESULT_OK;
	*second = *first;
	*ret = first;
	return decode(cpu, &f, first);
}

/* The same number's second slot, or NULL. */
static __noinline const struct insn *look_beside(const struct exec_cache *c, uint32_t number,
						 uint64_t first, uint64_t second)
{
	const struct insn *insn = cache_slot(c, number ^ 1);

	return insn_is(insn, c->key, first, second) ? insn : NULL;
}

/* The instruction at RIP, if it stands in one of its slots and its bytes can be fetched plainly; or NULL. */
static __always_inline_ const struct insn *look(struct cpu *cpu)
{
	const struct exec_cache *c = cpu->exec;
	uint32_t number = cache_number(cpu->rip);
	const struct insn *insn = cache_slot(c, number);
	const uint8_t *ptr = fetch_pointer(cpu);
	uint64_t word[2];

	if (unlikely(!ptr || !host_load_pair(ptr, word)))
		return NULL;
	if (likely(insn_is(insn, c->key, word[0], word[1])))
		return insn;
	return look_beside(c, number, word[0], word[1]);
}

/* Run one instruction; the result is its own. */
static __always_inline_ enum result run_one(struct cpu *cpu, const struct insn **ret)
{
	const struct insn *insn = look(cpu);
	enum result r;

	if (unlikely(!insn)) {
		r = find(cpu, ret);
		if (r)
			return r;
		insn = *ret;
	}
	*ret = insn;
	cpu->exec->last = insn;
	r = insn->run(cpu, insn);
	fpu_settle(cpu);
	return r;
}

/* ---- around it ---- */

static void rekey(struct cpu *cpu)
{
	cpu->exec->key = decode_key(cpu);
}

static void retire(struct cpu *cpu)
{
	cpu->retired++;
	if (unlikely(cpu->answers.nr))
		cpu->answers.nr = cpu->answers.used = 0;
}

static enum cpu_exit_kind exit_with(struct cpu *cpu, enum cpu_exit_kind kind)
{
	cpu->exit.kind = kind;
	return kind;
}

/* Writes that nobody in the process took leave before anything else happens; a frame's on a stack in MMIO, too. */
static enum cpu_exit_kind writes_first(struct cpu *cpu)
{
	return cpu->out.nr ? exit_with(cpu, CPU_EXIT_WRITES) : CPU_EXIT_NONE;
}

/*
 * KVM takes #UD itself, and its program may come in between: who waits for an answer finds the exception pending. Seen
 * where guests are restricted: what the program makes of the state may keep it from being delivered.
 */
static bool waits(struct cpu *cpu)
{
	if (likely(!cpu->restricted) || cpu->fault.vector != VEC_UD || cpu_guest(cpu) ||
	    !(__atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) & ATTN_REQUEST))
		return false;
	answers_reset(cpu);
	cpu->inject = cpu->fault;
	cpu->inject.pending = true;
	cpu->fault.valid = false;
	cpu->pending_dr6 = 0;
	cpu_update_attention(cpu);
	return true;
}

/* Hand a fault to event delivery. CPU_EXIT_NONE: the handler's first instruction is next. */
static enum cpu_exit_kind deliver(struct cpu *cpu)
{
	struct event ev = cpu->fault;
	enum result r;

	if (waits(cpu))
		return CPU_EXIT_NONE;
	answers_reset(cpu);
	cpu->fault.valid = false;
	r = sys_deliver(cpu, &ev);
	rekey(cpu);
	return r == RESULT_OK || r == RESULT_AGAIN ? writes_first(cpu) : cpu->exit.kind;
}

/* After an instruction: what its result means for the loop. */
static __noinline enum cpu_exit_kind settle(struct cpu *cpu, enum result r)
{
	rekey(cpu);
	switch (r) {
	case RESULT_OK:
	case RESULT_AGAIN:
		if (cpu->out.nr)
			return exit_with(cpu, CPU_EXIT_WRITES);
		if (cpu->answers.nr)
			answers_rewind(cpu); /* it starts anew */
		return CPU_EXIT_NONE;
	case RESULT_FAULT:
		return deliver(cpu);
	case RESULT_STOP:
	case RESULT_EXIT:
		/* An iteration's writes go first; the debugger's exit stays in cpu->exit. */
		if (cpu->out.nr && cpu->exit.kind == CPU_EXIT_DEBUG)
			return CPU_EXIT_WRITES;
		break;
	}
	return cpu->exit.kind;
}

/* An instruction that is not finished matches its breakpoints anew; one that a debugger stops is between two. */
static void unmatch(struct cpu *cpu, uint64_t pending_before)
{
	if (cpu->exit.kind == CPU_EXIT_DEBUG)
		return;
	cpu->pending_dr6 = pending_before;
	if (!pending_before)
		cpu_lower(cpu, ATTN_DEBUG);
}

/* ---- restricted guests ---- */

/* KVM's emulator has interrupts and IRET for real mode only. */
static bool kvm_emulates(const struct cpu *cpu, const struct insn *insn)
{
	bool real = insn->run == emul_int || insn->run == emul_int3 || insn->run == emul_into ||
		    insn->run == emul_iret;

	return insn->flags & INSN_KVM_EMUL && (!real || cpu->mode.real);
}

/* The state is one that KVM emulates, and the instruction one that it does not: #UD is pending, and the program hears of it. */
static __noinline bool given_up(struct cpu *cpu)
{
	const struct insn *insn = cpu_refused(cpu) ? step_peek(cpu) : NULL;

	if (!insn || kvm_emulates(cpu, insn))
		return false;
	fault_ud(cpu);
	cpu->inject = cpu->fault;
	cpu->inject.pending = true;
	cpu->fault.valid = false;
	cpu_update_attention(cpu);
	cpu->exit = (struct cpu_exit){.kind = CPU_EXIT_EMULATION};
	if (cpu->mode.cpl)
		return true;
	cpu->exit.nr_bytes = insn->len;
	__builtin_memcpy(cpu->exit.bytes, insn->bytes, sizeof(cpu->exit.bytes));
	return true;
}

/* One instruction with its retirement; attention bits were up before it. */
static enum cpu_exit_kind step_attended(struct cpu *cpu)
{
	const struct insn *insn = NULL;
	uint64_t old_rip = cpu->rip, pending = cpu->pending_dr6;
	bool had_tf = cpu->sflags & FLAG_TF;
	uint8_t old_shadow = cpu->shadow;
	enum cpu_exit_kind kind;
	enum result r, after;

	answers_rewind(cpu);
	if (unlikely(cpu->restricted) && given_up(cpu))
		return CPU_EXIT_EMULATION;
	r = run_one(cpu, &insn);
	if (r == RESULT_EXIT)
		unmatch(cpu, pending);
	kind = settle(cpu, r);
	if (r != RESULT_OK && r != RESULT_STOP)
		return kind;
	retire(cpu);
	if (cpu_lbr(cpu) && insn_branched(cpu, insn))
		sys_record_branch(cpu, old_rip);
	after = sys_retire(cpu, old_rip, had_tf, old_shadow);
	if (after == RESULT_FAULT)
		return deliver(cpu);
	if (after == RESULT_STOP || after == RESULT_EXIT)
		return kind ? kind : cpu->exit.kind;
	return kind;
}

static inline bool attention(const struct cpu *cpu)
{
	return __atomic_load_n(&cpu->attention, __ATOMIC_RELAXED);
}

/* Attention bits are up: serve them, then step once if some stay: else the instruction is like any other. */
static __noinline enum cpu_exit_kind attend(struct cpu *cpu)
{
	enum result r;

	if (cpu->attention & ATTN_CODE)
		codemap_follow(cpu);
	if (unlikely(cpu_at_limit(cpu)))
		cpu_raise(cpu, ATTN_LIMIT);
	r = sys_attend(cpu);
	rekey(cpu);
	if (r == RESULT_AGAIN || (r == RESULT_OK && cpu->out.nr))
		return writes_first(cpu);
	if (r == RESULT_OK && !attention(cpu) && !cpu->answers.nr)
		return CPU_EXIT_NONE;
	return r == RESULT_OK ? step_attended(cpu) : settle(cpu, r);
}

static inline bool postponed(const struct cpu *cpu)
{
	return cpu->answers.nr | cpu->out.nr;
}

/* No attention bit was up before the instruction, so no trap was pending. */
enum cpu_exit_kind step_settle(struct cpu *cpu, enum result r)
{
	if (r == RESULT_OK || r == RESULT_STOP)
		retire(cpu);
	if (r == RESULT_EXIT)
		unmatch(cpu, 0);
	return settle(cpu, r);
}

/* Steps, until one of them needs more than the loop itself. */
static enum cpu_exit_kind run_steps(struct cpu *cpu)
{
	const struct insn *insn;
	enum result r;

	while (likely(!attention(cpu) && !cpu_at_limit(cpu))) {
		r = run_one(cpu, &insn);
		if (likely(r == RESULT_OK && insn->flags & INSN_PLAIN && !postponed(cpu))) {
			cpu->retired++;
			continue;
		}
		return step_settle(cpu, r);
	}
	return attend(cpu);
}

/* ---- for the run tempo ---- */

enum cpu_exit_kind step_once(struct cpu *cpu)
{
	const struct insn *insn;

	if (attention(cpu) || cpu_at_limit(cpu))
		return attend(cpu);
	return step_settle(cpu, run_one(cpu, &insn));
}

const struct insn *step_peek(struct cpu *cpu)
{
	const struct insn *insn = look(cpu);

	return insn || find(cpu, &insn) == RESULT_OK ? insn : NULL;
}

enum cpu_exit_kind step_blind(struct cpu *cpu)
{
	const struct insn *insn;

	return attention(cpu) ? step_attended(cpu) : step_settle(cpu, run_one(cpu, &insn));
}

enum result step_bare(struct cpu *cpu)
{
	const struct insn *insn;
	enum result r = run_one(cpu, &insn);

	if (r == RESULT_OK || r == RESULT_STOP)
		retire(cpu);
	return r;
}

/* ---- from outside ---- */

/* A thread's preparations, and the caller's state back at the end. */
static bool enter(struct cpu *cpu)
{
	if (host_fault_thread_init()) {
		exit_with(cpu, CPU_EXIT_INTERNAL);
		return false;
	}
	cpu->exit.kind = CPU_EXIT_NONE;
	answers_rewind(cpu);
	codemap_enter(cpu);
	mmu_update_mode(cpu);
	rekey(cpu);
	return true;
}

static void leave(struct cpu *cpu)
{
	codemap_exit(cpu);
	fpu_save(cpu);
}

enum cpu_exit_kind cpu_run(struct cpu *cpu)
{
	enum cpu_exit_kind kind = CPU_EXIT_NONE;

	if (!enter(cpu))
		return CPU_EXIT_INTERNAL;
	if (cpu->exec->run)
		kind = run_loop(cpu);
	while (!kind)
		kind = run_steps(cpu);
	leave(cpu);
	return kind;
}

/* True while answers wait for the instruction at RIP. */
static bool instruction_open(const struct cpu *cpu)
{
	return cpu->answers.nr && cpu->answers.rip == cpu->rip;
}

/* An event whose delivery asked outside comes before the instruction at RIP. */
static enum cpu_exit_kind finish(struct cpu *cpu)
{
	enum result r;

	if (!cpu->inject.valid)
		return step_attended(cpu);
	r = sys_inject(cpu);
	rekey(cpu);
	return r == RESULT_OK || r == RESULT_AGAIN ? writes_first(cpu) : cpu->exit.kind;
}

enum cpu_exit_kind cpu_complete(struct cpu *cpu)
{
	enum cpu_exit_kind kind = CPU_EXIT_NONE;

	if (!instruction_open(cpu))
		return CPU_EXIT_NONE;
	if (!enter(cpu))
		return CPU_EXIT_INTERNAL;
	while (!kind && instruction_open(cpu))
		kind = finish(cpu);
	leave(cpu);
	return kind;
}

enum result cpu_step_bare(struct cpu *cpu)
{
	enum result r;

	if (!enter(cpu)) {
		cpu->exit.kind = CPU_EXIT_INTERNAL;
		return RESULT_EXIT;
	}
	r = cpu->exec->run ? run_bare(cpu) : step_bare(cpu);
	leave(cpu);
	return r;
}
