/* SPDX-License-Identifier: MIT */
/*
 * What kernels do all the time, in loops that are translated: the interrupt flag and its shadow, PUSHF, SMAP's window,
 * time, strings, system calls, control registers. Each by the SDM's words, in all tempos.
 */
#include "guest_asm.h"
#include "silicon/exec/exec.h"
#include "silicon/mmu/pte.h"
#include "silicon/models/model.h"

#include <string.h>
#include <sys/mman.h>
#include <x86intrin.h>

#include <cmocka.h>

#define ROUNDS 40
#define VECTOR 0x40

static enum cpu_exit_kind go(struct flat *f)
{
	f->cpu->gpr[RCX] = ROUNDS;
	f->cpu->retired = 0;
	return cpu_run(f->cpu);
}

/* ---- the interrupt flag ---- */

/* The port's reader pends an interrupt in its tenth read. */
static uint64_t pends(struct flat *f, uint16_t port, unsigned size)
{
	unsigned *nr = f->opaque;

	if (++*nr == 10)
		pend_interrupt(f, VECTOR);
	return 0;
}

static struct flat *pending_machine(unsigned *nr)
{
	struct flat *f = tempo_machine();

	*nr = 0;
	f->opaque = nr;
	f->port_in = pends;
	f->cpu->gpr[RBX] = 0;
	return f;
}

GUEST(opens, 64,
      "1: cli; in al,0x10; sti; opens_inc: inc rbx; opens_nop: nop; dec ecx; jnz 1b; hlt");
extern const uint8_t opens_inc[], opens_nop[];

/* STI lets the next instruction run, then the interrupt in. */
static void sti_has_a_shadow(void **state)
{
	unsigned nr;
	struct flat *f = pending_machine(&nr);

	load(f, opens);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VECTOR);
	assert_int_equal(f->cpu->gpr[RBX], 10);
	assert_int_equal(on_stack(f, 0, 8), FLAT_CODE + (opens_nop - opens));
	assert_true(on_stack(f, 2, 8) & FLAG_IF);
	assert_int_equal(f->cpu->retired, 9 * 7 + 4 + 1);
	flat_free(f);
}

GUEST(open_twice, 64,
      "1: cli; in al,0x10; sti; sti; open_twice_inc: inc rbx; nop; dec ecx; jnz 1b; hlt");
extern const uint8_t open_twice_inc[];

/* A second STI in a row does not prolong it. */
static void sti_twice(void **state)
{
	unsigned nr;
	struct flat *f = pending_machine(&nr);

	load(f, open_twice);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VECTOR);
	assert_int_equal(f->cpu->gpr[RBX], 9);
	assert_int_equal(on_stack(f, 0, 8), FLAT_CODE + (open_twice_inc - open_twice));
	flat_free(f);
}

GUEST(open_already, 64,
      "sti; nop; 1: in al,0x10; open_already_next: sti; inc rbx; dec ecx; jnz 1b; hlt");
extern const uint8_t open_already_next[];

/* Where IF is open there is no shadow. */
static void sti_open(void **state)
{
	unsigned nr;
	struct flat *f = pending_machine(&nr);

	load(f, open_already);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VECTOR);
	assert_int_equal(f->cpu->gpr[RBX], 9);
	assert_int_equal(on_stack(f, 0, 8), FLAT_CODE + (open_already_next - open_already));
	flat_free(f);
}

GUEST(opens_and_faults, 64,
      "1: cli; in al,0x10; sti; opens_load: mov rax,[rdx]; inc rbx; cmp ebx,9; jne 2f; mov "
      "edx,0xfff000; 2: dec ecx; jnz 1b; hlt");
extern const uint8_t opens_load[];

