/* SPDX-License-Identifier: MIT */
/*
 * Far transfers: call gates with parameters, RET and IRET between privilege levels, virtual-8086 mode
 * with IOPL and VME, SYSCALL and SYSENTER of both vendors, canonical addresses. Expected values from the
 * SDM and APM instruction references.
 */
#include "guest_asm.h"
#include "silicon/models/model.h"

#include <string.h>

#define CODE	  FLAT_CODE
#define GATE_SEL  0x60
#define GDT_LIMIT 0x9f

static struct flat *prot_machine(void)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_prot32(f);
	f->cpu->gdtr.limit = GDT_LIMIT;
	return f;
}

/* A call gate in the GDT: type 4 or 12. */
static void call_gate(struct flat *f, uint16_t sel, uint32_t off, unsigned type, unsigned dpl,
		      unsigned params)
{
	uint64_t gate = (off & 0xffff) | FLAT_CS32 << 16 | (uint64_t)params << 32 |
			(uint64_t)(0x80 | dpl << 5 | type) << 40 | (uint64_t)(off >> 16) << 48;

	flat_poke(f, FLAT_GDT + (sel & ~7u), gate, 8);
}

static void other_vendor(struct flat *f, struct cpu_model *copy, enum vendor vendor)
{
	*copy = *f->cpu->model;
	copy->vendor = vendor;
	f->cpu->model = copy;
}

/* ---- call gates and returns ---- */

GUEST(push_call_code, 32, "push 0x11\n push 0x22\n .byte 0x9a, 0,0,0,0, 0x63, 0\n hlt");
GUEST(ret_8_code, 32, "retf 8");

static void call_gate_copies_parameters(void **state)
{
	struct flat *f = prot_machine();

	call_gate(f, GATE_SEL, FLAT_HANDLERS, 12, 3, 2);
	flat_user(f);
	load(f, push_call_code);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_HANDLERS + 1);
	assert_int_equal(f->cpu->mode.cpl, 0);
	assert_int_equal(f->cpu->seg[SEG_CS].sel, FLAT_CS32);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 24);
	assert_int_equal(on_stack(f, 0, 4), CODE + 4 + 7);
	assert_int_equal(on_stack(f, 1, 4), FLAT_CS32_USER);
	assert_int_equal(on_stack(f, 2, 4), 0x22);
	assert_int_equal(on_stack(f, 3, 4), 0x11);
	assert_int_equal(on_stack(f, 4, 4), FLAT_USER_STACK - 8);
	assert_int_equal(on_stack(f, 5, 4), FLAT_DS_USER);
	flat_free(f);
}

static void ret_n_releases_both_stacks(void **state)
{
	struct flat *f = prot_machine();

	call_gate(f, GATE_SEL, FLAT_DATA, 12, 3, 2);
	flat_write(f, FLAT_DATA, ret_8_code, ret_8_code_end - ret_8_code);
	flat_user(f);
	load(f, push_call_code);
	f->cpu->seg[SEG_FS] = f->cpu->seg[SEG_GS];
	/* HLT at CPL 3 is #GP: its frame tells where the return went. */
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 4), CODE + 11);
	assert_int_equal(on_stack(f, 2, 4), FLAT_CS32_USER);
	assert_int_equal(on_stack(f, 4, 4), FLAT_USER_STACK);
	assert_int_equal(on_stack(f, 5, 4), FLAT_DS_USER);
	flat_free(f);
}

static void call_gate_refusals(void **state)
{
	struct flat *f = prot_machine();

	call_gate(f, GATE_SEL, FLAT_HANDLERS, 12, 2, 0); /* DPL below CPL */
	flat_user(f);
	load(f, push_call_code);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 0, 4), GATE_SEL);
	flat_prot32(f);
	f->cpu->gdtr.limit = GDT_LIMIT;
	call_gate(f, GATE_SEL, FLAT_HANDLERS, 12, 3, 0);
	flat_poke(f, FLAT_GDT + GATE_SEL + 5, 0x6c, 1); /* not present */
	flat_user(f);
	load(f, push_call_code);
	assert_int_equal(run_to_handler(f), VEC_NP);
	assert_int_equal(on_stack(f, 0, 4), GATE_SEL);
	flat_free(f);
}

