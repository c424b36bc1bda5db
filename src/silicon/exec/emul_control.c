/* SPDX-License-Identifier: MIT */
/*
 * Control transfers (SDM, instruction reference: JMP, Jcc, CALL, RET, LOOPcc, IRET). Near ones are done
 * here: the target is wrapped to the operand size and checked against the CS limit or for being
 * canonical before the stack is touched. Far ones are sys/'s.
 */
#include "silicon/exec/emul.h"

static unsigned branch_opsize(const struct cpu *cpu, const struct insn *insn)
{
	if (cpu->mode.code != CODE_64)
		return emul_opsize(cpu, insn);
	if (!(insn->flags & INSN_66) || (insn->flags & INSN_REX_W) ||
	    model_branch_66_ignored(cpu->model))
		return 8;
	return 2;
}

/* Check a target that is wrapped already. */
static enum result check_target(struct cpu *cpu, uint64_t target)
{
	if (cpu->mode.code == CODE_64) {
		if (unlikely(!gva_canonical(cpu, target)))
			return fault_gp(cpu, 0);
	} else if (unlikely(target > cpu->seg[SEG_CS].limit)) {
		return fault_gp(cpu, 0);
	}
	return RESULT_OK;
}

static uint64_t relative_target(const struct cpu *cpu, const struct insn *insn)
{
	return (cpu->rip + insn->len + insn->imm) & emul_mask(branch_opsize(cpu, insn));
}

static enum result jump_to(struct cpu *cpu, uint64_t target)
{
	enum result r = check_target(cpu, target);

	if (!r)
		cpu->rip = target;
	return r;
}

static enum result call_to(struct cpu *cpu, const struct insn *insn, uint64_t target)
{
	unsigned size = branch_opsize(cpu, insn);
	uint64_t sp = cpu->gpr[RSP];
	enum result r = check_target(cpu, target);

	if (r)
		return r;
	r = emul_push(cpu, &sp, size, (cpu->rip + insn->len) & emul_mask(size));
	if (r)
		return r;
	emul_set_sp(cpu, sp);
	cpu->rip = target;
	return RESULT_OK;
}

/* Target of an indirect near branch. */
static enum result indirect_target(struct cpu *cpu, const struct insn *insn, uint64_t *ret)
{
	return emul_read_rm(cpu, insn, branch_opsize(cpu, insn), ret);
}

/* ---- far forms ---- */

static unsigned far_opsize(const struct cpu *cpu, const struct insn *insn)
{
	if ((insn->flags & INSN_REX_W) && !model_far_rex_w(cpu->model))
		return insn->flags & INSN_66 ? 2 : 4;
	return emul_opsize(cpu, insn);
}

static bool is_far(const struct insn *insn)
{
	if (insn->opcode == 0xff)
		return emul_modrm_reg(insn) == 3 || emul_modrm_reg(insn) == 5;
	return insn->opcode == 0xea || insn->opcode == 0x9a;
}

struct far_pointer {
	unsigned size;
	uint64_t off, sel;
};

static enum result far_target(struct cpu *cpu, const struct insn *insn, struct far_pointer *ret)
{
	enum result r;

	ret->size = far_opsize(cpu, insn);
	if (!(insn->flags & INSN_MEM)) {
		ret->off = insn->imm & emul_mask(ret->size);
		ret->sel = (uint16_t)insn->imm2;
		return RESULT_OK;
	}
	r = seg_read(cpu, insn->seg, insn_ea(cpu, insn), ret->size, &ret->off);
	if (r)
		return r;
	return seg_read(cpu, insn->seg, emul_ea_plus(cpu, insn, ret->size), 2, &ret->sel);
}

static enum result jmp_far(struct cpu *cpu, const struct insn *insn)
{
	struct far_pointer to;
	enum result r = far_target(cpu, insn, &to);

	return r ? r : sys_jmp_far(cpu, to.sel, to.off, to.size, cpu->rip + insn->len);
}

static enum result call_far(struct cpu *cpu, const struct insn *insn)
{
	struct far_pointer to;
	enum result r = far_target(cpu, insn, &to);

	return r ? r : sys_call_far(cpu, to.sel, to.off, to.size, cpu->rip + insn->len);
}

/* ---- handlers ---- */

enum result emul_jmp(struct cpu *cpu, const struct insn *insn)
{
	uint64_t target;
	enum result r;

	if (insn->opcode == 0xe9 || insn->opcode == 0xeb)
		return jump_to(cpu, relative_target(cpu, insn));
	if (is_far(insn))
		return jmp_far(cpu, insn);
	r = indirect_target(cpu, insn, &target);
	return r ? r : jump_to(cpu, target);
}

enum result emul_call(struct cpu *cpu, const struct insn *insn)
{
	uint64_t target;
	enum result r;

