/* test_tape.c — recording and backward: reuse after backward, sharing of gradients, custom nodes,
 * tapes within tapes, tapes that are set aside, shells that let go, interrupts. The ops' own
 * gradients are tests/op's. */
#include <signal.h>
#include "engine_helpers.h"

static int run_backward(am_tensor *loss)
{
    am_event ev;
    int rc = am_backward_begin(loss, NULL);
    if (rc == AM_OK)
        rc = am_backward_next(&ev);
    if (rc == AM_OK)
        ck_assert_int_eq(ev.kind, AM_EV_DONE);
    return rc;
}

START_TEST(gone_after_backward)
{
    am_tensor *x = leaf(VEC(AM_F32, 1, 2)), *y = times(x, 3), *loss = total(y), *out = NULL;
    ck_assert_int_eq(am_tape_length(), 2);
    OK(run_backward(loss));
    ck_assert_int_eq(am_tape_length(), 0);
    HAS_GRAD(x, 3, 3);
    FAILS(run_backward(loss), AM_ESTATE, "once");
    am_attrs at = {.scalar = {1}};
    FAILS(am_apply(AM_OP_mul_scalar, &out, &y, 1, &at), AM_ESTATE, "detach");
    am_tensor *d;
    OK(am_tensor_detach(&d, y));
    am_tensor *again = times(d, 2);
    HOLDS(again, 6, 12);
    ck_assert(!am_tensor_requires_grad(again));
    RELEASE(x, y, loss, d, again);
}
END_TEST

START_TEST(begins_badly)
{
    am_tensor *x = leaf(VEC(AM_F32, 1, 2)), *y = times(x, 3), *frozen = VEC(AM_F32, 1);
    am_tensor *three = VEC(AM_F32, 1, 2, 3);
    am_event ev;
    FAILS(am_backward_next(&ev), AM_ESTATE, "am_backward_begin");
    FAILS(am_backward_begin(y, NULL), AM_ESHAPE, "scalar");
    FAILS(am_backward_begin(y, three), AM_ESHAPE, "[2]");
    FAILS(am_backward_begin(frozen, NULL), AM_ESTATE, "require grad");
    FAILS(am_backward_begin(NULL, NULL), AM_EINVAL, "missing");
    FAILS(am_backward_custom_grad(0, x), AM_ESTATE, "not asked for");
    FAILS(am_tape_pop(), AM_ESTATE, "push");
    /* none of it spoilt the tape */
    am_tensor *g = VEC(AM_F32, 1, 10);
    OK(am_backward_begin(y, g));
    FAILS(am_backward_begin(y, g), AM_ESTATE, "already");
    OK(am_backward_next(&ev));
    HAS_GRAD(x, 3, 30);
    RELEASE(x, y, frozen, three, g);
}
END_TEST

START_TEST(of_a_leaf_itself)
{
    am_tensor *x = leaf(VEC(AM_F32, 5));
    OK(run_backward(x));
    OK(run_backward(x));
    HAS_GRAD(x, 2);
    RELEASE(x);
}
END_TEST

/* add gives one gradient to both sides: writing one must not change the other. */
START_TEST(shared_gradients_are_copied_on_write)
{
    am_tensor *x = leaf(VEC(AM_F64, 1, 2)), *z = leaf(VEC(AM_F64, 3, 4));
    am_tensor *a = times(x, 1), *b = times(z, 1);
    am_tensor *c = op2(AM_OP_add, a, b); /* da = db = dc */
    am_tensor *d = op2(AM_OP_mul, a, a); /* da gets more, db must not */
    am_tensor *e = op2(AM_OP_add, c, d), *loss = total(e);
    OK(run_backward(loss));
    HAS_GRAD(x, 1 + 2 * 1, 1 + 2 * 2);
    HAS_GRAD(z, 1, 1);
    RELEASE(x, z, a, b, c, d, e, loss);
}
END_TEST

