// The operators of domain `moembed` that have kernels. Their meaning is that of the functions of the same names in
// quantize/functions.py and export/functions.py.
#pragma once

#include "call.h"

namespace moembed::ort {

constexpr size_t kMostInputs = 8;
constexpr size_t kMostOutputs = 3;

struct Operator {
    const char* name;
    size_t inputs, outputs;
    Type input[kMostInputs];  // the last one is that of any number of further inputs, if `variadic`
    Type output[kMostOutputs];
    bool variadic;
    void (*compute)(Call&);
};

extern const Operator kOperators[];
extern const size_t kOperatorCount;

void quantize(Call&);
void int8_embedding(Call&);
void int4_embedding(Call&);
void add_norm(Call&);
void add_norm_quantize(Call&);
void int8_linear(Call&);
void int8_linear_gelu(Call&);
void int8_experts(Call&);
void router(Call&);
void attention(Call&);
void pool(Call&);

}  // namespace moembed::ort
