/* SPDX-License-Identifier: MIT */
/*
 * Files that appear under their names only when they are whole: written beside it under a name of their own, then renamed, so
 * that a full disk or a killed command leaves what was there before. What is no regular file (a terminal, a pipe, /dev/null) is
 * written as it is.
 */
#include "front/launcher.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* mkostemp(3) gives its file to the owner alone; a new file's rights are the umask's. */
static FILE *open_beside(char *name)
{
	mode_t mask = umask(0);
	int fd = mkostemp(name, O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "w");

	umask(mask);
	if (f)
		fchmod(fd, 0666 & ~mask);
	return f;
}

bool whole_open(struct whole *w, const char *path)
{
	char *real = realpath(path, NULL);
	struct stat st;

	*w = (struct whole){.path = real ? real : launcher_join(NULL, 0, path)};
	if (real && !stat(real, &st) && !S_ISREG(st.st_mode)) {
		w->f = fopen(real, "we");
	} else {
		w->beside = launcher_join(w->path, '.', "XXXXXX");
		w->f = open_beside(w->beside);
	}
	if (w->f)
		return true;
	free(w->beside);
	free(w->path);
	return false;
}

bool whole_close(struct whole *w, bool keep)
{
	bool ok = !fflush(w->f) && !ferror(w->f);
	int err = errno;

	if (fclose(w->f) && ok) {
		ok = false;
		err = errno;
	}
	if (w->beside && ok && keep && rename(w->beside, w->path)) {
		ok = false;
		err = errno;
	}
	if (w->beside && !(ok && keep))
		unlink(w->beside);
	free(w->beside);
	free(w->path);
	errno = err;
	return ok;
}

int whole_check(const char *path)
{
	struct whole w;

	if (whole_open(&w, path)) {
		whole_close(&w, false);
		return 0;
	}
	return launcher_error("cannot write %s: %s", path, strerror(errno));
}
