/* SPDX-License-Identifier: MIT */
/*
 * GSI routing (KVM api.rst, KVM_SET_GSI_ROUTING): which inputs or messages a global interrupt
 * number stands for, and sending along it.
 */
#include "kvm/vm/routing.h"
#include "kvm/vm/eventfd.h"
#include "kvm/vm/ioctl.h"
#include "silicon/chips/lapic.h"
#include "silicon/chips/message.h"

#include <stdlib.h>
#include <string.h>

/* ---- building a table ---- */

static bool msi_valid(uint32_t addr_hi, bool x2apic)
{
	return !(x2apic && addr_hi & 0xff);
}

static int irqchip_entry_check(const struct kvm_irq_routing_entry *e, bool split)
{
	if (split || e->flags)
		return -EINVAL;
	switch (e->u.irqchip.irqchip) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		return e->u.irqchip.pin < 8 ? 0 : -EINVAL;
	case KVM_IRQCHIP_IOAPIC:
		return e->u.irqchip.pin < NR_CHIP_PINS ? 0 : -EINVAL;
	default:
		return -EINVAL;
	}
}

static int entry_check(const struct kvm_irq_routing_entry *e, bool split, bool x2apic)
{
	if (e->gsi >= IRQ_MAX_ROUTES)
		return -EINVAL;
	switch (e->type) {
	case KVM_IRQ_ROUTING_IRQCHIP:
		return irqchip_entry_check(e, split);
	case KVM_IRQ_ROUTING_MSI:
		if (e->flags & ~KVM_MSI_VALID_DEVID || !msi_valid(e->u.msi.address_hi, x2apic))
			return -EINVAL;
		return 0;
	case KVM_IRQ_ROUTING_HV_SINT:
		return e->flags ? -EINVAL : 0;
	case KVM_IRQ_ROUTING_XEN_EVTCHN:
		if (e->flags || e->u.xen_evtchn.priority != KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL)
			return -EINVAL;
		return 0;
	default:
		return -EINVAL;
	}
}

/* One GSI: several chips with one pin each, or a single message. */
static bool entries_clash(const struct kvm_irq_routing_entry *a,
			  const struct kvm_irq_routing_entry *b)
{
	return a->type != KVM_IRQ_ROUTING_IRQCHIP || b->type != KVM_IRQ_ROUTING_IRQCHIP ||
	       a->u.irqchip.irqchip == b->u.irqchip.irqchip;
}

static int by_gsi(const void *a, const void *b)
{
	const struct kvm_irq_routing_entry *x = a, *y = b;

	return (x->gsi > y->gsi) - (x->gsi < y->gsi);
}

static bool routes_clash(const struct routes *routes)
{
	for (unsigned i = 0; i < routes->nr; i++)
		for (unsigned j = i + 1; j < routes->nr && routes->v[j].gsi == routes->v[i].gsi;
		     j++)
			if (entries_clash(&routes->v[i], &routes->v[j]))
				return true;
	return false;
}

static void routes_index(struct routes *routes)
{
	unsigned n = 0;

	memset(routes->pin_gsi, 0xff, sizeof(routes->pin_gsi));
	routes->has_sints = false;
	for (unsigned gsi = 0; gsi <= IRQ_MAX_ROUTES; gsi++) {
		while (n < routes->nr && routes->v[n].gsi < gsi)
			n++;
		routes->first[gsi] = n;
	}
	for (unsigned i = 0; i < routes->nr; i++) {
		const struct kvm_irq_routing_entry *e = &routes->v[i];

		if (e->type == KVM_IRQ_ROUTING_IRQCHIP)
			routes->pin_gsi[e->u.irqchip.irqchip][e->u.irqchip.pin] = e->gsi;
		routes->has_sints |= e->type == KVM_IRQ_ROUTING_HV_SINT;
	}
}

int routes_build(const struct kvm_irq_routing_entry *entries, unsigned nr, bool split, bool x2apic,
		 struct routes **ret)
{
	struct routes *routes;

	for (unsigned i = 0; i < nr; i++) {
		int r = entry_check(&entries[i], split, x2apic);

		if (r)
			return r;
	}
	routes = malloc(sizeof(*routes) + nr * sizeof(routes->v[0]));
	if (!routes)
		return -ENOMEM;
	routes->nr = nr;
	if (nr)
		memcpy(routes->v, entries, nr * sizeof(routes->v[0]));
	qsort(routes->v, nr, sizeof(routes->v[0]), by_gsi);
	if (routes_clash(routes)) {
		free(routes);
		return -EINVAL;
	}
	routes_index(routes);
	*ret = routes;
	return 0;
}

