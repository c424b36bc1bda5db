/* SPDX-License-Identifier: MIT */
/*
 * silicon/mmu's walks beyond rights: forms of page tables, reserved bits, flushes, page crossings. Expected values are the
 * SDM's.
 */
#include "mmu_access.h"

/* ---- forms ---- */

static void unpaged(void **state)
{
	struct flat *f = start(flat_prot32);

	writes(f, 0x12345, 4, 0xdeadbeef);
	reads(f, 0x12345, 4, 0xdeadbeef);
	assert_int_equal(flat_peek(f, 0x12345, 4), 0xdeadbeef);
	flat_free(f);
}

/* Bits 20:13 of a 4 MiB PDE are address bits 39:32; the machine has no RAM there, so look at the gpa. */
static void pse36(void **state)
{
	struct flat *f = start(flat_paging32);
	uint32_t flags;
	gpa_t gpa;

	f->cpu->maxphyaddr = 40;
	flat_map(f, ADDR, 0x400000 | 0x5aul << 13, PTE_P | PTE_W, 0x400000);
	mmu_flush_all(f->cpu);
	assert_true(mmu_translate_debug(f->cpu, ADDR + 0x123456, &gpa, &flags));
	assert_int_equal(gpa, 0x5a00400000 + 0x123456);
	assert_int_equal(flags, PFERR_W);
	f->cpu->maxphyaddr = 36;
	read_faults(f, ADDR, PFERR_P | PFERR_RSVD);
	flat_free(f);
}

static void pse_off_makes_a_table(void **state)
{
	struct flat *f = start(flat_paging32);
	gpa_t table = flat_alloc_table(f);

	flat_map(f, ADDR, table, PTE_P | PTE_W, 0x400000);
	flat_poke(f, table + 4 * 3, PAGE | PTE_P | PTE_W, 4);
	for (gva_t addr = 0; addr < 0x400000; addr += PAGE_SIZE)
		flat_map(f, addr, addr, PTE_P | PTE_W, PAGE_SIZE);
	flat_set_cr4(f, f->cpu->cr4 & ~CR4_PSE);
	writes(f, ADDR + 0x3010, 4, 77);
	assert_int_equal(flat_peek(f, PAGE + 0x10, 4), 77);
	read_faults(f, ADDR + 0x4000, 0);
	flat_free(f);
}

static void large_pages(void **state)
{
	struct flat *f = start(flat_long);
	uint64_t bits = PTE_P | PTE_W;

	feature_put(f->cpu->model_features, FEAT_GBPAGES, true);
	flat_map(f, 0x200000000, 0, bits, 1ul << 30);
	flat_map(f, 0x240000000, 0x600000, bits, 0x200000);
	writes(f, 0x200000000 + 0x712345, 8, 0x1122334455667788);
	assert_int_equal(flat_peek(f, 0x712345, 8), 0x1122334455667788);
	reads(f, 0x240000000 + 0x112345, 8, 0x1122334455667788);
	assert_true(flat_get_entry(f, 0x200000000, 3) & PTE_D);
	assert_false(flat_get_entry(f, 0x240000000, 2) & PTE_D);
	flat_free(f);
}

static void five_levels(void **state)
{
	struct flat *f = start(flat_long);
	gpa_t root = flat_alloc_table(f);
	uint64_t val;

	flat_poke(f, root, f->cpu->cr3 | PTE_P | PTE_W, 8);
	f->cpu->cr3 = root;
	flat_set_cr4(f, f->cpu->cr4 | CR4_LA57);
	flat_map(f, 0x00ab000000000000, PAGE, PTE_P | PTE_W, PAGE_SIZE);
	writes(f, 0x00ab000000000008, 8, 42);
	assert_int_equal(flat_peek(f, PAGE + 8, 8), 42);
	assert_true(flat_get_entry(f, 0x00ab000000000000, 5) & PTE_A);
	read_faults(f, 0x00cd000000000000, 0);
	assert_int_equal(mmu_read(f->cpu, 0x0100000000000000, 1, &val), RESULT_FAULT);
	assert_int_equal(f->cpu->fault.vector, VEC_GP);
	flat_free(f);
}

/* ---- reserved bits ---- */

