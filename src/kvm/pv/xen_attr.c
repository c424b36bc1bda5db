/* SPDX-License-Identifier: MIT */
/*
 * KVM_XEN_HVM_CONFIG and the attributes of VMs and vCPUs: one row each, with a getter and a setter. A row that needs
 * the host's scheduler statistics answers EOPNOTSUPP without them.
 */
#include "kvm/pv/xen_internal.h"

#include <errno.h>
#include <string.h>

#define CONFIG_FLAGS                                                           \
	(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND | \
	 KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE)
#define NOWHERE	     UINT64_MAX /* KVM_XEN_INVALID_GFN and _GPA */
#define FIRST_VECTOR 0x10

long pv_xen_config(struct vm *vm, void *arg)
{
	const struct kvm_xen_hvm_config *new = arg;
	struct xen_vm *xen = xen_vm_of(vm);
	uint32_t changed;

	if (new->flags & ~CONFIG_FLAGS)
		return -EINVAL;
	/* With hypercalls taken here the page is made here, too. */
	if (new->flags & KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL &&
	    (new->blob_addr_32 || new->blob_addr_64 || new->blob_size_32 || new->blob_size_64))
		return -EINVAL;
	vm_slots_claim(vm);
	changed = xen->config.flags ^ new->flags;
	xen->config = *new;
	vm_slots_unclaim(vm);
	if (changed & KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE)
		vcpu_request_all(vm, REQ_CLOCK_UPDATE, false);
	return 0;
}

/* ---- attributes of the VM; claim held ---- */

static int long_mode_get(struct vm *vm, struct kvm_xen_hvm_attr *attr)
{
	attr->u.long_mode = xen_vm_of(vm)->long_mode;
	return 0;
}

static int long_mode_set(struct vm *vm, const struct kvm_xen_hvm_attr *attr)
{
	struct xen_vm *xen = xen_vm_of(vm);

	__atomic_store_n(&xen->long_mode, attr->u.long_mode != 0, __ATOMIC_RELAXED);
	return xen->shared_info.active ? xen_write_wall_clock(vm) : 0;
}

/* What they wait for would come to the old place. A poll may end without an event: the guest looks again. */
static void wake_pollers(struct vm *vm)
{
	for (unsigned i = 0; i < vm_nr_vcpus(vm); i++)
		if (xen_of(vm->vcpus[i])->polling)
			xen_wake(vm->vcpus[i]);
}

static int set_shared(struct vm *vm, struct xen_place place)
{
	int r = place.active ? xen_place_check(vm, &place, PAGE_SIZE) : 0;

	if (r)
		return r;
	xen_vm_of(vm)->shared_info = place;
	wake_pollers(vm);
	return place.active ? xen_write_wall_clock(vm) : 0;
}

static int shared_get(struct vm *vm, struct kvm_xen_hvm_attr *attr)
{
	const struct xen_place *place = &xen_vm_of(vm)->shared_info;

	attr->u.shared_info.gfn = place->active && !place->by_hva ? place->addr >> PAGE_SHIFT
								  : NOWHERE;
	return 0;
}

static int shared_set(struct vm *vm, const struct kvm_xen_hvm_attr *attr)
{
	uint64_t gfn = attr->u.shared_info.gfn;

	return set_shared(vm,
			  (struct xen_place){.active = gfn != NOWHERE, .addr = gfn << PAGE_SHIFT});
}

static int shared_hva_get(struct vm *vm, struct kvm_xen_hvm_attr *attr)
{
	const struct xen_place *place = &xen_vm_of(vm)->shared_info;

	attr->u.shared_info.gfn = place->active && place->by_hva ? place->addr : 0;
	return 0;
}

static int shared_hva_set(struct vm *vm, const struct kvm_xen_hvm_attr *attr)
{
	uint64_t hva = attr->u.shared_info.gfn;

	if (hva & ~PAGE_MASK)
		return -EINVAL;
	return set_shared(vm, (struct xen_place){.active = hva, .by_hva = true, .addr = hva});
}

static int vector_get(struct vm *vm, struct kvm_xen_hvm_attr *attr)
{
	attr->u.vector = xen_vm_of(vm)->upcall_vector;
	return 0;
}

static int vector_set(struct vm *vm, const struct kvm_xen_hvm_attr *attr)
{
	if (attr->u.vector && attr->u.vector < FIRST_VECTOR)
		return -EINVAL;
	__atomic_store_n(&xen_vm_of(vm)->upcall_vector, attr->u.vector, __ATOMIC_RELAXED);
	return 0;
}

static int version_get(struct vm *vm, struct kvm_xen_hvm_attr *attr)
{
	attr->u.xen_version = xen_vm_of(vm)->version;
	return 0;
}

