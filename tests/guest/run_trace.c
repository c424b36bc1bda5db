/* SPDX-License-Identifier: MIT */
/*
 * Traces: what only code that is hot comes to. Each program runs in step and by translated code, and must end with
 * the same registers, retired instructions and memory.
 */
#include "guest_asm.h"
#include "silicon/exec/exec.h"
#include "silicon/exec/run.h"

#include <stdlib.h>
#include <string.h>

/* Four words at a time over two pages and back: each check serves all four, but where the page ends. RDI is odd. */
GUEST(over_pages, 64,
      "mov ebp,40\n"
      "1: mov rsi,0x100f00; mov rdi,0x102f03; mov ecx,24\n"
      "2: mov rax,[rsi]; add rax,[rsi+8]; mov [rdi],rax; xor rax,[rsi+16]; mov [rdi+8],rax\n"
      "add [rsi+24],rax; push rax; push rcx; pop rcx; pop rdx; add rsi,32; add rdi,16\n"
      "dec ecx; jne 2b; dec ebp; jne 1b; hlt");

/* Loops whose ways out come in turn: what was counted at the head and not done is taken back. */
GUEST(ways_out, 64,
      "mov ebp,3000; xor eax,eax; xor ebx,ebx\n"
      "1: add eax,0x1234567; mov edx,eax; shr edx,29; je 3f; test al,1; jne 4f; inc ebx\n"
      "2: dec edx; jne 2b\n"
      "3: add ebx,3; dec ebp; jne 1b; hlt\n"
      "4: lea ebx,[rbx+rdx]; cmp edx,5; ja 3b; inc r13; jmp 2b");

/* Calls, returns and jumps that mostly lead to one place, and now and then to another. */
GUEST(elsewhere, 64,
      "mov ebp,3000; lea r8,[rip+2f]; lea r9,[rip+3f]; lea r10,[rip+5f]; lea r11,[rip+6f]\n"
      "1: mov rax,r8; test bpl,31; cmove rax,r9; call rax; add rdx,rsp\n"
      "mov [0x101000],r10; test bpl,63; jne 4f; mov [0x101000],r11\n"
      "4: jmp [0x101000]\n"
      "5: inc rbx\n"
      "6: dec ebp; jne 1b; hlt\n"
      "2: inc rsi; ret\n"
      "3: add rsi,1000; lea rax,[rip+7f]; push rax; ret\n"
      "7: inc rdi; ret");

/* The group's later members lie in a device: each access comes to it once, in order. */
GUEST(device, 64,
      "mov ebp,600; mov ebx,0xf1000000; mov edi,0x100000\n"
      "1: mov rsi,rdi; test bpl,127; cmove rsi,rbx; mov eax,[rsi]; mov edx,[rsi+8]; mov "
      "[rsi+4],edx\n"
      "add r12d,eax; dec ebp; jne 1b; hlt");

/* In the 700th round the third access faults: the two before are done, the registers are those before it. */
GUEST(faults, 64,
      "mov ebp,700; mov rdi,0x102000; mov rbx,0xfffffffffffff000\n"
      "1: mov rsi,rdi; cmp ebp,1; cmove rsi,rbx; mov [rdi],rbp; inc rax; mov rdx,[rsi+0x10]; inc "
      "r14\n"
      "mov [rsi+0x18],rdx; dec ebp; jne 1b; hlt");

/* Code that its own trace writes to: a member of a group whose page holds code, later on. */
GUEST(writes_code, 64,
      "mov ebp,900; lea rbx,[rip+3f]; mov rdi,0x103000\n"
      "1: mov rsi,rdi; cmp ebp,300; cmove rsi,rbx; mov eax,[rsi+1]; mov [rsi+1],ebp\n"
      "3: mov ecx,0; add rdx,rcx; dec ebp; jne 1b; hlt");

