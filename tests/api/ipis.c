/* SPDX-License-Identifier: MIT */
/*
 * Interrupts between vCPUs, as a guest's writes to the ICR send them: every way to name a destination, in xAPIC and x2APIC mode, NMI, INIT
 * and SIPI (SDM, advanced programmable interrupt controller). Only the sender runs; what came to the others is read from their state. Then two
 * that run take turns in reading the TSC, which never goes back between them.
 */
#include "api_test.h"

#include <pthread.h>

#define NR_CPUS 4
#define SENDER	0
#define APIC	0xfee00000u
#define APIC_ID 0x20
#define LDR	0xd0
#define DFR	0xe0
#define SVR	0xf0
#define IRR	0x200
#define VECTOR	0x51
#define FIXED	VECTOR
#define LOWEST	(1u << 8 | VECTOR)
#define NMI	(4u << 8)
#define SMI	(2u << 8)
#define INIT	(5u << 8)
#define STARTUP (6u << 8 | 0x30)
#define LOGICAL (1u << 11)
#define ASSERT	(1u << 14)
#define SELF	(1u << 18)
#define ALL	(2u << 18)
#define OTHERS	(3u << 18)
#define X2APIC	(1u << 10)
#define ANY_ONE 0x80u /* one of these, whichever */

struct apic_vm {
	struct machine m;
	int vcpu[NR_CPUS];
	bool x2apic;
};

/* Who has the vector in its IRR, by bit, and has it no more. */
static unsigned taken(const struct apic_vm *v)
{
	struct kvm_lapic_state state;
	unsigned mask = 0;

	for (unsigned i = 0; i < NR_CPUS; i++) {
		uint8_t *irr = (uint8_t *)state.regs + IRR + VECTOR / 32 * 16 + VECTOR % 32 / 8;

		CHECK_EQ(ioctl(v->vcpu[i], KVM_GET_LAPIC, &state), 0);
		if (*irr & 1 << VECTOR % 8)
			mask |= 1 << i;
		memset(state.regs + IRR, 0, 0x80);
		CHECK_EQ(ioctl(v->vcpu[i], KVM_SET_LAPIC, &state), 0);
	}
	return mask;
}

static void put(struct kvm_lapic_state *state, unsigned reg, uint32_t val)
{
	memcpy(state->regs + reg, &val, sizeof(val));
}

