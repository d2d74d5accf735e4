/* tape.c — records what ops do and walks it backward.
 *
 * A var is a value that takes part in gradients: a leaf, or a node's output. A node holds the vars
 * of its inputs and outputs, the op's attributes and the tensors it saved. Shells point at their
 * var by (tape id, index); a reset gives the tape a new id, so shells of the past can't reach it.
 *
 * Memory: a node's saved tensors and its output's gradient are freed as soon as backward has passed
 * it. What a cheap op computed (one with `recompute`) is not saved for others: backward computes it
 * again when the first of them needs it, and has it until it passes that op. A gradient may be
 * shared between vars (an add passes it to both sides); it is only written in place while one var
 * holds it. When the last shell that leads onto the tape lets go, nobody can call backward any
 * more, and the tape is reset.
 *
 * Tapes in use are a stack, whose top records. Below it lie the root and, while a block is computed
 * again, the tape of that block's node. A caller's own tapes may be set aside and taken up again.
 *
 * Custom nodes come back to the caller from am_backward_next, so C never calls Lua. So do leaves
 * with a hook: a leaf's gradient is final once backward has passed the node that met it first. */
#include "tape.h"

#include <string.h>

#include "../core/mem.h"
#include "op.h"

struct am_tape {
    struct am_tape *outer; /* of those in use: the one to go back to */
    uint64_t id;
    enum { ROOT, PUSHED, OWN } kind; /* OWN: am_tape_new's */
    bool in_use;                     /* it is the current one, or outer of one in use */
    struct am_tape *next;            /* of OWN: the list of all */
    am_var *vars;
    am_node *nodes;
    size_t n_vars, cap_vars, n_nodes, cap_nodes;
    size_t seen;      /* vars whose leaves another tape may have met since */
    int64_t attached; /* shells that lead onto this tape */
    bool in_backward;
    size_t cursor;     /* nodes still to pass */
    size_t var_cursor; /* vars whose nodes are still to pass */
    bool waiting;      /* the node at cursor is custom: the caller computes its gradients */
    bool noting;       /* see am_tape_note_leaves */
};

static am_tape root = {.id = 1, .kind = ROOT, .in_use = true};
static am_tape *tape = &root;
static am_tape *own; /* all of am_tape_new's */
static uint64_t last_id = 1;
static int grad_mode = AM_GRAD_ON;

/* op.c */
int am_op_backward(int op, am_bwd *b);
bool am_op_can_recompute(int op);
int am_op_recompute(int op, const am_bwd *b, am_tensor *out);

int am_grad_mode(void)
{
    return grad_mode;
}

int am_grad_mode_set(int mode)
{
    int before = grad_mode;
    grad_mode = mode;
    return before;
}

int64_t am_tape_length(void)
{
    return (int64_t)tape->n_nodes;
}

int am_tape_note_leaves(int on)
{
    tape->noting = on != 0;
    return AM_OK;
}

/* ---- freeing ---------------------------------------------------------------------------- */

static void node_free(am_node *n)
{
    for (int i = 0; i < AM_NODE_SAVED; i++) {
        am_tensor_release(n->saved[i]);
        n->saved[i] = NULL;
    }
}

static void var_clear(am_var *v)
{
    am_tensor_release(v->grad);
    am_tensor_release(v->value);
    v->grad = v->value = NULL;
}

static void reset(am_tape *t)
{
    size_t n_nodes = t->n_nodes, n_vars = t->n_vars;
    t->n_nodes = t->n_vars = t->seen = 0; /* first: releasing below may come back here */
    t->id = ++last_id;
    t->attached = 0;
    t->in_backward = false;
    t->waiting = false;
    t->noting = false;
    for (size_t i = 0; i < n_nodes; i++)
        node_free(&t->nodes[i]);
    for (size_t i = 0; i < n_vars; i++) {
        var_clear(&t->vars[i]);
        am_tensor_release(t->vars[i].leaf);
    }
}

int am_tape_reset(void)
{
    reset(tape);
    return AM_OK;
}

static int tape_alloc(am_tape **out, int kind)
{
    void *p;
    AM_TRY(am_alloc(&p, sizeof(am_tape)));
    *out = p;
    (*out)->id = ++last_id;
    (*out)->kind = kind;
    return AM_OK;
}

