/* SPDX-License-Identifier: MIT */
/*
 * Where the memory operands of translated instructions are (run.h): addresses, and their lookups.
 *
 * A memory operand is looked up without touching flags, and jumps to the cold path unless it hits.
 */
#include "silicon/exec/run_translate.h"

const ZydisDecodedOperand *run_memory_operand(const struct translation *t)
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
bool run_emit_address(struct translation *t, const ZydisDecodedOperand *op, unsigned dst, bool wide)
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
void run_emit_lea_word(struct translation *t, unsigned reg, unsigned base, unsigned index,
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
static bool linear_of(struct translation *t, const ZydisDecodedOperand *op)
{
	unsigned seg = t->insn.seg;

	if ((t->code32 && seg == SEG_CS) || !run_emit_address(t, op, R14, true))
		return false;
	if (seg < SEG_FS)
		return true;
	if (t->code32)
		emit_check_segment(t, seg);
	emit_load_cpu(&t->e, R15,
		      offsetof(struct cpu, seg) + seg * sizeof(struct segment) +
			      offsetof(struct segment, base));
	run_emit_lea_word(t, R14, R14, R15, 0);
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
bool run_calls_stubs(const struct translation *t)
{
	return !run_inlines(t) || (t->apart && !t->nr_exchanges);
}

void run_looked_up(struct translation *t)
{
	t->place = (struct place){.base = R14, .index = R15};
	t->in_r15 = NULL;
}

void run_emit_check(struct translation *t, enum direct_kind kind, unsigned size)
{
	unsigned log2 = __builtin_ctz(size);

	if (run_calls_stubs(t) && size == 1u << log2 && log2 < RUN_CHECKS) {
		emit_call_stub(&t->e, t->stubs->check[kind][log2]);
	} else {
		run_emit_index(t, kind, size);
		run_to_cold(t, emit_jmp_rcx(&t->e));
		run_emit_addend(t, kind);
	}
	run_looked_up(t);
}

bool run_check_known(struct translation *t, enum direct_kind kind, uint64_t addr, unsigned size)
{
	unsigned index = addr >> PAGE_SHIFT & (DIRECT_ENTRIES - 1);
	const struct direct_map *map = &t->map[kind];
	struct emit *e = &t->e;

	if (run_calls_stubs(t) || (addr & ~PAGE_MASK) + size > PAGE_SIZE)
		return false;
	emit_abs(e, 0x48, 0x8b, RCX, emit_low(&map->neg[index]));
	if ((int64_t)addr == (int32_t)addr)
		emit_lea(e, RCX, RCX, REG_NONE, 0, addr & PAGE_MASK);
	else
		emit_lea(e, RCX, RCX, R14, 0, -(int32_t)(addr & ~PAGE_MASK));
	run_to_cold(t, emit_jmp_rcx(e));
	emit_abs(e, 0x48, 0x8b, R15, emit_low(&map->addend[index]));
	run_looked_up(t);
	return true;
}

bool run_known_address(const struct translation *t, const struct run_record *rec, uint64_t *ret)
{
	const ZydisDecodedOperand *op = NULL;

	for (unsigned i = 0; i < rec->z.operand_count_visible && !op; i++)
		if (rec->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			op = &rec->ops[i];
	if (!op || t->code32 || rec->insn.seg >= SEG_FS || rec->z.address_width != 64 ||
	    op->mem.index != ZYDIS_REGISTER_NONE)
		return false;
	*ret = op->mem.disp.value;
	if (op->mem.base == ZYDIS_REGISTER_RIP)
		*ret += rec->rip + rec->z.length;
	return op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_NONE;
}

/* An operand at a known address: half of the lookup is done beforehand. */
static bool known_operand(struct translation *t, enum direct_kind kind, unsigned size)
{
	uint8_t *at = t->e.at;
	uint64_t addr;

	if (!run_known_address(t, t->now, &addr))
		return false;
	if ((int64_t)addr != (int32_t)addr)
		emit_mov_imm(&t->e, R14, addr);
	if (!run_check_known(t, kind, addr, size)) {
		t->e.at = at;
		return false;
	}
	if ((int64_t)addr == (int32_t)addr)
		t->place = (struct place){.base = R15, .index = REG_NONE, .disp = addr};
	return true;
}

/* What comes next is the instruction's last access. */
void run_note_access(struct translation *t)
{
	struct run_site *site = &t->sites[t->site];

	site->last = min(emit_pos(&t->e) - site->code, 255u);
}

bool run_operand(struct translation *t, const ZydisDecodedOperand *mem)
{
	unsigned size = t->insn.mem_size;
	enum direct_kind kind = t->insn.mem_op & ACCESS_WRITE ? DIRECT_WRITE : DIRECT_READ;

	if (!size || size > 64 || !t->insn.mem_op)
		return false;
	t->site_flags |= SITE_MEM;
	if (run_member(t, REF_OPERAND) || known_operand(t, kind, size))
		return true;
	if (!linear_of(t, mem))
		return false;
	run_emit_check(t, kind, size);
	return true;
}

bool run_linear(struct translation *t)
{
	return linear_of(t, run_memory_operand(t));
}

void run_look_up(struct translation *t, enum direct_kind kind, unsigned size)
{
	t->site_flags |= SITE_MEM;
	run_emit_check(t, kind, size);
}
