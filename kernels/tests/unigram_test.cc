#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "penstock/metaspace.h"
#include "penstock/precompiled.h"
#include "penstock/utf8.h"

using namespace penstock;

namespace {

AlignedText aligned(const std::string& text) {
  AlignedText chars;
  for (std::size_t at = 0; at < text.size();) {
    const auto index = static_cast<std::int32_t>(chars.size());
    chars.push_back({next_code_point(text, at), index, index + 1});
  }
  return chars;
}

// The units of a map with the keys "a" and "b", whose replacements are texts[0..] and texts[2..].
std::vector<std::uint32_t> two_keys() {
  constexpr std::uint32_t has_leaf = 1U << 8, leaf = 1U << 31;
  std::vector<std::uint32_t> units(512, leaf | 0xFF);
  units[0] = 256U << 10;
  units[256 ^ 'a'] = 'a' | has_leaf | 1U << 10;
  units[256 ^ 'b'] = 'b' | has_leaf | 4U << 10;
  units[256 ^ 'a' ^ 1] = leaf | 0;
  units[256 ^ 'b' ^ 4] = leaf | 2;
  return units;
}

AlignedText precompiled(const Charsmap& charsmap, const std::string& text) {
  AlignedText chars = aligned(text), spare;
  PrecompiledStage(charsmap).apply(chars, spare, 0);
  return chars;
}

void replacements_take_over_alignments() {
  const std::vector<std::uint32_t> units = two_keys();
  const Charsmap charsmap(units, std::string_view("\0\0xyz\0", 6));
  CHECK(charsmap.replacement("a") == "");
  CHECK(charsmap.replacement("bc") == "xyz");
  CHECK(!charsmap.replacement("c"));
  CHECK(charsmap.has_keys('a') && !charsmap.has_keys('c'));
  // What "b" grew by stands for it too; the deleted "a" behind it takes the last one's place.
  CHECK(precompiled(charsmap, "cba") == (AlignedText{{'c', 0, 1}, {'x', 1, 2}, {'y', 1, 2}, {'z', 2, 3}}));
  // A deletion at the beginning shifts what follows.
  CHECK(precompiled(charsmap, "acc") == (AlignedText{{'c', 0, 1}, {'c', 1, 2}}));
  // A cluster becomes what its shortest prefix does.
  CHECK(precompiled(charsmap, "b\u0301c") == (AlignedText{{'x', 0, 1}, {'y', 1, 2}, {'z', 1, 2}, {'c', 2, 3}}));
}

void malformed_maps_are_refused_or_harmless() {
  const auto is_refused = [](std::span<const std::uint32_t> units, std::string_view texts) {
    try {
      const Charsmap charsmap(units, texts);
      return false;
    } catch (const std::invalid_argument&) {
      return true;
    }
  };
  const std::vector<std::uint32_t> one(1, 0xFFFFFFFF);
  CHECK(is_refused({}, ""));
  CHECK(is_refused(one, "\xFF"));
  CHECK(!is_refused(one, ""));

  std::mt19937 random(7);
  const std::string texts = "\u00e9\u4e2d\0x", sample = "ab\u00e9 \u4e2d\u0301\U0001f600";
  int found = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::uint32_t> units(1 + random() % 300);
    for (std::uint32_t& unit : units) unit = random() % 2 ? random() & 0x8007FFFFU : 0x80000000U | random() % 12;
    units[0] = random() & 0x7FFFFU;
    // Labels that match now and then, so that the walk goes on.
    for (const char c : sample) units[random() % units.size()] = static_cast<unsigned char>(c) | (random() & 0x3FF00U);
    const Charsmap charsmap(units, texts);
    const AlignedText chars = precompiled(charsmap, sample);
    for (const AlignedChar& c : chars) CHECK(c.code_point < 0x110000 && c.begin >= 0 && c.begin < c.end);
    found += chars != aligned(sample);
  }
  CHECK(found > 0);
}

std::vector<std::string> metaspace(const MetaspaceStage& stage, const std::string& text, std::int32_t origin) {
  Words words, spare;
  words.chars = aligned(text);
  for (AlignedChar& c : words.chars) c.begin += origin, c.end += origin;
  words.words.push_back({0, static_cast<std::uint32_t>(words.chars.size()), origin});
  stage.apply(words, spare);
  std::vector<std::string> parts;
  for (const Words::Word& word : words.words) {
    std::string part;
    for (std::uint32_t i = word.begin; i < word.end; ++i) append_utf8(part, words.chars[i].code_point);
    CHECK(word.origin == words.chars[word.begin].begin);
    parts.push_back(part);
  }
  return parts;
}

void words_begin_with_the_mark() {
  using Parts = std::vector<std::string>;
  const MetaspaceStage always("\u2581", 0, true), never("\u2581", 1, true), first("\u2581", 2, true);
  CHECK(metaspace(always, "a b", 0) == (Parts{"\u2581a", "\u2581b"}));
  CHECK(metaspace(never, "a  b", 0) == (Parts{"a", "\u2581", "\u2581b"}));
  CHECK(metaspace(first, "a ", 0) == (Parts{"\u2581a", "\u2581"}));
  CHECK(metaspace(first, "a\u2581b", 3) == (Parts{"a", "\u2581b"}));
  CHECK(metaspace(MetaspaceStage("\u2581", 0, false), "a b", 0) == (Parts{"\u2581a\u2581b"}));
  bool is_refused = false;
  try {
    MetaspaceStage("ab", 0, true);
  } catch (const std::invalid_argument&) {
    is_refused = true;
  }
  CHECK(is_refused);
}

}  // namespace

int main() {
  replacements_take_over_alignments();
  malformed_maps_are_refused_or_harmless();
  words_begin_with_the_mark();
  return 0;
}
