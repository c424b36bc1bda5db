/* SPDX-License-Identifier: MIT */
/*
 * SVM by small hypervisors: one VMRUN of a guest of a few bytes, then what the VMCB says. Offsets, bits and codes are the
 * APM's numbers, written out here once more.
 */
#include "rounds.h"
#include "svm_host.h"

/* ---- intercepts ---- */

static const struct {
	const char *name, *code;
	uint8_t size, word, bit;
	uint16_t exit;
	uint64_t info1;
} intercepts[] = {
	{"MOV from CR0", "\x0f\x20\xc1", 3, CR_BITS, 0, 0x00, 1ull << 63 | 1},
	{"MOV from CR8", "\x44\x0f\x20\xc2", 4, CR_BITS, 8, 0x08, 1ull << 63 | 2},
	{"MOV to CR3", "\x0f\x22\xda", 3, CR_BITS, 19, 0x13, 1ull << 63 | 2},
	{"CLTS", "\x0f\x06", 2, CR_BITS, 16, 0x10, 0},
	{"SMSW", "\x0f\x01\xe0", 3, CR_BITS, 0, 0x00, 0},
	{"MOV from DR7", "\x0f\x21\xfb", 3, DR_BITS, 7, 0x27, 3},
	{"MOV to DR7", "\x0f\x23\xfb", 3, DR_BITS, 23, 0x37, 3},
	{"SIDT", "\x0f\x01\x0b", 3, MISC1, 6, 0x66, 0},
	{"SGDT", "\x0f\x01\x03", 3, MISC1, 7, 0x67, 0},
	{"SLDT", "\x0f\x00\xc0", 3, MISC1, 8, 0x68, 0},
	{"STR", "\x0f\x00\xc8", 3, MISC1, 9, 0x69, 0},
	{"LIDT", "\x0f\x01\x1b", 3, MISC1, 10, 0x6a, 0},
	{"LGDT", "\x0f\x01\x13", 3, MISC1, 11, 0x6b, 0},
	{"LLDT", "\x0f\x00\xd0", 3, MISC1, 12, 0x6c, 0},
	{"LTR", "\x0f\x00\xd8", 3, MISC1, 13, 0x6d, 0},
	{"RDTSC", "\x0f\x31", 2, MISC1, 14, 0x6e, 0},
	{"RDPMC", "\x0f\x33", 2, MISC1, 15, 0x6f, 0},
	{"PUSHF", "\x9c", 1, MISC1, 16, 0x70, 0},
	{"POPF", "\x9d", 1, MISC1, 17, 0x71, 0},
	{"CPUID", "\x0f\xa2", 2, MISC1, 18, 0x72, 0},
	{"IRET", "\x48\xcf", 2, MISC1, 20, 0x74, 0},
	{"INT n", "\xcd\x80", 2, MISC1, 21, 0x75, 0x80},
	{"INVD", "\x0f\x08", 2, MISC1, 22, 0x76, 0},
	{"PAUSE", "\xf3\x90", 2, MISC1, 23, 0x77, 0},
	{"HLT", "\xf4", 1, MISC1, 24, 0x78, 0},
	{"INVLPG", "\x0f\x01\x3c\x25\x00\x50\x00\x00", 8, MISC1, 25, 0x79, 0x5000},
	{"INVLPGA", "\x0f\x01\xdf", 3, MISC1, 26, 0x7a, 0},
	{"VMRUN", "\x0f\x01\xd8", 3, MISC2, 0, 0x80, 0},
	{"VMMCALL", VMMCALL, 3, MISC2, 1, 0x81, 0},
	{"VMLOAD", "\x0f\x01\xda", 3, MISC2, 2, 0x82, 0},
	{"VMSAVE", "\x0f\x01\xdb", 3, MISC2, 3, 0x83, 0},
	{"STGI", "\x0f\x01\xdc", 3, MISC2, 4, 0x84, 0},
	{"CLGI", "\x0f\x01\xdd", 3, MISC2, 5, 0x85, 0},
	{"SKINIT", "\x0f\x01\xde", 3, MISC2, 6, 0x86, 0},
	{"RDTSCP", "\x0f\x01\xf9", 3, MISC2, 7, 0x87, 0},
	{"ICEBP", "\xf1", 1, MISC2, 8, 0x88, 0},
	{"WBINVD", "\x0f\x09", 2, MISC2, 9, 0x89, 0},
	{"MONITOR", "\x0f\x01\xc8", 3, MISC2, 10, 0x8a, 0},
	{"MWAIT", "\x0f\x01\xc9", 3, MISC2, 11, 0x8b, 0},
	{"INT3", "\xcc", 1, EXCEPTIONS, 3, 0x43, 0},
};

