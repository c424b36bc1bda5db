/* SPDX-License-Identifier: MIT */
/*
 * Accesses of a trace that one check serves (run_translate.h).
 *
 * Each general register is followed as root + constant through what only adds constants. Accesses off the same
 * roots, near each other, are a group: its first member checks the whole span, for writing if one writes, and leaves
 * root + addend, a host pointer, in a slot of the host's stack frame; the others go by that. What the slot rests on
 * lasts as long as the trace is not left: translations change in handlers alone, and run_cold() does not come back to
 * the trace then, nor with the slots of a check that was missed unless it can set them.
 *
 * A write behind a way out of the trace that the first member stands before has a group of its own: else a page that
 * is only read would be checked for writing.
 *
 * An index that is small, whatever it is, as bytecodes are, makes a group of a whole table: all that it can reach is checked, if
 * that is in one page as the registers are when the trace is made.
 */
#include "silicon/exec/run_translate.h"

#include "silicon/exec/borrow.h"

#define SPAN	 512  /* bytes of a group: the more, the oftener a page's end lies within */
#define TABLE	 2304 /* the same, where indices are bounded: 256 entries of 8 bytes and more */
#define BOUND	 255  /* of an index that is */
#define FAR	 (1 << 30)
#define RET_IMM	 0xc2 /* no other opcode of the stack's instructions */
#define MAX_REFS (RUN_BLOCK_INSNS * NR_REFS)

struct value {
	uint32_t root; /* 0: none, the constant is all */
	uint32_t most; /* the register's value is no more than that, if it is not 0 */
	int64_t add;
};

/* An access on its way into a group. */
struct access_ref {
	struct run_record *rec;
	enum ref_kind kind;
	uint8_t seg, base, index, scale;
	uint16_t size; /* with a bounded index: of all that it can reach */
	bool write, bounded;
	struct value b, x; /* of base and index; a bounded one's is none */
	int64_t at;	   /* from the roots */
	unsigned group;
};

struct candidate {
	uint8_t seg, scale;
	uint32_t base, index; /* roots */
	int64_t low, high, first;
	bool write, bounded;
	unsigned branches, members;
	unsigned last; /* of ->ref */
};

struct tracker {
	const struct cpu *cpu;
	struct value reg[NR_GPRS];
	uint32_t next_root;
	unsigned branches;
	unsigned nr, closed; /* of candidates; those before are closed */
	unsigned nr_refs;
	struct candidate candidate[MAX_REFS];
	struct access_ref ref[MAX_REFS];
};

/* ---- registers ---- */

static void forget(struct tracker *k, unsigned gpr)
{
	k->reg[gpr] = (struct value){.root = k->next_root++};
}

static void add(struct tracker *k, unsigned gpr, int64_t by)
{
	k->reg[gpr].add += by;
	k->reg[gpr].most = 0;
	if (k->reg[gpr].add > FAR || k->reg[gpr].add < -FAR)
		forget(k, gpr);
}

/* Nothing is known from here on, segments' bases included. */
static void forget_all(struct tracker *k)
{
	for (unsigned i = 0; i < NR_GPRS; i++)
		forget(k, i);
	k->closed = k->nr;
}

static void forget_written(struct tracker *k, const struct run_record *rec)
{
	for (unsigned i = 0; i < rec->z.operand_count; i++) {
		const ZydisDecodedOperand *op = &rec->ops[i];
		uint8_t gpr;

		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		gpr = zreg_gpr(op->reg.value);
		if (gpr != REG_NONE)
			forget(k, gpr);
	}
}

/* ---- what instructions do to registers ---- */

static bool is_reg64(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_GPR64 &&
	       op->reg.value != ZYDIS_REGISTER_RIP;
}

