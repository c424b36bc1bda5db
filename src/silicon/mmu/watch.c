/* SPDX-License-Identifier: MIT */
/*
 * The registry of watch.h: an open hash table by host page. Entries are never taken out, for readers take no lock: one
 * without owners is used again by the next page whose way leads over it.
 */
#include "host/host.h"
#include "silicon/mmu/watch.h"
#include "silicon/mmu/tlb.h"

#include <linux/futex.h>
#include <sys/syscall.h>

#define FAR_BIT 63u

#define load(p)	    __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define store(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)

/* ---- the lock: host_futex_wait() is ordinary C ---- */

static void lock(struct watch *w)
{
	uint32_t was = 0;

	if (__atomic_compare_exchange_n(&w->lock, &was, 1, false, __ATOMIC_ACQUIRE,
					__ATOMIC_RELAXED))
		return;
	while (__atomic_exchange_n(&w->lock, 2, __ATOMIC_ACQUIRE))
		host_syscall(SYS_futex, (long)&w->lock, FUTEX_WAIT_PRIVATE, 2, 0, 0, 0);
}

static void unlock(struct watch *w)
{
	if (__atomic_exchange_n(&w->lock, 0, __ATOMIC_RELEASE) == 2)
		host_syscall(SYS_futex, (long)&w->lock, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}

/* ---- finding ---- */

static unsigned first_slot(const uint8_t *hva)
{
	return ((uintptr_t)hva >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> 49;
}

_Static_assert(WATCH_SLOTS == 1u << (64 - 49), "first_slot()");

static struct watch_page *look_up(struct watch *w, const uint8_t *hva)
{
	unsigned slot = first_slot(hva);

	for (unsigned i = 0; i < WATCH_PROBES; i++, slot = (slot + 1) % WATCH_SLOTS) {
		const uint8_t *there = load(&w->page[slot].hva);

		if (!there)
			return NULL;
		if (there == hva)
			return &w->page[slot];
	}
	return NULL;
}

/* The page's entry, or one for it; lock held. */
static struct watch_page *claim(struct watch *w, const uint8_t *hva)
{
	struct watch_page *p = look_up(w, hva);
	unsigned slot = first_slot(hva);

	for (unsigned i = 0; !p && i < WATCH_PROBES; i++, slot = (slot + 1) % WATCH_SLOTS)
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
static uint64_t others(const struct cpu *cpu, const struct watch_page *p)
{
	uint64_t owners = load(&p->owners);

	return cpu->watch_index < FAR_BIT ? owners & ~BIT(cpu->watch_index) : owners;
}

/* ---- entering and removing ---- */

/* Who gives out generations in order has seen its own. */
static uint64_t next_gen(struct cpu *cpu, const uint8_t *hva)
{
	struct watch *w = cpu->watch;
	uint64_t gen = w->gen + 1;

	store(&w->added[gen % WATCH_ADDED], hva);
	store(&w->gen, gen);
	if (watch_self(cpu)->seen == gen - 1)
		store(&watch_self(cpu)->seen, gen);
	return gen;
}

static uint64_t add_locked(struct cpu *cpu, const uint8_t *hva)
{
	struct watch_page *p = claim(cpu->watch, hva);
	uint64_t owners;

	if (!p)
		return WATCH_NEVER;
	owners = load(&p->owners);
	if (cpu->watch_index >= FAR_BIT)
		p->nr_far++;
	store(&p->owners, owners | BIT(bit_of(cpu->watch_index)));
	if (!owners)
		p->gen = next_gen(cpu, hva);
	return p->gen;
}

uint64_t watch_add(struct cpu *cpu, const uint8_t *hva)
{
	uint64_t gen;

	if (!cpu->watch)
		return 0;
	lock(cpu->watch);
	gen = add_locked(cpu, hva);
	unlock(cpu->watch);
	return gen;
}

void watch_cover(struct cpu *cpu, const uint8_t *hva, uint64_t lines)
{
	struct watch_page *p = cpu->watch ? look_up(cpu->watch, hva) : NULL;

	if (p)
		__atomic_fetch_or(&p->lines, lines, __ATOMIC_SEQ_CST);
}

static void remove_locked(struct cpu *cpu, struct watch_page *p)
{
	uint64_t owners = load(&p->owners) & ~BIT(bit_of(cpu->watch_index));

	if (cpu->watch_index >= FAR_BIT && --p->nr_far)
		owners |= BIT(FAR_BIT);
	if (!owners)
		store(&p->lines, 0);
	store(&p->owners, owners);
}

void watch_remove(struct cpu *cpu, const uint8_t *hva)
{
	struct watch_page *p;

	if (!cpu->watch)
		return;
	lock(cpu->watch);
	p = look_up(cpu->watch, hva);
	if (p && load(&p->owners) & BIT(bit_of(cpu->watch_index)))
		remove_locked(cpu, p);
	unlock(cpu->watch);
}

/* ---- giving up write tags ---- */

/* What was added since: a few pages by themselves, unless their places were taken meanwhile. */
static void give_up(struct cpu *cpu, uint64_t from, uint64_t to)
{
	struct watch *w = cpu->watch;

	for (uint64_t gen = from + 1; gen <= to && to - from <= WATCH_FEW; gen++)
		tlb_flush_writes_to(cpu->tlb, load(&w->added[gen % WATCH_ADDED]));
	if (to - from > WATCH_FEW || load(&w->gen) - from >= WATCH_ADDED)
		mmu_flush_writes(cpu);
}

void watch_follow(struct cpu *cpu)
{
	struct watch_member *m;
	uint64_t gen;

	cpu_lower(cpu, ATTN_CODE);
	if (!cpu->watch)
		return;
	m = watch_self(cpu);
	watch_end(cpu, 0);
	gen = load(&cpu->watch->gen);
	if (m->seen == gen)
		return;
	give_up(cpu, m->seen, gen);
	store(&m->seen, gen);
}

void watch_enter(struct cpu *cpu)
{
	if (!cpu->watch)
		return;
	store(&watch_self(cpu)->inside, 1);
	if (watch_self(cpu)->seen != load(&cpu->watch->gen))
		watch_follow(cpu);
}

void watch_exit(struct cpu *cpu)
{
	if (!cpu->watch)
		return;
	watch_end(cpu, 0);
	store(&watch_self(cpu)->inside, 0);
}

static bool behind(const struct watch_member *m, uint64_t gen)
{
	return load(&m->inside) && load(&m->seen) < gen;
}

uint64_t watch_seen(const struct cpu *cpu)
{
	struct watch *w = cpu->watch;
	uint64_t seen = WATCH_NEVER - 1;

	if (!w)
		return 0;
	for (unsigned i = 0, nr = load(&w->nr_members); i < nr; i++)
		if (i != cpu->watch_index && behind(&w->member[i], seen))
			seen = load(&w->member[i].seen);
	return seen;
}

void watch_hurry(struct cpu *cpu)
{
	struct watch *w = cpu->watch;
	uint64_t gen;

	if (!w)
		return;
	gen = load(&w->gen);
	for (unsigned i = 0, nr = load(&w->nr_members); i < nr; i++)
		if (i != cpu->watch_index && behind(&w->member[i], gen))
			cpu_raise(w->member[i].cpu, ATTN_CODE);
}

/* ---- writes ---- */

bool watch_refuses(const struct cpu *cpu, const uint8_t *hva)
{
	const struct watch_page *p;

	if (!watch_shared(cpu))
		return false;
	p = look_up(cpu->watch, hva);
	return p && others(cpu, p);
}

bool watch_busy(const struct cpu *cpu, const uint8_t *hva)
{
	const struct watch_page *p = watch_shared(cpu) ? look_up(cpu->watch, hva) : NULL;

	return p && load(&p->writers);
}

static bool put(struct watch_member *m, const uint8_t *hva)
{
	for (unsigned i = 0; i < WATCH_INBOX; i++) {
		const uint8_t *was = NULL;

		if (__atomic_compare_exchange_n(&m->inbox[i], &was, hva, false, __ATOMIC_SEQ_CST,
						__ATOMIC_SEQ_CST) ||
		    was == hva)
			return true;
	}
	return false;
}

static void post(struct watch_member *m, const uint8_t *hva)
{
	if (!put(m, hva))
		store(&m->lost, true);
	store(&m->posted, 1);
	cpu_raise(m->cpu, ATTN_CODE);
}

static void post_others(const struct cpu *cpu, const struct watch_page *p, const uint8_t *hva)
{
	struct watch *w = cpu->watch;

	for (uint64_t left = others(cpu, p); left; left &= left - 1) {
		unsigned first = __builtin_ctzll(left);
		unsigned end = first == FAR_BIT ? load(&w->nr_members) : first + 1;

		for (unsigned i = first; i < end; i++)
			if (i != cpu->watch_index)
				post(&w->member[i], hva);
	}
}

/* The entry may have become another page's before the writer was counted. */
static struct watch_page *count_in(struct watch *w, const uint8_t *hva)
{
	struct watch_page *p = look_up(w, hva);

	while (p) {
		__atomic_fetch_add(&p->writers, 1, __ATOMIC_SEQ_CST);
		if (load(&p->hva) == hva)
			return p;
		__atomic_fetch_sub(&p->writers, 1, __ATOMIC_SEQ_CST);
		p = look_up(w, hva);
	}
	return NULL;
}

static void end_one(struct cpu *cpu, struct watch_page *p, bool told)
{
	const uint8_t *hva = load(&p->hva);

	__atomic_fetch_sub(&p->writers, 1, __ATOMIC_SEQ_CST);
	if (told)
		post_others(cpu, p, hva);
}

void watch_end(struct cpu *cpu, unsigned nr)
{
	struct watch_member *m;

	if (!cpu->watch)
		return;
	m = watch_self(cpu);
	while (m->nr_flight > nr) {
		m->nr_flight--;
		end_one(cpu, m->flight[m->nr_flight].page, m->flight[m->nr_flight].told);
	}
}

/* Those that are longest under way are made, for no instruction writes to so many pages. */
static void note_flight(struct cpu *cpu, struct watch_page *p, bool told)
{
	struct watch_member *m = watch_self(cpu);

	if (m->nr_flight == WATCH_FLIGHT)
		watch_end(cpu, 0);
	m->flight[m->nr_flight].page = p;
	m->flight[m->nr_flight++].told = told;
}

void watch_begin(struct cpu *cpu, const uint8_t *hva, uint64_t lines)
{
	struct watch_page *p = count_in(cpu->watch, hva);
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

unsigned watch_take(struct cpu *cpu, const uint8_t *ret[WATCH_INBOX], bool *ret_lost)
{
	struct watch_member *m = watch_self(cpu);
	unsigned nr = 0;

	store(&m->posted, 0);
	for (unsigned i = 0; i < WATCH_INBOX; i++) {
		const uint8_t *hva =
			__atomic_exchange_n(&m->inbox[i], (const uint8_t *)NULL, __ATOMIC_SEQ_CST);

		if (hva)
			ret[nr++] = hva;
	}
	*ret_lost = __atomic_exchange_n(&m->lost, false, __ATOMIC_SEQ_CST);
	return nr;
}
