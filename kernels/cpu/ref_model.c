/* ref_model.c — reference kernels of the decoder: matrix products, RMSNorm, LayerNorm, rotary
 * embedding, gated units and cross-entropy, with their gradients. Attention is in ref_attention.c.
 */
#include "ref.h"

/* ---- matrix product ---------------------------------------------------------------------- */

AM_INLINE int gemm_float(const am_gemm_args *args, int dtype)
{
    int64_t a_row = args->trans_a ? 1 : args->lda, a_k = args->trans_a ? args->lda : 1;
    int64_t b_col = args->trans_b ? args->ldb : 1, b_k = args->trans_b ? 1 : args->ldb;
    for (int64_t z = 0; z < args->batch; z++) {
        for (int64_t i = 0; i < args->m; i++) {
            for (int64_t j = 0; j < args->n; j++) {
                int64_t a = z * args->stride_a + i * a_row, b = z * args->stride_b + j * b_col;
                int64_t c = z * args->stride_c + i * args->ldc + j;
                double sum = 0;
                for (int64_t k = 0; k < args->k; k++)
                    sum += load(args->a, dtype, a + k * a_k) * load(args->b, dtype, b + k * b_k);
                sum *= args->alpha;
                if (args->bias)
                    sum += load(args->bias, dtype, j);
                for (int64_t k = 0; args->u && k < args->r; k++)
                    sum += load(args->u, dtype, i * args->r + k) *
                           load(args->v, dtype, args->trans_b ? j * args->r + k : k * args->n + j);
                if (args->accumulate)
                    sum += load(args->c, args->dtype_c, c);
                store(args->c, args->dtype_c, c, sum);
            }
        }
    }
    return AM_OK;
}

int am_ref_gemm(am_stream *s, const am_gemm_args *args)
{
    (void)s;
    int half = args->dtype_ab == AM_BF16 || args->dtype_ab == AM_F16;
    if (args->dtype_c != args->dtype_ab && !(half && args->dtype_c == AM_F32))
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype_ab, gemm_float, args)
}

int am_ref_gemv(am_stream *s, const am_gemv_args *args)
{
    return am_ref_gemm(s, &(am_gemm_args){.c = args->y,
                                          .a = args->x,
                                          .b = args->w,
                                          .bias = args->bias,
                                          .dtype_ab = args->dtype,
                                          .dtype_c = args->dtype,
                                          .trans_b = 1,
                                          .accumulate = args->accumulate,
                                          .alpha = args->alpha,
                                          .m = args->rows,
                                          .n = args->n,
                                          .k = args->k,
                                          .lda = args->k,
                                          .ldb = args->k,
                                          .ldc = args->n,
                                          .batch = 1});
}

AM_INLINE int low_rank_float(const am_low_rank_args *args, int dtype)
{
    int64_t k = args->k, r = args->r, step = args->turned ? r : 1, next = args->turned ? 1 : k;
    for (int64_t q = 0; q < r; q++) {
        for (int64_t i = 0; args->u && i < args->m; i++) {
            double sum = 0;
            for (int64_t j = 0; j < k; j++)
                sum += load(args->a, dtype, i * k + j) * load(args->p, dtype, q * next + j * step);
            store(args->u, dtype, i * r + q, sum * args->scale);
        }
        for (int64_t j = 0; args->g && j < k; j++) {
            double sum = 0;
            for (int64_t i = 0; i < args->m; i++)
                sum += load(args->t, dtype, i * r + q) * load(args->a, dtype, i * k + j);
            int64_t at = q * next + j * step;
            store(args->g, args->dtype_g, at,
                  args->accumulate ? sum + load(args->g, args->dtype_g, at) : sum);
        }
    }
    return AM_OK;
}

int am_ref_low_rank(am_stream *s, const am_low_rank_args *args)
{
    (void)s;
    if (args->dtype_g != args->dtype && args->dtype_g != AM_F32)
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, low_rank_float, args)
}

/* ---- RMSNorm ----------------------------------------------------------------------------- */

AM_INLINE int rms_norm_float(const am_rms_norm_args *args, int dtype)
{
    int64_t c = args->c;
    for (int64_t r = 0; r < args->rows; r++) {
        double sum = 0;
        for (int64_t i = 0; i < c; i++) {
            double x = load(args->x, dtype, r * c + i);
            sum += x * x;
        }
        double rstd = 1.0 / sqrt(sum / (double)c + args->eps);
        if (args->rstd)
            store(args->rstd, stat_dtype(dtype), r, rstd);
        for (int64_t i = 0; i < c; i++)
            store(args->out, dtype, r * c + i,
                  load(args->x, dtype, r * c + i) * rstd *
                      (args->offset + load(args->weight, dtype, i)));
    }
    return AM_OK;
}

