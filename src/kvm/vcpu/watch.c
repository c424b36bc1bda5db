/* SPDX-License-Identifier: MIT */
/*
 * What a vCPU tells whoever watches it: counters in its page, events in its ring (watch.h).
 *
 * Whether somebody watches is looked up where the run loop comes round, and then cpu->platform becomes the watched
 * table, or the plain one again. Only the vCPU's thread writes, so counting takes no locked instruction; a reader may
 * see one counter ahead of another. A full ring is waited for at most a second; after that events are dropped, and
 * counted, until the reader has made room.
 */
#include "kvm/vcpu/probes.h"
#include "kvm/vcpu/watch_internal.h"

#include <stdlib.h>
#include <string.h>

#define RING_PATIENCE_NS 1000000000ull

/* Linux's ids of trace events are the running kernel's; these are in our own files. */
#define EVENT_ID(id) (1000 + (id))

/* ---- counting ---- */

static void add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static void cost_time(struct watch_cost *cost, uint64_t ticks)
{
	if (!cost->timed || ticks < cost->min)
		__atomic_store_n(&cost->min, ticks, __ATOMIC_RELAXED);
	if (ticks > cost->max)
		__atomic_store_n(&cost->max, ticks, __ATOMIC_RELAXED);
	add(&cost->timed, 1);
	add(&cost->ticks, ticks);
}

/* ---- the ring ---- */

/* The reader's side is looked at only when the room that it left is used up. */
static bool has_room(struct vcpu_watch *w, uint32_t need)
{
	uint64_t end = w->page->head + need;

	if (unlikely(end > w->room_until))
		w->room_until =
			__atomic_load_n(&w->page->tail, __ATOMIC_ACQUIRE) + w->session->ring_size;
	return end <= w->room_until;
}

/* True once there is room. A reader that is gone is waited for only once. */
static bool wait_for_room(struct vcpu_watch *w, uint32_t need)
{
	uint64_t patience = host_monotonic_ns() + RING_PATIENCE_NS;

	while (!has_room(w, need)) {
		if (w->impatient || __atomic_load_n(&w->session->over, __ATOMIC_RELAXED))
			return false;
		__atomic_store_n(&w->page->waiter, 1, __ATOMIC_SEQ_CST);
		host_futex_wait(&w->page->waiter, 1, RING_PATIENCE_NS / 50);
		w->impatient = host_monotonic_ns() > patience;
	}
	w->impatient = false;
	return true;
}

typedef uint64_t __attribute__((may_alias)) word_t;

/* 8 bytes at a time: events are short, and a string instruction takes as long as all else here. */
static void put(struct vcpu_watch *w, uint64_t at, const void *from, uint32_t size)
{
	uint64_t mask = w->session->ring_size - 1;
	const word_t *word = from;

	for (uint32_t i = 0; i < size; i += 8)
		__atomic_store_n((word_t *)(w->ring + ((at + i) & mask)), *word++,
				 __ATOMIC_RELAXED);
}

static uint64_t time_of(const struct vcpu *vcpu, uint64_t tsc)
{
	if (vcpu->watch.page->counted)
		return clock_monotonic_ns(vcpu->vm);
	return tsc ? tsc : host_rdtsc();
}

void watch_record(struct vcpu *vcpu, unsigned id, void *ev, uint32_t size, uint64_t tsc)
{
	struct vcpu_watch *w = &vcpu->watch;
	struct watch_record record = {.size = size};
	uint32_t need = sizeof(record) + ALIGN_UP(size, 8u);
	struct watch_common *common = ev;
	uint64_t head;

	if (!w->ring)
		return;
	*common = (struct watch_common){
		.type = EVENT_ID(id),
		.pid = w->page->counted ? 1 + (int32_t)vcpu->id : vcpu->tid,
	};
	record.tsc = time_of(vcpu, tsc);
	if (!has_room(w, need) && !wait_for_room(w, need)) {
		add(&w->page->lost, 1);
		return;
	}
	head = w->page->head;
	put(w, head, &record, sizeof(record));
	put(w, head + sizeof(record), ev, need - sizeof(record));
	__atomic_store_n(&w->page->head, head + need, __ATOMIC_RELEASE);
}

void watch_event_at(struct vcpu *vcpu, enum watch_event id, void *ev, uint32_t size, uint64_t tsc)
{
	struct vcpu_watch *w = &vcpu->watch;

	add(&w->page->events[id], 1);
	if (probes_wanted())
		probes_fire(id, ev);
	if (w->ring && w->session->events >> id & 1)
		watch_record(vcpu, id, ev, size, tsc);
}

/* ---- exits and entries ---- */

static const uint32_t codes[][2] = {
#define REASON(name, vmx, svm) [WATCH_##name] = {vmx, svm},
#include "reasons.def"
#undef REASON
};

