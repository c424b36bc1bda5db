/* SPDX-License-Identifier: MIT */
/*
 * A guest that rewrites its code at random, against what it must compute: operands, opcodes and targets of jumps of
 * 512 functions are changed through their own mapping and another one, pages are swapped below them, and data changes
 * beside them, in the same lines too. The commands are made here, with a model that runs them; guest code carries
 * them out. ANYKVM_SEED and ANYKVM_ROUNDS choose other ones and more.
 */
#include "guest_asm.h"
#include "silicon/exec/exec.h"

#include <stdlib.h>
#include <string.h>

#define CODE	 0x40000000ul /* where functions are called */
#define ALIAS	 0x50000000ul /* the same frames */
#define FRAMES	 0x200000ul
#define PAGES	 4
#define SLOT	 32
#define PER_PAGE (PAGE_SIZE / SLOT)
#define SLOTS	 (PAGES * PER_PAGE)
#define SCRIPT	 0x800000ul
#define COMMANDS 200000

/* As it stands in guest memory. */
struct command {
	uint64_t what, addr, val;
};

enum what { DONE, STORE_1, STORE_4, CALL, SWAP, RELOAD, NR_WHATS };

/* A slot: add $imm,%rax; rol or ror %rax; jmp to another slot, or ret; behind it 8 bytes of data. */
struct slot {
	uint32_t imm;
	bool right;
	int to; /* -1: ret */
};

/* RSI: the script. RAX: the sum. Data is added, too, so that a lost store shows. */
GUEST(interpreter, 64,
      "1: mov rcx, [rsi]\n"
      "mov rdi, [rsi+8]\n"
      "mov rdx, [rsi+16]\n"
      "add rsi, 24\n"
      "cmp ecx, 1\n jb 9f\n je 2f\n"
      "cmp ecx, 3\n jb 3f\n je 4f\n"
      "cmp ecx, 5\n jb 5f\n"
      "mov rbx, cr3\n mov cr3, rbx\n jmp 1b\n"
      "2: mov [rdi], dl\n jmp 1b\n"
      "3: mov [rdi], edx\n jmp 1b\n"
      "4: call rdi\n add rax, [rdx]\n jmp 1b\n"
      /* Swap the frames of two neighbours: PTEs at RDI, linear address in RDX. */
      "5: mov rbx, [rdi]\n xchg rbx, [rdi+8]\n mov [rdi], rbx\n"
      "invlpg [rdx]\n invlpg [rdx+4096]\n jmp 1b\n"
      "9: hlt\n");

static uint64_t seed;
static unsigned rate; /* of changes of code, in a thousand: traces come only of what stays */
static struct slot model[PAGES][PER_PAGE]; /* by frame */
static uint64_t data[PAGES][PER_PAGE];
static unsigned frame_of[PAGES]; /* of each page at CODE */

static uint32_t pick(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (seed >> 33) % n;
}

static uint64_t from_env(const char *name, uint64_t otherwise)
{
	const char *val = getenv(name);

	return val ? strtoull(val, NULL, 0) : otherwise;
}

/* Jumps lead forward, so that each call ends; within the page mostly. */
static int pick_target(unsigned slot)
{
	unsigned room = PER_PAGE - 1 - slot;

	return room && pick(3) ? (int)(slot + 1 + pick(min(room, 20u))) : -1;
}

static void put_slot(uint8_t *at, unsigned slot, const struct slot *s)
{
	int32_t rel = (s->to - (int)slot) * SLOT - 14;

	memcpy(at, "\x48\x05", 2);
	memcpy(at + 2, &s->imm, 4);
	memcpy(at + 6, s->right ? "\x48\xd1\xc8" : "\x48\xd1\xc0", 3);
	at[9] = s->to < 0 ? 0xc3 : 0xe9;
	memcpy(at + 10, &rel, 4);
}

/* ---- commands, each with what it does to the model ---- */

static struct command store(unsigned frame, unsigned slot, unsigned off, unsigned size,
			    uint32_t val)
{
	gva_t addr = ALIAS + frame * PAGE_SIZE;

	for (unsigned page = 0; page < PAGES; page++)
		if (frame_of[page] == frame && pick(2))
			addr = CODE + page * PAGE_SIZE;
	return (struct command){size == 1 ? STORE_1 : STORE_4, addr + slot * SLOT + off, val};
}

static struct command change_code(void)
{
	unsigned frame = pick(PAGES), slot = pick(pick(2) ? PER_PAGE : 8);
	struct slot *s = &model[frame][slot];
	int to;

