/* SPDX-License-Identifier: MIT */
/*
 * trace.dat, version 6, as trace-cmd.dat.v6(5) describes it: header, event formats, names of threads, options, then for
 * each CPU (here: each vCPU) the pages of a ring buffer as the kernel fills them.
 *
 * Pages are made while the program runs, in a file without a name per vCPU, beside the file to be; that is put together at
 * the end (whole.c). So what bears the name is whole, and a full disk leaves nothing.
 */
#include "front/trace.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_HEAD    16
#define MAX_TYPE_LEN 28
#define TIME_EXTEND  30
#define DELTA_BITS   27
#define WRITE_PAGES  64

struct cpu_pages {
	int fd;		      /* -1: none yet */
	uint32_t used;	      /* of the page: bytes behind its head */
	uint32_t filled;      /* whole pages in buf */
	uint64_t first, last; /* ns: the page's, the last event's */
	uint64_t pages;	      /* written to fd */
	uint8_t *buf;	      /* WRITE_PAGES of them */
};

struct thread_name {
	int32_t tid;
	char comm[20];
};

struct trace_dat {
	char *path, *dir;
	uint64_t base_tsc, base_ns;
	uint32_t tsc_khz; /* that ->ns_of_tick, 2^-32 ns each, is made of */
	uint64_t ns_of_tick;
	struct cpu_pages *cpus;
	unsigned nr_cpus;
	struct thread_name *threads;
	unsigned nr_threads;
	bool failed; /* and told */
};

static bool fail(struct trace_dat *t, const char *what)
{
	if (!t->failed)
		launcher_error("%s: %s; the trace ends here, and is not kept", what,
			       strerror(errno));
	t->failed = true;
	return false;
}

static bool write_all(int fd, const void *from, size_t size)
{
	while (size) {
		ssize_t n = write(fd, from, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n ? errno : ENOSPC;
			return false;
		}
		from = (const char *)from + n;
		size -= n;
	}
	return true;
}

/* A file without a name, in the folder where the trace will be. */
static int nameless(const struct trace_dat *t)
{
	int fd = open(t->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char *name;

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd;
	name = launcher_join(t->dir, '/', ".anykvm-trace.XXXXXX");
	fd = mkostemp(name, O_CLOEXEC);
	if (fd >= 0)
		unlink(name);
	free(name);
	return fd;
}

static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return launcher_join(NULL, 0, ".");
	return slash == path ? launcher_join(NULL, 0, "/") : strndup(path, slash - path);
}

struct trace_dat *trace_dat_open(const char *path, uint64_t base_tsc, uint64_t base_ns)
{
	struct trace_dat *t = calloc(1, sizeof(*t));
	struct stat st;
	int fd;

	if (!t)
		exit(launcher_error("out of memory"));
	t->path = launcher_join(NULL, 0, path);
	t->dir = folder_of(path);
	t->base_tsc = base_tsc;
	t->base_ns = base_ns;
	if (!stat(path, &st) && !S_ISREG(st.st_mode)) {
		launcher_error("%s is no regular file; give another name by -o FILE", path);
		trace_dat_abandon(t);
		return NULL;
	}
	fd = nameless(t);
	if (fd < 0) {
		launcher_error("cannot write %s: %s", path, strerror(errno));
		trace_dat_abandon(t);
		return NULL;
	}
	close(fd);
	return t;
}

void trace_dat_abandon(struct trace_dat *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < t->nr_cpus; i++) {
		if (t->cpus[i].fd >= 0)
			close(t->cpus[i].fd);
		free(t->cpus[i].buf);
	}
	free(t->cpus);
	free(t->threads);
	free(t->path);
	free(t->dir);
	free(t);
}

/* ---- pages ---- */

static uint8_t *page_of(const struct cpu_pages *c)
{
	return c->buf + c->filled * PAGE_SIZE;
}

static bool flush(struct trace_dat *t, struct cpu_pages *c)
{
	if (c->filled && !write_all(c->fd, c->buf, c->filled * PAGE_SIZE))
		return fail(t, t->path);
	c->pages += c->filled;
	c->filled = 0;
	return true;
}

/* The page is full, or the last one. */
static bool finish_page(struct trace_dat *t, struct cpu_pages *c)
{
	uint64_t head[2] = {c->first, c->used};
	uint8_t *page = page_of(c);

	if (!c->used)
		return true;
	memcpy(page, head, sizeof(head));
	memset(page + PAGE_HEAD + c->used, 0, PAGE_SIZE - PAGE_HEAD - c->used);
	c->used = 0;
	c->filled++;
	return c->filled < WRITE_PAGES || flush(t, c);
}

