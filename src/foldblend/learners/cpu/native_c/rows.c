/* AdamW for the rows of a table that are read, see row_adamw.py. Each row is one thread's, however often it is named. */
#include <math.h>
#include <stdint.h>

#include <omp.h>

/* Do to rows (n,) of a table and its moments, all (V, width), what the steps since `seen` (V,) would have done. A row
 * that the table has not is passed over; the lookup refuses it. */
void catch_up_rows(const int64_t *rows, int64_t n, float *weight, float *mean, float *square, float *seen,
                   const float *kept, const float *drift, float now, float beta1, float beta2, float eps, int64_t V,
                   int64_t width, int threads) {
#pragma omp parallel num_threads(threads)
    for (int64_t i = 0; i < n; i++) {
        const int64_t row = rows[i];
        if (row < 0 || row >= V || row % omp_get_num_threads() != omp_get_thread_num() || seen[row] >= now) continue;
        const float since = seen[row];
        const float waited = now - since, mean_left = powf(beta1, waited), square_left = powf(beta2, waited);
        const float floor = eps * sqrtf(1.0f - powf(beta2, fmaxf(since, 1.0f)));
        const float weight_left = kept[(int64_t)since], moved = drift[(int64_t)since];
        float *w = weight + row * width, *m = mean + row * width, *v = square + row * width;
        for (int64_t j = 0; j < width; j++) {
            w[j] = w[j] * weight_left - m[j] / (sqrtf(v[j]) + floor) * moved;
            m[j] *= mean_left;
            v[j] *= square_left;
        }
        seen[row] = now;
    }
}

/* One step of rows (n,), each named once, along gradient (n, width). `to_mean` is 1 - beta1 and `to_square` 1 - beta2,
 * rounded once, the corrections 1 - beta1^t and the root of 1 - beta2^t, `shrink` what weight decay leaves. */
void step_rows(const int64_t *rows, const float *gradient, int64_t n, float *weight, float *mean, float *square,
               float *seen, float now, float to_mean, float beta2, float to_square, float eps, float lr, float shrink,
               float correction1, float correction2, int64_t width, int threads) {
    const float rate = lr / correction1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const float *g = gradient + i * width;
        float *w = weight + rows[i] * width, *m = mean + rows[i] * width, *v = square + rows[i] * width;
        for (int64_t j = 0; j < width; j++) {
            m[j] += (g[j] - m[j]) * to_mean;
            v[j] = v[j] * beta2 + g[j] * g[j] * to_square;
            w[j] = w[j] * shrink - rate * m[j] / (sqrtf(v[j]) / correction2 + eps);
        }
        seen[rows[i]] = now;
    }
}
