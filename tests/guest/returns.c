/* SPDX-License-Identifier: MIT */
/*
 * CALLs and RETs that do not go in pairs: the run tempo guesses where a RET goes by the CALLs before it, and must be right
 * where there was none, where its address was changed, or where frames were skipped.
 */
#include "guest_asm.h"
#include "silicon/exec/exec.h"

#define ROUNDS 2000

static struct flat *finished(const uint8_t *code, const uint8_t *end)
{
	struct flat *f = tempo_machine();

	flat_code(f, code, end - code);
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	return f;
}

/* Deeper than what is remembered of CALLs. */
GUEST(deep, 64,
      "xor ebx,ebx; mov ebp,20\n"
      "1: mov ecx,600; call 3f; dec ebp; jne 1b; hlt\n"
      "3: dec ecx; je 4f; call 3b; inc rbx\n"
      "4: ret");

static void goes_deep(void **state)
{
	struct flat *f = finished(deep, deep_end);

	assert_int_equal(f->cpu->gpr[RBX], 20 * 599);
	flat_free(f);
}

/* Callers by turns, so that no RET goes to the same place twice in a row. */
GUEST(callers, 64,
      "xor ebx,ebx; xor edx,edx; xor esi,esi; mov ebp,2000\n"
      "1: call 3f; inc rbx; call 3f; inc rdx; call 3f; inc rsi; dec ebp; jne 1b; hlt\n"
      "3: nop; ret");

static void by_turns(void **state)
{
	struct flat *f = finished(callers, callers_end);

	assert_int_equal(f->cpu->gpr[RBX], ROUNDS);
	assert_int_equal(f->cpu->gpr[RDX], ROUNDS);
	assert_int_equal(f->cpu->gpr[RSI], ROUNDS);
	flat_free(f);
}

/* Each 16th time the callee returns behind the instruction that it was to return to, which has 3 bytes. */
GUEST(changed, 64,
      "xor ebx,ebx; xor edx,edx; mov ebp,2000\n"
      "1: call 3f; inc rbx; inc rdx; dec ebp; jne 1b; hlt\n"
      "3: test ebp,15; jne 4f; add qword ptr [rsp],3\n"
      "4: ret");

static void goes_elsewhere(void **state)
{
	struct flat *f = finished(changed, changed_end);

	assert_int_equal(f->cpu->gpr[RBX], ROUNDS - ROUNDS / 16);
	assert_int_equal(f->cpu->gpr[RDX], ROUNDS);
	flat_free(f);
}

/* Frames skipped, CALLs for the address alone, and RETs without any CALL, five CALLs deep. */
GUEST(unpaired, 64,
      "xor ebx,ebx; xor edx,edx; xor esi,esi; mov ebp,2000\n"
      "1: call 2f; inc rbx; dec ebp; jne 1b; hlt\n"
      "2: call 3f; inc rbx; ret\n"
      "3: call 4f; inc rbx; ret\n"
      "4: call 5f; inc rbx; ret\n"
      "5: call 6f\n"
      "6: pop rax; lea rcx,[rip+7f]; push rcx; ret\n"
      "7: inc rdx; call 8f; inc rsi; ret\n"
      "8: test ebp,7; jne 9f; add rsp,16\n"
      "9: ret");

static void skips(void **state)
{
	struct flat *f = finished(unpaired, unpaired_end);

	/* Each 8th time both 7's and 4's rest is left out. */
	assert_int_equal(f->cpu->gpr[RDX], ROUNDS);
	assert_int_equal(f->cpu->gpr[RSI], ROUNDS - ROUNDS / 8);
	assert_int_equal(f->cpu->gpr[RBX], 4 * ROUNDS - ROUNDS / 8);
	flat_free(f);
}

/*
 * The last time the target is not canonical, and one that tables of targets might take for their empty entries. The
 * fault is the branch's.
 */
#define WILD(name, branch)                                                   \
	GUEST(name, 64,                                                      \
	      "mov ebp,2000; lea r8,[rip+2f]; mov r9,0xc000000000000000\n"   \
	      "1: mov rax,r8; dec ebp; cmove rax,r9; push rax; " branch "\n" \
	      "2: jmp 1b")

WILD(wild_ret, "lea rbx,[rip]; ret");
WILD(wild_jump, "pop rax; lea rbx,[rip]; jmp rax");
WILD(wild_call,
     "pop rax; lea rsp,[rsp-8]; lea rsp,[rsp+8]; lea rbx,[rip]; call rax; 2: pop rcx; jmp 1b");

static void wild(const uint8_t *code, const uint8_t *end)
{
	struct flat *f = tempo_machine();

	flat_code(f, code, end - code);
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_GP);
	assert_int_equal(f->cpu->gpr[RBP], 0);
	assert_int_equal(on_stack(f, 1, 8), f->cpu->gpr[RBX]);
	flat_free(f);
}

static void returns_wildly(void **state)
{
	wild(wild_ret, wild_ret_end);
}

static void jumps_wildly(void **state)
{
	wild(wild_jump, wild_jump_end);
}

static void calls_wildly(void **state)
{
	wild(wild_call, wild_call_end);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(goes_deep),	  cmocka_unit_test(by_turns),
		cmocka_unit_test(goes_elsewhere), cmocka_unit_test(skips),
		cmocka_unit_test(returns_wildly), cmocka_unit_test(jumps_wildly),
		cmocka_unit_test(calls_wildly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
