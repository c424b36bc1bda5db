/* SPDX-License-Identifier: MIT */
/*
 * KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE for SVM (KVM api.rst, struct kvm_svm_nested_state_hdr): every field broken in
 * turn, with the errno that Linux 6.12's svm_set_nested_state() gives for it, and nothing changed: neither the state that
 * stood there, nor registers. Offsets in the VMCB are the APM's numbers.
 */
#include "nested_state.h"

#define VMCB	   0x3000ull
#define GUEST_MODE KVM_STATE_NESTED_GUEST_MODE
#define GIF	   KVM_STATE_NESTED_GIF_SET
#define SVME	   (1ull << 12)

/* Of the control area. */
#define MISC1	0x0c
#define MISC2	0x10
#define IOPM	0x40
#define MSRPM	0x48
#define ASID	0x58
#define INT_CTL 0x60
#define NESTED	0x90
#define NCR3	0xb0
/* Of the save area, where L1's registers stand. */
#define CS_ATTR 0x412
#define EFER	0x4d0
#define CR4	0x548
#define CR3	0x550
#define CR0	0x558
#define DR7	0x560
#define DR6	0x568
#define RFLAGS	0x570

static struct nested_state off(void)
{
	return (struct nested_state){.head.size = NESTED_HEAD, .head.format = 1, .head.flags = GIF};
}

static void put(struct nested_state *s, unsigned at, uint64_t val, unsigned size)
{
	memcpy(s->data + at, &val, size);
}

/* In guest mode; L1 is in protected mode with 32-bit paging. */
static struct nested_state on(void)
{
	struct nested_state s = off();

	s.head.size = NESTED_HEAD + 4096;
	s.head.flags = GIF | GUEST_MODE;
	s.head.hdr.svm.vmcb_pa = VMCB;
	put(&s, MISC2, 1, 4);
	put(&s, ASID, 1, 4);
	put(&s, IOPM, 0x4000, 8);
	put(&s, MSRPM, 0x8000, 8);
	put(&s, EFER, SVME, 8);
	put(&s, CR0, 0x80000011, 8);
	put(&s, CR3, 0x5000, 8);
	put(&s, DR6, 0xffff0ff0, 8);
	put(&s, DR7, 0x400, 8);
	put(&s, RFLAGS, 2, 8);
	return s;
}

/* L2 again: real mode, with EFER.SVME as VMRUN wants it. */
static void set_l2(int vcpu, uint64_t efer, uint64_t cr0)
{
	struct nested_state clean = off();
	struct kvm_sregs s;

	CHECK_EQ(nested_set(vcpu, &clean), 0);
	s = sregs_of(vcpu);
	s.efer = efer;
	s.cr0 = cr0;
	s.cr3 = 0;
	CHECK_EQ(ioctl(vcpu, KVM_SET_SREGS, &s), 0);
}

/* What stands there stays: guest mode with this VMCB, or without; and the registers. */
static void refused_from(int vcpu, const struct nested_state *before,
			 const struct nested_state *bad)
{
	struct kvm_sregs regs, now;
	struct nested_state was, is;

	set_l2(vcpu, SVME, 0x10);
	CHECK_EQ(nested_set(vcpu, before), 0);
	was = nested_get(vcpu);
	regs = sregs_of(vcpu);
	CHECK_ERR(nested_set(vcpu, bad), EINVAL);
	is = nested_get(vcpu);
	now = sregs_of(vcpu);
	CHECK_EQ(memcmp(&was, &is, sizeof(was)), 0);
	CHECK_EQ(memcmp(&regs, &now, sizeof(regs)), 0);
}

static void refused(int vcpu, const struct nested_state *bad)
{
	struct nested_state good = on(), clean = off();

	refused_from(vcpu, &good, bad);
	clean.head.flags = 0;
	refused_from(vcpu, &clean, bad);
}

#define REFUSED(vcpu, field, value)             \
	do {                                    \
		struct nested_state bad = on(); \
		bad.field = value;              \
		refused(vcpu, &bad);            \
	} while (0)

static void test_header(int vcpu)
{
	struct nested_state s = off();

	REFUSED(vcpu, head.size, NESTED_HEAD - 1);
	REFUSED(vcpu, head.size, NESTED_HEAD + 4095);
	REFUSED(vcpu, head.flags, GIF | GUEST_MODE | 0x8000);
	REFUSED(vcpu, head.flags, GIF | GUEST_MODE | KVM_STATE_NESTED_EVMCS);
	REFUSED(vcpu, head.flags, GIF | GUEST_MODE | KVM_STATE_NESTED_MTF_PENDING);
	REFUSED(vcpu, head.flags, GIF | KVM_STATE_NESTED_RUN_PENDING);
	REFUSED(vcpu, head.format, KVM_STATE_NESTED_FORMAT_VMX);
	REFUSED(vcpu, head.format, 2);
	REFUSED(vcpu, head.hdr.svm.vmcb_pa, VMCB + 8);
	REFUSED(vcpu, head.hdr.svm.vmcb_pa, 1ull << 52);
	s.head.flags |= KVM_STATE_NESTED_RUN_PENDING;
	refused(vcpu, &s);
}

