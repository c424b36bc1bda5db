/* SPDX-License-Identifier: MIT */
/*
 * What a session may ask for beside events: the instructions of a window with their registers, and samples of where
 * the guest is.
 *
 * The window: the vCPU runs with a budget to its first instruction, and from there with a budget of one, telling
 * its registers before each. Samples: a timer of the VM's service thread raises a request, and whatever the guest is doing
 * then is looked up by the frame pointers on its stack.
 */
#include "kvm/vcpu/watch_internal.h"
#include "kvm/vm/private.h"
#include "silicon/mmu/mmu.h"

#include <string.h>

/* ---- the window ---- */

static bool read_virtual(struct vcpu *vcpu, gva_t addr, void *to, unsigned size)
{
	uint32_t flags;
	gpa_t gpa;

	while (size) {
		unsigned now = min((uint64_t)size, PAGE_SIZE - (addr & ~PAGE_MASK));

		if (!mmu_translate_debug(&vcpu->cpu, addr, &gpa, &flags) ||
		    vm_read_guest(vcpu->vm, gpa, to, now))
			return false;
		addr += now;
		to = (char *)to + now;
		size -= now;
	}
	return true;
}

static void record(struct vcpu *vcpu, unsigned id, const void *ev, uint32_t size)
{
	memcpy(watch_event_begin(vcpu, id, size, 0), ev, size);
	watch_event_end(vcpu, id, ev);
}

static unsigned read_code(struct vcpu *vcpu, uint8_t bytes[16])
{
	for (unsigned n = 15; n; n--)
		if (read_virtual(vcpu, vcpu_linear_rip(vcpu), bytes, n))
			return n;
	return 0;
}

static void tell(struct vcpu *vcpu)
{
	const struct cpu *cpu = &vcpu->cpu;
	struct ev_insn ev = {
		.c = watch_event_common(vcpu, EV_insn),
		.vcpu_id = vcpu->id,
		.retired = cpu->retired,
		.rip = cpu->rip,
		.rflags = cpu_rflags(cpu),
		.cr3 = cpu->cr3,
	};

	memcpy(ev.gpr, cpu->gpr, sizeof(ev.gpr));
	ev.nr_bytes = read_code(vcpu, ev.bytes);
	record(vcpu, EV_insn, &ev, sizeof(ev));
}

static enum cpu_exit_kind run_to(struct cpu *cpu, enum cpu_exit_kind (*run)(struct cpu *cpu),
				 uint64_t end)
{
	enum cpu_exit_kind kind;

	cpu->budget_end = end;
	cpu_raise(cpu, ATTN_BUDGET);
	kind = run(cpu);
	cpu_lower(cpu, ATTN_BUDGET);
	return kind;
}

bool watch_insn_step(struct vcpu *vcpu, enum cpu_exit_kind (*run)(struct cpu *cpu),
		     enum cpu_exit_kind *ret)
{
	const struct watch_session *s = vcpu->watch.session;
	struct cpu *cpu = &vcpu->cpu;

	if (cpu->retired >= s->insn_from + s->insn_count)
		return false;
	if (cpu->retired < s->insn_from) {
		*ret = run_to(cpu, run, s->insn_from);
		return true;
	}
	if (cpu->retired != vcpu->watch.told) {
		vcpu->watch.told = cpu->retired;
		tell(vcpu);
	}
	*ret = run_to(cpu, run, cpu->retired + 1);
	return true;
}

/* ---- samples ---- */

static void sample_due(struct service_timer *timer)
{
	struct vcpu_watch *w = container_of(timer, struct vcpu_watch, sample_timer);
	struct vcpu *vcpu = container_of(w, struct vcpu, watch);

	__atomic_store_n(&w->sample, true, __ATOMIC_RELAXED);
	if (__atomic_load_n(&vcpu->running, __ATOMIC_RELAXED) == VCPU_INSIDE)
		vcpu_request(vcpu, REQ_KICK);
	service_timer_arm(vcpu->vm->service, timer, timer->deadline + w->session->sample_ns);
}

void watch_sample_start(struct vcpu *vcpu)
{
	struct vcpu_watch *w = &vcpu->watch;

	if (!w->session || !(w->session->flags & WATCH_SAMPLE) || !vcpu->vm->service)
		return;
	w->sampling = true;
	w->sample_timer.expire = sample_due;
	service_timer_arm(vcpu->vm->service, &w->sample_timer,
			  clock_monotonic_ns(vcpu->vm) + w->session->sample_ns);
}

void watch_sample_stop(struct vcpu *vcpu)
{
	if (vcpu->watch.sampling)
		service_timer_stop(vcpu->vm->service, &vcpu->watch.sample_timer);
	vcpu->watch.sampling = false;
}

/* A frame of the 64-bit ABI: the caller's frame, the return address. Frames lie ever higher. */
static unsigned walk_frames(struct vcpu *vcpu, uint64_t *rip, unsigned room)
{
	uint64_t frame[2], at = vcpu->cpu.gpr[RBP];
	unsigned n = 0;

	while (n < room && !(at & 7) && at && read_virtual(vcpu, at, frame, sizeof(frame)) &&
	       frame[1]) {
		rip[n++] = frame[1];
		if (frame[0] <= at || frame[0] - at > 1 << 20)
			break;
		at = frame[0];
	}
	return n;
}

void watch_sample(struct vcpu *vcpu)
{
	struct vcpu_watch *w = &vcpu->watch;
	struct ev_sample ev;

	if (!w->session || !__atomic_exchange_n(&w->sample, false, __ATOMIC_RELAXED))
		return;
	ev = (struct ev_sample){
		.c = watch_event_common(vcpu, EV_sample),
		.vcpu_id = vcpu->id,
		.cpl = vcpu->cpu.mode.cpl,
		.cr3 = vcpu->cpu.cr3,
	};
	ev.rip[0] = vcpu_linear_rip(vcpu);
	ev.nr = 1;
	if (cpu_64bit(&vcpu->cpu))
		ev.nr += walk_frames(vcpu, ev.rip + 1,
				     min(w->session->depth, 0u + WATCH_MAX_FRAMES) - 1);
	record(vcpu, EV_sample, &ev, offsetof(struct ev_sample, rip) + ev.nr * sizeof(ev.rip[0]));
}
