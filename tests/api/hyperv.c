/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V's guest interface (the TLFS; KVM api.rst): CPUID, capabilities, MSRs and their saved state, the synthetic
 * interrupt controller and timers, hypercalls to user space and to eventfds, and what each refuses.
 */
#include "pv.h"

#include <sys/eventfd.h>

#define MSR_OS_ID	   0x40000000
#define MSR_HYPERCALL	   0x40000001
#define MSR_VP_INDEX	   0x40000002
#define MSR_RESET	   0x40000003
#define MSR_TIME_REF	   0x40000020
#define MSR_ASSIST	   0x40000073
#define MSR_SCONTROL	   0x40000080
#define MSR_SIEFP	   0x40000082
#define MSR_SIMP	   0x40000083
#define MSR_EOM		   0x40000084
#define MSR_SINT(n)	   (0x40000090 + (n))
#define MSR_STIMER0_CONFIG 0x400000b0
#define MSR_STIMER0_COUNT  0x400000b1
#define MSR_CRASH_CTL	   0x40000105
#define MSR_INVTSC	   0x40000118

#define PAGE_GPA 0x3000

/* What Linux lists in KVM_GET_MSR_INDEX_LIST. */
static const uint32_t listed[] = {
	0x40000000, 0x40000001, 0x40000002, 0x40000003, 0x40000010, 0x40000020, 0x40000021,
	0x40000022, 0x40000023, 0x40000073, 0x40000080, 0x400000b0, 0x400000f1, 0x400000f2,
	0x400000f3, 0x400000f4, 0x400000f5, 0x400000ff, 0x40000100, 0x40000101, 0x40000102,
	0x40000103, 0x40000104, 0x40000105, 0x40000106, 0x40000107, 0x40000108, 0x40000118,
};

struct hv_list {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 v[16];
};

static struct hv_list supported(int fd)
{
	struct hv_list l = {.head.nent = 16};

	CHECK_EQ(ioctl(fd, KVM_GET_SUPPORTED_HV_CPUID, &l), 0);
	CHECK_EQ(l.head.nent, 10);
	CHECK_EQ(l.v[0].function, 0x40000000);
	CHECK_EQ(l.v[0].eax, 0x40000082);
	CHECK_EQ(l.v[1].eax, 0x31237648);
	CHECK(!memcmp(&l.v[0].ebx, "Linux KVM Hv", 12));
	return l;
}

static void test_cpuid(void)
{
	struct machine m = machine_open();
	struct hv_list l = {.head.nent = 9};

	CHECK_ERR(ioctl(m.kvm, KVM_GET_SUPPORTED_HV_CPUID, &l), E2BIG);
	CHECK_EQ(l.head.nent, 9);
	CHECK_ERR(ioctl(m.kvm, KVM_GET_SUPPORTED_HV_CPUID, BAD_POINTER), EFAULT);
	MACHINE_CODE(&m, 0xf4);
	/* Direct timers and IPIs need a local APIC here. */
	CHECK(supported(m.kvm).v[3].edx & 1 << 19);
	CHECK(!(supported(m.vcpu).v[3].edx & 1 << 19));
	CHECK(supported(m.kvm).v[4].eax & 1 << 10);
	CHECK(!(supported(m.vcpu).v[4].eax & 1 << 10));
}

static void test_caps(void)
{
	struct machine m = machine_open();
	struct kvm_enable_cap cap = {.cap = KVM_CAP_HYPERV_ENFORCE_CPUID, .flags = 1};

	MACHINE_CODE(&m, 0xf4);
	CHECK_ERR(enable_cap(m.vcpu, KVM_CAP_HYPERV_SYNIC, 0), EINVAL);
	CHECK_ERR(enable_cap(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0), EINVAL);
	CHECK_ERR(ioctl(m.vcpu, KVM_ENABLE_CAP, &cap), EINVAL);
	CHECK_EQ(enable_cap(m.vcpu, KVM_CAP_HYPERV_ENFORCE_CPUID, 0), 0);
	m = machine_irqchip();
	MACHINE_CODE(&m, 0xf4);
	CHECK_ERR(enable_cap(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 1), EINVAL);
	CHECK_EQ(msr_get(m.vcpu, MSR_SCONTROL), 0);
	CHECK_EQ(enable_cap(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0), 0);
	CHECK_EQ(msr_get(m.vcpu, MSR_SCONTROL), 1);
}

/* ---- MSRs ---- */

