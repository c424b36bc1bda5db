/* SPDX-License-Identifier: MIT */
/*
 * Guest memory as instructions see it: linear address -> page walk -> RAM or platform.
 *
 * The inline hit is in tlb.h; everything else passes the slow path of access.c, which owns the order:
 * split at the page, walk, memory lookup, then RAM | in-kernel device | exit to user space.
 * Nothing is committed before the last check of the last byte.
 *
 * Accesses are atomic as the architecture says: one host access for naturally aligned 1 to 8 bytes.
 * All functions here: vCPU thread only, general registers only. Host faults on guest RAM (the
 * program unmapped or truncated it) end as RESULT_EXIT with CPU_EXIT_MEMORY.
 */
#ifndef SILICON_MMU_MMU_H
#define SILICON_MMU_MMU_H

#include "silicon/cpu/cpu.h"

enum access_op { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_RMW = 3, ACCESS_FETCH = 4 };

/* Which page tables, as values (decisions: nested from the start). */
struct walk_context {
	gpa_t root;
	bool stage2; /* addresses go through cpu->virt's second stage (EPT, NPT) */
	uint16_t pcid;
};

/* The passport of one access, within one page, that leaves the inline path. */
struct access {
	/* Set by the caller, never changed. */
	const gva_t addr;
	const uint32_t size;	       /* 1..4096, within one page */
	const enum access_op op;       /* 0: a walk that checks no permission */
	const enum access_state state; /* how page protections judge it */
	/* Set by the walk. */
	gpa_t gpa;
	uint8_t rights; /* ACCESS_READ, _WRITE, _FETCH as the page gives them to ->state */
	uint8_t page_shift;
	bool user_page;
	bool global;
	uint8_t key; /* the protection key that rights rest on; 0 where there is none */
	bool dirty;  /* the D bit stands, in both stages: a write tag may be installed */
	bool apart;  /* the second stage wants to see each access: not to be cached */
	/* Set by the memory lookup; hva NULL: no RAM there. */
	uint8_t *hva; /* of ->addr */
	bool writable;
	bool log;
};

/* ---- linear accesses; size 1, 2, 4 or 8; value in the low bits ---- */

/* Explicit access at the current privilege (CPL, EFLAGS.AC). RESULT_OK, _FAULT or _EXIT. */
enum result mmu_read(struct cpu *cpu, gva_t addr, unsigned size, uint64_t *ret);
enum result mmu_write(struct cpu *cpu, gva_t addr, unsigned size, uint64_t val);
/* Implicit supervisor access: descriptor tables, TSS, IDT, whatever the CPL. */
enum result mmu_read_sys(struct cpu *cpu, gva_t addr, unsigned size, uint64_t *ret);
enum result mmu_write_sys(struct cpu *cpu, gva_t addr, unsigned size, uint64_t val);
/* LOCKed compare and exchange, for accessed and busy bits of descriptors (implicit supervisor). */
enum result mmu_cmpxchg_sys(struct cpu *cpu, gva_t addr, unsigned size, uint64_t *old,
			    uint64_t new);

/*
 * Check that [addr, addr+size) may be accessed, without doing it (sets A and, for writes, D bits).
 * For instructions with several accesses: probe all, then commit.
 */
enum result mmu_probe(struct cpu *cpu, gva_t addr, uint32_t size, enum access_op op);
enum result mmu_probe_sys(struct cpu *cpu, gva_t addr, uint32_t size, enum access_op op);

/*
 * The same for an operand that a borrowed instruction accesses in a buffer: so that its registers can be
 * committed before the bytes are written, a write must find its memory and its place in cpu->out.
 * *ret_device: not all of it is RAM (for writes, writable RAM).
 */
enum result mmu_probe_bounced(struct cpu *cpu, gva_t addr, uint32_t size, enum access_op op,
			      bool *ret_device);

/* Any size up to 4096, any alignment: all checks first, then bytes move (not atomic). */
enum result mmu_read_bytes(struct cpu *cpu, gva_t addr, void *dst, uint32_t size);
enum result mmu_write_bytes(struct cpu *cpu, gva_t addr, const void *src, uint32_t size);

