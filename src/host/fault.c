/* SPDX-License-Identifier: MIT */
/*
 * Host faults that are ours, told by the faulting RIP alone.
 *
 * Two tables: the exception table that the linker gathers from HOST_EXTABLE (one instruction, one
 * landing), and the ranges of generated code, each with a function that mends the context. Both are read
 * in the signal handler without locks: a range is published by its start, written last and cleared
 * first.
 */
#include "host/host.h"
#include "host/guard.h"

#include <errno.h>
#include <sys/syscall.h>

#define MAX_RANGES 8192

struct extable_entry {
	int32_t from, to; /* relative to the field itself */
};

extern const struct extable_entry __start_anykvm_extable[]
	__attribute__((weak, visibility("hidden")));
extern const struct extable_entry __stop_anykvm_extable[]
	__attribute__((weak, visibility("hidden")));

struct range {
	uintptr_t start; /* 0: free, 1: being written */
	size_t size;
	host_fixup_fn *fixup;
	void *opaque;
};

static struct range ranges[MAX_RANGES];
static unsigned nr_ranges; /* never used beyond */

#define RANGE_FREE    0
#define RANGE_WRITING 1

static bool range_claim(struct range *range)
{
	uintptr_t was = RANGE_FREE;

	return __atomic_compare_exchange_n(&range->start, &was, RANGE_WRITING, false,
					   __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static void nr_ranges_raise(unsigned nr)
{
	unsigned was = __atomic_load_n(&nr_ranges, __ATOMIC_RELAXED);

	while (was < nr && !__atomic_compare_exchange_n(&nr_ranges, &was, nr, false,
							__ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

int host_fault_range_add(const void *start, size_t size, host_fixup_fn *fixup, void *opaque)
{
	unsigned i;

	for (i = 0; i < MAX_RANGES; i++) {
		if (!range_claim(&ranges[i]))
			continue;
		ranges[i].size = size;
		ranges[i].fixup = fixup;
		ranges[i].opaque = opaque;
		__atomic_store_n(&ranges[i].start, (uintptr_t)start, __ATOMIC_RELEASE);
		nr_ranges_raise(i + 1);
		return 0;
	}
	return -ENOSPC;
}

void host_fault_range_remove(const void *start)
{
	unsigned i, nr = __atomic_load_n(&nr_ranges, __ATOMIC_ACQUIRE);

	for (i = 0; i < nr; i++) {
		if (__atomic_load_n(&ranges[i].start, __ATOMIC_RELAXED) == (uintptr_t)start) {
			__atomic_store_n(&ranges[i].start, RANGE_FREE, __ATOMIC_RELEASE);
			return;
		}
	}
}

static bool ranges_handle(const struct host_trap *trap, ucontext_t *uc)
{
	unsigned i, nr = __atomic_load_n(&nr_ranges, __ATOMIC_ACQUIRE);
	uintptr_t start;
	size_t size;

	for (i = 0; i < nr; i++) {
		start = __atomic_load_n(&ranges[i].start, __ATOMIC_ACQUIRE);
		if (start <= RANGE_WRITING)
			continue;
		size = __atomic_load_n(&ranges[i].size, __ATOMIC_ACQUIRE);
		if (trap->rip - start >= size)
			continue;
		/* The slot may have been reused between the two reads. */
		if (__atomic_load_n(&ranges[i].start, __ATOMIC_ACQUIRE) == start)
			return ranges[i].fixup(ranges[i].opaque, trap, uc);
	}
	return false;
}

static uintptr_t resolve(const int32_t *field)
{
	return (uintptr_t)field + *field;
}

static bool extable_handle(const struct host_trap *trap, ucontext_t *uc)
{
	const struct extable_entry *entry;

	for (entry = __start_anykvm_extable; entry < __stop_anykvm_extable; entry++) {
		if (resolve(&entry->from) == trap->rip) {
			uc->uc_mcontext.gregs[REG_RIP] = resolve(&entry->to);
			return true;
		}
	}
	return false;
}

/* ---- accesses that wait ---- */

static __thread bool *restart_flag __attribute__((tls_model("initial-exec")));
static const char restart_message; /* its address is the value */

void host_restart_scope(bool *flag)
{
	__atomic_store_n(&restart_flag, flag, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

bool *host_restart_pause(void)
{
	bool *flag = restart_flag;

	host_restart_scope(NULL);
	return flag;
}

int host_restart_send(int tid)
{
	siginfo_t info = {.si_signo = SIGTRAP, .si_code = SI_QUEUE};

	/* Members of one union of the C library's: not to be initialized together. */
	info.si_pid = host_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
	info.si_uid = host_syscall(SYS_getuid, 0, 0, 0, 0, 0, 0);
	info.si_value.sival_ptr = (void *)&restart_message;
	return host_syscall(SYS_rt_tgsigqueueinfo, info.si_pid, tid, SIGTRAP, (long)&info, 0, 0);
}

static bool is_restart(int signo, const siginfo_t *info)
{
	return signo == SIGTRAP && info->si_code == SI_QUEUE &&
	       info->si_value.sival_ptr == &restart_message;
}

static void restart(ucontext_t *uc)
{
	const struct host_trap trap = {
		.signo = HOST_RESTART,
		.rip = uc->uc_mcontext.gregs[REG_RIP],
	};

	if (restart_flag && (extable_handle(&trap, uc) || ranges_handle(&trap, uc)))
		*restart_flag = true;
}

/* Sent by kill(2) and its kin, or not tied to the instruction that it interrupted. */
static bool asynchronous(int signo, int code)
{
	return code <= 0 || (signo == SIGBUS && code == BUS_MCEERR_AO);
}

bool host_fault_handle(int signo, siginfo_t *info, ucontext_t *uc)
{
	const struct host_trap trap = {
		.signo = signo,
		.code = info->si_code,
		.trapno = uc->uc_mcontext.gregs[REG_TRAPNO],
		.error = uc->uc_mcontext.gregs[REG_ERR],
		.addr = uc->uc_mcontext.gregs[REG_CR2],
		.rip = uc->uc_mcontext.gregs[REG_RIP],
	};

	if (is_restart(signo, info)) {
		restart(uc);
		return true;
	}
	if (asynchronous(signo, info->si_code))
		return false;
	return extable_handle(&trap, uc) || ranges_handle(&trap, uc) ||
	       ((signo == SIGSEGV || signo == SIGILL) && host_cpuid_fault(&trap, uc));
}
