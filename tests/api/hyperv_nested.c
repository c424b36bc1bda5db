/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V's enlightened VMCS as a program and its guest meet it (the TLFS; KVM api.rst; Linux 6.12's answers): the capability, CPUID,
 * capability MSRs that are cut for the guest only, VMX instructions around an enlightened VMCS that does not enter, and the
 * nested state that has one. The guest is flat 32-bit code, put into VMX operation by its nested state.
 */
#include "nested_state.h"
#include "pv.h"

#include <signal.h>

#define MSR_ASSIST	 0x40000073
#define MSR_VMX_PIN	 0x481
#define MSR_VMX_CPU2	 0x48b
#define MSR_VMX_TRUE_PIN 0x48d

#define ASSIST	 0x8000u
#define EVMCS	 0x9000u
#define VMXON	 0xa000ull
#define OPERAND	 0xb000u
#define STACK	 0xc000u
#define NOTHING	 0x40000000ull /* no memory there */
#define NONE	 (~0ull)
#define REVISION 0x11e57ed0u

/* In the assist page. */
#define DIRECT	   32
#define ENLIGHTEN  40
#define NESTED_PTR 48
/* In the enlightened VMCS. */
#define PFEC_MASK 0x178
#define ERROR	  0x2b0
#define GUEST_RIP 0x330
#define CLEAN	  0x338

#define FLAG_CF 1u
#define FLAG_ZF 0x40u

#define CODE(name, text)                                                                  \
	asm(".pushsection .rodata\n.code32\n" #name ":\n" text                            \
	    "\npushf\npop %eax\nout %eax,$0x80\n" #name "_end:\n.code64\n.popsection\n"); \
	extern const uint8_t name[], name##_end[]

CODE(launch, "vmlaunch");
CODE(resume, "vmresume");
CODE(clear, "vmclear 0xb000");
CODE(load, "vmptrld 0xb000");
CODE(store, "vmptrst 0xb000");
CODE(read_field, "vmread %ebx,%ecx");
CODE(write_field, "vmwrite %ecx,%ebx");
CODE(read_msr, "rdmsr\nmov %edx,0xb000\nmov %eax,0xb004");

static void flat32(const struct machine *m)
{
	struct kvm_segment data = {
		.limit = ~0u, .selector = 8, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_sregs s;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_SREGS, &s), 0);
	s.ds = s.es = s.ss = s.fs = s.gs = data;
	s.cs = data;
	s.cs.type = 11;
	s.cr0 |= 1;
	s.idt.limit = 0;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SREGS, &s), 0);
}

static struct nested_state vmx_on(void)
{
	struct nested_state s = {.head.size = NESTED_HEAD};

	s.head.hdr.vmx.vmxon_pa = VMXON;
	s.head.hdr.vmx.vmcs12_pa = NONE;
	return s;
}

static void put32(const struct machine *m, uint32_t at, uint32_t val)
{
	memcpy(m->ram + at, &val, sizeof(val));
}

static uint32_t get32(const struct machine *m, uint32_t at)
{
	uint32_t val;

	memcpy(&val, m->ram + at, sizeof(val));
	return val;
}

static void point(const struct machine *m, uint64_t gpa)
{
	m->ram[ASSIST + ENLIGHTEN] = 1;
	memcpy(m->ram + ASSIST + NESTED_PTR, &gpa, sizeof(gpa));
}

/* VMX operation, an assist page that names an enlightened VMCS, and all zero there but its version. */
static struct machine hypervisor(void)
{
	struct machine m = machine_irqchip();
	struct nested_state s = vmx_on();
	uint16_t version;

	MACHINE_CODE(&m, 0xf4);
	CHECK_EQ(enable_cap(m.vcpu, KVM_CAP_HYPERV_ENLIGHTENED_VMCS, (uint64_t)&version), 0);
	CHECK_EQ(version, 0x101);
	set_hyperv_cpuid(m.kvm, m.vcpu);
	flat32(&m);
	CHECK_EQ(nested_set(m.vcpu, &s), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_ASSIST, ASSIST | 1), 1);
	point(&m, EVMCS);
	put32(&m, EVMCS, 1);
	return m;
}

