/* SPDX-License-Identifier: MIT */
/*
 * EPT that works: rights and what a violation says of them, execute-only pages, mode-based execute control, large
 * pages, misconfigurations, accessed and dirty bits, the page-modification log, EPTP switching by VMFUNC. Bits are the SDM's.
 */
#include "vmx_host.h"

#define PROBE	0x600000u /* what the guest reaches for: the fourth large page */
#define PML	0x250000u
#define LIST	0x251000u /* EPTPs */
#define OTHER	0x260000u /* other tables */
#define SMALL	0x240000u /* a table of 4 KiB pages */
#define L2_DATA 0x320000u

#define VMCALL_EXIT	 18
#define VIOLATION	 48
#define MISCONFIGURATION 49
#define VMFUNC_EXIT	 59
#define PML_FULL	 62

#define R	 1u
#define W	 2u
#define X	 4u
#define LARGE	 0x80u
#define ACCESSED (1ull << 8)
#define DIRTY	 (1ull << 9)
#define XU	 (1ull << 10)
#define WB	 0x30u
#define AD	 0x40u /* of EPTP */

#define EPT    2u
#define VMFUNC (1ull << 13)
#define LOG    (1ull << 17)
#define MBEC   (1ull << 22)

GUEST(reads, 64, "mov rax, [rdi]\n vmcall");
GUEST(writes, 64, "mov [rdi], rax\n vmcall");
GUEST(adds, 64, "add [rdi], rax\n vmcall");
GUEST(jumps, 64, "jmp rdi");
GUEST(calls_back, 64, "vmcall");
GUEST(switches, 64, "vmfunc\n mov rbx, [rdi]\n vmcall");

#define enter(h, name) run(h, name, name##_end - name)

static void start_ept(struct host *h, uint64_t cpu2, uint64_t eptp)
{
	struct cpu *cpu = h->f->cpu;

	start(h);
	put(h, VMCS_CPU_CTLS, CPU_ONES | CPU2_ON);
	put(h, VMCS_CPU2_CTLS, EPT | cpu2);
	put(h, VMCS_EPTP, TABLES_EPTP | eptp);
	put(h, VMCS_PML_ADDR, PML);
	put(h, VMCS_PML_INDEX, 511);
	memset(h->f->ram + PML, 0, PAGE_SIZE);
	ept_tables(h);
	mmu_flush_all(cpu);
	memset(cpu->gpr, 0, sizeof(cpu->gpr));
	cpu->gpr[RDI] = PROBE;
	flat_write(h->f, PROBE, calls_back, calls_back_end - calls_back);
}

static gpa_t probe_entry(void)
{
	return TABLES + 0x2000 + 8 * (PROBE >> 21);
}

static void put_probe(struct host *h, uint64_t bits)
{
	flat_poke(h->f, probe_entry(), PROBE | LARGE | WB | bits, 8);
}

static uint64_t get_probe(struct host *h)
{
	return flat_peek(h->f, probe_entry(), 8);
}

/* ---- rights ---- */

enum { READ, WRITE, CHANGE, FETCH, NR_ACCESSES };

static uint32_t access(struct host *h, unsigned kind)
{
	switch (kind) {
	case READ:
		return enter(h, reads);
	case WRITE:
		return enter(h, writes);
	case CHANGE:
		return enter(h, adds);
	default:
		return enter(h, jumps);
	}
}

/* What it needs, and how the qualification names it; a change may say that it reads, and says that it writes. */
static const uint8_t needs[] = {R, W, R | W, X};
static const uint8_t names[] = {1, 2, 2, 4};

static void is_violation(struct host *h, uint32_t reason, unsigned kind, uint64_t rights)
{
	uint64_t q = get(h, VMCS_EXIT_QUALIFICATION), may = kind == CHANGE ? 1 : 0;

	if (reason != VIOLATION || (q & ~may) != (0x180 | names[kind] | rights << 3) ||
	    get(h, VMCS_GUEST_PHYS_ADDR) != PROBE || get(h, VMCS_GUEST_LINEAR_ADDR) != PROBE)
		fail_msg("access %u with rights %lx: reason %u, qualification %lx at %lx", kind,
			 rights, reason, q, get(h, VMCS_GUEST_PHYS_ADDR));
	assert_int_equal(get(h, VMCS_RIP), kind == FETCH ? PROBE : L2_CODE);
}