static void each_intercept(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(intercepts); i++) {
		struct host *h = host_open();
		uint64_t bits = get(h, intercepts[i].word, 4), code;

		put(h, intercepts[i].word, bits | 1ull << intercepts[i].bit, 4);
		h->f->cpu->gpr[RCX] = 0;
		code = vmrun(h, intercepts[i].code, intercepts[i].size);
		if (code != intercepts[i].exit)
			print_error("%s: %lx\n", intercepts[i].name, code);
		assert_int_equal(code, intercepts[i].exit);
		assert_int_equal(get(h, 0x78, 8), intercepts[i].info1);
		assert_int_equal(get(h, 0x578, 8), L2_CODE);
		assert_int_equal(get(h, 0xc8, 8), L2_CODE + intercepts[i].size);
		host_close(h);
	}
}

/* What nobody asked for goes on to VMMCALL. */
static void no_intercept(void **state)
{
	static const char *const plain[] = {"\x0f\x20\xc1", "\x0f\xa2\x90", "\x0f\x31\x90",
					    "\x9c\x9d\x90", "\xf3\x90\x90", "\x0f\x08\x90",
					    "\x0f\x01\xdf"};

	for (unsigned i = 0; i < ARRAY_SIZE(plain); i++) {
		struct host *h = host_open();
		char code[6];

		memcpy(code, plain[i], 3);
		memcpy(code + 3, VMMCALL, 3);
		assert_int_equal(vmrun(h, code, 6), 0x81);
		assert_int_equal(get(h, 0x578, 8), L2_CODE + 3);
		host_close(h);
	}
}

/* Bits that are set in the maps intercept; size and direction of the access say which count. */
static void maps(void **state)
{
	struct host *h = host_open();

	put(h, MISC1, 1u << 27 | 1u << 28, 4);
	flat_poke(h->f, IOPM + 0x71 / 8, 1 << 1, 1);
	assert_int_equal(vmrun(h, "\xe4\x70" VMMCALL, 5), 0x81);
	put(h, 0x578, L2_CODE, 8);
	assert_int_equal(vmrun(h, "\x66\xe5\x70", 3), 0x7b); /* in 70h, %ax */
	assert_int_equal(get(h, 0x78, 8), 0x70 << 16 | 1 << 9 | 1 << 5 | 1);
	assert_int_equal(get(h, 0x80, 8), L2_CODE + 3);
	/* WRMSR of STAR, its reading left alone. */
	flat_poke(h->f, MSRPM + 0x800 + 0x81 / 4, 2 << 2, 1);
	h->f->cpu->gpr[RCX] = 0xc0000081;
	assert_int_equal(vmrun(h, "\x0f\x32" VMMCALL, 5), 0x81);
	put(h, 0x578, L2_CODE, 8);
	h->f->cpu->gpr[RDX] = 0;
	assert_int_equal(vmrun(h, "\x0f\x30", 2), 0x7c);
	assert_int_equal(get(h, 0x78, 8), 1);
	host_close(h);
}

/* ---- consistency checks ---- */

