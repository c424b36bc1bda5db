/* SPDX-License-Identifier: MIT */
/*
 * What VM exits say and which control asks for each: a guest executes one instruction with the control, which is to be the
 * exit that the row has, and without it, which goes on to VMCALL or into the exception that the SDM names. Reasons,
 * qualifications and instruction information are the SDM's numbers.
 */
#include "vmx_host.h"

#define IO_MAP	 0x210000u /* A, then B */
#define MSR_MAP	 0x212000u
#define L2_DATA	 0x320000u
#define MISSING	 0x400000u /* a page that is taken away */
#define LIST_PTR 0x327000u

#define VMCALL	    "\x0f\x01\xc1"
#define VMCALL_EXIT 18
#define EXCEPTION   0
#define INTR_UD	    0x80000306u
#define INTR_GP	    0x80000b0du

/* Primary and secondary controls, by the SDM's numbers. */
#define USE_IO_MAPS    (1ull << 25)
#define USE_MSR_MAPS   (1ull << 28)
#define INVLPG_EXITS   (1ull << 9)
#define RDTSC_EXITS    (1ull << 12)
#define PAUSE_EXITS    (1ull << 30)
#define ENABLE_RDTSCP  (1ull << 3)
#define PAUSE_LOOPS    (1ull << 10)
#define ENABLE_INVPCID (1ull << 12)
#define ENABLE_XSAVES  (1ull << 20)

/* At VMLAUNCH of a guest all of whose exceptions are exits. */
static void start_all(struct host *h, uint64_t cpu, uint64_t cpu2)
{
	struct cpu *c = h->f->cpu;

	start(h);
	put(h, VMCS_CPU_CTLS, CPU_ONES | CPU2_ON | cpu);
	put(h, VMCS_CPU2_CTLS, cpu2);
	put(h, VMCS_EXCEPTION_BITMAP, 0xffffffff);
	put(h, VMCS_CR4, get(h, VMCS_CR4) | CR4_OSXSAVE);
	put(h, VMCS_IO_BITMAP_A, IO_MAP);
	put(h, VMCS_IO_BITMAP_B, IO_MAP + 0x1000);
	put(h, VMCS_MSR_BITMAP, MSR_MAP);
	memset(h->f->ram + IO_MAP, 0, 0x3000);
	memset(c->gpr, 0, sizeof(c->gpr));
	c->gpr[RDI] = L2_DATA;
	c->gpr[RBX] = L2_DATA + 0x40;
	h->f->nr_events = 0;
}

/* The instruction, and VMCALL behind it. */
static uint32_t run_then_call(struct host *h, const char *code, unsigned size)
{
	uint8_t all[32] = {0};

	memcpy(all, code, size);
	memcpy(all + size, VMCALL, 3);
	return run(h, all, size + 3);
}

/* ---- one instruction, one control ---- */

enum without { GOES_ON, IS_UD, IS_GP, SLEEPS, EXITS };

struct row {
	const char *name, *code;
	uint8_t size;
	uint64_t cpu, cpu2; /* what makes it exit */
	uint64_t base2;	    /* secondary controls in both cases */
	uint8_t reason;
	uint64_t qualification;
	uint32_t info;
	uint8_t without;
};

#define AT_RBX 0x1c18100u /* [rbx]: 64-bit addresses, DS, no index */
#define AT_RDI 0x3c18100u

