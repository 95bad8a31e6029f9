#include "penstock/blob.h"

#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"

using namespace penstock;

namespace {

// Bytes at an address that 64 divides, as a mapped file has.
class Aligned {
 public:
  explicit Aligned(const std::string& bytes) : room_(bytes.size() / 64 + 2) {
    std::memcpy(room_.data(), bytes.data(), bytes.size());
    view_ = {reinterpret_cast<const char*>(room_.data()), bytes.size()};
  }
  std::string_view view() const { return view_; }

 private:
  struct alignas(64) Line {
    char bytes[64];
  };
  std::vector<Line> room_;
  std::string_view view_;
};

template <typename T>
void put(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// A blob with a configuration and the strings "hello".
std::string small_blob() {
  std::string bytes = "PSTKTEXT";
  put<std::uint32_t>(bytes, kBlobVersion);
  put<std::uint32_t>(bytes, 0);
  put<std::uint64_t>(bytes, 192 + 5);
  put<std::uint32_t>(bytes, 2);
  put<std::uint32_t>(bytes, 0);
  for (const auto& [section, at, size] : {std::array<std::uint64_t, 3>{1, 128, 64}, {2, 192, 5}}) {
    put<std::uint32_t>(bytes, static_cast<std::uint32_t>(section));
    put<std::uint32_t>(bytes, 0);
    put<std::uint64_t>(bytes, at);
    put<std::uint64_t>(bytes, size);
  }
  bytes.resize(128);
  ConfigRecord config{};
  config.ids_end = 42;
  put(bytes, config);
  return bytes + "hello";
}

bool is_refused(const std::string& bytes) {
  const Aligned aligned(bytes);
  try {
    const BlobView view(aligned.view());
    return false;
  } catch (const std::invalid_argument&) {
    return true;
  }
}

void sections_are_read_in_place() {
  const Aligned aligned(small_blob());
  const BlobView blob(aligned.view());
  CHECK(blob.config().ids_end == 42);
  CHECK(blob.bytes(Section::kStrings) == "hello" && blob.bytes(Section::kScores).empty());
  CHECK(blob.records<StageRecord>(Section::kNormalizers).empty());
  CHECK(blob.text({1, 3}) == "ell" && blob.text({5, 0}).empty());
}

template <typename Call>
bool throws(Call call) {
  try {
    call();
    return false;
  } catch (const std::invalid_argument&) {
    return true;
  }
}

void records_and_texts_that_do_not_fit_are_refused() {
  const Aligned aligned(small_blob());
  const BlobView blob(aligned.view());
  CHECK(throws([&] { blob.records<StageRecord>(Section::kStrings); }));
  CHECK(throws([&] { blob.text({3, 3}); }));
  CHECK(throws([&] { blob.text({6, 0}); }));
  CHECK(throws([&] { blob.text({4, 0xFFFFFFFF}); }));
  CHECK(throws([&] { BlobView(aligned.view().substr(4)); }));
}

void a_blob_cut_anywhere_is_refused() {
  const std::string whole = small_blob();
  for (std::size_t size = 0; size < whole.size(); ++size) CHECK(is_refused(whole.substr(0, size)));
  CHECK(is_refused(whole + "x"));
}

// Whatever the header says, nothing outside the blob is read: the sanitizers watch.
void broken_headers_lead_nowhere() {
  std::mt19937 random(22);
  const std::string whole = small_blob();
  for (int round = 0; round < 100000; ++round) {
    std::string bytes = whole;
    for (unsigned flips = 1 + random() % 3; flips; --flips) bytes[random() % 128] = static_cast<char>(random() >> 8);
    const Aligned aligned(bytes);
    try {
      const BlobView blob(aligned.view());
      unsigned sum = static_cast<unsigned>(blob.config().ids_end);
      for (std::uint32_t section = 1; section < 20; ++section)
        for (const char byte : blob.bytes(static_cast<Section>(section))) sum += static_cast<unsigned char>(byte);
      CHECK(sum != 0);
    } catch (const std::invalid_argument&) {
    }
  }
}

}  // namespace

int main() {
  sections_are_read_in_place();
  records_and_texts_that_do_not_fit_are_refused();
  a_blob_cut_anywhere_is_refused();
  broken_headers_lead_nowhere();
}
