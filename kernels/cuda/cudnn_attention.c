/* cudnn_attention.c — see cudnn_attention.h. cuDNN has no attention by name that every version
 * knows: it recognises graphs of products, masks and softmax. So the order of operations here is
 * the one that its engines look for. */
#include "cudnn_attention.h"

#include "dtype.h"

/* A backward pass that is the same in every bit stores the gradients of scores; the scores of 32
 * heads and 4096 tokens are 1 GiB. */
#define MOST_WORKSPACE ((int64_t)5 << 28)

typedef struct sizes {
    int64_t q[4], k[4], kt[4], scores[4], rows[4];
    int64_t scores_stride[4], turned_stride[4], rows_stride[4];
} sizes;

typedef struct builder {
    am_dnn_graph *g;
    const am_dnn_attention *a;
    sizes n;
    int io;
    am_dnn_tensor none, scale, lowest, lengths, offset[AM_DNN_UIDS];
} builder;

#define DIMS(name, w, x, y, z)                                                                     \
    do {                                                                                           \
        (name)[0] = (w);                                                                           \
        (name)[1] = (x);                                                                           \
        (name)[2] = (y);                                                                           \
        (name)[3] = (z);                                                                           \
    } while (0)

static const int64_t one[4] = {1, 1, 1, 1};

static void begin(builder *m, am_dnn_graph *g, const am_dnn_attention *a)
{
    sizes *n = &m->n;
    *m = (builder){.g = g, .a = a};
    m->io = a->dtype == AM_BF16 ? AM_DNN_DATA_BFLOAT16 : AM_DNN_DATA_HALF;
    DIMS(n->q, a->places, a->h, a->t, a->d);
    DIMS(n->k, a->places, a->kh, a->t, a->d);
    DIMS(n->kt, a->places, a->kh, a->d, a->t);
    DIMS(n->scores, a->places, a->h, a->t, a->t);
    DIMS(n->rows, a->places, a->h, a->t, 1);
    DIMS(n->scores_stride, a->h * a->t * a->t, a->t * a->t, a->t, 1);
    DIMS(n->turned_stride, a->h * a->t * a->t, a->t * a->t, 1, a->t);
    DIMS(n->rows_stride, a->h * a->t, a->t, 1, 1);
    m->scale = am_dnn_value(g, AM_DNN_SCALE, AM_DNN_DATA_FLOAT);
    m->lowest = am_dnn_value(g, AM_DNN_LOWEST, AM_DNN_DATA_FLOAT);
    m->lengths = am_dnn_memory(g, AM_DNN_LENGTHS, AM_DNN_DATA_INT32,
                               (int64_t[]){a->places, 1, 1, 1}, one, m->none);
    for (int i = AM_DNN_OFFSET_Q; i <= (a->backward ? AM_DNN_OFFSET_DKV : AM_DNN_OFFSET_STATS); i++)
        m->offset[i] = am_dnn_memory(g, i, AM_DNN_DATA_INT64, (int64_t[]){a->places + 1, 1, 1, 1},
                                     one, m->none);
}

/* [places, heads, t, d] over strides of token and head. An offset takes the place of the first
 * dim's stride. */
static am_dnn_tensor operand(builder *m, int uid, const int64_t dim[4], const int64_t stride[2],
                             int offset)
{
    int64_t strides[4] = {dim[2] * stride[0], stride[1], stride[0], 1};
    return am_dnn_memory(m->g, uid, m->io, dim, strides, m->offset[offset]);
}

/* k or v with its last two dims changed. */
static am_dnn_tensor turned(builder *m, int uid, const int64_t stride[2], int offset)
{
    int64_t strides[4] = {m->a->t * stride[0], stride[1], 1, stride[0]};
    return am_dnn_memory(m->g, uid, m->io, m->n.kt, strides, m->offset[offset]);
}

static am_dnn_tensor dense(builder *m, int uid, const int64_t dim[4], int offset)
{
    return operand(m, uid, dim, (int64_t[]){dim[1] * dim[3], dim[3]}, offset);
}

static am_dnn_tensor stats(builder *m)
{
    int64_t strides[4] = {m->a->h * m->a->t, 1, m->a->h, 1};
    return am_dnn_memory(m->g, AM_DNN_STATS, AM_DNN_DATA_FLOAT, m->n.rows, strides,
                         m->offset[AM_DNN_OFFSET_STATS]);
}

static am_dnn_tensor scores(builder *m, int dtype)
{
    return am_dnn_between(m->g, dtype, m->n.scores, m->n.scores_stride, m->none);
}

static am_dnn_tensor rows(builder *m)
{
    return am_dnn_between(m->g, AM_DNN_DATA_FLOAT, m->n.rows, m->n.rows_stride, m->none);
}

/* mode(x, y) of the size of the scores. */
static am_dnn_tensor apply(builder *m, int mode, am_dnn_tensor x, am_dnn_tensor y)
{
    am_dnn_tensor out = scores(m, AM_DNN_DATA_FLOAT);
    am_dnn_pointwise(m->g, mode, AM_DNN_DATA_FLOAT, x, y, out);
    return out;
}