static void put32(struct cpu_pages *c, uint32_t val)
{
	memcpy(page_of(c) + PAGE_HEAD + c->used, &val, sizeof(val));
	c->used += sizeof(val);
}

static void put_event(struct cpu_pages *c, uint64_t ns, const void *event, uint32_t size)
{
	uint32_t padded = ALIGN_UP(size, 4u);
	uint64_t delta;

	if (!c->used)
		c->first = c->last = ns;
	delta = ns - c->last;
	if (delta >> DELTA_BITS) {
		put32(c, TIME_EXTEND | (uint32_t)(delta << 5));
		put32(c, delta >> DELTA_BITS);
		delta = 0;
	}
	if (padded / 4 <= MAX_TYPE_LEN) {
		put32(c, padded / 4 | (uint32_t)delta << 5);
	} else {
		put32(c, (uint32_t)delta << 5);
		put32(c, padded + 4);
	}
	memcpy(page_of(c) + PAGE_HEAD + c->used, event, size);
	memset(page_of(c) + PAGE_HEAD + c->used + size, 0, padded - size);
	c->used += padded;
	c->last = ns;
}

static bool add_cpus(struct trace_dat *t, unsigned nr)
{
	struct cpu_pages *more = realloc(t->cpus, nr * sizeof(*more));

	if (!more)
		exit(launcher_error("out of memory"));
	t->cpus = more;
	for (; t->nr_cpus < nr; t->nr_cpus++) {
		struct cpu_pages *c = &t->cpus[t->nr_cpus];

		*c = (struct cpu_pages){.fd = nameless(t), .buf = malloc(WRITE_PAGES * PAGE_SIZE)};
		if (c->fd < 0 || !c->buf) {
			t->nr_cpus++;
			return fail(t, t->path);
		}
	}
	return true;
}

/* A thread's name, while it is there to be asked. Not real: no thread's. */
static void remember_thread(struct trace_dat *t, int32_t tid, bool real)
{
	struct thread_name *more;
	char path[40];
	FILE *f;

	for (unsigned i = t->nr_threads; i--;)
		if (t->threads[i].tid == tid)
			return;
	more = realloc(t->threads, (t->nr_threads + 1) * sizeof(*more));
	if (!more)
		exit(launcher_error("out of memory"));
	t->threads = more;
	more += t->nr_threads++;
	*more = (struct thread_name){.tid = tid, .comm = "vcpu"};
	snprintf(path, sizeof(path), "/proc/%d/comm", tid);
	f = real ? fopen(path, "re") : NULL;
	if (f && fgets(more->comm, sizeof(more->comm), f))
		more->comm[strcspn(more->comm, "\n")] = 0;
	if (f)
		fclose(f);
}

/* A multiplication per event, and no division; right to a nanosecond in a second. */
static uint64_t time_of(struct trace_dat *t, uint32_t tsc_khz, uint64_t tsc)
{
	if (t->tsc_khz != tsc_khz) {
		t->tsc_khz = tsc_khz;
		t->ns_of_tick = (1000000ull << 32) / tsc_khz;
	}
	return t->base_ns +
	       (uint64_t)((unsigned __int128)(tsc - t->base_tsc) * t->ns_of_tick >> 32);
}

bool trace_dat_add(struct trace_dat *t, unsigned cpu, uint32_t tsc_khz, uint64_t tsc,
		   const void *event, uint32_t size)
{
	const struct watch_common *common = event;
	struct cpu_pages *c;
	uint64_t ns;

	if (t->failed || (cpu >= t->nr_cpus && !add_cpus(t, cpu + 1)))
		return false;
	c = &t->cpus[cpu];
	ns = max(tsc_khz ? time_of(t, tsc_khz, tsc) : tsc, c->last);
	if (c->used + size + 24 > PAGE_SIZE - PAGE_HEAD && !finish_page(t, c))
		return false;
	remember_thread(t, common->pid, tsc_khz);
	put_event(c, ns, event, size);
	return true;
}

/* ---- the file ---- */

static void put(FILE *f, uint64_t val, unsigned bytes)
{
	fwrite(&val, 1, bytes, f);
}

static void put_text(FILE *f, const char *text, unsigned length_bytes)
{
	put(f, strlen(text), length_bytes);
	fputs(text, f);
}

static void put_headers(FILE *f)
{
	static const char page[] = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
				   "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
				   "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
				   "\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n";
	static const char event[] = "# compressed entry header\n"
				    "\ttype_len    :    5 bits\n"
				    "\ttime_delta  :   27 bits\n"
				    "\tarray       :   32 bits\n\n"
				    "\tpadding     : type == 29\n"
				    "\ttime_extend : type == 30\n"
				    "\ttime_stamp : type == 31\n"
				    "\tdata max type_len  == 28\n";

	fwrite("\x17\x08\x44tracing6\0\0\x08", 1, 14, f);
	put(f, PAGE_SIZE, 4);
	fwrite("header_page", 1, 12, f);
	put_text(f, page, 8);
	fwrite("header_event", 1, 13, f);
	put_text(f, event, 8);
	put(f, 0, 4); /* formats of ftrace's own */
}

