// Dot products with NEON: of signed bytes or, with i8mm, of unsigned and signed bytes.
#pragma once

#include <arm_neon.h>

#include "row_count.h"
#include "rows_in_place.h"

namespace moembed {
namespace {

constexpr int kRows = 4;  // sums take sixteen of 32 registers
constexpr int kBlocks = 2;
constexpr size_t kTaskRows = 96;

#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int kDotsZeroPoint = 0;
inline int32x4_t dot(int32x4_t sum, uint8x16_t quantized, int8x16_t weights) {
    return vusdotq_s32(sum, quantized, weights);
}
inline uint8x16_t broadcast(const uint8_t* p) { return vreinterpretq_u8_s32(vdupq_n_s32(load_int(p))); }
#else
constexpr int kDotsZeroPoint = 128;  // makes a quantized byte signed
inline int32x4_t dot(int32x4_t sum, int8x16_t quantized, int8x16_t weights) {
    return vdotq_s32(sum, quantized, weights);
}
inline int8x16_t broadcast(const uint8_t* p) {
    return vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_s32(vdupq_n_s32(load_int(p))), vdupq_n_u8(128)));
}
#endif

template <int R>
inline void dot_tile(const uint8_t* quantized, size_t stride, const int8_t* weight, size_t depth, const int32_t* start,
                     int32_t* out) {
    int32x4_t sums[R][4];
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int part = 0; part < 4; ++part) sums[r][part] = vld1q_s32(start + 4 * part);
    }
    for (size_t k = 0; k < depth; ++k) {
        int8x16_t w[4];
        MOEMBED_UNROLL
        for (int part = 0; part < 4; ++part) w[part] = vld1q_s8(weight + k * 64 + 16 * part);
        MOEMBED_UNROLL
        for (int r = 0; r < R; ++r) {
            const auto q = broadcast(quantized + r * stride + 4 * k);
            MOEMBED_UNROLL
            for (int part = 0; part < 4; ++part) sums[r][part] = dot(sums[r][part], q, w[part]);
        }
    }
    MOEMBED_UNROLL
    for (int r = 0; r < R; ++r) {
        MOEMBED_UNROLL
        for (int part = 0; part < 4; ++part) vst1q_s32(out + r * 16 * kBlocks + 4 * part, sums[r][part]);
    }
}

struct Tile {
    static void compute(const uint8_t* quantized, size_t stride, int rows, const int8_t* weight, size_t depth,
                        int blocks, const int32_t* start, int32_t* out) {
        with_row_count<kRows>(rows, [&](auto r) {
            for (int b = 0; b < blocks; ++b) {
                dot_tile<decltype(r)::value>(quantized, stride, weight + b * depth * 64, depth, start + 16 * b,
                                             out + 16 * b);
            }
        });
    }
};

using Dots = DotsInPlace<Tile, kRows>;

}  // namespace
}  // namespace moembed
