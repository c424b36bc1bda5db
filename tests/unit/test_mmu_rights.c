/* SPDX-License-Identifier: MIT */
/*
 * Page rights: every combination of R/W, U/S and XD in the last two levels, WP, SMEP, SMAP, NXE, AC, CPL and kind of
 * access, under 32-bit, PAE and 4-level paging.
 *
 * What is expected is the SDM's prose on access rights ("determination of access rights"), put down
 * sentence by sentence and without looking at walk.c. Each case is tried on an empty TLB and with a translation
 * that another access left there.
 */
#include "flat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define ADDR 0x40001230ul
#define PAGE FLAT_DATA

enum kind { READ, WRITE, FETCH, SYS_READ, SYS_WRITE, NR_KINDS };

struct entry {
	bool w, u, nx;
};

struct env {
	bool is_32, wp, smep, smap, nxe, ac, user;
};

#define ALLOWED (-1)

/* "Supervisor-mode accesses", data: SMAP and WP. */
static bool supervisor_data(const struct env *e, bool user_addr, bool writable, bool write,
			    bool implicit)
{
	if (user_addr && e->smap) {
		if (implicit)
			return false;
		if (!e->ac)
			return false;
	}
	if (!write)
		return true;
	if (!e->wp)
		return true;
	return writable;
}

/* "Instruction fetches". */
static bool may_fetch(const struct env *e, bool user_access, bool user_addr, bool nx)
{
	bool has_nx = !e->is_32 && e->nxe;

	if (user_access && !user_addr)
		return false;
	if (!user_access && user_addr && e->smep)
		return false;
	return !(has_nx && nx);
}

static bool allowed(const struct env *e, const struct entry pde, const struct entry pte,
		    enum kind kind)
{
	bool user_addr = pde.u && pte.u;
	bool writable = pde.w && pte.w;
	bool implicit = kind == SYS_READ || kind == SYS_WRITE;
	bool write = kind == WRITE || kind == SYS_WRITE;

	if (kind == FETCH)
		return may_fetch(e, e->user, user_addr, pde.nx || pte.nx);
	if (!e->user || implicit)
		return supervisor_data(e, user_addr, writable, write, implicit);
	return user_addr && (!write || writable);
}

/* Error code of the page fault, or ALLOWED: "page-fault exceptions". */
static int expected(const struct env *e, const struct entry pde, const struct entry pte,
		    enum kind kind)
{
	bool implicit = kind == SYS_READ || kind == SYS_WRITE;
	bool reserved = !e->is_32 && !e->nxe && (pde.nx || pte.nx);
	int code = 1;

	if (!reserved && allowed(e, pde, pte, kind))
		return ALLOWED;
	if (kind == WRITE || kind == SYS_WRITE)
		code |= 2;
	if (e->user && !implicit)
		code |= 4;
	if (reserved)
		code |= 8;
	if (kind == FETCH && (e->smep || (!e->is_32 && e->nxe)))
		code |= 16;
	return code;
}

static enum result do_access(struct cpu *cpu, enum kind kind)
{
	uint8_t buf[15];
	unsigned len;
	uint64_t val;

	switch (kind) {
	case READ:
		return mmu_read(cpu, ADDR, 4, &val);
	case WRITE:
		return mmu_write(cpu, ADDR, 4, 1);
	case FETCH:
		return mmu_fetch(cpu, ADDR, buf, &len);
	case SYS_READ:
		return mmu_read_sys(cpu, ADDR, 4, &val);
	default:
		return mmu_write_sys(cpu, ADDR, 4, 1);
	}
}

