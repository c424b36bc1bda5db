/* SPDX-License-Identifier: MIT */
/*
 * Two vCPUs that rewrite and remap code for each other: in turns one writes a function, by its own mapping or by
 * another, or puts another frame in its place, and tells the other through memory alone; that one serializes (CPUID, IRET,
 * MOV to CR3 or INVLPG) and must run what was written. ANYKVM_SECONDS: how long.
 */
#include "api_test.h"

#include <pthread.h>
#include <time.h>

#define VCPUS	 2
#define TABLES	 0x2000 /* PML4, PDPT, PD, and a page table for LINEAR */
#define GDT	 0x6000
#define CODE	 0x8000
#define SHARED	 0x9000
#define FRAMES	 0xa000 /* two, differing in bit 12 */
#define STACKS	 0xe000
#define LINEAR	 0x40000000ul
#define SLOT	 64
#define SLOTS	 16
#define BAD_PORT 0x99

struct shared {
	uint64_t turn;	/* 2r - 1: round r is written; 2r: it was run */
	uint64_t frame; /* at LINEAR */
	uint64_t last;	/* round: who writes sets it when it finds */
	uint64_t stop;
};

#define GUEST(name, text)                                                                \
	asm(".pushsection .rodata\n.intel_syntax noprefix\n" #name ":\n" text "\n" #name \
	    "_end:\n.att_syntax prefix\n.popsection\n");                                 \
	extern const uint8_t name[], name##_end[]

/* RBP: struct shared. R8: LINEAR. R12: round. R13: which vCPU. R15: the PTE of LINEAR. RDI: the round's slot. */
GUEST(rewriter, "1: inc r12\n cmp r12, [rbp+16]\n ja 9f\n"
		"mov rax, r12\n imul rax, rax, 7\n and eax, 15\n shl eax, 6\n mov rdi, rax\n"
		"mov rax, r12\n xor rax, r13\n test al, 1\n jz 5f\n"
		/* Write. */
		"lea rbx, [r12*2-2]\n"
		"2: cmp [rbp], rbx\n je 3f\n pause\n jmp 2b\n"
		"3: cmp qword ptr [rbp+24], 0\n je 31f\n mov [rbp+16], r12\n31: mov rcx, [rbp+8]\n"
		"mov edx, r12d\n and edx, 7\n cmp edx, 7\n jne 4f\n"
		"xor rcx, 0x1000\n mov [rbp+8], rcx\n mov [rcx+rdi+1], r12d\n"
		"or rcx, 7\n mov [r15], rcx\n invlpg [r8]\n jmp 44f\n"
		"4: test r12d, 16\n jz 43f\n mov rcx, r8\n"
		"43: mov [rcx+rdi+1], r12d\n"
		"44: lea rbx, [r12*2-1]\n mov [rbp], rbx\n jmp 1b\n"
		/* Run. */
		"5: lea rbx, [r12*2-1]\n"
		"6: cmp [rbp], rbx\n je 7f\n pause\n jmp 6b\n"
		"7: mov edx, r12d\n and edx, 7\n cmp edx, 7\n je 73f\n"
		"and edx, 3\n jz 70f\n cmp edx, 2\n jb 71f\n je 72f\n jmp 73f\n"
		"70: cpuid\n jmp 8f\n"
		"71: mov rax, rsp\n push 16\n push rax\n pushfq\n push 8\n lea rax, [rip+8f]\n "
		"push rax\n iretq\n"
		"72: mov rax, cr3\n mov cr3, rax\n jmp 8f\n"
		"73: invlpg [r8]\n"
		"8: lea rsi, [r8+rdi]\n"
		"call rsi\n cmp eax, r12d\n jne 99f\n"
		"call rsi\n cmp eax, r12d\n jne 99f\n"
		"call rsi\n cmp eax, r12d\n jne 99f\n"
		"lea rbx, [r12*2]\n mov [rbp], rbx\n jmp 1b\n"
		"9: hlt\n"
		"99: out 0x99, al\n hlt\n");

static int vcpus[VCPUS];
static struct kvm_run *runs[VCPUS];

