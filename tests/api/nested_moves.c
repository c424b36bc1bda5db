/* SPDX-License-Identifier: MIT */
/*
 * Guest memory that comes, goes and moves under a hypervisor's structures (Linux 6.12's nested.c; SDM, VMPTRLD, VMCLEAR): a VMCS
 * whose memory slot was taken away works on as long as it is current, its writing back is lost, and loading it anew fails
 * for its revision; one that moved is written where it is now; a guest whose VMCS has no memory has its exit all the same.
 */
#include "long_mode.h"
#include "pv.h"

#define POINTERS 0xe000u   /* the VMXON region's, A's, B's */
#define ON	 0xc000u   /* VMXON region */
#define B	 0xd000u   /* a VMCS in RAM that stays */
#define A	 0x200000u /* one in a slot of its own */
#define SLOT	 1
#define SIZE	 0x1000u
#define REVISION 0x11e57ed0u
#define FEAT_CTL 0x3a

#define FLAG_CF 1u
#define FLAG_ZF 0x40u

/* Each step tells its flags by a port of its own, and what it read by 0x90. */
#define STEP(port) "pushf; pop rax; out " #port ", eax;"

GUEST_CODE(
	moves, "vmxon [0xe000];" STEP(0x80) "vmptrld [0xe008];" STEP(0x81)
	/* GUEST_RSP */
	"mov edx, 0x681c; mov ecx, 0x1234; vmwrite rdx, rcx;" STEP(0x82)
	/* A is gone. */
	"vmread rax, rdx; out 0x90, eax;"
	"vmwrite rdx, rcx;" STEP(0x83) "vmptrld [0xe010];" STEP(0x84) "vmptrld [0xe008];" STEP(0x85)
	/* VM-instruction error */
	"mov edx, 0x4400; vmread rax, rdx; out 0x90, eax;"
	"vmclear [0xe008];" STEP(0x86)
	/* A is there again, and empty; then elsewhere. */
	"vmptrld [0xe008];" STEP(
		0x87) "mov edx, 0x681c; vmread rax, rdx; out 0x90, eax;"
		      "mov ecx, 0x5678; vmwrite rdx, rcx;" STEP(0x88) "vmclear [0xe008];" STEP(
			      0x89) "vmptrld [0xe008];" STEP(0x8a) "vmread rax, rdx; out 0x90, "
								   "eax; hlt");

static struct machine moving_machine(void)
{
	static const uint64_t pointers[] = {ON, A, B};
	struct machine m = machine_open();
	struct kvm_sregs s;

	m.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 0);
	CHECK(m.vcpu >= 0);
	m.run = map_run(m.kvm, m.vcpu);
	long_mode_memory(m.ram, moves, moves_end);
	for (unsigned i = 0; i < 3; i++)
		long_mode_put(m.ram, POINTERS + 8 * i, pointers[i]);
	long_mode_put(m.ram, ON, REVISION);
	long_mode_put(m.ram, B, REVISION);
	set_supported_cpuid(m.kvm, m.vcpu);
	CHECK_EQ(msr_set(m.vcpu, FEAT_CTL, 5), 1);
	long_mode_start(m.vcpu, LONG_CODE, LONG_STACK - 0x100);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_SREGS, &s), 0);
	s.cr4 |= 0x2000;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &s), 0);
	return m;
}

static void set_slot(struct machine *m, const uint8_t *memory)
{
	CHECK_EQ(set_region(m->vm, SLOT, 0, A, memory ? SIZE : 0, memory), 0);
}

/* The guest's next word. */
static uint32_t next(struct machine *m, unsigned port)
{
	uint32_t val;

	RUN_TO(m, KVM_EXIT_IO);
	CHECK_EQ(m->run->io.port, port);
	memcpy(&val, (uint8_t *)m->run + m->run->io.data_offset, sizeof(val));
	return val;
}

static uint32_t flags(struct machine *m, unsigned port)
{
	return next(m, port) & (FLAG_CF | FLAG_ZF);
}

/* Memory for a VMCS, as software makes it. */
static uint8_t *region(void)
{
	static const uint32_t revision = REVISION;
	uint8_t *p = map_ram(SIZE);

	memcpy(p, &revision, sizeof(revision));
	return p;
}

static bool holds(const uint8_t *memory, uint64_t val)
{
	for (unsigned i = 0; i < SIZE; i += 8)
		if (!memcmp(memory + i, &val, sizeof(val)))
			return true;
	return false;
}

static void test_pointers(void)
{
	struct machine m = moving_machine();
	uint8_t *first = region(), *second = region(), *third = region();

	set_slot(&m, first);
	for (unsigned port = 0x80; port <= 0x82; port++)
		CHECK_EQ(flags(&m, port), 0);
	set_slot(&m, NULL);
	/* The current one is the processor's. */
	CHECK_EQ(next(&m, 0x90), 0x1234);
	CHECK_EQ(flags(&m, 0x83), 0);
	CHECK_EQ(flags(&m, 0x84), 0);
	/* Read as all ones it has no revision (error 11), and nothing wrote to where it was. */
	CHECK_EQ(flags(&m, 0x85), FLAG_ZF);
	CHECK_EQ(next(&m, 0x90), 11);
	CHECK(!holds(first, 0x1234));
	CHECK_EQ(flags(&m, 0x86), 0);
	set_slot(&m, second);
	CHECK_EQ(flags(&m, 0x87), 0);
	CHECK_EQ(next(&m, 0x90), 0);
	CHECK_EQ(flags(&m, 0x88), 0);
	/* It moves while it is current: its data go to the new place. */
	set_slot(&m, NULL);
	set_slot(&m, third);
	CHECK_EQ(flags(&m, 0x89), 0);
	CHECK(holds(third, 0x5678) && !holds(second, 0x5678));
	CHECK_EQ(flags(&m, 0x8a), 0);
	CHECK_EQ(next(&m, 0x90), 0x5678);
	RUN_TO(&m, KVM_EXIT_HLT);
}

/* The slot is there one time and not the next, at random places of the hypervisor's way. */
static void test_flicker(void)
{
	for (unsigned seed = 0; seed < 64; seed++) {
		struct machine m = moving_machine();
		uint8_t *memory = region();

		for (unsigned i = 0; m.run->exit_reason != KVM_EXIT_HLT; i++) {
			bool there = seed * 0x9e3779b9u >> i % 32 & 1;

			if (there)
				set_slot(&m, memory);
			CHECK_EQ(ioctl(m.vcpu, KVM_RUN, 0), 0);
			CHECK(m.run->exit_reason == KVM_EXIT_IO ||
			      m.run->exit_reason == KVM_EXIT_HLT);
			if (there)
				set_slot(&m, NULL);
		}
		munmap(m.run, ioctl(m.kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
		close(m.vcpu);
		close(m.vm);
		close(m.kvm);
		munmap(memory, SIZE);
	}
}

int main(void)
{
	test_pointers();
	test_flicker();
	return 0;
}
