/* SPDX-License-Identifier: MIT */
/*
 * The registry of codemap.h: an open hash table by host page. Entries are never taken out, for readers take no lock: one
 * without owners is used again by the next page whose way leads over it.
 */
#include "host/host.h"
#include "silicon/mmu/codemap.h"
#include "silicon/mmu/tlb.h"

#include <linux/futex.h>
#include <sys/syscall.h>

#define FAR_BIT 63u

#define load(p)	    __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define store(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)

/* ---- the lock: host_futex_wait() is ordinary C ---- */

static void lock(struct codemap *w)
{
	uint32_t was = 0;

	if (__atomic_compare_exchange_n(&w->lock, &was, 1, false, __ATOMIC_ACQUIRE,
					__ATOMIC_RELAXED))
		return;
	while (__atomic_exchange_n(&w->lock, 2, __ATOMIC_ACQUIRE))
		host_syscall(SYS_futex, (long)&w->lock, FUTEX_WAIT_PRIVATE, 2, 0, 0, 0);
}

static void unlock(struct codemap *w)
{
	if (__atomic_exchange_n(&w->lock, 0, __ATOMIC_RELEASE) == 2)
		host_syscall(SYS_futex, (long)&w->lock, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}

/* ---- finding ---- */

static unsigned first_slot(const uint8_t *hva)
{
	return ((uintptr_t)hva >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> 49;
}

_Static_assert(CODEMAP_SLOTS == 1u << (64 - 49), "first_slot()");

static struct codemap_page *look_up(struct codemap *w, const uint8_t *hva)
{
	unsigned slot = first_slot(hva);

	for (unsigned i = 0; i < CODEMAP_PROBES; i++, slot = (slot + 1) % CODEMAP_SLOTS) {
		const uint8_t *there = load(&w->page[slot].hva);

		if (!there)
			return NULL;
		if (there == hva)
			return &w->page[slot];
	}
	return NULL;
}

/* The page's entry, or one for it; lock held. */
static struct codemap_page *claim(struct codemap *w, const uint8_t *hva)
{
	struct codemap_page *p = look_up(w, hva);
	unsigned slot = first_slot(hva);

	for (unsigned i = 0; !p && i < CODEMAP_PROBES; i++, slot = (slot + 1) % CODEMAP_SLOTS)
		if (!load(&w->page[slot].owners) && !load(&w->page[slot].writers))
			p = &w->page[slot];
	if (p)
		store(&p->hva, hva);
	return p;
}

static unsigned bit_of(unsigned member)
{
	return min(member, FAR_BIT);
}

/* The owners but this processor; behind the last bit there are others, as far as one can tell. */
static uint64_t others(const struct cpu *cpu, const struct codemap_page *p)
{
	uint64_t owners = load(&p->owners);

	return cpu->codemap_index < FAR_BIT ? owners & ~BIT(cpu->codemap_index) : owners;
}

/* ---- entering and removing ---- */

/* Who gives out generations in order has seen its own. */
static uint64_t next_gen(struct cpu *cpu, const uint8_t *hva)
{
	struct codemap *w = cpu->codemap;
	uint64_t gen = w->gen + 1;

	store(&w->added[gen % CODEMAP_ADDED], hva);
	store(&w->gen, gen);
	if (codemap_self(cpu)->seen == gen - 1)
		store(&codemap_self(cpu)->seen, gen);
	return gen;
}

static uint64_t add_locked(struct cpu *cpu, const uint8_t *hva)
{
	struct codemap_page *p = claim(cpu->codemap, hva);
	uint64_t owners;

	if (!p)
		return CODEMAP_NEVER;
	owners = load(&p->owners);
	if (cpu->codemap_index >= FAR_BIT)
		p->nr_far++;
	store(&p->owners, owners | BIT(bit_of(cpu->codemap_index)));
	if (!owners)
		p->gen = next_gen(cpu, hva);
	return p->gen;
}

uint64_t codemap_add(struct cpu *cpu, const uint8_t *hva)
{
	uint64_t gen;

	if (!cpu->codemap)
		return 0;
	lock(cpu->codemap);
	gen = add_locked(cpu, hva);
	unlock(cpu->codemap);
	return gen;
}

void codemap_cover(struct cpu *cpu, const uint8_t *hva, uint64_t lines)
{
	struct codemap_page *p = cpu->codemap ? look_up(cpu->codemap, hva) : NULL;

	if (p)
		__atomic_fetch_or(&p->lines, lines, __ATOMIC_SEQ_CST);
}

static void remove_locked(struct cpu *cpu, struct codemap_page *p)
{
	uint64_t owners = load(&p->owners) & ~BIT(bit_of(cpu->codemap_index));

	if (cpu->codemap_index >= FAR_BIT && --p->nr_far)
		owners |= BIT(FAR_BIT);
	if (!owners)
		store(&p->lines, 0);
	store(&p->owners, owners);
}

void codemap_remove(struct cpu *cpu, const uint8_t *hva)
{
	struct codemap_page *p;

	if (!cpu->codemap)
		return;
	lock(cpu->codemap);
	p = look_up(cpu->codemap, hva);
	if (p && load(&p->owners) & BIT(bit_of(cpu->codemap_index)))
		remove_locked(cpu, p);
	unlock(cpu->codemap);
}

/* ---- giving up write tags ---- */

/* What was added since: a few pages by themselves, unless their places were taken meanwhile. */
static void give_up(struct cpu *cpu, uint64_t from, uint64_t to)
{
	struct codemap *w = cpu->codemap;

	for (uint64_t gen = from + 1; gen <= to && to - from <= CODEMAP_FEW; gen++)
		tlb_flush_writes_to(cpu->tlb, load(&w->added[gen % CODEMAP_ADDED]));
	if (to - from > CODEMAP_FEW || load(&w->gen) - from >= CODEMAP_ADDED)
		mmu_flush_writes(cpu);
}

void codemap_follow(struct cpu *cpu)
{
	struct codemap_member *m;
	uint64_t gen;

	cpu_lower(cpu, ATTN_CODE);
	if (!cpu->codemap)
		return;
	m = codemap_self(cpu);
	codemap_end(cpu, 0);
	gen = load(&cpu->codemap->gen);
	if (m->seen == gen)
		return;
	give_up(cpu, m->seen, gen);
	store(&m->seen, gen);
}

void codemap_enter(struct cpu *cpu)
{
	if (!cpu->codemap)
		return;
	store(&codemap_self(cpu)->inside, 1);
	if (codemap_self(cpu)->seen != load(&cpu->codemap->gen))
		codemap_follow(cpu);
}

void codemap_exit(struct cpu *cpu)
{
	if (!cpu->codemap)
		return;
	codemap_end(cpu, 0);
	store(&codemap_self(cpu)->inside, 0);
}

static bool behind(const struct codemap_member *m, uint64_t gen)
{
	return load(&m->inside) && load(&m->seen) < gen;
}

uint64_t codemap_seen(const struct cpu *cpu)
{
	struct codemap *w = cpu->codemap;
	uint64_t seen = CODEMAP_NEVER - 1;

	if (!w)
		return 0;
	for (unsigned i = 0, nr = load(&w->nr_members); i < nr; i++)
		if (i != cpu->codemap_index && behind(&w->member[i], seen))
			seen = load(&w->member[i].seen);
	return seen;
}

void codemap_hurry(struct cpu *cpu)
{
	struct codemap *w = cpu->codemap;
	uint64_t gen;

	if (!w)
		return;
	gen = load(&w->gen);
	for (unsigned i = 0, nr = load(&w->nr_members); i < nr; i++)
		if (i != cpu->codemap_index && behind(&w->member[i], gen))
			cpu_raise(w->member[i].cpu, ATTN_CODE);
}

/* ---- writes ---- */

bool codemap_refuses(const struct cpu *cpu, const uint8_t *hva)
{
	const struct codemap_page *p;

	if (!codemap_shared(cpu))
		return false;
	p = look_up(cpu->codemap, hva);
	return p && others(cpu, p);
}

bool codemap_busy(const struct cpu *cpu, const uint8_t *hva)
{
	const struct codemap_page *p = codemap_shared(cpu) ? look_up(cpu->codemap, hva) : NULL;

	return p && load(&p->writers);
}

static bool put(struct codemap_member *m, const uint8_t *hva)
{
	for (unsigned i = 0; i < CODEMAP_INBOX; i++) {
		const uint8_t *was = NULL;

		if (__atomic_compare_exchange_n(&m->inbox[i], &was, hva, false, __ATOMIC_SEQ_CST,
						__ATOMIC_SEQ_CST) ||
		    was == hva)
			return true;
	}
	return false;
}

static void post(struct codemap_member *m, const uint8_t *hva)
{
	if (!put(m, hva))
		store(&m->lost, true);
	store(&m->posted, 1);
	cpu_raise(m->cpu, ATTN_CODE);
}

static void post_others(const struct cpu *cpu, const struct codemap_page *p, const uint8_t *hva)
{
	struct codemap *w = cpu->codemap;

	for (uint64_t left = others(cpu, p); left; left &= left - 1) {
		unsigned first = __builtin_ctzll(left);
		unsigned end = first == FAR_BIT ? load(&w->nr_members) : first + 1;

		for (unsigned i = first; i < end; i++)
			if (i != cpu->codemap_index)
				post(&w->member[i], hva);
	}
}

/* The entry may have become another page's before the writer was counted. */
static struct codemap_page *count_in(struct codemap *w, const uint8_t *hva)
{
	struct codemap_page *p = look_up(w, hva);

	while (p) {
		__atomic_fetch_add(&p->writers, 1, __ATOMIC_SEQ_CST);
		if (load(&p->hva) == hva)
			return p;
		__atomic_fetch_sub(&p->writers, 1, __ATOMIC_SEQ_CST);
		p = look_up(w, hva);
	}
	return NULL;
}

static void end_one(struct cpu *cpu, struct codemap_page *p, bool told)
{
	const uint8_t *hva = load(&p->hva);

	__atomic_fetch_sub(&p->writers, 1, __ATOMIC_SEQ_CST);
	if (told)
		post_others(cpu, p, hva);
}

void codemap_end(struct cpu *cpu, unsigned nr)
{
	struct codemap_member *m;

	if (!cpu->codemap)
		return;
	m = codemap_self(cpu);
	while (m->nr_flight > nr) {
		m->nr_flight--;
		end_one(cpu, m->flight[m->nr_flight].page, m->flight[m->nr_flight].told);
	}
}

/* Those that are longest under way are made, for no instruction writes to so many pages. */
static void note_flight(struct cpu *cpu, struct codemap_page *p, bool told)
{
	struct codemap_member *m = codemap_self(cpu);

	if (m->nr_flight == CODEMAP_FLIGHT)
		codemap_end(cpu, 0);
	m->flight[m->nr_flight].page = p;
	m->flight[m->nr_flight++].told = told;
}

void codemap_begin(struct cpu *cpu, const uint8_t *hva, uint64_t lines)
{
	struct codemap_page *p = count_in(cpu->codemap, hva);
	bool told;

	if (!p)
		return;
	if (!others(cpu, p)) {
		__atomic_fetch_sub(&p->writers, 1, __ATOMIC_SEQ_CST);
		return;
	}
	told = load(&p->lines) & lines;
	if (told)
		post_others(cpu, p, hva);
	note_flight(cpu, p, told);
}

unsigned codemap_take(struct cpu *cpu, const uint8_t *ret[CODEMAP_INBOX], bool *ret_lost)
{
	struct codemap_member *m = codemap_self(cpu);
	unsigned nr = 0;

	store(&m->posted, 0);
	for (unsigned i = 0; i < CODEMAP_INBOX; i++) {
		const uint8_t *hva =
			__atomic_exchange_n(&m->inbox[i], (const uint8_t *)NULL, __ATOMIC_SEQ_CST);

		if (hva)
			ret[nr++] = hva;
	}
	*ret_lost = __atomic_exchange_n(&m->lost, false, __ATOMIC_SEQ_CST);
	return nr;
}
