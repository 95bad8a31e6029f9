#include "penstock/unicode.h"

#include <cstring>
#include <map>
#include <string>

namespace penstock {
namespace {

#include "unicode_tables.inc"

constexpr std::size_t kCodePoints = 0x110000;

template <std::size_t Rows>
void set_flag(std::vector<CharInfo>& all, const std::int32_t (&ranges)[Rows][2], CharFlag flag) {
  for (const auto& range : ranges)
    for (std::int32_t c = range[0]; c <= range[1]; ++c) all[static_cast<std::size_t>(c)].flags |= flag;
}

std::vector<CharInfo> expand(std::vector<Decomposition>& decompositions) {
  std::vector<CharInfo> all(kCodePoints);
  set_flag(all, kCleanRemoved_, kCleanRemoved);
  set_flag(all, kCleanSpaces_, kCleanSpace);
  set_flag(all, kCjk_, kCjk);
  set_flag(all, kMarks_, kMark);
  set_flag(all, kWhitespace_, kWhitespace);
  set_flag(all, kPunctuation_, kPunctuation);
  set_flag(all, kWord_, kWord);
  for (const auto& [first, last, value] : kCombining_)
    for (std::int32_t c = first; c <= last; ++c)
      all[static_cast<std::size_t>(c)].combining_class = static_cast<std::uint8_t>(value);
  for (const auto& [first, last, step, distance] : kLower_)
    for (std::int32_t c = first; c <= last; c += step) all[static_cast<std::size_t>(c)].lower_distance = distance;
  for (const std::int32_t *row = std::begin(kDecompositions_); row != std::end(kDecompositions_);
       row += 2 + row[1]) {
    decompositions.push_back({row + 2, static_cast<std::size_t>(row[1])});
    all[static_cast<std::size_t>(row[0])].decomposition = static_cast<std::uint16_t>(decompositions.size());
  }
  return all;
}

}  // namespace

UnicodeTables::UnicodeTables() {
  static_assert(sizeof(CharInfo) == 8, "blocks are compared as bytes");
  const std::vector<CharInfo> all = expand(decompositions_);
  constexpr std::size_t block_size = std::size_t{1} << kShift;
  std::map<std::string, std::uint16_t> seen;
  for (std::size_t at = 0; at < kCodePoints; at += block_size) {
    std::string key(reinterpret_cast<const char*>(&all[at]), block_size * sizeof(CharInfo));
    const auto [found, is_new] = seen.try_emplace(std::move(key), static_cast<std::uint16_t>(seen.size()));
    if (is_new) blocks_.insert(blocks_.end(), all.begin() + static_cast<std::ptrdiff_t>(at),
                               all.begin() + static_cast<std::ptrdiff_t>(at + block_size));
    block_of_.push_back(found->second);
  }
}

const UnicodeTables& UnicodeTables::get() {
  static const UnicodeTables tables;
  return tables;
}

}  // namespace penstock
