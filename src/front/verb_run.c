/* SPDX-License-Identifier: MIT */
/*
 * anykvm run: put the library into LD_PRELOAD and the settings into the environment, then become the
 * program. Status and signals are the program's own, for it is this very process.
 */
#include "front/launcher.h"
#include "kvm/api/api.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct settings {
	const char *cpu;
	char *params; /* joined by commas, or NULL */
	char **program;
};

static int usage(void)
{
	struct api_param param;
	unsigned i;

	printf("usage: anykvm run [--cpu MODEL] [--param MODULE.NAME=VALUE]... [--] PROGRAM ARGS\n"
	       "\n"
	       "Run PROGRAM and its children with anykvm as their /dev/kvm.\n"
	       "\n"
	       "  --cpu MODEL    the processor that the program sees (`anykvm cpus`); default: "
	       "near the host's\n"
	       "  --param MODULE.NAME=VALUE\n"
	       "                 a parameter of the KVM modules; refused unless it is one of\n");
	for (i = 0; api_param_nth(i, &param); i++)
		printf("                   %s.%s=%s%s: %s\n", param.module, param.name, param.value,
		       param.fixed ? "" : " or another", param.summary);
	return fflush(stdout) ? EXIT_OURS : 0;
}

static void out_of_memory(void)
{
	fprintf(stderr, "anykvm: out of memory\n");
	exit(EXIT_OURS);
}

/* "first SEP second"; either may be NULL. */
static char *append(const char *first, char sep, const char *second)
{
	char *ret;

	if (!first || !*first)
		ret = strdup(second);
	else if (asprintf(&ret, "%s%c%s", first, sep, second) < 0)
		ret = NULL;
	if (!ret)
		out_of_memory();
	return ret;
}

/* The value of option `name` at **argv ("--name VALUE" or "--name=VALUE"), or NULL. Steps on. */
static const char *option(const char *name, char ***argv)
{
	size_t len = strlen(name);
	char *arg = **argv;

	if (!strncmp(arg, name, len) && arg[len] == '=') {
		(*argv)++;
		return arg + len + 1;
	}
	if (strcmp(arg, name))
		return NULL;
	if (!(*argv)[1]) {
		fprintf(stderr, "anykvm: %s wants a value\n", name);
		exit(EXIT_OURS);
	}
	*argv += 2;
	return (*argv)[-1];
}

/* 0, or an exit status after a line on stderr. */
static int parse(char **argv, struct settings *set)
{
	const char *val;

	while (*argv && **argv == '-' && strcmp(*argv, "--")) {
		val = option("--cpu", &argv);
		if (val) {
			set->cpu = val;
			continue;
		}
		val = option("--param", &argv);
		if (!val) {
			fprintf(stderr, "anykvm: unknown option '%s'; see `anykvm run --help`\n",
				*argv);
			return EXIT_OURS;
		}
		if (!strchr(val, '=')) {
			fprintf(stderr, "anykvm: --param wants MODULE.NAME=VALUE, not '%s'\n", val);
			return EXIT_OURS;
		}
		set->params = append(set->params, ',', val);
	}
	if (*argv && !strcmp(*argv, "--"))
		argv++;
	if (!*argv) {
		fprintf(stderr, "anykvm: no program given: anykvm run [OPTIONS] -- PROGRAM ARGS\n");
		return EXIT_OURS;
	}
	set->program = argv;
	return 0;
}

/* ---- The library ---- */

/* "dir/name" if that can be read, or NULL. */
static char *library_at(const char *dir, const char *name)
{
	char *path = append(dir, '/', name);

	if (!access(path, R_OK))
		return path;
	free(path);
	return NULL;
}

/* Beside the command in the build tree; where it was installed; or there, moved as a whole. */
static char *library_find(void)
{
	char self[PATH_MAX], *path;
	ssize_t len;

	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[max(len, (ssize_t)0)] = 0;
	if (strrchr(self, '/'))
		*strrchr(self, '/') = 0;
	path = library_at(self, "libanykvm.so");
	if (!path)
		path = library_at(self, ANYKVM_LIB_FROM_BIN "/libanykvm.so");
	if (!path)
		path = library_at(ANYKVM_LIB_INSTALLED, "libanykvm.so");
	return path;
}

static bool listed(const char *list, const char *path)
{
	size_t len = strlen(path);
	const char *at;

	for (at = list; at && (at = strstr(at, path)); at += len) {
		if ((at == list || strchr(" :", at[-1])) && (!at[len] || strchr(" :", at[len])))
			return true;
	}
	return false;
}

/*
 * In a sanitizer build the runtime has to be initialized before libanykvm.so: its path, or NULL.
 * The command itself is linked with it then.
 */
extern void __asan_init(void) __attribute__((weak));

static const char *sanitizer_runtime(void)
{
	Dl_info info;

	return __asan_init && dladdr((void *)__asan_init, &info) ? info.dli_fname : NULL;
}

static void put_first(const char *path)
{
	const char *others = getenv("LD_PRELOAD");

	if (!listed(others, path))
		setenv("LD_PRELOAD", others && *others ? append(path, ':', others) : path, 1);
}

static int preload(void)
{
	char *lib = library_find();
	const char *runtime = sanitizer_runtime();

	if (!lib) {
		fprintf(stderr,
			"anykvm: libanykvm.so is not beside the command; build or install it\n");
		return EXIT_OURS;
	}
	if (strpbrk(lib, " :")) {
		fprintf(stderr,
			"anykvm: %s: a path with a space or colon cannot be preloaded; move it\n",
			lib);
		return EXIT_OURS;
	}
	put_first(lib);
	if (runtime)
		put_first(runtime);
	return 0;
}

/* ---- The host and the settings ---- */

static int check_host(void)
{
	struct host_code code;
	int err = host_code_alloc(&code, PAGE_SIZE);

	if (err) {
		fprintf(stderr,
			"anykvm: this host forbids executable memory (%s); "
			"allow it (SELinux: execmem) or run elsewhere\n",
			strerror(-err));
		return EXIT_OURS;
	}
	host_code_free(&code);
	return 0;
}

static int check_settings(const struct settings *set)
{
	const char *cpu = set->cpu ? set->cpu : getenv("ANYKVM_CPU");

	/* Says itself what is wrong. */
	return api_init(cpu && *cpu ? cpu : NULL, set->params) ? EXIT_OURS : 0;
}

static void set_environment(const struct settings *set)
{
	if (set->cpu)
		setenv("ANYKVM_CPU", set->cpu, 1);
	if (set->params)
		setenv("ANYKVM_PARAMS", set->params, 1);
}

static int become(const char *path, char **argv)
{
	int err;

	execv(path, argv);
	err = errno;
	fprintf(stderr, "anykvm: %s: %s\n", path, strerror(err));
	return err == ENOENT || err == ENOTDIR ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}

int verb_run(int argc, char **argv)
{
	struct settings set = {0};
	char *path;
	int ret;

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
		return usage();
	ret = parse(argv + 1, &set);
	if (ret)
		return ret;
	ret = check_host();
	if (ret)
		return ret;
	ret = check_settings(&set);
	if (ret)
		return ret;
	ret = preload();
	if (ret)
		return ret;
	ret = program_find(set.program[0], &path);
	if (ret)
		return ret;
	set_environment(&set);
	return become(path, set.program);
}
