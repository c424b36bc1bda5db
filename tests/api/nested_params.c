/* SPDX-License-Identifier: MIT */
/*
 * The modules' parameters that take parts of nesting away. The first argument names what is to be absent; all else that the
 * model has is to be there. Bits of the VMX capability MSRs by the SDM, of CPUID 8000000AH by the APM.
 *
 * Run once for each parameter, by meson.build; "all" is to find everything.
 */
#include "api_test.h"

#define CPU2	 0x48b
#define EPT_VPID 0x48c
#define PIN	 0x48d
#define EXIT	 0x48f

/* Allowed-1 bits of a capability MSR, or of EPT_VPID the bits themselves; of AMD, of EDX of 8000000AH. */
static const struct {
	const char *name;
	uint32_t msr; /* 0: AMD's leaf */
	uint64_t bits;
	const char *without; /* parameters that take it away, with blanks around */
} parts[] = {
	{"EPT", CPU2, 1ull << 33, " ept "},
	{"EPT capabilities", EPT_VPID, 0x06114141, " ept "},
	{"A and D bits", EPT_VPID, 1 << 21, " ept eptad "},
	{"unrestricted guest", CPU2, 1ull << 39, " ept unrestricted_guest "},
	{"VMFUNC", CPU2, 1ull << 45, " ept "},
	{"PML", CPU2, 1ull << 49, " ept eptad pml "},
	{"mode-based execute control", CPU2, 1ull << 54, " ept "},
	{"VPID", CPU2, 1ull << 37, " vpid "},
	{"INVVPID", EPT_VPID, 0xf0100000000, " vpid "},
	{"APIC-access page", CPU2, 1ull << 32, " flexpriority "},
	{"APIC registers", CPU2, 1ull << 40, " enable_apicv "},
	{"virtual-interrupt delivery", CPU2, 1ull << 41, " enable_apicv "},
	{"x2APIC mode", CPU2, 1ull << 36, " enable_apicv "},
	{"posted interrupts", PIN, 1ull << 39, " enable_apicv "},
	{"preemption timer", PIN, 1ull << 38, " preemption_timer "},
	{"its saving", EXIT, 1ull << 54, " preemption_timer "},
	{"VMCS shadowing", CPU2, 1ull << 46, " enable_shadow_vmcs "},
	{"nested paging", 0, 1 << 0, " npt "},
	{"LBR virtualization", 0, 1 << 1, " lbrv "},
	{"next RIP", 0, 1 << 3, " nrips "},
	{"pause filter", 0, 1 << 10, " pause_filter_count "},
	{"its threshold", 0, 1 << 12, " pause_filter_count pause_filter_thresh "},
	{"virtual VMLOAD and VMSAVE", 0, 1 << 15, " vls "},
	{"virtual GIF", 0, 1 << 16, " vgif "},
	{"virtual NMI", 0, 1 << 25, " vgif vnmi "},
};

static bool find_leaf(int kvm, uint32_t function, struct kvm_cpuid_entry2 *ret)
{
	struct cpuid_list c;

	get_supported_cpuid(kvm, &c);
	for (unsigned i = 0; i < c.head.nent; i++)
		if (c.v[i].function == function) {
			*ret = c.v[i];
			return true;
		}
	return false;
}

static bool is_intel(int kvm)
{
	struct kvm_cpuid_entry2 leaf;

	CHECK(find_leaf(kvm, 0, &leaf));
	return leaf.ebx == 0x756e6547;
}

/* A feature MSR of the system; false: there is none. */
static bool feature_msr(int kvm, uint32_t index, uint64_t *ret)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = {.head.nmsrs = 1, .entry.index = index};

	if (ioctl(kvm, KVM_GET_MSRS, &m) != 1)
		return false;
	*ret = m.entry.data;
	return true;
}

static bool takes_away(const char *without, const char *param)
{
	char word[64];

	snprintf(word, sizeof(word), " %s ", param);
	return strstr(without, word);
}

static void check_part(int kvm, unsigned i, const char *param)
{
	struct kvm_cpuid_entry2 leaf;
	uint64_t has = 0;
	bool gone = takes_away(parts[i].without, param);

	if (parts[i].msr)
		CHECK(feature_msr(kvm, parts[i].msr, &has));
	else if (find_leaf(kvm, 0x8000000a, &leaf))
		has = leaf.edx;
	if ((has & parts[i].bits) != (gone ? 0 : parts[i].bits))
		fprintf(stderr, "%s with %s: %#lx\n", parts[i].name, param, has);
	CHECK_EQ(has & parts[i].bits, gone ? 0 : parts[i].bits);
}

/* Neither the processor's bit nor KVM's capability; of Intel's, no capability MSR. */
static void check_no_nesting(int kvm, bool intel)
{
	struct kvm_cpuid_entry2 leaf;
	uint64_t val;

	CHECK(find_leaf(kvm, intel ? 1 : 0x80000001, &leaf));
	CHECK(!(intel ? leaf.ecx & 1 << 5 : leaf.ecx & 1 << 2));
	CHECK_EQ(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_NESTED_STATE), 0);
	if (intel)
		CHECK(!feature_msr(kvm, CPU2, &val));
	else
		CHECK(!find_leaf(kvm, 0x8000000a, &leaf) || !leaf.edx);
}

int main(int argc, char **argv)
{
	int kvm = open_kvm();
	bool intel = is_intel(kvm);

	CHECK_EQ(argc, 2);
	CHECK(ioctl(create_vm(kvm), KVM_CREATE_VCPU, 0) >= 0);
	if (!strcmp(argv[1], "nested")) {
		check_no_nesting(kvm, intel);
		return 0;
	}
	CHECK(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_NESTED_STATE) > 0);
	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (!parts[i].msr == !intel)
			check_part(kvm, i, argv[1]);
	return 0;
}