/* By the entry of the page, or one level above it, where all other entries have all rights. */
static void rights(void **state)
{
	static const uint8_t some[] = {0, R, R | W, R | X, X, R | W | X};
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(some); i++)
		for (unsigned kind = 0; kind < NR_ACCESSES; kind++) {
			bool ok = (some[i] & needs[kind]) == needs[kind];
			uint32_t reason;

			start_ept(h, 0, 0);
			put_probe(h, some[i]);
			reason = access(h, kind);
			if (ok)
				assert_int_equal(reason, VMCALL_EXIT);
			else
				is_violation(h, reason, kind, some[i]);
			/* The same page by a table of its own. */
			start_ept(h, 0, 0);
			flat_poke(h->f, SMALL, PROBE | WB | 7, 8);
			flat_poke(h->f, probe_entry(), SMALL | some[i], 8);
			reason = access(h, kind);
			if (ok)
				assert_int_equal(reason, VMCALL_EXIT);
			else
				is_violation(h, reason, kind, some[i]);
		}
	host_close(h);
}

/* The guest's own tables: not the access itself, and a write where A and D bits are on. */
static void tables_of_the_guest(void **state)
{
	static const uint64_t eptp[] = {0, AD};
	static const uint64_t said[] = {0x81, 0x83 | R << 3};
	struct host *h = host_open();

	for (unsigned i = 0; i < 2; i++) {
		start_ept(h, 0, eptp[i]);
		flat_poke(h->f, TABLES + 0x2000, LARGE | WB | (i ? R : 0), 8);
		assert_int_equal(enter(h, reads), VIOLATION);
		assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), said[i]);
		assert_int_equal(get(h, VMCS_GUEST_PHYS_ADDR) & ~0xfffull, get(h, VMCS_CR3));
		assert_int_equal(get(h, VMCS_GUEST_LINEAR_ADDR), L2_CODE);
	}
	/* Without the control nothing is asked. */
	start_ept(h, 0, 0);
	put(h, VMCS_CPU2_CTLS, 0);
	put_probe(h, 0);
	assert_int_equal(enter(h, writes), VMCALL_EXIT);
	host_close(h);
}

/* Pages of the user's and the supervisor's are executable each by a bit of its own. */
static void mode_based(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < 16; i++) {
		bool user = i & 1, mbec = i & 2, x = i & 4, xu = i & 8;
		uint64_t bits = (x ? X : 0) | (xu ? XU : 0);
		uint32_t reason;

		start_ept(h, mbec ? MBEC : 0, 0);
		flat_map(h->f, PROBE, PROBE, PTE_P | PTE_W | (user ? PTE_U : 0), 1 << 21);
		put_probe(h, R | bits);
		/* The user's bit above, and for the guest's code. */
		flat_poke(h->f, TABLES, (TABLES + 0x1000) | 7 | XU, 8);
		flat_poke(h->f, TABLES + 0x1000, (TABLES + 0x2000) | 7 | XU, 8);
		flat_poke(h->f, TABLES + 0x2008, 0x200000 | LARGE | WB | 7 | XU, 8);
		reason = enter(h, jumps);
		if (mbec && user ? xu : x) {
			assert_int_equal(reason, VMCALL_EXIT);
			continue;
		}
		assert_int_equal(reason, VIOLATION);
		assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION),
				 0x184 | R << 3 | (x ? X << 3 : 0) | (mbec && xu ? 1 << 6 : 0));
	}
	host_close(h);
}

/* ---- misconfigurations ---- */

