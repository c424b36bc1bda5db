/* SPDX-License-Identifier: MIT */
/*
 * The instruction differential: the host CPU against step, one random instruction at a time.
 *
 *	insn-diff [--cases N] [--seed S|clock] [--only MNEMONIC] [--bytes HEX] [--bits 16|32|64] [--verbose]
 *
 * Compared: where RIP went or which fault with what error code and address, general registers,
 * flags (undefined ones too), vector, x87, MXCSR and mask state, and memory. What differs by design is
 * in design.c. --bytes: all instructions begin with these. Exit status 1 if anything differs.
 */
#include "design.h"
#include "gen.h"
#include "guest.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REPORTS 60

struct options {
	unsigned long cases, seed, bits;
	const char *only, *bytes;
	bool verbose;
};

/* What a mnemonic was seen to do on the host. */
enum { SEEN = 1, SEEN_DONE = 2, SEEN_MEMORY = 4 };

struct tally {
	unsigned long ran, faulted, unknown, differed, by_design;
	uint8_t seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	uint16_t reported[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	unsigned reports;
};

static const struct segments *segs;
static const char *name_of(const struct testcase *t)
{
	return t->decoded ? ZydisMnemonicGetString(t->z.mnemonic) : "(undecoded)";
}

/* ---- comparison: each writes one line of difference, or nothing ---- */

struct report {
	char text[2000];
	size_t len;
};

__attribute__((format(printf, 2, 3))) static void say(struct report *r, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (r->len < sizeof(r->text))
		r->len += vsnprintf(r->text + r->len, sizeof(r->text) - r->len, fmt, args);
	va_end(args);
}

/* Addresses of the host's own kernel are not the guest's: P may be set there. */
static uint64_t comparable_error(const struct state *s)
{
	return s->cr2 >> 63 || !s->cr2 ? s->error & ~PFERR_P : s->error;
}

static void compare_end(struct report *r, const struct state *host, const struct state *guest)
{
	if (host->vector != guest->vector)
		say(r, "  vector: host %d, guest %d\n", host->vector, guest->vector);
	else if (host->vector == VEC_PF &&
		 (host->cr2 != guest->cr2 || comparable_error(host) != comparable_error(guest)))
		say(r, "  #PF: host %lx at %lx, guest %lx at %lx\n", host->error, host->cr2,
		    guest->error, guest->cr2);
	if (host->rip != guest->rip)
		say(r, "  rip: host %lx, guest %lx\n", host->rip, guest->rip);
}

static void compare_registers(struct report *r, const struct state *host, const struct state *guest)
{
	static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
	uint64_t mask = FLAGS_ARITH | FLAG_DF | FLAG_NT | FLAG_ID,
		 wide = segs->bits == 64 ? ~0ull : 0xffffffff;

	/* Upper halves and R8 to R15 are undefined outside of 64-bit mode. */
	for (int i = 0; i < (segs->bits == 64 ? 16 : 8); i++)
		if ((host->gpr[i] ^ guest->gpr[i]) & wide)
			say(r, "  %s: host %lx, guest %lx\n", names[i], host->gpr[i],
			    guest->gpr[i]);
	if ((host->rflags ^ guest->rflags) & mask)
		say(r, "  flags: host %lx, guest %lx\n", host->rflags & mask, guest->rflags & mask);
}

static void compare_bytes(struct report *r, const char *what, const uint8_t *host,
			  const uint8_t *guest, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (host[i] != guest[i]) {
			size_t at = i & ~7ul;
			uint64_t h, g;

			memcpy(&h, host + at, 8);
			memcpy(&g, guest + at, 8);
			say(r, "  %s+%zx: host %016lx, guest %016lx\n", what, at, h, g);
			return;
		}
}

/* x87 and SSE part: all but the pointers, which the guest keeps elsewhere. */
static void compare_xstate(struct report *r, const struct gen *g, const struct state *host,
			   const struct state *guest)
{
	compare_bytes(r, "x87 control", host->x, guest->x, 5);
	compare_bytes(r, "mxcsr", host->x + 24, guest->x + 24, 4);
	for (int i = 0; i < 8; i++)
		compare_bytes(r, "st", host->x + 32 + 16 * i, guest->x + 32 + 16 * i, 10);
	compare_bytes(r, "xmm", host->x + 160, guest->x + 160, 256);
	if (g->xoff_avx)
		compare_bytes(r, "ymm high", host->x + g->xoff_avx, guest->x + g->xoff_avx, 256);
	if (g->xoff_k) {
		compare_bytes(r, "k", host->x + g->xoff_k, guest->x + g->xoff_k, 64);
		compare_bytes(r, "zmm high", host->x + g->xoff_zmm_hi, guest->x + g->xoff_zmm_hi,
			      512);
		compare_bytes(r, "zmm16-31", host->x + g->xoff_hi16, guest->x + g->xoff_hi16, 1024);
	}
}

/* A component that XSTATE_BV leaves out is in its initial state, whatever its bytes say. */
static void normalize(const struct gen *g, struct state *s)
{
	static const struct {
		unsigned bit, size;
	} parts[] = {{2, 256}, {5, 64}, {6, 512}, {7, 1024}};
	const uint32_t at[] = {g->xoff_avx, g->xoff_k, g->xoff_zmm_hi, g->xoff_hi16};
	uint64_t bv;

	memcpy(&bv, s->x + 512, 8);
	for (unsigned i = 0; i < ARRAY_SIZE(parts); i++)
		if (at[i] && !(bv & BIT(parts[i].bit)))
			memset(s->x + at[i], 0, parts[i].size);
	if (!(bv & XCR0_SSE))
		memset(s->x + 160, 0, 256);
	if (!(bv & XCR0_X87)) {
		memset(s->x, 0, 24);
		memset(s->x + 32, 0, 128);
		memcpy(s->x, "\x7f\x03", 2);
	}
}

static void compare_memory(struct report *r, const struct guest *gu)
{
	compare_bytes(r, "memory", (uint8_t *)DATA_PAGE, guest_memory(gu, DATA_PAGE), DATA_SIZE);
	compare_bytes(r, "stack", (uint8_t *)STACK_PAGE, guest_memory(gu, STACK_PAGE), STACK_SIZE);
}

/* ---- one case ---- */

/* A write to both sides' memory; what is outside of the pages is left out. */
static void put_both(const struct guest *gu, uint64_t addr, const void *bytes, size_t size)
{
	memcpy((void *)addr, bytes, size);
	memcpy(guest_memory(gu, addr), bytes, size);
}

static bool in_stack(uint64_t addr)
{
	return addr >= STACK_PAGE && addr + 8 <= STACK_PAGE + STACK_SIZE;
}

static bool is_popf(const struct testcase *t)
{
	return t->decoded &&
	       (t->z.mnemonic == ZYDIS_MNEMONIC_POPF || t->z.mnemonic == ZYDIS_MNEMONIC_POPFD ||
		t->z.mnemonic == ZYDIS_MNEMONIC_POPFQ);
}

static void place(const struct guest *gu, const struct testcase *t)
{
	uint64_t from = t->target & ~63ul, to = CODE_PAGE - segs->code_base + (t->target & 0x7ff);
	static const uint8_t int3[2 * PAGE_SIZE] = {[0 ... 2 * PAGE_SIZE - 1] = 0xcc};

	if (from >= DATA_PAGE && from + sizeof(t->memory) <= DATA_PAGE + DATA_SIZE)
		put_both(gu, from, t->memory, sizeof(t->memory));
	if (t->decoded && t->image_size && t->target >= DATA_PAGE &&
	    t->target + t->image_size <= DATA_PAGE + DATA_SIZE)
		put_both(gu, t->target, t->image, t->image_size);
	memcpy((void *)CODE_PAGE, int3, sizeof(int3));
	memcpy(guest_memory(gu, CODE_PAGE), int3, sizeof(int3));
	put_both(gu, t->code, t->bytes, t->len);
	if (t->decoded && t->z.meta.branch_type && t->target >= DATA_PAGE &&
	    t->target + 8 <= DATA_PAGE + DATA_SIZE)
		put_both(gu, t->target, &to, sizeof(to));
	if (is_popf(t))
		put_both(gu, t->in.gpr[RSP] + segs->stack_base, &t->flags, sizeof(t->flags));
	if (t->decoded && t->z.meta.category == ZYDIS_CATEGORY_RET &&
	    in_stack(t->in.gpr[RSP] + segs->stack_base))
		put_both(gu, t->in.gpr[RSP] + segs->stack_base, &to, sizeof(to));
}

/* A fetch fault elsewhere than at the instruction: the branch itself was done. */
static void branch_done(const struct testcase *t, struct state *s)
{
	if (s->vector == VEC_PF && s->rip != t->in.rip && s->cr2 == s->rip + segs->code_base) {
		s->vector = -1;
		s->error = 0;
	}
}

static void disassemble(const struct testcase *t, char *text, size_t size)
{
	ZydisFormatter fmt;

	snprintf(text, size, "?");
	if (!t->decoded)
		return;
	ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisFormatterFormatInstruction(&fmt, &t->z, t->ops, t->z.operand_count_visible, text, size,
					t->in.rip, NULL);
}

static void print_case(const struct testcase *t, unsigned long nr, const struct report *r)
{
	char text[200];

	disassemble(t, text, sizeof(text));
	printf("case %lu: ", nr);
	for (unsigned i = 0; i < t->len; i++)
		printf("%02x", t->bytes[i]);
	printf("  %s  (rip %lx, target %lx)\n%s", text, t->in.rip, t->target, r->text);
}

static void judge(struct tally *tally, const struct testcase *t, unsigned long nr,
		  const struct report *r, bool verbose)
{
	unsigned index = t->decoded ? t->z.mnemonic : 0;

	if (!r->len)
		return;
	tally->differed++;
	if (!verbose && (tally->reported[index]++ || tally->reports++ > MAX_REPORTS))
		return;
	print_case(t, nr, r);
}

static void copy_memory(const struct guest *gu)
{
	memcpy(guest_memory(gu, DATA_PAGE), (void *)DATA_PAGE, DATA_SIZE);
	memcpy(guest_memory(gu, STACK_PAGE), (void *)STACK_PAGE, STACK_SIZE);
}

/* The pages as they were before. */
static uint8_t data_before[DATA_SIZE], stack_before[STACK_SIZE];

static void keep_memory(void)
{
	memcpy(data_before, (void *)DATA_PAGE, DATA_SIZE);
	memcpy(stack_before, (void *)STACK_PAGE, STACK_SIZE);
}

/* The host's stores may be ahead of its registers at a fault. The guest's are not: none, or whole iterations. */
static void memory_ahead(struct report *r, const struct testcase *t, const struct guest *gu)
{
	if (t->z.meta.category != ZYDIS_CATEGORY_STRINGOP) {
		compare_bytes(r, "memory at the fault", data_before, guest_memory(gu, DATA_PAGE),
			      DATA_SIZE);
		compare_bytes(r, "stack at the fault", stack_before, guest_memory(gu, STACK_PAGE),
			      STACK_SIZE);
	}
	memcpy((void *)DATA_PAGE, guest_memory(gu, DATA_PAGE), DATA_SIZE);
	memcpy((void *)STACK_PAGE, guest_memory(gu, STACK_PAGE), STACK_SIZE);
}

static void count(struct tally *tally, const struct testcase *t, const struct state *host)
{
	unsigned index = t->decoded ? t->z.mnemonic : 0;

	tally->ran++;
	tally->faulted += host->vector >= 0;
	tally->unknown += !t->decoded;
	if (host->vector == VEC_UD)
		return;
	tally->seen[index] |= SEEN;
	if (host->vector < 0)
		tally->seen[index] |= SEEN_DONE;
	for (unsigned i = 0; t->decoded && i < t->z.operand_count; i++)
		if (t->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			tally->seen[index] |= SEEN_MEMORY;
}

static void run_case(struct gen *g, struct guest *gu, struct testcase *t, struct tally *tally,
		     unsigned long nr, bool verbose)
{
	static struct state host, guest;
	struct report r = {.len = 0};

	place(gu, t);
	if (design_stores_ahead(t))
		keep_memory();
	native_run(&t->in, &host);
	guest_run(gu, &t->in, &guest);
	if (host.vector < 0 && guest.vector == 14 && !guest_mapped(guest.cr2))
		return; /* this process has memory of its own there */
	branch_done(t, &host);
	normalize(g, &host);
	normalize(g, &guest);
	tally->by_design += design_apply(t, segs, &host, &guest);
	count(tally, t, &host);
	compare_end(&r, &host, &guest);
	compare_registers(&r, &host, &guest);
	compare_xstate(&r, g, &host, &guest);
	if (host.vector >= 0 && design_stores_ahead(t))
		memory_ahead(&r, t, gu);
	compare_memory(&r, gu);
	judge(tally, t, nr, &r, verbose);
	if (r.len)
		copy_memory(gu);
}

static void fix_bytes(struct gen *g, const char *hex)
{
	while (g->nr_fixed < 14 && sscanf(hex, "%2hhx", &g->fixed[g->nr_fixed]) == 1) {
		g->nr_fixed++;
		hex += 2;
	}
}

static void run_all(const struct options *o, struct tally *tally)
{
	struct guest *gu = guest_new(segs);
	static struct testcase t;
	struct gen g;

	native_init(segs, guest_xfeatures(gu));
	gen_init(&g, segs, o->seed, guest_xfeatures(gu));
	if (o->bytes)
		fix_bytes(&g, o->bytes);
	for (unsigned long i = 0; i < o->cases; i++) {
		gen_case(&g, &t);
		if (o->only && strcmp(o->only, name_of(&t)))
			continue;
		run_case(&g, gu, &t, tally, i, o->verbose);
	}
	guest_free(gu);
}

static void parse(int argc, char **argv, struct options *o)
{
	static const struct option long_options[] = {
		{"cases", 1, NULL, 'n'},
		{"seed", 1, NULL, 's'},
		{"bytes", 1, NULL, 'h'},
		{"only", 1, NULL, 'o'},
		{"verbose", 0, NULL, 'v'},
		{"bits", 1, NULL, 'b'},
		{0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (c == 'n')
			o->cases = strtoul(optarg, NULL, 0);
		else if (c == 's')
			o->seed = strcmp(optarg, "clock") ? strtoul(optarg, NULL, 0)
							  : host_realtime_ns();
		else if (c == 'h')
			o->bytes = optarg;
		else if (c == 'o')
			o->only = optarg;
		else if (c == 'b')
			o->bits = strtoul(optarg, NULL, 0);
		else if (c == 'v')
			o->verbose = true;
		else
			exit(2);
	}
}

static unsigned mnemonics(const struct tally *tally, unsigned seen)
{
	unsigned nr = 0;

	for (unsigned i = 1; i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
		nr += (tally->seen[i] & seen) == seen;
	return nr;
}

static void print_tally(const struct tally *tally, bool verbose)
{
	for (unsigned i = 1; verbose && i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
		if (!(tally->seen[i] & SEEN_DONE))
			printf("never run to the end here: %s\n", ZydisMnemonicGetString(i));
	printf("%u mnemonics, %u run to the end, %u with memory, %u of Zydis's never without #UD; "
	       "%lu cases, %lu unknown to it, %lu faulted, %lu by design, %lu differ\n",
	       mnemonics(tally, SEEN), mnemonics(tally, SEEN_DONE), mnemonics(tally, SEEN_MEMORY),
	       ZYDIS_MNEMONIC_MAX_VALUE - mnemonics(tally, SEEN), tally->ran, tally->unknown,
	       tally->faulted, tally->by_design, tally->differed);
}

int main(int argc, char **argv)
{
	struct options o = {.cases = 300000, .seed = 1, .bits = 64};
	static struct tally tally;

	parse(argc, argv, &o);
	setvbuf(stdout, NULL, _IOLBF, 0);
	segs = native_segments(o.bits);
	if (!segs) {
		printf("no segments of %lu bits on this host\n", o.bits);
		return 77;
	}
	printf("seed %lu, %lu bits\n", o.seed, o.bits);
	run_all(&o, &tally);
	print_tally(&tally, o.verbose);
	return tally.differed || !tally.ran;
}
