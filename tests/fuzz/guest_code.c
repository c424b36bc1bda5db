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
#include "silicon/exec/exec.h"
#include "silicon/models/features.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM	    0x140000ul /* flat.h's layout and a bit */
#define CANARY	    0x4000ul
#define CANARY_BYTE 0xa5
#define STEPS	    600 /* looks at the attention bits per case */
#define CODE_BYTES  256

static uint8_t *arena; /* canary, RAM, canary */
static uint64_t current_seed;
static uint64_t counts[32]; /* by exit kind */

/* ---- values ---- */

/* Addresses where something ends, begins or is not. */
static uint64_t edge(struct rng *r)
{
	static const uint64_t at[] = {
		0,
		RAM,
		FLAT_ROM,
		FLAT_ROM + 0x1000,
		FLAT_MMIO,
		FLAT_MMIO + 0x1000,
		FLAT_DEVICE,
		FLAT_GDT,
		FLAT_IDT,
		FLAT_TSS,
		FLAT_CODE,
		FLAT_STACK,
		FLAT_TABLES,
		FLAT_DATA,
		BIT(16),
		BIT(20),
		BIT(31),
		BIT(32),
		BIT(47),
		-BIT(47),
		BIT(63),
		BIT(52),
		0xfee00000,
		0xfec00000,
		FLAT_USER_STACK,
	};

	return at[below(r, ARRAY_SIZE(at))] + (int64_t)below(r, 64) - 32;
}

static uint64_t value(struct rng *r)
{
	switch (below(r, 6)) {
	case 0:
		return rnd(r);
	case 1:
		return below(r, 16);
	case 2:
		return -(uint64_t)below(r, 64);
	case 3:
		return BIT(below(r, 64));
	case 4:
		return FLAT_DATA + below(r, 0x1000);
	default:
		return edge(r);
	}
}

/* ---- code ---- */

struct code {
	uint8_t v[CODE_BYTES + 32];
	unsigned nr;
};

static void byte(struct code *c, uint8_t val)
{
	if (c->nr < sizeof(c->v))
		c->v[c->nr++] = val;
}

static void bytes(struct code *c, uint64_t val, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		byte(c, val >> (8 * i));
}

static void modrm(struct code *c, struct rng *r, unsigned reg)
{
	unsigned mod = below(r, 4), rm = below(r, 8);

	byte(c, mod << 6 | reg << 3 | rm);
	if (mod != 3 && rm == 4)
		byte(c, rnd(r));
	if (mod == 1)
		byte(c, rnd(r));
	else if (mod == 2 || (mod == 0 && rm == 5))
		bytes(c, edge(r), 4);
}

static void prefixes(struct code *c, struct rng *r)
{
	static const uint8_t all[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x64, 0x65};

	while (one_in(r, 4))
		byte(c, all[below(r, sizeof(all))]);
	if (one_in(r, 3))
		byte(c, 0x40 + below(r, 16));
}

static void immediate(struct code *c, struct rng *r)
{
	bytes(c, value(r), below(r, 5));
}

static void any_one_byte(struct code *c, struct rng *r)
{
	prefixes(c, r);
	byte(c, rnd(r));
	modrm(c, r, below(r, 8));
	immediate(c, r);
}

static void any_two_byte(struct code *c, struct rng *r)
{
	prefixes(c, r);
	byte(c, 0x0f);
	if (one_in(r, 6))
		byte(c, one_in(r, 2) ? 0x38 : 0x3a);
	byte(c, rnd(r));
	modrm(c, r, below(r, 8));
	immediate(c, r);
}

static void any_vex(struct code *c, struct rng *r)
{
	if (one_in(r, 2)) {
		byte(c, 0xc5);
		byte(c, rnd(r));
	} else {
		byte(c, 0xc4);
		byte(c, 0xe0 | (1 + below(r, 3)));
		byte(c, rnd(r));
	}
	byte(c, rnd(r));
	modrm(c, r, below(r, 8));
	immediate(c, r);
}

