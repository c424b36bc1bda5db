/* SPDX-License-Identifier: MIT */
/*
 * The guest of dirty_exact.c: long mode, one page of code for all vCPUs, which takes commands {kind, address, value} from a list, does
 * each, and says at the list's end that it is through (PORT_DONE).
 *
 * RBP: the list. RBX: the next command. R13: bytes to copy. Kinds get RDI: address, R8: value; they may use all but RBX, RBP, RSP, R13.
 */
#ifndef TESTS_API_DIRTY_STORES_H
#define TESTS_API_DIRTY_STORES_H

#include <stdint.h>

#define PORT_DONE 0x80
#define PORT_IN	  0x81

#define VECTOR_INT 0x40
#define VECTOR_IPI 0x41

/* What a command does, and in which pages from that of its address on it writes: NEXT: in that and the next. */
enum reach { ONE, NEXT, SPAN, TABLE_ONLY, TABLE_TOO, GDT_ONLY, NOTHING };

#define STORES(X)                                                                                  \
	X(MOV_8, ONE, "mov [rdi+5], al\n")                                                         \
	X(MOV_64, ONE, "mov [rdi+64], rax\n")                                                      \
	X(MOV_IMM, ONE, "mov dword ptr [rdi+8], 77\n")                                             \
	X(INC, ONE, "inc byte ptr [rdi]\n")                                                        \
	X(ADD, ONE, "add [rdi+4088], rax\n")                                                       \
	X(NEG, ONE, "neg dword ptr [rdi+3]\n")                                                     \
	X(SHIFT, ONE, "rol word ptr [rdi+3], 3\n")                                                 \
	X(BTS, ONE, "mov eax, 800\n bts [rdi], eax\n")                                             \
	X(SETCC, ONE, "setz [rdi]\n")                                                              \
	X(XCHG, ONE, "xchg [rdi+16], rax\n")                                                       \
	X(LOCK_XADD, ONE, "lock xadd [rdi+24], rax\n")                                             \
	X(LOCK_INC, ONE, "lock inc dword ptr [rdi]\n")                                             \
	X(LOCK_BTR, ONE, "lock btr dword ptr [rdi], 3\n")                                          \
	X(LOCK_CMPXCHG, ONE, "mov eax, 0x12345\n lock cmpxchg [rdi], rdx\n")                       \
	X(LOCK_CMPXCHG16B, ONE, "push rbx\n lock cmpxchg16b [rdi]\n pop rbx\n")                    \
	X(STOS, ONE, "mov ecx, 64\n rep stosb\n")                                                  \
	X(STOS_WHOLE, ONE, "mov ecx, 512\n rep stosq\n")                                           \
	X(STOS_NEXT, NEXT, "add rdi, 4064\n mov ecx, 64\n rep stosb\n")                            \
	X(STOS_BACK, NEXT, "add rdi, 4111\n mov ecx, 64\n std\n rep stosb\n cld\n")                \
	X(MOVS, ONE, "mov rsi, r13\n mov ecx, 16\n rep movsq\n")                                   \
	X(MOVS_NEXT, NEXT, "lea rdi, [rdi+4091]\n mov rsi, r13\n mov ecx, 16\n rep movsb\n")       \
	X(INS, ONE, "mov edx, 0x81\n mov ecx, 5\n rep insb\n")                                     \
	X(SSE, ONE, "movups [rdi+7], xmm0\n")                                                      \
	X(SSE_NEXT, NEXT, "movups [rdi+4089], xmm0\n")                                             \
	X(SSE_LOW, ONE, "movq [rdi+4088], xmm0\n")                                                 \
	X(STREAM, ONE, "movntdq [rdi+32], xmm0\n")                                                 \
	X(MASKED, ONE,                                                                             \
	  "lea rdi, [rdi+4088]\n mov rax, 0x8080808080808080\n movq xmm1, rax\n maskmovdqu xmm0, " \
	  "xmm1\n")                                                                                \
	X(FXSAVE, ONE, "fxsave64 [rdi]\n")                                                         \
	X(X87, ONE, "fninit\n fld1\n fstp tbyte ptr [rdi]\n")                                      \
	X(SGDT, ONE, "sgdt [rdi]\n")                                                               \
	X(STMXCSR, ONE, "stmxcsr [rdi]\n")                                                         \
	X(MOV_SEG, ONE, "mov [rdi], ds\n")                                                         \
	X(MOV_NEXT, NEXT, "mov [rdi+4093], rax\n")                                                 \
	X(LOCK_NEXT, NEXT, "lock add [rdi+4094], rax\n")                                           \
	X(PUSH, ONE, "mov rdx, rsp\n lea rsp, [rdi+8]\n push rax\n mov rsp, rdx\n")                \
	X(PUSHF, ONE, "mov rdx, rsp\n lea rsp, [rdi+8]\n pushfq\n mov rsp, rdx\n")                 \
	X(PUSH_NEXT, NEXT, "mov rdx, rsp\n lea rsp, [rdi+4100]\n push rax\n mov rsp, rdx\n")       \
	X(POP_MEM, ONE, "push rax\n pop qword ptr [rdi]\n")                                        \
	X(CALL, ONE, "mov rdx, rsp\n lea rsp, [rdi+8]\n call 1f\n1: mov rsp, rdx\n")               \
	X(ENTER, ONE,                                                                              \
	  "mov rdx, rsp\n mov rcx, rbp\n lea rsp, [rdi+64]\n enter 16, 0\n mov rbp, "              \
	  "rcx\n mov rsp, rdx\n")                                                                  \
	X(INT, ONE, "mov rdx, rsp\n lea rsp, [rdi+256]\n int 0x40\n mov rsp, rdx\n")               \
	X(ACCESSED, TABLE_ONLY, "mov al, [rdi]\n")                                                 \
	X(DIRTIED, TABLE_TOO, "mov [rdi], al\n")                                                   \
	X(ACCESSED_BY_REP, TABLE_ONLY, "mov rsi, rdi\n mov ecx, 8\n rep lodsb\n")                  \
	X(DESCRIPTOR, GDT_ONLY, "mov eax, 24\n mov es, eax\n mov eax, 16\n mov es, eax\n")         \
	X(READ, NOTHING, "mov rax, [rdi]\n cmp [rdi+8], rax\n prefetchw [rdi]\n")                  \
	X(STOS_NONE, NOTHING, "xor ecx, ecx\n rep stosq\n")                                        \
	X(SPREAD, SPAN, "mov rcx, r8\n1: mov [rdi], cl\n add rdi, 4096\n dec rcx\n jnz 1b\n")      \
	X(STOS_SPAN, SPAN, "mov rcx, r8\n shl rcx, 12\n rep stosb\n")                              \
	X(WRMSR_PAGE, ONE,                                                                         \
	  "mov ecx, r8d\n mov eax, edi\n or eax, 1\n xor edx, edx\n wrmsr\n cpuid\n"               \
	  "mov rbx, r15\n")                                                                        \
	X(PV_EOI, ONE,                                                                             \
	  "mov ecx, 0x4b564d04\n mov eax, edi\n or eax, 1\n xor edx, edx\n wrmsr\n xor r12d, "     \
	  "r12d\n"                                                                                 \
	  "sti\n mov ecx, 0x83f\n mov eax, 0x41\n wrmsr\n1: test r12d, r12d\n jz 1b\n cli\n"       \
	  "mov ecx, 0x4b564d04\n xor eax, eax\n wrmsr\n")                                          \
	/* From here on with AVX. */                                                               \
	X(AVX, ONE, "vmovups [rdi+1], ymm0\n")                                                     \
	X(AVX_NEXT, NEXT, "vmovups [rdi+4080], ymm0\n")                                            \
	X(AVX_MASKED, ONE, "vpcmpeqd xmm1, xmm1, xmm1\n vmaskmovps [rdi+4080], ymm1, ymm0\n")

