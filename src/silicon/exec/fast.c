/* SPDX-License-Identifier: MIT */
/*
 * The most frequent forms of 64-bit mode once more, for speed alone.
 *
 * Each does the common case (operand in RAM that the TLB knows, no segment base, 64-bit addresses, a target
 * that is canonical) and leaves everything else, before anything is committed, to the function that runs the
 * instruction in all cases. What they compute is compared by the same tests.
 */
#include "silicon/exec/fast.h"
#include "host/guard.h"
#include "silicon/exec/borrow.h"
#include "silicon/mmu/tlb.h"

static inline enum result advance(struct cpu *cpu, const struct insn *insn)
{
	cpu->rip += insn->len;
	return RESULT_OK;
}

static inline uint64_t address(const struct cpu *cpu, const struct insn *insn)
{
	uint64_t ea = insn->disp;

	if (likely(insn->base != REG_NONE))
		ea += cpu->gpr[insn->base];
	else if (insn->flags & INSN_RIP_REL)
		ea += cpu->rip + insn->len;
	if (insn->index != REG_NONE)
		ea += cpu->gpr[insn->index] << insn->scale;
	return ea;
}

/* ---- borrowed, with a memory operand ---- */

static enum result fast_read(struct cpu *cpu, const struct insn *insn)
{
	uint8_t *ptr = tlb_hit_read(cpu, address(cpu, insn), insn->mem_size);

	if (unlikely(!ptr))
		return insn->general(cpu, insn);
	if (unlikely(insn->thunk(cpu, ptr)))
		return borrow_trapped(cpu);
	return advance(cpu, insn);
}

static enum result fast_write(struct cpu *cpu, const struct insn *insn)
{
	uint8_t *ptr = tlb_hit_write(cpu, address(cpu, insn), insn->mem_size);

	if (unlikely(!ptr))
		return insn->general(cpu, insn);
	if (unlikely(insn->thunk(cpu, ptr)))
		return borrow_trapped(cpu);
	return advance(cpu, insn);
}

static enum result fast_reg(struct cpu *cpu, const struct insn *insn)
{
	if (unlikely(insn->thunk(cpu, NULL)))
		return borrow_trapped(cpu);
	return advance(cpu, insn);
}

/* ---- MOV ---- */

static enum result fast_mov64(struct cpu *cpu, const struct insn *insn)
{
	if (insn->opcode == 0x89)
		cpu->gpr[insn->rm] = cpu->gpr[insn->reg];
	else
		cpu->gpr[insn->reg] = cpu->gpr[insn->rm];
	return advance(cpu, insn);
}

static enum result fast_mov32(struct cpu *cpu, const struct insn *insn)
{
	if (insn->opcode == 0x89)
		cpu->gpr[insn->rm] = (uint32_t)cpu->gpr[insn->reg];
	else
		cpu->gpr[insn->reg] = (uint32_t)cpu->gpr[insn->rm];
	return advance(cpu, insn);
}

