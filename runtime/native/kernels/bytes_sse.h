// Rearrangements of bytes with SSE2, which every x86-64 processor has.
#pragma once

#include <emmintrin.h>

#include "common.h"

namespace moembed {
namespace {

struct FourRows {
    __m128i a, b, c, d;

    explicit FourRows(const uint8_t* const rows[4])
        : a(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[0]))),
          b(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[1]))),
          c(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[2]))),
          d(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[3]))) {}
};

// out[64 * i + 4 * r + k] = rows[r][4 * i + k] for i, r, k < 4.
inline void transpose_fours(const uint8_t* const rows[4], uint8_t* out) {
    const FourRows x(rows);
    const __m128i ab = _mm_unpacklo_epi32(x.a, x.b), cd = _mm_unpacklo_epi32(x.c, x.d);
    const __m128i ab2 = _mm_unpackhi_epi32(x.a, x.b), cd2 = _mm_unpackhi_epi32(x.c, x.d);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi64(ab, cd));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 64), _mm_unpackhi_epi64(ab, cd));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 128), _mm_unpacklo_epi64(ab2, cd2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 192), _mm_unpackhi_epi64(ab2, cd2));
}

// out[4 * i + r] = rows[r][i] for i < 16 and r < 4.
inline void interleave(const uint8_t* const rows[4], uint8_t* out) {
    const FourRows x(rows);
    const __m128i ab = _mm_unpacklo_epi8(x.a, x.b), cd = _mm_unpacklo_epi8(x.c, x.d);
    const __m128i ab2 = _mm_unpackhi_epi8(x.a, x.b), cd2 = _mm_unpackhi_epi8(x.c, x.d);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi16(ab, cd));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), _mm_unpackhi_epi16(ab, cd));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32), _mm_unpacklo_epi16(ab2, cd2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 48), _mm_unpackhi_epi16(ab2, cd2));
}

}  // namespace
}  // namespace moembed
