/* SPDX-License-Identifier: MIT */
/* Messages between local APICs: who is meant, and what becomes of it; expectations from the SDM. */
#include "lapic_box.h"

#include <pthread.h>

/* ---- Destinations ---- */

static void physical_destinations(void **state)
{
	struct apic_message m = fixed(2, 0x51);
	struct box box;

	setup(&box);
	assert_int_equal(deliver(&box, &m), 1 << 2);
	assert_int_equal(box.node[2].told, 1);
	m.dest = 9;
	assert_int_equal(deliver(&box, &m), 0);
	m.dest = 0xff;
	assert_int_equal(deliver(&box, &m), 0xf);
	m.delivery = APIC_LOWEST; /* a broadcast has no lowest priority */
	assert_int_equal(deliver(&box, &m), 0xf);
	write_mmio(&box.node[2], LAPIC_ID, 0x07000000);
	m = fixed(7, 0x51);
	assert_int_equal(deliver(&box, &m), 1 << 2);
}

static void flat_logical_destinations(void **state)
{
	struct apic_message m = fixed(0x05, 0x51);
	struct box box;

	setup(&box);
	m.logical = true;
	for (unsigned i = 0; i < NR; i++)
		write_mmio(&box.node[i], LAPIC_LDR, 1u << (24 + i));
	assert_int_equal(deliver(&box, &m), 0x5);
	m.dest = 0xff;
	assert_int_equal(deliver(&box, &m), 0xf);
	m.dest = 0x30;
	assert_int_equal(deliver(&box, &m), 0);
}

static void cluster_logical_destinations(void **state)
{
	struct apic_message m = fixed(0x13, 0x51);
	struct box box;

	setup(&box);
	m.logical = true;
	for (unsigned i = 0; i < NR; i++) {
		write_mmio(&box.node[i], LAPIC_DFR, 0);
		write_mmio(&box.node[i], LAPIC_LDR, (i / 2 << 4 | 1u << i % 2) << 24);
	}
	assert_int_equal(deliver(&box, &m), 0xc);
	m.dest = 0x02;
	assert_int_equal(deliver(&box, &m), 0x2);
	m.dest = 0x23;
	assert_int_equal(deliver(&box, &m), 0);
}

static void x2apic_destinations(void **state)
{
	struct apic_message m = fixed(3, 0x51);
	struct box box;

	setup(&box);
	to_x2apic(&box);
	assert_int_equal(deliver(&box, &m), 1 << 3);
	m.logical = true; /* cluster 0, members 0 and 1 */
	assert_int_equal(deliver(&box, &m), 0x3);
	m.dest = 0x00010003;
	assert_int_equal(deliver(&box, &m), 0);
	m.dest = 0xffffffff;
	assert_int_equal(deliver(&box, &m), 0xf);
	/* FFh from a device is a broadcast by quirk only. */
	m = fixed(0xff, 0x51);
	assert_int_equal(deliver(&box, &m), 0xf);
	box.quirk = false;
	assert_int_equal(deliver(&box, &m), 0);
}

static void wide_id_reaches_xapic_mode(void **state)
{
	struct lapic_config c = config;
	struct apic_message m = fixed(300, 0x51);
	struct box box;

	setup(&box);
	c.id = 300;
	lapic_configure(&box.node[1].lapic, &c);
	assert_int_equal(deliver(&box, &m), 1 << 1);
}

static void lowest_priority_picks_one(void **state)
{
	struct apic_message m = fixed(0x0f, 0x50);
	struct box box;

	setup(&box);
	m.logical = true;
	m.delivery = APIC_LOWEST;
	for (unsigned i = 0; i < NR; i++)
		write_mmio(&box.node[i], LAPIC_LDR, 1u << (24 + i));
	assert_int_equal(deliver(&box, &m), 1 << 0);
	m.vector = 0x53;
	assert_int_equal(deliver(&box, &m), 1 << 3);
	write_mmio(&box.node[3], LAPIC_SVR, 0xff);
	assert_int_equal(deliver(&box, &m), 1 << 2); /* 53h % 3 */
	m.delivery = APIC_FIXED;
	m.redirect = true;
	assert_int_equal(deliver(&box, &m), 1 << 2);
}

