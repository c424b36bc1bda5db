/* SPDX-License-Identifier: MIT */
/*
 * A virtual machine: memory slots, buses, interrupt routing, chips, clock, and the list of its
 * vCPUs. Room header of kvm/vm; bus.h, irqchip.h, eventfd.h, service.h, clock.h, msr_filter.h and
 * stats.h have the rest.
 *
 * Lock order: vm->lock > vcpu->mutex > vm->slots_lock > vm->irq_lock > vm->ring_lock, the claim on slots.
 * Slots, buses and the MSR filter are published: an update makes a new array, stores the pointer and
 * waits until each vCPU in KVM_RUN has passed a safepoint. So a vCPU thread in KVM_RUN reads them
 * without a lock (and never takes slots_lock, for which the waiter is holding it); everyone else
 * holds slots_lock, or reads slots for a short while under a claim (vm_slots_claim()).
 */
#ifndef KVM_VM_VM_H
#define KVM_VM_VM_H

#include "kvm/vm/uapi.h"
#include "kvm/vm/stats.h"
#include "silicon/cpu/types.h"

#include <pthread.h>

struct vm;
struct vcpu;
struct lapic;	   /* silicon/chips/lapic.h */
struct irqchip;	   /* irqchip.h */
struct bus;	   /* bus.h */
struct msr_filter; /* msr_filter.h */
struct gmem;	   /* private.h */
struct gfn_ranges; /* private.h */
struct pv_vm;	   /* kvm/pv */
struct turns;	   /* turns.h */

#define VM_MAX_VCPUS   1024
#define VM_MAX_VCPU_ID 4096
#define VM_MAX_SLOTS   32764
/* Address spaces of slots: what a processor sees outside of SMM, and inside. */
#define VM_ADDRESS_SPACES 2
/* KVM_MEM_MAX_NR_PAGES: more pages than this in one slot are refused. */
#define VM_MAX_SLOT_PAGES ((1ull << 31) - 1)
/* Quirks that can be disabled: those whose two behaviours exist (or cannot be told apart here). */
#define VM_QUIRKS                                                                 \
	(KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_CD_NW_CLEARED |            \
	 KVM_X86_QUIRK_LAPIC_MMIO_HOLE | KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT |     \
	 KVM_X86_QUIRK_FIX_HYPERCALL_INSN | KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS | \
	 KVM_X86_QUIRK_OUT_7E_INC_RIP | KVM_X86_QUIRK_SLOT_ZAP_ALL)

struct memslot {
	uint32_t id;	/* slot, address space in the high half */
	uint32_t flags; /* KVM_MEM_* */
	gfn_t gfn, nr_pages;
	uint8_t *hva;
	uint64_t *dirty;    /* bitmap while KVM_MEM_LOG_DIRTY_PAGES, else NULL; words are atomic */
	struct gmem *gmem;  /* of KVM_MEM_GUEST_MEMFD, while its file is open */
	uint64_t gmem_page; /* the slot's first page there */
};

/* Immutable once published, like the slots; sorted by gfn, which is the slot's. */
struct slot_ref {
	gfn_t gfn;
	struct memslot *slot;
};

struct memslots {
	uint64_t generation;
	unsigned nr;
	struct slot_ref v[];
};

/* What this room asks of the rooms above; given at creation by kvm/api. */
enum vm_request {
	VM_REQUEST_FLUSH,	 /* memory slots changed: forget every translation */
	VM_REQUEST_FLUSH_WRITES, /* dirty bits were taken: the next write must mark anew */
	VM_REQUEST_CLOCK,	 /* kvmclock's line changed: write the page */
	VM_REQUEST_FILTER, /* MSR filter or bus changed, dirty log: a safepoint and nothing else */
};

struct vmx_caps;

/* Module parameters that VMs follow. */
struct vm_params {
	/*
	 * Two-dimensional paging in KVM's eyes. Page tables are walked by software here, so that a guest's own
	 * MAXPHYADDR rules either way; KVM promises that without it only.
	 */
	bool tdp;
	bool ignore_msrs, report_ignored_msrs;
	bool report_missed_checks;
	bool restricted;	    /* no unrestricted guests: silicon/cpu/enterable.c */
	const struct vmx_caps *vmx; /* what guests get of VMX; NULL: nothing */
	uint32_t tsc_tolerance_ppm;
	uint8_t tsc_ratio_bits; /* before the point of a TSC ratio */
	uint32_t halt_poll_ns, halt_poll_grow, halt_poll_grow_start, halt_poll_shrink;
	uint32_t code_most; /* MiB of translated code that a vCPU may have */
	uint32_t behaviour; /* version of what guests can notice: silicon/cpu/behaviour.h */
};

#define VM_HALT_POLL_SET BIT(63)

