/* SPDX-License-Identifier: MIT */
/*
 * AVIC by small hypervisors. Which accesses are let through, what ends in which exit, offsets and reasons are the APM's
 * (advanced virtual interrupt controller), written out here once more; where the APM leaves one open, Linux's KVM says what
 * it expects of hardware.
 */
#include "rounds.h"
#include "svm_host.h"

#define BAR	 0xfee00000ull
#define BACKING	 0x240000u
#define OTHER	 0x241000u /* APIC ID 1's page */
#define LOGICAL	 0x242000u
#define PHYSICAL 0x243000u
#define AVIC	 (1ull << 31 | 1 << 24)
#define NOACCEL	 0x402
#define NO_IPI	 0x401
#define WRITE	 (1ull << 32)
#define VALID	 (1ull << 63)
#define RUNNING	 (1ull << 62)

static void avic_vmcb(struct host *h)
{
	nested_tables(h);
	/* The nested tables have the page, too; which page they lead to does not count. */
	flat_poke(h->f, NESTED + 0x1000 + 8 * 3, (NESTED + 0x3000) | LEAF, 8);
	flat_poke(h->f, NESTED + 0x3000 + 8 * (BAR >> 21 & 511), 1 << 7 | LEAF, 8);
	memset(h->f->ram + BACKING, 0, 0x4000);
	flat_poke(h->f, BACKING + 0xe0, ~0u, 4);
	put(h, 0x60, AVIC, 8);
	put(h, 0x98, BAR, 8);
	put(h, 0xe0, BACKING, 8);
	put(h, 0xf0, LOGICAL, 8);
	put(h, 0xf8, PHYSICAL | 3, 8);
	flat_poke(h->f, PHYSICAL, BACKING | VALID | RUNNING, 8);
}

static struct host *avic_open(void)
{
	struct host *h = host_open();

	feature_put(h->f->cpu->model_features, FEAT_AVIC, true);
	feature_put(h->f->cpu->guest_features, FEAT_AVIC, true);
	avic_vmcb(h);
	return h;
}
static uint32_t reg(struct host *h, unsigned offset)
{
	return flat_peek(h->f, BACKING + offset, 4);
}

static void reg_set(struct host *h, unsigned offset, uint32_t val)
{
	flat_poke(h->f, BACKING + offset, val, 4);
}

static void vector_set(struct host *h, unsigned base, uint8_t vector)
{
	reg_set(h, base + vector / 32 * 16, reg(h, base + vector / 32 * 16) | 1u << vector % 32);
}

static bool vector_has(struct host *h, gpa_t page, unsigned base, uint8_t vector)
{
	return flat_peek(h->f, page + base + vector / 32 * 16, 4) >> vector % 32 & 1;
}

/* The guest's: a MOV at RSI, then VMMCALL. The exit code. */
static uint64_t touch(struct host *h, unsigned offset, const char *code, size_t size)
{
	h->f->cpu->gpr[RSI] = BAR + offset;
	put(h, 0x578, L2_CODE, 8);
	return vmrun(h, code, size);
}

static uint64_t store(struct host *h, unsigned offset, uint32_t val)
{
	h->f->cpu->gpr[RBX] = val;
	return touch(h, offset, "\x89\x1e" VMMCALL, 5);
}

static uint64_t fetch(struct host *h, unsigned offset)
{
	return touch(h, offset, "\x8b\x1e" VMMCALL, 5);
}

/* ---- the table of accesses ---- */

enum how { NEVER, ALLOWED, DONE, TRAP };

static const struct {
	uint16_t first, last;
	enum how read, write;
} accesses[] = {
	{0x000, 0x010, NEVER, NEVER},	{0x020, 0x020, ALLOWED, TRAP},
	{0x030, 0x030, ALLOWED, NEVER}, {0x040, 0x070, NEVER, NEVER},
	{0x080, 0x080, ALLOWED, DONE},	{0x090, 0x0a0, ALLOWED, NEVER},
	{0x0b0, 0x0b0, ALLOWED, DONE},	{0x0c0, 0x0f0, ALLOWED, TRAP},
	{0x100, 0x270, ALLOWED, NEVER}, {0x280, 0x280, ALLOWED, TRAP},
	{0x290, 0x2f0, NEVER, NEVER},	{0x310, 0x310, ALLOWED, ALLOWED},
	{0x320, 0x380, ALLOWED, TRAP},	{0x390, 0x390, NEVER, NEVER},
	{0x3a0, 0x3d0, NEVER, NEVER},	{0x3e0, 0x3e0, ALLOWED, TRAP},
	{0x3f0, 0x7f0, NEVER, NEVER},
};

