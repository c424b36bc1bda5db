/* SPDX-License-Identifier: MIT */
/*
 * A VM with 64 KiB of RAM at 0, no in-kernel irqchip unless asked for, and one vCPU in real mode:
 * the room kvm/vcpu with the real processor below it, called as kvm/api calls it.
 */
#ifndef TESTS_UNIT_VCPU_FIXTURE_H
#define TESTS_UNIT_VCPU_FIXTURE_H

#include "kvm/vcpu/vcpu_internal.h"
#include "kvm/vm/irqchip.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#define RAM_SIZE 0x10000u
#define CODE	 0x1000u

static struct vm *vm;
static struct vcpu *vcpu;
static struct kvm_run *run;
static uint8_t *ram;
static struct vm_ops fixture_ops;

static void fixture_release(struct vm *dead)
{
	vm_quiesce(dead);
	for (unsigned i = 0; i < dead->nr_vcpus; i++) {
		void *pages = dead->vcpus[i]->run;

		vcpu_destroy(dead->vcpus[i]);
		munmap(pages, VCPU_MMAP_SIZE);
	}
	vm_destroy(dead);
}

static struct vcpu *fixture_vcpu(uint32_t id)
{
	const char *why = NULL;
	const struct cpu_model *model = model_find(NULL, &why);
	struct vcpu *v;
	void *pages;

	assert_non_null(model);
	pages = mmap(NULL, VCPU_MMAP_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	assert_ptr_not_equal(pages, MAP_FAILED);
	assert_int_equal(vcpu_create(vm, id, model, pages, &v), 0);
	v->index = vm->nr_vcpus;
	vm->vcpus[vm->nr_vcpus++] = v;
	return v;
}

static int fixture_open(bool irqchip)
{
	struct kvm_userspace_memory_region region = {.memory_size = RAM_SIZE};

	fixture_ops = vcpu_vm_ops;
	fixture_ops.release = fixture_release;
	if (vm_create(&fixture_ops, &vm))
		return -1;
	ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	region.userspace_addr = (uintptr_t)ram;
	if (vm_set_memory_region(vm, &region) || (irqchip && vm_create_irqchip(vm, NULL)))
		return -1;
	vcpu = fixture_vcpu(0);
	run = vcpu->run;
	return 0;
}

static int setup(void **state)
{
	return fixture_open(false);
}

static inline int setup_irqchip(void **state)
{
	return fixture_open(true);
}

static int teardown(void **state)
{
	vm_put(vm);
	munmap(ram, RAM_SIZE);
	return 0;
}

/* cmocka has a SIGSEGV handler of its own: put ours before a call with a bad pointer. */
static inline void guard(void)
{
	assert_int_equal(host_fault_thread_init(), 0);
}

/* Real mode, CS base 0, code at CODE, interrupts off. */
static inline void load(const void *code, size_t size)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rsp = 0x8000};

	memcpy(ram + CODE, code, size);
	assert_int_equal(vcpu_get_sregs(vcpu, &sregs), 0);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	assert_int_equal(vcpu_set_sregs(vcpu, &sregs), 0);
	assert_int_equal(vcpu_set_regs(vcpu, &regs), 0);
}

#define LOAD(...)                                            \
	do {                                                 \
		static const uint8_t code[] = {__VA_ARGS__}; \
		load(code, sizeof(code));                    \
	} while (0)

static inline struct kvm_regs regs(void)
{
	struct kvm_regs r;

	assert_int_equal(vcpu_get_regs(vcpu, &r), 0);
	return r;
}

/* KVM_RUN answers 0 with this exit. */
#define RUN_TO(reason)                                      \
	do {                                                \
		assert_int_equal(vcpu_run(vcpu, NULL), 0);  \
		assert_int_equal(run->exit_reason, reason); \
	} while (0)

#endif
