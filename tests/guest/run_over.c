/* SPDX-License-Identifier: MIT */
/*
 * An instruction that stands in two pages, run often enough to be translated, while its second page changes: by the
 * program, by the guest's stores, by its page tables. MOV EAX,imm32 with one byte of the immediate in the first
 * page tells which bytes ran.
 */
#include "guest_asm.h"
#include "silicon/exec/exec.h"

#include <string.h>

#include <cmocka.h>

#define SECOND (FLAT_CODE + PAGE_SIZE)
#define OVER   (SECOND - 2)
#define OTHER  0x90000ul
#define ROUNDS 50

/* What follows the opcode and the immediate's first byte; RET behind it. */
static void put_second(struct flat *f, gpa_t gpa, uint32_t upper)
{
	flat_poke(f, gpa, upper, 3);
	flat_poke(f, gpa + 3, 0xc3, 1);
}

static void put(struct flat *f, uint32_t imm)
{
	flat_poke(f, OVER, 0xb8 | imm << 8, 2);
	put_second(f, SECOND, imm >> 8);
}

static enum cpu_exit_kind go(struct flat *f)
{
	f->cpu->gpr[RCX] = ROUNDS;
	f->cpu->gpr[RBX] = 0;
	f->cpu->gpr[RDX] = OVER;
	f->cpu->retired = 0;
	return cpu_run(f->cpu);
}

GUEST(calls, 64, "1: call rdx; add rbx,rax; dec ecx; jnz 1b; hlt");

static void expect_sum(struct flat *f, uint64_t imm)
{
	load(f, calls);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RBX], ROUNDS * imm);
	assert_int_equal(f->cpu->retired, ROUNDS * 6 + 1);
}

/* Between entries, each page in turn. */
static void program_writes(void **state)
{
	struct flat *f = tempo_machine();

	put(f, 0x332211);
	expect_sum(f, 0x332211);
	put_second(f, SECOND, 0x4455);
	expect_sum(f, 0x445511);
	flat_poke(f, OVER + 1, 0x77, 1);
	expect_sum(f, 0x445577);
	expect_sum(f, 0x445577);
	flat_free(f);
}

/* 1: mov SECOND,cl; call rdx; ... : the sum is that of 256 * ecx. */
GUEST(stores, 64, "1: mov [rsi],cl; call rdx; add rbx,rax; dec ecx; jnz 1b; hlt");

static void guest_writes(void **state)
{
	struct flat *f = tempo_machine();

	put(f, 0x100005);
	f->cpu->gpr[RSI] = SECOND;
	load(f, stores);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RBX], ROUNDS * 0x100005ul + 256 * ROUNDS * (ROUNDS + 1) / 2);
	assert_int_equal(f->cpu->retired, ROUNDS * 7 + 1);
	flat_free(f);
}

/* ROUNDS calls; the second page's entry at RSI becomes RDI; INVLPG; as many calls. */
GUEST(remaps, 64,
      "1: call rdx; add rbx,rax; dec ecx; jnz 1b\n"
      "mov [rsi],rdi; invlpg [r8]; mov ecx,r9d\n"
      "2: call rdx; add rbx,rax; dec ecx; jnz 2b; hlt");

static void go_remapped(struct flat *f, uint64_t entry)
{
	put(f, 0x10);
	flat_map(f, SECOND, SECOND, PTE_P | PTE_W, PAGE_SIZE);
	flat_set_cr3(f, f->cpu->cr3);
	f->cpu->gpr[RSI] = flat_entry(f, SECOND, 1);
	f->cpu->gpr[RDI] = entry;
	f->cpu->gpr[R8] = SECOND;
	f->cpu->gpr[R9] = ROUNDS;
	load(f, remaps);
	assert_int_equal(go(f), CPU_EXIT_HLT);
}

static void second_page_goes(void **state)
{
	struct flat *f = tempo_machine();

	go_remapped(f, 0);
	assert_int_equal(flat_handler(f), VEC_PF);
	assert_int_equal(f->cpu->cr2, SECOND);
	assert_int_equal(on_stack(f, 1, 8), OVER);
	assert_int_equal(f->cpu->gpr[RBX], ROUNDS * 0x10);
	flat_free(f);
}

