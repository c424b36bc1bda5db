/* SPDX-License-Identifier: MIT */
/*
 * KVM's own guest interface (Linux's Documentation/virt/kvm/x86: msr.rst, hypercalls.rst, cpuid.rst): MSRs and what they
 * refuse, PV EOI, the page-ready event, hypercalls and their patching.
 */
#include "pv.h"

#include <linux/kvm_para.h>

#define PAGE_GPA 0x3000

static void test_listed(int kvm)
{
	for (uint32_t i = MSR_KVM_WALL_CLOCK_NEW; i <= MSR_KVM_ASYNC_PF_ACK; i++)
		CHECK(msr_listed(kvm, i));
	CHECK(!msr_listed(kvm, MSR_KVM_MIGRATION_CONTROL));
}

static void test_msrs(void)
{
	struct machine m = machine_irqchip();

	test_listed(m.kvm);
	MACHINE_CODE(&m, 0xf4);
	msr_keeps(m.vcpu, MSR_KVM_POLL_CONTROL, 0, 2);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_POLL_CONTROL, 1), 1);
	msr_keeps(m.vcpu, MSR_KVM_STEAL_TIME, PAGE_GPA | 1, PAGE_GPA | 0x21);
	msr_keeps(m.vcpu, MSR_KVM_PV_EOI_EN, PAGE_GPA | 1, PAGE_GPA | 3);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_PV_EOI_EN, 0x7fff0001), 0);
	CHECK_EQ(msr_get(m.vcpu, MSR_KVM_PV_EOI_EN), PAGE_GPA | 1);
	msr_keeps(m.vcpu, MSR_KVM_ASYNC_PF_EN, PAGE_GPA | 9, PAGE_GPA | 0x19);
	msr_keeps(m.vcpu, MSR_KVM_ASYNC_PF_INT, 0x50, 0x150);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_ASYNC_PF_ACK, 1), 1);
	CHECK_EQ(msr_get(m.vcpu, MSR_KVM_ASYNC_PF_ACK), 0);
	CHECK(!msr_readable(m.vcpu, MSR_KVM_MIGRATION_CONTROL));
}

/* Without a local APIC nobody could be told. */
static void test_no_irqchip(void)
{
	struct machine m = machine_open();

	MACHINE_CODE(&m, 0xf4);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_ASYNC_PF_EN, 0), 1);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_ASYNC_PF_EN, PAGE_GPA | 9), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_ASYNC_PF_INT, 0x50), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_ASYNC_PF_INT, 0), 1);
	CHECK_EQ(msr_get(m.vcpu, MSR_KVM_ASYNC_PF_EN), 0);
}

/* Who enables the mechanism hears that every page is there. */
static void test_page_ready(void)
{
	struct machine m = machine_irqchip();
	const uint32_t zero = 0;

	machine_waiting(&m, 0x50);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_ASYNC_PF_INT, 0x50), 1);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_ASYNC_PF_EN, PAGE_GPA | 9), 1);
	INTERRUPTED(&m);
	CHECK_EQ(ram32(&m, PAGE_GPA), 0);
	CHECK_EQ(ram32(&m, PAGE_GPA + 4), UINT32_MAX);
	memcpy(m.ram + PAGE_GPA + 4, &zero, sizeof(zero));
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_ASYNC_PF_ACK, 1), 1);
	CHECK_EQ(ram32(&m, PAGE_GPA + 4), 0);
}

static void test_steal(void)
{
	struct machine m = machine_irqchip();

	if (!ioctl(m.kvm, KVM_CHECK_EXTENSION, KVM_CAP_STEAL_TIME))
		return;
	MACHINE_CODE(&m, 0xe6, 0x80, 0xe6, 0x80);
	memset(m.ram + PAGE_GPA, 0, 64);
	m.ram[PAGE_GPA + 16] = 1; /* preempted */
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_STEAL_TIME, PAGE_GPA | 1), 1);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.ram[PAGE_GPA + 16], 0);
	CHECK_EQ(ram32(&m, PAGE_GPA + 8), 2); /* version */
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(ram32(&m, PAGE_GPA + 8), 4);
}