static const struct {
	const char *name;
	uint16_t at;
	uint8_t size;
	uint64_t set, clear;
} checks[] = {
	{"VMRUN not intercepted", MISC2, 4, 0, 1},
	{"ASID 0", 0x58, 4, 0, ~0ull},
	{"I/O map beyond memory", 0x40, 8, 1ull << 63, 0},
	{"MSR map beyond memory", 0x48, 8, 1ull << 63, 0},
	{"nCR3 beyond memory", 0xb0, 8, 1ull << 63, 0},
	{"virtual NMI", 0x60, 8, 1 << 26, 0},
	{"injection: type 1", 0xa8, 8, 1ull << 31 | 1 << 8, 0},
	{"injection: type 5", 0xa8, 8, 1ull << 31 | 5 << 8, 0},
	{"injection: exception 2", 0xa8, 8, 1ull << 31 | 3 << 8 | 2, 0},
	{"injection: exception 32", 0xa8, 8, 1ull << 31 | 3 << 8 | 32, 0},
	{"EFER.SVME", 0x4d0, 8, 0, 1 << 12},
	{"EFER reserved", 0x4d0, 8, 1ull << 40, 0},
	{"CR0.NW without CD", 0x558, 8, 1 << 29, 1 << 30},
	{"CR0 upper half", 0x558, 8, 1ull << 32, 0},
	{"CR3 reserved", 0x550, 8, 1ull << 62, 0},
	{"CR4 reserved", 0x548, 8, 1ull << 40, 0},
	{"CR4.PAE", 0x548, 8, 0, 1 << 5},
	{"CR0.PE", 0x558, 8, 0, 1},
	{"DR6 upper half", 0x568, 8, 1ull << 32, 0},
	{"DR7 upper half", 0x560, 8, 1ull << 32, 0},
	{"CS.L and CS.D", 0x412, 2, 3 << 9, 0},
};

static void each_check(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(checks); i++) {
		struct host *h = host_open();
		uint64_t val = get(h, checks[i].at, checks[i].size), code;

		h->f->cpu->cr4_reserved = 1ull << 40;
		if (checks[i].at == 0xb0)
			put(h, 0x90, 1, 8);
		put(h, checks[i].at, (val & ~checks[i].clear) | checks[i].set, checks[i].size);
		code = vmrun(h, VMMCALL, 3);
		if (code != ~0ull)
			print_error("%s: %lx\n", checks[i].name, code);
		assert_int_equal(code, ~0ull);
		host_close(h);
	}
}

/* Faults of the instruction itself. */
static void vmrun_faults(void **state)
{
	struct host *h = host_open();

	load(h->f, run_guest);
	h->f->cpu->gpr[RAX] = VMCB + 8;
	assert_int_equal(run_to_handler(h->f), VEC_GP);
	flat_long(h->f);
	flat_set_efer(h->f, h->f->cpu->msr.efer & ~(uint64_t)EFER_SVME);
	load(h->f, run_guest);
	h->f->cpu->gpr[RAX] = VMCB;
	assert_int_equal(run_to_handler(h->f), VEC_UD);
	host_close(h);
}

/* ---- events ---- */

static void exceptions(void **state)
{
	struct host *h = host_open();

	put(h, EXCEPTIONS, 1u << 14 | 1u << 13, 4);
	flat_set_entry(h->f, 0x400000, 2, 0);
	assert_int_equal(vmrun(h, "\xc6\x04\x25\x78\x56\x40\x00\x01", 8), 0x4e);
	assert_int_equal(get(h, 0x78, 8), 2);
	assert_int_equal(get(h, 0x80, 8), 0x405678);
	assert_int_equal(get(h, 0xd0, 1), 15);
	/* The same while an interrupt that is injected finds no gate. */
	put(h, 0x484, 0x1ff, 4);
	put(h, 0xa8, 1ull << 31 | 0x40, 8);
	assert_int_equal(vmrun(h, VMMCALL, 3), 0x4d);
	assert_int_equal(get(h, 0x88, 8), 1ull << 31 | 0x40);
	assert_int_equal(get(h, 0x78, 8), 0x40 * 8 + 2 + 1);
	host_close(h);
}

