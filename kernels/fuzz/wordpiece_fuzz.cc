// Any bytes, under any options: no crash, and the invariants that callers rely on.
//
// Built with libFuzzer by -DPENSTOCK_FUZZ=ON; kernels/tests/fuzz_smoke_test.cc runs the same body on seeded
// random input everywhere.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "../tests/check.h"
#include "penstock/utf8.h"
#include "penstock/wordpiece.h"

using namespace penstock;

namespace {

WordPieceSpec spec(bool strip, bool lower, bool clean) {
  WordPieceSpec made;
  for (const char* token : {"[PAD]", "[UNK]", "a", "b", "##a", "##b", "ab", "##ab", "\u4e2d", "!", "##\u0307", "i"})
    made.vocabulary.emplace_back(token, static_cast<std::int32_t>(made.vocabulary.size()));
  made.continuing_prefix = "##";
  made.unknown_id = 1;
  made.word_chars_max = 20;
  made.normalizer = {clean, true, strip, lower};
  made.raw_tokens = {{"[S]", 20, false, true, true}, {"[SS", 21, true, false, false}, {" [", 22, false, false, true}};
  made.normalized_tokens = {{"Ab b", 23, false, true, false}, {"\u00c9", 24, true, false, true}};
  const TemplatePiece special{TemplatePiece::Kind::kSpecial, 0, 25};
  made.single = {special, {TemplatePiece::Kind::kFirst, 0, 0}};
  made.pair = {{TemplatePiece::Kind::kSecond, 1, 0}, special, {TemplatePiece::Kind::kFirst, 0, 0}, special};
  return made;
}

EncodedRows encode(const WordPieceTokenizer& tokenizer, const TextView* texts, const TextView* pairs,
                   const EncodeOptions& options) {
  EncodedRows rows;
  CHECK(tokenizer.encode(texts, pairs, 1, options, rows) == EncodeStatus::kOk);
  CHECK(rows.starts.size() == 2 && rows.valid.size() == 1 && rows.truncated.size() == 1);
  CHECK(rows.starts[1] == static_cast<std::int64_t>(rows.ids.size()));
  CHECK(rows.type_ids.size() == rows.ids.size());
  CHECK(rows.offsets.size() == (options.return_offsets ? 2 * rows.ids.size() : 0));
  return rows;
}

void check_offsets(const EncodedRows& rows, std::string_view first, std::string_view second) {
  const auto longest = static_cast<std::int32_t>(std::max(count_code_points(first), count_code_points(second)));
  for (std::size_t i = 0; i < rows.offsets.size(); i += 2)
    CHECK(0 <= rows.offsets[i] && rows.offsets[i] <= rows.offsets[i + 1] && rows.offsets[i + 1] <= longest);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  static const WordPieceTokenizer tokenizers[] = {
      WordPieceTokenizer(spec(true, true, true)), WordPieceTokenizer(spec(false, true, true)),
      WordPieceTokenizer(spec(true, false, false)), WordPieceTokenizer(spec(false, false, false))};
  const WordPieceTokenizer& tokenizer = tokenizers[data[0] & 3];
  const bool has_pair = data[0] & 4, left = data[0] & 8;
  const std::int64_t limit = 2 + data[1] % 32;
  const std::string_view all(reinterpret_cast<const char*>(data + 3), size - 3);
  const std::size_t cut = std::min<std::size_t>(data[2], all.size());
  const std::string_view first = all.substr(0, has_pair ? cut : all.size());
  const std::string_view second = has_pair ? all.substr(cut) : std::string_view();
  const TextView text{first.data(), first.size(), false}, pair{second.data(), second.size(), false};
  const TextView* pairs = has_pair ? &pair : nullptr;

  const EncodedRows whole = encode(tokenizer, &text, pairs, {-1, left, true, true});
  CHECK(static_cast<bool>(whole.valid[0]) == (is_utf8(first) && is_utf8(second)));
  CHECK(!whole.truncated[0] && (whole.valid[0] || whole.ids.empty()));
  check_offsets(whole, first, second);

  const EncodedRows cut_rows = encode(tokenizer, &text, pairs, {limit, left, true, false});
  CHECK(cut_rows.ids.size() == std::min(whole.ids.size(), static_cast<std::size_t>(limit)));
  CHECK(static_cast<bool>(cut_rows.truncated[0]) == (whole.ids.size() > static_cast<std::size_t>(limit)));
  if (!cut_rows.truncated[0]) CHECK(cut_rows.ids == whole.ids);
  if (!has_pair && !left) CHECK(std::equal(cut_rows.ids.begin(), cut_rows.ids.end(), whole.ids.begin()));
  return 0;
}
