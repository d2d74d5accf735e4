/* attention_plain.cu — attention, forward and backward, in f32 and f64, and in bf16 and f16 for
 * sizes and strides that attention.cu and attention_bwd.cu do not take. Ordinary arithmetic on
 * tiles in shared memory, d in pieces of DC; a block makes at most OUT columns of its output, and
 * more blocks the others. */
#include "attention_bwd.cuh"

constexpr int NT = 128, BM = 32, BN = AM_PLAIN_QUERIES, DC = 32;
/* Of f64 fewer: they take two registers each. */
template <class A> constexpr int OUT = sizeof(A) == 8 ? 64 : 128;
/* A thread has rows thread / ACROSS + DOWN i and columns thread % ACROSS + ACROSS j of a tile. */
constexpr int ACROSS = 16, DOWN = NT / ACROSS, RI = BM / DOWN, CJ = BN / ACROSS, OJ = DC / ACROSS;

template <class A> struct plain_shared {
    A left[BM][DC + 1], right[BN][DC + 1], p[BM][BN + 1];
};

AM_DEVICE float load_as(const void *p, int dtype, int64_t i, float)
{
    return dtype == AM_F32    ? ((const float *)p)[i]
           : dtype == AM_BF16 ? am_get(((const bf16 *)p)[i])
                              : am_get(((const f16 *)p)[i]);
}
AM_DEVICE double load_as(const void *p, int, int64_t i, double)
{
    return ((const double *)p)[i];
}
AM_DEVICE void store_as(void *p, int dtype, int64_t i, float v)
{
    if (dtype == AM_F32)
        ((float *)p)[i] = v;
    else if (dtype == AM_BF16)
        am_put((bf16 *)p + i, v);
    else
        am_put((f16 *)p + i, v);
}
AM_DEVICE void store_as(void *p, int, int64_t i, double v)
{
    ((double *)p)[i] = v;
}

/* Rows of an operand: `used` of them from element `at` on, `stride` apart. */
struct plain_rows {
    const void *p;
    int64_t at, stride;
    int used;
};

/* Columns c..c+DC-1, with 0 where there is nothing. */
template <class A, int ROWS>
AM_DEVICE void stage(A (*to)[DC + 1], plain_rows from, const am_attention_shape &x, int64_t c)
{
    for (int i = threadIdx.x; i < ROWS * DC; i += NT) {
        int r = i / DC, k = i % DC;
        to[r][k] = r < from.used && c + k < x.d
                       ? load_as(from.p, x.dtype, from.at + r * from.stride + c + k, A())
                       : 0;
    }
}

/* s [BM, BN] = left right^T */
template <class A>
AM_DEVICE void plain_dot(A (&s)[RI][CJ], plain_shared<A> &m, plain_rows left, plain_rows right,
                         const am_attention_shape &x)
{
    int down = threadIdx.x / ACROSS, across = threadIdx.x % ACROSS;
#pragma unroll
    for (int i = 0; i < RI; i++)
#pragma unroll
        for (int j = 0; j < CJ; j++)
            s[i][j] = 0;
    for (int64_t c = 0; c < x.d; c += DC) {
        __syncthreads(); /* the last piece may still be read */
        stage<A, BM>(m.left, left, x, c);
        stage<A, BN>(m.right, right, x, c);
        __syncthreads();
        for (int k = 0; k < DC; k++) {
            A a[RI], b[CJ];
#pragma unroll
            for (int i = 0; i < RI; i++)
                a[i] = m.left[down + DOWN * i][k];
#pragma unroll
            for (int j = 0; j < CJ; j++)
                b[j] = m.right[across + ACROSS * j][k];
#pragma unroll
            for (int i = 0; i < RI; i++)
#pragma unroll
                for (int j = 0; j < CJ; j++)
                    s[i][j] += a[i] * b[j];
        }
    }
}

/* The output's columns from c0 on: [piece][row][column]. */
template <class A> struct plain_sum {
    A v[OUT<A> / DC][RI][OJ];
};

