/* SPDX-License-Identifier: MIT */
/*
 * Guests that try to break out of translated code: what they jump to, push on or overwrite is not what a translator
 * would like. Each round of a loop goes once to such a target, often enough to be translated; a handler notes what
 * came of it (R10 vector, R11 CR2, R12 return address, R13 how often) and goes on. Expected values follow from the
 * SDM. Memory on both sides of RAM must stay as it was.
 */
#include "guest_asm.h"
#include "silicon/exec/exec.h"

#include <string.h>
#include <sys/mman.h>

#define ROUNDS	    600
#define TARGET	    0xa000ul
#define HANDLERS    0x90000ul
#define HIGHEST	    0x7ffffffff000ul /* page below the hole in the address space */
#define HOLE	    0x800000000000ul
#define CANARY	    0x100000ul
#define CANARY_BYTE 0xa5

/* RBX: target, RDX: changes it each time, RCX: rounds, RSI: a PTE to be made present again. R14, R15 for handlers. */
GUEST(driver, 64,
      "lea r14,[rip+2f]; mov r15,rsp\n"
      "1: jmp rbx\n"
      "2: mov rsp,r15; or qword ptr [rsi],1; xor rbx,rdx; dec ecx; jnz 1b; hlt");
GUEST(noted, 64, "inc r13; mov r12,[rsp]; mov r11,cr2; mov rsp,r15; jmp r14");
GUEST(noted_error, 64, "inc r13; mov r12,[rsp+8]; mov r11,cr2; mov rsp,r15; jmp r14");

static uint8_t *arena, *usual;

static void put_handlers(struct flat *f)
{
	static const uint32_t with_error = BIT(VEC_DF) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) |
					   BIT(VEC_GP) | BIT(VEC_PF) | BIT(VEC_AC);

	for (unsigned vector = 0; vector < 32; vector++) {
		gpa_t at = HANDLERS + 64 * vector;
		bool error = with_error >> vector & 1;

		flat_poke(f, at, 0xba41 | vector << 16, 6); /* mov r10d,vector */
		flat_write(f, at + 6, error ? noted_error : noted,
			   error ? noted_error_end - noted_error : noted_end - noted);
		flat_gate(f, vector, at, 0);
	}
}

static struct flat *machine(void)
{
	struct flat *f = flat_new(FLAT_RAM);

	arena = mmap(NULL, FLAT_RAM + 2 * CANARY, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(arena != MAP_FAILED);
	memset(arena, CANARY_BYTE, CANARY);
	memset(arena + CANARY + FLAT_RAM, CANARY_BYTE, CANARY);
	usual = f->ram;
	f->ram = arena + CANARY;
	flat_long(f);
	flat_exec(f);
	put_handlers(f);
	load(f, driver);
	f->cpu->gpr[RBX] = TARGET;
	f->cpu->gpr[RCX] = ROUNDS;
	f->cpu->gpr[RSI] = FLAT_DATA;
	return f;
}

static void done(struct flat *f)
{
	for (unsigned i = 0; i < CANARY; i++) {
		assert_int_equal(arena[i], CANARY_BYTE);
		assert_int_equal(arena[CANARY + FLAT_RAM + i], CANARY_BYTE);
	}
	munmap(arena, FLAT_RAM + 2 * CANARY);
	f->ram = usual;
	flat_free(f);
}

/* Run to the end, user space answering. */
static void all_rounds(struct flat *f)
{
	enum cpu_exit_kind kind;

	do {
		f->nr_events = 0;
		kind = cpu_run(f->cpu);
	} while (kind != CPU_EXIT_HLT && flat_answer(f));
	assert_int_equal(kind, CPU_EXIT_HLT);
}

#define PUT(f, name) flat_write(f, TARGET, name, name##_end - name)

static void expect_fault(struct flat *f, uint64_t times, uint8_t vector, uint64_t rip)
{
	all_rounds(f);
	assert_int_equal(f->cpu->gpr[R13], times);
	assert_int_equal((uint32_t)f->cpu->gpr[R10], vector);
	assert_int_equal(f->cpu->gpr[R12], rip);
	done(f);
}

/* ---- where instructions begin and end ---- */

/* ADD EAX,imm32; JMP R14, whose immediate is a JMP R14, too. */
static void middle_of_an_instruction(void **state)
{
	static const uint8_t code[] = {0x05, 0x41, 0xff, 0xe6, 0, 0x41, 0xff, 0xe6};
	struct flat *f = machine();

	flat_write(f, TARGET, code, sizeof(code));
	f->cpu->gpr[RAX] = 0;
	f->cpu->gpr[RDX] = 1;
	all_rounds(f);
	assert_int_equal(f->cpu->gpr[RAX], (uint32_t)(ROUNDS / 2 * 0xe6ff41ul));
	assert_int_equal(f->cpu->gpr[R13], 0);
	done(f);
}

static void prefixes(struct flat *f, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		flat_poke(f, TARGET + i, 0x66, 1);
	flat_poke(f, TARGET + count, 0xe6ff4190, 4); /* nop; jmp r14 */
}

static void fifteen_bytes(void **state)
{
	struct flat *f = machine();

	prefixes(f, 14);
	all_rounds(f);
	assert_int_equal(f->cpu->gpr[R13], 0);
	done(f);
}

static void sixteen_bytes(void **state)
{
	struct flat *f = machine();

	prefixes(f, 15);
	expect_fault(f, ROUNDS, VEC_GP, TARGET);
}

/* ---- where code ends ---- */

GUEST(jumps_into_hole, 64, "nop; mov rax,0x800000000000; jmp rax");
GUEST(returns_into_hole, 64, "mov rax,0x8000000000000000; push rax; ret");

static void jump_into_hole(void **state)
{
	struct flat *f = machine();

	PUT(f, jumps_into_hole);
	expect_fault(f, ROUNDS, VEC_GP, TARGET + 11);
}

static void return_into_hole(void **state)
{
	struct flat *f = machine();

	PUT(f, returns_into_hole);
	expect_fault(f, ROUNDS, VEC_GP, TARGET + 11);
}

static struct flat *at_hole(const void *code, unsigned size)
{
	struct flat *f = machine();

