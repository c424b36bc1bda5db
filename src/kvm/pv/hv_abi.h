/* SPDX-License-Identifier: MIT */
/* Facts of Hyper-V's guest interface (TLFS): numbers of MSRs, hypercalls, feature bits, layouts in guest memory. */
#ifndef KVM_PV_HV_ABI_H
#define KVM_PV_HV_ABI_H

#include "host/compiler.h"

/* CPUID leaves. */
#define HV_CPUID_VENDOR		0x40000000
#define HV_CPUID_INTERFACE	0x40000001
#define HV_CPUID_VERSION	0x40000002
#define HV_CPUID_FEATURES	0x40000003
#define HV_CPUID_ENLIGHTENMENTS 0x40000004
#define HV_CPUID_LIMITS		0x40000005
#define HV_CPUID_NESTED		0x4000000a
#define HV_CPUID_SYNDBG_VENDOR	0x40000080
#define HV_CPUID_SYNDBG_IFACE	0x40000081
#define HV_CPUID_SYNDBG_CAPS	0x40000082
#define HV_SIGNATURE		0x31237648 /* "Hv#1" */

/* HV_CPUID_FEATURES: EAX. */
#define HV_ACCESS_VP_RUNTIME	  BIT(0)
#define HV_ACCESS_TIME_REF_COUNT  BIT(1)
#define HV_ACCESS_SYNIC		  BIT(2)
#define HV_ACCESS_STIMERS	  BIT(3)
#define HV_ACCESS_APIC		  BIT(4)
#define HV_ACCESS_HYPERCALL	  BIT(5)
#define HV_ACCESS_VP_INDEX	  BIT(6)
#define HV_ACCESS_RESET		  BIT(7)
#define HV_ACCESS_REFERENCE_TSC	  BIT(9)
#define HV_ACCESS_FREQUENCIES	  BIT(11)
#define HV_ACCESS_REENLIGHTENMENT BIT(13)
#define HV_ACCESS_TSC_INVARIANT	  BIT(15)
/* EBX. */
#define HV_POST_MESSAGES  BIT(4)
#define HV_SIGNAL_EVENTS  BIT(5)
#define HV_DEBUGGING	  BIT(11)
#define HV_EXTENDED_CALLS BIT(20)
/* EDX. */
#define HV_GUEST_DEBUGGING	BIT(1)
#define HV_XMM_INPUT		BIT(4)
#define HV_FREQUENCY_MSRS	BIT(8)
#define HV_CRASH_MSRS		BIT(10)
#define HV_DEBUG_MSRS		BIT(11)
#define HV_EXT_GVA_RANGES_FLUSH BIT(14)
#define HV_STIMER_DIRECT_MODE	BIT(19)
/* HV_CPUID_ENLIGHTENMENTS: EAX. */
#define HV_USE_REMOTE_FLUSH   BIT(2)
#define HV_USE_APIC_MSRS      BIT(3)
#define HV_USE_RELAXED_TIMING BIT(5)
#define HV_DEPRECATE_AUTO_EOI BIT(9)
#define HV_USE_CLUSTER_IPI    BIT(10)
#define HV_USE_EX_MASKS	      BIT(11)
#define HV_USE_EVMCS	      BIT(14)
#define HV_NO_CORE_SHARING    BIT(18)
/* HV_CPUID_NESTED: EAX, below which the versions of the enlightened VMCS stand. */
#define HV_NESTED_DIRECT_FLUSH BIT(17)
#define HV_NESTED_MSR_BITMAP   BIT(19)
/* EBX. */
#define HV_NESTED_PERF_CTRL BIT(0)
/* HV_CPUID_SYNDBG_CAPS: EAX. */
#define HV_SYNDBG_KERNEL_DEBUGGING BIT(1)

