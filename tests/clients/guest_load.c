/* SPDX-License-Identifier: MIT */
/*
 * First process of a guest that is moved about while it works; a static program, alone in its initramfs.
 *
 * It loads the modules of /modules.list and starts threads: LOADCPUS of them check and rewrite LOADMB MiB of memory, page by page
 * in random order, at most LOADRATE pages a second each; one looks at clocks and timers; one sends numbered frames by eth0 and
 * wants each back; one writes numbered records to the virtio-serial port. Each tenth of a second the console shows how
 * far all are (one line, LOAD key=value...); what must not be is a line that begins with LOAD-BAD.
 *
 * What a page holds follows from its number, its generation and the guest's seed; generations are kept elsewhere. So a page that was
 * left behind, or is of an earlier moment than the rest, is noticed when it comes up again.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define PAGE	  4096
#define WORDS	  (PAGE / 8)
#define FRAME	  256
#define ETHERTYPE 0x88b5 /* for experiments (IEEE 802) */
#define TICK_NS	  5000000
#define RESEND_MS 500

static struct {
	uint64_t pages, rounds, sent, echoed, again, records, ticks, gap_us;
} done;

static unsigned param(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 0) : otherwise;
}

static void bad(const char *form, ...)
{
	char line[200];
	va_list args;
	int n;

	va_start(args, form);
	n = snprintf(line, sizeof(line), "\nLOAD-BAD ");
	n += vsnprintf(line + n, sizeof(line) - n - 1, form, args);
	va_end(args);
	line[n++] = '\n';
	if (write(1, line, n) < 0)
		exit(1);
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* ---- memory ---- */

struct work {
	uint64_t *memory;
	uint32_t *generation;
	unsigned pages, first, rate;
};

static void page_write(struct work *w, unsigned page)
{
	uint64_t *p = w->memory + (size_t)page * WORDS;
	uint64_t x = mix((uint64_t)(w->first + page) << 32 | ++w->generation[page]);

	for (unsigned i = 0; i < WORDS; i++)
		p[i] = x + i * 0x9e3779b97f4a7c15;
}

static void page_check(struct work *w, unsigned page)
{
	const uint64_t *p = w->memory + (size_t)page * WORDS;
	uint64_t x = mix((uint64_t)(w->first + page) << 32 | w->generation[page]);

	for (unsigned i = 0; i < WORDS; i++)
		if (p[i] != x + i * 0x9e3779b97f4a7c15) {
			bad("page %u generation %u word %u: %#llx", w->first + page,
			    w->generation[page], i, (unsigned long long)p[i]);
			return;
		}
}

static void *work_thread(void *arg)
{
	struct work *w = arg;
	uint64_t began = now_ns(CLOCK_MONOTONIC), n = 0, random = w->first;

	for (unsigned page = 0; page < w->pages; page++)
		page_write(w, page);
	for (;; n++) {
		unsigned page = (random = mix(random)) % w->pages;

		page_check(w, page);
		page_write(w, page);
		__atomic_fetch_add(&done.pages, 1, __ATOMIC_RELAXED);
		while (w->rate && n * 1000000000 / w->rate > now_ns(CLOCK_MONOTONIC) - began)
			usleep(2000);
	}
	return NULL;
}

static void work_start(unsigned cpus, unsigned megabytes, unsigned rate)
{
	unsigned pages = megabytes * (1048576 / PAGE) / cpus;

	for (unsigned i = 0; i < cpus; i++) {
		struct work *w = calloc(1, sizeof(*w));
		pthread_t thread;

		*w = (struct work){.pages = pages, .first = i * pages, .rate = rate};
		w->memory = mmap(NULL, (size_t)pages * PAGE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		w->generation = calloc(pages, sizeof(w->generation[0]));
		if (w->memory == MAP_FAILED || !w->generation)
			bad("no memory");
		pthread_create(&thread, NULL, work_thread, w);
	}
}

/* ---- clocks and timers ---- */

static void *clock_thread(void *arg)
{
	struct itimerspec every = {{0, TICK_NS}, {0, TICK_NS}};
	int timer = timerfd_create(CLOCK_MONOTONIC, 0);
	static uint64_t latest;
	uint64_t before = now_ns(CLOCK_MONOTONIC), n, real = now_ns(CLOCK_REALTIME);

	timerfd_settime(timer, 0, &every, NULL);
	for (;;) {
		uint64_t seen = __atomic_load_n(&latest, __ATOMIC_SEQ_CST), now;

		if (read(timer, &n, sizeof(n)) != sizeof(n))
			bad("timer: %s", strerror(errno));
		done.ticks += n;
		now = now_ns(CLOCK_MONOTONIC);
		if (now < seen || now < before)
			bad("the clock went back by %lld ns", (long long)(before - now));
		if ((now - before) / 1000 > done.gap_us)
			done.gap_us = (now - before) / 1000;
		if (now_ns(CLOCK_REALTIME) < real)
			bad("the time of day went back");
		real = now_ns(CLOCK_REALTIME);
		before = now;
		__atomic_store_n(&latest, now, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

/* ---- frames out and back ---- */

struct frame {
	struct ether_header head;
	uint8_t pad[2];
	uint64_t number;
	uint8_t fill[FRAME];
} __attribute__((packed));

/* The interface's own address, or the frames would not be let in again. */
static int net_open(uint8_t *ret_address)
{
	int fd = socket(AF_PACKET, SOCK_RAW, htons(ETHERTYPE));
	struct ifreq request = {.ifr_name = "eth0"};
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE)};
	struct timeval wait = {0, RESEND_MS * 1000};

	if (fd < 0 || ioctl(fd, SIOCGIFINDEX, &request))
		return -1;
	address.sll_ifindex = request.ifr_ifindex;
	ioctl(fd, SIOCGIFHWADDR, &request);
	memcpy(ret_address, request.ifr_hwaddr.sa_data, ETH_ALEN);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	ioctl(fd, SIOCSIFFLAGS, &request);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	return bind(fd, (struct sockaddr *)&address, sizeof(address)) ? -1 : fd;
}

static void *net_thread(void *arg)
{
	struct frame out = {.head = {.ether_type = htons(ETHERTYPE)}}, in = {.number = -1ull};
	int fd = net_open(out.head.ether_shost);

	if (fd < 0)
		return NULL;
	memset(out.head.ether_dhost, 0xff, ETH_ALEN);
	for (;; usleep(500)) {
		memset(out.fill, mix(out.number), FRAME);
		if (send(fd, &out, sizeof(out), 0) != sizeof(out))
			continue; /* the link may be down for a moment */
		done.sent++;
		do {
			if (recv(fd, &in, sizeof(in), 0) != sizeof(in)) {
				done.again++;
				break;
			}
			if (in.number > out.number ||
			    (in.number == out.number && memcmp(&in.fill, &out.fill, FRAME)))
				bad("frame %llu came back as %llu", (unsigned long long)out.number,
				    (unsigned long long)in.number);
		} while (in.number != out.number);
		if (in.number == out.number) {
			done.echoed++;
			out.number++;
		}
	}
	return NULL;
}

/* ---- records by virtio-serial ---- */

/* The port comes when the device has been asked; without a device it never does. */
static int serial_open(void)
{
	char name[] = "/dev/vport0p1";
	int fd = -1;

	for (int i = 0; fd < 0 && i < 400; i++) {
		name[10] = '0' + i % 10; /* the device's number among all of virtio's */
		fd = open(name, O_WRONLY);
		if (fd < 0)
			usleep(20000);
	}
	return fd;
}

static void *serial_thread(void *arg)
{
	int fd = serial_open();
	uint64_t record[8];

	for (uint64_t n = 0; fd >= 0; n++, usleep(500)) {
		for (unsigned i = 0; i < 8; i++)
			record[i] = i ? mix(n + i) : n;
		for (size_t at = 0; at < sizeof(record);) {
			ssize_t r = write(fd, (char *)record + at, sizeof(record) - at);

			if (r < 0 && errno != EAGAIN)
				bad("serial: %s", strerror(errno));
			at += r > 0 ? r : 0;
		}
		done.records++;
	}
	return NULL;
}

/* ---- beginning ---- */

static void load_modules(void)
{
	char name[64], path[80];
	FILE *list = fopen("/modules.list", "r");

	while (list && fscanf(list, "%63s", name) == 1) {
		int fd;

		snprintf(path, sizeof(path), "/%s", name);
		fd = open(path, O_RDONLY);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
			bad("module %s: %s", name, strerror(errno));
		close(fd);
	}
}

static void start(void *(*function)(void *))
{
	pthread_t thread;

	pthread_create(&thread, NULL, function, NULL);
}

int main(void)
{
	char line[200];

	mkdir("/dev", 0755);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	load_modules();
	work_start(param("LOADCPUS", 1), param("LOADMB", 16), param("LOADRATE", 0));
	start(clock_thread);
	start(net_thread);
	start(serial_thread);
	for (;; usleep(100000)) {
		int n = snprintf(
			line, sizeof(line),
			"\nLOAD ms=%llu pages=%llu sent=%llu echoed=%llu again=%llu records=%llu "
			"ticks=%llu gap_us=%llu\n",
			now_ns(CLOCK_MONOTONIC) / 1000000ull, (unsigned long long)done.pages,
			(unsigned long long)done.sent, (unsigned long long)done.echoed,
			(unsigned long long)done.again, (unsigned long long)done.records,
			(unsigned long long)done.ticks,
			(unsigned long long)__atomic_exchange_n(&done.gap_us, 0, __ATOMIC_SEQ_CST));

		if (write(1, line, n) < 0)
			return 1;
	}
}