/* Refused before anything is done. */
static void assert_fault(struct host *h, unsigned offset, uint64_t write)
{
	assert_int_equal(get(h, 0x78, 8), write | offset);
	assert_int_equal(get(h, 0x578, 8), L2_CODE);
}

static void one_read(struct host *h, unsigned offset, enum how how)
{
	uint64_t code;

	h->f->cpu->gpr[RBX] = 0;
	reg_set(h, offset, 0x5a);
	code = fetch(h, offset);
	if (code != (how == NEVER ? NOACCEL : 0x81))
		print_error("reading %x: %lx\n", offset, code);
	assert_int_equal(code, how == NEVER ? NOACCEL : 0x81);
	if (how == NEVER)
		assert_fault(h, offset, 0);
	else
		assert_int_equal(h->f->cpu->gpr[RBX], 0x5a);
	reg_set(h, offset, 0);
}

static void one_write(struct host *h, unsigned offset, enum how how)
{
	uint64_t code = store(h, offset, 0x5a);

	if (code != (how == NEVER || how == TRAP ? NOACCEL : 0x81))
		print_error("writing %x: %lx\n", offset, code);
	assert_int_equal(code, how == NEVER || how == TRAP ? NOACCEL : 0x81);
	assert_int_equal(reg(h, offset), how == NEVER ? 0 : 0x5a);
	if (how == NEVER)
		assert_fault(h, offset, WRITE);
	if (how == TRAP)
		assert_int_equal(get(h, 0x78, 8), WRITE | offset);
	if (how == TRAP)
		assert_int_equal(get(h, 0x578, 8), L2_CODE + 2);
}

static void each_access(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(accesses); i++)
		for (unsigned at = accesses[i].first; at <= accesses[i].last; at += 0x10) {
			struct host *h = avic_open();

			one_read(h, at, accesses[i].read);
			reg_set(h, 0xe0, 0);
			one_write(h, at, accesses[i].write);
			host_close(h);
		}
}

/* What is no plain access to a register. */
static void odd_accesses(void **state)
{
	struct host *h = avic_open();

	assert_int_equal(touch(h, 0x84, "\x8b\x1e" VMMCALL, 5), NOACCEL);
	assert_int_equal(get(h, 0x78, 8), 0x80);
	assert_int_equal(touch(h, 0x80, "\xff\x06" VMMCALL, 5), NOACCEL); /* inc */
	assert_int_equal(get(h, 0x78, 8), WRITE | 0x80);
	assert_int_equal(reg(h, 0x80), 0);
	assert_int_equal(touch(h, 0x80, "\xff\xe6", 2), NOACCEL); /* jmp */
	host_close(h);
}

/* Nested paging goes first. */
static void nested_paging_first(void **state)
{
	struct host *h = avic_open();
	gpa_t entry = NESTED + 0x3000 + 8 * (BAR >> 21 & 511);

	flat_poke(h->f, entry, 0, 8);
	assert_int_equal(fetch(h, 0x80), 0x400);
	assert_int_equal(get(h, 0x80, 8), BAR + 0x80);
	flat_poke(h->f, entry, 1 << 7 | 5, 8);
	put(h, 0x5c, 1, 1);
	assert_int_equal(fetch(h, 0x80), 0x81);
	assert_int_equal(store(h, 0x80, 1), 0x400);
	host_close(h);
}

/* ---- priorities and interrupts ---- */

static void task_priority(void **state)
{
	struct host *h = avic_open();

	assert_int_equal(store(h, 0x80, 0x75), 0x81);
	assert_int_equal(reg(h, 0x80), 0x75);
	assert_int_equal(reg(h, 0xa0), 0x75);
	assert_int_equal(get(h, 0x60, 8) & 0xff, 7);
	/* CR8 is the same register's upper half. */
	put(h, 0x578, L2_CODE, 8);
	assert_int_equal(vmrun(h, "\x44\x0f\x20\xc3" VMMCALL, 7), 0x81); /* mov rbx, cr8 */
	assert_int_equal(h->f->cpu->gpr[RBX], 7);
	h->f->cpu->gpr[RBX] = 9;
	put(h, 0x578, L2_CODE, 8);
	assert_int_equal(vmrun(h, "\x44\x0f\x22\xc3" VMMCALL, 7), 0x81); /* mov cr8, rbx */
	assert_int_equal(reg(h, 0x80), 0x90);
	assert_int_equal(get(h, 0x60, 8) & 0xff, 9);
	host_close(h);
}

#define WAIT "\xfb\x90\x90" VMMCALL /* sti; nop; nop; vmmcall */

