/* SPDX-License-Identifier: MIT */
/*
 * VMX by a small hypervisor: one VMLAUNCH of a guest of a few bytes, then what the VMCS says. Bits, reasons and formats are
 * the SDM's numbers.
 *
 * ANYKVM_ROUNDS spoiled VMCSs are entered, from ANYKVM_SEED on.
 */
#include "rounds.h"
#include "vmx_host.h"

#define BITMAPS	 0x210000u /* I/O A and B, MSRs */
#define MSR_LIST 0x214000u
#define VAPIC	 0x215000u
#define L2_DATA	 0x320000u
#define L2_IDT	 0x330000u

#define ENTRY_32 0x11fbull
#define MTF	 (1ull << 27)

#define TASK_SEL 0x60 /* an available 32-bit TSS */

/* ---- monitor trap flag ---- */

/* Each iteration of a repeated instruction is one to MTF, and RIP stays until the last. */
static void mtf_iterations(void **state)
{
	struct host *h = host_open();

	for (unsigned left = 3; left > 0; left--) {
		start(h);
		put(h, VMCS_CPU_CTLS, CPU_ONES | MTF);
		h->f->cpu->gpr[RCX] = left;
		h->f->cpu->gpr[RDI] = L2_DATA;
		h->f->cpu->gpr[RAX] = 0x55;
		assert_int_equal(run(h, "\xf3\xaa\x90", 3), 37); /* rep stosb; nop */
		assert_int_equal(h->f->cpu->gpr[RCX], left - 1);
		assert_int_equal(h->f->cpu->gpr[RDI], L2_DATA + 1);
		assert_int_equal(get(h, VMCS_RIP), left > 1 ? L2_CODE : L2_CODE + 2);
		/* Between iterations RF stands, as for any event there. */
		assert_int_equal(get(h, VMCS_RFLAGS) >> 16 & 1, left > 1);
	}
	/* None at all is one instruction. */
	start(h);
	put(h, VMCS_CPU_CTLS, CPU_ONES | MTF);
	h->f->cpu->gpr[RCX] = 0;
	assert_int_equal(run(h, "\xf3\xaa\x90", 3), 37);
	assert_int_equal(get(h, VMCS_RIP), L2_CODE + 2);
	host_close(h);
}

/* ---- IRET and NMIs ---- */

#define NMI_EXIT  8u
#define VIRT_NMIS 0x20u
#define BLOCKED	  8u /* of the interruptibility state: by NMI */
#define FAR_RSP	  0x600000u

/* In 64-bit mode, NMIs blocked, at IRETQ. */
static void start_iret(struct host *h, uint64_t pin, uint64_t rsp)
{
	start(h);
	ept_tables(h);
	put(h, VMCS_PIN_CTLS, PIN_ONES | pin);
	put(h, VMCS_CPU_CTLS, CPU_ONES | CPU2_ON | HLT_EXIT);
	put(h, VMCS_CPU2_CTLS, 2);
	put(h, VMCS_EPTP, TABLES_EPTP);
	put(h, VMCS_INTERRUPTIBILITY, BLOCKED);
	put(h, VMCS_EXCEPTION_BITMAP, 1u << 13);
	put(h, VMCS_RSP, rsp);
}

/* A frame that IRETQ takes, to a HLT. */
static void put_frame(struct host *h, uint64_t cs)
{
	const uint64_t frame[] = {L2_CODE + 2, cs, 2, L2_RSP, FLAT_DS32};

	flat_write(h->f, L2_DATA, frame, sizeof(frame));
}

static const struct {
	uint64_t pin;
	bool keeps, tells;
} irets[] = {
	{0, false, true},
	{NMI_EXIT, true, false},
	{NMI_EXIT | VIRT_NMIS, false, true},
};

