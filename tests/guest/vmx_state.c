/* SPDX-License-Identifier: MIT */
/*
 * What VM entries and exits load, save and inject: the controls of entries and exits each with and without, MSR lists and
 * what cannot be loaded, events of each type as the guest's handler finds them, the guest's clock and timer. By the SDM's
 * chapters of VM entries and VM exits.
 */
#include "vmx_host.h"

#define LIST	0x214000u
#define L2_DATA 0x320000u

#define VMCALL	    "\x0f\x01\xc1"
#define VMCALL_EXIT 18
#define HLT_REASON  12
#define MSR_FAILED  0x80000022u
#define HANDLER(v)  (FLAT_HANDLERS + 16u * (v))

/* Controls of entries and exits. */
#define ENTRY_DEBUG 0x4u
#define ENTRY_PAT_  0x4000u
#define ENTRY_EFER_ 0x8000u
#define EXIT_DEBUG  0x4u
#define EXIT_ACK    0x8000u
#define SAVE_PAT    0x40000u
#define LOAD_PAT    0x80000u
#define SAVE_EFER   0x100000u
#define LOAD_EFER   0x200000u
#define SAVE_TIMER  0x400000u

#define PAT_A  0x0007040600070406ull
#define PAT_B  0x0606060606060606ull
#define PAT_C  0x0000000000000006ull
#define EFER_A (EFER_SCE | EFER_LME | EFER_LMA | EFER_NX)

static void start_with(struct host *h, uint64_t entry, uint64_t exit)
{
	start(h);
	put(h, VMCS_ENTRY_CTLS, ENTRY_64 | entry);
	put(h, VMCS_EXIT_CTLS, EXIT_64 | exit);
	put(h, VMCS_CPU_CTLS, CPU_ONES | CPU2_ON | HLT_EXIT | 1ull << 28);
	put(h, VMCS_MSR_BITMAP, 0x216000);
}

/* ---- controls ---- */

static void pat(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < 8; i++) {
		bool entry = i & 1, save = i & 2, load = i & 4;

		start_with(h, entry ? ENTRY_PAT_ : 0,
			   (save ? SAVE_PAT : 0) | (load ? LOAD_PAT : 0));
		h->f->cpu->msr.pat = PAT_A;
		put(h, VMCS_PAT, PAT_B);
		put(h, VMCS_HOST_PAT, PAT_C);
		h->f->cpu->gpr[RCX] = 0x277;
		assert_int_equal(run(h, "\x0f\x32" VMCALL, 5), VMCALL_EXIT);
		assert_int_equal(h->f->cpu->gpr[RAX], (uint32_t)(entry ? PAT_B : PAT_A));
		assert_int_equal(h->f->cpu->msr.pat, load ? PAT_C : entry ? PAT_B : PAT_A);
		assert_int_equal(get(h, VMCS_PAT), save && !entry ? PAT_A : PAT_B);
	}
	host_close(h);
}

static void efer(void **state)
{
	struct host *h = host_open();
	uint64_t host = h->f->cpu->msr.efer | EFER_NX;

	for (unsigned i = 0; i < 8; i++) {
		bool entry = i & 1, save = i & 2, load = i & 4;
		uint64_t guest = entry ? EFER_A : host;

		start_with(h, entry ? ENTRY_EFER_ : 0,
			   (save ? SAVE_EFER : 0) | (load ? LOAD_EFER : 0));
		h->f->cpu->msr.efer = host;
		put(h, VMCS_EFER, EFER_A);
		put(h, VMCS_HOST_EFER, host & ~(uint64_t)EFER_NX);
		h->f->cpu->gpr[RCX] = 0xc0000080;
		assert_int_equal(run(h, "\x0f\x32" VMCALL, 5), VMCALL_EXIT);
		assert_int_equal(h->f->cpu->gpr[RAX], guest);
		assert_int_equal(h->f->cpu->msr.efer, load ? host & ~(uint64_t)EFER_NX : guest);
		assert_int_equal(get(h, VMCS_EFER), save ? guest : EFER_A);
		assert_int_equal(get(h, VMCS_ENTRY_CTLS) >> 9 & 1, 1);
	}
	host_close(h);
}

