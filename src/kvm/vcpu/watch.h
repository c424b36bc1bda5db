/* SPDX-License-Identifier: MIT */
/*
 * Watching a vCPU from outside: the page where it counts, and the ring where it leaves its events.
 *
 * Every vCPU's file has such a page behind what the program maps, so any process of the same user finds it by
 * /proc/PID/fd and no file has to be made or removed. A session (anykvm run --stat, anykvm trace) has a file of its own with
 * a page and a ring per vCPU: it outlives the processes that it watches; the vCPU's own page then says where.
 *
 * Off costs one test per KVM_RUN loop: what is counted here is counted by a table of platform operations that stands in
 * for the usual one while somebody watches (watch_ops.c).
 *
 * Layout: little endian, between processes of one version; ->version refuses others.
 */
#ifndef KVM_VCPU_WATCH_H
#define KVM_VCPU_WATCH_H

#include "kvm/vcpu/watch_clock.h"
#include "kvm/vm/stats.h"

#define WATCH_MAGIC   0x6b767761u
#define WATCH_VERSION 3u
#define WATCH_PAGE    3 /* of the vCPU's file */
#define WATCH_FILE    "anykvm:vcpu"

enum watch_reason {
#define REASON(name, vmx, svm) WATCH_##name,
#include "reasons.def"
#undef REASON
	NR_WATCH_REASONS,
};

enum watch_event {
#define FIELD(event, type, text, name)
#define EVENT(name, fmt, args, fields) EV_##name,
#include "events.def"
#undef EVENT
#undef FIELD
	NR_WATCH_EVENTS,
	/* anykvm's own: in rings only. */
	EV_insn = NR_WATCH_EVENTS,
	EV_sample,
	EV_cpuid,
};

/* Linux's ids of trace events are the running kernel's; these are in our own files. */
#define WATCH_EVENT_ID(id) (1000 + (id))

/* What each of Linux's trace entries begins with. */
struct watch_common {
	uint16_t type; /* WATCH_EVENT_ID() */
	uint8_t flags, preempt_count;
	int32_t pid; /* the thread */
};

#define FIELD(event, ctype, text, name) ctype name;
#define EVENT(name, fmt, args, fields) \
	struct ev_##name {             \
		struct watch_common c; \
		fields                 \
	} __attribute__((aligned(8)));
#include "events.def"
#undef EVENT
#undef FIELD

/* Before an instruction of the window. */
struct ev_insn {
	struct watch_common c;
	uint32_t vcpu_id, nr_bytes;
	uint64_t retired, rip, rflags, cr3, gpr[16];
	uint8_t bytes[16];
};

#define WATCH_MAX_FRAMES 64
struct ev_sample {
	struct watch_common c;
	uint32_t vcpu_id, nr, cpl, unused;
	uint64_t cr3, rip[WATCH_MAX_FRAMES]; /* innermost first */
};

/* kvm_exit for CPUID, kvm_cpuid and kvm_entry, of an exit that had no others. */
#define CPUID_EVENTS 3
struct ev_cpuid {
	struct watch_common c;
	uint64_t rip;
	uint32_t function, index, regs[4]; /* EAX to EDX */
	uint32_t took;	      /* ticks between the exit, whose time the record has, and the entry */
	uint32_t exit_reason; /* as kvm_exit has it */
};

#define WATCH_MAX_EVENT sizeof(struct ev_sample)

/*
 * Ahead of each event in a ring. Events are padded to multiples of 8 and lie in one piece: where there is no room for a
 * record before the ring's end, or one of size 0 lies there, the next one is at the ring's start.
 */
struct watch_record {
	uint64_t tsc;  /* the host's */
	uint32_t size; /* of the event */
	uint32_t unused;
};

struct watch_page {
	uint32_t magic, version;
	uint32_t pid, vcpu_id;
	uint32_t isa; /* 1: VMX, 2: SVM, as kvm_exit says it */
	uint32_t tsc_khz;
	uint64_t vm;	     /* inode of the vCPU's VM */
	uint64_t want_until; /* CLOCK_MONOTONIC ns: whoever looks on renews it; atomic */
	char elsewhere[48];  /* the session's file, if this page is not where the vCPU counts */
	uint32_t slot;	     /* in it */
	uint32_t
		counted; /* times of records are nanoseconds of a counted clock (kvm/vm/clock.h), pids are 1 + vCPU ids */
	struct watch_cost costs[NR_WATCH_REASONS];
	/* What an exit counts is in its cost and one line more: the last of stats, which is instructions, and the first of events. */
	uint64_t unused[-(NR_STATS_VCPU - 1) & 7];
	uint64_t stats[NR_STATS_VCPU];
	uint64_t events[NR_WATCH_EVENTS];
	/* The ring: bytes ever written and read, each side's own. */
	uint64_t head, tail;
	uint64_t lost;	 /* events */
	uint32_t waiter; /* futex: the vCPU waits for room */
};

_Static_assert(sizeof(struct watch_record) + sizeof(struct ev_cpuid) == 64, "one line");
_Static_assert(sizeof(struct watch_page) <= PAGE_SIZE, "one page");
_Static_assert(offsetof(struct watch_page, events) % 64 == 8 &&
		       STAT_VCPU_instructions == NR_STATS_VCPU - 1 && EV_kvm_msr < 7,
	       "what is frequent is in one line");

/* ---- sessions ---- */

#define WATCH_TRACE  BIT(0) /* events go to the rings */
#define WATCH_INSNS  BIT(1) /* instructions insn_from to insn_from + insn_count of each vCPU, too */
#define WATCH_SAMPLE BIT(2) /* sample_ns apart, where the guest is */

struct watch_session {
	uint32_t magic, version;
	uint32_t flags;
	uint32_t max_slots, next_slot; /* atomic */
	uint32_t depth;		       /* frames of a sample */
	uint64_t ring_size;	       /* a power of two */
	uint64_t events;	       /* bits of enum watch_event: those that go to the rings */
	uint64_t insn_from, insn_count;
	uint64_t sample_ns;
	uint32_t dropped; /* vCPUs that found no slot; atomic */
	uint32_t over;	  /* nobody reads any more */
	uint32_t asleep;  /* futex: the reader waits for a ring to fill to a quarter */
};

static inline uint64_t watch_session_size(const struct watch_session *s)
{
	return PAGE_SIZE + s->max_slots * (PAGE_SIZE + s->ring_size);
}

static inline struct watch_page *watch_slot(struct watch_session *s, uint32_t slot)
{
	return (void *)((char *)s + PAGE_SIZE + slot * (PAGE_SIZE + s->ring_size));
}

static inline uint8_t *watch_ring(struct watch_session *s, uint32_t slot)
{
	return (uint8_t *)watch_slot(s, slot) + PAGE_SIZE;
}

#endif
