/* SPDX-License-Identifier: MIT */
/* The tables of direct.h: filling and flushing them, and the pages that hold translated code. */
#include "silicon/mmu/direct.h"
#include "silicon/mmu/tlb.h"
#include "silicon/mmu/codemap.h"

#include <string.h>

/* ---- the log: index, state and kind of an entry that was filled ---- */

#define LOG_STATE(entry) ((entry) >> 16 & 3)
#define LOG_KIND(entry)	 ((entry) >> 18)
#define LOG_INDEX(entry) ((entry)&0xffff)

static unsigned index_of(gva_t addr)
{
	return addr >> PAGE_SHIFT & (DIRECT_ENTRIES - 1);
}

static void clear_entry(struct direct_map *map, unsigned index)
{
	map->neg[index] = direct_cleared(index);
}

static void clear_logged(struct direct *d, uint32_t entry)
{
	clear_entry(&d->map[LOG_STATE(entry)][LOG_KIND(entry)], LOG_INDEX(entry));
}

static void clear_log(struct direct *d, struct direct_log *log)
{
	for (unsigned i = 0; i < log->nr; i++)
		clear_logged(d, log->entry[i]);
	log->nr = 0;
}

static void clear_kind(struct direct *d, enum direct_kind kind)
{
	for (unsigned state = 0; state < ACCESS_USER_ALIGN; state++) {
		struct direct_map *map = &d->map[state][kind];

		memset(map->neg, 0, sizeof(map->neg));
		clear_entry(map, 0);
		for (unsigned index = DIRECT_TOP; index < DIRECT_ENTRIES; index++)
			clear_entry(map, index);
	}
}

static void clear_all(struct direct *d)
{
	clear_kind(d, DIRECT_READ);
	clear_kind(d, DIRECT_WRITE);
	d->half[0].log.nr = d->half[1].log.nr = 0;
}

/* ---- filling ---- */

static void fill(struct direct *d, const struct access *a, enum direct_kind kind, unsigned half)
{
	struct direct_map *map = &d->map[a->state][kind];
	struct direct_log *log = &d->half[half].log;
	unsigned index = index_of(a->addr);
	uint64_t neg = -(a->addr & PAGE_MASK);

	map->addend[index] = (uint64_t)a->hva - a->addr;
	if (map->neg[index] == neg)
		return;
	map->neg[index] = neg;
	if (log->nr < DIRECT_LOG)
		log->entry[log->nr] = kind << 18 | a->state << 16 | index;
	if (log->nr <= DIRECT_LOG)
		log->nr++;
}

void direct_fill(struct direct *d, const struct access *a, uint8_t rights, unsigned half)
{
	if (!d)
		return;
	if (rights & ACCESS_READ)
		fill(d, a, DIRECT_READ, half);
	if (rights & ACCESS_WRITE)
		fill(d, a, DIRECT_WRITE, half);
}

static bool entered(const struct direct *d, enum access_state state, gva_t addr)
{
	const struct direct_map *map = d->map[state];
	uint64_t neg = -(addr & PAGE_MASK);
	unsigned index = index_of(addr);

	return map[DIRECT_READ].neg[index] == neg && map[DIRECT_WRITE].neg[index] == neg;
}

void direct_refill(struct cpu *cpu, gva_t addr)
{
	struct access a = {.addr = addr, .state = cpu->mode.access};
	struct direct *d = cpu->tlb->direct;
	unsigned half = tlb_half(cpu->tlb, addr);

	/* What missed reaches over the page's end. */
	if (entered(d, a.state, addr))
		return;
	cpu->tlb->count.refills++;
	a.hva = tlb_hit_read(cpu, addr, 1);
	if (a.hva)
		fill(d, &a, DIRECT_READ, half);
	a.hva = tlb_hit_write(cpu, addr, 1);
	if (a.hva)
		fill(d, &a, DIRECT_WRITE, half);
}

/* ---- flushing ---- */

void direct_flush_half(struct direct *d, unsigned half)
{
	struct direct_log *log;

	if (!d)
		return;
	log = &d->half[half].log;
	d->gen++;
	d->half[half].version[d->half[half].now]++;
	if (log->nr > DIRECT_LOG) {
		clear_all(d);
		return;
	}
	clear_log(d, log);
}

static bool unlogged(const struct direct *d)
{
	return d->half[0].log.nr > DIRECT_LOG || d->half[1].log.nr > DIRECT_LOG;
}

/* Drop the entries for writes. */
static void forget_writes(struct direct_saved *saved)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < saved->nr; i++)
		if (LOG_KIND(saved->v[i].entry) != DIRECT_WRITE)
			saved->v[kept++] = saved->v[i];
	saved->nr = kept;
}

/* Drop the log's entries for writes, and what they stand for. */
static void flush_logged_writes(struct direct *d, struct direct_log *log)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < log->nr; i++)
		if (LOG_KIND(log->entry[i]) == DIRECT_WRITE)
			clear_logged(d, log->entry[i]);
		else
			log->entry[kept++] = log->entry[i];
	log->nr = kept;
}

