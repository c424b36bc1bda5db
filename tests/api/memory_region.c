/* SPDX-License-Identifier: MIT */
/* Memory slots through the ioctls, and the guest that sees them change (KVM api.rst). */
#include "api_test.h"

#define PAGE 4096

static void test_refused(void)
{
	struct machine m = machine_open();
	uint8_t *ram = map_ram(16 * PAGE);
	struct kvm_userspace_memory_region2 two = {.slot = 5,
						   .guest_phys_addr = 0x100000,
						   .memory_size = PAGE,
						   .userspace_addr = (uintptr_t)ram};

	CHECK_ERR(ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, BAD_POINTER), EFAULT);
	CHECK_ERR(set_region(m.vm, 1, 0, 0x100000, PAGE - 1, ram), EINVAL);
	CHECK_ERR(set_region(m.vm, 1, 0, 0x100001, PAGE, ram), EINVAL);
	CHECK_ERR(set_region(m.vm, 1, 0, 0x100000, PAGE, ram + 1), EINVAL);
	CHECK_ERR(set_region(m.vm, 1, 4, 0x100000, PAGE, ram), EINVAL);
	CHECK_ERR(set_region(m.vm, 32764, 0, 0x100000, PAGE, ram), EINVAL);
	CHECK_ERR(set_region(m.vm, 0x20001, 0, 0x100000, PAGE, ram), EINVAL);
	CHECK_ERR(set_region(m.vm, 1, 0, 0xf000, PAGE, ram), EEXIST);
	CHECK_ERR(set_region(m.vm, 1, 0, 0, 0, NULL), EINVAL);
	CHECK_ERR(set_region(m.vm, 0, 0, 0, RAM_SIZE / 2, m.ram), EINVAL);
	CHECK_EQ(ioctl(m.vm, KVM_SET_USER_MEMORY_REGION2, &two), 0);
	two.flags = KVM_MEM_GUEST_MEMFD;
	two.slot = 6;
	two.guest_phys_addr += PAGE;
	CHECK_ERR(ioctl(m.vm, KVM_SET_USER_MEMORY_REGION2, &two), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_SET_USER_MEMORY_REGION2, BAD_POINTER), EFAULT);
	CHECK_EQ(set_region(m.vm, 32763, 0, 0x200000, PAGE, ram), 0);
	CHECK_ERR(ioctl(m.kvm, KVM_SET_USER_MEMORY_REGION, BAD_POINTER), EINVAL);
}

/*
 * 8a 07  mov (%bx),%al;  e6 80  out %al,$0x80;  eb fa  back.
 * What the guest reads follows the slot: other memory, none (MMIO), moved.
 */
static void test_guest_follows(void)
{
	struct machine m = machine_open();
	uint8_t *a = map_ram(PAGE), *b = map_ram(PAGE);
	struct kvm_regs regs;

	a[0] = 0x11;
	b[0] = 0x22;
	MACHINE_CODE(&m, 0x8a, 0x07, 0xe6, 0x80, 0xeb, 0xfa);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, 0, NULL), 0);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, 0x8000, m.ram), 0);
	CHECK_EQ(set_region(m.vm, 1, 0, 0x8000, PAGE, a), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_REGS, &regs), 0);
	regs.rbx = 0x8000;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(*((uint8_t *)m.run + m.run->io.data_offset), 0x11);
	CHECK_EQ(set_region(m.vm, 1, 0, 0x8000, 0, NULL), 0);
	CHECK_EQ(set_region(m.vm, 1, 0, 0x8000, PAGE, b), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(*((uint8_t *)m.run + m.run->io.data_offset), 0x22);
	CHECK_EQ(set_region(m.vm, 1, 0, 0x9000, PAGE, b), 0);
	RUN_TO(&m, KVM_EXIT_MMIO);
	CHECK_EQ(m.run->mmio.phys_addr, 0x8000);
	CHECK_EQ(m.run->mmio.len, 1);
	CHECK_EQ(m.run->mmio.is_write, 0);
	m.run->mmio.data[0] = 0x33;
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(*((uint8_t *)m.run + m.run->io.data_offset), 0x33);
}

/* c6 07 55 movb $0x55,(%bx); f4 hlt. A write to a read-only slot is MMIO and changes nothing. */
static void test_readonly(void)
{
	struct machine m = machine_open();
	uint8_t *rom = map_ram(PAGE);
	struct kvm_regs regs;

	MACHINE_CODE(&m, 0xc6, 0x07, 0x55, 0xf4);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, 0, NULL), 0);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, 0x8000, m.ram), 0);
	CHECK_EQ(set_region(m.vm, 1, KVM_MEM_READONLY, 0x8000, PAGE, rom), 0);
	CHECK_ERR(set_region(m.vm, 1, 0, 0x8000, PAGE, rom), EINVAL);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_REGS, &regs), 0);
	regs.rbx = 0x8010;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(&m, KVM_EXIT_MMIO);
	CHECK_EQ(m.run->mmio.phys_addr, 0x8010);
	CHECK_EQ(m.run->mmio.is_write, 1);
	CHECK_EQ(m.run->mmio.data[0], 0x55);
	RUN_TO(&m, KVM_EXIT_HLT);
	CHECK_EQ(rom[0x10], 0);
}

int main(void)
{
	test_refused();
	test_guest_follows();
	test_readonly();
	return 0;
}
