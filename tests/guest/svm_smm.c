/* SPDX-License-Identifier: MIT */
/*
 * SMM beside SVM, and INIT: who takes an SMI that comes while a guest runs, what the handler finds, and how RSM goes back.
 * Codes and offsets are the APM's (SMM support; the state-save area has the VMCB at E0H); what is kept where, Linux's KVM's.
 */
#include "silicon/sys/sys.h"
#include "svm_host.h"

#define SMBASE	0x400000u
#define HANDLER 0x8000u /* from SMBASE */
#define AREA	0xfe00u
#define COUNT	0xa000u /* the handler counts here */
#define SMI_BIT (1u << 2)

GUEST(counts, 16, "inc word ptr ds:[0xa000]\n rsm");
GUEST(halts, 16, "hlt");
GUEST(resumes, 16, "rsm");

static uint8_t smram[FLAT_SMRAM];

static struct host *smm_open(void)
{
	struct host *h = host_open();

	memset(smram, 0, sizeof(smram));
	memcpy(smram + HANDLER, counts, counts_end - counts);
	h->f->smram = smram;
	h->f->smram_base = SMBASE;
	h->f->cpu->msr.smbase = SMBASE;
	memset(h->f->ram + SMBASE, 0xcc, FLAT_SMRAM);
	return h;
}

static void pend_smi(struct host *h)
{
	h->f->cpu->smi_pending = true;
	cpu_update_attention(h->f->cpu);
}

static uint64_t saved(unsigned off)
{
	uint64_t val;

	memcpy(&val, smram + AREA + off, sizeof(val));
	return val;
}

/* SMI in the guest, whose first instruction it is before, until the handler halts. */
static void enter(struct host *h)
{
	memcpy(smram + HANDLER, halts, halts_end - halts);
	flat_write(h->f, L2_CODE, VMMCALL, 3);
	load(h->f, run_guest);
	h->f->cpu->gpr[RAX] = VMCB;
	h->f->cpu->virt->gif = false; /* VMRUN sets it */
	pend_smi(h);
	assert_int_equal(flat_run(h->f, 100), CPU_EXIT_HLT);
	assert_true(h->f->cpu->in_smm);
}

static enum cpu_exit_kind leave(struct host *h)
{
	struct cpu *cpu = h->f->cpu;

	memcpy(smram + (cpu->rip & 0xffff), resumes, resumes_end - resumes);
	cpu->activity = ACTIVITY_RUN;
	return flat_run(h->f, 100);
}

/* ---- SMI ---- */

/* The hypervisor's: an exit, and the SMI waits for its STGI. */
static void intercepted(void **state)
{
	struct host *h = smm_open();
	struct cpu *cpu = h->f->cpu;

	put(h, MISC1, SMI_BIT, 4);
	cpu->virt->gif = false;
	pend_smi(h);
	assert_int_equal(vmrun(h, VMMCALL, 3), 0x62);
	assert_int_equal(get(h, 0x578, 8), L2_CODE);
	assert_int_equal(get(h, 0xc8, 8), 0);
	assert_true(cpu->smi_pending);
	assert_int_equal(cpu->msr.smi_count, 0);
	assert_int_equal(flat_peek(h->f, COUNT, 2), 0);
	/* GIF is open now, and nobody intercepts outside of a guest. */
	flat_code(h->f, "\x90\xf4", 2);
	cpu_update_attention(cpu);
	assert_int_equal(flat_run(h->f, 100), CPU_EXIT_HLT);
	assert_int_equal(flat_peek(h->f, COUNT, 2), 1);
	host_close(h);
}

