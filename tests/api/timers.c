/* SPDX-License-Identifier: MIT */
/*
 *   timers [SECONDS]
 *
 * Timers against CLOCK_MONOTONIC, on a machine that may be busy: none fires early, none is lost, whatever the load. Four run side by side:
 * the PIT (with reinjection), and local APIC timers in each mode, one to a vCPU, which stores its TSC at each tick. In between, the
 * divide values and the PIT's modes. With 30 seconds or more also: what goes wrong over a minute is under a millisecond, which
 * wants a host with nothing else to do; kvmclock against CLOCK_MONOTONIC_RAW, too.
 */
#include "long_mode.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#define RAM	   0x1000000
#define TICKS_AT   0x200000 /* of vCPU 0; others 2 MiB further on each */
#define MAX_TICKS  0x40000
#define BLOCK	   0x7000 /* struct orders of vCPU 0; others 256 bytes further on each */
#define VECTOR_PIT 0x20
#define VECTOR	   0x50
#define PIT_HZ	   1193182.
#define PERIODIC   (1 << 17)
#define DEADLINE   (2 << 17)
#define MASKED	   (1 << 16)

/* What the guest is to program, and what it says of it. */
struct orders {
	uint32_t pit_mode, pit_count; /* mode 0xff: leave it alone */
	uint32_t lvt, divide, initial;
	uint32_t again;		/* at each tick */
	uint64_t deadline;	/* cycles from one to the next */
	uint64_t before, after; /* TSC around the start */
	uint64_t next;		/* deadline */
	volatile uint64_t ticks, pit_ticks, lapic_ticks;
	uint64_t ticks_at;
};

/* RBP: its orders. */
GUEST_CODE(
	guest,
	"mov ecx, 0x80f\n xor edx, edx\n mov eax, 0x1ff\n wrmsr\n"
	"mov ecx, 0x832\n mov eax, [rbp+8]\n wrmsr\n"
	"mov ecx, 0x83e\n mov eax, [rbp+12]\n wrmsr\n"
	"lfence\n rdtsc\n mov [rbp+32], eax\n mov [rbp+36], edx\n"
	"mov eax, [rbp]\n cmp eax, 0xff\n je 1f\n"
	"shl eax, 1\n or eax, 0x30\n out 0x43, al\n mov eax, [rbp+4]\n out 0x40, al\n mov al, ah\n "
	"out 0x40, al\n"
	"1: mov eax, [rbp+16]\n test eax, eax\n jz 2f\n mov ecx, 0x838\n xor edx, edx\n wrmsr\n"
	"2: cmp qword ptr [rbp+24], 0\n je 3f\n lfence\n rdtsc\n shl rdx, 32\n or rax, rdx\n"
	"add rax, [rbp+24]\n mov [rbp+48], rax\n mov rdx, rax\n shr rdx, 32\n mov ecx, 0x6e0\n "
	"wrmsr\n"
	"3: lfence\n rdtsc\n mov [rbp+40], eax\n mov [rbp+44], edx\n"
	"4: sti\n hlt\n jmp 4b\n"
	"guest_note: lfence\n rdtsc\n shl rdx, 32\n or rax, rdx\n mov rbx, [rbp+56]\n"
	"mov rdi, [rbp+80]\n mov [rdi+rbx*8], rax\n inc qword ptr [rbp+56]\n ret\n"
	"guest_pit: call guest_note\n inc qword ptr [rbp+64]\n mov al, 0x20\n out 0x20, al\n "
	"iretq\n"
	"guest_lapic: call guest_note\n inc qword ptr [rbp+72]\n cmp qword ptr [rbp+24], 0\n je "
	"5f\n"
	"mov rax, [rbp+48]\n add rax, [rbp+24]\n mov [rbp+48], rax\n mov rdx, rax\n shr rdx, 32\n"
	"mov ecx, 0x6e0\n wrmsr\n jmp 6f\n"
	"5: cmp dword ptr [rbp+20], 0\n je 6f\n mov ecx, 0x838\n xor edx, edx\n mov eax, "
	"[rbp+16]\n "
	"wrmsr\n"
	"6: mov ecx, 0x80b\n xor eax, eax\n xor edx, edx\n wrmsr\n iretq");
extern const uint8_t guest_pit[], guest_lapic[];

static struct machine m;
static int vcpus[4];
static struct kvm_run *runs[4];
static volatile bool stopping;

static uint64_t ns_of(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t tsc(void)
{
	uint32_t low, high;

	asm volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high));
	return low | (uint64_t)high << 32;
}

/* ---- the host's TSC as CLOCK_MONOTONIC ---- */

