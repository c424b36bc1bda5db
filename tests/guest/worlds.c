/* SPDX-License-Identifier: MIT */
/*
 * What the TLB keeps over exits and entries: each guest sees its own memory, and after the flush that the manuals
 * name, the new one. One small hypervisor for VMX and one for SVM; their guests read X in the lower half, and in the
 * upper, and come back. Expected is what tables say at the time of the last flush (SDM, caching translation information; APM, TLB
 * control). That something is kept at all is asked of the counters only.
 */
#include "guest_asm.h"
#include "silicon/exec/lockstep.h"
#include "silicon/models/model.h"
#include "silicon/mmu/tlb.h"
#include "silicon/svm/svm.h"
#include "silicon/vmx/vmx.h"

#include <stdlib.h>
#include <string.h>

#define X	0x40000000ull
#define UPPER	0xffff800040000000ull
#define PAGES	0x900000u /* of values, 4 KiB each: page n holds VALUE(n) */
#define L2_CODE 0x300000u
#define VMCB	0x201000u
#define HSAVE	0x200000u
#define MAPS	0x210000u
#define DESC	0x202000u /* INVEPT's and INVVPID's */

#define VALUE(n) (0x5a5a0000u + (n))

/* Tables of a guest or the host, by number; of the second stage. */
#define TABLES(n) (0x400000u + (n)*0x10000u)
#define SECOND(n) (0x600000u + (n)*0x10000u)

#define ROUNDS 3 /* the code is translated from the second on */

struct bench {
	struct flat *f;
	bool amd;
	struct vmx vmx;
	struct cpu_model model;
	unsigned id, root,
		second; /* VPID or ASID (VPID 0: none), numbers of tables (second 0: none) */
	uint64_t cr4;	/* of the guest, besides PAE */
};

/* ---- tables ---- */

static void poke(struct bench *b, gpa_t gpa, uint64_t val)
{
	flat_poke(b->f, gpa, val, 8);
}

/* RAM as it is, and X and UPPER by one entry. */
static void make_tables(struct bench *b, unsigned n)
{
	gpa_t t = TABLES(n);

	poke(b, t, (t + 0x1000) | 7);
	poke(b, t + 256 * 8, (t + 0x1000) | 7);
	poke(b, t + 0x1000, (t + 0x2000) | 7);
	poke(b, t + 0x1008, (t + 0x3000) | 7);
	poke(b, t + 0x3000, (t + 0x4000) | 7);
	for (unsigned i = 0; i < 8; i++)
		poke(b, t + 0x2000 + 8 * i, i << 21 | 0x80 | 7);
}

static void map(struct bench *b, unsigned n, unsigned page, uint64_t bits)
{
	poke(b, TABLES(n) + 0x4000, (PAGES + page * 0x1000) | bits);
}

static gpa_t second_entry(unsigned n, unsigned page)
{
	return SECOND(n) + 0x3000 + 8 * (((PAGES >> 12) + page) & 0x1ff);
}

static void map_second(struct bench *b, unsigned n, unsigned page, unsigned to, uint64_t bits)
{
	poke(b, second_entry(n, page), (PAGES + to * 0x1000) | (b->amd ? 0 : 0x30) | bits);
}

/* All as it is, the pages of values by 4 KiB. */
static void make_second(struct bench *b, unsigned n)
{
	gpa_t t = SECOND(n);
	uint64_t leaf = b->amd ? 0x87 : 0xb7;

	poke(b, t, (t + 0x1000) | 7);
	poke(b, t + 0x1000, (t + 0x2000) | 7);
	for (unsigned i = 0; i < 8; i++)
		poke(b, t + 0x2000 + 8 * i, i << 21 | leaf);
	poke(b, t + 0x2000 + 8 * 4, (t + 0x3000) | 7);
	for (unsigned i = 0; i < 512; i++)
		poke(b, t + 0x3000 + 8 * i, (0x800000 + i * 0x1000) | (b->amd ? 7 : 0x37));
}