static const struct row rows[] = {
	{"HLT", "\xf4", 1, 1 << 7, 0, 0, 12, 0, 0, SLEEPS},
	{"INVLPG", "\x0f\x01\x3c\x25\x00\x50\x00\x00", 8, 1 << 9, 0, 0, 14, 0x5000, 0, GOES_ON},
	{"MWAIT", "\x0f\x01\xc9", 3, 1 << 10, 0, 0, 36, 0, 0, GOES_ON},
	{"RDPMC", "\x0f\x33", 2, 1 << 11, 0, 0, 15, 0, 0, IS_GP},
	{"RDTSC", "\x0f\x31", 2, 1 << 12, 0, 0, 16, 0, 0, GOES_ON},
	{"MOV to CR3", "\x0f\x22\xd9", 3, 1 << 15, 0, 0, 28, 0x103, 0, GOES_ON},
	{"MOV from CR3", "\x0f\x20\xd9", 3, 1 << 16, 0, 0, 28, 0x113, 0, GOES_ON},
	{"MOV to CR8", "\x44\x0f\x22\xc2", 4, 1 << 19, 0, 0, 28, 0x208, 0, GOES_ON},
	{"MOV from CR8", "\x44\x0f\x20\xc2", 4, 1 << 20, 0, 0, 28, 0x218, 0, GOES_ON},
	{"MOV from DR7", "\x0f\x21\xfa", 3, 1 << 23, 0, 0, 29, 0x217, 0, GOES_ON},
	{"MOV to DR0", "\x0f\x23\xc2", 3, 1 << 23, 0, 0, 29, 0x200, 0, GOES_ON},
	{"IN AL, 70h", "\xe4\x70", 2, 1 << 24, 0, 0, 30, 0x700048, 0, GOES_ON},
	{"OUT DX, EAX", "\xef", 1, 1 << 24, 0, 0, 30, 3, 0, GOES_ON},
	{"OUTSB", "\x6e", 1, 1 << 24, 0, 0, 30, 0x10, 0x18100, GOES_ON},
	{"MONITOR", "\x0f\x01\xc8", 3, 1 << 29, 0, 0, 39, 0, 0, GOES_ON},
	{"PAUSE", "\xf3\x90", 2, 1 << 30, 0, 0, 40, 0, 0, GOES_ON},
	{"SGDT", "\x0f\x01\x03", 3, 0, 1 << 2, 0, 46, 0, AT_RBX, GOES_ON},
	{"SIDT", "\x0f\x01\x4b\x12", 4, 0, 1 << 2, 0, 46, 0x12, AT_RBX | 1 << 28, GOES_ON},
	{"LGDT", "\x0f\x01\x54\x8b\xf0", 5, 0, 1 << 2, 0, 46, -0x10ull, 0x1858102 | 2 << 28,
	 GOES_ON},
	{"LIDT", "\x0f\x01\x1b", 3, 0, 1 << 2, 0, 46, 0, AT_RBX | 3u << 28, GOES_ON},
	{"SLDT", "\x0f\x00\xc2", 3, 0, 1 << 2, 0, 47, 0, 0x410, GOES_ON},
	{"STR", "\x0f\x00\x0b", 3, 0, 1 << 2, 0, 47, 0, AT_RBX | 1 << 28, GOES_ON},
	{"LLDT", "\x0f\x00\xd2", 3, 0, 1 << 2, 0, 47, 0, 0x410 | 2 << 28, GOES_ON},
	{"LTR", "\x0f\x00\xda", 3, 0, 1 << 2, 0, 47, 0, 0x410 | 3u << 28, IS_GP},
	{"RDTSCP", "\x0f\x01\xf9", 3, 1 << 12, 0, 1 << 3, 51, 0, 0, GOES_ON},
	{"RDTSCP, disabled", "\x0f\x01\xf9", 3, 1 << 12, 1 << 3, 0, 51, 0, 0, IS_UD},
	{"WBINVD", "\x0f\x09", 2, 0, 1 << 6, 0, 54, 0, 0, GOES_ON},
	{"RDRAND", "\x0f\xc7\xf2", 3, 0, 1 << 11, 0, 57, 0, 0x810, GOES_ON},
	{"RDRAND, 64 bits", "\x49\x0f\xc7\xf1", 4, 0, 1 << 11, 0, 57, 0, 0x1048, GOES_ON},
	{"RDSEED, 16 bits", "\x66\x0f\xc7\xfa", 4, 0, 1 << 16, 0, 61, 0, 0x10, GOES_ON},
	{"INVPCID", "\x66\x0f\x38\x82\x17", 5, 1 << 9, 0, 1 << 12, 58, 0, AT_RDI | 2 << 28,
	 GOES_ON},
	{"INVPCID, disabled", "\x66\x0f\x38\x82\x17", 5, 1 << 9, 1 << 12, 0, 58, 0,
	 AT_RDI | 2 << 28, IS_UD},
	/* No control. */
	{"CPUID", "\x0f\xa2", 2, 0, 0, 0, 10, 0, 0, EXITS},
	{"INVD", "\x0f\x08", 2, 0, 0, 0, 13, 0, 0, EXITS},
	{"XSETBV", "\x0f\x01\xd1", 3, 0, 0, 0, 55, 0, 0, EXITS},
	{"VMCALL", VMCALL, 3, 0, 0, 0, 18, 0, 0, EXITS},
	{"VMCLEAR", "\x66\x0f\xc7\x37", 4, 0, 0, 0, 19, 0, AT_RDI, EXITS},
	{"VMLAUNCH", "\x0f\x01\xc2", 3, 0, 0, 0, 20, 0, 0, EXITS},
	{"VMPTRLD", "\x0f\xc7\x74\x8b\x12", 5, 0, 0, 0, 21, 0x12, 0x1858102, EXITS},
	{"VMPTRST", "\x0f\xc7\x3f", 3, 0, 0, 0, 22, 0, AT_RDI, EXITS},
	{"VMREAD", "\x0f\x78\xda", 3, 0, 0, 0, 23, 0, 0x30000410, EXITS},
	{"VMREAD to memory", "\x0f\x78\x1f", 3, 0, 0, 0, 23, 0, AT_RDI | 3u << 28, EXITS},
	{"VMRESUME", "\x0f\x01\xc3", 3, 0, 0, 0, 24, 0, 0, EXITS},
	{"VMWRITE", "\x0f\x79\xda", 3, 0, 0, 0, 25, 0, 0x30000410, EXITS},
	{"VMXOFF", "\x0f\x01\xc4", 3, 0, 0, 0, 26, 0, 0, EXITS},
	{"VMXON", "\xf3\x0f\xc7\x37", 4, 0, 0, 0, 27, 0, AT_RDI, EXITS},
	{"INVEPT", "\x66\x0f\x38\x80\x17", 5, 0, 0, 0, 50, 0, AT_RDI | 2 << 28, EXITS},
	{"INVVPID", "\x66\x0f\x38\x81\x17", 5, 0, 0, 0, 53, 0, AT_RDI | 2 << 28, EXITS},
	{"VMFUNC", "\x0f\x01\xd4", 3, 0, 0, 0, 0, 0, 0, IS_UD},
};

