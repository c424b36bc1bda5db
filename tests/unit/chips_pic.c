/* SPDX-License-Identifier: MIT */
/* The 8259A pair: each test programs it as the data sheet says and looks at pins and ports. */
#include "silicon/chips/pic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

struct board {
	struct pic pic;
	unsigned raised; /* INTR going high */
	unsigned eois[PIC_NR_PINS];
	unsigned masked[PIC_NR_PINS];
};

static void on_intr(void *opaque, bool level)
{
	((struct board *)opaque)->raised += level;
}

static void on_eoi(void *opaque, unsigned irq)
{
	((struct board *)opaque)->eois[irq]++;
}

static void on_mask(void *opaque, unsigned irq, bool masked)
{
	((struct board *)opaque)->masked[irq] += masked ? 1 : 100;
}

static const struct pic_ops ops = {.intr = on_intr, .eoi = on_eoi, .mask = on_mask};

static void out(struct board *b, uint16_t port, uint8_t val)
{
	assert_true(pic_io_write(&b->pic, port, val));
}

static uint8_t in(struct board *b, uint16_t port)
{
	uint8_t val;

	assert_true(pic_io_read(&b->pic, port, &val));
	return val;
}

/* The BIOS's initialisation, with vectors 20h and 28h; icw4 e.g. 1 = 8086 mode. */
static void setup(struct board *b, uint8_t icw4)
{
	memset(b, 0, sizeof(*b));
	pic_init(&b->pic, &ops, b);
	for (unsigned i = 0; i < 2; i++) {
		uint16_t port = i ? 0xa0 : 0x20;

		out(b, port, 0x11);
		out(b, port + 1, 0x20 + i * 8);
		out(b, port + 1, i ? 2 : 4);
		out(b, port + 1, icw4);
	}
	b->raised = 0;
}

static int set_irq(struct pic *pic, unsigned irq, bool level)
{
	return pic_set_irq_from(pic, irq, 0, level);
}

static void pulse(struct board *b, unsigned irq)
{
	set_irq(&b->pic, irq, true);
	set_irq(&b->pic, irq, false);
}

static void edge_is_latched(void **state)
{
	struct board b;

	setup(&b, 1);
	assert_int_equal(set_irq(&b.pic, 4, true), 1);
	assert_true(pic_output(&b.pic));
	assert_int_equal(set_irq(&b.pic, 4, false), 1);
	assert_true(pic_output(&b.pic));
	assert_int_equal(in(&b, 0x20), 0x10); /* IRR */
	assert_int_equal(pic_read_irq(&b.pic), 0x24);
	assert_false(pic_output(&b.pic));
	assert_int_equal(in(&b, 0x20), 0);
	out(&b, 0x20, 0x0b);
	assert_int_equal(in(&b, 0x20), 0x10); /* ISR */
	out(&b, 0x20, 0x20);
	assert_int_equal(in(&b, 0x20), 0);
	assert_int_equal(b.eois[4], 1);
}

static void held_edge_makes_one_request(void **state)
{
	struct board b;

	setup(&b, 1);
	set_irq(&b.pic, 4, true);
	pic_read_irq(&b.pic);
	out(&b, 0x20, 0x20);
	set_irq(&b.pic, 4, true);
	assert_false(pic_output(&b.pic));
}

static void coalesced_and_masked_answers(void **state)
{
	struct board b;

	setup(&b, 1);
	pulse(&b, 3);
	assert_int_equal(set_irq(&b.pic, 3, true), 0);
	out(&b, 0x21, 0x08);
	assert_int_equal(set_irq(&b.pic, 3, false), -1);
	assert_int_equal(b.masked[3], 1);
	assert_false(pic_output(&b.pic));
	out(&b, 0x21, 0);
	assert_int_equal(b.masked[3], 101);
	assert_true(pic_output(&b.pic));
}

static void level_follows_the_line(void **state)
{
	struct board b;

	setup(&b, 1);
	out(&b, 0x4d0, 0xff);
	assert_int_equal(in(&b, 0x4d0), 0xf8); /* inputs 0 to 2 stay edge */
	out(&b, 0x4d1, 0xff);
	assert_int_equal(in(&b, 0x4d1), 0xde);
	set_irq(&b.pic, 5, true);
	assert_int_equal(pic_read_irq(&b.pic), 0x25);
	assert_false(pic_output(&b.pic)); /* in service holds it back */
	out(&b, 0x20, 0x20);
	assert_true(pic_output(&b.pic)); /* still high */
	set_irq(&b.pic, 5, false);
	assert_false(pic_output(&b.pic));
}

