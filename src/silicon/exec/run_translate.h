/* SPDX-License-Identifier: MIT */
/* A block on its way from guest bytes to host code. Private to run_*.c; ordinary C. */
#ifndef SILICON_EXEC_RUN_TRANSLATE_H
#define SILICON_EXEC_RUN_TRANSLATE_H

#include "silicon/exec/run.h"
#include "silicon/exec/zreg.h"
#include "silicon/exec/run_emit.h"

#include <sys/ucontext.h>

#define MAX_COLD 256
#define MAX_ENDS (2 * RUN_BLOCK_INSNS + 2)

/* A jump that is to lead to a site's cold path, or out of the block. */
struct loose_end {
	uint32_t at;   /* offset of its displacement */
	uint32_t to;   /* site of the block, or exit */
	uint32_t site; /* that it stands in */
	bool back;     /* where a RET comes back to, and the block is done */
};

/* A memory operand in translated code: [base + index << scale + disp]. */
struct place {
	uint8_t base, index, scale; /* index may be REG_NONE */
	int32_t disp;
};

/* The accesses of an instruction that can be in a group. */
enum ref_kind { REF_OPERAND, REF_STACK, NR_REFS };

/* Where an access stands in its group (run_group.c). */
struct run_ref {
	uint8_t group;		    /* number + 1; 0: in none */
	uint8_t base, index, scale; /* guest registers as they are here, or REG_NONE */
	bool bounded;		    /* whatever the index is, the group has all that it can reach */
	int32_t disp;		    /* from the group's root, given the index register as it is */
	int32_t low;		    /* the same for the group's lowest byte */
	int32_t add; /* root - base register as it is; of an address that is known: 0 */
};

/* Accesses that one check serves: off the same registers, in one page. */
struct group {
	uint8_t seg; /* 0: none that has a base */
	bool write;
	bool ready; /* checked by what was emitted until now */
	uint8_t slot;
	uint16_t size; /* from the lowest byte to the highest */
	uint64_t root; /* without a base: the address that displacements count from */
};

/* Where a trace goes on behind a branch. */
enum follow {
	FOLLOW_NONE, /* it ends there */
	FOLLOW_NEXT,
	FOLLOW_TARGET,
	FOLLOW_GUARD, /* an indirect branch, if it leads where it led before */
};

/* One instruction of the block to be, decoded; its bytes are the page copy's. */
struct run_record {
	uint64_t rip;
	uint64_t next; /* where the trace goes on */
	enum follow follow;
	bool paired; /* a CALL whose RET the trace goes along with, or that */
	bool ends;   /* control does not simply go on behind it */
	bool relay; /* a JMP to an indirect branch in another page, and that one: it is what stands here, but at the JMP's ->rip */
	bool keeps; /* its inline form leaves r15 alone, but for its accesses */
	struct run_ref ref[NR_REFS];
	struct insn insn;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
};

/* A register of the host and a slot of the frame that a trace has the other way round (run_homes.c). */
struct exchange {
	uint8_t host, slot;
};

struct translation {
	struct run *run;
	struct cpu *cpu;
	struct emit e;
	uint32_t key;
	bool code32;		 /* flat 32-bit code */
	struct run_jumps *jumps; /* of the key */
	struct run_stubs *stubs;
	struct direct_map *map; /* of the access state: by enum direct_kind */
	struct run_page *page;
	uint64_t covered; /* lines of ->page whose copy is new */
	uint64_t lines;	  /* of ->page that the block is made of */
	struct run_page
		*second;    /* that the block's one instruction ends in, or of its relay; or NULL */
	bool over;	    /* the former */
	uint64_t relay;	    /* the latter's address, */
	unsigned nr_relays; /* and how many records go by it */
	uint64_t start, rip;
	struct run_site sites[2 * RUN_BLOCK_INSNS]; /* of the block */
	uint32_t nr_sites, site;		    /* the present instruction's */
	uint32_t first_group, first_exit;
	uint32_t entry, inner, cross; /* offsets, as in struct run_block */
	bool hot;		      /* make a trace */
	bool counts;
	bool rings;	  /* its CALLs and RETs go by the ring (run_ring.c) */
	bool fpu_checked; /* vector state is in the registers from here on */
	bool failed;	  /* out of room */

	struct run_record *record; /* all instructions of the block, in order */
	unsigned nr_records;

	uint8_t home[NR_GPRS];	    /* of guest registers; REG_NONE: */
	uint8_t home_slot[NR_GPRS]; /* in the frame */
	struct exchange exchange[RUN_EXCHANGES];
	unsigned nr_exchanges;
	uint32_t stub_cold; /* to which cold paths lead */
	uint32_t again;	    /* offset behind the exchanges: where a loop goes on */

	struct group group[RUN_TRACE_GROUPS];
	unsigned nr_groups;
	const struct group *in_r15; /* whose slot's content is there, or NULL */

	/* The present instruction, out of its record. */
	const struct run_record *now;
	struct place place; /* of the access that was looked up last */
	struct insn insn;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	uint8_t site_flags;
	enum follow follow;
	uint8_t next_flags; /* for the next one's site */

