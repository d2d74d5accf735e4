// matmul.cpp — see matmul.h. Operands are gathered as floats and multiplied in tiles that stay in
// registers and near caches.
#include "matmul.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

namespace emu
{
namespace
{
constexpr int64_t tile_k = 256, tile_m = 4, tile_n = 16;

void write_element(void *p, int64_t i, cudaDataType_t type, double x)
{
    switch (type) {
    case CUDA_R_64F:
        static_cast<double *>(p)[i] = x;
        break;
    case CUDA_R_32F:
        static_cast<float *>(p)[i] = float(x);
        break;
    case CUDA_R_16BF:
        static_cast<__nv_bfloat16 *>(p)[i] = __float2bfloat16_rn(float(x));
        break;
    case CUDA_R_16F:
        static_cast<__half *>(p)[i] = __float2half_rn(float(x));
        break;
    case CUDA_R_8F_E4M3:
        static_cast<__nv_fp8_e4m3 *>(p)[i] = __nv_fp8_e4m3(float(x));
        break;
    case CUDA_R_8F_E5M2:
        static_cast<__nv_fp8_e5m2 *>(p)[i] = __nv_fp8_e5m2(float(x));
        break;
    default:
        break;
    }
}

// The matrix of a batch, row after row.
template <class T> void gather(std::vector<T> &out, const Matrix &m, int64_t batch)
{
    out.resize(size_t(m.rows * m.columns));
    T *p = out.data();
    for (int64_t i = 0; i < m.rows; i++)
        for (int64_t j = 0; j < m.columns; j++)
            *p++ = T(read_element(
                m.data, batch * m.batch_stride + i * m.row_stride + j * m.column_stride, m.type));
}

// sums [m, n] += rows of a [m, k] times b [k, n], for one tile of rows and columns.
template <class T>
void multiply_tile(T *sums, const T *a, const T *b, int64_t m, int64_t n, int64_t k, int64_t lda,
                   int64_t ldb)
{
    T s[tile_m][tile_n] = {};
    if (m == tile_m && n == tile_n) {
        for (int64_t p = 0; p < k; p++)
            for (int64_t i = 0; i < tile_m; i++)
                for (int64_t j = 0; j < tile_n; j++)
                    s[i][j] += a[i * lda + p] * b[p * ldb + j];
    } else {
        for (int64_t p = 0; p < k; p++)
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < n; j++)
                    s[i][j] += a[i * lda + p] * b[p * ldb + j];
    }
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            sums[i * ldb + j] += s[i][j];
}

template <class T>
void multiply_batch(const Matrix &a, const Matrix &b, const Matrix &c, const Matrix &d,
                    int64_t batch, const Epilogue &e)
{
    int64_t m = d.rows, n = d.columns, k = a.columns;
    static std::vector<T> left, right, sums; // under the runtime's lock
    gather(left, a, batch);
    gather(right, b, batch);
    sums.assign(size_t(m * n), T(0));
    for (int64_t p = 0; p < k; p += tile_k)
        for (int64_t j = 0; j < n; j += tile_n)
            for (int64_t i = 0; i < m; i += tile_m)
                multiply_tile(&sums[size_t(i * n + j)], &left[size_t(i * k + p)],
                              &right[size_t(p * n + j)], std::min(tile_m, m - i),
                              std::min(tile_n, n - j), std::min(tile_k, k - p), k, n);
    for (int64_t i = 0; i < m; i++) {
        double scale = e.alpha * (e.row_scale ? double(e.row_scale[i]) : 1);
        double bias = e.bias ? read_element(e.bias, i, e.bias_type) : 0;
        for (int64_t j = 0; j < n; j++) {
            double x = double(sums[size_t(i * n + j)]) * scale;
            if (e.column_scale)
                x *= double(e.column_scale[j]);
            x += bias;
            if (e.beta != 0)
                x += e.beta *
                     read_element(c.data,
                                  batch * c.batch_stride + i * c.row_stride + j * c.column_stride,
                                  c.type);
            write_element(d.data, batch * d.batch_stride + i * d.row_stride + j * d.column_stride,
                          d.type, x);
        }
    }
}
} // namespace

bool is_matrix_type(cudaDataType_t type)
{
    return type == CUDA_R_64F || type == CUDA_R_32F || type == CUDA_R_16BF || type == CUDA_R_16F ||
           type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2;
}

size_t bytes_of(cudaDataType_t type)
{
    switch (type) {
    case CUDA_R_64F:
        return 8;
    case CUDA_R_32F:
        return 4;
    case CUDA_R_16BF:
    case CUDA_R_16F:
        return 2;
    default:
        return 1;
    }
}

double read_element(const void *p, int64_t i, cudaDataType_t type)
{
    switch (type) {
    case CUDA_R_64F:
        return static_cast<const double *>(p)[i];
    case CUDA_R_32F:
        return double(static_cast<const float *>(p)[i]);
    case CUDA_R_16BF: {
        uint32_t word = uint32_t(static_cast<const uint16_t *>(p)[i]) << 16;
        float x;
        memcpy(&x, &word, sizeof x);
        return double(x);
    }
    case CUDA_R_16F:
        return double(__half2float(static_cast<const __half *>(p)[i]));
    case CUDA_R_8F_E4M3:
        return double(float(static_cast<const __nv_fp8_e4m3 *>(p)[i]));
    default:
        return double(float(static_cast<const __nv_fp8_e5m2 *>(p)[i]));
    }
}

size_t extent(const Matrix &m, int64_t batches)
{
    if (!m.rows || !m.columns || !batches)
        return 0;
    int64_t last = (m.rows - 1) * m.row_stride + (m.columns - 1) * m.column_stride +
                   (batches - 1) * m.batch_stride;
    return size_t(last + 1) * bytes_of(m.type);
}

void multiply(const Matrix &a, const Matrix &b, const Matrix &c, const Matrix &d, int64_t batches,
              const Epilogue &epilogue, bool wide)
{
    for (int64_t i = 0; i < batches; i++) {
        if (wide)
            multiply_batch<double>(a, b, c, d, i, epilogue);
        else
            multiply_batch<float>(a, b, c, d, i, epilogue);
    }
}
} // namespace emu