static int version_set(struct vm *vm, const struct kvm_xen_hvm_attr *attr)
{
	xen_vm_of(vm)->version = attr->u.xen_version;
	return 0;
}

static int update_flag_get(struct vm *vm, struct kvm_xen_hvm_attr *attr)
{
	attr->u.long_mode = xen_vm_of(vm)->runstate_update_flag;
	return 0;
}

static int update_flag_set(struct vm *vm, const struct kvm_xen_hvm_attr *attr)
{
	xen_vm_of(vm)->runstate_update_flag = attr->u.long_mode;
	return 0;
}

static const struct vm_row {
	uint16_t type;
	bool needs_delay; /* how long threads wait for a processor */
	int (*get)(struct vm *vm, struct kvm_xen_hvm_attr *attr);
	int (*set)(struct vm *vm, const struct kvm_xen_hvm_attr *attr);
} vm_rows[] = {
	{KVM_XEN_ATTR_TYPE_LONG_MODE, false, long_mode_get, long_mode_set},
	{KVM_XEN_ATTR_TYPE_SHARED_INFO, false, shared_get, shared_set},
	{KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA, false, shared_hva_get, shared_hva_set},
	{KVM_XEN_ATTR_TYPE_UPCALL_VECTOR, false, vector_get, vector_set},
	{KVM_XEN_ATTR_TYPE_XEN_VERSION, false, version_get, version_set},
	{KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG, true, update_flag_get, update_flag_set},
};

static const struct vm_row *vm_row(uint16_t type)
{
	for (unsigned i = 0; i < ARRAY_SIZE(vm_rows); i++)
		if (vm_rows[i].type == type)
			return &vm_rows[i];
	return NULL;
}

long pv_xen_vm_get_attr(struct vm *vm, void *arg)
{
	struct kvm_xen_hvm_attr *attr = arg;
	const struct vm_row *row = vm_row(attr->type);
	int r;

	if (!row)
		return -ENOENT;
	if (row->needs_delay && !pv_steal_available())
		return -EOPNOTSUPP;
	vm_slots_claim(vm);
	r = row->get(vm, attr);
	vm_slots_unclaim(vm);
	return r;
}

long pv_xen_vm_set_attr(struct vm *vm, void *arg)
{
	const struct kvm_xen_hvm_attr *attr = arg;
	const struct vm_row *row = vm_row(attr->type);
	int r;

	if (attr->type == KVM_XEN_ATTR_TYPE_EVTCHN)
		return xen_ports_set(vm, attr);
	if (!row)
		return -ENOENT;
	if (row->needs_delay && !pv_steal_available())
		return -EOPNOTSUPP;
	vm_slots_claim(vm);
	r = row->set(vm, attr);
	vm_slots_unclaim(vm);
	return r;
}

/* ---- attributes of a vCPU; vcpu->mutex and slots_lock held ---- */

static int info_get(struct vcpu *vcpu, struct kvm_xen_vcpu_attr *attr)
{
	const struct xen_place *place = &xen_of(vcpu)->info;

	attr->u.gpa = place->active && !place->by_hva ? place->addr : NOWHERE;
	return 0;
}

static int set_info(struct vcpu *vcpu, struct xen_place place)
{
	int r = 0;

	if (place.active && place.addr & 3)
		return -ENXIO;
	vm_slots_claim(vcpu->vm);
	if (place.active)
		r = xen_place_check(vcpu->vm, &place, XEN_INFO_SIZE);
	if (!r)
		xen_of(vcpu)->info = place;
	vm_slots_unclaim(vcpu->vm);
	if (!r && place.active)
		vcpu_request(vcpu, REQ_CLOCK_UPDATE);
	return r;
}

static int info_set(struct vcpu *vcpu, const struct kvm_xen_vcpu_attr *attr)
{
	return set_info(vcpu,
			(struct xen_place){.active = attr->u.gpa != NOWHERE, .addr = attr->u.gpa});
}

static int info_hva_get(struct vcpu *vcpu, struct kvm_xen_vcpu_attr *attr)
{
	const struct xen_place *place = &xen_of(vcpu)->info;

	attr->u.gpa = place->active && place->by_hva ? place->addr : 0;
	return 0;
}

static int info_hva_set(struct vcpu *vcpu, const struct kvm_xen_vcpu_attr *attr)
{
	return set_info(vcpu, (struct xen_place){
				      .active = attr->u.gpa, .by_hva = true, .addr = attr->u.gpa});
}

static int time_info_get(struct vcpu *vcpu, struct kvm_xen_vcpu_attr *attr)
{
	const struct xen_place *place = &xen_of(vcpu)->time_info;

	attr->u.gpa = place->active ? place->addr : NOWHERE;
	return 0;
}

