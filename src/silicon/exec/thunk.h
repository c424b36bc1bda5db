/* SPDX-License-Identifier: MIT */
/*
 * Thunks: one borrowed instruction each, as code for the host. Room header of exec/.
 */
#ifndef SILICON_EXEC_THUNK_H
#define SILICON_EXEC_THUNK_H

#include "silicon/exec/cache.h"

/*
 * vCPU thread, vector state saved. Set insn->thunk for the decoded instruction z with its operands;
 * false if it cannot be borrowed (the encoder refused, or what it made is another instruction). May
 * drop all other thunks and decoded instructions to make room.
 */
bool thunk_make(struct exec_cache *c, const ZydisDecodedInstruction *z,
		const ZydisDecodedOperand *ops, struct insn *insn);
/* Code memory and tables. 0 or -errno. */
int thunk_init(struct exec_cache *c);
void thunk_free(struct exec_cache *c);

#endif
