/* SPDX-License-Identifier: MIT */
/*
 * Control registers, EFER, XCR0, descriptor loads and ports: what is refused and what follows. Expected
 * values from the SDM (MOV to control registers, XSETBV, LAR, LSL, VERR, LTR, IN).
 */
#include "guest_asm.h"
#include "silicon/models/features.h"
#include "silicon/sys/sys_internal.h"

#define CODE FLAT_CODE

static void assert_gp(struct flat *f, enum result r, uint32_t error)
{
	assert_int_equal(r, RESULT_FAULT);
	assert_int_equal(f->cpu->fault.vector, VEC_GP);
	assert_int_equal(f->cpu->fault.error, error);
}

static void cr0_refusals(void **state)
{
	struct flat *f = long_machine();
	uint64_t cr0 = f->cpu->cr0;

	assert_gp(f, sys_set_cr0(f->cpu, cr0 | BIT(32)), 0);
	assert_gp(f, sys_set_cr0(f->cpu, cr0 | CR0_NW), 0);
	assert_gp(f, sys_set_cr0(f->cpu, cr0 & ~CR0_PE), 0);
	assert_gp(f, sys_set_cr0(f->cpu, cr0 & ~CR0_PG), 0); /* in 64-bit mode */
	assert_int_equal(f->cpu->cr0, cr0);
	assert_int_equal(sys_set_cr0(f->cpu, cr0 | CR0_NW | CR0_CD | BIT(6)), RESULT_OK);
	assert_int_equal(f->cpu->cr0, cr0 | CR0_NW | CR0_CD);
	flat_free(f);
}

static void long_mode_is_entered_and_left(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	struct cpu *cpu = f->cpu;

	flat_prot32(f);
	cpu->cr3 = flat_alloc_table(f);
	flat_set_efer(f, EFER_LME);
	assert_gp(f, sys_set_cr0(cpu, cpu->cr0 | CR0_PG), 0); /* PAE is off */
	flat_set_cr4(f, CR4_PAE);
	assert_int_equal(sys_set_cr0(cpu, cpu->cr0 | CR0_PG), RESULT_OK);
	assert_int_equal(cpu->msr.efer, EFER_LME | EFER_LMA);
	assert_true(cpu->mode.lma);
	assert_false(sys_efer_write(cpu, 0, MSR_GUEST)); /* LME under paging */
	assert_gp(f, sys_set_cr4(cpu, 0), 0);		 /* PAE in long mode */
	assert_int_equal(sys_set_cr0(cpu, cpu->cr0 & ~CR0_PG), RESULT_OK);
	assert_int_equal(cpu->msr.efer, EFER_LME);
	assert_true(sys_efer_write(cpu, 0, MSR_GUEST));
	flat_free(f);
}

static void efer_refusals(void **state)
{
	struct flat *f = long_machine();
	uint64_t efer = f->cpu->msr.efer;

	assert_false(sys_efer_write(f->cpu, efer | BIT(1), MSR_GUEST));
	assert_false(sys_efer_write(f->cpu, efer | BIT(63), MSR_GUEST));
	feature_put(f->cpu->guest_features, FEAT_NX, false);
	assert_false(sys_efer_write(f->cpu, efer, MSR_GUEST));
	assert_int_equal(sys_msr_set(f->cpu, 0xc0000080, MSR_HOST, efer & ~EFER_SCE), MSR_OK);
	/* LMA is read-only. */
	assert_int_equal(sys_msr_set(f->cpu, 0xc0000080, MSR_HOST, efer & ~EFER_LMA), MSR_OK);
	assert_int_equal(f->cpu->msr.efer, efer);
	flat_free(f);
}