template <class A> AM_DEVICE void plain_clear(plain_sum<A> &sum)
{
#pragma unroll
    for (int i = 0; i < OUT<A> / DC * RI * OJ; i++)
        sum.v[i / (RI * OJ)][i / OJ % RI][i % OJ] = 0;
}

/* sum += p right, p being m.p, which all have written before a barrier. */
template <class A>
AM_DEVICE void plain_add(plain_sum<A> &sum, plain_shared<A> &m, plain_rows right,
                         const am_attention_shape &x, int64_t c0)
{
    int down = threadIdx.x / ACROSS, across = threadIdx.x % ACROSS;
#pragma unroll
    for (int piece = 0; piece < OUT<A> / DC; piece++) {
        int64_t c = c0 + piece * DC;
        if (c >= x.d)
            break;
        __syncthreads();
        stage<A, BN>(m.right, right, x, c);
        __syncthreads();
        for (int k = 0; k < BN; k++) {
            A b[OJ];
#pragma unroll
            for (int j = 0; j < OJ; j++)
                b[j] = m.right[k][across + ACROSS * j];
#pragma unroll
            for (int i = 0; i < RI; i++) {
                A a = m.p[down + DOWN * i][k];
#pragma unroll
                for (int j = 0; j < OJ; j++)
                    sum.v[piece][i][j] += a * b[j];
            }
        }
    }
}

/* Rows of a dense output from element `at` on, times by[row], or `factor` where by is NULL. */
template <class A>
AM_DEVICE void plain_store(const plain_sum<A> &sum, void *to, int64_t at, int64_t stride, int used,
                           const A *by, A factor, const am_attention_shape &x, int64_t c0)
{
    int down = threadIdx.x / ACROSS, across = threadIdx.x % ACROSS;
#pragma unroll
    for (int piece = 0; piece < OUT<A> / DC; piece++)
#pragma unroll
        for (int i = 0; i < RI; i++)
#pragma unroll
            for (int j = 0; j < OJ; j++) {
                int r = down + DOWN * i;
                int64_t c = c0 + piece * DC + across + ACROSS * j;
                if (r < used && c < x.d)
                    store_as(to, x.dtype, at + r * stride + c,
                             sum.v[piece][i][j] * (by ? by[r] : factor));
            }
}

template <class A> AM_DEVICE A plain_score(A dot, const am_attention_shape &x)
{
    A y = dot * (A)x.scale, cap = (A)x.softcap;
    return cap > 0 ? cap * tanh(y / cap) : y;
}

/* ---- forward -------------------------------------------------------------------------------- */

/* Row r of a tile of scores becomes probabilities, by the four threads from 4 r on. */
constexpr int QUARTER = NT / BM;