static bool is_imm(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

static bool track_move(struct tracker *k, const struct run_record *rec)
{
	if (!is_reg64(&rec->ops[1]))
		return false;
	k->reg[zreg_gpr(rec->ops[0].reg.value)] = k->reg[zreg_gpr(rec->ops[1].reg.value)];
	return true;
}

static bool track_add(struct tracker *k, const struct run_record *rec)
{
	int64_t by = rec->ops[1].imm.value.s;

	if (!is_imm(&rec->ops[1]))
		return false;
	add(k, zreg_gpr(rec->ops[0].reg.value), rec->z.mnemonic == ZYDIS_MNEMONIC_ADD ? by : -by);
	return true;
}

static bool track_count(struct tracker *k, const struct run_record *rec)
{
	add(k, zreg_gpr(rec->ops[0].reg.value), rec->z.mnemonic == ZYDIS_MNEMONIC_INC ? 1 : -1);
	return true;
}

static bool track_lea(struct tracker *k, const struct run_record *rec)
{
	const ZydisDecodedOperand *mem = &rec->ops[1];
	uint8_t to = zreg_gpr(rec->ops[0].reg.value), from = zreg_gpr(mem->mem.base);

	if (from == REG_NONE || mem->mem.index != ZYDIS_REGISTER_NONE || rec->z.address_width != 64)
		return false;
	k->reg[to] = k->reg[from];
	add(k, to, mem->mem.disp.value);
	return true;
}

static const struct {
	uint16_t mnemonic;
	bool (*track)(struct tracker *k, const struct run_record *rec);
} tracked[] = {
	{ZYDIS_MNEMONIC_MOV, track_move},  {ZYDIS_MNEMONIC_ADD, track_add},
	{ZYDIS_MNEMONIC_SUB, track_add},   {ZYDIS_MNEMONIC_INC, track_count},
	{ZYDIS_MNEMONIC_DEC, track_count}, {ZYDIS_MNEMONIC_LEA, track_lea},
};

/* XOR of a register with itself. */
static bool track_zero(struct tracker *k, const struct run_record *rec)
{
	const ZydisDecodedOperand *to = &rec->ops[0], *from = &rec->ops[1];

	if (rec->z.mnemonic != ZYDIS_MNEMONIC_XOR || to->type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    from->type != to->type || from->reg.value != to->reg.value || to->size < 32)
		return false;
	k->reg[zreg_gpr(to->reg.value)] = (struct value){0};
	return true;
}

static bool track(struct tracker *k, const struct run_record *rec)
{
	if (track_zero(k, rec))
		return true;
	if (!is_reg64(&rec->ops[0]))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(tracked); i++)
		if (tracked[i].mnemonic == rec->z.mnemonic)
			return tracked[i].track(k, rec);
	return false;
}

/* The most that the instruction leaves in its first operand, a register; 0: not known, or much. */
static uint32_t most_of(const struct run_record *rec)
{
	const ZydisDecodedOperand *to = &rec->ops[0], *from = &rec->ops[1];

	if (to->type != ZYDIS_OPERAND_TYPE_REGISTER || to->size < 32)
		return 0;
	if (rec->z.mnemonic == ZYDIS_MNEMONIC_MOVZX && from->size == 8)
		return BOUND;
	if (rec->z.mnemonic == ZYDIS_MNEMONIC_AND && is_imm(from) && from->imm.value.s > 0 &&
	    from->imm.value.s <= BOUND)
		return from->imm.value.s;
	return 0;
}

static void track_most(struct tracker *k, const struct run_record *rec)
{
	uint32_t most = most_of(rec);

	if (most)
		k->reg[zreg_gpr(rec->ops[0].reg.value)].most = most;
}

/* ---- the stack ---- */

/* What PUSH, POP, CALL, RET and LEAVE do, where they are translated inline. */
struct stack_use {
	uint16_t mnemonic;
	uint8_t base;
	int8_t disp;
	bool write;
	int8_t move; /* of RSP */
};

static const struct stack_use stack_uses[] = {
	{ZYDIS_MNEMONIC_PUSH, RSP, -8, true, -8}, {ZYDIS_MNEMONIC_CALL, RSP, -8, true, -8},
	{ZYDIS_MNEMONIC_POP, RSP, 0, false, 8},	  {ZYDIS_MNEMONIC_RET, RSP, 0, false, 8},
	{ZYDIS_MNEMONIC_LEAVE, RBP, 0, false, 0},
};

static const struct stack_use *stack_use(const struct run_record *rec)
{
	if (rec->insn.flags & INSN_66 || rec->insn.trap)
		return NULL;
	for (unsigned i = 0; i < ARRAY_SIZE(stack_uses); i++)
		if (stack_uses[i].mnemonic == rec->z.mnemonic)
			return &stack_uses[i];
	return NULL;
}

