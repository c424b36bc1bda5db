/* SPDX-License-Identifier: MIT */
/* The guest's side of the differential: a vCPU at CPL 3 in 64-bit mode over the same addresses. */
#ifndef TESTS_INSN_GUEST_H
#define TESTS_INSN_GUEST_H

#include "native.h"

struct guest;

struct guest *guest_new(const struct segments *segments); /* exits on failure */
void guest_free(struct guest *g);
uint64_t guest_xfeatures(const struct guest *g);
/* Host pointer to the guest's memory at a linear address of native.h. */
/* True for an address that the guest's page tables map. */
bool guest_mapped(uint64_t addr);
uint8_t *guest_memory(const struct guest *g, uint64_t addr);
/* Run one instruction by step, without delivering its fault. */
void guest_run(struct guest *g, const struct state *in, struct state *out);

#endif
