// The normaliser's replacements, as SentencePiece stores them: the size in bytes of a double-array trie (Darts), the trie,
// and a text of replacements that end with NUL.
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

    // `bytes` must stay mapped. False: its sizes contradict each other.
    bool open(Bytes bytes);

    // The replacement of the shortest prefix of `text` that has one, if any.
    bool replacement(const uint8_t* text, size_t size, Bytes* found) const;

private:
    uint32_t unit(size_t index) const;

    Bytes trie_{nullptr, 0};
    Bytes texts_{nullptr, 0};
    size_t units_ = 0;
};

}  // namespace moembed
