/* Attention of an encoder's layer, every head of every text by itself, in float32. fused_layers.py calls it.
 *
 * Rows are tokens: B texts of T tokens are B * T rows. A head is a multiple of 16 wide.
 */
#include <stdlib.h>

#include <omp.h>

#include "lanes.h"

/* c (m, n) = a (m, k) b (k, n), n a multiple of 16, m of 4; element (i, j) of a stands at a[i * row + j * column]. */
INLINE void multiply(const float *a, int64_t row, int64_t column, const float *b, int64_t ldb, float *c, int64_t ldc,
                     int m, int n, int k) {
    for (int j = 0; j < n; j += 2 * LANES) {
        const int two = j + LANES < n;
        for (int i = 0; i < m; i += 4) {
            const float *ai = a + i * row;
            floats x0 = {0}, x1 = {0}, x2 = {0}, x3 = {0}, y0 = {0}, y1 = {0}, y2 = {0}, y3 = {0};
            if (two) {
                for (int l = 0; l < k; l++) {
                    const float *al = ai + l * column;
                    const floats b0 = load(b + l * ldb + j), b1 = load(b + l * ldb + j + LANES);
                    x0 += al[0] * b0, y0 += al[0] * b1;
                    x1 += al[row] * b0, y1 += al[row] * b1;
                    x2 += al[2 * row] * b0, y2 += al[2 * row] * b1;
                    x3 += al[3 * row] * b0, y3 += al[3 * row] * b1;
                }
            } else {
                for (int l = 0; l < k; l++) {
                    const float *al = ai + l * column;
                    const floats b0 = load(b + l * ldb + j);
                    x0 += al[0] * b0, x1 += al[row] * b0, x2 += al[2 * row] * b0, x3 += al[3 * row] * b0;
                }
            }
            float *ci = c + i * ldc + j;
            store(ci, x0), store(ci + ldc, x1), store(ci + 2 * ldc, x2), store(ci + 3 * ldc, x3);
            if (two) {
                ci += LANES;
                store(ci, y0), store(ci + ldc, y1), store(ci + 2 * ldc, y2), store(ci + 3 * ldc, y3);
            }
        }
    }
}

/* Rows of `from`, `stride` apart, with `bias` (d,), as float32 (rows padded to 4 with zeros, d). */
INLINE void read_rows(const state *from, int64_t stride, const float *bias, float *to, int rows, int padded, int d,
                      float scale) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < d; j += LANES) {
            const floats value = read_state(from + i * stride + j);
            store(to + i * d + j, (bias ? value + load(bias + j) : value) * scale);
        }
    memset(to + rows * d, 0, sizeof(float) * (size_t)((padded - rows) * d));
}

/* from (rows, d) -> to (d, width), 0 behind the rows. */
INLINE void transpose(const float *from, float *to, int rows, int width, int d) {
    for (int j = 0; j < d; j++) {
        for (int i = 0; i < rows; i++) to[j * width + i] = from[i * d + j];
        for (int i = rows; i < width; i++) to[j * width + i] = 0;
    }
}

/* Scores (rows, width), with 0 or minus infinity to add to each of their columns, become probabilities. */
INLINE void softmax(float *scores, const float *hidden, int rows, int width) {
    for (int i = 0; i < rows; i++) {
        float *s = scores + i * width;
        floats most = all(-INFINITY), total = {0};
        for (int j = 0; j < width; j += LANES) {
            const floats score = load(s + j) + load(hidden + j);
            store(s + j, score);
            most = pick(most > score, most, score);
        }
        const float largest = maximum(most);
        for (int j = 0; j < width; j += LANES) {
            const floats e = exponential(load(s + j) - largest);
            store(s + j, e);
            total += e;
        }
        const float inverse = 1.0f / sum(total);
        for (int j = 0; j < width; j += LANES) store(s + j, load(s + j) * inverse);
    }
}

