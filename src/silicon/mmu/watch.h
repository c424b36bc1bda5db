/* SPDX-License-Identifier: MIT */
/*
 * Which pages hold translated code of which processor of a machine: so that one's writes to another's code are
 * noticed, and no other event makes all code suspect.
 *
 * A page is entered by host address with its owners and the lines that code was made of. No processor gets a write
 * tag for it; tags that are out already go when their holder has seen the entry's generation: until all that
 * run guest code have (watch_seen()), the page's owner has to compare it by itself.
 *
 * A write counts itself in before it looks at the lines, tells the owners, is made, tells them again and counts itself
 * out. So an owner that observes the bytes written observes either the notice or the writer, and takes the page
 * for good only if neither is there (watch_busy()). A page that finds no room is nobody's: its owner goes on comparing.
 *
 * Threads: each processor's calls on its own; structures are shared, by atomic accesses; ->lock is for who enters
 * and removes. Writes past the processors (the program, devices, PV pages) are not seen here.
 */
#ifndef SILICON_MMU_WATCH_H
#define SILICON_MMU_WATCH_H

#include "silicon/mmu/mmu.h"

#define WATCH_SLOTS   32768u
#define WATCH_PROBES  64u
#define WATCH_MEMBERS 1024u
#define WATCH_ADDED   64u /* newest generations whose pages are remembered */
#define WATCH_FEW     4u  /* of them: more, and all write tags go */
#define WATCH_INBOX   12u
#define WATCH_FLIGHT  8u
#define WATCH_NEVER   (~0ull)

struct watch_page {
	const uint8_t *hva; /* atomic; NULL: never used */
	uint64_t lines;	    /* atomic */
	uint64_t owners;    /* atomic; BIT(member), the last bit stands for all from there on */
	uint64_t gen;	    /* in which it got its first owner; atomic */
	uint32_t writers;   /* writes under way; atomic */
	uint32_t nr_far;    /* owners behind the last bit; lock */
};

struct watch_member {
	struct cpu *cpu;
	uint64_t seen;	 /* generations whose pages it has no write tags of; atomic */
	uint32_t inside; /* may run guest code; atomic */
	uint32_t posted; /* ->inbox is to be looked at; atomic */
	bool lost;	 /* and there was no room in it; atomic */
	const uint8_t *inbox[WATCH_INBOX]; /* pages written; NULL: free; atomic */
	uint32_t nr_flight;		   /* its own from here on */
	struct {
		struct watch_page *page;
		bool told; /* its owners */
	} flight[WATCH_FLIGHT];
} __aligned_(64);

struct watch {
	uint32_t lock; /* futex: 1 held, 2 waited for */
	uint32_t nr_members;
	uint64_t gen; /* atomic */
	const uint8_t *added[WATCH_ADDED];
	struct watch_member member[WATCH_MEMBERS];
	struct watch_page page[WATCH_SLOTS];
};

/* ---- ordinary C, one thread at a time ---- */

struct watch *watch_create(void); /* NULL: no memory */
void watch_destroy(struct watch *w);
/* A processor that runs no guest code yet: false if there is no room. The last to join may leave again. */
bool watch_join(struct watch *w, struct cpu *cpu);
void watch_leave(struct cpu *cpu);

/* ---- vCPU thread, general registers only; cpu->watch may be NULL ---- */

static inline struct watch_member *watch_self(const struct cpu *cpu)
{
	return &cpu->watch->member[cpu->watch_index];
}

static inline bool watch_shared(const struct cpu *cpu)
{
	return cpu->watch && __atomic_load_n(&cpu->watch->nr_members, __ATOMIC_RELAXED) > 1;
}

/* Processors of the machine. */
static inline unsigned watch_members(const struct cpu *cpu)
{
	return cpu->watch ? __atomic_load_n(&cpu->watch->nr_members, __ATOMIC_RELAXED) : 1;
}

/* Around guest code. */
void watch_enter(struct cpu *cpu);
void watch_exit(struct cpu *cpu);
/* Between two instructions, for ATTN_CODE: give up write tags that are asked for. */
void watch_follow(struct cpu *cpu);

/*
 * The page is this processor's, with no line yet. The generation that others must have seen;
 * 0: there are none; WATCH_NEVER: there was no room.
 */
uint64_t watch_add(struct cpu *cpu, const uint8_t *hva);
void watch_cover(struct cpu *cpu, const uint8_t *hva, uint64_t lines);
void watch_remove(struct cpu *cpu, const uint8_t *hva);
/* Up to which generation all others that run guest code have given up their tags. */
uint64_t watch_seen(const struct cpu *cpu);
/* Ask them to. */
void watch_hurry(struct cpu *cpu);
/* A write to the page is under way. */
bool watch_busy(const struct cpu *cpu, const uint8_t *hva);
/* The pages of this processor's code that others wrote to; how many. *ret_lost: there are more. */
unsigned watch_take(struct cpu *cpu, const uint8_t *ret[WATCH_INBOX], bool *ret_lost);

/* Writes to others' code. */
static inline unsigned watch_under_way(const struct cpu *cpu)
{
	return cpu->watch ? watch_self(cpu)->nr_flight : 0;
}

static inline bool watch_posted(const struct cpu *cpu)
{
	return cpu->watch && __atomic_load_n(&watch_self(cpu)->posted, __ATOMIC_RELAXED);
}

/* ---- for access.c and tlb.c ---- */

/* The page is somebody's code: no write tag for it. */
bool watch_refuses(const struct cpu *cpu, const uint8_t *hva);
/* A write to these lines of the page is about to be made. */
void watch_begin(struct cpu *cpu, const uint8_t *hva, uint64_t lines);
/* All but the first nr are made. */
void watch_end(struct cpu *cpu, unsigned nr);

#endif
