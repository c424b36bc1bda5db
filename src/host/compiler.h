/* SPDX-License-Identifier: MIT */
/* Small words that every room uses. No state, no libc. */
#ifndef HOST_COMPILER_H
#define HOST_COMPILER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define likely(x)			__builtin_expect(!!(x), 1)
#define unlikely(x)			__builtin_expect(!!(x), 0)
#define ARRAY_SIZE(a)			(sizeof(a) / sizeof((a)[0]))
#define BIT(n)				(1ull << (n))
#define GENMASK(h, l)			((~0ull >> (63 - (h))) & (~0ull << (l)))
#define ALIGN_DOWN(x, a)		((x) & ~((__typeof__(x))(a)-1))
#define ALIGN_UP(x, a)			ALIGN_DOWN((x) + (a)-1, (a))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define min(a, b)                              \
	({                                     \
		__typeof__(a) min_a = (a);     \
		__typeof__(b) min_b = (b);     \
		min_a < min_b ? min_a : min_b; \
	})
#define max(a, b)                              \
	({                                     \
		__typeof__(a) max_a = (a);     \
		__typeof__(b) max_b = (b);     \
		max_a > max_b ? max_a : max_b; \
	})

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096ul
#define PAGE_MASK  (~(PAGE_SIZE - 1))

#define __noinline	 __attribute__((noinline))
#define __always_inline_ inline __attribute__((always_inline))
/* Called in signal handlers, where ThreadSanitizer's runtime may be interrupted with a lock of its own held. */
#define __in_handler	__attribute__((no_sanitize("thread")))
#define __export	__attribute__((visibility("default")))
#define __aligned_(n)	__attribute__((aligned(n)))
#define __printf_(f, a) __attribute__((format(printf, f, a)))

#endif
