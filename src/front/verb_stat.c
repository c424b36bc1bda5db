/* SPDX-License-Identifier: MIT */
/*
 * anykvm stat: what the guests of this user's processes do, in kvm_stat's columns. Live on a terminal until q or Ctrl-C;
 * once; or as CSV. vCPUs count events only while somebody looks, so totals begin when the looking does; the counters
 * of KVM_GET_STATS_FD are always counted.
 */
#include "front/watch.h"

#include <getopt.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

struct stat_view {
	bool once, csv, has_regex;
	double delay; /* seconds */
	unsigned long pid, count;
	regex_t regex;
	struct watch_list list;
	unsigned nr;
	uint64_t *sums, *last;
	uint64_t now, then; /* ns */
};

static volatile sig_atomic_t stopped;

static void stop(int signo)
{
	stopped = 1;
}

static int usage(void)
{
	printf("usage: anykvm stat [OPTION]...\n"
	       "\n"
	       "Show what guests do that run on anykvm in processes of yours. q or Ctrl-C ends "
	       "it.\n"
	       "\n"
	       "  -1, --once               sample once, print, end\n"
	       "  -c, --csv                a line of numbers per interval, to be read by programs\n"
	       "  -f, --fields REGEX       only events whose name matches\n"
	       "  -n, --count N            end after N intervals\n"
	       "  -p, --pid PID            only that process\n"
	       "  -s, --set-delay SECONDS  the interval, 0.1 to 3600; default 1\n"
	       "  -h, --help               tell this\n");
	return launcher_flush();
}

static bool shown(const struct stat_view *v, unsigned row)
{
	return !v->has_regex || !regexec(&v->regex, watch_row(row).name, 0, NULL, 0);
}

static void sample(struct stat_view *v)
{
	uint64_t *old = v->last;

	v->last = v->sums;
	v->sums = old;
	memset(v->sums, 0, v->nr * sizeof(*v->sums));
	watch_find(&v->list, v->pid);
	watch_renew(&v->list, (uint64_t)(v->delay * 3e9) + 1000000000);
	for (unsigned i = 0; i < v->list.nr; i++)
		watch_sum(v->list.v[i].page, v->sums);
	v->then = v->now;
	v->now = host_monotonic_ns();
}

static unsigned alive(const struct stat_view *v)
{
	unsigned n = 0;

	for (unsigned i = 0; i < v->list.nr; i++)
		n += !v->list.v[i].gone;
	return n;
}

/* ---- the table ---- */

static uint64_t all_events(const struct stat_view *v)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < v->nr; i++)
		if (watch_row(i).event && !watch_row(i).child)
			all += v->sums[i];
	return all;
}

/*
 * No wider than the terminal: the name gives way first, then columns, from the right; a number that was cut would be another.
 */
static void print_columns(unsigned width, bool child, const char *name, const char *const cells[3])
{
	int room = width > 72 ? 40 : width > 46 ? (int)width - 33 : width > 24 ? 12 : 0;
	int total = room ? 12 : max((int)strlen(cells[0]), 6);
	char text[200];

	if (!room)
		room = max((int)width - 1 - total, 4);
	snprintf(text, sizeof(text), "%s%-*.*s %*s", child ? " " : "", room - child, room - child,
		 name, total, cells[0]);
	printf("%.*s", (int)width, text);
	if (width > 32)
		printf(" %7s", cells[1]);
	if (width > 43)
		printf(" %10s", cells[2]);
	printf("\n");
}

static void print_row(const struct stat_view *v, unsigned row, unsigned width, double all)
{
	struct watch_row r = watch_row(row);
	double seconds = (v->now - v->then) / 1e9;
	double rate = v->sums[row] > v->last[row] ? (v->sums[row] - v->last[row]) / seconds : 0;
	char total[24], share[16] = "", average[24];

	snprintf(total, sizeof(total), "%llu", (unsigned long long)v->sums[row]);
	if (r.event)
		snprintf(share, sizeof(share), "%.1f", all > 0 ? 100 * v->sums[row] / all : 0);
	snprintf(average, sizeof(average), "%.0f", rate);
	print_columns(width, r.child, r.name, (const char *const[]){total, share, average});
}