static am_dnn_tensor compare(builder *m, int mode, am_dnn_tensor x, am_dnn_tensor y)
{
    am_dnn_tensor out = scores(m, AM_DNN_DATA_BOOLEAN);
    am_dnn_pointwise(m->g, mode, AM_DNN_DATA_BOOLEAN, x, y, out);
    return out;
}

static am_dnn_tensor index_of(builder *m, int axis, int compute, am_dnn_tensor x)
{
    am_dnn_tensor out = scores(m, AM_DNN_DATA_INT32);
    am_dnn_index(m->g, axis, compute, x, out);
    return out;
}

/* x where it is seen, else -inf. */
static am_dnn_tensor masked(builder *m, am_dnn_tensor x, am_dnn_tensor seen)
{
    am_dnn_tensor out = scores(m, AM_DNN_DATA_FLOAT);
    am_dnn_select(m->g, x, m->lowest, seen, out);
    return out;
}

/* Of each sample only its own rows and columns count. */
static am_dnn_tensor padding(builder *m, am_dnn_tensor x)
{
    am_dnn_tensor row = index_of(m, 2, AM_DNN_DATA_INT32, x);
    am_dnn_tensor column = index_of(m, 3, AM_DNN_DATA_INT32, x);
    am_dnn_tensor is_row = compare(m, AM_DNN_POINTWISE_CMP_LT, row, m->lengths);
    am_dnn_tensor is_column = compare(m, AM_DNN_POINTWISE_CMP_LT, column, m->lengths);
    return masked(m, x, compare(m, AM_DNN_POINTWISE_LOGICAL_AND, is_row, is_column));
}

/* Causal and window, from the upper left corner, which is ours where there are as many keys as
 * queries. */
static am_dnn_tensor band(builder *m, am_dnn_tensor x)
{
    if (m->a->causal) {
        am_dnn_tensor row = index_of(m, 2, AM_DNN_DATA_FLOAT, x);
        am_dnn_tensor column = index_of(m, 3, AM_DNN_DATA_FLOAT, x);
        x = masked(m, x, compare(m, AM_DNN_POINTWISE_CMP_GE, row, column));
    }
    if (m->a->window) {
        am_dnn_tensor row = index_of(m, 2, AM_DNN_DATA_FLOAT, x);
        am_dnn_tensor column = index_of(m, 3, AM_DNN_DATA_FLOAT, x);
        am_dnn_tensor width = am_dnn_value(m->g, AM_DNN_WINDOW, AM_DNN_DATA_FLOAT);
        am_dnn_tensor reach = apply(m, AM_DNN_POINTWISE_ADD, column, width);
        x = masked(m, x, compare(m, AM_DNN_POINTWISE_CMP_GT, reach, row));
    }
    return x;
}

/* q k^T scale; what is no score of a sample is -inf. */
static am_dnn_tensor scaled_scores(builder *m, am_dnn_tensor q, am_dnn_tensor kt)
{
    am_dnn_tensor s = scores(m, AM_DNN_DATA_FLOAT);
    am_dnn_matmul(m->g, q, kt, s, (am_dnn_extent){.m = m->lengths, .n = m->lengths});
    return padding(m, apply(m, AM_DNN_POINTWISE_MUL, s, m->scale));
}

/* ---- forward -------------------------------------------------------------------------------- */

static void forward(builder *m)
{
    const am_dnn_attention *a = m->a;
    am_dnn_graph *g = m->g;
    int f32 = AM_DNN_DATA_FLOAT;
    am_dnn_tensor q = operand(m, AM_DNN_Q, m->n.q, a->q, AM_DNN_OFFSET_Q);
    am_dnn_tensor kt = turned(m, AM_DNN_K, a->k, AM_DNN_OFFSET_K);
    am_dnn_tensor v = operand(m, AM_DNN_V, m->n.k, a->v, AM_DNN_OFFSET_V);
    am_dnn_tensor out = dense(m, AM_DNN_OUT, m->n.q, AM_DNN_OFFSET_OUT);
    am_dnn_tensor s = band(m, scaled_scores(m, q, kt));

    am_dnn_tensor top = rows(m), sum = rows(m), log_sum = rows(m), lse = stats(m);
    am_dnn_reduce(g, AM_DNN_REDUCE_TENSOR_MAX, s, top);
    am_dnn_tensor e =
        apply(m, AM_DNN_POINTWISE_EXP, apply(m, AM_DNN_POINTWISE_SUB, s, top), m->none);
    am_dnn_reduce(g, AM_DNN_REDUCE_TENSOR_ADD, e, sum);
    am_dnn_pointwise(g, AM_DNN_POINTWISE_LOG, f32, sum, m->none, log_sum);
    am_dnn_pointwise(g, AM_DNN_POINTWISE_ADD, f32, top, log_sum, lse);
    am_dnn_tensor p = scores(m, m->io);
    am_dnn_pointwise(g, AM_DNN_POINTWISE_DIV, f32, e, sum, p);
    am_dnn_matmul(g, p, v, out, (am_dnn_extent){.m = m->lengths, .k = m->lengths});
}