/* MSRs. */
#define HV_MSR_GUEST_OS_ID	     0x40000000
#define HV_MSR_HYPERCALL	     0x40000001
#define HV_MSR_VP_INDEX		     0x40000002
#define HV_MSR_RESET		     0x40000003
#define HV_MSR_VP_RUNTIME	     0x40000010
#define HV_MSR_TIME_REF_COUNT	     0x40000020
#define HV_MSR_REFERENCE_TSC	     0x40000021
#define HV_MSR_TSC_FREQUENCY	     0x40000022
#define HV_MSR_APIC_FREQUENCY	     0x40000023
#define HV_MSR_EOI		     0x40000070
#define HV_MSR_ICR		     0x40000071
#define HV_MSR_TPR		     0x40000072
#define HV_MSR_VP_ASSIST_PAGE	     0x40000073
#define HV_MSR_SCONTROL		     0x40000080
#define HV_MSR_SVERSION		     0x40000081
#define HV_MSR_SIEFP		     0x40000082
#define HV_MSR_SIMP		     0x40000083
#define HV_MSR_EOM		     0x40000084
#define HV_MSR_SINT0		     0x40000090
#define HV_MSR_SINT15		     0x4000009f
#define HV_MSR_STIMER0_CONFIG	     0x400000b0
#define HV_MSR_STIMER3_COUNT	     0x400000b7
#define HV_MSR_SYNDBG_CONTROL	     0x400000f1
#define HV_MSR_SYNDBG_STATUS	     0x400000f2
#define HV_MSR_SYNDBG_SEND_BUFFER    0x400000f3
#define HV_MSR_SYNDBG_RECV_BUFFER    0x400000f4
#define HV_MSR_SYNDBG_PENDING_BUFFER 0x400000f5
#define HV_MSR_SYNDBG_OPTIONS	     0x400000ff
#define HV_MSR_CRASH_P0		     0x40000100
#define HV_MSR_CRASH_P4		     0x40000104
#define HV_MSR_CRASH_CTL	     0x40000105
#define HV_MSR_REENLIGHTENMENT	     0x40000106
#define HV_MSR_TSC_EMULATION_CONTROL 0x40000107
#define HV_MSR_TSC_EMULATION_STATUS  0x40000108
#define HV_MSR_TSC_INVARIANT_CONTROL 0x40000118
#define HV_MSR_LAST_PLAIN	     HV_MSR_SINT15 /* up to here KVM knows every number as Hyper-V's */

/* Bits of MSRs that name a page. */
#define HV_PAGE_ENABLE BIT(0)

#define HV_CRASH_NOTIFY	     BIT(63)
#define HV_EXPOSE_INVARIANT  BIT(0)
#define HV_SYNDBG_USE_HCALLS BIT(2)

/* SynIC. */
#define HV_NR_SINTS	     16
#define HV_SYNIC_VERSION     1
#define HV_SCONTROL_ENABLE   BIT(0)
#define HV_SINT_VECTOR	     0xff
#define HV_SINT_MASKED	     BIT(16)
#define HV_SINT_AUTO_EOI     BIT(17)
#define HV_FIRST_SINT_VECTOR 16

#define HV_MESSAGE_SIZE		256
#define HV_MESSAGE_TIMER	0x80000010
#define HV_MESSAGE_FLAG_PENDING 1

struct hv_timer_message {
	uint32_t type;
	uint8_t payload_size;
	uint8_t flags; /* HV_MESSAGE_FLAG_PENDING */
	uint8_t reserved[2];
	uint64_t sender;
	uint32_t timer_index;
	uint32_t reserved2;
	uint64_t expiration_time, delivery_time; /* 100 ns */
};

_Static_assert(sizeof(struct hv_timer_message) == 40, "TLFS: header and timer payload");

/* Synthetic timers: their CONFIG. */
#define HV_NR_STIMERS	      4
#define HV_STIMER_ENABLE      BIT(0)
#define HV_STIMER_PERIODIC    BIT(1)
#define HV_STIMER_AUTO_ENABLE BIT(3)
#define HV_STIMER_DIRECT      BIT(12)
#define HV_STIMER_VECTOR(cfg) ((uint8_t)((cfg) >> 4))
#define HV_STIMER_SINT(cfg)   ((cfg) >> 16 & 0xf)

/* Reference TSC page. */
struct hv_tsc_page {
	uint32_t sequence;
	uint32_t reserved;
	uint64_t scale;
	int64_t offset;
};

/* Hypercalls: input value. */
#define HV_CALL_FAST		BIT(16)
#define HV_CALL_RESERVED	0xf000f000f8000000ull
#define HV_CALL_VAR_SHIFT	17
#define HV_CALL_VAR_MASK	0x3ff
#define HV_CALL_REP_SHIFT	32
#define HV_CALL_REP_START_SHIFT 48
#define HV_CALL_REP_MASK	0xfff
#define HV_NR_XMM		6

