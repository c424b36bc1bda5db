/* SPDX-License-Identifier: MIT */
/* What all verbs do alike: options by getopt_long(3), one-line errors, colours for terminals. */
#include "front/launcher.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int launcher_error(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("anykvm: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EXIT_OURS;
}

int launcher_flush(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return 0;
	return launcher_error("cannot write to standard output");
}

int launcher_getopt(const char *verb, int argc, char **argv, const char *shorts,
		    const struct option *longs)
{
	int opt;

	opterr = 0;
	opt = getopt_long(argc, argv, shorts, longs, NULL);
	if (opt == ':')
		launcher_error("%s wants a value; see `anykvm %s --help`", argv[optind - 1], verb);
	else if (opt == '?' && optopt && optopt < 256 && argv[optind - 1][1] != '-')
		launcher_error("unknown option '-%c'; see `anykvm %s --help`", optopt, verb);
	else if (opt == '?')
		launcher_error("unknown option '%s'; see `anykvm %s --help`", argv[optind - 1],
			       verb);
	return opt == ':' ? '?' : opt;
}

bool launcher_number(const char *text, unsigned long low, unsigned long high, unsigned long *ret)
{
	unsigned long val;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	val = strtoul(text, &end, 0);
	if (errno || *end || val < low || val > high)
		return false;
	*ret = val;
	return true;
}

bool launcher_colours(int fd)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(fd) && !(no && *no) && term && strcmp(term, "dumb");
}
