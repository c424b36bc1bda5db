/* SPDX-License-Identifier: MIT */
/*
 * The stack and branches, inline (run_forms.c has how forms go).
 *
 * Where a branch leads is patched in (run_link.c), looked for in the jump cache, taken from the ring of what CALLs
 * left (run_ring.c), or is the way that a trace goes along.
 */
#include "silicon/exec/run_translate.h"

/* ---- the stack ---- */

/* REX.W goes before 66h. */
static bool narrow(const struct translation *t)
{
	return (t->insn.flags & (INSN_66 | INSN_REX_W)) == INSN_66;
}

/* r14 + r15 is where the word below RSP is. */
static void emit_push_address(struct translation *t)
{
	t->site_flags |= SITE_PUSH;
	if (run_member(t, REF_STACK))
		return;
	if (run_calls_stubs(t)) {
		emit_call_stub(&t->e, t->stubs->push);
		run_looked_up(t);
		return;
	}
	run_emit_lea_word(t, R14, R13, REG_NONE, -run_word(t));
	run_emit_check(t, DIRECT_WRITE, run_word(t));
}

static void emit_move_rsp(struct translation *t, int32_t by)
{
	run_emit_lea_word(t, R13, R13, REG_NONE, by);
}

static void emit_place(struct translation *t, uint8_t opcode, unsigned reg)
{
	const struct place *p = &t->place;

	emit_mem(&t->e, run_rex(t), opcode, reg, p->base, p->index, p->scale, p->disp);
}

static void emit_store_word(struct translation *t, unsigned reg)
{
	run_note_access(t);
	emit_place(t, 0x89, reg);
}

static void emit_load_word(struct translation *t, unsigned reg)
{
	run_note_access(t);
	emit_place(t, 0x8b, reg);
}

/* Push an immediate: sign-extended from 32 bits if it can be. */
static void emit_push_imm(struct translation *t, uint64_t val)
{
	emit_push_address(t);
	if (t->code32 || (int64_t)val == (int32_t)val) {
		run_note_access(t);
		emit_place(t, 0xc7, 0);
		emit32(&t->e, val);
	} else {
		emit_mov_imm(&t->e, RCX, val);
		emit_store_word(t, RCX);
	}
	emit_move_rsp(t, -run_word(t));
}

static void emit_push_gpr(struct translation *t, unsigned gpr)
{
	uint8_t home = run_home(t, gpr);

	emit_push_address(t);
	if (home == REG_NONE)
		run_load_gpr(t, home = RCX, gpr);
	emit_store_word(t, home);
	emit_move_rsp(t, -run_word(t));
}

/* The value waits in memory, for its address and the stack's are looked up by the same registers. */
static enum form push_memory(struct translation *t)
{
	if (t->insn.mem_size != run_word(t) || !run_operand(t, &t->ops[0]))
		return FORM_NONE;
	emit_load_word(t, R14);
	emit_abs(&t->e, 0x48, 0x89, R14, emit_low(&t->run->tmp));
	emit_push_address(t);
	emit_abs(&t->e, 0x48, 0x8b, RCX, emit_low(&t->run->tmp));
	emit_store_word(t, RCX);
	emit_move_rsp(t, -run_word(t));
	return FORM_DONE;
}

enum form run_form_push(struct translation *t)
{
	if (narrow(t))
		return FORM_NONE;
	switch (t->z.opcode) {
	case 0x50 ... 0x57:
		emit_push_gpr(t, zreg_gpr(t->ops[0].reg.value));
		return FORM_DONE;
	case 0x68:
	case 0x6a:
		emit_push_imm(t, t->insn.imm);
		return FORM_DONE;
	case 0xff:
		return push_memory(t);
	}
	return FORM_NONE;
}

static void emit_pop_address(struct translation *t)
{
	t->site_flags |= SITE_POP;
	if (run_member(t, REF_STACK))
		return;
	if (run_calls_stubs(t)) {
		emit_call_stub(&t->e, t->stubs->pop);
		run_looked_up(t);
		return;
	}
	run_emit_lea_word(t, R14, R13, REG_NONE, 0);
	run_emit_check(t, DIRECT_READ, run_word(t));
}

enum form run_form_pop(struct translation *t)
{
	uint8_t gpr, home;

	if (narrow(t) || (t->z.opcode & 0xf8) != 0x58)
		return FORM_NONE;
	gpr = zreg_gpr(t->ops[0].reg.value);
	home = run_home(t, gpr);
	emit_pop_address(t);
	if (gpr == RSP) {
		emit_load_word(t, R13);
		return FORM_DONE;
	}
	emit_load_word(t, home == REG_NONE ? RCX : home);
	if (home == REG_NONE)
		run_store_gpr(t, RCX, gpr);
	emit_move_rsp(t, run_word(t));
	return FORM_DONE;
}

