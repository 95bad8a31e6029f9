#include "penstock/graphemes.h"

#include "penstock/utf8.h"

namespace penstock {
namespace {

using Class = GraphemeClass;

bool is_control(Class c) noexcept { return c == Class::kControl || c == Class::kCr || c == Class::kLf; }

bool is_extend(Class c) noexcept { return c == Class::kExtend || c == Class::kPlainExtend || c == Class::kLinker; }

}  // namespace

bool GraphemeBreaker::joins(Class next) const noexcept {
  if (is_control(previous_) || is_control(next)) return previous_ == Class::kCr && next == Class::kLf;
  if (is_extend(next) || next == Class::kJoiner || next == Class::kSpacingMark) return true;
  switch (previous_) {
    case Class::kPrepend:
      return true;
    case Class::kLead:
      return next == Class::kLead || next == Class::kVowel || next == Class::kSyllable;
    case Class::kVowel:
      return next == Class::kVowel || next == Class::kTail;
    case Class::kTail:
      return next == Class::kTail;
    default:
      break;
  }
  if (next == Class::kConsonant) return conjunct_ == Progress::kComplete;
  if (next == Class::kPictographic) return pictograph_ == Progress::kComplete;
  return next == Class::kRegional && is_half_flag_;
}

bool GraphemeBreaker::begins(std::uint32_t code_point) noexcept {
  const Class next = UnicodeTables::get().info(code_point).grapheme;
  const bool is_joined = joins(next);
  if (next == Class::kPictographic) {
    pictograph_ = Progress::kStarted;
  } else if (pictograph_ != Progress::kStarted || !is_extend(next)) {
    const bool completes = pictograph_ == Progress::kStarted && next == Class::kJoiner;
    pictograph_ = completes ? Progress::kComplete : Progress::kNone;
  }
  if (next == Class::kConsonant) {
    conjunct_ = Progress::kStarted;
  } else if (next == Class::kLinker) {
    if (conjunct_ == Progress::kStarted) conjunct_ = Progress::kComplete;
  } else if (next != Class::kExtend && next != Class::kJoiner) {
    conjunct_ = Progress::kNone;
  }
  is_half_flag_ = next == Class::kRegional && !(is_half_flag_ && is_joined);
  previous_ = next;
  if (next == Class::kSyllable)
    previous_ = (code_point - hangul::kSyllableFirst) % hangul::kTailCount ? Class::kTail : Class::kVowel;
  return !is_joined;
}

std::size_t next_grapheme(std::string_view text, std::size_t at) noexcept {
  const auto is_ascii = [&](std::size_t i) { return static_cast<unsigned char>(text[i]) < 0x80; };
  if (is_ascii(at) && text[at] != '\r' && (at + 1 == text.size() || is_ascii(at + 1))) return at + 1;
  GraphemeBreaker breaker;
  breaker.begins(next_code_point(text, at));
  while (at < text.size()) {
    std::size_t end = at;
    if (breaker.begins(next_code_point(text, end))) break;
    at = end;
  }
  return at;
}

std::size_t next_grapheme(const AlignedText& text, std::size_t at) noexcept {
  GraphemeBreaker breaker;
  breaker.begins(text[at].code_point);
  do ++at;
  while (at < text.size() && !breaker.begins(text[at].code_point));
  return at;
}

}  // namespace penstock