/* SDM, NMI unblocking due to IRET: an IRET that faults has ended the blocking, and says so where that leads to an exit. */
static void iret_unblocks(void **state)
{
	static const char code[] = "\x48\xcf\xf4"; /* iretq; hlt */
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(irets); i++) {
		uint64_t told = irets[i].tells ? 1 << 12 : 0;
		uint64_t left = irets[i].keeps ? BLOCKED : 0;

		start_iret(h, irets[i].pin, FAR_RSP);
		flat_poke(h->f, TABLES + 0x2000 + 8 * (FAR_RSP >> 21), 0, 8);
		assert_int_equal(run(h, code, 3), 48);
		assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 0x181 | told);
		assert_int_equal(get(h, VMCS_INTERRUPTIBILITY), left);

		start_iret(h, irets[i].pin, L2_DATA);
		put_frame(h, 0xfff8);
		assert_int_equal(run(h, code, 3), 0);
		assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), 0x80000b0d | told);
		assert_int_equal(get(h, VMCS_INTERRUPTIBILITY), left);

		start_iret(h, irets[i].pin, L2_DATA);
		put_frame(h, FLAT_CS64);
		assert_int_equal(run(h, code, 3), 12);
		assert_int_equal(get(h, VMCS_INTERRUPTIBILITY), left);

		/* Nothing was blocked. */
		start_iret(h, irets[i].pin, FAR_RSP);
		put(h, VMCS_INTERRUPTIBILITY, 0);
		flat_poke(h->f, TABLES + 0x2000 + 8 * (FAR_RSP >> 21), 0, 8);
		assert_int_equal(run(h, code, 3), 48);
		assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 0x181);
	}
	host_close(h);
}

/* ---- task gates ---- */

/* A 32-bit guest with an IDT of its own, whose gate for a vector is a task gate. */
static void start_32(struct host *h, unsigned vector)
{
	start(h);
	put(h, VMCS_ENTRY_CTLS, ENTRY_32);
	put(h, VMCS_CR0, h->f->cpu->cr0 & ~(uint64_t)CR0_PG);
	put(h, VMCS_CPU_CTLS, CPU_ONES | CPU2_ON);
	put(h, VMCS_CPU2_CTLS, 0x82); /* unrestricted guest */
	put(h, VMCS_EPTP, TABLES_EPTP);
	put_segment(h, SEG_CS, FLAT_CS32, 0xc09b);
	put(h, VMCS_TR_AR, 0x8b);
	put(h, VMCS_IDTR_BASE, L2_IDT);
	put(h, VMCS_IDTR_LIMIT, 0x7ff);
	flat_poke(h->f, L2_IDT + 8 * vector, 0x0000e50000000000 | (uint64_t)FLAT_TR << 16, 8);
}

static const struct {
	const char *name, *code;
	uint8_t size, vector;
	uint32_t info, error;
	uint8_t len;
} gates[] = {
	{"UD2", "\x0f\x0b", 2, 6, 0x80000306, 0, 0},
	{"#GP", "\x8e\xc0", 2, 13, 0x80000b0d, 0xfff8, 0}, /* mov %eax, %es */
	{"INT n", "\xcd\x30", 2, 0x30, 0x80000430, 0, 2},
	{"INT3", "\xcc", 1, 3, 0x80000603, 0, 1},
	{"INT1", "\xf1", 1, 1, 0x80000501, 0, 1},
};