/* The caller's gradient tensor is shared too, and stays as it was. */
START_TEST(the_given_gradient_stays)
{
    am_tensor *x = leaf(VEC(AM_F64, 1, 2)), *y = times(x, 1), *g = VEC(AM_F64, 10, 20);
    am_tensor *outs[] = {y, y}, *grads[] = {g, g};
    am_event ev;
    OK(am_backward_begin_many(outs, grads, 2));
    OK(am_backward_next(&ev));
    HAS_GRAD(x, 20, 40);
    HOLDS(g, 10, 20);
    RELEASE(x, y, g);
}
END_TEST

START_TEST(clearing_and_setting)
{
    am_tensor *x = leaf(VEC(AM_BF16, 1, 2)), *g = NULL, *set = VEC(AM_F64, 0.5, 3);
    OK(am_tensor_grad(&g, x));
    ck_assert_ptr_null(g);
    OK(am_tensor_set_grad(x, set));
    OK(am_tensor_grad(&g, x));
    ck_assert_int_eq(am_tensor_dtype(g), AM_F32);
    am_tensor_release(g);
    am_tensor *loss = total(x);
    OK(run_backward(loss));
    HAS_GRAD(x, 1.5, 4);
    OK(am_tensor_set_grad(x, NULL));
    OK(am_tensor_grad(&g, x));
    ck_assert_ptr_null(g);
    am_tensor *three = VEC(AM_F32, 1, 2, 3), *whole = VEC(AM_I32, 1, 2);
    FAILS(am_tensor_set_grad(x, three), AM_ESHAPE, "grad");
    FAILS(am_tensor_set_grad(x, whole), AM_EINVAL, "int32");
    FAILS(am_tensor_set_requires_grad(whole, 1), AM_EINVAL, "int32");
    RELEASE(x, set, loss, three, whole);
}
END_TEST

START_TEST(grad_mode_off)
{
    am_tensor *x = leaf(VEC(AM_F32, 1));
    ck_assert_int_eq(am_grad_mode_set(0), 1);
    am_tensor *y = times(x, 2);
    ck_assert_int_eq(am_grad_mode(), 0);
    ck_assert_int_eq(am_grad_mode_set(1), 0);
    ck_assert(!am_tensor_requires_grad(y));
    ck_assert(am_tensor_is_leaf(y));
    ck_assert_int_eq(am_tape_length(), 0);
    RELEASE(x, y);
}
END_TEST

/* ---- custom nodes -------------------------------------------------------------------------- */

START_TEST(custom_nodes)
{
    am_tensor *x = leaf(VEC(AM_F32, 1, 2)), *k = VEC(AM_F32, 5, 5), *y = times(x, 1);
    am_grad_mode_set(0);
    am_tensor *a = times(y, 10), *b = times(y, 100);
    am_grad_mode_set(1);
    am_tensor *in[] = {y, k}, *out[] = {a, b};
    int recorded = 0;
    OK(am_record_custom(&recorded, 42, out, 2, in, 2));
    ck_assert(recorded && am_tensor_requires_grad(a) && am_tensor_requires_grad(b));
    am_tensor *loss = total(a); /* b gets no gradient */
    OK(am_backward_begin(loss, NULL));
    am_event ev;
    OK(am_backward_next(&ev));
    ck_assert_int_eq(ev.kind, AM_EV_CUSTOM);
    ck_assert_int_eq(ev.id, 42);
    ck_assert(ev.n_in == 2 && ev.n_out == 2 && ev.needs_grad[0] && !ev.needs_grad[1]);
    ck_assert_ptr_nonnull(ev.grad_out[0]);
    ck_assert_ptr_null(ev.grad_out[1]);
    HOLDS(ev.grad_out[0], 1, 1);
    am_tensor *wrong = VEC(AM_F32, 1), *right = VEC(AM_F32, 7, 8);
    FAILS(am_record_custom(&recorded, 43, &wrong, 1, &x, 1), AM_ESTATE, "while backward runs");
    FAILS(am_backward_custom_grad(0, wrong), AM_ESHAPE, "[1]");
    FAILS(am_backward_custom_grad(2, right), AM_ESTATE, "3");
    FAILS(am_backward_custom_grad(-1, right), AM_ESTATE, "");
    FAILS(am_backward_custom_grad(0, NULL), AM_EINVAL, "missing");
    OK(am_backward_custom_grad(1, right)); /* not needed: ignored */
    OK(am_backward_custom_grad(0, right));
    OK(am_backward_custom_grad(0, right)); /* adds, and leaves the caller's tensor alone */
    am_tensor_release(ev.grad_out[0]);
    OK(am_backward_next(&ev));
    ck_assert_int_eq(ev.kind, AM_EV_DONE);
    HAS_GRAD(x, 14, 16);
    HOLDS(right, 7, 8);
    RELEASE(x, k, y, a, b, loss, wrong, right);
}
END_TEST