	switch (pick(4)) {
	case 0:
		s->right = !s->right;
		return store(frame, slot, 8, 1, s->right ? 0xc8 : 0xc0);
	case 1:
		to = s->to < 0 ? -1 : pick_target(slot);
		if (to < 0)
			break;
		s->to = to;
		return store(frame, slot, 10, 4, (to - (int)slot) * SLOT - 14);
	}
	s->imm = pick(0x7fffffff);
	return store(frame, slot, 2, 4, s->imm);
}

static struct command change_data(void)
{
	unsigned frame = pick(PAGES), slot = pick(PER_PAGE);
	uint32_t val = pick(0x7fffffff);

	data[frame][slot] = val;
	return store(frame, slot, 24, 4, val);
}

static uint64_t called(uint64_t sum, unsigned page, int slot)
{
	while (slot >= 0) {
		const struct slot *s = &model[frame_of[page]][slot];

		sum += s->imm;
		sum = s->right ? sum >> 1 | sum << 63 : sum << 1 | sum >> 63;
		slot = s->to;
	}
	return sum;
}

static struct command call(uint64_t *sum)
{
	unsigned page = pick(PAGES), slot = pick(pick(4) ? 8 : PER_PAGE), frame = pick(PAGES);

	*sum = called(*sum, page, slot) + data[frame][slot];
	return (struct command){CALL, CODE + page * PAGE_SIZE + slot * SLOT,
				ALIAS + frame * PAGE_SIZE + slot * SLOT + 24};
}

static struct command swap(struct flat *f)
{
	unsigned page = pick(PAGES - 1), was = frame_of[page];
	gva_t addr = CODE + page * PAGE_SIZE;

	frame_of[page] = frame_of[page + 1];
	frame_of[page + 1] = was;
	return (struct command){SWAP, flat_entry(f, addr, 1), addr};
}

static struct command next_command(struct flat *f, uint64_t *sum)
{
	unsigned kind = pick(1000);

	if (kind < 100)
		return change_data();
	if (kind < 100 + rate)
		return change_code();
	if (kind > 999 - rate / 20)
		return swap(f);
	if (kind > 996 - rate / 20)
		return (struct command){RELOAD};
	return call(sum);
}

/* ---- the machine ---- */

static struct flat *machine(void)
{
	const char *tempo = getenv("ANYKVM_TEMPO");
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	f->cpu->exec = exec_create();
	assert_non_null(f->cpu->exec);
	assert_int_equal(exec_set_tempo(f->cpu, tempo ? tempo : "run"), 0);
	for (unsigned page = 0; page < PAGES; page++) {
		gpa_t frame = FRAMES + page * PAGE_SIZE;

		flat_map(f, CODE + page * PAGE_SIZE, frame, PTE_P | PTE_W, PAGE_SIZE);
		flat_map(f, ALIAS + page * PAGE_SIZE, frame, PTE_P | PTE_W, PAGE_SIZE);
	}
	return f;
}

static void fill(struct flat *f)
{
	for (unsigned page = 0; page < PAGES; page++) {
		frame_of[page] = page;
		for (unsigned slot = 0; slot < PER_PAGE; slot++) {
			struct slot *s = &model[page][slot];

			*s = (struct slot){pick(0x7fffffff), pick(2), pick_target(slot)};
			data[page][slot] = 0;
			put_slot(f->ram + FRAMES + page * PAGE_SIZE + slot * SLOT, slot, s);
		}
	}
}

/* The program writes code, too, between two entries. */
static void program_writes(struct flat *f)
{
	unsigned frame = pick(PAGES), slot = pick(8);
	struct slot *s = &model[frame][slot];

	s->imm = pick(0x7fffffff);
	memcpy(f->ram + FRAMES + frame * PAGE_SIZE + slot * SLOT + 2, &s->imm, 4);
}

static void rewrites(void **state)
{
	struct flat *f = machine();
	uint64_t rounds = from_env("ANYKVM_ROUNDS", 3), sum = 0;
	struct command *script = (struct command *)(f->ram + SCRIPT);

	seed = from_env("ANYKVM_SEED", 1);
	fill(f);
	load(f, interpreter);
	f->cpu->gpr[RAX] = 0;
	while (rounds--) {
		unsigned nr = 1 + pick(COMMANDS);

		rate = 1 << pick(9);
		for (unsigned i = 0; i < nr; i++)
			script[i] = next_command(f, &sum);
		script[nr] = (struct command){DONE};
		f->cpu->rip = FLAT_CODE;
		f->cpu->gpr[RSI] = SCRIPT;
		assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
		assert_int_equal(f->cpu->gpr[RAX], sum);
		program_writes(f);
	}
	exec_destroy(f->cpu->exec);
	f->cpu->exec = NULL;
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(rewrites)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
