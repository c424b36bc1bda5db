/* SPDX-License-Identifier: MIT */
/*
 * KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE for VMX (KVM api.rst, struct kvm_vmx_nested_state_hdr): every field broken in
 * turn, with the errno that Linux 6.12's vmx_set_nested_state() gives for it, and what a program does to leave VMX operation.
 *
 * Then guest mode: a VMCS that is taken, each of its fields spoiled in turn, and a guest's guest that waits for a SIPI, or
 * is halted, and exits by INIT and SIPI to a hypervisor of a few bytes.
 */
#include "nested_state.h"
#include "pv.h"
#include "silicon/vmx/vmx.h"

#define NONE	     (~0ull)
#define VMXON	     0x2000ull
#define VMCS	     0x3000ull
#define REVISION     0x11e57ed0u
#define FEAT_CTL     0x3a
#define UNKNOWN_FLAG 0x8000

static struct nested_state off(void)
{
	struct nested_state s = {.head.size = NESTED_HEAD};

	s.head.hdr.vmx.vmxon_pa = s.head.hdr.vmx.vmcs12_pa = NONE;
	return s;
}

/* In VMX operation with a current VMCS. */
static struct nested_state on(void)
{
	struct nested_state s = off();
	uint32_t revision = REVISION;

	s.head.size = NESTED_HEAD + 4096;
	s.head.hdr.vmx.vmxon_pa = VMXON;
	s.head.hdr.vmx.vmcs12_pa = VMCS;
	memcpy(s.data, &revision, sizeof(revision));
	return s;
}

static void is_off(int vcpu)
{
	struct nested_state s = nested_get(vcpu);

	CHECK_EQ(s.head.size, NESTED_HEAD);
	CHECK_EQ(s.head.flags, 0);
	CHECK_EQ(s.head.hdr.vmx.vmxon_pa, NONE);
	CHECK_EQ(s.head.hdr.vmx.vmcs12_pa, NONE);
}

static void is_on(int vcpu)
{
	struct nested_state s = nested_get(vcpu);

	CHECK_EQ(s.head.size, NESTED_HEAD + 4096);
	CHECK_EQ(s.head.hdr.vmx.vmxon_pa, VMXON);
	CHECK_EQ(s.head.hdr.vmx.vmcs12_pa, VMCS);
}

/* Refused for its header: what was there stays. */
static void refused(int vcpu, const struct nested_state *s)
{
	struct nested_state good = on();

	CHECK_EQ(nested_set(vcpu, &good), 0);
	CHECK_ERR(nested_set(vcpu, s), EINVAL);
	is_on(vcpu);
}

#define REFUSED(vcpu, field, value)             \
	do {                                    \
		struct nested_state bad = on(); \
		bad.field = value;              \
		refused(vcpu, &bad);            \
	} while (0)

