/* SPDX-License-Identifier: MIT */
/* Signals while a guest runs: what a program sees of them is what the kernel's KVM would show. */
#include "tiny.h"

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
	last_info = *info;
	count++;
	siglongjmp(back, 1);
}

static void start(struct tiny *t)
{
	tiny_create(t, SPIN, 2);
	count = 0;
}

static void handler_ends_run(void **state)
{
	struct kvm_regs regs;
	struct tiny t;
	int i;

	start(&t);
	install(SIGALRM, note, SA_RESTART);
	for (i = 1; i <= 3; i++) {
		alarm_ms(10);
		expect_eintr(&t);
		assert_int_equal(count, i);
		assert_int_equal(ioctl(t.vcpu, KVM_GET_REGS, &regs), 0);
		assert_int_equal(regs.rip, TINY_BASE);
	}
	tiny_destroy(&t);
}

static void leaves_by_longjmp(void **state)
{
	struct kvm_regs regs;
	struct tiny t;
	volatile int i;

	start(&t);
	install(SIGALRM, jump, 0);
	for (i = 1; i <= 3; i++) {
		if (!sigsetjmp(back, 1)) {
			alarm_ms(10);
			ioctl(t.vcpu, KVM_RUN, 0);
			fail();
		}
		assert_int_equal(count, i);
		assert_int_equal(ioctl(t.vcpu, KVM_GET_REGS, &regs), 0);
		assert_int_equal(regs.rip, TINY_BASE);
	}
	tiny_destroy(&t);
}

/* Waiting in HLT, as an in-kernel irqchip makes it. */
static void halted(void **state)
{
	struct tiny t;

	t.kvm = open("/dev/kvm", O_RDWR);
	t.vm = ioctl(t.kvm, KVM_CREATE_VM, 0);
	assert_int_equal(ioctl(t.vm, KVM_CREATE_IRQCHIP, 0), 0);
	tiny_start(&t, "\xfa\xf4\xeb\xfc", 4); /* cli; hlt; jmp back */
	count = 0;
	install(SIGALRM, note, 0);
	alarm_ms(20);
	expect_eintr(&t);
	assert_int_equal(count, 1);
	tiny_destroy(&t);
}

static void ignored(void **state)
{
	struct tiny t;
	uint64_t begin = now_ms();

	start(&t);
	signal(SIGUSR1, SIG_IGN);
	install(SIGALRM, note, 0);
	raise(SIGUSR1);
	alarm_ms(30);
	expect_eintr(&t);
	assert_true(now_ms() - begin >= 30);
	signal(SIGUSR1, SIG_DFL);
	tiny_destroy(&t);
}

static void immediate_exit(void **state)
{
	struct tiny t;

	start(&t);
	t.run->immediate_exit = 1;
	assert_int_equal(ioctl(t.vcpu, KVM_RUN, 0), -1);
	assert_int_equal(errno, EINTR);
	t.run->immediate_exit = 0;
	tiny_destroy(&t);
}

static void default_kills(void **state)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct tiny t;

		start(&t);
		signal(SIGALRM, SIG_DFL);
		alarm_ms(10);
		ioctl(t.vcpu, KVM_RUN, 0);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGALRM);
}

static void *spin_forever(void *opaque)
{
	struct tiny *t = opaque;

	for (;;)
		ioctl(t->vcpu, KVM_RUN, 0);
	return NULL;
}

static void sigkill(void **state)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct tiny t;
		pthread_t thread;

		start(&t);
		pthread_create(&thread, NULL, spin_forever, &t);
		pause();
		_exit(0);
	}
	usleep(30000);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	assert_int_equal(WTERMSIG(status), SIGKILL);
}

/* exit() while another thread runs a guest. */
static void exit_while_running(void **state)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		static struct tiny t;
		pthread_t thread;

		start(&t);
		pthread_create(&thread, NULL, spin_forever, &t);
		usleep(20000);
		exit(9);
	}
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 9);
}

/* ---- KVM_SET_SIGNAL_MASK ---- */

static void set_mask(struct tiny *t, int unblocked)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t bits;
	} __attribute__((packed)) arg = {.head.len = 8};

	arg.bits = ~0ull & ~(1ull << (unblocked - 1));
	assert_int_equal(ioctl(t->vcpu, KVM_SET_SIGNAL_MASK, &arg), 0);
}

