/* test_error.c — error codes and the thread's message. */
#include <pthread.h>
#include "core/error.h"
#include "backend.h"
#include "engine_helpers.h"

START_TEST(names)
{
    static const int codes[] = {AM_OK,      AM_EINVAL, AM_ESHAPE, AM_ENOMEM, AM_EIO,  AM_EFORMAT,
                                AM_EDEVICE, AM_ECOMM,  AM_ESTATE, AM_EUNSUP, AM_EINTR};
    enum { COUNT = sizeof codes / sizeof *codes };
    for (int i = 0; i < COUNT; i++) {
        ck_assert_int_eq(codes[i], i); /* Lua's table counts on it */
        ck_assert_str_ne(am_error_name(codes[i]), "?");
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(am_error_name(codes[i]), am_error_name(codes[j]));
    }
    ck_assert_str_eq(am_error_name(-1), "?");
    ck_assert_str_eq(am_error_name(COUNT), "?");
}
END_TEST

START_TEST(messages)
{
    ck_assert_str_eq(am_error_message(), "");
    ck_assert_int_eq(am_fail(AM_ESHAPE, "row %d", 7), AM_ESHAPE);
    ck_assert_str_eq(am_error_message(), "row 7");
    ck_assert_int_eq(am_fail_context(AM_ESHAPE, "file %s", "x"), AM_ESHAPE);
    ck_assert_str_eq(am_error_message(), "file x: row 7");
    ck_assert_int_eq(am_kernel_fail(AM_EINVAL, "%s", "bad %d"), AM_EINVAL);
    ck_assert_str_eq(am_error_message(), "bad %d");
}
END_TEST

START_TEST(long_messages)
{
    char text[3000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    am_fail(AM_EIO, "%s", text);
    size_t room = strlen(am_error_message());
    ck_assert_uint_gt(room, 1000);
    ck_assert_uint_lt(room, 1024);
    am_fail_context(AM_EIO, "context"); /* the end is cut, the beginning stays */
    ck_assert_uint_eq(strlen(am_error_message()), room);
    ck_assert_int_eq(strncmp(am_error_message(), "context: aaa", 12), 0);
    am_fail_context(AM_EIO, "%s", text);
    ck_assert_uint_eq(strlen(am_error_message()), room);
    for (size_t n = room - 4; n <= room + 1; n++) { /* around the border */
        am_fail(AM_EIO, "b");
        am_fail_context(AM_EIO, "%.*s", (int)n, text);
        ck_assert_uint_le(strlen(am_error_message()), room);
    }
}
END_TEST

static void *other_thread(void *seen)
{
    strcpy(seen, am_error_message());
    am_fail(AM_EIO, "theirs");
    return NULL;
}

START_TEST(a_message_for_each_thread)
{
    pthread_t thread;
    char seen[1024] = "?";
    am_fail(AM_EIO, "ours");
    ck_assert_int_eq(pthread_create(&thread, NULL, other_thread, seen), 0);
    pthread_join(thread, NULL);
    ck_assert_str_eq(seen, "");
    ck_assert_str_eq(am_error_message(), "ours");
}
END_TEST

static int tries(int first, int second)
{
    AM_TRY(first);
    AM_TRY(second);
    return AM_OK;
}

static int tries_out(int first, int *cleaned)
{
    int rc = AM_OK;
    AM_TRY_OUT(first);
    return AM_OK;
out:
    *cleaned = 1;
    return rc;
}

START_TEST(macros)
{
    int cleaned = 0;
    ck_assert_int_eq(tries(AM_OK, AM_OK), AM_OK);
    ck_assert_int_eq(tries(AM_EIO, AM_EINVAL), AM_EIO);
    ck_assert_int_eq(tries(AM_OK, AM_EINVAL), AM_EINVAL);
    ck_assert_int_eq(tries_out(AM_OK, &cleaned), AM_OK);
    ck_assert_int_eq(cleaned, 0);
    ck_assert_int_eq(tries_out(AM_ECOMM, &cleaned), AM_ECOMM);
    ck_assert_int_eq(cleaned, 1);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("error");
    TCase *t = tcase_create("errors");
    tcase_add_test(t, names);
    tcase_add_test(t, messages);
    tcase_add_test(t, long_messages);
    tcase_add_test(t, a_message_for_each_thread);
    tcase_add_test(t, macros);
    suite_add_tcase(s, t);
    return run_suite(s);
}