GUEST(retf_code, 32, "retf");
GUEST(iret32_code, 32, "iretd");

static void return_nulls_inner_data_segments(void **state)
{
	struct flat *f = prot_machine();
	uint32_t frame[] = {FLAT_DATA, FLAT_CS32_USER, FLAT_USER_STACK, FLAT_DS_USER};

	load(f, retf_code);
	f->cpu->gpr[RSP] -= sizeof(frame);
	flat_write(f, FLAT_STACK - sizeof(frame), frame, sizeof(frame));
	flat_poke(f, FLAT_DATA, 0xf4, 1);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 4), FLAT_DATA);
	assert_int_equal(on_stack(f, 4, 4), FLAT_USER_STACK);
	assert_int_equal(f->cpu->seg[SEG_DS].sel, 0);
	assert_true(f->cpu->seg[SEG_DS].attr & SEG_UNUSABLE);
	flat_free(f);
}

static void return_to_an_inner_level_is_refused(void **state)
{
	struct flat *f = prot_machine();

	flat_user(f);
	load(f, retf_code);
	f->cpu->gpr[RSP] -= 8;
	flat_poke(f, FLAT_USER_STACK - 8, FLAT_DATA, 4);
	flat_poke(f, FLAT_USER_STACK - 4, FLAT_CS32, 4);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 0, 4), FLAT_CS32);
	assert_int_equal(on_stack(f, 4, 4), FLAT_USER_STACK - 8);
	flat_free(f);
}

static void iret_at_cpl3_keeps_if_and_iopl(void **state)
{
	struct flat *f = prot_machine();
	uint32_t frame[] = {FLAT_DATA, FLAT_CS32_USER, FLAG_IF | FLAG_IOPL | FLAG_CF | FLAG_FIXED};

	flat_user(f);
	load(f, iret32_code);
	f->cpu->gpr[RSP] -= sizeof(frame);
	flat_write(f, FLAT_USER_STACK - sizeof(frame), frame, sizeof(frame));
	flat_poke(f, FLAT_DATA, 0xf4, 1);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 4), FLAT_DATA);
	assert_int_equal(on_stack(f, 3, 4), FLAG_CF | FLAG_FIXED | FLAG_RF);
	flat_free(f);
}

/* ---- long mode ---- */

GUEST(iretq_code, 64, "iretq");

static void iretq_frame(struct flat *f, uint64_t rip, uint64_t cs, uint64_t rsp, uint64_t ss)
{
	uint64_t frame[] = {rip, cs, FLAG_FIXED, rsp, ss};

	load(f, iretq_code);
	f->cpu->gpr[RSP] = FLAT_STACK - sizeof(frame);
	flat_write(f, FLAT_STACK - sizeof(frame), frame, sizeof(frame));
}

static void iretq_always_pops_the_stack(void **state)
{
	struct flat *f = long_machine();

	flat_poke(f, FLAT_DATA, 0xf4, 1);
	iretq_frame(f, FLAT_DATA, FLAT_CS64, 0x1234, 0); /* null SS at CPL 0 */
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_DATA + 1);
	assert_int_equal(f->cpu->gpr[RSP], 0x1234);
	assert_true(f->cpu->seg[SEG_SS].attr & SEG_UNUSABLE);
	flat_free(f);
}

/* As KVM enters a nested hypervisor after an exit of its guest: FS null, but usable and of DPL 0. Linux's threads have it so. */
static void iretq_keeps_the_base_of_a_null_selector(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	iretq_frame(f, FLAT_DATA, FLAT_CS64_USER, 0x1234, FLAT_DS_USER);
	f->cpu->seg[SEG_FS] =
		(struct segment){.base = 0x7f0012345000, .limit = 0xffffffff, .attr = 0xc093};
	flat_run(f, 1);
	assert_int_equal(f->cpu->mode.cpl, 3);
	assert_int_equal(f->cpu->seg[SEG_FS].sel, 0);
	assert_int_equal(f->cpu->seg[SEG_FS].base, 0x7f0012345000);
	flat_free(f);
}

