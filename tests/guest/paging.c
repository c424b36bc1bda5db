/* SPDX-License-Identifier: MIT */
/*
 * Paging as instructions meet it: page faults with their error codes, CR2 and restart, what a faulting instruction leaves
 * undone, SMAP, WP and TLB flushes by instruction, dirty log and A/D bits of borrowed and emulated stores.
 */
#include "flat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <string.h>

#define RUN(f, bytes) run(f, bytes, sizeof(bytes) - 1)

/* A page of its own at HOLE; RBX points to it. */
#define HOLE 0x40000000ul
#define PAGE FLAT_DATA

static enum cpu_exit_kind run(struct flat *f, const char *bytes, size_t size)
{
	flat_code(f, bytes, size);
	f->cpu->gpr[RBX] = HOLE;
	return flat_run(f, 10000);
}

static struct flat *start(void (*enter)(struct flat *), uint64_t bits, bool user)
{
	struct flat *f = flat_new(FLAT_RAM);

	enter(f);
	flat_map(f, HOLE, PAGE, bits, PAGE_SIZE);
	flat_map(f, HOLE + PAGE_SIZE, 0, 0, PAGE_SIZE);
	if (user)
		flat_user(f);
	return f;
}

static void again(struct flat *f, uint64_t bits)
{
	flat_map(f, HOLE, PAGE, bits, PAGE_SIZE);
	mmu_flush_page(f->cpu, HOLE);
}

/* The #PF handler stands after its HLT; its frame has the error code and RIP. */
static void faulted(struct flat *f, gva_t cr2, uint64_t error, uint64_t rip)
{
	unsigned bytes = f->cpu->mode.code == CODE_64 ? 8 : 4;
	uint64_t sp = f->cpu->gpr[RSP];

	assert_int_equal(flat_handler(f), VEC_PF);
	assert_int_equal(f->cpu->cr2, cr2);
	assert_int_equal(flat_peek(f, sp, bytes), error);
	assert_int_equal(flat_peek(f, sp + bytes, bytes), rip);
}

/* ---- error codes ---- */

static void not_present(void (*enter)(struct flat *), bool user)
{
	unsigned u = user ? PFERR_U : 0;
	struct flat *f = start(enter, 0, user);

	assert_int_equal(RUN(f, "\x90\x8b\x43\x10"), CPU_EXIT_HLT); /* mov eax,[rbx+16] */
	faulted(f, HOLE + 16, u, FLAT_CODE + 1);
	flat_free(f);
	f = start(enter, 0, user);
	assert_int_equal(RUN(f, "\x90\x89\x43\x10"), CPU_EXIT_HLT); /* mov [rbx+16],eax */
	faulted(f, HOLE + 16, u | PFERR_W, FLAT_CODE + 1);
	flat_free(f);
	f = start(enter, 0, user);
	assert_int_equal(RUN(f, "\x90\x01\x43\x10"), CPU_EXIT_HLT); /* add [rbx+16],eax */
	faulted(f, HOLE + 16, u | PFERR_W, FLAT_CODE + 1);
	flat_free(f);
	f = start(enter, 0, user);
	assert_int_equal(RUN(f, "\x90\xff\xe3"), CPU_EXIT_HLT); /* jmp rbx */
	faulted(f, HOLE, u | (f->cpu->msr.efer & EFER_NX ? PFERR_I : 0), HOLE);
	flat_free(f);
}

static void not_present_codes(void **state)
{
	not_present(flat_paging32, false);
	not_present(flat_paging32, true);
	not_present(flat_pae, false);
	not_present(flat_pae, true);
	not_present(flat_long, false);
	not_present(flat_long, true);
}

