/* SPDX-License-Identifier: MIT */
/*
 * Lock-step on the flat machine: it agrees with itself, asks devices once, and stops where translated code is
 * made wrong behind its back, in a register, in memory, or in a question to a device.
 */
#include "flat.h"
#include "silicon/exec/exec.h"
#include "silicon/exec/lockstep.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MARK 0x12345678u /* an immediate that is found again in translated code */

static struct flat *machine(void)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	f->cpu->exec = exec_create();
	assert_non_null(f->cpu->exec);
	assert_int_equal(exec_set_tempo(f->cpu, "lockstep"), 0);
	assert_non_null(f->cpu->exec->run);
	return f;
}

static void done(struct flat *f)
{
	exec_destroy(f->cpu->exec);
	f->cpu->exec = NULL;
	flat_free(f);
}

#define RUN(f, code) (flat_code(f, code, sizeof(code)), cpu_run((f)->cpu))

/* Change the mark wherever it stands in translated code; false: nowhere. */
static bool spoil(struct flat *f)
{
	struct run *run = f->cpu->exec->run;
	const uint32_t mark = MARK, other = MARK + 1;
	bool found = false;

	for (uint32_t i = run->first; i + 4 <= run->used; i++) {
		if (memcmp(run->code.rw + i, &mark, 4))
			continue;
		memcpy(run->code.rw + i, &other, 4);
		found = true;
	}
	return found;
}

/* mov $1000,%ecx; 1: <8 bytes>; dec %ecx; jnz 1b; hlt */
#define LOOP(...)                                              \
	0xb9, 0xe8, 0x03, 0, 0, __VA_ARGS__, 0xff, 0xc9, 0x75, \
		0xfc - sizeof((uint8_t[]){__VA_ARGS__}), 0xf4

static void agrees(void **state)
{
	static const uint8_t code[] = {LOOP(0x48, 0x05, 0x78, 0x56, 0x34, 0x12, /* add $MARK,%rax */
					    0x48, 0x89, 0x04, 0x25, 0, 0, 0x10,
					    0x00)}; /* mov %rax,FLAT_DATA */
	struct flat *f = machine();
	uint64_t want = 1000ull * MARK;

	f->cpu->retired = 0;
	assert_int_equal(RUN(f, code), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], want);
	assert_memory_equal(f->ram + FLAT_DATA, &want, 8);
	assert_int_equal(f->cpu->retired, 4002);
	assert_true(f->cpu->exec->run->lockstep->nr_paired > 3900);
	assert_true(f->cpu->exec->run->count[COUNT_BLOCK] > 0);
	done(f);
}

/* Each read comes to the device once, and what it answers is what stays. */
static void asks_devices_once(void **state)
{
	static const uint8_t code[] = {LOOP(0x8b, 0x06,	  /* mov (%rsi),%eax */
					    0x89, 0x06,	  /* mov %eax,(%rsi) */
					    0x01, 0xc3)}; /* add %eax,%ebx */
	struct flat *f = machine();

	f->cpu->gpr[RSI] = FLAT_DEVICE;
	f->cpu->gpr[RCX] = 0;
	flat_code(f, code, sizeof(code));
	f->ram[FLAT_CODE + 1] = 100;
	f->ram[FLAT_CODE + 2] = 0;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_int_equal(f->nr_events, 200);
	assert_int_equal(f->cpu->gpr[RBX], (uint32_t)(100 * ~0u));
	done(f);
}

static void finds(const uint8_t *code, size_t size)
{
	struct flat *f = machine();

	f->cpu->gpr[RSI] = FLAT_DEVICE;
	flat_code(f, code, size);
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_HLT);
	assert_true(spoil(f));
	f->cpu->activity = ACTIVITY_RUN;
	f->cpu->rip = FLAT_CODE;
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_INTERNAL);
	assert_int_equal(cpu_run(f->cpu), CPU_EXIT_INTERNAL);
	done(f);
}

static void finds_registers(void **state)
{
	static const uint8_t code[] = {LOOP(0x48, 0x05, 0x78, 0x56, 0x34, 0x12)};

	finds(code, sizeof(code));
}

static void finds_memory(void **state)
{
	/* movl $MARK,FLAT_DATA(,%rcx,4): the last of a stretch may be stepped in both */
	static const uint8_t code[] = {
		LOOP(0xc7, 0x04, 0x8d, 0, 0, 0x10, 0x00, 0x78, 0x56, 0x34, 0x12)};

	finds(code, sizeof(code));
}

static void finds_vector_state(void **state)
{
	/* mov $MARK,%eax; movd %eax,%xmm3; paddd %xmm3,%xmm4; xor %eax,%eax */
	static const uint8_t code[] = {LOOP(0xb8, 0x78, 0x56, 0x34, 0x12, 0x66, 0x0f, 0x6e, 0xd8,
					    0x66, 0x0f, 0xfe, 0xe3, 0x31, 0xc0)};

	finds(code, sizeof(code));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees),
		cmocka_unit_test(asks_devices_once),
		cmocka_unit_test(finds_registers),
		cmocka_unit_test(finds_memory),
		cmocka_unit_test(finds_vector_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
