/* SPDX-License-Identifier: MIT */
/*
 * Random guest code on the flat machine, in every mode: guest_code [SECONDS [SEED]].
 * ANYKVM_TEMPO=run,bare compares that tempo with step, too.
 *
 * A case is a seed: mode, registers, tables and code follow from it, so a failure is run again by
 * `guest_code 0 SEED`. Checked: RAM's surroundings stay as they were, the state is one that silicon can be
 * in, only exits that a guest can cause come back, and the case runs to the same state when it is
 * left and entered again before every instruction. A case that neither ends nor is ended is a
 * hang: the alarm prints its seed.
 */
#include "../guest/flat.h"
#include "fuzz.h"
#include "guest_make.h"
#include "silicon/exec/exec.h"
#include "silicon/models/features.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM	    MAKE_RAM
#define CANARY	    0x4000ul
#define CANARY_BYTE 0xa5
#define STEPS	    600 /* looks at the attention bits per case */

static uint8_t *arena; /* canary, RAM, canary */
static uint64_t current_seed;
static uint64_t counts[32]; /* by exit kind */

/* ---- the machine ---- */

static uint64_t answer(uint64_t addr)
{
	return mix(addr);
}

static enum platform_answer mmio_read(void *opaque, gpa_t gpa, unsigned size, uint64_t *ret)
{
	if (gpa - FLAT_DEVICE >= FLAT_MMIO_SIZE)
		return PLATFORM_USER;
	*ret = answer(gpa) & (~0ull >> (64 - 8 * size));
	return PLATFORM_DONE;
}

static enum platform_answer mmio_write(void *opaque, gpa_t gpa, unsigned size, uint64_t val)
{
	return gpa - FLAT_DEVICE < FLAT_MMIO_SIZE ? PLATFORM_DONE : PLATFORM_USER;
}

static enum platform_answer pio_read(void *opaque, uint16_t port, unsigned size, uint64_t *ret)
{
	if (port & 1)
		return PLATFORM_USER;
	*ret = answer(port) & (~0ull >> (64 - 8 * size));
	return PLATFORM_DONE;
}

static enum platform_answer pio_write(void *opaque, uint16_t port, unsigned size, uint64_t val)
{
	return port & 1 ? PLATFORM_USER : PLATFORM_DONE;
}

static unsigned looks;
static bool look_always; /* before every instruction, which is too often for blocks */
static bool leave_always;
static volatile bool timed_out;
static struct cpu *running;

static bool service(void *opaque)
{
	if (look_always)
		cpu_raise(((struct flat *)opaque)->cpu, ATTN_REQUEST);
	return ++looks > STEPS || leave_always || timed_out;
}

static uint64_t tsc(void *opaque)
{
	return 0x1234567890;
}

static void random_segments(struct cpu *cpu, struct rng *r)
{
	for (unsigned i = 0; i < NR_SEGS; i++) {
		if (i == SEG_CS || i == SEG_SS || !one_in(r, 8))
			continue;
		cpu->seg[i].base = i < SEG_LDTR && !cpu->mode.lma ? (uint32_t)make_edge(r)
								  : make_edge(r);
		if (one_in(r, 2))
			cpu->seg[i].limit = make_value(r);
	}
	if (one_in(r, 10))
		cpu->seg[SEG_SS].base = cpu->mode.lma ? 0 : (uint32_t)make_edge(r);
	if (one_in(r, 10))
		cpu->seg[SEG_SS].limit = make_value(r);
	if (one_in(r, 20))
		cpu->gdtr = (struct dtable){.base = make_edge(r), .limit = make_value(r)};
	if (one_in(r, 20))
		cpu->idtr = (struct dtable){.base = make_edge(r), .limit = make_value(r)};
}

static void random_tables(struct flat *f, struct rng *r)
{
	static const uint64_t at[] = {FLAT_GDT,	   FLAT_IDT, FLAT_TSS,
				      FLAT_TABLES, FLAT_IVT, FLAT_TABLES + 0x1000};
	unsigned n = one_in(r, 2) ? 0 : below(r, 24);

	while (n--)
		flat_poke(f, at[below(r, ARRAY_SIZE(at))] + below(r, 0x800), make_value(r),
			  1 << below(r, 4));
	n = one_in(r, 2) ? 0 : below(r, 8);
	while (n--) /* whole page-table entries, present most of the time */
		flat_poke(f, FLAT_TABLES + 8 * below(r, 0xc00),
			  (make_edge(r) & ~0xfffull) | (rnd(r) & 0xfff) | PTE_P, 8);
}

