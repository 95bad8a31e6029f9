#include "penstock/precompiled.h"

#include <stdexcept>
#include <string>

#include "penstock/graphemes.h"
#include "penstock/utf8.h"

namespace penstock {
namespace {

// Longer clusters are looked up character by character.
constexpr std::size_t kClusterBytesMax = 5;
constexpr std::size_t kCharBytesMax = 4;

std::uint32_t child_base(std::uint32_t at, std::uint32_t unit) noexcept {
  return at ^ unit >> 10 << ((unit & 1U << 9) >> 6);
}

std::size_t put_utf8(std::uint32_t c, char* to) noexcept {
  const auto tail = [c](unsigned shift) { return static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) return to[0] = static_cast<char>(c), 1;
  if (c < 0x800) return to[0] = static_cast<char>(0xC0 | c >> 6), to[1] = tail(0), 2;
  if (c < 0x10000) return to[0] = static_cast<char>(0xE0 | c >> 12), to[1] = tail(6), to[2] = tail(0), 3;
  return to[0] = static_cast<char>(0xF0 | c >> 18), to[1] = tail(12), to[2] = tail(6), to[3] = tail(0), 4;
}

// What clusters become. While they are collected, `begin` of a character in `out` is its change: 1 for an
// inserted one, which will copy the alignment of the input before it; else it takes the next input character
// and passes over -change more.
class Changes {
 public:
  explicit Changes(AlignedText& out) noexcept : out_(out) { out_.clear(); }

  bool any() const noexcept { return any_; }

  void keep(std::uint32_t c) { out_.push_back({c, 0, 0}); }

  // `size` characters become `text`.
  void replace(std::int32_t size, std::string_view text) {
    any_ = true;
    std::int32_t count = 0;
    for (std::size_t at = 0; at < text.size(); ++count)
      out_.push_back({next_code_point(text, at), count >= size ? 1 : 0, 0});
    // Deleted characters belong to the last character so far, also if that replaced something else; at the
    // beginning there is none, and from there on every character takes its predecessor's alignment.
    if (count < size && !out_.empty()) out_.back().begin += count - size;
  }

  void align(const AlignedText& text) noexcept {
    std::size_t taken = 0;
    for (AlignedChar& c : out_) {
      const std::int32_t change = c.begin;
      // The first character is never an inserted one.
      const AlignedChar& source = text[change > 0 ? taken - 1 : taken];
      if (change <= 0) taken += 1 + static_cast<std::size_t>(-change);
      c.begin = source.begin;
      c.end = source.end;
    }
  }

 private:
  AlignedText& out_;
  bool any_ = false;
};

}  // namespace

Charsmap::Charsmap(std::span<const std::uint32_t> units, std::string_view texts) : units_(units), texts_(texts) {
  if (units.empty()) throw std::invalid_argument("the precompiled charsmap is empty; convert the tokenizer anew");
  if (!is_utf8(texts))
    throw std::invalid_argument("the precompiled charsmap's replacements are not UTF-8; convert the tokenizer anew");
  root_ = child_base(0, units[0]);
}

Charsmap::Charsmap(const BlobView& blob)
    : Charsmap(blob.records<std::uint32_t>(Section::kCharsmapTrie), blob.bytes(Section::kCharsmapTexts)) {}

const std::uint32_t* Charsmap::unit(std::uint32_t at, unsigned char label) const noexcept {
  return at < units_.size() && (units_[at] & 0x800000FFU) == label ? &units_[at] : nullptr;
}

std::optional<std::string_view> Charsmap::text(std::uint32_t leaf_at) const noexcept {
  if (leaf_at >= units_.size()) return std::nullopt;
  const std::uint32_t begin = units_[leaf_at] & 0x7FFFFFFFU;
  const auto is_inside_char = [this](std::size_t at) { return (static_cast<unsigned char>(texts_[at]) & 0xC0) == 0x80; };
  if (begin > texts_.size() || (begin < texts_.size() && is_inside_char(begin))) return std::nullopt;
  const std::string_view rest = texts_.substr(begin);
  return rest.substr(0, rest.find('\0'));
}

std::optional<std::string_view> Charsmap::replacement(std::string_view text) const noexcept {
  std::uint32_t at = root_;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (!byte) break;
    at ^= byte;
    const std::uint32_t* found = unit(at, byte);
    if (!found) break;
    at = child_base(at, *found);
    if (*found >> 8 & 1) return this->text(at);
  }
  return std::nullopt;
}

void PrecompiledStage::apply(AlignedText& text, AlignedText& spare, std::int32_t) const {
  Changes changes(spare);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = next_grapheme(text, begin);
    char bytes[kClusterBytesMax + kCharBytesMax];
    std::size_t size = 0;
    for (std::size_t i = begin; i < end && size <= kClusterBytesMax; ++i) size += put_utf8(text[i].code_point, bytes + size);
    const auto whole = size <= kClusterBytesMax ? charsmap_.replacement({bytes, size}) : std::nullopt;
    if (whole) changes.replace(static_cast<std::int32_t>(end - begin), *whole);
    for (std::size_t i = begin; i < end && !whole; ++i) {
      const auto one = charsmap_.replacement({bytes, put_utf8(text[i].code_point, bytes)});
      if (one) {
        changes.replace(1, *one);
      } else {
        changes.keep(text[i].code_point);
      }
    }
    begin = end;
  }
  if (!changes.any()) return;
  changes.align(text);
  text.swap(spare);
}

}  // namespace penstock
