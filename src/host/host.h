/* SPDX-License-Identifier: MIT */
/*
 * The ground: what anykvm needs of the host process. Knows no guest.
 */
#ifndef HOST_HOST_H
#define HOST_HOST_H

#include "host/compiler.h"

#include <signal.h>
#include <ucontext.h>

/* ---- log.c: one line to stderr, prefixed "anykvm: "; async-signal-safe; %s %c %d %u %x %p only ---- */
void host_log(const char *fmt, ...) __printf_(1, 2);
/* A wrong of our own: said once per place, never ends the program. */
#define host_bug(fmt, ...)                                                            \
	do {                                                                          \
		static bool said;                                                     \
		if (!__atomic_exchange_n(&said, true, __ATOMIC_RELAXED))              \
			host_log("internal error at %s:%d: " fmt, __FILE__, __LINE__, \
				 ##__VA_ARGS__);                                      \
	} while (0)

/* ---- sys.c: system calls without libc's errno; 0.. or -errno. Allowed after the first KVM_RUN ---- */
long host_syscall(long nr, long a, long b, long c, long d, long e, long f);
int host_futex_wait(const uint32_t *word, uint32_t val, uint64_t timeout_ns); /* 0 = no timeout */
int host_futex_wake(uint32_t *word, int count);
/* The same between processes, on memory that they share. */
int host_futex_wait_shared(const uint32_t *word, uint32_t val, uint64_t timeout_ns);
int host_futex_wake_shared(uint32_t *word, int count);
int host_gettid(void); /* remembered: a system call only once in a thread */
void host_gettid_forked(void);
/* Private memory that may turn out to be used in few places: never in huge pages, even if the host gives them unasked. */
void host_pages_small(void *mem, size_t size);
/* In huge pages, those that are there now. */
void host_pages_collapse(void *mem, size_t size);
/* It is used all over now: in huge pages, if the host gives any. After the first KVM_RUN, too. */
void host_pages_large(void *mem, size_t size);
/* Have the memory there and mapped before it is written to. */
void host_pages_populate(void *mem, size_t size);

/* ---- clock.c ---- */
static inline uint64_t host_rdtsc(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return low | (uint64_t)high << 32;
}
/* TSC and CLOCK_REALTIME of one moment, which no interruption of the thread pulls apart. */
void host_clock_pair(uint64_t *ret_tsc, uint64_t *ret_realtime_ns);
void host_clock_start(
	void); /* at the process's start: what may be measured is measured from here on */
uint64_t host_tsc_khz(void); /* measured or read once at start; kHz */
uint64_t host_monotonic_ns(void);
uint64_t host_realtime_ns(void);
uint64_t host_thread_ns(int tid); /* processor time of a thread of the process; 0: there is none */

/* ---- exec_mem.c: code memory, one memfd mapped twice (W^X) ---- */
struct host_code {
	uint8_t *rw; /* write here */
	uint8_t *rx; /* run here: rx = rw + constant */
	size_t size;
};
/* 0 or -errno (a host that forbids executable memory: -EACCES or -EPERM). */
int host_code_alloc(struct host_code *code, size_t size);
void host_code_free(struct host_code *code);
/*
 * Zeroed private memory below 2 GiB, for code with 32-bit displacements; munmap() frees it. NULL: there is no room. Not
 * after the first KVM_RUN.
 */
void *host_low_alloc(size_t size);
/*
 * What stands between these offsets is written for now: take its pages out of the writable view, so that
 * they count once. Writing there again is allowed. After the first KVM_RUN, too.
 */
void host_code_settle(const struct host_code *code, size_t from, size_t to);
/*
 * Have the code around at, written or not, executed from a huge page, if the host gives one. Returns up to where that is
 * prepared. After the first KVM_RUN, too.
 */
size_t host_code_prepare(const struct host_code *code, size_t at);

/* ---- fault.c: host faults that are ours ---- */

/* A synchronous host fault as the handler sees it. */
struct host_trap {
	int signo;	/* SIGSEGV SIGBUS SIGFPE SIGILL SIGTRAP */
	int code;	/* si_code */
	int trapno;	/* x86 vector */
	uint64_t error; /* x86 error code */
	uint64_t addr;	/* CR2 for vector 14 */
	uint64_t rip;
};

/*
 * Code ranges (thunks): a fault with RIP inside is offered to fixup, which may edit uc and returns
 * true if it was ours. Runs in the signal handler on the alternate stack. Any thread may add ranges; a range
 * lives until removed. 0 or -ENOSPC.
 */
typedef bool host_fixup_fn(void *opaque, const struct host_trap *trap, ucontext_t *uc);
int host_fault_range_add(const void *start, size_t size, host_fixup_fn *fixup, void *opaque);
void host_fault_range_remove(const void *start);
/* Called by front/'s SIGSEGV... wrapper first: true if the fault was ours and uc is mended. */
bool host_fault_handle(int signo, siginfo_t *info, ucontext_t *uc);
/*
 * Ensure that our handler for the five fault signals stands and that this thread has an alternate
 * stack; called at each KVM_RUN entry and before guarded accesses on a new thread. 0 or -errno.
 */
int host_fault_thread_init(void);

/*
 * ---- fault.c: an access that waits (userfaultfd, a slow file) gives up when asked ----
 *
 * While a thread has a flag set here, host_restart_send() makes the access that it stands at fail like memory
 * that is gone, and sets the flag: who sees an access fail with the flag set makes it again, after looking
 * at what is asked of the thread. An access that is just being made may fail so too. Guarded accesses
 * give up; a range's fixup is asked with signo HOST_RESTART and returns false unless rip is at an access that
 * has not happened.
 */
#define HOST_RESTART 0

/* This thread only. NULL: accesses wait for as long as they take. */
void host_restart_scope(bool *flag);
/* The scope that is left for a while, to be set again. */
bool *host_restart_pause(void);
/* Any thread. SIGTRAP with a value of ours to a thread of this process; 0 or -errno. */
int host_restart_send(int tid);

/*
 * ---- guard.h has the inline guarded accesses for guest memory (exception table by RIP):
 * host_load_N(), host_store_N(), host_cmpxchg_N() and these for blocks; true on success, false if
 * the host faulted (prefix copied: unspecified). General registers only.
 */
bool host_copy_guarded(void *dst, const void *src, size_t size);

/* ---- cpuid.c: the host's own CPUID, cached (a native CPUID traps on hosts that are VMs) ---- */
void host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t ret[4]);
uint64_t host_xcr0(void);
/* The same uncached, by the CPU that this thread is on: topology. */
void host_cpuid_here(uint32_t leaf, uint32_t subleaf, uint32_t ret[4]);
/*
 * Have fn (async-signal-safe) answer CPUID instructions in this thread and those that it starts from now on, in the
 * SIGSEGV handler. 0, or -errno where the host cannot: -ENODEV.
 */
typedef void host_cpuid_fn(uint32_t leaf, uint32_t subleaf, uint32_t ret[4]);
int host_cpuid_answer(host_cpuid_fn *fn);
/* CPUID instructions fault: SIGSEGV and SIGILL must never be blocked. */
bool host_cpuid_answering(void);
/* The same without the host's help, for CPUID instructions that were made UD2 and named; one thread at a time. */
void host_cpuid_answer_sites(host_cpuid_fn *fn);
int host_cpuid_site_add(const uint8_t *addr); /* 0 or -ENOSPC */
bool host_cpuid_patched(void);
/* A fault that is none of the guest's: true if it was a CPUID instruction, and is answered. */
bool host_cpuid_fault(const struct host_trap *trap, ucontext_t *uc);

/* ---- memfd.c ---- */
/* Anonymous file with size bytes; fd or -errno. Closed on exec if cloexec. */
int host_memfd(const char *name, size_t size, bool cloexec);
/* For a file that the program gets: nobody can truncate it under its mappings. 0 or -errno. */
int host_memfd_keep_size(int fd);

#endif
