/* op_case.h — what a case of an op is, and the tables of them. Every op of engine/ops/ops.def has
 * rows in one of the cases_*.c; test_op_*.c walk them. How a case is run is in op_run.h. */
#ifndef OP_CASE_H
#define OP_CASE_H

#include "am.h"

enum { CASE_INPUTS = 8, CASE_DIMS = 6 };

/* How an input is filled. The floating kinds take the dtype a run asks for. */
enum {
    IN_NONE,
    IN_ABSENT,   /* an optional input passed as NULL */
    IN_NORMAL,   /* about -2..2 */
    IN_POSITIVE, /* 0.3..2.3, where log and roots are smooth */
    IN_AWAY,     /* 0.1 < |x| < 2, away from a kink at 0 */
    IN_SPACED,   /* pairwise distinct, also between inputs, by 0.01 at least */
    IN_TABLE,    /* f32 whatever the run asks for: a rope table */
    IN_FREQ,     /* f32: inverse frequencies */
    IN_INDEX32,  /* 0..n-1 */
    IN_INDEX64,
    IN_LABEL32, /* 0..n-1, about a third -100 */
    IN_LABEL64,
    IN_POS32,  /* 0..n-1 */
    IN_BOUNDS, /* int32 [B, T, 2]: random key ranges over n keys, some empty, some outside */
    IN_GROUPS, /* int32 [E+1]: where groups of n rows begin, some empty; ends with n */
    IN_PACK,   /* int32 [B, T, 2]: samples of n keys each, one behind the other */
    IN_PACKED, /* uint8: n f32 scales, then any codes */
    IN_BOOL
};

typedef struct op_input {
    int kind, ndim;
    int64_t shape[CASE_DIMS];
    int64_t n;
} op_input;

enum { CASE_BIG = 1 /* crosses tiles; too slow for finite differences */ };

typedef struct op_case {
    int op;
    const char *name;
    op_input in[CASE_INPUTS];
    am_attrs attrs;
    int flags;
} op_case;

typedef struct case_table {
    const op_case *cases;
    int n;
} case_table;
extern const case_table elem_cases, shape_cases, matrix_cases, decoder_cases;

/* Case i of all tables; NULL past the last. */
const op_case *case_at(int i);

/* ---- to write tables with ---------------------------------------------------------------- */

#define CASE_NDIM(...) ((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))
#define INPUT(kind, n, ...)                                                                        \
    {                                                                                              \
        kind, CASE_NDIM(__VA_ARGS__), {__VA_ARGS__}, n                                             \
    }
#define N(...)    INPUT(IN_NORMAL, 0, __VA_ARGS__)
#define P(...)    INPUT(IN_POSITIVE, 0, __VA_ARGS__)
#define AWAY(...) INPUT(IN_AWAY, 0, __VA_ARGS__)
#define D(...)    INPUT(IN_SPACED, 0, __VA_ARGS__)
#define BOOL(...) INPUT(IN_BOOL, 0, __VA_ARGS__)
#define SCALAR                                                                                     \
    {                                                                                              \
        IN_SPACED, 0, {0}, 0                                                                       \
    }
#define ABSENT                                                                                     \
    {                                                                                              \
        IN_ABSENT, 0, {0}, 0                                                                       \
    }
#define OPCASE(op_name) .op = AM_OP_##op_name, .name = #op_name

#endif