static void debug_controls(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < 4; i++) {
		bool entry = i & 1, save = i & 2;

		start_with(h, entry ? ENTRY_DEBUG : 0, save ? EXIT_DEBUG : 0);
		h->f->cpu->dr7 = 0x455;
		put(h, VMCS_DR7, 0x401);
		assert_int_equal(run(h, "\x0f\x21\xfb" VMCALL, 6), VMCALL_EXIT);
		assert_int_equal(h->f->cpu->gpr[RBX], entry ? 0x401 : 0x455);
		assert_int_equal(get(h, VMCS_DR7), save && !entry ? 0x455 : 0x401);
		assert_int_equal(h->f->cpu->dr7, 0x400);
	}
	host_close(h);
}

/* The vector is there if the exit acknowledges, and the interrupt is gone from its controller only then. */
static void acknowledge(void **state)
{
	struct host *h = host_open();

	for (unsigned ack = 0; ack < 2; ack++) {
		start_with(h, 0, ack ? EXIT_ACK : 0);
		put(h, VMCS_PIN_CTLS, PIN_ONES | 1);
		h->f->nr_acked = 0;
		pend_interrupt(h->f, 0x44);
		assert_int_equal(run(h, "\x90" VMCALL, 4), 1);
		assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), ack ? 0x80000044 : 0);
		assert_int_equal(h->f->nr_acked, ack);
		h->f->interrupt = -1;
	}
	/* Without external-interrupt exiting it is the guest's. */
	start_with(h, 0, 0);
	put(h, VMCS_RFLAGS, 0x202);
	pend_interrupt(h->f, 0x44);
	assert_int_equal(run(h, "\x90" VMCALL, 4), HLT_REASON);
	assert_int_equal(get(h, VMCS_RIP), HANDLER(0x44));
	/* With it, RFLAGS.IF does not matter. */
	start_with(h, 0, 0);
	put(h, VMCS_PIN_CTLS, PIN_ONES);
	pend_interrupt(h->f, 0x44);
	assert_int_equal(run(h, "\x90" VMCALL, 4), VMCALL_EXIT);
	host_close(h);
}

/* An NMI that does not exit is the guest's, by its IDT. */
static void nmis(void **state)
{
	struct host *h = host_open();

	for (unsigned exits = 0; exits < 2; exits++) {
		start_with(h, 0, 0);
		put(h, VMCS_PIN_CTLS, PIN_ONES | (exits ? 8 : 0));
		h->f->cpu->nmi_pending = h->f->cpu->nmi_blocked = true;
		cpu_update_attention(h->f->cpu);
		assert_int_equal(run(h, "\x90" VMCALL, 4), exits ? 0 : HLT_REASON);
		if (exits) {
			assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), 0x80000202);
			assert_true(h->f->cpu->nmi_blocked);
			continue;
		}
		assert_int_equal(get(h, VMCS_RIP), HANDLER(2));
		assert_int_equal(get(h, VMCS_INTERRUPTIBILITY), 8);
	}
	host_close(h);
}

/* ---- MSR lists ---- */

static void put_msr(struct host *h, unsigned i, uint64_t index, uint64_t val)
{
	flat_poke(h->f, LIST + 16 * i, index, 8);
	flat_poke(h->f, LIST + 16 * i + 8, val, 8);
}

static void put_lists(struct host *h, unsigned entry, unsigned store, unsigned load)
{
	put(h, VMCS_ENTRY_MSR_LOAD_ADDR, LIST);
	put(h, VMCS_EXIT_MSR_STORE_ADDR, LIST);
	put(h, VMCS_EXIT_MSR_LOAD_ADDR, LIST);
	put(h, VMCS_ENTRY_MSR_LOAD_COUNT, entry);
	put(h, VMCS_EXIT_MSR_STORE_COUNT, store);
	put(h, VMCS_EXIT_MSR_LOAD_COUNT, load);
}

#define LSTAR 0xc0000082u

