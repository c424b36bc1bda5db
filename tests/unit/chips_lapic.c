/* SPDX-License-Identifier: MIT */
/* Local APICs on one bus, under a clock that the test turns; expectations from the SDM. */
#include "silicon/chips/lapic.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define NR 4

struct box;

struct node {
	struct lapic lapic;
	struct box *box;
	unsigned raised, changed, tpr_accesses;
	unsigned told;
	unsigned events[8];
	uint8_t event_vector;
	unsigned eois;
	uint8_t eoi_vector;
	bool eoi_level;
	uint64_t armed;
};

struct box {
	struct node node[NR];
	uint64_t ns, tsc;
	bool quirk;
	int reached; /* by the last IPI */
};

static struct lapic *bus_at(void *opaque, unsigned i)
{
	return &((struct box *)opaque)->node[i].lapic;
}

static int send(struct box *box, struct lapic *source, const struct apic_message *msg)
{
	const struct lapic_bus bus = {
		.at = bus_at, .opaque = box, .nr = NR, .broadcast_quirk = box->quirk};

	return lapic_deliver(&bus, source, msg);
}

static void on_send(void *opaque, const struct apic_message *msg)
{
	struct node *n = opaque;

	n->box->reached = send(n->box, &n->lapic, msg);
}

static void on_eoi(void *opaque, uint8_t vector, bool level)
{
	struct node *n = opaque;

	n->eois++;
	n->eoi_vector = vector;
	n->eoi_level = level;
}

static void on_timer(void *opaque, uint64_t expiry)
{
	((struct node *)opaque)->armed = expiry;
}

static uint64_t on_now(void *opaque)
{
	return ((struct node *)opaque)->box->ns;
}

static uint64_t on_tsc(void *opaque)
{
	return ((struct node *)opaque)->box->tsc;
}

static void on_changed(void *opaque)
{
	((struct node *)opaque)->changed++;
}

static void on_tpr(void *opaque, bool write)
{
	((struct node *)opaque)->tpr_accesses++;
}

static void on_told(void *opaque)
{
	((struct node *)opaque)->told++;
}

static void on_raised(void *opaque)
{
	__atomic_fetch_add(&((struct node *)opaque)->raised, 1, __ATOMIC_SEQ_CST);
}

static bool on_event(void *opaque, enum apic_delivery what, uint8_t vector)
{
	struct node *n = opaque;

	n->events[what]++;
	n->event_vector = vector;
	return true;
}

static const struct lapic_ops ops = {
	.send = on_send,
	.eoi = on_eoi,
	.timer = on_timer,
	.now = on_now,
	.tsc = on_tsc,
	.changed = on_changed,
	.tpr_access = on_tpr,
	.told = on_told,
	.raised = on_raised,
	.event = on_event,
};

static void write_mmio(struct node *n, unsigned offset, uint32_t val)
{
	assert_true(lapic_mmio_write(&n->lapic, offset, 4, val));
}

static uint32_t read_mmio(struct node *n, unsigned offset)
{
	uint64_t val;

	assert_true(lapic_mmio_read(&n->lapic, offset, 4, &val));
	return (uint32_t)val;
}

static bool write_msr(struct node *n, uint32_t index, uint64_t val)
{
	return lapic_msr_write(&n->lapic, index, val);
}

static uint64_t read_msr(struct node *n, uint32_t index)
{
	uint64_t val;

	assert_true(lapic_msr_read(&n->lapic, index, &val));
	return val;
}

static bool read_msr_faults(struct node *n, uint32_t index)
{
	uint64_t val;

	return !lapic_msr_read(&n->lapic, index, &val);
}

static const struct lapic_config config = {
	.x2apic = true,
	.tsc_deadline = true,
	.intel = true,
	.lint0_reenabled = true,
	.mmio_hole = true,
	.reserved_gpa = ~0ull << 40,
	.tsc_khz = 2000000,
};

