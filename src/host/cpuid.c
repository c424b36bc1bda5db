/* SPDX-License-Identifier: MIT */
/*
 * The host's own CPUID, each leaf asked once: on a host that is itself a guest every CPUID traps.
 * Leaves that name the CPU they ran on (APIC ids) are those of the CPU that was asked first.
 */
#include "host/host.h"

#include <cpuid.h>
#include <pthread.h>

#define CACHE_SIZE 256

struct entry {
	uint32_t leaf, subleaf;
	uint32_t reg[4];
};

static struct entry cache[CACHE_SIZE];
static unsigned nr_cached; /* entries below are complete */
static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;

static const struct entry *find(uint32_t leaf, uint32_t subleaf)
{
	unsigned nr = __atomic_load_n(&nr_cached, __ATOMIC_ACQUIRE);
	unsigned i;

	for (i = 0; i < nr; i++) {
		if (cache[i].leaf == leaf && cache[i].subleaf == subleaf)
			return &cache[i];
	}
	return NULL;
}

static void remember(uint32_t leaf, uint32_t subleaf, const uint32_t reg[4])
{
	unsigned i;

	pthread_mutex_lock(&cache_lock);
	if (nr_cached < CACHE_SIZE && !find(leaf, subleaf)) {
		cache[nr_cached].leaf = leaf;
		cache[nr_cached].subleaf = subleaf;
		for (i = 0; i < 4; i++)
			cache[nr_cached].reg[i] = reg[i];
		__atomic_store_n(&nr_cached, nr_cached + 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&cache_lock);
}

void host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	const struct entry *entry = find(leaf, subleaf);
	unsigned i;

	if (entry) {
		for (i = 0; i < 4; i++)
			ret[i] = entry->reg[i];
		return;
	}
	__cpuid_count(leaf, subleaf, ret[0], ret[1], ret[2], ret[3]);
	remember(leaf, subleaf, ret);
}

uint64_t host_xcr0(void)
{
	uint32_t reg[4], low, high;

	host_cpuid(1, 0, reg);
	if (!(reg[2] & bit_OSXSAVE))
		return 3; /* x87 and SSE: the architecture's own in 64-bit mode */
	asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return low | (uint64_t)high << 32;
}
