/* SPDX-License-Identifier: MIT */
/*
 * Guarded block accesses: one string instruction each, so that one exception-table entry covers
 * any byte that faults.
 */
#include "host/guard.h"
#include "host/host.h"

HOST_NO_ASAN bool host_copy_guarded(void *dst, const void *src, size_t size)
{
	uint32_t ok = 1;

	asm volatile("1: rep movsb\n" HOST_EXTABLE_CLEAR("%0")
		     : "+r"(ok), "+D"(dst), "+S"(src), "+c"(size)
		     :
		     : "memory", "cc");
	return ok;
}