/* The instruction in the shadow faults: its fault goes first, and the interrupt waits for the handler to end. */
static void sti_then_fault(void **state)
{
	unsigned nr;
	struct flat *f = pending_machine(&nr);

	flat_map(f, 0xfff000, 0xfff000, 0, PAGE_SIZE);
	mmu_flush_all(f->cpu);
	f->cpu->gpr[RDX] = FLAT_DATA;
	load(f, opens_and_faults);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_PF);
	assert_int_equal(f->cpu->cr2, 0xfff000);
	assert_int_equal(on_stack(f, 1, 8), FLAT_CODE + (opens_load - opens_and_faults));
	assert_true(on_stack(f, 3, 8) & FLAG_IF);
	assert_int_equal(f->interrupt, VECTOR);
	assert_int_equal(f->cpu->shadow, 0);
	flat_free(f);
}

GUEST(opens_and_asks, 64,
      "1: cli; in al,0x10; mov r8d,ecx; sti; cpuid; opens_asked: inc rbp; mov ecx,r8d; "
      "dec ecx; jnz 1b; hlt");
extern const uint8_t opens_asked[];

/* The same before an instruction that is no other than its handler. */
static void sti_then_handler(void **state)
{
	unsigned nr;
	struct flat *f = pending_machine(&nr);

	f->cpu->gpr[RBP] = 0;
	load(f, opens_and_asks);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VECTOR);
	assert_int_equal(f->cpu->gpr[RBP], 9);
	assert_int_equal(on_stack(f, 0, 8), FLAT_CODE + (opens_asked - opens_and_asks));
	assert_int_equal(f->cpu->shadow, 0);
	flat_free(f);
}

GUEST(opens_and_halts, 64,
      "1: cli; in al,0x10; cmp ecx,1; jne 2f; sti; hlt; 2: dec ecx; jnz 1b; hlt");

/* The window opens behind HLT: it halts first. */
static void sti_hlt(void **state)
{
	unsigned nr;
	struct flat *f = pending_machine(&nr);

	load(f, opens_and_halts);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), -1);
	assert_int_equal(f->cpu->shadow, 0);
	f->cpu->activity = ACTIVITY_RUN;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VECTOR);
	flat_free(f);
}

/* ---- PUSHF ---- */

GUEST(images, 64,
      "1: push rbx; popfq; pushfq; pop r14; add rdi,8; mov [rdi],r14; "
      "mov rbx,[rsi+rcx*8]; dec ecx; jnz 1b; hlt");

/* What PUSHF shows is what POPF took, with bit 1 set and the others that POPF ignores as they were. */
static void pushf_images(void **state)
{
	static const uint64_t bits = FLAGS_ARITH | FLAG_DF | FLAG_IF | FLAG_ID | FLAG_AC | FLAG_NT |
				     FLAG_IOPL;
	struct flat *f = tempo_machine();
	uint64_t val = 0x123456789abcdef, want[ROUNDS];

	for (unsigned i = 0; i < ROUNDS; i++) {
		val = val * 6364136223846793005ull + 1442695040888963407ull;
		want[i] = (val >> 20) & bits;
		flat_poke(f, FLAT_DATA + 8 * (ROUNDS - i + 1), want[i], 8);
	}
	f->cpu->gpr[RSI] = FLAT_DATA;
	f->cpu->gpr[RDI] = FLAT_DATA + 0x1000;
	f->cpu->gpr[RBX] = 0;
	load(f, images);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	for (unsigned i = 0; i + 1 < ROUNDS; i++)
		assert_int_equal(flat_peek(f, FLAT_DATA + 0x1000 + 8 * (i + 2), 8),
				 flat_peek(f, FLAT_DATA + 8 * (ROUNDS - i), 8) | 2);
	flat_free(f);
}

/* ---- SMAP's window ---- */

GUEST(window, 64,
      "1: stac; add rax,[rdx]; clac; inc rbx; dec ecx; jnz 1b; clac; window_load: mov rax,[rdx]; "
      "hlt");
extern const uint8_t window_load[];

