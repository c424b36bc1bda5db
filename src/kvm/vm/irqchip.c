/* SPDX-License-Identifier: MIT */
/*
 * The in-kernel interrupt controllers (KVM api.rst, KVM_CREATE_IRQCHIP): the PIC pair and the I/O APIC of
 * silicon/chips on the VM's buses, with acknowledgements going back to the GSIs they came from
 * (resampling irqfds, the PIT's reinjection).
 *
 * Everything is under irq_lock; the chips call back with it held.
 */
#include "kvm/vm/irqchip.h"
#include "kvm/vm/bus.h"
#include "kvm/vm/clock.h"
#include "kvm/vm/eventfd.h"
#include "kvm/vm/ioctl.h"
#include "kvm/vm/irqchip_internal.h"
#include "silicon/chips/lapic.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct pic_state) == sizeof(struct kvm_pic_state), "KVM's layout");
_Static_assert(sizeof(struct ioapic_state) == sizeof(struct kvm_ioapic_state), "KVM's layout");

const struct routes *routes_of(const struct vm *vm)
{
	return vm->irqchip->routes;
}

void routes_replace_locked(struct vm *vm, struct routes *routes)
{
	free(vm->irqchip->routes);
	vm->irqchip->routes = routes;
}

/* ---- driving lines ---- */

static int entry_set_locked(struct vm *vm, const struct kvm_irq_routing_entry *e, int level,
			    enum irq_source source)
{
	struct irqchip *chip = vm->irqchip;
	unsigned pin = e->u.irqchip.pin;

	if (e->type == KVM_IRQ_ROUTING_MSI) {
		if (!level)
			return -1;
		return vm_deliver_msi(vm, e->u.msi.address_lo, e->u.msi.address_hi, e->u.msi.data);
	}
	if (e->type != KVM_IRQ_ROUTING_IRQCHIP)
		return vm->ops->route(vm, e, level);
	if (!vm->irqchip_full)
		return -1;
	if (e->u.irqchip.irqchip == KVM_IRQCHIP_IOAPIC)
		return ioapic_set_irq_from(&chip->ioapic, pin, source, level, true);
	return pic_set_irq_from(&chip->pic, e->u.irqchip.irqchip * 8 + pin, source, level);
}

int irq_set_locked(struct vm *vm, uint32_t gsi, int level, enum irq_source source)
{
	const struct routes *routes = vm->irqchip->routes;
	int ret = -1;

	if (gsi >= IRQ_MAX_ROUTES)
		return -1;
	for (unsigned i = routes->first[gsi]; i < routes->first[gsi + 1]; i++) {
		int r = entry_set_locked(vm, &routes->v[i], level, source);

		if (r >= 0)
			ret = r + max(ret, 0);
	}
	return ret;
}

/* ---- acknowledgements ---- */

static void pin_acked(struct vm *vm, unsigned chip, unsigned pin)
{
	int gsi = irq_gsi_of_pin_locked(vm, chip, pin);

	if (gsi < 0)
		return;
	if (gsi == 0 && vm->irqchip->has_pit)
		pit_ack(&vm->irqchip->pit);
	irqfd_resample_locked(vm, gsi);
}

static void pin_masked(struct vm *vm, unsigned chip, unsigned pin, bool masked)
{
	if (!masked && vm->irqchip->has_pit && irq_gsi_of_pin_locked(vm, chip, pin) == 0)
		pit_unmasked(&vm->irqchip->pit);
}

static void on_pic_intr(void *opaque, bool level)
{
	struct vm *vm = opaque;

	for (unsigned i = 0; level && i < vm_nr_vcpus(vm); i++) {
		struct lapic *lapic = vm->ops->lapic(vm->vcpus[i]);

		if (lapic && lapic_accepts_pic(lapic))
			vm->ops->interrupt(vm->vcpus[i]);
	}
}

static void on_pic_eoi(void *opaque, unsigned irq)
{
	pin_acked(opaque, irq / 8, irq % 8);
}

static void on_pic_mask(void *opaque, unsigned irq, bool masked)
{
	pin_masked(opaque, irq / 8, irq % 8, masked);
}

