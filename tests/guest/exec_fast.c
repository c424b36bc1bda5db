/* SPDX-License-Identifier: MIT */
/*
 * The functions for frequent instructions where they leave their short way: faults in the middle of
 * read-modify-write, page ends, segments that are not flat, and what 16- and 32-bit code wraps. What they compute
 * otherwise is compared with the host in tests/insn.
 */
#include "emul.h"

#define READ_ONLY 0x200000ul /* a page that may not be written, FLAT_DATA behind it may */
#define PAGE	  0x1000ul

static struct flat *machine_with_read_only_page(void)
{
	struct flat *f = emul_machine(flat_long);

	flat_map(f, READ_ONLY, READ_ONLY, PTE_P, PAGE);
	flat_map(f, READ_ONLY + PAGE, READ_ONLY + PAGE, PTE_P | PTE_W, PAGE);
	flat_set_cr0(f, f->cpu->cr0 | CR0_WP);
	return f;
}

static void rmw_on_read_only_commits_nothing(void **state)
{
	struct flat *f = machine_with_read_only_page();

	flat_poke(f, READ_ONLY, 0x1122334455667788, 8);
	f->cpu->gpr[RBX] = READ_ONLY;
	f->cpu->gpr[RCX] = 5;
	/* mov rax,[rbx] makes the page known for reading; stc; add [rbx],rcx */
	emul_faults(f, VEC_PF, "\x48\x8b\x03\xf9\x48\x01\x0b");
	assert_true(f->cpu->gpr[RAX] == 0x1122334455667788);
	assert_true(flat_peek(f, READ_ONLY, 8) == 0x1122334455667788);
	assert_int_equal(f->cpu->gpr[RCX], 5);
	assert_true(f->cpu->aflags & FLAG_CF << 8);
	assert_int_equal(f->cpu->cr2, READ_ONLY);
	flat_free(f);
}

static void shift_on_read_only_commits_nothing(void **state)
{
	struct flat *f = machine_with_read_only_page();

	flat_poke(f, READ_ONLY, 0x80, 1);
	f->cpu->gpr[RBX] = READ_ONLY;
	/* test byte [rbx],0x80; shl byte [rbx],1 */
	emul_faults(f, VEC_PF, "\xf6\x03\x80\xd0\x23");
	assert_int_equal(flat_peek(f, READ_ONLY, 1), 0x80);
	assert_int_equal(f->cpu->aflags & FLAG_CF << 8, 0);
	flat_free(f);
}

/* Both pages are checked before either is written. */
static void crossing_into_read_only_commits_nothing(void **state)
{
	struct flat *f = machine_with_read_only_page();
	gva_t at = READ_ONLY - 4;

	flat_poke(f, at, 0x0102030405060708, 8);
	f->cpu->gpr[RBX] = at;
	emul_faults(f, VEC_PF, "\x48\xff\x03"); /* inc qword [rbx] */
	assert_true(flat_peek(f, at, 8) == 0x0102030405060708);
	assert_int_equal(f->cpu->cr2, READ_ONLY);
	flat_code(f, "\x48\x89\x1b", 3); /* mov [rbx],rbx */
	f->cpu->gpr[RSP] = FLAT_STACK;
	assert_int_equal(flat_run(f, 1000), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_PF);
	assert_true(flat_peek(f, at, 8) == 0x0102030405060708);
	flat_free(f);
}

static void crossing_pages(void **state)
{
	struct flat *f = emul_machine(flat_long);
	gva_t at = FLAT_DATA + PAGE - 3;

	flat_poke(f, at, 0x00000000ffffffff, 8);
	f->cpu->gpr[RBX] = at;
	f->cpu->gpr[RCX] = 1;
	/* add [rbx],rcx; adc ecx,[rbx+4]; mov rdx,[rbx]; push [rbx]; pop rsi */
	emul_halts(f, "\x48\x01\x0b\x13\x4b\x04\x48\x8b\x13\xff\x33\x5e");
	assert_true(flat_peek(f, at, 8) == 0x100000000);
	assert_int_equal(f->cpu->gpr[RCX], 2);
	assert_true(f->cpu->gpr[RDX] == 0x100000000);
	assert_true(f->cpu->gpr[RSI] == 0x100000000);
	flat_free(f);
}

