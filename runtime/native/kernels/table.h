// What an instruction set offers: one function per step of an op, over a range of rows, columns or texts.
//
// Pointers are to dense row-major arrays; floats are float32; a "step" is the scale of a row of codes; packed weights are
// int8 [N/16][K/4][16][4]. A row's result depends on nothing but that row, and has the same bytes from every table.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moembed {

struct Norm {
    size_t width;
    float epsilon;
    const float *gamma, *beta;  // [width]
    const float* smooth;        // [width], or null: no codes are wanted
    float* y;                   // [rows, width]
    uint8_t* codes;             // [rows, width], around 128
    float* step;                // [rows]
};

constexpr size_t kBlock4 = 32;  // values of a row in 4 bits that share a scale

// A table of bytes, or of 4 bits: one of the two is null.
struct Embedding {
    const int64_t* ids;      // [rows], each within the table
    const float* type;       // [width]
    const int8_t* table;     // [words, width]
    const float* scale;      // [words]
    const uint8_t* table4;   // [words, width / 2], the lower half of a byte before the higher, around 8
    const uint16_t* scale4;  // [words, width / kBlock4] float16, finite
};

// (float(sum) * scale) * step (+ bias) (and its GELU), sum = (codes - middle) x weight
struct Product {
    const uint8_t* codes;  // [rows, 4 * depth]
    const float* step;     // [rows]
    int rows;
    size_t depth;
    int middle;
    const int8_t* weight;
    const int32_t* column_sums;  // [N] of the weights, or null: they are summed on the way
    const float *scale, *bias;   // [N]; bias may be null
    bool gelu;
    float* out;
    size_t out_stride;  // floats from row to row
};

struct Attention {
    const float* qkv;          // [T, 3 * heads * dim]
    size_t heads, dim;         // dim even
    const float *cos, *sin;    // [positions, dim / 2]
    const int64_t* positions;  // [T]
    float* y;                  // [T, heads * dim]
};

struct Kernels {
    const char* name;
    int rows;  // what a product's rows are taken in; a multiple of it wastes nothing

    void (*quantize)(const float* x, size_t width, size_t first, size_t last, uint8_t* codes, float* step);
    void (*quantize_gelu)(const float* x, size_t width, size_t first, size_t last, uint8_t* codes, float* step);
    void (*embed)(const Embedding&, const Norm&, size_t first, size_t last);
    void (*add_norm)(const float* x, const float* residual, const Norm&, size_t first, size_t last);
    // Blocks of sixteen columns, from `first` to `last`; `out` and `scale` and `bias` begin with column 0.
    void (*product)(const Product&, size_t first, size_t last);
    // The sums of the columns of blocks `first` to `last`; `sums` begins with column 0.
    void (*sum_columns)(const int8_t* weight, size_t depth, size_t first, size_t last, int32_t* sums);
    // Queries `first` to `last` of one head of the text that has tokens `begin` to `end`.
    void (*attention)(const Attention&, size_t head, size_t begin, size_t end, size_t first, size_t last,
                      float* scratch);
    size_t (*attention_scratch)(const Attention&, size_t tokens);  // floats
    // Weights [rows, top_k] and chosen [rows, top_k]; scratch has `experts` rounded up to sixteen floats.
    void (*route)(const float* x, size_t width, const float* weight, size_t experts, size_t top_k, size_t first,
                  size_t last, float* weights, int64_t* chosen, float* scratch);
    // y = sum over k of weights[k] * slots[k], in this order, + bias; slots [rows, top_k, width]
    void (*combine)(const float* slots, const float* weights, size_t top_k, const float* bias, size_t width,
                    size_t first, size_t last, float* y);
    // The sum of rows `first` to `last`, by `divisor`.
    void (*mean)(const float* x, size_t width, size_t first, size_t last, float divisor, float* y);
};

}  // namespace moembed
