#include "penstock/normalizers.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "check.h"
#include "penstock/utf8.h"

using namespace penstock;

namespace {

AlignedText aligned(const std::string& text, std::int32_t begin = 0) {
  AlignedText characters;
  for (std::size_t at = 0; at < text.size(); ++begin) characters.push_back({next_code_point(text, at), begin, begin + 1});
  return characters;
}

AlignedText run(const NormalizerStage& stage, const std::string& text, std::int32_t begin = 0) {
  AlignedText characters = aligned(text, begin), spare{{'?', 9, 9}};
  stage.apply(characters, spare, begin);
  return characters;
}

AlignedText run(UnicodeForm form, const std::string& text) { return run(UnicodeFormStage(form), text); }

void composed_characters_stand_for_their_first() {
  CHECK((run(UnicodeForm::kNfc, "e\u0301x") == AlignedText{{0xE9, 0, 1}, {'x', 2, 3}}));
  CHECK((run(UnicodeForm::kNfc, "\u1100\u1161\u11a8x") == AlignedText{{0xAC01, 0, 1}, {'x', 3, 4}}));
  CHECK((run(UnicodeForm::kNfc, "a\u0302\u0323x") == AlignedText{{0x1EAD, 0, 1}, {'x', 3, 4}}));
}

void marks_in_order_take_alignments_in_input_order() {
  CHECK((run(UnicodeForm::kNfc, "a\u0315\u0300\u05aeb") ==
         AlignedText{{0xE0, 0, 1}, {0x5AE, 2, 3}, {0x315, 3, 4}, {'b', 4, 5}}));
  CHECK((run(UnicodeForm::kNfd, "\u1ea7") == AlignedText{{'a', 0, 1}, {0x302, 0, 1}, {0x300, 0, 1}}));
}

void blocked_marks_do_not_compose() {
  CHECK((run(UnicodeForm::kNfc, "a\u0301\u0301") == AlignedText{{0xE1, 0, 1}, {0x301, 2, 3}}));
  CHECK((run(UnicodeForm::kNfc, "\u0301a") == AlignedText{{0x301, 0, 1}, {'a', 1, 2}}));
  CHECK((run(UnicodeForm::kNfc, "\u0344") == AlignedText{{0x308, 0, 1}, {0x301, 0, 1}}));
}

void characters_compose_in_pairs() {
  const UnicodeTables& tables = UnicodeTables::get();
  CHECK(tables.compose('e', 0x301) == 0xE9 && tables.compose(0x301, 'e') == 0 && tables.compose('q', 0x301) == 0);
  CHECK(tables.compose(0x1100, 0x1161) == 0xAC00 && tables.compose(0x1112, 0x1175) == 0xD788);
  CHECK(tables.compose(0x1113, 0x1161) == 0 && tables.compose(0x1100, 0x1176) == 0);
  CHECK(tables.compose(0xAC00, 0x11A8) == 0xAC01 && tables.compose(0xD788, 0x11C2) == 0xD7A3);
  CHECK(tables.compose(0xAC00, 0x11A7) == 0 && tables.compose(0xAC00, 0x11C3) == 0 && tables.compose(0xAC01, 0x11A8) == 0);
}

void compatibility_forms_spell_ligatures_out() {
  CHECK((run(UnicodeForm::kNfkc, "\ufb03x") == AlignedText{{'f', 0, 1}, {'f', 0, 1}, {'i', 0, 1}, {'x', 1, 2}}));
  CHECK((run(UnicodeForm::kNfc, "\ufb03") == AlignedText{{0xFB03, 0, 1}}));
}

void long_runs_of_marks_are_sorted_stably() {
  std::string text = "a";
  for (int i = 0; i < 1000; ++i) text += i % 2 ? "\u0323" : "\u0315";
  const AlignedText sorted = run(UnicodeForm::kNfd, text);
  CHECK(sorted.size() == 1001 && sorted[500].code_point == 0x323 && sorted[501].code_point == 0x315);
  for (std::int32_t i = 0; i < 1001; ++i) CHECK(sorted[static_cast<std::size_t>(i)].begin == i);
}

void inert_characters_are_left_alone_by_their_form() {
  for (const UnicodeForm form : {UnicodeForm::kNfc, UnicodeForm::kNfd, UnicodeForm::kNfkc, UnicodeForm::kNfkd}) {
    AlignedText characters, spare;
    for (std::uint32_t c = 0; c < 0x110000; ++c)
      if (c - 0xD800 >= 0x800 && is_inert(form, c)) characters.push_back({c, 0, 1});
    const AlignedText before = characters;
    // One that isn't inert makes the stage do all its work.
    characters.push_back({0x340, 0, 1});
    UnicodeFormStage(form).apply(characters, spare, 0);
    CHECK(characters.size() == before.size() + 1 && std::equal(before.begin(), before.end(), characters.begin()));
  }
  CHECK(is_inert(UnicodeForm::kNfc, std::string_view("Zürich und München, naïve")));
  CHECK(!is_inert(UnicodeForm::kNfc, std::string_view("Zu\u0308rich und Mu\u0308nchen")));
  CHECK(!is_inert(UnicodeForm::kNfd, std::string_view("Straße in Zürich")));
}

void lower_case_knows_no_context() {
  CHECK((run(LowercaseStage(), "\u0130\u03a3") == AlignedText{{'i', 0, 1}, {0x307, 0, 1}, {0x3C3, 1, 2}}));
}

void stripping_narrows_nothing() {
  CHECK((run(StripStage(true, true), " \u3000a b\t", 5) == AlignedText{{'a', 7, 8}, {' ', 8, 9}, {'b', 9, 10}}));
  CHECK((run(StripStage(false, true), " a ") == AlignedText{{' ', 0, 1}, {'a', 1, 2}}));
  CHECK(run(StripStage(true, false), "  ").empty() && run(StripStage(false, true), "  ").empty());
  CHECK((run(StripAccentsStage(), "e\u0301\u0903x") == AlignedText{{'e', 0, 1}, {'x', 3, 4}}));
}

void replacements_stand_for_the_last_character_replaced() {
  CHECK((run(ReplaceStage("aa", "xyz"), "baaa") ==
         AlignedText{{'b', 0, 1}, {'x', 2, 3}, {'y', 2, 3}, {'z', 2, 3}, {'a', 3, 4}}));
  CHECK((run(ReplaceStage("aab", ""), "aaab") == AlignedText{{'a', 0, 1}}));
  CHECK((run(ReplaceSpaceRunsStage("\u2581"), "a   b c") ==
         AlignedText{{'a', 0, 1}, {0x2581, 3, 4}, {'b', 4, 5}, {' ', 5, 6}, {'c', 6, 7}}));
}

void what_is_put_before_stands_for_the_first_character() {
  CHECK((run(PrependStage("\u2581x"), "ab", 3) == AlignedText{{0x2581, 3, 4}, {'x', 3, 4}, {'a', 3, 4}, {'b', 4, 5}}));
  CHECK(run(PrependStage("x"), "").empty());
}

void unusable_texts_are_refused() {
  int refused = 0;
  for (const char* text : {"", "\xff"}) {
    try {
      const PrependStage stage(text);
    } catch (const std::invalid_argument&) {
      ++refused;
    }
    try {
      const ReplaceStage stage(text, "a");
    } catch (const std::invalid_argument&) {
      ++refused;
    }
  }
  CHECK(refused == 4);
}

}  // namespace

int main() {
  composed_characters_stand_for_their_first();
  marks_in_order_take_alignments_in_input_order();
  blocked_marks_do_not_compose();
  characters_compose_in_pairs();
  compatibility_forms_spell_ligatures_out();
  long_runs_of_marks_are_sorted_stably();
  inert_characters_are_left_alone_by_their_form();
  lower_case_knows_no_context();
  stripping_narrows_nothing();
  replacements_stand_for_the_last_character_replaced();
  what_is_put_before_stands_for_the_first_character();
  unusable_texts_are_refused();
}
