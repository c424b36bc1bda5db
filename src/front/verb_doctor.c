/* SPDX-License-Identifier: MIT */
/*
 * anykvm doctor [PROGRAM]: one line per check. 0: all is well; 1: it works, but something is slow or missing;
 * 2: it does not work.
 *
 * The guest is run by a child under the library, which is this command again (`doctor --probe`), so that what is
 * tried is what a program will have.
 */
#include "front/launcher.h"
#include "silicon/models/model.h"

#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FINE, MEAGRE, BAD };

/* The worst so far. */
static int worst;

static __printf_(3, 4) void say(int state, const char *what, const char *fmt, ...)
{
	static const char *const words[] = {"ok", "warn", "FAIL"};
	static const char *const colours[] = {"\033[32m", "\033[33m", "\033[31m"};
	bool colour = launcher_colours(STDOUT_FILENO);
	va_list ap;

	printf("%s%-4s%s  %-12s ", colour ? colours[state] : "", words[state],
	       colour ? "\033[0m" : "", what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	worst = max(worst, state);
}

static int usage(void)
{
	printf("usage: anykvm doctor [PROGRAM]\n"
	       "\n"
	       "Say whether anykvm works here, and whether PROGRAM can be run on it.\n"
	       "Exit status: 0 all is well, 1 it works with something slow or missing, 2 it does "
	       "not.\n");
	return launcher_flush();
}

/* ---- the host ---- */

static void check_cpu(void)
{
	static const struct {
		enum feature feature;
		const char *name;
	} wanted[] = {
		{FEAT_AVX, "AVX"}, {FEAT_AVX2, "AVX2"},	 {FEAT_AVX512F, "AVX-512"},
		{FEAT_AES, "AES"}, {FEAT_SHA_NI, "SHA"}, {FEAT_BMI2, "BMI2"},
	};
	char have[96] = "", lack[96] = "";
	const char *why;
	const struct cpu_model *m = model_find(NULL, &why);

	if (!m) {
		say(BAD, "processor", "%s", why);
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++) {
		char *to = feature_has(m->features, wanted[i].feature) ? have : lack;

		strcat(strcat(to, " "), wanted[i].name);
	}
	say(FINE, "processor", "%s; guests have%s%s%s%s", model_intel(m) ? "Intel" : "AMD",
	    *have ? have : " none", *lack ? " (not" : "", lack, *lack ? ")" : "");
	if (feature_has(m->features, FEAT_BMI2))
		say(FINE, "translation", "the host has BMI2: guests run in tempo run");
	else
		say(MEAGRE, "translation", "the host lacks BMI2: guests run in tempo step, slowly");
}

static void check_code(void)
{
	struct host_code code;
	int err = host_code_alloc(&code, PAGE_SIZE);

	if (err) {
		say(BAD, "code memory", "forbidden (%s); allow it (SELinux: execmem)",
		    strerror(-err));
		return;
	}
	host_code_free(&code);
	say(FINE, "code memory", "may be made executable");
}

/* As much as a guest of 64 GiB needs. */
static void check_space(void)
{
	const size_t want = 64ul << 30;
	void *at = mmap(NULL, want, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED) {
		say(MEAGRE, "memory",
		    "no 64 GiB of address space; large guests will fail (ulimit -v)");
		return;
	}
	munmap(at, want);
	say(FINE, "memory", "address space for guests of 64 GiB");
}

static unsigned long first_number(const char *path)
{
	unsigned long val = ULONG_MAX;
	FILE *f = fopen(path, "re");

	if (f && fscanf(f, "%lu", &val) != 1)
		val = ULONG_MAX;
	if (f)
		fclose(f);
	return val;
}

static void check_limits(void)
{
	unsigned long maps = first_number("/proc/sys/vm/max_map_count");
	struct rlimit files;

	if (access("/proc/self/fd", R_OK))
		say(BAD, "/proc", "is not mounted; anykvm finds closed files there");
	if (getrlimit(RLIMIT_NOFILE, &files))
		files.rlim_cur = 0;
	if (files.rlim_cur < 256)
		say(MEAGRE, "limits", "only %lu open files; a VM takes several (ulimit -n)",
		    (unsigned long)files.rlim_cur);
	else if (maps < 4096)
		say(MEAGRE, "limits", "only %lu mappings (vm.max_map_count)", maps);
	else
		say(FINE, "limits", "%lu open files", (unsigned long)files.rlim_cur);
}

static void check_device(void)
{
	struct stat st;

	if (stat("/dev/kvm", &st) || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(10, 232) ||
	    access("/dev/kvm", R_OK | W_OK))
		say(FINE, "/dev/kvm", "the host offers none; none is needed");
	else
		say(FINE, "/dev/kvm",
		    "the host has its own; programs under anykvm do not touch it");
}

/* ---- a guest ---- */

static int probe(void)
{
	const char *bad = probe_guest();

	printf("%s\n", bad ? bad : "fine");
	return launcher_flush();
}

static void probe_child(int out)
{
	char *args[] = {"anykvm", "doctor", "--probe", NULL};

	dup2(out, STDOUT_FILENO);
	if (!launcher_preload())
		execv("/proc/self/exe", args);
	_exit(EXIT_OURS);
}

/* What the child says, a line. */
static bool ask_child(char *ret, size_t size)
{
	int pipes[2], status;
	FILE *f;
	pid_t pid;

	if (pipe(pipes))
		return false;
	fflush(stdout);
	pid = fork();
	if (!pid)
		probe_child(pipes[1]);
	close(pipes[1]);
	f = fdopen(pipes[0], "r");
	if (!f || !fgets(ret, size, f))
		ret[0] = 0;
	ret[strcspn(ret, "\n")] = 0;
	if (f)
		fclose(f);
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

static void check_library(void)
{
	const char *why;
	char *lib = launcher_library(&why), line[200];

	if (!lib) {
		say(BAD, "library", "%s", why);
		return;
	}
	say(FINE, "library", "%s", lib);
	free(lib);
	if (!ask_child(line, sizeof(line)))
		say(BAD, "guest", "the library cannot be preloaded");
	else if (strcmp(line, "fine"))
		say(BAD, "guest", "%s", line);
	else
		say(FINE, "guest", "ran: 41 + 1 = 42");
}

/* ---- a program ---- */

static void check_program(const char *name)
{
	const char *why, *which;
	char *path = program_search(name);

	if (!path) {
		say(BAD, "program", "%s: not found, or not executable", name);
		return;
	}
	why = program_unreachable(path, &which);
	if (why)
		say(BAD, "program", "%s %s", which, why);
	else
		say(FINE, "program", "%s can be run on anykvm", path);
	free(path);
}

int verb_doctor(int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, {"probe", no_argument, NULL, 'P'}, {0}};
	int opt;

	while ((opt = launcher_getopt("doctor", argc, argv, "+:h", options)) != -1) {
		if (opt == 'h')
			return usage();
		if (opt == 'P')
			return probe();
		return EXIT_OURS;
	}
	if (argc - optind > 1)
		return launcher_error("doctor takes one program, without arguments");
	check_cpu();
	check_code();
	check_space();
	check_limits();
	check_device();
	check_library();
	if (optind < argc)
		check_program(argv[optind]);
	return launcher_flush() ? EXIT_OURS : worst;
}
