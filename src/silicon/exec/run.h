/* SPDX-License-Identifier: MIT */
/*
 * The run tempo: guest blocks as host code. Room header of exec/; docs/run.md tells the whole.
 *
 * A vCPU has its own code cache and shares nothing, so there are no locks and patching a jump is a store. A block
 * is found by (RIP, key, host page). Each of its instructions is a site: whatever an instruction cannot do
 * inline (a TLB miss, a fault of the host, an operation that is not translated) is done by its step handler,
 * run_cold(), and so is exact by descent.
 *
 * struct run stands in the low 2 GiB: translated code reaches it by 32-bit displacements.
 */
#ifndef SILICON_EXEC_RUN_H
#define SILICON_EXEC_RUN_H

#include "silicon/exec/cache.h"
#include "silicon/exec/exec.h"
#include "silicon/mmu/direct.h"
#include "silicon/mmu/tlb.h"

#include <stdio.h>

struct run_record;

/* MiB of code: what blocks may take at first, where nobody says otherwise, and at all. */
#define RUN_FIRST_BITS 4
#define RUN_FIRST      (1u << RUN_FIRST_BITS)
#define RUN_USUAL      64u
#define RUN_MOST       128u
#define RUN_MIB	       (1u << 20)
/* And for each: */
#define RUN_CODE_ROOM	(32u << 10)  /* what a block takes at most */
#define RUN_SETTLE	(256u << 10) /* code that is given back at a time */
#define RUN_HUGE	(2u << 20)   /* a huge page of the host */
#define RUN_EAGER	(8u << 20)   /* code that is in huge pages before they are full */
#define RUN_SITES	(72u << 10)  /* struct run_brief */
#define RUN_BLOCK_BITS	16
#define RUN_BLOCKS	(9u << 10)
#define RUN_EXITS	(2 * RUN_BLOCKS)
#define RUN_OVERS	1024u
#define RUN_PAGE_BITS	13
#define RUN_PAGES	192u
#define RUN_LINE	64u /* bytes: what pages are watched and compared by */
#define RUN_KEYS	16u
#define RUN_BLOCK_INSNS 120u
#define RUN_SITE_BITS	8u /* of a site's number within its block */
#define RUN_COLD_BITS	12
#define RUN_COLD	(1u << RUN_COLD_BITS) /* instructions that are kept decoded */
#define RUN_KEPT_BITS	14		      /* of an offset within a block's code */
#define RUN_BRIEF_BITS	11
#define RUN_KEYS_FEW	10u /* where there is no guest mode */
#define RUN_PARTS	4u
#define RUN_HEAT_BITS	18
#define RUN_HOT		400u  /* visits: what a trace saves repays its making; */
#define RUN_HOT_TRACES	2048u /* twice as many for so many traces that are there already, */
#define RUN_RING_TRACES 2048u /* from so many on they go by the ring */
#define RUN_HOT_TIMES	6u    /* and so on */
#define RUN_HOT_MOST	(RUN_HOT << RUN_HOT_TIMES)
#define RUN_LASTED	4u  /* visits of a block that was worth its making */
#define RUN_HOT_AGAIN	16u /* the same, if there was no time for it */
#define RUN_PLAIN_INSNS 32u /* of a block that is no trace */
#define RUN_SOON \
	(4ull    \
	 << 30) /* retired instructions until it is full again: then there is too little room */
