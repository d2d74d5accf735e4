/* cpu.h — the table of kernels that the SIMD files fill once for each instruction set, and what
 * backend_cpu.c and gemm.c share. */
#ifndef AM_KERNELS_CPU_H
#define AM_KERNELS_CPU_H

#include "backend.h"

/* The longest sums that the SIMD gemm takes; its answer to all other products is AM_EUNSUP. And the
 * highest rank that low_rank takes one pass for, on AMX tiles more. */
enum { AM_THIN = 16, AM_THIN_ON_TILES = 64 };

/* NULL where a family has no SIMD form: ref's kernel stays. */
typedef struct am_cpu_kernels {
#define K(name, pointers) int (*name)(am_stream * s, const am_##name##_args *args);
#include "kernels.def"
#undef K
} am_cpu_kernels;

extern const am_cpu_kernels am_cpu_kernels_generic;
#if defined(__x86_64__)
extern const am_cpu_kernels am_cpu_kernels_avx2, am_cpu_kernels_avx512, am_cpu_kernels_avx512_bf16;
/* On AMX tiles, of bf16; with u, alpha is 1. */
int am_cpu_tile_gemm(am_stream *s, const am_gemm_args *args);
/* On AMX tiles, or by vdpbf16ps, for bf16; other dtypes go to avx512_bf16's. */
int am_cpu_attention_avx512_bf16(am_stream *s, const am_attention_args *args);
int am_cpu_attention_bwd_avx512_bf16(am_stream *s, const am_attention_bwd_args *args);
int am_cpu_attention_amx(am_stream *s, const am_attention_args *args);
int am_cpu_attention_bwd_amx(am_stream *s, const am_attention_bwd_args *args);
int am_cpu_attention_bf16_dot(am_stream *s, const am_attention_args *args);
int am_cpu_attention_bwd_bf16_dot(am_stream *s, const am_attention_bwd_args *args);
int am_cpu_low_rank_avx512_bf16(am_stream *s, const am_low_rank_args *args);
int am_cpu_low_rank_amx(am_stream *s, const am_low_rank_args *args);
#endif

/* From the lowest to the highest; a CPU has all those below its own. */
enum { AM_ISA_GENERIC, AM_ISA_AVX2, AM_ISA_AVX512, AM_ISA_AVX512_BF16, AM_ISA_AMX };
enum { AM_ISA_WHY = 160 };

/* backend_cpu.c: the instruction set to run with, `available` or the lower one that `asked` (what
 * AMLUA_ISA says, or NULL) names. -1 and the reason where it names none, or one that is missing. */
int am_cpu_isa_choose(const char *asked, int available, char why[AM_ISA_WHY]);

/* gemm.c: oneDNN under a ceiling of `isa`, and some of simd's kernels. Call once, before any gemm.
 */
void am_cpu_gemm_init(int isa, const am_cpu_kernels *simd);
int am_cpu_gemm(am_stream *s, const am_gemm_args *args);
int am_cpu_low_rank(am_stream *s, const am_low_rank_args *args);
int am_cpu_grouped_gemm(am_stream *s, const am_grouped_gemm_args *args);
int am_cpu_grouped_gemm_dw(am_stream *s, const am_grouped_gemm_dw_args *args);

/* packed.c, by gemm.c and simd's kernels. Call once, before any packed_gemm. */
void am_cpu_packed_init(const am_cpu_kernels *simd);
int am_cpu_packed_gemm(am_stream *s, const am_packed_gemm_args *args);

#endif
