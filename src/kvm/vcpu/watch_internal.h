/* SPDX-License-Identifier: MIT */
/*
 * Private to watch*.c. vCPU thread.
 *
 * What only counts is inline and touches the page alone: exits are counted in 2 or 3 ns. The clock is looked at for those
 * that are timed (watch_clock.h), or if an event is told.
 */
#ifndef KVM_VCPU_WATCH_INTERNAL_H
#define KVM_VCPU_WATCH_INTERNAL_H

#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/vcpu/watch.h"

#include <string.h>

/* watch_ops.c: vcpu_platform, watched. */
void watch_platform(struct platform *ret);

#define WATCH_CHUNKS 4096
/* Pages told of are told of again. */
void watch_forget_touched(struct vcpu_watch *w);

/* ---- events: watch_ring.c ---- */

/*
 * Room for an event of size bytes, to be filled in before watch_event_end(): in the ring if it goes there, else where only probes
 * look. tsc: when, or 0 for now.
 */
void *watch_event_begin(struct vcpu *vcpu, unsigned id, uint32_t size, uint64_t tsc);
void watch_event_end(struct vcpu *vcpu, unsigned id, const void *ev);

static inline struct watch_common watch_event_common(const struct vcpu *vcpu, unsigned id)
{
	return (struct watch_common){
		.type = WATCH_EVENT_ID(id),
		.pid = vcpu->watch.page->counted ? 1 + (int32_t)vcpu->id : vcpu->tid,
	};
}

/* Count an event. True: somebody wants its details. */
static inline bool watch_event_count(struct vcpu *vcpu, enum watch_event id)
{
	watch_add(&vcpu->watch.page->events[id], 1);
	return unlikely(vcpu->watch.telling >> id & 1);
}

/* Tell an event of that name: the fields follow as initializers. Padding is 0: traces can be compared byte by byte. */
#define watch_event_tell(vcpu, name, tsc, ...)                                                     \
	do {                                                                                       \
		struct ev_##name *event = watch_event_begin(vcpu, EV_##name, sizeof(*event), tsc); \
                                                                                                   \
		memset(event, 0, sizeof(*event));                                                  \
		*event = (struct ev_##name){.c = watch_event_common(vcpu, EV_##name),              \
					    ##__VA_ARGS__};                                        \
		watch_event_end(vcpu, EV_##name, event);                                           \
	} while (0)

/* Count it, and tell it if somebody wants its details: only then the fields are made. */
#define watch_event(vcpu, name, tsc, ...)                               \
	do {                                                            \
		if (watch_event_count(vcpu, EV_##name))                 \
			watch_event_tell(vcpu, name, tsc, __VA_ARGS__); \
	} while (0)

/* ---- exits and entries: watch.c ---- */

/* What kvm_exit calls it, as VMX or SVM do. */
uint32_t watch_reason_code(const struct vcpu *vcpu, enum watch_reason reason);
void watch_open_told(struct vcpu *vcpu, enum watch_reason reason, uint64_t info1, uint64_t info2);
void watch_close_told(struct vcpu *vcpu);

/*
 * Guest code is left for that reason: kvm_exit, and the clock may run. Returns when, for events that are told at once; 0 if that
 * is not known, for it was left before or nobody asks.
 */
static inline uint64_t watch_open(struct vcpu *vcpu, enum watch_reason reason, uint64_t info1,
				  uint64_t info2)
{
	struct vcpu_watch *w = &vcpu->watch;

	if (w->open)
		return 0;
	w->open = true;
	w->reason = reason;
	w->stands = watch_clock_due(&w->clocks[reason]);
	watch_add(&w->page->costs[reason].count, 1);
	watch_add(&w->page->events[EV_kvm_exit], 1);
	if (likely(!w->stands && !w->telling))
		return 0;
	watch_open_told(vcpu, reason, info1, info2);
	return w->since;
}

/* It goes on: kvm_entry. Nothing if it was not left. */
static inline void watch_close(struct vcpu *vcpu)
{
	struct vcpu_watch *w = &vcpu->watch;

	if (!w->open)
		return;
	w->open = false;
	if (unlikely(w->stands || w->telling || vcpu->cpu.inject.valid))
		watch_close_told(vcpu);
	else
		watch_add(&w->page->events[EV_kvm_entry], 1);
}

/* One more exit for that reason that is over, with its event. */
static inline void watch_count_whole(struct watch_page *page, enum watch_reason reason,
				     enum watch_event id)
{
	watch_add(&page->costs[reason].count, 1);
	watch_add(&page->events[EV_kvm_exit], 1);
	watch_add(&page->events[id], 1);
	watch_add(&page->events[EV_kvm_entry], 1);
}

/*
 * An exit that is only counted, with its event: it is neither timed nor told, and the guest goes on behind it in any case. False if
 * there is more to do, and nothing is done then.
 */
static inline bool watch_pass(struct vcpu *vcpu, enum watch_reason reason, enum watch_event id)
{
	struct vcpu_watch *w = &vcpu->watch;

	if (unlikely(w->telling || w->open || !watch_clock_pass(&w->clocks[reason])))
		return false;
	watch_count_whole(w->page, reason, id);
	return true;
}

/* ---- watch_insn.c ---- */

/* Log one instruction, if the window is open: true if it was and the vCPU stands behind it. */
bool watch_insn_step(struct vcpu *vcpu, enum cpu_exit_kind (*run)(struct cpu *cpu),
		     enum cpu_exit_kind *ret);
/* A sample is due: take it. */
void watch_sample(struct vcpu *vcpu);
void watch_sample_start(struct vcpu *vcpu);
void watch_sample_stop(struct vcpu *vcpu);

#endif