	if (insn->opcode == 0xe8)
		return call_to(cpu, insn, relative_target(cpu, insn));
	if (is_far(insn))
		return call_far(cpu, insn);
	r = indirect_target(cpu, insn, &target);
	return r ? r : call_to(cpu, insn, target);
}

static enum result ret_near(struct cpu *cpu, const struct insn *insn, unsigned extra)
{
	uint64_t sp = cpu->gpr[RSP], target;
	enum result r = emul_pop(cpu, &sp, branch_opsize(cpu, insn), &target);

	if (r)
		return r;
	r = check_target(cpu, target);
	if (r)
		return r;
	emul_set_sp(cpu, sp + extra);
	cpu->rip = target;
	return RESULT_OK;
}

enum result emul_ret(struct cpu *cpu, const struct insn *insn)
{
	switch (insn->opcode) {
	case 0xc3:
		return ret_near(cpu, insn, 0);
	case 0xc2:
		return ret_near(cpu, insn, (uint16_t)insn->imm);
	case 0xca:
		return sys_ret_far(cpu, emul_opsize(cpu, insn), (uint16_t)insn->imm);
	}
	return sys_ret_far(cpu, emul_opsize(cpu, insn), 0);
}

/* Condition code cc of the opcode's low four bits, on flags as LAHF and SETO give them. */
static bool condition(uint64_t aflags, unsigned cc)
{
	bool of = aflags & 1, sf = aflags >> 15 & 1, yes = false;

	switch (cc >> 1) {
	case 0:
		yes = of;
		break;
	case 1:
		yes = aflags & FLAG_CF << 8;
		break;
	case 2:
		yes = aflags & FLAG_ZF << 8;
		break;
	case 3:
		yes = aflags & (FLAG_CF | FLAG_ZF) << 8;
		break;
	case 4:
		yes = sf;
		break;
	case 5:
		yes = aflags & FLAG_PF << 8;
		break;
	case 6:
		yes = sf != of;
		break;
	case 7:
		yes = sf != of || (aflags & FLAG_ZF << 8);
		break;
	}
	return yes != (cc & 1);
}

enum result emul_jcc(struct cpu *cpu, const struct insn *insn)
{
	if (!condition(cpu->aflags, insn->opcode & 15))
		return insn_next(cpu, insn);
	return jump_to(cpu, relative_target(cpu, insn));
}

enum result emul_jcxz(struct cpu *cpu, const struct insn *insn)
{
	if (reg_read(cpu, RCX, insn->addrsize, false))
		return insn_next(cpu, insn);
	return jump_to(cpu, relative_target(cpu, insn));
}

/* LOOPNE, LOOPE and LOOP are E0, E1 and E2; the count's width is the address size. */
enum result emul_loop(struct cpu *cpu, const struct insn *insn)
{
	uint64_t count = (cpu->gpr[RCX] - 1) & emul_mask(insn->addrsize);
	bool zf = cpu->aflags & FLAG_ZF << 8;
	bool taken = count && (insn->opcode == 0xe2 || zf == (insn->opcode == 0xe1));
	enum result r = taken ? jump_to(cpu, relative_target(cpu, insn)) : insn_next(cpu, insn);

	if (!r)
		reg_write(cpu, RCX, insn->addrsize, false, count);
	return r;
}

enum result emul_iret(struct cpu *cpu, const struct insn *insn)
{
	if (cpu_intercept(cpu, INTERCEPT_IRET, 0))
		return EMUL_INTERCEPTED;
	return sys_iret(cpu, emul_opsize(cpu, insn), cpu->rip + insn->len);
}

enum result emul_rsm(struct cpu *cpu, const struct insn *insn)
{
	if (cpu->in_smm && cpu_intercept(cpu, INTERCEPT_RSM, 0))
		return EMUL_INTERCEPTED;
	return sys_rsm(cpu);
}

/* ---- for records of branches ---- */

/* What a condition looked at is as it was: flags, and the count behind LOOP's subtraction. */
static bool loop_taken(const struct cpu *cpu, const struct insn *insn)
{
	bool zf = cpu->aflags & FLAG_ZF << 8;

	return reg_read(cpu, RCX, insn->addrsize, false) &&
	       (insn->opcode == 0xe2 || zf == (insn->opcode == 0xe1));
}

bool insn_branched(const struct cpu *cpu, const struct insn *insn)
{
	static insn_fn *const always[] = {emul_jmp,	emul_call,   emul_ret,	    emul_iret,
					  emul_syscall, emul_sysret, emul_sysenter, emul_sysexit};
	insn_fn *handler = insn_emulated(insn->op);

	if (handler == emul_jcc)
		return condition(cpu->aflags, insn->opcode & 15);
	if (handler == emul_jcxz)
		return !reg_read(cpu, RCX, insn->addrsize, false);
	if (handler == emul_loop)
		return loop_taken(cpu, insn);
	for (unsigned i = 0; i < ARRAY_SIZE(always); i++)
		if (handler == always[i])
			return true;
	return false;
}
