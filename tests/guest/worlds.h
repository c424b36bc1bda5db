/* SPDX-License-Identifier: MIT */
/*
 * A small hypervisor for VMX and one for SVM, whose guests read X in the lower half, and in the upper, and come back: for
 * tests of what the TLB keeps over exits and entries. Guests and the host have tables of their own, by number, in which X is
 * one of the pages of values.
 */
#ifndef TESTS_GUEST_WORLDS_H
#define TESTS_GUEST_WORLDS_H

#include "guest_asm.h"
#include "silicon/models/model.h"
#include "silicon/svm/svm.h"
#include "silicon/vmx/vmx.h"

#include <stdlib.h>
#include <string.h>

#define X	0x40000000ull
#define UPPER	0xffff800040000000ull
#define PAGES	0x900000u /* of values, 4 KiB each: page n holds VALUE(n) */
#define L2_CODE 0x300000u
#define VMCB	0x201000u
#define HSAVE	0x200000u
#define MAPS	0x210000u
#define DESC	0x202000u /* INVEPT's and INVVPID's */

#define VALUE(n) (0x5a5a0000u + (n))

/* Tables of a guest or the host, by number; of the second stage. */
#define TABLES(n) (0x400000u + (n)*0x10000u)
#define SECOND(n) (0x600000u + (n)*0x10000u)

#define ROUNDS 3 /* the code is translated from the second on */

struct bench {
	struct flat *f;
	bool amd;
	struct vmx vmx;
	struct cpu_model model;
	unsigned id;	 /* VPID, or 0 for none; ASID */
	unsigned root;	 /* number of the guest's tables */
	unsigned second; /* number of the second stage's tables, or 0 for none */
	uint64_t cr4;	 /* of the guest, besides PAE */
};

/* The guest's code, with the call that leaves it. */
#define GUEST2(name, text)                       \
	GUEST(name##_vmx, 64, text "\n vmcall"); \
	GUEST(name##_svm, 64, text "\n vmmcall")
#define bench_set(b, name)                                        \
	((b)->amd ? bench_set_code(b, name##_svm, name##_svm_end) \
		  : bench_set_code(b, name##_vmx, name##_vmx_end))

GUEST2(reads, "mov ecx, [rdi]\n mov edx, [rsi]");
GUEST(host_reads, 64, "mov ecx, [rdi]\n mov edx, [rsi]\n hlt");

/* ---- worlds_bench.c ---- */

struct bench *bench_open(bool amd);
void bench_close(struct bench *b);

/* ---- memory ---- */

void bench_poke(struct bench *b, gpa_t gpa, uint64_t val);
/* X in tables n is this page of values; the second stage n leads a page of values to another. */
void bench_map(struct bench *b, unsigned n, unsigned page, uint64_t bits);
void bench_map_second(struct bench *b, unsigned n, unsigned page, unsigned to, uint64_t bits);
void bench_vmcb_put(struct bench *b, unsigned at, uint64_t val, unsigned size);

/* ---- the guest ---- */

void bench_set_code(struct bench *b, const uint8_t *code, const uint8_t *end);
/* To the guest and back: the reason of the exit. bench_called(): that of its call. */
uint64_t bench_enter(struct bench *b);
uint64_t bench_called(const struct bench *b);
/* The guest, whose code is reads, reads this page at both addresses. */
void bench_sees(struct bench *b, unsigned page);

/* ---- the host ---- */

/* Host code to its HLT. */
void bench_host_runs(struct bench *b);
void bench_host_sees(struct bench *b, unsigned page);
/* INVEPT or INVVPID of a type (SDM), with a descriptor of two words; it succeeds. */
void bench_inv(struct bench *b, bool ept, uint64_t type, uint64_t first, uint64_t second);

#endif
