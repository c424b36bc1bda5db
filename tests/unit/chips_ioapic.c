/* SPDX-License-Identifier: MIT */
/* The I/O APIC: messages out, EOIs in, registers as the 82093AA data sheet has them. */
#include "silicon/chips/ioapic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

struct board {
	struct ioapic ioapic;
	struct apic_message last;
	unsigned sent;
	int answer; /* of deliver() */
	unsigned eois[IOAPIC_NR_PINS];
	int drop_on_eoi; /* pin whose line eoi() lowers, or -1 */
	bool resamples;
	unsigned delays, routes, masks;
};

/* By the first of those that may drive it, who wants no answer. */
static int set_irq(struct ioapic *ioapic, unsigned pin, bool level)
{
	return ioapic_set_irq_from(ioapic, pin, 0, level, false);
}

static int on_deliver(void *opaque, const struct apic_message *msg)
{
	struct board *b = opaque;

	b->last = *msg;
	b->sent++;
	return b->answer;
}

static void on_eoi(void *opaque, unsigned pin)
{
	struct board *b = opaque;

	b->eois[pin]++;
	if (b->drop_on_eoi == (int)pin)
		set_irq(&b->ioapic, pin, false);
}

static bool on_resample(void *opaque, unsigned pin)
{
	return ((struct board *)opaque)->resamples;
}

static void on_mask(void *opaque, unsigned pin, bool masked)
{
	((struct board *)opaque)->masks++;
}

static void on_routes(void *opaque)
{
	((struct board *)opaque)->routes++;
}

static void on_delay(void *opaque, uint64_t ns)
{
	((struct board *)opaque)->delays++;
}

static const struct ioapic_ops ops = {
	.deliver = on_deliver,
	.eoi = on_eoi,
	.resample = on_resample,
	.mask = on_mask,
	.routes = on_routes,
	.delay = on_delay,
};

static void setup(struct board *b)
{
	memset(b, 0, sizeof(*b));
	b->answer = 1;
	b->drop_on_eoi = -1;
	ioapic_init(&b->ioapic, &ops, b);
}

static uint32_t read_index(struct board *b, uint8_t index)
{
	ioapic_write(&b->ioapic, 0, 4, index);
	return (uint32_t)ioapic_read(&b->ioapic, 0x10, 4);
}

static void write_index(struct board *b, uint8_t index, uint32_t val)
{
	ioapic_write(&b->ioapic, 0, 4, index);
	ioapic_write(&b->ioapic, 0x10, 4, val);
}

static void route(struct board *b, unsigned pin, uint32_t low, uint32_t high)
{
	write_index(b, 0x11 + 2 * pin, high);
	write_index(b, 0x10 + 2 * pin, low);
}

static void registers(void **state)
{
	struct board b;

	setup(&b);
	assert_int_equal(read_index(&b, 1), 0x00170011);
	write_index(&b, 1, 0xffffffff);
	assert_int_equal(read_index(&b, 1), 0x00170011);
	write_index(&b, 0, 0xff000000);
	assert_int_equal(read_index(&b, 0), 0x0f000000);
	assert_int_equal(read_index(&b, 2), 0x0f000000);
	for (unsigned pin = 0; pin < 24; pin++)
		assert_int_equal(read_index(&b, 0x10 + 2 * pin), 0x00010000);
	/* No register: ones; no EOI register at 40h. */
	assert_int_equal(read_index(&b, 0x40), 0xffffffff);
	assert_int_equal(ioapic_read(&b.ioapic, 0x40, 4), 0);
	assert_int_equal(ioapic_read(&b.ioapic, 0, 1), 0x40);
}

static void access_sizes(void **state)
{
	struct board b;

	setup(&b);
	ioapic_write(&b.ioapic, 0, 1, 0xffffff12);
	assert_int_equal(ioapic_read(&b.ioapic, 0, 4), 0x12);
	ioapic_write(&b.ioapic, 0x10, 8, 0xdeadbeef00011234);
	assert_int_equal(read_index(&b, 0x12), 0x00010234);
	assert_int_equal(ioapic_read(&b.ioapic, 0x10, 1), 0x34);
	assert_int_equal(ioapic_read(&b.ioapic, 0x10, 8) >> 32, 0);
}

static void edge_sends_once_a_rise(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 4, 0x0000, 0x05000000);
	route(&b, 4, 0x0941, 0x05000000);
	assert_int_equal(set_irq(&b.ioapic, 4, true), 1);
	assert_int_equal(set_irq(&b.ioapic, 4, true), 0);
	assert_int_equal(b.sent, 1);
	assert_int_equal(b.last.vector, 0x41);
	assert_int_equal(b.last.delivery, APIC_LOWEST);
	assert_int_equal(b.last.dest, 5);
	assert_true(b.last.logical);
	assert_false(b.last.trigger);
	set_irq(&b.ioapic, 4, false);
	set_irq(&b.ioapic, 4, true);
	assert_int_equal(b.sent, 2);
}

