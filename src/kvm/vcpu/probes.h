/* SPDX-License-Identifier: MIT */
/*
 * USDT probes, provider anykvm, one per trace event, with the event's fields for arguments in their order. perf, gdb, bpftrace and
 * systemtap find them by the notes in the library, and count up the semaphore of those that they use: while it is 0
 * nobody is watching by probes (the notes are described in systemtap's sys/sdt.h and read by readelf -n).
 */
#ifndef KVM_VCPU_PROBES_H
#define KVM_VCPU_PROBES_H

#include "kvm/vcpu/watch.h"

/* Tools write here, in this process's memory. */
extern volatile uint16_t probes_semaphore;

/* Some tool has set a probe. Any thread. */
static inline bool probes_wanted(void)
{
	return unlikely(probes_semaphore);
}
/* vCPU thread, if some are wanted. */
void probes_fire(enum watch_event id, const void *ev);

#endif
