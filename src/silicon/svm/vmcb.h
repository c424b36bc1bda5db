/* SPDX-License-Identifier: MIT */
/* The layout of the VMCB (APM volume 2, VMCB layout), by byte offsets: it must not move. */
#ifndef SILICON_SVM_VMCB_H
#define SILICON_SVM_VMCB_H

#include "silicon/cpu/types.h"

struct vmcb_segment {
	uint16_t sel, attr; /* attr: bits 55:52 and 47:40 of the descriptor */
	uint32_t limit;
	uint64_t base;
};

/* Words of the intercept vectors. */
enum { ICPT_CR, ICPT_DR, ICPT_EXCEPTION, ICPT_MISC1, ICPT_MISC2, ICPT_MISC3, NR_ICPT_WORDS };

struct vmcb_control {
	uint32_t intercepts[NR_ICPT_WORDS];
	uint8_t reserved_18[0x3c - 0x18];
	uint16_t pause_threshold, pause_count;
	uint64_t iopm, msrpm, tsc_offset;
	uint32_t asid;
	uint8_t tlb_control;
	uint8_t reserved_5d[3];
	uint64_t int_ctl; /* with V_INTR_VECTOR above 31:0 */
	uint64_t int_state;
	uint64_t exit_code, exit_info1, exit_info2;
	uint64_t exit_int_info;
	uint64_t nested_ctl;
	uint64_t avic_bar, ghcb;
	uint64_t event_inj;
	uint64_t nested_cr3;
	uint64_t virt_ext;
	uint64_t clean;
	uint64_t next_rip;
	uint8_t nr_bytes, bytes[15];
	uint64_t avic_page;
	uint64_t reserved_e8;
	uint64_t avic_logical;
	uint64_t avic_physical; /* with the greatest index below */
	uint8_t reserved_100[0x3e0 - 0x100];
	uint8_t software[32]; /* Hyper-V's enlightenments */
};

struct vmcb_save {
	struct vmcb_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
	uint8_t reserved_a0[0xcb - 0xa0];
	uint8_t cpl;
	uint32_t reserved_cc;
	uint64_t efer;
	uint8_t reserved_d8[0x148 - 0xd8];
	uint64_t cr4, cr3, cr0, dr7, dr6, rflags, rip;
	uint8_t reserved_180[0x1d8 - 0x180];
	uint64_t rsp;
	uint64_t s_cet, ssp, isst_addr;
	uint64_t rax, star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip, cr2;
	uint8_t reserved_248[0x268 - 0x248];
	uint64_t g_pat, dbgctl, br_from, br_to, last_excp_from, last_excp_to;
	uint8_t reserved_298[0xc00 - 0x298];
};

struct vmcb {
	struct vmcb_control control;
	struct vmcb_save save;
};

_Static_assert(sizeof(struct vmcb_control) == 0x400, "the save area's offset");
_Static_assert(sizeof(struct vmcb) == 4096, "a page");
_Static_assert(offsetof(struct vmcb_control, iopm) == 0x40, "APM");
_Static_assert(offsetof(struct vmcb_control, int_ctl) == 0x60, "APM");
_Static_assert(offsetof(struct vmcb_control, exit_code) == 0x70, "APM");
_Static_assert(offsetof(struct vmcb_control, event_inj) == 0xa8, "APM");
_Static_assert(offsetof(struct vmcb_control, avic_bar) == 0x98, "APM");
_Static_assert(offsetof(struct vmcb_control, avic_page) == 0xe0, "APM");
_Static_assert(offsetof(struct vmcb_control, avic_logical) == 0xf0, "APM");
_Static_assert(offsetof(struct vmcb_control, next_rip) == 0xc8, "APM");
_Static_assert(offsetof(struct vmcb_save, cpl) == 0xcb, "APM");
_Static_assert(offsetof(struct vmcb_save, efer) == 0xd0, "APM");
_Static_assert(offsetof(struct vmcb_save, cr4) == 0x148, "APM");
_Static_assert(offsetof(struct vmcb_save, rip) == 0x178, "APM");
_Static_assert(offsetof(struct vmcb_save, rsp) == 0x1d8, "APM");
_Static_assert(offsetof(struct vmcb_save, rax) == 0x1f8, "APM");
_Static_assert(offsetof(struct vmcb_save, cr2) == 0x240, "APM");
_Static_assert(offsetof(struct vmcb_save, g_pat) == 0x268, "APM");