struct pair {
	uint64_t tsc, ns, raw;
};

static struct pair pair_now(void)
{
	struct pair best = {0};
	uint64_t width = ~0ull;

	for (unsigned i = 0; i < 20; i++) {
		uint64_t before = tsc(), ns = ns_of(CLOCK_MONOTONIC),
			 raw = ns_of(CLOCK_MONOTONIC_RAW), after = tsc();

		if (after - before < width) {
			width = after - before;
			best = (struct pair){before + width / 2, ns, raw};
		}
	}
	return best;
}

static struct pair began, ended;
static uint64_t offset; /* of the guests' TSC */

/* Nanoseconds of CLOCK_MONOTONIC since began. */
static double mono(uint64_t guest_tsc)
{
	double rate = (double)(ended.ns - began.ns) / (double)(ended.tsc - began.tsc);

	return (double)(int64_t)(guest_tsc - offset - began.tsc) * rate;
}

/* ---- machine ---- */

static struct orders *orders(unsigned i)
{
	return (void *)(m.ram + BLOCK + i * 256);
}

static const uint64_t *ticks(unsigned i)
{
	return (const uint64_t *)(m.ram + orders(i)->ticks_at);
}

static void open_machine(unsigned nr)
{
	struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET};
	struct kvm_pit_config config = {0};

	m.kvm = open_kvm();
	m.vm = create_vm(m.kvm);
	m.ram = map_ram(RAM);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, RAM, m.ram), 0);
	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_EQ(ioctl(m.vm, KVM_CREATE_PIT2, &config), 0);
	long_mode_memory(m.ram, guest, guest_end);
	long_mode_gate(m.ram, VECTOR_PIT, LONG_CODE + (guest_pit - guest));
	long_mode_gate(m.ram, VECTOR, LONG_CODE + (guest_lapic - guest));
	for (unsigned i = 0; i < nr; i++) {
		vcpus[i] = ioctl(m.vm, KVM_CREATE_VCPU, i);
		CHECK(vcpus[i] >= 0);
		runs[i] = map_run(m.kvm, vcpus[i]);
		long_mode_cpuid(m.kvm, vcpus[i], 1 << 21 | 1 << 24);
		orders(i)->pit_mode = 0xff;
		orders(i)->lvt = MASKED;
		orders(i)->divide = 0xb;
		orders(i)->ticks_at = TICKS_AT + i * MAX_TICKS * 8;
	}
	attr.addr = (uintptr_t)&offset;
	CHECK_EQ(ioctl(vcpus[0], KVM_GET_DEVICE_ATTR, &attr), 0);
}

/* The first PIC at VECTOR_PIT, only its first line open; the guest need not know how. */
static void open_pic(void)
{
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_PIC_MASTER};

	CHECK_EQ(ioctl(m.vm, KVM_GET_IRQCHIP, &chip), 0);
	chip.chip.pic.irq_base = VECTOR_PIT;
	chip.chip.pic.imr = 0xfe;
	chip.chip.pic.init4 = 1;
	CHECK_EQ(ioctl(m.vm, KVM_SET_IRQCHIP, &chip), 0);
}

static void *run(void *opaque)
{
	unsigned i = (uintptr_t)opaque;

	while (!stopping)
		if (ioctl(vcpus[i], KVM_RUN, 0))
			CHECK_EQ(errno, EINTR);
	return NULL;
}

static void on_signal(int number)
{
}

static void prepare(unsigned i)
{
	struct kvm_regs regs;

	long_mode_start(vcpus[i], LONG_CODE, LONG_STACK - i * 4096);
	CHECK_EQ(ioctl(vcpus[i], KVM_GET_REGS, &regs), 0);
	regs.rbp = BLOCK + i * 256;
	CHECK_EQ(ioctl(vcpus[i], KVM_SET_REGS, &regs), 0);
}

static void go(pthread_t *threads, unsigned nr)
{
	for (uintptr_t i = 0; i < nr; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, run, (void *)i), 0);
}

static void stop(pthread_t *threads, unsigned nr)
{
	stopping = true;
	for (unsigned i = 0; i < nr; i++) {
		runs[i]->immediate_exit = 1;
		pthread_kill(threads[i], SIGUSR1);
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
		runs[i]->immediate_exit = 0;
	}
	stopping = false;
}

static void close_machine(unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		close(vcpus[i]);
	close(m.vm);
	close(m.kvm);
	munmap(m.ram, RAM);
}

static void wait_for(const volatile uint64_t *count, uint64_t nr)
{
	while (*count < nr)
		usleep(500);
}

/* ---- four that run on ---- */