/* What the instruction needs to go on. */
static void prepare(struct host *h, const struct row *row)
{
	struct cpu *cpu = h->f->cpu;

	start_all(h, row->cpu, row->cpu2 | row->base2);
	if (!strcmp(row->name, "MOV to CR3"))
		cpu->gpr[RCX] = cpu->cr3;
	if (row->reason == 58)
		cpu->gpr[RDX] = 2;
	if (row->reason == 46) {
		flat_poke(h->f, L2_DATA + 0x30, 0x7f, 2);
		flat_poke(h->f, L2_DATA + 0x32, cpu->gdtr.base, 8);
		flat_poke(h->f, L2_DATA + 0x40, 0xfff, 2);
		flat_poke(h->f, L2_DATA + 0x42, cpu->idtr.base, 8);
	}
}

static void check_exit(struct host *h, const struct row *row, uint32_t reason)
{
	/* The operand size of SGDT to LIDT is undefined in 64-bit mode. */
	uint32_t undefined = row->reason == 46 ? 1 << 11 : 0;

	if (reason != row->reason || get(h, VMCS_EXIT_QUALIFICATION) != row->qualification ||
	    (get(h, VMCS_EXIT_INSN_INFO) & ~(uint64_t)undefined) != row->info)
		fail_msg("%s: reason %u, qualification %lx, information %lx", row->name, reason,
			 get(h, VMCS_EXIT_QUALIFICATION), get(h, VMCS_EXIT_INSN_INFO));
	assert_int_equal(get(h, VMCS_EXIT_INSN_LEN), row->size);
	assert_int_equal(get(h, VMCS_RIP), L2_CODE);
	assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), 0);
	assert_int_equal(get(h, VMCS_IDT_INFO), 0);
	assert_int_equal(h->f->nr_events, 0);
}

static void exits_with(struct host *h, const struct row *row)
{
	if (!row->reason)
		return;
	prepare(h, row);
	check_exit(h, row, run_then_call(h, row->code, row->size));
}

static void is_exception(struct host *h, const struct row *row, uint32_t reason, uint32_t info)
{
	if (reason != EXCEPTION || get(h, VMCS_EXIT_INTR_INFO) != info)
		fail_msg("%s without its control: reason %u, %lx", row->name, reason,
			 get(h, VMCS_EXIT_INTR_INFO));
	assert_int_equal(get(h, VMCS_RIP), L2_CODE);
}

static void no_exit_without(struct host *h, const struct row *row)
{
	uint32_t reason;

	if (row->without == EXITS)
		return;
	prepare(h, row);
	put(h, VMCS_CPU_CTLS,
	    CPU_ONES | (row->base2 || row->without == IS_UD ? row->cpu : 0) | CPU2_ON);
	if (row->base2)
		put(h, VMCS_CPU_CTLS, CPU_ONES | CPU2_ON);
	put(h, VMCS_CPU2_CTLS, row->base2);
	if (row->without == SLEEPS) {
		flat_write(h->f, L2_CODE, row->code, row->size);
		assert_int_equal(flat_run(h->f, 1000), CPU_EXIT_HLT);
		assert_true(h->f->cpu->virt->guest);
		return;
	}
	reason = run_then_call(h, row->code, row->size);
	if (row->without == IS_UD)
		is_exception(h, row, reason, INTR_UD);
	else if (row->without == IS_GP)
		is_exception(h, row, reason, INTR_GP);
	else if (reason != VMCALL_EXIT || get(h, VMCS_RIP) != L2_CODE + row->size)
		fail_msg("%s without its control: reason %u at %lx, %lx", row->name, reason,
			 get(h, VMCS_RIP), get(h, VMCS_EXIT_INTR_INFO));
}

static void each_control(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		exits_with(h, &rows[i]);
		no_exit_without(h, &rows[i]);
	}
	host_close(h);
}

/* Secondary controls mean nothing while the primary ones do not activate them. */
static void not_activated(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		if (!rows[i].cpu2 || rows[i].without != GOES_ON)
			continue;
		prepare(h, &rows[i]);
		put(h, VMCS_CPU_CTLS, CPU_ONES);
		assert_int_equal(run_then_call(h, rows[i].code, rows[i].size), VMCALL_EXIT);
	}
	host_close(h);
}

/* ---- privilege comes first ---- */

static void start_user(struct host *h, uint64_t cpu, uint64_t cpu2)
{
	start_all(h, cpu, cpu2);
	put_segment(h, SEG_CS, FLAT_CS64_USER, 0xa0fb);
	put_segment(h, SEG_SS, FLAT_DS_USER, 0xc0f3);
}

