/* SPDX-License-Identifier: MIT */
/*
 * Contexts and worlds: what the TLB keeps of the lower half for recent PCIDs, and of the upper half for recent guests
 * (tlb.h), and flushes by PCID.
 *
 * The present ones' generations are in struct tlb. Leaving a context puts them away, and the direct tables' entries
 * with them (direct.h); entering another takes its own out again. A context that is flushed from outside is
 * simply forgotten: whoever comes back to its PCID finds none, and begins with new generations. Entries that are
 * global in the lower half stay their context's own; INVLPG of another one forgets contexts that have some. A world is
 * an upper half with the contexts that name it.
 */
#include "silicon/mmu/direct.h"
#include "silicon/mmu/tlb.h"

#include <string.h>

/* ---- generations ---- */

static void forget(struct tlb *tlb, unsigned i)
{
	tlb_forget_paths(tlb);
	tlb->context[i].used = false;
	direct_forget(tlb->direct, 0, i);
}

static void forget_world(struct tlb *tlb, unsigned i)
{
	tlb_forget_paths(tlb);
	tlb->worlds[i].used = false;
	direct_forget(tlb->direct, 1, i);
}

void tlb_forget_contexts(struct tlb *tlb)
{
	for (unsigned i = 0; i < TLB_CONTEXTS; i++)
		if (i != tlb->now && tlb->context[i].used)
			forget(tlb, i);
	for (unsigned i = 0; i < TLB_WORLDS; i++)
		if (i != tlb->world && tlb->worlds[i].used)
			forget_world(tlb, i);
}

/* A context of this world, not the present one. */
static bool is_of(const struct tlb *tlb, unsigned i, unsigned world)
{
	return i != tlb->now && tlb->context[i].used && tlb->context[i].world == world;
}

static void forget_contexts_of(struct tlb *tlb, unsigned world)
{
	for (unsigned i = 0; i < TLB_CONTEXTS; i++)
		if (is_of(tlb, i, world))
			forget(tlb, i);
}

void tlb_forget_globals(struct tlb *tlb)
{
	for (unsigned i = 0; i < TLB_CONTEXTS; i++)
		if (is_of(tlb, i, tlb->world) && tlb->context[i].global)
			forget(tlb, i);
}

void tlb_forget_writes(struct tlb *tlb)
{
	for (unsigned i = 0; i < TLB_CONTEXTS; i++)
		tlb->context[i].gen_write = 0;
	for (unsigned i = 0; i < TLB_WORLDS; i++)
		tlb->worlds[i].gen_write = 0;
}

static void renew_half(struct tlb *tlb, unsigned half)
{
	direct_flush_half(tlb->direct, half);
	tlb_forget_paths(tlb);
	tlb->gen[half] = tlb->next_gen++;
	tlb->gen_write[half] = tlb->next_gen++;
	tlb->local[half] = false;
	tlb->count.halves++;
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

void tlb_name_present(struct cpu *cpu)
{
	struct tlb *tlb = cpu->tlb;
	struct walk_context ctx = mmu_context(cpu);

	tlb->context[tlb->now].pcid = ctx.pcid;
	tlb->root = ctx.root;
}

/* ---- the lower half: going from one PCID to another ---- */

/* The context of a PCID in the present world, or TLB_CONTEXTS. */
static unsigned find(const struct tlb *tlb, uint16_t pcid)
{
	for (unsigned i = 0; i < TLB_CONTEXTS; i++) {
		const struct tlb_context *c = &tlb->context[i];

		if (c->used && c->pcid == pcid && c->world == tlb->world)
			return i;
	}
	return TLB_CONTEXTS;
}

/* The one that was left longest ago, empty. */
static unsigned take(struct tlb *tlb, uint16_t pcid, gpa_t root)
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
	tlb->count.taken++;
	tlb->context[oldest] = (struct tlb_context){.used = true,
						    .world = tlb->world,
						    .pcid = pcid,
						    .root = root,
						    .gen = tlb->next_gen++,
						    .gen_write = tlb->next_gen++};
	return oldest;
}

static void leave(struct tlb *tlb)
{
	struct tlb_context *c = &tlb->context[tlb->now];

	c->used = true;
	c->local = tlb->local[0];
	c->global = tlb->global;
	c->root = tlb->root;
	c->gen = tlb->gen[0];
	c->gen_write = tlb->gen_write[0];
	c->last = ++tlb->nr_switches;
}

static void enter(struct tlb *tlb, unsigned i)
{
	struct tlb_context *c = &tlb->context[i];

	tlb->now = i;
	tlb->salt[0] = tlb_salt(i);
	tlb->local[0] = c->local;
	tlb->global = c->global;
	tlb->root = c->root;
	tlb->gen[0] = c->gen;
	tlb->gen_write[0] = c->gen_write ? c->gen_write : tlb->next_gen++;
}

