/* SPDX-License-Identifier: MIT */
/*
 * How long things live: a VM lasts while any fd of it or of its vCPUs is open, is of no use to another
 * process (EIO), and leaves nothing behind. /dev/kvm's own fd works anywhere.
 */
#include "usage.h"

#include <sys/wait.h>

static void test_vcpu_outlives_vm_fd(void)
{
	struct machine m = machine_open();

	MACHINE_CODE(&m, 0xe6, 0x80, 0xf4);
	close(m.vm);
	close(m.kvm);
	RUN_TO(&m, KVM_EXIT_IO);
	RUN_TO(&m, KVM_EXIT_HLT);
}

/* Run this in a child: exit status 0 if all is well. */
static int in_child(const struct machine *m, int fresh_kvm)
{
	struct kvm_regs regs;

	CHECK_ERR(ioctl(m->vm, KVM_CHECK_EXTENSION, KVM_CAP_IRQCHIP), EIO);
	CHECK_ERR(ioctl(m->vcpu, KVM_GET_REGS, &regs), EIO);
	CHECK_ERR(ioctl(m->vcpu, KVM_RUN, 0), EIO);
	CHECK_EQ(ioctl(m->kvm, KVM_GET_API_VERSION, 0), 12);
	close(m->vcpu);
	close(m->vm);
	if (fresh_kvm) {
		struct machine own = machine_open();

		MACHINE_CODE(&own, 0xf4);
		RUN_TO(&own, KVM_EXIT_HLT);
	}
	return 0;
}

static void test_fork(void)
{
	struct machine m = machine_open();
	int status;
	pid_t pid;

	MACHINE_CODE(&m, 0xe6, 0x80, 0xf4);
	RUN_TO(&m, KVM_EXIT_IO);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid)
		_exit(in_child(&m, 1));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	/* What the child closed tore nothing down here. */
	RUN_TO(&m, KVM_EXIT_HLT);
}

/* Before and after many VMs: as many threads and fds. */
static void test_nothing_left(void)
{
	unsigned fds = 0, threads = 0;

	for (int round = 0; round < 20; round++) {
		struct machine m = machine_open();

		MACHINE_CODE(&m, 0xf4);
		RUN_TO(&m, KVM_EXIT_HLT);
		munmap(m.run, 12288);
		munmap(m.ram, RAM_SIZE);
		close(m.vcpu);
		close(m.vm);
		close(m.kvm);
		if (round == 2) {
			fds = count_fds();
			threads = count_dir("/proc/self/task");
		}
	}
	CHECK_EQ(count_fds(), fds);
	CHECK_EQ(count_dir("/proc/self/task"), threads);
}

/* The system fd across exec: argv[1] is its number. */
static int after_exec(const char *number)
{
	int kvm = atoi(number);

	CHECK_EQ(ioctl(kvm, KVM_GET_API_VERSION, 0), 12);
	CHECK(ioctl(kvm, KVM_CREATE_VM, 0) >= 0);
	return 0;
}

static void test_exec(char *self)
{
	int kvm = open("/dev/kvm", O_RDWR), status;
	char number[16];
	pid_t pid = fork();

	if (!pid) {
		snprintf(number, sizeof(number), "%d", kvm);
		execl(self, self, number, NULL);
		_exit(9);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return after_exec(argv[1]);
	test_vcpu_outlives_vm_fd();
	test_fork();
	test_nothing_left();
	test_exec(argv[0]);
	return 0;
}
