/* SPDX-License-Identifier: MIT */
/*
 * Two processors that rewrite each other's code. Each raises the immediates of its half of the functions and of one
 * instruction in the other's loop, by MOV, LOCK ADD and XCHG, publishes the new value behind that, and writes data beside. Each reads what
 * the other published, executes an instruction that serializes, and must get no older value from the code.
 *
 * They run free, or one while the other waits for a port: then each new value must be seen at once, and no epoch that begins
 * by time can hide that a write was missed.
 */
#include "guest_asm.h"
#include "silicon/exec/exec.h"
#include "silicon/mmu/codemap.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define FUNCS	  0x200000ul /* mov $imm,%eax; ret; every 96 bytes, the immediate aligned */
#define NR_FUNCS  128u
#define STRIDE	  96u
#define PUBLISHED 0x300000ul /* by function, 4 bytes; then by loop */
#define OWN	  (PUBLISHED + 4 * NR_FUNCS)
#define LOOPS	  0x180000ul /* of the processors, a page each */
#define MAGIC	  0x5ac0ffee
#define NR_CPUS	  2

/*
 * r8: number of this processor; r9: what it published last; r10: rounds; r11: its patch in the other's loop; r12: functions;
 * r13: published; r14: the other's number; r15: random. HLT at the end; rdi: 0, or what was too old.
 */
GUEST(loop, 64,
      "1: inc r9d\n"
      "imul r15d, r15d, 1664525\n add r15d, 1013904223\n"
      /* A function of its own: raise it by one. */
      "mov eax, r15d\n shr eax, 20\n and eax, 126\n add eax, r8d\n mov esi, eax\n"
      "imul eax, eax, 96\n lea rbx, [r12+rax]\n"
      "mov ecx, [r13+rsi*4]\n inc ecx\n"
      "test r15d, 0x1000\n jz 2f\n"
      "lock add dword ptr [rbx+1], 1\n jmp 3f\n"
      "2: test r15d, 0x2000\n jz 2f\n mov eax, ecx\n xchg [rbx+1], eax\n jmp 3f\n"
      "2: mov [rbx+1], ecx\n"
      "3: mov [r13+rsi*4], ecx\n"
      "inc dword ptr [rbx+8]\n inc dword ptr [rbx+80]\n"
      /* Its patch in the other's loop. */
      "mov [r11], r9d\n mov [r13+r8*4+512], r9d\n"
      /* Functions of the other's. */
      "mov ebp, 4\n"
      "4: imul r15d, r15d, 1664525\n add r15d, 1013904223\n"
      "mov eax, r15d\n shr eax, 20\n and eax, 126\n add eax, r14d\n mov esi, eax\n"
      "imul eax, eax, 96\n lea rbx, [r12+rax]\n"
      "mov edx, [r13+rsi*4]\n"
      "test r15d, 0x1000\n jz 5f\n mov rax, cr3\n mov cr3, rax\n jmp 6f\n"
      "5: invlpg [r12+0x10000000]\n"
      "6: call rbx\n"
      "cmp eax, edx\n jb 8f\n"
      "dec ebp\n jnz 4b\n"
      /* And the instruction here. */
      "mov edx, [r13+r14*4+512]\n"
      "invlpg [r12+0x10000000]\n"
      "mov eax, 0x5ac0ffee\n"
      "cmp eax, edx\n jb 9f\n"
      "dec r10d\n jnz 1b\n"
      "xor edi, edi\n hlt\n"
      "8: mov edi, 1\n hlt\n"
      "9: mov edi, 2\n hlt\n");

static uint64_t from_env(const char *name, uint64_t otherwise)
{
	const char *val = getenv(name);

	return val ? strtoull(val, NULL, 0) : otherwise;
}

/* Where the immediate of the loop's instruction stands. */
static gva_t patch_of(struct flat *f, unsigned cpu)
{
	gva_t at = LOOPS + cpu * PAGE_SIZE;
	uint32_t magic = MAGIC;

	while (memcmp(f->ram + at, &magic, sizeof(magic)))
		at++;
	return at;
}

/* With so many NOPs before it that a store to the instruction is atomic. */
static void load_loop(struct flat *f, unsigned cpu, const uint8_t *code, size_t size)
{
	gva_t at = LOOPS + cpu * PAGE_SIZE;
	unsigned lead;

	flat_write(f, at, code, size);
	lead = -patch_of(f, cpu) & 3;
	memset(f->ram + at, 0x90, lead);
	flat_write(f, at + lead, code, size);
}

static void load_funcs(struct flat *f)
{
	for (unsigned i = 0; i < NR_FUNCS; i++)
		memcpy(f->ram + FUNCS + 3 + i * STRIDE, "\xb8\0\0\0\0\xc3", 6);
}

static void start(struct flat *f, struct codemap *w, unsigned number, gva_t patch, uint64_t rounds)
{
	struct cpu *cpu = f->cpu;
	const char *tempo = getenv("ANYKVM_TEMPO");

	flat_long(f);
	cpu->exec = exec_create();
	assert_non_null(cpu->exec);
	assert_true(codemap_join(w, cpu));
	assert_int_equal(exec_set_tempo(cpu, tempo ? tempo : "run"), 0);
	cpu->rip = LOOPS + number * PAGE_SIZE;
	cpu->gpr[RSP] = FLAT_STACK - number * 0x2000;
	cpu->gpr[8] = number;
	cpu->gpr[9] = 0;
	cpu->gpr[10] = rounds;
	cpu->gpr[11] = patch;
	cpu->gpr[12] = FUNCS + 3;
	cpu->gpr[13] = PUBLISHED;
	cpu->gpr[14] = !number;
	cpu->gpr[15] = from_env("ANYKVM_SEED", 1) + number;
}

