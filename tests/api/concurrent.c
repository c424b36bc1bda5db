/* SPDX-License-Identifier: MIT */
/*
 * Changes by one thread while vCPUs run in others: slots, the dirty log, ioeventfds, the MSR filter. The ioctl
 * returns only once no vCPU can use what was there before.
 */
#include "api_test.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>

#define PAGE	4096
#define COUNTER 0x8000 /* in slot 1 */
#define STOP	0x2000 /* in slot 0: the guest halts when it is not 0 */
#define SLOW_MS 10000  /* a busy host may give the vCPU little time */
#define RUN_MS	400

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* Run until HLT; reads of absent memory give zeros. */
static void *vcpu_main(void *arg)
{
	struct machine *m = arg;

	for (;;) {
		CHECK_EQ(ioctl(m->vcpu, KVM_RUN, 0), 0);
		if (m->run->exit_reason == KVM_EXIT_HLT)
			return NULL;
		CHECK(m->run->exit_reason == KVM_EXIT_MMIO || m->run->exit_reason == KVM_EXIT_IO);
		memset(m->run->mmio.data, 0, 8);
	}
}

/*
 * again: mov $200,%cx; loop .; incw 0x8000; out %al,$0x80 (or nop nop); cmpb $0,0x2000; je again; hlt
 */
static struct machine counting(int with_out)
{
	uint8_t code[] = {0xb9, 0xc8, 0x00, 0xe2, 0xfe, 0xff, 0x06, 0x00, 0x80, 0x90,
			  0x90, 0x80, 0x3e, 0x00, 0x20, 0x00, 0x74, 0xee, 0xf4};
	struct machine m = machine_open();

	if (with_out) {
		code[9] = 0xe6;
		code[10] = 0x80;
	}
	CHECK_EQ(set_region(m.vm, 0, 0, 0, 0, NULL), 0);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, 0x8000, m.ram), 0);
	CHECK_EQ(set_region(m.vm, 1, 0, COUNTER, PAGE, m.ram + COUNTER), 0);
	machine_code(&m, code, sizeof(code));
	return m;
}

static void stop(struct machine *m, pthread_t thread)
{
	__atomic_store_n(m->ram + STOP, 1, __ATOMIC_SEQ_CST);
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

static uint16_t count_of(const struct machine *m)
{
	return __atomic_load_n((uint16_t *)(m->ram + COUNTER), __ATOMIC_SEQ_CST);
}

/* A write seen before a harvest, and not before the one ahead of it, stands in the harvest. */
static void test_dirty_log(void)
{
	struct machine m = counting(0);
	unsigned dirty = 0, rounds = 0;
	uint64_t map = 0;
	struct kvm_dirty_log log = {.slot = 1, .dirty_bitmap = &map};
	double end = now_ms() + RUN_MS;
	pthread_t thread;
	uint16_t before, after;

	CHECK_EQ(set_region(m.vm, 1, KVM_MEM_LOG_DIRTY_PAGES, COUNTER, PAGE, m.ram + COUNTER), 0);
	CHECK_EQ(pthread_create(&thread, NULL, vcpu_main, &m), 0);
	after = 0;
	while (now_ms() < end || (dirty <= 5 && now_ms() < end + SLOW_MS)) {
		before = count_of(&m);
		CHECK_EQ(ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), 0);
		if (before != after)
			CHECK_EQ(map, 1);
		dirty += map;
		after = count_of(&m);
		rounds++;
	}
	stop(&m, thread);
	CHECK(rounds && dirty > 5);
}

/* After a slot is gone, nothing is written through it any more. */
static void test_slot_removal(void)
{
	struct machine m = counting(0);
	double end = now_ms() + RUN_MS;
	pthread_t thread;
	unsigned moved = 0;
	uint16_t seen = 0;

	CHECK_EQ(pthread_create(&thread, NULL, vcpu_main, &m), 0);
	while (now_ms() < end || (!moved && now_ms() < end + SLOW_MS)) {
		uint16_t last = seen;

		CHECK_EQ(set_region(m.vm, 1, 0, COUNTER, 0, NULL), 0);
		seen = count_of(&m);
		moved += seen != last;
		usleep(200);
		CHECK_EQ(count_of(&m), seen);
		CHECK_EQ(set_region(m.vm, 1, 0, COUNTER, PAGE, m.ram + COUNTER), 0);
		usleep(200);
	}
	stop(&m, thread);
	CHECK(moved); /* it did write in between */
}

static void test_bus_and_filter(void)
{
	struct machine m = counting(1);
	struct kvm_ioeventfd io = {.addr = 0x80, .len = 1, .fd = eventfd(0, EFD_NONBLOCK)};
	struct kvm_msr_filter allow = {0}, ranged = {0};
	uint8_t bits[1] = {0};
	double end = now_ms() + RUN_MS;
	uint64_t signalled = 0;
	pthread_t thread;

	ranged.ranges[0] = (struct kvm_msr_filter_range){
		.flags = KVM_MSR_FILTER_READ, .base = 0x174, .nmsrs = 1, .bitmap = bits};
	CHECK_EQ(pthread_create(&thread, NULL, vcpu_main, &m), 0);
	while (now_ms() < end || (!signalled && now_ms() < end + SLOW_MS)) {
		uint64_t n;

		io.flags = KVM_IOEVENTFD_FLAG_PIO;
		CHECK_EQ(ioctl(m.vm, KVM_IOEVENTFD, &io), 0);
		CHECK_EQ(ioctl(m.vm, KVM_X86_SET_MSR_FILTER, &ranged), 0);
		usleep(300);
		io.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
		CHECK_EQ(ioctl(m.vm, KVM_IOEVENTFD, &io), 0);
		CHECK_EQ(ioctl(m.vm, KVM_X86_SET_MSR_FILTER, &allow), 0);
		if (read(io.fd, &n, sizeof(n)) == sizeof(n))
			signalled += n;
		/* Deassigned: the guest's writes signal no more. */
		usleep(300);
		CHECK_ERR(read(io.fd, &n, sizeof(n)), EAGAIN);
	}
	stop(&m, thread);
	CHECK(signalled > 0);
}

int main(void)
{
	test_dirty_log();
	test_slot_removal();
	test_bus_and_filter();
	return 0;
}
