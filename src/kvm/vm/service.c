/* SPDX-License-Identifier: MIT */
/*
 * The service thread: epoll over watched eventfds and one timerfd, which is set to the earliest
 * deadline of a binary heap of timers. It makes epoll_wait, read, timerfd_settime and futex calls only,
 * so it lives under a seccomp filter that the program installs later. Timers by hand (service_expire()) leave it the
 * eventfds only.
 *
 * ->lock protects everything. A callback runs without it; ->running says which one, so that stop
 * and unwatch can wait for its end.
 */
#include "kvm/vm/service.h"
#include "host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define ID_WAKE	   1
#define ID_TIMER   2
#define FIRST_ID   3
#define BATCH	   16
#define STACK_SIZE (256 * 1024)

struct service {
	pthread_mutex_t lock;
	pthread_cond_t idle; /* ->running changed */
	pthread_t thread;
	bool stop;
	const void *running;  /* the timer or watch whose callback is running */
	const void *expiring; /* the timer of service_expire()'s, and the thread that is there */
	pthread_t expirer;
	service_armed_fn *armed; /* timers are expired by hand; NULL: by the thread */
	struct vm *vm;
	int epoll, wake, timerfd;

	struct service_timer **heap;
	unsigned nr, room;

	struct service_watch **watches;
	unsigned nr_watches, room_watches;
	uint64_t next_id;
};

int service_fd_hide(int fd)
{
	struct rlimit limit;
	int high;

	if (fd < 0 || getrlimit(RLIMIT_NOFILE, &limit))
		return fd;
	high = fcntl(fd, F_DUPFD_CLOEXEC, (int)min(limit.rlim_cur / 2, (rlim_t)512));
	if (high < 0)
		return fd;
	close(fd);
	return high;
}

/* ---- heap; lock held. slot is the place + 1. ---- */

static void heap_put(struct service *s, unsigned place, struct service_timer *timer)
{
	s->heap[place] = timer;
	timer->slot = place + 1;
}

