// The table of one instruction set. Include it behind a lanes_*.h and a dots_*.h.
#pragma once

#include "steps_attention.h"
#include "steps_product.h"
#include "steps_router.h"
#include "steps_rows.h"

namespace moembed {
namespace {

constexpr Kernels table_of(const char* name) {
    return {name,        kRows,     quantize,          quantize_gelu, embed,   add_norm, product,
            sum_columns, attention, attention_scratch, route,         combine, mean};
}

}  // namespace
}  // namespace moembed
