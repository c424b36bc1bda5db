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

#define LATE_GPA 0x8000

/* A page at LATE_GPA that appears when it is first touched, by a thread that calls the VM before. */
struct late {
	int uffd;
	struct tiny tiny;
	uint8_t *page;
	uint8_t content[4096] __attribute__((aligned(4096)));
	void (*before)(struct late *late);
	volatile int faults;
	pthread_t thread;
};

static void *fill(void *opaque)
{
	struct late *late = opaque;
	struct uffdio_copy copy = {.src = (uintptr_t)late->content, .len = 4096};
	struct uffd_msg msg;

	if (read(late->uffd, &msg, sizeof(msg)) != sizeof(msg))
		return NULL;
	late->before(late);
	late->faults++;
	copy.dst = (uintptr_t)late->page;
	ioctl(late->uffd, UFFDIO_COPY, &copy);
	return NULL;
}

static void set_late_region(struct late *late, uint32_t slot, uint64_t gpa, uint64_t size,
			    void *mem)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = KVM_MEM_LOG_DIRTY_PAGES,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)mem,
	};

	assert_int_equal(ioctl(late->tiny.vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
}

static bool late_create(struct late *late, const void *code, size_t size)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};

	late->faults = 0;
	late->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (late->uffd < 0)
		return false;
	tiny_create(&late->tiny, code, size);
	assert_int_equal(ioctl(late->uffd, UFFDIO_API, &api), 0);
	late->page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (uintptr_t)late->page;
	reg.range.len = 4096;
	assert_int_equal(ioctl(late->uffd, UFFDIO_REGISTER, &reg), 0);
	set_late_region(late, 1, LATE_GPA, 4096, late->page);
	pthread_create(&late->thread, NULL, fill, late);
	return true;
}

static void late_destroy(struct late *late)
{
	pthread_join(late->thread, NULL);
	assert_int_equal(late->faults, 1);
	tiny_destroy(&late->tiny);
	munmap(late->page, 4096);
	close(late->uffd);
}

/* The guest's AL when it halted. */
static uint8_t late_run(struct late *late)
{
	struct kvm_regs regs;

	expect_halt(&late->tiny);
	assert_int_equal(ioctl(late->tiny.vcpu, KVM_GET_REGS, &regs), 0);
	return (uint8_t)regs.rax;
}

static void ask_nothing(struct late *late)
{
	ioctl(late->tiny.vm, KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS);
}

/* Wait for all vCPUs, of which one waits for the caller. */
static void change_slots(struct late *late)
{
	set_late_region(late, 2, 0x20000, 4096, late->content);
	set_late_region(late, 2, 0x20000, 0, late->content);
}

static void harvest(struct late *late)
{
	uint64_t bits;
	struct kvm_dirty_log log = {.slot = 1, .dirty_bitmap = &bits};

	for (int i = 0; i < 3; i++)
		assert_int_equal(ioctl(late->tiny.vm, KVM_GET_DIRTY_LOG, &log), 0);
}

static void (*const askers[])(struct late *late) = {ask_nothing, change_slots, harvest};

/* mov al, [0x8000]; hlt: and the like, each with what AL is then */
static const struct {
	const char *code;
	size_t size;
	uint8_t al;
} accesses[] = {
	{"\xa0\x00\x80\xf4", 4, 77},
	{"\x02\x06\x00\x80\xf4", 5, 77},	   /* add al, [0x8000] */
	{"\xa2\x00\x80\xa0\x00\x80\xf4", 7, 0},	   /* mov [0x8000], al; back */
	{"\xbc\x00\x80\x58\xf4", 5, 77},	   /* pop ax */
	{"\xbc\x02\x80\x6a\x21\x58\xf4", 7, 0x21}, /* push 0x21; pop ax */
	{"\xbe\x00\x80\xbf\x00\x20\xb9\x08\x00\xf3\xa4\xa0\x07\x20\xf4", 15, 84}, /* rep movsb */
	{"\xbe\x01\x80\xbf\x00\x80\xb9\x08\x00\xf3\xa4\xa0\x07\x80\xf4", 15, 85}, /* downwards */
	{"\xd9\x06\x00\x80\xd9\x1e\x00\x20\xa0\x00\x20\xf4", 12, 77},		  /* flds; fstps */
	{"\xf0\xfe\x06\x00\x80\xa0\x00\x80\xf4", 9, 78}, /* lock inc byte */
	{"\x9a\x10\x80\x00\x00", 5, 0x55},		 /* call 0:0x8010 */
};

static void userfault(void **state)
{
	static struct late late;

	for (size_t i = 0; i < 10; i++)
		late.content[i] = 77 + i;
	memcpy(late.content + 0x10, "\xb0\x55\xf4", 3); /* mov al, 0x55; hlt */
	for (size_t i = 0; i < sizeof(accesses) / sizeof(accesses[0]); i++) {
		for (size_t j = 0; j < sizeof(askers) / sizeof(askers[0]); j++) {
			late.before = askers[j];
			if (!late_create(&late, accesses[i].code, accesses[i].size))
				skip();
			assert_int_equal(late_run(&late), accesses[i].al);
			late_destroy(&late);
		}
	}
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
