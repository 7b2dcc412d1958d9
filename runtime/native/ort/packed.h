// Packed weights [N/16][K/4][16][4], and the division of a product with them into tasks.
#pragma once

#include <algorithm>
#include <utility>

#include "call.h"
#include "scratch.h"

namespace moembed::ort {

constexpr size_t kTasksOfThread = 2;

// True if reading the weights takes the time of a product of so many rows, so that tasks divide the weights, not the rows.
inline bool few_rows(const Call& call, size_t rows) { return rows < 48 * std::max<size_t>(call.threads, 2); }

struct Packed {
    const int8_t* data = nullptr;
    size_t columns = 0;             // N
    size_t depth = 0;               // K / 4
    const int32_t* sums = nullptr;  // of the columns, or null

    // `width` is K and `out` is N; each may be kAny.
    Packed(const Call& call, size_t index, const char* name, int64_t width, int64_t out = kAny) {
        if (width != kAny && width % 4) {
            throw InvalidInput("quantized has " + std::to_string(width) + " columns, expected a multiple of 4");
        }
        if (out != kAny && out % 16) {
            throw InvalidInput(std::string(name) + " has " + std::to_string(out) +
                               " columns, expected a multiple of 16");
        }
        const auto tensor =
            call.input<int8_t>(index, name, {out == kAny ? kAny : out / 16, width == kAny ? kAny : width / 4, 16, 4});
        data = tensor.data;
        columns = tensor[0] * 16;
        depth = tensor[1];
        if (!depth) throw InvalidInput(std::string(name) + " has a depth of 0, expected at least 1");
        sums_ = &call.sums(index);
        sums = sums_->get();
    }

    // Computes the column sums of a constant weight that a product with this zero point needs. That takes one pass over
    // it, which pays off for many rows.
    void require_sums(Call& call, int zero_point) {
        if (!lacks_sums(call, zero_point)) return;
        std::unique_ptr<int32_t[]> computed(new int32_t[columns]);
        call.ranges(blocks(), 24, [&](size_t first, size_t last) {
            call.kernels.sum_columns(data, depth, first, last, computed.get());
        });
        sums = sums_->put(std::move(computed));
    }

    // Lets one product with all columns, each of which one task computes, store the sums on its way. Call `keep_sums` when
    // it is done.
    void gather_sums(const Call& call, int zero_point) {
        if (lacks_sums(call, zero_point)) new_sums_.reset(new int32_t[columns]);
    }
    void keep_sums() {
        if (new_sums_) sums = sums_->put(std::move(new_sums_));
    }
    // One of the two, for a product of so many rows that `multiply` divides. Without rows there is no product.
    void prepare_sums(Call& call, size_t rows, int zero_point) {
        if (!rows) return;
        if (few_rows(call, rows) && rows <= call.kernels.task_rows) {
            gather_sums(call, zero_point);
        } else {
            require_sums(call, zero_point);
        }
    }

    size_t blocks() const { return columns / 16; }

    // The product with rows `first` to `last` of something, except for these.
    Product product(const float* weight_scale, const float* bias, size_t first, size_t last) const {
        Product p;
        p.rows = static_cast<int>(last - first);
        p.depth = depth;
        p.weight = data;
        p.column_sums = sums;
        p.new_sums = new_sums_.get();
        p.weight_scale = weight_scale;
        p.bias = bias;
        p.out_stride = columns;
        return p;
    }

private:
    bool lacks_sums(const Call& call, int zero_point) const {
        return !sums && sums_->constant && zero_point != call.kernels.zero_point;
    }

    ColumnSums* sums_ = nullptr;
    std::unique_ptr<int32_t[]> new_sums_;
};

// The same product for rows `first` to `last` only, with its results at the start of `out`.
inline Product row_range(Product product, size_t first, size_t last) {
    product.quantized += first * product.depth * 4;
    product.scale += first;
    product.rows = static_cast<int>(last - first);
    return product;
}

// Divides `count` items into parts of equal size, of at most `most` items each; returns the size.
inline size_t even_part(size_t count, size_t most) {
    const size_t parts = (count + most - 1) / most;
    return parts ? (count + parts - 1) / parts : 1;
}

inline void multiply_part(Call& call, const Product& part, size_t first, size_t last) {
    call.kernels.product(part, first, last, Scratch::of_task().get(call.kernels.product_scratch(part)));
}

// Calls f(first row, last row, first block, last block) for the tasks of a product.
template <class F>
void divide(Call& call, size_t rows, size_t blocks, F f) {
    constexpr size_t kLeastBlocks = 4;
    if (!rows) return;
    // Every task packs its rows: columns are divided only as far as the threads need it.
    const size_t height = even_part(rows, call.kernels.task_rows), down = (rows + height - 1) / height;
    const size_t wanted = (kTasksOfThread * call.threads + down - 1) / down;
    const size_t width = std::max(kLeastBlocks, (blocks + wanted - 1) / wanted), across = (blocks + width - 1) / width;
    call.parallel(down * across, [&](size_t task) {
        const size_t row = task / across * height, block = task % across * width;
        f(row, row + height < rows ? row + height : rows, block, block + width < blocks ? block + width : blocks);
    });
}

inline void multiply(Call& call, const Product& whole, size_t rows, size_t blocks) {
    divide(call, rows, blocks, [&](size_t row, size_t last_row, size_t block, size_t last_block) {
        Product part = row_range(whole, row, last_row);
        part.out += row * whole.out_stride;
        multiply_part(call, part, block, last_block);
    });
}

}  // namespace moembed::ort
