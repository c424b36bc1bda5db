/* SPDX-License-Identifier: MIT */
/* The timer of local APICs, in its three modes; expectations from the SDM. */
#include "lapic_box.h"

static void one_shot_timer(void **state)
{
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	write_mmio(n, LAPIC_LVT_TIMER, 0xec);
	write_mmio(n, LAPIC_TIMER_DIVIDE, 0xb); /* by 1 */
	write_mmio(n, LAPIC_TIMER_INITIAL, 1000000);
	assert_true(n->armed == 1000 + 1000000);
	assert_int_equal(read_mmio(n, LAPIC_TIMER_CURRENT), 1000000);
	box.ns += 400000;
	assert_int_equal(read_mmio(n, LAPIC_TIMER_CURRENT), 600000);
	assert_false(lapic_timer_fire(&n->lapic));
	box.ns += 600000;
	assert_true(lapic_timer_fire(&n->lapic));
	assert_int_equal(n->told, 0); /* by nobody */
	assert_int_equal(lapic_ack(&n->lapic), 0xec);
	assert_true(n->armed == LAPIC_NEVER);
	assert_int_equal(read_mmio(n, LAPIC_TIMER_CURRENT), 0);
	assert_int_equal(read_mmio(n, LAPIC_TIMER_INITIAL), 1000000);
	assert_false(lapic_timer_fire(&n->lapic));
}

static void stopping_the_timer(void **state)
{
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	write_mmio(n, LAPIC_LVT_TIMER, 0xec);
	write_mmio(n, LAPIC_TIMER_INITIAL, 1000000);
	write_mmio(n, LAPIC_TIMER_INITIAL, 0);
	assert_true(n->armed == LAPIC_NEVER);
	box.ns += 100000000;
	assert_false(lapic_timer_fire(&n->lapic));
	/* A masked timer runs, but nobody hears it. */
	write_mmio(n, LAPIC_LVT_TIMER, 0x100ec);
	write_mmio(n, LAPIC_TIMER_INITIAL, 100);
	box.ns += 100000000;
	lapic_timer_fire(&n->lapic);
	assert_int_equal(lapic_pending_vector(&n->lapic), -1);
}

static void divisors(void **state)
{
	static const struct {
		uint8_t code, divisor;
	} cases[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}};
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		write_mmio(n, LAPIC_TIMER_DIVIDE, cases[i].code);
		write_mmio(n, LAPIC_TIMER_INITIAL, 1000000);
		assert_true(n->armed == 1000 + 1000000ull * cases[i].divisor);
	}
	/* A new divisor keeps the count. */
	write_mmio(n, LAPIC_TIMER_DIVIDE, 0xb);
	write_mmio(n, LAPIC_TIMER_INITIAL, 1000000);
	box.ns += 500000;
	write_mmio(n, LAPIC_TIMER_DIVIDE, 0);
	assert_int_equal(read_mmio(n, LAPIC_TIMER_CURRENT), 500000);
	assert_true(n->armed == box.ns + 1000000);
}

static void periodic_timer(void **state)
{
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	write_mmio(n, LAPIC_LVT_TIMER, 0x200ec);
	write_mmio(n, LAPIC_TIMER_DIVIDE, 0xb);
	write_mmio(n, LAPIC_TIMER_INITIAL, 1000000);
	box.ns += 1200000;
	assert_int_equal(read_mmio(n, LAPIC_TIMER_CURRENT), 800000);
	assert_true(lapic_timer_fire(&n->lapic));
	assert_true(n->armed == 1000 + 2000000);
	box.ns += 5000000; /* four periods unseen: one interrupt, phase kept */
	assert_true(lapic_timer_fire(&n->lapic));
	assert_false(lapic_timer_fire(&n->lapic));
	assert_true(n->armed == 1000 + 7000000);
	write_mmio(n, LAPIC_TIMER_INITIAL, 10);
	assert_true(n->armed == box.ns + 200000); /* KVM's shortest period */
}

static void deadline_timer(void **state)
{
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	box.tsc = 5000;
	lapic_set_deadline(&n->lapic, 9000);
	assert_int_equal(lapic_get_deadline(&n->lapic), 0); /* not in this mode */
	write_mmio(n, LAPIC_LVT_TIMER, 0x400ec);
	write_mmio(n, LAPIC_TIMER_INITIAL, 1000);
	assert_int_equal(read_mmio(n, LAPIC_TIMER_INITIAL), 0);
	lapic_set_deadline(&n->lapic, 9000); /* 4000 cycles at 2 GHz: 2000 ns */
	assert_true(n->armed >= box.ns + 2000 && n->armed <= box.ns + 2001);
	box.tsc = 8999;
	box.ns = n->armed;
	assert_false(lapic_timer_fire(&n->lapic)); /* by a rate that was too high */
	assert_true(n->armed > box.ns && n->armed <= box.ns + 2);
	box.tsc = 5000; /* set back */
	lapic_tsc_changed(&n->lapic);
	assert_true(n->armed >= box.ns + 2000 && n->armed <= box.ns + 2001);
	assert_int_equal(lapic_get_deadline(&n->lapic), 9000);
	box.tsc = 9000;
	assert_true(lapic_timer_fire(&n->lapic));
	assert_int_equal(lapic_get_deadline(&n->lapic), 0);
	assert_int_equal(lapic_ack(&n->lapic), 0xec);
	lapic_set_deadline(&n->lapic, 1); /* past */
	assert_true(lapic_timer_expiry(&n->lapic) <= box.ns);
	lapic_set_deadline(&n->lapic, 0);
	assert_true(n->armed == LAPIC_NEVER);
	lapic_set_deadline(&n->lapic, ~0ull);
	assert_true(n->armed > box.ns + (1ull << 61));
	write_mmio(n, LAPIC_LVT_TIMER, 0xec); /* leaving the mode disarms */
	assert_true(n->armed == LAPIC_NEVER);
}

