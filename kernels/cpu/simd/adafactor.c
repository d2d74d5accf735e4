/* adafactor.c — Adafactor's step on matrices, for f32 and 16-bit weights with f32 gradients;
 * vectors, which are short, and f64 go to ref, whose formulas these are. Each pass runs over blocks
 * of AM_ADAFACTOR_ROWS rows, whose sums are added in their order: the bits do not depend on the
 * number of threads. */
#include "vec.h"
#include "../ref_kernels.h"

/* In work: sums of the squares of weights and of steps, one of each for a block, and the columns'
 * sums of a block, in f32. */
typedef struct plan {
    const am_adafactor_args *a;
    int64_t blocks; /* of a matrix */
    double *weights, *steps;
    float *columns;
} plan;

static plan new_plan(const am_adafactor_args *a)
{
    int64_t blocks = (a->rows + AM_ADAFACTOR_ROWS - 1) / AM_ADAFACTOR_ROWS, all = blocks * a->batch;
    return (plan){a, blocks, a->work, a->work + all, (float *)(a->work + 2 * all)};
}

/* Rows of block k of all: the matrix, its first row and the end. */
typedef struct stretch {
    int64_t matrix, first, end;
} stretch;

static stretch block_rows(const plan *p, int64_t k)
{
    int64_t first = k % p->blocks * AM_ADAFACTOR_ROWS, end = first + AM_ADAFACTOR_ROWS;
    return (stretch){k / p->blocks, first, end < p->a->rows ? end : p->a->rows};
}

AM_INLINE vf weights_at(const am_adafactor_args *a, int dtype, int64_t i)
{
    return a->master ? vload(a->master + i) : vget(a->param, dtype, i);
}

AM_INLINE float weight_at(const am_adafactor_args *a, int dtype, int64_t i)
{
    return a->master ? a->master[i] : load1(a->param, dtype, i);
}

/* The rows' factors, the columns' sums and the squares of the weights of block k. */
AM_INLINE void square_block(const plan *p, int dtype, int64_t k)
{
    const am_adafactor_args *a = p->a;
    stretch rows = block_rows(p, k);
    float *columns = p->columns + k * a->cols, *factor = a->row;
    float scale = (float)a->grad_scale, more = a->transformers ? (float)a->eps1 : 0;
    int64_t whole = a->cols - a->cols % VW;
    double weights = 0;
    memset(columns, 0, (size_t)a->cols * sizeof *columns);
    for (int64_t r = rows.first; r < rows.end; r++) {
        int64_t row = rows.matrix * a->rows + r, first = row * a->cols;
        const float *grad = (const float *)a->grad + first;
        vf sum = {0}, squares = {0};
        for (int64_t c = 0; c < whole; c += VW) {
            vf g = vload(grad + c) * scale, w = weights_at(a, dtype, first + c);
            vf q = g * g + more;
            sum += q;
            squares += w * w;
            vstore(columns + c, vload(columns + c) + q);
        }
        float total = vsum(sum), w_total = vsum(squares);
        for (int64_t c = whole; c < a->cols; c++) {
            float g = grad[c] * scale, w = weight_at(a, dtype, first + c), q = g * g + more;
            total += q;
            w_total += w * w;
            columns[c] += q;
        }
        weights += (double)w_total;
        factor[row] += (total / (float)a->cols - factor[row]) * (float)a->fresh;
    }
    p->weights[k] = weights;
}

/* The columns' factors of matrix b, from its blocks' sums. */
static void fold_columns(const plan *p, int64_t b)
{
    const am_adafactor_args *a = p->a;
    float *factor = (float *)a->col + b * a->cols;
    for (int64_t c = 0; c < a->cols; c++) {
        double sum = 0;
        for (int64_t k = b * p->blocks; k < (b + 1) * p->blocks; k++)
            sum += (double)p->columns[k * a->cols + c];
        factor[c] += ((float)(sum / (double)a->rows) - factor[c]) * (float)a->fresh;
    }
}