enum form run_form_leave(struct translation *t)
{
	if (narrow(t))
		return FORM_NONE;
	t->site_flags |= SITE_LEAVE;
	if (!run_member(t, REF_STACK)) {
		run_emit_lea_word(t, R14, RBP, REG_NONE, 0);
		run_emit_check(t, DIRECT_READ, run_word(t));
	}
	emit_load_word(t, R14);
	run_emit_lea_word(t, R13, RBP, REG_NONE, run_word(t));
	emit_mov(&t->e, RBP, R14);
	return FORM_DONE;
}

/* ---- branches ---- */

static bool canonical(uint64_t addr)
{
	return (uint64_t)((int64_t)(addr << 16) >> 16) == addr;
}

static uint64_t relative_target(const struct translation *t)
{
	uint64_t target = t->rip + t->z.length + t->z.raw.imm[0].value.s;

	return t->code32 ? (uint32_t)target : target;
}

void run_emit_find(struct translation *t)
{
	EMIT(&t->e, "\xc4\x43\xfb\xf0\xfe"); /* rorx $,%r14,%r15 */
	emit8(&t->e, t->run->jump_bits);
	emit_lea(&t->e, R15, R14, R15, 0, 0);
	EMIT(&t->e, "\xc4\x62\x83\xf5\x3c\x25"); /* pdep jump_mask,%r15,%r15 */
	emit32(&t->e, emit_low(&t->run->jump_mask));
	emit_mem(&t->e, 0x48, 0x8b, RCX, R15, REG_NONE, 0, emit_low(&t->jumps->to[0].neg));
	emit_lea(&t->e, RCX, RCX, R14, 0, 0);
}

/* r14 is a target: to the cold path, unless the jump cache knows it; then r15 is its index, times 16. */
static void emit_find_code(struct translation *t)
{
	t->in_r15 = NULL;
	if (run_calls_stubs(t)) {
		emit_call_stub(&t->e, t->stubs->find);
		return;
	}
	run_emit_find(t);
	run_to_cold(t, emit_jmp_rcx(&t->e));
}

static void emit_jump_found(struct translation *t)
{
	run_exchange(t);
	emit_mem(&t->e, 0x40, 0xff, 4, R15, REG_NONE, 0, emit_low(&t->jumps->to[0].code));
}

/* r14 = the operand of FF /2 and FF /4. */
static bool emit_target(struct translation *t)
{
	uint8_t gpr, home;

	if (t->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
		if (t->insn.mem_size != run_word(t) || !run_operand(t, &t->ops[0]))
			return false;
		emit_load_word(t, R14);
		return true;
	}
	gpr = zreg_gpr(t->ops[0].reg.value);
	home = run_home(t, gpr);
	if (home == REG_NONE)
		run_load_gpr(t, R14, gpr);
	else
		run_emit_lea_word(t, R14, home, REG_NONE, 0);
	return true;
}

/* The rest of JMP, CALL and RET, once r14 is the target. */

static void emit_jump(struct translation *t)
{
	emit_find_code(t);
	run_retire_here(t);
	emit_jump_found(t);
}

static void emit_call(struct translation *t)
{
	emit_find_code(t);
	emit_mem(&t->e, 0x48, 0x8b, R15, R15, REG_NONE, 0, emit_low(&t->jumps->to[0].code));
	emit_abs(&t->e, 0x48, 0x89, R15, emit_low(&t->run->tmp));
	emit_push_imm(t, t->rip + t->z.length);
	run_ring_push(t, t->rip + t->z.length);
	run_retire_here(t);
	run_exchange(t);
	emit_abs(&t->e, 0x40, 0xff, 4, emit_low(&t->run->tmp));
}

static int32_t ret_bytes(const struct translation *t)
{
	return run_word(t) + (t->z.opcode == 0xc2 ? (uint16_t)t->insn.imm : 0);
}

static void emit_ret(struct translation *t)
{
	if (!t->rings)
		emit_find_code(t);
	else if (run_calls_stubs(t))
		emit_call_stub(&t->e, t->stubs->ring_pop);
	else
		run_ring_pop(t);
	emit_move_rsp(t, ret_bytes(t));
	run_retire_here(t);
	if (t->rings)
		run_ring_go(t);
	else
		emit_jump_found(t);
}

/* The register that holds the target of FF /2 or FF /4, as it is; REG_NONE: r14 is to be made that. */
static unsigned target_register(const struct translation *t)
{
	if (t->code32 || t->ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER)
		return REG_NONE;
	return run_home(t, zreg_gpr(t->ops[0].reg.value));
}

