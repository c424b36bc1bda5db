/* SPDX-License-Identifier: MIT */
/*
 * Event delivery through MMIO: an IVT or IDT that user space answers for, a stack whose frame user
 * space takes. An open delivery was not finished by cpu_complete(), which ran the instruction anew and
 * asked the same for ever; and frame writes got lost when something else was attended to first.
 */
#include "../guest/guest_asm.h"
#include "silicon/exec/exec.h"

GUEST(ud2_code, 64, "ud2");
GUEST(ud2_code16, 16, "ud2");
GUEST(nop_code16, 16, "nop\n nop\n hlt");

/* Vector n's entry: FLAT_HANDLERS + 16 * n, segment 0. */
static uint64_t ivt_in(struct flat *f, gpa_t gpa, unsigned size)
{
	return FLAT_HANDLERS + 16 * ((gpa - FLAT_MMIO) / 4);
}

static struct flat *real_machine(void)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_real(f);
	f->cpu->idtr.base = FLAT_MMIO;
	f->mmio_in = ivt_in;
	return f;
}

static void table_in_mmio_delivers(void **state)
{
	struct flat *f = real_machine();

	load(f, ud2_code16);
	assert_int_equal(run_to_handler(f), VEC_UD);
	flat_free(f);
}

static void completion_finishes_the_delivery(void **state)
{
	struct flat *f = real_machine();
	unsigned exits = 0;

	load(f, ud2_code16);
	assert_int_equal(flat_run_once(f, 100), CPU_EXIT_MMIO_READ);
	do {
		assert_true(flat_answer(f));
		assert_true(++exits < 10);
	} while (cpu_complete(f->cpu) != CPU_EXIT_NONE);
	assert_int_equal(f->cpu->rip, FLAT_HANDLERS + 16 * VEC_UD);
	assert_int_equal(f->cpu->retired, 0);
	flat_free(f);
}

static void check_frame(struct flat *f, const uint64_t *frame, unsigned nr, unsigned size)
{
	unsigned at = 0;

	for (unsigned i = 0; i < f->nr_events; i++) {
		if (f->events[i].kind != FLAT_MMIO_WRITE)
			continue;
		assert_true(at < nr);
		assert_int_equal(f->events[i].size, size);
		assert_int_equal(f->events[i].data, frame[at]);
		at++;
	}
	assert_int_equal(at, nr);
}

static void frame_of_a_fault_goes_out(void **state)
{
	struct flat *f = long_machine();
	uint64_t frame[] = {FLAT_DS32, FLAT_MMIO + 0x800, FLAG_RF | FLAG_FIXED, FLAT_CS64,
			    FLAT_CODE};

	load(f, ud2_code);
	f->cpu->gpr[RSP] = FLAT_MMIO + 0x800;
	assert_int_equal(run_to_handler(f), VEC_UD);
	check_frame(f, frame, ARRAY_SIZE(frame), 8);
	flat_free(f);
}

static void frame_of_an_interrupt_goes_out(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	uint64_t frame[] = {FLAG_IF | FLAG_FIXED, 0, FLAT_CODE};

	flat_real(f);
	load(f, nop_code16);
	f->cpu->seg[SEG_SS].base = FLAT_MMIO;
	f->cpu->gpr[RSP] = 0x800;
	set_flags(f, FLAG_IF);
	pend_interrupt(f, 0x41);
	assert_int_equal(run_to_handler(f), 0x41);
	check_frame(f, frame, ARRAY_SIZE(frame), 2);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_in_mmio_delivers),
		cmocka_unit_test(completion_finishes_the_delivery),
		cmocka_unit_test(frame_of_a_fault_goes_out),
		cmocka_unit_test(frame_of_an_interrupt_goes_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
