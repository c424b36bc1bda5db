/* SPDX-License-Identifier: MIT */
/*
 * Flat 32-bit code in blocks: what 64-bit code has not. Segments that stop being flat while a loop runs, FS and GS
 * with a base and with a limit, addresses and stack pointers that wrap at 4 GiB, the same bytes in both code sizes, stacks
 * of 16 bits. Without a budget, in each tempo.
 */
#include "guest_asm.h"
#include "silicon/exec/exec.h"

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROUNDS 50
#define DESC   (FLAT_GDT + 0x60) /* the test's own */
#define SEL    0x60
#define DESC2  (FLAT_GDT + 0x68)
#define SEL2   0x68

static struct flat *machine(void (*mode)(struct flat *f))
{
	struct flat *f = flat_new(FLAT_RAM);

	mode(f);
	f->cpu->exec = exec_create();
	assert_non_null(f->cpu->exec);
	assert_int_equal(exec_set_tempo(f->cpu, getenv("ANYKVM_TEMPO")), 0);
	f->cpu->gdtr.limit = 0x6f;
	return f;
}

static void done(struct flat *f)
{
	exec_destroy(f->cpu->exec);
	f->cpu->exec = NULL;
	flat_free(f);
}

static uint64_t descriptor(uint32_t base, uint32_t limit_20, uint16_t attr)
{
	return (limit_20 & 0xffff) | (uint64_t)(base & 0xffffff) << 16 |
	       (uint64_t)(attr & 0xff) << 40 | (uint64_t)(limit_20 >> 16) << 48 |
	       (uint64_t)(attr >> 8) << 52 | (uint64_t)(base >> 24) << 56;
}

#define DATA_PAGES 0xc93 /* writable, 32-bit, limit in pages */
#define DATA_BYTES 0x493
#define DATA_16	   0x893 /* the same with a 16-bit stack pointer, limit in pages */
#define CODE_64	   0xa9b

static enum cpu_exit_kind go(struct flat *f)
{
	f->cpu->gpr[RCX] = ROUNDS;
	f->cpu->gpr[RBX] = 0;
	f->cpu->retired = 0;
	return cpu_run(f->cpu);
}

typedef void mode_fn(struct flat *f);
static mode_fn *const modes[] = {flat_prot32, flat_paging32, flat_pae, flat_compat};

/* INC, PUSH, CALL, LEAVE, POP: all words are of 32 bits. */
GUEST(words, 32,
      "1: push ecx; call 2f; pop eax; add ebx,eax; dec ecx; jnz 1b; hlt\n"
      "2: push ebp; mov ebp,esp; push 0x12345678; push dword ptr [ebp+8]; inc dword ptr [esp]\n"
      "pop eax; add ebx,eax; pop eax; cmp eax,0x12345678; jne 3f; leave; ret\n"
      "3: ud2");

static void counts_exactly(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		struct flat *f = machine(modes[i]);

		load(f, words);
		assert_int_equal(go(f), CPU_EXIT_HLT);
		assert_int_equal(f->cpu->gpr[RBX], ROUNDS * (ROUNDS + 1) + ROUNDS);
		assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK);
		assert_int_equal(f->cpu->retired, ROUNDS * (6 + 12) + 1);
		done(f);
	}
}

/* EBX + 2 * ECX and all sums wrap at 4 GiB; so does the stack pointer. */
GUEST(wraps, 32,
      "mov esi,0xffff0000; 1: mov eax,[esi+ecx*4+0x110000-200]; add ebx,eax; dec ecx; jnz 1b\n"
      "mov ecx,50; mov edi,esp; xor esp,esp; mov edx,0x11223344\n"
      "2: push 7; pop eax; push edx; pop edx; add ebx,eax; dec ecx; jnz 2b; mov esp,edi; hlt");