static void stac_and_clac(void **state)
{
	struct flat *f = tempo_machine();

	flat_supervisor(f);
	flat_set_cr4(f, f->cpu->cr4 | CR4_SMAP);
	flat_poke(f, 0x400000, 3, 8);
	f->cpu->gpr[RDX] = 0x400000;
	f->cpu->gpr[RAX] = f->cpu->gpr[RBX] = 0;
	load(f, window);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_PF);
	assert_int_equal(f->cpu->cr2, 0x400000);
	assert_int_equal(on_stack(f, 0, 8), 1); /* protection, read, supervisor */
	assert_int_equal(on_stack(f, 1, 8), FLAT_CODE + (window_load - window));
	assert_false(on_stack(f, 3, 8) & FLAG_AC);
	assert_int_equal(f->cpu->gpr[RAX], 3 * ROUNDS);
	assert_int_equal(f->cpu->retired, 6 * ROUNDS + 1 + 1);
	flat_free(f);
}

/* Without SMAP the flag alone changes. */
static void stac_without_smap(void **state)
{
	struct flat *f = tempo_machine();

	flat_set_cr4(f, f->cpu->cr4 & ~CR4_SMAP);
	flat_poke(f, 0x400000, 3, 8);
	f->cpu->gpr[RDX] = 0x400000;
	f->cpu->gpr[RAX] = f->cpu->gpr[RBX] = 0;
	load(f, window);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), -1);
	assert_int_equal(f->cpu->gpr[RAX], 3);
	assert_false(f->cpu->sflags & FLAG_AC);
	assert_int_equal(f->cpu->gpr[RBX], ROUNDS);
	flat_free(f);
}

/* ---- time ---- */

GUEST(reads_time, 64,
      "1: stc; rdtsc; jnc 2f; shl rdx,32; or rdx,rax; mov [rdi+rcx*8],rdx; dec ecx; jnz 1b; 2: "
      "hlt");

static void tsc_of_the_platform(void **state)
{
	struct flat *f = tempo_machine();

	f->cpu->gpr[RDI] = FLAT_DATA;
	f->tsc = 0x123456789a;
	load(f, reads_time);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	for (unsigned i = 1; i <= ROUNDS; i++)
		assert_int_equal(flat_peek(f, FLAT_DATA + 8 * (ROUNDS + 1 - i), 8),
				 0x123456789a + 100 * i);
	flat_free(f);
}

static void tsc_of_the_host(void **state)
{
	uint64_t offset = -__rdtsc() - 0x100000000, before, last = 0;
	struct flat *f = tempo_machine();

	f->cpu->tsc_offset = &offset;
	f->cpu->gpr[RDI] = FLAT_DATA;
	load(f, reads_time);
	last = before = __rdtsc() + offset;
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RCX], 0);
	for (unsigned i = ROUNDS; i > 0; i--) {
		uint64_t val = flat_peek(f, FLAT_DATA + 8 * i, 8);

		assert_true(val - before >= last - before);
		last = val;
	}
	assert_true(last - before <= __rdtsc() + offset - before);
	flat_free(f);
}

GUEST(reads_time_slowly, 64,
      "1: rdtscp; mov r13,rcx; mov ecx,ebx; mov [rdi+rbx*8],r13; dec ebx; jnz 1b; hlt");

static void tsc_aux(void **state)
{
	uint64_t offset = 0;
	struct flat *f = tempo_machine();

	f->cpu->tsc_offset = &offset;
	f->cpu->msr.tsc_aux = 0xfedcba98;
	f->cpu->gpr[RDI] = FLAT_DATA;
	f->cpu->gpr[RBX] = ROUNDS;
	load(f, reads_time_slowly);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	for (unsigned i = 1; i <= ROUNDS; i++)
		assert_int_equal(flat_peek(f, FLAT_DATA + 8 * i, 8), 0xfedcba98);
	flat_free(f);
}

/* CR4.TSD leaves time to CPL 0. */
static void tsc_refused(void **state)
{
	uint64_t offset = 0;
	struct flat *f = tempo_machine();

	f->cpu->tsc_offset = &offset;
	flat_user(f);
	f->cpu->gpr[RDI] = FLAT_DATA;
	load(f, reads_time);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_GP); /* of HLT */
	assert_int_equal(f->cpu->gpr[RCX], 0);
	flat_free(f);

	f = tempo_machine();
	f->cpu->tsc_offset = &offset;
	flat_user(f);
	flat_set_cr4(f, f->cpu->cr4 | CR4_TSD);
	load(f, reads_time);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_GP);
	assert_int_equal(f->cpu->gpr[RCX], ROUNDS);
	flat_free(f);
}

