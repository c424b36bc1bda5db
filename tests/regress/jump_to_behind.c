/* SPDX-License-Identifier: MIT */
/*
 * A jump through a table whose target, now and then, is the instruction behind the jump, while its trace follows another
 * one: if the table's entry did not hit in the TLB, the trace went on as if the jump had led where it mostly does.
 */
#include "../guest/guest_asm.h"
#include "silicon/exec/exec.h"

#define ROUNDS 3000
#define RARE   (ROUNDS / 32)

/* The rare target's entry goes over a page's end, so it never hits. */
GUEST(program, 64,
      "mov ebp,3000; lea r8,[rip+3f]; lea r9,[rip+2f]; mov [0x101100],r8; mov [0x101ffc],r9\n"
      "1: mov esi,0x101100; mov eax,0x101ffc; test bpl,31; cmove rsi,rax; jmp [rsi]\n"
      "2: inc rbx; jmp 4f\n"
      "3: inc rdx\n"
      "4: dec ebp; jne 1b; hlt");

static void leads_behind(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	flat_code(f, "\xf4", 1);
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT); /* makes what it runs by */
	f->cpu->activity = ACTIVITY_RUN;
	f->cpu->gpr[RBX] = f->cpu->gpr[RDX] = 0;
	flat_code(f, program, program_end - program);
	assert_int_equal(cpu_run(f->cpu),
			 CPU_EXIT_HLT); /* with a budget there would be no traces */
	assert_int_equal(f->cpu->gpr[RBX], RARE);
	assert_int_equal(f->cpu->gpr[RDX], ROUNDS - RARE);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(leads_behind)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
