/* SPDX-License-Identifier: MIT */
/* Addresses, far pointers, segment moves, BOUND, ARPL, masked and 64-byte stores. */
#include "emul.h"
#include "silicon/models/features.h"

static void lea(void **state)
{
	struct flat *f = emul_machine(flat_long);

	f->cpu->gpr[RBX] = 0xffffffff00000010;
	f->cpu->gpr[RCX] = 0x4;
	f->cpu->gpr[RAX] = ~0ull;
	/* lea rax,[rbx+rcx*8-1]; lea edx,[rbx+rcx*8-1]; lea si,[rbx+rcx*8-1] */
	f->cpu->gpr[RSI] = 0x1111111111111111;
	emul_halts(f, "\x48\x8d\x44\xcb\xff\x8d\x54\xcb\xff\x66\x8d\x74\xcb\xff");
	assert_true(f->cpu->gpr[RAX] == 0xffffffff0000002f);
	assert_int_equal(f->cpu->gpr[RDX], 0x2f);
	assert_true(f->cpu->gpr[RSI] == 0x111111111111002f);
	/* 67 lea rax,[ebx-0x20]: wraps at 4 GiB; lea rdx,[rip+0] */
	emul_halts(f, "\x67\x48\x8d\x43\xe0\x48\x8d\x15\x00\x00\x00\x00");
	assert_int_equal(f->cpu->gpr[RAX], 0xfffffff0);
	assert_int_equal(f->cpu->gpr[RDX], FLAT_CODE + 12);
	flat_real(f);
	f->cpu->gpr[RBX] = 0xfff0;
	f->cpu->gpr[RSI] = 0x20;
	emul_halts(f, "\x8d\x00"); /* lea ax,[bx+si] */
	assert_int_equal((uint16_t)f->cpu->gpr[RAX], 0x10);
	flat_free(f);
}

static void xlat(void **state)
{
	struct flat *f = emul_machine(flat_long);

	f->cpu->seg[SEG_GS].base = 0x1000;
	flat_poke(f, FLAT_DATA + 0x1080, 0x5a, 1);
	f->cpu->gpr[RBX] = FLAT_DATA;
	f->cpu->gpr[RAX] = 0xff80;
	emul_halts(f, "\x65\xd7");
	assert_int_equal(f->cpu->gpr[RAX], 0xff5a);
	flat_free(f);
}

static void bound(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	f->cpu->gpr[RBX] = FLAT_DATA;
	flat_poke(f, FLAT_DATA, -5, 4);
	flat_poke(f, FLAT_DATA + 4, 9, 4);
	f->cpu->gpr[RAX] = (uint32_t)-5;
	emul_halts(f, "\x62\x03");
	f->cpu->gpr[RAX] = 9;
	emul_halts(f, "\x62\x03");
	f->cpu->gpr[RAX] = 10;
	emul_faults(f, VEC_BR, "\x62\x03");
	flat_prot32(f);
	f->cpu->gpr[RBX] = FLAT_DATA;
	f->cpu->gpr[RAX] = (uint32_t)-6;
	emul_faults(f, VEC_BR, "\x62\x03");
	flat_free(f);
}

static void arpl(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	f->cpu->gpr[RAX] = 0x1234f0f0;
	f->cpu->gpr[RCX] = 3;
	emul_halts(f, "\x63\xc8"); /* arpl ax,cx */
	assert_int_equal(f->cpu->gpr[RAX], 0x1234f0f3);
	assert_true(emul_flags(f) & FLAG_ZF);
	emul_halts(f, "\x63\xc8");
	assert_false(emul_flags(f) & FLAG_ZF);
	flat_real(f);
	emul_faults(f, VEC_UD, "\x63\xc8");
	flat_free(f);
}

static void far_pointers(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	f->cpu->gpr[RBX] = FLAT_DATA;
	flat_poke(f, FLAT_DATA, 0x11223344, 4);
	flat_poke(f, FLAT_DATA + 4, FLAT_DS16, 2);
	emul_halts(f, "\xc4\x03"); /* les eax,[ebx] */
	assert_int_equal(f->cpu->gpr[RAX], 0x11223344);
	assert_int_equal(f->cpu->seg[SEG_ES].sel, FLAT_DS16);
	assert_int_equal(f->cpu->seg[SEG_ES].limit, 0xffff);
	emul_halts(f, "\x0f\xb4\x13"); /* lfs edx,[ebx] */
	assert_int_equal(f->cpu->seg[SEG_FS].sel, FLAT_DS16);
	/* a code selector for SS, and nothing loaded: lss ecx,[ebx] */
	flat_poke(f, FLAT_DATA + 4, FLAT_CS32, 2);
	f->cpu->gpr[RCX] = 7;
	emul_faults(f, VEC_GP, "\x0f\xb2\x0b");
	assert_int_equal(f->cpu->gpr[RCX], 7);
	assert_int_equal(f->cpu->seg[SEG_SS].sel, FLAT_DS32);
	flat_real(f);
	f->cpu->gpr[RBX] = 0x9000;
	flat_poke(f, 0x9000, 0x12345678, 4);
	emul_halts(f, "\xc5\x37"); /* lds si,[bx] */
	assert_int_equal((uint16_t)f->cpu->gpr[RSI], 0x5678);
	assert_int_equal(f->cpu->seg[SEG_DS].base, 0x12340);
	flat_free(f);
}