static const struct {
	const char *code;
	uint8_t size;
	bool faults;
	uint8_t reason;
} user_rows[] = {
	{"\xf4", 1, true, 0},		{"\x0f\x01\x3f", 3, true, 0},
	{"\x0f\x32", 2, true, 0},	{"\x0f\x20\xd9", 3, true, 0},
	{"\x0f\x21\xfa", 3, false, 29}, {"\xe4\x70", 2, true, 0},
	{"\x0f\x08", 2, true, 0},	{"\x0f\x09", 2, true, 0},
	{"\x0f\x01\x17", 3, true, 0},	{"\x0f\xa2", 2, false, 10},
	{"\x0f\x31", 2, false, 16},	{"\xf3\x90", 2, false, 40},
	{"\x0f\x01\x07", 3, false, 46}, {VMCALL, 3, false, 18},
	{"\x0f\xc7\x37", 3, false, 21}, {"\x0f\x01\xc4", 3, false, 26},
	{"\x0f\xc7\xf2", 3, false, 57},
};

static void privilege_first(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(user_rows); i++) {
		uint32_t reason;

		start_user(h, 0x61819e80, 0x10844);
		reason = run_then_call(h, user_rows[i].code, user_rows[i].size);
		if (reason != user_rows[i].reason ||
		    (user_rows[i].faults && get(h, VMCS_EXIT_INTR_INFO) != INTR_GP))
			fail_msg("user row %u: reason %u, %lx", i, reason,
				 get(h, VMCS_EXIT_INTR_INFO));
	}
	host_close(h);
}

/* ---- CR0 and CR4: masks and shadows; CR3: targets ---- */

#define CR_ACCESS 28

/* MOV to CRn from RCX: the qualification of its exit, or 0 if there was none. */
static uint64_t write_cr(struct host *h, unsigned nr, uint64_t val)
{
	char code[] = "\x0f\x22\xc1";
	uint32_t reason;

	code[2] |= nr << 3;
	h->f->cpu->gpr[RCX] = val;
	reason = run_then_call(h, code, 3);
	if (reason == VMCALL_EXIT)
		return 0;
	assert_int_equal(reason, CR_ACCESS);
	return get(h, VMCS_EXIT_QUALIFICATION);
}

static void start_masked(struct host *h, uint64_t mask, uint64_t shadow)
{
	start_all(h, 0, 0);
	put(h, VMCS_CR0_MASK, mask);
	put(h, VMCS_CR0_SHADOW, shadow);
}

static void cr0_mask(void **state)
{
	struct host *h = host_open();
	uint64_t cr0 = h->f->cpu->cr0 | CR0_NE;

	/* A bit of the mask that differs from the shadow. */
	start_masked(h, CR0_TS, 0);
	assert_int_equal(write_cr(h, 0, cr0 | CR0_TS), 0x100);
	assert_int_equal(get(h, VMCS_CR0), cr0);
	/* The same value as the shadow's changes nothing there, and the others are written. */
	start_masked(h, CR0_TS, CR0_TS);
	assert_int_equal(write_cr(h, 0, cr0 | CR0_TS | CR0_MP), 0);
	assert_int_equal(get(h, VMCS_CR0), cr0 | CR0_MP);
	/* What is not in the mask is the guest's own. */
	start_masked(h, 0, CR0_TS);
	assert_int_equal(write_cr(h, 0, cr0 | CR0_TS), 0);
	assert_int_equal(get(h, VMCS_CR0), cr0 | CR0_TS);
	/* Reading: SMSW and MOV show the shadow where the mask is. */
	start_masked(h, CR0_TS | CR0_MP, CR0_TS);
	assert_int_equal(run(h, "\x0f\x20\xc1\x0f\x01\xe2" VMCALL, 9), VMCALL_EXIT);
	assert_int_equal(h->f->cpu->gpr[RCX] & 0xf, 1 | CR0_TS);
	assert_int_equal(h->f->cpu->gpr[RDX] & 0xf, 1 | CR0_TS);
	host_close(h);
}

