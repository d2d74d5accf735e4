/* tape.h — the record that backward walks. See tape.c for how it works. */
#ifndef AM_TAPE_H
#define AM_TAPE_H

#include <stdbool.h>
#include "../am.h"

/* A value that takes part in gradients: a leaf, or an output of a node. */
typedef struct am_var {
    am_tensor *leaf;  /* NULL for computed values */
    am_tensor *grad;  /* of computed values, while backward has it */
    am_tensor *value; /* of computed values, while backward has computed it again */
    int dtype, ndim, device;
    size_t first; /* the node that computes it, or the first that has this leaf as an input */
    int64_t shape[AM_MAX_DIMS];
} am_var;

enum { AM_NODE_IN = 8, AM_NODE_OUT = 8, AM_NODE_SAVED = 7 };
typedef struct am_node {
    int op; /* -1: custom */
    int custom_id, n_in, n_out;
    int64_t in[AM_NODE_IN], out[AM_NODE_OUT]; /* vars; -1: no gradient */
    am_attrs attrs;
    uint64_t rng_seed, rng_stream;
    am_tensor *saved[AM_NODE_SAVED];
    /* the var whose value is computed again for this slot; -1: none */
    int64_t again[AM_NODE_SAVED];
} am_node;

struct am_call;
/* Fill c->needs and c->record from its inputs; AM_ESTATE for an input whose history is gone. */
int am_tape_inspect(struct am_call *c);
/* Append the node of a finished call and mark its output; takes c->saved. */
int am_tape_record(struct am_call *c);
/* A buffer for a leaf's gradient, marked as empty, where there is none yet. Gradients of 16-bit
 * leaves add up in f32. */
int am_leaf_buffer(am_tensor *leaf);
/* A shell is letting go of its value. */
void am_tape_forget(am_tensor *t);

#endif
