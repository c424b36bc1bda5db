/* SPDX-License-Identifier: MIT */
/*
 * What one vCPU remembers about code: decoded instructions and thunks. Room header of exec/.
 *
 * Instructions stand in one table indexed by RIP; a hit is proven by comparing mode key and bytes, so
 * that code may change at any time by anybody's hand. vCPU thread only.
 */
#ifndef SILICON_EXEC_CACHE_H
#define SILICON_EXEC_CACHE_H

#include "host/host.h"
#include "silicon/exec/insn.h"

#include <Zydis/Zydis.h>

#define CACHE_BITS  15
#define CACHE_INSNS (1u << CACHE_BITS)
#define THUNK_CODE  (4u << 20) /* bytes of code memory */
#define THUNK_BITS  16
#define THUNK_SLOTS (1u << THUNK_BITS) /* of the hash table */
#define THUNK_MAX   (THUNK_SLOTS / 2)

/* A thunk's identity: the instruction as the host runs it, and what stands for RSP in it. */
struct thunk_key {
	uint8_t bytes[15];
	uint8_t rename; /* host register that holds guest RSP, or REG_NONE */
};

struct thunk {
	struct thunk_key key;
	uint32_t start; /* offset of its code */
	uint32_t abort; /* where a host fault resumes */
};

struct exec_cache {
	struct insn *insn; /* CACHE_INSNS */
	struct cpu *cpu;
	uint16_t key; /* mode key of the next instruction */

	/* Thunks, in order of their code; table holds 1 + number. */
	struct host_code code;
	uint32_t used;
	uint32_t nr_thunks;
	struct thunk *thunk; /* THUNK_MAX */
	uint32_t *table;     /* THUNK_SLOTS */
	struct host_trap trap;

	ZydisDecoder decoder[4]; /* by enum code_mode; the last for real and virtual-8086 mode */
	ZydisDecoder host_decoder;
	bool decoders_set;

	/* Offsets in the host's XSAVE image, 0 where the component is absent. */
	uint32_t xoff_avx, xoff_k, xoff_zmm_hi, xoff_hi16;
};

static inline struct insn *cache_slot(const struct exec_cache *c, uint64_t rip)
{
	return &c->insn[(rip ^ rip >> CACHE_BITS) & (CACHE_INSNS - 1)];
}

/* Forget all decoded instructions (their thunks are gone). */
void cache_flush(struct exec_cache *c);

#endif
