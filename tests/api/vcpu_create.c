/* SPDX-License-Identifier: MIT */
/* KVM_CREATE_VCPU, unknown numbers on each kind of fd, and that the fds are real files. */
#include "api_test.h"

#include <poll.h>
#include <sys/stat.h>

static void test_ids(void)
{
	int kvm = open_kvm(), vm = create_vm(kvm), vcpu;

	CHECK_ERR(ioctl(vm, KVM_CREATE_VCPU, 4096), EINVAL);
	CHECK_ERR(ioctl(vm, KVM_CREATE_VCPU, -1), EINVAL);
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 7);
	CHECK(vcpu >= 0);
	CHECK_ERR(ioctl(vm, KVM_CREATE_VCPU, 7), EEXIST);
	CHECK(ioctl(vm, KVM_CREATE_VCPU, 4095) >= 0);
	CHECK_ERR(enable_cap(vm, KVM_CAP_MAX_VCPU_ID, 10), EINVAL);
}

static void test_max_id(void)
{
	int kvm = open_kvm(), vm = create_vm(kvm);

	CHECK_ERR(enable_cap(vm, KVM_CAP_MAX_VCPU_ID, 4097), EINVAL);
	CHECK_EQ(enable_cap(vm, KVM_CAP_MAX_VCPU_ID, 5), 0);
	CHECK_EQ(enable_cap(vm, KVM_CAP_MAX_VCPU_ID, 5), 0);
	CHECK_ERR(enable_cap(vm, KVM_CAP_MAX_VCPU_ID, 6), EINVAL);
	CHECK_ERR(ioctl(vm, KVM_SET_BOOT_CPU_ID, 6), EINVAL);
	CHECK_EQ(ioctl(vm, KVM_SET_BOOT_CPU_ID, 4), 0);
	CHECK_ERR(ioctl(vm, KVM_CREATE_VCPU, 5), EINVAL);
	CHECK(ioctl(vm, KVM_CREATE_VCPU, 4) >= 0);
	CHECK_ERR(ioctl(vm, KVM_SET_BOOT_CPU_ID, 0), EBUSY);
}

static void test_unknown(void)
{
	struct machine m = machine_open();

	MACHINE_CODE(&m, 0xf4);
	CHECK_ERR(ioctl(m.vm, _IO(KVMIO, 0xff), 0), ENOTTY);
	CHECK_ERR(ioctl(m.vm, KVM_RUN, 0), ENOTTY);
	CHECK_ERR(ioctl(m.vm, KVM_GET_API_VERSION, 0), ENOTTY);
	CHECK_ERR(ioctl(m.vcpu, _IO(KVMIO, 0xff), 0), EINVAL);
	CHECK_ERR(ioctl(m.vcpu, KVM_CREATE_VCPU, 9), EINVAL);
	CHECK_ERR(ioctl(m.vcpu, KVM_CHECK_EXTENSION, KVM_CAP_IRQCHIP), EINVAL);
	CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 1), EINVAL);
	CHECK_EQ(ioctl(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_IRQCHIP), 1);
	CHECK_ERR(ioctl(0x7fffffff, KVM_RUN, 0), EBADF);
}

static void test_files(void)
{
	struct machine m = machine_open();
	struct kvm_regs regs;
	struct stat st;
	int copy;

	MACHINE_CODE(&m, 0xf4);
	CHECK_EQ(fcntl(m.vm, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(m.vcpu, F_GETFD), FD_CLOEXEC);
	copy = dup(m.vcpu);
	CHECK(copy >= 0);
	close(m.vcpu);
	CHECK_EQ(ioctl(copy, KVM_GET_REGS, &regs), 0);
	CHECK_EQ(regs.rip, CODE_GPA);
	CHECK_EQ(dup2(copy, 100), 100);
	CHECK_EQ(ioctl(100, KVM_GET_REGS, &regs), 0);
	CHECK_EQ(fstat(copy, &st), 0);
	CHECK_ERR(ioctl(copy, KVM_GET_REGS, BAD_POINTER), EFAULT);
	/* The closed number means another file now: it must not be taken for the vCPU. */
	m.vcpu = open("/dev/null", O_RDONLY);
	CHECK_ERR(ioctl(m.vcpu, KVM_GET_REGS, &regs), ENOTTY);
}

int main(void)
{
	test_ids();
	test_max_id();
	test_unknown();
	test_files();
	return 0;
}