/* ---- strings ---- */

GUEST(moves, 64,
      "1: mov rsi,r8; mov rdi,r9; mov rcx,r10; rep movsb; add rbx,rdi; mov rcx,r11; rep stosq; "
      "add rbx,rdi; add r8,0x331; add r9,0x457; add r10,7; inc r11; dec edx; jnz 1b; hlt");

/* Counts and places of all kinds, over pages, too. */
static void string_loop(void **state)
{
	struct flat *f = tempo_machine();
	uint8_t *want = malloc(0x60000);
	uint64_t src = 0x101, dst = 0x1f0e0, count = 0, words = 0, sum = 0;

	for (unsigned i = 0; i < 0x60000; i++)
		f->ram[FLAT_DATA + i] = want[i] = i * 7 + (i >> 8);
	f->cpu->gpr[R8] = FLAT_DATA + src;
	f->cpu->gpr[R9] = FLAT_DATA + dst;
	f->cpu->gpr[R10] = f->cpu->gpr[R11] = f->cpu->gpr[RBX] = 0;
	f->cpu->gpr[RDX] = 4 * ROUNDS;
	f->cpu->gpr[RAX] = 0x1122334455667788;
	for (unsigned i = 0; i < 4 * ROUNDS; i++) {
		for (unsigned k = 0; k < count; k++)
			want[dst + k] = want[src + k];
		sum += FLAT_DATA + dst + count;
		for (unsigned k = 0; k < words; k++)
			memcpy(want + dst + count + 8 * k, &f->cpu->gpr[RAX], 8);
		sum += FLAT_DATA + dst + count + 8 * words;
		src += 0x331, dst += 0x457, count += 7, words++;
	}
	load(f, moves);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_memory_equal(f->ram + FLAT_DATA, want, 0x60000);
	assert_true(f->cpu->gpr[RBX] == sum);
	assert_int_equal(f->cpu->retired, 14 * 4 * ROUNDS + 1);
	free(want);
	flat_free(f);
}

GUEST(moves_once, 64, "1: mov rsi,r8; mov rdi,r9; mov ecx,8; rep movsd; dec edx; jnz 1b; hlt");

/* The program takes the destination away: registers are those of a string that has not begun. */
static void string_without_memory(void **state)
{
	struct flat *f = tempo_machine();
	uint8_t *page = f->ram + FLAT_DATA + 0x1000;

	f->cpu->gpr[R8] = FLAT_DATA;
	f->cpu->gpr[R9] = FLAT_DATA + 0x1080;
	f->cpu->gpr[RDX] = ROUNDS;
	load(f, moves_once);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal((uintptr_t)page & ~PAGE_MASK, 0);
	assert_int_equal(mprotect(page, PAGE_SIZE, PROT_NONE), 0);
	f->cpu->gpr[RDX] = ROUNDS;
	load(f, moves_once);
	assert_int_equal(go(f), CPU_EXIT_MEMORY);
	assert_int_equal(mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(f->cpu->gpr[RDX], ROUNDS);
	assert_int_equal(f->cpu->gpr[RCX], 8);
	assert_int_equal(f->cpu->gpr[RSI], FLAT_DATA);
	assert_int_equal(f->cpu->gpr[RDI], FLAT_DATA + 0x1080);
	assert_int_equal(f->cpu->retired, 3);
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RDX], 0);
	flat_free(f);
}

#define SCATTERED	0x40000000ul
#define SCATTERED_PAGES 8u
#define MOVES(suffix)                                             \
	"1: mov rsi,r8; mov rdi,r9; mov rcx,r10; rep movs" suffix \
	"; mov ecx,ebx; dec ebx; jnz 1b; hlt"

GUEST(moves_b, 64, MOVES("b"));
GUEST(moves_w, 64, MOVES("w"));
GUEST(moves_d, 64, MOVES("d"));
GUEST(moves_q, 64, MOVES("q"));