static void *run_one(void *arg)
{
	struct flat *f = arg;

	return (void *)(uintptr_t)cpu_run(f->cpu);
}

static void put_back(struct flat *f, uint8_t *ram)
{
	exec_destroy(f->cpu->exec);
	f->cpu->exec = NULL;
	f->ram = ram;
	flat_free(f);
}

static void rewrite_each_other(void **state)
{
	struct flat *f[NR_CPUS] = {flat_new(FLAT_RAM), flat_new(FLAT_RAM)};
	uint64_t rounds = from_env("ANYKVM_ROUNDS", 4000);
	uint8_t *ram = f[1]->ram;
	struct codemap *w = codemap_create();
	pthread_t thread[NR_CPUS];
	uint32_t zero = 0;

	assert_non_null(w);
	f[1]->ram = f[0]->ram;
	for (unsigned i = 0; i < NR_CPUS; i++)
		load_loop(f[0], i, loop, loop_end - loop);
	load_funcs(f[0]);
	for (unsigned i = 0; i < NR_CPUS; i++)
		start(f[i], w, i, patch_of(f[0], !i), rounds);
	for (unsigned i = 0; i < NR_CPUS; i++)
		memcpy(f[0]->ram + f[i]->cpu->gpr[11], &zero, sizeof(zero));
	for (unsigned i = 0; i < NR_CPUS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, run_one, f[i]), 0);
	for (unsigned i = 0; i < NR_CPUS; i++) {
		void *kind;

		pthread_join(thread[i], &kind);
		assert_int_equal((uintptr_t)kind, CPU_EXIT_HLT);
		assert_int_equal(f[i]->cpu->gpr[RDI], 0);
		assert_int_equal(f[i]->cpu->gpr[10], 0);
	}
	put_back(f[1], ram);
	put_back(f[0], f[0]->ram);
	codemap_destroy(w);
}

/* ---- in turn, on one thread ---- */

/*
 * EAX: the function that the other has written to meanwhile. The loop's own instruction is written to, too. What
 * serializes here flushes no page of code, for newly mapped ones are compared.
 */
GUEST(reader, 64,
      "1: in eax, 0x80\n"
      "mov esi, [r13+rax*4]\n"
      "imul eax, eax, 96\n lea rbx, [r12+rax]\n"
      "invlpg [r12+0x10000000]\n"
      "mov eax, 0x5ac0ffee\n"
      "cmp eax, esi\n jne 9f\n"
      /* WRMSR of FS.base */
      "test r10d, 1\n jz 2f\n xor eax, eax\n xor edx, edx\n mov ecx, 0xc0000100\n wrmsr\n"
      "2: call rbx\n"
      "cmp eax, esi\n jne 9f\n"
      "dec r10d\n jnz 1b\n"
      "xor edi, edi\n hlt\n"
      "9: mov edi, 1\n hlt\n");

/* RBX: the function; ECX: its new value; R11: the patch. */
GUEST(writer, 64,
      "mov eax, ecx\n test ecx, 2\n jz 1f\n mov [rbx+1], ecx\n jmp 2f\n"
      "1: xchg [rbx+1], eax\n"
      "2: inc dword ptr [rbx+8]\n inc dword ptr [rbx+80]\n"
      "test ecx, 1\n jz 3f\n lock inc dword ptr [r11]\n hlt\n"
      "3: mov [r11], ecx\n hlt\n");

static uint64_t run_writer(struct flat *f, uint16_t port, unsigned size)
{
	struct flat *other = f->opaque;
	struct cpu *cpu = other->cpu;
	uint32_t number = cpu->gpr[9]++ % 3 ? cpu->gpr[9] % NR_FUNCS : 5;

	f->nr_events = 0;
	cpu->gpr[RCX]++;
	cpu->gpr[RBX] = FUNCS + 3 + number * STRIDE;
	cpu->activity = ACTIVITY_RUN;
	cpu->rip = LOOPS + PAGE_SIZE;
	assert_int_equal(cpu_run(cpu), CPU_EXIT_HLT);
	flat_poke(other, PUBLISHED + 4 * number, cpu->gpr[RCX], 4);
	return number;
}

static void rewrite_in_turn(void **state)
{
	struct flat *f[NR_CPUS] = {flat_new(FLAT_RAM), flat_new(FLAT_RAM)};
	uint8_t *ram = f[1]->ram;
	struct codemap *w = codemap_create();

	f[1]->ram = f[0]->ram;
	load_loop(f[0], 0, reader, reader_end - reader);
	flat_write(f[0], LOOPS + PAGE_SIZE, writer, writer_end - writer);
	load_funcs(f[0]);
	start(f[0], w, 0, 0, from_env("ANYKVM_ROUNDS", 4000));
	start(f[1], w, 1, patch_of(f[0], 0), 0);
	f[1]->cpu->gpr[RCX] = 0;
	flat_poke(f[0], f[1]->cpu->gpr[11], 0, 4);
	f[0]->opaque = f[1];
	f[0]->port_in = run_writer;
	assert_int_equal(cpu_run(f[0]->cpu), CPU_EXIT_HLT);
	assert_int_equal(f[0]->cpu->gpr[RDI], 0);
	assert_int_equal(f[0]->cpu->gpr[10], 0);
	put_back(f[1], ram);
	put_back(f[0], f[0]->ram);
	codemap_destroy(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(rewrite_in_turn),
					   cmocka_unit_test(rewrite_each_other)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
