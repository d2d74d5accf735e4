/* ref_optim.c — reference kernels over flat buffers: sum of squares, Adam, SGD and Lion
 * steps. */
#include "dynamic_map.h"
#include "ref.h"

AM_INLINE int sumsq_float(const am_sumsq_args *args, int dtype)
{
    double total = 0;
    for (int64_t first = 0; first < args->n; first += AM_SUMSQ_BLOCK) {
        int64_t end = first + AM_SUMSQ_BLOCK < args->n ? first + AM_SUMSQ_BLOCK : args->n;
        double sum = 0;
        for (int64_t i = first; i < end; i++) {
            double x = load(args->x, dtype, i);
            sum += x * x;
        }
        args->partial[first / AM_SUMSQ_BLOCK] = sum;
        total += sum;
    }
    *args->out = total;
    return AM_OK;
}

int am_ref_sumsq(am_stream *s, const am_sumsq_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->dtype, sumsq_float, args)
}

AM_INLINE void store_weight(void *param, float *master, int dtype, int64_t i, double p)
{
    if (master) {
        master[i] = (float)p;
        p = (double)master[i];
    }
    store(param, dtype, i, p);
}

/* Element i, whose moments are *m and *v; *vmax or NULL. */
AM_INLINE void adam_one(const am_adam_args *args, int dtype, int64_t i, double *m, double *v,
                        double *vmax)
{
    double p = args->master ? (double)args->master[i] : load(args->param, dtype, i);
    double g = load(args->grad, args->dtype_grad, i) * args->grad_scale;
    if (args->decoupled)
        p *= 1.0 - args->lr * args->weight_decay;
    else
        g += args->weight_decay * p;
    *m += (g - *m) * (1.0 - args->beta1);
    *v = args->beta2 * *v + (1.0 - args->beta2) * g * g;
    double under = *v;
    if (vmax)
        under = *vmax = *vmax > *v ? *vmax : *v;
    p -= args->lr / args->bias1 * *m / (sqrt(under) / sqrt(args->bias2) + args->eps);
    store_weight(args->param, args->master, dtype, i, p);
}

AM_INLINE int adam_float(const am_adam_args *args, int dtype)
{
    for (int64_t i = 0; i < args->n; i++) {
        double m = load(args->m, args->dtype_state, i), v = load(args->v, args->dtype_state, i);
        double vmax = args->vmax ? load(args->vmax, args->dtype_state, i) : 0;
        adam_one(args, dtype, i, &m, &v, args->vmax ? &vmax : NULL);
        if (args->vmax)
            store(args->vmax, args->dtype_state, i, vmax);
        store(args->m, args->dtype_state, i, m);
        store(args->v, args->dtype_state, i, v);
    }
    return AM_OK;
}

AM_INLINE int64_t block_length(int64_t n, int64_t first)
{
    return n - first < AM_STATE_BLOCK ? n - first : AM_STATE_BLOCK;
}

AM_INLINE int adam_codes(const am_adam_args *args, int dtype)
{
    const am_dynamic_map *with_sign = am_dynamic_map_signed();
    const am_dynamic_map *without = am_dynamic_map_unsigned();
    float m[AM_STATE_BLOCK], v[AM_STATE_BLOCK];
    for (int64_t first = 0, b = 0; first < args->n; first += AM_STATE_BLOCK, b++) {
        int64_t n = block_length(args->n, first);
        uint8_t *m_codes = (uint8_t *)args->m + first, *v_codes = (uint8_t *)args->v + first;
        am_from_codes(m, m_codes, args->m_absmax[b], n, with_sign);
        am_from_codes(v, v_codes, args->v_absmax[b], n, without);
        for (int64_t i = 0; i < n; i++) {
            double m_i = (double)m[i], v_i = (double)v[i];
            adam_one(args, dtype, first + i, &m_i, &v_i, NULL);
            m[i] = (float)m_i;
            v[i] = (float)v_i;
        }
        args->m_absmax[b] = am_to_codes(m_codes, m, n, with_sign);
        args->v_absmax[b] = am_to_codes(v_codes, v, n, without);
    }
    return AM_OK;
}

int am_ref_adam(am_stream *s, const am_adam_args *args)
{
    (void)s;
    if (!is_float(args->dtype_grad))
        return AM_EUNSUP;
    if (args->dtype_state == AM_U8)
        AM_DISPATCH_FLOAT(args->dtype, adam_codes, args)
    if (!is_float(args->dtype_state))
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, adam_float, args)
}