#define RUN_LARGE_CODE	 (1u << 20)   /* of code, from which on the tables are in huge pages, */
#define RUN_LARGE_AGE	 (3ull << 29) /* retired instructions, too: more than most boots take */
#define RUN_JUMP_BITS	 17	      /* of an index into a jump cache, */
#define RUN_JUMP_FEW	 15	      /* and where vCPUs are many */
#define RUN_JUMP_DENSE	 2048u	      /* entries of a jump cache that is worth huge pages */
#define RUN_LARGE_CPUS	 4u	      /* vCPUs that have all the memory that helps, */
#define RUN_MIDDLE_CPUS	 16u	      /* or at least some of it */
#define RUN_RING	 256u	      /* CALLs whose RETs are known: what a byte counts */
#define RUN_RING_BEFORE	 3u	      /* that are looked at before the first, and never right */
#define RUN_JMP		 5u	      /* bytes of a jump */
#define RUN_JUMPS	 (1u << RUN_JUMP_BITS)
#define RUN_COUNT_MAX	 (2 * PAGE_SIZE - 1) /* of a REP's elements inline: a mask */
#define RUN_JUMP_LOG	 (2 * RUN_JUMPS)
#define RUN_JUMP_FILTER	 32768u /* bits */
#define RUN_SLOTS	 11u	/* of the frame that translated code has on the host's stack */
#define RUN_GROUPS	 (8u << 10)
#define RUN_TRACE_GROUPS 64u
#define RUN_EXCHANGES	 4u  /* of registers, in a trace: as many as have none */
#define RUN_HOMES_STUB	 64u /* bytes before the head of a trace that has some */
#define RUN_CHECKS	 7u  /* sizes of accesses that there are stubs for: 1 to 64 */
#define RUN_NEAR_SHIFT	 9
#define RUN_NEAR	 (RUN_MIB >> RUN_NEAR_SHIFT)
#define RUN_FRESH_FEW	 24u
#define RUN_ALIASED	 64u
#define RUN_OPEN	 64u
#define RUN_COMPARE	 32u
#define RUN_SAVED	 512u
#define RUN_NO_JUMP	 1u /* minus -1 */
#define RUN_NONE	 0xffffffffu
#define RUN_DEAD	 64u /* blocks that a page keeps though they are */
#define RUN_DROPS	 2u  /* after more it is being rewritten as a whole */
#define RUN_EXIT_BITS	 22u /* of an exit's number, */
#define RUN_NO_EXIT	 ((1u << RUN_EXIT_BITS) - 1) /* and none */
#define RUN_CALL	 5u			     /* bytes of a call */
#define RUN_FIND_ROOM	 64u /* that a look in the jump cache takes at most */
#define RUN_HEAD_LEAVE	 10u /* from a block's way out at its head to its cross entry */
#define RUN_HEAD_SHIFT \
	8 /* of the block's number in what its head gives the stub; below: instructions */
#define RUN_MOV_IMM    5u	  /* bytes of a MOV to ECX */
#define RUN_REACH_BITS 36u	  /* of the distance that an exit leads, with its sign */
#define RUN_MAX_INSN   15u	  /* bytes of an instruction */
#define RUN_AWAY       15u	  /* what ->away holds */
#define RUN_SYNC_TICKS (1u << 22) /* of the TSC, between epochs that frequent instructions begin, */
#define RUN_SYNC_BURST 64u	  /* SERIALIZEs within RUN_SYNC_TICKS that begin one each */
#define RUN_SYNC_PAGE \
	(1u << 17) /* and for each page that the last one had compared: some 5 % of the time */

#define RUN_KEY_ACCESS 16 /* shift of the access state in a key; below it is the decode key */
#define RUN_KEY_CPL0   BIT(18)
#define RUN_KEY_PLAIN \
	BIT(19) /* a block for the cases that a trace leaves out; none is made of it */

/* One guest instruction of a block, in the order of its code. */
struct run_site {
	uint64_t rip;
	uint32_t code;	/* offset of its code */
	uint32_t next;	/* where to go on behind it; 0: not in this block */
	uint32_t group; /* first of those that it checks, */
	uint8_t nr_groups;
	uint8_t last;	 /* from ->code to its last access: nothing is committed before */
	uint8_t left;	 /* instructions of the block from this one on */
	uint8_t flags;	 /* SITE_* */
	bool behind_x87; /* the site before leaves its pointers to this one's cold path */
	bool relay;	 /* two instructions in one: not kept */
};

/*
 * What is kept of it, for there are millions. The rest comes of its block: offsets count from the entry. What the instruction
 * was is decoded again where it is needed, out of the page's copy: run_site_insn(). Of a plain block, whose instructions stand behind
 * each other, less will do: struct run_brief.
 */
struct run_kept {
	uint64_t rip : 12; /* in its page */
	uint64_t code : RUN_KEPT_BITS;
	uint64_t next : RUN_KEPT_BITS - 1;
	uint64_t last : 8;
	uint64_t flags : 7;
	uint64_t nr_groups : 2;
	uint64_t left : 7;
	uint64_t behind_x87 : 1;
} __attribute__((packed, aligned(4)));

struct run_brief {
	uint32_t code : RUN_BRIEF_BITS;
	uint32_t len : 4; /* of the instruction */
	uint32_t last : 8;
	uint32_t flags : 7;
	uint32_t goes_on : 1; /* with the next site's code */
	uint32_t behind_x87 : 1;
};

_Static_assert(sizeof(struct run_kept) == 2 * sizeof(struct run_brief) &&
		       sizeof(struct run_brief) == 4 && RUN_BLOCK_INSNS < 1u << 7 &&
		       2 * RUN_BLOCK_INSNS <= 1u << RUN_SITE_BITS,
	       "what they hold");

