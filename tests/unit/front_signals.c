/* SPDX-License-Identifier: MIT */
/* The door, preloaded: signal actions are to the program what they are without it. */
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "fake_api.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* siginterrupt() */

static volatile int count, last_signo;
static siginfo_t last_info;
static volatile uintptr_t last_sp;
static sigset_t last_mask;

static void note(int signo)
{
	int here;

	count++;
	last_signo = signo;
	last_sp = (uintptr_t)&here;
	pthread_sigmask(SIG_BLOCK, NULL, &last_mask);
}

static void note_info(int signo, siginfo_t *info, void *uc)
{
	last_info = *info;
	note(signo);
}

/* As a program that uses KVM: from here on the fault signals are anykvm's first. */
static void use_kvm(void)
{
	int fd = open("/dev/kvm", O_RDWR);

	assert_int_equal(ioctl(fd, KVM_GET_API_VERSION, 0), 12);
	close(fd);
}

static void install(int signo, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction act = {.sa_flags = flags | SA_SIGINFO};

	act.sa_sigaction = handler;
	assert_int_equal(sigaction(signo, &act, NULL), 0);
}

static void old_action(void **state)
{
	struct sigaction act = {.sa_flags = SA_RESTART}, old;

	act.sa_handler = note;
	sigaddset(&act.sa_mask, SIGUSR2);
	assert_int_equal(sigaction(SIGUSR1, &act, &old), 0);
	assert_ptr_equal(old.sa_handler, SIG_DFL);
	assert_int_equal(sigaction(SIGUSR1, NULL, &old), 0);
	assert_ptr_equal(old.sa_handler, note);
	assert_int_equal(old.sa_flags & ~0x04000000, SA_RESTART);
	assert_true(sigismember(&old.sa_mask, SIGUSR2));
	assert_false(sigismember(&old.sa_mask, SIGUSR1));
	assert_ptr_equal(signal(SIGUSR1, SIG_IGN), note);
	assert_ptr_equal(signal(SIGUSR1, SIG_DFL), SIG_IGN);
	assert_ptr_equal(signal(SIGUSR1, SIG_DFL), SIG_DFL);
}

static void refusals(void **state)
{
	struct sigaction act = {0};
	static const int bad[] = {0, -1, 65, 32, 33, SIGKILL, SIGSTOP};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		errno = 0;
		assert_int_equal(sigaction(bad[i], &act, NULL), -1);
		assert_int_equal(errno, EINVAL);
		assert_ptr_equal(signal(bad[i], note), SIG_ERR);
	}
	assert_ptr_equal(signal(SIGUSR1, SIG_ERR), SIG_ERR);
	assert_int_equal(sigaction(SIGKILL, NULL, &act), 0);
}

static void plain_delivery(void **state)
{
	count = 0;
	signal(SIGUSR1, note);
	raise(SIGUSR1);
	raise(SIGUSR1);
	assert_int_equal(count, 2);
	assert_int_equal(last_signo, SIGUSR1);
	assert_true(sigismember(&last_mask, SIGUSR1));
	signal(SIGUSR1, SIG_IGN);
	raise(SIGUSR1);
	assert_int_equal(count, 2);
}

static void siginfo_kept(void **state)
{
	union sigval val = {.sival_int = 4711};

	install(SIGUSR1, note_info, 0);
	sigqueue(getpid(), SIGUSR1, val);
	assert_int_equal(last_info.si_value.sival_int, 4711);
	assert_int_equal(last_info.si_code, SI_QUEUE);
	signal(SIGUSR1, SIG_DFL);
}

static void flags(void **state)
{
	struct sigaction old;

	install(SIGUSR1, note_info, SA_RESETHAND | SA_NODEFER);
	raise(SIGUSR1);
	assert_false(sigismember(&last_mask, SIGUSR1));
	sigaction(SIGUSR1, NULL, &old);
	assert_ptr_equal(old.sa_handler, SIG_DFL);
	assert_true(old.sa_flags & SA_RESETHAND);
	sysv_signal(SIGUSR1, note);
	sigaction(SIGUSR1, NULL, &old);
	assert_true((unsigned)old.sa_flags & SA_RESETHAND);
	assert_true(old.sa_flags & SA_NODEFER);
	signal(SIGUSR1, note);
	siginterrupt(SIGUSR1, 1);
	sigaction(SIGUSR1, NULL, &old);
	assert_false(old.sa_flags & SA_RESTART);
	siginterrupt(SIGUSR1, 0);
	sigaction(SIGUSR1, NULL, &old);
	assert_true(old.sa_flags & SA_RESTART);
	signal(SIGUSR1, SIG_DFL);
}

