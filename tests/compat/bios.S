/* SPDX-License-Identifier: MIT */
/*
 * A machine's whole firmware, for streams that stay small: long mode, 200 timer interrupts a second by PIT and PIC, each one step of
 * a hash in R12 and XMM0; each twentieth step COM1 shows the number of steps and the hash (compat.py computes it, too). kvmclock is on.
 */
	.intel_syntax noprefix
	.text
	.globl _start
_start:
	.code32
protected:
	mov eax, 0x10
	mov ds, eax
	mov es, eax
	mov ss, eax
	mov esp, 0x9000
	mov eax, 0xfee00000
	mov dword ptr [eax + 0xf0], 0x1ff
	mov dword ptr [eax + 0x350], 0x700
	xor eax, eax
	mov edi, 0x1000
	mov ecx, 0x1400
	cld
	rep stosd
	mov dword ptr ds:[0x1000], 0x2003
	mov dword ptr ds:[0x2000], 0x3003
	mov dword ptr ds:[0x3000], 0x83
	mov eax, 0x1000
	mov cr3, eax
	mov eax, 0x620
	mov cr4, eax
	mov ecx, 0xc0000080
	rdmsr
	or eax, 0x100
	wrmsr
	mov eax, 0x80000033
	mov cr0, eax
	.byte 0xea
	.long 0xf0000 + long - _start
	.word 0x18

	.code64
long:
	mov eax, 0x10
	mov ds, eax
	mov es, eax
	mov ss, eax
	lea rax, [rip + timer]
	mov [0x4200], ax
	mov word ptr [0x4202], 0x18
	mov word ptr [0x4204], 0x8e00
	shr rax, 16
	mov [0x4206], ax
	push 0
	push 0
	mov word ptr [rsp], 0xfff
	mov qword ptr [rsp + 2], 0x4000
	lidt [rsp]
	mov ecx, 0x4b564d01
	mov eax, 0x6001
	xor edx, edx
	wrmsr
	lea rsi, [rip + ports]
	mov ecx, (ports_end - ports) / 2
	xor edx, edx
1:	lodsw
	mov dl, al
	mov al, ah
	out dx, al
	loop 1b
	mov r12d, 1
	pxor xmm0, xmm0
	xor r14d, r14d
	xor r15d, r15d

wait:	cli
	cmp r14, r15
	jne step
	sti
	hlt
	jmp wait
step:	sti
	inc r14
	imul r12, r12, 0x5851f42d
	add r12, 0x14057b7e
	movq xmm1, r12
	paddq xmm0, xmm1
	pshufd xmm0, xmm0, 0x93
	mov rax, r14
	xor edx, edx
	mov ecx, 20
	div rcx
	test edx, edx
	jnz wait
	mov rax, r14
	call show
	mov al, ' '
	mov dx, 0x3f8
	out dx, al
	movups [0x5000], xmm0
	mov rax, r12
	xor rax, [0x5000]
	xor rax, [0x5008]
	call show
	mov al, 10
	mov dx, 0x3f8
	out dx, al
	jmp wait

show:	mov rbx, rax
	mov ecx, 16
	mov dx, 0x3f8
1:	rol rbx, 4
	mov eax, ebx
	and eax, 15
	add al, '0'
	cmp al, '9'
	jbe 2f
	add al, 'a' - '9' - 1
2:	out dx, al
	loop 1b
	ret

timer:	push rax
	inc r15
	mov al, 0x20
	out 0x20, al
	pop rax
	iretq

/* Port (below 100h) and value: PIC, PIT. */
ports:	.byte 0x20, 0x11, 0x21, 0x20, 0x21, 4, 0x21, 1, 0xa0, 0x11, 0xa1, 0x28, 0xa1, 2, 0xa1, 1
	.byte 0x21, 0xfe, 0xa1, 0xff, 0x43, 0x34, 0x40, 0x4e, 0x40, 0x17
ports_end:

	.balign 8
gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
gdt_pointer:
	.word 31
	.long 0xf0000 + gdt - _start

	.code16
real:	cli
	lgdt cs:[gdt_pointer - _start]
	mov eax, 0x11
	mov cr0, eax
	.byte 0x66, 0xea
	.long 0xf0000 + protected - _start
	.word 8

	.org 0xfff0
	.byte 0xe9
	.word real - _start - 0xfff3
	.org 0x10000
