/* SPDX-License-Identifier: MIT */
/*
 * AMX for guests: the permission that arch_prctl(2) gives the process, and what depends on it (KVM api.rst, KVM_CAP_XSAVE2 and
 * KVM_X86_XCOMP_GUEST_SUPP; Linux, fpu_xstate_prctl() and fpu_enable_guest_xfd_features()). Each test is a process of its own,
 * since permission is for good.
 */
#include "long_mode.h"

#include <sys/syscall.h>
#include <sys/wait.h>

#define GET_GUEST_PERM 0x1024
#define REQ_GUEST_PERM 0x1025
#define TILECFG	       (1u << 17)
#define TILEDATA       (1u << 18)
#define TILES	       (TILECFG | TILEDATA)
#define AMX_TILE       (1u << 24) /* of CPUID leaf 7, EDX */
#define XFD	       (1u << 4)  /* of leaf 0xd.1, EAX */
#define MSR_XFD	       0x1c4
#define MSR_XFD_ERR    0x1c5
#define SIZE	       11008
#define TILE_CONFIG    2752
#define TILE_DATA      2816
#define XSTATE_BV      512

static int prctl_get(uint64_t *ret)
{
	return syscall(SYS_arch_prctl, GET_GUEST_PERM, ret);
}

static int prctl_request(unsigned long component)
{
	return syscall(SYS_arch_prctl, REQ_GUEST_PERM, component);
}

static struct cpuid_list supported(int kvm)
{
	struct cpuid_list c;

	get_supported_cpuid(kvm, &c);
	return c;
}

static struct kvm_cpuid_entry2 *find(struct cpuid_list *c, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < c->head.nent; i++)
		if (c->v[i].function == leaf && c->v[i].index == subleaf)
			return &c->v[i];
	return NULL;
}

static uint64_t attribute(int kvm)
{
	uint64_t val = 0;
	struct kvm_device_attr attr = {.attr = KVM_X86_XCOMP_GUEST_SUPP, .addr = (uintptr_t)&val};

	CHECK_EQ(ioctl(kvm, KVM_HAS_DEVICE_ATTR, &attr), 0);
	CHECK_EQ(ioctl(kvm, KVM_GET_DEVICE_ATTR, &attr), 0);
	return val;
}

static struct machine with_vcpu(void)
{
	struct machine m = machine_open();

	MACHINE_CODE(&m, 0xf4);
	return m;
}

static int set_xcr0(int vcpu, uint64_t val)
{
	struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs = {{.value = val}}};

	return ioctl(vcpu, KVM_SET_XCRS, &x);
}

/* ---- without permission ---- */

static void test_not_asked(void)
{
	struct machine m = with_vcpu();
	struct cpuid_list c = supported(m.kvm);
	struct kvm_xsave x;
	uint64_t perm;

	CHECK_EQ(attribute(m.kvm) & TILES, TILES);
	CHECK_EQ(prctl_get(&perm), 0);
	CHECK_EQ(perm, attribute(m.kvm) & ~(uint64_t)TILEDATA);
	CHECK_EQ(ioctl(m.kvm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2), 4096);
	/* Features are shown, their state is not. */
	CHECK(find(&c, 7, 0)->edx & AMX_TILE);
	CHECK(find(&c, 0xd, 1)->eax & XFD);
	CHECK_EQ(find(&c, 0xd, 0)->eax & TILES, 0);
	CHECK(find(&c, 0xd, 0)->ecx <= 4096);
	CHECK(!find(&c, 0xd, 17) && !find(&c, 0xd, 18));
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_CPUID2, &c), 0);
	CHECK_ERR(set_xcr0(m.vcpu, 3 | TILES), EINVAL);
	CHECK_EQ(msr_set(m.vcpu, MSR_XFD, 0), 1);
	CHECK_EQ(msr_set(m.vcpu, MSR_XFD, TILEDATA), 0);
	/* The program may not show more than it has been permitted. */
	find(&c, 0xd, 0)->eax |= TILES;
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_CPUID2, &c), EPERM);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_XSAVE, &x), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_XSAVE, &x), 0);
	((uint64_t *)x.region)[XSTATE_BV / 8] |= TILEDATA;
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_XSAVE, &x), EINVAL);
	/* Too late now: there is a vCPU, and there was one. */
	CHECK_ERR(prctl_request(18), EBUSY);
	close(m.vcpu);
	close(m.vm);
	CHECK_ERR(prctl_request(18), EBUSY);
}

