/* SPDX-License-Identifier: MIT */
/*
 * The TLB against a plain model of what is mapped: random remappings of small and large, global and local
 * pages in both halves of the address space, each followed by a flush that the SDM says is enough, then
 * random accesses. And A and D bits against a thread that changes the tables meanwhile.
 */
#include "flat.h"
#include "silicon/models/features.h"
#include "silicon/mmu/direct.h"
#include "silicon/mmu/tlb.h"
#include "silicon/sys/sys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define LARGE	0x200000ul
#define REGIONS 24
#define PAGES	512

/* One aligned 2 MiB of linear addresses. */
struct region {
	gva_t base;
	gpa_t table; /* its page table, while it is not large */
	bool large;
	gpa_t to[PAGES]; /* of each 4 KiB; 0: not present */
	bool global[PAGES];
};

static struct region regions[REGIONS];
static uint64_t seed;

static uint32_t pick(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (seed >> 33) % n;
}

/* 16 MiB apart, a third each in the user half, the kernel's direct map and its text. */
static gva_t region_base(unsigned i)
{
	static const gva_t starts[] = {0x10000000000, 0xffff888000000000, 0xffffffff80000000};

	return starts[i % 3] + (i / 3) * 0x1000000ul;
}

static gpa_t random_page(void)
{
	return LARGE + pick((FLAT_RAM - LARGE) / PAGE_SIZE) * PAGE_SIZE;
}

static void map_large(struct flat *f, struct region *r, bool global)
{
	gpa_t to = LARGE * (1 + pick(FLAT_RAM / LARGE - 1));

	flat_set_entry(f, r->base, 2, 0);
	flat_map(f, r->base, to, PTE_P | PTE_W | (global ? PTE_G : 0), LARGE);
	for (unsigned i = 0; i < PAGES; i++) {
		r->to[i] = to + i * PAGE_SIZE;
		r->global[i] = global;
	}
	r->large = true;
}

static void put_small(struct flat *f, struct region *r, unsigned i, bool global)
{
	gpa_t to = pick(8) ? random_page() : 0;

	flat_poke(f, r->table + 8 * i, to ? to | PTE_P | PTE_W | (global ? PTE_G : 0) : 0, 8);
	r->to[i] = to;
	r->global[i] = global;
}

static void split(struct flat *f, struct region *r)
{
	for (unsigned i = 0; i < PAGES; i++)
		put_small(f, r, i, r->global[i]);
	flat_set_entry(f, r->base, 2, r->table | PTE_P | PTE_W);
	r->large = false;
}

/* What the SDM asks for after a change of one translation. */
static void flush_one(struct flat *f, gva_t addr, bool was_global)
{
	if (!was_global && !pick(4))
		mmu_flush_cr3(f->cpu);
	else
		mmu_flush_page(f->cpu, addr);
}

/* Change one mapping and flush what must be. */
static void change(struct flat *f)
{
	struct region *r = &regions[pick(REGIONS)];
	unsigned i = pick(PAGES), kind = pick(16);
	gva_t any = r->base + pick(PAGES) * PAGE_SIZE;
	bool was_global = r->global[i];

	if (r->large) {
		kind < 12 ? split(f, r) : map_large(f, r, pick(2));
		flush_one(f, any, was_global);
	} else if (!kind) {
		map_large(f, r, pick(2));
		mmu_flush_all(f->cpu);
	} else {
		put_small(f, r, i, pick(2));
		flush_one(f, r->base + i * PAGE_SIZE, was_global);
	}
}

static void check_access(struct flat *f)
{
	struct region *r = &regions[pick(REGIONS)];
	unsigned i = pick(4) ? pick(16) : pick(PAGES);
	gva_t addr = r->base + i * PAGE_SIZE + pick(2) * 8;
	uint64_t val;
	enum result res;

	if (pick(2))
		res = mmu_write(f->cpu, addr, 8, r->to[i]);
	else
		res = mmu_read(f->cpu, addr, 8, &val);
	assert_int_equal(res, r->to[i] ? RESULT_OK : RESULT_FAULT);
	if (!r->to[i])
		return;
	assert_int_equal(mmu_read(f->cpu, addr, 8, &val), RESULT_OK);
	assert_int_equal(val, r->to[i]);
}

static void tlb_agrees_with_tables(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	for (gpa_t page = LARGE; page < FLAT_RAM; page += PAGE_SIZE) {
		flat_poke(f, page, page, 8);
		flat_poke(f, page + 8, page, 8);
	}
	for (unsigned i = 0; i < REGIONS; i++) {
		regions[i].base = region_base(i);
		regions[i].table = flat_alloc_table(f);
		flat_map(f, regions[i].base, LARGE, PTE_P | PTE_W, LARGE);
		map_large(f, &regions[i], i & 1);
	}
	seed = 1;
	for (unsigned i = 0; i < 50000; i++) {
		change(f);
		for (unsigned n = 0; n < 10; n++)
			check_access(f);
	}
	flat_free(f);
}