/* Neighbours in some places, and in others not. */
static gpa_t frame_of(unsigned page)
{
	static const uint8_t frames[SCATTERED_PAGES] = {4, 5, 0, 7, 1, 2, 3, 6};

	return FLAT_DATA + frames[page] * PAGE_SIZE;
}

static struct flat *scattered_machine(uint8_t *ret_bytes)
{
	struct flat *f = tempo_machine();

	for (unsigned i = 0; i < SCATTERED_PAGES * PAGE_SIZE; i++)
		ret_bytes[i] = i * 7 + (i >> 8);
	for (unsigned i = 0; i < SCATTERED_PAGES; i++) {
		flat_map(f, SCATTERED + i * PAGE_SIZE, frame_of(i), PTE_P | PTE_W, PAGE_SIZE);
		flat_write(f, frame_of(i), ret_bytes + i * PAGE_SIZE, PAGE_SIZE);
	}
	f->cpu->gpr[RBX] = ROUNDS;
	return f;
}

static void expect_scattered(struct flat *f, const uint8_t *want)
{
	for (unsigned i = 0; i < SCATTERED_PAGES; i++)
		assert_memory_equal(f->ram + frame_of(i), want + i * PAGE_SIZE, PAGE_SIZE);
}

static void move(uint8_t *bytes, uint64_t dst, uint64_t src, uint64_t n, unsigned size)
{
	for (uint64_t k = 0; k < n; k++)
		memmove(bytes + dst + k * size, bytes + src + k * size, size);
}

/* Over pages that are and that are not each other's neighbours in memory, on itself, out of step with the pages. */
static void string_over_pages(void **state)
{
	static const struct {
		const uint8_t *code, *end;
	} loops[] = {{moves_b, moves_b_end},
		     {moves_w, moves_w_end},
		     {moves_d, moves_d_end},
		     {moves_q, moves_q_end}};
	static const int distances[] = {1, 3, 8, 0x123, 0x1800, 0x2008, -1, -0x10};
	uint8_t *want = malloc(SCATTERED_PAGES * PAGE_SIZE);

	for (unsigned i = 0; i < 4 * ARRAY_SIZE(distances); i++) {
		unsigned log2 = i % 4, n = 0x4321 >> log2;
		uint64_t src = 0x10f3, dst = src + distances[i / 4];
		struct flat *f = scattered_machine(want);

		f->cpu->gpr[R8] = SCATTERED + src;
		f->cpu->gpr[R9] = SCATTERED + dst;
		f->cpu->gpr[R10] = n;
		for (unsigned k = 0; k < ROUNDS; k++)
			move(want, dst, src, n, 1 << log2);
		flat_code(f, loops[log2].code, loops[log2].end - loops[log2].code);
		assert_int_equal(go(f), CPU_EXIT_HLT);
		expect_scattered(f, want);
		assert_int_equal(f->cpu->gpr[RSI], SCATTERED + src + (n << log2));
		assert_int_equal(f->cpu->gpr[RDI], SCATTERED + dst + (n << log2));
		assert_int_equal(f->cpu->retired, 7 * ROUNDS + 1);
		flat_free(f);
	}
	free(want);
}

/* A page goes when the loop is translated: all before it is done, the image has RF and the rest is left. */
static void string_faults(void **state)
{
	uint8_t *want = malloc(SCATTERED_PAGES * PAGE_SIZE);
	struct flat *f = scattered_machine(want);
	uint64_t src = 0x10f3, dst = 0x2ffa, done = (0x5000 - dst) / 4;

	f->cpu->gpr[R8] = SCATTERED + src;
	f->cpu->gpr[R9] = SCATTERED + dst;
	f->cpu->gpr[R10] = 0xc00;
	load(f, moves_d);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	for (unsigned k = 0; k < ROUNDS; k++)
		move(want, dst, src, 0xc00, 4);
	expect_scattered(f, want);
	flat_map(f, SCATTERED + 0x5000, 0, 0, PAGE_SIZE);
	mmu_flush_all(f->cpu);
	f->cpu->gpr[RBX] = ROUNDS;
	load(f, moves_d);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_PF);
	assert_int_equal(f->cpu->cr2, SCATTERED + 0x5000);
	assert_int_equal(f->cpu->gpr[RBX], ROUNDS);
	assert_int_equal(f->cpu->gpr[RCX], 0xc00 - done);
	assert_int_equal(f->cpu->gpr[RSI], SCATTERED + src + 4 * done);
	assert_int_equal(f->cpu->gpr[RDI], SCATTERED + dst + 4 * done);
	assert_true(on_stack(f, 3, 8) & FLAG_RF);
	move(want, dst, src, done, 4);
	expect_scattered(f, want);
	flat_free(f);
	free(want);
}