/*
 * A host pointer for [addr, addr+size) if it lies in one page of RAM and op is allowed: the operand
 * of a borrowed instruction. *ret is NULL, with RESULT_OK, where the access must go through a bounce
 * buffer (crosses a page, MMIO, ROM write, page being logged): use mmu_read_bytes() and
 * mmu_write_bytes() then.
 */
enum result mmu_pointer(struct cpu *cpu, gva_t addr, uint32_t size, enum access_op op,
			uint8_t **ret);

/*
 * Instruction bytes at linear address addr: up to 15 bytes into buf, *ret_len how many could be
 * fetched before a fault or limit. RESULT_FAULT or _EXIT only if not even the first byte could be.
 * If *ret_len is less than 15, what stopped it stands in cpu->fault (valid) or else in cpu->exit, to be
 * raised if the decoder needs more.
 */
enum result mmu_fetch(struct cpu *cpu, gva_t addr, uint8_t buf[15], unsigned *ret_len);

/* ---- segmentation: SDM, "limit checking", "type checking" ---- */

/*
 * Effective address -> linear address, with type, limit and canonical checks for size bytes.
 * RESULT_FAULT: #GP(0), or #SS(0) for SS. In 64-bit mode only FS and GS have a base. off must already
 * be wrapped to the address size.
 */
enum result seg_linear_checked(struct cpu *cpu, enum seg_id seg, uint64_t off, uint32_t size,
			       enum access_op op, gva_t *ret);
static inline enum result seg_linear(struct cpu *cpu, enum seg_id seg, uint64_t off, uint32_t size,
				     enum access_op op, gva_t *ret)
{
	/* Most of all: 64-bit mode, no base, canonical with up to a page behind it. */
	if (likely(cpu->mode.code == CODE_64 && seg < SEG_FS &&
		   off + BIT(47) < BIT(48) - PAGE_SIZE)) {
		*ret = off;
		return RESULT_OK;
	}
	return seg_linear_checked(cpu, seg, off, size, op, ret);
}

static inline enum result seg_read(struct cpu *cpu, enum seg_id seg, uint64_t off, unsigned size,
				   uint64_t *ret)
{
	gva_t addr;
	enum result r = seg_linear(cpu, seg, off, size, ACCESS_READ, &addr);

	return r ? r : mmu_read(cpu, addr, size, ret);
}

static inline enum result seg_write(struct cpu *cpu, enum seg_id seg, uint64_t off, unsigned size,
				    uint64_t val)
{
	gva_t addr;
	enum result r = seg_linear(cpu, seg, off, size, ACCESS_WRITE, &addr);

	return r ? r : mmu_write(cpu, addr, size, val);
}

/* ---- walks and flushes ---- */

/*
 * Walk without side effects (KVM_TRANSLATE, the debugger): false if not mapped. *ret_flags gets PFERR_W
 * and PFERR_U as the page allows.
 */
bool mmu_translate_debug(struct cpu *cpu, gva_t addr, gpa_t *ret_gpa, uint32_t *ret_flags);
/* Load ->pdpte from CR3 under PAE paging; #GP(0) for reserved bits (SDM, PAE paging). */
enum result mmu_load_pdptes(struct cpu *cpu, uint64_t cr3);
/*
 * In guest mode with a second stage: RESULT_OK with L1's address of L2's gpa, as the processor itself reads there.
 * Else as virt.h's translate(), and without a second stage always gpa.
 */
enum result mmu_stage2(struct cpu *cpu, gpa_t gpa, gpa_t *ret);
/* The TLB's view must follow CR3, memory slots, and what mmu_update_mode() looks at. */
void mmu_flush_all(struct cpu *cpu); /* all worlds', and memory lookups */
void mmu_flush_translations(
	struct cpu *cpu);	     /* of the present mode, root or guest: memory is the same */
