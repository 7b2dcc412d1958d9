// Sums of products of codes and packed weights, in plain C++. Every dots_*.h has the same face:
//
// Dots()(codes, stride, rows, weight, depth, blocks, start, out): out[r * 16 * kBlocks + j] = start[j] + the exact sum over k of
// (codes[r * stride + k] - kZero) * weight column j, for 4 * depth codes, rows <= kRows and 16 * blocks columns, blocks at most
// kBlocks.
// A Dots may hold state of the processor: make one where it is used, on the thread that uses it.
#pragma once

#include "bytes.h"

namespace moembed {
namespace {

constexpr int kRows = 4;
constexpr int kBlocks = 2;
constexpr int kZero = 0;

struct Dots {
    void operator()(const uint8_t* codes, size_t stride, int rows, const int8_t* weight, size_t depth, int blocks,
                    const int32_t* start, int32_t* out) {
        for (int r = 0; r < rows; ++r) {
            for (int b = 0; b < blocks; ++b) {
                // Unsigned, so that a sum of foreign weights may wrap.
                uint32_t sums[16];
                for (int j = 0; j < 16; ++j) sums[j] = static_cast<uint32_t>(start[16 * b + j]);
                const int8_t* w = weight + b * depth * 64;
                const uint8_t* c = codes + r * stride;
                for (size_t k = 0; k < depth; ++k, w += 64, c += 4) {
                    for (int j = 0; j < 16; ++j) {
                        const int32_t sum =
                            c[0] * w[4 * j] + c[1] * w[4 * j + 1] + c[2] * w[4 * j + 2] + c[3] * w[4 * j + 3];
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