/* Accesses of a trace that a site checks at once: what its cold path must know to go on in the trace. */
struct run_group {
	uint64_t root;		    /* plus the base register: what accesses are relative to */
	int32_t low;		    /* from there (and the index) to the lowest byte */
	uint16_t size;		    /* of all */
	uint8_t seg;		    /* whose base is added; 0: none */
	uint8_t base, index, scale; /* registers, or REG_NONE */
	uint8_t slot, kind;
	uint8_t number; /* in its trace */
	uint32_t cold;	/* offset of the displacement of the jump to the cold path */
	uint32_t plain; /* where that is to lead if one check cannot serve all */
};

/* Where it looked in the tables of struct direct: */
#define SITE_STRING BIT(0) /* at its elements; run_string_fixup() is for its last access */
#define SITE_MEM    BIT(1) /* at its memory operand */
#define SITE_PUSH   BIT(2)
#define SITE_POP    BIT(3)
#define SITE_LEAVE  BIT(4)
#define SITE_SHADOW BIT(5) /* stands behind an STI that has opened IF */
#define SITE_APART  BIT(6) /* when its handler ran, go on by another block */

/* What run_string_span() is to do: */
#define RUN_SPAN_LOG2 3 /* of what: log2 of an element's size */
#define RUN_SPAN_MOVS 4 /* or else STOS */
#define RUN_SPANS     8

struct run_block {
	uint64_t rip;
	uint32_t key : 20;
	uint32_t dead : 1;
	uint32_t replaced : 1; /* by a trace */
	uint32_t counts : 1;   /* its visits, down from run_block_hot() */
	uint32_t hot : 3;      /* how many that were: run_block_hot() */
	uint32_t loops : 1;    /* its end leads to its head */
	uint32_t homes : 1;    /* registers stand elsewhere: run_homes.c */
	uint32_t
		away : 4; /* instructions to where the guest left its mode, or more; 0: it did not */
	uint32_t entry : 27; /* offset of its code */
	uint32_t brief : 1;  /* its sites are */
	uint32_t over : 1;   /* it belongs to another page, too: run_block_over() */
	uint8_t to_inner;    /* from there: run_block_inner(); 0: its head calls stubs, */
	uint8_t to_cross;    /* and back: run_block_cross() */
	uint16_t page;
	uint32_t site;	    /* its first, in ->kept */
	uint32_t next;	    /* in the hash chain */
	uint32_t page_next; /* of the same page */
	uint32_t links;	    /* first exit that leads to it, or RUN_NO_EXIT */
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct run_block) == 36 && RUN_KEY_PLAIN < 1u << 20 && RUN_HOT_TIMES < 8 &&
		       RUN_MOST * RUN_MIB <= 1u << 27,
	       "there are 200,000");

/* What else is known of a block that is not ->brief: at its ->site, before its sites. */
struct run_wide {
	uint64_t lines; /* as run_block_lines() */
	uint32_t group; /* its first; of one that is ->over: its own in ->over */
} __attribute__((packed, aligned(4)));

#define RUN_WIDE (sizeof(struct run_wide) / sizeof(struct run_brief))

/* Of a block that belongs to another page, too: its one instruction ends there, or it is a trace that goes by a relay. */
struct run_over {
	uint32_t next;	/* block of the same second page */
	uint32_t group; /* its first */
	uint16_t page;	/* that it ends in */
	uint8_t line;	/* of that: what it was made of */
	bool relay;
};

/* Offset of the entry behind the look at attention. */
static inline uint32_t run_block_inner(const struct run_block *b)
{
	return b->entry + b->to_inner;
}

/* True if its head calls stubs: both entries are one then. */
static inline bool run_block_calls(const struct run_block *b)
{
	return !b->to_inner;
}

/* And of that from other pages. */
static inline uint32_t run_block_cross(const struct run_block *b)
{
	return b->entry - b->to_cross;
}

/* What the stubs of heads know of a block (run_stubs.c). */
struct run_visit {
	uint16_t left; /* visits until it is hot */
	uint16_t page;
};

/*
 * A direct branch out of a block; they stand in the order of their blocks, and so of their code: run_exit_at(), by which
 * run_exit_target() and others know the block.
 */