static void set_env(struct flat *f, const struct env *e)
{
	struct cpu *cpu = f->cpu;
	uint64_t cr4 = cpu->cr4 & ~(CR4_SMEP | CR4_SMAP);

	cpu->seg[SEG_SS].attr = (cpu->seg[SEG_SS].attr & ~0x60u) | (e->user ? 0x60 : 0);
	cpu->sflags = e->ac ? FLAG_AC : 0;
	cpu->cr0 = (cpu->cr0 & ~CR0_WP) | (e->wp ? CR0_WP : 0);
	cpu->cr4 = cr4 | (e->smep ? CR4_SMEP : 0) | (e->smap ? CR4_SMAP : 0);
	cpu->msr.efer = (cpu->msr.efer & ~EFER_NX) | (e->nxe ? EFER_NX : 0);
	cpu_update_mode(cpu);
	mmu_update_mode(cpu);
}

static uint64_t entry_bits(const struct env *e, struct entry x)
{
	return PTE_P | (x.w ? PTE_W : 0) | (x.u ? PTE_U : 0) | (x.nx && !e->is_32 ? PTE_NX : 0);
}

struct tables {
	struct flat *f;
	uint64_t pde_addr, pte_addr;
};

static void put(struct tables *t, const struct env *e, struct entry pde, struct entry pte)
{
	flat_set_entry(t->f, ADDR, 2, t->pde_addr | entry_bits(e, pde));
	flat_set_entry(t->f, ADDR, 1, t->pte_addr | entry_bits(e, pte));
}

static void check_result(struct tables *t, enum kind kind, int want, enum result got)
{
	const struct event *fault = &t->f->cpu->fault;

	if (want == ALLOWED) {
		assert_int_equal(got, RESULT_OK);
		return;
	}
	assert_int_equal(got, RESULT_FAULT);
	assert_int_equal(fault->vector, VEC_PF);
	assert_int_equal(fault->error, want);
	assert_true(fault->has_payload);
	assert_int_equal(fault->payload, ADDR);
}

/* A at each level used and D on the leaf only, for accesses that were made. */
static void check_bits(struct tables *t, enum kind kind, int want)
{
	uint64_t pde = flat_get_entry(t->f, ADDR, 2), pte = flat_get_entry(t->f, ADDR, 1);
	bool write = kind == WRITE || kind == SYS_WRITE;

	assert_int_equal(!!(pde & PTE_A), want == ALLOWED);
	assert_int_equal(!!(pte & PTE_A), want == ALLOWED);
	assert_int_equal(!!(pte & PTE_D), want == ALLOWED && write);
	assert_int_equal(pde & PTE_D, 0);
}

static void try_kind(struct tables *t, const struct env *e, struct entry pde, struct entry pte,
		     enum kind kind)
{
	int want = expected(e, pde, pte, kind);

	put(t, e, pde, pte);
	mmu_flush_page(t->f->cpu, ADDR);
	check_result(t, kind, want, do_access(t->f->cpu, kind));
	check_bits(t, kind, want);
	for (enum kind before = READ; before < NR_KINDS; before++) {
		put(t, e, pde, pte);
		mmu_flush_page(t->f->cpu, ADDR);
		do_access(t->f->cpu, before);
		check_result(t, kind, want, do_access(t->f->cpu, kind));
	}
	/* Once more, from what is now in the TLB. */
	check_result(t, kind, want, do_access(t->f->cpu, kind));
}

static struct entry nth_entry(unsigned n)
{
	return (struct entry){.w = n & 1, .u = n & 2, .nx = n & 4};
}

static void try_env(struct tables *t, const struct env *e)
{
	unsigned variants = e->is_32 ? 4 : 8;

	set_env(t->f, e);
	for (unsigned i = 0; i < variants * variants; i++)
		for (enum kind kind = READ; kind < NR_KINDS; kind++)
			try_kind(t, e, nth_entry(i / variants), nth_entry(i % variants), kind);
}

static void try_mode(void (*enter)(struct flat *), bool is_32)
{
	struct tables t = {.f = flat_new(FLAT_RAM)};

	enter(t.f);
	flat_map(t.f, ADDR & PAGE_MASK, PAGE, PTE_P, PAGE_SIZE);
	t.pde_addr = flat_get_entry(t.f, ADDR, 2) & GENMASK(51, 12);
	t.pte_addr = PAGE;
	for (unsigned i = 0; i < 64; i++) {
		struct env e = {.is_32 = is_32,
				.wp = i & 1,
				.smep = i & 2,
				.smap = i & 4,
				.nxe = i & 8,
				.ac = i & 16,
				.user = i & 32};

		if (!is_32 || !e.nxe)
			try_env(&t, &e);
	}
	flat_free(t.f);
}

