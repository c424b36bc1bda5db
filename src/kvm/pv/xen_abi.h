/* SPDX-License-Identifier: MIT */
/* Facts of Xen's guest interface (xen/include/public): numbers, and layouts in guest memory. */
#ifndef KVM_PV_XEN_ABI_H
#define KVM_PV_XEN_ABI_H

#include "host/compiler.h"

/* Hypercalls, and those of their commands that are done here. */
#define XEN_CALL_SET_TIMER	 15
#define XEN_CALL_VERSION	 17
#define XEN_CALL_VCPU_OP	 24
#define XEN_CALL_SCHED_OP	 29
#define XEN_CALL_EVENT_CHANNEL	 32
#define XEN_VERSION_VERSION	 0
#define XEN_SCHED_YIELD		 0
#define XEN_SCHED_POLL		 3
#define XEN_EVTCHN_SEND		 4
#define XEN_VCPU_SET_SINGLESHOT	 8
#define XEN_VCPU_STOP_SINGLESHOT 9
#define XEN_MAX_POLL_PORTS	 128

/* Kinds of event channels (KVM_XEN_ATTR_TYPE_EVTCHN). */
#define XEN_EVTCHN_INTERDOMAIN 2
#define XEN_EVTCHN_IPI	       5

/*
 * Where things stand in shared info, whose bitmaps are of words as wide as the guest's: 64 words of 64, or 32
 * of 32.
 */
struct xen_layout {
	uint16_t pending, mask; /* evtchn_pending, evtchn_mask */
	uint16_t wall_clock;	/* version, sec, nsec */
	uint16_t wall_sec_high;
	uint16_t ports;
	uint8_t word_shift;   /* port to bit of evtchn_pending_sel */
	uint8_t selector;     /* evtchn_pending_sel in vcpu_info */
	uint8_t runstate;     /* bytes of vcpu_runstate_info */
	uint8_t runstate_pad; /* state_entry_time in it */
};

/* vcpu_info, the same in both. */
#define XEN_INFO_SIZE	64
#define XEN_INFO_UPCALL 0 /* evtchn_upcall_pending */
#define XEN_INFO_TIME	32

#define XEN_RUNSTATE_UPDATE BIT(63)
enum xen_runstate {
	XEN_RUNNING,
	XEN_RUNNABLE,
	XEN_BLOCKED,
	XEN_OFFLINE,
	XEN_NR_RUNSTATES,
};

#endif
