#include "penstock/blob.h"

#include <cstring>

namespace penstock {

namespace {

constexpr char kMagic[8] = {'P', 'S', 'T', 'K', 'T', 'E', 'X', 'T'};

// The first bytes of a blob; penstock_kernels/blob.py writes the same.
struct Header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t checksum;  // CRC-32 of everything behind it
  std::uint64_t size;      // of the whole blob
  std::uint32_t sections;
  std::uint32_t unused;
};

// The header's table: one for each section, in the order of their numbers.
struct SectionEntry {
  std::uint32_t section;
  std::uint32_t unused;
  std::uint64_t at;
  std::uint64_t size;
};

static_assert(sizeof(Header) == 32 && sizeof(SectionEntry) == 24);
static_assert(sizeof(StageRecord) == 32 && sizeof(ConfigRecord) == 64 && alignof(ConfigRecord) == 8);
static_assert(sizeof(AddedTokenRecord) == 16 && sizeof(TemplateRecord) == 16);

std::span<const SectionEntry> entries(std::string_view bytes) noexcept {
  const auto* header = reinterpret_cast<const Header*>(bytes.data());
  return {reinterpret_cast<const SectionEntry*>(bytes.data() + sizeof(Header)), header->sections};
}

[[noreturn]] void refuse(const std::string& why) {
  throw std::invalid_argument("the compiled tokenizer is broken: " + why);
}

void check_header(std::string_view bytes) {
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(ConfigRecord))
    throw std::invalid_argument("a compiled tokenizer must lie at an address that 8 divides");
  if (bytes.size() < sizeof(Header)) refuse("it ends within its header");
  const auto* header = reinterpret_cast<const Header*>(bytes.data());
  if (std::memcmp(header->magic, kMagic, sizeof(kMagic)) != 0) refuse("it does not begin like one");
  if (header->version != kBlobVersion)
    refuse("its format is " + std::to_string(header->version) + ", not " + std::to_string(kBlobVersion));
  if (header->size != bytes.size()) refuse("it is not as long as it says");
  if (header->sections > (bytes.size() - sizeof(Header)) / sizeof(SectionEntry))
    refuse("it ends within its table of sections");
}

void check_entry(const SectionEntry& entry, std::size_t size) {
  if (entry.at % kSectionAlignment || entry.at > size || entry.size > size - entry.at)
    refuse("section " + std::to_string(entry.section) + " does not lie within it");
}

}  // namespace

BlobView::BlobView(std::string_view bytes) : bytes_(bytes) {
  check_header(bytes);
  std::uint32_t last = 0;
  for (const SectionEntry& entry : entries(bytes)) {
    if (entry.section <= last) refuse("its sections are not in order");
    last = entry.section;
    check_entry(entry, bytes.size());
  }
  if (find(Section::kConfig).size() != sizeof(ConfigRecord)) refuse("it has no configuration");
}

std::string_view BlobView::text(TextRef ref) const {
  const std::string_view strings = find(Section::kStrings);
  if (ref.at > strings.size() || ref.size > strings.size() - ref.at) refuse("a text lies outside its strings");
  return strings.substr(ref.at, ref.size);
}

const ConfigRecord& BlobView::config() const {
  return *reinterpret_cast<const ConfigRecord*>(find(Section::kConfig).data());
}

std::string_view BlobView::find(Section section) const noexcept {
  for (const SectionEntry& entry : entries(bytes_))
    if (entry.section == static_cast<std::uint32_t>(section)) return bytes_.substr(entry.at, entry.size);
  return {};
}

}  // namespace penstock