static void iretq_refusals(void **state)
{
	struct flat *f = long_machine();

	iretq_frame(f, BIT(63), FLAT_CS64, FLAT_STACK, FLAT_DS32);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 0, 8), 0);
	assert_int_equal(on_stack(f, 1, 8), CODE);
	iretq_frame(f, FLAT_DATA, FLAT_CS64_USER, FLAT_STACK, 3); /* null SS at CPL 3 */
	assert_int_equal(run_to_handler(f), VEC_GP);
	iretq_frame(f, FLAT_DATA, 0, FLAT_STACK, FLAT_DS32);
	assert_int_equal(run_to_handler(f), VEC_GP);
	iretq_frame(f, FLAT_DATA, FLAT_CS64, FLAT_STACK, FLAT_DS32);
	set_flags(f, FLAG_NT);
	assert_int_equal(run_to_handler(f), VEC_GP);
	flat_free(f);
}

static void iretq_to_compatibility_mode(void **state)
{
	struct flat *f = long_machine();

	flat_poke(f, FLAT_DATA, 0xf4, 1);
	iretq_frame(f, FLAT_DATA, FLAT_CS32_USER, FLAT_USER_STACK, FLAT_DS_USER);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 8), FLAT_DATA);
	assert_int_equal(on_stack(f, 2, 8), FLAT_CS32_USER);
	assert_int_equal(on_stack(f, 4, 8), FLAT_USER_STACK);
	flat_free(f);
}

GUEST(call64_code, 64, "call fword ptr [rbx]\n hlt");

static void call_gate_64(void **state)
{
	struct flat *f = long_machine();
	uint64_t gate = (FLAT_HANDLERS & 0xffff) | FLAT_CS64 << 16 | 0xecull << 40;

	f->cpu->gdtr.limit = GDT_LIMIT;
	flat_poke(f, FLAT_GDT + GATE_SEL, gate, 8);
	flat_poke(f, FLAT_GDT + GATE_SEL + 8, 0, 8);
	flat_poke(f, FLAT_DATA + 4, GATE_SEL | 3, 2);
	flat_user(f);
	load(f, call64_code);
	f->cpu->gpr[RBX] = FLAT_DATA;
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_HANDLERS + 1);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 32);
	assert_int_equal(on_stack(f, 0, 8), CODE + 2);
	assert_int_equal(on_stack(f, 1, 8), FLAT_CS64_USER);
	assert_int_equal(on_stack(f, 2, 8), FLAT_USER_STACK);
	assert_int_equal(on_stack(f, 3, 8), FLAT_DS_USER);
	assert_int_equal(f->cpu->seg[SEG_SS].sel, 0);
	flat_free(f);
}

/* ---- SYSCALL, SYSENTER ---- */

GUEST(syscall_code, 64, "syscall\n hlt");
GUEST(sysret_code, 64, "sysretq");
GUEST(sysenter_code, 64, "sysenter\n hlt");
GUEST(sysexit_code, 64, "sysexitq");

static void set_star(struct flat *f)
{
	f->cpu->msr.star = (uint64_t)FLAT_CS64 << 32 | 0x30ull << 48;
	f->cpu->msr.lstar = FLAT_HANDLERS;
	f->cpu->msr.sfmask = FLAG_TF | FLAG_IF;
}

static void syscall_saves_and_masks(void **state)
{
	struct flat *f = long_machine();

	set_star(f);
	flat_user(f);
	load(f, syscall_code);
	set_flags(f, FLAG_IF | FLAG_CF);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_HANDLERS + 1);
	assert_int_equal(f->cpu->gpr[RCX], CODE + 2);
	assert_int_equal(f->cpu->gpr[R11], FLAG_IF | FLAG_CF | FLAG_FIXED);
	assert_int_equal(cpu_rflags(f->cpu), FLAG_CF | FLAG_FIXED);
	assert_int_equal(f->cpu->seg[SEG_CS].sel, FLAT_CS64);
	assert_int_equal(f->cpu->seg[SEG_SS].sel, FLAT_CS64 + 8);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_USER_STACK);
	f->cpu->msr.efer &= ~EFER_SCE;
	load(f, syscall_code);
	assert_int_equal(run_to_handler(f), VEC_UD);
	flat_free(f);
}

static void syscall_masking_tf_takes_no_step(void **state)
{
	struct flat *f = long_machine();

	set_star(f);
	flat_user(f);
	load(f, syscall_code);
	set_flags(f, FLAG_TF);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_HANDLERS + 1);
	flat_free(f);
}