template <class A>
__global__ void __launch_bounds__(NT, 2) attention_plain_kernel(am_attention_args a, int tiles)
{
    AM_SHARED(plain_shared<A>, shared, [1]);
    AM_SHARED(am_query_rows<BM>, rows, [1]);
    AM_SHARED(A, by, [BM]);
    plain_shared<A> &m = shared[0];
    const am_attention_shape &x = a.shape;
    int first = (int)(blockIdx.x % tiles) * BM;
    int64_t head = blockIdx.x / tiles % x.h, b = blockIdx.x / tiles / x.h, c0 = blockIdx.y * OUT<A>;
    int64_t kv_head = head / (x.h / x.kh), stat = (b * x.h + head) * x.t + first;
    int64_t k0 = b * x.k_batch + kv_head * x.k_head, v0 = b * x.v_batch + kv_head * x.v_head;
    int used = (int)min((int64_t)BM, x.t - first);
    int down = threadIdx.x / ACROSS, across = threadIdx.x % ACROSS;
    int row = threadIdx.x / QUARTER, quarter = threadIdx.x % QUARTER;
    plain_rows q = {a.q, b * x.q_batch + first * x.q_token + head * x.q_head, x.q_token, used};
    A sink = a.sinks ? ((const A *)a.sinks)[head] : -(A)INFINITY, top = sink;
    A total = sink != -(A)INFINITY && quarter == 0 ? 1 : 0;
    A kept = x.dropout_p > 0 ? (A)(1 / (1 - x.dropout_p)) : 1;
    plain_sum<A> sum;
    plain_clear(sum);

    am_query_rows_set(rows[0], x, a.bounds, b, first);
    __syncthreads();
    am_key_walk w = {0, 0, 0, 0};
    for (bool more = am_walk_segment<BN>(w, rows[0]); more; more = am_walk_next<BN>(w, rows[0])) {
        A s[RI][CJ];
        plain_rows k = {a.k, k0 + w.key * x.k_token, x.k_token, w.high - w.key};
        plain_rows v = {a.v, v0 + w.key * x.v_token, x.v_token, w.high - w.key};
        plain_dot(s, m, q, k, x);
#pragma unroll
        for (int i = 0; i < RI; i++)
#pragma unroll
            for (int j = 0; j < CJ; j++)
                m.p[down + DOWN * i][across + ACROSS * j] = plain_score(s[i][j], x);
        __syncthreads();
        bool in = row >= w.row0 && row < w.row1;
        int low = rows[0].start[row] - w.key, high = in ? rows[0].end[row] - w.key : 0;
        A most = -(A)INFINITY, part = 0;
        for (int j = quarter; j < BN; j += QUARTER)
            if (j >= low && j < high)
                most = max(most, m.p[row][j]);
        most = max(most, __shfl_xor_sync(AM_WARP, most, 1));
        most = max(most, __shfl_xor_sync(AM_WARP, most, 2));
        most = max(most, top);
        A base = most == -(A)INFINITY ? 0 : most, shrink = exp(top - base);
        uint64_t mask = am_mask_row(x, b, head, first + row) + (uint64_t)w.key;
        for (int j = quarter; j < BN; j += QUARTER) {
            A p = j >= low && j < high ? exp(m.p[row][j] - base) : 0;
            part += p;
            m.p[row][j] = x.dropout_p > 0 && !am_kept(x, mask + j) ? 0 : p;
        }
        top = most;
        total = total * shrink + part;
        if (quarter == 0)
            by[row] = shrink;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OUT<A> / DC * RI * OJ; i++)
            sum.v[i / (RI * OJ)][i / OJ % RI][i % OJ] *= by[down + DOWN * (i / OJ % RI)];
        plain_add(sum, m, v, x, c0);
    }
    total += __shfl_xor_sync(AM_WARP, total, 1);
    total += __shfl_xor_sync(AM_WARP, total, 2);
    bool empty = rows[0].origin[row] < 0;
    __syncthreads(); /* the last factors are read */
    if (quarter == 0) {
        by[row] = empty ? 0 : kept / total;
        if (row < used && c0 == 0)
            ((A *)a.lse)[stat + row] = empty ? sink : top + log(total);
    }
    __syncthreads();
    plain_store(sum, a.out, ((b * x.t + first) * x.h + head) * x.d, x.h * x.d, used, by, (A)1, x,
                c0);
}

template <class A> static dim3 plain_grid(int64_t tiles, const am_attention_shape *x, int64_t heads)
{
    return dim3((unsigned)(tiles * heads * x->b), (unsigned)((x->d + OUT<A> - 1) / OUT<A>));
}

int am_attention_plain(am_stream *s, const am_attention_args *a)
{
    const am_attention_shape *x = &a->shape;
    int tiles = (int)((x->t + BM - 1) / BM);
    if (x->dtype == AM_F64)
        AM_LAUNCH(attention_plain_kernel<double>, plain_grid<double>(tiles, x, x->h), NT, 0,
                  s->stream, *a, tiles);
    else if (x->dtype == AM_F32 || x->dtype == AM_BF16 || x->dtype == AM_F16)
        AM_LAUNCH(attention_plain_kernel<float>, plain_grid<float>(tiles, x, x->h), NT, 0,
                  s->stream, *a, tiles);
    else
        return AM_EUNSUP;
    return am_cuda_launched(s, "attention_plain");
}

/* ---- backward ------------------------------------------------------------------------------- */

/* What a pair's score and dout v give: the dropped probability, and ds without the scale. */
template <class A> struct plain_pair {
    A p, ds;
};

