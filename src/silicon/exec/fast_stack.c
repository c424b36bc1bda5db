/* SPDX-License-Identifier: MIT */
/*
 * Near branches, PUSH and POP in 64-bit mode with 64-bit operands. What does not hit in the TLB, and what leads
 * to an address that is not canonical, goes to emul_*.c whole.
 */
#include "silicon/exec/emul.h"
#include "silicon/exec/fast.h"

/* Write below RSP, which the caller moves then. */
static inline bool push(struct cpu *cpu, uint64_t val)
{
	uint8_t *ptr = tlb_hit_write(cpu, cpu->gpr[RSP] - 8, 8);

	return likely(ptr) && host_store_64(ptr, val);
}

static inline bool pop(const struct cpu *cpu, uint64_t *ret)
{
	const uint8_t *ptr = tlb_hit_read(cpu, cpu->gpr[RSP], 8);

	return likely(ptr) && host_load_64(ptr, ret);
}

/* ---- branches ---- */

static enum result jmp_near(struct cpu *cpu, const struct insn *insn)
{
	uint64_t to = cpu->rip + insn->len + insn->imm;

	if (unlikely(!fast_canonical(to)))
		return emul_jmp(cpu, insn);
	cpu->rip = to;
	return RESULT_OK;
}

static enum result jmp_reg(struct cpu *cpu, const struct insn *insn)
{
	uint64_t to = fast_get_64(cpu, insn->dst);

	if (unlikely(!fast_canonical(to)))
		return emul_jmp(cpu, insn);
	cpu->rip = to;
	return RESULT_OK;
}

static enum result jmp_mem(struct cpu *cpu, const struct insn *insn)
{
	uint64_t to;

	if (unlikely(!fast_peek_64(cpu, insn, &to) || !fast_canonical(to)))
		return emul_jmp(cpu, insn);
	cpu->rip = to;
	return RESULT_OK;
}

static inline enum result call_to(struct cpu *cpu, const struct insn *insn, uint64_t to)
{
	if (unlikely(!fast_canonical(to) || !push(cpu, cpu->rip + insn->len)))
		return emul_call(cpu, insn);
	cpu->gpr[RSP] -= 8;
	cpu->rip = to;
	return RESULT_OK;
}

static enum result call_near(struct cpu *cpu, const struct insn *insn)
{
	return call_to(cpu, insn, cpu->rip + insn->len + insn->imm);
}

static enum result call_reg(struct cpu *cpu, const struct insn *insn)
{
	return call_to(cpu, insn, fast_get_64(cpu, insn->dst));
}

static enum result call_mem(struct cpu *cpu, const struct insn *insn)
{
	uint64_t to;

	return likely(fast_peek_64(cpu, insn, &to)) ? call_to(cpu, insn, to) : emul_call(cpu, insn);
}

static enum result ret_near(struct cpu *cpu, const struct insn *insn)
{
	uint64_t to;

	if (unlikely(!pop(cpu, &to) || !fast_canonical(to)))
		return emul_ret(cpu, insn);
	cpu->gpr[RSP] += 8;
	cpu->rip = to;
	return RESULT_OK;
}

/* ---- stack ---- */

static inline enum result push_value(struct cpu *cpu, const struct insn *insn, uint64_t val)
{
	if (unlikely(!push(cpu, val)))
		return emul_push_any(cpu, insn);
	cpu->gpr[RSP] -= 8;
	return insn_next(cpu, insn);
}

static enum result push_reg(struct cpu *cpu, const struct insn *insn)
{
	return push_value(cpu, insn, fast_get_64(cpu, insn->dst));
}

static enum result push_imm(struct cpu *cpu, const struct insn *insn)
{
	return push_value(cpu, insn, insn->imm);
}

static enum result push_mem(struct cpu *cpu, const struct insn *insn)
{
	uint64_t val;

	return likely(fast_peek_64(cpu, insn, &val)) ? push_value(cpu, insn, val)
						     : emul_push_any(cpu, insn);
}

static enum result pop_reg(struct cpu *cpu, const struct insn *insn)
{
	uint64_t val;

	if (unlikely(!pop(cpu, &val)))
		return emul_pop_any(cpu, insn);
	cpu->gpr[RSP] += 8;
	fast_put_64(cpu, insn->dst, val);
	return insn_next(cpu, insn);
}

/* ---- the choice ---- */

/* Opcode FF by its extension: register and memory form. */
static insn_fn *const group5[8][2] = {
	[2] = {call_reg, call_mem},
	[4] = {jmp_reg, jmp_mem},
	[6] = {NULL, push_mem},
};

insn_fn *fast_stack(const struct insn *insn)
{
	if (insn->flags & (INSN_66 | INSN_LOCK))
		return NULL;
	switch (insn->opcode) {
	case 0x50 ... 0x57:
		return push_reg;
	case 0x58 ... 0x5f:
		return pop_reg;
	case 0x68:
	case 0x6a:
		return push_imm;
	case 0xc3:
		return ret_near;
	case 0xe8:
		return call_near;
	case 0xe9:
	case 0xeb:
		return jmp_near;
	case 0xff:
		return group5[emul_modrm_reg(insn)][!!(insn->flags & INSN_MEM)];
	}
	return NULL;
}
