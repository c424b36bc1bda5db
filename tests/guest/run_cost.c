/* SPDX-License-Identifier: MIT */
/*
 * What translated code costs: host instructions that it executes per guest instruction, for a few kernels.
 *
 *	run-cost TABLE		compare with the table: dearer by more than 2 % fails
 *	run-cost --write	print a new table
 *	run-cost --show KERNEL	the host instructions one by one, with how often each ran
 *
 * Each kernel is known guest code on the flat machine. It runs until all is translated, hot and chained, and once
 * more under the host's trap flag: what is counted are the instructions that lie in the code cache. So the figures
 * are exact and the same on each run, whatever the machine is busy with.
 */
#include "guest_asm.h"
#include "silicon/exec/exec.h"
#include "silicon/exec/run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define HOST_TF	 0x100
#define SLACK	 1.02
#define MAX_ROWS 32

/* ---- kernels; RCX rounds, RSI data, RDI more data ---- */

/* Counting begins, and ends, at a read that the machine answers. */
#define COUNT32 "mov edx,0xf1000000; mov edx,[edx]\n"
#define COUNT	"mov r10d,0xf1000000; mov r10d,[r10]\n"

/* A CRC of 4 bytes a round, by bits. */
GUEST(crc, 64,
      COUNT "mov rbp,rcx\n"
	    "1: mov r8d,4\n"
	    "2: movzx edx,byte ptr [rsi+r8]; xor eax,edx; mov ecx,8\n"
	    "3: mov edx,eax; shr eax,1; and edx,1; je 4f; xor eax,0xa001\n"
	    "4: dec ecx; jne 3b; dec r8d; jne 2b; dec rbp; jne 1b; " COUNT "hlt");

/* One row of a matrix product: loads from two arrays, a sum in a third. */
GUEST(matrix, 64,
      COUNT "1: xor r8d,r8d; xor eax,eax\n"
	    "2: mov edx,[rsi+r8*4]; imul edx,[rdi+r8*4]; add eax,edx; add r8,1; cmp r8,24; jne 2b\n"
	    "mov [rsi+rcx*4+0x200],eax; dec rcx; jne 1b; " COUNT "hlt");

GUEST(chase, 64, COUNT "1: mov eax,[rsi+rax*4]; sub rcx,1; jne 1b; " COUNT "hlt");

/* Nodes of a list: three fields of each, one of them written. */
GUEST(list, 64,
      COUNT
      "1: mov rdx,rsi\n"
      "2: mov eax,[rdx+8]; add eax,[rdx+12]; mov [rdx+16],eax; mov rdx,[rdx]; test rdx,rdx; jne "
      "2b\n"
      "dec rcx; jne 1b; " COUNT "hlt");

GUEST(dot, 64,
      COUNT "1: xor r8d,r8d\n"
	    "2: movaps xmm4,[rsi+r8]; mulps xmm4,[rdi+r8]; addps xmm0,xmm4\n"
	    "movaps xmm5,[rsi+r8+16]; mulps xmm5,[rdi+r8+16]; addps xmm1,xmm5\n"
	    "movaps xmm4,[rsi+r8+32]; mulps xmm4,[rdi+r8+32]; addps xmm2,xmm4\n"
	    "movaps xmm5,[rsi+r8+48]; mulps xmm5,[rdi+r8+48]; addps xmm3,xmm5\n"
	    "add r8,64; cmp r8,1024; jne 2b; dec rcx; jne 1b; " COUNT "hlt");

/* The same with the sums in memory, by a loop within a loop: what the outer one sets is known in the inner one. */
GUEST(inner, 64,
      COUNT "lea rbx,[rdi+0x800]; 1: mov rdx,rsi; mov r9,rdi; mov r10d,16\n"
	    "2: xor eax,eax\n"
	    "3: movaps xmm0,[rdx+rax]; mulps xmm0,[r9+rax]; addps xmm0,[rbx+rax]\n"
	    "movaps [rbx+rax],xmm0; add rax,16; cmp rax,64; jne 3b\n"
	    "add rdx,64; add r9,64; dec r10d; jne 2b; dec rcx; jne 1b; " COUNT "hlt");

