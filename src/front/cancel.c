/* SPDX-License-Identifier: MIT */
/*
 * pthread_cancel(): a thread with asynchronous cancellation leaves KVM_RUN, as a signal would make it
 * leave the kernel's. Inside the door cancellation is disabled, so it acts when door_leave() lets it
 * again, with no lock held. A thread with deferred cancellation stays: ioctl is no cancellation point.
 *
 * The wake-up is a SIGTRAP, which is never blocked in there, with a value of ours. It is sent only to
 * threads that stand in the list, with the list's lock held, so that it finds them still inside.
 */
#include "front/door.h"
#include "kvm/api/api.h"

#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct door_pass *passes;
static const char message; /* its address is the value */

static bool acts_at_once(const struct door_pass *pass)
{
	return pass->cancel_state == PTHREAD_CANCEL_ENABLE &&
	       pass->cancel_type == PTHREAD_CANCEL_ASYNCHRONOUS;
}

static void list_add(struct door_pass *pass)
{
	pass->thread = pthread_self();
	pass->tid = host_gettid();
	pthread_mutex_lock(&lock);
	pass->next = passes;
	pass->link = &passes;
	if (passes)
		passes->link = &pass->next;
	passes = pass;
	pthread_mutex_unlock(&lock);
}

static void list_remove(struct door_pass *pass)
{
	pthread_mutex_lock(&lock);
	*pass->link = pass->next;
	if (pass->next)
		pass->next->link = pass->link;
	pthread_mutex_unlock(&lock);
}

void cancel_enter(struct door_pass *pass)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &pass->cancel_state);
	pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &pass->cancel_type);
	if (acts_at_once(pass))
		list_add(pass);
}

/* The type last: some versions of glibc lose the thread's result if the state lets cancellation act. */
void cancel_leave(struct door_pass *pass)
{
	pthread_setcancelstate(pass->cancel_state, NULL);
	if (acts_at_once(pass)) {
		list_remove(pass);
		/* No handler may leave by longjmp before the type is back. */
		host_signal_release_blocked(&pass->hold);
	}
	pthread_setcanceltype(pass->cancel_type, NULL);
}

/* In a child of fork(2) no other thread is left, and the one that is was outside. */
void cancel_forked(void)
{
	pthread_mutex_init(&lock, NULL);
	passes = NULL;
}

bool cancel_message(int signo, const siginfo_t *info)
{
	if (signo != SIGTRAP || info->si_code != SI_QUEUE || info->si_value.sival_ptr != &message)
		return false;
	api_run_interrupted();
	return true;
}

static void wake(const struct door_pass *pass)
{
	siginfo_t info = {.si_signo = SIGTRAP, .si_code = SI_QUEUE};

	/* Members of one union of the C library's: not to be initialized together. */
	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_ptr = (void *)&message;
	host_syscall(SYS_rt_tgsigqueueinfo, info.si_pid, pass->tid, SIGTRAP, (long)&info, 0, 0);
}

__export int pthread_cancel(pthread_t thread)
{
	struct door_pass *pass;
	int err;

	err = door_next()->pthread_cancel(thread);
	if (err)
		return err;
	pthread_mutex_lock(&lock);
	for (pass = passes; pass; pass = pass->next) {
		if (pthread_equal(pass->thread, thread))
			wake(pass);
	}
	pthread_mutex_unlock(&lock);
	return 0;
}