/* ---- PCIDs: SDM, process-context identifiers; INVPCID ---- */

#define PCIDS	 12 /* more than the TLB has contexts */
#define VIEWS	 64 /* pages at VIEW_LOW, each PCID's own */
#define VIEW_LOW 0x7f0000000000ul

struct space {
	gpa_t root, table;
	gpa_t to[VIEWS];
};

static struct space spaces[PCIDS];

static gva_t view(unsigned i)
{
	return VIEW_LOW + i * PAGE_SIZE;
}

static void put_view(struct flat *f, unsigned pcid, unsigned i, gpa_t to, uint64_t bits)
{
	spaces[pcid].to[i] = to;
	flat_poke(f, spaces[pcid].table + 8 * i, to ? to | PTE_P | PTE_W | bits : 0, 8);
}

static void go_to(struct flat *f, unsigned pcid, bool keep)
{
	uint64_t cr3 = spaces[pcid].root | pcid | (keep ? CR3_NOFLUSH : 0);

	assert_int_equal(sys_set_cr3(f->cpu, cr3), RESULT_OK);
}

static unsigned present_pcid(const struct flat *f)
{
	return f->cpu->cr3 & CR3_PCID_MASK;
}

static void make_spaces(struct flat *f)
{
	for (unsigned p = 0; p < PCIDS; p++) {
		struct space *s = &spaces[p];

		s->root = flat_alloc_table(f);
		s->table = flat_alloc_table(f);
		memcpy(f->ram + s->root, f->ram + (f->cpu->cr3 & PAGE_MASK), PAGE_SIZE);
		flat_poke(f, s->root + 8 * (VIEW_LOW >> 39), s->table | PTE_P | PTE_W, 8);
		gpa_t pd = flat_alloc_table(f), pt = flat_alloc_table(f);

		flat_poke(f, s->table, pd | PTE_P | PTE_W, 8);
		flat_poke(f, pd, pt | PTE_P | PTE_W, 8);
		s->table = pt;
		for (unsigned i = 0; i < VIEWS; i++)
			put_view(f, p, i, random_page(), 0);
	}
}

/* Each of these covers a change of view i in this PCID. */
static void flush_space(struct flat *f, unsigned pcid, unsigned i)
{
	switch (pick(6)) {
	case 0:
		mmu_flush_pcid(f->cpu, pcid);
		break;
	case 1:
		mmu_flush_pcids(f->cpu, pick(2));
		break;
	case 2:
		go_to(f, pcid, false);
		break;
	case 3:
		if (present_pcid(f) == pcid) {
			mmu_flush_page(f->cpu, view(i));
			break;
		}
		/* fall through */
	default:
		mmu_flush_pcid_page(f->cpu, pcid, view(i));
	}
}

/* One page for all, global: INVLPG in any PCID covers it in all. */
static void change_global(struct flat *f, unsigned i)
{
	gpa_t to = random_page();

	for (unsigned p = 0; p < PCIDS; p++)
		put_view(f, p, i, to, PTE_G);
	mmu_flush_page(f->cpu, view(i));
}

/* What stands in the direct tables is what is mapped. */
static void check_direct(struct flat *f, gva_t addr, gpa_t to)
{
	const struct direct *d = f->cpu->tlb->direct;

	for (unsigned kind = 0; kind < NR_DIRECT_KINDS; kind++) {
		const struct direct_map *map = &d->map[f->cpu->mode.access][kind];
		unsigned index = addr >> PAGE_SHIFT & (DIRECT_ENTRIES - 1);

		if (map->neg[index] == -addr)
			assert_ptr_equal(map->addend[index] + addr, f->ram + to);
	}
}

static void check_views(struct flat *f)
{
	const struct space *s = &spaces[present_pcid(f)];

	for (unsigned n = 0; n < 6; n++) {
		unsigned i = pick(VIEWS);
		uint64_t val;

		check_direct(f, view(i), s->to[i]);
		assert_int_equal(mmu_read(f->cpu, view(i), 8, &val), RESULT_OK);
		assert_int_equal(val, s->to[i]);
		assert_int_equal(mmu_write(f->cpu, view(i), 8, val), RESULT_OK);
	}
}

static void pcids_agree_with_tables(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	flat_set_cr4(f, f->cpu->cr4 | CR4_PGE | CR4_PCIDE);
	f->cpu->tlb->direct = direct_create(NULL);
	assert_non_null(f->cpu->tlb->direct);
	for (gpa_t page = LARGE; page < FLAT_RAM; page += PAGE_SIZE)
		flat_poke(f, page, page, 8);
	seed = 2;
	make_spaces(f);
	go_to(f, 0, false);
	for (unsigned round = 0; round < 100000; round++) {
		unsigned pcid = pick(PCIDS), i = 8 + pick(VIEWS - 8);

		if (!pick(50)) {
			change_global(f, pick(8));
		} else if (pick(2)) {
			put_view(f, pcid, i, random_page(), 0);
			flush_space(f, pcid, i);
		} else if (!pick(100)) {
			mmu_flush_writes(f->cpu);
		} else {
			go_to(f, pcid, pick(4));
		}
		check_views(f);
	}
	flat_free(f);
}