static void go(const struct machine *m, const uint8_t *code, const uint8_t *end, uint32_t rbx,
	       uint32_t rcx)
{
	struct kvm_regs regs = {.rip = CODE_GPA, .rsp = STACK, .rflags = 2, .rbx = rbx, .rcx = rcx};

	memcpy(m->ram + CODE_GPA, code, end - code);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_RUN, 0), 0);
}

/* Its flags behind the instruction. */
static uint32_t flags(const struct machine *m, const uint8_t *code, const uint8_t *end,
		      uint32_t rbx, uint32_t rcx)
{
	uint32_t val;

	go(m, code, end, rbx, rcx);
	CHECK_EQ(m->run->exit_reason, KVM_EXIT_IO);
	memcpy(&val, (uint8_t *)m->run + m->run->io.data_offset, sizeof(val));
	/* The OUT is done before registers are set. */
	m->run->immediate_exit = 1;
	CHECK_ERR(ioctl(m->vcpu, KVM_RUN, 0), EINTR);
	m->run->immediate_exit = 0;
	return val & (FLAG_CF | FLAG_ZF);
}

#define FLAGS(m, code, rbx, rcx) flags(m, code, code##_end, rbx, rcx)

static uint64_t rcx(const struct machine *m)
{
	struct kvm_regs regs;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	return regs.rcx;
}

/* ---- the program ---- */

static struct kvm_cpuid_entry2 leaf(int fd, uint32_t function)
{
	static struct cpuid_list hv;

	hv.head.nent = 16;
	CHECK_EQ(ioctl(fd, KVM_GET_SUPPORTED_HV_CPUID, &hv), 0);
	for (unsigned i = 0; i < hv.head.nent; i++)
		if (hv.v[i].function == function)
			return hv.v[i];
	CHECK(!"leaf");
	return hv.v[0];
}

static void test_cap(void)
{
	struct machine m = machine_open();
	struct kvm_enable_cap cap = {.cap = KVM_CAP_HYPERV_ENLIGHTENED_VMCS, .flags = 1};

	MACHINE_CODE(&m, 0xf4);
	CHECK_EQ(ioctl(m.kvm, KVM_CHECK_EXTENSION, KVM_CAP_HYPERV_ENLIGHTENED_VMCS), 1);
	CHECK_EQ(ioctl(m.kvm, KVM_CHECK_EXTENSION, KVM_CAP_HYPERV_DIRECT_TLBFLUSH), 0);
	CHECK_ERR(ioctl(m.vcpu, KVM_ENABLE_CAP, &cap), EINVAL);
	/* Of the vCPU only where it is enabled, of the system in any case. */
	CHECK_EQ(leaf(m.kvm, 0x4000000a).eax, 0xa0101);
	CHECK_EQ(leaf(m.kvm, 0x40000004).eax >> 14 & 1, 1);
	CHECK_EQ(leaf(m.vcpu, 0x4000000a).eax, 0xa0000);
	CHECK_EQ(leaf(m.vcpu, 0x4000000a).ebx, 1);
	CHECK_EQ(leaf(m.vcpu, 0x40000004).eax >> 14 & 1, 0);
	/* It is enabled before the answer is copied. */
	CHECK_ERR(enable_cap(m.vcpu, KVM_CAP_HYPERV_ENLIGHTENED_VMCS, 8), EFAULT);
	CHECK_EQ(leaf(m.vcpu, 0x4000000a).eax, 0xa0101);
	CHECK_EQ(leaf(m.vcpu, 0x40000004).eax >> 14 & 1, 1);
}

