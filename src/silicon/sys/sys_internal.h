/* SPDX-License-Identifier: MIT */
/* Private to sys/: descriptors and stacks, shared by its files. */
#ifndef SILICON_SYS_SYS_INTERNAL_H
#define SILICON_SYS_SYS_INTERNAL_H

#include "silicon/mmu/mmu.h"
#include "silicon/models/features.h"
#include "silicon/models/model.h"
#include "silicon/sys/sys.h"

/* Types of system descriptors (SDM, system-segment and gate-descriptor types). */
enum desc_type {
	DESC_TSS16 = 1,
	DESC_LDT = 2,
	DESC_TSS16_BUSY = 3,
	DESC_CALL16 = 4,
	DESC_TASK_GATE = 5,
	DESC_INT16 = 6,
	DESC_TRAP16 = 7,
	DESC_TSS32 = 9,
	DESC_TSS32_BUSY = 11,
	DESC_CALL32 = 12,
	DESC_INT32 = 14,
	DESC_TRAP32 = 15,
};

#define TSS_BUSY BIT(1)

/* Error code of a selector: the RPL is not part of it. */
#define SEL_ERROR(sel) ((sel)&0xfffcu)

/* Error code bits of events (SDM, error code). */
#define ERROR_EXT 1u
#define ERROR_IDT 2u

/* A descriptor as memory has it, and taken apart. */
struct desc {
	gva_t addr;
	uint16_t sel;
	uint64_t raw;	/* first 8 bytes */
	uint64_t base;	/* 64 bits of it for system descriptors of long mode */
	uint32_t limit; /* scaled */
	uint32_t attr;	/* SEG_* */
};

static inline bool sel_null(uint16_t sel)
{
	return !(sel & 0xfffc);
}

static inline bool desc_present(const struct desc *d)
{
	return d->attr & SEG_P;
}

static inline bool desc_code(const struct desc *d)
{
	return (d->attr & (SEG_S | SEG_CODE)) == (SEG_S | SEG_CODE);
}

static inline bool desc_conforming(const struct desc *d)
{
	return desc_code(d) && (d->attr & SEG_E);
}

static inline bool desc_writable(const struct desc *d)
{
	return (d->attr & (SEG_S | SEG_CODE | SEG_W)) == (SEG_S | SEG_W);
}

static inline bool desc_readable(const struct desc *d)
{
	return (d->attr & SEG_S) && (!(d->attr & SEG_CODE) || (d->attr & SEG_W));
}

static inline bool desc_system(const struct desc *d, unsigned type)
{
	return !(d->attr & SEG_S) && SEG_TYPE(d->attr) == type;
}

static inline bool desc_tss(const struct desc *d, bool busy)
{
	return !(d->attr & SEG_S) && ((d->attr & 0x7) == (busy ? 3 : 1));
}

/* ---- segments.c ---- */

/*
 * Fetch the 8 bytes of sel's descriptor. Beyond the table's limit, or no LDT: exception vector
 * with the selector as error code.
 */
enum result desc_fetch(struct cpu *cpu, uint16_t sel, uint8_t vector, struct desc *ret);
/* Set the accessed bit in memory if it is clear, and in d. */
enum result desc_mark_accessed(struct cpu *cpu, struct desc *d);
/* Set or clear the busy bit of a TSS descriptor in memory, LOCKed. */
enum result desc_mark_busy(struct cpu *cpu, gva_t addr, bool busy);
struct segment desc_segment(const struct desc *d, uint16_t sel);
/* A segment of virtual-8086 mode. */
struct segment segment_v86(uint16_t sel);
/* Load seg with a null selector. */
void segment_set_null(struct cpu *cpu, enum seg_id seg, uint16_t sel);
/* Load ES, DS, FS or GS in real mode, or CS and SS too: base only, as the silicon does. */
void segment_set_real(struct cpu *cpu, enum seg_id seg, uint16_t sel);
/* Checks of SS for privilege level cpl; vector is #GP or #TS. Marks it accessed. */
enum result segment_check_ss(struct cpu *cpu, uint16_t sel, unsigned cpl, uint8_t vector,
			     struct desc *ret);
/* Checks of ES, DS, FS, GS at privilege level cpl, sel not null. Marks it accessed. */
enum result segment_check_data(struct cpu *cpu, uint16_t sel, unsigned cpl, uint8_t vector,
			       struct desc *ret);

