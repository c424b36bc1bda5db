/* SPDX-License-Identifier: MIT */
/*
 * Checks of VM entry once more, made from the SDM's text and not from tables/vmentry.def: for each check a VMCS that just
 * fails it and one that just does not. A VMCS starts as one that enters; a case writes some fields.
 */
#ifndef TESTS_GUEST_VMX_CASES_H
#define TESTS_GUEST_VMX_CASES_H

#include "silicon/vmx/vmx.h"

#define WIDTH 40 /* MAXPHYADDR */

/* Controls of the VMCS that enters. */
#define PIN	      0x16ull
#define CPU	      0x84006172ull /* with secondary controls */
#define CPU2	      0x2ull	    /* EPT */
#define EXIT	      0x36ffbull    /* 64-bit host */
#define ENTRY	      0x13fbull	    /* 64-bit guest */
#define EPTP	      0x5001eull
#define PAGE_A	      0x100000ull
#define BEYOND	      (1ull << WIDTH)
#define NOT_CANONICAL 0x800000000000ull

struct set {
	enum vmcs_field f;
	uint64_t val;
};

struct one {
	const char *row;
	bool bad;
	struct set set[5];
};

#define F(name, val)             \
	{                        \
		VMCS_##name, val \
	}
#define GOOD(row, ...)              \
	{                           \
#row, false,        \
		{                   \
			__VA_ARGS__ \
		}                   \
	}
#define BAD(row, ...)               \
	{                           \
#row, true,         \
		{                   \
			__VA_ARGS__ \
		}                   \
	}

/* 32-bit guest, paging off under "unrestricted guest". */
#define UNRESTRICTED F(CPU2_CTLS, CPU2 | 0x80)
#define GUEST32	     F(ENTRY_CTLS, 0x11fb)
/* Of the guest's 64-bit segments: code D=0 L=1; data. */
#define AR_CS 0xa09b
#define AR_SS 0xc093

