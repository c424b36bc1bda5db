/* SPDX-License-Identifier: MIT */
/*
 * Instructions that are translated inline (run.h), each as its operation on mapped registers.
 *
 * A memory operand is looked up without touching flags, and jumps to the cold path unless it hits; nothing of the
 * instruction is committed before its last access. Registers of the guest that have no home in a register pass
 * through a free one.
 */
#include "silicon/exec/run_translate.h"

#include "silicon/exec/borrow.h"
#include "silicon/exec/decode.h"

static void identity(const struct translation *t, uint8_t map[NR_GPRS])
{
	for (unsigned i = 0; i < NR_GPRS; i++)
		map[i] = run_home(t, i);
}

/* ---- borrowed instructions ---- */

#define MAX_HOMELESS 3

/* The registers of a borrowed instruction, and what must go around it. */
struct borrowed {
	uint8_t map[NR_GPRS];
	uint8_t guest[MAX_HOMELESS]; /* without a home, each in a free register */
	bool read[MAX_HOMELESS], write[MAX_HOMELESS];
	unsigned nr;
	bool high; /* AH to BH: no REX prefix, so no register that moves */
	bool load_rcx, store_rcx;
	uint8_t base, index; /* of the memory operand */
};

/* What the instruction leaves of the register, too. BSF leaves all, if there is no bit. */
static bool reads(const struct translation *t, const ZydisDecodedOperand *op)
{
	return op->actions & (ZYDIS_OPERAND_ACTION_MASK_READ | ZYDIS_OPERAND_ACTION_CONDWRITE) ||
	       op->size < 32 || t->z.mnemonic == ZYDIS_MNEMONIC_BSF ||
	       t->z.mnemonic == ZYDIS_MNEMONIC_BSR;
}

static bool add_homeless(struct borrowed *b, uint8_t gpr, bool read, bool write)
{
	for (unsigned i = 0; i < b->nr; i++)
		if (b->guest[i] == gpr) {
			b->read[i] |= read;
			b->write[i] |= write;
			return true;
		}
	if (b->nr == MAX_HOMELESS)
		return false;
	b->guest[b->nr] = gpr;
	b->read[b->nr] = read;
	b->write[b->nr++] = write;
	return true;
}

/* rcx is the guest's for the instruction, for it is implied, or has a high half that R12 has not. */
static void lend_rcx(struct borrowed *b, bool write)
{
	b->load_rcx = true;
	b->store_rcx |= write;
}

/* Implicit and hidden registers stay themselves: only rcx can be made so. */
static bool add_register(const struct translation *t, struct borrowed *b,
			 const ZydisDecodedOperand *op, uint8_t gpr)
{
	bool write = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

	if (op->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
		if (b->high && gpr == RCX) {
			b->map[RCX] = RCX;
			lend_rcx(b, write);
		}
		return b->map[gpr] != REG_NONE || add_homeless(b, gpr, reads(t, op), write);
	}
	if (gpr == RCX)
		lend_rcx(b, write);
	return gpr == RCX || run_home(t, gpr) == gpr;
}

static bool has_high(const struct translation *t)
{
	for (unsigned i = 0; i < t->z.operand_count; i++)
		if (t->ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    t->ops[i].reg.value >= ZYDIS_REGISTER_AH &&
		    t->ops[i].reg.value <= ZYDIS_REGISTER_BH)
			return true;
	return false;
}

/*
 * Give the homeless registers free ones. The memory operand takes two, R14 and R15, or one if need be:
 * the sum of both.
 */
static bool assign_free(struct borrowed *b, bool mem)
{
	static const uint8_t without[] = {R14, R15, RCX}, beside_sum[] = {R14, R15},
			     beside_rcx[] = {R15}, beside_both[] = {RCX};
	const uint8_t *free = without;
	unsigned nr_free = b->load_rcx ? 2 : 3;

	b->base = R14;
	b->index = R15;
	if (mem && b->load_rcx) {
		free = beside_rcx;
		nr_free = 1;
		b->index = b->nr ? REG_NONE : R15;
	} else if (mem && (b->nr > 1 || b->high)) {
		free = beside_sum;
		nr_free = 2;
		b->base = RCX;
		b->index = REG_NONE;
	} else if (mem) {
		free = beside_both;
		nr_free = 1;
	}
	for (unsigned i = 0; i < min(b->nr, nr_free); i++)
		b->map[b->guest[i]] = free[i];
	return b->nr <= nr_free;
}