static void sysret_goes_to_user(void **state)
{
	struct flat *f = long_machine();

	set_star(f);
	load(f, sysret_code);
	flat_poke(f, FLAT_DATA, 0xf4, 1);
	f->cpu->gpr[RCX] = FLAT_DATA;
	f->cpu->gpr[R11] = FLAG_IF | FLAG_RF | FLAG_VM | FLAG_CF;
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 8), FLAT_DATA);
	assert_int_equal(on_stack(f, 2, 8), 0x43);
	assert_int_equal(on_stack(f, 3, 8), FLAG_IF | FLAG_CF | FLAG_FIXED | FLAG_RF);
	assert_int_equal(on_stack(f, 5, 8), 0x3b);
	flat_free(f);
}

/* Intel faults at CPL 0 with RIP on SYSRET; AMD at CPL 3, fetching. */
static void sysret_to_a_non_canonical_address(void **state)
{
	struct flat *f = long_machine();
	struct cpu_model copy;

	set_star(f);
	other_vendor(f, &copy, VENDOR_INTEL);
	load(f, sysret_code);
	f->cpu->gpr[RCX] = BIT(47);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 8), CODE);
	assert_int_equal(on_stack(f, 2, 8), FLAT_CS64);
	copy.vendor = VENDOR_AMD;
	load(f, sysret_code);
	f->cpu->gpr[RCX] = BIT(47);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 8), BIT(47));
	assert_int_equal(on_stack(f, 2, 8), 0x43);
	flat_free(f);
}

static void sysenter_and_sysexit_of_intel(void **state)
{
	struct flat *f = long_machine();
	struct cpu_model copy;

	other_vendor(f, &copy, VENDOR_INTEL);
	f->cpu->msr.sysenter_cs = FLAT_CS64;
	f->cpu->msr.sysenter_eip = FLAT_HANDLERS;
	f->cpu->msr.sysenter_esp = FLAT_STACK - 64;
	flat_user(f);
	load(f, sysenter_code);
	set_flags(f, FLAG_IF);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_HANDLERS + 1);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 64);
	assert_int_equal(cpu_rflags(f->cpu), FLAG_FIXED);
	load(f, sysexit_code);
	f->cpu->msr.sysenter_cs = FLAT_CS64_USER - 3 - 32;
	f->cpu->gpr[RDX] = FLAT_DATA;
	f->cpu->gpr[RCX] = FLAT_USER_STACK;
	flat_poke(f, FLAT_DATA, 0xf4, 1);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 8), FLAT_DATA);
	assert_int_equal(on_stack(f, 2, 8), FLAT_CS64_USER);
	assert_int_equal(on_stack(f, 4, 8), FLAT_USER_STACK);
	f->cpu->msr.sysenter_cs = 3; /* null */
	load(f, sysenter_code);
	assert_int_equal(run_to_handler(f), VEC_GP);
	flat_free(f);
}

static void sysenter_in_long_mode_of_amd(void **state)
{
	struct flat *f = long_machine();
	struct cpu_model copy;

	other_vendor(f, &copy, VENDOR_AMD);
	f->cpu->msr.sysenter_cs = FLAT_CS64;
	load(f, sysenter_code);
	assert_int_equal(run_to_handler(f), VEC_UD);
	flat_free(f);
}

GUEST(syscall32_code, 32, "syscall\n hlt");

static void syscall_in_compatibility_mode(void **state)
{
	struct flat *f = long_machine();
	struct cpu_model copy;

	flat_compat(f);
	set_star(f);
	f->cpu->msr.cstar = FLAT_HANDLERS + 16;
	other_vendor(f, &copy, VENDOR_INTEL);
	load(f, syscall32_code);
	assert_int_equal(run_to_handler(f), VEC_UD);
	flat_compat(f);
	set_star(f);
	f->cpu->msr.cstar = FLAT_HANDLERS + 16;
	copy.vendor = VENDOR_AMD;
	load(f, syscall32_code);
	assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_HANDLERS + 17);
	assert_true(cpu_64bit(f->cpu));
	flat_free(f);
}

/* ---- virtual-8086 mode ---- */

