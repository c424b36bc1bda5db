/* SPDX-License-Identifier: MIT */
/*
 * Helpers for tests of the KVM interface: plain programs that open /dev/kvm, run under
 * `anykvm run`, or on a real KVM to compare answers. A failed check prints its line and ends the program
 * with 1. No state but struct machine.
 */
#ifndef TESTS_API_API_TEST_H
#define TESTS_API_API_TEST_H

#include "kvm/vm/uapi.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHECK(cond)                                                                              \
	do {                                                                                     \
		if (!(cond)) {                                                                   \
			fprintf(stderr, "%s:%d: failed: %s (errno %d %s)\n", __FILE__, __LINE__, \
				#cond, errno, strerror(errno));                                  \
			exit(1);                                                                 \
		}                                                                                \
	} while (0)

#define CHECK_EQ(a, b)                                                                       \
	do {                                                                                 \
		long long check_a = (long long)(a), check_b = (long long)(b);                \
		if (check_a != check_b) {                                                    \
			fprintf(stderr,                                                      \
				"%s:%d: %s is %lld (0x%llx), not %lld (0x%llx), errno %d\n", \
				__FILE__, __LINE__, #a, check_a, check_a, check_b, check_b,  \
				errno);                                                      \
			exit(1);                                                             \
		}                                                                            \
	} while (0)

/* The call fails with exactly this errno. */
#define CHECK_ERR(call, error)                                                              \
	do {                                                                                \
		errno = 0;                                                                  \
		long check_r = (long)(call);                                                \
		if (check_r != -1 || errno != (error)) {                                    \
			fprintf(stderr, "%s:%d: %s gave %ld errno %d (%s), not errno %d\n", \
				__FILE__, __LINE__, #call, check_r, errno, strerror(errno), \
				error);                                                     \
			exit(1);                                                            \
		}                                                                           \
	} while (0)

/* An address that nothing is mapped at. */
#define BAD_POINTER ((void *)8)

#define CODE_GPA 0x1000
#define RAM_SIZE 0x10000

struct machine {
	int kvm, vm, vcpu;
	uint8_t *ram; /* gpa 0 */
	struct kvm_run *run;
};

static inline int open_kvm(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

static inline int create_vm(int kvm)
{
	int fd = ioctl(kvm, KVM_CREATE_VM, 0);

	CHECK(fd >= 0);
	return fd;
}

static inline void *map_ram(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

static inline int set_region(int vm, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size,
			     const void *hva)
{
	struct kvm_userspace_memory_region mem = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};

	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &mem);
}

static inline int enable_cap(int fd, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap enable = {.cap = cap, .args = {arg}};

	return ioctl(fd, KVM_ENABLE_CAP, &enable);
}

static inline struct kvm_run *map_run(int kvm, int vcpu)
{
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

#define CPUID_ENTRIES 160

struct cpuid_list {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 v[CPUID_ENTRIES];
};

static inline void get_supported_cpuid(int kvm, struct cpuid_list *ret)
{
	ret->head.nent = CPUID_ENTRIES;
	CHECK_EQ(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, ret), 0);
}

/* Give a vCPU all that KVM offers. */
static inline void set_supported_cpuid(int kvm, int vcpu)
{
	struct cpuid_list c;

	get_supported_cpuid(kvm, &c);
	CHECK_EQ(ioctl(vcpu, KVM_SET_CPUID2, &c), 0);
}

/* ---- one MSR ---- */

struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry entry;
};

/* How many were accepted: 1, or 0 if the MSR refused the value. */
static inline int msr_set(int vcpu, uint32_t index, uint64_t data)
{
	struct one_msr m = {.head.nmsrs = 1, .entry = {.index = index, .data = data}};

	return ioctl(vcpu, KVM_SET_MSRS, &m);
}

static inline uint64_t msr_get(int vcpu, uint32_t index)
{
	struct one_msr m = {.head.nmsrs = 1, .entry.index = index};

	CHECK_EQ(ioctl(vcpu, KVM_GET_MSRS, &m), 1);
	return m.entry.data;
}

static inline bool msr_readable(int vcpu, uint32_t index)
{
	struct one_msr m = {.head.nmsrs = 1, .entry.index = index};

	return ioctl(vcpu, KVM_GET_MSRS, &m) == 1;
}

/* ---- a machine ---- */

/* A VM with 64 KiB of RAM in slot 0, no vCPU yet. */
static inline struct machine machine_open(void)
{
	struct machine m = {.kvm = open_kvm(), .vcpu = -1};

	m.vm = create_vm(m.kvm);
	m.ram = map_ram(RAM_SIZE);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, RAM_SIZE, m.ram), 0);
	return m;
}

/* Real mode, CS = DS = 0, at CODE_GPA; the stack under it. */
static inline void machine_start(struct machine *m)
{
	struct kvm_regs regs = {.rip = CODE_GPA, .rsp = CODE_GPA, .rflags = 2};
	struct kvm_sregs sregs;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SREGS, &sregs), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
}

/* Add vCPU 0 with code to be run next. */
static inline void machine_code(struct machine *m, const void *code, size_t size)
{
	memcpy(m->ram + CODE_GPA, code, size);
	m->vcpu = ioctl(m->vm, KVM_CREATE_VCPU, 0);
	CHECK(m->vcpu >= 0);
	m->run = map_run(m->kvm, m->vcpu);
	machine_start(m);
}

#define MACHINE_CODE(m, ...) \
	machine_code(m, (uint8_t[]){__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__}))

/* KVM_RUN must return with this exit. */
#define RUN_TO(m, reason)                                  \
	do {                                               \
		CHECK_EQ(ioctl((m)->vcpu, KVM_RUN, 0), 0); \
		CHECK_EQ((m)->run->exit_reason, reason);   \
	} while (0)

#endif
