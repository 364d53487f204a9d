#include "base/status.h"

#include <algorithm>

namespace router {
namespace {

// The status table of the data plane. docs/status-codes.md shows it; tests/system checks
// every row against a live server.
constexpr Advice kTable[] = {
    {Code::ok, kNoPushback, "ok"},
    {Code::invalid_argument, kNoPushback, "bad_input"},
    {Code::invalid_argument, kNoPushback, "undecodable"},
    {Code::internal, kNoPushback, "bad_framing"},
    {Code::not_found, kNoPushback, "unknown_model"},
    {Code::unavailable, kNoPushback, "not_ready"},
    {Code::unavailable, kNoPushback, "draining"},
    {Code::resource_exhausted, 100, "overload"},
    {Code::resource_exhausted, -1, "message_too_large"},
    {Code::cancelled, kNoPushback, "cancelled"},
    {Code::deadline_exceeded, kNoPushback, "deadline"},
    {Code::unauthenticated, kNoPushback, "unauthenticated"},
    {Code::permission_denied, kNoPushback, "forbidden"},
    {Code::internal, kNoPushback, "model_failed"},
    {Code::unimplemented, kNoPushback, "unknown_method"},
    {Code::unimplemented, kNoPushback, "bad_encoding"},
    {Code::invalid_argument, kNoPushback, "refused_pin"},
    {Code::invalid_argument, kNoPushback, "refused_unit"},
};
static_assert(sizeof kTable / sizeof kTable[0] == static_cast<size_t>(Situation::count),
              "every situation has a row");

constexpr const char* kCodeNames[kCodeCount] = {
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED"};

}  // namespace

const Advice& advice_for(Situation situation) {
  return kTable[static_cast<unsigned>(situation)];
}

const char* code_name(Code code) {
  return static_cast<unsigned>(code) < kCodeCount ? kCodeNames[static_cast<unsigned>(code)]
                                                  : "INTERNAL";
}

std::string quoted(std::string_view name) {
  constexpr size_t kShownMax = 256;
  size_t size = std::min(name.size(), kShownMax);
  while (size < name.size() && size > 0 &&
         (static_cast<uint8_t>(name[size]) & 0xC0) == 0x80) {
    --size;  // whole characters only
  }
  std::string text(name.substr(0, size));
  for (char& c : text) {
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return "'" + text + (size < name.size() ? "...'" : "'");
}

}  // namespace router
