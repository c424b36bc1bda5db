/* SPDX-License-Identifier: MIT */
/*
 * An access from the last page of the address space into page 0. The cleared entry of translated code's table took it
 * for a hit, by what page had been there before: memory of the host as far from that page as the two addresses are apart.
 */
#include "../guest/guest_asm.h"
#include "silicon/exec/exec.h"

#include <string.h>
#include <sys/mman.h>

#define APART	 0x10000000ull /* pages that share an entry */
#define NEAR_TOP (-APART - PAGE_SIZE)
#define PAGE	 FLAT_DATA
#define ACCESS	 (-4ull)

/* rbx goes from the page near the top, which is flushed, to the last bytes of all. */
#define WRAP(name, access)        \
	GUEST(name, 64,           \
	      "1: mov ecx,2000\n" \
	      "2: " access "; dec ecx; jne 2b\n invlpg [rbx]; mov rbx,rdx; jmp 1b")

WRAP(wrapping_load, "mov rax,[rbx]");
WRAP(wrapping_store, "mov [rbx],rsi");

static void faults(const uint8_t *code, const uint8_t *end)
{
	struct flat *f = tempo_machine();
	uint8_t *wrong = f->ram + PAGE + APART;
	void *canary = mmap(wrong, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	assert_ptr_equal(canary, wrong);
	memset(canary, 0xa5, 2 * PAGE_SIZE);
	flat_map(f, NEAR_TOP, PAGE, PTE_P | PTE_W, PAGE_SIZE);
	f->cpu->gpr[RBX] = NEAR_TOP;
	f->cpu->gpr[RDX] = ACCESS;
	flat_code(f, code, end - code);
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_PF);
	assert_int_equal(f->cpu->cr2, ACCESS);
	assert_int_equal(f->cpu->gpr[RCX], 2000);
	for (unsigned i = 0; i < 2 * PAGE_SIZE; i++)
		assert_int_equal(wrong[i], 0xa5);
	munmap(canary, 2 * PAGE_SIZE);
	flat_free(f);
}

static void load_faults(void **state)
{
	faults(wrapping_load, wrapping_load_end);
}

static void store_faults(void **state)
{
	faults(wrapping_store, wrapping_store_end);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(load_faults),
		cmocka_unit_test(store_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