/* The switch exits in the course of an event, which IDT-vectoring information names. */
static void task_gates(void **state)
{
	struct host *h = host_open();

	ept_tables(h);
	for (unsigned i = 0; i < ARRAY_SIZE(gates); i++) {
		start_32(h, gates[i].vector);
		h->f->cpu->gpr[RAX] = 0xfff8;
		assert_int_equal(run(h, gates[i].code, gates[i].size), 9);
		assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 3ull << 30 | FLAT_TR);
		assert_int_equal(get(h, VMCS_IDT_INFO), gates[i].info);
		assert_int_equal(get(h, VMCS_IDT_ERROR), gates[i].error);
		assert_int_equal(get(h, VMCS_EXIT_INSN_LEN), gates[i].len);
		assert_int_equal(get(h, VMCS_RIP), L2_CODE);
	}
	/* An interrupt that entry injects. */
	start_32(h, 0x40);
	put(h, VMCS_RFLAGS, 0x202);
	put(h, VMCS_ENTRY_INTR_INFO, 0x80000040);
	assert_int_equal(run(h, "\x90", 1), 9);
	assert_int_equal(get(h, VMCS_IDT_INFO), 0x80000040);
	/* A far jump to a task has no event. */
	start_32(h, 6);
	put(h, VMCS_GDTR_LIMIT, TASK_SEL + 7);
	flat_poke(h->f, FLAT_GDT + TASK_SEL, 0x0000890000000067 | (uint64_t)L2_DATA << 16, 8);
	assert_int_equal(run(h, "\xea\0\0\0\0\x60\0", 7), 9);
	assert_int_equal(get(h, VMCS_IDT_INFO), 0);
	assert_int_equal(get(h, VMCS_EXIT_INSN_LEN), 7);
	host_close(h);
}

/* ---- activity states ---- */

#define ACTIVE	  0
#define HLT	  1
#define SHUTDOWN  2
#define WAIT_SIPI 3

/* Enter in a state, with all kinds of events pending: the reason of the exit, or NONE if the processor sleeps. */
#define NONE 0xffff

static uint32_t enter_in(struct host *h, unsigned activity)
{
	put(h, VMCS_ACTIVITY, activity);
	flat_write(h->f, L2_CODE, "\x0f\xa2", 2); /* cpuid */
	assert_int_equal(flat_run(h->f, 1000), CPU_EXIT_HLT);
	if (!h->f->cpu->virt->guest)
		return get(h, VMCS_EXIT_REASON);
	assert_int_equal(h->f->cpu->activity, activity);
	return NONE;
}

static void start_ints(struct host *h, uint64_t pin, uint64_t cpu)
{
	start(h);
	put(h, VMCS_PIN_CTLS, PIN_ONES | pin);
	put(h, VMCS_CPU_CTLS, CPU_ONES | cpu);
}

static void activity_interrupts(void **state)
{
	static const uint32_t with_interrupt[] = {1, 1, NONE, NONE};
	struct host *h = host_open();

	for (unsigned a = ACTIVE; a <= WAIT_SIPI; a++) {
		start_ints(h, 1, 0);
		pend_interrupt(h->f, 0x30);
		assert_int_equal(enter_in(h, a), with_interrupt[a]);
		if (a <= HLT)
			assert_int_equal(get(h, VMCS_ACTIVITY), a);
		h->f->interrupt = -1;
	}
	host_close(h);
}

static void activity_nmis(void **state)
{
	static const uint32_t with_nmi[] = {0, 0, 0, NONE};
	struct host *h = host_open();

	for (unsigned a = ACTIVE; a <= WAIT_SIPI; a++) {
		start_ints(h, 8, 0);
		/* Not before the entry. */
		h->f->cpu->nmi_pending = h->f->cpu->nmi_blocked = true;
		cpu_update_attention(h->f->cpu);
		assert_int_equal(enter_in(h, a), with_nmi[a]);
		if (a != WAIT_SIPI)
			assert_int_equal(get(h, VMCS_ACTIVITY), a);
	}
	host_close(h);
}

/* Windows: of interrupts they wake from HLT only, of NMIs from shutdown, too. */
static void activity_windows(void **state)
{
	static const uint32_t interrupt_window[] = {7, 7, NONE, NONE};
	static const uint32_t nmi_window[] = {8, 8, 8, NONE};
	struct host *h = host_open();

	for (unsigned a = ACTIVE; a <= WAIT_SIPI; a++) {
		start_ints(h, 0, 4);
		put(h, VMCS_RFLAGS, 0x202);
		assert_int_equal(enter_in(h, a), interrupt_window[a]);
		start_ints(h, 0x28, 1 << 22);
		assert_int_equal(enter_in(h, a), nmi_window[a]);
	}
	host_close(h);
}

