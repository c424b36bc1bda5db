/* SPDX-License-Identifier: MIT */
/* silicon/cpu: mode, flags, attention, shadow, reset, faults, answers, vector state. */
#include "flat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <string.h>

static struct flat *start(void (*enter)(struct flat *))
{
	struct flat *f = flat_new(FLAT_RAM);

	enter(f);
	return f;
}

static void is_mode(struct flat *f, enum code_mode code, unsigned cpl, unsigned stack, bool flat)
{
	assert_int_equal(f->cpu->mode.code, code);
	assert_int_equal(f->cpu->mode.cpl, cpl);
	assert_int_equal(f->cpu->mode.stack_bytes, stack);
	assert_int_equal(f->cpu->mode.flat, flat);
	flat_free(f);
}

static struct flat *as_user(struct flat *f)
{
	flat_user(f);
	return f;
}

static void modes(void **state)
{
	struct flat *f;

	is_mode(start(flat_real), CODE_16, 0, 2, false);
	is_mode(start(flat_prot16), CODE_16, 0, 2, false);
	is_mode(start(flat_prot32), CODE_32, 0, 4, true);
	is_mode(start(flat_pae), CODE_32, 0, 4, true);
	is_mode(start(flat_compat), CODE_32, 0, 4, true);
	is_mode(start(flat_long), CODE_64, 0, 8, true);
	is_mode(as_user(start(flat_pae)), CODE_32, 3, 4, true);
	is_mode(as_user(start(flat_long)), CODE_64, 3, 8, true);
	f = start(flat_prot32);
	f->cpu->seg[SEG_DS].base = 16;
	cpu_update_mode(f->cpu);
	is_mode(f, CODE_32, 0, 4, false);
	f = start(flat_prot32);
	cpu_set_rflags(f->cpu, FLAG_VM);
	is_mode(f, CODE_16, 3, 2, true);
}

static void access_states(void **state)
{
	struct flat *f = start(flat_long);

	assert_int_equal(f->cpu->mode.access, ACCESS_SUPER);
	flat_set_cr4(f, f->cpu->cr4 | CR4_SMAP);
	assert_int_equal(f->cpu->mode.access, ACCESS_SUPER_SMAP);
	cpu_set_rflags(f->cpu, FLAG_AC);
	assert_int_equal(f->cpu->mode.access, ACCESS_SUPER);
	flat_user(f);
	assert_int_equal(f->cpu->mode.access, ACCESS_USER);
	flat_set_cr0(f, f->cpu->cr0 | CR0_AM);
	assert_int_equal(f->cpu->mode.access, ACCESS_USER_ALIGN);
	cpu_set_rflags(f->cpu, 0);
	assert_int_equal(f->cpu->mode.access, ACCESS_USER);
	flat_free(f);
}

static void rflags(void **state)
{
	struct flat *f = start(flat_long);

	for (uint64_t bit = 1; bit; bit <<= 1) {
		uint64_t known = (FLAGS_ARITH | FLAGS_SYSTEM) & ~FLAG_VM;

		if (bit == FLAG_VM)
			continue;
		cpu_set_rflags(f->cpu, bit);
		assert_int_equal(cpu_rflags(f->cpu), (bit & known) | FLAG_FIXED);
	}
	cpu_set_rflags(f->cpu, ~FLAG_VM);
	assert_int_equal(cpu_rflags(f->cpu), 0x3d7fd7);
	flat_free(f);
}

static uint32_t attention(const struct flat *f)
{
	return f->cpu->attention;
}

static void attention_follows(void **state)
{
	struct flat *f = start(flat_long);
	struct cpu *cpu = f->cpu;

	cpu_lower(cpu, ~0u);
	cpu_set_rflags(cpu, FLAG_TF);
	assert_int_equal(attention(f), ATTN_TF);
	cpu_set_rflags(cpu, FLAG_RF | FLAG_IF);
	assert_int_equal(attention(f), ATTN_RF | ATTN_EVENTS);
	cpu_lower(cpu, ATTN_EVENTS);
	cpu_set_rflags(cpu, FLAG_IF);
	assert_int_equal(attention(f), 0);
	cpu_raise(cpu, ATTN_REQUEST);
	cpu->inject.valid = true;
	cpu->nmi_pending = true;
	cpu->pending_dr6 = 1;
	cpu_update_attention(cpu);
	assert_int_equal(attention(f), ATTN_REQUEST | ATTN_INJECT | ATTN_NMI | ATTN_DEBUG);
	cpu->inject.valid = false;
	cpu->nmi_pending = false;
	cpu->pending_dr6 = 0;
	cpu->dr7 = BIT(2) | 1ull << 20;
	cpu_update_attention(cpu);
	assert_int_equal(attention(f), ATTN_REQUEST);
	cpu->dr7 = BIT(2) | 1ull << 16;
	cpu_update_attention(cpu);
	assert_int_equal(attention(f), ATTN_REQUEST | ATTN_CODE_BP);
	cpu->debug.enabled = cpu->debug.use_hw_bp = cpu->debug.singlestep = true;
	cpu_update_attention(cpu);
	assert_int_equal(attention(f), ATTN_REQUEST | ATTN_TF);
	flat_free(f);
}