static void tape_free(am_tape *t)
{
    reset(t);
    am_free(t->nodes);
    am_free(t->vars);
    am_free(t);
}

static void take_up(am_tape *t)
{
    tape->seen = tape->n_vars;
    t->outer = tape;
    t->in_use = true;
    tape = t;
}

static am_tape *set_aside(void)
{
    am_tape *t = tape;
    tape = t->outer;
    t->outer = NULL;
    t->in_use = false;
    t->seen = t->n_vars;
    return t;
}

int am_tape_push(void)
{
    am_tape *t;
    AM_TRY(tape_alloc(&t, PUSHED));
    take_up(t);
    return AM_OK;
}

int am_tape_pop(void)
{
    if (tape->kind != PUSHED)
        return am_fail(AM_ESTATE, "am_tape_pop without a push");
    tape_free(set_aside());
    return AM_OK;
}

int am_tape_new(am_tape **out)
{
    AM_TRY(tape_alloc(out, OWN));
    (*out)->next = own;
    own = *out;
    return AM_OK;
}

int am_tape_enter(am_tape *t)
{
    if (!t)
        return am_fail(AM_EINVAL, "am_tape_enter: there is no tape");
    if (t->in_use)
        return am_fail(AM_ESTATE, "am_tape_enter: the tape is in use already");
    take_up(t);
    return AM_OK;
}

int am_tape_leave(void)
{
    if (tape->kind != OWN)
        return am_fail(AM_ESTATE, "am_tape_leave without am_tape_enter");
    set_aside();
    return AM_OK;
}

int am_tape_release(am_tape *t)
{
    if (!t)
        return AM_OK;
    if (t->in_use)
        return am_fail(AM_ESTATE, "am_tape_release: the tape is in use");
    am_tape **at = &own;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    tape_free(t);
    return AM_OK;
}

/* The tape of an id, among those in use and those set aside; NULL where it was reset since. */
static am_tape *tape_of(uint64_t id)
{
    for (am_tape *k = tape; k; k = k->outer)
        if (k->id == id)
            return k;
    for (am_tape *k = own; k; k = k->next)
        if (k->id == id)
            return k;
    return NULL;
}

void am_tape_forget(am_tensor *t)
{
    am_tape *k = tape_of(t->tape);
    t->tape = 0;
    if (k && --k->attached == 0 && !k->in_backward)
        reset(k);
}

/* ---- recording -------------------------------------------------------------------------- */

static int var_of_input(int64_t *index, am_tensor *t);

static int inspect(const char *what, am_tensor *const *in, int n_in, bool *needs, bool *any)
{
    *any = false;
    for (int i = 0; i < n_in; i++) {
        int64_t known;
        if (tape->noting && grad_mode != AM_GRAD_ON && in[i] && in[i]->hook && in[i]->requires_grad)
            AM_TRY(var_of_input(&known, in[i]));
        needs[i] = grad_mode == AM_GRAD_ON && in[i] && in[i]->requires_grad;
        if (!needs[i])
            continue;
        if (in[i]->computed && in[i]->tape != tape->id)
            return am_fail(AM_ESTATE,
                           "%s: the history of input %d is gone (backward has run, or it belongs "
                           "to another tape); use :detach() to go on with its value alone",
                           what, i + 1);
        *any = true;
    }
    return AM_OK;
}

int am_tape_inspect(am_call *c)
{
    return inspect(am_op_name(c->op), c->in, c->n_in, c->needs, &c->record);
}

static int var_new(int64_t *index, const am_tensor *t)
{
    void *p = tape->vars;
    int rc = am_grow(&p, &tape->cap_vars, tape->n_vars + 1, sizeof(am_var));
    tape->vars = p;
    AM_TRY(rc);
    am_var *v = &tape->vars[tape->n_vars];
    memset(v, 0, sizeof *v);
    v->dtype = t->dtype;
    v->ndim = t->ndim;
    v->device = t->device;
    v->first = tape->n_nodes;
    memcpy(v->shape, t->shape, sizeof v->shape);
    *index = (int64_t)tape->n_vars++;
    return AM_OK;
}

/* A leaf whose last tape is another one: has this tape met it before? */
static bool met_before(am_tensor *t)
{
    for (size_t i = 0; i < tape->seen; i++)
        if (tape->vars[i].leaf == t) {
            t->var = (int64_t)i;
            return true;
        }
    return false;
}

