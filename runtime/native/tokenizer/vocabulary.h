// The vocabulary of a Unigram tokenizer in a memory-mapped file,
// vocabulary.bin. export/vocabulary.py describes its layout.
//
// Opening a file checks the header and the bounds of the sections. Their contents are checked when they are read, so
// that no content can make a read leave the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "charsmap.h"

namespace moembed {

struct AddedToken {
    Bytes text;
    int32_t id;
    bool strips_left;
};

class Vocabulary {
public:
    // Opens a file, which must stay mapped. Returns what is wrong with it, or null.
    const char* open(Bytes file);

    uint32_t size() const { return pieces_; }
    int32_t bos() const { return bos_; }
    int32_t eos() const { return eos_; }
    int32_t pad() const { return pad_; }
    int32_t unknown() const { return unknown_; }
    double unknown_score() const { return unknown_score_; }
    const uint8_t* source() const { return source_; }  // sha256 of the tokenizer.json, 32 bytes
    const Charsmap& charsmap() const { return charsmap_; }
    const std::vector<AddedToken>& added() const { return added_; }

    double score(uint32_t id) const { return read<double>(scores_, id); }

    // The bytes of a piece; empty if the id is out of range.
    Bytes piece(uint32_t id) const;

    // Calls `found(length, id)` for every piece that is a prefix of `text`, shortest first.
    template <class Found>
    void prefixes(const uint8_t* text, size_t size, Found found) const;

    // The id of the piece that is exactly `text`, or -1.
    int64_t find(const uint8_t* text, size_t size) const;

private:
    // A node of the trie: a label in bits 24 to 31, two flags, and a payload of 22 bits. The index of a child is the
    // payload plus the child's label.
    static constexpr uint32_t kEnds = 1u << 23;  // a piece ends here: the child with label 0 holds its id
    static constexpr uint32_t kTail = 1u << 22;  // only one piece is left: the payload is its id
    static constexpr uint32_t kPayload = kTail - 1;

    // A read past the end of a section gives zeros.
    template <class T>
    static T read(Bytes section, size_t index) {
        T value{};
        if (index < section.size / sizeof(T)) std::memcpy(&value, section.data + index * sizeof(T), sizeof(T));
        return value;
    }

    bool section(uint32_t number, Bytes* found) const;

    Bytes file_{nullptr, 0};
    Bytes scores_{nullptr, 0}, starts_{nullptr, 0}, lengths_{nullptr, 0}, texts_{nullptr, 0}, trie_{nullptr, 0};
    uint32_t pieces_ = 0;
    int32_t bos_ = 0, eos_ = 0, pad_ = 0, unknown_ = 0;
    double unknown_score_ = 0;
    const uint8_t* source_ = nullptr;
    Charsmap charsmap_;
    std::vector<AddedToken> added_;
};

template <class Found>
void Vocabulary::prefixes(const uint8_t* text, size_t size, Found found) const {
    uint32_t node = read<uint32_t>(trie_, 0);
    for (size_t depth = 0;; ++depth) {
        if (node & kTail) {
            const Bytes whole = piece(node & kPayload);
            if (whole.size >= depth && whole.size <= size && whole.size > 0 &&
                std::memcmp(whole.data + depth, text + depth, whole.size - depth) == 0) {
                found(whole.size, node & kPayload);
            }
            return;
        }
        if (node & kEnds) {
            const uint32_t id = read<uint32_t>(trie_, node & kPayload) & kPayload;
            if (id < pieces_ && depth > 0) found(depth, id);
        }
        if (depth == size || text[depth] == 0) return;  // 0 is the label that ends a piece
        const uint32_t child = read<uint32_t>(trie_, (node & kPayload) + text[depth]);
        if (child >> 24 != text[depth]) return;
        node = child;
    }
}

}  // namespace moembed
