/* SPDX-License-Identifier: MIT */
/*
 * The guest of states.c, in long mode. It mixes all that it computes, reads and is told into R12, XMM0 and the x87's top, goes through
 * the points at which its state is saved, and in the end leaves one number at RESULT, which must not depend on
 * where or how often it was saved and restored. Each OUT to a port from PORT_FIRST on is a point.
 *
 * This code is part of what tests/compat keeps: never change it; a new guest is a new file.
 */
#ifndef TESTS_COMPAT_GUEST_H
#define TESTS_COMPAT_GUEST_H

#include <stdint.h>

#define CODE	      0x8000
#define SMM_FLAG      0x7000
#define RESULT	      0x7008
#define BUFFER	      0xa000
#define SMBASE	      0x20000
#define SMM_CODE      (SMBASE + 0x8000)
#define BYTES_IN      3000
#define PORT_VECTOR   0x91 /* registers of all kinds hold something */
#define PORT_STRING   0x92 /* read by REP INSB */
#define PORT_SMI      0x93 /* the program raises an SMI */
#define PORT_SMM      0x94 /* inside its handler */
#define PORT_FAULT    0x95 /* the program makes a page fault pending */
#define PORT_HALT     0x96 /* HLT follows, which a timer ends */
#define PORT_END      0x9f
#define FAULT_ADDRESS 0x123456789000

#define MIX                                                                                      \
	"imul r12, r12, 0x5851f42d\n add r12, 0x14057b7e\n movq xmm1, r12\n paddq xmm0, xmm1\n " \
	"pshufd xmm0, xmm0, 0x93\n"

asm(".pushsection .rodata\n.intel_syntax noprefix\n"
    "guest_code: mov ecx, 0x80f\n mov eax, 0x1ff\n xor edx, edx\n wrmsr\n"
    "mov r12d, 12345\n mov r13d, 0\n pxor xmm0, xmm0\n fninit\n fldpi\n fld1\n faddp\n"
    "mov ebx, 20000\n1:" MIX "dec ebx\n jnz 1b\n"
    "mov r8, r12\n mov r9, 9\n mov r10, 10\n mov r11, 11\n mov r14, 14\n mov r15, 15\n"
    "stc\n out 0x91, al\n jc 2f\n ud2\n"
    "2: add r12, r8\n add r12, r9\n add r12, r10\n add r12, r11\n add r12, r14\n add r12, r15\n"
    "mov edi, 0xa000\n mov ecx, 3000\n mov edx, 0x92\n rep insb\n"
    "mov esi, 0xa000\n mov ebx, 3000\n3: movzx eax, byte ptr [rsi]\n add r12, rax\n inc rsi\n" MIX
    "dec ebx\n jnz 3b\n"
    "out 0x93, al\n4: pause\n cmp byte ptr [0x7000], 0\n je 4b\n" MIX
    "out 0x95, al\n add r12, r14\n" MIX "mov ecx, 0x83e\n mov eax, 0xb\n xor edx, edx\n wrmsr\n "
    "mov ecx, 0x832\n mov eax, 0x50\n wrmsr\n"
    "mov ecx, 0x838\n mov eax, 200000000\n wrmsr\n out 0x96, al\n"
    "5: cli\n cmp r13d, 0\n jne 6f\n sti\n hlt\n jmp 5b\n"
    "6: add r12, r13\n" MIX "fld1\n faddp\n sub rsp, 16\n fstp tbyte ptr [rsp]\n add r12, [rsp]\n "
    "movups [rsp], xmm0\n add r12, [rsp]\n "
    "add r12, [rsp+8]\n mov [0x7008], r12\n out 0x9f, al\n ud2\n"
    "guest_fault: mov r14, cr2\n add rsp, 8\n iretq\n"
    "guest_timer: push rax\n push rcx\n push rdx\n inc r13d\n mov ecx, 0x80b\n xor eax, eax\n xor "
    "edx, edx\n wrmsr\n"
    "pop rdx\n pop rcx\n pop rax\n iretq\n"
    "guest_code_end:\n.att_syntax prefix\n.popsection\n");
extern const uint8_t guest_code[], guest_fault[], guest_timer[], guest_code_end[];

/* out %al,$0x94; movb $1,0x7000; rsm */
static const uint8_t smm_code[] = {0xe6, 0x94, 0xc6, 0x06, 0x00, 0x70, 0x01, 0x0f, 0xaa};

#endif