struct run_exit {
	uint64_t patch : 27;		 /* offset of the jump's displacement */
	int64_t target : RUN_REACH_BITS; /* from where the block's page begins */
	uint64_t
		forward : 1; /* no loop is closed by it: attention can wait for the next that may close one */
	uint64_t block : 21; /* 1 + that it leads to by now; 0: none */
	uint64_t next : 22;  /* exit to the same */
	uint64_t
		leave : 15; /* while it leads nowhere it leads to the call there, so far behind ->patch; 0: it is that call */
	uint64_t own : 1;   /* target is in the block's page, which is all that matters */
	uint64_t plain : 1; /* to a block under RUN_KEY_PLAIN */
	uint64_t fixed : 1; /* never to lead anywhere */
};

_Static_assert(sizeof(struct run_exit) == 16 && RUN_MOST * RUN_MIB <= 1u << 27 &&
		       RUN_MOST * RUN_EXITS < 1u << RUN_EXIT_BITS && RUN_CODE_ROOM <= 1u << 15 &&
		       RUN_MOST * RUN_BLOCKS < 1u << 21,
	       "what they hold, and there are 400,000");

struct run_page {
	const uint8_t *hva;
	uint64_t va;	     /* linear address of its first block's page */
	uint64_t lines;	     /* of 64 bytes: those that blocks were made of */
	uint32_t first;	     /* block */
	uint32_t first_over; /* block that comes over from the page before */
	uint32_t next;	     /* in the hash chain */
	uint16_t nr_dead;    /* blocks in ->first's chain that are */
	uint16_t nr_drops;   /* of lines since a block was made of the page */
	bool aliased; /* blocks were made of it at another linear address, in another mode or ring, too */
	bool guest;   /* its first block was made in guest mode, */
	bool user;    /* and in ring 3 */
	uint64_t gen; /* in which other processors give up their write tags: codemap.h */
	uint32_t copy[PAGE_SIZE /
		      RUN_LINE]; /* of each line, in ->line, plus one; 0: there was none yet */
};

_Static_assert(8 * RUN_COUNT_MAX <= DIRECT_MOST, "a cleared entry would be a hit");

/* The first block that begins behind some offset, and the first exit of it. */
struct run_near {
	uint32_t block, exit;
};

/* What CALLs left for their RETs (run_ring.c): minus the return address, and code there. */
struct run_ring {
	uint64_t before_neg[RUN_RING_BEFORE];
	uint64_t neg[RUN_RING];
	uint64_t before_code[RUN_RING_BEFORE];
	uint64_t code[RUN_RING];
	uint64_t found; /* by the jump cache, as if it stood behind the last */
};

/*
 * Code for the targets of indirect jumps: minus RIP, as in struct direct_map, and the code beside it, for the two are of
 * one cache line. Translated code makes the index, times the entry's size, by run_jump_index()'s sum and one PDEP.
 */
struct run_jumps {
	struct {
		uint64_t neg, code;
	} * to;		       /* 1 << ->jump_bits, low */
	struct run_ring *ring; /* low */
	uint32_t nr;	       /* that are entered */
	bool large;	       /* ->to is in huge pages, as far as the host gives any */
};

/* Code that was stepped. */
struct run_heat {
	uint16_t visits : 6;
	uint16_t disturbed : 1; /* the way of a trace from there was cut short by attention */
	uint16_t
		lasted : 1; /* the block there was in use when its code changed: who generates code does so again */
	uint16_t tag : 8; /* of its bytes then */
};

/* What was entered in the jump caches for one half of the address space. */
struct run_jump_log {
	uint32_t nr;
	uint32_t v[RUN_JUMP_LOG]; /* key index << RUN_JUMP_BITS | index */
};

/* Pages that stood where they were made, put away with their half's context; version is struct direct's. */
struct run_pages_saved {
	uint64_t version, nr_made_stale;
	uint32_t nr;
	uint16_t page[RUN_SAVED];
};

/* What follows the flushes of one half of the address space, of one mode: root or guest. */
struct run_part {
	struct run_jump_log log;
	unsigned context; /* whose translations its pages stand by, */
	uint64_t version; /* and the one that they follow */
	struct run_pages_saved saved[DIRECT_CONTEXTS];
	uint32_t nr_fresh; /* pages that are not stale, or STALE_LISTED */
	uint16_t fresh[RUN_MOST * RUN_PAGES];
};

/* Why a page is stale, in ->stale. */
#define STALE_BYTES  BIT(0) /* they may have changed: they are to be compared */
#define STALE_MAP    BIT(1) /* it may stand elsewhere: its translation is to be looked up */
#define STALE_LISTED BIT(2) /* besides: it stands in ->fresh */

