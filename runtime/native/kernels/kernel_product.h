// The product of quantized rows and packed weights, with scales, bias and GELU.
#pragma once

#include "lanes_math.h"
#include "table.h"

namespace moembed {
namespace {

// Computes the column sums of up to kBlocks blocks.
inline void sum_blocks(Dots& dots, const int8_t* weight, size_t depth, int blocks, int32_t* sums) {
    // A row of ones, as Dots sees it: its dot products are the sums of the weights.
    static constexpr size_t kPart = 64;
    uint8_t one[4 * kPart];
    std::memset(one, kDotsZeroPoint + 1, sizeof one);
    std::memset(sums, 0, 16 * kBlocks * sizeof *sums);
    for (int b = 0; b < blocks; ++b) {
        for (size_t k = 0; k < depth; k += kPart) {
            const size_t part = depth - k < kPart ? depth - k : kPart;
            dots(one, 0, 1, weight + (b * depth + k) * 64, part, 1, sums + 16 * b, sums + 16 * b);
        }
    }
}

inline void sum_columns(const int8_t* weight, size_t depth, size_t first, size_t last, int32_t* sums) {
    Dots dots;
    int32_t part[16 * kBlocks];
    for (size_t block = first; block < last; ++block) {
        sum_blocks(dots, weight + block * depth * 64, depth, 1, part);
        std::memcpy(sums + 16 * block, part, 16 * sizeof *sums);
    }
}

// Computes the initial values of the sums. A sum of quantized * weight becomes one of (quantized - zero_point) * weight
// when it starts at -zero_point times the sum of the column.
inline void initial_sums(Dots& dots, const Product& a, size_t block, int blocks, int32_t* start) {
    if (a.zero_point == kDotsZeroPoint) {
        std::memset(start, 0, 16 * kBlocks * sizeof *start);
        return;
    }
    if (a.column_sums) {
        std::memcpy(start, a.column_sums + 16 * block, 16 * blocks * sizeof *start);
    } else {
        sum_blocks(dots, a.weight + block * a.depth * 64, a.depth, blocks, start);
    }
    // Unsigned, because sums of arbitrary weights may wrap.
    for (int i = 0; i < 16 * blocks; ++i) {
        const auto zero_point = static_cast<uint32_t>(a.zero_point - kDotsZeroPoint);
        start[i] = static_cast<int32_t>(0u - zero_point * static_cast<uint32_t>(start[i]));
    }
}

inline void finish(const Product& a, size_t row, size_t column, const int32_t* sums) {
    Lanes y = (from_ints(sums) * load(a.weight_scale + column)) * fill(a.scale[row]);
    if (a.bias) y = y + load(a.bias + column);
    if (a.gelu) y = gelu_of(y);
    store(a.out + row * a.out_stride + column, y);
}

inline void product(const Product& a, size_t first, size_t last) {
    Dots dots;
    int32_t start[16 * kBlocks], sums[kRows * 16 * kBlocks];
    for (size_t block = first; block < last; block += kBlocks) {
        const int blocks = last - block < kBlocks ? static_cast<int>(last - block) : kBlocks;
        const int8_t* weight = a.weight + block * a.depth * 64;
        initial_sums(dots, a, block, blocks, start);
        for (int row = 0; row < a.rows; row += kRows) {
            const int rows = a.rows - row < kRows ? a.rows - row : kRows;
            dots(a.quantized + row * 4 * a.depth, 4 * a.depth, rows, weight, a.depth, blocks, start, sums);
            for (int r = 0; r < rows; ++r) {
                for (int b = 0; b < blocks; ++b) finish(a, row + r, 16 * (block + b), sums + 16 * (kBlocks * r + b));
            }
        }
    }
}

}  // namespace
}  // namespace moembed