	unsigned nr_cold, nr_ends;
	struct loose_end cold[MAX_COLD], end[MAX_ENDS];
	/* Guards whose branch led elsewhere: the jump there, site. */
	unsigned nr_guards;
	struct loose_end guard[RUN_BLOCK_INSNS];
	bool behind_x87; /* as in the site to come */
	bool apart;	 /* what is emitted is out of the trace's line: groups do not count */
	/* Sites to go on behind with a slot in r15, lost by their cold path: where, slot. */
	unsigned nr_resumes;
	struct loose_end resume[RUN_BLOCK_INSNS];
};

/* Bytes of a word on the stack, and of an address. */
static inline int run_word(const struct translation *t)
{
	return t->code32 ? 4 : 8;
}

/* The prefix of an operation on such a word: 32-bit results are zero-extended. */
static inline uint8_t run_rex(const struct translation *t)
{
	return t->code32 ? 0x40 : 0x48;
}

/* Where a guest register is in translated code, or REG_NONE: in a slot of the frame. */
static inline uint8_t run_home(const struct translation *t, unsigned guest)
{
	return t->home[guest];
}

/* Guest registers without a home. */
static inline void run_load_gpr(struct translation *t, unsigned reg, unsigned guest)
{
	emit_load_slot(&t->e, reg, t->home_slot[guest]);
}

static inline void run_store_gpr(struct translation *t, unsigned reg, unsigned guest)
{
	emit_store_slot(&t->e, reg, t->home_slot[guest]);
}

enum form {
	FORM_NONE, /* not to be had inline */
	FORM_DONE,
	FORM_END, /* done, and the block ends here */
};

typedef enum form form_fn(struct translation *t);

/* run_forms.c: the present instruction inline. On FORM_NONE what was emitted is to be forgotten. */
enum form run_form(struct translation *t);
bool run_is_jcc(const ZydisDecodedInstruction *z);

/* run_operand.c */

/* The explicit memory operand, or NULL. */
const ZydisDecodedOperand *run_memory_operand(const struct translation *t);
/* dst = effective address; wide: not cut to 32 bits by 64-bit code. Uses r14 and r15. False: not to be had inline. */
bool run_emit_address(struct translation *t, const ZydisDecodedOperand *op, unsigned dst,
		      bool wide);
/* reg = base + index + disp, LEA of the mode's address size: 32-bit code's addresses wrap at 4 GiB. */
void run_emit_lea_word(struct translation *t, unsigned reg, unsigned base, unsigned index,
		       int32_t disp);
/* To the cold path, or t->place is where the host has the memory operand. Uses r14, r15 and rcx. False: not inline. */
bool run_operand(struct translation *t, const ZydisDecodedOperand *mem);
/* r14 = linear address of the memory operand; false: not to be had inline. */
bool run_linear(struct translation *t);
/* r14 is a linear address: to the cold path, or t->place, r14 + r15, is where the host has it. Uses rcx; no flags. */
void run_emit_check(struct translation *t, enum direct_kind kind, unsigned size);
/* The same for an address that is known, and is in r14 unless it fits into 32 bits with their sign. False: not so. */
bool run_check_known(struct translation *t, enum direct_kind kind, uint64_t addr, unsigned size);
/* True if the record's memory operand is at the same address each time. */
bool run_known_address(const struct translation *t, const struct run_record *rec, uint64_t *ret);
/* The same for a form that has no operand. */
void run_look_up(struct translation *t, enum direct_kind kind, unsigned size);
/* The parts of a lookup: rcx = 0 if it hits, r15 is the index; then r15 is the addend. */
void run_emit_index(struct translation *t, enum direct_kind kind, unsigned size);
void run_emit_addend(struct translation *t, enum direct_kind kind);
/* True if lookups are calls (run_stubs.c); behind such a call: */
bool run_calls_stubs(const struct translation *t);
void run_looked_up(struct translation *t);
/* What comes next is the instruction's last access. */
void run_note_access(struct translation *t);

/* run_flow.c */

enum form run_form_push(struct translation *t);
enum form run_form_pop(struct translation *t);
enum form run_form_leave(struct translation *t);
enum form run_form_jmp(struct translation *t);
enum form run_form_call(struct translation *t);
enum form run_form_ret(struct translation *t);
enum form run_form_jcc(struct translation *t);
/* r14 is a target: rcx = 0 if the jump cache knows it; r15 is its index, times 16. */
void run_emit_find(struct translation *t);
/* The indirect branch of a guard that led elsewhere; r14 is where. */
void run_elsewhere(struct translation *t);
/* Where a relative branch leads; false: not to be had inline. */
bool run_target(const struct translation *t, uint64_t *ret);

/* run_bits.c, run_loop.c */

enum form run_form_bit(struct translation *t);
enum form run_form_xlat(struct translation *t);
enum form run_form_loop(struct translation *t);

