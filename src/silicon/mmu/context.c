/* SPDX-License-Identifier: MIT */
/*
 * Contexts: what the TLB keeps of the lower half for recent PCIDs (tlb.h), and flushes by PCID.
 *
 * The present context's generations are in struct tlb. Leaving it puts them away, and the direct tables' entries
 * with them (direct.h); entering another takes its own out again. A context that is flushed from outside is
 * simply forgotten: whoever comes back to its PCID finds none, and begins with new generations. Entries that are
 * global in the lower half stay their context's own; INVLPG of another one forgets contexts that have some.
 */
#include "silicon/mmu/direct.h"
#include "silicon/mmu/tlb.h"

#include <string.h>

/* ---- generations ---- */

static void forget(struct tlb *tlb, unsigned i)
{
	tlb->context[i].used = false;
	direct_forget(tlb->direct, i);
}

void tlb_forget_contexts(struct tlb *tlb)
{
	for (unsigned i = 0; i < TLB_CONTEXTS; i++)
		if (i != tlb->now && tlb->context[i].used)
			forget(tlb, i);
}

void tlb_forget_globals(struct tlb *tlb)
{
	for (unsigned i = 0; i < TLB_CONTEXTS; i++)
		if (i != tlb->now && tlb->context[i].used && tlb->context[i].global)
			forget(tlb, i);
}

static void renew_half(struct tlb *tlb, unsigned half)
{
	direct_flush_half(tlb->direct, half);
	tlb->gen[half] = tlb->next_gen++;
	tlb->gen_write[half] = tlb->next_gen++;
	tlb->local[half] = false;
	if (!half)
		tlb->global = false;
}

void tlb_start_over(struct tlb *tlb)
{
	memset(tlb->table, 0, sizeof(tlb->table));
	memset(tlb->large, 0, sizeof(tlb->large));
	tlb_forget_code(tlb);
	tlb_forget_contexts(tlb);
	tlb->huge = 0;
	tlb->next_gen = 1;
	renew_half(tlb, 0);
	renew_half(tlb, 1);
}

void tlb_flush_half(struct tlb *tlb, unsigned half)
{
	if (tlb->next_gen + 2 > TLB_GENERATIONS) {
		tlb_start_over(tlb);
		return;
	}
	tlb_forget_code(tlb);
	renew_half(tlb, half);
}

/* ---- going from one to another ---- */

/* The context of a PCID, or TLB_CONTEXTS. */
static unsigned find(const struct tlb *tlb, uint16_t pcid)
{
	unsigned i = 0;

	while (i < TLB_CONTEXTS && !(tlb->context[i].used && tlb->context[i].pcid == pcid))
		i++;
	return i;
}

/* The one that was left longest ago, empty. */
static unsigned take(struct tlb *tlb, uint16_t pcid)
{
	unsigned oldest = tlb->now ? 0 : 1;

	for (unsigned i = 0; i < TLB_CONTEXTS; i++) {
		const struct tlb_context *c = &tlb->context[i];

		if (i != tlb->now && (!c->used || c->last < tlb->context[oldest].last))
			oldest = i;
		if (oldest == i && !c->used)
			break;
	}
	forget(tlb, oldest);
	tlb->context[oldest] = (struct tlb_context){
		.used = true, .pcid = pcid, .gen = tlb->next_gen++, .gen_write = tlb->next_gen++};
	return oldest;
}

static void leave(struct tlb *tlb)
{
	struct tlb_context *c = &tlb->context[tlb->now];

	c->used = true;
	c->local = tlb->local[0];
	c->global = tlb->global;
	c->gen = tlb->gen[0];
	c->gen_write = tlb->gen_write[0];
	c->last = ++tlb->nr_switches;
}

static void enter(struct tlb *tlb, unsigned i)
{
	struct tlb_context *c = &tlb->context[i];

	tlb->now = i;
	tlb->salt = tlb_salt(i);
	tlb->local[0] = c->local;
	tlb->global = c->global;
	tlb->gen[0] = c->gen;
	tlb->gen_write[0] = c->gen_write ? c->gen_write : tlb->next_gen++;
}

/* The upper half is everybody's: what is not global in it belongs to the PCID that goes. */
static void switch_to(struct tlb *tlb, uint16_t pcid)
{
	unsigned to = find(tlb, pcid);

	if (to == TLB_CONTEXTS)
		to = take(tlb, pcid);
	direct_switch(tlb->direct, tlb->now, to);
	leave(tlb);
	enter(tlb, to);
	tlb_forget_code(tlb);
	if (tlb->local[1])
		renew_half(tlb, 1);
}

void mmu_switch_pcid(struct cpu *cpu, bool keep)
{
	struct tlb *tlb = cpu->tlb;
	uint16_t pcid = mmu_context(cpu).pcid;

	if (tlb->next_gen + 6 > TLB_GENERATIONS)
		tlb_start_over(tlb);
	if (tlb->context[tlb->now].pcid != pcid)
		switch_to(tlb, pcid);
	if (!keep)
		mmu_flush_cr3(cpu);
}

/* ---- INVPCID ---- */

void mmu_flush_pcid_page(struct cpu *cpu, uint16_t pcid, gva_t addr)
{
	struct tlb *tlb = cpu->tlb;
	unsigned i = find(tlb, pcid);

	if (tlb->context[tlb->now].pcid == pcid) {
		mmu_flush_page(cpu, addr);
		return;
	}
	if (i == TLB_CONTEXTS || tlb_half(tlb, addr))
		return;
	if (tlb_in_large(tlb, addr)) {
		forget(tlb, i);
		return;
	}
	tlb_drop_page(tlb, addr, tlb_salt(i));
	direct_forget_page(tlb->direct, i, addr);
}

void mmu_flush_pcid(struct cpu *cpu, uint16_t pcid)
{
	struct tlb *tlb = cpu->tlb;
	unsigned i = find(tlb, pcid);

	if (tlb->context[tlb->now].pcid == pcid)
		mmu_flush_cr3(cpu);
	else if (i != TLB_CONTEXTS)
		forget(tlb, i);
}

void mmu_flush_pcids(struct cpu *cpu, bool global)
{
	struct tlb *tlb = cpu->tlb;

	tlb_forget_contexts(tlb);
	for (unsigned half = 0; half < 2; half++)
		if (global || tlb->local[half])
			tlb_flush_half(tlb, half);
}