/* IDs 0 to 3, software enabled, xAPIC. */
static void setup(struct box *box)
{
	memset(box, 0, sizeof(*box));
	box->ns = 1000;
	box->quirk = true;
	for (unsigned i = 0; i < NR; i++) {
		struct lapic_config c = config;
		struct node *n = &box->node[i];

		c.id = i;
		c.bsp = i == 0;
		n->box = box;
		n->armed = LAPIC_NEVER;
		lapic_init(&n->lapic, &ops, n, &c);
		write_mmio(n, LAPIC_SVR, 0x1ff);
		n->raised = n->changed = 0;
	}
}

static void to_x2apic(struct box *box)
{
	for (unsigned i = 0; i < NR; i++) {
		struct lapic *l = &box->node[i].lapic;

		assert_true(lapic_set_base(l, lapic_get_base(l) | APIC_BASE_X2APIC, false));
	}
}

static struct apic_message fixed(uint32_t dest, uint8_t vector)
{
	return (struct apic_message){.dest = dest, .vector = vector, .level = true};
}

/* Bit i: node i has vector requested; clears it again. */
static unsigned takers(struct box *box, uint8_t vector)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < NR; i++) {
		if (lapic_pending_vector(&box->node[i].lapic) != vector)
			continue;
		mask |= 1u << i;
		lapic_ack(&box->node[i].lapic);
		lapic_eoi(&box->node[i].lapic);
	}
	return mask;
}

static unsigned deliver(struct box *box, const struct apic_message *msg)
{
	send(box, NULL, msg);
	return takers(box, msg->vector);
}

/* ---- Registers ---- */

static void reset_values(void **state)
{
	struct box box;
	struct node *n = &box.node[1];

	setup(&box);
	lapic_reset(&n->lapic, false);
	assert_int_equal(lapic_get_base(&n->lapic), 0xfee00800);
	assert_int_equal(lapic_get_base(&box.node[0].lapic), 0xfee00900);
	assert_int_equal(read_mmio(n, LAPIC_ID), 0x01000000);
	assert_int_equal(read_mmio(n, LAPIC_VERSION), 0x00050014);
	assert_int_equal(read_mmio(n, LAPIC_SVR), 0xff);
	assert_int_equal(read_mmio(n, LAPIC_DFR), 0xffffffff);
	assert_int_equal(read_mmio(n, LAPIC_LDR), 0);
	assert_int_equal(read_mmio(n, LAPIC_TPR), 0);
	for (unsigned reg = LAPIC_LVT_TIMER; reg <= LAPIC_LVT_ERROR; reg += 16)
		assert_int_equal(read_mmio(n, reg), 0x10000);
	/* The BSP's LINT0, by KVM's quirk. */
	assert_int_equal(read_mmio(&box.node[0], LAPIC_LVT_LINT0), 0x700);
	assert_true(lapic_accepts_pic(&box.node[0].lapic));
	assert_false(lapic_accepts_pic(&n->lapic));
}

static void register_masks(void **state)
{
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	write_mmio(n, LAPIC_VERSION, ~0u);
	assert_int_equal(read_mmio(n, LAPIC_VERSION), 0x00050014);
	write_mmio(n, LAPIC_LDR, ~0u);
	assert_int_equal(read_mmio(n, LAPIC_LDR), 0xff000000);
	write_mmio(n, LAPIC_DFR, 0x00000001);
	assert_int_equal(read_mmio(n, LAPIC_DFR), 0x0fffffff);
	write_mmio(n, LAPIC_TPR, ~0u);
	assert_int_equal(read_mmio(n, LAPIC_TPR), 0xff);
	write_mmio(n, LAPIC_TIMER_DIVIDE, ~0u);
	assert_int_equal(read_mmio(n, LAPIC_TIMER_DIVIDE), 0xb);
	write_mmio(n, LAPIC_ICR2, ~0u);
	assert_int_equal(read_mmio(n, LAPIC_ICR2), 0xff000000);
	write_mmio(n, LAPIC_SVR, ~0u);
	assert_int_equal(read_mmio(n, LAPIC_SVR), 0x3ff);
	write_mmio(n, LAPIC_LVT_TIMER, 0x6ffff);
	assert_int_equal(read_mmio(n, LAPIC_LVT_TIMER), 0x610ff);
	write_mmio(n, LAPIC_LVT_ERROR, 0xffff);
	assert_int_equal(read_mmio(n, LAPIC_LVT_ERROR), 0x10ff);
	write_mmio(n, LAPIC_LVT_PC, 0xffff);
	assert_int_equal(read_mmio(n, LAPIC_LVT_PC), 0x17ff);
	write_mmio(n, LAPIC_LVT_LINT1, 0xffff);
	assert_int_equal(read_mmio(n, LAPIC_LVT_LINT1), 0xf7ff);
	/* No CMCI entry without CMCI. */
	write_mmio(n, LAPIC_LVT_CMCI, 0x10030);
	assert_int_equal(read_mmio(n, LAPIC_LVT_CMCI), 0);
}

