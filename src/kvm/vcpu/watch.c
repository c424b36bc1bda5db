/* SPDX-License-Identifier: MIT */
/*
 * What a vCPU tells whoever watches it: counters in its page, events in its ring (watch.h).
 *
 * Whether somebody watches is looked up where the run loop comes round, and then cpu->platform becomes the watched
 * table, or the plain one again. Only the vCPU's thread writes, so counting takes no locked instruction; a reader may
 * see one counter ahead of another.
 */
#include "kvm/vcpu/probes.h"
#include "kvm/vcpu/watch_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- exits and entries ---- */

static const uint32_t codes[][2] = {
#define REASON(name, vmx, svm) [WATCH_##name] = {vmx, svm},
#include "reasons.def"
#undef REASON
};

uint32_t watch_reason_code(const struct vcpu *vcpu, enum watch_reason reason)
{
	return codes[reason][vcpu->watch.page->isa - 1];
}

void watch_open_told(struct vcpu *vcpu, enum watch_reason reason, uint64_t info1, uint64_t info2)
{
	struct vcpu_watch *w = &vcpu->watch;

	w->since = host_rdtsc();
	if (w->telling >> EV_kvm_exit & 1)
		watch_event_tell(vcpu, kvm_exit, w->since,
				 .exit_reason = watch_reason_code(vcpu, reason),
				 .guest_rip = vcpu->cpu.rip, .isa = w->page->isa, .info1 = info1,
				 .info2 = info2, .vcpu_id = vcpu->id);
}

static __noinline void entry(struct vcpu *vcpu, uint64_t tsc)
{
	const struct event *inject = &vcpu->cpu.inject;

	if (inject->valid && inject->type == EVENT_EXCEPTION)
		watch_event(vcpu, kvm_inj_exception, tsc, .exception = inject->vector,
			    .has_error = inject->has_error, .error_code = inject->error);
	watch_event(vcpu, kvm_entry, tsc, .vcpu_id = vcpu->id, .rip = vcpu->cpu.rip);
}

