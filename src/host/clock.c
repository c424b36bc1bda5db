/* SPDX-License-Identifier: MIT */
/*
 * Clocks of the host. The TSC's rate is read where the processor or the hypervisor says it, and else
 * measured once against CLOCK_MONOTONIC_RAW, which the kernel derives from the TSC itself, without NTP. That takes some
 * 10 ms; who asks as late as that after host_clock_start() does not wait.
 */
#include "host/host.h"

#include <time.h>

/* Long enough that the reading error at both ends (some 30 ns) is a few parts per million. */
#define MEASURE_NS 10000000ull
#define SAMPLES	   16
/* For a moment's pair: one of them is not interrupted. */
#define PAIR_SAMPLES 3

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

uint64_t host_monotonic_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t host_realtime_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

#define CLOCK_OF_THREAD 6 /* clockid_t of a thread: ~tid << 3, and this */

uint64_t host_thread_ns(int tid)
{
	struct timespec ts;

	if (clock_gettime((clockid_t)(~(unsigned)tid << 3 | CLOCK_OF_THREAD), &ts))
		return 0;
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

struct sample {
	uint64_t tsc, ns;
};

/* The pair read closest together of several: the others were interrupted. */
static struct sample take_sample(clockid_t id, unsigned samples)
{
	struct sample best = {0};
	uint64_t before, after, ns, width = ~0ull;
	unsigned i;

	for (i = 0; i < samples; i++) {
		before = host_rdtsc();
		ns = clock_ns(id);
		after = host_rdtsc();
		if (after - before < width) {
			width = after - before;
			best = (struct sample){.tsc = before + width / 2, .ns = ns};
		}
	}
	return best;
}

void host_clock_pair(uint64_t *ret_tsc, uint64_t *ret_realtime_ns)
{
	struct sample sample = take_sample(CLOCK_REALTIME, PAIR_SAMPLES);

	*ret_tsc = sample.tsc;
	*ret_realtime_ns = sample.ns;
}

/* Written once, before there are threads. */
static struct sample first;

void host_clock_start(void)
{
	first = take_sample(CLOCK_MONOTONIC_RAW, SAMPLES);
}

static uint64_t measure_khz(void)
{
	struct sample start = first, end;

	if (!start.ns)
		start = take_sample(CLOCK_MONOTONIC_RAW, SAMPLES);
	do
		end = take_sample(CLOCK_MONOTONIC_RAW, SAMPLES);
	while (end.ns - start.ns < MEASURE_NS);
	return ((end.tsc - start.tsc) * 1000000 + (end.ns - start.ns) / 2) / (end.ns - start.ns);
}

/* SDM, CPUID leaf 15H: TSC over crystal clock; 0 where not enumerated in full. */
static uint64_t cpuid_khz(void)
{
	uint32_t reg[4];

	host_cpuid(0, 0, reg);
	if (reg[0] < 0x15)
		return 0;
	host_cpuid(0x15, 0, reg);
	if (!reg[0] || !reg[1] || !reg[2])
		return 0;
	return (uint64_t)reg[2] * reg[1] / reg[0] / 1000;
}

/* Timing leaf that hypervisors share: EAX = TSC in kHz. */
static uint64_t hypervisor_khz(void)
{
	uint32_t reg[4];

	host_cpuid(1, 0, reg);
	if (!(reg[2] & BIT(31)))
		return 0;
	host_cpuid(0x40000000, 0, reg);
	if (reg[0] < 0x40000010 || reg[0] > 0x400000ff)
		return 0;
	host_cpuid(0x40000010, 0, reg);
	return reg[0];
}

uint64_t host_tsc_khz(void)
{
	static uint64_t khz;
	uint64_t val = __atomic_load_n(&khz, __ATOMIC_RELAXED), expected = 0;

	if (val)
		return val;
	val = hypervisor_khz();
	if (!val)
		val = cpuid_khz();
	if (!val)
		val = measure_khz();
	/* The first of two racing measurements wins: the rate never changes once told. */
	if (!__atomic_compare_exchange_n(&khz, &expected, val, false, __ATOMIC_RELAXED,
					 __ATOMIC_RELAXED))
		val = expected;
	return val;
}