static unsigned count_formats(const char *system)
{
	const char *of;
	unsigned n = 0;
	char *text;

	for (unsigned i = 0; (text = trace_format(i, &of)); i++) {
		n += !strcmp(of, system);
		free(text);
	}
	return n;
}

static void put_system(FILE *f, const char *system)
{
	const char *of;
	char *text;

	fwrite(system, 1, strlen(system) + 1, f);
	put(f, count_formats(system), 4);
	for (unsigned i = 0; (text = trace_format(i, &of)); i++) {
		if (!strcmp(of, system))
			put_text(f, text, 8);
		free(text);
	}
}

static void put_threads(FILE *f, const struct trace_dat *t)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	if (!to)
		exit(launcher_error("out of memory"));
	for (unsigned i = 0; i < t->nr_threads; i++)
		fprintf(to, "%d %s\n", t->threads[i].tid, t->threads[i].comm);
	fclose(to);
	put_text(f, text, 8);
	free(text);
}

static void put_option(FILE *f, unsigned id, const char *text)
{
	put(f, id, 2);
	put(f, strlen(text) + 1, 4);
	fwrite(text, 1, strlen(text) + 1, f);
}

#define OPTION_CPUSTAT	  2
#define OPTION_TRACECLOCK 4

static void put_options(FILE *f, unsigned nr_cpus, const uint64_t *lost)
{
	char text[100];

	fwrite("options  ", 1, 10, f);
	put_option(f, OPTION_TRACECLOCK, "local global [mono]");
	for (unsigned i = 0; i < nr_cpus; i++) {
		snprintf(text, sizeof(text), "CPU: %u\noverrun: 0\ndropped events: %llu\n", i,
			 (unsigned long long)lost[i]);
		put_option(f, OPTION_CPUSTAT, text);
	}
	put(f, 0, 2);
}

static void put_data(FILE *f, const struct trace_dat *t)
{
	uint64_t at;

	fwrite("flyrecord", 1, 10, f);
	at = ALIGN_UP((uint64_t)ftell(f) + t->nr_cpus * 16, PAGE_SIZE);
	for (unsigned i = 0; i < t->nr_cpus; i++) {
		put(f, at, 8);
		put(f, t->cpus[i].pages * PAGE_SIZE, 8);
		at += t->cpus[i].pages * PAGE_SIZE;
	}
	while (ftell(f) & ~PAGE_MASK)
		putc(0, f);
}

static bool copy_pages(FILE *f, struct cpu_pages *c)
{
	ssize_t n;

	for (off_t at = 0; (uint64_t)at < c->pages * PAGE_SIZE; at += n) {
		n = pread(c->fd, c->buf, WRITE_PAGES * PAGE_SIZE, at);
		if (n <= 0 || fwrite(c->buf, 1, n, f) != (size_t)n)
			return false;
	}
	return true;
}

static bool put_all(FILE *f, struct trace_dat *t, const uint64_t *lost)
{
	put_headers(f);
	put(f, 2, 4);
	put_system(f, "kvm");
	put_system(f, "anykvm");
	put(f, 0, 4); /* kallsyms */
	put(f, 0, 4); /* trace_printk() formats */
	put_threads(f, t);
	put(f, t->nr_cpus, 4);
	put_options(f, t->nr_cpus, lost);
	put_data(f, t);
	for (unsigned i = 0; i < t->nr_cpus; i++)
		if (!copy_pages(f, &t->cpus[i]))
			return false;
	return !fflush(f) && !ferror(f);
}

static bool write_file(struct trace_dat *t, const uint64_t *lost)
{
	struct whole w;
	bool ok;

	if (!whole_open(&w, t->path))
		return false;
	ok = put_all(w.f, t, lost);
	return whole_close(&w, ok) && ok;
}

int trace_dat_close(struct trace_dat *t, unsigned nr_cpus, const uint64_t *lost)
{
	bool ok = !t->failed && add_cpus(t, max(nr_cpus, 1u));

	for (unsigned i = 0; ok && i < t->nr_cpus; i++)
		ok = finish_page(t, &t->cpus[i]) && flush(t, &t->cpus[i]);
	if (ok && !write_file(t, lost))
		ok = fail(t, t->path);
	trace_dat_abandon(t);
	return ok ? 0 : EXIT_OURS;
}
