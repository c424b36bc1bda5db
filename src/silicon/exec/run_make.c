/* SPDX-License-Identifier: MIT */
/*
 * Making the run tempo (run.h): its memory, the stubs that all blocks share, host faults in blocks.
 *
 * Guest registers in translated code: rcx is in r12, rsp in r13, r12 to r15 in the frame, the others in their
 * namesakes. rcx, r14 and r15 are free, rsp is the host's stack. Arithmetic flags are in the host's.
 */
#include "silicon/exec/exec.h"
#include "silicon/exec/lockstep.h"
#include "silicon/exec/run_translate.h"
#include "silicon/mmu/tlb.h"
#include "silicon/mmu/codemap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#define HWCAP2_FSGSBASE_BIT BIT(1)
#define FRAME		    (8 * EMIT_SLOTS + 8)

static const struct {
	uint8_t host, guest;
} pinned[] = {{RAX, RAX}, {RDX, RDX}, {RBX, RBX}, {RBP, RBP}, {RSI, RSI}, {RDI, RDI},
	      {R8, R8},	  {R9, R9},   {R10, R10}, {R11, R11}, {R12, RCX}, {R13, RSP}};

/* What of struct cpu stands in the frame meanwhile. */
static const struct {
	uint8_t slot;
	uint16_t offset;
} framed[] = {
	{EMIT_SLOT_GPR, 8 * R12},
	{EMIT_SLOT_GPR + 1, 8 * R13},
	{EMIT_SLOT_GPR + 2, 8 * R14},
	{EMIT_SLOT_GPR + 3, 8 * R15},
	{EMIT_SLOT_RETIRED, offsetof(struct cpu, retired)},
};

_Static_assert(EMIT_SLOT_GPR == RUN_SLOTS, "behind the slots of groups");
_Static_assert(offsetof(struct cpu, retired) <= 0xffff, "fits framed[]");

static const uint8_t callee_saved[] = {RBX, RBP, R12, R13, R14, R15};

/* ---- stubs ---- */

static void emit_spill(struct emit *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(pinned); i++)
		emit_store_cpu(e, pinned[i].host, 8 * pinned[i].guest);
	for (unsigned i = 0; i < ARRAY_SIZE(framed); i++) {
		emit_load_slot(e, RCX, framed[i].slot);
		emit_store_cpu(e, RCX, framed[i].offset);
	}
	EMIT(e, "\x9f\x0f\x90\xc0\x0f\xb7\xc0"); /* lahf; seto %al; movzwl %ax,%eax */
	emit_store_cpu(e, RAX, offsetof(struct cpu, aflags));
}

static void emit_resume(struct emit *e, const struct run *run)
{
	for (unsigned i = 0; i < ARRAY_SIZE(framed); i++) {
		emit_load_cpu(e, RAX, framed[i].offset);
		emit_store_slot(e, RAX, framed[i].slot);
	}
	emit_load_cpu(e, RAX, offsetof(struct cpu, aflags));
	EMIT(e, "\x04\x7f\x9e"); /* add $0x7f,%al; sahf */
	for (unsigned i = 0; i < ARRAY_SIZE(pinned); i++)
		emit_load_cpu(e, pinned[i].host, 8 * pinned[i].guest);
	emit_abs(e, 0x40, 0xff, 4, emit_low(&run->target)); /* jmp *target */
}

static void emit_pushes(struct emit *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(callee_saved); i++) {
		if (callee_saved[i] >= 8)
			emit8(e, 0x41);
		emit8(e, 0x50 | (callee_saved[i] & 7));
	}
	EMIT(e, "\x48\x81\xec"); /* sub $,%rsp: aligned for run_cold() */
	emit32(e, FRAME);
}

static void emit_return(struct emit *e)
{
	EMIT(e, "\x48\x81\xc4"); /* add $,%rsp */
	emit32(e, FRAME);
	for (int i = ARRAY_SIZE(callee_saved) - 1; i >= 0; i--) {
		if (callee_saved[i] >= 8)
			emit8(e, 0x41);
		emit8(e, 0x58 | (callee_saved[i] & 7));
	}
	emit8(e, 0xc3);
}

