// Sixteen floats in two AVX registers.
#pragma once

#include <immintrin.h>

#include "bytes_sse.h"

namespace moembed {
namespace {

struct Lanes {
    __m256 a, b;
};

inline Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Lanes x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
inline Lanes fill(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Lanes operator+(Lanes x, Lanes y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Lanes operator-(Lanes x, Lanes y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline Lanes operator*(Lanes x, Lanes y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline Lanes operator/(Lanes x, Lanes y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline Lanes fma(Lanes x, Lanes y, Lanes z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline Lanes larger(Lanes x, Lanes y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline Lanes smaller(Lanes x, Lanes y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
// x within -most and most, which is positive.
inline Lanes limited(Lanes x, float most) { return larger(smaller(x, fill(most)), fill(-most)); }
inline Lanes absolute(Lanes x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline Lanes from_ints(const int32_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))),
            _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8)))};
}
// 256 * high + low of sixteen pairs, rounded once: of sums that 32 bits hold, or of any.
inline __m256 joined8(const int32_t* high, const int32_t* low) {
    const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high));
    return _mm256_cvtepi32_ps(
        _mm256_add_epi32(_mm256_slli_epi32(h, 8), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low))));
}
inline Lanes joined(const int32_t* high, const int32_t* low) {
    return {joined8(high, low), joined8(high + 8, low + 8)};
}
inline __m128 joined_wide4(const int32_t* high, const int32_t* low) {
    const __m256d h = _mm256_cvtepi32_pd(_mm_loadu_si128(reinterpret_cast<const __m128i*>(high)));
    const __m256d l = _mm256_cvtepi32_pd(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low)));
    return _mm256_cvtpd_ps(_mm256_fmadd_pd(h, _mm256_set1_pd(256.0), l));
}
inline Lanes joined_wide(const int32_t* high, const int32_t* low) {
    return {_mm256_set_m128(joined_wide4(high + 4, low + 4), joined_wide4(high, low)),
            _mm256_set_m128(joined_wide4(high + 12, low + 12), joined_wide4(high + 8, low + 8))};
}
inline Lanes from_bytes(const int8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8))))};
}

// Rounds to float16, to nearest even, also in a mode that flushes subnormals to 0.
inline void store_halves(uint16_t* p, Lanes x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
inline Lanes load_halves(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}

// x * 2^n, where t = n + 1.5 * 2^23, so that the low bits of t are those of n.
inline Lanes times_power(Lanes x, Lanes t) {
    const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(t.a), 23),
                  m = _mm256_slli_epi32(_mm256_castps_si256(t.b), 23);
    return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x.a), n)),
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x.b), m))};
}

// The lanes are combined pairwise, each with the one half as many lanes further on: in the same order on every processor.
inline float sum_of4(__m128 x) {
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
inline float max_of4(__m128 x) {
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
inline float sum_of(Lanes x) {
    const __m256 y = _mm256_add_ps(x.a, x.b);
    return sum_of4(_mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1)));
}
inline float max_of(Lanes x) {
    const __m256 y = _mm256_max_ps(x.a, x.b);
    return max_of4(_mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1)));
}

// The low words of both halves, in order.
inline __m256i low_words(Lanes x) {
    const __m256i mask = _mm256_set1_epi32(0xffff);
    const __m256i words = _mm256_packus_epi32(_mm256_and_si256(_mm256_castps_si256(x.a), mask),
                                              _mm256_and_si256(_mm256_castps_si256(x.b), mask));
    return _mm256_permute4x64_epi64(words, 0xd8);  // packing works within 128-bit halves
}

// Stores the low byte of each lane's bits: of a lane n + 1.5 * 2^23, the low byte of the integer n.
inline void store_low_bytes(uint8_t* p, Lanes x) {
    const __m256i lows = _mm256_and_si256(low_words(x), _mm256_set1_epi16(0xff));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi16(_mm256_castsi256_si128(lows), _mm256_extracti128_si256(lows, 1)));
}

// Stores the low byte of each lane's bits, and the next one.
inline void store_two_bytes(uint8_t* low, uint8_t* high, Lanes x) {
    const __m256i words = low_words(x);
    const __m256i lows = _mm256_and_si256(words, _mm256_set1_epi16(0xff)), highs = _mm256_srli_epi16(words, 8);
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(lows, highs), 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm256_castsi256_si128(bytes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm256_extracti128_si256(bytes, 1));
}

constexpr int kFloatRows = 4;
constexpr int kFloatBlocks = 1;

}  // namespace
}  // namespace moembed
