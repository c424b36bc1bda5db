/* SPDX-License-Identifier: MIT */
/* Names and numbers of VMX (SDM, VMX chapters and their appendices). */
#ifndef SILICON_VMX_BITS_H
#define SILICON_VMX_BITS_H

#include "host/compiler.h"

/* Pin-based VM-execution controls. */
#define PIN_EXT_INT	     BIT(0)
#define PIN_NMI		     BIT(3)
#define PIN_VIRTUAL_NMI	     BIT(5)
#define PIN_PREEMPTION_TIMER BIT(6)
#define PIN_POSTED	     BIT(7)

/* Primary processor-based. */
#define CPU_INTR_WINDOW BIT(2)
#define CPU_TSC_OFFSET	BIT(3)
#define CPU_HLT		BIT(7)
#define CPU_INVLPG	BIT(9)
#define CPU_MWAIT	BIT(10)
#define CPU_RDPMC	BIT(11)
#define CPU_RDTSC	BIT(12)
#define CPU_CR3_LOAD	BIT(15)
#define CPU_CR3_STORE	BIT(16)
#define CPU_TERTIARY	BIT(17)
#define CPU_CR8_LOAD	BIT(19)
#define CPU_CR8_STORE	BIT(20)
#define CPU_TPR_SHADOW	BIT(21)
#define CPU_NMI_WINDOW	BIT(22)
#define CPU_MOV_DR	BIT(23)
#define CPU_IO		BIT(24)
#define CPU_IO_BITMAPS	BIT(25)
#define CPU_MTF		BIT(27)
#define CPU_MSR_BITMAPS BIT(28)
#define CPU_MONITOR	BIT(29)
#define CPU_PAUSE	BIT(30)
#define CPU_SECONDARY	BIT(31)

/* Secondary processor-based. */
#define CPU2_APIC_ACCESS  BIT(0)
#define CPU2_EPT	  BIT(1)
#define CPU2_DT		  BIT(2)
#define CPU2_RDTSCP	  BIT(3)
#define CPU2_X2APIC	  BIT(4)
#define CPU2_VPID	  BIT(5)
#define CPU2_WBINVD	  BIT(6)
#define CPU2_UNRESTRICTED BIT(7)
#define CPU2_APIC_REGS	  BIT(8)
#define CPU2_VID	  BIT(9)
#define CPU2_PLE	  BIT(10)
#define CPU2_RDRAND	  BIT(11)
#define CPU2_INVPCID	  BIT(12)
#define CPU2_VMFUNC	  BIT(13)
#define CPU2_SHADOW	  BIT(14)
#define CPU2_ENCLS	  BIT(15)
#define CPU2_RDSEED	  BIT(16)
#define CPU2_PML	  BIT(17)
#define CPU2_EPT_VE	  BIT(18)
#define CPU2_PT_CONCEAL	  BIT(19)
#define CPU2_XSAVES	  BIT(20)
#define CPU2_MBEC	  BIT(22)
#define CPU2_PT_GPA	  BIT(24)
#define CPU2_TSC_SCALING  BIT(25)
#define CPU2_WAITPKG	  BIT(26)
#define CPU2_BUS_LOCK	  BIT(30)
#define CPU2_NOTIFY	  BIT(31)

/* VM-exit controls. */
#define EXIT_SAVE_DEBUG BIT(2)
#define EXIT_HOST_64	BIT(9)
#define EXIT_PERF	BIT(12)
#define EXIT_ACK_INT	BIT(15)
#define EXIT_SAVE_PAT	BIT(18)
#define EXIT_LOAD_PAT	BIT(19)
#define EXIT_SAVE_EFER	BIT(20)
#define EXIT_LOAD_EFER	BIT(21)
#define EXIT_SAVE_TIMER BIT(22)
#define EXIT_BNDCFGS	BIT(23)
#define EXIT_PT_CONCEAL BIT(24)
#define EXIT_CLEAR_RTIT BIT(25)

/* VM-entry controls. */
#define ENTRY_LOAD_DEBUG BIT(2)
#define ENTRY_GUEST_64	 BIT(9)
#define ENTRY_SMM	 BIT(10)
#define ENTRY_DUAL_OFF	 BIT(11)
#define ENTRY_PERF	 BIT(13)
#define ENTRY_PAT	 BIT(14)
#define ENTRY_EFER	 BIT(15)
#define ENTRY_BNDCFGS	 BIT(16)
#define ENTRY_PT_CONCEAL BIT(17)
#define ENTRY_RTIT	 BIT(18)

