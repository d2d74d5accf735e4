/* graphs.h — the part of am.h about work that a GPU is asked for again and again. Include am.h. */
#ifndef AM_H
#error "include am.h, which this is a part of"
#endif

/* ---- graphs ------------------------------------------------------------------------------
 * Forward and backward of one shape ask a GPU for the same kernels every time, thousands of them,
 * and differ in what lies in their tensors only. A graph has them recorded, and asks for all of
 * them at once, which takes the host next to no time and leaves no gaps between short kernels.
 *
 *   am_graph_new, once
 *   am_graph_begin(g, 0), the work, am_graph_end: a rehearsal. The work is done as ever, and end
 *     says whether it can be recorded
 *   am_graph_begin(g, 1), the work, am_graph_end: the record. Nothing is computed
 *   am_graph_run, as often as is wanted: the work is done
 *
 * What the work reads and what it leaves lie in tensors from before the rehearsal, and a step's
 * random numbers are drawn anew by each run. Of the host's side a run does what the work would have
 * done to the parameters that am_graph_new is given (which of them have a gradient) and to the
 * random generator; all else that the work did beside computing is not done again.
 *
 * One graph at a time is rehearsed or recorded in a process. */
typedef struct am_graph am_graph;

/* A graph of work on these parameters, which it keeps; all are on one device. AM_EUNSUP where the
 * device has no graphs. */
int am_graph_new(am_graph **out, am_tensor *const *parameters, int64_t n);
int am_graph_begin(am_graph *g, int record);
/* Also after an error in between, once for each begin. *unfit: why there is no record, or can be
 * none, for people; NULL: all is well. */
int am_graph_end(am_graph *g, const char **unfit);
/* After an error in a rehearsal, which has ended: parameters have no gradient, as before it, and
 * the generator is where it was, so that the work can be done anew. AM_ESTATE where gradients from
 * before may have been added to. */
int am_graph_undo(am_graph *g);
/* AM_ESTATE where nothing is recorded. */
int am_graph_run(am_graph *g);
void am_graph_release(am_graph *g);

/* What a record goes by beside the shapes of its inputs: where parameters and gradients lie, which
 * of them there are, and the generator's seed. A record holds where this number is what it was. */
int am_graph_state(uint64_t *state, am_tensor *const *parameters, int64_t n);
