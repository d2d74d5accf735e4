/* rope.cu — rotary embedding: the table of cosines and sines, and the rotation. */
#include "vector.cuh"

constexpr int NT = 128;

__global__ void __launch_bounds__(NT)
    rope_table_kernel(float *out, const int32_t *pos, const float *inv_freq, double scaling,
                      int64_t n, int64_t half)
{
    int64_t at = (int64_t)blockIdx.x * NT + threadIdx.x;
    if (at >= n * half)
        return;
    int64_t i = at / half, j = at - i * half;
    float angle = __fmul_rn((float)pos[i], inv_freq[j]);
    /* In half turns: cospi and sinpi need no table for large angles, as cos and sin do. The
     * quotient's rounding is 2^-53 of the angle. */
    double turns = (double)angle * 0.31830988618379067154;
    float *row = out + i * 2 * half;
    row[j] = (float)(cospi(turns) * scaling);
    row[half + j] = (float)(sinpi(turns) * scaling);
}

extern "C" int am_cuda_rope_table(am_stream *s, const am_rope_table_args *a)
{
    int64_t n = a->n * a->half;
    if (n == 0)
        return AM_OK;
    AM_LAUNCH(rope_table_kernel, (unsigned)((n + NT - 1) / NT), NT, 0, s->stream, a->out, a->pos,
              a->inv_freq, a->scaling, a->n, a->half);
    return am_cuda_launched(s, "rope_table");
}

/* A block has one row of one token, all heads; a thread V pairs, or V of the elements that are
 * copied. V is 1 where not all lies on 16 bytes. */
template <class T, int V> __global__ void __launch_bounds__(NT) rope_kernel(am_rope_args a)
{
    typedef typename am_math<T>::type M;
    int64_t row = blockIdx.x;
    int half = (int)(a.r / 2), d = (int)a.d;
    int turns = half / V, each = turns + (d - 2 * half) / V;
    const float *table = a.table + (a.table_batched ? row : row % a.t) * a.r;
    for (int k = threadIdx.x; k < (int)a.h * each; k += NT) {
        int head = k / each, item = k - head * each;
        int64_t base = (row * a.h + head) * a.d;
        const T *x = (const T *)a.x + base;
        T *out = (T *)a.out + base;
        if (item >= turns) {
            int at = 2 * half + (item - turns) * V;
            am_elems<T, V> rest = *(const am_elems<T, V> *)(x + at);
            *(am_elems<T, V> *)(out + at) = rest;
            continue;
        }
        int i = item * V, low = a.interleaved ? 2 * i : i,
            high = a.interleaved ? low + V : i + half;
        M p[V], q[V];
        am_read(p, x + low, V, true);
        am_read(q, x + high, V, true);
#pragma unroll
        for (int j = 0; j < V; j++) {
            M c = (M)table[i + j], s = (M)table[half + i + j];
            s = a.inverse ? -s : s;
            if (V > 1 && a.interleaved) { /* pair j is 2j and 2j + 1 of p and q in a row */
                M &u = 2 * j < V ? p[2 * j % V] : q[2 * j % V];
                M &v = 2 * j + 1 < V ? p[(2 * j + 1) % V] : q[(2 * j + 1) % V];
                M first = u;
                u = first * c - v * s;
                v = v * c + first * s;
            } else {
                M first = p[j];
                p[j] = first * c - q[j] * s;
                q[j] = q[j] * c + first * s;
            }
        }
        am_write(out + low, p, V, true);
        am_write(out + high, q, V, true);
    }
}

extern "C" int am_cuda_rope(am_stream *s, const am_rope_args *a)
{
    int64_t rows = a->b * a->t;
    if (rows == 0 || a->h == 0 || a->d == 0)
        return AM_OK;
    AM_FOR_FLOAT(a->dtype, T, {
        constexpr int V = AM_WIDTH(T);
        if (a->d % V == 0 && a->r / 2 % V == 0 && am_aligned16(a->out, a->x))
            AM_LAUNCH((rope_kernel<T, V>), (unsigned)rows, NT, 0, s->stream, *a);
        else
            AM_LAUNCH((rope_kernel<T, 1>), (unsigned)rows, NT, 0, s->stream, *a);
    });
    return am_cuda_launched(s, "rope");
}