static int *order;
static const uint64_t *order_by;

/* Children of kvm_exit go behind it; then by total. */
static int compare(const void *a, const void *b)
{
	unsigned x = *(const int *)a, y = *(const int *)b;

	if (order_by[x] != order_by[y])
		return order_by[x] < order_by[y] ? 1 : -1;
	return x < y ? -1 : 1;
}

/* Rows of one kind that are not all zero, the largest first. */
static unsigned sorted(const struct stat_view *v, bool event, bool child)
{
	unsigned n = 0;

	for (unsigned i = 0; i < v->nr; i++)
		if (watch_row(i).event == event && watch_row(i).child == child && v->sums[i] &&
		    shown(v, i))
			order[n++] = i;
	order_by = v->sums;
	qsort(order, n, sizeof(*order), compare);
	return n;
}

static void print_table(const struct stat_view *v, unsigned width, unsigned height)
{
	double all = all_events(v);
	unsigned left = height;

	print_columns(width, false, "Event", (const char *const[]){"Total", "%Total", "CurAvg/s"});
	for (unsigned kind = 0; kind < 3; kind++) {
		unsigned n = sorted(v, kind < 2, kind == 1);

		for (unsigned i = 0; i < n && left; i++, left--)
			print_row(v, order[i], width, all);
	}
}

/* ---- CSV ---- */

static void csv_head(const struct stat_view *v)
{
	printf("timestamp");
	for (unsigned i = 0; i < v->nr; i++)
		if (shown(v, i))
			printf(",%s", watch_row(i).name);
	printf("\n");
}

static void csv_line(const struct stat_view *v)
{
	time_t now = time(NULL);
	struct tm tm;
	char text[40];

	strftime(text, sizeof(text), "%F %T", localtime_r(&now, &tm));
	printf("%s", text);
	for (unsigned i = 0; i < v->nr; i++)
		if (shown(v, i))
			printf(",%llu", (unsigned long long)(v->sums[i] > v->last[i]
								     ? v->sums[i] - v->last[i]
								     : 0));
	printf("\n");
}

/* ---- the terminal ---- */

static struct termios usual;
static bool raw;

static void terminal(bool on)
{
	struct termios quiet;

	if (on && isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &usual)) {
		quiet = usual;
		quiet.c_lflag &= ~(ICANON | ECHO);
		raw = !tcsetattr(STDIN_FILENO, TCSANOW, &quiet);
	} else if (!on && raw) {
		tcsetattr(STDIN_FILENO, TCSANOW, &usual);
		raw = false;
	}
	printf(on ? "\033[?1049h\033[?25l" : "\033[?25h\033[?1049l");
	fflush(stdout);
}

static void screen_size(unsigned *width, unsigned *height)
{
	struct winsize ws = {0};

	ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws);
	*width = ws.ws_col ? ws.ws_col : 80;
	*height = ws.ws_row ? ws.ws_row : 24;
}

static void draw(const struct stat_view *v)
{
	char head[100];
	unsigned width, height;

	screen_size(&width, &height);
	snprintf(head, sizeof(head), "anykvm statistics - %u vCPU%s   (q ends)", alive(v),
		 alive(v) == 1 ? "" : "s");
	printf("\033[H\033[J%.*s\n\n", (int)width, head);
	print_table(v, width, height > 5 ? height - 5 : 1);
	fflush(stdout);
}

/* True if the interval passed. */
static bool wait_interval(const struct stat_view *v)
{
	uint64_t end = host_monotonic_ns() + (uint64_t)(v->delay * 1e9), now;
	struct pollfd key = {.fd = raw ? STDIN_FILENO : -1, .events = POLLIN};
	char c;

	while (!stopped && (now = host_monotonic_ns()) < end) {
		if (poll(&key, 1, (int)((end - now) / 1000000) + 1) != 1)
			continue;
		if (read(STDIN_FILENO, &c, 1) != 1)
			key.fd = -1;
		else if (c == 'q')
			return false;
	}
	return !stopped;
}