static void reserved_at(struct flat *f, unsigned level, uint64_t bits, bool reserved)
{
	uint64_t was = flat_get_entry(f, ADDR, level), val;

	flat_set_entry(f, ADDR, level, was | bits);
	mmu_flush_all(f->cpu);
	if (reserved)
		read_faults(f, ADDR, PFERR_P | PFERR_RSVD);
	else
		assert_int_equal(mmu_read(f->cpu, ADDR, 1, &val), RESULT_OK);
	flat_set_entry(f, ADDR, level, was);
}

static void reserved_long(void **state)
{
	struct flat *f = start(flat_long);

	f->cpu->maxphyaddr = 40;
	feature_put(f->cpu->model_features, FEAT_GBPAGES, false);
	flat_map(f, ADDR, PAGE, PTE_P | PTE_W, PAGE_SIZE);
	for (unsigned level = 1; level <= 4; level++) {
		reserved_at(f, level, BIT(40), true);
		reserved_at(f, level, BIT(51), true);
		reserved_at(f, level, BIT(52) | BIT(58) | BIT(62), false);
		reserved_at(f, level, BIT(9) | BIT(10) | BIT(11), false);
	}
	reserved_at(f, 4, PTE_PS, true);
	reserved_at(f, 3, PTE_PS, true);
	reserved_at(f, 1, PTE_PS | PTE_G, false);
	flat_map(f, ADDR, 0x200000, PTE_P | PTE_W, 0x200000);
	reserved_at(f, 2, BIT(12), false);
	for (unsigned bit = 13; bit <= 20; bit++)
		reserved_at(f, 2, BIT(bit), true);
	flat_free(f);
}

static void reserved_huge(void **state)
{
	struct flat *f = start(flat_long);

	feature_put(f->cpu->model_features, FEAT_GBPAGES, true);
	flat_map(f, ADDR, 0, PTE_P | PTE_W, 1ul << 30);
	reserved_at(f, 3, BIT(12), false);
	for (unsigned bit = 13; bit <= 29; bit++)
		reserved_at(f, 3, BIT(bit), true);
	flat_free(f);
}

static void reserved_pae(void **state)
{
	struct flat *f = start(flat_pae);

	flat_map(f, ADDR, PAGE, PTE_P | PTE_W, PAGE_SIZE);
	for (unsigned level = 1; level <= 2; level++) {
		for (unsigned bit = 52; bit <= 62; bit++)
			reserved_at(f, level, BIT(bit), true);
		reserved_at(f, level, BIT(51), true);
		reserved_at(f, level, PTE_NX, false);
	}
	flat_set_efer(f, 0);
	reserved_at(f, 1, PTE_NX, true);
	flat_free(f);
}

static void reserved_32(void **state)
{
	struct flat *f = start(flat_paging32);

	f->cpu->maxphyaddr = 46;
	flat_map(f, ADDR, 0, PTE_P | PTE_W, 0x400000);
	reserved_at(f, 2, BIT(21), true);
	reserved_at(f, 2, BIT(12), false);
	f->cpu->maxphyaddr = 36;
	for (unsigned bit = 17; bit <= 21; bit++)
		reserved_at(f, 2, BIT(bit), true);
	flat_map(f, ADDR, PAGE, PTE_P | PTE_W, PAGE_SIZE);
	reserved_at(f, 1, PTE_PS, false);
	flat_free(f);
}

/* A level above that is not present hides what is below; reserved bits hide refused rights. */
static void precedence(void **state)
{
	struct flat *f = start(flat_long);

	flat_map(f, ADDR, PAGE, PTE_P | BIT(51), PAGE_SIZE);
	flat_set_entry(f, ADDR, 2, flat_get_entry(f, ADDR, 2) & ~PTE_P);
	read_faults(f, ADDR, 0);
	flat_set_entry(f, ADDR, 2, flat_get_entry(f, ADDR, 2) | PTE_P);
	flat_user(f);
	is_fault(f, mmu_write(f->cpu, ADDR, 1, 0), ADDR, PFERR_P | PFERR_RSVD | PFERR_U | PFERR_W);
	flat_free(f);
}

/* ---- PDPTEs: SDM, PAE paging ---- */