/* ---- VMX: a VMCS that enters ---- */

static void put(struct bench *b, enum vmcs_field f, uint64_t val)
{
	b->vmx.vmcs[f] = val;
}

static void vmx_fields(struct bench *b)
{
	struct cpu *cpu = b->f->cpu;

	put(b, VMCS_PIN_CTLS, 0x16);
	put(b, VMCS_CPU_CTLS, 0x84006172);
	put(b, VMCS_EXIT_CTLS, 0x36ffb);
	put(b, VMCS_ENTRY_CTLS, 0x13fb);
	put(b, VMCS_TSC_MULTIPLIER, 1);
	put(b, VMCS_LINK_POINTER, ~0ull);
	put(b, VMCS_HOST_CR0, cpu->cr0);
	put(b, VMCS_HOST_CR4, cpu->cr4);
	put(b, VMCS_HOST_CS_SEL, FLAT_CS64);
	put(b, VMCS_HOST_SS_SEL, FLAT_DS32);
	put(b, VMCS_HOST_TR_SEL, FLAT_TR);
	put(b, VMCS_HOST_TR_BASE, FLAT_TSS);
	put(b, VMCS_HOST_GDTR_BASE, cpu->gdtr.base);
	put(b, VMCS_HOST_IDTR_BASE, cpu->idtr.base);
	put(b, VMCS_HOST_RSP, FLAT_STACK);
	put(b, VMCS_HOST_RIP, FLAT_CODE + 3);
	put(b, VMCS_CR0, cpu->cr0);
	put(b, VMCS_CS_SEL, FLAT_CS64);
	put(b, VMCS_CS_AR, 0xa09b);
	put(b, VMCS_CS_LIMIT, 0xffffffff);
	put(b, VMCS_SS_SEL, FLAT_DS32);
	put(b, VMCS_SS_AR, 0xc093);
	put(b, VMCS_SS_LIMIT, 0xffffffff);
	for (unsigned n = 0; n < 4; n++)
		put(b, (enum vmcs_field[]){VMCS_DS_AR, VMCS_ES_AR, VMCS_FS_AR, VMCS_GS_AR}[n],
		    0x10000);
	put(b, VMCS_LDTR_AR, 0x10000);
	put(b, VMCS_TR_SEL, FLAT_TR);
	put(b, VMCS_TR_AR, 0x8b);
	put(b, VMCS_TR_LIMIT, 0x67);
	put(b, VMCS_RFLAGS, 2);
	put(b, VMCS_DR7, 0x400);
}

static void vmx_open(struct bench *b)
{
	static const struct vmx_options all = {true, true, true, true, true,
					       true, true, true, true, false};
	struct cpu *cpu = b->f->cpu;
	struct vmx_caps caps;

	cpu->cr4_reserved = ~0x377fffull;
	vmx_caps_default(NULL, &all, &caps);
	vmx_init(cpu, &b->vmx, &caps);
	flat_set_cr4(b->f, cpu->cr4 | 0x2000);
	flat_set_cr0(b->f, cpu->cr0 | 0x20);
	b->vmx.on = true;
	b->vmx.current = 0x3000;
	vmx_fields(b);
}

/* ---- SVM ---- */

static void vmcb_put(struct bench *b, unsigned at, uint64_t val, unsigned size)
{
	flat_poke(b->f, VMCB + at, val, size);
}

static void vmcb_segment(struct bench *b, unsigned at, uint16_t sel, uint16_t attr)
{
	vmcb_put(b, at, sel | (uint64_t)attr << 16 | 0xffffffffull << 32, 8);
	vmcb_put(b, at + 8, 0, 8);
}

