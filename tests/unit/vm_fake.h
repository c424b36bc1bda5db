/* SPDX-License-Identifier: MIT */
/* A VM without vCPUs for unit tests of kvm/vm: struct vm_ops that count. */
#ifndef TESTS_UNIT_VM_FAKE_H
#define TESTS_UNIT_VM_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/host.h"
#include "kvm/vm/ioctl.h"
#include "kvm/vm/vm.h"

#include <sys/mman.h>

static unsigned fake_requests[4], fake_waits;

static void fake_hold_all(struct vm *vm, bool on)
{
}

static void fake_request_all(struct vm *vm, enum vm_request req, bool wait)
{
	(void)vm;
	fake_requests[req]++;
	fake_waits += wait;
}

static struct lapic *fake_lapic(struct vcpu *vcpu)
{
	return (struct lapic *)vcpu;
}

static void fake_interrupt(struct vcpu *vcpu)
{
	(void)vcpu;
}

static void fake_release(struct vm *vm)
{
	vm_destroy(vm);
}

static const struct vm_ops fake_ops = {
	.request_all = fake_request_all,
	.hold_all = fake_hold_all,
	.lapic = fake_lapic,
	.interrupt = fake_interrupt,
	.release = fake_release,
};

/* In tests that hand bad pointers over: cmocka sets its own SIGSEGV handler for each test. */
static inline void fake_faults(void)
{
	assert_int_equal(host_fault_thread_init(), 0);
}

static inline int fake_setup(void **state)
{
	struct vm *vm;

	if (vm_create(&fake_ops, &vm))
		return -1;
	*state = vm;
	return 0;
}

static inline int fake_teardown(void **state)
{
	vm_put(*state);
	return 0;
}

static inline uint8_t *fake_ram(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static inline long fake_region(struct vm *vm, uint32_t slot, uint32_t flags, uint64_t gpa,
			       uint64_t size, const void *hva)
{
	struct kvm_userspace_memory_region mem = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};

	return vm_set_memory_region(vm, &mem);
}

#define fake_test(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

#endif
