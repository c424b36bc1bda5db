/* SPDX-License-Identifier: MIT */
/*
 * Code under translated code is mapped anew: what a flush covers must be fetched anew, what it leaves out must go
 * on. A function at PAGE_A is called in a loop that swaps the frame below it, or that below its neighbour, and flushes
 * in one of the architecture's ways. No budget: blocks are chained where the tempo chains.
 */
#include "guest_asm.h"
#include "silicon/exec/exec.h"

#include <stdlib.h>
#include <string.h>

#define LOW	0x40000000ul
#define HIGH	0xffff900000000000ul
#define FRAME_0 0x200000ul
#define FRAME_1 0x201000ul
#define FRAME_2 0x202000ul
#define ROUNDS	1000

/* add $1,%rax; ret and add $0x10000,%rax; ret */
static const uint8_t adds_1[] = {0x48, 0x05, 1, 0, 0, 0, 0xc3};
static const uint8_t adds_10000[] = {0x48, 0x05, 0, 0, 1, 0, 0xc3};

/*
 * RBX: page that is called; RBP: another one, called, too; RSI: the PTE that is swapped with RDX; RDI: page flushed.
 */
#define LOOP(flush)     \
	"1: call rbx\n" \
	"call rbp\n"    \
	"xchg [rsi], rdx\n" flush "\ndec ecx\njnz 1b\nhlt\n"

GUEST(by_invlpg, 64, LOOP("invlpg [rdi]"));
GUEST(by_cr3, 64, LOOP("mov r8, cr3\n mov cr3, r8"));
GUEST(by_pge, 64, LOOP("mov r8, cr4\n btc r8, 7\n mov cr4, r8\n btc r8, 7\n mov cr4, r8"));

static struct flat *machine(void)
{
	const char *tempo = getenv("ANYKVM_TEMPO");
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	flat_set_cr4(f, f->cpu->cr4 | CR4_PGE);
	f->cpu->exec = exec_create();
	assert_non_null(f->cpu->exec);
	assert_int_equal(exec_set_tempo(f->cpu, tempo ? tempo : "run"), 0);
	flat_write(f, FRAME_0, adds_1, sizeof(adds_1));
	flat_write(f, FRAME_1, adds_10000, sizeof(adds_10000));
	return f;
}

static void done(struct flat *f)
{
	exec_destroy(f->cpu->exec);
	f->cpu->exec = NULL;
	flat_free(f);
}

/* Call base, which stays, and base + 4096, whose frame is swapped. */
static void swap(const uint8_t *code, size_t size, gva_t base, uint64_t bits)
{
	struct flat *f = machine();
	gva_t page = base + PAGE_SIZE;

	flat_map(f, base, FRAME_0, PTE_P | PTE_W | bits, PAGE_SIZE);
	flat_map(f, page, FRAME_0, PTE_P | PTE_W | bits, PAGE_SIZE);
	flat_code(f, code, size);
	f->cpu->gpr[RAX] = 0;
	f->cpu->gpr[RBX] = page;
	f->cpu->gpr[RBP] = base;
	f->cpu->gpr[RDI] = page;
	f->cpu->gpr[RSI] = flat_entry(f, page, 1);
	f->cpu->gpr[RDX] = FRAME_1 | PTE_P | PTE_W | bits;
	f->cpu->gpr[RCX] = ROUNDS;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], ROUNDS + ROUNDS / 2 * 0x10001ul);
	done(f);
}

#define SWAP(name, base, bits) swap(name, name##_end - name, base, bits)

/* jmp to the next page; ret */
static const uint8_t jumps_on[] = {0xe9, 0xfb, 0x0f, 0, 0};
static const uint8_t returns[] = {0xc3};

/* The same of what base goes by to return: that it does no more, at times. */
static void swap_relay(const uint8_t *code, size_t size, gva_t base)
{
	const uint64_t bits = PTE_P | PTE_W;
	struct flat *f = machine();
	gva_t page = base + PAGE_SIZE;

	flat_write(f, FRAME_0, jumps_on, sizeof(jumps_on));
	flat_write(f, FRAME_2, returns, sizeof(returns));
	flat_map(f, base, FRAME_0, bits, PAGE_SIZE);
	flat_map(f, page, FRAME_2, bits, PAGE_SIZE);
	flat_code(f, code, size);
	f->cpu->gpr[RAX] = 0;
	f->cpu->gpr[RBX] = f->cpu->gpr[RBP] = base;
	f->cpu->gpr[RDI] = page;
	f->cpu->gpr[RSI] = flat_entry(f, page, 1);
	f->cpu->gpr[RDX] = FRAME_2 | bits;
	f->cpu->gpr[RCX] = ROUNDS;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], 0);
	f->cpu->activity = ACTIVITY_RUN;
	flat_code(f, code, size);
	f->cpu->gpr[RDX] = FRAME_1 | bits;
	f->cpu->gpr[RCX] = ROUNDS;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], ROUNDS * 0x10000ul);
	done(f);
}

