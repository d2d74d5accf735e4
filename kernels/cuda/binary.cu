/* binary.cu — arithmetic and comparisons of two operands, and their gradients. */
#include "map.cuh"

AM_DEVICE int compare(int op, int less, int equal, int unordered)
{
    switch (op) {
    case AM_B_EQ:
        return equal;
    case AM_B_NE:
        return !equal;
    case AM_B_LT:
        return less;
    case AM_B_LE:
        return less || equal;
    case AM_B_GT:
        return !(less || equal || unordered);
    default: /* AM_B_GE */
        return !(less || unordered);
    }
}

template <class M> struct value_of {
    int op;
    __device__ __forceinline__ M operator()(const M (&x)[2]) const
    {
        M a = x[0], b = x[1];
        switch (op) {
        case AM_B_ADD:
            return a + b;
        case AM_B_SUB:
            return a - b;
        case AM_B_MUL:
            return a * b;
        case AM_B_DIV:
            return a / b;
        case AM_B_MAXIMUM:
            return a != a || a > b ? a : b;
        case AM_B_MINIMUM:
            return a != a || a < b ? a : b;
        default: /* AM_B_POW */
            return pow(a, b);
        }
    }
};

/* Wraps around; a division by zero is reported. */
struct int_value_of {
    int op;
    am_cuda_problem *problem;
    const char *by_zero; /* host text */
    __device__ __forceinline__ int64_t operator()(const int64_t (&x)[2]) const
    {
        int64_t a = x[0], b = x[1];
        switch (op) {
        case AM_B_ADD:
            return (int64_t)((uint64_t)a + (uint64_t)b);
        case AM_B_SUB:
            return (int64_t)((uint64_t)a - (uint64_t)b);
        case AM_B_MUL:
            return (int64_t)((uint64_t)a * (uint64_t)b);
        case AM_B_DIV:
            if (b == 0)
                am_report(problem, 0, 0, by_zero);
            return b == 0 || b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
        case AM_B_MAXIMUM:
            return a > b ? a : b;
        default: /* AM_B_MINIMUM */
            return a < b ? a : b;
        }
    }
};

template <class M> struct comparison {
    int op;
    __device__ __forceinline__ M operator()(const M (&x)[2]) const
    {
        return (M)compare(op, x[0] < x[1], x[0] == x[1], x[0] != x[0] || x[1] != x[1]);
    }
};

template <class M> struct slope_of {
    int op, which;
    __device__ __forceinline__ M operator()(const M (&x)[3]) const
    {
        M dout = x[0], a = x[1], b = x[2];
        switch (op) {
        case AM_B_MUL:
            return dout * (which == 0 ? b : a);
        case AM_B_DIV:
            return which == 0 ? dout / b : -dout * (a / b) / b;
        case AM_B_POW:
            if (which == 0)
                return b == 0 ? (M)0 : dout * b * pow(a, b - 1);
            return a == 0 && b >= 0 ? (M)0 : dout * pow(a, b) * log(a);
        default: { /* AM_B_MAXIMUM, AM_B_MINIMUM */
            bool won = (op == AM_B_MAXIMUM) == (which == 0) ? a > b : a < b;
            return a == b ? (M)0.5 * dout : won ? dout : (M)0;
        }
        }
    }
};

extern "C" int am_cuda_binary(am_stream *s, const am_binary_args *a)
{
    am_nd nd = am_nd_simple(&a->nd, 3);
    if (a->op < 0 || a->op >= AM_B_COUNT || (a->dtype == AM_BOOL && a->op < AM_B_EQ) ||
        (!am_is_float(a->dtype) && a->op == AM_B_POW))
        return AM_EUNSUP;
    if (am_nd_numel(&nd) == 0)
        return AM_OK;
    if (a->op >= AM_B_EQ) {
        AM_FOR_ANY(a->dtype, T, {
            am_map_inputs<T, 2> in = {{(const T *)a->a, (const T *)a->b}};
            am_map(s, (am_bool *)a->out, in, &nd, comparison<typename am_math<T>::type>{a->op});
        });
    } else if (!am_is_float(a->dtype)) {
        int_value_of f = {a->op, s->problem, "div: integer division by zero"};
        AM_FOR_INT(a->dtype, T, {
            am_map_inputs<T, 2> in = {{(const T *)a->a, (const T *)a->b}};
            am_map(s, (T *)a->out, in, &nd, f);
        });
    } else {
        AM_FOR_FLOAT(a->dtype, T, {
            am_map_inputs<T, 2> in = {{(const T *)a->a, (const T *)a->b}};
            am_map(s, (T *)a->out, in, &nd, value_of<typename am_math<T>::type>{a->op});
        });
    }
    return am_cuda_launched(s, "binary");
}

extern "C" int am_cuda_binary_bwd(am_stream *s, const am_binary_bwd_args *a)
{
    am_nd nd = am_nd_simple(&a->nd, 4);
    if (a->op < AM_B_MUL || a->op > AM_B_POW)
        return AM_EUNSUP;
    if (am_nd_numel(&nd) == 0)
        return AM_OK;
    AM_FOR_FLOAT(a->dtype, T, {
        am_map_inputs<T, 3> in = {{(const T *)a->dout, (const T *)a->a, (const T *)a->b}};
        am_map(s, (T *)a->d, in, &nd, slope_of<typename am_math<T>::type>{a->op, a->which});
    });
    return am_cuda_launched(s, "binary_bwd");
}
