/* SPDX-License-Identifier: MIT */
/*
 * Records of the last branches: DEBUGCTL.LBR, LastBranchFromIP and ToIP, LastIntFromIP and ToIP, and those of a guest's
 * guest. Expected values from the APM (control-transfer recording; LBR virtualization); what may be written, from Linux's
 * KVM.
 */
#include "silicon/exec/exec.h"
#include "silicon/sys/sys.h"
#include "svm_host.h"

#define DEBUGCTL 0x1d9
#define FROM	 0x1db
#define TO	 0x1dc
#define INT_FROM 0x1dd
#define INT_TO	 0x1de
#define CODE	 FLAT_CODE
#define HANDLER	 (FLAT_HANDLERS + 16 * (uint64_t)0x40)

struct machine {
	struct flat *f;
	struct cpu_model model;
};

static struct machine *machine_open(enum vendor vendor, bool lbrv)
{
	struct machine *m = calloc(1, sizeof(*m));

	m->f = long_machine();
	m->model = *m->f->cpu->model;
	m->model.vendor = vendor;
	m->f->cpu->model = &m->model;
	feature_put(m->f->cpu->model_features, FEAT_LBRV, lbrv);
	return m;
}

static void machine_close(struct machine *m)
{
	flat_free(m->f);
	free(m);
}

static uint64_t rdmsr(struct cpu *cpu, uint32_t index)
{
	uint64_t val = 0xdead;

	assert_int_equal(sys_msr_get(cpu, index, MSR_GUEST, &val), MSR_OK);
	return val;
}

static void wrmsr(struct cpu *cpu, uint32_t index, uint64_t val)
{
	assert_int_equal(sys_msr_set(cpu, index, MSR_HOST, val), MSR_OK);
}

static void forget(struct cpu *cpu)
{
	for (uint32_t i = FROM; i <= INT_TO; i++)
		wrmsr(cpu, i, 0x1111 * (i - FROM + 1));
	wrmsr(cpu, DEBUGCTL, 1);
}

static void assert_records(struct cpu *cpu, uint64_t from, uint64_t to, uint64_t int_from,
			   uint64_t int_to)
{
	assert_int_equal(rdmsr(cpu, FROM), from);
	assert_int_equal(rdmsr(cpu, TO), to);
	assert_int_equal(rdmsr(cpu, INT_FROM), int_from);
	assert_int_equal(rdmsr(cpu, INT_TO), int_to);
}

/* ---- branches ---- */

#define RDI_CODE CODE + 0x40 /* what RDI and the stack hold */

static const struct {
	const char *name, *code;
	uint8_t size;
	uint64_t from, to; /* 0: none taken */
} branches[] = {
	{"JMP short", "\xeb\x02\x90\x90\xf4", 5, CODE, CODE + 4},
	{"JMP to the next instruction", "\xeb\x00\xf4", 3, CODE, CODE + 2},
	{"JMP near", "\x90\xe9\x01\x00\x00\x00\x90\xf4", 8, CODE + 1, CODE + 7},
	{"JMP by register", "\xff\xe7", 2, CODE, RDI_CODE},
	{"JMP by memory", "\xff\x24\x24", 3, CODE, RDI_CODE},
	{"JZ, taken", "\x31\xc0\x74\x01\x90\xf4", 6, CODE + 2, CODE + 5},
	{"JZ, taken to the next", "\x31\xc0\x74\x00\xf4", 5, CODE + 2, CODE + 4},
	{"JNZ, not taken", "\x31\xc0\x75\x01\xf4\xf4", 6, 0, 0},
	{"JNZ, not taken, to the next", "\x31\xc0\x75\x00\xf4", 5, 0, 0},
	{"JRCXZ, taken", "\x31\xc9\xe3\x01\x90\xf4", 6, CODE + 2, CODE + 5},
	{"JRCXZ, not taken", "\xb9\x01\x00\x00\x00\xe3\x00\xf4", 8, 0, 0},
	{"LOOP, taken once", "\xb9\x02\x00\x00\x00\x90\xe2\xfd\xf4", 9, CODE + 6, CODE + 5},
	{"LOOP, never", "\xb9\x01\x00\x00\x00\xe2\x00\xf4", 8, 0, 0},
	{"LOOPE, not with ZF clear", "\xb9\x05\x00\x00\x00\x83\xf9\x00\xe1\x00\xf4", 11, 0, 0},
	{"CALL near", "\xe8\x01\x00\x00\x00\x90\xf4", 7, CODE, CODE + 6},
	{"CALL by register", "\xff\xd7", 2, CODE, RDI_CODE},
	{"RET", "\xc3", 1, CODE, RDI_CODE},
	{"RET n", "\xc2\x08\x00", 3, CODE, RDI_CODE},
	{"no branch", "\x90\x48\xff\xc0\xf4", 5, 0, 0},
};

