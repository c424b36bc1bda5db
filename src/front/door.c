/* SPDX-License-Identifier: MIT */
/*
 * The library's start and end, and the bracket around each call into kvm/api.
 *
 * The settings are copied from the environment at start, before the program can change it, and
 * take effect when the program opens /dev/kvm first: a program that never does is left alone.
 */
#include "front/files.h"
#include "kvm/api/api.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct next next;
static bool next_found;
static char *setting_cpu, *setting_params, *setting_stats, *setting_tempo, *setting_seed,
	*setting_watch;
static pthread_once_t init_once = PTHREAD_ONCE_INIT;
static int init_result;
static bool used;
static pid_t owner;

static void *find(const char *name, bool optional)
{
	void *fn = dlsym(RTLD_NEXT, name);

	if (!fn && !optional) {
		host_log("this C library has no %s(); anykvm needs glibc", name);
		abort();
	}
	return fn;
}

/* Other libraries' constructors may call before ours has run. */
const struct next *door_next(void)
{
	if (likely(__atomic_load_n(&next_found, __ATOMIC_ACQUIRE)))
		return &next;
#define NEXT(result, name, parameters)		next.name = find(#name, false);
#define NEXT_OPTIONAL(result, name, parameters) next.name = find(#name, true);
#include "front/next.def"
#undef NEXT
#undef NEXT_OPTIONAL
	__atomic_store_n(&next_found, true, __ATOMIC_RELEASE);
	return &next;
}

bool door_used(void)
{
	return __atomic_load_n(&used, __ATOMIC_RELAXED);
}

bool door_own_process(void)
{
	return owner == host_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

int door_enter(struct door_pass *pass)
{
	int err;

	err = host_fault_thread_init();
	if (err)
		return err;
	host_signal_hold(&pass->hold);
	cancel_enter(pass);
	return 0;
}

void door_leave(struct door_pass *pass)
{
	int saved_errno = errno;

	cancel_leave(pass);
	host_signal_release(&pass->hold);
	errno = saved_errno;
}

static void init(void)
{
	init_result = api_set_tempo(setting_tempo);
	if (!init_result)
		init_result = api_set_deterministic(setting_seed);
	if (setting_watch)
		api_set_session(setting_watch);
	if (!init_result)
		init_result = api_init(setting_cpu, setting_params);
}

int door_init(void)
{
	pthread_once(&init_once, init);
	return init_result;
}

int door_open(int flags)
{
	struct door_pass pass;
	int fd;

	fd = door_enter(&pass);
	if (fd)
		return (int)door_result(fd);
	fd = door_init();
	if (!fd)
		fd = api_open(flags);
	if (fd >= 0) {
		__atomic_store_n(&used, true, __ATOMIC_RELAXED);
		fd_mark(fd);
	}
	door_leave(&pass);
	return (int)door_result(fd);
}

static void interrupt(void)
{
	api_run_interrupted();
}

static void forked(void)
{
	owner = getpid();
	cancel_forked();
}

static char *setting(const char *name)
{
	const char *val = getenv(name);

	return val && *val ? strdup(val) : NULL;
}

__attribute__((constructor)) static void door_start(void)
{
	static const struct host_signal_hooks hooks = {
		.message = cancel_message,
		.interrupt = interrupt,
	};

	const char *patch;

	host_clock_start();
	door_next();
	owner = getpid();
	pthread_atfork(NULL, NULL, forked);
	host_signal_set_hooks(&hooks);
	exec_start();
	setting_cpu = setting("ANYKVM_CPU");
	setting_params = setting("ANYKVM_PARAMS");
	setting_stats = setting("ANYKVM_STATS_FILE");
	setting_tempo = setting("ANYKVM_TEMPO");
	setting_seed = setting("ANYKVM_DETERMINISTIC");
	setting_watch = setting("ANYKVM_WATCH");
	/* Who opens /dev/kvm is told of nonsense. */
	if (setting_params)
		api_params_set(setting_params);
	/* ANYKVM_CPUID=patch: as on a host without CPUID faulting; for tests. */
	patch = getenv("ANYKVM_CPUID");
	processor_start(setting_cpu, patch && !strcmp(patch, "patch"));
}

static char *all_counters(size_t *ret_size)
{
	unsigned sites, unproven;
	char *text = NULL;
	FILE *to = open_memstream(&text, ret_size);

	if (!to)
		return NULL;
	api_stats_dump(to);
	patch_counts(&sites, &unproven);
	fprintf(to, "cpuid_sites %u\ncpuid_unproven %u\n", sites, unproven);
	return fclose(to) ? NULL : text;
}

/* In one piece, for other processes append, too; or nothing of it. */
static bool append(int fd, const char *text, size_t size)
{
	ssize_t n = write(fd, text, size);
	off_t end = n > 0 && (size_t)n < size ? lseek(fd, 0, SEEK_END) : 0;
	int err = n < 0 ? errno : ENOSPC;

	if (end >= n && end && ftruncate(fd, end - n))
		err = errno;
	errno = err;
	return n == (ssize_t)size;
}

/* The proof that it was anykvm that answered. Appended to: more than one process may have run. */
__attribute__((destructor)) static void door_end(void)
{
	size_t size = 0;
	char *text;
	int fd;

	if (!setting_stats || !door_used() || !door_own_process())
		return;
	text = all_counters(&size);
	fd = next.open(setting_stats, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd < 0 || !text || !append(fd, text, size))
		host_log("cannot write %s: %s", setting_stats, strerror(errno));
	if (fd >= 0)
		next.close(fd);
	free(text);
}

/* A process that ends without destructors: children of test harnesses do. */
__export void _exit(int status)
{
	door_end();
	door_next()->_exit(status);
}

__export void _Exit(int status)
{
	door_end();
	door_next()->_exit(status);
}
