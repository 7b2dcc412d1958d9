// Both products of a feed-forward network, for the rows of a task. What lies between them stays in the cache.
#pragma once

#include "kernel_product.h"
#include "kernel_rows.h"
#include "layout.h"

namespace moembed {
namespace {

struct FeedForwardLayout : Layout {
    size_t rows;    // packed
    size_t active;  // [blocks of rows][panels][height][kPanel] float16; then the result
    size_t top;     // [rows][16] float: the largest value of each lane; then, in the first lane, what quantizes the row
    size_t scale;   // [rows] float
    size_t inner;   // packed
    size_t places;  // [rows] pointers into it

    FeedForwardLayout(const Product& up, const Product& down) {
        const size_t count = static_cast<size_t>(up.rows) + kRows;  // whole blocks of rows
        rows = take(Dots::packed_bytes(up.rows, up.depth));
        const size_t most = count * (4 * down.depth + kPanel) * sizeof(uint16_t);
        const size_t result = static_cast<size_t>(up.rows) * down.out_stride * sizeof(float);
        active = take(most > result ? most : result);
        top = take(count * 16 * sizeof(float));
        scale = take(count * sizeof(float));
        inner = take(Dots::packed_bytes(up.rows, down.depth));
        places = take(count * sizeof(uint8_t*));
    }
};

inline size_t feed_forward_scratch(const Product& up, const Product& down) { return FeedForwardLayout(up, down).all; }

// Keeps the results of a row, after GELU, and the largest of each lane.
struct ToActive {
    const Product* a;
    const int32_t* sums;
    int row;
    size_t block;
    int blocks;
    uint16_t* active;
    float* top;

    MOEMBED_INLINE void operator()(int i) const {
        const size_t r = static_cast<size_t>(row) + static_cast<size_t>(i), column = 16 * block;
        const Lanes scale = row_scale(*a, r);
        Lanes largest = load(top + 16 * r);
        for (int b = 0; b < blocks; ++b) {
            const Lanes y = gelu_of<kActiveShift>(result_of(*a, sums + kPanel * i + 16 * b, column + 16 * b, scale));
            store_halves(active + kPanel * i + 16 * b, y);
            largest = larger(y, largest);
        }
        store(top + 16 * r, largest);
    }
};

// The first product of a task: what lies between the products is in the cache, in the scratch memory.
struct FirstProduct {
    FeedForwardLayout at;
    uint8_t* memory;
    size_t panels;  // of its columns
    int height = 0;

    FirstProduct(const Product& up, const Product& down, void* scratch)
        : at(up, down), memory(static_cast<uint8_t*>(scratch)), panels((down.depth / 4 + kBlocks - 1) / kBlocks) {
        std::memset(top(), 0, static_cast<size_t>(up.rows) * 16 * sizeof(float));
    }
    float* top() const { return reinterpret_cast<float*>(memory + at.top); }
    // The values of a block of rows and a panel.
    uint16_t* active(int row, size_t panel) const {
        const auto block = static_cast<size_t>(row / height) * panels + panel;
        return reinterpret_cast<uint16_t*>(memory + at.active) + block * static_cast<size_t>(height) * kPanel;
    }
    // What was too large for float16 is infinite: makes it the most, in row `row + i`, where `row` begins a block of rows.
    template <class After>
    void limit_row(int row, int i, size_t width) const {
        for (size_t column = 0; column < width; column += 16) {
            uint16_t* x = active(row, column / kPanel) + static_cast<size_t>(i) * kPanel + column % kPanel;
            store_halves(x, After::within(load_halves(x)));
        }
    }
};

// Quantizes what lies between the products, and multiplies it by `down`.
template <class After>
inline float* second_product(const FirstProduct& first, const Product& down) {
    uint8_t* memory = first.memory;
    auto* scale = reinterpret_cast<float*>(memory + first.at.scale);
    auto** places = reinterpret_cast<uint8_t**>(memory + first.at.places);
    const size_t width = 4 * down.depth;
    const Dots dots(down.rows, down.depth);
    for (int row = 0; row < down.rows; row += first.height) {
        const int rows = down.rows - row < first.height ? down.rows - row : first.height;
        for (int i = 0; i < rows; ++i) {
            float* tops = first.top() + 16 * (row + i);
            const float top = max_of(load(tops));
            scale[row + i] = After::scale_of(top);
            *tops = active_inverse(scale[row + i]);
            places[row + i] = dots.place(row + i, memory + first.at.inner);
            if (top > kMostActive) first.template limit_row<After>(row, i, width);
        }
        for (size_t panel = 0; panel < first.panels; ++panel) {
            const size_t left = width - panel * kPanel, count = left < kPanel ? left : kPanel;
            const uint16_t* x = first.active(row, panel);
            for (int r = row; r < row + rows; ++r, x += kPanel) {
                const Lanes inverse = fill(first.top()[16 * r]);
                for (size_t i = 0; i < count; i += 16) {
                    uint8_t part[16];
                    quantize_active(x + i, inverse, After::kZeroPoint, part);
                    dots.put(places[r], panel * kPanel + i, part, 16);
                }
            }
        }
    }
    Product second = down;
    second.scale = scale;
    second.source = nullptr;
    if (!second.out) second.out = reinterpret_cast<float*>(memory + first.at.active);
    multiply(dots, memory + first.at.inner, second, 0, down.depth ? down.out_stride / 16 : 0, nullptr,
             [&](const int32_t* sums, int row, size_t block, int count) {
                 return ToFloats<false>{&second, sums, row, block, count};
             });
    return second.out;
}

inline float* feed_forward(const Product& up, const Product& down, void* scratch) {
    FirstProduct first(up, down, scratch);
    {
        const Dots dots(up.rows, up.depth);
        first.height = dots.height();
        uint8_t* packed = first.memory + first.at.rows;
        pack_rows(dots, up, packed);
        multiply(dots, packed, up, 0, down.depth / 4, down.weight,
                 [&](const int32_t* sums, int row, size_t block, int count) {
                     return ToActive{&up, sums, row, block, count, first.active(row, block / kBlocks), first.top()};
                 });
    }
    return second_product<AfterGelu>(first, down);
}

}  // namespace
}  // namespace moembed