static void access_sizes(void **state)
{
	struct box box;
	struct node *n = &box.node[3];
	uint64_t val;

	setup(&box);
	assert_true(lapic_mmio_read(&n->lapic, LAPIC_ID + 3, 1, &val));
	assert_int_equal(val, 3);
	assert_true(lapic_mmio_read(&n->lapic, LAPIC_ID + 2, 2, &val));
	assert_int_equal(val, 0x300);
	assert_true(lapic_mmio_read(&n->lapic, LAPIC_ID + 2, 4, &val));
	assert_int_equal(val, 0);
	assert_true(lapic_mmio_write(&n->lapic, LAPIC_TPR, 1, 0x50));
	assert_true(lapic_mmio_write(&n->lapic, LAPIC_TPR + 4, 4, 0x50));
	assert_int_equal(read_mmio(n, LAPIC_TPR), 0);
}

static void disabled_page(void **state)
{
	struct lapic_config c = config;
	struct node *n;
	struct box box;
	uint64_t val;

	setup(&box);
	n = &box.node[1];
	assert_true(lapic_set_base(&n->lapic, LAPIC_DEFAULT_BASE, false));
	assert_true(lapic_mmio_read(&n->lapic, LAPIC_ID, 4, &val));
	assert_int_equal((uint32_t)val, 0xffffffff);
	c.mmio_hole = false;
	lapic_configure(&n->lapic, &c);
	assert_false(lapic_mmio_read(&n->lapic, LAPIC_ID, 4, &val));
	assert_false(lapic_mmio_write(&n->lapic, LAPIC_TPR, 4, 0));
	assert_int_equal(lapic_pending_vector(&n->lapic), -1);
	assert_true(lapic_accepts_pic(&n->lapic));
}

static void cmci_adds_an_entry(void **state)
{
	struct lapic_config c = config;
	struct node *n;
	struct box box;

	setup(&box);
	n = &box.node[0];
	c.cmci = c.directed_eoi = true;
	lapic_configure(&n->lapic, &c);
	assert_int_equal(read_mmio(n, LAPIC_VERSION), 0x01060014);
	assert_int_equal(read_mmio(n, LAPIC_LVT_CMCI), 0x10000);
	write_mmio(n, LAPIC_LVT_CMCI, 0x0f5);
	assert_int_equal(read_mmio(n, LAPIC_LVT_CMCI), 0x0f5);
	write_mmio(n, LAPIC_SVR, 0x11ff);
	assert_int_equal(read_mmio(n, LAPIC_SVR), 0x11ff);
	write_mmio(n, LAPIC_SVR, 0xff);
	assert_int_equal(read_mmio(n, LAPIC_LVT_CMCI), 0x100f5);
}

static void software_disable_masks_lvts(void **state)
{
	struct box box;
	struct node *n = &box.node[0];
	struct apic_message m = fixed(0, 0x50);

	setup(&box);
	write_mmio(n, LAPIC_LVT_LINT1, 0x400);
	send(&box, NULL, &m);
	write_mmio(n, LAPIC_SVR, 0xff);
	assert_int_equal(read_mmio(n, LAPIC_LVT_LINT1), 0x10400);
	write_mmio(n, LAPIC_LVT_LINT1, 0x400);
	assert_int_equal(read_mmio(n, LAPIC_LVT_LINT1), 0x10400);
	/* What was accepted stays; new ones are refused, but for NMI and its like. */
	assert_int_equal(lapic_pending_vector(&n->lapic), 0x50);
	m.vector = 0x60;
	assert_int_equal(send(&box, NULL, &m), 0);
	m.delivery = APIC_NMI;
	assert_int_equal(send(&box, NULL, &m), 1);
	assert_int_equal(n->events[APIC_NMI], 1);
}

