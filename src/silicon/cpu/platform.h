/* SPDX-License-Identifier: MIT */
/*
 * What the processor asks of the world around it: the synchronous road out of silicon/.
 *
 * A vCPU is given a table of operations and an opaque pointer. All are called on the vCPU's own
 * thread, from inside cpu_run(), and through the inline wrappers at the end, which put guest
 * vector state away first (so implementations are ordinary C). The asynchronous road is
 * cpu_raise() in cpu.h. Tests pass a fake table.
 */
#ifndef SILICON_CPU_PLATFORM_H
#define SILICON_CPU_PLATFORM_H

#include "silicon/cpu/exception.h"

/* The RAM page that answers for a gpa. */
struct ram_page {
	uint8_t *hva;  /* of the page's first byte; NULL: no RAM there */
	bool writable; /* false: ROM (writes go to mmio_write) */
	bool log;      /* tell mark_dirty() before a write tag is installed */
	bool closed;   /* without ->hva: no device either, accesses end in CPU_EXIT_MEMORY */
};

enum platform_answer {
	PLATFORM_DONE,	/* answered in the process */
	PLATFORM_USER,	/* user space must answer: the caller builds an exit */
	PLATFORM_FAULT, /* MSRs: raise #GP(0); hypercalls: cpu->fault was raised by the platform */
};

struct virt_note; /* virt.h */

struct platform {
	/* Any gpa. Fills *ret; no RAM: ret->hva NULL. Never blocks. */
	void (*memory)(void *opaque, gpa_t gpa, struct ram_page *ret);
	/* Before the first write through a page with ->log set. */
	void (*mark_dirty)(void *opaque, gpa_t gpa);
	/* 1 to 8 bytes that do not cross a page and are not RAM (or writes to ROM). */
	enum platform_answer (*mmio_read)(void *opaque, gpa_t gpa, unsigned size, uint64_t *ret);
	enum platform_answer (*mmio_write)(void *opaque, gpa_t gpa, unsigned size, uint64_t val);
	enum platform_answer (*pio_read)(void *opaque, uint16_t port, unsigned size, uint64_t *ret);
	enum platform_answer (*pio_write)(void *opaque, uint16_t port, unsigned size, uint64_t val);
	/*
	 * Before RDMSR and WRMSR by the guest: PLATFORM_DONE to go on with silicon's own row,
	 * PLATFORM_USER for an exit to user space, PLATFORM_FAULT where a filter denies.
	 */
	enum platform_answer (*msr_gate)(void *opaque, uint32_t index, bool write);
	/* MSRs that no row of silicon's knows (APIC base, TSC, PV), for the guest: DONE, USER (unknown) or FAULT. */
	enum platform_answer (*msr_read)(void *opaque, uint32_t index, uint64_t *ret);
	enum platform_answer (*msr_write)(void *opaque, uint32_t index, uint64_t val);
	/*
	 * RDMSR or WRMSR by the guest is about to raise #GP(0), for no row knows index (unknown) or
	 * the value is refused: PLATFORM_USER for an exit to user space instead. May be NULL.
	 */
	enum platform_answer (*msr_refused)(void *opaque, uint32_t index, bool write, bool unknown);
	/* CPUID as the guest sees it, dynamic bits (OSXSAVE, APIC, sizes) included. */
	void (*cpuid)(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t ret[4]);
	/* Highest-priority deliverable interrupt: vector >= 0, or -1. ack takes it. */
	int (*interrupt_pending)(void *opaque);
	int (*interrupt_ack)(void *opaque);
	/* CR8, for which the local APIC answers. */
	uint8_t (*get_tpr)(void *opaque);
	void (*set_tpr)(void *opaque, uint8_t tpr);
	/* Guest TSC, now. */
	uint64_t (*tsc)(void *opaque);
	/* Raise ATTN_VIRT when the guest TSC is past this, even if it was halted; replaces the last. May be NULL. */
	void (*alarm)(void *opaque, uint64_t tsc);
	/*
	 * VMCALL or VMMCALL at any CPL, RIP still on it; foreign: the other vendor's of the two. DONE with *ret
	 * for RAX; USER; FAULT after fault_ud() or the like.
	 */
	enum platform_answer (*hypercall)(void *opaque, bool foreign, uint64_t *ret);
	/* Serve requests raised by cpu_raise(ATTN_REQUEST): true to leave cpu_run(). */
	bool (*service)(void *opaque);
	/*
	 * Until called again with false no other processor of the machine executes anything: for accesses that no
	 * host instruction makes atomic. May nest. NULL: there is no other.
	 */
	void (*alone)(void *opaque, bool on);
	/*
	 * As many PAUSEs as it said last were executed: let others run. How many more until the next call; may be NULL.
	 */
	unsigned (*spun)(void *opaque);
	/* Guest mode is entered or left, or something of the kind, for whoever watches. May be NULL. */
	void (*guest_mode)(void *opaque, const struct virt_note *note);
	/* The processor changed what others look at: CR0/CR4/EFER/APIC-relevant state, IF window. */
	void (*window_open)(void *opaque);
};

#endif
