/* SPDX-License-Identifier: MIT */
/*
 * A decoded instruction, as step runs it. Room header of exec/.
 *
 * decode.c fills it from Zydis's answer once per distinct (bytes, mode); it is found again by
 * comparing bytes, never by address, so code that changed is simply another instruction.
 * ->run is one short C function: a generic one for borrowed instructions (they have a thunk), one of
 * emul_*.c for the rest. It returns RESULT_OK with RIP advanced, or as enum result says.
 */
#ifndef SILICON_EXEC_INSN_H
#define SILICON_EXEC_INSN_H

#include "silicon/cpu/cpu.h"
#include "silicon/mmu/mmu.h"

struct insn;
typedef enum result insn_fn(struct cpu *cpu, const struct insn *insn);
/* Returns 0, or 1 if the host faulted in it (thunk.h has the trap). mem is the operand's host pointer. */
typedef uint64_t thunk_fn(struct cpu *cpu, void *mem);

#define REG_NONE 0xff

/* Prefixes and properties. */
#define INSN_LOCK     BIT(0)
#define INSN_REP      BIT(1) /* F3 */
#define INSN_REPNE    BIT(2) /* F2 */
#define INSN_REX_W    BIT(3)
#define INSN_MEM      BIT(4) /* has an explicit memory operand */
#define INSN_HIGH_REG BIT(5) /* ->reg is AH..BH (numbers 4..7) */
#define INSN_HIGH_RM  BIT(6)
#define INSN_FPU      BIT(8) /* uses x87, MMX, vector or mask state: fpu_load() first */
#define INSN_SEG_PFX  BIT(9)
#define INSN_KVM_EMUL BIT(10) /* KVM's emulator knows it (decisions.md 18): emulator.c */
#define INSN_66	      BIT(11) /* 66h present, whatever it means */
#define INSN_REX      BIT(12)
#define INSN_X87      BIT(13) /* x87, not a control instruction: records its pointers */
#define INSN_PLAIN    BIT(15) /* changes nothing that the mode key depends on */
#define INSN_LINEAR   BIT(16) /* insn_linear() serves its operand: no legacy CS, FS or GS */
#define INSN_INLINE   BIT(17) /* borrowed whole: its thunk and operand are all there is to it */
#define INSN_SYNC     BIT(18) /* ->sync is not SYNC_NONE */
#define INSN_ALIGN    BIT(14) /* its operand is checked under CR0.AM and EFLAGS.AC */

/* Whose writes to code must be seen behind an instruction. */
enum insn_sync {
	SYNC_NONE,
	SYNC_ALL,
	SYNC_CPUS,  /* other processors'; those of the program now and then */
	SYNC_WRMSR, /* as the MSR has it */
	SYNC_BURST, /* all; if it comes in bursts, those of the program now and then */
};

/* Which elements of a memory operand are accessed. */
enum mask_kind {
	MASK_NONE,
	MASK_BITS,   /* a mask register's bits */
	MASK_FOLDED, /* the same, an element of memory serving several bits */
	MASK_PACKED, /* as many as bits are set: compress and expand */
	MASK_SIGN,   /* sign bits of a vector register's elements */
};

struct insn {
	/* The first cache line: all that the frequent instructions need. */
	uint64_t bytes[2]; /* the instruction, zero-padded to 16 bytes */
	insn_fn *run;
	union {
		thunk_fn *thunk;  /* borrowed only */
		insn_fn *watched; /* ->run is run_watched(), and this the handler */
	};
	int64_t disp;	/* displacement, sign-extended; if relative to RIP, plus len */
	int64_t imm;	/* first immediate or relative offset, sign-extended */
	uint32_t flags; /* INSN_* */
	uint16_t mode;	/* decode mode key, see decode.h */
	uint8_t len;
	uint8_t base, index; /* gpr numbers, SLOT_RIP or SLOT_ZERO */
	uint8_t scale;	     /* 1, 2, 4, 8 */
	uint8_t seg;	     /* enum seg_id of the data operand (strings too), override applied */
	uint8_t addrsize;    /* 2, 4, 8 */
	uint8_t dst, src;    /* fast.h: where its register operands stand in struct cpu, in bytes */
	uint8_t mem_op;	     /* enum access_op of the memory operand */
	uint8_t opsize;	     /* operand size in bytes: 1, 2, 4, 8 */

	uint16_t mem_size; /* bytes of the memory operand */
	uint8_t opcode;	   /* last opcode byte */
	uint8_t modrm;	   /* raw; valid if it has one */
	/*
	 * ModRM register numbers with REX applied (segment, control and debug registers too), REG_NONE
	 * if absent. The register in an opcode byte (PUSH r, MOV r,imm) is rm; PUSH and POP of
	 * segment registers have it in reg.
	 */
	uint8_t reg, rm;
	int64_t imm2; /* ENTER's second, far pointer's selector */
	uint16_t op;  /* ZydisMnemonic */
	/* Vector operands of the borrowed classes that look at elements. */
	uint8_t elem;	    /* bytes of an element */
	uint8_t mask_reg;   /* k1..k7, or the vector register whose sign bits select */
	uint8_t vindex;	    /* VSIB index register, or the third tile */
	uint8_t index_elem; /* bytes of an index */
	uint8_t nr_elem;
	uint8_t trap;	    /* vector raised instead of running */
	uint8_t align;	    /* INSN_ALIGN: the multiple that the operand must stand on */
	uint8_t must_align; /* the same for #GP(0) in any case; 0: none */
	uint8_t mask_kind;  /* enum mask_kind */
	uint8_t whole;	    /* elements left out fault, too */
	uint8_t nr_mask;    /* bits of the mask register that count */
	uint8_t sync;	    /* enum insn_sync */
} __aligned_(64);