static void test_refused(void)
{
	uint64_t perm;

	CHECK_ERR(prctl_request(19), EINVAL);
	CHECK_ERR(prctl_request(~0ul), EINVAL);
	CHECK_ERR(prctl_request(17), EOPNOTSUPP);
	CHECK_ERR(prctl_request(2), EOPNOTSUPP);
	CHECK_ERR(prctl_get((uint64_t *)BAD_POINTER), EFAULT);
	CHECK_ERR(syscall(SYS_arch_prctl, 0x1026, 0), EINVAL);
	CHECK_EQ(prctl_get(&perm), 0);
	CHECK_EQ(perm & TILEDATA, 0);
	CHECK_EQ(syscall(SYS_getpid), getpid());
}

/* ---- with it ---- */

static void fixed_by_parent(void)
{
	uint64_t perm;

	CHECK_EQ(prctl_get(&perm), 0);
	CHECK_EQ(perm & TILEDATA, TILEDATA);
	CHECK_EQ(ioctl(open_kvm(), KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2), SIZE);
	exit(0);
}

static void in_child(void (*test)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		test();
		exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (status)
		exit(1);
}

static void test_shown(void)
{
	int kvm = open_kvm();
	struct cpuid_list c;

	CHECK_EQ(prctl_request(18), 0);
	CHECK_EQ(prctl_request(18), 0);
	c = supported(kvm);
	CHECK_EQ(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2), SIZE);
	CHECK_EQ(find(&c, 0xd, 0)->eax & TILES, TILES);
	CHECK_EQ(find(&c, 0xd, 0)->ecx, SIZE);
	CHECK_EQ(find(&c, 0xd, 17)->eax, 64);
	CHECK_EQ(find(&c, 0xd, 17)->ebx, TILE_CONFIG);
	CHECK_EQ(find(&c, 0xd, 18)->eax, 8192);
	CHECK_EQ(find(&c, 0xd, 18)->ebx, TILE_DATA);
	CHECK_EQ(find(&c, 0xd, 18)->ecx, 6);
	CHECK_EQ(find(&c, 0x1d, 0)->eax, 1);
	CHECK_EQ(find(&c, 0x1d, 1)->eax, 0x04002000);
	CHECK_EQ(find(&c, 0x1d, 1)->ebx, 0x00080040);
	CHECK_EQ(find(&c, 0x1d, 1)->ecx, 16);
	CHECK_EQ(find(&c, 0x1e, 0)->ebx, 0x4010);
	in_child(fixed_by_parent);
}

static void test_registers(void)
{
	static uint8_t image[SIZE];
	struct machine m;

	CHECK_EQ(prctl_request(18), 0);
	m = with_vcpu();
	CHECK_EQ(prctl_request(18), 0);
	/* The image grows with the CPUID. */
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_XSAVE, image), 0);
	set_supported_cpuid(m.kvm, m.vcpu);
	CHECK_ERR(ioctl(m.vcpu, KVM_GET_XSAVE, image), EINVAL);
	CHECK_ERR(ioctl(m.vcpu, KVM_GET_XSAVE2, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_XSAVE, BAD_POINTER), EFAULT);
	/* both or none */
	CHECK_ERR(set_xcr0(m.vcpu, 3 | TILECFG), EINVAL);
	CHECK_ERR(set_xcr0(m.vcpu, 3 | TILEDATA), EINVAL);
	CHECK_EQ(set_xcr0(m.vcpu, 3 | TILES), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_XFD, TILECFG), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_XFD, 1), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_XFD_ERR, 1ull << 63), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_XFD, TILEDATA), 1);
	CHECK_EQ(msr_set(m.vcpu, MSR_XFD_ERR, TILEDATA), 1);
	CHECK_EQ(msr_get(m.vcpu, MSR_XFD), TILEDATA);
	CHECK_EQ(msr_get(m.vcpu, MSR_XFD_ERR), TILEDATA);
}