static void relays(void **state)
{
	swap_relay(by_invlpg, by_invlpg_end - by_invlpg, LOW);
	swap_relay(by_cr3, by_cr3_end - by_cr3, LOW);
	swap_relay(by_pge, by_pge_end - by_pge, HIGH);
}

static void invlpg(void **state)
{
	SWAP(by_invlpg, LOW, 0);
	SWAP(by_invlpg, HIGH, 0);
	SWAP(by_invlpg, HIGH, PTE_G);
}

static void cr3(void **state)
{
	SWAP(by_cr3, LOW, 0);
	SWAP(by_cr3, HIGH, 0);
}

static void pge(void **state)
{
	SWAP(by_pge, LOW, PTE_G);
	SWAP(by_pge, HIGH, PTE_G);
}

/* A large page is one translation: INVLPG anywhere in it drops all of it. */
static void large(void **state)
{
	struct flat *f = machine();
	gpa_t other = FRAME_0 + 0x200000;

	flat_write(f, other, adds_10000, sizeof(adds_10000));
	flat_map(f, HIGH, FRAME_0, PTE_P | PTE_W | PTE_G, 0x200000);
	load(f, by_invlpg);
	f->cpu->gpr[RAX] = 0;
	f->cpu->gpr[RBX] = HIGH;
	f->cpu->gpr[RBP] = HIGH;
	f->cpu->gpr[RDI] = HIGH + 0x123456;
	f->cpu->gpr[RSI] = flat_entry(f, HIGH, 2);
	f->cpu->gpr[RDX] = other | PTE_P | PTE_W | PTE_G | PTE_PS;
	f->cpu->gpr[RCX] = ROUNDS;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], ROUNDS * 0x10001ul);
	done(f);
}

/* jmp to the same place of the next page */
static const uint8_t onward[] = {0xe9, 0xfb, 0x0f, 0, 0};

GUEST(then_swaps, 64,
      "1: call rbx\ncall rbp\ndec ecx\njnz 1b\nxchg [rsi], rdx\ninvlpg [rdi]\nmov ecx, r8d\n"
      "2: call rbx\ncall rbp\ndec ecx\njnz 2b\nhlt\n");

/* A jump over pages that stand at two addresses each: where it leads is to be looked up anew when one of them changes. */
static void two_addresses(void **state)
{
	gva_t page = HIGH + PAGE_SIZE;
	struct flat *f = machine();

	flat_write(f, FRAME_2, onward, sizeof(onward));
	flat_map(f, LOW, FRAME_2, PTE_P | PTE_W, PAGE_SIZE);
	flat_map(f, HIGH, FRAME_2, PTE_P | PTE_W, PAGE_SIZE);
	flat_map(f, LOW + PAGE_SIZE, FRAME_0, PTE_P | PTE_W, PAGE_SIZE);
	flat_map(f, page, FRAME_0, PTE_P | PTE_W, PAGE_SIZE);
	load(f, then_swaps);
	f->cpu->gpr[RAX] = 0;
	f->cpu->gpr[RBX] = LOW;
	f->cpu->gpr[RBP] = HIGH;
	f->cpu->gpr[RDI] = page;
	f->cpu->gpr[RSI] = flat_entry(f, page, 1);
	f->cpu->gpr[RDX] = FRAME_1 | PTE_P | PTE_W;
	f->cpu->gpr[RCX] = f->cpu->gpr[R8] = ROUNDS;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], ROUNDS * 2 + ROUNDS * 0x10001ul);
	done(f);
}

/* ---- PCIDs ---- */

/* Back and forth between R12 and R13, with bit 63; the function at RBP is another in each. */
GUEST(switches, 64, "1: call rbp\nmov cr3, r12\ncall rbp\nmov cr3, r13\ndec ecx\njnz 1b\nhlt\n");
/* The same, and each round the other PCID's page is swapped and taken out by INVPCID of the type in R9. */
GUEST(switches_and_swaps, 64,
      "1: call rbp\nmov cr3, r12\ncall rbp\nmov cr3, r13\nxchg [rsi], rdx\ninvpcid r9, [r8]\n"
      "dec ecx\njnz 1b\nhlt\n");

