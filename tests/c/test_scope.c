/* test_scope.c — scopes: what they release, keep and let go, in any nesting and order. */
#include "engine_helpers.h"

START_TEST(releases)
{
    am_tensor *before = VEC(AM_F32, 1);
    int64_t live = live_bytes(am_tensor_device(before));
    ck_assert_int_eq(am_scope_depth(), 0);
    OK(am_scope_push());
    ck_assert_int_eq(am_scope_depth(), 1);
    am_tensor *made = VEC(AM_F32, 2), *result = times(before, 3), *view;
    OK(am_tensor_detach(&view, before));
    OK(am_scope_pop());
    ck_assert(am_tensor_alive(before));
    ck_assert(!am_tensor_alive(made) && !am_tensor_alive(result) && !am_tensor_alive(view));
    ck_assert_int_eq(live_bytes(am_tensor_device(before)), live);
    FAILS(am_scope_pop(), AM_ESTATE, "push");
    am_tensor *out = NULL, *in[] = {made, before};
    FAILS(am_apply(AM_OP_add, &out, in, 2, NULL), AM_ESTATE, "scope");
    RELEASE(before, made, result, view);
}
END_TEST

START_TEST(keeps)
{
    OK(am_scope_push());
    am_tensor *outer = VEC(AM_F32, 0);
    OK(am_scope_push());
    am_tensor *a = VEC(AM_F32, 1), *b = VEC(AM_F32, 2), *c = VEC(AM_F32, 3);
    OK(am_scope_keep(a));
    OK(am_scope_keep(a));     /* has left already: stays in the outer one */
    OK(am_scope_keep(outer)); /* not this scope's to give away */
    OK(am_scope_escape(b));
    OK(am_scope_pop());
    ck_assert(am_tensor_alive(outer) && am_tensor_alive(a) && am_tensor_alive(b));
    ck_assert(!am_tensor_alive(c));
    OK(am_scope_pop());
    ck_assert(!am_tensor_alive(outer) && !am_tensor_alive(a) && am_tensor_alive(b));
    HOLDS(b, 2);
    OK(am_scope_keep(b)); /* without a scope nothing happens */
    OK(am_scope_escape(b));
    HOLDS(b, 2);
    RELEASE(outer, a, b, c);
}
END_TEST

/* Tensors may go in any order before their scope does. */
START_TEST(released_before)
{
    OK(am_scope_push());
    am_tensor *t[5];
    for (int i = 0; i < 5; i++)
        t[i] = VEC(AM_F32, 1);
    am_tensor_release(t[4]); /* last made, first in the list */
    am_tensor_release(t[0]);
    am_tensor_release(t[2]);
    am_tensor_drop(t[3]);
    OK(am_scope_pop());
    RELEASE(t[1], t[3]);
}
END_TEST

/* A scope that is set aside keeps what is in it, and goes on inside others. */
START_TEST(set_aside)
{
    am_scope *a, *b;
    FAILS(am_scope_set_aside(&a), AM_ESTATE, "push");
    FAILS(am_scope_take_up(NULL), AM_ESTATE, "set aside");
    OK(am_scope_push());
    am_tensor *first = VEC(AM_F32, 1);
    OK(am_scope_set_aside(&a));
    ck_assert_int_eq(am_scope_depth(), 0);
    OK(am_scope_push());
    am_tensor *outer = VEC(AM_F32, 2);
    OK(am_scope_push());
    OK(am_scope_set_aside(&b));
    OK(am_scope_take_up(a));
    FAILS(am_scope_take_up(a), AM_ESTATE, "set aside");
    ck_assert_int_eq(am_scope_depth(), 2);
    am_tensor *second = VEC(AM_F32, 3), *kept = VEC(AM_F32, 4);
    OK(am_scope_keep(kept));
    OK(am_scope_set_aside(&a));
    OK(am_scope_pop());
    ck_assert(!am_tensor_alive(outer) && !am_tensor_alive(kept));
    HOLDS(first, 1);
    HOLDS(second, 3);
    OK(am_scope_take_up(b));
    OK(am_scope_take_up(a));
    OK(am_scope_pop());
    OK(am_scope_pop());
    ck_assert(!am_tensor_alive(first) && !am_tensor_alive(second));
    RELEASE(first, outer, second, kept);
}
END_TEST

/* What an op saved for backward, and the storage under other views, outlives the scope. */
START_TEST(shared_storage)
{
    am_tensor *base = VEC(AM_F32, 1, 2, 3), *view, *kept;
    const int64_t two[] = {2}, one[] = {1};
    OK(am_scope_push());
    am_tensor *made = times(base, 10);
    OK(am_tensor_as_strided(&view, made, 1, two, one, 1));
    OK(am_scope_keep(view));
    OK(am_tensor_as_strided(&kept, base, 1, two, one, 0));
    OK(am_scope_pop());
    ck_assert(!am_tensor_alive(made) && !am_tensor_alive(kept));
    HOLDS(view, 20, 30);
    HOLDS(base, 1, 2, 3);
    RELEASE(base, view, kept, made);
}
END_TEST

START_TEST(gradients_in_scopes)
{
    am_tensor *x = leaf(VEC(AM_F32, 1, 2)), *g;
    am_event ev;
    for (int i = 1; i <= 3; i++) {
        OK(am_scope_push());
        am_tensor *y = times(x, 2), *loss = total(y);
        OK(am_backward_begin(loss, NULL));
        OK(am_backward_next(&ev));
        OK(am_tensor_grad(&g, x));
        HOLDS(g, 2.0 * i, 2.0 * i);
        OK(am_scope_pop());
        ck_assert(!am_tensor_alive(g)); /* what was read, not the gradient itself */
        HAS_GRAD(x, 2.0 * i, 2.0 * i);
        RELEASE(y, loss, g);
    }
    /* a forward pass that nobody finishes */
    OK(am_scope_push());
    am_tensor *y = times(x, 2);
    ck_assert_int_eq(am_tape_length(), 1);
    OK(am_scope_pop());
    ck_assert_int_eq(am_tape_length(), 0);
    RELEASE(x, y);
}
END_TEST

START_TEST(deep)
{
    enum { DEPTH = 1000 };
    am_tensor *t = NULL;
    for (int i = 0; i < DEPTH; i++)
        OK(am_scope_push());
    t = VEC(AM_F32, 5);
    for (int i = 0; i < DEPTH; i++) {
        OK(am_scope_keep(t));
        OK(am_scope_pop());
    }
    HOLDS(t, 5);
    am_tensor_release(t);
    OK(am_mem_fail_at(1));
    FAILS(am_scope_push(), AM_ENOMEM, "memory");
    ck_assert_int_eq(am_scope_depth(), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("scope");
    TCase *t = tcase_create("scopes");
    tcase_add_test(t, releases);
    tcase_add_test(t, keeps);
    tcase_add_test(t, released_before);
    tcase_add_test(t, set_aside);
    tcase_add_test(t, shared_storage);
    tcase_add_test(t, gradients_in_scopes);
    tcase_add_test(t, deep);
    suite_add_tcase(s, t);
    return run_suite(s);
}
