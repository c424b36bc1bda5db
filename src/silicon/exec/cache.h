/* SPDX-License-Identifier: MIT */
/*
 * What one vCPU remembers about code: decoded instructions and thunks. Room header of exec/.
 *
 * Instructions stand in a table of pairs found by RIP; a hit is proven by comparing mode key and bytes, so
 * that code may change at any time by anybody's hand. Behind it is a pool found by the bytes
 * themselves: as instructions come again at other addresses, it spares most decoding. The length, which
 * the pool's hash needs, is guessed from the first bytes and proven by the comparison, for no
 * instruction is the beginning of another. vCPU thread only.
 */
#ifndef SILICON_EXEC_CACHE_H
#define SILICON_EXEC_CACHE_H

#include "host/host.h"
#include "silicon/exec/insn.h"

#include <Zydis/Zydis.h>

#define CACHE_BITS  14
#define CACHE_INSNS (1u << CACHE_BITS)
#define POOL_BITS   13
#define POOL_INSNS  (1u << POOL_BITS)
#define GUESS_BITS  14
#define GUESSES	    (1u << GUESS_BITS)
#define THUNK_CODE  (16u << 20) /* bytes of code memory */
#define THUNK_BITS  18
#define THUNK_FIRST 10
#define THUNK_SLOTS (1u << THUNK_BITS) /* of the hash table, at most */
#define THUNK_MAX   (THUNK_SLOTS / 2)

/* A thunk's identity: the instruction as the host runs it, and what stands for RSP in it. */
struct thunk_key {
	uint8_t bytes[15];
	uint8_t rename; /* host register that holds guest RSP, or REG_NONE */
};

struct thunk {
	struct thunk_key key;
	uint32_t start; /* offset of its code */
	uint32_t insn;	/* of the instruction in it */
	uint32_t abort; /* where a host fault resumes */
};

struct run;
struct decode_memo;

#define NR_XSTATES 32

struct xstate {
	uint32_t size, offset; /* offset in the standard format */
	bool aligned;	       /* in the compacted one, to 64 bytes */
};

struct exec_cache {
	struct run *run;   /* the run tempo, or NULL */
	struct insn *insn; /* CACHE_SIZE bytes: cache_slot() */
	struct insn *pool; /* POOL_INSNS */
	uint8_t *guess;	   /* GUESSES: lengths */
	struct cpu *cpu;
	uint16_t key; /* mode key of the next instruction */

	/* Thunks, in order of their code; table holds 1 + number. */
	struct host_code code;
	uint32_t used;
	uint32_t nr_thunks;
	uint32_t nr_drops;   /* times that all thunks were dropped */
	struct thunk *thunk; /* THUNK_MAX */
	uint32_t *table;     /* 1 << ->table_bits, at most THUNK_SLOTS */
	unsigned table_bits;
	struct host_trap trap;
	const struct insn *last;  /* that was stepped */
	struct decode_memo *memo; /* decode_memo.c */
	uint32_t memo_drops;	  /* ->nr_drops that it follows */

	ZydisDecoder decoder[4]; /* by enum code_mode; the last for real and virtual-8086 mode */
	ZydisDecoder host_decoder;
	bool decoders_set;

	/* Components of XSAVE images, of the host's and the model's; the latter are known once ->xstate_known. */
	struct xstate host_xstate[NR_XSTATES], model_xstate[NR_XSTATES];
	bool xstate_known;
	/* Offsets in the host's XSAVE image, 0 where the component is absent. */
	uint32_t xoff_avx, xoff_k, xoff_zmm_hi, xoff_hi16;
};

/*
 * Slots with even and with odd numbers stand in two halves, half an entry apart: the lines that hot instructions
 * need then fill all sets of the host's caches, and not every second one.
 */
#define CACHE_HALF (CACHE_INSNS / 2 * sizeof(struct insn) + sizeof(struct insn) / 2)
#define CACHE_SIZE (2 * CACHE_HALF)

static inline struct insn *cache_slot(const struct exec_cache *c, uint32_t i)
{
	size_t half = sizeof(struct insn) / 2;

	return (struct insn *)((uint8_t *)c->insn + half * (i + (i & 1) * CACHE_INSNS));
}

/* An instruction stands in the slot of this number or in the neighbour's, with bit 0 turned. */
static inline uint32_t cache_number(uint64_t rip)
{
	return (rip ^ rip >> CACHE_BITS) & (CACHE_INSNS - 1);
}

static inline uint32_t hash_words(uint64_t a, uint64_t b, unsigned bits)
{
	return ((a ^ b * 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull) >> (64 - bits);
}

/* Ordinary C. In large pages, which are there at once: for who does nothing but step. */
void cache_large_pages(const struct exec_cache *c);
/* Forget all decoded instructions (their thunks are gone). */
void cache_flush(struct exec_cache *c);

#endif
