/* SPDX-License-Identifier: MIT */
/*
 * Find the program, and refuse those that a preloaded library does not reach: the dynamic linker would drop
 * it in silence, and the program would meet the host's own /dev/kvm or none.
 */
#include "front/launcher.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* A script's interpreter may be a script; the kernel follows as many. */
#define MAX_SCRIPTS 4

/* Of which file the reason speaks. */
static char refused_path[4096];

static const char *refuse(const char *path, const char *why)
{
	snprintf(refused_path, sizeof(refused_path), "%s", path);
	return why;
}

/* Elevated privileges make the dynamic linker ignore LD_PRELOAD. */
static bool elevated(const char *path, const struct stat *st)
{
	if (st->st_mode & S_ISUID && st->st_uid != geteuid())
		return true;
	if ((st->st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st->st_gid != getegid())
		return true;
	return geteuid() && getxattr(path, "security.capability", NULL, 0) > 0;
}

/* The interpreter's path, "" without one. False if the headers cannot be read. */
static bool read_interp(int fd, const Elf64_Ehdr *ehdr, char *ret, size_t size)
{
	Elf64_Phdr phdr;
	ssize_t got;
	unsigned i;

	ret[0] = 0;
	for (i = 0; i < ehdr->e_phnum; i++) {
		off_t at = (off_t)(ehdr->e_phoff + i * sizeof(phdr));

		if (pread(fd, &phdr, sizeof(phdr), at) != sizeof(phdr))
			return false;
		if (phdr.p_type != PT_INTERP)
			continue;
		got = pread(fd, ret, min(size - 1, (size_t)phdr.p_filesz), (off_t)phdr.p_offset);
		if (got < 0)
			return false;
		ret[got] = 0;
		return true;
	}
	return true;
}

static const char *check_elf(const char *path, int fd, const Elf64_Ehdr *ehdr)
{
	char interp[256];
	const char *name;

	if (ehdr->e_ident[EI_CLASS] != ELFCLASS64 || ehdr->e_machine != EM_X86_64)
		return refuse(path, "is not a 64-bit x86 program; anykvm runs only those");
	if (!read_interp(fd, ehdr, interp, sizeof(interp)))
		return refuse(path, "has damaged program headers");
	if (!interp[0])
		return refuse(path, "is statically linked; anykvm needs a dynamically linked one");
	name = strrchr(interp, '/');
	name = name ? name + 1 : interp;
	if (strncmp(name, "ld-linux", strlen("ld-linux")))
		return refuse(path, "uses another C library; anykvm needs a program for glibc");
	return NULL;
}

static const char *check_file(const char *path, unsigned depth);

/* "#!INTERPRETER ...": the interpreter is what runs. */
static const char *check_script(char *line, unsigned depth)
{
	char *start = line + 2 + strspn(line + 2, " \t");

	start[strcspn(start, " \t\n")] = 0;
	if (!*start || depth == MAX_SCRIPTS)
		return NULL;
	return check_file(start, depth + 1);
}

static const char *check_file(const char *path, unsigned depth)
{
	union {
		Elf64_Ehdr ehdr;
		char text[256];
	} head = {0};
	const char *ret = NULL;
	struct stat st;
	int fd;

	if (stat(path, &st) || !S_ISREG(st.st_mode))
		return NULL; /* execve(2) says it better */
	if (elevated(path, &st))
		return refuse(path,
			      "runs with privileges of its file (setuid, setgid or capabilities), "
			      "which forbid preloading; copy it and run the copy");
	/* A program that may be run but not read is left to execve(2). */
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (read(fd, &head, sizeof(head) - 1) >= (ssize_t)sizeof(head.ehdr) &&
	    !memcmp(head.ehdr.e_ident, ELFMAG, SELFMAG))
		ret = check_elf(path, fd, &head.ehdr);
	else if (!memcmp(head.text, "#!", 2))
		ret = check_script(head.text, depth);
	close(fd);
	return ret;
}

static char *join(const char *dir, size_t len, const char *name)
{
	char *path = malloc(len + strlen(name) + 3);

	if (!path)
		abort();
	sprintf(path, "%.*s%s%s", (int)len, dir, len ? "/" : "./", name);
	return path;
}

/* As execvp(3) looks; a file without permission is remembered for its message. */
static char *search(const char *name, bool *ret_denied)
{
	const char *dirs = getenv("PATH");
	struct stat st;
	size_t len;
	char *path;

	*ret_denied = false;
	for (dirs = dirs ? dirs : "/bin:/usr/bin"; dirs; dirs = dirs[len] ? dirs + len + 1 : NULL) {
		len = strcspn(dirs, ":");
		path = join(dirs, len, name);
		if (!stat(path, &st) && S_ISREG(st.st_mode)) {
			if (!access(path, X_OK))
				return path;
			*ret_denied = true;
		}
		free(path);
	}
	return NULL;
}

const char *program_unreachable(const char *path, const char **ret_which)
{
	*ret_which = refused_path;
	return check_file(path, 0);
}

char *program_search(const char *name)
{
	bool denied;

	if (strchr(name, '/'))
		return access(name, X_OK) ? NULL : strdup(name);
	return search(name, &denied);
}

int program_find(const char *name, char **ret_path)
{
	const char *which, *why;
	bool denied = false;
	char *path;

	path = strchr(name, '/') ? strdup(name) : search(name, &denied);
	if (!path) {
		fprintf(stderr, "anykvm: %s: %s\n", name,
			denied ? "not executable" : "command not found");
		return denied ? EXIT_CANNOT_RUN : EXIT_NOT_FOUND;
	}
	why = program_unreachable(path, &which);
	if (why) {
		fprintf(stderr, "anykvm: %s %s\n", which, why);
		free(path);
		return EXIT_CANNOT_RUN;
	}
	*ret_path = path;
	return 0;
}