/* Until HLT in the handler of a vector. */
static uint64_t wait_for(struct host *h)
{
	put(h, 0x578, L2_CODE, 8);
	put(h, 0x570, 2, 8);
	put(h, MISC1, 1u << 24, 4);
	return vmrun(h, WAIT, 6);
}

static void requested_at_vmrun(void **state)
{
	struct host *h = avic_open();

	vector_set(h, 0x200, 0x41);
	vector_set(h, 0x200, 0x62);
	assert_int_equal(wait_for(h), 0x78);
	assert_int_equal(get(h, 0x578, 8), FLAT_HANDLERS + 16 * 0x62);
	assert_int_equal(flat_peek(h->f, get(h, 0x5d8, 8), 8), L2_CODE + 2);
	assert_false(vector_has(h, BACKING, 0x200, 0x62));
	assert_true(vector_has(h, BACKING, 0x100, 0x62));
	assert_true(vector_has(h, BACKING, 0x200, 0x41));
	assert_int_equal(reg(h, 0xa0), 0x60);
	/* The lower one waits until the higher one is ended. */
	assert_int_equal(wait_for(h), 0x81);
	put(h, 0x570, 2, 8);
	assert_int_equal(store(h, 0xb0, 0), 0x81);
	assert_false(vector_has(h, BACKING, 0x100, 0x62));
	assert_int_equal(reg(h, 0xa0), 0);
	assert_int_equal(wait_for(h), 0x78);
	assert_int_equal(get(h, 0x578, 8), FLAT_HANDLERS + 16 * 0x41);
	host_close(h);
}

static void held_back(void **state)
{
	struct host *h = avic_open();

	vector_set(h, 0x200, 0x41);
	reg_set(h, 0x80, 0x40);
	assert_int_equal(wait_for(h), 0x81);
	/* V_IRQ and its intercept are nobody's now. */
	put(h, 0x60, AVIC | 1 << 8 | 0xf << 16 | 0x55ull << 32, 8);
	put(h, MISC1, 1u << 24 | 1u << 4, 4);
	put(h, 0x578, L2_CODE, 8);
	assert_int_equal(vmrun(h, WAIT, 6), 0x81);
	/* A lower TPR opens. */
	put(h, 0x570, 0x202, 8);
	assert_int_equal(store(h, 0x80, 0x3f), 0x78);
	assert_int_equal(get(h, 0x578, 8), FLAT_HANDLERS + 16 * 0x41);
	host_close(h);
}

/* A level-triggered interrupt is the hypervisor's to end; its bit stays. */
static void level_triggered(void **state)
{
	struct host *h = avic_open();

	vector_set(h, 0x100, 0x62);
	vector_set(h, 0x180, 0x62);
	assert_int_equal(store(h, 0xb0, 0), NOACCEL);
	assert_int_equal(get(h, 0x78, 8), WRITE | 0xb0);
	assert_int_equal(get(h, 0x80, 8), 0x62);
	assert_int_equal(get(h, 0x578, 8), L2_CODE + 2);
	assert_true(vector_has(h, BACKING, 0x100, 0x62));
	host_close(h);
}

/* ---- IPIs ---- */

static uint64_t send(struct host *h, uint32_t high, uint32_t low)
{
	reg_set(h, 0x310, high);
	return store(h, 0x300, low);
}

static void self_ipi(void **state)
{
	struct host *h = avic_open();

	put(h, 0x570, 0x202, 8);
	put(h, MISC1, 1u << 24, 4);
	assert_int_equal(send(h, 0, 0x40071), 0x78);
	assert_int_equal(get(h, 0x578, 8), FLAT_HANDLERS + 16 * 0x71);
	assert_int_equal(flat_peek(h->f, get(h, 0x5d8, 8), 8), L2_CODE + 2);
	assert_true(vector_has(h, BACKING, 0x100, 0x71));
	host_close(h);
}

#define NO_DOORBELL 0xdead

static void assert_sent(struct host *h, bool own, bool other, uint64_t doorbell)
{
	assert_int_equal(vector_has(h, BACKING, 0x200, 0x71), own);
	assert_int_equal(vector_has(h, OTHER, 0x200, 0x71), other);
	assert_int_equal(h->f->doorbell, doorbell);
	h->f->doorbell = NO_DOORBELL;
	memset(h->f->ram + BACKING + 0x200, 0, 0x80);
	memset(h->f->ram + OTHER + 0x200, 0, 0x80);
}