/* The timer counts in all states, but wakes nobody who waits for a SIPI. MTF has nothing to look at. */
static void activity_timer(void **state)
{
	static const uint32_t timer[] = {52, 52, 52, NONE};
	struct host *h = host_open();

	for (unsigned a = ACTIVE; a <= WAIT_SIPI; a++) {
		start_ints(h, 0x40, 0);
		assert_int_equal(enter_in(h, a), timer[a]);
		start_ints(h, 0, MTF);
		assert_int_equal(enter_in(h, a), a == ACTIVE ? 10 : NONE);
	}
	host_close(h);
}

static void activity_sipi(void **state)
{
	struct host *h = host_open();

	start(h);
	assert_int_equal(enter_in(h, WAIT_SIPI), NONE);
	assert_true(cpu_intercept(h->f->cpu, INTERCEPT_SIPI, 0x9a));
	assert_int_equal(get(h, VMCS_EXIT_REASON), 4);
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 0x9a);
	assert_int_equal(get(h, VMCS_ACTIVITY), WAIT_SIPI);
	start(h);
	assert_int_equal(enter_in(h, SHUTDOWN), NONE);
	assert_true(cpu_intercept(h->f->cpu, INTERCEPT_INIT, 0));
	assert_int_equal(get(h, VMCS_EXIT_REASON), 3);
	assert_int_equal(get(h, VMCS_ACTIVITY), SHUTDOWN);
	host_close(h);
}

/* ---- a second form of the VMCS ---- */

#define FORM 0x340000u

static const struct vmcs_place places[] = {
	{0x10, VMCS_RIP, FORM_IN | FORM_OUT, 0},    {0x18, VMCS_RSP, FORM_IN | FORM_OUT, 1},
	{0x20, VMCS_RFLAGS, FORM_IN | FORM_OUT, 2}, {0x28, VMCS_EXIT_REASON, FORM_OUT, 0},
	{0x2c, VMCS_EXIT_INSN_LEN, FORM_OUT, 0},    {0x40, VMCS_PFEC_MASK, FORM_READ, 0},
};

static struct {
	gpa_t at;
	unsigned nr_read, nr_released;
	uint32_t clean;
} offered;

static gpa_t form_find(struct cpu *cpu)
{
	return offered.at;
}

static bool form_known(uint32_t revision)
{
	return revision == 0x77;
}

static void form_read(struct cpu *cpu, const uint8_t image[VMCS_FORM_SIZE], uint32_t clean)
{
	offered.nr_read++;
	offered.clean = clean;
}

static void form_released(struct cpu *cpu)
{
	offered.nr_released++;
}

static const struct vmcs_form form = {
	.places = places,
	.nr_places = ARRAY_SIZE(places),
	.clean = 0x30,
	.find = form_find,
	.known = form_known,
	.read = form_read,
	.released = form_released,
};

GUEST(resume, 64, "vmresume\n ud2");
GUEST(read_reason, 64, "vmread rax, rbx\n hlt");

/* The fields that it has no place for are those of a VMCS that enters, which a first VMLAUNCH would clear. */
static void start_form(struct host *h)
{
	start(h);
	memset(&offered, 0, sizeof(offered));
	offered.at = FORM;
	vmx_form_offer(h->f->cpu, &form);
	memset(h->f->ram + FORM, 0xee, 0x1000);
	flat_poke(h->f, FORM, 0x77, 4);
	flat_poke(h->f, FORM + 0x10, L2_CODE, 8);
	flat_poke(h->f, FORM + 0x18, L2_RSP, 8);
	flat_poke(h->f, FORM + 0x20, 2, 8);
	flat_poke(h->f, FORM + 0x30, 0xffffffff, 4);
	flat_write(h->f, L2_CODE, "\x54\x0f\xa2", 3); /* push %rsp; cpuid */
}