static const struct pic_ops pic_callbacks = {
	.intr = on_pic_intr,
	.eoi = on_pic_eoi,
	.mask = on_pic_mask,
};

static int on_ioapic_deliver(void *opaque, const struct apic_message *msg)
{
	return vm_apic_deliver(opaque, NULL, msg);
}

static void on_ioapic_eoi(void *opaque, unsigned pin)
{
	pin_acked(opaque, KVM_IRQCHIP_IOAPIC, pin);
}

static bool on_ioapic_resample(void *opaque, unsigned pin)
{
	int gsi = irq_gsi_of_pin_locked(opaque, KVM_IRQCHIP_IOAPIC, pin);

	return gsi >= 0 && irqfd_notify_locked(opaque, gsi);
}

static void on_ioapic_mask(void *opaque, unsigned pin, bool masked)
{
	pin_masked(opaque, KVM_IRQCHIP_IOAPIC, pin, masked);
}

static void on_ioapic_delay(void *opaque, uint64_t ns)
{
	struct vm *vm = opaque;

	service_timer_arm(vm->service, &vm->irqchip->storm_timer, clock_monotonic_ns(vm) + ns);
}

static const struct ioapic_ops ioapic_callbacks = {
	.deliver = on_ioapic_deliver,
	.eoi = on_ioapic_eoi,
	.resample = on_ioapic_resample,
	.mask = on_ioapic_mask,
	.delay = on_ioapic_delay,
};

static void storm_expire(struct service_timer *timer)
{
	struct irqchip *chip = container_of(timer, struct irqchip, storm_timer);

	pthread_mutex_lock(&chip->vm->irq_lock);
	ioapic_inject_delayed(&chip->ioapic);
	pthread_mutex_unlock(&chip->vm->irq_lock);
}

/* ---- the processor's side ---- */

bool vm_pic_pending(const struct vm *vm)
{
	return vm->irqchip_full && pic_output(&vm->irqchip->pic);
}

int vm_pic_ack(struct vm *vm)
{
	int vector = -1;

	if (!vm->irqchip_full)
		return -1;
	pthread_mutex_lock(&vm->irq_lock);
	if (pic_output(&vm->irqchip->pic))
		vector = pic_read_irq(&vm->irqchip->pic);
	pthread_mutex_unlock(&vm->irq_lock);
	return vector;
}

/* A user-space I/O APIC's pins are the first GSIs, routed as MSIs. */
static bool split_wants_eoi_locked(struct vm *vm, struct lapic *lapic, uint8_t vector)
{
	const struct routes *routes = vm->irqchip->routes;

	for (unsigned i = 0; i < routes->first[vm->nr_reserved_ioapic_pins]; i++) {
		const struct kvm_irq_routing_entry *e = &routes->v[i];
		struct apic_message msg;

		if (e->type != KVM_IRQ_ROUTING_MSI)
			continue;
		apic_message_from_msi((uint64_t)e->u.msi.address_hi << 32 | e->u.msi.address_lo,
				      e->u.msi.data, vm->x2apic_format, &msg);
		if (msg.trigger && msg.vector == vector &&
		    (lapic_matches(lapic, NULL, &msg, !vm->x2apic_broadcast_quirk_off) ||
		     lapic_eoi_expected(lapic, vector)))
			return true;
	}
	return false;
}

/* Some reserved pin is routed to this vector, wherever. */
static bool split_knows_vector_locked(const struct vm *vm, uint8_t vector)
{
	const struct routes *routes = vm->irqchip->routes;

	for (unsigned i = 0; i < routes->first[vm->nr_reserved_ioapic_pins]; i++)
		if (routes->v[i].type == KVM_IRQ_ROUTING_MSI &&
		    (uint8_t)routes->v[i].u.msi.data == vector)
			return true;
	return false;
}

bool vm_eoi_wanted(struct vm *vm, uint8_t vector)
{
	bool wanted;

	if (vm->irqchip_full)
		return ioapic_knows_vector(&vm->irqchip->ioapic, vector);
	pthread_mutex_lock(&vm->irq_lock);
	wanted = split_knows_vector_locked(vm, vector);
	pthread_mutex_unlock(&vm->irq_lock);
	return wanted;
}