static void cr3_reserved_bits(void **state)
{
	struct flat *f = long_machine();
	uint64_t cr3 = f->cpu->cr3;

	f->cpu->maxphyaddr = 40;
	assert_gp(f, sys_set_cr3(f->cpu, cr3 | BIT(40)), 0);
	assert_gp(f, sys_set_cr3(f->cpu, cr3 | BIT(63)), 0); /* without PCIDE */
	assert_int_equal(sys_set_cr3(f->cpu, cr3 | 0x18), RESULT_OK);
	flat_set_cr4(f, f->cpu->cr4 | CR4_PCIDE);
	assert_int_equal(sys_set_cr3(f->cpu, cr3 | BIT(63) | 5), RESULT_OK);
	assert_int_equal(f->cpu->cr3, cr3 | 5);
	assert_gp(f, sys_set_cr3(f->cpu, cr3 | BIT(62)), 0);
	flat_free(f);
}

static void pcide_rules(void **state)
{
	struct flat *f = long_machine();
	uint64_t cr4 = f->cpu->cr4;

	f->cpu->cr4_reserved = 0;
	f->cpu->cr3 |= 0x18;
	assert_gp(f, sys_set_cr4(f->cpu, cr4 | CR4_PCIDE), 0); /* CR3[11:0] is not 0 */
	f->cpu->cr3 &= ~0xfffull;
	assert_int_equal(sys_set_cr4(f->cpu, cr4 | CR4_PCIDE), RESULT_OK);
	assert_gp(f, sys_set_cr4(f->cpu, cr4 | CR4_LA57), 0);
	f->cpu->cr4_reserved = CR4_SMAP;
	assert_gp(f, sys_set_cr4(f->cpu, cr4 | CR4_SMAP), 0);
	flat_prot32(f);
	f->cpu->cr4_reserved = 0;
	assert_gp(f, sys_set_cr4(f->cpu, CR4_PCIDE), 0); /* outside long mode */
	flat_free(f);
}

static void pae_loads_pdptes(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	gpa_t good, bad;

	flat_pae(f);
	good = flat_alloc_table(f);
	bad = flat_alloc_table(f);
	flat_poke(f, good, 0x5001, 8);
	flat_poke(f, bad, 0x5003, 8); /* bit 1 is reserved in a PDPTE */
	assert_int_equal(sys_set_cr3(f->cpu, good), RESULT_OK);
	assert_int_equal(f->cpu->pdpte[0], 0x5001);
	assert_gp(f, sys_set_cr3(f->cpu, bad), 0);
	assert_int_equal(f->cpu->cr3, good);
	assert_int_equal(f->cpu->pdpte[0], 0x5001);
	flat_free(f);
}

static void xcr0_combinations(void **state)
{
	struct flat *f = long_machine();

	f->cpu->xcr0_allowed = 0xe7;
	assert_int_equal(sys_set_xcr0(f->cpu, 7), RESULT_OK);
	assert_int_equal(sys_set_xcr0(f->cpu, 0xe7), RESULT_OK);
	assert_gp(f, sys_set_xcr0(f->cpu, 6), 0);    /* no x87 */
	assert_gp(f, sys_set_xcr0(f->cpu, 5), 0);    /* AVX without SSE */
	assert_gp(f, sys_set_xcr0(f->cpu, 0x27), 0); /* a part of AVX-512 */
	assert_gp(f, sys_set_xcr0(f->cpu, 0xe3), 0); /* AVX-512 without AVX */
	assert_gp(f, sys_set_xcr0(f->cpu, 0x207), 0);
	assert_int_equal(f->cpu->xcr0, 0xe7);
	flat_free(f);
}

static void cr8_is_the_tpr(void **state)
{
	struct flat *f = long_machine();

	assert_int_equal(sys_set_cr8(f->cpu, 0xf), RESULT_OK);
	assert_int_equal(f->tpr, 0xf);
	assert_gp(f, sys_set_cr8(f->cpu, 0x10), 0);
	flat_free(f);
}

/* ---- descriptors ---- */

static void put_desc(struct flat *f, uint16_t sel, uint64_t desc)
{
	f->cpu->gdtr.limit = 0x9f;
	flat_poke(f, FLAT_GDT + sel, desc, 8);
}