static void enter_form(struct host *h)
{
	load(h->f, resume);
	assert_int_equal(flat_run(h->f, 1000), CPU_EXIT_HLT);
	assert_false(h->f->cpu->virt->guest);
	h->f->cpu->activity = ACTIVITY_RUN;
}

/* All is read the first time, then what is not marked clean; exits write what they do, and no more. */
static void form_entries(void **state)
{
	struct host *h = host_open();

	start_form(h);
	enter_form(h);
	assert_int_equal(offered.nr_read, 1);
	assert_int_equal(offered.clean, 0);
	assert_int_equal(flat_peek(h->f, FORM + 0x28, 4), 10);
	assert_int_equal(flat_peek(h->f, FORM + 0x2c, 4), 2);
	assert_int_equal(flat_peek(h->f, FORM + 0x10, 8), L2_CODE + 1);
	assert_int_equal(flat_peek(h->f, FORM + 0x18, 8), L2_RSP - 8);
	assert_int_equal(flat_peek(h->f, FORM + 0x30, 4), 0xffffffff);
	assert_int_equal(flat_peek(h->f, FORM + 0x40, 4), 0xeeeeeeee);
	assert_int_equal(h->vmx.current, GPA_NONE);
	/* RSP is said to be as it was, which it is not; RIP belongs to no group. */
	flat_poke(h->f, FORM + 0x10, L2_CODE, 8);
	flat_poke(h->f, FORM + 0x18, L2_RSP + 0x100, 8);
	enter_form(h);
	assert_int_equal(offered.clean, 0xffffffff);
	assert_int_equal(flat_peek(h->f, FORM + 0x18, 8), L2_RSP - 16);
	/* Now it is said. */
	flat_poke(h->f, FORM + 0x10, L2_CODE, 8);
	flat_poke(h->f, FORM + 0x18, L2_RSP + 0x100, 8);
	flat_poke(h->f, FORM + 0x30, 0xfffffffe, 4);
	enter_form(h);
	assert_int_equal(flat_peek(h->f, FORM + 0x18, 8), L2_RSP + 0x100 - 8);
	assert_int_equal(offered.nr_released, 0);
	vmx_form_offer(h->f->cpu, NULL);
	assert_int_equal(offered.nr_released, 1);
	host_close(h);
}

static void form_is_left(void **state)
{
	struct host *h = host_open();
	struct cpu *cpu = h->f->cpu;

	start_form(h);
	enter_form(h);
	flat_poke(h->f, FORM + 0x28, 0x1234, 4);
	load(h->f, read_reason);
	cpu->gpr[RBX] = 0x4402;
	assert_int_equal(flat_run(h->f, 1000), CPU_EXIT_HLT);
	assert_int_equal(cpu->gpr[RAX], 0x1234);
	cpu->activity = ACTIVITY_RUN;
	/* None is active: VMRESUME has nothing to resume, and the form's owner hears of it. */
	offered.at = GPA_NONE;
	load(h->f, resume);
	flat_poke(h->f, FLAT_CODE + 3, 0xf4, 1);
	assert_int_equal(flat_run(h->f, 1000), CPU_EXIT_HLT);
	assert_true(cpu_rflags(cpu) & FLAG_CF);
	assert_int_equal(offered.nr_released, 1);
	assert_int_equal(h->vmx.form_gpa, GPA_NONE);
	host_close(h);
}

/* ---- the owner of guest mode ---- */

static uint8_t map[4096];

static const uint8_t *use_map(struct cpu *cpu, gpa_t at)
{
	assert_int_equal(at, BITMAPS + 0x2000);
	return map;
}

static bool takes_none(struct cpu *cpu, bool foreign)
{
	return false;
}