/* The next event is the hook of a leaf. */
static void leaf_is_final(am_tensor *t, int id)
{
    am_event ev;
    OK(am_backward_next(&ev));
    ck_assert_msg(ev.kind == AM_EV_LEAF && ev.id == id && ev.leaf == t,
                  "event %d with id %d, expected that of leaf %d", ev.kind, ev.id, id);
    am_tensor_release(ev.leaf);
}

/* A leaf is announced after its last use, whatever lies between its uses, and may then be changed.
 */
START_TEST(final_leaves)
{
    am_tensor *x = leaf(VEC(AM_F32, 2, 3)), *w = leaf(VEC(AM_F32, 5, 7));
    am_tensor *plain = leaf(VEC(AM_F32, 1, 1)), *unused = leaf(VEC(AM_F32, 1, 1));
    am_event ev;
    OK(am_tensor_set_grad_hook(x, 10));
    OK(am_tensor_set_grad_hook(w, 20));
    OK(am_tensor_set_grad_hook(unused, 30));
    ck_assert_int_eq(am_tensor_grad_hook(w), 20);
    am_tensor *a = times(x, 10), *b = op2(AM_OP_mul, a, w), *c = op2(AM_OP_add, b, plain);
    am_tensor *d = op2(AM_OP_mul, c, x), *side = times(unused, 2), *loss = total(d);
    FAILS(am_tensor_set_grad_hook(a, 1), AM_ESTATE, "leaf");
    FAILS(am_tensor_set_grad_hook(NULL, 1), AM_EINVAL, "missing");
    OK(am_backward_begin(loss, NULL)); /* sum of 10 x^2 w + x plain */
    leaf_is_final(w, 20);
    HAS_GRAD(w, 10 * 4, 10 * 9);
    OK(am_tensor_fill(w, 1e9));
    leaf_is_final(x, 10);
    HAS_GRAD(x, 20 * 2 * 5 + 1, 20 * 3 * 7 + 1);
    OK(am_backward_next(&ev));
    ck_assert_int_eq(ev.kind, AM_EV_DONE); /* none for `unused`, which has no gradient */
    HAS_GRAD(plain, 2, 3);
    /* a leaf that is the loss; and one whose hook is gone */
    am_tensor *one = leaf(VEC(AM_F32, 4));
    OK(am_tensor_set_grad_hook(one, 7));
    OK(am_backward_begin(one, NULL));
    leaf_is_final(one, 7);
    OK(am_backward_next(&ev));
    ck_assert_int_eq(ev.kind, AM_EV_DONE);
    OK(am_tensor_set_grad_hook(one, 0));
    OK(run_backward(one));
    RELEASE(x, w, plain, unused, a, b, c, d, side, loss, one);
}
END_TEST

/* A custom node's forward read w, which only its backward will tell: w is final when the node has
 * passed, and a tape within, as its backward uses, says nothing. */