/* Why translated code came back; in the upper bits of ->leave. */
enum run_leave {
	LEAVE_HEAD, /* at a block's head: attention, or its page is stale. Index: block */
	LEAVE_EXIT, /* by a direct branch. Index: exit */
	LEAVE_RIP,  /* by an indirect one: RIP is in struct cpu */
	LEAVE_COLD, /* by run_cold(): ->result */
	LEAVE_HOT,  /* at a block's head: it came often enough. Index: block */
	LEAVE_CALL, /* by a direct branch. Index: offset behind its call */
};

/* What is counted, said at the end with opt.perf. */
enum run_count {
	/* Entered from the loop, after: */
	COUNT_HEAD,    /* attention, or an entry to a stale page */
	COUNT_EXIT,    /* a direct branch within its page */
	COUNT_CROSS,   /* the same over a page's border */
	COUNT_RIP,     /* an indirect branch */
	COUNT_COLD,    /* a handler, or what was stepped */
	COUNT_TAKEN,   /* jumps entered in the jump cache where another one stood */
	COUNT_COMPARE, /* pages compared, */
	COUNT_LINES,   /* lines of them */
	COUNT_DROP,    /* pages that had changed */
	COUNT_EPOCH,
	COUNT_CALLED,  /* cold paths, */
	COUNT_DECODED, /* instructions decoded again for them */
	COUNT_STEPPED,
	COUNT_BLOCK, /* translated: blocks, */
	COUNT_TRACE, /* traces, */
	COUNT_PLAIN, /* blocks for what traces leave out */
	COUNT_FLUSH, /* of all blocks */
	COUNT_GROW,
	COUNT_BACK, /* what was grown was given back */
	NR_COUNTS,
};

#define LEAVE_SHIFT 28
#define LEAVE_INDEX (BIT(LEAVE_SHIFT) - 1)

/* Bits that SYSCALL and SYSRET look at (run_level.c). */
struct run_masks {
	uint64_t step;	/* of RFLAGS: what makes single-step of it */
	uint64_t sce;	/* of EFER */
	uint64_t taken; /* of SFMASK: what it must take away */
	uint64_t back;	/* of R11: what SYSRET is not to bring back */
	uint64_t upper; /* of RCX: of addresses that are not the lower half's */
};

/* Called by the blocks of a key; offsets. Uses rcx and r15; a miss goes to the caller's cold path. */
struct run_stubs {
	bool made;
	uint32_t check[NR_DIRECT_KINDS][RUN_CHECKS]; /* by log2 of the size */
	uint32_t push, pop;			     /* of a word */
	uint32_t find;
	uint32_t head,
		cross; /* of a block that counts its visits: its entry, and what stands before */
	uint32_t ring_push, ring_pop, ring_search;
};

struct run {
	/* Known to translated code. */
	uint64_t page_mask;    /* ~4095 */
	uint64_t jump_mask;    /* of an index, times 16 */
	uint64_t no_if, no_df; /* all bits but these of RFLAGS */
	uint64_t bit_mask[4];  /* of an index within 8 << n bits */
	uint64_t only_if, only_df, only_smap, only_tsd;
	struct run_masks masks;
	uint8_t ring_top;  /* where the next CALL's entry goes, of all keys' rings */
	uint64_t no_count; /* what REP's count inline has none of */
	uint64_t target;
	uint64_t tmp;
	uint64_t limit, sign; /* lock-step: minus what ->retired is not to pass; BIT(63) */
	bool plain;	      /* lock-step: enter no trace */
	uint32_t leave;
	/* 0: ->stale is not: the page is to be looked at before control gets into it. */
	uint8_t fresh[RUN_MOST * RUN_PAGES];

	uint8_t stale[RUN_MOST * RUN_PAGES]; /* STALE_*, by run_stale_set() */

	struct cpu *cpu;
	struct run_options opt;
	struct lockstep *lockstep; /* or NULL */
	FILE *perf;		   /* the map of opt.perf, or NULL */
	enum result result;
	uint8_t access; /* state before the instruction in run_cold() */
	uint64_t host_gs;

	struct host_code code;
	uint32_t used;
	uint32_t settled;    /* up to here the writable view is given back */
	bool large;	     /* so are the tables */
	size_t large_blocks; /* bytes of ->block that are */
	uint32_t prepared;   /* up to here it is in huge pages, where the host has them */
	uint32_t first;	     /* offset behind the stubs */
	uint32_t stub_enter, stub_leave, stub_cold, stub_miss, stub_rip, stub_exit, stub_gone;
	uint32_t stub_span[RUN_SPANS];
	struct run_stubs stubs[RUN_KEYS];