static void random_registers(struct flat *f, struct rng *r)
{
	struct cpu *cpu = f->cpu;

	for (unsigned i = 0; i < NR_GPRS; i++)
		if (i != RSP || one_in(r, 8))
			cpu->gpr[i] = make_value(r);
	cpu_set_rflags(cpu, (rnd(r) & (FLAGS_ARITH | FLAG_DF | FLAG_AC | FLAG_NT | FLAG_ID)) |
				    (one_in(r, 6) ? FLAG_IF : 0) | (one_in(r, 10) ? FLAG_TF : 0) |
				    (one_in(r, 4) ? FLAG_IOPL : 0));
	if (one_in(r, 6))
		cpu->cr4 |= rnd(r) & (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_OSFXSR | CR4_UMIP |
				      CR4_FSGSBASE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP | CR4_PCE);
	else
		cpu->cr4 |= CR4_OSFXSR | CR4_OSXSAVE | CR4_OSXMMEXCPT;
	if (one_in(r, 2))
		cpu->xcr0 = cpu->xcr0_allowed;
	if (one_in(r, 6))
		cpu->cr0 |= rnd(r) & (CR0_MP | CR0_EM | CR0_TS | CR0_WP | CR0_AM);
	if (one_in(r, 8)) {
		cpu->dr7 = (rnd(r) & DR7_VOLATILE & ~DR7_GD) | DR7_FIXED_1;
		for (unsigned i = 0; i < 4; i++)
			cpu->dr[i] = one_in(r, 2) ? FLAT_CODE + below(r, MAKE_BYTES) : make_edge(r);
	}
	f->interrupt = one_in(r, 4) ? (int)below(r, 256) : -1;
	if (one_in(r, 10))
		cpu->nmi_pending = true;
}

static void go_to_v86(struct flat *f)
{
	struct cpu *cpu = f->cpu;

	cpu->sflags |= FLAG_VM;
	for (enum seg_id id = SEG_ES; id <= SEG_GS; id++)
		cpu->seg[id] = (struct segment){.limit = 0xffff, .attr = 0xf3};
	cpu_update_mode(cpu);
}

static void flat_v86(struct flat *f)
{
	flat_paging32(f);
	go_to_v86(f);
}

static void (*const modes[])(struct flat *) = {
	flat_real, flat_prot16, flat_prot32, flat_paging32, flat_pae,	 flat_long,
	flat_long, flat_long,	flat_long,   flat_long,	    flat_compat, flat_v86,
};

static void settle(struct flat *f)
{
	struct cpu *cpu = f->cpu;

	cpu_update_mode(cpu);
	cpu_update_access(cpu);
	cpu_update_attention(cpu);
	mmu_update_mode(cpu);
	mmu_flush_all(cpu);
	cpu_raise(cpu, ATTN_REQUEST | ATTN_EVENTS | (cpu->nmi_pending ? ATTN_NMI : 0));
}

/* Where code runs from: its usual place, the end of RAM, elsewhere. */
static void place_code(struct flat *f, struct rng *r, const struct code *c)
{
	uint64_t at = FLAT_CODE;

	if (one_in(r, 16))
		at = RAM - 1 - below(r, 24);
	else if (one_in(r, 16))
		at = FLAT_CODE + 0x1000 - below(r, 20);
	flat_write(f, at, c->v, min((uint64_t)c->nr, RAM - at));
	f->cpu->rip = f->cpu->mode.real || f->cpu->mode.v86 ? (uint16_t)at : at;
	if (one_in(r, 40))
		f->cpu->rip = f->cpu->mode.code == CODE_64 ? make_edge(r) : (uint32_t)make_edge(r);
	if (f->cpu->mode.code == CODE_64 && !gva_canonical(f->cpu, f->cpu->rip))
		f->cpu->rip = at;
	memcpy(f->rom, c->v, min(c->nr, 4096u));
}