static void put64(struct machine *m, unsigned gpa, uint64_t val)
{
	memcpy(m->ram + gpa, &val, 8);
}

static struct shared *shared(const struct machine *m)
{
	return (struct shared *)(m->ram + SHARED);
}

static void fill_memory(struct machine *m)
{
	put64(m, TABLES, TABLES + 0x1000 + 7);
	put64(m, TABLES + 0x1000, TABLES + 0x2000 + 7);
	put64(m, TABLES + 0x2000, 0x87);
	/* LINEAR: the second GiB, by a directory of its own behind the GDT. */
	put64(m, TABLES + 0x1000 + 8, GDT + 0x1000 + 7);
	put64(m, GDT + 0x1000, TABLES + 0x3000 + 7);
	put64(m, TABLES + 0x3000, FRAMES + 7);
	put64(m, GDT + 8, 0x00af9b000000ffff);
	put64(m, GDT + 16, 0x00cf93000000ffff);
	memcpy(m->ram + CODE, rewriter, rewriter_end - rewriter);
	for (unsigned i = 0; i < 2 * SLOTS; i++)
		memcpy(m->ram + FRAMES + i / SLOTS * 0x1000 + i % SLOTS * SLOT, "\xb8\0\0\0\0\xc3",
		       6);
	*shared(m) = (struct shared){.frame = FRAMES, .last = ~0ull};
}

static void start(struct machine *m, unsigned i)
{
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {.rip = CODE,
				.rsp = STACKS + 0x800 * (i + 1),
				.rflags = 2,
				.rbp = SHARED,
				.r8 = LINEAR,
				.r13 = i,
				.r15 = TABLES + 0x3000};
	struct kvm_sregs s;

	CHECK_EQ(ioctl(vcpus[i], KVM_GET_SREGS, &s), 0);
	s.cr3 = TABLES;
	s.cr0 = 0x80010031;
	s.cr4 = 0x620;
	s.efer = 0xd01;
	s.gdt = (struct kvm_dtable){.base = GDT, .limit = 23};
	s.cs = code;
	s.ds = s.es = s.ss = s.fs = s.gs = data;
	CHECK_EQ(ioctl(vcpus[i], KVM_SET_SREGS, &s), 0);
	CHECK_EQ(ioctl(vcpus[i], KVM_SET_REGS, &regs), 0);
}

static void *run(void *opaque)
{
	long i = (long)opaque;
	struct kvm_regs regs;

	CHECK_EQ(ioctl(vcpus[i], KVM_RUN, 0), 0);
	if (runs[i]->exit_reason == KVM_EXIT_IO) {
		CHECK_EQ(ioctl(vcpus[i], KVM_GET_REGS, &regs), 0);
		fprintf(stderr, "round %llu ran what was written as %llu\n",
			(unsigned long long)regs.r12, (unsigned long long)regs.rax);
		exit(1);
	}
	CHECK_EQ(runs[i]->exit_reason, KVM_EXIT_HLT);
	return NULL;
}

static unsigned seconds(void)
{
	const char *val = getenv("ANYKVM_SECONDS");

	return val ? strtoul(val, NULL, 0) : 2;
}

int main(void)
{
	struct machine m = machine_open();
	pthread_t threads[VCPUS];
	uint64_t rounds;

	fill_memory(&m);
	for (unsigned i = 0; i < VCPUS; i++) {
		vcpus[i] = ioctl(m.vm, KVM_CREATE_VCPU, i);
		CHECK(vcpus[i] >= 0);
		runs[i] = map_run(m.kvm, vcpus[i]);
		set_supported_cpuid(m.kvm, vcpus[i]);
		start(&m, i);
	}
	for (long i = 0; i < VCPUS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, run, (void *)i), 0);
	sleep(seconds());
	__atomic_store_n(&shared(&m)->stop, 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < VCPUS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	rounds = shared(&m)->turn / 2;
	CHECK_EQ(rounds, shared(&m)->last);
	printf("%llu rounds\n", (unsigned long long)rounds);
	return 0;
}
