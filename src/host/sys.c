/* SPDX-License-Identifier: MIT */
/*
 * System calls without libc: no errno, no cancellation point, no vector registers.
 */
#include "host/host.h"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

long host_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d;
	register long r8 asm("r8") = e;
	register long r9 asm("r9") = f;
	long ret;

	asm volatile("syscall"
		     : "=a"(ret)
		     : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	return ret;
}

static int futex_wait(const uint32_t *word, int op, uint32_t val, uint64_t timeout_ns)
{
	struct timespec ts = {
		.tv_sec = timeout_ns / 1000000000,
		.tv_nsec = timeout_ns % 1000000000,
	};

	return host_syscall(SYS_futex, (long)word, op, val, timeout_ns ? (long)&ts : 0, 0, 0);
}

int host_futex_wait(const uint32_t *word, uint32_t val, uint64_t timeout_ns)
{
	return futex_wait(word, FUTEX_WAIT_PRIVATE, val, timeout_ns);
}

int host_futex_wake(uint32_t *word, int count)
{
	return host_syscall(SYS_futex, (long)word, FUTEX_WAKE_PRIVATE, count, 0, 0, 0);
}

int host_futex_wait_shared(const uint32_t *word, uint32_t val, uint64_t timeout_ns)
{
	return futex_wait(word, FUTEX_WAIT, val, timeout_ns);
}

int host_futex_wake_shared(uint32_t *word, int count)
{
	return host_syscall(SYS_futex, (long)word, FUTEX_WAKE, count, 0, 0, 0);
}

static __thread int tid __attribute__((tls_model("initial-exec"))); /* 0: not asked yet */

int host_gettid(void)
{
	if (!tid)
		tid = host_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
	return tid;
}

void host_gettid_forked(void)
{
	tid = 0;
}

void host_pages_small(void *mem, size_t size)
{
	host_syscall(SYS_madvise, (long)mem, size, MADV_NOHUGEPAGE, 0, 0, 0);
}

void host_pages_collapse(void *mem, size_t size)
{
	host_syscall(SYS_madvise, (long)mem, size, MADV_COLLAPSE, 0, 0, 0);
}

/* Hosts before Linux 6.1 do not collapse when asked to, but after a while. */
void host_pages_populate(void *mem, size_t size)
{
	host_syscall(SYS_madvise, (long)mem, size, MADV_POPULATE_WRITE, 0, 0, 0);
}

void host_pages_large(void *mem, size_t size)
{
	host_syscall(SYS_madvise, (long)mem, size, MADV_HUGEPAGE, 0, 0, 0);
	host_pages_collapse(mem, size);
}