static void clts_and_lmsw(void **state)
{
	static const struct {
		uint64_t mask, shadow;
		uint16_t source;
		bool exits;
	} lmsw[] = {
		{CR0_TS, 0, CR0_PE | CR0_TS, true},  {CR0_TS, CR0_TS, CR0_PE | CR0_TS, false},
		{CR0_MP, 0, CR0_PE | CR0_TS, false}, {CR0_PE, 0, CR0_PE, true},
		{CR0_PE, CR0_PE, 0, false}, /* LMSW cannot clear it */
		{CR0_EM, CR0_EM, CR0_PE, true},
	};
	struct host *h = host_open();

	start_masked(h, CR0_TS, CR0_TS);
	assert_int_equal(run_then_call(h, "\x0f\x06", 2), CR_ACCESS);
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 0x20);
	/* Shadow 0: CLTS does nothing, and TS stays. */
	start_masked(h, CR0_TS, 0);
	put(h, VMCS_CR0, get(h, VMCS_CR0) | CR0_TS);
	assert_int_equal(run_then_call(h, "\x0f\x06", 2), VMCALL_EXIT);
	assert_true(get(h, VMCS_CR0) & CR0_TS);
	start_masked(h, 0, CR0_TS);
	put(h, VMCS_CR0, get(h, VMCS_CR0) | CR0_TS);
	assert_int_equal(run_then_call(h, "\x0f\x06", 2), VMCALL_EXIT);
	assert_false(get(h, VMCS_CR0) & CR0_TS);
	for (unsigned i = 0; i < ARRAY_SIZE(lmsw); i++) {
		start_masked(h, lmsw[i].mask, lmsw[i].shadow);
		h->f->cpu->gpr[RDX] = lmsw[i].source;
		assert_int_equal(run_then_call(h, "\x0f\x01\xf2", 3),
				 lmsw[i].exits ? CR_ACCESS : VMCALL_EXIT);
		if (lmsw[i].exits)
			assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION),
					 0x30 | (uint64_t)lmsw[i].source << 16);
	}
	/* From memory: bit 6, and its address. */
	start_masked(h, CR0_TS, 0);
	flat_poke(h->f, L2_DATA, CR0_PE | CR0_TS, 2);
	assert_int_equal(run_then_call(h, "\x0f\x01\x37", 3), CR_ACCESS);
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 0x70 | 9 << 16);
	assert_int_equal(get(h, VMCS_GUEST_LINEAR_ADDR), L2_DATA);
	host_close(h);
}

static void cr4_mask(void **state)
{
	struct host *h = host_open();
	uint64_t cr4;

	start_all(h, 0, 0);
	cr4 = get(h, VMCS_CR4);
	put(h, VMCS_CR4_MASK, CR4_VMXE | CR4_TSD);
	put(h, VMCS_CR4_SHADOW, 0);
	/* The guest neither sees VMXE nor takes it away. */
	assert_int_equal(write_cr(h, 4, (cr4 | CR4_DE) & ~(uint64_t)CR4_VMXE), 0);
	assert_int_equal(get(h, VMCS_CR4), cr4 | CR4_DE);
	start_all(h, 0, 0);
	put(h, VMCS_CR4_MASK, CR4_VMXE);
	assert_int_equal(write_cr(h, 4, cr4), 0x104);
	start_all(h, 0, 0);
	put(h, VMCS_CR4_MASK, CR4_VMXE);
	assert_int_equal(run(h, "\x0f\x20\xe1" VMCALL, 6), VMCALL_EXIT);
	assert_int_equal(h->f->cpu->gpr[RCX], cr4 & ~(uint64_t)CR4_VMXE);
	/* Not in the mask: VMX operation holds it at 1. */
	start_all(h, 0, 0);
	h->f->cpu->gpr[RCX] = cr4 & ~(uint64_t)CR4_VMXE;
	assert_int_equal(run_then_call(h, "\x0f\x22\xe1", 3), EXCEPTION);
	assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), INTR_GP);
	host_close(h);
}

static void cr3_targets(void **state)
{
	struct host *h = host_open();
	uint64_t cr3 = h->f->cpu->cr3;

	for (unsigned count = 0; count <= 4; count++)
		for (unsigned at = 0; at < 4; at++) {
			start_all(h, 1 << 15, 0);
			put(h, VMCS_CR3_TARGET_COUNT, count);
			for (unsigned i = 0; i < 4; i++)
				put(h, VMCS_CR3_TARGET0 + i, i == at ? cr3 : 0x123000);
			assert_int_equal(write_cr(h, 3, cr3), at < count ? 0 : 0x103);
		}
	host_close(h);
}

/* ---- bitmaps ---- */

static void set_port(struct host *h, unsigned port)
{
	h->f->ram[IO_MAP + port / 8] |= 1 << port % 8;
}

static void io_bitmaps(void **state)
{
	static const struct {
		const char *code;
		uint8_t size, bytes;
		uint16_t port;
		int set; /* the one bit */
		bool exits;
	} some[] = {
		{"\xec", 1, 1, 0x71, 0x71, true},	   {"\xec", 1, 1, 0x71, 0x70, false},
		{"\x66\xed", 2, 2, 0x70, 0x71, true},	   {"\xed", 1, 4, 0x6e, 0x71, true},
		{"\xed", 1, 4, 0x6d, 0x71, false},	   {"\xec", 1, 1, 0x8000, 0x8000, true},
		{"\xec", 1, 1, 0x8000, 0, false},	   {"\xed", 1, 4, 0x7ffd, 0x8000, true},
		{"\xec", 1, 1, 0xffff, 0xffff, true},	   {"\x66\xed", 2, 2, 0xffff, 0x1234, true},
		{"\x66\xed", 2, 2, 0xfffe, 0x1234, false},
	};
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(some); i++) {
		/* The maps override the unconditional exits. */
		start_all(h, USE_IO_MAPS | 1 << 24, 0);
		set_port(h, some[i].set);
		h->f->cpu->gpr[RDX] = some[i].port;
		assert_int_equal(run_then_call(h, some[i].code, some[i].size),
				 some[i].exits ? 30 : VMCALL_EXIT);
		if (some[i].exits)
			assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION),
					 (some[i].bytes - 1) | 8 | (uint64_t)some[i].port << 16);
		assert_int_equal(h->f->nr_events, !some[i].exits);
	}
	host_close(h);
}