/* ---- system calls ---- */

GUEST(calls, 64,
      "1: mov r8,rcx; mov r15,rcx; push r12; popfq; syscall; calls_back: pushfq; pop r13; mov "
      "rcx,r8; "
      "xor r12,0x40800; dec ecx; jnz 1b; syscall");
GUEST(serves, 64,
      "inc rbx; mov rbp,rcx; pushfq; pop r14; or r9,r14; cmp r15d,1; mov r15d,0; cmp rbx,41; je "
      "1f; "
      "sysretq; 1: hlt");
extern const uint8_t calls_back[];

#define SERVER 0x9000

#define MASKED (FLAG_IF | FLAG_DF | FLAG_AC | FLAG_TF)

static struct flat *serving_machine(uint64_t sfmask, const uint8_t *server, const uint8_t *end)
{
	struct flat *f = tempo_machine();
	struct cpu *cpu = f->cpu;

	cpu->msr.star = (uint64_t)(FLAT_CS32_USER | 3) << 48 | (uint64_t)FLAT_CS64 << 32;
	cpu->msr.lstar = SERVER;
	cpu->msr.sfmask = sfmask;
	flat_set_efer(f, cpu->msr.efer | EFER_SCE);
	flat_write(f, SERVER, server, end - server);
	flat_user(f);
	return f;
}

/* What SYSCALL hands over, what the mask takes away, and what SYSRET brings back, AC and all. */
static void check_system_calls(uint64_t sfmask)
{
	struct flat *f = serving_machine(sfmask, serves, serves_end);
	struct cpu *cpu = f->cpu;

	cpu->gpr[RBX] = cpu->gpr[R9] = 0;
	cpu->gpr[R12] = FLAG_DF | FLAG_ID;
	load(f, calls);
	set_flags(f, FLAG_IF);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(cpu->gpr[RBX], ROUNDS + 1);
	assert_int_equal(cpu->mode.cpl, 0);
	assert_int_equal(cpu->seg[SEG_CS].sel, FLAT_CS64);
	assert_int_equal(cpu->seg[SEG_SS].sel, FLAT_CS64 + 8);
	/* Flags in the kernel: never what the mask has. Back in user mode: the caller's. */
	assert_int_equal(cpu->gpr[R9] & sfmask & ~(uint64_t)FLAGS_ARITH, 0);
	assert_int_equal(cpu->gpr[R9] & FLAG_ID, FLAG_ID);
	assert_int_equal(cpu->gpr[R13] & (FLAG_IF | FLAG_DF | FLAG_AC | FLAG_ID),
			 FLAG_IF | FLAG_DF | FLAG_ID | ((ROUNDS - 1) & 1 ? FLAG_AC : 0));
	/* The last one's return address and flags. */
	assert_int_equal(cpu->gpr[RBP], FLAT_CODE + (calls_end - calls));
	assert_int_equal(cpu->gpr[RCX], FLAT_CODE + (calls_end - calls));
	assert_true(cpu->gpr[R11] & FLAG_IF);
	flat_free(f);
}

static void system_calls(void **state)
{
	check_system_calls(MASKED);
	check_system_calls(MASKED | FLAGS_ARITH);
}

GUEST(calls_flagged, 64,
      "1: cmp r12d,edx; syscall; pushfq; pop rax; add r13,rax; dec r12d; jnz 1b; syscall");
GUEST(sees_flags, 64,
      "pushfq; pop rax; or r9,rax; add r10,r11; inc rbx; cmp rbx,41; je 1f; sysretq; 1: hlt");