static void protection_codes(void **state)
{
	struct flat *f = start(flat_long, PTE_P | PTE_W, true);

	assert_int_equal(RUN(f, "\x8b\x03"), CPU_EXIT_HLT);
	faulted(f, HOLE, PFERR_P | PFERR_U, FLAT_CODE);
	flat_free(f);
	f = start(flat_long, PTE_P | PTE_U, true);
	assert_int_equal(RUN(f, "\x8b\x03\x89\x03"), CPU_EXIT_HLT);
	faulted(f, HOLE, PFERR_P | PFERR_U | PFERR_W, FLAT_CODE + 2);
	flat_free(f);
	f = start(flat_long, PTE_P | PTE_U | PTE_NX, true);
	assert_int_equal(RUN(f, "\x8b\x03\xff\xe3"), CPU_EXIT_HLT);
	faulted(f, HOLE, PFERR_P | PFERR_U | PFERR_I, HOLE);
	flat_free(f);
	f = start(flat_long, PTE_P | BIT(51), false);
	assert_int_equal(RUN(f, "\x8b\x03"), CPU_EXIT_HLT);
	faulted(f, HOLE, PFERR_P | PFERR_RSVD, FLAT_CODE);
	flat_free(f);
}

/* ---- nothing is committed ---- */

/* rep movsb: 5 bytes to the end of a page, then a fault on the sixth, with the count so far. */
static void string_stops_at_the_fault(void **state)
{
	struct flat *f = start(flat_long, PTE_P | PTE_W, false);

	f->cpu->gpr[RSI] = FLAT_DATA + 0x5000;
	f->cpu->gpr[RDI] = HOLE + 0xffb;
	f->cpu->gpr[RCX] = 10;
	flat_write(f, FLAT_DATA + 0x5000, "0123456789", 10);
	assert_int_equal(RUN(f, "\x90\xf3\xa4"), CPU_EXIT_HLT);
	faulted(f, HOLE + PAGE_SIZE, PFERR_W, FLAT_CODE + 1);
	assert_int_equal(f->cpu->gpr[RCX], 5);
	assert_int_equal(f->cpu->gpr[RSI], FLAT_DATA + 0x5005);
	assert_int_equal(f->cpu->gpr[RDI], HOLE + PAGE_SIZE);
	assert_memory_equal(f->ram + PAGE + 0xffb, "01234", 5);
	flat_free(f);
}

/* Stack pointer, counters and flags stay where a push, pop, call, or stored result faults. */
static void stack_faults(void **state)
{
	static const char code[][6] = {"\x50", "\xe8\0\0\0\0", "\x9c", "\xc8\x10\0\0"};

	for (unsigned i = 0; i < ARRAY_SIZE(code); i++) {
		struct flat *f = start(flat_long, 0, true);

		flat_code(f, code[i], 6);
		f->cpu->gpr[RSP] = HOLE + 0x100;
		f->cpu->gpr[RBP] = 0x1234;
		assert_int_equal(flat_run(f, 100), CPU_EXIT_HLT);
		faulted(f, HOLE + 0xf8, PFERR_W | PFERR_U, FLAT_CODE);
		assert_int_equal(flat_peek(f, f->cpu->gpr[RSP] + 32, 8), HOLE + 0x100);
		assert_int_equal(f->cpu->gpr[RBP], 0x1234);
		flat_free(f);
	}
}

/* pop [rbx]: RSP is as before, though the stack was read. */
static void pop_to_memory_faults(void **state)
{
	struct flat *f = start(flat_long, PTE_P, false);
	uint64_t sp = f->cpu->gpr[RSP] = FLAT_STACK - 256;

	assert_int_equal(RUN(f, "\x8f\x03"), CPU_EXIT_HLT);
	faulted(f, HOLE, PFERR_P | PFERR_W, FLAT_CODE);
	assert_int_equal(flat_peek(f, f->cpu->gpr[RSP] + 32, 8), sp);
	flat_free(f);
}

/* xadd over the end of the page: neither half is written, the register keeps its value. */
static void crossing_store_faults(void **state)
{
	struct flat *f = start(flat_long, PTE_P | PTE_W, false);

	f->cpu->gpr[RAX] = 0x1111111111111111;
	assert_int_equal(RUN(f, "\x48\x0f\xc1\x83\xfc\x0f\0\0"), CPU_EXIT_HLT);
	faulted(f, HOLE + PAGE_SIZE, PFERR_W, FLAT_CODE);
	assert_int_equal(flat_peek(f, PAGE + 0xffc, 4), 0);
	assert_int_equal(f->cpu->gpr[RAX], 0x1111111111111111);
	flat_free(f);
}

