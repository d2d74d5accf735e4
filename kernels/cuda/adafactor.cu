/* adafactor.cu — Adafactor's step on one parameter: the factors of the second moment, the sizes of
 * the weights and of the step, and the step. Sums are added in an order of their own: first those
 * of a block, then the blocks'. */
#include "vector.cuh"

constexpr int NT = 256, ROWS = 16 /* of a block of the first pass */, SLOT = 1;

/* In scratch: sums of each block of the first pass, of each row, and what follows from them. */
struct sums {
    double *weights; /* squares of a block's weights */
    double *steps;   /* squares of a row's steps */
    double *means;   /* of a matrix's row factors */
    double *size;    /* [2]: the step's factor, and that of the weights */
    void *columns;   /* [blocks, cols], of M: squares of a block's gradients */
    int64_t blocks;  /* of a matrix */
};

template <class M> AM_DEVICE M gradient_at(const am_adafactor_args &a, int64_t i)
{
    return am_get_any<M>(a.grad, a.dtype_grad, i) * (M)a.grad_scale;
}

template <class M> AM_DEVICE M weight_at(const am_adafactor_args &a, int64_t i)
{
    return a.master ? (M)a.master[i] : am_get_any<M>(a.param, a.dtype, i);
}

template <class M>
AM_DEVICE void lerp_state(const am_adafactor_args &a, void *state, int64_t i, M x)
{
    M old = am_get_any<M>(state, a.dtype_grad, i);
    am_put_any(state, a.dtype_grad, i, old + (x - old) * (M)a.fresh);
}

/* ROWS rows of a matrix, or all of a vector: the factors of the rows (of a vector: the moment), the
 * columns' sums and the squares of the weights. Two blocks on a multiprocessor at least: left to
 * itself ptxas spills to have more. */
template <class M>
__global__ void __launch_bounds__(NT, 2) squares_kernel(am_adafactor_args a, sums s)
{
    int64_t matrix = blockIdx.x / s.blocks, first = blockIdx.x % s.blocks * ROWS;
    int rows = (int)(a.rows - first < ROWS ? a.rows - first : ROWS);
    int64_t base = (matrix * a.rows + first) * a.cols;
    M more = a.transformers ? (M)a.eps1 : (M)0, row[ROWS] = {0};
    double weights = 0;
    for (int64_t c = threadIdx.x; c < a.cols; c += NT) {
        M column = 0;
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (r < rows) {
                int64_t i = base + r * a.cols + c;
                M g = gradient_at<M>(a, i), w = weight_at<M>(a, i), square = g * g + more;
                row[r] += square;
                column += square;
                weights += (double)w * (double)w;
            }
        if (a.var)
            lerp_state(a, a.var, base + c, column);
        else
            ((M *)s.columns)[(int64_t)blockIdx.x * a.cols + c] = column;
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        M sum = am_block_sum(row[r]);
        if (threadIdx.x == 0 && r < rows && !a.var)
            lerp_state(a, a.row, matrix * a.rows + first + r, sum / (M)a.cols);
    }
    weights = am_block_sum(weights);
    if (threadIdx.x == 0)
        s.weights[blockIdx.x] = weights;
}

/* The factors of the columns. */
template <class M> __global__ void __launch_bounds__(NT) columns_kernel(am_adafactor_args a, sums s)
{
    int64_t c = (int64_t)blockIdx.x * NT + threadIdx.x, matrix = blockIdx.y;
    if (c >= a.cols)
        return;
    M sum = 0;
    for (int64_t b = 0; b < s.blocks; b++)
        sum += ((const M *)s.columns)[(matrix * s.blocks + b) * a.cols + c];
    lerp_state(a, a.col, matrix * a.cols + c, sum / (M)a.rows);
}

__global__ void __launch_bounds__(NT) means_kernel(am_adafactor_args a, sums s)
{
    double sum = 0;
    for (int64_t r = threadIdx.x; r < a.rows; r += NT)
        sum += am_get_any<double>(a.row, a.dtype_grad, blockIdx.x * a.rows + r);
    sum = am_block_sum(sum);
    if (threadIdx.x == 0)
        s.means[blockIdx.x] = sum / (double)a.rows;
}

/* The step's direction at column c of a row, which is one of all matrices'. */
template <class M>
AM_DEVICE M direction(const am_adafactor_args &a, const sums &s, int64_t row, int64_t c)
{
    int64_t matrix = row / a.rows, i = row * a.cols + c;
    M v;
    if (a.var) {
        v = am_get_any<M>(a.var, a.dtype_grad, i);
    } else {
        M mean = (M)s.means[matrix], least = (M)a.eps1;
        mean = a.transformers || mean > least ? mean : least;
        v = am_get_any<M>(a.row, a.dtype_grad, row) / mean *
            am_get_any<M>(a.col, a.dtype_grad, matrix * a.cols + c);
    }
    if (!a.transformers) {
        M least = (M)(a.eps1 * a.eps1);
        v = v > least ? v : least;
    }
    return gradient_at<M>(a, i) / sqrt(v);
}

