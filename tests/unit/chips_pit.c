/* SPDX-License-Identifier: MIT */
/* The 8254: programmed by its ports under a clock that the test turns. */
#include "silicon/chips/pit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define START 5000000000ull
#define MS    1000000ull

struct board {
	struct pit pit;
	unsigned ticks;
	bool high;
	uint64_t armed;
};

static void on_irq(void *opaque, bool level)
{
	struct board *b = opaque;

	assert_int_not_equal(b->high, level);
	b->high = level;
	b->ticks += level;
}

static void on_rearm(void *opaque, uint64_t expiry)
{
	((struct board *)opaque)->armed = expiry;
}

static const struct pit_ops ops = {.irq = on_irq, .rearm = on_rearm};

static void setup(struct board *b)
{
	memset(b, 0, sizeof(*b));
	pit_init(&b->pit, &ops, b, START);
}

static void program(struct board *b, uint8_t control, uint16_t count, uint64_t now)
{
	unsigned channel = control >> 6;

	pit_io_write(&b->pit, 0x43, control, now);
	pit_io_write(&b->pit, 0x40 + channel, count & 0xff, now);
	pit_io_write(&b->pit, 0x40 + channel, count >> 8, now);
}

static uint16_t read_word(struct board *b, unsigned channel, uint64_t now)
{
	uint16_t low = pit_io_read(&b->pit, 0x40 + channel, now);

	return low | pit_io_read(&b->pit, 0x40 + channel, now) << 8;
}

static void silent_until_programmed(void **state)
{
	struct board b;

	setup(&b);
	assert_true(pit_next_expiry(&b.pit) == PIT_NEVER);
	pit_expire(&b.pit, START + 1000 * MS);
	assert_int_equal(b.ticks, 0);
}

/* 11932 clocks of 1193181 Hz are 10.0002 ms. */
static void rate_generator_ticks(void **state)
{
	uint64_t period = 11932ull * 1000000000 / 1193181;
	struct board b;

	setup(&b);
	program(&b, 0x34, 11932, START);
	assert_true(b.armed == START + period);
	pit_expire(&b.pit, START + period - 1);
	assert_int_equal(b.ticks, 0);
	pit_expire(&b.pit, START + period);
	assert_int_equal(b.ticks, 1);
	assert_true(pit_next_expiry(&b.pit) == START + 2 * period);
}

static void one_shot_fires_once(void **state)
{
	struct board b;

	setup(&b);
	program(&b, 0x30, 1193, START);
	pit_expire(&b.pit, START + 10 * MS);
	assert_int_equal(b.ticks, 1);
	assert_true(pit_next_expiry(&b.pit) == PIT_NEVER);
	assert_true(b.armed == PIT_NEVER);
}

static void reinjection_keeps_ticks(void **state)
{
	struct board b;

	setup(&b);
	program(&b, 0x34, 1193, START);
	pit_expire(&b.pit, START + 5 * MS + MS / 2);
	assert_int_equal(b.ticks, 1); /* five are due, one passes */
	for (unsigned i = 2; i <= 5; i++) {
		pit_ack(&b.pit);
		assert_int_equal(b.ticks, i);
	}
	pit_ack(&b.pit);
	assert_int_equal(b.ticks, 5);
}

static void unmasking_forgets_ticks(void **state)
{
	struct board b;

	setup(&b);
	program(&b, 0x34, 1193, START);
	pit_expire(&b.pit, START + 5 * MS + MS / 2);
	pit_unmasked(&b.pit);
	pit_ack(&b.pit);
	assert_int_equal(b.ticks, 1);
	pit_expire(&b.pit, START + 6 * MS + MS / 2);
	assert_int_equal(b.ticks, 2);
}

static void without_reinjection_each_tick_passes(void **state)
{
	struct board b;

	setup(&b);
	pit_set_reinject(&b.pit, false);
	program(&b, 0x34, 1193, START);
	for (unsigned i = 1; i < 4; i++)
		pit_expire(&b.pit, START + i * MS);
	assert_int_equal(b.ticks, 3);
	pit_ack(&b.pit);
	assert_int_equal(b.ticks, 3);
}

