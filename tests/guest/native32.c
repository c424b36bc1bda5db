/* SPDX-License-Identifier: MIT */
/* See native32.h. */
#include "native32.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/*
 * Layout of the low page: 000 the 64-bit stub, 400 the 32-bit code, 800 the block below, C00 a buffer; a
 * stack in the pages above.
 */
struct block {
	uint64_t rsp;
	uint32_t far_off, far_sel;
	struct native32 regs;
};

static uint8_t *low;

asm(".text\n"
    "native32_stub:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, 0x800(%rdi)\n"
    "lea 0x3ff0(%rdi), %rsp\n"
    "push %rdi\n"
    "mov 0x820(%rdi), %eax; push %rax; popfq\n"
    "mov 0x810(%rdi), %eax; mov 0x814(%rdi), %ecx; mov 0x818(%rdi), %edx; mov 0x81c(%rdi), %ebx\n"
    "lcall *0x808(%rdi)\n"
    "pop %rdi\n"
    "mov %eax, 0x810(%rdi); mov %ecx, 0x814(%rdi); mov %edx, 0x818(%rdi); mov %ebx, 0x81c(%rdi)\n"
    "pushfq; pop %rax; mov %eax, 0x820(%rdi)\n"
    "mov 0x800(%rdi), %rsp\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "cld; ret\n"
    "native32_stub_end:\n");
extern const uint8_t native32_stub[], native32_stub_end[];

int native32_init(void)
{
	if (low)
		return 0;
	low = mmap(NULL, 0x4000, PROT_READ | PROT_WRITE | PROT_EXEC,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (low == MAP_FAILED) {
		low = NULL;
		return -1;
	}
	memcpy(low, native32_stub, native32_stub_end - native32_stub);
	return 0;
}

void *native32_buffer(void)
{
	return low + 0xc00;
}

void native32_run(const void *code, size_t size, struct native32 *regs)
{
	struct block *block = (struct block *)(low + 0x800);
	void (*stub)(void *) = (void (*)(void *))(uintptr_t)low;

	memcpy(low + 0x400, code, size);
	low[0x400 + size] = 0xcb; /* lret */
	block->far_off = (uint32_t)(uintptr_t)(low + 0x400);
	block->far_sel = 0x23;
	block->regs = *regs;
	stub(low);
	*regs = block->regs;
}