static void shorthands(void **state)
{
	struct box box;
	struct node *n = &box.node[1];

	setup(&box);
	write_mmio(n, LAPIC_ICR, 0x44051); /* self */
	assert_int_equal(takers(&box, 0x51), 1 << 1);
	write_mmio(n, LAPIC_ICR, 0x84051); /* all */
	assert_int_equal(takers(&box, 0x51), 0xf);
	write_mmio(n, LAPIC_ICR, 0xc4051); /* all but self */
	assert_int_equal(takers(&box, 0x51), 0xd);
	write_mmio(n, LAPIC_ICR2, 0x03000000);
	write_mmio(n, LAPIC_ICR, 0x5051); /* delivery status is read-only */
	assert_int_equal(takers(&box, 0x51), 1 << 3);
	assert_int_equal(read_mmio(n, LAPIC_ICR), 0x4051);
}

static void matching_by_shorthand(void **state)
{
	struct apic_message m = fixed(9, 0x51);
	const struct lapic *a, *b;
	struct box box;

	setup(&box);
	a = &box.node[0].lapic;
	b = &box.node[1].lapic;
	m.shorthand = APIC_TO_SELF;
	assert_true(lapic_matches(a, a, &m, true));
	assert_false(lapic_matches(b, a, &m, true));
	m.shorthand = APIC_TO_OTHERS;
	assert_false(lapic_matches(a, a, &m, true));
	assert_true(lapic_matches(b, a, &m, true));
	/* A destination format that is neither flat nor cluster matches nothing. */
	write_mmio(&box.node[0], LAPIC_LDR, 0x01000000);
	write_mmio(&box.node[0], LAPIC_DFR, 0x50000000);
	m = fixed(1, 0x51);
	m.logical = true;
	assert_false(lapic_matches(a, NULL, &m, true));
}

static void x2apic_icr(void **state)
{
	struct box box;
	struct node *n = &box.node[3];

	setup(&box);
	to_x2apic(&box);
	assert_false(write_msr(n, 0x830, BIT(13)));
	assert_false(write_msr(n, 0x830, BIT(20)));
	assert_false(write_msr(n, 0x830, BIT(16)));
	assert_true(write_msr(n, 0x830, 2ull << 32 | 0x4061));
	assert_int_equal(takers(&box, 0x61), 1 << 2);
	assert_true(read_msr(n, 0x830) == (2ull << 32 | 0x4061));
	assert_true(write_msr(n, 0x830, 0xffffffffull << 32 | 0x4061));
	assert_int_equal(takers(&box, 0x61), 0xf);
	assert_true(write_msr(n, 0x830, 0xffull << 32 | 0x4061)); /* an ID like others */
	assert_int_equal(takers(&box, 0x61), 0);
	assert_true(write_msr(n, 0x83f, 0x71));
	assert_int_equal(takers(&box, 0x71), 1 << 3);
}

static void startup_sequence(void **state)
{
	struct box box;
	struct node *n = &box.node[0], *ap = &box.node[1];

	setup(&box);
	write_mmio(n, LAPIC_ICR, 0xcc500); /* INIT, assert, level, others */
	write_mmio(n, LAPIC_ICR, 0xc8500); /* INIT, de-assert */
	write_mmio(n, LAPIC_ICR, 0xc4609); /* SIPI, page 9 */
	assert_int_equal(ap->events[APIC_INIT], 1);
	assert_int_equal(ap->events[APIC_STARTUP], 1);
	assert_int_equal(ap->event_vector, 9);
	assert_int_equal(n->events[APIC_INIT], 0);
	write_mmio(n, LAPIC_ICR, 0xc4200);
	write_mmio(n, LAPIC_ICR, 0xc4400);
	assert_int_equal(ap->events[APIC_SMI], 1);
	assert_int_equal(ap->events[APIC_NMI], 1);
	assert_int_equal(box.reached, 3);
}

static void hardware_disabled_hears_nothing(void **state)
{
	struct apic_message m = fixed(0xff, 0x51);
	struct box box;

	setup(&box);
	lapic_set_base(&box.node[2].lapic, LAPIC_DEFAULT_BASE, false);
	assert_int_equal(send(&box, NULL, &m), 3);
	assert_int_equal(takers(&box, 0x51), 0xb);
}

/* ---- Errors ---- */

