/* SPDX-License-Identifier: MIT */
/*
 * Coalesced MMIO and ports (KVM api.rst, KVM_REGISTER_COALESCED_MMIO): writes into a zone go to a
 * ring that the program empties at its next exit. KVM maps one ring into the file of every vCPU; here
 * it stands in the first vCPU's file, where VMMs look (docs/errata.md).
 */
#include "kvm/vm/bus.h"
#include "kvm/vm/ioctl.h"

#include <stdlib.h>
#include <string.h>

/* Entries that fit in the ring's page. */
#define RING_SIZE \
	((PAGE_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

struct coalesced {
	struct bus_device dev;
	struct coalesced *next;
	struct vm *vm;
	bool is_port;
};

/* One entry stays free, so that an empty ring differs from a full one. False: no room. */
static bool ring_push(struct kvm_coalesced_mmio_ring *ring, bool is_port, uint64_t addr,
		      unsigned size, uint64_t val)
{
	uint32_t last = __atomic_load_n(&ring->last, __ATOMIC_RELAXED);
	uint32_t next = (last + 1) % RING_SIZE;
	struct kvm_coalesced_mmio *entry;

	if (last >= RING_SIZE || next == __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE))
		return false;
	entry = &ring->coalesced_mmio[last];
	entry->phys_addr = addr;
	entry->len = size;
	entry->pio = is_port;
	memcpy(entry->data, &val, sizeof(val));
	__atomic_store_n(&ring->last, next, __ATOMIC_RELEASE);
	return true;
}

static bool zone_write(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
		       uint64_t val)
{
	struct coalesced *zone = container_of(dev, struct coalesced, dev);
	struct kvm_coalesced_mmio_ring *ring;
	bool done;

	ring = __atomic_load_n(&zone->vm->ring, __ATOMIC_ACQUIRE);
	if (!ring || size > 8)
		return false;
	pthread_mutex_lock(&zone->vm->ring_lock);
	done = ring_push(ring, zone->is_port, addr, size, val);
	pthread_mutex_unlock(&zone->vm->ring_lock);
	return done;
}

long vm_register_coalesced(struct vm *vm, void *arg)
{
	const struct kvm_coalesced_mmio_zone *zone = arg;
	struct coalesced *dev;
	int r;

	if (zone->pio > 1)
		return -EINVAL;
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	dev->dev = (struct bus_device){.addr = zone->addr, .size = zone->size, .write = zone_write};
	dev->vm = vm;
	dev->is_port = zone->pio;
	pthread_mutex_lock(&vm->slots_lock);
	r = bus_add_locked(vm, dev->is_port, &dev->dev);
	if (!r) {
		dev->next = vm->coalesced;
		vm->coalesced = dev;
	}
	pthread_mutex_unlock(&vm->slots_lock);
	if (r)
		free(dev);
	return r;
}

/* KVM drops every zone that encloses the one named. */
static bool encloses(const struct coalesced *dev, const struct kvm_coalesced_mmio_zone *zone)
{
	return dev->is_port == zone->pio && zone->addr >= dev->dev.addr &&
	       zone->addr + zone->size >= zone->addr &&
	       zone->addr + zone->size <= dev->dev.addr + dev->dev.size;
}

long vm_unregister_coalesced(struct vm *vm, void *arg)
{
	const struct kvm_coalesced_mmio_zone *zone = arg;
	struct coalesced **at;

	if (zone->pio > 1)
		return -EINVAL;
	pthread_mutex_lock(&vm->slots_lock);
	for (at = &vm->coalesced; *at;) {
		struct coalesced *dev = *at;

		if (!encloses(dev, zone)) {
			at = &dev->next;
			continue;
		}
		*at = dev->next;
		bus_remove_locked(vm, dev->is_port, &dev->dev);
		free(dev);
	}
	pthread_mutex_unlock(&vm->slots_lock);
	return 0;
}

void coalesced_free_all(struct vm *vm)
{
	while (vm->coalesced) {
		struct coalesced *dev = vm->coalesced;

		vm->coalesced = dev->next;
		free(dev);
	}
}