/* Every way to name a processor that runs, with APIC ID 1 on the host's processor 5. */
static void targets(void **state)
{
	struct host *h = avic_open();

	h->f->doorbell = NO_DOORBELL;
	flat_poke(h->f, PHYSICAL + 8, OTHER | VALID | RUNNING | 5, 8);
	flat_poke(h->f, LOGICAL + 4, 1u << 31 | 1, 4);
	flat_poke(h->f, LOGICAL + 4 * (3 * 4 + 2), 1u << 31 | 1, 4);
	assert_int_equal(send(h, 1 << 24, 0x4071), 0x81); /* physical */
	assert_sent(h, false, true, 5);
	assert_int_equal(send(h, 2 << 24, 0x4871), 0x81); /* logical, flat */
	assert_sent(h, false, true, 5);
	reg_set(h, 0xe0, 0x0fffffff);
	assert_int_equal(send(h, 0x34 << 24, 0x4871), 0x81); /* logical, cluster 3 */
	assert_sent(h, false, true, 5);
	assert_int_equal(send(h, 0xffu << 24, 0x4071), 0x81); /* everybody */
	assert_sent(h, true, true, 5);
	assert_int_equal(send(h, 0, 0x84071), 0x81); /* shorthand: all */
	assert_sent(h, true, true, 5);
	assert_int_equal(send(h, 0, 0xc4071), 0x81); /* all others */
	assert_sent(h, false, true, 5);
	assert_int_equal(send(h, 0, 0x4071), 0x81); /* oneself by number */
	assert_sent(h, true, false, NO_DOORBELL);
	assert_int_equal(send(h, 1 << 24, 0x5071), 0x81); /* delivery status is read-only */
	assert_int_equal(reg(h, 0x300), 0x4071);
	assert_sent(h, false, true, 5);
	host_close(h);
}

static const struct {
	const char *name;
	uint32_t high, low, reason, index;
	uint64_t entry; /* of APIC ID 1 */
	bool sent;
} incomplete[] = {
	{"NMI", 1 << 24, 0x4400, 0, 0, OTHER | VALID | RUNNING, false},
	{"lowest priority", 1 << 24, 0x4171, 0, 0, OTHER | VALID | RUNNING, false},
	{"INIT", 1 << 24, 0x4500, 0, 0, OTHER | VALID | RUNNING, false},
	{"start-up", 1 << 24, 0x4610, 0, 0, OTHER | VALID | RUNNING, false},
	{"level-triggered", 1 << 24, 0xc071, 0, 0, OTHER | VALID | RUNNING, false},
	{"not running", 1 << 24, 0x4071, 1, 1, OTHER | VALID, true},
	{"not running, all others", 0, 0xc4071, 1, 1, OTHER | VALID, true},
	{"not valid", 1 << 24, 0x4071, 2, 1, OTHER | RUNNING, false},
	{"beyond the table", 4 << 24, 0x4071, 2, 4, OTHER | VALID | RUNNING, false},
	{"logical, one of two unknown", 6u << 24, 0x4871, 2, 2, OTHER | VALID | RUNNING, false},
	{"logical, valid there alone", 2u << 24, 0x4871, 2, 1, OTHER | RUNNING, false},
	{"no memory", 1 << 24, 0x4071, 3, 1, 0x8000000000 | VALID | RUNNING, false},
	{"vector 15", 1 << 24, 0x400f, 4, 0, OTHER | VALID | RUNNING, false},
};

static void incomplete_ipis(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(incomplete); i++) {
		struct host *h = avic_open();
		uint64_t code;

		h->f->doorbell = NO_DOORBELL;
		flat_poke(h->f, PHYSICAL + 8, incomplete[i].entry, 8);
		flat_poke(h->f, LOGICAL + 4, 1u << 31 | 1, 4);
		code = send(h, incomplete[i].high, incomplete[i].low);
		if (code != NO_IPI || get(h, 0x84, 4) != incomplete[i].reason)
			print_error("%s: %lx, %lx\n", incomplete[i].name, code, get(h, 0x80, 8));
		assert_int_equal(code, NO_IPI);
		assert_int_equal(get(h, 0x78, 8),
				 (uint64_t)incomplete[i].high << 32 | incomplete[i].low);
		assert_int_equal(get(h, 0x84, 4), incomplete[i].reason);
		assert_int_equal(get(h, 0x80, 4), incomplete[i].index);
		assert_int_equal(get(h, 0x578, 8), L2_CODE + 2);
		assert_sent(h, false, incomplete[i].sent, NO_DOORBELL);
		host_close(h);
	}
}

/* ---- what VMRUN refuses, and what is not there ---- */

