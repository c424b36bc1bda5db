/* SPDX-License-Identifier: MIT */
/* anykvm matrix: a program of its own (tools/anykvm-matrix, Python), beside the command or in libexec, as git's verbs are. */
#include "front/launcher.h"

#include <stdlib.h>
#include <unistd.h>

int verb_matrix(int argc, char **argv)
{
	char *script =
		launcher_find("anykvm-matrix", ANYKVM_LIBEXEC_FROM_BIN, ANYKVM_LIBEXEC_INSTALLED);
	char self[4096];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (!script || len < 0)
		return launcher_error(
			"anykvm-matrix is not beside the command; build or install it");
	self[len] = 0;
	setenv("ANYKVM_COMMAND", self, 1);
	argv[0] = script;
	return launcher_become(script, argv);
}