int am_ref_rms_norm(am_stream *s, const am_rms_norm_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->dtype, rms_norm_float, args)
}

/* With n = x rstd and g = dout (offset + weight): dx = rstd (g - n mean(g n)), dweight = sum of
 * dout n. */
AM_INLINE int rms_norm_bwd_float(const am_rms_norm_bwd_args *args, int dtype)
{
    int64_t c = args->c;
    for (int64_t r = 0; args->dx && r < args->rows; r++) {
        double rstd = load(args->rstd, stat_dtype(dtype), r), mean = 0;
        for (int64_t i = 0; i < c; i++)
            mean += load(args->dout, dtype, r * c + i) *
                    (args->offset + load(args->weight, dtype, i)) *
                    load(args->x, dtype, r * c + i) * rstd;
        mean /= (double)c;
        for (int64_t i = 0; i < c; i++) {
            int64_t at = r * c + i;
            double g = load(args->dout, dtype, at) * (args->offset + load(args->weight, dtype, i));
            double d = rstd * (g - load(args->x, dtype, at) * rstd * mean);
            store(args->dx, dtype, at, args->accumulate_dx ? load(args->dx, dtype, at) + d : d);
        }
    }
    for (int64_t i = 0; args->dweight && i < c; i++) {
        double sum = args->accumulate_dw ? load(args->dweight, args->dtype_dw, i) : 0;
        for (int64_t r = 0; r < args->rows; r++)
            sum += load(args->dout, dtype, r * c + i) * load(args->x, dtype, r * c + i) *
                   load(args->rstd, stat_dtype(dtype), r);
        store(args->dweight, args->dtype_dw, i, sum);
    }
    return AM_OK;
}

int am_ref_rms_norm_bwd(am_stream *s, const am_rms_norm_bwd_args *args)
{
    (void)s;
    if (args->dweight && !is_float(args->dtype_dw))
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, rms_norm_bwd_float, args)
}

/* ---- LayerNorm --------------------------------------------------------------------------- */

AM_INLINE double weight_at(const void *weight, int dtype, double offset, int64_t i)
{
    return weight ? offset + load(weight, dtype, i) : 1;
}

AM_INLINE int layer_norm_float(const am_layer_norm_args *args, int dtype)
{
    int64_t c = args->c;
    for (int64_t r = 0; r < args->rows; r++) {
        double mean = 0, var = 0;
        for (int64_t i = 0; i < c; i++)
            mean += load(args->x, dtype, r * c + i);
        mean /= (double)c;
        for (int64_t i = 0; i < c; i++) {
            double d = load(args->x, dtype, r * c + i) - mean;
            var += d * d;
        }
        double rstd = 1.0 / sqrt(var / (double)c + args->eps);
        if (args->stats) {
            store(args->stats, stat_dtype(dtype), r, mean);
            store(args->stats, stat_dtype(dtype), args->rows + r, rstd);
        }
        for (int64_t i = 0; i < c; i++) {
            double y = (load(args->x, dtype, r * c + i) - mean) * rstd *
                       weight_at(args->weight, dtype, args->offset, i);
            store(args->out, dtype, r * c + i, args->bias ? y + load(args->bias, dtype, i) : y);
        }
    }
    return AM_OK;
}

int am_ref_layer_norm(am_stream *s, const am_layer_norm_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->dtype, layer_norm_float, args)
}

/* With n = (x - mean) rstd and g = dout (offset + weight):
 *   dx = rstd (g - mean(g) - n mean(g n)), dweight = sum of dout n, dbias = sum of dout. */