/* An injected #GP is taken at once, its error code on the stack; HLT of the handler is intercepted. */
static void injection(void **state)
{
	struct host *h = host_open();

	put(h, MISC1, 1u << 24, 4);
	put(h, 0xa8, 0x1234ull << 32 | 1ull << 31 | 1 << 11 | 3 << 8 | 13, 8);
	assert_int_equal(vmrun(h, VMMCALL, 3), 0x78);
	assert_int_equal(get(h, 0x578, 8), FLAT_HANDLERS + 16 * 13);
	assert_int_equal(flat_peek(h->f, get(h, 0x5d8, 8), 8), 0x1234);
	assert_int_equal(get(h, 0xa8, 8) >> 31 & 1, 0);
	host_close(h);
}

/* The virtual interrupt waits for STI's shadow; its priority has to be above the virtual TPR. */
static void virtual_interrupt(void **state)
{
	struct host *h = host_open();
	uint64_t ctl = 1 << 8 | 4 << 16 | 1 << 24 | 0x41ull << 32;

	put(h, MISC1, 1u << 24, 4);
	put(h, 0x60, ctl | 5, 8);
	assert_int_equal(vmrun(h, "\xfb\x90\x90" VMMCALL, 6), 0x81);
	put(h, 0x578, L2_CODE, 8);
	put(h, 0x570, 2, 8);
	put(h, 0x60, ctl | 3, 8);
	assert_int_equal(vmrun(h, "\xfb\x90\x90" VMMCALL, 6), 0x78);
	assert_int_equal(get(h, 0x578, 8), FLAT_HANDLERS + 16 * 0x41);
	assert_int_equal(flat_peek(h->f, get(h, 0x5d8, 8), 8), L2_CODE + 2);
	assert_int_equal(get(h, 0x60, 8), (ctl | 3) & ~(1ull << 8));
	/* And with the intercept it is an exit. */
	put(h, MISC1, 1u << 4, 4);
	put(h, 0x578, L2_CODE, 8);
	put(h, 0x570, 2, 8);
	put(h, 0x60, ctl | 3, 8);
	assert_int_equal(vmrun(h, "\xfb\x90\x90" VMMCALL, 6), 0x64);
	host_close(h);
}

/* With V_INTR_MASKING the host's IF lets interrupts come, whatever the guest's. */
static void physical_interrupt(void **state)
{
	struct host *h = host_open();

	put(h, MISC1, 1, 4);
	put(h, 0x60, 1 << 24, 8);
	h->f->interrupt = 0x55;
	assert_int_equal(vmrun(h, VMMCALL, 3), 0x81);
	put(h, 0x578, L2_CODE, 8);
	load(h->f, run_guest);
	h->f->cpu->virt->gif = false;
	cpu_set_rflags(h->f->cpu, 2 | FLAG_IF);
	assert_int_equal(vmrun(h, VMMCALL, 3), 0x60);
	assert_int_equal(h->f->nr_acked, 0);
	assert_int_equal(get(h, 0x578, 8), L2_CODE);
	host_close(h);
}

/* General detect goes before the intercept of the access. */
static void general_detect(void **state)
{
	struct host *h = host_open();

	put(h, DR_BITS, 0xff00ff, 4);
	put(h, EXCEPTIONS, 1 << 1, 4);
	put(h, 0x560, 0x2400, 8);
	assert_int_equal(vmrun(h, "\x0f\x23\xfb", 3), 0x41);
	assert_int_equal(get(h, 0x568, 8), 0xffff2ff0);
	assert_int_equal(get(h, 0x560, 8), 0x400);
	host_close(h);
}

/* ---- nested paging ---- */

static uint64_t nested_entry(struct host *h, unsigned i)
{
	return flat_peek(h->f, NESTED + 0x2000 + 8 * i, 8);
}

#define STORE_800000 "\xc6\x04\x25\x00\x00\x80\x00\x01"
#define LOAD_800000  "\x8a\x04\x25\x00\x00\x80\x00"