static void segment_moves(void **state)
{
	struct flat *f = emul_machine(flat_long);

	f->cpu->gpr[RAX] = f->cpu->gpr[RCX] = ~0ull;
	/* mov eax,ds; mov cx,ds; mov [rbx],ds */
	f->cpu->gpr[RBX] = FLAT_DATA;
	flat_poke(f, FLAT_DATA, ~0ull, 8);
	emul_halts(f, "\x8c\xd8\x66\x8c\xd9\x48\x8c\x1b");
	assert_int_equal(f->cpu->gpr[RAX], FLAT_DS32);
	assert_true(f->cpu->gpr[RCX] == (0xffffffffffff0000ull | FLAT_DS32));
	assert_true(flat_peek(f, FLAT_DATA, 8) == (0xffffffffffff0000ull | FLAT_DS32));
	/* mov ss shadows, mov es does not */
	f->cpu->gpr[RAX] = FLAT_DS32;
	emul_steps(f, 1, "\x8e\xd0\x90");
	assert_int_equal(f->cpu->shadow, SHADOW_MOV_SS);
	flat_long(f);
	f->cpu->gpr[RAX] = FLAT_DS32;
	emul_steps(f, 1, "\x8e\xc0\x90");
	assert_int_equal(f->cpu->shadow, 0);
	emul_faults(f, VEC_UD, "\x8e\xc8"); /* mov cs,ax */
	flat_free(f);
}

static void maskmovdqu(void **state)
{
	struct flat *f = emul_machine(flat_long);

	for (unsigned i = 0; i < 16; i++) {
		flat_poke(f, FLAT_DATA + i, i + 1, 1);
		flat_poke(f, FLAT_DATA + 16 + i, i % 3 ? 0x7f : 0x80, 1);
	}
	f->cpu->gpr[RBX] = FLAT_DATA;
	f->cpu->gpr[RDI] = FLAT_DATA + 0x100;
	/* movups xmm9,[rbx]; movups xmm2,[rbx+16]; maskmovdqu xmm9,xmm2 */
	emul_halts(f, "\x44\x0f\x10\x0b\x0f\x10\x53\x10\x66\x44\x0f\xf7\xca");
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(flat_peek(f, FLAT_DATA + 0x100 + i, 1), i % 3 ? 0 : i + 1);
	/* a page that is not selected is not looked at; one that is, stops all */
	flat_map(f, FLAT_DATA + 0x2000, 0, 0, 0x1000);
	mmu_flush_all(f->cpu);
	flat_poke(f, FLAT_DATA + 16, 0x80, 8);
	flat_poke(f, FLAT_DATA + 24, 0, 8);
	f->cpu->gpr[RDI] = FLAT_DATA + 0x1fff;
	emul_halts(f, "\x0f\x10\x53\x10\x66\x44\x0f\xf7\xca");
	assert_int_equal(flat_peek(f, FLAT_DATA + 0x1fff, 1), 1);
	flat_poke(f, FLAT_DATA + 0x1fff, 0, 1);
	flat_poke(f, FLAT_DATA + 16, 0x8080, 8);
	emul_faults(f, VEC_PF, "\x0f\x10\x53\x10\x66\x44\x0f\xf7\xca");
	assert_int_equal(f->cpu->cr2, FLAT_DATA + 0x2000);
	assert_int_equal(flat_peek(f, FLAT_DATA + 0x1fff, 1), 0);
	flat_free(f);
}

static void maskmovq(void **state)
{
	struct flat *f = emul_machine(flat_long);

	flat_poke(f, FLAT_DATA, 0x8877665544332211, 8);
	flat_poke(f, FLAT_DATA + 8, 0x80ff007f00800000, 8);
	f->cpu->gpr[RBX] = FLAT_DATA;
	f->cpu->gpr[RDI] = FLAT_DATA + 0x100;
	/* movq mm1,[rbx]; movq mm6,[rbx+8]; maskmovq mm1,mm6; movq [rbx+16],mm1 */
	emul_halts(f, "\x0f\x6f\x0b\x0f\x6f\x73\x08\x0f\xf7\xce\x0f\x7f\x4b\x10");
	assert_true(flat_peek(f, FLAT_DATA + 0x100, 8) == 0x8877000000330000);
	assert_true(flat_peek(f, FLAT_DATA + 16, 8) == 0x8877665544332211);
	flat_free(f);
}

static void movdir64b(void **state)
{
	struct flat *f = emul_machine(flat_long);

	if (!feature_has(f->cpu->model_features, FEAT_MOVDIR64B)) {
		flat_free(f);
		skip();
	}
	for (unsigned i = 0; i < 64; i++)
		flat_poke(f, FLAT_DATA + 3 + i, i + 1, 1);
	f->cpu->gpr[RBX] = FLAT_DATA + 3;
	f->cpu->gpr[RDI] = FLAT_DATA + 0x1000;
	emul_halts(f, "\x66\x0f\x38\xf8\x3b");
	assert_memory_equal(f->ram + FLAT_DATA + 0x1000, f->ram + FLAT_DATA + 3, 64);
	f->cpu->gpr[RDI] += 8;
	emul_faults(f, VEC_GP, "\x66\x0f\x38\xf8\x3b");
	flat_free(f);
}

static void lahf_sahf(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	f->cpu->gpr[RAX] = 0xd5ab;
	emul_halts(f, "\x9e\xb4\x00\x9f"); /* sahf; mov ah,0; lahf */
	assert_int_equal(f->cpu->gpr[RAX], 0xd7ab);
	emul_halts(f, "\xf9\xf5\xfd"); /* stc; cmc; std */
	assert_false(emul_flags(f) & FLAG_CF);
	assert_true(emul_flags(f) & FLAG_DF);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lea),		cmocka_unit_test(xlat),
		cmocka_unit_test(bound),	cmocka_unit_test(arpl),
		cmocka_unit_test(far_pointers), cmocka_unit_test(segment_moves),
		cmocka_unit_test(maskmovdqu),	cmocka_unit_test(maskmovq),
		cmocka_unit_test(movdir64b),	cmocka_unit_test(lahf_sahf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