static void second_page_forbidden(void **state)
{
	struct flat *f = tempo_machine();

	flat_set_efer(f, f->cpu->msr.efer | EFER_NX);
	go_remapped(f, SECOND | PTE_P | PTE_A | PTE_NX);
	assert_int_equal(flat_handler(f), VEC_PF);
	assert_int_equal(f->cpu->cr2, SECOND);
	assert_int_equal(on_stack(f, 0, 8), PFERR_P | PFERR_I);
	assert_int_equal(on_stack(f, 1, 8), OVER);
	flat_free(f);
}

static void second_page_is_another(void **state)
{
	struct flat *f = tempo_machine();

	put_second(f, OTHER, 0x20);
	go_remapped(f, OTHER | PTE_P | PTE_W);
	assert_int_equal(flat_handler(f), -1);
	assert_int_equal(f->cpu->gpr[RBX], ROUNDS * (0x10 + 0x2010ul));
	assert_int_equal(flat_get_entry(f, SECOND, 1), OTHER | PTE_P | PTE_W | PTE_A);
	flat_free(f);
}

/* Both pages are one: its beginning continues its end. */
static void second_page_is_the_first(void **state)
{
	struct flat *f = tempo_machine();

	flat_map(f, OTHER, SECOND - PAGE_SIZE, PTE_P | PTE_W, PAGE_SIZE);
	flat_map(f, OTHER + PAGE_SIZE, SECOND - PAGE_SIZE, PTE_P | PTE_W, PAGE_SIZE);
	flat_set_cr3(f, f->cpu->cr3);
	put(f, 0x42);
	for (unsigned round = 0; round < 3; round++) {
		flat_code(f, calls, calls_end - calls);
		memmove(f->ram + FLAT_CODE + 0x100, calls, calls_end - calls);
		put_second(f, FLAT_CODE, round);
		f->cpu->rip = OTHER + 0x100;
		f->cpu->gpr[RCX] = ROUNDS;
		f->cpu->gpr[RBX] = 0;
		f->cpu->gpr[RDX] = OTHER + PAGE_SIZE - 2;
		assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
		assert_int_equal(f->cpu->gpr[RBX], ROUNDS * (0x42 | round << 8));
	}
	flat_free(f);
}

/* A branch in two pages, and a jump to it from its own page: both ways of it. */
GUEST(branches, 64, "1: jmp [r10]; 2: add rbx,rax; dec ecx; jnz 1b; hlt");

static void branch_over_the_end(void **state)
{
	/* test $1,%cl; jnz past the next; add $2,%rbx; jmp *%rdx */
	static const uint8_t code[] = {0xf6, 0xc1, 0x01, 0x0f, 0x85, 0x04, 0x00, 0x00,
				       0x00, 0x48, 0x83, 0xc3, 0x02, 0xff, 0xe2};
	struct flat *f = tempo_machine();

	flat_write(f, SECOND - 5, code, sizeof(code));
	load(f, branches);
	flat_poke(f, FLAT_DATA, SECOND - 5, 8);
	f->cpu->gpr[R10] = FLAT_DATA;
	f->cpu->gpr[RCX] = ROUNDS;
	f->cpu->gpr[RBX] = 0;
	f->cpu->gpr[RAX] = 0x1000;
	f->cpu->gpr[RDX] = FLAT_CODE + 3;
	f->cpu->retired = 0;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RBX], ROUNDS * 0x1001ul);
	assert_int_equal(f->cpu->retired, ROUNDS * 7 + ROUNDS / 2 + 1);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(program_writes),
		cmocka_unit_test(guest_writes),
		cmocka_unit_test(second_page_goes),
		cmocka_unit_test(second_page_forbidden),
		cmocka_unit_test(second_page_is_another),
		cmocka_unit_test(second_page_is_the_first),
		cmocka_unit_test(branch_over_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
