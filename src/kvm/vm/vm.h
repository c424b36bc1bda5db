/* SPDX-License-Identifier: MIT */
/*
 * A virtual machine: memory slots, buses, eventfds, interrupt routing, chips, clock, and the list of
 * its vCPUs. Room header of kvm/vm.
 *
 * Lock order: vm->lock > vcpu->mutex (never the other way while holding slots) > vm->slots_lock > vm->irq_lock.
 * vcpu threads in cpu_run() read vm->slots without a lock: an update publishes a new array and waits
 * until each running vCPU has passed vcpu_kick_all()'s safepoint.
 */
#ifndef KVM_VM_VM_H
#define KVM_VM_VM_H

#include "silicon/cpu/types.h"

#include <linux/kvm.h>
#include <pthread.h>

struct vm;
struct vcpu;
struct irqchip;	/* kvm/vm/irqchip.c: owns silicon/chips' pic, ioapic, pit and routing */

#define VM_MAX_VCPUS	 1024
#define VM_MAX_VCPU_ID	 4096
#define VM_MAX_SLOTS	 32764

struct memslot {
	uint32_t id;		/* slot, address space in the high half */
	uint32_t flags;		/* KVM_MEM_* */
	gfn_t	 gfn, nr_pages;
	uint8_t *hva;
	uint64_t *dirty;	/* bitmap while KVM_MEM_LOG_DIRTY_PAGES, else NULL; atomic */
};

/* Immutable once published; sorted by gfn. */
struct memslots {
	uint64_t generation;
	unsigned nr;
	struct memslot v[];
};

/* What a module of the VM can ask for at its device bus: port and MMIO. */
struct bus_device {
	struct bus_device *next;
	bool	 is_port;
	uint64_t addr, size;
	/* True if it took the access (false: try the next, then user space). Called on vCPU threads. */
	bool (*read)(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
		     uint64_t *ret);
	bool (*write)(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
		      uint64_t val);
};

struct vm {
	uint64_t inode;		/* of the VM fd's file: its name in kvm/api's registry */
	pid_t	 pid;		/* the process that created it */
	uint32_t refs;		/* fds and vCPUs; atomic */
	pthread_mutex_t lock;
	pthread_mutex_t slots_lock;
	pthread_mutex_t irq_lock;	/* chips, routing, irqfds */
	struct memslots *slots;		/* atomic pointer */
	struct bus_device *bus;		/* published like slots */

	unsigned nr_vcpus;		/* created */
	struct vcpu *vcpus[VM_MAX_VCPUS];	/* by creation order; entries published atomically */
	uint32_t max_vcpu_ids;

	struct irqchip *irqchip;	/* NULL: none; see irqchip.h for full and split */
	bool irqchip_full, irqchip_split;
	uint8_t nr_reserved_ioapic_pins;
	uint32_t boot_cpu_id;
	struct clock *clock;		/* kvm/vm/clock.h: the one clock of the VM */
	struct service *service;	/* the service thread: eventfds and timers */

	/* KVM_ENABLE_CAP's state. */
	uint64_t disabled_quirks, disabled_exits;
	uint32_t user_space_msr_mask;
	bool exception_payload, triple_fault_event, exit_on_emulation_error;
	bool manual_dirty_log, manual_dirty_init_set;
	bool x2apic_format, x2apic_broadcast_quirk_off;
	struct msr_filter *msr_filter;	/* published like slots */
	gpa_t tss_addr, identity_map_addr;
	uint64_t tsc_khz;		/* default of new vCPUs */
	struct stats_block *stats;	/* in a shared file mapping; see kvm/api/stats.h */
};

/* The slot that answers for gfn, or NULL. Any thread inside a safepoint section, or with slots_lock. */
const struct memslot *vm_slot_find(const struct vm *vm, gfn_t gfn);
/* Host pointer for size bytes at gpa inside one slot, or NULL; to be accessed by host/guard.h only. */
uint8_t *vm_hva(const struct vm *vm, gpa_t gpa, size_t size);
/* Copy to and from guest memory across slots: 0 or -EFAULT. Marks pages dirty. */
int vm_read_guest(struct vm *vm, gpa_t gpa, void *dst, size_t size);
int vm_write_guest(struct vm *vm, gpa_t gpa, const void *src, size_t size);
void vm_mark_dirty(struct vm *vm, gpa_t gpa);

#endif