static void misconfigurations(void **state)
{
	static const struct {
		const char *name;
		gpa_t at;
		uint64_t entry;
		bool ok;
	} some[] = {
		{"write-only", TABLES + 0x2018, PROBE | LARGE | WB | W, false},
		{"write, execute", TABLES + 0x2018, PROBE | LARGE | WB | W | X, false},
		{"type 2", TABLES + 0x2018, PROBE | LARGE | 2 << 3 | 7, false},
		{"type 3", TABLES + 0x2018, PROBE | LARGE | 3 << 3 | 7, false},
		{"type 7", TABLES + 0x2018, PROBE | LARGE | 7 << 3 | 7, false},
		{"type 0", TABLES + 0x2018, PROBE | LARGE | 7, true},
		{"type 4, ignored PAT", TABLES + 0x2018, PROBE | LARGE | 4 << 3 | 1 << 6 | 7, true},
		{"bit 12 of a 2 MiB page", TABLES + 0x2018, PROBE | 0x1000 | LARGE | WB | 7, false},
		{"bit 20 of a 2 MiB page", TABLES + 0x2018, PROBE | 0x100000 | LARGE | WB | 7,
		 false},
		{"1 GiB page", TABLES + 0x1000, LARGE | WB | 7, true},
		{"bit 29 of a 1 GiB page", TABLES + 0x1000, 0x20000000 | LARGE | WB | 7, false},
		{"beyond the width", TABLES + 0x2018, PROBE | LARGE | WB | 7 | 1ull << 51, false},
		{"ignored bits", TABLES + 0x2018, PROBE | LARGE | WB | 7 | 0x7ffull << 52, true},
		{"type in a table's entry", TABLES + 0x1000, (TABLES + 0x2000) | 1 << 3 | 7, false},
		{"bit 6 of a table's entry", TABLES + 0x1000, (TABLES + 0x2000) | 1 << 6 | 7,
		 false},
		{"large fourth level", TABLES, (TABLES + 0x1000) | LARGE | 7, false},
		{"fourth level beyond the width", TABLES, (TABLES + 0x1000) | 7 | 1ull << 51,
		 false},
		{"not present, the rest anything", TABLES + 0x2018, 0x7ffffffffffff8, true},
	};
	struct host *h = host_open();

	h->f->cpu->maxphyaddr = 46;
	for (unsigned i = 0; i < ARRAY_SIZE(some); i++) {
		bool absent = !(some[i].entry & 7);
		uint32_t reason;

		start_ept(h, 0, 0);
		flat_poke(h->f, some[i].at, some[i].entry, 8);
		reason = enter(h, reads);
		if (reason != (absent ? VIOLATION : some[i].ok ? VMCALL_EXIT : MISCONFIGURATION))
			fail_msg("%s: %u", some[i].name, reason);
		if (reason == MISCONFIGURATION)
			assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 0);
	}
	host_close(h);
}

/* ---- accessed and dirty bits ---- */

static void accessed_and_dirty(void **state)
{
	struct host *h = host_open();

	for (unsigned ad = 0; ad < 2; ad++)
		for (unsigned kind = 0; kind < NR_ACCESSES; kind++) {
			uint64_t a = ad ? ACCESSED : 0;
			uint64_t d = ad && (needs[kind] & W) ? DIRTY : 0;

			start_ept(h, 0, ad ? AD : 0);
			assert_int_equal(access(h, kind), VMCALL_EXIT);
			assert_int_equal(get_probe(h) & (ACCESSED | DIRTY), a | d);
			assert_int_equal(flat_peek(h->f, TABLES, 8) & (ACCESSED | DIRTY), a);
			assert_int_equal(flat_peek(h->f, TABLES + 0x1000, 8) & (ACCESSED | DIRTY),
					 a);
			assert_int_equal(flat_peek(h->f, TABLES + 0x2020, 8) & (ACCESSED | DIRTY),
					 0);
		}
	/* Reads first: the write behind them is seen all the same. */
	start_ept(h, 0, AD);
	assert_int_equal(enter(h, reads), VMCALL_EXIT);
	assert_int_equal(get_probe(h) & DIRTY, 0);
	put(h, VMCS_RIP, L2_CODE);
	h->vmx.launched = false;
	h->f->cpu->gpr[RDI] = PROBE;
	load(h->f, launch);
	assert_int_equal(enter(h, writes), VMCALL_EXIT);
	assert_int_equal(get_probe(h) & DIRTY, DIRTY);
	host_close(h);
}

/* ---- the page-modification log ---- */

static bool is_logged(struct host *h, gpa_t gpa)
{
	for (unsigned i = get(h, VMCS_PML_INDEX) + 1; i < 512; i++)
		if (flat_peek(h->f, PML + 8 * i, 8) == gpa)
			return true;
	return false;
}

static void page_log(void **state)
{
	struct host *h = host_open();
	unsigned nr;

	/* The page written to, in a large one, and the guest's tables, whose accessed bits may be set. */
	start_ept(h, LOG, AD);
	h->f->cpu->gpr[RDI] = PROBE + 0x5123;
	assert_int_equal(enter(h, writes), VMCALL_EXIT);
	assert_true(is_logged(h, PROBE + 0x5000));
	assert_false(is_logged(h, PROBE));
	nr = 511 - get(h, VMCS_PML_INDEX);
	assert_in_range(nr, 1, 2); /* pages whose D bit was set: of the tables, and this */
	/* Dirty already. */
	start_ept(h, LOG, AD);
	put_probe(h, 7 | DIRTY);
	assert_int_equal(enter(h, writes), VMCALL_EXIT);
	assert_false(is_logged(h, PROBE));
	/* Reading logs nothing. */
	start_ept(h, LOG, AD);
	assert_int_equal(enter(h, reads), VMCALL_EXIT);
	assert_false(is_logged(h, PROBE));
	/* Nothing without the control. */
	start_ept(h, 0, AD);
	assert_int_equal(enter(h, writes), VMCALL_EXIT);
	assert_int_equal(get(h, VMCS_PML_INDEX), 511);
	assert_int_equal(get_probe(h) & DIRTY, DIRTY);
	host_close(h);
}