static int var_of_input(int64_t *index, am_tensor *t)
{
    if (t->tape != tape->id && !met_before(t)) {
        AM_TRY(var_new(&t->var, t));
        am_tensor_retain(t);
        tape->vars[t->var].leaf = t;
    }
    t->tape = tape->id;
    *index = t->var;
    return AM_OK;
}

static int node_new(am_node **out, const char *what)
{
    if (tape->in_backward)
        return am_fail(AM_ESTATE, "%s: can't record while backward runs; use am.no_grad", what);
    void *p = tape->nodes;
    int rc = am_grow(&p, &tape->cap_nodes, tape->n_nodes + 1, sizeof(am_node));
    tape->nodes = p;
    AM_TRY(rc);
    *out = &tape->nodes[tape->n_nodes];
    memset(*out, 0, sizeof **out);
    return AM_OK;
}

static int link_node(am_node *n, am_tensor *const *in, const bool *needs, int n_in,
                     am_tensor *const *out, int n_out)
{
    n->n_in = n_in;
    n->n_out = n_out;
    for (int i = 0; i < n_in; i++) {
        n->in[i] = -1;
        if (needs[i])
            AM_TRY(var_of_input(&n->in[i], in[i]));
    }
    for (int i = 0; i < n_out; i++)
        AM_TRY(var_new(&n->out[i], out[i]));
    for (int i = 0; i < n_out; i++) {
        out[i]->requires_grad = out[i]->computed = true;
        out[i]->tape = tape->id;
        out[i]->var = n->out[i];
        tape->attached++;
    }
    return AM_OK;
}

/* The var of the input that a saved tensor is, if its value can be computed again; else -1. */
static int64_t var_to_recompute(const am_call *c, const am_tensor *saved)
{
    for (int i = 0; saved && i < c->n_in; i++) {
        const am_tensor *t = c->in[i];
        if (!t || !t->computed || t->tape != tape->id || t->storage != saved->storage ||
            t->offset != saved->offset || !am_shape_equal(t, saved) || !am_tensor_dense(t))
            continue;
        if (am_op_can_recompute(tape->nodes[tape->vars[t->var].first].op))
            return t->var;
    }
    return -1;
}

int am_tape_record(am_call *c)
{
    am_node *n;
    AM_TRY(node_new(&n, am_op_name(c->op)));
    n->op = c->op;
    n->attrs = c->attrs;
    n->rng_seed = c->rng_seed;
    n->rng_stream = c->rng_stream;
    AM_TRY(link_node(n, c->in, c->needs, c->n_in, c->out, 1));
    for (int i = 0; i < AM_NODE_SAVED; i++) {
        n->again[i] = var_to_recompute(c, c->saved[i]);
        if (n->again[i] >= 0)
            continue; /* the call lets go of it */
        n->saved[i] = c->saved[i];
        c->saved[i] = NULL;
    }
    tape->n_nodes++;
    return AM_OK;
}

int am_record_custom(int *recorded, int id, am_tensor *const *out, int n_out, am_tensor *const *in,
                     int n_in)
{
    bool needs[AM_CUSTOM_MAX], any;
    if (n_in < 1 || n_in > AM_CUSTOM_MAX || n_out < 1 || n_out > AM_CUSTOM_MAX)
        return am_fail(AM_EINVAL, "a custom op has 1 to %d inputs and outputs", AM_CUSTOM_MAX);
    for (int i = 0; i < n_out; i++) {
        AM_TRY(am_tensor_check_alive(out[i], "custom op"));
        if (out[i]->computed || out[i]->requires_grad)
            return am_fail(AM_ESTATE,
                           "custom op: output %d already has a history; compute it "
                           "under am.no_grad",
                           i + 1);
        for (int j = 0; j < i; j++)
            if (out[j] == out[i])
                return am_fail(AM_EINVAL, "custom op: outputs %d and %d are one tensor twice",
                               j + 1, i + 1);
    }
    for (int i = 0; i < n_in; i++)
        AM_TRY(am_tensor_check_alive(in[i], "custom op"));
    AM_TRY(inspect("custom op", in, n_in, needs, &any));
    *recorded = any;
    if (!any)
        return AM_OK;
    am_node *n;
    AM_TRY(node_new(&n, "custom op"));
    n->op = -1;
    n->custom_id = id;
    AM_TRY(link_node(n, in, needs, n_in, out, n_out));
    tape->n_nodes++;
    return AM_OK;
}

