/* SPDX-License-Identifier: MIT */
/*
 * Guarded accesses to memory that the program owns: guest RAM, ioctl arguments.
 *
 * Each is a single host instruction with an entry in the section anykvm_extable, {instruction, landing} as
 * 32-bit offsets from the entry; the fault handler (fault.c) resumes at the landing. General registers only,
 * so that they can run while guest vector state is live. True on success.
 */
#ifndef HOST_GUARD_H
#define HOST_GUARD_H

#include "host/compiler.h"

#define HOST_EXTABLE(from, to)                                                                     \
	".pushsection anykvm_extable, \"a\"\n"                                                     \
	".balign 4\n"                                                                              \
	".long " from " - .\n"                                                                     \
	".long " to " - .\n"                                                                       \
	".popsection\n"

#define HOST_DEFINE_ACCESS(bits, type, mod)                                                        \
	static inline __attribute__((no_sanitize("address"))) bool host_load_##bits(              \
		const void *ptr, type *ret)                                                        \
	{                                                                                          \
		type val;                                                                          \
		asm goto("1: mov %1, %" mod "0\n" HOST_EXTABLE("1b", "%l[fault]")                  \
			 : "=r"(val)                                                               \
			 : "m"(*(const type *)ptr)                                                 \
			 : "memory"                                                                \
			 : fault);                                                                 \
		*ret = val;                                                                        \
		return true;                                                                       \
fault:                                                                                             \
		return false;                                                                      \
	}                                                                                          \
	static inline __attribute__((no_sanitize("address"))) bool host_store_##bits(             \
		void *ptr, type val)                                                               \
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

/* LOCK CMPXCHG: false if the host faulted; *old becomes what memory held, equal to before on success. */
#define HOST_DEFINE_CMPXCHG(bits, type, mod)                                                       \
	static inline __attribute__((no_sanitize("address"))) bool host_cmpxchg_##bits(           \
		void *ptr, type *old, type val)                                                    \
	{                                                                                          \
		type was = *old;                                                                   \
		asm goto("1: lock cmpxchg %" mod "2, %1\n" HOST_EXTABLE("1b", "%l[fault]")         \
			 : "+a"(was)                                                               \
			 : "m"(*(type *)ptr), "r"(val)                                             \
			 : "memory", "cc"                                                          \
			 : fault);                                                                 \
		*old = was;                                                                        \
		return true;                                                                       \
fault:                                                                                             \
		return false;                                                                      \
	}

HOST_DEFINE_CMPXCHG(8, uint8_t, "b")
HOST_DEFINE_CMPXCHG(16, uint16_t, "w")
HOST_DEFINE_CMPXCHG(32, uint32_t, "k")
HOST_DEFINE_CMPXCHG(64, uint64_t, "q")
#undef HOST_DEFINE_CMPXCHG

#endif
