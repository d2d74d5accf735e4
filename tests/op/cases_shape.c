/* cases_shape.c — cases of op_reduce.c and op_shape.c: reductions, softmax, views, joins, picks. */
#include "op_case.h"

#define REDUCE(name, A)                                                                            \
    {OPCASE(name), .in = {A(11)}, .attrs = {.reduce = {0, 0}}},                                    \
        {OPCASE(name), .in = {A(1)}, .attrs = {.reduce = {0, 1}}},                                 \
        {OPCASE(name), .in = {SCALAR}, .attrs = {.reduce = {AM_ALL_DIMS, 0}}},                     \
        {OPCASE(name), .in = {A(3, 5)}, .attrs = {.reduce = {AM_ALL_DIMS, 0}}},                    \
        {OPCASE(name), .in = {A(3, 5)}, .attrs = {.reduce = {AM_ALL_DIMS, 1}}},                    \
        {OPCASE(name), .in = {A(2, 3, 5)}, .attrs = {.reduce = {0, 0}}},                           \
        {OPCASE(name), .in = {A(2, 3, 5)}, .attrs = {.reduce = {1, 1}}},                           \
        {OPCASE(name), .in = {A(2, 3, 5)}, .attrs = {.reduce = {-1, 0}}},                          \
        {OPCASE(name), .in = {A(0, 3)}, .attrs = {.reduce = {1, 0}}},                              \
        {OPCASE(name), .in = {A(7, 131)}, .attrs = {.reduce = {1, 0}}, .flags = CASE_BIG},         \
        {OPCASE(name), .in = {A(131, 7)}, .attrs = {.reduce = {0, 0}}, .flags = CASE_BIG},         \
    {                                                                                              \
        OPCASE(name), .in = {A(3, 37, 19)}, .attrs = {.reduce = {1, 0}}, .flags = CASE_BIG         \
    }

#define SOFTMAX(name)                                                                              \
    {OPCASE(name), .in = {N(11)}, .attrs = {.dim = {0}}},                                          \
        {OPCASE(name), .in = {N(1)}, .attrs = {.dim = {0}}},                                       \
        {OPCASE(name), .in = {N(4, 1)}, .attrs = {.dim = {1}}},                                    \
        {OPCASE(name), .in = {N(2, 3, 5)}, .attrs = {.dim = {-1}}},                                \
        {OPCASE(name), .in = {N(2, 3, 5)}, .attrs = {.dim = {1}}},                                 \
        {OPCASE(name), .in = {N(2, 3, 5)}, .attrs = {.dim = {0}}},                                 \
        {OPCASE(name), .in = {N(0, 3)}, .attrs = {.dim = {1}}},                                    \
        {OPCASE(name), .in = {N(5, 131)}, .attrs = {.dim = {1}}, .flags = CASE_BIG},               \
    {                                                                                              \
        OPCASE(name), .in = {N(3, 37, 19)}, .attrs = {.dim = {1}}, .flags = CASE_BIG               \
    }

#define SORT(descending)                                                                           \
    {OPCASE(argsort), .in = {D(11)}, .attrs = {.argsort = {0, descending}}},                       \
        {OPCASE(argsort), .in = {D(1)}, .attrs = {.argsort = {0, descending}}},                    \
        {OPCASE(argsort), .in = {D(2, 3, 5)}, .attrs = {.argsort = {1, descending}}},              \
        {OPCASE(argsort), .in = {D(0, 3)}, .attrs = {.argsort = {0, descending}}},                 \
    {                                                                                              \
        OPCASE(argsort), .in = {N(271, 131)}, .attrs = {.argsort = {-1, descending}},              \
                         .flags = CASE_BIG                                                         \
    }

#define INDEX(n, ...)   INPUT(IN_INDEX32, n, __VA_ARGS__)
#define INDEX64(n, ...) INPUT(IN_INDEX64, n, __VA_ARGS__)