/* The last place is taken; the next write exits with nothing done. */
static void log_full(void **state)
{
	struct host *h = host_open();

	start_ept(h, LOG, AD);
	flat_poke(h->f, TABLES + 0x2000, LARGE | WB | 7 | ACCESSED | DIRTY, 8);
	put(h, VMCS_PML_INDEX, 0);
	assert_int_equal(enter(h, writes), VMCALL_EXIT);
	assert_int_equal(flat_peek(h->f, PML, 8), PROBE);
	assert_int_equal(get(h, VMCS_PML_INDEX), 0xffff);
	start_ept(h, LOG, AD);
	flat_poke(h->f, TABLES + 0x2000, LARGE | WB | 7 | ACCESSED | DIRTY, 8);
	put(h, VMCS_PML_INDEX, 0xffff);
	h->f->cpu->gpr[RAX] = 0x77;
	assert_int_equal(enter(h, writes), PML_FULL);
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 0);
	assert_int_equal(get(h, VMCS_RIP), L2_CODE);
	assert_int_equal(get_probe(h) & DIRTY, 0);
	assert_int_not_equal(flat_peek(h->f, PROBE, 8), 0x77);
	host_close(h);
}

/* ---- VMFUNC ---- */

/* A second view, in which the probe is another page. */
static void start_switch(struct host *h, uint64_t index)
{
	start_ept(h, VMFUNC, 0);
	put(h, VMCS_VMFUNC_CTLS, 1);
	put(h, VMCS_EPTP_LIST, LIST);
	memset(h->f->ram + LIST, 0, PAGE_SIZE);
	memcpy(h->f->ram + OTHER, h->f->ram + TABLES, 0x4000);
	flat_poke(h->f, OTHER, (OTHER + 0x1000) | 7, 8);
	flat_poke(h->f, OTHER + 0x1000, (OTHER + 0x2000) | 7, 8);
	flat_poke(h->f, OTHER + 0x2018, (PROBE + (1 << 21)) | LARGE | WB | 7, 8);
	flat_poke(h->f, LIST + 8, TABLES_EPTP, 8);
	flat_poke(h->f, LIST + 16, OTHER | 0x1e, 8);
	flat_poke(h->f, LIST + 24, OTHER | 0x1d, 8); /* memory type 5 */
	flat_poke(h->f, PROBE, 0x1111, 8);
	flat_poke(h->f, PROBE + (1 << 21), 0x2222, 8);
	h->f->cpu->gpr[RCX] = index;
}

static void eptp_switching(void **state)
{
	static const struct {
		uint64_t leaf, index, controls;
	} exits[] = {{0, 0, 1}, {0, 3, 1}, {0, 512, 1}, {1, 2, 1}, {64, 2, 1}, {0, 2, 0}};
	struct host *h = host_open();

	for (unsigned index = 1; index <= 2; index++) {
		start_switch(h, index);
		assert_int_equal(enter(h, switches), VMCALL_EXIT);
		assert_int_equal(h->f->cpu->gpr[RBX], index * 0x1111);
		assert_int_equal(get(h, VMCS_EPTP), (index == 1 ? TABLES : OTHER) | 0x1e);
	}
	/* Any privilege. */
	start_switch(h, 2);
	put_segment(h, SEG_CS, FLAT_CS64_USER, 0xa0fb);
	put_segment(h, SEG_SS, FLAT_DS_USER, 0xc0f3);
	assert_int_equal(enter(h, switches), VMCALL_EXIT);
	assert_int_equal(h->f->cpu->gpr[RBX], 0x2222);
	for (unsigned i = 0; i < ARRAY_SIZE(exits); i++) {
		start_switch(h, exits[i].index);
		h->f->cpu->gpr[RAX] = exits[i].leaf;
		put(h, VMCS_VMFUNC_CTLS, exits[i].controls);
		assert_int_equal(enter(h, switches), VMFUNC_EXIT);
		assert_int_equal(get(h, VMCS_RIP), L2_CODE);
		assert_int_equal(get(h, VMCS_EPTP), TABLES_EPTP);
	}
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rights),
		cmocka_unit_test(tables_of_the_guest),
		cmocka_unit_test(mode_based),
		cmocka_unit_test(misconfigurations),
		cmocka_unit_test(accessed_and_dirty),
		cmocka_unit_test(page_log),
		cmocka_unit_test(log_full),
		cmocka_unit_test(eptp_switching),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
