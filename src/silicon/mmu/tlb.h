/* SPDX-License-Identifier: MIT */
/*
 * The software TLB of one vCPU, with the inline hit.
 *
 * One table per access state (cpu->mode.access), for a page's rights depend on it. A tag is
 * the page's linear address with a generation in its low 12 bits; it is there only if a plain access of its
 * kind needs nothing but the addend: everything that must be noticed (MMIO, ROM, the first write
 * to a clean or logged page, data breakpoints) is simply absent and so takes the slow path.
 *
 * A flush is a new generation. There is one per half of the address space (bit 63, or bit 31
 * outside IA-32e mode), so that a CR3 write keeps the kernel's half if all in it is global; and another pair
 * for write tags alone. Generations never come twice: when they are used up, the tables are cleared.
 *
 * The lower half has contexts: each of some recent PCIDs keeps its generations, and its entries stand where its own
 * hash puts them (context.c). The upper half is all PCIDs': what is not global in it goes with the PCID.
 *
 * Whose translations they are is a world: the processor's own, or a guest's of its virtualization (virt.h). A world has
 * an upper half and PCIDs of its own. A vCPU that may run guests has two TLBs, one for each mode, so that an exit and
 * the entry behind it move nothing.
 */
#ifndef SILICON_MMU_TLB_H
#define SILICON_MMU_TLB_H

#include "silicon/mmu/mmu.h"

#define TLB_BITS	12
#define TLB_ENTRIES	(1u << TLB_BITS)
#define TLB_GENERATIONS PAGE_SIZE /* what the low bits of a tag can hold */
#define TLB_MEMORY_BITS 9
#define TLB_MEMORY	(1u << TLB_MEMORY_BITS)
#define TLB_LARGE_SHIFT 22 /* 4 MiB: the granule in which 2 and 4 MiB pages are remembered */
#define TLB_LARGE_BITS	10
#define TLB_HUGE_SHIFT	30
#define TLB_CONTEXTS	8  /* of the lower half, */
#define TLB_WORLDS	4  /* and of the upper */
#define TLB_PATHS	32 /* for page tables, and for directories */
#define TLB_PATH_LEVELS 2
#define TLB_RENEWED	128 /* entries that a flush looks up again, */
#define TLB_LET_GO	8   /* but one of so many: who is not missed is in use no more */

struct tlb_entry {
	uint64_t tag_read, tag_write, tag_fetch; /* 0: no such tag */
	uint64_t addend;			 /* host address - linear address */
};

/* What platform->memory() said of a page. */
struct tlb_memory {
	uint64_t tag;
	struct ram_page page;
};

/* The code page that a state runs in: a TLB of one entry before the table, since most fetches stay there. */
struct tlb_code {
	gva_t base;	     /* TLB_NO_CODE: none */
	const uint8_t *host; /* of the page's first byte */
};

#define TLB_NO_CODE BIT(63) /* not canonical */

/* Everything that cached translations depend on and that is not flushed for explicitly. */
struct tlb_basis {
	uint64_t cr0, cr4, efer, pkru, dr7, dr[4];
	uint8_t maxphyaddr;
};

/* What the lower half has for a PCID that is not the present one; the present one's is in struct tlb. */
struct tlb_context {
	bool used, local, global;
	uint8_t world; /* index */
	uint16_t pcid;
	gpa_t root;		 /* CR3's when it was left */
	uint64_t gen, gen_write; /* gen_write 0: to be renewed */
	uint64_t last;		 /* ->nr_switches when it was left */
};

/* The same of the upper half, for a world. */
struct tlb_world {
	bool used, local;
	uint16_t pcid; /* whose entries are those that are not global */
	struct virt_world id;
	uint64_t gen, gen_write;
	uint64_t last;
};

/*
 * A table that a recent walk came to, and what the entries on the way there said (SDM, paging-structure caches). Good
 * as long as nothing was flushed since, whatever it was.
 */
struct tlb_path {
	uint64_t flushes; /* 1 + ->nr_flushes then */
	uint64_t span;	  /* addresses that the table maps, by their upper bits */
	gpa_t root, table;
	uint64_t all, any; /* AND and OR of the entries */
};