#define TOLERANCE 200000. /* ns: CLOCK_MONOTONIC is adjusted meanwhile */
#define PIT_COUNT 5966	  /* 5 ms and a bit */
#define PERIOD_NS 5000000

enum { PIT, IN_PERIODS, ONE_SHOT, BY_DEADLINE, NR };

static const char *const names[NR] = {"PIT", "periodic", "one-shot", "deadline"};

static double period(unsigned i)
{
	return i == PIT ? PIT_COUNT * 1e9 / PIT_HZ : PERIOD_NS;
}

/* The first deadline. */
static uint64_t first_deadline(void)
{
	const struct orders *o = orders(BY_DEADLINE);

	return o->next - o->ticks * o->deadline;
}

/* When the k-th tick was due: one-shot ones count anew from the one before. */
static double due(unsigned i, uint64_t k)
{
	double start = mono(orders(i)->before);

	if (i == BY_DEADLINE)
		return mono(first_deadline() + k * orders(i)->deadline);
	if (i == ONE_SHOT)
		return (k ? mono(ticks(i)[k - 1]) : start) + PERIOD_NS;
	return start + (double)(k + 1) * period(i);
}

static void check_never_early(unsigned i)
{
	for (uint64_t k = 0; k < orders(i)->ticks; k++)
		CHECK(mono(ticks(i)[k]) + TOLERANCE >= due(i, k));
	for (uint64_t k = 0; i == BY_DEADLINE && k < orders(i)->ticks; k++)
		CHECK(ticks(i)[k] >= first_deadline() + k * orders(i)->deadline);
}

/* Of a delay what is over whole periods. */
static double past_periods(double late)
{
	return late - (double)(int64_t)((late + TOLERANCE) / PERIOD_NS) * PERIOD_NS;
}

/* The shortest delay of a tick among some of them. Where periods may have passed together, of the last one. */
static double latency(unsigned i, uint64_t from, uint64_t to)
{
	double least = 1e18;

	for (uint64_t k = from; k < to; k++) {
		double late = mono(ticks(i)[k]) - due(i, k);

		if (i == IN_PERIODS)
			late = past_periods(late);
		least = late < least ? late : least;
	}
	return least;
}

/* How much later ticks come at the end than at the beginning. */
static double drift(unsigned i)
{
	uint64_t nr = orders(i)->ticks;
	double first = latency(i, 0, nr / 4), last = latency(i, nr - nr / 4, nr);
	double all = (mono(ended.tsc + offset) - mono(orders(i)->before)) / period(i);

	printf("%-8s: %lu ticks where %.1f were due; shortest delay %.1f us in the first quarter, "
	       "%.1f us in the last\n",
	       names[i], orders(i)->ticks, all, first / 1e3, last / 1e3);
	return last > first ? last - first : first - last;
}

/* Each tick of the PIT, and each deadline, is delivered some time: until they are as many as there was time for. */
static void wait_caught_up(unsigned i)
{
	double left;

	do {
		usleep(300);
		ended = pair_now();
		left = (mono(ended.tsc + offset) - mono(orders(i)->after)) / period(i);
	} while (left - (double)orders(i)->ticks >= 1);
}

/* kvmclock less CLOCK_MONOTONIC_RAW. */
static int64_t clock_apart(void)
{
	uint64_t width = ~0ull;
	int64_t apart = 0;

	for (unsigned i = 0; i < 20; i++) {
		struct kvm_clock_data data;
		uint64_t before = ns_of(CLOCK_MONOTONIC_RAW), after;

		CHECK_EQ(ioctl(m.vm, KVM_GET_CLOCK, &data), 0);
		after = ns_of(CLOCK_MONOTONIC_RAW);
		if (after - before >= width)
			continue;
		width = after - before;
		apart = (int64_t)(data.clock - before - width / 2);
	}
	return apart;
}

static void order_four(void)
{
	orders(PIT)->pit_mode = 2;
	orders(PIT)->pit_count = PIT_COUNT;
	orders(IN_PERIODS)->lvt = VECTOR | PERIODIC;
	orders(IN_PERIODS)->initial = PERIOD_NS;
	orders(ONE_SHOT)->lvt = VECTOR;
	orders(ONE_SHOT)->initial = PERIOD_NS;
	orders(ONE_SHOT)->again = 1;
	orders(BY_DEADLINE)->lvt = VECTOR | DEADLINE;
	orders(BY_DEADLINE)->deadline =
		ioctl(vcpus[BY_DEADLINE], KVM_GET_TSC_KHZ, 0) * (PERIOD_NS / 1000000ull);
}

