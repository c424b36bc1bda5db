/* SPDX-License-Identifier: MIT */
/* CPUID as it is offered, set and read. Shapes are those of Linux 6.12's KVM. */
#include "vcpu_fixture.h"

#include <stdlib.h>

#define MAX 256

static struct {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 v[MAX];
} list;

static void get_supported(void)
{
	memset(&list, 0, sizeof(list));
	list.head.nent = MAX;
	assert_int_equal(cpuid_get_supported(vcpu->cpu.model, 0, &list), 0);
}

static struct kvm_cpuid_entry2 *entry(uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < list.head.nent; i++)
		if (list.v[i].function == leaf && list.v[i].index == subleaf)
			return &list.v[i];
	return NULL;
}

static void test_too_small(void **state)
{
	unsigned nr;

	guard();
	list.head.nent = 0;
	assert_int_equal(cpuid_get_supported(vcpu->cpu.model, 0, &list), -E2BIG);
	list.head.nent = 3;
	assert_int_equal(cpuid_get_supported(vcpu->cpu.model, 0, &list), -E2BIG);
	get_supported();
	nr = list.head.nent;
	list.head.nent = nr - 1;
	assert_int_equal(cpuid_get_supported(vcpu->cpu.model, 0, &list), -E2BIG);
	list.head.nent = nr;
	assert_int_equal(cpuid_get_supported(vcpu->cpu.model, 0, &list), 0);
	assert_int_equal(cpuid_get_supported(vcpu->cpu.model, 0, NULL), -EFAULT);
}

