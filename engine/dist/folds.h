/* folds.h — inside of gloo.cc: one array from two, element by element, for its reductions. */
#ifndef AM_FOLDS_H
#define AM_FOLDS_H

#include <algorithm>
#include <stdexcept>

#include "comm.h"

using Fold = void (*)(void *, const void *, const void *, size_t);

template <class T, int op> void fold(void *to, const void *x, const void *y, size_t n)
{
    T *c = static_cast<T *>(to);
    const T *a = static_cast<const T *>(x), *b = static_cast<const T *>(y);
    for (size_t i = 0; i < n; i++)
        c[i] = op == AM_SUM   ? a[i] + b[i]
               : op == AM_MAX ? std::max(a[i], b[i])
                              : std::min(a[i], b[i]);
}

template <class T> Fold fold_of(int op)
{
    return op == AM_SUM ? fold<T, AM_SUM> : op == AM_MAX ? fold<T, AM_MAX> : fold<T, AM_MIN>;
}

inline Fold fold_of(const am_comm_call &call)
{
    switch (call.dtype) {
    case AM_F32:
        return fold_of<float>(call.op);
    case AM_F64:
        return fold_of<double>(call.op);
    case AM_I32:
        return fold_of<int32_t>(call.op);
    case AM_I64:
        return fold_of<int64_t>(call.op);
    default:
        throw std::invalid_argument("gloo reduces f32, f64, i32 and i64");
    }
}

#endif