#define DEFINE_LOAD(name, bits)                                                       \
	static enum result name(struct cpu *cpu, const struct insn *insn)             \
	{                                                                             \
		const uint8_t *ptr = tlb_hit_read(cpu, address(cpu, insn), bits / 8); \
		uint##bits##_t val;                                                   \
                                                                                      \
		if (unlikely(!ptr || !host_load_##bits(ptr, &val)))                   \
			return insn->general(cpu, insn);                              \
		cpu->gpr[insn->reg] = val;                                            \
		return advance(cpu, insn);                                            \
	}

DEFINE_LOAD(fast_load8, 8) /* MOVZX */
DEFINE_LOAD(fast_load16, 16)
DEFINE_LOAD(fast_load32, 32)
DEFINE_LOAD(fast_load64, 64)

#define DEFINE_STORE(bits)                                                            \
	static enum result fast_store##bits(struct cpu *cpu, const struct insn *insn) \
	{                                                                             \
		uint8_t *ptr = tlb_hit_write(cpu, address(cpu, insn), bits / 8);      \
                                                                                      \
		if (unlikely(!ptr || !host_store_##bits(ptr, cpu->gpr[insn->reg])))   \
			return insn->general(cpu, insn);                              \
		return advance(cpu, insn);                                            \
	}

DEFINE_STORE(32)
DEFINE_STORE(64)

static enum result fast_lea64(struct cpu *cpu, const struct insn *insn)
{
	cpu->gpr[insn->reg] = address(cpu, insn);
	return advance(cpu, insn);
}

/* ---- stack ---- */

static enum result fast_push(struct cpu *cpu, const struct insn *insn)
{
	uint64_t sp = cpu->gpr[RSP] - 8;
	uint8_t *ptr = tlb_hit_write(cpu, sp, 8);

	if (unlikely(!ptr || !host_store_64(ptr, cpu->gpr[insn->rm])))
		return insn->general(cpu, insn);
	cpu->gpr[RSP] = sp;
	return advance(cpu, insn);
}

static enum result fast_pop(struct cpu *cpu, const struct insn *insn)
{
	uint64_t sp = cpu->gpr[RSP], val;
	const uint8_t *ptr = tlb_hit_read(cpu, sp, 8);

	if (unlikely(!ptr || !host_load_64(ptr, &val)))
		return insn->general(cpu, insn);
	cpu->gpr[RSP] = sp + 8;
	cpu->gpr[insn->rm] = val;
	return advance(cpu, insn);
}

/* ---- near branches; the relative ones have their offset in ->disp ---- */

static inline enum result branch(struct cpu *cpu, const struct insn *insn)
{
	uint64_t target = cpu->rip + insn->len + insn->disp;

	if (unlikely(!gva_canonical(cpu, target)))
		return insn->general(cpu, insn);
	cpu->rip = target;
	return RESULT_OK;
}

static enum result fast_jmp(struct cpu *cpu, const struct insn *insn)
{
	return branch(cpu, insn);
}

static enum result fast_call(struct cpu *cpu, const struct insn *insn)
{
	uint64_t next = cpu->rip + insn->len, sp = cpu->gpr[RSP] - 8;
	uint8_t *ptr = tlb_hit_write(cpu, sp, 8);

	if (unlikely(!gva_canonical(cpu, next + insn->disp) || !ptr || !host_store_64(ptr, next)))
		return insn->general(cpu, insn);
	cpu->gpr[RSP] = sp;
	cpu->rip = next + insn->disp;
	return RESULT_OK;
}

static enum result fast_ret(struct cpu *cpu, const struct insn *insn)
{
	uint64_t sp = cpu->gpr[RSP], target;
	const uint8_t *ptr = tlb_hit_read(cpu, sp, 8);

	if (unlikely(!ptr || !host_load_64(ptr, &target) || !gva_canonical(cpu, target)))
		return insn->general(cpu, insn);
	cpu->gpr[RSP] = sp + 8;
	cpu->rip = target;
	return RESULT_OK;
}

/* ->aflags: OF is bit 0; CF, PF, ZF and SF are bits 8, 10, 14 and 15. */
#define OF(a)	((a)&1)
#define CF(a)	((a)&0x100)
#define PF(a)	((a)&0x400)
#define ZF(a)	((a)&0x4000)
#define LESS(a) (((a) >> 15 ^ (a)) & 1)

#define DEFINE_JCC(name, condition)                                                \
	static enum result fast_j##name(struct cpu *cpu, const struct insn *insn)  \
	{                                                                          \
		uint64_t a = cpu->aflags;                                          \
                                                                                   \
		return (condition) ? branch(cpu, insn) : advance(cpu, insn);       \
	}                                                                          \
	static enum result fast_jn##name(struct cpu *cpu, const struct insn *insn) \
	{                                                                          \
		uint64_t a = cpu->aflags;                                          \
                                                                                   \
		return (condition) ? advance(cpu, insn) : branch(cpu, insn);       \
	}

DEFINE_JCC(o, OF(a))
DEFINE_JCC(b, CF(a))
DEFINE_JCC(z, ZF(a))
DEFINE_JCC(be, CF(a) | ZF(a))
DEFINE_JCC(s, a & 0x8000)
DEFINE_JCC(p, PF(a))
DEFINE_JCC(l, LESS(a))
DEFINE_JCC(le, LESS(a) | ZF(a))

/* In the order of the opcodes' low four bits. */
static insn_fn *const jcc[16] = {
	fast_jo, fast_jno, fast_jb, fast_jnb, fast_jz, fast_jnz, fast_jbe, fast_jnbe,
	fast_js, fast_jns, fast_jp, fast_jnp, fast_jl, fast_jnl, fast_jle, fast_jnle,
};

/* ---- the choice, while decoding: ordinary C, but with nothing that needs it ---- */

/* The operand's address is plain: 64 bits wide, no segment base. */
static bool plain_memory(const struct insn *insn)
{
	return insn->flags & INSN_MEM && insn->addrsize == 8 && insn->seg < SEG_FS;
}

static insn_fn *fast_mov(const struct insn *insn)
{
	bool load = insn->opcode == 0x8b;

	if (insn->opcode != 0x89 && !load)
		return NULL;
	if (!(insn->flags & INSN_MEM))
		return insn->opsize == 8 ? fast_mov64 : insn->opsize == 4 ? fast_mov32 : NULL;
	if (!plain_memory(insn))
		return NULL;
	if (insn->opsize == 8)
		return load ? fast_load64 : fast_store64;
	if (insn->opsize == 4)
		return load ? fast_load32 : fast_store32;
	return NULL;
}

static insn_fn *fast_movzx(const struct insn *insn)
{
	if (!plain_memory(insn) || insn->opsize < 4)
		return NULL;
	return insn->opcode == 0xb6 ? fast_load8 : fast_load16;
}

static insn_fn *fast_branch(const ZydisDecodedInstruction *z, struct insn *insn)
{
	if (insn->flags & (INSN_66 | INSN_MEM))
		return NULL;
	if (z->mnemonic == ZYDIS_MNEMONIC_RET)
		return insn->opcode == 0xc3 ? fast_ret : NULL;
	if (!z->raw.imm[0].is_relative)
		return NULL;
	insn->disp = insn->imm;
	if (z->mnemonic == ZYDIS_MNEMONIC_CALL)
		return fast_call;
	if (z->mnemonic == ZYDIS_MNEMONIC_JMP)
		return fast_jmp;
	return z->meta.category == ZYDIS_CATEGORY_COND_BR && (insn->opcode & 0xf0) != 0xe0
		       ? jcc[insn->opcode & 15]
		       : NULL;
}

static insn_fn *fast_stack(const ZydisDecodedInstruction *z, const struct insn *insn)
{
	if (insn->flags & INSN_66 || (insn->opcode & 0xf0) != 0x50 || insn->rm == REG_NONE)
		return NULL;
	return z->mnemonic == ZYDIS_MNEMONIC_PUSH ? fast_push : fast_pop;
}

static insn_fn *fast_borrowed(const struct insn *insn)
{
	if (insn->run == run_reg)
		return fast_reg;
	if (insn->run != run_mem || !plain_memory(insn) || insn->flags & (INSN_FPU | INSN_X87) ||
	    insn->must_align || !insn->mem_op)
		return NULL;
	return insn->mem_op & ACCESS_WRITE ? fast_write : fast_read;
}

static insn_fn *fast_form(const ZydisDecodedInstruction *z, struct insn *insn)
{
	insn_fn *fast = NULL;

	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		fast = insn->thunk ? fast_mov(insn) : NULL;
		break;
	case ZYDIS_MNEMONIC_MOVZX:
		fast = fast_movzx(insn);
		break;
	case ZYDIS_MNEMONIC_LEA:
		return insn->opsize == 8 && insn->addrsize == 8 ? fast_lea64 : NULL;
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_POP:
		return fast_stack(z, insn);
	default:
		if (!insn->thunk)
			return fast_branch(z, insn);
		break;
	}
	return fast ? fast : fast_borrowed(insn);
}

void fast_choose(const ZydisDecodedInstruction *z, struct insn *insn)
{
	insn_fn *fast = fast_form(z, insn);

	if (!fast)
		return;
	insn->general = insn->run;
	insn->run = fast;
}
