#include "lanes_avx512.h"
// clang-format off: order matters
#include "dots_amx.h"
#include "kernels.h"
#include "select.h"

namespace moembed {
const Kernels kAmx = table_of("amx");
}