void direct_flush_writes(struct direct *d)
{
	if (!d)
		return;
	d->gen++;
	for (unsigned i = 0; i < 2 * DIRECT_CONTEXTS; i++)
		forget_writes(&d->half[i & 1].saved[i / 2]);
	if (unlogged(d)) {
		clear_all(d);
		return;
	}
	flush_logged_writes(d, &d->half[0].log);
	flush_logged_writes(d, &d->half[1].log);
}

static bool is_write_to(uint32_t entry, uint64_t neg, uint64_t addend, const uint8_t *hva)
{
	return LOG_KIND(entry) == DIRECT_WRITE && neg != direct_cleared(LOG_INDEX(entry)) &&
	       addend - neg == (uint64_t)hva;
}

static void flush_logged_writes_to(struct direct *d, const struct direct_log *log,
				   const uint8_t *hva)
{
	for (unsigned i = 0; i < log->nr; i++) {
		uint32_t entry = log->entry[i];
		const struct direct_map *map = &d->map[LOG_STATE(entry)][LOG_KIND(entry)];
		unsigned index = LOG_INDEX(entry);

		if (is_write_to(entry, map->neg[index], map->addend[index], hva))
			clear_logged(d, entry);
	}
}

static void forget_writes_to(struct direct_saved *saved, const uint8_t *hva)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < saved->nr; i++)
		if (!is_write_to(saved->v[i].entry, saved->v[i].neg, saved->v[i].addend, hva))
			saved->v[kept++] = saved->v[i];
	saved->nr = kept;
}

void direct_flush_writes_to(struct direct *d, const uint8_t *hva)
{
	if (!d)
		return;
	d->gen++;
	for (unsigned i = 0; i < 2 * DIRECT_CONTEXTS; i++)
		forget_writes_to(&d->half[i & 1].saved[i / 2], hva);
	if (unlogged(d)) {
		clear_all(d);
		return;
	}
	flush_logged_writes_to(d, &d->half[0].log, hva);
	flush_logged_writes_to(d, &d->half[1].log, hva);
}

void direct_flush_page(struct direct *d, gva_t addr)
{
	unsigned index = index_of(addr);

	if (!d)
		return;
	for (unsigned state = 0; state < ACCESS_USER_ALIGN; state++)
		for (unsigned kind = 0; kind < NR_DIRECT_KINDS; kind++)
			if (d->map[state][kind].neg[index] == -(addr & PAGE_MASK))
				clear_entry(&d->map[state][kind], index);
}

void direct_note_flush(struct direct *d, gva_t addr, unsigned shift)
{
	uint64_t mask = ~(BIT(shift) - 1);

	if (!d)
		return;
	d->gen++;
	if (d->nr_flushed < DIRECT_FLUSHED)
		d->flushed[d->nr_flushed++] = (struct direct_span){addr & mask, mask};
	else
		for (unsigned half = 0; half < 2; half++)
			d->half[half].version[d->half[half].now]++;
}

/* ---- contexts ---- */

_Static_assert(DIRECT_CONTEXTS >= TLB_CONTEXTS && DIRECT_CONTEXTS >= TLB_WORLDS, "one each");

/* What the other half entered at the same index since is not to be put away. */
static bool is_of_half(uint64_t neg, unsigned index, unsigned half, unsigned shift)
{
	return neg != direct_cleared(index) && (-neg >> shift & 1) == half;
}

static void save(struct direct *d, unsigned half, unsigned shift, struct direct_saved *ret)
{
	const struct direct_log *log = &d->half[half].log;

	ret->nr = 0;
	for (unsigned i = log->nr; i-- && ret->nr < DIRECT_SAVED;) {
		uint32_t entry = log->entry[i];
		const struct direct_map *map = &d->map[LOG_STATE(entry)][LOG_KIND(entry)];
		uint64_t neg = map->neg[LOG_INDEX(entry)];

		if (!is_of_half(neg, LOG_INDEX(entry), half, shift))
			continue;
		ret->v[ret->nr].entry = entry;
		ret->v[ret->nr].neg = neg;
		ret->v[ret->nr++].addend = map->addend[LOG_INDEX(entry)];
	}
}

static void load(struct direct *d, struct direct_log *log, const struct direct_saved *saved)
{
	for (unsigned i = 0; i < saved->nr; i++) {
		uint32_t entry = saved->v[i].entry;
		struct direct_map *map = &d->map[LOG_STATE(entry)][LOG_KIND(entry)];

		map->neg[LOG_INDEX(entry)] = saved->v[i].neg;
		map->addend[LOG_INDEX(entry)] = saved->v[i].addend;
		log->entry[log->nr++] = entry;
	}
}