static void short_periods_are_limited(void **state)
{
	struct board b;

	setup(&b);
	pit_set_reinject(&b.pit, false);
	program(&b, 0x34, 2, START);
	pit_expire(&b.pit, START + 2000);
	assert_true(pit_next_expiry(&b.pit) >= START + PIT_MIN_PERIOD_NS);
}

/* After 1 s, 1193181 clocks have passed. */
static void counter_counts_down(void **state)
{
	struct board b;

	setup(&b);
	program(&b, 0xb0, 0xffff, START); /* counter 2, mode 0 */
	assert_int_equal(read_word(&b, 2, START), 0xffff);
	assert_int_equal(read_word(&b, 2, START + 10 * MS), 0xffff - 11931);
	program(&b, 0xb4, 10000, START); /* mode 2: modulo */
	assert_int_equal(read_word(&b, 2, START + 1000 * MS), 10000 - 1193181 % 10000);
	program(&b, 0xb6, 10000, START); /* mode 3: by twos */
	assert_int_equal(read_word(&b, 2, START + 1 * MS), 10000 - 2 * 1193);
}

static void zero_means_65536(void **state)
{
	struct board b;
	struct pit_state s;

	setup(&b);
	program(&b, 0x34, 0, START);
	pit_get_state(&b.pit, &s);
	assert_int_equal(s.channels[0].count, 65536);
	assert_int_equal(s.channels[0].mode, 2);
}

static void modes_six_and_seven_alias(void **state)
{
	struct board b;

	setup(&b);
	program(&b, 0x3c, 100, START);
	assert_int_equal(b.pit.channels[0].mode, 2);
	program(&b, 0x3e, 100, START);
	assert_int_equal(b.pit.channels[0].mode, 3);
}

static void latch_holds_the_count(void **state)
{
	struct board b;

	setup(&b);
	program(&b, 0xb4, 50000, START);
	pit_io_write(&b.pit, 0x43, 0x80, START + MS);
	assert_int_equal(read_word(&b, 2, START + 20 * MS), 50000 - 1193);
	assert_int_not_equal(read_word(&b, 2, START + 20 * MS), 50000 - 1193);
}

static void read_back_gives_status_then_count(void **state)
{
	struct board b;

	setup(&b);
	program(&b, 0xb4, 50000, START);
	pit_io_write(&b.pit, 0x43, 0xc8, START + MS); /* count and status of counter 2 */
	assert_int_equal(pit_io_read(&b.pit, 0x42, START + 9 * MS), 0x34);
	assert_int_equal(read_word(&b, 2, START + 9 * MS), 50000 - 1193);
}

static void single_byte_access(void **state)
{
	struct board b;

	setup(&b);
	pit_io_write(&b.pit, 0x43, 0x94, START); /* counter 2, low byte, mode 2 */
	pit_io_write(&b.pit, 0x42, 100, START);
	assert_int_equal(b.pit.channels[2].count, 100);
	assert_int_equal(pit_io_read(&b.pit, 0x42, START), 100);
	pit_io_write(&b.pit, 0x43, 0xa4, START); /* high byte */
	pit_io_write(&b.pit, 0x42, 2, START);
	assert_int_equal(b.pit.channels[2].count, 0x200);
	assert_int_equal(pit_io_read(&b.pit, 0x42, START), 2);
	assert_int_equal(pit_io_read(&b.pit, 0x43, START), 0);
}

/* How Linux and firmware calibrate: gate counter 2 by port 61h, wait for its output. */
static void speaker_port_calibrates(void **state)
{
	struct board b;

	setup(&b);
	pit_speaker_write(&b.pit, 0x01, START);
	program(&b, 0xb0, 11931, START);
	assert_int_equal(pit_speaker_read(&b.pit, START + 9 * MS) & 0x23, 0x01);
	assert_int_equal(pit_speaker_read(&b.pit, START + 11 * MS) & 0x23, 0x21);
	pit_speaker_write(&b.pit, 0x02, START);
	assert_int_equal(pit_speaker_read(&b.pit, START) & 3, 2);
	assert_int_equal(b.pit.flags, PIT_SPEAKER_DATA_ON);
	assert_int_not_equal(pit_speaker_read(&b.pit, 0) & 0x10,
			     pit_speaker_read(&b.pit, 16384) & 0x10);
}

