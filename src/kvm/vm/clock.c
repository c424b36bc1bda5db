/* SPDX-License-Identifier: MIT */
/*
 * The clock of a VM and kvmclock's line through it (KVM api.rst, KVM_GET_CLOCK and KVM_SET_CLOCK;
 * the pvclock ABI of Linux's Documentation/virt/kvm/x86/msr.rst).
 *
 * Host time is read here and nowhere else, or none is: a counted clock is made of retired instructions, one of which
 * is a nanosecond and a tick (docs/deterministic.md).
 */
#include "kvm/vm/clock.h"
#include "kvm/vm/ioctl.h"
#include "kvm/vm/vm.h"

#include <stdlib.h>

#define CLOCK_FLAGS (KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC)

#define COUNTED_KHZ	 1000000ull		      /* a tick per nanosecond */
#define COUNTED_START	 1000000000ull		      /* not 0, which some take for "never" */
#define COUNTED_REALTIME (1767225600 * 1000000000ull) /* at count 0: 1 January 2026 */

struct clock {
	pthread_mutex_t lock; /* all of it */
	struct clock_line line;
	struct {
		uint64_t ns, val, offset; /* of the last write */
		uint64_t begun_offset;	  /* of the first one of the generation */
		uint32_t khz;
		uint32_t generation;
		unsigned others; /* vCPUs that are in it, but the one that began it */
		bool by_program;
	} tsc;
	bool counted;
	uint64_t base;		 /* counted: lock; ns, plus: */
	const uint64_t *retired; /* the count that time goes by; NULL: it stands */
};

void clock_scale(uint64_t khz, uint32_t *ret_mul, int8_t *ret_shift)
{
	uint64_t hz = khz * 1000, ns = 1000000000ull;
	int shift = 0;

	/* Shift the frequency to where the ratio is within [1/2, 1), the most digits of mul. */
	while (hz > ns * 2) {
		hz >>= 1;
		shift--;
	}
	while (hz <= ns) {
		hz <<= 1;
		shift++;
	}
	*ret_mul = ((unsigned __int128)ns << 32) / hz;
	*ret_shift = shift;
}

static uint64_t scale(const struct clock_line *line, uint64_t cycles)
{
	cycles = line->shift >= 0 ? cycles << line->shift : cycles >> -line->shift;
	return ((unsigned __int128)cycles * line->mul) >> 32;
}

static uint64_t line_ns(const struct clock_line *line, uint64_t tsc)
{
	return line->base_ns + scale(line, tsc - line->base_tsc);
}

static uint64_t count_locked(const struct clock *clock)
{
	const uint64_t *retired = clock->retired;

	return clock->base + (retired ? __atomic_load_n(retired, __ATOMIC_RELAXED) : 0);
}

static uint64_t count(struct clock *clock)
{
	uint64_t now;

	pthread_mutex_lock(&clock->lock);
	now = count_locked(clock);
	pthread_mutex_unlock(&clock->lock);
	return now;
}

static uint64_t ticks(struct clock *clock)
{
	return clock->counted ? count(clock) : host_rdtsc();
}

struct clock *clock_create(bool counted)
{
	struct clock *clock = calloc(1, sizeof(*clock));

	if (!clock)
		return NULL;
	pthread_mutex_init(&clock->lock, NULL);
	clock->counted = counted;
	clock->base = COUNTED_START;
	clock_scale(counted ? COUNTED_KHZ : host_tsc_khz(), &clock->line.mul, &clock->line.shift);
	clock->line.base_tsc = ticks(clock);
	return clock;
}

void clock_follow(struct vm *vm, const uint64_t *retired)
{
	struct clock *clock = vm->clock;

	pthread_mutex_lock(&clock->lock);
	clock->base = count_locked(clock) - (retired ? *retired : 0);
	clock->retired = retired;
	pthread_mutex_unlock(&clock->lock);
}

void clock_jump(struct vm *vm, uint64_t ns)
{
	struct clock *clock = vm->clock;

	pthread_mutex_lock(&clock->lock);
	clock->base = max(clock->base, ns);
	pthread_mutex_unlock(&clock->lock);
}

uint64_t clock_tsc_khz(const struct vm *vm)
{
	return vm->clock->counted ? COUNTED_KHZ : host_tsc_khz();
}

void clock_destroy(struct clock *clock)
{
	free(clock);
}

uint64_t clock_tsc(const struct vm *vm)
{
	return ticks(vm->clock);
}

uint64_t clock_monotonic_ns(const struct vm *vm)
{
	return vm->clock->counted ? count(vm->clock) : host_monotonic_ns();
}

