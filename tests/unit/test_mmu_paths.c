/* SPDX-License-Identifier: MIT */
/*
 * What the TLB keeps of tables (struct tlb_path) beside pages: SDM, paging-structure caches. Each flush must reach it, it
 * is its root's alone, and where it leads to nothing the tables themselves count.
 */
#include "flat.h"
#include "silicon/mmu/tlb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define ADDR	0x40000000ul
#define KERNEL	0xffff888040000000ul
#define BEHIND	0x5000ul /* of ADDR, in the same table; not read before */
#define PAGE	FLAT_DATA
#define OTHER	(FLAT_DATA + 0x1000)
#define ALLOWED (PTE_P | PTE_W | PTE_A)
#define FAULTED (-1)

static int value_at(struct flat *f, gva_t addr)
{
	uint64_t val;
	bool read = mmu_read(f->cpu, addr, 1, &val) == RESULT_OK;

	f->cpu->fault.valid = false;
	return read ? (int)val : FAULTED;
}

/* The table for addr gets a successor, in which the page behind addr is OTHER. In the old one it is PAGE, or not there. */
static struct flat *replaced(gva_t addr, unsigned level, bool both, uint64_t bits)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	flat_poke(f, PAGE, 1, 1);
	flat_poke(f, OTHER, 2, 1);
	flat_map(f, addr, PAGE, PTE_P | PTE_W | bits, PAGE_SIZE);
	flat_map(f, addr + BEHIND, PAGE, both ? PTE_P | PTE_W | bits : 0, PAGE_SIZE);
	assert_int_equal(value_at(f, addr), 1);
	flat_set_entry(f, addr, level, flat_alloc_table(f) | ALLOWED);
	flat_map(f, addr + BEHIND, OTHER, PTE_P | PTE_W | bits, PAGE_SIZE);
	return f;
}

static void flush_page(struct cpu *cpu)
{
	mmu_flush_page(cpu, 0x12345000);
}

static void flush_pcid(struct cpu *cpu)
{
	mmu_flush_pcid(cpu, 0);
}

static void flush_pcids(struct cpu *cpu)
{
	mmu_flush_pcids(cpu, false);
}

static void flush_mode(struct cpu *cpu)
{
	cpu->cr4 ^= CR4_PGE;
	mmu_update_mode(cpu);
}

/* INVLPG of any address does, and MOV to CR3 also where all pages are global. */
static void flushes(void **state)
{
	static void (*const flush[])(struct cpu *) = {
		flush_page, flush_pcid, flush_pcids, flush_mode, mmu_flush_cr3, mmu_flush_all,
	};
	static const gva_t at[] = {ADDR, KERNEL};

	for (unsigned i = 0; i < ARRAY_SIZE(flush) * ARRAY_SIZE(at) * 4; i++) {
		gva_t addr = at[i & 1];
		struct flat *f = replaced(addr, 2 + (i >> 1 & 1), true, i & 4 ? PTE_G : 0);

		flush[i / 8 % ARRAY_SIZE(flush)](f->cpu);
		assert_int_equal(value_at(f, addr + BEHIND), 2);
		flat_free(f);
	}
}

/* Nothing is flushed, and nothing need be: no page was there before. */
static void refusals_look_again(void **state)
{
	for (unsigned level = 2; level <= 3; level++) {
		struct flat *f = replaced(ADDR, level, false, 0);

		assert_int_equal(value_at(f, ADDR + BEHIND), 2);
		flat_free(f);
	}
}

static void rights_look_again(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	flat_set_cr0(f, f->cpu->cr0 | CR0_WP);
	flat_map(f, ADDR, PAGE, PTE_P | PTE_W, PAGE_SIZE);
	flat_map(f, ADDR + BEHIND, OTHER, PTE_P | PTE_W, PAGE_SIZE);
	flat_set_entry(f, ADDR, 2, flat_get_entry(f, ADDR, 2) & ~PTE_W);
	assert_int_equal(value_at(f, ADDR), 0);
	assert_int_equal(mmu_write(f->cpu, ADDR + BEHIND, 1, 3), RESULT_FAULT);
	f->cpu->fault.valid = false;
	flat_set_entry(f, ADDR, 2, flat_get_entry(f, ADDR, 2) | PTE_W);
	assert_int_equal(mmu_write(f->cpu, ADDR + BEHIND, 1, 3), RESULT_OK);
	assert_int_equal(flat_peek(f, OTHER, 1), 3);
	flat_free(f);
}

/* Two PCIDs with a root each: going to and fro without a flush, and INVPCID of the one that is not present. */
static void roots_have_their_own(void **state)
{
	struct flat *f = replaced(ADDR, 2, true, 0);
	gpa_t first = f->cpu->cr3, second = flat_alloc_table(f);

	for (unsigned i = 0; i < 512; i++)
		flat_poke(f, second + 8 * i, flat_peek(f, first + 8 * i, 8), 8);
	flat_set_cr4(f, f->cpu->cr4 | CR4_PCIDE);
	assert_int_equal(value_at(f, ADDR + BEHIND), 2);
	f->cpu->cr3 = second | 1;
	mmu_switch_pcid(f->cpu, true);
	flat_set_entry(f, ADDR, 4, flat_alloc_table(f) | ALLOWED);
	flat_map(f, ADDR + BEHIND, PAGE, PTE_P | PTE_W, PAGE_SIZE);
	assert_int_equal(value_at(f, ADDR + BEHIND), 1);
	assert_int_equal(value_at(f, ADDR), FAULTED);
	f->cpu->cr3 = first;
	mmu_switch_pcid(f->cpu, true);
	assert_int_equal(value_at(f, ADDR + BEHIND), 2);
	assert_int_equal(value_at(f, ADDR + 2 * BEHIND), FAULTED);
	flat_set_entry(f, ADDR, 2, flat_alloc_table(f) | ALLOWED);
	flat_map(f, ADDR + BEHIND, PAGE, PTE_P | PTE_W, PAGE_SIZE);
	f->cpu->cr3 = second | 1;
	mmu_switch_pcid(f->cpu, true);
	mmu_flush_pcid(f->cpu, 0);
	f->cpu->cr3 = first;
	mmu_switch_pcid(f->cpu, true);
	assert_int_equal(value_at(f, ADDR + BEHIND), 1);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flushes),
		cmocka_unit_test(refusals_look_again),
		cmocka_unit_test(rights_look_again),
		cmocka_unit_test(roots_have_their_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
