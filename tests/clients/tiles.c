/* SPDX-License-Identifier: MIT */
/*
 * The only program of a guest: two processes multiply by tiles, held against plain C, with system calls and signals between the instructions
 * and while Linux gives the processor from one to the other. A handler that uses tiles of its own must leave those of the
 * interrupted code alone. Prints what the kernel shows of AMX, where it is, and how many products were wrong.
 */
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQ_XCOMP_PERM 0x1023
#define TILEDATA       18
#define ROUNDS	       3000

struct config {
	uint8_t palette, start, reserved[14];
	uint16_t colsb[16];
	uint8_t rows[16];
};

static int8_t a[16][64], b[16][64];
static int32_t is[16][16], should[16][16];
static volatile int signals;

static void handler(int sig)
{
	asm volatile("tilerelease");
	signals++;
}

static void make_product(unsigned seed)
{
	srand(seed);
	for (unsigned i = 0; i < 1024; i++) {
		a[i / 64][i % 64] = rand();
		b[i / 64][i % 64] = rand();
	}
	memset(should, 0, sizeof(should));
	for (unsigned m = 0; m < 16; m++)
		for (unsigned n = 0; n < 16; n++)
			for (unsigned k = 0; k < 64; k++)
				should[m][n] += a[m][k] * b[k / 4][4 * n + k % 4];
}

static int one_wrong(unsigned seed)
{
	make_product(seed);
	asm volatile(
		"tilezero %%tmm0\n tileloadd (%0,%2,1), %%tmm1\n tileloadd (%1,%2,1), %%tmm2" ::"r"(
			a),
		"r"(b), "r"(64ul)
		: "memory");
	if (seed % 3 == 0)
		sched_yield();
	if (seed % 50 == 0)
		kill(getpid(), SIGUSR1);
	asm volatile("tdpbssd %%tmm2, %%tmm1, %%tmm0\n tilestored %%tmm0, (%0,%1,1)" ::"r"(is),
		     "r"(64ul)
		     : "memory");
	return !!memcmp(is, should, sizeof(is));
}

static int wrong(unsigned seed, int says)
{
	struct config config = {.palette = 1};
	int nr = 0;

	for (unsigned i = 0; i < 8; i++) {
		config.colsb[i] = 64;
		config.rows[i] = 16;
	}
	asm volatile("ldtilecfg %0" ::"m"(config));
	for (unsigned i = 0; i < ROUNDS; i++) {
		if (says && i % 500 == 0)
			printf("ROUND %u\n", i);
		nr += one_wrong(seed + i);
	}
	return nr;
}

static void show_flags(void)
{
	static char line[8192];
	FILE *f = fopen("/proc/cpuinfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "flags", 5)) {
			for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
				if (!strncmp(word, "amx", 3))
					printf("FLAG %s\n", word);
			return;
		}
}

int main(void)
{
	int nr, status = 0;
	pid_t child;

	setvbuf(stdout, NULL, _IONBF, 0);
	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	show_flags();
	if (!syscall(SYS_arch_prctl, REQ_XCOMP_PERM, TILEDATA)) {
		signal(SIGUSR1, handler);
		child = fork();
		nr = wrong(child ? 1 : 100000, child > 0);
		if (!child)
			_exit(nr || !signals);
		wait(&status);
		printf("WRONG %d, child %d, signals %d\n", nr, status, signals);
	}
	reboot(RB_AUTOBOOT);
	return 0;
}
