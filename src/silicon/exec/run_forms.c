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

/* ---- addresses ---- */

static const ZydisDecodedOperand *memory_operand(const struct translation *t)
{
	for (unsigned i = 0; i < t->z.operand_count_visible; i++)
		if (t->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return &t->ops[i];
	return NULL;
}

/* The host register that holds a guest register of an address: its home, or free, loaded. */
static unsigned address_register(struct translation *t, ZydisRegister reg, unsigned free)
{
	uint8_t gpr = zreg_gpr(reg), home;

	if (gpr == REG_NONE)
		return REG_NONE;
	home = run_home(t, gpr);
	if (home != REG_NONE)
		return home;
	if (free == R15)
		t->in_r15 = NULL;
	run_load_gpr(t, free, gpr);
	return free;
}

static unsigned log2_of(unsigned scale)
{
	return scale > 1 ? __builtin_ctz(scale) : 0;
}

/* dst = effective address. Uses r14 and r15. */
static bool emit_address(struct translation *t, const ZydisDecodedOperand *op, unsigned dst,
			 bool wide)
{
	unsigned base, index;
	int64_t disp = op->mem.disp.value;

	if (op->mem.base == ZYDIS_REGISTER_RIP && t->z.address_width == 64) {
		emit_mov_imm(&t->e, dst, t->rip + t->z.length + disp);
		return true;
	}
	if (t->z.address_width == 16 || op->mem.base == ZYDIS_REGISTER_EIP ||
	    op->mem.base == ZYDIS_REGISTER_RIP ||
	    (op->mem.base == ZYDIS_REGISTER_R13D && t->z.raw.modrm.mod == 0))
		return false;
	if (op->mem.base == ZYDIS_REGISTER_NONE && op->mem.index == ZYDIS_REGISTER_NONE) {
		emit_mov_imm(&t->e, dst,
			     t->z.address_width == 32 ? (uint32_t)disp : (uint64_t)disp);
		return true;
	}
	if (disp != (int32_t)disp)
		return false;
	base = address_register(t, op->mem.base, R14);
	index = address_register(t, op->mem.index, R15);
	emit_mem(&t->e, wide && t->z.address_width == 64 ? 0x48 : 0x40, 0x8d, dst, base, index,
		 log2_of(op->mem.scale), disp);
	return true;
}

/* lea of the mode's address size: 32-bit code's addresses wrap at 4 GiB. */
static void emit_lea_word(struct translation *t, unsigned reg, unsigned base, unsigned index,
			  int32_t disp)
{
	emit_mem(&t->e, run_rex(t), 0x8d, reg, base, index, 0, disp);
}

/* To the cold path, unless FS or GS differs from a flat segment in its base alone. Uses rcx. */
static void emit_check_segment(struct translation *t, enum seg_id seg)
{
	EMIT(&t->e, "\x65\x0f\xb6\x0c\x25"); /* movzbl %gs:uneven[seg],%ecx */
	emit32(&t->e, offsetof(struct cpu, mode.uneven) + seg - SEG_FS);
	run_to_cold(t, emit_jmp_rcx(&t->e));
}

/* r14 = linear address. */
static bool emit_linear(struct translation *t, const ZydisDecodedOperand *op)
{
	unsigned seg = t->insn.seg;

	if ((t->code32 && seg == SEG_CS) || !emit_address(t, op, R14, true))
		return false;
	if (seg < SEG_FS)
		return true;
	if (t->code32)
		emit_check_segment(t, seg);
	emit_load_cpu(&t->e, R15,
		      offsetof(struct cpu, seg) + seg * sizeof(struct segment) +
			      offsetof(struct segment, base));
	emit_lea_word(t, R14, R14, R15, 0);
	return true;
}

void run_emit_index(struct translation *t, enum direct_kind kind, unsigned size)
{
	struct emit *e = &t->e;

	EMIT(e, "\xc4\x43\xfb\xf0\xfe\x0c"); /* rorx $12,%r14,%r15 */
	EMIT(e, "\x45\x0f\xb7\xff");	     /* movzwl %r15w,%r15d */
	emit_load_table(e, RCX, t->map[kind].neg, R15);
	emit_lea(e, RCX, RCX, R14, 0, size - 1);
	EMIT(e, "\xc4\xe2\xf2\xf5\x0c\x25"); /* pext page_mask,%rcx,%rcx */
	emit32(e, emit_low(&t->run->page_mask));
}

void run_emit_addend(struct translation *t, enum direct_kind kind)
{
	emit_load_table(&t->e, R15, t->map[kind].addend, R15);
}

/* What is hot has its lookups inline, but for what seldom runs. */
static bool calls_stubs(const struct translation *t)
{
	return !run_inlines(t) || (t->apart && !t->nr_exchanges);
}

static void looked_up(struct translation *t)
{
	t->place = (struct place){.base = R14, .index = R15};
	t->in_r15 = NULL;
}

void run_emit_check(struct translation *t, enum direct_kind kind, unsigned size)
{
	unsigned log2 = __builtin_ctz(size);

	if (calls_stubs(t) && size == 1u << log2 && log2 < RUN_CHECKS) {
		emit_call_stub(&t->e, t->stubs->check[kind][log2]);
	} else {
		run_emit_index(t, kind, size);
		run_to_cold(t, emit_jmp_rcx(&t->e));
		run_emit_addend(t, kind);
	}
	looked_up(t);
}

/* What comes next is the instruction's last access. */
static void note_access(struct translation *t)
{
	struct run_site *site = &t->sites[t->site];

	site->last = min(emit_pos(&t->e) - site->code, 255u);
}

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

static bool emit_operand(struct translation *t, const ZydisDecodedOperand *mem)
{
	unsigned size = t->insn.mem_size;
	bool write = t->insn.mem_op & ACCESS_WRITE;

	if (!size || size > 64 || !t->insn.mem_op)
		return false;
	t->site_flags |= SITE_MEM;
	if (run_member(t, REF_OPERAND))
		return true;
	if (!emit_linear(t, mem))
		return false;
	run_emit_check(t, write ? DIRECT_WRITE : DIRECT_READ, size);
	return true;
}

static enum form form_borrowed(struct translation *t)
{
	const ZydisDecodedOperand *mem = memory_operand(t);
	struct borrowed b = {0};
	bool x87 = t->insn.flags & INSN_X87;

	if (!assign_registers(t, &b, mem) || (x87 && mem && t->insn.seg >= SEG_FS) ||
	    (b.high && !high_is_possible(t, &b, mem)))
		return FORM_NONE;
	if (t->insn.flags & INSN_FPU)
		emit_check_fpu(t);
	if (mem && !emit_operand(t, mem))
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
		note_access(t);
	if (!run_encode(t, b.map, b.base, b.index))
		return FORM_NONE;
	for (unsigned i = 0; i < b.nr; i++)
		if (b.write[i])
			run_store_gpr(t, b.map[b.guest[i]], b.guest[i]);
	if (b.store_rcx)
		emit_mov(&t->e, R12, RCX);
	if (x87 && mem && t->place.base == R15 && !emit_address(t, mem, R14, true))
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
	else if (!emit_address(t, &t->ops[1], dst, t->ops[0].size == 64))
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
	if (calls_stubs(t)) {
		emit_call_stub(&t->e, t->stubs->push);
		looked_up(t);
		return;
	}
	emit_lea_word(t, R14, R13, REG_NONE, -run_word(t));
	run_emit_check(t, DIRECT_WRITE, run_word(t));
}

static void emit_move_rsp(struct translation *t, int32_t by)
{
	emit_lea_word(t, R13, R13, REG_NONE, by);
}

static void emit_place(struct translation *t, uint8_t opcode, unsigned reg)
{
	const struct place *p = &t->place;

	emit_mem(&t->e, run_rex(t), opcode, reg, p->base, p->index, p->scale, p->disp);
}

static void emit_store_word(struct translation *t, unsigned reg)
{
	note_access(t);
	emit_place(t, 0x89, reg);
}

static void emit_load_word(struct translation *t, unsigned reg)
{
	note_access(t);
	emit_place(t, 0x8b, reg);
}

/* Push an immediate: sign-extended from 32 bits if it can be. */
static void emit_push_imm(struct translation *t, uint64_t val)
{
	emit_push_address(t);
	if (t->code32 || (int64_t)val == (int32_t)val) {
		note_access(t);
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
	if (t->insn.mem_size != run_word(t) || !emit_operand(t, &t->ops[0]))
		return FORM_NONE;
	emit_load_word(t, R14);
	emit_abs(&t->e, 0x48, 0x89, R14, emit_low(&t->run->tmp));
	emit_push_address(t);
	emit_abs(&t->e, 0x48, 0x8b, RCX, emit_low(&t->run->tmp));
	emit_store_word(t, RCX);
	emit_move_rsp(t, -run_word(t));
	return FORM_DONE;
}

static enum form form_push(struct translation *t)
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
	if (calls_stubs(t)) {
		emit_call_stub(&t->e, t->stubs->pop);
		looked_up(t);
		return;
	}
	emit_lea_word(t, R14, R13, REG_NONE, 0);
	run_emit_check(t, DIRECT_READ, run_word(t));
}

static enum form form_pop(struct translation *t)
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

static enum form form_leave(struct translation *t)
{
	if (narrow(t))
		return FORM_NONE;
	t->site_flags |= SITE_LEAVE;
	if (!run_member(t, REF_STACK)) {
		emit_lea_word(t, R14, RBP, REG_NONE, 0);
		run_emit_check(t, DIRECT_READ, run_word(t));
	}
	emit_load_word(t, R14);
	emit_lea_word(t, R13, RBP, REG_NONE, run_word(t));
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
	if (calls_stubs(t)) {
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
		if (t->insn.mem_size != run_word(t) || !emit_operand(t, &t->ops[0]))
			return false;
		emit_load_word(t, R14);
		return true;
	}
	gpr = zreg_gpr(t->ops[0].reg.value);
	home = run_home(t, gpr);
	if (home == REG_NONE)
		run_load_gpr(t, R14, gpr);
	else
		emit_lea_word(t, R14, home, REG_NONE, 0);
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
	else if (calls_stubs(t))
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

void run_elsewhere(struct translation *t)
{
	if (t->z.mnemonic == ZYDIS_MNEMONIC_RET)
		emit_ret(t);
	else if (t->z.mnemonic == ZYDIS_MNEMONIC_CALL)
		emit_call(t);
	else
		emit_jump(t);
}

/* If the trace goes on where it led before: out of line, unless r14 is that. */
static bool emit_guard(struct translation *t)
{
	int64_t minus = -t->now->next;

	if (t->follow != FOLLOW_GUARD)
		return false;
	if (minus == (int32_t)minus) {
		emit_lea(&t->e, RCX, R14, REG_NONE, 0, minus);
	} else {
		emit_mov_imm(&t->e, RCX, minus);
		emit_lea(&t->e, RCX, RCX, R14, 0, 0);
	}
	t->guard[t->nr_guards++] = (struct loose_end){.at = emit_jmp_rcx(&t->e), .site = t->site};
	return true;
}

static bool near_indirect(const struct translation *t, unsigned reg)
{
	return t->z.opcode == 0xff && t->z.raw.modrm.reg == reg;
}

static enum form form_jmp(struct translation *t)
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
	if (!near_indirect(t, 4) || !emit_target(t))
		return FORM_NONE;
	if (emit_guard(t))
		return FORM_DONE;
	emit_jump(t);
	return FORM_END;
}

static enum form call_indirect(struct translation *t)
{
	if (!near_indirect(t, 2) || !canonical(t->rip + t->z.length) || !emit_target(t))
		return FORM_NONE;
	if (emit_guard(t)) {
		emit_push_imm(t, t->rip + t->z.length);
		run_ring_push(t, t->rip + t->z.length);
		return FORM_DONE;
	}
	emit_call(t);
	return FORM_END;
}

static enum form form_call(struct translation *t)
{
	uint64_t back = t->rip + t->z.length;

	if (narrow(t))
		return FORM_NONE;
	if (t->z.opcode != 0xe8)
		return call_indirect(t);
	if (!canonical(relative_target(t)) || !canonical(back))
		return FORM_NONE;
	emit_push_imm(t, back);
	if (calls_stubs(t)) {
		run_ring_call(t, back, relative_target(t));
		return FORM_END;
	}
	run_ring_push(t, back);
	if (t->follow == FOLLOW_TARGET)
		return FORM_DONE;
	run_end(t, relative_target(t));
	return FORM_END;
}

static enum form form_ret(struct translation *t)
{
	if (narrow(t) || (t->z.opcode != 0xc3 && t->z.opcode != 0xc2))
		return FORM_NONE;
	emit_pop_address(t);
	emit_load_word(t, R14);
	if (emit_guard(t)) {
		run_ring_drop(t);
		emit_move_rsp(t, ret_bytes(t));
		return FORM_DONE;
	}
	emit_ret(t);
	return FORM_END;
}

static enum form form_jcc(struct translation *t)
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

/* ---- for other files ---- */

bool run_linear(struct translation *t)
{
	return emit_linear(t, memory_operand(t));
}

void run_look_up(struct translation *t, enum direct_kind kind, unsigned size)
{
	t->site_flags |= SITE_MEM;
	run_emit_check(t, kind, size);
}

void run_note_access(struct translation *t)
{
	note_access(t);
}

bool run_target(const struct translation *t, uint64_t *ret)
{
	*ret = relative_target(t);
	return !narrow(t) && canonical(*ret) && canonical(t->rip + t->z.length);
}

/* ---- the choice ---- */

static const struct {
	uint16_t mnemonic;
	form_fn *form;
} forms[] = {
	{ZYDIS_MNEMONIC_CLI, form_cli},	       {ZYDIS_MNEMONIC_CLD, form_cld},
	{ZYDIS_MNEMONIC_SWAPGS, form_swapgs},  {ZYDIS_MNEMONIC_LEA, form_lea},
	{ZYDIS_MNEMONIC_PUSH, form_push},      {ZYDIS_MNEMONIC_POP, form_pop},
	{ZYDIS_MNEMONIC_LEAVE, form_leave},    {ZYDIS_MNEMONIC_JMP, form_jmp},
	{ZYDIS_MNEMONIC_CALL, form_call},      {ZYDIS_MNEMONIC_RET, form_ret},
	{ZYDIS_MNEMONIC_CLC, form_flags},      {ZYDIS_MNEMONIC_STC, form_flags},
	{ZYDIS_MNEMONIC_CMC, form_flags},      {ZYDIS_MNEMONIC_LAHF, form_flags},
	{ZYDIS_MNEMONIC_SAHF, form_flags},     {ZYDIS_MNEMONIC_JRCXZ, run_form_loop},
	{ZYDIS_MNEMONIC_JECXZ, run_form_loop}, {ZYDIS_MNEMONIC_LOOP, run_form_loop},
	{ZYDIS_MNEMONIC_LOOPE, run_form_loop}, {ZYDIS_MNEMONIC_LOOPNE, run_form_loop},
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
		return form_jcc(t);
	if (t->code32 && !in_code32(t->z.mnemonic))
		return FORM_NONE;
	for (unsigned i = 0; i < ARRAY_SIZE(forms); i++)
		if (forms[i].mnemonic == t->z.mnemonic)
			return forms[i].form(t);
	return run_form_system(t);
}
