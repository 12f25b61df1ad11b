/* What an encoder's layer does between its matrix products, but attention. fused_layers.py calls it.
 *
 * Rows are tokens, widths multiples of 16. The residual path is float32, and so is all that is computed here.
 */
#include <omp.h>

#include "lanes.h"

/* out = gelu(in + bias) (rows, width), by the exact normal distribution; `slope`, where it is given, is gelu's slope
 * there, and may be `in` itself. */
void gelu_forward(const state *in, const float *bias, state *slope, state *out, int64_t rows, int64_t width,
                  int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < width; i += LANES) {
            const int64_t at = row * width + i;
            const floats x = read_state(in + at) + load(bias + i);
            floats density;
            const floats below = normal_cdf(x, &density);
            write_state(out + at, x * below);
            if (slope) write_state(slope + at, below + x * density * 0.39894228f);
        }
}

/* gradient (rows, width) of out is multiplied by the slope; sums (threads, width) gains each thread's column sums. */
void gelu_backward(const state *slope, state *gradient, float *sums, int64_t rows, int64_t width, int threads) {
#pragma omp parallel num_threads(threads)
    {
        float *mine = sums + omp_get_thread_num() * width;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < width; i += LANES) {
                const floats d = read_state(gradient + row * width + i) * read_state(slope + row * width + i);
                write_state(gradient + row * width + i, d);
                store(mine + i, load(mine + i) + d);
            }
    }
}

/* out = norm(residual + dropout(in + bias)); `added` is what is normed and may be `out`, `moments` (rows, 2) its mean
 * and 1 / deviation, `out_state`, where it is given, the states that the next product reads. */
void norm_forward(const float *residual, const state *in, const float *bias, const float *gain, const float *shift,
                  float eps, uint32_t seed, uint32_t threshold, float scale, float *added, float *moments, float *out,
                  state *out_state, int64_t rows, int64_t width, int threads) {
    dropout how = {seed, threshold, scale};
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = row * width;
        floats total = {0}, squares = {0};
        for (int64_t i = 0; i < width; i += LANES) {
            const floats x = read_state(in + at + i) + load(bias + i);
            const floats h = load(residual + at + i) + x * keep(how, (uint32_t)(at + i));
            store(added + at + i, h);
            total += h;
        }
        const float mean = sum(total) / (float)width;
        for (int64_t i = 0; i < width; i += LANES) {
            floats h = load(added + at + i) - mean;
            squares += h * h;
        }
        const float inverse = 1.0f / sqrtf(sum(squares) / (float)width + eps);
        moments[2 * row] = mean;
        moments[2 * row + 1] = inverse;
        for (int64_t i = 0; i < width; i += LANES) {
            const floats y = (load(added + at + i) - mean) * inverse * load(gain + i) + load(shift + i);
            store(out + at + i, y);
            if (out_state) write_state(out_state + at + i, y);
        }
    }
}

/* The gradient of out becomes those of the residual and of in; sums (threads, 3, width) gains each thread's part of
 * those of gain, of shift and of bias. */
void norm_backward(const float *gradient, const float *added, const float *moments, const float *gain, uint32_t seed,
                   uint32_t threshold, float scale, float *of_residual, state *of_in, float *sums, int64_t rows,
                   int64_t width, int threads) {
    dropout how = {seed, threshold, scale};
#pragma omp parallel num_threads(threads)
    {
        float *of_gain = sums + omp_get_thread_num() * 3 * width, *of_shift = of_gain + width;
        float *of_bias = of_shift + width;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            const int64_t at = row * width;
            const float mean = moments[2 * row], inverse = moments[2 * row + 1];
            floats total = {0}, along = {0};
            for (int64_t i = 0; i < width; i += LANES) {
                const floats x = (load(added + at + i) - mean) * inverse;
                floats d = load(gradient + at + i);
                store(of_gain + i, load(of_gain + i) + d * x);
                store(of_shift + i, load(of_shift + i) + d);
                d *= load(gain + i);
                store(of_residual + at + i, d);
                total += d;
                along += d * x;
            }
            const float mean_d = sum(total) / (float)width, mean_dx = sum(along) / (float)width;
            for (int64_t i = 0; i < width; i += LANES) {
                const floats x = (load(added + at + i) - mean) * inverse;
                floats d = (load(of_residual + at + i) - mean_d - x * mean_dx) * inverse;
                store(of_residual + at + i, d);
                d *= keep(how, (uint32_t)(at + i));
                write_state(of_in + at + i, d);
                store(of_bias + i, load(of_bias + i) + d);
            }
        }
    }
}

/* to += from */
void add_states(float *to, const state *from, int64_t n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i += LANES) store(to + i, load(to + i) + read_state(from + i));
}