static void data_segment_rules(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	struct cpu *cpu = f->cpu;

	flat_prot32(f);
	put_desc(f, 0x60, 0x00cf12000000ffff); /* absent */
	put_desc(f, 0x70, 0x00cf99000000ffff); /* execute-only */
	put_desc(f, 0x78, 0x00cf92000000ffff); /* not accessed */
	assert_int_equal(sys_load_segment(cpu, SEG_DS, 0x60), RESULT_FAULT);
	assert_int_equal(cpu->fault.vector, VEC_NP);
	assert_int_equal(sys_load_segment(cpu, SEG_SS, 0x60), RESULT_FAULT);
	assert_int_equal(cpu->fault.vector, VEC_SS);
	assert_int_equal(cpu->fault.error, 0x60);
	assert_gp(f, sys_load_segment(cpu, SEG_DS, 0x70), 0x70);
	assert_gp(f, sys_load_segment(cpu, SEG_DS, 0xa0), 0xa0); /* beyond the limit */
	assert_gp(f, sys_load_segment(cpu, SEG_DS, 0x14), 0x14); /* no LDT */
	assert_gp(f, sys_load_segment(cpu, SEG_SS, 0), 0);
	assert_gp(f, sys_load_segment(cpu, SEG_SS, 0x7b), 0x78); /* RPL is not CPL */
	assert_gp(f, sys_load_segment(cpu, SEG_SS, FLAT_CS32), FLAT_CS32);
	assert_int_equal(sys_load_segment(cpu, SEG_DS, 0x78), RESULT_OK);
	assert_int_equal(flat_peek(f, FLAT_GDT + 0x78 + 5, 1), 0x93);
	assert_int_equal(cpu->seg[SEG_DS].limit, 0xffffffff);
	assert_int_equal(sys_load_segment(cpu, SEG_DS, 3), RESULT_OK); /* null */
	assert_true(cpu->seg[SEG_DS].attr & SEG_UNUSABLE);
	flat_user(f);
	assert_gp(f, sys_load_segment(cpu, SEG_DS, FLAT_DS32), FLAT_DS32);
	flat_free(f);
}

static void null_ss_in_64_bit_mode(void **state)
{
	struct flat *f = long_machine();

	assert_int_equal(sys_load_segment(f->cpu, SEG_SS, 0), RESULT_OK);
	assert_int_equal(f->cpu->mode.cpl, 0);
	assert_gp(f, sys_load_segment(f->cpu, SEG_SS, 1), 0);
	flat_user(f);
	assert_gp(f, sys_load_segment(f->cpu, SEG_SS, 3), 0);
	flat_free(f);
}

static void tr_becomes_busy(void **state)
{
	struct flat *f = long_machine();

	put_desc(f, 0x60, 0x0000890000000067 | 0x5000 << 16);
	put_desc(f, 0x68, 0xffff8000);
	assert_int_equal(sys_load_tr(f->cpu, 0x60), RESULT_OK);
	assert_int_equal(f->cpu->seg[SEG_TR].base, 0xffff800000005000);
	assert_int_equal(flat_peek(f, FLAT_GDT + 0x65, 1), 0x8b);
	assert_gp(f, sys_load_tr(f->cpu, 0x60), 0x60);
	assert_gp(f, sys_load_tr(f->cpu, 0), 0);
	put_desc(f, 0x60, 0x0000890000000067 | 0x5000 << 16);
	put_desc(f, 0x68, 0x00008000); /* not canonical */
	assert_gp(f, sys_load_tr(f->cpu, 0x60), 0x60);
	assert_int_equal(flat_peek(f, FLAT_GDT + 0x65, 1), 0x89);
	flat_free(f);
}

