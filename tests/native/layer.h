// A product with a packed weight, as the tests of the kernels set it up; its rows and its result are the caller's.
#pragma once

#include "../../runtime/native/kernels/table.h"

namespace moembed {

inline Product layer(size_t rows, size_t depth, int zero_point, const int8_t* weight, const float* weight_scale,
                     const float* bias) {
    Product p;
    p.rows = static_cast<int>(rows);
    p.depth = depth;
    p.zero_point = zero_point;
    p.weight = weight;
    p.weight_scale = weight_scale;
    p.bias = bias;
    return p;
}

}  // namespace moembed