static uint64_t guest_msr(const struct machine *m, uint32_t index)
{
	FLAGS(m, read_msr, 0, index);
	return (uint64_t)get32(m, OPERAND) << 32 | get32(m, OPERAND + 4);
}

/* Posted interrupts and the preemption timer, PML, VM functions, shadow VMCS, scaling: there are no fields for them. */
static void test_msrs(void)
{
	struct machine m = hypervisor();
	uint64_t cpu2 = msr_get(m.vcpu, MSR_VMX_CPU2), pin = msr_get(m.vcpu, MSR_VMX_TRUE_PIN);

	CHECK(pin >> 32 & 0x40);
	CHECK_EQ(guest_msr(&m, MSR_VMX_TRUE_PIN), (pin & ~(0xc0ull << 32)));
	CHECK_EQ(guest_msr(&m, MSR_VMX_PIN) >> 32 & 0xc0, 0);
	CHECK(cpu2 >> 32 & 1 << 14);
	CHECK_EQ(guest_msr(&m, MSR_VMX_CPU2) >> 32 &
			 (1 | 3 << 8 | 1 << 10 | 3 << 13 | 1 << 17 | 1 << 25),
		 0);
	CHECK_EQ(guest_msr(&m, MSR_VMX_CPU2) >> 32 & 2, cpu2 >> 32 & 2);
	CHECK_EQ(msr_get(m.vcpu, MSR_VMX_CPU2), cpu2);
}

/* ---- the guest ---- */

static void test_launch(void)
{
	struct machine m = hypervisor();

	/* A version that there is not: VMfailInvalid, and nothing is active. */
	put32(&m, EVMCS, ~0u);
	CHECK_EQ(FLAGS(&m, launch, 0, 0), FLAG_CF);
	CHECK_EQ(nested_get(m.vcpu).head.flags, 0);
	/* Controls that are none: VMfailValid, with its number there. All that was marked clean is not. */
	put32(&m, EVMCS, 1);
	put32(&m, EVMCS + CLEAN, ~0u);
	CHECK_EQ(FLAGS(&m, launch, 0, 0), FLAG_ZF);
	CHECK_EQ(get32(&m, EVMCS + ERROR), 7);
	CHECK_EQ(get32(&m, EVMCS + CLEAN), 0xffff0000);
	CHECK_EQ(nested_get(m.vcpu).head.flags, KVM_STATE_NESTED_EVMCS);
	CHECK_EQ(nested_get(m.vcpu).head.hdr.vmx.vmcs12_pa, NONE);
	/* VMRESUME takes clean groups at their word. */
	put32(&m, EVMCS + CLEAN, 0xffff);
	CHECK_EQ(FLAGS(&m, resume, 0, 0), FLAG_ZF);
	CHECK_EQ(get32(&m, EVMCS + CLEAN), 0xffff);
	/* Hyper-V gives the revision of IA32_VMX_BASIC in place of a version. */
	put32(&m, EVMCS + 0x1000, REVISION);
	point(&m, EVMCS + 0x1000);
	CHECK_EQ(FLAGS(&m, resume, 0, 0), FLAG_ZF);
	CHECK_EQ(get32(&m, EVMCS + 0x1000 + ERROR), 7);
}