static void questions_about_descriptors(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	uint32_t val = 0;
	bool ok;

	flat_prot32(f);
	put_desc(f, 0x60, 0x0000850000000000 | FLAT_TR << 16); /* task gate */
	assert_int_equal(sys_lar(f->cpu, FLAT_DS32, &ok, &val), RESULT_OK);
	assert_true(ok);
	assert_int_equal(val, 0x00cf9300);
	assert_int_equal(sys_lsl(f->cpu, FLAT_DS16, &ok, &val), RESULT_OK);
	assert_true(ok);
	assert_int_equal(val, 0xffff);
	sys_lar(f->cpu, 0x60, &ok, &val);
	assert_true(ok);
	sys_lsl(f->cpu, 0x60, &ok, &val);
	assert_false(ok);
	sys_lar(f->cpu, 0, &ok, &val);
	assert_false(ok);
	sys_verify(f->cpu, FLAT_CS32, false, &ok);
	assert_true(ok);
	sys_verify(f->cpu, FLAT_CS32, true, &ok);
	assert_false(ok);
	flat_user(f);
	sys_verify(f->cpu, FLAT_DS32, false, &ok);
	assert_false(ok);
	sys_verify(f->cpu, FLAT_DS_USER, true, &ok);
	assert_true(ok);
	flat_free(f);
}

/* ---- ports ---- */

GUEST(in_code, 64, "in al, 0x71\n hlt");

static void ports_by_bitmap(void **state)
{
	struct flat *f = long_machine();

	f->cpu->seg[SEG_TR].limit = 0x67 + 0x2001;
	flat_poke(f, FLAT_TSS + 0x66, 0x68, 2);
	flat_poke(f, FLAT_TSS + 0x68 + 0x70 / 8, 0xfd, 1);
	flat_user(f);
	assert_int_equal(sys_io_check(f->cpu, 0x71, 1), RESULT_OK);
	assert_gp(f, sys_io_check(f->cpu, 0x70, 1), 0);
	assert_gp(f, sys_io_check(f->cpu, 0x71, 2), 0);
	f->cpu->sflags |= FLAG_IOPL;
	assert_int_equal(sys_io_check(f->cpu, 0x70, 1), RESULT_OK);
	f->cpu->sflags &= ~FLAG_IOPL;
	f->cpu->seg[SEG_TR].limit = 0x67 + 0x10; /* the second byte of the map is beyond */
	assert_int_equal(sys_io_check(f->cpu, 0x77, 1), RESULT_FAULT);
	flat_free(f);
}

static uint64_t port_42(struct flat *f, uint16_t port, unsigned size)
{
	return 0x42;
}

static void a_port_that_user_space_answers(void **state)
{
	struct flat *f = long_machine();

	f->ports_exit = true;
	f->port_in = port_42;
	load(f, in_code);
	set_flags(f, FLAG_IF);
	assert_int_equal(flat_run_once(f, 10), CPU_EXIT_IO_READ);
	assert_int_equal(f->cpu->exit.addr, 0x71);
	assert_int_equal(f->cpu->rip, CODE);
	assert_true(flat_answer(f));
	/* An interrupt that came meanwhile waits for the open instruction. */
	pend_interrupt(f, 0x60);
	assert_int_equal(run_to_handler(f), 0x60);
	assert_int_equal(on_stack(f, 0, 8), CODE + 2);
	assert_int_equal(f->cpu->gpr[RAX], 0x42);
	assert_int_equal(f->nr_events, 1);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cr0_refusals),
		cmocka_unit_test(long_mode_is_entered_and_left),
		cmocka_unit_test(efer_refusals),
		cmocka_unit_test(cr3_reserved_bits),
		cmocka_unit_test(pcide_rules),
		cmocka_unit_test(pae_loads_pdptes),
		cmocka_unit_test(xcr0_combinations),
		cmocka_unit_test(cr8_is_the_tpr),
		cmocka_unit_test(data_segment_rules),
		cmocka_unit_test(null_ss_in_64_bit_mode),
		cmocka_unit_test(tr_becomes_busy),
		cmocka_unit_test(questions_about_descriptors),
		cmocka_unit_test(ports_by_bitmap),
		cmocka_unit_test(a_port_that_user_space_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