static bool pending(int signo)
{
	sigset_t set;

	sigpending(&set);
	return sigismember(&set, signo);
}

/* Blocked by the thread, let through by KVM_RUN: ends it and stays pending, whatever its action. */
static void mask_with(struct tiny *t, void (*handler)(int))
{
	sigset_t one, before;
	siginfo_t info;

	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &one, &before);
	signal(SIGUSR1, handler);
	set_mask(t, SIGUSR1);
	raise(SIGUSR1);
	expect_eintr(t);
	assert_true(pending(SIGUSR1));
	expect_eintr(t);
	assert_int_equal(count, 0);
	assert_int_equal(sigwaitinfo(&one, &info), SIGUSR1);
	assert_int_equal(info.si_code, SI_USER); /* glibc's word for raise() here */
	assert_int_equal(info.si_pid, getpid());
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	assert_int_equal(count, 0);
}

static void count_only(int signo)
{
	count++;
}

static void mask_lets_through(void **state)
{
	struct tiny t;

	start(&t);
	mask_with(&t, count_only);
	mask_with(&t, SIG_DFL);
	assert_int_equal(ioctl(t.vcpu, KVM_SET_SIGNAL_MASK, NULL), 0);
	tiny_destroy(&t);
}

/* Blocked by KVM_RUN's mask only: delivered when it ends. */
static void mask_holds_back(void **state)
{
	sigset_t one, before;
	struct tiny t;

	start(&t);
	install(SIGALRM, note, 0);
	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &one, &before);
	signal(SIGUSR1, count_only);
	set_mask(&t, SIGUSR1);
	alarm_ms(10);
	usleep(30000);
	assert_int_equal(count, 1); /* the thread itself lets SIGALRM through */
	alarm_ms(10);
	raise(SIGUSR1);
	expect_eintr(&t);
	assert_true(pending(SIGUSR1));
	usleep(20000);
	assert_int_equal(count, 2);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	assert_int_equal(count, 3);
	tiny_destroy(&t);
}

static void mask_refusals(void **state)
{
	struct kvm_signal_mask *arg = calloc(1, 64);
	struct tiny t;

	start(&t);
	arg->len = 4;
	assert_int_equal(ioctl(t.vcpu, KVM_SET_SIGNAL_MASK, arg), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(ioctl(t.vcpu, KVM_SET_SIGNAL_MASK, (void *)8), -1);
	assert_int_equal(errno, EFAULT);
	tiny_destroy(&t);
	free(arg);
}

/* ---- The program's own SIGSEGV handler ---- */

static bool catches(void)
{
	volatile int *p = (int *)8;
	int before = count;

	asm volatile("" : "+r"(p));
	if (!sigsetjmp(back, 1))
		*p = 1;
	return count == before + 1 && last_info.si_addr == (void *)8;
}

static void own_segv_before(void **state)
{
	struct tiny t;

	install(SIGSEGV, jump, 0);
	start(&t);
	install(SIGALRM, note, 0);
	alarm_ms(10);
	expect_eintr(&t);
	assert_true(catches());
	alarm_ms(10);
	expect_eintr(&t);
	tiny_destroy(&t);
}

static void own_segv_after(void **state)
{
	struct tiny t;

	start(&t);
	install(SIGALRM, note, 0);
	alarm_ms(10);
	expect_eintr(&t);
	install(SIGSEGV, jump, SA_ONSTACK);
	assert_true(catches());
	/* A bad argument is -EFAULT, not the handler's business. */
	assert_int_equal(ioctl(t.vcpu, KVM_GET_REGS, 8), -1);
	assert_int_equal(errno, EFAULT);
	assert_true(catches());
	tiny_destroy(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(handler_ends_run),
		cmocka_unit_test(leaves_by_longjmp),
		cmocka_unit_test(halted),
		cmocka_unit_test(ignored),
		cmocka_unit_test(immediate_exit),
		cmocka_unit_test(default_kills),
		cmocka_unit_test(sigkill),
		cmocka_unit_test(exit_while_running),
		cmocka_unit_test(mask_lets_through),
		cmocka_unit_test(mask_holds_back),
		cmocka_unit_test(mask_refusals),
		cmocka_unit_test(own_segv_before),
		cmocka_unit_test(own_segv_after),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
