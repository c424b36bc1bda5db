/* SPDX-License-Identifier: MIT */
/*
 * Code memory: one anonymous file mapped twice, once writable and once executable, so that no page is
 * ever both. Not inherited by fork(2): the mappings are shared, and a child has no business in them.
 */
#include "host/host.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define HUGE_PAGE ((size_t)2 << 20)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* Where a view can have huge pages, if it is so large: unused addresses around it are given back. */
static uint8_t *reserve(size_t size)
{
	size_t spare = size < HUGE_PAGE ? 0 : HUGE_PAGE;
	uint8_t *p = mmap(NULL, size + spare, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t before;

	if (p == MAP_FAILED)
		return NULL;
	before = spare ? ALIGN_UP((uintptr_t)p, spare) - (uintptr_t)p : 0;
	if (before)
		munmap(p, before);
	if (spare - before)
		munmap(p + before + size, spare - before);
	return p + before;
}

static int map(uint8_t **ret, size_t size, int prot, int fd)
{
	uint8_t *at = reserve(size);
	int err;

	if (!at)
		return -errno;
	if (mmap(at, size, prot, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
		err = -errno;
		munmap(at, size);
		return err;
	}
	madvise(at, size, MADV_DONTFORK);
	*ret = at;
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

size_t host_code_prepare(const struct host_code *code, size_t at)
{
	size_t from = ALIGN_DOWN(at, HUGE_PAGE), to = from + HUGE_PAGE;
	volatile uint8_t *page = code->rw + at;

	if (to > code->size)
		return code->size;
	*page = *page; /* a file's page must be there, or there is nothing to collapse */
	host_syscall(SYS_madvise, (long)(code->rx + from), HUGE_PAGE, MADV_COLLAPSE, 0, 0, 0);
	return to;
}

#define LOW_START 0x1000000ul
#define LOW_END	  0x80000000ul
#define LOW_STEP  0x100000ul

static void *map_low(void *at, size_t size, int flags)
{
	void *mem = mmap(at, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

/* MAP_32BIT knows the upper half of the room only. */
void *host_low_alloc(size_t size)
{
	void *mem = map_low(NULL, size, MAP_32BIT);

	for (uint64_t at = LOW_START; !mem && at + size <= LOW_END; at += LOW_STEP)
		mem = map_low((void *)at, size, MAP_FIXED_NOREPLACE);
	/* Kernels that do not know the flag take the address as a hint. */
	if (mem && (uint64_t)mem + size > LOW_END) {
		munmap(mem, size);
		return NULL;
	}
	return mem;
}

void host_code_free(struct host_code *code)
{
	if (!code->size)
		return;
	munmap(code->rw, code->size);
	munmap(code->rx, code->size);
	*code = (struct host_code){0};
}