/* An interrupt may be ended in memory if it is alone; the bit is taken back by whoever looks at the APIC. */
static void test_eoi(void)
{
	struct machine m = machine_irqchip();

	machine_waiting(&m, 0x60);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_PV_EOI_EN, PAGE_GPA | 1), 1);
	send_msi(&m, 0x60);
	INTERRUPTED(&m);
	CHECK_EQ(m.ram[PAGE_GPA], 1);
	CHECK(in_service(&m, 0x60));
	CHECK_EQ(m.ram[PAGE_GPA], 0); /* from now on a real EOI only */
	CHECK(in_service(&m, 0x60));
}

static void test_eoi_in_memory(void)
{
	struct machine m = machine_irqchip();
	struct kvm_regs regs;

	machine_waiting(&m, 0x60);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_PV_EOI_EN, PAGE_GPA | 1), 1);
	send_msi(&m, 0x60);
	INTERRUPTED(&m);
	m.ram[PAGE_GPA] = 0;
	CHECK(!in_service(&m, 0x60));
	/* Two at once: the first one's bit would hide the second's wait. */
	send_msi(&m, 0x60);
	send_msi(&m, 0x50);
	regs = get_regs(&m);
	restart(&m, &regs);
	INTERRUPTED(&m);
	CHECK_EQ(m.ram[PAGE_GPA], 0);
	CHECK(in_service(&m, 0x60));
}

/* ---- hypercalls ---- */

static const struct kvm_cpuid_entry2 kvm_leaves[] = {
	{.function = KVM_CPUID_SIGNATURE,
	 .eax = KVM_CPUID_FEATURES,
	 .ebx = 0x4b4d564b,
	 .ecx = 0x564b4d56,
	 .edx = 0x4d},
	{.function = KVM_CPUID_FEATURES, .eax = 0},
};

static uint64_t call(struct machine *m, uint64_t nr, uint64_t arg0, uint64_t arg1)
{
	struct kvm_regs regs = {.rax = nr, .rbx = arg0, .rcx = arg1, .rdx = 0};

	restart(m, &regs);
	RUN_TO(m, KVM_EXIT_IO);
	return get_regs(m).rax;
}

/* VMCALL and VMMCALL: one of the two is the other vendor's, and is replaced. */
static void test_calls(uint8_t modrm)
{
	struct machine m = machine_irqchip();
	uint8_t now;

	MACHINE_CODE(&m, 0x0f, 0x01, modrm, 0xe6, 0x80, 0xf4);
	machine_protect(&m);
	CHECK_EQ(call(&m, KVM_HC_VAPIC_POLL_IRQ, 0, 0), 0);
	now = m.ram[CODE_GPA + 2];
	CHECK(now == 0xc1 || now == 0xd9);
	CHECK_EQ(call(&m, 77, 0, 0), (uint32_t)-KVM_ENOSYS);
	CHECK_EQ(call(&m, KVM_HC_KICK_CPU, 0, 99), 0);
	CHECK_EQ(call(&m, KVM_HC_SCHED_YIELD, 99, 0), 0);
	CHECK_EQ(call(&m, KVM_HC_CLOCK_PAIRING, PAGE_GPA, 1), (uint32_t)-KVM_EOPNOTSUPP);
	CHECK_EQ(call(&m, KVM_HC_CLOCK_PAIRING, 0x7fff0000, 0), (uint32_t)-KVM_EFAULT);
	CHECK_EQ(call(&m, KVM_HC_CLOCK_PAIRING, PAGE_GPA, 0), 0);
	CHECK(ram64(&m, PAGE_GPA) > 1600000000);
	CHECK(ram64(&m, PAGE_GPA + 8) < 1000000000);
	CHECK_EQ(call(&m, KVM_HC_MAP_GPA_RANGE, PAGE_GPA, 1), (uint32_t)-KVM_ENOSYS);
}

