/* SPDX-License-Identifier: MIT */
/* System instructions: who may use them, what they store, what they refuse. */
#include "emul.h"
#include "silicon/models/model.h"
#include "silicon/models/features.h"

struct refusal {
	const char *code;
	unsigned size;
	uint8_t vector;
};

#define REFUSED(vector, literal)                     \
	{                                            \
		literal, sizeof(literal) - 1, vector \
	}

/* Instructions that CPL 3 may not use, in 64-bit mode. */
static void user_refused(void **state)
{
	static const struct refusal rows[] = {
		REFUSED(VEC_GP, "\xf4"),	     /* hlt */
		REFUSED(VEC_GP, "\x0f\x32"),	     /* rdmsr */
		REFUSED(VEC_GP, "\x0f\x30"),	     /* wrmsr */
		REFUSED(VEC_GP, "\x0f\x20\xc0"),     /* mov rax,cr0 */
		REFUSED(VEC_GP, "\x0f\x22\xd8"),     /* mov cr3,rax */
		REFUSED(VEC_GP, "\x44\x0f\x20\xc0"), /* mov rax,cr8 */
		REFUSED(VEC_GP, "\x0f\x21\xf8"),     /* mov rax,dr7 */
		REFUSED(VEC_UD, "\x0f\x20\xc8"),     /* mov rax,cr1 */
		REFUSED(VEC_GP, "\x0f\x06"),	     /* clts */
		REFUSED(VEC_GP, "\x0f\x01\xf0"),     /* lmsw ax */
		REFUSED(VEC_GP, "\x0f\x01\x13"),     /* lgdt [rbx] */
		REFUSED(VEC_GP, "\x0f\x01\x1b"),     /* lidt [rbx] */
		REFUSED(VEC_GP, "\x0f\x00\xd0"),     /* lldt ax */
		REFUSED(VEC_GP, "\x0f\x00\xd8"),     /* ltr ax */
		REFUSED(VEC_GP, "\x0f\x08"),	     /* invd */
		REFUSED(VEC_GP, "\x0f\x09"),	     /* wbinvd */
		REFUSED(VEC_GP, "\x0f\x01\x3b"),     /* invlpg [rbx] */
		REFUSED(VEC_GP, "\x0f\x01\xf8"),     /* swapgs */
		REFUSED(VEC_GP, "\xfa"),	     /* cli */
		REFUSED(VEC_GP, "\xe4\x80"),	     /* in al,80h */
		REFUSED(VEC_GP, "\xee"),	     /* out dx,al */
		REFUSED(VEC_UD, "\x0f\x0b"),	     /* ud2 */
		REFUSED(VEC_UD, "\x0f\xaa"),	     /* rsm */
		REFUSED(VEC_UD, "\x0f\x01\xc2"),     /* vmlaunch */
		REFUSED(VEC_UD, "\xf3\x0f\xae\xc0"), /* rdfsbase eax without CR4.FSGSBASE */
		REFUSED(VEC_GP, "\x0f\x33"),	     /* rdpmc */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct flat *f = emul_machine(flat_long);

		flat_user(f);
		f->cpu->gpr[RBX] = FLAT_DATA;
		flat_code(f, rows[i].code, rows[i].size);
		assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
		if (flat_handler(f) != rows[i].vector)
			print_error("row %u\n", i);
		assert_int_equal(flat_handler(f), rows[i].vector);
		/* the fault's image stands on the instruction */
		assert_int_equal(
			flat_peek(f, f->cpu->gpr[RSP] + (rows[i].vector == VEC_GP ? 8 : 0), 8),
			FLAT_CODE);
		flat_free(f);
	}
}

