/* fuzz_store.c — any bytes from a stranger, or from a rank that knows the secret, to the server of
 * the ranks' store; and any bytes as what a server says. */
#include "dist/store_server.h"
#include "dist/store_wire.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RANKS = 3, STRANGER = 3 }; /* the first byte: who speaks, else rank 0, 1 or 2 */

static int connect_to(am_store_server *s)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
        abort();
    store_server_adopt(s, ends[0], "a fuzzer");
    store_server_step(s, 0); /* the greeting */
    return ends[1];
}

static void join(am_store_server *s, int fd, uint32_t rank)
{
    uint8_t greeting[STORE_GREETING], nonce[STORE_NONCE], hello[STORE_HELLO];
    store_hello self = {.rank = rank, .ranks = RANKS, .host = "fuzz"};
    if (recv(fd, greeting, sizeof greeting, MSG_DONTWAIT) != (ssize_t)sizeof greeting ||
        !store_read_greeting(nonce, greeting))
        abort();
    store_write_hello(hello, &self, "secret", nonce);
    if (send(fd, hello, sizeof hello, MSG_NOSIGNAL) != (ssize_t)sizeof hello)
        abort();
    store_server_step(s, 0);
}

/* What the server says must be messages. */
static void listen_to(am_store_server *s, int fd)
{
    static uint8_t data[1 << 16];
    size_t have = 0, used = STORE_WELCOME;
    ssize_t n;
    store_message m;
    long size = 0;
    store_server_step(s, 0);
    while (have < sizeof data &&
           (n = recv(fd, data + have, sizeof data - have, MSG_DONTWAIT)) > 0) {
        have += (size_t)n;
        store_server_step(s, 0);
    }
    while (used < have && (size = store_parse(&m, data + used, have - used)) > 0)
        used += (size_t)size;
    if (size < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static volatile uint64_t sink;
    store_message m;
    char text[64];
    if (bytes < 2)
        return 0;
    for (size_t at = 2; at < bytes;) { /* as a rank reads */
        long size = store_parse(&m, data + at, bytes - at);
        if (size <= 0)
            break;
        store_text(text, sizeof text, m.value, m.value_bytes);
        sink = sink + strlen(text);
        at += (size_t)size;
    }

    am_store_server *s = store_server_new("secret", RANKS, NULL);
    if (!s)
        abort();
    uint32_t who = data[0] % (RANKS + 1);
    int other = connect_to(s), fd = connect_to(s);
    join(s, other, who == 0 ? 1 : 0);
    if (who != STRANGER)
        join(s, fd, who);
    size_t piece = (size_t)data[1] + 1; /* at once, or in pieces */
    for (size_t at = 2; at < bytes; at += piece) {
        size_t n = bytes - at < piece ? bytes - at : piece;
        if (send(fd, data + at, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
        store_server_step(s, 0);
    }
    listen_to(s, other);
    if (who != STRANGER)
        listen_to(s, fd);
    close(fd);
    store_server_step(s, 0);
    listen_to(s, other);
    close(other);
    store_server_free(s);
    return 0;
}
