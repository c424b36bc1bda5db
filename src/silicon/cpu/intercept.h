/* SPDX-License-Identifier: MIT */
/*
 * The one point that every system instruction and architectural event passes: where a guest
 * hypervisor's intercepts will be asked (decisions: nested from the start). Kinds are values;
 * VMX and SVM map them to their own numbers.
 */
#ifndef SILICON_CPU_INTERCEPT_H
#define SILICON_CPU_INTERCEPT_H

#include "silicon/cpu/exception.h"

/*
 * Qualifications, where more is said than that it happened. CR and DR: number, read << 4, general register << 8; CLTS
 * and LMSW as VMX has them. MSR: index. IO: VMX's, port << 16. DT: enum dt_reg. INVLPG: address. TASK_SWITCH: selector
 * | reason << 30, bit 32: has an error code, which stands in the upper 31 bits. SOFT_INT: vector. VMCALL: 1 if it is
 * the other vendor's. XSAVES, XRSTORS: EDX:EAX. LMSW: its source operand in bits 31:16; bit 6: in memory.
 */
#define CR_QUAL_READ BIT(4)
#define CR_QUAL_CLTS (2ull << 4)
#define CR_QUAL_LMSW (3ull << 4)
#define CR_QUAL_SMSW BIT(7) /* not VMX's: no exit of its own there */

enum dt_reg { DT_GDTR, DT_IDTR, DT_LDTR, DT_TR };

enum intercept {
	INTERCEPT_EXCEPTION, /* asked by ->event() */
	INTERCEPT_INTERRUPT,
	INTERCEPT_NMI,
	INTERCEPT_SMI,
	INTERCEPT_INIT,
	INTERCEPT_SHUTDOWN,
	INTERCEPT_TASK_SWITCH,
	INTERCEPT_CPUID,
	INTERCEPT_HLT,
	INTERCEPT_INVD,
	INTERCEPT_WBINVD,
	INTERCEPT_INVLPG,
	INTERCEPT_INVPCID,
	INTERCEPT_RDPMC,
	INTERCEPT_RDTSC,
	INTERCEPT_RDTSCP,
	INTERCEPT_VMCALL,
	INTERCEPT_CR_READ,
	INTERCEPT_CR_WRITE,
	INTERCEPT_DR_READ,
	INTERCEPT_DR_WRITE,
	INTERCEPT_IO,
	INTERCEPT_MSR_READ,
	INTERCEPT_MSR_WRITE,
	INTERCEPT_MWAIT,
	INTERCEPT_MONITOR,
	INTERCEPT_PAUSE,
	INTERCEPT_DT_READ,
	INTERCEPT_DT_WRITE,
	INTERCEPT_XSETBV,
	INTERCEPT_RDRAND,
	INTERCEPT_RDSEED,
	INTERCEPT_IRET,
	INTERCEPT_PUSHF,
	INTERCEPT_POPF,
	INTERCEPT_SOFT_INT,
	INTERCEPT_ICEBP,
	INTERCEPT_RSM,
	INTERCEPT_XSAVES,
	INTERCEPT_XRSTORS,
	INTERCEPT_FERR, /* an x87 error to be reported by FERR# */
	INTERCEPT_RDPRU,
	INTERCEPT_SIPI, /* qualification: the vector; while it is waited for */
	NR_INTERCEPTS,
};

#endif
