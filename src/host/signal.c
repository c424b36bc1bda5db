/* SPDX-License-Identifier: MIT */
/*
 * One entry function for all of the program's handlers.
 *
 * The kernel's table holds the entry function with the program's own mask and flags, so that mask, stack and
 * restart are the kernel's doing; actions[] holds what the program asked for, and counts only while the
 * kernel's table holds the entry. Two things differ from the program's flags:
 * - SA_RESETHAND is done here, for a deferred signal is delivered twice;
 * - the five fault signals always use the alternate stack and are never left to the default. Where the
 *   program would have had its handler on the interrupted stack, the kernel's frame is moved there
 *   (move_frame), as if the kernel had put it there.
 *
 * A vforked child shares actions[] but not the kernel's table: it goes to the kernel directly.
 */
#include "host/signal.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif
#define SA_RESTORER_FLAG 0x04000000

/* The kernel's least; glibc's name for it became a function call. */
#define KERNEL_MINSIGSTKSZ 2048
/* Beside the kernel's frame: what the fault handler and the fixups of exec/ may use. */
#define STACK_ROOM 32768

/* The kernel marks a frame with extended state so. */
#define FP_MAGIC 0x46505853u

#define NR_SIGNALS  64
#define BIT_OF(sig) BIT((sig)-1)
#define FAULT_BITS \
	(BIT_OF(SIGSEGV) | BIT_OF(SIGBUS) | BIT_OF(SIGFPE) | BIT_OF(SIGILL) | BIT_OF(SIGTRAP))

typedef void handler_fn(int signo, siginfo_t *info, void *uc);

#define HANDLER_DEFAULT ((handler_fn *)0) /* SIG_DFL */
#define HANDLER_IGNORE	((handler_fn *)1) /* SIG_IGN */

/* The kernel's struct sigaction. */
struct action {
	handler_fn *handler;
	uint64_t flags;
	void (*restorer)(void);
	uint64_t mask;
};

/* The kernel's signal frame, without the extended state that uc_mcontext.fpregs points to. */
#define KERNEL_UC_SIZE 304
struct frame {
	void (*restorer)(void);
	uint8_t uc[KERNEL_UC_SIZE];
	siginfo_t info;
};

/* This thread's alternate stack: the program's view of it, and ours if that one was no good. */
struct alt_stack {
	bool ready; /* fault signals can be served in this thread */
	bool ours;  /* the kernel holds ->memory; else the program's own or none */
	stack_t program;
	uint8_t *memory;
	size_t size;
};

static struct action actions[NR_SIGNALS + 1];
static uint32_t actions_lock;
static uint64_t claimed; /* the kernel holds the entry whatever the program asked for */
static pid_t owner;
static const struct host_signal_hooks *hooks; /* NULL without a door */
static pthread_key_t stack_key;
static pthread_once_t stack_once = PTHREAD_ONCE_INIT;
#define __thread_signal __thread __attribute__((tls_model("initial-exec")))
static __thread_signal struct alt_stack alt;
static __thread_signal bool held;
static __thread_signal bool waiting;

/* The bytes by which debuggers and unwinders know a signal frame. */
asm(".pushsection .text\n"
    ".type anykvm_restore, @function\n"
    ".balign 16\n"
    "nop\n"
    "anykvm_restore:\n"
    "movq $15, %rax\n"
    "syscall\n"
    ".size anykvm_restore, . - anykvm_restore\n"
    ".popsection\n");
extern void anykvm_restore(void) __attribute__((visibility("hidden")));

static void entry(int signo, siginfo_t *info, void *uc);

static bool is_fault(int signo)
{
	return FAULT_BITS & BIT_OF(signo);
}

/* Raised by the instruction that it interrupted. */
static bool synchronous(int signo, const siginfo_t *info)
{
	return is_fault(signo) && info->si_code > 0 &&
	       !(signo == SIGBUS && info->si_code == BUS_MCEERR_AO);
}

static int kernel_sigaction(int signo, const struct action *act, struct action *old)
{
	return host_syscall(SYS_rt_sigaction, signo, (long)act, (long)old, 8, 0, 0);
}

static int kernel_sigaltstack(const stack_t *stack, stack_t *old)
{
	return host_syscall(SYS_sigaltstack, (long)stack, (long)old, 0, 0, 0, 0);
}