void vm_sint_acked(struct vm *vm, uint32_t vp_index, uint32_t sint)
{
	const struct routes *routes;

	pthread_mutex_lock(&vm->irq_lock);
	routes = vm->irqchip->routes;
	for (unsigned i = 0; routes->has_sints && i < routes->nr; i++) {
		const struct kvm_irq_routing_entry *e = &routes->v[i];

		if (e->type == KVM_IRQ_ROUTING_HV_SINT && e->u.hv_sint.vcpu == vp_index &&
		    e->u.hv_sint.sint == sint)
			irqfd_resample_locked(vm, e->gsi);
	}
	pthread_mutex_unlock(&vm->irq_lock);
}

bool vm_apic_eoi(struct vm *vm, struct lapic *lapic, uint8_t vector, bool level)
{
	bool user = false;

	if (!vm_irqchip(vm))
		return false;
	/* Most EOIs are of timers, IPIs and MSIs: spare them the lock. */
	if (vm->irqchip_full && !ioapic_knows_vector(&vm->irqchip->ioapic, vector))
		return false;
	pthread_mutex_lock(&vm->irq_lock);
	if (vm->irqchip_full)
		ioapic_eoi(&vm->irqchip->ioapic, vector, level);
	else
		user = split_wants_eoi_locked(vm, lapic, vector);
	pthread_mutex_unlock(&vm->irq_lock);
	return user;
}

/* ---- on the buses ---- */

/* KVM's PIC ignores accesses of more than a byte and reads them as zeros. */
static bool pic_dev_read(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
			 uint64_t *ret)
{
	struct vm *vm = container_of(dev, struct chip_device, dev)->vm;
	uint8_t val = 0;

	*ret = 0;
	if (size != 1)
		return true;
	pthread_mutex_lock(&vm->irq_lock);
	pic_io_read(&vm->irqchip->pic, addr, &val);
	pthread_mutex_unlock(&vm->irq_lock);
	*ret = val;
	return true;
}

static bool pic_dev_write(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
			  uint64_t val)
{
	struct vm *vm = container_of(dev, struct chip_device, dev)->vm;

	if (size != 1)
		return true;
	pthread_mutex_lock(&vm->irq_lock);
	pic_io_write(&vm->irqchip->pic, addr, val);
	pthread_mutex_unlock(&vm->irq_lock);
	return true;
}

static bool ioapic_dev_read(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
			    uint64_t *ret)
{
	struct vm *vm = container_of(dev, struct chip_device, dev)->vm;
	struct ioapic *ioapic = &vm->irqchip->ioapic;
	bool hit;

	pthread_mutex_lock(&vm->irq_lock);
	hit = ioapic_hit(ioapic, addr);
	if (hit)
		*ret = ioapic_read(ioapic, addr - ioapic->state.base_address, size);
	pthread_mutex_unlock(&vm->irq_lock);
	return hit;
}

static bool ioapic_dev_write(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr,
			     unsigned size, uint64_t val)
{
	struct vm *vm = container_of(dev, struct chip_device, dev)->vm;
	struct ioapic *ioapic = &vm->irqchip->ioapic;
	bool hit;

	pthread_mutex_lock(&vm->irq_lock);
	hit = ioapic_hit(ioapic, addr);
	if (hit)
		ioapic_write(ioapic, addr - ioapic->state.base_address, size, val);
	pthread_mutex_unlock(&vm->irq_lock);
	return hit;
}

static const struct {
	bool is_port;
	struct bus_device dev;
} chip_devices[NR_CHIP_DEVICES] = {
	{true, {.addr = 0x20, .size = 2, .read = pic_dev_read, .write = pic_dev_write}},
	{true, {.addr = 0xa0, .size = 2, .read = pic_dev_read, .write = pic_dev_write}},
	{true, {.addr = 0x4d0, .size = 2, .read = pic_dev_read, .write = pic_dev_write}},
	{false,
	 {.addr = IOAPIC_DEFAULT_BASE,
	  .size = IOAPIC_SIZE,
	  .read = ioapic_dev_read,
	  .write = ioapic_dev_write}},
};