static int time_info_set(struct vcpu *vcpu, const struct kvm_xen_vcpu_attr *attr)
{
	struct xen_place place = {.active = attr->u.gpa != NOWHERE, .addr = attr->u.gpa};
	int r = 0;

	if (place.active)
		r = xen_place_check(vcpu->vm, &place, sizeof(struct pv_time_info));
	if (r)
		return r;
	xen_of(vcpu)->time_info = place;
	if (place.active)
		vcpu_request(vcpu, REQ_CLOCK_UPDATE);
	return 0;
}

static int runstate_get(struct vcpu *vcpu, struct kvm_xen_vcpu_attr *attr)
{
	const struct xen_place *place = &xen_of(vcpu)->runstate;

	if (!place->active)
		return -ENOENT;
	attr->u.gpa = place->addr;
	return 0;
}

/* May lie across two pages. An address that is refused leaves none, as in KVM. */
static int runstate_set(struct vcpu *vcpu, const struct kvm_xen_vcpu_attr *attr)
{
	struct xen_place first = {.active = true, .addr = attr->u.gpa}, second = first;
	unsigned size = xen_layout(vcpu->vm)->runstate;
	unsigned part = min(size, (unsigned)(PAGE_SIZE - (first.addr & ~PAGE_MASK)));
	int r;

	xen_of(vcpu)->runstate.active = false;
	if (attr->u.gpa == NOWHERE)
		return 0;
	second.addr += part;
	r = xen_place_check(vcpu->vm, &first, part);
	if (!r && part < size)
		r = xen_place_check(vcpu->vm, &second, size - part);
	if (r)
		return r;
	xen_of(vcpu)->runstate = first;
	xen_runstate_show(vcpu);
	return 0;
}

static int current_get(struct vcpu *vcpu, struct kvm_xen_vcpu_attr *attr)
{
	attr->u.runstate.state = xen_of(vcpu)->state;
	return 0;
}

static int current_set(struct vcpu *vcpu, const struct kvm_xen_vcpu_attr *attr)
{
	if (attr->u.runstate.state > XEN_OFFLINE)
		return -EINVAL;
	xen_runstate_set(vcpu, attr->u.runstate.state);
	return 0;
}

/* The four times, by state. */
static void times_of(const struct kvm_xen_vcpu_attr *attr, uint64_t ret[XEN_NR_RUNSTATES])
{
	ret[XEN_RUNNING] = attr->u.runstate.time_running;
	ret[XEN_RUNNABLE] = attr->u.runstate.time_runnable;
	ret[XEN_BLOCKED] = attr->u.runstate.time_blocked;
	ret[XEN_OFFLINE] = attr->u.runstate.time_offline;
}

static bool times_add_up(const struct kvm_xen_vcpu_attr *attr)
{
	uint64_t t[XEN_NR_RUNSTATES];

	times_of(attr, t);
	return attr->u.runstate.state_entry_time == t[0] + t[1] + t[2] + t[3];
}

static int data_get(struct vcpu *vcpu, struct kvm_xen_vcpu_attr *attr)
{
	const struct xen *xen = xen_of(vcpu);

	attr->u.runstate.state = xen->state;
	attr->u.runstate.state_entry_time = xen->state_entry;
	attr->u.runstate.time_running = xen->times[XEN_RUNNING];
	attr->u.runstate.time_runnable = xen->times[XEN_RUNNABLE];
	attr->u.runstate.time_blocked = xen->times[XEN_BLOCKED];
	attr->u.runstate.time_offline = xen->times[XEN_OFFLINE];
	return 0;
}

static int data_set(struct vcpu *vcpu, const struct kvm_xen_vcpu_attr *attr)
{
	struct xen *xen = xen_of(vcpu);

	if (attr->u.runstate.state > XEN_OFFLINE || !times_add_up(attr) ||
	    clock_kvmclock_ns(vcpu->vm) < attr->u.runstate.state_entry_time)
		return -EINVAL;
	xen->state = attr->u.runstate.state;
	xen->state_entry = attr->u.runstate.state_entry_time;
	times_of(attr, xen->times);
	xen->last_delay = pv_run_delay(vcpu);
	return 0;
}

static int adjust_get(struct vcpu *vcpu, struct kvm_xen_vcpu_attr *attr)
{
	return -EINVAL;
}

