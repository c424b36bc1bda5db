/* SPDX-License-Identifier: MIT */
/*
 * Tables that translated code looks translations up in (docs: run). Room header of mmu/, for exec/ too.
 *
 * They stand beside the software TLB, filled by it and flushed with it, in the low 2 GiB so that an
 * index register and a 32-bit displacement reach them. One map per access state and kind of access; the
 * index is the low 16 bits of the page number. neg[] holds minus the page's address, so that
 * (last byte + neg) < 4096 is the hit. Zero hits last bytes in page 0 alone, which accesses from there and
 * over the top of the address space have: so DIRECT_NEVER is the cleared value of the first index and of
 * those at the top that an access of DIRECT_MOST bytes, as string instructions make them, may wrap from. What was filled is logged, so that a flush costs what was filled. The entries of each half are those
 * of its present context (context.c: PCIDs for the lower, worlds for the upper): others' are put away, the newest of
 * them, by the log. Guest mode has tables of its own, as it has its own TLB.
 *
 * Pages that hold translated code are registered by host address. No write to one may go unnoticed: they get
 * no write tag anywhere, and what writes to them stands in ->written, as does what is newly mapped. They are
 * entered in the machine's registry, too (codemap.h), for other processors' writes.
 */
#ifndef SILICON_MMU_DIRECT_H
#define SILICON_MMU_DIRECT_H

#include "silicon/mmu/mmu.h"

#define DIRECT_ENTRIES	  65536u
#define DIRECT_MOST	  (16 * PAGE_SIZE) /* bytes that one look-up is for */
#define DIRECT_TOP	  (DIRECT_ENTRIES - DIRECT_MOST / PAGE_SIZE)
#define DIRECT_LOG	  8192u
#define DIRECT_NEVER	  BIT(62)
#define DIRECT_CODE_SLOTS 32768u
#define DIRECT_CODE_MAX	  (DIRECT_CODE_SLOTS / 2)
#define DIRECT_WRITTEN	  8
#define DIRECT_FLUSHED	  8
#define DIRECT_CONTEXTS	  8 /* TLB_CONTEXTS */
#define DIRECT_SAVED	  256 /* the newest: all would cost more than those that are used again save */

enum direct_kind { DIRECT_READ, DIRECT_WRITE, NR_DIRECT_KINDS };

struct direct_map {
	uint64_t neg[DIRECT_ENTRIES];
	uint64_t addend[DIRECT_ENTRIES]; /* host address - linear address */
};

struct direct_log {
	uint32_t nr; /* above DIRECT_LOG: not all is logged */
	uint32_t entry[DIRECT_LOG];
};

/* Entries of a half, put away with their context. */
struct direct_saved {
	uint32_t nr;
	struct {
		uint32_t entry; /* as in the log */
		uint64_t neg, addend;
	} v[DIRECT_SAVED];
};

/* A naturally aligned range of linear addresses. */
struct direct_span {
	gva_t start;
	uint64_t mask; /* of the bits that are the range's */
};

/* Of each half of the address space. */
struct direct_half {
	struct direct_log log;
	unsigned now;			   /* the present context */
	uint64_t version[DIRECT_CONTEXTS]; /* counts flushes in each */
	struct direct_saved saved[DIRECT_CONTEXTS];
};

/* Pages that hold translated code, whoever's mode it is in. */
struct direct_code {
	const uint8_t *page[DIRECT_CODE_SLOTS];
	uint64_t lines[DIRECT_CODE_SLOTS]; /* of 64 bytes: those that count */
	uint32_t nr;
	uint32_t nr_written; /* above DIRECT_WRITTEN: not all are listed */
	struct {
		const uint8_t *page;
		uint64_t lines;
	} written[DIRECT_WRITTEN];
};

struct direct {
	struct direct_map map[ACCESS_USER_ALIGN][NR_DIRECT_KINDS];
	struct direct_half half[2];
	uint64_t gen; /* counts flushes: what was looked up before is to be looked up again */
	uint32_t
		nr_flushed; /* spans of addresses, in the present contexts, since direct_flushed_clear() */
	struct direct_span flushed[DIRECT_FLUSHED];
	struct direct_code *code;
	bool owns_code;
};

/* Ordinary C; with the code pages of beside, if there is that one. NULL: no memory there. */
struct direct *direct_create(struct direct *beside);
void direct_destroy(struct direct *d);

/* ---- vCPU thread, general registers only ---- */

/*
 * Register the page at hva, no line of it yet: false if there is no room. If it was not there, *ret_gen is what
 * codemap_add() said, else it stays as it is.
 */
bool direct_code_add(struct cpu *cpu, const uint8_t *hva, uint64_t *ret_gen);
void direct_code_remove(struct cpu *cpu, const uint8_t *hva);
/* From now on writes to these lines of a registered page are noticed. */
void direct_code_lines(struct cpu *cpu, const uint8_t *hva, uint64_t lines);
void direct_code_clear(struct cpu *cpu);

/* What depends on translations has followed the flushes so far. */
static inline void direct_flushed_clear(struct direct *d)
{
	d->nr_flushed = 0;
}

/* Enter what the software TLB knows of addr in the present access state. */
void direct_refill(struct cpu *cpu, gva_t addr);

/* What stands in neg[] where nothing was entered. */
static inline uint64_t direct_cleared(unsigned index)
{
	return index && index < DIRECT_TOP ? 0 : DIRECT_NEVER;
}

/* ---- for tlb.c; d may be NULL ---- */

/* What of rights may be entered for a. Writes to code are noted, and as if written to what is newly mapped for fetches. */
uint8_t direct_rights(struct direct *d, const struct access *a, uint8_t rights, bool fetched);
void direct_fill(struct direct *d, const struct access *a, uint8_t rights, unsigned half);
void direct_flush_half(struct direct *d, unsigned half);
void direct_flush_writes(struct direct *d);
/* The same for one page, wherever it is mapped. */
void direct_flush_writes_to(struct direct *d, const uint8_t *hva);
void direct_flush_page(struct direct *d, gva_t addr);
/* A half becomes another context's; shift: of the bit that tells halves. */
void direct_switch(struct direct *d, unsigned half, unsigned to, unsigned shift);
/* What is put away for a context, all or (of the lower half) of one page. */
void direct_forget(struct direct *d, unsigned half, unsigned context);
void direct_forget_page(struct direct *d, unsigned context, gva_t addr);
/* Say that the range of 1 << shift bytes around addr was flushed, by direct_flush_page() throughout. */
void direct_note_flush(struct direct *d, gva_t addr, unsigned shift);

#endif