static void fill_image(uint8_t *image)
{
	memset(image, 0, SIZE);
	*(uint16_t *)image = 0x37f;
	*(uint32_t *)(image + 24) = 0x1f80;
	*(uint64_t *)(image + XSTATE_BV) = 3 | TILES;
	image[TILE_CONFIG] = 1;
	for (unsigned i = 0; i < 8; i++) {
		image[TILE_CONFIG + 16 + 2 * i] = 64;
		image[TILE_CONFIG + 48 + i] = 16;
	}
	for (unsigned i = 0; i < 8192; i++)
		image[TILE_DATA + i] = i * 3 + (i >> 8);
}

static void test_image(void)
{
	static uint8_t image[SIZE], got[SIZE];
	struct machine m;

	CHECK_EQ(prctl_request(18), 0);
	m = with_vcpu();
	set_supported_cpuid(m.kvm, m.vcpu);
	CHECK_EQ(set_xcr0(m.vcpu, 3 | TILES), 0);
	fill_image(image);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_XSAVE, image), 0);
	memset(got, 0xcc, SIZE);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_XSAVE2, got), 0);
	CHECK_EQ(*(uint64_t *)(got + XSTATE_BV) & TILES, TILES);
	CHECK(!memcmp(got + TILE_CONFIG, image + TILE_CONFIG, SIZE - TILE_CONFIG));
	/* Disabled: shown as initial, and not taken. */
	CHECK_EQ(msr_set(m.vcpu, MSR_XFD, TILEDATA), 1);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_XSAVE2, got), 0);
	CHECK_EQ(*(uint64_t *)(got + XSTATE_BV) & TILES, TILECFG);
	CHECK_EQ(got[TILE_DATA + 1], 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_XSAVE, image), 0);
	CHECK_EQ(msr_set(m.vcpu, MSR_XFD, 0), 1);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_XSAVE2, got), 0);
	CHECK_EQ(*(uint64_t *)(got + XSTATE_BV) & TILES, TILECFG);
	/* A header that is none leaves all as it was. */
	*(uint64_t *)(image + XSTATE_BV) |= 1ull << 19;
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_XSAVE, image), EINVAL);
	fill_image(image);
	*(uint64_t *)(image + XSTATE_BV + 8) = 1ull << 63;
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_XSAVE, image), EINVAL);
	fill_image(image);
	image[XSTATE_BV + 63] = 1;
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_XSAVE, image), EINVAL);
	fill_image(image);
	*(uint64_t *)(image + XSTATE_BV) = 1;
	*(uint32_t *)(image + 24) = 0x80000000;
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_XSAVE, image), EINVAL);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_XSAVE2, got), 0);
	CHECK_EQ(*(uint64_t *)(got + XSTATE_BV) & TILES, TILECFG);
	/* LDTILECFG would refuse this one: loaded as none, as XRSTOR does. */
	fill_image(image);
	image[TILE_CONFIG + 48] = 99;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_XSAVE, image), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_XSAVE2, got), 0);
	CHECK_EQ(*(uint64_t *)(got + XSTATE_BV) & TILES, TILEDATA);
}

/* ---- a guest that is moved between its instructions ---- */

#define CONFIG_AT 0xa000
#define A_AT	  0xb000
#define B_AT	  0xc000
#define OUT_AT	  0xd000

