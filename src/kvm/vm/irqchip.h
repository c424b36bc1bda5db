/* SPDX-License-Identifier: MIT */
/*
 * Interrupts of a VM: GSI routing, and behind it the PIC pair and the I/O APIC (KVM_CREATE_IRQCHIP),
 * the PIT, and MSIs to the vCPUs' local APICs. irq_lock protects routing and chips.
 */
#ifndef KVM_VM_IRQCHIP_H
#define KVM_VM_IRQCHIP_H

#include "kvm/vm/vm.h"

struct apic_message; /* silicon/chips */

#define IRQ_MAX_ROUTES 4096

enum irq_source { IRQ_SOURCE_USER, IRQ_SOURCE_RESAMPLE, IRQ_SOURCE_PIT, NR_IRQ_SOURCES };

/*
 * Any thread, irq_lock not held. Drive gsi's inputs, one line per source, ORed. > 0: delivered to so many vCPUs;
 * 0: coalesced; -1: ignored (masked or not routed).
 */
int vm_set_irq(struct vm *vm, uint32_t gsi, int level, enum irq_source source);
/* Any thread, irq_lock not held. Deliver an MSI: result as above; -EINVAL for a bad address. */
int vm_deliver_msi(struct vm *vm, uint32_t addr_lo, uint32_t addr_hi, uint32_t data);
/*
 * Any thread. Deliver to the local APICs that match: how many took it, or -1 if none matched. source: the
 * sender of an IPI, or NULL.
 */
int vm_apic_deliver(struct vm *vm, struct lapic *source, const struct apic_message *msg);

/*
 * The PIC pair's output and acknowledge cycle, for the vCPU that accepts external interrupts.
 * pending: any thread. ack: vector >= 0, or -1 without a PIC or interrupt.
 */
bool vm_pic_pending(const struct vm *vm);
int vm_pic_ack(struct vm *vm);

/*
 * EOI broadcast of a level-triggered vector by a local APIC. With a full irqchip the I/O APIC
 * is told and resamplers are notified. True if a user-space I/O APIC must be told (split irqchip
 * and a reserved pin routes this vector to this APIC): KVM_EXIT_IOAPIC_EOI. level: its TMR bit.
 */
bool vm_apic_eoi(struct vm *vm, struct lapic *lapic, uint8_t vector, bool level);

/*
 * irq_lock not held. The EOI of this vector must reach somebody beside the local APIC: an I/O APIC here or, of a
 * split irqchip, the program's.
 */
bool vm_eoi_wanted(struct vm *vm, uint8_t vector);
/* irq_lock not held. The guest took what a synthetic interrupt source brought: resamplers of its GSI are notified. */
void vm_sint_acked(struct vm *vm, uint32_t vp_index, uint32_t sint);

/* Room internal: routing and chips made and freed with the VM. */
int irqchip_create(struct vm *vm);
void irqchip_destroy(struct vm *vm);
/* irq_lock held. The GSI routed to this pin, or -1. */
int irq_gsi_of_pin_locked(const struct vm *vm, unsigned chip, unsigned pin);

/* Ioctl handlers. */
long vm_create_irqchip(struct vm *vm, void *arg);
long vm_get_irqchip(struct vm *vm, void *arg);
long vm_set_irqchip(struct vm *vm, void *arg);
long vm_set_gsi_routing(struct vm *vm, void *arg);
long vm_signal_msi(struct vm *vm, void *arg);
long vm_irq_line(struct vm *vm, void *arg);
long vm_create_pit(struct vm *vm, void *arg);
long vm_create_pit2(struct vm *vm, void *arg);
long vm_get_pit(struct vm *vm, void *arg);
long vm_set_pit(struct vm *vm, void *arg);
long vm_get_pit2(struct vm *vm, void *arg);
long vm_set_pit2(struct vm *vm, void *arg);
long vm_reinject_control(struct vm *vm, void *arg);
/* KVM_CAP_SPLIT_IRQCHIP: 0, -EINVAL, -EEXIST. Takes vm->lock. */
int irqchip_split(struct vm *vm, uint64_t nr_pins);

#endif