static void each_branch(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(branches); i++) {
		struct machine *m = machine_open(VENDOR_AMD, true);
		struct cpu *cpu = m->f->cpu;
		bool taken = branches[i].from;

		flat_code(m->f, branches[i].code, branches[i].size);
		flat_poke(m->f, RDI_CODE, 0xf4, 1);
		cpu->gpr[RDI] = RDI_CODE;
		cpu->gpr[RSP] -= 16;
		flat_poke(m->f, cpu->gpr[RSP], RDI_CODE, 8);
		forget(cpu);
		assert_int_equal(flat_run(m->f, 100), CPU_EXIT_HLT);
		if (rdmsr(cpu, FROM) != (taken ? branches[i].from : 0x1111))
			print_error("%s\n", branches[i].name);
		assert_records(cpu, taken ? branches[i].from : 0x1111,
			       taken ? branches[i].to : 0x2222, 0x3333, 0x4444);
		machine_close(m);
	}
}

GUEST(far_and_back, 64,
      "push 0x20\n lea rax, [rip + 1f]\n push rax\n .byte 0x48, 0xcb\n nop\n 1: hlt");
GUEST(to_iret, 64,
      "mov rax, rsp\n push 0x28\n push rax\n push 2\n push 0x20\n lea rax, [rip + 1f]\n push rax\n"
      " iretq\n nop\n 1: hlt");
GUEST(to_syscall, 64, "syscall\n hlt");

static void assert_transfer(struct machine *m, uint64_t size, unsigned from_end)
{
	struct cpu *cpu = m->f->cpu;

	forget(cpu);
	assert_int_equal(flat_run(m->f, 100), CPU_EXIT_HLT);
	/* HLT is the last byte, one NOP before it, then the transfer. */
	assert_records(cpu, CODE + size - from_end, CODE + size - 1, 0x3333, 0x4444);
}

static void far_transfers(void **state)
{
	struct machine *m = machine_open(VENDOR_AMD, true);
	struct cpu *cpu = m->f->cpu;

	load(m->f, far_and_back);
	assert_transfer(m, far_and_back_end - far_and_back, 4);
	cpu->activity = ACTIVITY_RUN;
	load(m->f, to_iret);
	assert_transfer(m, to_iret_end - to_iret, 4);
	cpu->activity = ACTIVITY_RUN;
	load(m->f, to_syscall);
	flat_set_efer(m->f, cpu->msr.efer | EFER_SCE);
	cpu->msr.star = 0x20ull << 32;
	cpu->msr.lstar = HANDLER;
	forget(cpu);
	assert_int_equal(flat_run(m->f, 100), CPU_EXIT_HLT);
	assert_records(cpu, CODE, HANDLER, 0x3333, 0x4444);
	machine_close(m);
}

/* ---- events ---- */

GUEST(jump_and_ud, 64, "jmp 1f\n nop\n 1: ud2");
GUEST(jump_and_int, 64, "jmp 1f\n nop\n 1: int 0x40");
GUEST(jump_and_wait, 64, "jmp 1f\n nop\n 1: sti\n nop\n nop\n nop");
GUEST(jump_and_icebp, 64, "jmp 1f\n nop\n 1: .byte 0xf1");

/* Behind a jump from CODE to CODE + 3: what it left becomes the last before the event. */
static void events(void **state)
{
	static const struct {
		const uint8_t *code, *end;
		int vector;
		uint64_t from;
	} rows[] = {
		{jump_and_ud, jump_and_ud_end, VEC_UD, CODE + 3},
		{jump_and_int, jump_and_int_end, 0x40, CODE + 3},
		{jump_and_wait, jump_and_wait_end, 0x41, CODE + 5},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct machine *m = machine_open(VENDOR_AMD, true);

		flat_code(m->f, rows[i].code, rows[i].end - rows[i].code);
		forget(m->f->cpu);
		pend_interrupt(m->f, 0x41);
		assert_int_equal(run_to_handler(m->f), rows[i].vector);
		assert_records(m->f->cpu, rows[i].from, FLAT_HANDLERS + 16 * rows[i].vector, CODE,
			       CODE + 3);
		assert_int_equal(rdmsr(m->f->cpu, DEBUGCTL), 1);
		machine_close(m);
	}
}