/* The x87 pointers, after and between instructions that set them; at the end an exception that the next one raises. */
GUEST(x87, 64,
      "mov ebp,500; mov rdi,0x100100; mov rsi,0x102f00; fninit\n"
      "1: fld1; fldpi; fmul st,st(1); fadd qword ptr [rdi]; fsqrt; fxch; fstp qword ptr [rsi]; "
      "fstp st(0)\n"
      "fnstenv [rsi+64]; fld1; fild dword ptr [rdi+8]; faddp; fstp qword ptr [rsi+8]; mov "
      "eax,[rsi+76]\n"
      "add rbx,rax; add rsi,1; cmp ebp,470; jne 2f; mov rsi,0x102000\n"
      "2: dec ebp; jne 1b\n"
      "mov word ptr [rdi],0x33b; fldcw [rdi]; mov ebp,1\n"
      "3: fld1; fldz; fdivp; fld1; fldpi; hlt");

/*
 * Registers that a trace exchanges: parts of them, in memory over pages and in a device, where it is left by branches and by calls that
 * lead elsewhere, and at last by a fault of the host.
 */
GUEST(homes, 64,
      "mov ebp,2000; mov rsi,0x100000; mov rdi,0xf1000000; lea r10,[rip+5f]; lea r11,[rip+6f]\n"
      "1: add r12,rbp; mov r13,r12; ror r13d,11; xor r14d,r13d; lea r15,[r14+r12*4+7]; add "
      "r15b,r12b\n"
      "adc r14w,r15w; mov eax,r15d; and eax,0x1ff8; mov rbx,rsi; test bpl,127; cmove rbx,rdi\n"
      "add r13,[rbx+rax]; mov [rbx+rax],r13; mov [rsi+rbp],r14b; movzx r9d,r14b; add r8,r9\n"
      "mov rdx,r10; test bpl,63; cmove rdx,r11; call rdx; test r15b,15; je 4f\n"
      "2: dec ebp; jne 1b\n"
      "mov ecx,700\n"
      "3: mov eax,1000; xor edx,edx; mov r13d,ecx; dec r13d; div r13d; add r14,r13; add r15,r14\n"
      "xor r15,r13; ror r14,3; sub r12,r15; dec ecx; jne 3b; hlt\n"
      "4: add r12d,r15d; inc r14; jmp 2b\n"
      "5: add r15,r13; sub r14,r15; ret\n"
      "6: sub r15,r12; xor r14,r15; ret");

/*
 * Tables whose index is a byte, or masked, which a trace checks as a whole: read and written, by registers with and without a home,
 * by what was a byte until a part of it, or more, was changed. Later their place is a page's end, and a device.
 */
GUEST(tables, 64,
      "mov ebp,2000; mov rsi,0x100010; mov rdi,0x102100; mov r14,0x102000; mov r8,0x1017f0; mov "
      "r9,0x102e08; mov r10,0xf1000000\n"
      "1: add r12,[rsi]; xor r12,rbp; ror r12,7; mov rax,r12\n"
      "movzx ecx,al; add rbx,[rsi+rcx*8]; movzx eax,ah; mov r15d,eax; xor rbx,[rsi+r15*8]; add "
      "[rdi+r15*2],bx\n"
      "mov rdx,r12; and edx,31; add r13,[r14+rdx*8]; mov [r14+rdx*8+4],eax; and r15d,7; "
      "add r11,[r14+r15]\n"
      "and ecx,0x7f; mov ch,1; add rbx,[rsi+rcx*8]; movzx ecx,bl; add rcx,rcx; "
      "add r11,[rsi+rcx*8]\n"
      "movzx eax,r12b; add r13d,[rax+0x101000]; movzx eax,bl; xor [rax+0x101000],r13b; "
      "mov rcx,rax; sub r13,[rsi+rcx*4+8]\n"
      "cmp ebp,1200; cmove rsi,r8; cmp ebp,700; cmove r14,r9; cmp ebp,20; cmove r14,r10; dec ebp; "
      "jne 1b; hlt");

/* The same, up to the end of the address space: what a check takes besides is not there, and then an entry is not. */
GUEST(tables_at_top, 64,
      "mov ebp,1500; mov rsi,0x100000; mov rdi,0xfffffffffffff000; mov r8,0xffffffffffffefc0; mov "
      "r9,0x200ff0\n"
      "1: inc r12; movzx ecx,r12b; and ecx,7; add rax,[rsi+rcx*8]; mov rdx,r12; and edx,3; add "
      "rbx,[rsi+rdx*8]\n"
      "movzx ecx,r12b; cmp ebp,400; ja 2f; shr ecx,5\n"
      "2: movzx ecx,cl; add rax,[rsi+rcx*8]; movzx ecx,bpl; add rbx,[rsi+rcx*8]\n"
      "cmp ebp,300; cmove rsi,r9; cmp ebp,100; cmove rsi,r8; dec ebp; jne 1b; hlt");

