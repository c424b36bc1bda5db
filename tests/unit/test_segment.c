/* SPDX-License-Identifier: MIT */
/* seg_linear(): limits, types and canonical checks, from the SDM's chapters on protection and IA-32e mode. */
#include "flat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define DATA_RO	 (SEG_P | SEG_S | SEG_A)
#define DATA_RW	 (DATA_RO | SEG_W)
#define CODE_X	 (SEG_P | SEG_S | SEG_A | SEG_CODE)
#define CODE_RX	 (CODE_X | SEG_W)
#define DOWN	 (DATA_RW | SEG_E)
#define DOWN_BIG (DOWN | SEG_DB)
#define NO_FAULT 0xff

struct limit_case {
	uint32_t attr, limit;
	uint64_t off;
	uint32_t size;
	uint8_t op;
	bool ok;
};

static const struct limit_case limits[] = {
	{DATA_RW, 0xfff, 0xfff, 1, ACCESS_READ, true},
	{DATA_RW, 0xfff, 0x1000, 1, ACCESS_READ, false},
	{DATA_RW, 0xfff, 0xffe, 2, ACCESS_WRITE, true},
	{DATA_RW, 0xfff, 0xfff, 2, ACCESS_WRITE, false},
	{DATA_RW, 0xffffffff, 0xffffffff, 1, ACCESS_READ, true},
	{DATA_RW, 0xffffffff, 0xffffffff, 2, ACCESS_READ, false},
	{DATA_RW, 0, 0, 1, ACCESS_READ, true},
	{DATA_RW, 0, 0, 2, ACCESS_READ, false},
	/* Expand down: the limit itself is outside; D/B is the upper bound. */
	{DOWN, 0xfff, 0xfff, 1, ACCESS_READ, false},
	{DOWN, 0xfff, 0x1000, 1, ACCESS_READ, true},
	{DOWN, 0xfff, 0xffff, 1, ACCESS_READ, true},
	{DOWN, 0xfff, 0xffff, 2, ACCESS_READ, false},
	{DOWN, 0xfff, 0x10000, 1, ACCESS_READ, false},
	{DOWN, 0xffff, 0xffff, 1, ACCESS_READ, false},
	{DOWN_BIG, 0xfff, 0x10000, 4, ACCESS_WRITE, true},
	{DOWN_BIG, 0xfff, 0xfffffffc, 4, ACCESS_WRITE, true},
	{DOWN_BIG, 0xfff, 0xfffffffd, 4, ACCESS_WRITE, false},
	/* Types. */
	{DATA_RO, 0xfff, 0, 1, ACCESS_READ, true},
	{DATA_RO, 0xfff, 0, 1, ACCESS_WRITE, false},
	{DATA_RO, 0xfff, 0, 1, ACCESS_RMW, false},
	{CODE_RX, 0xfff, 0, 1, ACCESS_READ, true},
	{CODE_RX, 0xfff, 0, 1, ACCESS_WRITE, false},
	{CODE_X, 0xfff, 0, 1, ACCESS_READ, false},
	{CODE_X, 0xfff, 0, 1, ACCESS_FETCH, true},
	{CODE_X, 0xfff, 0x1000, 1, ACCESS_FETCH, false},
	/* Conforming code is no expand-down data. */
	{CODE_RX | SEG_E, 0xfff, 0, 1, ACCESS_READ, true},
	{DATA_RW | SEG_UNUSABLE, 0xffffffff, 0, 1, ACCESS_READ, false},
};

static uint8_t vector_of(struct flat *f, enum result r)
{
	if (r == RESULT_OK)
		return NO_FAULT;
	assert_int_equal(r, RESULT_FAULT);
	assert_true(f->cpu->fault.has_error);
	assert_int_equal(f->cpu->fault.error, 0);
	return f->cpu->fault.vector;
}

static void limit_and_type(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_prot32(f);
	for (unsigned i = 0; i < ARRAY_SIZE(limits); i++) {
		const struct limit_case *c = &limits[i];
		gva_t addr = 0;

		for (enum seg_id id = SEG_SS; id <= SEG_FS; id++) {
			uint8_t want = c->ok ? NO_FAULT : id == SEG_SS ? VEC_SS : VEC_GP;

			f->cpu->seg[id] = (struct segment){0x1000, c->limit, c->attr, 8};
			assert_int_equal(
				vector_of(f, seg_linear(f->cpu, id, c->off, c->size, c->op, &addr)),
				want);
			if (c->ok)
				assert_int_equal(addr, (uint32_t)(c->off + 0x1000));
		}
	}
	flat_free(f);
}

static void without_types(struct flat *f)
{
	gva_t addr;

	assert_int_equal(seg_linear(f->cpu, SEG_CS, 0x10, 2, ACCESS_WRITE, &addr), RESULT_OK);
	f->cpu->seg[SEG_ES].base = 0xffff0;
	assert_int_equal(seg_linear(f->cpu, SEG_ES, 0xfffe, 2, ACCESS_WRITE, &addr), RESULT_OK);
	assert_int_equal(addr, 0xffff0 + 0xfffe);
	assert_int_equal(vector_of(f, seg_linear(f->cpu, SEG_ES, 0xffff, 2, ACCESS_READ, &addr)),
			 VEC_GP);
	assert_int_equal(vector_of(f, seg_linear(f->cpu, SEG_SS, 0xffff, 2, ACCESS_READ, &addr)),
			 VEC_SS);
}