/* An instruction that begins on a good page and ends on an absent one. */
static void crossing_fetch_faults(void **state)
{
	struct flat *f = start(flat_long, PTE_P | PTE_W, false);

	flat_write(f, PAGE + 0xffd, "\xb8\x01\x02", 3); /* mov eax,imm32 */
	assert_int_equal(RUN(f, "\x48\x8d\x83\xfd\x0f\0\0\xff\xe0"), CPU_EXIT_HLT);
	faulted(f, HOLE + PAGE_SIZE, PFERR_I, HOLE + 0xffd);
	flat_free(f);
	f = start(flat_long, PTE_P | PTE_W, false);
	flat_write(f, PAGE + 0xfff, "\xf4", 1); /* hlt needs no second page */
	assert_int_equal(RUN(f, "\x48\x8d\x83\xff\x0f\0\0\xff\xe0"), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, HOLE + PAGE_SIZE);
	flat_free(f);
}

/* Handler maps the page and returns: the instruction is made again and completes. */
static void restart(void **state)
{
	struct flat *f = start(flat_long, 0, false);
	gpa_t pte = flat_entry(f, HOLE, 1);

	/* mov qword [pte],PAGE|3; add rsp,8; iretq */
	flat_write(f, 0x9000, "\x48\xc7\x04\x25\0\0\0\0\0\0\0\0\x48\x83\xc4\x08\x48\xcf", 18);
	flat_poke(f, 0x9004, pte, 4);
	flat_poke(f, 0x9008, PAGE | PTE_P | PTE_W, 4);
	flat_gate(f, VEC_PF, 0x9000, 0);
	f->cpu->gpr[RAX] = 3;
	flat_poke(f, PAGE, 4, 8);
	assert_int_equal(RUN(f, "\x48\x01\x03\xf4"), CPU_EXIT_HLT); /* add [rbx],rax */
	assert_int_equal(f->cpu->rip, FLAT_CODE + 4);
	assert_int_equal(flat_peek(f, PAGE, 8), 7);
	assert_int_equal(flat_get_entry(f, HOLE, 1), PAGE | PTE_P | PTE_W | PTE_A | PTE_D);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK);
	flat_free(f);
}

/* ---- modes and flushes by instruction ---- */

/* stac; mov eax,[rbx]; clac; mov eax,[rbx] */
static void smap(void **state)
{
	struct flat *f = start(flat_long, PTE_P | PTE_U, false);

	flat_supervisor(f);
	flat_set_cr4(f, f->cpu->cr4 | CR4_SMAP | CR4_SMEP);
	assert_int_equal(RUN(f, "\x0f\x01\xcb\x8b\x03\x0f\x01\xca\x8b\x03"), CPU_EXIT_HLT);
	faulted(f, HOLE, PFERR_P, FLAT_CODE + 8);
	flat_free(f);
}

/* mov rax,cr0; btr eax,16; mov cr0,rax; mov [rbx],eax; bts eax,16; mov cr0,rax; mov [rbx],eax */
static void write_protect(void **state)
{
	struct flat *f = start(flat_long, PTE_P, false);

	assert_int_equal(RUN(f, "\x0f\x20\xc0\x0f\xba\xf0\x10\x0f\x22\xc0\x89\x03"
				"\x0f\xba\xe8\x10\x0f\x22\xc0\x89\x03"),
			 CPU_EXIT_HLT);
	faulted(f, HOLE, PFERR_P | PFERR_W, FLAT_CODE + 19);
	assert_int_not_equal(flat_peek(f, PAGE, 4), 0);
	flat_free(f);
}

/*
 * Read, change the PTE by a store, flush, read again. code: the flush; the store is mov [rsi],rdi, the
 * second value goes to ECX.
 */
static uint64_t reread(uint64_t bits, const char *flush, size_t size)
{
	struct flat *f = start(flat_long, PTE_P | bits, false);
	char code[64] = "\x8b\x03\x48\x89\x3e"; /* mov eax,[rbx]; mov [rsi],rdi */
	uint64_t val;

	flat_poke(f, PAGE, 1, 1);
	flat_poke(f, PAGE + PAGE_SIZE, 2, 1);
	memcpy(code + 5, flush, size);
	memcpy(code + 5 + size, "\x8b\x0b\xf4", 3); /* mov ecx,[rbx]; hlt */
	f->cpu->gpr[RSI] = flat_entry(f, HOLE, 1);
	f->cpu->gpr[RDI] = (PAGE + PAGE_SIZE) | PTE_P | bits;
	assert_int_equal(run(f, code, 8 + size), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], 1);
	val = f->cpu->gpr[RCX];
	flat_free(f);
	return val;
}

