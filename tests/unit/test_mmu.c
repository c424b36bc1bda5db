/* SPDX-License-Identifier: MIT */
/*
 * silicon/mmu beyond rights: forms of page tables, reserved bits, flushes, page crossings, devices and ROM,
 * dirty log, host faults, breakpoints. Expected values are the SDM's and KVM's api.rst's.
 */
#include "flat.h"
#include "silicon/models/features.h"
#include "silicon/mmu/tlb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>

#define ADDR  0x40000000ul
#define PAGE  FLAT_DATA
#define OTHER (FLAT_DATA + 0x1000)

static struct flat *start(void (*enter)(struct flat *))
{
	struct flat *f = flat_new(FLAT_RAM);

	enter(f);
	return f;
}

static void reads(struct flat *f, gva_t addr, unsigned size, uint64_t want)
{
	uint64_t val = ~want;

	assert_int_equal(mmu_read(f->cpu, addr, size, &val), RESULT_OK);
	assert_int_equal(val, want);
}

static void writes(struct flat *f, gva_t addr, unsigned size, uint64_t val)
{
	assert_int_equal(mmu_write(f->cpu, addr, size, val), RESULT_OK);
}

static void is_fault(struct flat *f, enum result r, gva_t addr, uint32_t error)
{
	assert_int_equal(r, RESULT_FAULT);
	assert_true(f->cpu->fault.valid);
	assert_int_equal(f->cpu->fault.vector, VEC_PF);
	assert_int_equal(f->cpu->fault.payload, addr);
	assert_int_equal(f->cpu->fault.error, error);
}

static void read_faults(struct flat *f, gva_t addr, uint32_t error)
{
	uint64_t val;

	is_fault(f, mmu_read(f->cpu, addr, 1, &val), addr, error);
}

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

static struct flat *two_pages(uint64_t first, uint64_t second)
{
	struct flat *f = start(flat_long);

	flat_map(f, ADDR, PAGE, first, PAGE_SIZE);
	flat_map(f, ADDR + PAGE_SIZE, OTHER + PAGE_SIZE, second, PAGE_SIZE);
	return f;
}

static bool touched(struct flat *f, gva_t addr)
{
	return flat_get_entry(f, addr, 1) & (PTE_A | PTE_D);
}

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

/* ---- devices and ROM ---- */

static uint64_t low_byte(struct flat *f, gpa_t gpa, unsigned size)
{
	return 0x1111111111111111 * (f->nr_events + 1);
}

static void mmio_reads_replay(void **state)
{
	struct flat *f = start(flat_long);
	uint64_t val = 0;

	f->mmio_in = low_byte;
	assert_int_equal(mmu_read(f->cpu, FLAT_MMIO + 4, 4, &val), RESULT_EXIT);
	assert_int_equal(f->cpu->exit.kind, CPU_EXIT_MMIO_READ);
	assert_int_equal(f->cpu->exit.addr, FLAT_MMIO + 4);
	assert_int_equal(f->cpu->exit.size, 4);
	assert_true(flat_answer(f));
	reads(f, FLAT_MMIO + 4, 4, 0x11111111);
	assert_int_equal(mmu_read(f->cpu, FLAT_MMIO + 4, 4, &val), RESULT_EXIT);
	answers_reset(f->cpu);
	assert_int_equal(mmu_read(f->cpu, FLAT_MMIO + 4, 4, &val), RESULT_EXIT);
	flat_free(f);
}

/* Two reads of one instruction: the device in the process is read once although user space is asked later. */
static void mmio_reads_are_not_repeated(void **state)
{
	struct flat *f = start(flat_long);
	uint64_t val;

	f->mmio_in = low_byte;
	reads(f, FLAT_DEVICE, 8, 0x1111111111111111);
	assert_int_equal(mmu_read(f->cpu, FLAT_MMIO, 1, &val), RESULT_EXIT);
	assert_true(flat_answer(f));
	reads(f, FLAT_DEVICE, 8, 0x1111111111111111);
	reads(f, FLAT_MMIO, 1, 0x22);
	assert_int_equal(f->nr_events, 2);
	answers_reset(f->cpu);
	reads(f, FLAT_DEVICE, 8, 0x3333333333333333);
	f->cpu->rip++;
	reads(f, FLAT_DEVICE, 8, 0x4444444444444444);
	flat_free(f);
}

