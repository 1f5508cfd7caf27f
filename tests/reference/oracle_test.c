/* The oracle against numbers computed by hand, and its parts against their published definitions. */
#include "test.h"
#include "reference/problems.h"
#include "reference/rounding.h"

static int near(double a, double b) { return fabs(a - b) <= 1e-12 * (1.0 + fabs(b)); }

static void test_rounding(void) {
    for (uint32_t bits = 0; bits < 65536; ++bits) {
        for (int dtype = ATTN_F16; dtype <= ATTN_BF16; ++dtype) {
            uint16_t in = (uint16_t)bits, out;
            double x = attni_reference_load(&in, (attn_dtype)dtype, 0);
            attni_reference_store(&out, (attn_dtype)dtype, 0, x);
            if (isnan(x)) {
                CHECK(isnan(attni_reference_load(&out, (attn_dtype)dtype, 0)), "NaN of bits %04x", bits);
            } else {
                CHECK(in == out, "bits %04x came back as %04x", in, out);
                CHECK(attni_reference_round(x, (attn_dtype)dtype) == x,
                      "bits %04x do not round to themselves", in);
            }
        }
    }
    for (int bits = 0; bits < 256; ++bits) {
        for (int dtype = ATTN_F8_E4M3; dtype <= ATTN_F8_E5M2; ++dtype) {
            uint8_t in = (uint8_t)bits, out;
            double x = attni_reference_load(&in, (attn_dtype)dtype, 0);
            attni_reference_store(&out, (attn_dtype)dtype, 0, x);
            if (isnan(x))
                CHECK(isnan(attni_reference_load(&out, (attn_dtype)dtype, 0)), "NaN of bits %02x", bits);
            else
                CHECK(in == out && attni_reference_round(x, (attn_dtype)dtype) == x,
                      "bits %02x came back as %02x", in, out);
        }
    }
    const struct {
        double from, to;
        attn_dtype dtype;
    } cases[] = {
        {65519.0, 65504.0, ATTN_F16},
        {65520.0, INFINITY, ATTN_F16},
        {0x1p-25, 0.0, ATTN_F16},
        {0x1.8p-25, 0x1p-24, ATTN_F16},
        {1.0 + 0x1p-11, 1.0, ATTN_F16},
        {1.0 + 0x1.8p-10, 1.0 + 0x1p-9, ATTN_F16},
        {1.0 + 0x1p-8, 1.0, ATTN_BF16},
        {1.0 + 0x1.00001p-8, 1.0 + 0x1p-7, ATTN_BF16},
        {-0x1.ffp127, -INFINITY, ATTN_BF16},
        {1.0 + 0x1p-24, 1.0, ATTN_F32},
        {463.0, 448.0, ATTN_F8_E4M3},
        {17.0, 16.0, ATTN_F8_E4M3},
        {-19.0, -20.0, ATTN_F8_E4M3},
        {0x1p-10, 0.0, ATTN_F8_E4M3},
        {0x1.8p-10, 0x1p-9, ATTN_F8_E4M3},
        {61439.0, 57344.0, ATTN_F8_E5M2},
        {61440.0, INFINITY, ATTN_F8_E5M2},
        {1.125, 1.0, ATTN_F8_E5M2},
        {0x1.8p-17, 0x1p-16, ATTN_F8_E5M2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        double got = attni_reference_round(cases[i].from, cases[i].dtype);
        CHECK(got == cases[i].to, "%a rounds to %a, not to %a", cases[i].from, got, cases[i].to);
    }
    CHECK(attni_reference_half_step(1.0, ATTN_BF16) == 0x1p-8 &&
              attni_reference_half_step(-1.99, ATTN_F32) == 0x1p-24 &&
              attni_reference_half_step(0.0, ATTN_F16) == 0x1p-25 &&
              attni_reference_half_step(0x1p-130, ATTN_BF16) == 0x1p-134,
          "half a step");
    CHECK(attni_reference_overflow(ATTN_F16) == 65520.0 &&
              attni_reference_overflow(ATTN_F32) == 0x1.ffffffp127 &&
              attni_reference_overflow(ATTN_BF16) == 0x1.ffp127,
          "the least number that overflows");
}

/* The known answers that come with Random123. */
static void test_philox(void) {
    const uint32_t cases[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e,
         0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb,
         0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; ++i) {
        uint32_t counter[4];
        memcpy(counter, cases[i], sizeof counter);
        attni_reference_philox(counter, cases[i][4], cases[i][5]);
        CHECK(memcmp(counter, cases[i] + 6, sizeof counter) == 0, "case %d gives %08x", i, counter[0]);
    }
}

/* Eight keys share a call, and the block below position 0 is block -1. */
static void test_dropout(void) {
    attn_problem p = ATTN_PROBLEM_INIT;
    attn_tensors t = ATTN_TENSORS_INIT;
    p.heads_q = 3;
    p.dropout_p = 0.5f;
    t.dropout_seed = 0x299f31d0a4093822u;
    t.dropout_offset = 0x9903707344u; /* its high word plays no part */
    int kept = 0;
    for (int64_t key = -16; key < 16; ++key) {
        uint32_t counter[4] = {key < -8  ? 0xfffffffeu
                               : key < 0 ? 0xffffffffu
                               : key < 8 ? 0u
                                         : 1u,
                               0xfffffffbu, 5u, 0x03707344u};
        attni_reference_philox(counter, 0xa4093822u, 0x299f31d0u);
        int lane = (int)(key & 7);
        uint32_t value = lane & 1 ? counter[lane / 2] >> 16 : counter[lane / 2] & 0xffffu;
        int keeps = attni_reference_keeps(&p, &t, 1, 2, -5, key);
        CHECK(keeps == (value >= 32768), "key %lld, value %u", (long long)key, value);
        kept += keeps;
    }
    CHECK(kept > 4 && kept < 28, "%d of 32 kept", kept);
}

/* Two queries, three keys, dim 1: every option's effect can be said in one line. */
typedef struct small {
    attn_problem p;
    attn_tensors t;
    float q[2], k[3], v[3], bias[6], slope[1], sink[1];
    uint8_t mask[6];
    double o[2], lse[2];
} small;

static void small_begin(small *s) {
    const attn_problem p = ATTN_PROBLEM_INIT;
    const attn_tensors t = ATTN_TENSORS_INIT;
    const float q[] = {1, 2}, k[] = {1, -1, 0.5f}, v[] = {1, 10, 100};
    s->p = p;
    s->t = t;
    s->p.seqlen_q = 2;
    s->p.seqlen_k = 3;
    s->p.dim_qk = s->p.dim_v = 1;
    memcpy(s->q, q, sizeof q);
    memcpy(s->k, k, sizeof k);
    memcpy(s->v, v, sizeof v);
    s->t.q = s->q;
    s->t.k = s->k;
    s->t.v = s->v;
    s->t.bias = s->bias;
    s->t.mask = s->mask;
    s->t.alibi_slopes = s->slope;
    s->t.sinks = s->sink;
}

/* Compares with rows of three logits (-inf: hidden) and a sink. */
static void small_expect(small *s, const char *name, const double logits[6], double sink) {
    attni_reference_result result = {.o = s->o, .lse = s->lse};
    NEED(attni_reference_forward(&s->p, &s->t, &result) == 0);
    for (int i = 0; i < 2; ++i) {
        double sum = exp(sink), o = 0.0;
        for (int j = 0; j < 3; ++j) {
            sum += exp(logits[3 * i + j]);
            o += exp(logits[3 * i + j]) * (double)s->v[j];
        }
        o = sum > 0.0 ? o / sum : 0.0;
        CHECK(near(s->o[i], o), "%s: o[%d] is %.17g, not %.17g", name, i, s->o[i], o);
        CHECK(s->lse[i] == log(sum) || near(s->lse[i], log(sum)), "%s: lse[%d] is %.17g, not %.17g", name, i,
              s->lse[i], log(sum));
    }
}

static void test_small(void) {
    const double none = -INFINITY;
    small s;
    small_begin(&s);
    small_expect(&s, "plain", (double[6]){1, -1, 0.5, 2, -2, 1}, none);

    s.t.scale = -0.5f;
    small_expect(&s, "scale", (double[6]){-0.5, 0.5, -0.25, -1, 1, -0.5}, none);

    small_begin(&s);
    s.p.mask = ATTN_MASK_CAUSAL;
    small_expect(&s, "causal, bottom right", (double[6]){1, -1, none, 2, -2, 1}, none);
    s.t.query_start = 0;
    small_expect(&s, "causal, top left", (double[6]){1, none, none, 2, -2, none}, none);
    s.t.key_start = 1;
    small_expect(&s, "causal, keys from 1", (double[6]){none, none, none, 2, none, none}, none);
    s.p.has_sinks = 1;
    s.sink[0] = 0.25f;
    small_expect(&s, "a row of its sink alone", (double[6]){none, none, none, 2, none, none}, 0.25);

    small_begin(&s); /* query positions 1 and 2 */
    s.p.window_left = 0;
    small_expect(&s, "window left", (double[6]){none, -1, 0.5, none, none, 1}, none);
    s.p.window_left = ATTN_WINDOW_UNLIMITED;
    s.p.window_right = 0;
    small_expect(&s, "window right", (double[6]){1, -1, none, 2, -2, 1}, none);

    small_begin(&s);
    s.p.softcap = 2.0f;
    s.p.has_alibi = 1;
    s.slope[0] = 0.5f;
    s.p.has_bias = 1;
    for (int i = 0; i < 6; ++i) s.bias[i] = (float)i;
    s.bias[4] = -INFINITY;
    small_expect(&s, "softcap, then alibi and bias",
                 (double[6]){2 * tanh(0.5) - 0.5 + 0, 2 * tanh(-0.5) + 1, 2 * tanh(0.25) - 0.5 + 2,
                             2 * tanh(1.0) - 1.0 + 3, none, 2 * tanh(0.5) + 5},
                 none);
    s.p.bias.queries = 0;
    s.p.softcap = 0.0f;
    s.p.has_alibi = 0;
    small_expect(&s, "one bias row for all", (double[6]){1 + 0, -1 + 1, 0.5 + 2, 2 + 0, -2 + 1, 1 + 2}, none);

    small_begin(&s);
    s.p.has_mask = 1;
    memcpy(s.mask, (uint8_t[6]){0, 7, 0, 0, 0, 0}, 6);
    small_expect(&s, "mask", (double[6]){none, -1, none, none, none, none}, none);

    small_begin(&s);
    const int32_t length[1] = {2};
    s.p.lengths_k = ATTN_LENGTHS_PADDED;
    s.t.lengths_k = length;
    s.k[2] = s.v[2] = NAN;
    attni_reference_result result = {.o = s.o, .lse = s.lse};
    NEED(attni_reference_forward(&s.p, &s.t, &result) == 0);
    double o = (exp(1.0) + 10 * exp(-1.0)) / (exp(1.0) + exp(-1.0));
    CHECK(near(s.o[0], o), "padded keys: %g, not %g", s.o[0], o);

    small_begin(&s);
    s.t.seqlen_q = 1;
    NEED(attni_reference_forward(&s.p, &s.t, &result) == 0);
    CHECK(s.o[1] == ATTNI_REFERENCE_UNWRITTEN && s.lse[1] == ATTNI_REFERENCE_UNWRITTEN, "o[1] is %g", s.o[1]);
    CHECK(near(s.lse[0], log(exp(1.0) + exp(-1.0) + exp(0.5))), "lse[0] is %g", s.lse[0]);
}

static void test_tolerance(void) {
    const double ref[] = {1.0, (double)NAN, ATTNI_REFERENCE_UNWRITTEN, (double)INFINITY};
    const double naive[] = {1.25, (double)NAN, ATTNI_REFERENCE_UNWRITTEN, (double)INFINITY};
    const double floors[] = {0.5, (double)NAN, ATTNI_REFERENCE_UNWRITTEN, (double)NAN};
    double out[] = {1.75, (double)NAN, 5.0, (double)INFINITY};
    attni_tolerance_arrays arrays = {
        .rows = 4, .dim = 1, .out = out, .ref = ref, .naive = naive, .floor = floors, .dtype = ATTN_F32};
    const struct {
        double first, second, last;
        int holds;
    } cases[] = {
        {1.75, (double)NAN, (double)INFINITY, 1}, {0.25, (double)NAN, (double)INFINITY, 1},
        {2.01, (double)NAN, (double)INFINITY, 0}, {(double)NAN, (double)NAN, (double)INFINITY, 0},
        {1.0, 0.0, (double)INFINITY, 0},          {1.0, (double)NAN, -(double)INFINITY, 0},
        {1.0, (double)NAN, (double)NAN, 0},       {-(double)INFINITY, (double)NAN, (double)INFINITY, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        out[0] = cases[i].first;
        out[1] = cases[i].second;
        out[3] = cases[i].last;
        CHECK(attni_tolerance_judge(&arrays).holds == cases[i].holds, "case %zu", i);
    }
}

/* Beside a sink so many powers of two above all scores P is below float32's numbers, or not: then a 0 is wrong. */
static void test_far_sink(attn_dtype dtype, attn_dtype dtype_o, double powers, int may_vanish) {
    enum { KEYS = 4, DIM = 16 };
    unsigned char q[DIM * 2] = {0}, k[KEYS * DIM * 2] = {0}, v[KEYS * DIM * 2]; /* scores of 0 */
    const float sink = (float)(powers * 0.69314718055994531);
    const double zeros[DIM] = {0};
    double o[DIM], naive[DIM], o_floor[DIM], lse, lse_naive, lse_floor, cut;
    for (int i = 0; i < KEYS * DIM; ++i) attni_reference_store(v, dtype, i, 1.0 + i % 4 * 0.25);
    attn_problem p = ATTN_PROBLEM_INIT;
    p.heads_q = p.heads_kv = p.batch = p.seqlen_q = 1;
    p.seqlen_k = KEYS;
    p.dim_qk = p.dim_v = DIM;
    p.dtype_q = p.dtype_kv = dtype;
    p.dtype_o = dtype_o;
    p.has_sinks = 1;
    attn_tensors t = ATTN_TENSORS_INIT;
    t.q = q;
    t.k = k;
    t.v = v;
    t.sinks = &sink;
    const attni_reference_result result = {o, &lse, naive, &lse_naive, o_floor, &lse_floor, &cut};
    NEED(attni_reference_forward(&p, &t, &result) == 0);
    const attni_tolerance_arrays arrays = {.rows = 1,
                                           .dim = DIM,
                                           .out = zeros,
                                           .ref = o,
                                           .naive = naive,
                                           .floor = o_floor,
                                           .dtype = dtype_o,
                                           .is_f8 = dtype >= ATTN_F8_E4M3};
    CHECK(o[0] > 0.0 && attni_tolerance_judge(&arrays).holds == may_vanish,
          "dtype %d, a sink %g powers of two above: 0 for %g, allowed %g", dtype, powers, o[0], o_floor[0]);
}

/* What a plain program loses in one row excuses no other row: elements are judged by their own row's errors. */
static void test_tolerance_by_rows(void) {
    const double ref[] = {1.0, 2.0, 1.0, 2.0}, naive[] = {101.0, 2.0, 1.0, 2.01};
    const double floors[] = {0.0, 0.0, 0.0, 0.0};
    double out[] = {1.0, 2.0, 1.0, 2.0};
    attni_tolerance_arrays arrays = {
        .rows = 2, .dim = 2, .out = out, .ref = ref, .naive = naive, .floor = floors, .dtype = ATTN_F32};
    const struct {
        int at, holds;
        double off;
    } cases[] = {{0, 1, 100.0}, {1, 1, 100.0}, {2, 1, 0.015}, {3, 1, 0.015}, {2, 0, 0.03}, {3, 0, 0.03}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        memcpy(out, ref, sizeof out);
        out[cases[i].at] += cases[i].off;
        attni_tolerance_verdict verdict = attni_tolerance_judge(&arrays);
        CHECK(verdict.holds == cases[i].holds, "element %d, %g off: allowed was %g", cases[i].at,
              cases[i].off, verdict.allowed);
        CHECK(verdict.holds || verdict.worst == cases[i].at, "element %lld decided",
              (long long)verdict.worst);
    }
}

/* LSE has one number a row, where naive may be right by luck: what it loses elsewhere counts, in floors. */
static void test_tolerance_of_lse(void) {
    const double ref[] = {1000.0, 1.0}, naive[] = {1020.0, 1.0}, floors[] = {10.0, 0.01};
    double out[] = {1000.0, 1.0};
    attni_tolerance_arrays arrays = {.rows = 2,
                                     .dim = 1,
                                     .out = out,
                                     .ref = ref,
                                     .naive = naive,
                                     .floor = floors,
                                     .dtype = ATTN_F32,
                                     .is_lse = 1};
    const struct {
        int at, holds;
        double off;
    } cases[] = {{0, 1, 39.9}, {0, 0, 50.1}, {1, 1, 0.0499}, {1, 0, 0.0501}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        memcpy(out, ref, sizeof out);
        out[cases[i].at] += cases[i].off;
        attni_tolerance_verdict verdict = attni_tolerance_judge(&arrays);
        CHECK(verdict.holds == cases[i].holds, "element %d, %g off: allowed was %g", cases[i].at,
              cases[i].off, verdict.allowed);
    }
}

/* What overflows counts as the least number that does: 65520 in f16, which lies 20 and 0 from the truths here. */
static void test_tolerance_of_overflow(void) {
    const double ref[] = {65500.0, 1e6}, floors[] = {0.0, 0.0}, inf = (double)INFINITY;
    double out[2], naive[2];
    attni_tolerance_arrays arrays = {
        .rows = 2, .dim = 1, .out = out, .ref = ref, .naive = naive, .floor = floors, .dtype = ATTN_F16};
    const struct {
        double first, second, naive;
        int holds;
    } cases[] = {
        {65504.0, inf, 65500.0, 1}, {inf, inf, 65500.0, 1},      {-inf, inf, 65500.0, 0},
        {inf, inf, 65504.0, 1},     {65504.0, -inf, 65500.0, 0}, {65504.0, 65504.0, 65500.0, 0},
        {65376.0, inf, 65500.0, 0}, {65376.0, inf, 65400.0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        out[0] = cases[i].first;
        out[1] = cases[i].second;
        naive[0] = cases[i].naive;
        naive[1] = inf;
        attni_tolerance_verdict verdict = attni_tolerance_judge(&arrays);
        CHECK(verdict.holds == cases[i].holds, "case %zu: %g, allowed %g", i, verdict.error, verdict.allowed);
    }
}

static attni_tolerance_arrays arrays_of(const attni_problems_case *c, int is_lse, const double *out) {
    const attni_reference_result *t = &c->truth;
    attni_tolerance_arrays arrays = {.rows = attni_reference_lse_count(&c->problem, &c->tensors),
                                     .dim = c->problem.dim_v,
                                     .out = out,
                                     .ref = t->o,
                                     .naive = t->o_naive,
                                     .floor = t->o_floor,
                                     .dtype = c->problem.dtype_o,
                                     .on_gpu = c->on_gpu};
    if (!is_lse) return arrays;
    attni_tolerance_arrays lse = {.rows = arrays.rows,
                                  .dim = 1,
                                  .out = out,
                                  .ref = t->lse,
                                  .naive = t->lse_naive,
                                  .floor = t->lse_floor,
                                  .dtype = ATTN_F32,
                                  .cut = c->on_gpu ? t->lse_cut : NULL,
                                  .on_gpu = c->on_gpu,
                                  .is_lse = 1};
    return lse;
}

/* The exact answer to a problem that is wrong in one thing. */
typedef enum wrong { ONE_KEY_LESS, ONE_POSITION_OFF, SCALE_OFF, WRONG_COUNT } wrong;

static int make_wrong(const attni_problems_case *c, wrong what, double *o, double *lse) {
    attn_problem p = c->problem;
    attn_tensors t = c->tensors;
    attni_reference_sequence at = attni_reference_find(&p, &t, 0);
    if (p.lengths_q || p.lengths_k || at.keys < 2 || at.rows < 1) return 0;
    t.query_start = at.query_start;
    t.key_start = at.key_start;
    if (what == ONE_KEY_LESS) t.seqlen_k = at.keys - 1;
    if (what == ONE_POSITION_OFF) --t.query_start;
    if (what == SCALE_OFF)
        t.scale = t.scale == ATTN_SCALE_DEFAULT ? 1.01f / sqrtf((float)p.dim_qk) : 1.01f * t.scale;
    attni_reference_result result = {.o = o, .lse = lse};
    NEED(attni_reference_forward(&p, &t, &result) == 0);
    for (int64_t i = 0; i < attni_reference_o_count(&p, &t); ++i) {
        if (o[i] != ATTNI_REFERENCE_UNWRITTEN) o[i] = attni_reference_round(o[i], p.dtype_o);
    }
    return 1;
}

/* The naive answer passes everywhere; answers to other problems do not, where they differ visibly. */
static void test_generator(void) {
    int seen[WRONG_COUNT] = {0}, caught[WRONG_COUNT] = {0};
    for (uint64_t seed = 0; seed < 600; ++seed) {
        attni_problems_case c;
        double ratio;
        char message[1024];
        NEED(attni_problems_make(&c, seed, NULL) == 0);
        c.on_gpu = (int)(seed % 2); /* what a GPU is allowed must refuse as much */
        attni_problems_verify(&c, &ratio, message, sizeof message); /* makes the truth */
        NEED(c.truth.o != NULL);
        for (int is_lse = 0; is_lse < 2; ++is_lse) {
            attni_tolerance_arrays arrays =
                arrays_of(&c, is_lse, is_lse ? c.truth.lse_naive : c.truth.o_naive);
            attni_tolerance_verdict verdict = attni_tolerance_judge(&arrays);
            CHECK(verdict.holds, "naive is %g from the oracle, allowed %g (%s)", verdict.error,
                  verdict.allowed, c.text);
        }
        size_t rows = (size_t)attni_reference_lse_count(&c.problem, &c.tensors);
        double *o = test_memory(rows * (size_t)c.problem.dim_v * sizeof *o),
               *lse = test_memory(rows * sizeof *lse);
        for (int what = 0; what < WRONG_COUNT; ++what) {
            if (!make_wrong(&c, (wrong)what, o, lse)) continue;
            double most = 0.0;
            for (size_t i = 0; i < rows; ++i) {
                if (lse[i] != ATTNI_REFERENCE_UNWRITTEN && lse[i] != c.truth.lse[i])
                    most = fmax(most, fabs(lse[i] - c.truth.lse[i]));
            }
            if (!(most > 0.01)) continue;
            attni_tolerance_arrays for_o = arrays_of(&c, 0, o), for_lse = arrays_of(&c, 1, lse);
            ++seen[what];
            caught[what] += !attni_tolerance_judge(&for_o).holds || !attni_tolerance_judge(&for_lse).holds;
        }
        free(o);
        free(lse);
        attni_problems_free(&c);
    }
    for (int what = 0; what < WRONG_COUNT; ++what) {
        CHECK(seen[what] > 50, "mistake %d was made %d times", what, seen[what]);
        CHECK(caught[what] >= seen[what] * 97 / 100, "mistake %d: %d of %d caught", what, caught[what],
              seen[what]);
    }
}

int main(void) {
    test_rounding();
    test_philox();
    test_dropout();
    test_small();
    test_tolerance();
    test_tolerance_by_rows();
    test_tolerance_of_lse();
    test_tolerance_of_overflow();
    for (int dtype = ATTN_BF16; dtype <= ATTN_F8_E5M2; ++dtype) {
        test_far_sink((attn_dtype)dtype, ATTN_BF16, 127.6, 1);
        test_far_sink((attn_dtype)dtype, ATTN_BF16, 116.0, 0);
    }
    test_generator();
    return test_report();
}
