/* linalg.h — symmetric eigenproblems and QR in f64, for preconditioners of some thousand rows. One
 * source for ref (linalg_ref.c, one thread) and for each instruction set (simd/linalg.c); who
 * includes it says with AM_LINALG_TEAM(work) how many threads a loop may have. Loops over rows are
 * shared between threads, a row's sum is one thread's, so the bits do not depend on their number.
 *
 * Matrices are row-major [n, n]. Eigenvectors and columns of Q are rows here, so that all inner
 * loops run over neighbours. */
#ifndef AM_KERNELS_LINALG_H
#define AM_KERNELS_LINALG_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#include "backend.h"

#define AM_LINE static inline __attribute__((always_inline))
typedef double am_vd __attribute__((vector_size(64)));
enum { AM_VD = 8 };

AM_LINE double row_dot(const double *a, const double *b, int64_t n)
{
    am_vd sum[2] = {{0}}, x, y;
    int64_t i = 0;
    for (; i + 2 * AM_VD <= n; i += 2 * AM_VD)
        for (int j = 0; j < 2; j++) {
            memcpy(&x, a + i + j * AM_VD, sizeof x);
            memcpy(&y, b + i + j * AM_VD, sizeof y);
            sum[j] += x * y;
        }
    double tail = 0;
    for (; i < n; i++)
        tail += a[i] * b[i];
    am_vd s = sum[0] + sum[1];
    return (((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))) + tail;
}

/* y += c x */
AM_LINE void row_add(double *y, double c, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += c * x[i];
}

/* Turn x into a Householder vector v with v[0] = 1, such that (1 - *tau v v^T) x = (*beta, 0, …).
 * Scaled by the largest element, so that squares neither overflow nor vanish. */
AM_LINE void householder(double *x, int64_t n, double *tau, double *beta)
{
    double most = 0;
    for (int64_t i = 1; i < n; i++)
        most = fmax(most, fabs(x[i]));
    *tau = 0;
    *beta = x[0];
    if (most == 0) { /* nothing below: the identity */
        x[0] = 1;
        return;
    }
    most = fmax(most, fabs(x[0]));
    for (int64_t i = 0; i < n; i++)
        x[i] /= most;
    double alpha = x[0], norm = sqrt(row_dot(x, x, n)), b = alpha > 0 ? -norm : norm;
    *tau = (b - alpha) / b;
    *beta = b * most;
    double scale = 1 / (alpha - b);
    for (int64_t i = 1; i < n; i++)
        x[i] *= scale;
    x[0] = 1;
}

/* ---- symmetric eigenproblem: Householder tridiagonalisation, then implicit QL ---------------
 * (Golub and Van Loan, Matrix Computations, 8.3) */

/* a becomes, in its rows, the Householder vectors: row k's from column k + 1 on. d [n] and e [n]
 * get the diagonal and, from e[0] on, what lies beside it; tau [n] the factors. p: work [n]. */
AM_LINE void tridiagonalise(double *a, double *d, double *e, double *tau, double *p, int64_t n)
{
    for (int64_t k = 0; k + 1 < n; k++) {
        double *v = a + k * n + k + 1;
        int64_t m = n - k - 1;
        d[k] = a[k * n + k];
        householder(v, m, &tau[k], &e[k]);
        if (tau[k] == 0)
            continue;
#pragma omp parallel for num_threads(AM_LINALG_TEAM(m *m)) schedule(static)
        for (int64_t i = 0; i < m; i++)
            p[i] = tau[k] * row_dot(a + (k + 1 + i) * n + k + 1, v, m);
        double half = 0.5 * tau[k] * row_dot(p, v, m);
        row_add(p, -half, v, m);
#pragma omp parallel for num_threads(AM_LINALG_TEAM(m *m)) schedule(static)
        for (int64_t i = 0; i < m; i++) {
            double *row = a + (k + 1 + i) * n + k + 1, x = v[i], y = p[i];
            for (int64_t j = 0; j < m; j++)
                row[j] -= x * p[j] + y * v[j];
        }
    }
    d[n - 1] = a[n * n - 1];
    e[n - 1] = 0;
}

/* q's rows become the columns of H_0 H_1 …, whose vectors lie in rows of a from column k + 1 on. */
AM_LINE void gather_reflections(double *q, const double *a, const double *tau, int64_t first,
                                int64_t n)
{
    memset(q, 0, (size_t)(n * n) * sizeof *q);
    for (int64_t i = 0; i < n; i++)
        q[i * n + i] = 1;
    for (int64_t k = n - 1 - first; k >= 0; k--) {
        const double *v = a + k * n + k + first;
        int64_t m = n - k - first;
        if (tau[k] == 0)
            continue;
#pragma omp parallel for num_threads(AM_LINALG_TEAM(m *m)) schedule(static)
        for (int64_t i = k + first; i < n; i++) {
            double *row = q + i * n + k + first;
            row_add(row, -tau[k] * row_dot(row, v, m), v, m);
        }
    }
}

/* One implicit QL step on l..m of d and e; the rotation of rows i and i + 1 goes to c[i], s[i].
 * Returns the first i that has one. */
