// Extended grapheme clusters of Unicode 17.0 (UAX #29).
#pragma once

#include <cstdint>

namespace moembed {

// The values are those in grapheme_table.h. Extend is divided by its role in Indic conjuncts.
enum class Cluster : uint8_t {
    Other,
    Linker,
    ExtendOnly,
    Carriage,
    Feed,
    Control,
    Extend,
    Joiner,
    Regional,
    Prepend,
    Spacing,
    L,
    V,
    T,
    Pictograph,
    Consonant,
    LV,
    LVT,
};

Cluster cluster_of(uint32_t code);

// Finds the starts of clusters in a text that is read character by character.
class ClusterBreaks {
public:
    // Reads the next character. Returns whether a cluster starts at it.
    bool before(uint32_t code);

private:
    enum class Emoji : uint8_t { None, Pictograph, Joined };

    bool joins(Cluster next) const;
    void take(Cluster next);

    bool started_ = false;
    bool odd_regionals_ = false;
    bool consonant_ = false;  // a consonant, followed only by Extend, Joiner and Linker
    bool linked_ = false;     // a Linker among them
    Emoji emoji_ = Emoji::None;
    Cluster last_ = Cluster::Control;
};

}  // namespace moembed