/* Handlers that skip nothing, but return; after an error code's pop or not. */
static void handlers_return(struct flat *f, struct rng *r)
{
	for (unsigned vector = 0; vector < 256; vector++)
		flat_poke(f, FLAT_HANDLERS + 16 * vector, one_in(r, 2) ? 0xcf : 0xcf4858, 4);
}

static void handlers_in_code(struct flat *f, struct rng *r)
{
	for (unsigned vector = 0; vector < 256; vector++)
		if (one_in(r, 2))
			flat_gate(f, vector, FLAT_CODE + below(r, MAKE_BYTES), below(r, 4));
}

static void begin(struct flat *f, uint64_t seed, struct platform *p)
{
	struct rng r = {.state = seed};
	struct code code = {0};
	unsigned mode = below(&r, ARRAY_SIZE(modes));

	memset(arena, CANARY_BYTE, CANARY);
	memset(arena + CANARY + RAM, CANARY_BYTE, CANARY);
	memset(arena + CANARY, 0, RAM);
	*p = *f->cpu->platform;
	p->mmio_read = mmio_read;
	p->mmio_write = mmio_write;
	p->pio_read = pio_read;
	p->pio_write = pio_write;
	p->service = service;
	p->tsc = tsc;
	f->cpu->platform = p;
	modes[mode](f);
	make_code(&code, &r);
	if (one_in(&r, 3))
		handlers_in_code(f, &r);
	else if (one_in(&r, 2))
		handlers_return(f, &r);
	if (!f->cpu->mode.real && !f->cpu->mode.v86 && mode != 1 && one_in(&r, 3))
		flat_user(f);
	place_code(f, &r, &code);
	random_registers(f, &r);
	random_segments(f->cpu, &r);
	random_tables(f, &r);
	settle(f);
}

/* ---- what must hold ---- */

static void fail(const char *what)
{
	fprintf(stderr, "guest_code: %s: run `guest_code 0 %#llx`\n", what,
		(unsigned long long)current_seed);
	abort();
}

static void check_canaries(void)
{
	for (unsigned i = 0; i < CANARY; i++)
		if (arena[i] != CANARY_BYTE || arena[CANARY + RAM + i] != CANARY_BYTE)
			fail("a write beside RAM");
}

#define HOLDS(what, cond)           \
	do {                        \
		if (!(cond))        \
			fail(what); \
	} while (0)

static void check_control(const struct cpu *cpu)
{
	bool pg = cpu->cr0 & CR0_PG, lme = cpu->msr.efer & EFER_LME;

	HOLDS("PG without PE", !pg || (cpu->cr0 & CR0_PE));
	HOLDS("NW without CD", !(cpu->cr0 & CR0_NW) || (cpu->cr0 & CR0_CD));
	HOLDS("upper half of CR0", !(cpu->cr0 >> 32));
	HOLDS("LMA is not LME and PG", !!(cpu->msr.efer & EFER_LMA) == (pg && lme));
	HOLDS("long mode without PAE", !cpu->mode.lma || (cpu->cr4 & CR4_PAE));
	HOLDS("CR4 has reserved bits", !(cpu->cr4 & cpu->cr4_reserved));
	HOLDS("PCIDE outside long mode", !(cpu->cr4 & CR4_PCIDE) || cpu->mode.lma);
	HOLDS("XCR0 without x87", cpu->xcr0 & XCR0_X87);
	HOLDS("XCR0 beyond the model", !(cpu->xcr0 & ~cpu->xcr0_allowed));
	HOLDS("upper half of DR6 or DR7", !(cpu->dr6 >> 32) && !(cpu->dr7 >> 32));
	HOLDS("CR3 beyond MAXPHYADDR", !(cpu->cr3 >> cpu->maxphyaddr));
}