static void masked_pin_answers(void **state)
{
	struct board b;

	setup(&b);
	assert_int_equal(set_irq(&b.ioapic, 4, true), -1);
	assert_int_equal(b.sent, 0);
	/* An edge lost to a mask stays lost, as on the chip. */
	route(&b, 4, 0x41, 0);
	assert_int_equal(b.sent, 0);
	assert_int_equal(b.masks, 1);
}

static void level_waits_for_eoi(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 9, 0x8051, 0);
	set_irq(&b.ioapic, 9, true);
	assert_int_equal(read_index(&b, 0x22), 0xc051);
	assert_true(b.last.trigger);
	assert_int_equal(set_irq(&b.ioapic, 9, true), -1);
	ioapic_eoi(&b.ioapic, 0x52, true); /* another vector */
	assert_int_equal(b.sent, 1);
	ioapic_eoi(&b.ioapic, 0x51, true);
	assert_int_equal(b.sent, 2); /* still high */
	b.drop_on_eoi = 9;
	ioapic_eoi(&b.ioapic, 0x51, true);
	assert_int_equal(b.sent, 2);
	assert_int_equal(b.eois[9], 2);
	assert_int_equal(read_index(&b, 0x22), 0x8051);
}

static void suppressed_broadcast_only_notifies(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 9, 0x8051, 0);
	set_irq(&b.ioapic, 9, true);
	ioapic_eoi(&b.ioapic, 0x51, false);
	assert_int_equal(b.eois[9], 1);
	assert_int_equal(read_index(&b, 0x22), 0xc051);
}

static void refused_level_leaves_no_remote_irr(void **state)
{
	struct board b;

	setup(&b);
	b.answer = 0;
	route(&b, 9, 0x8051, 0);
	assert_int_equal(set_irq(&b.ioapic, 9, true), 0);
	assert_int_equal(read_index(&b, 0x22), 0x8051);
}

static void switch_to_edge_clears_remote_irr(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 9, 0x8051, 0);
	set_irq(&b.ioapic, 9, true);
	write_index(&b, 0x22, 0x18051); /* remote IRR is read-only */
	assert_int_equal(read_index(&b, 0x22), 0x1c051);
	write_index(&b, 0x22, 0x10051);
	write_index(&b, 0x22, 0x18051);
	assert_int_equal(read_index(&b, 0x22), 0x18051);
	write_index(&b, 0x22, 0x08051);
	assert_int_equal(b.sent, 2);
}

static void unmasking_serves_or_resamples(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 9, 0x18051, 0);
	set_irq(&b.ioapic, 9, true);
	write_index(&b, 0x22, 0x8051);
	assert_int_equal(b.sent, 1);
	setup(&b);
	b.resamples = true;
	route(&b, 9, 0x18051, 0);
	set_irq(&b.ioapic, 9, true);
	write_index(&b, 0x22, 0x8051);
	assert_int_equal(b.sent, 0);
	assert_int_equal(b.ioapic.state.irr, 0);
}

static void sources_are_ored(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 9, 0x8051, 0);
	ioapic_set_irq_from(&b.ioapic, 9, 0, true, false);
	ioapic_set_irq_from(&b.ioapic, 9, 2, true, false);
	ioapic_set_irq_from(&b.ioapic, 9, 0, false, false);
	assert_int_equal(b.ioapic.state.irr, BIT(9));
	ioapic_set_irq_from(&b.ioapic, 9, 2, false, false);
	assert_int_equal(b.ioapic.state.irr, 0);
}

static void rtc_ticks_coalesce_until_eoi(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 8, 0x61, 0);
	assert_int_equal(ioapic_set_irq_from(&b.ioapic, 8, 0, true, true), 1);
	ioapic_set_irq_from(&b.ioapic, 8, 0, false, true);
	assert_int_equal(ioapic_set_irq_from(&b.ioapic, 8, 0, true, true), 0);
	ioapic_set_irq_from(&b.ioapic, 8, 0, false, true);
	ioapic_eoi(&b.ioapic, 0x61, false);
	assert_int_equal(ioapic_set_irq_from(&b.ioapic, 8, 0, true, true), 1);
	assert_int_equal(b.sent, 2);
}

