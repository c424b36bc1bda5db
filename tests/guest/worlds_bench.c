/* SPDX-License-Identifier: MIT */
/* The machine, its tables, a VMCS or a VMCB that enters (worlds.h). Offsets and bits are the manuals' numbers. */
#include "worlds.h"

/* ---- tables ---- */

void bench_poke(struct bench *b, gpa_t gpa, uint64_t val)
{
	flat_poke(b->f, gpa, val, 8);
}

/* RAM as it is, and X and UPPER by one entry. */
static void make_tables(struct bench *b, unsigned n)
{
	gpa_t t = TABLES(n);

	bench_poke(b, t, (t + 0x1000) | 7);
	bench_poke(b, t + 256 * 8, (t + 0x1000) | 7);
	bench_poke(b, t + 0x1000, (t + 0x2000) | 7);
	bench_poke(b, t + 0x1008, (t + 0x3000) | 7);
	bench_poke(b, t + 0x3000, (t + 0x4000) | 7);
	for (unsigned i = 0; i < 8; i++)
		bench_poke(b, t + 0x2000 + 8 * i, i << 21 | 0x80 | 7);
}

void bench_map(struct bench *b, unsigned n, unsigned page, uint64_t bits)
{
	bench_poke(b, TABLES(n) + 0x4000, (PAGES + page * 0x1000) | bits);
}

static gpa_t second_entry(unsigned n, unsigned page)
{
	return SECOND(n) + 0x3000 + 8 * (((PAGES >> 12) + page) & 0x1ff);
}

void bench_map_second(struct bench *b, unsigned n, unsigned page, unsigned to, uint64_t bits)
{
	bench_poke(b, second_entry(n, page), (PAGES + to * 0x1000) | (b->amd ? 0 : 0x30) | bits);
}

/* All as it is, the pages of values by 4 KiB. */
static void make_second(struct bench *b, unsigned n)
{
	gpa_t t = SECOND(n);
	uint64_t leaf = b->amd ? 0x87 : 0xb7;

	bench_poke(b, t, (t + 0x1000) | 7);
	bench_poke(b, t + 0x1000, (t + 0x2000) | 7);
	for (unsigned i = 0; i < 8; i++)
		bench_poke(b, t + 0x2000 + 8 * i, i << 21 | leaf);
	bench_poke(b, t + 0x2000 + 8 * 4, (t + 0x3000) | 7);
	for (unsigned i = 0; i < 512; i++)
		bench_poke(b, t + 0x3000 + 8 * i, (0x800000 + i * 0x1000) | (b->amd ? 7 : 0x37));
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
					       true, true, true, true};
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

void bench_vmcb_put(struct bench *b, unsigned at, uint64_t val, unsigned size)
{
	flat_poke(b->f, VMCB + at, val, size);
}

static void vmcb_segment(struct bench *b, unsigned at, uint16_t sel, uint16_t attr)
{
	bench_vmcb_put(b, at, sel | (uint64_t)attr << 16 | 0xffffffffull << 32, 8);
	bench_vmcb_put(b, at + 8, 0, 8);
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
	bench_vmcb_put(b, 0x10, 3, 4); /* VMRUN and VMMCALL */
	bench_vmcb_put(b, 0x40, MAPS, 8);
	bench_vmcb_put(b, 0x48, MAPS + 0x10000, 8);
	vmcb_segment(b, 0x400, FLAT_DS32, 0xc93);
	vmcb_segment(b, 0x410, FLAT_CS64, 0xa9b);
	vmcb_segment(b, 0x420, FLAT_DS32, 0xc93);
	vmcb_segment(b, 0x430, FLAT_DS32, 0xc93);
	bench_vmcb_put(b, 0x4d0, cpu->msr.efer, 8);
	bench_vmcb_put(b, 0x558, cpu->cr0, 8);
	bench_vmcb_put(b, 0x560, 0x400, 8);
	bench_vmcb_put(b, 0x568, 0xffff0ff0, 8);
	bench_vmcb_put(b, 0x570, 2, 8);
}

/* ---- the machine ---- */

struct bench *bench_open(bool amd)
{
	struct bench *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	b->amd = amd;
	b->f = tempo_machine();
	b->id = b->root = 1;
	for (unsigned n = 0; n < 4; n++) {
		make_tables(b, n);
		bench_map(b, n, n, 7);
	}
	for (unsigned n = 1; n < 3; n++)
		make_second(b, n);
	for (unsigned n = 0; n < 16; n++)
		bench_poke(b, PAGES + n * 0x1000, VALUE(n));
	flat_set_cr3(b->f, TABLES(0));
	(amd ? svm_open : vmx_open)(b);
	return b;
}

void bench_close(struct bench *b)
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
		bench_vmcb_put(b, 0x58, b->id, 4);
		bench_vmcb_put(b, 0x90, !!second, 8);
		bench_vmcb_put(b, 0xb0, second, 8);
		bench_vmcb_put(b, 0x550, TABLES(b->root), 8);
		bench_vmcb_put(b, 0x548, cr4, 8);
		bench_vmcb_put(b, 0x578, L2_CODE, 8);
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
uint64_t bench_enter(struct bench *b)
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

uint64_t bench_called(const struct bench *b)
{
	return b->amd ? 0x81 : 18;
}

void bench_set_code(struct bench *b, const uint8_t *code, const uint8_t *end)
{
	flat_write(b->f, L2_CODE, code, end - code);
}

/* The guest reads this page at both addresses. */
void bench_sees(struct bench *b, unsigned page)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		b->f->cpu->gpr[RCX] = b->f->cpu->gpr[RDX] = 0;
		assert_int_equal(bench_enter(b), bench_called(b));
		assert_int_equal((uint32_t)b->f->cpu->gpr[RCX], VALUE(page));
		assert_int_equal((uint32_t)b->f->cpu->gpr[RDX], VALUE(page));
	}
}

/* Host code to its HLT. */
void bench_host_runs(struct bench *b)
{
	assert_int_equal(flat_run(b->f, 1000), CPU_EXIT_HLT);
	b->f->cpu->activity = ACTIVITY_RUN;
}

void bench_host_sees(struct bench *b, unsigned page)
{
	struct cpu *cpu = b->f->cpu;

	for (unsigned i = 0; i < ROUNDS; i++) {
		load(b->f, host_reads);
		cpu->gpr[RDI] = X;
		cpu->gpr[RSI] = UPPER;
		bench_host_runs(b);
		assert_int_equal((uint32_t)cpu->gpr[RCX], VALUE(page));
		assert_int_equal((uint32_t)cpu->gpr[RDX], VALUE(page));
	}
}

GUEST(does_invept, 64, "invept rax, [rcx]\n hlt");
GUEST(does_invvpid, 64, "invvpid rax, [rcx]\n hlt");

void bench_inv(struct bench *b, bool ept, uint64_t type, uint64_t first, uint64_t second)
{
	bench_poke(b, DESC, first);
	bench_poke(b, DESC + 8, second);
	if (ept)
		load(b->f, does_invept);
	else
		load(b->f, does_invvpid);
	b->f->cpu->gpr[RAX] = type;
	b->f->cpu->gpr[RCX] = DESC;
	bench_host_runs(b);
	assert_false(cpu_rflags(b->f->cpu) & (FLAG_CF | FLAG_ZF));
}