	uint32_t growth;   /* MiB of code that may be used, with RUN_SITES and so on, */
	uint32_t most;	   /* and can be: less where vCPUs are many */
	bool large_cpu;	   /* of few, which have all the memory that helps */
	uint64_t grown_at; /* ->retired then, or at the last flush */
	struct {
		uint64_t since, retired, translated;
	} quiet;	     /* since when the vCPU is, and what it had done then (run_idle.c) */
	uint32_t block_bits; /* of the hash table, which grows, too */
	uint32_t jump_bits;
	uint32_t nr_groups, nr_sites, nr_blocks, nr_over, nr_exits, nr_pages, nr_keys;
	uint32_t nr_traces;
	struct run_brief *kept; /* by block: struct run_kept, or these */
	struct run_near *near;	/* by offset >> RUN_NEAR_SHIFT */
	uint32_t nr_near;
	struct run_group *group;
	struct insn *cold; /* RUN_COLD: instructions that ran by their handlers, by site */
	struct run_block *block;
	uint32_t *block_table;	  /* index + 1 of the chain's first */
	struct run_over *over;	  /* of blocks that are */
	struct run_visit *visits; /* by block, low */
	struct run_exit *exit;
	struct run_page *page;
	uint8_t (*line)[RUN_LINE]; /* copies of lines that blocks were made of */
	uint32_t nr_lines;
	uint32_t page_table[1 << RUN_PAGE_BITS];
	uint32_t cold_site[RUN_COLD]; /* 1 + the number of what ->cold has */
	uint32_t key[RUN_KEYS];
	struct run_jumps jumps[RUN_KEYS];
	struct run_heat *heat;
	struct run_record *record; /* RUN_BLOCK_INSNS, for translation */
	/* RIPs by which a trace goes, as they were stepped through, and the one behind; none: by guessing. */
	uint64_t path[RUN_BLOCK_INSNS + 1];
	uint32_t nr_path; /* instructions */

	uint32_t seen_told;   /* of cpu->told, at an epoch's begin */
	uint64_t last_sync;   /* TSC when run_serialize() last began an epoch by time */
	uint64_t sync_ticks;  /* until it does so again */
	uint64_t burst_since; /* SERIALIZEs are counted since then, */
	uint32_t nr_burst;    /* and were so many */
	/* Pages that other processors may still write to unseen; above RUN_OPEN: not all are listed. */
	uint32_t nr_open;
	uint32_t open[RUN_OPEN];
	uint64_t hurried;    /* newest generation that others were asked for */
	uint32_t nr_aliased; /* above RUN_ALIASED: not all are listed */
	uint32_t aliased[RUN_ALIASED];
	uint32_t nr_compared; /* epochs since they were made so */
	uint32_t seen_drops;  /* of thunks */
	/* By mode: that of ->cpu->tlb, where guest mode has its own. */
	uint64_t seen_gen[2];	/* of struct direct, that jumps are good for */
	uint8_t half_shift[2];	/* as in struct tlb */
	struct run_part *part;	/* RUN_PARTS of them: mode, then half */
	uint32_t nr_keys_most;	/* RUN_KEYS, or what is enough for one mode */
	uint64_t nr_made_stale; /* times that what is saved became void */
	uint64_t
		filter[RUN_JUMP_FILTER / 64]; /* of linear pages that blocks were made at: hashed */

	/* Counters, said at the end with opt.perf. */
	uint64_t *nr_cold_of; /* by mnemonic, misses and callouts; NULL without opt.perf */
	uint64_t count[NR_COUNTS];
};

typedef void run_enter_fn(uint8_t *code);

/* ---- run_make.c, run_translate.c: ordinary C, vector state saved ---- */

/* Translate at cpu->rip, or a trace where ->path begins; host: the page's bytes. RUN_NONE: step it. */
uint32_t run_translate(struct run *run, const uint8_t *host, uint32_t key, bool hot);
/* A line of the perf map for the newest block. */
void run_perf_note(struct run *run, uint32_t block);
void run_destroy(struct run *run);
/* Forget all blocks. */
void run_flush(struct run *run);

/* ---- run_tables.c: the same ---- */