static void pdptes_are_loaded_once(void **state)
{
	struct flat *f = start(flat_pae);
	gpa_t entry = flat_entry(f, ADDR, 3);
	uint64_t val = flat_peek(f, entry, 8);

	flat_map(f, ADDR, PAGE, PTE_P, PAGE_SIZE);
	flat_poke(f, entry, 0, 8);
	mmu_flush_all(f->cpu);
	reads(f, ADDR, 1, 0);
	assert_int_equal(mmu_load_pdptes(f->cpu, f->cpu->cr3), RESULT_OK);
	mmu_flush_cr3(f->cpu);
	read_faults(f, ADDR, 0);
	flat_poke(f, entry, val | PTE_U, 8);
	assert_int_equal(mmu_load_pdptes(f->cpu, f->cpu->cr3), RESULT_FAULT);
	assert_int_equal(f->cpu->fault.vector, VEC_GP);
	assert_int_equal(f->cpu->fault.error, 0);
	assert_int_equal(f->cpu->pdpte[1], 0);
	flat_poke(f, entry, (val & ~PTE_P) | PTE_U | BIT(62), 8);
	assert_int_equal(mmu_load_pdptes(f->cpu, f->cpu->cr3), RESULT_OK);
	assert_int_equal(mmu_load_pdptes(f->cpu, 0xd0000000), RESULT_FAULT);
	flat_free(f);
}

static void pdpte_reads_mapped(void **state)
{
	struct flat *f = start(flat_pae);

	flat_map(f, ADDR, PAGE, PTE_P, PAGE_SIZE);
	flat_poke(f, PAGE, 5, 1);
	reads(f, ADDR, 1, 5);
	is_fault(f, mmu_write(f->cpu, ADDR, 1, 0), ADDR, PFERR_P | PFERR_W);
	flat_free(f);
}

/* ---- flushes ---- */

/* Map ADDR to PAGE, read it, then let the tables say OTHER: the TLB still says PAGE. */
static struct flat *stale(void (*enter)(struct flat *), gva_t addr, uint64_t bits)
{
	struct flat *f = start(enter);

	flat_poke(f, PAGE, 1, 1);
	flat_poke(f, OTHER, 2, 1);
	flat_map(f, addr, PAGE, PTE_P | PTE_W | bits, PAGE_SIZE);
	reads(f, addr, 1, 1);
	flat_map(f, addr, OTHER, PTE_P | PTE_W | bits, PAGE_SIZE);
	reads(f, addr, 1, 1);
	return f;
}

static void flush_kinds(void (*enter)(struct flat *), gva_t addr)
{
	struct flat *f = stale(enter, addr, 0);

	mmu_flush_cr3(f->cpu);
	reads(f, addr, 1, 2);
	flat_free(f);
	f = stale(enter, addr, PTE_G);
	mmu_flush_page(f->cpu, addr + 0x123);
	reads(f, addr, 1, 2);
	flat_free(f);
	f = stale(enter, addr, PTE_G);
	mmu_flush_page(f->cpu, addr + PAGE_SIZE);
	mmu_flush_all(f->cpu);
	reads(f, addr, 1, 2);
	flat_free(f);
	f = stale(enter, addr, 0);
	f->cpu->cr4 ^= CR4_PGE;
	mmu_update_mode(f->cpu);
	reads(f, addr, 1, 2);
	flat_free(f);
}

static void flushes(void **state)
{
	flush_kinds(flat_paging32, ADDR);
	flush_kinds(flat_pae, 0xc0000000);
	flush_kinds(flat_long, ADDR);
	flush_kinds(flat_long, 0xffffffff81000000);
}

/* The kernel's half survives a CR3 write if all that was filled there is global. */
static void global_half_stays(void **state)
{
	gva_t kernel = 0xffff888000000000;
	struct flat *f = stale(flat_long, kernel, PTE_G);

	mmu_flush_cr3(f->cpu);
	reads(f, kernel, 1, 1);
	flat_map(f, kernel + 0x5000, OTHER, PTE_P, PAGE_SIZE);
	reads(f, kernel + 0x5000, 1, 2);
	mmu_flush_cr3(f->cpu);
	flat_map(f, kernel + 0x5000, PAGE, PTE_P, PAGE_SIZE);
	reads(f, kernel + 0x5000, 1, 1);
	flat_free(f);
}

