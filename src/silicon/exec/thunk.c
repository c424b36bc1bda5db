/* SPDX-License-Identifier: MIT */
/*
 * Borrowed instructions as host code.
 *
 * The guest's instruction is encoded anew for 64-bit mode: its memory operand becomes [base], base
 * being a register that it leaves alone, and RSP as an operand becomes another one. What the encoder made
 * is decoded again and compared, for a wrong encoding would compute something else in silence. Around
 * it stands a small function, thunk_fn:
 *
 *	save the callee-saved registers that the instruction names
 *	load the flags, if it touches any, then the registers that it names
 *	the instruction
 *	store the registers that it writes, then the flags, if it writes any
 *	return 0
 *
 * with a second exit that returns 1, where the fault handler resumes: as the instruction did not
 * complete, nothing was stored. Thunks are shared by all instructions that run the same host bytes.
 * Before changing the code, mind that a fault may come at the instruction only, and that the stack is
 * the same there as at both exits.
 */
#include "silicon/exec/thunk.h"
#include "silicon/exec/zreg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CALLEE_SAVED   (BIT(RBX) | BIT(RBP) | BIT(R12) | BIT(R13) | BIT(R14) | BIT(R15))
#define THUNK_CODE_MAX 512 /* bytes of one thunk at most */

/* The instruction as the host is to run it. */
struct plan {
	ZydisEncoderRequest req;
	uint8_t code[ZYDIS_MAX_INSTRUCTION_LENGTH];
	ZyanUSize len;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	uint32_t named; /* registers that it names, without base */
	uint32_t written;
	uint8_t base;	 /* REG_NONE: no memory operand */
	uint8_t rename;	 /* stands for RSP, or REG_NONE */
	uint8_t cpu_reg; /* holds struct cpu */
};

struct emit {
	uint8_t *at;
};

static void emit8(struct emit *e, uint8_t byte)
{
	*e->at++ = byte;
}

static void emit_bytes(struct emit *e, const void *bytes, size_t nr)
{
	memcpy(e->at, bytes, nr);
	e->at += nr;
}

/* mov between a 64-bit register and [base + disp32] (opcode 8B loads, 89 stores). */
static void emit_mov_mem(struct emit *e, uint8_t opcode, unsigned reg, unsigned base, int32_t disp)
{
	bool small = disp >= -128 && disp < 128;

	emit8(e, 0x48 | (reg >> 3) << 2 | base >> 3);
	emit8(e, opcode);
	emit8(e, (small ? 0x40 : 0x80) | (reg & 7) << 3 | (base & 7));
	if (small)
		emit8(e, disp);
	else
		emit_bytes(e, &disp, 4);
}

static void emit_mov_reg(struct emit *e, unsigned to, unsigned from)
{
	if (to == from)
		return;
	emit8(e, 0x48 | (from >> 3) << 2 | to >> 3);
	emit8(e, 0x89);
	emit8(e, 0xc0 | (from & 7) << 3 | (to & 7));
}

static void emit_push(struct emit *e, unsigned reg, uint8_t opcode)
{
	if (reg >= 8)
		emit8(e, 0x41);
	emit8(e, opcode | (reg & 7));
}

static void emit_pushes(struct emit *e, uint32_t regs)
{
	for (int i = 0; i < NR_GPRS; i++)
		if (regs & BIT(i))
			emit_push(e, i, 0x50);
}

static void emit_return(struct emit *e, uint32_t saved, uint32_t val)
{
	for (int i = NR_GPRS - 1; i >= 0; i--)
		if (saved & BIT(i))
			emit_push(e, i, 0x58);
	emit8(e, 0xb8);
	emit_bytes(e, &val, 4);
	emit8(e, 0xc3);
}

/* Registers that the operands name, a memory operand's left out; hidden operands count. */
static uint32_t named_gprs(const ZydisDecodedOperand *ops, unsigned nr, uint8_t actions)
{
	uint32_t set = 0;

	for (unsigned i = 0; i < nr; i++) {
		uint8_t reg;

		if (ops[i].type != ZYDIS_OPERAND_TYPE_REGISTER || !(ops[i].actions & actions))
			continue;
		reg = zreg_gpr(ops[i].reg.value);
		if (reg != REG_NONE)
			set |= BIT(reg);
	}
	return set;
}

static uint8_t pick(const uint8_t *from, size_t nr, uint32_t taken)
{
	for (size_t i = 0; i < nr; i++)
		if (!(taken & BIT(from[i])))
			return from[i];
	return REG_NONE;
}