static void switch_context(struct tlb *tlb, uint16_t pcid, gpa_t root)
{
	unsigned to = find(tlb, pcid);

	if (to == TLB_CONTEXTS)
		to = take(tlb, pcid, root);
	tlb->count.contexts++;
	direct_switch(tlb->direct, 0, to, tlb->half_shift);
	leave(tlb);
	enter(tlb, to);
	tlb_forget_code(tlb);
}

/* Generations that going to another world and PCID may take, and a flush behind it. */
#define SWITCH_GENERATIONS 12

/* The upper half is everybody's: what is not global in it belongs to the PCID that goes. */
static void switch_pcid(struct tlb *tlb, const struct walk_context *ctx)
{
	if (tlb->context[tlb->now].pcid == ctx->pcid)
		return;
	switch_context(tlb, ctx->pcid, ctx->root);
	if (tlb->local[1])
		renew_half(tlb, 1);
}

/* All that is not global, of the PCID that is there; again: its tables are those that they were. */
static void flush_present(struct cpu *cpu, bool again)
{
	struct tlb_renewal renewal = {0};

	if (again)
		tlb_renewal_note(cpu->tlb, &renewal);
	tlb_flush_local(cpu->tlb);
	tlb_renewal_make(cpu, &renewal);
}

void mmu_flush_cr3(struct cpu *cpu)
{
	gpa_t root = mmu_context(cpu).root;

	flush_present(cpu, cpu->tlb->root == root);
	cpu->tlb->root = root;
}

void mmu_switch_pcid(struct cpu *cpu, bool keep)
{
	struct tlb *tlb = cpu->tlb;
	struct walk_context ctx = mmu_context(cpu);

	if (tlb->next_gen + SWITCH_GENERATIONS > TLB_GENERATIONS)
		tlb_start_over(tlb);
	switch_pcid(tlb, &ctx);
	if (!keep)
		flush_present(cpu, tlb->root == ctx.root);
	tlb->root = ctx.root;
}

/* ---- the upper half: going from one world to another ---- */

static bool same_world(const struct virt_world *a, const struct virt_world *b)
{
	return a->guest == b->guest && a->untagged == b->untagged && a->id == b->id &&
	       a->second == b->second && a->apic == b->apic;
}

static unsigned find_world(const struct tlb *tlb, const struct virt_world *id)
{
	unsigned i = 0;

	while (i < TLB_WORLDS && !(tlb->worlds[i].used && same_world(&tlb->worlds[i].id, id)))
		i++;
	return i;
}

static unsigned take_world(struct tlb *tlb, const struct virt_world *id)
{
	unsigned oldest = tlb->world ? 0 : 1;

	for (unsigned i = 0; i < TLB_WORLDS; i++)
		if (i != tlb->world &&
		    (!tlb->worlds[i].used || tlb->worlds[i].last < tlb->worlds[oldest].last))
			oldest = i;
	forget_contexts_of(tlb, oldest);
	forget_world(tlb, oldest);
	tlb->count.taken++;
	tlb->worlds[oldest] = (struct tlb_world){
		.used = true, .id = *id, .gen = tlb->next_gen++, .gen_write = tlb->next_gen++};
	return oldest;
}

static void enter_world(struct tlb *tlb, unsigned to)
{
	struct tlb_world *from = &tlb->worlds[tlb->world], *w = &tlb->worlds[to];

	direct_switch(tlb->direct, 1, to, tlb->half_shift);
	tlb_forget_paths(tlb);
	from->used = true;
	from->local = tlb->local[1];
	from->pcid = tlb->context[tlb->now].pcid;
	from->gen = tlb->gen[1];
	from->gen_write = tlb->gen_write[1];
	from->last = ++tlb->nr_switches;
	tlb->world = to;
	tlb->salt[1] = tlb_salt(to * (TLB_CONTEXTS / TLB_WORLDS));
	tlb->local[1] = w->local;
	tlb->gen[1] = w->gen;
	tlb->gen_write[1] = w->gen_write ? w->gen_write : tlb->next_gen++;
}

static void switch_world(struct tlb *tlb, const struct virt_world *id,
			 const struct walk_context *ctx)
{
	unsigned to = find_world(tlb, id);

	if (to == TLB_WORLDS)
		to = take_world(tlb, id);
	enter_world(tlb, to);
	switch_context(tlb, ctx->pcid, ctx->root);
	if (tlb->local[1] && tlb->worlds[to].pcid != ctx->pcid)
		renew_half(tlb, 1);
}

/* The mode's own TLB, where there is one. */
static void choose_tlb(struct cpu *cpu)
{
	struct tlb *tlb = cpu->tlb;

	if (tlb->other && tlb->guest != cpu_guest(cpu))
		cpu->tlb = tlb->other;
}

/*
 * PDPTEs are the world's registers and may have changed; what else is other than it was when the world was left looks like
 * a MOV to CR3. Both are more than the manuals ask for.
 */
static void settle(struct cpu *cpu)
{
	struct tlb *tlb = cpu->tlb;

	if (cpu_paging(cpu) && (cpu->cr4 & CR4_PAE) && !(cpu->msr.efer & EFER_LMA))
		tlb_flush(tlb);
	else if (tlb->root != mmu_context(cpu).root)
		tlb_flush_local(tlb);
	tlb->root = mmu_context(cpu).root;
}

