/* Symmetric eigenproblems and QR of every instruction set: by what they must fulfil, and the same
 * bits on any number of threads. */
#include "test_kernels.h"

static const int64_t sizes[] = {1, 2, 3, 7, 16, 33, 130};
enum { SIZES = sizeof sizes / sizeof *sizes, KINDS = 6 };

/* Row-major symmetric matrices: random, of low rank, diagonal, with equal values, graded, zero. */
static double *symmetric(int64_t n, int kind)
{
    double *a = calloc((size_t)(n * n), sizeof *a), *g = random_elems(AM_F64, n * n, -1, 1);
    int64_t rank = kind == 1 ? (n + 1) / 2 : n;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t k = 0; k < rank; k++)
                sum += g[i * n + k] * g[j * n + k];
            if (kind == 4) /* from 1 down to 1e-12 */
                sum *= pow(10, -6.0 * (double)(i + j) / (double)n);
            a[i * n + j] = kind == 2 ? (i == j ? g[i] : 0) : kind == 3 ? (i == j ? 2 : 0) : sum;
            if (kind == 5)
                a[i * n + j] = 0;
        }
    free(g);
    return a;
}

static double largest(const double *a, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n * n; i++)
        most = fmax(most, fabs(a[i]));
    return most;
}

static void check_orthogonal(const char *what, const double *rows, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) {
            double dot = 0;
            for (int64_t k = 0; k < n; k++)
                dot += rows[i * n + k] * rows[j * n + k];
            ck_assert_msg(fabs(dot - (i == j)) < 1e-13 * (double)(n + 8), "%s: rows %d and %d: %g",
                          what, (int)i, (int)j, dot);
        }
}

static void eigh_case(const am_backend *ref, const am_cpu_kernels *k, int64_t n, int kind)
{
    double *a = symmetric(n, kind), *v[2], *w[2], *work = malloc((size_t)(n * (n + 4)) * sizeof *a);
    for (int t = 0; t < 2; t++) {
        v[t] = copy_elems(AM_F64, n * n, a);
        w[t] = calloc((size_t)n, sizeof *a);
        am_threads_set(t ? 3 : 1);
        am_eigh_args args = {v[t], w[t], work, n};
        int rc = k ? k->eigh(NULL, &args) : ref->eigh(NULL, &args);
        ck_assert_msg(rc == AM_OK, "kind %d, n %d: %d", kind, (int)n, rc);
    }
    check_same_bits("eigh: threads", v[0], v[1], (size_t)(n * n) * sizeof *a);
    check_same_bits("eigh: values", w[0], w[1], (size_t)n * sizeof *a);
    check_orthogonal("eigh", v[0], n);
    double scale = largest(a, n) * (double)n;
    for (int64_t r = 0; r < n; r++) {
        ck_assert_msg(r == 0 || w[0][r] >= w[0][r - 1], "values are not ascending");
        for (int64_t i = 0; i < n; i++) {
            double sum = 0;
            for (int64_t j = 0; j < n; j++)
                sum += a[i * n + j] * v[0][r * n + j];
            ck_assert_msg(fabs(sum - w[0][r] * v[0][r * n + i]) <= 1e-14 * scale,
                          "kind %d, n %d: A v - w v is %g", kind, (int)n,
                          sum - w[0][r] * v[0][r * n + i]);
        }
    }
    for (int t = 0; t < 2; t++) {
        free(v[t]);
        free(w[t]);
    }
    free(a);
    free(work);
}

START_TEST(eigh)
{
    for (int isa = -1; isa < ISA_COUNT; isa++) /* -1: ref's own */
        for (int c = 0; (isa < 0 || isa_kernels(isa)) && c < SIZES * KINDS; c++)
            eigh_case(&am_backend_ref, isa < 0 ? NULL : isa_kernels(isa), sizes[c % SIZES],
                      c / SIZES);
}
END_TEST

START_TEST(eigh_refuses)
{
    for (int isa = -1; isa < ISA_COUNT; isa++)
        for (int c = 0; (isa < 0 || isa_kernels(isa)) && c < 2; c++) {
            double a[9] = {1, 2, 3, 2, c ? INFINITY : NAN, 1, 3, 1, 2}, w[3], work[21];
            am_eigh_args args = {a, w, work, 3};
            ck_assert_int_eq(isa < 0 ? am_backend_ref.eigh(NULL, &args)
                                     : isa_kernels(isa)->eigh(NULL, &args),
                             AM_EINVAL);
        }
}
END_TEST

/* Q is orthogonal, and Q^T A upper triangular with the signs that LAPACK has: R's diagonal is
 * negative where the column's first element is positive. */
static void qr_case(const am_backend *ref, const am_cpu_kernels *k, int64_t n, int kind)
{
    double *a = symmetric(n, kind), *q[2], *work = malloc((size_t)(n * (n + 1)) * sizeof *a);
    for (int t = 0; t < 2; t++) {
        q[t] = copy_elems(AM_F64, n * n, a);
        am_threads_set(t ? 3 : 1);
        am_qr_args args = {q[t], work, n};
        ck_assert_int_eq(k ? k->qr(NULL, &args) : ref->qr(NULL, &args), AM_OK);
    }
    check_same_bits("qr: threads", q[0], q[1], (size_t)(n * n) * sizeof *a);
    check_orthogonal("qr", q[0], n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double r = 0; /* of column j, which is a's row */
            for (int64_t l = 0; l < n; l++)
                r += q[0][i * n + l] * a[j * n + l];
            ck_assert_msg(j >= i || fabs(r) <= 1e-14 * largest(a, n) * (double)n, "R[%d, %d] is %g",
                          (int)i, (int)j, r);
            if (i == 0 && j == 0 && n > 1 && kind == 0)
                ck_assert_msg(r < 0, "a's first element is positive, and R's is, too");
        }
    for (int t = 0; t < 2; t++)
        free(q[t]);
    free(a);
    free(work);
}

START_TEST(qr)
{
    for (int isa = -1; isa < ISA_COUNT; isa++)
        for (int c = 0; (isa < 0 || isa_kernels(isa)) && c < SIZES * KINDS; c++)
            qr_case(&am_backend_ref, isa < 0 ? NULL : isa_kernels(isa), sizes[c % SIZES],
                    c / SIZES);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {eigh, eigh_refuses, qr};
    return run_suite("kernels_linalg", tests, sizeof tests / sizeof *tests);
}