#define V86_SEG	 0x1000 /* code and stack at 0x10000 */
#define V86_CODE 0x10000

GUEST(v86_int_code, 16, "int 0x20");
GUEST(v86_iret_code, 16, "iret");

static void enter_v86(struct flat *f, const void *code, size_t size, uint64_t flags)
{
	struct cpu *cpu = f->cpu;

	flat_write(f, V86_CODE, code, size);
	flat_code(f, code, 0);
	cpu_set_rflags(cpu, flags | FLAG_VM | FLAG_FIXED);
	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		cpu->seg[i] = (struct segment){
			.sel = V86_SEG, .base = V86_CODE, .limit = 0xffff, .attr = 0xf3};
	cpu->rip = 0;
	cpu->gpr[RSP] = 0x8000;
	cpu_update_mode(cpu);
	mmu_update_mode(cpu);
}

#define enter_v86_code(f, code, flags) enter_v86(f, code, code##_end - code, flags)

static void v86_int_needs_iopl_3(void **state)
{
	struct flat *f = prot_machine();

	flat_gate(f, 0x20, FLAT_HANDLERS + 16 * 0x20, 3);
	enter_v86_code(f, v86_int_code, 0);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 0, 4), 0);
	assert_int_equal(on_stack(f, 1, 4), 0);
	assert_int_equal(on_stack(f, 2, 4), V86_SEG);
	assert_true(on_stack(f, 3, 4) & FLAG_VM);
	assert_int_equal(on_stack(f, 4, 4), 0x8000);
	assert_int_equal(on_stack(f, 5, 4), V86_SEG);
	assert_int_equal(on_stack(f, 9, 4), V86_SEG); /* GS */
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK - 40);
	assert_false(f->cpu->mode.v86);
	assert_true(f->cpu->seg[SEG_DS].attr & SEG_UNUSABLE);
	flat_prot32(f);
	flat_gate(f, 0x20, FLAT_HANDLERS + 16 * 0x20, 3);
	enter_v86_code(f, v86_int_code, FLAG_IOPL);
	assert_int_equal(run_to_handler(f), 0x20);
	assert_int_equal(on_stack(f, 0, 4), 2);
	flat_free(f);
}

/* VME: a clear bit of the map sends INT n to the IVT at linear 0; IOPL below 3 works on VIF. */
static void v86_int_redirected_by_vme(void **state)
{
	struct flat *f = prot_machine();

	flat_set_cr4(f, CR4_VME);
	flat_poke(f, FLAT_TSS + 0x66, 0x88, 2); /* bitmaps: redirection at 0x68 */
	f->cpu->seg[SEG_TR].limit = 0x2100;
	flat_poke(f, 0x20 * 4, V86_SEG << 16 | 0x40, 4);
	flat_poke(f, V86_CODE + 0x40, 0xf4, 1);
	enter_v86_code(f, v86_int_code, FLAG_VIF);
	/* HLT in virtual-8086 mode: #GP with the redirected state in its frame. */
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 4), 0x40);
	assert_int_equal(on_stack(f, 2, 4), V86_SEG);
	assert_false(on_stack(f, 3, 4) & FLAG_VIF);
	assert_int_equal(flat_peek(f, V86_CODE + 0x8000 - 2, 2), FLAG_IF | FLAG_IOPL | FLAG_FIXED);
	assert_int_equal(flat_peek(f, V86_CODE + 0x8000 - 6, 2), 2);
	flat_free(f);
}

static void v86_int_not_redirected_by_vme(void **state)
{
	struct flat *f = prot_machine();

	flat_set_cr4(f, CR4_VME);
	flat_poke(f, FLAT_TSS + 0x66, 0x88, 2);
	f->cpu->seg[SEG_TR].limit = 0x2100;
	flat_poke(f, FLAT_TSS + 0x68 + 0x20 / 8, 1, 1);
	enter_v86_code(f, v86_int_code, 0);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 4), 0);
	flat_free(f);
}