void clock_line(const struct vm *vm, struct clock_line *ret)
{
	pthread_mutex_lock(&vm->clock->lock);
	*ret = vm->clock->line;
	pthread_mutex_unlock(&vm->clock->lock);
}

uint64_t clock_kvmclock_ns(const struct vm *vm)
{
	struct clock_line line;

	clock_line(vm, &line);
	return line_ns(&line, ticks(vm->clock));
}

uint64_t clock_boot_wall_ns(const struct vm *vm)
{
	uint64_t tsc, realtime;
	struct clock_line line;

	clock_line(vm, &line);
	clock_pair(vm, &tsc, &realtime);
	return realtime - line_ns(&line, tsc);
}

void clock_pair(const struct vm *vm, uint64_t *ret_tsc, uint64_t *ret_realtime_ns)
{
	if (!vm->clock->counted) {
		host_clock_pair(ret_tsc, ret_realtime_ns);
		return;
	}
	*ret_tsc = count(vm->clock);
	*ret_realtime_ns = COUNTED_REALTIME + *ret_tsc;
}

/* ---- TSCs in step ---- */

static bool is_near(const struct clock *clock, const struct clock_tsc_write *write, uint64_t now)
{
	uint64_t second = write->khz * 1000ull;
	uint64_t expected =
		clock->tsc.val + (unsigned __int128)(now - clock->tsc.ns) * write->khz / 1000000;

	return write->val < expected + second && write->val + second > expected;
}

static bool joins(const struct clock *clock, const struct clock_tsc_write *write, uint64_t now)
{
	if (write->khz != clock->tsc.khz)
		return false;
	if (write->exact)
		return write->offset == clock->tsc.offset;
	return !write->val || (clock->tsc.by_program && is_near(clock, write, now));
}

uint64_t clock_tsc_write(struct vm *vm, const struct clock_tsc_write *write, uint32_t *generation)
{
	uint64_t now = clock_monotonic_ns(vm), offset = write->offset;
	struct clock *clock = vm->clock;

	pthread_mutex_lock(&clock->lock);
	if (!joins(clock, write, now)) {
		clock->tsc.generation++;
		clock->tsc.begun_offset = offset;
		clock->tsc.others = 0;
	} else {
		if (!write->exact)
			offset = clock->tsc.begun_offset;
		clock->tsc.others += *generation != clock->tsc.generation;
	}
	*generation = clock->tsc.generation;
	clock->tsc.val = write->val;
	clock->tsc.ns = now;
	clock->tsc.offset = offset;
	clock->tsc.khz = write->khz;
	clock->tsc.by_program |= write->by_program;
	pthread_mutex_unlock(&clock->lock);
	return offset;
}

bool clock_tsc_in_step(const struct vm *vm)
{
	unsigned nr = vm_nr_vcpus(vm);
	bool all;

	pthread_mutex_lock(&vm->clock->lock);
	all = vm->clock->tsc.others + 1 >= nr;
	pthread_mutex_unlock(&vm->clock->lock);
	return all;
}

/* ---- ioctls ---- */

long vm_get_clock(struct vm *vm, void *arg)
{
	struct kvm_clock_data *data = arg;
	uint64_t tsc, realtime;
	struct clock_line line;

	clock_line(vm, &line);
	*data = (struct kvm_clock_data){.flags = KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC};
	if (clock_tsc_in_step(vm))
		data->flags |= KVM_CLOCK_TSC_STABLE;
	clock_pair(vm, &tsc, &realtime);
	data->realtime = realtime;
	data->host_tsc = tsc;
	data->clock = line_ns(&line, data->host_tsc);
	return 0;
}

long vm_set_clock(struct vm *vm, void *arg)
{
	struct kvm_clock_data *data = arg;
	struct clock *clock = vm->clock;
	uint64_t now, tsc;

	if (data->flags & ~CLOCK_FLAGS)
		return -EINVAL;
	/* A vCPU that has the new line and one that has the old one would see time go back. */
	vm->ops->hold_all(vm, true);
	clock_pair(vm, &tsc, &now);
	/* Time that passed since the saved moment; never backwards. */
	if (data->flags & KVM_CLOCK_REALTIME && now > data->realtime)
		data->clock += now - data->realtime;
	pthread_mutex_lock(&clock->lock);
	clock->line.base_tsc = tsc;
	clock->line.base_ns = data->clock;
	pthread_mutex_unlock(&clock->lock);
	vm->ops->request_all(vm, VM_REQUEST_CLOCK, false);
	vm->ops->hold_all(vm, false);
	return 0;
}