static void test_partition_msrs(const struct machine *m)
{
	/* Without an operating system there is no hypercall page. */
	CHECK_EQ(msr_set(m->vcpu, MSR_HYPERCALL, PAGE_GPA | 1), 1);
	CHECK_EQ(msr_get(m->vcpu, MSR_HYPERCALL), 0);
	msr_round_trip(m->vcpu, MSR_OS_ID, 0x8100000000000000);
	msr_round_trip(m->vcpu, MSR_HYPERCALL, PAGE_GPA | 1);
	CHECK_EQ(m->ram[PAGE_GPA], 0x0f);
	CHECK_EQ(m->ram[PAGE_GPA + 1], 0x01);
	CHECK_EQ(m->ram[PAGE_GPA + 3], 0xc3);
	CHECK_EQ(msr_set(m->vcpu, MSR_HYPERCALL, 0x7fff0001), 0);
	CHECK_EQ(msr_get(m->vcpu, MSR_HYPERCALL), PAGE_GPA | 1);
	CHECK_EQ(msr_set(m->vcpu, MSR_OS_ID, 0), 1);
	CHECK_EQ(msr_get(m->vcpu, MSR_HYPERCALL), PAGE_GPA);
	for (uint32_t i = 0x40000100; i <= 0x40000104; i++)
		msr_round_trip(m->vcpu, i, i * 0x100000001ull);
	CHECK_EQ(msr_set(m->vcpu, MSR_CRASH_CTL, ~0ull), 1);
	CHECK_EQ(msr_get(m->vcpu, MSR_CRASH_CTL), 1ull << 63);
	for (uint32_t i = 0x40000106; i <= 0x40000108; i++)
		msr_round_trip(m->vcpu, i, i);
	for (uint32_t i = 0x400000f1; i <= 0x400000f5; i++)
		msr_round_trip(m->vcpu, i, i << 8);
	msr_round_trip(m->vcpu, 0x400000ff, 4);
	msr_round_trip(m->vcpu, 0x40000021, 0x8000);
	msr_keeps(m->vcpu, MSR_INVTSC, 1, 2);
	CHECK_EQ(msr_get(m->vcpu, MSR_RESET), 0);
	CHECK(msr_get(m->vcpu, 0x40000022) > 1000000);
	CHECK_EQ(msr_get(m->vcpu, 0x40000023), 1000000000);
	CHECK_EQ(msr_set(m->vcpu, 0x40000023, 5), 1); /* read-only: ignored */
	CHECK_EQ(msr_get(m->vcpu, 0x40000023), 1000000000);
	CHECK_EQ(msr_set(m->vcpu, MSR_TIME_REF, 0), 1);
}

static void test_vcpu_msrs(const struct machine *m)
{
	msr_keeps(m->vcpu, MSR_VP_INDEX, 5, 1024);
	msr_keeps(m->vcpu, MSR_ASSIST, PAGE_GPA | 1, 0x7fff0001);
	CHECK_EQ(msr_set(m->vcpu, MSR_ASSIST, 0), 1);
	CHECK_EQ(msr_set(m->vcpu, 0x40000010, 1ull << 40), 1);
	CHECK(msr_get(m->vcpu, 0x40000010) >= 1ull << 40);
	CHECK(!msr_readable(m->vcpu, 0x40000004));
	CHECK(!msr_readable(m->vcpu, 0x40000070)); /* EOI is for writing */
	/* The SynIC is off: its registers take nothing but 0. */
	CHECK_EQ(msr_set(m->vcpu, MSR_SIMP, PAGE_GPA | 1), 0);
	CHECK_EQ(msr_set(m->vcpu, MSR_SIMP, 0), 1);
	CHECK_EQ(msr_set(m->vcpu, MSR_STIMER0_COUNT, 1), 0);
	CHECK_EQ(msr_set(m->vcpu, MSR_STIMER0_COUNT, 0), 1);
	CHECK_EQ(msr_get(m->vcpu, MSR_SINT(3)), 1 << 16);
	CHECK_EQ(enable_cap(m->vcpu, KVM_CAP_HYPERV_SYNIC, 0), 0);
	msr_round_trip(m->vcpu, MSR_SIMP, 0x4001);
	msr_round_trip(m->vcpu, MSR_SIEFP, 0x5001);
	msr_round_trip(m->vcpu, 0x40000081, 1);
	for (unsigned i = 0; i < 16; i++)
		msr_round_trip(m->vcpu, MSR_SINT(i), 0x20000 | (0x30 + i));
	for (unsigned i = 0; i < 8; i += 2) {
		msr_round_trip(m->vcpu, MSR_STIMER0_COUNT + i, ~0ull);
		msr_round_trip(m->vcpu, MSR_STIMER0_CONFIG + i, 1 | 1 << 12 | 0x40 << 4);
	}
}