/* The guest goes on as if nothing had been. */
static void through_smm(struct host *h)
{
	struct cpu *cpu = h->f->cpu;

	cpu->virt->gif = false;
	cpu->gpr[RBX] = 0x1122334455667788;
	put(h, 0x5f8, 0xabcd, 8);
	pend_smi(h);
	/* inc %rbx; vmmcall */
	assert_int_equal(vmrun(h, "\x48\xff\xc3" VMMCALL, 6), 0x81);
	assert_int_equal(flat_peek(h->f, COUNT, 2), 1);
	assert_int_equal(cpu->msr.smi_count, 1);
	assert_int_equal(cpu->gpr[RBX], 0x1122334455667789);
	assert_int_equal(get(h, 0x578, 8), L2_CODE + 3);
	assert_int_equal(get(h, 0x5f8, 8), 0xabcd);
	assert_int_equal(get(h, 0x5d8, 8), L2_RSP);
}

static void in_a_guest(void **state)
{
	struct host *h = smm_open();

	through_smm(h);
	host_close(h);
}

static void in_a_nested_paging_guest(void **state)
{
	struct host *h = smm_open();

	nested_tables(h);
	through_smm(h);
	host_close(h);
}

/* The handler runs as the host; the areas say whose state was left. */
static void what_the_handler_finds(void **state)
{
	struct host *h = smm_open();
	struct cpu *cpu = h->f->cpu;

	put(h, 0x60, 1 << 24 | 5, 8);
	enter(h);
	assert_false(cpu->virt->guest);
	assert_int_equal(saved(0xd8), 1);
	assert_int_equal(saved(0xe0), VMCB);
	assert_int_equal(saved(0xe8) & 0xffffffff, 1 << 24 | 5);
	assert_int_equal(saved(0x178), L2_CODE);
	assert_int_equal(saved(0x1d8), L2_RSP);
	assert_int_equal(flat_peek(h->f, HSAVE + 0x578, 8), FLAT_CODE + 3);
	assert_int_equal(flat_peek(h->f, HSAVE + 0x5f8, 8), VMCB);
	/* Nothing was told to the hypervisor. */
	assert_int_equal(get(h, 0x70, 8), 0);
	assert_int_equal(leave(h), CPU_EXIT_HLT);
	assert_false(cpu->in_smm);
	assert_int_equal(get(h, 0x70, 8), 0x81);
	assert_int_equal(cpu->rip, FLAT_CODE + 4);
	host_close(h);
}

/* Records of branches are in the VMCB meanwhile. */
static void with_branch_records(void **state)
{
	struct host *h = smm_open();
	struct cpu *cpu = h->f->cpu;

	put(h, 0xb8, 1, 8);
	put(h, 0x670, 1, 8);
	put(h, 0x678, 0x5555, 8);
	cpu->msr.lbr[0] = 0x7777;
	enter(h);
	assert_int_equal(cpu->msr.lbr[0], 0x7777);
	assert_int_equal(cpu->msr.debugctl, 0);
	assert_int_equal(flat_peek(h->f, HSAVE + 0x678, 8), 0x7777);
	cpu->msr.lbr[0] = 0x9999;
	assert_int_equal(leave(h), CPU_EXIT_HLT);
	assert_int_equal(get(h, 0x70, 8), 0x81);
	assert_int_equal(get(h, 0x678, 8), 0x5555);
	assert_int_equal(get(h, 0x670, 8), 1);
	assert_int_equal(cpu->msr.lbr[0], 0x7777);
	host_close(h);
}

/* ---- what RSM cannot go back to ---- */

static void assert_shut_down(struct host *h)
{
	assert_int_equal(leave(h), CPU_EXIT_SHUTDOWN);
	assert_false(h->f->cpu->virt->guest);
	assert_false(h->f->cpu->in_smm);
	host_close(h);
}

static void bad_vmcb_address(void **state)
{
	struct host *h = smm_open();

	enter(h);
	smram[AREA + 0xe0] = 8;
	assert_shut_down(h);
}

static void bad_vmcb(void **state)
{
	struct host *h = smm_open();

	enter(h);
	put(h, 0x58, 0, 4); /* ASID */
	assert_shut_down(h);
}

static void no_host_save_area(void **state)
{
	struct host *h = smm_open();

	enter(h);
	h->f->cpu->msr.vm_hsave_pa = FLAT_MMIO;
	assert_shut_down(h);
}