static void global_needs_pge(void **state)
{
	gva_t kernel = 0xffff888000000000;
	struct flat *f = start(flat_long);

	flat_set_cr4(f, f->cpu->cr4 & ~CR4_PGE);
	flat_poke(f, OTHER, 2, 1);
	flat_map(f, kernel, PAGE, PTE_P | PTE_G, PAGE_SIZE);
	reads(f, kernel, 1, 0);
	flat_map(f, kernel, OTHER, PTE_P | PTE_G, PAGE_SIZE);
	mmu_flush_cr3(f->cpu);
	reads(f, kernel, 1, 2);
	flat_free(f);
}

/* INVLPG with any address in a large page drops all of it. */
static void flush_large(uint64_t size, uint64_t at)
{
	struct flat *f = start(flat_long);
	gva_t base = 0xffff880000000000;

	feature_put(f->cpu->model_features, FEAT_GBPAGES, true);
	flat_map(f, base, 0, PTE_P | PTE_W | PTE_G, size);
	flat_poke(f, at, 1, 1);
	reads(f, base + at, 1, 1);
	flat_map(f, base, 1ul << 30, PTE_P | PTE_W | PTE_G, size);
	mmu_flush_page(f->cpu, base + 0x1ff000);
	assert_null(tlb_hit_read(f->cpu, base + at, 1));
	flat_free(f);
}

static void flushes_large(void **state)
{
	flush_large(0x200000, 0x101000);
	flush_large(1ul << 30, 0x801000);
}

static void generations_wrap(void **state)
{
	struct flat *f = start(flat_long);

	for (unsigned i = 0; i < 3 * TLB_GENERATIONS; i++) {
		gpa_t page = PAGE + i % 2 * PAGE_SIZE;

		flat_poke(f, page, i, 4);
		flat_map(f, ADDR, page, PTE_P | PTE_W, PAGE_SIZE);
		mmu_flush_cr3(f->cpu);
		reads(f, ADDR, 4, i);
		writes(f, ADDR + 8, 4, i);
		assert_int_equal(flat_peek(f, page + 8, 4), i);
	}
	flat_free(f);
}

static void strides_do_not_collide(void **state)
{
	struct flat *f = start(flat_long);

	for (unsigned i = 0; i < 64; i++)
		reads(f, 0x800000ul + (i & 1) * 0x1000, 1, 0);
	for (unsigned i = 0; i < 32; i++) {
		flat_map(f, 0x600000000000 + i * 0x1000000ul, PAGE, PTE_P, PAGE_SIZE);
		reads(f, 0x600000000000 + i * 0x1000000ul, 1, 0);
	}
	for (unsigned i = 0; i < 32; i++)
		assert_non_null(tlb_hit_read(f->cpu, 0x600000000000 + i * 0x1000000ul, 1));
	flat_free(f);
}

/* ---- page crossings ---- */

static void crossing_moves_bytes(void **state)
{
	struct flat *f = two_pages(PTE_P | PTE_W, PTE_P | PTE_W);
	uint8_t buf[100];

	writes(f, ADDR + 0xffd, 8, 0x8877665544332211);
	assert_int_equal(flat_peek(f, PAGE + 0xffd, 3), 0x332211);
	assert_int_equal(flat_peek(f, OTHER + PAGE_SIZE, 5), 0x8877665544);
	reads(f, ADDR + 0xffd, 8, 0x8877665544332211);
	reads(f, ADDR + 0xfff, 2, 0x4433);
	assert_int_equal(mmu_read_bytes(f->cpu, ADDR + 0xfc0, buf, 100), RESULT_OK);
	assert_memory_equal(buf + 0x3d, "\x11\x22\x33\x44\x55\x66\x77\x88", 8);
	memset(buf, 0x5a, sizeof(buf));
	assert_int_equal(mmu_write_bytes(f->cpu, ADDR + 0xfc0, buf, 100), RESULT_OK);
	assert_memory_equal(f->ram + OTHER + PAGE_SIZE, buf, 36);
	flat_free(f);
}

