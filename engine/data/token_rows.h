/* token_rows.h — what tests and fuzzers need of token_rows.c. The public side is in am.h. */
#ifndef AM_TOKEN_ROWS_H
#define AM_TOKEN_ROWS_H

#include "../io/file.h"

/* Rows in a mapping, which is taken over. key NULL: any. Without `verify` the checksum is not
 * looked at: everything else is, here and when a row is read. */
int am_token_rows_read(am_token_rows **out, am_mapping *m, const uint8_t *key, int verify);

#endif
