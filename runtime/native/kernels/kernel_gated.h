// Products act(gate) * up, and feed-forward networks that begin with them.
#pragma once

#include "kernel_feed_forward.h"

namespace moembed {
namespace {

template <Activation kAct>
inline Lanes activated(Lanes x) {
    if constexpr (kAct == Activation::Gelu) return gelu_of(x);
    return silu_of(x);
}

// A block of sums of both products.
struct GatedSums {
    const GatedProduct* a = nullptr;
    const int32_t *gate = nullptr, *up = nullptr;
    int row = 0;
    size_t block = 0;
    int blocks = 0;

    size_t row_of(int i) const { return static_cast<size_t>(row) + static_cast<size_t>(i); }
    // Sixteen columns of row `row + i`.
    template <Activation kAct>
    MOEMBED_INLINE Lanes result(int i, int b, Lanes scale) const {
        const int at = kPanel * i + 16 * b;
        const size_t column = 16 * (block + static_cast<size_t>(b));
        return activated<kAct>(result_of(a->gate, gate + at, column, scale)) * result_of(a->up, up + at, column, scale);
    }
};

// Writes the results of a row as floats.
template <Activation kAct>
struct GatedToFloats {
    GatedSums sums;
    int first = 0;  // added to the rows of a call

    MOEMBED_INLINE void operator()(int i) const {
        const size_t r = sums.row_of(first + i);
        const Product& up = sums.a->up;
        const Lanes scale = row_scale(up, r);
        float* out = up.out + (up.target ? up.target[r] : r) * up.out_stride + 16 * sums.block;
        for (int b = 0; b < sums.blocks; ++b) store(out + 16 * b, sums.template result<kAct>(first + i, b, scale));
    }
};

// Keeps the results of a row, and the largest size of each lane.
template <Activation kAct>
struct GatedToActive {
    GatedSums sums;
    uint16_t* active;
    float* top;
    int first = 0;

    MOEMBED_INLINE void operator()(int i) const {
        const size_t r = sums.row_of(first + i);
        const Lanes scale = row_scale(sums.a->up, r);
        Lanes largest = load(top + 16 * r);
        for (int b = 0; b < sums.blocks; ++b) {
            const Lanes y = sums.template result<kAct>(first + i, b, scale) * fill(kActiveUnit);
            store_halves(active + kPanel * (first + i) + 16 * b, y);
            largest = larger(AfterGate::size(y), largest);
        }
        store(top + 16 * r, largest);
    }
};

// Multiplies packed rows with blocks `first` to `last` of both weights, as `multiply` does: a panel of the gate's and the
// same of the other. `finish_of(sums)` returns what finishes a block of both.
template <class FinishOf>
inline void multiply_gated(const Dots& dots, const uint8_t* packed, const GatedProduct& a, size_t first, size_t last,
                           const int8_t* after, FinishOf finish_of) {
    const int all = a.up.rows;
    if (!all) return;
    alignas(64) int32_t gate_start[kPanel], up_start[kPanel];
    alignas(64) int32_t gate_sums[2][kRows * kPanel], up_sums[2][kRows * kPanel];
    const int height = dots.height();
    const size_t depth = a.up.depth, panel = kBlocks * depth, rounds = static_cast<size_t>((all + height - 1) / height);
    int turn = 0, units = 0;
    auto before = finish_of(GatedSums{});
    for (size_t block = first; block < last; block += kBlocks) {
        const bool more = block + kBlocks < last;
        const int blocks = last - block < kBlocks ? static_cast<int>(last - block) : kBlocks;
        const int8_t *gate = a.gate.weight + block * depth * 64, *up = a.up.weight + block * depth * 64;
        initial_sums(a.gate, block, blocks, gate_start);
        initial_sums(a.up, block, blocks, up_start);
        Ahead gate_ahead = ahead_of(more ? gate + panel * 64 : after, depth, rounds);
        Ahead up_ahead = ahead_of(more ? up + panel * 64 : nullptr, depth, rounds);
        for (int row = 0; row < all; row += height) {
            const int rows = all - row < height ? all - row : height;
            before.first = 0;
            dots(packed, row, rows, gate, blocks, gate_start, gate_sums[turn], before, units / 2, gate_ahead);
            before.first = units / 2;
            dots(packed, row, rows, up, blocks, up_start, up_sums[turn], before, units - units / 2, up_ahead);
            gate_ahead.weight += gate_ahead.lines * 64;
            up_ahead.weight += up_ahead.lines * 64;
            before = finish_of(GatedSums{&a, gate_sums[turn], up_sums[turn], row, block, blocks});
            units = rows;
            turn = 1 - turn;
        }
    }
    before.first = 0;
    for (int i = 0; i < units; ++i) before(i);
}

// Calls f(Chosen<activation>{}): the activation of a product is a constant to what computes it.
template <Activation kAct>
struct Chosen {
    static constexpr Activation value = kAct;
};
template <class F>
inline void with_activation(Activation activation, F&& f) {
    if (activation == Activation::Gelu) {
        f(Chosen<Activation::Gelu>{});
    } else {
        f(Chosen<Activation::Silu>{});
    }
}

inline void gated_product(const GatedProduct& a, size_t first, size_t last, void* scratch) {
    auto* packed = static_cast<uint8_t*>(scratch);
    const Dots dots(a.up.rows, a.up.depth);
    pack_rows(dots, a.up, packed);
    with_activation(a.activation, [&](auto act) {
        multiply_gated(dots, packed, a, first, last, nullptr,
                       [&](const GatedSums& sums) { return GatedToFloats<decltype(act)::value>{sums}; });
    });
}

inline float* gated_feed_forward(const GatedProduct& a, const Product& down, void* scratch) {
    FirstProduct first(a.up, down, scratch);
    {
        const Dots dots(a.up.rows, a.up.depth);
        first.height = dots.height();
        uint8_t* packed = first.memory + first.at.rows;
        pack_rows(dots, a.up, packed);
        with_activation(a.activation, [&](auto act) {
            multiply_gated(dots, packed, a, 0, down.depth / 4, down.weight, [&](const GatedSums& sums) {
                return GatedToActive<decltype(act)::value>{sums, first.active(sums.row, sums.block / kBlocks),
                                                           first.top()};
            });
        });
    }
    return second_product<AfterGate>(first, down);
}

}  // namespace
}  // namespace moembed
