/* unary.cu — functions of one operand and their gradients. */
#include "act.cuh"
#include "map.cuh"

/* The angle x in half turns, -1..1: x - k pi to some bits more than a double has. Beyond 2^52 half
 * turns, where neighbouring doubles are turns apart, it is any of them. (sin and cos themselves
 * keep an array for such angles, which costs every thread a stack frame.) */
AM_DEVICE double half_turns(double x)
{
    double k = 2 * rint(x * 0.15915494309189533577);
    double r = fma(-k, 3.141592653589793116, x);
    r = fma(-k, 1.2246467991473532072e-16, r);
    r *= 0.31830988618379067154;
    return r - 2 * rint(0.5 * r);
}
AM_DEVICE float sine(float x)
{
    return sinpif((float)half_turns(x));
}
AM_DEVICE double sine(double x)
{
    return sinpi(half_turns(x));
}
AM_DEVICE float cosine(float x)
{
    return cospif((float)half_turns(x));
}
AM_DEVICE double cosine(double x)
{
    return cospi(half_turns(x));
}

template <class M> AM_DEVICE M value(int op, M x, M p0, M p1)
{
    switch (op) {
    case AM_U_ADD_SCALAR:
        return x + p0;
    case AM_U_MUL_SCALAR:
        return x * p0;
    case AM_U_POW_SCALAR:
        return pow(x, p0);
    case AM_U_NEG:
        return -x;
    case AM_U_ABS:
        return fabs(x);
    case AM_U_EXP:
        return exp(x);
    case AM_U_LOG:
        return log(x);
    case AM_U_SQRT:
        return sqrt(x);
    case AM_U_RSQRT:
        return (M)1 / sqrt(x);
    case AM_U_TANH:
        return am_act(AM_ACT_TANH, x);
    case AM_U_SIGMOID:
        return am_act(AM_ACT_SIGMOID, x);
    case AM_U_RELU:
        return am_act(AM_ACT_RELU, x);
    case AM_U_SILU:
        return am_act(AM_ACT_SILU, x);
    case AM_U_GELU:
        return am_act(AM_ACT_GELU, x);
    case AM_U_GELU_TANH:
        return am_act(AM_ACT_GELU_TANH, x);
    case AM_U_RELU2:
        return am_act(AM_ACT_RELU2, x);
    case AM_U_QUICK_GELU:
        return am_act(AM_ACT_QUICK_GELU, x);
    case AM_U_CLAMP:
        x = x < p0 ? p0 : x;
        return x > p1 ? p1 : x;
    case AM_U_SIN:
        return sine(x);
    case AM_U_COS:
        return cosine(x);
    case AM_U_ERF:
        return erf(x);
    case AM_U_LOG1P:
        return log1p(x);
    case AM_U_EXPM1:
        return expm1(x);
    case AM_U_SOFTPLUS: /* of e^-|x|, so that nothing overflows */
        return (x < 0 ? (M)0 : x) + log1p(exp(-fabs(x)));
    case AM_U_SIGN:
        return (M)((x > 0) - (x < 0));
    case AM_U_FLOOR:
        return floor(x);
    case AM_U_CEIL:
        return ceil(x);
    default: /* AM_U_ROUND */
        return rint(x);
    }
}

template <class M> AM_DEVICE M slope(int op, M x, M p0, M p1)
{
    switch (op) {
    case AM_U_ADD_SCALAR:
        return 1;
    case AM_U_MUL_SCALAR:
        return p0;
    case AM_U_POW_SCALAR:
        return p0 == 0 ? (M)0 : p0 * pow(x, p0 - 1);
    case AM_U_NEG:
        return -1;
    case AM_U_ABS:
        return x > 0 ? (M)1 : x < 0 ? (M)-1 : x;
    case AM_U_EXP:
    case AM_U_EXPM1:
        return exp(x);
    case AM_U_LOG:
        return (M)1 / x;
    case AM_U_SQRT:
        return (M)0.5 / sqrt(x);
    case AM_U_RSQRT:
        return (M)-0.5 / (x * sqrt(x));
    case AM_U_TANH:
        return am_act_grad(AM_ACT_TANH, x);
    case AM_U_SIGMOID:
        return am_act_grad(AM_ACT_SIGMOID, x);
    case AM_U_RELU:
        return am_act_grad(AM_ACT_RELU, x);
    case AM_U_SILU:
        return am_act_grad(AM_ACT_SILU, x);
    case AM_U_GELU:
        return am_act_grad(AM_ACT_GELU, x);
    case AM_U_GELU_TANH:
        return am_act_grad(AM_ACT_GELU_TANH, x);
    case AM_U_RELU2:
        return am_act_grad(AM_ACT_RELU2, x);
    case AM_U_QUICK_GELU:
        return am_act_grad(AM_ACT_QUICK_GELU, x);
    case AM_U_CLAMP:
        return x >= p0 && x <= p1 ? (M)1 : (M)0;
    case AM_U_SIN:
        return cosine(x);
    case AM_U_COS:
        return -sine(x);
    case AM_U_ERF: /* 2 / sqrt(pi) e^-x^2 */
        return (M)1.12837916709551257390 * exp(-x * x);
    case AM_U_LOG1P:
        return (M)1 / (1 + x);
    case AM_U_SOFTPLUS:
        return am_sigmoid(x);
    default: /* AM_U_SIGN, FLOOR, CEIL, ROUND */
        return 0;
    }
}

