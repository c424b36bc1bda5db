/* SPDX-License-Identifier: MIT */
/*
 * Time never runs backwards, whichever vCPU looks: four take turns in reading the TSC, kvmclock by their own page and by the first vCPU's
 * (as Linux's vDSO does), each comparing with what was read last by any of them. Between two rounds the VM is moved to a new one, by the TSC's
 * MSR and by the offset attribute (KVM devices/vcpu.rst), and while they run the clock is put forward.
 */
#include "long_mode.h"

#include <pthread.h>
#include <signal.h>

#define NR	    4
#define RAM	    0x40000
#define LOCK	    0x7000
#define LAST_TSC    0x7008
#define LAST_NS	    0x7010
#define BLOCK(i)    (0x7100 + 64 * (i)) /* how often it looked, and its page */
#define PAGE(i)	    (0x12000 + 64 * (i))
#define PORT_BAD    0x81
#define MSR_TSC	    0x10
#define SYSTEM_TIME 0x4b564d01

/* RBP: its block. RSI: a page. Port 81h: EBX says which clock went back. */
GUEST_CODE(guest,
	   "1: mov eax, 1\n xchg [0x7000], eax\n test eax, eax\n jz 2f\n pause\n jmp 1b\n"
	   "2: mov ebx, 1\n lfence\n rdtsc\n shl rdx, 32\n or rax, rdx\n cmp rax, [0x7008]\n jb "
	   "9f\n mov [0x7008], rax\n"
	   "inc ebx\n mov rsi, [rbp+8]\n call 5f\n cmp rax, [0x7010]\n jb 9f\n mov [0x7010], rax\n"
	   "inc ebx\n mov esi, 0x12000\n call 5f\n cmp rax, [0x7010]\n jb 9f\n mov [0x7010], rax\n"
	   "inc qword ptr [rbp]\n mov dword ptr [0x7000], 0\n mov ecx, 20\n"
	   "3: pause\n dec ecx\n jnz 3b\n jmp 1b\n"
	   "9: out 0x81, al\n hlt\n"
	   "5: mov r8d, [rsi]\n test r8d, 1\n jnz 5b\n lfence\n rdtsc\n shl rdx, 32\n or rax, "
	   "rdx\n sub rax, [rsi+8]\n"
	   "movsx ecx, byte ptr [rsi+28]\n test ecx, ecx\n js 6f\n shl rax, cl\n jmp 7f\n6: neg "
	   "ecx\n shr rax, cl\n"
	   "7: mov edx, [rsi+24]\n mul rdx\n shrd rax, rdx, 32\n add rax, [rsi+16]\n cmp r8d, "
	   "[rsi]\n jne 5b\n ret");

struct many {
	int kvm, vm, vcpu[NR];
	struct kvm_run *run[NR];
	uint8_t *ram;
};

static struct many v;
static volatile bool stopping;

static void set_or_get_offset(int vcpu, unsigned long op, uint64_t *offset)
{
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};

	CHECK_EQ(ioctl(vcpu, op, &attr), 0);
}

/* ---- the machine ---- */

static struct many open_many(uint8_t *ram, uint32_t khz)
{
	struct many n = {.kvm = open_kvm(), .ram = ram};

	n.vm = create_vm(n.kvm);
	CHECK_EQ(set_region(n.vm, 0, 0, 0, RAM, ram), 0);
	CHECK_EQ(ioctl(n.vm, KVM_CREATE_IRQCHIP, 0), 0);
	if (khz)
		CHECK_EQ(ioctl(n.vm, KVM_SET_TSC_KHZ, khz), 0);
	for (unsigned i = 0; i < NR; i++) {
		n.vcpu[i] = ioctl(n.vm, KVM_CREATE_VCPU, i);
		CHECK(n.vcpu[i] >= 0);
		n.run[i] = map_run(n.kvm, n.vcpu[i]);
		long_mode_cpuid(n.kvm, n.vcpu[i], 1 << 21);
	}
	return n;
}

static void start(uint32_t khz)
{
	struct kvm_clock_data clock = {0};
	uint8_t *ram = map_ram(RAM);

	v = open_many(ram, khz);
	long_mode_memory(ram, guest, guest_end);
	for (unsigned i = 0; i < NR; i++) {
		struct kvm_regs regs;

		long_mode_start(v.vcpu[i], LONG_CODE, LONG_STACK - 0x800 * i);
		CHECK_EQ(ioctl(v.vcpu[i], KVM_GET_REGS, &regs), 0);
		regs.rbp = BLOCK(i);
		CHECK_EQ(ioctl(v.vcpu[i], KVM_SET_REGS, &regs), 0);
		long_mode_put(ram, BLOCK(i) + 8, PAGE(i));
		CHECK_EQ(msr_set(v.vcpu[i], SYSTEM_TIME, PAGE(i) | 1), 1);
	}
	/* Have all pages written. */
	CHECK_EQ(ioctl(v.vm, KVM_SET_CLOCK, &clock), 0);
}

static uint64_t looks(unsigned i)
{
	return *(volatile uint64_t *)(v.ram + BLOCK(i));
}