static void svm_open(struct bench *b)
{
	static const enum feature wanted[] = {FEAT_SVM, FEAT_NPT, FEAT_NRIPS, FEAT_FLUSHBYASID};
	struct cpu *cpu = b->f->cpu;

	b->model = *cpu->model;
	b->model.vendor = VENDOR_AMD;
	cpu->model = &b->model;
	for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++) {
		feature_put(cpu->model_features, wanted[i], true);
		feature_put(cpu->guest_features, wanted[i], true);
	}
	assert_true(svm_create(cpu, false));
	cpu->msr.vm_hsave_pa = HSAVE;
	flat_set_efer(b->f, cpu->msr.efer | EFER_SVME);
	vmcb_put(b, 0x10, 3, 4); /* VMRUN and VMMCALL */
	vmcb_put(b, 0x40, MAPS, 8);
	vmcb_put(b, 0x48, MAPS + 0x10000, 8);
	vmcb_segment(b, 0x400, FLAT_DS32, 0xc93);
	vmcb_segment(b, 0x410, FLAT_CS64, 0xa9b);
	vmcb_segment(b, 0x420, FLAT_DS32, 0xc93);
	vmcb_segment(b, 0x430, FLAT_DS32, 0xc93);
	vmcb_put(b, 0x4d0, cpu->msr.efer, 8);
	vmcb_put(b, 0x558, cpu->cr0, 8);
	vmcb_put(b, 0x560, 0x400, 8);
	vmcb_put(b, 0x568, 0xffff0ff0, 8);
	vmcb_put(b, 0x570, 2, 8);
}

/* ---- the machine ---- */

static struct bench *bench_open(bool amd)
{
	struct bench *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	b->amd = amd;
	b->f = tempo_machine();
	b->id = b->root = 1;
	for (unsigned n = 0; n < 4; n++) {
		make_tables(b, n);
		map(b, n, n, 7);
	}
	for (unsigned n = 1; n < 3; n++)
		make_second(b, n);
	for (unsigned n = 0; n < 16; n++)
		poke(b, PAGES + n * 0x1000, VALUE(n));
	flat_set_cr3(b->f, TABLES(0));
	(amd ? svm_open : vmx_open)(b);
	return b;
}

static void bench_close(struct bench *b)
{
	if (b->amd)
		svm_destroy(b->f->cpu);
	b->f->cpu->virt = NULL;
	flat_free(b->f);
	free(b);
}

GUEST(enter_vmx, 64, "vmresume\n hlt");
GUEST(enter_svm, 64, "vmrun\n hlt");

static void set_world(struct bench *b)
{
	gpa_t second = b->second ? SECOND(b->second) : 0;
	uint64_t cr4 = b->cr4 | 0x20 | (b->amd ? 0 : 0x2000);

	if (b->amd) {
		vmcb_put(b, 0x58, b->id, 4);
		vmcb_put(b, 0x90, !!second, 8);
		vmcb_put(b, 0xb0, second, 8);
		vmcb_put(b, 0x550, TABLES(b->root), 8);
		vmcb_put(b, 0x548, cr4, 8);
		vmcb_put(b, 0x578, L2_CODE, 8);
		return;
	}
	put(b, VMCS_CPU2_CTLS, (b->id ? 0x20 : 0) | (second ? 2 : 0));
	put(b, VMCS_VPID, b->id);
	put(b, VMCS_EPTP, second | 0x1e);
	put(b, VMCS_CR3, TABLES(b->root));
	put(b, VMCS_CR4, cr4);
	put(b, VMCS_HOST_CR3, b->f->cpu->cr3);
	put(b, VMCS_RIP, L2_CODE);
	b->vmx.launched = true;
}

