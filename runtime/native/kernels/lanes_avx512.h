// Sixteen floats in one AVX-512 register.
#pragma once

#include <immintrin.h>

#include "bytes_sse.h"

namespace moembed {
namespace {

struct Lanes {
    __m512 v;
};

inline Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Lanes x) { _mm512_storeu_ps(p, x.v); }
inline Lanes fill(float x) { return {_mm512_set1_ps(x)}; }
inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Lanes larger(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Lanes smaller(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
// x within -most and most, which is positive.
inline Lanes limited(Lanes x, float most) { return {_mm512_range_ps(x.v, _mm512_set1_ps(most), 2)}; }
inline Lanes absolute(Lanes a) { return {_mm512_abs_ps(a.v)}; }
inline Lanes from_ints(const int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))}; }
// 256 * high + low of sixteen pairs, rounded once: of sums that 32 bits hold, or of any.
inline Lanes joined(const int32_t* high, const int32_t* low) {
    const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_loadu_si512(high), 8), _mm512_loadu_si512(low));
    return {_mm512_cvtepi32_ps(sum)};
}
inline __m256 joined_wide8(const int32_t* high, const int32_t* low) {
    const __m512d h = _mm512_cvtepi32_pd(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)));
    const __m512d l = _mm512_cvtepi32_pd(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(low)));
    return _mm512_cvtpd_ps(_mm512_fmadd_pd(h, _mm512_set1_pd(256.0), l));
}
inline Lanes joined_wide(const int32_t* high, const int32_t* low) {
    return {_mm512_insertf32x8(_mm512_castps256_ps512(joined_wide8(high, low)), joined_wide8(high + 8, low + 8), 1)};
}
inline Lanes from_bytes(const int8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}

// Rounds to float16, to nearest even, also in a mode that flushes subnormals to 0.
inline void store_halves(uint16_t* p, Lanes x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}
inline Lanes load_halves(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}

// x * 2^n, where t = n + 1.5 * 2^23, so that the low bits of t are those of n.
inline Lanes times_power(Lanes x, Lanes t) {
    const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t.v), 23);
    return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x.v), n))};
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
    const __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    return sum_of4(_mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1)));
}
inline float max_of(Lanes x) {
    const __m256 y = _mm256_max_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    return max_of4(_mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1)));
}

// Stores the low byte of each lane's bits: of a lane n + 1.5 * 2^23, the low byte of the integer n.
inline void store_low_bytes(uint8_t* p, Lanes x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_castps_si512(x.v)));
}

// Stores the low byte of each lane's bits, and the next one.
inline void store_two_bytes(uint8_t* low, uint8_t* high, Lanes x) {
    const __m512i bits = _mm512_castps_si512(x.v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm512_cvtepi32_epi8(bits));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm512_cvtepi32_epi8(_mm512_srli_epi32(bits, 8)));
}

constexpr int kFloatRows = 8;
constexpr int kFloatBlocks = 2;

}  // namespace
}  // namespace moembed