static bool assign_registers(struct translation *t, struct borrowed *b, bool mem)
{
	identity(t, b->map);
	b->high = has_high(t);
	for (unsigned i = 0; i < t->z.operand_count; i++) {
		uint8_t gpr;

		if (t->ops[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		gpr = zreg_gpr(t->ops[i].reg.value);
		if (gpr != REG_NONE && !add_register(t, b, &t->ops[i], gpr))
			return false;
	}
	return assign_free(b, mem);
}

/* With AH to BH there can be no REX: neither registers that move, nor r14 and r15. */
static bool high_is_possible(const struct translation *t, const struct borrowed *b, bool mem)
{
	for (unsigned i = 0; i < t->z.operand_count_visible; i++) {
		uint8_t gpr;

		if (t->ops[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		gpr = zreg_gpr(t->ops[i].reg.value);
		if (gpr != REG_NONE && b->map[gpr] != gpr)
			return false;
	}
	return !mem || b->base == RCX;
}

static void emit_check_fpu(struct translation *t)
{
	struct emit *e = &t->e;

	if (t->fpu_checked)
		return;
	EMIT(e, "\x65\x0f\xb6\x0c\x25"); /* movzbl %gs:live,%ecx */
	emit32(e, offsetof(struct cpu, fpu) + offsetof(struct fpu, live));
	EMIT(e, "\x8d\x49\xff"); /* lea -1(%rcx),%ecx */
	run_to_cold(t, emit_jmp_rcx(e));
}

static void emit_store16(struct translation *t, unsigned reg, size_t offset)
{
	EMIT(&t->e, "\x66\x65");
	emit_abs(&t->e, 0x40, 0x89, reg, offset);
}

/* The selector of seg, for the pointers to the last x87 instruction. */
static void emit_record_selector(struct translation *t, enum seg_id seg, size_t offset)
{
	emit_load_cpu(&t->e, RCX,
		      offsetof(struct cpu, seg) + seg * sizeof(struct segment) +
			      offsetof(struct segment, sel));
	emit_store16(t, RCX, offset);
}

/* True if the pointers to this x87 instruction matter to nobody but the next one's cold path. */
static bool x87_follows(const struct translation *t)
{
	const struct run_record *next = t->now + 1;

	return next < t->record + t->nr_records && next->insn.flags & INSN_X87 &&
	       next->insn.flags & INSN_INLINE && !next->insn.trap && !next->ref[REF_OPERAND].group;
}

static void emit_x87_pointers(struct translation *t)
{
	emit_mov_imm(&t->e, RCX, t->rip);
	emit_store_cpu(&t->e, RCX, offsetof(struct cpu, fpu.fip));
	emit_record_selector(t, SEG_CS, offsetof(struct cpu, fpu.fcs));
	emit_mov_imm(&t->e, RCX, (t->insn.opcode & 7) << 8 | t->insn.modrm);
	emit_store16(t, RCX, offsetof(struct cpu, fpu.fop));
}

/* What step's x87_record() does; r14 is the operand's address. */
static void emit_record_x87(struct translation *t, bool mem)
{
	t->behind_x87 = x87_follows(t);
	if (!t->behind_x87)
		emit_x87_pointers(t);
	if (!mem)
		return;
	emit_store_cpu(&t->e, R14, offsetof(struct cpu, fpu.fdp));
	emit_record_selector(t, t->insn.seg, offsetof(struct cpu, fpu.fds));
}
static enum form form_borrowed(struct translation *t)
{
	const ZydisDecodedOperand *mem = run_memory_operand(t);
	struct borrowed b = {0};
	bool x87 = t->insn.flags & INSN_X87;

	if (!assign_registers(t, &b, mem) || (x87 && mem && t->insn.seg >= SEG_FS) ||
	    (b.high && !high_is_possible(t, &b, mem)))
		return FORM_NONE;
	if (t->insn.flags & INSN_FPU)
		emit_check_fpu(t);
	if (mem && !run_operand(t, mem))
		return FORM_NONE;
	if (b.load_rcx)
		emit_mov(&t->e, RCX, R12);
	if (!mem && b.nr == 1 && !b.high && !b.store_rcx && run_encode_homeless(t))
		return FORM_DONE;
	if (mem && b.index == REG_NONE)
		emit_lea(&t->e, b.base, t->place.base, t->place.index, t->place.scale,
			 t->place.disp);
	for (unsigned i = 0; i < b.nr; i++) {
		if (b.map[b.guest[i]] == R15)
			t->in_r15 = NULL;
		if (b.read[i])
			run_load_gpr(t, b.map[b.guest[i]], b.guest[i]);
	}
	if (mem)
		run_note_access(t);
	if (!run_encode(t, b.map, b.base, b.index))
		return FORM_NONE;
	for (unsigned i = 0; i < b.nr; i++)
		if (b.write[i])
			run_store_gpr(t, b.map[b.guest[i]], b.guest[i]);
	if (b.store_rcx)
		emit_mov(&t->e, R12, RCX);
	if (x87 && mem && t->place.base == R15 && !run_emit_address(t, mem, R14, true))
		return FORM_NONE;
	if (x87)
		emit_record_x87(t, mem);
	t->fpu_checked |= !!(t->insn.flags & INSN_FPU);
	return FORM_DONE;
}

/* ---- small ones ---- */

static enum form form_lea(struct translation *t)
{
	uint8_t gpr = zreg_gpr(t->ops[0].reg.value), home = run_home(t, gpr);
	unsigned dst = home == REG_NONE ? R14 : home;

	if (t->ops[0].size < 32)
		return FORM_NONE;
	if (t->ops[0].size == 32 && t->ops[1].mem.base == ZYDIS_REGISTER_RIP)
		emit_mov_imm(&t->e, dst,
			     (uint32_t)(t->rip + t->z.length + t->ops[1].mem.disp.value));
	else if (t->ops[0].size == 32 && t->ops[1].mem.base == ZYDIS_REGISTER_NONE &&
		 t->ops[1].mem.index == ZYDIS_REGISTER_NONE)
		return FORM_NONE;
	else if (!run_emit_address(t, &t->ops[1], dst, t->ops[0].size == 64))
		return FORM_NONE;
	if (home == REG_NONE)
		run_store_gpr(t, R14, gpr);
	return FORM_DONE;
}

/* CLC, STC, CMC, LAHF, SAHF: on the flags as they are. */
static enum form form_flags(struct translation *t)
{
	emit8(&t->e, t->z.opcode);
	return FORM_DONE;
}

/* Clear a bit of RFLAGS' system part: mask has all others. */
static void emit_clear_sflag(struct translation *t, const uint64_t *mask)
{
	struct emit *e = &t->e;

	emit_load_cpu(e, RCX, offsetof(struct cpu, sflags));
	EMIT(e, "\xc4\xe2\xf2\xf5\x0c\x25"); /* pext mask,%rcx,%rcx */
	emit32(e, emit_low(mask));
	EMIT(e, "\xc4\xe2\xf3\xf5\x0c\x25"); /* pdep mask,%rcx,%rcx */
	emit32(e, emit_low(mask));
	emit_store_cpu(e, RCX, offsetof(struct cpu, sflags));
}

static enum form form_cli(struct translation *t)
{
	if (!(t->key & RUN_KEY_CPL0))
		return FORM_NONE;
	emit_clear_sflag(t, &t->run->no_if);
	return FORM_DONE;
}

static enum form form_cld(struct translation *t)
{
	emit_clear_sflag(t, &t->run->no_df);
	return FORM_DONE;
}

static enum form form_swapgs(struct translation *t)
{
	size_t base = offsetof(struct cpu, seg) + SEG_GS * sizeof(struct segment) +
		      offsetof(struct segment, base);
	size_t other = offsetof(struct cpu, msr) + offsetof(struct msrs, kernel_gs_base);

	if (!(t->key & RUN_KEY_CPL0))
		return FORM_NONE;
	emit_load_cpu(&t->e, R14, base);
	emit_load_cpu(&t->e, R15, other);
	emit_store_cpu(&t->e, R15, base);
	emit_store_cpu(&t->e, R14, other);
	return FORM_DONE;
}

/* ---- the choice ---- */

static const struct {
	uint16_t mnemonic;
	form_fn *form;
} forms[] = {
	{ZYDIS_MNEMONIC_CLI, form_cli},		{ZYDIS_MNEMONIC_CLD, form_cld},
	{ZYDIS_MNEMONIC_SWAPGS, form_swapgs},	{ZYDIS_MNEMONIC_LEA, form_lea},
	{ZYDIS_MNEMONIC_PUSH, run_form_push},	{ZYDIS_MNEMONIC_POP, run_form_pop},
	{ZYDIS_MNEMONIC_LEAVE, run_form_leave}, {ZYDIS_MNEMONIC_JMP, run_form_jmp},
	{ZYDIS_MNEMONIC_CALL, run_form_call},	{ZYDIS_MNEMONIC_RET, run_form_ret},
	{ZYDIS_MNEMONIC_CLC, form_flags},	{ZYDIS_MNEMONIC_STC, form_flags},
	{ZYDIS_MNEMONIC_CMC, form_flags},	{ZYDIS_MNEMONIC_LAHF, form_flags},
	{ZYDIS_MNEMONIC_SAHF, form_flags},	{ZYDIS_MNEMONIC_JRCXZ, run_form_loop},
	{ZYDIS_MNEMONIC_JECXZ, run_form_loop},	{ZYDIS_MNEMONIC_LOOP, run_form_loop},
	{ZYDIS_MNEMONIC_LOOPE, run_form_loop},	{ZYDIS_MNEMONIC_LOOPNE, run_form_loop},
	{ZYDIS_MNEMONIC_XLAT, run_form_xlat},
};

/* Those of the forms that 32-bit code has, too. */
static bool in_code32(ZydisMnemonic mnemonic)
{
	static const uint16_t mnemonics[] = {
		ZYDIS_MNEMONIC_CLI,  ZYDIS_MNEMONIC_CLD,   ZYDIS_MNEMONIC_LEA,
		ZYDIS_MNEMONIC_PUSH, ZYDIS_MNEMONIC_POP,   ZYDIS_MNEMONIC_LEAVE,
		ZYDIS_MNEMONIC_JMP,  ZYDIS_MNEMONIC_CALL,  ZYDIS_MNEMONIC_RET,
		ZYDIS_MNEMONIC_CLC,  ZYDIS_MNEMONIC_STC,   ZYDIS_MNEMONIC_CMC,
		ZYDIS_MNEMONIC_LAHF, ZYDIS_MNEMONIC_SAHF,  ZYDIS_MNEMONIC_JECXZ,
		ZYDIS_MNEMONIC_LOOP, ZYDIS_MNEMONIC_LOOPE, ZYDIS_MNEMONIC_LOOPNE,
	};

	for (unsigned i = 0; i < ARRAY_SIZE(mnemonics); i++)
		if (mnemonics[i] == mnemonic)
			return true;
	return false;
}

bool run_is_jcc(const ZydisDecodedInstruction *z)
{
	return z->meta.category == ZYDIS_CATEGORY_COND_BR &&
	       ((z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (z->opcode & 0xf0) == 0x70) ||
		(z->opcode_map == ZYDIS_OPCODE_MAP_0F && (z->opcode & 0xf0) == 0x80));
}

enum form run_form(struct translation *t)
{
	if (t->insn.run == run_nop)
		return FORM_DONE;
	if (t->insn.flags & INSN_INLINE)
		return form_borrowed(t);
	if (t->insn.run == run_bit)
		return run_form_bit(t);
	if (t->insn.flags & INSN_LOCK || t->insn.trap || t->insn.run == run_watched)
		return FORM_NONE;
	if (run_is_jcc(&t->z))
		return run_form_jcc(t);
	if (t->code32 && !in_code32(t->z.mnemonic))
		return FORM_NONE;
	for (unsigned i = 0; i < ARRAY_SIZE(forms); i++)
		if (forms[i].mnemonic == t->z.mnemonic)
			return forms[i].form(t);
	return run_form_system(t);
}
