/* SPDX-License-Identifier: MIT */
/*
 * Private memory (KVM api.rst: KVM_CREATE_GUEST_MEMFD, KVM_SET_MEMORY_ATTRIBUTES, KVM_MEM_GUEST_MEMFD,
 * KVM_EXIT_MEMORY_FAULT, KVM_PRE_FAULT_MEMORY). Answers as Linux 6.12 gives them.
 */
#include "api_test.h"

#include <sys/stat.h>

#define PAGE 4096ul
#define GPA  0x8000ul /* of slot 1, two pages */

/* struct kvm_run's union begins behind apic_base. */
static struct kvm_run_memory_fault fault_of(const struct machine *m)
{
	struct kvm_run_memory_fault f;

	memcpy(&f, &m->run->hw, sizeof(f));
	return f;
}

static int create_memfd(int vm, uint64_t size, uint64_t flags)
{
	struct kvm_create_guest_memfd args = {.size = size, .flags = flags};

	return ioctl(vm, KVM_CREATE_GUEST_MEMFD, &args);
}

static int set_region2(int vm, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size,
		       const void *hva, int fd, uint64_t offset)
{
	struct kvm_userspace_memory_region2 mem = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
		.guest_memfd = fd,
		.guest_memfd_offset = offset,
	};

	return ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &mem);
}

static int set_attributes(int vm, uint64_t gpa, uint64_t size, uint64_t attributes, uint64_t flags)
{
	struct kvm_memory_attributes a = {
		.address = gpa, .size = size, .attributes = attributes, .flags = flags};

	return ioctl(vm, KVM_SET_MEMORY_ATTRIBUTES, &a);
}

static int set_private(int vm, uint64_t gpa, uint64_t size)
{
	return set_attributes(vm, gpa, size, KVM_MEMORY_ATTRIBUTE_PRIVATE, 0);
}

static void test_caps(void)
{
	int kvm = open_kvm(), plain = create_vm(kvm), vm = ioctl(kvm, KVM_CREATE_VM, 1);

	CHECK(vm >= 0);
	CHECK_ERR(ioctl(kvm, KVM_CREATE_VM, 2), EINVAL);
	CHECK_EQ(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES), 3);
	CHECK_EQ(ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_MEMORY_ATTRIBUTES), 8);
	CHECK_EQ(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MEMORY_ATTRIBUTES), 8);
	CHECK_EQ(ioctl(plain, KVM_CHECK_EXTENSION, KVM_CAP_MEMORY_ATTRIBUTES), 0);
	CHECK_EQ(ioctl(plain, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD), 0);
	CHECK_EQ(ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD), 1);
	/* No slots for SMM. */
	CHECK_EQ(ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE), 1);
	CHECK_ERR(set_attributes(plain, 0, PAGE, KVM_MEMORY_ATTRIBUTE_PRIVATE, 0), EINVAL);
	CHECK_EQ(set_attributes(plain, 0, PAGE, 0, 0), 0);
	CHECK_ERR(enable_cap(vm, KVM_CAP_MEMORY_FAULT_INFO, 1), EINVAL);
	close(vm);
	close(plain);
	close(kvm);
}

static void test_file(void)
{
	int kvm = open_kvm(), vm = create_vm(kvm), fd;
	struct stat st;
	char byte;

	CHECK_ERR(create_memfd(vm, 0, 0), EINVAL);
	CHECK_ERR(create_memfd(vm, PAGE + 1, 0), EINVAL);
	CHECK_ERR(create_memfd(vm, PAGE, 1), EINVAL);
	CHECK_ERR(create_memfd(vm, 1ull << 63, 0), EINVAL);
	CHECK_ERR(ioctl(vm, KVM_CREATE_GUEST_MEMFD, BAD_POINTER), EFAULT);
	fd = create_memfd(vm, 4 * PAGE, 0);
	CHECK(fd >= 0);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 4 * PAGE);
	CHECK_EQ(read(fd, &byte, 1), -1);
	CHECK_EQ(write(fd, "x", 1), -1);
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED);
	CHECK_EQ(ftruncate(fd, PAGE), -1);
	CHECK_ERR(fallocate(fd, 0, 0, PAGE), EOPNOTSUPP);
	CHECK_ERR(fallocate(fd, FALLOC_FL_KEEP_SIZE, 1, PAGE), EINVAL);
	CHECK_ERR(fallocate(fd, FALLOC_FL_KEEP_SIZE, 4 * PAGE, PAGE), EINVAL);
	CHECK_ERR(fallocate(fd, FALLOC_FL_KEEP_SIZE, -PAGE, PAGE), EINVAL);
	CHECK_EQ(fallocate(fd, FALLOC_FL_KEEP_SIZE, PAGE, 3 * PAGE), 0);
	CHECK_EQ(fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, 9 * PAGE), 0);
	CHECK_ERR(ioctl(fd, KVM_CHECK_EXTENSION, 0), ENOTTY);
	close(vm);
	/* The file outlives the VM's. */
	CHECK_EQ(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
	close(fd);
	CHECK_ERR(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, PAGE), EBADF);
	close(kvm);
}

