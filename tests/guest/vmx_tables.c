/* SPDX-License-Identifier: MIT */
/*
 * Second stages that no hypervisor would make: EPT structures that lead into themselves, that stand where no RAM is, that map
 * devices and ROM. What comes of an access is what the SDM says of the entries that are read there: a page, a violation
 * (exit 48), a misconfiguration (49); of a page without RAM, a device's answer.
 */
#include "vmx_host.h"

#define LOOP  0x600000u	  /* a table that is its own at each level */
#define HOLE  0x40000000u /* no RAM, no device */
#define PROBE 0x600000u	  /* where the guest accesses memory: the fourth large page */

#define VIOLATION	 48
#define MISCONFIGURATION 49
#define HLT		 12

GUEST(reads, 64, "mov rax, [rdi]\n hlt");
GUEST(writes, 64, "mov [rdi], rax\n mov rax, [rdi]\n hlt");
GUEST(clears, 64, "mov [rdi], rax\n hlt");

/* A guest behind these tables, which exits at HLT. */
static void start_behind(struct host *h)
{
	struct cpu *cpu = h->f->cpu;

	start(h);
	put(h, VMCS_CPU_CTLS, CPU_ONES | HLT_EXIT | CPU2_ON);
	put(h, VMCS_CPU2_CTLS, 2); /* EPT */
	put(h, VMCS_EPTP, TABLES_EPTP);
	ept_tables(h);
	mmu_flush_all(cpu);
	cpu->gpr[RDI] = PROBE;
	cpu->gpr[RAX] = 0x1234;
}

/* The entry of the page directory that maps the probe. */
static void put_probe(struct host *h, uint64_t entry)
{
	flat_poke(h->f, TABLES + 0x2000 + 8 * (PROBE >> 21), entry, 8);
}

#define enter(h, name) run(h, name, name##_end - name)

/* ---- tables that lead into themselves ---- */

/* All four levels are one table, and so is the page: the guest reads its own second stage, and takes it away. */
static void own_table(void **state)
{
	struct host *h = host_open();
	uint64_t entry = LOOP | 7;

	start_behind(h);
	/* A fourth-level entry of its own; below it entry 0 is the table, at each level. */
	flat_poke(h->f, LOOP, entry, 8);
	flat_poke(h->f, TABLES + 8, entry, 8);
	flat_map(h->f, 0x700000, BIT(39), PTE_P | PTE_W, PAGE_SIZE);
	h->f->cpu->gpr[RDI] = 0x700000;
	assert_int_equal(enter(h, reads), HLT);
	assert_int_equal(h->f->cpu->gpr[RAX], entry);
	start_behind(h);
	flat_poke(h->f, TABLES + 8, entry, 8);
	flat_map(h->f, 0x700000, BIT(39), PTE_P | PTE_W, PAGE_SIZE);
	h->f->cpu->gpr[RDI] = 0x700000;
	h->f->cpu->gpr[RAX] = 0;
	assert_int_equal(enter(h, clears), HLT);
	assert_int_equal(flat_peek(h->f, LOOP, 8), 0);
	start_behind(h);
	flat_poke(h->f, TABLES + 8, entry, 8);
	flat_map(h->f, 0x700000, BIT(39), PTE_P | PTE_W, PAGE_SIZE);
	h->f->cpu->gpr[RDI] = 0x700000;
	assert_int_equal(enter(h, reads), VIOLATION);
	assert_int_equal(h->vmx.vmcs[VMCS_GUEST_PHYS_ADDR], BIT(39));
	host_close(h);
}

/* The root is its own third level, second level and leaf. */
static void own_root(void **state)
{
	struct host *h = host_open();

	start_behind(h);
	put(h, VMCS_EPTP, LOOP | 0x1e);
	for (uint64_t i = 0; i < 512; i++)
		flat_poke(h->f, LOOP + 8 * i, LOOP | 7, 8);
	/* Each address is the table: the guest's CR3 has entries that are LOOP | 7, and so on for ever. */
	assert_int_equal(flat_run(h->f, 1000), CPU_EXIT_HLT);
	assert_int_equal(h->f->cpu->rip, HOST_RIP + 1);
	host_close(h);
}

