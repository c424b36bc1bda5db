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

#define MAX_COUNT BIT(48) /* so that bytes can be counted */

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
	uint64_t left, to, from; /* bytes, addresses */
	uint64_t whole;		 /* mask of whole elements */
	unsigned log2;
	bool movs;
};

static __always_inline_ uint64_t movs(const struct span *s, void *dst, const void *src, uint64_t n)
{
	if (emul_short_movs_may(dst, src, n))
		return emul_short_movs(dst, src, n);
	return emul_host_movs(s->log2, dst, src, n >> s->log2) << s->log2;
}

static __always_inline_ uint64_t stos(const struct span *s, void *dst, uint64_t val, uint64_t n)
{
	if (n <= EMUL_SHORT)
		return emul_short_stos(s->log2, dst, val, n);
	return emul_host_stos(s->log2, dst, val, n >> s->log2) << s->log2;
}

/* One piece's elements. False: there are none, or the host faulted. */
static __always_inline_ bool move(const struct cpu *cpu, struct span *s)
{
	uint64_t n = min(s->left, (uint64_t)MAX_PIECE), done;
	uint8_t *dst, *src = NULL;

	n = piece(&s->map[DIRECT_WRITE], s->to, n, &dst) & s->whole;
	if (s->movs && n)
		n = piece(&s->map[DIRECT_READ], s->from, n, &src) & s->whole;
	if (!n)
		return false;
	done = s->movs ? movs(s, dst, src, n) : stos(s, dst, cpu->gpr[RAX], n);
	s->left -= done;
	s->to += done;
	s->from += done;
	return done == n;
}

/* False: something is left. */
static __always_inline_ bool move_all(const struct cpu *cpu, struct span *s)
{
	while (s->left)
		if (__atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) || !move(cpu, s))
			return false;
	return true;
}

static __always_inline_ bool span(struct cpu *cpu, unsigned log2, bool movs)
{
	uint64_t all = cpu->gpr[RCX] << log2;
	struct span s = {
		.map = cpu->tlb->direct->map[cpu->mode.access],
		.left = all,
		.to = cpu->gpr[RDI],
		.from = cpu->gpr[RSI],
		.whole = -BIT(log2),
		.log2 = log2,
		.movs = movs,
	};
	bool done = move_all(cpu, &s);

	if (!done && s.left != all)
		cpu->sflags |= FLAG_RF;
	if (done)
		cpu->sflags &= ~FLAG_RF;
	cpu->gpr[RCX] = s.left >> log2;
	cpu->gpr[RDI] = s.to;
	if (movs)
		cpu->gpr[RSI] = s.from;
	return done;
}

bool run_string_span(struct cpu *cpu, unsigned what)
{
	unsigned log2 = what & RUN_SPAN_LOG2;
	bool done;

	if (!FPU_STAYS_LIVE || cpu->sflags & FLAG_DF || cpu->gpr[RCX] - 1 >= MAX_COUNT)
		return true;
	done = what & RUN_SPAN_MOVS ? span(cpu, log2, true) : span(cpu, log2, false);
	return !done;
}
