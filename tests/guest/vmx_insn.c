/* SPDX-License-Identifier: MIT */
/*
 * VMX's own instructions: VMsucceed, VMfailInvalid and VMfailValid with the error number that the SDM has for each
 * (VM-instruction error numbers), their faults, and VMREAD and VMWRITE of a guest with a shadow VMCS.
 */
#include "vmx_host.h"

#define OTHER	0x202000u /* another VMCS, or the shadow */
#define OPERAND 0x203000u
#define MAPS	0x210000u /* VMREAD, VMWRITE */
#define L2_DATA 0x320000u
#define SHADOW	(1ull << 14)
#define RIP_ENC 0x681e

#define VMCALL_EXIT 18
#define RESULT_BITS 0x8d5u /* OF, SF, ZF, AF, PF, CF */

GUEST(vmclears, 64, "vmclear [rdi]\n hlt");
GUEST(vmptrlds, 64, "vmptrld [rdi]\n hlt");
GUEST(vmptrsts, 64, "vmptrst [rdi]\n hlt");
GUEST(vmxons, 64, "vmxon [rdi]\n hlt");
GUEST(vmxoffs, 64, "vmxoff\n hlt");
GUEST(vmreads, 64, "vmread rcx, rbx\n hlt");
GUEST(vmwrites, 64, "vmwrite rbx, rcx\n hlt");
GUEST(vmlaunches, 64, "vmlaunch\n hlt");
GUEST(vmresumes, 64, "vmresume\n hlt");
GUEST(in_shadow, 64, "mov ss, ecx\n vmlaunch\n hlt");
GUEST(invepts, 64, "invept rcx, [rdi]\n hlt");
GUEST(invvpids, 64, "invvpid rcx, [rdi]\n hlt");
GUEST(reads_field, 64, "vmread rcx, rbx\n pushfq\n pop rdx\n vmcall");
GUEST(writes_field, 64, "vmwrite rbx, rcx\n pushfq\n pop rdx\n vmcall");

#define CODE(name) name, name##_end
#define OK	   0
#define INVALID	   100 /* VMfailInvalid */

struct row {
	const char *name;
	const uint8_t *code, *end;
	uint64_t operand[2], rbx, rcx;
	bool launched, none; /* the VMCS is launched; there is none */
	uint8_t result;	     /* an error number, or these two */
};

static const struct row rows[] = {
	{"VMCLEAR", CODE(vmclears), {OTHER}, .result = OK},
	{"VMCLEAR, alignment", CODE(vmclears), {OTHER + 8}, .result = 2},
	{"VMCLEAR, width", CODE(vmclears), {1ull << 51}, .result = 2},
	{"VMCLEAR, VMXON region", CODE(vmclears), {VMXON}, .result = 3},
	{"VMCLEAR, none", CODE(vmclears), {OTHER + 8}, .none = true, .result = INVALID},
	{"VMPTRLD", CODE(vmptrlds), {OTHER}, .result = OK},
	{"VMPTRLD, alignment", CODE(vmptrlds), {OTHER + 8}, .result = 9},
	{"VMPTRLD, width", CODE(vmptrlds), {1ull << 51}, .result = 9},
	{"VMPTRLD, VMXON region", CODE(vmptrlds), {VMXON}, .result = 10},
	{"VMPTRLD, revision", CODE(vmptrlds), {L2_CODE}, .result = 11},
	{"VMPTRLD, none", CODE(vmptrlds), {OTHER + 8}, .none = true, .result = INVALID},
	{"VMPTRST", CODE(vmptrsts), {0}, .result = OK},
	{"VMXON", CODE(vmxons), {VMXON}, .result = 15},
	{"VMREAD", CODE(vmreads), .rbx = RIP_ENC, .result = OK},
	{"VMREAD, no field", CODE(vmreads), .rbx = 0x3ffe, .result = 12},
	{"VMREAD, wide", CODE(vmreads), .rbx = 1ull << 32 | RIP_ENC, .result = 12},
	{"VMREAD, none", CODE(vmreads), .rbx = RIP_ENC, .none = true, .result = INVALID},
	{"VMWRITE", CODE(vmwrites), .rbx = RIP_ENC, .result = OK},
	{"VMWRITE, no field", CODE(vmwrites), .rbx = 0x3ffe, .result = 12},
	{"VMWRITE, exit reason", CODE(vmwrites), .rbx = 0x4402, .result = OK},
	{"VMWRITE, none", CODE(vmwrites), .rbx = RIP_ENC, .none = true, .result = INVALID},
	{"VMLAUNCH, launched", CODE(vmlaunches), .launched = true, .result = 4},
	{"VMLAUNCH, none", CODE(vmlaunches), .none = true, .result = INVALID},
	{"VMRESUME, clear", CODE(vmresumes), .result = 5},
	{"VMRESUME, none", CODE(vmresumes), .none = true, .result = INVALID},
	{"VMLAUNCH behind MOV SS", CODE(in_shadow), .rcx = FLAT_DS32, .result = 26},
	{"INVEPT, type", CODE(invepts), {TABLES_EPTP}, .rcx = 3, .result = 28},
	{"INVEPT, EPTP", CODE(invepts), {TABLES | 0x1d}, .rcx = 1, .result = 28},
	{"INVEPT", CODE(invepts), {TABLES_EPTP}, .rcx = 1, .result = OK},
	{"INVVPID, type", CODE(invvpids), {1}, .rcx = 4, .result = 28},
	{"INVVPID, VPID 0", CODE(invvpids), {0}, .rcx = 1, .result = 28},
	{"INVVPID, reserved", CODE(invvpids), {1 << 16 | 1}, .rcx = 2, .result = 28},
	{"INVVPID, address", CODE(invvpids), {1, 1ull << 62}, .rcx = 0, .result = 28},
	{"INVVPID", CODE(invvpids), {1, L2_CODE}, .rcx = 0, .result = OK},
};

