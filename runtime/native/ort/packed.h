// Packed weights [N/16][K/4][16][4], and how a product with them is cut into tasks.
#pragma once

#include <utility>

#include "call.h"

namespace moembed::ort {

// Below so many rows a product is bound by the weights it reads, and cut along them.
constexpr size_t kFewRows = 96;

struct Packed {
    const int8_t* data;
    size_t columns, depth;  // N, K / 4
    const int32_t* sums;    // of its columns, or null

    // `width` is K, that of the rows it meets, or kAny.
    Packed(const Call& call, size_t index, const char* name, int64_t width, int64_t out = kAny) {
        if (width != kAny && width % 4)
            refuse("codes are " + std::to_string(width) + " wide, expected a multiple of 4");
        if (out != kAny && out % 16)
            refuse(std::string(name) + " has " + std::to_string(out) + " columns, not a multiple of 16");
        const auto tensor =
            call.input<int8_t>(index, name, {out == kAny ? kAny : out / 16, width == kAny ? kAny : width / 4, 16, 4});
        data = tensor.data;
        columns = tensor[0] * 16;
        depth = tensor[1];
        sums_ = &call.sums(index);
        sums = sums_->get();
    }

    // Sees to it that a constant weight has its column sums: worth a pass over it when it is used for many rows.
    void summed(Call& call) {
        if (sums || !sums_->constant) return;
        std::unique_ptr<int32_t[]> made(new int32_t[columns]);
        call.ranges(blocks(), 24,
                    [&](size_t first, size_t last) { call.kernels.sum_columns(data, depth, first, last, made.get()); });
        sums = sums_->put(std::move(made));
    }

    size_t blocks() const { return columns / 16; }

private:
    ColumnSums* sums_;
};

// The product of some of its rows. `placed`: their results are where those of all rows would be, and not at the beginning.
inline Product rows_of(Product whole, size_t first, size_t last, bool placed = true) {
    whole.codes += first * whole.depth * 4;
    whole.step += first;
    whole.rows = static_cast<int>(last - first);
    if (placed) whole.out += first * whole.out_stride;
    return whole;
}

inline void multiply(Call& call, const Product& whole, size_t rows, size_t blocks) {
    constexpr size_t kRowsOfTask = 48, kFewBlocks = 12, kManyBlocks = 48;
    const size_t height = rows < kFewRows ? rows : kRowsOfTask, width = rows < kFewRows ? kFewBlocks : kManyBlocks;
    if (!rows) return;
    const size_t across = (blocks + width - 1) / width;
    call.parallel((rows + height - 1) / height * across, [&](size_t task) {
        const size_t row = task / across * height, block = task % across * width;
        const size_t last = row + height < rows ? row + height : rows;
        call.kernels.product(rows_of(whole, row, last), block, block + width < blocks ? block + width : blocks);
    });
}

}  // namespace moembed::ort
