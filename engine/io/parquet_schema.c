/* parquet_schema.c — the schema as a tree. In the file it is a list of elements in depth-first
 * order, in which a list is spelled as a group with a repeated field, in one of several ways
 * (LogicalTypes.md, "Lists" and "Maps", with the rules for older writers). Holds no values. */
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "parquet.h"

typedef struct builder {
    am_pq_schema *schema;
    const am_pq_meta *meta;
    size_t at;                   /* the next element */
    const am_pq_element *column; /* that is being built */
    int depth;                   /* of lists, maps and structs that are being built */
} builder;

static int fail_element(const am_pq_element *e, const char *what)
{
    return am_fail(AM_EFORMAT, "damaged Parquet schema: \"%.*s\": %s", am_pq_name_width(e), e->name,
                   what);
}

static int next_element(builder *b, const am_pq_element **e)
{
    if (b->at == b->meta->element_count)
        return am_fail(AM_EFORMAT, "damaged Parquet schema: it ends early");
    *e = &b->meta->elements[b->at++];
    return (*e)->repetition <= AM_PQ_REPEATED
               ? AM_OK
               : fail_element(*e, "neither required nor optional nor repeated");
}

/* The element behind `ahead` others, or NULL. */
static const am_pq_element *peek(const builder *b, size_t ahead)
{
    return ahead < b->meta->element_count - b->at ? &b->meta->elements[b->at + ahead] : NULL;
}

static int name_is(const am_pq_element *e, const char *name, size_t bytes, const char *ending)
{
    size_t n = strlen(ending);
    return e->name_bytes == bytes + n && memcmp(e->name, name, bytes) == 0 &&
           memcmp(e->name + bytes, ending, n) == 0;
}

static am_pq_node *node(const builder *b, int i)
{
    return &b->schema->nodes[i];
}

/* A node of the schema, whose array has room for it. */
static int new_node(builder *b, int kind, const am_pq_element *e, int def, int rep)
{
    int i = b->schema->node_count++;
    *node(b, i) = (am_pq_node){
        .name = e->name,
        .name_bytes = e->name_bytes,
        .kind = (uint8_t)kind,
        .def = (uint8_t)def,
        .item_def = (uint8_t)(def + 1),
        .rep = (uint8_t)(rep + 1),
        .first_leaf = b->schema->leaf_count,
        .child = -1,
        .next = -1,
    };
    return i;
}

static int go_deeper(builder *b, const am_pq_element *e)
{
    return ++b->depth > AM_PQ_MAX_DEPTH ? fail_element(e, "nested too deeply") : AM_OK;
}

static int build_field(builder *b, int def, int rep, int *out);
static int build_content(builder *b, const am_pq_element *e, int def, int rep, int *out);

static int build_value(builder *b, const am_pq_element *e, int def, int rep, int *out)
{
    if (e->type < 0 || e->type >= AM_PQ_TYPES)
        return fail_element(e, "neither a group with fields nor a value of a known type");
    if (e->type == AM_PQ_FIXED && (e->type_length < 1 || e->type_length > 1 << 24))
        return fail_element(e, "values of a length that cannot be");
    *out = new_node(b, AM_PQ_NODE_VALUE, e, def, rep);
    b->schema->leaves[b->schema->leaf_count++] =
        (am_pq_leaf){.element = e, .column = b->column, .max_def = def, .max_rep = rep};
    return AM_OK;
}

/* The fields of a group as a node's children. */
static int build_children(builder *b, int parent, int count, int def, int rep)
{
    int last = -1;
    for (int k = 0; k < count; k++) {
        int child;
        if (parent == 0)
            b->column = peek(b, 0);
        AM_TRY(build_field(b, def, rep, &child));
        if (last < 0)
            node(b, parent)->child = child;
        else
            node(b, last)->next = child;
        last = child;
    }
    return AM_OK;
}

/* What is repeated is the item itself, or a group around it. */
static int is_item(const builder *b, const am_pq_element *list, const am_pq_element *repeated)
{
    const am_pq_element *only = peek(b, 1);
    return repeated->children != 1 || name_is(repeated, "array", 5, "") ||
           name_is(repeated, list->name, list->name_bytes, "_tuple") ||
           (only && only->repetition == AM_PQ_REPEATED);
}

static int build_list(builder *b, const am_pq_element *e, int def, int rep, int *out)
{
    const am_pq_element *repeated = peek(b, 0);
    int item = is_item(b, e, repeated), child;
    *out = new_node(b, AM_PQ_NODE_LIST, e, def, rep);
    b->at++;
    if (item)
        AM_TRY(build_content(b, repeated, def + 1, rep + 1, &child));
    else
        AM_TRY(build_field(b, def + 1, rep + 1, &child));
    node(b, *out)->child = child;
    return AM_OK;
}