static void wraps_at_4g(void **state)
{
	for (unsigned i = 1; i < ARRAY_SIZE(modes); i++) {
		struct flat *f = machine(modes[i]);
		uint64_t sum = 0;

		for (unsigned n = 1; n <= ROUNDS; n++) {
			flat_poke(f, FLAT_DATA - 200 + 4 * n, n * 3, 4);
			sum += n * 3;
		}
		/* The last page below 4 GiB is memory. */
		flat_map(f, 0xfffff000, FLAT_DATA + 0x3000, PTE_P | PTE_W,
			 modes[i] == flat_paging32 ? 0x1000 : PAGE_SIZE);
		flat_set_cr3(f, f->cpu->cr3);
		load(f, wraps);
		assert_int_equal(go(f), CPU_EXIT_HLT);
		assert_int_equal(f->cpu->gpr[RBX], sum + 7 * 50);
		assert_int_equal(flat_peek(f, FLAT_DATA + 0x3ffc, 4), 0x11223344);
		done(f);
	}
}

/* FS with a base: its sum wraps, too. */
GUEST(through_fs, 32,
      "mov eax,0x60; mov fs,eax; mov esi,0xfff00000\n"
      "1: mov eax,fs:[esi+0x10]; add ebx,eax; add dword ptr fs:[esi+0x10],1; dec ecx; jnz 1b; hlt");

static void based_fs(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		struct flat *f = machine(modes[i]);

		flat_poke(f, DESC, descriptor(FLAT_DATA + 0x100000, 0xfffff, DATA_PAGES), 8);
		flat_poke(f, FLAT_DATA + 0x10, 5, 4);
		load(f, through_fs);
		assert_int_equal(go(f), CPU_EXIT_HLT);
		assert_int_equal(f->cpu->gpr[RBX], ROUNDS * 5 + ROUNDS * (ROUNDS - 1) / 2);
		done(f);
	}
}

/* FS becomes small in the last round: #GP there. */
GUEST(fs_shrinks, 32,
      "mov eax,0x60; mov fs,eax\n"
      "1: cmp ecx,1; jne 2f; mov eax,0x68; mov fs,eax; 2: mov eax,fs:[0x1000]; inc ebx; dec ecx; "
      "jnz 1b; hlt");

static void limited_fs(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		struct flat *f = machine(modes[i]);

		flat_poke(f, DESC, descriptor(FLAT_DATA, 0xfffff, DATA_PAGES), 8);
		flat_poke(f, DESC2, descriptor(FLAT_DATA, 0x1002, DATA_BYTES), 8);
		load(f, fs_shrinks);
		assert_int_equal(go(f), CPU_EXIT_HLT);
		assert_int_equal(flat_handler(f), VEC_GP);
		assert_int_equal(f->cpu->gpr[RBX], ROUNDS - 1);
		done(f);
	}
}

/* DS gets a base for one access in each round, and in the last it is null. */
GUEST(ds_changes, 32,
      "mov edx,0x60; mov edi,0x28; mov esi,0x100000\n"
      "1: mov ds,edx; add ebx,[esi]; mov ds,edi; add ebx,[esi]; cmp ecx,1; jne 2f; xor edx,edx; "
      "mov ds,edx\n"
      "2: add ebx,[esi+4]; dec ecx; jnz 1b; hlt");

static void based_ds(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		struct flat *f = machine(modes[i]);

		flat_poke(f, DESC, descriptor(0x1000, 0xfffff, DATA_PAGES), 8);
		flat_poke(f, FLAT_DATA, 3, 4);
		flat_poke(f, FLAT_DATA + 4, 100, 4);
		flat_poke(f, FLAT_DATA + 0x1000, 0x10000, 4);
		load(f, ds_changes);
		assert_int_equal(go(f), CPU_EXIT_HLT);
		assert_int_equal(flat_handler(f), VEC_GP);
		assert_int_equal(f->cpu->gpr[RBX], ROUNDS * 0x10003 + (ROUNDS - 1) * 100);
		done(f);
	}
}