/* ---- gradients of inputs ---------------------------------------------------------------- */

/* Make v->grad a dense buffer that nobody else sees. */
static int own_grad(am_var *v)
{
    if (v->grad->storage->refs == 1 && am_tensor_dense(v->grad))
        return AM_OK;
    am_tensor *copy;
    AM_TRY(am_tensor_make(&copy, v->dtype, v->ndim, v->shape, v->device));
    int rc = am_copy_kernel(copy, v->grad, 0);
    if (rc != AM_OK) {
        am_tensor_release(copy);
        return rc;
    }
    am_tensor_release(v->grad);
    v->grad = copy;
    return AM_OK;
}

/* Add g (or set it, for the first) as the gradient of v. */
static int var_add(am_var *v, am_tensor *g)
{
    if (v->leaf) {
        AM_TRY(am_leaf_buffer(v->leaf));
        AM_TRY(am_copy_kernel(v->leaf->grad, g, !v->leaf->grad_empty));
        v->leaf->grad_empty = false;
        return AM_OK;
    }
    if (!v->grad && g->dtype == v->dtype)
        return am_tensor_alias(&v->grad, g);
    if (!v->grad) {
        AM_TRY(am_tensor_make(&v->grad, v->dtype, v->ndim, v->shape, v->device));
        return am_copy_kernel(v->grad, g, 0);
    }
    AM_TRY(own_grad(v));
    return am_copy_kernel(v->grad, g, 1);
}

static am_var *input_var(am_bwd *b, int i)
{
    return &b->tape->vars[b->node->in[i]];
}

/* Is the same value being written as another input's gradient just now? */
static bool begun_elsewhere(const am_bwd *b, int i)
{
    for (int j = 0; j < b->n_in; j++)
        if (b->open[j] && b->node->in[j] == b->node->in[i])
            return true;
    return false;
}

int am_grad_begin(am_bwd *b, int i, bool can_accumulate, am_grad *g)
{
    am_var *v = input_var(b, i);
    *g = (am_grad){.direct = true};
    if (begun_elsewhere(b, i)) {
        g->direct = false;
        return am_temp_new(&b->temps, &g->t, v->dtype, v->ndim, v->shape, v->device);
    }
    b->open[i] = true;
    if (v->leaf) {
        AM_TRY(am_leaf_buffer(v->leaf));
        bool empty = v->leaf->grad_empty;
        if (can_accumulate || (empty && v->leaf->grad->dtype == v->dtype)) {
            g->t = v->leaf->grad;
            g->accumulate = !empty;
            return AM_OK;
        }
    } else if (!v->grad) {
        AM_TRY(am_tensor_make(&v->grad, v->dtype, v->ndim, v->shape, v->device));
        g->t = v->grad;
        return AM_OK;
    } else if (can_accumulate) {
        AM_TRY(own_grad(v));
        g->t = v->grad;
        g->accumulate = 1;
        return AM_OK;
    }
    g->direct = false;
    return am_temp_new(&b->temps, &g->t, v->dtype, v->ndim, v->shape, v->device);
}

int am_grad_end(am_bwd *b, int i, am_grad *g)
{
    am_var *v = input_var(b, i);
    b->open[i] = false;
    if (!g->direct)
        return var_add(v, g->t);
    if (v->leaf)
        v->leaf->grad_empty = false;
    return AM_OK;
}

int am_grad_give(am_bwd *b, int i, am_tensor *g)
{
    return var_add(input_var(b, i), g);
}

/* ---- backward --------------------------------------------------------------------------- */

int am_backward_begin(am_tensor *loss, am_tensor *gradient)
{
    return am_backward_begin_many(&loss, &gradient, 1);
}