static const struct one cases[] = {
	/* VM-execution controls */
	BAD(pin_reserved, F(PIN_CTLS, 0x14)), BAD(pin_reserved, F(PIN_CTLS, PIN | 0x100)),
	GOOD(pin_reserved, F(PIN_CTLS, PIN | 1)), BAD(cpu_reserved, F(CPU_CTLS, CPU & ~2ull)),
	BAD(cpu_reserved, F(CPU_CTLS, CPU | 1)), GOOD(cpu_reserved, F(CPU_CTLS, CPU | 0x80)),
	BAD(cpu2_reserved, F(CPU2_CTLS, CPU2 | 1u << 31)),
	GOOD(cpu2_reserved, F(CPU2_CTLS, 1u << 31), F(CPU_CTLS, CPU & 0x7fffffff)),
	BAD(cr3_target_count, F(CR3_TARGET_COUNT, 5)),
	GOOD(cr3_target_count, F(CR3_TARGET_COUNT, 4)),
	BAD(io_bitmaps, F(CPU_CTLS, CPU | 1u << 25), F(IO_BITMAP_A, 0x1800),
	    F(IO_BITMAP_B, 0x2000)),
	BAD(io_bitmaps, F(CPU_CTLS, CPU | 1u << 25), F(IO_BITMAP_A, 0x1000),
	    F(IO_BITMAP_B, BEYOND)),
	GOOD(io_bitmaps, F(CPU_CTLS, CPU | 1u << 25), F(IO_BITMAP_A, 0x1000),
	     F(IO_BITMAP_B, BEYOND - 0x1000)),
	GOOD(io_bitmaps, F(IO_BITMAP_A, 1)),
	BAD(msr_bitmap, F(CPU_CTLS, CPU | 1u << 28), F(MSR_BITMAP, 0x10)),
	GOOD(msr_bitmap, F(CPU_CTLS, CPU | 1u << 28), F(MSR_BITMAP, 0x1000)),
	BAD(vapic_addr, F(CPU_CTLS, CPU | 1u << 21), F(VAPIC_ADDR, 0x801)),
	GOOD(vapic_addr, F(CPU_CTLS, CPU | 1u << 21), F(VAPIC_ADDR, PAGE_A)),
	BAD(tpr_threshold_reserved, F(CPU_CTLS, CPU | 1u << 21), F(VAPIC_ADDR, PAGE_A),
	    F(TPR_THRESHOLD, 0x10)),
	GOOD(tpr_threshold_reserved, F(CPU_CTLS, CPU | 1u << 21), F(VAPIC_ADDR, PAGE_A),
	     F(TPR_THRESHOLD, 0x10),
	     F(CPU2_CTLS,
	       CPU2 | 0x200)), /* refused for another reason: no external-interrupt exiting */
	BAD(tpr_threshold_vtpr, F(CPU_CTLS, CPU | 1u << 21), F(VAPIC_ADDR, PAGE_A),
	    F(TPR_THRESHOLD, 4)),
	GOOD(tpr_threshold_vtpr, F(CPU_CTLS, CPU | 1u << 21), F(VAPIC_ADDR, PAGE_A),
	     F(TPR_THRESHOLD, 3)),
	BAD(virtual_nmis, F(PIN_CTLS, PIN | 0x20)), GOOD(virtual_nmis, F(PIN_CTLS, PIN | 0x28)),
	BAD(nmi_window, F(PIN_CTLS, PIN | 8), F(CPU_CTLS, CPU | 1u << 22)),
	GOOD(nmi_window, F(PIN_CTLS, PIN | 0x28), F(CPU_CTLS, CPU | 1u << 22)),
	BAD(apic_access_addr, F(CPU2_CTLS, CPU2 | 1), F(APIC_ACCESS_ADDR, 0x800)),
	GOOD(apic_access_addr, F(CPU2_CTLS, CPU2 | 1), F(APIC_ACCESS_ADDR, PAGE_A)),
	BAD(tpr_shadow_needed, F(CPU2_CTLS, CPU2 | 0x10)),
	BAD(tpr_shadow_needed, F(CPU2_CTLS, CPU2 | 0x100)),
	BAD(tpr_shadow_needed, F(CPU2_CTLS, CPU2 | 0x200), F(PIN_CTLS, PIN | 1)),
	GOOD(tpr_shadow_needed, F(CPU2_CTLS, CPU2 | 0x110), F(CPU_CTLS, CPU | 1u << 21),
	     F(VAPIC_ADDR, PAGE_A)),
	BAD(x2apic_or_access, F(CPU2_CTLS, CPU2 | 0x11), F(CPU_CTLS, CPU | 1u << 21),
	    F(VAPIC_ADDR, PAGE_A)),
	GOOD(x2apic_or_access, F(CPU2_CTLS, CPU2 | 0x10), F(CPU_CTLS, CPU | 1u << 21),
	     F(VAPIC_ADDR, PAGE_A)),
	BAD(vid_ext_int, F(CPU2_CTLS, CPU2 | 0x200), F(CPU_CTLS, CPU | 1u << 21),
	    F(VAPIC_ADDR, PAGE_A)),
	GOOD(vid_ext_int, F(CPU2_CTLS, CPU2 | 0x200), F(CPU_CTLS, CPU | 1u << 21),
	     F(VAPIC_ADDR, PAGE_A), F(PIN_CTLS, PIN | 1)),
	BAD(posted_vid, F(PIN_CTLS, PIN | 0x81), F(EXIT_CTLS, EXIT | 0x8000)),
	GOOD(posted_vid, F(CPU2_CTLS, CPU2 | 0x200), F(CPU_CTLS, CPU | 1u << 21),
	     F(VAPIC_ADDR, PAGE_A), F(PIN_CTLS, PIN | 0x81), F(EXIT_CTLS, EXIT | 0x8000)),
	BAD(posted_ack, F(CPU2_CTLS, CPU2 | 0x200), F(CPU_CTLS, CPU | 1u << 21),
	    F(VAPIC_ADDR, PAGE_A), F(PIN_CTLS, PIN | 0x81)),
	GOOD(posted_ack, F(CPU2_CTLS, CPU2 | 0x200), F(CPU_CTLS, CPU | 1u << 21),
	     F(PIN_CTLS, PIN | 0x81), F(EXIT_CTLS, EXIT | 0x8000)),
	BAD(posted_vector, F(CPU2_CTLS, CPU2 | 0x200), F(CPU_CTLS, CPU | 1u << 21),
	    F(PIN_CTLS, PIN | 0x81), F(EXIT_CTLS, EXIT | 0x8000), F(POSTED_VECTOR, 0x100)),
	GOOD(posted_vector, F(CPU2_CTLS, CPU2 | 0x200), F(CPU_CTLS, CPU | 1u << 21),
	     F(PIN_CTLS, PIN | 0x81), F(EXIT_CTLS, EXIT | 0x8000), F(POSTED_VECTOR, 0xff)),
	BAD(posted_desc, F(CPU2_CTLS, CPU2 | 0x200), F(CPU_CTLS, CPU | 1u << 21),
	    F(PIN_CTLS, PIN | 0x81), F(EXIT_CTLS, EXIT | 0x8000), F(PI_DESC_ADDR, 0x1020)),
	GOOD(posted_desc, F(CPU2_CTLS, CPU2 | 0x200), F(CPU_CTLS, CPU | 1u << 21),
	     F(PIN_CTLS, PIN | 0x81), F(EXIT_CTLS, EXIT | 0x8000), F(PI_DESC_ADDR, 0x1040)),
	BAD(vpid_zero, F(CPU2_CTLS, CPU2 | 0x20), F(VPID, 0)),
	GOOD(vpid_zero, F(CPU2_CTLS, CPU2 | 0x20), F(VPID, 1)),
	BAD(eptp, F(EPTP, 0x5001d)),					 /* memory type 5 */
	BAD(eptp, F(EPTP, 0x50016)),					 /* walk of 3 */
	BAD(eptp, F(EPTP, 0x5009e)),					 /* bit 7 */
	BAD(eptp, F(EPTP, 0x1e | BEYOND)), GOOD(eptp, F(EPTP, 0x5005e)), /* A and D */
	GOOD(eptp, F(EPTP, 0x50018)),					 /* uncacheable */
	GOOD(eptp, F(EPTP, 0x5001d), F(CPU2_CTLS, 0)),
	BAD(pml_ept, F(CPU2_CTLS, 0x20000), F(PML_ADDR, PAGE_A)),
	GOOD(pml_ept, F(CPU2_CTLS, 0x20002), F(PML_ADDR, PAGE_A)),
	BAD(pml_addr, F(CPU2_CTLS, 0x20002), F(PML_ADDR, PAGE_A + 8)),
	GOOD(pml_addr, F(CPU2_CTLS, 0x20002), F(PML_ADDR, BEYOND - 0x1000)),
	BAD(unrestricted_ept, F(CPU2_CTLS, 0x80)), GOOD(unrestricted_ept, F(CPU2_CTLS, 0x82)),
	BAD(mbec_ept, F(CPU2_CTLS, 0x400000)), GOOD(mbec_ept, F(CPU2_CTLS, 0x400002)),
	BAD(vmfunc_reserved, F(CPU2_CTLS, CPU2 | 0x2000), F(VMFUNC_CTLS, 2)),
	GOOD(vmfunc_reserved, F(CPU2_CTLS, CPU2 | 0x2000), F(VMFUNC_CTLS, 0)),
	BAD(eptp_switching, F(CPU2_CTLS, CPU2 | 0x2000), F(VMFUNC_CTLS, 1), F(EPTP_LIST, 0x10)),
	BAD(eptp_switching, F(CPU2_CTLS, 0x2000), F(VMFUNC_CTLS, 1), F(EPTP_LIST, PAGE_A)),
	GOOD(eptp_switching, F(CPU2_CTLS, CPU2 | 0x2000), F(VMFUNC_CTLS, 1), F(EPTP_LIST, PAGE_A)),
	BAD(shadow_bitmaps, F(CPU2_CTLS, CPU2 | 0x4000), F(VMREAD_BITMAP, PAGE_A),
	    F(VMWRITE_BITMAP, 1)),
	GOOD(shadow_bitmaps, F(CPU2_CTLS, CPU2 | 0x4000), F(VMREAD_BITMAP, PAGE_A),
	     F(VMWRITE_BITMAP, PAGE_A)),
	BAD(tsc_multiplier, F(CPU2_CTLS, CPU2 | 1u << 25), F(TSC_MULTIPLIER, 0)),
	GOOD(tsc_multiplier, F(CPU2_CTLS, CPU2 | 1u << 25), F(TSC_MULTIPLIER, 1)),
	/* VM-exit controls */
	BAD(exit_reserved, F(EXIT_CTLS, EXIT & ~1ull)),
	BAD(exit_reserved, F(EXIT_CTLS, EXIT | 1u << 31)),
	GOOD(exit_reserved, F(EXIT_CTLS, EXIT | 4)), BAD(save_timer, F(EXIT_CTLS, EXIT | 1u << 22)),
	GOOD(save_timer, F(EXIT_CTLS, EXIT | 1u << 22), F(PIN_CTLS, PIN | 0x40)),
	BAD(exit_msr_store, F(EXIT_MSR_STORE_COUNT, 1), F(EXIT_MSR_STORE_ADDR, 8)),
	BAD(exit_msr_store, F(EXIT_MSR_STORE_COUNT, 2), F(EXIT_MSR_STORE_ADDR, BEYOND - 16)),
	GOOD(exit_msr_store, F(EXIT_MSR_STORE_COUNT, 1), F(EXIT_MSR_STORE_ADDR, BEYOND - 16)),
	GOOD(exit_msr_store, F(EXIT_MSR_STORE_COUNT, 0), F(EXIT_MSR_STORE_ADDR, 8)),
	BAD(exit_msr_load, F(EXIT_MSR_LOAD_COUNT, 1), F(EXIT_MSR_LOAD_ADDR, BEYOND)),
	GOOD(exit_msr_load, F(EXIT_MSR_LOAD_COUNT, 1), F(EXIT_MSR_LOAD_ADDR, 16)),
	/* VM-entry controls and event injection */
	BAD(entry_reserved, F(ENTRY_CTLS, ENTRY & ~1ull)),
	GOOD(entry_reserved, F(ENTRY_CTLS, ENTRY | 4)),
	BAD(inject_type, F(ENTRY_INTR_INFO, 0x80000120)),
	GOOD(inject_type, F(ENTRY_INTR_INFO, 0x00000120)),
	BAD(inject_vector, F(ENTRY_INTR_INFO, 0x80000203)), /* NMI, vector 3 */
	BAD(inject_vector, F(ENTRY_INTR_INFO, 0x80000320)), /* exception 32 */
	BAD(inject_vector, F(ENTRY_INTR_INFO, 0x80000701)), /* other event 1 */
	GOOD(inject_vector, F(ENTRY_INTR_INFO, 0x80000202)),
	GOOD(inject_vector, F(ENTRY_INTR_INFO, 0x80000700)),
	BAD(inject_error, F(ENTRY_INTR_INFO, 0x8000030d)), /* #GP without */
	BAD(inject_error, F(ENTRY_INTR_INFO, 0x80000b06)), /* #UD with */
	BAD(inject_error, F(ENTRY_INTR_INFO, 0x80000820), F(RFLAGS, 0x202)),
	GOOD(inject_error, F(ENTRY_INTR_INFO, 0x80000b0d)),
	GOOD(inject_error, F(ENTRY_INTR_INFO, 0x80000306)),
	BAD(inject_reserved, F(ENTRY_INTR_INFO, 0x80001306)),
	GOOD(inject_reserved, F(ENTRY_INTR_INFO, 0x7ffff000)),
	BAD(inject_error_reserved, F(ENTRY_INTR_INFO, 0x80000b0d), F(ENTRY_ERROR_CODE, 0x10000)),
	GOOD(inject_error_reserved, F(ENTRY_INTR_INFO, 0x80000b0d), F(ENTRY_ERROR_CODE, 0xffff)),
	BAD(inject_length, F(ENTRY_INTR_INFO, 0x80000480), F(ENTRY_INSN_LEN, 16)),
	GOOD(inject_length, F(ENTRY_INTR_INFO, 0x80000480), F(ENTRY_INSN_LEN, 15)),
	GOOD(inject_length, F(ENTRY_INTR_INFO, 0x80000306), F(ENTRY_INSN_LEN, 16)),
	BAD(entry_msr_load, F(ENTRY_MSR_LOAD_COUNT, 1), F(ENTRY_MSR_LOAD_ADDR, 0x1001)),
	GOOD(entry_msr_load, F(ENTRY_MSR_LOAD_COUNT, 1), F(ENTRY_MSR_LOAD_ADDR, 0x1010)),
	/* Host state */
	BAD(host_cr0, F(HOST_CR0, 0x80000011)), /* NE */
	BAD(host_cr0, F(HOST_CR0, 0x180000031)), GOOD(host_cr0, F(HOST_CR0, 0x80000021)),
	BAD(host_cr4, F(HOST_CR4, 0x20)), /* VMXE */
	GOOD(host_cr4, F(HOST_CR4, 0x20a0)), BAD(host_cr3, F(HOST_CR3, BEYOND)),
	GOOD(host_cr3, F(HOST_CR3, BEYOND - 1)),
	BAD(host_sysenter_esp, F(HOST_SYSENTER_ESP, NOT_CANONICAL)),
	GOOD(host_sysenter_esp, F(HOST_SYSENTER_ESP, NOT_CANONICAL - 1)),
	BAD(host_sysenter_eip, F(HOST_SYSENTER_EIP, NOT_CANONICAL)),
	GOOD(host_sysenter_eip, F(HOST_SYSENTER_EIP, ~0ull)),
	BAD(host_pat, F(EXIT_CTLS, EXIT | 1u << 19), F(HOST_PAT, 0x0207040600070406)),
	GOOD(host_pat, F(EXIT_CTLS, EXIT | 1u << 19), F(HOST_PAT, 0x0106050400070406)),
	GOOD(host_pat, F(HOST_PAT, 2)),
	BAD(host_efer_reserved, F(EXIT_CTLS, EXIT | 1u << 21), F(HOST_EFER, 0x502)),
	GOOD(host_efer_reserved, F(EXIT_CTLS, EXIT | 1u << 21), F(HOST_EFER, 0x501)),
	BAD(host_efer_lma, F(EXIT_CTLS, EXIT | 1u << 21), F(HOST_EFER, 0x100)),
	GOOD(host_efer_lma, F(EXIT_CTLS, EXIT | 1u << 21), F(HOST_EFER, 0x500)),
	BAD(host_selectors, F(HOST_DS_SEL, 0x13)), BAD(host_selectors, F(HOST_TR_SEL, 0x1c)),
	GOOD(host_selectors, F(HOST_DS_SEL, 0x10)), BAD(host_cs_null, F(HOST_CS_SEL, 0)),
	GOOD(host_cs_null, F(HOST_CS_SEL, 0xfff8)), BAD(host_tr_null, F(HOST_TR_SEL, 0)),
	GOOD(host_tr_null, F(HOST_TR_SEL, 0x40)), BAD(host_fs_base, F(HOST_FS_BASE, NOT_CANONICAL)),
	GOOD(host_fs_base, F(HOST_FS_BASE, 0xffff800000000000)),
	BAD(host_gs_base, F(HOST_GS_BASE, NOT_CANONICAL)),
	GOOD(host_gs_base, F(HOST_GS_BASE, 0xffff800000000000)),
	BAD(host_gdtr_base, F(HOST_GDTR_BASE, NOT_CANONICAL)),
	GOOD(host_gdtr_base, F(HOST_GDTR_BASE, 0xffff800000000000)),
	BAD(host_idtr_base, F(HOST_IDTR_BASE, NOT_CANONICAL)),
	GOOD(host_idtr_base, F(HOST_IDTR_BASE, 0xffff800000000000)),
	BAD(host_tr_base, F(HOST_TR_BASE, NOT_CANONICAL)),
	GOOD(host_tr_base, F(HOST_TR_BASE, 0xffff800000000000)),
	BAD(host_size_long, F(EXIT_CTLS, EXIT & ~0x200ull), F(ENTRY_CTLS, ENTRY & ~0x200ull)),
	GOOD(host_size_long, F(ENTRY_CTLS, ENTRY)), BAD(host64_pae, F(HOST_CR4, 0x2000)),
	GOOD(host64_pae, F(HOST_CR4, 0x2020)), BAD(host64_rip, F(HOST_RIP, NOT_CANONICAL)),
	GOOD(host64_rip, F(HOST_RIP, NOT_CANONICAL - 1)),
	/* Guest state: registers */
	BAD(cr0_fixed, F(CR0, 0x80000011)), BAD(cr0_fixed, F(CR0, 0x31), GUEST32, F(CS_AR, 0xc09b)),
	GOOD(cr0_fixed, F(CR0, 0xe0000031)), /* NW and CD are not looked at */
	GOOD(cr0_fixed, F(CR0, 0x31), GUEST32, F(CS_AR, 0xc09b), UNRESTRICTED),
	BAD(cr0_pg_pe, F(CR0, 0x80000030), UNRESTRICTED),
	GOOD(cr0_pg_pe, F(CR0, 0x30), UNRESTRICTED, GUEST32, F(CS_AR, 0x9b), F(CS_LIMIT, 0xffff)),
	BAD(cr4_fixed, F(CR4, 0x20)), GOOD(cr4_fixed, F(CR4, 0x20a0)),
	BAD(debugctl, F(ENTRY_CTLS, ENTRY | 4), F(DEBUGCTL, 0x10000)),
	GOOD(debugctl, F(ENTRY_CTLS, ENTRY | 4), F(DEBUGCTL, 3)),
	GOOD(debugctl, F(DEBUGCTL, 0x10000)), BAD(long_mode_paging, F(CR4, 0x2000)),
	BAD(long_mode_paging, F(CR0, 0x31), UNRESTRICTED), GOOD(long_mode_paging, F(CR4, 0x2020)),
	BAD(legacy_pcide, F(CR4, 0x22020), GUEST32, F(CS_AR, 0xc09b)),
	GOOD(legacy_pcide, F(CR4, 0x22020)), BAD(cr3, F(CR3, BEYOND)),
	GOOD(cr3, F(CR3, BEYOND - 1)), BAD(dr7, F(ENTRY_CTLS, ENTRY | 4), F(DR7, 0x100000400)),
	GOOD(dr7, F(ENTRY_CTLS, ENTRY | 4), F(DR7, 0xffffffff)),
	BAD(sysenter_esp, F(SYSENTER_ESP, NOT_CANONICAL)),
	GOOD(sysenter_esp, F(SYSENTER_ESP, ~0ull)),
	BAD(sysenter_eip, F(SYSENTER_EIP, NOT_CANONICAL)), GOOD(sysenter_eip, F(SYSENTER_EIP, 1)),
	BAD(pat, F(ENTRY_CTLS, ENTRY | 0x4000), F(PAT, 0x0007040600070403)),
	GOOD(pat, F(ENTRY_CTLS, ENTRY | 0x4000), F(PAT, 0x0007040600070407)),
	BAD(efer_reserved, F(ENTRY_CTLS, ENTRY | 0x8000), F(EFER, 0x1500)),
	GOOD(efer_reserved, F(ENTRY_CTLS, ENTRY | 0x8000), F(EFER, 0x501)),
	BAD(efer_lma, F(ENTRY_CTLS, ENTRY | 0x8000), F(EFER, 0x100)),
	BAD(efer_lma, F(ENTRY_CTLS, ENTRY | 0x8000), F(EFER, 0x400)),
	GOOD(efer_lma, F(ENTRY_CTLS, ENTRY | 0x8000), F(EFER, 0x500)),
	/* Guest state: segments */
	BAD(tr_ti, F(TR_SEL, 0x1c)), GOOD(tr_ti, F(TR_SEL, 0x1b)),
	BAD(ldtr_ti, F(LDTR_SEL, 4), F(LDTR_AR, 0x82)),
	GOOD(ldtr_ti, F(LDTR_SEL, 4)), /* unusable */
	BAD(ss_rpl, F(SS_SEL, 0x13)), GOOD(ss_rpl, F(SS_SEL, 0x13), UNRESTRICTED),
	BAD(tr_base, F(TR_BASE, NOT_CANONICAL)), GOOD(tr_base, F(TR_BASE, ~0ull)),
	BAD(fs_base, F(FS_BASE, NOT_CANONICAL)), GOOD(fs_base, F(FS_BASE, ~0ull)),
	BAD(gs_base, F(GS_BASE, NOT_CANONICAL)), GOOD(gs_base, F(GS_BASE, ~0ull)),
	BAD(ldtr_base, F(LDTR_BASE, NOT_CANONICAL), F(LDTR_AR, 0x82)),
	GOOD(ldtr_base, F(LDTR_BASE, NOT_CANONICAL)), BAD(cs_base, F(CS_BASE, 0x100000000)),
	GOOD(cs_base, F(CS_BASE, 0xffffffff)), BAD(data_base, F(SS_BASE, 0x100000000)),
	BAD(data_base, F(DS_BASE, 0x100000000), F(DS_AR, AR_SS), F(DS_LIMIT, 0xffffffff)),
	GOOD(data_base, F(DS_BASE, 0x100000000)), BAD(cs_type, F(CS_AR, 0xa09a)), /* not accessed */
	BAD(cs_type, F(CS_AR, 0xa093)),						  /* data */
	GOOD(cs_type, F(CS_AR, 0xa099)), GOOD(cs_type, F(CS_AR, 0x8093), UNRESTRICTED, GUEST32),
	BAD(ss_type, F(SS_AR, 0xc091)), GOOD(ss_type, F(SS_AR, 0xc097)),
	BAD(data_type, F(DS_AR, 0xc092), F(DS_LIMIT, 0xffffffff)),
	BAD(data_type, F(ES_AR, 0xc099), F(ES_LIMIT, 0xffffffff)), /* code that cannot be read */
	GOOD(data_type, F(ES_AR, 0xc09b), F(ES_LIMIT, 0xffffffff)),
	BAD(segment_s, F(CS_AR, 0xa08b)), GOOD(segment_s, F(DS_AR, 0x10000)),
	BAD(cs_dpl, F(CS_AR, 0xa0fb)), /* DPL 3, SS 0 */
	BAD(cs_dpl, F(CS_AR, 0xa0fd)), /* conforming */
	GOOD(cs_dpl, F(CS_AR, 0xa09d), F(SS_AR, 0xc0f3), F(SS_SEL, 0x13), F(CS_SEL, 0xb)),
	BAD(ss_dpl, F(SS_AR, 0xc0f3), F(CS_AR, 0xa0fb)), /* RPL 0 */
	GOOD(ss_dpl, F(SS_AR, 0xc0f3), F(CS_AR, 0xa0fb), F(SS_SEL, 0x13), F(CS_SEL, 0xb)),
	BAD(data_dpl, F(DS_AR, AR_SS), F(DS_LIMIT, 0xffffffff), F(DS_SEL, 0x13)),
	GOOD(data_dpl, F(DS_AR, AR_SS), F(DS_LIMIT, 0xffffffff), F(DS_SEL, 0x13), UNRESTRICTED),
	BAD(segment_p, F(SS_AR, 0xc013)), GOOD(segment_p, F(FS_AR, 0x10013)),
	BAD(segment_reserved, F(SS_AR, 0xc193)), BAD(segment_reserved, F(CS_AR, 0x2a09b)),
	GOOD(segment_reserved, F(SS_AR, 0xd093)), /* AVL */
	BAD(cs_l_db, F(CS_AR, 0xe09b)), GOOD(cs_l_db, F(CS_AR, 0xc09b)),
	BAD(segment_g, F(CS_LIMIT, 0xffffff00)),
	BAD(segment_g, F(SS_AR, 0x4093), F(SS_LIMIT, 0x100000)),
	GOOD(segment_g, F(SS_AR, 0x4093), F(SS_LIMIT, 0xfffff)), BAD(tr_type, F(TR_AR, 0x83)),
	GOOD(tr_type, F(TR_AR, 0x83), GUEST32, F(CS_AR, 0xc09b)), BAD(tr_s, F(TR_AR, 0x9b)),
	GOOD(tr_s, F(TR_AR, 0x8b)), BAD(tr_p, F(TR_AR, 0x0b)), GOOD(tr_p, F(TR_AR, 0x8b)),
	BAD(tr_reserved, F(TR_AR, 0x18b)), GOOD(tr_reserved, F(TR_AR, 0x108b)),
	BAD(tr_g, F(TR_AR, 0x808b), F(TR_LIMIT, 0x67)),
	GOOD(tr_g, F(TR_AR, 0x808b), F(TR_LIMIT, 0xfff)), BAD(tr_usable, F(TR_AR, 0x1008b)),
	GOOD(tr_usable, F(TR_AR, 0x8b)), BAD(ldtr_type, F(LDTR_AR, 0x83)),
	GOOD(ldtr_type, F(LDTR_AR, 0x82)), BAD(ldtr_s, F(LDTR_AR, 0x92)),
	GOOD(ldtr_s, F(LDTR_AR, 0x10092)), BAD(ldtr_p, F(LDTR_AR, 0x02)),
	GOOD(ldtr_p, F(LDTR_AR, 0x10002)), BAD(ldtr_reserved, F(LDTR_AR, 0x20082)),
	GOOD(ldtr_reserved, F(LDTR_AR, 0x30f82)), BAD(ldtr_g, F(LDTR_AR, 0x8082), F(LDTR_LIMIT, 0)),
	GOOD(ldtr_g, F(LDTR_AR, 0x8082), F(LDTR_LIMIT, 0xffffffff)),
	/* Guest state: tables, RIP, RFLAGS */
	BAD(gdtr_base, F(GDTR_BASE, NOT_CANONICAL)), GOOD(gdtr_base, F(GDTR_BASE, ~0ull)),
	BAD(idtr_base, F(IDTR_BASE, NOT_CANONICAL)), GOOD(idtr_base, F(IDTR_BASE, ~0ull)),
	BAD(gdtr_limit, F(GDTR_LIMIT, 0x10000)), GOOD(gdtr_limit, F(GDTR_LIMIT, 0xffff)),
	BAD(idtr_limit, F(IDTR_LIMIT, 0x10000)), GOOD(idtr_limit, F(IDTR_LIMIT, 0)),
	BAD(rip, F(RIP, NOT_CANONICAL)), BAD(rip, F(RIP, 0x100000000), F(CS_AR, 0xc09b)),
	GOOD(rip, F(RIP, 0x100000000)), BAD(rflags_reserved, F(RFLAGS, 0)),
	BAD(rflags_reserved, F(RFLAGS, 0x8002)), BAD(rflags_reserved, F(RFLAGS, 0x400002)),
	GOOD(rflags_reserved, F(RFLAGS, 0x243fd7 & ~0x20000)),
	BAD(rflags_if, F(ENTRY_INTR_INFO, 0x80000020)),
	GOOD(rflags_if, F(ENTRY_INTR_INFO, 0x80000020), F(RFLAGS, 0x202)),
	/* Guest state: activity, interruptibility, pending debug exceptions */
	BAD(activity, F(ACTIVITY, 4)), GOOD(activity, F(ACTIVITY, 3)),
	BAD(activity_dpl, F(ACTIVITY, 1), F(SS_AR, 0xc0f3), F(CS_AR, 0xa0fb), F(SS_SEL, 0x13),
	    F(CS_SEL, 0xb)),
	GOOD(activity_dpl, F(ACTIVITY, 1)),
	BAD(activity_blocked, F(ACTIVITY, 1), F(INTERRUPTIBILITY, 2)),
	GOOD(activity_blocked, F(ACTIVITY, 0), F(INTERRUPTIBILITY, 2)),
	BAD(activity_inject, F(ACTIVITY, 1), F(ENTRY_INTR_INFO, 0x80000306)),
	BAD(activity_inject, F(ACTIVITY, 2), F(ENTRY_INTR_INFO, 0x80000301)),
	BAD(activity_inject, F(ACTIVITY, 3), F(ENTRY_INTR_INFO, 0x80000202)),
	GOOD(activity_inject, F(ACTIVITY, 1), F(ENTRY_INTR_INFO, 0x80000301)),
	GOOD(activity_inject, F(ACTIVITY, 2), F(ENTRY_INTR_INFO, 0x80000202)),
	BAD(blocked_reserved, F(INTERRUPTIBILITY, 0x20)),
	GOOD(blocked_reserved, F(INTERRUPTIBILITY, 8)),
	BAD(blocked_both, F(INTERRUPTIBILITY, 3), F(RFLAGS, 0x202)),
	GOOD(blocked_both, F(INTERRUPTIBILITY, 2), F(RFLAGS, 0x202)),
	BAD(blocked_sti_if, F(INTERRUPTIBILITY, 1)),
	GOOD(blocked_sti_if, F(INTERRUPTIBILITY, 1), F(RFLAGS, 0x202)),
	BAD(blocked_ext_int, F(INTERRUPTIBILITY, 1), F(RFLAGS, 0x202),
	    F(ENTRY_INTR_INFO, 0x80000020)),
	GOOD(blocked_ext_int, F(INTERRUPTIBILITY, 8), F(RFLAGS, 0x202),
	     F(ENTRY_INTR_INFO, 0x80000020)),
	BAD(blocked_nmi_mov_ss, F(INTERRUPTIBILITY, 2), F(ENTRY_INTR_INFO, 0x80000202)),
	GOOD(blocked_nmi_mov_ss, F(INTERRUPTIBILITY, 2), F(ENTRY_INTR_INFO, 0x80000306)),
	BAD(blocked_smi, F(INTERRUPTIBILITY, 4)), GOOD(blocked_smi, F(INTERRUPTIBILITY, 0)),
	BAD(blocked_nmi_sti, F(INTERRUPTIBILITY, 1), F(RFLAGS, 0x202),
	    F(ENTRY_INTR_INFO, 0x80000202)),
	GOOD(blocked_nmi_sti, F(INTERRUPTIBILITY, 0), F(ENTRY_INTR_INFO, 0x80000202)),
	BAD(blocked_virtual_nmi, F(PIN_CTLS, PIN | 0x28), F(INTERRUPTIBILITY, 8),
	    F(ENTRY_INTR_INFO, 0x80000202)),
	GOOD(blocked_virtual_nmi, F(INTERRUPTIBILITY, 8), F(ENTRY_INTR_INFO, 0x80000202)),
	BAD(pending_debug_reserved, F(PENDING_DEBUG, 0x10)),
	BAD(pending_debug_reserved, F(PENDING_DEBUG, 0x2000)),
	GOOD(pending_debug_reserved, F(PENDING_DEBUG, 0x500f)),
	BAD(pending_debug_bs, F(INTERRUPTIBILITY, 2), F(PENDING_DEBUG, 0x4000)),
	BAD(pending_debug_bs, F(INTERRUPTIBILITY, 2), F(RFLAGS, 0x102)),
	GOOD(pending_debug_bs, F(INTERRUPTIBILITY, 2), F(RFLAGS, 0x102), F(PENDING_DEBUG, 0x4000)),
	GOOD(pending_debug_bs, F(INTERRUPTIBILITY, 2), F(RFLAGS, 0x102), F(DEBUGCTL, 2)),
	/* Guest state: link pointer, PDPTEs */
	BAD(link_pointer, F(LINK_POINTER, 0x10)),
	BAD(link_pointer, F(LINK_POINTER, PAGE_A)), /* no revision there */
	GOOD(link_pointer, F(LINK_POINTER, PAGE_A + 0x1000)),
	BAD(pdptes, GUEST32, F(CS_AR, 0xc09b), F(PDPTE2, 0x1001 | BEYOND)),
	BAD(pdptes, GUEST32, F(CS_AR, 0xc09b), F(PDPTE3, 0x1003)),
	GOOD(pdptes, GUEST32, F(CS_AR, 0xc09b), F(PDPTE2, 0x1002 | BEYOND)), /* not present */
	/* Virtual-8086 mode: the case's first field, over a guest that is in it. */
};