static void v86_iret_by_iopl(void **state)
{
	struct flat *f = prot_machine();

	enter_v86_code(f, v86_iret_code, 0);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 4), 0);
	flat_prot32(f);
	enter_v86_code(f, v86_iret_code, FLAG_IOPL);
	flat_poke(f, V86_CODE + 0x8000, 0x50, 2);
	flat_poke(f, V86_CODE + 0x8002, V86_SEG, 2);
	flat_poke(f, V86_CODE + 0x8004, FLAG_IF | FLAG_CF, 2);
	flat_poke(f, V86_CODE + 0x50, 0xf4, 1);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 4), 0x50);
	assert_int_equal(on_stack(f, 3, 4),
			 FLAG_VM | FLAG_IOPL | FLAG_IF | FLAG_CF | FLAG_RF | FLAG_FIXED);
	assert_int_equal(on_stack(f, 4, 4), 0x8006);
	flat_free(f);
}

static void iret_enters_v86(void **state)
{
	struct flat *f = prot_machine();
	uint32_t frame[] = {0x60,   V86_SEG, FLAG_VM | FLAG_FIXED, 0x7000, V86_SEG, 0x2000, 0x3000,
			    0x4000, 0x5000};

	load(f, iret32_code);
	f->cpu->gpr[RSP] -= sizeof(frame);
	flat_write(f, FLAT_STACK - sizeof(frame), frame, sizeof(frame));
	flat_poke(f, V86_CODE + 0x60, 0xf4, 1);
	assert_int_equal(run_to_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 4), 0x60);
	assert_int_equal(on_stack(f, 4, 4), 0x7000);
	assert_int_equal(on_stack(f, 6, 4), 0x2000);
	assert_int_equal(on_stack(f, 7, 4), 0x3000);
	assert_int_equal(on_stack(f, 8, 4), 0x4000);
	assert_int_equal(on_stack(f, 9, 4), 0x5000);
	flat_free(f);
}

/* ---- canonical addresses ---- */

GUEST(wrmsr_code, 64, "wrmsr\n hlt");

static bool wrmsr_faults(struct flat *f, uint32_t index, uint64_t val)
{
	struct cpu *cpu = f->cpu;

	flat_long(f);
	load(f, wrmsr_code);
	cpu->gpr[RCX] = index;
	cpu->gpr[RAX] = (uint32_t)val;
	cpu->gpr[RDX] = val >> 32;
	return run_to_handler(f) == VEC_GP;
}

static void msrs_take_canonical_addresses(void **state)
{
	static const uint32_t msrs[] = {0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102};
	struct flat *f = long_machine();

	for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++) {
		assert_true(wrmsr_faults(f, msrs[i], BIT(63)));
		assert_false(wrmsr_faults(f, msrs[i], 0xffff800000001000));
		assert_false(wrmsr_faults(f, msrs[i], 0x00007ffffffff000));
	}
	assert_true(wrmsr_faults(f, 0x12345678, 0));
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(call_gate_copies_parameters),
		cmocka_unit_test(ret_n_releases_both_stacks),
		cmocka_unit_test(call_gate_refusals),
		cmocka_unit_test(return_nulls_inner_data_segments),
		cmocka_unit_test(return_to_an_inner_level_is_refused),
		cmocka_unit_test(iret_at_cpl3_keeps_if_and_iopl),
		cmocka_unit_test(iretq_always_pops_the_stack),
		cmocka_unit_test(iretq_keeps_the_base_of_a_null_selector),
		cmocka_unit_test(iretq_refusals),
		cmocka_unit_test(iretq_to_compatibility_mode),
		cmocka_unit_test(call_gate_64),
		cmocka_unit_test(syscall_saves_and_masks),
		cmocka_unit_test(syscall_masking_tf_takes_no_step),
		cmocka_unit_test(sysret_goes_to_user),
		cmocka_unit_test(sysret_to_a_non_canonical_address),
		cmocka_unit_test(sysenter_and_sysexit_of_intel),
		cmocka_unit_test(sysenter_in_long_mode_of_amd),
		cmocka_unit_test(syscall_in_compatibility_mode),
		cmocka_unit_test(v86_int_needs_iopl_3),
		cmocka_unit_test(v86_int_redirected_by_vme),
		cmocka_unit_test(v86_int_not_redirected_by_vme),
		cmocka_unit_test(v86_iret_by_iopl),
		cmocka_unit_test(iret_enters_v86),
		cmocka_unit_test(msrs_take_canonical_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