/* A 16-bit stack pointer for the second half: the upper half of ESP stays. */
GUEST(stack_narrows, 32,
      "mov edx,0x60; mov edi,0x28; mov esi,esp\n"
      "1: cmp ecx,25; jne 2f; mov ss,edx; mov esp,0x5fffe; 2: push ecx; pop eax; add ebx,eax; dec "
      "ecx; jnz 1b; hlt");

static void stack_of_16_bits(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		struct flat *f = machine(modes[i]);

		flat_poke(f, DESC, descriptor(0, 0xfffff, DATA_16), 8);
		load(f, stack_narrows);
		assert_int_equal(go(f), CPU_EXIT_HLT);
		assert_int_equal(f->cpu->gpr[RBX], ROUNDS * (ROUNDS + 1) / 2);
		assert_int_equal(f->cpu->gpr[RSP], 0x5fffe);
		assert_int_equal(flat_peek(f, 0xfffa, 4), 1);
		done(f);
	}
}

/*
 * The same bytes in both sizes, each many times: 40 48 ff c1 is INC EAX; DEC EAX; INC ECX, and INC RCX. Far returns lead
 * from size to size; the routine ends by a far return to its caller's.
 */
GUEST(both_sizes, 32,
      "mov esi,50\n"
      /* PUSH CS, and PUSH of a difference, as bytes: assemblers do not agree on them */
      "1: xor ecx,ecx; .byte 0x0e; .byte 0x68; .long 2f - both_sizes + 0x8000\n"
      "push 0x60; .byte 0x68; .long 4f - both_sizes + 0x8000; retf\n"
      "2: add ebx,ecx; .byte 0x0e; .byte 0x68; .long 3f - both_sizes + 0x8000\n"
      ".byte 0x0e; .byte 0x68; .long 4f - both_sizes + 0x8000; retf\n"
      "3: add ebx,ecx; dec esi; jnz 1b; hlt\n"
      "4: .byte 0x40,0x48,0xff,0xc1; retf");

static void both_code_sizes(void **state)
{
	struct flat *f = machine(flat_compat);

	flat_poke(f, DESC, descriptor(0, 0, CODE_64), 8);
	load(f, both_sizes);
	f->cpu->gpr[RAX] = 0xffffffff;
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RBX], ROUNDS * 3);
	assert_int_equal((uint32_t)f->cpu->gpr[RAX], 0xffffffff);
	assert_int_equal(f->cpu->retired, 1 + ROUNDS * (6 + 6 + 3 + 2 + 4) + 1);
	done(f);
}

/* A call over a page's end, a jump to it by memory, and LOOP. */
GUEST(over, 32,
      "1: call dword ptr [esi]; mov eax,0x8ffd; call eax; loop 1b; jecxz 2f; ud2; 2: hlt");

static void over_the_end(void **state)
{
	static const uint8_t callee[] = {0x81, 0xc3, 0x03, 0x01,
					 0x00, 0x00, 0xc3}; /* add ebx,0x103; ret */

	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		struct flat *f = machine(modes[i]);

		flat_write(f, 0x8ffd, callee, sizeof(callee));
		flat_poke(f, FLAT_DATA, 0x8ffd, 4);
		f->cpu->gpr[RSI] = FLAT_DATA;
		load(f, over);
		assert_int_equal(go(f), CPU_EXIT_HLT);
		assert_int_equal(flat_handler(f), -1);
		assert_int_equal(f->cpu->gpr[RBX], ROUNDS * 2 * 0x103);
		assert_int_equal(f->cpu->retired, ROUNDS * 8 + 2);
		done(f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_exactly),  cmocka_unit_test(wraps_at_4g),
		cmocka_unit_test(based_fs),	   cmocka_unit_test(limited_fs),
		cmocka_unit_test(based_ds),	   cmocka_unit_test(stack_of_16_bits),
		cmocka_unit_test(both_code_sizes), cmocka_unit_test(over_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
