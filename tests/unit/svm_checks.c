/* SPDX-License-Identifier: MIT */
/*
 * VMRUN's consistency checks against a second list, made from the APM's text and not from tables/svm_checks.def: for each
 * check a VMCB that just fails it and one that just does not. A VMCB starts as one that is entered; a case writes some
 * fields, at the APM's offsets. Every row of the table must have a case of both kinds.
 */
#include "flat.h"
#include "silicon/svm/svm_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <string.h>

#define WIDTH  40 /* MAXPHYADDR */
#define BEYOND (1ull << WIDTH)
#define AVIC   (1ull << 31)

struct set {
	uint16_t at;
	uint8_t size;
	uint64_t val;
};

struct one {
	const char *row;
	bool bad;
	struct set set[4];
};

/* clang-format off */
#define NPT	     {0x90, 8, 1}
#define LONG_OFF     {0x4d0, 8, 0x1000}
#define INT_CTL(v)   {0x60, 8, v}
#define INJECT(v)    {0xa8, 8, 0x80000000ull | (v)}

static const struct one cases[] = {
	{"VMRUN is not intercepted", true, {{0x10, 4, 0}}},
	{"VMRUN is not intercepted", true, {{0x10, 4, 0xfffffffe}}},
	{"VMRUN is not intercepted", false, {{0x10, 4, 1}}},
	{"ASID is 0", true, {{0x58, 4, 0}}},
	{"ASID is 0", false, {{0x58, 4, 0x8000}}},
	{"nested paging, which the processor lacks", true, {NPT, {0, 0, FEAT_NPT}}},
	{"nested paging, which the processor lacks", false, {{0x90, 8, 0}, {0, 0, FEAT_NPT}}},
	{"nCR3 beyond the physical addresses", true, {NPT, {0xb0, 8, BEYOND}}},
	{"nCR3 beyond the physical addresses", false, {NPT, {0xb0, 8, BEYOND - 0x1000}}},
	{"nCR3 beyond the physical addresses", false, {{0xb0, 8, BEYOND}}},
	{"MSR permission map beyond the physical addresses", true, {{0x48, 8, BEYOND - 0x1000}}},
	{"MSR permission map beyond the physical addresses", false, {{0x48, 8, BEYOND - 0x2000}}},
	{"MSR permission map beyond the physical addresses", false, {{0x48, 8, BEYOND - 0x2000 + 0xfff}}},
	{"I/O permission map beyond the physical addresses", true, {{0x40, 8, BEYOND - 0x2000}}},
	{"I/O permission map beyond the physical addresses", false, {{0x40, 8, BEYOND - 0x3000}}},
	{"virtual NMIs while NMIs are not intercepted", true, {INT_CTL(1 << 26)}},
	{"virtual NMIs while NMIs are not intercepted", false, {INT_CTL(1 << 26), {0x0c, 4, 2}}},
	{"AVIC without nested paging", true, {INT_CTL(AVIC)}},
	{"AVIC without nested paging", false, {INT_CTL(AVIC), NPT}},
	{"AVIC without nested paging", false, {INT_CTL(AVIC), {0, 0, FEAT_AVIC}}},
	{"AVIC: backing page beyond the physical addresses", true, {INT_CTL(AVIC), NPT, {0xe0, 8, BEYOND}}},
	{"AVIC: backing page beyond the physical addresses", false, {INT_CTL(AVIC), NPT, {0xe0, 8, BEYOND - 0x1000}}},
	{"AVIC: logical table beyond the physical addresses", true, {INT_CTL(AVIC), NPT, {0xf0, 8, BEYOND}}},
	{"AVIC: logical table beyond the physical addresses", false, {INT_CTL(AVIC), NPT, {0xf0, 8, BEYOND - 0x1000}}},
	{"AVIC: physical table beyond the physical addresses", true, {INT_CTL(AVIC), NPT, {0xf8, 8, BEYOND}}},
	{"AVIC: physical table beyond the physical addresses", false, {INT_CTL(AVIC), NPT, {0xf8, 8, BEYOND - 0x1000}}},
	{"AVIC: greatest index of the physical table", true, {INT_CTL(AVIC), NPT, {0xf8, 8, 0x100}}},
	{"AVIC: greatest index of the physical table", false, {INT_CTL(AVIC), NPT, {0xf8, 8, 0xff}}},
	{"event injection: reserved type", true, {INJECT(1 << 8)}},
	{"event injection: reserved type", true, {INJECT(5 << 8)}},
	{"event injection: reserved type", true, {INJECT(6 << 8)}},
	{"event injection: reserved type", true, {INJECT(7 << 8)}},
	{"event injection: reserved type", false, {INJECT(2 << 8)}},
	{"event injection: reserved type", false, {INJECT(4 << 8 | 0x80)}},
	{"event injection: reserved type", false, {{0xa8, 8, 7 << 8}}},
	{"event injection: no such exception", true, {INJECT(3 << 8 | 2)}},
	{"event injection: no such exception", true, {INJECT(3 << 8 | 32)}},
	{"event injection: no such exception", false, {INJECT(3 << 8 | 31)}},
	{"event injection: no such exception", false, {INJECT(0x20)}},
	{"EFER.SVME is 0", true, {{0x4d0, 8, 0x500}}},
	{"EFER.SVME is 0", false, {{0x4d0, 8, 0x1500}}},
	{"CR0.NW without CR0.CD", true, {{0x558, 8, 0xa0000011}}},
	{"CR0.NW without CR0.CD", false, {{0x558, 8, 0xe0000011}}},
	{"CR0.NW without CR0.CD", false, {{0x558, 8, 0xc0000011}}},
	{"CR0: upper half", true, {{0x558, 8, 0x180000011}}},
	{"CR0: upper half", false, {{0x558, 8, 0x80050033}}},
	{"DR6: upper half", true, {{0x568, 8, 0x100000000}}},
	{"DR6: upper half", false, {{0x568, 8, 0xffffffff}}},
	{"DR7: upper half", true, {{0x560, 8, 0x100000000}}},
	{"DR7: upper half", false, {{0x560, 8, 0xffffffff}}},
	{"EFER: reserved bits", true, {{0x4d0, 8, 0x1502}}},
	{"EFER: reserved bits", true, {{0x4d0, 8, 1ull << 63 | 0x1500}}},
	{"EFER: reserved bits", false, {{0x4d0, 8, 0x1501}}},
	{"CR4: reserved bits", true, {{0x548, 8, 1 << 24 | 0x20}}},
	{"CR4: reserved bits", false, {{0x548, 8, 0x6a0}}},
	{"long mode without CR4.PAE", true, {{0x548, 8, 0}}},
	{"long mode without CR4.PAE", false, {{0x548, 8, 0}, LONG_OFF}},
	{"long mode without CR4.PAE", false, {{0x548, 8, 0}, {0x558, 8, 0x11}}},
	{"long mode without CR0.PE", true, {{0x558, 8, 0x80000010}}},
	{"long mode without CR0.PE", false, {{0x558, 8, 0x80000010}, LONG_OFF}},
	{"CR3: reserved bits", true, {{0x550, 8, BEYOND}}},
	{"CR3: reserved bits", false, {{0x550, 8, BEYOND - 0x1000}}},
	{"CR3: reserved bits", false, {{0x550, 8, BEYOND}, LONG_OFF}},
	{"CS is both 64-bit and 32-bit", true, {{0x412, 2, 0xe9b}}},
	{"CS is both 64-bit and 32-bit", false, {{0x412, 2, 0xa9b}}},
	{"CS is both 64-bit and 32-bit", false, {{0x412, 2, 0xe9b}, LONG_OFF}},
};
/* clang-format on */