static struct kvm_irq_routing_entry chip_entry(unsigned gsi, unsigned chip, unsigned pin)
{
	return (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = {.irqchip = chip, .pin = pin},
	};
}

struct routes *routes_default(void)
{
	struct kvm_irq_routing_entry v[40];
	struct routes *routes;
	unsigned n = 0;

	for (unsigned gsi = 0; gsi < 24; gsi++) {
		v[n++] = chip_entry(gsi, KVM_IRQCHIP_IOAPIC, gsi);
		if (gsi < 16)
			v[n++] = chip_entry(gsi, gsi / 8, gsi % 8);
	}
	return routes_build(v, n, false, false, &routes) ? NULL : routes;
}

/* ---- ioctls ---- */

static int routing_read(struct vm *vm, const struct kvm_irq_routing *head, const void *user,
			struct routes **ret)
{
	struct kvm_irq_routing_entry *entries = NULL;
	size_t size = head->nr * sizeof(*entries);
	int r = 0;

	if (head->nr) {
		entries = malloc(size);
		if (!entries)
			return -ENOMEM;
		r = ioctl_copy_in(entries, ioctl_behind(user, sizeof(*head)), size);
	}
	if (!r)
		r = routes_build(entries, head->nr, vm->irqchip_split, vm->x2apic_format, ret);
	free(entries);
	return r;
}

long vm_set_gsi_routing(struct vm *vm, void *arg)
{
	struct kvm_irq_routing head;
	struct routes *routes;
	int r;

	if (ioctl_copy_in(&head, arg, sizeof(head)))
		return -EFAULT;
	if (!vm_irqchip(vm) || head.nr > IRQ_MAX_ROUTES || head.flags)
		return -EINVAL;
	r = routing_read(vm, &head, arg, &routes);
	if (r)
		return r;
	pthread_mutex_lock(&vm->irq_lock);
	irqfd_settle_locked(vm);
	routes_replace_locked(vm, routes);
	pthread_mutex_unlock(&vm->irq_lock);
	return 0;
}

long vm_signal_msi(struct vm *vm, void *arg)
{
	const struct kvm_msi *msi = arg;

	if (!vm_irqchip(vm) || msi->flags & ~KVM_MSI_VALID_DEVID)
		return -EINVAL;
	return vm_deliver_msi(vm, msi->address_lo, msi->address_hi, msi->data);
}

/* KVM_IRQ_LINE and KVM_IRQ_LINE_STATUS: only the latter's number hands the status back. */
long vm_irq_line(struct vm *vm, void *arg)
{
	struct kvm_irq_level *line = arg;

	if (!vm_irqchip(vm))
		return -ENXIO;
	line->status = vm_set_irq(vm, line->irq, line->level, IRQ_SOURCE_USER);
	return 0;
}

/* ---- sending ---- */

static struct lapic *bus_lapic(void *opaque, unsigned i)
{
	struct vm *vm = opaque;

	return vm->ops->lapic(vm->vcpus[i]);
}

int vm_apic_deliver(struct vm *vm, struct lapic *source, const struct apic_message *msg)
{
	struct lapic_bus bus = {
		.at = bus_lapic,
		.opaque = vm,
		.nr = vm_nr_vcpus(vm),
		.broadcast_quirk = !vm->x2apic_broadcast_quirk_off,
	};

	return lapic_deliver(&bus, source, msg);
}

int vm_deliver_msi(struct vm *vm, uint32_t addr_lo, uint32_t addr_hi, uint32_t data)
{
	struct apic_message msg;

	if (!msi_valid(addr_hi, vm->x2apic_format))
		return -EINVAL;
	apic_message_from_msi((uint64_t)addr_hi << 32 | addr_lo, data, vm->x2apic_format, &msg);
	return vm_apic_deliver(vm, NULL, &msg);
}

int irq_gsi_of_pin_locked(const struct vm *vm, unsigned chip, unsigned pin)
{
	return routes_of(vm)->pin_gsi[chip][pin];
}

int vm_set_irq(struct vm *vm, uint32_t gsi, int level, enum irq_source source)
{
	int r;

	pthread_mutex_lock(&vm->irq_lock);
	r = irq_set_locked(vm, gsi, level, source);
	pthread_mutex_unlock(&vm->irq_lock);
	return r;
}
