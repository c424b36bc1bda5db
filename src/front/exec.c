/* SPDX-License-Identifier: MIT */
/*
 * Programs that are started with an environment made for them (libvirt makes QEMU's): as long as this library is
 * preloaded into them, its settings go with it, unless others are there. So the processor and the counters' file of
 * `anykvm run` hold for all that is below it. Runs in children of vfork() as well: async-signal-safe, no allocation.
 */
#include "front/door.h"

#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENV_MAX 1000

#define SETTINGS_MAX 15

/* NAME=VALUE, as they were when this process started; NULL behind the last. */
static char *settings[SETTINGS_MAX + 1];

void exec_start(void)
{
	unsigned n = 0;

	for (char **env = environ; env && *env && n < SETTINGS_MAX; env++)
		if (!strncmp(*env, "ANYKVM_", strlen("ANYKVM_")))
			settings[n++] = strdup(*env);
}

/* True if env has a value for the setting's name. */
static bool env_has(char *const env[], const char *setting)
{
	size_t len = strcspn(setting, "=") + 1;

	for (; *env; env++)
		if (!strncmp(*env, setting, len))
			return true;
	return false;
}

static bool preloads_us(char *const env[])
{
	for (; *env; env++)
		if (!strncmp(*env, "LD_PRELOAD=", strlen("LD_PRELOAD=")))
			return strstr(*env, "/libanykvm.so");
	return false;
}

/* env with the settings that it lacks, in room; or env itself. A bad pointer is left to the system call. */
static char *const *with_settings(char *const env[], char *room[])
{
	unsigned n = 0;

	if ((uintptr_t)env < PAGE_SIZE || !preloads_us(env))
		return env;
	for (; env[n]; n++) {
		if (n == ENV_MAX - SETTINGS_MAX - 1)
			return env;
		room[n] = env[n];
	}
	for (unsigned i = 0; settings[i]; i++)
		if (!env_has(env, settings[i]))
			room[n++] = settings[i];
	room[n] = NULL;
	return room;
}

#define EXEC_CALL(name, parameters, from, arguments)             \
	__export int name parameters                             \
	{                                                        \
		char *room[ENV_MAX];                             \
		char *const *with = with_settings((from), room); \
		return door_next()->arguments;                   \
	}

EXEC_CALL(execve, (const char *path, char *const argv[], char *const env[]), env,
	  execve(path, argv, with))
EXEC_CALL(execvpe, (const char *file, char *const argv[], char *const env[]), env,
	  execvpe(file, argv, with))
EXEC_CALL(execv, (const char *path, char *const argv[]), environ, execve(path, argv, with))
EXEC_CALL(execvp, (const char *file, char *const argv[]), environ, execvpe(file, argv, with))
EXEC_CALL(posix_spawn,
	  (pid_t * pid, const char *path, const posix_spawn_file_actions_t *actions,
	   const posix_spawnattr_t *attr, char *const argv[], char *const env[]),
	  env, posix_spawn(pid, path, actions, attr, argv, with))
EXEC_CALL(posix_spawnp,
	  (pid_t * pid, const char *file, const posix_spawn_file_actions_t *actions,
	   const posix_spawnattr_t *attr, char *const argv[], char *const env[]),
	  env, posix_spawnp(pid, file, actions, attr, argv, with))