/* fib(10) as a compiler makes it. */
GUEST(fib, 64,
      COUNT
      "1: mov edi,10; push rcx; call 2f; pop rcx; dec ecx; jne 1b; " COUNT "hlt\n"
      "2: cmp rdi,1; jbe 4f; push r12; mov r12,rdi; push rbp; xor ebp,ebp; push rbx; mov rbx,rdi\n"
      "3: lea rdi,[rbx-1]; sub rbx,2; call 2b; add rbp,rax; cmp rbx,1; ja 3b\n"
      "and r12d,1; pop rbx; lea rax,[r12+rbp]; pop rbp; pop r12; ret\n"
      "4: mov eax,1; ret");

/* Bytecodes by a table of addresses, which the code makes for itself. */
GUEST(interp, 64,
      COUNT "lea rax,[rip+1f]; mov [rdi],rax; lea rax,[rip+2f]; mov [rdi+8],rax\n"
	    "lea rax,[rip+3f]; mov [rdi+16],rax; lea rax,[rip+4f]; mov [rdi+24],rax\n"
	    "mov r9,rcx; mov rax,1; mov rbx,3; mov dword ptr [rsi],0x00020100; mov dword ptr "
	    "[rsi+4],0x03010201\n"
	    "5: xor edx,edx; movzx ecx,byte ptr [rsi+rdx]; add rdx,1; jmp [rdi+rcx*8]\n"
	    "1: add rax,1; movzx ecx,byte ptr [rsi+rdx]; add rdx,1; jmp [rdi+rcx*8]\n"
	    "2: lea rax,[rax+rax*4]; movzx ecx,byte ptr [rsi+rdx]; add rdx,1; jmp [rdi+rcx*8]\n"
	    "3: xor rax,rbx; movzx ecx,byte ptr [rsi+rdx]; add rdx,1; jmp [rdi+rcx*8]\n"
	    "4: sub r9,1; jne 5b; " COUNT "hlt");

/* Calls through a table, with leaves that do little. */
GUEST(icall, 64,
      COUNT
      "lea rax,[rip+3f]; mov [rdi],rax; lea rax,[rip+4f]; mov [rdi+8],rax; mov eax,5; mov ebx,ecx\n"
      "1: mov rdx,rax; shr rdx,2; and edx,1; call [rdi+rdx*8]; dec ebx; jne 1b; " COUNT "hlt\n"
      "3: add rax,1; ret\n"
      "4: lea rax,[rax+rax*2]; ret");

GUEST(atomic, 64,
      COUNT "1: lock add qword ptr [rsi],3; mov rax,rcx; lock cmpxchg [rsi+8],rcx\n"
	    "mov edx,1; lock xadd [rsi],rdx; xchg [rsi+16],rdx; dec rcx; jne 1b; " COUNT "hlt");

/* crc and fib again as flat 32-bit code. */
GUEST(crc32b, 32,
      COUNT32 "mov ebp,ecx\n"
	      "1: mov edi,4\n"
	      "2: movzx edx,byte ptr [esi+edi]; xor eax,edx; mov ecx,8\n"
	      "3: mov edx,eax; shr eax,1; and edx,1; je 4f; xor eax,0xa001\n"
	      "4: dec ecx; jne 3b; dec edi; jne 2b; dec ebp; jne 1b; " COUNT32 "hlt");

GUEST(fib32b, 32,
      COUNT32
      "1: mov eax,10; push ecx; call 2f; pop ecx; dec ecx; jne 1b; " COUNT32 "hlt\n"
      "2: cmp eax,1; jbe 4f; push edi; mov edi,eax; push ebp; xor ebp,ebp; push ebx; mov ebx,eax\n"
      "3: lea eax,[ebx-1]; sub ebx,2; call 2b; add ebp,eax; cmp ebx,1; ja 3b\n"
      "and edi,1; pop ebx; lea eax,[edi+ebp]; pop ebp; pop edi; ret\n"
      "4: mov eax,1; ret");