START_TEST(final_leaves_of_blocks)
{
    am_tensor *x = leaf(VEC(AM_F32, 2)), *w = leaf(VEC(AM_F32, 3)), *y = times(x, 1);
    am_event ev;
    int recorded;
    OK(am_tensor_set_grad_hook(w, 5));
    am_grad_mode_set(0);
    OK(am_tape_note_leaves(1));
    am_tensor *first = op2(AM_OP_mul, y, w);
    OK(am_tape_note_leaves(0));
    am_grad_mode_set(1);
    OK(am_record_custom(&recorded, 1, &first, 1, &y, 1));
    am_tensor *loss = op2(AM_OP_mul, first, w);
    OK(am_backward_begin(loss, NULL));
    OK(am_backward_next(&ev));
    ck_assert_int_eq(ev.kind, AM_EV_CUSTOM);
    HAS_GRAD(w, 6);
    OK(am_tape_push());
    am_tensor *inner = leaf(VEC(AM_F32, 2)), *again = op2(AM_OP_mul, inner, w);
    am_event within;
    OK(am_backward_begin(again, ev.grad_out[0]));
    OK(am_backward_next(&within));
    ck_assert_int_eq(within.kind, AM_EV_DONE);
    OK(am_tape_pop());
    am_tensor_release(ev.grad_out[0]);
    leaf_is_final(w, 5);
    HAS_GRAD(w, 6 + 3 * 2);
    OK(am_backward_next(&ev));
    ck_assert_int_eq(ev.kind, AM_EV_DONE);
    RELEASE(x, w, y, first, loss, inner, again);
}
END_TEST

START_TEST(custom_nodes_refused)
{
    am_tensor *x = leaf(VEC(AM_F32, 1)), *plain = VEC(AM_F32, 1), *y = times(x, 1);
    am_tensor *many[9], *none[] = {NULL};
    int recorded = 1;
    for (int i = 0; i < 9; i++)
        many[i] = plain;
    OK(am_record_custom(&recorded, 1, &plain, 1, &plain, 1));
    ck_assert(!recorded && !am_tensor_requires_grad(plain));
    FAILS(am_record_custom(&recorded, 1, many, 9, &x, 1), AM_EINVAL, "8");
    FAILS(am_record_custom(&recorded, 1, &plain, 1, many, 9), AM_EINVAL, "8");
    FAILS(am_record_custom(&recorded, 1, &plain, 0, &x, 1), AM_EINVAL, "1 to");
    FAILS(am_record_custom(&recorded, 1, &y, 1, &x, 1), AM_ESTATE, "no_grad");
    FAILS(am_record_custom(&recorded, 1, none, 1, &x, 1), AM_EINVAL, "missing");
    am_tensor *twice[] = {plain, plain};
    FAILS(am_record_custom(&recorded, 1, twice, 2, &x, 1), AM_EINVAL, "twice");
    RELEASE(x, plain, y);
    ck_assert_int_eq(am_tape_length(), 0);
}
END_TEST

/* ---- tapes within tapes -------------------------------------------------------------------- */

START_TEST(nested_tapes)
{
    am_tensor *x = leaf(VEC(AM_F32, 2)), *w = leaf(VEC(AM_F32, 3)), *y = times(x, 1);
    am_event ev;
    OK(am_tape_push());
    ck_assert_int_eq(am_tape_length(), 0);
    am_tensor *out = NULL, *in[] = {y, w};
    FAILS(am_apply(AM_OP_mul, &out, in, 2, NULL), AM_ESTATE, "another tape");
    am_tensor *d;
    OK(am_tensor_detach(&d, y));
    leaf(d);
    am_tensor *p = op2(AM_OP_mul, d, w);
    OK(am_backward_begin(p, NULL));
    OK(am_backward_next(&ev));
    HAS_GRAD(d, 3);
    HAS_GRAD(w, 2); /* a leaf of both tapes */
    OK(am_tape_pop());
    am_tensor *q = op2(AM_OP_mul, y, w);
    OK(am_backward_begin(q, NULL));
    OK(am_backward_next(&ev));
    HAS_GRAD(x, 3);
    HAS_GRAD(w, 4);
    /* an unfinished inner tape goes without a trace; its shells know */
    OK(am_tape_push());
    am_tensor *r = times(w, 2);
    OK(am_tape_pop());
    FAILS(am_backward_begin(r, NULL), AM_ESTATE, "gone");
    RELEASE(x, w, y, d, p, q, r);
}
END_TEST

/* ---- tapes of the caller ------------------------------------------------------------------- */