/* Arithmetic flags: R11 has the caller's, the server none that the mask has, and the caller its own again. */
static void syscall_arithmetic_flags(void **state)
{
	struct flat *f = serving_machine(MASKED | FLAGS_ARITH, sees_flags, sees_flags_end);
	struct cpu *cpu = f->cpu;

	cpu->gpr[RBX] = cpu->gpr[R9] = cpu->gpr[R10] = cpu->gpr[R13] = 0;
	cpu->gpr[RDX] = ROUNDS / 2;
	cpu->gpr[R12] = ROUNDS;
	load(f, calls_flagged);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(cpu->gpr[RBX], ROUNDS + 1);
	assert_int_equal(cpu->gpr[R9] & FLAGS_ARITH, 0);
	/* The last call is made with DEC's flags, and its server does not return. */
	assert_true(cpu->gpr[R10] - cpu->gpr[R11] == cpu->gpr[R13]);
	assert_int_equal(cpu->gpr[R11] & FLAGS_ARITH, FLAG_ZF | FLAG_PF);
	flat_free(f);
}

#define SECOND 0x9800

GUEST(calls_on, 64, "1: syscall; mov r10d,cs; jmp 1b");
GUEST(moves_on, 64,
      "inc rbx; cmp rbx,50; jne 1f; mov r15,rcx; mov ecx,0xc0000082; mov eax,0x9800; xor edx,edx; "
      "wrmsr; mov rcx,r15; 1: sysretq");
GUEST(closes, 64,
      "inc rsi; mov r15,rcx; cmp rsi,50; jne 1f; mov ecx,0xc0000081; rdmsr; add edx,0x400000; "
      "wrmsr; 1: cmp rsi,90; jne 2f; mov ecx,0xc0000080; rdmsr; and eax,-2; wrmsr; "
      "2: mov rcx,r15; sysretq");

/* LSTAR, STAR and EFER.SCE change between calls of code that is translated. */
static void syscall_settings_change(void **state)
{
	struct flat *f = serving_machine(MASKED | FLAGS_ARITH, moves_on, moves_on_end);
	struct cpu *cpu = f->cpu;

	flat_write(f, SECOND, closes, closes_end - closes);
	cpu->gpr[RBX] = cpu->gpr[RSI] = 0;
	load(f, calls_on);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_UD);
	assert_int_equal(on_stack(f, 0, 8), SECOND + (closes_end - closes) - 3);
	assert_int_equal(cpu->gpr[RBX], 50);
	assert_int_equal(cpu->gpr[RSI], 90);
	assert_int_equal(cpu->gpr[R10], ((FLAT_CS32_USER | 3) + 0x40 + 16) | 3);
	flat_free(f);
}

GUEST(calls_open, 64, "1: syscall; calls_open_inc: inc rbx; jmp 1b");
GUEST(reads_port, 64, "in al,0x10; sysretq");
extern const uint8_t calls_open_inc[];

/* SYSRET opens IF: what waits goes in at once. */
static void sysret_opens(void **state)
{
	struct flat *f = serving_machine(MASKED | FLAGS_ARITH, reads_port, reads_port_end);
	unsigned nr = 0;

	f->opaque = &nr;
	f->port_in = pends;
	f->cpu->gpr[RBX] = 0;
	load(f, calls_open);
	set_flags(f, FLAG_IF);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VECTOR);
	assert_int_equal(on_stack(f, 0, 8), FLAT_CODE + (calls_open_inc - calls_open));
	assert_int_equal(on_stack(f, 1, 8) & 3, 3);
	assert_int_equal(f->cpu->gpr[RBX], 9);
	flat_free(f);
}

GUEST(calls_stepped, 64, "1: syscall; calls_stepped_inc: inc rbx; calls_stepped_jmp: jmp 1b");
GUEST(steps, 64, "inc rsi; cmp rsi,30; jne 1f; or r11,0x100; 1: sysretq");
extern const uint8_t calls_stepped_inc[], calls_stepped_jmp[];

