#include "charsmap.h"

#include <cstring>

namespace moembed {
namespace {

constexpr uint32_t kNoUnit = 0x80000000u;  // marks a value, which has no label

bool has_leaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t label(uint32_t unit) { return unit & (kNoUnit | 0xFF); }
size_t offset(uint32_t unit) { return static_cast<size_t>(unit >> 10) << ((unit & (1u << 9)) >> 6); }

}  // namespace

bool Charsmap::open(Bytes bytes) {
    uint32_t size = 0;
    if (bytes.size < sizeof size) return false;
    std::memcpy(&size, bytes.data, sizeof size);
    if (size % sizeof size != 0 || size == 0 || size > bytes.size - sizeof size) return false;
    trie_ = {bytes.data + sizeof size, size};
    texts_ = {trie_.data + size, bytes.size - sizeof size - size};
    units_ = size / sizeof size;
    return true;
}

uint32_t Charsmap::unit(size_t index) const {
    uint32_t unit = kNoUnit;
    if (index < units_) std::memcpy(&unit, trie_.data + index * sizeof unit, sizeof unit);
    return unit;
}

bool Charsmap::replacement(const uint8_t* text, size_t size, Bytes* found) const {
    size_t node = offset(unit(0));
    for (size_t i = 0; i < size && text[i] != 0; ++i) {
        node ^= text[i];
        const uint32_t here = unit(node);
        if (label(here) != text[i]) return false;
        node ^= offset(here);
        if (!has_leaf(here)) continue;
        const size_t start = unit(node) & ~kNoUnit;
        if (start >= texts_.size) return false;
        const void* nul = std::memchr(texts_.data + start, 0, texts_.size - start);
        const uint8_t* end = nul ? static_cast<const uint8_t*>(nul) : texts_.data + texts_.size;
        *found = {texts_.data + start, static_cast<size_t>(end - texts_.data) - start};
        return true;
    }
    return false;
}

}  // namespace moembed
