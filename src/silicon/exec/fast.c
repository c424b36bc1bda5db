/* SPDX-License-Identifier: MIT */
/* Which instructions are run without a thunk: mnemonic, then the form of their operands, then size. */
#include "silicon/exec/decode.h"
#include "silicon/exec/fast.h"

static bool is_gpr(const ZydisDecodedOperand *op)
{
	if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	switch (ZydisRegisterGetClass(op->reg.value)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return true;
	default:
		return false;
	}
}

/* Where a general register or its second byte stands in struct cpu. */
static uint8_t place_of(ZydisRegister reg)
{
	ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
	bool high = reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;

	return 8 * ZydisRegisterGetId(whole) + high;
}

static char letter(const ZydisDecodedOperand *op)
{
	if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
		return 'm';
	if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return 'i';
	return is_gpr(op) ? 'r' : '?';
}

static enum fast_form form_of(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	static const char names[NR_FAST_FORMS][2] = {
		[FAST_RR] = {'r', 'r'}, [FAST_RI] = {'r', 'i'}, [FAST_RM] = {'r', 'm'},
		[FAST_MR] = {'m', 'r'}, [FAST_MI] = {'m', 'i'}, [FAST_RC] = {'r', 'c'},
		[FAST_MC] = {'m', 'c'}, [FAST_R] = {'r'},	[FAST_M] = {'m'},
	};
	unsigned nr = z->operand_count_visible;
	char to = nr ? letter(&ops[0]) : 0, from = nr > 1 ? letter(&ops[1]) : 0;

	if (z->meta.category == ZYDIS_CATEGORY_SHIFT)
		from = from == 'r' ? 'c' : from;
	for (enum fast_form form = 0; nr <= 2 && form < NR_FAST_FORMS; form++)
		if (names[form][0] == to && names[form][1] == from)
			return form;
	return FAST_NONE;
}

static void set_operand(struct insn *insn, const ZydisDecodedOperand *op, uint8_t *place)
{
	if (is_gpr(op))
		*place = place_of(op->reg.value);
	else if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		insn->imm = op->imm.value.s;
}

static const struct fast_op *find_op(const ZydisDecodedInstruction *z,
				     const ZydisDecodedOperand *ops, const struct insn *insn)
{
	const struct fast_op *op = fast_alu_op(z->mnemonic);

	if (z->meta.category == ZYDIS_CATEGORY_SETCC)
		return fast_setcc_op(insn->opcode & 15);
	if (z->meta.category == ZYDIS_CATEGORY_CMOV)
		return fast_cmov_op(insn->opcode & 15);
	return op ? op : fast_move_op(z->mnemonic, ops[1].size);
}

static bool is_branch(const ZydisDecodedInstruction *z)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_CALL:
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_RET:
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_POP:
		return z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;
	default:
		return false;
	}
}

/* Jcc, as against JCXZ and LOOP. */
static bool is_jcc(const ZydisDecodedInstruction *z)
{
	if (z->meta.category != ZYDIS_CATEGORY_COND_BR)
		return false;
	return z->opcode_map == ZYDIS_OPCODE_MAP_0F ? (z->opcode & 0xf0) == 0x80
						    : (z->opcode & 0xf0) == 0x70;
}

insn_fn *fast_choose(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		     struct insn *insn)
{
	bool code64 = (insn->mode & KEY_CODE) == CODE_64;
	const struct fast_op *op;
	enum fast_form form;

	if (insn->flags & INSN_LOCK)
		return NULL;
	if (is_jcc(z))
		return code64 && !(insn->flags & INSN_66) ? fast_jcc(insn->opcode & 15) : NULL;
	if (is_branch(z) && code64)
		set_operand(insn, &ops[0], &insn->dst);
	if (is_branch(z))
		return code64 ? fast_stack(insn) : NULL;
	op = find_op(z, ops, insn);
	form = form_of(z, ops);
	if (!op || form == FAST_NONE || !ops[0].size)
		return NULL;
	set_operand(insn, &ops[0], &insn->dst);
	if (z->operand_count_visible > 1)
		set_operand(insn, &ops[1], &insn->src);
	return op->run[form][__builtin_ctz(ops[0].size / 8)];
}
