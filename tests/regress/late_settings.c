/* SPDX-License-Identifier: MIT */
/*
 * What is set late: the same CPUID again after KVM_RUN, read by KVM_GET_CPUID2 while CR4 was another, was
 * refused; and KVM_CAP_X2APIC_API after a vCPU was there did not change the form of its APIC ID.
 */
#include "../api/api_test.h"

#define APIC_BASE 0x1b
#define X2APIC_ID 0x20

static uint64_t cpuid_bytes[2000];
static struct kvm_cpuid2 *const cpuid = (struct kvm_cpuid2 *)cpuid_bytes;

static void get_cpuid(int fd, unsigned long call)
{
	cpuid->nent = 256;
	CHECK_EQ(ioctl(fd, call, cpuid), 0);
}

static void set_osxsave(struct machine *m, bool on)
{
	struct kvm_sregs s;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_SREGS, &s), 0);
	s.cr4 = on ? s.cr4 | 1 << 18 : s.cr4 & ~(1ull << 18);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SREGS, &s), 0);
}

static void test_same_cpuid(void)
{
	struct machine m = machine_open();
	unsigned i;

	MACHINE_CODE(&m, 0xf4, 0xf4);
	get_cpuid(m.kvm, KVM_GET_SUPPORTED_CPUID);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_CPUID2, cpuid), 0);
	RUN_TO(&m, KVM_EXIT_HLT);
	get_cpuid(m.vcpu, KVM_GET_CPUID2);
	set_osxsave(&m, true);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_CPUID2, cpuid), 0);
	get_cpuid(m.vcpu, KVM_GET_CPUID2);
	set_osxsave(&m, false);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_CPUID2, cpuid), 0);
	for (i = 0; i < cpuid->nent && cpuid->entries[i].function != 1; i++)
		;
	cpuid->entries[i].ecx ^= 1;
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_CPUID2, cpuid), EINVAL);
}

static void test_apic_id(void)
{
	struct machine m = {.kvm = open_kvm()};
	struct kvm_lapic_state apic;

	m.vm = create_vm(m.kvm);
	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	m.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 3);
	get_cpuid(m.kvm, KVM_GET_SUPPORTED_CPUID);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_CPUID2, cpuid), 0);
	CHECK_EQ(msr_set(m.vcpu, APIC_BASE, msr_get(m.vcpu, APIC_BASE) | 1 << 10), 1);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_LAPIC, &apic), 0);
	CHECK_EQ(*(uint32_t *)&apic.regs[X2APIC_ID], 3u << 24);
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_LAPIC, &apic), 0);
	CHECK_EQ(*(uint32_t *)&apic.regs[X2APIC_ID], 3);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_LAPIC, &apic), 0);
}

int main(void)
{
	test_same_cpuid();
	test_apic_id();
	return 0;
}