static uint64_t kernel_sigmask(int how, uint64_t mask)
{
	uint64_t old = 0;

	host_syscall(SYS_rt_sigprocmask, how, (long)&mask, (long)&old, 8, 0, 0);
	return old;
}

static pid_t kernel_getpid(void)
{
	return host_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

static int requeue(int signo, const siginfo_t *info)
{
	return host_syscall(SYS_rt_tgsigqueueinfo, kernel_getpid(), host_gettid(), signo,
			    (long)info, 0, 0);
}

void host_signal_set_hooks(const struct host_signal_hooks *new)
{
	hooks = new;
}

/* ---- sigaction(2) ---- */

/* All signals blocked meanwhile: a handler may call sigaction(2) too. Returns the mask. */
static uint64_t lock_actions(void)
{
	uint64_t mask = kernel_sigmask(SIG_SETMASK, ~0ull);

	while (__atomic_exchange_n(&actions_lock, 1, __ATOMIC_ACQUIRE))
		host_syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
	return mask;
}

static void unlock_actions(uint64_t mask)
{
	__atomic_store_n(&actions_lock, 0, __ATOMIC_RELEASE);
	kernel_sigmask(SIG_SETMASK, mask);
}

static bool is_handler(handler_fn *handler)
{
	return handler != HANDLER_DEFAULT && handler != HANDLER_IGNORE;
}

/* An ignored signal interrupts nothing, so the kernel must know that it is. */
static bool stays_claimed(int signo, const struct action *act)
{
	return __atomic_load_n(&claimed, __ATOMIC_RELAXED) & BIT_OF(signo) &&
	       (is_fault(signo) || act->handler == HANDLER_DEFAULT);
}

/* What the kernel is told where the program asked for act. */
static struct action kernel_action(int signo, const struct action *act)
{
	struct action ret = *act;

	if (!is_handler(act->handler) && !stays_claimed(signo, act))
		return ret;
	if (!is_handler(act->handler)) {
		ret.flags = SA_RESTORER_FLAG | SA_RESTART;
		ret.restorer = anykvm_restore;
		ret.mask = 0;
	}
	ret.handler = entry;
	ret.flags |= SA_SIGINFO;
	ret.flags &= ~(uint64_t)SA_RESETHAND;
	if (is_fault(signo))
		ret.flags |= SA_ONSTACK;
	return ret;
}

static void store_action(int signo, const struct action *act)
{
	actions[signo].flags = act->flags;
	actions[signo].restorer = act->restorer;
	actions[signo].mask = act->mask;
	__atomic_store_n(&actions[signo].handler, act->handler, __ATOMIC_RELEASE);
}

/* As the program sees it: what it asked for, where the kernel holds our entry. */
static void see_through(int signo, struct action *act, const struct action *program)
{
	uint64_t restart = act->flags & SA_RESTART;
	bool handler = is_handler(program->handler);

	if (act->handler != entry)
		return;
	*act = *program;
	/* siginterrupt(3) changes this one behind our back. */
	if (handler)
		act->flags = (act->flags & ~(uint64_t)SA_RESTART) | restart;
}

static int change_action(int signo, const struct action *act, struct action *old)
{
	struct action program = actions[signo], kernel = kernel_action(signo, act);
	int err;

	/* The handler must be known before the kernel can call for it. */
	if (kernel.handler == entry)
		store_action(signo, act);
	err = kernel_sigaction(signo, &kernel, old);
	if (err) {
		store_action(signo, &program);
		return err;
	}
	see_through(signo, old, &program);
	return 0;
}

static int action_call(int signo, const struct action *act, struct action *old)
{
	uint64_t mask;
	int err;

	if (act && owner != kernel_getpid()) {
		err = kernel_sigaction(signo, act, old);
		if (!err)
			see_through(signo, old, &actions[signo]);
		return err;
	}
	mask = lock_actions();
	if (act) {
		err = change_action(signo, act, old);
	} else {
		err = kernel_sigaction(signo, NULL, old);
		if (!err)
			see_through(signo, old, &actions[signo]);
	}
	unlock_actions(mask);
	return err;
}

int host_sigaction(int signo, const struct sigaction *act, struct sigaction *ret_old)
{
	struct action new, old;
	int err;

	/* 32 and 33 are the C library's own. */
	if (signo < 1 || signo > NR_SIGNALS || signo == 32 || signo == 33)
		return -EINVAL;
	if (act) {
		new.handler = (handler_fn *)act->sa_sigaction;
		new.flags = (unsigned)act->sa_flags | SA_RESTORER_FLAG;
		new.restorer = anykvm_restore;
		memcpy(&new.mask, &act->sa_mask, sizeof(new.mask));
	}
	err = action_call(signo, act ? &new : NULL, &old);
	if (err || !ret_old)
		return err;
	ret_old->sa_sigaction = old.handler;
	ret_old->sa_flags = (int)old.flags;
	ret_old->sa_restorer = old.restorer;
	memset(&ret_old->sa_mask, 0, sizeof(ret_old->sa_mask));
	memcpy(&ret_old->sa_mask, &old.mask, sizeof(old.mask));
	return 0;
}

/* ---- The alternate stack ---- */

static size_t stack_need(void)
{
	size_t frame = getauxval(AT_MINSIGSTKSZ);

	return max(frame, (size_t)4096) + STACK_ROOM;
}

static bool stack_contains(const void *base, size_t size, uintptr_t sp)
{
	return sp - (uintptr_t)base - 1 < size;
}

static void stack_release(void *opaque)
{
	stack_t off = {.ss_flags = SS_DISABLE};

	if (alt.ours)
		kernel_sigaltstack(&off, NULL);
	alt.ours = false;
	alt.ready = false;
	munmap(alt.memory, alt.size);
	alt.memory = NULL;
}

static void stack_key_create(void)
{
	pthread_key_create(&stack_key, stack_release);
}

/* The lowest page stays without access, so that an overflow is seen. */
static int stack_allocate(void)
{
	size_t size = ALIGN_UP(stack_need(), PAGE_SIZE) + PAGE_SIZE;
	void *memory;

	if (alt.memory)
		return 0;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -errno;
	mprotect(memory, PAGE_SIZE, PROT_NONE);
	alt.memory = memory;
	alt.size = size;
	pthread_once(&stack_once, stack_key_create);
	pthread_setspecific(stack_key, memory);
	return 0;
}

static int stack_use_ours(void)
{
	stack_t ours;
	int err;

	err = stack_allocate();
	if (err)
		return err;
	ours = (stack_t){.ss_sp = alt.memory + PAGE_SIZE, .ss_size = alt.size - PAGE_SIZE};
	err = kernel_sigaltstack(&ours, NULL);
	if (!err)
		alt.ours = true;
	return err;
}

static bool stack_enough(const stack_t *stack)
{
	return !(stack->ss_flags & SS_DISABLE) && stack->ss_size >= stack_need();
}

static int stack_init(void)
{
	stack_t now;
	int err;

	err = kernel_sigaltstack(NULL, &now);
	if (err || stack_enough(&now))
		return err;
	/* Running on it: it cannot be changed now, and later is soon enough. */
	if (now.ss_flags & SS_ONSTACK)
		return 0;
	alt.program = now;
	return stack_use_ours();
}

static int stack_check(const stack_t *stack)
{
	int flags = stack->ss_flags & ~(int)SS_AUTODISARM;

	if (flags != 0 && flags != SS_DISABLE && flags != SS_ONSTACK)
		return -EINVAL;
	if (flags != SS_DISABLE && stack->ss_size < KERNEL_MINSIGSTKSZ)
		return -ENOMEM;
	return 0;
}

static int stack_replace(const stack_t *stack)
{
	int err;

	if (stack_enough(stack)) {
		err = kernel_sigaltstack(stack, NULL);
		if (!err)
			alt.ours = false;
		return err;
	}
	err = stack_check(stack);
	if (!err && !alt.ours)
		err = stack_use_ours();
	if (err)
		return err;
	alt.program = *stack;
	if (stack->ss_flags & SS_DISABLE)
		alt.program = (stack_t){.ss_flags = SS_DISABLE};
	return 0;
}

int host_sigaltstack(const stack_t *stack, stack_t *ret_old)
{
	stack_t old = alt.program;
	int err = 0;

	if (!alt.ready)
		return kernel_sigaltstack(stack, ret_old);
	if (!alt.ours)
		err = kernel_sigaltstack(NULL, &old);
	if (!err && stack)
		err = old.ss_flags & SS_ONSTACK ? -EPERM : stack_replace(stack);
	if (!err && ret_old)
		*ret_old = old;
	return err;
}

/* ---- Delivery ---- */

static void deliver_default(int signo, const siginfo_t *info)
{
	struct action dfl = {.flags = SA_RESTORER_FLAG, .restorer = anykvm_restore};

	/* Returning delivers it, with the interrupted registers for the core dump. */
	kernel_sigaction(signo, &dfl, NULL);
	requeue(signo, info);
}

/* SA_RESETHAND: the handler may be taken once. */
static bool take_once(int signo, handler_fn *handler)
{
	struct action dfl = {.restorer = anykvm_restore};

	if (!__atomic_compare_exchange_n(&actions[signo].handler, &handler, HANDLER_DEFAULT, false,
					 __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		return false;
	dfl.flags = actions[signo].flags;
	dfl.mask = actions[signo].mask;
	if (!(__atomic_load_n(&claimed, __ATOMIC_RELAXED) & BIT_OF(signo)))
		kernel_sigaction(signo, &dfl, NULL);
	return true;
}

static size_t fp_size(const ucontext_t *uc)
{
	const struct _fpx_sw_bytes *sw;

	if (!uc->uc_mcontext.fpregs)
		return 0;
	sw = (const void *)((const uint8_t *)uc->uc_mcontext.fpregs + 464);
	return sw->magic1 == FP_MAGIC ? sw->extended_size : 512;
}

/*
 * Put the kernel's frame below the interrupted stack pointer and enter the handler there; its return
 * restores from the moved frame. Does not return unless the stack cannot be written.
 */
static void move_frame(handler_fn *handler, int signo, const siginfo_t *info, ucontext_t *uc)
{
	uintptr_t sp = uc->uc_mcontext.gregs[REG_RSP] - 128, fp;
	size_t size = fp_size(uc);
	struct frame *to;

	fp = ALIGN_DOWN(sp - size, 64ul);
	to = (struct frame *)(ALIGN_DOWN(fp - sizeof(*to), 16ul) - 8);
	if (!host_copy_guarded((void *)fp, uc->uc_mcontext.fpregs, size) ||
	    !host_copy_guarded(&to->info, info, sizeof(to->info)))
		return;
	if (size)
		uc->uc_mcontext.fpregs = (void *)fp;
	if (!host_copy_guarded(to->uc, uc, sizeof(to->uc)))
		return;
	to->restorer = anykvm_restore;
	asm volatile("mov %0, %%rsp\n"
		     "xor %%eax, %%eax\n"
		     "xor %%ebp, %%ebp\n"
		     "jmp *%1\n"
		     :
		     : "r"(to), "c"(handler), "D"(signo), "S"(&to->info), "d"(to->uc)
		     : "memory");
	__builtin_unreachable();
}

/* The kernel took the alternate stack where the program would not have had it. */
static bool on_wrong_stack(uint64_t flags, const ucontext_t *uc)
{
	const stack_t *now = &uc->uc_stack;

	if (now->ss_flags & SS_DISABLE ||
	    !stack_contains(now->ss_sp, now->ss_size, (uintptr_t)uc) ||
	    stack_contains(now->ss_sp, now->ss_size, uc->uc_mcontext.gregs[REG_RSP]))
		return false;
	return !(flags & SA_ONSTACK) || (alt.ours && alt.program.ss_flags & SS_DISABLE);
}

static void run_handler(handler_fn *handler, int signo, siginfo_t *info, ucontext_t *uc)
{
	uint64_t flags = actions[signo].flags;

	if (flags & SA_RESETHAND && !take_once(signo, handler)) {
		deliver_default(signo, info);
		return;
	}
	if (!on_wrong_stack(flags, uc)) {
		handler(signo, info, uc);
		return;
	}
	move_frame(handler, signo, info, uc);
	deliver_default(SIGSEGV, info);
}

static void deliver(int signo, siginfo_t *info, ucontext_t *uc)
{
	handler_fn *handler = __atomic_load_n(&actions[signo].handler, __ATOMIC_ACQUIRE);

	if (is_handler(handler))
		run_handler(handler, signo, info, uc);
	else if (handler == HANDLER_DEFAULT || synchronous(signo, info))
		deliver_default(signo, info);
}

/* Make the signal come again at release. */
static bool postpone(int signo, const siginfo_t *info, ucontext_t *uc)
{
	if (requeue(signo, info))
		return false;
	sigaddset(&uc->uc_sigmask, signo);
	waiting = true;
	if (hooks)
		hooks->interrupt();
	return true;
}

static void entry(int signo, siginfo_t *info, void *opaque)
{
	int saved_errno = errno;
	ucontext_t *uc = opaque;

	if (is_fault(signo) && host_fault_handle(signo, info, uc))
		return;
	if (hooks && hooks->message(signo, info)) {
		errno = saved_errno;
		return;
	}
	if (held && !synchronous(signo, info)) {
		if (postpone(signo, info, uc)) {
			errno = saved_errno;
			return;
		}
	} else if (held) {
		host_log("internal error: signal %d at %p", signo,
			 (void *)uc->uc_mcontext.gregs[REG_RIP]);
	}
	deliver(signo, info, uc);
}

void host_signal_hold(struct host_signal_hold *hold)
{
	/* The mask first: a signal postponed before it was read would be blocked in it for good. */
	hold->mask = kernel_sigmask(SIG_UNBLOCK, FAULT_BITS);
	hold->blocked = false;
	waiting = false;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	held = true;
}

void host_signal_release(const struct host_signal_hold *hold)
{
	held = false;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (waiting || hold->blocked || hold->mask & FAULT_BITS) {
		waiting = false;
		kernel_sigmask(SIG_SETMASK, hold->mask);
	}
}

void host_signal_release_blocked(struct host_signal_hold *hold)
{
	kernel_sigmask(SIG_SETMASK, ~0ull);
	hold->blocked = true;
	held = false;
}

bool host_signal_held(void)
{
	return held;
}

bool host_signal_waiting(void)
{
	return __atomic_load_n(&waiting, __ATOMIC_RELAXED);
}

/* ---- Claims ---- */

static int claim_one(int signo)
{
	struct action now, kernel;
	int err;

	err = kernel_sigaction(signo, NULL, &now);
	if (err || now.handler == entry)
		return err;
	kernel = kernel_action(signo, &now);
	if (kernel.handler == entry)
		store_action(signo, &now);
	return kernel_sigaction(signo, &kernel, NULL);
}

static int claim(uint64_t bits)
{
	uint64_t mask, left;
	int err = 0;

	mask = lock_actions();
	__atomic_fetch_or(&claimed, bits, __ATOMIC_RELEASE);
	for (left = bits; left && !err; left &= left - 1)
		err = claim_one(__builtin_ctzll(left) + 1);
	unlock_actions(mask);
	return err;
}

/* What does nothing by default, cannot be caught, or is the C library's own. */
#define NEVER_CLAIMED                                                                              \
	(BIT_OF(SIGCHLD) | BIT_OF(SIGCONT) | BIT_OF(SIGURG) | BIT_OF(SIGWINCH) | BIT_OF(SIGKILL) | \
	 BIT_OF(SIGSTOP) | BIT_OF(32) | BIT_OF(33))

void host_signal_claim(uint64_t bits)
{
	bits &= ~(__atomic_load_n(&claimed, __ATOMIC_RELAXED) | NEVER_CLAIMED);
	if (unlikely(bits))
		claim(bits);
}

int host_fault_thread_init(void)
{
	int err = 0;

	/* Without a door the program's own sigaction(2) may have replaced the entry. */
	if (likely(alt.ready && hooks))
		return 0;
	if (~__atomic_load_n(&claimed, __ATOMIC_ACQUIRE) & FAULT_BITS || !hooks)
		err = claim(FAULT_BITS);
	if (!err && !alt.ready)
		err = stack_init();
	alt.ready = !err;
	return err;
}

static void forked(void)
{
	owner = kernel_getpid();
	host_gettid_forked();
	/* The lock's holder, if any, is not in this process. */
	__atomic_store_n(&actions_lock, 0, __ATOMIC_RELEASE);
}

__attribute__((constructor)) static void signal_start(void)
{
	owner = kernel_getpid();
	pthread_atfork(NULL, NULL, forked);
}