/* In VMX operation, at an instruction. */
static void start_row(struct host *h, const struct row *row)
{
	struct cpu *cpu = h->f->cpu;

	start(h);
	h->vmx.launched = row->launched;
	if (row->none)
		h->vmx.current = GPA_NONE;
	memset(h->f->ram + OTHER, 0, PAGE_SIZE);
	flat_poke(h->f, OTHER, VMX_REVISION, 4);
	flat_write(h->f, OPERAND, row->operand, sizeof(row->operand));
	flat_code(h->f, row->code, row->end - row->code);
	memset(cpu->gpr, 0, sizeof(cpu->gpr));
	cpu->gpr[RSP] = FLAT_STACK;
	cpu->gpr[RDI] = OPERAND;
	cpu->gpr[RBX] = row->rbx;
	cpu->gpr[RCX] = row->rcx;
	cpu_set_rflags(cpu, 2 | RESULT_BITS);
}

static void check_result(struct host *h, const struct row *row)
{
	uint32_t flags = cpu_rflags(h->f->cpu) & RESULT_BITS;
	uint32_t expected = row->result == OK ? 0 : row->result == INVALID ? FLAG_CF : FLAG_ZF;

	if (flags != expected || (expected == FLAG_ZF && get(h, VMCS_INSN_ERROR) != row->result))
		fail_msg("%s: flags %x, error %lu", row->name, flags, get(h, VMCS_INSN_ERROR));
	assert_int_equal(h->f->cpu->rip, FLAT_CODE + (row->end - row->code));
}

static void results(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		start_row(h, &rows[i]);
		assert_int_equal(flat_run(h->f, 100), CPU_EXIT_HLT);
		check_result(h, &rows[i]);
	}
	host_close(h);
}

/* #UD out of VMX operation and in compatibility mode, #GP above CPL 0. */
static void faults(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i].code == vmxons || rows[i].code == in_shadow)
			continue;
		start_row(h, &rows[i]);
		vmx_off(h->f->cpu);
		assert_int_equal(run_to_handler(h->f), VEC_UD);
		start_row(h, &rows[i]);
		flat_user(h->f);
		assert_int_equal(run_to_handler(h->f), VEC_GP);
	}
	/* VMXON without the bits that VMX operation needs. */
	for (unsigned i = 0; i < 3; i++) {
		static const struct row vmxon = {"VMXON", CODE(vmxons), {VMXON}};
		struct cpu *cpu = h->f->cpu;

		start_row(h, &vmxon);
		vmx_off(cpu);
		flat_poke(h->f, VMXON, VMX_REVISION, 4);
		cpu->msr.feat_ctl = i == 0 ? 1 : 5;
		if (i == 1)
			cpu->cr0 &= ~(uint64_t)CR0_NE;
		if (i < 2) {
			assert_int_equal(run_to_handler(h->f), VEC_GP);
			continue;
		}
		assert_int_equal(flat_run(h->f, 100), CPU_EXIT_HLT);
		assert_true(h->vmx.on);
		assert_int_equal(cpu_rflags(cpu) & RESULT_BITS, 0);
	}
	host_close(h);
}

