// Extended grapheme clusters of Unicode 17.0 (UAX #29).
#pragma once

#include <cstdint>

namespace moembed {

// The numbers are those of grapheme_table.h. Extend is divided by its part in Indic conjuncts.
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

// Reads a text character by character from its start and says where clusters begin.
class ClusterBreaks {
public:
    // Whether a cluster begins at the next character.
    bool before(uint32_t code);

private:
    enum class Emoji : uint8_t { None, Pictograph, Joined };

    bool joins(Cluster next) const;
    void take(Cluster next);

    bool started_ = false;
    bool odd_regionals_ = false;
    bool consonant_ = false;  // a consonant, then only Extend, Joiner and Linker
    bool linked_ = false;     // a Linker among them
    Emoji emoji_ = Emoji::None;
    Cluster last_ = Cluster::Control;
};

}  // namespace moembed
