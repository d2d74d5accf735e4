/* vector.cuh — elements in groups: V at a time of a dense row, by 16-byte loads and stores where
 * all is aligned, and floating elements whose dtype a kernel looks up when it runs. Both ways give
 * a thread the same elements, so that results do not depend on alignment. Holds no kernel. */
#pragma once

#include "common.cuh"

/* Elements of T in 16 bytes. */
#define AM_WIDTH(T) ((int)(16 / sizeof(T)))

/* Do all of these (NULL, too) lie on a multiple of 16 bytes? */
template <class... P> static inline bool am_aligned16(P... p)
{
    return (((uintptr_t)p | ...) & 15) == 0;
}

/* The V elements from p on, in x's type. wide: all are there, and p is aligned to their size or 16
 * bytes; otherwise those from `left` on are 0. */
template <class T, class M, int V>
AM_DEVICE void am_read(M (&x)[V], const T *p, int64_t left, bool wide)
{
    if (wide) {
        am_elems<T, V> v = *(const am_elems<T, V> *)p;
#pragma unroll
        for (int i = 0; i < V; i++)
            x[i] = (M)am_get(v.v[i]);
    } else {
#pragma unroll
        for (int i = 0; i < V; i++)
            x[i] = i < left ? (M)am_get(p[i]) : (M)0;
    }
}

template <class T, class M, int V>
AM_DEVICE void am_write(T *p, const M (&x)[V], int64_t left, bool wide)
{
    if (wide) {
        am_elems<T, V> v;
#pragma unroll
        for (int i = 0; i < V; i++)
            am_put(&v.v[i], x[i]);
        *(am_elems<T, V> *)p = v;
    } else {
#pragma unroll
        for (int i = 0; i < V; i++)
            if (i < left)
                am_put(p + i, x[i]);
    }
}

/* ---- a dtype of run time: f32, bf16, f16, f64 ---- */

/* am_read of elements from `at` on */
template <class M, int V>
AM_DEVICE void am_read_any(M (&x)[V], const void *p, int dtype, int64_t at, int64_t left, bool wide)
{
    if (dtype == AM_F32)
        am_read(x, (const float *)p + at, left, wide);
    else if (dtype == AM_BF16)
        am_read(x, (const bf16 *)p + at, left, wide);
    else if (dtype == AM_F16)
        am_read(x, (const f16 *)p + at, left, wide);
    else
        am_read(x, (const double *)p + at, left, wide);
}

template <class M, int V>
AM_DEVICE void am_write_any(void *p, int dtype, int64_t at, const M (&x)[V], int64_t left,
                            bool wide)
{
    if (dtype == AM_F32)
        am_write((float *)p + at, x, left, wide);
    else if (dtype == AM_BF16)
        am_write((bf16 *)p + at, x, left, wide);
    else if (dtype == AM_F16)
        am_write((f16 *)p + at, x, left, wide);
    else
        am_write((double *)p + at, x, left, wide);
}
