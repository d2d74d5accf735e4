/* store_wire.h — what store.c and store_server.c say to one another, and how it is checked.
 *
 * First the server greets with a random number, the rank says hello with another, who it is and a
 * proof, and the server's welcome is a proof of its own; all three are of fixed size. Then come
 * messages: a head (kind, length of the name, 2 bytes of 0, number of the question, length of the
 * value), the name, the value. Numbers are little-endian. */
#ifndef AM_STORE_WIRE_H
#define AM_STORE_WIRE_H

#include <stddef.h>
#include <stdint.h>

enum {
    STORE_NONCE = 32,
    STORE_PROOF = 32,
    STORE_HOST = 64,
    STORE_GREETING = 8 + STORE_NONCE,
    STORE_HELLO = 8 + STORE_NONCE + 4 + 4 + 8 + STORE_HOST + STORE_PROOF,
    STORE_WELCOME = 8 + STORE_PROOF,
    STORE_HEAD = 12,
    STORE_VALUE = 1 << 20,
    STORE_TEXT = 512 /* of a failure */
};

enum { /* questions of ranks, then what the server says */
       STORE_SET = 1,
       STORE_GET,
       STORE_LOOK,
       STORE_REMOVE,
       STORE_MEET,
       STORE_ABORT,
       STORE_BYE, /* no answer */
       STORE_YES = 32,
       STORE_NO,     /* value: why, or nothing: there is no such name */
       STORE_FAILED, /* a rank is gone; value: text */
       STORE_CLOSED, /* the server ends in order */
       STORE_REFUSED /* instead of all else; value: why */
};

typedef struct store_message {
    uint8_t kind, key_bytes;
    uint32_t id, value_bytes;
    const uint8_t *key, *value; /* within the data */
} store_message;

typedef struct store_hello {
    uint8_t nonce[STORE_NONCE];
    uint32_t rank, ranks;
    uint64_t pid;
    char host[STORE_HOST]; /* printable, ends with 0 */
} store_hello;

int store_random(uint8_t nonce[STORE_NONCE]); /* 0, or errno */
/* HMAC (RFC 2104) with BLAKE2b of 32 bytes; key may be NULL. label: what the proof is for. */
void store_proof(uint8_t proof[STORE_PROOF], const char *key, const char *label,
                 const uint8_t *data, size_t bytes);
int store_same(const uint8_t *a, const uint8_t *b, size_t bytes); /* in constant time */

void store_write_greeting(uint8_t to[STORE_GREETING], const uint8_t nonce[STORE_NONCE]);
int store_read_greeting(uint8_t nonce[STORE_NONCE], const uint8_t from[STORE_GREETING]);
void store_write_hello(uint8_t to[STORE_HELLO], const store_hello *hello, const char *secret,
                       const uint8_t server_nonce[STORE_NONCE]);
int store_begins_hello(const uint8_t *data, size_t bytes); /* may this become a hello? */
/* 1 when the proof holds. The text is made harmless. */
int store_read_hello(store_hello *out, const uint8_t from[STORE_HELLO], const char *secret,
                     const uint8_t server_nonce[STORE_NONCE]);
void store_write_welcome(uint8_t to[STORE_WELCOME], const char *secret,
                         const uint8_t server_nonce[STORE_NONCE], const uint8_t nonce[STORE_NONCE]);
int store_read_welcome(const uint8_t from[STORE_WELCOME], const char *secret,
                       const uint8_t server_nonce[STORE_NONCE], const uint8_t nonce[STORE_NONCE]);

void store_write_head(uint8_t to[STORE_HEAD], int kind, uint32_t id, size_t key_bytes,
                      size_t value_bytes);
/* Bytes of the message at the start of data; 0 when some are missing, -1 when it is none. */
long store_parse(store_message *out, const uint8_t *data, size_t bytes);
/* Text from another process: no control characters, at most size - 1 bytes. */
void store_text(char *to, size_t size, const uint8_t *from, size_t bytes);

#endif
