/* SPDX-License-Identifier: MIT */
/*
 * guest_memfd as a file (KVM api.rst, KVM_CREATE_GUEST_MEMFD). The program gets an O_PATH fd: it can be duplicated,
 * passed on and looked at by fstat(2), but neither read, written nor mapped. fallocate(2) comes here by the door.
 */
#include "kvm/api/api_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static int path_fd(int fd)
{
	char path[32];
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = open(path, O_PATH);
	return r < 0 ? -errno : r;
}

/* Known to the registry, so that the VM lives as long as the file. */
static int publish(struct vm *vm, int fd, uint64_t size, struct object *object)
{
	int shown, r = gmem_create(vm, fd, size, &object->gmem);

	if (r)
		return r;
	shown = path_fd(fd);
	r = shown < 0 ? shown : registry_add(object);
	if (!r)
		return shown;
	if (shown >= 0)
		close(shown);
	gmem_release(vm, object->gmem);
	return r;
}

long api_create_guest_memfd(struct vm *vm, void *arg)
{
	const struct kvm_create_guest_memfd *args = arg;
	struct object object = {.kind = OBJECT_GMEM, .vm = vm};
	int fd, r = gmem_check(args);

	if (r)
		return r;
	fd = registry_file("anykvm:gmem", args->size, &object);
	if (fd < 0)
		return fd;
	r = publish(vm, fd, args->size, &object);
	close(fd);
	return r;
}

int api_gmem_of(struct vm *vm, int fd, struct gmem **ret)
{
	struct object object = {0};

	if (fcntl(fd, F_GETFD) < 0)
		return -EBADF;
	if (registry_find(fd, &object) != FIND_OBJECT)
		return -EINVAL;
	vm_put(object.vm);
	if (object.kind != OBJECT_GMEM || object.vm != vm)
		return -EINVAL;
	*ret = object.gmem;
	return 0;
}

long api_fallocate(int fd, int mode, int64_t offset, int64_t len)
{
	struct object object = {0};
	long r = -EBADF;

	if (registry_find(fd, &object) != FIND_OBJECT)
		return -EBADF;
	if (object.kind == OBJECT_GMEM)
		r = gmem_fallocate(object.gmem, mode, offset, len);
	vm_put(object.vm);
	return r;
}
