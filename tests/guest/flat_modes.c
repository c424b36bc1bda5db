/* SPDX-License-Identifier: MIT */
/* The flat machine runs code in each of its modes, reaches its handlers, its devices and its ports. */
#include "flat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define RUN(f, bytes) run(f, bytes, sizeof(bytes) - 1)

static enum cpu_exit_kind run(struct flat *f, const char *bytes, size_t size)
{
	flat_code(f, bytes, size);
	return flat_run(f, 10000);
}

/* mov eax,5; inc eax; push eax; pop ebx; hlt, in 16-, 32- and 64-bit code. */
static void each_mode(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_real(f);
	assert_int_equal(RUN(f, "\xb8\x05\x00\x40\x50\x5b\xf4"), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RBX], 6);
	flat_prot16(f);
	assert_int_equal(RUN(f, "\xb8\x05\x00\x40\x50\x5b\xf4"), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RBX], 6);
	flat_prot32(f);
	assert_int_equal(RUN(f, "\xb8\x05\0\0\0\x40\x50\x5b\xf4"), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RBX], 6);
	flat_paging32(f);
	assert_int_equal(RUN(f, "\xb8\x05\0\0\0\x40\x50\x5b\xf4"), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RBX], 6);
	flat_pae(f);
	assert_int_equal(RUN(f, "\xb8\x05\0\0\0\x40\x50\x5b\xf4"), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RBX], 6);
	flat_compat(f);
	assert_int_equal(RUN(f, "\xb8\x05\0\0\0\x40\x50\x5b\xf4"), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RBX], 6);
	flat_long(f);
	assert_int_equal(RUN(f, "\xb8\x05\0\0\0\xff\xc0\x50\x5b\xf4"), CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RBX], 6);
	assert_int_equal(f->cpu->gpr[RSP], FLAT_STACK);
	flat_free(f);
}

/* ud2 reaches the default handler of vector 6. */
static void handlers(void **state)
{
	static void (*const enter[])(struct flat *) = {flat_real,     flat_prot16, flat_prot32,
						       flat_paging32, flat_pae,	   flat_compat,
						       flat_long};

	for (unsigned i = 0; i < ARRAY_SIZE(enter); i++) {
		struct flat *f = flat_new(FLAT_RAM);

		enter[i](f);
		assert_int_equal(RUN(f, "\x0f\x0b"), CPU_EXIT_HLT);
		assert_int_equal(flat_handler(f), VEC_UD);
		flat_free(f);
	}
}

/* HLT at CPL 3 is #GP(0), delivered on the CPL 0 stack. */
static void user_mode(void **state)
{
	static void (*const enter[])(struct flat *) = {flat_prot32, flat_paging32, flat_pae,
						       flat_compat, flat_long};

	for (unsigned i = 0; i < ARRAY_SIZE(enter); i++) {
		struct flat *f = flat_new(FLAT_RAM);

		enter[i](f);
		flat_user(f);
		assert_int_equal(RUN(f, "\x90\xf4"), CPU_EXIT_HLT);
		assert_int_equal(flat_handler(f), VEC_GP);
		assert_int_equal(f->cpu->mode.cpl, 0);
		assert_in_range(f->cpu->gpr[RSP], FLAT_STACK - 64, FLAT_STACK - 1);
		flat_free(f);
	}
}

static uint64_t fifty(struct flat *f, gpa_t gpa, unsigned size)
{
	return 0x50;
}

/* mov rbx,FLAT_MMIO; mov eax,[rbx+4]; add eax,[rbx+8]; mov [rbx],eax; add dword [rbx+16],1; hlt */
static void mmio(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	f->mmio_in = fifty;
	assert_int_equal(RUN(f, "\xbb\x00\x00\x00\xf0\x8b\x43\x04\x03\x43\x08\x89\x03"
				"\x83\x43\x10\x01\xf4"),
			 CPU_EXIT_HLT);
	assert_int_equal(f->cpu->gpr[RAX], 0xa0);
	assert_int_equal(f->nr_events, 5);
	assert_int_equal(f->events[2].kind, FLAT_MMIO_WRITE);
	assert_int_equal(f->events[2].data, 0xa0);
	assert_int_equal(f->events[3].kind, FLAT_MMIO_READ);
	assert_int_equal(f->events[3].addr, FLAT_MMIO + 16);
	assert_int_equal(f->events[4].kind, FLAT_MMIO_WRITE);
	assert_int_equal(f->events[4].data, 0x51);
	flat_free(f);
}

static uint64_t count_up(struct flat *f, gpa_t gpa, unsigned size)
{
	return f->nr_events + 1;
}

/* rep movsd out of a register that counts: each iteration reads anew, although RIP stays. */
static void mmio_string(gpa_t from)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	f->mmio_in = count_up;
	f->cpu->gpr[RSI] = from;
	f->cpu->gpr[RDI] = FLAT_DATA;
	f->cpu->gpr[RCX] = 3;
	assert_int_equal(RUN(f, "\xf3\xa5\xf4"), CPU_EXIT_HLT);
	assert_int_equal(f->nr_events, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(f->events[i].addr, from + 4 * i);
		assert_int_equal(flat_peek(f, FLAT_DATA + 4 * i, 4), i + 1);
	}
	flat_free(f);
}

static void mmio_strings(void **state)
{
	mmio_string(FLAT_MMIO);
	mmio_string(FLAT_DEVICE);
}

static uint64_t port(struct flat *f, uint16_t number, unsigned size)
{
	return number + f->nr_events;
}

/* in al,0x60; mov ebx,eax; in al,0x60; out 0x61,al; hlt */
static void ports(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	for (unsigned exits = 0; exits < 2; exits++) {
		flat_long(f);
		f->nr_events = 0;
		f->ports_exit = exits;
		f->port_in = port;
		assert_int_equal(RUN(f, "\xe4\x60\x89\xc3\xe4\x60\xe6\x61\xf4"), CPU_EXIT_HLT);
		assert_int_equal(f->cpu->gpr[RBX] & 0xff, 0x60);
		assert_int_equal(f->nr_events, 3);
		assert_int_equal(f->events[2].kind, FLAT_PORT_WRITE);
		assert_int_equal(f->events[2].addr, 0x61);
		assert_int_equal(f->events[2].data, 0x61);
	}
	flat_free(f);
}

static void budget(void **state)
{
	struct flat *f = flat_new(FLAT_RAM);

	flat_long(f);
	flat_code(f, "\x48\xff\xc0\xeb\xfb", 5);
	assert_int_equal(flat_run(f, 1000), CPU_EXIT_REQUEST);
	assert_int_equal(f->cpu->gpr[RAX], 500);
	assert_int_equal(f->cpu->retired, 1000);
	flat_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_mode),	cmocka_unit_test(handlers),
		cmocka_unit_test(user_mode),	cmocka_unit_test(mmio),
		cmocka_unit_test(mmio_strings), cmocka_unit_test(ports),
		cmocka_unit_test(budget),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
