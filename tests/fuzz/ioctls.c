/* SPDX-License-Identifier: MIT */
/*
 * Random ioctls on system, VM and vCPU fds, by two threads, while a guest of random bytes runs:
 * ioctls [SECONDS [SEED [ROUNDS]]], for at least so long and so many.
 *
 * A round makes a VM, does some hundred calls (calls.h), closes everything. Checked: each call succeeds or fails with an
 * errno that Linux's code has for it, or EIO once an SMI without memory has ended the VM; nothing hangs; at the end as
 * many fds, threads, maps and as much memory are in use as after the first rounds.
 */
#include "../api/usage.h"
#include "calls.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>

#define OPS_A_ROUND  400
#define WARM_ROUNDS  50
#define HANG_SECONDS 60
#define HEAP_NOISE   0x20000

static uint64_t round_seed;
static volatile bool stopping;
static pthread_t runner_thread, other_thread;

void fuzz_fail(const char *what)
{
	fprintf(stderr, "ioctls: %s: run `ioctls 0 %#llx`\n", what, (unsigned long long)round_seed);
	_exit(1);
}

/* ---- threads ---- */

static void *runner_main(void *opaque)
{
	struct worker *w = opaque;

	while (!stopping) {
		unsigned i = below(&w->rng, NR_VCPUS);

		if (one_in(&w->rng, 4))
			round_now.run[i]->request_interrupt_window = rnd(&w->rng);
		if (one_in(&w->rng, 4))
			round_now.run[i]->immediate_exit = one_in(&w->rng, 2);
		if (one_in(&w->rng, 4))
			mutate(w, (uint8_t *)round_now.run[i], PAGE_BYTES);
		if (round_now.ring && one_in(&w->rng, 2))
			memset(round_now.ring, below(&w->rng, 4), RING_BYTES);
		call_run(round_now.vcpu[i]);
	}
	return NULL;
}

static void *other_main(void *opaque)
{
	struct worker *w = opaque;

	while (!stopping)
		one_call(w);
	return NULL;
}

static void nothing(int sig)
{
}

static void hang(int sig)
{
	fuzz_fail("a hang");
}

static void block_alarm(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(how, &set, NULL);
}

/* Keeps KVM_RUN from holding the vCPU's lock for long. */
static void *kicker_main(void *opaque)
{
	while (!stopping) {
		usleep(500);
		pthread_kill(runner_thread, SIGUSR1);
	}
	return NULL;
}

/* ---- rounds ---- */

static void run_round(uint64_t seed)
{
	static struct worker workers[3];
	pthread_t kicker;

	round_seed = seed;
	alarm(HANG_SECONDS);
	for (unsigned i = 0; i < 3; i++)
		worker_init(&workers[i], mix(seed + i));
	make_vm(&workers[0]);
	stopping = false;
	block_alarm(SIG_BLOCK);
	CHECK_EQ(pthread_create(&runner_thread, NULL, runner_main, &workers[1]), 0);
	CHECK_EQ(pthread_create(&kicker, NULL, kicker_main, NULL), 0);
	CHECK_EQ(pthread_create(&other_thread, NULL, other_main, &workers[2]), 0);
	block_alarm(SIG_UNBLOCK);
	for (unsigned i = 0; i < OPS_A_ROUND; i++)
		one_call(&workers[0]);
	stopping = true;
	for (unsigned i = 0; i < NR_VCPUS; i++)
		round_now.run[i]->immediate_exit = 1;
	pthread_kill(runner_thread, SIGUSR1);
	pthread_join(kicker, NULL);
	/* A signal before KVM_RUN is lost; the next one is not. */
	while (pthread_tryjoin_np(runner_thread, NULL)) {
		pthread_kill(runner_thread, SIGUSR1);
		usleep(1000);
	}
	pthread_join(other_thread, NULL);
	for (unsigned i = 0; i < 3; i++)
		close_all(&workers[i]);
	end_vm();
}

/* ---- leaks ---- */

struct usage {
	unsigned fds, threads, maps;
	size_t heap;
};

static struct usage usage_now(void)
{
	struct usage u = {
		.fds = count_fds(),
		.threads = count_threads(),
		.maps = count_maps(),
	};

	u.heap = mallinfo2().uordblks + mallinfo2().hblkhd;
	return u;
}

static void check_usage(const struct usage *was, unsigned rounds)
{
	struct usage is = usage_now();

	fprintf(stderr,
		"ioctls: %u rounds, fds %u -> %u, threads %u -> %u, maps %u -> %u, heap %zu -> "
		"%zu\n",
		rounds, was->fds, is.fds, was->threads, is.threads, was->maps, is.maps, was->heap,
		is.heap);
	if (is.fds > was->fds)
		fuzz_fail("fds leak");
	if (is.threads > was->threads)
		fuzz_fail("threads leak");
	if (!is.heap) /* a sanitizer has the heap, and looks for leaks itself */
		return;
	if (is.maps > was->maps + 20)
		fuzz_fail("maps leak");
	/* The threads' arenas and caches settle slowly; a VM or vCPU that stays behind is much more. */
	if (is.heap > was->heap + HEAP_NOISE + 64ul * rounds)
		fuzz_fail("memory leaks");
}

/* libc keeps the stacks of threads that ended, as many as ever ran at once, and they look like leaks. */
static void run_without_stack_cache(char **argv)
{
	if (getenv("GLIBC_TUNABLES"))
		return;
	setenv("GLIBC_TUNABLES", "glibc.pthread.stack_cache_size=0", 1);
	execv("/proc/self/exe", argv);
	CHECK(!"execv");
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 10, end = fuzz_now() + seconds;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	unsigned wanted = argc > 3 ? atoi(argv[3]) : 0;
	struct sigaction kick = {.sa_handler = nothing};
	struct usage warm = {0};
	unsigned rounds = 0;

	run_without_stack_cache(argv);
	sigaction(SIGUSR1, &kick, NULL);
	signal(SIGALRM, hang);
	fuzz_prepare();
	do {
		if (rounds == WARM_ROUNDS)
			warm = usage_now();
		run_round(seed + rounds++);
	} while (rounds < wanted || fuzz_now() < end);
	if (rounds > WARM_ROUNDS)
		check_usage(&warm, rounds);
	return 0;
}
