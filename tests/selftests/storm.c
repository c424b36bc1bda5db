/* SPDX-License-Identifier: MIT */
/*
 * A library to be preloaded in front of anykvm's: every thread that is inside KVM_RUN gets a real-time signal each
 * millisecond, whose handler is empty. The tests know only their own signals; so KVM_RUN is entered again if this one ended it.
 * At the end a line on stderr tells how many were sent, if ANYKVM_STORM_REPORT is set.
 */
#include <dlfcn.h>
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NR_PLACES 4096
#define STORM	  (SIGRTMIN + 7)

/* The threads inside KVM_RUN; 0: free. */
static int places[NR_PLACES];
static pid_t storming; /* the process whose thread sends: a forked child has none */
static unsigned long sent;
static int (*next_ioctl)(int fd, unsigned long request, ...);
static __thread volatile sig_atomic_t struck;

static void handler(int sig)
{
	struck = 1;
}

static void *storm_main(void *arg)
{
	const struct timespec ms = {.tv_nsec = 1000000};
	pid_t pid = getpid();

	for (;;) {
		nanosleep(&ms, NULL);
		for (unsigned i = 0; i < NR_PLACES; i++) {
			int tid = __atomic_load_n(&places[i], __ATOMIC_SEQ_CST);

			if (!tid)
				continue;
			if (!syscall(SYS_tgkill, pid, tid, STORM))
				sent++;
			else /* cancelled inside */
				__atomic_compare_exchange_n(&places[i], &tid, 0, false,
							    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		}
	}
	return NULL;
}

static void start(void)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
	pid_t pid = getpid(), was = storming;
	sigset_t all, old;
	pthread_t thread;

	if (was == pid || !__atomic_compare_exchange_n(&storming, &was, pid, false,
						       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return;
	sigaction(STORM, &action, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (!pthread_create(&thread, NULL, storm_main, NULL))
		pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static unsigned take_place(int tid)
{
	for (unsigned i = tid;; i++) {
		int none = 0;

		if (__atomic_compare_exchange_n(&places[i % NR_PLACES], &none, tid, false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return i % NR_PLACES;
	}
}

static int run(int fd, unsigned long arg)
{
	unsigned place;
	int ret, error;

	start();
	place = take_place(syscall(SYS_gettid));
	do {
		struck = 0;
		ret = next_ioctl(fd, KVM_RUN, arg);
		error = errno;
	} while (ret < 0 && error == EINTR && struck);
	__atomic_store_n(&places[place], 0, __ATOMIC_SEQ_CST);
	errno = error;
	return ret;
}

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
	unsigned long arg;
	va_list ap;

	va_start(ap, request);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	if (!next_ioctl)
		next_ioctl = dlsym(RTLD_NEXT, "ioctl");
	return request == KVM_RUN ? run(fd, arg) : next_ioctl(fd, request, arg);
}

__attribute__((destructor)) static void report(void)
{
	if (getenv("ANYKVM_STORM_REPORT") && storming == getpid())
		fprintf(stderr, "storm: %lu signals\n", sent);
}
