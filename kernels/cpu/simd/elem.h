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

/* Elements j.. of operand o: at most VW, n in all. */
AM_INLINE vf elem_get(const void *p, int dtype, const elem_row *row, int o, int64_t j)
{
    int64_t n = at_most(VW, row->n - j), at = row->at[o] + j * row->step[o];
    if (row->step[o] == 1)
        return vget_n(p, dtype, at, n, 1.0f);
    if (row->step[o] == 0)
        return vsplat(load1(p, dtype, at));
    vf v = vsplat(1.0f);
    for (int64_t i = 0; i < n; i++)
        v[i] = load1(p, dtype, at + i * row->step[o]);
    return v;
}

AM_INLINE void elem_put(void *p, int dtype, const elem_row *row, int64_t j, vf v)
{
    int64_t n = at_most(VW, row->n - j), at = row->at[0] + j * row->step[0];
    if (row->step[0] == 1) {
        vput_n(p, dtype, at, n, v);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        store1(p, dtype, at + i * row->step[0], v[i]);
}

#endif
