/* SPDX-License-Identifier: MIT */
/* The door, preloaded: signals, cancellation and fork while a call is being served. */
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
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_api.h"

#define LONG_MS 5000

static volatile int count;
static siginfo_t last_info;
static sigjmp_buf back;

static void note(int signo, siginfo_t *info, void *uc)
{
	last_info = *info;
	count++;
}

static void jump(int signo, siginfo_t *info, void *uc)
{
	count++;
	siglongjmp(back, 1);
}

static void install(int signo, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction act = {.sa_flags = flags | SA_SIGINFO};

	act.sa_sigaction = handler;
	assert_int_equal(sigaction(signo, &act, NULL), 0);
}

static int open_kvm(void)
{
	int fd = open("/dev/kvm", O_RDWR);

	assert_true(fd >= 0);
	count = 0;
	return fd;
}

static void alarm_ms(int ms)
{
	struct itimerval timer = {.it_value = {.tv_usec = ms * 1000}};

	setitimer(ITIMER_REAL, &timer, NULL);
}

static void expect_eintr(int fd, unsigned long request, unsigned long arg)
{
	assert_int_equal(ioctl(fd, request, arg), -1);
	assert_int_equal(errno, EINTR);
}

/* KVM_RUN is never restarted, whatever SA_RESTART says; the handler runs once. */
static void signal_ends_run(void **state)
{
	int fd = open_kvm();
	sigset_t mask;

	install(SIGALRM, note, SA_RESTART);
	alarm_ms(20);
	expect_eintr(fd, KVM_RUN, LONG_MS);
	assert_int_equal(count, 1);
	assert_int_equal(last_info.si_code, SI_KERNEL);
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	assert_false(sigismember(&mask, SIGALRM));
	assert_int_equal(ioctl(fd, KVM_RUN, 1), 0);
	close(fd);
}

/* Before KVM_RUN is where it can be kicked. */
static void early_signal(void **state)
{
	int fd = open_kvm();

	install(SIGUSR1, note, 0);
	expect_eintr(fd, FAKE_RAISE, SIGUSR1);
	assert_int_equal(count, 1);
	assert_int_equal(last_info.si_code, SI_TKILL);
	close(fd);
}

static void one_shot(void **state)
{
	struct sigaction old;
	int fd = open_kvm();

	install(SIGUSR1, note, SA_RESETHAND);
	expect_eintr(fd, FAKE_RAISE, SIGUSR1);
	assert_int_equal(count, 1);
	sigaction(SIGUSR1, NULL, &old);
	assert_ptr_equal(old.sa_handler, SIG_DFL);
	close(fd);
}

static void siginfo_kept(void **state)
{
	union sigval val = {.sival_int = 99};
	int fd = open_kvm(), i;

	install(SIGRTMIN + 3, note, 0);
	for (i = 0; i < 3; i++) {
		pid_t pid = fork();

		if (!pid) {
			usleep(20000);
			sigqueue(getppid(), SIGRTMIN + 3, val);
			_exit(0);
		}
		expect_eintr(fd, KVM_RUN, LONG_MS);
		assert_int_equal(count, i + 1);
		assert_int_equal(last_info.si_value.sival_int, 99);
		assert_int_equal(last_info.si_pid, pid);
		waitpid(pid, NULL, 0);
	}
	close(fd);
}

static void leaves_by_longjmp(void **state)
{
	int fd = open_kvm(), i;

	install(SIGALRM, jump, 0);
	for (i = 1; i <= 3; i++) {
		if (!sigsetjmp(back, 1)) {
			alarm_ms(10);
			ioctl(fd, KVM_RUN, LONG_MS);
			fail();
		}
		assert_int_equal(count, i);
	}
	assert_int_equal(ioctl(fd, KVM_GET_API_VERSION, 0), 12);
	close(fd);
}

static void ignored_signal(void **state)
{
	int fd = open_kvm();

	signal(SIGALRM, SIG_IGN);
	alarm_ms(10);
	assert_int_equal(ioctl(fd, KVM_RUN, 50), 0);
	close(fd);
}

