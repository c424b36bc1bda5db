/* SPDX-License-Identifier: MIT */
/*
 * The instruction differential: the host CPU against step, one random instruction at a time.
 *
 *	insn-diff [--cases N] [--seed S|clock] [--known FILE] [--only MNEMONIC] [--bits 16|32|64] [--verbose]
 *
 * Compared: where RIP went or which fault with what error code and address, general registers,
 * flags (undefined ones too), vector, x87, MXCSR and mask state, and memory. What differs by design is
 * listed in known.tsv. Exit status 1 if anything else differs.
 */
#include "gen.h"
#include "guest.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REPORTS 60
#define MAX_KNOWN   200

struct options {
	unsigned long cases, seed, bits;
	const char *only;
	bool verbose;
};

struct tally {
	unsigned long ran, faulted, differed, known;
	uint16_t reported[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	unsigned reports;
};

static const struct segments *segs;
static char known[MAX_KNOWN][32];
static unsigned nr_known;

static const char *name_of(const struct testcase *t)
{
	return t->decoded ? ZydisMnemonicGetString(t->z.mnemonic) : "(undecoded)";
}

static void load_known(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[400];

	if (!f) {
		perror(path);
		exit(2);
	}
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\t\n")] = 0;
		if (*line && *line != '#' && nr_known < MAX_KNOWN)
			snprintf(known[nr_known++], sizeof(known[0]), "%.31s", line);
	}
	fclose(f);
}

static bool is_known(const struct testcase *t)
{
	for (unsigned i = 0; i < nr_known; i++)
		if (!strcmp(known[i], name_of(t)))
			return true;
	return false;
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
	uint64_t mask = FLAGS_ARITH | FLAG_DF, wide = segs->bits == 64 ? ~0ull : 0xffffffff;

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

static void place(const struct guest *gu, const struct testcase *t)
{
	uint64_t from = t->target & ~63ul, to = CODE_PAGE - segs->code_base + (t->target & 0x7ff);
	static const uint8_t int3[2 * PAGE_SIZE] = {[0 ... 2 * PAGE_SIZE - 1] = 0xcc};

	if (from >= DATA_PAGE && from + sizeof(t->memory) <= DATA_PAGE + DATA_SIZE)
		put_both(gu, from, t->memory, sizeof(t->memory));
	memcpy((void *)CODE_PAGE, int3, sizeof(int3));
	memcpy(guest_memory(gu, CODE_PAGE), int3, sizeof(int3));
	put_both(gu, t->code, t->bytes, t->len);
	if (t->decoded && t->z.meta.branch_type && t->target >= DATA_PAGE &&
	    t->target + 8 <= DATA_PAGE + DATA_SIZE)
		put_both(gu, t->target, &to, sizeof(to));
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
	if (is_known(t)) {
		tally->known++;
		return;
	}
	tally->differed++;
	if (!verbose && (tally->reported[index]++ || tally->reports++ > MAX_REPORTS))
		return;
	print_case(t, nr, r);
}

static bool masked_store(const struct testcase *t)
{
	if (t->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX &&
	    t->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
		return true;
	switch (t->z.mnemonic) {
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ:
		return true;
	default:
		return false;
	}
}

static bool uses_mmx(const struct testcase *t)
{
	for (unsigned i = 0; i < t->z.operand_count; i++)
		if (t->ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(t->ops[i].reg.value) == ZYDIS_REGCLASS_MMX)
			return true;
	return false;
}

static void copy_memory(const struct guest *gu)
{
	memcpy(guest_memory(gu, DATA_PAGE), (void *)DATA_PAGE, DATA_SIZE);
	memcpy(guest_memory(gu, STACK_PAGE), (void *)STACK_PAGE, STACK_SIZE);
}

static bool stores_ahead(const struct testcase *t)
{
	if (t->decoded && t->z.meta.category == ZYDIS_CATEGORY_X87_ALU)
		return true;
	return t->decoded &&
	       (t->z.meta.category == ZYDIS_CATEGORY_STRINGOP ||
		t->z.meta.category == ZYDIS_CATEGORY_CALL || t->z.mnemonic == ZYDIS_MNEMONIC_ENTER);
}

/*
 * Silicon's own freedoms at a fault: REP CMPS and SCAS show the flags of before (the manual says so for
 * restarting), and an MMX instruction has set TOP to 0 already.
 */
static void forgive(const struct testcase *t, struct state *host, const struct state *guest)
{
	/* How long an instruction that nobody knows would be, silicon may know. */
	if (!t->decoded && host->vector == VEC_GP && guest->vector == VEC_UD)
		host->vector = VEC_UD;
	/* "Behavior is implementation-specific" for an operand that wraps at 4 GiB in a segment so large. */
	if (segs->bits == 32 && host->vector == VEC_PF &&
	    (guest->vector == VEC_SS || guest->vector == VEC_GP) &&
	    (uint32_t)(host->cr2 + 64) < 128)
		host->vector = guest->vector;
	if (host->vector < 0 || !t->decoded)
		return;
	if (t->z.meta.category == ZYDIS_CATEGORY_STRINGOP)
		host->rflags = guest->rflags;
	/* So is which of two bad operands is named. */
	if (t->z.meta.category == ZYDIS_CATEGORY_STRINGOP && host->vector == VEC_PF &&
	    guest->vector == VEC_PF)
		host->cr2 = guest->cr2;
	/* Which byte of its elements a masked store names is up to it. */
	if (masked_store(t) && !((host->cr2 ^ guest->cr2) & PAGE_MASK))
		host->cr2 = guest->cr2;
	/* What a gather that faults leaves above its vectors varies. */
	if (t->z.meta.category == ZYDIS_CATEGORY_AVX2GATHER)
		memcpy(host->x + 512, guest->x + 512, sizeof(host->x) - 512);
	if (uses_mmx(t)) {
		memcpy(host->x, guest->x, 24);
		memcpy(host->x + 32, guest->x + 32, 128);
	}
}

static void run_case(struct gen *g, struct guest *gu, struct testcase *t, struct tally *tally,
		     unsigned long nr, bool verbose)
{
	static struct state host, guest;
	struct report r = {.len = 0};

	place(gu, t);
	native_run(&t->in, &host);
	guest_run(gu, &t->in, &guest);
	if (host.vector < 0 && guest.vector == 14 && !guest_mapped(guest.cr2))
		return; /* this process has memory of its own there */
	branch_done(t, &host);
	normalize(g, &host);
	normalize(g, &guest);
	forgive(t, &host, &guest);
	compare_end(&r, &host, &guest);
	compare_registers(&r, &host, &guest);
	compare_xstate(&r, g, &host, &guest);
	/* Silicon may have stored ahead of the state that it shows at a fault. */
	if (host.vector < 0 || !stores_ahead(t))
		compare_memory(&r, gu);
	else
		copy_memory(gu);
	tally->ran++;
	tally->faulted += host.vector >= 0;
	judge(tally, t, nr, &r, verbose);
	if (r.len)
		copy_memory(gu);
}

static void run_all(const struct options *o, struct tally *tally)
{
	struct guest *gu = guest_new(segs);
	static struct testcase t;
	struct gen g;

	native_init(segs, guest_xfeatures(gu));
	gen_init(&g, segs, o->seed, guest_xfeatures(gu));
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
		{"known", 1, NULL, 'k'},
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
		else if (c == 'k')
			load_known(optarg);
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
	printf("%lu cases, %lu faulted, %lu differ, %lu differ as known\n", tally.ran,
	       tally.faulted, tally.differed, tally.known);
	return tally.differed || !tally.ran;
}