/* For who looks for what is slow. */
struct tlb_counters {
	uint64_t walks, stage2, fills,
		refills; /* page walks, nested steps, entries made, found for the direct tables */
	uint64_t worlds, contexts; /* went to another world, to another PCID */
	uint64_t halves;	   /* halves of the address space flushed */
	uint64_t taken;		   /* contexts and worlds begun with nothing */
};

struct direct;	/* direct.h */
struct mmu_log; /* log.h */

struct tlb {
	struct tlb *other;     /* the other mode's; NULL: this one is for both */
	bool guest;	       /* that of guest mode */
	struct direct *direct; /* the run tempo's tables, or NULL */
	struct mmu_log *log;   /* of writes, or NULL */
	uint64_t gen[2];       /* by half: of read and fetch tags */
	uint64_t gen_write[2];
	uint64_t next_gen;
	uint64_t gen_memory;
	uint8_t half_shift;
	bool local[2];	     /* by half: entries that are not global were filled */
	bool global;	     /* in the lower half: some that are */
	unsigned now, world; /* the present context, the present world */
	gpa_t root;	     /* CR3's */
	unsigned salt[2];    /* by half: their part of indices */
	uint64_t nr_switches;
	struct tlb_context context[TLB_CONTEXTS];
	struct tlb_world worlds[TLB_WORLDS];
	struct tlb_counters count;
	bool watching;	/* data breakpoints are armed */
	bool two_pages; /* for tests: no more are kept */
	gva_t kept[2];
	struct tlb_code code[NR_ACCESS_STATES];
	struct tlb_basis basis;
	uint32_t pkru_used; /* bits of PKRU that some entry rests on */
	uint64_t huge;	    /* by hashed GiB: pages of 1 GiB were filled */
	uint64_t large[(1 << TLB_LARGE_BITS) / 64];
	uint64_t nr_flushes; /* of anything */
	uint64_t nr_renewals;
	struct tlb_path path[TLB_PATH_LEVELS][TLB_PATHS];
	struct tlb_memory memory[TLB_MEMORY];
	struct tlb_entry table[NR_ACCESS_STATES][TLB_ENTRIES] __aligned_(64);
};

/*
 * Folding in the bits above keeps addresses 16 MiB apart from colliding. Bit 0 is the page's: two that follow each other
 * never meet, so that what crosses from one to the other cannot hit.
 */
static inline unsigned tlb_index(gva_t addr, unsigned salt)
{
	uint64_t page = addr >> PAGE_SHIFT;

	return (page ^ page >> TLB_BITS << 1 ^ salt) & (TLB_ENTRIES - 1);
}

/* Pages of two contexts meet only if they are far apart. */
static inline unsigned tlb_salt(unsigned context)
{
	return context * (TLB_ENTRIES / TLB_CONTEXTS);
}

/* Above bit 63 the salt is the world's, else the context's: INVLPG finds what other PCIDs filled of the upper half. */
static inline unsigned tlb_salt_at(const struct tlb *tlb, gva_t addr)
{
	return tlb->salt[addr >> 63];
}

static inline unsigned tlb_half(const struct tlb *tlb, gva_t addr)
{
	return addr >> tlb->half_shift & 1;
}

/* Taken at the last byte: an access that crosses the page compares with the wrong page and misses. */
static inline uint64_t tlb_key(const struct tlb *tlb, const uint64_t gen[2], gva_t addr,
			       unsigned size)
{
	return ((addr + size - 1) & PAGE_MASK) | gen[tlb_half(tlb, addr)];
}

static inline const struct tlb_entry *tlb_entry(const struct cpu *cpu, enum access_state state,
						gva_t addr)
{
	return &cpu->tlb->table[state][tlb_index(addr, tlb_salt_at(cpu->tlb, addr))];
}

/* Host pointer for a read by this state, or NULL: take the slow path. */
static inline uint8_t *tlb_state_read(const struct cpu *cpu, enum access_state state, gva_t addr,
				      unsigned size)
{
	const struct tlb_entry *e = tlb_entry(cpu, state, addr);

	if (unlikely(e->tag_read != tlb_key(cpu->tlb, cpu->tlb->gen, addr, size)))
		return NULL;
	return (uint8_t *)(addr + e->addend);
}

static inline uint8_t *tlb_state_write(const struct cpu *cpu, enum access_state state, gva_t addr,
				       unsigned size)
{
	const struct tlb_entry *e = tlb_entry(cpu, state, addr);

	if (unlikely(e->tag_write != tlb_key(cpu->tlb, cpu->tlb->gen_write, addr, size)))
		return NULL;
	return (uint8_t *)(addr + e->addend);
}

