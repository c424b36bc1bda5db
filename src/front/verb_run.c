/* SPDX-License-Identifier: MIT */
/*
 * anykvm run: put the library into LD_PRELOAD and the settings into the environment, then become the
 * program. Status and signals are the program's own, for it is this very process.
 */
#include "front/watch.h"
#include "kvm/api/api.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct settings {
	const char *cpu, *tempo, *counters;
	const char *seed; /* NULL: not deterministic */
	const char *stat; /* the report's file, "" for stderr; NULL: none */
	char *params;	  /* joined by commas, or NULL */
	char **program;
};

static int usage(void)
{
	struct api_param param;
	unsigned i;

	printf("usage: anykvm run [OPTION]... [--] PROGRAM [ARG]...\n"
	       "\n"
	       "Run PROGRAM and its children with anykvm as their /dev/kvm.\n"
	       "\n"
	       "  --cpu MODEL      the processor that the program sees (`anykvm cpus`); default: "
	       "near the host's\n"
	       "  --tempo TEMPO    run (default), step or lockstep\n"
	       "  --deterministic[=SEED]\n"
	       "                   the same run again: time from retired instructions, vCPUs in "
	       "turns drawn by SEED (0)\n"
	       "  --counters FILE  at the end, append all counters to FILE\n"
	       "  --stat[=FILE]    at the end, report exits by reason with their time on stderr or "
	       "to FILE\n"
	       "  --param MODULE.NAME=VALUE\n"
	       "                   a parameter of the KVM modules; refused unless it is one of\n");
	for (i = 0; api_param_nth(i, &param); i++)
		printf("                     %s.%s=%s%s: %s\n", param.module, param.name,
		       param.value, param.fixed ? "" : " or another", param.summary);
	return launcher_flush();
}

static const struct option options[] = {
	{"cpu", required_argument, NULL, 'c'},	    {"param", required_argument, NULL, 'p'},
	{"tempo", required_argument, NULL, 't'},    {"deterministic", optional_argument, NULL, 'd'},
	{"counters", required_argument, NULL, 'C'}, {"stat", optional_argument, NULL, 's'},
	{"help", no_argument, NULL, 'h'},	    {0},
};

static int take_option(struct settings *set, int opt)
{
	switch (opt) {
	case 'c':
		set->cpu = optarg;
		return 0;
	case 't':
		set->tempo = optarg;
		return 0;
	case 'd':
		set->seed = optarg ? optarg : "0";
		return *set->seed ? 0 : launcher_error("--deterministic wants a number, or none");
	case 'C':
		set->counters = optarg;
		return 0;
	case 's':
		set->stat = optarg ? optarg : "";
		return 0;
	case 'p':
		if (!strchr(optarg, '='))
			return launcher_error("--param wants MODULE.NAME=VALUE, not '%s'", optarg);
		set->params = launcher_join(set->params, ',', optarg);
		return 0;
	case 'h':
		exit(usage());
	}
	return EXIT_OURS;
}

/* 0, or an exit status after a line on stderr. */
static int parse(int argc, char **argv, struct settings *set)
{
	int opt, ret;

	while ((opt = launcher_getopt("run", argc, argv, "+:h", options)) != -1) {
		ret = take_option(set, opt);
		if (ret)
			return ret;
	}
	if (optind == argc)
		return launcher_error("no program given: anykvm run [OPTIONS] -- PROGRAM ARGS");
	set->program = argv + optind;
	return 0;
}

static int check_host(void)
{
	struct host_code code;
	int err = host_code_alloc(&code, PAGE_SIZE);

	if (err)
		return launcher_error("this host forbids executable memory (%s); "
				      "allow it (SELinux: execmem) or run elsewhere",
				      strerror(-err));
	host_code_free(&code);
	return 0;
}

static const char *or_environment(const char *val, const char *name)
{
	val = val ? val : getenv(name);
	return val && *val ? val : NULL;
}

