/* SPDX-License-Identifier: MIT */
/* Accesses on the flat machine, and what is to come of them. */
#ifndef TESTS_UNIT_MMU_ACCESS_H
#define TESTS_UNIT_MMU_ACCESS_H

#include "flat.h"
#include "silicon/models/features.h"
#include "silicon/mmu/tlb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define ADDR  0x40000000ul
#define PAGE  FLAT_DATA
#define OTHER (FLAT_DATA + 0x1000)

static inline struct flat *start(void (*enter)(struct flat *))
{
	struct flat *f = flat_new(FLAT_RAM);

	enter(f);
	return f;
}

static inline void reads(struct flat *f, gva_t addr, unsigned size, uint64_t want)
{
	uint64_t val = ~want;

	assert_int_equal(mmu_read(f->cpu, addr, size, &val), RESULT_OK);
	assert_int_equal(val, want);
}

static inline void writes(struct flat *f, gva_t addr, unsigned size, uint64_t val)
{
	assert_int_equal(mmu_write(f->cpu, addr, size, val), RESULT_OK);
}

static inline void is_fault(struct flat *f, enum result r, gva_t addr, uint32_t error)
{
	assert_int_equal(r, RESULT_FAULT);
	assert_true(f->cpu->fault.valid);
	assert_int_equal(f->cpu->fault.vector, VEC_PF);
	assert_int_equal(f->cpu->fault.payload, addr);
	assert_int_equal(f->cpu->fault.error, error);
}

static inline void read_faults(struct flat *f, gva_t addr, uint32_t error)
{
	uint64_t val;

	is_fault(f, mmu_read(f->cpu, addr, 1, &val), addr, error);
}

static inline struct flat *two_pages(uint64_t first, uint64_t second)
{
	struct flat *f = start(flat_long);

	flat_map(f, ADDR, PAGE, first, PAGE_SIZE);
	flat_map(f, ADDR + PAGE_SIZE, OTHER + PAGE_SIZE, second, PAGE_SIZE);
	return f;
}

static inline bool touched(struct flat *f, gva_t addr)
{
	return flat_get_entry(f, addr, 1) & (PTE_A | PTE_D);
}

#endif
