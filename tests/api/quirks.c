/* SPDX-License-Identifier: MIT */
/*
 * KVM's quirks, with and without (KVM api.rst, KVM_CAP_DISABLE_QUIRKS2), also disabled when the vCPU is there already: where RIP
 * stands at an OUT and the quirk of port 7EH, LINT0 at reset, the local APIC's page in x2APIC mode, MONITOR's CPUID bit by
 * IA32_MISC_ENABLE. Other tests have the hypercall's patching (pv_kvm.c) and MWAIT's #UD (exits_disabled.c); of slots and
 * CR0.CD nothing shows.
 */
#include "pv.h"

#define LVT_LINT0	  0x350
#define MSR_MISC_ENABLE	  0x1a0
#define MISC_ENABLE_MWAIT (1u << 18)
#define CPUID_MONITOR	  (1u << 3)

static struct kvm_regs regs_of(const struct machine *m)
{
	struct kvm_regs regs;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	return regs;
}

static void finish(struct machine *m)
{
	m->run->immediate_exit = 1;
	CHECK_ERR(ioctl(m->vcpu, KVM_RUN, 0), EINTR);
	m->run->immediate_exit = 0;
}

/* Three times OUT; RIP shows it until the answer is there. */
static void test_out(void)
{
	struct machine m = machine_open();
	struct kvm_regs regs;

	MACHINE_CODE(&m, 0xe6, 0x80, 0xe6, 0x81, 0xe6, 0x82, 0xf4);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA);
	/* Written back as it was read, it stays where it is, and goes on behind. */
	regs = regs_of(&m);
	regs.rax = 0x55;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x81);
	CHECK_EQ(((uint8_t *)m.run)[m.run->io.data_offset], 0x55);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 2);
	finish(&m);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 4);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x82);
	/* Moved elsewhere, it stays there. */
	regs.rip = CODE_GPA + 2;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	finish(&m);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 2);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x81);
}

/* A string instruction has retired at its exit. */
static void test_outs(void)
{
	struct machine m = machine_open();

	MACHINE_CODE(&m, 0x6e, 0xf4);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 1);
}

static void test_7e(void)
{
	struct machine m = machine_open();

	CHECK(ioctl(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2) &
	      KVM_X86_QUIRK_OUT_7E_INC_RIP);
	MACHINE_CODE(&m, 0xe6, 0x7e, 0xe6, 0x7e, 0xe6, 0x7e, 0xf4);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 2);
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_OUT_7E_INC_RIP), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 2);
	finish(&m);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 4);
	/* Refused as a whole: what was disabled stays so. */
	CHECK_ERR(enable_cap(m.vm, KVM_CAP_DISABLE_QUIRKS2, 1ull << 40), EINVAL);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(regs_of(&m).rip, CODE_GPA + 4);
}

static void disable(const struct machine *m, uint64_t quirk)
{
	CHECK(ioctl(m->vm, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2) & quirk);
	CHECK_EQ(enable_cap(m->vm, KVM_CAP_DISABLE_QUIRKS2, quirk), 0);
}

/* The register of a BSP behind an INIT, which a device's message brings. */
static uint32_t lint0_behind_init(const struct machine *m)
{
	struct kvm_msi init = {.address_lo = 0xfee00000, .data = 0x500};
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp;
	uint32_t lint0;

	CHECK_EQ(ioctl(m->vm, KVM_SIGNAL_MSI, &init), 1);
	/* It is taken before the state is told. */
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_MP_STATE, &mp), 0);
	CHECK_EQ(mp.mp_state, KVM_MP_STATE_RUNNABLE);
	CHECK_EQ(get_regs(m).rip, 0xfff0);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_LAPIC, &lapic), 0);
	memcpy(&lint0, lapic.regs + LVT_LINT0, sizeof(lint0));
	return lint0;
}

static void test_lint0(void)
{
	struct machine m = machine_irqchip();

	MACHINE_CODE(&m, 0xf4);
	CHECK_EQ(lint0_behind_init(&m), 0x700);
	disable(&m, KVM_X86_QUIRK_LINT0_REENABLED);
	CHECK_EQ(lint0_behind_init(&m), 0x10000);
}

/* mov 0xfee00030,%eax; out %al,$0x80; mov %eax,0xfee00080; out %al,$0x81 */
static void test_mmio_hole(void)
{
	static const uint8_t code[] = {0xa1, 0x30, 0x00, 0xe0, 0xfe, 0xe6, 0x80,
				       0xa3, 0x80, 0x00, 0xe0, 0xfe, 0xe6, 0x81};
	struct machine m = machine_irqchip();
	struct kvm_regs regs;
	struct kvm_sregs s;

	machine_code(&m, code, sizeof(code));
	set_supported_cpuid(m.kvm, m.vcpu);
	machine_protect(&m);
	regs = get_regs(&m);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_SREGS, &s), 0);
	s.apic_base |= 0xc00;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &s), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ((uint32_t)get_regs(&m).rax, 0xffffffff);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x81);
	disable(&m, KVM_X86_QUIRK_LAPIC_MMIO_HOLE);
	finish(&m);
	restart(&m, &regs);
	RUN_TO(&m, KVM_EXIT_MMIO);
	CHECK_EQ(m.run->mmio.phys_addr, 0xfee00030);
	CHECK(!m.run->mmio.is_write);
	RUN_TO(&m, KVM_EXIT_IO);
	RUN_TO(&m, KVM_EXIT_MMIO);
	CHECK_EQ(m.run->mmio.phys_addr, 0xfee00080);
	CHECK(m.run->mmio.is_write);
}

static void set_leaf1_ecx(const struct machine *m, uint32_t ecx)
{
	struct kvm_cpuid_entry2 leaf = {.function = 1, .ecx = ecx};

	set_leaves(m->vcpu, &leaf, 1);
}

static bool has_monitor(const struct machine *m)
{
	struct cpuid_list c = {.head.nent = CPUID_ENTRIES};

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_CPUID2, &c), 0);
	CHECK_EQ(c.v[0].function, 1);
	return c.v[0].ecx & CPUID_MONITOR;
}

static void test_misc_enable(void)
{
	const uint32_t sse3 = 1;
	struct machine m = machine_open();
	uint64_t off;

	MACHINE_CODE(&m, 0xf4);
	set_leaf1_ecx(&m, sse3);
	off = msr_get(m.vcpu, MSR_MISC_ENABLE) & ~(uint64_t)MISC_ENABLE_MWAIT;
	msr_round_trip(m.vcpu, MSR_MISC_ENABLE, off | MISC_ENABLE_MWAIT);
	CHECK(!has_monitor(&m));
	msr_round_trip(m.vcpu, MSR_MISC_ENABLE, off);
	disable(&m, KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT);
	msr_round_trip(m.vcpu, MSR_MISC_ENABLE, off | MISC_ENABLE_MWAIT);
	CHECK(has_monitor(&m));
	msr_round_trip(m.vcpu, MSR_MISC_ENABLE, off);
	CHECK(!has_monitor(&m));
	/* Without SSE3 the bit stays as it is. */
	set_leaf1_ecx(&m, 0);
	msr_keeps(m.vcpu, MSR_MISC_ENABLE, off, off | MISC_ENABLE_MWAIT);
	CHECK(!has_monitor(&m));
}

int main(void)
{
	test_out();
	test_outs();
	test_7e();
	test_lint0();
	test_mmio_hole();
	test_misc_enable();
	return 0;
}
