/* SPDX-License-Identifier: MIT */
/* host/: guarded accesses, block copies, code memory, generated code ranges. */
#include "host/guard.h"
#include "host/host.h"
#include "host/signal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* An address that the compiler does not reason about. */
static void *hidden(uintptr_t addr)
{
	asm volatile("" : "+r"(addr));
	return (void *)addr;
}

/* cmocka puts its own handlers in place for each test. */
static uint8_t *two_pages(int *ret_fd)
{
	int fd = host_memfd("test", 2 * PAGE_SIZE, true);
	uint8_t *p = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	assert_int_equal(host_fault_thread_init(), 0);
	assert_true(fd >= 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	*ret_fd = fd;
	return p;
}

static void drop(uint8_t *p, int fd)
{
	munmap(p, 2 * PAGE_SIZE);
	close(fd);
}

static void loads_and_stores(void **state)
{
	uint64_t q = 0;
	uint32_t l;
	uint16_t w;
	uint8_t b, *p;
	int fd;

	p = two_pages(&fd);
	assert_true(host_store_64(p, 0x1122334455667788));
	assert_true(host_load_8(p, &b) && b == 0x88);
	assert_true(host_load_16(p + 1, &w) && w == 0x6677);
	assert_true(host_load_32(p + 4, &l) && l == 0x11223344);
	assert_true(host_load_64(p, &q) && q == 0x1122334455667788);
	assert_true(host_cmpxchg_64(p, &q, 5));
	assert_true(q == 0x1122334455667788 && p[0] == 5);
	q = 6;
	assert_true(host_cmpxchg_64(p, &q, 7));
	assert_true(q == 5 && p[0] == 5);
	drop(p, fd);
}

/* A truncated file answers SIGBUS, a hole SIGSEGV, read-only memory SIGSEGV, a wild pointer #GP. */
static void faults_are_false(void **state)
{
	uint8_t *p, *wild = (uint8_t *)0x8000000000000000;
	uint64_t q = 42;
	int fd;

	p = two_pages(&fd);
	assert_int_equal(ftruncate(fd, PAGE_SIZE), 0);
	assert_true(host_load_64(p, &q));
	q = 42;
	assert_false(host_load_64(p + PAGE_SIZE, &q));
	assert_int_equal(q, 42);
	assert_false(host_store_8(p + PAGE_SIZE, 1));
	assert_false(host_cmpxchg_32(p + PAGE_SIZE, (uint32_t *)&q, 1));
	assert_false(host_load_32(p + PAGE_SIZE - 2, (uint32_t *)&q));
	assert_false(host_load_64(hidden(0), &q));
	assert_false(host_load_64(wild, &q));
	mprotect(p, PAGE_SIZE, PROT_READ);
	assert_false(host_store_16(p, 1));
	assert_true(host_load_8(p, (uint8_t *)&q));
	drop(p, fd);
}

static void block_copies(void **state)
{
	uint8_t *p, buf[256];
	int fd;

	p = two_pages(&fd);
	memset(buf, 0x5a, sizeof(buf));
	assert_true(host_copy_guarded(p, buf, sizeof(buf)));
	assert_memory_equal(p, buf, sizeof(buf));
	assert_int_equal(ftruncate(fd, PAGE_SIZE), 0);
	assert_false(host_copy_guarded(p + PAGE_SIZE - 8, buf, 16));
	assert_false(host_copy_guarded(buf, p + PAGE_SIZE - 8, 16));
	assert_true(host_copy_guarded(NULL, NULL, 0));
	drop(p, fd);
}

static void memory_functions(void **state)
{
	static const size_t sizes[] = {0, 1, 7, 8, 9, 31, 63, 64, 65, 200, 1000};
	uint8_t a[2048], b[2048];
	size_t i, j;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t n = sizes[i];

		for (j = 0; j < sizeof(a); j++)
			a[j] = (uint8_t)(j * 7 + (j >> 8));
		for (j = 0; j < sizeof(b); j++)
			b[j] = 0xee;
		memcpy(b + 3, a + 1, n);
		for (j = 0; j < n; j++)
			assert_int_equal(b[3 + j], a[1 + j]);
		assert_int_equal(b[3 + n], 0xee);
		assert_int_equal(memcmp(b + 3, a + 1, n), 0);
		memmove(a + 5, a, n);
		for (j = 0; j < n; j++)
			assert_int_equal(a[5 + j], (uint8_t)(j * 7 + (j >> 8)));
		memmove(a, a + 5, n);
		for (j = 0; j < n; j++)
			assert_int_equal(a[j], (uint8_t)(j * 7 + (j >> 8)));
		memset(b + 1, (int)n, n);
		for (j = 0; j < n; j++)
			assert_int_equal(b[1 + j], (uint8_t)n);
	}
	assert_true(memcmp("abcdefgh1", "abcdefgh2", 9) < 0);
	assert_true(memcmp("\xff", "\x01", 1) > 0);
	assert_true(memcmp("a\xff\0\0\0\0\0\0", "a\x01\0\0\0\0\0\1", 8) > 0);
}