/* One thread's memory: q, k, v, d, out (T, d), turned (d, T), p, s (T, T), hidden, row (T,), with T padded. */
typedef struct {
    float *q, *k, *v, *d, *out, *turned, *p, *s, *hidden, *row;
} scratch;

INLINE int64_t pad(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static size_t scratch_floats(int64_t T, int64_t d) {
    const int64_t rows = pad(T, 4), width = pad(T, LANES);
    return (size_t)pad(5 * rows * d + d * width + 2 * rows * width + 2 * width, LANES);
}

static scratch cut_scratch(float *from, int64_t T, int64_t d) {
    const int64_t rows = pad(T, 4), width = pad(T, LANES), part = rows * d;
    scratch at = {from, from + part, from + 2 * part, from + 3 * part, from + 4 * part, from + 5 * part, 0, 0, 0, 0};
    at.p = at.turned + d * width;
    at.s = at.p + rows * width;
    at.hidden = at.s + rows * width;
    at.row = at.hidden + width;
    return at;
}

/* Tokens up to the last one that is seen. */
INLINE int count(const uint8_t *seen, int64_t T) {
    while (T > 0 && !seen[T - 1]) T--;
    return (int)T;
}

/* Probabilities of one head of one text, before dropout, into at.p; at.q is left multiplied by `scaling`. */
INLINE void attend(const state *qkv, const float *bias, const uint8_t *seen, int64_t H, int n, int rows, int width,
                   int d, float scaling, scratch at) {
    read_rows(qkv, 3 * H, bias, at.q, n, rows, d, scaling);
    read_rows(qkv + H, 3 * H, bias + H, at.k, n, rows, d, 1.0f);
    read_rows(qkv + 2 * H, 3 * H, bias + 2 * H, at.v, n, rows, d, 1.0f);
    for (int j = 0; j < width; j++) at.hidden[j] = j < n && seen[j] ? 0.0f : -INFINITY;
    transpose(at.k, at.turned, n, width, d);
    multiply(at.q, d, 1, at.turned, width, at.p, width, rows, width, d);
    softmax(at.p, at.hidden, n, width);
}

/* qkv (B * T, 3 * heads * d) and its bias, seen (B, T) -> out (B * T, heads * d), 0 behind a text's last seen token.
 * Returns 1 where memory is out. */
int attention_forward(const state *qkv, const float *bias, const uint8_t *seen, state *out, int64_t B, int64_t T,
                      int64_t heads, int64_t d, float scaling, uint32_t seed, uint32_t threshold, float scale,
                      int threads) {
    const dropout how = {seed, threshold, scale};
    const int64_t H = heads * d;
    const size_t size = scratch_floats(T, d);
    float *memory = aligned_alloc(64, size * (size_t)threads * sizeof(float));
    if (!memory) return 1;
#pragma omp parallel num_threads(threads)
    {
        const scratch at = cut_scratch(memory + size * (size_t)omp_get_thread_num(), T, d);
#pragma omp for schedule(static)
        for (int64_t each = 0; each < B * heads; each++) {
            const int64_t text = each / heads, head = each % heads;
            const int n = count(seen + text * T, T), rows = (int)pad(n, 4), width = (int)pad(n, LANES);
            const state *from = qkv + text * T * 3 * H + head * d;
            attend(from, bias + head * d, seen + text * T, H, n, rows, width, (int)d, scaling, at);
            for (int i = 0; scale != 1.0f && i < n; i++)
                for (int j = 0; j < width; j += LANES) {
                    float *p = at.p + i * width + j;
                    store(p, load(p) * keep(how, (uint32_t)((each * T + i) * T + j)));
                }
            multiply(at.p, width, 1, at.v, d, at.out, d, rows, (int)d, n);
            state *to = out + text * T * H + head * d;
            for (int i = 0; i < n; i++)
                for (int j = 0; j < d; j += LANES) write_state(to + i * H + j, load(at.out + i * d + j));
            for (int64_t i = n; i < T; i++) memset(to + i * H, 0, sizeof(state) * (size_t)d);
        }
    }
    free(memory);
    return 0;
}

/* n rows of `from` times `scale` into rows `stride` apart, zeros behind them up to T; sums (d,) gains the sum of the rows. */
INLINE void write_rows(state *to, int64_t stride, const float *from, int64_t T, int n, int d, float scale,
                       float *sums) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < d; j += LANES) {
            const floats value = load(from + i * d + j) * scale;
            write_state(to + i * stride + j, value);
            store(sums + j, load(sums + j) + value);
        }
    for (int64_t i = n; i < T; i++) memset(to + i * stride, 0, sizeof(state) * (size_t)d);
}

