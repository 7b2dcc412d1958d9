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

class Dots : public RowsInPlace {
public:
    using RowsInPlace::RowsInPlace;
    int height() const { return kRows; }

    template <class Unit>
    void operator()(const uint8_t* packed, int row, int rows, const int8_t* weight, int blocks, const int32_t* start,
                    int32_t* out, const Unit& unit, int units, Ahead) const {
        const uint8_t* quantized = row_of(packed, row);
        const size_t stride = 4 * depth_, depth = depth_;
        with_row_count<kRows>(rows, [&](auto r) {
            constexpr int kR = decltype(r)::value, kStride = 16 * kBlocks;
            (blocks == 3   ? vnni_tile<kR, 3, kStride>
             : blocks == 2 ? vnni_tile<kR, 2, kStride>
                           : vnni_tile<kR, 1, kStride>)(quantized, stride, weight, depth * 64, depth, start, out);
        });
        for (int i = 0; i < units; ++i) unit(i);
    }
};

}  // namespace
}  // namespace moembed