/* ecx: the site. What run_cold() returns is where to go on; NULL: leave. */
static void emit_cold(struct emit *e, const struct run *run)
{
	EMIT(e, "\x41\x89\xce"); /* mov %ecx,%r14d */
	emit_spill(e);
	emit_mov_imm(e, RDI, (uintptr_t)run->cpu);
	EMIT(e, "\x44\x89\xf6\x48\x89\xe2"); /* mov %r14d,%esi; mov %rsp,%rdx */
	emit_mov_imm(e, RAX, (uintptr_t)run_cold);
	EMIT(e, "\xff\xd0\x48\x85\xc0\x75"); /* call *%rax; test %rax,%rax; jnz over the return */
	emit8(e, 0);
	uint8_t *from = e->at;
	emit_return(e);
	from[-1] = e->at - from;
	emit_abs(e, 0x48, 0x89, RAX, emit_low(&run->target));
	emit_resume(e, run);
}

/* What C may use, and who calls it has to keep. */
static const struct {
	uint8_t host, guest;
} volatiles[] = {{RAX, RAX}, {RDX, RDX}, {RSI, RSI}, {RDI, RDI}, {R8, R8},
		 {R9, R9},   {R10, R10}, {R11, R11}, {R12, RCX}};

/*
 * A short way to C, called: rcx is 0 if all is done, else the site's cold path is to go on. It is given the guest's flags and
 * the registers that it may change, and gives them back.
 */
static void emit_span(struct emit *e, const struct run *run, unsigned what)
{
	for (unsigned i = 0; i < ARRAY_SIZE(volatiles); i++)
		emit_store_cpu(e, volatiles[i].host, 8 * volatiles[i].guest);
	EMIT(e, "\x9f\x0f\x90\xc0\x0f\xb7\xc0"); /* lahf; seto %al; movzwl %ax,%eax */
	emit_store_cpu(e, RAX, offsetof(struct cpu, aflags));
	emit_mov_imm(e, RDI, (uintptr_t)run->cpu);
	emit_mov_imm(e, RSI, what);
	emit_mov_imm(e, RAX, (uintptr_t)run_string_span);
	EMIT(e,
	     "\x48\x83\xec\x08\xff\xd0\x48\x83\xc4\x08"); /* sub $8,%rsp; call *%rax; add $8,%rsp */
	EMIT(e, "\x0f\xb6\xc8");			  /* movzbl %al,%ecx */
	emit_load_cpu(e, RAX, offsetof(struct cpu, aflags));
	EMIT(e, "\x04\x7f\x9e"); /* add $0x7f,%al; sahf */
	for (unsigned i = 0; i < ARRAY_SIZE(volatiles); i++)
		emit_load_cpu(e, volatiles[i].host, 8 * volatiles[i].guest);
	emit8(e, 0xc3);
}

/* From a lookup: its caller's site is where it would have returned to. */
static void emit_miss(struct emit *e, const struct run *run)
{
	EMIT(e, "\x59"); /* pop %rcx */
	emit_mov_imm(e, R15, -(uint64_t)run->code.rx);
	emit_mem(e, 0x40, 0x8d, RCX, RCX, R15, 0, (int32_t)RUN_SITE_AT);
	emit_jmp(e, run->stub_cold);
}

/* From an exit that leads nowhere: which one it is, the address tells. */
static void emit_left(struct emit *e, const struct run *run)
{
	EMIT(e, "\x59"); /* pop %rcx */
	emit_mov_imm(e, R15, -(uint64_t)run->code.rx);
	emit_mem(e, 0x40, 0x8d, RCX, RCX, R15, 0, (int32_t)LEAVE_CALL << LEAVE_SHIFT);
	emit_jmp(e, run->stub_leave);
}

/* Emit what all blocks share. */
static void make_stubs(struct run *run)
{
	struct emit e = {.at = run->code.rw, .base = run->code.rw};

	run->stub_enter = emit_pos(&e);
	emit_pushes(&e);
	emit_abs(&e, 0x48, 0x89, RDI, emit_low(&run->target));
	emit_resume(&e, run);
	run->stub_leave = emit_pos(&e);
	emit_abs(&e, 0x40, 0x89, RCX, emit_low(&run->leave));
	emit_spill(&e);
	emit_return(&e);
	run->stub_cold = emit_pos(&e);
	emit_cold(&e, run);
	for (unsigned i = 0; i < RUN_SPANS; i++) {
		run->stub_span[i] = emit_pos(&e);
		emit_span(&e, run, i);
	}
	run->stub_miss = emit_pos(&e);
	emit_miss(&e, run);
	run->stub_exit = emit_pos(&e);
	emit_left(&e, run);
	run->stub_gone = emit_pos(&e);
	emit_mov_imm(&e, R15, RUN_HEAD_SHIFT);
	EMIT(&e, "\xc4\xe2\x03\xf7\xc9"); /* shrx %r15d,%ecx,%ecx */
	emit_jmp(&e, run->stub_leave);
	run->stub_rip = emit_pos(&e);
	emit_store_cpu(&e, R14, offsetof(struct cpu, rip));
	emit_mov_imm(&e, RCX, (uint32_t)LEAVE_RIP << LEAVE_SHIFT);
	emit_jmp(&e, run->stub_leave);
	run->first = run->used = ALIGN_UP(emit_pos(&e), 64);
}

