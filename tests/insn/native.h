/* SPDX-License-Identifier: MIT */
/*
 * The other side of the differential: the same bytes at the same address on the host CPU itself.
 *
 * Low memory of the test process stands for the guest's linear addresses. All state is loaded, the
 * instruction jumped to, and whatever it does ends in a signal (INT3 fills the page around it), whose
 * frame has the state afterwards.
 */
#ifndef TESTS_INSN_NATIVE_H
#define TESTS_INSN_NATIVE_H

#include "host/host.h"
#include "silicon/cpu/regs.h"

#define XAREA 4096

/* Architectural state around one instruction, as both sides give it. */
struct state {
	uint64_t gpr[NR_GPRS];
	uint64_t rip, rflags;
	int vector; /* fault, or -1 */
	uint64_t error, cr2;
	uint8_t x[XAREA] __attribute__((aligned(64))); /* standard XSAVE layout */
};

/* Linear addresses, the same on both sides. */
#define CODE_PAGE  0x200000ul /* two pages */
#define DATA_PAGE  0x300000ul /* DATA_SIZE bytes, then a page that is not there */
#define DATA_SIZE  0x3000ul
#define STACK_PAGE 0x400000ul
#define STACK_SIZE 0x2000ul

/*
 * What the segment registers hold: 64-bit mode; flat 32-bit; 16-bit segments whose bases are the pages
 * above, so that all offsets are small. RIP and addresses in registers are offsets.
 */
struct segments {
	unsigned bits;
	uint32_t code_base, data_base, stack_base;
	uint32_t limit;
	uint16_t code_sel, data_sel, stack_sel;
};

/* NULL where the host has no such segments. */
const struct segments *native_segments(unsigned bits);

/* Map the pages and take the host's faults. mask: XSAVE components. Exits on failure. */
void native_init(const struct segments *segments, uint64_t mask);
void native_run(const struct state *in, struct state *out);

#endif