void watch_close_told(struct vcpu *vcpu)
{
	struct vcpu_watch *w = &vcpu->watch;
	uint64_t now = w->stands || w->telling ? host_rdtsc() : 0;

	if (w->stands)
		watch_clock_add(&w->clocks[w->reason], &w->page->costs[w->reason], now - w->since,
				&w->random);
	entry(vcpu, now);
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

static __noinline void open_by_exit(struct vcpu *vcpu, enum cpu_exit_kind kind)
{
	if ((unsigned)kind < ARRAY_SIZE(reasons_of))
		watch_open(vcpu, reasons_of[kind], 0, 0);
}

static __noinline enum cpu_exit_kind run_window(struct vcpu *vcpu,
						enum cpu_exit_kind (*run)(struct cpu *cpu))
{
	struct vcpu_watch *w = &vcpu->watch;
	enum cpu_exit_kind kind;

	w->stepping = watch_insn_step(vcpu, run, &kind);
	if (!w->stepping)
		kind = run(&vcpu->cpu);
	w->stepping = w->stepping && kind == CPU_EXIT_REQUEST;
	if (!w->stepping)
		open_by_exit(vcpu, kind);
	return kind;
}

enum cpu_exit_kind vcpu_watch_run(struct vcpu *vcpu, enum cpu_exit_kind (*run)(struct cpu *cpu))
{
	struct vcpu_watch *w = &vcpu->watch;
	enum cpu_exit_kind kind;

	if (likely(w->open))
		watch_close(vcpu);
	else if (!w->stepping)
		entry(vcpu, 0);
	if (unlikely(w->window))
		return run_window(vcpu, run);
	kind = run(&vcpu->cpu);
	if (unlikely(!w->open))
		open_by_exit(vcpu, kind);
	return kind;
}

void vcpu_watch_read(struct vcpu *vcpu, bool port, uint64_t addr, unsigned size, unsigned count,
		     uint64_t val)
{
	if (port)
		watch_event(vcpu, kvm_pio, 0, .port = addr, .size = size, .count = count,
			    .val = val);
	else
		watch_event(vcpu, kvm_mmio, 0, .type = 1, .len = size, .gpa = addr, .val = val);
}

void vcpu_watch_return(struct vcpu *vcpu, int result)
{
	watch_event(vcpu, kvm_userspace_exit, 0, .reason = vcpu->run->exit_reason,
		    .errno_ = result < 0 ? -result : 0);
}

void vcpu_watch_woken(struct vcpu *vcpu, uint64_t ns)
{
	watch_event(vcpu, kvm_vcpu_wakeup, 0, .ns = ns, .waited = true, .valid = true);
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
		watch_add(&w->page->stats[STAT_VCPU_instructions], vcpu->cpu.retired - w->counted);
}

/*
 * Copies that few guest instructions and returns from KVM_RUN would change are left out, but not many in a row. A session is told
 * the instructions in any case, for its program may end at any time.
 */
#define STATS_INSTRUCTIONS 4096
#define STATS_RETURNS	   64

void vcpu_watch_stats_soon(struct vcpu *vcpu)
{
	struct vcpu_watch *w = &vcpu->watch;
	const uint64_t *values = stats_values(vcpu->stats);

	if (vcpu->cpu.retired - w->copied < STATS_INSTRUCTIONS && ++w->skipped < STATS_RETURNS) {
		if (w->session && values)
			__atomic_store_n(&w->page->stats[STAT_VCPU_instructions],
					 values[STAT_VCPU_instructions], __ATOMIC_RELAXED);
		return;
	}
	w->copied = vcpu->cpu.retired;
	w->skipped = 0;
	vcpu_watch_stats(vcpu);
}

/* Whoever looks on says until when. While that is so, the clock is asked only now and then. */
#define LOOKS 64

static bool wanted(struct vcpu_watch *w)
{
	uint64_t until;

	if (!w->page)
		return false;
	if (w->session || probes_wanted())
		return true;
	until = __atomic_load_n(&w->page->want_until, __ATOMIC_RELAXED);
	if (likely(!until))
		return false;
	return (w->on && ++w->looks % LOOKS) || host_monotonic_ns() < until;
}

static uint64_t telling(const struct vcpu_watch *w)
{
	if (probes_wanted())
		return BIT(NR_WATCH_EVENTS) - 1;
	return w->ring ? w->session->events : 0;
}

bool vcpu_watch_changed(struct vcpu *vcpu)
{
	struct vcpu_watch *w = &vcpu->watch;

	return wanted(w) != w->on || (w->on && telling(w) != w->telling);
}

static void turn_on(struct vcpu *vcpu)
{
	struct vcpu_watch *w = &vcpu->watch;

	watch_platform(&w->platform);
	vcpu->cpu.platform = &w->platform;
	w->touched = calloc(WATCH_CHUNKS, sizeof(*w->touched));
	w->random = host_rdtsc() | 1;
	watch_sample_start(vcpu);
}

static void turn_off(struct vcpu *vcpu)
{
	vcpu->cpu.platform = &vcpu_platform;
	watch_forget_touched(&vcpu->watch);
	watch_sample_stop(vcpu);
}

void vcpu_watch_look(struct vcpu *vcpu)
{
	struct vcpu_watch *w = &vcpu->watch;
	bool on = wanted(w);

	if (likely(!on && !w->on))
		return;
	w->telling = telling(w);
	if (!w->session)
		vcpu_watch_stats_soon(vcpu);
	if (likely(on == w->on))
		return;
	vcpu_watch_stats(vcpu);
	w->on = on;
	w->open = false;
	if (on)
		turn_on(vcpu);
	else
		turn_off(vcpu);
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
		w->window = session->flags & WATCH_INSNS;
		w->ring = session->flags ? watch_ring(session, slot) : NULL;
		if (w->ring)
			host_pages_populate(w->ring, session->ring_size);
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
