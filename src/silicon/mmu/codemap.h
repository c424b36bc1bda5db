/* SPDX-License-Identifier: MIT */
/*
 * Which pages hold translated code of which processor of a machine: so that one's writes to another's code are
 * noticed, and no other event makes all code suspect.
 *
 * A page is entered by host address with its owners and the lines that code was made of. No processor gets a write
 * tag for it; tags that are out already go when their holder has seen the entry's generation: until all that
 * run guest code have (codemap_seen()), the page's owner has to compare it by itself.
 *
 * A write counts itself in before it looks at the lines, tells the owners, is made, tells them again and counts itself
 * out. So an owner that observes the bytes written observes either the notice or the writer, and takes the page
 * for good only if neither is there (codemap_busy()). A page that finds no room is nobody's: its owner goes on comparing.
 *
 * Threads: each processor's calls on its own; structures are shared, by atomic accesses; ->lock is for who enters
 * and removes. Writes past the processors (the program, devices, PV pages) are not seen here.
 */
#ifndef SILICON_MMU_CODEMAP_H
#define SILICON_MMU_CODEMAP_H

#include "silicon/mmu/mmu.h"

#define CODEMAP_SLOTS	32768u
#define CODEMAP_PROBES	64u
#define CODEMAP_MEMBERS 1024u
#define CODEMAP_ADDED	64u /* newest generations whose pages are remembered */
#define CODEMAP_FEW	4u  /* of them: more, and all write tags go */
#define CODEMAP_INBOX	12u
#define CODEMAP_FLIGHT	8u
#define CODEMAP_NEVER	(~0ull)

struct codemap_page {
	const uint8_t *hva; /* atomic; NULL: never used */
	uint64_t lines;	    /* atomic */
	uint64_t owners;    /* atomic; BIT(member), the last bit stands for all from there on */
	uint64_t gen;	    /* in which it got its first owner; atomic */
	uint32_t writers;   /* writes under way; atomic */
	uint32_t nr_far;    /* owners behind the last bit; lock */
};

struct codemap_member {
	struct cpu *cpu;
	uint64_t seen;	 /* generations whose pages it has no write tags of; atomic */
	uint32_t inside; /* may run guest code; atomic */
	uint32_t posted; /* ->inbox is to be looked at; atomic */
	bool lost;	 /* and there was no room in it; atomic */
	const uint8_t *inbox[CODEMAP_INBOX]; /* pages written; NULL: free; atomic */
	uint32_t nr_flight;		     /* its own from here on */
	struct {
		struct codemap_page *page;
		bool told; /* its owners */
	} flight[CODEMAP_FLIGHT];
} __aligned_(64);

struct codemap {
	uint32_t lock; /* futex: 1 held, 2 waited for */
	uint32_t nr_members;
	uint64_t gen; /* atomic */
	const uint8_t *added[CODEMAP_ADDED];
	struct codemap_member member[CODEMAP_MEMBERS];
	struct codemap_page page[CODEMAP_SLOTS];
};

/* ---- ordinary C, one thread at a time ---- */

struct codemap *codemap_create(void); /* NULL: no memory */
void codemap_destroy(struct codemap *w);
/* A processor that runs no guest code yet: false if there is no room. The last to join may leave again. */
bool codemap_join(struct codemap *w, struct cpu *cpu);
void codemap_leave(struct cpu *cpu);

/* ---- vCPU thread, general registers only; cpu->codemap may be NULL ---- */

static inline struct codemap_member *codemap_self(const struct cpu *cpu)
{
	return &cpu->codemap->member[cpu->codemap_index];
}

static inline bool codemap_shared(const struct cpu *cpu)
{
	return cpu->codemap && __atomic_load_n(&cpu->codemap->nr_members, __ATOMIC_RELAXED) > 1;
}

/* Processors of the machine. */
static inline unsigned codemap_members(const struct cpu *cpu)
{
	return cpu->codemap ? __atomic_load_n(&cpu->codemap->nr_members, __ATOMIC_RELAXED) : 1;
}

/* Around guest code. */
void codemap_enter(struct cpu *cpu);
void codemap_exit(struct cpu *cpu);
/* Between two instructions, for ATTN_CODE: give up write tags that are asked for. */
void codemap_follow(struct cpu *cpu);

/*
 * The page is this processor's, with no line yet. The generation that others must have seen;
 * 0: there are none; CODEMAP_NEVER: there was no room.
 */
uint64_t codemap_add(struct cpu *cpu, const uint8_t *hva);
void codemap_cover(struct cpu *cpu, const uint8_t *hva, uint64_t lines);
void codemap_remove(struct cpu *cpu, const uint8_t *hva);
/* Up to which generation all others that run guest code have given up their tags. */
uint64_t codemap_seen(const struct cpu *cpu);
/* Ask them to. */
void codemap_hurry(struct cpu *cpu);
/* A write to the page is under way. */
bool codemap_busy(const struct cpu *cpu, const uint8_t *hva);
/* The pages of this processor's code that others wrote to; how many. *ret_lost: there are more. */
unsigned codemap_take(struct cpu *cpu, const uint8_t *ret[CODEMAP_INBOX], bool *ret_lost);

/* Writes to others' code. */
static inline unsigned codemap_under_way(const struct cpu *cpu)
{
	return cpu->codemap ? codemap_self(cpu)->nr_flight : 0;
}

static inline bool codemap_posted(const struct cpu *cpu)
{
	return cpu->codemap && __atomic_load_n(&codemap_self(cpu)->posted, __ATOMIC_RELAXED);
}

/* ---- for access.c and tlb.c ---- */

/* The page is somebody's code: no write tag for it. */
bool codemap_refuses(const struct cpu *cpu, const uint8_t *hva);
/* A write to these lines of the page is about to be made. */
void codemap_begin(struct cpu *cpu, const uint8_t *hva, uint64_t lines);
/* All but the first nr are made. */
void codemap_end(struct cpu *cpu, unsigned nr);

#endif