static int death(void (*act)(void))
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		act();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 1000 + WEXITSTATUS(status);
}

static void twice(void)
{
	install(SIGUSR1, note_info, SA_RESETHAND);
	raise(SIGUSR1);
	raise(SIGUSR1);
}

static void crash(void)
{
	volatile int *p = (int *)8;

	asm volatile("" : "+r"(p));
	*p = 1;
}

static void crash_by_default(void)
{
	signal(SIGSEGV, SIG_DFL);
	use_kvm();
	crash();
}

static void crash_ignored(void)
{
	signal(SIGSEGV, SIG_IGN);
	use_kvm();
	crash();
}

static void killed_by_default(void)
{
	signal(SIGTRAP, SIG_DFL);
	use_kvm();
	raise(SIGTRAP);
}

static void trap_by_default(void)
{
	signal(SIGTRAP, SIG_DFL);
	use_kvm();
	asm volatile("int3");
}

static void sent_and_ignored(void)
{
	signal(SIGSEGV, SIG_IGN);
	use_kvm();
	raise(SIGSEGV);
	_exit(7);
}

static void abort_itself(void)
{
	use_kvm();
	abort();
}

static void reset_on_crash(void)
{
	signal(SIGSEGV, SIG_DFL);
	use_kvm();
	install(SIGSEGV, note_info, SA_RESETHAND);
	crash(); /* the handler returns: again, by default */
}

static void overflow(void)
{
	struct sigaction act = {.sa_handler = note};

	use_kvm();
	sigaction(SIGSEGV, &act, NULL);
	/* No stack to run the handler on. */
	asm volatile("xor %%esp, %%esp\n\tpush %%rax" : : : "memory");
}

static void deaths(void **state)
{
	assert_int_equal(death(twice), SIGUSR1);
	assert_int_equal(death(crash_by_default), SIGSEGV);
	assert_int_equal(death(crash_ignored), SIGSEGV);
	assert_int_equal(death(killed_by_default), SIGTRAP);
	assert_int_equal(death(trap_by_default), SIGTRAP);
	assert_int_equal(death(sent_and_ignored), 1007);
	assert_int_equal(death(abort_itself), SIGABRT);
	assert_int_equal(death(reset_on_crash), SIGSEGV);
	assert_int_equal(death(overflow), SIGSEGV);
}

/* ---- The program's own fault handlers ---- */

static sigjmp_buf back;
static void *fault_addr;

static void jump_back(int signo, siginfo_t *info, void *opaque)
{
	note(signo);
	fault_addr = info->si_addr;
	siglongjmp(back, 1);
}

static bool catches(void)
{
	fault_addr = NULL;
	if (!sigsetjmp(back, 1))
		crash();
	return fault_addr == (void *)8;
}

static void own_handler_before(void **state)
{
	install(SIGSEGV, jump_back, 0);
	assert_true(catches());
	use_kvm();
	assert_true(catches());
	assert_true(catches());
}

static void own_handler_after(void **state)
{
	struct sigaction old;

	use_kvm();
	install(SIGSEGV, jump_back, 0);
	assert_true(catches());
	sigaction(SIGSEGV, NULL, &old);
	assert_ptr_equal(old.sa_sigaction, jump_back);
	assert_int_equal(old.sa_flags & ~0x04000000, SA_SIGINFO);
	signal(SIGSEGV, SIG_DFL);
	sigaction(SIGSEGV, NULL, &old);
	assert_ptr_equal(old.sa_handler, SIG_DFL);
}

/* The handler mends the context and returns: registers and vector state survive. */
static void mend(int signo, siginfo_t *info, void *opaque)
{
	ucontext_t *uc = opaque;

	asm volatile("pxor %%xmm7, %%xmm7" : : : "xmm7");
	uc->uc_mcontext.gregs[REG_RAX] = (uintptr_t)&count;
	note(signo);
}

static void handler_returns(void **state)
{
	uint64_t in = 0x1122334455667788, out = 0;

	use_kvm();
	install(SIGSEGV, mend, 0);
	asm volatile("movq %1, %%xmm7\n\t"
		     "mov $8, %%eax\n\t"
		     "mov (%%rax), %%eax\n\t"
		     "movq %%xmm7, %0"
		     : "=r"(out)
		     : "r"(in)
		     : "rax", "xmm7", "memory");
	assert_true(in == out);
	assert_int_equal(last_signo, SIGSEGV);
	assert_true(sigismember(&last_mask, SIGSEGV));
	pthread_sigmask(SIG_BLOCK, NULL, &last_mask);
	assert_false(sigismember(&last_mask, SIGSEGV));
	signal(SIGSEGV, SIG_DFL);
}

