/* SPDX-License-Identifier: MIT */
/*
 * ioeventfds (KVM api.rst, KVM_IOEVENTFD): a guest write to a port or address that matches signals
 * an eventfd instead of leaving KVM_RUN.
 */
#include "kvm/vm/bus.h"
#include "kvm/vm/eventfd.h"
#include "kvm/vm/ioctl.h"
#include "kvm/vm/service.h"
#include "kvm/vm/stats.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VALID_FLAGS                                                                            \
	(KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DEASSIGN | \
	 KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY)

struct ioeventfd {
	struct bus_device dev;
	struct ioeventfd *next;
	int fd; /* our duplicate */
	uint64_t id;
	unsigned bus; /* KVM's number: MMIO, ports, CCW (which no x86 guest reaches) */
	uint32_t len; /* 0: any */
	bool wildcard;
	uint64_t datamatch;
	struct stats_block *stats;
};

enum { BUS_MMIO, BUS_PORT, BUS_CCW };

int eventfd_id(int fd, uint64_t *ret)
{
	char path[48], buf[512], *at;
	ssize_t n;
	int info;

	if (fcntl(fd, F_GETFD) < 0)
		return -EBADF;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	if (info < 0)
		return -EINVAL;
	n = read(info, buf, sizeof(buf) - 1);
	close(info);
	if (n <= 0)
		return -EINVAL;
	buf[n] = 0;
	at = strstr(buf, "eventfd-count:");
	if (!at)
		return -EINVAL;
	at = strstr(buf, "eventfd-id:");
	*ret = at ? strtoull(at + strlen("eventfd-id:"), NULL, 10) : (1ull << 32) + fd;
	return 0;
}

static bool ioeventfd_write(struct bus_device *dev, struct vcpu *vcpu, uint64_t addr, unsigned size,
			    uint64_t val)
{
	struct ioeventfd *p = container_of(dev, struct ioeventfd, dev);
	uint64_t one = 1, mask = size < 8 ? BIT(size * 8) - 1 : ~0ull;

	if (addr != p->dev.addr)
		return false;
	if (p->len && (size != p->len || (!p->wildcard && (val & mask) != p->datamatch)))
		return false;
	stats_add(p->stats, STAT_VM_ioeventfd_signals, 1);
	if (write(p->fd, &one, sizeof(one)) < 0)
		return true; /* the counter is full: it is signalled already */
	return true;
}

static unsigned bus_of_flags(uint32_t flags)
{
	if (flags & KVM_IOEVENTFD_FLAG_PIO)
		return BUS_PORT;
	return flags & KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY ? BUS_CCW : BUS_MMIO;
}

static bool collides(const struct ioeventfd *a, const struct ioeventfd *b)
{
	if (a->bus != b->bus || a->dev.addr != b->dev.addr)
		return false;
	if (!a->len || !b->len)
		return true;
	return a->len == b->len && (a->wildcard || b->wildcard || a->datamatch == b->datamatch);
}

static int add_locked(struct vm *vm, struct ioeventfd *p)
{
	int r = 0;

	for (struct ioeventfd *i = vm->ioeventfds; i; i = i->next)
		if (collides(i, p))
			return -EEXIST;
	if (p->bus != BUS_CCW)
		r = bus_add_locked(vm, p->bus == BUS_PORT, &p->dev);
	if (r)
		return r;
	p->next = vm->ioeventfds;
	vm->ioeventfds = p;
	return 0;
}

static void ioeventfd_free(struct ioeventfd *p)
{
	if (p->fd >= 0)
		close(p->fd);
	free(p);
}

static int args_check(const struct kvm_ioeventfd *args)
{
	if (args->len > 8 || (args->len & (args->len - 1)))
		return -EINVAL;
	if (args->addr + args->len < args->addr)
		return -EINVAL;
	if (args->flags & ~VALID_FLAGS)
		return -EINVAL;
	if (!args->len && args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH)
		return -EINVAL;
	return 0;
}

static long assign(struct vm *vm, const struct kvm_ioeventfd *args)
{
	struct ioeventfd *p;
	uint64_t id;
	long r = args_check(args);

	if (!r)
		r = eventfd_id(args->fd, &id);
	if (r)
		return r;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->dev = (struct bus_device){
		.addr = args->addr, .size = args->len, .write = ioeventfd_write};
	p->stats = vm->stats;
	p->id = id;
	p->bus = bus_of_flags(args->flags);
	p->len = args->len;
	p->wildcard = !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);
	p->datamatch = p->wildcard ? 0 : args->datamatch;
	p->fd = service_fd_hide(fcntl(args->fd, F_DUPFD_CLOEXEC, 3));
	r = p->fd < 0 ? -errno : 0;
	pthread_mutex_lock(&vm->slots_lock);
	if (!r)
		r = add_locked(vm, p);
	pthread_mutex_unlock(&vm->slots_lock);
	if (r)
		ioeventfd_free(p);
	return r;
}

static bool matches(const struct ioeventfd *p, const struct kvm_ioeventfd *args, uint64_t id)
{
	bool wildcard = !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);

	return p->bus == bus_of_flags(args->flags) && p->id == id && p->dev.addr == args->addr &&
	       p->len == args->len && p->wildcard == wildcard &&
	       (wildcard || p->datamatch == args->datamatch);
}

static long deassign(struct vm *vm, const struct kvm_ioeventfd *args)
{
	struct ioeventfd **at, *found = NULL;
	uint64_t id;
	long r = eventfd_id(args->fd, &id);

	if (r)
		return r;
	pthread_mutex_lock(&vm->slots_lock);
	for (at = &vm->ioeventfds; *at; at = &(*at)->next)
		if (matches(*at, args, id)) {
			found = *at;
			*at = found->next;
			if (found->bus != BUS_CCW)
				bus_remove_locked(vm, found->bus == BUS_PORT, &found->dev);
			break;
		}
	pthread_mutex_unlock(&vm->slots_lock);
	if (!found)
		return -ENOENT;
	ioeventfd_free(found);
	return 0;
}

long vm_ioeventfd(struct vm *vm, void *arg)
{
	const struct kvm_ioeventfd *args = arg;

	return args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN ? deassign(vm, args) : assign(vm, args);
}

void ioeventfd_release_all(struct vm *vm)
{
	while (vm->ioeventfds) {
		struct ioeventfd *p = vm->ioeventfds;

		vm->ioeventfds = p->next;
		ioeventfd_free(p);
	}
}
