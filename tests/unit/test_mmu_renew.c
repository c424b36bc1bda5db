/* SPDX-License-Identifier: MIT */
/*
 * What a flush looks up again (mmu/renew.c): translations that stand, and nothing that an access would have to notice. SDM, details of TLB use:
 * translations may be cached before they are used, but A and D bits are set by accesses.
 */
#include "mmu_access.h"
#include "silicon/mmu/direct.h"

static struct flat *used(uint64_t bits)
{
	struct flat *f = two_pages(PTE_P | PTE_W | bits, PTE_P | PTE_W | bits);

	f->cpu->tlb->direct = direct_create(NULL);
	assert_non_null(f->cpu->tlb->direct);
	flat_poke(f, OTHER, 7, 1);
	writes(f, ADDR, 1, 5);
	return f;
}

static void unused(struct flat *f)
{
	direct_destroy(f->cpu->tlb->direct);
	f->cpu->tlb->direct = NULL;
	flat_free(f);
}

static void flush_pcid(struct cpu *cpu)
{
	mmu_flush_pcid(cpu, 0);
}

static void flush_all_pcids(struct cpu *cpu)
{
	mmu_flush_pcids(cpu, true);
}

static void (*const flushes[])(struct cpu *cpu) = {mmu_flush_cr3, flush_pcid, flush_all_pcids};

/* One entry of so many is let go each time; which one, goes round. */
static bool again(struct flat *f, unsigned kind)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < TLB_LET_GO; i++) {
		reads(f, ADDR, 1, 5);
		writes(f, ADDR, 1, 5);
		flushes[kind](f->cpu);
		nr += tlb_hit_read(f->cpu, ADDR, 1) && tlb_hit_write(f->cpu, ADDR, 1);
	}
	return nr >= TLB_LET_GO - 1;
}

static void entries_stand(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(flushes); i++) {
		struct flat *f = used(0);

		assert_true(again(f, i));
		reads(f, ADDR, 1, 5);
		unused(f);
	}
}

/* Not what was, but what is: another page, or none, with nothing left of a fault. */
static void tables_count(void **state)
{
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(flushes) * TLB_LET_GO; i++) {
		bool there = i & 1;
		struct flat *f = used(0);

		for (unsigned k = 0; k < i / 2 / ARRAY_SIZE(flushes); k++)
			f->cpu->tlb->nr_renewals++;
		flat_map(f, ADDR, OTHER, there ? PTE_P | PTE_W | PTE_A : 0, PAGE_SIZE);
		flushes[i / 2 % ARRAY_SIZE(flushes)](f->cpu);
		assert_false(f->cpu->fault.valid);
		assert_null(tlb_hit_write(f->cpu, ADDR, 1));
		if (there)
			reads(f, ADDR, 1, 7);
		else
			read_faults(f, ADDR, 0);
		unused(f);
	}
}

/* Without its A bit an entry is not looked up, without its D bit not for writes; no flush sets either. */
static void bits_are_for_accesses(void **state)
{
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(flushes) * TLB_LET_GO; i++) {
		uint64_t keep = i & 1 ? PTE_A : 0;
		struct flat *f = used(0);

		for (unsigned k = 0; k < i / 2 / ARRAY_SIZE(flushes); k++)
			f->cpu->tlb->nr_renewals++;
		flat_set_entry(f, ADDR, 1, (flat_get_entry(f, ADDR, 1) & ~(PTE_A | PTE_D)) | keep);
		flushes[i / 2 % ARRAY_SIZE(flushes)](f->cpu);
		assert_int_equal(flat_get_entry(f, ADDR, 1) & (PTE_A | PTE_D), keep);
		assert_null(tlb_hit_write(f->cpu, ADDR, 1));
		if (!keep)
			assert_null(tlb_hit_read(f->cpu, ADDR, 1));
		writes(f, ADDR, 1, 6);
		assert_int_equal(flat_get_entry(f, ADDR, 1) & (PTE_A | PTE_D), PTE_A | PTE_D);
		unused(f);
	}
}

/* MOV to CR3 of other tables: what was used by the old ones says nothing. */
static void other_tables_have_their_own(void **state)
{
	struct flat *f = used(0);
	gpa_t second = flat_alloc_table(f);

	f->cpu->cr3 = second;
	mmu_flush_cr3(f->cpu);
	assert_null(tlb_hit_read(f->cpu, ADDR, 1));
	read_faults(f, ADDR, 0);
	unused(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entries_stand),
		cmocka_unit_test(tables_count),
		cmocka_unit_test(bits_are_for_accesses),
		cmocka_unit_test(other_tables_have_their_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