static am_tape *own_tape(void)
{
    am_tape *t;
    OK(am_tape_new(&t));
    return t;
}

/* The gradient of y, on a tape that is set aside. */
static void backward_on(am_tape *t, am_tensor *y)
{
    OK(am_tape_enter(t));
    OK(run_backward(y));
    OK(am_tape_leave());
}

START_TEST(first_in_first_out)
{
    am_tensor *w = leaf(VEC(AM_F32, 3)), *y[3], *outer = times(w, 1000);
    am_tape *tapes[3];
    for (int i = 0; i < 3; i++) {
        tapes[i] = own_tape();
        OK(am_tape_enter(tapes[i]));
        am_tensor *square = op2(AM_OP_mul, w, w);
        y[i] = times(square, i + 1);
        am_tensor_release(square);
        ck_assert_int_eq(am_tape_length(), 2);
        OK(am_tape_leave());
        ck_assert_int_eq(am_tape_length(), 1); /* outer's */
    }
    for (int i = 0, sum = 0; i < 3; i++) {
        FAILS(run_backward(y[i]), AM_ESTATE, "gone"); /* not on this tape */
        backward_on(tapes[i], y[i]);
        sum += 6 * (i + 1);
        HAS_GRAD(w, sum);
    }
    OK(run_backward(outer));
    HAS_GRAD(w, 36 + 1000);
    /* a tape serves again */
    OK(am_tape_enter(tapes[0]));
    am_tensor *again = times(w, 2);
    OK(am_tape_leave());
    backward_on(tapes[0], again);
    HAS_GRAD(w, 1036 + 2);
    for (int i = 0; i < 3; i++) {
        OK(am_tape_release(tapes[i]));
        am_tensor_release(y[i]);
    }
    RELEASE(w, outer, again);
}
END_TEST

/* A leaf that a tape meets again after another has met it is still one: its hook comes once, after
 * its last use. */
START_TEST(leaves_of_several_tapes)
{
    am_tensor *w = leaf(VEC(AM_F32, 3));
    am_tape *a = own_tape(), *b = own_tape();
    am_event ev;
    OK(am_tensor_set_grad_hook(w, 9));
    OK(am_tape_enter(a));
    am_tensor *first = times(w, 1);
    OK(am_tape_leave());
    OK(am_tape_enter(b));
    am_tensor *other = times(w, 10);
    OK(am_tape_leave());
    OK(am_tape_enter(a));
    am_tensor *second = op2(AM_OP_mul, first, w);
    OK(am_backward_begin(second, NULL));
    leaf_is_final(w, 9);
    HAS_GRAD(w, 6);
    OK(am_backward_next(&ev));
    ck_assert_int_eq(ev.kind, AM_EV_DONE);
    OK(am_tape_leave());
    OK(am_tape_enter(b));
    OK(am_backward_begin(other, NULL));
    leaf_is_final(w, 9);
    HAS_GRAD(w, 16);
    OK(am_backward_next(&ev));
    OK(am_tape_leave());
    OK(am_tape_release(a));
    OK(am_tape_release(b));
    RELEASE(w, first, other, second);
}
END_TEST

START_TEST(shells_of_a_tape_set_aside)
{
    am_tensor *w = leaf(VEC(AM_F32, 3));
    am_tape *a = own_tape();
    OK(am_tape_enter(a));
    am_tensor *x = times(w, 2), *y = times(x, 2);
    OK(am_tape_leave());
    am_tensor_release(x); /* y still leads onto it */
    backward_on(a, y);
    HAS_GRAD(w, 4);
    OK(am_tape_enter(a));
    am_tensor *z = times(w, 2);
    OK(am_tape_leave());
    am_tensor_release(z); /* nothing does: it is empty now */
    OK(am_tape_enter(a));
    ck_assert_int_eq(am_tape_length(), 0);
    am_tensor *last = times(w, 2);
    OK(am_tape_leave());
    OK(am_tape_release(a)); /* before its shell */
    am_tape *b = own_tape();
    FAILS(am_tape_enter(NULL), AM_EINVAL, "no tape");
    OK(am_tape_enter(b));
    FAILS(run_backward(last), AM_ESTATE, "gone");
    OK(am_tape_leave());
    OK(am_tape_release(b));
    RELEASE(w, y, last);
}
END_TEST

