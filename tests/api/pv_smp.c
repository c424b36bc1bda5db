/* SPDX-License-Identifier: MIT */
/*
 * What vCPUs do for each other by hypercalls and in shared memory (Linux's Documentation/virt/kvm/x86/hypercalls.rst, msr.rst): IPIs to many,
 * kicks that end a HLT with interrupts off, yielding, also of those that spin, a TLB flush left for one that sleeps. And HLT costs no host CPU.
 */
#include "long_mode.h"
#include "stats_fd.h"

#include <linux/kvm_para.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>

#define RAM	    0x800000
#define STEAL	    0x7000
#define FLAG	    0x7100
#define VECTOR	    0x50
#define WINDOW	    0x600000 /* mapped to FIRST, then to SECOND */
#define FIRST	    0x200000
#define SECOND	    0x400000
#define MAX_VCPUS   4
#define LAPIC_SVR   0xf0
#define LAPIC_IRR   0x200
#define FIXED	    (1 << 14 | VECTOR)
#define NMI	    (1 << 14 | 4 << 8)
#define ICR_LOGICAL 0x800
#define ICR_SELF    0x40000
#define COUNTS	    20000000 /* takes longer than the host lets one thread run */

GUEST_CODE(call, "1: vmcall\n out 0x80, al\n jmp 1b");
GUEST_CODE(sleeper, "cli\n hlt\n out 0x80, al");
GUEST_CODE(
	reader,
	"mov rax, [rdi]\n sti\n hlt\n cli\n mov rax, [rdi]\n out 0x80, al\n reader_handler: iretq");
GUEST_CODE(yielder,
	   "1: mov eax, 11\n mov ebx, 1\n vmcall\n cmp dword ptr [0x7100], 20000000\n jb 1b\n "
	   "out 0x80, al");
GUEST_CODE(spinner, "1: pause\n cmp dword ptr [0x7100], 20000000\n jb 1b\n out 0x80, al");
GUEST_CODE(counter,
	   "mov ecx, 20000000\n1: lock inc dword ptr [0x7100]\n dec ecx\n jnz 1b\n out 0x80, al");
GUEST_CODE(idler, "1: sti\n hlt\n jmp 1b");
extern const uint8_t reader_handler[];

struct many {
	struct machine m;
	int vcpu[MAX_VCPUS];
	struct kvm_run *run[MAX_VCPUS];
	unsigned nr;
};

static void enable_lapic(int vcpu)
{
	struct kvm_lapic_state state;
	uint32_t svr = 0x1ff;

	CHECK_EQ(ioctl(vcpu, KVM_GET_LAPIC, &state), 0);
	memcpy(state.regs + LAPIC_SVR, &svr, sizeof(svr));
	CHECK_EQ(ioctl(vcpu, KVM_SET_LAPIC, &state), 0);
}

static struct many open_many(const unsigned *ids, unsigned nr)
{
	struct many v = {.m.kvm = open_kvm(), .nr = nr};

