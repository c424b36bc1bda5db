/* SPDX-License-Identifier: MIT */
/*
 * irqfds (KVM api.rst, KVM_IRQFD): the service thread watches a duplicate of the program's eventfd
 * and drives the GSI when it is signalled. KVM does so within the write to the eventfd: so whatever shows or changes where
 * interrupts go settles first what was signalled before. A resampling irqfd holds the line high until the guest's
 * EOI, and then tells the program by its resamplefd.
 *
 * The list is under irq_lock. Two eventfds are the same if their kernel ids are (fdinfo).
 */
#include "kvm/vm/eventfd.h"
#include "kvm/vm/ioctl.h"
#include "kvm/vm/routing.h"
#include "kvm/vm/service.h"
#include "kvm/vm/stats.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

struct irqfd {
	struct irqfd *next;
	struct service_watch watch; /* ->fd is the duplicate */
	struct vm *vm;
	uint64_t id;
	uint32_t gsi;
	bool resample;
	bool gone; /* not in the list any more */
	int resamplefd;
};

void eventfd_raise(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) < 0)
		return; /* the counter is full: it is signalled already */
}

/* Take the counter without ever waiting: the program may have read it first. */
static bool drain_fd(int fd)
{
	uint64_t count;
	struct iovec iov = {&count, sizeof(count)};

	return preadv2(fd, &iov, 1, -1, RWF_NOWAIT) == sizeof(count);
}

/* The counter is taken and the line driven under one hold of the lock: nobody sees what was signalled in neither place. */
static void fire_locked(struct irqfd *irqfd)
{
	struct vm *vm = irqfd->vm;

	if (!drain_fd(irqfd->watch.fd))
		return;
	stats_add(vm->stats, STAT_VM_irqfd_signals, 1);
	if (irqfd->resample) {
		irq_set_locked(vm, irqfd->gsi, 1, IRQ_SOURCE_RESAMPLE);
	} else {
		irq_set_locked(vm, irqfd->gsi, 1, IRQ_SOURCE_USER);
		irq_set_locked(vm, irqfd->gsi, 0, IRQ_SOURCE_USER);
	}
}

/* Service thread. */
static void irqfd_ready(struct service_watch *watch)
{
	struct irqfd *irqfd = container_of(watch, struct irqfd, watch);
	struct vm *vm = irqfd->vm;

	pthread_mutex_lock(&vm->irq_lock);
	if (!irqfd->gone)
		fire_locked(irqfd);
	pthread_mutex_unlock(&vm->irq_lock);
}

void irqfd_settle_locked(struct vm *vm)
{
	for (struct irqfd *i = vm->irqfds; i; i = i->next)
		fire_locked(i);
}

bool irqfd_notify_locked(struct vm *vm, uint32_t gsi)
{
	bool any = false;

	for (struct irqfd *i = vm->irqfds; i; i = i->next)
		if (i->resample && i->gsi == gsi) {
			eventfd_raise(i->resamplefd);
			any = true;
		}
	return any;
}

static bool has_resampler_locked(const struct vm *vm, uint32_t gsi)
{
	for (struct irqfd *i = vm->irqfds; i; i = i->next)
		if (i->resample && i->gsi == gsi)
			return true;
	return false;
}

void irqfd_resample_locked(struct vm *vm, uint32_t gsi)
{
	if (!has_resampler_locked(vm, gsi))
		return;
	irq_set_locked(vm, gsi, 0, IRQ_SOURCE_RESAMPLE);
	irqfd_notify_locked(vm, gsi);
}

/* ---- assign and deassign ---- */

static void irqfd_free(struct irqfd *irqfd)
{
	if (irqfd->watch.fd >= 0)
		close(irqfd->watch.fd);
	if (irqfd->resamplefd >= 0)
		close(irqfd->resamplefd);
	free(irqfd);
}

static int hold_fd(int fd, int *ret)
{
	int copy = service_fd_hide(fcntl(fd, F_DUPFD_CLOEXEC, 3));

	if (copy < 0)
		return -errno;
	*ret = copy;
	return 0;
}

int eventfd_hold(int fd, int *ret)
{
	uint64_t id;
	int r = eventfd_id(fd, &id);

	return r ? r : hold_fd(fd, ret);
}