static const struct {
	const char *what;
	uint16_t at;
	uint8_t size;
	uint64_t value;
} fields[] = {
	{"VMRUN not intercepted", MISC2, 4, 0},
	{"ASID", ASID, 4, 0},
	{"MSR map beyond memory", MSRPM, 8, 1ull << 52},
	{"I/O map beyond memory", IOPM, 8, 1ull << 52},
	{"virtual NMIs, real ones not intercepted", INT_CTL, 8, 1 << 26},
	{"EFER.SVME", EFER, 8, 0},
	{"EFER reserved", EFER, 8, SVME | 1ull << 40},
	{"CR0.NW without CD", CR0, 8, 0xa0000011},
	{"CR0 upper half", CR0, 8, 1ull << 32 | 0x80000011},
	{"CR0.PG", CR0, 8, 0x11},
	{"CR0.PE", CR0, 8, 0x80000010},
	{"CR4 reserved", CR4, 8, 1ull << 40},
	{"DR6 upper half", DR6, 8, 1ull << 32},
	{"DR7 upper half", DR7, 8, 1ull << 32},
	{"RFLAGS.VM", RFLAGS, 8, 1 << 17 | 2},
	{"EFER.LME without CR4.PAE", EFER, 8, SVME | 1 << 8},
};

static void test_vmcb(int vcpu)
{
	struct nested_state s;

	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		s = on();
		put(&s, fields[i].at, fields[i].value, fields[i].size);
		fprintf(stderr, "%s\n", fields[i].what);
		refused(vcpu, &s);
	}
	/* Two fields each. */
	s = on();
	put(&s, NESTED, 1, 8);
	put(&s, NCR3, 1ull << 52, 8);
	refused(vcpu, &s);
	s = on();
	put(&s, EFER, SVME | 0x500, 8);
	put(&s, CR4, 0x20, 8);
	put(&s, CR3, 1ull << 52, 8);
	refused(vcpu, &s);
	put(&s, CR3, 0x5000, 8);
	put(&s, CS_ATTR, 3 << 9, 2);
	refused(vcpu, &s);
}

/* The processor's own EFER.SVME counts, too; without it GIF is 1. */
static void test_registers(int vcpu)
{
	struct nested_state s = on(), clean = off();

	set_l2(vcpu, 0, 0x10);
	CHECK_ERR(nested_set(vcpu, &s), EINVAL);
	clean.head.flags = 0;
	CHECK_ERR(nested_set(vcpu, &clean), EINVAL);
	CHECK_EQ(nested_get(vcpu).head.flags, GIF);
}