/* ---- Priorities ---- */

static void priority_classes(void **state)
{
	struct box box;
	struct node *n = &box.node[0];
	struct apic_message m = fixed(0, 0x51);

	setup(&box);
	send(&box, NULL, &m);
	assert_int_equal(n->raised, 1);
	assert_int_equal(lapic_ack(&n->lapic), 0x51);
	assert_int_equal(read_mmio(n, LAPIC_PPR), 0x50);
	assert_int_equal(read_mmio(n, LAPIC_ISR + 0x20), BIT(0x51 - 64));
	assert_int_equal(read_mmio(n, LAPIC_IRR + 0x20), 0);
	m.vector = 0x5f; /* same class: waits */
	send(&box, NULL, &m);
	assert_int_equal(lapic_pending_vector(&n->lapic), -1);
	m.vector = 0x60;
	send(&box, NULL, &m);
	assert_int_equal(lapic_ack(&n->lapic), 0x60);
	assert_int_equal(lapic_eoi(&n->lapic), 0x60);
	assert_int_equal(lapic_eoi(&n->lapic), 0x51);
	assert_int_equal(n->eois, 2);
	assert_int_equal(lapic_ack(&n->lapic), 0x5f);
	lapic_eoi(&n->lapic);
	assert_int_equal(lapic_eoi(&n->lapic), -1); /* nothing in service */
	assert_int_equal(n->eois, 3);
}

static void task_priority(void **state)
{
	struct box box;
	struct node *n = &box.node[0];
	struct apic_message m = fixed(0, 0x51);

	setup(&box);
	lapic_set_tpr(&n->lapic, 5);
	assert_int_equal(read_mmio(n, LAPIC_TPR), 0x50);
	send(&box, NULL, &m);
	assert_int_equal(lapic_pending_vector(&n->lapic), -1);
	n->raised = 0;
	lapic_set_tpr(&n->lapic, 4);
	assert_int_equal(n->raised, 1);
	lapic_set_tpr(&n->lapic, 4); /* no change: no second look */
	assert_int_equal(n->raised, 1);
	assert_int_equal(lapic_pending_vector(&n->lapic), 0x51);
	assert_int_equal(lapic_get_tpr(&n->lapic), 4);
	lapic_ack(&n->lapic);
	/* PPR takes TPR's low bits only where TPR rules. */
	write_mmio(n, LAPIC_TPR, 0x5a);
	assert_int_equal(read_mmio(n, LAPIC_PPR), 0x5a);
	write_mmio(n, LAPIC_TPR, 0x4a);
	assert_int_equal(read_mmio(n, LAPIC_PPR), 0x50);
	assert_int_equal(n->tpr_accesses, 3);
}

static void trigger_mode_follows_eoi(void **state)
{
	struct box box;
	struct node *n = &box.node[0];
	struct apic_message m = fixed(0, 0x51);

	setup(&box);
	m.trigger = true;
	send(&box, NULL, &m);
	assert_int_equal(read_mmio(n, LAPIC_TMR + 0x20), BIT(0x51 - 64));
	assert_true(lapic_eoi_expected(&n->lapic, 0x51));
	lapic_ack(&n->lapic);
	write_mmio(n, LAPIC_EOI, 0);
	assert_int_equal(n->eoi_vector, 0x51);
	assert_true(n->eoi_level);
	assert_false(lapic_eoi_expected(&n->lapic, 0x51));
	m.trigger = false;
	send(&box, NULL, &m);
	lapic_ack(&n->lapic);
	write_mmio(n, LAPIC_EOI, 0);
	assert_false(n->eoi_level);
	m.trigger = true;
	m.level = false; /* de-assert */
	assert_int_equal(send(&box, NULL, &m), 0);
}

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

