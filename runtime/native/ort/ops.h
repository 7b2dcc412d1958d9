// The operators of domain `moembed` that have kernels. The functions of the
// same names in quantize/functions.py and export/functions.py define them.
#pragma once

#include "call.h"

namespace moembed::ort {

struct Operator {
    const char* name;
    void (*compute)(Call&);
    std::vector<TensorType> inputs;
    std::vector<TensorType> outputs;
    bool variadic = false;  // the last input may occur any number of times
};

// All of them; they live as long as the process.
const std::vector<Operator>& operators();

void quantize(Call&);
void gelu_mul_quantize(Call&);
void silu_mul_quantize(Call&);
void int8_embedding(Call&);
void int4_embedding(Call&);
void add_norm(Call&);
void add_norm_quantize(Call&);
void int8_linear(Call&);
void int8_linear_norm(Call&);
void int8_linear_gelu(Call&);
void int8_feed_forward(Call&);
void int8_feed_forward_norm(Call&);
void int8_gelu_mul_feed_forward(Call&);
void int8_gelu_mul_feed_forward_norm(Call&);
void int8_silu_mul_feed_forward(Call&);
void int8_silu_mul_feed_forward_norm(Call&);
void int8_experts(Call&);
void int8_experts_norm(Call&);
void router(Call&);
void attention(Call&);
void int8_attention(Call&);
void pool(Call&);

}  // namespace moembed::ort
