/* SPDX-License-Identifier: MIT */
/*
 * memcpy, memset, memmove and memcmp of anykvm's own: libc's use vector registers, where guest
 * state may be live. Hidden, so that they stand for every call inside the library and for none
 * outside. Built with general registers only, and never turned back into calls to themselves.
 */
#include "host/host.h"

/* Beyond this many bytes the processor's own string instructions win. */
#define STRING_MIN 64

/* Keeps the compiler from seeing a loop as the very function that it is in. */
#define NO_IDIOM() asm volatile("" : : : "memory")

#define HOST_NO_SAN __attribute__((no_sanitize("address", "undefined")))
#define __mem	    HOST_NO_SAN __attribute__((visibility("hidden")))

__mem void *memcpy(void *restrict dst, const void *restrict src, size_t size);
__mem void *memset(void *dst, int val, size_t size);
__mem void *memmove(void *dst, const void *src, size_t size);
__mem int memcmp(const void *a, const void *b, size_t size);

typedef uint64_t __attribute__((may_alias, aligned(1))) word_t;

static HOST_NO_SAN inline void copy_string(uint8_t *d, const uint8_t *s, size_t size)
{
	asm volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(size) : : "memory");
}

__mem void *memcpy(void *restrict dst, const void *restrict src, size_t size)
{
	const uint8_t *s = src;
	uint8_t *d = dst;

	if (size >= STRING_MIN) {
		copy_string(d, s, size);
		return dst;
	}
	for (; size >= 8; size -= 8, d += 8, s += 8) {
		*(word_t *)d = *(const word_t *)s;
		NO_IDIOM();
	}
	for (; size; size--) {
		*d++ = *s++;
		NO_IDIOM();
	}
	return dst;
}

__mem void *memset(void *dst, int val, size_t size)
{
	uint64_t word = (uint8_t)val * 0x0101010101010101ull;
	uint8_t *d = dst;

	if (size >= STRING_MIN) {
		asm volatile("rep stosb" : "+D"(d), "+c"(size) : "a"(val) : "memory");
		return dst;
	}
	for (; size >= 8; size -= 8, d += 8) {
		*(word_t *)d = word;
		NO_IDIOM();
	}
	for (; size; size--) {
		*d++ = (uint8_t)val;
		NO_IDIOM();
	}
	return dst;
}

/* Downwards, for overlapping moves to a higher address. */
static HOST_NO_SAN void copy_down(uint8_t *d, const uint8_t *s, size_t size)
{
	for (; size >= 8; size -= 8) {
		*(word_t *)(d + size - 8) = *(const word_t *)(s + size - 8);
		NO_IDIOM();
	}
	while (size--) {
		d[size] = s[size];
		NO_IDIOM();
	}
}

/* Upwards over a short distance, where the string instructions go byte by byte. */
static HOST_NO_SAN void copy_up(uint8_t *d, const uint8_t *s, size_t size)
{
	size_t i = 0;

	for (; i + 8 <= size; i += 8) {
		*(word_t *)(d + i) = *(const word_t *)(s + i);
		NO_IDIOM();
	}
	for (; i < size; i++) {
		d[i] = s[i];
		NO_IDIOM();
	}
}

__mem void *memmove(void *dst, const void *src, size_t size)
{
	/* Unsigned distance: large also when dst lies below src. */
	if ((uintptr_t)dst - (uintptr_t)src < size)
		copy_down(dst, src, size);
	else if ((uintptr_t)src - (uintptr_t)dst < STRING_MIN)
		copy_up(dst, src, size);
	else
		copy_string(dst, src, size);
	return dst;
}

__mem int memcmp(const void *a, const void *b, size_t size)
{
	const uint8_t *p = a, *q = b;

	for (; size >= 8; size -= 8, p += 8, q += 8) {
		if (*(const word_t *)p != *(const word_t *)q)
			break;
	}
	for (; size; size--, p++, q++) {
		if (*p != *q)
			return *p - *q;
	}
	return 0;
}