/* Nor can an SMI leave a guest whose host's state has no memory: the end. */
static void nowhere_to_save(void **state)
{
	struct host *h = smm_open();

	h->f->cpu->msr.vm_hsave_pa = FLAT_ROM;
	load(h->f, run_guest);
	flat_write(h->f, L2_CODE, VMMCALL, 3);
	h->f->cpu->gpr[RAX] = VMCB;
	h->f->cpu->virt->gif = false;
	pend_smi(h);
	assert_int_equal(flat_run(h->f, 100), CPU_EXIT_DEAD);
	host_close(h);
}

/* VMRUN is not for SMM. */
static void vmrun_in_smm(void **state)
{
	struct host *h = smm_open();

	load(h->f, run_guest);
	h->f->cpu->gpr[RAX] = VMCB;
	h->f->cpu->in_smm = true;
	assert_int_equal(run_to_handler(h->f), VEC_UD);
	h->f->cpu->in_smm = false;
	host_close(h);
}

/* ---- INIT ---- */

/* It comes between two instructions of the guest's, by who serves requests. */
static void init(void **state)
{
	struct host *h = host_open();
	struct cpu *cpu = h->f->cpu;

	for (unsigned i = 0; i < 2; i++) {
		put(h, MISC1, i << 3, 4);
		put(h, 0x578, L2_CODE, 8);
		put(h, 0x70, 0, 8);
		flat_write(h->f, L2_CODE, "\x90\x90" VMMCALL, 5);
		load(h->f, run_guest);
		cpu->gpr[RAX] = VMCB;
		assert_int_equal(flat_run(h->f, 1), CPU_EXIT_REQUEST);
		assert_true(cpu->virt->guest);
		assert_int_equal(cpu_intercept(cpu, INTERCEPT_INIT, 0), i);
		assert_int_equal(cpu->virt->guest, !i);
		assert_int_equal(get(h, 0x70, 8), i ? 0x63 : 0);
		svm_leave(cpu);
		cpu->virt->gif = true;
	}
	assert_int_equal(get(h, 0x578, 8), L2_CODE + 1);
	assert_int_equal(get(h, 0xc8, 8), 0);
	host_close(h);
}

/* ---- VM_CR ---- */

#define EFER_MSR 0xc0000080
#define VM_CR	 0xc0010114

static enum msr_result set(struct host *h, uint32_t index, uint64_t val)
{
	return sys_msr_set(h->f->cpu, index, MSR_GUEST, val);
}

/* SVMDIS keeps EFER.SVME at 0, and with it LOCK and itself are for good. */
static void disabled(void **state)
{
	struct host *h = host_open();
	struct cpu *cpu = h->f->cpu;
	uint64_t efer = cpu->msr.efer, val;

	assert_int_equal(set(h, VM_CR, 0x10), MSR_DENIED);
	assert_int_equal(set(h, VM_CR, 0x20), MSR_DENIED);
	assert_int_equal(set(h, EFER_MSR, efer & ~(uint64_t)EFER_SVME), MSR_OK);
	assert_int_equal(set(h, VM_CR, 0x18), MSR_OK);
	assert_int_equal(set(h, EFER_MSR, efer), MSR_DENIED);
	assert_int_equal(set(h, VM_CR, 0), MSR_OK);
	assert_int_equal(sys_msr_get(cpu, VM_CR, MSR_GUEST, &val), MSR_OK);
	assert_int_equal(val, 0x18);
	assert_int_equal(set(h, EFER_MSR, efer), MSR_DENIED);
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(intercepted),
		cmocka_unit_test(in_a_guest),
		cmocka_unit_test(in_a_nested_paging_guest),
		cmocka_unit_test(what_the_handler_finds),
		cmocka_unit_test(with_branch_records),
		cmocka_unit_test(bad_vmcb_address),
		cmocka_unit_test(bad_vmcb),
		cmocka_unit_test(no_host_save_area),
		cmocka_unit_test(nowhere_to_save),
		cmocka_unit_test(vmrun_in_smm),
		cmocka_unit_test(init),
		cmocka_unit_test(disabled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
