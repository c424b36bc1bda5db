/* SPDX-License-Identifier: MIT */
/* Private to the room: what irqchip.c and pit.c share. */
#ifndef KVM_VM_IRQCHIP_INTERNAL_H
#define KVM_VM_IRQCHIP_INTERNAL_H

#include "kvm/vm/bus.h"
#include "kvm/vm/routing.h"
#include "kvm/vm/service.h"
#include "silicon/chips/ioapic.h"
#include "silicon/chips/pic.h"
#include "silicon/chips/pit.h"

#define NR_CHIP_DEVICES 4

struct chip_device {
	struct bus_device dev;
	struct vm *vm;
};

struct irqchip {
	struct vm *vm;
	struct routes *routes;
	struct pic pic;
	struct ioapic ioapic;
	struct chip_device devices[NR_CHIP_DEVICES];
	struct service_timer storm_timer;
	bool has_pit; /* set last; under vm->lock and irq_lock */
	struct pit pit;
	struct chip_device pit_device, speaker_device;
	struct service_timer pit_timer;
};

/* slots_lock not held. Fill *ret from dev and put it on a bus. 0 or -errno. */
int chip_device_add(struct vm *vm, bool is_port, const struct bus_device *dev,
		    struct chip_device *ret);

#endif