static int irqfd_open(struct irqfd *irqfd, const struct kvm_irqfd *args)
{
	int r = eventfd_id(args->fd, &irqfd->id);
	uint64_t id;

	if (!r && irqfd->resample)
		r = eventfd_id(args->resamplefd, &id);
	if (!r)
		r = hold_fd(args->fd, &irqfd->watch.fd);
	if (!r && irqfd->resample)
		r = hold_fd(args->resamplefd, &irqfd->resamplefd);
	return r;
}

static int irqfd_insert(struct irqfd *irqfd)
{
	struct vm *vm = irqfd->vm;
	int r = 0;

	pthread_mutex_lock(&vm->irq_lock);
	for (struct irqfd *i = vm->irqfds; i; i = i->next)
		if (i->id == irqfd->id)
			r = -EBUSY;
	if (!r) {
		irqfd->next = vm->irqfds;
		vm->irqfds = irqfd;
	}
	pthread_mutex_unlock(&vm->irq_lock);
	return r;
}

/* Unlink the first entry that matches, or NULL. The last resampler of a GSI lowers its line. */
static struct irqfd *irqfd_take(struct vm *vm, uint64_t id, int64_t gsi)
{
	struct irqfd **at, *found = NULL;

	pthread_mutex_lock(&vm->irq_lock);
	for (at = &vm->irqfds; *at && !found;) {
		if ((*at)->id == id && (gsi < 0 || (*at)->gsi == gsi)) {
			found = *at;
			*at = found->next;
			found->gone = true; /* a signal under way must not raise the line again */
		} else {
			at = &(*at)->next;
		}
	}
	if (found && found->resample && !has_resampler_locked(vm, found->gsi))
		irq_set_locked(vm, found->gsi, 0, IRQ_SOURCE_RESAMPLE);
	pthread_mutex_unlock(&vm->irq_lock);
	return found;
}

static long assign(struct vm *vm, const struct kvm_irqfd *args)
{
	struct irqfd *irqfd;
	long r;

	if (!vm_irqchip(vm))
		return -EAGAIN;
	if (args->flags & KVM_IRQFD_FLAG_RESAMPLE && !vm->irqchip_full)
		return -EINVAL;
	irqfd = calloc(1, sizeof(*irqfd));
	if (!irqfd)
		return -ENOMEM;
	irqfd->vm = vm;
	irqfd->gsi = args->gsi;
	irqfd->resample = args->flags & KVM_IRQFD_FLAG_RESAMPLE;
	irqfd->watch = (struct service_watch){.ready = irqfd_ready, .fd = -1};
	irqfd->resamplefd = -1;
	r = irqfd_open(irqfd, args);
	if (!r)
		r = irqfd_insert(irqfd);
	if (!r) {
		r = service_watch(vm->service, &irqfd->watch);
		if (r)
			irqfd_take(vm, irqfd->id, -1);
	}
	if (r)
		irqfd_free(irqfd);
	return r;
}

static long deassign(struct vm *vm, const struct kvm_irqfd *args)
{
	struct irqfd *irqfd;
	uint64_t id;
	long r = eventfd_id(args->fd, &id);

	pthread_mutex_lock(&vm->irq_lock);
	irqfd_settle_locked(vm);
	pthread_mutex_unlock(&vm->irq_lock);
	while (!r && (irqfd = irqfd_take(vm, id, args->gsi))) {
		service_unwatch(vm->service, &irqfd->watch);
		irqfd_free(irqfd);
	}
	return r;
}

long vm_irqfd(struct vm *vm, void *arg)
{
	const struct kvm_irqfd *args = arg;
	long r;

	if (args->flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE))
		return -EINVAL;
	/* One after the other: what is in the list but not yet watched must not be freed. */
	pthread_mutex_lock(&vm->lock);
	r = args->flags & KVM_IRQFD_FLAG_DEASSIGN ? deassign(vm, args) : assign(vm, args);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

void irqfd_release_all(struct vm *vm)
{
	while (vm->irqfds) {
		struct irqfd *irqfd = irqfd_take(vm, vm->irqfds->id, -1);

		service_unwatch(vm->service, &irqfd->watch);
		irqfd_free(irqfd);
	}
}