static int check_settings(const struct settings *set)
{
	/* They say themselves what is wrong. */
	if (api_set_tempo(or_environment(set->tempo, "ANYKVM_TEMPO")) ||
	    api_set_deterministic(or_environment(set->seed, "ANYKVM_DETERMINISTIC")))
		return EXIT_OURS;
	return api_init(or_environment(set->cpu, "ANYKVM_CPU"),
			or_environment(set->params, "ANYKVM_PARAMS"))
		       ? EXIT_OURS
		       : 0;
}

/* It is appended to, by the program and its children, wherever they are by then. */
static int find_counters(struct settings *set)
{
	const char *path = or_environment(set->counters, "ANYKVM_STATS_FILE");
	char *here;
	int fd;

	if (!path)
		return 0;
	here = *path == '/' ? NULL : getcwd(NULL, 0);
	set->counters = here ? launcher_join(here, '/', path) : path;
	free(here);
	fd = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
		return close(fd);
	if (errno == ENOENT)
		return whole_check(path);
	return errno == ENXIO ? 0 : launcher_error("cannot write %s: %s", path, strerror(errno));
}

static void set_variable(const char *name, const char *val)
{
	if (val)
		setenv(name, val, 1);
}

static void set_environment(const struct settings *set)
{
	set_variable("ANYKVM_CPU", set->cpu);
	set_variable("ANYKVM_PARAMS", set->params);
	set_variable("ANYKVM_TEMPO", set->tempo);
	set_variable("ANYKVM_DETERMINISTIC", set->seed);
	set_variable("ANYKVM_STATS_FILE", set->counters);
}

/* ---- --stat ---- */

static struct watch_page **pages_of(struct session *s)
{
	struct watch_page **pages = calloc(session_nr(s) + 1, sizeof(*pages));

	if (!pages)
		exit(launcher_error("out of memory"));
	for (unsigned i = 0; i < session_nr(s); i++)
		pages[i] = watch_slot(s->map, i);
	return pages;
}

/* name: a file's, or "" for stderr. */
static int report(struct session *s, const char *name)
{
	struct watch_page **pages = pages_of(s);
	struct whole w = {.f = stderr};
	bool ok = !*name || whole_open(&w, name);

	if (ok) {
		watch_report(w.f, pages, session_nr(s));
		ok = *name ? whole_close(&w, true) : !fflush(stderr) && !ferror(stderr);
	}
	free(pages);
	return ok ? 0 : launcher_error("cannot write %s: %s", name, strerror(errno));
}

/* The parent lives on, to tell of a program that is killed, too. */
static int run_counted(const struct settings *set, const char *path)
{
	const struct watch_session settings = {.max_slots = 1024};
	struct session s;
	int ret = *set->stat ? whole_check(set->stat) : 0;

	if (!ret)
		ret = session_create(&s, &settings);
	if (ret)
		return ret;
	ret = session_run(&s, path, set->program, NULL, NULL);
	return report(&s, set->stat) ? EXIT_OURS : ret;
}

static void stat_by_environment(struct settings *set)
{
	const char *val = getenv("ANYKVM_STAT");

	if (!set->stat && val && *val)
		set->stat = strcmp(val, "1") ? val : "";
	/* The program's own calls of the command are none of it. */
	unsetenv("ANYKVM_STAT");
}

int verb_run(int argc, char **argv)
{
	struct settings set = {0};
	char *path;
	int ret;

	ret = parse(argc, argv, &set);
	if (!ret)
		ret = check_host();
	if (!ret)
		ret = check_settings(&set);
	if (!ret)
		ret = find_counters(&set);
	if (!ret)
		ret = launcher_preload();
	if (!ret)
		ret = program_find(set.program[0], &path);
	if (ret)
		return ret;
	set_environment(&set);
	stat_by_environment(&set);
	if (set.stat)
		return run_counted(&set, path);
	return launcher_become(path, set.program);
}