/* Element i, whose momentum is *buf; NULL without. */
AM_INLINE void sgd_one(const am_sgd_args *args, int dtype, int64_t i, double *buf)
{
    double p = args->master ? (double)args->master[i] : load(args->param, dtype, i);
    double g = load(args->grad, args->dtype_grad, i) * args->grad_scale;
    g += args->weight_decay * p;
    if (buf) {
        *buf = args->first ? g : args->momentum * *buf + (1.0 - args->dampening) * g;
        g = args->nesterov ? g + args->momentum * *buf : *buf;
    }
    p -= args->lr * g;
    store_weight(args->param, args->master, dtype, i, p);
}

AM_INLINE int sgd_float(const am_sgd_args *args, int dtype)
{
    for (int64_t i = 0; i < args->n; i++) {
        double buf = args->buf && !args->first ? load(args->buf, args->dtype_state, i) : 0;
        sgd_one(args, dtype, i, args->buf ? &buf : NULL);
        if (args->buf)
            store(args->buf, args->dtype_state, i, buf);
    }
    return AM_OK;
}

AM_INLINE int sgd_codes(const am_sgd_args *args, int dtype)
{
    const am_dynamic_map *map = am_dynamic_map_signed();
    float buf[AM_STATE_BLOCK];
    for (int64_t first = 0, b = 0; first < args->n; first += AM_STATE_BLOCK, b++) {
        int64_t n = block_length(args->n, first);
        uint8_t *codes = (uint8_t *)args->buf + first;
        am_from_codes(buf, codes, args->buf_absmax[b], n, map);
        for (int64_t i = 0; i < n; i++) {
            double buf_i = (double)buf[i];
            sgd_one(args, dtype, first + i, &buf_i);
            buf[i] = (float)buf_i;
        }
        args->buf_absmax[b] = am_to_codes(codes, buf, n, map);
    }
    return AM_OK;
}

int am_ref_sgd(am_stream *s, const am_sgd_args *args)
{
    (void)s;
    if (!is_float(args->dtype_grad))
        return AM_EUNSUP;
    if (args->buf && args->dtype_state == AM_U8)
        AM_DISPATCH_FLOAT(args->dtype, sgd_codes, args)
    if (args->buf && !is_float(args->dtype_state))
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, sgd_float, args)
}

/* Element i, whose momentum is *m. */
AM_INLINE void lion_one(const am_lion_args *args, int dtype, int64_t i, double *m)
{
    double p = args->master ? (double)args->master[i] : load(args->param, dtype, i);
    double g = load(args->grad, args->dtype_grad, i) * args->grad_scale;
    double u = args->beta1 * *m + (1.0 - args->beta1) * g;
    p *= 1.0 - args->lr * args->weight_decay;
    p -= args->lr * (u > 0 ? 1.0 : u < 0 ? -1.0 : u);
    *m = args->beta2 * *m + (1.0 - args->beta2) * g;
    store_weight(args->param, args->master, dtype, i, p);
}

AM_INLINE int lion_float(const am_lion_args *args, int dtype)
{
    for (int64_t i = 0; i < args->n; i++) {
        double m = load(args->m, args->dtype_state, i);
        lion_one(args, dtype, i, &m);
        store(args->m, args->dtype_state, i, m);
    }
    return AM_OK;
}

AM_INLINE int lion_codes(const am_lion_args *args, int dtype)
{
    const am_dynamic_map *map = am_dynamic_map_signed();
    float m[AM_STATE_BLOCK];
    for (int64_t first = 0, b = 0; first < args->n; first += AM_STATE_BLOCK, b++) {
        int64_t n = block_length(args->n, first);
        uint8_t *codes = (uint8_t *)args->m + first;
        am_from_codes(m, codes, args->m_absmax[b], n, map);
        for (int64_t i = 0; i < n; i++) {
            double m_i = (double)m[i];
            lion_one(args, dtype, first + i, &m_i);
            m[i] = (float)m_i;
        }
        args->m_absmax[b] = am_to_codes(codes, m, n, map);
    }
    return AM_OK;
}

int am_ref_lion(am_stream *s, const am_lion_args *args)
{
    (void)s;
    if (!is_float(args->dtype_grad))
        return AM_EUNSUP;
    if (args->dtype_state == AM_U8)
        AM_DISPATCH_FLOAT(args->dtype, lion_codes, args)
    if (!is_float(args->dtype_state))
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, lion_float, args)
}
