/* store_net.h — addresses and sockets as the store's two sides use them. */
#ifndef AM_STORE_NET_H
#define AM_STORE_NET_H

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const char store_no_secret[] =
    "without a secret ranks meet at a loopback address only: set the same secret for all ranks";

/* 0, or what gai_strerror explains. */
static inline int store_resolve(struct addrinfo **out, const char *address, int port)
{
    char service[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    snprintf(service, sizeof service, "%d", port);
    return getaddrinfo(address, service, &hints, out);
}

static inline int store_is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
    const struct in6_addr *six = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(six);
}

/* Small messages at once; a host that is gone is noticed within half a minute. */
static inline void store_tune(int fd)
{
    int on = 1, idle = 10, between = 5, count = 4;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof between);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

static inline void store_address_text(char *to, size_t size, const struct sockaddr *a,
                                      socklen_t bytes)
{
    char host[64], service[16];
    if (getnameinfo(a, bytes, host, sizeof host, service, sizeof service,
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(to, size, "%s port %s", host, service);
    else
        snprintf(to, size, "an unknown address");
}

#endif
