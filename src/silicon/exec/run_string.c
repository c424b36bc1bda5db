/* SPDX-License-Identifier: MIT */
/*
 * REP MOVS and REP STOS inline (emul_string.c has all forms): with DF = 0, each side within one page that hits, and few
 * enough elements that no sum wraps.
 *
 * The host's own instruction runs on host addresses. Meanwhile guest rdi is in r14, rsi in ->tmp and the count, as
 * always, in r12; so that a fault in the middle, which run_string_fixup() gets, can commit what was done.
 */
#include "silicon/exec/emul.h"
#include "silicon/exec/run_translate.h"

#include <sys/ucontext.h>

#define MAX_LAST 255u /* where ->last of a site is cut off */

static bool is_movs(const struct insn *insn)
{
	return insn->run == emul_movs;
}

/* To the cold path unless a register has none of the mask's bits. */
static void emit_unless_none(struct translation *t, const uint64_t *mask)
{
	EMIT(&t->e, "\xc4\xe2\xf2\xf5\x0c\x25"); /* pext mask,%rcx,%rcx */
	emit32(&t->e, emit_low(mask));
	run_to_cold(t, emit_jmp_rcx(&t->e));
}

/* r15 = addend of the elements at ptr, which are in one page; as run_look_up(), for r12 << shift bytes. */
static void emit_look_up(struct translation *t, enum direct_kind kind, unsigned ptr, unsigned shift)
{
	struct direct_map *map = &t->map[kind];
	struct emit *e = &t->e;

	emit_mov(e, R14, ptr);
	EMIT(e, "\xc4\x43\xfb\xf0\xfe\x0c"); /* rorx $12,%r14,%r15 */
	EMIT(e, "\x45\x0f\xb7\xff");	     /* movzwl %r15w,%r15d */
	emit_load_table(e, RCX, map->neg, R15);
	emit_lea(e, RCX, RCX, R14, 0, -1);
	emit_lea(e, RCX, RCX, R12, shift, 0);
	emit_unless_none(t, &t->run->page_mask);
	emit_load_table(e, R15, map->addend, R15);
}

static void emit_rep(struct translation *t, uint8_t opcode, unsigned shift)
{
	struct emit *e = &t->e;

	emit_mov(e, RCX, R12);
	run_note_access(t);
	if (shift == 1)
		emit8(e, 0x66);
	emit8(e, 0xf3);
	if (shift == 3)
		emit8(e, 0x48);
	emit8(e, opcode | (shift ? 1 : 0));
}

static void emit_stos(struct translation *t, unsigned shift)
{
	struct emit *e = &t->e;

	emit_look_up(t, DIRECT_WRITE, RDI, shift);
	emit_lea(e, RDI, R14, R15, 0, 0);
	emit_rep(t, 0xaa, shift);
	emit_lea(e, RDI, R14, R12, shift, 0);
}

static void emit_movs(struct translation *t, unsigned shift)
{
	uint32_t tmp = emit_low(&t->run->tmp);
	struct emit *e = &t->e;

	emit_look_up(t, DIRECT_WRITE, RDI, shift);
	emit_lea(e, R15, R14, R15, 0, 0);
	emit_abs(e, 0x48, 0x89, R15, tmp);
	emit_look_up(t, DIRECT_READ, RSI, shift);
	/* Both hit: from here on the fixup is needed. */
	emit_mov(e, R14, RDI);
	emit_abs(e, 0x48, 0x8b, RDI, tmp);
	emit_abs(e, 0x48, 0x89, RSI, tmp);
	emit_lea(e, RSI, RSI, R15, 0, 0);
	emit_rep(t, 0xa4, shift);
	emit_lea(e, RDI, R14, R12, shift, 0);
	emit_abs(e, 0x48, 0x8b, RSI, tmp);
	emit_lea(e, RSI, RSI, R12, shift, 0);
}

enum form run_form_string(struct translation *t)
{
	unsigned shift = run_string_log2(&t->insn);

	if (!(t->insn.flags & (INSN_REP | INSN_REPNE)) || t->insn.addrsize != 8 ||
	    (is_movs(&t->insn) && t->insn.seg >= SEG_FS))
		return FORM_NONE;
	t->site_flags |= SITE_STRING;
	emit_load_cpu(&t->e, RCX, offsetof(struct cpu, sflags));
	emit_unless_none(t, &t->run->only_df);
	emit_mov(&t->e, RCX, R12);
	emit_unless_none(t, &t->run->no_count);
	if (is_movs(&t->insn))
		emit_movs(t, shift);
	else
		emit_stos(t, shift);
	emit_mov_imm(&t->e, R12, 0);
	return t->sites[t->site].last < MAX_LAST ? FORM_DONE : FORM_NONE;
}

/* The host's instruction, as emit_rep() made it. */
static unsigned rep_shift(const uint8_t *rep)
{
	if (rep[0] == 0x66)
		return 1;
	if (rep[1] == 0x48)
		return 3;
	return rep[1] & 1 ? 2 : 0;
}

static bool rep_is_movs(const uint8_t *rep)
{
	unsigned at = rep[0] == 0x66 || rep[1] == 0x48 ? 2 : 1;

	return (rep[at] & 0xfe) == 0xa4;
}

bool run_string_fixup(struct run *run, const struct run_site *site, uint32_t offset, ucontext_t *uc)
{
	const uint8_t *rep = run->code.rx + offset;
	greg_t *g = uc->uc_mcontext.gregs;
	uint64_t done = (uint64_t)(g[REG_R12] - g[REG_RCX]) << rep_shift(rep);

	if (offset - site->code != site->last)
		return false;
	g[REG_RDI] = g[REG_R14] + done;
	if (rep_is_movs(rep))
		g[REG_RSI] = run->tmp + done;
	g[REG_R12] = g[REG_RCX];
	return true;
}
