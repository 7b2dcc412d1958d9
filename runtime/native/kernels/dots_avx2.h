// Dot products with AVX2. The instruction for bytes, `vpmaddubsw`, adds pairs of products in 16 bits, where they may
// saturate. So even and odd bytes are widened separately, and `vpmaddwd` adds their products in 32 bits. Quantized values
// are widened once for all columns, when they are packed; weights for twelve rows at a time.
#pragma once

#include <immintrin.h>

#include "row_count.h"
#include "rows_in_place.h"

namespace moembed {
namespace {

constexpr int kRows = 12;
constexpr int kBlocks = 2;
constexpr size_t kTaskRows = 96;
constexpr int kDotsZeroPoint = 0;

// Four values take eight bytes of a packed row: first the even ones, then the odd ones. `weight` has eight columns.
template <int R>
inline void madd_tile(const uint8_t* packed, size_t depth, const int8_t* weight, const int32_t* start, int32_t* out) {
    __m256i sums[R];
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(start));
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) sums[r] = first;
    for (size_t k = 0; k < depth; ++k) {
        const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weight + k * 64));
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), odd = _mm256_srai_epi16(w, 8);
        MOEMBED_UNROLL
        for (int r = 0; r < R; ++r) {
            const uint8_t* q = packed + (r * depth + k) * 8;
            const __m256i q_even = _mm256_set1_epi32(load_int(q)), q_odd = _mm256_set1_epi32(load_int(q + 4));
            sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(q_even, even));
            sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(q_odd, odd));
        }
    }
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * 16 * kBlocks), sums[r]);
}

class Dots {
public:
    Dots(int, size_t depth) : depth_(depth) {}
    Dots with_depth(size_t depth) const { return Dots(0, depth); }

    int height() const { return kRows; }
    static size_t depth_for(size_t values) { return (values + 3) / 4; }
    static size_t packed_bytes(int rows, size_t depth) { return static_cast<size_t>(rows) * 8 * depth; }

    uint8_t* place(int row, uint8_t* packed) const { return packed + static_cast<size_t>(row) * 8 * depth_; }
    void put(uint8_t* place, size_t column, const uint8_t* values, size_t count) const {
        uint8_t* to = place + 2 * column;
        const __m256i low = _mm256_set1_epi16(0xff);
        size_t i = 0;
        for (; i + 16 <= count; i += 16) {
            const __m128i q = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values + i));
            // Each four bytes twice, of which the even ones stay once, and the odd ones the other time.
            const __m256i twice = _mm256_cvtepu32_epi64(q);
            const __m256i even = _mm256_and_si256(twice, low), odd = _mm256_srli_epi16(twice, 8);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2 * i),
                                _mm256_or_si256(even, _mm256_slli_epi64(odd, 32)));
        }
        for (; i < count; i += 4) {
            const uint16_t four[4] = {values[i], values[i + 2], values[i + 1], values[i + 3]};
            std::memcpy(to + 2 * i, four, sizeof four);
        }
    }

    template <class Unit>
    void operator()(const uint8_t* packed, int row, int rows, const int8_t* weight, int blocks, const int32_t* start,
                    int32_t* out, const Unit& unit, int units, Ahead) const {
        with_row_count<kRows>(rows, [&](auto r) {
            for (int half = 0; half < 2 * blocks; ++half) {
                madd_tile<decltype(r)::value>(packed + static_cast<size_t>(row) * 8 * depth_, depth_,
                                              weight + (half / 2 * depth_ * 2 + half % 2) * 32, start + 8 * half,
                                              out + 8 * half);
            }
        });
        for (int i = 0; i < units; ++i) unit(i);
    }

private:
    size_t depth_;
};

}  // namespace
}  // namespace moembed