static void sources_are_ored(void **state)
{
	struct board b;

	setup(&b, 1);
	out(&b, 0x4d0, 0x20);
	pic_set_irq_from(&b.pic, 5, 0, true);
	pic_set_irq_from(&b.pic, 5, 1, true);
	pic_set_irq_from(&b.pic, 5, 0, false);
	assert_true(pic_output(&b.pic));
	pic_set_irq_from(&b.pic, 5, 1, false);
	assert_false(pic_output(&b.pic));
}

static void priorities_nest(void **state)
{
	struct board b;

	setup(&b, 1);
	pulse(&b, 6);
	pulse(&b, 3);
	assert_int_equal(pic_read_irq(&b.pic), 0x23);
	assert_false(pic_output(&b.pic)); /* 6 waits for 3 */
	pulse(&b, 1);
	assert_int_equal(pic_read_irq(&b.pic), 0x21);
	out(&b, 0x20, 0x20);
	assert_false(pic_output(&b.pic));
	out(&b, 0x20, 0x20);
	assert_int_equal(pic_read_irq(&b.pic), 0x26);
}

static void slave_comes_by_cascade(void **state)
{
	struct board b;

	setup(&b, 1);
	pulse(&b, 12);
	assert_int_equal(pic_read_irq(&b.pic), 0x2c);
	out(&b, 0x20, 0x0b);
	assert_int_equal(in(&b, 0x20), 0x04);
	out(&b, 0xa0, 0x20);
	out(&b, 0x20, 0x20);
	assert_int_equal(b.eois[12], 1);
	assert_int_equal(b.eois[2], 1);
	assert_int_equal(in(&b, 0x20), 0);
}

static void spurious_vectors(void **state)
{
	struct board b;

	setup(&b, 1);
	assert_int_equal(pic_read_irq(&b.pic), 0x27);
	out(&b, 0x20, 0x0b);
	assert_int_equal(in(&b, 0x20), 0); /* no ISR bit */
	/* The slave's level request is withdrawn before INTA. */
	out(&b, 0x4d1, 0x08);
	set_irq(&b.pic, 11, true);
	set_irq(&b.pic, 11, false);
	assert_int_equal(pic_read_irq(&b.pic), 0x2f);
	assert_int_equal(in(&b, 0x20), 0x04);
}

static void auto_eoi_and_rotation(void **state)
{
	struct board b;

	setup(&b, 3);
	pulse(&b, 3);
	assert_int_equal(pic_read_irq(&b.pic), 0x23);
	assert_int_equal(b.eois[3], 1);
	out(&b, 0x20, 0x80); /* rotate in automatic EOI mode */
	pulse(&b, 3);
	pic_read_irq(&b.pic);
	pulse(&b, 3);
	pulse(&b, 4);
	assert_int_equal(pic_read_irq(&b.pic), 0x24);
}

static void rotate_and_set_priority(void **state)
{
	struct board b;

	setup(&b, 1);
	out(&b, 0x20, 0xc4); /* input 4 is the lowest: 5 is the highest */
	pulse(&b, 0);
	pulse(&b, 5);
	assert_int_equal(pic_read_irq(&b.pic), 0x25);
	out(&b, 0x20, 0xa0); /* rotate on non-specific EOI: 5 is the lowest */
	pulse(&b, 5);
	assert_int_equal(pic_read_irq(&b.pic), 0x20);
	out(&b, 0x20, 0x60); /* specific EOI of 0 */
	assert_int_equal(b.eois[0], 1);
	assert_int_equal(pic_read_irq(&b.pic), 0x25);
}

static void special_mask_lets_lower_pass(void **state)
{
	struct board b;

	setup(&b, 1);
	pulse(&b, 2 + 1);
	pic_read_irq(&b.pic);
	out(&b, 0x20, 0x68);
	out(&b, 0x21, 0x08);
	pulse(&b, 6);
	assert_int_equal(pic_read_irq(&b.pic), 0x26);
}

