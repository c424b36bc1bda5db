/* SPDX-License-Identifier: MIT */
/*
 * Code that the program writes while the guest runs it, told by memory alone: behind SERIALIZE the guest runs what was
 * written, at once, or soon where it executes nothing else (errata.md).
 */
#include "long_mode.h"

#include <pthread.h>
#include <sched.h>

#define RAM	  0x400000
#define FUNCTION  0x100001 /* its value is aligned */
#define SHARED	  0x102000
#define ROUNDS	  200u
#define STORMS	  20u
#define NAP_US	  300 /* so that rounds are no burst */
#define SETTLE_US 5000
#define SERIALIZE (1u << 14) /* CPUID.7.0:EDX */
#define SKIPPED	  77

struct shared {
	uint64_t round; /* for the guest to run */
	uint64_t ran;	/* what the function said in it */
	uint64_t storm; /* what the guest is to wait for, executing nothing else; 0: nothing */
};

/* RBP: struct shared. R8: the function. */
GUEST_CODE(runner, "1: mov rcx, [rbp+16]\n test rcx, rcx\n jnz 2f\n"
		   "mov rdx, [rbp]\n cmp rdx, rbx\n je 1b\n mov rbx, rdx\n"
		   ".byte 0x0f, 0x01, 0xe8\n call r8\n mov [rbp+8], rax\n jmp 1b\n"
		   "2: .byte 0x0f, 0x01, 0xe8\n call r8\n cmp rax, rcx\n jb 2b\n"
		   "mov [rbp+8], rax\n cmp rax, ~0\n jne 1b\n hlt\n");

static struct shared *shared(const struct machine *m)
{
	return (struct shared *)(m->ram + SHARED);
}

/* Of mov $val,%rax, in one write. */
static void write_value(const struct machine *m, uint32_t val)
{
	__atomic_store_n((uint32_t *)(m->ram + FUNCTION + 3), val, __ATOMIC_SEQ_CST);
}

static void wait_for(const uint64_t *where, uint64_t val)
{
	while (__atomic_load_n(where, __ATOMIC_SEQ_CST) != val)
		sched_yield();
}

static void *run(void *opaque)
{
	struct machine *m = opaque;

	RUN_TO(m, KVM_EXIT_HLT);
	return NULL;
}

/* Each value is seen behind one SERIALIZE. */
static void check_rounds(const struct machine *m)
{
	struct shared *s = shared(m);

	for (uint32_t i = 1; i <= ROUNDS; i++) {
		write_value(m, i);
		__atomic_store_n(&s->round, i, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&s->ran, __ATOMIC_SEQ_CST) == i - 1)
			sched_yield();
		CHECK_EQ(s->ran, i);
		usleep(NAP_US);
	}
}

/* The guest does nothing but to serialize and to run it: it must come to an end. */
static void check_storms(const struct machine *m)
{
	struct shared *s = shared(m);

	for (uint32_t i = ROUNDS + 1; i <= ROUNDS + STORMS; i++) {
		__atomic_store_n(&s->storm, i, __ATOMIC_SEQ_CST);
		usleep(SETTLE_US);
		CHECK_EQ(__atomic_load_n(&s->ran, __ATOMIC_SEQ_CST), i - 1);
		write_value(m, i);
		wait_for(&s->ran, i);
	}
}

static bool has_serialize(int kvm)
{
	struct cpuid_list c;

	get_supported_cpuid(kvm, &c);
	for (unsigned i = 0; i < c.head.nent; i++)
		if (c.v[i].function == 7 && !c.v[i].index)
			return c.v[i].edx & SERIALIZE;
	return false;
}

static void start(struct machine *m)
{
	static const uint8_t function[] = {0x48, 0xc7, 0xc0, 0, 0, 0, 0, 0xc3};
	struct kvm_regs regs;

	m->vm = create_vm(m->kvm);
	m->ram = map_ram(RAM);
	CHECK_EQ(set_region(m->vm, 0, 0, 0, RAM, m->ram), 0);
	m->vcpu = ioctl(m->vm, KVM_CREATE_VCPU, 0);
	CHECK(m->vcpu >= 0);
	m->run = map_run(m->kvm, m->vcpu);
	set_supported_cpuid(m->kvm, m->vcpu);
	long_mode_memory(m->ram, runner, runner_end);
	long_mode_start(m->vcpu, LONG_CODE, LONG_STACK);
	memcpy(m->ram + FUNCTION, function, sizeof(function));
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	regs.rbp = SHARED;
	regs.r8 = FUNCTION;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
}

int main(void)
{
	struct machine m = {.kvm = open_kvm()};
	pthread_t thread;

	if (!has_serialize(m.kvm))
		return SKIPPED;
	start(&m);
	CHECK_EQ(pthread_create(&thread, NULL, run, &m), 0);
	check_rounds(&m);
	check_storms(&m);
	write_value(&m, ~0u);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	return 0;
}