static void msr_lists(void **state)
{
	struct host *h = host_open();
	struct cpu *cpu = h->f->cpu;

	start_with(h, 0, 0);
	cpu->msr.lstar = 0x1000;
	put_msr(h, 0, 0x277, PAT_B);
	put_msr(h, 1, LSTAR, 0x5000);
	put_lists(h, 2, 0, 0);
	assert_int_equal(run(h, VMCALL, 3), VMCALL_EXIT);
	assert_int_equal(cpu->msr.pat, PAT_B);
	assert_int_equal(cpu->msr.lstar, 0x5000);
	/* Stored behind the guest, loaded for the host. */
	start_with(h, 0, 0);
	cpu->msr.lstar = 0x1000;
	put_msr(h, 0, 0x277, 0);
	put_msr(h, 1, LSTAR, 0);
	put_lists(h, 0, 2, 0);
	assert_int_equal(run(h, VMCALL, 3), VMCALL_EXIT);
	assert_int_equal(flat_peek(h->f, LIST + 8, 8), PAT_B);
	assert_int_equal(flat_peek(h->f, LIST + 24, 8), 0x1000);
	start_with(h, 0, 0);
	put_msr(h, 0, LSTAR, 0x7000);
	put_lists(h, 0, 0, 1);
	assert_int_equal(run(h, VMCALL, 3), VMCALL_EXIT);
	assert_int_equal(cpu->msr.lstar, 0x7000);
	host_close(h);
}

static const struct {
	const char *name;
	uint64_t index, val;
	bool stores;
} bad_msrs[] = {
	{"FS base", 0xc0000100, 0, true},
	{"GS base", 0xc0000101, 0, true},
	{"x2APIC", 0x808, 0, false},
	{"x2APIC, the last", 0x8ff, 0, false},
	{"SMBASE", 0x9e, 0, false},
	{"SMM monitor", 0x9b, 0, false},
	{"microcode", 0x79, 0, false},
	{"reserved bits", 1ull << 32 | LSTAR, 0, false},
	{"no such MSR", 0x12345, 0, false},
	{"value", 0x277, 2, true},
	{"not canonical", LSTAR, 1ull << 60, true},
};

/* An entry that fails says at which MSR, loads the host, saves no guest state, and leaves the VMCS clear. */
static void msrs_refused(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(bad_msrs); i++) {
		uint32_t reason;

		start_with(h, 0, 0);
		put_msr(h, 0, 0x277, PAT_A);
		put_msr(h, 1, bad_msrs[i].index, bad_msrs[i].val);
		put_lists(h, 2, 0, 0);
		put(h, VMCS_EXIT_INSN_LEN, 0x77);
		reason = run(h, VMCALL, 3);
		if (reason != MSR_FAILED || get(h, VMCS_EXIT_QUALIFICATION) != 2)
			fail_msg("%s: reason %x at %lu", bad_msrs[i].name, reason,
				 get(h, VMCS_EXIT_QUALIFICATION));
		assert_int_equal(get(h, VMCS_EXIT_INSN_LEN), 0x77);
		assert_int_equal(get(h, VMCS_RIP), L2_CODE);
		assert_false(h->vmx.launched);
	}
	host_close(h);
}

/* What an exit cannot do is a VMX abort, which the VMCS names: the processor stops. */
static void aborts(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(bad_msrs); i++)
		for (unsigned load = 0; load < 2; load++) {
			bool fine = !load && bad_msrs[i].stores;

			start_with(h, 0, 0);
			flat_poke(h->f, VMCS + 4, 0, 4);
			put_msr(h, 0, bad_msrs[i].index, bad_msrs[i].val);
			put_lists(h, 0, load ? 0 : 1, load ? 1 : 0);
			flat_write(h->f, L2_CODE, VMCALL, 3);
			flat_run(h->f, 1000);
			assert_int_equal(h->f->cpu->rip, HOST_RIP + (fine ? 1 : 0));
			assert_int_equal(h->f->cpu->activity,
					 fine ? ACTIVITY_HLT : ACTIVITY_SHUTDOWN);
			if (flat_peek(h->f, VMCS + 4, 4) != (fine ? 0 : load ? 4 : 1))
				fail_msg("%s: abort %lu", bad_msrs[i].name,
					 flat_peek(h->f, VMCS + 4, 4));
			assert_int_equal(get(h, VMCS_EXIT_REASON), VMCALL_EXIT);
			h->f->cpu->activity = ACTIVITY_RUN;
		}
	host_close(h);
}

/* ---- injection ---- */

static const struct {
	const char *name;
	uint32_t info, error;
	uint8_t len, vector;
	uint8_t advance; /* what is returned to: RIP and so much */
} events[] = {
	{"interrupt", 0x80000041, 0, 0, 0x41, 0}, {"NMI", 0x80000202, 0, 0, 2, 0},
	{"#UD", 0x80000306, 0, 0, 6, 0},	  {"#GP", 0x80000b0d, 0x1230, 0, 13, 0},
	{"#PF", 0x80000b0e, 0x2, 0, 14, 0},	  {"INT n", 0x80000431, 0, 2, 0x31, 2},
	{"INT1", 0x80000501, 0, 1, 1, 1},	  {"INT3", 0x80000603, 0, 1, 3, 1},
	{"INTO", 0x80000604, 0, 1, 4, 1},	  {"INT3 of length 0", 0x80000603, 0, 0, 3, 0},
};