/* ---- stack.c: pushes and pops at a privilege level that may not be the present one ---- */

struct stack {
	struct segment ss;
	uint64_t sp;	/* whole register; only the bits of mask move */
	uint64_t mask;	/* of the stack pointer's width */
	uint8_t cpl;	/* privilege level of the accesses */
	bool flat64;	/* 64-bit mode: canonical check instead of limits */
	uint32_t error; /* error code of limit faults, which are #SS */
};

/* The present stack. */
struct stack stack_here(const struct cpu *cpu);
/*
 * Check that count values of size bytes may be pushed: all at once where they cross a page, so that
 * no push fails after another one was written.
 */
enum result stack_reserve(struct cpu *cpu, const struct stack *s, unsigned size, unsigned count);
enum result stack_push(struct cpu *cpu, struct stack *s, unsigned size, uint64_t val);
enum result stack_pop(struct cpu *cpu, struct stack *s, unsigned size, uint64_t *ret);
/* Move the stack pointer by bytes, in its width. */
void stack_skip(struct stack *s, int64_t bytes);
/* RSP0..2 (index 0..2) or IST1..7 (index 4..10) from the 64-bit TSS. */
enum result tss_read_rsp(struct cpu *cpu, unsigned index, uint64_t *ret);
/* Inner stack of legacy mode from the TSS, its descriptor checked (#TS, #SS). */
enum result stack_inner(struct cpu *cpu, unsigned cpl, struct stack *ret);
/* 64-bit stack at privilege level cpl. */
struct stack stack_flat64(const struct cpu *cpu, unsigned cpl, uint64_t sp);
/* Commit RSP and, where the privilege level changes or ss differs, SS. */
void stack_commit(struct cpu *cpu, const struct stack *s);

/* ---- far.c ---- */

/* Commit CS from d at privilege level cpl. */
struct segment code_segment(const struct desc *d, unsigned cpl);
/* RIP fits the code segment: limit, or canonical in 64-bit code. #GP(error) otherwise. */
enum result code_check_rip(struct cpu *cpu, const struct segment *cs, uint64_t rip);
/* Code segment to return to, judged against the RPL of its selector. */
enum result return_code(struct cpu *cpu, uint16_t sel, struct desc *ret);
/* SS of a return to privilege level cpl; to64: the code returned to is 64-bit. */
enum result return_stack(struct cpu *cpu, uint16_t sel, unsigned cpl, bool to64,
			 struct segment *ret);
/* The stack after the return; a 16-bit one keeps the upper half of ESP. */
struct stack return_to(const struct cpu *cpu, const struct segment *cs, const struct segment *ss,
		       uint64_t sp);
/* After a return to an outer level: data segments that it may not use become null. */
void null_inner_segments(struct cpu *cpu);
/* After a change of CS, SS or RFLAGS: modes and attention follow. */
void sys_mode_changed(struct cpu *cpu);

/* Markers beside ->pending_dr6's architectural bits: live until the end of the instruction. */
#define PENDING_NO_STEP BIT(63) /* the instruction took TF away before its trap (INT n, SYSCALL) */
#define PENDING_KEEP_RF BIT(62) /* it set RF for the next one (IRET, task switch) */
#define PENDING_MARKERS (PENDING_NO_STEP | PENDING_KEEP_RF)

/* Replace RFLAGS at the end of a transfer that may set RF for the next instruction. */
void sys_load_rflags(struct cpu *cpu, uint64_t rflags);

/* ---- debug.c ---- */

/* Leave with CPU_EXIT_DEBUG for the program's debugger. */
enum result debug_exit(struct cpu *cpu, uint8_t vector, uint64_t dr6, enum result how);
/* True while the program takes the guest's #DBs. */
bool debug_by_program(const struct cpu *cpu);

/* ---- control.c ---- */

#define CR0_KNOWN                                                                                  \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
	 CR0_PG)

/* Paging with four entries that are loaded with CR3. */
bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer);
/* The values could be loaded one by one from real mode by this guest; EFER.LMA is not looked at. */
bool control_image_valid(const struct cpu *cpu, uint64_t cr0, uint64_t cr3, uint64_t cr4,
			 uint64_t efer);
/* Tell the platform that state that others look at has changed. */
void sys_notify(struct cpu *cpu);
/* EFER for either origin: MSR_HOST skips guest CPUID and the paging check. */
bool sys_efer_write(struct cpu *cpu, uint64_t val, enum msr_origin by);

#endif
