/* SPDX-License-Identifier: MIT */
/* KVM_GET_CLOCK, KVM_SET_CLOCK and the pvclock page that a vCPU shows (KVM api.rst, msr.rst). */
#include "api_test.h"

#include <x86intrin.h>

#define MSR_SYSTEM_TIME_NEW 0x4b564d01
#define MSR_WALL_CLOCK_NEW  0x4b564d00
#define MSR_TSC		    0x10

struct time_info {
	uint32_t version, pad0;
	uint64_t tsc, ns;
	uint32_t mul;
	int8_t shift;
	uint8_t flags, pad[2];
};

static void test_ioctls(void)
{
	int kvm = open_kvm(), vm = create_vm(kvm);
	struct kvm_clock_data data = {.flags = 1};

	CHECK_ERR(ioctl(vm, KVM_SET_CLOCK, &data), EINVAL);
	CHECK_ERR(ioctl(vm, KVM_SET_CLOCK, BAD_POINTER), EFAULT);
	CHECK_ERR(ioctl(vm, KVM_GET_CLOCK, BAD_POINTER), EFAULT);
	data = (struct kvm_clock_data){.clock = 3600000000000};
	CHECK_EQ(ioctl(vm, KVM_SET_CLOCK, &data), 0);
	CHECK_EQ(ioctl(vm, KVM_GET_CLOCK, &data), 0);
	CHECK(data.clock >= 3600000000000 && data.clock < 3610000000000);
	CHECK_EQ(data.flags, KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC);
}

/* As far as the processor scales: 16 bits before the point, or AMD's 8; and no further than a signed number of kHz. */
static void test_fastest(void)
{
	struct machine m = machine_open();
	struct cpuid_list c;
	int64_t khz, limit;
	bool amd;

	MACHINE_CODE(&m, 0xf4);
	khz = ioctl(m.vcpu, KVM_GET_TSC_KHZ, 0);
	get_supported_cpuid(m.kvm, &c);
	CHECK_EQ(c.v[0].function, 0);
	amd = !memcmp(&c.v[0].ebx, "Auth", 4);
	limit = (khz << (amd ? 8 : 16)) - 1;
	limit = limit < INT32_MAX ? limit : INT32_MAX;
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_TSC_KHZ, limit), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_SET_TSC_KHZ, limit), EINVAL);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_TSC_KHZ, limit - 1), 0);
	CHECK_EQ(ioctl(m.vm, KVM_SET_TSC_KHZ, limit - 1), 0);
}

/* A TSC of three halves of the host's frequency: between two looks, as many cycles more; in RDTSC, too. */
static void test_scaled(void)
{
	struct machine m = machine_open();
	uint64_t before, after, from, to, guest;
	struct kvm_regs regs;
	long khz;

	MACHINE_CODE(&m, 0x0f, 0x31, 0xf4); /* rdtsc; hlt */
	khz = ioctl(m.vcpu, KVM_GET_TSC_KHZ, 0);
	CHECK(khz > 0);
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_TSC_KHZ, 0x7fffffff), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_SET_TSC_KHZ, 0xffffffff), EINVAL);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_TSC_KHZ, khz / 2 * 3), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_TSC_KHZ, 0), khz / 2 * 3);
	CHECK_EQ(msr_set(m.vcpu, MSR_TSC, 1000000), 1);
	before = __rdtsc();
	from = msr_get(m.vcpu, MSR_TSC);
	usleep(20000);
	to = msr_get(m.vcpu, MSR_TSC);
	after = __rdtsc();
	CHECK(from >= 1000000);
	CHECK((to - from) / 3 <= (after - before) / 2 + 2);
	before = __rdtsc();
	from = msr_get(m.vcpu, MSR_TSC);
	RUN_TO(&m, KVM_EXIT_HLT);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_REGS, &regs), 0);
	guest = regs.rdx << 32 | regs.rax;
	to = msr_get(m.vcpu, MSR_TSC);
	CHECK(from <= guest && guest <= to);
	/* Other vCPUs of the VM start at what it says now. */
	CHECK_EQ(ioctl(m.vm, KVM_SET_TSC_KHZ, khz * 2), 0);
	CHECK_EQ(ioctl(ioctl(m.vm, KVM_CREATE_VCPU, 1), KVM_GET_TSC_KHZ, 0), khz * 2);
}

/* What a guest computes from its page is what KVM_GET_CLOCK says. */
static void test_page(void)
{
	struct machine m = machine_open();
	struct time_info *info = (void *)(m.ram + 0x3000);
	struct kvm_clock_data before, after;
	uint64_t delta, now;

	MACHINE_CODE(&m, 0xe6, 0x80, 0xeb, 0xfc);
	CHECK_ERR(ioctl(m.vcpu, KVM_KVMCLOCK_CTRL, 0), EINVAL);
	CHECK_EQ(msr_set(m.vcpu, MSR_SYSTEM_TIME_NEW, 0x3001), 1);
	CHECK_EQ(msr_get(m.vcpu, MSR_SYSTEM_TIME_NEW), 0x3001);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK(info->version && info->version % 2 == 0);
	CHECK(info->flags & 1);
	CHECK_EQ(ioctl(m.vm, KVM_GET_CLOCK, &before), 0);
	delta = msr_get(m.vcpu, MSR_TSC) - info->tsc;
	CHECK_EQ(ioctl(m.vm, KVM_GET_CLOCK, &after), 0);
	delta = info->shift < 0 ? delta >> -info->shift : delta << info->shift;
	now = info->ns + (uint64_t)(((unsigned __int128)delta * info->mul) >> 32);
	CHECK(now + 1000 >= before.clock && now <= after.clock + 1000);
	/* A paused guest is told so, once. */
	CHECK_EQ(ioctl(m.vcpu, KVM_KVMCLOCK_CTRL, 0), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK(info->flags & 2);
	/* A set clock shows in the page of the next entry. */
	before = (struct kvm_clock_data){.clock = 7200000000000};
	CHECK_EQ(ioctl(m.vm, KVM_SET_CLOCK, &before), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK(info->ns >= 7200000000000 && info->ns < 7210000000000);
	/* Switched off: the page is left alone. */
	CHECK_EQ(msr_set(m.vcpu, MSR_SYSTEM_TIME_NEW, 0x3000), 1);
	memset(info, 0, sizeof(*info));
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(info->version, 0);
}

static void test_wall_clock(void)
{
	struct machine m = machine_open();
	uint32_t *wall = (void *)(m.ram + 0x3000);
	struct kvm_clock_data clock;
	int64_t boot;

	MACHINE_CODE(&m, 0xf4);
	CHECK_EQ(msr_set(m.vcpu, MSR_WALL_CLOCK_NEW, 0x3000), 1);
	CHECK(wall[0] && wall[0] % 2 == 0);
	CHECK_EQ(ioctl(m.vm, KVM_GET_CLOCK, &clock), 0);
	boot = clock.realtime - clock.clock;
	CHECK(llabs(boot - (wall[1] * 1000000000ll + wall[2])) < 1000000);
	/* An address without memory is no error. */
	CHECK_EQ(msr_set(m.vcpu, MSR_WALL_CLOCK_NEW, 0x7000000), 1);
}

int main(void)
{
	test_ioctls();
	test_fastest();
	test_scaled();
	test_page();
	test_wall_clock();
	return 0;
}