/* Address, count and linear address of string instructions, whose RIP, RCX and pointers stay. */
static void string_io(void **state)
{
	struct host *h = host_open();

	start_all(h, USE_IO_MAPS, 0);
	set_port(h, 0x71);
	h->f->cpu->gpr[RDX] = 0x71;
	h->f->cpu->gpr[RCX] = 5;
	assert_int_equal(run_then_call(h, "\xf3\x6d", 2), 30); /* rep insl */
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 0x71003b);
	assert_int_equal(get(h, VMCS_GUEST_LINEAR_ADDR), L2_DATA);
	assert_int_equal(get(h, VMCS_EXIT_INSN_INFO) >> 7 & 7, 2);
	assert_int_equal(h->f->cpu->gpr[RCX], 5);
	assert_int_equal(h->f->cpu->gpr[RDI], L2_DATA);
	/* FS, 32-bit addresses. */
	start_all(h, USE_IO_MAPS, 0);
	set_port(h, 0x71);
	put(h, VMCS_FS_BASE, 0x1000);
	h->f->cpu->gpr[RDX] = 0x71;
	h->f->cpu->gpr[RSI] = 0x100000000 + L2_DATA;
	assert_int_equal(run_then_call(h, "\x64\x67\x6e", 3), 30); /* addr32 fs outsb */
	assert_int_equal(get(h, VMCS_GUEST_LINEAR_ADDR), L2_DATA + 0x1000);
	assert_int_equal(get(h, VMCS_EXIT_INSN_INFO), 4 << 15 | 1 << 7);
	/* Nothing to be done is no access. */
	start_all(h, 1 << 24, 0);
	assert_int_equal(run_then_call(h, "\xf3\x6c", 2), VMCALL_EXIT);
	host_close(h);
}

static void msr_bitmaps(void **state)
{
	static const struct {
		uint32_t index;
		bool write;
		int set; /* byte of the bitmap's page, its bit for this index; -1: none */
		bool exits;
	} some[] = {
		{0x277, false, 0x4e, true},	   {0x277, false, 0x84e, false},
		{0x277, true, 0x84e, true},	   {0x277, true, 0x4e, false},
		{0xc0000082, false, 0x410, true},  {0xc0000082, true, 0xc10, true},
		{0xc0000082, false, 0xc10, false}, {0xc0000082, true, 0x10, false},
		{0x40000000, false, -1, true},	   {0x40000000, true, -1, true},
		{0x2000, false, -1, true},	   {0xc0002000, true, -1, true},
	};
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(some); i++) {
		start_all(h, USE_MSR_MAPS, 0);
		if (some[i].set >= 0)
			h->f->ram[MSR_MAP + some[i].set] = 1 << (some[i].index & 7);
		h->f->cpu->gpr[RCX] = some[i].index;
		h->f->cpu->gpr[RAX] = 0x00070406;
		assert_int_equal(run_then_call(h, some[i].write ? "\x0f\x30" : "\x0f\x32", 2),
				 some[i].exits ? 31 + some[i].write : VMCALL_EXIT);
	}
	/* Without maps all of them. */
	for (unsigned write = 0; write < 2; write++) {
		start_all(h, 0, 0);
		h->f->cpu->gpr[RCX] = 0x277;
		assert_int_equal(run_then_call(h, write ? "\x0f\x30" : "\x0f\x32", 2), 31 + write);
		assert_int_equal(get(h, VMCS_EXIT_INSN_LEN), 2);
	}
	host_close(h);
}

/* XSAVES exits by what is in EDX:EAX, IA32_XSS and the bitmap, all three. */
static void xss_bitmap(void **state)
{
	static const struct {
		uint64_t mask, xss, bitmap;
		bool exits;
	} some[] = {
		{0x101, 0x100, 0x100, true},
		{0x001, 0x100, 0x100, false},
		{0x101, 0, 0x100, false},
		{0x001, 0x100, 0x101, false},
	};
	static const char *const code[] = {"\x0f\xc7\x2f", "\x0f\xc7\x1f"};
	struct host *h = host_open();
	struct cpu *cpu = h->f->cpu;

	for (unsigned i = 0; i < 2 * ARRAY_SIZE(some); i++) {
		start_all(h, 0, ENABLE_XSAVES);
		memset(h->f->ram + L2_DATA, 0, 0x1000);
		flat_poke(h->f, L2_DATA + 520, 1ull << 63, 8); /* XCOMP_BV: compacted */
		put(h, VMCS_XSS_BITMAP, some[i / 2].bitmap);
		cpu->msr.xss = some[i / 2].xss;
		cpu->gpr[RAX] = some[i / 2].mask;
		assert_int_equal(run_then_call(h, code[i & 1], 3),
				 some[i / 2].exits ? 63 + (i & 1) : VMCALL_EXIT);
	}
	cpu->msr.xss = 0;
	for (unsigned i = 0; i < 2; i++) {
		start_all(h, 0, 0);
		assert_int_equal(run_then_call(h, code[i], 3), EXCEPTION);
		assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), INTR_UD);
	}
	host_close(h);
}