template <class A>
AM_DEVICE plain_pair<A> pair_of(A dot, A dp, A lse, A delta, uint64_t mask,
                                const am_attention_shape &x)
{
    A y = plain_score(dot, x), p = exp(y - lse), cap = (A)x.softcap, keep = 1;
    if (x.dropout_p > 0)
        keep = am_kept(x, mask) ? (A)(1 / (1 - x.dropout_p)) : 0;
    A ds = p * (dp * keep - delta);
    if (cap > 0)
        ds *= 1 - (y / cap) * (y / cap);
    return {p * keep, ds};
}

template <class A>
__global__ void __launch_bounds__(NT, 2)
    attention_plain_dq_kernel(am_attention_bwd_args a, int tiles)
{
    AM_SHARED(plain_shared<A>, shared, [1]);
    AM_SHARED(am_query_rows<BM>, rows, [1]);
    plain_shared<A> &m = shared[0];
    const am_attention_shape &x = a.shape;
    int first = (int)(blockIdx.x % tiles) * BM;
    int64_t head = blockIdx.x / tiles % x.h, b = blockIdx.x / tiles / x.h, c0 = blockIdx.y * OUT<A>;
    int64_t kv_head = head / (x.h / x.kh), stat = (b * x.h + head) * x.t + first;
    int64_t k0 = b * x.k_batch + kv_head * x.k_head, v0 = b * x.v_batch + kv_head * x.v_head;
    int64_t out_at = ((b * x.t + first) * x.h + head) * x.d;
    int used = (int)min((int64_t)BM, x.t - first);
    int down = threadIdx.x / ACROSS, across = threadIdx.x % ACROSS;
    plain_rows q = {a.q, b * x.q_batch + first * x.q_token + head * x.q_head, x.q_token, used};
    plain_rows dout = {a.dout, out_at, x.h * x.d, used};
    plain_sum<A> dq;
    plain_clear(dq);

    am_query_rows_set(rows[0], x, a.bounds, b, first);
    __syncthreads();
    am_key_walk w = {0, 0, 0, 0};
    for (bool more = am_walk_segment<BN>(w, rows[0]); more; more = am_walk_next<BN>(w, rows[0])) {
        A s[RI][CJ], dp[RI][CJ];
        plain_rows k = {a.k, k0 + w.key * x.k_token, x.k_token, w.high - w.key};
        plain_rows v = {a.v, v0 + w.key * x.v_token, x.v_token, w.high - w.key};
        plain_dot(s, m, q, k, x);
        plain_dot(dp, m, dout, v, x);
#pragma unroll
        for (int i = 0; i < RI; i++) {
            int r = down + DOWN * i;
            bool in = r >= w.row0 && r < w.row1;
            int low = rows[0].start[r] - w.key, high = in ? rows[0].end[r] - w.key : 0;
            uint64_t mask = am_mask_row(x, b, head, first + r) + (uint64_t)w.key;
#pragma unroll
            for (int j = 0; j < CJ; j++) {
                int c = across + ACROSS * j;
                A ds = 0;
                if (c >= low && c < high)
                    ds = pair_of(s[i][j], dp[i][j], ((const A *)a.lse)[stat + r],
                                 ((const A *)a.delta)[stat + r], mask + c, x)
                             .ds;
                m.p[r][c] = ds;
            }
        }
        plain_add(dq, m, k, x, c0); /* which begins with a barrier */
        __syncthreads();
    }
    plain_store(dq, a.dq, out_at, x.h * x.d, used, (const A *)NULL, (A)x.scale, x, c0);
}