int chip_device_add(struct vm *vm, bool is_port, const struct bus_device *dev,
		    struct chip_device *ret)
{
	int r;

	ret->vm = vm;
	ret->dev = *dev;
	pthread_mutex_lock(&vm->slots_lock);
	r = bus_add_locked(vm, is_port, &ret->dev);
	pthread_mutex_unlock(&vm->slots_lock);
	return r;
}

/* ---- life ---- */

int irqchip_create(struct vm *vm)
{
	struct irqchip *chip = calloc(1, sizeof(*chip));

	if (!chip)
		return -ENOMEM;
	chip->vm = vm;
	chip->storm_timer.expire = storm_expire;
	vm->irqchip = chip;
	return routes_build(NULL, 0, false, false, &chip->routes);
}

void irqchip_destroy(struct vm *vm)
{
	if (vm->irqchip)
		free(vm->irqchip->routes);
	free(vm->irqchip);
}

static int create_full_locked(struct vm *vm)
{
	struct routes *routes = routes_default();

	if (!routes)
		return -ENOMEM;
	pic_init(&vm->irqchip->pic, &pic_callbacks, vm);
	ioapic_init(&vm->irqchip->ioapic, &ioapic_callbacks, vm);
	for (unsigned i = 0; i < NR_CHIP_DEVICES; i++) {
		int r = chip_device_add(vm, chip_devices[i].is_port, &chip_devices[i].dev,
					&vm->irqchip->devices[i]);

		if (r) {
			free(routes);
			return r;
		}
	}
	pthread_mutex_lock(&vm->irq_lock);
	routes_replace_locked(vm, routes);
	vm->irqchip_full = true;
	pthread_mutex_unlock(&vm->irq_lock);
	return 0;
}

long vm_create_irqchip(struct vm *vm, void *arg)
{
	long r;

	pthread_mutex_lock(&vm->lock);
	if (vm_irqchip(vm))
		r = -EEXIST;
	else if (vm->created_vcpus)
		r = -EINVAL;
	else
		r = create_full_locked(vm);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

int irqchip_split(struct vm *vm, uint64_t nr_pins)
{
	int r = 0;

	if (nr_pins > IRQ_MAX_ROUTES)
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	if (vm_irqchip(vm) || vm->created_vcpus) {
		r = -EEXIST;
	} else {
		vm->nr_reserved_ioapic_pins = nr_pins; /* the low byte, as in KVM */
		vm->irqchip_split = true;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/* ---- state ---- */

long vm_get_irqchip(struct vm *vm, void *arg)
{
	struct kvm_irqchip *state = arg;
	struct irqchip *chip = vm->irqchip;
	long r = 0;

	if (!vm->irqchip_full)
		return -ENXIO;
	pthread_mutex_lock(&vm->irq_lock);
	irqfd_settle_locked(vm);
	if (state->chip_id <= KVM_IRQCHIP_PIC_SLAVE)
		pic_get_state(&chip->pic, state->chip_id, (void *)&state->chip.pic);
	else if (state->chip_id == KVM_IRQCHIP_IOAPIC)
		ioapic_get_state(&chip->ioapic, (void *)&state->chip.ioapic);
	else
		r = -EINVAL;
	pthread_mutex_unlock(&vm->irq_lock);
	return r;
}

long vm_set_irqchip(struct vm *vm, void *arg)
{
	const struct kvm_irqchip *state = arg;
	struct irqchip *chip = vm->irqchip;
	long r = 0;

	if (!vm->irqchip_full)
		return -ENXIO;
	pthread_mutex_lock(&vm->irq_lock);
	if (state->chip_id <= KVM_IRQCHIP_PIC_SLAVE)
		pic_set_state(&chip->pic, state->chip_id, (const void *)&state->chip.pic);
	else if (state->chip_id == KVM_IRQCHIP_IOAPIC)
		ioapic_set_state(&chip->ioapic, (const void *)&state->chip.ioapic);
	else
		r = -EINVAL;
	pthread_mutex_unlock(&vm->irq_lock);
	return r;
}
