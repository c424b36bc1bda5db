/* SPDX-License-Identifier: MIT */
/*
 * What silicon/mmu's walks lead to: devices and ROM, the dirty log, slots that change, host faults; and what is looked at on the
 * way, alignment and breakpoints. Expected values are the SDM's and KVM's api.rst's.
 */
#include "mmu_access.h"

#include <sys/mman.h>

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

#define OVER (ADDR + PAGE_SIZE - 3)

/* Over two pages that are in the TLB, as within one: nothing is walked again. */
static void hits_over_two_pages(void **state)
{
	struct flat *f = two_pages(PTE_P | PTE_W, PTE_P | PTE_W);
	uint8_t buf[20], want[20];
	uint64_t walks;
	bool device;

	writes(f, OVER, 8, 0x1122334455667788);
	reads(f, OVER, 8, 0x1122334455667788);
	walks = f->cpu->tlb->count.walks;
	reads(f, OVER, 8, 0x1122334455667788);
	writes(f, OVER + 1, 4, 0xaabbccdd);
	reads(f, OVER, 8, 0x112233aabbccdd88);
	memset(want, 0x5a, sizeof(want));
	assert_int_equal(mmu_write_bytes(f->cpu, OVER - 8, want, sizeof(want)), RESULT_OK);
	assert_int_equal(mmu_probe_bounced(f->cpu, OVER - 8, sizeof(buf), ACCESS_READ, &device),
			 RESULT_OK);
	assert_false(device);
	assert_int_equal(mmu_read_bytes(f->cpu, OVER - 8, buf, sizeof(buf)), RESULT_OK);
	assert_memory_equal(buf, want, sizeof(want));
	assert_memory_equal(f->ram + PAGE + PAGE_SIZE - 11, want, 11);
	assert_memory_equal(f->ram + OTHER + PAGE_SIZE, want, 9);
	assert_int_equal(flat_peek(f, OTHER, 8), 0);
	assert_true(f->cpu->tlb->count.walks == walks);
	flat_free(f);
}

/* Where one of them is read only, or its D bit is not set, or it is gone, that counts. */
static void one_of_two_pages_misses(void **state)
{
	struct flat *f = two_pages(PTE_P | PTE_W, PTE_P | PTE_W);

	writes(f, ADDR, 8, 0);
	reads(f, OVER, 8, 0);
	assert_false(flat_get_entry(f, ADDR + PAGE_SIZE, 1) & PTE_D);
	writes(f, OVER, 8, 0x1122334455667788);
	assert_true(flat_get_entry(f, ADDR + PAGE_SIZE, 1) & PTE_D);
	flat_map(f, ADDR + PAGE_SIZE, OTHER + PAGE_SIZE, PTE_P, PAGE_SIZE);
	mmu_flush_page(f->cpu, ADDR + PAGE_SIZE);
	reads(f, OVER, 8, 0x1122334455667788);
	f->cpu->cr0 |= CR0_WP;
	mmu_update_mode(f->cpu);
	reads(f, OVER, 8, 0x1122334455667788);
	is_fault(f, mmu_write(f->cpu, OVER, 8, 0), ADDR + PAGE_SIZE, PFERR_P | PFERR_W);
	reads(f, OVER, 8, 0x1122334455667788);
	flat_map(f, ADDR + PAGE_SIZE, 0, 0, PAGE_SIZE);
	mmu_flush_page(f->cpu, ADDR + PAGE_SIZE);
	is_fault(f, mmu_write(f->cpu, OVER, 8, 0), ADDR + PAGE_SIZE, PFERR_W);
	assert_int_equal(flat_peek(f, PAGE + PAGE_SIZE - 3, 3), 0x667788);
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

/* Each part is watched for itself. */
static void watched_over_two_pages(void **state)
{
	struct flat *f = two_pages(PTE_P | PTE_W, PTE_P | PTE_W);

	writes(f, OVER, 8, 0);
	reads(f, OVER, 8, 0);
	arm(f, 0, ADDR + PAGE_SIZE + 1, 3, 0, true);
	writes(f, OVER, 8, 1);
	assert_int_equal(take_dr6(f), 1);
	reads(f, OVER, 8, 1);
	assert_int_equal(take_dr6(f), 1);
	flat_free(f);
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
		cmocka_unit_test(d_before_write_tag),
		cmocka_unit_test(hits_over_two_pages),
		cmocka_unit_test(one_of_two_pages_misses),
		cmocka_unit_test(watched_over_two_pages),
		cmocka_unit_test(debug_walks_leave_no_trace),
		cmocka_unit_test(memory_taken_away),
		cmocka_unit_test(tables_taken_away),
		cmocka_unit_test(alignment),
		cmocka_unit_test(data_breakpoints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
