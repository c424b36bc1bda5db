/* SPDX-License-Identifier: MIT */
/*
 * No wake-up is lost: a vCPU that halts is woken by an NMI, by a signal and by a change of memory
 * slots, thousands of times, each at another moment of its going to sleep. Then the VM ends while its vCPU
 * sleeps or leaves, which is how a program powers off.
 */
#include "api_test.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#define ROUNDS	 3000
#define MACHINES 30
#define LIMIT_S	 20

struct runner {
	struct machine m;
	pthread_t thread;
	unsigned started, outs, interrupted; /* atomic */
	bool stop;			     /* atomic */
};

static __thread struct kvm_run *current_run;

static void on_signal(int signo)
{
	if (current_run)
		__atomic_store_n(&current_run->immediate_exit, 1, __ATOMIC_RELAXED);
}

static void *run(void *opaque)
{
	struct runner *r = opaque;

	current_run = r->m.run;
	__atomic_store_n(&r->started, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&r->stop, __ATOMIC_SEQ_CST)) {
		if (!ioctl(r->m.vcpu, KVM_RUN, 0)) {
			CHECK_EQ(r->m.run->exit_reason, KVM_EXIT_IO);
			__atomic_fetch_add(&r->outs, 1, __ATOMIC_SEQ_CST);
			continue;
		}
		CHECK_EQ(errno, EINTR);
		r->m.run->immediate_exit = 0;
		__atomic_fetch_add(&r->interrupted, 1, __ATOMIC_SEQ_CST);
	}
	current_run = NULL;
	return NULL;
}

static void await(const unsigned *count, unsigned val)
{
	time_t end = time(NULL) + LIMIT_S;

	while ((int)(__atomic_load_n(count, __ATOMIC_SEQ_CST) - val) < 0) {
		CHECK(time(NULL) < end);
		sched_yield();
	}
}

/* Let the vCPU get a random way further. */
static void dawdle(void)
{
	for (volatile int i = rand() % 3000; i > 0; i--)
		;
}

static void start(struct runner *r)
{
	static const uint8_t code[] = {0xf4, 0xeb, 0xfd}; /* hlt; jmp */

	memset(r, 0, sizeof(*r));
	r->m.kvm = open_kvm();
	r->m.vm = create_vm(r->m.kvm);
	r->m.ram = map_ram(RAM_SIZE);
	CHECK_EQ(ioctl(r->m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_EQ(set_region(r->m.vm, 0, 0, 0, RAM_SIZE, r->m.ram), 0);
	/* The NMI's handler, at 0:0x500: out 0x80, al; iret */
	memcpy(r->m.ram + 8, "\x00\x05\x00\x00", 4);
	memcpy(r->m.ram + 0x500, "\xe6\x80\xcf", 3);
	machine_code(&r->m, code, sizeof(code));
	CHECK_EQ(pthread_create(&r->thread, NULL, run, r), 0);
	await(&r->started, 1);
}

static void nmi(struct runner *r)
{
	struct kvm_msi msi = {.address_lo = 0xfee00000, .data = 4 << 8};

	CHECK_EQ(ioctl(r->m.vm, KVM_SIGNAL_MSI, &msi), 1);
}

static void stop(struct runner *r)
{
	__atomic_store_n(&r->stop, true, __ATOMIC_SEQ_CST);
	pthread_kill(r->thread, SIGUSR1);
	pthread_join(r->thread, NULL);
	munmap(r->m.run, ioctl(r->m.kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	close(r->m.vcpu);
	close(r->m.vm);
	close(r->m.kvm);
	munmap(r->m.ram, RAM_SIZE);
}

/* The waits make each round begin with the vCPU on its way to sleep. */
static void round_trip(struct runner *r, unsigned kind)
{
	unsigned outs = r->outs, interrupted = r->interrupted;

	dawdle();
	if (kind % 3 == 0) {
		nmi(r);
		await(&r->outs, outs + 1);
	} else if (kind % 3 == 1) {
		pthread_kill(r->thread, SIGUSR1);
		await(&r->interrupted, interrupted + 1);
	} else {
		CHECK_EQ(set_region(r->m.vm, 1, 0, 0x100000, 4096, r->m.ram), 0);
		CHECK_EQ(set_region(r->m.vm, 1, 0, 0x100000, 0, r->m.ram), 0);
	}
}

int main(void)
{
	struct sigaction act = {.sa_handler = on_signal};
	struct runner r;

	sigaction(SIGUSR1, &act, NULL);
	start(&r);
	for (unsigned i = 0; i < ROUNDS; i++)
		round_trip(&r, rand());
	stop(&r);
	for (unsigned i = 0; i < MACHINES; i++) {
		start(&r);
		dawdle();
		if (i % 2)
			round_trip(&r, i);
		stop(&r);
	}
	return 0;
}