static void *run(void *opaque)
{
	unsigned i = (uintptr_t)opaque;

	while (!stopping) {
		if (ioctl(v.vcpu[i], KVM_RUN, 0)) {
			CHECK_EQ(errno, EINTR);
			continue;
		}
		struct kvm_regs regs;

		CHECK_EQ(ioctl(v.vcpu[i], KVM_GET_REGS, &regs), 0);
		fprintf(stderr,
			"backwards: clock %llu went back to %#llx on vCPU %u (last TSC %#lx, "
			"kvmclock %#lx)\n",
			regs.rbx, regs.rax, i, *(uint64_t *)(v.ram + LAST_TSC),
			*(uint64_t *)(v.ram + LAST_NS));
		exit(1);
	}
	return NULL;
}

/* For a while, and until each has looked some times. */
static void run_all(bool forward)
{
	uint64_t before[NR];
	pthread_t threads[NR];

	stopping = false;
	for (uintptr_t i = 0; i < NR; i++) {
		before[i] = looks(i);
		v.run[i]->immediate_exit = 0;
		CHECK_EQ(pthread_create(&threads[i], NULL, run, (void *)i), 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		struct kvm_clock_data clock = {0};

		usleep(10000);
		if (!forward)
			continue;
		CHECK_EQ(ioctl(v.vm, KVM_GET_CLOCK, &clock), 0);
		clock.flags = 0;
		clock.clock += 1000000000;
		CHECK_EQ(ioctl(v.vm, KVM_SET_CLOCK, &clock), 0);
	}
	for (unsigned i = 0; i < NR; i++)
		while (looks(i) < before[i] + 100)
			usleep(1000);
	stopping = true;
	for (unsigned i = 0; i < NR; i++) {
		v.run[i]->immediate_exit = 1;
		pthread_kill(threads[i], SIGUSR1);
	}
	for (unsigned i = 0; i < NR; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* ---- moving ---- */

static void by_msr(const struct many *from, const struct many *to)
{
	struct kvm_clock_data clock;
	uint64_t tsc[NR];

	for (unsigned i = 0; i < NR; i++)
		tsc[i] = msr_get(from->vcpu[i], MSR_TSC);
	CHECK_EQ(ioctl(from->vm, KVM_GET_CLOCK, &clock), 0);
	usleep(20000);
	for (unsigned i = 0; i < NR; i++)
		CHECK_EQ(msr_set(to->vcpu[i], MSR_TSC, tsc[i]), 1);
	clock.flags = 0;
	CHECK_EQ(ioctl(to->vm, KVM_SET_CLOCK, &clock), 0);
}

/* Between VMs of one host: guest TSC = scaled host TSC + offset, and the scale is the same; time goes on meanwhile. */
static void by_offset(const struct many *from, const struct many *to)
{
	struct kvm_clock_data source, dest;
	uint64_t offset;

	CHECK_EQ(ioctl(from->vm, KVM_GET_CLOCK, &source), 0);
	usleep(20000);
	dest = source;
	dest.flags = KVM_CLOCK_REALTIME;
	CHECK_EQ(ioctl(to->vm, KVM_SET_CLOCK, &dest), 0);
	CHECK_EQ(ioctl(to->vm, KVM_GET_CLOCK, &dest), 0);
	CHECK(dest.clock >= source.clock + 20000000);
	for (unsigned i = 0; i < NR; i++) {
		set_or_get_offset(from->vcpu[i], KVM_GET_DEVICE_ATTR, &offset);
		set_or_get_offset(to->vcpu[i], KVM_SET_DEVICE_ATTR, &offset);
	}
	CHECK_EQ(ioctl(to->vm, KVM_GET_CLOCK, &dest), 0);
	CHECK(dest.flags & KVM_CLOCK_TSC_STABLE);
}

static void move(void (*clocks)(const struct many *from, const struct many *to))
{
	struct many old = v;

	v = open_many(old.ram, ioctl(old.vcpu[0], KVM_GET_TSC_KHZ, 0));
	for (unsigned i = 0; i < NR; i++) {
		struct kvm_regs regs;
		struct kvm_sregs sregs;
		struct kvm_mp_state runnable = {0};

		CHECK_EQ(ioctl(old.vcpu[i], KVM_GET_REGS, &regs), 0);
		CHECK_EQ(ioctl(old.vcpu[i], KVM_GET_SREGS, &sregs), 0);
		CHECK_EQ(ioctl(v.vcpu[i], KVM_SET_REGS, &regs), 0);
		CHECK_EQ(ioctl(v.vcpu[i], KVM_SET_SREGS, &sregs), 0);
		CHECK_EQ(ioctl(v.vcpu[i], KVM_SET_MP_STATE, &runnable), 0);
	}
	/* As VMMs do: KVM_SET_CLOCK comes last, and the pages show it before any vCPU runs. */
	for (unsigned i = 0; i < NR; i++)
		CHECK_EQ(msr_set(v.vcpu[i], SYSTEM_TIME, PAGE(i) | 1), 1);
	clocks(&old, &v);
	for (unsigned i = 0; i < NR; i++)
		close(old.vcpu[i]);
	close(old.vm);
	close(old.kvm);
}

static void on_signal(int number)
{
}

static void test(uint32_t khz)
{
	start(khz);
	run_all(false);
	move(by_msr);
	run_all(false);
	move(by_offset);
	run_all(true);
	move(by_msr);
	run_all(true);
	for (unsigned i = 0; i < NR; i++)
		close(v.vcpu[i]);
	close(v.vm);
	close(v.kvm);
}

int main(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct machine m = machine_open();
	long khz = ioctl(m.vm, KVM_GET_TSC_KHZ, 0);

	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	test(0);
	test(khz / 3 * 2);
	return 0;
}
