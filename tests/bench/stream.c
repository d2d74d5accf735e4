/* The rate at which threads read memory: the sum of 1 GiB, best of ten; bytes a second on stdout.
 *   cc -O3 -march=native -fopenmp stream.c -o stream && ./stream THREADS */
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE = 2 << 20, LANES = 64 };

int main(int argc, char **argv)
{
    int64_t n = (int64_t)1 << 27; /* of 8 bytes */
    uint64_t *x = aligned_alloc(PAGE, (size_t)n * 8), total = 0;
    double best = 1e9;
    omp_set_num_threads(argc > 1 ? atoi(argv[1]) : 1);
    if (!x)
        return 1;
    madvise(x, (size_t)n * 8, MADV_HUGEPAGE);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++)
        x[i] = (uint64_t)i;
    for (int round = 0; round < 10; round++) {
        double start = omp_get_wtime();
#pragma omp parallel for schedule(static) reduction(+ : total)
        for (int64_t i = 0; i < n; i += LANES) {
            uint64_t sum = 0;
            for (int j = 0; j < LANES; j++)
                sum += x[i + j];
            total += sum;
        }
        double seconds = omp_get_wtime() - start;
        best = seconds < best ? seconds : best;
    }
    printf("%.0f\n", (double)n * 8 / best);
    return total == 0; /* it is used */
}