/* ---- Stacks ---- */

static bool near(uintptr_t sp, const void *base, size_t size)
{
	return sp - (uintptr_t)base < size;
}

/* The program has no alternate stack: its handlers run where the signal struck. */
static void no_alternate_stack(void **state)
{
	stack_t now;
	int here;

	use_kvm();
	assert_int_equal(sigaltstack(NULL, &now), 0);
	assert_int_equal(now.ss_flags, SS_DISABLE);
	install(SIGUSR1, note_info, SA_ONSTACK);
	raise(SIGUSR1);
	assert_true((uintptr_t)&here - last_sp < 65536);
	install(SIGSEGV, jump_back, SA_ONSTACK);
	assert_true(catches());
	assert_true((uintptr_t)&here - last_sp < 65536);
}

static void own_alternate_stack(void **state)
{
	static char small[16384], large[262144];
	stack_t set = {.ss_sp = small, .ss_size = sizeof(small)}, now;
	int here;

	use_kvm();
	assert_int_equal(sigaltstack(&set, NULL), 0);
	assert_int_equal(sigaltstack(NULL, &now), 0);
	assert_ptr_equal(now.ss_sp, small);
	set = (stack_t){.ss_sp = large, .ss_size = sizeof(large)};
	assert_int_equal(sigaltstack(&set, &now), 0);
	assert_ptr_equal(now.ss_sp, small);
	install(SIGUSR1, note_info, SA_ONSTACK);
	raise(SIGUSR1);
	assert_true(near(last_sp, large, sizeof(large)));
	install(SIGSEGV, jump_back, SA_ONSTACK);
	assert_true(catches());
	assert_true(near(last_sp, large, sizeof(large)));
	/* Not asked for: not on it. */
	install(SIGSEGV, jump_back, 0);
	assert_true(catches());
	assert_true((uintptr_t)&here - last_sp < 65536);
	set = (stack_t){.ss_flags = SS_DISABLE};
	assert_int_equal(sigaltstack(&set, &now), 0);
	assert_ptr_equal(now.ss_sp, large);
	assert_int_equal(sigaltstack(NULL, &now), 0);
	assert_int_equal(now.ss_flags, SS_DISABLE);
	use_kvm();
	install(SIGSEGV, jump_back, SA_ONSTACK);
	assert_true(catches());
	assert_true((uintptr_t)&here - last_sp < 65536);
	set = (stack_t){.ss_sp = small, .ss_size = 100};
	assert_int_equal(sigaltstack(&set, NULL), -1);
	assert_int_equal(errno, ENOMEM);
	set = (stack_t){.ss_sp = small, .ss_size = sizeof(small), .ss_flags = 77};
	assert_int_equal(sigaltstack(&set, NULL), -1);
	assert_int_equal(errno, EINVAL);
	signal(SIGSEGV, SIG_DFL);
	signal(SIGUSR1, SIG_DFL);
}

/* A file cut short under the program's own access is the program's SIGBUS. */
static void truncated_file(void **state)
{
	int fd = memfd_create("cut", 0);
	volatile char *p;

	assert_int_equal(ftruncate(fd, 4096), 0);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	use_kvm();
	install(SIGBUS, jump_back, 0);
	last_signo = 0;
	if (!sigsetjmp(back, 1))
		p[0] = 1;
	assert_int_equal(last_signo, SIGBUS);
	assert_ptr_equal(fault_addr, p);
	munmap((void *)p, 4096);
	close(fd);
	signal(SIGBUS, SIG_DFL);
}

/* A blocked fault signal would kill the process at anykvm's own guarded access. */
static void blocked_fault_signals(void **state)
{
	int fd = open("/dev/kvm", O_RDWR);
	sigset_t all, before, after;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	assert_int_equal(ioctl(fd, FAKE_TOUCH, 8), -1);
	assert_int_equal(errno, EFAULT);
	pthread_sigmask(SIG_SETMASK, &before, &after);
	assert_true(sigismember(&after, SIGSEGV));
	assert_true(sigismember(&after, SIGUSR1));
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(old_action),
		cmocka_unit_test(refusals),
		cmocka_unit_test(plain_delivery),
		cmocka_unit_test(siginfo_kept),
		cmocka_unit_test(flags),
		cmocka_unit_test(deaths),
		cmocka_unit_test(own_handler_before),
		cmocka_unit_test(own_handler_after),
		cmocka_unit_test(handler_returns),
		cmocka_unit_test(no_alternate_stack),
		cmocka_unit_test(own_alternate_stack),
		cmocka_unit_test(truncated_file),
		cmocka_unit_test(blocked_fault_signals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