static void test_header(int vcpu)
{
	struct nested_state s = off();

	REFUSED(vcpu, head.size, NESTED_HEAD - 1);
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
static void half_taken(int vcpu, const struct nested_state *s)
{
	struct nested_state clean = off();

	CHECK_EQ(nested_set(vcpu, &clean), 0);
	CHECK_ERR(nested_set(vcpu, s), EINVAL);
	CHECK_EQ(nested_get(vcpu).head.hdr.vmx.vmxon_pa, VMXON);
	CHECK_EQ(nested_get(vcpu).head.flags, 0);
}

#define HALF_TAKEN(vcpu, field, value)          \
	do {                                    \
		struct nested_state bad = on(); \
		bad.field = value;              \
		half_taken(vcpu, &bad);         \
	} while (0)

static void test_body(int vcpu)
{
	HALF_TAKEN(vcpu, head.size, NESTED_HEAD + 4095);
	HALF_TAKEN(vcpu, head.hdr.vmx.vmcs12_pa, VMXON);
	HALF_TAKEN(vcpu, head.hdr.vmx.vmcs12_pa, VMCS + 8);
	HALF_TAKEN(vcpu, head.hdr.vmx.vmcs12_pa, NONE);
	HALF_TAKEN(vcpu, data[0], 0);
	/* An empty VMCS has controls that no entry takes. */
	HALF_TAKEN(vcpu, head.flags, KVM_STATE_NESTED_GUEST_MODE);
}

static void test_get(int vcpu)
{
	struct nested_state s = on(), small = {.head.size = NESTED_HEAD};

	CHECK_EQ(nested_set(vcpu, &s), 0);
	CHECK_ERR(ioctl(vcpu, KVM_GET_NESTED_STATE, &small), E2BIG);
	CHECK_EQ(small.head.size, NESTED_HEAD + 4096);
	CHECK_ERR(ioctl(vcpu, KVM_GET_NESTED_STATE, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(vcpu, KVM_SET_NESTED_STATE, BAD_POINTER), EFAULT);
	s = nested_get(vcpu);
	CHECK_EQ(nested_set(vcpu, &s), 0);
	is_on(vcpu);
}

/* VMX operation without a VMCS. */
static void test_no_vmcs(int vcpu)
{
	struct nested_state s = on();

	s.head.size = NESTED_HEAD;
	s.head.hdr.vmx.vmcs12_pa = NONE;
	CHECK_EQ(nested_set(vcpu, &s), 0);
	s = nested_get(vcpu);
	CHECK_EQ(s.head.size, NESTED_HEAD);
	CHECK_EQ(s.head.hdr.vmx.vmxon_pa, VMXON);
}

/* QEMU clears IA32_FEATURE_CONTROL before it sets registers at reset. */
static void test_leave(int vcpu)
{
	struct nested_state s = on();

	CHECK_EQ(nested_set(vcpu, &s), 0);
	CHECK_EQ(msr_set(vcpu, FEAT_CTL, 0), 1);
	is_off(vcpu);
	CHECK_EQ(nested_set(vcpu, &s), 0);
	s = off();
	CHECK_EQ(nested_set(vcpu, &s), 0);
	is_off(vcpu);
}

/* ---- guest mode ---- */

#define TABLES	 0x4000u /* EPT: four levels */
#define DIR	 0x8000u /* the hypervisor's page directory */
#define HOST_RIP 0xb000u
#define MSR_LIST 0xc000u

/* A 32-bit hypervisor with paging, whose guest is unrestricted and has no paging. */
static const struct {
	enum vmcs_field f;
	uint64_t val;
} enters[] = {
	{VMCS_PIN_CTLS, 0x16},	     {VMCS_CPU_CTLS, 0x84006172},
	{VMCS_CPU2_CTLS, 0x82},	     {VMCS_EXIT_CTLS, 0x36dfb},
	{VMCS_ENTRY_CTLS, 0x11fb},   {VMCS_EPTP, TABLES | 0x1e},
	{VMCS_TSC_MULTIPLIER, 1},    {VMCS_LINK_POINTER, NONE},
	{VMCS_HOST_CR0, 0x80000031}, {VMCS_HOST_CR3, DIR},
	{VMCS_HOST_CR4, 0x2010},     {VMCS_HOST_RIP, HOST_RIP},
	{VMCS_HOST_CS_SEL, 8},	     {VMCS_HOST_SS_SEL, 0x10},
	{VMCS_HOST_TR_SEL, 0x18},    {VMCS_CR0, 0x31},
	{VMCS_CR4, 0x2000},	     {VMCS_CS_SEL, 8},
	{VMCS_CS_AR, 0xc09b},	     {VMCS_CS_LIMIT, 0xffffffff},
	{VMCS_SS_SEL, 0x10},	     {VMCS_SS_AR, 0xc093},
	{VMCS_SS_LIMIT, 0xffffffff}, {VMCS_DS_AR, 0x10000},
	{VMCS_ES_AR, 0x10000},	     {VMCS_FS_AR, 0x10000},
	{VMCS_GS_AR, 0x10000},	     {VMCS_LDTR_AR, 0x10000},
	{VMCS_TR_SEL, 0x18},	     {VMCS_TR_AR, 0x8b},
	{VMCS_TR_LIMIT, 0x67},	     {VMCS_RFLAGS, 2},
	{VMCS_RIP, CODE_GPA},	     {VMCS_DR7, 0x400},
};

static uint64_t *field(struct nested_state *s, enum vmcs_field f)
{
	return &((struct vmcs_image *)s->data)->f[f];
}

static struct nested_state in_guest(void)
{
	struct nested_state s = on();

	s.head.flags = KVM_STATE_NESTED_GUEST_MODE;
	for (unsigned i = 0; i < ARRAY_SIZE(enters); i++)
		*field(&s, enters[i].f) = enters[i].val;
	return s;
}

static void put64(const struct machine *m, uint32_t at, uint64_t val)
{
	memcpy(m->ram + at, &val, sizeof(val));
}

static struct machine nesting_machine(void)
{
	struct machine m = machine_irqchip();

	MACHINE_CODE(&m, 0x90, 0xeb, 0xfd); /* nop; jmp */
	set_supported_cpuid(m.kvm, m.vcpu);
	put64(&m, TABLES, (TABLES + 0x1000) | 7);
	put64(&m, TABLES + 0x1000, (TABLES + 0x2000) | 7);
	put64(&m, TABLES + 0x2000, 0xb7);
	put64(&m, DIR, 0x83);
	memcpy(m.ram + HOST_RIP, "\xe6\x80\xf4", 3); /* out %al,$0x80; hlt */
	return m;
}

static const struct {
	enum vmcs_field f;
	uint64_t val;
} broken[] = {
	{VMCS_PIN_CTLS, 0},
	{VMCS_CPU_CTLS, 0x84006173},
	{VMCS_CPU2_CTLS, 0x80},
	{VMCS_EXIT_CTLS, 0},
	{VMCS_ENTRY_CTLS, 0x13fb},
	{VMCS_EPTP, TABLES | 0x1d},
	{VMCS_CR3_TARGET_COUNT, 5},
	{VMCS_HOST_CR0, 0x31},
	{VMCS_HOST_CR4, 0},
	{VMCS_HOST_CS_SEL, 0},
	{VMCS_HOST_TR_SEL, 4},
	{VMCS_HOST_CR3, 1ull << 52},
	{VMCS_CR0, 0},
	{VMCS_CR4, 0},
	{VMCS_RFLAGS, 0},
	{VMCS_CS_AR, 0},
	{VMCS_SS_AR, 0xc09b},
	{VMCS_TR_AR, 0x10000},
	{VMCS_ACTIVITY, 4},
	{VMCS_INTERRUPTIBILITY, 3},
	{VMCS_LINK_POINTER, 1},
	{VMCS_ENTRY_INTR_INFO, 0x80000100},
};

/* Refused with EINVAL, out of guest mode, but in VMX operation with that VMCS, as in KVM. */
static void test_broken(void)
{
	struct machine m = nesting_machine();
	struct nested_state s = in_guest();

	CHECK_EQ(nested_set(m.vcpu, &s), 0);
	CHECK_EQ(nested_get(m.vcpu).head.flags, KVM_STATE_NESTED_GUEST_MODE);
	for (unsigned i = 0; i < ARRAY_SIZE(broken); i++) {
		s = in_guest();
		*field(&s, broken[i].f) = broken[i].val;
		CHECK_ERR(nested_set(m.vcpu, &s), EINVAL);
		CHECK_EQ(nested_get(m.vcpu).head.flags, 0);
		CHECK_EQ(nested_get(m.vcpu).head.hdr.vmx.vmcs12_pa, VMCS);
	}
}

/* Whatever stands in a field: taken whole, or refused, and a vCPU that was refused runs its hypervisor. */
static void test_each_field(void)
{
	static const uint64_t vals[] = {~0ull, 0, 1, 1ull << 63, 0x5555555555555555};
	struct machine m = nesting_machine();

	for (unsigned i = 0; i < NR_VMCS_FIELDS * ARRAY_SIZE(vals); i++) {
		struct nested_state s = in_guest(), clean = off();
		int r;

		*field(&s, i / ARRAY_SIZE(vals)) = vals[i % ARRAY_SIZE(vals)];
		r = nested_set(m.vcpu, &s);
		CHECK(!r || errno == EINVAL);
		CHECK_EQ(nested_get(m.vcpu).head.flags, r ? 0 : KVM_STATE_NESTED_GUEST_MODE);
		CHECK_EQ(nested_set(m.vcpu, &clean), 0);
	}
}

static void set_mp_state(const struct machine *m, uint32_t state)
{
	struct kvm_mp_state mp = {.mp_state = state};

	CHECK_EQ(ioctl(m->vcpu, KVM_SET_MP_STATE, &mp), 0);
}

static void send_init(const struct machine *m)
{
	struct kvm_msi msi = {.address_lo = 0xfee00000, .data = 0x4500};

	CHECK_EQ(ioctl(m->vm, KVM_SIGNAL_MSI, &msi), 1);
}

/* The exit is made, and the hypervisor runs: reason, qualification, and how the guest was. */
static void left_by(const struct machine *m, uint32_t reason, uint64_t qualification,
		    uint64_t activity)
{
	struct nested_state s;

	CHECK_EQ(ioctl(m->vcpu, KVM_RUN, 0), 0);
	CHECK_EQ(m->run->exit_reason, KVM_EXIT_IO);
	s = nested_get(m->vcpu);
	CHECK_EQ(s.head.flags, 0);
	CHECK_EQ(*field(&s, VMCS_EXIT_REASON), reason);
	CHECK_EQ(*field(&s, VMCS_EXIT_QUALIFICATION), qualification);
	CHECK_EQ(*field(&s, VMCS_ACTIVITY), activity);
}

static uint32_t get_mp_state(const struct machine *m)
{
	struct kvm_mp_state mp;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_MP_STATE, &mp), 0);
	return mp.mp_state;
}