/* Choose the registers that stand in for RSP and for the address. */
static bool plan_registers(struct plan *p, const ZydisDecodedInstruction *z,
			   const ZydisDecodedOperand *ops)
{
	static const uint8_t bases[] = {RSI, RDI, RCX, RDX, RBX, RAX};
	static const uint8_t renames[] = {RCX, RDX, RSI, RBX, RAX, RDI, RBP};
	static const uint8_t homes[] = {RDI, R8, R9, R10, R11, RSI, RDX, RCX, RBX, RBP, R13};
	uint32_t taken = named_gprs(ops, z->operand_count, 0xff);
	bool mem = false;

	for (unsigned i = 0; i < z->operand_count_visible; i++)
		mem |= ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
	p->base = p->rename = REG_NONE;
	if (mem)
		taken |= BIT(p->base = pick(bases, sizeof(bases), taken));
	if (taken & BIT(RSP))
		taken |= BIT(p->rename = pick(renames, sizeof(renames), taken));
	p->cpu_reg = pick(homes, sizeof(homes), taken);
	return p->cpu_reg != REG_NONE && !(mem && p->base == REG_NONE);
}

static void rewrite_operands(struct plan *p)
{
	for (unsigned i = 0; i < p->req.operand_count; i++) {
		ZydisEncoderOperand *op = &p->req.operands[i];

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			op->mem.base = ZYDIS_REGISTER_RAX + p->base;
			op->mem.index = ZYDIS_REGISTER_NONE;
			op->mem.scale = 0;
			op->mem.displacement = 0;
		} else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
			   zreg_gpr(op->reg.value) == RSP) {
			op->reg.value = zreg_same_width(op->reg.value, p->rename);
		}
	}
}

/* Segment overrides are in the operand's address already. */
#define SEGMENT_PREFIXES                                                                           \
	(ZYDIS_ATTRIB_HAS_SEGMENT_CS | ZYDIS_ATTRIB_HAS_SEGMENT_SS | ZYDIS_ATTRIB_HAS_SEGMENT_DS | \
	 ZYDIS_ATTRIB_HAS_SEGMENT_ES | ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS)

static bool plan_encode(struct exec_cache *c, struct plan *p)
{
	p->req.machine_mode = ZYDIS_MACHINE_MODE_LONG_64;
	p->req.prefixes &= ~SEGMENT_PREFIXES;
	p->req.address_size_hint = ZYDIS_ADDRESS_SIZE_HINT_NONE;
	p->len = sizeof(p->code);
	if (!ZYAN_SUCCESS(ZydisEncoderEncodeInstruction(&p->req, p->code, &p->len)))
		return false;
	return ZYAN_SUCCESS(
		       ZydisDecoderDecodeFull(&c->host_decoder, p->code, p->len, &p->z, p->ops)) &&
	       p->z.length == p->len;
}

static uint64_t width_mask(unsigned bits)
{
	return bits == 0 || bits >= 64 ? ~0ull : BIT(bits) - 1;
}

