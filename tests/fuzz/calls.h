/* SPDX-License-Identifier: MIT */
/*
 * Random calls of KVM's ioctls, and the VM that they go to, for the fuzzers: what a GET gave with bytes changed, zeros,
 * noise, or made for the call; pointers good, bad, and straddling the end of a page. Seeded: a worker of the same
 * state does the same calls.
 */
#ifndef TESTS_FUZZ_CALLS_H
#define TESTS_FUZZ_CALLS_H

#include "../api/api_test.h"
#include "fuzz.h"

#define ARENA	   0x40000ul /* guest RAM, in the middle of nothing */
#define MAX_FDS	   64
#define NR_VCPUS   2
#define RING_BYTES 0x4000ul /* of dirty rings */
#define PAGE_BYTES 4096ul

enum kind { SYS, VM, VCPU };

/* What a thread works with. */
struct worker {
	struct rng rng;
	uint8_t *buf;	  /* nothing behind its bytes */
	int fds[MAX_FDS]; /* to be closed */
	unsigned nr_fds;
};

struct round {
	int vm, vcpu[NR_VCPUS];
	struct kvm_run *run[NR_VCPUS];
	uint8_t *ring; /* of the first vCPU; NULL: none */
};

struct answer {
	enum kind kind;
	unsigned long nr;
	long result;
	int error; /* errno, if result is -1 */
};

extern uint8_t *arena;
extern int kvm_fd;
extern struct round round_now;

/* Once: opens /dev/kvm and what calls may name. */
void fuzz_prepare(void);
/* Ends the program: says what is wrong and how to repeat it. Each fuzzer has its own. */
void fuzz_fail(const char *what);

void worker_init(struct worker *w, uint64_t seed);
void close_all(struct worker *w);
void make_vm(struct worker *w);
void end_vm(void);

void mutate(struct worker *w, uint8_t *arg, unsigned size);
/* Fails where Linux's code has not this errno for the call. */
struct answer one_call(struct worker *w);
struct answer call_run(int vcpu);
/* An SMI without memory ended it: all is EIO. */
bool vm_dead(void);

#endif