static const struct set enters[] = {
	{0x10, 4, 1},		{0x58, 4, 1},	   {0x412, 2, 0xa9b},
	{0x4d0, 8, 0x1500},	{0x548, 8, 0x20},  {0x550, 8, 0},
	{0x558, 8, 0x80000011}, {0x560, 8, 0x400}, {0x568, 8, 0xffff0ff0},
};

static struct flat *set_up(void)
{
	static const enum feature wanted[] = {FEAT_SVM, FEAT_NPT, FEAT_VNMI, FEAT_AVIC,
					      FEAT_SYSCALL};
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	f->cpu->maxphyaddr = WIDTH;
	f->cpu->cr4_reserved = ~0x7ffull;
	for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++) {
		feature_put(f->cpu->model_features, wanted[i], true);
		feature_put(f->cpu->guest_features, wanted[i], true);
	}
	return f;
}

/* Size 0: the feature is away. */
static void put(struct flat *f, struct vmcb *vmcb, const struct set *s)
{
	if (s->size)
		memcpy((uint8_t *)vmcb + s->at, &s->val, s->size);
	else if (s->val)
		feature_put(f->cpu->guest_features, s->val, false);
}

static const char *refused_by(const struct one *c)
{
	struct flat *f = set_up();
	struct vmcb vmcb = {0};
	struct svm_refusal why;

	for (unsigned i = 0; i < ARRAY_SIZE(enters); i++)
		put(f, &vmcb, &enters[i]);
	for (unsigned i = 0; c && i < ARRAY_SIZE(c->set); i++)
		put(f, &vmcb, &c->set[i]);
	why = svm_check_control(f->cpu, &vmcb.control);
	if (!why.name)
		why = svm_check_save(f->cpu, &vmcb.save);
	flat_free(f);
	return why.name;
}

static void test_enters(void **state)
{
	assert_null(refused_by(NULL));
}

/* Whatever is good here is good for all rows. */
static void test_cases(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct one *c = &cases[i];
		const char *name = refused_by(c);

		if (c->bad ? !name || strcmp(name, c->row) : !!name)
			fail_msg("case %u, %s: %s, refused by %s", i, c->row,
				 c->bad ? "bad" : "good", name ? name : "nothing");
	}
}

static bool listed(const char *row, bool bad)
{
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		if (!strcmp(cases[i].row, row) && cases[i].bad == bad)
			return true;
	return false;
}

static void test_every_row(void **state)
{
#define CONTROL(name, value, refused) name,
#define SAVE(name, value, refused)    name,
	static const char *const rows[] = {
#include "svm_checks.def"
	};
#undef CONTROL
#undef SAVE

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (!listed(rows[i], true) || !listed(rows[i], false))
			fail_msg("no case of %s", rows[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_enters),
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_every_row),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
