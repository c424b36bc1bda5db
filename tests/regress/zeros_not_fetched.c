/* SPDX-License-Identifier: MIT */
/*
 * An instruction that ends in zeros over a page's end, run before, ran again when its second page was gone: what
 * cannot be fetched was read as zeros. The same at the code segment's limit.
 */
#include "../guest/guest_asm.h"

#define SECOND (FLAT_CODE + PAGE_SIZE)

/* mov $0x10,%eax; hlt: two bytes in the first page. */
static const uint8_t code[] = {0xb8, 0x10, 0x00, 0x00, 0x00, 0xf4};

static struct flat *ran_once(void (*mode)(struct flat *f))
{
	struct flat *f = flat_new(FLAT_RAM);

	mode(f);
	flat_write(f, SECOND - 2, code, sizeof(code));
	f->cpu->rip = SECOND - 2;
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], 0x10);
	f->cpu->gpr[RAX] = 0;
	f->cpu->rip = SECOND - 2;
	f->cpu->activity = ACTIVITY_RUN;
	return f;
}

static void page_gone(void **state)
{
	struct flat *f = ran_once(flat_long);

	flat_map(f, SECOND, SECOND, 0, PAGE_SIZE);
	flat_set_cr3(f, f->cpu->cr3);
	assert_int_equal(run_to_handler(f), VEC_PF);
	assert_int_equal(f->cpu->cr2, SECOND);
	assert_int_equal(f->cpu->gpr[RAX], 0);
	flat_free(f);
}

static void behind_the_limit(void **state)
{
	struct flat *f = ran_once(flat_prot32);

	f->cpu->seg[SEG_CS].limit = SECOND - 1;
	cpu_update_mode(f->cpu);
	flat_gate(f, VEC_GP, FLAT_HANDLERS + 16 * VEC_GP, 0);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(f->cpu->gpr[RAX], 0);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(page_gone),
		cmocka_unit_test(behind_the_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