void watch_open(struct vcpu *vcpu, enum watch_reason reason, uint64_t info1, uint64_t info2)
{
	struct vcpu_watch *w = &vcpu->watch;
	struct ev_kvm_exit ev = {
		.exit_reason = codes[reason][w->page->isa - 1],
		.guest_rip = vcpu->cpu.rip,
		.isa = w->page->isa,
		.info1 = info1,
		.info2 = info2,
		.vcpu_id = vcpu->id,
	};

	if (w->open)
		return;
	w->open = true;
	w->reason = reason;
	w->since = host_rdtsc();
	add(&w->page->costs[reason].count, 1);
	watch_event_at(vcpu, EV_kvm_exit, &ev, sizeof(ev), w->since);
}

static void inject(struct vcpu *vcpu, uint64_t tsc)
{
	const struct event *inject = &vcpu->cpu.inject;
	struct ev_kvm_inj_exception ev = {
		.exception = inject->vector,
		.has_error = inject->has_error,
		.error_code = inject->error,
	};

	if (inject->valid && inject->type == EVENT_EXCEPTION)
		watch_event_at(vcpu, EV_kvm_inj_exception, &ev, sizeof(ev), tsc);
}

static void entry(struct vcpu *vcpu, uint64_t tsc)
{
	struct ev_kvm_entry ev = {.vcpu_id = vcpu->id, .rip = vcpu->cpu.rip};

	inject(vcpu, tsc);
	watch_event_at(vcpu, EV_kvm_entry, &ev, sizeof(ev), tsc);
}

void watch_close(struct vcpu *vcpu)
{
	struct vcpu_watch *w = &vcpu->watch;
	uint64_t now;

	if (!w->open)
		return;
	w->open = false;
	now = host_rdtsc();
	cost_time(&w->page->costs[w->reason], now - w->since);
	entry(vcpu, now);
}

void watch_more_time(struct vcpu *vcpu, enum watch_reason reason, uint64_t since)
{
	struct watch_cost *cost = &vcpu->watch.page->costs[reason];
	uint64_t ticks = host_rdtsc() - since;

	add(&cost->ticks, ticks);
	if (ticks > cost->max)
		__atomic_store_n(&cost->max, ticks, __ATOMIC_RELAXED);
}

/* What cpu_run() came back with, where no platform operation has said it before. */
static const uint8_t reasons_of[] = {
	[CPU_EXIT_REQUEST] = WATCH_EXTERNAL_INTERRUPT,
	[CPU_EXIT_HLT] = WATCH_HLT,
	[CPU_EXIT_MMIO_READ] = WATCH_MMIO,
	[CPU_EXIT_IO_READ] = WATCH_IO_INSTRUCTION,
	[CPU_EXIT_WRITES] = WATCH_MMIO,
	[CPU_EXIT_MSR_READ] = WATCH_MSR_READ,
	[CPU_EXIT_MSR_WRITE] = WATCH_MSR_WRITE,
	[CPU_EXIT_HYPERCALL] = WATCH_HYPERCALL,
	[CPU_EXIT_SHUTDOWN] = WATCH_TRIPLE_FAULT,
	[CPU_EXIT_DEBUG] = WATCH_EXCEPTION,
	[CPU_EXIT_EMULATION] = WATCH_EXCEPTION,
	[CPU_EXIT_MEMORY] = WATCH_PAGE_FAULT,
};

enum cpu_exit_kind vcpu_watch_run(struct vcpu *vcpu, enum cpu_exit_kind (*run)(struct cpu *cpu))
{
	struct vcpu_watch *w = &vcpu->watch;
	enum cpu_exit_kind kind;

	if (w->open)
		watch_close(vcpu);
	else if (!w->stepping)
		entry(vcpu, 0);
	w->stepping = w->session && watch_insn_step(vcpu, run, &kind);
	if (!w->stepping)
		kind = run(&vcpu->cpu);
	w->stepping = w->stepping && kind == CPU_EXIT_REQUEST;
	if (w->stepping)
		return kind;
	if ((unsigned)kind < ARRAY_SIZE(reasons_of))
		watch_open(vcpu, reasons_of[kind], 0, 0);
	return kind;
}

void vcpu_watch_read(struct vcpu *vcpu, bool port, uint64_t addr, unsigned size, unsigned count,
		     uint64_t val)
{
	struct ev_kvm_pio pio = {.port = addr, .size = size, .count = count, .val = val};
	struct ev_kvm_mmio mmio = {.type = 1, .len = size, .gpa = addr, .val = val};

	if (port)
		watch_event(vcpu, EV_kvm_pio, &pio, sizeof(pio));
	else
		watch_event(vcpu, EV_kvm_mmio, &mmio, sizeof(mmio));
}