static void check_mode(struct cpu *cpu)
{
	struct mode was = cpu->mode;

	cpu_update_mode(cpu);
	cpu_update_access(cpu);
	HOLDS("the mode lags behind", !memcmp(&was, &cpu->mode, sizeof(was)));
	HOLDS("virtual-8086 mode in long mode", !was.lma || !was.v86);
	HOLDS("real mode above CPL 0", !was.real || !was.cpl);
	HOLDS("virtual-8086 mode below CPL 3", !was.v86 || was.cpl == 3);
	HOLDS("RIP is not canonical", was.code != CODE_64 || gva_canonical(cpu, cpu->rip));
	HOLDS("RIP above 4 GiB", was.code == CODE_64 || !(cpu->rip >> 32));
	HOLDS("L and D",
	      !was.lma || (cpu->seg[SEG_CS].attr & (SEG_L | SEG_DB)) != (SEG_L | SEG_DB));
	HOLDS("a system flag in the arithmetic ones", !(cpu->sflags & FLAGS_ARITH));
}

static void check_state(struct cpu *cpu)
{
	check_control(cpu);
	check_mode(cpu);
	HOLDS("vector state is live", !cpu->fpu.live);
}

/* ---- running ---- */

/* True to go on after this exit. */
static bool answer_exit(struct cpu *cpu)
{
	const struct cpu_exit *e = &cpu->exit;
	uint64_t data;

	switch (e->kind) {
	case CPU_EXIT_MMIO_READ:
	case CPU_EXIT_IO_READ:
		data = answer(e->addr) & (~0ull >> (64 - 8 * e->size));
		answers_add(cpu, e->kind == CPU_EXIT_IO_READ ? ANSWER_IO : ANSWER_MMIO, e->addr,
			    e->size, data, false);
		return true;
	case CPU_EXIT_WRITES:
		cpu->out.nr = 0;
		return true;
	case CPU_EXIT_REQUEST:
		return looks <= STEPS && !timed_out && cpu->retired < cpu->budget_end;
	case CPU_EXIT_HLT:
		cpu->activity = ACTIVITY_RUN;
		return false;
	case CPU_EXIT_SHUTDOWN:
	case CPU_EXIT_EMULATION:
		return false;
	default:
		fail("an exit that no guest can cause");
		return false;
	}
}

static bool verbose;

static void tell(const struct cpu *cpu)
{
	if (verbose)
		fprintf(stderr,
			"exit %u at %#llx cs %#x inject %u/%u addr %#llx size %u retired %llu\n",
			cpu->exit.kind, (unsigned long long)cpu->rip, cpu->seg[SEG_CS].sel,
			cpu->inject.valid, cpu->inject.vector, (unsigned long long)cpu->exit.addr,
			cpu->exit.size, (unsigned long long)cpu->retired);
}

static void run(struct flat *f)
{
	unsigned exits = 0;
	enum cpu_exit_kind kind;

	looks = 0;
	timed_out = false;
	running = f->cpu;
	f->cpu->budget_end = f->cpu->retired + STEPS;
	cpu_raise(f->cpu, ATTN_BUDGET);
	do {
		kind = cpu_run(f->cpu);
		counts[kind]++;
		tell(f->cpu);
		HOLDS("exit kinds differ", kind == f->cpu->exit.kind);
		check_state(f->cpu);
		HOLDS("exits without end", ++exits < 100 * STEPS);
	} while (answer_exit(f->cpu));
}

struct outcome {
	uint64_t gpr[NR_GPRS], rip, rflags, cr0, cr2, cr3, cr4, efer, dr6, dr7, retired;
	struct segment seg[NR_SEGS];
	enum cpu_exit_kind kind;
	uint64_t ram;
};

static uint64_t hash_ram(void)
{
	const uint64_t *p = (const uint64_t *)(arena + CANARY);
	uint64_t h = 0;

	for (unsigned i = 0; i < RAM / 8; i++)
		h = (h ^ p[i]) * 0x100000001b3 + (h >> 29);
	return h;
}

static void outcome_of(const struct cpu *cpu, struct outcome *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->gpr, cpu->gpr, sizeof(ret->gpr));
	for (unsigned i = 0; i < NR_SEGS; i++) {
		ret->seg[i].base = cpu->seg[i].base;
		ret->seg[i].limit = cpu->seg[i].limit;
		ret->seg[i].attr = cpu->seg[i].attr;
		ret->seg[i].sel = cpu->seg[i].sel;
	}
	ret->rip = cpu->rip;
	ret->rflags = cpu_rflags(cpu);
	ret->cr0 = cpu->cr0;
	ret->cr2 = cpu->cr2;
	ret->cr3 = cpu->cr3;
	ret->cr4 = cpu->cr4;
	ret->efer = cpu->msr.efer;
	ret->dr6 = cpu->dr6;
	ret->dr7 = cpu->dr7;
	ret->retired = cpu->retired;
	ret->kind = cpu->exit.kind;
	ret->ram = hash_ram();
}