/* run_string.c: MOVS and STOS */
enum form run_form_string(struct translation *t);
/* In the signal handler, at code offset of a SITE_STRING: commit what the host did. False: it is not there. */
bool run_string_fixup(struct run *run, const struct run_site *site, uint32_t offset,
		      ucontext_t *uc);

/* run_system.c: FORM_NONE where it has none */
enum form run_form_system(struct translation *t);

/* r14 and r15 are free for: rcx = RFLAGS. */
void run_emit_rflags(struct translation *t);
/* ecx = the bits of rcx that mask, in the low 2 GiB, has; in their order, without gaps. */
void run_emit_pick(struct translation *t, const uint64_t *mask);
/* To the cold path unless all bits of mask are 0, or its one bit is 1, in a register of struct cpu. Uses rcx. */
void run_unless_clear(struct translation *t, size_t offset, const uint64_t *mask);
void run_unless_set(struct translation *t, size_t offset, const uint64_t *mask);
/* To the cold path unless IF may open without a look at what is pending. Uses rcx. */
void run_unless_looked(struct translation *t);

/* run_level.c: SYSCALL and SYSRET */
enum form run_form_level(struct translation *t);
void run_masks_init(struct run_masks *ret);

/* run_stubs.c: what the blocks of the key call, if it is not there yet. Uses ->e. */
void run_stubs_make(struct translation *t);

/* run_ring.c. Behind these t->slot is lost; they use r15 and rcx. */

/* A CALL leaves where its RET goes on. */
void run_ring_push(struct translation *t, uint64_t rip);
/* The same in a plain block, which ends here and leads to target. */
void run_ring_call(struct translation *t, uint64_t rip, uint64_t target);
/* A RET that the trace goes along with, without its CALL. */
void run_ring_drop(struct translation *t);
/* r14 is a RET's target: to the cold path, or it is known where to go on. */
void run_ring_pop(struct translation *t);
/* Go there: r15 is as run_ring_pop() left it. */
void run_ring_go(struct translation *t);
void run_ring_stubs(struct translation *t);
/* Find the CALLs whose RETs the trace goes along with. */
void run_ring_pair(struct translation *t);

/* run_trace.c: decode the block's instructions. False: nothing can be made of them. */
bool run_collect(struct translation *t);

/* run_group.c */

/* Find the accesses of the records that one check can serve. */
void run_group(struct translation *t);
/*
 * If the present instruction's access is in a group, t->place is where it is, the check being emitted if it is
 * the first. False: it is in none. Uses r14, r15 and rcx.
 */
bool run_member(struct translation *t, enum ref_kind kind);

/* run_homes.c */

/* Registers as all that is no trace has them. */
void run_homes_usual(struct translation *t);
/* Choose the homes that suit the records. */
void run_homes(struct translation *t);
/* Make the stub for cold paths before the head, if the trace has homes of its own. */
void run_homes_stub(struct translation *t, uint32_t head);
/* Into the trace, or out of it. Uses rcx, if there is anything to do. */
void run_exchange(struct translation *t);

/* run_encode.c */

/*
 * The present instruction with its explicit registers replaced by map[], and its memory operand by
 * [base + index] (index may be REG_NONE); [r14 + r15] stands for t->place. False if it cannot be encoded so.
 */
bool run_encode(struct translation *t, const uint8_t map[NR_GPRS], unsigned base, unsigned index);
/* run_bytes.c: the same by its own means. False: run_encode() has others. */
bool run_encode_bytes(struct translation *t, const uint8_t map[NR_GPRS], const struct place *p);

/* run_homeless.c: the present instruction on a register without a home in memory. False: not to be had so. */
bool run_encode_homeless(struct translation *t);

/* run_translate.c */

/* True if another instruction of the block follows the present one. */
static inline bool run_next(const struct translation *t)
{
	return t->record[t->nr_records - 1].rip != t->rip;
}

/* A trace, or what does the work of one where data cross a page's end: worth its room. */
static inline bool run_inlines(const struct translation *t)
{
	return t->hot || t->key & RUN_KEY_PLAIN;
}

/* True if the trace's end leads to its head. */
static inline bool run_loops(const struct translation *t)
{
	return t->hot && !t->over && t->run->opt.chain &&
	       t->record[t->nr_records - 1].next == t->start;
}

/* Before a way out in the middle of the trace: take back what the head counted and is not done. Uses rcx. */
void run_retire_here(struct translation *t);
/* The jump whose displacement is at goes to the site's cold path. */
void run_to_cold(struct translation *t, uint32_t at);
/* The jump whose displacement is at leads out of the block, to target. */
void run_end_at(struct translation *t, uint32_t at, uint64_t target);
/* A jump, or the address of code, is where the RET of a CALL comes back to. */
void run_end_back(struct translation *t, uint32_t at, uint64_t rip);
/* End the block by a jump to target. */
void run_end(struct translation *t, uint64_t target);
/* The same, if condition cc holds. */
void run_end_if(struct translation *t, unsigned cc, uint64_t target);

#endif