static void test_fields(void)
{
	struct machine m = hypervisor();

	/* Before the first VMLAUNCH there is no VMCS at all. */
	CHECK_EQ(FLAGS(&m, read_field, 0x681e, 0), FLAG_CF);
	CHECK_EQ(FLAGS(&m, launch, 0, 0), FLAG_ZF);
	put32(&m, EVMCS + GUEST_RIP, 0x1234);
	put32(&m, EVMCS + PFEC_MASK, 0x55);
	CHECK_EQ(FLAGS(&m, read_field, 0x681e, 0), 0);
	CHECK_EQ(rcx(&m), 0x1234);
	CHECK_EQ(FLAGS(&m, read_field, 0x4006, 0), 0);
	CHECK_EQ(rcx(&m), 0x55);
	/* The high half, a field that version 1 lacks, one that nobody has. */
	CHECK_EQ(FLAGS(&m, read_field, 0x2011, 0), FLAG_ZF);
	CHECK_EQ(get32(&m, EVMCS + ERROR), 12);
	CHECK_EQ(FLAGS(&m, read_field, 0x482e, 0), FLAG_ZF);
	CHECK_EQ(FLAGS(&m, read_field, 0x10000, 0), FLAG_ZF);
	CHECK_EQ(FLAGS(&m, write_field, 0x681e, 1), FLAG_CF);
	CHECK_EQ(get32(&m, EVMCS + GUEST_RIP), 0x1234);
}

static void test_clear(void)
{
	struct machine m = hypervisor();

	CHECK_EQ(FLAGS(&m, launch, 0, 0), FLAG_ZF);
	/* Another page is left alone, whatever it is; this one is not active any more. */
	memset(m.ram + EVMCS + 0x1000, 0xaa, 0x1000);
	put32(&m, OPERAND + 4, 0);
	put32(&m, OPERAND, 0xd000);
	memset(m.ram + 0xd000, 0xaa, 0x1000);
	CHECK_EQ(FLAGS(&m, clear, 0, 0), 0);
	CHECK_EQ(get32(&m, 0xd008), 0xaaaaaaaa);
	CHECK_EQ(nested_get(m.vcpu).head.flags, KVM_STATE_NESTED_EVMCS);
	put32(&m, OPERAND, EVMCS);
	CHECK_EQ(FLAGS(&m, clear, 0, 0), 0);
	CHECK_EQ(nested_get(m.vcpu).head.flags, 0);
	CHECK_EQ(FLAGS(&m, read_field, 0x681e, 0), FLAG_CF);
	put32(&m, OPERAND, EVMCS + 1);
	CHECK_EQ(FLAGS(&m, clear, 0, 0), FLAG_CF);
}

/* #UD without an IDT is the end. */
static void test_no_memory(void)
{
	struct machine m = hypervisor();

	point(&m, NOTHING);
	go(&m, launch, launch_end, 0, 0);
	CHECK_EQ(m.run->exit_reason, KVM_EXIT_SHUTDOWN);
}

static void test_not_enlightened(void)
{
	struct machine m = hypervisor();

	point(&m, NONE);
	CHECK_EQ(FLAGS(&m, launch, 0, 0), FLAG_CF);
	point(&m, EVMCS);
	m.ram[ASSIST + ENLIGHTEN] = 0;
	CHECK_EQ(FLAGS(&m, launch, 0, 0), FLAG_CF);
	m.ram[ASSIST + ENLIGHTEN] = 1;
	CHECK_EQ(msr_set(m.vcpu, MSR_ASSIST, 0), 1);
	CHECK_EQ(FLAGS(&m, launch, 0, 0), FLAG_CF);
}

static void rung(int sig)
{
}

/* VMPTRLD and VMPTRST do not come to an end beside an active one, but a signal reaches the program. */
static void stuck(const struct machine *m, const uint8_t *code, const uint8_t *end)
{
	struct kvm_regs regs = {.rip = CODE_GPA, .rsp = STACK, .rflags = 2};

	memcpy(m->ram + CODE_GPA, code, end - code);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
	ualarm(20000, 0);
	CHECK_ERR(ioctl(m->vcpu, KVM_RUN, 0), EINTR);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	CHECK_EQ(regs.rip, CODE_GPA);
}

static void test_pointers(void)
{
	struct machine m = hypervisor();
	const struct sigaction action = {.sa_handler = rung};

	sigaction(SIGALRM, &action, NULL);
	CHECK_EQ(FLAGS(&m, launch, 0, 0), FLAG_ZF);
	put32(&m, OPERAND + 4, 0);
	put32(&m, OPERAND, 0xd000);
	put32(&m, 0xd000, REVISION);
	stuck(&m, load, load_end);
	stuck(&m, store, store_end);
}