static void high_bytes(void **state)
{
	struct flat *f = emul_machine(flat_long);

	f->cpu->gpr[RAX] = 0x1111111111112233;
	f->cpu->gpr[RBX] = 0x4444444444445566;
	f->cpu->gpr[RBP] = 0x77;
	/* mov ah,bh; add bl,ah; movzx ecx,bh; mov dl,bpl */
	f->cpu->gpr[RDX] = ~0ull;
	emul_halts(f, "\x88\xfc\x00\xe3\x0f\xb6\xcf\x40\x88\xea");
	assert_true(f->cpu->gpr[RAX] == 0x1111111111115533);
	assert_true(f->cpu->gpr[RBX] == 0x44444444444455bb);
	assert_int_equal(f->cpu->gpr[RCX], 0x55);
	assert_true(f->cpu->gpr[RDX] == 0xffffffffffffff77);
	flat_free(f);
}

static void not_canonical(void **state)
{
	struct flat *f = emul_machine(flat_long);

	f->cpu->gpr[RBX] = 0x800000000000;
	emul_faults(f, VEC_GP, "\x48\x8b\x03"); /* mov rax,[rbx] */
	f->cpu->gpr[RSP] = FLAT_STACK;
	emul_faults(f, VEC_GP, "\xff\xe3"); /* jmp rbx */
	/* call rbx leaves the stack alone: the frame of #GP begins where RSP was */
	f->cpu->gpr[RSP] = FLAT_STACK;
	emul_faults(f, VEC_GP, "\xff\xd3");
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 48);
	f->cpu->gpr[RSP] = FLAT_STACK;
	f->cpu->gpr[RBP] = 0x800000000000;
	emul_faults(f, VEC_SS, "\x48\x8b\x45\x00"); /* mov rax,[rbp+0] */
	flat_free(f);
}

/* A data segment that is too small, read-only, or based elsewhere. */
static void segments_not_flat(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	f->cpu->gpr[RBX] = FLAT_DATA;
	flat_poke(f, FLAT_DATA, 0x11223344, 4);
	flat_poke(f, FLAT_DATA + 0x10, 0x55667788, 4);
	emul_halts(f, "\x8b\x03"); /* mov eax,[ebx] */
	assert_int_equal(f->cpu->gpr[RAX], 0x11223344);
	emul_faults(f, VEC_GP, "\x2e\x89\x03"); /* mov cs:[ebx],eax */
	flat_prot32(f);
	f->cpu->gpr[RBX] = FLAT_DATA;
	f->cpu->seg[SEG_DS].base = 0x10;
	cpu_update_mode(f->cpu);
	emul_halts(f, "\x8b\x03");
	assert_int_equal(f->cpu->gpr[RAX], 0x55667788);
	f->cpu->seg[SEG_DS].base = 0;
	f->cpu->seg[SEG_DS].limit = FLAT_DATA + 2;
	cpu_update_mode(f->cpu);
	emul_faults(f, VEC_GP, "\x01\x03"); /* add [ebx],eax */
	assert_int_equal(flat_peek(f, FLAT_DATA, 4), 0x11223344);
	flat_free(f);
}

static void stack_limit(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	f->cpu->seg[SEG_SS].limit = FLAT_STACK + 0x1000;
	cpu_update_mode(f->cpu);
	f->cpu->gpr[RBP] = FLAT_STACK + 0x1000;
	emul_faults(f, VEC_SS, "\x89\x45\x00"); /* mov [ebp+0],eax */
	flat_free(f);
}

/* Addresses of 16 bits wrap. IP does not: the segment's limit stops it (SDM, segment wraparound). */
static void wraps_at_64k(void **state)
{
	struct flat *f = emul_machine(flat_real);

	f->cpu->seg[SEG_CS].base = 0;
	flat_poke(f, 0x0010, 0xbeef, 2);
	f->cpu->gpr[RBX] = 0xfff0;
	flat_write(f, 0xfffc, "\x8b\x47\x20\xf4", 4); /* mov ax,[bx+0x20]; hlt */
	f->cpu->rip = 0xfffc;
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal((uint16_t)f->cpu->gpr[RAX], 0xbeef);
	assert_int_equal(f->cpu->rip, 0x10000);
	f->cpu->activity = ACTIVITY_RUN;
	f->cpu->gpr[RSP] = 0x8000;
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_GP);
	flat_free(f);
}

