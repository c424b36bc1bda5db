/* SPDX-License-Identifier: MIT */
/*
 * repeated: all clocks and random numbers that a guest has, printed, for runs to be compared (docs/deterministic.md). In each round the guest
 * reads the TSC, Hyper-V's time reference counter, RDRAND and RDSEED, arms its TSC deadline, halts, and reads the TSC in the timer's
 * interrupt; the program prints these, KVM_GET_CLOCK, and what kvmclock's, Hyper-V's and Xen's pages say.
 */
#include "long_mode.h"
#include "pv.h"

#include <linux/kvm_para.h>

#define ROUNDS	   50
#define VALUES_GPA 0xc000
#define CLOCK_GPA  0xd000
#define HV_TSC_GPA 0xe000
#define XEN_GPA	   0xb000
#define TIMER	   0x30
#define HANDLER	   16 /* from the code's beginning */

/* Into [RDI + disp]: EDX:EAX. */
#define KEEP(disp)	"shl rdx, 32\n or rax, rdx\n mov [rdi + " #disp "], rax\n"
#define WRMSR(msr, val) "mov ecx, " #msr "\n xor edx, edx\n mov eax, " #val "\n wrmsr\n"

GUEST_CODE(
	repeated,
	"jmp 1f\n .balign 16\n rdtsc\n" KEEP(40) WRMSR(
		0x80b,
		0) "iretq\n"
		   "1: mov edi, 0xc000\n mov ebp, 50\n" WRMSR(0x4b564d01, 0xd001) WRMSR(
			   0x40000000, 1) WRMSR(0x40000021, 0xe001) WRMSR(0x80f, 0x1ff)
			   WRMSR(0x832, 0x40030) "2: rdtsc\n" KEEP(
				   0) "mov ecx, 0x40000020\n rdmsr\n" KEEP(8) "3: rdrand rax\n jnc "
									      "3b\n mov [rdi + "
									      "16], rax\n"
									      "4: rdseed rax\n jnc "
									      "4b\n mov [rdi + "
									      "24], rax\n"
									      "rdtsc\n shl rdx, "
									      "32\n or rax, rdx\n "
									      "add rax, 20000\n "
									      "mov [rdi + 32], "
									      "rax\n"
									      "mov rdx, rax\n shr "
									      "rdx, 32\n mov ecx, "
									      "0x6e0\n wrmsr\n "
									      "sti\n hlt\n cli\n"
									      "out 0x80, al\n dec "
									      "ebp\n jnz 2b\n hlt");

static void give_features(const struct machine *m)
{
	struct cpuid_list c = {.head.nent = CPUID_ENTRIES};

	set_hyperv_cpuid(m->kvm, m->vcpu);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_CPUID2, &c), 0);
	for (unsigned i = 0; i < c.head.nent; i++)
		if (c.v[i].function == 1)
			c.v[i].ecx |= 1u << 24 | 1u << 21; /* TSC deadline, x2APIC */
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_CPUID2, &c), 0);
}

static void give_xen_time(const struct machine *m)
{
	struct kvm_xen_hvm_config config = {.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
					    .msr = 0x41000000};
	struct kvm_xen_vcpu_attr time = {.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
					 .u.gpa = XEN_GPA};

	CHECK_EQ(ioctl(m->vm, KVM_XEN_HVM_CONFIG, &config), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_XEN_VCPU_SET_ATTR, &time), 0);
}

static void print_bytes(const char *name, const uint8_t *at, unsigned size)
{
	printf("%s", name);
	for (unsigned i = 0; i < size; i++)
		printf(" %02x", at[i]);
	printf("\n");
}

static void print_round(const struct machine *m)
{
	static const char *const names[] = {"tsc", "hv", "rdrand", "rdseed", "deadline", "woken"};
	struct kvm_clock_data clock;
	uint64_t v[6];

	memcpy(v, m->ram + VALUES_GPA, sizeof(v));
	for (unsigned i = 0; i < 6; i++)
		printf("%s %llu\n", names[i], (unsigned long long)v[i]);
	/* The timer is never early. */
	CHECK(v[5] >= v[4] && v[4] > v[0]);
	CHECK_EQ(ioctl(m->vm, KVM_GET_CLOCK, &clock), 0);
	printf("clock %llu\n", (unsigned long long)clock.clock);
	print_bytes("kvmclock", m->ram + CLOCK_GPA, 32);
	print_bytes("hv-page", m->ram + HV_TSC_GPA, 24);
	print_bytes("xen", m->ram + XEN_GPA, 32);
}

int main(void)
{
	struct machine m = machine_open();

	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	m.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 0);
	CHECK(m.vcpu >= 0);
	m.run = map_run(m.kvm, m.vcpu);
	give_features(&m);
	give_xen_time(&m);
	long_mode_memory(m.ram, repeated, repeated_end);
	long_mode_gate(m.ram, TIMER, LONG_CODE + HANDLER);
	long_mode_start(m.vcpu, LONG_CODE, LONG_STACK);
	for (unsigned i = 0; i < ROUNDS; i++) {
		RUN_TO(&m, KVM_EXIT_IO);
		print_round(&m);
	}
	return 0;
}