#define REREAD(bits, flush) reread(bits, flush, sizeof(flush) - 1)

static void flush_instructions(void **state)
{
	assert_int_equal(REREAD(0, "\x0f\x01\x3b"), 2); /* invlpg [rbx] */
	assert_int_equal(REREAD(PTE_G, "\x0f\x01\x3b"), 2);
	assert_int_equal(REREAD(0, "\x0f\x20\xda\x0f\x22\xda"), 2); /* mov rdx,cr3; mov cr3,rdx */
	/* mov rdx,cr4; btc edx,7; mov cr4,rdx */
	assert_int_equal(REREAD(PTE_G, "\x0f\x20\xe2\x0f\xba\xfa\x07\x0f\x22\xe2"), 2);
}

/* MOV CR3 under PAE loads the PDPTEs: reserved bits are #GP and leave CR3. */
static void pae_loads_pdptes(void **state)
{
	struct flat *f = start(flat_pae, PTE_P, false);
	uint64_t root = f->cpu->cr3;
	gpa_t other = flat_alloc_table(f);

	memcpy(f->ram + other, f->ram + root, 32);
	flat_poke(f, other + 24, PTE_P | PTE_W, 8);
	f->cpu->gpr[RAX] = other;
	assert_int_equal(RUN(f, "\x0f\x22\xd8"), CPU_EXIT_HLT); /* mov cr3,eax */
	assert_int_equal(flat_handler(f), VEC_GP);
	assert_int_equal(f->cpu->cr3, root);
	flat_pae(f);
	root = f->cpu->cr3;
	other = flat_alloc_table(f);
	memcpy(f->ram + other, f->ram + root, 24);
	f->cpu->gpr[RAX] = other;
	/* mov cr3,eax; mov eax,[0xc0000000] */
	assert_int_equal(RUN(f, "\x0f\x22\xd8\xa1\x00\x00\x00\xc0"), CPU_EXIT_HLT);
	faulted(f, 0xc0000000, 0, FLAT_CODE + 3);
	assert_int_equal(f->cpu->cr3, other);
	flat_free(f);
}

/* ---- code that changes ---- */

/* mov byte [rip+1],0xf4 over the nop that follows the store: the next fetch sees it. */
static void code_changes_under_rip(void **state)
{
	struct flat *f = start(flat_long, PTE_P | PTE_W, false);

	assert_int_equal(RUN(f, "\x90\xc6\x05\x01\0\0\0\xf4\x90\x90\x0f\x0b"), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_CODE + 10);
	flat_free(f);
}

/* ---- A, D and the dirty log ---- */

struct store {
	const char *code;
	size_t size;
	bool write;
};

#define STORE(bytes)                              \
	{                                         \
		bytes "\xf4", sizeof(bytes), true \
	}
#define LOAD(bytes)                                \
	{                                          \
		bytes "\xf4", sizeof(bytes), false \
	}

/* Each uses [rbx] only; RDI = RSI = RBX, RCX = 4. */
static const struct store stores[] = {
	STORE("\x89\x03"),	       /* mov [rbx],eax */
	STORE("\x01\x03"),	       /* add [rbx],eax */
	STORE("\xf0\x48\x0f\xb1\x13"), /* lock cmpxchg [rbx],rdx */
	STORE("\x0f\x29\x03"),	       /* movaps [rbx],xmm0 */
	STORE("\xf3\x0f\x7f\x43\x03"), /* movdqu [rbx+3],xmm0 */
	STORE("\xf3\xab"),	       /* rep stosd */
	STORE("\xaa"),		       /* stosb */
	STORE("\x8f\x03"),	       /* pop [rbx] */
	STORE("\x0f\x01\x03"),	       /* sgdt [rbx] */
	STORE("\x0f\xae\x03"),	       /* fxsave [rbx] */
	STORE("\xd9\x3b"),	       /* fnstcw [rbx] */
	STORE("\x0f\xc0\x03"),	       /* xadd [rbx],al */
	STORE("\x86\x03"),	       /* xchg [rbx],al */
	STORE("\x0f\x94\x03"),	       /* sete [rbx] */
	STORE("\x0f\xab\x03"),	       /* bts [rbx],eax */
	LOAD("\x8b\x03"),	       /* mov eax,[rbx] */
	LOAD("\x39\x03"),	       /* cmp [rbx],eax */
	LOAD("\x0f\x28\x03"),	       /* movaps xmm0,[rbx] */
	LOAD("\xff\x33"),	       /* push [rbx] */
	LOAD("\xac"),		       /* lodsb */
	LOAD("\xf3\xa6"),	       /* repe cmpsb */
	LOAD("\xd9\x2b"),	       /* fldcw [rbx] */
	LOAD("\x0f\xa3\x03"),	       /* bt [rbx],eax */
};

