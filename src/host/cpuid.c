/* SPDX-License-Identifier: MIT */
/*
 * The host's own CPUID, each leaf asked once: on a host that is itself a guest every CPUID traps.
 * Leaves that name the CPU they ran on (APIC ids) are those of the CPU that was asked first.
 *
 * Where the program is to see another CPUID than the host's and the host can make CPUID fault in user code
 * (CPUID faulting, a property of each thread that clone(2) hands on and execve(2) ends), the program's own
 * instructions end in host_cpuid_fault().
 */
#include "host/host.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>

#ifndef ARCH_SET_CPUID
#define ARCH_SET_CPUID 0x1012
#endif

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
	host_cpuid_here(leaf, subleaf, ret);
	remember(leaf, subleaf, ret);
}

/* ---- CPUID faulting ---- */

static host_cpuid_fn *answer; /* NULL: the program sees the host's */
static bool patched;	      /* by UD2 in the place of CPUID, not by faults */

static long set_faulting(bool on)
{
	return host_syscall(SYS_arch_prctl, ARCH_SET_CPUID, !on, 0, 0, 0, 0);
}

void host_cpuid_here(uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	bool faulting = __atomic_load_n(&answer, __ATOMIC_RELAXED) && !patched;

	if (faulting)
		set_faulting(false);
	__cpuid_count(leaf, subleaf, ret[0], ret[1], ret[2], ret[3]);
	if (faulting)
		set_faulting(true);
}

int host_cpuid_answer(host_cpuid_fn *fn)
{
	long r;

	__atomic_store_n(&answer, fn, __ATOMIC_RELAXED);
	r = set_faulting(true);
	if (r)
		__atomic_store_n(&answer, NULL, __ATOMIC_RELAXED);
	return (int)r;
}

bool host_cpuid_answering(void)
{
	return __atomic_load_n(&answer, __ATOMIC_RELAXED);
}

/* ---- CPUID made UD2 ---- */

/* Appended to only; a site of a library that was unloaded stays, and is harmless unless a UD2 comes there. */
#define MAX_SITES 4096
static const uint8_t *sites[MAX_SITES];
static unsigned nr_sites;

void host_cpuid_answer_sites(host_cpuid_fn *fn)
{
	patched = true;
	__atomic_store_n(&answer, fn, __ATOMIC_RELAXED);
}

bool host_cpuid_patched(void)
{
	return patched;
}

int host_cpuid_site_add(const uint8_t *addr)
{
	unsigned nr = nr_sites;

	if (nr == MAX_SITES)
		return -ENOSPC;
	sites[nr] = addr;
	__atomic_store_n(&nr_sites, nr + 1, __ATOMIC_RELEASE);
	return 0;
}

static bool is_site(const uint8_t *addr)
{
	unsigned nr = __atomic_load_n(&nr_sites, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; i < nr; i++)
		if (sites[i] == addr)
			return true;
	return false;
}

/* Length of the CPUID instruction at rip, prefixes and all, or 0. The processor just read it. */
static unsigned cpuid_length(const uint8_t *rip)
{
	for (unsigned i = 0; i < 14; i++) {
		switch (rip[i]) {
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
		case 0x40 ... 0x4f:
		case 0x64 ... 0x67:
		case 0xf2:
		case 0xf3:
			continue;
		case 0x0f:
			if (patched)
				return is_site(rip + i) ? i + 2 : 0;
			return rip[i + 1] == 0xa2 ? i + 2 : 0;
		default:
			return 0;
		}
	}
	return 0;
}

bool host_cpuid_fault(const struct host_trap *trap, ucontext_t *uc)
{
	greg_t *gregs = uc->uc_mcontext.gregs;
	uint32_t ret[4];
	unsigned length;

	/* #UD, or #GP(0). */
	if (!answer || trap->trapno != (patched ? 6 : 13) || (!patched && trap->error))
		return false;
	length = cpuid_length((const uint8_t *)trap->rip);
	if (!length)
		return false;
	answer((uint32_t)gregs[REG_RAX], (uint32_t)gregs[REG_RCX], ret);
	gregs[REG_RAX] = ret[0];
	gregs[REG_RBX] = ret[1];
	gregs[REG_RCX] = ret[2];
	gregs[REG_RDX] = ret[3];
	gregs[REG_RIP] += length;
	return true;
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