static const op_case cases[] = {
    REDUCE(sum, N),
    {OPCASE(sum), .in = {N(3, 0)}, .attrs = {.reduce = {1, 0}}},
    REDUCE(mean, N),
    REDUCE(amax, D),
    REDUCE(amin, D),
    REDUCE(argmax, D),
    REDUCE(argmin, D),
    REDUCE(logsumexp, N),
    REDUCE(prod, P),
    {OPCASE(prod), .in = {N(3, 0)}, .attrs = {.reduce = {1, 0}}},
    SOFTMAX(softmax),
    SOFTMAX(log_softmax),
    SOFTMAX(cumsum),
    SORT(0),
    SORT(1),

    {OPCASE(reshape), .in = {N(2, 6)}, .attrs = {.view = {2, {3, 4}}}},
    {OPCASE(reshape), .in = {N(2, 6)}, .attrs = {.view = {1, {-1}}}},
    {OPCASE(reshape), .in = {N(2, 3, 4)}, .attrs = {.view = {3, {4, -1, 1}}}},
    {OPCASE(reshape), .in = {N(1)}, .attrs = {.view = {0, {0}}}},
    {OPCASE(reshape), .in = {SCALAR}, .attrs = {.view = {3, {1, 1, 1}}}},
    {OPCASE(reshape), .in = {N(0, 3)}, .attrs = {.view = {2, {5, 0}}}},
    {OPCASE(reshape), .in = {N(2, 3, 4)}, .attrs = {.view = {2, {6, 4}}}},
    {OPCASE(reshape), .in = {N(2, 3, 4)}, .attrs = {.view = {4, {1, 2, 1, 12}}}},
    {OPCASE(reshape), .in = {N(4, 1, 6)}, .attrs = {.view = {5, {2, 2, 1, 3, 2}}}},
    {OPCASE(expand), .in = {N(3, 1)}, .attrs = {.view = {2, {3, 4}}}},
    {OPCASE(expand), .in = {N(1, 5)}, .attrs = {.view = {3, {2, 3, -1}}}},
    {OPCASE(expand), .in = {SCALAR}, .attrs = {.view = {2, {2, 3}}}},
    {OPCASE(expand), .in = {N(2, 3)}, .attrs = {.view = {2, {-1, -1}}}},
    {OPCASE(expand), .in = {N(1, 3)}, .attrs = {.view = {2, {0, 3}}}},
    {OPCASE(expand), .in = {N(1, 37)}, .attrs = {.view = {3, {5, 31, 37}}}, .flags = CASE_BIG},
    {OPCASE(permute), .in = {N(2, 3, 5)}, .attrs = {.permute = {3, {2, 0, 1}}}},
    {OPCASE(permute), .in = {N(2, 3, 5)}, .attrs = {.permute = {3, {-1, 1, 0}}}},
    {OPCASE(permute), .in = {N(4)}, .attrs = {.permute = {1, {0}}}},
    {OPCASE(permute), .in = {SCALAR}, .attrs = {.permute = {0, {0}}}},
    {OPCASE(transpose), .in = {N(3, 5)}, .attrs = {.transpose = {0, 1}}},
    {OPCASE(transpose), .in = {N(2, 3, 5)}, .attrs = {.transpose = {-1, 0}}},
    {OPCASE(transpose), .in = {N(2, 3, 5)}, .attrs = {.transpose = {1, 1}}},
    {OPCASE(narrow), .in = {N(7)}, .attrs = {.narrow = {0, 2, 3}}},
    {OPCASE(narrow), .in = {N(3, 5)}, .attrs = {.narrow = {1, 0, 5}}},
    {OPCASE(narrow), .in = {N(3, 5, 2)}, .attrs = {.narrow = {1, 4, 1}}},
    {OPCASE(narrow), .in = {N(3, 5)}, .attrs = {.narrow = {-2, -2, 2}}},
    {OPCASE(narrow), .in = {N(3, 5)}, .attrs = {.narrow = {0, 3, 0}}},
    {OPCASE(narrow), .in = {N(7)}, .attrs = {.narrow = {0, 1, 3, 2}}},
    {OPCASE(narrow), .in = {N(3, 8, 2)}, .attrs = {.narrow = {1, 0, 3, 3}}},
    {OPCASE(narrow), .in = {N(3, 5)}, .attrs = {.narrow = {1, -1, 1, 9}}},
    {OPCASE(contiguous), .in = {N(3, 5)}},
    {OPCASE(contiguous), .in = {N(1)}},
    {OPCASE(contiguous), .in = {N(31, 37)}, .flags = CASE_BIG},
    {OPCASE(cat), .in = {N(3)}, .attrs = {.dim = {0}}},
    {OPCASE(cat), .in = {N(2, 3), N(1, 3)}, .attrs = {.dim = {0}}},
    {OPCASE(cat), .in = {N(2, 3), N(2, 3), N(2, 1)}, .attrs = {.dim = {-1}}},
    {OPCASE(cat), .in = {N(2, 0, 2), N(2, 3, 2)}, .attrs = {.dim = {1}}},
    {OPCASE(cat), .in = {N(1), N(2), N(3), N(4), N(5), N(6)}, .attrs = {.dim = {0}}},
    {OPCASE(cat), .in = {N(13, 29), N(13, 31)}, .attrs = {.dim = {1}}, .flags = CASE_BIG},

    {OPCASE(index_select), .in = {N(5), INDEX(5, 7)}, .attrs = {.dim = {0}}},
    {OPCASE(index_select), .in = {N(4, 3), INDEX64(4, 6)}, .attrs = {.dim = {0}}},
    {OPCASE(index_select), .in = {N(2, 4, 3), INDEX(4, 5)}, .attrs = {.dim = {1}}},
    {OPCASE(index_select), .in = {N(2, 4), INDEX64(4, 1)}, .attrs = {.dim = {-1}}},
    {OPCASE(index_select), .in = {N(4, 3), INDEX(4, 0)}, .attrs = {.dim = {0}}},
    {OPCASE(index_select), .in = {N(1, 3), INDEX(1, 4)}, .attrs = {.dim = {0}}},
    {OPCASE(index_select), .in = {N(29, 37), INDEX(29, 67)}, .attrs = {.dim = {0}},
     .flags = CASE_BIG},
    {OPCASE(gather), .in = {N(5), INDEX(5, 7)}, .attrs = {.dim = {0}}},
    {OPCASE(gather), .in = {N(3, 4), INDEX64(4, 3, 2)}, .attrs = {.dim = {1}}},
    {OPCASE(gather), .in = {N(2, 4, 3), INDEX(4, 2, 5, 3)}, .attrs = {.dim = {1}}},
    {OPCASE(gather), .in = {N(3, 4), INDEX64(3, 5, 4)}, .attrs = {.dim = {-2}}},
    {OPCASE(gather), .in = {N(1, 1), INDEX(1, 1, 1)}, .attrs = {.dim = {0}}},
    {OPCASE(gather), .in = {N(3, 4), INDEX(4, 3, 0)}, .attrs = {.dim = {1}}},
    {OPCASE(gather), .in = {N(17, 67), INDEX(67, 17, 31)}, .attrs = {.dim = {1}},
     .flags = CASE_BIG},
    {OPCASE(index_add), .in = {N(5), INDEX(5, 7), N(7)}, .attrs = {.dim = {0}}},
    {OPCASE(index_add), .in = {N(4, 3), INDEX64(4, 4), N(4, 3)}, .attrs = {.dim = {0}}},
    {OPCASE(index_add), .in = {N(2, 4, 3), INDEX(4, 5), N(2, 5, 3)}, .attrs = {.dim = {-2}}},
    {OPCASE(index_add), .in = {N(4, 3), INDEX(4, 0), N(0, 3)}, .attrs = {.dim = {0}}},
    {OPCASE(index_add), .in = {N(29, 37), INDEX(29, 67), N(67, 37)}, .attrs = {.dim = {0}},
     .flags = CASE_BIG},
    {OPCASE(scatter_add), .in = {N(5), INDEX(5, 7), N(7)}, .attrs = {.dim = {0}}},
    {OPCASE(scatter_add), .in = {N(3, 4), INDEX64(4, 3, 4), N(3, 4)}, .attrs = {.dim = {1}}},
    {OPCASE(scatter_add), .in = {N(2, 4, 3), INDEX(4, 2, 5, 3), N(2, 5, 3)},
     .attrs = {.dim = {-2}}},
    {OPCASE(scatter_add), .in = {N(3, 4), INDEX(4, 3, 0), N(3, 0)}, .attrs = {.dim = {1}}},
    {OPCASE(scatter_add), .in = {N(17, 67), INDEX(67, 17, 31), N(17, 31)}, .attrs = {.dim = {1}},
     .flags = CASE_BIG},
};

const case_table shape_cases = {cases, sizeof cases / sizeof *cases};
