#include "api.h"

int32_t moembed_abi() { return moembed::kAbi; }