static void mmio_fragments(void **state)
{
	struct flat *f = two_pages(PTE_P | PTE_W, PTE_P | PTE_W);
	uint8_t buf[20] = {0};

	f->mmio_in = low_byte;
	flat_map(f, ADDR + PAGE_SIZE, FLAT_MMIO, PTE_P | PTE_W, PAGE_SIZE);
	flat_poke(f, PAGE + 0xffc, 0xaabbccdd, 4);
	assert_int_equal(mmu_read_bytes(f->cpu, ADDR + 0xffc, buf, 20), RESULT_EXIT);
	assert_int_equal(f->cpu->exit.addr, FLAT_MMIO);
	assert_int_equal(f->cpu->exit.size, 8);
	assert_true(flat_answer(f));
	assert_int_equal(mmu_read_bytes(f->cpu, ADDR + 0xffc, buf, 20), RESULT_EXIT);
	assert_int_equal(f->cpu->exit.addr, FLAT_MMIO + 8);
	assert_true(flat_answer(f));
	assert_int_equal(mmu_read_bytes(f->cpu, ADDR + 0xffc, buf, 20), RESULT_OK);
	assert_memory_equal(buf, "\xdd\xcc\xbb\xaa\x11\x11\x11\x11\x11\x11\x11\x11\x22\x22", 14);
	assert_int_equal(mmu_write(f->cpu, ADDR + 0xffe, 8, 0x8877665544332211), RESULT_OK);
	assert_int_equal(flat_peek(f, PAGE + 0xffe, 2), 0x2211);
	assert_int_equal(f->cpu->out.nr, 1);
	assert_int_equal(f->cpu->out.v[0].addr, FLAT_MMIO);
	assert_int_equal(f->cpu->out.v[0].size, 6);
	assert_int_equal(f->cpu->out.v[0].data, 0x887766554433);
	flat_free(f);
}

static void mmio_write_kinds(void **state)
{
	struct flat *f = start(flat_long);
	uint8_t buf[MAX_WRITES * 8 + 1] = {0};

	writes(f, FLAT_MMIO + 2, 2, 0xfffff1234);
	assert_int_equal(f->cpu->out.nr, 1);
	assert_false(f->cpu->out.v[0].is_port);
	assert_int_equal(f->cpu->out.v[0].size, 2);
	assert_int_equal(f->cpu->out.v[0].data, 0x1234);
	writes(f, FLAT_DEVICE, 4, 5);
	assert_int_equal(f->cpu->out.nr, 1);
	assert_int_equal(f->nr_events, 1);
	assert_int_equal(f->events[0].data, 5);
	answers_reset(f->cpu);
	assert_int_equal(mmu_write_bytes(f->cpu, FLAT_MMIO, buf, sizeof(buf)), RESULT_EXIT);
	assert_int_equal(f->cpu->exit.kind, CPU_EXIT_EMULATION);
	assert_int_equal(f->cpu->out.nr, 0);
	flat_free(f);
}

static void rom_reads_and_reports_writes(void **state)
{
	struct flat *f = start(flat_long);
	uint8_t *ptr;

	f->rom[8] = 0x42;
	reads(f, FLAT_ROM + 8, 1, 0x42);
	writes(f, FLAT_ROM + 8, 1, 0x43);
	assert_int_equal(f->rom[8], 0x42);
	assert_int_equal(f->cpu->out.nr, 1);
	assert_int_equal(f->cpu->out.v[0].addr, FLAT_ROM + 8);
	assert_non_null(tlb_hit_read(f->cpu, FLAT_ROM, 8));
	assert_null(tlb_hit_write(f->cpu, FLAT_ROM, 8));
	assert_int_equal(mmu_pointer(f->cpu, FLAT_ROM, 8, ACCESS_READ, &ptr), RESULT_OK);
	assert_ptr_equal(ptr, f->rom);
	assert_int_equal(mmu_pointer(f->cpu, FLAT_ROM, 8, ACCESS_RMW, &ptr), RESULT_OK);
	assert_null(ptr);
	flat_free(f);
}