enum hv_call_code {
	HV_CALL_FLUSH_SPACE = 0x2,
	HV_CALL_FLUSH_LIST = 0x3,
	HV_CALL_LONG_SPIN_WAIT = 0x8,
	HV_CALL_SEND_IPI = 0xb,
	HV_CALL_FLUSH_SPACE_EX = 0x13,
	HV_CALL_FLUSH_LIST_EX = 0x14,
	HV_CALL_SEND_IPI_EX = 0x15,
	HV_CALL_POST_MESSAGE = 0x5c,
	HV_CALL_SIGNAL_EVENT = 0x5d,
	HV_CALL_POST_DEBUG_DATA = 0x69,
	HV_CALL_RETRIEVE_DEBUG_DATA = 0x6a,
	HV_CALL_RESET_DEBUG_SESSION = 0x6b,
	HV_CALL_EXT_FIRST = 0x8001,
	HV_CALL_EXT_LAST = 0x8041, /* as many as HvExtCallQueryCapabilities has bits, and itself */
};

enum hv_status {
	HV_STATUS_SUCCESS = 0,
	HV_STATUS_INVALID_CODE = 2,
	HV_STATUS_INVALID_INPUT = 3,
	HV_STATUS_INVALID_ALIGNMENT = 4,
	HV_STATUS_INVALID_PARAMETER = 5,
	HV_STATUS_ACCESS_DENIED = 6,
	HV_STATUS_OPERATION_DENIED = 8,
	HV_STATUS_INVALID_PORT_ID = 17,
};

/* Sets of virtual processors: banks of 64. */
#define HV_SET_SPARSE 0
#define HV_SET_ALL    1

#define HV_FLUSH_ALL_PROCESSORS BIT(0)

struct hv_vp_set {
	uint64_t format; /* HV_SET_* */
	uint64_t valid_banks;
};

struct hv_flush {
	uint64_t address_space, flags, processor_mask;
};

struct hv_flush_ex {
	uint64_t address_space, flags;
	struct hv_vp_set set;
};

struct hv_send_ipi {
	uint32_t vector, reserved;
	uint64_t cpu_mask;
};

struct hv_send_ipi_ex {
	uint32_t vector, reserved;
	struct hv_vp_set set;
};

/* ---- nested virtualization ---- */

/* The VP assist page, as far as it is looked at. */
struct hv_assist {
	uint32_t eoi;
	uint8_t vtl[28];
	uint32_t features; /* HV_ASSIST_DIRECT_CALLS */
	uint32_t controls;
	uint8_t enlightened_entry, reserved[7];
	uint64_t nested_vmcs;
};

_Static_assert(sizeof(struct hv_assist) == 56, "TLFS");

#define HV_ASSIST_DIRECT_CALLS BIT(0)
#define HV_NO_NESTED_VMCS      (~1ull) /* this, or all ones */

/* The enlightened VMCS beside the fields of tables/evmcs.def. */
#define HV_EVMCS_VERSION 1
#define HV_EVMCS_CLEAN	 0x338
#define HV_EVMCS_OWN	 0x344
struct hv_evmcs_own {
	uint32_t control; /* HV_NESTED_* */
	uint32_t vp_id, padding;
	uint64_t vm_id, partition_assist;
} __attribute__((packed));

/* What a VMCB leaves to software. */
struct hv_vmcb_own {
	uint32_t control, vp_id;
	uint64_t vm_id, partition_assist, reserved;
};

_Static_assert(sizeof(struct hv_vmcb_own) == 32, "APM, TLFS");

#define HV_NESTED_FLUSH_CALL BIT(0)
#define HV_NESTED_KEEP_MAP   BIT(1)
#define HV_VMCB_CLEAN	     BIT(31)

/* Groups of fields, in the mask of those that are clean. */
#define EVMCS_NONE	     0
#define EVMCS_IO_BITMAP	     BIT(0)
#define EVMCS_MSR_BITMAP     BIT(1)
#define EVMCS_CONTROL_GRP2   BIT(2)
#define EVMCS_CONTROL_GRP1   BIT(3)
#define EVMCS_CONTROL_PROC   BIT(4)
#define EVMCS_CONTROL_EVENT  BIT(5)
#define EVMCS_CONTROL_ENTRY  BIT(6)
#define EVMCS_CONTROL_EXCPN  BIT(7)
#define EVMCS_CRDR	     BIT(8)
#define EVMCS_CONTROL_XLAT   BIT(9)
#define EVMCS_GUEST_BASIC    BIT(10)
#define EVMCS_GUEST_GRP1     BIT(11)
#define EVMCS_GUEST_GRP2     BIT(12)
#define EVMCS_HOST_POINTER   BIT(13)
#define EVMCS_HOST_GRP1	     BIT(14)
#define EVMCS_ENLIGHTENMENTS BIT(15)

/* Exits that no processor makes. */
#define HV_VMX_TRAP_AFTER_FLUSH 0x10000031
#define HV_SVM_EXIT		0xf0000000
#define HV_SVM_TRAP_AFTER_FLUSH 1

#endif