/* Loads and stores of 2, 4 and 8 bytes whose place in the buffer is odd: UBSan is the judge of how they are made. */
/* Two pages that follow each other share no place in the TLB, wherever they stand: the second's entry serves none of the first. */
static void crossing_where_addresses_carry(void **state)
{
	static const gva_t second[] = {0x800000, 0x1000000, 0x800000000, 0x1000000000,
				       0x400000000000};

	for (unsigned i = 0; i < ARRAY_SIZE(second); i++) {
		struct flat *f = start(flat_long);

		flat_map(f, second[i] - PAGE_SIZE, OTHER, PTE_P | PTE_W, PAGE_SIZE);
		flat_map(f, second[i], PAGE, PTE_P | PTE_W, PAGE_SIZE);
		flat_poke(f, OTHER + 0xffc, 0x11223344, 4);
		flat_poke(f, PAGE, 0x55667788, 4);
		reads(f, second[i], 4, 0x55667788);
		reads(f, second[i] - 4, 8, 0x5566778811223344);
		writes(f, second[i], 1, 0x99);
		writes(f, second[i] - 2, 4, 0xaabbccdd);
		assert_int_equal(flat_peek(f, OTHER + 0xffc, 4), 0xccdd3344);
		assert_int_equal(flat_peek(f, PAGE, 4), 0x5566aabb);
		flat_free(f);
	}
}

static void crossing_parts_need_no_alignment(void **state)
{
	struct flat *f = two_pages(PTE_P | PTE_W, PTE_P | PTE_W);
	uint64_t aligned[3], val = 0x8877665544332211;
	uint8_t *buf = (uint8_t *)aligned;

	for (unsigned size = 2; size <= 8; size *= 2) {
		memcpy(buf + 3, &val, size);
		assert_int_equal(mmu_write_bytes(f->cpu, ADDR + 0xffd, buf, 3 + size), RESULT_OK);
		assert_memory_equal(f->ram + OTHER + PAGE_SIZE, &val, size);
		memset(buf, 0, sizeof(aligned));
		assert_int_equal(mmu_read_bytes(f->cpu, ADDR + 0xffd, buf, 3 + size), RESULT_OK);
		assert_memory_equal(buf + 3, &val, size);
	}
	flat_free(f);
}

static void crossing_faults(void **state)
{
	struct flat *f = two_pages(PTE_P | PTE_W, 0);
	uint64_t val;

	is_fault(f, mmu_write(f->cpu, ADDR + 0xffc, 8, ~0ul), ADDR + PAGE_SIZE, PFERR_W);
	assert_false(touched(f, ADDR));
	assert_int_equal(flat_peek(f, PAGE + 0xffc, 4), 0);
	flat_free(f);
	f = two_pages(PTE_P, PTE_P);
	is_fault(f, mmu_write(f->cpu, ADDR + 0xffc, 8, ~0ul), ADDR + 0xffc, PFERR_P | PFERR_W);
	assert_int_equal(mmu_read(f->cpu, ADDR + 0xffc, 8, &val), RESULT_OK);
	flat_free(f);
	f = two_pages(0, 0);
	is_fault(f, mmu_read(f->cpu, ADDR + 0xfff, 2, &val), ADDR + 0xfff, 0);
	is_fault(f, mmu_probe(f->cpu, ADDR + 0xfff, 2, ACCESS_RMW), ADDR + 0xfff, PFERR_W);
	flat_free(f);
}

static void crossing_wraps(void **state)
{
	struct flat *f = start(flat_paging32);

	flat_map(f, 0xfffff000, PAGE, PTE_P | PTE_W, PAGE_SIZE);
	flat_map(f, 0, OTHER, PTE_P | PTE_W, PAGE_SIZE);
	writes(f, 0xfffffffe, 4, 0x44332211);
	assert_int_equal(flat_peek(f, PAGE + 0xffe, 2), 0x2211);
	assert_int_equal(flat_peek(f, OTHER, 2), 0x4433);
	flat_free(f);
}