/* s, the gradient of the probabilities after dropout, becomes that of the scores; p gets the dropout. */
INLINE void softmax_backward(float *p, float *s, float *row, dropout how, uint32_t first, int width) {
    floats along = {0};
    for (int j = 0; j < width; j += LANES) {
        const floats probs = load(p + j), dropped = probs * keep(how, first + (uint32_t)j);
        const floats d = dropped * load(s + j);
        store(row + j, probs);
        store(p + j, dropped);
        store(s + j, d);
        along += d;
    }
    const float total = sum(along);
    for (int j = 0; j < width; j += LANES) store(s + j, load(s + j) - load(row + j) * total);
}

/* gradient (B * T, heads * d) of out -> of_qkv (B * T, 3 * heads * d), 0 behind a text's last seen token; sums
 * (threads, 3 * heads * d) gains each thread's column sums of it. Returns 1 where memory is out. */
int attention_backward(const state *qkv, const float *bias, const uint8_t *seen, const state *gradient, state *of_qkv,
                       float *sums, int64_t B, int64_t T, int64_t heads, int64_t d, float scaling, uint32_t seed,
                       uint32_t threshold, float scale, int threads) {
    const dropout how = {seed, threshold, scale};
    const int64_t H = heads * d;
    const size_t size = scratch_floats(T, d);
    float *memory = aligned_alloc(64, size * (size_t)threads * sizeof(float));
    if (!memory) return 1;
#pragma omp parallel num_threads(threads)
    {
        const scratch at = cut_scratch(memory + size * (size_t)omp_get_thread_num(), T, d);
#pragma omp for schedule(static)
        for (int64_t each = 0; each < B * heads; each++) {
            const int64_t text = each / heads, head = each % heads, first = text * T * 3 * H + head * d;
            const int n = count(seen + text * T, T), rows = (int)pad(n, 4), width = (int)pad(n, LANES);
            float *mine = sums + omp_get_thread_num() * 3 * H + head * d;
            state *to = of_qkv + first;
            attend(qkv + first, bias + head * d, seen + text * T, H, n, rows, width, (int)d, scaling, at);
            read_rows(gradient + text * T * H + head * d, H, 0, at.d, n, rows, (int)d, 1.0f);
            transpose(at.v, at.turned, n, width, (int)d);
            multiply(at.d, d, 1, at.turned, width, at.s, width, rows, width, (int)d);
            for (int i = 0; i < n; i++) {
                const uint32_t element = (uint32_t)((each * T + i) * T);
                softmax_backward(at.p + i * width, at.s + i * width, at.row, how, element, width);
            }
            multiply(at.s, width, 1, at.k, d, at.out, d, rows, (int)d, n);
            write_rows(to, 3 * H, at.out, T, n, (int)d, scaling, mine);
            multiply(at.s, 1, width, at.q, d, at.out, d, rows, (int)d, n);
            write_rows(to + H, 3 * H, at.out, T, n, (int)d, 1.0f, mine + H);
            multiply(at.p, 1, width, at.d, d, at.out, d, rows, (int)d, n);
            write_rows(to + 2 * H, 3 * H, at.out, T, n, (int)d, 1.0f, mine + 2 * H);
        }
    }
    free(memory);
    return 0;
}