/* SDM: without VPID an entry invalidates what is cached for VPID 0, which the processor's own is, too. */
static void drop_untagged(struct cpu *cpu)
{
	tlb_flush(cpu->tlb);
	if (cpu->tlb->other)
		tlb_flush(cpu->tlb->other);
}

void mmu_switch_world(struct cpu *cpu)
{
	struct walk_context ctx = mmu_context(cpu);
	struct virt_world id = {0};
	struct tlb *tlb;

	choose_tlb(cpu);
	tlb = cpu->tlb;
	if (cpu_guest(cpu))
		cpu->virt->ops->world(cpu, &id);
	if (tlb->next_gen + SWITCH_GENERATIONS > TLB_GENERATIONS)
		tlb_start_over(tlb);
	tlb->count.worlds++;
	if (same_world(&tlb->worlds[tlb->world].id, &id))
		switch_pcid(tlb, &ctx);
	else
		switch_world(tlb, &id, &ctx);
	if (id.untagged)
		drop_untagged(cpu);
	settle(cpu);
}

/* ---- what guests' hypervisors flush ---- */

static bool matches(const struct virt_world *w, uint32_t id, uint64_t second)
{
	return w->guest && (!id || w->id == id) &&
	       (!second || (w->second && !((w->second ^ second) & GENMASK(51, 12))));
}

static void flush_worlds(struct tlb *tlb, uint32_t id, uint64_t second)
{
	for (unsigned i = 0; i < TLB_WORLDS; i++) {
		if (!matches(&tlb->worlds[i].id, id, second))
			continue;
		forget_contexts_of(tlb, i);
		if (i != tlb->world) {
			forget_world(tlb, i);
			continue;
		}
		tlb_flush_half(tlb, 0);
		tlb_flush_half(tlb, 1);
	}
}

void mmu_flush_worlds(struct cpu *cpu, uint32_t id, uint64_t second)
{
	flush_worlds(cpu->tlb, id, second);
	if (cpu->tlb->other)
		flush_worlds(cpu->tlb->other, id, second);
}

/* ---- INVPCID and the like: one page of what is not present ---- */

static void flush_context_page(struct tlb *tlb, unsigned i, gva_t addr)
{
	if (tlb_in_large(tlb, addr)) {
		forget(tlb, i);
		return;
	}
	tlb_forget_paths(tlb);
	tlb_drop_page(tlb, addr, tlb_salt(i));
	direct_forget_page(tlb->direct, i, addr);
}

static void flush_world_page(struct tlb *tlb, unsigned world, gva_t addr)
{
	if (world == tlb->world)
		tlb_flush_page(tlb, addr);
	else if (tlb_half(tlb, addr))
		forget_world(tlb, world);
	for (unsigned i = 0; !tlb_half(tlb, addr) && i < TLB_CONTEXTS; i++)
		if (is_of(tlb, i, world))
			flush_context_page(tlb, i, addr);
}

static void flush_worlds_page(struct tlb *tlb, uint32_t id, gva_t addr)
{
	for (unsigned i = 0; i < TLB_WORLDS; i++)
		if (tlb->worlds[i].used || i == tlb->world)
			if (tlb->worlds[i].id.id == id && tlb->worlds[i].id.guest == !!id)
				flush_world_page(tlb, i, addr);
}

void mmu_flush_world_page(struct cpu *cpu, uint32_t id, gva_t addr)
{
	flush_worlds_page(cpu->tlb, id, addr);
	if (cpu->tlb->other)
		flush_worlds_page(cpu->tlb->other, id, addr);
}

/* ---- INVPCID ---- */

void mmu_flush_pcid_page(struct cpu *cpu, uint16_t pcid, gva_t addr)
{
	struct tlb *tlb = cpu->tlb;
	unsigned i = find(tlb, pcid);

	if (tlb->context[tlb->now].pcid == pcid)
		mmu_flush_page(cpu, addr);
	else if (i != TLB_CONTEXTS && !tlb_half(tlb, addr))
		flush_context_page(tlb, i, addr);
}

void mmu_flush_pcid(struct cpu *cpu, uint16_t pcid)
{
	struct tlb *tlb = cpu->tlb;
	unsigned i = find(tlb, pcid);

	if (tlb->context[tlb->now].pcid == pcid)
		flush_present(cpu, true);
	else if (i != TLB_CONTEXTS)
		forget(tlb, i);
}

void mmu_flush_pcids(struct cpu *cpu, bool global)
{
	struct tlb *tlb = cpu->tlb;
	struct tlb_renewal renewal;

	tlb_renewal_note(tlb, &renewal);
	tlb_forget_paths(tlb);
	forget_contexts_of(tlb, tlb->world);
	for (unsigned half = 0; half < 2; half++)
		if (global || tlb->local[half])
			tlb_flush_half(tlb, half);
	tlb_renewal_make(cpu, &renewal);
}
