/* SPDX-License-Identifier: MIT */
/*
 * Seeded randomness for the fuzzers (splitmix64), and the values worth trying.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct rng {
	uint64_t state;
};

static inline uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static inline uint64_t rnd(struct rng *r)
{
	r->state += 0x9e3779b97f4a7c15;
	return mix(r->state);
}

static inline unsigned below(struct rng *r, unsigned n)
{
	return rnd(r) % n;
}

static inline bool one_in(struct rng *r, unsigned n)
{
	return !below(r, n);
}

static inline double fuzz_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

#endif
