/* SPDX-License-Identifier: MIT */
/*
 * Which exits of a reason are timed, and what those say of all.
 *
 * Two looks at the clock take some 30 ns, which is half of an exit that never leaves the library. So exits go by in blocks, and of
 * each block one is timed, drawn at random: it stands for the others, whatever pattern they come in. A block is of one exit,
 * which is to say that all are timed, for the first CLOCK_EXACT, and then as long as exits take CLOCK_WORTH ticks in
 * the mean; else of as many as take so long together, but never more than 2^CLOCK_SHIFT. The length of a block is settled
 * before any of its exits is seen: so the sum of what the timed ones stand for has no bias.
 */
#ifndef KVM_VCPU_WATCH_CLOCK_H
#define KVM_VCPU_WATCH_CLOCK_H

#include "host/compiler.h"

#define CLOCK_EXACT 64
#define CLOCK_SHIFT 6 /* blocks of up to 64 */
/* Some 800 times what it costs to time an exit. */
#define CLOCK_WORTH 65536

/* What exits of a reason cost: in pages that others read, so each is written by one atomic store. */
struct watch_cost {
	uint64_t count;
	uint64_t timed;
	uint64_t stands; /* exits that the timed ones stand for */
	uint64_t
		ticks; /* of the TSC that those took, from leaving the guest to entering it again */
	uint64_t min, max;
} __aligned_(64);

struct watch_clock {
	uint8_t wait;	/* exits before the next that is timed */
	uint8_t behind; /* of its block behind it */
	uint8_t shift;	/* the block is of 2^shift */
};

static inline void watch_add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

/* An exit that is not to be timed begins; or false, and nothing has happened. */
static inline bool watch_clock_pass(struct watch_clock *c)
{
	if (unlikely(!c->wait))
		return false;
	c->wait--;
	return true;
}

/* An exit begins: how many it stands for, if it is to be timed, or 0. Due until watch_clock_add(). */
static inline uint8_t watch_clock_due(struct watch_clock *c)
{
	return watch_clock_pass(c) ? 0 : 1 << c->shift;
}

static inline uint8_t watch_clock_shift(const struct watch_cost *cost)
{
	uint8_t shift = 0;

	if (cost->timed < CLOCK_EXACT)
		return 0;
	while (shift < CLOCK_SHIFT && cost->ticks << shift < cost->stands * CLOCK_WORTH)
		shift++;
	return shift;
}

/* xorshift: enough to keep out of step with any guest. Not 0. */
static inline uint64_t watch_clock_draw(uint64_t *random)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return *random;
}

/* The last exit, which stood for so many, took that much longer. */
static inline void watch_clock_more(struct watch_cost *cost, uint64_t ticks, uint8_t stands)
{
	watch_add(&cost->ticks, ticks * stands);
	if (ticks > cost->max)
		__atomic_store_n(&cost->max, ticks, __ATOMIC_RELAXED);
}

/* The timed exit took so long; the next to be timed is drawn. */
static inline void watch_clock_add(struct watch_clock *c, struct watch_cost *cost, uint64_t ticks,
				   uint64_t *random)
{
	uint8_t mask, place;

	if (!cost->timed || ticks < cost->min)
		__atomic_store_n(&cost->min, ticks, __ATOMIC_RELAXED);
	if (ticks > cost->max)
		__atomic_store_n(&cost->max, ticks, __ATOMIC_RELAXED);
	watch_add(&cost->timed, 1);
	watch_add(&cost->stands, 1 << c->shift);
	watch_add(&cost->ticks, ticks << c->shift);
	c->shift = watch_clock_shift(cost);
	mask = (1 << c->shift) - 1;
	place = watch_clock_draw(random) >> 32 & mask;
	c->wait = c->behind + place;
	c->behind = mask - place;
}

/*
 * Ticks of all exits, as far as the timed ones tell. The sum of the last block counts as far as it has come; an exit that is not
 * over yet has no time.
 */
static inline double watch_clock_total(const struct watch_cost *cost)
{
	if (!cost->stands)
		return 0;
	if (cost->timed == cost->stands && cost->count <= cost->stands + 1)
		return cost->ticks;
	return (double)cost->ticks * cost->count / cost->stands;
}

#endif