static void test_msrs(void)
{
	struct machine m = machine_irqchip();

	for (unsigned i = 0; i < sizeof(listed) / sizeof(listed[0]); i++)
		CHECK(msr_listed(m.kvm, listed[i]));
	CHECK(!msr_listed(m.kvm, MSR_SINT(0)));
	CHECK(!msr_listed(m.kvm, MSR_STIMER0_COUNT));
	MACHINE_CODE(&m, 0xf4);
	test_partition_msrs(&m);
	test_vcpu_msrs(&m);
}

/* A guest whose CPUID has no Hyper-V gets #GP, not "unknown". */
static void test_guest_denied(void)
{
	struct machine m = machine_irqchip();

	CHECK_EQ(enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_INVAL), 0);
	/* mov $MSR_OS_ID,%ecx; rdmsr */
	MACHINE_CODE(&m, 0x66, 0xb9, 0x00, 0x00, 0x00, 0x40, 0x0f, 0x32, 0xf4);
	RUN_TO(&m, KVM_EXIT_X86_RDMSR);
	CHECK_EQ(m.run->msr.reason, KVM_MSR_EXIT_REASON_INVAL);
}

/* mov $msr,%ecx; mov $low,%eax; cdq; wrmsr; out %al,$0x80 */
#define WRITE(msr, low)                                                                            \
	0x66, 0xb9, (uint8_t)(msr), (uint8_t)((msr) >> 8), 0x00, 0x40, 0x66, 0xb8, (uint8_t)(low), \
		(uint8_t)((low) >> 8), 0, (uint8_t)((low) >> 24), 0x66, 0x99, 0x0f, 0x30, 0xe6,    \
		0x80

static void enlighten(const struct machine *m)
{
	struct hv_list l = supported(m->vcpu);

	set_leaves(m->vcpu, l.v, l.head.nent);
}

static void test_guest_writes(void)
{
	struct machine m = machine_irqchip();

	memset(m.ram + PAGE_GPA, 0xff, 0x1000);
	MACHINE_CODE(&m, WRITE(0x83, PAGE_GPA | 1), WRITE(0x03, 1), WRITE(0x105, 0x80000000u));
	enlighten(&m);
	CHECK_EQ(enable_cap(m.vcpu, KVM_CAP_HYPERV_SYNIC, 0), 0);
	RUN_TO(&m, KVM_EXIT_HYPERV);
	CHECK_EQ(m.run->hyperv.type, KVM_EXIT_HYPERV_SYNIC);
	CHECK_EQ(m.run->hyperv.u.synic.msr, MSR_SIMP);
	CHECK_EQ(m.run->hyperv.u.synic.control, 1);
	CHECK_EQ(m.run->hyperv.u.synic.msg_page, PAGE_GPA | 1);
	CHECK_EQ(ram64(&m, PAGE_GPA), 0); /* cleared, without SYNIC2 */
	RUN_TO(&m, KVM_EXIT_IO);
	RUN_TO(&m, KVM_EXIT_SYSTEM_EVENT);
	CHECK_EQ(m.run->system_event.type, KVM_SYSTEM_EVENT_RESET);
	RUN_TO(&m, KVM_EXIT_IO);
	RUN_TO(&m, KVM_EXIT_SYSTEM_EVENT);
	CHECK_EQ(m.run->system_event.type, KVM_SYSTEM_EVENT_CRASH);
}

/* ---- timers ---- */

static void test_direct_timer(void)
{
	struct machine m = machine_irqchip();

	machine_waiting(&m, 0x40);
	CHECK_EQ(enable_cap(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_STIMER0_COUNT, msr_get(m.vcpu, MSR_TIME_REF) + 50000), 1);
	CHECK_EQ(msr_set(m.vcpu, MSR_STIMER0_CONFIG, 1 | 1 << 12 | 0x40 << 4), 1);
	INTERRUPTED(&m);
	CHECK(in_service(&m, 0x40));
	CHECK_EQ(msr_get(m.vcpu, MSR_STIMER0_CONFIG) & 1, 0); /* one-shot */
}