static void test_copies(int vcpu)
{
	struct nested_state s = on(), small = {.head.size = NESTED_HEAD};
	uint8_t *pages =
		mmap(NULL, 0x4000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct nested_state *cut;

	CHECK(pages != MAP_FAILED);
	set_l2(vcpu, SVME, 0x10);
	CHECK_EQ(nested_set(vcpu, &s), 0);
	CHECK_ERR(ioctl(vcpu, KVM_GET_NESTED_STATE, &small), E2BIG);
	CHECK_EQ(small.head.size, NESTED_HEAD + 4096);
	CHECK_ERR(ioctl(vcpu, KVM_GET_NESTED_STATE, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(vcpu, KVM_SET_NESTED_STATE, BAD_POINTER), EFAULT);
	/* The VMCB's save area is not there. */
	cut = (struct nested_state *)(pages + 0x2000 - NESTED_HEAD - 0x400);
	CHECK_EQ(munmap(pages + 0x2000, 0x2000), 0);
	memcpy(cut, &s, NESTED_HEAD + 0x400);
	cut->head.hdr.svm.vmcb_pa = VMCB + 0x1000;
	CHECK_ERR(ioctl(vcpu, KVM_SET_NESTED_STATE, cut), EFAULT);
	CHECK_EQ(nested_get(vcpu).head.hdr.svm.vmcb_pa, VMCB);
	munmap(pages, 0x2000);
}

/* What is given is what is read again; an event that VMRUN was to inject has been injected. */
static void test_again(int vcpu)
{
	struct nested_state s = on(), read;

	put(&s, MISC1, 0x80000003, 4);
	put(&s, INT_CTL, 0x41ull << 32 | 1 << 24 | 1 << 20 | 1 << 8, 8);
	s.head.flags = GUEST_MODE;
	set_l2(vcpu, SVME, 0x10);
	CHECK_EQ(nested_set(vcpu, &s), 0);
	read = nested_get(vcpu);
	CHECK_EQ(read.head.size, NESTED_HEAD + 4096);
	CHECK_EQ(read.head.flags, GUEST_MODE);
	CHECK_EQ(read.head.format, 1);
	CHECK_EQ(read.head.hdr.svm.vmcb_pa, VMCB);
	CHECK_EQ(memcmp(read.data, s.data, 0xe0), 0);
	CHECK_EQ(memcmp(read.data + 0x400, s.data + 0x400, 0x248), 0);
	CHECK_EQ(nested_set(vcpu, &read), 0);
	/* Out of guest mode again: L1's registers are back. */
	s = off();
	CHECK_EQ(nested_set(vcpu, &s), 0);
	CHECK_EQ(nested_get(vcpu).head.flags, GIF);
	CHECK_EQ(sregs_of(vcpu).cr0, 0x80000011);
	CHECK_EQ(sregs_of(vcpu).cr3, 0x5000);
}

/* INIT waits while GIF is 0: behind STGI the processor starts at its reset vector, where nothing is. */
static void test_latched_init(void)
{
	struct machine m = machine_open();
	struct kvm_segment code = {.limit = ~0u, .type = 11, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_vcpu_events e;
	struct kvm_sregs s;
	struct kvm_regs regs;

	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	/* clgi; out %al,$0x80; stgi; out %al,$0x81 */
	MACHINE_CODE(&m, 0x0f, 0x01, 0xdd, 0xe6, 0x80, 0x0f, 0x01, 0xdc, 0xe6, 0x81);
	set_supported_cpuid(m.kvm, m.vcpu);
	s = sregs_of(m.vcpu);
	s.efer = SVME;
	s.cr0 |= 1;
	s.cs = code;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &s), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x80);
	CHECK_EQ(nested_get(m.vcpu).head.flags, 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	e.flags = KVM_VCPUEVENT_VALID_SMM;
	e.smi.latched_init = 1;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	RUN_TO(&m, KVM_EXIT_INTERNAL_ERROR);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_REGS, &regs), 0);
	CHECK_EQ(regs.rip, 0xfff0);
	CHECK_EQ(nested_get(m.vcpu).head.flags, GIF);
}

/* anykvm.report_missed_checks: a refused VMRUN is told, with the check's name and what stood there, if that is asked for. */
static void test_missed_checks(bool reported)
{
	struct machine m = machine_open();
	struct kvm_segment flat = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {.rip = CODE_GPA, .rax = VMCB, .rflags = 2};
	struct kvm_sregs s;
	char said[4096];
	int saved, file;

	m.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 0);
	CHECK(m.vcpu >= 0);
	m.run = map_run(m.kvm, m.vcpu);
	set_supported_cpuid(m.kvm, m.vcpu);
	memcpy(m.ram + CODE_GPA, "\x0f\x01\xd8\xe6\x80", 5); /* vmrun; out %al,$0x80 */
	memset(m.ram + VMCB, 0, 4096);
	m.ram[VMCB + MISC2] = 1; /* but ASID 0 */
	s = sregs_of(m.vcpu);
	s.cs = flat;
	flat.type = 3;
	flat.selector = 16;
	s.ds = s.es = s.ss = flat;
	s.cr0 = 0x11;
	s.efer = SVME;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &s), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	CHECK_EQ(msr_set(m.vcpu, 0xc0010117, 0x6000), 1); /* VM_HSAVE_PA */
	file = nested_listen(&saved);
	CHECK_EQ(ioctl(m.vcpu, KVM_RUN, 0), 0);
	nested_heard(file, saved, said);
	CHECK_EQ(m.run->exit_reason, KVM_EXIT_IO);
	CHECK_EQ(*(uint64_t *)(m.ram + VMCB + 0x70), ~0ull);
	CHECK_EQ(!!strstr(said, "VMRUN refused: ASID is 0 (0"), reported);
}

int main(int argc, char **argv)
{
	struct machine m = machine_open();
	struct nested_state s = on();

	m.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 0);
	CHECK(m.vcpu >= 0);
	CHECK_EQ(nested_get(m.vcpu).head.flags, GIF);
	/* EFER.SVME is 0. */
	CHECK_ERR(nested_set(m.vcpu, &s), EINVAL);
	set_supported_cpuid(m.kvm, m.vcpu);
	CHECK_ERR(nested_set(m.vcpu, &s), EINVAL);
	test_header(m.vcpu);
	test_vmcb(m.vcpu);
	test_registers(m.vcpu);
	test_copies(m.vcpu);
	test_again(m.vcpu);
	test_latched_init();
	test_missed_checks(argc > 1);
	return 0;
}
