/* SPDX-License-Identifier: MIT */
/*
 * guest_memfd (KVM api.rst, KVM_CREATE_GUEST_MEMFD). The file is a memfd that the program holds by an O_PATH fd
 * only, so that the kernel refuses to read, write or map it. Pages are allocated and punched out through the
 * mapping that is made here.
 */
#include "kvm/vm/private.h"
#include "kvm/vm/ioctl.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

int gmem_check(const struct kvm_create_guest_memfd *args)
{
	if (args->flags)
		return -EINVAL;
	if ((int64_t)args->size <= 0 || args->size & ~PAGE_MASK)
		return -EINVAL;
	return 0;
}

int gmem_create(struct vm *vm, int fd, uint64_t size, struct gmem **ret)
{
	struct gmem *gmem = calloc(1, sizeof(*gmem));
	void *hva;

	if (!gmem)
		return -ENOMEM;
	hva = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (hva == MAP_FAILED) {
		free(gmem);
		return -ENOMEM;
	}
	gmem->hva = hva;
	gmem->nr_pages = size >> PAGE_SHIFT;
	pthread_mutex_lock(&vm->slots_lock);
	gmem->next = vm->gmems;
	vm->gmems = gmem;
	pthread_mutex_unlock(&vm->slots_lock);
	*ret = gmem;
	return 0;
}

static void gmem_free(struct gmem *gmem)
{
	munmap(gmem->hva, gmem->nr_pages << PAGE_SHIFT);
	free(gmem);
}

void gmem_free_all(struct vm *vm)
{
	while (vm->gmems) {
		struct gmem *gmem = vm->gmems;

		vm->gmems = gmem->next;
		gmem_free(gmem);
	}
}

void gmem_release(struct vm *vm, struct gmem *gmem)
{
	struct gmem **at = &vm->gmems;
	bool unused;

	pthread_mutex_lock(&vm->slots_lock);
	unused = slots_forget_gmem_locked(vm, gmem);
	while (*at != gmem)
		at = &(*at)->next;
	if (unused)
		*at = gmem->next;
	pthread_mutex_unlock(&vm->slots_lock);
	if (unused)
		gmem_free(gmem);
}

uint8_t *slot_private_hva(const struct memslot *slot, gfn_t gfn)
{
	if (!slot->gmem)
		return NULL;
	return slot->gmem->hva + ((gfn - slot->gfn + slot->gmem_page) << PAGE_SHIFT);
}

/* ---- fallocate ---- */

static int punch(struct gmem *gmem, uint64_t offset, uint64_t len)
{
	uint64_t size = gmem->nr_pages << PAGE_SHIFT;

	if (offset >= size)
		return 0;
	return madvise(gmem->hva + offset, min(len, size - offset), MADV_REMOVE) ? -errno : 0;
}

/* A kernel that cannot allocate ahead does so at the first access. */
static int allocate(struct gmem *gmem, uint64_t offset, uint64_t len)
{
	if (offset + len > gmem->nr_pages << PAGE_SHIFT)
		return -EINVAL;
	if (madvise(gmem->hva + offset, len, MADV_POPULATE_WRITE) && errno != EINVAL)
		return errno == EFAULT ? -ENOMEM : -errno;
	return 0;
}

int gmem_fallocate(struct gmem *gmem, int mode, int64_t offset, int64_t len)
{
	if (offset < 0 || len <= 0)
		return -EINVAL;
	if (!(mode & FALLOC_FL_KEEP_SIZE) || mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE))
		return -EOPNOTSUPP;
	if (offset + (uint64_t)len > INT64_MAX)
		return -EFBIG;
	if ((offset | len) & ~PAGE_MASK)
		return -EINVAL;
	return mode & FALLOC_FL_PUNCH_HOLE ? punch(gmem, offset, len) : allocate(gmem, offset, len);
}

/* ---- binding to slots ---- */

static bool bound_in(const struct memslots *slots, const struct gmem *gmem, uint64_t first,
		     uint64_t nr)
{
	for (unsigned i = 0; i < slots->nr; i++) {
		const struct memslot *s = slots->v[i].slot;

		if (s->gmem == gmem && s->gmem_page < first + nr &&
		    first < s->gmem_page + s->nr_pages)
			return true;
	}
	return false;
}

int gmem_bind_locked(struct vm *vm, const struct kvm_userspace_memory_region2 *mem,
		     struct gmem **ret)
{
	uint64_t first = mem->guest_memfd_offset >> PAGE_SHIFT;
	uint64_t nr = mem->memory_size >> PAGE_SHIFT;
	int r = vm->ops->gmem(vm, mem->guest_memfd, ret);

	if (r)
		return r;
	if (first + nr > (*ret)->nr_pages)
		return -EINVAL;
	for (unsigned i = 0; i < VM_ADDRESS_SPACES; i++)
		if (bound_in(vm->slots[i], *ret, first, nr))
			return -EINVAL;
	return 0;
}
