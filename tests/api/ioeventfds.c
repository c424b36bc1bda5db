/* SPDX-License-Identifier: MIT */
/*
 * ioeventfds of every length, with and without a value to match, at ports and in MMIO: which writes signal and which leave
 * KVM_RUN, as KVM's source has it (ioeventfd_in_range: the very address; no length takes any; else the length must be
 * the same, and the value, if one is asked for). Then what cannot be assigned, or not twice.
 */
#include "api_test.h"

#include <sys/eventfd.h>

#define MMIO  0x10000000u
#define PORT  0x300
#define VALUE 0x1122334455667788ull
#define WORDS 0x3000 /* of 8 bytes in RAM: what movq takes */

struct store {
	unsigned size;
	bool pio;
	const char *code;
	unsigned length;
};

#define STORE(size, pio, code)                    \
	{                                         \
		size, pio, code, sizeof(code) - 1 \
	}

/* mov %al, (%bx) and so on, out %al, (%dx); then hlt. Eight bytes: movq %cs:WORDS, %mm0; movq %mm0, (%bx). */
static const struct store stores[] = {
	STORE(1, false, "\x88\x07\xf4"),
	STORE(2, false, "\x89\x07\xf4"),
	STORE(4, false, "\x66\x89\x07\xf4"),
	STORE(8, false, "\x2e\x0f\x6f\x06\x00\x30\x0f\x7f\x07\xf4"),
	STORE(1, true, "\xee\xf4"),
	STORE(2, true, "\xef\xf4"),
	STORE(4, true, "\x66\xef\xf4"),
};

static uint64_t low_bytes(uint64_t val, unsigned size)
{
	return size == 8 ? val : val & ((1ull << size * 8) - 1);
}

static bool expected(const struct kvm_ioeventfd *e, uint64_t addr, unsigned size, uint64_t val)
{
	if (addr != e->addr)
		return false;
	if (!e->len)
		return true;
	if (size != e->len)
		return false;
	return !(e->flags & KVM_IOEVENTFD_FLAG_DATAMATCH) || low_bytes(val, size) == e->datamatch;
}

static void do_store(struct machine *m, const struct store *s, unsigned offset, uint64_t val)
{
	struct kvm_regs regs = {.rip = CODE_GPA, .rflags = 2, .rsp = CODE_GPA};

	memcpy(m->ram + CODE_GPA, s->code, s->length);
	memcpy(m->ram + WORDS, &val, 8);
	regs.rax = val;
	regs.rbx = offset;
	regs.rdx = PORT + offset;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_RUN, 0), 0);
}

static unsigned count(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, 8) == 8 ? n : 0;
}

static void check_store(struct machine *m, const struct kvm_ioeventfd *e, const struct store *s,
			unsigned offset, uint64_t val)
{
	uint64_t addr = (s->pio ? PORT : MMIO) + offset;
	bool same_bus = s->pio == !!(e->flags & KVM_IOEVENTFD_FLAG_PIO);
	bool hit = same_bus && expected(e, addr, s->size, val);

	do_store(m, s, offset, val);
	if (!hit) {
		CHECK_EQ(m->run->exit_reason, s->pio ? KVM_EXIT_IO : KVM_EXIT_MMIO);
		CHECK_EQ(s->pio ? m->run->io.port : m->run->mmio.phys_addr, addr);
		CHECK_EQ(ioctl(m->vcpu, KVM_RUN, 0), 0);
	}
	CHECK_EQ(m->run->exit_reason, KVM_EXIT_HLT);
	CHECK_EQ(count(e->fd), hit);
}

static void check_all_stores(struct machine *m, const struct kvm_ioeventfd *e)
{
	for (unsigned i = 0; i < sizeof(stores) / sizeof(stores[0]); i++)
		for (unsigned offset = 0; offset < 2; offset++) {
			check_store(m, e, &stores[i], offset, VALUE);
			check_store(m, e, &stores[i], offset, VALUE + 1);
			check_store(m, e, &stores[i], offset, VALUE ^ 1ull << 63);
		}
}