static void code_memory(void **state)
{
	static const uint8_t body[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov $42, %eax; ret */
	struct host_code code;
	int (*fn)(void);

	assert_int_equal(host_fault_thread_init(), 0);
	assert_int_equal(host_code_alloc(&code, 1), 0);
	assert_int_equal(code.size, PAGE_SIZE);
	memcpy(code.rw, body, sizeof(body));
	fn = (int (*)(void))(void *)code.rx;
	assert_int_equal(fn(), 42);
	code.rw[1] = 43;
	assert_int_equal(fn(), 43);
	assert_false(host_store_8(code.rx, 0));
	host_code_free(&code);
	assert_int_equal(code.size, 0);
	assert_int_equal(host_code_alloc(&code, 0), -EINVAL);
}

static bool skip_div(void *opaque, const struct host_trap *trap, ucontext_t *uc)
{
	struct host_trap *seen = opaque;

	*seen = *trap;
	uc->uc_mcontext.gregs[REG_RIP] += 2;
	return true;
}

static void code_ranges(void **state)
{
	static const uint8_t body[] = {0x31, 0xc9, 0xf7, 0xf1, 0xc3}; /* xor ecx; div ecx; ret */
	struct host_trap seen = {0};
	struct host_code code;

	assert_int_equal(host_fault_thread_init(), 0);
	assert_int_equal(host_code_alloc(&code, PAGE_SIZE), 0);
	memcpy(code.rw, body, sizeof(body));
	assert_int_equal(host_fault_range_add(code.rx, code.size, skip_div, &seen), 0);
	((void (*)(void))(void *)code.rx)();
	assert_int_equal(seen.signo, SIGFPE);
	assert_int_equal(seen.trapno, 0);
	assert_int_equal(seen.rip, (uintptr_t)code.rx + 2);
	host_fault_range_remove(code.rx);
	host_code_free(&code);
}

/* A fault outside every table is the program's: default death, with its own signal. */
static void foreign_fault_kills(void **state)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		host_fault_thread_init();
		*(volatile int *)hidden(8) = 1;
		_exit(0);
	}
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
}

static void *faults_in_thread(void *arg)
{
	uint64_t q;

	if (host_fault_thread_init() || host_load_64(hidden(16), &q))
		return (void *)1;
	return NULL;
}

static void threads(void **state)
{
	pthread_t thread[8];
	void *ret;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(thread); i++)
		assert_int_equal(pthread_create(&thread[i], NULL, faults_in_thread, NULL), 0);
	for (i = 0; i < ARRAY_SIZE(thread); i++) {
		pthread_join(thread[i], &ret);
		assert_null(ret);
	}
}

/* The rate must fit CLOCK_MONOTONIC over a short while, to 1 in 1000. */
static void clocks(void **state)
{
	uint64_t khz = host_tsc_khz();
	uint64_t tsc = host_rdtsc(), ns = host_monotonic_ns(), want;

	while (host_monotonic_ns() - ns < 20000000)
		;
	tsc = host_rdtsc() - tsc;
	ns = host_monotonic_ns() - ns;
	want = ns * khz / 1000000;
	assert_true(tsc > want - want / 1000 && tsc < want + want / 1000);
	assert_int_equal(host_tsc_khz(), khz);
	assert_true(host_realtime_ns() > 1500000000ull * 1000000000);
}

static void system_calls(void **state)
{
	uint32_t word = 1;

	assert_int_equal(host_gettid(), gettid());
	assert_int_equal(host_syscall(-1, 0, 0, 0, 0, 0, 0), -ENOSYS);
	assert_int_equal(host_futex_wait(&word, 0, 0), -EAGAIN);
	assert_int_equal(host_futex_wait(&word, 1, 1000), -ETIMEDOUT);
	assert_int_equal(host_futex_wake(&word, 1), 0);
	assert_int_equal(host_futex_wait_shared(&word, 0, 0), -EAGAIN);
	assert_int_equal(host_futex_wait_shared(&word, 1, 1000), -ETIMEDOUT);
}

/* A process wakes another one that waits on memory of both, long before it gives up. */
static void wake_between_processes(void **state)
{
	uint32_t *word =
		mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t child;
	int status;

	assert_true(word != MAP_FAILED);
	child = fork();
	if (!child)
		_exit(host_futex_wait_shared(word, 0, 20000000000ull) ? 1 : 0);
	while (!host_futex_wake_shared(word, 1))
		assert_int_equal(waitpid(child, &status, WNOHANG), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	munmap(word, PAGE_SIZE);
}

static void log_lines(void **state)
{
	static const char want[] =
		"anykvm: s=ab|   7|-3|0x1f|00ff|18446744073709551615|c%|0x10|abc|\n";
	char got[256] = {0};
	int pipes[2], err;

	assert_int_equal(pipe(pipes), 0);
	err = dup(2);
	dup2(pipes[1], 2);
	host_log("s=%s|%4d|%d|%#x|%04x|%lu|%c%%|%p|%.3s|", "ab", 7, -3, 0x1f, 0xff, ~0ul, 'c',
		 (void *)16, "abcdef");
	dup2(err, 2);
	close(err);
	assert_int_equal(read(pipes[0], got, sizeof(got) - 1), sizeof(want) - 1);
	assert_string_equal(got, want);
	close(pipes[0]);
	close(pipes[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loads_and_stores),
		cmocka_unit_test(faults_are_false),
		cmocka_unit_test(block_copies),
		cmocka_unit_test(memory_functions),
		cmocka_unit_test(code_memory),
		cmocka_unit_test(code_ranges),
		cmocka_unit_test(foreign_fault_kills),
		cmocka_unit_test(threads),
		cmocka_unit_test(clocks),
		cmocka_unit_test(system_calls),
		cmocka_unit_test(wake_between_processes),
		cmocka_unit_test(log_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
