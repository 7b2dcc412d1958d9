// The table of one instruction set. Include it after a lanes_*.h and a dots_*.h.
#pragma once

#include "kernel_attention.h"
#include "kernel_feed_forward.h"
#include "kernel_gated.h"
#include "kernel_int8_attention.h"
#include "kernel_product.h"
#include "kernel_router.h"
#include "kernel_rows.h"

namespace moembed {
namespace {

constexpr Kernels table_of(const char* name) noexcept {
    Kernels table;
    table.name = name;
    table.quantize = quantize;
    table.quantize_gelu = quantize_gelu;
    table.quantize_gelu_mul = quantize_gelu_mul;
    table.quantize_silu_mul = quantize_silu_mul;
    table.quantize_product = quantize_product;
    table.embed = embed;
    table.add_norm = add_norm;
    table.product = product;
    table.product_scratch = product_scratch;
    table.gated_product = gated_product;
    table.feed_forward = feed_forward;
    table.feed_forward_scratch = feed_forward_scratch;
    table.gated_feed_forward = gated_feed_forward;
    table.task_rows = kTaskRows;
    table.zero_point = kDotsZeroPoint;
    table.sum_columns = sum_columns;
    table.attention = attention;
    table.attention_scratch = attention_scratch;
    table.project_heads = project_heads;
    table.project_heads_scratch = project_heads_scratch;
    table.pack_head = pack_head;
    table.packed_head_bytes = packed_head_bytes;
    table.int8_attention = int8_attention;
    table.int8_attention_scratch = int8_attention_scratch;
    table.route = route;
    table.combine = combine;
    table.mean = mean;
    return table;
}

}  // namespace
}  // namespace moembed