/* ---- x2APIC ---- */

static void base_transitions(void **state)
{
	const uint64_t off = LAPIC_DEFAULT_BASE, x = off | BIT(11), x2 = x | BIT(10);
	struct box box;
	struct lapic *l = &box.node[2].lapic;

	setup(&box);
	assert_false(lapic_set_base(l, off | BIT(10), false)); /* invalid */
	assert_false(lapic_set_base(l, x | 1, false));	       /* reserved */
	assert_false(lapic_set_base(l, x | BIT(41), false));
	assert_true(lapic_set_base(l, x2, false));
	assert_int_equal(lapic_reg(l, LAPIC_ID), 2);
	assert_int_equal(lapic_reg(l, LAPIC_LDR), 1 << 2);
	assert_false(lapic_set_base(l, x, false));
	assert_true(lapic_set_base(l, off, false));
	assert_false(lapic_set_base(l, x2, false));
	assert_true(lapic_set_base(l, x, false));
	assert_int_equal(lapic_reg(l, LAPIC_ID), 2 << 24);
	assert_true(lapic_set_base(l, x2, true));
	assert_true(lapic_set_base(l, x, true));
	assert_int_equal(lapic_reg(l, LAPIC_ID), 2 << 24);
	assert_true(lapic_set_base(l, 0xfed00000 | BIT(11), false));
	assert_true(lapic_mmio_hit(l, 0xfed00ff0));
	assert_false(lapic_mmio_hit(l, 0xfee00000));
}

static void no_x2apic_without_cpuid(void **state)
{
	struct lapic_config c = config;
	struct box box;

	setup(&box);
	c.x2apic = false;
	lapic_configure(&box.node[1].lapic, &c);
	assert_false(lapic_set_base(&box.node[1].lapic, 0xfee00c00, true));
	assert_true(read_msr_faults(&box.node[1], 0x802));
	assert_false(write_msr(&box.node[1], 0x808, 0));
}