/* What the owner keeps of the MSR bitmaps counts, not what is in memory. */
static void kept_bitmaps(void **state)
{
	static const struct virt_owner owner = {.begun = use_map, .takes_call = takes_none};
	struct host *h = host_open();

	for (unsigned i = 0; i < 2; i++) {
		start(h);
		put(h, VMCS_CPU_CTLS, CPU_ONES | 1 << 28);
		put(h, VMCS_MSR_BITMAP, BITMAPS + 0x2000);
		memset(h->f->ram + BITMAPS + 0x2000, i ? 0xff : 0, 0x1000);
		memset(map, i ? 0 : 0xff, sizeof(map));
		h->vmx.virt.owner = &owner;
		h->f->cpu->gpr[RCX] = 0x277;
		/* rdmsr; vmcall */
		assert_int_equal(run(h, "\x0f\x32\x0f\x01\xc1", 5), i ? 18 : 31);
		assert_null(h->vmx.virt.msr_map);
	}
	host_close(h);
}

/* ---- bad input ---- */

#define NR_RANDOM 3000

/* Single bits, whole words, and places that are used, tables, devices, nothing. */
static void spoil(struct host *h, uint64_t *seed)
{
	static const uint64_t places[] = {TABLES,      BITMAPS, 0,	    L2_CODE,
					  FLAT_MMIO,   VMCS,	1ull << 39, FLAT_RAM - 0x1000,
					  FLAT_DEVICE, MSR_LIST};
	uint64_t r = next_random(seed);
	enum vmcs_field f = r % NR_VMCS_FIELDS;
	uint64_t val = get(h, f);

	switch (r >> 8 & 7) {
	case 0:
		val = next_random(seed);
		break;
	case 1:
		val = next_random(seed) & 0xffff;
		break;
	case 2:
		val = places[(r >> 16) % ARRAY_SIZE(places)] | (r >> 32 & 7);
		break;
	default:
		val ^= 1ull << (r >> 16 & (f < VMCS_CR0_MASK && f >= VMCS_PIN_CTLS ? 31 : 63));
	}
	put(h, f, val);
}

/* Controls that are in use together, each of which may be taken or not. */
static void choose(struct host *h, uint64_t *seed)
{
	static const struct {
		enum vmcs_field f;
		uint64_t bits;
	} some[] = {
		{VMCS_PIN_CTLS, 0x69},
		{VMCS_CPU_CTLS, HLT_EXIT | MTF},
		{VMCS_CPU_CTLS, 3u << 24},
		{VMCS_CPU_CTLS, 1u << 28},
		{VMCS_CPU_CTLS, 1u << 21},
		{VMCS_CPU_CTLS, 0x1e989e00},
		{VMCS_CPU2_CTLS, 0x20u},
		{VMCS_CPU2_CTLS, 0x82},
		{VMCS_CPU2_CTLS, 0x20002},
		{VMCS_CPU2_CTLS, 0x110},
		{VMCS_CPU2_CTLS, 0x4000},
		{VMCS_CPU2_CTLS, 0x2002000},
		{VMCS_EXIT_CTLS, 0x3c0000},
		{VMCS_ENTRY_CTLS, 0xc000},
		{VMCS_ENTRY_INTR_INFO, 0x80000b0d},
		{VMCS_ENTRY_MSR_LOAD_COUNT, 3},
		{VMCS_EXIT_MSR_STORE_COUNT, 3},
		{VMCS_EXIT_MSR_LOAD_COUNT, 3},
	};

	put(h, VMCS_CPU_CTLS, CPU_ONES | CPU2_ON);
	for (unsigned i = 0; i < ARRAY_SIZE(some); i++)
		if (!(next_random(seed) & 7))
			put(h, some[i].f, get(h, some[i].f) | some[i].bits);
	put(h, VMCS_EPTP, TABLES_EPTP | (next_random(seed) & 0x40));
	put(h, VMCS_VPID, 1);
	put(h, VMCS_IO_BITMAP_A, BITMAPS);
	put(h, VMCS_IO_BITMAP_B, BITMAPS + 0x1000);
	put(h, VMCS_MSR_BITMAP, BITMAPS + 0x2000);
	put(h, VMCS_VMREAD_BITMAP, BITMAPS);
	put(h, VMCS_VMWRITE_BITMAP, BITMAPS);
	put(h, VMCS_VAPIC_ADDR, VAPIC);
	put(h, VMCS_PML_ADDR, L2_DATA);
	put(h, VMCS_PAT, 0x0007040600070406);
	put(h, VMCS_HOST_PAT, 0x0007040600070406);
	put(h, VMCS_EFER, h->f->cpu->msr.efer);
	put(h, VMCS_HOST_EFER, h->f->cpu->msr.efer);
	put(h, VMCS_ENTRY_MSR_LOAD_ADDR, MSR_LIST);
	put(h, VMCS_EXIT_MSR_STORE_ADDR, MSR_LIST);
	put(h, VMCS_EXIT_MSR_LOAD_ADDR, MSR_LIST);
	put(h, VMCS_PREEMPTION_TIMER, next_random(seed) & 0x3f);
}