static void test_message_timer(void)
{
	struct machine m = machine_irqchip();
	const unsigned slot = PAGE_GPA + 2 * 256;
	uint64_t when;

	machine_waiting(&m, 0x41);
	memset(m.ram + PAGE_GPA, 0, 0x1000);
	CHECK_EQ(enable_cap(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_SIMP, PAGE_GPA | 1), 1);
	CHECK_EQ(msr_set(m.vcpu, MSR_SINT(2), 0x41), 1);
	when = msr_get(m.vcpu, MSR_TIME_REF) + 50000;
	CHECK_EQ(msr_set(m.vcpu, MSR_STIMER0_COUNT + 2, when), 1);
	CHECK_EQ(msr_set(m.vcpu, MSR_STIMER0_CONFIG + 2, 1 | 2 << 16), 1);
	INTERRUPTED(&m);
	CHECK_EQ(ram32(&m, slot), 0x80000010);
	CHECK_EQ(m.ram[slot + 4], 24);
	CHECK_EQ(ram32(&m, slot + 16), 1); /* timer */
	CHECK_EQ(ram64(&m, slot + 24), when);
	CHECK(ram64(&m, slot + 32) >= when);
}

/* ---- hypercalls ---- */

/* The instruction of the hypercall page, in 32-bit code: vmcall; out %al,$0x80; hlt */
static struct machine machine_calling(bool synic)
{
	struct machine m = machine_irqchip();

	MACHINE_CODE(&m, 0x0f, 0x01, 0xc1, 0xe6, 0x80, 0xf4);
	enlighten(&m);
	if (synic)
		CHECK_EQ(enable_cap(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_OS_ID, 1), 1);
	CHECK_EQ(msr_set(m.vcpu, MSR_HYPERCALL, PAGE_GPA | 1), 1);
	memcpy(m.ram + CODE_GPA, m.ram + PAGE_GPA, 3);
	machine_protect(&m);
	return m;
}

static uint64_t status_of(struct machine *m, uint64_t param, uint64_t in)
{
	struct kvm_regs regs = {
		.rax = (uint32_t)param, .rdx = param >> 32, .rcx = (uint32_t)in, .rbx = in >> 32};

	restart(m, &regs);
	RUN_TO(m, KVM_EXIT_IO);
	regs = get_regs(m);
	return regs.rdx << 32 | regs.rax;
}

static void test_post_message(void)
{
	struct machine m = machine_calling(true);
	struct kvm_regs regs = {.rax = 0x5c, .rcx = 0x1234, .rsi = 0x5678};

	restart(&m, &regs);
	RUN_TO(&m, KVM_EXIT_HYPERV);
	CHECK_EQ(m.run->hyperv.type, KVM_EXIT_HYPERV_HCALL);
	CHECK_EQ(m.run->hyperv.u.hcall.input, 0x5c);
	CHECK_EQ(m.run->hyperv.u.hcall.params[0], 0x1234);
	CHECK_EQ(m.run->hyperv.u.hcall.params[1], 0x5678);
	CHECK_EQ(get_regs(&m).rip, CODE_GPA);
	m.run->hyperv.u.hcall.result = 0x1122334455667788;
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(get_regs(&m).rax, 0x55667788);
	CHECK_EQ(get_regs(&m).rdx, 0x11223344);
}

static void test_statuses(void)
{
	struct machine m = machine_calling(false);
	const uint64_t fast = 1 << 16;

	CHECK_EQ(status_of(&m, 0xbeef, 0), 2);
	CHECK_EQ(status_of(&m, 0x5c, 0), 3);		      /* nobody takes messages */
	CHECK_EQ(status_of(&m, 0x5d, 4), 4);		      /* alignment */
	CHECK_EQ(status_of(&m, 0x5d | fast, 0x100000000), 3); /* flag number: no such port */
	CHECK_EQ(status_of(&m, 0x5d | fast, 0x1000000), 3);   /* reserved bits */
	CHECK_EQ(status_of(&m, 8 | 1ull << 32, 0), 3);	      /* not a repeated call */
	CHECK_EQ(status_of(&m, 8 | 1ull << 27, 0), 3);	      /* reserved bit of the input */
	CHECK_EQ(status_of(&m, 8, 0), 0);
	CHECK_EQ(status_of(&m, 0x8001 | fast, 0), 5);
	CHECK_EQ(status_of(&m, 0x6b, 0), 8);
	CHECK_EQ(status_of(&m, 0x2, 0x7fff0000), 3);
	CHECK_EQ(status_of(&m, 0xb | fast, 0x5), 3); /* vector */
	CHECK_EQ(status_of(&m, 0xb | fast, 0x50), 0);
	CHECK_EQ(status_of(&m, 3 | 2ull << 32, PAGE_GPA + 0x800), 2ull << 32);
}

