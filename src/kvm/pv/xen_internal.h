/* SPDX-License-Identifier: MIT */
/*
 * Private to the Xen files of kvm/pv.
 *
 * Events are sent by any thread. So what they need is under the claim on the VM's memory slots (vm_slots_claim()),
 * a leaf lock: all of struct xen_vm, and the members of struct xen that say so.
 */
#ifndef KVM_PV_XEN_INTERNAL_H
#define KVM_PV_XEN_INTERNAL_H

#include "kvm/pv/pv_internal.h"
#include "kvm/pv/xen.h"
#include "kvm/pv/xen_abi.h"

/* A place that the program named, by guest address or by its own. */
struct xen_place {
	bool active, by_hva;
	uint64_t addr;
};

/* An event channel that the guest sends on. */
struct xen_port {
	struct xen_port *next;
	uint32_t port, type;
	struct kvm_irq_routing_xen_evtchn to; /* port 0: to the eventfd */
	int fd;
};

struct xen_vm {
	struct kvm_xen_hvm_config config;
	bool long_mode;
	bool runstate_update_flag;
	uint8_t upcall_vector;
	uint32_t version;
	struct xen_place shared_info;
	struct xen_port *ports;
};

struct xen {
	struct vcpu *vcpu;
	/* Claim. */
	struct xen_place info;
	uint64_t pending_sel; /* selector bits that vcpu_info could not take */
	uint8_t upcall_vector;
	uint32_t timer_port;
	uint64_t timer_expiry; /* kvmclock ns; 0: not set */
	bool polling;	       /* SCHEDOP_poll put the vCPU to sleep */
	int64_t poll_port;     /* what for: a port, or -1 for several */
	/* The vCPU's thread. */
	struct xen_place time_info, runstate;
	uint32_t vcpu_id;
	uint32_t cpuid_base, cpuid_limit;
	uint32_t state; /* enum xen_runstate */
	uint64_t state_entry, times[XEN_NR_RUNSTATES], last_delay;
	struct service_timer timer, poll_timer;
	int64_t timer_slack; /* ns that the timer may find kvmclock behind, by the way that it waited */
};

static inline struct xen *xen_of(const struct vcpu *vcpu)
{
	return vcpu->pv->xen;
}

static inline struct xen_vm *xen_vm_of(const struct vm *vm)
{
	return vm->pv->xen;
}

/* ---- xen.c ---- */

const struct xen_layout *xen_layout(const struct vm *vm);
/* Claim held, or slots_lock. Host pointer of size bytes at off in a place, or NULL. */
uint8_t *xen_pointer(const struct vm *vm, const struct xen_place *place, unsigned off,
		     unsigned size);
/* The same. 0 or -errno: size bytes of one page may be written there. */
int xen_place_check(const struct vm *vm, const struct xen_place *place, unsigned size);
/* Claim held: the wall clock in shared info. 0 or -EFAULT. */
int xen_write_wall_clock(struct vm *vm);

/* ---- xen_evtchn.c ---- */

/* A bit of a bitmap in guest memory: its old value, or -EFAULT. Claim held. */
int xen_test_bit(const uint8_t *map, unsigned bit);
/* The vCPU leaves SCHEDOP_poll, and looks for an upcall. Any thread. */
void xen_wake(struct vcpu *vcpu);

/* ---- xen_ports.c: claim not held ---- */

/* KVM_XEN_ATTR_TYPE_EVTCHN: 0 or -errno. */
int xen_ports_set(struct vm *vm, const struct kvm_xen_hvm_attr *attr);
void xen_ports_free(struct vm *vm);
/* EVTCHNOP_send: false if user space must. */
bool xen_ports_send(struct vm *vm, uint32_t port);

/* ---- xen_time.c ---- */

void xen_timer_start(struct vcpu *vcpu, uint64_t expiry, bool linux_quirk);
void xen_timer_stop(struct vcpu *vcpu);
void xen_timers_init(struct vcpu *vcpu);
/* Time goes to the old state, and the new one is shown. */
void xen_runstate_set(struct vcpu *vcpu, uint32_t state);
void xen_runstate_show(struct vcpu *vcpu);

#endif