	flat_map(f, HIGHEST, TARGET, PTE_P | PTE_W, PAGE_SIZE);
	flat_write(f, TARGET + PAGE_SIZE - size, code, size);
	f->cpu->gpr[RBX] = HOLE - size;
	return f;
}

/* The last instruction retires; the next cannot be fetched. */
static void fall_into_hole(void **state)
{
	struct flat *f = at_hole("\x48\xff\xc0", 3);

	f->cpu->gpr[RAX] = 0;
	all_rounds(f);
	assert_int_equal(f->cpu->gpr[RAX], ROUNDS);
	assert_int_equal(f->cpu->gpr[R13], ROUNDS);
	assert_int_equal((uint32_t)f->cpu->gpr[R10], VEC_GP);
	assert_int_equal(f->cpu->gpr[R12], HOLE);
	done(f);
}

static void half_in_hole(void **state)
{
	expect_fault(at_hole("\x48\xff", 2), ROUNDS, VEC_GP, HOLE - 2);
}

/* ---- code that is not RAM ---- */

static void expect_no_code(struct flat *f, uint64_t rip)
{
	f->cpu->gpr[RBX] = rip;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_EMULATION);
	assert_int_equal(f->cpu->rip, rip);
	done(f);
}

static void end_of_ram(void **state)
{
	struct flat *f = machine();

	flat_poke(f, FLAT_RAM - 2, 0x9090, 2);
	f->cpu->gpr[RBX] = FLAT_RAM - 2;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_EMULATION);
	assert_int_equal(f->cpu->rip, FLAT_RAM);
	done(f);
}

static void half_in_ram(void **state)
{
	struct flat *f = machine();

	flat_poke(f, FLAT_RAM - 2, 0x11b8, 2); /* mov eax,imm32 */
	expect_no_code(f, FLAT_RAM - 2);
}

static void code_in_mmio(void **state)
{
	expect_no_code(machine(), FLAT_MMIO);
}

static void code_in_device(void **state)
{
	expect_no_code(machine(), FLAT_DEVICE + 0x80);
}

/* ROM runs; its stores to itself go to a device and change nothing. */
GUEST(rom, 64, "inc rax; mov byte ptr [rip-3],0; jmp r14");

static void code_in_rom(void **state)
{
	struct flat *f = machine();

	memcpy(f->rom, rom, rom_end - rom);
	f->cpu->gpr[RBX] = FLAT_ROM;
	f->cpu->gpr[RAX] = 0;
	all_rounds(f);
	assert_int_equal(f->cpu->gpr[RAX], ROUNDS);
	assert_memory_equal(f->rom, rom, rom_end - rom);
	done(f);
}

/* ---- code that goes and changes ---- */

/* RSI is the page's own PTE: gone behind INVLPG, until the driver makes it present. */
GUEST(vanishes, 64, "and qword ptr [rsi],-2; invlpg [rip]; jmp r14");

