// Dot products with AVX512-VNNI.
#pragma once

#include "row_count.h"
#include "rows_in_place.h"
#include "tile_vnni512.h"

namespace moembed {
namespace {

// 24 sums, three weights and a quantized value in 32 registers. 11 loads for 24 products; 12 rows of two blocks need 14
// and wait for them.
constexpr int kRows = 8;
constexpr int kBlocks = 3;
constexpr size_t kTaskRows = 96;
constexpr int kDotsZeroPoint = 0;

struct Tile {
    static void compute(const uint8_t* quantized, size_t stride, int rows, const int8_t* weight, size_t depth,
                        int blocks, const int32_t* start, int32_t* out) {
        with_row_count<kRows>(rows, [&](auto r) {
            constexpr int kR = decltype(r)::value, kStride = 16 * kBlocks;
            (blocks == 3   ? vnni_tile<kR, 3, kStride>
             : blocks == 2 ? vnni_tile<kR, 2, kStride>
                           : vnni_tile<kR, 1, kStride>)(quantized, stride, weight, depth * 64, depth, start, out);
        });
    }
};

using Dots = DotsInPlace<Tile, kRows>;

}  // namespace
}  // namespace moembed
