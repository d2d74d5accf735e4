/* ref_adafactor.c — reference kernel of Adafactor's step on one parameter. */
#include "ref.h"

AM_INLINE double weight_at(const am_adafactor_args *a, int dtype, int64_t i)
{
    return a->master ? (double)a->master[i] : load(a->param, dtype, i);
}

AM_INLINE double square_at(const am_adafactor_args *a, int64_t i)
{
    double g = load(a->grad, a->dtype_grad, i) * a->grad_scale;
    return g * g + (a->transformers ? a->eps1 : 0);
}

AM_INLINE void lerp_state(const am_adafactor_args *a, void *state, int64_t i, double x)
{
    double old = load(state, a->dtype_grad, i);
    store(state, a->dtype_grad, i, old + (x - old) * a->fresh);
}

/* The factors of the second moment, or the moment itself. */
AM_INLINE void moments(const am_adafactor_args *a)
{
    for (int64_t i = 0; a->var && i < a->cols; i++)
        lerp_state(a, a->var, i, square_at(a, i));
    for (int64_t b = 0; !a->var && b < a->batch; b++) {
        int64_t first = b * a->rows * a->cols;
        for (int64_t r = 0; r < a->rows; r++) {
            double sum = 0;
            for (int64_t c = 0; c < a->cols; c++)
                sum += square_at(a, first + r * a->cols + c);
            lerp_state(a, a->row, b * a->rows + r, sum / (double)a->cols);
        }
        for (int64_t c = 0; c < a->cols; c++) {
            double sum = 0;
            for (int64_t r = 0; r < a->rows; r++)
                sum += square_at(a, first + r * a->cols + c);
            lerp_state(a, a->col, b * a->cols + c, sum / (double)a->rows);
        }
    }
}

/* Mean of the rows' factors of matrix b. */
AM_INLINE double row_mean(const am_adafactor_args *a, int64_t b)
{
    double sum = 0;
    for (int64_t r = 0; r < a->rows; r++)
        sum += load(a->row, a->dtype_grad, b * a->rows + r);
    return sum / (double)a->rows;
}

/* The step's direction at row r, column c of matrix b. */
AM_INLINE double direction(const am_adafactor_args *a, double mean, int64_t b, int64_t r, int64_t c)
{
    int64_t i = (b * a->rows + r) * a->cols + c;
    double v = a->var ? load(a->var, a->dtype_grad, i)
                      : load(a->row, a->dtype_grad, b * a->rows + r) *
                            load(a->col, a->dtype_grad, b * a->cols + c) /
                            (a->transformers ? mean : fmax(mean, a->eps1));
    if (!a->transformers)
        v = fmax(v, a->eps1 * a->eps1);
    return load(a->grad, a->dtype_grad, i) * a->grad_scale / sqrt(v);
}

AM_INLINE int adafactor_float(const am_adafactor_args *a, int dtype)
{
    int64_t n = a->batch * a->rows * a->cols;
    double weights = 0, steps = 0;
    for (int64_t i = 0; i < n; i++)
        weights += weight_at(a, dtype, i) * weight_at(a, dtype, i);
    moments(a);
    for (int pass = 0; pass < 2; pass++) {
        double rms = sqrt(weights / (double)n);
        double alpha = a->rho * (a->scale_parameter ? fmax(a->eps2, rms) : 1);
        double size = alpha / fmax(1, sqrt(steps / (double)n) / a->d);
        double shrink = 1 - a->weight_decay * (a->transformers ? alpha : a->lr);
        for (int64_t b = 0; b < a->batch; b++) {
            double mean = a->var ? 0 : row_mean(a, b);
            for (int64_t k = 0; k < a->rows * a->cols; k++) {
                double u = direction(a, mean, b, k / a->cols, k % a->cols);
                int64_t i = b * a->rows * a->cols + k;
                steps += pass == 0 ? u * u : 0;
                if (pass == 0)
                    continue;
                double p = weight_at(a, dtype, i) * shrink - size * u;
                if (a->master) {
                    a->master[i] = (float)p;
                    p = (double)a->master[i];
                }
                store(a->param, dtype, i, p);
            }
        }
    }
    return AM_OK;
}

int am_ref_adafactor(am_stream *s, const am_adafactor_args *args)
{
    (void)s;
    if (args->dtype_grad != AM_F32 && args->dtype_grad != AM_F64)
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, adafactor_float, args)
}
