/* cases_elem.c — cases of op_elem.c: arithmetic with broadcasting, functions, casts, dropout. */
#include "op_case.h"

#include <math.h>

/* Same shape, broadcasting on either side, rank 0, nothing at all, more than a vector or two. */
#define BINARY(name, A)                                                                            \
    {OPCASE(name), .in = {A(7), A(7)}}, {OPCASE(name), .in = {A(1), A(1)}},                        \
        {OPCASE(name), .in = {A(2, 1, 5), A(3, 1)}}, {OPCASE(name), .in = {A(3, 1), A(2, 3, 5)}},  \
        {OPCASE(name), .in = {SCALAR, A(2, 3)}}, {OPCASE(name), .in = {A(4, 3), SCALAR}},          \
        {OPCASE(name), .in = {SCALAR, SCALAR}}, {OPCASE(name), .in = {A(2, 0, 3), A(3)}},          \
        {OPCASE(name), .in = {A(1, 1), A(1)}},                                                     \
        {OPCASE(name), .in = {A(37, 29), A(37, 29)}, .flags = CASE_BIG},                           \
    {                                                                                              \
        OPCASE(name), .in = {A(5, 1, 67), A(13, 1)}, .flags = CASE_BIG                             \
    }

#define UNARY(name, A, ...)                                                                        \
    {OPCASE(name), .in = {A(13)}, __VA_ARGS__}, {OPCASE(name), .in = {A(1)}, __VA_ARGS__},         \
        {OPCASE(name), .in = {A(2, 3, 5)}, __VA_ARGS__},                                           \
        {OPCASE(name), .in = {A(0, 4)}, __VA_ARGS__},                                              \
    {                                                                                              \
        OPCASE(name), .in = {A(31, 37)}, .flags = CASE_BIG, __VA_ARGS__                            \
    }

static const op_case cases[] = {
    BINARY(add, N),
    BINARY(sub, N),
    BINARY(mul, N),
    BINARY(div, AWAY),
    BINARY(pow, P),
    BINARY(maximum, D),
    BINARY(minimum, D),
    BINARY(eq, D),
    BINARY(ne, D),
    BINARY(lt, D),
    BINARY(le, D),
    BINARY(gt, D),
    BINARY(ge, D),
    {OPCASE(where), .in = {BOOL(6), N(6), N(6)}},
    {OPCASE(where), .in = {BOOL(3, 1), N(2, 1, 4), N(3, 4)}},
    {OPCASE(where), .in = {BOOL(2, 3), SCALAR, N(3)}},
    {OPCASE(where), .in = {BOOL(1), N(5), N(5)}},
    {OPCASE(where), .in = {BOOL(0), N(1), N(1)}},
    {OPCASE(where), .in = {BOOL(31, 37), N(31, 37), N(37)}, .flags = CASE_BIG},

    UNARY(add_scalar, N, .attrs = {.scalar = {1.25}}),
    UNARY(mul_scalar, N, .attrs = {.scalar = {-0.75}}),
    {OPCASE(mul_scalar), .in = {N(5)}, .attrs = {.scalar = {0}}},
    UNARY(pow_scalar, P, .attrs = {.scalar = {2.5}}),
    {OPCASE(pow_scalar), .in = {N(5)}, .attrs = {.scalar = {2}}},
    {OPCASE(pow_scalar), .in = {N(5)}, .attrs = {.scalar = {3}}},
    {OPCASE(pow_scalar), .in = {N(5)}, .attrs = {.scalar = {1}}},
    {OPCASE(pow_scalar), .in = {N(5)}, .attrs = {.scalar = {0}}},
    {OPCASE(pow_scalar), .in = {AWAY(5)}, .attrs = {.scalar = {-1}}},
    {OPCASE(pow_scalar), .in = {P(5)}, .attrs = {.scalar = {0.5}}},
    {OPCASE(pow_scalar), .in = {P(5)}, .attrs = {.scalar = {-0.5}}},
    UNARY(neg, N),
    UNARY(abs, AWAY),
    UNARY(exp, N),
    UNARY(expm1, N),
    UNARY(log, P),
    UNARY(log1p, P),
    UNARY(sqrt, P),
    UNARY(rsqrt, P),
    UNARY(sin, N),
    UNARY(cos, N),
    UNARY(tanh, N),
    UNARY(erf, N),
    UNARY(sigmoid, N),
    UNARY(relu, AWAY),
    UNARY(softplus, N),
    UNARY(silu, N),
    UNARY(relu2, AWAY),
    UNARY(quick_gelu, N),
    UNARY(gelu, N),
    UNARY(gelu_tanh, N),
    UNARY(sign, AWAY),
    UNARY(floor, D),
    UNARY(ceil, D),
    UNARY(round, D),
    /* spaced values are multiples of 0.05 plus 0.01 or 0.02: none lies on a bound */
    UNARY(clamp, D, .attrs = {.clamp = {-0.175, 0.325}}),
    {OPCASE(clamp), .in = {D(9)}, .attrs = {.clamp = {-INFINITY, 0.075}}},
    {OPCASE(clamp), .in = {D(9)}, .attrs = {.clamp = {0.075, INFINITY}}},

    {OPCASE(cast), .in = {N(7)}, .attrs = {.cast = {AM_F64}}},
    {OPCASE(cast), .in = {N(2, 3)}, .attrs = {.cast = {AM_F32}}},
    {OPCASE(cast), .in = {N(2, 3)}, .attrs = {.cast = {AM_BF16}}},
    {OPCASE(cast), .in = {N(2, 3)}, .attrs = {.cast = {AM_F16}}},
    {OPCASE(cast), .in = {N(31, 37)}, .attrs = {.cast = {AM_BF16}}, .flags = CASE_BIG},

    UNARY(dropout, N, .attrs = {.dropout = {0.3}}),
    {OPCASE(dropout), .in = {N(9)}, .attrs = {.dropout = {0}}},
    {OPCASE(dropout), .in = {N(9)}, .attrs = {.dropout = {1}}},
};

const case_table elem_cases = {cases, sizeof cases / sizeof *cases};