/* Controls that must be 1: by the first MSRs, and by the true ones. */
#define PIN_DEFAULT1   0x16ull
#define CPU_DEFAULT1   0x0401e172ull
#define CPU_TRUE1      0x04006172ull
#define EXIT_DEFAULT1  0x36dffull
#define EXIT_TRUE1     0x36dfbull
#define ENTRY_DEFAULT1 0x11ffull
#define ENTRY_TRUE1    0x11fbull

#define FUNC_EPTP_SWITCHING BIT(0)

/* Capability MSRs. */
#define MSR_FEATURE_CONTROL 0x3a
#define FEATURE_LOCK	    BIT(0)
#define FEATURE_VMX_IN_SMX  BIT(1)
#define FEATURE_VMX	    BIT(2)

enum vmx_msr {
	VMX_BASIC,
	VMX_PIN,
	VMX_CPU,
	VMX_EXIT,
	VMX_ENTRY,
	VMX_MISC,
	VMX_CR0_FIXED0,
	VMX_CR0_FIXED1,
	VMX_CR4_FIXED0,
	VMX_CR4_FIXED1,
	VMX_VMCS_ENUM,
	VMX_CPU2,
	VMX_EPT_VPID,
	VMX_TRUE_PIN,
	VMX_TRUE_CPU,
	VMX_TRUE_EXIT,
	VMX_TRUE_ENTRY,
	VMX_VMFUNC,
	NR_VMX_MSRS,
};
#define MSR_VMX_FIRST 0x480

#define BASIC_TRUE   BIT(55)
#define BASIC_INOUT  BIT(54)
#define BASIC_WB     (6ull << 50)
#define BASIC_SIZE   (0x1000ull << 32)
#define BASIC_NO_EC  BIT(56) /* hardware exceptions may be injected with or without error code */
#define VMX_REVISION 0x11e57ed0u

#define MISC_TIMER_MASK	     0x1full
#define MISC_LMA	     BIT(5)
#define MISC_HLT	     BIT(6)
#define MISC_SHUTDOWN	     BIT(7)
#define MISC_WAIT_SIPI	     BIT(8)
#define MISC_CR3_TARGETS     (4ull << 16)
#define MISC_WRITE_EXIT	     BIT(29)
#define MISC_ZERO_LEN_INJECT BIT(30)

#define EPT_EXEC_ONLY	     BIT(0)
#define EPT_WALK_4	     BIT(6)
#define EPT_WALK_5	     BIT(7)
#define EPT_UC		     BIT(8)
#define EPT_WB		     BIT(14)
#define EPT_2M		     BIT(16)
#define EPT_1G		     BIT(17)
#define EPT_INVEPT	     BIT(20)
#define EPT_AD		     BIT(21)
#define EPT_INVEPT_SINGLE    BIT(25)
#define EPT_INVEPT_ALL	     BIT(26)
#define VPID_INVVPID	     BIT(32)
#define VPID_INVVPID_ADDR    BIT(40)
#define VPID_INVVPID_SINGLE  BIT(41)
#define VPID_INVVPID_ALL     BIT(42)
#define VPID_INVVPID_GLOBALS BIT(43)

