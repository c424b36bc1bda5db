// timed.c - runs a command between bench.c's START and BENCH lines, for programs that do not print their own.
// usage: timed NAME FILE COMMAND [ARGUMENT...]
// The checksum is that of FILE after the command (- for none): the same on every machine that computes rightly.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}
static double seconds(struct timeval t) { return t.tv_sec + t.tv_usec * 1e-6; }
static uint64_t sum_of(const char *name) {  // FNV-1a
  uint64_t sum = 0xcbf29ce484222325ull;
  unsigned char buf[4096];
  ssize_t n;
  if (!strcmp(name, "-")) return 0;
  int fd = open(name, O_RDONLY);
  if (fd < 0) { perror(name); exit(1); }
  while ((n = read(fd, buf, sizeof buf)) > 0)
    for (ssize_t i = 0; i < n; i++) sum = (sum ^ buf[i]) * 0x100000001b3ull;
  close(fd);
  return sum;
}

int main(int argc, char **argv) {
  struct rusage ru;
  int status;
  if (argc < 4) return 2;
  setvbuf(stdout, 0, _IOLBF, 0);
  printf("START %s\n", argv[1]);
  tcdrain(1);
  double begin = now();
  pid_t child = fork();
  if (child == 0) {
    execvp(argv[3], argv + 3);
    perror(argv[3]);
    _exit(127);
  }
  if (child < 0 || wait4(child, &status, 0, &ru) != child) { perror("timed"); return 1; }
  double took = now() - begin;
  if (status) { printf("FAILED %s: status %d\n", argv[1], status); return 1; }
  printf("BENCH %-10s n=1 sec=%.4f min=%.4f cpu=%.4f ns/it=%.2f sum=%016llx\n", argv[1], took, took,
         seconds(ru.ru_utime) + seconds(ru.ru_stime), took * 1e9, (unsigned long long)sum_of(argv[2]));
  tcdrain(1);
  return 0;
}