/* The rows of a tile are keys here, the columns queries. */
template <class A>
__global__ void __launch_bounds__(NT, 2)
    attention_plain_dkv_kernel(am_attention_bwd_args a, am_query_tiles plan, int tiles)
{
    AM_SHARED(plain_shared<A>, shared, [1]);
    plain_shared<A> &m = shared[0];
    const am_attention_shape &x = a.shape;
    int first = (int)(blockIdx.x % tiles) * BM;
    int64_t kv_head = blockIdx.x / tiles % x.kh, b = blockIdx.x / tiles / x.kh;
    int64_t group = x.h / x.kh, c0 = blockIdx.y * OUT<A>;
    int64_t out_at = ((b * x.s + first) * x.kh + kv_head) * x.d;
    int used = (int)min((int64_t)BM, x.s - first);
    int down = threadIdx.x / ACROSS, across = threadIdx.x % ACROSS;
    plain_rows k = {a.k, b * x.k_batch + first * x.k_token + kv_head * x.k_head, x.k_token, used};
    plain_rows v = {a.v, b * x.v_batch + first * x.v_token + kv_head * x.v_head, x.v_token, used};
    plain_sum<A> dk, dv;
    plain_clear(dk);
    plain_clear(dv);

    am_tile_walk w = am_tiles_begin(plan, x, b, group);
    while (am_tiles_next(w, first, first + used)) {
        am_query_tile tile = w.tile;
        int64_t head = kv_head * group + w.head;
        int64_t stat = (b * x.h + head) * x.t + tile.first;
        plain_rows q = {a.q, b * x.q_batch + tile.first * x.q_token + head * x.q_head, x.q_token,
                        tile.count};
        plain_rows dout = {a.dout, ((b * x.t + tile.first) * x.h + head) * x.d, x.h * x.d,
                           tile.count};
        A s[RI][CJ], dp[RI][CJ];
        plain_dot(s, m, k, q, x);
        plain_dot(dp, m, v, dout, x);
#pragma unroll
        for (int j = 0; j < CJ; j++) {
            int c = across + ACROSS * j;
            am_key_range sees = {0, 0, 0};
            A lse = 0, delta = 0;
            if (c < tile.count) {
                sees = am_keys_of(x, a.bounds, b, tile.first + c);
                lse = ((const A *)a.lse)[stat + c];
                delta = ((const A *)a.delta)[stat + c];
            }
            uint64_t mask = am_mask_row(x, b, head, tile.first + c);
#pragma unroll
            for (int i = 0; i < RI; i++) {
                int key = first + down + DOWN * i;
                plain_pair<A> pair = {0, 0};
                if (key >= sees.start && key < sees.end && key < first + used)
                    pair = pair_of(s[i][j], dp[i][j], lse, delta, mask + key, x);
                m.p[down + DOWN * i][c] = pair.p;
                s[i][j] = pair.ds;
            }
        }
        plain_add(dv, m, dout, x, c0);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < RI; i++)
#pragma unroll
            for (int j = 0; j < CJ; j++)
                m.p[down + DOWN * i][across + ACROSS * j] = s[i][j];
        plain_add(dk, m, q, x, c0);
        __syncthreads();
    }
    plain_store(dk, a.dk, out_at, x.kh * x.d, used, (const A *)NULL, (A)x.scale, x, c0);
    plain_store(dv, a.dv, out_at, x.kh * x.d, used, (const A *)NULL, (A)1, x, c0);
}

template <class A>
static int backward(am_stream *s, const am_attention_bwd_args *a, am_query_tiles plan)
{
    const am_attention_shape *x = &a->shape;
    int q_tiles = (int)((x->t + BM - 1) / BM), k_tiles = (int)((x->s + BM - 1) / BM);
    if (q_tiles) {
        AM_LAUNCH(attention_plain_dq_kernel<A>, plain_grid<A>(q_tiles, x, x->h), NT, 0, s->stream,
                  *a, q_tiles);
        int rc = am_cuda_launched(s, "attention_plain_dq");
        if (rc != AM_OK)
            return rc;
    }
    if (k_tiles)
        AM_LAUNCH(attention_plain_dkv_kernel<A>, plain_grid<A>(k_tiles, x, x->kh), NT, 0, s->stream,
                  *a, plan, k_tiles);
    return am_cuda_launched(s, "attention_plain_dkv");
}

int am_attention_plain_bwd(am_stream *s, const am_attention_bwd_args *a, am_query_tiles plan)
{
    return a->shape.dtype == AM_F64 ? backward<double>(s, a, plan) : backward<float>(s, a, plan);
}
