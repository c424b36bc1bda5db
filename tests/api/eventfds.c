/* SPDX-License-Identifier: MIT */
/* ioeventfd, irqfd and coalesced writes with a guest at work (KVM api.rst). */
#include "api_test.h"

#include <sys/eventfd.h>

static uint64_t counter(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

/* mov $5,%ax; mov $0x300,%dx; out %ax,(%dx); inc %ax; out %ax,(%dx); hlt */
#define TWO_OUTS 0xb8, 0x05, 0x00, 0xba, 0x00, 0x03, 0xef, 0x40, 0xef, 0xf4

static void test_ioeventfd(void)
{
	struct machine m = machine_open();
	struct kvm_ioeventfd arg = {
		.addr = 0x300, .len = 2, .datamatch = 5, .fd = eventfd(0, EFD_NONBLOCK)};

	arg.flags = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH;
	CHECK_EQ(ioctl(m.vm, KVM_IOEVENTFD, &arg), 0);
	CHECK_ERR(ioctl(m.vm, KVM_IOEVENTFD, &arg), EEXIST);
	MACHINE_CODE(&m, TWO_OUTS);
	/* 5 signals and stays inside; 6 goes out. */
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x300);
	CHECK_EQ(m.run->io.size, 2);
	CHECK_EQ(*(uint16_t *)((char *)m.run + m.run->io.data_offset), 6);
	CHECK_EQ(counter(arg.fd), 1);
	RUN_TO(&m, KVM_EXIT_HLT);
	arg.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	CHECK_EQ(ioctl(m.vm, KVM_IOEVENTFD, &arg), 0);
	CHECK_ERR(ioctl(m.vm, KVM_IOEVENTFD, &arg), ENOENT);
	machine_start(&m);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(*(uint16_t *)((char *)m.run + m.run->io.data_offset), 5);
	CHECK_EQ(counter(arg.fd), 0);
}

/* The program may close its eventfd: the VM holds the file. */
static void test_ioeventfd_closed(void)
{
	struct machine m = machine_open();
	int fd = eventfd(0, EFD_NONBLOCK), keep = dup(fd);
	struct kvm_ioeventfd arg = {.addr = 0x300, .len = 0, .fd = fd};

	arg.flags = KVM_IOEVENTFD_FLAG_PIO;
	CHECK_EQ(ioctl(m.vm, KVM_IOEVENTFD, &arg), 0);
	close(fd);
	MACHINE_CODE(&m, TWO_OUTS);
	RUN_TO(&m, KVM_EXIT_HLT);
	CHECK_EQ(counter(keep), 2);
}

static void test_coalesced_pio(void)
{
	struct machine m = machine_open();
	struct kvm_coalesced_mmio_zone zone = {.addr = 0x300, .size = 4, .pio = 1};
	struct kvm_coalesced_mmio_ring *ring;
	int page = ioctl(m.kvm, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);

	CHECK_EQ(ioctl(m.vm, KVM_REGISTER_COALESCED_MMIO, &zone), 0);
	MACHINE_CODE(&m, TWO_OUTS);
	ring = (void *)((char *)m.run + page * 4096);
	RUN_TO(&m, KVM_EXIT_HLT);
	CHECK_EQ(ring->first, 0);
	CHECK_EQ(ring->last, 2);
	CHECK_EQ(ring->coalesced_mmio[1].phys_addr, 0x300);
	CHECK_EQ(ring->coalesced_mmio[1].len, 2);
	CHECK_EQ(ring->coalesced_mmio[1].pio, 1);
	CHECK_EQ(*(uint16_t *)ring->coalesced_mmio[1].data, 6);
	CHECK_EQ(ioctl(m.vm, KVM_UNREGISTER_COALESCED_MMIO, &zone), 0);
	machine_start(&m);
	RUN_TO(&m, KVM_EXIT_IO);
	zone.pio = 7;
	CHECK_ERR(ioctl(m.vm, KVM_REGISTER_COALESCED_MMIO, &zone), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_UNREGISTER_COALESCED_MMIO, &zone), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_REGISTER_COALESCED_MMIO, BAD_POINTER), EFAULT);
}

static void test_irqfd_refused(void)
{
	struct machine m = machine_open();
	struct kvm_irqfd arg = {.fd = eventfd(0, 0), .gsi = 3};

	CHECK_ERR(ioctl(m.vm, KVM_IRQFD, &arg), EAGAIN);
	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_EQ(ioctl(m.vm, KVM_IRQFD, &arg), 0);
	CHECK_ERR(ioctl(m.vm, KVM_IRQFD, &arg), EBUSY);
	arg.flags = 8;
	CHECK_ERR(ioctl(m.vm, KVM_IRQFD, &arg), EINVAL);
	arg.flags = KVM_IRQFD_FLAG_DEASSIGN;
	CHECK_EQ(ioctl(m.vm, KVM_IRQFD, &arg), 0);
	arg.flags = 0;
	arg.fd = m.vm;
	CHECK_ERR(ioctl(m.vm, KVM_IRQFD, &arg), EINVAL);
	arg.fd = -1;
	CHECK_ERR(ioctl(m.vm, KVM_IRQFD, &arg), EBADF);
	CHECK_ERR(ioctl(m.vm, KVM_IRQFD, BAD_POINTER), EFAULT);
}

/*
 * The PIC's input 3 by an eventfd wakes a halted guest: PIC programmed to vectors from 20h, handler at
 * 0000:2000 is `out %al,$0x80; iret`.
 */
static void test_irqfd_wakes(void)
{
	struct machine m = machine_open();
	struct kvm_irqfd arg = {.fd = eventfd(0, 0), .gsi = 3};
	uint64_t one = 1;

	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_EQ(ioctl(m.vm, KVM_IRQFD, &arg), 0);
	*(uint32_t *)(m.ram + 0x23 * 4) = 0x2000;
	memcpy(m.ram + 0x2000, "\xe6\x80\xcf", 3);
	MACHINE_CODE(&m, 0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x20, 0xe6, 0x21, /* ICW1, ICW2 */
		     0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21,	 /* ICW3, ICW4 */
		     0xb0, 0x00, 0xe6, 0x21, 0xe6, 0x81, 0xfb, 0xf4, 0xeb,
		     0xfd); /* unmask, out, sti, hlt */
	/* Not before: ICW1 forgets edges. */
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x81);
	CHECK_EQ(write(arg.fd, &one, 8), 8);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x80);
}

int main(void)
{
	test_ioeventfd();
	test_ioeventfd_closed();
	test_coalesced_pio();
	test_irqfd_refused();
	test_irqfd_wakes();
	return 0;
}
