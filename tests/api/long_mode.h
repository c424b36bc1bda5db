/* SPDX-License-Identifier: MIT */
/*
 * For tests whose guest is 64-bit code: memory's first gigabyte mapped as it is, one code and one data segment, an IDT, and a CPUID
 * that any host can lend. Code is written as assembly in .rodata and copied to LONG_CODE.
 */
#ifndef TESTS_API_LONG_MODE_H
#define TESTS_API_LONG_MODE_H

#include "api_test.h"

#define LONG_TABLES 0x2000
#define LONG_GDT    0x5000
#define LONG_IDT    0x6000
#define LONG_CODE   0x8000
#define LONG_STACK  0x10000 /* of vCPU 0; of others 4 KiB below it, each */

/* A guest's code named NAME, from NAME to NAME_end. */
#define GUEST_CODE(name, text)                                                           \
	asm(".pushsection .rodata\n.intel_syntax noprefix\n" #name ":\n" text "\n" #name \
	    "_end:\n.att_syntax prefix\n.popsection\n");                                 \
	extern const uint8_t name[], name##_end[]

static inline void long_mode_put(uint8_t *ram, uint64_t gpa, uint64_t val)
{
	memcpy(ram + gpa, &val, sizeof(val));
}

/* An interrupt gate. */
static inline void long_mode_gate(uint8_t *ram, unsigned vector, uint64_t at)
{
	long_mode_put(ram, LONG_IDT + vector * 16,
		      (at & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (at >> 16) << 48);
}

static inline void long_mode_memory(uint8_t *ram, const uint8_t *code, const uint8_t *end)
{
	long_mode_put(ram, LONG_TABLES, LONG_TABLES + 0x1007);
	long_mode_put(ram, LONG_TABLES + 0x1000, LONG_TABLES + 0x2007);
	for (uint64_t i = 0; i < 512; i++)
		long_mode_put(ram, LONG_TABLES + 0x2000 + i * 8, i << 21 | 0x83);
	long_mode_put(ram, LONG_GDT + 8, 0x00af9b000000ffff);
	long_mode_put(ram, LONG_GDT + 16, 0x00cf93000000ffff);
	memcpy(ram + LONG_CODE, code, end - code);
}

/* The host's, but of features only what is said: ECX of leaf 1 (x2APIC, TSC deadline), and none of leaf 7. */
static inline void long_mode_cpuid(int kvm, int vcpu, uint32_t leaf1_ecx)
{
	struct cpuid_list c;

	get_supported_cpuid(kvm, &c);
	for (unsigned i = 0; i < c.head.nent; i++) {
		if (c.v[i].function == 1)
			c.v[i].ecx = leaf1_ecx;
		if (c.v[i].function == 7)
			c.v[i].ebx = c.v[i].ecx = c.v[i].edx = 0;
	}
	CHECK_EQ(ioctl(vcpu, KVM_SET_CPUID2, &c), 0);
}

/* At rip, interrupts off, the local APIC (if there is one) in x2APIC mode. */
static inline void long_mode_start(int vcpu, uint64_t rip, uint64_t rsp)
{
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_mp_state runnable = {.mp_state = KVM_MP_STATE_RUNNABLE};
	struct kvm_regs regs = {.rip = rip, .rsp = rsp, .rflags = 2};
	struct kvm_sregs s;

	CHECK_EQ(ioctl(vcpu, KVM_GET_SREGS, &s), 0);
	s.cr3 = LONG_TABLES;
	s.cr0 = 0x80010033;
	s.cr4 = 0x620;
	s.efer = 0xd01;
	s.apic_base |= 0xc00;
	s.gdt = (struct kvm_dtable){.base = LONG_GDT, .limit = 23};
	s.idt = (struct kvm_dtable){.base = LONG_IDT, .limit = 0xfff};
	s.cs = code;
	s.ds = s.es = s.ss = s.fs = s.gs = data;
	CHECK_EQ(ioctl(vcpu, KVM_SET_SREGS, &s), 0);
	CHECK_EQ(ioctl(vcpu, KVM_SET_REGS, &regs), 0);
	ioctl(vcpu, KVM_SET_MP_STATE, &runnable);
}

#endif