static struct machine protected_machine(const void *code, size_t size)
{
	struct machine m = {.kvm = open_kvm(), .vcpu = -1};

	m.vm = ioctl(m.kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM);
	CHECK(m.vm >= 0);
	m.ram = map_ram(RAM_SIZE);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, GPA, m.ram), 0);
	machine_code(&m, code, size);
	return m;
}

static void test_refusals(void)
{
	struct machine m = protected_machine("\xf4", 1), other = machine_open();
	int fd = create_memfd(m.vm, 4 * PAGE, 0), foreign = create_memfd(other.vm, 4 * PAGE, 0);
	uint32_t guest = KVM_MEM_GUEST_MEMFD;
	uint8_t *ram = m.ram + GPA;

	CHECK_ERR(set_attributes(m.vm, 0, 0, 8, 0), EINVAL);
	CHECK_ERR(set_attributes(m.vm, 1, PAGE, 8, 0), EINVAL);
	CHECK_ERR(set_attributes(m.vm, 0, PAGE - 1, 8, 0), EINVAL);
	CHECK_ERR(set_attributes(m.vm, -PAGE, 2 * PAGE, 8, 0), EINVAL);
	CHECK_ERR(set_attributes(m.vm, 0, PAGE, 8, 1), EINVAL);
	CHECK_ERR(set_attributes(m.vm, 0, PAGE, 7, 0), EINVAL);
	CHECK_ERR(set_region2(m.vm, 1, guest | 1, GPA, PAGE, ram, fd, 0), EINVAL);
	CHECK_ERR(set_region2(m.vm, 1, guest | 2, GPA, PAGE, ram, fd, 0), EINVAL);
	CHECK_ERR(set_region2(m.vm, 1, guest, GPA, PAGE, ram, -1, 0), EBADF);
	CHECK_ERR(set_region2(m.vm, 1, guest, GPA, PAGE, ram, m.vm, 0), EINVAL);
	CHECK_ERR(set_region2(m.vm, 1, guest, GPA, PAGE, ram, foreign, 0), EINVAL);
	CHECK_ERR(set_region2(m.vm, 1, guest, GPA, PAGE, ram, fd, 1), EINVAL);
	CHECK_ERR(set_region2(m.vm, 1, guest, GPA, PAGE, ram, fd, 4 * PAGE), EINVAL);
	CHECK_ERR(set_region2(other.vm, 1, guest, RAM_SIZE, PAGE, ram, foreign, 0), EINVAL);
	CHECK_ERR(set_region2(m.vm, 1 << 16, 0, GPA, PAGE, ram, 0, 0), EINVAL);
	CHECK_EQ(set_region2(m.vm, 1, guest, GPA, 2 * PAGE, ram, fd, PAGE), 0);
	/* It cannot be changed, and the file's pages are taken. */
	CHECK_ERR(set_region2(m.vm, 1, guest, GPA, 2 * PAGE, ram, fd, PAGE), EINVAL);
	CHECK_ERR(set_region2(m.vm, 1, 0, GPA, 2 * PAGE, ram, fd, PAGE), EINVAL);
	CHECK_ERR(set_region2(m.vm, 2, guest, 0x100000, PAGE, ram, fd, 2 * PAGE), EINVAL);
	CHECK_EQ(set_region2(m.vm, 2, guest, 0x100000, PAGE, ram, fd, 3 * PAGE), 0);
	CHECK_EQ(set_region(m.vm, 2, 0, 0x100000, 0, NULL), 0);
	CHECK_EQ(set_region2(m.vm, 3, guest, 0x100000, PAGE, ram, fd, 3 * PAGE), 0);
	close(m.vm);
	close(other.vm);
}

/* mov %al,(0x8000); mov (0x8000),%al; out %al,$0x80; jmp back */
static const uint8_t writer[] = {0xa2, 0x00, 0x80, 0xa0, 0x00, 0x80, 0xe6, 0x80, 0xeb, 0xf6};

static uint8_t run_writer(struct machine *m, uint8_t al)
{
	struct kvm_regs regs;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	regs.rip = CODE_GPA;
	regs.rax = al;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(m, KVM_EXIT_IO);
	return *((uint8_t *)m->run + m->run->io.data_offset);
}

