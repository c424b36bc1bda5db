/* SPDX-License-Identifier: MIT */
/*
 * All that the ioctls tell of a VM with one vCPU and KVM's interrupt chips, but its memory; read, written back in the order that a VMM
 * takes, and made comparable. tests/compat keeps such states: a part that is added here is added behind.
 */
#ifndef TESTS_API_VM_STATE_H
#define TESTS_API_VM_STATE_H

#include "api_test.h"

#define VM_STATE_MSRS 256

struct vm_state_msrs {
	struct kvm_msrs head;
	struct kvm_msr_entry entries[VM_STATE_MSRS];
};

struct vm_state_cpuid {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[128];
};

struct vm_state {
	struct vm_state_cpuid cpuid;
	uint64_t tsc_khz;
	struct kvm_regs regs;
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs;
	struct kvm_sregs2 sregs;
	struct vm_state_msrs msrs;
	struct kvm_mp_state mp;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;
	struct kvm_irqchip chips[3];
	struct kvm_pit_state2 pit;
	struct kvm_clock_data clock;
};

/* Such a VM, with its memory for SMM, too. */
static inline struct machine vm_state_machine(size_t ram)
{
	struct kvm_pit_config pit = {0};
	struct machine m = {.kvm = open_kvm()};

	m.vm = create_vm(m.kvm);
	m.ram = map_ram(ram);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, ram, m.ram), 0);
	CHECK_EQ(set_region(m.vm, 1 << 16, 0, 0, ram, m.ram), 0);
	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_EQ(ioctl(m.vm, KVM_CREATE_PIT2, &pit), 0);
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_EXCEPTION_PAYLOAD, 1), 0);
	m.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 0);
	CHECK(m.vcpu >= 0);
	m.run = map_run(m.kvm, m.vcpu);
	return m;
}

/* What goes on by itself: written, but not compared. */
static inline bool vm_state_goes_on(uint32_t index)
{
	static const uint32_t running[] = {0x10 /* TSC */, 0x6e0 /* its deadline */, 0x40000010,
					   0x40000020};

	for (unsigned i = 0; i < sizeof(running) / sizeof(running[0]); i++)
		if (running[i] == index)
			return true;
	return false;
}

/* The list is the module's; VMX's of it are refused where CPUID has no VMX. */
static inline void vm_state_list_msrs(const struct machine *m, struct vm_state_msrs *msrs)
{
	struct {
		struct kvm_msr_list head;
		uint32_t indices[VM_STATE_MSRS];
	} list = {.head.nmsrs = VM_STATE_MSRS};

	CHECK_EQ(ioctl(m->kvm, KVM_GET_MSR_INDEX_LIST, &list), 0);
	msrs->head.nmsrs = 0;
	for (unsigned i = 0; i < list.head.nmsrs; i++)
		if (msr_readable(m->vcpu, list.indices[i]))
			msrs->entries[msrs->head.nmsrs++].index = list.indices[i];
}

/* same: the state whose MSRs are read, or NULL: all that there are. */
static inline void vm_state_get(const struct machine *m, struct vm_state *s,
				const struct vm_state *same)
{
	s->cpuid.head.nent = 128;
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_CPUID2, &s->cpuid), 0);
	s->tsc_khz = ioctl(m->vcpu, KVM_GET_TSC_KHZ, 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &s->regs), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_XSAVE, &s->xsave), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_XCRS, &s->xcrs), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_SREGS2, &s->sregs), 0);
	if (same)
		s->msrs = same->msrs;
	else
		vm_state_list_msrs(m, &s->msrs);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_MSRS, &s->msrs), s->msrs.head.nmsrs);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_MP_STATE, &s->mp), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_LAPIC, &s->lapic), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_VCPU_EVENTS, &s->events), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_DEBUGREGS, &s->debug), 0);
	for (unsigned i = 0; i < 3; i++) {
		s->chips[i].chip_id = i;
		CHECK_EQ(ioctl(m->vm, KVM_GET_IRQCHIP, &s->chips[i]), 0);
	}
	CHECK_EQ(ioctl(m->vm, KVM_GET_PIT2, &s->pit), 0);
	CHECK_EQ(ioctl(m->vm, KVM_GET_CLOCK, &s->clock), 0);
}

static inline void vm_state_set_msrs(const struct machine *m, struct vm_state_msrs *msrs)
{
	unsigned nr = msrs->head.nmsrs;
	int done = ioctl(m->vcpu, KVM_SET_MSRS, msrs);

	if (done >= 0 && done < (int)nr)
		fprintf(stderr, "MSR %#x refuses %#llx\n", msrs->entries[done].index,
			(unsigned long long)msrs->entries[done].data);
	CHECK_EQ(done, nr);
}

static inline void vm_state_set(const struct machine *m, struct vm_state *s)
{
	struct kvm_clock_data clock = {.clock = s->clock.clock};

	CHECK_EQ(ioctl(m->vcpu, KVM_SET_CPUID2, &s->cpuid), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_TSC_KHZ, s->tsc_khz), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &s->regs), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_XSAVE, &s->xsave), 0);
	if (s->xcrs.nr_xcrs)
		CHECK_EQ(ioctl(m->vcpu, KVM_SET_XCRS, &s->xcrs), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SREGS2, &s->sregs), 0);
	vm_state_set_msrs(m, &s->msrs);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_MP_STATE, &s->mp), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_LAPIC, &s->lapic), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_VCPU_EVENTS, &s->events), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_DEBUGREGS, &s->debug), 0);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(ioctl(m->vm, KVM_SET_IRQCHIP, &s->chips[i]), 0);
	CHECK_EQ(ioctl(m->vm, KVM_SET_PIT2, &s->pit), 0);
	CHECK_EQ(ioctl(m->vm, KVM_SET_CLOCK, &clock), 0);
}

/* What goes on by itself is made equal. */
static inline void vm_state_stop(struct vm_state *s)
{
	const unsigned current_count = 0x390;

	for (unsigned i = 0; i < s->msrs.head.nmsrs; i++)
		if (vm_state_goes_on(s->msrs.entries[i].index))
			s->msrs.entries[i].data = 0;
	memset(s->lapic.regs + current_count, 0, 4);
	for (unsigned i = 0; i < 3; i++)
		s->pit.channels[i].count_load_time = 0;
	memset(&s->clock, 0, sizeof(s->clock));
}

#endif