static void test_init_sipi(void)
{
	struct machine m = nesting_machine();
	struct nested_state s = in_guest();

	lapic_enable(&m);
	/* Running, halted, shut down: INIT is an exit, and shows which it was. */
	for (unsigned activity = 0; activity <= 2; activity++) {
		s = in_guest();
		*field(&s, VMCS_ACTIVITY) = activity;
		CHECK_EQ(nested_set(m.vcpu, &s), 0);
		set_mp_state(&m, activity ? KVM_MP_STATE_HALTED : KVM_MP_STATE_RUNNABLE);
		CHECK_EQ(*field(&s, VMCS_ACTIVITY), activity);
		send_init(&m);
		left_by(&m, 3, 0, activity);
		CHECK_EQ(get_mp_state(&m), KVM_MP_STATE_RUNNABLE);
	}
	/* Waiting for a SIPI: INIT is lost, the SIPI an exit. */
	s = in_guest();
	*field(&s, VMCS_ACTIVITY) = 3;
	CHECK_EQ(nested_set(m.vcpu, &s), 0);
	send_init(&m);
	set_mp_state(&m, KVM_MP_STATE_SIPI_RECEIVED);
	left_by(&m, 4, 0, 3);
	CHECK_EQ(get_mp_state(&m), KVM_MP_STATE_RUNNABLE);
}