int am_backward_begin_many(am_tensor *const *outs, am_tensor *const *gradients, int n)
{
    char text[96];
    if (tape->in_backward)
        return am_fail(AM_ESTATE, "backward: already running on this tape");
    for (int i = 0; i < n; i++) {
        am_tensor *t = outs[i], *g = gradients[i];
        AM_TRY(am_tensor_check_alive(t, "backward"));
        if (!t->requires_grad)
            return am_fail(AM_ESTATE, "backward: the tensor does not require grad, so nothing "
                                      "would get one");
        if (t->computed && t->tape != tape->id)
            return am_fail(AM_ESTATE, "backward: the history of this tensor is gone; backward "
                                      "runs once for each forward");
        if (!g && am_tensor_numel(t) != 1)
            return am_fail(AM_ESHAPE,
                           "backward: a tensor %s is no scalar; sum it or give its gradient",
                           am_shape_text(text, t->ndim, t->shape));
        if (g)
            AM_TRY(am_tensor_check_alive(g, "backward"));
        if (g && (!am_shape_equal(g, t) || g->device != t->device))
            return am_fail(AM_ESHAPE,
                           "backward: the gradient's shape or device differs from the "
                           "tensor's %s",
                           am_shape_text(text, t->ndim, t->shape));
    }
    for (int i = 0; i < n; i++) {
        int64_t v;
        am_tensor *one = NULL, *g = gradients[i];
        AM_TRY(var_of_input(&v, outs[i]));
        if (!g) {
            AM_TRY(am_tensor_make(&one, outs[i]->dtype, outs[i]->ndim, outs[i]->shape,
                                  outs[i]->device));
            int rc = am_tensor_fill(one, 1);
            if (rc != AM_OK) {
                am_tensor_release(one);
                return rc;
            }
            g = one;
        }
        int rc = var_add(&tape->vars[v], g);
        am_tensor_release(one);
        AM_TRY(rc);
    }
    tape->in_backward = true;
    tape->cursor = tape->n_nodes;
    tape->var_cursor = tape->n_vars;
    return AM_OK;
}

/* Bytes that a node's backward reads and writes: gradients both ways, and what was saved. */
static int64_t node_bytes(const am_bwd *b)
{
    int64_t bytes = am_tensor_bytes(b->dout);
    for (int i = 0; i < AM_NODE_SAVED; i++)
        if (b->saved[i])
            bytes += am_tensor_bytes(b->saved[i]);
    for (int i = 0; i < b->n_in; i++)
        if (b->needs[i])
            bytes +=
                am_shape_numel(b->in[i]->ndim, b->in[i]->shape) * am_dtype_size(b->in[i]->dtype);
    return bytes;
}

static am_bwd bwd_of(am_node *n, am_tensor **saved)
{
    am_bwd b = {.op = n->op,
                .n_in = n->n_in,
                .device = tape->vars[n->out[0]].device,
                .attrs = &n->attrs,
                .rng_seed = n->rng_seed,
                .rng_stream = n->rng_stream,
                .saved = saved,
                .tape = tape,
                .node = n};
    for (int i = 0; i < n->n_in; i++) {
        b.needs[i] = n->in[i] >= 0;
        b.in[i] = b.needs[i] ? &tape->vars[n->in[i]] : NULL;
    }
    return b;
}

/* What the node saved, with what has to be computed again. One such value may need another, of a
 * node further back. */
static int saved_of(const am_node *n, am_tensor **saved)
{
    for (int i = 0; i < AM_NODE_SAVED; i++) {
        saved[i] = n->saved[i];
        if (saved[i])
            AM_TRY(am_tensor_check_alive(saved[i], "backward: what it needs of a parameter"));
        if (n->again[i] < 0)
            continue;
        am_var *v = &tape->vars[n->again[i]];
        if (!v->value) {
            am_tensor *from[AM_NODE_SAVED], *value;
            am_node *maker = &tape->nodes[v->first];
            AM_TRY(saved_of(maker, from));
            am_bwd b = bwd_of(maker, from);
            AM_TRY(am_tensor_make(&value, v->dtype, v->ndim, v->shape, v->device));
            v->value = value;
            AM_TRY(am_op_recompute(maker->op, &b, value));
        }
        saved[i] = v->value;
    }
    return AM_OK;
}

