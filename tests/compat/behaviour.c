/* SPDX-License-Identifier: MIT */
/*
 * behaviour VERSION: each row of tables/behaviour.def holds from its version on, and not before. Run under
 * `anykvm run --cpu INTEL --param anykvm.behaviour=VERSION`.
 */
#include "../api/api_test.h"

#define TABLES 0x2000
#define IDT    0x5000

static void put64(struct machine *m, unsigned gpa, uint64_t val)
{
	memcpy(m->ram + gpa, &val, 8);
}

static struct kvm_segment segment(uint16_t selector, uint8_t type)
{
	return (struct kvm_segment){.limit = ~0u,
				    .selector = selector,
				    .type = type,
				    .present = 1,
				    .s = 1,
				    .db = 1,
				    .g = 1};
}

/*
 * TSS16_LONG_MODE: protected mode, paging off, EFER.LME = 1. SDM, initializing IA-32e mode: a 16-bit TSS in TR makes the
 * MOV to CR0 fault.
 */
static uint16_t enter_long_mode(uint8_t tss_type)
{
	struct machine m = machine_open();
	struct kvm_regs regs = {.rip = CODE_GPA, .rsp = CODE_GPA, .rflags = 2, .rax = 0x80000011};
	struct kvm_sregs s;
	uint16_t port;

	/* mov %eax,%cr0; out %al,$0x80. #GP: out %al,$0x81 */
	MACHINE_CODE(&m, 0x0f, 0x22, 0xc0, 0xe6, 0x80, 0xf4, 0, 0, 0xe6, 0x81, 0xf4);
	put64(&m, TABLES, TABLES + 0x1007);
	put64(&m, TABLES + 0x1000, TABLES + 0x2007);
	put64(&m, TABLES + 0x2000, 0x83);
	put64(&m, IDT + 13 * 8, (CODE_GPA + 8) | 8 << 16 | 0x8e00ull << 32);
	put64(&m, 0x6008, 0x00cf9b000000ffff);
	set_supported_cpuid(m.kvm, m.vcpu);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_SREGS, &s), 0);
	s.cs = segment(8, 11);
	s.ds = s.es = s.ss = segment(16, 3);
	s.gdt = (struct kvm_dtable){.base = 0x6000, .limit = 23};
	s.idt = (struct kvm_dtable){.base = IDT, .limit = 0x7ff};
	s.cr0 = 0x11;
	s.cr3 = TABLES;
	s.cr4 = 0x20;
	s.efer = 0x100;
	s.tr.type = tss_type;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &s), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(&m, KVM_EXIT_IO);
	port = m.run->io.port;
	close(m.vcpu);
	close(m.vm);
	close(m.kvm);
	return port;
}

int main(int argc, char **argv)
{
	int version = argc > 1 ? atoi(argv[1]) : 0;

	CHECK(version > 0);
	CHECK_EQ(enter_long_mode(11), 0x80);
	CHECK_EQ(enter_long_mode(3), version >= 2 ? 0x81 : 0x80);
	return 0;
}