/* vCPU thread. For explicit data accesses: the host pointer, to be used by host/guard.h or thunks, or NULL. */
static inline uint8_t *tlb_hit_read(const struct cpu *cpu, gva_t addr, unsigned size)
{
	return tlb_state_read(cpu, cpu->mode.access, addr, size);
}

/* Also for read-modify-write. */
static inline uint8_t *tlb_hit_write(const struct cpu *cpu, gva_t addr, unsigned size)
{
	return tlb_state_write(cpu, cpu->mode.access, addr, size);
}

/* tlb.c: the same from the table. */
const uint8_t *tlb_fetch_table(struct cpu *cpu, gva_t addr);

/* Instruction bytes at addr, if at least 16 are left in the page; else NULL: mmu_fetch(). */
static inline const uint8_t *tlb_fetch_hit(struct cpu *cpu, gva_t addr)
{
	const struct tlb_code *code = &cpu->tlb->code[cpu->mode.access];
	uint64_t off = addr - code->base;

	return likely(off <= PAGE_SIZE - 16) ? code->host + off : tlb_fetch_table(cpu, addr);
}

/* ---- for the room ---- */

static inline void tlb_forget_code(struct tlb *tlb)
{
	for (unsigned state = 0; state < NR_ACCESS_STATES; state++)
		tlb->code[state].base = TLB_NO_CODE;
}

static inline void tlb_forget_paths(struct tlb *tlb)
{
	tlb->nr_flushes++;
}

/* ---- mmu/renew.c, for who flushes what most likely stays ---- */

/* What stood in the direct tables before a flush, the newest of it. */
struct tlb_renewal {
	unsigned nr;
	struct {
		gva_t page;
		const uint8_t *hva; /* of its first byte */
		uint8_t state;
		bool fetched; /* there was a tag for it */
	} v[TLB_RENEWED];
};

void tlb_renewal_note(struct tlb *tlb, struct tlb_renewal *ret);
/* Behind the flush: enter of it what stands in the tables still. */
void tlb_renewal_make(struct cpu *cpu, const struct tlb_renewal *renewal);

/* ---- context.c, for tlb.c ---- */

void tlb_start_over(struct tlb *tlb);
void tlb_flush_half(struct tlb *tlb, unsigned half);
/* All contexts and worlds but the present ones. */
void tlb_forget_contexts(struct tlb *tlb);
/* Contexts of the present world but the present one, if they have global entries. */
void tlb_forget_globals(struct tlb *tlb);
/* Write tags of all contexts and worlds that are put away. */
void tlb_forget_writes(struct tlb *tlb);
/* What is there is the present world's and PCID's. */
void tlb_name_present(struct cpu *cpu);
/* tlb.c */
void tlb_flush(struct tlb *tlb);
void tlb_flush_local(struct tlb *tlb);
void tlb_flush_page(struct tlb *tlb, gva_t addr);
void tlb_flush_writes_to(struct tlb *tlb, const uint8_t *hva);
void tlb_drop_page(struct tlb *tlb, gva_t addr, unsigned salt);
bool tlb_in_large(const struct tlb *tlb, gva_t addr);

/* Enter what the passport allows. Writes only with may_write: the page is marked dirty already, if logged. */
void tlb_fill(struct cpu *cpu, const struct access *a, bool may_write);
/* platform->memory(), remembered. */
void tlb_memory(struct cpu *cpu, gpa_t gpa, struct ram_page *ret);
void tlb_forget_memory(struct tlb *tlb);

/* walk.c: what leaves cpu_run() from inside an access. */
enum result mmu_exit(struct cpu *cpu, enum cpu_exit_kind kind, gpa_t addr, unsigned size);
/*
 * Walk the tables of ctx for a: fault, or a's outputs down to ->dirty. Sets A and D bits, unless dry.
 */
enum result mmu_walk(struct cpu *cpu, const struct walk_context *ctx, struct access *a, bool dry);
/*
 * The same where nobody asked for it yet: no side effects, and no fault. False where there would be either.
 */
bool mmu_walk_ahead(struct cpu *cpu, const struct walk_context *ctx, struct access *a);
/* The tables in force. */
struct walk_context mmu_context(const struct cpu *cpu);

#endif