/* SYSENTER's, FS base, one that is random. */
static void fill_msr_list(struct host *h, uint64_t *seed)
{
	static const uint32_t index[] = {0x175, 0xc0000100, 0x277};

	for (unsigned i = 0; i < ARRAY_SIZE(index); i++) {
		bool odd = !(next_random(seed) & 7);

		flat_poke(h->f, MSR_LIST + 16 * i, odd ? next_random(seed) : index[i], 8);
		flat_poke(h->f, MSR_LIST + 16 * i + 8, i == 2 ? 0x0606060606060606 : 0x1000, 8);
	}
}

/* One VMCS, more or less spoiled, in a machine as new. */
static void again(void *host, uint64_t *seed)
{
	static const char code[] =
		"\x0f\xa2\x0f\x31\x9c\x9d\xfb\xf3\x90\x0f\x20\xc1\xb9\x03\0\0\0\xbf\0\0\x32\0\xf3"
		"\xaa"
		"\xe6\x80\xf4\x0f\x32\xcc\xcd\x80\x0f\x01\xd4\x0f\x78\xc0\xc6\x04\x25\0\0\x80\0\1"
		"\x0f\x01\xc1";
	unsigned spoiled = next_random(seed) % 4;
	struct host *h = host;

	start(h);
	h->f->nr_events = 0;
	h->f->interrupt = next_random(seed) & 3 ? -1 : 0x30;
	cpu_raise(h->f->cpu, ATTN_EVENTS);
	flat_write(h->f, L2_CODE, code, sizeof(code));
	choose(h, seed);
	fill_msr_list(h, seed);
	ept_tables(h);
	if (!(next_random(seed) & 3))
		spoil_tables(h->f, TABLES, seed);
	while (spoiled--)
		spoil(h, seed);
}

/* Whatever a VMCS holds, the processor goes on, or says architecturally that it cannot. */
static void random_vmcss(void **state)
{
	struct host *h = host_open();
	uint64_t rounds = number("ANYKVM_ROUNDS", NR_RANDOM);

	assert_true(run_rounds(h->f, rounds, again, h));
	/* Near the border: there are many on either side. */
	assert_in_range(h->vmx.nr_entries, rounds / 4, rounds - rounds / 10);
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mtf_iterations), cmocka_unit_test(task_gates),
		cmocka_unit_test(iret_unblocks),  cmocka_unit_test(activity_interrupts),
		cmocka_unit_test(activity_nmis),  cmocka_unit_test(activity_windows),
		cmocka_unit_test(activity_timer), cmocka_unit_test(activity_sipi),
		cmocka_unit_test(form_entries),	  cmocka_unit_test(form_is_left),
		cmocka_unit_test(kept_bitmaps),	  cmocka_unit_test(random_vmcss),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
