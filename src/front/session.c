/* SPDX-License-Identifier: MIT */
/*
 * A program that the command starts and watches to its end. The session's file is a memfd of this process, which the
 * program and its children open by its name under /proc; so there is nothing to clean up, whoever dies first.
 */
#include "front/watch.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define POLL_NS 10000000

static volatile sig_atomic_t child_of_handler;

int session_create(struct session *s, const struct watch_session *settings)
{
	uint64_t size = watch_session_size(settings);
	char path[48];
	void *map = MAP_FAILED;

	/* A limit on files' sizes is a full disk like any other. */
	signal(SIGXFSZ, SIG_IGN);
	s->fd = host_memfd("anykvm:session", size, true);
	if (s->fd >= 0)
		map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, s->fd,
			   0);
	if (s->fd == -EFBIG)
		return launcher_error("the limit on files' sizes (ulimit -f) is below the %llu MiB "
				      "of a session: %s",
				      (unsigned long long)size >> 20, strerror(EFBIG));
	if (map == MAP_FAILED)
		return launcher_error("no memory for a session: %s",
				      strerror(s->fd < 0 ? -s->fd : errno));
	s->map = map;
	*s->map = *settings;
	s->map->magic = WATCH_MAGIC;
	s->map->version = WATCH_VERSION;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), s->fd);
	setenv("ANYKVM_WATCH", path, 1);
	return 0;
}

unsigned session_nr(const struct session *s)
{
	return min(__atomic_load_n(&s->map->next_slot, __ATOMIC_ACQUIRE), s->map->max_slots);
}

static void hand_on(int signo)
{
	if (child_of_handler > 0)
		kill(child_of_handler, signo);
}

static void catch_signals(bool on)
{
	struct sigaction ignore = {.sa_handler = on ? SIG_IGN : SIG_DFL};
	struct sigaction pass = {.sa_handler = on ? hand_on : SIG_DFL};

	sigaction(SIGINT, &ignore, NULL);
	sigaction(SIGQUIT, &ignore, NULL);
	sigaction(SIGTERM, &pass, NULL);
	sigaction(SIGHUP, &pass, NULL);
}

static void become_child(const char *path, char **argv, pid_t parent)
{
	catch_signals(false);
	signal(SIGXFSZ, SIG_DFL);
	/* No process is left behind when the command is killed. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(EXIT_OURS);
	_exit(launcher_become(path, argv));
}

int session_run(struct session *s, const char *path, char **argv, void (*poll)(void *), void *arg)
{
	pid_t parent = getpid(), got;
	int status;

	fflush(NULL);
	catch_signals(true);
	s->child = fork();
	if (s->child < 0)
		return launcher_error("cannot start a process: %s", strerror(errno));
	if (!s->child)
		become_child(path, argv, parent);
	child_of_handler = s->child;
	while (!(got = waitpid(s->child, &status, poll ? WNOHANG : 0)) ||
	       (got < 0 && errno == EINTR)) {
		if (!poll)
			continue;
		__atomic_store_n(&s->map->asleep, 1, __ATOMIC_SEQ_CST);
		poll(arg);
		host_futex_wait_shared(&s->map->asleep, 1, POLL_NS);
	}
	child_of_handler = 0;
	if (poll)
		poll(arg);
	__atomic_store_n(&s->map->over, 1, __ATOMIC_RELAXED);
	if (got < 0)
		return launcher_error("lost the program: %s", strerror(errno));
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