struct vm_ops {
	struct vm_params params;
	const char *tempo;  /* how vCPUs run code: exec_set_tempo() */
	bool deterministic; /* turns.h, from ->seed */
	uint64_t seed;
	uint64_t
		permitted; /* dynamic components that guests may have: kvm/api/permission.c; atomic */
	/* Reach every vCPU; wait: return after each of them passed a safepoint. */
	void (*request_all)(struct vm *vm, enum vm_request req, bool wait);
	/* Deterministic VMs: a timer is the first to expire now, at this time. Any thread. */
	void (*timer_armed)(struct vm *vm, uint64_t deadline);
	/* Until on is false, which comes soon, no vCPU runs guest code. Not by a thread that runs one; no lock held. */
	void (*hold_all)(struct vm *vm, bool on);
	/* The vCPU's in-kernel local APIC, or NULL. */
	struct lapic *(*lapic)(struct vcpu *vcpu);
	/* Interrupt state of this vCPU changed (by the PIC): look, and wake from HLT. Takes no lock. */
	void (*interrupt)(struct vcpu *vcpu);
	/* A page of a slot was written first: into the dirty ring of the vCPU that this thread runs. */
	void (*push_dirty)(struct vm *vm, uint32_t slot, uint64_t offset);
	/* The guest_memfd of this VM that fd names: 0, -EBADF, -EINVAL. */
	int (*gmem)(struct vm *vm, int fd, struct gmem **ret);
	/* What the rooms above hang on a new VM (0 or -ENOMEM), and its end. May be NULL. */
	int (*create)(struct vm *vm);
	void (*destroy)(struct vm *vm);
	/* Drive a route of Hyper-V's or Xen's; irq_lock held. Result as of vm_set_irq(). */
	int (*route)(struct vm *vm, const struct kvm_irq_routing_entry *e, int level);
	/* The last reference is gone: destroy the vCPUs, then call vm_destroy(). */
	void (*release)(struct vm *vm);
};

struct vm {
	uint64_t dev, inode; /* of the VM fd's file: its name in kvm/api's registry */
	pid_t pid;	     /* the process that created it */
	uint32_t refs; /* one for all files, one per ioctl under way, none for vCPUs; atomic */
	int witness;   /* an fd that named it when looked at last, or -1; kvm/api's registry lock */
	uint32_t
		alone; /* futex: 1 + id of the vCPU that is (kvm/vcpu/alone.c); 0: none; ~0: hold_all() */
	bool dead; /* every ioctl answers EIO */
	const struct vm_ops *ops;
	pthread_mutex_t lock;
	pthread_mutex_t slots_lock;
	pthread_mutex_t irq_lock;			   /* chips, routing, irqfds */
	pthread_mutex_t ring_lock;			   /* the coalesced ring */
	pthread_mutex_t claim;				   /* vm_slots_claim() */
	struct memslots *slots[VM_ADDRESS_SPACES];	   /* atomic pointers; never NULL */
	struct slot_table *slot_tables[VM_ADDRESS_SPACES]; /* slot_array.c; slots_lock */
	uint64_t nr_slot_pages;				   /* slots_lock */
	bool private_mem;		      /* KVM_X86_SW_PROTECTED_VM; set at creation */
	struct gfn_ranges *private_gfns;      /* private.h; atomic pointer; NULL: none */
	struct gmem *gmems;		      /* slots_lock */
	struct bus *mmio_bus, *port_bus;      /* atomic pointers; never NULL */
	struct ioeventfd *ioeventfds;	      /* slots_lock */
	struct coalesced *coalesced;	      /* slots_lock */
	struct kvm_coalesced_mmio_ring *ring; /* in the first vCPU's file; atomic pointer */

	unsigned created_vcpus; /* vm->lock */
	unsigned nr_vcpus;	/* online: entries of ->vcpus; atomic */
	struct vcpu
		*vcpus[VM_MAX_VCPUS]; /* by creation order; entries are stored before nr_vcpus */
	uint32_t max_vcpu_ids;	      /* 0: not limited yet */

	struct irqchip *irqchip; /* routing always; chips if irqchip_full */
	bool irqchip_full, irqchip_split;
	uint8_t nr_reserved_ioapic_pins;
	uint32_t boot_cpu_id;
	struct irqfd *irqfds; /* irq_lock */
	struct clock *clock;
	struct turns *turns; /* NULL: vCPUs run as the host lets them */
	struct service *service;