static void rights_32(void **state)
{
	try_mode(flat_paging32, true);
}

static void rights_pae(void **state)
{
	try_mode(flat_pae, false);
}

static void rights_long(void **state)
{
	try_mode(flat_long, false);
}

/* Rights do not go stale: one TLB, the environment changing under it without any flush. */
static void rights_follow_mode(void **state)
{
	struct tables t = {.f = flat_new(FLAT_RAM)};
	struct entry pde = {.w = true, .u = true}, pte = {.u = true};

	flat_long(t.f);
	flat_map(t.f, ADDR & PAGE_MASK, PAGE, PTE_P, PAGE_SIZE);
	t.pde_addr = flat_get_entry(t.f, ADDR, 2) & GENMASK(51, 12);
	t.pte_addr = PAGE;
	for (unsigned n = 0, seed = 1; n < 20000; n++) {
		unsigned i = (seed = seed * 1103515245 + 12345) >> 16;
		struct env e = {.wp = i & 1,
				.smep = i & 2,
				.smap = i & 4,
				.nxe = true,
				.ac = i & 16,
				.user = i & 32};
		enum kind kind = (i >> 6) % NR_KINDS;

		if (n % 100 == 0) {
			put(&t, &e, pde, pte);
			mmu_flush_page(t.f->cpu, ADDR);
		}
		set_env(t.f, &e);
		check_result(&t, kind, expected(&e, pde, pte, kind), do_access(t.f->cpu, kind));
	}
	flat_free(t.f);
}

/* SDM, protection keys: AD and WD of the page's key, user pages only, data only. */
static void protection_keys(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	uint64_t key = 5, val;

	flat_long(f);
	flat_map(f, ADDR & PAGE_MASK, PAGE, PTE_P | PTE_W | PTE_U | key << 59, PAGE_SIZE);
	f->cpu->pkru = 1u << 2 * key;
	flat_set_cr4(f, f->cpu->cr4 | CR4_PKE);
	assert_int_equal(do_access(f->cpu, FETCH), RESULT_OK);
	assert_int_equal(do_access(f->cpu, READ), RESULT_FAULT);
	assert_int_equal(f->cpu->fault.error, PFERR_P | PFERR_PK);
	assert_int_equal(do_access(f->cpu, WRITE), RESULT_FAULT);
	assert_int_equal(f->cpu->fault.error, PFERR_P | PFERR_PK | PFERR_W);
	f->cpu->pkru = 2u << 2 * key;
	mmu_update_mode(f->cpu);
	assert_int_equal(do_access(f->cpu, READ), RESULT_OK);
	assert_int_equal(do_access(f->cpu, WRITE), RESULT_FAULT);
	assert_int_equal(f->cpu->fault.error, PFERR_P | PFERR_PK | PFERR_W);
	flat_set_cr0(f, f->cpu->cr0 & ~CR0_WP);
	assert_int_equal(do_access(f->cpu, WRITE), RESULT_OK);
	flat_user(f);
	assert_int_equal(mmu_write(f->cpu, ADDR, 4, 0), RESULT_FAULT);
	assert_int_equal(f->cpu->fault.error, PFERR_P | PFERR_PK | PFERR_W | PFERR_U);
	f->cpu->pkru = ~(3u << 2 * key);
	mmu_update_mode(f->cpu);
	assert_int_equal(mmu_read(f->cpu, ADDR, 4, &val), RESULT_OK);
	assert_int_equal(mmu_write(f->cpu, ADDR, 4, 0), RESULT_OK);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rights_32),	   cmocka_unit_test(rights_pae),
		cmocka_unit_test(rights_long),	   cmocka_unit_test(rights_follow_mode),
		cmocka_unit_test(protection_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