AM_INLINE int layer_norm_bwd_float(const am_layer_norm_bwd_args *args, int dtype)
{
    int64_t c = args->c;
    int stat = stat_dtype(dtype);
    for (int64_t r = 0; args->dx && r < args->rows; r++) {
        double mean = load(args->stats, stat, r), rstd = load(args->stats, stat, args->rows + r);
        double g_mean = 0, gn_mean = 0;
        for (int64_t i = 0; i < c; i++) {
            double g = load(args->dout, dtype, r * c + i) *
                       weight_at(args->weight, dtype, args->offset, i);
            g_mean += g;
            gn_mean += g * (load(args->x, dtype, r * c + i) - mean) * rstd;
        }
        g_mean /= (double)c;
        gn_mean /= (double)c;
        for (int64_t i = 0; i < c; i++) {
            int64_t at = r * c + i;
            double g =
                load(args->dout, dtype, at) * weight_at(args->weight, dtype, args->offset, i);
            double n = (load(args->x, dtype, at) - mean) * rstd;
            double d = rstd * (g - g_mean - n * gn_mean);
            store(args->dx, dtype, at, args->accumulate_dx ? load(args->dx, dtype, at) + d : d);
        }
    }
    for (int64_t i = 0; i < c; i++) {
        double weight = 0, bias = 0;
        for (int64_t r = 0; r < args->rows; r++) {
            double dout = load(args->dout, dtype, r * c + i);
            weight += dout * (load(args->x, dtype, r * c + i) - load(args->stats, stat, r)) *
                      load(args->stats, stat, args->rows + r);
            bias += dout;
        }
        if (args->dweight) {
            weight += args->accumulate_dw ? load(args->dweight, args->dtype_dw, i) : 0;
            store(args->dweight, args->dtype_dw, i, weight);
        }
        if (args->dbias) {
            bias += args->accumulate_db ? load(args->dbias, args->dtype_db, i) : 0;
            store(args->dbias, args->dtype_db, i, bias);
        }
    }
    return AM_OK;
}

int am_ref_layer_norm_bwd(am_stream *s, const am_layer_norm_bwd_args *args)
{
    (void)s;
    if ((args->dweight && !is_float(args->dtype_dw)) || (args->dbias && !is_float(args->dtype_db)))
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, layer_norm_bwd_float, args)
}

/* ---- rotary embedding -------------------------------------------------------------------- */

int am_ref_rope_table(am_stream *s, const am_rope_table_args *args)
{
    (void)s;
    for (int64_t i = 0; i < args->n; i++) {
        for (int64_t j = 0; j < args->half; j++) {
            float angle = (float)args->pos[i] * args->inv_freq[j];
            float *row = args->out + i * 2 * args->half;
            row[j] = (float)(cos((double)angle) * args->scaling);
            row[args->half + j] = (float)(sin((double)angle) * args->scaling);
        }
    }
    return AM_OK;
}

AM_INLINE int rope_float(const am_rope_args *args, int dtype)
{
    int64_t half = args->r / 2;
    for (int64_t row = 0; row < args->b * args->t; row++) {
        const float *table = args->table + (args->table_batched ? row : row % args->t) * args->r;
        for (int64_t h = 0; h < args->h; h++) {
            int64_t base = (row * args->h + h) * args->d;
            for (int64_t i = 0; i < half; i++) {
                int64_t p = base + (args->interleaved ? 2 * i : i);
                int64_t q = base + (args->interleaved ? 2 * i + 1 : i + half);
                double x = load(args->x, dtype, p), y = load(args->x, dtype, q);
                double cosine = (double)table[i];
                double sine = (double)(args->inverse ? -table[half + i] : table[half + i]);
                store(args->out, dtype, p, x * cosine - y * sine);
                store(args->out, dtype, q, y * cosine + x * sine);
            }
            for (int64_t i = args->r; i < args->d; i++)
                store(args->out, dtype, base + i, load(args->x, dtype, base + i));
        }
    }
    return AM_OK;
}

int am_ref_rope(am_stream *s, const am_rope_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->dtype, rope_float, args)
}

/* ---- gated units ------------------------------------------------------------------------- */

AM_INLINE int glu_float(const am_glu_args *args, int dtype)
{
    for (int64_t i = 0; i < args->n; i++)
        store(args->out, dtype, i,
              ref_act(args->act, load(args->gate, dtype, i)) * load(args->up, dtype, i));
    return AM_OK;
}

int am_ref_glu(am_stream *s, const am_glu_args *args)
{
    (void)s;
    if (args->act < 0 || args->act >= AM_ACT_COUNT)
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, glu_float, args)
}

AM_INLINE int glu_bwd_float(const am_glu_bwd_args *args, int dtype)
{
    for (int64_t i = 0; i < args->n; i++) {
        double gate = load(args->gate, dtype, i), up = load(args->up, dtype, i);
        double dout = load(args->dout, dtype, i);
        if (args->dgate)
            store(args->dgate, dtype, i, dout * up * ref_act_grad(args->act, gate));
        if (args->dup)
            store(args->dup, dtype, i, dout * ref_act(args->act, gate));
    }
    return AM_OK;
}

