// Dot products of quantized rows and packed weights, in plain C++. Every dots_*.h has the same interface:
//
// * kRows, kBlocks: the most rows, and blocks of sixteen columns, of one call.
// * kTaskRows: the rows of a task that computes all columns of a large product.
// * kDotsZeroPoint: what the instructions subtract from each quantized byte: 0, or 128 where they take signed bytes.
// * Dots(rows, depth), for a product with so many rows, of which each has 4 * depth bytes; it may hold processor state:
//   construct it on the thread that uses it, for the duration of a call, and no second one of several rows beside it.
// * with_depth(depth): the same rows with another depth; it may use the state of the first, which must outlive it.
// * height(): the rows of a block, at most kRows. Blocks begin at its multiples.
// * packed_bytes(rows, depth), place(row, packed) and put(place, column, values, count): rows in the order in which they
//   are read.
// * depth_for(values): the depth to which an operand that a kernel packs itself is padded with zeros.
// * dots(packed, row, rows, weight, blocks, start, out, unit, units, ahead) computes exactly
//   out[r * 16 * kBlocks + j] = start[j] + sum over k of (packed[row + r][k] - kDotsZeroPoint) * weight[k][j],
//   and calls unit(0) to unit(units - 1), which finish the block before, at any time. `ahead` may be fetched.
#pragma once

#include "rows_in_place.h"

namespace moembed {
namespace {

constexpr int kRows = 4;
constexpr int kBlocks = 2;
constexpr size_t kTaskRows = 96;
constexpr int kDotsZeroPoint = 0;

struct Tile {
    static void compute(const uint8_t* quantized, size_t stride, int rows, const int8_t* weight, size_t depth,
                        int blocks, const int32_t* start, int32_t* out) {
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

using Dots = DotsInPlace<Tile, kRows>;

}  // namespace
}  // namespace moembed