static void msr_rules(void **state)
{
	struct box box;
	struct node *n = &box.node[3];

	setup(&box);
	to_x2apic(&box);
	assert_int_equal(read_msr(n, 0x802), 3);
	assert_int_equal(read_msr(n, 0x803), 0x50014);
	assert_int_equal(read_msr(n, 0x80d), 1 << 3);
	/* No such register, write-only, read-only. */
	assert_true(read_msr_faults(n, 0x800) && read_msr_faults(n, 0x809));
	assert_true(read_msr_faults(n, 0x80e) && read_msr_faults(n, 0x831));
	assert_true(read_msr_faults(n, 0x80b) && read_msr_faults(n, 0x83f));
	assert_true(read_msr_faults(n, 0x82f) && read_msr_faults(n, 0x840));
	assert_true(read_msr_faults(n, 0x8ff));
	assert_false(write_msr(n, 0x802, 3));
	assert_false(write_msr(n, 0x80d, 1));
	assert_false(write_msr(n, 0x810, 0));
	/* Reserved bits. */
	assert_false(write_msr(n, 0x808, 0x100));
	assert_false(write_msr(n, 0x808, BIT(32)));
	assert_true(write_msr(n, 0x808, 0xff));
	assert_true(write_msr(n, 0x808, 0));
	assert_false(write_msr(n, 0x80b, 1));
	assert_true(write_msr(n, 0x80b, 0));
	assert_false(write_msr(n, 0x80f, 0x400));
	assert_true(write_msr(n, 0x80f, 0x1ff));
	assert_false(write_msr(n, 0x828, 1));
	assert_true(write_msr(n, 0x828, 0));
	assert_false(write_msr(n, 0x835, BIT(17)));
	assert_true(write_msr(n, 0x835, 0x10700));
	assert_false(write_msr(n, 0x83e, 4));
	assert_false(write_msr(n, 0x83f, 0x100));
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

/* ---- Timer ---- */

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

/* ---- LVT ---- */

static void local_interrupts(void **state)
{
	struct box box;
	struct node *n = &box.node[1];

	setup(&box);
	assert_false(lapic_local_deliver(&n->lapic, LAPIC_LVT_PC));
	write_mmio(n, LAPIC_LVT_PC, 0x400);
	assert_true(lapic_local_deliver(&n->lapic, LAPIC_LVT_PC));
	assert_int_equal(n->events[APIC_NMI], 1);
	assert_int_equal(read_mmio(n, LAPIC_LVT_PC), 0x10400);
	write_mmio(n, LAPIC_LVT_LINT0, 0x400);
	assert_true(lapic_lint0_is_nmi(&n->lapic));
	write_mmio(n, LAPIC_LVT_LINT0, 0x700);
	assert_true(lapic_accepts_pic(&n->lapic));
	assert_false(lapic_local_deliver(&n->lapic, LAPIC_LVT_LINT0));
}

/* ---- State ---- */

static void state_moves(void **state)
{
	uint32_t page[LAPIC_STATE_SIZE / 4], again[LAPIC_STATE_SIZE / 4];
	struct apic_message m = fixed(1, 0x51);
	struct box a, b;

	setup(&a);
	setup(&b);
	write_mmio(&a.node[1], LAPIC_LVT_TIMER, 0x200ec);
	write_mmio(&a.node[1], LAPIC_TIMER_DIVIDE, 0xb);
	write_mmio(&a.node[1], LAPIC_TIMER_INITIAL, 1000000);
	write_mmio(&a.node[1], LAPIC_TPR, 0x20);
	send(&a, NULL, &m);
	a.ns += 300000;
	b.ns = 77000000;
	assert_int_equal(lapic_get_state(&a.node[1].lapic, page), 0);
	assert_int_equal(page[LAPIC_TIMER_CURRENT / 4], 700000);
	assert_int_equal(lapic_set_state(&b.node[1].lapic, page), 0);
	assert_true(b.node[1].armed == 77000000 + 700000);
	assert_int_equal(lapic_pending_vector(&b.node[1].lapic), 0x51);
	assert_int_equal(lapic_get_tpr(&b.node[1].lapic), 2);
	lapic_get_state(&b.node[1].lapic, again);
	assert_memory_equal(page, again, sizeof(page));
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

static void x2apic_id_formats(void **state)
{
	uint32_t page[LAPIC_STATE_SIZE / 4];
	struct lapic_config c = config;
	struct box box;
	struct node *n = &box.node[3];

	setup(&box);
	to_x2apic(&box);
	write_msr(n, 0x830, 0x1234567800004061);
	lapic_get_state(&n->lapic, page);
	assert_int_equal(page[LAPIC_ID / 4], 3 << 24);
	assert_int_equal(page[LAPIC_ICR / 4], 0x4061);
	assert_int_equal(page[LAPIC_ICR2 / 4], 0x12345678);
	page[LAPIC_ID / 4] = 9 << 24; /* ignored */
	page[LAPIC_LDR / 4] = 0;
	assert_int_equal(lapic_set_state(&n->lapic, page), 0);
	assert_int_equal(lapic_reg(&n->lapic, LAPIC_ID), 3);
	assert_int_equal(lapic_reg(&n->lapic, LAPIC_LDR), 1 << 3);
	c.id = 3;
	c.x2apic_format = true;
	lapic_configure(&n->lapic, &c);
	lapic_get_state(&n->lapic, page);
	assert_int_equal(page[LAPIC_ID / 4], 3);
	page[LAPIC_ID / 4] = 4;
	page[LAPIC_TPR / 4] = 0x70;
	assert_int_equal(lapic_set_state(&n->lapic, page), -EINVAL);
	assert_int_equal(lapic_get_tpr(&n->lapic), 0); /* nothing committed */
}

static void init_keeps_base_and_id(void **state)
{
	struct box box;
	struct node *n = &box.node[3];

	setup(&box);
	to_x2apic(&box);
	write_msr(n, 0x808, 0x30);
	write_msr(n, 0x838, 1000000);
	lapic_reset(&n->lapic, true);
	assert_true(lapic_x2apic(&n->lapic));
	assert_int_equal(read_msr(n, 0x802), 3);
	assert_int_equal(read_msr(n, 0x80d), 1 << 3);
	assert_int_equal(read_msr(n, 0x808), 0);
	assert_true(n->armed == LAPIC_NEVER);
	lapic_reset(&n->lapic, false);
	assert_false(lapic_x2apic(&n->lapic));
	assert_int_equal(read_mmio(n, LAPIC_ID), 3 << 24);
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

/* ---- Random programs ---- */

static void check_sense(struct box *box)
{
	for (unsigned i = 0; i < NR; i++) {
		struct lapic *l = &box->node[i].lapic;
		int vector = lapic_pending_vector(l), isr = lapic_highest_isr(l);

		assert_true(vector == -1 || vector >= 16);
		if (vector >= 0)
			assert_true((vector & 0xf0) > (isr & 0xf0) || isr < 0);
		assert_true(box->node[i].armed == lapic_timer_expiry(l) ||
			    l->timer_mode == BIT(18));
	}
}

static void random_programs_keep_sense(void **state)
{
	uint32_t page[LAPIC_STATE_SIZE / 4];
	uint64_t seed = 88172645463325252ull, val;
	struct box box;

	setup(&box);
	for (unsigned i = 0; i < 200000; i++) {
		seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
		struct lapic *l = &box.node[seed & 3].lapic;
		unsigned offset = (seed >> 8 & 0x3f) << 4;

		box.ns += seed >> 50;
		box.tsc += seed >> 49;
		switch (seed >> 2 & 7) {
		case 0:
			lapic_ack(l);
			break;
		case 1:
			lapic_eoi(l);
			break;
		case 2:
			lapic_mmio_read(l, offset, 4, &val);
			lapic_msr_read(l, 0x800 + (offset >> 4), &val);
			break;
		case 3:
			lapic_timer_fire(l);
			lapic_set_deadline(l, box.tsc + (seed >> 40));
			break;
		case 4:
			lapic_set_base(l, 0xfee00000 | (seed >> 20 & 0xc00), seed & 32);
			break;
		case 5:
			lapic_get_state(l, page);
			lapic_set_state(l, page);
			break;
		default:
			lapic_mmio_write(l, offset, 4, seed >> 16);
			lapic_msr_write(l, 0x800 + (offset >> 4), seed >> 40 & 0xff);
		}
		check_sense(&box);
	}
}

/* Each writable MSR takes all its defined bits and refuses one that is reserved. */
static void msr_bits(void **state)
{
	static const struct {
		uint32_t index;
		uint32_t good, bad;
	} cases[] = {
		{0x808, 0xff, BIT(8)},	   {0x80b, 0, BIT(0)},	      {0x80f, 0x3ff, BIT(13)},
		{0x828, 0, BIT(0)},	   {0x82f, 0x107ff, BIT(11)}, {0x832, 0x200ec, BIT(8)},
		{0x832, 0x400ec, BIT(19)}, {0x833, 0x107ff, BIT(11)}, {0x834, 0x107ff, BIT(13)},
		{0x835, 0x1a7ff, BIT(17)}, {0x836, 0x1a7ff, BIT(11)}, {0x837, 0x100ff, BIT(8)},
		{0x838, 0x12345678, 0},	   {0x83e, 0xb, BIT(2)},      {0x83f, 0x41, BIT(8)},
	};
	struct lapic_config c = config;
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	c.bsp = c.cmci = true;
	lapic_configure(&n->lapic, &c);
	to_x2apic(&box);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_true(write_msr(n, cases[i].index, cases[i].good));
		assert_false(write_msr(n, cases[i].index, BIT(32)));
		if (cases[i].bad)
			assert_false(write_msr(n, cases[i].index, cases[i].bad));
		if (cases[i].index != 0x80b && cases[i].index != 0x83f && cases[i].index != 0x838)
			assert_int_equal(read_msr(n, cases[i].index), cases[i].good);
	}
	/* Without CMCI there is no such MSR. */
	c.cmci = false;
	lapic_configure(&n->lapic, &c);
	assert_false(write_msr(n, 0x82f, 0x10000));
}

static void configuring_again_keeps_registers(void **state)
{
	struct lapic_config c = config;
	struct box box;
	struct node *n = &box.node[0];

	setup(&box);
	c.cmci = c.directed_eoi = true;
	lapic_configure(&n->lapic, &c);
	write_mmio(n, LAPIC_LVT_CMCI, 0xf5);
	lapic_configure(&n->lapic, &c);
	assert_int_equal(read_mmio(n, LAPIC_LVT_CMCI), 0xf5);
	c.x2apic = false; /* EOI suppression came with x2APIC */
	lapic_configure(&n->lapic, &c);
	assert_int_equal(read_mmio(n, LAPIC_VERSION), 0x00060014);
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

static void extint_messages_are_refused(void **state)
{
	struct apic_message m = fixed(0, 0x51);
	struct box box;

	setup(&box);
	m.delivery = APIC_EXTINT;
	assert_int_equal(send(&box, NULL, &m), 0);
	assert_int_equal(box.node[0].events[APIC_EXTINT], 0);
}

static void only_pmi_masks_itself(void **state)
{
	struct lapic_config c = config;
	struct box box;
	struct node *n = &box.node[1];

	setup(&box);
	write_mmio(n, LAPIC_LVT_LINT1, 0x400);
	assert_true(lapic_local_deliver(&n->lapic, LAPIC_LVT_LINT1));
	assert_int_equal(read_mmio(n, LAPIC_LVT_LINT1), 0x400);
	c.id = 1;
	c.intel = false;
	lapic_configure(&n->lapic, &c);
	write_mmio(n, LAPIC_LVT_PC, 0x400);
	assert_true(lapic_local_deliver(&n->lapic, LAPIC_LVT_PC));
	assert_int_equal(read_mmio(n, LAPIC_LVT_PC), 0x400);
	/* A level-triggered LINT input is asserted. */
	write_mmio(n, LAPIC_LVT_LINT1, 0x8061);
	assert_true(lapic_local_deliver(&n->lapic, LAPIC_LVT_LINT1));
	assert_int_equal(lapic_pending_vector(&n->lapic), 0x61);
	assert_int_equal(read_mmio(n, LAPIC_TMR + 0x30), BIT(1));
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
		cmocka_unit_test(reset_values),
		cmocka_unit_test(register_masks),
		cmocka_unit_test(access_sizes),
		cmocka_unit_test(disabled_page),
		cmocka_unit_test(cmci_adds_an_entry),
		cmocka_unit_test(software_disable_masks_lvts),
		cmocka_unit_test(priority_classes),
		cmocka_unit_test(task_priority),
		cmocka_unit_test(trigger_mode_follows_eoi),
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
		cmocka_unit_test(base_transitions),
		cmocka_unit_test(no_x2apic_without_cpuid),
		cmocka_unit_test(msr_rules),
		cmocka_unit_test(x2apic_icr),
		cmocka_unit_test(one_shot_timer),
		cmocka_unit_test(stopping_the_timer),
		cmocka_unit_test(divisors),
		cmocka_unit_test(periodic_timer),
		cmocka_unit_test(deadline_timer),
		cmocka_unit_test(local_interrupts),
		cmocka_unit_test(state_moves),
		cmocka_unit_test(one_shot_restores_as_due),
		cmocka_unit_test(x2apic_id_formats),
		cmocka_unit_test(init_keeps_base_and_id),
		cmocka_unit_test(acceptance_loses_nothing),
		cmocka_unit_test(msr_bits),
		cmocka_unit_test(configuring_again_keeps_registers),
		cmocka_unit_test(vector_limits),
		cmocka_unit_test(matching_by_shorthand),
		cmocka_unit_test(extint_messages_are_refused),
		cmocka_unit_test(only_pmi_masks_itself),
		cmocka_unit_test(timer_of_a_disabled_apic),
		cmocka_unit_test(deadline_over_a_restore),
		cmocka_unit_test(reserved_timer_mode),
		cmocka_unit_test(one_shot_past_its_end_reads_zero),
		cmocka_unit_test(random_programs_keep_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