/* To the guest and back: the reason of the exit. */
static uint64_t enter(struct bench *b)
{
	struct cpu *cpu = b->f->cpu;
	uint64_t rbx = cpu->gpr[RBX];

	set_world(b);
	if (b->amd)
		load(b->f, enter_svm);
	else
		load(b->f, enter_vmx);
	cpu->gpr[RBX] = rbx;
	cpu->gpr[RAX] = VMCB;
	cpu->gpr[RDI] = X;
	cpu->gpr[RSI] = UPPER;
	if (!b->amd)
		assert_null(vmx_check_name(cpu));
	assert_int_equal(flat_run(b->f, 1000), CPU_EXIT_HLT);
	assert_false(cpu_guest(cpu));
	cpu->activity = ACTIVITY_RUN;
	cpu->virt->gif = true;
	return b->amd ? flat_peek(b->f, VMCB + 0x70, 8) : b->vmx.vmcs[VMCS_EXIT_REASON];
}

static uint64_t called(const struct bench *b)
{
	return b->amd ? 0x81 : 18;
}

/* The guest's code, with the call that leaves it. */
#define GUEST2(name, text)                       \
	GUEST(name##_vmx, 64, text "\n vmcall"); \
	GUEST(name##_svm, 64, text "\n vmmcall")
#define set(b, name)                                        \
	((b)->amd ? set_code(b, name##_svm, name##_svm_end) \
		  : set_code(b, name##_vmx, name##_vmx_end))

GUEST2(reads, "mov ecx, [rdi]\n mov edx, [rsi]");

static void set_code(struct bench *b, const uint8_t *code, const uint8_t *end)
{
	flat_write(b->f, L2_CODE, code, end - code);
}

/* The guest reads this page at both addresses. */
static void sees(struct bench *b, unsigned page)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		b->f->cpu->gpr[RCX] = b->f->cpu->gpr[RDX] = 0;
		assert_int_equal(enter(b), called(b));
		assert_int_equal((uint32_t)b->f->cpu->gpr[RCX], VALUE(page));
		assert_int_equal((uint32_t)b->f->cpu->gpr[RDX], VALUE(page));
	}
}

/* Host code to its HLT. */
static void host_runs(struct bench *b)
{
	assert_int_equal(flat_run(b->f, 1000), CPU_EXIT_HLT);
	b->f->cpu->activity = ACTIVITY_RUN;
}

GUEST(host_reads, 64, "mov ecx, [rdi]\n mov edx, [rsi]\n hlt");

static void host_sees(struct bench *b, unsigned page)
{
	struct cpu *cpu = b->f->cpu;

	for (unsigned i = 0; i < ROUNDS; i++) {
		load(b->f, host_reads);
		cpu->gpr[RDI] = X;
		cpu->gpr[RSI] = UPPER;
		host_runs(b);
		assert_int_equal((uint32_t)cpu->gpr[RCX], VALUE(page));
		assert_int_equal((uint32_t)cpu->gpr[RDX], VALUE(page));
	}
}

/* ---- flushes, as the host makes them ---- */

GUEST(does_invept, 64, "invept rax, [rcx]\n hlt");
GUEST(does_invvpid, 64, "invvpid rax, [rcx]\n hlt");
GUEST(does_invlpga, 64, "invlpga\n hlt");
GUEST(does_invlpg, 64, "invlpg [rdi]\n invlpg [rsi]\n hlt");

static void inv(struct bench *b, bool ept, uint64_t type, uint64_t first, uint64_t second)
{
	poke(b, DESC, first);
	poke(b, DESC + 8, second);
	if (ept)
		load(b->f, does_invept);
	else
		load(b->f, does_invvpid);
	b->f->cpu->gpr[RAX] = type;
	b->f->cpu->gpr[RCX] = DESC;
	host_runs(b);
	assert_false(cpu_rflags(b->f->cpu) & (FLAG_CF | FLAG_ZF));
}

static void invept_single(struct bench *b)
{
	inv(b, true, 1, SECOND(1) | 0x1e, 0);
}

static void invept_all(struct bench *b)
{
	inv(b, true, 2, 0, 0);
}

static void invvpid_pages(struct bench *b)
{
	inv(b, false, 0, 1, X);
	inv(b, false, 0, 1, UPPER);
}

static void invvpid_single(struct bench *b)
{
	inv(b, false, 1, 1, 0);
}

static void invvpid_all(struct bench *b)
{
	inv(b, false, 2, 0, 0);
}

static void invvpid_globals(struct bench *b)
{
	inv(b, false, 3, 1, 0);
}

static void invlpga(struct bench *b)
{
	for (unsigned i = 0; i < 2; i++) {
		load(b->f, does_invlpga);
		b->f->cpu->gpr[RAX] = i ? X : UPPER;
		b->f->cpu->gpr[RCX] = 1;
		host_runs(b);
	}
}

static void tlb_control(struct bench *b, unsigned val)
{
	vmcb_put(b, 0x5c, val, 1);
	enter(b);
	vmcb_put(b, 0x5c, 0, 1);
}

static void control_all(struct bench *b)
{
	tlb_control(b, 1);
}

static void control_asid(struct bench *b)
{
	tlb_control(b, 3);
}

static void control_locals(struct bench *b)
{
	tlb_control(b, 7);
}

static void new_asid(struct bench *b)
{
	b->id = 5;
}

static const struct flush {
	const char *name;
	bool amd;
	bool tables,
		second; /* what it is good for: changes of the guest's tables, of the second stage's */
	bool locals;	/* entries that are not global only */
	void (*make)(struct bench *b);
} flushes[] = {
	{"INVEPT, single", false, true, true, false, invept_single},
	{"INVEPT, all", false, true, true, false, invept_all},
	{"INVVPID, address", false, true, false, false, invvpid_pages},
	{"INVVPID, single", false, true, false, false, invvpid_single},
	{"INVVPID, all", false, true, false, false, invvpid_all},
	{"INVVPID, but globals", false, true, false, true, invvpid_globals},
	{"INVLPGA", true, true, true, false, invlpga},
	{"TLB_CONTROL, all", true, true, true, false, control_all},
	{"TLB_CONTROL, ASID", true, true, true, false, control_asid},
	{"TLB_CONTROL, but globals", true, true, true, true, control_locals},
	{"another ASID", true, true, true, false, new_asid},
};

/* What the guest's own tables say is seen behind each flush that is for them; global entries, too. */
static void flushes_of_tables(struct bench *b, const struct flush *flush, bool global, bool present)
{
	b->cr4 = global ? 0x80 : 0;
	b->second = flush->amd || !strstr(flush->name, "INVEPT") ? 0 : 1;
	set(b, reads);
	map(b, 1, 1, global ? 0x107 : 7);
	sees(b, 1);
	if (!present) {
		/* Another guest in between. */
		b->id = 2;
		b->root = 2;
		sees(b, 2);
		b->id = b->root = 1;
	}
	map(b, 1, 6, global ? 0x107 : 7);
	flush->make(b);
	sees(b, 6);
}

static void each_flush_of_tables(void **state)
{
	for (unsigned i = 0; i < 4 * ARRAY_SIZE(flushes); i++) {
		const struct flush *flush = &flushes[i / 4];
		struct bench *b;

		if (!flush->tables || (flush->locals && (i & 1)))
			continue;
		b = bench_open(flush->amd);
		flushes_of_tables(b, flush, i & 1, i & 2);
		bench_close(b);
	}
}

/* What the second stage says, for one page and for a whole 2 MiB. */
static void flushes_of_second(struct bench *b, const struct flush *flush, bool large, bool present)
{
	gpa_t table = SECOND(1) + 0x2000 + 8 * 4;

	b->second = 1;
	set(b, reads);
	sees(b, 1);
	if (!present) {
		b->id = 2;
		b->second = 2;
		sees(b, 1);
		b->id = b->second = 1;
	}
	if (large) {
		/* The whole of it from another place, where page 1 is another. */
		memcpy(b->f->ram + 0xa00000, b->f->ram + 0x800000, 0x200000);
		poke(b, 0xa00000 + (PAGES & 0x1fffff) + 0x1000, VALUE(9));
		poke(b, table, 0xa00000 | (b->amd ? 0x87 : 0xb7));
	} else {
		map_second(b, 1, 1, 9, 7);
	}
	flush->make(b);
	sees(b, 9);
}

static void each_flush_of_second(void **state)
{
	for (unsigned i = 0; i < 4 * ARRAY_SIZE(flushes); i++) {
		const struct flush *flush = &flushes[i / 4];
		struct bench *b;

		if (!flush->second)
			continue;
		b = bench_open(flush->amd);
		flushes_of_second(b, flush, i & 1, i & 2);
		bench_close(b);
	}
}

/* ---- no guest sees another's ---- */

static void apart(bool amd, unsigned second)
{
	struct bench *b = bench_open(amd);

	set(b, reads);
	for (unsigned i = 0; i < 4; i++) {
		host_sees(b, 0);
		b->id = b->root = 1;
		b->second = second;
		sees(b, 1);
		host_sees(b, 0);
		b->id = b->root = 2;
		sees(b, 2);
		/* By its number the first again, but its tables are other ones. */
		b->id = 1;
		b->root = 3;
		sees(b, 3);
		/* Six more than there is room for. */
		for (unsigned n = 0; n < 6; n++) {
			b->id = 10 + n;
			b->root = 1 + n % 3;
			sees(b, 1 + n % 3);
		}
	}
	bench_close(b);
}

static void worlds_are_apart(void **state)
{
	for (unsigned i = 0; i < 4; i++)
		apart(i & 1, i & 2 ? 1 : 0);
}

static void second_stages_are_apart(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct bench *b = bench_open(amd);

		set(b, reads);
		map_second(b, 2, 1, 7, 7);
		for (unsigned i = 0; i < 3; i++) {
			b->second = 1;
			sees(b, 1);
			b->second = 2;
			sees(b, 7);
			b->second = 0;
			sees(b, 1);
		}
		bench_close(b);
	}
}

/* Without VPID an entry flushes; the host's tables change with its own flush only. */
static void untagged(void **state)
{
	struct bench *b = bench_open(false);

	b->id = 0;
	for (unsigned second = 0; second < 2; second++) {
		b->second = second;
		set(b, reads);
		map(b, 1, 1, 7);
		sees(b, 1);
		map(b, 1, 4, 7);
		sees(b, 4);
		/* VPID 0 is the host's, too. */
		map(b, 0, 0, 7);
		host_sees(b, 0);
		map(b, 0, 5, 7);
		sees(b, 4);
		host_sees(b, 5);
	}
	bench_close(b);
}

/* ---- what the guest and the host flush for themselves ---- */

GUEST2(l2_invlpg, "mov [r8], rbx\n invlpg [rdi]\n invlpg [rsi]\n mov ecx, [rdi]\n mov edx, [rsi]");
GUEST2(l2_cr3, "mov [r8], rbx\n mov rax, cr3\n mov cr3, rax\n mov ecx, [rdi]\n mov edx, [rsi]");

/* INVLPG and MOV to CR3 are the guest's own here: no exit for them. */
static void guest_flushes(struct bench *b, bool cr3)
{
	struct cpu *cpu = b->f->cpu;

	for (unsigned i = 0; i < 6; i++) {
		set(b, reads);
		map(b, 0, 0, 7);
		host_sees(b, 0);
		if (cr3)
			set(b, l2_cr3);
		else
			set(b, l2_invlpg);
		cpu->gpr[R8] = TABLES(1) + 0x4000;
		cpu->gpr[RBX] = (PAGES + (i + 3) * 0x1000) | 7;
		assert_int_equal(enter(b), called(b));
		assert_int_equal((uint32_t)cpu->gpr[RCX], VALUE(i + 3));
		assert_int_equal((uint32_t)cpu->gpr[RDX], VALUE(i + 3));
		set(b, reads);
		sees(b, i + 3);
		host_sees(b, 0);
	}
}

static void guests_flush(void **state)
{
	for (unsigned i = 0; i < 8; i++) {
		struct bench *b = bench_open(i & 1);

		b->second = i & 2 ? 1 : 0;
		guest_flushes(b, i & 4);
		bench_close(b);
	}
}

/* INVLPG and MOV to CR3 of the host are for its own. */
static void host_flushes(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct bench *b = bench_open(amd);

		set(b, reads);
		for (unsigned i = 0; i < 4; i++) {
			map(b, 0, 4 + i, 7);
			load(b->f, does_invlpg);
			b->f->cpu->gpr[RDI] = X;
			b->f->cpu->gpr[RSI] = UPPER;
			host_runs(b);
			host_sees(b, 4 + i);
			sees(b, 1);
			host_sees(b, 4 + i);
		}
		bench_close(b);
	}
}

/* ---- write rights, code ---- */

GUEST2(writes, "inc dword ptr [rdi]");

/* The dirty log is told of each guest's first write after it was armed again, whoever ran last. */
static void dirty_log(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		struct bench *b = bench_open(i & 1);
		unsigned gfn = (PAGES + 0x1000) >> 12;

		b->second = i & 2 ? 1 : 0;
		set(b, writes);
		b->f->log = true;
		mmu_flush_all(b->f->cpu);
		for (unsigned n = 0; n < 4; n++) {
			b->f->marked[gfn] = 0;
			mmu_flush_writes(b->f->cpu);
			assert_int_equal(enter(b), called(b));
			assert_true(b->f->marked[gfn]);
			assert_int_equal(enter(b), called(b));
		}
		assert_int_equal(flat_peek(b->f, PAGES + 0x1000, 4), VALUE(1) + 8);
		bench_close(b);
	}
}