static void rtc_survives_reprogramming(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 8, 0x61, 0);
	ioapic_set_irq_from(&b.ioapic, 8, 0, true, true);
	ioapic_set_irq_from(&b.ioapic, 8, 0, false, true);
	write_index(&b, 0x20, 0x71); /* the EOI to come is of the old vector */
	assert_true(ioapic_knows_vector(&b.ioapic, 0x61));
	assert_int_equal(ioapic_set_irq_from(&b.ioapic, 8, 0, true, true), 0);
	ioapic_set_irq_from(&b.ioapic, 8, 0, false, true);
	ioapic_eoi(&b.ioapic, 0x61, false);
	assert_int_equal(ioapic_set_irq_from(&b.ioapic, 8, 0, true, true), 1);
	ioapic_set_irq_from(&b.ioapic, 8, 0, false, true);
	write_index(&b, 0x20, 0x10071); /* masked: nobody waits any more */
	write_index(&b, 0x20, 0x71);
	assert_int_equal(ioapic_set_irq_from(&b.ioapic, 8, 0, true, true), 1);
}

static void storms_are_slowed(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 9, 0x8051, 0);
	set_irq(&b.ioapic, 9, true);
	for (unsigned i = 0; i < 10000; i++)
		ioapic_eoi(&b.ioapic, 0x51, true);
	assert_int_equal(b.delays, 1);
	assert_int_equal(b.sent, 10000);
	ioapic_inject_delayed(&b.ioapic);
	assert_int_equal(b.sent, 10001);
}

static void state_hides_sent_edges(void **state)
{
	struct ioapic_state s;
	struct board a, b;

	setup(&a);
	setup(&b);
	route(&a, 4, 0x41, 0);
	route(&a, 9, 0x8051, 0);
	set_irq(&a.ioapic, 4, true);
	set_irq(&a.ioapic, 9, true);
	ioapic_get_state(&a.ioapic, &s);
	assert_int_equal(s.irr, BIT(9));
	assert_int_equal(s.base_address, 0xfec00000);
	ioapic_set_state(&b.ioapic, &s);
	assert_int_equal(b.sent, 0); /* remote IRR is set: EOI is to come */
	ioapic_eoi(&b.ioapic, 0x51, true);
	assert_int_equal(b.sent, 1);
	/* A request not sent yet is sent by the restore. */
	s.redirtbl[9] &= ~IOAPIC_REMOTE_IRR;
	ioapic_set_state(&b.ioapic, &s);
	assert_int_equal(b.sent, 2);
}

static void vectors_with_interest(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 4, 0x41, 0);
	route(&b, 9, 0x8051, 0);
	assert_int_not_equal(b.routes, 0);
	assert_true(ioapic_knows_vector(&b.ioapic, 0x41) && ioapic_knows_vector(&b.ioapic, 0x51));
	assert_false(ioapic_knows_vector(&b.ioapic, 0x61));
	route(&b, 4, 0x61, 0);
	assert_true(ioapic_knows_vector(&b.ioapic, 0x61));
	assert_false(ioapic_knows_vector(&b.ioapic, 0x41));
}

static void msi_decoding(void **state)
{
	struct apic_message m;

	apic_message_from_msi(0xfee01000, 0x4031, false, &m);
	assert_int_equal(m.dest, 1);
	assert_int_equal(m.vector, 0x31);
	assert_false(m.logical || m.redirect || m.trigger);
	assert_true(m.level);
	apic_message_from_msi(0x12345600fee5500c, 0xc131, true, &m);
	assert_int_equal(m.dest, 0x12345655);
	assert_true(m.logical && m.redirect && m.trigger);
	assert_int_equal(m.delivery, APIC_LOWEST);
	apic_message_from_msi(0x12345600fee5500c, 0xc131, false, &m);
	assert_int_equal(m.dest, 0x55);
}

/* Remote IRR stands only on level entries, and a pin that waits has it or is masked or refused. */
static void random_programs_keep_sense(void **state)
{
	uint64_t seed = 88172645463325252ull;
	struct board b;

	setup(&b);
	for (unsigned i = 0; i < 200000; i++) {
		seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
		unsigned pin = (seed >> 8) % 24;

		if (seed & 1)
			ioapic_set_irq_from(&b.ioapic, pin, seed >> 16 & 3, seed & 2, seed & 4);
		else if (seed & 2)
			ioapic_eoi(&b.ioapic, seed >> 16 & 15, seed & 4);
		else
			write_index(&b, seed >> 8, seed >> 16 & 0x1ff0f);
		for (pin = 0; pin < 24; pin++) {
			uint64_t e = b.ioapic.state.redirtbl[pin];

			assert_false(e & IOAPIC_REMOTE_IRR && !(e & IOAPIC_LEVEL));
			assert_true(ioapic_knows_vector(&b.ioapic, IOAPIC_VECTOR(e)));
		}
	}
}

