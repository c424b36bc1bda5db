/* SPDX-License-Identifier: MIT */
/*
 * Address spaces are types, for a mistaken one costs a day:
 *   gva_t  guest linear (virtual) address, after segmentation
 *   gpa_t  guest physical address of the outermost guest (L1)
 *   gfn_t  gpa_t >> PAGE_SHIFT
 *   hva    a host pointer, uint8_t *
 */
#ifndef SILICON_CPU_TYPES_H
#define SILICON_CPU_TYPES_H

#include "host/compiler.h"

typedef uint64_t gva_t;
typedef uint64_t gpa_t;
typedef uint64_t gfn_t;

#define GPA_NONE (~0ull)

#endif
