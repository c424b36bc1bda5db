/* SPDX-License-Identifier: MIT */
/* Threads, cancellation, fork, and fds of other names while a guest runs. */
#include "tiny.h"

#include <sys/socket.h>

struct runner {
	struct tiny tiny;
	pthread_t thread;
	int type;
	volatile bool started, cleaned;
	volatile long ret;
	volatile int err;
};

static void noted(int signo)
{
}

static void cleanup(void *opaque)
{
	((struct runner *)opaque)->cleaned = true;
}

static void *run_thread(void *opaque)
{
	struct runner *r = opaque;

	pthread_setcanceltype(r->type, NULL);
	pthread_cleanup_push(cleanup, r);
	r->started = true;
	r->ret = ioctl(r->tiny.vcpu, KVM_RUN, 0);
	r->err = errno;
	pthread_testcancel();
	pthread_cleanup_pop(0);
	return NULL;
}

static void begin(struct runner *r, int type)
{
	*r = (struct runner){.type = type, .ret = 1};
	tiny_create(&r->tiny, SPIN, 2);
	signal(SIGUSR1, noted);
	pthread_create(&r->thread, NULL, run_thread, r);
	while (!r->started)
		;
	usleep(20000);
}

static void end(struct runner *r)
{
	pthread_kill(r->thread, SIGUSR1);
	pthread_join(r->thread, NULL);
	tiny_destroy(&r->tiny);
}

static void signal_to_thread(void **state)
{
	struct runner r;

	begin(&r, PTHREAD_CANCEL_DEFERRED);
	end(&r);
	assert_int_equal(r.ret, -1);
	assert_int_equal(r.err, EINTR);
}

/* The cancelled thread held the vCPU; it works for the next one. */
static void cancel_asynchronous(void **state)
{
	struct kvm_regs regs;
	struct runner r;
	void *result;

	begin(&r, PTHREAD_CANCEL_ASYNCHRONOUS);
	assert_int_equal(pthread_cancel(r.thread), 0);
	pthread_join(r.thread, &result);
	assert_ptr_equal(result, PTHREAD_CANCELED);
	assert_true(r.cleaned);
	assert_int_equal(r.ret, 1);
	assert_int_equal(ioctl(r.tiny.vcpu, KVM_GET_REGS, &regs), 0);
	assert_int_equal(regs.rip, TINY_BASE);
	tiny_destroy(&r.tiny);
}

/* ioctl() is no cancellation point: it ends by a signal, the thread at the next point. */
static void cancel_deferred(void **state)
{
	struct runner r;
	void *result;

	begin(&r, PTHREAD_CANCEL_DEFERRED);
	assert_int_equal(pthread_cancel(r.thread), 0);
	usleep(50000);
	assert_int_equal(r.ret, 1);
	pthread_kill(r.thread, SIGUSR1);
	pthread_join(r.thread, &result);
	assert_ptr_equal(result, PTHREAD_CANCELED);
	assert_int_equal(r.ret, -1);
	tiny_destroy(&r.tiny);
}

/* The child owns nothing of it, its own VM works, and the parent's guest does not notice. */
static int child(const struct runner *r)
{
	struct kvm_regs regs;
	struct tiny own;

	if (ioctl(r->tiny.vcpu, KVM_GET_REGS, &regs) != -1 || errno != EIO)
		return 1;
	if (ioctl(r->tiny.vm, KVM_CHECK_EXTENSION, 0) != -1 || errno != EIO)
		return 2;
	if (ioctl(r->tiny.kvm, KVM_GET_API_VERSION, 0) != 12)
		return 3;
	close(r->tiny.vcpu);
	close(r->tiny.vm);
	tiny_create(&own, "\xf4", 1);
	if (ioctl(own.vcpu, KVM_RUN, 0) || own.run->exit_reason != KVM_EXIT_HLT)
		return 4;
	tiny_destroy(&own);
	return 42;
}

static void fork_while_running(void **state)
{
	struct runner r;
	int status;
	pid_t pid;

	begin(&r, PTHREAD_CANCEL_DEFERRED);
	pid = fork();
	if (!pid)
		_exit(child(&r));
	waitpid(pid, &status, 0);
	assert_int_equal(WEXITSTATUS(status), 42);
	assert_int_equal(r.ret, 1);
	end(&r);
	assert_int_equal(r.err, EINTR);
}

static void vfork_closes(void **state)
{
	struct kvm_regs regs;
	struct tiny t;
	pid_t pid;

	tiny_create(&t, "\xf4", 1);
	pid = vfork();
	if (!pid) {
		close(t.vcpu);
		close(t.vm);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	assert_int_equal(ioctl(t.vcpu, KVM_GET_REGS, &regs), 0);
	tiny_destroy(&t);
}

/* The vCPU keeps its VM; a copy of an fd keeps its object. */
static void other_names(void **state)
{
	struct kvm_regs regs;
	struct tiny t;
	int copy;

	tiny_create(&t, "\xf4", 1);
	copy = fcntl(t.vcpu, F_DUPFD_CLOEXEC, 100);
	close(t.vm);
	close(t.vcpu);
	assert_int_equal(ioctl(copy, KVM_GET_REGS, &regs), 0);
	assert_int_equal(ioctl(copy, KVM_RUN, 0), 0);
	assert_int_equal(t.run->exit_reason, KVM_EXIT_HLT);
	t.vcpu = copy;
	t.vm = -1;
	tiny_destroy(&t);
}

static void over_a_socket(void **state)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = &control, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control};
	int pair[2], fd = open("/dev/kvm", O_RDWR), got;

	msg.msg_controllen = sizeof(control);
	control.head.cmsg_len = CMSG_LEN(sizeof(int));
	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(sendmsg(pair[0], &msg, 0), 1);
	close(fd);
	assert_int_equal(recvmsg(pair[1], &msg, 0), 1);
	memcpy(&got, CMSG_DATA(&control.head), sizeof(got));
	assert_int_equal(ioctl(got, KVM_GET_API_VERSION, 0), 12);
	close(got);
	close(pair[0]);
	close(pair[1]);
}

static void after_exec(void **state)
{
	char number[16];
	int status, fd = open("/dev/kvm", O_RDWR);
	pid_t pid = fork();

	if (!pid) {
		snprintf(number, sizeof(number), "%d", fd);
		execl("/proc/self/exe", "run_threads", "--fd", number, NULL);
		_exit(1);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(WEXITSTATUS(status), 12);
	close(fd);
}

static void many_vms(void **state)
{
	struct tiny t;
	int i, first = -1;

	for (i = 0; i < 100; i++) {
		tiny_create(&t, "\xf4", 1);
		assert_int_equal(ioctl(t.vcpu, KVM_RUN, 0), 0);
		if (first < 0)
			first = t.kvm;
		assert_int_equal(t.kvm, first); /* nothing leaks an fd */
		tiny_destroy(&t);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signal_to_thread), cmocka_unit_test(cancel_asynchronous),
		cmocka_unit_test(cancel_deferred),  cmocka_unit_test(fork_while_running),
		cmocka_unit_test(vfork_closes),	    cmocka_unit_test(other_names),
		cmocka_unit_test(over_a_socket),    cmocka_unit_test(after_exec),
		cmocka_unit_test(many_vms),
	};

	if (argc == 3)
		return ioctl(atoi(argv[2]), KVM_GET_API_VERSION, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