static void gate_edge_restarts_mode_two(void **state)
{
	struct board b;

	setup(&b);
	program(&b, 0xb4, 50000, START);
	pit_speaker_write(&b.pit, 1, START + 7 * MS);
	assert_int_equal(read_word(&b, 2, START + 8 * MS), 50000 - 1193);
}

static void state_moves(void **state)
{
	struct pit_state s, again;
	struct board a, b;

	setup(&a);
	setup(&b);
	program(&a, 0x34, 11932, START);
	pit_speaker_write(&a.pit, 2, START);
	pit_get_state(&a.pit, &s);
	pit_set_state(&b.pit, &s, START + 50 * MS);
	pit_get_state(&b.pit, &again);
	assert_int_equal(again.flags, PIT_SPEAKER_DATA_ON);
	assert_memory_equal(&s.channels[0], &again.channels[0], sizeof(s.channels[0]));
	assert_true(b.armed > START + 59 * MS && b.armed < START + 61 * MS);
}

static void hpet_takes_the_interrupt(void **state)
{
	struct pit_state s;
	struct board b;

	setup(&b);
	program(&b, 0x34, 11932, START);
	pit_get_state(&b.pit, &s);
	s.flags |= PIT_HPET_LEGACY;
	pit_set_state(&b.pit, &s, START);
	assert_true(b.armed == PIT_NEVER);
	program(&b, 0x34, 11932, START);
	assert_true(b.armed == PIT_NEVER);
	s.flags = 0;
	pit_set_state(&b.pit, &s, START);
	assert_true(b.armed != PIT_NEVER);
}

/* Any bytes at the ports and in a restored state: no division by zero, no expiry in the past. */
static void random_programs_keep_sense(void **state)
{
	uint64_t seed = 88172645463325252ull, now = START;
	struct pit_state s;
	struct board b;

	setup(&b);
	for (unsigned i = 0; i < 100000; i++) {
		seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
		now += seed >> 44;
		if (!(seed & 0xff)) {
			pit_get_state(&b.pit, &s);
			((uint8_t *)s.channels)[(seed >> 8) % sizeof(s.channels)] = seed >> 16;
			pit_set_state(&b.pit, &s, now);
		} else if (seed & 1) {
			pit_io_write(&b.pit, 0x40 + (seed >> 8 & 3), seed >> 16, now);
		} else {
			pit_io_read(&b.pit, 0x40 + (seed >> 8 & 3), now);
			pit_speaker_read(&b.pit, now);
		}
		pit_expire(&b.pit, now);
		assert_true(pit_next_expiry(&b.pit) > now);
		assert_false(b.high);
		for (unsigned c = 0; c < 3; c++)
			assert_int_not_equal(b.pit.channels[c].count, 0);
	}
}

/* The output pin of counter 2 by mode, as the data sheet draws it: 1193 clocks are 999.85 us. */
static void outputs_by_mode(void **state)
{
	static const struct {
		uint8_t mode, early, late;
	} cases[] = {{0, 0, 1}, {1, 1, 0}, {3, 1, 0}};
	struct board b;

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		setup(&b);
		program(&b, 0xb0 | cases[i].mode << 1, 2386, START);
		assert_int_equal(pit_speaker_read(&b.pit, START + MS / 2) >> 5 & 1, cases[i].early);
		/* Mode 3 is low in its second half. */
		uint64_t t = START + (cases[i].mode == 3 ? 3 * MS / 2 : 3 * MS);

		assert_int_equal(pit_speaker_read(&b.pit, t) >> 5 & 1, cases[i].late);
	}
	/* Modes 2, 4 and 5: a pulse of one clock at the end. */
	setup(&b);
	program(&b, 0xb8, 1193181 / 1000, START); /* mode 4 */
	assert_int_equal(pit_speaker_read(&b.pit, START + MS / 2) >> 5 & 1, 0);
	assert_int_equal(pit_speaker_read(&b.pit, START + MS) >> 5 & 1, 1);
	assert_int_equal(pit_speaker_read(&b.pit, START + 2 * MS) >> 5 & 1, 0);
	program(&b, 0xb0, 1193, START); /* mode 0 is high from the terminal count on */
	assert_int_equal(pit_speaker_read(&b.pit, START + MS) >> 5 & 1, 1);
	program(&b, 0xb2, 1193, START); /* mode 1 is low from there on */
	assert_int_equal(pit_speaker_read(&b.pit, START + MS) >> 5 & 1, 0);
	program(&b, 0xb6, 3, START); /* odd counts: high for (n + 1) / 2 clocks */
	assert_int_equal(pit_speaker_read(&b.pit, START + 1 * 1000) >> 5 & 1, 1);
	assert_int_equal(pit_speaker_read(&b.pit, START + 2 * 1000) >> 5 & 1, 0);
}