/* A PCID's translations outlive others': with bit 63 nothing is flushed, without it those of the PCID. */
static void pcid_keeps(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	uint64_t val;

	flat_long(f);
	flat_set_cr4(f, f->cpu->cr4 | CR4_PCIDE);
	make_spaces(f);
	flat_poke(f, 0x300000, 3, 8);
	flat_poke(f, 0x400000, 4, 8);
	go_to(f, 1, false);
	put_view(f, 1, 9, 0x300000, 0);
	assert_int_equal(mmu_read(f->cpu, view(9), 8, &val), RESULT_OK);
	assert_int_equal(val, 3);
	go_to(f, 2, false);
	put_view(f, 1, 9, 0x400000, 0);
	go_to(f, 1, true);
	assert_int_equal(mmu_read(f->cpu, view(9), 8, &val), RESULT_OK);
	assert_int_equal(val, 3);
	go_to(f, 1, false);
	assert_int_equal(mmu_read(f->cpu, view(9), 8, &val), RESULT_OK);
	assert_int_equal(val, 4);
	flat_free(f);
}

/* INVLPG of a page of the upper half covers it for every PCID that looked at it: they share the half. */
static void upper_half_is_shared(void **state)
{
	const gva_t addr = 0xffffc90000005000ul;
	struct flat *f = flat_new(FLAT_RAM);
	uint64_t val;

	flat_long(f);
	flat_set_cr4(f, f->cpu->cr4 | CR4_PGE | CR4_PCIDE);
	flat_poke(f, 0x300000, 3, 8);
	flat_poke(f, 0x400000, 4, 8);
	flat_map(f, addr, 0x300000, PTE_P | PTE_W | PTE_G, PAGE_SIZE);
	make_spaces(f);
	for (unsigned pcid = 1; pcid < 5; pcid++) {
		go_to(f, pcid, false);
		assert_int_equal(mmu_read(f->cpu, addr, 8, &val), RESULT_OK);
		assert_int_equal(val, 3);
	}
	flat_map(f, addr, 0x400000, PTE_P | PTE_W | PTE_G, PAGE_SIZE);
	mmu_flush_page(f->cpu, addr);
	for (unsigned pcid = 1; pcid < 5; pcid++) {
		go_to(f, pcid, true);
		assert_int_equal(mmu_read(f->cpu, addr, 8, &val), RESULT_OK);
		assert_int_equal(val, 4);
	}
	flat_free(f);
}

/* ---- a second writer of the tables ---- */

struct racer {
	uint64_t *pte;
	uint64_t values[2];
	bool stop;
	uint64_t lost;
};

/* As a guest's other vCPU does: exchange the entry, and look at what the old one became. */
static void *race(void *arg)
{
	struct racer *r = arg;

	for (uint64_t i = 0; !__atomic_load_n(&r->stop, __ATOMIC_RELAXED); i++) {
		uint64_t next = r->values[i & 1];
		uint64_t old = __atomic_exchange_n(r->pte, next, __ATOMIC_SEQ_CST);

		/* An entry is one of the two, with A and D at most: never a mixture. */
		if ((old & ~(PTE_A | PTE_D)) != r->values[0] &&
		    (old & ~(PTE_A | PTE_D)) != r->values[1])
			r->lost++;
	}
	return NULL;
}

static void accessed_bits_race(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	gva_t addr = 0x40000000;
	struct racer r = {.values = {0x300000 | PTE_P | PTE_W, 0x400000 | PTE_P | PTE_W}};
	pthread_t thread;

	flat_long(f);
	flat_map(f, addr, 0x300000, PTE_P | PTE_W, PAGE_SIZE);
	r.pte = (uint64_t *)(f->ram + flat_entry(f, addr, 1));
	assert_int_equal(pthread_create(&thread, NULL, race, &r), 0);
	for (unsigned i = 0; i < 100000; i++) {
		mmu_flush_page(f->cpu, addr);
		assert_int_equal(mmu_write(f->cpu, addr, 4, i), RESULT_OK);
	}
	__atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_int_equal(r.lost, 0);
	assert_true(flat_peek(f, 0x300000, 4) == 99999 || flat_peek(f, 0x400000, 4) == 99999);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tlb_agrees_with_tables),
		cmocka_unit_test(pcids_agree_with_tables),
		cmocka_unit_test(pcid_keeps),
		cmocka_unit_test(upper_half_is_shared),
		cmocka_unit_test(accessed_bits_race),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