static void pcids(const uint8_t *code, size_t size, unsigned type, uint64_t sum)
{
	struct flat *f = machine();
	uint64_t root = f->cpu->cr3;
	gpa_t other = flat_alloc_table(f);

	flat_map(f, LOW, FRAME_0, PTE_P | PTE_W, PAGE_SIZE);
	f->cpu->gpr[RBP] = LOW;
	f->cpu->gpr[R12] = other | 1 | CR3_NOFLUSH;
	f->cpu->gpr[R13] = root | CR3_NOFLUSH;
	/* The other root has its own way to LOW, and all else of the first. */
	flat_set_cr3(f, other);
	for (gva_t addr = 0; addr < 0x1000000; addr += 0x200000)
		flat_map(f, addr, addr, PTE_P | PTE_W, 0x200000);
	flat_map(f, LOW, FRAME_1, PTE_P | PTE_W, PAGE_SIZE);
	f->cpu->gpr[RSI] = flat_entry(f, LOW, 1);
	f->cpu->gpr[RDX] = FRAME_0 | PTE_P | PTE_W;
	flat_set_cr3(f, root);
	flat_set_cr4(f, f->cpu->cr4 | CR4_PCIDE);
	f->cpu->gpr[R8] = FLAT_DATA;
	f->cpu->gpr[R9] = type;
	flat_poke(f, FLAT_DATA, 1, 8);
	flat_poke(f, FLAT_DATA + 8, LOW, 8);
	flat_code(f, code, size);
	f->cpu->gpr[RAX] = 0;
	f->cpu->gpr[RCX] = ROUNDS;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], sum);
	done(f);
}

#define PCIDS(name, type, sum) pcids(name, name##_end - name, type, sum)

static void pcid(void **state)
{
	PCIDS(switches, 0, ROUNDS * 0x10001ul);
	for (unsigned type = 0; type < 4; type++)
		PCIDS(switches_and_swaps, type, ROUNDS + ROUNDS / 2 * 0x10001ul);
}

/* ---- a device writes code ---- */

/* Each reading of the device swaps what the function does. */
static uint64_t swap_code(struct flat *f, gpa_t gpa, unsigned size)
{
	bool odd = f->ram[FRAME_0 + 2] & 1;

	memcpy(f->ram + FRAME_0, odd ? adds_10000 : adds_1, sizeof(adds_1));
	return 0;
}

GUEST(then_cpuid, 64,
      "1: call rbp\nmov rdx, [rsi]\nmov r9, rax\nmov r10d, ecx\nxor eax, eax\ncpuid\n"
      "mov rax, r9\nmov ecx, r10d\nmov rbx, rdi\ndec ecx\njnz 1b\nhlt\n");
GUEST(then_remaps, 64,
      "1: call rbp\nmov rdx, [rsi]\nand qword ptr [r8], -2\ninvlpg [rbp]\nor qword ptr [r8], "
      "1\ndec ecx\njnz 1b\nhlt\n");

static void device_writes(const uint8_t *code, size_t size)
{
	struct flat *f = machine();

	f->mmio_in = swap_code;
	flat_map(f, LOW, FRAME_0, PTE_P | PTE_W, PAGE_SIZE);
	flat_code(f, code, size);
	f->cpu->gpr[RAX] = 0;
	f->cpu->gpr[RBP] = LOW;
	f->cpu->gpr[RSI] = FLAT_DEVICE;
	f->cpu->gpr[R8] = flat_entry(f, LOW, 1);
	f->cpu->gpr[RCX] = ROUNDS;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], ROUNDS / 2 * 0x10001ul);
	done(f);
}

/* Each of these CPUIDs is executed once only: none is translated, but the function is. */
GUEST(then_cpuid_once, 64,
      "1: call rbp\ndec ecx\njnz 1b\n.rept 40\nmov rdx, [rsi]\nmov r9, rax\nxor eax, eax\ncpuid\n"
      "mov rax, r9\ncall rbp\n.endr\nhlt\n");

static void cpuid_once(void **state)
{
	struct flat *f = machine();

	f->mmio_in = swap_code;
	flat_map(f, LOW, FRAME_0, PTE_P | PTE_W, PAGE_SIZE);
	load(f, then_cpuid_once);
	f->cpu->gpr[RAX] = 0;
	f->cpu->gpr[RBP] = LOW;
	f->cpu->gpr[RSI] = FLAT_DEVICE;
	f->cpu->gpr[RCX] = 10;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], 10 + 20 * 0x10001ul);
	done(f);
}

static void device(void **state)
{
	device_writes(then_cpuid, then_cpuid_end - then_cpuid);
	device_writes(then_remaps, then_remaps_end - then_remaps);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(invlpg),     cmocka_unit_test(cr3),
		cmocka_unit_test(pge),	      cmocka_unit_test(large),
		cmocka_unit_test(device),     cmocka_unit_test(pcid),
		cmocka_unit_test(cpuid_once), cmocka_unit_test(two_addresses),
		cmocka_unit_test(relays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
