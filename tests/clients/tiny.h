/* SPDX-License-Identifier: MIT */
/* A VM with one vCPU in real mode and one page of code, by the plain KVM API. */
#ifndef TESTS_TINY_H
#define TESTS_TINY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TINY_BASE 0x1000
#define TINY_SIZE 0x4000

struct tiny {
	int kvm, vm, vcpu, file;
	struct kvm_run *run;
	int run_size;
	uint8_t *mem; /* TINY_SIZE bytes at TINY_BASE, shared with file */
};

#define SPIN "\xeb\xfe" /* jmp . */

/* With t->kvm and t->vm there. */
static inline void tiny_start(struct tiny *t, const void *code, size_t size)
{
	struct kvm_userspace_memory_region region = {0};
	struct kvm_sregs sregs;
	struct kvm_regs regs = {.rip = TINY_BASE, .rflags = 2, .rsp = TINY_BASE + TINY_SIZE};

	t->file = memfd_create("tiny", 0);
	assert_int_equal(ftruncate(t->file, TINY_SIZE), 0);
	t->mem = mmap(NULL, TINY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, t->file, 0);
	memcpy(t->mem, code, size);
	region.guest_phys_addr = TINY_BASE;
	region.memory_size = TINY_SIZE;
	region.userspace_addr = (uintptr_t)t->mem;
	assert_int_equal(ioctl(t->vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
	t->vcpu = ioctl(t->vm, KVM_CREATE_VCPU, 0);
	assert_true(t->vcpu >= 0);
	t->run_size = ioctl(t->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	t->run = mmap(NULL, (size_t)t->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, t->vcpu, 0);
	assert_ptr_not_equal(t->run, MAP_FAILED);
	assert_int_equal(ioctl(t->vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	assert_int_equal(ioctl(t->vcpu, KVM_SET_SREGS, &sregs), 0);
	assert_int_equal(ioctl(t->vcpu, KVM_SET_REGS, &regs), 0);
}

static inline void tiny_create(struct tiny *t, const void *code, size_t size)
{
	t->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	assert_true(t->kvm >= 0);
	t->vm = ioctl(t->kvm, KVM_CREATE_VM, 0);
	assert_true(t->vm >= 0);
	tiny_start(t, code, size);
}

static inline void tiny_destroy(struct tiny *t)
{
	munmap(t->run, (size_t)t->run_size);
	close(t->vcpu);
	close(t->vm);
	close(t->kvm);
	munmap(t->mem, TINY_SIZE);
	close(t->file);
}

static inline void expect_eintr(struct tiny *t)
{
	assert_int_equal(ioctl(t->vcpu, KVM_RUN, 0), -1);
	assert_int_equal(errno, EINTR);
	assert_int_equal(t->run->exit_reason, KVM_EXIT_INTR);
}

static inline void alarm_ms(int ms)
{
	struct itimerval timer = {.it_value = {.tv_usec = ms * 1000}};

	setitimer(ITIMER_REAL, &timer, NULL);
}

static inline uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static inline void install(int signo, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction act = {.sa_flags = flags | SA_SIGINFO};

	act.sa_sigaction = handler;
	assert_int_equal(sigaction(signo, &act, NULL), 0);
}

#endif