/* Tables in ROM: A and D stay as they are; tables outside of RAM: not present. */
static void tables_outside_ram(void **state)
{
	struct flat *f = start(flat_long);
	uint64_t pte = PAGE | PTE_P | PTE_W;

	flat_map(f, ADDR, PAGE, PTE_P, PAGE_SIZE);
	memcpy(f->rom, &pte, 8);
	flat_set_entry(f, ADDR, 2, FLAT_ROM | PTE_P | PTE_W);
	writes(f, ADDR, 4, 9);
	assert_int_equal(flat_peek(f, PAGE, 4), 9);
	assert_memory_equal(f->rom, &pte, 8);
	assert_null(tlb_hit_write(f->cpu, ADDR, 4));
	flat_set_entry(f, ADDR, 2, FLAT_MMIO | PTE_P | PTE_W);
	mmu_flush_page(f->cpu, ADDR);
	read_faults(f, ADDR, 0);
	flat_free(f);
}

static void pointers(void **state)
{
	struct flat *f = two_pages(PTE_P | PTE_W, PTE_P);
	uint8_t *ptr;

	assert_int_equal(mmu_pointer(f->cpu, ADDR + 64, 64, ACCESS_RMW, &ptr), RESULT_OK);
	assert_ptr_equal(ptr, f->ram + PAGE + 64);
	assert_true(flat_get_entry(f, ADDR, 1) & PTE_D);
	assert_int_equal(mmu_pointer(f->cpu, ADDR + 0xff8, 16, ACCESS_READ, &ptr), RESULT_OK);
	assert_null(ptr);
	is_fault(f, mmu_pointer(f->cpu, ADDR + PAGE_SIZE, 8, ACCESS_WRITE, &ptr), ADDR + PAGE_SIZE,
		 PFERR_P | PFERR_W);
	assert_int_equal(mmu_pointer(f->cpu, FLAT_MMIO, 8, ACCESS_READ, &ptr), RESULT_OK);
	assert_null(ptr);
	flat_free(f);
}

static void compare_exchange(void **state)
{
	struct flat *f = start(flat_long);
	uint64_t old = 7;

	flat_poke(f, PAGE + 0xffc, 7, 8);
	assert_int_equal(mmu_cmpxchg_sys(f->cpu, PAGE + 0xffc, 4, &old, 9), RESULT_OK);
	assert_int_equal(old, 7);
	assert_int_equal(flat_peek(f, PAGE + 0xffc, 4), 9);
	assert_int_equal(mmu_cmpxchg_sys(f->cpu, PAGE + 0xffc, 4, &old, 1), RESULT_OK);
	assert_int_equal(old, 9);
	assert_int_equal(mmu_cmpxchg_sys(f->cpu, PAGE + 0xffc, 8, &old, 0x1122334455), RESULT_OK);
	assert_int_equal(old, 9);
	assert_int_equal(flat_peek(f, PAGE + 0xffc, 8), 0x1122334455);
	flat_free(f);
}

/* ---- dirty log ---- */

static unsigned marked(const struct flat *f, gpa_t gpa)
{
	return f->marked[gpa >> PAGE_SHIFT];
}

static unsigned marked_all(const struct flat *f)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < FLAT_MAX_PAGES; i++)
		sum += f->marked[i];
	return sum;
}

static void dirty_log_is_exact(void **state)
{
	struct flat *f = start(flat_prot32);

	f->log = true;
	reads(f, PAGE, 4, 0);
	assert_int_equal(mmu_probe(f->cpu, PAGE, 4, ACCESS_WRITE), RESULT_OK);
	assert_int_equal(marked_all(f), 0);
	writes(f, PAGE + 8, 4, 1);
	writes(f, PAGE + 16, 4, 1);
	assert_int_equal(marked(f, PAGE), 1);
	assert_int_equal(marked_all(f), 1);
	mmu_flush_writes(f->cpu);
	reads(f, PAGE, 4, 0);
	assert_int_equal(marked_all(f), 1);
	writes(f, PAGE + 24, 4, 1);
	assert_int_equal(marked_all(f), 2);
	writes(f, PAGE + 0xffe, 4, 1);
	assert_int_equal(marked(f, OTHER), 1);
	assert_int_equal(marked_all(f), marked(f, PAGE) + marked(f, OTHER));
	flat_free(f);
}