static void track_stack(struct tracker *k, const struct run_record *rec,
			const struct stack_use *use)
{
	if (rec->z.mnemonic == ZYDIS_MNEMONIC_LEAVE) {
		k->reg[RSP] = k->reg[RBP];
		add(k, RSP, 8);
		forget(k, RBP);
		return;
	}
	add(k, RSP, use->move + (rec->z.opcode == RET_IMM ? (uint16_t)rec->insn.imm : 0));
	if (rec->z.mnemonic == ZYDIS_MNEMONIC_POP) {
		uint8_t gpr = zreg_gpr(rec->ops[0].reg.value);

		if (rec->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER && gpr != REG_NONE)
			forget(k, gpr);
		else
			forget_all(k);
	}
}

/* ---- groups ---- */

static bool fits(const struct candidate *c, const struct access_ref *r)
{
	int64_t span = max(c->high, r->at + r->size) - min(c->low, r->at);

	return c->seg == r->seg && c->scale == r->scale && c->base == r->b.root &&
	       c->index == r->x.root && c->bounded == r->bounded &&
	       span <= (r->bounded ? TABLE : SPAN);
}

static void join(struct tracker *k, struct access_ref *r)
{
	struct candidate *c;

	for (unsigned i = k->nr; i-- > k->closed;) {
		c = &k->candidate[i];
		if (!fits(c, r) || (r->write && !c->write && c->branches != k->branches))
			continue;
		c->low = min(c->low, r->at);
		c->high = max(c->high, r->at + r->size);
		c->write |= r->write;
		c->members++;
		c->last = k->nr_refs;
		r->group = i;
		return;
	}
	r->group = k->nr;
	k->candidate[k->nr++] = (struct candidate){
		.seg = r->seg,
		.scale = r->scale,
		.base = r->b.root,
		.index = r->x.root,
		.low = r->at,
		.high = r->at + r->size,
		.first = r->at,
		.write = r->write,
		.bounded = r->bounded,
		.branches = k->branches,
		.members = 1,
		.last = k->nr_refs,
	};
}

static struct value value_of(const struct tracker *k, uint8_t gpr)
{
	return gpr == REG_NONE ? (struct value){0} : k->reg[gpr];
}

/* Whether all that a bounded index can reach from disp on is in one page, as things are. */
static bool fits_page(const struct tracker *k, const struct access_ref *r, int64_t disp,
		      uint32_t most)
{
	uint64_t low = disp + (r->base == REG_NONE ? 0 : k->cpu->gpr[r->base]) +
		       (r->seg ? k->cpu->seg[r->seg].base : 0);

	return (low & ~PAGE_MASK) + (most << r->scale) + r->size <= PAGE_SIZE;
}

/* If the index is bounded, take it for all that it may be. */
static void bound(const struct tracker *k, struct access_ref *r, int64_t disp)
{
	uint32_t most = value_of(k, r->index).most;

	if (!most || (most << r->scale) + r->size > TABLE || !fits_page(k, r, disp, most))
		return;
	r->bounded = true;
	r->size += most << r->scale;
	r->x = (struct value){0};
}

static void note(struct tracker *k, struct access_ref r, int64_t disp)
{
	r.b = value_of(k, r.base);
	r.x = value_of(k, r.index);
	bound(k, &r, disp);
	r.at = disp + r.b.add + r.x.add * (1 << r.scale);
	if (r.base == REG_NONE && r.index != REG_NONE && !r.bounded)
		return; /* a table: nothing else is likely to be near */
	if (r.base != REG_NONE && !r.b.root)
		return; /* groups without roots are known addresses */
	if (r.base != REG_NONE && (r.at > FAR || r.at < -FAR || disp > FAR || disp < -FAR))
		return;
	join(k, &r);
	k->ref[k->nr_refs++] = r;
}