/* ---- PAUSE loops ---- */

static const char pauses[] = "\xf3\x90\xf3\x90\xf3\x90\xf3\x90\xf3\x90\xf3\x90" VMCALL;

/* Each look at the clock is 100 ticks: the nth PAUSE is 100 * (n - 1) behind the first. */
static void pause_loops(void **state)
{
	struct host *h = host_open();

	start_all(h, 0, PAUSE_LOOPS);
	put(h, VMCS_PLE_GAP, 150);
	put(h, VMCS_PLE_WINDOW, 250);
	assert_int_equal(run(h, pauses, 15), 40);
	assert_int_equal(get(h, VMCS_RIP), L2_CODE + 6);
	/* Farther apart than the gap, each is the first. */
	start_all(h, 0, PAUSE_LOOPS);
	put(h, VMCS_PLE_GAP, 50);
	put(h, VMCS_PLE_WINDOW, 250);
	assert_int_equal(run(h, pauses, 15), VMCALL_EXIT);
	/* Not above CPL 0. */
	start_user(h, 0, PAUSE_LOOPS);
	put(h, VMCS_PLE_GAP, 150);
	put(h, VMCS_PLE_WINDOW, 250);
	assert_int_equal(run(h, pauses, 15), VMCALL_EXIT);
	/* PAUSE exiting exits at once. */
	start_user(h, PAUSE_EXITS, PAUSE_LOOPS);
	put(h, VMCS_PLE_GAP, 50);
	put(h, VMCS_PLE_WINDOW, 250);
	assert_int_equal(run(h, pauses, 15), 40);
	assert_int_equal(get(h, VMCS_RIP), L2_CODE);
	host_close(h);
}

/* ---- exceptions ---- */

static const struct {
	const char *code;
	uint8_t size, vector, len;
	uint32_t info, error;
} exceptions[] = {
	{"\xf7\xf1", 2, 0, 0, 0x80000300, 0},		     /* div %ecx */
	{"\xf1", 1, 1, 1, 0x80000501, 0},		     /* int1 */
	{"\xcc", 1, 3, 1, 0x80000603, 0},		     /* int3 */
	{"\x0f\x0b", 2, 6, 0, 0x80000306, 0},		     /* ud2 */
	{"\x8e\xd8", 2, 13, 0, 0x80000b0d, 0xfff8},	     /* mov %eax, %ds */
	{"\x8b\x04\x25\0\0\x40\0", 7, 14, 0, 0x80000b0e, 0}, /* mov 400000h, %eax */
};

/* A bit of the bitmap is an exit; without it the guest's handler is called, and its HLT seen. */
static void exception_bitmap(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < 2 * ARRAY_SIZE(exceptions); i++) {
		unsigned vector = exceptions[i / 2].vector;
		uint32_t bit = 1u << vector;
		uint32_t reason;

		start_all(h, HLT_EXIT, 0);
		flat_set_entry(h->f, MISSING, 2, 0);
		put(h, VMCS_EXCEPTION_BITMAP, i & 1 ? ~bit : bit);
		h->f->cpu->gpr[RAX] = 0xfff8;
		reason = run_then_call(h, exceptions[i / 2].code, exceptions[i / 2].size);
		if (i & 1) {
			assert_int_equal(reason, 12);
			assert_int_equal(get(h, VMCS_RIP), FLAT_HANDLERS + 16 * vector);
			continue;
		}
		assert_int_equal(reason, EXCEPTION);
		assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), exceptions[i / 2].info);
		assert_int_equal(get(h, VMCS_EXIT_INTR_ERROR), exceptions[i / 2].error);
		assert_int_equal(get(h, VMCS_EXIT_INSN_LEN), exceptions[i / 2].len);
		assert_int_equal(get(h, VMCS_RIP), L2_CODE);
		assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), vector == 14 ? MISSING : 0);
	}
	host_close(h);
}

