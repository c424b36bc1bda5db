/* SPDX-License-Identifier: MIT */
/* silicon/exec/emul_short.c: short copies and fills by words, against bytes one by one; faults in the middle. */
#include "host/host.h"
#include "silicon/exec/emul.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>

#define ROOM 1024u

static void pattern(uint8_t *bytes)
{
	for (unsigned i = 0; i < ROOM; i++)
		bytes[i] = i * 7 + (i >> 8);
}

static void copies(void **state)
{
	static const int ahead[] = {-400, -9, -1, 0, 8, 9, 31, 33, 500};
	uint8_t got[ROOM], want[ROOM];

	for (unsigned i = 0; i < ARRAY_SIZE(ahead); i++)
		for (unsigned size = 0; size <= EMUL_SHORT; size++) {
			unsigned from = ahead[i] < 0 ? 511 : 3, to = from + ahead[i];

			pattern(got);
			pattern(want);
			for (unsigned k = 0; k < size; k++)
				want[to + k] = want[from + k];
			assert_true(emul_short_movs_may(got + to, got + from, size));
			assert_int_equal(emul_short_movs(got + to, got + from, size), size);
			assert_memory_equal(got, want, ROOM);
		}
}

/* Words would show where bytes are spread; also where a page stands twice. */
static void overlaps_are_refused(void **state)
{
	uint8_t *p = (uint8_t *)0x10000;

	for (unsigned ahead = 1; ahead < 8; ahead++) {
		assert_false(emul_short_movs_may(p + ahead, p, 16));
		assert_false(emul_short_movs_may(p + 5 * PAGE_SIZE + ahead, p, 16));
		assert_false(emul_short_movs_may(p - PAGE_SIZE + ahead, p, 16));
	}
	assert_true(emul_short_movs_may(p + 5 * PAGE_SIZE, p, EMUL_SHORT));
	assert_false(emul_short_movs_may(p + 5 * PAGE_SIZE, p, EMUL_SHORT + 1));
}

static void fills(void **state)
{
	uint64_t val = 0x1122334455667788;
	uint8_t got[ROOM], want[ROOM];

	for (unsigned log2 = 0; log2 < 4; log2++)
		for (unsigned n = 0; n << log2 <= EMUL_SHORT; n++) {
			pattern(got);
			pattern(want);
			for (unsigned k = 0; k < n; k++)
				memcpy(want + 5 + (k << log2), &val, 1 << log2);
			assert_int_equal(emul_short_stos(log2, got + 5, val, n << log2), n << log2);
			assert_memory_equal(got, want, ROOM);
		}
}

/* Of two pages the second is not there; the first has the pattern at its end. */
static uint8_t *half(uint8_t *ret_bytes)
{
	uint8_t *p = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);

	assert_int_equal(host_fault_thread_init(), 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(mprotect(p + PAGE_SIZE, PAGE_SIZE, PROT_NONE), 0);
	pattern(p + PAGE_SIZE - ROOM);
	pattern(ret_bytes);
	return p + PAGE_SIZE;
}

/* What is before the fault is done, in whole words, and nothing else. */
static void faults(void **state)
{
	uint8_t plain[ROOM], want[ROOM], *end = half(plain);

	for (unsigned room = 0; room < 200; room++) {
		uint64_t done = room & ~7u;

		pattern(end - ROOM);
		pattern(want);
		assert_int_equal(emul_short_movs(end - room, plain, 240), done);
		memcpy(want + ROOM - room, plain, done);
		assert_memory_equal(end - ROOM, want, ROOM);
		assert_int_equal(emul_short_stos(3, end - room, ~0ull, 240), done);
		memset(want + ROOM - room, 0xff, done);
		assert_memory_equal(end - ROOM, want, ROOM);
		pattern(plain);
		assert_int_equal(emul_short_movs(plain, end - room, 240), done);
		assert_memory_equal(plain, end - room, done);
		pattern(want);
		assert_memory_equal(plain + done, want + done, ROOM - done);
		pattern(plain);
	}
	munmap(end - PAGE_SIZE, 2 * PAGE_SIZE);
}

/* The last bytes of a copy whose size is no multiple of a word. */
static void faults_in_the_rest(void **state)
{
	uint8_t plain[ROOM], *end = half(plain);

	for (unsigned rest = 0; rest < 7; rest++) {
		unsigned done = rest & 4 ? rest & 6 : 0;

		assert_int_equal(emul_short_movs(end - 8 - rest, plain, 15), 8 + done);
		assert_int_equal(emul_short_stos(0, end - 8 - rest, 1, 15), 8 + done);
	}
	munmap(end - PAGE_SIZE, 2 * PAGE_SIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copies),
		cmocka_unit_test(overlaps_are_refused),
		cmocka_unit_test(fills),
		cmocka_unit_test(faults),
		cmocka_unit_test(faults_in_the_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