/* A table of bytecodes' places, and bytecodes whose order changes. */
GUEST(bytecodes, 64,
      "lea rax,[rip+2f]; mov [0x101000],rax; lea rax,[rip+3f]; mov [0x101008],rax\n"
      "lea rax,[rip+4f]; mov [0x101010],rax; lea rax,[rip+5f]; mov [0x101018],rax\n"
      "mov ebp,900; mov rsi,0x102000; mov rdi,0x101000; mov dword ptr [rsi],0x00010201; "
      "mov byte ptr [rsi+4],3\n"
      "1: xor edx,edx; movzx ecx,byte ptr [rsi+rdx]; inc rdx; mov rcx,[rdi+rcx*8]; jmp rcx\n"
      "2: inc rax; movzx ecx,byte ptr [rsi+rdx]; inc rdx; mov rcx,[rdi+rcx*8]; jmp rcx\n"
      "3: lea rax,[rax+rax*4]; movzx r15d,byte ptr [rsi+rdx]; inc rdx; mov r15,[rdi+r15*8]; jmp "
      "r15\n"
      "4: xor rax,rbp; movzx ecx,byte ptr [rsi+rdx]; inc rdx; jmp [rdi+rcx*8]\n"
      "5: test bpl,31; jne 6f; ror dword ptr [rsi],8\n"
      "6: dec ebp; jne 1b; hlt");

/* Words at known addresses, which lie in a page's end, too: by one functions of other pages are called, and jumped to, now and then others. */
GUEST(steady, 64,
      "mov dword ptr [0x104000],0xc3c0ff48; mov dword ptr [0x105000],0xc3c3ff48; mov ebp,2000\n"
      "mov qword ptr [0x101008],0x104000; lea r9,[rip+2f]\n"
      "1: call [0x101008]; push r9; jmp [0x101008]\n"
      "2: add r12,[0x101ffc]; mov [0x102ff8],r12; add [rip+3f],r12d; xor r12,[rip+3f]; push "
      "qword ptr [0x101010]; pop qword ptr [0x101018]\n"
      "test bpl,127; jne 4f; xor qword ptr [0x101008],0x1000\n"
      "4: dec ebp; jne 1b; hlt\n"
      ".balign 64\n"
      "3: .quad 0,0,0,0,0,0,0,0");

/* The same to functions so far away that no direct branch leads there. */
GUEST(far_away, 64,
      "mov dword ptr [0x104000],0xc3c0ff48; mov dword ptr [0x105000],0xc3c3ff48; mov ebp,2000\n"
      "mov r8,0x7f1234504000; mov [0x101008],r8; lea r9,[rip+2f]\n"
      "1: call [0x101008]; push r9; jmp [0x101008]\n"
      "2: test bpl,127; jne 4f; xor qword ptr [0x101008],0x1000\n"
      "4: dec ebp; jne 1b; hlt");

/*
 * Functions that return, and branch on, by a JMP to a branch in another page, as kernels do; now and then to elsewhere, by a stack that says
 * otherwise, and over a page's end of the stack.
 */
GUEST(relays, 64,
      "mov ebp,3000; lea r8,[rip+2f]; lea r9,[rip+3f]; lea r10,[rip+7f]; mov r11,rsp\n"
      "1: call 4f; call 5f; mov rax,r8; test bpl,31; cmove rax,r9; call 6f; add rdx,rsp\n"
      "7: mov rsp,r11; test bpl,15; jne 8f; sub rsp,8\n"
      "8: dec ebp; jne 1b; hlt\n"
      "4: inc rbx; jmp relays+0x1000\n"
      "5: lea rcx,[rcx+rdx*2+1]; test bpl,63; je 9f; push rcx; pop rdi; jmp relays+0x1000\n"
      "9: add rdi,5; mov [rsp],r10; jmp relays+0x1000\n"
      "6: xor rcx,rbp; jmp relays+0x1040\n"
      "2: inc rsi; jmp relays+0x1000\n"
      "3: add rsi,1000; lea rax,[rip+2b]; jmp relays+0x1040\n"
      ".org relays+0x1000,0xcc; ret; int3\n"
      ".org relays+0x1040,0xcc; jmp rax; int3");