void run_elsewhere(struct translation *t)
{
	if (t->z.opcode == 0xff && target_register(t) != REG_NONE)
		emit_target(t);
	if (t->z.mnemonic == ZYDIS_MNEMONIC_RET)
		emit_ret(t);
	else if (t->z.mnemonic == ZYDIS_MNEMONIC_CALL)
		emit_call(t);
	else
		emit_jump(t);
}

/* Where the trace goes on where it led before: out of line, unless reg is that. */
static void emit_guard(struct translation *t, unsigned reg)
{
	int64_t minus = -t->now->next;

	if (minus == (int32_t)minus) {
		emit_lea(&t->e, RCX, reg, REG_NONE, 0, minus);
	} else {
		emit_mov_imm(&t->e, RCX, minus);
		emit_lea(&t->e, RCX, RCX, reg, 0, 0);
	}
	t->guard[t->nr_guards++] = (struct loose_end){.at = emit_jmp_rcx(&t->e), .site = t->site};
}

/* FF /2 or FF /4: a guard, or r14 is the target. */
static bool emit_indirect(struct translation *t)
{
	unsigned reg = target_register(t);

	if (t->follow == FOLLOW_GUARD && reg != REG_NONE) {
		emit_guard(t, reg);
		return true;
	}
	if (!emit_target(t))
		return false;
	if (t->follow == FOLLOW_GUARD)
		emit_guard(t, R14);
	return true;
}

static bool near_indirect(const struct translation *t, unsigned reg)
{
	return t->z.opcode == 0xff && t->z.raw.modrm.reg == reg;
}

enum form run_form_jmp(struct translation *t)
{
	if (narrow(t))
		return FORM_NONE;
	if (t->z.opcode == 0xe9 || t->z.opcode == 0xeb) {
		if (!canonical(relative_target(t)))
			return FORM_NONE;
		if (t->follow == FOLLOW_TARGET)
			return FORM_DONE;
		run_end(t, relative_target(t));
		return FORM_END;
	}
	if (!near_indirect(t, 4) || !emit_indirect(t))
		return FORM_NONE;
	if (t->follow == FOLLOW_GUARD)
		return FORM_DONE;
	emit_jump(t);
	return FORM_END;
}

static enum form call_indirect(struct translation *t)
{
	if (!near_indirect(t, 2) || !canonical(t->rip + t->z.length) || !emit_indirect(t))
		return FORM_NONE;
	if (t->follow == FOLLOW_GUARD) {
		emit_push_imm(t, t->rip + t->z.length);
		run_ring_push(t, t->rip + t->z.length);
		return FORM_DONE;
	}
	emit_call(t);
	return FORM_END;
}

enum form run_form_call(struct translation *t)
{
	uint64_t back = t->rip + t->z.length;

	if (narrow(t))
		return FORM_NONE;
	if (t->z.opcode != 0xe8)
		return call_indirect(t);
	if (!canonical(relative_target(t)) || !canonical(back))
		return FORM_NONE;
	emit_push_imm(t, back);
	if (run_calls_stubs(t)) {
		run_ring_call(t, back, relative_target(t));
		return FORM_END;
	}
	run_ring_push(t, back);
	if (t->follow == FOLLOW_TARGET)
		return FORM_DONE;
	run_end(t, relative_target(t));
	return FORM_END;
}

enum form run_form_ret(struct translation *t)
{
	if (narrow(t) || (t->z.opcode != 0xc3 && t->z.opcode != 0xc2))
		return FORM_NONE;
	emit_pop_address(t);
	emit_load_word(t, R14);
	if (t->follow == FOLLOW_GUARD) {
		emit_guard(t, R14);
		run_ring_drop(t);
		emit_move_rsp(t, ret_bytes(t));
		return FORM_DONE;
	}
	emit_ret(t);
	return FORM_END;
}

enum form run_form_jcc(struct translation *t)
{
	uint64_t target = relative_target(t), next = t->rip + t->z.length;

	if (narrow(t) || !canonical(target) || !canonical(next))
		return FORM_NONE;
	if (t->follow == FOLLOW_TARGET) {
		run_end_if(t, (t->z.opcode & 15) ^ 1, next);
		return FORM_DONE;
	}
	run_end_if(t, t->z.opcode & 15, target);
	if (t->follow == FOLLOW_NEXT)
		return FORM_DONE;
	run_end(t, next);
	return FORM_END;
}

bool run_target(const struct translation *t, uint64_t *ret)
{
	*ret = relative_target(t);
	return !narrow(t) && canonical(*ret) && canonical(t->rip + t->z.length);
}
