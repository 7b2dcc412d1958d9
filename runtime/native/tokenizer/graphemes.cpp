#include "graphemes.h"

#include <array>
#include <cstddef>

#include "grapheme_table.h"

namespace moembed {
namespace {

constexpr uint32_t kBlock = 128;
constexpr size_t kStarts = sizeof(kClusterStarts) / sizeof(kClusterStarts[0]);

// The table entry of the first code point of each block: a look-up searches from there.
constexpr std::array<uint16_t, 0x110000 / kBlock> block_entries() {
    std::array<uint16_t, 0x110000 / kBlock> entries{};
    size_t entry = 0;
    for (size_t block = 0; block < entries.size(); ++block) {
        while (entry + 1 < kStarts && (kClusterStarts[entry + 1] >> 8) <= block * kBlock) ++entry;
        entries[block] = static_cast<uint16_t>(entry);
    }
    return entries;
}

constexpr auto kBlockEntries = block_entries();

bool extends(Cluster kind) { return kind == Cluster::Extend || kind == Cluster::Linker || kind == Cluster::ExtendOnly; }

bool separates(Cluster kind) { return kind == Cluster::Control || kind == Cluster::Carriage || kind == Cluster::Feed; }

}  // namespace

Cluster cluster_of(uint32_t code) {
    if (code >= 0x20 && code < 0x7F) return Cluster::Other;
    if (code >= 0xAC00 && code < 0xD7A4) return (code - 0xAC00) % 28 == 0 ? Cluster::LV : Cluster::LVT;
    if (code >= 0x110000) return Cluster::Other;
    size_t entry = kBlockEntries[code / kBlock];
    while (entry + 1 < kStarts && (kClusterStarts[entry + 1] >> 8) <= code) ++entry;
    return static_cast<Cluster>(kClusterStarts[entry] & 0xFF);
}

bool ClusterBreaks::before(uint32_t code) {
    const Cluster next = cluster_of(code);
    const bool is_break = !started_ || !joins(next);
    take(next);
    return is_break;
}

// The rules in the order of the standard, with their names. The first one that applies decides.
bool ClusterBreaks::joins(Cluster next) const {
    using C = Cluster;
    if (last_ == C::Carriage && next == C::Feed) return true;                                             // GB3
    if (separates(last_) || separates(next)) return false;                                                // GB4, GB5
    if (last_ == C::L && (next == C::L || next == C::V || next == C::LV || next == C::LVT)) return true;  // GB6
    if ((last_ == C::LV || last_ == C::V) && (next == C::V || next == C::T)) return true;                 // GB7
    if ((last_ == C::LVT || last_ == C::T) && next == C::T) return true;                                  // GB8
    if (extends(next) || next == C::Joiner || next == C::Spacing) return true;                            // GB9, GB9a
    if (last_ == C::Prepend) return true;                                                                 // GB9b
    if (next == C::Consonant) return consonant_ && linked_;                                               // GB9c
    if (next == C::Pictograph) return emoji_ == Emoji::Joined;                                            // GB11
    if (next == C::Regional) return last_ == C::Regional && odd_regionals_;                               // GB12, GB13
    return false;
}

void ClusterBreaks::take(Cluster next) {
    using C = Cluster;
    started_ = true;
    odd_regionals_ = next == C::Regional && !odd_regionals_;
    if (next == C::Linker) {
        linked_ = true;
    } else if (next != C::Extend && next != C::Joiner) {
        consonant_ = next == C::Consonant;
        linked_ = false;
    }
    if (next == C::Pictograph) {
        emoji_ = Emoji::Pictograph;
    } else if (emoji_ != Emoji::None) {
        const bool open = emoji_ == Emoji::Pictograph;
        emoji_ = open && extends(next) ? Emoji::Pictograph : open && next == C::Joiner ? Emoji::Joined : Emoji::None;
    }
    last_ = next;
}

}  // namespace moembed
