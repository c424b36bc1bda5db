/* SPDX-License-Identifier: MIT */
/*
 * The PIT in the VM (KVM api.rst, KVM_CREATE_PIT2): the 8254 of silicon/chips on the port bus, its
 * tick on GSI 0 by the service thread. Under irq_lock.
 */
#include "kvm/vm/clock.h"
#include "kvm/vm/ioctl.h"
#include "kvm/vm/irqchip_internal.h"
#include "silicon/chips/lapic.h"

#include <string.h>

_Static_assert(sizeof(struct pit_channel) == sizeof(struct kvm_pit_channel_state), "KVM's layout");
_Static_assert(sizeof(struct pit_state) == sizeof(struct kvm_pit_state2), "KVM's layout");

/* A kernel may have its watchdog on LINT0 as NMI: the tick then goes there too. */
static void watchdog_nmi(struct vm *vm)
{
	for (unsigned i = 0; i < vm_nr_vcpus(vm); i++) {
		struct lapic *lapic = vm->ops->lapic(vm->vcpus[i]);

		if (lapic && lapic_lint0_is_nmi(lapic))
			lapic_local_deliver(lapic, LAPIC_LVT_LINT0);
	}
}

static void on_pit_irq(void *opaque, bool level)
{
	struct vm *vm = opaque;

	irq_set_locked(vm, 0, level, IRQ_SOURCE_PIT);
	if (level)
		watchdog_nmi(vm);
}

static void on_pit_rearm(void *opaque, uint64_t expiry)
{
	struct vm *vm = opaque;
	struct service_timer *timer = &vm->irqchip->pit_timer;

	if (expiry == PIT_NEVER)
		service_timer_cancel(vm->service, timer);
	else
		service_timer_arm(vm->service, timer, expiry);
}

static const struct pit_ops pit_callbacks = {
	.irq = on_pit_irq,
	.rearm = on_pit_rearm,
};

static void pit_timer_expire(struct service_timer *timer)
{
	struct irqchip *chip = container_of(timer, struct irqchip, pit_timer);

	pthread_mutex_lock(&chip->vm->irq_lock);
	pit_expire(&chip->pit, clock_monotonic_ns(chip->vm));
	pthread_mutex_unlock(&chip->vm->irq_lock);
}

/* ---- ports: only the first byte of a wider access counts, as in KVM ---- */

static bool pit_dev_read(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
			 uint64_t *ret)
{
	struct vm *vm = container_of(dev, struct chip_device, dev)->vm;

	pthread_mutex_lock(&vm->irq_lock);
	*ret = pit_io_read(&vm->irqchip->pit, addr, clock_monotonic_ns(vm));
	pthread_mutex_unlock(&vm->irq_lock);
	return true;
}

static bool pit_dev_write(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
			  uint64_t val)
{
	struct vm *vm = container_of(dev, struct chip_device, dev)->vm;

	pthread_mutex_lock(&vm->irq_lock);
	pit_io_write(&vm->irqchip->pit, addr, val, clock_monotonic_ns(vm));
	pthread_mutex_unlock(&vm->irq_lock);
	return true;
}

static bool speaker_read(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
			 uint64_t *ret)
{
	struct vm *vm = container_of(dev, struct chip_device, dev)->vm;

	pthread_mutex_lock(&vm->irq_lock);
	*ret = pit_speaker_read(&vm->irqchip->pit, clock_monotonic_ns(vm));
	pthread_mutex_unlock(&vm->irq_lock);
	return true;
}

static bool speaker_write(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
			  uint64_t val)
{
	struct vm *vm = container_of(dev, struct chip_device, dev)->vm;

	pthread_mutex_lock(&vm->irq_lock);
	pit_speaker_write(&vm->irqchip->pit, val, clock_monotonic_ns(vm));
	pthread_mutex_unlock(&vm->irq_lock);
	return true;
}

static const struct bus_device pit_ports = {
	.addr = 0x40,
	.size = 4,
	.read = pit_dev_read,
	.write = pit_dev_write,
};

static const struct bus_device speaker_port = {
	.addr = 0x61,
	.size = 1,
	.read = speaker_read,
	.write = speaker_write,
};

/* ---- ioctls ---- */

static long create_locked(struct vm *vm, uint32_t flags)
{
	struct irqchip *chip = vm->irqchip;
	long r;

	if (chip->has_pit)
		return -EEXIST;
	if (!vm->irqchip_full)
		return -ENOENT;
	chip->pit_timer.expire = pit_timer_expire;
	pthread_mutex_lock(&vm->irq_lock);
	pit_init(&chip->pit, &pit_callbacks, vm, clock_monotonic_ns(vm));
	pthread_mutex_unlock(&vm->irq_lock);
	r = chip_device_add(vm, true, &pit_ports, &chip->pit_device);
	if (!r && flags & KVM_PIT_SPEAKER_DUMMY)
		r = chip_device_add(vm, true, &speaker_port, &chip->speaker_device);
	if (r)
		return r;
	pthread_mutex_lock(&vm->irq_lock);
	chip->has_pit = true;
	pthread_mutex_unlock(&vm->irq_lock);
	return 0;
}

long vm_create_pit2(struct vm *vm, void *arg)
{
	const struct kvm_pit_config *config = arg;
	long r;

	pthread_mutex_lock(&vm->lock);
	r = create_locked(vm, config->flags);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

long vm_create_pit(struct vm *vm, void *arg)
{
	struct kvm_pit_config config = {.flags = KVM_PIT_SPEAKER_DUMMY};

	return vm_create_pit2(vm, &config);
}

static struct pit *pit_of_locked(struct vm *vm)
{
	return vm->irqchip->has_pit ? &vm->irqchip->pit : NULL;
}

long vm_get_pit2(struct vm *vm, void *arg)
{
	struct pit *pit;

	pthread_mutex_lock(&vm->irq_lock);
	pit = pit_of_locked(vm);
	if (pit)
		pit_get_state(pit, arg);
	pthread_mutex_unlock(&vm->irq_lock);
	return pit ? 0 : -ENXIO;
}

long vm_set_pit2(struct vm *vm, void *arg)
{
	struct pit *pit;

	pthread_mutex_lock(&vm->irq_lock);
	pit = pit_of_locked(vm);
	if (pit)
		pit_set_state(pit, arg, clock_monotonic_ns(vm));
	pthread_mutex_unlock(&vm->irq_lock);
	return pit ? 0 : -ENXIO;
}

/* KVM_GET_PIT and KVM_SET_PIT: the counters alone. */
long vm_get_pit(struct vm *vm, void *arg)
{
	struct pit_state state;
	long r = vm_get_pit2(vm, &state);

	if (!r)
		memcpy(arg, state.channels, sizeof(state.channels));
	return r;
}

long vm_set_pit(struct vm *vm, void *arg)
{
	struct pit *pit;

	pthread_mutex_lock(&vm->irq_lock);
	pit = pit_of_locked(vm);
	if (pit)
		pit_set_channels(pit, arg, clock_monotonic_ns(vm));
	pthread_mutex_unlock(&vm->irq_lock);
	return pit ? 0 : -ENXIO;
}

long vm_reinject_control(struct vm *vm, void *arg)
{
	struct kvm_reinject_control control;
	struct pit *pit;

	if (ioctl_copy_in(&control, arg, sizeof(control)))
		return -EFAULT;
	pthread_mutex_lock(&vm->irq_lock);
	pit = pit_of_locked(vm);
	if (pit)
		pit_set_reinject(pit, control.pit_reinject);
	pthread_mutex_unlock(&vm->irq_lock);
	return pit ? 0 : -ENXIO;
}