/* At the handler: its frame, and what the VMCS says behind it. What is injected exits by no bitmap. */
static void injected(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(events); i++) {
		bool error = events[i].info & 0x800;
		uint64_t rsp;

		start_with(h, 0, 0);
		put(h, VMCS_RFLAGS, 0x202);
		put(h, VMCS_EXCEPTION_BITMAP, 0xffffffff);
		put(h, VMCS_ENTRY_INTR_INFO, events[i].info);
		put(h, VMCS_ENTRY_ERROR_CODE, events[i].error);
		put(h, VMCS_ENTRY_INSN_LEN, events[i].len);
		assert_int_equal(run(h, VMCALL, 3), HLT_REASON);
		if (get(h, VMCS_RIP) != HANDLER(events[i].vector))
			fail_msg("%s: at %lx", events[i].name, get(h, VMCS_RIP));
		rsp = get(h, VMCS_RSP);
		assert_int_equal(rsp, L2_RSP - (error ? 48u : 40u));
		if (error)
			assert_int_equal(flat_peek(h->f, rsp, 8), events[i].error);
		assert_int_equal(flat_peek(h->f, rsp + (error ? 8u : 0u), 8),
				 L2_CODE + events[i].advance);
		assert_int_equal(get(h, VMCS_INTERRUPTIBILITY), events[i].vector == 2 ? 8 : 0);
		assert_int_equal(get(h, VMCS_ENTRY_INTR_INFO), events[i].info & 0x7fffffff);
		assert_int_equal(get(h, VMCS_IDT_INFO), 0);
	}
	host_close(h);
}

/* Where delivery leads to an exit, the event stands in the IDT-vectoring fields, with its length if it is software's. */
static void interrupted_injection(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(events); i++) {
		start_with(h, 0, 0);
		put(h, VMCS_RFLAGS, 0x202);
		put(h, VMCS_EXCEPTION_BITMAP, 1 << 14);
		put(h, VMCS_RSP, 0x400000);
		flat_set_entry(h->f, 0x3fffff, 2, 0);
		put(h, VMCS_ENTRY_INTR_INFO, events[i].info);
		put(h, VMCS_ENTRY_ERROR_CODE, events[i].error);
		put(h, VMCS_ENTRY_INSN_LEN, events[i].len);
		flat_write(h->f, 0x800000, VMCALL, 3);
		put(h, VMCS_RIP, 0x800000);
		/* Nor is it a double fault yet where both are page faults. */
		assert_int_equal(run(h, VMCALL, 3), 0);
		assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), 0x80000b0e);
		assert_int_equal(get(h, VMCS_IDT_INFO), events[i].info);
		assert_int_equal(get(h, VMCS_IDT_ERROR), events[i].error);
		assert_int_equal(get(h, VMCS_EXIT_INSN_LEN), events[i].len);
		assert_int_equal(get(h, VMCS_RIP), 0x800000);
	}
	host_close(h);
}

/* Type 7: MTF's exit is due, whatever the control says. */
static void injected_mtf(void **state)
{
	struct host *h = host_open();

	start_with(h, 0, 0);
	put(h, VMCS_ENTRY_INTR_INFO, 0x80000700);
	assert_int_equal(run(h, VMCALL, 3), 37);
	assert_int_equal(get(h, VMCS_RIP), L2_CODE);
	host_close(h);
}

/* Pending debug exceptions come behind the entry, and are lost where it injects. */
static void pending_debug(void **state)
{
	struct host *h = host_open();

	start_with(h, 0, 0);
	put(h, VMCS_RFLAGS, 0x102);
	put(h, VMCS_EXCEPTION_BITMAP, 2);
	put(h, VMCS_PENDING_DEBUG, 0x4000);
	assert_int_equal(run(h, "\x90" VMCALL, 4), 0);
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 0x4000);
	assert_int_equal(get(h, VMCS_RIP), L2_CODE);
	start_with(h, 0, 0);
	put(h, VMCS_EXCEPTION_BITMAP, 2);
	put(h, VMCS_PENDING_DEBUG, 0x1003);
	assert_int_equal(run(h, "\x90" VMCALL, 4), 0);
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 3);
	/* Not enabled: they stay for a later one. */
	start_with(h, 0, 0);
	put(h, VMCS_EXCEPTION_BITMAP, 2);
	put(h, VMCS_PENDING_DEBUG, 3);
	assert_int_equal(run(h, "\x90" VMCALL, 4), VMCALL_EXIT);
	host_close(h);
}

