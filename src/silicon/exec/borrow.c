/* SPDX-License-Identifier: MIT */
/*
 * Which borrowed instruction is run how (docs: borrowing).
 *
 * Most need a thunk and nothing else. The rows below name the mnemonics that do not: what accesses
 * nothing is skipped, what computes its own address or looks at single elements has its own
 * function. What touches flags or registers beyond the thunks' is refused, and so raises #UD.
 */
#include "silicon/exec/borrow.h"
#include "silicon/exec/thunk.h"

/* Accesses nothing and never faults. */
static const uint16_t nops[] = {
	ZYDIS_MNEMONIC_NOP,	    ZYDIS_MNEMONIC_PAUSE,      ZYDIS_MNEMONIC_PREFETCH,
	ZYDIS_MNEMONIC_PREFETCHNTA, ZYDIS_MNEMONIC_PREFETCHT0, ZYDIS_MNEMONIC_PREFETCHT1,
	ZYDIS_MNEMONIC_PREFETCHT2,  ZYDIS_MNEMONIC_PREFETCHW,  ZYDIS_MNEMONIC_PREFETCHWT1,
	ZYDIS_MNEMONIC_CLDEMOTE,    ZYDIS_MNEMONIC_ENDBR32,    ZYDIS_MNEMONIC_ENDBR64,
};

/* x87 instructions that leave FIP, FDP and FOP alone. */
static const uint16_t x87_control[] = {
	ZYDIS_MNEMONIC_FNCLEX, ZYDIS_MNEMONIC_FLDCW, ZYDIS_MNEMONIC_FNSTCW, ZYDIS_MNEMONIC_FNSTSW,
	ZYDIS_MNEMONIC_FNINIT, ZYDIS_MNEMONIC_FWAIT, ZYDIS_MNEMONIC_FNOP,
};

static const uint16_t bits[] = {
	ZYDIS_MNEMONIC_BT,
	ZYDIS_MNEMONIC_BTC,
	ZYDIS_MNEMONIC_BTR,
	ZYDIS_MNEMONIC_BTS,
};

static bool listed(const uint16_t *list, size_t nr, ZydisMnemonic mnemonic)
{
	for (size_t i = 0; i < nr; i++)
		if (list[i] == mnemonic)
			return true;
	return false;
}

#define LISTED(list, mnemonic) listed(list, ARRAY_SIZE(list), mnemonic)

bool borrow_plain(const ZydisDecodedInstruction *z)
{
	switch (z->meta.category) {
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_STRINGOP:
	case ZYDIS_CATEGORY_MISC:
		return true;
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_RET:
		return z->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR &&
		       z->mnemonic != ZYDIS_MNEMONIC_IRET && z->mnemonic != ZYDIS_MNEMONIC_IRETD &&
		       z->mnemonic != ZYDIS_MNEMONIC_IRETQ;
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_POP:
		return z->mnemonic == ZYDIS_MNEMONIC_PUSH ||
		       (z->mnemonic == ZYDIS_MNEMONIC_POP &&
			(z->opcode == 0x8f || (z->opcode & 0xf8) == 0x58));
	default:
		return false;
	}
}

static bool uses_fpu(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	for (unsigned i = 0; i < z->operand_count; i++) {
		if (ops[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (ZydisRegisterGetClass(ops[i].reg.value)) {
		case ZYDIS_REGCLASS_X87:
		case ZYDIS_REGCLASS_MMX:
		case ZYDIS_REGCLASS_XMM:
		case ZYDIS_REGCLASS_YMM:
		case ZYDIS_REGCLASS_ZMM:
		case ZYDIS_REGCLASS_MASK:
		case ZYDIS_REGCLASS_TMM:
			return true;
		default:
			break;
		}
	}
	switch (z->meta.isa_ext) {
	case ZYDIS_ISA_EXT_X87:
	case ZYDIS_ISA_EXT_AVX:
	case ZYDIS_ISA_EXT_AMX_TILE:
	case ZYDIS_ISA_EXT_MMX:
		return true;
	default:
		return z->meta.isa_set == ZYDIS_ISA_SET_SSEMXCSR || z->fpu_flags;
	}
}

static bool is_x87(const ZydisDecodedInstruction *z)
{
	return z->meta.isa_ext == ZYDIS_ISA_EXT_X87 || z->meta.isa_set == ZYDIS_ISA_SET_FCMOV ||
	       z->meta.isa_set == ZYDIS_ISA_SET_SSE3X87;
}

/* F3 90 with REX.B is XCHG R8,RAX, whatever the decoder calls it. */
static bool pause_is_xchg(const ZydisDecodedInstruction *z)
{
	return z->mnemonic == ZYDIS_MNEMONIC_PAUSE && z->attributes & ZYDIS_ATTRIB_HAS_REX &&
	       z->raw.rex.B;
}

static bool choose_xchg_r8(struct exec_cache *c, const ZydisDecodedInstruction *z,
			   struct insn *insn)
{
	const uint8_t bytes[2] = {z->raw.rex.W ? 0x49 : 0x41, 0x90};
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction xchg;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&c->host_decoder, bytes, 2, &xchg, ops)))
		return false;
	insn->run = run_reg;
	return thunk_make(c, &xchg, ops, insn);
}

