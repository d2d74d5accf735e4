/* store_wire.c — the messages of the ranks' store, and the proofs that begin a connection. No
 * sockets here. */
#include "store_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "comm.h"

enum { BLOCK = 128, LONGEST = 512 }; /* BLAKE2b's block; what is proved, with its label */

static const uint8_t greeting_mark[8] = "amstore1", hello_mark[8] = "amrank_1",
                     welcome_mark[8] = "amcome_1";

int store_random(uint8_t nonce[STORE_NONCE])
{
    size_t got = 0;
    while (got < STORE_NONCE) {
        ssize_t n = getrandom(nonce + got, STORE_NONCE - got, 0);
        if (n < 0 && errno != EINTR)
            return errno;
        got += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

void store_proof(uint8_t proof[STORE_PROOF], const char *key, const char *label,
                 const uint8_t *data, size_t bytes)
{
    uint8_t inner[BLOCK + LONGEST], outer[BLOCK + AM_HASH_BYTES], block[BLOCK] = {0};
    size_t length = key ? strlen(key) : 0, label_bytes = strlen(label) + 1;
    if (length > BLOCK)
        am_hash(block, key, length);
    else if (length > 0)
        memcpy(block, key, length);
    for (int i = 0; i < BLOCK; i++) {
        inner[i] = block[i] ^ 0x36;
        outer[i] = block[i] ^ 0x5c;
    }
    memcpy(inner + BLOCK, label, label_bytes);
    memcpy(inner + BLOCK + label_bytes, data, bytes);
    am_hash(outer + BLOCK, inner, BLOCK + label_bytes + bytes);
    am_hash(proof, outer, sizeof outer);
}

int store_same(const uint8_t *a, const uint8_t *b, size_t bytes)
{
    volatile uint8_t differ = 0;
    for (size_t i = 0; i < bytes; i++)
        differ = (uint8_t)(differ | (a[i] ^ b[i]));
    return differ == 0;
}

static void put(uint8_t *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t take(const uint8_t *from, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

void store_write_greeting(uint8_t to[STORE_GREETING], const uint8_t nonce[STORE_NONCE])
{
    memcpy(to, greeting_mark, 8);
    memcpy(to + 8, nonce, STORE_NONCE);
}

int store_read_greeting(uint8_t nonce[STORE_NONCE], const uint8_t from[STORE_GREETING])
{
    memcpy(nonce, from + 8, STORE_NONCE);
    return memcmp(from, greeting_mark, 8) == 0;
}

enum { HELLO_SAID = STORE_HELLO - STORE_PROOF };

static void prove_hello(uint8_t proof[STORE_PROOF], const uint8_t hello[STORE_HELLO],
                        const char *secret, const uint8_t server_nonce[STORE_NONCE])
{
    uint8_t data[STORE_NONCE + HELLO_SAID];
    memcpy(data, server_nonce, STORE_NONCE);
    memcpy(data + STORE_NONCE, hello, HELLO_SAID);
    store_proof(proof, secret, "amlua rank", data, sizeof data);
}

void store_write_hello(uint8_t to[STORE_HELLO], const store_hello *hello, const char *secret,
                       const uint8_t server_nonce[STORE_NONCE])
{
    uint8_t *at = to + 8 + STORE_NONCE;
    memcpy(to, hello_mark, 8);
    memcpy(to + 8, hello->nonce, STORE_NONCE);
    put(at, hello->rank, 4);
    put(at + 4, hello->ranks, 4);
    put(at + 8, hello->pid, 8);
    memcpy(at + 16, hello->host, STORE_HOST);
    prove_hello(to + HELLO_SAID, to, secret, server_nonce);
}

int store_begins_hello(const uint8_t *data, size_t bytes)
{
    return memcmp(data, hello_mark, bytes < 8 ? bytes : 8) == 0;
}

int store_read_hello(store_hello *out, const uint8_t from[STORE_HELLO], const char *secret,
                     const uint8_t server_nonce[STORE_NONCE])
{
    const uint8_t *at = from + 8 + STORE_NONCE;
    uint8_t proof[STORE_PROOF];
    prove_hello(proof, from, secret, server_nonce);
    memcpy(out->nonce, from + 8, STORE_NONCE);
    out->rank = (uint32_t)take(at, 4);
    out->ranks = (uint32_t)take(at + 4, 4);
    out->pid = take(at + 8, 8);
    store_text(out->host, STORE_HOST, at + 16, strnlen((const char *)at + 16, STORE_HOST));
    return store_begins_hello(from, 8) && store_same(proof, from + HELLO_SAID, STORE_PROOF);
}

static void prove_welcome(uint8_t proof[STORE_PROOF], const char *secret,
                          const uint8_t server_nonce[STORE_NONCE], const uint8_t nonce[STORE_NONCE])
{
    uint8_t data[2 * STORE_NONCE];
    memcpy(data, server_nonce, STORE_NONCE);
    memcpy(data + STORE_NONCE, nonce, STORE_NONCE);
    store_proof(proof, secret, "amlua store", data, sizeof data);
}

void store_write_welcome(uint8_t to[STORE_WELCOME], const char *secret,
                         const uint8_t server_nonce[STORE_NONCE], const uint8_t nonce[STORE_NONCE])
{
    memcpy(to, welcome_mark, 8);
    prove_welcome(to + 8, secret, server_nonce, nonce);
}

int store_read_welcome(const uint8_t from[STORE_WELCOME], const char *secret,
                       const uint8_t server_nonce[STORE_NONCE], const uint8_t nonce[STORE_NONCE])
{
    uint8_t proof[STORE_PROOF];
    prove_welcome(proof, secret, server_nonce, nonce);
    return memcmp(from, welcome_mark, 8) == 0 && store_same(proof, from + 8, STORE_PROOF);
}

void store_write_head(uint8_t to[STORE_HEAD], int kind, uint32_t id, size_t key_bytes,
                      size_t value_bytes)
{
    to[0] = (uint8_t)kind;
    to[1] = (uint8_t)key_bytes;
    to[2] = to[3] = 0;
    put(to + 4, id, 4);
    put(to + 8, value_bytes, 4);
}

long store_parse(store_message *out, const uint8_t *data, size_t bytes)
{
    if (bytes < STORE_HEAD)
        return 0;
    out->kind = data[0];
    out->key_bytes = data[1];
    out->id = (uint32_t)take(data + 4, 4);
    out->value_bytes = (uint32_t)take(data + 8, 4);
    int known = (out->kind >= STORE_SET && out->kind <= STORE_BYE) ||
                (out->kind >= STORE_YES && out->kind <= STORE_REFUSED);
    if (!known || data[2] || data[3] || out->value_bytes > STORE_VALUE)
        return -1;
    size_t total = STORE_HEAD + (size_t)out->key_bytes + out->value_bytes;
    if (bytes < total)
        return 0;
    out->key = data + STORE_HEAD;
    out->value = out->key + out->key_bytes;
    return (long)total;
}

void store_text(char *to, size_t size, const uint8_t *from, size_t bytes)
{
    size_t n = bytes < size - 1 ? bytes : size - 1;
    for (size_t i = 0; i < n; i++)
        to[i] = (char)(from[i] < 32 || from[i] == 127 ? '?' : from[i]);
    to[n] = 0;
}