/* The second stage takes the right to write away, and a flush makes it known. */
static void write_protects(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct bench *b = bench_open(amd);

		b->second = 1;
		set(b, writes);
		for (unsigned n = 0; n < 3; n++) {
			assert_int_equal(enter(b), called(b));
			map_second(b, 1, 1, 1, 5);
			if (amd)
				vmcb_put(b, 0x5c, 3, 1);
			else
				invept_single(b);
			assert_int_equal(enter(b), amd ? 0x400 : 48);
			assert_int_equal(enter(b), amd ? 0x400 : 48);
			vmcb_put(b, 0x5c, 0, 1);
			/* Rights that are given need no flush. */
			map_second(b, 1, 1, 1, 7);
		}
		assert_int_equal(flat_peek(b->f, PAGES + 0x1000, 4), VALUE(1) + 3);
		bench_close(b);
	}
}

/* Of X alone: what else was cached may be as old as it likes, and is not the same in both tempos of lock-step. */
GUEST2(reads_x, "mov ecx, [rdi]");

/* What is refused is cached no more: the next access sees the tables as they are. */
static void refusals_flush(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct bench *b = bench_open(amd);

		b->second = 1;
		for (unsigned n = 0; n < 3; n++) {
			map_second(b, 1, 1, 2 + n, 5);
			set(b, writes);
			assert_int_equal(enter(b), amd ? 0x400 : 48);
			set(b, reads_x);
			assert_int_equal(enter(b), called(b));
			assert_int_equal((uint32_t)b->f->cpu->gpr[RCX], VALUE(2 + n));
		}
		bench_close(b);
	}
}

