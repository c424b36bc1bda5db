/* SPDX-License-Identifier: MIT */
/*
 * The clock of a VM and kvmclock's line through it (KVM api.rst, KVM_GET_CLOCK and KVM_SET_CLOCK;
 * the pvclock ABI of Linux's Documentation/virt/kvm/x86/msr.rst).
 */
#include "kvm/vm/clock.h"
#include "kvm/vm/ioctl.h"
#include "kvm/vm/vm.h"

#include <stdlib.h>

#define CLOCK_FLAGS (KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC)

struct clock {
	pthread_mutex_t lock;
	struct clock_line line;
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

struct clock *clock_create(void)
{
	struct clock *clock = calloc(1, sizeof(*clock));

	if (!clock)
		return NULL;
	pthread_mutex_init(&clock->lock, NULL);
	clock_scale(host_tsc_khz(), &clock->line.mul, &clock->line.shift);
	clock->line.base_tsc = host_rdtsc();
	return clock;
}

void clock_destroy(struct clock *clock)
{
	free(clock);
}

uint64_t clock_tsc(const struct vm *vm)
{
	return host_rdtsc();
}

uint64_t clock_monotonic_ns(const struct vm *vm)
{
	return host_monotonic_ns();
}

uint64_t clock_realtime_ns(const struct vm *vm)
{
	return host_realtime_ns();
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
	return line_ns(&line, host_rdtsc());
}

uint64_t clock_boot_wall_ns(const struct vm *vm)
{
	return host_realtime_ns() - clock_kvmclock_ns(vm);
}

long vm_get_clock(struct vm *vm, void *arg)
{
	struct kvm_clock_data *data = arg;
	struct clock_line line;

	clock_line(vm, &line);
	*data = (struct kvm_clock_data){.flags = CLOCK_FLAGS};
	data->realtime = host_realtime_ns();
	data->host_tsc = host_rdtsc();
	data->clock = line_ns(&line, data->host_tsc);
	return 0;
}

long vm_set_clock(struct vm *vm, void *arg)
{
	struct kvm_clock_data *data = arg;
	struct clock *clock = vm->clock;
	uint64_t now = host_realtime_ns();

	if (data->flags & ~CLOCK_FLAGS)
		return -EINVAL;
	/* Time that passed since the saved moment; never backwards. */
	if (data->flags & KVM_CLOCK_REALTIME && now > data->realtime)
		data->clock += now - data->realtime;
	pthread_mutex_lock(&clock->lock);
	clock->line.base_tsc = host_rdtsc();
	clock->line.base_ns = data->clock;
	pthread_mutex_unlock(&clock->lock);
	vm->ops->request_all(vm, VM_REQUEST_CLOCK, false);
	return 0;
}
