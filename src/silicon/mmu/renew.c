/* SPDX-License-Identifier: MIT */
/*
 * Flushes behind which what was in use is looked up again at once.
 *
 * Kernels flush everything, or all that is not global, where they changed one entry of their tables, and go on with the
 * pages that they had. Each would be missed, and a miss out of translated code costs several times its walk. So the newest
 * entries of the direct tables' logs are noted before such a flush, and walked for behind it: as processors do who walk
 * ahead of what is executed (SDM, details of TLB use: translations may be cached without an access). Nothing that a guest could
 * see comes of it: what lacks an A bit, or is not mapped any more, is left to who needs it.
 */
#include "silicon/mmu/direct.h"
#include "silicon/mmu/tlb.h"

#define LOG_STATE(entry) ((entry) >> 16 & 3)
#define LOG_KIND(entry)	 ((entry) >> 18)
#define LOG_INDEX(entry) ((entry)&0xffff)

static bool is_fetched(const struct tlb *tlb, enum access_state state, gva_t page)
{
	const struct tlb_entry *e = &tlb->table[state][tlb_index(page, tlb_salt_at(tlb, page))];

	return e->tag_fetch == (page | tlb->gen[tlb_half(tlb, page)]);
}

/* What is readable stands in the maps for reads, whatever it was entered for. */
static void note_half(const struct tlb *tlb, unsigned half, struct tlb_renewal *ret)
{
	const struct direct_log *log = &tlb->direct->half[half].log;

	if (log->nr > DIRECT_LOG)
		return;
	for (unsigned i = log->nr; i-- && ret->nr < TLB_RENEWED;) {
		uint32_t entry = log->entry[i];
		const struct direct_map *map = &tlb->direct->map[LOG_STATE(entry)][DIRECT_READ];
		uint64_t neg = map->neg[LOG_INDEX(entry)];

		if (LOG_KIND(entry) != DIRECT_READ || !neg || neg == DIRECT_NEVER ||
		    tlb_half(tlb, -neg) != half || !((i + tlb->nr_renewals) % TLB_LET_GO))
			continue;
		ret->v[ret->nr].page = -neg;
		ret->v[ret->nr].hva = (const uint8_t *)(map->addend[LOG_INDEX(entry)] - neg);
		ret->v[ret->nr].state = LOG_STATE(entry);
		ret->v[ret->nr++].fetched = is_fetched(tlb, LOG_STATE(entry), -neg);
	}
}

void tlb_renewal_note(struct tlb *tlb, struct tlb_renewal *ret)
{
	tlb->nr_renewals++;
	ret->nr = 0;
	if (!tlb->direct || tlb->two_pages)
		return;
	for (unsigned half = 0; half < 2; half++)
		note_half(tlb, half, ret);
}

/* Kept by the flush, for it is global. */
static bool is_entered(const struct cpu *cpu, const struct access *a)
{
	const struct direct_map *map = &cpu->tlb->direct->map[a->state][DIRECT_READ];

	return map->neg[a->addr >> PAGE_SHIFT & (DIRECT_ENTRIES - 1)] == -a->addr;
}

/* Whether what is mapped there for fetches was so before says if it is to be taken for written (direct_rights()). */
static void enter(struct cpu *cpu, const struct access *a, bool fetched)
{
	struct tlb *tlb = cpu->tlb;
	struct tlb_entry *e = &tlb->table[a->state][tlb_index(a->addr, tlb_salt_at(tlb, a->addr))];

	if (fetched)
		e->tag_fetch = a->addr | tlb->gen[tlb_half(tlb, a->addr)];
	tlb_fill(cpu, a, !a->log);
}

void tlb_renewal_make(struct cpu *cpu, const struct tlb_renewal *renewal)
{
	struct walk_context ctx = mmu_context(cpu);
	struct ram_page ram;

	for (unsigned i = 0; i < renewal->nr; i++) {
		struct access a = {
			.addr = renewal->v[i].page,
			.size = 1,
			.state = renewal->v[i].state,
		};

		if (is_entered(cpu, &a) || !mmu_walk_ahead(cpu, &ctx, &a))
			continue;
		tlb_memory(cpu, a.gpa, &ram);
		if (ram.closed || !ram.hva)
			continue;
		a.hva = ram.hva + (a.gpa & ~PAGE_MASK);
		a.writable = ram.writable;
		a.log = ram.log;
		enter(cpu, &a, renewal->v[i].fetched && a.hva == renewal->v[i].hva);
	}
}