/* #DB leaves all records alone and ends the recording; INT1's, too. */
static void debug_exceptions(void **state)
{
	struct machine *m = machine_open(VENDOR_AMD, true);
	struct cpu *cpu = m->f->cpu;

	load(m->f, jump_and_ud);
	forget(cpu);
	set_flags(m->f, FLAG_TF);
	assert_int_equal(run_to_handler(m->f), VEC_DB);
	assert_records(cpu, CODE, CODE + 3, 0x3333, 0x4444);
	assert_int_equal(rdmsr(cpu, DEBUGCTL), 0);
	assert_false(cpu->attention & ATTN_LBR);
	cpu->activity = ACTIVITY_RUN;
	load(m->f, jump_and_icebp);
	forget(cpu);
	assert_int_equal(run_to_handler(m->f), VEC_DB);
	assert_records(cpu, CODE, CODE + 3, 0x3333, 0x4444);
	assert_int_equal(rdmsr(cpu, DEBUGCTL), 0);
	machine_close(m);
}

GUEST(in_a_loop, 64,
      "mov ecx, 20000\n 1: dec ecx\n jnz 1b\n mov ecx, 0x1d9\n mov eax, 1\n xor edx, edx\n wrmsr\n"
      " mov ecx, 3\n 2: dec ecx\n jnz 2b\n"
      " xor eax, eax\n mov ecx, 0x1d9\n wrmsr\n jmp 3f\n nop\n 3: hlt");

/* Translated code gives way to steps, and what comes behind is not recorded. */
static void any_tempo(void **state)
{
	struct machine *m = machine_open(VENDOR_AMD, true);
	uint64_t end = CODE + (in_a_loop_end - in_a_loop);

	flat_exec(m->f);
	load(m->f, in_a_loop);
	forget(m->f->cpu);
	wrmsr(m->f->cpu, DEBUGCTL, 0);
	assert_int_equal(cpu_run(m->f->cpu), CPU_EXIT_HLT);
	assert_records(m->f->cpu, end - 15, end - 17, 0x3333, 0x4444);
	machine_close(m);
}

/* ---- who may, and what ---- */

static void nothing_without_lbr(void **state)
{
	struct machine *m = machine_open(VENDOR_AMD, true);

	load(m->f, jump_and_ud);
	forget(m->f->cpu);
	wrmsr(m->f->cpu, DEBUGCTL, 0);
	assert_int_equal(run_to_handler(m->f), VEC_UD);
	assert_records(m->f->cpu, 0x1111, 0x2222, 0x3333, 0x4444);
	machine_close(m);
}

static enum msr_result guest_set(struct machine *m, uint32_t index, uint64_t val)
{
	return sys_msr_set(m->f->cpu, index, MSR_GUEST, val);
}

static void registers(void **state)
{
	struct machine *m = machine_open(VENDOR_AMD, true);
	struct cpu *cpu = m->f->cpu;

	assert_int_equal(guest_set(m, DEBUGCTL, 0x3f), MSR_OK);
	assert_int_equal(rdmsr(cpu, DEBUGCTL), 1);
	assert_int_equal(guest_set(m, DEBUGCTL, 0x40), MSR_DENIED);
	assert_int_equal(guest_set(m, DEBUGCTL, 1ull << 63 | 1), MSR_DENIED);
	assert_int_equal(rdmsr(cpu, DEBUGCTL), 1);
	assert_int_equal(guest_set(m, DEBUGCTL, 2), MSR_OK);
	assert_int_equal(rdmsr(cpu, DEBUGCTL), 0);
	for (uint32_t i = FROM; i <= INT_TO; i++)
		assert_int_equal(guest_set(m, i, 1), MSR_DENIED);
	wrmsr(cpu, FROM, ~0ull);
	assert_int_equal(rdmsr(cpu, FROM), ~0ull);
	machine_close(m);
}

