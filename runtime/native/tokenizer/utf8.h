// UTF-8 decoding. Texts come from Python's encoder and are valid, but a vocabulary file may contain anything: no
// function reads past `end`, whatever the bytes are.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moembed {

struct Character {
    uint32_t code;
    uint32_t length;  // bytes, at least 1
};

inline Character character_at(const uint8_t* p, const uint8_t* end) {
    const uint32_t lead = *p;
    const size_t left = static_cast<size_t>(end - p);
    if (lead < 0x80) return {lead, 1};
    if (lead < 0xE0) return left < 2 ? Character{lead, 1} : Character{(lead & 0x1F) << 6 | (p[1] & 0x3Fu), 2};
    if (lead < 0xF0) {
        if (left < 3) return {lead, 1};
        return {(lead & 0x0F) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu), 3};
    }
    if (left < 4) return {lead, 1};
    return {(lead & 0x07) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu), 4};
}

// Returns the start of the character that ends before `p`.
inline const uint8_t* before(const uint8_t* begin, const uint8_t* p) {
    do --p;
    while (p > begin && (*p & 0xC0) == 0x80);
    return p;
}

// Whether a character has Unicode's property White_Space.
inline bool is_space(uint32_t code) {
    if (code < 0x80) return code == 0x20 || (code >= 0x09 && code <= 0x0D);
    if (code < 0x1680) return code == 0x85 || code == 0xA0;
    return code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F ||
           code == 0x205F || code == 0x3000;
}

}  // namespace moembed
