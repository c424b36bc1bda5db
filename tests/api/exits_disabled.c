/* SPDX-License-Identifier: MIT */
/*
 * What a guest does without KVM noticing (KVM api.rst: KVM_CAP_X86_DISABLE_EXITS, KVM_CAP_DISABLE_QUIRKS2 for MONITOR
 * and MWAIT), and a guest TSC of another frequency than the host's (KVM_SET_TSC_KHZ).
 */
#include "api_test.h"

#include <signal.h>
#include <sys/time.h>
#include <x86intrin.h>

static void nothing(int sig)
{
}

/* A signal every 20 ms from now on. */
static void start_alarms(void)
{
	struct itimerval often = {{0, 20000}, {0, 20000}};
	struct sigaction act = {.sa_handler = nothing};

	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
}

static void stop_alarms(void)
{
	struct itimerval never = {{0}};

	setitimer(ITIMER_REAL, &never, NULL);
}

/* HLT waits in the guest, through signals, until an interrupt comes: sti; hlt; out %al,$0x80 */
static void test_hlt(void)
{
	struct machine m = machine_open();
	struct kvm_interrupt irq = {.irq = 0x20};

	CHECK_EQ(enable_cap(m.vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_HLT), 0);
	MACHINE_CODE(&m, 0xfb, 0xf4, 0xe6, 0x80);
	m.ram[0x20 * 4 + 1] = 0x20; /* to 0:2000: iret */
	m.ram[0x2000] = 0xcf;
	start_alarms();
	for (unsigned i = 0; i < 3; i++)
		CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	stop_alarms();
	CHECK_EQ(ioctl(m.vcpu, KVM_INTERRUPT, &irq), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	close(m.vcpu);
	close(m.vm);
}

/* monitor; mwait; out %al,$0x80 */
static void test_mwait(void)
{
	struct machine m = machine_open();

	MACHINE_CODE(&m, 0x66, 0x31, 0xc9, 0x66, 0x31, 0xd2, 0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9,
		     0xe6, 0x80);
	m.ram[6 * 4 + 1] = 0x20; /* #UD to 0:2000: out %al,$0x86 */
	m.ram[0x2000] = 0xe6;
	m.ram[0x2001] = 0x86;
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x80);
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS), 0);
	m.run->immediate_exit = 1;
	CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	m.run->immediate_exit = 0;
	machine_start(&m);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x86);
	close(m.vcpu);
	close(m.vm);
}

/* The guest's TSC at an OUT, and the host's before and behind it. */
struct reading {
	uint64_t before, guest, behind;
};

/* rdtsc; out %al,$0x80; jmp back */
static struct reading read_tsc(struct machine *m)
{
	struct reading r = {.before = __rdtsc()};
	struct kvm_regs regs;

	RUN_TO(m, KVM_EXIT_IO);
	r.behind = __rdtsc();
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	r.guest = (uint32_t)regs.rax | regs.rdx << 32;
	return r;
}

/*
 * Between two readings the guest's TSC goes on by what the host's does, times the ratio: by no less than from behind
 * the first to before the second, and by no more than from before the first to behind the second, whatever the load.
 */
static void expect_khz(struct machine *m, long khz, long host)
{
	struct reading a = read_tsc(m), b;
	double ratio = (double)khz / host;

	usleep(50000);
	b = read_tsc(m);
	CHECK(b.guest - a.guest >= (b.before - a.behind) * ratio * 0.99999 - 2);
	CHECK(b.guest - a.guest <= (b.behind - a.before) * ratio * 1.00001 + 2);
}

/* What KVM can let happen is announced, other flags of the interface are ignored, and what is none refused. */
static void test_flags(void)
{
	struct machine m = machine_open();
	long flags = ioctl(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_DISABLE_EXITS);

	CHECK(flags & KVM_X86_DISABLE_EXITS_PAUSE);
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_CSTATE), 0);
	CHECK_ERR(enable_cap(m.vm, KVM_CAP_X86_DISABLE_EXITS, 1 << 4), EINVAL);
	close(m.vm);
}

static void test_tsc(void)
{
	struct machine m = machine_open();
	long host = ioctl(m.vm, KVM_GET_TSC_KHZ, 0), vm_khz = host * 3 / 2;

	CHECK_ERR(ioctl(m.vm, KVM_SET_TSC_KHZ, 0x7fffffff), EINVAL);
	CHECK_EQ(ioctl(m.vm, KVM_GET_TSC_KHZ, 0), host);
	CHECK_EQ(ioctl(m.vm, KVM_SET_TSC_KHZ, vm_khz), 0);
	MACHINE_CODE(&m, 0x0f, 0x31, 0xe6, 0x80, 0xeb, 0xfa);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_TSC_KHZ, 0), vm_khz);
	expect_khz(&m, vm_khz, host);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_TSC_KHZ, host / 3), 0);
	expect_khz(&m, host / 3, host);
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_TSC_KHZ, 0x7fffffff), EINVAL);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_TSC_KHZ, 0), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_TSC_KHZ, 0), host);
	expect_khz(&m, host, host);
	close(m.vcpu);
	close(m.vm);
}

int main(void)
{
	test_hlt();
	test_mwait();
	test_flags();
	test_tsc();
	return 0;
}