static int build_map(builder *b, const am_pq_element *e, int def, int rep, int *out)
{
    *out = new_node(b, AM_PQ_NODE_MAP, e, def, rep);
    b->at++;
    return build_children(b, *out, 2, def + 1, rep + 1);
}

/* An element without regard to its own repetition. */
static int build_content(builder *b, const am_pq_element *e, int def, int rep, int *out)
{
    const am_pq_element *first = peek(b, 0);
    int rc;
    if (e->children == 0)
        return build_value(b, e, def, rep, out);
    AM_TRY(go_deeper(b, e));
    int repeats = e->children == 1 && first && first->repetition == AM_PQ_REPEATED;
    if (repeats && e->logical == AM_PQ_MAP && first->children == 2) {
        rc = build_map(b, e, def, rep, out);
    } else if (repeats && (e->logical == AM_PQ_LIST || e->logical == AM_PQ_MAP)) {
        rc = build_list(b, e, def, rep, out);
    } else {
        *out = new_node(b, AM_PQ_NODE_STRUCT, e, def, rep);
        rc = build_children(b, *out, e->children, def, rep);
    }
    b->depth--;
    node(b, *out)->leaves = b->schema->leaf_count - node(b, *out)->first_leaf;
    return rc;
}

/* The next element: one that is repeated without being in a group that says so is a list, never
 * null, of items that are never null. */
static int build_field(builder *b, int def, int rep, int *out)
{
    const am_pq_element *e;
    int child;
    AM_TRY(next_element(b, &e));
    if (e->repetition != AM_PQ_REPEATED)
        return build_content(b, e, def + (e->repetition == AM_PQ_OPTIONAL), rep, out);
    AM_TRY(go_deeper(b, e));
    *out = new_node(b, AM_PQ_NODE_LIST, e, def, rep);
    AM_TRY(build_content(b, e, def + 1, rep + 1, &child));
    b->depth--;
    node(b, *out)->child = child;
    node(b, *out)->leaves = b->schema->leaf_count - node(b, *out)->first_leaf;
    return AM_OK;
}

int am_pq_schema_build(am_pq_schema *s, const am_pq_meta *m)
{
    builder b = {.schema = s, .meta = m};
    const am_pq_element *root;
    void *p;
    AM_TRY(next_element(&b, &root));
    if (root->children == 0)
        return am_fail(AM_EFORMAT, "a Parquet file without columns");
    AM_TRY(am_alloc(&p, 2 * m->element_count * sizeof *s->nodes)); /* two for what is repeated */
    s->nodes = p;
    AM_TRY(am_alloc(&p, m->element_count * sizeof *s->leaves));
    s->leaves = p;
    int i = new_node(&b, AM_PQ_NODE_STRUCT, root, 0, 0);
    AM_TRY(build_children(&b, i, root->children, 0, 0));
    node(&b, i)->leaves = s->leaf_count;
    if (b.at != m->element_count)
        return am_fail(AM_EFORMAT, "damaged Parquet schema: more elements than its root holds");
    for (i = 0; i < s->leaf_count; i++)
        AM_TRY(am_pq_value_check(&s->leaves[i]));
    for (i = 0; i < s->node_count; i++)
        if (s->nodes[i].kind == AM_PQ_NODE_VALUE)
            s->nodes[i].leaves = 1;
    return AM_OK;
}

void am_pq_schema_free(am_pq_schema *s)
{
    am_free(s->nodes);
    am_free(s->leaves);
    memset(s, 0, sizeof *s);
}

int am_pq_in_column(const am_pq_leaf *leaf, int rc)
{
    const am_pq_element *e = leaf->column;
    return rc == AM_EFORMAT || rc == AM_EUNSUP
               ? am_fail_context(rc, "column \"%.*s\"", am_pq_name_width(e), e->name)
               : rc;
}

static void put_node(am_buffer *b, const am_pq_schema *s, int i)
{
    static const char *const kinds[] = {"value", "struct", "list", "map"};
    const am_pq_node *n = &s->nodes[i];
    const char *kind = kinds[n->kind];
    am_json_put_open(b, '{');
    am_json_put_key(b, "name", 4);
    am_json_put_string(b, n->name, n->name_bytes);
    am_json_put_key(b, "kind", 4);
    am_json_put_string(b, kind, strlen(kind));
    am_json_put_key(b, "children", 8);
    am_json_put_open(b, '[');
    for (int child = n->child; child >= 0; child = s->nodes[child].next)
        put_node(b, s, child);
    am_json_put_close(b, ']');
    am_json_put_close(b, '}');
}

void am_pq_schema_json(am_buffer *b, const am_pq_schema *s)
{
    put_node(b, s, 0);
}
