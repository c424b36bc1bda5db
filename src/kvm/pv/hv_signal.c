/* SPDX-License-Identifier: MIT */
/*
 * HvCallSignalEvent to eventfds (KVM api.rst, KVM_HYPERV_EVENTFD): connections by number, each with a duplicate of
 * the program's eventfd.
 */
#include "kvm/pv/hv_internal.h"
#include "kvm/vm/eventfd.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define FLAG_NUMBER 0xffff00000000ull /* which flag of the port: none is known */

/* connections_lock held. Where the connection hangs, or where it would: *NULL. */
static struct hv_connection **find_locked(struct hv_vm *hv, uint32_t id)
{
	struct hv_connection **at = &hv->connections;

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

uint64_t hv_signal_call(struct vcpu *vcpu, struct hv_call *call)
{
	struct hv_vm *hv = hv_vm_of(vcpu->vm);
	uint64_t port = call->in;
	struct hv_connection *c;

	if (!call->fast && (call->in & (sizeof(port) - 1) ||
			    vm_read_guest(vcpu->vm, call->in, &port, sizeof(port))))
		return HV_STATUS_INVALID_ALIGNMENT;
	call->in = port; /* as KVM shows it to the program, should it come to that */
	if (port & FLAG_NUMBER)
		return HV_STATUS_INVALID_PORT_ID;
	if (port & ~(uint64_t)KVM_HYPERV_CONN_ID_MASK)
		return HV_STATUS_INVALID_INPUT;
	pthread_mutex_lock(&hv->connections_lock);
	c = *find_locked(hv, port);
	if (c)
		eventfd_raise(c->fd);
	pthread_mutex_unlock(&hv->connections_lock);
	return c ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PORT_ID;
}

static long assign(struct hv_vm *hv, uint32_t id, int fd)
{
	struct hv_connection *c = calloc(1, sizeof(*c)), **at;
	int r;

	if (!c)
		return -ENOMEM;
	c->id = id;
	r = eventfd_hold(fd, &c->fd);
	if (r) {
		free(c);
		return r;
	}
	pthread_mutex_lock(&hv->connections_lock);
	at = find_locked(hv, id);
	if (!*at) {
		*at = c;
		c = NULL;
	}
	pthread_mutex_unlock(&hv->connections_lock);
	if (!c)
		return 0;
	close(c->fd);
	free(c);
	return -EEXIST;
}

static long deassign(struct hv_vm *hv, uint32_t id)
{
	struct hv_connection **at, *c;

	pthread_mutex_lock(&hv->connections_lock);
	at = find_locked(hv, id);
	c = *at;
	if (c)
		*at = c->next;
	pthread_mutex_unlock(&hv->connections_lock);
	if (!c)
		return -ENOENT;
	close(c->fd);
	free(c);
	return 0;
}

long pv_hv_eventfd(struct vm *vm, void *arg)
{
	const struct kvm_hyperv_eventfd *args = arg;

	if (args->flags & ~KVM_HYPERV_EVENTFD_DEASSIGN || args->conn_id & ~KVM_HYPERV_CONN_ID_MASK)
		return -EINVAL;
	if (args->flags & KVM_HYPERV_EVENTFD_DEASSIGN)
		return deassign(hv_vm_of(vm), args->conn_id);
	return assign(hv_vm_of(vm), args->conn_id, args->fd);
}