_Static_assert(sizeof(struct insn) == 128, "two cache lines");
_Static_assert(offsetof(struct insn, mem_size) == 64, "the first of them");

/* ff for each of the first n bytes, as two words (step.c). */
extern const uint64_t insn_masks[16][2];

/* True if the bytes that begin with these two words begin with the instruction, decoded under this key. */
static inline bool insn_is(const struct insn *insn, uint16_t key, uint64_t first, uint64_t second)
{
	const uint64_t *mask = insn_masks[insn->len];

	return !(((insn->bytes[0] ^ first) & mask[0]) | ((insn->bytes[1] ^ second) & mask[1]) |
		 (insn->mode ^ key));
}

/* What addresses are made of: struct cpu's first members by number, general registers before all. */
#define SLOT_RIP  16
#define SLOT_ZERO 17

_Static_assert(offsetof(struct cpu, rip) == 8 * SLOT_RIP, "behind the general registers");
_Static_assert(offsetof(struct cpu, zero) == 8 * SLOT_ZERO, "behind RIP");

static inline uint64_t insn_slot(const struct cpu *cpu, unsigned slot)
{
	return ((const uint64_t *)cpu)[slot];
}

/* Effective address (offset), wrapped to the address size. */
static inline uint64_t insn_ea(const struct cpu *cpu, const struct insn *insn)
{
	uint64_t ea =
		insn->disp + insn_slot(cpu, insn->base) + insn_slot(cpu, insn->index) * insn->scale;

	if (likely(insn->addrsize == 8))
		return ea;
	return insn->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
}

/* Read a general register of size bytes (1: AH..BH if high). */
static inline uint64_t reg_read(const struct cpu *cpu, unsigned reg, unsigned size, bool high)
{
	if (size == 1)
		return (uint8_t)(high ? cpu->gpr[reg - 4] >> 8 : cpu->gpr[reg]);
	if (size == 2)
		return (uint16_t)cpu->gpr[reg];
	return size == 4 ? (uint32_t)cpu->gpr[reg] : cpu->gpr[reg];
}

/* Write one: 4 bytes zero-extend, 1 and 2 keep the rest. */
static inline void reg_write(struct cpu *cpu, unsigned reg, unsigned size, bool high, uint64_t val)
{
	if (size == 1 && high)
		cpu->gpr[reg - 4] = (cpu->gpr[reg - 4] & ~0xff00ull) | (val & 0xff) << 8;
	else if (size == 1)
		cpu->gpr[reg] = (cpu->gpr[reg] & ~0xffull) | (val & 0xff);
	else if (size == 2)
		cpu->gpr[reg] = (cpu->gpr[reg] & ~0xffffull) | (val & 0xffff);
	else
		cpu->gpr[reg] = size == 4 ? (uint32_t)val : val;
}

/*
 * RIP behind insn, not wrapped. Branches, which the host predicts, stand for a sum, which would wait until insn
 * is loaded: so the next instruction is looked up meanwhile.
 */
static __always_inline_ uint64_t insn_end(const struct cpu *cpu, const struct insn *insn)
{
	uint64_t rip = cpu->rip;

#define ADD_BIT(bit)                                  \
	do {                                          \
		if (insn->len & (bit)) {              \
			rip += (bit);                 \
			asm volatile("" : "+r"(rip)); \
		}                                     \
	} while (0)
	ADD_BIT(1);
	ADD_BIT(2);
	ADD_BIT(4);
	ADD_BIT(8);
#undef ADD_BIT
	return rip;
}

/*
 * Set RIP to the next instruction. 16-bit code goes on past 64 KiB where its segment's limit allows it (system
 * management mode, "unreal" mode): only branches of 16-bit operand size wrap there.
 */
static __always_inline_ enum result insn_next(struct cpu *cpu, const struct insn *insn)
{
	uint64_t rip = insn_end(cpu, insn);

	cpu->rip = cpu->mode.code == CODE_64 ? rip : (uint32_t)rip;
	return RESULT_OK;
}

/*
 * The operand's linear address, where it needs no check but the TLB's hit: flat segments, or 64-bit mode (what
 * hits is canonical). False: seg_linear().
 */
static inline bool insn_linear(const struct cpu *cpu, const struct insn *insn, gva_t *ret)
{
	*ret = insn_ea(cpu, insn);
	if (unlikely(insn->seg >= SEG_FS))
		*ret += cpu->seg[insn->seg].base;
	return likely(insn->flags & INSN_LINEAR && cpu->mode.flat);
}

/*
 * tables/insns.def: one row per emulated mnemonic: INSN(zydis mnemonic, handler). Handlers are in
 * emul_*.c. A mnemonic without a row is borrowed, if borrow.c's classes allow it; else #UD.
 */
insn_fn *insn_emulated(uint16_t mnemonic);
/*
 * The same where a mnemonic has emulated and borrowed forms: MOV with segment, control and debug registers,
 * MOVSD and CMPSD as strings. two_byte: the opcode is in the 0F map (or any map above).
 */
insn_fn *insn_emulated_form(uint16_t mnemonic, uint8_t opcode, bool two_byte);
/* insn has just been carried out: it was a branch, and taken (emul_control.c). */
bool insn_branched(const struct cpu *cpu, const struct insn *insn);

#endif