/* The branch that they go by changes: it counts, returns as before, and counts no more. */
GUEST(relays_change, 64,
      "mov ebp,2000; lea r11,[rip+relays_change+0x1000]\n"
      "1: call 4f; add rdx,rbx; cmp ebp,1000; jne 2f; mov dword ptr [r11],0xc3c1ff48\n"
      "2: cmp ebp,990; jne 3f; mov byte ptr [r11],0xc3\n"
      "3: cmp ebp,500; jne 5f; mov byte ptr [r11+2],0xc7; mov byte ptr [r11],0x48\n"
      "5: dec ebp; jne 1b; mov dword ptr [r11],0xccccccc3; hlt\n"
      "4: inc rbx; jmp relays_change+0x1000\n"
      ".org relays_change+0x1000,0xcc; ret; int3; int3; int3");

/* Loops within loops: a trace goes round the outer one, in step with the inner one. An index is set to zero again and again. */
GUEST(rounds, 64,
      "mov ebp,400; mov rsi,0x100000; mov rdi,0x100f80; mov rdx,0x102f80\n"
      "1: mov rbx,rsi; mov r9,rdi; mov r8d,12\n"
      "2: xor eax,eax\n"
      "3: mov rcx,[rbx+rax]; add rcx,[r9+rax]; add [rdx+rax],rcx; add rax,8; cmp rax,32; jne 3b\n"
      "add rbx,32; add r9,32; mov [rdx+rax*2],r12; add r12,rcx; dec r8d; jne 2b; add rdx,8\n"
      "dec ebp; jne 1b; hlt");

/* A loop of more instructions than a trace may have, with more groups than there are slots. */
GUEST(long_loop, 64,
      "mov ebp,1500; mov rsi,0x100000\n"
      "1: .rept 50; add r12,[rsi]; xor r13,r12; add [rsi+8],r13; lea rsi,[rsi+16]; and "
      "rsi,0x100ff0; .endr\n"
      "dec ebp; jne 1b; hlt");

#define FAR	  0x7f1234500000ul /* FLAT_DATA again */
#define FAR_PAGES 8

static struct flat *machine(const char *tempo)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	for (unsigned i = 0; i < FAR_PAGES * PAGE_SIZE; i += PAGE_SIZE)
		flat_map(f, FAR + i, FLAT_DATA + i, PTE_P | PTE_W, PAGE_SIZE);
	f->cpu->exec = exec_create();
	assert_non_null(f->cpu->exec);
	assert_int_equal(exec_set_tempo(f->cpu, tempo), 0);
	for (unsigned i = 0; i < 0x2000; i += 8)
		flat_poke(f, FLAT_DATA + i, i * 0x9e3779b97f4a7c15ull, 8);
	return f;
}

static void done(struct flat *f)
{
	exec_destroy(f->cpu->exec);
	f->cpu->exec = NULL;
	flat_free(f);
}

/* More often than once: what one run leaves behind serves the next. */
static void run_some(struct flat *f, const uint8_t *code, size_t size)
{
	for (unsigned i = 0; i < 3; i++) {
		memset(f->cpu->gpr, 0, sizeof(f->cpu->gpr));
		f->cpu->gpr[RSP] = FLAT_STACK - 0xff0; /* the stack crosses a page, too */
		f->cpu->activity = ACTIVITY_RUN;
		flat_code(f, code, size);
		assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	}
}

static void compare(const uint8_t *code, const uint8_t *end, const char *tempo)
{
	struct flat *step = machine("step"), *run = machine(tempo);

	run_some(step, code, end - code);
	run_some(run, code, end - code);
	assert_memory_equal(run->cpu->gpr, step->cpu->gpr, sizeof(run->cpu->gpr));
	assert_int_equal(run->cpu->rip, step->cpu->rip);
	assert_int_equal(run->cpu->aflags, step->cpu->aflags);
	assert_int_equal(run->cpu->cr2, step->cpu->cr2);
	assert_int_equal(run->cpu->retired, step->cpu->retired);
	assert_int_equal(run->cpu->fpu.fip, step->cpu->fpu.fip);
	assert_int_equal(run->cpu->fpu.fdp, step->cpu->fpu.fdp);
	assert_int_equal(run->cpu->fpu.fop, step->cpu->fpu.fop);
	assert_int_equal(run->nr_events, step->nr_events);
	assert_memory_equal(run->ram, step->ram, FLAT_RAM);
	done(step);
	done(run);
}