START_TEST(own_tapes_refused)
{
    am_tape *a = own_tape(), *b = own_tape();
    FAILS(am_tape_leave(), AM_ESTATE, "without");
    OK(am_tape_enter(a));
    FAILS(am_tape_enter(a), AM_ESTATE, "in use");
    FAILS(am_tape_release(a), AM_ESTATE, "in use");
    FAILS(am_tape_pop(), AM_ESTATE, "push");
    OK(am_tape_push());
    FAILS(am_tape_leave(), AM_ESTATE, "without");
    OK(am_tape_enter(b));
    FAILS(am_tape_enter(a), AM_ESTATE, "in use");
    OK(am_tape_leave());
    OK(am_tape_pop());
    OK(am_tape_leave());
    OK(am_tape_release(NULL));
    OK(am_tape_release(a));
    OK(am_tape_release(b));
}
END_TEST

/* ---- memory -------------------------------------------------------------------------------- */

START_TEST(last_shell_resets)
{
    am_tensor *x = leaf(VEC(AM_F32, 1, 2));
    int ref = am_tensor_device(x);
    int64_t before = live_bytes(ref);
    am_tensor *y = times(x, 2), *z = op1(AM_OP_exp, y, (am_attrs){.scalar = {0}}), *loss = total(z);
    am_tensor_release(y);
    am_tensor_release(z);
    ck_assert_int_eq(am_tape_length(), 3);
    am_tensor_retain(loss);
    am_tensor_release(loss);
    ck_assert_int_eq(am_tape_length(), 3); /* a shell is held still */
    am_tensor_release(loss);
    ck_assert_int_eq(am_tape_length(), 0);
    ck_assert_int_eq(live_bytes(ref), before);
    RELEASE(x);
}
END_TEST

/* What backward has passed is free before it ends. */
START_TEST(backward_frees_as_it_goes)
{
    double big[64] = {0};
    am_tensor *x = leaf(vec(AM_F64, 64, big));
    int ref = am_tensor_device(x);
    am_tensor *y = times(x, 1), *loss;
    for (int i = 0; i < 20; i++) {
        am_tensor *z = op1(AM_OP_exp, y, (am_attrs){.scalar = {0}});
        am_tensor_release(y);
        y = z;
    }
    loss = total(y);
    am_tensor_release(y);
    int64_t recorded = live_bytes(ref);
    OK(am_mem_reset_peak(ref));
    OK(run_backward(loss));
    am_mem_stats s;
    OK(am_mem_get(ref, &s));
    /* two gradients and x's own at a time, not twenty */
    ck_assert_int_le(s.peak_bytes, recorded + 4 * 64 * 8 + 1024);
    ck_assert_int_le(s.live_bytes, 4 * 64 * 8);
    RELEASE(x, loss);
}
END_TEST

START_TEST(retained_shells_keep_values)
{
    am_tensor *x = leaf(VEC(AM_F32, 1, 2)), *y = times(x, 2);
    am_tensor *z = op1(AM_OP_exp, y, (am_attrs){.scalar = {0}}), *loss = total(z);
    OK(run_backward(loss));
    HOLDS(y, 2, 4);
    ck_assert(am_tensor_alive(z));
    RELEASE(x, y, z, loss);
}
END_TEST

/* A scope takes values from shells; what backward needs is its own. */
START_TEST(scopes_and_backward)
{
    am_tensor *x = leaf(VEC(AM_F32, 1, 2)), *loss;
    OK(am_scope_push());
    am_tensor *y = times(x, 2), *z = op2(AM_OP_mul, y, y);
    loss = total(z);
    OK(am_scope_keep(loss));
    OK(am_scope_pop());
    ck_assert(!am_tensor_alive(y) && !am_tensor_alive(z) && am_tensor_alive(loss));
    OK(run_backward(loss));
    HAS_GRAD(x, 8, 16);
    RELEASE(x, y, z, loss);
}
END_TEST