GUEST_CODE(multiply,
	   "xor ecx, ecx\n xor edx, edx\n mov eax, 0x60003\n xsetbv\n"
	   "ldtilecfg [0xa000]\n mov ecx, 64\n mov ebx, 0xb000\n tileloadd tmm1, [rbx+rcx*1]\n"
	   "out 0x80, al\n mov ebx, 0xc000\n tileloadd tmm2, [rbx+rcx*1]\n tilezero tmm0\n"
	   "out 0x80, al\n tdpbssd tmm0, tmm1, tmm2\n out 0x80, al\n"
	   "mov ebx, 0xd000\n tilestored [rbx+rcx*1], tmm0\n tilerelease\n hlt\n");

static struct machine guest_machine(uint8_t *ram)
{
	struct machine m = {.kvm = open_kvm(), .ram = ram};
	struct kvm_sregs s;

	m.vm = create_vm(m.kvm);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, RAM_SIZE, ram), 0);
	m.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 0);
	CHECK(m.vcpu >= 0);
	m.run = map_run(m.kvm, m.vcpu);
	set_supported_cpuid(m.kvm, m.vcpu);
	long_mode_start(m.vcpu, LONG_CODE, LONG_STACK);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_SREGS, &s), 0);
	s.cr4 |= 1 << 18;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &s), 0);
	return m;
}

static struct machine moved(struct machine *m)
{
	static uint8_t image[SIZE];
	struct machine n;
	struct kvm_regs regs;
	struct kvm_xcrs xcrs;

	m->run->immediate_exit = 1;
	CHECK_ERR(ioctl(m->vcpu, KVM_RUN, 0), EINTR);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_XSAVE2, image), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_XCRS, &xcrs), 0);
	n = guest_machine(m->ram);
	CHECK_EQ(ioctl(n.vcpu, KVM_SET_REGS, &regs), 0);
	CHECK_EQ(ioctl(n.vcpu, KVM_SET_XSAVE, image), 0);
	CHECK_EQ(ioctl(n.vcpu, KVM_SET_XCRS, &xcrs), 0);
	return n;
}

static void check_product(const uint8_t *ram)
{
	const int8_t *a = (const int8_t *)ram + A_AT, *b = (const int8_t *)ram + B_AT;
	const int32_t *out = (const int32_t *)(ram + OUT_AT);

	for (unsigned m = 0; m < 16; m++)
		for (unsigned n = 0; n < 16; n++) {
			int32_t sum = 0;

			for (unsigned k = 0; k < 64; k++)
				sum += a[64 * m + k] * b[64 * (k / 4) + 4 * n + k % 4];
			CHECK_EQ(out[16 * m + n], sum);
		}
}

static void test_guest(void)
{
	static uint8_t image[SIZE];
	uint8_t *ram = map_ram(RAM_SIZE);
	struct machine m;
	unsigned exits = 0;

	CHECK_EQ(prctl_request(18), 0);
	long_mode_memory(ram, multiply, multiply_end);
	fill_image(image);
	memcpy(ram + CONFIG_AT, image + TILE_CONFIG, 64);
	for (unsigned i = 0; i < 1024; i++) {
		ram[A_AT + i] = i * 7 + 3;
		ram[B_AT + i] = i * 13 + (i >> 6);
	}
	m = guest_machine(ram);
	for (;;) {
		CHECK_EQ(ioctl(m.vcpu, KVM_RUN, 0), 0);
		if (m.run->exit_reason == KVM_EXIT_HLT)
			break;
		CHECK_EQ(m.run->exit_reason, KVM_EXIT_IO);
		m = moved(&m);
		exits++;
	}
	CHECK_EQ(exits, 3);
	check_product(ram);
}

int main(void)
{
	if (!(attribute(open_kvm()) & TILEDATA)) {
		fprintf(stderr, "this host cannot lend what tiles are computed with\n");
		return 77;
	}
	in_child(test_not_asked);
	in_child(test_refused);
	in_child(test_shown);
	in_child(test_registers);
	in_child(test_image);
	in_child(test_guest);
	/* run.sh wants counters of this process. */
	close(create_vm(open_kvm()));
	return 0;
}
