/* fit.c — a C program on libamlua: finds the w for which w x is nearest to y, by gradient descent.
 *   cc fit.c $(pkg-config --cflags --libs amlua) -o fit && ./fit */
#include <am.h>
#include <stdio.h>
#include <stdlib.h>

static void check(int status)
{
    if (status == AM_OK)
        return;
    fprintf(stderr, "fit: %s\n", am_error_message());
    exit(1);
}

static am_tensor *tensor(const float *values, int64_t n)
{
    am_tensor *t;
    check(am_tensor_new(&t, AM_F32, 1, &n, 0));
    check(am_tensor_write(t, values, (size_t)n * sizeof *values));
    return t;
}

/* mean((w x - y)^2); backward leaves its gradient in w. */
static double loss_of(am_tensor *w, am_tensor *x, am_tensor *y)
{
    am_tensor *wx, *off, *square, *mean;
    am_attrs all = {.reduce = {.dim = AM_ALL_DIMS}};
    am_event event;
    double loss;
    check(am_apply(AM_OP_mul, &wx, (am_tensor *[]){w, x}, 2, NULL));
    check(am_apply(AM_OP_sub, &off, (am_tensor *[]){wx, y}, 2, NULL));
    check(am_apply(AM_OP_mul, &square, (am_tensor *[]){off, off}, 2, NULL));
    check(am_apply(AM_OP_mean, &mean, &square, 1, &all));
    check(am_tensor_item(mean, &loss));
    check(am_backward_begin(mean, NULL));
    do
        check(am_backward_next(&event));
    while (event.kind != AM_EV_DONE);
    am_tensor *made[] = {wx, off, square, mean};
    for (int i = 0; i < 4; i++)
        am_tensor_release(made[i]);
    return loss;
}

int main(void)
{
    am_tensor *x = tensor((float[]){1, 2, 3, 4}, 4), *y = tensor((float[]){2, 4, 6, 8}, 4);
    am_tensor *w = tensor((float[]){0}, 1), *grad;
    double loss = 0, slope, weight = 0;
    check(am_tensor_set_requires_grad(w, 1));
    for (int step = 0; step < 20; step++) {
        loss = loss_of(w, x, y);
        check(am_tensor_grad(&grad, w));
        check(am_tensor_item(grad, &slope));
        am_tensor_release(grad);
        check(am_tensor_item(w, &weight));
        check(am_tensor_fill(w, weight - 0.05 * slope));
        check(am_tensor_set_grad(w, NULL));
    }
    printf("w is %.4f, the loss %.1e\n", weight, loss);
    am_tensor_release(x);
    am_tensor_release(y);
    am_tensor_release(w);
    am_shutdown();
    return 0;
}