#define STORE_NAME(name, reach, text) STORE_##name,
enum store { STORES(STORE_NAME) NR_STORES };
#define FIRST_AVX STORE_AVX

#define STORE_OFFSET(name, reach, text) ".long store_" #name " - store_table\n"
#define STORE_TEXT(name, reach, text)	"store_" #name ":\n" text "ret\n"

asm(".pushsection .rodata\n.intel_syntax noprefix\n"
    "guest_code: mov ecx, 0x80f\n mov eax, 0x1ff\n xor edx, edx\n wrmsr\n"
    "1: mov rax, cr3\n mov cr3, rax\n mov rbx, rbp\n"
    "2: mov rax, [rbx]\n cmp rax, -1\n je 3f\n"
    "mov rdi, [rbx+8]\n mov r8, [rbx+16]\n add rbx, 24\n mov r15, rbx\n"
    "lea r11, [rip+store_table]\n movsxd rax, dword ptr [r11+rax*4]\n add rax, r11\n call rax\n"
    "jmp 2b\n"
    "3: out 0x80, al\n jmp 1b\n"
    "guest_int: iretq\n"
    "guest_ipi: push rax\n push rcx\n push rdx\n mov ecx, 0x80b\n xor eax, eax\n xor edx, edx\n"
    "wrmsr\n pop rdx\n pop rcx\n pop rax\n inc r12d\n iretq\n"
    ".balign 4\nstore_table:\n" STORES(STORE_OFFSET)
	    STORES(STORE_TEXT) "guest_code_end:\n.att_syntax prefix\n.popsection\n");
extern const uint8_t guest_code[], guest_int[], guest_ipi[], guest_code_end[];

#define STORE_REACH(name, reach, text) reach,
static const uint8_t store_reach[] = {STORES(STORE_REACH)};
#define STORE_STRING(name, reach, text) #name,
static const char *const store_names[] = {STORES(STORE_STRING)};

#endif