static void test_every_length(struct machine *m)
{
	static const unsigned lengths[] = {0, 1, 2, 4, 8};

	for (unsigned i = 0; i < 5; i++)
		for (unsigned kind = 0; kind < 4; kind++) {
			struct kvm_ioeventfd e = {.len = lengths[i],
						  .fd = eventfd(0, EFD_NONBLOCK)};

			e.addr = kind & 1 ? PORT : MMIO;
			e.flags = kind & 1 ? KVM_IOEVENTFD_FLAG_PIO : 0;
			if (kind & 2) {
				e.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
				e.datamatch = low_bytes(VALUE, e.len);
			}
			if (kind & 2 && !e.len) {
				CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e), EINVAL);
			} else {
				CHECK_EQ(ioctl(m->vm, KVM_IOEVENTFD, &e), 0);
				check_all_stores(m, &e);
				e.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
				CHECK_EQ(ioctl(m->vm, KVM_IOEVENTFD, &e), 0);
			}
			close(e.fd);
		}
}

/* Two values of one address are two eventfds; lengths do not disturb each other. */
static void test_several(struct machine *m)
{
	struct kvm_ioeventfd e[3];

	for (unsigned i = 0; i < 3; i++) {
		e[i] = (struct kvm_ioeventfd){.addr = MMIO,
					      .len = i == 2 ? 2 : 4,
					      .datamatch = i,
					      .fd = eventfd(0, EFD_NONBLOCK),
					      .flags = KVM_IOEVENTFD_FLAG_DATAMATCH};
		CHECK_EQ(ioctl(m->vm, KVM_IOEVENTFD, &e[i]), 0);
	}
	for (unsigned i = 0; i < 3; i++) {
		do_store(m, &stores[i == 2 ? 1 : 2], 0, i);
		CHECK_EQ(m->run->exit_reason, KVM_EXIT_HLT);
		for (unsigned j = 0; j < 3; j++)
			CHECK_EQ(count(e[j].fd), i == j);
	}
	/* Any value of that length, or any length, collides; so does the same again with another eventfd. */
	e[0].flags = 0;
	CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e[0]), EEXIST);
	e[0].len = 0;
	CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e[0]), EEXIST);
	e[0].len = 1;
	CHECK_EQ(ioctl(m->vm, KVM_IOEVENTFD, &e[0]), 0);
	e[0].fd = e[1].fd;
	CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e[0]), EEXIST);
	/* Only the eventfd that it was made with takes it away. */
	e[0].flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e[0]), ENOENT);
	e[1].flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	e[1].datamatch = 7;
	CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e[1]), ENOENT);
	e[1].datamatch = 1;
	CHECK_EQ(ioctl(m->vm, KVM_IOEVENTFD, &e[1]), 0);
}

static void test_refused(struct machine *m)
{
	struct kvm_ioeventfd e = {.addr = 0x5000, .fd = eventfd(0, 0)};

	for (e.len = 0; e.len < 20; e.len++)
		if (e.len != 0 && e.len != 1 && e.len != 2 && e.len != 4 && e.len != 8)
			CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e), EINVAL);
	e.len = 8;
	e.addr = ~0ull - 6;
	CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e), EINVAL);
	e.addr = 0x5000;
	e.flags = 1u << 4;
	CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e), EINVAL);
	e.flags = 0;
	e.fd = -1;
	CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e), EBADF);
	e.fd = m->kvm;
	CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e), EINVAL);
	/* Deassigning looks at nothing but what is there. */
	e.fd = eventfd(0, 0);
	e.len = 3;
	e.flags = KVM_IOEVENTFD_FLAG_DEASSIGN | 1u << 4;
	CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e), ENOENT);
	e.fd = -1;
	CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, &e), EBADF);
	CHECK_ERR(ioctl(m->vm, KVM_IOEVENTFD, BAD_POINTER), EFAULT);
}

int main(void)
{
	struct machine m = machine_open();
	struct kvm_sregs sregs;

	MACHINE_CODE(&m, 0xf4);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.ds.base = MMIO;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &sregs), 0);
	test_every_length(&m);
	test_several(&m);
	test_refused(&m);
	return 0;
}