static void shadows(void **state)
{
	struct flat *f = start(flat_long);

	cpu_set_shadow(f->cpu, SHADOW_STI);
	assert_true(attention(f) & ATTN_SHADOW);
	cpu_set_shadow(f->cpu, SHADOW_MOV_SS);
	assert_int_equal(f->cpu->shadow, SHADOW_STI | SHADOW_MOV_SS);
	f->cpu->shadow = 0;
	cpu_update_attention(f->cpu);
	assert_false(attention(f) & ATTN_SHADOW);
	flat_free(f);
}

/* SDM, processor management and initialization: the table of states after power-up, RESET and INIT. */
static void reset_state(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);
	const struct cpu *cpu = f->cpu;

	assert_int_equal(cpu->rip, 0xfff0);
	assert_int_equal(cpu_rflags(cpu), 2);
	assert_int_equal(cpu->cr0, 0x60000010);
	assert_int_equal(cpu->cr3 | cpu->cr4 | cpu->cr2, 0);
	assert_int_equal(cpu->seg[SEG_CS].sel, 0xf000);
	assert_int_equal(cpu->seg[SEG_CS].base, 0xffff0000);
	assert_int_equal(cpu->seg[SEG_CS].limit, 0xffff);
	assert_int_equal(cpu->seg[SEG_CS].attr, 0x9b);
	assert_int_equal(cpu->seg[SEG_SS].attr, 0x93);
	assert_int_equal(cpu->seg[SEG_LDTR].attr, 0x82);
	assert_int_equal(cpu->seg[SEG_TR].attr, 0x8b);
	assert_int_equal(cpu->idtr.limit, 0xffff);
	assert_int_equal(cpu->dr6, 0xffff0ff0);
	assert_int_equal(cpu->dr7, 0x400);
	assert_int_equal(cpu->xcr0, 1);
	assert_int_equal(cpu->msr.pat, 0x0007040600070406);
	assert_true(cpu->mode.real);
	flat_free(f);
}

static void init_keeps(void **state)
{
	struct flat *f = start(flat_long);
	struct cpu *cpu = f->cpu;

	cpu->cr0 |= CR0_CD;
	cpu->msr.lstar = 77;
	cpu->xcr0 = 7;
	cpu->fpu.area[160] = 0x5a;
	cpu->nmi_blocked = true;
	cpu_reset(cpu, true);
	assert_int_equal(cpu->cr0, CR0_ET | CR0_CD);
	assert_int_equal(cpu->msr.efer, 0);
	assert_int_equal(cpu->msr.lstar, 77);
	assert_int_equal(cpu->xcr0, 7);
	assert_int_equal(cpu->fpu.area[160], 0x5a);
	assert_false(cpu->nmi_blocked);
	assert_int_equal(cpu->mode.code, CODE_16);
	cpu_reset(cpu, false);
	assert_int_equal(cpu->msr.lstar, 0);
	assert_int_equal(cpu->fpu.area[160], 0);
	flat_free(f);
}

static void faults(void **state)
{
	struct flat *f = start(flat_long);
	const struct event *ev = &f->cpu->fault;

	assert_int_equal(fault_page(f->cpu, 0x1234, 6), RESULT_FAULT);
	assert_true(ev->valid && ev->has_error && ev->has_payload);
	assert_int_equal(ev->vector, 14);
	assert_int_equal(ev->payload, 0x1234);
	assert_int_equal(f->cpu->cr2, 0);
	assert_int_equal(fault_ud(f->cpu), RESULT_FAULT);
	assert_true(ev->valid && !ev->has_error && !ev->has_payload);
	assert_int_equal(ev->vector, 6);
	assert_int_equal(fault_debug(f->cpu, DR6_BS), RESULT_FAULT);
	assert_int_equal(ev->payload, DR6_BS);
	assert_int_equal(f->cpu->dr6, DR6_FIXED_1);
	flat_free(f);
}

