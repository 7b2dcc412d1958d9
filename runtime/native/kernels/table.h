// The kernels of one instruction set: one function per stage of an operator, over a range of rows, columns or texts.
//
// Arrays are dense and row-major; floats are float32. Quantized activations are unsigned bytes with one scale per row.
// Packed weights are int8 [N/16][K/4][16][4]. The result of a row depends
// on that row only, and every table computes the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moembed {

// Zero points of quantized activations; quantize/functions.py explains them.
constexpr int kSymmetricZeroPoint = 128;  // after a norm or attention
constexpr int kGeluZeroPoint = 32;        // after GELU

constexpr size_t kBlock4 = 32;  // values of a 4-bit row that share a scale

// LayerNorm, and the quantization of its result times `smooth`.
struct Norm {
    size_t width = 0;
    float epsilon = 0;
    const float* gamma = nullptr;   // [width]
    const float* beta = nullptr;    // [width]
    const float* smooth = nullptr;  // [width], or null: do not quantize
    float* y = nullptr;             // [rows, width]
    uint8_t* quantized = nullptr;   // [rows, width], zero point kSymmetricZeroPoint
    float* scale = nullptr;         // [rows]
};

// Rows of an embedding table of 8-bit or 4-bit values: the members of the other kind are null.
struct Embedding {
    const int64_t* ids = nullptr;            // [rows], each within the table
    const float* type = nullptr;             // [width], or [rows, width]
    size_t type_stride = 0;                  // from the `type` of a row to that of the next: 0 or width
    const int8_t* table8 = nullptr;          // [words, width]
    const float* table8_scale = nullptr;     // [words]
    const uint8_t* table4 = nullptr;         // [words, width / 2], low half of a byte first, zero point 8
    const uint16_t* table4_scale = nullptr;  // [words, width / kBlock4] float16, finite
};

// out = (float(sum) * weight_scale) * scale + bias, then GELU, where sum = (quantized - zero_point) x weight.
struct Product {
    const uint8_t* quantized = nullptr;  // [any, 4 * depth]
    const float* scale = nullptr;        // [any]
    const size_t* source = nullptr;      // [rows]: the row of `quantized` and `scale` to read; null: row 0, 1, ...
    int rows = 0;
    size_t depth = 0;  // K / 4
    int zero_point = 0;
    const int8_t* weight = nullptr;        // packed
    const int32_t* column_sums = nullptr;  // [N] of the weight, or null: the kernel computes them
    int32_t* new_sums = nullptr;           // [N], or null: where it stores those that it had to compute
    const float* weight_scale = nullptr;   // [N]
    const float* bias = nullptr;           // [N], or null
    bool gelu = false;
    float* out = nullptr;
    const size_t* target = nullptr;  // [rows]: the row of `out` to write; null: row 0, 1, ...
    size_t out_stride = 0;           // floats from row to row
};

// What a gated product computes of its gate.
enum class Activation { Gelu, Silu };

// act(gate) * up, of products with the same rows, depth and columns.
struct GatedProduct {
    Activation activation = Activation::Gelu;
    Product up;    // its `quantized`, `scale`, `source`, `out` and `target` are those of both
    Product gate;  // its weight, with its sums, scales and bias
};

struct Attention {
    const float* qkv = nullptr;  // [tokens, 3 * heads * dim]
    size_t heads = 0;
    size_t dim = 0;                      // even
    const float* cos = nullptr;          // [positions, dim / 2]
    const float* sin = nullptr;          // [positions, dim / 2]
    const int64_t* positions = nullptr;  // [tokens]
    float* y = nullptr;                  // [tokens, heads * dim]
};

// Queries, keys and values of tokens, quantized for each token and head. Queries have 16 bits around 32768, keys and
// values 8 around 0; a token's values take `stride` bytes, of which those after the first `dim` are those of a 0.
struct Int8Heads {
    size_t heads = 0;
    size_t dim = 0;     // even
    size_t stride = 0;  // dim, rounded up to a multiple of 16
    size_t tokens = 0;
    uint8_t *query_low = nullptr, *query_high = nullptr, *key = nullptr, *value = nullptr;  // [heads, tokens, stride]
    float *query_scale = nullptr, *key_scale = nullptr, *value_scale = nullptr;             // [heads, tokens]
    int32_t* key_sum = nullptr;                                                             // [heads, tokens]
    const float* cos = nullptr;                                                             // [positions, dim / 2]
    const float* sin = nullptr;                                                             // [positions, dim / 2]
    const int64_t* positions = nullptr;                                                     // [tokens]
};

struct Kernels {
    const char* name = nullptr;

