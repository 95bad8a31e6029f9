// Runs the fuzz target on seeded random input, so that sanitizers see it where libFuzzer is not installed.
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "../fuzz/tokenizer_fuzz.cc"

int main() {
  constexpr unsigned kSeed = 20260101;
  constexpr int kRuns = 60000;
  std::printf("seed %u, %d runs\n", kSeed, kRuns);
  const std::vector<std::string> parts{"a",      "b",      "ab",     " ",      "\n",     "[S]",    "[SS",    "[",
                                       "\u0130", "\u00c9", "e\u0301", "\u0323", "\u0345", "\uac01", "\u4e2d", "\U0001d15e",
                                       "\u0f73", "\u200b", "!",      "\xff",   "\xe2",   "Ab B",   "\u00a0", "_",
                                       "\u2581", "  ",     "i",      "'s",     "12",     "\u0308", "\u1100", "\u1161",
                                       "aaaaaaaaaaaaaaaa", "ab ab ab ab ab ab ab ab ab ab ab ab "};
  std::mt19937 random(kSeed);
  for (int run = 0; run < kRuns; ++run) {
    std::string input;
    for (int i = 0; i < 6; ++i) input += static_cast<char>(random());
    const unsigned length = random() % 40;
    for (unsigned i = 0; i < length; ++i) {
      const std::string& part = parts[random() % parts.size()];
      // One bad byte makes the whole text invalid: most inputs have none.
      if (!is_utf8(part) && random() % 50) continue;
      input += part;
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  }
}
