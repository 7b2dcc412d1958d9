// The replacements of the normalizer in SentencePiece's format: the size in bytes of a double-array trie (Darts), the
// trie, and the replacements, each ended by a NUL.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moembed {

struct Bytes {
    const uint8_t* data;
    size_t size;
};

class Charsmap {
public:
    Charsmap() = default;

    // Opens a map, whose bytes must stay mapped. Returns false if its sizes contradict each other.
    bool open(Bytes bytes);

    // Finds the replacement of the shortest prefix of `text` that has one.
    bool replacement(const uint8_t* text, size_t size, Bytes* found) const;

private:
    uint32_t unit(size_t index) const;

    Bytes trie_{nullptr, 0};
    Bytes texts_{nullptr, 0};
    size_t units_ = 0;
};

}  // namespace moembed