static int run_node(am_node *n)
{
    am_tensor *saved[AM_NODE_SAVED];
    am_span span = am_span_begin();
    AM_TRY(saved_of(n, saved));
    am_bwd b = bwd_of(n, saved);
    int rc = am_temp_dense(&b.temps, &b.dout, tape->vars[n->out[0]].grad);
    if (rc == AM_OK)
        rc = am_op_backward(n->op, &b);
    if (am_profiling && rc == AM_OK)
        am_span_end(&span, am_op_name(n->op), AM_PHASE_BACKWARD, b.device, node_bytes(&b));
    am_temps_free(&b.temps);
    return rc;
}

static bool has_gradient(const am_node *n)
{
    for (int i = 0; i < n->n_out; i++)
        if (tape->vars[n->out[i]].grad)
            return true;
    return false;
}

static void pass_node(am_node *n)
{
    for (int i = 0; i < n->n_out; i++)
        var_clear(&tape->vars[n->out[i]]);
    node_free(n);
}

static int custom_event(am_event *ev, am_node *n)
{
    *ev = (am_event){.kind = AM_EV_CUSTOM, .id = n->custom_id, .n_in = n->n_in, .n_out = n->n_out};
    for (int i = 0; i < n->n_in; i++)
        ev->needs_grad[i] = n->in[i] >= 0;
    for (int i = 0; i < n->n_out; i++) {
        ev->grad_out[i] = tape->vars[n->out[i]].grad;
        if (ev->grad_out[i]) {
            am_tensor_retain(ev->grad_out[i]);
            am_scope_register(ev->grad_out[i]);
        }
    }
    for (int i = 0; i < n->n_out; i++)
        var_clear(&tape->vars[n->out[i]]);
    tape->waiting = true;
    return AM_OK;
}

static int step(am_event *ev, bool *stop)
{
    AM_TRY(am_signals_check());
    am_node *n = &tape->nodes[--tape->cursor];
    *stop = false;
    if (has_gradient(n)) {
        if (n->op < 0) {
            *stop = true;
            return custom_event(ev, n);
        }
        AM_TRY(run_node(n));
    }
    pass_node(n);
    return AM_OK;
}

/* The next leaf whose gradient has just become final. Pushed tapes say nothing: their leaves were
 * noted on the one that they recompute a block of. */
static bool final_leaf(am_event *ev)
{
    while (tape->var_cursor > 0 && tape->vars[tape->var_cursor - 1].first >= tape->cursor) {
        am_tensor *leaf = tape->vars[--tape->var_cursor].leaf;
        if (!leaf || !leaf->hook || !leaf->grad || leaf->grad_empty || tape->kind == PUSHED)
            continue;
        am_tensor_retain(leaf);
        *ev = (am_event){.kind = AM_EV_LEAF, .id = leaf->hook, .leaf = leaf};
        return true;
    }
    return false;
}

int am_backward_next(am_event *ev)
{
    if (!tape->in_backward)
        return am_fail(AM_ESTATE, "am_backward_next without am_backward_begin");
    if (tape->waiting) {
        pass_node(&tape->nodes[tape->cursor]);
        tape->waiting = false;
    }
    bool stop = final_leaf(ev);
    while (!stop && tape->cursor > 0) {
        int rc = step(ev, &stop);
        if (rc != AM_OK) {
            reset(tape);
            return rc;
        }
        stop = stop || final_leaf(ev);
    }
    if (stop)
        return AM_OK;
    reset(tape);
    *ev = (am_event){.kind = AM_EV_DONE};
    return AM_OK;
}

int am_backward_custom_grad(int i, am_tensor *grad)
{
    char a[96], b[96];
    const am_node *n = tape->waiting ? &tape->nodes[tape->cursor] : NULL;
    if (!n || i < 0 || i >= n->n_in)
        return am_fail(AM_ESTATE, "custom gradient %d was not asked for", i + 1);
    if (n->in[i] < 0)
        return AM_OK;
    am_var *v = &tape->vars[n->in[i]];
    AM_TRY(am_tensor_check_alive(grad, "custom gradient"));
    if (grad->ndim != v->ndim ||
        memcmp(grad->shape, v->shape, (size_t)v->ndim * sizeof *v->shape) != 0 ||
        grad->device != v->device)
        return am_fail(AM_ESHAPE, "custom gradient %d is %s, but the input is %s", i + 1,
                       am_shape_text(a, grad->ndim, grad->shape),
                       am_shape_text(b, v->ndim, v->shape));
    return var_add(v, grad);
}
