/* SPDX-License-Identifier: MIT */
/* The dirty log, of what a guest wrote (KVM api.rst, KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG). */
#include "api_test.h"

#define PAGE 4096

static long get_log(const struct machine *m, uint64_t *map)
{
	struct kvm_dirty_log log = {.slot = 1, .dirty_bitmap = map};

	return ioctl(m->vm, KVM_GET_DIRTY_LOG, &log);
}

static long clear_log(const struct machine *m, uint64_t first, uint32_t nr, uint64_t *map)
{
	struct kvm_clear_dirty_log log = {
		.slot = 1, .first_page = first, .num_pages = nr, .dirty_bitmap = map};

	return ioctl(m->vm, KVM_CLEAR_DIRTY_LOG, &log);
}

/* 88 07 mov %al,(%bx); e6 80 out %al,$0x80; eb fa back: one write per exit, at BX. */
static struct machine writer(uint32_t flags)
{
	struct machine m = machine_open();

	MACHINE_CODE(&m, 0x88, 0x07, 0xe6, 0x80, 0xeb, 0xfa);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, 0, NULL), 0);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, 0x8000, m.ram), 0);
	CHECK_EQ(set_region(m.vm, 1, flags, 0x8000, 8 * PAGE, m.ram + 0x8000), 0);
	return m;
}

static void write_at(struct machine *m, uint16_t addr)
{
	struct kvm_regs regs;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	regs.rbx = addr;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(m, KVM_EXIT_IO);
	/* Complete the OUT, so that the next registers hold. */
	m->run->immediate_exit = 1;
	CHECK_ERR(ioctl(m->vcpu, KVM_RUN, 0), EINTR);
	m->run->immediate_exit = 0;
}

static void test_log(void)
{
	struct machine m = writer(0);
	uint64_t map = 0;

	write_at(&m, 0x8000);
	CHECK_ERR(get_log(&m, &map), ENOENT);
	/* Logging starts on a vCPU that has written this page already. */
	CHECK_EQ(set_region(m.vm, 1, KVM_MEM_LOG_DIRTY_PAGES, 0x8000, 8 * PAGE, m.ram + 0x8000), 0);
	CHECK_EQ(get_log(&m, &map), 0);
	CHECK_EQ(map, 0);
	write_at(&m, 0x8000);
	write_at(&m, 0xafff);
	CHECK_EQ(get_log(&m, &map), 0);
	CHECK_EQ(map, 1 << 0 | 1 << 2);
	CHECK_EQ(get_log(&m, &map), 0);
	CHECK_EQ(map, 0);
	/* The harvest armed the same pages anew. */
	write_at(&m, 0x8004);
	CHECK_EQ(get_log(&m, &map), 0);
	CHECK_EQ(map, 1);
	write_at(&m, 0x8004);
	CHECK_ERR(get_log(&m, BAD_POINTER), EFAULT);
}

static void test_manual(void)
{
	struct machine m = writer(0);
	uint64_t map = 0, one = 1;

	CHECK_ERR(enable_cap(m.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 2), EINVAL);
	CHECK_ERR(enable_cap(m.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 5), EINVAL);
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1), 0);
	CHECK_EQ(set_region(m.vm, 1, KVM_MEM_LOG_DIRTY_PAGES, 0x8000, 8 * PAGE, m.ram + 0x8000), 0);
	write_at(&m, 0x8000);
	write_at(&m, 0x9000);
	CHECK_EQ(get_log(&m, &map), 0);
	CHECK_EQ(map, 3);
	CHECK_EQ(get_log(&m, &map), 0); /* nothing was cleared */
	CHECK_EQ(map, 3);
	CHECK_EQ(clear_log(&m, 0, 8, &one), 0);
	CHECK_EQ(get_log(&m, &map), 0);
	CHECK_EQ(map, 2);
	write_at(&m, 0x8000);
	CHECK_EQ(get_log(&m, &map), 0);
	CHECK_EQ(map, 3);
	CHECK_ERR(clear_log(&m, 0, 7, &one), EINVAL);
	CHECK_ERR(clear_log(&m, 1, 8, &one), EINVAL);
	CHECK_ERR(clear_log(&m, 64, 0, &one), EINVAL);
	CHECK_ERR(clear_log(&m, 0, 8, BAD_POINTER), EFAULT);
}

static void test_initially_set(void)
{
	struct machine m = writer(0);
	uint64_t map = 0;

	CHECK_EQ(enable_cap(m.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 3), 0);
	CHECK_EQ(set_region(m.vm, 1, KVM_MEM_LOG_DIRTY_PAGES, 0x8000, 8 * PAGE, m.ram + 0x8000), 0);
	CHECK_EQ(get_log(&m, &map), 0);
	CHECK_EQ(map, 0xff);
	CHECK_EQ(clear_log(&m, 0, 8, &map), 0);
	CHECK_EQ(get_log(&m, &map), 0);
	CHECK_EQ(map, 0);
	write_at(&m, 0xf000);
	CHECK_EQ(get_log(&m, &map), 0);
	CHECK_EQ(map, 0x80);
}

int main(void)
{
	test_log();
	test_manual();
	test_initially_set();
	return 0;
}
