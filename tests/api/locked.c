/* SPDX-License-Identifier: MIT */
/*
 * Locked instructions of several vCPUs on one operand of a page that the program keeps harvesting: no
 * increment is lost. Also over two cache lines, of which there are few, for hosts make them slow, and over two pages.
 */
#include "api_test.h"

#include <pthread.h>

#define VCPUS 3
/* mov cx, rounds; 1: lock inc dword [at]; loop 1b; hlt */
#define CODE(rounds, at)                                                                          \
	{                                                                                         \
		0xb9, (rounds)&0xff, (rounds) >> 8, 0xf0, 0x66, 0xff, 0x06, (at)&0xff, (at) >> 8, \
			0xe2, 0xf8, 0xf4                                                          \
	}

static const struct {
	uint16_t rounds, at;
	uint8_t code[12];
} cases[] = {
	{60000, 0x2040, CODE(60000, 0x2040)},
	{60000, 0x2081, CODE(60000, 0x2081)},
	{100, 0x203e, CODE(100, 0x203e)},
	{3000, 0x2ffe, CODE(3000, 0x2ffe)},
};

static int vcpus[VCPUS];
static struct kvm_run *runs[VCPUS];

static void *run(void *opaque)
{
	long i = (long)opaque;

	CHECK_EQ(ioctl(vcpus[i], KVM_RUN, 0), 0);
	CHECK_EQ(runs[i]->exit_reason, KVM_EXIT_HLT);
	return NULL;
}

static uint32_t word(const struct machine *m, unsigned at)
{
	uint32_t val;

	memcpy(&val, m->ram + at, sizeof(val));
	return val;
}

static void test_counter(unsigned c)
{
	struct machine m = machine_open();
	uint64_t bits;
	struct kvm_dirty_log log = {.slot = 0, .dirty_bitmap = &bits};
	pthread_t threads[VCPUS];

	CHECK_EQ(set_region(m.vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, RAM_SIZE, m.ram), 0);
	memcpy(m.ram + CODE_GPA, cases[c].code, sizeof(cases[c].code));
	for (long i = 0; i < VCPUS; i++) {
		m.vcpu = vcpus[i] = ioctl(m.vm, KVM_CREATE_VCPU, i);
		CHECK(m.vcpu >= 0);
		runs[i] = map_run(m.kvm, m.vcpu);
		machine_start(&m);
		CHECK_EQ(pthread_create(&threads[i], NULL, run, (void *)i), 0);
	}
	for (unsigned i = 0; i < 200; i++)
		CHECK_EQ(ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), 0);
	for (unsigned i = 0; i < VCPUS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(word(&m, cases[c].at), VCPUS * cases[c].rounds);
}

int main(void)
{
	for (unsigned c = 0; c < sizeof(cases) / sizeof(cases[0]); c++)
		test_counter(c);
	return 0;
}