/* Page faults: the bit of the bitmap if mask and match agree, its opposite if not. CR2 stays in an exit. */
static void page_fault_masks(void **state)
{
	static const struct {
		bool bit, write, exits;
		uint32_t mask, match;
	} some[] = {
		{true, false, true, 0, 0},   {true, false, false, 0, 1}, {false, false, true, 0, 1},
		{false, false, false, 0, 0}, {true, true, true, 2, 2},	 {true, false, false, 2, 2},
		{false, false, true, 2, 2},  {false, true, false, 2, 2},
	};
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(some); i++) {
		start_all(h, HLT_EXIT, 0);
		flat_set_entry(h->f, MISSING, 2, 0);
		put(h, VMCS_EXCEPTION_BITMAP, some[i].bit ? 1 << 14 : 0);
		put(h, VMCS_PFEC_MASK, some[i].mask);
		put(h, VMCS_PFEC_MATCH, some[i].match);
		h->f->cpu->cr2 = 0x1234;
		assert_int_equal(
			run(h, some[i].write ? "\x89\x04\x25\0\0\x40\0" : "\x8b\x04\x25\0\0\x40\0",
			    7),
			some[i].exits ? EXCEPTION : 12);
		assert_int_equal(h->f->cpu->cr2, some[i].exits ? 0x1234 : MISSING);
		if (some[i].exits)
			assert_int_equal(get(h, VMCS_EXIT_INTR_ERROR), some[i].write ? 2 : 0);
	}
	host_close(h);
}

/* #DB tells in the qualification what DR6 would; DR6, and DR7.GD, stay. */
static void debug_exceptions(void **state)
{
	struct host *h = host_open();

	start_all(h, 0, 0);
	put(h, VMCS_RFLAGS, 0x102);
	h->f->cpu->dr6 = 0xffff0ff0;
	assert_int_equal(run(h, "\x90\x90", 2), EXCEPTION);
	assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), 0x80000301);
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 0x4000);
	assert_int_equal(get(h, VMCS_RIP), L2_CODE + 1);
	assert_int_equal(h->f->cpu->dr6, 0xffff0ff0);
	/* The exit of an access goes before general detect, and before DR4's #UD. */
	for (unsigned i = 0; i < 2; i++) {
		start_all(h, i ? 1 << 23 : 0, 0);
		put(h, VMCS_ENTRY_CTLS, ENTRY_64 | 4);
		put(h, VMCS_EXIT_CTLS, EXIT_64 | 4);
		put(h, VMCS_DR7, 0x2400);
		put(h, VMCS_CR4, get(h, VMCS_CR4) | CR4_DE);
		assert_int_equal(run(h, "\x0f\x21\xfa", 3), i ? 29 : EXCEPTION);
		assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), i ? 0x217 : 0x2000);
		assert_int_equal(get(h, VMCS_DR7), 0x2400);
		start_all(h, i ? 1 << 23 : 0, 0);
		put(h, VMCS_CR4, get(h, VMCS_CR4) | CR4_DE);
		assert_int_equal(run(h, "\x0f\x21\xe2", 3), i ? 29 : EXCEPTION);
		assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), i ? 0 : INTR_UD);
	}
	host_close(h);
}

/*
 * A fault in the delivery of another: the exit names both. A double fault's exit names itself alone (SDM, information for
 * VM exits that occur during event delivery); without a gate for it, a triple fault.
 */
static void faults_in_delivery(void **state)
{
	struct host *h = host_open();

	start_all(h, 0, 0);
	put(h, VMCS_EXCEPTION_BITMAP, 1 << 13);
	put(h, VMCS_IDTR_LIMIT, 16 * 6 - 1); /* none for #UD, #DF, #GP */
	assert_int_equal(run(h, "\x0f\x0b", 2), EXCEPTION);
	assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), INTR_GP);
	assert_int_equal(get(h, VMCS_EXIT_INTR_ERROR), 6 * 8 + 3);
	assert_int_equal(get(h, VMCS_IDT_INFO), INTR_UD);
	start_all(h, 0, 0);
	put(h, VMCS_EXCEPTION_BITMAP, 1 << 8);
	put(h, VMCS_IDTR_LIMIT, 16 * 6 - 1);
	h->f->cpu->gpr[RAX] = 0xfff8;
	assert_int_equal(run(h, "\x8e\xd8", 2), EXCEPTION);
	assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), 0x80000b08);
	assert_int_equal(get(h, VMCS_EXIT_INTR_ERROR), 0);
	assert_int_equal(get(h, VMCS_IDT_INFO), 0);
	start_all(h, 0, 0);
	put(h, VMCS_EXCEPTION_BITMAP, 0);
	put(h, VMCS_IDTR_LIMIT, 0);
	assert_int_equal(run(h, "\x0f\x0b", 2), 2);
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 0);
	assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), 0);
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_control),	    cmocka_unit_test(not_activated),
		cmocka_unit_test(privilege_first),  cmocka_unit_test(cr0_mask),
		cmocka_unit_test(clts_and_lmsw),    cmocka_unit_test(cr4_mask),
		cmocka_unit_test(cr3_targets),	    cmocka_unit_test(io_bitmaps),
		cmocka_unit_test(string_io),	    cmocka_unit_test(msr_bitmaps),
		cmocka_unit_test(xss_bitmap),	    cmocka_unit_test(pause_loops),
		cmocka_unit_test(exception_bitmap), cmocka_unit_test(page_fault_masks),
		cmocka_unit_test(debug_exceptions), cmocka_unit_test(faults_in_delivery),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