/* In real mode there are no hypercalls: #UD. */
static void test_real_mode(void)
{
	struct machine m = machine_calling(false);
	static const uint8_t handler[] = {0xe6, 0x81};
	const uint32_t entry = HANDLER_GPA;
	struct kvm_regs regs = {.rax = 8};
	struct kvm_sregs sregs;

	memcpy(m.ram + HANDLER_GPA, handler, sizeof(handler));
	memcpy(m.ram + 4 * 6, &entry, sizeof(entry));
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.cr0 &= ~1ull;
	sregs.cs.selector = 0;
	sregs.cs.db = sregs.ss.db = 0;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &sregs), 0);
	restart(&m, &regs);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x81);
}

static int connect(int vm, uint32_t id, int fd, uint32_t flags)
{
	struct kvm_hyperv_eventfd args = {.conn_id = id, .fd = fd, .flags = flags};

	return ioctl(vm, KVM_HYPERV_EVENTFD, &args);
}

static void test_signal(void)
{
	struct machine m = machine_calling(true);
	int event = eventfd(0, EFD_NONBLOCK);
	struct kvm_regs regs = {.rax = 0x5d | 1 << 16, .rcx = 9};
	uint64_t count;

	CHECK_ERR(connect(m.vm, 7, event, 2), EINVAL);
	CHECK_ERR(connect(m.vm, 1 << 24, event, 0), EINVAL);
	CHECK_ERR(connect(m.vm, 7, -1, 0), EBADF);
	CHECK_ERR(connect(m.vm, 7, m.kvm, 0), EINVAL);
	CHECK_ERR(connect(m.vm, 7, event, KVM_HYPERV_EVENTFD_DEASSIGN), ENOENT);
	CHECK_ERR(ioctl(m.vm, KVM_HYPERV_EVENTFD, BAD_POINTER), EFAULT);
	CHECK_EQ(connect(m.vm, 7, event, 0), 0);
	CHECK_ERR(connect(m.vm, 7, event, 0), EEXIST);
	CHECK_EQ(status_of(&m, 0x5d | 1 << 16, 7), 0);
	CHECK_EQ(read(event, &count, sizeof(count)), 8);
	CHECK_EQ(count, 1);
	/* A port that is not connected is user space's. */
	restart(&m, &regs);
	RUN_TO(&m, KVM_EXIT_HYPERV);
	CHECK_EQ(m.run->hyperv.u.hcall.params[0], 9);
	m.run->hyperv.u.hcall.result = 17;
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(connect(m.vm, 7, -1, KVM_HYPERV_EVENTFD_DEASSIGN), 0);
}

/* A synthetic interrupt by GSI routing. */
static void test_sint_route(void)
{
	struct machine m = machine_irqchip();
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry v[1];
	} r = {.head.nr = 1, .v[0] = {.gsi = 30, .type = KVM_IRQ_ROUTING_HV_SINT}};
	struct kvm_irq_level line = {.irq = 30, .level = 1};

	r.v[0].u.hv_sint.vcpu = 0;
	r.v[0].u.hv_sint.sint = 4;
	r.v[0].flags = 1;
	CHECK_ERR(ioctl(m.vm, KVM_SET_GSI_ROUTING, &r), EINVAL);
	r.v[0].flags = 0;
	CHECK_EQ(ioctl(m.vm, KVM_SET_GSI_ROUTING, &r), 0);
	machine_waiting(&m, 0x44);
	CHECK_EQ(ioctl(m.vm, KVM_IRQ_LINE_STATUS, &line), 0);
	CHECK(line.status < 0);
	CHECK_EQ(enable_cap(m.vcpu, KVM_CAP_HYPERV_SYNIC2, 0), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_SINT(4), 0x44 | 1 << 17), 1);
	line = (struct kvm_irq_level){.irq = 30, .level = 1};
	CHECK_EQ(ioctl(m.vm, KVM_IRQ_LINE_STATUS, &line), 0);
	CHECK_EQ(line.status, 1);
	INTERRUPTED(&m);
	CHECK(!in_service(&m, 0x44)); /* auto-EOI */
}

int main(void)
{
	test_cpuid();
	test_caps();
	test_msrs();
	test_guest_denied();
	test_guest_writes();
	test_direct_timer();
	test_message_timer();
	test_post_message();
	test_statuses();
	test_real_mode();
	test_signal();
	test_sint_route();
	return 0;
}
