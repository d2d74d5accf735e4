/* walk.c — see elem.h: joining dims and finding a row's place. */
#include "elem.h"

elem_walk AM_SIMD(elem_walk)(const am_nd *nd, int operands)
{
    elem_walk w = {.rows = 1, .n = 1};
    for (int i = 0; i < nd->ndim; i++) {
        int64_t size = nd->shape[i];
        if (size == 1)
            continue;
        int last = w.outer.ndim - 1, joins = last >= 0;
        for (int o = 0; joins && o < operands; o++)
            joins = w.outer.stride[o][last] == nd->stride[o][i] * size;
        if (!joins)
            last = w.outer.ndim++;
        w.outer.shape[last] = joins ? w.outer.shape[last] * size : size;
        for (int o = 0; o < operands; o++)
            w.outer.stride[o][last] = nd->stride[o][i];
    }
    if (w.outer.ndim > 0) {
        int last = --w.outer.ndim;
        w.n = w.outer.shape[last];
        for (int o = 0; o < operands; o++)
            w.step[o] = w.outer.stride[o][last];
    }
    for (int i = 0; i < w.outer.ndim; i++)
        w.rows *= w.outer.shape[i];
    return w;
}

elem_row AM_SIMD(elem_row)(const elem_walk *w, int operands, int64_t row, int64_t first, int64_t n)
{
    elem_row r = {.n = n};
    for (int o = 0; o < operands; o++) {
        r.step[o] = w->step[o];
        r.at[o] = first * w->step[o];
    }
    for (int i = w->outer.ndim - 1; i >= 0; i--) {
        int64_t index = row % w->outer.shape[i];
        row /= w->outer.shape[i];
        for (int o = 0; o < operands; o++)
            r.at[o] += index * w->outer.stride[o][i];
    }
    return r;
}

/* ---- chunks ------------------------------------------------------------------------------- */

AM_INLINE int in_place(int dtype, int64_t step, int64_t n)
{
    return dtype == AM_F32 && step == 1 && n % VW == 0;
}

const float *AM_SIMD(elem_get)(elem_buffer *b, const void *p, int dtype, const elem_row *row, int o,
                               int64_t j, int64_t n)
{
    int64_t step = row->step[o], at = row->at[o] + j * step, i = 0;
    if (in_place(dtype, step, n))
        return (const float *)p + at;
    if (step == 1)
        for (; i + VW <= n; i += VW)
            vstore(b->x + i, vget(p, dtype, at + i));
    if (step == 0 && n > 0) {
        float v = load1(p, dtype, at);
        for (; i < n; i++)
            b->x[i] = v;
    }
    for (; i < n; i++)
        b->x[i] = load1(p, dtype, at + i * step);
    for (; i % VW != 0; i++)
        b->x[i] = 1.0f;
    return b->x;
}

float *AM_SIMD(elem_place)(elem_buffer *b, void *p, int dtype, const elem_row *row, int64_t j,
                           int64_t n)
{
    return in_place(dtype, row->step[0], n) ? (float *)p + row->at[0] + j : b->x;
}

void AM_SIMD(elem_put)(const float *from, void *p, int dtype, const elem_row *row, int64_t j,
                       int64_t n)
{
    int64_t step = row->step[0], at = row->at[0] + j * step, i = 0;
    if (in_place(dtype, step, n))
        return;
    if (step == 1)
        for (; i + VW <= n; i += VW)
            vput(p, dtype, at + i, vload(from + i));
    for (; i < n; i++)
        store1(p, dtype, at + i * step, from[i]);
}