/* Basic exit reasons. */
enum vmx_reason {
	REASON_EXCEPTION_NMI = 0,
	REASON_EXT_INT = 1,
	REASON_TRIPLE_FAULT = 2,
	REASON_INIT = 3,
	REASON_SIPI = 4,
	REASON_INTR_WINDOW = 7,
	REASON_NMI_WINDOW = 8,
	REASON_TASK_SWITCH = 9,
	REASON_CPUID = 10,
	REASON_GETSEC = 11,
	REASON_HLT = 12,
	REASON_INVD = 13,
	REASON_INVLPG = 14,
	REASON_RDPMC = 15,
	REASON_RDTSC = 16,
	REASON_RSM = 17,
	REASON_VMCALL = 18,
	REASON_VMCLEAR = 19,
	REASON_VMLAUNCH = 20,
	REASON_VMPTRLD = 21,
	REASON_VMPTRST = 22,
	REASON_VMREAD = 23,
	REASON_VMRESUME = 24,
	REASON_VMWRITE = 25,
	REASON_VMXOFF = 26,
	REASON_VMXON = 27,
	REASON_CR = 28,
	REASON_DR = 29,
	REASON_IO = 30,
	REASON_RDMSR = 31,
	REASON_WRMSR = 32,
	REASON_GUEST_STATE = 33,
	REASON_MSR_LOAD = 34,
	REASON_MWAIT = 36,
	REASON_MTF = 37,
	REASON_MONITOR = 39,
	REASON_PAUSE = 40,
	REASON_TPR_BELOW = 43,
	REASON_APIC_ACCESS = 44,
	REASON_EOI = 45,
	REASON_GDTR_IDTR = 46,
	REASON_LDTR_TR = 47,
	REASON_EPT_VIOLATION = 48,
	REASON_EPT_MISCONFIG = 49,
	REASON_INVEPT = 50,
	REASON_RDTSCP = 51,
	REASON_PREEMPTION_TIMER = 52,
	REASON_INVVPID = 53,
	REASON_WBINVD = 54,
	REASON_XSETBV = 55,
	REASON_APIC_WRITE = 56,
	REASON_RDRAND = 57,
	REASON_INVPCID = 58,
	REASON_VMFUNC = 59,
	REASON_RDSEED = 61,
	REASON_PML_FULL = 62,
	REASON_XSAVES = 63,
	REASON_XRSTORS = 64,
};
#define REASON_ENTRY_FAILED BIT(31)

/* VM-instruction error numbers. */
enum vmx_error {
	VMX_ERR_NONE = 0,
	VMX_ERR_VMCALL_ROOT = 1,
	VMX_ERR_VMCLEAR_ADDR = 2,
	VMX_ERR_VMCLEAR_VMXON = 3,
	VMX_ERR_VMLAUNCH_CLEAR = 4,
	VMX_ERR_VMRESUME_LAUNCHED = 5,
	VMX_ERR_CONTROLS = 7,
	VMX_ERR_HOST = 8,
	VMX_ERR_VMPTRLD_ADDR = 9,
	VMX_ERR_VMPTRLD_VMXON = 10,
	VMX_ERR_VMPTRLD_REVISION = 11,
	VMX_ERR_FIELD = 12,
	VMX_ERR_READ_ONLY = 13,
	VMX_ERR_VMXON_ROOT = 15,
	VMX_ERR_ENTRY_MOV_SS = 26,
	VMX_ERR_INV_OPERAND = 28,
};

/* VMX-abort indicators. */
enum vmx_abort { ABORT_SAVE_MSR = 1, ABORT_HOST_PDPTE = 2, ABORT_LOAD_MSR = 4 };

/* Interruption information, of entries and exits. */
#define INTR_VALID	   BIT(31)
#define INTR_ERROR	   BIT(11)
#define INTR_NMI_UNBLOCKED BIT(12) /* exits: IRET had unblocked NMIs */
#define INTR_TYPE_SHIFT	   8
enum vmx_intr_type {
	INTR_EXTERNAL = 0,
	INTR_NMI = 2,
	INTR_EXCEPTION = 3,
	INTR_SOFT_INT = 4,
	INTR_PRIV_SOFT_EXC = 5,
	INTR_SOFT_EXC = 6,
	INTR_OTHER = 7, /* entries: a pending MTF exit */
};

/* Interruptibility state. */
#define BLOCKED_STI    BIT(0)
#define BLOCKED_MOV_SS BIT(1)
#define BLOCKED_SMI    BIT(2)
#define BLOCKED_NMI    BIT(3)

enum vmx_activity { VMX_ACTIVE, VMX_HLT, VMX_SHUTDOWN, VMX_WAIT_SIPI };

/* Pending debug exceptions. */
#define PENDING_ENABLED BIT(12)
#define PENDING_BS	BIT(14)

/* EPT violations, a full page-modification log: exit qualification. */
#define EPTQ_READ	   BIT(0)
#define EPTQ_WRITE	   BIT(1)
#define EPTQ_FETCH	   BIT(2)
#define EPTQ_READABLE	   BIT(3)
#define EPTQ_LINEAR	   BIT(7)
#define EPTQ_TRANSLATED	   BIT(8) /* the access was to the translation, not to a table */
#define EPTQ_NMI_UNBLOCKED BIT(12)

#endif