template <class M> __global__ void __launch_bounds__(NT) steps_kernel(am_adafactor_args a, sums s)
{
    double sum = 0;
    for (int64_t c = threadIdx.x; c < a.cols; c += NT) {
        M u = direction<M>(a, s, blockIdx.x, c);
        sum += (double)u * (double)u;
    }
    sum = am_block_sum(sum);
    if (threadIdx.x == 0)
        s.steps[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(NT) size_kernel(am_adafactor_args a, sums s)
{
    double weights = 0, steps = 0, n = (double)(a.batch * a.rows) * (double)a.cols;
    for (int64_t i = threadIdx.x; i < a.batch * s.blocks; i += NT)
        weights += s.weights[i];
    for (int64_t i = threadIdx.x; i < a.batch * a.rows; i += NT)
        steps += s.steps[i];
    weights = am_block_sum(weights);
    steps = am_block_sum(steps);
    if (threadIdx.x != 0)
        return;
    double alpha = a.rho * (a.scale_parameter ? fmax(a.eps2, sqrt(weights / n)) : 1.0);
    s.size[0] = alpha / fmax(1.0, sqrt(steps / n) / a.d);
    s.size[1] = 1.0 - a.weight_decay * (a.transformers ? alpha : a.lr);
}

template <class M> __global__ void __launch_bounds__(NT) update_kernel(am_adafactor_args a, sums s)
{
    M size = (M)s.size[0], shrink = (M)s.size[1];
    for (int64_t c = threadIdx.x; c < a.cols; c += NT) {
        int64_t i = (int64_t)blockIdx.x * a.cols + c;
        M p = weight_at<M>(a, i) * shrink - size * direction<M>(a, s, blockIdx.x, c);
        if (a.master) {
            a.master[i] = (float)p;
            p = (M)a.master[i];
        }
        am_put_any(a.param, a.dtype, i, p);
    }
}

template <class M> static int adafactor(am_stream *stream, const am_adafactor_args *a)
{
    int64_t rows = a->batch * a->rows, blocks = (a->rows + ROWS - 1) / ROWS;
    int64_t doubles = a->batch * blocks + rows + a->batch + 2;
    int64_t columns = a->var ? 0 : a->batch * blocks * a->cols;
    void *p;
    int rc = am_cuda_scratch(stream, &p, SLOT,
                             (size_t)doubles * sizeof(double) + (size_t)columns * sizeof(M));
    if (rc != AM_OK)
        return rc;
    sums s;
    s.blocks = blocks;
    s.weights = (double *)p;
    s.steps = s.weights + a->batch * blocks;
    s.means = s.steps + rows;
    s.size = s.means + a->batch;
    s.columns = s.size + 2;
    cudaStream_t queue = stream->stream;
    unsigned strips = (unsigned)((a->cols + NT - 1) / NT), matrices = (unsigned)a->batch;
    AM_LAUNCH((squares_kernel<M>), (unsigned)(a->batch * blocks), NT, 0, queue, *a, s);
    rc = am_cuda_launched(stream, "adafactor (squares)");
    if (rc == AM_OK && !a->var) {
        AM_LAUNCH((columns_kernel<M>), dim3(strips, matrices), NT, 0, queue, *a, s);
        AM_LAUNCH(means_kernel, matrices, NT, 0, queue, *a, s);
        rc = am_cuda_launched(stream, "adafactor (factors)");
    }
    if (rc != AM_OK)
        return rc;
    AM_LAUNCH((steps_kernel<M>), (unsigned)rows, NT, 0, queue, *a, s);
    AM_LAUNCH(size_kernel, 1, NT, 0, queue, *a, s);
    AM_LAUNCH((update_kernel<M>), (unsigned)rows, NT, 0, queue, *a, s);
    return am_cuda_launched(stream, "adafactor");
}

extern "C" int am_cuda_adafactor(am_stream *s, const am_adafactor_args *a)
{
    if (!am_is_float(a->dtype) || (a->dtype_grad != AM_F32 && a->dtype_grad != AM_F64))
        return AM_EUNSUP;
    if (a->batch == 0 || a->rows == 0 || a->cols == 0)
        return AM_OK;
    bool f64 = a->dtype == AM_F64 || a->dtype_grad == AM_F64;
    return f64 ? adafactor<double>(s, a) : adafactor<float>(s, a);
}
