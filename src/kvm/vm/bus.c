/* SPDX-License-Identifier: MIT */
/*
 * The port and MMIO buses. An access goes to the devices whose range holds its address, in order,
 * until one takes it (Linux: virt/kvm, kvm_io_bus).
 */
#include "kvm/vm/bus.h"

#include <errno.h>
#include <stdlib.h>

/* NR_IOBUS_DEVS of KVM; ioeventfds do not count there, for which the room is bigger. */
#define BUS_MAX_DEVICES 65536

struct bus *bus_create(void)
{
	return calloc(1, sizeof(struct bus));
}

static struct bus **bus_slot(struct vm *vm, bool is_port)
{
	return is_port ? &vm->port_bus : &vm->mmio_bus;
}

static const struct bus *bus_of(struct vm *vm, bool is_port)
{
	return __atomic_load_n(bus_slot(vm, is_port), __ATOMIC_ACQUIRE);
}

static bool hit(const struct bus_device *dev, uint64_t addr, unsigned size)
{
	if (!dev->size)
		return addr == dev->addr;
	return addr >= dev->addr && addr - dev->addr < dev->size &&
	       size <= dev->size - (addr - dev->addr);
}

bool vm_bus_read(struct vm *vm, struct vcpu *vcpu, bool is_port, uint64_t addr, unsigned size,
		 uint64_t *ret)
{
	const struct bus *bus = bus_of(vm, is_port);

	for (unsigned i = 0; i < bus->nr; i++) {
		struct bus_device *dev = bus->v[i];

		if (dev->addr > addr)
			break;
		if (dev->read && hit(dev, addr, size) && dev->read(dev, vcpu, addr, size, ret))
			return true;
	}
	return false;
}

bool vm_bus_write(struct vm *vm, struct vcpu *vcpu, bool is_port, uint64_t addr, unsigned size,
		  uint64_t val)
{
	const struct bus *bus = bus_of(vm, is_port);

	for (unsigned i = 0; i < bus->nr; i++) {
		struct bus_device *dev = bus->v[i];

		if (dev->addr > addr)
			break;
		if (dev->write && hit(dev, addr, size) && dev->write(dev, vcpu, addr, size, val))
			return true;
	}
	return false;
}

int bus_add_locked(struct vm *vm, bool is_port, struct bus_device *dev)
{
	struct bus *old = *bus_slot(vm, is_port), *next;
	unsigned n = 0, i = 0;

	if (old->nr >= BUS_MAX_DEVICES)
		return -ENOSPC;
	next = malloc(sizeof(*next) + (old->nr + 1) * sizeof(next->v[0]));
	if (!next)
		return -ENOMEM;
	while (i < old->nr && old->v[i]->addr <= dev->addr)
		next->v[n++] = old->v[i++];
	next->v[n++] = dev;
	while (i < old->nr)
		next->v[n++] = old->v[i++];
	next->nr = n;
	__atomic_store_n(bus_slot(vm, is_port), next, __ATOMIC_RELEASE);
	vm->ops->request_all(vm, VM_REQUEST_FILTER, true);
	free(old);
	return 0;
}

void bus_remove_locked(struct vm *vm, bool is_port, struct bus_device *dev)
{
	struct bus *old = *bus_slot(vm, is_port);
	struct bus *next = malloc(sizeof(*next) + old->nr * sizeof(next->v[0]));
	bool in_place = !next;
	unsigned n = 0;

	if (in_place) /* no memory: readers may see a neighbour twice, never a freed device */
		next = old;
	for (unsigned i = 0; i < old->nr; i++)
		if (old->v[i] != dev)
			next->v[n++] = old->v[i];
	__atomic_store_n(&next->nr, n, __ATOMIC_RELEASE);
	__atomic_store_n(bus_slot(vm, is_port), next, __ATOMIC_RELEASE);
	vm->ops->request_all(vm, VM_REQUEST_FILTER, true);
	if (!in_place)
		free(old);
}