static bool same_operand(const struct plan *p, const ZydisDecodedOperand *was,
			 const ZydisDecodedOperand *is)
{
	if (was->type != is->type)
		return false;
	/* The encoder may take a shorter immediate, extended to the same value. */
	if (was->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return !((was->imm.value.u ^ is->imm.value.u) & width_mask(p->z.operand_width));
	if (was->size != is->size || was->actions != is->actions)
		return false;
	switch (was->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER:
		if (zreg_gpr(was->reg.value) == RSP)
			return is->reg.value == zreg_same_width(was->reg.value, p->rename);
		return was->reg.value == is->reg.value;
	case ZYDIS_OPERAND_TYPE_MEMORY:
		return (int)is->mem.base == ZYDIS_REGISTER_RAX + p->base &&
		       is->mem.index == ZYDIS_REGISTER_NONE && !is->mem.disp.value;
	default:
		return false;
	}
}

/* The proof that the encoder was right: same operation on the same operands. */
static bool plan_verify(const struct plan *p, const ZydisDecodedInstruction *z,
			const ZydisDecodedOperand *ops)
{
	if (!zreg_same_operation(&p->z, z))
		return false;
	for (unsigned i = 0; i < z->operand_count_visible; i++)
		if (!same_operand(p, &ops[i], &p->ops[i]))
			return false;
	return true;
}

/*
 * XCHG EAX,EAX as 87 C0 zero-extends; the encoder would shorten it to NOP. Write it out.
 */
static bool encode_special(struct plan *p, const ZydisDecodedInstruction *z)
{
	if (z->mnemonic != ZYDIS_MNEMONIC_XCHG || z->operand_width != 32 ||
	    p->req.operands[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    p->req.operands[0].reg.value != ZYDIS_REGISTER_EAX ||
	    p->req.operands[1].reg.value != ZYDIS_REGISTER_EAX)
		return false;
	p->code[0] = 0x87;
	p->code[1] = 0xc0;
	p->len = 2;
	return true;
}

static bool plan_make(struct exec_cache *c, struct plan *p, const ZydisDecodedInstruction *z,
		      const ZydisDecodedOperand *ops)
{
	if (!plan_registers(p, z, ops) ||
	    !ZYAN_SUCCESS(ZydisEncoderDecodedInstructionToEncoderRequest(
		    z, ops, z->operand_count_visible, &p->req)))
		return false;
	rewrite_operands(p);
	if (encode_special(p, z))
		return ZYAN_SUCCESS(
			ZydisDecoderDecodeFull(&c->host_decoder, p->code, p->len, &p->z, p->ops));
	return plan_encode(c, p) && plan_verify(p, z, ops);
}

/* ---- code ---- */

static uint32_t touched_flags(const ZydisDecodedInstruction *z)
{
	const ZydisAccessedFlags *f = z->cpu_flags;

	return f ? f->tested | f->modified | f->set_0 | f->set_1 | f->undefined : 0;
}

/* Writes all six whatever they were, undefined ones too; shifts by zero and the like do not. */
static bool sets_all_flags(const ZydisDecodedInstruction *z)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
	case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_NEG:
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_TEST:
		return true;
	default:
		return false;
	}
}

/* Offset of the guest register that host register reg holds. */
static int32_t home_of(const struct plan *p, unsigned reg)
{
	return offsetof(struct cpu, gpr) + 8 * (reg == p->rename ? (unsigned)RSP : reg);
}

/* Load all six flags: the sum leaves OF as bit 0 says, SAHF the rest. */
static void emit_load_flags(struct emit *e, const struct plan *p)
{
	emit_mov_mem(e, 0x8b, RAX, p->cpu_reg, offsetof(struct cpu, aflags));
	emit_bytes(e, "\x04\x7f\x9e", 3); /* add $0x7f,%al; sahf */
}

static void emit_store_flags(struct emit *e, const struct plan *p)
{
	emit_bytes(e, "\x9f\x0f\x90\xc0\x0f\xb7\xc0", 7); /* lahf; seto %al; movzwl %ax,%eax */
	emit_mov_mem(e, 0x89, RAX, p->cpu_reg, offsetof(struct cpu, aflags));
}

/* Fill in the offsets of the instruction and of the second exit. */
static void emit_thunk(struct emit *e, const struct plan *p, struct thunk *t)
{
	const ZydisAccessedFlags *f = p->z.cpu_flags;
	uint32_t used = p->named | BIT(p->cpu_reg) | (p->base != REG_NONE ? BIT(p->base) : 0);
	uint32_t saved = used & CALLEE_SAVED;
	uint8_t *start = e->at;

	emit_pushes(e, saved);
	emit_mov_reg(e, p->cpu_reg, RDI);
	if (touched_flags(&p->z) & FLAGS_ARITH && !sets_all_flags(&p->z))
		emit_load_flags(e, p);
	if (p->base != REG_NONE)
		emit_mov_reg(e, p->base, RSI);
	for (unsigned i = 0; i < NR_GPRS; i++)
		if (p->named & BIT(i))
			emit_mov_mem(e, 0x8b, i, p->cpu_reg, home_of(p, i));
	t->insn = t->start + (e->at - start);
	emit_bytes(e, p->code, p->len);
	for (unsigned i = 0; i < NR_GPRS; i++)
		if (p->written & BIT(i))
			emit_mov_mem(e, 0x89, i, p->cpu_reg, home_of(p, i));
	if (f && (f->modified | f->set_0 | f->set_1 | f->undefined) & FLAGS_ARITH)
		emit_store_flags(e, p);
	emit_return(e, saved, 0);
	t->abort = t->start + (e->at - start);
	emit_return(e, saved, 1);
}

/* ---- the table ---- */

