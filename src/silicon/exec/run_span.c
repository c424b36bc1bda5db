/* SPDX-License-Identifier: MIT */
/*
 * REP MOVS and REP STOS over several pages (run_string.c has those within one), by the tables of struct direct: pieces
 * that go on in the host's memory as they do in the guest's, each by one instruction of the host, for these are slow to
 * begin.
 *
 * Only what hits is done here. At the first element that does not, or stands in two pages, the rest is the handler's:
 * the registers are whole after each piece, as they are between iterations.
 */
#include "silicon/exec/emul.h"
#include "silicon/exec/run.h"

#define MAX_PIECE (16 * PAGE_SIZE) /* an interrupt waits for one */

/* The page of an index is in the table. */
static inline bool hits(const struct direct_map *map, uint64_t page, unsigned index)
{
	return map->neg[index] == -page;
}

/* Bytes from addr on, at most max, that lie in one piece; *ret: where. 0: not one. */
static __always_inline_ uint64_t piece(const struct direct_map *map, uint64_t addr, uint64_t max,
				       uint8_t **ret)
{
	uint64_t page = addr & PAGE_MASK, size = page + PAGE_SIZE - addr, addend;
	unsigned index = page >> PAGE_SHIFT & (DIRECT_ENTRIES - 1);

	if (unlikely(!hits(map, page, index)))
		return 0;
	addend = map->addend[index];
	*ret = (uint8_t *)(addr + addend);
	for (; size < max; size += PAGE_SIZE) {
		page += PAGE_SIZE;
		index = (index + 1) & (DIRECT_ENTRIES - 1);
		if (!page || !hits(map, page, index) || map->addend[index] != addend)
			break;
	}
	return min(size, max);
}

/* One instruction on its way, its registers kept out of memory, which a host's string instruction would delay. */
struct span {
	const struct direct_map *map;
	uint64_t count, to, from;
	unsigned log2;
	bool movs;
};

/* One piece's elements. False: there are none, or the host faulted. */
static __always_inline_ bool move(const struct cpu *cpu, struct span *s)
{
	uint64_t n = min(s->count, (uint64_t)MAX_PIECE >> s->log2), done;
	uint8_t *dst, *src = NULL;

	n = piece(&s->map[DIRECT_WRITE], s->to, n << s->log2, &dst) >> s->log2;
	if (s->movs && n)
		n = piece(&s->map[DIRECT_READ], s->from, n << s->log2, &src) >> s->log2;
	if (!n)
		return false;
	done = s->movs ? emul_host_movs(s->log2, dst, src, n)
		       : emul_host_stos(s->log2, dst, cpu->gpr[RAX], n);
	s->count -= done;
	s->to += done << s->log2;
	s->from += done << s->log2;
	return done == n;
}

/* False: something is left. */
static __always_inline_ bool move_all(const struct cpu *cpu, struct span *s)
{
	while (s->count)
		if (__atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) || !move(cpu, s))
			return false;
	return true;
}

static __always_inline_ bool span(struct cpu *cpu, unsigned log2, bool movs)
{
	struct span s = {
		.map = cpu->tlb->direct->map[cpu->mode.access],
		.count = cpu->gpr[RCX],
		.to = cpu->gpr[RDI],
		.from = cpu->gpr[RSI],
		.log2 = log2,
		.movs = movs,
	};
	bool done = move_all(cpu, &s);

	if (!done && s.count != cpu->gpr[RCX])
		cpu->sflags |= FLAG_RF;
	if (done)
		cpu->sflags &= ~FLAG_RF;
	cpu->gpr[RCX] = s.count;
	cpu->gpr[RDI] = s.to;
	if (movs)
		cpu->gpr[RSI] = s.from;
	return done;
}

const uint8_t *run_string_span(struct cpu *cpu, uint32_t number)
{
	const struct run *run = cpu->exec->run;
	const struct run_site site = run_site_get(run, number);
	const struct insn *insn = run_site_insn_known(run, number);
	unsigned log2;
	bool done;

	if (!FPU_STAYS_LIVE || !site.next || site.flags & (SITE_SHADOW | SITE_APART) ||
	    cpu->sflags & FLAG_DF || !cpu->gpr[RCX] || !insn)
		return NULL;
	log2 = run_string_log2(insn);
	done = insn->run == emul_movs ? span(cpu, log2, true) : span(cpu, log2, false);
	return done ? run->code.rx + site.next : NULL;
}