/* With a larger limit 16-bit code runs past 64 KiB, and 32-bit branches lead there (firmware in SMM). */
static void beyond_64k(void **state)
{
	struct flat *f = emul_machine(flat_real);

	f->cpu->seg[SEG_CS].base = 0;
	f->cpu->seg[SEG_CS].limit = 0xffffffff;
	flat_write(f, 0x8002, "\x66\x68\xfe\xff\x01\x00\x66\xc3", 8); /* push dword 0x1fffe; ret */
	flat_write(f, 0x1fffe, "\x40\x40\x40\xf4", 4);		      /* inc ax three times; hlt */
	f->cpu->rip = 0x8002;
	f->cpu->gpr[RAX] = 0;
	f->cpu->gpr[RSP] = 0x7000;
	assert_int_equal(flat_run(f, 10), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], 3);
	assert_int_equal(f->cpu->rip, 0x20002);
	flat_free(f);
}

static void rip_relative(void **state)
{
	struct flat *f = emul_machine(flat_long);

	/* lea rax,[rip+0x100]; lea ecx,[eip-0x10]; cmp byte [rip-1],0: the zero is its own immediate */
	emul_halts(f, "\x48\x8d\x05\x00\x01\x00\x00\x67\x8d\x0d\xf0\xff\xff\xff"
		      "\x80\x3d\xff\xff\xff\xff\x00");
	assert_int_equal(f->cpu->gpr[RAX], FLAT_CODE + 7 + 0x100);
	assert_int_equal(f->cpu->gpr[RCX], FLAT_CODE + 14 - 0x10);
	assert_true(f->cpu->aflags & FLAG_ZF << 8);
	flat_free(f);
}

static void segment_bases_in_64_bit_mode(void **state)
{
	struct flat *f = emul_machine(flat_long);

	flat_poke(f, FLAT_DATA + 0x20, 0xabcd, 8);
	f->cpu->seg[SEG_GS].base = FLAT_DATA;
	f->cpu->seg[SEG_DS].base = 0x5000; /* ignored */
	/* mov rax,gs:[0x20]; inc qword gs:[0x20] */
	emul_halts(f, "\x65\x48\x8b\x04\x25\x20\x00\x00\x00\x65\x48\xff\x04\x25\x20\x00\x00\x00");
	assert_int_equal(f->cpu->gpr[RAX], 0xabcd);
	assert_int_equal(flat_peek(f, FLAT_DATA + 0x20, 8), 0xabce);
	flat_free(f);
}

static void mmio_operands(void **state)
{
	struct flat *f = emul_machine(flat_long);

	f->cpu->gpr[RBX] = FLAT_MMIO;
	f->cpu->gpr[RCX] = 1;
	/* add [rbx],ecx: all ones, read and written once; mov eax,[rbx] */
	emul_halts(f, "\x01\x0b\x8b\x03");
	assert_int_equal(f->nr_events, 3);
	assert_int_equal(f->events[0].kind, FLAT_MMIO_READ);
	assert_int_equal(f->events[1].kind, FLAT_MMIO_WRITE);
	assert_int_equal(f->events[1].data, 0);
	assert_int_equal(f->cpu->gpr[RAX], 0xffffffff);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rmw_on_read_only_commits_nothing),
		cmocka_unit_test(shift_on_read_only_commits_nothing),
		cmocka_unit_test(crossing_into_read_only_commits_nothing),
		cmocka_unit_test(crossing_pages),
		cmocka_unit_test(high_bytes),
		cmocka_unit_test(not_canonical),
		cmocka_unit_test(segments_not_flat),
		cmocka_unit_test(stack_limit),
		cmocka_unit_test(wraps_at_64k),
		cmocka_unit_test(beyond_64k),
		cmocka_unit_test(rip_relative),
		cmocka_unit_test(segment_bases_in_64_bit_mode),
		cmocka_unit_test(mmio_operands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