/* int_ctl */
#define V_TPR	       0xffull
#define V_IRQ	       BIT(8)
#define V_GIF	       BIT(9)
#define V_NMI_PENDING  BIT(11)
#define V_NMI_MASK     BIT(12)
#define V_PRIO_SHIFT   16
#define V_IGN_TPR      BIT(20)
#define V_INTR_MASKING BIT(24)
#define V_GIF_ENABLE   BIT(25)
#define V_NMI_ENABLE   BIT(26)
#define V_AVIC_ENABLE  BIT(31)
#define V_VECTOR_SHIFT 32

#define INT_STATE_SHADOW BIT(0)
#define INT_STATE_IF	 BIT(1) /* the guest's RFLAGS.IF, as #VMEXIT found it */

#define NESTED_CTL_NPT BIT(0)
#define VIRT_EXT_LBR   BIT(0)
#define VIRT_EXT_VLS   BIT(1) /* virtual VMLOAD and VMSAVE */

/* EVENTINJ and EXITINTINFO */
#define EVENTINJ_VALID	   BIT(31)
#define EVENTINJ_HAS_ERROR BIT(11)
#define EVENTINJ_TYPE(v)   ((v) >> 8 & 7)

enum eventinj_type {
	EVENTINJ_INTR = 0,
	EVENTINJ_NMI = 2,
	EVENTINJ_EXCEPTION = 3,
	EVENTINJ_SOFT = 4
};

/* Exit codes. From 60h on bit n of the third to fifth word of intercepts is code 60h + n. */
enum svm_exit {
	SVM_EXIT_CR_READ = 0x00,
	SVM_EXIT_CR_WRITE = 0x10,
	SVM_EXIT_DR_READ = 0x20,
	SVM_EXIT_DR_WRITE = 0x30,
	SVM_EXIT_EXCEPTION = 0x40,
	SVM_EXIT_INTR = 0x60,
	SVM_EXIT_NMI,
	SVM_EXIT_SMI,
	SVM_EXIT_INIT,
	SVM_EXIT_VINTR,
	SVM_EXIT_CR0_SELECTIVE,
	SVM_EXIT_IDTR_READ,
	SVM_EXIT_GDTR_READ,
	SVM_EXIT_LDTR_READ,
	SVM_EXIT_TR_READ,
	SVM_EXIT_IDTR_WRITE,
	SVM_EXIT_GDTR_WRITE,
	SVM_EXIT_LDTR_WRITE,
	SVM_EXIT_TR_WRITE,
	SVM_EXIT_RDTSC,
	SVM_EXIT_RDPMC,
	SVM_EXIT_PUSHF,
	SVM_EXIT_POPF,
	SVM_EXIT_CPUID,
	SVM_EXIT_RSM,
	SVM_EXIT_IRET,
	SVM_EXIT_SWINT,
	SVM_EXIT_INVD,
	SVM_EXIT_PAUSE,
	SVM_EXIT_HLT,
	SVM_EXIT_INVLPG,
	SVM_EXIT_INVLPGA,
	SVM_EXIT_IOIO,
	SVM_EXIT_MSR,
	SVM_EXIT_TASK_SWITCH,
	SVM_EXIT_FERR,
	SVM_EXIT_SHUTDOWN,
	SVM_EXIT_VMRUN = 0x80,
	SVM_EXIT_VMMCALL,
	SVM_EXIT_VMLOAD,
	SVM_EXIT_VMSAVE,
	SVM_EXIT_STGI,
	SVM_EXIT_CLGI,
	SVM_EXIT_SKINIT,
	SVM_EXIT_RDTSCP,
	SVM_EXIT_ICEBP,
	SVM_EXIT_WBINVD,
	SVM_EXIT_MONITOR,
	SVM_EXIT_MWAIT,
	SVM_EXIT_MWAIT_ARMED,
	SVM_EXIT_XSETBV,
	SVM_EXIT_RDPRU,
	SVM_EXIT_INVPCID = 0xa2,
	SVM_EXIT_NPF = 0x400,
	SVM_EXIT_AVIC_INCOMPLETE_IPI = 0x401,
	SVM_EXIT_AVIC_NOACCEL = 0x402,
};

#define AVIC_MAX_INDEX 0xffull
#define AVIC_WRITE     BIT(32) /* EXITINFO1 of AVIC_NOACCEL, above the register's offset */

#define SVM_EXIT_INVALID ~0ull

#endif
