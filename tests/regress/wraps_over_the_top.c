/* SPDX-License-Identifier: MIT */
/*
 * An access from the last pages of the address space into page 0. The cleared entry of translated code's table took it
 * for a hit, by what page had been there before: memory of the host as far from that page as the two addresses are apart.
 */
#include "../guest/guest_asm.h"
#include "silicon/exec/exec.h"

#include <string.h>
#include <sys/mman.h>

#define APART  0x10000000ull /* pages that share an entry */
#define PAGE   FLAT_DATA
#define ACCESS (-4ull)
#define STRING (-8ull * PAGE_SIZE)
#define CANARY (16 * PAGE_SIZE)

/* rbx goes from a page of the same entry, which is flushed, to the last bytes of all. */
#define WRAP(name, access)        \
	GUEST(name, 64,           \
	      "1: mov ecx,2000\n" \
	      "2: " access "; dec ecx; jne 2b\n invlpg [rbx]; mov rbx,rdx; jmp 1b")

WRAP(wrapping_load, "mov rax,[rbx]");
WRAP(wrapping_store, "mov [rbx],rsi");

/* The same by string instructions, whose many bytes may begin pages before: rbp counts rounds, r8 elements. */
#define WRAP_STRING(name, string)                                     \
	GUEST(name, 64,                                               \
	      "1: mov ebp,2000\n"                                     \
	      "2: mov rdi,rbx; mov rsi,rbx; mov rcx,r8; " string "\n" \
	      "dec ebp; jne 2b\n invlpg [rbx]; mov rbx,rdx; mov r8,r9; jmp 1b")

WRAP_STRING(wrapping_stos, "rep stosq");
WRAP_STRING(wrapping_movs, "rep movsq");

static void faults(const uint8_t *code, const uint8_t *end, uint64_t access, unsigned counter)
{
	uint64_t near_top = (access & PAGE_MASK) - APART;
	struct flat *f = tempo_machine();
	uint8_t *wrong = f->ram + PAGE + APART;
	void *canary = mmap(wrong, CANARY, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	assert_ptr_equal(canary, wrong);
	memset(canary, 0xa5, CANARY);
	flat_map(f, near_top, PAGE, PTE_P | PTE_W, PAGE_SIZE);
	f->cpu->gpr[RBX] = near_top;
	f->cpu->gpr[RDX] = access;
	f->cpu->gpr[R8] = 1;
	f->cpu->gpr[R9] = -access / 8 + 1;
	flat_code(f, code, end - code);
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_PF);
	assert_int_equal(f->cpu->cr2, access);
	assert_int_equal(f->cpu->gpr[counter], 2000);
	for (unsigned i = 0; i < CANARY; i++)
		assert_int_equal(wrong[i], 0xa5);
	munmap(canary, CANARY);
	flat_free(f);
}

static void load_faults(void **state)
{
	faults(wrapping_load, wrapping_load_end, ACCESS, RCX);
}

static void store_faults(void **state)
{
	faults(wrapping_store, wrapping_store_end, ACCESS, RCX);
}

static void stos_faults(void **state)
{
	faults(wrapping_stos, wrapping_stos_end, STRING, RBP);
}

static void movs_faults(void **state)
{
	faults(wrapping_movs, wrapping_movs_end, STRING, RBP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(load_faults),
		cmocka_unit_test(store_faults),
		cmocka_unit_test(stos_faults),
		cmocka_unit_test(movs_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
