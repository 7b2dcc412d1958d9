// The product of quantized rows and packed weights, with scales, bias and GELU.
//
// A task multiplies its rows with one panel of kBlocks blocks of sixteen columns after the other. The panel stays in
// the cache for all rows. The block of sums that a Dots computed is finished while it computes the next one.
#pragma once

#include "lanes_math.h"
#include "table.h"

namespace moembed {
namespace {

constexpr int kPanel = 16 * kBlocks;  // columns

struct NoUnit {
    void operator()(int) const {}
};

// Computes the column sums of up to kBlocks blocks.
inline void sum_blocks(const int8_t* weight, size_t depth, int blocks, int32_t* sums) {
    // A row of ones, as Dots sees it: its dot products are the sums of the weights.
    static constexpr size_t kPart = 64;
    alignas(64) uint8_t one[4 * kPart], packed[8 * kPart];
    std::memset(one, kDotsZeroPoint + 1, sizeof one);
    const Dots part(1, kPart);
    part.put(part.place(0, packed), 0, one, sizeof one);
    std::memset(sums, 0, kPanel * sizeof *sums);
    for (int b = 0; b < blocks; ++b) {
        for (size_t k = 0; k < depth; k += kPart) {
            const Dots dots(1, depth - k < kPart ? depth - k : kPart);
            dots(packed, 0, 1, weight + (b * depth + k) * 64, 1, sums + 16 * b, sums + 16 * b, NoUnit(), 0, Ahead());
        }
    }
}

inline void sum_columns(const int8_t* weight, size_t depth, size_t first, size_t last, int32_t* sums) {
    int32_t part[kPanel];
    for (size_t block = first; block < last; ++block) {
        sum_blocks(weight + block * depth * 64, depth, 1, part);
        std::memcpy(sums + 16 * block, part, 16 * sizeof *sums);
    }
}

// Computes the initial values of the sums. A sum of quantized * weight becomes one of (quantized - zero_point) * weight
// when it starts at -zero_point times the sum of the column.
inline void initial_sums(const Product& a, size_t block, int blocks, int32_t* start) {
    if (a.zero_point == kDotsZeroPoint) {
        std::memset(start, 0, kPanel * sizeof *start);
        return;
    }
    if (a.column_sums) {
        std::memcpy(start, a.column_sums + 16 * block, 16 * blocks * sizeof *start);
    } else {
        sum_blocks(a.weight + block * a.depth * 64, a.depth, blocks, start);
        if (a.new_sums) std::memcpy(a.new_sums + 16 * block, start, 16 * blocks * sizeof *start);
    }
    // Unsigned, because sums of arbitrary weights may wrap.
    for (int i = 0; i < 16 * blocks; ++i) {
        const auto zero_point = static_cast<uint32_t>(a.zero_point - kDotsZeroPoint);
        start[i] = static_cast<int32_t>(0u - zero_point * static_cast<uint32_t>(start[i]));
    }
}

// A panel of weights that is fetched in equal parts while `rounds` blocks of rows are multiplied; none if `weight` is null.
// Few rounds wait for memory, so that they fetch the blocks of a panel side by side, in the order in which they are read.
inline Ahead ahead_of(const int8_t* weight, size_t depth, size_t rounds) {
    constexpr size_t kFewRounds = 2;
    Ahead ahead;
    ahead.weight = weight;
    if (!weight) return ahead;
    ahead.beside = kBlocks == 2 && rounds <= kFewRounds ? depth * 64 : 0;
    ahead.lines = ((ahead.beside ? depth : kBlocks * depth) + rounds - 1) / rounds;
    return ahead;
}

// Multiplies packed rows with blocks `first` to `last` of a weight. `finish_of(sums, row, block, blocks)` returns what
// finishes a block of sums: its call with i < height finishes row `row + i`.
template <class FinishOf>
inline void multiply(const Dots& dots, const uint8_t* packed, const Product& a, size_t first, size_t last,
                     const int8_t* after, FinishOf finish_of) {
    if (!a.rows) return;
    alignas(64) int32_t start[kPanel], sums[2][kRows * kPanel];
    const int height = dots.height();
    const size_t panel = kBlocks * a.depth, rounds = static_cast<size_t>((a.rows + height - 1) / height);
    int turn = 0, units = 0;
    auto before = finish_of(sums[0], 0, first, 1);
    for (size_t block = first; block < last; block += kBlocks) {
        const int blocks = last - block < kBlocks ? static_cast<int>(last - block) : kBlocks;
        const int8_t* weight = a.weight + block * a.depth * 64;
        initial_sums(a, block, blocks, start);
        Ahead ahead = ahead_of(block + kBlocks < last ? weight + panel * 64 : after, a.depth, rounds);
        for (int row = 0; row < a.rows; row += height) {
            const int rows = a.rows - row < height ? a.rows - row : height;
            dots(packed, row, rows, weight, blocks, start, sums[turn], before, units, ahead);
            ahead.weight += ahead.lines * 64;
            before = finish_of(sums[turn], row, block, blocks);
            units = rows;
            turn = 1 - turn;
        }
    }
    for (int i = 0; i < units; ++i) before(i);
}

// The results of sixteen columns of a row, before GELU.
inline Lanes result_of(const Product& a, const int32_t* sums, size_t column, Lanes scale) {
    const Lanes y = (from_ints(sums) * load(a.weight_scale + column)) * scale;
    return a.bias ? y + load(a.bias + column) : y;
}

inline Lanes row_scale(const Product& a, size_t row) { return fill(a.scale[a.source ? a.source[row] : row]); }

// Writes the results of a row as floats.
template <bool Gelu>
struct ToFloats {
    const Product* a;
    const int32_t* sums;
    int row;
    size_t block;
    int blocks;

    MOEMBED_INLINE void operator()(int i) const {
        const size_t r = static_cast<size_t>(row) + static_cast<size_t>(i), column = 16 * block;
        const Lanes scale = row_scale(*a, r);
        float* out = a->out + (a->target ? a->target[r] : r) * a->out_stride + column;
        for (int b = 0; b < blocks; ++b) {
            const Lanes y = result_of(*a, sums + kPanel * i + 16 * b, column + 16 * b, scale);
            store(out + 16 * b, Gelu ? gelu_of(y) : y);
        }
    }
};

inline void pack_rows(const Dots& dots, const Product& a, uint8_t* packed) {
    for (int r = 0; r < a.rows; ++r) {
        const size_t from = a.source ? a.source[r] : static_cast<size_t>(r);
        dots.put(dots.place(r, packed), 0, a.quantized + from * 4 * a.depth, 4 * a.depth);
    }
}

inline size_t product_scratch(const Product& a) { return Dots::packed_bytes(a.rows, a.depth); }

inline void product(const Product& a, size_t first, size_t last, void* scratch) {
    auto* packed = static_cast<uint8_t*>(scratch);
    const Dots dots(a.rows, a.depth);
    pack_rows(dots, a, packed);
    if (a.gelu) {
        multiply(dots, packed, a, first, last, nullptr, [&](const int32_t* sums, int row, size_t block, int blocks) {
            return ToFloats<true>{&a, sums, row, block, blocks};
        });
    } else {
        multiply(dots, packed, a, first, last, nullptr, [&](const int32_t* sums, int row, size_t block, int blocks) {
            return ToFloats<false>{&a, sums, row, block, blocks};
        });
    }
}

}  // namespace
}  // namespace moembed