static void gates_by_mode(void **state)
{
	struct board b;

	/* Mode 0: the gate's rise does not restart. */
	setup(&b);
	program(&b, 0xb0, 50000, START);
	pit_speaker_write(&b.pit, 1, START + 7 * MS);
	assert_int_equal(read_word(&b, 2, START + 8 * MS), 50000 - 9545);
	/* Mode 4 neither, mode 5 does. */
	setup(&b);
	program(&b, 0xb8, 50000, START);
	pit_speaker_write(&b.pit, 1, START + 7 * MS);
	assert_int_equal(read_word(&b, 2, START + 8 * MS), 50000 - 9545);
	setup(&b);
	program(&b, 0xba, 50000, START);
	pit_speaker_write(&b.pit, 1, START + 7 * MS);
	assert_int_equal(read_word(&b, 2, START + 8 * MS), 50000 - 1193);
	/* No edge, no restart: staying high, and falling. */
	pit_speaker_write(&b.pit, 1, START + 8 * MS);
	assert_int_equal(read_word(&b, 2, START + 8 * MS), 50000 - 1193);
	pit_speaker_write(&b.pit, 0, START + 8 * MS);
	assert_int_equal(read_word(&b, 2, START + 8 * MS), 50000 - 1193);
}

static void speaker_data_switches_off(void **state)
{
	struct board b;

	setup(&b);
	pit_speaker_write(&b.pit, 2, START);
	pit_speaker_write(&b.pit, 0, START);
	assert_int_equal(b.pit.flags, 0);
}

static void a_tick_waits_for_the_last_ones_eoi(void **state)
{
	struct board b;

	setup(&b);
	program(&b, 0x34, 1193, START);
	for (unsigned i = 1; i <= 3; i++)
		pit_expire(&b.pit, START + i * MS);
	assert_int_equal(b.ticks, 1);
	pit_ack(&b.pit);
	assert_int_equal(b.ticks, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(silent_until_programmed),
		cmocka_unit_test(rate_generator_ticks),
		cmocka_unit_test(one_shot_fires_once),
		cmocka_unit_test(reinjection_keeps_ticks),
		cmocka_unit_test(unmasking_forgets_ticks),
		cmocka_unit_test(without_reinjection_each_tick_passes),
		cmocka_unit_test(short_periods_are_limited),
		cmocka_unit_test(counter_counts_down),
		cmocka_unit_test(zero_means_65536),
		cmocka_unit_test(modes_six_and_seven_alias),
		cmocka_unit_test(latch_holds_the_count),
		cmocka_unit_test(read_back_gives_status_then_count),
		cmocka_unit_test(single_byte_access),
		cmocka_unit_test(speaker_port_calibrates),
		cmocka_unit_test(gate_edge_restarts_mode_two),
		cmocka_unit_test(state_moves),
		cmocka_unit_test(hpet_takes_the_interrupt),
		cmocka_unit_test(outputs_by_mode),
		cmocka_unit_test(gates_by_mode),
		cmocka_unit_test(speaker_data_switches_off),
		cmocka_unit_test(a_tick_waits_for_the_last_ones_eoi),
		cmocka_unit_test(random_programs_keep_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