void vcpu_watch_return(struct vcpu *vcpu, int result)
{
	struct ev_kvm_userspace_exit ev = {
		.reason = vcpu->run->exit_reason,
		.errno_ = result < 0 ? -result : 0,
	};

	watch_event(vcpu, EV_kvm_userspace_exit, &ev, sizeof(ev));
}

void vcpu_watch_woken(struct vcpu *vcpu, uint64_t ns)
{
	struct ev_kvm_vcpu_wakeup ev = {.ns = ns, .waited = true, .valid = true};

	watch_event(vcpu, EV_kvm_vcpu_wakeup, &ev, sizeof(ev));
}

/* ---- on and off ---- */

void vcpu_watch_stats(struct vcpu *vcpu)
{
	struct vcpu_watch *w = &vcpu->watch;
	const uint64_t *values = stats_values(vcpu->stats);

	if (!w->page || !values)
		return;
	for (unsigned i = 0; i < NR_STATS_VCPU; i++)
		__atomic_store_n(&w->page->stats[i], values[i], __ATOMIC_RELAXED);
	if (vcpu->running != VCPU_OUTSIDE)
		add(&w->page->stats[STAT_VCPU_instructions], vcpu->cpu.retired - w->counted);
}

/*
 * Copies that few guest instructions and returns from KVM_RUN would change are left out, but not many in a row. A session is told
 * all, for its program may end at any time.
 */
#define STATS_INSTRUCTIONS 4096
#define STATS_RETURNS	   16

void vcpu_watch_stats_soon(struct vcpu *vcpu)
{
	struct vcpu_watch *w = &vcpu->watch;

	if (!w->session && vcpu->cpu.retired - w->copied < STATS_INSTRUCTIONS &&
	    ++w->skipped < STATS_RETURNS)
		return;
	w->copied = vcpu->cpu.retired;
	w->skipped = 0;
	vcpu_watch_stats(vcpu);
}

static bool wanted(const struct vcpu_watch *w)
{
	uint64_t until;

	if (!w->page)
		return false;
	if (w->session || probes_wanted())
		return true;
	until = __atomic_load_n(&w->page->want_until, __ATOMIC_RELAXED);
	return unlikely(until) && host_monotonic_ns() < until;
}

bool vcpu_watch_changed(const struct vcpu *vcpu)
{
	return wanted(&vcpu->watch) != vcpu->watch.on;
}

void vcpu_watch_look(struct vcpu *vcpu)
{
	struct vcpu_watch *w = &vcpu->watch;
	bool on = wanted(w);

	if (on && !w->session)
		vcpu_watch_stats_soon(vcpu);
	if (likely(on == w->on))
		return;
	vcpu_watch_stats(vcpu);
	w->on = on;
	w->open = false;
	if (on)
		watch_platform(&w->platform);
	vcpu->cpu.platform = on ? &w->platform : &vcpu_platform;
	if (on) {
		w->touched = calloc(WATCH_CHUNKS, sizeof(*w->touched));
		watch_sample_start(vcpu);
	} else {
		watch_forget_touched(w);
		watch_sample_stop(vcpu);
	}
}

static uint32_t take_slot(struct watch_session *session)
{
	uint32_t slot = __atomic_fetch_add(&session->next_slot, 1, __ATOMIC_RELAXED);

	if (slot < session->max_slots)
		return slot;
	__atomic_fetch_add(&session->dropped, 1, __ATOMIC_RELAXED);
	return UINT32_MAX;
}

static void page_init(const struct vcpu *vcpu, struct watch_page *page)
{
	page->version = WATCH_VERSION;
	page->pid = vcpu->vm->pid;
	page->vcpu_id = vcpu->id;
	page->isa = model_intel(vcpu->cpu.model) ? 1 : 2;
	page->tsc_khz = host_tsc_khz();
	page->counted = vcpu->vm->turns != NULL;
	page->vm = vcpu->vm->inode;
	__atomic_store_n(&page->magic, WATCH_MAGIC, __ATOMIC_RELEASE);
}

void vcpu_watch_create(struct vcpu *vcpu, void *own, struct watch_session *session,
		       const char *session_path)
{
	struct vcpu_watch *w = &vcpu->watch;
	struct watch_page *page = own;
	uint32_t slot = session ? take_slot(session) : UINT32_MAX;

	w->page = page;
	w->told = UINT64_MAX;
	if (slot != UINT32_MAX) {
		strncpy(page->elsewhere, session_path, sizeof(page->elsewhere) - 1);
		page->slot = slot;
		w->session = session;
		w->page = watch_slot(session, slot);
		w->ring = session->flags ? watch_ring(session, slot) : NULL;
		page_init(vcpu, w->page);
	}
	page_init(vcpu, page);
}

void vcpu_watch_destroy(struct vcpu *vcpu)
{
	watch_sample_stop(vcpu);
	watch_forget_touched(&vcpu->watch);
	if (vcpu->watch.session)
		vcpu_watch_stats(vcpu);
}