	v.m.vm = create_vm(v.m.kvm);
	v.m.ram = map_ram(RAM);
	CHECK_EQ(set_region(v.m.vm, 0, 0, 0, RAM, v.m.ram), 0);
	CHECK_EQ(ioctl(v.m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	long_mode_memory(v.m.ram, call, call_end);
	for (unsigned i = 0; i < nr; i++) {
		v.vcpu[i] = ioctl(v.m.vm, KVM_CREATE_VCPU, ids[i]);
		CHECK(v.vcpu[i] >= 0);
		v.run[i] = map_run(v.m.kvm, v.vcpu[i]);
		long_mode_cpuid(v.m.kvm, v.vcpu[i], 1 << 21);
		long_mode_start(v.vcpu[i], LONG_CODE, LONG_STACK - i * 0x800);
		enable_lapic(v.vcpu[i]);
	}
	return v;
}

static const unsigned plain_ids[] = {0, 1, 2, 3};

/* Code of one vCPU's own, in a page of its own. */
static void give(struct many *v, unsigned i, const uint8_t *code, const uint8_t *end)
{
	struct kvm_regs regs;

	memcpy(v->m.ram + 0x20000 + i * 4096, code, end - code);
	CHECK_EQ(ioctl(v->vcpu[i], KVM_GET_REGS, &regs), 0);
	regs.rip = 0x20000 + i * 4096;
	CHECK_EQ(ioctl(v->vcpu[i], KVM_SET_REGS, &regs), 0);
}

#define GIVE(v, i, code) give(v, i, code, code##_end)

static int64_t hypercall(struct many *v, const uint64_t arg[5])
{
	struct kvm_regs regs;

	CHECK_EQ(ioctl(v->vcpu[0], KVM_GET_REGS, &regs), 0);
	regs.rip = LONG_CODE;
	regs.rax = arg[0];
	regs.rbx = arg[1];
	regs.rcx = arg[2];
	regs.rdx = arg[3];
	regs.rsi = arg[4];
	CHECK_EQ(ioctl(v->vcpu[0], KVM_SET_REGS, &regs), 0);
	CHECK_EQ(ioctl(v->vcpu[0], KVM_RUN, 0), 0);
	CHECK_EQ(v->run[0]->exit_reason, KVM_EXIT_IO);
	CHECK_EQ(ioctl(v->vcpu[0], KVM_GET_REGS, &regs), 0);
	return regs.rax;
}

#define CALL(v, ...) hypercall(v, (const uint64_t[5]){__VA_ARGS__})

/* ---- IPIs ---- */

/* Who has the vector waiting, by index, and has it no more. */
static unsigned taken(const struct many *v)
{
	struct kvm_lapic_state state;
	unsigned mask = 0;

	for (unsigned i = 0; i < v->nr; i++) {
		CHECK_EQ(ioctl(v->vcpu[i], KVM_GET_LAPIC, &state), 0);
		if (state.regs[LAPIC_IRR + VECTOR / 32 * 16 + VECTOR % 32 / 8] & 1 << VECTOR % 8)
			mask |= 1 << i;
		memset(state.regs + LAPIC_IRR, 0, 0x80);
		CHECK_EQ(ioctl(v->vcpu[i], KVM_SET_LAPIC, &state), 0);
	}
	return mask;
}

static void test_ipis(void)
{
	static const unsigned ids[] = {0, 1, 70, 200};
	struct kvm_vcpu_events events;
	struct many v = open_many(ids, 4);

	CHECK_EQ(CALL(&v, KVM_HC_SEND_IPI, 2, 0, 0, FIXED), 1);
	CHECK_EQ(taken(&v), 2);
	/* 64 to a word, the second one's behind the first's, and both behind the lowest. */
	CHECK_EQ(CALL(&v, KVM_HC_SEND_IPI, 3, 1 << 6, 0, FIXED), 3);
	CHECK_EQ(taken(&v), 7);
	CHECK_EQ(CALL(&v, KVM_HC_SEND_IPI, 1ull << 5, 1, 65, FIXED), 1);
	CHECK_EQ(taken(&v), 4);
	CHECK_EQ(CALL(&v, KVM_HC_SEND_IPI, 0, 1, 136, FIXED), 1);
	CHECK_EQ(taken(&v), 8);
	/* Nobody there, far beyond anybody, and nobody meant. */
	CHECK_EQ(CALL(&v, KVM_HC_SEND_IPI, 1ull << 40, 0, 0, FIXED), 0);
	CHECK_EQ(CALL(&v, KVM_HC_SEND_IPI, ~0ull, ~0ull, 0x7fffff00, FIXED), 0);
	CHECK_EQ(CALL(&v, KVM_HC_SEND_IPI, 0, 0, 0, FIXED), 0);
	CHECK_EQ(CALL(&v, KVM_HC_SEND_IPI, 1, 0, 0, FIXED | ICR_LOGICAL), -KVM_EINVAL);
	CHECK_EQ(CALL(&v, KVM_HC_SEND_IPI, 1, 0, 0, FIXED | ICR_SELF), -KVM_EINVAL);
	CHECK_EQ(taken(&v), 0);
	CHECK_EQ(CALL(&v, KVM_HC_SEND_IPI, 2, 0, 0, NMI), 1);
	CHECK_EQ(ioctl(v.vcpu[1], KVM_GET_VCPU_EVENTS, &events), 0);
	CHECK_EQ(events.nmi.pending, 1);
}

/* ---- threads ---- */

struct runner {
	struct many *v;
	unsigned i;
	volatile bool through;
	uint64_t used_ns; /* of processor time */
	pthread_t thread;
};

static void *run(void *opaque)
{
	struct runner *r = opaque;
	struct timespec used;

	if (ioctl(r->v->vcpu[r->i], KVM_RUN, 0))
		CHECK_EQ(errno, EINTR);
	else
		CHECK_EQ(r->v->run[r->i]->exit_reason, KVM_EXIT_IO);
	CHECK_EQ(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used), 0);
	r->used_ns = used.tv_sec * 1000000000ull + used.tv_nsec;
	r->through = true;
	return NULL;
}

static void begin(struct runner *r, struct many *v, unsigned i)
{
	*r = (struct runner){.v = v, .i = i};
	CHECK_EQ(pthread_create(&r->thread, NULL, run, r), 0);
}

static void join(struct runner *r)
{
	CHECK_EQ(pthread_join(r->thread, NULL), 0);
}

static void send_msi(const struct many *v, unsigned id)
{
	struct kvm_msi msi = {.address_lo = 0xfee00000 | id << 12, .data = VECTOR};

	CHECK_EQ(ioctl(v->m.vm, KVM_SIGNAL_MSI, &msi), 1);
}

/* ---- kicks ---- */

static uint32_t mp_state(const struct many *v, unsigned i)
{
	struct kvm_mp_state state;

	CHECK_EQ(ioctl(v->vcpu[i], KVM_GET_MP_STATE, &state), 0);
	return state.mp_state;
}

static void test_kick(void)
{
	struct many v = open_many(plain_ids, 2);
	struct kvm_mp_state halted = {.mp_state = KVM_MP_STATE_HALTED};
	struct runner r;

	/* Interrupts are off: none wakes it, a kick does. */
	GIVE(&v, 1, sleeper);
	begin(&r, &v, 1);
	usleep(20000);
	send_msi(&v, 1);
	usleep(50000);
	CHECK(!r.through);
	CHECK_EQ(CALL(&v, KVM_HC_KICK_CPU, 0, 1), 0);
	join(&r);
	/* A kick that comes first counts for the next HLT, once. */
	GIVE(&v, 1, sleeper);
	CHECK_EQ(CALL(&v, KVM_HC_KICK_CPU, 0, 1), 0);
	begin(&r, &v, 1);
	join(&r);
	/* It shows as runnable. */
	CHECK_EQ(ioctl(v.vcpu[1], KVM_SET_MP_STATE, &halted), 0);
	CHECK_EQ(mp_state(&v, 1), KVM_MP_STATE_HALTED);
	CHECK_EQ(CALL(&v, KVM_HC_KICK_CPU, 0, 1), 0);
	CHECK_EQ(mp_state(&v, 1), KVM_MP_STATE_RUNNABLE);
	CHECK_EQ(CALL(&v, KVM_HC_KICK_CPU, 0, 77), 0);
}

/* ---- a flush that waits in memory ---- */

static void map_window(struct many *v, uint64_t to)
{
	uint64_t entry = to | 0x83;

	memcpy(v->m.ram + LONG_TABLES + 0x2000 + WINDOW / 0x200000 * 8, &entry, sizeof(entry));
}

static void test_flush(void)
{
	struct many v = open_many(plain_ids, 2);
	volatile uint8_t *preempted = v.m.ram + STEAL + offsetof(struct kvm_steal_time, preempted);
	struct kvm_regs regs;
	struct runner r;

	if (!ioctl(v.m.kvm, KVM_CHECK_EXTENSION, KVM_CAP_STEAL_TIME))
		return;
	CHECK_EQ(msr_set(v.vcpu[1], MSR_KVM_STEAL_TIME, STEAL | 1), 1);
	v.m.ram[FIRST] = 1;
	v.m.ram[SECOND] = 2;
	map_window(&v, FIRST);
	GIVE(&v, 1, reader);
	long_mode_gate(v.m.ram, VECTOR, 0x20000 + 4096 + (reader_handler - reader));
	CHECK_EQ(ioctl(v.vcpu[1], KVM_GET_REGS, &regs), 0);
	regs.rdi = WINDOW;
	CHECK_EQ(ioctl(v.vcpu[1], KVM_SET_REGS, &regs), 0);
	begin(&r, &v, 1);
	while (!(*preempted & KVM_VCPU_PREEMPTED))
		usleep(100);
	map_window(&v, SECOND);
	CHECK(__sync_bool_compare_and_swap(preempted, KVM_VCPU_PREEMPTED,
					   KVM_VCPU_PREEMPTED | KVM_VCPU_FLUSH_TLB));
	send_msi(&v, 1);
	join(&r);
	CHECK_EQ(ioctl(v.vcpu[1], KVM_GET_REGS, &regs), 0);
	CHECK_EQ(regs.rax, 2);
	CHECK_EQ(*preempted, 0);
}

/* ---- yielding ---- */

/* All threads that are made from here on share one processor. */
static cpu_set_t one_processor(void)
{
	cpu_set_t old, one;
	unsigned cpu = 0;

	CHECK_EQ(sched_getaffinity(0, sizeof(old), &old), 0);
	while (!CPU_ISSET(cpu, &old))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	CHECK_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
	return old;
}

/* On one processor, whoever waits lets the other one work. To itself, to nobody and to one that does not run nothing is yielded. */
static void test_yield(void)
{
	struct many v = open_many(plain_ids, 2);
	int stats = ioctl(v.vcpu[0], KVM_GET_STATS_FD, 0);
	struct runner r[2];
	cpu_set_t old;

	CHECK_EQ(CALL(&v, KVM_HC_SCHED_YIELD, 0), 0);
	CHECK_EQ(CALL(&v, KVM_HC_SCHED_YIELD, 99), 0);
	CHECK_EQ(CALL(&v, KVM_HC_SCHED_YIELD, 1), 0);
	CHECK_EQ(CALL(&v, KVM_HC_KICK_CPU, 0, 99), 0);
	CHECK_EQ(stat_value(stats, "directed_yield_attempted"), 4);
	CHECK_EQ(stat_value(stats, "directed_yield_successful"), 0);
	old = one_processor();
	GIVE(&v, 0, yielder);
	GIVE(&v, 1, counter);
	begin(&r[0], &v, 0);
	begin(&r[1], &v, 1);
	join(&r[0]);
	join(&r[1]);
	CHECK_EQ(*(uint32_t *)(v.m.ram + FLAG), COUNTS);
	CHECK(stat_value(stats, "directed_yield_successful") > 0);
	CHECK_EQ(sched_setaffinity(0, sizeof(old), &old), 0);
}

/* Three that spin with PAUSE where one works, on one processor: they leave most of its time to that one. */
static void test_spin(void)
{
	cpu_set_t old = one_processor();
	struct many v = open_many(plain_ids, 4);
	uint64_t spun = 0, worked = 0;
	struct runner r[4];

	for (unsigned i = 0; i < 4; i++) {
		if (i == 3)
			GIVE(&v, i, counter);
		else
			GIVE(&v, i, spinner);
		begin(&r[i], &v, i);
	}
	for (unsigned i = 0; i < 4; i++) {
		int stats = ioctl(v.vcpu[i], KVM_GET_STATS_FD, 0);

		join(&r[i]);
		if (i == 3)
			worked = r[i].used_ns;
		else
			spun += r[i].used_ns;
		CHECK(!stat_value(stats, "spin_yields") == (i == 3));
		close(stats);
	}
	CHECK_EQ(*(uint32_t *)(v.m.ram + FLAG), COUNTS);
	CHECK(spun < worked);
	CHECK_EQ(sched_setaffinity(0, sizeof(old), &old), 0);
}

/* ---- HLT ---- */

static void on_signal(int number)
{
}

static void test_idle(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct many v = open_many(plain_ids, 4);
	struct runner r[4];
	struct timespec used;
	clockid_t clock;

	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	for (unsigned i = 0; i < 4; i++) {
		GIVE(&v, i, idler);
		begin(&r[i], &v, i);
	}
	sleep(1);
	for (unsigned i = 0; i < 4; i++) {
		CHECK_EQ(pthread_getcpuclockid(r[i].thread, &clock), 0);
		CHECK_EQ(clock_gettime(clock, &used), 0);
		CHECK(used.tv_sec == 0 && used.tv_nsec < 5000000);
		v.run[i]->immediate_exit = 1;
		CHECK_EQ(pthread_kill(r[i].thread, SIGUSR1), 0);
		join(&r[i]);
	}
}

int main(void)
{
	test_ipis();
	test_kick();
	test_flush();
	test_yield();
	test_spin();
	test_idle();
	return 0;
}
