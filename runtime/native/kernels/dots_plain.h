// Dot products of quantized rows and packed weights, in plain C++. Every dots_*.h has the same interface:
//
// * kRows, kBlocks: the most rows, and blocks of sixteen columns, of one call.
// * kDotsZeroPoint: what the instructions subtract from each quantized byte: 0, or 128 where they take signed bytes.
// * Dots()(quantized, stride, rows, weight, depth, blocks, start, out), where rows have 4 * depth bytes, computes
// exactly
//   out[r * 16 * kBlocks + j] = start[j] + sum over k of (quantized[r * stride + k] - kDotsZeroPoint) * weight[k][j].
//
// A Dots may hold processor state: construct it on the thread that uses it, for the duration of a call.
#pragma once

#include "common.h"

namespace moembed {
namespace {

constexpr int kRows = 4;
constexpr int kBlocks = 2;
constexpr int kDotsZeroPoint = 0;

struct Dots {
    void operator()(const uint8_t* quantized, size_t stride, int rows, const int8_t* weight, size_t depth, int blocks,
                    const int32_t* start, int32_t* out) {
        for (int r = 0; r < rows; ++r) {
            for (int b = 0; b < blocks; ++b) {
                // Unsigned, because sums of arbitrary weights may wrap.
                uint32_t sums[16];
                for (int j = 0; j < 16; ++j) sums[j] = static_cast<uint32_t>(start[16 * b + j]);
                const int8_t* w = weight + b * depth * 64;
                const uint8_t* q = quantized + r * stride;
                for (size_t k = 0; k < depth; ++k, w += 64, q += 4) {
                    for (int j = 0; j < 16; ++j) {
                        const int32_t sum =
                            q[0] * w[4 * j] + q[1] * w[4 * j + 1] + q[2] * w[4 * j + 2] + q[3] * w[4 * j + 3];
                        sums[j] += static_cast<uint32_t>(sum);
                    }
                }
                std::memcpy(out + r * 16 * kBlocks + 16 * b, sums, sizeof sums);
            }
        }
    }
};

}  // namespace
}  // namespace moembed