GUEST(host_writes, 64, "inc dword ptr [rdi]\n hlt");

static void page_faults_flush(void **state)
{
	struct bench *b = bench_open(false);
	struct cpu *cpu = b->f->cpu;

	flat_set_cr0(b->f, cpu->cr0 | CR0_WP);
	for (unsigned n = 0; n < 4; n++) {
		map(b, 0, 4 + n, 5);
		load(b->f, host_writes);
		cpu->gpr[RDI] = X;
		host_runs(b);
		assert_int_equal(flat_handler(b->f), VEC_PF);
		cpu->gpr[RSP] = FLAT_STACK;
		load(b->f, host_reads);
		cpu->gpr[RSI] = X;
		host_runs(b);
		assert_int_equal((uint32_t)cpu->gpr[RCX], VALUE(4 + n));
	}
	bench_close(b);
}

GUEST(host_patches, 64, "mov [rdi], bl\n hlt");
GUEST2(loads, "mov ecx, 0");

GUEST2(loops, "mov ecx, 200\n 1: add rbx, rcx\n mov [rdi], rbx\n dec ecx\n jnz 1b");

/* Lock-step holds run against step in guests, too, up to their exits. */
static void paired_in_lockstep(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct bench *b = bench_open(amd);
		struct cpu *cpu = b->f->cpu;
		const struct lockstep *ls;

		b->second = 1;
		set(b, loops);
		cpu->gpr[RBX] = 0;
		enter(b);
		ls = cpu->exec->run ? cpu->exec->run->lockstep : NULL;
		if (ls) {
			uint64_t before = ls->nr_paired;

			cpu->gpr[RBX] = 0;
			assert_int_equal(enter(b), called(b));
			assert_true(ls->nr_paired - before > 750);
			assert_false(ls->stopped);
			assert_int_equal(cpu->gpr[RBX], 20100);
		}
		bench_close(b);
	}
}

