/* SPDX-License-Identifier: MIT */
/*
 * KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE for VMX (KVM api.rst, struct kvm_vmx_nested_state_hdr): every field broken in
 * turn, with the errno that Linux 6.12's vmx_set_nested_state() gives for it, and what a program does to leave VMX operation.
 */
#include "api_test.h"

#define NONE	      (~0ull)
#define VMXON	      0x2000ull
#define VMCS	      0x3000ull
#define REVISION      0x11e57ed0u
#define FEAT_CTL      0x3a
#define UNKNOWN_FLAG  0x8000
#define HEAD	      sizeof(struct kvm_nested_state)
#define CPUID_ENTRIES 100

struct state {
	struct kvm_nested_state head;
	uint8_t data[2 * 4096];
};

static struct state off(void)
{
	struct state s = {.head.size = HEAD};

	s.head.hdr.vmx.vmxon_pa = s.head.hdr.vmx.vmcs12_pa = NONE;
	return s;
}

/* In VMX operation with a current VMCS. */
static struct state on(void)
{
	struct state s = off();
	uint32_t revision = REVISION;

	s.head.size = HEAD + 4096;
	s.head.hdr.vmx.vmxon_pa = VMXON;
	s.head.hdr.vmx.vmcs12_pa = VMCS;
	memcpy(s.data, &revision, sizeof(revision));
	return s;
}

static struct state get(int vcpu)
{
	struct state s = {.head.size = sizeof(s)};

	CHECK_EQ(ioctl(vcpu, KVM_GET_NESTED_STATE, &s), 0);
	return s;
}

static int set(int vcpu, const struct state *s)
{
	struct state copy = *s;

	return ioctl(vcpu, KVM_SET_NESTED_STATE, &copy);
}

static void is_off(int vcpu)
{
	struct state s = get(vcpu);

	CHECK_EQ(s.head.size, HEAD);
	CHECK_EQ(s.head.flags, 0);
	CHECK_EQ(s.head.hdr.vmx.vmxon_pa, NONE);
	CHECK_EQ(s.head.hdr.vmx.vmcs12_pa, NONE);
}

static void is_on(int vcpu)
{
	struct state s = get(vcpu);

	CHECK_EQ(s.head.size, HEAD + 4096);
	CHECK_EQ(s.head.hdr.vmx.vmxon_pa, VMXON);
	CHECK_EQ(s.head.hdr.vmx.vmcs12_pa, VMCS);
}

/* Refused for its header: what was there stays. */
static void refused(int vcpu, const struct state *s)
{
	struct state good = on();

	CHECK_EQ(set(vcpu, &good), 0);
	CHECK_ERR(set(vcpu, s), EINVAL);
	is_on(vcpu);
}

#define REFUSED(vcpu, field, value)      \
	do {                             \
		struct state bad = on(); \
		bad.field = value;       \
		refused(vcpu, &bad);     \
	} while (0)

static void test_header(int vcpu)
{
	struct state s = off();

	REFUSED(vcpu, head.size, HEAD - 1);
	REFUSED(vcpu, head.flags, UNKNOWN_FLAG);
	REFUSED(vcpu, head.flags, KVM_STATE_NESTED_RUN_PENDING);
	REFUSED(vcpu, head.flags, KVM_STATE_NESTED_EVMCS);
	REFUSED(vcpu, head.format, KVM_STATE_NESTED_FORMAT_SVM);
	REFUSED(vcpu, head.hdr.vmx.vmxon_pa, VMXON + 1);
	REFUSED(vcpu, head.hdr.vmx.vmxon_pa, 1ull << 52);
	REFUSED(vcpu, head.hdr.vmx.smm.flags, UNKNOWN_FLAG);
	REFUSED(vcpu, head.hdr.vmx.smm.flags, KVM_STATE_NESTED_SMM_VMXON);
	REFUSED(vcpu, head.hdr.vmx.smm.flags, KVM_STATE_NESTED_SMM_GUEST_MODE);
	REFUSED(vcpu, head.hdr.vmx.flags, UNKNOWN_FLAG);
	s.head.hdr.vmx.vmcs12_pa = VMCS;
	refused(vcpu, &s);
	s = off();
	s.head.flags = KVM_STATE_NESTED_GUEST_MODE;
	refused(vcpu, &s);
}

