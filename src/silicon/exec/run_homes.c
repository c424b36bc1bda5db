/* SPDX-License-Identifier: MIT */
/*
 * Which guest registers a trace has in registers of the host (run_translate.h).
 *
 * There are four fewer of these than of the guest's: r12 to r15 stand in the frame. A trace that uses one of them more
 * than one that has a register exchanges the two behind its head, and exchanges them again before whatever leaves it: so all
 * that is not translated code of that trace finds them where they are. Whoever takes part is only ever named in
 * instructions, never implied by one.
 *
 * Cold paths go by a stub of the trace that does so: its sites' jumps, and faults of the host, which find it by the block.
 */
#include "silicon/exec/run_translate.h"

#include "silicon/exec/borrow.h"

#define GAIN \
	4 /* uses more than the other's: what the exchange costs when the trace is entered and left */

struct uses {
	unsigned nr[NR_GPRS];
	bool fixed[NR_GPRS]; /* implied by an instruction, or exchanged */
};

void run_homes_usual(struct translation *t)
{
	for (unsigned i = 0; i < NR_GPRS; i++) {
		t->home[i] = i < R12 ? i : REG_NONE;
		t->home_slot[i] = i < R12 ? 0 : EMIT_SLOT_GPR + i - R12;
	}
	t->home[RCX] = R12;
	t->home[RSP] = R13;
	t->nr_exchanges = 0;
}

/* ---- the choice ---- */

static void use(struct uses *u, ZydisRegister reg, bool named)
{
	uint8_t gpr = zreg_gpr(reg);

	if (gpr == REG_NONE)
		return;
	u->nr[gpr]++;
	u->fixed[gpr] |= !named;
}

/* Such as take their registers from ->home, whatever is where. */
static bool by_homes(const struct run_record *rec)
{
	const struct insn *insn = &rec->insn;

	if (insn->trap || insn->flags & (INSN_LOCK | INSN_66 * rec->ends))
		return false;
	switch (rec->z.mnemonic) {
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_POP:
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_CALL:
	case ZYDIS_MNEMONIC_RET:
		return true;
	default:
		return insn->flags & INSN_INLINE || insn->run == run_nop || run_is_jcc(&rec->z);
	}
}

/* False: the record's registers are to be where they always are. */
static bool count_uses(struct uses *u, const struct run_record *rec)
{
	if (!by_homes(rec))
		return false;
	for (unsigned i = 0; i < rec->z.operand_count; i++) {
		const ZydisDecodedOperand *op = &rec->ops[i];
		bool named = op->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;

		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER) {
			if (zreg_high(op->reg.value))
				return false;
			use(u, op->reg.value, named);
		} else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			use(u, op->mem.base, named);
			use(u, op->mem.index, named);
		}
	}
	return true;
}

/* Of those with a home the one that is used least, of the others the one used most; REG_NONE: there is none. */
static uint8_t pick(const struct translation *t, const struct uses *u, bool homeless)
{
	uint8_t found = REG_NONE;

	for (unsigned i = 0; i < NR_GPRS; i++) {
		if (u->fixed[i] || (t->home[i] == REG_NONE) != homeless)
			continue;
		if (found == REG_NONE ||
		    (homeless ? u->nr[i] > u->nr[found] : u->nr[i] < u->nr[found]))
			found = i;
	}
	return found;
}

static void exchange(struct translation *t, struct uses *u, uint8_t in, uint8_t out)
{
	t->exchange[t->nr_exchanges++] = (struct exchange){
		.host = t->home[out],
		.slot = t->home_slot[in],
	};
	t->home[in] = t->home[out];
	t->home_slot[out] = t->home_slot[in];
	t->home[out] = REG_NONE;
	u->fixed[in] = u->fixed[out] = true;
}

static void choose(struct translation *t, struct uses *u)
{
	unsigned gain = run_loops(t) ? 1 : GAIN;

	while (t->nr_exchanges < RUN_EXCHANGES) {
		uint8_t in = pick(t, u, true), out = pick(t, u, false);

		if (in == REG_NONE || out == REG_NONE || u->nr[in] < u->nr[out] + gain)
			return;
		exchange(t, u, in, out);
	}
}

void run_homes(struct translation *t)
{
	struct uses u = {0};

	for (unsigned i = 0; i < t->nr_records; i++)
		if (!count_uses(&u, &t->record[i]))
			return;
	choose(t, &u);
}

/* ---- emission ---- */

void run_exchange(struct translation *t)
{
	struct emit *e = &t->e;

	for (unsigned i = 0; i < t->nr_exchanges; i++) {
		const struct exchange *x = &t->exchange[i];

		emit_mov(e, RCX, x->host);
		emit_load_slot(e, x->host, x->slot);
		emit_store_slot(e, RCX, x->slot);
	}
}

void run_homes_stub(struct translation *t, uint32_t head)
{
	struct emit *e = &t->e;

	t->stub_cold = t->run->stub_cold;
	if (!t->nr_exchanges)
		return;
	t->stub_cold = head - RUN_HOMES_STUB;
	e->at = e->base + t->stub_cold;
	EMIT(e, "\x41\x89\xce"); /* mov %ecx,%r14d */
	run_exchange(t);
	EMIT(e, "\x44\x89\xf1"); /* mov %r14d,%ecx */
	emit_jmp(e, t->run->stub_cold);
	t->failed |= emit_pos(e) > head;
}
