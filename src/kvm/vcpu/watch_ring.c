/* SPDX-License-Identifier: MIT */
/*
 * A session's ring: events are made where they will be read (watch.h has the layout), and shown by moving the ring's head.
 *
 * The reader's side is looked at once in a quarter of the ring; a reader that is so far behind is woken, so it need not look
 * often itself. A full ring is waited for at most a second; after that events are dropped, and counted, until the reader
 * has made room.
 */
#include "kvm/vcpu/probes.h"
#include "kvm/vcpu/watch_internal.h"

#define RING_PATIENCE_NS 1000000000ull

static void wake_reader(struct watch_session *session)
{
	if (__atomic_load_n(&session->asleep, __ATOMIC_RELAXED) &&
	    __atomic_exchange_n(&session->asleep, 0, __ATOMIC_SEQ_CST))
		host_futex_wake_shared(&session->asleep, 1);
}

/* The ring may be written up to end. */
static bool look_for_room(struct vcpu_watch *w, uint64_t end)
{
	uint64_t tail = __atomic_load_n(&w->page->tail, __ATOMIC_ACQUIRE);
	uint64_t size = w->session->ring_size;

	w->room_until = min(tail + size, end + size / 4);
	if (end - tail >= size / 4)
		wake_reader(w->session);
	return end <= tail + size;
}

/* True once there is room. A reader that is gone is waited for only once. */
static bool wait_for_room(struct vcpu_watch *w, uint64_t end)
{
	uint64_t patience = host_monotonic_ns() + RING_PATIENCE_NS;

	while (!look_for_room(w, end)) {
		if (w->impatient || __atomic_load_n(&w->session->over, __ATOMIC_RELAXED))
			return false;
		__atomic_store_n(&w->page->waiter, 1, __ATOMIC_SEQ_CST);
		if (look_for_room(w, end))
			break;
		host_futex_wait_shared(&w->page->waiter, 1, RING_PATIENCE_NS / 50);
		w->impatient = host_monotonic_ns() > patience;
	}
	w->impatient = false;
	return true;
}

/* The next record, need bytes of it; NULL if the reader makes no room. */
static struct watch_record *next_record(struct vcpu_watch *w, uint32_t need)
{
	uint64_t head = w->page->head, size = w->session->ring_size, pos = head & (size - 1);
	uint64_t skip = size - pos < need ? size - pos : 0, end = head + skip + need;

	if (unlikely(end > w->room_until) && !look_for_room(w, end) && !wait_for_room(w, end))
		return NULL;
	w->end = end;
	if (likely(!skip))
		return (void *)(w->ring + pos);
	if (skip >= sizeof(struct watch_record))
		((struct watch_record *)(w->ring + pos))->size = 0;
	return (void *)w->ring;
}

static uint64_t time_of(const struct vcpu *vcpu, uint64_t tsc)
{
	if (vcpu->watch.page->counted)
		return clock_monotonic_ns(vcpu->vm);
	return tsc ? tsc : host_rdtsc();
}

static bool for_ring(const struct vcpu_watch *w, unsigned id)
{
	return w->ring && (id >= NR_WATCH_EVENTS || w->session->events >> id & 1);
}

void *watch_event_begin(struct vcpu *vcpu, unsigned id, uint32_t size, uint64_t tsc)
{
	struct vcpu_watch *w = &vcpu->watch;
	struct watch_record *record;

	w->end = 0;
	if (!for_ring(w, id))
		return w->scratch;
	record = next_record(w, sizeof(*record) + ALIGN_UP(size, 8u));
	if (!record) {
		watch_add(&w->page->lost, id == EV_cpuid ? CPUID_EVENTS : 1);
		return w->scratch;
	}
	*record = (struct watch_record){.tsc = time_of(vcpu, tsc), .size = size};
	return record + 1;
}

void watch_event_end(struct vcpu *vcpu, unsigned id, const void *ev)
{
	struct vcpu_watch *w = &vcpu->watch;

	if (probes_wanted() && id < NR_WATCH_EVENTS)
		probes_fire(id, ev);
	if (w->end)
		__atomic_store_n(&w->page->head, w->end, __ATOMIC_RELEASE);
}
