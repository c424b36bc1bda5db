/* SPDX-License-Identifier: MIT */
/*
 * For tests of guest interfaces: MSRs that keep a value, CPUID leaves, and a guest in real mode with interrupts, whose handler
 * writes AL to port 80h and halts with interrupts off.
 */
#ifndef TESTS_API_PV_H
#define TESTS_API_PV_H

#include "api_test.h"

#define HANDLER_GPA 0x1f00
#define LAPIC_SVR   0xf0
#define LAPIC_ISR   0x100

/* The value is taken and read back; another one is refused and leaves it. */
static inline void msr_keeps(int vcpu, uint32_t index, uint64_t good, uint64_t bad)
{
	CHECK_EQ(msr_set(vcpu, index, good), 1);
	CHECK_EQ(msr_get(vcpu, index), good);
	CHECK_EQ(msr_set(vcpu, index, bad), 0);
	CHECK_EQ(msr_get(vcpu, index), good);
}

static inline void msr_round_trip(int vcpu, uint32_t index, uint64_t val)
{
	CHECK_EQ(msr_set(vcpu, index, val), 1);
	CHECK_EQ(msr_get(vcpu, index), val);
}

static inline void set_leaves(int vcpu, const struct kvm_cpuid_entry2 *v, unsigned nr)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 v[16];
	} cpuid = {.head.nent = nr};

	memcpy(cpuid.v, v, nr * sizeof(*v));
	CHECK_EQ(ioctl(vcpu, KVM_SET_CPUID2, &cpuid), 0);
}

/* All that KVM offers, with Hyper-V's leaves in the place of KVM's. */
static inline void set_hyperv_cpuid(int kvm, int vcpu)
{
	struct cpuid_list all, hv = {.head.nent = 16};

	get_supported_cpuid(kvm, &all);
	CHECK_EQ(ioctl(vcpu, KVM_GET_SUPPORTED_HV_CPUID, &hv), 0);
	for (unsigned i = 0; i < all.head.nent; i++)
		if (all.v[i].function >> 8 == 0x400000)
			all.v[i--] = all.v[--all.head.nent];
	CHECK(all.head.nent + hv.head.nent <= CPUID_ENTRIES);
	memcpy(all.v + all.head.nent, hv.v, hv.head.nent * sizeof(hv.v[0]));
	all.head.nent += hv.head.nent;
	CHECK_EQ(ioctl(vcpu, KVM_SET_CPUID2, &all), 0);
}

/* Is index in KVM_GET_MSR_INDEX_LIST? */
static inline bool msr_listed(int kvm, uint32_t index)
{
	static struct {
		uint32_t nmsrs, v[1024];
	} list;

	list.nmsrs = 1024;
	CHECK_EQ(ioctl(kvm, KVM_GET_MSR_INDEX_LIST, &list), 0);
	for (unsigned i = 0; i < list.nmsrs; i++)
		if (list.v[i] == index)
			return true;
	return false;
}

static inline struct machine machine_irqchip(void)
{
	struct machine m = machine_open();

	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	return m;
}

static inline void lapic_enable(const struct machine *m)
{
	struct kvm_lapic_state state;
	uint32_t svr = 0x1ff;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_LAPIC, &state), 0);
	memcpy(state.regs + LAPIC_SVR, &svr, sizeof(svr));
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_LAPIC, &state), 0);
}

/* The vector is in service. */
static inline bool in_service(const struct machine *m, uint8_t vector)
{
	struct kvm_lapic_state state;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_LAPIC, &state), 0);
	return (uint8_t)state.regs[LAPIC_ISR + vector / 32 * 16 + vector % 32 / 8] >> (vector % 8) &
	       1;
}

/* out %al,$0x80; hlt at the vector; the guest waits for it: sti; hlt. */
static inline void machine_waiting(struct machine *m, uint8_t vector)
{
	static const uint8_t handler[] = {0xe6, 0x80, 0xf4};
	const uint32_t entry = HANDLER_GPA;

	memcpy(m->ram + HANDLER_GPA, handler, sizeof(handler));
	memcpy(m->ram + 4 * vector, &entry, sizeof(entry));
	MACHINE_CODE(m, 0xfb, 0xf4);
	lapic_enable(m);
}

/* The handler was entered. */
#define INTERRUPTED(m) RUN_TO(m, KVM_EXIT_IO)

static inline void send_msi(const struct machine *m, uint8_t vector)
{
	struct kvm_msi msi = {.address_lo = 0xfee00000, .data = vector};

	CHECK_EQ(ioctl(m->vm, KVM_SIGNAL_MSI, &msi), 1);
}

static inline uint32_t ram32(const struct machine *m, unsigned gpa)
{
	uint32_t val;

	memcpy(&val, m->ram + gpa, sizeof(val));
	return val;
}

static inline uint64_t ram64(const struct machine *m, unsigned gpa)
{
	uint64_t val;

	memcpy(&val, m->ram + gpa, sizeof(val));
	return val;
}

/* Flat 32-bit protected mode, CPL 0, at CODE_GPA. */
static inline void machine_protect(struct machine *m)
{
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
	struct kvm_segment data = code;
	struct kvm_sregs sregs;

	data.selector = 16;
	data.type = 3;
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.cr0 |= 1;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SREGS, &sregs), 0);
}

static inline struct kvm_regs get_regs(const struct machine *m)
{
	struct kvm_regs regs;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	return regs;
}

static inline void restart(const struct machine *m, const struct kvm_regs *from)
{
	struct kvm_regs regs = *from;

	regs.rip = CODE_GPA;
	regs.rsp = CODE_GPA;
	regs.rflags = 2;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
}

#endif