static void nested_accessed_dirty(void **state)
{
	struct host *h = host_open();

	nested_tables(h);
	assert_int_equal(vmrun(h, LOAD_800000 VMMCALL, 10), 0x81);
	assert_int_equal(nested_entry(h, 4) >> 5 & 3, 1);
	assert_int_equal(nested_entry(h, 5) >> 5 & 3, 0);
	/* The guest's page tables lie in the first 2 MiB: reading them counts as a write. */
	assert_int_equal(nested_entry(h, 0) >> 5 & 3, 3);
	put(h, 0x578, L2_CODE, 8);
	assert_int_equal(vmrun(h, STORE_800000 VMMCALL, 11), 0x81);
	assert_int_equal(nested_entry(h, 4) >> 5 & 3, 3);
	assert_int_equal(flat_peek(h->f, 0x800000, 1), 1);
	host_close(h);
}

static void nested_faults(void **state)
{
	struct host *h = host_open();

	nested_tables(h);
	flat_poke(h->f, NESTED + 0x2000 + 8 * 4, 0, 8);
	assert_int_equal(vmrun(h, STORE_800000, 8), 0x400);
	assert_int_equal(get(h, 0x78, 8), 1ull << 32 | 4 | 2);
	assert_int_equal(get(h, 0x80, 8), 0x800000);
	/* Not writable. */
	flat_poke(h->f, NESTED + 0x2000 + 8 * 4, 0x800000 | 1 << 7 | 5, 8);
	assert_int_equal(vmrun(h, STORE_800000, 8), 0x400);
	assert_int_equal(get(h, 0x78, 8), 1ull << 32 | 4 | 2 | 1);
	/* The guest's own tables are not there. */
	flat_poke(h->f, NESTED + 0x2000, 0, 8);
	put(h, 0x5c, 1, 1);
	assert_int_equal(vmrun(h, VMMCALL, 3), 0x400);
	assert_int_equal(get(h, 0x78, 8) >> 32, 2);
	assert_int_equal(get(h, 0x80, 8) & ~0xfffull, h->f->cpu->cr3);
	host_close(h);
}

/* ---- the rest ---- */

static void tsc_is_scaled_and_moved(void **state)
{
	struct host *h = host_open();

	h->f->cpu->msr.tsc_ratio = 1ull << 31;
	h->f->tsc = 1000000;
	put(h, 0x50, 7, 8);
	assert_int_equal(vmrun(h, "\x0f\x31\x89\xc3" VMMCALL, 7), 0x81);
	assert_in_range(h->f->cpu->gpr[RBX], 500007, 501000);
	host_close(h);
}

static void shutdown(void **state)
{
	struct host *h = host_open();

	put(h, MISC1, 1u << 31, 4);
	put(h, 0x484, 0, 4);
	assert_int_equal(vmrun(h, "\x0f\x0b", 2), 0x7f);
	host_close(h);
}

#define IDT32 0x240000u

/* Intercepted, a task switch by a gate says which event led there: KVM tells it from a far CALL by that alone. */
static void task_gate(void **state)
{
	struct host *h = host_open();

	put(h, MISC1, 1u << 29, 4);
	put_segment(h, 0x410, FLAT_CS32, 0xc9b);
	put(h, 0x4d0, 1 << 12, 8);
	put(h, 0x558, 0x11, 8);
	put(h, 0x548, 0, 8);
	put(h, 0x484, 0x7ff, 4);
	put(h, 0x488, IDT32, 8);
	flat_poke(h->f, IDT32 + 8 * 13, 0x850000480000ull, 8);
	flat_poke(h->f, IDT32 + 8 * 0x40, 0xe50000480000ull, 8);
	put(h, 0xa8, 0x1234ull << 32 | 1ull << 31 | 1 << 11 | 3 << 8 | 13, 8);
	assert_int_equal(vmrun(h, VMMCALL, 3), 0x7d);
	assert_int_equal(get(h, 0x78, 8), 0x48);
	assert_int_equal(get(h, 0x80, 8) & 0xffffffffffff, 1ull << 44 | 0x1234);
	assert_int_equal(get(h, 0x88, 8), 0x1234ull << 32 | 1ull << 31 | 1 << 11 | 3 << 8 | 13);
	/* INT n. */
	assert_int_equal(vmrun(h, "\xcd\x40", 2), 0x7d);
	assert_int_equal(get(h, 0x88, 8), 1ull << 31 | 4 << 8 | 0x40);
	/* A far CALL to a TSS was led there by none. */
	flat_poke(h->f, h->f->cpu->gdtr.base + FLAT_TR + 5, 0x89, 1);
	assert_int_equal(vmrun(h, "\x9a\x00\x00\x00\x00\x48\x00", 7), 0x7d);
	assert_int_equal(get(h, 0x88, 8), 0);
	host_close(h);
}

