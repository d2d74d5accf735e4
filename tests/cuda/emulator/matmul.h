// matmul.h — a matrix product on the host, for the library shims: d = alpha a b + beta c.
#pragma once
#include <cstddef>
#include <cstdint>
#include <library_types.h>

namespace emu
{
// An operand: element (i, j) of matrix k is at offset + i row + j column + k batch, in elements.
struct Matrix {
    void *data;
    cudaDataType_t type;
    int64_t rows, columns;
    int64_t row_stride, column_stride, batch_stride;
};

bool is_matrix_type(cudaDataType_t type);
size_t bytes_of(cudaDataType_t type);
double read_element(const void *p, int64_t i, cudaDataType_t type);
// From the first element of all batches to the last.
size_t extent(const Matrix &m, int64_t batches);

// What becomes of a sum: alpha row_scale[i] column_scale[j] sum + beta c + bias[i]. Pointers may be
// NULL.
struct Epilogue {
    double alpha, beta;
    const void *bias;
    cudaDataType_t bias_type;
    const float *row_scale, *column_scale;
};

// Sums in f32, or with `wide` in f64. a is m x k, b is k x n, c and d are m x n. c is read only
// when beta is not 0.
void multiply(const Matrix &a, const Matrix &b, const Matrix &c, const Matrix &d, int64_t batches,
              const Epilogue &epilogue, bool wide);
} // namespace emu