/* ---- host faults ---- */

static uint32_t stub_cold_of(const struct run *run, const struct run_block *b)
{
	return b->homes ? run_block_cross(b) - RUN_HEAD_LEAVE - RUN_HOMES_STUB : run->stub_cold;
}

/*
 * In the signal handler: nothing of the instruction is committed, so let its handler run it again. An access that
 * waits will wait in the handler, where it can be called out of.
 */
static bool run_fixup(void *opaque, const struct host_trap *trap, ucontext_t *uc)
{
	struct run *run = opaque;
	uint32_t offset = trap->rip - (uint64_t)run->code.rx, number;
	struct run_site site;

	if (trap->rip - (uint64_t)run->code.rx >= run->used || offset < run->first ||
	    !run->nr_blocks)
		return false;
	number = run_site_at(run, offset);
	site = run_site_get(run, number);
	if (site.flags & SITE_STRING) {
		if (!run_string_fixup(run, &site, offset, uc))
			return false;
	} else if (trap->signo == HOST_RESTART && (!site.last || offset - site.code > site.last)) {
		return false;
	}
	uc->uc_mcontext.gregs[REG_RCX] = number;
	uc->uc_mcontext.gregs[REG_RIP] =
		(uint64_t)run->code.rx + stub_cold_of(run, &run->block[number >> RUN_SITE_BITS]);
	return true;
}

/* ---- forgetting ---- */

/* Not those of a new vCPU, which are empty: their memory would be there before there is any use for it. */
static void clear_tables(struct run *run)
{
	if (run->nr_blocks)
		memset(run->block_table, 0, sizeof(uint32_t) << run->block_bits);
	if (run->nr_pages)
		memset(run->page_table, 0, sizeof(run->page_table));
	memset(run->cold_site, 0, sizeof(run->cold_site));
}

void run_flush(struct run *run)
{
	run->grown_at = run->cpu->retired;
	clear_tables(run);
	run_jumps_clear(run);
	direct_code_clear(run->cpu);
	for (unsigned i = 0; i < RUN_KEYS; i++)
		run->stubs[i].made = false;
	run->nr_near = run->nr_over = run->nr_groups = run->nr_sites = run->nr_blocks =
		run->nr_exits = run->nr_pages = run->nr_lines = 0;
	run->nr_keys = run->nr_aliased = run->nr_open = run->nr_traces = 0;
	for (unsigned i = 0; i < RUN_PARTS; i++) {
		run->part[i].nr_fresh = 0;
		for (unsigned k = 0; k < DIRECT_CONTEXTS; k++)
			run->part[i].saved[k].nr = 0;
	}
	memset(run->filter, 0, sizeof(run->filter));
	run->used = run->settled = run->first;
	run->leave = LEAVE_COLD << LEAVE_SHIFT;
	run->seen_drops = run->cpu->exec->nr_drops;
	run->count[COUNT_FLUSH]++;
}

void exec_forget(struct cpu *cpu)
{
	if (cpu->exec->run)
		run_flush(cpu->exec->run);
}

#define NR_COLD_OF (2 * (ZYDIS_MNEMONIC_MAX_VALUE + 1))

/* The most frequent cold paths by mnemonic. */
static void say_cold(struct run *run)
{
	for (unsigned line = 0; line < 40; line++) {
		unsigned most = 0;

		for (unsigned i = 0; i < NR_COLD_OF; i++)
			if (run->nr_cold_of[i] > run->nr_cold_of[most])
				most = i;
		host_log("run: %s %s %u", most & 1 ? "callout" : "miss",
			 ZydisMnemonicGetString(most / 2), (unsigned)run->nr_cold_of[most]);
		run->nr_cold_of[most] = 0;
	}
}