static void test_four(unsigned seconds)
{
	bool exact = seconds >= 30;
	pthread_t threads[NR];
	int64_t apart;

	open_machine(NR);
	open_pic();
	order_four();
	for (unsigned i = 0; i < NR; i++)
		prepare(i);
	apart = clock_apart();
	began = pair_now();
	go(threads, NR);
	for (unsigned i = 0; i < NR; i++)
		wait_for(&orders(i)->ticks, 1);
	sleep(seconds);
	wait_caught_up(PIT);
	wait_caught_up(BY_DEADLINE);
	ended = pair_now();
	stop(threads, NR);
	apart = clock_apart() - apart;
	for (unsigned i = 0; i < NR; i++) {
		check_never_early(i);
		CHECK(drift(i) < 1e6 || !exact || i == ONE_SHOT);
	}
	printf("kvmclock: %+.1f us against CLOCK_MONOTONIC_RAW\n", (double)apart / 1e3);
	CHECK(llabs(apart) < 1000000 || !exact);
	close_machine(NR);
}

/* ---- the PIT's modes and its reinjection ---- */

static void open_pit(unsigned mode, pthread_t *thread)
{
	open_machine(1);
	open_pic();
	orders(0)->pit_mode = mode;
	orders(0)->pit_count = PIT_COUNT;
	prepare(0);
	began = pair_now();
	go(thread, 1);
	wait_for(&orders(0)->after, 1);
}

/* nr: ticks that come, or 0: without end. */
static void test_pit_mode(unsigned mode, unsigned nr)
{
	pthread_t thread;

	open_pit(mode, &thread);
	wait_for(&orders(0)->ticks, nr ? nr : 4);
	usleep(nr ? 30000 : 0);
	ended = pair_now();
	stop(&thread, 1);
	CHECK(nr ? orders(0)->ticks == nr : orders(0)->ticks >= 4);
	check_never_early(PIT);
	close_machine(1);
}

/* The vCPU does not run for a while: all ticks of it are there later, or few. */
static void test_reinjection(bool on)
{
	struct kvm_reinject_control control = {.pit_reinject = on};
	uint64_t before, slept = 300000;
	pthread_t thread;

	open_pit(2, &thread);
	CHECK_EQ(ioctl(m.vm, KVM_REINJECT_CONTROL, &control), 0);
	wait_for(&orders(0)->ticks, 2);
	stop(&thread, 1);
	before = orders(0)->ticks;
	usleep(slept);
	go(&thread, 1);
	wait_for(&orders(0)->ticks, before + 4);
	ended = pair_now();
	if (on)
		wait_caught_up(PIT);
	stop(&thread, 1);
	if (!on)
		CHECK((double)orders(0)->ticks <
		      (mono(ended.tsc + offset) - mono(orders(0)->before)) / period(PIT) - 50);
	check_never_early(PIT);
	close_machine(1);
}

/* ---- the local APIC's divide values, by its current count ---- */

#define LONG_NS 3000000000u
#define TMCCT	0x390

static void test_divide(unsigned code, unsigned divide)
{
	struct kvm_lapic_state state;
	uint32_t current;
	double least, most;
	pthread_t thread;

	open_machine(1);
	orders(0)->lvt = VECTOR;
	orders(0)->divide = code;
	orders(0)->initial = LONG_NS / divide;
	prepare(0);
	began = pair_now();
	go(&thread, 1);
	wait_for(&orders(0)->after, 1);
	stop(&thread, 1);
	ended = pair_now();
	least = LONG_NS - mono(ended.tsc + offset) + mono(orders(0)->after);
	CHECK_EQ(ioctl(vcpus[0], KVM_GET_LAPIC, &state), 0);
	memcpy(&current, state.regs + TMCCT, sizeof(current));
	ended = pair_now();
	most = LONG_NS - mono(ended.tsc + offset) + mono(orders(0)->before);
	CHECK((double)current * divide <= least + TOLERANCE + divide);
	CHECK((double)current * divide >= most - TOLERANCE - 2 * divide);
	close_machine(1);
}

int main(int argc, char **argv)
{
	static const uint8_t codes[] = {0xb, 0, 1, 2, 3, 8, 9, 0xa};
	struct sigaction action = {.sa_handler = on_signal};

	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	for (unsigned i = 0; i < sizeof(codes); i++)
		test_divide(codes[i], 1 << i);
	test_pit_mode(0, 1);
	test_pit_mode(1, 1); /* so KVM has it: no gate */
	test_pit_mode(2, 0);
	test_pit_mode(3, 0);
	test_pit_mode(4, 1);
	test_reinjection(true);
	test_reinjection(false);
	test_four(argc > 1 ? atoi(argv[1]) : 5);
	return 0;
}
