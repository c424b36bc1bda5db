/* SPDX-License-Identifier: MIT */
/*
 * KVM_CAP_EXIT_ON_EMULATION_FAILURE: instructions with an MMIO operand, of those that KVM's emulator
 * knows and of those that it lacks (its opcode tables in Linux 6.12).
 */
#include "api_test.h"

#define MMIO_HI 0x20 /* as a real-mode address: 0x20000 */

static const struct {
	uint8_t code[8];
	uint8_t size;
	bool known;
} insns[] = {
	{{0xd9, 0x06, 0, 0}, 4, false},		    /* flds [0] */
	{{0xd9, 0x16, 0, 0}, 4, false},		    /* fsts [0] */
	{{0x0f, 0xfe, 0x06, 0, 0}, 5, false},	    /* paddd mm0, [0] */
	{{0xf3, 0x0f, 0xb8, 0x06, 0, 0}, 6, false}, /* popcnt ax, [0] */
	{{0x03, 0x06, 0, 0}, 4, true},		    /* add ax, [0] */
	{{0x0f, 0xb6, 0x06, 0, 0}, 5, true},	    /* movzx ax, [0] */
	{{0x0f, 0x6f, 0x06, 0, 0}, 5, true},	    /* movq mm0, [0] */
	{{0xd9, 0x3e, 0, 0}, 4, true},		    /* fnstcw [0] */
	{{0xa1, 0, 0}, 3, true},		    /* mov ax, [0] */
};

/* DS at 0x20000, where there is no RAM. */
static void start(struct machine *m, unsigned i)
{
	struct kvm_sregs sregs;

	*m = machine_open();
	machine_code(m, insns[i].code, insns[i].size);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.ds.base = MMIO_HI << 12;
	sregs.ds.selector = MMIO_HI << 8;
	sregs.cr4 |= 0x600;
	sregs.cr0 &= ~0x60000000ull;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SREGS, &sregs), 0);
}

static uint64_t rip_of(struct machine *m)
{
	struct kvm_regs regs;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	return regs.rip;
}

static void stop(struct machine *m)
{
	close(m->vcpu);
	close(m->vm);
	close(m->kvm);
}

static void refused(unsigned i)
{
	struct machine m;

	start(&m, i);
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1), 0);
	if (insns[i].known) {
		RUN_TO(&m, KVM_EXIT_MMIO);
		stop(&m);
		return;
	}
	RUN_TO(&m, KVM_EXIT_INTERNAL_ERROR);
	CHECK_EQ(m.run->emulation_failure.suberror, KVM_INTERNAL_ERROR_EMULATION);
	CHECK(m.run->emulation_failure.ndata >= 3);
	CHECK_EQ(m.run->emulation_failure.flags,
		 KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
	CHECK(m.run->emulation_failure.insn_size >= insns[i].size);
	CHECK_EQ(memcmp(m.run->emulation_failure.insn_bytes, insns[i].code, insns[i].size), 0);
	CHECK_EQ(rip_of(&m), CODE_GPA);
	/* Switched off again, it is run as on silicon. */
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 0), 0);
	RUN_TO(&m, KVM_EXIT_MMIO);
	stop(&m);
}

int main(void)
{
	int kvm = open_kvm(), vm = create_vm(kvm);

	CHECK_EQ(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_EXIT_ON_EMULATION_FAILURE), 1);
	CHECK_ERR(enable_cap(vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 2), EINVAL);
	close(vm);
	close(kvm);
	for (unsigned i = 0; i < sizeof(insns) / sizeof(insns[0]); i++)
		refused(i);
	return 0;
}