/* kvm_amd.lbrv=0: accepted and dropped. Intel's: no LBR, and no such registers to write. */
static void without(void **state)
{
	struct machine *m = machine_open(VENDOR_AMD, false);

	assert_int_equal(guest_set(m, DEBUGCTL, ~0ull), MSR_OK);
	assert_int_equal(rdmsr(m->f->cpu, DEBUGCTL), 0);
	assert_int_equal(rdmsr(m->f->cpu, FROM), 0);
	assert_int_equal(guest_set(m, FROM, 1), MSR_UNKNOWN);
	assert_int_equal(sys_msr_set(m->f->cpu, FROM, MSR_HOST, 1), MSR_UNKNOWN);
	assert_int_equal(sys_msr_set(m->f->cpu, FROM, MSR_HOST, 0), MSR_OK);
	machine_close(m);
	m = machine_open(VENDOR_INTEL, false);
	assert_int_equal(guest_set(m, DEBUGCTL, 3), MSR_OK);
	assert_int_equal(rdmsr(m->f->cpu, DEBUGCTL), 0);
	assert_int_equal(guest_set(m, DEBUGCTL, 4), MSR_DENIED);
	assert_int_equal(rdmsr(m->f->cpu, FROM), 0);
	assert_int_equal(sys_msr_set(m->f->cpu, FROM, MSR_HOST, 0), MSR_UNKNOWN);
	machine_close(m);
}

/* ---- a guest's guest ---- */

#define JMP_VMMCALL "\xeb\x00" VMMCALL

static void put_records(struct host *h, uint64_t dbgctl)
{
	put(h, 0x670, dbgctl, 8);
	for (unsigned i = 0; i < 4; i++)
		put(h, 0x678 + 8 * i, 0xaaaa + i, 8);
}

/* The guest has its own DEBUGCTL and records; the host's come back. */
static void virtualized(void **state)
{
	struct host *h = host_open();
	struct cpu *cpu = h->f->cpu;

	put_records(h, 0xff01);
	put(h, 0xb8, 1, 8);
	forget(cpu);
	wrmsr(cpu, DEBUGCTL, 0);
	assert_int_equal(vmrun(h, JMP_VMMCALL, 5), 0x81);
	assert_records(cpu, 0x1111, 0x2222, 0x3333, 0x4444);
	assert_int_equal(rdmsr(cpu, DEBUGCTL), 0);
	assert_int_equal(get(h, 0x670, 8), 1);
	assert_int_equal(get(h, 0x678, 8), L2_CODE);
	assert_int_equal(get(h, 0x680, 8), L2_CODE + 2);
	assert_int_equal(get(h, 0x688, 8), 0xaaac);
	assert_int_equal(get(h, 0x690, 8), 0xaaad);
	/* And the other way: the host records, the guest does not. */
	put_records(h, 0);
	put(h, 0x578, L2_CODE, 8);
	wrmsr(cpu, DEBUGCTL, 1);
	assert_int_equal(vmrun(h, JMP_VMMCALL, 5), 0x81);
	assert_records(cpu, 0x1111, 0x2222, 0x3333, 0x4444);
	assert_int_equal(rdmsr(cpu, DEBUGCTL), 1);
	assert_int_equal(get(h, 0x670, 8), 0);
	assert_int_equal(get(h, 0x678, 8), 0xaaaa);
	host_close(h);
}

/* Without the bit, or without the feature, they are one and the same, and the VMCB's are left alone. */
static void shared(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct host *h = host_open();
		struct cpu *cpu = h->f->cpu;

		feature_put(cpu->guest_features, FEAT_LBRV, !i);
		put(h, 0xb8, i, 8);
		put_records(h, 0);
		forget(cpu);
		assert_int_equal(vmrun(h, JMP_VMMCALL, 5), 0x81);
		assert_records(cpu, L2_CODE, L2_CODE + 2, 0x3333, 0x4444);
		assert_int_equal(rdmsr(cpu, DEBUGCTL), 1);
		assert_int_equal(get(h, 0x670, 8), 0);
		assert_int_equal(get(h, 0x678, 8), 0xaaaa);
		host_close(h);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_branch),
		cmocka_unit_test(far_transfers),
		cmocka_unit_test(events),
		cmocka_unit_test(debug_exceptions),
		cmocka_unit_test(nothing_without_lbr),
		cmocka_unit_test(registers),
		cmocka_unit_test(without),
		cmocka_unit_test(virtualized),
		cmocka_unit_test(shared),
		cmocka_unit_test(any_tempo),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