/* ---- backward ------------------------------------------------------------------------------- */

/* Scores with their last two dims changed, rounded for a product. */
static am_dnn_tensor transposed(builder *m, am_dnn_tensor x)
{
    am_dnn_tensor y = am_dnn_between(m->g, m->io, m->n.scores, m->n.turned_stride, m->none);
    am_dnn_reshape(m->g, x, y);
    return y;
}

/* A gradient of keys or values: x y, summed over the heads that share them. */
static void key_gradient(builder *m, am_dnn_tensor x, am_dnn_tensor y, int uid)
{
    const am_dnn_attention *a = m->a;
    am_dnn_tensor out = dense(m, uid, m->n.k, AM_DNN_OFFSET_DKV), full = out;
    if (a->h != a->kh)
        full = am_dnn_between(m->g, m->io, m->n.q,
                              (int64_t[]){a->h * a->t * a->d, a->t * a->d, a->d, 1}, m->none);
    am_dnn_matmul(m->g, x, y, full, (am_dnn_extent){.m = m->lengths, .k = m->lengths});
    if (a->h != a->kh)
        am_dnn_reduce(m->g, AM_DNN_REDUCE_TENSOR_ADD, full, out);
}

static void backward(builder *m)
{
    const am_dnn_attention *a = m->a;
    am_dnn_graph *g = m->g;
    int f32 = AM_DNN_DATA_FLOAT;
    am_dnn_tensor q = operand(m, AM_DNN_Q, m->n.q, a->q, AM_DNN_OFFSET_Q);
    am_dnn_tensor kt = turned(m, AM_DNN_K, a->k, AM_DNN_OFFSET_K);
    am_dnn_tensor vt = turned(m, AM_DNN_V, a->v, AM_DNN_OFFSET_V);
    am_dnn_tensor out = dense(m, AM_DNN_OUT, m->n.q, AM_DNN_OFFSET_OUT);
    am_dnn_tensor dout = dense(m, AM_DNN_DOUT, m->n.q, AM_DNN_OFFSET_OUT);
    am_dnn_tensor unit = am_dnn_value(g, AM_DNN_ONE, f32);

    int64_t by_head[4] = {a->h * a->t * a->d, a->t * a->d, a->h * a->d, 1};
    am_dnn_tensor product = am_dnn_between(g, f32, m->n.q, by_head, m->none), sum = rows(m);
    am_dnn_tensor delta = am_dnn_memory(g, AM_DNN_DELTA, f32, m->n.rows, m->n.rows_stride, m->none);
    am_dnn_pointwise(g, AM_DNN_POINTWISE_MUL, f32, dout, out, product);
    am_dnn_reduce(g, AM_DNN_REDUCE_TENSOR_ADD, product, sum);
    am_dnn_pointwise(g, AM_DNN_POINTWISE_MUL, f32, sum, unit, delta);

    am_dnn_tensor s = apply(m, AM_DNN_POINTWISE_SUB, scaled_scores(m, q, kt), stats(m));
    am_dnn_tensor p = apply(m, AM_DNN_POINTWISE_EXP, band(m, s), m->none);
    key_gradient(m, transposed(m, p), dout, AM_DNN_DV);

    am_dnn_tensor dp = scores(m, f32);
    am_dnn_matmul(g, dout, vt, dp, (am_dnn_extent){.m = m->lengths, .n = m->lengths});
    dp = apply(m, AM_DNN_POINTWISE_SUB, dp, delta);
    am_dnn_tensor ds =
        apply(m, AM_DNN_POINTWISE_MUL, apply(m, AM_DNN_POINTWISE_MUL, dp, p), m->scale);
    key_gradient(m, transposed(m, ds), q, AM_DNN_DK);

    int64_t k_stride[4] = {a->t * a->k[0], a->k[1], a->k[0], 1};
    am_dnn_tensor k = am_dnn_between(g, m->io, m->n.k, k_stride, m->offset[AM_DNN_OFFSET_K]);
    am_dnn_reshape(g, kt, k);
    am_dnn_matmul(g, ds, k, dense(m, AM_DNN_DQ, m->n.q, AM_DNN_OFFSET_OUT),
                  (am_dnn_extent){.m = m->lengths, .k = m->lengths});
}

/* ---- plans ---------------------------------------------------------------------------------- */

int am_dnn_attention_plan(am_dnn_graph *g, const am_dnn_attention *a, am_dnn_target target,
                          am_dnn_plan *plan)
{
    builder m;
    begin(&m, g, a);
    if (a->backward)
        backward(&m);
    else
        forward(&m);
    return am_dnn_plan_new(g, target, MOST_WORKSPACE, plan);
}

int am_dnn_attention_listed(const am_dnn_attention *a, int capability)
{
    if (a->d % 8 != 0)
        return 0;
#define LISTED(sm, is_backward, most)                                                              \
    if (capability == (sm) && a->backward == (is_backward) && a->d <= (most))                      \
        return 1;
#include "cudnn_table.def"
#undef LISTED
    return 0;
}