/* An exit that cannot load its MSRs is a VMX abort: to the program, a shutdown. */
static void test_abort(void)
{
	struct machine m = nesting_machine();
	struct nested_state s = in_guest();

	lapic_enable(&m);
	*field(&s, VMCS_EXIT_MSR_LOAD_COUNT) = 1;
	*field(&s, VMCS_EXIT_MSR_LOAD_ADDR) = MSR_LIST;
	put64(&m, MSR_LIST, 0x808);
	CHECK_EQ(nested_set(m.vcpu, &s), 0);
	send_init(&m);
	CHECK_EQ(ioctl(m.vcpu, KVM_RUN, 0), 0);
	CHECK_EQ(m.run->exit_reason, KVM_EXIT_SHUTDOWN);
	CHECK_EQ(*(uint32_t *)(m.ram + VMCS + 4), 4);
}

/* ---- anykvm.report_missed_checks ---- */

#define VMLAUNCH_OUT "\x0f\x01\xc2\xe6\x80\xf4" /* vmlaunch; out %al,$0x80; hlt */

static const struct {
	enum vmcs_field f;
	uint64_t val;
	const char *said;
} missed[] = {
	{VMCS_CR3_TARGET_COUNT, 5, "VM entry refused: control check"},
	{VMCS_HOST_CR4, 0, "VM entry refused: host check"},
	{VMCS_ACTIVITY, 4, "VM entry refused: guest check"},
};
static const char *const missed_value[] = {"CR3_TARGET_COUNT 0x5", "HOST_CR4 0", "ACTIVITY 0x4"};

/* The hypervisor at its VMLAUNCH, in 32-bit mode. */
static void at_vmlaunch(const struct machine *m, struct nested_state *s)
{
	struct kvm_segment flat = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {.rip = CODE_GPA, .rflags = 2};
	struct kvm_sregs sregs = sregs_of(m->vcpu);

	memcpy(m->ram + CODE_GPA, VMLAUNCH_OUT, sizeof(VMLAUNCH_OUT));
	s->head.flags = 0;
	sregs.cs = flat;
	flat.type = 3;
	flat.selector = 16;
	sregs.ds = sregs.es = sregs.ss = flat;
	sregs.cr0 = 0x80000031;
	sregs.cr3 = DIR;
	sregs.cr4 = 0x2010;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SREGS, &sregs), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
	CHECK_EQ(nested_set(m->vcpu, s), 0);
}

/* A refused entry is told, with the check's name and what stood there, if that is asked for. */
static void test_missed_checks(bool reported)
{
	struct machine m = nesting_machine();

	for (unsigned i = 0; i < ARRAY_SIZE(missed); i++) {
		struct nested_state s = in_guest();
		char said[4096];
		int saved, file;

		*field(&s, missed[i].f) = missed[i].val;
		at_vmlaunch(&m, &s);
		file = nested_listen(&saved);
		CHECK_EQ(ioctl(m.vcpu, KVM_RUN, 0), 0);
		nested_heard(file, saved, said);
		CHECK_EQ(m.run->exit_reason, KVM_EXIT_IO);
		CHECK_EQ(!!strstr(said, missed[i].said), reported);
		CHECK_EQ(!!strstr(said, missed_value[i]), reported);
	}
}

int main(int argc, char **argv)
{
	int kvm = open_kvm(), vm = create_vm(kvm), vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	struct nested_state s = on();

	CHECK(vcpu >= 0);
	is_off(vcpu);
	/* Without VMX in the guest's CPUID. */
	CHECK_ERR(nested_set(vcpu, &s), EINVAL);
	set_supported_cpuid(kvm, vcpu);
	test_header(vcpu);
	test_body(vcpu);
	test_get(vcpu);
	test_no_vmcs(vcpu);
	test_leave(vcpu);
	test_broken();
	test_each_field();
	test_init_sipi();
	test_abort();
	test_missed_checks(argc > 1);
	return 0;
}