void direct_switch(struct direct *d, unsigned half, unsigned to, unsigned shift)
{
	struct direct_half *h;

	if (!d)
		return;
	h = &d->half[half];
	d->gen++;
	/* Who depends on the context that goes did not hear of these. */
	if (d->nr_flushed)
		h->version[h->now]++;
	h->saved[h->now].nr = 0;
	if (h->log.nr > DIRECT_LOG) {
		clear_all(d);
	} else {
		save(d, half, shift, &h->saved[h->now]);
		clear_log(d, &h->log);
	}
	h->now = to;
	load(d, &h->log, &h->saved[to]);
}

void direct_forget(struct direct *d, unsigned half, unsigned context)
{
	if (!d)
		return;
	d->half[half].version[context]++;
	d->half[half].saved[context].nr = 0;
}

void direct_forget_page(struct direct *d, unsigned context, gva_t addr)
{
	struct direct_saved *saved;
	unsigned kept = 0;

	if (!d)
		return;
	saved = &d->half[0].saved[context];
	for (unsigned i = 0; i < saved->nr; i++)
		if (saved->v[i].neg != -(addr & PAGE_MASK))
			saved->v[kept++] = saved->v[i];
	saved->nr = kept;
	d->half[0].version[context]++;
}

/* ---- pages with code ---- */

static unsigned code_slot(const struct direct_code *c, const uint8_t *hva)
{
	uint64_t page = (uintptr_t)hva >> PAGE_SHIFT;
	unsigned i = page * 0x9e3779b97f4a7c15ull >> 49;

	while (c->page[i] && c->page[i] != hva)
		i = (i + 1) % DIRECT_CODE_SLOTS;
	return i;
}

bool direct_code_add(struct cpu *cpu, const uint8_t *hva, uint64_t *ret_gen)
{
	struct direct_code *c = cpu->tlb->direct->code;
	unsigned slot = code_slot(c, hva);

	if (c->page[slot])
		return true;
	if (c->nr == DIRECT_CODE_MAX)
		return false;
	c->page[slot] = hva;
	c->lines[slot] = 0;
	c->nr++;
	tlb_flush_writes_to(cpu->tlb, hva);
	*ret_gen = codemap_add(cpu, hva);
	return true;
}

/* What stands behind in the same run of slots may belong before the hole. */
void direct_code_remove(struct cpu *cpu, const uint8_t *hva)
{
	struct direct_code *c = cpu->tlb->direct->code;
	unsigned slot = code_slot(c, hva);

	if (!c->page[slot])
		return;
	codemap_remove(cpu, hva);
	c->page[slot] = NULL;
	c->nr--;
	for (;;) {
		const uint8_t *moved;
		unsigned to;

		slot = (slot + 1) % DIRECT_CODE_SLOTS;
		moved = c->page[slot];
		if (!moved)
			return;
		c->page[slot] = NULL;
		to = code_slot(c, moved);
		c->page[to] = moved;
		c->lines[to] = c->lines[slot];
	}
}

void direct_code_lines(struct cpu *cpu, const uint8_t *hva, uint64_t lines)
{
	struct direct_code *c = cpu->tlb->direct->code;
	unsigned slot = code_slot(c, hva);

	if (!c->page[slot])
		return;
	c->lines[slot] = lines;
	codemap_cover(cpu, hva, lines);
}

static uint64_t lines_of(const struct access *a)
{
	unsigned from = (a->addr & ~PAGE_MASK) / 64;
	unsigned to = ((a->addr & ~PAGE_MASK) + a->size - 1) / 64;

	return GENMASK(to, from);
}

static void note_write(struct direct_code *c, const uint8_t *page, uint64_t lines)
{
	if (c->nr_written < DIRECT_WRITTEN) {
		c->written[c->nr_written].page = page;
		c->written[c->nr_written].lines = lines;
	}
	if (c->nr_written <= DIRECT_WRITTEN)
		c->nr_written++;
}

uint8_t direct_rights(struct direct *d, const struct access *a, uint8_t rights, bool fetched)
{
	const uint8_t *page = (const uint8_t *)((uintptr_t)a->hva & PAGE_MASK);
	struct direct_code *c = d ? d->code : NULL;
	uint64_t lines = 0;
	unsigned slot;

	if (!c || !a->hva || !c->nr)
		return rights;
	slot = code_slot(c, page);
	if (!c->page[slot])
		return rights;
	if (a->op & ACCESS_WRITE)
		lines = lines_of(a);
	if (!fetched && rights & ACCESS_FETCH)
		lines = ~0ull;
	lines &= c->lines[slot];
	if (lines)
		note_write(c, page, lines);
	return rights & ~ACCESS_WRITE;
}

void direct_code_clear(struct cpu *cpu)
{
	struct direct_code *c = cpu->tlb->direct->code;

	for (unsigned slot = 0; c->nr && slot < DIRECT_CODE_SLOTS; slot++)
		if (c->page[slot])
			codemap_remove(cpu, c->page[slot]);
	if (c->nr)
		memset(c->page, 0, sizeof(c->page));
	c->nr = 0;
	c->nr_written = 0;
}
