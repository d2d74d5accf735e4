/* store_server.h — the server's inside, for its thread, the fuzzer and tests: one step at a time.
 */
#ifndef AM_STORE_SERVER_H
#define AM_STORE_SERVER_H

#include "store.h"

enum { STORE_PENDING = 64 }; /* strangers at a time */

/* A server that listens nowhere. NULL: out of memory. */
am_store_server *store_server_new(const char *secret, int ranks, am_store_log log);
void store_server_free(am_store_server *s);
/* A connection, which the server closes. */
void store_server_adopt(am_store_server *s, int fd, const char *address);
/* Serve what is ready, waiting up to `milliseconds` for it. */
void store_server_step(am_store_server *s, int milliseconds);

#endif