static uint32_t key_hash(const struct exec_cache *c, const struct thunk_key *k)
{
	uint64_t w[2];

	memcpy(w, k, sizeof(w));
	return ((w[0] ^ w[1] * 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull) >>
	       (64 - c->table_bits);
}

static uint32_t *table_slot(struct exec_cache *c, const struct thunk_key *k)
{
	uint32_t i = key_hash(c, k);

	while (c->table[i] && memcmp(&c->thunk[c->table[i] - 1].key, k, sizeof(*k)))
		i = (i + 1) & (BIT(c->table_bits) - 1);
	return &c->table[i];
}

/* Few programs need many: the table grows with them. */
static void table_size(struct exec_cache *c, unsigned bits)
{
	c->table_bits = bits;
	memset(c->table, 0, sizeof(*c->table) << bits);
	for (uint32_t i = 0; i < c->nr_thunks; i++)
		*table_slot(c, &c->thunk[i].key) = i + 1;
}

static void thunks_drop(struct exec_cache *c)
{
	c->nr_thunks = 0;
	table_size(c, c->table_bits);
	c->nr_drops++;
	c->used = 0;
	cache_flush(c);
}

static uint32_t thunk_add(struct exec_cache *c, const struct thunk_key *key, const struct plan *p)
{
	struct emit e;
	struct thunk *t;

	if (c->nr_thunks == THUNK_MAX || c->used + THUNK_CODE_MAX > c->code.size)
		thunks_drop(c);
	if (2 * c->nr_thunks == BIT(c->table_bits))
		table_size(c, c->table_bits + 1);
	t = &c->thunk[c->nr_thunks];
	t->key = *key;
	t->start = c->used;
	e.at = c->code.rw + c->used;
	emit_thunk(&e, p, t);
	c->used = ALIGN_UP(e.at - c->code.rw, 16);
	*table_slot(c, key) = ++c->nr_thunks;
	return t->start;
}

bool thunk_make(struct exec_cache *c, const ZydisDecodedInstruction *z,
		const ZydisDecodedOperand *ops, struct insn *insn)
{
	struct thunk_key key = {.rename = REG_NONE};
	struct plan p = {0};
	uint32_t slot;

	if (!plan_make(c, &p, z, ops))
		return false;
	p.named = named_gprs(p.ops, p.z.operand_count, 0xff);
	p.written = named_gprs(p.ops, p.z.operand_count, ZYDIS_OPERAND_ACTION_MASK_WRITE);
	memcpy(key.bytes, p.code, p.len);
	key.rename = p.rename;
	slot = *table_slot(c, &key);
	insn->thunk = (thunk_fn *)(c->code.rx +
				   (slot ? c->thunk[slot - 1].start : thunk_add(c, &key, &p)));
	return true;
}

/* ---- host faults ---- */

static const struct thunk *thunk_at(const struct exec_cache *c, uint32_t offset)
{
	uint32_t lo = 0, hi = c->nr_thunks;

	while (hi - lo > 1) {
		uint32_t mid = (lo + hi) / 2;

		if (c->thunk[mid].start <= offset)
			lo = mid;
		else
			hi = mid;
	}
	return &c->thunk[lo];
}

/* In the signal handler: note the trap and leave by the thunk's second exit. */
static bool thunk_fixup(void *opaque, const struct host_trap *trap, ucontext_t *uc)
{
	struct exec_cache *c = opaque;
	uint8_t *rip = (uint8_t *)uc->uc_mcontext.gregs[REG_RIP];
	const struct thunk *t;

	if (!c->nr_thunks || rip < c->code.rx || rip >= c->code.rx + c->used)
		return false;
	t = thunk_at(c, rip - c->code.rx);
	if (trap->signo == HOST_RESTART && rip != c->code.rx + t->insn)
		return false;
	c->trap = *trap;
	uc->uc_mcontext.gregs[REG_RIP] = (uint64_t)c->code.rx + t->abort;
	return true;
}

int thunk_init(struct exec_cache *c)
{
	int err;

	c->thunk = calloc(THUNK_MAX, sizeof(*c->thunk));
	c->table = calloc(THUNK_SLOTS, sizeof(*c->table));
	if (!c->thunk || !c->table)
		return -ENOMEM;
	c->table_bits = THUNK_FIRST;
	err = host_code_alloc(&c->code, THUNK_CODE);
	if (err)
		return err;
	return host_fault_range_add(c->code.rx, c->code.size, thunk_fixup, c);
}

void thunk_free(struct exec_cache *c)
{
	if (c->code.rx) {
		host_fault_range_remove(c->code.rx);
		host_code_free(&c->code);
	}
	free(c->thunk);
	free(c->table);
}
