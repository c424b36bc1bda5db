/* SPDX-License-Identifier: MIT */
/*
 * JRCXZ and LOOP inline (run_translate.h), without a flag changed: rcx is free in translated code, so the host's own
 * JRCXZ looks at a copy of the guest's.
 */
#include "silicon/exec/run_translate.h"

/* jrcxz over what follows, up to emit_here(). */
static uint8_t *emit_jrcxz(struct emit *e)
{
	EMIT(e, "\xe3");
	emit8(e, 0);
	return e->at;
}

static void emit_here(struct emit *e, uint8_t *from)
{
	from[-1] = e->at - from;
}

/* rcx = the guest's count, by address size. */
static void emit_count(struct translation *t)
{
	if (t->insn.addrsize == 8)
		emit_mov(&t->e, RCX, R12);
	else
		EMIT(&t->e, "\x44\x89\xe1"); /* mov %r12d,%ecx */
}

static enum form jump_if_zero(struct translation *t, uint64_t target)
{
	uint8_t *zero;

	emit_count(t);
	zero = emit_jrcxz(&t->e);
	run_end(t, t->rip + t->z.length);
	emit_here(&t->e, zero);
	run_end(t, target);
	return FORM_END;
}

/* The count has changed when the branch is taken or not: nothing fails behind it. */
static enum form loop(struct translation *t, uint64_t target)
{
	struct emit *e = &t->e;
	uint64_t next = t->rip + t->z.length;
	uint8_t *zero;

	emit_mem(e, t->insn.addrsize == 8 ? 0x48 : 0x40, 0x8d, R12, R12, REG_NONE, 0, -1);
	emit_count(t);
	zero = emit_jrcxz(e);
	if (t->z.mnemonic != ZYDIS_MNEMONIC_LOOP)
		run_end_if(t, t->z.mnemonic == ZYDIS_MNEMONIC_LOOPE ? CC_NZ : CC_Z, next);
	run_end(t, target);
	emit_here(e, zero);
	run_end(t, next);
	return FORM_END;
}

enum form run_form_loop(struct translation *t)
{
	uint64_t target;

	if (t->insn.addrsize == 2 || !run_target(t, &target))
		return FORM_NONE;
	switch (t->z.mnemonic) {
	case ZYDIS_MNEMONIC_JRCXZ:
	case ZYDIS_MNEMONIC_JECXZ:
		return jump_if_zero(t, target);
	default:
		return loop(t, target);
	}
}