/* ---- structures that are nowhere: to KVM such entries are not present ---- */

static void in_a_hole(void **state)
{
	static const struct {
		uint64_t at, entry;
		uint32_t reason;
	} holes[] = {
		{TABLES, HOLE | 7, VIOLATION},
		{TABLES + 0x1000, HOLE | 7, VIOLATION},
		{TABLES + 0x2000 + 8 * (PROBE >> 21), HOLE | 7, VIOLATION},
		{TABLES + 0x2000 + 8 * (PROBE >> 21), FLAT_MMIO | 7, VIOLATION},
		{TABLES + 0x2000 + 8 * (PROBE >> 21), 0, VIOLATION},
		{TABLES + 0x2000 + 8 * (PROBE >> 21), PROBE | 0xb2,
		 MISCONFIGURATION}, /* write-only */
		{TABLES + 0x2000 + 8 * (PROBE >> 21), PROBE | 0x97,
		 MISCONFIGURATION}, /* memory type 2 */
	};
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(holes); i++) {
		start_behind(h);
		flat_poke(h->f, holes[i].at, holes[i].entry, 8);
		assert_int_equal(enter(h, reads), holes[i].reason);
		assert_int_equal(h->f->cpu->gpr[RAX], 0x1234);
	}
	/* The root. */
	start_behind(h);
	put(h, VMCS_EPTP, HOLE | 0x1e);
	assert_int_equal(enter(h, reads), VIOLATION);
	/* A table in ROM is one like any; that its accessed bit cannot be set changes nothing. */
	start_behind(h);
	put(h, VMCS_EPTP, TABLES | 0x5e);
	memset(h->f->rom, 0, PAGE_SIZE);
	*(uint64_t *)h->f->rom = PROBE | 0x37;
	put_probe(h, FLAT_ROM | 7);
	assert_int_equal(enter(h, reads), HLT);
	assert_int_equal(*(uint64_t *)h->f->rom, PROBE | 0x37);
	host_close(h);
}

/* ---- pages that are no RAM ---- */

static uint64_t answer(struct flat *f, gpa_t gpa, unsigned size)
{
	return gpa;
}

/* The probe's page by a table of 4 KiB pages, whose first entry this is. */
static void put_small(struct host *h, uint64_t entry)
{
	put_probe(h, (TABLES + 0x4000) | 7);
	flat_poke(h->f, TABLES + 0x4000, entry, 8);
}

static void devices(void **state)
{
	struct host *h = host_open();

	h->f->mmio_in = answer;
	start_behind(h);
	put_small(h, (FLAT_MMIO + 0x1000) | 7);
	assert_int_equal(enter(h, reads), HLT);
	assert_int_equal(h->f->cpu->gpr[RAX], FLAT_MMIO + 0x1000);
	start_behind(h);
	put_small(h, (FLAT_DEVICE + 0x1000) | 7);
	assert_int_equal(enter(h, reads), HLT);
	assert_int_equal(h->f->cpu->gpr[RAX], FLAT_DEVICE + 0x1000);
	/* A device's page that may not be read is no device to the guest. */
	start_behind(h);
	h->f->nr_events = 0;
	put_small(h, FLAT_DEVICE | 4);
	assert_int_equal(enter(h, reads), VIOLATION);
	assert_int_equal(h->f->nr_events, 0);
	/* ROM takes no write. */
	start_behind(h);
	*(uint64_t *)h->f->rom = 0x5555;
	put_small(h, FLAT_ROM | 7);
	assert_int_equal(enter(h, writes), HLT);
	assert_int_equal(h->f->cpu->gpr[RAX], 0x5555);
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(own_table),
		cmocka_unit_test(own_root),
		cmocka_unit_test(in_a_hole),
		cmocka_unit_test(devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