	/* KVM_ENABLE_CAP's state; atomic words, written under vm->lock. */
	uint64_t disabled_quirks, disabled_exits;
	uint64_t hypercall_exits; /* BIT(number) of hypercalls that go to user space */
	uint32_t user_space_msr_mask;
	bool exception_payload, triple_fault_event, exit_on_emulation;
	bool manual_dirty_log, manual_dirty_init_set;
	uint32_t dirty_ring_size; /* bytes; 0: bitmaps are for the program */
	bool x2apic_format, x2apic_broadcast_quirk_off;
	uint64_t apic_bus_cycle_ns;
	struct msr_filter *msr_filter; /* published like slots; NULL: all allowed */
	bool hide_platform_info;       /* guests' RDMSR of MSR_PLATFORM_INFO faults */
	uint32_t tsc_khz;	       /* default of new vCPUs */
	unsigned host_cpus;	       /* that the process may use */
	unsigned last_helped;	       /* index of the vCPU that one that spun yielded to; atomic */
	uint64_t halt_poll; /* KVM_CAP_HALT_POLL's nanoseconds, with VM_HALT_POLL_SET; atomic */
	struct codemap *codemap; /* silicon/mmu/codemap.h: for the vCPUs' code; vm->lock */
	struct pv_vm *pv;
	struct stats_block *stats;
};

/* ---- vm.c ---- */

/* A new VM with a service thread and one reference. 0, -ENOMEM, -EAGAIN. */
int vm_create(const struct vm_ops *ops, struct vm **ret);
void vm_get(struct vm *vm);
/* Drop a reference; the last one releases the VM. Not on the service thread. */
void vm_put(struct vm *vm);
/*
 * Stop the service thread, whose timers and eventfds reach vCPUs. From ops->release(), before the vCPUs
 * are freed.
 */
void vm_quiesce(struct vm *vm);
/* Free everything but the vCPUs. Only from ops->release(). */
void vm_destroy(struct vm *vm);

static inline bool vm_irqchip(const struct vm *vm)
{
	return vm->irqchip_full || vm->irqchip_split;
}

/* Address spaces that slots may be in. */
static inline unsigned vm_address_spaces(const struct vm *vm)
{
	return vm->private_mem ? 1 : VM_ADDRESS_SPACES;
}

/* Any thread. Published vCPUs: index < vm_nr_vcpus(). */
static inline unsigned vm_nr_vcpus(const struct vm *vm)
{
	return __atomic_load_n(&vm->nr_vcpus, __ATOMIC_ACQUIRE);
}

/* ---- slots.c: vCPU thread in KVM_RUN, or slots_lock held, or a claim ---- */

/*
 * Any thread, for a short while, as the last lock: slots do not go away until unclaim. Nothing that waits for a vCPU
 * may be done meanwhile.
 */
void vm_slots_claim(struct vm *vm);
void vm_slots_unclaim(struct vm *vm);

/* The slot that answers for gfn outside of SMM, or NULL. */
const struct memslot *vm_slot_find(const struct vm *vm, gfn_t gfn);
/* The same in one of VM_ADDRESS_SPACES. */
const struct memslot *vm_slot_find_in(const struct vm *vm, unsigned space, gfn_t gfn);
/* Host pointer for size bytes at gpa inside one slot, or NULL; to be accessed by host/guard.h only. */
uint8_t *vm_hva(const struct vm *vm, gpa_t gpa, size_t size);
/* As vm_hva, for writing: NULL for a read-only slot. Does not mark dirty. */
uint8_t *vm_hva_writable(const struct vm *vm, gpa_t gpa, size_t size);
/* Copy to and from guest memory across slots: 0 or -EFAULT. Marks pages dirty. */
int vm_read_guest(struct vm *vm, gpa_t gpa, void *dst, size_t size);
int vm_write_guest(struct vm *vm, gpa_t gpa, const void *src, size_t size);
/* Mark the page of gpa in its slot's dirty bitmap, if it is logged. */
void vm_mark_dirty(struct vm *vm, gpa_t gpa);
void vm_mark_dirty_in(struct vm *vm, unsigned space, gpa_t gpa);

/* slots_lock held. A dirty ring's entry was harvested: the next write to the page enters it anew. */
void vm_dirty_forget_locked(struct vm *vm, uint32_t slot, uint64_t offset);
/*
 * slots_lock held. Publish slots without gmem, and wait until nobody uses the old ones. False: no memory,
 * gmem may still be in use.
 */
bool slots_forget_gmem_locked(struct vm *vm, const struct gmem *gmem);

/* ---- ioctl handlers (see ioctl.h) ---- */
long vm_set_memory_region(struct vm *vm, void *arg);  /* struct kvm_userspace_memory_region */
long vm_set_memory_region2(struct vm *vm, void *arg); /* struct kvm_userspace_memory_region2 */
long vm_get_dirty_log(struct vm *vm, void *arg);
long vm_clear_dirty_log(struct vm *vm, void *arg);
long vm_set_tss_addr(struct vm *vm, void *arg);
long vm_set_identity_map_addr(struct vm *vm, void *arg);
long vm_set_nr_mmu_pages(struct vm *vm, void *arg);
long vm_set_boot_cpu_id(struct vm *vm, void *arg);
/* Of frequencies of guests' TSCs the first that KVM refuses, kHz. */
uint32_t vm_tsc_khz_limit(const struct vm *vm);
long vm_set_tsc_khz(struct vm *vm, void *arg);
long vm_get_tsc_khz(struct vm *vm, void *arg);

#endif
