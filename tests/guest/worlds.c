/* SPDX-License-Identifier: MIT */
/*
 * What the TLB keeps over exits and entries: each guest sees its own memory, and after the flush that the manuals
 * name, the new one. Expected is what tables say at the time of the last flush (SDM, caching translation information; APM, TLB
 * control).
 */
#include "worlds.h"

/* ---- flushes, as the host makes them ---- */

GUEST(does_invlpga, 64, "invlpga\n hlt");
GUEST(does_invlpg, 64, "invlpg [rdi]\n invlpg [rsi]\n hlt");

static void invept_single(struct bench *b)
{
	bench_inv(b, true, 1, SECOND(1) | 0x1e, 0);
}

static void invept_all(struct bench *b)
{
	bench_inv(b, true, 2, 0, 0);
}

static void invvpid_pages(struct bench *b)
{
	bench_inv(b, false, 0, 1, X);
	bench_inv(b, false, 0, 1, UPPER);
}

static void invvpid_single(struct bench *b)
{
	bench_inv(b, false, 1, 1, 0);
}

static void invvpid_all(struct bench *b)
{
	bench_inv(b, false, 2, 0, 0);
}

static void invvpid_globals(struct bench *b)
{
	bench_inv(b, false, 3, 1, 0);
}

static void invlpga(struct bench *b)
{
	for (unsigned i = 0; i < 2; i++) {
		load(b->f, does_invlpga);
		b->f->cpu->gpr[RAX] = i ? X : UPPER;
		b->f->cpu->gpr[RCX] = 1;
		bench_host_runs(b);
	}
}

static void tlb_control(struct bench *b, unsigned val)
{
	bench_vmcb_put(b, 0x5c, val, 1);
	bench_enter(b);
	bench_vmcb_put(b, 0x5c, 0, 1);
}

static void control_all(struct bench *b)
{
	tlb_control(b, 1);
}

static void control_asid(struct bench *b)
{
	tlb_control(b, 3);
}

static void control_locals(struct bench *b)
{
	tlb_control(b, 7);
}

static void new_asid(struct bench *b)
{
	b->id = 5;
}

static const struct flush {
	const char *name;
	bool amd;
	bool tables,
		second; /* what it is good for: changes of the guest's tables, of the second stage's */
	bool locals;	/* entries that are not global only */
	void (*make)(struct bench *b);
} flushes[] = {
	{"INVEPT, single", false, true, true, false, invept_single},
	{"INVEPT, all", false, true, true, false, invept_all},
	{"INVVPID, address", false, true, false, false, invvpid_pages},
	{"INVVPID, single", false, true, false, false, invvpid_single},
	{"INVVPID, all", false, true, false, false, invvpid_all},
	{"INVVPID, but globals", false, true, false, true, invvpid_globals},
	{"INVLPGA", true, true, true, false, invlpga},
	{"TLB_CONTROL, all", true, true, true, false, control_all},
	{"TLB_CONTROL, ASID", true, true, true, false, control_asid},
	{"TLB_CONTROL, but globals", true, true, true, true, control_locals},
	{"another ASID", true, true, true, false, new_asid},
};

/* What the guest's own tables say is seen behind each flush that is for them; global entries, too. */
static void flushes_of_tables(struct bench *b, const struct flush *flush, bool global, bool present)
{
	b->cr4 = global ? 0x80 : 0;
	b->second = flush->amd || !strstr(flush->name, "INVEPT") ? 0 : 1;
	bench_set(b, reads);
	bench_map(b, 1, 1, global ? 0x107 : 7);
	bench_sees(b, 1);
	if (!present) {
		/* Another guest in between. */
		b->id = 2;
		b->root = 2;
		bench_sees(b, 2);
		b->id = b->root = 1;
	}
	bench_map(b, 1, 6, global ? 0x107 : 7);
	flush->make(b);
	bench_sees(b, 6);
}

static void each_flush_of_tables(void **state)
{
	for (unsigned i = 0; i < 4 * ARRAY_SIZE(flushes); i++) {
		const struct flush *flush = &flushes[i / 4];
		struct bench *b;

		if (!flush->tables || (flush->locals && (i & 1)))
			continue;
		b = bench_open(flush->amd);
		flushes_of_tables(b, flush, i & 1, i & 2);
		bench_close(b);
	}
}

/* What the second stage says, for one page and for a whole 2 MiB. */
static void flushes_of_second(struct bench *b, const struct flush *flush, bool large, bool present)
{
	gpa_t table = SECOND(1) + 0x2000 + 8 * 4;

	b->second = 1;
	bench_set(b, reads);
	bench_sees(b, 1);
	if (!present) {
		b->id = 2;
		b->second = 2;
		bench_sees(b, 1);
		b->id = b->second = 1;
	}
	if (large) {
		/* The whole of it from another place, where page 1 is another. */
		memcpy(b->f->ram + 0xa00000, b->f->ram + 0x800000, 0x200000);
		bench_poke(b, 0xa00000 + (PAGES & 0x1fffff) + 0x1000, VALUE(9));
		bench_poke(b, table, 0xa00000 | (b->amd ? 0x87 : 0xb7));
	} else {
		bench_map_second(b, 1, 1, 9, 7);
	}
	flush->make(b);
	bench_sees(b, 9);
}