/* ---- things that go wrong ------------------------------------------------------------------ */

START_TEST(interrupts)
{
    am_tensor *x = leaf(VEC(AM_F32, 1)), *y = times(x, 2), *out = NULL;
    am_attrs at = {.scalar = {1}};
    am_event ev;
    OK(am_signals_watch(AM_SIGNALS_INTERRUPT));
    raise(SIGTERM);
    FAILS(am_apply(AM_OP_mul_scalar, &out, &x, 1, &at), AM_EINTR, "signal");
    FAILS(am_signals_check(), AM_EINTR, "signal");
    OK(am_backward_begin(y, NULL));
    FAILS(am_backward_next(&ev), AM_EINTR, "signal");
    ck_assert_int_eq(am_tape_length(), 0); /* begun afresh */
    am_signals_clear();
    am_tensor *z = times(x, 4);
    OK(run_backward(z));
    HAS_GRAD(x, 4);
    OK(am_signals_watch(AM_SIGNALS_FLAG));
    raise(SIGTERM);
    ck_assert_int_eq(am_signals_pending(), SIGTERM);
    OK(am_signals_check()); /* a flag alone stops nothing */
    am_tensor *w = times(x, 1);
    OK(am_signals_watch(AM_SIGNALS_OFF));
    FAILS(am_signals_watch(7), AM_EINVAL, "7");
    RELEASE(x, y, z, w);
}
END_TEST

START_TEST(recording_during_backward)
{
    am_tensor *x = leaf(VEC(AM_F32, 1)), *out = NULL;
    am_grad_mode_set(0);
    am_tensor *y = times(x, 1);
    am_grad_mode_set(1);
    am_attrs at = {.scalar = {1}};
    am_event ev;
    int recorded;
    OK(am_record_custom(&recorded, 1, &y, 1, &x, 1));
    OK(am_backward_begin(y, NULL));
    OK(am_backward_next(&ev));
    FAILS(am_apply(AM_OP_mul_scalar, &out, &x, 1, &at), AM_ESTATE, "no_grad");
    am_tensor_release(ev.grad_out[0]);
    OK(am_backward_next(&ev));
    ck_assert_int_eq(ev.kind, AM_EV_DONE);
    RELEASE(x, y);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tape");
    TCase *t = tcase_create("backward");
    tcase_add_test(t, gone_after_backward);
    tcase_add_test(t, begins_badly);
    tcase_add_test(t, of_a_leaf_itself);
    tcase_add_test(t, shared_gradients_are_copied_on_write);
    tcase_add_test(t, the_given_gradient_stays);
    tcase_add_test(t, clearing_and_setting);
    tcase_add_test(t, grad_mode_off);
    suite_add_tcase(s, t);
    t = tcase_create("custom");
    tcase_add_test(t, custom_nodes);
    tcase_add_test(t, final_leaves);
    tcase_add_test(t, final_leaves_of_blocks);
    tcase_add_test(t, custom_nodes_refused);
    suite_add_tcase(s, t);
    t = tcase_create("nested");
    tcase_add_test(t, nested_tapes);
    suite_add_tcase(s, t);
    t = tcase_create("own");
    tcase_add_test(t, first_in_first_out);
    tcase_add_test(t, leaves_of_several_tapes);
    tcase_add_test(t, shells_of_a_tape_set_aside);
    tcase_add_test(t, own_tapes_refused);
    suite_add_tcase(s, t);
    t = tcase_create("memory");
    tcase_add_test(t, last_shell_resets);
    tcase_add_test(t, backward_frees_as_it_goes);
    tcase_add_test(t, retained_shells_keep_values);
    tcase_add_test(t, scopes_and_backward);
    suite_add_tcase(s, t);
    t = tcase_create("trouble");
    tcase_add_test(t, interrupts);
    tcase_add_test(t, recording_during_backward);
    suite_add_tcase(s, t);
    return run_suite(s);
}