void mmu_flush_cr3(struct cpu *cpu); /* all but global entries */
void mmu_flush_page(struct cpu *cpu, gva_t addr); /* INVLPG: global ones too */
/* SDM: a page fault, and what the second stage refuses, invalidates what was cached of the address. */
void mmu_refused_page(struct cpu *cpu, gva_t addr);
/* With CR4.PCIDE, after CR3 was set: go to its PCID's entries; keep: all those that it has (bit 63). */
void mmu_switch_pcid(struct cpu *cpu, bool keep);
/* INVPCID, by type: one address, one PCID, all with global entries, all but those. */
void mmu_flush_pcid_page(struct cpu *cpu, uint16_t pcid, gva_t addr);
void mmu_flush_pcid(struct cpu *cpu, uint16_t pcid);
void mmu_flush_pcids(struct cpu *cpu, bool global);
void mmu_flush_writes(struct cpu *cpu); /* dirty log re-armed: write tags only, all worlds' */
/*
 * Guest mode began or ended, or its second stage is another: go to what the world has cached (virt.h). Control
 * registers are the world's already. mmu_update_mode() must follow.
 */
void mmu_switch_world(struct cpu *cpu);
/*
 * INVVPID, INVEPT, TLB_CONTROL: drop what is cached of guests. id 0: of any; second: its tables (bits 51:12), 0: of
 * any. Global entries too.
 */
void mmu_flush_worlds(struct cpu *cpu, uint32_t id, uint64_t second);
/* The same of one linear address, for all PCIDs of the guests with this id; 0: of the processor's own world. */
void mmu_flush_world_page(struct cpu *cpu, uint32_t id, gva_t addr);
/*
 * Call after CR0, CR4, EFER, PKRU, a debug register or cpu->debug changed, and on entry to cpu_run():
 * flushes if anything that cached translations depend on differs. CPL and AC need no call: they
 * pick a table through cpu->mode.access.
 */
void mmu_update_mode(struct cpu *cpu);

/* Guest-physical access by the processor itself (walks, VMX structures): 4 or 8 bytes, aligned. */
enum result mmu_read_phys(struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t *ret);
/* Any size. RESULT_FAULT: not all of it is RAM (to write: writable), cpu->fault is left alone. */
enum result mmu_read_phys_bytes(struct cpu *cpu, gpa_t gpa, void *dst, uint32_t size);
enum result mmu_write_phys_bytes(struct cpu *cpu, gpa_t gpa, const void *src, uint32_t size);

/*
 * Set bits of a table entry of 4 or 8 bytes that was read as val. RESULT_AGAIN: it changed meanwhile. Entries in ROM
 * keep theirs.
 */
enum result mmu_set_phys_bits(struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t val,
			      uint64_t bits);
/*
 * An aligned doubleword that was read as old becomes val, by LOCK CMPXCHG. RESULT_AGAIN: it changed meanwhile;
 * RESULT_FAULT: no RAM to write to, cpu->fault is left alone.
 */
enum result mmu_cmpxchg_phys(struct cpu *cpu, gpa_t gpa, uint32_t old, uint32_t val);

/*
 * Data breakpoints: collect the matches of an access into ->pending_dr6. Accesses made by this room do
 * it themselves; a page with an armed breakpoint never hits in the TLB.
 */
void mmu_check_data_bp(struct cpu *cpu, gva_t addr, uint32_t size, bool write);

struct tlb *tlb_create(void); /* NULL: no memory */
/* A second one for guest mode. Without it, one serves for both, at a cost for each exit and entry. */
void tlb_add_guest(struct tlb *tlb);
void tlb_remove_guest(struct tlb *tlb);
void tlb_destroy(struct tlb *tlb);

/* True for a canonical address under the present CR4.LA57 (or 48 bits outside long mode). */
static inline bool gva_canonical(const struct cpu *cpu, gva_t addr)
{
	unsigned shift = cpu->cr4 & CR4_LA57 ? 64 - 57 : 64 - 48;

	return (gva_t)((int64_t)(addr << shift) >> shift) == addr;
}

#endif