static bool bit_index_in_register(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	return LISTED(bits, z->mnemonic) && ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
	       ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

/* Natural alignment of the operand under EFLAGS.AC; 0 where it is not checked. */
static uint8_t alignment_of(const ZydisDecodedInstruction *z, const struct insn *insn)
{
	unsigned size = insn->mem_size;

	if (z->meta.category == ZYDIS_CATEGORY_CLFLUSHOPT || size > 8)
		return size > 8 && z->mnemonic != ZYDIS_MNEMONIC_CMPXCHG16B ? 8 : 0;
	return size && !(size & (size - 1)) ? size : 0;
}

static const uint16_t unaligned[] = {
	ZYDIS_MNEMONIC_MOVUPS,	  ZYDIS_MNEMONIC_MOVUPD,    ZYDIS_MNEMONIC_MOVDQU,
	ZYDIS_MNEMONIC_LDDQU,	  ZYDIS_MNEMONIC_PCMPESTRI, ZYDIS_MNEMONIC_PCMPESTRM,
	ZYDIS_MNEMONIC_PCMPISTRI, ZYDIS_MNEMONIC_PCMPISTRM,
};

/* The multiple that the operand must stand on in any case (SDM, exception types 1, 2, 4 and E1). */
static uint8_t must_align(const ZydisDecodedInstruction *z, const struct insn *insn)
{
	if (z->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B)
		return 16;
	switch (z->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_SSE1:
	case ZYDIS_EXCEPTION_CLASS_SSE2:
	case ZYDIS_EXCEPTION_CLASS_SSE4:
		return insn->mem_size == 16 && !LISTED(unaligned, z->mnemonic) ? 16 : 0;
	case ZYDIS_EXCEPTION_CLASS_AVX1:
	case ZYDIS_EXCEPTION_CLASS_E1:
	case ZYDIS_EXCEPTION_CLASS_E1NF:
		return z->avx.vector_length / 8;
	default:
		return 0;
	}
}

static bool only_arithmetic_flags(const ZydisDecodedInstruction *z)
{
	const ZydisAccessedFlags *f = z->cpu_flags;

	return !f || !((f->tested | f->modified | f->set_0 | f->set_1 | f->undefined) &
		       ~(ZydisAccessedFlagsMask)FLAGS_ARITH);
}

static void choose_run(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		       struct insn *insn)
{
	if (uses_fpu(z, ops))
		insn->flags |= INSN_FPU;
	if (is_x87(z) && !LISTED(x87_control, z->mnemonic))
		insn->flags |= INSN_X87;
	insn->align = alignment_of(z, insn);
	insn->must_align = must_align(z, insn);
	if (insn->align > 1)
		insn->flags |= INSN_ALIGN;
	if (!(insn->flags & INSN_MEM))
		insn->run = insn->flags & INSN_FPU ? run_reg_fpu : run_reg;
	else if (bit_index_in_register(z, ops))
		insn->run = run_bit;
	else
		insn->run = run_mem;
}

bool borrow_choose(struct exec_cache *c, const ZydisDecodedInstruction *z,
		   const ZydisDecodedOperand *ops, struct insn *insn)
{
	if (pause_is_xchg(z))
		return choose_xchg_r8(c, z, insn);
	if (LISTED(nops, z->mnemonic) || z->meta.category == ZYDIS_CATEGORY_WIDENOP) {
		insn->run = run_nop;
		insn->flags |= INSN_PLAIN;
		return true;
	}
	if (z->meta.category == ZYDIS_CATEGORY_GATHER ||
	    z->meta.category == ZYDIS_CATEGORY_AVX2GATHER ||
	    z->meta.category == ZYDIS_CATEGORY_SCATTER ||
	    z->meta.category == ZYDIS_CATEGORY_SYSTEM || !only_arithmetic_flags(z))
		return false;
	choose_run(z, ops, insn);
	return thunk_make(c, z, ops, insn);
}
