/* SPDX-License-Identifier: MIT */
/* Local APICs: registers, priorities, modes, LVT, state; expectations from the SDM. */
#include "lapic_box.h"

#include <errno.h>

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
		cmocka_unit_test(base_transitions),
		cmocka_unit_test(no_x2apic_without_cpuid),
		cmocka_unit_test(msr_rules),
		cmocka_unit_test(local_interrupts),
		cmocka_unit_test(state_moves),
		cmocka_unit_test(x2apic_id_formats),
		cmocka_unit_test(init_keeps_base_and_id),
		cmocka_unit_test(msr_bits),
		cmocka_unit_test(configuring_again_keeps_registers),
		cmocka_unit_test(only_pmi_masks_itself),
		cmocka_unit_test(random_programs_keep_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