static void blocked_signal(void **state)
{
	int fd = open_kvm();
	sigset_t set, old;

	install(SIGALRM, note, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	alarm_ms(10);
	assert_int_equal(ioctl(fd, KVM_RUN, 50), 0);
	assert_int_equal(count, 0);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	assert_int_equal(count, 1);
	close(fd);
}

static void default_kills(void **state)
{
	int fd = open_kvm(), status;
	pid_t pid;

	signal(SIGALRM, SIG_DFL);
	pid = fork();
	if (!pid) {
		alarm_ms(20);
		ioctl(fd, KVM_RUN, LONG_MS);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGALRM);
	close(fd);
}

/* ---- Threads ---- */

struct runner {
	int fd, type;
	unsigned long ms;
	volatile bool started, cleaned;
	volatile long ret;
	pthread_t thread;
};

static void cleanup(void *opaque)
{
	((struct runner *)opaque)->cleaned = true;
}

static void *run_thread(void *opaque)
{
	struct runner *runner = opaque;

	pthread_setcanceltype(runner->type, NULL);
	pthread_cleanup_push(cleanup, runner);
	runner->started = true;
	runner->ret = ioctl(runner->fd, KVM_RUN, runner->ms);
	pthread_testcancel();
	pthread_cleanup_pop(0);
	return NULL;
}

/* Cancel a thread in KVM_RUN: what it had returned by its end; 1: nothing, it was cut short. */
static long cancel(int type, unsigned long ms)
{
	struct runner runner = {.fd = open_kvm(), .type = type, .ms = ms, .ret = 1};
	void *result;

	pthread_create(&runner.thread, NULL, run_thread, &runner);
	while (!runner.started)
		;
	usleep(20000);
	assert_int_equal(pthread_cancel(runner.thread), 0);
	pthread_join(runner.thread, &result);
	assert_ptr_equal(result, PTHREAD_CANCELED);
	assert_true(runner.cleaned);
	close(runner.fd);
	return runner.ret;
}

static void cancellation(void **state)
{
	assert_int_equal(cancel(PTHREAD_CANCEL_ASYNCHRONOUS, LONG_MS), 1);
	/* ioctl() is no cancellation point. */
	assert_int_equal(cancel(PTHREAD_CANCEL_DEFERRED, 200), 0);
}

static void signal_to_thread(void **state)
{
	struct runner runner = {
		.fd = open_kvm(), .type = PTHREAD_CANCEL_DEFERRED, .ms = LONG_MS, .ret = 1};

	install(SIGUSR1, note, 0);
	pthread_create(&runner.thread, NULL, run_thread, &runner);
	while (!runner.started)
		;
	usleep(20000);
	pthread_kill(runner.thread, SIGUSR1);
	pthread_join(runner.thread, NULL);
	assert_int_equal(runner.ret, -1);
	assert_int_equal(count, 1);
	close(runner.fd);
}

static void fork_while_running(void **state)
{
	struct runner runner = {
		.fd = open_kvm(), .type = PTHREAD_CANCEL_DEFERRED, .ms = 200, .ret = 1};
	int status;
	pid_t pid;

	pthread_create(&runner.thread, NULL, run_thread, &runner);
	while (!runner.started)
		;
	usleep(10000);
	pid = fork();
	if (!pid) {
		close(runner.fd);
		_exit(open("/dev/kvm", O_RDWR) >= 0 ? 42 : 1);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(WEXITSTATUS(status), 42);
	pthread_join(runner.thread, NULL);
	assert_int_equal(runner.ret, 0);
	close(runner.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signal_ends_run),    cmocka_unit_test(early_signal),
		cmocka_unit_test(one_shot),	      cmocka_unit_test(siginfo_kept),
		cmocka_unit_test(leaves_by_longjmp),  cmocka_unit_test(ignored_signal),
		cmocka_unit_test(blocked_signal),     cmocka_unit_test(default_kills),
		cmocka_unit_test(cancellation),	      cmocka_unit_test(signal_to_thread),
		cmocka_unit_test(fork_while_running),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