/* Neither a read nor a fetch leaves a way to write unnoticed. */
static void dirty_log_after_reads(void **state)
{
	struct flat *f = start(flat_prot32);
	uint8_t buf[15];
	unsigned len;

	f->log = true;
	reads(f, PAGE, 4, 0);
	writes(f, PAGE, 4, 0);
	assert_int_equal(marked(f, PAGE), 1);
	assert_int_equal(mmu_fetch(f->cpu, OTHER, buf, &len), RESULT_OK);
	writes(f, OTHER, 4, 0);
	assert_int_equal(marked(f, OTHER), 1);
	flat_free(f);
}

/* The walker's own writes count: A bits in each table, but a fault writes nothing. */
static void dirty_log_sees_walks(void **state)
{
	struct flat *f = two_pages(PTE_P, PTE_P);
	gpa_t pml4e = flat_entry(f, ADDR, 4), pte = flat_entry(f, ADDR, 1);

	f->log = true;
	mmu_flush_all(f->cpu);
	is_fault(f, mmu_write(f->cpu, ADDR, 4, 0), ADDR, PFERR_P | PFERR_W);
	assert_int_equal(marked_all(f), 0);
	reads(f, ADDR, 4, 0);
	assert_int_equal(marked(f, pml4e), 1);
	assert_int_equal(marked(f, pte), 1);
	assert_int_equal(marked(f, PAGE), 0);
	mmu_flush_all(f->cpu);
	reads(f, ADDR, 4, 0);
	assert_int_equal(marked(f, pte), 1);
	flat_free(f);
}

/* A page read first: the D bit is set by the first write, and only then do writes hit. */
static void d_before_write_tag(void **state)
{
	struct flat *f = two_pages(PTE_P | PTE_W, PTE_P);

	reads(f, ADDR, 4, 0);
	assert_non_null(tlb_hit_read(f->cpu, ADDR, 4));
	assert_null(tlb_hit_write(f->cpu, ADDR, 4));
	assert_false(flat_get_entry(f, ADDR, 1) & PTE_D);
	writes(f, ADDR, 4, 1);
	assert_true(flat_get_entry(f, ADDR, 1) & PTE_D);
	assert_non_null(tlb_hit_write(f->cpu, ADDR, 4));
	assert_non_null(tlb_hit_read(f->cpu, ADDR, 4));
	flat_free(f);
}

static void debug_walks_leave_no_trace(void **state)
{
	struct flat *f = two_pages(PTE_P | PTE_U, 0);
	uint32_t flags;
	gpa_t gpa;

	f->cpu->fault.valid = false;
	assert_true(mmu_translate_debug(f->cpu, ADDR + 5, &gpa, &flags));
	assert_int_equal(gpa, PAGE + 5);
	assert_int_equal(flags, PFERR_U);
	assert_false(touched(f, ADDR));
	assert_false(mmu_translate_debug(f->cpu, ADDR + PAGE_SIZE, &gpa, &flags));
	assert_false(f->cpu->fault.valid);
	flat_free(f);
}

/* Another processor changes the PTE between its reading and the setting of D: the walk starts anew. */
static void change_entry(struct flat *f, gpa_t gpa)
{
	f->on_mark = NULL;
	flat_set_entry(f, ADDR, 1, OTHER | PTE_P | PTE_W);
}

static void walk_loses_a_race(void **state)
{
	struct flat *f = two_pages(PTE_P | PTE_W | PTE_A, PTE_P);

	reads(f, ADDR, 4, 0);
	f->log = true;
	mmu_flush_all(f->cpu);
	f->on_mark = change_entry;
	writes(f, ADDR, 4, 0x77);
	assert_int_equal(flat_get_entry(f, ADDR, 1), OTHER | PTE_P | PTE_W | PTE_A | PTE_D);
	assert_int_equal(flat_peek(f, PAGE, 4), 0);
	assert_int_equal(flat_peek(f, OTHER, 4), 0x77);
	flat_free(f);
}

