/* SPDX-License-Identifier: MIT */
/*
 * Rounds of random input on one processor: numbers of a seed, settings of the environment, and a watch.
 *
 * A guest whose handlers fault executes nothing for ever, as on silicon, and no budget of instructions ends that: a
 * second thread asks for attention when a round takes long, as user space kicks a vCPU. flat's ->endless lets it end
 * then.
 */
#ifndef TESTS_GUEST_ROUNDS_H
#define TESTS_GUEST_ROUNDS_H

#include "flat.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* A number of the environment. */
static inline uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* Some entries of four pages of tables: they loop, are large, reserved, absent, or lead to devices and nothing. */
static inline void spoil_tables(struct flat *f, gpa_t tables, uint64_t *seed)
{
	const uint64_t targets[] = {tables, 0, 0x800000, FLAT_MMIO, 1ull << 40, 1ull << 51};

	for (unsigned i = 0; i < 4; i++) {
		uint64_t r = next_random(seed);
		gpa_t at = tables + (r & 3) * 0x1000 + (r >> 2 & 7) * 8;

		flat_poke(f, at, targets[(r >> 16) % ARRAY_SIZE(targets)] | (r >> 24 & 0xff), 8);
	}
}

struct watch {
	struct cpu *cpu;
	unsigned round;
	bool stop;
	pthread_t thread;
};

static inline void *watch_rounds(void *arg)
{
	struct watch *w = arg;
	unsigned last = ~0u, round;

	while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
		round = __atomic_load_n(&w->round, __ATOMIC_ACQUIRE);
		/* An odd number stands between the rounds, where there may be no processor. */
		if (round == last && !(round & 1))
			cpu_raise(w->cpu, ATTN_REQUEST);
		last = round;
		usleep(10000);
	}
	return NULL;
}

/* 0, or a number of pthread_create()'s. */
static inline int watch_start(struct watch *w, struct cpu *cpu)
{
	*w = (struct watch){.cpu = cpu, .round = 1};
	return pthread_create(&w->thread, NULL, watch_rounds, w);
}

static inline void watch_end(struct watch *w)
{
	__atomic_store_n(&w->stop, true, __ATOMIC_RELEASE);
	pthread_join(w->thread, NULL);
}

/* A round begins, or it has ended. */
static inline void next_round(struct watch *w)
{
	__atomic_add_fetch(&w->round, 1, __ATOMIC_ACQ_REL);
}

/*
 * Rounds of at most 200 instructions; begin(arg, seed) makes the machine ready for each. The seed is ANYKVM_SEED's.
 * False, and a line that names the round, where the processor has failed.
 */
static inline bool run_rounds(struct flat *f, uint64_t rounds,
			      void (*begin)(void *arg, uint64_t *seed), void *arg)
{
	uint64_t seed = number("ANYKVM_SEED", 1) * 0x9e3779b97f4a7c15ull, i;
	enum cpu_exit_kind exit = CPU_EXIT_HLT;
	struct watch w;

	f->endless = true;
	if (watch_start(&w, f->cpu))
		return false;
	for (i = 0; i < rounds && exit != CPU_EXIT_INTERNAL; i++) {
		begin(arg, &seed);
		next_round(&w);
		exit = flat_run(f, 200);
		next_round(&w);
	}
	watch_end(&w);
	if (exit == CPU_EXIT_INTERNAL)
		fprintf(stderr, "round %lu failed\n", i);
	return exit != CPU_EXIT_INTERNAL;
}

#endif