static const struct kernel {
	const char *name;
	const uint8_t *code, *end;
	unsigned rounds;
	bool code32;
} kernels[] = {
#define KERNEL(name, ...)                            \
	{                                            \
#name, name, name##_end, __VA_ARGS__ \
	}
	KERNEL(crc, 20),    KERNEL(matrix, 20), KERNEL(chase, 500),	  KERNEL(list, 40),
	KERNEL(dot, 10),    KERNEL(inner, 10),	KERNEL(fib, 2),		  KERNEL(interp, 60),
	KERNEL(icall, 100), KERNEL(atomic, 50), KERNEL(crc32b, 20, true), KERNEL(fib32b, 2, true),
};

/* ---- counting ---- */

static struct {
	const uint8_t *code;
	uint32_t size, used;
	bool on;
	uint32_t *ran; /* by offset in the code cache */
} count;

/*
 * The trap flag comes up at the first signal, which is raised, and goes down at the first trap after counting. It is up
 * within cpu_run() only: at its entry signals are blocked.
 */
static void on_trap(int signo, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint64_t at = uc->uc_mcontext.gregs[REG_RIP] - (uint64_t)count.code;

	if (count.on && at < count.size)
		count.ran[at]++;
	if (count.on)
		uc->uc_mcontext.gregs[REG_EFL] |= HOST_TF;
	else
		uc->uc_mcontext.gregs[REG_EFL] &= ~HOST_TF;
}

static uint64_t toggle(struct flat *f, gpa_t gpa, unsigned size)
{
	struct sigaction sa = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	if (!count.ran)
		return 0;
	count.on = !count.on;
	/* cpu_run() put its own handler there. */
	if (count.on && (sigaction(SIGTRAP, &sa, NULL) || raise(SIGTRAP)))
		abort();
	return 0;
}

static struct flat *machine(const struct kernel *k)
{
	struct flat *f = flat_new(FLAT_RAM);

	if (k->code32)
		flat_compat(f);
	else
		flat_long(f);
	f->cpu->exec = exec_create();
	if (!f->cpu->exec || exec_set_tempo(f->cpu, "run"))
		abort();
	f->mmio_in = toggle;
	return f;
}

/* Lists of 16 nodes, a cycle of 64 words. */
static void fill(struct flat *f)
{
	for (unsigned i = 0; i < 64; i++)
		flat_poke(f, FLAT_DATA + 4 * i, (i * 25 + 7) % 64, 4);
	for (unsigned i = 0; i < 16; i++)
		flat_poke(f, FLAT_DATA + 0x1000 + 32 * i, i < 15 ? FLAT_DATA + 0x1020 + 32 * i : 0,
			  8);
}

static uint64_t run_kernel(struct flat *f, const struct kernel *k)
{
	uint64_t before = f->cpu->retired;
	enum cpu_exit_kind kind;

	flat_code(f, k->code, k->end - k->code);
	fill(f);
	f->nr_events = 0;
	f->cpu->gpr[RAX] = 0;
	f->cpu->gpr[RCX] = k->rounds;
	f->cpu->gpr[RSI] = strcmp(k->name, "list") ? FLAT_DATA : FLAT_DATA + 0x1000;
	f->cpu->gpr[RDI] = FLAT_DATA + 0x2000;
	kind = cpu_run(f->cpu);
	if (kind != CPU_EXIT_HLT || flat_handler(f) >= 0) {
		fprintf(stderr, "%s: exit %d at %lx\n", k->name, kind, f->cpu->rip);
		exit(1);
	}
	return f->cpu->retired - before;
}