static void heap_up(struct service *s, unsigned i)
{
	struct service_timer *timer = s->heap[i];

	while (i && s->heap[(i - 1) / 2]->deadline > timer->deadline) {
		heap_put(s, i, s->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_put(s, i, timer);
}

static void heap_down(struct service *s, unsigned i)
{
	struct service_timer *timer = s->heap[i];

	for (;;) {
		unsigned child = 2 * i + 1;

		if (child + 1 < s->nr && s->heap[child + 1]->deadline < s->heap[child]->deadline)
			child++;
		if (child >= s->nr || s->heap[child]->deadline >= timer->deadline)
			break;
		heap_put(s, i, s->heap[child]);
		i = child;
	}
	heap_put(s, i, timer);
}

static void heap_remove(struct service *s, struct service_timer *timer)
{
	unsigned i = timer->slot - 1;
	struct service_timer *last = s->heap[--s->nr];

	timer->slot = 0;
	if (last == timer)
		return;
	heap_put(s, i, last);
	heap_up(s, i);
	heap_down(s, last->slot - 1);
}

/* False: no memory for one more timer. */
static bool heap_insert(struct service *s, struct service_timer *timer)
{
	if (s->nr == s->room) {
		unsigned room = s->room ? s->room * 2 : 64;
		void *heap = realloc(s->heap, room * sizeof(s->heap[0]));

		if (!heap)
			return false;
		s->heap = heap;
		s->room = room;
	}
	heap_put(s, s->nr++, timer);
	heap_up(s, s->nr - 1);
	return true;
}

static void program_timerfd(struct service *s)
{
	struct itimerspec spec = {0};

	if (s->nr) {
		uint64_t ns = max(s->heap[0]->deadline, (uint64_t)1);

		spec.it_value.tv_sec = min(ns / 1000000000, (uint64_t)INT64_MAX / 2000000000);
		spec.it_value.tv_nsec = ns % 1000000000;
	}
	timerfd_settime(s->timerfd, TFD_TIMER_ABSTIME, &spec, NULL);
}

void service_timer_arm(struct service *s, struct service_timer *timer, uint64_t deadline)
{
	struct service_timer *first;
	bool earliest;

	pthread_mutex_lock(&s->lock);
	first = s->nr ? s->heap[0] : NULL;
	if (timer->slot)
		heap_remove(s, timer);
	timer->deadline = deadline;
	if (!heap_insert(s, timer))
		host_bug("no memory for a timer");
	if (!s->armed && (timer->slot == 1 || first == timer))
		program_timerfd(s);
	earliest = timer->slot == 1;
	pthread_mutex_unlock(&s->lock);
	if (s->armed && earliest)
		s->armed(s->vm, deadline);
}

static void cancel_locked(struct service *s, struct service_timer *timer)
{
	/* A timerfd that fires for a cancelled timer finds nothing due: no need to set it anew. */
	if (timer->slot)
		heap_remove(s, timer);
}

void service_timer_cancel(struct service *s, struct service_timer *timer)
{
	pthread_mutex_lock(&s->lock);
	cancel_locked(s, timer);
	pthread_mutex_unlock(&s->lock);
}

static void wait_idle_locked(struct service *s, const void *what)
{
	while ((s->running == what && !pthread_equal(pthread_self(), s->thread)) ||
	       (s->expiring == what && !pthread_equal(pthread_self(), s->expirer)))
		pthread_cond_wait(&s->idle, &s->lock);
}

void service_timer_stop(struct service *s, struct service_timer *timer)
{
	pthread_mutex_lock(&s->lock);
	cancel_locked(s, timer);
	wait_idle_locked(s, timer);
	cancel_locked(s, timer); /* the callback may have armed it again */
	pthread_mutex_unlock(&s->lock);
}

/* ---- watches ---- */

static bool watch_insert(struct service *s, struct service_watch *watch)
{
	if (s->nr_watches == s->room_watches) {
		unsigned room = s->room_watches ? s->room_watches * 2 : 16;
		void *all = realloc(s->watches, room * sizeof(s->watches[0]));

		if (!all)
			return false;
		s->watches = all;
		s->room_watches = room;
	}
	s->watches[s->nr_watches++] = watch;
	return true;
}

int service_watch(struct service *s, struct service_watch *watch)
{
	struct epoll_event event = {.events = EPOLLIN};
	int r = -ENOMEM;

	pthread_mutex_lock(&s->lock);
	watch->id = event.data.u64 = s->next_id++;
	if (watch_insert(s, watch)) {
		r = epoll_ctl(s->epoll, EPOLL_CTL_ADD, watch->fd, &event) ? -errno : 0;
		if (r)
			s->nr_watches--;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

void service_unwatch(struct service *s, struct service_watch *watch)
{
	pthread_mutex_lock(&s->lock);
	epoll_ctl(s->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	for (unsigned i = 0; i < s->nr_watches; i++)
		if (s->watches[i] == watch) {
			s->watches[i] = s->watches[--s->nr_watches];
			break;
		}
	wait_idle_locked(s, watch);
	pthread_mutex_unlock(&s->lock);
}

/* ---- the thread; lock held around all but callbacks ---- */

static void leave(struct service *s, const void *what)
{
	s->running = what;
	pthread_mutex_unlock(&s->lock);
}

static void enter(struct service *s)
{
	pthread_mutex_lock(&s->lock);
	s->running = NULL;
	pthread_cond_broadcast(&s->idle);
}

static void run_timers(struct service *s)
{
	while (s->nr && s->heap[0]->deadline <= host_monotonic_ns() && !s->stop) {
		struct service_timer *timer = s->heap[0];

		heap_remove(s, timer);
		leave(s, timer);
		timer->expire(timer);
		enter(s);
	}
	program_timerfd(s);
}

static struct service_timer *take_due_locked(struct service *s, uint64_t now)
{
	struct service_timer *timer = s->nr ? s->heap[0] : NULL;

	if (!timer || timer->deadline > now)
		return NULL;
	heap_remove(s, timer);
	s->expiring = timer;
	s->expirer = pthread_self();
	return timer;
}

void service_expire(struct service *s, uint64_t now)
{
	struct service_timer *timer;

	pthread_mutex_lock(&s->lock);
	while ((timer = take_due_locked(s, now))) {
		pthread_mutex_unlock(&s->lock);
		timer->expire(timer);
		pthread_mutex_lock(&s->lock);
		s->expiring = NULL;
		pthread_cond_broadcast(&s->idle);
	}
	pthread_mutex_unlock(&s->lock);
}

uint64_t service_next(struct service *s)
{
	uint64_t deadline;

	pthread_mutex_lock(&s->lock);
	deadline = s->nr ? s->heap[0]->deadline : SERVICE_NEVER;
	pthread_mutex_unlock(&s->lock);
	return deadline;
}

static void run_watch(struct service *s, uint64_t id)
{
	for (unsigned i = 0; i < s->nr_watches; i++) {
		struct service_watch *watch = s->watches[i];

		if (watch->id != id)
			continue;
		leave(s, watch);
		watch->ready(watch);
		enter(s);
		return;
	}
}

static void serve(struct service *s, uint64_t id)
{
	uint64_t count;

	if (id >= FIRST_ID)
		run_watch(s, id);
	else if (read(id == ID_TIMER ? s->timerfd : s->wake, &count, sizeof(count)) > 0 &&
		 id == ID_TIMER)
		run_timers(s);
}

static void *service_main(void *arg)
{
	struct epoll_event events[BATCH];
	struct service *s = arg;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		int n;

		pthread_mutex_unlock(&s->lock);
		n = epoll_wait(s->epoll, events, BATCH, -1);
		pthread_mutex_lock(&s->lock);
		for (int i = 0; i < n && !s->stop; i++)
			serve(s, events[i].data.u64);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- life ---- */

static int watch_own(struct service *s, int fd, uint64_t id)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = id};

	return fd < 0 ? -1 : epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event);
}

static void service_free(struct service *s)
{
	if (s->epoll >= 0)
		close(s->epoll);
	if (s->wake >= 0)
		close(s->wake);
	if (s->timerfd >= 0)
		close(s->timerfd);
	free(s->heap);
	free(s->watches);
	free(s);
}

/* Start the thread with every signal blocked: it must not take one that the program waits for. */
static int start_thread(struct service *s)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&s->thread, &attr, service_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return r;
}

struct service *service_create(service_armed_fn *armed, struct vm *vm)
{
	struct service *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->armed = armed;
	s->vm = vm;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->idle, NULL);
	s->next_id = FIRST_ID;
	s->epoll = service_fd_hide(epoll_create1(EPOLL_CLOEXEC));
	s->wake = service_fd_hide(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	s->timerfd = service_fd_hide(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
	if (s->epoll < 0 || watch_own(s, s->wake, ID_WAKE) || watch_own(s, s->timerfd, ID_TIMER) ||
	    start_thread(s)) {
		service_free(s);
		return NULL;
	}
	return s;
}

void service_destroy(struct service *s)
{
	uint64_t one = 1;

	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_mutex_unlock(&s->lock);
	if (write(s->wake, &one, sizeof(one)) < 0)
		host_bug("cannot wake the service thread");
	pthread_join(s->thread, NULL);
	service_free(s);
}