static const struct set enters[] = {
	F(PIN_CTLS, PIN),
	F(CPU_CTLS, CPU),
	F(CPU2_CTLS, CPU2),
	F(EXIT_CTLS, EXIT),
	F(ENTRY_CTLS, ENTRY),
	F(EPTP, EPTP),
	F(TSC_MULTIPLIER, 1),
	F(VAPIC_ADDR, PAGE_A),
	F(LINK_POINTER, ~0ull),
	F(HOST_CR0, 0x80000031),
	F(HOST_CR4, 0x2020),
	F(HOST_CS_SEL, 8),
	F(HOST_SS_SEL, 0x10),
	F(HOST_TR_SEL, 0x18),
	F(CR0, 0x80000031),
	F(CR4, 0x2020),
	F(CS_SEL, 8),
	F(CS_AR, AR_CS),
	F(CS_LIMIT, 0xffffffff),
	F(SS_SEL, 0x10),
	F(SS_AR, AR_SS),
	F(SS_LIMIT, 0xffffffff),
	F(DS_AR, 0x10000),
	F(ES_AR, 0x10000),
	F(FS_AR, 0x10000),
	F(GS_AR, 0x10000),
	F(LDTR_AR, 0x10000),
	F(TR_SEL, 0x18),
	F(TR_AR, 0x8b),
	F(TR_LIMIT, 0x67),
	F(RFLAGS, 2),
	F(RIP, 0x8000),
	F(DR7, 0x400),
};

#endif
