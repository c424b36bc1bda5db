/* SPDX-License-Identifier: MIT */
/* Local APICs on one bus, under a clock that the test turns. */
#ifndef TESTS_UNIT_LAPIC_BOX_H
#define TESTS_UNIT_LAPIC_BOX_H

#include "silicon/chips/lapic.h"

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

static inline struct lapic *bus_at(void *opaque, unsigned i)
{
	return &((struct box *)opaque)->node[i].lapic;
}

static inline int send(struct box *box, struct lapic *source, const struct apic_message *msg)
{
	const struct lapic_bus bus = {
		.at = bus_at, .opaque = box, .nr = NR, .broadcast_quirk = box->quirk};

	return lapic_deliver(&bus, source, msg);
}

static inline void on_send(void *opaque, const struct apic_message *msg)
{
	struct node *n = opaque;

	n->box->reached = send(n->box, &n->lapic, msg);
}

static inline void on_eoi(void *opaque, uint8_t vector, bool level)
{
	struct node *n = opaque;

	n->eois++;
	n->eoi_vector = vector;
	n->eoi_level = level;
}

static inline void on_timer(void *opaque, uint64_t expiry)
{
	((struct node *)opaque)->armed = expiry;
}

static inline uint64_t on_now(void *opaque)
{
	return ((struct node *)opaque)->box->ns;
}

static inline uint64_t on_tsc(void *opaque)
{
	return ((struct node *)opaque)->box->tsc;
}

static inline void on_changed(void *opaque)
{
	((struct node *)opaque)->changed++;
}

static inline void on_tpr(void *opaque, bool write)
{
	((struct node *)opaque)->tpr_accesses++;
}

static inline void on_told(void *opaque)
{
	((struct node *)opaque)->told++;
}

static inline void on_raised(void *opaque)
{
	__atomic_fetch_add(&((struct node *)opaque)->raised, 1, __ATOMIC_SEQ_CST);
}

static inline bool on_event(void *opaque, enum apic_delivery what, uint8_t vector)
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

static inline void write_mmio(struct node *n, unsigned offset, uint32_t val)
{
	assert_true(lapic_mmio_write(&n->lapic, offset, 4, val));
}

static inline uint32_t read_mmio(struct node *n, unsigned offset)
{
	uint64_t val;

	assert_true(lapic_mmio_read(&n->lapic, offset, 4, &val));
	return (uint32_t)val;
}

static inline bool write_msr(struct node *n, uint32_t index, uint64_t val)
{
	return lapic_msr_write(&n->lapic, index, val);
}

static inline uint64_t read_msr(struct node *n, uint32_t index)
{
	uint64_t val;

	assert_true(lapic_msr_read(&n->lapic, index, &val));
	return val;
}

static inline bool read_msr_faults(struct node *n, uint32_t index)
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
static inline void setup(struct box *box)
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

static inline void to_x2apic(struct box *box)
{
	for (unsigned i = 0; i < NR; i++) {
		struct lapic *l = &box->node[i].lapic;

		assert_true(lapic_set_base(l, lapic_get_base(l) | APIC_BASE_X2APIC, false));
	}
}

static inline struct apic_message fixed(uint32_t dest, uint8_t vector)
{
	return (struct apic_message){.dest = dest, .vector = vector, .level = true};
}

/* Bit i: node i has vector requested; clears it again. */
static inline unsigned takers(struct box *box, uint8_t vector)
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

static inline unsigned deliver(struct box *box, const struct apic_message *msg)
{
	send(box, NULL, msg);
	return takers(box, msg->vector);
}

#endif