/* ---- slots ---- */

static void slots_change(void **state)
{
	struct flat *f = start(flat_prot32);
	uint64_t val;

	reads(f, 0xf00000, 4, 0);
	f->ram_size = 0xf00000;
	mmu_flush_all(f->cpu);
	assert_int_equal(mmu_read(f->cpu, 0xf00000, 4, &val), RESULT_EXIT);
	assert_int_equal(f->cpu->exit.kind, CPU_EXIT_MMIO_READ);
	f->ram_size = FLAT_RAM;
	mmu_flush_all(f->cpu);
	reads(f, 0xf00000, 4, 0);
	flat_free(f);
}

/* The debugger comes before the flush that a new slot asked for is served. */
static void slots_change_before_debugger(void **state)
{
	struct flat *f = start(flat_long);
	uint32_t flags;
	gpa_t gpa;

	f->ram_size = 0;
	assert_false(mmu_translate_debug(f->cpu, PAGE, &gpa, &flags));
	f->ram_size = FLAT_RAM;
	assert_true(mmu_translate_debug(f->cpu, PAGE, &gpa, &flags));
	flat_free(f);
}

/* ---- host faults ---- */

static void memory_taken_away(void **state)
{
	struct flat *f = start(flat_long);
	uint64_t val = 5;

	reads(f, PAGE, 8, 0);
	writes(f, PAGE, 8, 1);
	mprotect(f->ram + PAGE, PAGE_SIZE, PROT_NONE);
	assert_int_equal(mmu_read(f->cpu, PAGE, 8, &val), RESULT_EXIT);
	assert_int_equal(f->cpu->exit.kind, CPU_EXIT_MEMORY);
	assert_int_equal(val, 5);
	f->cpu->exit.kind = CPU_EXIT_NONE;
	mmu_flush_all(f->cpu);
	assert_int_equal(mmu_write(f->cpu, PAGE, 8, 7), RESULT_EXIT);
	assert_int_equal(f->cpu->exit.kind, CPU_EXIT_MEMORY);
	mprotect(f->ram + PAGE, PAGE_SIZE, PROT_READ | PROT_WRITE);
	reads(f, PAGE, 8, 1);
	flat_free(f);
}

static void tables_taken_away(void **state)
{
	struct flat *f = start(flat_long);
	gpa_t table = f->cpu->cr3;
	uint64_t val;

	mprotect(f->ram + table, PAGE_SIZE, PROT_NONE);
	assert_int_equal(mmu_read(f->cpu, PAGE, 8, &val), RESULT_EXIT);
	assert_int_equal(f->cpu->exit.kind, CPU_EXIT_MEMORY);
	mprotect(f->ram + table, PAGE_SIZE, PROT_READ);
	assert_int_equal(mmu_read(f->cpu, PAGE, 8, &val), RESULT_EXIT);
	assert_int_equal(f->cpu->exit.kind, CPU_EXIT_MEMORY);
	mprotect(f->ram + table, PAGE_SIZE, PROT_READ | PROT_WRITE);
	reads(f, PAGE, 8, 0);
	flat_free(f);
}

/* ---- alignment checks and data breakpoints ---- */

static void alignment(void **state)
{
	struct flat *f = start(flat_long);
	uint64_t val;
	uint8_t *ptr;

	flat_user(f);
	reads(f, PAGE + 1, 4, 0);
	cpu_set_rflags(f->cpu, FLAG_AC);
	reads(f, PAGE + 1, 4, 0);
	flat_set_cr0(f, f->cpu->cr0 | CR0_AM);
	assert_int_equal(mmu_read(f->cpu, PAGE + 1, 4, &val), RESULT_FAULT);
	assert_int_equal(f->cpu->fault.vector, VEC_AC);
	assert_true(f->cpu->fault.has_error);
	assert_int_equal(f->cpu->fault.error, 0);
	assert_int_equal(mmu_write(f->cpu, PAGE + 4, 8, 0), RESULT_FAULT);
	assert_int_equal(mmu_pointer(f->cpu, PAGE + 1, 2, ACCESS_READ, &ptr), RESULT_FAULT);
	reads(f, PAGE + 1, 1, 0);
	reads(f, PAGE + 8, 8, 0);
	assert_int_equal(mmu_read_sys(f->cpu, PAGE + 1, 4, &val), RESULT_OK);
	cpu_set_rflags(f->cpu, 0);
	reads(f, PAGE + 1, 4, 0);
	flat_free(f);
}

