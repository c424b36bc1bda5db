/* SPDX-License-Identifier: MIT */
/*
 * Firmware for QEMU's -bios that walks through the modes, for gdb.py to stop, step and watch in each: real mode, protected
 * mode in rings 0 and 3, 64-bit mode in rings 0 and 3, compatibility mode. It copies itself from F000:8000 to 0:8000, where
 * offsets and linear addresses are the same: a debugger knows only of the latter.
 */
#define VALUE 0x6000
#define TABLES 0x1000
#define STACK0 0x7000
#define STACK3 0x7800
#define TSS 0x6100

#define CODE32 0x08
#define DATA 0x10
#define CODE64 0x18
#define USER32 0x23
#define USERDATA 0x2b
#define USER64 0x33
#define TASK 0x38

/* What is debugged in each mode: named stops, an addition, a write and a read of VALUE. */
	.macro walk mode, low, number
\mode\()_break:	mov	$\number, \low
\mode\()_step1:	add	$2, \low
\mode\()_step2:	xchg	\low, %ecx
\mode\()_step3:	xchg	\low, %ecx
\mode\()_hard:	nop
\mode\()_store:	mov	\low, VALUE
\mode\()_stored: nop
	nop
\mode\()_load:	mov	VALUE, %edx
\mode\()_loaded: nop
	nop
\mode\()_end:	nop
	.endm

	.text
	.code16
	.global _start
_start:
	cld
	mov	%cs, %ax
	mov	%ax, %ds
	xor	%ax, %ax
	mov	%ax, %es
	mov	%ax, %ss
	mov	$STACK0, %sp
	mov	$0x8000, %si
	mov	%si, %di
	mov	$0x4000, %cx
	rep movsw
	ljmp	$0, $real_begin
real_begin:
	xor	%ax, %ax
	mov	%ax, %ds
	walk	real, %eax, 0x1001
	lgdtl	gdtr
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmp	$CODE32, $prot_begin

	.code32
prot_begin:
	mov	$DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$STACK0, %esp
	walk	prot, %eax, 0x1002
	movl	$STACK0, TSS + 4
	movl	$DATA, TSS + 8
	lidt	idtr32
	mov	$TASK, %eax
	ltr	%ax
	mov	$USERDATA, %eax
	mov	%eax, %ds
	push	$USERDATA
	push	$STACK3
	push	$2
	push	$USER32
	push	$user_begin
	iret
user_begin:
	walk	user, %eax, 0x1003
	int	$0x30

gate32:
	mov	$DATA, %eax
	mov	%eax, %ds
	/* One gigabyte as it is, by 2 MiB pages, for both rings. */
	mov	$TABLES, %edi
	movl	$TABLES + 0x1007, (%edi)
	movl	$TABLES + 0x2007, 0x1000(%edi)
	mov	$0x87, %eax
	mov	$512, %ecx
1:	mov	%eax, 0x2000(%edi)
	add	$0x200000, %eax
	add	$8, %edi
	loop	1b
	mov	%cr4, %eax
	or	$0x20, %eax
	mov	%eax, %cr4
	mov	$TABLES, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	%cr0, %eax
	or	$0x80000000, %eax
	mov	%eax, %cr0
	ljmp	$CODE64, $long_begin

	.code64
long_begin:
	mov	$STACK0, %esp
	walk	long, %eax, 0x1004
	movq	$STACK0, TSS + 4
	andb	$0xfd, gdt + TASK + 5	/* no longer busy */
	mov	$TASK, %eax
	ltr	%ax
	lidt	idtr64
	push	$USERDATA
	push	$STACK3
	push	$2
	push	$USER64
	push	$ring3_begin
	iretq
ring3_begin:
	walk	ring3, %eax, 0x1005
	int	$0x30

gate64:
	push	$USERDATA
	push	$STACK3
	push	$2
	push	$USER32
	push	$compat_begin
	iretq

	.code32
compat_begin:
	mov	$USERDATA, %eax
	mov	%eax, %ds
	walk	compat, %eax, 0x1006
forever:
	incl	VALUE + 8
	jmp	forever

	.balign	8
gdt:	.quad	0
	.quad	0x00cf9b000000ffff
	.quad	0x00cf93000000ffff
	.quad	0x00af9b000000ffff
	.quad	0x00cffb000000ffff
	.quad	0x00cff3000000ffff
	.quad	0x00affb000000ffff
	.quad	0x0000890000000067 | TSS << 16
	.quad	0
gdtr:	.word	gdtr - gdt - 1
	.long	gdt
idt32:	.word	0xf000
idtr32:	.word	0x31 * 8 - 1
	.long	gate_32 - 0x30 * 8
idtr64:	.word	0x31 * 16 - 1
	.long	gate_64 - 0x30 * 16, 0
	.balign	8
gate_32: .word	gate32, CODE32, 0xee00, 0
gate_64: .word	gate64, CODE64, 0xee00, 0, 0, 0, 0, 0

	.org	0x7ff0
	.code16
	ljmp	$0xf000, $_start
	.org	0x8000