template <class M> struct value_of {
    int op;
    M p0, p1;
    __device__ __forceinline__ M operator()(const M (&x)[1]) const
    {
        return value(op, x[0], p0, p1);
    }
};
template <class M> struct slope_of {
    int op;
    M p0, p1;
    __device__ __forceinline__ M operator()(const M (&x)[2]) const /* dout, a */
    {
        return x[0] * slope(op, x[1], p0, p1);
    }
};

struct int_value {
    int op;
    double p0, p1;
    __device__ __forceinline__ int64_t operator()(const int64_t (&in)[1]) const
    {
        int64_t x = in[0];
        switch (op) {
        case AM_U_ADD_SCALAR:
            return (int64_t)((uint64_t)x + (uint64_t)am_int(p0));
        case AM_U_MUL_SCALAR:
            return (int64_t)((uint64_t)x * (uint64_t)am_int(p0));
        case AM_U_POW_SCALAR:
            return am_int(pow((double)x, p0));
        case AM_U_NEG:
            return (int64_t)(0 - (uint64_t)x);
        case AM_U_ABS:
            return x < 0 ? (int64_t)(0 - (uint64_t)x) : x;
        case AM_U_CLAMP:
            x = x < am_int(p0) ? am_int(p0) : x;
            return x > am_int(p1) ? am_int(p1) : x;
        case AM_U_SIGN:
            return (x > 0) - (x < 0);
        default: /* AM_U_FLOOR, CEIL, ROUND */
            return x;
        }
    }
};

/* ---- launchers ------------------------------------------------------------------------------ */

extern "C" int am_cuda_unary(am_stream *s, const am_unary_args *a)
{
    am_nd nd = am_nd_simple(&a->nd, 2);
    if (a->op < 0 || a->op >= AM_U_COUNT)
        return AM_EUNSUP;
    if (am_nd_numel(&nd) == 0)
        return AM_OK;
    if (!am_is_float(a->dtype)) {
        if ((a->op > AM_U_ABS && a->op < AM_U_SIGN && a->op != AM_U_CLAMP) || a->dtype == AM_BOOL)
            return AM_EUNSUP;
        int_value f = {a->op, a->p0, a->p1};
        AM_FOR_INT(a->dtype, T,
                   { am_map(s, (T *)a->out, am_map_inputs<T, 1>{{(const T *)a->a}}, &nd, f); });
        return am_cuda_launched(s, "unary");
    }
    AM_FOR_FLOAT(a->dtype, T, {
        typedef typename am_math<T>::type M;
        am_map(s, (T *)a->out, am_map_inputs<T, 1>{{(const T *)a->a}}, &nd,
               value_of<M>{a->op, (M)a->p0, (M)a->p1});
    });
    return am_cuda_launched(s, "unary");
}

extern "C" int am_cuda_unary_bwd(am_stream *s, const am_unary_bwd_args *a)
{
    am_nd nd = am_nd_simple(&a->nd, 3);
    if (a->op < 0 || a->op >= AM_U_COUNT)
        return AM_EUNSUP;
    if (am_nd_numel(&nd) == 0)
        return AM_OK;
    AM_FOR_FLOAT(a->dtype, T, {
        typedef typename am_math<T>::type M;
        am_map(s, (T *)a->da, am_map_inputs<T, 2>{{(const T *)a->dout, (const T *)a->a}}, &nd,
               slope_of<M>{a->op, (M)a->p0, (M)a->p1});
    });
    return am_cuda_launched(s, "unary_bwd");
}