static void messages_are_asserted(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 4, 0x41, 0);
	set_irq(&b.ioapic, 4, true);
	assert_true(b.last.level);
	assert_int_equal(b.last.shorthand, APIC_TO_DEST);
	assert_false(b.last.logical || b.last.redirect);
}

static void released_sources(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 9, 0x8051, 0);
	ioapic_set_irq_from(&b.ioapic, 9, 3, true, false);
	ioapic_set_irq_from(&b.ioapic, 9, 4, true, false);
	ioapic_set_irq_from(&b.ioapic, 9, 3, false, false);
	set_irq(&b.ioapic, 9, false);
	assert_int_equal(b.ioapic.state.irr, BIT(9));
	ioapic_set_irq_from(&b.ioapic, 9, 4, false, false);
	set_irq(&b.ioapic, 9, false);
	assert_int_equal(b.ioapic.state.irr, 0);
}

static void delayed_injection_is_choosy(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 3, 0x31, 0);	   /* edge, sent already */
	route(&b, 9, 0x8051, 0);   /* level, low */
	route(&b, 10, 0x8052, 0);  /* level, waits for an EOI */
	route(&b, 11, 0x18053, 0); /* level, masked */
	set_irq(&b.ioapic, 3, true);
	set_irq(&b.ioapic, 10, true);
	set_irq(&b.ioapic, 11, true);
	b.sent = 0;
	ioapic_inject_delayed(&b.ioapic);
	assert_int_equal(b.sent, 0);
}

static void masked_edge_is_still_to_be_sent(void **state)
{
	struct ioapic_state s;
	struct board b;

	setup(&b);
	route(&b, 4, 0x41, 0);
	set_irq(&b.ioapic, 4, true);
	set_irq(&b.ioapic, 4, false);
	route(&b, 4, 0x10041, 0);
	set_irq(&b.ioapic, 4, true);
	ioapic_get_state(&b.ioapic, &s);
	assert_int_equal(s.irr, BIT(4));
}

static void rtc_counts_only_itself(void **state)
{
	struct board b;

	setup(&b);
	route(&b, 8, 0x61, 0);
	route(&b, 9, 0x62, 0);
	ioapic_set_irq_from(&b.ioapic, 8, 0, true, true);
	ioapic_set_irq_from(&b.ioapic, 8, 0, false, true);
	assert_int_equal(ioapic_set_irq_from(&b.ioapic, 9, 0, true, true), 1);
	ioapic_eoi(&b.ioapic, 0x62, false); /* not the RTC's */
	assert_int_equal(ioapic_set_irq_from(&b.ioapic, 8, 0, true, true), 0);
	ioapic_set_irq_from(&b.ioapic, 8, 0, false, true);
	/* Callers that do not ask for the answer are never held back. */
	assert_int_equal(set_irq(&b.ioapic, 8, true), 1);
}

static void last_pin_and_beyond(void **state)
{
	struct board b;

	setup(&b);
	write_index(&b, 0x3e, 0x77);
	assert_int_equal(read_index(&b, 0x3e), 0x77);
	write_index(&b, 0x0e, 0x77); /* below the table */
	write_index(&b, 0x40, 0x77);
	assert_int_equal(read_index(&b, 0x0e), 0xffffffff);
	assert_int_equal(b.ioapic.irr_delivered, 0);
	assert_int_equal(set_irq(&b.ioapic, 23, true), 1);
	assert_int_equal(b.last.vector, 0x77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registers),
		cmocka_unit_test(access_sizes),
		cmocka_unit_test(edge_sends_once_a_rise),
		cmocka_unit_test(masked_pin_answers),
		cmocka_unit_test(level_waits_for_eoi),
		cmocka_unit_test(suppressed_broadcast_only_notifies),
		cmocka_unit_test(refused_level_leaves_no_remote_irr),
		cmocka_unit_test(switch_to_edge_clears_remote_irr),
		cmocka_unit_test(unmasking_serves_or_resamples),
		cmocka_unit_test(sources_are_ored),
		cmocka_unit_test(rtc_ticks_coalesce_until_eoi),
		cmocka_unit_test(rtc_survives_reprogramming),
		cmocka_unit_test(storms_are_slowed),
		cmocka_unit_test(state_hides_sent_edges),
		cmocka_unit_test(vectors_with_interest),
		cmocka_unit_test(msi_decoding),
		cmocka_unit_test(messages_are_asserted),
		cmocka_unit_test(released_sources),
		cmocka_unit_test(delayed_injection_is_choosy),
		cmocka_unit_test(masked_edge_is_still_to_be_sent),
		cmocka_unit_test(rtc_counts_only_itself),
		cmocka_unit_test(last_pin_and_beyond),
		cmocka_unit_test(random_programs_keep_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
