#include "lanes_avx2.h"
// clang-format off: order matters
#include "dots_avx2.h"
#include "kernels.h"
#include "select.h"

namespace moembed {
const Kernels kAvx2 = table_of("avx2");
}
