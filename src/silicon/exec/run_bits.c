/* SPDX-License-Identifier: MIT */
/*
 * Forms whose address is made of more than a memory operand (run_translate.h): BT, BTS, BTR, BTC with a register
 * index, which reaches beyond the operand, and XLAT.
 *
 * The word that holds the bit is looked up, and the host's own instruction runs on it with the index within it. No flag
 * is touched before: SARX and PEXT do the arithmetic.
 */
#include "silicon/exec/run_translate.h"

static unsigned log2_size(const struct translation *t)
{
	return __builtin_ctz(t->insn.opsize);
}

/* The index register's home, or free, loaded. */
static unsigned index_register(struct translation *t, unsigned free)
{
	uint8_t home = run_home(t, t->insn.reg);

	if (home != REG_NONE)
		return home;
	run_load_gpr(t, free, t->insn.reg);
	return free;
}

/* r15 = the index, sign-extended from its size. */
static void emit_signed_index(struct translation *t)
{
	unsigned from = index_register(t, R15);
	struct emit *e = &t->e;

	if (t->insn.opsize == 8) {
		emit_mov(e, R15, from);
		return;
	}
	emit8(e, 0x4c | from >> 3);
	if (t->insn.opsize == 4)
		emit8(e, 0x63); /* movslq */
	else
		EMIT(e, "\x0f\xbf"); /* movswq */
	emit8(e, 0xf8 | (from & 7));
}

/* r14 += the offset of the index's word. */
static void emit_add_words(struct translation *t)
{
	unsigned log2 = log2_size(t);

	emit_signed_index(t);
	emit_mov_imm(&t->e, RCX, 3 + log2);
	EMIT(&t->e, "\xc4\x42\xf2\xf7\xff"); /* sarx %rcx,%r15,%r15 */
	emit_mem(&t->e, run_rex(t), 0x8d, R14, R14, R15, log2, 0);
}

/* rcx = the index within its word. */
static void emit_index_within(struct translation *t)
{
	unsigned from = index_register(t, RCX);
	struct emit *e = &t->e;

	EMIT(e, "\xc4\xe2"); /* pext bit_mask,%from,%rcx */
	emit8(e, 0x82 | (~from & 15) << 3);
	EMIT(e, "\xf5\x0c\x25");
	emit32(e, emit_low(&t->run->bit_mask[log2_size(t)]));
}

/* op %rcx,(%r14,%r15) of the operand's size. */
static void emit_bit_operation(struct translation *t)
{
	struct emit *e = &t->e;

	if (t->insn.opsize == 2)
		emit8(e, 0x66);
	if (t->insn.flags & INSN_LOCK)
		emit8(e, 0xf0);
	emit8(e, t->insn.opsize == 8 ? 0x4b : 0x43);
	emit8(e, 0x0f);
	emit8(e, t->insn.opcode);
	EMIT(e, "\x0c\x3e");
}

enum form run_form_bit(struct translation *t)
{
	bool write = t->insn.mem_op & ACCESS_WRITE;

	if (t->insn.addrsize != run_word(t) || !run_linear(t))
		return FORM_NONE;
	emit_add_words(t);
	run_look_up(t, write ? DIRECT_WRITE : DIRECT_READ, t->insn.opsize);
	emit_index_within(t);
	run_note_access(t);
	emit_bit_operation(t);
	return FORM_DONE;
}

enum form run_form_xlat(struct translation *t)
{
	struct emit *e = &t->e;

	if (t->insn.addrsize != 8)
		return FORM_NONE;
	EMIT(e, "\x44\x0f\xb6\xf0"); /* movzbl %al,%r14d */
	emit_lea(e, R14, R14, RBX, 0, 0);
	if (t->insn.seg >= SEG_FS) {
		emit_load_cpu(e, R15,
			      offsetof(struct cpu, seg) + t->insn.seg * sizeof(struct segment) +
				      offsetof(struct segment, base));
		emit_lea(e, R14, R14, R15, 0, 0);
	}
	run_look_up(t, DIRECT_READ, 1);
	t->site_flags &= ~SITE_MEM;
	run_note_access(t);
	emit_mem(e, 0x40, 0x8a, RAX, R14, R15, 0, 0);
	return FORM_DONE;
}