/* What VMX operation holds at 1 cannot be cleared in it, and can behind VMXOFF. */
static void fixed_bits(void **state)
{
	static const struct row off = {"VMXOFF", CODE(vmxoffs)};
	struct host *h = host_open();

	start(h);
	flat_code(h->f, "\x0f\x22\xe1\xf4", 4); /* mov %rcx, %cr4 */
	h->f->cpu->gpr[RCX] = h->f->cpu->cr4 & ~(uint64_t)CR4_VMXE;
	assert_int_equal(run_to_handler(h->f), VEC_GP);
	start(h);
	flat_code(h->f, "\x0f\x22\xc1\xf4", 4); /* mov %rcx, %cr0 */
	h->f->cpu->gpr[RCX] = h->f->cpu->cr0 & ~(uint64_t)CR0_NE;
	assert_int_equal(run_to_handler(h->f), VEC_GP);
	start_row(h, &off);
	assert_int_equal(flat_run(h->f, 100), CPU_EXIT_HLT);
	assert_false(h->vmx.on);
	h->f->cpu->activity = ACTIVITY_RUN;
	flat_code(h->f, "\x0f\x22\xe1\xf4", 4);
	h->f->cpu->gpr[RCX] = h->f->cpu->cr4 & ~(uint64_t)CR4_VMXE;
	assert_int_equal(flat_run(h->f, 100), CPU_EXIT_HLT);
	assert_int_equal(h->f->cpu->cr4 & CR4_VMXE, 0);
	host_close(h);
}

/* Fields that only exits write are VMWRITE's where IA32_VMX_MISC says so. */
static void read_only_fields(void **state)
{
	static const struct row writes = {"VMWRITE", CODE(vmwrites), .rbx = 0x4402, .rcx = 0x77,
					  .result = 13};
	struct host *h = host_open();

	start_row(h, &writes);
	assert_int_equal(flat_run(h->f, 100), CPU_EXIT_HLT);
	assert_int_equal(get(h, VMCS_EXIT_REASON), 0x77);
	h->vmx.caps.msr[VMX_MISC] &= ~(1ull << 29);
	start_row(h, &writes);
	assert_int_equal(flat_run(h->f, 100), CPU_EXIT_HLT);
	check_result(h, &writes);
	assert_int_equal(get(h, VMCS_EXIT_REASON), 0);
	host_close(h);
}

/* ---- VMCS shadowing ---- */

static void start_shadow(struct host *h, uint64_t link)
{
	struct cpu *cpu = h->f->cpu;

	start(h);
	put(h, VMCS_CPU_CTLS, CPU_ONES | CPU2_ON);
	put(h, VMCS_CPU2_CTLS, SHADOW);
	put(h, VMCS_LINK_POINTER, link);
	put(h, VMCS_VMREAD_BITMAP, MAPS);
	put(h, VMCS_VMWRITE_BITMAP, MAPS + 0x1000);
	flat_poke(h->f, OTHER, VMX_REVISION | 1u << 31, 4);
	memset(cpu->gpr, 0, sizeof(cpu->gpr));
	cpu->gpr[RBX] = RIP_ENC;
}

static uint32_t shadow_access(struct host *h, bool write, uint64_t val)
{
	h->f->cpu->gpr[RCX] = val;
	return write ? run(h, writes_field, writes_field_end - writes_field)
		     : run(h, reads_field, reads_field_end - reads_field);
}