static void test_shape(void **state)
{
	get_supported();
	assert_int_equal(list.v[0].function, 0);
	assert_true(entry(0, 0)->eax >= 0xd && entry(0, 0)->eax <= 0x24);
	assert_true(entry(0x80000000, 0)->eax >= 0x80000008);
	for (uint32_t leaf = 0; leaf <= entry(0, 0)->eax; leaf++)
		assert_non_null(entry(leaf, 0));
	assert_int_equal(entry(1, 0)->flags, 0);
	assert_int_equal(entry(7, 0)->flags, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
	assert_int_equal(entry(0xd, 1)->flags, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
	for (uint32_t sub = 0; sub <= entry(7, 0)->eax; sub++)
		assert_non_null(entry(7, sub));
	assert_int_equal(entry(0xa, 0)->eax, 0);
}

static void test_kvm_leaves(void **state)
{
	get_supported();
	assert_int_equal(entry(0x40000000, 0)->eax, 0x40000001);
	assert_memory_equal(&entry(0x40000000, 0)->ebx, "KVMK", 4);
	assert_memory_equal(&entry(0x40000000, 0)->ecx, "VMKV", 4);
	assert_memory_equal(&entry(0x40000000, 0)->edx, "M\0\0\0", 4);
	assert_non_null(entry(0x40000001, 0));
}

/* MONITOR, TSC deadline, OSXSAVE, HYPERVISOR and HTT are the program's to set. */
static void test_left_to_the_program(void **state)
{
	get_supported();
	assert_int_equal(entry(1, 0)->ecx & (1u << 3 | 1u << 24 | 1u << 27 | 1u << 31), 0);
	assert_int_equal(entry(1, 0)->edx & 1u << 28, 0);
	assert_int_equal(entry(1, 0)->ecx >> 21 & 1, 1); /* x2APIC always */
}

static void test_emulated(void **state)
{
	memset(&list, 0, sizeof(list));
	list.head.nent = 3;
	assert_int_equal(cpuid_get_emulated(vcpu->cpu.model, &list), 0);
	assert_int_equal(list.head.nent, 3);
	list.v[1].padding[0] = 1;
	assert_int_equal(cpuid_get_emulated(vcpu->cpu.model, &list), -EINVAL);
	list.v[1].padding[0] = 0;
	list.head.nent = 2;
	assert_int_equal(cpuid_get_emulated(vcpu->cpu.model, &list), -E2BIG);
}

static void test_set_checks(void **state)
{
	guard();
	get_supported();
	list.head.nent = 257;
	assert_int_equal(vcpu_set_cpuid2(vcpu, &list), -E2BIG);
	assert_int_equal(vcpu_set_cpuid2(vcpu, NULL), -EFAULT);
	get_supported();
	entry(0x80000008, 0)->eax = 40 | 50 << 8; /* linear addresses of 50 bits */
	assert_int_equal(vcpu_set_cpuid2(vcpu, &list), -EINVAL);
	assert_int_equal(vcpu->nr_cpuid, 0);
	entry(0x80000008, 0)->eax = 40 | 48 << 8;
	assert_int_equal(vcpu_set_cpuid2(vcpu, &list), 0);
	assert_int_equal(vcpu->cpu.maxphyaddr, 40);
}

static void test_get(void **state)
{
	unsigned nr;

	get_supported();
	assert_int_equal(vcpu_set_cpuid2(vcpu, &list), 0);
	nr = list.head.nent;
	list.head.nent = nr - 1;
	assert_int_equal(vcpu_get_cpuid2(vcpu, &list), -E2BIG);
	list.head.nent = MAX;
	assert_int_equal(vcpu_get_cpuid2(vcpu, &list), 0);
	assert_int_equal(list.head.nent, nr);
}

/* After the first KVM_RUN the same list is taken, another refused. */
static void test_after_run(void **state)
{
	get_supported();
	assert_int_equal(vcpu_set_cpuid2(vcpu, &list), 0);
	LOAD(0xf4);
	RUN_TO(KVM_EXIT_HLT);
	assert_int_equal(vcpu_set_cpuid2(vcpu, &list), 0);
	entry(1, 0)->ecx ^= 1u << 25;
	assert_int_equal(vcpu_set_cpuid2(vcpu, &list), -EINVAL);
	list.head.nent--;
	assert_int_equal(vcpu_set_cpuid2(vcpu, &list), -EINVAL);
}

static void test_gates(void **state)
{
	struct kvm_sregs sregs;

	assert_int_equal(vcpu_get_sregs(vcpu, &sregs), 0);
	/* Before the vCPU has a CPUID all that silicon has may be set. */
	sregs.cr4 |= CR4_SMEP;
	assert_int_equal(vcpu_set_sregs(vcpu, &sregs), 0);
	get_supported();
	assert_int_equal(vcpu_set_cpuid2(vcpu, &list), 0);
	assert_int_equal(vcpu_set_sregs(vcpu, &sregs), 0);
	sregs.cr4 |= CR4_PKE; /* never offered */
	assert_int_equal(vcpu_set_sregs(vcpu, &sregs), -EINVAL);
}

static void test_dynamic_bits(void **state)
{
	struct kvm_sregs sregs;
	uint32_t r[4];

	get_supported();
	assert_int_equal(vcpu_set_cpuid2(vcpu, &list), 0);
	vcpu_cpuid(vcpu, 1, 0, r);
	assert_int_equal(r[CPUID_ECX] >> 27 & 1, 0);
	assert_int_equal(r[CPUID_EDX] >> 9 & 1, 1);
	assert_int_equal(vcpu_get_sregs(vcpu, &sregs), 0);
	sregs.cr4 |= CR4_OSXSAVE;
	sregs.apic_base &= ~BIT(11);
	assert_int_equal(vcpu_set_sregs(vcpu, &sregs), 0);
	vcpu_cpuid(vcpu, 1, 0, r);
	assert_int_equal(r[CPUID_ECX] >> 27 & 1, 1);
	assert_int_equal(r[CPUID_EDX] >> 9 & 1, 0);
	vcpu->cpu.xcr0 = 3;
	vcpu_cpuid(vcpu, 0xd, 0, r);
	assert_int_equal(r[CPUID_EBX], 576);
}

static void set_two(uint32_t vendor)
{
	memset(&list, 0, sizeof(list));
	list.head.nent = 3;
	list.v[0] = (struct kvm_cpuid_entry2){.function = 0, .eax = 0x16, .ebx = vendor};
	list.v[1] = (struct kvm_cpuid_entry2){.function = 0x16, .eax = 0x1234};
	list.v[2] = (struct kvm_cpuid_entry2){.function = 0x80000000, .eax = 0x80000004};
	assert_int_equal(vcpu_set_cpuid2(vcpu, &list), 0);
}

/* Leaves beyond the last: Intel repeats the highest basic one, AMD answers zeroes. */
static void test_out_of_range(void **state)
{
	uint32_t r[4];

	set_two(0x756e6547);
	vcpu_cpuid(vcpu, 0x17, 0, r);
	assert_int_equal(r[CPUID_EAX], 0x1234);
	vcpu_cpuid(vcpu, 0x80000009, 0, r);
	assert_int_equal(r[CPUID_EAX], 0x1234);
	vcpu_cpuid(vcpu, 0x80000003, 0, r); /* in range but not listed */
	assert_int_equal(r[CPUID_EAX], 0);
	set_two(0x68747541);
	vcpu_cpuid(vcpu, 0x17, 0, r);
	assert_int_equal(r[CPUID_EAX], 0);
}

static void test_topology_levels(void **state)
{
	uint32_t r[4];

	memset(&list, 0, sizeof(list));
	list.head.nent = 2;
	list.v[0] = (struct kvm_cpuid_entry2){.function = 0, .eax = 0x1f};
	list.v[1] = (struct kvm_cpuid_entry2){.function = 0xb, .index = 1, .flags = 1, .edx = 5};
	assert_int_equal(vcpu_set_cpuid2(vcpu, &list), 0);
	vcpu_cpuid(vcpu, 0xb, 7, r);
	assert_int_equal(r[CPUID_ECX], 7);
	assert_int_equal(r[CPUID_EDX], 5);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_too_small),    T(test_shape),
		T(test_kvm_leaves),   T(test_left_to_the_program),
		T(test_emulated),     T(test_set_checks),
		T(test_get),	      T(test_after_run),
		T(test_gates),	      T(test_dynamic_bits),
		T(test_out_of_range), T(test_topology_levels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