/* Real and virtual-8086 mode: 64 KiB by the cached limit, code may be written. */
static void real_and_v86(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	gva_t addr;

	flat_real(f);
	without_types(f);
	f->cpu->seg[SEG_DS].limit = 0xffffffff;
	assert_int_equal(seg_linear(f->cpu, SEG_DS, 0x100000, 4, ACCESS_READ, &addr), RESULT_OK);
	assert_int_equal(addr, 0x100000);
	flat_prot32(f);
	for (enum seg_id id = SEG_ES; id <= SEG_GS; id++)
		f->cpu->seg[id] = (struct segment){0, 0xffff, 0xf3, 0};
	cpu_set_rflags(f->cpu, FLAG_VM);
	assert_true(f->cpu->mode.v86);
	assert_int_equal(f->cpu->mode.cpl, 3);
	without_types(f);
	flat_free(f);
}

static void long_mode(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	struct cpu *cpu = f->cpu;
	gva_t addr;

	flat_long(f);
	for (enum seg_id id = SEG_ES; id <= SEG_GS; id++)
		cpu->seg[id].base = 0x1000;
	cpu->seg[SEG_DS].attr = SEG_UNUSABLE;
	cpu->seg[SEG_DS].limit = 0;
	assert_int_equal(seg_linear(cpu, SEG_DS, 0x123456789, 8, ACCESS_WRITE, &addr), RESULT_OK);
	assert_int_equal(addr, 0x123456789);
	assert_int_equal(seg_linear(cpu, SEG_GS, 0x123456789, 8, ACCESS_WRITE, &addr), RESULT_OK);
	assert_int_equal(addr, 0x123457789);
	assert_int_equal(seg_linear(cpu, SEG_FS, -0x2000ul, 8, ACCESS_READ, &addr), RESULT_OK);
	assert_int_equal(addr, -0x1000ul);
	assert_int_equal(
		vector_of(f, seg_linear(cpu, SEG_DS, 0x7ffffffffff8, 8, ACCESS_READ, &addr)),
		NO_FAULT);
	assert_int_equal(
		vector_of(f, seg_linear(cpu, SEG_DS, 0x7ffffffffff9, 8, ACCESS_READ, &addr)),
		VEC_GP);
	assert_int_equal(vector_of(f, seg_linear(cpu, SEG_SS, 1ul << 63, 8, ACCESS_READ, &addr)),
			 VEC_SS);
	assert_int_equal(
		vector_of(f, seg_linear(cpu, SEG_FS, 0x7fffffffffff, 1, ACCESS_READ, &addr)),
		VEC_GP);
	cpu->cr4 |= CR4_LA57;
	assert_int_equal(
		vector_of(f, seg_linear(cpu, SEG_DS, 0x800000000000, 8, ACCESS_READ, &addr)),
		NO_FAULT);
	assert_int_equal(vector_of(f, seg_linear(cpu, SEG_DS, BIT(56), 8, ACCESS_READ, &addr)),
			 VEC_GP);
	flat_free(f);
}

static void compatibility_mode(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	gva_t addr;

	flat_compat(f);
	assert_true(f->cpu->mode.lma);
	assert_int_equal(f->cpu->mode.code, CODE_32);
	f->cpu->seg[SEG_DS].base = 0xfffff000;
	assert_int_equal(seg_linear(f->cpu, SEG_DS, 0x2000, 4, ACCESS_READ, &addr), RESULT_OK);
	assert_int_equal(addr, 0x1000);
	f->cpu->seg[SEG_ES].attr |= SEG_UNUSABLE;
	assert_int_equal(vector_of(f, seg_linear(f->cpu, SEG_ES, 0, 1, ACCESS_READ, &addr)),
			 VEC_GP);
	flat_free(f);
}

static void access_through_segment(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	uint64_t val = 0;

	flat_prot32(f);
	f->cpu->seg[SEG_FS].base = FLAT_DATA;
	assert_int_equal(seg_write(f->cpu, SEG_FS, 0x10, 4, 0xcafe), RESULT_OK);
	assert_int_equal(flat_peek(f, FLAT_DATA + 0x10, 4), 0xcafe);
	assert_int_equal(seg_read(f->cpu, SEG_FS, 0x10, 2, &val), RESULT_OK);
	assert_int_equal(val, 0xcafe);
	f->cpu->seg[SEG_FS].limit = 0x10;
	assert_int_equal(seg_read(f->cpu, SEG_FS, 0x10, 2, &val), RESULT_FAULT);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limit_and_type),
		cmocka_unit_test(real_and_v86),
		cmocka_unit_test(long_mode),
		cmocka_unit_test(compatibility_mode),
		cmocka_unit_test(access_through_segment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
