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
	case ZYDIS_CATEGORY_AMX_TILE:
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

/* Of flags that an instruction leaves alone, Zydis may give an empty record. */
static bool touches(const ZydisAccessedFlags *f)
{
	return f && (f->tested | f->modified | f->set_0 | f->set_1 | f->undefined);
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
	case ZYDIS_ISA_EXT_BASE:
	case ZYDIS_ISA_EXT_LONGMODE:
		return touches(z->fpu_flags);
	default:
		/* Conversions from memory to general registers go by MXCSR alone. */
		return z->meta.isa_set == ZYDIS_ISA_SET_SSEMXCSR || touches(z->fpu_flags) ||
		       z->meta.category == ZYDIS_CATEGORY_CONVERT;
	}
}

static bool is_x87(const ZydisDecodedInstruction *z)
{
	return z->meta.isa_ext == ZYDIS_ISA_EXT_X87 || z->meta.category == ZYDIS_CATEGORY_X87_ALU ||
	       z->meta.isa_set == ZYDIS_ISA_SET_FCMOV;
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
	if (z->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B || z->mnemonic == ZYDIS_MNEMONIC_CVTPD2PI ||
	    z->mnemonic == ZYDIS_MNEMONIC_CVTTPD2PI)
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

/* ---- masks ---- */

/* Types whose faults no mask suppresses: SDM, EVEX exception types "NF". */
static const uint16_t whole_operand[] = {
	ZYDIS_MNEMONIC_VDBPSADBW,
	ZYDIS_MNEMONIC_VGF2P8AFFINEQB,
	ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB,
	ZYDIS_MNEMONIC_VCVTNE2PS2BF16,
};

static bool faults_anyway(const ZydisDecodedInstruction *z)
{
	if (LISTED(whole_operand, z->mnemonic))
		return true;
	switch (z->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_E1NF:
	case ZYDIS_EXCEPTION_CLASS_E2NF:
	case ZYDIS_EXCEPTION_CLASS_E3NF:
	case ZYDIS_EXCEPTION_CLASS_E4NF:
	case ZYDIS_EXCEPTION_CLASS_E5NF:
	case ZYDIS_EXCEPTION_CLASS_E6NF:
	case ZYDIS_EXCEPTION_CLASS_E9NF:
	case ZYDIS_EXCEPTION_CLASS_E10NF:
	case ZYDIS_EXCEPTION_CLASS_E11NF:
		return true;
	default:
		return false;
	}
}

static const ZydisDecodedOperand *memory_operand(const ZydisDecodedInstruction *z,
						 const ZydisDecodedOperand *ops)
{
	for (unsigned i = 0; i < z->operand_count_visible; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return &ops[i];
	return NULL;
}

/* How many bits of the mask count: elements of what is written, or compared. */
static unsigned mask_elements(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	const ZydisDecodedOperand *op = &ops[0];

	if (op->type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    ZydisRegisterGetClass(op->reg.value) != ZYDIS_REGCLASS_MASK)
		return op->element_count;
	for (unsigned i = 1; i < z->operand_count_visible; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ops[i].encoding != ZYDIS_OPERAND_ENCODING_MASK)
			return ops[i].element_count;
	return memory_operand(z, ops)->element_count;
}

static const uint16_t packed_bytes[] = {
	ZYDIS_MNEMONIC_VPCOMPRESSB,
	ZYDIS_MNEMONIC_VPCOMPRESSW,
	ZYDIS_MNEMONIC_VPEXPANDB,
	ZYDIS_MNEMONIC_VPEXPANDW,
};

static bool packed(const ZydisDecodedInstruction *z)
{
	return z->meta.category == ZYDIS_CATEGORY_COMPRESS ||
	       z->meta.category == ZYDIS_CATEGORY_EXPAND || LISTED(packed_bytes, z->mnemonic);
}

static void set_mask(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		     struct insn *insn)
{
	const ZydisDecodedOperand *mem = memory_operand(z, ops);
	unsigned nr = mask_elements(z, ops), nr_mem = mem->size / mem->element_size;
	bool folded = z->avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID ||
		      z->meta.category == ZYDIS_CATEGORY_BROADCAST;

	/* Its mask is of bytes, whatever the decoder says. */
	if (z->mnemonic == ZYDIS_MNEMONIC_VPSHUFBITQMB)
		nr = nr_mem = insn->mem_size;
	insn->whole = faults_anyway(z);
	insn->mask_reg = ZydisRegisterGetId(z->avx.mask.reg);
	insn->mask_kind = packed(z) ? MASK_PACKED : folded ? MASK_FOLDED : MASK_BITS;
	/* Of a wider register, scalars and narrowing conversions write only as much as memory has. */
	insn->nr_mask = folded ? nr : min(nr, nr_mem);
	insn->nr_elem = folded ? nr_mem : insn->nr_mask;
	insn->elem = insn->mem_size / insn->nr_elem;
}

static void set_sign_mask(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
			  struct insn *insn)
{
	insn->mask_kind = MASK_SIGN;
	insn->mask_reg = ZydisRegisterGetId(ops[1].reg.value);
	if (ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    ops[2].type == ZYDIS_OPERAND_TYPE_REGISTER)
		insn->mask_reg = ZydisRegisterGetId(ops[2].reg.value);
	insn->elem = (z->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS ||
		      z->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD)
			     ? 4
			     : 8;
	insn->nr_elem = insn->mem_size / insn->elem;
}

static const uint16_t sign_masked[] = {
	ZYDIS_MNEMONIC_VMASKMOVPS,
	ZYDIS_MNEMONIC_VMASKMOVPD,
	ZYDIS_MNEMONIC_VPMASKMOVD,
	ZYDIS_MNEMONIC_VPMASKMOVQ,
};

static bool masked(const ZydisDecodedInstruction *z, const struct insn *insn)
{
	return z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX &&
	       z->avx.mask.reg != ZYDIS_REGISTER_NONE && z->avx.mask.reg != ZYDIS_REGISTER_K0 &&
	       (!faults_anyway(z) || insn->mem_op & ACCESS_WRITE);
}

static bool is_gather(const ZydisDecodedInstruction *z)
{
	return z->meta.category == ZYDIS_CATEGORY_GATHER ||
	       z->meta.category == ZYDIS_CATEGORY_AVX2GATHER ||
	       z->meta.category == ZYDIS_CATEGORY_SCATTER;
}

static unsigned gather_index_size(ZydisMnemonic mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_VGATHERQPD:
	case ZYDIS_MNEMONIC_VGATHERQPS:
	case ZYDIS_MNEMONIC_VPGATHERQD:
	case ZYDIS_MNEMONIC_VPGATHERQQ:
	case ZYDIS_MNEMONIC_VSCATTERQPD:
	case ZYDIS_MNEMONIC_VSCATTERQPS:
	case ZYDIS_MNEMONIC_VPSCATTERQD:
	case ZYDIS_MNEMONIC_VPSCATTERQQ:
		return 8;
	default:
		return 4;
	}
}

/* VPGATHERDQ: operand sizes differ between index and data; the narrower count rules. */
static bool choose_gather(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
			  struct insn *insn)
{
	const ZydisDecodedOperand *mem = &ops[0], *data = &ops[0];
	unsigned index_bytes;

	for (unsigned i = 0; i < z->operand_count_visible; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			mem = &ops[i];
		else if (ops[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
			data = &ops[i];
	if (data->type != ZYDIS_OPERAND_TYPE_REGISTER || mem->type != ZYDIS_OPERAND_TYPE_MEMORY)
		return false; /* gather prefetches */
	insn->elem = data->element_size / 8;
	insn->mem_op = z->meta.category == ZYDIS_CATEGORY_SCATTER ? ACCESS_WRITE : ACCESS_READ;
	insn->index_elem = gather_index_size(z->mnemonic);
	index_bytes = ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, mem->mem.index) / 8;
	insn->nr_elem = min(index_bytes / insn->index_elem, data->size / 8u / insn->elem);
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
		insn->mask_kind = MASK_BITS;
		insn->mask_reg = ZydisRegisterGetId(z->avx.mask.reg);
	} else {
		insn->mask_kind = MASK_SIGN;
		insn->mask_reg = ZydisRegisterGetId(ops[2].reg.value);
		insn->nr_mask = z->avx.vector_length / 8;
	}
	insn->reg = ZydisRegisterGetId(data->reg.value);
	insn->run = run_gather;
	return true;
}

/* Cache-line instructions translate one byte's address, as a read. */
static const uint16_t flushes[] = {
	ZYDIS_MNEMONIC_CLFLUSH,
	ZYDIS_MNEMONIC_CLFLUSHOPT,
	ZYDIS_MNEMONIC_CLWB,
};

static bool xchg_with_itself(const ZydisDecodedInstruction *z, const struct insn *insn)
{
	return z->mnemonic == ZYDIS_MNEMONIC_XCHG && !(insn->flags & INSN_MEM) &&
	       z->operand_width != 32 && insn->opcode != 0x90 && insn->reg == insn->rm &&
	       !((insn->flags ^ insn->flags >> 1) & INSN_HIGH_REG);
}

static void choose_run(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
		       struct insn *insn)
{
	if (uses_fpu(z, ops))
		insn->flags |= INSN_FPU;
	if (is_x87(z) && !LISTED(x87_control, z->mnemonic))
		insn->flags |= INSN_X87;
	if (LISTED(flushes, z->mnemonic)) {
		insn->mem_size = 1;
		insn->mem_op = ACCESS_READ;
	}
	/* With 66h it reads a word (SDM), whatever the decoder says. */
	if (z->mnemonic == ZYDIS_MNEMONIC_MOVSXD && insn->opsize == 2)
		insn->mem_size = 2;
	insn->align = alignment_of(z, insn);
	insn->must_align = must_align(z, insn);
	if (insn->align > 1)
		insn->flags |= INSN_ALIGN;
	if (!(insn->flags & INSN_MEM))
		insn->run = insn->flags & INSN_FPU ? run_reg_fpu : run_reg;
	else if (bit_index_in_register(z, ops))
		insn->run = run_bit;
	else if (LISTED(sign_masked, z->mnemonic))
		set_sign_mask(z, ops, insn);
	else if (masked(z, insn))
		set_mask(z, ops, insn);
	else
		insn->run = run_mem;
	if (insn->mask_kind)
		insn->run = run_masked;
	if (insn->run != run_bit)
		insn->flags |= INSN_INLINE;
}

bool borrow_choose(struct exec_cache *c, const ZydisDecodedInstruction *z,
		   const ZydisDecodedOperand *ops, struct insn *insn)
{
	if (pause_is_xchg(z))
		return choose_xchg_r8(c, z, insn);
	if (xchg_with_itself(z, insn) || LISTED(nops, z->mnemonic) ||
	    z->meta.category == ZYDIS_CATEGORY_WIDENOP) {
		insn->run = run_nop;
		insn->flags |= INSN_PLAIN;
		return true;
	}
	if ((z->mnemonic == ZYDIS_MNEMONIC_VZEROALL || z->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER) &&
	    z->machine_mode != ZYDIS_MACHINE_MODE_LONG_64) {
		insn->nr_elem = z->mnemonic == ZYDIS_MNEMONIC_VZEROALL ? 0 : 16;
		insn->run = run_vzero;
		return true;
	}
	if (is_gather(z))
		return choose_gather(z, ops, insn);
	if (z->meta.category == ZYDIS_CATEGORY_SYSTEM || !only_arithmetic_flags(z))
		return false;
	choose_run(z, ops, insn);
	return thunk_make(c, z, ops, insn);
}
