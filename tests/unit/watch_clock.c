/* SPDX-License-Identifier: MIT */
/*
 * Sampled times of exits against the true ones, for mixes of cheap and dear exits that are known: what is told of all must be near the
 * sum of all, and the clock must not be looked at too often.
 */
#include "kvm/vcpu/watch_clock.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct told {
	struct watch_cost cost;
	double truth; /* ticks of all */
};

/* n exits of ticks_of(i) each, as watch.c counts them. */
static struct told watch(uint64_t n, uint64_t (*ticks_of)(uint64_t i), uint64_t seed)
{
	struct watch_clock clock = {0};
	struct told t = {0};

	for (uint64_t i = 0; i < n; i++) {
		uint64_t ticks = ticks_of(i);
		uint8_t stands = watch_clock_due(&clock);

		t.cost.count++;
		t.truth += ticks;
		if (stands)
			watch_clock_add(&clock, &t.cost, ticks, &seed);
	}
	return t;
}

/* Off by that part of the truth. */
static double error(const struct told *t)
{
	return fabs(watch_clock_total(&t->cost) / t->truth - 1);
}

static uint64_t cheap(uint64_t i)
{
	return 50;
}

static uint64_t rising(uint64_t i)
{
	return 100 + i;
}

/* In step with blocks, and with half and quarter ones. */
static uint64_t every_64th(uint64_t i)
{
	return i % 64 ? 50 : 12000;
}

static uint64_t every_16th(uint64_t i)
{
	return i % 16 == 3 ? 3000 : 50;
}

static uint64_t every_other(uint64_t i)
{
	return i % 2 ? 50 : 900;
}

static uint64_t rarely_long(uint64_t i)
{
	return i % 1000 == 999 ? 20000000 : 600;
}

static uint64_t late_dear(uint64_t i)
{
	return i < 500000 ? 60 : 4000;
}

static uint64_t early_dear(uint64_t i)
{
	return i < 100 ? 10000000 : 60;
}

static uint64_t long_ones(uint64_t i)
{
	return CLOCK_WORTH + i % 7;
}

/* Few exits, and dear ones, are not sampled at all. */
static void exact(void **state)
{
	struct told few = watch(CLOCK_EXACT, rising, 1), dear = watch(100000, long_ones, 1);

	assert_int_equal(few.cost.timed, CLOCK_EXACT);
	assert_true(watch_clock_total(&few.cost) == few.truth);
	assert_int_equal(few.cost.min, 100);
	assert_int_equal(few.cost.max, 100 + CLOCK_EXACT - 1);
	assert_int_equal(dear.cost.timed, 100000);
	assert_true(watch_clock_total(&dear.cost) == dear.truth);
	assert_int_equal(dear.cost.min, CLOCK_WORTH);
	assert_int_equal(dear.cost.max, CLOCK_WORTH + 6);
}

/* Mixes: within some five standard deviations of what so many samples have. */
static void mixes(void **state)
{
	static const struct {
		uint64_t (*ticks_of)(uint64_t i);
		double off;
	} mix[] = {
		{cheap, 0.0001},    {every_64th, 0.15}, {every_16th, 0.09}, {every_other, 0.03},
		{rarely_long, 0.2}, {late_dear, 0.02},	{early_dear, 0.02}, {rising, 0.0001},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(mix); i++)
		for (uint64_t seed = 1; seed <= 20; seed++) {
			struct told t = watch(1000000, mix[i].ticks_of, seed * 0x9e3779b97f4a7c15);

			if (error(&t) > mix[i].off)
				fail_msg("mix %u, seed %llu: off by %g", i,
					 (unsigned long long)seed, error(&t));
		}
}

/* Errors of many runs take each other away: no pattern bends the mean. */
static void unbiased(void **state)
{
	static uint64_t (*const mix[])(uint64_t i) = {every_64th, every_16th, every_other};

	for (unsigned i = 0; i < ARRAY_SIZE(mix); i++) {
		double sum = 0, truth = 0;

		for (uint64_t seed = 1; seed <= 400; seed++) {
			struct told t = watch(50000, mix[i], seed * 0x9e3779b97f4a7c15);

			sum += watch_clock_total(&t.cost);
			truth += t.truth;
		}
		if (fabs(sum / truth - 1) > 0.02)
			fail_msg("mix %u: off by %g in the mean", i, sum / truth - 1);
	}
}

/* The clock is worth at most 1/800 of what it times, beyond the first few. */
static void seldom(void **state)
{
	struct told t = watch(1000000, cheap, 1);

	assert_in_range(t.cost.timed, 1000000 / 64, 1000000 / 64 + 2 * CLOCK_EXACT);
	t = watch(1000000, every_16th, 1);
	assert_in_range(t.cost.timed, 1000000 / 64, 1000000 / 32);
	t = watch(1000000, every_other, 1);
	assert_in_range(t.cost.timed, 1000000 / 64, 1000000 / 30);
}

/* An exit that is not over has no time, and makes the others no longer; nor has a reason without exits. */
static void not_over(void **state)
{
	struct told t = watch(10, rising, 1);
	struct watch_cost none = {0}, only = {.count = 1};

	t.cost.count++;
	assert_true(watch_clock_total(&t.cost) == t.truth);
	assert_true(watch_clock_total(&none) == 0);
	assert_true(watch_clock_total(&only) == 0);
}

/* What follows belongs to the exit before it, and to those that it stands for. */
static void more(void **state)
{
	struct told t = watch(10, cheap, 1);

	watch_clock_more(&t.cost, 70, 1);
	assert_true(watch_clock_total(&t.cost) == t.truth + 70);
	assert_int_equal(t.cost.max, 70);
	watch_clock_more(&t.cost, 10, 4);
	assert_true(watch_clock_total(&t.cost) == t.truth + 110);
	assert_int_equal(t.cost.timed, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact),  cmocka_unit_test(mixes),    cmocka_unit_test(unbiased),
		cmocka_unit_test(seldom), cmocka_unit_test(not_over), cmocka_unit_test(more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
