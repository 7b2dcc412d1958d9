#include "lanes_avx512.h"
// clang-format off: order matters
#include "dots_avx512vnni.h"
#include "kernels.h"
#include "select.h"

namespace moembed {
const Kernels kAvx512Vnni = table_of("avx512vnni");
}