/* ---- the verb ---- */

static int set_fields(struct stat_view *v, const char *text)
{
	char why[100];
	int err = regcomp(&v->regex, text, REG_EXTENDED | REG_NOSUB);

	if (err) {
		regerror(err, &v->regex, why, sizeof(why));
		return launcher_error("--fields '%s': %s", text, why);
	}
	v->has_regex = true;
	return 0;
}

static int set_delay(struct stat_view *v, const char *text)
{
	char *end;

	v->delay = strtod(text, &end);
	if (end == text || *end || !(v->delay >= 0.1 && v->delay <= 3600))
		return launcher_error("--set-delay wants 0.1 to 3600 seconds, not '%s'", text);
	return 0;
}

static int take_option(struct stat_view *v, int opt)
{
	switch (opt) {
	case '1':
		v->once = true;
		return 0;
	case 'c':
		v->csv = true;
		return 0;
	case 'f':
		return set_fields(v, optarg);
	case 'n':
		return launcher_number(optarg, 1, 1u << 30, &v->count)
			       ? 0
			       : launcher_error("--count wants a number, not '%s'", optarg);
	case 'p':
		return launcher_number(optarg, 1, 1u << 30, &v->pid)
			       ? 0
			       : launcher_error("--pid wants a process id, not '%s'", optarg);
	case 's':
		return set_delay(v, optarg);
	case 'h':
		exit(usage());
	}
	return EXIT_OURS;
}

static int nobody(const struct stat_view *v)
{
	if (v->pid && v->list.denied)
		return launcher_error(
			"process %lu may not be looked at: it is another user's, or protected",
			v->pid);
	if (v->pid)
		return kill(v->pid, 0) && errno == ESRCH
			       ? launcher_error("there is no process %lu", v->pid)
			       : launcher_error("process %lu has no guest on anykvm", v->pid);
	return launcher_error(
		"no process of yours has a guest on anykvm; start one by: anykvm run -- PROGRAM");
}

static int show(struct stat_view *v, bool live)
{
	unsigned long n = 0;
	bool more = true;

	if (v->csv)
		csv_head(v);
	while (more && !ferror(stdout)) {
		more = wait_interval(v);
		sample(v);
		if (v->csv)
			csv_line(v);
		else if (live)
			draw(v);
		else
			print_table(v, 200, -1u);
		if (v->csv)
			fflush(stdout);
		more = more && !v->once && alive(v) && (!v->count || ++n < v->count);
	}
	return 0;
}

int verb_stat(int argc, char **argv)
{
	static const struct option options[] = {{"once", no_argument, NULL, '1'},
						{"csv", no_argument, NULL, 'c'},
						{"fields", required_argument, NULL, 'f'},
						{"count", required_argument, NULL, 'n'},
						{"pid", required_argument, NULL, 'p'},
						{"set-delay", required_argument, NULL, 's'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	struct sigaction act = {.sa_handler = stop};
	struct stat_view v = {.delay = 1, .nr = watch_nr_rows()};
	bool live;
	int opt, ret = 0;

	while (!ret && (opt = launcher_getopt("stat", argc, argv, "+:1cf:n:p:s:h", options)) != -1)
		ret = take_option(&v, opt);
	if (ret)
		return ret;
	if (optind < argc)
		return launcher_error("stat takes no arguments; to watch a program from its start: "
				      "anykvm run --stat -- PROGRAM");
	v.sums = calloc(v.nr, sizeof(*v.sums));
	v.last = calloc(v.nr, sizeof(*v.last));
	order = calloc(v.nr, sizeof(*order));
	if (!v.sums || !v.last || !order)
		return launcher_error("out of memory");
	sample(&v);
	if (!v.list.nr)
		return nobody(&v);
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	live = !v.once && !v.csv && isatty(STDOUT_FILENO);
	if (live)
		terminal(true);
	show(&v, live);
	if (live)
		terminal(false);
	return launcher_flush();
}