static void umip(void **state)
{
	static const struct refusal rows[] = {
		REFUSED(VEC_GP, "\x0f\x01\x03"), REFUSED(VEC_GP, "\x0f\x01\x0b"),
		REFUSED(VEC_GP, "\x0f\x00\xc0"), REFUSED(VEC_GP, "\x0f\x00\xc8"),
		REFUSED(VEC_GP, "\x0f\x01\xe0"),
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		for (unsigned on = 0; on < 2; on++) {
			struct flat *f = emul_machine(flat_long);

			flat_user(f);
			f->cpu->gpr[RBX] = FLAT_DATA;
			if (on)
				flat_set_cr4(f, f->cpu->cr4 | CR4_UMIP);
			flat_code(f, rows[i].code, rows[i].size);
			if (on) {
				assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
				assert_int_equal(flat_handler(f), VEC_GP);
			} else {
				assert_int_equal(flat_run(f, 1), CPU_EXIT_REQUEST);
				assert_int_equal(f->cpu->rip, FLAT_CODE + rows[i].size);
			}
			flat_free(f);
		}
}

static void smsw_lmsw(void **state)
{
	struct flat *f = emul_machine(flat_prot32);
	uint64_t cr0 = f->cpu->cr0;

	f->cpu->gpr[RAX] = f->cpu->gpr[RCX] = 0xffffffff;
	f->cpu->gpr[RBX] = FLAT_DATA;
	flat_poke(f, FLAT_DATA, 0xffffffff, 4);
	/* smsw eax; smsw cx; smsw [ebx] */
	emul_halts(f, "\x0f\x01\xe0\x66\x0f\x01\xe1\x0f\x01\x23");
	assert_int_equal(f->cpu->gpr[RAX], cr0);
	assert_int_equal(f->cpu->gpr[RCX], 0xffff0000 | (uint16_t)cr0);
	assert_int_equal(flat_peek(f, FLAT_DATA, 4), 0xffff0000 | (uint16_t)cr0);
	/* lmsw: TS and EM are set, PE cannot be cleared, the rest stays */
	f->cpu->gpr[RAX] = 0xfffc;
	emul_halts(f, "\x0f\x01\xf0");
	assert_int_equal(f->cpu->cr0, (cr0 & ~CR0_MP) | CR0_TS | CR0_EM);
	emul_halts(f, "\x0f\x06");
	assert_false(f->cpu->cr0 & CR0_TS);
	flat_free(f);
}

static void tables(void **state)
{
	struct flat *f = emul_machine(flat_long);

	f->cpu->gpr[RBX] = FLAT_DATA;
	f->cpu->gdtr.base = 0xffff800012345000;
	memset(f->ram + FLAT_DATA, 0xcc, 16);
	emul_halts(f, "\x0f\x01\x03");
	assert_int_equal(flat_peek(f, FLAT_DATA, 2), f->cpu->gdtr.limit);
	assert_true(flat_peek(f, FLAT_DATA + 2, 8) == 0xffff800012345000);
	assert_int_equal(flat_peek(f, FLAT_DATA + 10, 1), 0xcc);
	f->cpu->gdtr.base = 0;
	emul_halts(f, "\x0f\x01\x13");
	assert_true(f->cpu->gdtr.base == 0xffff800012345000);
	f->cpu->gdtr.base = FLAT_GDT;
	flat_poke(f, FLAT_DATA + 2, BIT(63), 8);
	emul_faults(f, VEC_GP, "\x0f\x01\x1b"); /* lidt, not canonical */
	assert_int_equal(f->cpu->idtr.base, FLAT_IDT);
	/* 16-bit operand: 24 bits of base */
	flat_real(f);
	f->cpu->gpr[RBX] = 0x9000;
	flat_poke(f, 0x9000, 0x0012345601ff, 6);
	flat_poke(f, 0x9005, 0xab, 1);
	emul_halts(f, "\x0f\x01\x17");
	assert_int_equal(f->cpu->gdtr.base, 0x123456);
	assert_int_equal(f->cpu->gdtr.limit, 0x1ff);
	emul_halts(f, "\x66\x0f\x01\x17");
	assert_int_equal(f->cpu->gdtr.base, 0xab123456);
	flat_free(f);
}

static void real_mode_ud(void **state)
{
	struct flat *f = emul_machine(flat_real);

	emul_faults(f, VEC_UD, "\x0f\x00\xc0"); /* sldt */
	flat_real(f);
	emul_faults(f, VEC_UD, "\x0f\x00\xd8"); /* ltr */
	flat_real(f);
	emul_faults(f, VEC_UD, "\x0f\x02\xc0"); /* lar */
	flat_real(f);
	emul_faults(f, VEC_UD, "\x0f\x00\xe0"); /* verr */
	flat_free(f);
}

static void selectors(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	f->cpu->gpr[RAX] = FLAT_CS32;
	emul_halts(f, "\x0f\x02\xc8"); /* lar ecx,eax */
	assert_true(emul_flags(f) & FLAG_ZF);
	assert_int_equal(f->cpu->gpr[RCX], 0x00cf9b00);
	emul_halts(f, "\x0f\x03\xd0"); /* lsl edx,eax */
	assert_int_equal(f->cpu->gpr[RDX], 0xffffffff);
	f->cpu->gpr[RAX] = 0xfff0;
	emul_halts(f, "\x0f\x02\xc8");
	assert_false(emul_flags(f) & FLAG_ZF);
	assert_int_equal(f->cpu->gpr[RCX], 0x00cf9b00);
	f->cpu->gpr[RAX] = FLAT_CS32;
	emul_halts(f, "\x0f\x00\xe8"); /* verw of code */
	assert_false(emul_flags(f) & FLAG_ZF);
	emul_halts(f, "\x0f\x00\xe0"); /* verr */
	assert_true(emul_flags(f) & FLAG_ZF);
	flat_free(f);
}

static void cpuid_and_time(void **state)
{
	struct flat *f = emul_machine(flat_long);

	emul_pattern(f);
	f->cpu->gpr[RAX] = 0xffffffff00000000;
	emul_halts(f, "\x0f\xa2");
	assert_int_equal(f->cpu->gpr[RBX] >> 32, 0);
	assert_int_not_equal(f->cpu->gpr[RBX], 0);
	f->tsc = 0x1122334455667700;
	emul_pattern(f);
	emul_halts(f, "\x0f\x31");
	assert_int_equal(f->cpu->gpr[RAX], 0x55667764);
	assert_int_equal(f->cpu->gpr[RDX], 0x11223344);
	flat_set_cr4(f, f->cpu->cr4 | CR4_TSD);
	emul_halts(f, "\x0f\x31");
	flat_user(f);
	emul_faults(f, VEC_GP, "\x0f\x31");
	flat_free(f);
}

static void control_registers(void **state)
{
	struct flat *f = emul_machine(flat_long);

	/* mov cr2,rax; mov rcx,cr2; mov cr8,rbx; mov rdx,cr8 */
	f->cpu->gpr[RAX] = 0x123456789abcdef0;
	f->cpu->gpr[RBX] = 9;
	emul_halts(f, "\x0f\x22\xd0\x0f\x20\xd1\x44\x0f\x22\xc3\x44\x0f\x20\xc2");
	assert_true(f->cpu->gpr[RCX] == 0x123456789abcdef0);
	assert_int_equal(f->cpu->gpr[RDX], 9);
	assert_int_equal(f->tpr, 9);
	/* DR4 is DR6, unless CR4.DE */
	emul_halts(f, "\x0f\x21\xe0");
	assert_int_equal(f->cpu->gpr[RAX], f->cpu->dr6);
	flat_set_cr4(f, f->cpu->cr4 | CR4_DE);
	emul_faults(f, VEC_UD, "\x0f\x21\xe0");
	flat_free(f);
}

static void gs_bases(void **state)
{
	struct flat *f = emul_machine(flat_long);

	f->cpu->seg[SEG_GS].base = 0x1111;
	f->cpu->msr.kernel_gs_base = 0xffff800000002222;
	emul_halts(f, "\x0f\x01\xf8");
	assert_true(f->cpu->seg[SEG_GS].base == 0xffff800000002222);
	assert_int_equal(f->cpu->msr.kernel_gs_base, 0x1111);
	flat_set_cr4(f, f->cpu->cr4 | CR4_FSGSBASE);
	f->cpu->gpr[RAX] = 0x00007fff12345678;
	/* wrfsbase rax; rdfsbase ecx; rdfsbase rdx */
	emul_halts(f, "\xf3\x48\x0f\xae\xd0\xf3\x0f\xae\xc1\xf3\x48\x0f\xae\xc2");
	assert_int_equal(f->cpu->gpr[RCX], 0x12345678);
	assert_int_equal(f->cpu->gpr[RDX], 0x00007fff12345678);
	f->cpu->gpr[RAX] = BIT(62);
	emul_faults(f, VEC_GP, "\xf3\x48\x0f\xae\xd0");
	assert_int_equal(f->cpu->seg[SEG_FS].base, 0x00007fff12345678);
	flat_free(f);
}

static void invpcid(void **state)
{
	struct flat *f = emul_machine(flat_long);

	if (!feature_has(f->cpu->model_features, FEAT_INVPCID)) {
		flat_free(f);
		skip();
	}
	f->cpu->gpr[RBX] = FLAT_DATA;
	f->cpu->gpr[RAX] = 2;
	emul_halts(f, "\x66\x0f\x38\x82\x03");
	f->cpu->gpr[RAX] = 4;
	emul_faults(f, VEC_GP, "\x66\x0f\x38\x82\x03");
	flat_long(f);
	f->cpu->gpr[RBX] = FLAT_DATA;
	f->cpu->gpr[RAX] = 0;
	flat_poke(f, FLAT_DATA, 1, 8); /* a PCID while they are off */
	emul_faults(f, VEC_GP, "\x66\x0f\x38\x82\x03");
	flat_free(f);
}

static uint64_t port_value(struct flat *f, uint16_t port, unsigned size)
{
	return 0x11223344;
}

static void ports(void **state)
{
	struct flat *f = emul_machine(flat_long);

	f->port_in = port_value;
	f->cpu->gpr[RAX] = ~0ull;
	emul_halts(f, "\xe4\x71");
	assert_true(f->cpu->gpr[RAX] == 0xffffffffffffff44);
	assert_int_equal(f->events[0].addr, 0x71);
	f->cpu->gpr[RDX] = 0xcf8;
	emul_halts(f, "\x66\xed");
	assert_true(f->cpu->gpr[RAX] == 0xffffffffffff3344);
	emul_halts(f, "\x48\xed"); /* REX.W does not widen; the result zero-extends */
	assert_int_equal(f->cpu->gpr[RAX], 0x11223344);
	assert_int_equal(f->events[2].size, 4);
	f->ports_exit = true;
	emul_halts(f, "\xef\xed");
	assert_int_equal(f->events[3].kind, FLAT_PORT_WRITE);
	assert_int_equal(f->events[3].data, 0x11223344);
	assert_int_equal(f->events[4].kind, FLAT_PORT_READ);
	flat_free(f);
}

static void software_interrupts(void **state)
{
	struct flat *f = emul_machine(flat_prot32);

	emul_faults(f, VEC_BP, "\xcc");
	assert_int_equal(flat_peek(f, f->cpu->gpr[RSP], 4), FLAT_CODE + 1);
	flat_prot32(f);
	emul_faults(f, 0x80, "\xcd\x80");
	flat_prot32(f);
	emul_halts(f, "\xce"); /* into without OF */
	f->cpu->aflags |= 1;
	emul_faults(f, VEC_OF, "\xce");
	flat_prot32(f);
	emul_faults(f, VEC_DB, "\xf1");
	/* the gate's DPL */
	flat_prot32(f);
	flat_user(f);
	emul_faults(f, VEC_GP, "\xcd\x80");
	assert_int_equal(flat_peek(f, f->cpu->gpr[RSP], 4), 0x80 * 8 + 2);
	flat_free(f);
}

/* The platform of these tests refuses the other vendor's instruction. */
static void hypercall(void **state)
{
	struct flat *f = emul_machine(flat_long);
	bool intel = model_intel(f->cpu->model);

	if (intel)
		emul_halts(f, "\x0f\x01\xc1");
	else
		emul_halts(f, "\x0f\x01\xd9");
	assert_true(f->cpu->gpr[RAX] == -1000ull);
	flat_compat(f);
	if (intel)
		emul_halts(f, "\x0f\x01\xc1");
	else
		emul_halts(f, "\x0f\x01\xd9");
	assert_int_equal(f->cpu->gpr[RAX], (uint32_t)-1000);
	flat_long(f);
	if (intel)
		emul_faults(f, VEC_UD, "\x0f\x01\xd9");
	else
		emul_faults(f, VEC_UD, "\x0f\x01\xc1");
	flat_free(f);
}

static void rdrand(void **state)
{
	struct flat *f = emul_machine(flat_long);

	if (!feature_has(f->cpu->model_features, FEAT_RDRAND)) {
		flat_free(f);
		skip();
	}
	f->cpu->gpr[RAX] = f->cpu->gpr[RCX] = ~0ull;
	cpu_set_rflags(f->cpu, FLAGS_ARITH);
	emul_halts(f, "\x0f\xc7\xf0\x66\x0f\xc7\xf1"); /* rdrand eax; rdrand cx */
	assert_int_equal(emul_flags(f) & (FLAGS_ARITH & ~FLAG_CF), 0);
	assert_int_equal(f->cpu->gpr[RAX] >> 32, 0);
	assert_int_equal(f->cpu->gpr[RCX] >> 16, 0xffffffffffff);
	flat_free(f);
}

static void mwait(void **state)
{
	struct flat *f = emul_machine(flat_long);

	f->cpu->gpr[RAX] = FLAT_DATA;
	/* There for all, unless the hypervisor lets CPUID decide, which has no MONITOR here. */
	f->cpu->monitor_by_cpuid = true;
	emul_faults(f, VEC_UD, "\x0f\x01\xc8");
	emul_faults(f, VEC_UD, "\x0f\x01\xc9");
	f->cpu->monitor_by_cpuid = false;
	emul_halts(f, "\x0f\x01\xc8\x0f\x01\xc9");
	f->cpu->gpr[RCX] = 1;
	emul_faults(f, VEC_GP, "\x0f\x01\xc8");
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(user_refused),	  cmocka_unit_test(umip),
		cmocka_unit_test(smsw_lmsw),	  cmocka_unit_test(tables),
		cmocka_unit_test(real_mode_ud),	  cmocka_unit_test(selectors),
		cmocka_unit_test(cpuid_and_time), cmocka_unit_test(control_registers),
		cmocka_unit_test(gs_bases),	  cmocka_unit_test(invpcid),
		cmocka_unit_test(ports),	  cmocka_unit_test(software_interrupts),
		cmocka_unit_test(hypercall),	  cmocka_unit_test(rdrand),
		cmocka_unit_test(mwait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
