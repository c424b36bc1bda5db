/* SPDX-License-Identifier: MIT */
/* The program's memory fails under the guest: truncation, unmapping, protection, userfaultfd. */
#include "tiny.h"

#include <linux/userfaultfd.h>
#include <sys/syscall.h>

/* mov al, [0x3000]; hlt */
#define LOAD "\xa0\x00\x30\xf4"
/* mov [0x3000], al; hlt */
#define STORE	    "\xa2\x00\x30\xf4"
#define DATA_OFFSET (0x3000 - TINY_BASE)

static void expect_efault(struct tiny *t, uint64_t rip)
{
	struct kvm_regs regs;

	assert_int_equal(ioctl(t->vcpu, KVM_RUN, 0), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(ioctl(t->vcpu, KVM_GET_REGS, &regs), 0);
	assert_int_equal(regs.rip, rip);
}

static void expect_halt(struct tiny *t)
{
	assert_int_equal(ioctl(t->vcpu, KVM_RUN, 0), 0);
	assert_int_equal(t->run->exit_reason, KVM_EXIT_HLT);
}

/* Nothing is committed: mended, the same instruction runs. */
static void truncated(void **state)
{
	struct tiny t;

	tiny_create(&t, LOAD, 4);
	assert_int_equal(ftruncate(t.file, DATA_OFFSET), 0);
	expect_efault(&t, TINY_BASE);
	assert_int_equal(ftruncate(t.file, TINY_SIZE), 0);
	expect_halt(&t);
	tiny_destroy(&t);
}

static void code_truncated(void **state)
{
	struct tiny t;

	tiny_create(&t, LOAD, 4);
	assert_int_equal(ftruncate(t.file, 0), 0);
	expect_efault(&t, TINY_BASE);
	tiny_destroy(&t);
}

static void unmapped(void **state)
{
	struct tiny t;

	tiny_create(&t, STORE, 4);
	munmap(t.mem + DATA_OFFSET, 4096);
	expect_efault(&t, TINY_BASE);
	tiny_destroy(&t);
}

static void write_protected(void **state)
{
	struct tiny t;

	tiny_create(&t, STORE, 4);
	mprotect(t.mem + DATA_OFFSET, 4096, PROT_READ);
	expect_efault(&t, TINY_BASE);
	mprotect(t.mem + DATA_OFFSET, 4096, PROT_READ | PROT_WRITE);
	expect_halt(&t);
	tiny_destroy(&t);
}

/* ---- userfaultfd: the access waits until the program gives the page ---- */

struct filler {
	int uffd;
	struct tiny *tiny;
	volatile int faults;
};

static void *fill(void *opaque)
{
	struct filler *f = opaque;
	static uint8_t page[4096] __attribute__((aligned(4096))) = {77};
	struct uffdio_copy copy = {.src = (uintptr_t)page, .len = 4096};
	struct uffd_msg msg;

	if (read(f->uffd, &msg, sizeof(msg)) != sizeof(msg))
		return NULL;
	/* An ioctl of the VM while its vCPU waits in the access. */
	ioctl(f->tiny->vm, KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS);
	f->faults++;
	copy.dst = msg.arg.pagefault.address & ~4095ull;
	ioctl(f->uffd, UFFDIO_COPY, &copy);
	return NULL;
}

static void userfault(void **state)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	struct filler filler = {0};
	struct kvm_userspace_memory_region region = {.slot = 1};
	struct kvm_regs regs;
	struct tiny t;
	pthread_t thread;
	uint8_t *page;

	filler.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (filler.uffd < 0)
		skip();
	tiny_create(&t, "\xa0\x00\x80\xf4", 4); /* mov al, [0x8000]; hlt */
	assert_int_equal(ioctl(filler.uffd, UFFDIO_API, &api), 0);
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (uintptr_t)page;
	reg.range.len = 4096;
	assert_int_equal(ioctl(filler.uffd, UFFDIO_REGISTER, &reg), 0);
	region.guest_phys_addr = 0x8000;
	region.memory_size = 4096;
	region.userspace_addr = (uintptr_t)page;
	assert_int_equal(ioctl(t.vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
	filler.tiny = &t;
	pthread_create(&thread, NULL, fill, &filler);
	expect_halt(&t);
	pthread_join(thread, NULL);
	assert_int_equal(filler.faults, 1);
	assert_int_equal(ioctl(t.vcpu, KVM_GET_REGS, &regs), 0);
	assert_int_equal(regs.rax & 0xff, 77);
	tiny_destroy(&t);
	munmap(page, 4096);
	close(filler.uffd);
}

/* A program's store over code that has just run is seen by the next fetch. */
static void patched_code(void **state)
{
	struct kvm_regs regs = {.rip = TINY_BASE, .rflags = 2};
	struct tiny t;
	uint8_t val;

	tiny_create(&t, "\xb0\x01\xf4", 3); /* mov al, 1; hlt */
	for (val = 1; val < 20; val++) {
		t.mem[1] = val;
		if (val == 10)
			assert_int_equal(pwrite(t.file, "\x63", 1, 1), 1);
		assert_int_equal(ioctl(t.vcpu, KVM_SET_REGS, &regs), 0);
		expect_halt(&t);
		assert_int_equal(ioctl(t.vcpu, KVM_GET_REGS, &regs), 0);
		assert_int_equal(regs.rax & 0xff, val == 10 ? 0x63 : val);
		regs.rip = TINY_BASE;
	}
	tiny_destroy(&t);
}

static void bad_arguments(void **state)
{
	static const unsigned long vcpu_calls[] = {
		KVM_GET_REGS,	KVM_SET_REGS,	     KVM_GET_SREGS, KVM_SET_SREGS,
		KVM_GET_FPU,	KVM_SET_FPU,	     KVM_GET_MSRS,  KVM_SET_MSRS,
		KVM_SET_CPUID2, KVM_GET_VCPU_EVENTS, KVM_GET_XSAVE,
	};
	struct tiny t;
	size_t i;

	tiny_create(&t, "\xf4", 1);
	for (i = 0; i < sizeof(vcpu_calls) / sizeof(vcpu_calls[0]); i++) {
		assert_int_equal(ioctl(t.vcpu, vcpu_calls[i], 8), -1);
		assert_int_equal(errno, EFAULT);
		assert_int_equal(ioctl(t.vcpu, vcpu_calls[i], 1ul << 63), -1);
		assert_int_equal(errno, EFAULT);
	}
	assert_int_equal(ioctl(t.vm, KVM_SET_USER_MEMORY_REGION, 8), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(ioctl(t.vcpu, KVM_RUN, 1), -1);
	assert_int_equal(errno, EINVAL);
	expect_halt(&t);
	tiny_destroy(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(truncated),	 cmocka_unit_test(code_truncated),
		cmocka_unit_test(unmapped),	 cmocka_unit_test(write_protected),
		cmocka_unit_test(userfault),	 cmocka_unit_test(patched_code),
		cmocka_unit_test(bad_arguments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