static void checks(void **state)
{
	static const struct {
		unsigned at;
		uint64_t val;
		bool refused;
	} rows[] = {
		{0x90, 0, true},
		{0xe0, 1ull << 52 | BACKING, true},
		{0xf0, 1ull << 52 | LOGICAL, true},
		{0xf8, 1ull << 52 | PHYSICAL, true},
		{0xf8, PHYSICAL | 0x100, true},
		{0xf8, PHYSICAL | 0xff, false},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct host *h = avic_open();

		put(h, rows[i].at, rows[i].val, 8);
		assert_int_equal(vmrun(h, VMMCALL, 3), rows[i].refused ? ~0ull : 0x81);
		/* Without the bit they mean nothing. */
		put(h, 0x60, 1 << 24, 8);
		put(h, 0x578, L2_CODE, 8);
		assert_int_equal(vmrun(h, VMMCALL, 3), 0x81);
		host_close(h);
	}
}

/* Without the feature the bit means nothing. */
static void no_avic(void **state)
{
	struct host *h = avic_open();

	feature_put(h->f->cpu->guest_features, FEAT_AVIC, false);
	put(h, 0xe0, 1ull << 60, 8);
	vector_set(h, 0x200, 0x41);
	assert_int_equal(wait_for(h), 0x81);
	flat_poke(h->f, BACKING + 0x30, 0x14, 4);
	assert_int_equal(fetch(h, 0x30), 0x81);
	assert_int_not_equal(h->f->cpu->gpr[RBX], 0x14);
	host_close(h);
}

/* ---- bad input ---- */

#define NR_RANDOM 2000

/* Tables and pages of any content; addresses that lead to them, to devices or to nothing. */
static void spoil(struct host *h, uint64_t *seed)
{
	static const uint16_t fields[] = {0x60, 0x98, 0xe0, 0xf0, 0xf8};
	static const uint64_t places[] = {BACKING,  OTHER,	PHYSICAL, NESTED, FLAT_MMIO,
					  FLAT_ROM, 1ull << 39, VMCB,	  HSAVE,  BAR};
	uint64_t r = next_random(seed);

	for (unsigned i = 0; i < 40; i++)
		flat_poke(h->f, BACKING + (next_random(seed) & 0x3ff8), next_random(seed), 8);
	for (unsigned i = 0; i < 4; i++)
		flat_poke(h->f, PHYSICAL + 8 * i,
			  places[next_random(seed) % ARRAY_SIZE(places)] |
				  (next_random(seed) & (VALID | RUNNING | 0xff)),
			  8);
	if (r & 1)
		put(h, fields[r / 2 % 5], places[r / 16 % ARRAY_SIZE(places)] | (r >> 32 & 0x1ff),
		    8);
	if (r >> 8 & 1)
		put(h, fields[r >> 9 & 3], get(h, fields[r >> 9 & 3], 8) ^ 1ull << (r >> 20 & 63),
		    8);
}

static void again(void *host, uint64_t *seed)
{
	/* mov [rsi], ebx; sti; mov cr8, rdx; mov [rdi], ebx; mov eax, [rsi]; vmmcall */
	static const char code[] = "\x89\x1e\xfb\x44\x0f\x22\xc2\x89\x1f\x8b\x06" VMMCALL;
	struct host *h = host;
	struct cpu *cpu = h->f->cpu;

	start_again(h);
	avic_vmcb(h);
	spoil(h, seed);
	flat_write(h->f, L2_CODE, code, sizeof(code));
	load(h->f, run_guest);
	cpu->gpr[RAX] = VMCB;
	cpu->gpr[RBX] = next_random(seed) & 0xcffff;
	cpu->gpr[RDX] = next_random(seed) & 0xf;
	cpu->gpr[RSI] = BAR + (next_random(seed) & (next_random(seed) & 1 ? 0x3f0 : 0xfff));
	cpu->gpr[RDI] = BAR + 0x300 - (next_random(seed) & 1 ? 0x250 : 0);
}

/* Whatever the tables hold, the processor goes on, and touches nothing beyond the machine's memory. */
static void random_tables(void **state)
{
	struct host *h = avic_open();

	assert_true(run_rounds(h->f, number("ANYKVM_ROUNDS", NR_RANDOM), again, h));
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_access),
		cmocka_unit_test(odd_accesses),
		cmocka_unit_test(nested_paging_first),
		cmocka_unit_test(task_priority),
		cmocka_unit_test(requested_at_vmrun),
		cmocka_unit_test(held_back),
		cmocka_unit_test(level_triggered),
		cmocka_unit_test(self_ipi),
		cmocka_unit_test(targets),
		cmocka_unit_test(incomplete_ipis),
		cmocka_unit_test(checks),
		cmocka_unit_test(no_avic),
		cmocka_unit_test(random_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
