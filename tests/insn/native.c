/* SPDX-License-Identifier: MIT */
/* Running one instruction on the host CPU; see native.h. */
#include "native.h"

#include <asm/ldt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The trampoline below knows these offsets. */
struct trampoline {
	uint64_t gpr[NR_GPRS];			/* 0 */
	uint64_t rip;				/* 128 */
	uint64_t rflags;			/* 136 */
	uint64_t host_rsp;			/* 144 */
	uint64_t mask;				/* 152 */
	uint32_t far_off;			/* 160 */
	uint16_t code_sel, data_sel, stack_sel; /* 164, 166, 168 */
	uint16_t pad[11];
	uint8_t x[XAREA] __attribute__((aligned(64))); /* 192 */
};

struct trampoline native_trampoline;
void native_enter(void);
void native_enter_far(void);
void native_leave(void);

static const struct segments *segs;
static volatile bool running;
static struct state *result;

asm(".text\n"
    "native_enter:\n"
    "	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "	lea native_trampoline(%rip), %rdi\n"
    "	mov %rsp, 144(%rdi)\n"
    "	mov 152(%rdi), %eax; mov 156(%rdi), %edx\n"
    "	xrstor64 192(%rdi)\n"
    "	push 136(%rdi); popf\n"
    "	mov 0(%rdi), %rax; mov 8(%rdi), %rcx; mov 16(%rdi), %rdx; mov 24(%rdi), %rbx\n"
    "	mov 32(%rdi), %rsp; mov 40(%rdi), %rbp; mov 48(%rdi), %rsi\n"
    "	mov 64(%rdi), %r8; mov 72(%rdi), %r9; mov 80(%rdi), %r10; mov 88(%rdi), %r11\n"
    "	mov 96(%rdi), %r12; mov 104(%rdi), %r13; mov 112(%rdi), %r14; mov 120(%rdi), %r15\n"
    "	mov 56(%rdi), %rdi\n"
    "	jmp *128+native_trampoline(%rip)\n"
    /* The same with segments of another width; data and stack first. */
    "native_enter_far:\n"
    "	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "	lea native_trampoline(%rip), %rdi\n"
    "	mov %rsp, 144(%rdi)\n"
    "	mov 152(%rdi), %eax; mov 156(%rdi), %edx\n"
    "	xrstor64 192(%rdi)\n"
    "	push 136(%rdi); popf\n"
    "	mov 166(%rdi), %ds; mov 166(%rdi), %es; mov 168(%rdi), %ss\n"
    "	mov 0(%rdi), %rax; mov 8(%rdi), %rcx; mov 16(%rdi), %rdx; mov 24(%rdi), %rbx\n"
    "	mov 32(%rdi), %rsp; mov 40(%rdi), %rbp; mov 48(%rdi), %rsi\n"
    "	mov 56(%rdi), %rdi\n"
    "	ljmp *160+native_trampoline(%rip)\n"
    "native_leave:\n"
    "	mov 144+native_trampoline(%rip), %rsp\n"
    "	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "	ret\n");

static const int context_index[NR_GPRS] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8,	 REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

/* Vector state is in the signal frame, in the standard layout; what XSTATE_BV leaves out is initial. */
static void take_state(struct state *s, const struct host_trap *trap, const ucontext_t *uc)
{
	const greg_t *regs = uc->uc_mcontext.gregs;

	for (int i = 0; i < NR_GPRS; i++)
		s->gpr[i] = regs[context_index[i]];
	s->rip = regs[REG_RIP];
	s->rflags = regs[REG_EFL];
	s->vector = trap->trapno;
	s->error = trap->error;
	s->cr2 = trap->addr;
	memcpy(s->x, uc->uc_mcontext.fpregs, sizeof(s->x));
	if (s->vector == VEC_BP) {
		s->vector = -1;
		s->rip--;
	}
}

/* Come back with a harmless state. */
static bool fixup(void *opaque, const struct host_trap *trap, ucontext_t *uc)
{
	struct _libc_fpstate *fp = uc->uc_mcontext.fpregs;

	if (!running)
		return false;
	running = false;
	take_state(result, trap, uc);
	fp->cwd = 0x37f;
	fp->swd = 0;
	fp->ftw = 0;
	fp->mxcsr = 0x1f80;
	uc->uc_mcontext.gregs[REG_EFL] = 0x202;
	/* CS and SS of 64-bit user mode. */
	uc->uc_mcontext.gregs[REG_CSGSFS] =
		(uc->uc_mcontext.gregs[REG_CSGSFS] & 0x0000ffffffff0000) | 0x002b000000000033;
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)native_leave;
	return true;
}

static void map(unsigned long addr, size_t size, int prot)
{
	void *p = mmap((void *)addr, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		       -1, 0);

	if (p == (void *)addr)
		return;
	perror("insn: mapping low memory");
	exit(1);
}

static bool ldt_set(unsigned nr, uint32_t base, unsigned contents)
{
	struct user_desc desc = {
		.entry_number = nr,
		.base_addr = base,
		.limit = 0xffff,
		.contents = contents,
	};

	return !syscall(SYS_modify_ldt, 1, &desc, sizeof(desc));
}

#define LDT_SEL(nr) ((nr) << 3 | 7)

const struct segments *native_segments(unsigned bits)
{
	static const struct segments seg64 = {.bits = 64, .limit = 0xffffffff, .code_sel = 0x33};
	static const struct segments seg32 = {.bits = 32,
					      .limit = 0xffffffff,
					      .code_sel = 0x23,
					      .data_sel = 0x2b,
					      .stack_sel = 0x2b};
	static const struct segments seg16 = {
		.bits = 16,
		.limit = 0xffff,
		.code_base = CODE_PAGE,
		.data_base = DATA_PAGE,
		.stack_base = STACK_PAGE,
		.code_sel = LDT_SEL(0),
		.data_sel = LDT_SEL(1),
		.stack_sel = LDT_SEL(2),
	};

	if (bits == 64)
		return &seg64;
	if (bits == 32)
		return &seg32;
	if (!ldt_set(0, CODE_PAGE, MODIFY_LDT_CONTENTS_CODE) ||
	    !ldt_set(1, DATA_PAGE, MODIFY_LDT_CONTENTS_DATA) ||
	    !ldt_set(2, STACK_PAGE, MODIFY_LDT_CONTENTS_DATA))
		return NULL;
	return &seg16;
}

void native_init(const struct segments *segments, uint64_t mask)
{
	segs = segments;
	native_trampoline.code_sel = segs->code_sel;
	native_trampoline.data_sel = segs->data_sel;
	native_trampoline.stack_sel = segs->stack_sel;
	native_trampoline.mask = mask;
	map(CODE_PAGE, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
	map(DATA_PAGE, DATA_SIZE, PROT_READ | PROT_WRITE);
	map(STACK_PAGE, STACK_SIZE, PROT_READ | PROT_WRITE);
	if (host_fault_thread_init() || host_fault_range_add((void *)2, ~0ull, fixup, NULL) ||
	    /* Each leaves one RIP out. */
	    host_fault_range_add((void *)3, ~0ull, fixup, NULL)) {
		fprintf(stderr, "insn: no fault handler\n");
		exit(1);
	}
}

void native_run(const struct state *in, struct state *out)
{
	struct trampoline *t = &native_trampoline;

	memcpy(t->gpr, in->gpr, sizeof(t->gpr));
	t->rip = in->rip;
	t->rflags = in->rflags;
	memcpy(t->x, in->x, sizeof(t->x));
	result = out;
	running = true;
	t->far_off = in->rip;
	if (segs->bits == 64)
		native_enter();
	else
		native_enter_far();
}