/* ---- clock and timer ---- */

/* The machine's clock goes on by 100 with each look. */
static void guest_tsc(void **state)
{
	static const struct {
		uint64_t cpu, cpu2, multiplier, offset, expected;
	} some[] = {
		{0, 0, 3ull << 48, 7, 1000000},	      {8, 0, 3ull << 48, 7, 1000007},
		{8, 1 << 25, 3ull << 48, 7, 3000007}, {8, 1 << 25, 1ull << 47, -100000ull, 400000},
		{0, 1 << 25, 3ull << 48, 7, 1000000},
	};
	static const char *const reads[] = {"\x0f\x31" VMCALL, "\x0f\x01\xf9" VMCALL};
	struct host *h = host_open();

	for (unsigned i = 0; i < 2 * ARRAY_SIZE(some); i++) {
		start_with(h, 0, 0);
		put(h, VMCS_CPU_CTLS, get(h, VMCS_CPU_CTLS) | some[i / 2].cpu);
		put(h, VMCS_CPU2_CTLS, some[i / 2].cpu2 | 8);
		put(h, VMCS_TSC_MULTIPLIER, some[i / 2].multiplier);
		put(h, VMCS_TSC_OFFSET, some[i / 2].offset);
		h->f->tsc = 1000000;
		assert_int_equal(run(h, reads[i & 1], 5 + (i & 1)), VMCALL_EXIT);
		assert_in_range(h->f->cpu->gpr[RAX] | h->f->cpu->gpr[RDX] << 32,
				some[i / 2].expected, some[i / 2].expected + 10000);
	}
	host_close(h);
}

/* The timer counts at a 32th of the clock's rate, from the field's value, which is kept only where the exit saves it. */
static void preemption_timer(void **state)
{
	static const char code[] = "\xeb\xfe"; /* jmp . */
	struct host *h = host_open();
	uint64_t before;

	start_with(h, 0, 0);
	put(h, VMCS_PIN_CTLS, PIN_ONES | 0x40);
	put(h, VMCS_PREEMPTION_TIMER, 500);
	before = h->f->tsc;
	assert_int_equal(run(h, code, 2), 52);
	assert_in_range(h->f->tsc - before, 500 * 32, 500 * 32 + 1000);
	assert_int_equal(get(h, VMCS_RIP), L2_CODE);
	assert_int_equal(get(h, VMCS_PREEMPTION_TIMER), 500);
	/* 0 expires before the first instruction. */
	start_with(h, 0, SAVE_TIMER);
	put(h, VMCS_PIN_CTLS, PIN_ONES | 0x40);
	assert_int_equal(run(h, VMCALL, 3), 52);
	assert_int_equal(get(h, VMCS_PREEMPTION_TIMER), 0);
	for (unsigned save = 0; save < 2; save++) {
		start_with(h, 0, save ? SAVE_TIMER : 0);
		put(h, VMCS_PIN_CTLS, PIN_ONES | 0x40);
		put(h, VMCS_PREEMPTION_TIMER, 100000);
		assert_int_equal(run(h, VMCALL, 3), VMCALL_EXIT);
		assert_in_range(get(h, VMCS_PREEMPTION_TIMER), save ? 99900 : 100000,
				save ? 99999 : 100000);
	}
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pat),
		cmocka_unit_test(efer),
		cmocka_unit_test(debug_controls),
		cmocka_unit_test(acknowledge),
		cmocka_unit_test(nmis),
		cmocka_unit_test(msr_lists),
		cmocka_unit_test(msrs_refused),
		cmocka_unit_test(aborts),
		cmocka_unit_test(injected),
		cmocka_unit_test(interrupted_injection),
		cmocka_unit_test(injected_mtf),
		cmocka_unit_test(pending_debug),
		cmocka_unit_test(guest_tsc),
		cmocka_unit_test(preemption_timer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