static const struct answer *take(struct flat *f, uint64_t addr)
{
	return answers_take(f->cpu, ANSWER_IO, addr, 1);
}

static void answers(void **state)
{
	struct flat *f = start(flat_long);

	assert_null(take(f, 1));
	answers_add(f->cpu, ANSWER_IO, 1, 1, 11, false);
	answers_add(f->cpu, ANSWER_IO, 2, 1, 22, true);
	assert_int_equal(take(f, 1)->data, 11);
	assert_true(take(f, 2)->error);
	assert_null(take(f, 3));
	answers_rewind(f->cpu);
	assert_int_equal(take(f, 1)->data, 11);
	/* The instruction goes another way: what was recorded behind is void. */
	assert_null(take(f, 7));
	assert_null(take(f, 2));
	answers_add(f->cpu, ANSWER_IO, 7, 1, 77, false);
	assert_int_equal(take(f, 1)->data, 11);
	assert_int_equal(take(f, 7)->data, 77);
	answers_rewind(f->cpu);
	f->cpu->rip++;
	assert_null(take(f, 1));
	answers_add(f->cpu, ANSWER_IO, 8, 1, 88, false);
	assert_int_equal(f->cpu->answers.nr, 1);
	assert_null(answers_take(f->cpu, ANSWER_IO, 8, 2));
	flat_free(f);
}

static void answers_are_bounded(void **state)
{
	struct flat *f = start(flat_long);

	for (unsigned i = 0; i < MAX_ANSWERS; i++)
		assert_true(answers_record(f->cpu, ANSWER_MMIO, i, 1, i));
	assert_false(answers_record(f->cpu, ANSWER_MMIO, 0, 1, 0));
	answers_add(f->cpu, ANSWER_MMIO, 0, 1, 0, false);
	assert_int_equal(f->cpu->answers.nr, MAX_ANSWERS);
	flat_free(f);
}

static uint16_t host_fcw(void)
{
	uint16_t fcw;

	asm volatile("fnstcw %0" : "=m"(fcw));
	return fcw;
}

static uint32_t host_mxcsr(void)
{
	uint32_t mxcsr;

	asm volatile("stmxcsr %0" : "=m"(mxcsr));
	return mxcsr;
}

/* Guest values in registers while live, the host's own afterwards, and an empty x87 stack. */
static void vector_state(void **state)
{
	struct flat *f = start(flat_long);
	struct fpu *fpu = &f->cpu->fpu;
	uint32_t mxcsr = host_mxcsr();
	uint16_t fcw = host_fcw(), fsw;

	*(uint16_t *)fpu->area = 0x27f;
	*(uint32_t *)(fpu->area + 24) = 0x9fc0;
	*(uint64_t *)(fpu->area + 512) = 3;
	memcpy(fpu->area + 160, "guest's xmm0 ...", 16);
	fpu_load(f->cpu);
	assert_true(fpu->live);
	asm volatile("fld1; movdqu %%xmm0, %%xmm1" ::: "xmm1", "st");
	fpu_save(f->cpu);
	assert_false(fpu->live);
	asm volatile("fnstsw %0" : "=m"(fsw));
	assert_int_equal(host_mxcsr(), mxcsr);
	assert_int_equal(host_fcw(), fcw);
	assert_int_equal(fsw, 0);
	assert_int_equal(*(uint16_t *)fpu->area, 0x27f);
	assert_int_equal(*(uint32_t *)(fpu->area + 24), 0x9fc0);
	assert_memory_equal(fpu->area + 176, "guest's xmm0 ...", 16);
	assert_int_equal(fpu->area[4], 0x80);
	assert_memory_equal(fpu->area + 32, "\0\0\0\0\0\0\0\x80\xff\x3f", 10);
	fpu_reset(f->cpu);
	assert_int_equal(*(uint16_t *)fpu->area, 0x37f);
	assert_int_equal(*(uint32_t *)(fpu->area + 24), 0x1f80);
	assert_int_equal(fpu->area[176], 0);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(modes),	cmocka_unit_test(access_states),
		cmocka_unit_test(rflags),	cmocka_unit_test(attention_follows),
		cmocka_unit_test(shadows),	cmocka_unit_test(reset_state),
		cmocka_unit_test(init_keeps),	cmocka_unit_test(faults),
		cmocka_unit_test(answers),	cmocka_unit_test(answers_are_bounded),
		cmocka_unit_test(vector_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
