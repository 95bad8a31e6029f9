#include "penstock/wordpiece.h"

#include <stdexcept>
#include <string>

#include "check.h"
#include "penstock/trie.h"
#include "penstock/utf8.h"

using namespace penstock;

namespace {

using Ids = std::vector<std::int32_t>;

WordPieceSpec spec() {
  WordPieceSpec made;
  const char* tokens[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "e", "!", "\u4e2d", "##a", "##b"};
  for (const char* token : tokens)
    made.vocabulary.emplace_back(token, static_cast<std::int32_t>(made.vocabulary.size()));
  made.continuing_prefix = "##";
  made.unknown_id = 1;
  made.word_chars_max = 100;
  made.raw_tokens = {{"[SEP]", 3, false, false, false}};
  const TemplatePiece cls{TemplatePiece::Kind::kSpecial, 0, 2}, sep{TemplatePiece::Kind::kSpecial, 0, 3};
  const TemplatePiece first{TemplatePiece::Kind::kFirst, 0, 0}, second{TemplatePiece::Kind::kSecond, 1, 0};
  made.single = {cls, first, sep};
  made.pair = {cls, first, sep, second, sep};
  return made;
}

EncodedRows encode(const std::string& text, EncodeOptions options = {-1, false, true, true}) {
  const WordPieceTokenizer tokenizer(spec());
  const TextView view{text.data(), text.size(), false};
  EncodedRows rows;
  CHECK(tokenizer.encode(&view, nullptr, 1, options, rows) == EncodeStatus::kOk);
  return rows;
}

void words_become_their_longest_pieces() {
  const EncodedRows rows = encode("UNaffable!");
  CHECK((rows.ids == Ids{2, 4, 5, 6, 8, 3}));
  CHECK((rows.offsets == Ids{0, 0, 0, 2, 2, 5, 5, 9, 9, 10, 0, 0}));
}

void offsets_count_code_points_of_the_input() {
  const EncodedRows rows = encode("\u4e2d e\u0301 [SEP]");
  CHECK((rows.ids == Ids{2, 9, 7, 3, 3}));
  CHECK((rows.offsets == Ids{0, 0, 0, 1, 2, 3, 5, 10, 0, 0}));
}

void a_word_that_cannot_be_spelt_is_unknown_as_a_whole() { CHECK((encode("unz").ids == Ids{2, 1, 3})); }

void limits_cut_either_end() {
  CHECK((encode("e ! un", {4, false, true, false}).ids == Ids{2, 7, 8, 3}));
  CHECK((encode("e ! un", {4, true, true, false}).ids == Ids{2, 8, 4, 3}));
  CHECK(encode("e ! un", {4, false, true, false}).truncated.at(0));
  CHECK(!encode("e !", {4, false, true, false}).truncated.at(0));
}

void a_limit_below_the_special_tokens_is_reported() {
  const WordPieceTokenizer tokenizer(spec());
  const TextView view{"e", 1, true};
  EncodedRows rows;
  CHECK(tokenizer.encode(&view, nullptr, 1, {1, false, true, false}, rows) == EncodeStatus::kLimitBelowSpecialTokens);
}

void bytes_that_are_not_utf8_are_an_empty_row() {
  const EncodedRows rows = encode("e\xff");
  CHECK(!rows.valid.at(0) && rows.ids.empty() && rows.starts.size() == 2);
}

void utf8_is_checked_strictly() {
  for (const char* good : {"", "a", "\u00e9", "\ud7ff", "\ue000", "\U0010ffff", "aaaaaaaaaaaaaaaa\u20ac"}) CHECK(is_utf8(good));
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82", "\xf0\x8f\xbf\xbf",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "aaaaaaaa\xe2\x28\xa1"})
    CHECK(!is_utf8(bad));
}

void tries_find_the_longest_key_and_keep_the_last_value() {
  Trie trie;
  for (std::int32_t i = 0; i < 5000; ++i) trie.insert("key" + std::to_string(i), i);
  trie.insert("key1", 7);
  CHECK(trie.longest("key12345").value == 1234 && trie.longest("key12345").size == 7);
  CHECK(trie.longest("key1x").value == 7);
  CHECK(trie.longest("ke").size == 0 && trie.find("ke") != Trie::kNone && trie.find("kx") == Trie::kNone);
}

void contradicting_added_tokens_are_refused() {
  WordPieceSpec made = spec();
  made.normalized_tokens = {{"Foo", 20, false, false, false}, {"foo", 21, false, false, false}};
  try {
    const WordPieceTokenizer tokenizer(made);
  } catch (const std::invalid_argument&) {
    return;
  }
  CHECK(false);
}

}  // namespace

int main() {
  words_become_their_longest_pieces();
  offsets_count_code_points_of_the_input();
  a_word_that_cannot_be_spelt_is_unknown_as_a_whole();
  limits_cut_either_end();
  a_limit_below_the_special_tokens_is_reported();
  bytes_that_are_not_utf8_are_an_empty_row();
  utf8_is_checked_strictly();
  tries_find_the_longest_key_and_keep_the_last_value();
  contradicting_added_tokens_are_refused();
}
