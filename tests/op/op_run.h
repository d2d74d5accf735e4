/* op_run.h — running a case: filling its inputs, applying the op on a device in a dtype and layout,
 * backward, and reading everything back as doubles. Compares nothing but offers the comparer. */
#ifndef OP_RUN_H
#define OP_RUN_H

#include <stddef.h>
#include "op_case.h"

enum {
    LAYOUT_DENSE,
    LAYOUT_TRANSPOSED, /* dims stored in reverse order */
    LAYOUT_GAPS,       /* every second element, after an offset; NaN between */
    LAYOUT_COUNT
};

typedef struct run_opts {
    int device, dtype, layout;
    unsigned wants; /* mask of the inputs that require grad */
    int computed;   /* inputs are results of an op, not leaves */
    int applies;    /* applied so often before backward; 0 counts as 1 */
    int backwards;  /* forward and backward so often, gradients adding up; 0 counts as 1 */
    int shared;     /* 1 + an input whose tensor also serves as input `shared_with` */
    int shared_with;
} run_opts;

typedef struct run_result {
    int dtype, ndim, n_in;
    int64_t shape[AM_MAX_DIMS], n;
    double *out;
    void *bits; /* the output's own bytes */
    double *grad[CASE_INPUTS];
    int64_t n_grad[CASE_INPUTS];
} run_result;

typedef struct case_values {
    double *v[CASE_INPUTS];
    int64_t n[CASE_INPUTS];
} case_values;

int case_n_in(const op_case *c);
/* Inputs that take a gradient, as a mask. */
unsigned case_differentiable(const op_case *c);
/* Text for messages: op, input shapes. */
const char *case_text(const op_case *c);

/* Values of all inputs, the same for every device; rounded to what dtype holds. */
void case_fill(const op_case *c, int dtype, case_values *values);
void case_values_free(case_values *values);

/* Fails the running test when anything but AM_EUNSUP comes back, which it returns. */
int case_run(const op_case *c, const case_values *values, const run_opts *o, run_result *r);
void run_result_free(run_result *r);
/* The weights of the output's elements in the scalar that gradients are taken of. */
double out_weight(int64_t i);

/* Close is |got - want| <= rel * max(|want|, floor_share * largest |want|, floor_abs), or equal
 * (both infinite, too). NaN on either side is never close. */
typedef struct tolerance {
    double rel, floor_share, floor_abs;
} tolerance;
/* The first element that is not close; -1: all are. */
int64_t first_off(const double *got, const double *want, int64_t n, tolerance t);
/* The same, failing the test with a message that begins with `what`. */
void check_close(const char *what, const double *got, const double *want, int64_t n, tolerance t);

#endif