/* One machine a tempo for all cases: making one takes longer than a case does. */
static struct machine {
	struct flat *flat;
	struct cpu pristine;
} stepping, translating;

static void machine_make(struct machine *m, const char *tempo)
{
	struct flat *f = flat_new(RAM);

	m->flat = f;
	free(f->ram);
	f->ram = arena + CANARY;
	f->cpu->exec = exec_create();
	if (!f->cpu->exec || exec_set_tempo(f->cpu, tempo))
		fail("no such machine");
	feature_put(f->cpu->model_features, FEAT_RDRAND, false); /* differ from run to run */
	feature_put(f->cpu->model_features, FEAT_RDSEED, false);
	m->pristine = *f->cpu;
}

static void run_case(struct machine *m, uint64_t seed, struct outcome *ret)
{
	struct platform p;

	*m->flat->cpu = m->pristine;
	m->flat->msr_value = 0;
	begin(m->flat, seed, &p);
	run(m->flat);
	check_canaries();
	outcome_of(m->flat->cpu, ret);
}

static void report(const struct outcome *a, const struct outcome *b)
{
	const uint64_t *x = (const uint64_t *)a, *y = (const uint64_t *)b;

	for (unsigned i = 0; i < sizeof(*a) / 8; i++)
		if (x[i] != y[i])
			fprintf(stderr, "  word %u: %#llx, alone %#llx\n", i,
				(unsigned long long)x[i], (unsigned long long)y[i]);
}

static timer_t timer;

static void stop_after(unsigned us)
{
	struct itimerspec t = {.it_value.tv_nsec = us * 1000l};

	timer_settime(timer, 0, &t, NULL);
}

/* An outcome that the count of looks ended is not at the same place. */
static void compare(const struct outcome *a, const struct outcome *b, const char *what)
{
	if (a->kind == CPU_EXIT_REQUEST || b->kind == CPU_EXIT_REQUEST || !memcmp(a, b, sizeof(*a)))
		return;
	report(a, b);
	fail(what);
}

static void try_seed(uint64_t seed)
{
	struct outcome whole, parts, run;

	current_seed = seed;
	alarm(20);
	look_always = true;
	run_case(&stepping, seed, &whole);
	leave_always = true;
	run_case(&stepping, seed, &parts);
	leave_always = false;
	compare(&whole, &parts, "leaving before every instruction changes the outcome");
	if (!translating.flat)
		return;
	look_always = false;
	stop_after(20000);
	run_case(&translating, seed, &run);
	stop_after(0);
	compare(&whole, &run, "the run tempo comes to another outcome");
}

static void hang(int sig)
{
	char line[100];
	int n = snprintf(line, sizeof(line), "guest_code: a hang: run `guest_code 0 %#llx`\n",
			 (unsigned long long)current_seed);

	if (write(2, line, n) < 0)
		_exit(3);
	_exit(2);
}

/* Guests that only fault retire nothing: no budget ends them. */
static void time_out(int sig)
{
	timed_out = true;
	cpu_raise(running, ATTN_REQUEST);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 10, end = fuzz_now() + seconds;
	const char *tempo = getenv("ANYKVM_TEMPO");
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1, cases = 0;

	signal(SIGALRM, hang);
	signal(SIGUSR1, time_out);
	arena = mmap(NULL, RAM + 2 * CANARY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	if (arena == MAP_FAILED)
		return 1;
	machine_make(&stepping, "step");
	if (tempo)
		machine_make(&translating, tempo);
	verbose = !seconds;
	if (timer_create(CLOCK_MONOTONIC, &event, &timer))
		return 1;
	do {
		try_seed(seed + cases++);
	} while (fuzz_now() < end);
	printf("guest_code: %llu cases\n", (unsigned long long)cases);
	for (unsigned i = 0; i < ARRAY_SIZE(counts); i++)
		if (counts[i])
			printf("  exit %u: %llu\n", i, (unsigned long long)counts[i]);
	return 0;
}