/* Size and allocate them, by ->cpu and what bounds its code. False: no memory; run_tables_free() is due all the same. */
bool run_tables_make(struct run *run);
void run_tables_free(struct run *run);
/* Give back what they hold, which is nothing any more: all blocks are forgotten. */
void run_tables_drop(struct run *run);
void run_large_tables(struct run *run);
void run_large_blocks(struct run *run);
/* Full: a program whose code is larger than the room has more, if it was so soon. False: not now, or there is no more. */
bool run_grow(struct run *run);

/* ---- run_block.c: general registers only ---- */

/* The mode, as an index: 1 is guest mode's, if it has its own TLB. */
static inline unsigned run_mode(const struct run *run)
{
	return run->cpu->tlb->guest;
}

/* The instruction at rip may go over the page's end. */
static inline bool run_near_end(uint64_t rip)
{
	return (rip & ~PAGE_MASK) > PAGE_SIZE - RUN_MAX_INSN;
}

static inline struct run_heat *run_heat(const struct run *run, uint64_t rip, uint32_t key)
{
	return &run->heat[hash_words(rip, key, RUN_HEAT_BITS)];
}

static inline uint32_t run_key(const struct cpu *cpu)
{
	return cpu->exec->key | (uint32_t)cpu->mode.access << RUN_KEY_ACCESS |
	       (cpu->mode.cpl ? 0 : RUN_KEY_CPL0);
}

/* Visits that the block needed, when it was made. */
static inline uint32_t run_block_hot(const struct run *run, const struct run_block *b)
{
	return run->opt.hot << b->hot;
}

/* Of a block that counts them. */
static inline uint32_t run_visits(const struct run *run, uint32_t block)
{
	return run_block_hot(run, &run->block[block]) - run->visits[block].left;
}

static inline const struct run_wide *run_block_wide(const struct run *run,
						    const struct run_block *b)
{
	return (const struct run_wide *)&run->kept[b->site];
}

/* What a block of two pages is found by from the second; NULL: it stays in its page. */
static inline struct run_over *run_block_over(const struct run *run, const struct run_block *b)
{
	return b->over ? &run->over[run_block_wide(run, b)->group] : NULL;
}

/* The next block that comes over to the same page. */
static inline uint32_t run_over_next(const struct run *run, uint32_t block)
{
	return run_block_over(run, &run->block[block])->next;
}

/*
 * The block at cpu->rip under key, made of what its page holds now; RUN_NONE: there is none. *ret_host: the page's
 * bytes.
 */
uint32_t run_find(struct run *run, uint32_t key, const uint8_t **ret_host);
/* A block at rip in a page, or RUN_NONE: the newest, dead or not. */
uint32_t run_block_at(const struct run *run, uint64_t rip, uint32_t key, uint32_t page);
/* Whoever enters block old goes to block new from now on. */
void run_block_replace(struct run *run, uint32_t old, uint32_t new);

/* ---- run_link.c: the same ---- */

/* The exit that left by the call before this offset. */
uint32_t run_exit_at(const struct run *run, uint32_t offset);
uint64_t run_exit_target(const struct run *run, uint32_t exit);

/* The exit leads to the block from now on. False: it cannot, or not for good; it looks in the jump cache. */
bool run_link(struct run *run, uint32_t exit, uint32_t block);
/* Exits that lead to block old lead to block new. */
void run_link_move(struct run *run, uint32_t old, uint32_t new);
/* Exits of other pages no longer lead to the block. */
void run_link_cut(struct run *run, uint32_t block);

/* ---- run_block.c ---- */

/* Bytes of the page behind cpu->rip's, if they can be fetched and the instruction at RIP may go over there; or NULL. */
const uint8_t *run_second_page(struct cpu *cpu);
/* What is fetched there may be an indirect branch; 16 bytes are left in the page. */
bool run_maybe_relay(const uint8_t *host);
/* The record of a page that rip stands in, made if need be, with its bytes found right. NULL: no room. */
struct run_page *run_page_get(struct run *run, const uint8_t *hva, uint64_t rip);
/* Blocks are made of these lines of the page, too. */
void run_page_cover(struct run *run, struct run_page *page, uint64_t lines);
void run_block_link(struct run *run, uint32_t block);
/* Code may have changed behind the TLB's back: look at all pages again. */
void run_new_epoch(struct run *run);
/* The same where the instruction that is done asks for it. */
void run_serialize(struct run *run, enum insn_sync sync);
/* Behind each instruction that is stepped: what serializes begins an epoch then, too. */
void run_stepped(struct run *run);
/* The same for the pages that the guest wrote to since. */
void run_notice_writes(struct run *run);

