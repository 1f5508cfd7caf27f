/* Shapes to time, from the command line and from text files. */
#ifndef ATTN_TOOL_BENCH_SHAPES_H
#define ATTN_TOOL_BENCH_SHAPES_H

#include <stddef.h>
#include <stdint.h>

typedef struct bench_shape {
    int64_t batch, heads_q, heads_kv, seqlen_q, seqlen_k, dim_qk, dim_v;
    int causal;
    int decode; /* the file says so: one query, rotating caches */
} bench_shape;

typedef struct bench_shapes {
    bench_shape *items;
    size_t count;
} bench_shapes;

/*
 * A shape is B,Hq,Hkv,Sq,Sk,D or B,Hq,Hkv,Sq,Sk,D,Dv, then the words causal and decode where they are
 * meant. Files have one a line; # begins a comment. Each returns an exit status, having said on
 * stderr what is wrong.
 */
int bench_shapes_add(bench_shapes *shapes, const char *origin, const char *text);
int bench_shapes_add_file(bench_shapes *shapes, const char *path);
void bench_shapes_free(bench_shapes *shapes);

/* "1,16,16,2048,2048,64 causal" into text, which is returned. */
enum { BENCH_SHAPE_TEXT_SIZE = 176 };
const char *bench_shape_text(const bench_shape *shape, char text[BENCH_SHAPE_TEXT_SIZE]);

#endif