/* ---- bad input ---- */

#define NR_RANDOM 3000

/* Single bits, whole words, now and then addresses of tables that lead anywhere. */
static void spoil(struct host *h, uint64_t *seed)
{
	static const uint16_t words[] = {
		0x00,  0x08,  0x0c,  0x10,  0x40,  0x48,  0x50,	 0x58,	0x60,  0x68,  0x90,  0xa8,
		0xb0,  0xb8,  0x400, 0x410, 0x412, 0x418, 0x420, 0x422, 0x460, 0x468, 0x480, 0x488,
		0x4c8, 0x4d0, 0x548, 0x550, 0x558, 0x560, 0x568, 0x570, 0x578, 0x5d8, 0x5f8};
	uint64_t r = next_random(seed);
	unsigned at = words[r % ARRAY_SIZE(words)], any = r >> 32 & 0x3fe;
	uint64_t val;

	if (!(r >> 11 & 7))
		at = any < 0x100 ? any : 0x400 + any % 0x298;
	val = get(h, at, 8);
	switch (r >> 8 & 7) {
	case 0:
		val = next_random(seed);
		break;
	case 1:
		val = next_random(seed) & 0xffff;
		break;
	case 2:
		val = NESTED + (next_random(seed) & 0x3000);
		break;
	default:
		val ^= 1ull << (r >> 16 & 63);
	}
	put(h, at, val, 8);
}

/* A host at its VMRUN, whatever the last guest left. */
static void again(void *host, uint64_t *seed)
{
	static const char code[] =
		"\x0f\xa2\x0f\x31\x9c\x9d\xfb\xf3\x90\x0f\x20\xc1\xcc\xcd\x80" STORE_800000 VMMCALL;
	struct host *h = host;
	struct cpu *cpu = h->f->cpu;
	unsigned spoiled = next_random(seed) % 6;

	start_again(h);
	flat_write(h->f, L2_CODE, code, sizeof(code));
	if (next_random(seed) & 1) {
		nested_tables(h);
		if (next_random(seed) & 1)
			spoil_tables(h->f, NESTED, seed);
	}
	while (spoiled--)
		spoil(h, seed);
	load(h->f, run_guest);
	cpu->gpr[RAX] = VMCB;
}

/* Whatever a VMCB holds, the processor goes on, or says architecturally that it cannot. */
static void random_vmcbs(void **state)
{
	struct host *h = host_open();

	assert_true(run_rounds(h->f, number("ANYKVM_ROUNDS", NR_RANDOM), again, h));
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_intercept),
		cmocka_unit_test(no_intercept),
		cmocka_unit_test(maps),
		cmocka_unit_test(each_check),
		cmocka_unit_test(vmrun_faults),
		cmocka_unit_test(exceptions),
		cmocka_unit_test(injection),
		cmocka_unit_test(virtual_interrupt),
		cmocka_unit_test(physical_interrupt),
		cmocka_unit_test(nested_accessed_dirty),
		cmocka_unit_test(nested_faults),
		cmocka_unit_test(tsc_is_scaled_and_moved),
		cmocka_unit_test(shutdown),
		cmocka_unit_test(task_gate),
		cmocka_unit_test(random_vmcbs),
		cmocka_unit_test(general_detect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
