/* ref_optim.c — reference kernels over flat buffers: sum of squares, Adam and SGD steps. */
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

AM_INLINE int adam_float(const am_adam_args *args, int dtype)
{
    for (int64_t i = 0; i < args->n; i++) {
        double p = args->master ? (double)args->master[i] : load(args->param, dtype, i);
        double g = load(args->grad, args->dtype_grad, i) * args->grad_scale;
        double m = load(args->m, args->dtype_state, i), v = load(args->v, args->dtype_state, i);
        if (args->decoupled)
            p *= 1.0 - args->lr * args->weight_decay;
        else
            g += args->weight_decay * p;
        m += (g - m) * (1.0 - args->beta1);
        v = args->beta2 * v + (1.0 - args->beta2) * g * g;
        p -= args->lr / args->bias1 * m / (sqrt(v) / sqrt(args->bias2) + args->eps);
        store(args->m, args->dtype_state, i, m);
        store(args->v, args->dtype_state, i, v);
        if (args->master) {
            args->master[i] = (float)p;
            p = (double)args->master[i];
        }
        store(args->param, dtype, i, p);
    }
    return AM_OK;
}

int am_ref_adam(am_stream *s, const am_adam_args *args)
{
    (void)s;
    if (!is_float(args->dtype_state) || !is_float(args->dtype_grad))
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, adam_float, args)
}

AM_INLINE int sgd_float(const am_sgd_args *args, int dtype)
{
    for (int64_t i = 0; i < args->n; i++) {
        double p = args->master ? (double)args->master[i] : load(args->param, dtype, i);
        double g = load(args->grad, args->dtype_grad, i) * args->grad_scale;
        g += args->weight_decay * p;
        if (args->buf) {
            double buf = g;
            if (!args->first)
                buf = args->momentum * load(args->buf, args->dtype_state, i) +
                      (1.0 - args->dampening) * g;
            store(args->buf, args->dtype_state, i, buf);
            g = args->nesterov ? g + args->momentum * buf : buf;
        }
        p -= args->lr * g;
        if (args->master) {
            args->master[i] = (float)p;
            p = (double)args->master[i];
        }
        store(args->param, dtype, i, p);
    }
    return AM_OK;
}

int am_ref_sgd(am_stream *s, const am_sgd_args *args)
{
    (void)s;
    if ((args->buf && !is_float(args->dtype_state)) || !is_float(args->dtype_grad))
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, sgd_float, args)
}