static void say_counters(const struct run *run)
{
	static const char *const names[NR_COUNTS] = {
		[COUNT_HEAD] = "entered stale or after attention",
		[COUNT_EXIT] = "entered by an exit",
		[COUNT_CROSS] = "entered by an exit to another page",
		[COUNT_RIP] = "entered by an indirect branch",
		[COUNT_COLD] = "entered otherwise",
		[COUNT_TAKEN] = "jumps whose place was taken",
		[COUNT_COMPARE] = "pages compared",
		[COUNT_LINES] = "lines compared",
		[COUNT_DROP] = "pages changed",
		[COUNT_EPOCH] = "epochs",
		[COUNT_CALLED] = "cold paths",
		[COUNT_DECODED] = "instructions decoded again",
		[COUNT_STEPPED] = "instructions stepped",
		[COUNT_BLOCK] = "blocks translated",
		[COUNT_TRACE] = "traces translated",
		[COUNT_PLAIN] = "plain blocks translated",
		[COUNT_FLUSH] = "flushes",
		[COUNT_GROW] = "growths",
		[COUNT_BACK] = "growths given back",
	};

	if (run->cpu)
		host_log("run: %lu instructions retired", (unsigned long)run->cpu->retired);
	for (unsigned i = 0; i < NR_COUNTS; i++)
		host_log("run: %s %lu", names[i], (unsigned long)run->count[i]);
	host_log("run: blocks %u, sites %u, exits %u, code %u, pages %u", run->nr_blocks,
		 run->nr_sites, run->nr_exits, run->used, run->nr_pages);
}

static void say_tlb(const struct tlb *tlb)
{
	const struct tlb_counters *c = &tlb->count;

	host_log("run: TLB of %s: %lu walks, %lu second stages, %lu filled, %lu refilled",
		 tlb->guest ? "guests" : "the processor", c->walks, c->stage2, c->fills,
		 c->refills);
	host_log("run:   went to %lu worlds, %lu PCIDs, %lu were new; flushed %lu halves",
		 c->worlds, c->contexts, c->taken, c->halves);
}

/* NULL: it was destroyed. */
static void say_tlbs(const struct cpu *cpu)
{
	if (!cpu)
		return;
	say_tlb(cpu->tlb);
	if (cpu->tlb->other)
		say_tlb(cpu->tlb->other);
}

/* Programs end without freeing their vCPUs. */
static void say_at_exit(int status, void *opaque)
{
	struct run *run = opaque;

	say_counters(run);
	say_tlbs(run->cpu);
	say_cold(run);
}

void run_perf_note(struct run *run, uint32_t block)
{
	const struct run_block *b = &run->block[block];

	if (run->perf)
		fprintf(run->perf, "%lx %x guest_%lx_%u\n",
			(long)(run->code.rx + run_block_cross(b)), run->used - run_block_cross(b),
			b->rip, (run->nr_sites - b->site) / (b->brief ? 1 : 2));
}

static void open_perf_map(struct run *run)
{
	char name[32];

	snprintf(name, sizeof(name), "/tmp/perf-%d.map", getpid());
	run->perf = fopen(name, "we");
	run->nr_cold_of = calloc(NR_COLD_OF, sizeof(*run->nr_cold_of));
	if (run->perf && run->nr_cold_of)
		on_exit(say_at_exit, run);
}

static bool make_code(struct run *run)
{
	size_t size = run->opt.code_size ? run->opt.code_size : (size_t)run->most * RUN_MIB;

	if (host_code_alloc(&run->code, size))
		return false;
	make_stubs(run);
	return !host_fault_range_add(run->code.rx, run->code.size, run_fixup, run);
}

void run_destroy(struct run *run)
{
	if (!run)
		return;
	if (run->code.rx)
		host_fault_range_remove(run->code.rx);
	host_code_free(&run->code);
	run_tables_free(run);
	lockstep_destroy(run->lockstep);
	run->cpu = NULL;
	if (!run->perf)
		munmap(run, sizeof(*run)); /* else it is looked at when the program ends */
}

/* The TLB's, and those of guest mode's own, which can be done without. */
static bool make_direct(struct run *run)
{
	struct tlb *tlb = run->cpu->tlb;

	if (!tlb->direct)
		tlb->direct = direct_create(NULL);
	if (tlb->direct && tlb->other && !tlb->other->direct)
		tlb->other->direct = direct_create(tlb->direct);
	if (tlb->other && !tlb->other->direct)
		tlb_remove_guest(tlb);
	return tlb->direct;
}

static void set_two_pages(struct run *run)
{
	struct tlb *tlb = run->cpu->tlb;

	tlb->two_pages = run->opt.two_pages;
	if (tlb->other)
		tlb->other->two_pages = run->opt.two_pages;
}

