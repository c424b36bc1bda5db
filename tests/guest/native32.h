/* SPDX-License-Identifier: MIT */
/*
 * One instruction on the host CPU in 32-bit mode, as a second source of expected values: a far call
 * into the flat 32-bit code segment that Linux keeps, from a page below 4 GiB.
 */
#ifndef TESTS_NATIVE32_H
#define TESTS_NATIVE32_H

#include <stddef.h>
#include <stdint.h>

struct native32 {
	uint32_t eax, ecx, edx, ebx, flags; /* in and out */
};

/* 0, or -1 where the host has no 32-bit code segment or no low memory. */
int native32_init(void);
/* Run code (no transfers, no faults) with regs. A 256-byte buffer in low memory is at native32_buffer(). */
void native32_run(const void *code, size_t size, struct native32 *regs);
void *native32_buffer(void);

#endif
