/* SPDX-License-Identifier: MIT */
/*
 * The dirty ring (KVM api.rst: KVM_CAP_DIRTY_LOG_RING, KVM_RESET_DIRTY_RINGS, KVM_EXIT_DIRTY_RING_FULL). Answers as Linux
 * 6.12 gives them.
 */
#include "api_test.h"

#define PAGE	  4096ul
#define RING_SIZE (4 * PAGE) /* 1024 entries: more than what Intel's reserve */
#define ENTRIES	  (RING_SIZE / sizeof(struct kvm_dirty_gfn))
#define GPA	  0x100000ul
#define NR_PAGES  4096ul

static void test_caps(void)
{
	struct machine m = machine_open();
	uint32_t cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL;
	uint64_t max = 65536 * sizeof(struct kvm_dirty_gfn), map = 0;
	struct kvm_dirty_log log = {.slot = 0, .dirty_bitmap = &map};
	struct kvm_clear_dirty_log clear = {.slot = 0, .dirty_bitmap = &map};

	CHECK_EQ(ioctl(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING), max);
	CHECK_EQ(ioctl(m.vm, KVM_CHECK_EXTENSION, cap), max);
	CHECK_EQ(ioctl(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP), 0);
	CHECK_ERR(enable_cap(m.vm, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, 0), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_RESET_DIRTY_RINGS, 0), EINVAL);
	CHECK_ERR(ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), ENOENT);
	CHECK_ERR(enable_cap(m.vm, cap, 0), EINVAL);
	CHECK_ERR(enable_cap(m.vm, cap, RING_SIZE + PAGE), EINVAL);
	CHECK_ERR(enable_cap(m.vm, cap, PAGE / 2), EINVAL);
	CHECK_ERR(enable_cap(m.vm, cap, max * 2), E2BIG);
	CHECK_EQ(enable_cap(m.vm, cap, RING_SIZE), 0);
	CHECK_ERR(enable_cap(m.vm, cap, RING_SIZE), EINVAL);
	CHECK_EQ(ioctl(m.vm, KVM_RESET_DIRTY_RINGS, 0), 0);
	CHECK_ERR(ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), ENXIO);
	CHECK_ERR(ioctl(m.vm, KVM_CLEAR_DIRTY_LOG, &clear), ENXIO);
	close(m.vm);
	m = machine_open();
	MACHINE_CODE(&m, 0xf4);
	CHECK_ERR(enable_cap(m.vm, cap, RING_SIZE), EINVAL);
	close(m.vm);
}

/* 67 88 07 mov %al,(%edi); 66 81 c7 00100000 add $4096,%edi; e6 80 out if wanted; loop */
static struct machine ring_machine(struct kvm_dirty_gfn **ring, bool out)
{
	struct machine m = machine_open();
	uint8_t code[] = {0x67, 0x88, 0x07, 0x66, 0x81, 0xc7, 0,
			  0x10, 0,    0,    0xe6, 0x80, 0xeb, 0xf2};
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	if (!out)
		code[10] = code[11] = 0x90;
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_DIRTY_LOG_RING, RING_SIZE), 0);
	CHECK_EQ(set_region(m.vm, 1, KVM_MEM_LOG_DIRTY_PAGES, GPA, NR_PAGES * PAGE,
			    map_ram(NR_PAGES * PAGE)),
		 0);
	machine_code(&m, code, sizeof(code));
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.ds.limit = 0xffffffff;
	sregs.ds.g = 1;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &sregs), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_REGS, &regs), 0);
	regs.rdi = GPA;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	*ring = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, m.vcpu, 64 * PAGE);
	CHECK(*ring != MAP_FAILED);
	return m;
}

static void set_rdi(struct machine *m, uint64_t rdi)
{
	struct kvm_regs regs;

	m->run->immediate_exit = 1;
	CHECK_ERR(ioctl(m->vcpu, KVM_RUN, 0), EINTR);
	m->run->immediate_exit = 0;
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	regs.rdi = rdi;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
}

static void test_entries(void)
{
	struct kvm_dirty_gfn *ring;
	struct machine m = ring_machine(&ring, true);

	/* A ring is shared, and not code. */
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, m.vcpu, 64 * PAGE) == MAP_FAILED);
	CHECK_EQ(errno, EINVAL);
	CHECK(mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, m.vcpu, 64 * PAGE) == MAP_FAILED);
	CHECK_EQ(errno, EINVAL);
	for (unsigned i = 0; i < 3; i++)
		RUN_TO(&m, KVM_EXIT_IO);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(ring[i].flags, KVM_DIRTY_GFN_F_DIRTY);
		CHECK_EQ(ring[i].slot, 1);
		CHECK_EQ(ring[i].offset, i);
	}
	CHECK_EQ(ring[3].flags, 0);
	/* Written again, but known already. */
	set_rdi(&m, GPA);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(ring[3].flags, 0);
	/* Only harvested entries are reset, and only in order. */
	CHECK_EQ(ioctl(m.vm, KVM_RESET_DIRTY_RINGS, 0), 0);
	ring[0].flags |= KVM_DIRTY_GFN_F_RESET;
	ring[2].flags |= KVM_DIRTY_GFN_F_RESET;
	CHECK_EQ(ioctl(m.vm, KVM_RESET_DIRTY_RINGS, 0), 1);
	CHECK_EQ(ring[0].flags, 0);
	set_rdi(&m, GPA);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(ring[3].flags, KVM_DIRTY_GFN_F_DIRTY);
	CHECK_EQ(ring[3].offset, 0);
	RUN_TO(&m, KVM_EXIT_IO); /* page 1 is still there */
	CHECK_EQ(ring[4].flags, 0);
	/* What the program makes of an entry harms nobody. */
	ring[1] = (struct kvm_dirty_gfn){
		.flags = KVM_DIRTY_GFN_F_RESET, .slot = ~0u, .offset = ~0ull};
	CHECK_EQ(ioctl(m.vm, KVM_RESET_DIRTY_RINGS, 0), 2);
	close(m.vcpu);
	close(m.vm);
}

static void test_full(void)
{
	struct kvm_dirty_gfn *ring;
	struct machine m = ring_machine(&ring, false);
	unsigned n = 0;

	RUN_TO(&m, KVM_EXIT_DIRTY_RING_FULL);
	RUN_TO(&m, KVM_EXIT_DIRTY_RING_FULL);
	while (n < ENTRIES && ring[n].flags)
		ring[n++].flags |= KVM_DIRTY_GFN_F_RESET;
	CHECK(n >= ENTRIES - 64 - 512 && n < ENTRIES);
	RUN_TO(&m, KVM_EXIT_DIRTY_RING_FULL);
	CHECK_EQ(ioctl(m.vm, KVM_RESET_DIRTY_RINGS, 0), n);
	RUN_TO(&m, KVM_EXIT_DIRTY_RING_FULL);
	CHECK_EQ(ring[n % ENTRIES].offset, n);
	close(m.vcpu);
	close(m.vm);
}

int main(void)
{
	test_caps();
	test_entries();
	test_full();
	return 0;
}
