/* SPDX-License-Identifier: MIT */
/*
 * Before each file that ThreadSanitizer looks at: the library's own memcpy() and its kin (host/mem.c) are not instrumented, so tell it
 * what they touch.
 */
#ifndef TESTS_TSAN_MEM_H
#define TESTS_TSAN_MEM_H

#include <stddef.h>
#include <string.h>

void __tsan_read_range(void *addr, long size);
void __tsan_write_range(void *addr, long size);

static inline void *tsan_memcpy(void *dst, const void *src, size_t size)
{
	__tsan_read_range((void *)src, size);
	__tsan_write_range(dst, size);
	return (memcpy)(dst, src, size);
}

static inline void *tsan_memmove(void *dst, const void *src, size_t size)
{
	__tsan_read_range((void *)src, size);
	__tsan_write_range(dst, size);
	return (memmove)(dst, src, size);
}

static inline void *tsan_memset(void *dst, int val, size_t size)
{
	__tsan_write_range(dst, size);
	return (memset)(dst, val, size);
}

static inline int tsan_memcmp(const void *a, const void *b, size_t size)
{
	__tsan_read_range((void *)a, size);
	__tsan_read_range((void *)b, size);
	return (memcmp)(a, b, size);
}

#define memcpy	tsan_memcpy
#define memmove tsan_memmove
#define memset	tsan_memset
#define memcmp	tsan_memcmp

#endif
