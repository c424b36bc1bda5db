/* SPDX-License-Identifier: MIT */
/* The service thread: order of timers, cancelling, watches, and that it takes no signal. */
#include "vm_fake.h"

#include "kvm/vm/service.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

static unsigned order[64], nr_expired;
static uint32_t done;

struct numbered {
	struct service_timer timer;
	unsigned number;
};

static void note(struct service_timer *timer)
{
	order[nr_expired++] = container_of(timer, struct numbered, timer)->number;
	__atomic_add_fetch(&done, 1, __ATOMIC_RELEASE);
}

static bool wait_for(const uint32_t *word, uint32_t val)
{
	for (int i = 0; i < 2000; i++) {
		if (__atomic_load_n(word, __ATOMIC_ACQUIRE) >= val)
			return true;
		usleep(1000);
	}
	return false;
}

static void test_order(void **state)
{
	struct numbered t[16] = {0};
	struct service *s = service_create(NULL, NULL);
	uint64_t base = host_monotonic_ns() + 30000000;

	(void)state;
	nr_expired = done = 0;
	for (unsigned i = 0; i < 16; i++) {
		unsigned place = i * 7 % 16;

		t[place].number = place;
		t[place].timer.expire = note;
		service_timer_arm(s, &t[place].timer, base + place * 100000);
	}
	service_timer_cancel(s, &t[3].timer);
	service_timer_arm(s, &t[5].timer, base + 10000000); /* moved to the end */
	assert_true(wait_for(&done, 15));
	service_timer_stop(s, &t[3].timer);
	service_destroy(s);
	assert_int_equal(nr_expired, 15);
	assert_int_equal(order[0], 0);
	assert_int_equal(order[2], 2);
	assert_int_equal(order[3], 4);
	assert_int_equal(order[4], 6);
	assert_int_equal(order[14], 5);
}

static struct service *rearm_service;

static void rearm(struct service_timer *timer)
{
	if (__atomic_add_fetch(&done, 1, __ATOMIC_RELEASE) < 5)
		service_timer_arm(rearm_service, timer, 0); /* long past: at once */
}

static void test_rearm_in_callback(void **state)
{
	struct service_timer t = {.expire = rearm};

	(void)state;
	done = 0;
	rearm_service = service_create(NULL, NULL);
	service_timer_arm(rearm_service, &t, 1);
	assert_true(wait_for(&done, 5));
	service_timer_stop(rearm_service, &t);
	service_destroy(rearm_service);
	assert_int_equal(done, 5);
}

static void ready(struct service_watch *watch)
{
	uint64_t count;

	if (read(watch->fd, &count, sizeof(count)) == sizeof(count))
		__atomic_add_fetch(&done, count, __ATOMIC_RELEASE);
}

static void test_watch(void **state)
{
	struct service *s = service_create(NULL, NULL);
	struct service_watch w = {.ready = ready, .fd = eventfd(0, EFD_NONBLOCK)};
	uint64_t three = 3;

	(void)state;
	done = 0;
	assert_int_equal(service_watch(s, &w), 0);
	assert_int_equal(write(w.fd, &three, 8), 8);
	assert_true(wait_for(&done, 3));
	service_unwatch(s, &w);
	assert_int_equal(write(w.fd, &three, 8), 8);
	usleep(20000);
	assert_int_equal(done, 3);
	assert_int_equal(read(w.fd, &three, 8), 8);
	w.fd = -1;
	assert_int_equal(service_watch(s, &w), -EBADF);
	service_destroy(s);
}

static void test_takes_no_signal(void **state)
{
	struct service *s;
	sigset_t set, old;
	int sig = 0;

	(void)state;
	s = service_create(NULL, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	kill(getpid(), SIGUSR1);
	usleep(20000);
	/* Still pending for the process: nobody took it (its default would have killed us). */
	assert_int_equal(sigwait(&set, &sig), 0);
	assert_int_equal(sig, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	service_destroy(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_rearm_in_callback),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_takes_no_signal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