static void test_foreign_refused(void)
{
	struct machine m = machine_irqchip();
	struct kvm_regs regs = {.rax = KVM_HC_VAPIC_POLL_IRQ};
	uint8_t own, code[6];

	/* Which one is its own: let it be patched. */
	MACHINE_CODE(&m, 0x0f, 0x01, 0xc1, 0xe6, 0x80, 0xf4);
	machine_protect(&m);
	CHECK_EQ(call(&m, KVM_HC_VAPIC_POLL_IRQ, 0, 0), 0);
	own = m.ram[CODE_GPA + 2];
	m.ram[CODE_GPA + 2] = own == 0xc1 ? 0xd9 : 0xc1;
	memcpy(code, m.ram + CODE_GPA, sizeof(code));
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_FIX_HYPERCALL_INSN), 0);
	restart(&m, &regs);
	RUN_TO(&m, KVM_EXIT_SHUTDOWN); /* #UD without an IDT */
	CHECK(!memcmp(code, m.ram + CODE_GPA, sizeof(code)));
}

static void test_map_range(void)
{
	struct machine m = machine_irqchip();
	struct kvm_regs regs = {.rax = KVM_HC_MAP_GPA_RANGE, .rbx = PAGE_GPA, .rcx = 2, .rdx = 16};

	CHECK_EQ(enable_cap(m.vm, KVM_CAP_EXIT_HYPERCALL, 1 << KVM_HC_MAP_GPA_RANGE), 0);
	MACHINE_CODE(&m, 0x0f, 0x01, 0xc1, 0xe6, 0x80, 0xf4);
	machine_protect(&m);
	restart(&m, &regs);
	RUN_TO(&m, KVM_EXIT_HYPERCALL);
	CHECK_EQ(m.run->hypercall.nr, KVM_HC_MAP_GPA_RANGE);
	CHECK_EQ(m.run->hypercall.args[0], PAGE_GPA);
	CHECK_EQ(m.run->hypercall.args[1], 2);
	CHECK_EQ(m.run->hypercall.args[2], 16);
	CHECK_EQ(m.run->hypercall.longmode, 0);
	m.run->hypercall.ret = 0x1122334455667788;
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(get_regs(&m).rax, 0x55667788);
	CHECK_EQ(call(&m, KVM_HC_MAP_GPA_RANGE, PAGE_GPA + 1, 1), (uint32_t)-KVM_EINVAL);
	CHECK_EQ(call(&m, KVM_HC_MAP_GPA_RANGE, PAGE_GPA, 0), (uint32_t)-KVM_EINVAL);
}

/* Enforced, a feature that CPUID lacks is not there for the guest; what is listed the program reads as 0. */
static void test_enforced(void)
{
	struct machine m = machine_irqchip();

	CHECK_EQ(enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN), 0);
	/* mov $MSR_KVM_PV_EOI_EN,%ecx; rdmsr */
	MACHINE_CODE(&m, 0x66, 0xb9, 0x04, 0x4d, 0x56, 0x4b, 0x0f, 0x32, 0xf4);
	CHECK_ERR(enable_cap(m.vcpu, KVM_CAP_EXCEPTION_PAYLOAD, 1), EINVAL);
	CHECK_EQ(enable_cap(m.vcpu, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1), 0);
	set_leaves(m.vcpu, kvm_leaves, 2);
	CHECK_EQ(msr_get(m.vcpu, MSR_KVM_PV_EOI_EN), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_PV_EOI_EN, PAGE_GPA | 1), 0);
	RUN_TO(&m, KVM_EXIT_X86_RDMSR);
	CHECK_EQ(m.run->msr.reason, KVM_MSR_EXIT_REASON_UNKNOWN);
}

int main(void)
{
	test_msrs();
	test_no_irqchip();
	test_page_ready();
	test_steal();
	test_eoi();
	test_eoi_in_memory();
	test_calls(0xc1);
	test_calls(0xd9);
	test_foreign_refused();
	test_map_range();
	test_enforced();
	return 0;
}