static void special_fully_nested_slave(void **state)
{
	struct board b;

	setup(&b, 0x11);
	pulse(&b, 12);
	pic_read_irq(&b.pic);
	pulse(&b, 9);
	assert_int_equal(pic_read_irq(&b.pic), 0x29);
	setup(&b, 0x01);
	pulse(&b, 12);
	pic_read_irq(&b.pic);
	pulse(&b, 9);
	assert_false(pic_output(&b.pic));
}

static void poll_command(void **state)
{
	struct board b;

	setup(&b, 1);
	pulse(&b, 6);
	out(&b, 0x20, 0x0c);
	assert_int_equal(in(&b, 0x20), 0x86);
	assert_false(pic_output(&b.pic));
	out(&b, 0x20, 0x0c);
	assert_int_equal(in(&b, 0x20) & 0x80, 0);
}

static void icw1_forgets_edges(void **state)
{
	struct board b;

	setup(&b, 1);
	out(&b, 0x4d0, 0x20);
	pulse(&b, 3);
	set_irq(&b.pic, 5, true);
	out(&b, 0x20, 0x11);
	assert_int_equal(in(&b, 0x20), 0x20);
	out(&b, 0x21, 0x40);
	out(&b, 0x21, 4);
	out(&b, 0x21, 1);
	out(&b, 0x21, 0);
	assert_int_equal(pic_read_irq(&b.pic), 0x45);
}

static void state_moves(void **state)
{
	struct board a, b;
	struct pic_state half[2];

	setup(&a, 1);
	setup(&b, 1);
	pulse(&a, 12);
	for (unsigned i = 0; i < 2; i++) {
		pic_get_state(&a.pic, i, &half[i]);
		pic_set_state(&b.pic, i, &half[i]);
	}
	assert_int_equal(half[1].irr, 0x10);
	assert_int_equal(half[1].irq_base, 0x28);
	assert_true(pic_output(&b.pic));
	assert_int_equal(pic_read_irq(&b.pic), 0x2c);
}

static void other_ports_are_refused(void **state)
{
	struct board b;
	uint8_t val;

	setup(&b, 1);
	assert_false(pic_io_read(&b.pic, 0x22, &val));
	assert_false(pic_io_write(&b.pic, 0x4d2, 0));
}

/* Whatever software does, INTR is high only if INTA finds a vector of the two ranges. */
static void random_programs_keep_sense(void **state)
{
	static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
	uint64_t seed = 88172645463325252ull;
	struct board b;

	setup(&b, 1);
	for (unsigned i = 0; i < 200000; i++) {
		seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
		uint8_t val = seed >> 16, irq = seed >> 24 & 15;

		switch (seed & 7) {
		case 0:
			pic_read_irq(&b.pic);
			break;
		case 1:
		case 2:
			out(&b, ports[(seed >> 32) % 6], val);
			break;
		case 3:
			in(&b, ports[(seed >> 32) % 6]);
			break;
		default:
			pic_set_irq_from(&b.pic, irq, val & 31, seed & BIT(40));
		}
		assert_int_equal(b.pic.half[0].elcr & 7, 0);
		assert_true(b.pic.half[0].priority_add < 8 && b.pic.half[1].priority_add < 8);
		assert_true(b.pic.half[0].init_state < 4);
		if (pic_output(&b.pic))
			assert_int_not_equal(b.pic.half[0].irr & ~b.pic.half[0].imr, 0);
	}
}

static void first_inputs_of_both(void **state)
{
	struct board b;

	setup(&b, 1);
	pulse(&b, 0);
	assert_int_equal(b.raised, 1);
	assert_int_equal(pic_read_irq(&b.pic), 0x20);
	out(&b, 0x20, 0x20);
	pulse(&b, 8);
	assert_int_equal(b.raised, 2);
	assert_int_equal(pic_read_irq(&b.pic), 0x28);
}

/* INTR falls with INTA and rises again for the next one: the owner must hear of it. */
static void next_request_raises_again(void **state)
{
	struct board b;

	setup(&b, 3);
	pulse(&b, 3);
	pulse(&b, 4);
	assert_int_equal(b.raised, 1);
	pic_read_irq(&b.pic);
	assert_int_equal(b.raised, 2);
}

