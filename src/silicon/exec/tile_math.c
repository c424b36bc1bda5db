/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic of TDPBSSD and its kin, and of TDPBF16PS, a row of the destination at a time.
 *
 * Floating point follows the SDM's pseudocode step by step, in assembly: the order of the operands decides which NaN comes
 * out. Even and odd halves have sums of their own, by fused multiply and add; both are added, then the destination.
 */
#include "silicon/exec/tile_math.h"

#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))

/* Round to nearest even, all masked, denormals are zero and flushed to zero. */
#define MXCSR_TILES 0x9fc0

TARGET static void put_row(const struct tile_dot *dot, unsigned m, __m256i low, __m256i high)
{
	uint32_t *row = dot->dst[m];

	_mm256_storeu_si256((__m256i *)row, low);
	_mm256_storeu_si256((__m256i *)(row + 8), high);
	for (unsigned n = dot->cols; n < 16; n++)
		row[n] = 0;
}

TARGET static void clear_rows(const struct tile_dot *dot)
{
	for (unsigned m = dot->rows; m < 16; m++)
		for (unsigned n = 0; n < 16; n++)
			dot->dst[m][n] = 0;
}

/* ---- bytes ---- */

TARGET static inline __m256i widen(__m128i bytes, bool with_sign)
{
	return with_sign ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
}

/* Sums of neighbours, in order. */
TARGET static inline __m256i add_pairs(__m256i low, __m256i high)
{
	return _mm256_permute4x64_epi64(_mm256_hadd_epi32(low, high), 0xd8);
}

/* Each quarter of a row of b is four columns, which have two sums each until the end. */
TARGET static void dot_row(const struct tile_dot *dot, unsigned m, bool a_signed, bool b_signed)
{
	const __m256i *old = (const __m256i *)dot->dst[m];
	__m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
			  _mm256_setzero_si256()};

	for (unsigned k = 0; k < dot->depth; k++) {
		__m256i a = widen(_mm_set1_epi32(dot->a[m][k]), a_signed);
		const __m128i *b = (const __m128i *)dot->b[k];

		for (unsigned i = 0; i < 4; i++)
			sum[i] = _mm256_add_epi32(
				sum[i],
				_mm256_madd_epi16(a, widen(_mm_loadu_si128(b + i), b_signed)));
	}
	put_row(dot, m, _mm256_add_epi32(_mm256_loadu_si256(old), add_pairs(sum[0], sum[1])),
		_mm256_add_epi32(_mm256_loadu_si256(old + 1), add_pairs(sum[2], sum[3])));
}

TARGET void tile_dot_bytes(const struct tile_dot *dot, bool a_signed, bool b_signed)
{
	for (unsigned m = 0; m < dot->rows; m++)
		dot_row(dot, m, a_signed, b_signed);
	clear_rows(dot);
}

/* ---- BF16 ---- */

/* acc += a * b */
#define FMA(acc, a, b) asm volatile("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b))
/* ret = a + b */
#define ADD(ret, a, b) asm volatile("vaddps %2, %1, %0" : "=x"(ret) : "x"(a), "x"(b))

/* A BF16 is the upper half of a single. */
TARGET static inline __m256 even(__m256i pairs)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
}

TARGET static inline __m256 odd(__m256i pairs)
{
	return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff0000)));
}

/* Eight columns of a row, from the one at. */
TARGET static __m256i dot_bf16_half(const struct tile_dot *dot, unsigned m, unsigned at)
{
	__m256 old = _mm256_loadu_ps((const float *)&dot->dst[m][at]);
	__m256 evens = _mm256_setzero_ps(), odds = _mm256_setzero_ps(), sum;

	for (unsigned k = 0; k < dot->depth; k++) {
		__m256i a = _mm256_set1_epi32(dot->a[m][k]);
		__m256i b = _mm256_loadu_si256((const __m256i *)&dot->b[k][at]);

		FMA(evens, even(a), even(b));
		FMA(odds, odd(a), odd(b));
	}
	ADD(sum, evens, odds);
	ADD(sum, old, sum);
	return _mm256_castps_si256(sum);
}

TARGET void tile_dot_bf16(const struct tile_dot *dot)
{
	unsigned mxcsr = _mm_getcsr();

	_mm_setcsr(MXCSR_TILES);
	for (unsigned m = 0; m < dot->rows; m++) {
		__m256i low = dot_bf16_half(dot, m, 0), high = dot_bf16_half(dot, m, 8);

		put_row(dot, m, low, high);
	}
	_mm_setcsr(mxcsr);
	clear_rows(dot);
}