static uint64_t counted(struct flat *f, const struct kernel *k)
{
	const struct run *run = f->cpu->exec->run;

	count.code = run->code.rx;
	count.used = run->used;
	/* Not all of the cache, which is mostly untouched: room for what is still translated. */
	count.size = min(count.used + RUN_SETTLE, (uint32_t)run->code.size);
	count.ran = calloc(count.size, sizeof(*count.ran));
	if (!count.ran)
		abort();
	return run_kernel(f, k);
}

static uint64_t translated(const struct run *run)
{
	return run->count[COUNT_BLOCK] + run->count[COUNT_TRACE] + run->count[COUNT_PLAIN];
}

/* Until no more is translated: to translate under the trap flag takes long, and is not what is asked. */
static void warm(struct flat *f, const struct kernel *k)
{
	const struct run *run = f->cpu->exec->run;
	uint64_t before = ~0ull;

	for (unsigned quiet = 0; quiet < 2 * RUN_HOT; quiet++) {
		run_kernel(f, k);
		if (translated(run) != before)
			quiet = 0;
		before = translated(run);
	}
}

static double cost(const struct kernel *k, bool keep)
{
	struct flat *f = machine(k);
	uint64_t retired, host = 0;

	warm(f, k);
	retired = counted(f, k);
	for (uint32_t i = 0; i < count.size; i++)
		host += count.ran[i];
	if (!keep) {
		free(count.ran);
		count.ran = NULL;
		exec_destroy(f->cpu->exec);
		f->cpu->exec = NULL;
		flat_free(f);
	}
	return (double)host / retired;
}

/* ---- showing ---- */

static void show(const struct kernel *k)
{
	ZydisDecoder decoder;
	ZydisFormatter formatter;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	char text[128];

	printf("%s: %.2f\n", k->name, cost(k, true));
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_ATT);
	for (uint32_t i = 0; i < count.used; i++) {
		if (!count.ran[i] ||
		    !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, count.code + i, 15, &z, ops)))
			continue;
		ZydisFormatterFormatInstruction(&formatter, &z, ops, z.operand_count_visible, text,
						sizeof(text), i, NULL);
		printf("%8u  %6x  %s\n", count.ran[i], i, text);
	}
}

/* ---- the table ---- */

struct row {
	char name[16];
	double cost;
};

static unsigned read_table(const char *path, struct row *row)
{
	FILE *file = fopen(path, "re");
	char line[128];
	unsigned nr = 0;

	if (!file)
		return 0;
	while (nr < MAX_ROWS && fgets(line, sizeof(line), file))
		if (line[0] != '#' && sscanf(line, "%15s %lf", row[nr].name, &row[nr].cost) == 2)
			nr++;
	fclose(file);
	return nr;
}

static double known(const struct row *row, unsigned nr, const char *name)
{
	for (unsigned i = 0; i < nr; i++)
		if (!strcmp(row[i].name, name))
			return row[i].cost;
	return 0;
}

static int compare(const char *path)
{
	struct row row[MAX_ROWS];
	unsigned nr = read_table(path, row);
	int bad = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(kernels); i++) {
		double is = cost(&kernels[i], false), was = known(row, nr, kernels[i].name);
		bool worse = is > was * SLACK;

		printf("%-8s %6.2f host instructions each, table %6.2f%s\n", kernels[i].name, is,
		       was,
		       worse		  ? ": DEARER"
		       : is < was / SLACK ? ": better; update the table by run-cost --write"
					  : "");
		bad += worse;
	}
	return bad || nr != ARRAY_SIZE(kernels);
}

static void write_table(void)
{
	printf("# Host instructions that translated code executes per guest instruction (run-cost "
	       "--write).\n");
	for (unsigned i = 0; i < ARRAY_SIZE(kernels); i++)
		printf("%s\t%.2f\n", kernels[i].name, cost(&kernels[i], false));
}

static int show_named(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kernels); i++)
		if (!strcmp(kernels[i].name, name)) {
			show(&kernels[i]);
			return 0;
		}
	return 2;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--write")) {
		write_table();
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "--show"))
		return show_named(argv[2]);
	return argc == 2 ? compare(argv[1]) : 2;
}
