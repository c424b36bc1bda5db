/* SPDX-License-Identifier: MIT */
/*
 * Code memory: one anonymous file mapped twice, once writable and once executable, so that no page is
 * ever both. Not inherited by fork(2): the mappings are shared, and a child has no business in them.
 */
#include "host/host.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static int map(uint8_t **ret, size_t size, int prot, int fd)
{
	void *p = mmap(NULL, size, prot, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	madvise(p, size, MADV_DONTFORK);
	*ret = p;
	return 0;
}

int host_code_alloc(struct host_code *code, size_t size)
{
	uint8_t *rw = NULL, *rx = NULL;
	int err, fd;

	size = ALIGN_UP(size, PAGE_SIZE);
	if (!size)
		return -EINVAL;
	fd = host_memfd("anykvm:code", size, true);
	if (fd < 0)
		return fd;
	err = map(&rw, size, PROT_READ | PROT_WRITE, fd);
	if (err)
		goto out;
	err = map(&rx, size, PROT_READ | PROT_EXEC, fd);
	if (err) {
		munmap(rw, size);
		goto out;
	}
	*code = (struct host_code){.rw = rw, .rx = rx, .size = size};
out:
	host_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
	return err;
}

void host_code_settle(const struct host_code *code, size_t from, size_t to)
{
	from = ALIGN_DOWN(from, PAGE_SIZE);
	to = ALIGN_DOWN(to, PAGE_SIZE);
	if (from < to)
		host_syscall(SYS_madvise, (long)(code->rw + from), to - from, MADV_DONTNEED, 0, 0,
			     0);
}

void host_code_free(struct host_code *code)
{
	if (!code->size)
		return;
	munmap(code->rw, code->size);
	munmap(code->rx, code->size);
	*code = (struct host_code){0};
}
