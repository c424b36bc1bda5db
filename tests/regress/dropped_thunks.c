/* SPDX-License-Identifier: MIT */
/*
 * Thunks were dropped, for there were too many, and others written in their place, while blocks stood whose instructions
 * point to them: the next of these that took its cold path ran another instruction.
 */
#include "../guest/guest_asm.h"
#include "silicon/exec/cache.h"
#include "silicon/exec/exec.h"

#define OTHER (FLAT_CODE + 4 * PAGE_SIZE)

/* The load goes over a page's end, so its handler runs each time. */
GUEST(program, 64,
      "mov ebp,10; mov esi,0x100ff8\n"
      "1: movdqu xmm0,[rsi]; movq rax,xmm0; add rbx,rax; dec ebp; jne 1b; hlt");

/* What takes the place of the program's. */
GUEST(others, 64,
      "pcmpeqd xmm0,xmm0; psrlq xmm0,3; paddq xmm0,xmm0; pxor xmm2,xmm2; psubq xmm2,xmm0; por "
      "xmm0,xmm2\n"
      "psllq xmm0,5; paddd xmm0,xmm2; pavgb xmm0,xmm2; pmaxub xmm2,xmm0; pand xmm0,xmm2; hlt");

static void run_at(struct flat *f, gpa_t at, const uint8_t *code, size_t size)
{
	flat_write(f, at, code, size);
	f->cpu->rip = at;
	f->cpu->activity = ACTIVITY_RUN;
	assert_int_equal(cpu_run(f->cpu),
			 CPU_EXIT_HLT); /* with a budget there would be no blocks */
}

static void runs_its_own(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	flat_set_cr4(f, f->cpu->cr4 | CR4_OSFXSR);
	flat_code(f, "\xf4", 1);
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT); /* makes what it runs by */
	flat_poke(f, 0x100ff8, 3, 8);
	f->cpu->gpr[RBX] = 0;
	for (unsigned i = 0; i < 4; i++) /* so that nothing of it is left to be translated */
		run_at(f, FLAT_CODE, program, program_end - program);
	assert_int_equal(f->cpu->gpr[RBX], 4 * 30);
	f->cpu->exec->nr_thunks = THUNK_MAX;
	run_at(f, OTHER, others, others_end - others);
	assert_int_equal(f->cpu->exec->nr_drops, 1);
	f->cpu->rip = FLAT_CODE;
	f->cpu->activity = ACTIVITY_RUN;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RBX], 5 * 30);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(runs_its_own)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