/* What the rows' factors of matrix b are divided by. */
static double mean_of_rows(const am_adafactor_args *a, int64_t b)
{
    double sum = 0;
    for (int64_t r = 0; r < a->rows; r++)
        sum += (double)((const float *)a->row)[b * a->rows + r];
    double mean = sum / (double)a->rows;
    return a->transformers || mean > a->eps1 ? mean : a->eps1;
}

/* Of block k the step itself with `write`, else the sum of its squares. */
AM_INLINE void step_block(const plan *p, int dtype, int64_t k, int write, double mean, float shrink,
                          float size)
{
    const am_adafactor_args *a = p->a;
    stretch rows = block_rows(p, k);
    const float *column = (const float *)a->col + rows.matrix * a->cols;
    float scale = (float)a->grad_scale;
    float least = a->transformers ? 0 : (float)(a->eps1 * a->eps1);
    int64_t whole = a->cols - a->cols % VW;
    double steps = 0;
    for (int64_t r = rows.first; r < rows.end; r++) {
        int64_t row = rows.matrix * a->rows + r, first = row * a->cols;
        const float *grad = (const float *)a->grad + first;
        float factor = (float)((double)((const float *)a->row)[row] / mean);
        vf squares = {0};
        for (int64_t c = 0; c < whole; c += VW) {
            vf u = vload(grad + c) * scale / vsqrt(vmax(vload(column + c) * factor, vsplat(least)));
            squares += u * u;
            if (!write)
                continue;
            vf w = weights_at(a, dtype, first + c) * shrink - u * size;
            if (a->master)
                vstore(a->master + first + c, w);
            vput(a->param, dtype, first + c, w);
        }
        float total = vsum(squares);
        for (int64_t c = whole; c < a->cols; c++) {
            float v = column[c] * factor, u = grad[c] * scale / sqrtf(v > least ? v : least);
            total += u * u;
            if (!write)
                continue;
            float w = weight_at(a, dtype, first + c) * shrink - u * size;
            if (a->master)
                a->master[first + c] = w;
            store1(a->param, dtype, first + c, w);
        }
        steps += (double)total;
    }
    if (!write)
        p->steps[k] = steps;
}

static double total(const double *partial, int64_t n)
{
    double sum = 0;
    for (int64_t k = 0; k < n; k++)
        sum += partial[k];
    return sum;
}

AM_INLINE void adafactor_step(const plan *p, int dtype)
{
    const am_adafactor_args *a = p->a;
    int64_t all = p->blocks * a->batch, n = a->batch * a->rows * a->cols;
#pragma omp parallel for num_threads(team(n)) schedule(static)
    for (int64_t k = 0; k < all; k++)
        square_block(p, dtype, k);
#pragma omp parallel for num_threads(team(n)) schedule(static)
    for (int64_t b = 0; b < a->batch; b++)
        fold_columns(p, b);
    double rms = sqrt(total(p->weights, all) / (double)n);
    double alpha = a->rho * (a->scale_parameter ? fmax(a->eps2, rms) : 1);
    float shrink = (float)(1 - a->weight_decay * (a->transformers ? alpha : a->lr));
    float size = 0;
    for (int64_t b = 0; b < a->batch; b++)
        p->weights[b] = mean_of_rows(a, b); /* sums that are used up */
    for (int write = 0; write < 2; write++) {
#pragma omp parallel for num_threads(team(n)) schedule(static)
        for (int64_t k = 0; k < all; k++)
            step_block(p, dtype, k, write, p->weights[k / p->blocks], shrink, size);
        size = (float)(alpha / fmax(1, sqrt(total(p->steps, all) / (double)n) / a->d));
    }
}

int AM_SIMD(adafactor)(am_stream *s, const am_adafactor_args *args)
{
    if (!is_simd_float(args->dtype) || args->dtype_grad != AM_F32 || args->var)
        return am_ref_adafactor(s, args);
    plan p = new_plan(args);
    AM_WITH_DTYPE(T, args->dtype, adafactor_step(&p, T))
    return AM_OK;
}
