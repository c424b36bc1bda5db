/* SPDX-License-Identifier: MIT */
/*
 * REP INS and OUTS that the program answers: how many elements an exit asks for, and where the registers
 * stand at it. INS: as many as the page of the destination has room for, 1 KiB at most, and nothing is committed
 * at the exit; OUTS: one by one, committed (Linux 6.12, KVM's instruction emulator).
 */
#include "api_test.h"

#define PORT 0x80
#define BUF  0x2000

static struct kvm_regs regs_of(struct machine *m)
{
	struct kvm_regs regs;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	return regs;
}

static void start(struct machine *m, const uint8_t *code, size_t size, unsigned count, uint64_t at)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA,
		.rsp = CODE_GPA,
		.rflags = 2,
		.rcx = count,
		.rdx = PORT,
		.rsi = at,
		.rdi = at,
	};

	*m = machine_open();
	machine_code(m, code, size);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
}

static uint8_t *io_data(struct machine *m)
{
	return (uint8_t *)m->run + m->run->io.data_offset;
}

static void expect_io(struct machine *m, unsigned direction, unsigned size, unsigned count)
{
	RUN_TO(m, KVM_EXIT_IO);
	CHECK_EQ(m->run->io.port, PORT);
	CHECK_EQ(m->run->io.direction, direction);
	CHECK_EQ(m->run->io.size, size);
	CHECK_EQ(m->run->io.count, count);
}

static const uint8_t rep_insb[] = {0xf3, 0x6c, 0xf4};
static const uint8_t rep_insw[] = {0xf3, 0x6d, 0xf4};
static const uint8_t rep_outsb[] = {0xf3, 0x6e, 0xf4};

/* Batches end at the page and at 1 KiB. */
static void test_batches(void)
{
	static const unsigned batches[] = {100, 1024, 1024, 1024, 1024, 4};
	unsigned done = 0, total = 100 + 4 * 1024 + 4;
	struct machine m;

	start(&m, rep_insb, sizeof(rep_insb), total, BUF + 4096 - 100);
	for (unsigned i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
		expect_io(&m, KVM_EXIT_IO_IN, 1, batches[i]);
		CHECK_EQ(regs_of(&m).rcx, total - done);
		CHECK_EQ(regs_of(&m).rdi, BUF + 4096 - 100 + done);
		CHECK_EQ(regs_of(&m).rip, CODE_GPA);
		for (unsigned j = 0; j < batches[i]; j++)
			io_data(&m)[j] = (uint8_t)(done + j) ^ 0x5a;
		done += batches[i];
	}
	RUN_TO(&m, KVM_EXIT_HLT);
	CHECK_EQ(regs_of(&m).rcx, 0);
	for (unsigned j = 0; j < total; j++)
		CHECK_EQ(m.ram[BUF + 4096 - 100 + j], (uint8_t)((uint8_t)j ^ 0x5a));
}

/* With immediate_exit all that was brought is stored, and nothing more is asked for. */
static void test_completion(void)
{
	struct machine m;

	start(&m, rep_insw, sizeof(rep_insw), 1000, BUF);
	expect_io(&m, KVM_EXIT_IO_IN, 2, 512);
	memset(io_data(&m), 0x77, 1024);
	m.run->immediate_exit = 1;
	CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	CHECK_EQ(regs_of(&m).rcx, 1000 - 512);
	CHECK_EQ(regs_of(&m).rdi, BUF + 1024);
	CHECK_EQ(m.ram[BUF + 1023], 0x77);
	CHECK_EQ(m.ram[BUF + 1024], 0);
	m.run->immediate_exit = 0;
	expect_io(&m, KVM_EXIT_IO_IN, 2, 488);
}

/* The program changes RCX meanwhile: no more is stored than both sides want. */
static void test_count_changed(void)
{
	struct kvm_regs regs;
	struct machine m;

	start(&m, rep_insb, sizeof(rep_insb), 8, BUF);
	expect_io(&m, KVM_EXIT_IO_IN, 1, 8);
	memset(io_data(&m), 0x77, 8);
	regs = regs_of(&m);
	regs.rcx = 3;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(&m, KVM_EXIT_HLT);
	CHECK_EQ(m.ram[BUF + 2], 0x77);
	CHECK_EQ(m.ram[BUF + 3], 0);

	start(&m, rep_insb, sizeof(rep_insb), 8, BUF);
	expect_io(&m, KVM_EXIT_IO_IN, 1, 8);
	memset(io_data(&m), 0x77, 16);
	regs = regs_of(&m);
	regs.rcx = 20;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	expect_io(&m, KVM_EXIT_IO_IN, 1, 12);
	CHECK_EQ(m.ram[BUF + 7], 0x77);
	CHECK_EQ(m.ram[BUF + 8], 0);
}

/* Downwards, and where there is no RAM, the elements come one by one. */
static void test_single(void)
{
	static const uint8_t down[] = {0xfd, 0xf3, 0x6c, 0xf4};
	struct machine m;

	start(&m, down, sizeof(down), 3, BUF + 100);
	for (unsigned i = 0; i < 3; i++) {
		expect_io(&m, KVM_EXIT_IO_IN, 1, 1);
		*io_data(&m) = 0x10 + i;
	}
	RUN_TO(&m, KVM_EXIT_HLT);
	CHECK_EQ(m.ram[BUF + 98], 0x12);
	CHECK_EQ(m.ram[BUF + 100], 0x10);
}

static void test_outs(void)
{
	struct machine m;

	start(&m, rep_outsb, sizeof(rep_outsb), 3, BUF);
	memcpy(m.ram + BUF, "abc", 3);
	for (unsigned i = 0; i < 3; i++) {
		expect_io(&m, KVM_EXIT_IO_OUT, 1, 1);
		CHECK_EQ(*io_data(&m), "abc"[i]);
		CHECK_EQ(regs_of(&m).rsi, BUF + i + 1);
		CHECK_EQ(regs_of(&m).rcx, 2 - i);
	}
	RUN_TO(&m, KVM_EXIT_HLT);
}

int main(void)
{
	test_batches();
	test_completion();
	test_count_changed();
	test_single();
	test_outs();
	return 0;
}
