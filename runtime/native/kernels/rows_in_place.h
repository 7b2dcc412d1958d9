// Quantized rows in the order in which most instruction sets read them: one after the other.
#pragma once

#include "common.h"

namespace moembed {
namespace {

// Weights that are read next: how many cache lines of them a block of rows is to fetch, and the distance to as many lines
// that are read at the same time, or 0.
struct Ahead {
    const int8_t* weight = nullptr;
    size_t lines = 0, beside = 0;
};

// The Dots of an instruction set whose `Tile::compute(quantized, stride, rows, weight, depth, blocks, start, out)` reads
// rows as they are, `Rows` at most.
template <class Tile, int Rows>
class DotsInPlace {
public:
    DotsInPlace(int, size_t depth) : depth_(depth) {}

    // The same rows with another depth.
    DotsInPlace with_depth(size_t depth) const { return DotsInPlace(0, depth); }

    int height() const { return Rows; }
    // The depth to which so many values of a row are padded with zeros.
    static size_t depth_for(size_t values) { return (values + 3) / 4; }
    static size_t packed_bytes(int rows, size_t depth) { return static_cast<size_t>(rows) * 4 * depth; }
    // Where a row is stored, and storing `count` of its values, from `column` on; both are multiples of 4.
    uint8_t* place(int row, uint8_t* packed) const { return packed + static_cast<size_t>(row) * 4 * depth_; }
    void put(uint8_t* place, size_t column, const uint8_t* values, size_t count) const {
        std::memcpy(place + column, values, count);
    }

    template <class Unit>
    void operator()(const uint8_t* packed, int row, int rows, const int8_t* weight, int blocks, const int32_t* start,
                    int32_t* out, const Unit& unit, int units, Ahead) const {
        const size_t stride = 4 * depth_;
        Tile::compute(packed + static_cast<size_t>(row) * stride, stride, rows, weight, depth_, blocks, start, out);
        for (int i = 0; i < units; ++i) unit(i);
    }

private:
    size_t depth_;
};

}  // namespace
}  // namespace moembed
