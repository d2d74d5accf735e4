/* fit.c — a C program on libamlua: finds the w for which w x is nearest to y = x + x.
 *   cc fit.c $(pkg-config --cflags --libs amlua) -o fit \
 *      -Wl,-rpath,$(pkg-config --variable=libdir amlua) && ./fit */
#include <am.h>
#include <err.h>
#include <stdio.h>

static void check(int status)
{
    if (status != AM_OK)
        errx(1, "%s", am_error_message());
}

static am_tensor *op(int code, am_tensor *a, am_tensor *b) /* without b: over all of a */
{
    am_tensor *out;
    am_attrs all = {.reduce = {.dim = AM_ALL_DIMS}};
    check(am_apply(code, &out, (am_tensor *[]){a, b}, b ? 2 : 1, b ? NULL : &all));
    return out;
}

int main(void)
{
    const float values[] = {1, 2, 3, 4};
    am_tensor *x, *w, *t[5];
    am_event event;
    double loss = 0, slope, weight = 0;
    check(am_tensor_new(&x, AM_F32, 1, &(int64_t){4}, 0));
    check(am_tensor_write(x, values, sizeof values));
    check(am_tensor_new(&w, AM_F32, 1, &(int64_t){1}, 0));
    check(am_tensor_set_requires_grad(w, 1));
    am_tensor *y = op(AM_OP_add, x, x);
    for (int step = 0; step < 20; step++) {
        check(am_tensor_fill(w, weight));
        t[0] = op(AM_OP_sub, t[1] = op(AM_OP_mul, w, x), y);
        t[2] = op(AM_OP_mean, t[3] = op(AM_OP_mul, t[0], t[0]), NULL);
        check(am_tensor_item(t[2], &loss));
        check(am_backward_begin(t[2], NULL));
        do
            check(am_backward_next(&event));
        while (event.kind != AM_EV_DONE);
        check(am_tensor_grad(&t[4], w));
        check(am_tensor_item(t[4], &slope));
        check(am_tensor_set_grad(w, NULL));
        weight -= 0.05 * slope;
        for (int i = 0; i < 5; i++)
            am_tensor_release(t[i]);
    }
    printf("w is %.4f, the loss %.1e\n", weight, loss);
    am_tensor_release(x);
    am_tensor_release(y);
    am_tensor_release(w);
    am_shutdown();
    return 0;
}
