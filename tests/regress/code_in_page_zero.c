/* SPDX-License-Identifier: MIT */
/*
 * Code at linear page 0 that is changed while a write tag for that page is out: the entry, minus 0, was taken for an
 * empty one when tags for new code were taken back, so translated code was run on as it had been.
 */
#include "../guest/guest_asm.h"
#include "silicon/exec/exec.h"

/* At 10h a function that returns its immediate, which is written before each call, and is another one each 16 calls. */
GUEST(program, 64,
      "mov byte ptr [0x10],0xb8; mov byte ptr [0x15],0xc3; mov r8d,0x10; mov ebp,3000\n"
      "1: mov edi,ebp; shr edi,4; mov [0x11],edi; call r8; cmp eax,edi; jne 2f; dec ebp; jne 1b\n"
      "2: hlt");

static void change_is_seen(void **state)
{
	struct flat *f = tempo_machine();

	f->cpu->gpr[RBP] = 0;
	flat_code(f, program, program_end - program);
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], f->cpu->gpr[RDI]);
	assert_int_equal(f->cpu->gpr[RBP], 0);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(change_is_seen)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