static void note_operand(struct tracker *k, struct run_record *rec)
{
	const ZydisDecodedOperand *op = NULL;
	struct access_ref r = {.rec = rec, .kind = REF_OPERAND};
	int64_t disp;

	for (unsigned i = 0; i < rec->z.operand_count_visible && !op; i++)
		if (rec->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			op = &rec->ops[i];
	if (!op || !rec->insn.mem_op || !rec->insn.mem_size || rec->insn.mem_size > 64 ||
	    rec->z.address_width != 64)
		return;
	disp = op->mem.disp.value;
	r.base = zreg_gpr(op->mem.base);
	r.index = zreg_gpr(op->mem.index);
	if (op->mem.base == ZYDIS_REGISTER_RIP) {
		r.base = REG_NONE;
		disp += rec->rip + rec->z.length;
	}
	if (r.index != REG_NONE)
		r.scale = op->mem.scale > 1 ? __builtin_ctz(op->mem.scale) : 0;
	r.seg = rec->insn.seg >= SEG_FS ? rec->insn.seg : 0;
	r.size = rec->insn.mem_size;
	r.write = rec->insn.mem_op & ACCESS_WRITE;
	note(k, r, disp);
}

static void note_stack(struct tracker *k, struct run_record *rec, const struct stack_use *use)
{
	note(k,
	     (struct access_ref){
		     .rec = rec,
		     .kind = REF_STACK,
		     .base = use->base,
		     .index = REG_NONE,
		     .size = 8,
		     .write = use->write,
	     },
	     use->disp);
}

/* ---- the pass ---- */

/* Changes registers by its operands alone, and leaves segments as they are. */
static bool is_plain(const struct run_record *rec)
{
	return rec->insn.flags & INSN_INLINE || rec->insn.run == run_nop ||
	       rec->z.mnemonic == ZYDIS_MNEMONIC_LEA;
}

static bool is_direct(const struct run_record *rec)
{
	return rec->follow == FOLLOW_NEXT || rec->follow == FOLLOW_TARGET;
}

static void visit(struct tracker *k, struct run_record *rec)
{
	const struct stack_use *use = stack_use(rec);
	bool branch = rec->follow != FOLLOW_NONE;

	memset(rec->ref, 0, sizeof(rec->ref));
	rec->keeps = is_plain(rec) || is_direct(rec) ||
		     (use && !(rec->insn.flags & INSN_MEM) && !rec->ends);
	if (is_plain(rec) || use || rec->z.mnemonic == ZYDIS_MNEMONIC_JMP)
		note_operand(k, rec);
	if (use)
		note_stack(k, rec, use);
	k->branches += branch && rec->z.meta.category != ZYDIS_CATEGORY_UNCOND_BR;
	if (use)
		track_stack(k, rec, use);
	else if (branch || track(k, rec))
		return;
	else if (is_plain(rec)) {
		forget_written(k, rec);
		track_most(k, rec);
	} else {
		forget_all(k);
	}
}

static struct group group_of(const struct candidate *c)
{
	return (struct group){
		.seg = c->seg,
		.write = c->write,
		.size = c->high - c->low,
		.root = c->base || c->index ? 0 : c->first,
	};
}

/* A slot that no group has from the access on; RUN_SLOTS: all are in use. */
static unsigned free_slot(const unsigned until[RUN_SLOTS], unsigned ref)
{
	unsigned slot = 0;

	while (slot < RUN_SLOTS && until[slot] > ref)
		slot++;
	return slot;
}

/* Make a group of the candidate whose first member the access is. Returns its number + 1; 0: it gets no slot. */
static uint8_t group_new(struct translation *t, const struct candidate *c, unsigned ref,
			 unsigned until[RUN_SLOTS])
{
	unsigned slot = free_slot(until, ref);

	if (c->members < 2 || slot == RUN_SLOTS || t->nr_groups == RUN_TRACE_GROUPS)
		return 0;
	until[slot] = c->last + 1;
	t->group[t->nr_groups] = group_of(c);
	t->group[t->nr_groups].slot = slot;
	return ++t->nr_groups;
}

/* Give slots to the candidates that have more than one member, from the first to the last of these, and tell them. */
static void settle(struct translation *t, struct tracker *k)
{
	uint8_t number[MAX_REFS] = {0};
	bool seen[MAX_REFS] = {0};
	unsigned until[RUN_SLOTS] = {0};

	for (unsigned i = 0; i < k->nr_refs; i++) {
		const struct access_ref *r = &k->ref[i];
		const struct candidate *c = &k->candidate[r->group];
		int64_t index = r->x.add * (1 << r->scale);

		if (!seen[r->group])
			number[r->group] = group_new(t, c, i, until);
		seen[r->group] = true;
		if (!number[r->group])
			continue;
		index += t->group[number[r->group] - 1].root;
		r->rec->ref[r->kind] = (struct run_ref){
			.group = number[r->group],
			.base = r->base,
			.index = r->index,
			.scale = r->scale,
			.bounded = r->bounded,
			.disp = r->at - index,
			.low = c->low - index,
			.add = -r->b.add,
		};
	}
}

void run_group(struct translation *t)
{
	struct tracker k;

	k.cpu = t->cpu;
	k.next_root = 1;
	k.branches = k.nr = k.nr_refs = 0;
	forget_all(&k);
	for (unsigned i = 0; i < t->nr_records; i++)
		visit(&k, &t->record[i]);
	settle(t, &k);
}

/* ---- emission ---- */

static unsigned home_or(struct translation *t, uint8_t gpr, unsigned free)
{
	uint8_t home = run_home(t, gpr);

	if (home != REG_NONE)
		return home;
	run_load_gpr(t, free, gpr);
	return free;
}

/* reg = base of the group's segment. */
static void emit_segment(struct translation *t, const struct group *g, unsigned reg)
{
	emit_load_cpu(&t->e, reg,
		      offsetof(struct cpu, seg) + g->seg * sizeof(struct segment) +
			      offsetof(struct segment, base));
}

/* The group's accesses are off that register, too, as it is at the first: not off whatever it may be. */
static bool checks_index(const struct run_ref *ref)
{
	return ref->index != REG_NONE && !ref->bounded;
}

/* r14 = linear address of the group's lowest byte. */
static void emit_lowest(struct translation *t, const struct group *g, const struct run_ref *ref)
{
	struct emit *e = &t->e;
	unsigned base, index = REG_NONE;

	if (ref->base == REG_NONE) {
		emit_mov_imm(e, R14, g->root + ref->low);
	} else {
		base = home_or(t, ref->base, R14);
		if (checks_index(ref))
			index = home_or(t, ref->index, R15);
		emit_lea(e, R14, base, index, ref->scale, ref->low + ref->add);
	}
	if (!g->seg)
		return;
	emit_segment(t, g, R15);
	emit_lea(e, R14, R14, R15, 0, 0);
}

/* r15 is the addend: make it root + addend. */
static void emit_root(struct translation *t, const struct group *g, const struct run_ref *ref)
{
	struct emit *e = &t->e;

	if (!checks_index(ref)) {
		emit_lea(e, R15, R15, R14, 0, -ref->low);
		return;
	}
	if (g->seg) {
		emit_segment(t, g, RCX);
		emit_lea(e, R15, R15, RCX, 0, 0);
	}
	emit_lea(e, R15, R15, home_or(t, ref->base, RCX), 0, ref->add);
}

static void note_check(struct translation *t, const struct group *g, const struct run_ref *ref)
{
	struct run *run = t->run;
	struct run_site *site = &t->sites[t->site];

	if (!site->nr_groups++)
		site->group = run->nr_groups;
	run->group[run->nr_groups++] = (struct run_group){
		.root = g->root + ref->add,
		.low = ref->low,
		.size = g->size,
		.seg = g->seg,
		.base = ref->base,
		.index = checks_index(ref) ? ref->index : REG_NONE,
		.scale = ref->scale,
		.slot = g->slot,
		.number = g - t->group,
		.kind = g->write ? DIRECT_WRITE : DIRECT_READ,
	};
}

static void emit_check(struct translation *t, struct group *g, const struct run_ref *ref)
{
	enum direct_kind kind = g->write ? DIRECT_WRITE : DIRECT_READ;
	bool known = ref->base == REG_NONE && !g->seg;

	note_check(t, g, ref);
	emit_lowest(t, g, ref);
	if (!known || !run_check_known(t, kind, g->root + ref->low, g->size))
		run_emit_check(t, kind, g->size);
	emit_root(t, g, ref);
	emit_store_slot(&t->e, R15, g->slot);
	g->ready = true;
}

bool run_member(struct translation *t, enum ref_kind kind)
{
	const struct run_ref *ref = &t->now->ref[kind];
	struct group *g;

	if (!ref->group || t->apart)
		return false;
	g = &t->group[ref->group - 1];
	if (!g->ready)
		emit_check(t, g, ref);
	else if (t->in_r15 != g)
		emit_load_slot(&t->e, R15, g->slot);
	t->in_r15 = g;
	t->place = (struct place){.base = R15, .index = REG_NONE, .disp = ref->disp};
	if (ref->index != REG_NONE) {
		t->place.index = home_or(t, ref->index, R14);
		t->place.scale = ref->scale;
	}
	return true;
}