static void each_flush_of_second(void **state)
{
	for (unsigned i = 0; i < 4 * ARRAY_SIZE(flushes); i++) {
		const struct flush *flush = &flushes[i / 4];
		struct bench *b;

		if (!flush->second)
			continue;
		b = bench_open(flush->amd);
		flushes_of_second(b, flush, i & 1, i & 2);
		bench_close(b);
	}
}

/* ---- no guest sees another's ---- */

static void apart(bool amd, unsigned second)
{
	struct bench *b = bench_open(amd);

	bench_set(b, reads);
	for (unsigned i = 0; i < 4; i++) {
		bench_host_sees(b, 0);
		b->id = b->root = 1;
		b->second = second;
		bench_sees(b, 1);
		bench_host_sees(b, 0);
		b->id = b->root = 2;
		bench_sees(b, 2);
		/* By its number the first again, but its tables are other ones. */
		b->id = 1;
		b->root = 3;
		bench_sees(b, 3);
		/* Six more than there is room for. */
		for (unsigned n = 0; n < 6; n++) {
			b->id = 10 + n;
			b->root = 1 + n % 3;
			bench_sees(b, 1 + n % 3);
		}
	}
	bench_close(b);
}

static void worlds_are_apart(void **state)
{
	for (unsigned i = 0; i < 4; i++)
		apart(i & 1, i & 2 ? 1 : 0);
}

static void second_stages_are_apart(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct bench *b = bench_open(amd);

		bench_set(b, reads);
		bench_map_second(b, 2, 1, 7, 7);
		for (unsigned i = 0; i < 3; i++) {
			b->second = 1;
			bench_sees(b, 1);
			b->second = 2;
			bench_sees(b, 7);
			b->second = 0;
			bench_sees(b, 1);
		}
		bench_close(b);
	}
}

/* Without VPID an entry flushes; the host's tables change with its own flush only. */
static void untagged(void **state)
{
	struct bench *b = bench_open(false);

	b->id = 0;
	for (unsigned second = 0; second < 2; second++) {
		b->second = second;
		bench_set(b, reads);
		bench_map(b, 1, 1, 7);
		bench_sees(b, 1);
		bench_map(b, 1, 4, 7);
		bench_sees(b, 4);
		/* VPID 0 is the host's, too. */
		bench_map(b, 0, 0, 7);
		bench_host_sees(b, 0);
		bench_map(b, 0, 5, 7);
		bench_sees(b, 4);
		bench_host_sees(b, 5);
	}
	bench_close(b);
}

/* ---- what the guest and the host flush for themselves ---- */

GUEST2(l2_invlpg, "mov [r8], rbx\n invlpg [rdi]\n invlpg [rsi]\n mov ecx, [rdi]\n mov edx, [rsi]");
GUEST2(l2_cr3, "mov [r8], rbx\n mov rax, cr3\n mov cr3, rax\n mov ecx, [rdi]\n mov edx, [rsi]");

/* INVLPG and MOV to CR3 are the guest's own here: no exit for them. */
static void guest_flushes(struct bench *b, bool cr3)
{
	struct cpu *cpu = b->f->cpu;

	for (unsigned i = 0; i < 6; i++) {
		bench_set(b, reads);
		bench_map(b, 0, 0, 7);
		bench_host_sees(b, 0);
		if (cr3)
			bench_set(b, l2_cr3);
		else
			bench_set(b, l2_invlpg);
		cpu->gpr[R8] = TABLES(1) + 0x4000;
		cpu->gpr[RBX] = (PAGES + (i + 3) * 0x1000) | 7;
		assert_int_equal(bench_enter(b), bench_called(b));
		assert_int_equal((uint32_t)cpu->gpr[RCX], VALUE(i + 3));
		assert_int_equal((uint32_t)cpu->gpr[RDX], VALUE(i + 3));
		bench_set(b, reads);
		bench_sees(b, i + 3);
		bench_host_sees(b, 0);
	}
}

static void guests_flush(void **state)
{
	for (unsigned i = 0; i < 8; i++) {
		struct bench *b = bench_open(i & 1);

		b->second = i & 2 ? 1 : 0;
		guest_flushes(b, i & 4);
		bench_close(b);
	}
}

/* INVLPG and MOV to CR3 of the host are for its own. */
static void host_flushes(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct bench *b = bench_open(amd);

		bench_set(b, reads);
		for (unsigned i = 0; i < 4; i++) {
			bench_map(b, 0, 4 + i, 7);
			load(b->f, does_invlpg);
			b->f->cpu->gpr[RDI] = X;
			b->f->cpu->gpr[RSI] = UPPER;
			bench_host_runs(b);
			bench_host_sees(b, 4 + i);
			bench_sees(b, 1);
			bench_host_sees(b, 4 + i);
		}
		bench_close(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_flush_of_tables),
		cmocka_unit_test(each_flush_of_second),
		cmocka_unit_test(worlds_are_apart),
		cmocka_unit_test(second_stages_are_apart),
		cmocka_unit_test(untagged),
		cmocka_unit_test(guests_flush),
		cmocka_unit_test(host_flushes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
