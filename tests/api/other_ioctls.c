/* SPDX-License-Identifier: MIT */
/*
 * Ioctls that are not KVM's, or not of this fd, on the system's, VMs' and vCPUs' fds: the errno of
 * Linux 6.12. What the kernel serves for every file works.
 */
#include "api_test.h"

#include <sys/ioctl.h>
#include <termios.h>

static void refused(int fd, int error)
{
	struct termios t;
	int n;

	CHECK_ERR(ioctl(fd, TCGETS, &t), error);
	CHECK_ERR(ioctl(fd, TIOCGWINSZ, &t), error);
	CHECK_ERR(ioctl(fd, _IO('x', 1), 0), error);
	CHECK_ERR(ioctl(fd, _IO(KVMIO, 0xff), 0), error);
	CHECK_ERR(ioctl(fd, FIONREAD, &n), error);
	CHECK_EQ(ioctl(fd, FIOCLEX, 0), 0);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(ioctl(fd, FIONCLEX, 0), 0);
	CHECK_EQ(fcntl(fd, F_GETFD), 0);
	CHECK_EQ(isatty(fd), 0);
}

int main(void)
{
	struct machine m = machine_open();
	int file;

	MACHINE_CODE(&m, 0xf4);
	refused(m.kvm, EINVAL);
	refused(m.vm, ENOTTY);
	refused(m.vcpu, EINVAL);
	CHECK_ERR(ioctl(m.kvm, KVM_CREATE_VCPU, 0), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_GET_REGS, 0), ENOTTY);
	CHECK_ERR(ioctl(m.vcpu, KVM_CREATE_VM, 0), EINVAL);
	/* Another file under the same number. */
	file = open("/dev/null", O_RDONLY);
	CHECK_EQ(dup2(file, m.vcpu), m.vcpu);
	CHECK_ERR(ioctl(m.vcpu, _IO('x', 1), 0), ENOTTY);
	CHECK_ERR(ioctl(m.vcpu, KVM_GET_REGS, 0), ENOTTY);
	return 0;
}
