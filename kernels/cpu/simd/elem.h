/* elem.h — the strided walk of the elementwise kernels: dims that lie one behind the other become
 * one, then rows of the innermost dim are shared out among threads and handled VW at a time. */
#ifndef AM_KERNELS_ELEM_H
#define AM_KERNELS_ELEM_H

#include "vec.h"

/* A walk: `rows` rows of `n` elements; operand o steps by step[o] within a row. */
typedef struct elem_walk {
    am_nd outer; /* what is left of the shape without the innermost dim */
    int64_t rows, n, step[AM_ND_OPERANDS];
} elem_walk;

/* A piece of a row, and where it starts in each operand. */
typedef struct elem_row {
    int64_t n, at[AM_ND_OPERANDS], step[AM_ND_OPERANDS];
} elem_row;

enum { ELEM_BLOCK = 8192 }; /* longest piece */

elem_walk AM_SIMD(elem_walk)(const am_nd *nd, int operands);
elem_row AM_SIMD(elem_row)(const elem_walk *w, int operands, int64_t row, int64_t first, int64_t n);

/* Run `statement` for every piece `row` of the walk. */
#define ELEM_EACH(nd_, operands, statement)                                                        \
    do {                                                                                           \
        elem_walk walk_ = AM_SIMD(elem_walk)(nd_, operands);                                       \
        int64_t pieces_ = (walk_.n + ELEM_BLOCK - 1) / ELEM_BLOCK;                                 \
        _Pragma("omp parallel for num_threads(team(walk_.rows * walk_.n)) schedule(static)") for ( \
            int64_t i_ = 0; i_ < walk_.rows * pieces_; i_++)                                       \
        {                                                                                          \
            int64_t first_ = i_ % pieces_ * ELEM_BLOCK;                                            \
            elem_row row = AM_SIMD(elem_row)(&walk_, operands, i_ / pieces_, first_,               \
                                             at_most(ELEM_BLOCK, walk_.n - first_));               \
            statement;                                                                             \
        }                                                                                          \
    } while (0)

/* Operands are handled as chunks of floats: in place where they lie dense as f32, else through a
 * buffer. The loops over a chunk may run on to the next multiple of VW. */
enum { ELEM_CHUNK = 512 };
typedef struct elem_buffer {
    float x[ELEM_CHUNK] __attribute__((aligned(64)));
} elem_buffer;

/* n elements of operand o from j on, as floats; p is the operand's address. Beyond n they are 1. */
const float *AM_SIMD(elem_get)(elem_buffer *b, const void *p, int dtype, const elem_row *row, int o,
                               int64_t j, int64_t n);
/* Where to compute n elements of the output from j on, and then putting them there. */
float *AM_SIMD(elem_place)(elem_buffer *b, void *p, int dtype, const elem_row *row, int64_t j,
                           int64_t n);
void AM_SIMD(elem_put)(const float *from, void *p, int dtype, const elem_row *row, int64_t j,
                       int64_t n);

/* For every chunk of a row: `j` and `n` are set for `statement`. */
#define ELEM_CHUNKS(row, statement)                                                                \
    for (int64_t j = 0; j < (row)->n; j += ELEM_CHUNK) {                                           \
        int64_t n = at_most(ELEM_CHUNK, (row)->n - j);                                             \
        statement;                                                                                 \
    }

#endif