AM_LINE int64_t ql_step(double *d, double *e, int64_t l, int64_t m, double *c, double *s)
{
    double g = (d[l + 1] - d[l]) / (2 * e[l]), r = hypot(g, 1);
    double sine = 1, cosine = 1, p = 0;
    g = d[m] - d[l] + e[l] / (g + copysign(r, g));
    for (int64_t i = m - 1; i >= l; i--) {
        double f = sine * e[i], b = cosine * e[i];
        r = hypot(f, g);
        e[i + 1] = r;
        if (r == 0) { /* split: d was already right */
            d[i + 1] -= p;
            e[m] = 0;
            return i + 1;
        }
        sine = f / r;
        cosine = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * sine + 2 * cosine * b;
        p = sine * r;
        d[i + 1] = g + p;
        g = cosine * r - b;
        c[i] = cosine;
        s[i] = sine;
    }
    d[l] -= p;
    e[l] = g;
    e[m] = 0;
    return l;
}

/* The rotations of a step on rows of q, a stretch of columns for each thread. */
AM_LINE void rotate_rows(double *q, const double *c, const double *s, int64_t l, int64_t m,
                         int64_t n)
{
    enum { STRETCH = 64 };
#pragma omp parallel for num_threads(AM_LINALG_TEAM((m - l) * n)) schedule(static)
    for (int64_t first = 0; first < n; first += STRETCH) {
        int64_t count = n - first < STRETCH ? n - first : STRETCH;
        for (int64_t i = m - 1; i >= l; i--) {
            double *low = q + i * n + first, *high = low + n, ci = c[i], si = s[i];
            for (int64_t j = 0; j < count; j++) {
                double h = high[j], w = low[j];
                high[j] = si * w + ci * h;
                low[j] = ci * w - si * h;
            }
        }
    }
}

/* d becomes the eigenvalues, rows of q what they were times the rotations. False: no convergence,
 * as with numbers that are not finite. */
AM_LINE int ql(double *q, double *d, double *e, double *c, double *s, int64_t n)
{
    enum { TRIES = 60 };
    double norm = 0;
    for (int64_t i = 0; i < n; i++)
        norm = fmax(norm, fabs(d[i]) + fabs(e[i]));
    for (int64_t l = 0; l < n; l++)
        for (int tries = 0;; tries++) {
            int64_t m = l;
            while (m + 1 < n && !(fabs(e[m]) <= 0x1p-53 * norm)) /* noise of the greatest */
                m++;
            if (m == l)
                break;
            if (tries == TRIES)
                return 0;
            int64_t from = ql_step(d, e, l, m, c, s);
            rotate_rows(q, c, s, from, m, n);
        }
    for (int64_t i = 0; i < n; i++)
        if (!(d[i] - d[i] == 0))
            return 0;
    return 1;
}

/* Values ascending, rows with them. */
AM_LINE void sort_rows(double *q, double *d, double *row, int64_t n)
{
    for (int64_t i = 0; i + 1 < n; i++) {
        int64_t least = i;
        for (int64_t j = i + 1; j < n; j++)
            if (d[j] < d[least])
                least = j;
        if (least == i)
            continue;
        double value = d[i];
        size_t bytes = (size_t)n * sizeof *q;
        d[i] = d[least];
        d[least] = value;
        memcpy(row, q + i * n, bytes);
        memcpy(q + i * n, q + least * n, bytes);
        memcpy(q + least * n, row, bytes);
    }
}

AM_LINE int eigh(const am_eigh_args *args)
{
    int64_t n = args->n;
    double *a = args->work, *e = a + n * n, *tau = e + n, *c = tau + n, *s = c + n;
    memcpy(a, args->vectors, (size_t)(n * n) * sizeof *a);
    tridiagonalise(a, args->values, e, tau, c, n);
    gather_reflections(args->vectors, a, tau, 1, n);
    if (!ql(args->vectors, args->values, e, c, s, n))
        return am_kernel_fail(AM_EINVAL,
                              "the eigenvalues of a matrix of %lld rows can't be found: "
                              "it has numbers that are not finite",
                              (long long)n);
    sort_rows(args->vectors, args->values, e, n);
    return AM_OK;
}

/* ---- QR by Householder reflections ---------------------------------------------------------- */

/* q holds the columns of a matrix as rows, and becomes the columns of its Q as rows. */
AM_LINE int qr(const am_qr_args *args)
{
    int64_t n = args->n;
    double *a = args->work, *tau = a + n * n, beta;
    memcpy(a, args->q, (size_t)(n * n) * sizeof *a);
    for (int64_t k = 0; k < n; k++) {
        double *v = a + k * n + k;
        int64_t m = n - k;
        householder(v, m, &tau[k], &beta);
        if (tau[k] == 0)
            continue;
#pragma omp parallel for num_threads(AM_LINALG_TEAM(m *m)) schedule(static)
        for (int64_t i = k + 1; i < n; i++) {
            double *row = a + i * n + k;
            row_add(row, -tau[k] * row_dot(row, v, m), v, m);
        }
    }
    gather_reflections(args->q, a, tau, 0, n);
    return AM_OK;
}

#endif