static void any_evex(struct code *c, struct rng *r)
{
	byte(c, 0x62);
	byte(c, 0xf0 | (1 + below(r, 3)));
	byte(c, rnd(r) | 4);
	byte(c, rnd(r));
	byte(c, rnd(r));
	modrm(c, r, below(r, 8));
	immediate(c, r);
}

static void any_bytes(struct code *c, struct rng *r)
{
	bytes(c, rnd(r), 1 + below(r, 8));
}

static void load_register(struct code *c, unsigned reg, uint32_t val)
{
	byte(c, 0xb8 + reg);
	bytes(c, val, 4);
}

static void msr_access(struct code *c, struct rng *r)
{
	static const uint32_t bases[] = {0x0,	     0x200,	 0x400,	     0x800,
					 0x40000000, 0x4b564d00, 0xc0000080, 0xc0000100,
					 0xc0010000, 0xc0011020};

	load_register(c, RCX, bases[below(r, ARRAY_SIZE(bases))] + below(r, 0x80));
	if (one_in(r, 2))
		load_register(c, RDX, one_in(r, 2) ? 0 : value(r));
	if (one_in(r, 2))
		load_register(c, RAX, value(r));
	byte(c, 0x0f);
	byte(c, one_in(r, 3) ? 0x32 : 0x30);
}

static void control_register(struct code *c, struct rng *r)
{
	static const uint8_t opcodes[] = {0x20, 0x22, 0x22, 0x22, 0x21, 0x23};
	static const uint8_t nr[] = {0, 3, 4, 2, 8, 1, 7, 6};

	byte(c, 0x0f);
	byte(c, opcodes[below(r, sizeof(opcodes))]);
	byte(c, 0xc0 | nr[below(r, sizeof(nr))] << 3 | below(r, 8));
}

/* Opcodes that deserve more than one chance in 256. */
static void favourite(struct code *c, struct rng *r)
{
	static const struct {
		uint8_t nr, v[3];
		bool modrm;
	} all[] = {
		{1, {0xcf}},
		{2, {0x0f, 0x05}},
		{2, {0x0f, 0x07}},
		{2, {0x0f, 0x34}},
		{2, {0x0f, 0x35}},
		{1, {0xcb}},
		{1, {0xca}},
		{1, {0x9a}},
		{1, {0xea}},
		{1, {0xff}, true},
		{2, {0x0f, 0x01}, true},
		{2, {0x0f, 0x00}, true},
		{1, {0x8e}, true},
		{1, {0x8c}, true},
		{2, {0x0f, 0xae}, true},
		{2, {0x0f, 0xc7}, true},
		{3, {0x0f, 0x01, 0xd1}},
		{3, {0x0f, 0x01, 0xd0}},
		{2, {0xf3, 0xa4}},
		{2, {0xf3, 0xa5}},
		{2, {0xf3, 0xaa}},
		{2, {0xf2, 0xae}},
		{2, {0xf3, 0xa6}},
		{2, {0xf3, 0x6c}},
		{2, {0xf3, 0x6e}},
		{2, {0xf3, 0x6d}},
		{1, {0x9d}},
		{1, {0x9c}},
		{1, {0xc8}},
		{1, {0xc9}},
		{1, {0xcd}},
		{1, {0xcc}},
		{1, {0xf1}},
		{1, {0xce}},
		{1, {0xfb}},
		{1, {0x17}},
		{1, {0x07}},
		{2, {0x0f, 0xa1}},
		{2, {0x0f, 0xb2}, true},
		{1, {0xc4}, true},
		{2, {0x0f, 0x02}, true},
		{2, {0x0f, 0x03}, true},
		{3, {0x0f, 0x38, 0x82}, true},
		{1, {0xd8}, true},
		{1, {0xdd}, true},
		{1, {0xd9}, true},
		{1, {0x60}},
		{1, {0x61}},
		{1, {0x62}, true},
		{1, {0x63}, true},
		{1, {0xe4}},
		{1, {0xef}},
		{1, {0xf4}},
		{2, {0x0f, 0xc3}, true},
		{2, {0x0f, 0x09}},
		{3, {0x0f, 0x01, 0xf8}},
		{3, {0x0f, 0x01, 0xcb}},
	};
	unsigned i = below(r, ARRAY_SIZE(all));

	prefixes(c, r);
	for (unsigned n = 0; n < all[i].nr; n++)
		byte(c, all[i].v[n]);
	if (all[i].modrm)
		modrm(c, r, below(r, 8));
	immediate(c, r);
}