static void expect_fault(struct machine *m)
{
	struct kvm_regs before, after;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &before), 0);
	CHECK_ERR(ioctl(m->vcpu, KVM_RUN, 0), EFAULT);
	CHECK_EQ(m->run->exit_reason, KVM_EXIT_MEMORY_FAULT);
	CHECK_EQ(fault_of(m).flags, KVM_MEMORY_EXIT_FLAG_PRIVATE);
	CHECK_EQ(fault_of(m).gpa, GPA);
	CHECK_EQ(fault_of(m).size, PAGE);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &after), 0);
	CHECK_EQ(memcmp(&before, &after, sizeof(before)), 0);
}

/* Private and shared are two memories at one address; what stands behind neither is a fault. */
static void test_conversion(void)
{
	struct machine m = protected_machine(writer, sizeof(writer));
	int fd = create_memfd(m.vm, PAGE, 0), copy = dup(fd);
	uint8_t *shared = m.ram + GPA;

	CHECK_EQ(set_private(m.vm, GPA, PAGE), 0);
	expect_fault(&m);
	CHECK_EQ(set_region(m.vm, 1, 0, GPA, PAGE, shared), 0);
	expect_fault(&m);
	CHECK_EQ(set_region(m.vm, 1, 0, GPA, 0, NULL), 0);
	CHECK_EQ(set_region2(m.vm, 1, KVM_MEM_GUEST_MEMFD, GPA, PAGE, shared, fd, 0), 0);
	CHECK_EQ(run_writer(&m, 0x11), 0x11);
	CHECK_EQ(*shared, 0);
	CHECK_EQ(set_attributes(m.vm, GPA, PAGE, 0, 0), 0);
	CHECK_EQ(run_writer(&m, 0x22), 0x22);
	CHECK_EQ(*shared, 0x22);
	CHECK_EQ(set_private(m.vm, 0x7000, 3 * PAGE), 0);
	CHECK_EQ(set_attributes(m.vm, 0x7000, PAGE, 0, 0), 0);
	CHECK_EQ(set_attributes(m.vm, 0x9000, PAGE, 0, 0), 0);
	CHECK_EQ(run_writer(&m, 0x33), 0x33);
	CHECK_EQ(*shared, 0x22);
	/* A hole reads as 0: mov (0x8000),%al only. */
	CHECK_EQ(fallocate(copy, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, PAGE), 0);
	m.run->immediate_exit = 1;
	CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	m.run->immediate_exit = 0;
	m.ram[CODE_GPA] = m.ram[CODE_GPA + 1] = m.ram[CODE_GPA + 2] = 0x90;
	CHECK_EQ(run_writer(&m, 0x44), 0);
	/* Without the file there is no memory. */
	close(copy);
	CHECK_EQ(run_writer(&m, 0x44), 0);
	close(fd);
	m.run->immediate_exit = 1;
	CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	m.run->immediate_exit = 0;
	machine_start(&m);
	memcpy(m.ram + CODE_GPA, writer, sizeof(writer));
	expect_fault(&m);
	close(m.vcpu);
	close(m.vm);
}

static int pre_fault(const struct machine *m, uint64_t gpa, uint64_t *size, uint64_t flags)
{
	struct kvm_pre_fault_memory range = {.gpa = gpa, .size = *size, .flags = flags};
	int r = ioctl(m->vcpu, KVM_PRE_FAULT_MEMORY, &range);

	*size = range.size;
	return r;
}

static void test_pre_fault(void)
{
	struct machine m = protected_machine("\xf4", 1);
	uint64_t size = PAGE;

	CHECK_ERR(pre_fault(&m, 0, &size, 1), EINVAL);
	CHECK_ERR(pre_fault(&m, 1, &size, 0), EINVAL);
	size = 0;
	CHECK_ERR(pre_fault(&m, 0, &size, 0), EINVAL);
	size = PAGE;
	CHECK_ERR(pre_fault(&m, GPA, &size, 0), ENOENT);
	CHECK_EQ(size, PAGE);
	size = 3 * PAGE;
	CHECK_EQ(pre_fault(&m, GPA - 2 * PAGE, &size, 0), 0);
	CHECK_EQ(size, PAGE);
	size = PAGE;
	CHECK_EQ(set_private(m.vm, 0, PAGE), 0);
	CHECK_ERR(pre_fault(&m, 0, &size, 0), EFAULT);
	munmap(m.ram, RAM_SIZE);
	CHECK_ERR(pre_fault(&m, PAGE, &size, 0), EFAULT);
	close(m.vm);
}

int main(void)
{
	test_caps();
	test_file();
	test_refusals();
	test_conversion();
	test_pre_fault();
	return 0;
}