/* SYSRET sets TF: the instruction behind it is stepped. */
static void sysret_steps(void **state)
{
	struct flat *f = serving_machine(MASKED | FLAGS_ARITH, steps, steps_end);

	f->cpu->gpr[RBX] = f->cpu->gpr[RSI] = 0;
	load(f, calls_stepped);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_DB);
	assert_int_equal(on_stack(f, 0, 8), FLAT_CODE + (calls_stepped_jmp - calls_stepped));
	assert_int_equal(f->cpu->gpr[RBX], 30);
	flat_free(f);
}

GUEST(returns_wild, 64, "1: dec r8; jz 2f; mov rcx,r9; jmp 3f; 2: mov rcx,r10; 3: sysretq");
GUEST(comes_again, 64, "syscall");

/* A return address that is not canonical: Intel's processors fault in the kernel. */
static void sysret_refused(void **state)
{
	struct flat *f = tempo_machine();
	struct cpu *cpu = f->cpu;

	cpu->msr.star = (uint64_t)(FLAT_CS32_USER | 3) << 48 | (uint64_t)FLAT_CS64 << 32;
	cpu->msr.lstar = SERVER;
	flat_set_efer(f, cpu->msr.efer | EFER_SCE);
	flat_write(f, SERVER, returns_wild, returns_wild_end - returns_wild);
	load(f, comes_again);
	cpu->gpr[R8] = ROUNDS;
	cpu->gpr[R9] = FLAT_CODE;
	cpu->gpr[R10] = 0x800000000000;
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_GP);
	assert_int_equal(cpu->gpr[R8], 0);
	assert_int_equal(on_stack(f, 1, 8) ==
				 SERVER + (uint64_t)(returns_wild_end - returns_wild) - 3,
			 model_sysret_checks_rip(cpu->model));
	flat_free(f);
}

/* ---- control registers ---- */

GUEST(reads_cr, 64,
      "1: mov rax,cr0; mov rbx,cr2; mov r14,cr3; mov rdx,cr4; xor r14,rax; xor rbx,rdx; add "
      "rsi,r14; "
      "add rdi,rbx; dec ecx; jnz 1b; hlt");

static void control_registers(void **state)
{
	struct flat *f = tempo_machine();
	struct cpu *cpu = f->cpu;

	cpu->cr2 = 0x123456789abcdef0;
	cpu->gpr[RSI] = cpu->gpr[RDI] = 0;
	load(f, reads_cr);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_true(cpu->gpr[RSI] == ROUNDS * (cpu->cr0 ^ cpu->cr3));
	assert_true(cpu->gpr[RDI] == ROUNDS * (cpu->cr2 ^ cpu->cr4));
	assert_int_equal(cpu->retired, 10 * ROUNDS + 1);
	flat_user(f);
	load(f, reads_cr);
	assert_int_equal(go(f), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(f), VEC_GP);
	assert_int_equal(on_stack(f, 1, 8), FLAT_CODE);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sti_has_a_shadow),
		cmocka_unit_test(sti_twice),
		cmocka_unit_test(sti_open),
		cmocka_unit_test(sti_then_fault),
		cmocka_unit_test(sti_then_handler),
		cmocka_unit_test(sti_hlt),
		cmocka_unit_test(pushf_images),
		cmocka_unit_test(stac_and_clac),
		cmocka_unit_test(stac_without_smap),
		cmocka_unit_test(tsc_of_the_platform),
		cmocka_unit_test(tsc_of_the_host),
		cmocka_unit_test(tsc_aux),
		cmocka_unit_test(tsc_refused),
		cmocka_unit_test(control_registers),
		cmocka_unit_test(string_loop),
		cmocka_unit_test(system_calls),
		cmocka_unit_test(syscall_arithmetic_flags),
		cmocka_unit_test(syscall_settings_change),
		cmocka_unit_test(sysret_opens),
		cmocka_unit_test(sysret_steps),
		cmocka_unit_test(sysret_refused),
		cmocka_unit_test(string_without_memory),
		cmocka_unit_test(string_over_pages),
		cmocka_unit_test(string_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
