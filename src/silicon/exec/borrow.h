/* SPDX-License-Identifier: MIT */
/* Borrowed instructions: the choice of a class, and the function that runs each. Room header of exec/. */
#ifndef SILICON_EXEC_BORROW_H
#define SILICON_EXEC_BORROW_H

#include "silicon/exec/cache.h"

/* ---- borrow.c: ordinary C, vector state saved ---- */

/* Set insn->run, and its thunk where it has one; false if nobody here can run it. */
bool borrow_choose(struct exec_cache *c, const ZydisDecodedInstruction *z,
		   const ZydisDecodedOperand *ops, struct insn *insn);
/* True for an emulated instruction that leaves mode, control registers and XCR0 alone. */
bool borrow_plain(const ZydisDecodedInstruction *z);
/* True if KVM's emulator has the instruction, which is emulated here or borrowed. */
bool emulator_knows(const ZydisDecodedInstruction *z, bool emulated);

/* ---- borrow_run.c: general registers only ---- */

insn_fn run_nop;
insn_fn run_reg, run_reg_fpu; /* no memory operand */
insn_fn run_mem;	      /* one explicit memory operand */
insn_fn run_bit;	      /* BT, BTS, BTR, BTC with a memory operand and a register index */
insn_fn run_masked; /* vector loads and stores that suppress faults of elements left out */
insn_fn run_vzero;  /* VZEROALL and VZEROUPPER outside of 64-bit mode */
insn_fn run_gather; /* and scatters */
/* The offset of the word that run_bit()'s index leads to. */
uint64_t borrow_bit_ea(const struct cpu *cpu, const struct insn *insn);
/* The thunk came back with 1: the guest's exception, or the exit for memory taken away. */
enum result borrow_trapped(struct cpu *cpu);
/* Operand address of a borrowed instruction, segment and alignment checked. */
enum result borrow_address(struct cpu *cpu, const struct insn *insn, uint64_t off, gva_t *ret);
/*
 * Check size bytes of the operand that are to go through a buffer: after it the instruction can be finished,
 * short of the program taking memory away meanwhile.
 */
enum result borrow_probe(struct cpu *cpu, const struct insn *insn, gva_t addr, uint32_t size);
/* Run the thunk on size bytes at addr through a buffer of the same alignment. */
enum result borrow_bounce(struct cpu *cpu, const struct insn *insn, gva_t addr);
/*
 * The operand's address was no good (r): VCVTPS2PH has converted before it stores, so that its own exception comes
 * first, and its flags are in MXCSR in any case. Returns the fault to be taken.
 */
enum result borrow_convert_anyway(struct cpu *cpu, const struct insn *insn, enum result r);

#endif