int am_ref_glu_bwd(am_stream *s, const am_glu_bwd_args *args)
{
    (void)s;
    if (args->act < 0 || args->act >= AM_ACT_COUNT)
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, glu_bwd_float, args)
}

/* ---- cross-entropy ----------------------------------------------------------------------- */

AM_INLINE double soft_cap(double x, double cap)
{
    return cap > 0 ? cap * tanh(x / cap) : x;
}

/* Reads row r's label; *ignored is set where the row does not count. */
static int label_at(const void *labels, int dtype, int64_t r, int64_t ignore, int64_t v,
                    int64_t *label, int *ignored)
{
    *label = load_int(labels, dtype, r);
    *ignored = *label == ignore;
    if (*ignored || (*label >= 0 && *label < v))
        return AM_OK;
    return am_kernel_fail(AM_EINVAL, "cross_entropy: label %lld of row %lld is outside 0..%lld",
                          (long long)*label, (long long)r, (long long)(v - 1));
}

/* Row r of dlogits; with y = cap tanh(x / cap): dy/dx = 1 - (y / cap)^2. */
AM_INLINE void dlogits_row(void *to, int dtype_to, const void *logits, int dtype, int64_t r,
                           int64_t v, int64_t label, int ignored, double cap, double lse,
                           double dloss)
{
    for (int64_t i = 0; i < v; i++) {
        double y = soft_cap(load(logits, dtype, r * v + i), cap), d = 0;
        if (!ignored) {
            d = dloss * (exp(y - lse) - (i == label));
            if (cap > 0)
                d *= 1.0 - (y / cap) * (y / cap);
        }
        store(to, dtype_to, r * v + i, d);
    }
}

AM_INLINE int cross_entropy_float(const am_cross_entropy_args *args, int dtype)
{
    int64_t v = args->v;
    for (int64_t r = 0; r < args->rows; r++) {
        int64_t label;
        int ignored;
        int rc = label_at(args->labels, args->dtype_labels, r, args->ignore, v, &label, &ignored);
        if (rc != AM_OK)
            return rc;
        double max = -INFINITY, sum = 0;
        for (int64_t i = 0; i < v; i++) {
            double x = soft_cap(load(args->logits, dtype, r * v + i), args->softcap);
            max = x > max ? x : max;
        }
        for (int64_t i = 0; i < v; i++)
            sum += exp(soft_cap(load(args->logits, dtype, r * v + i), args->softcap) - max);
        double lse = max + log(sum), loss = 0;
        if (!ignored)
            loss = lse - soft_cap(load(args->logits, dtype, r * v + label), args->softcap);
        store(args->lse, stat_dtype(dtype), r, lse);
        store(args->loss, stat_dtype(dtype), r, loss);
        if (args->dlogits)
            dlogits_row(args->dlogits, args->dtype_dlogits, args->logits, dtype, r, v, label,
                        ignored, args->softcap, load(args->lse, stat_dtype(dtype), r), 1);
    }
    return AM_OK;
}

int am_ref_cross_entropy(am_stream *s, const am_cross_entropy_args *args)
{
    (void)s;
    if (args->dtype_labels != AM_I32 && args->dtype_labels != AM_I64)
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, cross_entropy_float, args)
}

AM_INLINE int cross_entropy_bwd_float(const am_cross_entropy_bwd_args *args, int dtype)
{
    double dloss = load(args->dloss, stat_dtype(dtype), 0);
    for (int64_t r = 0; r < args->rows; r++) {
        int64_t label;
        int ignored;
        int rc =
            label_at(args->labels, args->dtype_labels, r, args->ignore, args->v, &label, &ignored);
        if (rc != AM_OK)
            return rc;
        dlogits_row(args->dlogits, dtype, args->logits, dtype, r, args->v, label, ignored,
                    args->softcap, load(args->lse, stat_dtype(dtype), r), dloss);
    }
    return AM_OK;
}

int am_ref_cross_entropy_bwd(am_stream *s, const am_cross_entropy_bwd_args *args)
{
    (void)s;
    if (args->dtype_labels != AM_I32 && args->dtype_labels != AM_I64)
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, cross_entropy_bwd_float, args)
}
