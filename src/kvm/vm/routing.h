/* SPDX-License-Identifier: MIT */
/* Private to the room: the GSI routing table behind irqchip.c and routing.c. */
#ifndef KVM_VM_ROUTING_H
#define KVM_VM_ROUTING_H

#include "kvm/vm/irqchip.h"

#define NR_CHIPS     3 /* KVM_NR_IRQCHIPS: PIC master, PIC slave, I/O APIC */
#define NR_CHIP_PINS 24

/* Immutable once built: entries sorted by GSI; those of gsi are first[gsi] .. first[gsi + 1]. */
struct routes {
	int16_t pin_gsi[NR_CHIPS][NR_CHIP_PINS];
	uint16_t first[IRQ_MAX_ROUTES + 1];
	bool has_sints; /* some are of Hyper-V's synthetic interrupts */
	unsigned nr;
	struct kvm_irq_routing_entry v[];
};

/*
 * Check and build. split: entries of in-kernel chips are refused; x2apic: MSI addresses must be in
 * that format. 0, -EINVAL, -ENOMEM.
 */
int routes_build(const struct kvm_irq_routing_entry *entries, unsigned nr, bool split, bool x2apic,
		 struct routes **ret);
/* The table of KVM_CREATE_IRQCHIP: 16 PIC and 24 I/O APIC inputs. NULL: no memory. */
struct routes *routes_default(void);

/* irq_lock held. The table in force; never NULL. */
const struct routes *routes_of(const struct vm *vm);
/* irq_lock held. Put a new table in force and free the old one. */
void routes_replace_locked(struct vm *vm, struct routes *routes);
/* irq_lock held. As vm_set_irq(). */
int irq_set_locked(struct vm *vm, uint32_t gsi, int level, enum irq_source source);

#endif