#define TRACE_TEST(name)                               \
	static void test_##name(void **state)          \
	{                                              \
		compare(name, name##_end, "run");      \
		compare(name, name##_end, "run,hot");  \
		compare(name, name##_end, "run,bare"); \
	}

TRACE_TEST(over_pages)
TRACE_TEST(ways_out)
TRACE_TEST(elsewhere)
TRACE_TEST(device)
TRACE_TEST(faults)
TRACE_TEST(writes_code)
TRACE_TEST(x87)
TRACE_TEST(homes)
TRACE_TEST(tables)
TRACE_TEST(tables_at_top)
TRACE_TEST(bytecodes)
TRACE_TEST(steady)
TRACE_TEST(far_away)
TRACE_TEST(rounds)
TRACE_TEST(long_loop)
TRACE_TEST(relays)
TRACE_TEST(relays_change)

/* The programs above do make traces, with groups, and leave them for plain blocks. */
static void makes_traces(void **state)
{
	struct flat *f = machine("run");
	unsigned nr_plain = 0;

	run_some(f, over_pages, over_pages_end - over_pages);
	assert_true(f->cpu->exec->run->nr_groups > 0);
	for (uint32_t i = 0; i < f->cpu->exec->run->nr_blocks; i++)
		nr_plain += !!(f->cpu->exec->run->block[i].key & RUN_KEY_PLAIN);
	assert_true(nr_plain > 0);
	done(f);
}

/* Tables are checked as a whole. */
static void checks_tables(void **state)
{
	struct flat *f = machine("run");
	const struct run *run = f->cpu->exec->run;
	unsigned most = 0;

	run_some(f, bytecodes, bytecodes_end - bytecodes);
	for (uint32_t i = 0; i < run->nr_groups; i++)
		most = max(most, (unsigned)run->group[i].size);
	assert_int_equal(most, 256 * 8);
	done(f);
}

/* The loop is one of few traces, wherever these end, and some have registers of their own. */
static void makes_few_traces(void **state)
{
	struct flat *f = machine("run");
	const struct run *run = f->cpu->exec->run;
	unsigned nr_own = 0;

	run_some(f, long_loop, long_loop_end - long_loop);
	assert_in_range(run->nr_traces, 1, 5);
	for (uint32_t i = 0; i < run->nr_blocks; i++)
		nr_own += run->block[i].homes;
	assert_true(nr_own > 0);
	done(f);
}

/* They are one with what leads to them. */
static void takes_relays(void **state)
{
	struct flat *f = machine("run");
	const struct run *run = f->cpu->exec->run;
	unsigned nr = 0;

	run_some(f, relays, relays_end - relays);
	for (uint32_t i = 0; i < run->nr_over; i++)
		nr += run->over[i].relay;
	assert_true(nr > 0);
	done(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_over_pages), cmocka_unit_test(test_ways_out),
		cmocka_unit_test(test_elsewhere),  cmocka_unit_test(test_device),
		cmocka_unit_test(test_faults),	   cmocka_unit_test(test_writes_code),
		cmocka_unit_test(makes_traces),	   cmocka_unit_test(test_x87),
		cmocka_unit_test(test_homes),	   cmocka_unit_test(test_rounds),
		cmocka_unit_test(test_long_loop),  cmocka_unit_test(makes_few_traces),
		cmocka_unit_test(test_tables),	   cmocka_unit_test(test_tables_at_top),
		cmocka_unit_test(test_bytecodes),  cmocka_unit_test(checks_tables),
		cmocka_unit_test(test_steady),	   cmocka_unit_test(test_far_away),
		cmocka_unit_test(test_relays),	   cmocka_unit_test(test_relays_change),
		cmocka_unit_test(takes_relays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