static void set_apic(int vcpu, bool x2apic, uint32_t ldr, uint32_t dfr)
{
	struct kvm_lapic_state state;
	struct kvm_sregs sregs;

	CHECK_EQ(ioctl(vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.apic_base |= x2apic ? X2APIC : 0;
	CHECK_EQ(ioctl(vcpu, KVM_SET_SREGS, &sregs), 0);
	CHECK_EQ(ioctl(vcpu, KVM_GET_LAPIC, &state), 0);
	put(&state, SVR, 0x1ff);
	if (!x2apic) {
		put(&state, LDR, ldr << 24);
		put(&state, DFR, dfr);
	}
	CHECK_EQ(ioctl(vcpu, KVM_SET_LAPIC, &state), 0);
}

/* Logical xAPIC ids: flat, 1 << i; cluster: two clusters of two. */
static struct apic_vm apic_vm(bool x2apic, bool cluster)
{
	static const uint8_t code_mmio[] = {0x66, 0x89, 0x16, 0x10, 0x03,
					    0x66, 0xa3, 0x00, 0x03, 0xf4};
	static const uint8_t code_msr[] = {0x0f, 0x30, 0xf4};
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 v[1];
	} cpuid = {.head.nent = 1, .v[0] = {.function = 1, .ecx = 1u << 21}};
	struct apic_vm v = {.x2apic = x2apic};

	v.m = machine_open();
	CHECK_EQ(enable_cap(v.m.vm, KVM_CAP_X2APIC_API, 1), 0);
	CHECK_EQ(ioctl(v.m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	machine_code(&v.m, x2apic ? code_msr : code_mmio,
		     x2apic ? sizeof(code_msr) : sizeof(code_mmio));
	v.vcpu[0] = v.m.vcpu;
	for (unsigned i = 0; i < NR_CPUS; i++) {
		if (i)
			v.vcpu[i] = ioctl(v.m.vm, KVM_CREATE_VCPU, i == 3 && x2apic ? 300 : i);
		CHECK(v.vcpu[i] >= 0);
		CHECK_EQ(ioctl(v.vcpu[i], KVM_SET_CPUID2, &cpuid), 0);
		set_apic(v.vcpu[i], x2apic, cluster ? (i / 2) << 4 | 1u << i % 2 : 1u << i,
			 cluster ? 0x0fffffff : 0xffffffff);
	}
	return v;
}

/* The sender writes to its ICR, in single steps: in xAPIC mode the destination first. */
static void send(struct apic_vm *v, uint32_t icr, uint32_t dest)
{
	struct kvm_guest_debug step = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};
	struct kvm_regs regs = {.rip = CODE_GPA, .rflags = 2, .rsp = CODE_GPA};
	struct kvm_sregs sregs;

	regs.rcx = 0x830;
	regs.rax = icr;
	regs.rdx = v->x2apic ? dest : dest << 24;
	CHECK_EQ(ioctl(v->m.vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.ds.base = v->x2apic ? 0 : APIC;
	CHECK_EQ(ioctl(v->m.vcpu, KVM_SET_SREGS, &sregs), 0);
	CHECK_EQ(ioctl(v->m.vcpu, KVM_SET_REGS, &regs), 0);
	CHECK_EQ(ioctl(v->m.vcpu, KVM_SET_GUEST_DEBUG, &step), 0);
	for (unsigned i = 0; i < (v->x2apic ? 1 : 2); i++)
		RUN_TO(&v->m, KVM_EXIT_DEBUG);
}

struct ipi {
	uint32_t icr, dest;
	unsigned expected;
};

static void check_ipis(struct apic_vm *v, const struct ipi *ipis, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		unsigned mask;

		send(v, ipis[i].icr, ipis[i].dest);
		mask = taken(v);
		if (ipis[i].expected & ANY_ONE)
			CHECK(mask && !(mask & (mask - 1)) && !(mask & ~ipis[i].expected));
		else
			CHECK_EQ(mask, ipis[i].expected);
	}
}

#define CHECK_IPIS(v, list) check_ipis(&(v), list, sizeof(list) / sizeof(*(list)))

static void test_xapic(void)
{
	static const struct ipi common[] = {
		{FIXED, 1, 2},
		{FIXED, 3, 8},
		{FIXED, 0, 1},
		{FIXED, 9, 0},
		{FIXED, 0xff, 15},
		{FIXED | SELF, 2, 1},
		{FIXED | ALL, 9, 15},
		{FIXED | OTHERS, 9, 14},
		{LOWEST, 0xff, 15}, /* fixed, says KVM */
		{LOWEST | LOGICAL, 0xff, ANY_ONE | 15},
	};
	static const struct ipi flat[] = {
		{FIXED | LOGICAL, 1, 1},     {FIXED | LOGICAL, 6, 6},
		{FIXED | LOGICAL, 0xf0, 0},  {FIXED | LOGICAL, 0, 0},
		{FIXED | LOGICAL, 0xff, 15}, {LOWEST | LOGICAL, 0xc, ANY_ONE | 12},
	};
	static const struct ipi cluster[] = {
		{FIXED | LOGICAL, 0x01, 1},  {FIXED | LOGICAL, 0x03, 3},
		{FIXED | LOGICAL, 0x12, 8},  {FIXED | LOGICAL, 0x13, 12},
		{FIXED | LOGICAL, 0x21, 0},  {FIXED | LOGICAL, 0x0c, 0},
		{FIXED | LOGICAL, 0xff, 15}, {LOWEST | LOGICAL, 0x13, ANY_ONE | 12},
	};
	struct apic_vm v = apic_vm(false, false);

	CHECK_IPIS(v, common);
	CHECK_IPIS(v, flat);
	v = apic_vm(false, true);
	CHECK_IPIS(v, common);
	CHECK_IPIS(v, cluster);
}

/* Logical ids follow from ids: 16 to a cluster. The last vCPU's is 300. */
static void test_x2apic(void)
{
	static const struct ipi ipis[] = {
		{FIXED, 1, 2},
		{FIXED, 300, 8},
		{FIXED, 44, 0}, /* 300 & 0xff */
		{FIXED, 0xff, 0},
		{FIXED, 0xffffffff, 15},
		{FIXED | SELF, 2, 1},
		{FIXED | OTHERS, 2, 14},
		{FIXED | LOGICAL, 0x00000003, 3},
		{FIXED | LOGICAL, 0x00121000, 8}, /* cluster 18, bit 12 */
		{FIXED | LOGICAL, 0x00120fff, 0},
		{FIXED | LOGICAL, 0x00010001, 0},
		{LOWEST | LOGICAL, 0x00000007, ANY_ONE | 7},
	};
	struct apic_vm v = apic_vm(true, false);

	CHECK_IPIS(v, ipis);
}

static uint32_t mp_state(int vcpu)
{
	struct kvm_mp_state state;

	CHECK_EQ(ioctl(vcpu, KVM_GET_MP_STATE, &state), 0);
	return state.mp_state;
}

static bool nmi_pending(int vcpu)
{
	struct kvm_vcpu_events events;

	CHECK_EQ(ioctl(vcpu, KVM_GET_VCPU_EVENTS, &events), 0);
	return events.nmi.pending;
}

static void test_nmi_and_startup(bool x2apic)
{
	struct apic_vm v = apic_vm(x2apic, false);
	struct kvm_sregs sregs;

	send(&v, NMI, 2);
	CHECK(nmi_pending(v.vcpu[2]) && !nmi_pending(v.vcpu[1]) && !nmi_pending(v.vcpu[0]));
	/* A SIPI without INIT is nothing. */
	send(&v, STARTUP, 1);
	CHECK_EQ(mp_state(v.vcpu[1]), KVM_MP_STATE_UNINITIALIZED);
	send(&v, INIT | ASSERT, 1);
	CHECK_EQ(mp_state(v.vcpu[1]), KVM_MP_STATE_INIT_RECEIVED);
	send(&v, STARTUP, 1);
	CHECK_EQ(mp_state(v.vcpu[1]), KVM_MP_STATE_RUNNABLE);
	CHECK_EQ(ioctl(v.vcpu[1], KVM_GET_SREGS, &sregs), 0);
	CHECK_EQ(sregs.cs.selector, 0x3000);
	CHECK_EQ(sregs.cs.base, 0x30000);
	CHECK_EQ(mp_state(v.vcpu[2]), KVM_MP_STATE_UNINITIALIZED);
	CHECK_EQ(taken(&v), 0);
}

static bool smi_pending(int vcpu)
{
	struct kvm_vcpu_events events;

	CHECK_EQ(ioctl(vcpu, KVM_GET_VCPU_EVENTS, &events), 0);
	return events.smi.pending;
}

static void test_smi(bool x2apic)
{
	struct apic_vm v = apic_vm(x2apic, false);
	unsigned last = x2apic ? 300 : 3;

	if (ioctl(v.m.kvm, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM) <= 0)
		return;
	send(&v, SMI, last);
	CHECK(smi_pending(v.vcpu[3]) && !smi_pending(v.vcpu[1]) && !smi_pending(v.vcpu[0]));
	send(&v, SMI | OTHERS, 0);
	CHECK(smi_pending(v.vcpu[1]) && smi_pending(v.vcpu[2]) && !smi_pending(v.vcpu[0]));
	CHECK_EQ(taken(&v), 0);
}

/* NMI, INIT and SIPI to an id that a byte has no room for. */
static void test_beyond_byte(void)
{
	struct apic_vm v = apic_vm(true, false);
	struct kvm_sregs sregs;

	send(&v, NMI, 300);
	CHECK(nmi_pending(v.vcpu[3]) && !nmi_pending(v.vcpu[0]));
	send(&v, NMI | LOGICAL, 1 << 1);
	CHECK(nmi_pending(v.vcpu[1]) && !nmi_pending(v.vcpu[2]));
	send(&v, INIT | ASSERT, 300);
	CHECK_EQ(mp_state(v.vcpu[3]), KVM_MP_STATE_INIT_RECEIVED);
	CHECK_EQ(mp_state(v.vcpu[2]), KVM_MP_STATE_UNINITIALIZED);
	send(&v, STARTUP, 300);
	CHECK_EQ(mp_state(v.vcpu[3]), KVM_MP_STATE_RUNNABLE);
	CHECK_EQ(ioctl(v.vcpu[3], KVM_GET_SREGS, &sregs), 0);
	CHECK_EQ(sregs.cs.base, 0x30000);
	/* All others at once. */
	send(&v, INIT | ASSERT | OTHERS, 0);
	for (unsigned i = 1; i < NR_CPUS; i++)
		CHECK_EQ(mp_state(v.vcpu[i]), KVM_MP_STATE_INIT_RECEIVED);
}

/* x2APIC's register of its own: WRMSR 83Fh. */
static void test_self_register(void)
{
	static const uint8_t code[] = {0x0f, 0x30, 0xf4};
	struct kvm_regs regs = {.rip = CODE_GPA, .rflags = 2, .rcx = 0x83f, .rax = VECTOR};
	struct apic_vm v = apic_vm(true, false);

	memcpy(v.m.ram + CODE_GPA, code, sizeof(code));
	send(&v, FIXED | SELF, 0);
	CHECK_EQ(taken(&v), 1);
	CHECK_EQ(ioctl(v.m.vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(&v.m, KVM_EXIT_DEBUG);
	CHECK_EQ(taken(&v), 1);
}

static void signal_msi(struct apic_vm *v, uint32_t low, uint32_t high, uint32_t data, int answer)
{
	struct kvm_msi msi = {.address_lo = 0xfee00000 | low, .address_hi = high, .data = data};

	CHECK_EQ(ioctl(v->m.vm, KVM_SIGNAL_MSI, &msi), answer);
}

/* Destinations of MSIs: 8 bits, and with KVM_CAP_X2APIC_API's 32-bit format 24 more in the address's upper half. */
static void test_msis(void)
{
	struct kvm_msi bad = {.address_lo = 0xfee00000, .address_hi = 1, .data = VECTOR};
	struct apic_vm v = apic_vm(true, false);

	signal_msi(&v, 2 << 12, 0, VECTOR, 1);
	CHECK_EQ(taken(&v), 4);
	signal_msi(&v, 44 << 12, 0x100, VECTOR, 1); /* 300 */
	CHECK_EQ(taken(&v), 8);
	signal_msi(&v, 44 << 12, 0, VECTOR, 0);
	CHECK_EQ(taken(&v), 0);
	signal_msi(&v, 0x4 | 3 << 12, 0, VECTOR, 2); /* logical: two of cluster 0 */
	CHECK_EQ(taken(&v), 3);
	signal_msi(&v, 44 << 12, 0x100, NMI, 1);
	CHECK(nmi_pending(v.vcpu[3]));
	/* The upper half's low byte is reserved. */
	CHECK_ERR(ioctl(v.m.vm, KVM_SIGNAL_MSI, &bad), EINVAL);
}

/* ---- time ---- */

#define TURN 0x3000
#define LAST 0x3008

/*
 * BX: who it is. 1: cmp %bx,TURN; pause; jne 1b; rdtsc; cmp LAST+4,%edx; jb 3f; ja 2f; cmp LAST,%eax; jb 3f; 2: store;
 * xor $1 into TURN; loop 1b; out %al,$0x80; 3: out %al,$0x81
 */
static const uint8_t turns[] = {0x39, 0x1e, 0x00, 0x30, 0xf3, 0x90, 0x75, 0xf8, 0x0f, 0x31, 0x66,
				0x3b, 0x16, 0x0c, 0x30, 0x72, 0x1f, 0x77, 0x07, 0x66, 0x3b, 0x06,
				0x08, 0x30, 0x72, 0x16, 0x66, 0x89, 0x16, 0x0c, 0x30, 0x66, 0xa3,
				0x08, 0x30, 0x80, 0x36, 0x00, 0x30, 0x01, 0x66, 0x49, 0x75, 0xd4,
				0xe6, 0x80, 0xf4, 0x90, 0xe6, 0x81, 0xf4};

static void *take_turns(void *opaque)
{
	struct machine *m = opaque;

	RUN_TO(m, KVM_EXIT_IO);
	CHECK_EQ(m->run->io.port, 0x80);
	return NULL;
}

static void test_tsc(long ratio)
{
	struct machine m = machine_open(), other = m;
	struct kvm_regs regs;
	pthread_t thread;
	long khz;

	if (ratio) {
		khz = ioctl(m.vm, KVM_GET_TSC_KHZ, 0);
		CHECK_EQ(ioctl(m.vm, KVM_SET_TSC_KHZ, khz / 4 * ratio), 0);
	}
	machine_code(&m, turns, sizeof(turns));
	other.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 1);
	other.run = map_run(m.kvm, other.vcpu);
	machine_start(&other);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_REGS, &regs), 0);
	regs.rcx = 2000;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	regs.rbx = 1;
	CHECK_EQ(ioctl(other.vcpu, KVM_SET_REGS, &regs), 0);
	CHECK_EQ(pthread_create(&thread, NULL, take_turns, &other), 0);
	take_turns(&m);
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

int main(void)
{
	test_xapic();
	test_x2apic();
	test_nmi_and_startup(false);
	test_nmi_and_startup(true);
	test_smi(false);
	test_smi(true);
	test_beyond_byte();
	test_self_register();
	test_msis();
	test_tsc(0);
	test_tsc(3);
	test_tsc(10);
	return 0;
}
