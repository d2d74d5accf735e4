/* store.h — where ranks meet: names with values, kept by a thread of rank 0 and reached over TCP,
 * and the word of a rank that is gone. What Gloo's ranks find one another by. Of amlua it needs
 * comm.h's calls (deadline, message) and am_hash.
 *
 * Who may come in
 *   - The server listens on one address, the one that is given. Without a secret it must be a
 *     loopback address: whoever may start processes on this machine may then join.
 *   - With a secret both sides prove that they know it (HMAC over BLAKE2b of two random numbers and
 *     all that the rank says of itself). It never crosses the wire. What follows is neither
 *     encrypted nor signed: a network on which others change packets is not one for this.
 *   - A stranger gets a fixed buffer, one of PENDING places and five seconds; he is dropped at the
 *     first wrong byte, and told to `log`.
 *
 * A rank's connection stays open. When it breaks without a goodbye the rank is gone, and all others
 * are told; so they are when a rank gives up. The first such word is what am_store_failure says,
 * and every later question fails with it. */
#ifndef AM_STORE_H
#define AM_STORE_H

#include <stddef.h>
#include "comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct am_store_server am_store_server;
typedef struct am_store
    am_store; /* a rank's connection; its functions may be called by any thread */
typedef void (*am_store_log)(const char *line);

/* All return AM_OK, or AM_ECOMM with the reason in call->message: an empty one when
 * am_comm_gives_up(call). secret: NULL for none. */

int am_store_serve(am_store_server **out, const char *address, int port, const char *secret,
                   int ranks, am_store_log log, am_comm_call *call);
/* Says goodbye to the ranks that are still there. */
void am_store_end(am_store_server *server);

/* Tries until the server is there, which sets "here/RANK", and "left/RANK" at its goodbye. */
int am_store_join(am_store **out, const char *address, int port, const char *secret, int rank,
                  int ranks, am_comm_call *call);
void am_store_leave(am_store *store);

/* Names have at most 255 bytes, values 1 MiB. */
int am_store_set(am_store *store, const char *key, const void *value, size_t bytes,
                 am_comm_call *call);
/* Waits until the name is set. *value is the caller's, to be given to free. */
int am_store_get(am_store *store, const char *key, void **value, size_t *bytes, am_comm_call *call);
/* Does not wait: *value is NULL when the name is not set. */
int am_store_look(am_store *store, const char *key, void **value, size_t *bytes,
                  am_comm_call *call);
int am_store_remove(am_store *store, const char *key, am_comm_call *call);
/* Waits until `ranks` ranks have called this with the same name. */
int am_store_meet(am_store *store, const char *key, int ranks, am_comm_call *call);
/* Tell all others that this rank gives up. */
int am_store_abort(am_store *store, const char *why, am_comm_call *call);

/* Is a rank gone, or has one given up? Waits up to `seconds` for such word. */
int am_store_failure(am_store *store, double seconds, char message[AM_COMM_MESSAGE]);
/* This rank's own address, as numbers, on the way to the server. */
const char *am_store_address(const am_store *store);

#ifdef __cplusplus
}
#endif
#endif