static void illegal_vectors(void **state)
{
	struct apic_message m = fixed(1, 0x0f);
	struct box box;
	struct node *n = &box.node[1];

	setup(&box);
	write_mmio(n, LAPIC_LVT_ERROR, 0xfe);
	assert_int_equal(send(&box, NULL, &m), 0);
	assert_int_equal(lapic_pending_vector(&n->lapic), 0xfe);
	assert_int_equal(read_mmio(n, LAPIC_ESR), 0);
	write_mmio(n, LAPIC_ESR, 0);
	assert_int_equal(read_mmio(n, LAPIC_ESR), 0x40);
	write_mmio(n, LAPIC_ICR, 0x44005);
	write_mmio(n, LAPIC_ESR, 0);
	assert_int_equal(read_mmio(n, LAPIC_ESR), 0x20);
	read_mmio(n, 0x0);
	write_mmio(n, LAPIC_ESR, 0);
	assert_int_equal(read_mmio(n, LAPIC_ESR), 0x80);
	write_mmio(n, LAPIC_ESR, 0);
	assert_int_equal(read_mmio(n, LAPIC_ESR), 0);
}

static void vector_limits(void **state)
{
	struct apic_message m = fixed(0, 16);
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	assert_int_equal(deliver(&box, &m), 1);
	m.vector = 255;
	assert_int_equal(deliver(&box, &m), 1);
	write_mmio(n, LAPIC_ICR, 0x44010);
	assert_int_equal(takers(&box, 16), 1);
	write_mmio(n, LAPIC_ICR2, 0x01000000);
	write_mmio(n, LAPIC_ICR, 0x4105); /* lowest priority, vector 5 */
	write_mmio(n, LAPIC_ICR, 0x4402); /* NMI: the vector does not matter */
	write_mmio(n, LAPIC_ESR, 0);
	assert_int_equal(read_mmio(n, LAPIC_ESR), 0x20);
	assert_int_equal(box.node[1].events[APIC_NMI], 1);
	write_mmio(&box.node[1], LAPIC_ESR, 0);
	assert_int_equal(read_mmio(&box.node[1], LAPIC_ESR), 0);
	/* Reserved registers are errors, read-only and write-only ones are not. */
	write_mmio(n, LAPIC_VERSION, 0);
	read_mmio(n, LAPIC_EOI);
	write_mmio(n, LAPIC_ESR, 0);
	assert_int_equal(read_mmio(n, LAPIC_ESR), 0);
	write_mmio(n, 0x40, 0);
	write_mmio(n, LAPIC_ESR, 0);
	assert_int_equal(read_mmio(n, LAPIC_ESR), 0x80);
}

static void extint_messages_are_refused(void **state)
{
	struct apic_message m = fixed(0, 0x51);
	struct box box;

	setup(&box);
	m.delivery = APIC_EXTINT;
	assert_int_equal(send(&box, NULL, &m), 0);
	assert_int_equal(box.node[0].events[APIC_EXTINT], 0);
}

/* ---- Threads ---- */

#define ROUNDS 100000

static void *sender(void *opaque)
{
	struct lapic *l = opaque;
	struct apic_message m = fixed(0, 0);

	for (unsigned i = 0; i < ROUNDS; i++) {
		m.vector = 32 + i % 200;
		lapic_accept(l, &m);
	}
	return NULL;
}

/* Two senders against one taker: no vector stays requested with nobody to see it. */
static void acceptance_loses_nothing(void **state)
{
	pthread_t threads[2];
	struct box box;
	struct node *n = &box.node[0];
	unsigned taken = 0, idle;

	setup(&box);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, sender, &n->lapic);
	for (idle = 0; idle < 1000; idle++) {
		if (lapic_ack(&n->lapic) < 0)
			continue;
		taken++;
		idle = 0;
		lapic_eoi(&n->lapic);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	while (lapic_ack(&n->lapic) >= 0) {
		taken++;
		lapic_eoi(&n->lapic);
	}
	assert_int_not_equal(taken, 0);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(lapic_reg(&n->lapic, LAPIC_IRR + i * 16), 0);
	assert_int_equal(lapic_highest_irr(&n->lapic), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(physical_destinations),
		cmocka_unit_test(flat_logical_destinations),
		cmocka_unit_test(cluster_logical_destinations),
		cmocka_unit_test(x2apic_destinations),
		cmocka_unit_test(wide_id_reaches_xapic_mode),
		cmocka_unit_test(lowest_priority_picks_one),
		cmocka_unit_test(shorthands),
		cmocka_unit_test(startup_sequence),
		cmocka_unit_test(hardware_disabled_hears_nothing),
		cmocka_unit_test(illegal_vectors),
		cmocka_unit_test(x2apic_icr),
		cmocka_unit_test(acceptance_loses_nothing),
		cmocka_unit_test(vector_limits),
		cmocka_unit_test(matching_by_shorthand),
		cmocka_unit_test(extint_messages_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