    void (*quantize)(const float* x, size_t width, size_t first, size_t last, uint8_t* quantized,
                     float* scale) = nullptr;
    void (*quantize_gelu)(const float* x, size_t width, size_t first, size_t last, uint8_t* quantized,
                          float* scale) = nullptr;
    // gelu(gate) * up and silu(gate) * up; `product` has room for a row.
    using QuantizeGated = void(const float* gate, const float* up, size_t width, size_t first, size_t last,
                               float* product, uint8_t* quantized, float* scale);
    QuantizeGated* quantize_gelu_mul = nullptr;
    QuantizeGated* quantize_silu_mul = nullptr;
    // Values between the products of a gated feed-forward network, in whole blocks of sixteen.
    void (*quantize_product)(const float* x, size_t width, size_t first, size_t last, uint8_t* quantized,
                             float* scale) = nullptr;
    void (*embed)(const Embedding&, const Norm&, size_t first, size_t last) = nullptr;
    void (*add_norm)(const float* x, const float* residual, const Norm&, size_t first, size_t last) = nullptr;
    // Blocks `first` to `last` of sixteen columns; `out`, `weight_scale` and `bias` begin with column 0.
    void (*product)(const Product&, size_t first, size_t last, void* scratch) = nullptr;
    // Bytes of scratch memory that `product` needs, which begins at a cache line.
    size_t (*product_scratch)(const Product&) = nullptr;
    // The same of a gated product, whose scratch memory is that of its `up`.
    void (*gated_product)(const GatedProduct&, size_t first, size_t last, void* scratch) = nullptr;
    // Both products of a feed-forward network: the result of `up`, after GELU, is quantized and multiplied by `down`,
    // whose `quantized`, `scale` and `source`, and the `out` and `target` of `up`, are not used. Without an `out`, the
    // result is in the scratch memory. Returns the result.
    float* (*feed_forward)(const Product& up, const Product& down, void* scratch) = nullptr;
    size_t (*feed_forward_scratch)(const Product& up, const Product& down) = nullptr;
    // The same with a gated product in the place of `up`; the scratch memory is as large.
    float* (*gated_feed_forward)(const GatedProduct&, const Product& down, void* scratch) = nullptr;
    // Rows of a task that computes all columns of a product.
    size_t task_rows = 0;
    // The zero point of products that need no column sums.
    int zero_point = 0;
    // Column sums of blocks `first` to `last` of a packed weight; `sums` begins with column 0.
    void (*sum_columns)(const int8_t* weight, size_t depth, size_t first, size_t last, int32_t* sums) = nullptr;
    // Queries `first` to `last` of one head, in the text of tokens `begin` to `end`.
    void (*attention)(const Attention&, size_t head, size_t begin, size_t end, size_t first, size_t last,
                      float* scratch) = nullptr;
    // Floats of scratch memory that attention needs for a text.
    size_t (*attention_scratch)(const Attention&, size_t tokens) = nullptr;
    // Multiplies, rotates and quantizes tokens from `begin` on, as many as the product has rows. Its columns are slices of
    // the `dim` columns of one head: first of all queries, then of all keys, then of all values; `first` to `last` are
    // computed. Columns that are not whole blocks of sixteen need all slices. `out` is not used.
    void (*project_heads)(const Product&, const Int8Heads&, size_t first, size_t last, size_t begin,
                          void* scratch) = nullptr;
    size_t (*project_heads_scratch)(const Product&, const Int8Heads&, size_t first, size_t last) = nullptr;
    // Lays out the keys and values of one head in the text of tokens `begin` to `end` for products, in so many bytes.
    void (*pack_head)(const Int8Heads&, size_t head, size_t begin, size_t end, void* packed) = nullptr;
    size_t (*packed_head_bytes)(const Int8Heads&, size_t tokens) = nullptr;
    // Queries `first` to `last` of all heads in the text of tokens `begin` to `end`, whose packed heads lie one after the
    // other; `y` is [last - first, heads * dim].
    void (*int8_attention)(const Int8Heads&, const void* packed, size_t begin, size_t end, size_t first, size_t last,
                           float* y, void* scratch) = nullptr;
    size_t (*int8_attention_scratch)(const Int8Heads&, size_t tokens) = nullptr;
    // `weights` and `expert_indices` are [rows, top_k]; `scratch` has `experts` floats, rounded up to sixteen.
    void (*route)(const float* x, size_t width, const float* weight, size_t experts, size_t top_k, size_t first,
                  size_t last, float* weights, int64_t* expert_indices, float* scratch) = nullptr;
    // y = sum over k, in order, of weights[k] * slots[k], then + bias; `slots` is [rows, top_k, width].
    void (*combine)(const float* slots, const float* weights, size_t top_k, const float* bias, size_t width,
                    size_t first, size_t last, float* y) = nullptr;
    // The sum of rows `first` to `last`, divided by `divisor`.
    void (*mean)(const float* x, size_t width, size_t first, size_t last, float divisor, float* y) = nullptr;
};

}  // namespace moembed