static bool host_has_bmi2(void)
{
	uint32_t r[4];

	host_cpuid(7, 0, r);
	return r[1] & BIT(8);
}

int exec_enable_run(struct cpu *cpu, const struct run_options *opt)
{
	struct run *run;

	if (!host_has_bmi2())
		return -ENOTSUP;
	run = host_low_alloc(sizeof(*run));
	if (!run)
		return -ENOMEM;
	run->cpu = cpu;
	run->opt = *opt;
	run->opt.fsgsbase = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT;
	run->page_mask = PAGE_MASK;
	run->no_if = ~FLAG_IF;
	run->no_df = ~FLAG_DF;
	for (unsigned i = 0; i < ARRAY_SIZE(run->bit_mask); i++)
		run->bit_mask[i] = BIT(3 + i) - 1;
	run->only_if = FLAG_IF;
	run->only_df = FLAG_DF;
	run->no_count = ~(uint64_t)RUN_COUNT_MAX;
	run->only_smap = CR4_SMAP;
	run->only_tsd = CR4_TSD;
	run_masks_init(&run->masks);
	run->sign = BIT(63);
	run->half_shift[0] = run->half_shift[1] = 63;
	if (!make_direct(run) || !run_tables_make(run) || !make_code(run)) {
		run_destroy(run);
		return -ENOMEM;
	}
	run->jump_mask = (BIT(run->jump_bits) - 1) * sizeof(run->jumps->to[0]);
	for (unsigned i = 0; i < run->nr_keys_most; i++)
		run->jumps[i].to[0].neg = RUN_NO_JUMP;
	if (run->opt.perf)
		open_perf_map(run);
	set_two_pages(run);
	if (run->opt.lockstep && lockstep_create(run)) {
		run_destroy(run);
		return -ENOMEM;
	}
	cpu->exec->run = run;
	return 0;
}

/* ---- settings by name ---- */

static void want_lockstep(struct run_options *opt)
{
	opt->lockstep = true;
}

static void want_perf(struct run_options *opt)
{
	opt->perf = true;
}

static void want_hot(struct run_options *opt)
{
	opt->threshold = 1;
	opt->hot = 1;
}

static void want_bare(struct run_options *opt)
{
	want_hot(opt);
	opt->chain = false;
}

static void want_single(struct run_options *opt)
{
	want_bare(opt);
	opt->hot = 0;
	opt->max_insns = 1;
}

static void want_two_pages(struct run_options *opt)
{
	opt->two_pages = true;
}

static void want_little_code(struct run_options *opt)
{
	opt->code_size = 1 << 20;
}

static void want_nothing(struct run_options *opt)
{
}

static const struct {
	const char *name;
	bool tempo; /* the first word */
	void (*set)(struct run_options *opt);
} words[] = {
	{"run", true, want_nothing},	      {"lockstep", true, want_lockstep},
	{"perf", false, want_perf},	      {"bare", false, want_bare},
	{"single", false, want_single},	      {"tlb2", false, want_two_pages},
	{"cache1m", false, want_little_code}, {"hot", false, want_hot},
};

static bool take_word(const char *word, size_t len, bool first, struct run_options *opt)
{
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		if (words[i].tempo != first || strlen(words[i].name) != len ||
		    memcmp(words[i].name, word, len))
			continue;
		words[i].set(opt);
		return true;
	}
	return false;
}

static bool options_of(const char *tempo, struct run_options *ret)
{
	const char *word = tempo;
	bool good = true;

	*ret = (struct run_options){
		.chain = true, .threshold = 2, .max_insns = RUN_BLOCK_INSNS, .hot = RUN_HOT};
	while (good) {
		size_t len = strcspn(word, ",");

		good = take_word(word, len, word == tempo, ret);
		if (!word[len])
			break;
		word += len + 1;
	}
	return good;
}

static bool is_step(const char *tempo)
{
	return !tempo || !strcmp(tempo, "step");
}

bool exec_tempo_known(const char *tempo)
{
	struct run_options opt;

	return is_step(tempo) || options_of(tempo, &opt);
}

int exec_set_tempo(struct cpu *cpu, const char *tempo)
{
	struct run_options opt;
	int r;

	if (is_step(tempo)) {
		cache_large_pages(cpu->exec);
		return 0;
	}
	if (!options_of(tempo, &opt))
		return -EINVAL;
	r = exec_enable_run(cpu, &opt);
	return r == -ENOTSUP || r == -ENOMEM ? 0 : r;
}
