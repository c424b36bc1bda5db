/* SPDX-License-Identifier: MIT */
/*
 * arch_prctl(2)'s permission for guests, which programs ask for by syscall(). The kernel would answer for its own KVM.
 *
 * All other system calls go on to the C library's syscall(): by a jump, with all registers and the stack as they are, since some
 * return twice or on another stack.
 */
#include "front/door.h"
#include "kvm/api/api.h"

#include <sys/syscall.h>

#define GET_XCOMP_GUEST_PERM 0x1024
#define REQ_XCOMP_GUEST_PERM 0x1025

/* The assembly below knows the numbers. */
_Static_assert(SYS_arch_prctl == 158 && REQ_XCOMP_GUEST_PERM == GET_XCOMP_GUEST_PERM + 1, "");

int arch_prctl(int code, unsigned long arg);

__attribute__((used)) static long guest_permission(long nr, long code, unsigned long arg)
{
	struct door_pass pass;
	long r = door_enter(&pass);

	if (r)
		return door_result(r);
	r = door_init();
	if (!r)
		r = code == REQ_XCOMP_GUEST_PERM ? api_permission_request(arg)
						 : api_permission_get((uint64_t *)arg);
	door_leave(&pass);
	return door_result(r);
}

__attribute__((used)) static void *next_syscall(void)
{
	return (void *)door_next()->syscall;
}

/* long syscall(long number, ...) */
asm(".pushsection .text\n"
    ".globl syscall\n"
    ".type syscall, @function\n"
    "syscall:\n"
    "	endbr64\n"
    "	cmp $158, %rdi\n"
    "	jne 1f\n"
    "	lea -0x1024(%rsi), %eax\n"
    "	cmp $1, %eax\n"
    "	jbe guest_permission\n"
    "1:	push %rdi\n"
    "	push %rsi\n"
    "	push %rdx\n"
    "	push %rcx\n"
    "	push %r8\n"
    "	push %r9\n"
    "	sub $8, %rsp\n"
    "	call next_syscall\n"
    "	add $8, %rsp\n"
    "	pop %r9\n"
    "	pop %r8\n"
    "	pop %rcx\n"
    "	pop %rdx\n"
    "	pop %rsi\n"
    "	pop %rdi\n"
    "	jmp *%rax\n"
    ".size syscall, .-syscall\n"
    ".popsection\n");

__export int arch_prctl(int code, unsigned long arg)
{
	if (code == REQ_XCOMP_GUEST_PERM || code == GET_XCOMP_GUEST_PERM)
		return (int)guest_permission(SYS_arch_prctl, code, arg);
	return (int)door_next()->syscall(SYS_arch_prctl, code, arg);
}
