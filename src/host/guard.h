/* SPDX-License-Identifier: MIT */
/*
 * Guarded accesses to memory that the program owns: guest RAM, ioctl arguments.
 *
 * Each is a single host instruction with an entry in the section anykvm_extable, {instruction, landing} as
 * 32-bit offsets from the entry; the fault handler (fault.c) resumes at the landing. General registers only,
 * so that they can run while guest vector state is live. True on success.
 *
 * Loads clear a flag in an out-of-line landing instead of jumping to a label: GCC before 14 and clang before
 * 17 lose the outputs of asm goto on the jump's edge.
 */
#ifndef HOST_GUARD_H
#define HOST_GUARD_H

#include "host/compiler.h"

/* clang-format off */
#define HOST_EXTABLE(from, to)                                                                     \
	".pushsection anykvm_extable, \"a\"\n"                                                     \
	".balign 4\n"                                                                              \
	".long " from " - .\n"                                                                     \
	".long " to " - .\n"                                                                       \
	".popsection\n"

/* Entry for the instruction at label 1, with a landing that clears a 32-bit register and goes on behind it. */
#define HOST_EXTABLE_CLEAR(reg)                                                                    \
	"2:\n"                                                                                     \
	".pushsection .text.anykvm_landing, \"ax\"\n"                                              \
	"3: xor " reg ", " reg "\n"                                                                \
	"jmp 2b\n"                                                                                 \
	".popsection\n"                                                                            \
	HOST_EXTABLE("1b", "3b")

#define HOST_NO_ASAN __attribute__((no_sanitize("address")))

/* host_load_BITS() and host_store_BITS(): nothing of theirs need be aligned. False if the access faulted. */
#define HOST_DEFINE_ACCESS(bits, type, mod)                                                        \
	typedef type __attribute__((aligned(1), may_alias)) host_any_##bits;                       \
	static inline HOST_NO_ASAN bool host_load_##bits(const void *ptr, type *ret)               \
	{                                                                                          \
		uint32_t ok = 1;                                                                   \
		type val;                                                                          \
		asm volatile("1: mov %2, %" mod "1\n" HOST_EXTABLE_CLEAR("%0")                     \
			     : "+r"(ok), "=&r"(val)                                                \
			     : "m"(*(const type *)ptr)                                             \
			     : "memory", "cc");                                                    \
		if (likely(ok))                                                                    \
			*(host_any_##bits *)ret = val;                                             \
		return ok;                                                                         \
	}                                                                                          \
	static inline HOST_NO_ASAN bool host_store_##bits(void *ptr, type val)                     \
	{                                                                                          \
		asm goto("1: mov %" mod "1, %0\n" HOST_EXTABLE("1b", "%l[fault]")                  \
			 :                                                                         \
			 : "m"(*(type *)ptr), "r"(val)                                             \
			 : "memory"                                                                \
			 : fault);                                                                 \
		return true;                                                                       \
fault:                                                                                             \
		return false;                                                                      \
	}

HOST_DEFINE_ACCESS(8, uint8_t, "b")
HOST_DEFINE_ACCESS(16, uint16_t, "w")
HOST_DEFINE_ACCESS(32, uint32_t, "k")
HOST_DEFINE_ACCESS(64, uint64_t, "q")
#undef HOST_DEFINE_ACCESS

/* 16 bytes in two loads. */
static inline HOST_NO_ASAN bool host_load_pair(const void *ptr, uint64_t ret[2])
{
	const uint64_t *p = ptr;
	uint32_t ok = 1;

	asm volatile("4: mov %3, %1\n"
		     "1: mov %4, %2\n" HOST_EXTABLE_CLEAR("%0") HOST_EXTABLE("4b", "3b")
		     : "+r"(ok), "=&r"(ret[0]), "=&r"(ret[1])
		     : "m"(p[0]), "m"(p[1])
		     : "memory", "cc");
	return ok;
}

/* LOCK CMPXCHG: false if the host faulted; *old becomes what memory held, equal to before on success. */
#define HOST_DEFINE_CMPXCHG(bits, type, mod)                                                       \
	static inline HOST_NO_ASAN bool host_cmpxchg_##bits(void *ptr, type *old, type val)        \
	{                                                                                          \
		uint32_t ok = 1;                                                                   \
		type was = *old;                                                                   \
		asm volatile("1: lock cmpxchg %" mod "3, %2\n" HOST_EXTABLE_CLEAR("%0")            \
			     : "+r"(ok), "+a"(was), "+m"(*(type *)ptr)                             \
			     : "r"(val)                                                            \
			     : "memory", "cc");                                                    \
		if (likely(ok))                                                                    \
			*old = was;                                                                \
		return ok;                                                                         \
	}
/* clang-format on */

HOST_DEFINE_CMPXCHG(8, uint8_t, "b")
HOST_DEFINE_CMPXCHG(16, uint16_t, "w")
HOST_DEFINE_CMPXCHG(32, uint32_t, "k")
HOST_DEFINE_CMPXCHG(64, uint64_t, "q")
#undef HOST_DEFINE_CMPXCHG

#endif
