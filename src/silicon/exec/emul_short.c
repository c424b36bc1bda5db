/* SPDX-License-Identifier: MIT */
/*
 * Copies and fills that are too short for the host's string instructions, which take some 30 cycles to begin: by words
 * of eight bytes in general registers, four a round, then what is left.
 *
 * Each word is loaded and stored once, in order, so whatever the host faults on, what was done is done whole. Elements
 * are as large as words, or fit them without a rest: a copy is what the elements one by one would make if nothing that
 * a word brings is of it, which the page offsets tell, whatever stands where twice.
 */
#include "host/guard.h"
#include "host/host.h"
#include "silicon/exec/emul.h"

#define WORD 8

/* Where a word of a round faults: what was before it in the round is done. */
#define LANDINGS                                      \
	".pushsection .text.anykvm_landing, \"ax\"\n" \
	"63: sub $8, %[left]\n"                       \
	"62: sub $8, %[left]\n"                       \
	"61: sub $8, %[left]\n"                       \
	"60: jmp 9f\n"                                \
	".popsection\n"

#define MOVE(at, to)                                                        \
	"1: mov " #at                                                       \
	"(%[src]), %[word]\n" HOST_EXTABLE("1b", to) "2: mov %[word], " #at \
						     "(%[dst])\n" HOST_EXTABLE("2b", to)

#define FILL(at, to) "2: mov %[word], " #at "(%[dst])\n" HOST_EXTABLE("2b", to)

/* clang-format off */
/* Rounds, while there are bytes for one. Returns how many are left. */
static inline HOST_NO_ASAN uint64_t move_rounds(uint8_t *dst, const uint8_t *src, uint64_t left)
{
	uint64_t word;

	asm volatile(LANDINGS
		     "cmp $32, %[left]\n"
		     "jb 9f\n"
		     "8:\n"
		     MOVE(0, "60b") MOVE(8, "61b") MOVE(16, "62b") MOVE(24, "63b")
		     "add $32, %[src]\n"
		     "add $32, %[dst]\n"
		     "sub $32, %[left]\n"
		     "cmp $32, %[left]\n"
		     "jae 8b\n"
		     "9:\n"
		     : [dst] "+r"(dst), [src] "+r"(src), [left] "+r"(left), [word] "=&r"(word)
		     :
		     : "memory", "cc");
	return left;
}

static inline HOST_NO_ASAN uint64_t fill_rounds(uint8_t *dst, uint64_t word, uint64_t left)
{
	asm volatile(LANDINGS
		     "cmp $32, %[left]\n"
		     "jb 9f\n"
		     "8:\n"
		     FILL(0, "60b") FILL(8, "61b") FILL(16, "62b") FILL(24, "63b")
		     "add $32, %[dst]\n"
		     "sub $32, %[left]\n"
		     "cmp $32, %[left]\n"
		     "jae 8b\n"
		     "9:\n"
		     : [dst] "+r"(dst), [left] "+r"(left)
		     : [word] "r"(word)
		     : "memory", "cc");
	return left;
}
/* clang-format on */

#define DEFINE_REST(bits, type)                                                      \
	static inline bool move_##bits(uint8_t *dst, const uint8_t *src)             \
	{                                                                            \
		type word;                                                           \
                                                                                     \
		return host_load_##bits(src, &word) && host_store_##bits(dst, word); \
	}

DEFINE_REST(64, uint64_t)
DEFINE_REST(32, uint32_t)
DEFINE_REST(16, uint16_t)
DEFINE_REST(8, uint8_t)

uint64_t emul_short_movs(void *dst, const void *src, uint64_t size)
{
	uint64_t left = move_rounds(dst, src, size);
	const uint8_t *from = (const uint8_t *)src + size;
	uint8_t *to = (uint8_t *)dst + size;

	for (; left >= WORD; left -= WORD)
		if (!move_64(to - left, from - left))
			return size - left;
	if (left & 4) {
		if (!move_32(to - left, from - left))
			return size - left;
		left -= 4;
	}
	if (left & 2) {
		if (!move_16(to - left, from - left))
			return size - left;
		left -= 2;
	}
	return size - left + (left && move_8(to - left, from - left));
}

/* What stores of eight bytes hold of it. */
static uint64_t repeated(unsigned log2, uint64_t val)
{
	static const uint64_t ones[] = {0x0101010101010101, 0x0001000100010001, 0x0000000100000001,
					1};

	return (log2 < 3 ? val & (BIT(8 << log2) - 1) : val) * ones[log2];
}

uint64_t emul_short_stos(unsigned log2, void *dst, uint64_t val, uint64_t size)
{
	uint64_t word = repeated(log2, val), left = fill_rounds(dst, word, size);
	uint8_t *to = (uint8_t *)dst + size;

	for (; left >= WORD; left -= WORD)
		if (!host_store_64(to - left, word))
			return size - left;
	if (left & 4) {
		if (!host_store_32(to - left, word))
			return size - left;
		left -= 4;
	}
	if (left & 2) {
		if (!host_store_16(to - left, word))
			return size - left;
		left -= 2;
	}
	return size - left + (left && host_store_8(to - left, word));
}
