/* Sixteen numbers at a time, whatever the processor: the compiler maps them to the registers that it has.
 *
 * States are what a matrix product reads or wrote: bfloat16, or float32 where STATES_ARE_FLOAT32 is defined.
 */
#ifndef FOLDBLEND_LANES_H
#define FOLDBLEND_LANES_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

enum { LANES = 16 };
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef float eight __attribute__((vector_size(4 * LANES / 2)));
typedef float four __attribute__((vector_size(4 * LANES / 4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

#define INLINE static inline __attribute__((always_inline))

INLINE floats load(const float *from) {
    floats value;
    memcpy(&value, from, sizeof value);
    return value;
}

INLINE void store(float *to, floats value) { memcpy(to, &value, sizeof value); }

#ifdef STATES_ARE_FLOAT32
typedef float state;

INLINE floats read_state(const state *from) { return load(from); }
#else
typedef uint16_t state;

INLINE floats read_state(const state *from) {
    halves bits;
    memcpy(&bits, from, sizeof bits);
    return (floats)(__builtin_convertvector(bits, words) << 16);
}
#endif

INLINE float sum(floats value) {
    eight low, high;
    memcpy(&low, &value, sizeof low);
    memcpy(&high, (const char *)&value + sizeof low, sizeof high);
    low += high;
    four first, second;
    memcpy(&first, &low, sizeof first);
    memcpy(&second, (const char *)&low + sizeof first, sizeof second);
    first += second;
    return (first[0] + first[1]) + (first[2] + first[3]);
}

INLINE float maximum(floats value) {
    float lanes[LANES];
    store(lanes, value);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
    return lanes[0];
}

INLINE floats all(float value) { return value - (floats){0}; }

INLINE floats pick(ints where, floats yes, floats no) {
    return (floats)(((words)yes & (words)where) | ((words)no & ~(words)where));
}

#ifdef STATES_ARE_FLOAT32
INLINE void write_state(state *to, floats value) { store(to, value); }
#elif defined __AVX512BF16__
/* Rounds to the nearest, to even between two; numbers below 2^-126 become 0. */
INLINE void write_state(state *to, floats value) {
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)value);
    memcpy(to, &rounded, sizeof rounded);
}
#else
/* Rounds to the nearest, to even between two. What is not a number stays so, whichever one it is. */
INLINE void write_state(state *to, floats value) {
    words bits = (words)pick(value == value, value, all(NAN));
    bits += 0x7fffu + (bits >> 16 & 1u);
    halves rounded = __builtin_convertvector(bits >> 16, halves);
    memcpy(to, &rounded, sizeof rounded);
}
#endif

/* e^x within 2 units of the last place, 0 below -87; x is at most 0. Polynomial: Cephes, expf. */
INLINE floats exponential(floats x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest whole number in the low bits */
    const ints small = x < -87.0f;
    floats shifted = x * 1.44269504f + magic;
    floats r = x - (shifted - magic) * 0.693359375f + (shifted - magic) * 2.12194440e-4f;
    floats p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return pick(small, all(0.0f), p * (floats)(((words)shifted << 23) + 0x3f800000u));
}

/* The normal distribution below x; `density` becomes e^(-x^2 / 2). Abramowitz and Stegun 7.1.26, to 3e-7. */
INLINE floats normal_cdf(floats x, floats *density) {
    floats z = pick(x < 0.0f, -x, x) * 0.70710678f;
    floats t = 1.0f / (1.0f + 0.3275911f * z);
    floats e = exponential(-z * z);
    floats p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    floats tail = 0.5f * p * e;
    *density = e;
    return pick(x < 0.0f, tail, 1.0f - tail);
}

typedef struct {
    uint32_t seed;
    uint32_t threshold; /* of 2^32 numbers, those that keep an element */
    float scale;        /* what is kept is multiplied by this; 1 and no draw where nothing is dropped */
} dropout;

/* Dropout keeps no mask: whether element i stays follows from the seed and i, forward and backward alike.
 * 0 or the scale for elements first .. first + 15. The hash is lowbias32 (Wellons), seeded before and between. */
INLINE floats keep(dropout how, uint32_t first) {
    static const words lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    if (how.scale == 1.0f) return all(1.0f);
    words x = (lane + first) ^ how.seed;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = ((x + how.seed) ^ x >> 15) * 0x846ca68bu;
    x ^= x >> 16;
    return pick((ints)(x < how.threshold), all(how.scale), all(0.0f));
}

#endif