static void fetches(void **state)
{
	struct flat *f = two_pages(PTE_P, PTE_P | PTE_NX);
	uint8_t buf[15];
	unsigned len = 0;

	flat_poke(f, PAGE + 0xff8, 0x8877665544332211, 8);
	assert_int_equal(mmu_fetch(f->cpu, ADDR + 0xff8, buf, &len), RESULT_OK);
	assert_int_equal(len, 8);
	assert_memory_equal(buf, "\x11\x22\x33\x44\x55\x66\x77\x88", 8);
	is_fault(f, RESULT_FAULT, ADDR + PAGE_SIZE, PFERR_P | PFERR_I);
	is_fault(f, mmu_fetch(f->cpu, ADDR + PAGE_SIZE, buf, &len), ADDR + PAGE_SIZE,
		 PFERR_P | PFERR_I);
	assert_int_equal(mmu_fetch(f->cpu, ADDR + 0xff1, buf, &len), RESULT_OK);
	assert_int_equal(len, 15);
	assert_ptr_equal(tlb_fetch_hit(f->cpu, ADDR + 0xff0), f->ram + PAGE + 0xff0);
	assert_null(tlb_fetch_hit(f->cpu, ADDR + 0xff1));
	flat_map(f, ADDR, FLAT_MMIO, PTE_P, PAGE_SIZE);
	mmu_flush_page(f->cpu, ADDR);
	assert_int_equal(mmu_fetch(f->cpu, ADDR, buf, &len), RESULT_EXIT);
	assert_int_equal(f->cpu->exit.kind, CPU_EXIT_EMULATION);
	flat_free(f);
}

/* The code page in use is forgotten by each flush. */
static void fetch_follows_flushes(void **state)
{
	void (*const flushes[])(struct cpu *) = {mmu_flush_all, mmu_flush_cr3};
	struct flat *f = two_pages(PTE_P, PTE_P);

	for (unsigned i = 0; i < 3; i++) {
		uint8_t buf[15];
		unsigned len;

		flat_map(f, ADDR, PAGE, PTE_P, PAGE_SIZE);
		mmu_flush_all(f->cpu);
		assert_int_equal(mmu_fetch(f->cpu, ADDR, buf, &len), RESULT_OK);
		assert_ptr_equal(tlb_fetch_hit(f->cpu, ADDR + 1), f->ram + PAGE + 1);
		flat_map(f, ADDR, OTHER, PTE_P, PAGE_SIZE);
		if (i < 2)
			flushes[i](f->cpu);
		else
			mmu_flush_page(f->cpu, ADDR);
		assert_null(tlb_fetch_hit(f->cpu, ADDR + 1));
	}
	flat_free(f);
}

static void non_canonical(void **state)
{
	struct flat *f = start(flat_long);
	uint64_t val;

	assert_int_equal(mmu_read(f->cpu, 0x0000800000000000, 1, &val), RESULT_FAULT);
	assert_int_equal(f->cpu->fault.vector, VEC_GP);
	assert_int_equal(mmu_read_sys(f->cpu, 0xffff7ffffffffff8, 8, &val), RESULT_FAULT);
	assert_int_equal(f->cpu->fault.vector, VEC_GP);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unpaged),
		cmocka_unit_test(pse36),
		cmocka_unit_test(pse_off_makes_a_table),
		cmocka_unit_test(large_pages),
		cmocka_unit_test(five_levels),
		cmocka_unit_test(reserved_long),
		cmocka_unit_test(reserved_huge),
		cmocka_unit_test(reserved_pae),
		cmocka_unit_test(reserved_32),
		cmocka_unit_test(precedence),
		cmocka_unit_test(pdptes_are_loaded_once),
		cmocka_unit_test(pdpte_reads_mapped),
		cmocka_unit_test(flushes),
		cmocka_unit_test(global_half_stays),
		cmocka_unit_test(global_needs_pge),
		cmocka_unit_test(flushes_large),
		cmocka_unit_test(generations_wrap),
		cmocka_unit_test(strides_do_not_collide),
		cmocka_unit_test(crossing_moves_bytes),
		cmocka_unit_test(crossing_where_addresses_carry),
		cmocka_unit_test(crossing_parts_need_no_alignment),
		cmocka_unit_test(crossing_faults),
		cmocka_unit_test(crossing_wraps),
		cmocka_unit_test(fetches),
		cmocka_unit_test(non_canonical),
		cmocka_unit_test(fetch_follows_flushes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