static void page_vanishes(void **state)
{
	struct flat *f = machine();

	PUT(f, vanishes);
	flat_map(f, TARGET, TARGET, PTE_P | PTE_W, PAGE_SIZE);
	f->cpu->gpr[RSI] = flat_entry(f, TARGET, 1);
	all_rounds(f);
	assert_int_equal(f->cpu->gpr[R13], ROUNDS);
	assert_int_equal((uint32_t)f->cpu->gpr[R10], VEC_PF);
	assert_int_equal(f->cpu->gpr[R11], f->cpu->gpr[R12]);
	assert_int_equal(f->cpu->gpr[R12], TARGET + (vanishes_end - vanishes) - 3);
	done(f);
}

/* The immediate of the very next instruction counts up. */
GUEST(next_byte, 64, "inc byte ptr [rip+1]; .byte 0xb0,0; movzx eax,al; add rdi,rax; jmp r14");

static void changes_next_byte(void **state)
{
	uint64_t sum = 0;
	struct flat *f = machine();

	for (unsigned i = 1; i <= ROUNDS; i++)
		sum += (uint8_t)i;
	PUT(f, next_byte);
	f->cpu->gpr[RDI] = 0;
	all_rounds(f);
	assert_int_equal(f->cpu->gpr[RDI], sum);
	done(f);
}

/* ---- stacks and data that are no memory ---- */

GUEST(stack_in_device, 64, "lea rsp,[rdi+0x100]; call 1f; 1: push rax; pop rax; ret");

/* All ones come back from it, an address that nothing is mapped at. */
static void stack_is_device(void **state)
{
	struct flat *f = machine();

	PUT(f, stack_in_device);
	f->cpu->gpr[RDI] = FLAT_MMIO;
	expect_fault(f, ROUNDS, VEC_PF, ~0ull);
}

GUEST(stack_in_hole, 64, "mov rsp,rdi; push rax");

static void stack_is_hole(void **state)
{
	struct flat *f = machine();

	PUT(f, stack_in_hole);
	f->cpu->gpr[RDI] = HOLE + 0x1000;
	flat_poke(f, FLAT_TSS + 36, FLAT_STACK - 0x1000, 8); /* IST1 */
	for (unsigned vector = 0; vector < 32; vector++)
		flat_poke(f, FLAT_IDT + 16 * vector + 4, 1, 1);
	expect_fault(f, ROUNDS, VEC_SS, TARGET + 3);
}

/* The translator's own addresses, and what lies on both sides of RAM, are nothing in the guest. */
GUEST(writes, 64, "mov [rdi],rax; jmp r14");

static void expect_unmapped(uint64_t addr)
{
	struct flat *f = machine();

	PUT(f, writes);
	f->cpu->gpr[RDI] = addr ? addr : (uint64_t)arena;
	expect_fault(f, ROUNDS, VEC_PF, TARGET);
}

static void host_addresses(void **state)
{
	expect_unmapped(0);
	expect_unmapped((uint64_t)&arena);
	expect_unmapped((uint64_t)cpu_run);
}

GUEST(far_off, 64, "mov [rdi+0x7fffffff],eax; mov [rdi-0x80000000],eax; mov [rdi],eax; jmp r14");

/* Three accesses off one base: the first is below RAM's end, then one in the hole of the address space. */
static void offsets_reach_out(void **state)
{
	struct flat *f = machine();

	PUT(f, far_off);
	f->cpu->gpr[RDI] = FLAT_DATA - 0x7fffffff;
	expect_fault(f, ROUNDS, VEC_PF, TARGET + 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(middle_of_an_instruction),
		cmocka_unit_test(fifteen_bytes),
		cmocka_unit_test(sixteen_bytes),
		cmocka_unit_test(jump_into_hole),
		cmocka_unit_test(return_into_hole),
		cmocka_unit_test(fall_into_hole),
		cmocka_unit_test(half_in_hole),
		cmocka_unit_test(end_of_ram),
		cmocka_unit_test(half_in_ram),
		cmocka_unit_test(code_in_mmio),
		cmocka_unit_test(code_in_device),
		cmocka_unit_test(code_in_rom),
		cmocka_unit_test(page_vanishes),
		cmocka_unit_test(changes_next_byte),
		cmocka_unit_test(stack_is_device),
		cmocka_unit_test(stack_is_hole),
		cmocka_unit_test(host_addresses),
		cmocka_unit_test(offsets_reach_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