/* ---- nested state ---- */

static struct nested_state with_evmcs(void)
{
	struct nested_state s = vmx_on();
	uint32_t revision = REVISION;

	s.head.flags = KVM_STATE_NESTED_EVMCS;
	s.head.size = NESTED_HEAD + 4096;
	memcpy(s.data, &revision, sizeof(revision));
	return s;
}

static void test_state_refused(void)
{
	struct machine m = machine_irqchip();
	struct nested_state s = with_evmcs();
	uint16_t version;

	MACHINE_CODE(&m, 0xf4);
	set_hyperv_cpuid(m.kvm, m.vcpu);
	CHECK_ERR(nested_set(m.vcpu, &s), EINVAL);
	CHECK_EQ(enable_cap(m.vcpu, KVM_CAP_HYPERV_ENLIGHTENED_VMCS, (uint64_t)&version), 0);
	s.head.size = NESTED_HEAD;
	CHECK_ERR(nested_set(m.vcpu, &s), EINVAL);
	s = with_evmcs();
	s.head.flags = 0;
	CHECK_ERR(nested_set(m.vcpu, &s), EINVAL);
	s = with_evmcs();
	s.data[0] ^= 1;
	CHECK_ERR(nested_set(m.vcpu, &s), EINVAL);
	/* The flag alone was once how the capability was asked for. */
	s = vmx_on();
	s.head.flags = KVM_STATE_NESTED_EVMCS;
	s.head.hdr.vmx.vmxon_pa = NONE;
	CHECK_EQ(nested_set(m.vcpu, &s), 0);
	CHECK_EQ(nested_get(m.vcpu).head.flags, 0);
}

/* The place is looked up when the vCPU runs, and what was restored is written there. */
static void test_state_resumed(void)
{
	struct machine m = hypervisor();
	struct nested_state s;

	put32(&m, EVMCS + GUEST_RIP, 0x4321);
	CHECK_EQ(FLAGS(&m, launch, 0, 0), FLAG_ZF);
	s = nested_get(m.vcpu);
	CHECK_EQ(s.head.size, NESTED_HEAD + 4096);
	put32(&m, EVMCS + GUEST_RIP, 0);
	put32(&m, EVMCS + ERROR, 0);
	CHECK_EQ(nested_set(m.vcpu, &s), 0);
	CHECK_EQ(nested_get(m.vcpu).head.flags, KVM_STATE_NESTED_EVMCS);
	CHECK_EQ(get32(&m, EVMCS + GUEST_RIP), 0);
	CHECK_EQ(FLAGS(&m, read_field, 0x681e, 0), 0);
	CHECK_EQ(rcx(&m), 0x4321);
	CHECK_EQ(get32(&m, EVMCS + ERROR), 7);
}

static void test_state_lost(void)
{
	struct machine m = hypervisor();
	struct nested_state s = with_evmcs();

	/* Nothing is there: KVM_RUN returns, and says no reason. */
	point(&m, NOTHING);
	CHECK_EQ(nested_set(m.vcpu, &s), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_RUN, 0), 0);
	CHECK_EQ(m.run->exit_reason, KVM_EXIT_UNKNOWN);
	/* The guest gave it up. */
	point(&m, NONE);
	CHECK_EQ(nested_set(m.vcpu, &s), 0);
	CHECK_EQ(FLAGS(&m, read_field, 0x681e, 0), FLAG_CF);
	CHECK_EQ(nested_get(m.vcpu).head.flags, 0);
}

int main(void)
{
	test_cap();
	test_msrs();
	test_launch();
	test_fields();
	test_clear();
	test_no_memory();
	test_not_enlightened();
	test_pointers();
	test_state_refused();
	test_state_resumed();
	test_state_lost();
	return 0;
}