/* Time that passed elsewhere, in migration say; state -1 keeps the state. */
static int adjust_set(struct vcpu *vcpu, const struct kvm_xen_vcpu_attr *attr)
{
	struct xen *xen = xen_of(vcpu);
	uint64_t state = attr->u.runstate.state, t[XEN_NR_RUNSTATES];

	if ((state > XEN_OFFLINE && state != UINT64_MAX) || !times_add_up(attr) ||
	    clock_kvmclock_ns(vcpu->vm) < xen->state_entry + attr->u.runstate.state_entry_time)
		return -EINVAL;
	times_of(attr, t);
	xen->state_entry += attr->u.runstate.state_entry_time;
	for (unsigned i = 0; i < XEN_NR_RUNSTATES; i++)
		xen->times[i] += t[i];
	if (state <= XEN_OFFLINE)
		xen_runstate_set(vcpu, state);
	else
		xen_runstate_show(vcpu);
	return 0;
}

static int id_get(struct vcpu *vcpu, struct kvm_xen_vcpu_attr *attr)
{
	attr->u.vcpu_id = xen_of(vcpu)->vcpu_id;
	return 0;
}

static int id_set(struct vcpu *vcpu, const struct kvm_xen_vcpu_attr *attr)
{
	if (attr->u.vcpu_id >= VM_MAX_VCPUS)
		return -EINVAL;
	xen_of(vcpu)->vcpu_id = attr->u.vcpu_id;
	return 0;
}

static int timer_get(struct vcpu *vcpu, struct kvm_xen_vcpu_attr *attr)
{
	const struct xen *xen = xen_of(vcpu);

	vm_slots_claim(vcpu->vm);
	attr->u.timer.port = xen->timer_port;
	attr->u.timer.expires_ns = xen->timer_expiry;
	vm_slots_unclaim(vcpu->vm);
	attr->u.timer.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL;
	return 0;
}

static int timer_set(struct vcpu *vcpu, const struct kvm_xen_vcpu_attr *attr)
{
	if (attr->u.timer.port && attr->u.timer.priority != KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL)
		return -EINVAL;
	xen_timer_stop(vcpu);
	vm_slots_claim(vcpu->vm);
	xen_of(vcpu)->timer_port = attr->u.timer.port;
	vm_slots_unclaim(vcpu->vm);
	if (attr->u.timer.port && attr->u.timer.expires_ns)
		xen_timer_start(vcpu, attr->u.timer.expires_ns, false);
	return 0;
}

static int own_vector_get(struct vcpu *vcpu, struct kvm_xen_vcpu_attr *attr)
{
	attr->u.vector = xen_of(vcpu)->upcall_vector;
	return 0;
}

static int own_vector_set(struct vcpu *vcpu, const struct kvm_xen_vcpu_attr *attr)
{
	if (attr->u.vector && attr->u.vector < FIRST_VECTOR)
		return -EINVAL;
	vm_slots_claim(vcpu->vm);
	xen_of(vcpu)->upcall_vector = attr->u.vector;
	vm_slots_unclaim(vcpu->vm);
	return 0;
}

static const struct vcpu_row {
	uint16_t type;
	bool needs_delay;
	int (*get)(struct vcpu *vcpu, struct kvm_xen_vcpu_attr *attr);
	int (*set)(struct vcpu *vcpu, const struct kvm_xen_vcpu_attr *attr);
} vcpu_rows[] = {
	{KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, false, info_get, info_set},
	{KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA, false, info_hva_get, info_hva_set},
	{KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO, false, time_info_get, time_info_set},
	{KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, true, runstate_get, runstate_set},
	{KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT, true, current_get, current_set},
	{KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA, true, data_get, data_set},
	{KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST, true, adjust_get, adjust_set},
	{KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID, false, id_get, id_set},
	{KVM_XEN_VCPU_ATTR_TYPE_TIMER, false, timer_get, timer_set},
	{KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR, false, own_vector_get, own_vector_set},
};

static const struct vcpu_row *vcpu_row(uint16_t type)
{
	for (unsigned i = 0; i < ARRAY_SIZE(vcpu_rows); i++)
		if (vcpu_rows[i].type == type)
			return &vcpu_rows[i];
	return NULL;
}

long pv_xen_vcpu_get_attr(struct vcpu *vcpu, void *arg)
{
	struct kvm_xen_vcpu_attr *attr = arg;
	const struct vcpu_row *row = vcpu_row(attr->type);

	if (!row)
		return -ENOENT;
	/* That one is for writing only, whatever the host has. */
	if (row->needs_delay && row->get != adjust_get && !pv_steal_available())
		return -EOPNOTSUPP;
	return row->get(vcpu, attr);
}

long pv_xen_vcpu_set_attr(struct vcpu *vcpu, void *arg)
{
	const struct kvm_xen_vcpu_attr *attr = arg;
	const struct vcpu_row *row = vcpu_row(attr->type);

	if (!row)
		return -ENOENT;
	if (row->needs_delay && !pv_steal_available())
		return -EOPNOTSUPP;
	return row->set(vcpu, attr);
}
