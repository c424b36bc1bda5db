/* SPDX-License-Identifier: MIT */
/*
 * run_cpu VENDOR [exec]: under `--cpu` of a model of that vendor (intel, amd) the program sees that processor: by its own
 * CPUID instructions, in /proc/cpuinfo and below /sys/module; in threads with every signal blocked, in
 * code made at run time, in children and after exec. Expected values are the manuals': vendor strings and families.
 */
#include <cpuid.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/kvm.h>

#define ARCH_GET_CPUID 0x1011

static bool intel;
static const char *self;

static bool sees_vendor(void)
{
	unsigned a, b, c, d;

	__cpuid(0, a, b, c, d);
	return b == (intel ? 0x756e6547 : 0x68747541) && c == (intel ? 0x6c65746e : 0x444d4163);
}

static void own_instructions(void **state)
{
	unsigned a, b, c, d;

	assert_true(sees_vendor());
	__cpuid(1, a, b, c, d);
	/* VMX or SVM is the program's to see. */
	assert_int_equal(c >> 5 & 1, intel);
	assert_int_equal(c >> 31, 0);
	__cpuid(0x80000001, a, b, c, d);
	assert_int_equal(c >> 2 & 1, !intel);
	assert_int_equal(d >> 29 & 1, 1);
}

static void *thread(void *arg)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	return sees_vendor() ? arg : NULL;
}

static void blocked_signals(void **state)
{
	pthread_t id;
	void *ret;

	assert_int_equal(pthread_create(&id, NULL, thread, state), 0);
	assert_int_equal(pthread_join(id, &ret), 0);
	assert_ptr_equal(ret, state);
}

static jmp_buf out;

static void leave(int signo)
{
	siglongjmp(out, signo);
}

static volatile int *volatile nowhere = (volatile int *)64;

/* The program's own handler still gets its own faults. */
static void own_handler(void **state)
{
	struct sigaction act = {.sa_handler = leave}, old;

	assert_int_equal(sigaction(SIGSEGV, &act, &old), 0);
	if (!sigsetjmp(out, 1)) {
		assert_true(sees_vendor());
		*nowhere = 0;
		fail();
	}
	assert_true(sees_vendor());
	sigaction(SIGSEGV, &old, NULL);
}

static bool patched(void)
{
	return syscall(SYS_arch_prctl, ARCH_GET_CPUID);
}

static void made_at_run_time(void **state)
{
	/* push rbx; xor eax,eax; cpuid; mov eax,ebx; pop rbx; ret, with a prefix before CPUID */
	static const uint8_t code[] = {0x53, 0x31, 0xc0, 0xf3, 0x0f, 0xa2, 0x89, 0xd8, 0x5b, 0xc3};
	void *page;

	/* Without faults only what stands in files is found. */
	if (patched())
		skip();
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);

	assert_ptr_not_equal(page, MAP_FAILED);
	memcpy(page, code, sizeof(code));
	assert_int_equal(((unsigned (*)(void))page)(), intel ? 0x756e6547 : 0x68747541);
}

static void loaded_later(void **state)
{
	void *module = dlopen(getenv("CPUID_MODULE"), RTLD_NOW);
	unsigned (*vendor)(void);

	assert_non_null(module);
	vendor = (unsigned (*)(void))dlsym(module, "module_vendor");
	assert_non_null(vendor);
	assert_int_equal(vendor(), intel ? 0x756e6547 : 0x68747541);
}

static void children(void **state)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(sees_vendor() ? 5 : 6);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 5);
	pid = fork();
	if (!pid) {
		execl(self, self, intel ? "intel" : "amd", "exec", (char *)NULL);
		_exit(7);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 5);
}

static void cpuinfo(void **state)
{
	FILE *file = fopen("/proc/cpuinfo", "r");
	char line[8192];
	unsigned cpus = 0, vendors = 0, flags = 0;

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		cpus += !strncmp(line, "processor\t", 10);
		vendors += strstr(line, intel ? "GenuineIntel" : "AuthenticAMD") != NULL;
		if (!strncmp(line, "flags", 5))
			flags += strstr(line, intel ? " vmx " : " svm ") && strstr(line, " lm ");
	}
	fclose(file);
	assert_true(cpus);
	assert_int_equal(cpus, vendors);
	assert_int_equal(cpus, flags);
}

static unsigned entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned n = 0;

	if (!dir)
		return 0;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void modules(void **state)
{
	const char *nested = intel ? "/sys/module/kvm_intel/parameters/nested"
				   : "/sys/module/kvm_amd/parameters/nested";
	const char *other = intel ? "/sys/module/kvm_amd" : "/sys/module/kvm_intel";
	char text[8] = "";
	struct stat st;
	FILE *file;
	int fd;

	fd = open(nested, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, text, sizeof(text)), 2);
	assert_string_equal(text, intel ? "Y\n" : "1\n");
	close(fd);
	file = fopen("/sys/module/kvm/parameters/force_emulation_prefix", "r");
	assert_non_null(file);
	assert_int_equal(fgetc(file), '0');
	fclose(file);
	assert_int_equal(stat(nested, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(access(nested, R_OK), 0);
	assert_int_equal(open(nested, O_RDWR), -1);
	assert_int_equal(errno, EACCES);
	assert_true(entries("/sys/module/kvm/parameters") > 4);
	assert_int_equal(entries("/sys/module/kvm"), 3);
	assert_int_equal(stat(other, &st), -1);
	assert_int_equal(errno, ENOENT);
	assert_null(opendir(other));
	assert_int_equal(open("/sys/module/kvm/parameters/frob", O_RDONLY), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(open("/dev/sev", O_RDONLY), -1);
	assert_int_equal(errno, ENOENT);
}

/* What guests are offered is of the same vendor, its own kind of virtualization included. */
static void guests(void **state)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 200 * sizeof(cpuid->entries[0]));
	int fd = open("/dev/kvm", O_RDWR);

	cpuid->nent = 200;
	assert_int_equal(ioctl(fd, KVM_GET_SUPPORTED_CPUID, cpuid), 0);
	for (unsigned i = 0; i < cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == 0)
			assert_int_equal(e->ebx, intel ? 0x756e6547 : 0x68747541);
		if (e->function == 1)
			assert_int_equal(e->ecx >> 5 & 1, intel);
		if (e->function == 0x80000001)
			assert_int_equal(e->ecx >> 2 & 1, !intel);
	}
	close(fd);
	free(cpuid);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(own_instructions), cmocka_unit_test(blocked_signals),
		cmocka_unit_test(own_handler),	    cmocka_unit_test(made_at_run_time),
		cmocka_unit_test(loaded_later),	    cmocka_unit_test(children),
	};
	const struct CMUnitTest files[] = {
		cmocka_unit_test(cpuinfo),
		cmocka_unit_test(modules),
		cmocka_unit_test(guests),
	};
	int ret;

	self = argv[0];
	intel = argc > 1 && !strcmp(argv[1], "intel");
	if (argc > 2)
		return sees_vendor() ? 5 : 6;
	ret = cmocka_run_group_tests(files, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL) | ret;
}
