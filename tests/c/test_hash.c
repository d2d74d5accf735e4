/* test_hash.c — BLAKE2b against Python's hashlib.blake2b(data, digest_size=32). */
#include "io/hash.h"
#include "io_helpers.h"

static const char *hex(const uint8_t *digest)
{
    static char text[2 * AM_HASH_BYTES + 1];
    for (int i = 0; i < AM_HASH_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    return text;
}

/* Bytes k * 7 % 256 of that number: none, less than a block, a block, one more, many. */
static const struct {
    size_t bytes;
    const char *digest;
} cases[] = {
    {0, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"},
    {1, "03170a2e7597b7b7e3d84c05391d139a62b157e78786d8c082f29dcf4c111314"},
    {3, "b316f3683ac87007461037a8ff6547de35618800044bb3a4e98b3560c92c3794"},
    {127, "4ff62e7c4c43fe101a078479c48836be4907d9d498dcc577ca89d694b2c11f9b"},
    {128, "14696d2a98d9f8a280da8b132b1045b345e1033759c6b02fcc4ee885c8ae7c37"},
    {129, "3934215260b1039be9d9d2b073b059bcd50120c327a22af93eb4d98cf821c14c"},
    {256, "3d0cb2693dfbac42af5a6cc960953fea8714aa39c4bcd054ef61d6b5e98ade4a"},
    {1000, "6ac4bea923678eb024090384d6e767b5870f849057dc19b172d8d9f2df30bf8e"},
    {3000000, "77e0344a95a8fb74856719b4917273fb41b368252658ad45d20effed2e1f39c1"},
};
enum { CASES = sizeof cases / sizeof *cases, LONGEST = 3000000 };

static uint8_t *sample(void)
{
    uint8_t *data = malloc(LONGEST);
    for (size_t k = 0; k < LONGEST; k++)
        data[k] = (uint8_t)(k * 7);
    return data;
}

START_TEST(test_whole_and_in_pieces)
{
    uint8_t *data = sample(), digest[AM_HASH_BYTES];
    for (int i = 0; i < CASES; i++) {
        am_hash(digest, data, cases[i].bytes);
        ck_assert_str_eq(hex(digest), cases[i].digest);
        for (size_t piece = 1; piece < 300; piece += 63) {
            am_hash_state s;
            am_hash_begin(&s);
            for (size_t at = 0; at < cases[i].bytes; at += piece)
                am_hash_update(&s, data + at,
                               cases[i].bytes - at < piece ? cases[i].bytes - at : piece);
            am_hash_end(&s, digest);
            ck_assert_str_eq(hex(digest), cases[i].digest);
        }
    }
    free(data);
}
END_TEST

START_TEST(test_file)
{
    uint8_t *data = sample(), digest[AM_HASH_BYTES];
    for (int i = 0; i < CASES; i++) {
        ck_ok(am_file_save(folder_path("a"), data, cases[i].bytes));
        ck_ok(am_hash_file(digest, folder_path("a")));
        ck_assert_str_eq(hex(digest), cases[i].digest);
    }
    ck_assert_int_eq(am_hash_file(digest, folder_path("absent")), AM_EIO);
    ck_message("absent");
    free(data);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_whole_and_in_pieces, test_file};
    return run_suite("hash", tests, sizeof tests / sizeof *tests);
}
