/* SPDX-License-Identifier: MIT */
/*
 * Event channels that the guest sends on by EVTCHNOP_send (KVM_XEN_ATTR_TYPE_EVTCHN): to another port of its own, or
 * to an eventfd. What is not known here is user space's.
 */
#include "kvm/pv/xen_internal.h"
#include "kvm/vm/eventfd.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static void port_free(struct xen_port *p)
{
	if (!p->to.port)
		close(p->fd);
	free(p);
}

/* Claim held. Where the port hangs, or where it would: *NULL. */
static struct xen_port **find_claimed(struct xen_vm *xen, uint32_t port)
{
	struct xen_port **at = &xen->ports;

	while (*at && (*at)->port != port)
		at = &(*at)->next;
	return at;
}

void xen_ports_free(struct vm *vm)
{
	struct xen_vm *xen = xen_vm_of(vm);
	struct xen_port *p, *next;

	vm_slots_claim(vm);
	p = xen->ports;
	xen->ports = NULL;
	vm_slots_unclaim(vm);
	for (; p; p = next) {
		next = p->next;
		port_free(p);
	}
}

static int fill_target(const struct vm *vm, const struct kvm_xen_hvm_attr *attr,
		       struct xen_port *ret)
{
	uint32_t to = attr->u.evtchn.deliver.port.port;

	switch (attr->u.evtchn.type) {
	case XEN_EVTCHN_IPI:
		if (to != attr->u.evtchn.send_port)
			return -EINVAL;
		break;
	case XEN_EVTCHN_INTERDOMAIN:
		if (to >= xen_layout(vm)->ports)
			return -EINVAL;
		break;
	default:
		return -EINVAL;
	}
	if (!to)
		return eventfd_hold(attr->u.evtchn.deliver.eventfd.fd, &ret->fd);
	ret->to.port = to;
	ret->to.vcpu = attr->u.evtchn.deliver.port.vcpu;
	ret->to.priority = attr->u.evtchn.deliver.port.priority;
	return pv_xen_check_route(&ret->to);
}

static int assign(struct vm *vm, const struct kvm_xen_hvm_attr *attr)
{
	struct xen_port *p = calloc(1, sizeof(*p)), **at;
	int r;

	if (!p)
		return -ENOMEM;
	p->port = attr->u.evtchn.send_port;
	p->type = attr->u.evtchn.type;
	r = fill_target(vm, attr, p);
	if (r) {
		free(p);
		return r;
	}
	vm_slots_claim(vm);
	at = find_claimed(xen_vm_of(vm), p->port);
	if (!*at) {
		*at = p;
		p = NULL;
	}
	vm_slots_unclaim(vm);
	if (p)
		port_free(p);
	return p ? -EEXIST : 0;
}

static int deassign(struct vm *vm, uint32_t port)
{
	struct xen_port **at, *p;

	vm_slots_claim(vm);
	at = find_claimed(xen_vm_of(vm), port);
	p = *at;
	if (p)
		*at = p->next;
	vm_slots_unclaim(vm);
	if (!p)
		return -ENOENT;
	port_free(p);
	return 0;
}

/* Only the vCPU may change. */
static int update(struct vm *vm, const struct kvm_xen_hvm_attr *attr)
{
	struct xen_port *p;
	int r = -EINVAL;

	vm_slots_claim(vm);
	p = *find_claimed(xen_vm_of(vm), attr->u.evtchn.send_port);
	if (!p) {
		r = -ENOENT;
	} else if (p->type == attr->u.evtchn.type && p->to.port &&
		   p->to.port == attr->u.evtchn.deliver.port.port &&
		   attr->u.evtchn.deliver.port.priority == KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL) {
		p->to.vcpu = attr->u.evtchn.deliver.port.vcpu;
		r = 0;
	}
	vm_slots_unclaim(vm);
	return r;
}

int xen_ports_set(struct vm *vm, const struct kvm_xen_hvm_attr *attr)
{
	uint32_t port = attr->u.evtchn.send_port;

	if (attr->u.evtchn.flags == KVM_XEN_EVTCHN_RESET) {
		xen_ports_free(vm);
		return 0;
	}
	if (!port || port >= xen_layout(vm)->ports)
		return -EINVAL;
	switch (attr->u.evtchn.flags) {
	case 0:
		return assign(vm, attr);
	case KVM_XEN_EVTCHN_DEASSIGN:
		return deassign(vm, port);
	case KVM_XEN_EVTCHN_UPDATE:
		return update(vm, attr);
	default:
		return -EINVAL;
	}
}

bool xen_ports_send(struct vm *vm, uint32_t port)
{
	struct kvm_irq_routing_xen_evtchn to = {0};
	const struct xen_port *p;
	int r;

	vm_slots_claim(vm);
	p = *find_claimed(xen_vm_of(vm), port);
	if (p)
		to = p->to;
	if (p && !to.port)
		eventfd_raise(p->fd);
	vm_slots_unclaim(vm);
	if (!p || !to.port)
		return p;
	r = pv_xen_set_evtchn(vm, &to);
	return r >= 0 || r == -ENOTCONN;
}
