/* plans.c — attention's plans by the cuDNN that is installed, for GPUs that are not there: each
 * line of plans.txt says what becomes of heads of five sizes, forward or backward, and has to be
 * right. used   the backend asks for it: every plan has to be made plan   there would be plans, and
 * our kernel is used none   there are none, and our kernel is used More plans than the table says
 * are told, and no failure: cuDNN learns. Prints TAP. usage: plans TABLE */
#include <stdio.h>
#include <string.h>

#include "cudnn_attention.h"
#include "dtype.h"

static const int64_t heads[] = {64, 80, 96, 128, 256};
enum { HEADS = sizeof heads / sizeof *heads };

static const struct gpu {
    int capability, multiprocessors, shared, blocks, threads;
    long long memory;
    int l2;
    const char *name;
} gpus[] = {
    {80, 108, 166912, 32, 2048, 85000000000, 41943040, "NVIDIA A100-SXM4-80GB"},
    {89, 128, 101376, 24, 1536, 25000000000, 75497472, "NVIDIA GeForce RTX 4090"},
    {90, 132, 232448, 32, 2048, 85000000000, 52428800, "NVIDIA H100 80GB HBM3"},
    {100, 148, 232448, 32, 2048, 190000000000, 132644864, "NVIDIA B200"},
    {120, 170, 101376, 24, 1536, 33000000000, 100663296, "NVIDIA GeForce RTX 5090"},
};

/* What cuDNN asks of a GPU. */
static am_dnn_descriptor describe(const am_dnn_library *dnn, int capability)
{
    const struct gpu *g = gpus;
    am_dnn_descriptor d = NULL;
    char text[1024];
    for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++)
        if (gpus[i].capability == capability)
            g = &gpus[i];
    snprintf(text, sizeof text,
             "{\"deviceName\":\"%s\",\"deviceVer\":%d,\"multiProcessorCount\":%d,"
             "\"maxSharedMemoryPerBlockOptin\":%d,\"maxCtasPerSM\":%d,\"maxThreadsPerSM\":%d,"
             "\"totalGlobalMem\":%lld,\"l2CacheSize\":%d,\"driverVer\":13000,\"cudaDeviceId\":0,"
             "\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
             "\"regsPerBlock\":65536,\"maxRegistersPerSM\":65536,\"maxThreadsPerBlock\":1024,"
             "\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,"
             "\"reservedSharedMemoryPerBlock\":1024,\"pciDeviceId\":0,\"isTccDriver\":0,"
             "\"supportCoopLaunch\":1,\"smClockRateKHz\":1980000,\"memClockRateKHz\":2619000}",
             g->name, g->capability * 10, g->multiprocessors, g->shared, g->blocks, g->threads,
             g->memory, g->l2);
    if (g->capability != capability ||
        dnn->descriptor_new(AM_DNN_BACKEND_DEVICEPROP_DESCRIPTOR, &d) != AM_DNN_STATUS_SUCCESS ||
        dnn->set(d, AM_DNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, AM_DNN_TYPE_CHAR,
                 (int64_t)strlen(text) + 1, text) != AM_DNN_STATUS_SUCCESS ||
        dnn->finalize(d) != AM_DNN_STATUS_SUCCESS)
        return NULL;
    return d;
}

static const struct form {
    int64_t places, t, h, kh;
    int dtype, causal, window;
} forms[] = {
    {4, 512, 8, 8, AM_BF16, 0, 0}, {4, 512, 8, 2, AM_BF16, 1, 0}, {4, 512, 8, 2, AM_BF16, 1, 1},
    {1, 64, 3, 1, AM_F16, 1, 0},   {2, 1536, 8, 4, AM_F16, 0, 1},
};
enum { FORMS = sizeof forms / sizeof *forms };

/* Of all forms of a head: how many have a plan. The library's word on the first that has not. */
static int plans_of(const am_dnn_library *dnn, am_dnn_descriptor gpu, int backward, int64_t d,
                    char *why, size_t room)
{
    int made = 0;
    for (int i = 0; i < FORMS; i++) {
        const struct form *f = &forms[i];
        am_dnn_graph g;
        am_dnn_plan plan;
        am_dnn_attention a = {.backward = backward, .dtype = f->dtype, .causal = f->causal};
        a.window = f->window;
        a.places = f->places;
        a.t = f->t;
        a.h = f->h;
        a.kh = f->kh;
        a.d = d;
        a.q[0] = (f->h + 2 * f->kh) * d; /* all in one product's rows */
        a.k[0] = a.v[0] = a.q[0];
        a.q[1] = a.k[1] = a.v[1] = d;
        am_dnn_graph_begin(&g, dnn);
        int status = am_dnn_attention_plan(&g, &a, (am_dnn_target){.described = gpu}, &plan);
        made += status == AM_DNN_STATUS_SUCCESS;
        if (status != AM_DNN_STATUS_SUCCESS)
            snprintf(why, room, "form %d, %s: %s", i, g.where, dnn->error_text(status));
        am_dnn_plan_free(dnn, &plan);
        am_dnn_graph_end(&g);
    }
    return made;
}

/* 1 when the line's word for a head is right. */
static int check(const am_dnn_library *dnn, am_dnn_descriptor gpu, int capability, int backward,
                 int64_t d, const char *word)
{
    char why[160] = "";
    am_dnn_attention a = {.backward = backward, .dtype = AM_BF16, .d = d};
    int used = strcmp(word, "used") == 0, plan = strcmp(word, "plan") == 0;
    int made = plans_of(dnn, gpu, backward, d, why, sizeof why);
    if (am_dnn_attention_listed(&a, capability) != used)
        printf("# head %d: the backend %s\n", (int)d, used ? "does not ask" : "asks for it");
    else if ((used || plan) && made < FORMS)
        printf("# head %d: %d of %d plans; %s\n", (int)d, made, FORMS, why);
    else {
        if (!used && !plan && made > 0)
            printf("# head %d: %d of %d plans, where the table has none\n", (int)d, made, FORMS);
        return used || plan || strcmp(word, "none") == 0;
    }
    return 0;
}

int main(int argc, char **argv)
{
    am_dnn_library dnn;
    char why[256], line[256], pass[16], words[HEADS][16];
    int capability, count = 0, failed = 0;
    FILE *table = argc > 1 ? fopen(argv[1], "r") : NULL;
    if (!table) {
        fprintf(stderr, "usage: plans TABLE\n");
        return 2;
    }
    if (!am_dnn_open(&dnn, why, sizeof why)) {
        printf("not ok 1 - cuDNN opens\n# %s\n1..1\n", why);
        (void)fclose(table);
        return 1;
    }
    printf("# cuDNN %ld\n", dnn.version);
    while (fgets(line, sizeof line, table)) {
        if (line[0] == '#' || sscanf(line, "%d %15s %15s %15s %15s %15s %15s", &capability, pass,
                                     words[0], words[1], words[2], words[3], words[4]) != 7)
            continue;
        am_dnn_descriptor gpu = describe(&dnn, capability);
        int good = gpu != NULL;
        for (int i = 0; i < HEADS && gpu; i++)
            good &= check(&dnn, gpu, capability, strcmp(pass, "backward") == 0, heads[i], words[i]);
        printf("%sok %d - sm_%d, %s\n", good ? "" : "not ", ++count, capability, pass);
        (void)fflush(stdout);
        failed |= !good;
        if (gpu)
            (void)dnn.descriptor_free(gpu);
    }
    printf("1..%d\n", count);
    (void)fclose(table);
    am_dnn_close(&dnn);
    return failed || count == 0;
}