static void run_store(struct flat *f, const struct store *s)
{
	flat_poke(f, PAGE, 0x37f, 8);
	f->cpu->gpr[RDI] = f->cpu->gpr[RSI] = HOLE;
	f->cpu->gpr[RCX] = 4;
	f->cpu->gpr[RAX] = f->cpu->gpr[RDX] = 0;
	assert_int_equal(run(f, s->code, s->size), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->rip, FLAT_CODE + s->size);
}

static void accessed_and_dirty(void **state)
{
	struct flat *f = start(flat_long, PTE_P | PTE_W, false);

	for (unsigned i = 0; i < ARRAY_SIZE(stores); i++) {
		uint64_t want = PTE_A | (stores[i].write ? PTE_D : 0);

		again(f, PTE_P | PTE_W);
		run_store(f, &stores[i]);
		assert_int_equal(flat_get_entry(f, HOLE, 1) & (PTE_A | PTE_D), want);
		flat_map(f, HOLE, PAGE, PTE_P | PTE_W, PAGE_SIZE);
	}
	flat_free(f);
}

static void dirty_log(void **state)
{
	struct flat *f = start(flat_long, PTE_P | PTE_W | PTE_A | PTE_D, false);

	f->log = true;
	mmu_flush_all(f->cpu);
	for (unsigned i = 0; i < ARRAY_SIZE(stores); i++) {
		memset(f->marked, 0, sizeof(f->marked));
		mmu_flush_writes(f->cpu);
		run_store(f, &stores[i]);
		assert_int_equal(!!f->marked[PAGE >> PAGE_SHIFT], stores[i].write);
		assert_int_equal(f->marked[(PAGE >> PAGE_SHIFT) + 1], 0);
	}
	flat_free(f);
}

/* What a store to ROM or a read-only page does not do. */
static void refused_stores(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(stores); i++) {
		struct flat *f = start(flat_long, PTE_P, false);

		f->log = true;
		flat_poke(f, PAGE, 0x37f, 8);
		f->cpu->gpr[RDI] = f->cpu->gpr[RSI] = HOLE;
		f->cpu->gpr[RCX] = 4;
		assert_int_equal(run(f, stores[i].code, stores[i].size), CPU_EXIT_HLT);
		assert_int_equal(f->marked[PAGE >> PAGE_SHIFT], 0);
		assert_int_equal(flat_peek(f, PAGE, 8), 0x37f);
		assert_int_equal(flat_handler(f), stores[i].write ? VEC_PF : -1);
		if (stores[i].write)
			assert_int_equal(flat_peek(f, f->cpu->gpr[RSP], 8), PFERR_P | PFERR_W);
		flat_free(f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(not_present_codes),
		cmocka_unit_test(protection_codes),
		cmocka_unit_test(string_stops_at_the_fault),
		cmocka_unit_test(stack_faults),
		cmocka_unit_test(pop_to_memory_faults),
		cmocka_unit_test(crossing_store_faults),
		cmocka_unit_test(crossing_fetch_faults),
		cmocka_unit_test(restart),
		cmocka_unit_test(smap),
		cmocka_unit_test(write_protect),
		cmocka_unit_test(flush_instructions),
		cmocka_unit_test(pae_loads_pdptes),
		cmocka_unit_test(code_changes_under_rip),
		cmocka_unit_test(accessed_and_dirty),
		cmocka_unit_test(dirty_log),
		cmocka_unit_test(refused_stores),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