static void released_sources(void **state)
{
	struct board b;

	setup(&b, 1);
	out(&b, 0x4d0, 0x20);
	pic_set_irq_from(&b.pic, 5, 3, true);
	pic_set_irq_from(&b.pic, 5, 4, true);
	pic_set_irq_from(&b.pic, 5, 3, false);
	pic_set_irq_from(&b.pic, 5, 0, false);
	assert_true(pic_output(&b.pic));
	pic_set_irq_from(&b.pic, 5, 4, false);
	pic_set_irq_from(&b.pic, 5, 0, false);
	assert_false(pic_output(&b.pic));
}

static void poll_of_the_slave(void **state)
{
	struct board b;

	setup(&b, 1);
	pulse(&b, 9);
	out(&b, 0xa0, 0x0c);
	assert_int_equal(in(&b, 0xa0), 0x81);
	assert_int_equal(b.eois[9], 1);
	assert_int_equal(in(&b, 0x20), 0); /* the cascade's request went too */
	assert_false(pic_output(&b.pic));
}

static void rotating_specific_eoi(void **state)
{
	struct board b;

	setup(&b, 1);
	pulse(&b, 3);
	pic_read_irq(&b.pic);
	out(&b, 0x20, 0xe3); /* 3 is the lowest now, 4 the highest */
	assert_int_equal(b.eois[3], 1);
	pulse(&b, 3);
	pulse(&b, 1);
	pulse(&b, 4);
	assert_int_equal(pic_read_irq(&b.pic), 0x24);
	out(&b, 0x20, 0x20);
	assert_int_equal(pic_read_irq(&b.pic), 0x21);
	out(&b, 0x20, 0x20);
	assert_int_equal(pic_read_irq(&b.pic), 0x23);
}

/* In special mask mode a non-specific EOI passes over masked inputs. */
static void special_mask_and_eoi(void **state)
{
	struct board b;

	setup(&b, 1);
	pulse(&b, 3);
	pic_read_irq(&b.pic);
	out(&b, 0x20, 0x68);
	out(&b, 0x21, 0x08);
	pulse(&b, 6);
	pic_read_irq(&b.pic);
	out(&b, 0x20, 0x20);
	assert_int_equal(b.eois[6], 1);
	assert_int_equal(b.eois[3], 0);
}

static void icw1_lowers_intr(void **state)
{
	struct board b;

	setup(&b, 1);
	out(&b, 0x4d0, 0x20);
	pulse(&b, 3);
	out(&b, 0x20, 0x11);
	assert_false(pic_output(&b.pic));
	assert_int_equal(b.eois[3], 1);
	assert_int_equal(b.eois[5], 0);
	setup(&b, 1);
	out(&b, 0x4d0, 0x20);
	set_irq(&b.pic, 5, true);
	out(&b, 0x20, 0x11);
	assert_int_equal(b.eois[5], 0); /* a level stays */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(edge_is_latched),
		cmocka_unit_test(held_edge_makes_one_request),
		cmocka_unit_test(coalesced_and_masked_answers),
		cmocka_unit_test(level_follows_the_line),
		cmocka_unit_test(sources_are_ored),
		cmocka_unit_test(priorities_nest),
		cmocka_unit_test(slave_comes_by_cascade),
		cmocka_unit_test(spurious_vectors),
		cmocka_unit_test(auto_eoi_and_rotation),
		cmocka_unit_test(rotate_and_set_priority),
		cmocka_unit_test(special_mask_lets_lower_pass),
		cmocka_unit_test(special_fully_nested_slave),
		cmocka_unit_test(poll_command),
		cmocka_unit_test(icw1_forgets_edges),
		cmocka_unit_test(state_moves),
		cmocka_unit_test(other_ports_are_refused),
		cmocka_unit_test(first_inputs_of_both),
		cmocka_unit_test(next_request_raises_again),
		cmocka_unit_test(released_sources),
		cmocka_unit_test(poll_of_the_slave),
		cmocka_unit_test(rotating_specific_eoi),
		cmocka_unit_test(special_mask_and_eoi),
		cmocka_unit_test(icw1_lowers_intr),
		cmocka_unit_test(random_programs_keep_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