static void one_shot_restores_as_due(void **state)
{
	uint32_t page[LAPIC_STATE_SIZE / 4];
	struct box a;
	struct node *n = &a.node[0];

	setup(&a);
	write_mmio(n, LAPIC_LVT_TIMER, 0xec);
	write_mmio(n, LAPIC_TIMER_INITIAL, 1000000);
	lapic_get_state(&n->lapic, page);
	page[LAPIC_TIMER_CURRENT / 4] = 0;
	lapic_set_state(&n->lapic, page);
	assert_true(lapic_timer_fire(&n->lapic));
	/* More than the initial count is taken as the initial count. */
	page[LAPIC_TIMER_CURRENT / 4] = 2000000;
	lapic_set_state(&n->lapic, page);
	assert_true(n->armed == a.ns + 2000000); /* divided by 2 */
}

static void timer_of_a_disabled_apic(void **state)
{
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	write_mmio(n, LAPIC_LVT_TIMER, 0x400ec);
	lapic_set_deadline(&n->lapic, 1000);
	lapic_set_base(&n->lapic, LAPIC_DEFAULT_BASE, true);
	assert_int_equal(lapic_get_deadline(&n->lapic), 0);
	lapic_set_deadline(&n->lapic, 2000);
	lapic_set_base(&n->lapic, LAPIC_DEFAULT_BASE | BIT(11), true);
	assert_int_equal(lapic_get_deadline(&n->lapic), 1000);
}

/* A restore keeps an armed deadline, and a stopped one stopped. */
static void deadline_over_a_restore(void **state)
{
	uint32_t page[LAPIC_STATE_SIZE / 4];
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	write_mmio(n, LAPIC_LVT_TIMER, 0x400ec);
	lapic_get_state(&n->lapic, page);
	lapic_set_state(&n->lapic, page);
	assert_true(n->armed == LAPIC_NEVER);
	lapic_set_deadline(&n->lapic, 20000);
	lapic_set_state(&n->lapic, page);
	assert_true(n->armed >= box.ns + 10000 && n->armed <= box.ns + 10001);
	assert_int_equal(lapic_get_deadline(&n->lapic), 20000);
}

/* The reserved timer mode counts nothing. */
static void reserved_timer_mode(void **state)
{
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	write_mmio(n, LAPIC_LVT_TIMER, 0x600ec);
	write_mmio(n, LAPIC_TIMER_INITIAL, 1000);
	assert_true(n->armed == LAPIC_NEVER);
	assert_int_equal(read_mmio(n, LAPIC_TIMER_CURRENT), 0);
}

static void one_shot_past_its_end_reads_zero(void **state)
{
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	write_mmio(n, LAPIC_LVT_TIMER, 0xec);
	write_mmio(n, LAPIC_TIMER_INITIAL, 1000);
	box.ns += 5000;
	assert_int_equal(read_mmio(n, LAPIC_TIMER_CURRENT), 0);
	/* A periodic one has started its next period. */
	write_mmio(n, LAPIC_LVT_TIMER, 0x200ec);
	write_mmio(n, LAPIC_TIMER_DIVIDE, 0xb);
	write_mmio(n, LAPIC_TIMER_INITIAL, 1000000);
	box.ns += 1000000;
	assert_int_equal(read_mmio(n, LAPIC_TIMER_CURRENT), 0);
	box.ns += 1;
	assert_int_equal(read_mmio(n, LAPIC_TIMER_CURRENT), 999999);
	/* Short one-shot counts are not limited. */
	write_mmio(n, LAPIC_LVT_TIMER, 0xec);
	write_mmio(n, LAPIC_TIMER_INITIAL, 10);
	assert_true(n->armed == box.ns + 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_shot_timer),
		cmocka_unit_test(stopping_the_timer),
		cmocka_unit_test(divisors),
		cmocka_unit_test(periodic_timer),
		cmocka_unit_test(deadline_timer),
		cmocka_unit_test(one_shot_restores_as_due),
		cmocka_unit_test(timer_of_a_disabled_apic),
		cmocka_unit_test(deadline_over_a_restore),
		cmocka_unit_test(reserved_timer_mode),
		cmocka_unit_test(one_shot_past_its_end_reads_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