static void arm(struct flat *f, unsigned n, gva_t addr, unsigned type, unsigned len, bool enable)
{
	f->cpu->dr[n] = addr;
	f->cpu->dr7 |= (uint64_t)type << (16 + 4 * n) | (uint64_t)len << (18 + 4 * n) |
		       (uint64_t)enable << 2 * n;
	mmu_update_mode(f->cpu);
}

static uint64_t take_dr6(struct flat *f)
{
	uint64_t dr6 = f->cpu->pending_dr6;

	assert_int_equal(!!(f->cpu->attention & ATTN_DEBUG), !!dr6);
	f->cpu->pending_dr6 = 0;
	cpu_update_attention(f->cpu);
	return dr6;
}

static void data_breakpoints(void **state)
{
	struct flat *f = start(flat_long);
	uint8_t *ptr;

	writes(f, PAGE, 8, 0);
	arm(f, 0, PAGE + 0x100, 1, 3, true);
	arm(f, 1, PAGE + 0x200, 3, 0, true);
	arm(f, 2, PAGE + 0x102, 3, 1, false);
	reads(f, PAGE + 0x100, 2, 0);
	assert_int_equal(take_dr6(f), 0);
	writes(f, PAGE + 0xfe, 2, 0);
	assert_int_equal(take_dr6(f), 0);
	writes(f, PAGE + 0xfe, 4, 0);
	assert_int_equal(take_dr6(f), 1);
	writes(f, PAGE + 0x103, 1, 0);
	assert_int_equal(take_dr6(f), 1 | 4);
	reads(f, PAGE + 0x1f9, 8, 0);
	assert_int_equal(take_dr6(f), 2);
	assert_int_equal(mmu_probe(f->cpu, PAGE + 0x200, 1, ACCESS_RMW), RESULT_OK);
	assert_int_equal(take_dr6(f), 0);
	assert_int_equal(mmu_pointer(f->cpu, PAGE + 0x200, 1, ACCESS_RMW, &ptr), RESULT_OK);
	assert_int_equal(take_dr6(f), 2);
	f->cpu->dr7 = DR7_FIXED_1;
	mmu_update_mode(f->cpu);
	reads(f, PAGE + 0x200, 1, 0);
	assert_int_equal(take_dr6(f), 0);
	assert_non_null(tlb_hit_read(f->cpu, PAGE, 1));
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
		cmocka_unit_test(crossing_parts_need_no_alignment),
		cmocka_unit_test(crossing_faults),
		cmocka_unit_test(crossing_wraps),
		cmocka_unit_test(fetches),
		cmocka_unit_test(non_canonical),
		cmocka_unit_test(mmio_reads_replay),
		cmocka_unit_test(mmio_reads_are_not_repeated),
		cmocka_unit_test(mmio_fragments),
		cmocka_unit_test(mmio_write_kinds),
		cmocka_unit_test(rom_reads_and_reports_writes),
		cmocka_unit_test(tables_outside_ram),
		cmocka_unit_test(pointers),
		cmocka_unit_test(compare_exchange),
		cmocka_unit_test(dirty_log_is_exact),
		cmocka_unit_test(dirty_log_after_reads),
		cmocka_unit_test(dirty_log_sees_walks),
		cmocka_unit_test(walk_loses_a_race),
		cmocka_unit_test(slots_change),
		cmocka_unit_test(slots_change_before_debugger),
		cmocka_unit_test(fetch_follows_flushes),
		cmocka_unit_test(d_before_write_tag),
		cmocka_unit_test(debug_walks_leave_no_trace),
		cmocka_unit_test(memory_taken_away),
		cmocka_unit_test(tables_taken_away),
		cmocka_unit_test(alignment),
		cmocka_unit_test(data_breakpoints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