static void shadow_fields(void **state)
{
	struct host *h = host_open();
	struct cpu *cpu = h->f->cpu;

	memset(h->f->ram + OTHER, 0, PAGE_SIZE);
	memset(h->f->ram + MAPS, 0, 0x2000);
	/* Written by one guest, read by the next: it is in memory in between. The hypervisor's own field stays. */
	start_shadow(h, OTHER);
	assert_int_equal(shadow_access(h, true, 0x1234567), VMCALL_EXIT);
	assert_int_equal(cpu->gpr[RDX] & RESULT_BITS, 0);
	assert_int_equal(get(h, VMCS_RIP), L2_CODE + 5);
	start_shadow(h, OTHER);
	assert_int_equal(shadow_access(h, false, 0), VMCALL_EXIT);
	assert_int_equal(cpu->gpr[RCX], 0x1234567);
	/* None: VMfailInvalid. No such field: its error. */
	start_shadow(h, ~0ull);
	assert_int_equal(shadow_access(h, false, 0), VMCALL_EXIT);
	assert_int_equal(cpu->gpr[RDX] & RESULT_BITS, FLAG_CF);
	start_shadow(h, OTHER);
	cpu->gpr[RBX] = 0x3ffe;
	assert_int_equal(shadow_access(h, false, 0), VMCALL_EXIT);
	assert_int_equal(cpu->gpr[RDX] & RESULT_BITS, FLAG_ZF);
	assert_int_equal(get(h, VMCS_INSN_ERROR), 0);
	host_close(h);
}

/* The bitmaps, encodings that they have no bits for, and no shadowing at all: exits. */
static void shadow_exits(void **state)
{
	struct host *h = host_open();

	for (unsigned write = 0; write < 2; write++)
		for (unsigned other = 0; other < 2; other++) {
			memset(h->f->ram + MAPS, 0, 0x2000);
			h->f->ram[MAPS + 0x1000 * (write ^ other) + RIP_ENC / 8] = 1
										   << (RIP_ENC & 7);
			start_shadow(h, OTHER);
			assert_int_equal(shadow_access(h, write, 0),
					 other ? VMCALL_EXIT : 23 + 2 * write);
		}
	memset(h->f->ram + MAPS, 0, 0x2000);
	for (unsigned write = 0; write < 2; write++) {
		start_shadow(h, OTHER);
		h->f->cpu->gpr[RBX] = 1 << 15 | RIP_ENC;
		assert_int_equal(shadow_access(h, write, 0), 23 + 2 * write);
		start_shadow(h, OTHER);
		put(h, VMCS_CPU2_CTLS, 0);
		put(h, VMCS_LINK_POINTER, ~0ull);
		assert_int_equal(shadow_access(h, write, 0), 23 + 2 * write);
	}
	host_close(h);
}

/* A shadow VMCS can be current, to be read and written, and is never entered. */
static void shadow_is_current(void **state)
{
	static const struct row ptrld = {"VMPTRLD", CODE(vmptrlds), {OTHER}};
	struct host *h = host_open();

	start_row(h, &ptrld);
	flat_poke(h->f, OTHER, VMX_REVISION | 1u << 31, 4);
	assert_int_equal(flat_run(h->f, 100), CPU_EXIT_HLT);
	check_result(h, &ptrld);
	h->f->cpu->activity = ACTIVITY_RUN;
	load(h->f, vmlaunches);
	assert_int_equal(flat_run(h->f, 100), CPU_EXIT_HLT);
	assert_int_equal(cpu_rflags(h->f->cpu) & RESULT_BITS, FLAG_CF);
	/* Without shadowing there are none. */
	h->vmx.caps.msr[VMX_CPU2] &= ~(SHADOW << 32);
	start_row(h, &ptrld);
	flat_poke(h->f, OTHER, VMX_REVISION | 1u << 31, 4);
	assert_int_equal(flat_run(h->f, 100), CPU_EXIT_HLT);
	assert_int_equal(get(h, VMCS_INSN_ERROR), 11);
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(results),	     cmocka_unit_test(faults),
		cmocka_unit_test(fixed_bits),	     cmocka_unit_test(read_only_fields),
		cmocka_unit_test(shadow_fields),     cmocka_unit_test(shadow_exits),
		cmocka_unit_test(shadow_is_current),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
