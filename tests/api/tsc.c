/* SPDX-License-Identifier: MIT */
/*
 * Whose TSC follows whose (Linux 6.12, KVM's synchronization of TSC writes; KVM api.rst, devices/vcpu.rst): values that a program sets one
 * after another, the offset attribute, what kvmclock says while they are not in step; scaling, also of kvmclock's line.
 */
#include "pv.h"

#include <linux/kvm_para.h>

#define PAGE_GPA 0x3000
#define MSR_TSC	 0x10

struct shown {
	uint32_t version, pad;
	uint64_t tsc, ns;
	uint32_t mul;
	int8_t shift;
	uint8_t flags;
};

static struct kvm_device_attr offset_attr(uint64_t *offset)
{
	return (struct kvm_device_attr){
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};
}

static uint64_t offset_of(int vcpu)
{
	uint64_t offset = 0;
	struct kvm_device_attr attr = offset_attr(&offset);

	CHECK_EQ(ioctl(vcpu, KVM_GET_DEVICE_ATTR, &attr), 0);
	return offset;
}

static void set_offset(int vcpu, uint64_t offset)
{
	struct kvm_device_attr attr = offset_attr(&offset);

	CHECK_EQ(ioctl(vcpu, KVM_SET_DEVICE_ATTR, &attr), 0);
}

static int add_vcpu(const struct machine *m, unsigned id)
{
	int fd = ioctl(m->vm, KVM_CREATE_VCPU, id);

	CHECK(fd >= 0);
	return fd;
}

static struct machine two(int *ret_other)
{
	struct machine m = machine_irqchip();

	MACHINE_CODE(&m, 0xe6, 0x80, 0xeb, 0xfc);
	*ret_other = add_vcpu(&m, 1);
	return m;
}

static uint64_t seconds(const struct machine *m, unsigned n)
{
	return n * 1000ull * ioctl(m->vcpu, KVM_GET_TSC_KHZ, 0);
}

static bool in_step(const struct machine *m)
{
	struct kvm_clock_data data;

	CHECK_EQ(ioctl(m->vm, KVM_GET_CLOCK, &data), 0);
	return data.flags & KVM_CLOCK_TSC_STABLE;
}

static void test_created(void)
{
	int other;
	struct machine m = two(&other);

	CHECK_EQ(offset_of(other), offset_of(m.vcpu));
	usleep(10000);
	CHECK_EQ(offset_of(add_vcpu(&m, 2)), offset_of(m.vcpu));
	CHECK(in_step(&m));
}

static void test_written(void)
{
	int other;
	struct machine m = two(&other);
	uint64_t first;

	/* The first value that a program writes is meant as it is, however near to that of creation. */
	first = offset_of(m.vcpu);
	CHECK_EQ(msr_set(other, MSR_TSC, seconds(&m, 1) / 2), 1);
	CHECK(offset_of(other) != first);
	CHECK(!in_step(&m));
	/* Within a second of that one: the same. */
	CHECK_EQ(msr_set(m.vcpu, MSR_TSC, seconds(&m, 1)), 1);
	CHECK_EQ(offset_of(m.vcpu), offset_of(other));
	CHECK(in_step(&m));
	/* Farther away: another. */
	CHECK_EQ(msr_set(m.vcpu, MSR_TSC, seconds(&m, 10)), 1);
	CHECK(offset_of(m.vcpu) != offset_of(other));
	CHECK(!in_step(&m));
	/* The last one counts, not the first vCPU; and 0 is always the same as the others. */
	CHECK_EQ(msr_set(other, MSR_TSC, seconds(&m, 10)), 1);
	CHECK_EQ(offset_of(other), offset_of(m.vcpu));
	CHECK_EQ(msr_set(other, MSR_TSC, 0), 1);
	CHECK_EQ(offset_of(other), offset_of(m.vcpu));
	CHECK(in_step(&m));
	CHECK_EQ(offset_of(add_vcpu(&m, 2)), offset_of(m.vcpu));
}

static void test_offset(void)
{
	struct kvm_device_attr bad = {.group = KVM_VCPU_TSC_CTRL, .attr = 7};
	int other;
	struct machine m = two(&other);
	uint64_t near = offset_of(m.vcpu) + 12345, before, tsc;

	CHECK_ERR(ioctl(m.vcpu, KVM_SET_DEVICE_ATTR, &bad), ENXIO);
	bad = offset_attr(BAD_POINTER);
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_DEVICE_ATTR, &bad), EFAULT);
	CHECK_ERR(ioctl(m.vcpu, KVM_GET_DEVICE_ATTR, &bad), EFAULT);
	/* Never rounded to another one's. */
	set_offset(m.vcpu, near);
	CHECK_EQ(offset_of(m.vcpu), near);
	CHECK(!in_step(&m));
	set_offset(other, near + 1);
	CHECK_EQ(offset_of(other), near + 1);
	CHECK(!in_step(&m));
	set_offset(m.vcpu, near + 1);
	CHECK(in_step(&m));
	before = __builtin_ia32_rdtsc();
	tsc = msr_get(m.vcpu, MSR_TSC);
	CHECK(tsc - near - 1 >= before && tsc - near - 1 <= __builtin_ia32_rdtsc());
}

/* Guests compute the time of one vCPU's page with the TSC of another if the page says so. */
static void test_page_flag(void)
{
	struct machine m = machine_irqchip();
	const struct shown *shown = (const struct shown *)(m.ram + PAGE_GPA);
	int other;

	MACHINE_CODE(&m, 0xe6, 0x80, 0xeb, 0xfc);
	other = add_vcpu(&m, 1);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_SYSTEM_TIME_NEW, PAGE_GPA | 1), 1);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(shown->flags & 1, 1);
	set_offset(other, 4711);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(shown->flags & 1, 0);
	set_offset(m.vcpu, 4711);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(shown->flags & 1, 1);
}

/* Nanoseconds to a cycle. */
static double slope(const struct shown *shown)
{
	double mul = shown->mul / 4294967296.0;

	for (int i = 0; i < shown->shift; i++)
		mul *= 2;
	for (int i = 0; i > shown->shift; i--)
		mul /= 2;
	return mul;
}

/* After a day the page of a scaled TSC is not 20 us off the clock, and never ahead of it. */
static void test_scaled_line(uint32_t khz)
{
	struct machine m = machine_irqchip();
	struct shown *shown = (struct shown *)(m.ram + PAGE_GPA);
	long host = ioctl(m.vm, KVM_GET_TSC_KHZ, 0);
	double expected, off;

	MACHINE_CODE(&m, 0xe6, 0x80, 0xeb, 0xfc);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_SYSTEM_TIME_NEW, PAGE_GPA | 1), 1);
	RUN_TO(&m, KVM_EXIT_IO);
	expected = slope(shown) * (double)host / khz;
	if (ioctl(m.vcpu, KVM_SET_TSC_KHZ, khz))
		return; /* no scaling here */
	RUN_TO(&m, KVM_EXIT_IO);
	off = slope(shown) / expected - 1;
	/* The ratio itself is rounded down, to 48 bits behind the point. */
	CHECK(off > -1e-9 && off < 1e-12);
}

int main(void)
{
	test_created();
	test_written();
	test_offset();
	test_page_flag();
	test_scaled_line(1000001);
	test_scaled_line(1500001);
	test_scaled_line(3333333);
	test_scaled_line(7654321);
	return 0;
}
