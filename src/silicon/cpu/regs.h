/* SPDX-License-Identifier: MIT */
/* Names and bits of the architectural registers (SDM volumes 3 and 4, APM volume 2). */
#ifndef SILICON_CPU_REGS_H
#define SILICON_CPU_REGS_H

#include "host/compiler.h"

enum gpr {
	RAX,
	RCX,
	RDX,
	RBX,
	RSP,
	RBP,
	RSI,
	RDI,
	R8,
	R9,
	R10,
	R11,
	R12,
	R13,
	R14,
	R15,
	NR_GPRS,
};

/* Encoding order of the segment registers, then the two system segments. */
enum seg_id { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, NR_SEGS };

#define FLAG_CF	    BIT(0)
#define FLAG_FIXED  BIT(1)
#define FLAG_PF	    BIT(2)
#define FLAG_AF	    BIT(4)
#define FLAG_ZF	    BIT(6)
#define FLAG_SF	    BIT(7)
#define FLAG_TF	    BIT(8)
#define FLAG_IF	    BIT(9)
#define FLAG_DF	    BIT(10)
#define FLAG_OF	    BIT(11)
#define FLAG_IOPL   (BIT(12) | BIT(13))
#define FLAG_NT	    BIT(14)
#define FLAG_RF	    BIT(16)
#define FLAG_VM	    BIT(17)
#define FLAG_AC	    BIT(18)
#define FLAG_VIF    BIT(19)
#define FLAG_VIP    BIT(20)
#define FLAG_ID	    BIT(21)
#define FLAGS_ARITH (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
#define FLAGS_SYSTEM                                                                       \
	(FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_AC | \
	 FLAG_VIF | FLAG_VIP | FLAG_ID)

#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)

#define CR3_PCID_MASK 0xfffull
#define CR3_NOFLUSH   BIT(63)

#define CR4_VME	       BIT(0)
#define CR4_PVI	       BIT(1)
#define CR4_TSD	       BIT(2)
#define CR4_DE	       BIT(3)
#define CR4_PSE	       BIT(4)
#define CR4_PAE	       BIT(5)
#define CR4_MCE	       BIT(6)
#define CR4_PGE	       BIT(7)
#define CR4_PCE	       BIT(8)
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP       BIT(11)
#define CR4_LA57       BIT(12)
#define CR4_VMXE       BIT(13)
#define CR4_SMXE       BIT(14)
#define CR4_FSGSBASE   BIT(16)
#define CR4_PCIDE      BIT(17)
#define CR4_OSXSAVE    BIT(18)
#define CR4_KL	       BIT(19)
#define CR4_SMEP       BIT(20)
#define CR4_SMAP       BIT(21)
#define CR4_PKE	       BIT(22)
#define CR4_CET	       BIT(23)
#define CR4_PKS	       BIT(24)

#define EFER_SCE   BIT(0)
#define EFER_LME   BIT(8)
#define EFER_LMA   BIT(10)
#define EFER_NX	   BIT(11)
#define EFER_SVME  BIT(12)
#define EFER_FFXSR BIT(14)

#define DEBUGCTL_LBR BIT(0)

#define VM_CR_LOCK   BIT(3)
#define VM_CR_SVMDIS BIT(4)

#define DR6_FIXED_1  0xffff0ff0ull /* bits that read as 1 with neither RTM nor bus-lock events */
#define DR6_BD	     BIT(13)
#define DR6_BS	     BIT(14)
#define DR6_BT	     BIT(15)
#define DR6_RTM	     BIT(16)
#define DR6_VOLATILE (DR6_BT | DR6_BS | DR6_BD | 0xfull)
#define DR7_FIXED_1  BIT(10)
#define DR7_GD	     BIT(13)
#define DR7_VOLATILE 0xffff2bffull

#define XCR0_X87      BIT(0)
#define XCR0_SSE      BIT(1)
#define XCR0_AVX      BIT(2)
#define XCR0_AVX512   (BIT(5) | BIT(6) | BIT(7))
#define XCR0_PKRU     BIT(9)
#define XCR0_TILECFG  BIT(17)
#define XCR0_TILEDATA BIT(18)
#define XCR0_AMX      (XCR0_TILECFG | XCR0_TILEDATA)

enum exception_vector {
	VEC_DE = 0,
	VEC_DB = 1,
	VEC_NMI = 2,
	VEC_BP = 3,
	VEC_OF = 4,
	VEC_BR = 5,
	VEC_UD = 6,
	VEC_NM = 7,
	VEC_DF = 8,
	VEC_CSO = 9,
	VEC_TS = 10,
	VEC_NP = 11,
	VEC_SS = 12,
	VEC_GP = 13,
	VEC_PF = 14,
	VEC_MF = 16,
	VEC_AC = 17,
	VEC_MC = 18,
	VEC_XM = 19,
	VEC_VE = 20,
	VEC_CP = 21,
};

/* Page-fault error code. */
#define PFERR_P	   BIT(0)
#define PFERR_W	   BIT(1)
#define PFERR_U	   BIT(2)
#define PFERR_RSVD BIT(3)
#define PFERR_I	   BIT(4)
#define PFERR_PK   BIT(5)

/*
 * Segment attributes, laid out like the access rights of a descriptor's second word, shifted
 * down by 8 (the form of VMX's access-rights fields).
 */
#define SEG_TYPE(attr) ((attr)&0xfu)
#define SEG_A	       BIT(0) /* accessed */
#define SEG_W	       BIT(1) /* data: writable; code: readable */
#define SEG_E	       BIT(2) /* data: expand down; code: conforming */
#define SEG_CODE       BIT(3)
#define SEG_S	       BIT(4) /* code or data, not system */
#define SEG_DPL(attr)  (((attr) >> 5) & 3u)
#define SEG_DPL_SHIFT  5
#define SEG_P	       BIT(7)
#define SEG_AVL	       BIT(12)
#define SEG_L	       BIT(13)
#define SEG_DB	       BIT(14)
#define SEG_G	       BIT(15)
#define SEG_UNUSABLE   BIT(16)

/* Selectors. */
#define SEL_RPL(sel) ((sel)&3u)
#define SEL_TI(sel)  ((sel)&4u)

#endif