/* By the host's own store: nothing but the guest's code page tells of it. */
static void patched_code(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct bench *b = bench_open(amd);

		set(b, loads);
		for (unsigned n = 0; n < 12; n++) {
			load(b->f, host_patches);
			b->f->cpu->gpr[RDI] = L2_CODE + 1;
			b->f->cpu->gpr[RBX] = n;
			host_runs(b);
			for (unsigned i = 0; i < ROUNDS; i++) {
				assert_int_equal(enter(b), called(b));
				assert_int_equal((uint32_t)b->f->cpu->gpr[RCX], n);
			}
		}
		bench_close(b);
	}
}

/* ---- and that all this is worth it ---- */

static uint64_t fills(const struct bench *b)
{
	const struct tlb *tlb = b->f->cpu->tlb;

	return tlb->count.fills + (tlb->other ? tlb->other->count.fills : 0);
}

/* An exit and the entry behind it fill nothing again. */
static void entries_are_kept(void **state)
{
	const char *tempo = getenv("ANYKVM_TEMPO");

	if (getenv("ANYKVM_ONE_TLB") ||
	    (tempo && (strstr(tempo, "tlb2") || strstr(tempo, "lockstep"))))
		skip();
	for (unsigned i = 0; i < 4; i++) {
		struct bench *b = bench_open(i & 1);
		uint64_t before;

		b->second = i & 2 ? 1 : 0;
		set(b, reads);
		for (unsigned n = 0; n < 4; n++)
			sees(b, 1);
		before = fills(b);
		sees(b, 1);
		assert_int_equal(fills(b), before);
		bench_close(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_flush_of_tables),
		cmocka_unit_test(each_flush_of_second),
		cmocka_unit_test(worlds_are_apart),
		cmocka_unit_test(second_stages_are_apart),
		cmocka_unit_test(untagged),
		cmocka_unit_test(guests_flush),
		cmocka_unit_test(host_flushes),
		cmocka_unit_test(dirty_log),
		cmocka_unit_test(write_protects),

		cmocka_unit_test(refusals_flush),
		cmocka_unit_test(page_faults_flush),
		cmocka_unit_test(paired_in_lockstep),
		cmocka_unit_test(patched_code),
		cmocka_unit_test(entries_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