static void set_register(struct code *c, struct rng *r)
{
	unsigned reg = below(r, 8);

	byte(c, 0x48);
	byte(c, 0xb8 + reg);
	bytes(c, value(r), 8);
}

/* Back or forth by some bytes, often into the middle of an instruction. */
static void short_jump(struct code *c, struct rng *r)
{
	byte(c, one_in(r, 3) ? 0xe0 + below(r, 4) : one_in(r, 6) ? 0xeb : 0x70 + below(r, 16));
	byte(c, one_in(r, 2) ? below(r, 40) : -below(r, 80));
}

static void prefix_flood(struct code *c, struct rng *r)
{
	static const uint8_t all[] = {0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x64, 0x48, 0x4f};
	unsigned n = 10 + below(r, 8);

	while (n--)
		byte(c, all[below(r, sizeof(all))]);
}

static void make_code(struct code *c, struct rng *r)
{
	static void (*const makers[])(struct code *, struct rng *) = {
		any_one_byte, any_one_byte, any_two_byte,     any_two_byte, any_vex,   any_evex,
		any_bytes,    msr_access,   control_register, favourite,    favourite, favourite,
		set_register, prefix_flood, short_jump,	      short_jump,
	};

	while (c->nr < CODE_BYTES)
		makers[below(r, ARRAY_SIZE(makers))](c, r);
}

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
		cpu->seg[i].base = i < SEG_LDTR && !cpu->mode.lma ? (uint32_t)edge(r) : edge(r);
		if (one_in(r, 2))
			cpu->seg[i].limit = value(r);
	}
	if (one_in(r, 10))
		cpu->seg[SEG_SS].base = cpu->mode.lma ? 0 : (uint32_t)edge(r);
	if (one_in(r, 10))
		cpu->seg[SEG_SS].limit = value(r);
	if (one_in(r, 20))
		cpu->gdtr = (struct dtable){.base = edge(r), .limit = value(r)};
	if (one_in(r, 20))
		cpu->idtr = (struct dtable){.base = edge(r), .limit = value(r)};
}

static void random_tables(struct flat *f, struct rng *r)
{
	static const uint64_t at[] = {FLAT_GDT,	   FLAT_IDT, FLAT_TSS,
				      FLAT_TABLES, FLAT_IVT, FLAT_TABLES + 0x1000};
	unsigned n = one_in(r, 2) ? 0 : below(r, 24);

	while (n--)
		flat_poke(f, at[below(r, ARRAY_SIZE(at))] + below(r, 0x800), value(r),
			  1 << below(r, 4));
	n = one_in(r, 2) ? 0 : below(r, 8);
	while (n--) /* whole page-table entries, present most of the time */
		flat_poke(f, FLAT_TABLES + 8 * below(r, 0xc00),
			  (edge(r) & ~0xfffull) | (rnd(r) & 0xfff) | PTE_P, 8);
}

static void random_registers(struct flat *f, struct rng *r)
{
	struct cpu *cpu = f->cpu;

	for (unsigned i = 0; i < NR_GPRS; i++)
		if (i != RSP || one_in(r, 8))
			cpu->gpr[i] = value(r);
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
			cpu->dr[i] = one_in(r, 2) ? FLAT_CODE + below(r, CODE_BYTES) : edge(r);
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
		f->cpu->rip = f->cpu->mode.code == CODE_64 ? edge(r) : (uint32_t)edge(r);
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
			flat_gate(f, vector, FLAT_CODE + below(r, CODE_BYTES), below(r, 4));
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
