/* act.cuh — activations and their derivatives, in f32 or f64. Holds no kernel. */
#pragma once

#include "common.cuh"

template <class M> AM_DEVICE M am_sigmoid(M x)
{
    return (M)1 / ((M)1 + exp(-x));
}

/* (1 + tanh u) / 2 = sigmoid(2u) of the GELU by tanh, which keeps its digits where tanh is near -1
 * (Hendrycks & Gimpel 2016): u = sqrt(2/pi) (x + 0.044715 x^3). */
template <class M> AM_DEVICE M am_gelu_gate(M x)
{
    return am_sigmoid((M)(2 * 0.79788456080286535588) * (x + (M)0.044715 * x * x * x));
}

template <class M> AM_DEVICE M am_act(int act, M x)
{
    switch (act) {
    case AM_ACT_SILU:
        return x * am_sigmoid(x);
    case AM_ACT_GELU:
        return (M)0.5 * x * erfc(-x * (M)0.70710678118654752440);
    case AM_ACT_GELU_TANH:
        return x * am_gelu_gate(x);
    case AM_ACT_RELU:
        return x < 0 ? (M)0 : x;
    case AM_ACT_RELU2:
        return x < 0 ? (M)0 : x * x;
    case AM_ACT_QUICK_GELU:
        return x * am_sigmoid((M)1.702 * x);
    case AM_ACT_TANH:
        return tanh(x);
    default:
        return am_sigmoid(x);
    }
}

template <class M> AM_DEVICE M am_act_grad(int act, M x)
{
    switch (act) {
    case AM_ACT_SILU: {
        M s = am_sigmoid(x);
        return s * ((M)1 + x * ((M)1 - s));
    }
    case AM_ACT_GELU: /* Phi(x) + x phi(x) */
        return (M)0.5 * erfc(-x * (M)0.70710678118654752440) +
               x * (M)0.39894228040143267794 * exp((M)-0.5 * x * x);
    case AM_ACT_GELU_TANH: {
        M gate = am_gelu_gate(x);
        return gate + (M)2 * x * gate * ((M)1 - gate) * (M)0.79788456080286535588 *
                          ((M)1 + (M)(3 * 0.044715) * x * x);
    }
    case AM_ACT_RELU:
        return x > 0 ? (M)1 : x <= 0 ? (M)0 : x;
    case AM_ACT_RELU2:
        return x < 0 ? (M)0 : (M)2 * x;
    case AM_ACT_QUICK_GELU: {
        M gate = am_sigmoid((M)1.702 * x);
        return gate + (M)1.702 * x * gate * ((M)1 - gate);
    }
    case AM_ACT_TANH: {
        M y = tanh(x);
        return (M)1 - y * y;
    }
    default: {
        M s = am_sigmoid(x);
        return s * ((M)1 - s);
    }
    }
}
