/* SPDX-License-Identifier: MIT */
/* KVM_GET_STATS_FD (KVM api.rst): the layout as read by a program, and that it counts. */
#include "stats_fd.h"

#include <pthread.h>

static void *run_to_io(void *opaque)
{
	struct machine *m = opaque;

	RUN_TO(m, KVM_EXIT_IO);
	return NULL;
}

/* A vCPU that halts for some milliseconds, until the PIC's line 1 rises; then slots change. */
static void test_halt_and_flush(void)
{
	/* sti; hlt; out %al, $0x80 */
	static const uint8_t code[] = {0xfb, 0xf4, 0xe6, 0x80};
	struct kvm_irq_level line = {.irq = 1, .level = 1};
	struct machine m = machine_open();
	int vcpu_stats, vm_stats;
	pthread_t thread;
	uint64_t flushes;

	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	machine_code(&m, code, sizeof(code));
	for (unsigned i = 0; i < 256; i++)
		*(uint32_t *)(m.ram + 4 * i) = 0x500;
	m.ram[0x500] = 0xcf; /* iret */
	vm_stats = ioctl(m.vm, KVM_GET_STATS_FD, 0);
	vcpu_stats = ioctl(m.vcpu, KVM_GET_STATS_FD, 0);
	CHECK_EQ(pthread_create(&thread, NULL, run_to_io, &m), 0);
	while (!stat_value(vcpu_stats, "blocking"))
		usleep(1000);
	usleep(20000);
	CHECK_EQ(ioctl(m.vm, KVM_IRQ_LINE, &line), 0);
	pthread_join(thread, NULL);
	CHECK_EQ(stat_value(vcpu_stats, "blocking"), 0);
	CHECK_EQ(stat_value(vcpu_stats, "halt_wakeup"), 1);
	CHECK_EQ(stat_value(vcpu_stats, "irq_injections"), 1);
	CHECK(stat_value(vcpu_stats, "req_event") > 0);
	CHECK(stat_value(vcpu_stats, "halt_wait_ns") >= 20000000);
	CHECK_EQ(stat_value(vm_stats, "remote_tlb_flush"), 0);
	flushes = stat_value(vcpu_stats, "tlb_flush");
	CHECK_EQ(set_region(m.vm, 1, 0, 0x100000, 0x1000, m.ram), 0);
	CHECK_EQ(stat_value(vm_stats, "remote_tlb_flush"), 1);
	m.run->immediate_exit = 1;
	CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	CHECK_EQ(stat_value(vcpu_stats, "tlb_flush"), flushes + 1);
}

int main(void)
{
	struct machine m = machine_open();
	int vm_stats, vcpu_stats, other;
	struct kvm_regs regs;

	MACHINE_CODE(&m, 0xe6, 0x80, 0xe6, 0x81, 0xf4);
	vm_stats = ioctl(m.vm, KVM_GET_STATS_FD, 0);
	vcpu_stats = ioctl(m.vcpu, KVM_GET_STATS_FD, 0);
	CHECK(vm_stats >= 0 && vcpu_stats >= 0);
	stat_value(vm_stats, "remote_tlb_flush");
	CHECK_EQ(stat_value(vcpu_stats, "io_exits"), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	RUN_TO(&m, KVM_EXIT_IO);
	RUN_TO(&m, KVM_EXIT_HLT);
	CHECK_EQ(stat_value(vcpu_stats, "io_exits"), 2);
	CHECK_EQ(stat_value(vcpu_stats, "halt_exits"), 1);
	CHECK(stat_value(vcpu_stats, "exits") >= 3);
	CHECK_EQ(stat_value(vcpu_stats, "instructions"), 3);
	other = ioctl(m.vcpu, KVM_GET_STATS_FD, 0);
	CHECK_EQ(stat_value(other, "io_exits"), 2);
	CHECK_ERR(ioctl(other, KVM_GET_REGS, &regs), ENOTTY);
	CHECK_ERR(write(other, "x", 1), EBADF);
	CHECK_EQ(fcntl(other, F_GETFD), FD_CLOEXEC);
	/* It outlives its VM. */
	close(m.vcpu);
	close(m.vm);
	CHECK_EQ(stat_value(vcpu_stats, "io_exits"), 2);
	CHECK_EQ(stat_value(dup(other), "halt_exits"), 1);
	test_halt_and_flush();
	return 0;
}
