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