/* Refused later: VMX operation has begun, as in KVM. */
static void half_taken(int vcpu, const struct state *s)
{
	struct state clean = off();

	CHECK_EQ(set(vcpu, &clean), 0);
	CHECK_ERR(set(vcpu, s), EINVAL);
	CHECK_EQ(get(vcpu).head.hdr.vmx.vmxon_pa, VMXON);
	CHECK_EQ(get(vcpu).head.flags, 0);
}

#define HALF_TAKEN(vcpu, field, value)   \
	do {                             \
		struct state bad = on(); \
		bad.field = value;       \
		half_taken(vcpu, &bad);  \
	} while (0)

static void test_body(int vcpu)
{
	HALF_TAKEN(vcpu, head.size, HEAD + 4095);
	HALF_TAKEN(vcpu, head.hdr.vmx.vmcs12_pa, VMXON);
	HALF_TAKEN(vcpu, head.hdr.vmx.vmcs12_pa, VMCS + 8);
	HALF_TAKEN(vcpu, head.hdr.vmx.vmcs12_pa, NONE);
	HALF_TAKEN(vcpu, data[0], 0);
	/* An empty VMCS has controls that no entry takes. */
	HALF_TAKEN(vcpu, head.flags, KVM_STATE_NESTED_GUEST_MODE);
}

static void test_get(int vcpu)
{
	struct state s = on(), small = {.head.size = HEAD};

	CHECK_EQ(set(vcpu, &s), 0);
	CHECK_ERR(ioctl(vcpu, KVM_GET_NESTED_STATE, &small), E2BIG);
	CHECK_EQ(small.head.size, HEAD + 4096);
	CHECK_ERR(ioctl(vcpu, KVM_GET_NESTED_STATE, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(vcpu, KVM_SET_NESTED_STATE, BAD_POINTER), EFAULT);
	s = get(vcpu);
	CHECK_EQ(set(vcpu, &s), 0);
	is_on(vcpu);
}

/* VMX operation without a VMCS. */
static void test_no_vmcs(int vcpu)
{
	struct state s = on();

	s.head.size = HEAD;
	s.head.hdr.vmx.vmcs12_pa = NONE;
	CHECK_EQ(set(vcpu, &s), 0);
	s = get(vcpu);
	CHECK_EQ(s.head.size, HEAD);
	CHECK_EQ(s.head.hdr.vmx.vmxon_pa, VMXON);
}

/* QEMU clears IA32_FEATURE_CONTROL before it sets registers at reset. */
static void test_leave(int vcpu)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = {.head.nmsrs = 1, .entry.index = FEAT_CTL};
	struct state s = on();

	CHECK_EQ(set(vcpu, &s), 0);
	CHECK_EQ(ioctl(vcpu, KVM_SET_MSRS, &m), 1);
	is_off(vcpu);
	CHECK_EQ(set(vcpu, &s), 0);
	s = off();
	CHECK_EQ(set(vcpu, &s), 0);
	is_off(vcpu);
}

static void set_cpuid(int kvm, int vcpu)
{
	struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + CPUID_ENTRIES * sizeof(cpuid->entries[0]));

	CHECK(cpuid);
	cpuid->nent = CPUID_ENTRIES;
	CHECK_EQ(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), 0);
	CHECK_EQ(ioctl(vcpu, KVM_SET_CPUID2, cpuid), 0);
	free(cpuid);
}

int main(void)
{
	int kvm = open_kvm(), vm = create_vm(kvm), vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	struct state s = on();

	CHECK(vcpu >= 0);
	is_off(vcpu);
	/* Without VMX in the guest's CPUID. */
	CHECK_ERR(set(vcpu, &s), EINVAL);
	set_cpuid(kvm, vcpu);
	test_header(vcpu);
	test_body(vcpu);
	test_get(vcpu);
	test_no_vmcs(vcpu);
	test_leave(vcpu);
	return 0;
}