/* ---- run_jumps.c: the same ---- */

/* Functions begin at multiples of 16: what stands 1 << ->jump_bits apart is put one apart. */
static inline unsigned run_jump_index(const struct run *run, uint64_t rip)
{
	return (rip + (rip >> run->jump_bits)) & (BIT(run->jump_bits) - 1);
}

/* Enter a block's code for indirect jumps to it. */
void run_jump_add(struct run *run, uint32_t block);
void run_jumps_clear(struct run *run);
/* Forget what CALLs left. */
void run_rings_clear(struct run *run);
/* Forget jumps to what was flushed from the TLB. */
void run_jumps_follow(struct run *run);
/* What indirect jumps to rip in this key find, or NULL. */
const uint8_t *run_jump_find(struct run *run, uint32_t key, uint64_t rip);
int run_key_index(struct run *run, uint32_t key);

/* ---- run_span.c: general registers only ---- */

/* Of the elements of MOVS and STOS in 64-bit code, log2 of the size. */
static inline unsigned run_string_log2(const struct insn *insn)
{
	if (!(insn->opcode & 1))
		return 0;
	if (insn->flags & INSN_REX_W)
		return 3;
	return insn->flags & INSN_66 ? 1 : 2;
}

/*
 * From translated code: REP MOVS or REP STOS, as far as the tables of struct direct have its pages. True: something is
 * left, the site's cold path goes on from where the registers say. Of struct cpu's general registers those that C may
 * change, RCX, RSI and RDI are the guest's.
 */
bool run_string_span(struct cpu *cpu, unsigned what);

/* ---- run_site.c: general registers only; a site's number is its block's << RUN_SITE_BITS, plus its own there ---- */

/* The block whose code is at offset. */
uint32_t run_site_block(const struct run *run, uint32_t offset);
/* The site whose code is at offset: its number. */
uint32_t run_site_at(const struct run *run, uint32_t offset);
struct run_site run_site_get(const struct run *run, uint32_t number);
/* What is to be kept of a block to come, and of its sites. */
struct run_keep {
	uint32_t entry;
	const struct run_site *site;
	unsigned nr;
	struct run_wide wide;
	uint64_t rip, end; /* of the instructions, if they stand behind each other */
	bool over;
};

/* Keep it; *ret_brief: as struct run_brief. False: an offset is too large. */
bool run_site_keep(struct run *run, const struct run_keep *keep, bool *ret_brief);
/* Lines of the block's page that it was made of. */
uint64_t run_block_lines(const struct run *run, const struct run_block *b);
/* From an offset in a page up to another. */
static inline uint64_t run_lines(unsigned from, unsigned to)
{
	return GENMASK((to - 1) / RUN_LINE, from / RUN_LINE);
}

/* Bytes of a page's copy that blocks were made of. */
void run_page_bytes(const struct run *run, const struct run_page *page, unsigned from, unsigned nr,
		    uint8_t *ret);
/* The site's instruction, decoded again if need be: then vector state is saved. Good until another one is asked for. */
const struct insn *run_site_insn(struct run *run, uint32_t number);

/* ---- run.c: general registers only ---- */

/* In place of a site's number: BIT(31) and the offset behind an instruction of it. */
#define RUN_SITE_AT BIT(31)

/* From translated code: run site's instruction by its handler. Where to go on, or NULL to leave. */
const uint8_t *run_cold(struct cpu *cpu, uint32_t site, uint64_t frame[RUN_SLOTS]);
enum cpu_exit_kind run_loop(struct cpu *cpu);
enum result run_bare(struct cpu *cpu);

/* For lock-step, which looks at attention itself: */

/* Code of this mode is translated. */
bool run_translatable(const struct cpu *cpu);
/* Run the block at RIP and what it leads to. False: there is none, step. */
bool run_enter(struct run *run, enum cpu_exit_kind *ret_kind);
/* One instruction, as run_bare() has it. */
enum result run_bare_block(struct run *run);

/* ---- step.c, for run.c ---- */

enum cpu_exit_kind step_once(struct cpu *cpu);
enum result step_bare(struct cpu *cpu);
/* The next instruction, if it can be fetched and decoded. */
const struct insn *step_peek(struct cpu *cpu);
/* One instruction; what attention asks for between two is left undone. */
enum cpu_exit_kind step_blind(struct cpu *cpu);
/* What the result of an instruction at cpu->rip means, its retirement included. */
enum cpu_exit_kind step_settle(struct cpu *cpu, enum result r);

#endif
